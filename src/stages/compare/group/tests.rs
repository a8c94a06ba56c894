use serde_json::json;

use super::*;
use crate::evaluate::Interval;
use crate::manifest::Seed;
use crate::stages::compare::Comparison;
use crate::stages::replicates::{Setting, StageSeed, replicates};
use crate::store::Digest;

/// Where a row stands in its sweep, its setting by a letter, the seeds of its training, its rows and its evaluation, and
/// its bits per byte.
type Case = (serde_json::Value, &'static str, [u64; 3], Option<f64>);

fn setting(letter: &str, [train, pack, evaluate]: [u64; 3], stage: &str) -> Setting {
    let drawn = |path: &str, stage: &str, kind, seed| StageSeed {
        path: path.to_owned(),
        stage: stage.to_owned(),
        kind,
        seed,
    };
    Setting {
        digest: Digest::of(letter.as_bytes()),
        seeds: vec![
            drawn("", "bound", StageKind::Evaluate, evaluate),
            drawn("model", stage, StageKind::Train, train),
            drawn("model.from", "rows", StageKind::Pack, pack),
            drawn("data", "rows", StageKind::Pack, pack),
        ],
    }
}

/// The rows of cases, and the labels of their seeds; `stage` names the training of each.
fn rows(cases: &[Case], stage: impl Fn(usize) -> String) -> Vec<Row> {
    let points: Vec<Point> = cases
        .iter()
        .map(|(point, ..)| point.as_object().unwrap().clone().into_iter().collect())
        .collect();
    let settings: Vec<Setting> = cases
        .iter()
        .enumerate()
        .map(|(index, (_, letter, seeds, _))| setting(letter, *seeds, &stage(index)))
        .collect();
    let pairs: Vec<_> = points.iter().zip(&settings).collect();
    let found = replicates(&pairs);
    let rows = cases.iter().enumerate().map(|(index, (.., bits))| {
        let interval = |value| Interval {
            value,
            low: None,
            high: None,
        };
        let mut row = Row {
            point: points[index].clone(),
            metrics: bits
                .map(|bits| (Metric::BitsPerByte, interval(bits)))
                .into_iter()
                .collect(),
            ..Row::default()
        };
        if let Some(found) = &found {
            row.place(found[index].setting, found[index].seeds.clone());
        }
        row
    });
    rows.collect()
}

fn of(rows: &[Row]) -> Option<Vec<Group>> {
    groups(&rows.iter().collect::<Vec<_>>())
}

fn labels(row: &Row) -> Vec<&str> {
    row.seeds.iter().map(|Seed { label, .. }| &**label).collect()
}

#[test]
fn seeds_of_any_stage_are_replicates_and_the_best_mean_is_first() {
    let point = |rate, model, rows| json!({ "rate": rate, "model.seed": model, "rows.seed": rows });
    let rows = rows(
        &[
            (point(1, 1, 1), "a", [1, 1, 9], Some(0.5)),
            (point(2, 1, 1), "b", [1, 1, 9], Some(1.0)),
            (point(1, 2, 1), "a", [2, 1, 9], Some(4.5)),
            (point(2, 1, 2), "b", [1, 2, 9], Some(1.5)),
            (point(1, 2, 2), "a", [2, 2, 9], None),
        ],
        |_| "model".to_owned(),
    );
    assert_eq!(labels(&rows[0]), ["model.seed", "rows.seed"]);
    let Comparison { rows, groups, .. } = Comparison::of(rows, None);
    let found = groups.unwrap();
    // The best of all rows has rate 1; its mean has not.
    let rates: Vec<_> = rows
        .iter()
        .map(|row| row.point["rate"].as_u64().unwrap())
        .collect();
    assert_eq!(rates, [2, 2, 1, 1, 1]);
    assert_eq!((&*found[0].rows, &*found[1].rows), (&[0, 1][..], &[2, 3, 4][..]));
    let spread = found[1].metric(Metric::BitsPerByte).unwrap();
    assert_eq!((spread.mean, spread.n), (2.5, 2));
    assert!((spread.sd.unwrap() - 8f64.sqrt()).abs() < 1e-12);
    let all: Vec<&Row> = rows.iter().collect();
    assert_eq!(counted(&found, &all), "2 settings, 2 to 3 seeds each");
    assert_eq!(found[1].counted(&all, |row| row != 4), "2 of 3");
    assert_eq!(found[1].counted(&all, |_| true), "3 (2, 2)");
}

#[test]
fn settings_make_replicates_and_names_do_not() {
    // Three trainings by hand, of which two differ in their seed alone.
    let by_hand = |letters: [&'static str; 3]| {
        let cases: Vec<Case> = letters
            .into_iter()
            .zip(1..)
            .map(|(letter, seed)| (json!({}), letter, [seed, 1, 1], Some(seed as f64)))
            .collect();
        let mut rows = rows(&cases, |index| format!("m{index}"));
        for (index, row) in rows.iter_mut().enumerate() {
            row.name = Some(format!("bound-{index}"));
        }
        rows
    };
    let rows = by_hand(["a", "a", "b"]);
    assert_eq!(
        rows[1].point,
        Point::from_iter([("train.seed".to_owned(), json!(2))])
    );
    let found = of(&rows).unwrap();
    assert_eq!((&*found[0].rows, &*found[1].rows), (&[0, 1][..], &[2][..]));
    assert_eq!(found[0].name.as_deref(), Some("bound-0, bound-1"));
    assert_eq!(
        found[0].seeds,
        [("train.seed".to_owned(), vec![StageKind::Train], 2)]
    );
    assert_eq!(of(&by_hand(["a", "b", "c"])), None);
    let all = of(&by_hand(["a"; 3])).unwrap();
    assert_eq!(
        (all.len(), all[0].name.as_deref()),
        (1, Some("bound-0 … bound-2"))
    );
}

#[test]
fn no_replicates_make_no_groups() {
    assert_eq!(of(&[]), None);
    let of = |cases: &[Case]| of(&rows(cases, |_| "model".to_owned()));
    assert_eq!(
        of(&[
            (json!({ "rate": 1 }), "a", [1, 1, 1], None),
            (json!({ "rate": 2 }), "b", [1, 1, 1], None)
        ]),
        None
    );
    let one_seed_each = [
        (json!({ "rate": 1, "seed": 1 }), "a", [1, 1, 1], None),
        (json!({ "rate": 2, "seed": 2 }), "b", [2, 1, 1], None),
    ];
    assert_eq!(of(&one_seed_each), None);
    // Twice the same is nothing that a seed changed.
    let twice = (json!({ "seed": 1 }), "a", [1, 1, 1], Some(1.0));
    assert_eq!(of(&[twice.clone(), twice.clone()]), None);
    // Beside another seed it counts once.
    let other = (json!({ "seed": 2 }), "a", [2, 1, 1], Some(2.0));
    let found = of(&[twice.clone(), twice, other]).unwrap();
    let spread = found[0].metric(Metric::BitsPerByte).unwrap();
    assert_eq!((found[0].rows.len(), spread.n, spread.mean), (3, 2, 1.5));
}

#[test]
fn seeds_that_differ_are_named() {
    let said = |cases: &[Case]| {
        let rows = rows(cases, |_| "model".to_owned());
        what_is_spread(&of(&rows).unwrap())
    };
    assert_eq!(
        said(&[
            (json!({ "seed": 1 }), "a", [1, 1, 1], None),
            (json!({ "seed": 2 }), "a", [2, 1, 1], None)
        ]),
        "± is the standard deviation of single results (with n − 1) over seed (train): the spread to expect \
         of another such seed, not the uncertainty of the mean."
    );
    assert_eq!(
        said(&[
            (json!({}), "a", [1, 1, 1], None),
            (json!({}), "a", [1, 1, 2], None)
        ]),
        "± is the standard deviation of single results (with n − 1) over bound.seed (evaluate): the spread to expect \
         of another such seed, not the uncertainty of the mean. It does not cover the spread between seeds of training."
    );
    let crossed: Vec<Case> = [[1, 1, 1], [1, 2, 1], [2, 1, 1], [2, 2, 1], [3, 1, 1], [3, 2, 1]]
        .into_iter()
        .map(|seeds| (json!({}), "a", seeds, Some(1.0)))
        .collect();
    assert_eq!(
        said(&crossed),
        "± is the standard deviation of single results over model.seed (train) × rows.seed (pack), from the pairs that \
         share no seed: the spread to expect with other seeds, not the uncertainty of the mean."
    );
    let rows = rows(&crossed, |_| "model".to_owned());
    let all: Vec<&Row> = rows.iter().collect();
    assert_eq!(of(&rows).unwrap()[0].counted(&all, |_| true), "6 (3 × 2)");
    // Seeds that go together are one.
    let together = [
        (json!({ "seed": 1 }), "a", [1, 1, 1], None),
        (json!({ "seed": 2 }), "a", [2, 2, 2], None),
    ];
    assert!(
        said(&together).contains("over seed (evaluate, train, pack): "),
        "{}",
        said(&together)
    );
}

#[test]
fn group_keeps_the_fields_that_its_swept_objects_share() {
    let point = |grammar: &str, seed: u64| json!({ "input": { "kind": "synthetic", "grammar": grammar, "seed": seed } });
    let cases = [
        (point("news", 1), "a", [1, 1, 1], Some(1.0)),
        (point("news", 2), "a", [2, 1, 1], Some(1.5)),
        (point("briefs", 1), "b", [1, 1, 1], Some(2.0)),
        (point("briefs", 2), "b", [2, 1, 1], None),
    ];
    let found = of(&rows(&cases, |_| "model".to_owned())).unwrap();
    let points: Vec<_> = found.iter().map(|group| json!(group.point)).collect();
    let common = |grammar: &str| json!({ "input": { "kind": "synthetic", "grammar": grammar } });
    assert_eq!(points, [common("news"), common("briefs")]);
}
