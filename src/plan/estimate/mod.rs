//! What a run would take: operations, tokens, memory and time, stage by stage, before it begins.
//!
//! Times come from this machine's own earlier runs ([`speed`]) or from a measurement, never from a table: where neither is
//! known, the time is unknown, and the estimate says which command makes it known. Stages are taken to run one after the other,
//! each with all threads.

use std::collections::HashMap;

use crate::error::Result;
use crate::manifest::{Estimator, Objective, Stage, StageKind};
use crate::precision::Precision;
use crate::shapes::Shape;
use crate::stages::given::count_texts;
use crate::stages::{self, memory::DATA_BYTES};

use super::{Decision, Plan, Sources};
use amount::{ConsumedStage, OperationCosts, WorkSubject, model_of, network_calls};
use expected::expected_figures;
use speed::{SpeedSample, Speeds, figures};

mod amount;
mod budget;
mod expected;
mod speed;
#[cfg(test)]
mod tests;

pub use budget::{TimeBudget, TrainedShare};
pub use speed::{RunPlace, TimeEstimate};

/// What a stage that is to run takes.
#[derive(Clone, Debug, PartialEq)]
pub struct StageEstimate {
    /// Its place in [`Plan::stages`].
    pub index: usize,
    /// Tokens that go through its network, padding included, or that it reads; absent where that is not known before its inputs
    /// are made.
    pub tokens: Option<f64>,
    /// Floating-point operations of its network's matrix products.
    pub flops: Option<f64>,
    /// Bytes that it reads.
    pub bytes: Option<u64>,
    /// Memory in bytes.
    pub memory: u64,
    /// Of a training, the steps that are left: after the first number, up to the second.
    pub steps: Option<(u64, u64)>,
    /// The time, or why it is unknown.
    pub time: Result<TimeEstimate, UnknownTime>,
}

/// Why no time is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnknownTime {
    /// How much there is to do depends on stages that have not run.
    Amount,
    /// It depends on a network between machines.
    Download,
    /// Nothing like it ran on this machine; a short measurement makes its time known.
    NeverMeasured,
    /// Nothing like it ran on this machine.
    NeverRan,
}

/// What can be measured so that a time is known.
#[derive(Clone, Debug, PartialEq)]
pub struct Unmeasured {
    /// Train, evaluate or sample.
    pub kind: StageKind,
    /// The network.
    pub shape: &'static Shape,
    /// What it is trained for.
    pub objective: Objective,
    /// Precision of training.
    pub precision: Precision,
    /// Rows of a step.
    pub batch: u32,
    /// Reverse steps of a sample.
    pub steps: u32,
}

/// A measurement of what was [`Unmeasured`].
#[derive(Clone, Debug, PartialEq)]
pub struct Measurement {
    /// What was measured.
    pub of: Unmeasured,
    /// Tokens a second: of training and evaluation those of rows that went through the network, of sampling those of finished
    /// rows.
    pub tokens_per_second: f64,
}

/// Estimates what the stages of a plan take.
#[derive(Debug)]
pub struct PlanEstimator<'a> {
    plan: &'a Plan,
    sources: &'a Sources<'a>,
    costs: OperationCosts,
    speeds: Speeds<'a>,
    /// The figures of the last runs of stages that are to run, by their places.
    last: HashMap<usize, HashMap<String, f64>>,
}

impl<'a> PlanEstimator<'a> {
    /// For a run at a place.
    #[must_use]
    pub fn new(plan: &'a Plan, sources: &'a Sources<'a>, place: &'a RunPlace) -> Self {
        Self {
            plan,
            sources,
            costs: OperationCosts::default(),
            speeds: Speeds::new(sources.store, place),
            last: HashMap::new(),
        }
    }

    /// What each stage takes that is to run, in the order of the plan. `from_step` has, of each stage of the plan, the step from
    /// which a training resumes.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn estimates(&mut self, from_step: &[Option<u64>]) -> Result<Vec<StageEstimate>> {
        let mut all = Vec::new();
        for (index, stage) in self.plan.stages.iter().enumerate() {
            if matches!(stage.decision, Decision::Run { .. }) {
                all.push(self.estimate(index, from_step[index].unwrap_or(0))?);
            }
        }
        Ok(all)
    }

    fn estimate(&mut self, index: usize, from_step: u64) -> Result<StageEstimate> {
        let stage = &self.plan.stages[index];
        let inputs = self.inputs(index)?;
        let settings: Vec<&Stage> = stage
            .inputs
            .iter()
            .map(|input| &self.plan.stages[input.index].stage)
            .collect();
        let bytes = stage.files.iter().map(|file| file.bytes).sum();
        let subject = WorkSubject {
            stage: &stage.stage,
            inputs: &inputs,
            bytes: (!stage.files.is_empty()).then_some(bytes),
            from_step,
            rows: match &stage.stage {
                Stage::Sample(sample) => {
                    let texts = sample
                        .given
                        .as_ref()
                        .map_or(1, |given| count_texts(given, &self.plan.base));
                    Some(f64::from(sample.count) * f64::from(texts))
                }
                _ => None,
            },
        };
        let amount = subject.amount(&mut self.costs);
        let time = match &amount {
            None if !stages::downloads(&stage.stage).0.is_empty() => Err(UnknownTime::Download),
            None => Err(UnknownTime::Amount),
            Some(amount) => match self.speeds.time(stage.kind(), amount, &mut self.costs)? {
                Some(time) => Ok(time),
                // Without a number of operations, a measured speed gives no time.
                None if amount.flops.is_some() && self.unmeasured(index).is_some() => {
                    Err(UnknownTime::NeverMeasured)
                }
                None => Err(UnknownTime::NeverRan),
            },
        };
        Ok(StageEstimate {
            index,
            tokens: amount.as_ref().and_then(|amount| amount.tokens),
            flops: amount.as_ref().and_then(|amount| amount.flops),
            bytes: amount.as_ref().and_then(|amount| amount.bytes),
            memory: stages::memory_of(&stage.stage, &settings, &self.plan.base).unwrap_or(DATA_BYTES),
            steps: match &stage.stage {
                Stage::Train(train) => Some((from_step.min(train.steps), train.steps)),
                _ => None,
            },
            time,
        })
    }

    /// What is known of the stages that a stage consumes. Of one that is to run, figures are expected by its last run.
    fn inputs(&mut self, index: usize) -> Result<Vec<ConsumedStage>> {
        let mut inputs = Vec::new();
        for input in &self.plan.stages[index].inputs {
            let other = &self.plan.stages[input.index];
            // Others have no figures that count.
            let counts = match &other.stage {
                Stage::Source(_) | Stage::Tokenize(_) | Stage::Pack(_) => true,
                Stage::Sample(sample) => sample.given.is_some(),
                _ => false,
            };
            let figures = match (counts, other.record()) {
                (false, _) => HashMap::new(),
                (true, Some(record)) => figures(record),
                (true, None) => self.last_figures(input.index)?,
            };
            let bytes = other.files.iter().map(|file| file.bytes).sum();
            inputs.push(ConsumedStage {
                role: input.role.to_owned(),
                stage: other.stage.clone(),
                figures,
                bytes: (!other.files.is_empty()).then_some(bytes),
            });
        }
        Ok(inputs)
    }

    /// The figures that a stage is expected to have, by the last run of a stage of this name in this pipeline.
    fn last_figures(&mut self, index: usize) -> Result<HashMap<String, f64>> {
        if let Some(known) = self.last.get(&index) {
            return Ok(known.clone());
        }
        let stage = &self.plan.stages[index];
        let kind = stage.kind().name();
        let found = match self.plan.noted(&stage.name, kind, self.sources) {
            Some(record) => expected_figures(self.plan, index, &record, self.sources.store),
            None => {
                let past = self.sources.records(kind)?;
                let newest = self.plan.newest(past.own(&stage.name), self.sources);
                newest.map_or_else(HashMap::new, |record| {
                    expected_figures(self.plan, index, record, self.sources.store)
                })
            }
        };
        self.last.insert(index, found.clone());
        Ok(found)
    }

    /// What would have to be measured for the times of some estimates that are unknown, each once.
    #[must_use]
    pub fn measurable(&self, estimates: &[StageEstimate]) -> Vec<Unmeasured> {
        let mut all: Vec<Unmeasured> = Vec::new();
        for estimate in estimates {
            if estimate.time == Err(UnknownTime::NeverMeasured)
                && let Some(one) = self.unmeasured(estimate.index)
                && !all.contains(&one)
            {
                all.push(one);
            }
        }
        all
    }

    /// What a measurement of a stage's speed would measure.
    fn unmeasured(&self, index: usize) -> Option<Unmeasured> {
        let stage = &self.plan.stages[index];
        let model = |role: &str| {
            let input = stage.inputs.iter().find(|input| input.role == role)?;
            model_of(&self.plan.stages[input.index].stage)
        };
        let (kind, (shape, objective), precision) = match &stage.stage {
            Stage::Train(train) => (StageKind::Train, model_of(&stage.stage)?, train.precision),
            Stage::Evaluate(_) => (StageKind::Evaluate, model("model")?, Precision::F32),
            Stage::Judge(judge) if judge.model.is_some() => {
                (StageKind::Evaluate, model("model")?, Precision::F32)
            }
            Stage::Sample(_) => (StageKind::Sample, model("model")?, Precision::F32),
            _ => return None,
        };
        Some(Unmeasured {
            kind,
            shape,
            objective,
            precision,
            batch: match &stage.stage {
                Stage::Train(train) => train.batch.min(MEASURED_ROWS),
                _ => MEASURED_ROWS,
            },
            steps: match &stage.stage {
                Stage::Sample(sample) => sample.steps.min(MEASURED_STEPS),
                _ => MEASURED_STEPS,
            },
        })
    }

    /// Adds a measurement: estimates made from now on take it where no run has shown the speed.
    ///
    /// # Errors
    /// The store cannot be read.
    pub fn add(&mut self, measurement: &Measurement) -> Result<()> {
        let Unmeasured {
            kind,
            shape,
            objective,
            precision,
            steps,
            ..
        } = &measurement.of;
        let subject_tokens = shape.length as f64;
        let seconds = subject_tokens / measurement.tokens_per_second;
        // One row.
        let amount = match kind {
            StageKind::Train => amount::of_row(
                shape,
                subject_tokens,
                subject_tokens * self.costs.training(shape, objective),
                amount::training(shape, objective, *precision, true),
            ),
            StageKind::Sample => {
                let sampler = objective.samplers()[0];
                let tokens = subject_tokens * network_calls(objective, &sampler, *steps, shape.length);
                amount::of_row(
                    shape,
                    tokens,
                    tokens * amount::drawing_per_token(shape, objective),
                    amount::sampling(shape, objective, &sampler, ""),
                )
            }
            _ => {
                let estimator = measured_estimator(objective);
                amount::of_row(
                    shape,
                    subject_tokens,
                    subject_tokens * self.costs.evaluation(shape, objective, estimator),
                    amount::evaluation(shape, objective, estimator),
                )
            }
        };
        let sample = SpeedSample {
            kind: *kind,
            amount,
            seconds,
            network: Some(seconds),
            started: String::new(),
            stage: None,
            beside: false,
        };
        self.speeds.add(sample, &mut self.costs)
    }
}

/// The estimator that [`crate::bench`] measures: `time` where it fits, else that of the objective's validations.
fn measured_estimator(objective: &Objective) -> Estimator {
    match objective {
        Objective::Ar(_) => Estimator::Exact,
        Objective::Mlm(_) => Estimator::Count,
        Objective::Mdlm(_) | Objective::Sedd(_) | Objective::D3pm(_) => Estimator::Time,
    }
}

/// Rows of a measurement's batch, at most.
const MEASURED_ROWS: u32 = 32;
/// Reverse steps of a measurement's samples, at most.
const MEASURED_STEPS: u32 = 32;
