//! Looks for CUDA: the driver, its devices, NVRTC, cublasLt. Whether it is enough, [`CudaSupport::verdict`] says.
//!
//! This is a seam file (invariant 7): these are C libraries. Bindings panic where a library or one of its functions is
//! missing, so that presence is asked first and the rest is guarded: looking for a GPU never ends a process.

use std::sync::OnceLock;

use cudarc::cublaslt::sys as products;
use cudarc::driver::sys::CUdevice_attribute::{
    CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
    CU_DEVICE_ATTRIBUTE_COMPUTE_MODE, CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT,
};
use cudarc::driver::{result, sys as driver};
use cudarc::nvrtc::sys as compiler;

use super::driver::DType;
use super::support::{Compiler, CudaSupport, Detected, Gpu, Installed, Version};
use crate::error::guarded;
use crate::kernels::Operation;

/// CU_COMPUTEMODE_PROHIBITED
const PROHIBITED: i32 = 2;

/// What was found, asked once per process: starting the driver takes tenths of a second.
#[must_use]
pub fn support() -> &'static CudaSupport {
    static SUPPORT: OnceLock<CudaSupport> = OnceLock::new();
    SUPPORT.get_or_init(|| {
        let mut support = CudaSupport {
            driver: ask_for_driver(),
            ..CudaSupport::nothing()
        };
        // The libraries have hundreds of megabytes: they are looked for where they would be used.
        if !support.gpus().is_empty() {
            (support.compiler, support.products) = ask_for_libraries();
        }
        support
    })
}

/// What is found now, with the free memory of each device, and whether kernels compile.
#[must_use]
pub fn thorough() -> CudaSupport {
    let (compiler, products) = ask_for_libraries();
    let mut support = CudaSupport {
        driver: ask_for_driver(),
        compiler,
        products,
    };
    if let Detected::There(Installed { gpus: Ok(gpus), .. }) = &mut support.driver {
        for gpu in gpus {
            gpu.free = guarded(|| free(gpu.number)).ok().flatten();
        }
    }
    let gpu = support.gpus().first().cloned();
    if let Detected::There(compiler) = &mut support.compiler {
        let architecture = compiler.tried_for(gpu.as_ref());
        compiler.test_compile = Some(test_compile(&architecture));
    }
    support
}

fn ask_for_driver() -> Detected<Installed> {
    // SAFETY: loads a library of the system's and lets it go.
    asked(unsafe { driver::is_culib_present() }, ask_driver)
}

fn ask_for_libraries() -> (Detected<Compiler>, Detected<Version>) {
    // SAFETY: each loads a library of the system's and lets it go.
    let (compiler, products) = unsafe { (compiler::is_culib_present(), products::is_culib_present()) };
    (asked(compiler, ask_compiler), asked(products, ask_products))
}

/// What a library says, if it is there and answers.
fn asked<T>(is_there: bool, ask: impl FnOnce() -> Result<T, String>) -> Detected<T> {
    if !is_there {
        return Detected::Absent;
    }
    match guarded(ask).and_then(|answer| answer) {
        Ok(there) => Detected::There(there),
        // What a panic says of a missing symbol goes on with where it was looked for.
        Err(words) => Detected::Broken(words.lines().next().unwrap_or_default().to_owned()),
    }
}

/// CUDA counts 13000 for 13.0.
fn version(number: i32) -> Version {
    let number = u32::try_from(number).unwrap_or(0);
    Version {
        major: number / 1000,
        minor: number % 1000 / 10,
    }
}

fn ask_driver() -> Result<Installed, String> {
    let mut number = 0;
    // SAFETY: the driver is there; the number is written.
    unsafe { driver::cuDriverGetVersion(&raw mut number) }
        .result()
        .map_err(|error| format!("{:?}", error.0))?;
    // The name of a failure alone: the driver's explanation is a separate sentence.
    let gpus = match result::init() {
        Ok(()) => ask_gpus(),
        Err(error) if error.0 == driver::CUresult::CUDA_ERROR_NO_DEVICE => Ok(vec![]),
        Err(error) => Err(format!("{:?}", error.0)),
    };
    Ok(Installed {
        cuda: version(number),
        release: None,
        gpus,
    })
}

fn ask_gpus() -> Result<Vec<Gpu>, String> {
    let name = |error: result::DriverError| format!("{:?}", error.0);
    let count = result::device::get_count().map_err(name)?;
    (0..count).map(|number| ask_gpu(number).map_err(name)).collect()
}

fn ask_gpu(number: i32) -> Result<Gpu, result::DriverError> {
    let device = result::device::get(number)?;
    // SAFETY: the driver has started and the device is the driver's.
    let attribute = |which| unsafe { result::device::get_attribute(device, which) };
    // SAFETY: likewise.
    let memory = unsafe { result::device::total_mem(device) }?;
    let natural = |number: i32| u32::try_from(number).unwrap_or(0);
    Ok(Gpu {
        number: usize::try_from(number).unwrap_or(0),
        name: result::device::get_name(device)?,
        // Drivers before CUDA 11.4 have no such function.
        uuid: guarded(|| result::device::get_uuid(device).ok())
            .ok()
            .flatten()
            .map(|uuid| named(&uuid.bytes)),
        capability: (
            natural(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR)?),
            natural(attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR)?),
        ),
        multiprocessors: natural(attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)?),
        memory: memory as u64,
        free: None,
        is_open: attribute(CU_DEVICE_ATTRIBUTE_COMPUTE_MODE)? != PROHIBITED,
        holder: None,
    })
}

/// A device's UUID as `nvidia-smi -L` prints it.
fn named(bytes: &[std::ffi::c_char; 16]) -> String {
    let pairs = bytes.iter().enumerate().map(|(place, byte)| {
        let dash = if matches!(place, 0 | 4 | 6 | 8 | 10) {
            "-"
        } else {
            ""
        };
        format!("{dash}{:02x}", *byte as u8)
    });
    std::iter::once("GPU".to_owned()).chain(pairs).collect()
}

/// Free memory of a device, in bytes. That takes a context on it, which is given back.
fn free(number: usize) -> Option<u64> {
    let device = result::device::get(i32::try_from(number).ok()?).ok()?;
    // SAFETY: the driver has started and the device is the driver's; the context is current while it is asked, and each
    // is given back once.
    unsafe {
        let context = result::primary_ctx::retain(device).ok()?;
        let before = result::ctx::get_current().ok().flatten();
        let free = result::ctx::set_current(context)
            .and_then(|()| result::mem_get_info())
            .ok()
            .map(|(free, _)| free as u64);
        let _ = result::ctx::set_current(before.unwrap_or(std::ptr::null_mut()));
        let _ = result::primary_ctx::release(device);
        free
    }
}

fn ask_compiler() -> Result<Compiler, String> {
    let (mut major, mut minor) = (0, 0);
    // SAFETY: the library is there; both numbers are written.
    let status = unsafe { compiler::nvrtcVersion(&raw mut major, &raw mut minor) };
    if status != compiler::nvrtcResult::NVRTC_SUCCESS {
        return Err(format!("{status:?}"));
    }
    let natural = |number: i32| u32::try_from(number).unwrap_or(0);
    Ok(Compiler {
        version: Version {
            major: natural(major),
            minor: natural(minor),
        },
        // Old versions do not report them.
        architectures: guarded(architectures).unwrap_or_default(),
        test_compile: None,
    })
}

/// Whether a kernel compiles for that architecture, or the compiler's words.
fn test_compile(architecture: &str) -> Result<(), String> {
    let kernels = Operation::Silu.kernels();
    let compiled = guarded(|| super::compiler::compile(kernels, DType::F32, &[], architecture))?;
    compiled.map(drop).map_err(|error| {
        let words = error.to_string();
        words.split_whitespace().collect::<Vec<_>>().join(" ")
    })
}

fn architectures() -> Vec<u32> {
    let mut count = 0;
    // SAFETY: the library is there; the number is written.
    let status = unsafe { compiler::nvrtcGetNumSupportedArchs(&raw mut count) };
    let Ok(count) = usize::try_from(count) else {
        return vec![];
    };
    let mut all = vec![0; count];
    // SAFETY: there is room for as many as it says.
    if status != compiler::nvrtcResult::NVRTC_SUCCESS
        || unsafe { compiler::nvrtcGetSupportedArchs(all.as_mut_ptr()) }
            != compiler::nvrtcResult::NVRTC_SUCCESS
    {
        return vec![];
    }
    all.into_iter()
        .filter_map(|number| u32::try_from(number).ok())
        .collect()
}

fn ask_products() -> Result<Version, String> {
    let ask = |property| {
        let mut value = 0;
        // SAFETY: the library is there; the number is written.
        let status = unsafe { products::cublasLtGetProperty(property, &raw mut value) };
        if status == products::cublasStatus_t::CUBLAS_STATUS_SUCCESS {
            Ok(u32::try_from(value).unwrap_or(0))
        } else {
            Err(format!("{status:?}"))
        }
    };
    Ok(Version {
        major: ask(products::libraryPropertyType_t::MAJOR_VERSION)?,
        minor: ask(products::libraryPropertyType_t::MINOR_VERSION)?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_they_are_counted() {
        let text = |number| version(number).to_string();
        assert_eq!(
            (&*text(13000), &*text(12040), &*text(12090)),
            ("13.0", "12.4", "12.9")
        );
    }

    #[test]
    fn uuid_is_written_as_nvidia_smi_does() {
        let bytes = std::array::from_fn(|place| place as std::ffi::c_char);
        assert_eq!(named(&bytes), "GPU-00010203-0405-0607-0809-0a0b0c0d0e0f");
    }

    /// Whatever this machine has, probing does not panic, and names what is missing.
    #[test]
    fn probing_never_panics() {
        let found = thorough();
        assert_eq!(found.verdict().is_ok(), support().verdict().is_ok());
        if let Err(trouble) = found.verdict() {
            println!("{trouble}; {}", trouble.way_out());
        }
    }

    #[test]
    fn library_that_panics_is_broken() {
        let found: Detected<()> = asked(true, || panic!("Missing symbol x: y\nand more"));
        assert_eq!(found, Detected::Broken("Missing symbol x: y".to_owned()));
        assert_eq!(asked(false, || Ok(())), Detected::Absent);
    }
}
