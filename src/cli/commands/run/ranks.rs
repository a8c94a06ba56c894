//! `--ranks`: the processes, or threads, that share the trainings of a run.

use std::sync::{Arc, Mutex, PoisonError};

use mdlm::error::{Error, Result};
use mdlm::event::Cancel;
use mdlm::executor;
use mdlm::model::Device;
use mdlm::plural::counted;
use mdlm::ranks::launcher::Launched;
#[cfg(unix)]
use mdlm::ranks::mpi::Mpi;
use mdlm::ranks::{Alone, Communicator, threads};
use mdlm::stages::train::follow;

use crate::cli::args::environment;
use crate::cli::render::terminal::Terminal;

/// The ranks of a run, as this process sees them.
pub struct Ranks {
    /// This process's own; of threads, the first.
    pub own: Arc<dyn Communicator>,
    /// The others, where they are threads of this process.
    others: Vec<Arc<dyn Communicator>>,
    /// How many of the ranks are on this machine.
    here: u32,
}

impl Ranks {
    /// The ranks that `--ranks` asks for: those of a launcher, or threads where none has started this process.
    ///
    /// # Errors
    /// The launcher has started another number, or its MPI cannot be used.
    pub fn open(asked: Option<u16>, terminal: &Terminal) -> Result<Self> {
        let launched = Launched::from_environment(&environment::variable)?;
        let alone = || Self {
            own: Arc::new(Alone),
            others: vec![],
            here: 1,
        };
        let Some(world) = asked.map(u32::from) else {
            if let Some(launched) = launched.filter(|launched| launched.rank.world > 1) {
                let Launched { rank, launcher, .. } = launched;
                if rank.is_first() {
                    terminal.warn(&format!(
                        "{launcher} has started {} processes, each of which runs the whole pipeline; with `--ranks {}` they \
                         share its trainings",
                        rank.world, rank.world
                    ));
                }
            }
            return Ok(alone());
        };
        if !world.is_power_of_two() {
            return Err(
                Error::input(format!("run with {world} ranks: it is not a power of two"))
                    .hint("grains are added in a binary tree: take 1, 2, 4, 8, …"),
            );
        }
        match launched {
            Some(launched) if launched.rank.world != world => {
                let Launched { rank, launcher, .. } = launched;
                Err(Error::input(format!(
                    "run with {world} ranks: {launcher} has started {}",
                    counted(rank.world, "process")
                ))
                .hint(format!(
                    "give both the same number: `--ranks {}`, or {world} to the launcher",
                    rank.world
                )))
            }
            #[cfg(unix)]
            Some(launched) if world > 1 => {
                let own: Arc<dyn Communicator> = Arc::new(Mpi::start(&launched)?);
                *KEPT.lock().unwrap_or_else(PoisonError::into_inner) = Some(own.clone());
                Ok(Self {
                    own,
                    others: vec![],
                    here: launched.on_this_machine.unwrap_or(1).max(1),
                })
            }
            #[cfg(not(unix))]
            Some(_) if world > 1 => Err(Error::input("run with ranks over MPI: it needs a Unix system")
                .hint("without a launcher `--ranks` starts threads")),
            None if world > 1 => {
                let shared = |rank| -> Arc<dyn Communicator> { Arc::new(rank) };
                let mut ranks = threads::ranks(world).into_iter().map(shared);
                let own = ranks.next().unwrap_or_else(|| Arc::new(Alone));
                Ok(Self {
                    own,
                    others: ranks.collect(),
                    here: world,
                })
            }
            _ => Ok(alone()),
        }
    }

    /// Whether this process only takes part in trainings that another one runs.
    #[must_use]
    pub fn is_follower(&self) -> bool {
        !self.own.rank().is_first()
    }

    /// Whether there are several.
    #[must_use]
    pub fn are_several(&self) -> bool {
        self.own.rank().world > 1
    }

    /// Threads of each rank on this machine: as many as are asked for, else the processors shared among the ranks here. A
    /// launcher that has bound the process to some processors has shared them already.
    ///
    /// # Errors
    /// MDLM_THREADS is not a number of threads.
    pub fn threads(&self, asked: Option<u16>) -> Result<usize> {
        let stated = environment::threads(asked)?;
        let is_stated = asked.is_some() || environment::variable("MDLM_THREADS").is_some();
        if is_stated || self.here == 1 || is_bound() {
            return Ok(stated);
        }
        Ok((stated / self.here as usize).max(1))
    }

    /// Takes part in the trainings of the first rank, in this process; prints the error that this rank alone fails with.
    /// Returns the exit code.
    ///
    /// # Errors
    /// No threads can be started.
    pub fn follow(self, threads: usize, device: Device, cancel: &Cancel, terminal: &Terminal) -> Result<u8> {
        let rank = self.own.rank().rank;
        let served = executor::pool(threads)?.install(|| follow::serve(&self.own, device, cancel));
        let Err(error) = served else {
            return Ok(0);
        };
        let code = error.kind().exit_code();
        terminal.error(&format!("rank {rank}: failed to {error}"), error.hint_text());
        self.own.abandon(&error.to_string(), code);
        Ok(code)
    }

    /// Runs the pipeline on this rank while the others of this process take part in its trainings. At the end all others are
    /// let go, or ended where this one has failed in a training.
    ///
    /// # Errors
    /// The errors of the run.
    pub fn lead<T>(
        &mut self,
        threads: usize,
        device: Device,
        cancel: &Cancel,
        run: impl FnOnce() -> Result<T>,
    ) -> Result<T> {
        std::thread::scope(|scope| {
            for rank in self.others.drain(..) {
                scope.spawn(move || {
                    let serve = || follow::serve(&rank, device, cancel);
                    let served = executor::pool(threads).and_then(|pool| pool.install(serve));
                    if let Err(error) = served {
                        rank.abandon(&error.to_string(), error.kind().exit_code());
                    }
                });
            }
            let _guard = Dismissal(&*self.own);
            run()
        })
    }
}

/// Lets the other ranks go when it is dropped, whatever the run ended with: they would wait for ever.
struct Dismissal<'a>(&'a dyn Communicator);

impl Drop for Dismissal<'_> {
    fn drop(&mut self) {
        if follow::dismiss(self.0).is_err() {
            // A rank has failed: the error is in what ran.
            self.0.abandon("the run has ended", 1);
        }
    }
}

/// The communicator of this process, kept until the errors of the command are printed: to end the other processes may end
/// this one.
static KEPT: Mutex<Option<Arc<dyn Communicator>>> = Mutex::new(None);

/// Ends the communication with other ranks, after everything was printed.
pub fn end() {
    drop(KEPT.lock().unwrap_or_else(PoisonError::into_inner).take());
}

/// Whether this process may use a part of the machine's processors only.
fn is_bound() -> bool {
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").unwrap_or_default();
    let count = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some(last.parse::<usize>().ok()? + 1 - first.parse::<usize>().ok()?)
    };
    let online: Option<usize> = online.trim().split(',').map(count).sum();
    let usable = std::thread::available_parallelism().map_or(1, usize::from);
    online.is_some_and(|online| usable < online)
}
