//! Runs a plan: looks up, locks, runs and commits stages, and emits events.
//!
//! Stages whose inputs are ready run side by side, up to [`Options::jobs`] and within the threads, the memory and the
//! devices that are available ([`budget`]). By default they run one after the other, each with all threads. If a stage
//! fails, the stages that consume it do not run; by default independent ones still do. An interruption stops the
//! running stages at their next safe point and starts no other. Committed artifacts stay committed, and the next run
//! finds the scratch folders of the interrupted stages (their checkpoints). Corrupt artifacts in the store are not
//! consumed but made again ([`integrity`]). Missing artifacts are made or fetched only when a stage that runs consumes
//! them.
//!
//! The executor does not retry: a stage that fails without outside cause fails again. Transfers over a network have
//! separate retries ([`crate::data::fetch`], [`crate::remote`]).

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Instant, SystemTime};

use crate::error::{Context as _, Error, Kind, Result, Wrap, panic_text};
use crate::event::{Cancel, Event, Progress, Sink};
use crate::manifest::Stage;
use crate::model::Device;
use crate::plan::resume::StageStart;
use crate::plan::{Decision, Plan, PlannedStage, Reason, Sources};
use crate::plural::counted;
use crate::ranks::{Communicator, Sharing};
use crate::remote::Remote;
use crate::stages::tokenize::Room;
use crate::stages::train::check_world;
use crate::stages::{Context, StageOutput, key, memory};
use crate::store::{Digest, InputOrigin, Key, KeyLock, Lookup, Machine, Provenance, Record, Store, time};
use crate::system::{self, DeviceRequest, GpuLock};

pub mod budget;
mod integrity;
pub mod isolate;
mod summary;
mod upload;

use budget::{Budget, Grant};
use integrity::Integrity;
use isolate::{Isolation, Neighbours};
pub use summary::{StageSummary, Status, Summary};
use upload::Uploads;

/// Runs one stage: [`crate::stages::run`], or a stand-in of a test.
pub type Runner<'a> = &'a (dyn Fn(&Stage, &Context<'_>) -> Result<StageOutput> + Sync);

/// How to run. No option changes the result.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the manifest, as given: for the provenance.
    pub manifest: String,
    /// Overrides in force, as given: for the provenance.
    pub overrides: Vec<String>,
    /// Threads.
    pub threads: usize,
    /// Where to compute networks.
    pub device: DeviceRequest,
    /// Whether every artifact that is served is hashed in full first.
    pub paranoid: bool,
    /// Stages that run side by side at most.
    pub jobs: usize,
    /// Memory for stages that run side by side, in bytes; what one stage alone takes is not limited.
    pub memory: u64,
    /// Whether stages that do not depend on a failed one still run.
    pub keep_going: bool,
    /// The one stage that may run. Everything that it consumes has to be in the store, or in the remote cache.
    pub only: Option<String>,
    /// How to start a process for each stage that runs; absent, stages run in this process.
    pub isolation: Option<Isolation>,
    /// The stages that other processes of the same run compute meanwhile: for the provenance.
    pub neighbours: Neighbours,
    /// The ranks that share trainings with this one, the first.
    pub ranks: Arc<dyn Communicator>,
}

/// Stack of a thread: that of a main thread, since stages run on threads of the pool.
const STACK_BYTES: usize = 8 << 20;

/// A pool of that many threads, in which a plan is made and run.
///
/// # Errors
/// The system cannot start the threads.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("mdlm-{index}"))
        .build()
        .wrap(Kind::Environment, || {
            format!("start {}", counted(threads, "thread"))
        })
}

/// Runs what the plan says has to run, with the sources that it was made with. Called in a [`pool`], whose threads are
/// those of stages that run alone.
///
/// # Errors
/// The store cannot be made ready, or a network is to be computed on a GPU that cannot be used. What goes wrong later is in
/// the summary.
pub fn execute(
    plan: &mut Plan,
    sources: &Sources,
    options: &Options,
    sink: &dyn Sink,
    cancel: &Cancel,
    runner: Runner<'_>,
) -> Result<Summary> {
    let store = sources.store;
    match store.prepare() {
        // Cached results can be served without writing.
        Err(error) if error.is_denied() && !plan.stages.iter().any(PlannedStage::has_work) => {}
        prepared => prepared?,
    }
    for index in 0..plan.stages.len() {
        // The plan marks inputs that consumers may need; a consumer that runs asks for them itself.
        plan.need(index, None);
    }
    if let Some(only) = &options.only {
        check_only(plan, only)?;
    }
    check_ranks(plan, &options.ranks)?;
    let computes = |stage: &PlannedStage| {
        stage.stage.computes_network() && matches!(stage.decision, Decision::Run { .. })
    };
    if plan.stages.iter().any(computes) {
        // Checked before other stages take hours. A driver that may crash is not loaded into a scheduler of processes.
        match &options.isolation {
            None => options.device.check()?,
            Some(isolation) => isolation.check_device()?,
        }
    }
    let run = Run {
        plan: Mutex::new(plan),
        sources,
        store,
        options,
        sink,
        cancel,
        runner,
        integrity: Integrity::default(),
        uploads: Uploads::new(sources.remote),
        at_work: Mutex::default(),
        reported_device: AtomicBool::new(false),
        reported_distrust: AtomicBool::new(false),
    };
    let (stages, error) = std::thread::scope(|scope| {
        scope.spawn(|| run.uploads.serve(store, sink, cancel));
        let ran = catch_unwind(AssertUnwindSafe(|| run.all()));
        // In any case: the uploader would otherwise wait for ever.
        run.uploads.close();
        ran.unwrap_or_else(|panic| resume_unwind(panic))
    });
    Ok(Summary {
        stages,
        error,
        pins: run.integrity.into_pins(),
    })
}

/// Checks that nothing but the stage `only` has to run.
///
/// # Errors
/// The stage consumes the output of stages that are not in the store.
fn check_only(plan: &Plan, only: &str) -> Result<()> {
    let has_work = |stage: &PlannedStage| matches!(stage.decision, Decision::Run { .. });
    let Some(stage) = plan.stages.iter().find(|stage| stage.name == only) else {
        return Err(Error::internal(format!("stage `{only}` is not in the plan")));
    };
    let missing: Vec<&str> = plan
        .stages
        .iter()
        .filter(|other| other.name != only && has_work(other))
        .map(|other| other.name.as_str())
        .collect();
    if stage.has_work() && !missing.is_empty() {
        return Err(needs(only, &missing));
    }
    Ok(())
}

/// Checks before anything runs that the ranks can share the trainings that run.
///
/// # Errors
/// The number of ranks does not divide the grains of a training.
fn check_ranks(plan: &Plan, ranks: &Arc<dyn Communicator>) -> Result<()> {
    for stage in plan.stages.iter().filter(|stage| stage.has_work()) {
        if let Stage::Train(train) = &stage.stage {
            let sharing = Sharing {
                ranks: ranks.clone(),
                grains: train.grains,
            };
            check_world(train, &sharing).context(|| format!("run stage `{}`", stage.name))?;
        }
    }
    Ok(())
}

/// The error of a stage whose inputs are not in the store while only that stage may run.
fn needs(only: &str, missing: &[&str]) -> Error {
    let names: Vec<_> = missing.iter().map(|name| format!("`{name}`")).collect();
    let first = missing.first().copied().unwrap_or_default();
    Error::input(format!(
        "stage `{only}` needs {}, which {} not in the store",
        names.join(", "),
        if missing.len() == 1 { "is" } else { "are" }
    ))
    .hint(if missing.len() == 1 {
        format!("run it first with `--only {first}`, or run both with `--target {only}`")
    } else {
        format!("run them first in this order, each with `--only`, or run all with `--target {only}`")
    })
}

/// What all stages of a run share.
struct Run<'a> {
    plan: Mutex<&'a mut Plan>,
    sources: &'a Sources<'a>,
    store: &'a Store,
    options: &'a Options,
    sink: &'a dyn Sink,
    cancel: &'a Cancel,
    runner: Runner<'a>,
    integrity: Integrity,
    uploads: Uploads<'a>,
    /// The stages that run now, by their places in the plan, with those that ran beside them.
    at_work: Mutex<BTreeMap<usize, Vec<usize>>>,
    /// Whether the device was reported.
    reported_device: AtomicBool,
    /// Whether a GPU that failed its self-test was reported.
    reported_distrust: AtomicBool,
}

/// Why a stage runs, in one line.
fn why(reasons: &[Reason]) -> String {
    let reasons: Vec<_> = reasons.iter().map(Reason::of_a_run).collect();
    reasons.join("; ")
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What a stage runs with, as the plan has it when the stage starts: others are decided about while it runs.
struct StageInputs {
    stage: PlannedStage,
    /// Folder of the manifest.
    base: PathBuf,
    origins: Vec<InputOrigin>,
    room: Option<Room>,
}

/// How far a run is.
struct RunState {
    /// The summaries of the stages that ended.
    ended: Vec<Option<StageSummary>>,
    /// The first error.
    first: Option<Error>,
    /// The stages that run beside others.
    running: BTreeMap<usize, Grant>,
}

/// A stage that ended: its place, its summary, and the error that it ended with.
type Ended = (usize, StageSummary, Option<Error>);

impl Run<'_> {
    /// Runs, fetches or serves every stage of the plan. Returns a summary of each, and the first error.
    fn all(&self) -> (Vec<StageSummary>, Option<Error>) {
        // The stages' settings, inputs and order, which do not change while they run.
        let plan = &locked(&self.plan).clone();
        let mut state = RunState {
            ended: vec![None; plan.stages.len()],
            first: None,
            running: BTreeMap::new(),
        };
        let mut budget = Budget::new(self.options);
        let (sender, receiver) = mpsc::channel::<Ended>();
        std::thread::scope(|scope| {
            loop {
                let Some(waiting) = self.settle_ready(plan, &mut state) else {
                    continue;
                };
                let on_gpu = || match &self.options.isolation {
                    // The stage itself reports a GPU that cannot be used.
                    None => self.options.device.resolve().is_ok_and(|(it, _)| it.is_gpu()),
                    // The processes queue for the GPU by its lock.
                    Some(_) => matches!(self.options.device, DeviceRequest::On(device) if device.is_gpu()),
                };
                let demands: Vec<_> = waiting
                    .iter()
                    .map(|index| (*index, budget::demand(plan, *index, &on_gpu)))
                    .collect();
                for (index, grant) in budget.admit(&demands) {
                    let threads = grant.threads;
                    state.running.insert(index, grant);
                    let sender = sender.clone();
                    scope.spawn(move || {
                        let mut summary = StageSummary::new(&plan.stages[index]);
                        let ran = catch_unwind(AssertUnwindSafe(|| {
                            pool(threads)?.install(|| self.stage(index, threads, &mut summary))
                        }));
                        let ran = ran.unwrap_or_else(|panic| Err(Error::internal(panic_text(&*panic))));
                        let error = ran.err().map(|error| self.failed(error, &mut summary));
                        // The receiver lives as long as this scope.
                        let _ = sender.send((index, summary, error));
                    });
                }
                if state.running.is_empty() {
                    break;
                }
                let Ok((index, summary, error)) = receiver.recv() else {
                    break;
                };
                if let Some(grant) = state.running.remove(&index) {
                    budget.give_back(&grant);
                }
                state.ended[index] = Some(summary);
                if let Some(error) = error {
                    state.first.get_or_insert(error);
                }
            }
        });
        let mut ended = state.ended;
        for (index, summary) in self.integrity.redone() {
            // Of two consumers that wanted it, the second found what the first had made.
            let made = |status| matches!(status, Status::Done | Status::Fetched);
            if made(summary.status) || ended[index].as_ref().is_none_or(|ended| !made(ended.status)) {
                ended[index] = Some(summary);
            }
        }
        let stages = ended
            .into_iter()
            .zip(&plan.stages)
            .map(|(ended, stage)| ended.unwrap_or_else(|| StageSummary::new(stage)));
        (stages.collect(), state.first)
    }

    /// Ends the first stage, in the order of the plan, whose inputs have ended and that needs no slot: it has nothing to
    /// run or fetch, it cannot run, or stages run one after the other. Returns nothing after such a stage, since others may
    /// be ready now; else the stages that wait to run side by side.
    fn settle_ready(&self, plan: &Plan, state: &mut RunState) -> Option<Vec<usize>> {
        let mut waiting = Vec::new();
        for index in 0..plan.stages.len() {
            let stage = &plan.stages[index];
            if state.ended[index].is_some() || state.running.contains_key(&index) {
                continue;
            }
            let inputs: Option<Vec<&StageSummary>> = stage
                .inputs
                .iter()
                .map(|input| state.ended[input.index].as_ref())
                .collect();
            let Some(inputs) = inputs else { continue };
            let mut summary = StageSummary::new(stage);
            if self.cancel.is_cancelled() {
                summary.why.push_str("interrupted");
                state.first.get_or_insert_with(Error::interrupted);
            } else if let Some(input) = inputs.iter().find(|input| input.artifact.is_none()) {
                summary.why = format!("needs `{}`", input.name);
            } else if state.first.is_some() && !self.options.keep_going {
                summary.why.push_str("another stage failed");
            } else {
                let ended = match self.serve(index, &mut summary) {
                    Ok(false) if self.options.jobs > 1 => {
                        waiting.push(index);
                        continue;
                    }
                    Ok(false) => self.stage(index, self.options.threads, &mut summary),
                    served => served.map(drop),
                };
                if let Err(error) = ended {
                    state.first.get_or_insert(self.failed(error, &mut summary));
                }
            }
            state.ended[index] = Some(summary);
            return None;
        }
        Some(waiting)
    }

    /// Records the error of a stage in its summary, and adds the stage's name to it.
    fn failed(&self, error: Error, summary: &mut StageSummary) -> Error {
        let error = error.context(format!("stage `{}`", summary.name));
        if error.kind() == Kind::Interrupted {
            summary.status = Status::Interrupted;
            // Why it ran stays, where it had begun.
            if summary.why.is_empty() {
                summary.why.push_str("interrupted");
            }
        } else {
            summary.status = Status::Failed;
            summary.why = error.to_string();
            summary.error = Some(error.clone());
            let message = error.to_string();
            self.sink.emit(&summary.name, Event::StageFailed { message });
        }
        error
    }

    /// What the artifact that serves a stage lacks of what is asked for.
    fn lacking(&self, index: usize) -> String {
        locked(&self.plan).stages[index].lacking().unwrap_or_default()
    }

    fn decide(&self, index: usize) -> Result<Decision> {
        let mut plan = locked(&self.plan);
        plan.decide(index, self.sources)?;
        let decision = plan.stages[index].decision.clone();
        let name = plan.stages[index].name.clone();
        drop(plan);
        for trouble in self.sources.remote.map(Remote::troubles).unwrap_or_default() {
            self.sink.emit(&name, Event::Warning(trouble));
        }
        Ok(decision)
    }

    /// Remembers a stage's record in the store and in the plan.
    fn settle(&self, index: usize, record: Record, stage: &str) {
        let mut plan = locked(&self.plan);
        self.store.remember(
            (&plan.pipeline, plan.place.as_deref()),
            stage,
            &record.key,
            &plan.stages[index].files,
        );
        plan.settle(index, record);
    }

    /// Serves a stage that has nothing to run or fetch. Returns whether it did.
    fn serve(&self, index: usize, summary: &mut StageSummary) -> Result<bool> {
        match self.decide(index)? {
            Decision::Cached(record) if self.hold(&summary.name, &record)? => {
                let record = self.served(summary, record, self.lacking(index));
                self.settle(index, record, &summary.name);
            }
            Decision::Away(record) => self.leave(summary, &record)?,
            Decision::Cached(_) | Decision::Fetch(_) | Decision::Run { .. } => return Ok(false),
        }
        Ok(true)
    }

    /// Makes sure that a stage's artifact is here: serves it from the store, fetches it or runs it.
    fn stage(&self, index: usize, threads: usize, summary: &mut StageSummary) -> Result<()> {
        let record = loop {
            match self.decide(index)? {
                Decision::Cached(record) => {
                    if self.hold(&summary.name, &record)? {
                        break self.served(summary, record, self.lacking(index));
                    }
                }
                // Deleted since the last decision.
                Decision::Away(record) => {
                    self.leave(summary, &record)?;
                    return Ok(());
                }
                Decision::Fetch(record) => {
                    if let Some(record) = self.fetch(index, &record, summary)? {
                        break record;
                    }
                }
                Decision::Run { key: None, .. } => {
                    return Err(Error::internal("its inputs are made and its key is not known"));
                }
                Decision::Run {
                    key: Some(key),
                    reasons,
                } => {
                    if let Some(only) = &self.options.only
                        && *only != summary.name
                    {
                        // Found corrupt, or deleted, since the plan was made.
                        return Err(needs(only, &[&summary.name]));
                    }
                    if !self.inputs_are_sound(index, threads)? {
                        continue;
                    }
                    if let Some(isolation) = &self.options.isolation
                        && locked(&self.plan).stages[index].piped().is_empty()
                    {
                        break self.isolated(isolation, index, &key, &reasons, threads, summary)?;
                    }
                    let digest = key.digest();
                    let (lock, waited) = self.lock(&digest, &summary.name)?;
                    // The process that held the lock may have made this artifact.
                    let forced = locked(&self.plan).is_forced(index);
                    match self.store.lookup(&key)? {
                        Lookup::Hit(record) if waited.is_some() || !forced => {
                            if self.hold(&summary.name, &record)? {
                                let why = waited.map_or_else(String::new, |who| format!("made by {who}"));
                                break self.served(summary, record, why);
                            }
                        }
                        _ => break self.run(index, &key, &reasons, &lock, threads, summary)?,
                    }
                }
            }
        };
        self.settle(index, record, &summary.name);
        Ok(())
    }

    /// Fetches a stage's artifact from the remote. Returns nothing if that fails: the stage then runs here.
    fn fetch(&self, index: usize, record: &Record, summary: &mut StageSummary) -> Result<Option<Record>> {
        let Some(remote) = self.sources.remote else {
            return Err(Error::internal("fetch without a remote"));
        };
        let (lock, _) = self.lock(&record.key.digest(), &summary.name)?;
        if let Lookup::Hit(record) = self.store.lookup(&record.key)?
            && self.hold(&summary.name, &record)?
        {
            return Ok(Some(self.served(summary, record, String::new())));
        }
        let clock = Instant::now();
        self.report_start(index, format!("fetched from {}", remote.url()), summary);
        let progress = |done, total| {
            let progress = Progress {
                done,
                total: Some(total),
                unit: "bytes",
                figures: vec![],
            };
            self.sink.emit(&summary.name, Event::Progress(progress));
        };
        match remote.fetch(self.store, &lock, record, self.cancel, &progress) {
            Ok(record) => {
                self.hold_made(&record)?;
                let seconds = clock.elapsed().as_secs_f64();
                summary.status = Status::Fetched;
                summary.seconds = Some(seconds);
                self.fill(summary, &record);
                self.repeat_warnings(&summary.name, &record);
                let figures = summary.figures.clone();
                self.sink
                    .emit(&summary.name, Event::StageFinished { seconds, figures });
                Ok(Some(record))
            }
            Err(error) if error.kind() == Kind::Interrupted => Err(error),
            Err(error) => {
                // A partial download is of no use to a stage that runs; the stage's scratch folder may exist from before.
                let work = self.store.work_path(lock.key());
                let _ = std::fs::remove_dir_all(work.join(Remote::SCRATCH));
                // An empty one would look like an attempt at the stage.
                let _ = std::fs::remove_dir(work);
                let _ = self.store.clear_staging(&lock);
                let message = format!("the stage runs on this machine instead: {error}");
                self.sink.emit(&summary.name, Event::Warning(message));
                locked(&self.plan).refuse(index);
                Ok(None)
            }
        }
    }

    /// Reports that a stage begins, and why.
    fn report_start(&self, index: usize, why: String, summary: &mut StageSummary) {
        let of = locked(&self.plan).stages.len();
        let started = Event::StageStarted {
            index: index + 1,
            of,
            why: why.clone(),
        };
        self.sink.emit(&summary.name, started);
        summary.why = why;
    }

    /// Takes a key's lock. Reports the process that it waits for, and returns its name.
    fn lock(&self, key: &Digest, stage: &str) -> Result<(KeyLock, Option<String>)> {
        let mut waited = None;
        let lock = self.store.lock(key, &mut |holder| {
            self.cancel.check()?;
            if waited.is_none() {
                let who = match holder {
                    None => "another process".to_owned(),
                    Some(holder) if holder.pid == std::process::id() => {
                        "another stage of this run".to_owned()
                    }
                    Some(holder) => holder.to_string(),
                };
                let since = holder.map_or_else(String::new, |holder| format!(" since {}", holder.since));
                self.sink.emit(
                    stage,
                    Event::Note(format!("waiting for {who}, which runs this stage{since}")),
                );
                waited = Some(who);
            }
            Ok(())
        })?;
        Ok((lock, waited))
    }

    fn served(&self, summary: &mut StageSummary, record: Box<Record>, why: String) -> Record {
        summary.status = Status::Cached;
        summary.why = why;
        self.fill(summary, &record);
        self.repeat_warnings(&summary.name, &record);
        self.sink.emit(&summary.name, Event::StageCached);
        self.uploads.add(&summary.name, &record);
        *record
    }

    /// Repeats the warnings of the run that made a record.
    fn repeat_warnings(&self, name: &str, record: &Record) {
        let plan = locked(&self.plan);
        let stage = plan.stages.iter().find(|stage| stage.name == name);
        let warnings = stage.map(|stage| stage.warnings(record)).unwrap_or_default();
        drop(plan);
        for warning in warnings {
            self.sink.emit(name, Event::Warning(warning));
        }
    }

    /// Leaves a stage's artifact where it is, which is not here.
    fn leave(&self, summary: &mut StageSummary, record: &Record) -> Result<()> {
        match self.store.keep(record) {
            // The next plan asks the remote again.
            Err(error) if error.is_denied() => {}
            kept => kept?,
        }
        summary.status = Status::Away;
        self.fill(summary, record);
        self.sink.emit(&summary.name, Event::StageCached);
        Ok(())
    }

    fn fill(&self, summary: &mut StageSummary, record: &Record) {
        summary.artifact = Some(record.artifact);
        let path = self.store.artifact_path(&record.artifact);
        summary.path = (summary.status != Status::Away).then(|| path.display().to_string());
        summary.figures = record
            .figures
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
        // A stage that has run has counted the files left out; a record has the counts of an earlier run.
        if matches!(summary.status, Status::Cached | Status::Fetched | Status::Away) {
            let plan = locked(&self.plan);
            if let Some(stage) = plan.stages.iter().find(|stage| stage.name == summary.name) {
                stage.refresh(&mut summary.figures);
            }
        }
    }

    fn run(
        &self,
        index: usize,
        key: &Key,
        reasons: &[Reason],
        lock: &KeyLock,
        threads: usize,
        summary: &mut StageSummary,
    ) -> Result<Record> {
        let StageInputs {
            stage,
            base,
            origins,
            room,
        } = self.inputs_of(index);
        let stage = &stage;
        self.report_start(index, why(reasons), summary);
        let start = StageStart::of(&stage.stage, reasons);
        if start == StageStart::Restart {
            self.store.clear_work(lock)?;
        }
        let device = self.device(stage)?;
        let lock_of_gpu = self.gpu_lock(device, &stage.name)?;
        let device = self.trusted(device, &stage.name)?;
        // A stage that computes on the CPU after all releases the GPU.
        let lock_of_gpu = lock_of_gpu.filter(|_| device.is_gpu());
        let (output, work) = self.store.stage(lock)?;
        let inputs: Vec<_> = stage
            .inputs
            .iter()
            .zip(&origins)
            .map(|(input, origin)| (input.role, self.store.artifact_path(&origin.artifact)))
            .collect();
        let downloads = self.store.downloads_path();
        let checkpoints = start.checkpoints(key, self.store)?;
        let context = Context {
            name: &stage.name,
            base: &base,
            inputs: &inputs,
            output: &output,
            work: &work,
            checkpoints: &checkpoints,
            piped: stage.piped(),
            downloads: &downloads,
            seed: stage.seed,
            device,
            threads,
            ranks: &self.options.ranks,
            sink: self.sink,
            cancel: self.cancel,
            room,
        };
        let started = SystemTime::now();
        let clock = Instant::now();
        self.begin(index);
        let made = catch_unwind(AssertUnwindSafe(|| (self.runner)(&stage.stage, &context)))
            .unwrap_or_else(|panic| {
                Err(Error::internal(format!(
                    "run the stage: it panicked: {}",
                    panic_text(&*panic)
                )))
            })
            .and_then(|outcome| {
                stage.check_files(&base, &outcome.consumed)?;
                Ok(outcome)
            });
        drop(lock_of_gpu);
        let seconds = clock.elapsed().as_secs_f64();
        let beside = self.end(index);
        summary.seconds = Some(seconds);
        let outcome = match made {
            Ok(outcome) => outcome,
            Err(error) => {
                // The scratch folder stays for the next attempt; half an artifact is deleted.
                let _ = self.store.clear_staging(lock);
                return Err(error);
            }
        };
        let figures = outcome.figures.clone();
        let mut provenance = self.provenance(stage, origins, started, seconds, outcome.provenance)?;
        provenance.threads = threads;
        provenance.device = system::described(device);
        provenance.beside = self.names(&beside);
        provenance.beside.extend(self.options.neighbours.names());
        let record = self
            .store
            .commit(lock, |artifact, files| Record {
                key: key.clone(),
                artifact,
                content: outcome.content,
                files,
                figures: outcome.figures.into_iter().collect(),
                provenance,
            })
            .context(|| "commit".to_owned())?;
        // While the key's lock is held: its record cannot go meanwhile.
        self.hold_made(&record)?;
        summary.status = Status::Done;
        self.fill(summary, &record);
        self.uploads.add(&stage.name, &record);
        self.sink
            .emit(&stage.name, Event::StageFinished { seconds, figures });
        Ok(record)
    }

    /// What a stage runs with.
    fn inputs_of(&self, index: usize) -> StageInputs {
        let plan = locked(&self.plan);
        StageInputs {
            stage: plan.stages[index].clone(),
            base: plan.base.clone(),
            origins: plan.origins(index),
            room: plan.room(index),
        }
    }

    /// The names of stages, by their places in the plan.
    fn names(&self, indices: &[usize]) -> Vec<String> {
        let plan = locked(&self.plan);
        let name = |index: &usize| plan.stages[*index].name.clone();
        indices.iter().map(name).collect()
    }

    /// The device of a stage: the CPU where it computes no network. Reports the device the first time.
    fn device(&self, stage: &PlannedStage) -> Result<Device> {
        if !stage.stage.computes_network() {
            return Ok(Device::Cpu);
        }
        let (device, event) = self.options.device.resolve()?;
        if let Some(event) = event
            && !self.reported_device.swap(true, Ordering::Relaxed)
        {
            self.sink.emit(&stage.name, event);
        }
        Ok(device)
    }

    /// The device of a stage after the self-test: the CPU if the GPU failed it. Reports that the first time.
    fn trusted(&self, resolved: Device, stage: &str) -> Result<Device> {
        let (device, event) = self.options.device.trusted(resolved)?;
        if let Some(event) = event
            && !self.reported_distrust.swap(true, Ordering::Relaxed)
        {
            self.sink.emit(stage, event);
        }
        Ok(device)
    }

    /// The lock of a GPU; reports the process it waits for.
    fn gpu_lock(&self, device: Device, stage: &str) -> Result<Option<GpuLock>> {
        let mut is_reported = false;
        system::lock(device, &mut |why| {
            self.cancel.check()?;
            if !is_reported {
                is_reported = true;
                self.sink.emit(stage, Event::Note(why.to_owned()));
            }
            Ok(())
        })
    }

    /// Records that a stage begins. Peak memory is that of the process: its measurement restarts when no other stage runs.
    fn begin(&self, index: usize) {
        let mut at_work = locked(&self.at_work);
        let others: Vec<usize> = at_work.keys().copied().collect();
        for beside in at_work.values_mut() {
            beside.push(index);
        }
        if others.is_empty() {
            memory::reset_peak();
        }
        at_work.insert(index, others);
    }

    /// Records that a stage ends. Returns the stages that ran beside it.
    fn end(&self, index: usize) -> Vec<usize> {
        locked(&self.at_work).remove(&index).unwrap_or_default()
    }

    /// How a stage came about.
    fn provenance(
        &self,
        stage: &PlannedStage,
        inputs: Vec<InputOrigin>,
        started: SystemTime,
        seconds: f64,
        facts: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Provenance> {
        let (pipeline, place) = {
            let plan = locked(&self.plan);
            (plan.pipeline.clone(), plan.place.clone())
        };
        Ok(Provenance {
            pipeline,
            stage: stage.name.clone(),
            manifest: self.options.manifest.clone(),
            place,
            overrides: self.options.overrides.clone(),
            config: key::settings(&stage.stage)?,
            seed: stage.seed,
            inputs,
            files: stage.files.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("MDLM_GIT_REVISION").map(str::to_owned),
            machine: Machine::this(),
            device: system::described(Device::Cpu),
            threads: self.options.threads,
            beside: vec![],
            started: time::rfc3339(started),
            seconds,
            peak_memory_bytes: memory::peak(),
            facts,
        })
    }
}

#[cfg(test)]
mod tests;
