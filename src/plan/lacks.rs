//! What the artifact that serves a stage lacks of what the manifest asks for, though its result is the same: the points of
//! a validation curve, checkpoints that were to stay.

use serde_json::Value;

use super::{PlannedStage, Sources};
use crate::manifest::Stage;
use crate::plural::counted;
use crate::stages::key::watched;
use crate::stages::train::retention;
use crate::store::{Key, Record, Store};
use crate::train::checkpoint::{not_kept, not_validated};

/// Of the trainings whose weights are those that a key asks for, the one that lacks least of it; the newest of several.
pub(super) fn stand_in(
    stage: &Stage,
    key: &Key,
    sources: &Sources,
) -> crate::error::Result<Option<Box<Record>>> {
    let but_for = watched(stage);
    if but_for.is_empty() {
        return Ok(None);
    }
    let past = sources.records(&key.kind)?;
    let alike = sources.store.alike(&past.records, key, but_for).into_iter();
    let steps = steps(stage);
    let best = alike.max_by(|a, b| {
        let lacks = |record: &Record| validations(&record.key.config, &key.config, steps).len();
        let order = lacks(b).cmp(&lacks(a));
        order.then_with(|| a.provenance.started.cmp(&b.provenance.started))
    });
    Ok(best.map(|record| Box::new(record.clone())))
}

/// What an artifact lacks, each as a lowercase fragment.
pub(super) fn of(stage: &PlannedStage, record: &Record, store: &Store) -> Vec<String> {
    let Stage::Train(train) = &stage.stage else {
        return Vec::new();
    };
    let mut lacks = validations(&record.key.config, &stage.parts.config, train.steps);
    let artifact = store.artifact_path(&record.artifact);
    if lacks.is_empty() {
        lacks.extend(not_validated(&artifact, train.validation_every));
    }
    if let Some(keep) = train.keep_checkpoints {
        let shared = store.checkpoints_path();
        lacks.extend(not_kept(
            &artifact,
            &shared,
            &retention(keep),
            train.checkpoint_every,
        ));
    }
    lacks
}

fn steps(stage: &Stage) -> u64 {
    match stage {
        Stage::Train(train) => train.steps,
        _ => 0,
    }
}

/// What follows "every": `step`, `3 steps`.
fn every(steps: u64) -> String {
    match steps {
        1 => "step".to_owned(),
        steps => counted(steps, "step"),
    }
}

/// The validations that a training was not asked for and now is.
fn validations(made: &Value, asked: &Value, steps: u64) -> Vec<String> {
    let number = |config: &Value, field: &str| config.get(field).and_then(Value::as_u64).unwrap_or(0);
    let mut lacks = Vec::new();
    let (then, now) = (
        number(made, "validation_every"),
        number(asked, "validation_every"),
    );
    let is_covered = now == 0 || now >= steps || then > 0 && now.is_multiple_of(then);
    if !is_covered {
        lacks.push(if then == 0 || then >= steps {
            format!("validated only at its end, not every {}", every(now))
        } else {
            format!(
                "validated every {}, not every {}",
                every(then),
                every(now).trim_end_matches(" steps")
            )
        });
    }
    let (then, now) = (number(made, "validation_rows"), number(asked, "validation_rows"));
    if now > then {
        lacks.push(format!(
            "validated on at most {}, not {now}",
            counted(then, "row")
        ));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn cache_hit_validated_more_often_lacks_nothing() {
        let lacks = |then: (u64, u64), now: (u64, u64)| {
            let config = |(every, rows)| json!({ "validation_every": every, "validation_rows": rows });
            validations(&config(then), &config(now), 100).join("; ")
        };
        assert_eq!(lacks((10, 8), (10, 8)), "");
        assert_eq!(lacks((10, 8), (50, 8)), "", "its points are among them");
        assert_eq!(lacks((10, 8), (0, 8)), "");
        assert_eq!(lacks((0, 8), (100, 8)), "", "both at the end");
        assert_eq!(lacks((10, 8), (10, 4)), "");
        assert_eq!(lacks((10, 8), (5, 8)), "validated every 10 steps, not every 5");
        assert_eq!(lacks((10, 8), (15, 8)), "validated every 10 steps, not every 15");
        assert_eq!(
            lacks((0, 8), (5, 8)),
            "validated only at its end, not every 5 steps"
        );
        assert_eq!(
            lacks((100, 8), (5, 8)),
            "validated only at its end, not every 5 steps"
        );
        assert_eq!(lacks((10, 8), (10, 9)), "validated on at most 8 rows, not 9");
    }
}
