//! Kernels for a GPU: CUDA C compiled by NVRTC, a library that is loaded when it is asked for. No device is needed.
//!
//! This is a seam file (invariant 7): NVRTC is a C library.

use std::ffi::{CStr, CString, c_char};
use std::fmt::Write as _;

use cudarc::nvrtc::sys;

use super::driver::{Constant, DType, HEADER, Kernels, Value};
use crate::error::{Error, Kind, Result, Wrap as _};

/// What a source is compiled with, beside the architecture.
#[must_use]
pub fn options(element: DType, constants: &[Constant]) -> Vec<String> {
    let mut options = vec!["--std=c++17".to_owned()];
    for (name, value) in constants {
        let mut option = format!("-D{name}=");
        // Writing to a string does not fail.
        let _ = match value {
            Value::Whole(value) => write!(option, "{value}"),
            Value::Real(value) => write!(option, "{value:?}f"),
        };
        options.push(option);
    }
    if element == DType::Bf16 {
        options.push("-DELEMENT_BF16".to_owned());
    }
    options
}

/// Whether NVRTC is there to be loaded.
#[must_use]
pub fn is_present() -> bool {
    // SAFETY: loads a library of the system's and lets it go.
    unsafe { sys::is_culib_present() }
}

/// An error where NVRTC is not there.
///
/// # Errors
/// NVRTC is not installed.
pub fn require() -> Result<()> {
    if is_present() {
        return Ok(());
    }
    Err(
        Error::environment("compile kernels: the library NVRTC was not found").hint(
            "install the CUDA toolkit, or `pip install nvidia-cuda-nvrtc`, and name the library's folder in \
         LD_LIBRARY_PATH",
        ),
    )
}

/// A program of NVRTC's.
struct Program(sys::nvrtcProgram);

impl Drop for Program {
    fn drop(&mut self) {
        // SAFETY: made by nvrtcCreateProgram and not destroyed before.
        unsafe { sys::nvrtcDestroyProgram(&raw mut self.0) };
    }
}

/// Machine code (cubin) of an operation's kernels for an architecture such as `sm_90a`.
///
/// # Errors
/// NVRTC is not there, does not know the architecture, or refuses the source: its own words are in the message.
pub fn compile(
    kernels: Kernels,
    element: DType,
    constants: &[Constant],
    architecture: &str,
) -> Result<Vec<u8>> {
    translate(kernels, options(element, constants), architecture).map(|(code, _)| code)
}

/// Machine code, and what the compiler had to say of it.
fn translate(kernels: Kernels, mut all: Vec<String>, architecture: &str) -> Result<(Vec<u8>, String)> {
    require()?;
    let doing = || format!("compile the kernels of `{}` for {architecture}", kernels.name);
    let c_string = |text: &str| CString::new(text).wrap(Kind::Internal, doing);
    let name = c_string(&format!("{}.cu", kernels.name))?;
    let (source, header, header_name) = (
        c_string(kernels.source)?,
        c_string(HEADER)?,
        c_string("device.h")?,
    );
    all.push(format!("--gpu-architecture={architecture}"));
    let all: Vec<CString> = all.iter().map(|option| c_string(option)).collect::<Result<_>>()?;
    let all: Vec<*const c_char> = all.iter().map(|option| option.as_ptr()).collect();
    let (headers, names) = ([header.as_ptr()], [header_name.as_ptr()]);
    let refused = |what: &str, status: sys::nvrtcResult, log: String| {
        Error::internal(format!("{}: {what}: {status:?} {log}", doing()))
    };
    let mut program = std::ptr::null_mut();
    // SAFETY: all pointers are of strings that live to the end of this function.
    let status = unsafe {
        sys::nvrtcCreateProgram(
            &raw mut program,
            source.as_ptr(),
            name.as_ptr(),
            1,
            headers.as_ptr(),
            names.as_ptr(),
        )
    };
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(refused("create the program", status, String::new()));
    }
    let program = Program(program);
    let count = i32::try_from(all.len()).wrap(Kind::Internal, doing)?;
    // SAFETY: as above.
    let status = unsafe { sys::nvrtcCompileProgram(program.0, count, all.as_ptr()) };
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(refused("NVRTC says", status, log(&program)));
    }
    let mut size = 0;
    // SAFETY: the program is compiled; the buffer has the size that it was asked for.
    let status = unsafe { sys::nvrtcGetCUBINSize(program.0, &raw mut size) };
    let mut code = vec![0_u8; size];
    if status != sys::nvrtcResult::NVRTC_SUCCESS || size == 0 {
        return Err(refused("no machine code", status, log(&program)));
    }
    // SAFETY: as above.
    let status = unsafe { sys::nvrtcGetCUBIN(program.0, code.as_mut_ptr().cast()) };
    if status != sys::nvrtcResult::NVRTC_SUCCESS {
        return Err(refused("no machine code", status, log(&program)));
    }
    Ok((code, log(&program)))
}

/// What the compiler had to say.
fn log(program: &Program) -> String {
    let mut size = 0;
    // SAFETY: the program is there; the buffer has the size that it was asked for and ends with a zero.
    unsafe {
        if sys::nvrtcGetProgramLogSize(program.0, &raw mut size) != sys::nvrtcResult::NVRTC_SUCCESS
            || size == 0
        {
            return String::new();
        }
        let mut text = vec![0_u8; size];
        if sys::nvrtcGetProgramLog(program.0, text.as_mut_ptr().cast()) != sys::nvrtcResult::NVRTC_SUCCESS {
            return String::new();
        }
        CStr::from_bytes_until_nul(&text)
            .map_or_else(|_| String::new(), |text| text.to_string_lossy().into_owned())
    }
}

#[cfg(test)]
mod tests {
    use rayon::prelude::*;

    use super::*;
    use crate::kernels::Operation;
    use crate::shape::Shape;
    use crate::shape::tests::EXAMPLES;

    /// Every dimension that any kernel of a shape is compiled for. Of a width the widest is taken: registers are what may
    /// run out.
    fn constants(shape: &Shape) -> Vec<Constant> {
        let (width, head) = (shape.width, shape.width / shape.heads);
        let whole = [
            ("WIDTH", width),
            ("COLUMNS", 6 * width),
            ("SHIFT", 3 * width),
            ("SCALE", 4 * width),
            ("GATE", 5 * width),
            ("LENGTH", shape.length),
            ("VOCABULARY", shape.vocabulary),
            ("HEAD", head),
            ("HEADS", shape.heads),
            ("EACH", 4),
            ("STRIDE", shape.vocabulary.next_multiple_of(64)),
        ];
        let mut all: Vec<Constant> = whole
            .iter()
            .map(|(name, value)| (*name, Value::Whole(*value)))
            .collect();
        all.push(("SQRT_HEAD", Value::Real((head as f32).sqrt())));
        all
    }

    /// What an operation is compiled for besides, a value a variant: losses of the readout, patterns of attention.
    fn variants(operation: Operation) -> Vec<Option<Constant>> {
        let all = |name, values: [usize; 3]| values.map(|value| Some((name, Value::Whole(value)))).to_vec();
        match operation {
            Operation::Attention => all("SPAN", [0, 1, 96]),
            Operation::Readout => all("LOSS", [0, 1, 2]),
            _ => vec![None],
        }
    }

    /// The kernels of a small shape, a usual one and the largest, in f32 and bf16, for the architectures that they are
    /// meant for.
    #[test]
    fn kernels_compile_for_every_architecture() {
        if crate::require::require("nvrtc", require()).is_none() {
            return;
        }
        let mut wanted = Vec::new();
        let named = |shape: &&Shape| ["nano", "lm1b-small", "owt-medium"].contains(&shape.name);
        for shape in EXAMPLES.iter().filter(named) {
            for operation in Operation::ALL {
                for element in [DType::F32, DType::Bf16] {
                    for architecture in ["sm_80", "sm_90", "sm_90a", "sm_100"] {
                        for variant in variants(operation) {
                            wanted.push((shape, operation, element, architecture, variant));
                        }
                    }
                }
            }
        }
        wanted
            .into_par_iter()
            .for_each(|(shape, operation, element, architecture, variant)| {
                let mut constants = constants(shape);
                constants.extend(variant);
                if operation == Operation::Attention {
                    // It states its own.
                    constants.retain(|(name, _)| !matches!(*name, "WIDTH" | "SCALE"));
                }
                let mut all = options(element, &constants);
                all.push("--ptxas-options=-v".to_owned());
                let (code, log) = translate(operation.kernels(), all, architecture)
                    .unwrap_or_else(|error| panic!("{}: {error}", shape.name));
                assert!(
                    code.starts_with(b"\x7fELF"),
                    "{} for {architecture}",
                    operation.name()
                );
                // What is fast keeps its tiles in registers: no array of a thread's lies in memory. f32 is for checking.
                let frames: Vec<&str> = log
                    .lines()
                    .filter(|line| line.contains("bytes stack frame"))
                    .collect();
                assert!(!frames.is_empty(), "{log}");
                let in_registers = frames
                    .iter()
                    .all(|line| line.contains(" 0 bytes stack frame, 0 bytes spill stores"));
                assert!(
                    in_registers || element == DType::F32,
                    "{} of {}: {log}",
                    operation.name(),
                    shape.name
                );
            });
    }

    #[test]
    fn compiler_error_is_quoted() {
        if crate::require::require("nvrtc", require()).is_none() {
            return;
        }
        let broken = Kernels {
            name: "broken",
            source: "#include \"device.h\"\nextern \"C\" __global__ void broken() { undeclared = 1; }",
        };
        let error = compile(broken, DType::F32, &[], "sm_90").unwrap_err();
        assert!(error.to_string().contains("`broken` for sm_90"), "{error}");
        assert!(
            error.to_string().contains("\"undeclared\" is undefined"),
            "{error}"
        );
        assert!(compile(broken, DType::F32, &[], "sm_1").is_err());
    }
}
