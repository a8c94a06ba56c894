//! The real driver: a CUDA device through libcuda and cublasLt, which are loaded when a device is opened.
//!
//! Everything runs in one stream, in order. Kernels are compiled for the device's architecture at their first use and kept on
//! disk, by their source, options and compiler. Products choose their algorithm once for each kind of product, among those
//! whose sums have one order, so that a device gives the same bits each time.
//!
//! This is a seam file (invariant 7): CUDA is a C library. Addresses that come in are those that [`Driver::allocate`] gave;
//! what a kernel does with them the emulated driver's tests hold.
//!
//! It was written without a device at hand. Its kernels and launches are those that the emulated driver runs; its calls were
//! made of the CUDA stub (`tests/cuda_stub`), which holds them to the documentation. No GPU has run it.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::ffi::{CStr, CString, c_void};
use std::fmt::Display;
use std::ops::Range;
use std::sync::Arc;

use cudarc::driver::{result, sys};

use super::driver::{
    Address, Capacity, Command, DType, Driver, Epilogue, HEADER, Launch, Product, Ticket, Timed, Times, Value,
};
#[cfg(unix)]
use super::nccl::Nccl;
use super::products::Products;
use super::support::Unsupported;
use super::surroundings::{CAREFUL, surroundings};
use super::{compiler, peers, probe};
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::ranks::{Communicator, Cut};

/// Shared memory that a kernel has without asking, in bytes.
const USUAL_SHARED: usize = 48 << 10;
/// Lists of commands that are kept as graphs. A training has one for each number of padded masked rows: each of a step's
/// micro-batches has its own masked fraction, hence one or two padded numbers.
const GRAPHS: usize = 128;
/// Pieces of the host's memory that copies to and from the device pass through: while the device reads one, the next is
/// filled.
const STAGES: usize = 3;
/// Bytes that are copied to the device at a time.
const STAGE: usize = 64 << 20;

/// A CUDA device.
pub struct Device {
    /// As the driver calls it.
    name: String,
    /// `sm_90a`
    architecture: String,
    /// NVRTC's version: what a later one makes an earlier driver may refuse.
    compiler: String,
    context: sys::CUcontext,
    stream: sys::CUstream,
    products: Products,
    kernels: RefCell<HashMap<KernelKey, Kernel>>,
    /// Modules by the identity of what they were compiled from.
    modules: RefCell<HashMap<String, sys::CUmodule>>,
    /// Commands that came to be kept, the last used ones at the end; captured when they come for the second time.
    graphs: RefCell<Vec<(Vec<Command>, Option<sys::CUgraphExec>)>>,
    /// What is being written, in turns.
    stages: RefCell<[Option<Pinned>; STAGES]>,
    next_stage: Cell<usize>,
    /// What was fetched and not collected, and pieces for what comes.
    fetched: RefCell<HashMap<u64, Pinned>>,
    idle: RefCell<Vec<Pinned>>,
    tickets: Cell<u64>,
    is_careful: bool,
    /// Whether products do nothing but multiply.
    is_plain: bool,
    times: RefCell<Option<Times>>,
    /// How numbers travel to the devices of other ranks.
    peers: RefCell<Option<Peers>>,
}

/// The devices of other ranks.
enum Peers {
    /// From device to device.
    #[cfg(unix)]
    Nccl(Nccl),
    /// Through the memory of the hosts: there is no NCCL.
    Host(Arc<dyn Communicator>),
}

/// Memory of the host that the device copies to and from by itself, and the event after which it is done.
struct Pinned {
    at: *mut u8,
    bytes: usize,
    used: usize,
    done: sys::CUevent,
}

impl Pinned {
    /// So much, or some more.
    fn new(bytes: usize) -> Result<Self, result::DriverError> {
        let bytes = bytes.max(1).next_power_of_two();
        // SAFETY: a context is current; given back by `Drop`.
        let at = unsafe { result::malloc_host(bytes, 0) }?;
        let done = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        Ok(Self {
            at: at.cast(),
            bytes,
            used: 0,
            done,
        })
    }

    /// Until the device is done with it.
    fn wait(&self) -> Result<(), result::DriverError> {
        // SAFETY: the event is there; one that was never recorded has ended.
        unsafe { result::event::synchronize(self.done) }
    }

    fn content(&mut self) -> &mut [u8] {
        // SAFETY: so many bytes are ours, and the device is not at them: callers have waited.
        unsafe { std::slice::from_raw_parts_mut(self.at, self.used) }
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        // SAFETY: made by `new` and given back once, when the device is done.
        unsafe {
            let _ = result::event::synchronize(self.done);
            let _ = result::event::destroy(self.done);
            let _ = result::free_host(self.at.cast());
        }
    }
}

#[derive(Clone, Copy)]
struct Kernel(sys::CUfunction);

/// What a kernel is compiled from: names of operation and kernel, what it is compiled for.
#[derive(PartialEq, Eq, Hash)]
struct KernelKey {
    names: [&'static str; 2],
    element: DType,
    constants: Vec<(&'static str, u64)>,
}

impl KernelKey {
    fn of(launch: &Launch) -> Self {
        let bits = |value: &Value| match value {
            Value::Whole(number) => *number as u64,
            Value::Real(real) => u64::from(real.to_bits()),
        };
        Self {
            names: [launch.kernels.name, launch.kernel],
            element: launch.element,
            constants: launch
                .constants
                .iter()
                .map(|(name, value)| (*name, bits(value)))
                .collect(),
        }
    }
}

/// The error of a driver call. A failed kernel is reported by the next call, so that the call itself need not be at fault.
fn failed(what: impl Display, error: result::DriverError) -> Error {
    let words = error.error_string().map(CStr::to_string_lossy);
    let words = words.unwrap_or_else(|_| "the driver gives no reason".into());
    let error_text = Error::environment(format!("{what}: {words} ({:?})", error.0));
    match error.0 {
        sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY => error_text
            .hint("lower `micro_batch`, choose a smaller shape, or end other processes that use the device"),
        _ => error_text.hint(careful()),
    }
}

/// How to learn which kernel it was.
fn careful() -> String {
    format!(
        "set {CAREFUL}=1 to run one kernel after the other and name the one that fails; compute-sanitizer shows details"
    )
}

/// A command as an error describes it: a kernel by name, with the shape of its launch.
fn described(command: &Command) -> String {
    match command {
        Command::Launch(launch) => {
            let Launch {
                kernels,
                kernel,
                grid,
                threads,
                shared,
                ..
            } = launch;
            format!(
                "run the kernel `{kernel}` of `{}` on {grid:?} blocks of {threads} threads with {shared} bytes of \
                 shared memory",
                kernels.name
            )
        }
        Command::Multiply(product) => {
            let [m, n, k] = product.sizes;
            format!("multiply ({m}, {k}) by ({k}, {n})")
        }
        Command::Clear { bytes, .. } => format!("clear {bytes} bytes"),
        Command::Copy { bytes, .. } => format!("copy {bytes} bytes"),
        Command::Live { .. } | Command::Idle { .. } => "plan memory".to_owned(),
    }
}

impl Device {
    /// The device of that number.
    ///
    /// # Errors
    /// No such device, or one that cannot be used: as [`super::support::CudaSupport::usable`] says.
    pub fn open(number: usize) -> Result<Self> {
        let support = probe::support();
        let gpu = support.usable(number).map_err(Unsupported::into_error)?;
        let doing = || format!("open CUDA device {number}");
        let opening = |error| failed(doing(), error);
        let ordinal = i32::try_from(number).wrap(Kind::Input, || format!("device {number}"))?;
        let device = result::device::get(ordinal).map_err(opening)?;
        // SAFETY: the device is there; its primary context is made current for this thread.
        let context = unsafe {
            let context = result::primary_ctx::retain(device).map_err(opening)?;
            result::ctx::set_current(context).map_err(opening)?;
            context
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking).map_err(opening)?;
        let products =
            Products::new().map_err(|error| Error::environment(format!("{}: {error}", doing())))?;
        Ok(Self {
            name: gpu.name.clone(),
            architecture: gpu.architecture(),
            compiler: support
                .compiler
                .there()
                .map_or_else(String::new, |compiler| compiler.version.to_string()),
            context,
            stream,
            products,
            kernels: RefCell::default(),
            modules: RefCell::default(),
            graphs: RefCell::default(),
            stages: RefCell::default(),
            next_stage: Cell::default(),
            fetched: RefCell::default(),
            idle: RefCell::default(),
            tickets: Cell::default(),
            times: RefCell::default(),
            peers: RefCell::default(),
            is_careful: surroundings().is_careful,
            is_plain: surroundings().is_plain,
        })
    }

    /// As the driver calls it.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Makes the device's context that of the calling thread.
    fn enter(&self) -> Result<()> {
        // SAFETY: the context lives as long as the device.
        unsafe { result::ctx::set_current(self.context) }
            .map_err(|error| failed(format!("use `{}`", self.name), error))
    }

    /// A kernel, compiled and loaded unless it was before.
    fn kernel(&self, launch: &Launch) -> Result<Kernel> {
        let key = KernelKey::of(launch);
        if let Some(kernel) = self.kernels.borrow().get(&key) {
            return Ok(*kernel);
        }
        let options = compiler::options(launch.element, &launch.constants).join(" ");
        let parts = [
            launch.kernels.source,
            HEADER,
            &options,
            &self.architecture,
            &self.compiler,
        ];
        let identity = parts.join("\0");
        let identity = blake3::hash(identity.as_bytes()).to_hex().to_string();
        let known = self.modules.borrow().get(&identity).copied();
        let module = if let Some(module) = known {
            module
        } else {
            let code = self.code(launch, &identity)?;
            // SAFETY: machine code that NVRTC made for this architecture.
            let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
            let module = module
                .map_err(|error| failed(format!("load the kernels of `{}`", launch.kernels.name), error))?;
            self.modules.borrow_mut().insert(identity, module);
            module
        };
        let finding = || format!("find the kernel `{}`", launch.kernel);
        let name = CString::new(launch.kernel).wrap(Kind::Internal, finding)?;
        // SAFETY: the module is loaded, and unloaded by the device's end alone.
        let function = unsafe { result::module::get_function(module, name) };
        let kernel = Kernel(function.map_err(|error| failed(finding(), error))?);
        if launch.shared > USUAL_SHARED {
            use sys::CUfunction_attribute_enum::CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES;
            let bytes = i32::try_from(launch.shared).wrap(Kind::Internal, finding)?;
            // SAFETY: the function was found just now.
            unsafe {
                result::function::set_function_attribute(
                    kernel.0,
                    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES,
                    bytes,
                )
            }
            .map_err(|error| {
                let what = format!(
                    "give the kernel `{}` {bytes} bytes of shared memory",
                    launch.kernel
                );
                failed(what, error)
            })?;
        }
        self.kernels.borrow_mut().insert(key, kernel);
        Ok(kernel)
    }

    /// Machine code, from the cache where it was compiled before.
    fn code(&self, launch: &Launch, identity: &str) -> Result<Vec<u8>> {
        let name = format!("{}-{identity}", launch.kernels.name);
        let cache = surroundings().code.as_deref();
        if let Some(code) = cache.and_then(|cache| cache.read(&name))
            && code.starts_with(b"\x7fELF")
        {
            return Ok(code);
        }
        let code = compiler::compile(
            launch.kernels,
            launch.element,
            &launch.constants,
            &self.architecture,
        )?;
        if let Some(cache) = cache {
            cache.keep(&name, &code);
        }
        Ok(code)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // What fails here fails because the device is gone.
        if self.enter().is_err() {
            return;
        }
        // SAFETY: made by `open` and given back once; nothing runs any more after the synchronization. The primary context
        // stays until the process ends, as CUDA's own runtime has it: who opens the device again finds it warm.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            *self.peers.get_mut() = None;
            for graph in self.graphs.get_mut().drain(..).filter_map(|(_, graph)| graph) {
                let _ = result::graph::exec_destroy(graph);
            }
            *self.stages.get_mut() = Default::default();
            self.fetched.get_mut().clear();
            self.idle.get_mut().clear();
            for (_, module) in self.modules.get_mut().drain() {
                let _ = result::module::unload(module);
            }
            self.products.close();
            let _ = result::stream::destroy(self.stream);
        }
    }
}

/// Milliseconds between two events that have happened. By the function's first name: drivers before CUDA 12.8 lack the
/// second one, which the bindings call.
///
/// # Safety
/// Both are events of the current context's.
unsafe fn elapsed(from: sys::CUevent, to: sys::CUevent) -> Result<f64, result::DriverError> {
    type Elapsed = unsafe extern "C" fn(*mut f32, sys::CUevent, sys::CUevent) -> sys::CUresult;
    let mut milliseconds = 0.0_f32;
    // SAFETY: the function has this type in all versions; the events are the caller's.
    unsafe {
        let Ok(function) = sys::culib().get::<Elapsed>(b"cuEventElapsedTime") else {
            return Err(result::DriverError(sys::CUresult::CUDA_ERROR_NOT_FOUND));
        };
        function(&raw mut milliseconds, from, to).result()?;
    }
    Ok(f64::from(milliseconds))
}

impl Device {
    /// Waits for what is queued where every command is waited for.
    #[cfg(unix)]
    fn watch(&self) -> Result<()> {
        if !self.is_careful {
            return Ok(());
        }
        // SAFETY: the stream is ours.
        unsafe { result::stream::synchronize(self.stream) }
            .map_err(|error| failed(format!("exchange numbers on `{}`", self.name), error))
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let kernel = self.kernel(launch)?;
        let doing = || described(&Command::Launch(launch.clone()));
        let size = |n: usize| u32::try_from(n).wrap(Kind::Internal, doing);
        let [x, y, z] = launch.grid;
        let mut values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits()).collect();
        let mut addresses: Vec<*mut c_void> = values
            .iter_mut()
            .map(|value| std::ptr::from_mut(value).cast())
            .collect();
        let (grid, threads) = ((size(x)?, size(y)?, size(z)?), (size(launch.threads)?, 1, 1));
        // SAFETY: the arguments are those of the kernel's signature, which the emulated driver calls with the same; they are
        // read before the call returns.
        unsafe {
            result::launch_kernel(
                kernel.0,
                grid,
                threads,
                size(launch.shared)?,
                self.stream,
                &mut addresses,
            )
        }
        .map_err(|error| failed(doing(), error))
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        let [m, n, k] = product.sizes;
        let doing = || format!("multiply ({m}, {k}) by ({k}, {n}) on `{}`", self.name);
        let multiplied = self.products.multiply(product, self.stream);
        multiplied.map_err(|error| Error::environment(format!("{}: {error}", doing())).hint(careful()))
    }

    fn obey(&self, command: &Command) -> Result<()> {
        match command {
            Command::Launch(launch) => self.launch(launch),
            Command::Multiply(product) => self.multiply(product),
            Command::Clear { at, bytes } => {
                // SAFETY: the memory is the caller's.
                unsafe { result::memset_d8_async(at.0, 0, *bytes, self.stream) }
                    .map_err(|error| failed(format!("clear {bytes} bytes of `{}`", self.name), error))
            }
            Command::Copy { from, to, bytes } => {
                // SAFETY: both are the caller's.
                unsafe { result::memcpy_dtod_async(to.0, from.0, *bytes, self.stream) }
                    .map_err(|error| failed(format!("copy {bytes} bytes on `{}`", self.name), error))
            }
            Command::Live { .. } | Command::Idle { .. } => Ok(()),
        }
    }

    /// Compiles kernels and chooses how to multiply, which is not to be timed and which no capture may contain.
    fn prepare(&self, commands: &[Command]) -> Result<()> {
        for command in commands {
            match command {
                Command::Launch(launch) => drop(self.kernel(launch)?),
                // An error shows when it is run.
                Command::Multiply(product) => _ = self.products.knows(product),
                _ => {}
            }
        }
        Ok(())
    }

    /// Commands as a graph.
    fn capture(&self, commands: &[Command]) -> Result<sys::CUgraphExec> {
        let capturing = |error| failed(format!("capture a graph on `{}`", self.name), error);
        self.prepare(commands)?;
        // SAFETY: the stream is ours; what is captured is launched while the memory that it names is there: it is forgotten
        // when memory moves, since the commands then name other addresses.
        unsafe {
            let mode = sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
            result::stream::begin_capture(self.stream, mode).map_err(capturing)?;
            let done = commands.iter().try_for_each(|command| self.obey(command));
            let graph = result::stream::end_capture(self.stream);
            done?;
            let graph = graph.map_err(capturing)?;
            let executable = result::graph::instantiate(graph, sys::CUgraphInstantiate_flags(0));
            let _ = result::graph::destroy(graph);
            executable.map_err(capturing)
        }
    }

    /// Copies so much as fits a piece of pinned memory.
    fn write_piece(&self, to: Address, bytes: &[u8]) -> Result<()> {
        let writing = |error| failed(format!("write {} bytes to `{}`", bytes.len(), self.name), error);
        let index = self.next_stage.get();
        self.next_stage.set((index + 1) % STAGES);
        let stage = &mut self.stages.borrow_mut()[index];
        if stage.as_ref().is_none_or(|stage| stage.bytes < bytes.len()) {
            *stage = Some(Pinned::new(bytes.len()).map_err(writing)?);
        }
        let Some(stage) = stage else { return Ok(()) };
        stage.wait().map_err(writing)?;
        stage.used = bytes.len();
        stage.content().copy_from_slice(bytes);
        // SAFETY: the memory is the caller's; the copy's source is ours, and left alone until the event has happened.
        unsafe {
            result::memcpy_htod_async(to.0, stage.content(), self.stream)
                .and_then(|()| result::event::record(stage.done, self.stream))
        }
        .map_err(writing)
    }

    /// Runs commands with an event before and after each one.
    fn run_timed(&self, commands: &[Command], times: &mut Times) -> Result<()> {
        let timing = |error| failed(format!("time kernels on `{}`", self.name), error);
        self.prepare(commands)?;
        let mark = || {
            let event = result::event::create(sys::CUevent_flags::CU_EVENT_DEFAULT)?;
            // SAFETY: both are ours.
            unsafe { result::event::record(event, self.stream) }.map(|()| event)
        };
        let mut marks = vec![mark().map_err(timing)?];
        for command in commands {
            self.obey(command)?;
            marks.push(mark().map_err(timing)?);
        }
        // SAFETY: the stream is ours; so are the events, which have happened when it ends, and are destroyed
        // once.
        unsafe {
            result::stream::synchronize(self.stream).map_err(timing)?;
            for (command, pair) in commands.iter().zip(marks.windows(2)) {
                times.add(command, elapsed(pair[0], pair[1]).map_err(timing)? / 1e3);
            }
            for mark in marks {
                result::event::destroy(mark).map_err(timing)?;
            }
        }
        Ok(())
    }

    /// A piece of pinned memory that is not in use.
    fn pinned(&self, bytes: usize) -> Result<Pinned, result::DriverError> {
        let mut idle = self.idle.borrow_mut();
        let found = idle.iter().position(|pinned| pinned.bytes >= bytes);
        found.map_or_else(|| Pinned::new(bytes), |index| Ok(idle.swap_remove(index)))
    }
}

impl Driver for Device {
    fn allocate(&self, bytes: usize) -> Result<Address> {
        self.enter()?;
        // SAFETY: a context is current.
        let at = unsafe { result::malloc_sync(bytes) };
        at.map(Address).map_err(|error| {
            let free = result::mem_get_info().map_or_else(
                |_| String::new(),
                |(free, total)| format!(" ({} of {} MiB are free)", free >> 20, total >> 20),
            );
            failed(format!("allocate {bytes} bytes on `{}`{free}", self.name), error)
        })
    }

    fn free(&self, at: Address, _: usize) {
        if self.enter().is_ok() {
            // SAFETY: from `allocate`, and given back once; this waits until nothing runs that uses it.
            let _ = unsafe { result::free_sync(at.0) };
        }
    }

    fn grow(&self, at: Address, bytes: usize, kept: usize, to: usize) -> Result<Address> {
        let new = self.allocate(to)?;
        self.obey(&Command::Copy {
            from: at,
            to: new,
            bytes: kept.min(bytes),
        })?;
        self.free(at, bytes);
        Ok(new)
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        bytes
            .chunks(STAGE)
            .enumerate()
            .try_for_each(|(index, bytes)| self.write_piece(to.offset(index * STAGE), bytes))
    }

    fn read(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        self.enter()?;
        let count = bytes.len();
        // SAFETY: the memory is the caller's, and the copy has ended when this returns.
        unsafe {
            result::memcpy_dtoh_async(bytes, from.0, self.stream)
                .and_then(|()| result::stream::synchronize(self.stream))
        }
        .map_err(|error| failed(format!("read {count} bytes from `{}`", self.name), error))
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Ticket> {
        self.enter()?;
        let fetching = |error| failed(format!("read {bytes} bytes from `{}`", self.name), error);
        let mut pinned = self.pinned(bytes).map_err(fetching)?;
        pinned.used = bytes;
        // SAFETY: the memory is the caller's; where it is copied to is ours, and left alone until the event has happened.
        unsafe {
            result::memcpy_dtoh_async(pinned.content(), from.0, self.stream)
                .and_then(|()| result::event::record(pinned.done, self.stream))
        }
        .map_err(fetching)?;
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        self.fetched.borrow_mut().insert(ticket, pinned);
        Ok(Ticket(ticket))
    }

    fn collect(&self, ticket: Ticket) -> Result<Vec<u8>> {
        self.enter()?;
        let fetched = self.fetched.borrow_mut().remove(&ticket.0);
        let mut pinned = fetched.ok_or_else(|| Error::internal("nothing was fetched under this ticket"))?;
        pinned
            .wait()
            .map_err(|error| failed(format!("wait for `{}`", self.name), error))?;
        let content = pinned.content().to_vec();
        self.idle.borrow_mut().push(pinned);
        Ok(content)
    }

    fn run(&self, commands: Vec<Command>, again: bool) -> Result<()> {
        self.enter()?;
        if self.is_careful {
            return commands.iter().try_for_each(|command| {
                self.obey(command)?;
                // SAFETY: the stream is ours.
                unsafe { result::stream::synchronize(self.stream) }
                    .map_err(|error| failed(format!("{} on `{}`", described(command), self.name), error))
            });
        }
        if let Some(times) = &mut *self.times.borrow_mut() {
            return self.run_timed(&commands, times);
        }
        if !again {
            return commands.iter().try_for_each(|command| self.obey(command));
        }
        let mut graphs = self.graphs.borrow_mut();
        let known = graphs.iter().position(|(known, _)| *known == commands);
        let Some(index) = known else {
            // Not captured yet: drivers load a kernel when it first runs, which they may refuse within a capture, and many a
            // list never comes again.
            commands.iter().try_for_each(|command| self.obey(command))?;
            if graphs.len() == GRAPHS
                && let (_, Some(oldest)) = graphs.remove(0)
            {
                // SAFETY: it was instantiated by us; where it still runs, the driver waits for its end.
                let _ = unsafe { result::graph::exec_destroy(oldest) };
            }
            graphs.push((commands, None));
            return Ok(());
        };
        let (commands, graph) = graphs.remove(index);
        let graph = match graph {
            Some(graph) => graph,
            None => self.capture(&commands)?,
        };
        graphs.push((commands, Some(graph)));
        // SAFETY: the graph and the stream are ours.
        unsafe { result::graph::launch(graph, self.stream) }
            .map_err(|error| failed(format!("run a step on `{}`", self.name), error))
    }

    fn join(&self, ranks: &Arc<dyn Communicator>) -> Result<()> {
        self.enter()?;
        #[cfg(unix)]
        if let Some(nccl) = Nccl::join(&**ranks)? {
            *self.peers.borrow_mut() = Some(Peers::Nccl(nccl));
            return Ok(());
        }
        *self.peers.borrow_mut() = Some(Peers::Host(Arc::clone(ranks)));
        Ok(())
    }

    fn exchange(&self, own: Address, runs: &[Range<usize>], received: Address) -> Result<()> {
        self.enter()?;
        match &*self.peers.borrow() {
            #[cfg(unix)]
            Some(Peers::Nccl(nccl)) => {
                nccl.exchange(own, runs, received, self.stream.cast())?;
                self.watch()
            }
            Some(Peers::Host(ranks)) => peers::exchange(self, &**ranks, own, runs, received),
            None => Err(Error::internal("an exchange of a device that was not joined")),
        }
    }

    fn gather(&self, at: Address, cut: &Cut) -> Result<()> {
        self.enter()?;
        match &*self.peers.borrow() {
            #[cfg(unix)]
            Some(Peers::Nccl(nccl)) => {
                nccl.gather(at, cut, self.stream.cast())?;
                self.watch()
            }
            Some(Peers::Host(ranks)) => peers::gather(self, &**ranks, at, cut),
            None => Err(Error::internal("an exchange of a device that was not joined")),
        }
    }

    fn joined(&self) -> Option<String> {
        match self.peers.borrow().as_ref()? {
            #[cfg(unix)]
            Peers::Nccl(nccl) => Some(nccl.described()),
            Peers::Host(ranks) => Some(format!("{}, through the hosts' memory", ranks.described())),
        }
    }

    fn time(&self) {
        *self.times.borrow_mut() = Some(Times::default());
    }

    fn timed(&self) -> Result<Vec<Timed>> {
        Ok(self.times.borrow_mut().take().unwrap_or_default().sorted())
    }

    fn fuses(&self, product: &Product) -> bool {
        // What f32 is for is checking: how exactly an epilogue computes tanh is not documented.
        let is_rough = matches!(
            product.epilogue,
            Epilogue::Gelu { .. } | Epilogue::GeluGradient { .. }
        ) && product.element == DType::F32;
        !self.is_plain && !is_rough && self.enter().is_ok() && self.products.knows(product)
    }

    fn capacity(&self) -> Result<Capacity> {
        self.enter()?;
        let (free, total) = result::mem_get_info()
            .map_err(|error| failed(format!("query the memory of `{}`", self.name), error))?;
        Ok(Capacity { free, total })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Where there is no device, opening one says why and what to do, and nothing panics.
    #[test]
    fn missing_device_is_an_error_with_a_hint() {
        let there = probe::support().gpus().len();
        let error = Device::open(there).err().expect("no such device");
        assert_eq!(error.kind(), Kind::Environment);
        assert!(error.hint_text().unwrap().contains("`--device cpu`"), "{error}");
    }
}
