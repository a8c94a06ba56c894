//! A driver without a device, for tests: memory is the process's, products are plain, and kernels are their own sources,
//! compiled by the system's C++ compiler with `emulate.h` and run thread by thread. What it catches ends the process (see
//! there).
//!
//! This is a seam file (invariant 7): it hands out memory by address, as a device does, and calls into libraries that were
//! compiled a moment ago from this crate's own sources.

use std::alloc::{Layout, alloc, dealloc};
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ffi::{CStr, CString, c_void};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use super::compiler;
use super::driver::{Address, Driver, Element, HEADER, Launch, Operand, Product};
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::kernels::gemm::{Start, View, product};

/// Buffers begin where the device's would: at multiples of this.
const ALIGNMENT: usize = 256;
/// What fresh memory is filled with: NaNs, of f32 and of bf16.
const POISON: u8 = 0xFF;
/// The emulation's own header.
const EMULATION: &str = include_str!("emulate.h");

/// A driver that runs kernels on the CPU.
#[derive(Default)]
pub struct Emulated {
    /// Buffers by address, with their lengths.
    buffers: RefCell<BTreeMap<u64, usize>>,
    /// Those that lie idle: to touch them is a fault.
    idle: RefCell<BTreeSet<u64>>,
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
fn library(launch: &Launch<'_>) -> Result<Arc<Mutex<Option<Library>>>> {
    let options = compiler::options(launch.element, launch.constants).join(" ");
    let identity = [launch.operation.source, HEADER, EMULATION, &options].join("\0");
    let name = blake3::hash(identity.as_bytes()).to_hex().to_string();
    let entry = locked(&LIBRARIES).entry(name.clone()).or_default().clone();
    let mut library = locked(&entry);
    if library.is_none() {
        let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("target/emulated");
        let path = folder.join(format!("{}-{}.so", launch.operation.name, &name[..24]));
        if !path.exists() {
            compile(launch.operation.source, &options, &path)?;
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
    /// Checks that memory lies within a buffer.
    fn check(&self, at: Address, bytes: usize) -> Result<()> {
        let buffers = self.buffers.borrow();
        let found = buffers.range(..=at.0).next_back();
        let idle = self.idle.borrow();
        let found = found.filter(|(first, _)| !idle.contains(first));
        if bytes == 0 || found.is_some_and(|(first, length)| at.0 + bytes as u64 <= first + *length as u64) {
            return Ok(());
        }
        Err(Error::internal(format!(
            "{bytes} bytes at {:#x} are in no buffer",
            at.0
        )))
    }

    fn bytes(&self, at: Address, bytes: usize) -> Result<&[u8]> {
        self.check(at, bytes)?;
        // SAFETY: within a live buffer of ours, which was filled when it was made; nobody writes meanwhile, since a driver
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
            Element::F32 => bytes
                .chunks_exact(4)
                .map(|x| f32::from_le_bytes([x[0], x[1], x[2], x[3]]))
                .collect(),
            Element::Bf16 => bytes
                .chunks_exact(2)
                .map(|x| f32::from_bits(u32::from(u16::from_le_bytes([x[0], x[1]])) << 16))
                .collect(),
        })
    }
}

impl Drop for Emulated {
    fn drop(&mut self) {
        for (&at, &bytes) in &*self.buffers.borrow() {
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
        // SAFETY: the layout has a size of one byte at least.
        let at = unsafe { alloc(layout(bytes)) };
        if at.is_null() {
            return Err(Error::environment(format!("allocate {bytes} bytes")));
        }
        // SAFETY: so many bytes were allocated just now.
        unsafe { at.write_bytes(POISON, bytes) };
        self.buffers.borrow_mut().insert(at as u64, bytes);
        Ok(Address(at as u64))
    }

    fn free(&self, at: Address, bytes: usize) {
        self.idle.borrow_mut().remove(&at.0);
        let known = self.buffers.borrow_mut().remove(&at.0);
        assert_eq!(known, Some(bytes), "freed what was not allocated");
        // SAFETY: allocated with this layout, and forgotten now.
        unsafe { dealloc(at.0 as *mut u8, layout(bytes)) };
    }

    fn idle(&self, at: Address, is_idle: bool) {
        if !is_idle {
            self.idle.borrow_mut().remove(&at.0);
            return;
        }
        if let Some(&bytes) = self.buffers.borrow().get(&at.0) {
            // SAFETY: a live buffer of ours of that length, which nobody uses.
            unsafe { (at.0 as *mut u8).write_bytes(POISON, bytes) };
            self.idle.borrow_mut().insert(at.0);
        }
    }

    fn write(&self, to: Address, bytes: &[u8]) -> Result<()> {
        self.bytes_mut(to, bytes.len())?.copy_from_slice(bytes);
        Ok(())
    }

    fn read(&self, from: Address, bytes: &mut [u8]) -> Result<()> {
        bytes.copy_from_slice(self.bytes(from, bytes.len())?);
        Ok(())
    }

    fn clear(&self, at: Address, bytes: usize) -> Result<()> {
        self.bytes_mut(at, bytes)?.fill(0);
        Ok(())
    }

    fn copy(&self, from: Address, to: Address, bytes: usize) -> Result<()> {
        let copy = self.bytes(from, bytes)?.to_vec();
        self.write(to, &copy)
    }

    fn launch(&self, launch: &Launch<'_>) -> Result<()> {
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
        // touches memory within the buffers that it is told of, which it checks itself; `values` outlives the call.
        unsafe {
            let forget: extern "C" fn() = std::mem::transmute(forget);
            let buffer: extern "C" fn(*mut c_void, usize) = std::mem::transmute(buffer);
            let kernel: extern "C" fn(*const u32, *const *const u64) = std::mem::transmute(kernel);
            forget();
            let idle = self.idle.borrow();
            for (&at, &bytes) in self.buffers.borrow().iter().filter(|(at, _)| !idle.contains(at)) {
                buffer(at as *mut c_void, bytes);
            }
            kernel(sizes.as_ptr(), addresses.as_ptr());
        }
        Ok(())
    }

    fn multiply(&self, wanted: &Product) -> Result<()> {
        let [m, n, k] = wanted.sizes;
        let (a, b) = (self.matrix(wanted.a, m * k)?, self.matrix(wanted.b, k * n)?);
        let view = |values, transposed: bool, rows: usize, columns: usize| {
            if transposed {
                View::strided(values, columns, rows, rows).t()
            } else {
                View::strided(values, rows, columns, columns)
            }
        };
        let c = Operand {
            at: wanted.c,
            element: wanted.element,
            transposed: false,
        };
        let mut values = if wanted.accumulate {
            self.matrix(c, m * n)?
        } else {
            vec![0.0; m * n]
        };
        product(
            Start::Accumulate,
            view(&a, wanted.a.transposed, m, k),
            view(&b, wanted.b.transposed, k, n),
            &mut values,
        );
        self.write(wanted.c, &super::narrowed(&values, wanted.element))
    }
}
