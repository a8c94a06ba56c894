//! The figures that a stage is expected to have, which has yet to run: those of its last run, in proportion to the size of its
//! text then and now.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::speed::{figures, settings};
use crate::manifest::{SourceInput, Stage};
use crate::plan::Plan;
use crate::store::{Record, Store};

/// How long a source's text is, in what is known before it is read.
#[derive(Debug, PartialEq)]
enum TextSize {
    /// Of a grammar, by its path.
    Records(f64, Value),
    /// Of files.
    Bytes(f64),
    /// Of a download or a corpus: by its settings alone.
    Unmeasured(Value),
}

impl TextSize {
    /// That of a source stage and the bytes of its files.
    fn of(stage: &Stage, bytes: u64) -> Option<Self> {
        let Stage::Source(source) = stage else { return None };
        Some(match &source.input {
            SourceInput::Synthetic(input) => {
                let mut grammar = json!(input);
                let settings = grammar.as_object_mut()?;
                settings.shift_remove("records");
                settings.shift_remove("seed");
                Self::Records(input.records as f64, grammar)
            }
            SourceInput::Files(_) => Self::Bytes(bytes as f64),
            SourceInput::Download(_) | SourceInput::Corpus(_) => Self::Unmeasured(json!(source.input)),
        })
    }

    /// That of the text which a stage of a plan comes from.
    fn in_plan(plan: &Plan, mut index: usize) -> Option<Self> {
        loop {
            let stage = &plan.stages[index];
            if let Stage::Source(_) = stage.stage {
                return Self::of(&stage.stage, stage.files.iter().map(|file| file.bytes).sum());
            }
            index = stage.inputs.iter().find(|input| input.role == "from")?.index;
        }
    }

    /// That of the text which a run's result came from.
    fn in_record(record: &Record, store: &Store) -> Option<Self> {
        let ran = &record.provenance;
        if let Some(from) = ran.inputs.iter().find(|input| input.role == "from") {
            return Self::in_record(&store.record(&from.kind, &from.key)?, store);
        }
        Self::of(&settings(record)?, ran.files.iter().map(|file| file.bytes).sum())
    }

    /// How many times as long as another it is; nothing where they cannot be compared.
    fn times(&self, other: &Self) -> Option<f64> {
        match (self, other) {
            (Self::Records(now, grammar), Self::Records(then, same)) if grammar == same => Some(now / then),
            (Self::Bytes(now), Self::Bytes(then)) => Some(now / then),
            (Self::Unmeasured(now), Self::Unmeasured(then)) => (now == then).then_some(1.0),
            _ => None,
        }
        .filter(|times| times.is_finite())
    }
}

/// The figures that a stage of a plan is expected to have, by a record of its last run; none where other settings or another kind
/// of text make them others.
pub(super) fn expected_figures(
    plan: &Plan,
    index: usize,
    record: &Record,
    store: &Store,
) -> HashMap<String, f64> {
    let times = settings(record).and_then(|then| match (&then, &plan.stages[index].stage) {
        (Stage::Sample(then), Stage::Sample(now)) => {
            (then.given == now.given).then(|| f64::from(now.count) / f64::from(then.count))
        }
        (then, now) if are_comparable(then, now) => {
            TextSize::in_plan(plan, index)?.times(&TextSize::in_record(record, store)?)
        }
        _ => None,
    });
    let Some(times) = times else { return HashMap::new() };
    let all = figures(record).into_iter();
    all.map(|(name, value)| (name, (value * times).round())).collect()
}

/// Whether two stages make about as much of the same text.
fn are_comparable(then: &Stage, now: &Stage) -> bool {
    match (then, now) {
        (Stage::Source(_), Stage::Source(_)) => true,
        // A few more or fewer words of a vocabulary change little.
        (Stage::Tokenize(then), Stage::Tokenize(now)) => {
            std::mem::discriminant(&then.tokenizer) == std::mem::discriminant(&now.tokenizer)
        }
        // Length and form of rows decide how many there are.
        (Stage::Pack(then), Stage::Pack(now)) => {
            let rows = |pack| {
                let mut settings = json!(pack);
                if let Some(settings) = settings.as_object_mut() {
                    settings.shift_remove("from");
                    settings.shift_remove("seed");
                }
                settings
            };
            rows(then) == rows(now)
        }
        _ => false,
    }
}
