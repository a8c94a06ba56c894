//! Estimates from synthetic records: the speed is known, and so is the time.

use std::collections::HashMap;

use indexmap::IndexMap;
use serde_json::{Value, json};

use super::amount::{ConsumedStage, OperationCosts, WorkAmount, WorkSubject, network_calls};
use super::*;
use crate::manifest::{Manifest, Sampler};
use crate::plan::Selection;
use crate::shapes::SHAPES;
use crate::stages::key;
use crate::store::record::testing::example;
use crate::store::{Digest, InputOrigin, Machine, Record, Store};

const SECONDS_OF_A_TOKEN: f64 = 1e-3;

fn place() -> RunPlace {
    RunPlace {
        machine: Machine::this(),
        device: "cpu".to_owned(),
        threads: 2,
    }
}

fn manifest(changes: &[(&str, Value)]) -> Manifest {
    let mut manifest = json!({
        "name": "estimated", "seed": 1,
        "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
            "model": { "kind": "train", "from": "rows", "shape": "nano", "steps": 100, "batch": 8, "warmup_steps": 0 },
            "bound": { "kind": "evaluate", "model": "model", "data": "rows", "draws": 2 },
            "samples": { "kind": "sample", "model": "model", "count": 10, "steps": 16 }
        }
    });
    for (pointer, value) in changes {
        let (parent, key) = pointer.rsplit_once('/').unwrap();
        manifest.pointer_mut(&format!("/stages/{parent}")).unwrap()[key] = value.clone();
    }
    let text = manifest.to_string().into_bytes();
    Manifest::from_bytes("estimated.json", text, &[], SHAPES)
        .unwrap()
        .manifest
}

/// A project with a text of 1,000 bytes and a store of records.
struct Project {
    folder: tempfile::TempDir,
    store: Store,
}

impl Project {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "ten bytes\n".repeat(100)).unwrap();
        let store = Store::at(folder.path().join(".mdlm"));
        store.prepare().unwrap();
        Self { folder, store }
    }

    /// Records that a stage ran with these settings, and what it consumed: roles and records.
    fn ran(
        &self,
        stage: &Stage,
        seconds: f64,
        inputs: &[(&str, &Record)],
        change: impl FnOnce(&mut Record),
    ) -> Record {
        let parts = key::parts(stage, 1).unwrap();
        let mut record = example(1);
        record.key.kind = stage.kind().name().to_owned();
        record.key.version = 0;
        record.key.config = parts.config;
        record.key.inputs = inputs
            .iter()
            .map(|(role, input)| ((*role).to_owned(), input.artifact))
            .collect();
        record.key.files = IndexMap::new();
        record.figures = IndexMap::new();
        record.provenance.stage = format!("earlier-{}", stage.kind().name());
        record.provenance.config = key::settings(stage).unwrap();
        record.provenance.started = "2026-01-31T09:05:07.123Z".to_owned();
        record.provenance.seconds = seconds;
        record.provenance.inputs = inputs
            .iter()
            .map(|(role, input)| InputOrigin {
                role: (*role).to_owned(),
                stage: input.provenance.stage.clone(),
                kind: input.key.kind.clone(),
                key: input.key.digest(),
                artifact: input.artifact,
                content: None,
            })
            .collect();
        change(&mut record);
        record.artifact = Digest::of(record.to_text().unwrap().as_bytes());
        let path = self.store.record_path(&record.key.kind, &record.key.digest());
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, record.to_text().unwrap()).unwrap();
        record
    }

    /// Records of all stages of a manifest, of which those with a network took [`SECONDS_OF_A_TOKEN`] for each token.
    fn all_ran(&self, manifest: &Manifest) {
        let stage = |name: &str| &manifest.stages[name];
        let figure = |name: &'static str, value: &'static str| {
            move |record: &mut Record| drop(record.figures.insert(name.to_owned(), value.to_owned()))
        };
        let text = self.ran(stage("text"), 2.0, &[], |record| {
            figure("bytes", "500")(record);
            record.provenance.files = vec![crate::store::ExternalFile {
                field: "input/files".to_owned(),
                path: "b.txt".to_owned(),
                bytes: 500,
                digest: Digest::of(b"b"),
            }];
        });
        let tokens = self.ran(stage("tokens"), 3.0, &[("from", &text)], figure("tokens", "500"));
        let rows = self.ran(
            stage("rows"),
            4.0,
            &[("from", &tokens)],
            figure("validation rows", "50"),
        );
        // 100 steps of 8 rows of 32 tokens.
        let model = self.ran(
            stage("model"),
            25_600.0 * SECONDS_OF_A_TOKEN,
            &[("from", &rows)],
            |_| (),
        );
        // 50 rows, 2 draws.
        let inputs = [("model", &model), ("data", &rows)];
        self.ran(stage("bound"), 3_200.0 * SECONDS_OF_A_TOKEN, &inputs, |_| ());
        let calls = network_calls(&Objective::default(), &Objective::default().samplers()[0], 16, 32);
        self.ran(
            stage("samples"),
            10.0 * calls * 32.0 * SECONDS_OF_A_TOKEN,
            &[("model", &model)],
            |_| (),
        );
    }

    fn plan(&self, manifest: &Manifest) -> (Plan, Sources<'_>) {
        let sources = Sources::new(manifest, &self.store, None);
        let plan = Plan::new(manifest, self.folder.path(), &Selection::default(), &sources).unwrap();
        (plan, sources)
    }

    fn estimates(&self, manifest: &Manifest, place: &RunPlace) -> HashMap<String, StageEstimate> {
        let (plan, sources) = self.plan(manifest);
        let from = vec![None; plan.stages.len()];
        let estimates = PlanEstimator::new(&plan, &sources, place)
            .estimates(&from)
            .unwrap();
        estimates
            .into_iter()
            .map(|estimate| (plan.stages[estimate.index].name.clone(), estimate))
            .collect()
    }
}

fn seconds(estimate: &StageEstimate) -> f64 {
    estimate.time.as_ref().unwrap().seconds
}

fn is_near(found: f64, expected: f64) -> bool {
    (found / expected - 1.0).abs() < 1e-9
}

#[test]
fn estimate_of_a_known_speed_is_the_known_time() {
    let project = Project::new();
    project.all_ran(&manifest(&[]));
    let twice = manifest(&[
        ("model/steps", json!(250)),
        ("model/learning_rate", json!(1e-5)),
        ("bound/rows", json!(20)),
        ("bound/draws", json!(8)),
        ("samples/count", json!(30)),
    ]);
    let found = project.estimates(&twice, &place());
    // 1,000 bytes after 500 in 2 seconds and 3 seconds.
    assert!(is_near(seconds(&found["text"]), 4.0), "{:?}", found["text"]);
    assert!(is_near(seconds(&found["tokens"]), 6.0), "{:?}", found["tokens"]);
    let model = &found["model"];
    assert_eq!((model.tokens, model.steps), (Some(64_000.0), Some((0, 250))));
    assert!(is_near(seconds(model), 64.0), "{model:?}");
    let time = model.time.as_ref().unwrap();
    assert_eq!((time.runs, time.range), (1, None));
    assert_eq!(time.basis, "from `earlier-train` of 2026-01-31");
    // How many tokens and rows there will be is not known: these stages never ran in this pipeline.
    assert_eq!(found["rows"].time, Err(UnknownTime::Amount));
    let unlimited = project.estimates(&manifest(&[("bound/draws", json!(8))]), &place());
    assert_eq!(unlimited["bound"].time, Err(UnknownTime::Amount));
    // 20 rows at most, 8 draws.
    assert!(
        is_near(seconds(&found["bound"]), 5_120.0 * SECONDS_OF_A_TOKEN),
        "{:?}",
        found["bound"]
    );
    let samples = &found["samples"];
    let calls = network_calls(&Objective::default(), &Objective::default().samplers()[0], 16, 32);
    assert!(
        is_near(seconds(samples), 30.0 * calls * 32.0 * SECONDS_OF_A_TOKEN),
        "{samples:?}"
    );
}

/// The operations of half of `nano`'s steps are half of the operations, at another shape's speed.
#[test]
fn estimate_of_another_shape_is_scaled_by_operations() {
    let project = Project::new();
    project.all_ran(&manifest(&[]));
    let tiny = manifest(&[("model/shape", json!("tiny")), ("rows/length", json!(128))]);
    let found = project.estimates(&tiny, &place());
    let [nano, tiny] = ["nano", "tiny"].map(|name| SHAPES.find(name).unwrap());
    let mut costs = OperationCosts::default();
    let [less, more] = [nano, tiny].map(|shape| costs.training(shape, &Objective::default()));
    // 100 steps of 8 rows of 128 tokens.
    let expected = 102_400.0 * more / less * SECONDS_OF_A_TOKEN;
    let model = &found["model"];
    assert!(is_near(seconds(model), expected), "{model:?}, {expected}");
    assert!(is_near(model.flops.unwrap(), 102_400.0 * more));
    let basis = &model.time.as_ref().unwrap().basis;
    assert_eq!(
        basis,
        "by operations, from `earlier-train` (shape `nano`) of 2026-01-31"
    );
}

#[test]
fn estimate_takes_no_speed_of_another_machine_device_or_number_of_threads() {
    let project = Project::new();
    let manifest = manifest(&[]);
    project.all_ran(&manifest);
    let changed = self::manifest(&[("model/learning_rate", json!(1e-5))]);
    let time = |place: &RunPlace| project.estimates(&changed, place)["model"].time.clone();
    assert!(time(&place()).is_ok());
    let there = Machine {
        host: "another".to_owned(),
        ..Machine::this()
    };
    for other in [
        RunPlace {
            machine: there,
            ..place()
        },
        RunPlace {
            device: "cuda: a GPU".to_owned(),
            ..place()
        },
        RunPlace {
            threads: 3,
            ..place()
        },
    ] {
        assert_eq!(time(&other), Err(UnknownTime::NeverMeasured), "{other:?}");
    }
}

#[test]
fn estimate_is_the_median_of_the_newest_runs_with_their_range() {
    let project = Project::new();
    let rows = project.ran(&manifest(&[]).stages["rows"], 1.0, &[], |_| ());
    // The oldest of six is left out, and so is one beside which others ran.
    for (day, seconds, beside) in [
        (1, 9_000.0, false),
        (2, 50.0, false),
        (3, 10.0, false),
        (4, 40.0, false),
        (5, 30.0, false),
        (6, 20.0, false),
        (7, 9_000.0, true),
    ] {
        let stage = manifest(&[("model/seed", json!(day))]).stages["model"].clone();
        project.ran(&stage, seconds, &[("from", &rows)], |record| {
            record.key.seed = Some(day);
            record.provenance.started = format!("2026-02-0{day}T00:00:00.000Z");
            if beside {
                record.provenance.beside = vec!["other".to_owned()];
            }
        });
    }
    let found = project.estimates(&manifest(&[]), &place());
    let time = found["model"].time.as_ref().unwrap();
    assert!(is_near(time.seconds, 30.0), "{time:?}");
    let (low, high) = time.range.unwrap();
    assert!(is_near(low, 10.0) && is_near(high, 50.0), "{time:?}");
    assert_eq!(
        time.basis,
        "from `earlier-train` of 2026-02-06 and 4 earlier runs"
    );
}

/// What a run takes besides its network occurs with each validation, and does not grow with the steps between them.
#[test]
fn estimate_of_a_long_training_is_not_that_of_a_short_one_many_times() {
    let project = Project::new();
    let rows = project.ran(&manifest(&[]).stages["rows"], 1.0, &[], |_| ());
    let stage = manifest(&[("model/seed", json!(5)), ("model/steps", json!(1))]).stages["model"].clone();
    // A step of 256 tokens in half a second; 4.5 seconds for the validation at the end and for files.
    project.ran(&stage, 5.0, &[("from", &rows)], |record| {
        drop(
            record
                .provenance
                .facts
                .insert("tokens_per_second".to_owned(), json!(512.0)),
        );
    });
    let seconds = |steps: u32, every: u32, shape: &str, length: u32| {
        let changes = [
            ("model/steps", json!(steps)),
            ("model/validation_every", json!(every)),
            ("model/shape", json!(shape)),
            ("rows/length", json!(length)),
        ];
        seconds(&project.estimates(&manifest(&changes), &place())["model"])
    };
    assert!(is_near(seconds(1000, 0, "nano", 32), 500.0 + 4.5));
    // Four validations, and once more.
    assert!(is_near(seconds(1000, 250, "nano", 32), 500.0 + 5.0 * 2.25));
    let [nano, tiny] = ["nano", "tiny"].map(|name| SHAPES.find(name).unwrap());
    let mut costs = OperationCosts::default();
    let [less, more] = [nano, tiny].map(|shape| costs.training(shape, &Objective::default()));
    let expected = (4.0 * 500.0 + 4.5) * more / less;
    assert!(is_near(seconds(1000, 0, "tiny", 128), expected));
}

/// The time of a resumed run is that of the steps after the one that it resumed from.
#[test]
fn estimate_counts_the_steps_that_a_run_made() {
    let project = Project::new();
    let rows = project.ran(&manifest(&[]).stages["rows"], 1.0, &[], |_| ());
    let stage = manifest(&[("model/seed", json!(5))]).stages["model"].clone();
    project.ran(&stage, 20.0, &[("from", &rows)], |record| {
        drop(
            record
                .provenance
                .facts
                .insert("resumed_from".to_owned(), json!(80)),
        );
    });
    let (manifest, place) = (manifest(&[]), place());
    let (plan, sources) = project.plan(&manifest);
    let mut from = vec![None; plan.stages.len()];
    from[3] = Some(90);
    let estimates = PlanEstimator::new(&plan, &sources, &place)
        .estimates(&from)
        .unwrap();
    // 20 steps in 20 seconds; 10 are left.
    assert_eq!(estimates[3].steps, Some((90, 100)));
    assert!(is_near(seconds(&estimates[3]), 10.0), "{:?}", estimates[3]);
}

#[test]
fn estimate_takes_a_measurement_where_no_run_is_known() {
    let project = Project::new();
    let (manifest, place) = (manifest(&[("model/dropout", json!(0.1))]), place());
    let (plan, sources) = project.plan(&manifest);
    let from = vec![None; plan.stages.len()];
    let mut estimator = PlanEstimator::new(&plan, &sources, &place);
    let before = estimator.estimates(&from).unwrap();
    assert_eq!(before[3].time, Err(UnknownTime::NeverMeasured));
    assert_eq!(before[0].time, Err(UnknownTime::NeverRan));
    let wanted = estimator.measurable(&before);
    let kinds: Vec<_> = wanted.iter().map(|one| one.kind).collect();
    // How many rows are evaluated is not known.
    assert_eq!(kinds, [StageKind::Train, StageKind::Sample]);
    for of in wanted {
        let tokens_per_second = if of.kind == StageKind::Train { 512.0 } else { 80.0 };
        let measurement = Measurement {
            of,
            tokens_per_second,
        };
        estimator.add(&measurement).unwrap();
    }
    let after = estimator.estimates(&from).unwrap();
    assert!(is_near(seconds(&after[3]), 25_600.0 / 512.0), "{:?}", after[3]);
    assert_eq!(
        after[3].time.as_ref().unwrap().basis,
        "measured now, the network alone"
    );
    // 10 rows of 32 tokens.
    assert!(is_near(seconds(&after[5]), 320.0 / 80.0), "{:?}", after[5]);
}

#[test]
fn network_calls_of_the_cached_sampler_are_those_in_which_a_token_is_drawn() {
    let calls = |kind: &str, steps, length| {
        let sampler: Sampler = serde_json::from_value(json!({ "kind": kind })).unwrap();
        network_calls(&Objective::default(), &sampler, steps, length)
    };
    // By hand: of 2 steps and 2 positions, both fall into one step with probability 1/2.
    assert!(is_near(calls("cached", 2, 2), 1.5));
    assert!(is_near(calls("cached", 1, 32), 1.0));
    assert!(calls("cached", 1_000_000, 32) > 31.99);
    assert!(is_near(calls("ancestral", 128, 32), 128.0));
    assert!(is_near(calls("autoregressive", 128, 32), 1.0));
}

/// What a sample of `nano`, with rows of 32 tokens, has to do.
fn amount_of_sample(settings: Value, rows: Option<f64>) -> Option<WorkAmount> {
    let model = ConsumedStage {
        role: "model".to_owned(),
        stage: manifest(&[]).stages["model"].clone(),
        figures: HashMap::new(),
        bytes: None,
    };
    let mut sample = json!({ "kind": "sample", "model": "model", "count": 10, "steps": 16 });
    for (field, value) in settings.as_object().unwrap() {
        sample[field] = value.clone();
    }
    let stage: Stage = serde_json::from_value(sample).unwrap();
    let subject = WorkSubject {
        stage: &stage,
        inputs: &[model],
        bytes: None,
        from_step: 0,
        rows,
    };
    subject.amount(&mut OperationCosts::default())
}

#[test]
fn amount_of_a_sample_counts_given_texts_windows_and_guidance() {
    let tokens = |settings: Value, rows| amount_of_sample(settings, rows).unwrap().tokens.unwrap();
    let ancestral = json!({ "sampler": { "kind": "ancestral" } });
    // 10 rows of 32 tokens, 16 steps.
    assert!(is_near(tokens(ancestral, None), 5_120.0));
    let given = json!({
        "sampler": { "kind": "ancestral" }, "guidance": 1.5,
        "given": { "file": "prompts.txt" }
    });
    // Three texts; each step asks twice.
    assert!(is_near(tokens(given.clone(), Some(30.0)), 2.0 * 3.0 * 5_120.0));
    assert_eq!(amount_of_sample(given, None), None);
    // 100 tokens: 32, and five windows of 16 new ones, of 4 steps each.
    let windows = json!({ "sampler": {
        "kind": "semi_autoregressive", "length": 100, "window_steps": 4, "window": "ancestral"
    } });
    let amount = amount_of_sample(windows, None).unwrap();
    assert!(
        is_near(amount.tokens.unwrap(), 320.0 * (16.0 + 5.0 * 4.0)),
        "{amount:?}"
    );
    assert_eq!(amount.recorded_tokens, Some(1_000.0));
}

/// How far a text goes, and how often it asks, is seen when it is drawn.
#[test]
fn amount_of_a_sample_states_no_operations_where_the_model_decides() {
    for sampler in [
        json!({ "kind": "semi_autoregressive", "until": "end_of_text", "max_length": 100 }),
        json!({ "kind": "threshold" }),
    ] {
        let amount = amount_of_sample(json!({ "sampler": sampler }), None).unwrap();
        assert_eq!((amount.tokens, amount.flops), (None, None), "{amount:?}");
        assert!(amount.units > 0.0, "{amount:?}");
    }
}

/// Pseudo-perplexity asks about one position a pass, and a count about half of them.
#[test]
fn operations_of_an_evaluation_are_those_of_the_positions_that_it_asks_about() {
    let nano = SHAPES.find("nano").unwrap();
    let mut costs = OperationCosts::default();
    let objective = Objective::from_argument("mlm").unwrap();
    let mut of_row = |estimator| costs.evaluation(nano, &objective, estimator) * 32.0;
    // By hand, as in `model/flops.rs`: without a noise level, 6,498,304 − 75,776 for 16 positions. Each takes 20 · 4096 and
    // 32 pairs at 4 · 64 in the last block, and 2 · 64 · 512 in the output layer.
    let count = 6_422_528.0;
    assert!(is_near(of_row(Estimator::Count), count));
    assert!(is_near(
        of_row(Estimator::Pseudo),
        count - 15.0 * (81_920.0 + 8_192.0 + 65_536.0)
    ));
}

fn estimate(index: usize, seconds: Option<f64>, steps: Option<(u64, u64)>) -> StageEstimate {
    StageEstimate {
        index,
        tokens: None,
        flops: None,
        bytes: None,
        memory: 1,
        steps,
        time: seconds.ok_or(UnknownTime::NeverRan).map(|seconds| TimeEstimate {
            seconds,
            range: None,
            runs: 1,
            basis: String::new(),
        }),
    }
}

#[test]
fn budget_is_spent_in_the_order_of_the_run() {
    let stages = [
        estimate(0, Some(10.0), None),
        estimate(2, Some(100.0), Some((50, 250))),
        estimate(3, Some(1.0), None),
    ];
    let found = TimeBudget::of(&stages, 40.3);
    let part = TrainedShare {
        index: 2,
        steps: 60,
        of: 200,
        reached: 110,
    };
    assert_eq!(
        (found.whole, found.part, found.left),
        (vec![0], Some(part), vec![2, 3])
    );
    assert!(is_near(found.seconds, 40.0));
    let found = TimeBudget::of(&stages, 111.0);
    assert_eq!(
        (found.whole, found.part, found.left),
        (vec![0, 2, 3], None, vec![])
    );
    let found = TimeBudget::of(&stages, 10.2);
    assert_eq!((found.whole, found.part, found.left), (vec![0], None, vec![2, 3]));
    let found = TimeBudget::of(&stages, 9.0);
    assert_eq!((found.whole, found.left), (vec![], vec![0, 2, 3]));
    let unknown = [
        estimate(0, Some(1.0), None),
        estimate(1, None, None),
        estimate(2, Some(1.0), None),
    ];
    let found = TimeBudget::of(&unknown, 100.0);
    assert_eq!(
        (found.whole, found.unknown, found.left),
        (vec![0], Some(1), vec![1, 2])
    );
}

#[test]
fn amount_of_a_judge_is_that_of_its_samples() {
    let stages = manifest(&[]).stages;
    let consumed = |role: &str, name: &str| ConsumedStage {
        role: role.to_owned(),
        stage: stages[name].clone(),
        figures: HashMap::new(),
        bytes: None,
    };
    let judge: Stage = serde_json::from_value(json!({
        "kind": "judge",
        "of": [{ "stage": "samples", "point": {} }, { "stage": "samples", "point": {} }],
        "model": "model"
    }))
    .unwrap();
    let inputs = [
        consumed("of/0", "samples"),
        consumed("of/0/model", "model"),
        consumed("of/1", "samples"),
        consumed("of/1/model", "model"),
        consumed("model", "model"),
    ];
    let subject = WorkSubject {
        stage: &judge,
        inputs: &inputs,
        bytes: None,
        from_step: 0,
        rows: None,
    };
    let amount = subject.amount(&mut OperationCosts::default()).unwrap();
    assert_eq!((amount.units, amount.tokens), (20.0, Some(640.0)));
}
