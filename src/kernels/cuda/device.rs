//! The real driver: a CUDA device through libcuda and cublasLt, which are loaded when a device is opened.
//!
//! Everything runs in one stream, in order. Kernels are compiled for the device's architecture at their first use and kept on
//! disk, by their source, options and compiler. Products choose their algorithm once for each kind of product, among those
//! whose sums have one order, so that a device gives the same bits each time.
//!
//! This is a seam file (invariant 7): CUDA is a C library. Addresses that come in are those that [`Driver::allocate`] gave;
//! what a kernel does with them the emulated driver's tests hold.
//!
//! It was written without a device at hand: it is type-checked, and its kernels and launches are those that the emulated
//! driver runs; it has not been run.

use std::cell::RefCell;
use std::collections::HashMap;
use std::ffi::{CString, c_void};
use std::fmt::Display;
use std::path::PathBuf;

use cudarc::cublaslt::sys::cublasLtMatmulPreferenceAttributes_t::{
    CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES, CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
};
use cudarc::cublaslt::{result as lt, sys as lt_sys};
use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
};
use cudarc::driver::{result, sys};

use super::compiler;
use super::driver::{Address, Driver, Element, HEADER, Launch, Operand, Product};
use crate::error::{Error, Kind, Result, Wrap as _};

/// Memory for products' partial sums: what the library's own documentation asks for on Hopper.
const WORKSPACE: usize = 32 << 20;
/// Shared memory that a kernel has without asking, in bytes.
const USUAL_SHARED: usize = 48 << 10;
/// CUBLASLT_REDUCTION_SCHEME_COMPUTE_TYPE: partial sums in f32 in the workspace, added up by a second kernel.
const IN_ORDER: u32 = 2;
/// The oldest architecture whose tensor cores know bf16.
const OLDEST: (i32, i32) = (8, 0);

/// A CUDA device.
pub struct Device {
    /// As the driver calls it.
    name: String,
    /// `sm_90a`
    architecture: String,
    context: sys::CUcontext,
    stream: sys::CUstream,
    products: lt_sys::cublasLtHandle_t,
    workspace: Address,
    /// Kernels by their operation's identity and their name.
    kernels: RefCell<HashMap<(String, &'static str), Kernel>>,
    /// Modules by the identity of what they were compiled from.
    modules: RefCell<HashMap<String, sys::CUmodule>>,
    /// How to multiply, by kind of product.
    plans: RefCell<HashMap<ProductKind, lt_sys::cublasLtMatmulAlgo_t>>,
}

#[derive(Clone, Copy)]
struct Kernel(sys::CUfunction);

/// What an algorithm is chosen for.
type ProductKind = ([usize; 3], [(Element, bool); 2], Element, bool);

fn failed(what: impl Display, error: impl Display) -> Error {
    Error::environment(format!("{what}: {error}"))
}

/// How many devices there are.
///
/// # Errors
/// No driver is installed, or it does not start.
pub fn count() -> Result<usize> {
    // SAFETY: loads a library of the system's and lets it go.
    if !unsafe { sys::is_culib_present() } {
        return Err(
            Error::environment("use a CUDA device: no CUDA driver (libcuda) is installed")
                .hint("use `--device cpu`, or install NVIDIA's driver"),
        );
    }
    result::init().map_err(|error| failed("start the CUDA driver", error))?;
    let count = result::device::get_count().map_err(|error| failed("count the CUDA devices", error))?;
    Ok(usize::try_from(count).unwrap_or(0))
}

impl Device {
    /// The device of that number.
    ///
    /// # Errors
    /// No driver, no such device, one that is too old, libraries that are not there.
    pub fn open(number: usize) -> Result<Self> {
        let there = count()?;
        if number >= there {
            let message = format!("use CUDA device {number}: there are {there}");
            return Err(Error::environment(message).hint("CUDA_VISIBLE_DEVICES says which are seen"));
        }
        compiler::require()?;
        // SAFETY: loads a library of the system's and lets it go.
        if !unsafe { lt_sys::is_culib_present() } {
            return Err(Error::environment("multiply matrices: the library cublasLt is not there").hint(
                "install the CUDA toolkit, or `pip install nvidia-cublas`, and name the library's folder in LD_LIBRARY_PATH",
            ));
        }
        let opening = |error: &dyn Display| failed(format!("open CUDA device {number}"), error);
        let ordinal = i32::try_from(number).wrap(Kind::Input, || format!("device {number}"))?;
        let device = result::device::get(ordinal).map_err(|error| opening(&error))?;
        let name = result::device::get_name(device).map_err(|error| opening(&error))?;
        // SAFETY: the driver has started and the device is one of its own.
        let capability = unsafe {
            (
                result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)
                    .map_err(|error| opening(&error))?,
                result::device::get_attribute(device, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)
                    .map_err(|error| opening(&error))?,
            )
        };
        if capability < OLDEST {
            let (major, minor) = capability;
            let message = format!("use `{name}`: its compute capability is {major}.{minor}, bf16 needs 8.0");
            return Err(Error::environment(message).hint("use `--device cpu`"));
        }
        // SAFETY: the device is there; its primary context is made current for this thread.
        let context = unsafe {
            let context = result::primary_ctx::retain(device).map_err(|error| opening(&error))?;
            result::ctx::set_current(context).map_err(|error| opening(&error))?;
            context
        };
        let stream = result::stream::create(result::stream::StreamKind::NonBlocking)
            .map_err(|error| opening(&error))?;
        let products = lt::create_handle().map_err(|error| opening(&error))?;
        // SAFETY: a context is current.
        let workspace = unsafe { result::malloc_sync(WORKSPACE) }.map_err(|error| opening(&error))?;
        Ok(Self {
            name,
            architecture: architecture(capability),
            context,
            stream,
            products,
            workspace: Address(workspace),
            kernels: RefCell::default(),
            modules: RefCell::default(),
            plans: RefCell::default(),
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
    fn kernel(&self, launch: &Launch<'_>) -> Result<Kernel> {
        let options = compiler::options(launch.element, launch.constants).join(" ");
        let identity = [launch.operation.source, HEADER, &options, &self.architecture].join("\0");
        let identity = blake3::hash(identity.as_bytes()).to_hex().to_string();
        let key = (identity, launch.kernel);
        if let Some(kernel) = self.kernels.borrow().get(&key) {
            return Ok(*kernel);
        }
        let known = self.modules.borrow().get(&key.0).copied();
        let module = if let Some(module) = known {
            module
        } else {
            let code = self.code(launch, &key.0)?;
            // SAFETY: machine code that NVRTC made for this architecture.
            let module = unsafe { result::module::load_data(code.as_ptr().cast()) };
            let module = module
                .map_err(|error| failed(format!("load the kernels of `{}`", launch.operation.name), error))?;
            self.modules.borrow_mut().insert(key.0.clone(), module);
            module
        };
        let finding = || format!("find the kernel `{}`", launch.kernel);
        let name = CString::new(launch.kernel).wrap(Kind::Internal, finding)?;
        // SAFETY: the module is loaded and never unloaded.
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

    /// Machine code, from disk where it was compiled before. That it cannot be kept is nobody's concern.
    fn code(&self, launch: &Launch<'_>, identity: &str) -> Result<Vec<u8>> {
        let path = cache().map(|folder| folder.join(format!("{}-{identity}.cubin", launch.operation.name)));
        if let Some(code) = path.as_ref().and_then(|path| std::fs::read(path).ok())
            && code.starts_with(b"\x7fELF")
        {
            return Ok(code);
        }
        let code = compiler::compile(
            launch.operation,
            launch.element,
            launch.constants,
            &self.architecture,
        )?;
        if let Some(path) = path
            && let Some(folder) = path.parent()
        {
            let beside = path.with_extension(format!("tmp{}", std::process::id()));
            let _ = std::fs::create_dir_all(folder)
                .and_then(|()| std::fs::write(&beside, &code))
                .and_then(|()| std::fs::rename(&beside, &path));
        }
        Ok(code)
    }
}

/// What NVRTC calls a compute capability. Hopper's own instructions need its `a`.
fn architecture((major, minor): (i32, i32)) -> String {
    let own = if (major, minor) == (9, 0) { "a" } else { "" };
    format!("sm_{major}{minor}{own}")
}

/// Where compiled kernels are kept: they belong to the machine, not to a project.
fn cache() -> Option<PathBuf> {
    let variable = |name| {
        std::env::var_os(name)
            .filter(|value| !value.is_empty())
            .map(PathBuf::from)
    };
    let caches = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    Some(caches.join("mdlm/kernels"))
}

impl Drop for Device {
    fn drop(&mut self) {
        // What fails here fails because the device is gone.
        if self.enter().is_err() {
            return;
        }
        // SAFETY: made by `open` and given back once; nothing runs any more after the synchronization.
        unsafe {
            let _ = result::stream::synchronize(self.stream);
            let _ = lt::destroy_handle(self.products);
            let _ = result::free_sync(self.workspace.0);
            let _ = result::stream::destroy(self.stream);
        }
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
            failed(
                format!("allocate {} MiB on `{}`{free}", bytes >> 20, self.name),
                error,
            )
            .hint("lower `micro_batch`, choose a smaller shape, or end what else uses the device")
        })
    }

    fn free(&self, at: Address, _: usize) {
        if self.enter().is_ok() {
            // SAFETY: from `allocate`, and given back once; this waits until nothing runs that uses it.
            let _ = unsafe { result::free_sync(at.0) };
        }
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.enter()?;
        // SAFETY: the memory is the caller's; `bytes` is pageable, so the call returns when it is read.
        unsafe { result::memcpy_htod_async(to.0, bytes, self.stream) }
            .map_err(|error| failed(format!("write {} bytes to `{}`", bytes.len(), self.name), error))
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

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: the memory is the caller's.
        unsafe { result::memset_d8_async(at.0, 0, bytes, self.stream) }
            .map_err(|error| failed(format!("clear {bytes} bytes of `{}`", self.name), error))
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        self.enter()?;
        // SAFETY: both are the caller's.
        unsafe { result::memcpy_dtod_async(to.0, from.0, bytes, self.stream) }
            .map_err(|error| failed(format!("copy {bytes} bytes on `{}`", self.name), error))
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
        self.enter()?;
        let kernel = self.kernel(launch)?;
        let doing = || {
            let Launch {
                kernel,
                grid,
                threads,
                shared,
                ..
            } = launch;
            format!("run the kernel `{kernel}` on {grid:?} blocks of {threads} threads with {shared} bytes")
        };
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
        .map_err(|error| {
            failed(doing(), error)
                .hint("CUDA_LAUNCH_BLOCKING=1 shows whether it is this one; compute-sanitizer says more")
        })
    }

    fn multiply(&self, product: &Product) -> Result<()> {
        self.enter()?;
        let [m, n, k] = product.sizes;
        let doing = || format!("multiply ({m}, {k}) by ({k}, {n}) on `{}`", self.name);
        let multiplied = Multiplication::new(product).and_then(|it| it.run(self, product));
        multiplied.map_err(|error| failed(doing(), error))
    }
}

/// cublasLt's descriptions of a product. It thinks in columns: what is row-major (r, c) here is its (c, r), so it computes
/// cᵀ = bᵀ aᵀ.
struct Multiplication {
    what: lt_sys::cublasLtMatmulDesc_t,
    /// Of b, a and c.
    layouts: [lt_sys::cublasLtMatrixLayout_t; 3],
}

fn data_type(element: Element) -> lt_sys::cudaDataType {
    match element {
        Element::F32 => lt_sys::cudaDataType_t::CUDA_R_32F,
        Element::Bf16 => lt_sys::cudaDataType_t::CUDA_R_16BF,
    }
}

impl Multiplication {
    fn new(product: &Product) -> Result<Self, lt::CublasError> {
        use lt_sys::cublasLtMatmulDescAttributes_t::{
            CUBLASLT_MATMUL_DESC_TRANSA, CUBLASLT_MATMUL_DESC_TRANSB,
        };
        let [m, n, k] = product.sizes;
        let compute = lt_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F;
        let what = lt::create_matmul_desc(compute, lt_sys::cudaDataType_t::CUDA_R_32F)?;
        // A matrix (rows, columns) as it lies: its rows are the library's columns.
        let layout = |operand: &Operand, rows: usize, columns: usize| {
            let (rows, columns) = if operand.transposed {
                (columns, rows)
            } else {
                (rows, columns)
            };
            lt::create_matrix_layout(
                data_type(operand.element),
                columns as u64,
                rows as u64,
                columns as i64,
            )
        };
        let c = Operand {
            at: product.c,
            element: product.element,
            transposed: false,
        };
        let layouts = [
            layout(&product.b, k, n)?,
            layout(&product.a, m, k)?,
            layout(&c, m, n)?,
        ];
        let operation = |operand: &Operand| i32::from(operand.transposed);
        let sides = [
            (CUBLASLT_MATMUL_DESC_TRANSA, operation(&product.b)),
            (CUBLASLT_MATMUL_DESC_TRANSB, operation(&product.a)),
        ];
        for (attribute, operation) in &sides {
            let operation = std::ptr::from_ref(operation).cast();
            // SAFETY: the description was made just now; the value is an i32 (0: as it is, 1: transposed), which is copied.
            unsafe { lt::set_matmul_desc_attribute(what, *attribute, operation, size_of::<i32>())? };
        }
        Ok(Self { what, layouts })
    }

    /// The fastest algorithm that the library knows, among those that add up partial sums in one order.
    fn algorithm(
        &self,
        device: &Device,
        product: &Product,
    ) -> Result<lt_sys::cublasLtMatmulAlgo_t, lt::CublasError> {
        let sides = [&product.a, &product.b].map(|operand| (operand.element, operand.transposed));
        let kind = (product.sizes, sides, product.element, product.accumulate);
        if let Some(known) = device.plans.borrow().get(&kind) {
            return Ok(*known);
        }
        let preference = lt::create_matmul_pref()?;
        let [b, a, c] = self.layouts;
        // SAFETY: all descriptions are there; the values are copied, and have the types that the library states.
        let found = unsafe {
            lt::set_matmul_pref_attribute(
                preference,
                CUBLASLT_MATMUL_PREF_MAX_WORKSPACE_BYTES,
                std::ptr::from_ref(&WORKSPACE).cast(),
                size_of::<usize>(),
            )?;
            lt::set_matmul_pref_attribute(
                preference,
                CUBLASLT_MATMUL_PREF_REDUCTION_SCHEME_MASK,
                std::ptr::from_ref(&IN_ORDER).cast(),
                size_of::<u32>(),
            )?;
            let found = lt::get_matmul_algo_heuristic(device.products, self.what, b, a, c, c, preference);
            lt::destroy_matmul_pref(preference)?;
            found?
        };
        device.plans.borrow_mut().insert(kind, found.algo);
        Ok(found.algo)
    }

    fn run(&self, device: &Device, product: &Product) -> Result<(), lt::CublasError> {
        let algorithm = self.algorithm(device, product)?;
        let (one, start) = (1.0_f32, if product.accumulate { 1.0_f32 } else { 0.0 });
        let [b, a, c] = self.layouts;
        let at = |address: Address| address.0 as *const c_void;
        // SAFETY: the descriptions are there and tell the sizes of the matrices, which are the caller's; the factors are read
        // before the call returns.
        unsafe {
            lt::matmul(
                device.products,
                self.what,
                std::ptr::from_ref(&one).cast(),
                std::ptr::from_ref(&start).cast(),
                at(product.b.at),
                b,
                at(product.a.at),
                a,
                at(product.c),
                c,
                product.c.0 as *mut c_void,
                c,
                &raw const algorithm,
                device.workspace.0 as *mut c_void,
                WORKSPACE,
                device.stream.cast(),
            )
        }
    }
}

impl Drop for Multiplication {
    fn drop(&mut self) {
        // SAFETY: made by `new` and destroyed once; the library has copied what a running product needs.
        unsafe {
            let _ = lt::destroy_matmul_desc(self.what);
            for layout in self.layouts {
                let _ = lt::destroy_matrix_layout(layout);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn architectures_are_called_as_the_compiler_calls_them() {
        assert_eq!(architecture((8, 0)), "sm_80");
        assert_eq!(architecture((9, 0)), "sm_90a");
        assert_eq!(architecture((10, 0)), "sm_100");
        assert_eq!(architecture((12, 0)), "sm_120");
    }

    /// Where there is no device, opening one says why and what to do, and nothing panics.
    #[test]
    fn without_a_device_there_is_an_error_with_a_way_out() {
        match count() {
            Ok(count) => {
                let error = Device::open(count).err().expect("no such device");
                assert!(
                    error.to_string().contains(&format!("there are {count}")),
                    "{error}"
                );
            }
            Err(error) => {
                assert_eq!(error.kind(), Kind::Environment);
                assert!(Device::open(0).is_err());
            }
        }
    }
}
