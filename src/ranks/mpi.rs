//! Ranks over MPI, whose library is loaded when a training is shared: neither building nor starting needs it.
//!
//! Three binary interfaces exist. They differ in the type and the values of handles, and in handles:
//!
//! | interface | file names | handles | `MPI_THREAD_SERIALIZED` |
//! |---|---|---|---|
//! | the standard's (MPI 5.0, chapter 20) | `libmpi_abi.so.1`, `libmpi_abi.so.0` | small numbers as pointers | 2048 |
//! | Open MPI's (4 and 5) | `libmpi.so.40` | addresses of objects of the library | 2 |
//! | MPICH's (also Intel MPI, Cray MPICH, MVAPICH) | `libmpi.so.12`, `libmpich.so.12` | integers | 2 |
//!
//! `libmpi.so` is not asked for: it may be of either kind, or a script of a linker. A library that does not belong to the
//! launcher makes a world of one process in every process; [`Mpi::start`] compares the two and refuses.

use std::ffi::{c_char, c_int, c_void};
use std::fmt::{self, Debug};
use std::ops::Range;
use std::ptr;
use std::sync::atomic::{AtomicI32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW, Symbol};

use super::launcher::{Launched, MpiFamily};
use super::{Communicator, Cut, Rank};
use crate::error::{Error, Result};

/// Names a file to load instead of the ones that are looked for.
pub const VARIABLE: &str = "MDLM_MPI";

/// Elements of one call at most: counts are C `int`s.
const MOST: usize = 1 << 30;

/// A binary interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BinaryInterface {
    Standard,
    OpenMpi,
    Mpich,
}

/// The file names that the dynamic linker is asked for, the preferred ones first, with their interfaces.
const FILES: [(&str, BinaryInterface); 5] = [
    ("libmpi_abi.so.1", BinaryInterface::Standard),
    ("libmpi_abi.so.0", BinaryInterface::Standard),
    ("libmpi.so.40", BinaryInterface::OpenMpi),
    ("libmpi.so.12", BinaryInterface::Mpich),
    ("libmpich.so.12", BinaryInterface::Mpich),
];

/// The handles of an interface, as the type of its handles.
struct Handles<H> {
    world: H,
    float: H,
    double: H,
    byte: H,
    errors_return: H,
    serialized: c_int,
}

type InitThread = unsafe extern "C" fn(*mut c_int, *mut *mut *mut c_char, c_int, *mut c_int) -> c_int;
type Finalize = unsafe extern "C" fn() -> c_int;
type Text = unsafe extern "C" fn(*mut c_char, *mut c_int) -> c_int;
type ErrorString = unsafe extern "C" fn(c_int, *mut c_char, *mut c_int) -> c_int;
type Number<H> = unsafe extern "C" fn(H, *mut c_int) -> c_int;
type SetHandler<H> = unsafe extern "C" fn(H, H) -> c_int;
type Abort<H> = unsafe extern "C" fn(H, c_int) -> c_int;
type Bcast<H> = unsafe extern "C" fn(*mut c_void, c_int, H, c_int, H) -> c_int;
type Alltoallv<H> = unsafe extern "C" fn(
    *const c_void,
    *const c_int,
    *const c_int,
    H,
    *mut c_void,
    *const c_int,
    *const c_int,
    H,
    H,
) -> c_int;
type Allgatherv<H> =
    unsafe extern "C" fn(*const c_void, c_int, H, *mut c_void, *const c_int, *const c_int, H, H) -> c_int;

/// The functions of a library, whose handles are `H`.
struct Functions<H> {
    handles: Handles<H>,
    init_thread: Symbol<InitThread>,
    finalize: Symbol<Finalize>,
    library_version: Symbol<Text>,
    error_string: Symbol<ErrorString>,
    comm_rank: Symbol<Number<H>>,
    comm_size: Symbol<Number<H>>,
    set_handler: Symbol<SetHandler<H>>,
    abort: Symbol<Abort<H>>,
    bcast: Symbol<Bcast<H>>,
    alltoallv: Symbol<Alltoallv<H>>,
    allgatherv: Symbol<Allgatherv<H>>,
}

/// What ranks need of a library, whatever the type of its handles.
trait Calls: Send + Sync {
    fn init(&self) -> Result<()>;
    fn finalize(&self);
    fn version(&self) -> String;
    fn rank(&self) -> Result<Rank>;
    fn abort(&self, code: c_int);
    fn broadcast(&self, bytes: &mut [u8]) -> Result<()>;
    /// Counts and places are in elements, one of each a rank.
    fn exchange(&self, own: &[f32], sent: &Layout, received: &mut [f32], taken: &Layout) -> Result<()>;
    fn gather_floats(&self, own: &[f32], all: &mut [f32], layout: &Layout) -> Result<()>;
    fn gather_doubles(&self, own: &[f64], all: &mut [f64], layout: &Layout) -> Result<()>;
}

/// Elements of each rank, and where they begin.
struct Layout {
    counts: Vec<c_int>,
    places: Vec<c_int>,
}

impl Layout {
    fn new(counts: impl Iterator<Item = usize>) -> Result<Self> {
        let mut layout = Self {
            counts: vec![],
            places: vec![],
        };
        let mut place = 0;
        for count in counts {
            layout.counts.push(number(count)?);
            layout.places.push(number(place)?);
            place += count;
        }
        Ok(layout)
    }
}

fn number(elements: usize) -> Result<c_int> {
    c_int::try_from(elements).map_err(|_| {
        Error::environment(format!("{elements} numbers are more than a call of MPI can send")).hint(
            "train with more ranks on shapes with fewer parameters, or on one machine: such a model was never tried",
        )
    })
}

impl<H: Copy> Functions<H> {
    /// # Safety
    /// The library has MPI's functions with the interface of `H` and of the handles.
    unsafe fn load(library: &Library, handles: Handles<H>) -> Result<Self, libloading::Error> {
        // SAFETY: the caller's; the types are those of the standard.
        unsafe {
            Ok(Self {
                handles,
                init_thread: library.get(b"MPI_Init_thread\0")?,
                finalize: library.get(b"MPI_Finalize\0")?,
                library_version: library.get(b"MPI_Get_library_version\0")?,
                error_string: library.get(b"MPI_Error_string\0")?,
                comm_rank: library.get(b"MPI_Comm_rank\0")?,
                comm_size: library.get(b"MPI_Comm_size\0")?,
                set_handler: library.get(b"MPI_Comm_set_errhandler\0")?,
                abort: library.get(b"MPI_Abort\0")?,
                bcast: library.get(b"MPI_Bcast\0")?,
                alltoallv: library.get(b"MPI_Alltoallv\0")?,
                allgatherv: library.get(b"MPI_Allgatherv\0")?,
            })
        }
    }

    fn check(&self, what: &str, code: c_int) -> Result<()> {
        if code == 0 {
            return Ok(());
        }
        // MPI_MAX_ERROR_STRING is at most 512 in all of them.
        let mut text = [0; 1024];
        let mut length = 0;
        // SAFETY: the buffer is longer than the longest text.
        let is_known = unsafe { (self.error_string)(code, text.as_mut_ptr(), &raw mut length) };
        let text = if is_known == 0 {
            from_c(&text, length)
        } else {
            format!("error {code}")
        };
        Err(Error::environment(format!("{what} over MPI: {text}")))
    }

    fn gather<T>(&self, own: &[T], all: &mut [T], layout: &Layout, kind: H) -> Result<()> {
        let count = number(own.len())?;
        // SAFETY: the layout's places and counts lie within `all`, as the callers make them.
        let code = unsafe {
            (self.allgatherv)(
                own.as_ptr().cast(),
                count,
                kind,
                all.as_mut_ptr().cast(),
                layout.counts.as_ptr(),
                layout.places.as_ptr(),
                kind,
                self.handles.world,
            )
        };
        self.check("gather", code)
    }
}

/// A text that a C function wrote.
fn from_c(text: &[c_char], length: c_int) -> String {
    let length = usize::try_from(length).unwrap_or(0).min(text.len());
    let bytes: Vec<u8> = text[..length].iter().map(|&byte| byte.cast_unsigned()).collect();
    String::from_utf8_lossy(&bytes)
        .trim_end_matches('\0')
        .trim()
        .to_owned()
}

/// Handles may be pointers, which are never dereferenced here.
struct Initialized<H>(Functions<H>);

// SAFETY: the table is constant. MPI is initialized for calls from any thread, one at a time, and `Mpi` locks.
unsafe impl<H> Send for Initialized<H> {}
// SAFETY: as above.
unsafe impl<H> Sync for Initialized<H> {}

impl<H: Copy> Calls for Initialized<H> {
    fn init(&self) -> Result<()> {
        let (table, wanted) = (&self.0, self.0.handles.serialized);
        let mut provided = 0;
        // SAFETY: MPI takes null for the arguments of the program.
        let code =
            unsafe { (table.init_thread)(ptr::null_mut(), ptr::null_mut(), wanted, &raw mut provided) };
        table.check("start", code)?;
        if provided < wanted {
            return Err(Error::environment(
                "start MPI: its library does not support calls from several threads",
            ));
        }
        // SAFETY: both are handles of this library.
        let code = unsafe { (table.set_handler)(table.handles.world, table.handles.errors_return) };
        table.check("start", code)
    }

    fn finalize(&self) {
        // SAFETY: `Mpi` calls it once, after the last call.
        unsafe { (self.0.finalize)() };
    }

    fn version(&self) -> String {
        // MPI_MAX_LIBRARY_VERSION_STRING is at most 8192 in all of them.
        let mut text = vec![0; 16384];
        let mut length = 0;
        // SAFETY: the buffer is longer than the longest text. The function may be called before the initialization.
        unsafe { (self.0.library_version)(text.as_mut_ptr(), &raw mut length) };
        let text = from_c(&text, length);
        let line = text.lines().next().unwrap_or_default();
        // `Open MPI v4.1.4, package: …`, `MPICH Version:      4.0.2`.
        let line = line.split(", package").next().unwrap_or_default();
        let line = line
            .replacen("Open MPI v", "Open MPI ", 1)
            .replacen(" Version:", "", 1);
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    }

    fn rank(&self) -> Result<Rank> {
        let (mut rank, mut world) = (0, 0);
        let table = &self.0;
        // SAFETY: initialized; the handle is this library's.
        table.check("start", unsafe {
            (table.comm_rank)(table.handles.world, &raw mut rank)
        })?;
        // SAFETY: as above.
        table.check("start", unsafe {
            (table.comm_size)(table.handles.world, &raw mut world)
        })?;
        Ok(Rank {
            rank: rank.cast_unsigned(),
            world: world.cast_unsigned(),
        })
    }

    fn abort(&self, code: c_int) {
        // SAFETY: initialized; the handle is this library's.
        unsafe { (self.0.abort)(self.0.handles.world, code) };
    }

    fn broadcast(&self, bytes: &mut [u8]) -> Result<()> {
        let (table, handles) = (&self.0, &self.0.handles);
        for part in bytes.chunks_mut(MOST) {
            let count = number(part.len())?;
            // SAFETY: the buffer has that many bytes.
            let code =
                unsafe { (table.bcast)(part.as_mut_ptr().cast(), count, handles.byte, 0, handles.world) };
            table.check("broadcast", code)?;
        }
        Ok(())
    }

    fn exchange(&self, own: &[f32], sent: &Layout, received: &mut [f32], taken: &Layout) -> Result<()> {
        let (table, handles) = (&self.0, &self.0.handles);
        // SAFETY: the layouts' places and counts lie within the buffers, as `Mpi::exchange` makes them.
        let code = unsafe {
            (table.alltoallv)(
                own.as_ptr().cast(),
                sent.counts.as_ptr(),
                sent.places.as_ptr(),
                handles.float,
                received.as_mut_ptr().cast(),
                taken.counts.as_ptr(),
                taken.places.as_ptr(),
                handles.float,
                handles.world,
            )
        };
        table.check("exchange", code)
    }

    fn gather_floats(&self, own: &[f32], all: &mut [f32], layout: &Layout) -> Result<()> {
        self.0.gather(own, all, layout, self.0.handles.float)
    }

    fn gather_doubles(&self, own: &[f64], all: &mut [f64], layout: &Layout) -> Result<()> {
        self.0.gather(own, all, layout, self.0.handles.double)
    }
}

/// A library that could be loaded.
pub struct MpiLibrary {
    file: String,
    calls: Box<dyn Calls>,
}

impl MpiLibrary {
    /// The library's own words and its file: `Open MPI 4.1.4 (libmpi.so.40)`.
    #[must_use]
    pub fn described(&self) -> String {
        format!("{} ({})", self.calls.version(), self.file)
    }
}

/// Loads the MPI library of a launcher's family, or any where the family is not known.
///
/// # Errors
/// Environment error: none is found, or the file in [`VARIABLE`] is none.
pub fn find(family: Option<MpiFamily>) -> Result<MpiLibrary> {
    let stated = std::env::var(VARIABLE).ok().filter(|file| !file.is_empty());
    if let Some(file) = stated {
        return load_stated(&file);
    }
    let fits = |interface: BinaryInterface| match family {
        Some(MpiFamily::OpenMpi) => interface != BinaryInterface::Mpich,
        Some(MpiFamily::Mpich) => interface != BinaryInterface::OpenMpi,
        None => true,
    };
    let mut reasons = Vec::new();
    for (file, interface) in FILES.into_iter().filter(|(_, interface)| fits(*interface)) {
        match load(file, interface) {
            Ok(calls) if is_of(&*calls, family) => {
                let file = file.to_owned();
                return Ok(MpiLibrary { file, calls });
            }
            Ok(calls) => reasons.push(format!("{file}: it is {}", calls.version())),
            Err(error) => reasons.push(error.to_string()),
        }
    }
    let of = match family {
        Some(MpiFamily::OpenMpi) => " of Open MPI, as the launcher is",
        Some(MpiFamily::Mpich) => " of MPICH or a relative, as the launcher is",
        None => "",
    };
    Err(Error::environment(format!("find an MPI library{of}: {}", reasons.join("; "))).hint(format!(
        "install it (Debian: `openmpi-bin` or `mpich`), or name its file in {VARIABLE}, or leave the launcher out: \
         `mdlm run … --ranks N` alone starts threads"
    )))
}

/// Whether a library with the standard's interface belongs to a launcher; the others do by their file names.
fn is_of(calls: &dyn Calls, family: Option<MpiFamily>) -> bool {
    let version = calls.version();
    match family {
        Some(MpiFamily::OpenMpi) => version.contains("Open MPI"),
        Some(MpiFamily::Mpich) => !version.contains("Open MPI"),
        None => true,
    }
}

fn load_stated(file: &str) -> Result<MpiLibrary> {
    let name = file.rsplit('/').next().unwrap_or(file);
    let known = FILES.iter().find(|(known, _)| name.starts_with(known));
    let Some((_, interface)) = known else {
        let names: Vec<_> = FILES.iter().map(|(name, _)| format!("`{name}`")).collect();
        return Err(Error::input(format!(
            "load `{file}`, which {VARIABLE} names: its name does not say which interface it has"
        ))
        .hint(format!(
            "name a file that begins with one of {}",
            names.join(", ")
        )));
    };
    let calls = load(file, *interface).map_err(|error| {
        Error::environment(format!("load `{file}`, which {VARIABLE} names: {error}")).hint(format!(
            "name the library of the launcher's MPI, or unset {VARIABLE}"
        ))
    })?;
    let file = file.to_owned();
    Ok(MpiLibrary { file, calls })
}

fn load(file: &str, interface: BinaryInterface) -> Result<Box<dyn Calls>, libloading::Error> {
    // SAFETY: MPI libraries have no requirements on those who load them. Parts of older Open MPI look symbols up globally.
    let library = unsafe { Library::open(Some(file), RTLD_NOW | RTLD_GLOBAL) }?;
    let pointer = |number: usize| ptr::without_provenance_mut::<c_void>(number);
    // SAFETY: the interface is that of the file name. Symbols stay valid, for the library is never closed.
    let calls: Box<dyn Calls> = unsafe {
        match interface {
            BinaryInterface::Standard => Box::new(Initialized(Functions::load(
                &library,
                Handles {
                    world: pointer(0x101),
                    float: pointer(0x210),
                    double: pointer(0x214),
                    byte: pointer(0x247),
                    errors_return: pointer(0x143),
                    serialized: 2048,
                },
            )?)),
            BinaryInterface::OpenMpi => {
                let object = |name: &[u8]| -> Result<*mut c_void, libloading::Error> {
                    Ok(library.get::<*mut c_void>(name)?.into_raw())
                };
                let handles = Handles {
                    world: object(b"ompi_mpi_comm_world\0")?,
                    float: object(b"ompi_mpi_float\0")?,
                    double: object(b"ompi_mpi_double\0")?,
                    byte: object(b"ompi_mpi_byte\0")?,
                    errors_return: object(b"ompi_mpi_errors_return\0")?,
                    serialized: 2,
                };
                Box::new(Initialized(Functions::load(&library, handles)?))
            }
            BinaryInterface::Mpich => Box::new(Initialized(Functions::load(
                &library,
                Handles::<c_int> {
                    world: 0x4400_0000,
                    float: 0x4c00_040a,
                    double: 0x4c00_080b,
                    byte: 0x4c00_010d,
                    errors_return: 0x5400_0001,
                    serialized: 2,
                },
            )?)),
        }
    };
    // Open MPI's threads outlive everything of ours.
    std::mem::forget(library);
    Ok(calls)
}

/// A rank of an MPI world.
pub struct Mpi {
    found: MpiLibrary,
    rank: Rank,
    local: u32,
    /// Held during a call: one thread at a time.
    call: Mutex<()>,
    /// The exit code of all ranks once this one has failed; 0 before.
    abandoned: AtomicI32,
}

impl Debug for Mpi {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} over {}", self.rank, self.found.described())
    }
}

impl Mpi {
    /// Joins the world that a launcher has started.
    ///
    /// # Errors
    /// Environment error: no library is found, it fails, or it is not the launcher's: the library's world has another size.
    pub fn start(launched: &Launched) -> Result<Self> {
        let found = find(launched.family)?;
        found.calls.init()?;
        let rank = found.calls.rank()?;
        if rank.world != launched.rank.world {
            let message = format!(
                "join {} ranks: {} started this process as one of {}, but the world of {} has {}: another MPI's launcher",
                launched.rank.world,
                launched.launcher,
                launched.rank.world,
                found.described(),
                rank.world
            );
            found.calls.finalize();
            return Err(Error::environment(message).hint(format!(
                "start the ranks with the launcher of that library, or name the launcher's library in {VARIABLE}"
            )));
        }
        Ok(Self {
            found,
            rank,
            local: launched.local.unwrap_or(rank.rank),
            call: Mutex::new(()),
            abandoned: AtomicI32::new(0),
        })
    }

    fn calls(&self) -> Result<(MutexGuard<'_, ()>, &dyn Calls)> {
        if self.abandoned.load(Ordering::Relaxed) != 0 {
            return Err(Error::environment("share a training: a rank has failed before"));
        }
        let guard = self.call.lock().unwrap_or_else(PoisonError::into_inner);
        Ok((guard, &*self.found.calls))
    }
}

impl Drop for Mpi {
    fn drop(&mut self) {
        let calls = &self.found.calls;
        match self.abandoned.load(Ordering::Relaxed) {
            // Others may wait for this rank in the midst of an operation.
            0 if std::thread::panicking() => calls.abort(1),
            0 => {}
            code => calls.abort(code),
        }
        calls.finalize();
    }
}

impl Communicator for Mpi {
    fn rank(&self) -> Rank {
        self.rank
    }

    fn local(&self) -> u32 {
        self.local
    }

    fn exchange(&self, own: &[f32], runs: &[Range<usize>], received: &mut [f32]) -> Result<()> {
        let length = runs.get(self.rank.rank as usize).map_or(0, Range::len);
        let is_within = runs
            .iter()
            .all(|run| run.start <= run.end && run.end <= own.len());
        let world = self.rank.world as usize;
        if !is_within || runs.len() != world || received.len() != length * world {
            return Err(Error::internal("an exchange of other sizes than its runs"));
        }
        let sent = Layout {
            counts: runs.iter().map(|run| number(run.len())).collect::<Result<_>>()?,
            places: runs.iter().map(|run| number(run.start)).collect::<Result<_>>()?,
        };
        let taken = Layout::new((0..world).map(|_| length))?;
        let (_guard, calls) = self.calls()?;
        calls.exchange(own, &sent, received, &taken)
    }

    fn gather(&self, values: &mut [f32], cut: &Cut) -> Result<()> {
        if values.len() != cut.length() {
            return Err(Error::internal("a gathering of another size than its cut"));
        }
        let layout = Layout::new(cut.parts().map(|part| part.len()))?;
        // Not in place: the constant for it is the interfaces' own.
        let own = values[cut.of(self.rank)].to_vec();
        let (_guard, calls) = self.calls()?;
        calls.gather_floats(&own, values, &layout)
    }

    fn all_gather(&self, own: &[f64], counts: &[usize]) -> Result<Vec<f64>> {
        if counts.len() != self.rank.world as usize || counts[self.rank.rank as usize] != own.len() {
            return Err(Error::internal("a gathering of other numbers than it says"));
        }
        let layout = Layout::new(counts.iter().copied())?;
        let mut all = vec![0.0; counts.iter().sum()];
        let (_guard, calls) = self.calls()?;
        calls.gather_doubles(own, &mut all, &layout)?;
        Ok(all)
    }

    fn broadcast(&self, bytes: &mut Vec<u8>) -> Result<()> {
        let (_guard, calls) = self.calls()?;
        let mut length = (bytes.len() as u64).to_le_bytes();
        calls.broadcast(&mut length)?;
        let length = usize::try_from(u64::from_le_bytes(length))
            .map_err(|_| Error::environment("a broadcast is larger than this machine's memory"))?;
        bytes.resize(length, 0);
        calls.broadcast(bytes)
    }

    fn abandon(&self, _: &str, code: u8) {
        let code = i32::from(code.max(1));
        // The first error counts.
        let _ = self
            .abandoned
            .compare_exchange(0, code, Ordering::Relaxed, Ordering::Relaxed);
    }

    fn described(&self) -> String {
        self.found.described()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn layout_places_the_parts_one_after_the_other() {
        let layout = Layout::new([3, 0, 5].into_iter()).unwrap();
        assert_eq!((layout.counts, layout.places), (vec![3, 0, 5], vec![0, 3, 3]));
        let error = Layout::new([1 << 31].into_iter()).err().unwrap();
        assert!(error.to_string().contains("2147483648"), "{error}");
    }

    #[test]
    fn stated_library_of_an_unknown_name_is_refused() {
        let error = load_stated("/lib/libmpi.so").err().unwrap();
        assert_eq!(error.kind().exit_code(), 2);
        assert!(error.to_string().contains("/lib/libmpi.so"), "{error}");
        let error = load_stated("/nowhere/libmpi.so.40").err().unwrap();
        assert_eq!(error.kind().exit_code(), 3);
    }
}
