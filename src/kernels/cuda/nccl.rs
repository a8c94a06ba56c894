//! Numbers that travel from device to device over NCCL, whose library is loaded when a training is shared.
//!
//! This is a seam file (invariant 7): NCCL is a C library. The names that it is looked for under are `libnccl.so.2`, which is
//! the only one that NVIDIA's wheels install, and `libnccl.so`. Result codes are kept as numbers: later versions have more of
//! them, and have changed the meaning of some.
//!
//! NCCL adds nothing here: its sums depend on the topology and on the version. Parts are sent and received, grouped, and
//! mdlm's kernels add them in one order (see [`crate::ranks`]). Calls do not block: they are asked for until they have
//! succeeded, and given up at a deadline, so that a rank that does not come ends in an error.
//!
//! No GPU has run it: its calls were made of the stub of `tests/cuda_stub`, which refuses those that do not fit each other.

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::ops::Range;
use std::time::{Duration, Instant};

use libloading::os::unix::{Library, RTLD_LOCAL, RTLD_NOW, Symbol};

use super::driver::{Address, DType};
use super::surroundings::{NCCL as VARIABLE, surroundings};
use crate::error::{Error, Result};
use crate::ranks::{Communicator, Cut, Rank};

const FILES: [&str; 2] = ["libnccl.so.2", "libnccl.so"];

/// Time for all ranks to join, and for a call to be taken.
const DEADLINE: Duration = Duration::from_secs(300);

/// Time for which a call is asked for again and again, and the pause between questions after that.
const SPIN: Duration = Duration::from_millis(1);
const PAUSE: Duration = Duration::from_millis(1);

/// ncclSuccess and ncclInProgress.
const SUCCESS: c_int = 0;
const IN_PROGRESS: c_int = 7;
/// ncclUint8.
const BYTE: c_int = 1;

/// Bytes of ncclUniqueId.
const ID_BYTES: usize = 128;

/// ncclUniqueId.
#[repr(C)]
#[derive(Clone, Copy)]
struct UniqueId([u8; ID_BYTES]);

/// ncclConfig_t as of version 2.17: later versions read as much of it as `size` says.
#[repr(C)]
struct Config {
    size: usize,
    magic: c_uint,
    version: c_uint,
    blocking: c_int,
    cga_cluster_size: c_int,
    min_ctas: c_int,
    max_ctas: c_int,
    net_name: *const c_char,
}

impl Config {
    /// Calls do not block; the rest is left to NCCL, as NCCL_CONFIG_INITIALIZER does.
    fn non_blocking() -> Self {
        const UNDEFINED: c_int = c_int::MIN;
        Self {
            size: size_of::<Self>(),
            magic: 0xcafe_beef,
            version: 21_700,
            blocking: 0,
            cga_cluster_size: UNDEFINED,
            min_ctas: UNDEFINED,
            max_ctas: UNDEFINED,
            net_name: std::ptr::null(),
        }
    }
}

type Comm = *mut c_void;
type Stream = *mut c_void;
type Send = unsafe extern "C" fn(*const c_void, usize, c_int, c_int, Comm, Stream) -> c_int;
type Receive = unsafe extern "C" fn(*mut c_void, usize, c_int, c_int, Comm, Stream) -> c_int;

/// The functions of the library.
struct Functions {
    version: Symbol<unsafe extern "C" fn(*mut c_int) -> c_int>,
    unique_id: Symbol<unsafe extern "C" fn(*mut UniqueId) -> c_int>,
    init: Symbol<unsafe extern "C" fn(*mut Comm, c_int, UniqueId, c_int, *mut Config) -> c_int>,
    state: Symbol<unsafe extern "C" fn(Comm, *mut c_int) -> c_int>,
    abort: Symbol<unsafe extern "C" fn(Comm) -> c_int>,
    group_start: Symbol<unsafe extern "C" fn() -> c_int>,
    group_end: Symbol<unsafe extern "C" fn() -> c_int>,
    send: Symbol<Send>,
    receive: Symbol<Receive>,
    error_string: Symbol<unsafe extern "C" fn(c_int) -> *const c_char>,
}

/// A library that could be loaded.
pub struct NcclLibrary {
    file: String,
    functions: Functions,
}

impl NcclLibrary {
    /// Its version and its file: `NCCL 2.27.3 (libnccl.so.2)`.
    #[must_use]
    pub fn described(&self) -> String {
        let mut version = 0;
        // SAFETY: the function has this type in all versions.
        unsafe { (self.functions.version)(&raw mut version) };
        let (major, minor) = (version / 10_000, version / 100 % 100);
        format!("NCCL {major}.{minor}.{} ({})", version % 100, self.file)
    }

    fn load(file: &str) -> Result<Self, libloading::Error> {
        // SAFETY: NCCL has no requirements on those who load it; the types are those of its header.
        unsafe {
            let library = Library::open(Some(file), RTLD_NOW | RTLD_LOCAL)?;
            let functions = Functions {
                version: library.get(b"ncclGetVersion\0")?,
                unique_id: library.get(b"ncclGetUniqueId\0")?,
                init: library.get(b"ncclCommInitRankConfig\0")?,
                state: library.get(b"ncclCommGetAsyncError\0")?,
                abort: library.get(b"ncclCommAbort\0")?,
                group_start: library.get(b"ncclGroupStart\0")?,
                group_end: library.get(b"ncclGroupEnd\0")?,
                send: library.get(b"ncclSend\0")?,
                receive: library.get(b"ncclRecv\0")?,
                error_string: library.get(b"ncclGetErrorString\0")?,
            };
            // Its threads may outlive everything of ours.
            std::mem::forget(library);
            let file = file.to_owned();
            Ok(Self { file, functions })
        }
    }

    fn error(&self, what: &str, code: c_int) -> Error {
        // SAFETY: the function returns a constant text for every number.
        let text = unsafe { CStr::from_ptr((self.functions.error_string)(code)) };
        Error::environment(format!(
            "{what} over {}: {}",
            self.described(),
            text.to_string_lossy()
        ))
        .hint(format!(
            "NCCL_DEBUG=INFO has NCCL say more; {VARIABLE}=none does without it"
        ))
    }
}

/// Loads NCCL. Nothing where it is not installed, or not wanted.
///
/// # Errors
/// Environment error: the file in [`VARIABLE`] cannot be loaded.
pub fn find(stated: Option<&str>) -> Result<Option<NcclLibrary>> {
    match stated {
        Some("none") => Ok(None),
        Some(file) => NcclLibrary::load(file).map(Some).map_err(|error| {
            Error::environment(format!("load `{file}`, which {VARIABLE} names: {error}")).hint(format!(
                "name the file of NCCL, `none` to do without it, or unset {VARIABLE}"
            ))
        }),
        None => Ok(FILES.iter().find_map(|file| NcclLibrary::load(file).ok())),
    }
}

/// The devices of all ranks, joined.
pub struct Nccl {
    library: NcclLibrary,
    comm: Comm,
    rank: Rank,
}

impl Nccl {
    /// Joins the devices of all ranks, this thread's current device among them. Nothing where a rank has no NCCL, or another
    /// version of it.
    ///
    /// # Errors
    /// NCCL failed, or a rank did not come before the deadline.
    pub fn join(ranks: &dyn Communicator) -> Result<Option<Self>> {
        let rank = ranks.rank();
        let library = find(surroundings().nccl.as_deref())?;
        let mut version = 0;
        if let Some(library) = &library {
            // SAFETY: the function has this type in all versions.
            unsafe { (library.functions.version)(&raw mut version) };
        }
        let versions = ranks.all_gather(&[f64::from(version)], &vec![1; rank.world as usize])?;
        let Some(library) = library.filter(|_| versions.iter().all(|&of| of == versions[0])) else {
            return Ok(None);
        };
        let mut id = UniqueId([0; ID_BYTES]);
        let mut bytes = Vec::new();
        if rank.is_first() {
            // SAFETY: the function fills the id.
            let code = unsafe { (library.functions.unique_id)(&raw mut id) };
            // The others wait for the id: an empty one has them fail too.
            if code == SUCCESS {
                bytes = id.0.to_vec();
            }
        }
        ranks.broadcast(&mut bytes)?;
        id.0 = bytes.try_into().map_err(|_| {
            Error::environment(format!(
                "join the GPUs of {} ranks: rank 0 has no id of NCCL's",
                rank.world
            ))
        })?;
        let mut nccl = Self {
            library,
            comm: std::ptr::null_mut(),
            rank,
        };
        let mut config = Config::non_blocking();
        let number = |of: u32| c_int::try_from(of).unwrap_or(c_int::MAX);
        // SAFETY: the communicator is written to, the config is read during the call.
        let code = unsafe {
            (nccl.library.functions.init)(
                &raw mut nccl.comm,
                number(rank.world),
                id,
                number(rank.rank),
                &raw mut config,
            )
        };
        nccl.wait("join the GPUs of all ranks", code)?;
        Ok(Some(nccl))
    }

    /// Waits until a call has been taken.
    fn wait(&self, what: &str, code: c_int) -> Result<()> {
        let start = Instant::now();
        let mut code = code;
        while code == IN_PROGRESS {
            if start.elapsed() > DEADLINE {
                return Err(Error::environment(format!(
                    "{what} over {}: nothing has happened in {} s",
                    self.library.described(),
                    DEADLINE.as_secs()
                ))
                .hint("see whether all ranks are alive, and whether their machines reach each other (NCCL_SOCKET_IFNAME)"));
            }
            // A group is taken within microseconds; ranks may come minutes after each other.
            if start.elapsed() < SPIN {
                std::thread::yield_now();
            } else {
                std::thread::sleep(PAUSE);
            }
            // SAFETY: the communicator is there once a call with it is in progress.
            let asked = unsafe { (self.library.functions.state)(self.comm, &raw mut code) };
            if asked != SUCCESS {
                code = asked;
            }
        }
        if code == SUCCESS {
            return Ok(());
        }
        Err(self.library.error(what, code))
    }

    /// Runs calls as one group.
    fn grouped(&self, what: &str, calls: impl FnOnce() -> Result<(), c_int>) -> Result<()> {
        // SAFETY: groups begin and end here.
        let code = unsafe { (self.library.functions.group_start)() };
        if code != SUCCESS {
            return Err(self.library.error(what, code));
        }
        let called = calls();
        // SAFETY: as above; also after a failed call, so that the next group is one.
        let code = unsafe { (self.library.functions.group_end)() };
        if let Err(code) = called {
            return Err(self.library.error(what, code));
        }
        self.wait(what, code)
    }

    /// Queues the sending of `bytes` at `at` to a rank.
    fn send(&self, at: Address, bytes: usize, to: usize, stream: Stream) -> Result<(), c_int> {
        // SAFETY: the memory is the caller's, and is left alone until the stream is done with it.
        let code = unsafe {
            (self.library.functions.send)(at.0 as *const c_void, bytes, BYTE, peer(to), self.comm, stream)
        };
        taken(code)
    }

    /// Queues the receiving of `bytes` at `at` from a rank.
    fn receive(&self, at: Address, bytes: usize, from: usize, stream: Stream) -> Result<(), c_int> {
        // SAFETY: as in `send`.
        let code = unsafe {
            (self.library.functions.receive)(at.0 as *mut c_void, bytes, BYTE, peer(from), self.comm, stream)
        };
        taken(code)
    }

    /// [`super::driver::Driver::exchange`], in a stream of the current device.
    ///
    /// # Errors
    /// NCCL failed.
    pub fn exchange(
        &self,
        own: Address,
        runs: &[Range<usize>],
        received: Address,
        stream: Stream,
    ) -> Result<()> {
        let bytes = |elements: usize| elements * DType::F32.bytes();
        let length = bytes(runs[self.rank.rank as usize].len());
        self.grouped("exchange gradients", || {
            for (other, run) in runs.iter().enumerate() {
                if !run.is_empty() {
                    self.send(own.offset(bytes(run.start)), bytes(run.len()), other, stream)?;
                }
                if length > 0 {
                    self.receive(received.offset(other * length), length, other, stream)?;
                }
            }
            Ok(())
        })
    }

    /// [`super::driver::Driver::gather`], in a stream of the current device.
    ///
    /// # Errors
    /// NCCL failed.
    pub fn gather(&self, at: Address, cut: &Cut, stream: Stream) -> Result<()> {
        let bytes = |words: usize| words * DType::F32.bytes();
        let own = cut.of(self.rank);
        self.grouped("gather weights", || {
            for (other, part) in cut.parts().enumerate() {
                if other == self.rank.rank as usize {
                    continue;
                }
                if !own.is_empty() {
                    self.send(at.offset(bytes(own.start)), bytes(own.len()), other, stream)?;
                }
                if !part.is_empty() {
                    self.receive(at.offset(bytes(part.start)), bytes(part.len()), other, stream)?;
                }
            }
            Ok(())
        })
    }

    /// The library's version and file.
    #[must_use]
    pub fn described(&self) -> String {
        self.library.described()
    }
}

fn peer(rank: usize) -> c_int {
    c_int::try_from(rank).unwrap_or(c_int::MAX)
}

/// Whether a call of a group was taken: it is carried out at the group's end.
fn taken(code: c_int) -> Result<(), c_int> {
    match code {
        SUCCESS | IN_PROGRESS => Ok(()),
        code => Err(code),
    }
}

impl Drop for Nccl {
    fn drop(&mut self) {
        if !self.comm.is_null() {
            // SAFETY: made by `join` and given back once. Unlike a destruction it waits for no other rank.
            unsafe { (self.library.functions.abort)(self.comm) };
        }
    }
}
