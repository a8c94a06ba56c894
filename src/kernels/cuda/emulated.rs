//! A driver without a device, for tests: memory is the process's, products are plain, and kernels are their own sources,
//! compiled by the system's C++ compiler with `emulate.h` and run thread by thread. What it catches ends the process (see
//! there).
//!
//! This is a seam file (invariant 7): it hands out memory by address, as a device does, and calls into libraries that were
//! compiled a moment ago from this crate's own sources.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_void};
use std::ops::Range;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::driver::{
    Address, Capacity, Command as Ask, DType, Driver, Epilogue, HEADER, Launch, Operand, Product, Ticket,
    Timed, Times,
};
use super::{compiler, peers};
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::kernels::gemm::{Start, View, product};
use crate::ranks::{Communicator, Cut};
use crate::testing::repository;

/// Buffers begin where the device's would: at multiples of this.
const ALIGNMENT: usize = 256;
/// What fresh memory is filled with: NaNs, of f32 and of bf16.
const POISON: u8 = 0xFF;
/// The emulation's own header.
const EMULATION: &str = include_str!("emulate.h");

/// A driver that runs kernels on the CPU.
#[derive(Default)]
pub struct Emulated {
    /// What was allocated, by address, with its length.
    allocated: RefCell<BTreeMap<u64, usize>>,
    /// What is cut into buffers: only the live ones may be touched.
    arenas: RefCell<BTreeSet<u64>>,
    /// The live ones.
    live: RefCell<BTreeMap<u64, usize>>,
    graphs: Rc<RefCell<Graphs>>,
    /// Bytes that were allocated at once, at most.
    most: Rc<Cell<usize>>,
    fetched: RefCell<HashMap<u64, Vec<u8>>>,
    tickets: Cell<u64>,
    times: RefCell<Option<Times>>,
    /// Bytes that may be allocated in all; 0 for no limit.
    limit: usize,
    /// Whether products do nothing but multiply.
    plain: bool,
    /// The ranks that it was joined with.
    ranks: RefCell<Option<Arc<dyn Communicator>>>,
}

/// Commands that came to be kept, and how often they came.
#[derive(Default)]
pub struct Graphs(Vec<(Vec<Ask>, usize)>);

impl Graphs {
    /// How often each list came.
    #[must_use]
    pub fn counts(graphs: &Rc<RefCell<Self>>) -> Vec<usize> {
        graphs.borrow().0.iter().map(|(_, count)| *count).collect()
    }
}

/// A compiled library. Its state is global: who runs one of its kernels holds it alone.
struct Library(*mut c_void);

// SAFETY: a handle of dlopen may be used by any thread; calls are serialized by the mutex around it.
unsafe impl Send for Library {}

/// A library by the digest of what it is made of; nothing until it is compiled.
type Libraries = Mutex<HashMap<String, Arc<Mutex<Option<Library>>>>>;

static LIBRARIES: LazyLock<Libraries> = LazyLock::new(Mutex::default);

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Library {
    /// The address of a function.
    fn find(&self, name: &str) -> Result<*mut c_void> {
        let c_name = CString::new(name).wrap(Kind::Internal, || name.to_owned())?;
        // SAFETY: the handle is one of dlopen's and never closed.
        let found = unsafe { libc::dlsym(self.0, c_name.as_ptr()) };
        if found.is_null() {
            return Err(Error::internal(format!("`{name}` is not among the kernels")));
        }
        Ok(found)
    }
}

/// The library of an operation for an element and constants, compiled unless it was before.
fn library(launch: &Launch) -> Result<Arc<Mutex<Option<Library>>>> {
    let options = compiler::options(launch.element, &launch.constants).join(" ");
    let identity = [launch.kernels.source, HEADER, EMULATION, &options].join("\0");
    let name = blake3::hash(identity.as_bytes()).to_hex().to_string();
    let entry = locked(&LIBRARIES).entry(name.clone()).or_default().clone();
    let mut library = locked(&entry);
    if library.is_none() {
        let folder = repository("target/emulated");
        let path = folder.join(format!("{}-{}.so", launch.kernels.name, &name[..24]));
        if !path.exists() {
            compile(launch.kernels.source, &options, &path)?;
        }
        *library = Some(load(&path)?);
    }
    drop(library);
    Ok(entry)
}

fn load(path: &Path) -> Result<Library> {
    let c_path = CString::new(path.to_string_lossy().into_owned())
        .wrap(Kind::Internal, || path.display().to_string())?;
    // SAFETY: the library is ours; it runs nothing when it is loaded.
    let handle = unsafe { libc::dlopen(c_path.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
    if handle.is_null() {
        // SAFETY: dlopen has failed just now, so there is a message.
        let why = unsafe { CStr::from_ptr(libc::dlerror()) };
        let message = format!("load `{}`: {}", path.display(), why.to_string_lossy());
        return Err(Error::internal(message));
    }
    Ok(Library(handle))
}

fn compile(source: &str, options: &str, path: &Path) -> Result<()> {
    let context = || format!("compile `{}`", path.display());
    let folder = tempfile::tempdir().wrap(Kind::Environment, context)?;
    for (name, text) in [
        ("kernels.cpp", source),
        ("device.h", HEADER),
        ("emulate.h", EMULATION),
    ] {
        std::fs::write(folder.path().join(name), text).wrap(Kind::Environment, context)?;
    }
    let built = folder.path().join("kernels.so");
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let output = Command::new(compiler)
        .current_dir(folder.path())
        .args([
            "-O1",
            "-ffp-contract=off",
            "-w",
            "-fPIC",
            "-shared",
            "kernels.cpp",
            "-o",
            "kernels.so",
        ])
        .args(options.split_whitespace())
        .output()
        .wrap(Kind::Environment, context)?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr).into_owned();
        return Err(Error::internal(format!("{}: {why}", context())));
    }
    let parent = path.parent().unwrap_or(path);
    std::fs::create_dir_all(parent).wrap(Kind::Environment, context)?;
    // Beside its place and renamed: other processes may be at it too.
    let beside = path.with_extension(std::process::id().to_string());
    std::fs::copy(&built, &beside)
        .and_then(|_| std::fs::rename(&beside, path))
        .wrap(Kind::Environment, context)
}

impl Emulated {
    /// A device of so many bytes.
    #[must_use]
    pub fn of_bytes(limit: usize) -> Self {
        let mut device = Self::default();
        device.limit = limit;
        device
    }

    /// One whose products know no epilogue.
    #[must_use]
    pub fn without_epilogues() -> Self {
        let mut device = Self::default();
        device.plain = true;
        device
    }

    /// What is kept, to be looked at while the device works.
    #[must_use]
    pub fn graphs(&self) -> Rc<RefCell<Graphs>> {
        Rc::clone(&self.graphs)
    }

    fn joined_ranks(&self) -> Result<Arc<dyn Communicator>> {
        let ranks = self.ranks.borrow().clone();
        ranks.ok_or_else(|| Error::internal("an exchange of a device that was not joined"))
    }

    /// The bytes that were allocated at once, at most.
    #[must_use]
    pub fn most(&self) -> Rc<Cell<usize>> {
        Rc::clone(&self.most)
    }

    /// What kernels may touch: buffers, and what is not cut into any.
    fn regions(&self) -> BTreeMap<u64, usize> {
        let arenas = self.arenas.borrow();
        let mut regions = self.allocated.borrow().clone();
        regions.retain(|at, _| !arenas.contains(at));
        regions.extend(&*self.live.borrow());
        regions
    }

    /// Checks that memory lies within one of those pieces.
    fn inside(pieces: &BTreeMap<u64, usize>, at: Address, bytes: usize) -> bool {
        let found = pieces.range(..=at.0).next_back();
        bytes == 0 || found.is_some_and(|(first, length)| at.0 + bytes as u64 <= first + *length as u64)
    }

    fn check(&self, at: Address, bytes: usize) -> Result<()> {
        if Self::inside(&self.regions(), at, bytes) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{bytes} bytes at {:#x} are in no buffer",
            at.0
        )))
    }

    fn bytes(&self, at: Address, bytes: usize) -> Result<&[u8]> {
        self.check(at, bytes)?;
        // SAFETY: within a live buffer of ours, which was filled when it was made; no other thread writes meanwhile, since a driver
        // is of one thread and the slice does not outlive the call that it is made in.
        Ok(unsafe { std::slice::from_raw_parts(at.0 as *const u8, bytes) })
    }

    #[expect(clippy::mut_from_ref, reason = "the memory is the device's, not the driver's")]
    fn bytes_mut(&self, at: Address, bytes: usize) -> Result<&mut [u8]> {
        self.check(at, bytes)?;
        // SAFETY: as in `bytes`; callers hold one such slice at a time.
        Ok(unsafe { std::slice::from_raw_parts_mut(at.0 as *mut u8, bytes) })
    }

    /// A matrix as f32.
    fn matrix(&self, operand: Operand, count: usize) -> Result<Vec<f32>> {
        let bytes = self.bytes(operand.at, count * operand.element.bytes())?;
        Ok(match operand.element {
            DType::F32 => bytes
                .chunks_exact(4)
                .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]))
                .collect(),
            DType::Bf16 => bytes
                .chunks_exact(2)
                .map(|x| f32::from_bits(u32::from(u16::from_le_bytes([x[0], x[1]])) << 16))
                .collect(),
        })
    }

    fn launch(&self, launch: &Launch) -> Result<()> {
        let entry = library(launch)?;
        let library = locked(&entry);
        let library = library
            .as_ref()
            .ok_or_else(|| Error::internal("a library was lost"))?;
        let forget = library.find("emulate_no_buffers")?;
        let buffer = library.find("emulate_buffer")?;
        let kernel = library.find(&format!("emulate_{}", launch.kernel))?;
        let size = |n: usize| u32::try_from(n).wrap(Kind::Internal, || format!("launch `{}`", launch.kernel));
        let [x, y, z] = launch.grid;
        let sizes = [
            size(x)?,
            size(y)?,
            size(z)?,
            size(launch.threads)?,
            1,
            1,
            size(launch.shared)?,
        ];
        let values: Vec<u64> = launch.arguments.iter().map(|argument| argument.bits()).collect();
        let addresses: Vec<*const u64> = values.iter().map(std::ptr::from_ref).collect();
        // SAFETY: the functions have these types in `emulate.h`. The kernel reads its arguments through `addresses` and
        // touches memory within the buffers of its arguments, which it checks itself; `values` outlives the call.
        unsafe {
            let forget: extern "C" fn() = std::mem::transmute(forget);
            let buffer: extern "C" fn(*mut c_void, usize) = std::mem::transmute(buffer);
            let kernel: extern "C" fn(*const u32, *const *const u64) = std::mem::transmute(kernel);
            forget();
            for (at, bytes) in self.regions() {
                buffer(at as *mut c_void, bytes);
            }
            kernel(sizes.as_ptr(), addresses.as_ptr());
        }
        Ok(())
    }

    fn multiply(&self, wanted: &Product) -> Result<()> {
        let [m, n, k] = wanted.sizes;
        let factors = |operand: Operand, count: usize| {
            let mut values = self.matrix(operand, count)?;
            if wanted.tf32 && operand.element == DType::F32 {
                for x in &mut values {
                    *x = rounded_to_tf32(*x);
                }
            }
            Ok::<_, Error>(values)
        };
        let (a, b) = (factors(wanted.a, m * k)?, factors(wanted.b, k * n)?);
        let view = |values, transposed: bool, rows: usize, columns: usize| {
            if transposed {
                View::strided(values, columns, rows, rows).t()
            } else {
                View::strided(values, rows, columns, columns)
            }
        };
        let like_c = |at: Address, count: usize| {
            let operand = Operand {
                at,
                element: wanted.element,
                transposed: false,
            };
            self.matrix(operand, count)
        };
        let mut values = if wanted.accumulate {
            like_c(wanted.c, m * n)?
        } else {
            vec![0.0; m * n]
        };
        product(
            Start::Accumulate,
            view(&a, wanted.a.transposed, m, k),
            view(&b, wanted.b.transposed, k, n),
            &mut values,
        );
        let add_bias = |values: &mut [f32], bias: &[f32]| {
            for row in values.chunks_exact_mut(n) {
                row.iter_mut().zip(bias).for_each(|(value, bias)| *value += bias);
            }
        };
        match wanted.epilogue {
            Epilogue::Plain => {}
            Epilogue::Bias(bias) => add_bias(&mut values, &like_c(bias, n)?),
            Epilogue::Gelu { bias, kept } => {
                add_bias(&mut values, &like_c(bias, n)?);
                self.put(kept, &super::narrowed(&values, wanted.element))?;
                for u in &mut values {
                    *u = gelu(*u).0;
                }
            }
            Epilogue::GeluGradient { kept } => {
                let kept = like_c(kept, m * n)?;
                values.iter_mut().zip(kept).for_each(|(c, u)| *c *= gelu(u).1);
            }
            Epilogue::RowSums(sums) => {
                let at = |row: usize, l: usize| {
                    a[if wanted.a.transposed {
                        l * m + row
                    } else {
                        row * k + l
                    }]
                };
                let totals: Vec<f32> = (0..m).map(|row| (0..k).map(|l| at(row, l)).sum()).collect();
                self.put(sums, &super::narrowed(&totals, wanted.element))?;
            }
        }
        self.put(wanted.c, &super::narrowed(&values, wanted.element))
    }

    fn put(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.bytes_mut(to, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn obey(&self, command: &Ask) -> Result<()> {
        let start = Instant::now();
        self.carry_out(command)?;
        if let Some(times) = &mut *self.times.borrow_mut() {
            times.add(command, start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    fn carry_out(&self, command: &Ask) -> Result<()> {
        match command {
            Ask::Launch(launch) => self.launch(launch),
            Ask::Multiply(product) => self.multiply(product),
            Ask::Clear { at, bytes } => {
                self.bytes_mut(*at, *bytes)?.fill(0);
                Ok(())
            }
            Ask::Copy { from, to, bytes } => {
                let copy = self.bytes(*from, *bytes)?.to_vec();
                self.put(*to, &copy)
            }
            Ask::Live { at, bytes } => {
                let allocated = self.allocated.borrow();
                if !Self::inside(&allocated, *at, *bytes) {
                    return Err(Error::internal(format!("a buffer at {:#x} in no memory", at.0)));
                }
                if let Some((&arena, _)) = allocated.range(..=at.0).next_back() {
                    self.arenas.borrow_mut().insert(arena);
                }
                let mut live = self.live.borrow_mut();
                let before = live.range(..at.0 + *bytes as u64).next_back();
                if before.is_some_and(|(first, length)| first + *length as u64 > at.0) {
                    return Err(Error::internal(format!(
                        "a buffer at {:#x} over another one",
                        at.0
                    )));
                }
                live.insert(at.0, *bytes);
                drop(live);
                self.bytes_mut(*at, *bytes)?.fill(POISON);
                Ok(())
            }
            Ask::Idle { at } => {
                let gone = self.live.borrow_mut().remove(&at.0);
                gone.map(drop)
                    .ok_or_else(|| Error::internal(format!("no buffer at {:#x} to let go", at.0)))
            }
        }
    }
}

/// gelu(u), the tanh form, and its slope.
fn gelu(u: f32) -> (f32, f32) {
    let (outer, cubic) = ((2.0 / std::f32::consts::PI).sqrt(), 0.044_715);
    let tanh = (outer * (u + cubic * u * u * u)).tanh();
    let slope = outer * (1.0 + 3.0 * cubic * u * u) * (1.0 - tanh * tanh);
    (0.5 * u * (1.0 + tanh), 0.5 * (1.0 + tanh) + 0.5 * u * slope)
}

/// To the nearest number of 11 significant bits, ties away from zero (PTX ISA, cvt.rna.tf32.f32).
fn rounded_to_tf32(x: f32) -> f32 {
    if x.is_finite() {
        f32::from_bits((x.to_bits() + (1 << 12)) & !((1 << 13) - 1))
    } else {
        x
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (&at, &bytes) in &*self.allocated.borrow() {
            // SAFETY: allocated with this layout and not freed.
            unsafe { dealloc(at as *mut u8, layout(bytes)) };
        }
    }
}

fn layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes.max(1), ALIGNMENT).expect("a buffer of a sane size")
}

impl Driver for Emulated {
    fn allocate(&self, bytes: usize) -> Result<Address> {
        let taken: usize = self.allocated.borrow().values().sum();
        // SAFETY: the layout has a size of one byte at least.
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() || self.limit > 0 && taken + bytes > self.limit {
            return Err(Error::environment(format!("allocate {bytes} bytes")));
        }
        // SAFETY: so many bytes were allocated just now.
        unsafe { at.write_bytes(POISON, bytes) };
        self.allocated.borrow_mut().insert(at as u64, bytes);
        self.most.set(self.most.get().max(taken + bytes));
        Ok(Address(at as u64))
    }

    fn free(&self, at: Address, bytes: usize) {
        let known = self.allocated.borrow_mut().remove(&at.0);
        assert_eq!(known, Some(bytes), "freed what was not allocated");
        if self.arenas.borrow_mut().remove(&at.0) {
            self.live
                .borrow_mut()
                .retain(|&buffer, _| !(at.0..at.0 + bytes as u64).contains(&buffer));
        }
        // SAFETY: allocated with this layout, and forgotten now.
        unsafe { dealloc(at.0 as *mut u8, layout(bytes)) };
    }

    fn grow(&self, at: Address, bytes: usize, kept: usize, to: usize) -> Result<Address> {
        let new = self.allocate(to)?;
        // SAFETY: both are of our own, at least that long, and apart.
        unsafe { std::ptr::copy_nonoverlapping(at.0 as *const u8, new.0 as *mut u8, kept.min(bytes)) };
        let is_arena = self.arenas.borrow().contains(&at.0);
        let moved: Vec<(u64, usize)> = self
            .live
            .borrow()
            .range(at.0..at.0 + bytes as u64)
            .map(|(&buffer, &bytes)| (buffer - at.0 + new.0, bytes))
            .collect();
        self.free(at, bytes);
        if is_arena {
            self.arenas.borrow_mut().insert(new.0);
            self.live.borrow_mut().extend(moved);
        }
        Ok(new)
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.put(to, bytes)
    }

    fn read(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(self.bytes(from, bytes.len())?);
        Ok(())
    }

    fn fetch(&self, from: Address, bytes: usize) -> Result<Ticket> {
        let ticket = self.tickets.get();
        self.tickets.set(ticket + 1);
        let content = self.bytes(from, bytes)?.to_vec();
        self.fetched.borrow_mut().insert(ticket, content);
        Ok(Ticket(ticket))
    }

    fn collect(&self, ticket: Ticket) -> Result<Vec<u8>> {
        let content = self.fetched.borrow_mut().remove(&ticket.0);
        content.ok_or_else(|| Error::internal("nothing was fetched under this ticket"))
    }

    fn run(&self, commands: Vec<Ask>, again: bool) -> Result<()> {
        if !again {
            return commands.iter().try_for_each(|command| self.obey(command));
        }
        // What a graph runs is what was captured, not what comes now: these have to be the same.
        let Graphs(graphs) = &mut *self.graphs.borrow_mut();
        let known = graphs.iter().position(|(known, _)| *known == commands);
        let index = known.unwrap_or_else(|| {
            graphs.push((commands, 0));
            graphs.len() - 1
        });
        graphs[index].1 += 1;
        graphs[index].0.iter().try_for_each(|command| self.obey(command))
    }

    fn join(&self, ranks: &Arc<dyn Communicator>) -> Result<()> {
        *self.ranks.borrow_mut() = Some(Arc::clone(ranks));
        Ok(())
    }

    fn exchange(&self, own: Address, runs: &[Range<usize>], received: Address) -> Result<()> {
        peers::exchange(self, &*self.joined_ranks()?, own, runs, received)
    }

    fn gather(&self, at: Address, cut: &Cut) -> Result<()> {
        peers::gather(self, &*self.joined_ranks()?, at, cut)
    }

    fn joined(&self) -> Option<String> {
        let ranks = self.ranks.borrow();
        ranks.as_ref().map(|ranks| ranks.described())
    }

    fn time(&self) {
        *self.times.borrow_mut() = Some(Times::default());
    }

    fn timed(&self) -> Result<Vec<Timed>> {
        Ok(self.times.borrow_mut().take().unwrap_or_default().sorted())
    }

    fn fuses(&self, product: &Product) -> bool {
        !self.plain || product.epilogue == Epilogue::Plain
    }

    fn capacity(&self) -> Result<Capacity> {
        let taken: usize = self.allocated.borrow().values().sum();
        let total = if self.limit > 0 { self.limit } else { 1 << 40 };
        Ok(Capacity {
            free: total - taken,
            total,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::driver::{Argument, Kernels};
    use super::*;

    macro_rules! broken {
        ($($name:literal $body:literal $message:literal;)*) => {
            /// Kernels that do what a GPU leaves undefined, and what is said of it.
            const BROKEN: &[(Kernels, &str)] = &[$((
                Kernels {
                    name: $name,
                    source: concat!(
                        "#include \"device.h\"\nextern \"C\" __global__ void broken(GLOBAL(float) out) {\n",
                        $body,
                        "\n}\nKERNEL(broken)\n"
                    ),
                },
                $message,
            )),*];
        };
    }

    broken! {
        "outside" "out[threadIdx.x + 40] = 1.f;" "an access outside of its buffer";
        "misaligned" "as<uint4>(out + 1)[0] = uint4{0, 0, 0, 0};" "an access that is not aligned";
        "shared" "SHARED_ARRAY(float, few, 0, 8); few[threadIdx.x] = 1.f;" "an access outside of a shared array";
        "unasked" "SHARED_ARRAY(float, many, 0, 4096);" "a shared array outside of what was asked for at the launch";
        "divergent" "if (threadIdx.x < 40) __syncthreads();" "a barrier that not all threads reach";
        "lanes" "if (threadIdx.x < 16) __syncwarp(); else out[0] = warp_sum(1.f);" "lanes of a warp wait for different";
        "tile" "SHARED_ARRAY(element, s, 0, 512); uint32_t t[4]; load_tiles(t, s + 1);" "a tile that is not aligned to 16";
    }

    fn launch(kernels: Kernels, at: Address) -> Ask {
        Ask::Launch(Launch {
            kernels,
            kernel: "broken",
            element: DType::Bf16,
            constants: Vec::new(),
            grid: [1, 1, 1],
            threads: 64,
            shared: 1024,
            arguments: vec![Argument::At(at)],
        })
    }

    /// What a GPU would leave undefined ends the process, with its place.
    #[test]
    fn undefined_behaviour_of_a_kernel_ends_the_process() {
        for (kernels, message) in BROKEN {
            let child = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "--ignored",
                    "kernels::cuda::emulated::tests::runs_a_broken_kernel",
                ])
                .arg("--nocapture")
                .env("MDLM_TEST_KERNEL", kernels.name)
                .output()
                .unwrap();
            let signal = std::os::unix::process::ExitStatusExt::signal(&child.status);
            let said = String::from_utf8_lossy(&child.stderr);
            assert_eq!(signal, Some(libc::SIGABRT), "{}: {said}", kernels.name);
            assert!(said.contains("kernel broken, block (0, 0, 0)"), "{said}");
            assert!(said.contains(message), "{}: {said}", kernels.name);
        }
    }

    /// Not a separate test: the child process of the one above.
    #[test]
    #[ignore = "run by `undefined_behaviour_of_a_kernel_ends_the_process`"]
    fn runs_a_broken_kernel() {
        let name = std::env::var("MDLM_TEST_KERNEL").expect("run by the test above alone");
        let (kernels, _) = BROKEN.iter().find(|(kernels, _)| kernels.name == name).unwrap();
        let device = Emulated::default();
        let at = device.allocate(256).unwrap();
        let _ = device.run(vec![launch(*kernels, at)], false);
    }

    /// Unwritten memory holds NaNs; a freed buffer is invalid, and buffers do not overlap.
    #[test]
    fn memory_is_poisoned_and_watched() {
        let device = Emulated::default();
        let arena = device.allocate(1024).unwrap();
        let (first, second) = (arena.offset(256), arena.offset(512));
        let live = |at: Address, bytes| Ask::Live { at, bytes };
        device
            .run(vec![live(first, 256), live(second, 256)], false)
            .unwrap();
        let mut bytes = [0; 4];
        device.read(first, &mut bytes).unwrap();
        assert!(f32::from_le_bytes(bytes).is_nan());
        assert!(device.read(arena, &mut bytes).is_err(), "no buffer begins there");
        assert!(
            device.run(vec![live(first.offset(128), 256)], false).is_err(),
            "over both"
        );
        let shared = Kernels {
            name: "poison",
            source: "#include \"device.h\"\nextern \"C\" __global__ void broken(GLOBAL(float) out) {\n\
                     SHARED_ARRAY(float, s, 0, 64); out[threadIdx.x] = s[threadIdx.x];\n}\nKERNEL(broken)\n",
        };
        device
            .run(
                vec![
                    Ask::Clear {
                        at: first,
                        bytes: 256,
                    },
                    launch(shared, first),
                ],
                false,
            )
            .unwrap();
        device.read(first, &mut bytes).unwrap();
        assert!(f32::from_le_bytes(bytes).is_nan(), "unwritten shared memory");
        device.run(vec![Ask::Idle { at: first }], false).unwrap();
        assert!(device.read(first, &mut bytes).is_err());
        assert!(device.run(vec![Ask::Idle { at: first }], false).is_err());
    }
}
