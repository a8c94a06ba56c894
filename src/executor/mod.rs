//! Runs a plan: looks up, locks, runs, commits, and says so.
//!
//! Stages run one after the other, each with all threads. A stage that fails stops those that consume it; independent
//! ones still run. An interruption ends the running stage at its next safe place and starts no other; what is committed
//! stays committed, and the scratch folder of the interrupted stage (its checkpoints) is there for the next run.
//! What is corrupt in the store is not consumed but made again ([`trust`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Instant, SystemTime};

use serde::Serialize;

use crate::error::{Context as _, Error, Kind, Result, Wrap, panic_text};
use crate::event::{Cancel, Event, Sink};
use crate::manifest::{Stage, StageKind};
use crate::plan::{Decision, Plan, PlannedStage, Reason};
use crate::stages::{Context, Device, Outcome, key, memory};
use crate::store::{
    Digest, InputOrigin, Key, KeyLock, Lookup, Machine, Pin, Provenance, Record, Store, time,
};

mod trust;

use trust::Trust;

/// Runs one stage: [`crate::stages::run`], or a stand-in of a test.
pub type Runner<'a> = &'a (dyn Fn(&Stage, &Context<'_>) -> Result<Outcome> + Sync);

/// How to run, none of which changes what is made.
#[derive(Clone, Debug)]
pub struct Options {
    /// Path of the manifest, as given: for the provenance.
    pub manifest: String,
    /// Overrides in force, as given: for the provenance.
    pub overrides: Vec<String>,
    /// Threads.
    pub threads: usize,
    /// Where to compute.
    pub device: Device,
    /// Whether every artifact that is served is hashed in full first.
    pub paranoid: bool,
}

/// What became of a plan.
#[derive(Debug)]
pub struct Summary {
    /// The stages, in the order of the plan.
    pub stages: Vec<StageSummary>,
    /// The first failure, or the interruption.
    pub error: Option<Error>,
    /// Keeps the artifacts where they are for as long as this lives.
    pub pins: Vec<Pin>,
}

/// What became of a stage.
#[derive(Clone, Debug, Serialize)]
pub struct StageSummary {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// What became of it.
    pub status: Status,
    /// Why it ran, or why it did not.
    pub why: String,
    /// Wall-clock seconds that it ran.
    pub seconds: Option<f64>,
    /// Its artifact.
    pub artifact: Option<Digest>,
    /// Where that lies.
    pub path: Option<String>,
    /// Key figures: name and value as text.
    pub figures: Vec<(String, String)>,
}

/// What became of a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// Served from the store.
    Cached,
    /// Ran and was committed.
    Done,
    /// Failed.
    Failed,
    /// Was running when the user asked to stop.
    Interrupted,
    /// Was not started.
    NotRun,
}

/// Stack of a thread: that of a main thread, since stages run on threads of the pool.
const STACK_BYTES: usize = 8 << 20;

/// A pool of that many threads, in which a plan is made and run.
///
/// # Errors
/// The system gives no threads.
pub fn pool(threads: usize) -> Result<rayon::ThreadPool> {
    rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .stack_size(STACK_BYTES)
        .thread_name(|index| format!("mdlm-{index}"))
        .build()
        .wrap(Kind::Environment, || format!("start {threads} threads"))
}

/// Runs what the plan says has to run.
///
/// # Errors
/// The store cannot be made ready. What goes wrong later is in the summary.
pub fn execute(
    plan: &mut Plan,
    store: &Store,
    options: &Options,
    sink: &dyn Sink,
    cancel: &Cancel,
    runner: Runner<'_>,
) -> Result<Summary> {
    store.prepare()?;
    let run = Run {
        store,
        options,
        sink,
        cancel,
        runner,
        trust: Trust::default(),
    };
    let mut summary = Summary {
        stages: Vec::new(),
        error: None,
        pins: Vec::new(),
    };
    for index in 0..plan.stages.len() {
        let mut stage = StageSummary::new(&plan.stages[index]);
        // Its inputs were not made, or nobody wants more: nothing to do but to say so.
        let lacking = plan.stages[index]
            .inputs
            .iter()
            .map(|input| &summary.stages[input.index])
            .find(|input| input.artifact.is_none());
        if cancel.is_cancelled() {
            stage.why.push_str("interrupted");
            summary.error.get_or_insert_with(Error::interrupted);
        } else if let Some(input) = lacking {
            stage.why = format!("needs `{}`", input.name);
        } else if let Err(error) = run.stage(plan, index, &mut stage) {
            let error = error.context(format!("stage `{}`", stage.name));
            if error.kind() == Kind::Interrupted {
                stage.status = Status::Interrupted;
                stage.why.push_str("interrupted");
            } else {
                stage.status = Status::Failed;
                stage.why = error.to_string();
                sink.emit(
                    &stage.name,
                    Event::StageFailed {
                        message: error.to_string(),
                    },
                );
            }
            summary.error.get_or_insert(error);
        }
        summary.stages.push(stage);
        for (index, stage) in run.trust.redone() {
            summary.stages[index] = stage;
        }
    }
    summary.pins = run.trust.into_pins();
    Ok(summary)
}

/// What all stages of a run share.
struct Run<'a> {
    store: &'a Store,
    options: &'a Options,
    sink: &'a dyn Sink,
    cancel: &'a Cancel,
    runner: Runner<'a>,
    trust: Trust,
}

impl StageSummary {
    /// Of a stage that was not started.
    fn new(stage: &PlannedStage) -> Self {
        Self {
            name: stage.name.clone(),
            kind: stage.kind().name(),
            status: Status::NotRun,
            why: String::new(),
            seconds: None,
            artifact: None,
            path: None,
            figures: Vec::new(),
        }
    }
}

impl Run<'_> {
    /// Serves a stage from the store or runs it.
    fn stage(&self, plan: &mut Plan, index: usize, summary: &mut StageSummary) -> Result<()> {
        let record = loop {
            plan.decide(index, self.store)?;
            match plan.stages[index].decision.clone() {
                Decision::Cached(record) => {
                    if self.hold(&summary.name, &record)? {
                        break self.served(summary, record, String::new());
                    }
                }
                Decision::Run { key: None, .. } => {
                    return Err(Error::internal("its inputs are made and its key is not known"));
                }
                Decision::Run {
                    key: Some(key),
                    reasons,
                } => {
                    if !self.inputs_are_sound(plan, index)? {
                        continue;
                    }
                    let digest = key.digest();
                    let (lock, waited) = self.lock(&digest, &summary.name)?;
                    // Whoever held the lock may have made what we were about to make.
                    match self.store.lookup(&key)? {
                        Lookup::Hit(record) if waited.is_some() || !plan.is_forced(index) => {
                            if self.hold(&summary.name, &record)? {
                                let why = waited.map_or_else(String::new, |who| format!("made by {who}"));
                                break self.served(summary, record, why);
                            }
                        }
                        _ => break self.run(plan, index, &key, &reasons, &lock, summary)?,
                    }
                }
            }
        };
        self.store.remember(&plan.pipeline, &summary.name, &record.key);
        plan.settle(index, record);
        Ok(())
    }

    /// Takes a key's lock; says for whom it waits, and returns it.
    fn lock(&self, key: &Digest, stage: &str) -> Result<(KeyLock, Option<String>)> {
        let mut waited = None;
        let lock = self.store.lock(key, &mut |holder| {
            self.cancel.check()?;
            if waited.is_none() {
                let who = holder.map_or_else(
                    || "another process".to_owned(),
                    |holder| format!("process {} on {}", holder.pid, holder.host),
                );
                let since = holder.map_or_else(String::new, |holder| format!(" since {}", holder.since));
                self.sink.emit(
                    stage,
                    Event::Note(format!("waiting for {who}, at work on this stage{since}")),
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
        self.sink.emit(&summary.name, Event::StageCached);
        *record
    }

    fn fill(&self, summary: &mut StageSummary, record: &Record) {
        summary.artifact = Some(record.artifact);
        summary.path = Some(self.store.artifact_path(&record.artifact).display().to_string());
        summary.figures = record
            .figures
            .iter()
            .map(|(n, v)| (n.clone(), v.clone()))
            .collect();
    }

    fn run(
        &self,
        plan: &Plan,
        index: usize,
        key: &Key,
        reasons: &[Reason],
        lock: &KeyLock,
        summary: &mut StageSummary,
    ) -> Result<Record> {
        let stage = &plan.stages[index];
        summary.why = reasons
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        self.sink.emit(
            &stage.name,
            Event::StageStarted {
                index: index + 1,
                of: plan.stages.len(),
                why: summary.why.clone(),
            },
        );
        if reasons.contains(&Reason::Forced) {
            // Asked for anew: not from the checkpoint of an earlier attempt.
            self.store.clear_work(lock)?;
        }
        let (output, work) = self.store.stage(lock)?;
        let origins = plan.origins(index);
        let inputs: Vec<_> = stage
            .inputs
            .iter()
            .zip(&origins)
            .map(|(input, origin)| (input.role, self.store.artifact_path(&origin.artifact)))
            .collect();
        let downloads = self.store.downloads_path();
        let checkpoints = self.store.checkpoints_path();
        let goes_on = stage.kind() == StageKind::Train && !reasons.contains(&Reason::Forced);
        let earlier = goes_on.then(|| self.store.earlier(key)).transpose()?;
        let context = Context {
            name: &stage.name,
            base: &plan.base,
            inputs: &inputs,
            output: &output,
            work: &work,
            earlier: earlier.as_deref(),
            checkpoints: &checkpoints,
            downloads: &downloads,
            seed: stage.seed,
            device: self.options.device,
            threads: self.options.threads,
            sink: self.sink,
            cancel: self.cancel,
        };
        let started = SystemTime::now();
        let clock = Instant::now();
        memory::reset_peak();
        let made = catch_unwind(AssertUnwindSafe(|| (self.runner)(&stage.stage, &context)))
            .unwrap_or_else(|panic| {
                Err(Error::internal(format!(
                    "run the stage: it panicked: {}",
                    panic_text(&*panic)
                )))
            })
            .and_then(|outcome| {
                plan.check_files(index)?;
                Ok(outcome)
            });
        let seconds = clock.elapsed().as_secs_f64();
        summary.seconds = Some(seconds);
        let outcome = match made {
            Ok(outcome) => outcome,
            Err(error) => {
                // The scratch stays, for the next attempt; half an artifact is of use to nobody.
                let _ = self.store.clear_staging(lock);
                return Err(error);
            }
        };
        let figures = outcome.figures.clone();
        let provenance = self.provenance(plan, index, origins, started, seconds, outcome.provenance)?;
        let record = self
            .store
            .commit(lock, |artifact, files| Record {
                key: key.clone(),
                artifact,
                files,
                figures: outcome.figures.into_iter().collect(),
                provenance,
            })
            .context(|| "commit".to_owned())?;
        // While the key's lock is held: its record cannot go meanwhile.
        self.hold_made(&record)?;
        summary.status = Status::Done;
        self.fill(summary, &record);
        self.sink
            .emit(&stage.name, Event::StageFinished { seconds, figures });
        Ok(record)
    }

    /// How a stage came about.
    fn provenance(
        &self,
        plan: &Plan,
        index: usize,
        inputs: Vec<InputOrigin>,
        started: SystemTime,
        seconds: f64,
        facts: serde_json::Map<String, serde_json::Value>,
    ) -> Result<Provenance> {
        let stage = &plan.stages[index];
        Ok(Provenance {
            pipeline: plan.pipeline.clone(),
            stage: stage.name.clone(),
            manifest: self.options.manifest.clone(),
            overrides: self.options.overrides.clone(),
            config: key::settings(&stage.stage)?,
            seed: stage.seed,
            inputs,
            files: stage.files.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            revision: option_env!("MDLM_GIT_REVISION").map(str::to_owned),
            machine: Machine::this(),
            device: match self.options.device {
                Device::Cpu => "cpu".to_owned(),
                Device::Cuda => "cuda".to_owned(),
            },
            threads: self.options.threads,
            started: time::rfc3339(started),
            seconds,
            peak_memory_bytes: memory::peak(),
            facts,
        })
    }
}

#[cfg(test)]
mod tests;
