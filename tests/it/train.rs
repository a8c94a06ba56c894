//! The stages train, evaluate and sample with the real network at shape `nano`, on text made up here.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};

use mdlm::error::{Kind, Result};
use mdlm::event::{Cancel, Event, Sink};
use mdlm::manifest::Stage;
use mdlm::model::Device;
use mdlm::stages::evaluate::Evaluation;
use mdlm::stages::sample::{SampleLine, Summary};
use mdlm::stages::{self, Context, StageOutput};
use mdlm::store::checkpoints::Checkpoints;
use serde_json::{Value, json};
use tempfile::TempDir;

/// A place for artifacts, and the rows that the tests share.
pub struct Lab {
    folder: TempDir,
    next: AtomicU32,
}

/// What happens to a stage while it runs.
#[derive(Default)]
struct Events {
    cancel: Cancel,
    /// Ask to end at the first sign of progress.
    stop: bool,
    /// What other runs have left, where one may resume from them.
    earlier: Option<Vec<PathBuf>>,
    notes: std::sync::Mutex<Vec<String>>,
}

impl Sink for Events {
    fn emit(&self, _: &str, event: Event) {
        match event {
            Event::Progress(_) if self.stop => self.cancel.cancel(),
            Event::Note(text) | Event::Warning(text) => self.notes.lock().unwrap().push(text),
            _ => {}
        }
    }
}

impl Lab {
    pub fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            next: AtomicU32::new(0),
        }
    }

    fn folder(&self, what: &str) -> PathBuf {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let path = self.folder.path().join(format!("{number}-{what}"));
        std::fs::create_dir(&path).unwrap();
        path
    }

    /// Runs a stage into a new folder, its checkpoints below `work`.
    fn run_with(
        &self,
        config: &Value,
        inputs: &[(&'static str, &Path)],
        work: &Path,
        threads: usize,
        events: &Events,
    ) -> Result<(PathBuf, StageOutput)> {
        let stage: Stage = serde_json::from_value(config.clone()).unwrap();
        let output = self.folder(stage.kind().name());
        let inputs: Vec<_> = inputs
            .iter()
            .map(|&(role, path)| (role, path.to_owned()))
            .collect();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .unwrap();
        let outcome = pool.install(|| {
            let checkpoints = Checkpoints::new(work, &self.folder.path().join("checkpoints"));
            let context = Context {
                name: "stage",
                base: self.folder.path(),
                inputs: &inputs,
                output: &output,
                work,
                checkpoints: &match events.earlier.clone() {
                    Some(folders) => checkpoints.with_earlier(folders),
                    None => checkpoints,
                },
                piped: &[],
                downloads: &self.folder.path().join("downloads"),
                seed: 3,
                device: Device::Cpu,
                threads,
                ranks: &(std::sync::Arc::new(mdlm::ranks::Alone) as _),
                sink: events,
                cancel: &events.cancel,
                room: None,
            };
            stages::run(&stage, &context)
        })?;
        Ok((output, outcome))
    }

    pub fn run(&self, config: &Value, inputs: &[(&'static str, &Path)]) -> PathBuf {
        let work = self.folder("work");
        self.run_with(config, inputs, &work, 2, &Events::default())
            .unwrap()
            .0
    }

    pub fn refused(&self, config: &Value, inputs: &[(&'static str, &Path)]) -> String {
        let work = self.folder("work");
        let error = self
            .run_with(config, inputs, &work, 1, &Events::default())
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        format!("{error}; hint: {}", error.hint_text().unwrap_or("none"))
    }

    /// The folder that relative paths begin at.
    pub fn base(&self) -> &Path {
        self.folder.path()
    }

    /// Rows of `length` tokens.
    pub fn rows(&self, length: u32, wrap: bool) -> PathBuf {
        let text = self.folder.path().join("text.txt");
        let (names, verbs) = (["ada", "bob", "eve", "kim"], ["sees", "likes", "helps"]);
        let mut lines = String::new();
        for i in 0..900 {
            let (a, b, v) = (names[i % 4], names[i / 4 % 4], verbs[i / 16 % 3]);
            writeln!(lines, "{a} {v} {b} and {b} {v} {a} on day {i}").unwrap();
        }
        std::fs::write(&text, lines).unwrap();
        let source = self.run(
            &json!({"kind": "source", "input": {"kind": "files", "files": ["text.txt"]}}),
            &[],
        );
        let tokens = self.run(
            &json!({"kind": "tokenize", "from": "s",
                    "tokenizer": {"kind": "train_bpe", "vocabulary_size": 320}}),
            &[("from", &source)],
        );
        self.run(
            &json!({"kind": "pack", "from": "t", "length": length, "wrap": wrap, "validation": 0.1}),
            &[("from", &tokens)],
        )
    }
}

/// The rows, and a model trained on them for 60 steps.
pub fn trained() -> &'static (Lab, PathBuf, PathBuf) {
    static TRAINED: OnceLock<(Lab, PathBuf, PathBuf)> = OnceLock::new();
    TRAINED.get_or_init(|| {
        let lab = Lab::new();
        let rows = lab.rows(32, true);
        let model = lab.run(&train(&json!({"steps": 60, "dropout": 0.0})), &[("from", &rows)]);
        (lab, rows, model)
    })
}

pub fn train(changes: &Value) -> Value {
    let mut config = json!({
        "kind": "train", "from": "rows", "shape": "nano", "steps": 9, "batch": 8, "learning_rate": 3e-3,
        "warmup_steps": 4, "ema": 0.9, "validation_every": 4, "validation_rows": 10, "checkpoint_every": 3
    });
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

/// Every file of an artifact.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap())
        .map(|entry| {
            (
                entry.file_name().into_string().unwrap(),
                std::fs::read(entry.path()).unwrap(),
            )
        })
        .collect()
}

pub fn read<T: serde::de::DeserializeOwned>(folder: &Path, name: &str) -> T {
    serde_json::from_slice(&std::fs::read(folder.join(name)).unwrap()).unwrap()
}

/// More steps or other validations do not change the steps: an unfinished training resumes, and a note says which validations
/// it lacks.
#[test]
fn resume_takes_an_unfinished_training_to_more_steps_and_other_validations() {
    let lab = Lab::new();
    let rows = lab.rows(32, true);
    let work = lab.folder("work");
    let stop = |config: &Value, work: &Path| {
        let events = Events {
            stop: true,
            ..Events::default()
        };
        let error = lab
            .run_with(&train(config), &[("from", &rows)], work, 2, &events)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    };
    let short = json!({"validation_every": 2, "validation_rows": 10});
    // It ends after its first step each time.
    for _ in 0..5 {
        stop(&short, &work);
    }
    for (change, lacks) in [
        (json!({"steps": 12}), None),
        (json!({"steps": 12, "validation_every": 4}), None),
        (json!({"validation_every": 0}), None),
        (
            json!({"steps": 12, "validation_every": 3}),
            Some("up to step 5 it was validated every 2 steps, not every 3"),
        ),
        (
            json!({"validation_rows": 7}),
            Some("up to step 5 it was validated on 10 rows, not 7"),
        ),
    ] {
        let mut config = short.clone();
        for (name, value) in change.as_object().unwrap() {
            config[name] = value.clone();
        }
        let events = Events {
            earlier: Some(vec![work.clone()]),
            ..Events::default()
        };
        let fresh = lab.run(&train(&config), &[("from", &rows)]);
        let own = lab.folder("work");
        let (made, _) = lab
            .run_with(&train(&config), &[("from", &rows)], &own, 2, &events)
            .unwrap();
        let notes = events.notes.lock().unwrap().clone();
        let note = lacks.map_or_else(String::new, |lacks| format!("; {lacks}"));
        assert!(
            notes.contains(&format!(
                "resuming from the checkpoint of step 5 of an earlier run{note}"
            )),
            "{change}: {notes:?}"
        );
        let (mut made, mut fresh) = (files(&made), files(&fresh));
        if lacks.is_some() {
            assert_ne!(made.remove("metrics.jsonl"), fresh.remove("metrics.jsonl"));
            // It has the digest of the other.
            assert_ne!(made.remove("state.json"), fresh.remove("state.json"));
        }
        for (name, bytes) in &fresh {
            assert!(made[name] == *bytes, "{change}: {name}");
        }
    }
    // Learning rates that depend on the number of steps differ: a note says so.
    let work = lab.folder("work");
    let mut cosine = short.clone();
    (cosine["schedule"], cosine["warmup_steps"]) = (json!("cosine"), json!(0));
    stop(&cosine, &work);
    cosine["steps"] = json!(12);
    let events = Events {
        earlier: Some(vec![work]),
        ..Events::default()
    };
    let own = lab.folder("work");
    lab.run_with(&train(&cosine), &[("from", &rows)], &own, 2, &events)
        .unwrap();
    let notes = events.notes.lock().unwrap().clone();
    assert!(
        notes
            .iter()
            .any(|note| note.starts_with("training starts from step 0")
                && note.contains("with the schedule `cosine`")),
        "{notes:?}"
    );
}

/// Even in its own folder, or among what others have left, a training finds no state that another objective has come to.
#[test]
fn resume_refuses_checkpoints_of_other_objectives() {
    let lab = Lab::new();
    let rows = lab.rows(32, true);
    let work = lab.folder("work");
    let config = |objective: Value| {
        train(&json!({"steps": 4, "validation_every": 0, "validation_rows": 2, "objective": objective}))
    };
    let events = Events {
        stop: true,
        ..Events::default()
    };
    let mdlm = config(json!({"kind": "mdlm"}));
    let error = lab
        .run_with(&mdlm, &[("from", &rows)], &work, 2, &events)
        .unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    for objective in [
        json!({"kind": "sedd"}),
        json!({"kind": "d3pm"}),
        json!({"kind": "ar"}),
        json!({"kind": "mlm"}),
        json!({"kind": "mdlm", "weighting": "cross_entropy"}),
    ] {
        let config = config(objective.clone());
        let fresh = files(&lab.run(&config, &[("from", &rows)]));
        let earlier = Events {
            earlier: Some(vec![work.clone()]),
            ..Events::default()
        };
        let (made, _) = lab
            .run_with(&config, &[("from", &rows)], &lab.folder("work"), 2, &earlier)
            .unwrap();
        assert!(files(&made) == fresh, "{objective}");
        let own = lab.folder("work");
        for entry in std::fs::read_dir(&work).unwrap() {
            let entry = entry.unwrap();
            let state = own.join(entry.file_name());
            std::fs::create_dir(&state).unwrap();
            for (name, bytes) in files(&entry.path()) {
                std::fs::write(state.join(name), bytes).unwrap();
            }
        }
        let events = Events::default();
        let (made, _) = lab
            .run_with(&config, &[("from", &rows)], &own, 2, &events)
            .unwrap();
        assert!(files(&made) == fresh, "{objective}");
        let notes = [earlier, events].map(|events| events.notes.lock().unwrap().clone());
        assert!(
            !notes.concat().iter().any(|note| note.starts_with("resuming")),
            "{objective}: {notes:?}"
        );
        assert_eq!(
            notes[1][0],
            "the checkpoint of step 1 cannot be used: it belongs to another run"
        );
    }
}

#[test]
fn resume_ends_in_the_same_bits_for_any_threads_and_micro_batches() {
    let lab = Lab::new();
    let rows = lab.rows(32, true);
    // Dropout is on: its bits must not depend on micro-batches either.
    let whole = lab.run(&train(&json!({"dropout": 0.1})), &[("from", &rows)]);
    let work = lab.folder("work");
    for (micro_batch, threads) in [(2, 1), (8, 3)] {
        let events = Events {
            stop: true,
            ..Events::default()
        };
        let config = train(&json!({"dropout": 0.1, "micro_batch": micro_batch}));
        let error = lab
            .run_with(&config, &[("from", &rows)], &work, threads, &events)
            .unwrap_err();
        assert_eq!(error.kind(), Kind::Interrupted, "{error}");
    }
    let events = Events::default();
    let config = train(&json!({"dropout": 0.1, "micro_batch": 1, "checkpoint_every": 100}));
    let (resumed, _) = lab
        .run_with(&config, &[("from", &rows)], &work, 2, &events)
        .unwrap();
    assert_eq!(
        events.notes.lock().unwrap()[0],
        "resuming from the checkpoint of step 2"
    );
    let (whole, resumed) = (files(&whole), files(&resumed));
    assert_eq!(
        whole.keys().collect::<Vec<_>>(),
        resumed.keys().collect::<Vec<_>>()
    );
    for (name, content) in &whole {
        assert!(*content == resumed[name], "{name} differs");
    }
    let metrics = String::from_utf8(whole["metrics.jsonl"].clone()).unwrap();
    let lines: Vec<Value> = metrics
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let steps: Vec<u64> = lines.iter().map(|line| line["step"].as_u64().unwrap()).collect();
    assert_eq!(
        steps,
        [1, 2, 3, 4, 4, 5, 6, 7, 8, 8, 9, 9],
        "validations after 4, 8 and 9"
    );
    assert!(lines[11]["validation"]["bits_per_byte"].as_f64().unwrap() > 0.0);
}

#[test]
fn train_learns_and_both_estimators_bound_it_alike() {
    let (lab, rows, model) = trained();
    let evaluate = |estimator: &str| -> Evaluation {
        let config =
            json!({"kind": "evaluate", "model": "m", "data": "d", "estimator": estimator, "draws": 8});
        let output = lab.run(&config, &[("model", model), ("data", rows)]);
        assert!(
            std::fs::read_to_string(output.join("evaluation.md"))
                .unwrap()
                .contains("upper bound")
        );
        read(&output, "evaluation.json")
    };
    let (time, count) = (evaluate("time"), evaluate("count"));
    let error = time
        .monte_carlo_error
        .unwrap()
        .hypot(count.monte_carlo_error.unwrap());
    let difference = time.nats_per_token.value - count.nats_per_token.value;
    assert!(difference.abs() < 3.0 * error, "{difference} ± {error}");
    // The uniform distribution over 319 tokens has 5.77 nats.
    assert!(time.nats_per_token.high.unwrap() < 4.5, "{time:?}");
    assert!((time.perplexity.value.ln() - time.nats_per_token.value).abs() < 1e-12);
    assert_eq!(time.rows, time.rows_of_split);
    assert_eq!(time.tokens, time.rows * 32);
}

#[test]
fn sample_cached_and_ancestral_are_the_same_texts() {
    let (lab, _, model) = trained();
    let sample = |sampler: &str| -> (Vec<SampleLine>, Summary) {
        let config =
            json!({"kind": "sample", "model": "m", "count": 5, "steps": 40, "sampler": {"kind": sampler}});
        let output = lab.run(&config, &[("model", model)]);
        let lines = std::fs::read_to_string(output.join("samples.jsonl")).unwrap();
        let lines = lines
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        (lines, read(&output, "sample.json"))
    };
    let ((cached, fewer), (ancestral, more)) = (sample("cached"), sample("ancestral"));
    assert_eq!(cached.len(), 5);
    for (a, b) in cached.iter().zip(&ancestral) {
        assert_eq!((&a.tokens, &a.text), (&b.tokens, &b.text));
        assert!(a.network_calls <= 32 && b.network_calls <= 40 && a.network_calls <= b.network_calls);
        assert!(a.tokens.len() == 32 && !a.text.is_empty());
    }
    assert!(fewer.network_calls < more.network_calls);
}

#[test]
fn train_takes_padded_rows_and_time_conditioning() {
    let lab = Lab::new();
    let rows = lab.rows(32, false);
    let config = train(&json!({
        "steps": 3, "objective": {"kind": "mdlm", "time_conditioning": true, "noise": {"kind": "cosine"}}
    }));
    let model = lab.run(&config, &[("from", &rows)]);
    lab.run(
        &json!({"kind": "sample", "model": "m", "count": 2, "steps": 3, "sampler": {"kind": "ancestral"}}),
        &[("model", &model)],
    );
    let config = json!({"kind": "evaluate", "model": "m", "data": "d", "estimator": "count"});
    let refusal = lab.refused(&config, &[("model", &model), ("data", &rows)]);
    assert!(
        refusal.starts_with(
            "estimator `count` does not fit the model: it needs a model without time conditioning"
        ),
        "{refusal}"
    );
    let config = json!({"kind": "evaluate", "model": "m", "data": "d", "weights": "raw"});
    let output = lab.run(&config, &[("model", &model), ("data", &rows)]);
    let found: Evaluation = read(&output, "evaluation.json");
    assert!(found.tokens < found.rows * 32, "padding does not count");
    assert!(found.padding_excluded && found.nats_per_token.value.is_finite());
}

#[test]
fn train_refuses_what_does_not_fit_with_the_way_out() {
    let (lab, rows, model) = trained();
    let long = lab.rows(64, true);
    insta::assert_snapshot!(
        [
            lab.refused(&train(&json!({})), &[("from", &long)]),
            lab.refused(&train(&json!({"shape": "text8-small"})), &[("from", rows)]),
            lab.refused(&train(&json!({"micro_batch": 3})), &[("from", rows)]),
            lab.refused(&json!({"kind": "evaluate", "model": "m", "data": "d"}), &[("model", model), ("data", &long)]),
            lab.refused(
                &json!({"kind": "evaluate", "model": "m", "data": "d", "grammar": "g"}),
                &[("model", model), ("data", rows), ("grammar", &text_source(lab))]
            ),
        ]
        .join("\n"),
        @r"
    the rows have 64 tokens, shape `nano` has 32; hint: set `length` of the pack stage to 32
    the rows have 32 tokens, shape `text8-small` has 256; hint: set `length` of the pack stage to 256
    `micro_batch` 3 does not divide `batch` 8; hint: leave it out: it is then chosen to fit
    the rows have 64 tokens, the model's have 32; hint: set `length` of the pack stage to 32
    the stage that `grammar` names is not a synthetic source: its entropy is not known; hint: name a source stage whose input is of kind `synthetic`, or leave `grammar` out
    "
    );
}

/// A source that has no grammar.
fn text_source(lab: &Lab) -> PathBuf {
    lab.run(
        &json!({"kind": "source", "input": {"kind": "files", "files": ["text.txt"]}}),
        &[],
    )
}
