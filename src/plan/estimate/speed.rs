//! How fast this machine was: the seconds of earlier runs, by their records, and of measurements.
//!
//! A speed is taken from what is nearest to the stage, and of that from the newest runs:
//!
//! 1. runs of stages that take the same time for a unit ([`super::amount`]): same kind, shape, objective;
//! 2. the same, beside which other stages ran;
//! 3. by operations a second: measurements and runs with another shape or objective, and for stages that evaluate those of
//!    trainings.
//!
//! Runs of another machine, on another device or, on the CPU, with another number of threads do not count: their speed is not
//! this one's.

use std::collections::HashMap;

use serde_json::Value;

use super::amount::{ConsumedStage, OperationCosts, WorkAmount, WorkSubject, model_of, stand_ins};
use crate::error::Result;
use crate::manifest::instance::written;
use crate::manifest::{Stage, StageKind};
use crate::stages::train::dimensions;
use crate::store::{Digest, Machine, Record, Store};

/// Records of a kind that are looked at, the newest.
const LOOKED_AT: usize = 256;
/// Runs that an estimate rests on, at most: older ones say less of the machine as it is.
const RUNS: usize = 5;

/// Where a stage would run.
#[derive(Clone, Debug, PartialEq)]
pub struct RunPlace {
    /// The machine.
    pub machine: Machine,
    /// Where its network is computed, as records have it: `cpu`, or `cuda: ` with the GPU's name and versions.
    pub device: String,
    /// Threads.
    pub threads: usize,
}

impl RunPlace {
    /// Whether a run was at this place, as far as its kind depends on it.
    fn is_of(&self, record: &Record, computes_network: bool) -> bool {
        let there = &record.provenance;
        let on_cpu = there.device == "cpu";
        let device = if computes_network { &self.device } else { "cpu" };
        let machine = &there.machine;
        (&machine.host, &machine.processor, machine.processors)
            == (
                &self.machine.host,
                &self.machine.processor,
                self.machine.processors,
            )
            && there.device == device
            && (!on_cpu || there.threads == self.threads)
    }
}

/// How long something took.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct SpeedSample {
    pub kind: StageKind,
    pub amount: WorkAmount,
    pub seconds: f64,
    /// Those of its network alone, where they are recorded.
    pub network: Option<f64>,
    /// When it began, RFC 3339.
    pub started: String,
    /// The stage; nothing for a measurement.
    pub stage: Option<String>,
    /// Whether other stages ran meanwhile.
    pub beside: bool,
}

impl SpeedSample {
    /// Seconds of so much of the same work.
    fn seconds_of(&self, amount: &WorkAmount) -> f64 {
        let share = amount.units / self.amount.units;
        match self.network {
            None => self.seconds * share,
            Some(network) => network * share + self.besides(network) * amount.rounds,
        }
    }

    /// Seconds of other work by a network, at as many operations a second.
    fn seconds_by_operations(&self, amount: &WorkAmount, kind: StageKind) -> Option<f64> {
        let (theirs, flops) = (self.amount.flops.filter(|flops| *flops > 0.0)?, amount.flops?);
        let Some(network) = self.network else {
            return Some(self.seconds / theirs * flops);
        };
        let besides = match kind {
            // Validations are work of the network.
            StageKind::Train => {
                let per_token = flops / amount.units / (theirs / self.amount.units);
                self.besides(network) * amount.rounds * per_token
            }
            kind if kind == self.kind => self.besides(network),
            // Those of another kind are others.
            _ => 0.0,
        };
        Some(network / theirs * flops + besides)
    }

    /// What a round takes that is not the network's.
    fn besides(&self, network: f64) -> f64 {
        if self.amount.rounds > 0.0 {
            (self.seconds - network).max(0.0) / self.amount.rounds
        } else {
            0.0
        }
    }
}

/// The time that a stage is estimated to take.
#[derive(Clone, Debug, PartialEq)]
pub struct TimeEstimate {
    /// Seconds: the median over the runs that it rests on.
    pub seconds: f64,
    /// By the fastest and the slowest of these runs; nothing of a single one.
    pub range: Option<(f64, f64)>,
    /// How many runs it rests on.
    pub runs: usize,
    /// What it rests on, such as "from `model` of 2026-11-30".
    pub basis: String,
}

impl TimeEstimate {
    /// That of a part of the work.
    #[must_use]
    pub fn share(&self, share: f64) -> Self {
        Self {
            seconds: self.seconds * share,
            range: self.range.map(|(low, high)| (low * share, high * share)),
            ..self.clone()
        }
    }
}

/// The speeds that are known.
#[derive(Debug)]
pub(super) struct Speeds<'a> {
    store: &'a Store,
    place: &'a RunPlace,
    samples: HashMap<StageKind, Vec<SpeedSample>>,
    /// Records of consumed stages, by key.
    inputs: HashMap<Digest, Option<ConsumedStage>>,
}

impl<'a> Speeds<'a> {
    pub fn new(store: &'a Store, place: &'a RunPlace) -> Self {
        Self {
            store,
            place,
            samples: HashMap::new(),
            inputs: HashMap::new(),
        }
    }

    /// Adds a measurement.
    pub fn add(&mut self, sample: SpeedSample, costs: &mut OperationCosts) -> Result<()> {
        self.read(sample.kind, costs)?;
        self.samples.entry(sample.kind).or_default().insert(0, sample);
        Ok(())
    }

    /// The time that a stage of a kind takes for so much; nothing where no speed is known.
    pub fn time(
        &mut self,
        kind: StageKind,
        amount: &WorkAmount,
        costs: &mut OperationCosts,
    ) -> Result<Option<TimeEstimate>> {
        if amount.units == 0.0 {
            return Ok(Some(TimeEstimate {
                seconds: 0.0,
                range: None,
                runs: 0,
                basis: "nothing is left to do".to_owned(),
            }));
        }
        self.read(kind, costs)?;
        let own = &self.samples[&kind];
        for beside in [false, true] {
            let same = own
                .iter()
                .filter(|sample| sample.beside == beside && sample.amount.alike == amount.alike);
            let rates: Vec<_> = same
                .map(|sample| (sample.seconds_of(amount), sample))
                .take(RUNS)
                .collect();
            if let Some(estimate) = estimate(&rates, false) {
                return Ok(Some(estimate));
            }
        }
        for &other in stand_ins(kind) {
            self.read(other, costs)?;
            let rates: Vec<_> = self.samples[&other]
                .iter()
                .filter(|sample| !sample.beside)
                .filter_map(|sample| Some((sample.seconds_by_operations(amount, kind)?, sample)))
                .collect();
            // Those of one shape: a speed depends on it.
            let shape = rates.first().and_then(|(_, sample)| sample.amount.shape);
            let rates: Vec<_> = rates
                .into_iter()
                .filter(|(_, sample)| sample.amount.shape == shape)
                .take(RUNS)
                .collect();
            if let Some(estimate) = estimate(&rates, true) {
                return Ok(Some(estimate));
            }
        }
        Ok(None)
    }

    /// Reads the records of a kind, unless that was done.
    fn read(&mut self, kind: StageKind, costs: &mut OperationCosts) -> Result<()> {
        if self.samples.contains_key(&kind) {
            return Ok(());
        }
        let records = self.store.newest_records(kind.name(), LOOKED_AT)?;
        let mut samples: Vec<SpeedSample> = records
            .iter()
            .filter_map(|record| self.sample(record, costs))
            .collect();
        samples.sort_by(|a, b| b.started.cmp(&a.started));
        self.samples.insert(kind, samples);
        Ok(())
    }

    /// What a record says of this place's speed.
    fn sample(&mut self, record: &Record, costs: &mut OperationCosts) -> Option<SpeedSample> {
        let there = &record.provenance;
        let stage = settings(record)?;
        if !self.place.is_of(record, stage.computes_network()) || there.seconds <= 0.0 {
            return None;
        }
        let inputs: Vec<ConsumedStage> = there
            .inputs
            .iter()
            .filter_map(|input| self.consumed(&input.role, &input.kind, &input.key))
            .collect();
        let files = there.files.iter().map(|file| file.bytes).sum();
        let subject = WorkSubject {
            stage: &stage,
            inputs: &inputs,
            bytes: (!there.files.is_empty()).then_some(files),
            from_step: there.resumed_from().unwrap_or(0),
            rows: figures(record).get("rows").copied(),
        };
        let amount = subject.amount(costs).filter(|amount| amount.units > 0.0)?;
        let speed = there.facts.get("tokens_per_second").and_then(Value::as_f64);
        let speed = speed.filter(|speed| *speed > 0.0);
        let network = amount
            .recorded_tokens
            .zip(speed)
            .map(|(tokens, speed)| tokens / speed);
        Some(SpeedSample {
            kind: stage.kind(),
            amount,
            // What is recorded is rounded.
            network: network.map(|network| network.min(there.seconds)),
            seconds: there.seconds,
            started: there.started.clone(),
            stage: Some(written(&there.stage).to_owned()),
            beside: !there.beside.is_empty(),
        })
    }

    fn consumed(&mut self, role: &str, kind: &str, key: &Digest) -> Option<ConsumedStage> {
        let store = self.store;
        let known = self.inputs.entry(*key).or_insert_with(|| {
            let record = store.record(kind, key)?;
            Some(ConsumedStage {
                role: String::new(),
                stage: settings(&record)?,
                figures: figures(&record),
                bytes: None,
            })
        });
        let known = known.clone()?;
        Some(ConsumedStage {
            role: role.to_owned(),
            ..known
        })
    }
}

/// The settings of a record's stage; nothing where this version has other ones, or the shape had other dimensions.
pub(super) fn settings(record: &Record) -> Option<Stage> {
    let stage: Stage = serde_json::from_value(record.provenance.config.clone()).ok()?;
    if let Some((shape, _)) = model_of(&stage)
        && let Some(then) = record.key.config.get("shape").and_then(|shape| shape.as_str())
        && then != dimensions(shape)
    {
        return None;
    }
    Some(stage)
}

/// The figures of a record that are numbers.
pub(super) fn figures(record: &Record) -> HashMap<String, f64> {
    record
        .figures
        .iter()
        .filter_map(|(name, value)| Some((name.clone(), value.parse().ok()?)))
        .collect()
}

/// The estimate by some seconds, each of another run, the newest first.
fn estimate(rates: &[(f64, &SpeedSample)], by_operations: bool) -> Option<TimeEstimate> {
    let (_, newest) = rates.first()?;
    let mut seconds: Vec<f64> = rates.iter().map(|(seconds, _)| *seconds).collect();
    seconds.sort_by(f64::total_cmp);
    let middle = seconds.len() / 2;
    let median = if seconds.len() % 2 == 1 {
        seconds[middle]
    } else {
        f64::midpoint(seconds[middle - 1], seconds[middle])
    };
    let what = match &newest.stage {
        None => "measured now, the network alone".to_owned(),
        Some(stage) => {
            let day = newest.started.get(..10).unwrap_or(&newest.started);
            let of = match (by_operations, newest.amount.shape) {
                (true, Some(shape)) => format!("by operations, from `{stage}` (shape `{shape}`) of {day}"),
                _ => format!("from `{stage}` of {day}"),
            };
            if newest.beside {
                format!("{of}, beside others")
            } else {
                of
            }
        }
    };
    let what = match (&newest.stage, by_operations) {
        (None, true) => format!("{what}, by operations"),
        _ => what,
    };
    let more = rates.len() - 1;
    Some(TimeEstimate {
        seconds: median,
        range: (more > 0).then(|| (seconds[0], seconds[more])),
        runs: rates.len(),
        basis: match more {
            0 => what,
            1 => format!("{what} and 1 earlier run"),
            more => format!("{what} and {more} earlier runs"),
        },
    })
}
