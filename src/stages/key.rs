//! What of a stage's settings decides its output, and so goes into its cache key.
//!
//! | in the key | not in the key |
//! |---|---|
//! | the stage's kind and the version of its code | names of stages and of the pipeline, `description`, `$schema` |
//! | every setting, with defaults spelt out, a shape with its dimensions | spelling: order of fields, white space, `1` or `1.0`, defaults written or not |
//! | the contents of the consumed artifacts, by role | which stage made them, and from what |
//! | of packed rows what they hold | the format and the size of the shards that they are in |
//! | the contents of files outside the store, in order | their names, folders and times |
//! | of a comparison what its rows are called: stages and swept values (of a judge stage too); which of them differ in seeds alone, and in which | |
//! | of a checkpoint the contents of its files, or the SHA-256 or URL of one that is downloaded | of a folder the files that do not belong to the model |
//! | the form that a file's name implies, where none is stated | the rest of its name |
//! | of a download its SHA-256, or its URL where it is not pinned by one, with what `exclude` takes out of a glob | where a pinned one comes from; whether it was brought by hand |
//! | what the name of a corpus, or of a published tokenizer, stands for | the name |
//! | | `source`: limits on what is read (`longest_record`, `largest_ratio`, `largest_buffer`, `max_bytes`); `exclude` of local files, since the files that are left are |
//! | the seed, where the stage draws random numbers | the seed of a stage that draws none |
//! | | `train`: `micro_batch`, `checkpoint_every`, `keep_checkpoints` |
//! | | `--device`, `--threads`, the machine, the store, the manifest's path |
//!
//! Of a training `validation_every` and `validation_rows` are in the key, since they decide what `metrics.jsonl` holds; but
//! they cannot change the weights, so that a training that differs in nothing else serves all the same
//! ([`Stage::beside_result`]).
//!
//! What is admitted: a device is not in the key although a GPU rounds otherwise than a CPU, and there computes in bf16 what
//! was trained in bf16; the artifact's provenance names both. The versions of libraries (of `tokenizers`, say) are not in the key: a developer who raises one that changes a
//! stage's output raises the stage's version.
//!
//! A field that comes later than the keys of its stage is in the key only where it is not at the default that keeps old
//! results: `skip_serializing_if` in the manifest leaves it out, as it does `bound`, `grains`, `sampler.grid` and `warmup_rates`. So artifacts
//! made before the field are found. A test holds the list of the fields that are in a key at their defaults; it does not
//! grow.
//!
//! Which settings are in the key at their defaults, which are not in it and when a seed is stand beside the settings of each
//! kind (`crate::manifest::stage`); the version of a stage's code, with its history in a comment, and what settings stand for
//! stand beside the code (`Run` in [`crate::stages`]).

use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::manifest::{FileReference, Stage};
use crate::store::ExternalFile;
use crate::store::key::canonical;

/// What a stage brings to its key by itself.
#[derive(Clone, Debug, PartialEq)]
pub struct Parts {
    /// The version of the stage's code.
    pub version: u32,
    /// The settings in the key, fields by name.
    pub config: Value,
    /// The effective seed, where the stage draws random numbers.
    pub seed: Option<u64>,
    /// The files outside the store that it reads, by the field that names them.
    pub files: Vec<FileReference>,
    /// Files from elsewhere whose content is known beforehand: in the key as if they had been read here.
    pub known: Vec<ExternalFile>,
}

/// What `stage` brings to its key, given the pipeline's seed.
///
/// # Errors
/// A bug: settings always have a JSON form.
pub fn parts(stage: &Stage, pipeline_seed: u64) -> Result<Parts> {
    let Value::Object(mut config) = settings(stage)? else {
        return Err(Error::internal(
            "compute a cache key: the settings are not an object",
        ));
    };
    config.shift_remove("kind");
    config.shift_remove("seed");
    remove(&mut config, "input/seed");
    let known = super::state_contents(stage, &mut config)?;
    for field in stage.not_in_key() {
        remove(&mut config, field);
    }
    let files = stage.files();
    for reference in &files {
        remove(&mut config, reference.field);
    }
    for reference in stage.references() {
        remove(&mut config, reference.field);
    }
    Ok(Parts {
        version: super::version(stage),
        config: canonical(Value::Object(config)),
        seed: stage.is_random().then(|| stage.seed(pipeline_seed)),
        files,
        known,
    })
}

/// The settings of a stage with every default spelt out, as the manifest would have them.
///
/// # Errors
/// A bug: settings always have a JSON form.
pub fn settings(stage: &Stage) -> Result<Value> {
    value_of(stage)
}

pub(super) fn value_of(settings: &impl serde::Serialize) -> Result<Value> {
    serde_json::to_value(settings)
        .map_err(|error| Error::internal(format!("spell out a stage's settings: {error}")))
}

/// Removes the field at a pointer such as `input/files`.
fn remove(config: &mut Map<String, Value>, pointer: &str) {
    match pointer.split_once('/') {
        None => drop(config.shift_remove(pointer)),
        Some((field, rest)) => {
            if let Some(Value::Object(inner)) = config.get_mut(field) {
                remove(inner, rest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::{SourceInput, StageKind};
    use crate::stages::state_names;

    fn stage(value: Value) -> Stage {
        serde_json::from_value(value).unwrap()
    }

    /// Of an evaluate or sample stage, the model is MDLM's.
    fn of(value: Value) -> Parts {
        let mut stage = stage(value);
        stage.fill_in(&crate::manifest::Objective::default());
        parts(&stage, 1).unwrap()
    }

    /// The fields in each kind's key, one by one: a new field of the manifest shows up here, for a decision.
    #[test]
    fn cache_key_has_these_settings_of_each_kind() {
        let keys = [
            json!({ "kind": "source", "input": { "kind": "files", "files": ["*.txt"] } }),
            json!({ "kind": "source", "input": { "kind": "files", "files": ["*.txt"] }, "count_words": true }),
            json!({ "kind": "source", "input": { "kind": "synthetic", "grammar": "g", "records": 9, "seed": 5 } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "file", "path": "t.json" } }),
            json!({ "kind": "tokenize", "from": "a",
                "tokenizer": { "kind": "gpt2", "vocabulary": "v", "merges": "m" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "bert", "vocabulary": "v" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "published", "name": "gpt2" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "published", "name": "bert-base-cased" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer":
                { "kind": "download", "url": "hf://o/n@main/t.json", "unpinned": true } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "train_bpe", "vocabulary_size": 512 } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "characters" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "stage", "stage": "b" } }),
            json!({ "kind": "pack", "from": "a", "length": 8 }),
            json!({ "kind": "pack", "from": "a", "length": 8, "stride": 3 }),
            json!({ "kind": "pack", "from": "a", "length": 8, "wrap": false, "scored": "last_word" }),
            json!({ "kind": "train", "from": "a", "shape": "nano", "steps": 10, "micro_batch": 4 }),
            json!({ "kind": "train", "from": "a", "init": "b", "shape": "nano", "steps": 10 }),
            json!({ "kind": "checkpoint", "file": "a", "shape": "nano", "tokenizer": "b", "weights": "raw" }),
            json!({ "kind": "checkpoint", "file": "hf://o/n@main", "unpinned": true, "shape": "nano", "tokenizer": "b" }),
            json!({ "kind": "checkpoint", "file": "https://a.org/a", "sha256": "00", "path": "a", "shape": "nano",
                "tokenizer": "b" }),
            json!({ "kind": "checkpoint", "file": "hf://o/n@main", "unpinned": true, "path": "a", "shape": "nano",
                "tokenizer": "b" }),
            json!({ "kind": "evaluate", "model": "a", "data": "b", "grammar": "c" }),
            json!({ "kind": "sample", "model": "a", "count": 2, "grammar": "c" }),
            json!({ "kind": "judge", "model": "a", "grammar": "b", "training": "c", "of": [
                { "stage": "d@seed=2", "point": { "seed": 2 } }, { "stage": "e", "name": "e", "point": {} }
            ] }),
            json!({ "kind": "compare", "of": [
                { "stage": "b@seed=2", "point": { "seed": 2 } }, { "stage": "c", "name": "c", "point": {} }
            ] }),
            json!({ "kind": "table", "rows_by": "model", "of": [
                { "stage": "b@model=x", "point": { "model": "x" } }, { "stage": "c", "name": "c", "point": {} }
            ] }),
        ]
        .map(|value| {
            let kind = value["kind"].as_str().unwrap().to_owned();
            let parts = of(value);
            let seed = parts.seed.map(|seed| format!("seed {seed}"));
            let files = parts.files.iter().map(|file| file.field.to_owned());
            let known = parts.known.iter().map(|file| format!("{} known", file.field));
            let words: Vec<_> =
                [kind, parts.config.to_string()].into_iter().chain(seed).chain(files).chain(known).collect();
            words.join(" ")
        });
        insta::assert_snapshot!(keys.join("\n"), @r#"
        source {"input":{"kind":"files","read":{"invalid_utf8":"error"}}} input/files
        source {"count_words":true,"input":{"kind":"files","read":{"invalid_utf8":"error"}}} input/files
        source {"input":{"kind":"synthetic","records":9}} seed 5 input/grammar
        tokenize {"tokenizer":{"kind":"file"}} tokenizer/path
        tokenize {"tokenizer":{"kind":"gpt2"}} tokenizer/vocabulary tokenizer/merges
        tokenize {"tokenizer":{"kind":"bert","lowercase":true}} tokenizer/vocabulary
        tokenize {"tokenizer":{"kind":"gpt2"}} tokenizer/vocabulary known tokenizer/merges known
        tokenize {"tokenizer":{"kind":"bert","lowercase":false,"vocabulary":{"sha256":"eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02"}}}
        tokenize {"tokenizer":{"kind":"file","path":{"url":"hf://o/n@main/t.json"}}}
        tokenize {"tokenizer":{"kind":"train_bpe","lowercase":false,"min_frequency":2,"vocabulary_size":512}}
        tokenize {"tokenizer":{"alphabet":" abcdefghijklmnopqrstuvwxyz","kind":"characters"}}
        tokenize {"tokenizer":{"kind":"stage"}}
        pack {"format":"arrow","length":8,"padding":"excluded","shard_rows":131072,"tail":"drop","validation":0.0,"wrap":true}
        pack {"format":"arrow","length":8,"padding":"excluded","shard_rows":131072,"stride":3,"tail":"drop","validation":0.0,"wrap":true}
        pack {"format":"arrow","length":8,"padding":"excluded","scored":"last_word","shard_rows":131072,"tail":"drop","validation":0.0,"wrap":false}
        train {"batch":512,"beta1":0.9,"beta2":0.999,"dropout":0.1,"ema":0.9999,"epsilon":1e-8,"gradient_clip":1.0,"learning_rate":0.0003,"objective":{"antithetic":true,"kind":"mdlm","noise":{"epsilon":0.001,"kind":"log_linear"},"sampling_epsilon":0.001,"time_conditioning":false},"precision":"f32","schedule":"constant","shape":"nano V512 L32 D64 H2 N2 C32","steps":10,"validation_every":1000,"validation_rows":256,"warmup_steps":2500,"weight_decay":0.0} seed 1
        train {"batch":512,"beta1":0.9,"beta2":0.999,"dropout":0.1,"ema":0.9999,"epsilon":1e-8,"gradient_clip":1.0,"learning_rate":0.0003,"objective":{"antithetic":true,"kind":"mdlm","noise":{"epsilon":0.001,"kind":"log_linear"},"sampling_epsilon":0.001,"time_conditioning":false},"precision":"f32","schedule":"constant","shape":"nano V512 L32 D64 H2 N2 C32","steps":10,"validation_every":1000,"validation_rows":256,"warmup_steps":2500,"weight_decay":0.0} seed 1
        checkpoint {"shape":"nano V512 L32 D64 H2 N2 C32","weights":"raw"} file
        checkpoint {"file":{"url":"hf://o/n@main"},"shape":"nano V512 L32 D64 H2 N2 C32"}
        checkpoint {"file":{"sha256":"00"},"shape":"nano V512 L32 D64 H2 N2 C32"}
        checkpoint {"shape":"nano V512 L32 D64 H2 N2 C32"} path
        evaluate {"draws":4,"estimator":"time","split":"validation","weights":"ema"} seed 1
        sample {"count":2,"given_ends":false,"sampler":{"kind":"cached"},"steps":128,"temperature":1.0,"weights":"ema"} seed 1
        judge {"of":[{"point":{"seed":2}},{"name":"e","point":{}}],"reference_records":100000,"variant":"plain","verbatim_tokens":32,"weights":"ema"} seed 1
        compare {"of":[{"point":{"seed":2}},{"name":"c","point":{}}]}
        table {"cells":[[[0]]],"facts":[null,null],"of":[{"point":{"model":"x"}},{"name":"c","point":{}}],"rows_by":"model","show":"perplexity"}
        "#);
    }

    /// A stage of that kind with nothing but what it must have.
    fn smallest(kind: StageKind) -> Value {
        serde_json::from_str(kind.smallest().0).unwrap()
    }

    fn paths(value: &Value) -> Vec<String> {
        let Value::Object(fields) = value else {
            return vec![String::new()];
        };
        let below = fields.iter().flat_map(|(field, value)| {
            let below = paths(value).into_iter();
            below.map(move |path| format!("{field}.{path}"))
        });
        below.map(|path| path.trim_end_matches('.').to_owned()).collect()
    }

    #[test]
    fn cache_key_leaves_out_new_fields_at_their_default() {
        for &kind in StageKind::ALL {
            let (stage, known) = kind.smallest();
            let found = paths(&of(serde_json::from_str(stage).unwrap()).config).join(" ");
            assert_eq!(
                found,
                known,
                "the key of a {} stage: leave a new field out at its default, so that artifacts made before it are \
                 found",
                kind.name()
            );
        }
    }

    /// The defaults of an object's fields, and of the fields of default objects, each as the object that states it.
    fn stated_defaults(schema: &Value) -> Vec<Value> {
        let mut all = Vec::new();
        for (name, field) in schema["properties"].as_object().into_iter().flatten() {
            let Some(default) = field.get("default") else {
                continue;
            };
            all.push(json!({ name: default }));
            let branches = field["oneOf"].as_array().into_iter().flatten();
            let mut of_default =
                branches.filter(|branch| branch["properties"]["kind"]["const"] == default["kind"]);
            if let (Some(branch), Some(kind)) = (of_default.next(), default.get("kind")) {
                all.push(json!({ name: { "kind": kind } }));
                for mut below in stated_defaults(branch) {
                    below["kind"] = kind.clone();
                    all.push(json!({ name: below }));
                }
            }
        }
        all
    }

    #[test]
    fn cache_key_is_the_same_for_a_default_left_out_or_written() {
        let schema = crate::manifest::schema(crate::shapes::SHAPES);
        let kinds = &schema["properties"]["stages"]["additionalProperties"]["oneOf"];
        let mut objectives = 0;
        for stage in StageKind::ALL.iter().copied().map(smallest) {
            let kind = kinds.as_array().unwrap().iter();
            let mut kind = kind.filter(|branch| branch["properties"]["kind"]["const"] == stage["kind"]);
            for fields in stated_defaults(kind.next().unwrap()) {
                objectives += usize::from(fields.get("objective").is_some());
                let mut written = stage.clone();
                written
                    .as_object_mut()
                    .unwrap()
                    .extend(fields.as_object().unwrap().clone());
                assert_eq!(of(written), of(stage.clone()), "{fields}");
            }
        }
        // The whole, its kind, its four fields, and of its noise the kind and ε.
        assert_eq!(objectives, 8);
    }

    /// Settings that are in no key at their defaults, which the schema does not state as values: written or not, the keys are
    /// those of results from before these settings.
    #[test]
    fn cache_key_with_defaults_of_later_settings_is_the_earlier_one() {
        let [source, pack, train, evaluate, sample] = [
            StageKind::Source,
            StageKind::Pack,
            StageKind::Train,
            StageKind::Evaluate,
            StageKind::Sample,
        ]
        .map(smallest);
        for (stage, fields) in [
            (&train, json!({ "objective": { "kind": "mdlm" } })),
            (
                &train,
                json!({ "objective": {
                    "kind": "mdlm", "zero_masking": true, "carry_over": true, "weighting": "elbo",
                    "times": { "kind": "uniform" }
                } }),
            ),
            (&train, json!({ "warmup_rates": "from_one" })),
            (&train, json!({ "grains": 1 })),
            (&source, json!({ "empty_records": "drop" })),
            (&pack, json!({ "grouping": { "kind": "whole" } })),
            (&pack, json!({ "scored": "all" })),
            (&source, json!({ "count_words": false })),
            (&evaluate, json!({ "estimator": "time" })),
            (&evaluate, json!({ "bound": "valid" })),
            (&sample, json!({ "sampler": { "kind": "cached" } })),
            (
                &sample,
                json!({ "sampler": { "kind": "cached", "grid": "exact" } }),
            ),
        ] {
            let mut written = stage.clone();
            written
                .as_object_mut()
                .unwrap()
                .extend(fields.as_object().unwrap().clone());
            assert_eq!(of(written), of(stage.clone()), "{fields}");
        }
    }

    /// The settings of each objective in the key of a training, and the estimator and the sampler in the keys of stages that
    /// leave them out. These lists do not grow either: see `StageSpec::SMALLEST`.
    #[test]
    fn cache_key_has_the_objectives_settings_estimator_and_sampler() {
        let noise = "antithetic kind noise.epsilon noise.kind";
        for (kind, settings, estimator, steps, sampler) in [
            (
                "mdlm",
                format!("{noise} sampling_epsilon time_conditioning"),
                "time",
                Value::Null,
                "cached",
            ),
            ("ar", "kind".to_owned(), "exact", Value::Null, "autoregressive"),
            (
                "sedd",
                format!("{noise} sampling_epsilon time_conditioning"),
                "time",
                Value::Null,
                "ancestral",
            ),
            (
                "d3pm",
                format!("{noise} steps time_conditioning"),
                "time",
                json!(1000),
                "ancestral",
            ),
            (
                "mlm",
                "kept kind random rate".to_owned(),
                "pseudo",
                Value::Null,
                "cached",
            ),
        ] {
            let objective = crate::manifest::Objective::from_argument(kind).unwrap();
            let config = |value: Value| {
                let mut stage = stage(value);
                stage.fill_in(&objective);
                parts(&stage, 1).unwrap().config
            };
            let [mut train, evaluate, sample] =
                [StageKind::Train, StageKind::Evaluate, StageKind::Sample].map(smallest);
            train["objective"] = json!({ "kind": kind });
            assert_eq!(paths(&config(train)["objective"]).join(" "), settings, "{kind}");
            let evaluate = config(evaluate);
            assert_eq!(evaluate["estimator"], estimator, "{kind}");
            assert_eq!(evaluate["steps"], steps, "{kind}");
            assert_eq!(config(sample)["sampler"], json!({ "kind": sampler }), "{kind}");
        }
    }

    #[test]
    fn cache_key_has_the_format_that_a_file_name_states() {
        let forms = |read: Value, names: &[&str]| {
            let stage = stage(
                json!({ "kind": "source", "input": { "kind": "files", "files": ["*"], "read": read } }),
            );
            let mut parts = parts(&stage, 1).unwrap();
            state_names(&stage, names, &mut parts.config);
            parts.config
        };
        let open = json!({});
        assert_eq!(
            forms(open.clone(), &["a.txt"]),
            forms(open.clone(), &["b/c.txt", "d"])
        );
        assert_ne!(forms(open.clone(), &["a.txt"]), forms(open.clone(), &["a.jsonl"]));
        assert_ne!(
            forms(open.clone(), &["a.txt", "b.csv"]),
            forms(open.clone(), &["a.csv", "b.txt"])
        );
        let stated = json!({ "format": { "kind": "text" } });
        assert_eq!(forms(stated.clone(), &["a.txt"]), forms(stated, &["a.jsonl"]));
    }

    #[test]
    fn cache_key_identifies_a_download_by_its_content() {
        let sha256 = "0123456789abcdef".repeat(4);
        let download = |file: Value| {
            let input =
                json!({ "kind": "download", "files": [file], "read": { "format": { "kind": "text" } } });
            of(json!({ "kind": "source", "input": input }))
        };
        let pinned = |url: &str| download(json!({ "url": url, "sha256": sha256, "max_bytes": 10 }));
        assert_eq!(pinned("https://a.org/x"), pinned("s3://bucket/y"));
        let unpinned = |url: &str| download(json!({ "url": url, "unpinned": true }));
        assert_ne!(unpinned("https://a.org/x"), unpinned("https://a.org/y"));
        let corpus = |more: Value| {
            let mut input = json!({ "kind": "corpus", "corpus": "lm1b", "split": "test" });
            input
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            of(json!({ "kind": "source", "input": input }))
        };
        assert_eq!(
            corpus(json!({})),
            corpus(json!({ "files": ["by-hand.tar.gz"] })),
            "checked against the same"
        );
        assert_ne!(
            corpus(json!({})).config,
            corpus(json!({ "split": "train" })).config
        );
    }

    /// A tokenizer by its name and by its files, from the network and by hand: one key.
    #[test]
    fn cache_key_leaves_out_the_origin_of_a_tokenizer() {
        let tokenize =
            |tokenizer: Value| of(json!({ "kind": "tokenize", "from": "a", "tokenizer": tokenizer }));
        let named = |name: &str| tokenize(json!({ "kind": "published", "name": name }));
        for (name, by_path, files) in [
            (
                "gpt2",
                json!({ "kind": "gpt2", "vocabulary": "v", "merges": "m" }),
                ["tokenizer/vocabulary", "tokenizer/merges"].as_slice(),
            ),
            (
                "bert-base-uncased",
                json!({ "kind": "bert", "vocabulary": "v" }),
                ["tokenizer/vocabulary"].as_slice(),
            ),
        ] {
            let (named, by_path) = (named(name), tokenize(by_path));
            assert_eq!(named.config, by_path.config);
            let known: Vec<_> = named.known.iter().map(|file| file.field.as_str()).collect();
            let read: Vec<_> = by_path.files.iter().map(|file| file.field).collect();
            assert_eq!((known, read), (files.to_vec(), files.to_vec()));
            let by_hand = tokenize(json!({ "kind": "published", "name": name, "path": "here" }));
            assert_eq!(named, by_hand, "checked against the same");
        }
        assert_ne!(named("bert-base-uncased"), named("bert-base-cased"));
        let sha256 = "0123456789abcdef".repeat(4);
        let download = |url: &str, more: Value| {
            let mut settings = json!({ "kind": "download", "url": url });
            settings
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            tokenize(settings)
        };
        let pinned = download("https://a.org/t.json", json!({ "sha256": sha256 }));
        assert_eq!(
            pinned,
            download("hf://o/n@main/t.json", json!({ "sha256": sha256 }))
        );
        assert_eq!(
            pinned,
            download(
                "https://a.org/t.json",
                json!({ "sha256": sha256, "path": "t.json" })
            )
        );
        let roles = json!({ "sha256": sha256, "special": { "mask": "<m>" } });
        assert_ne!(pinned.config, download("https://a.org/t.json", roles).config);
        let unpinned = |url: &str| download(url, json!({ "unpinned": true }));
        assert_ne!(unpinned("https://a.org/t.json"), unpinned("https://b.org/t.json"));
        let by_hand = download(
            "https://a.org/t.json",
            json!({ "unpinned": true, "path": "t.json" }),
        );
        assert_eq!(by_hand, tokenize(json!({ "kind": "file", "path": "t.json" })));
    }

    /// A corpus by name and the same spelt out have one key.
    #[test]
    fn cache_key_leaves_out_the_name_of_a_corpus() {
        for (name, split) in [("lm1b", "test"), ("text8", "train"), ("wikitext2", "test")] {
            let named =
                json!({ "kind": "source", "input": { "kind": "corpus", "corpus": name, "split": split } });
            let Stage::Source(source) = stage(named.clone()) else {
                panic!("not a source")
            };
            let SourceInput::Corpus(corpus) = &source.input else {
                panic!("not a corpus")
            };
            let resolved = corpus.resolve().unwrap();
            let mut spelt = json!({
                "kind": "source",
                "input": { "kind": "download", "files": [], "read": value_of(&resolved.read).unwrap() },
                "detokenize": value_of(&resolved.detokenize).unwrap(),
            });
            for file in &resolved.files {
                let file =
                    json!({ "url": file.url, "sha256": file.sha256, "unpinned": file.sha256.is_none() });
                spelt["input"]["files"].as_array_mut().unwrap().push(file);
            }
            if let Some(range) = &resolved.range {
                spelt["range"] = value_of(range).unwrap();
            }
            assert_eq!(of(named), of(spelt), "{name}");
        }
    }

    /// `paper` is another name of a split, not another text.
    #[test]
    fn cache_key_leaves_out_that_a_split_is_the_papers() {
        let ptb = |split: &str| {
            of(json!({ "kind": "source", "input": { "kind": "corpus", "corpus": "ptb", "split": split } }))
        };
        assert_eq!(ptb("paper"), ptb("validation"));
        assert_ne!(ptb("paper"), ptb("test"));
    }

    #[test]
    fn cache_key_has_that_published_rules_strip_records() {
        let config = |rules: &str| {
            of(json!({
                "kind": "source",
                "input": { "kind": "files", "files": ["*.txt"] },
                "detokenize": [{ "rules": rules, "as": "published" }],
            }))
            .config
        };
        assert_eq!(config("ptb")["detokenize"][0]["stripped"], true);
        assert_eq!(config("wikitext")["detokenize"][0].get("stripped"), None);
    }

    #[test]
    fn cache_key_has_that_empty_records_are_kept() {
        let key = |settings: Value| {
            let mut source = smallest(StageKind::Source);
            source
                .as_object_mut()
                .unwrap()
                .extend(settings.as_object().unwrap().clone());
            of(source)
        };
        let rules = json!([{ "rules": "wikitext", "as": "published" }]);
        let implied = key(json!({ "detokenize": rules }));
        assert_eq!(implied.config["empty_records"], "keep");
        assert_eq!(
            implied,
            key(json!({ "detokenize": rules, "empty_records": "keep" }))
        );
        let dropped = key(json!({ "detokenize": rules, "empty_records": "drop" }));
        assert_eq!(dropped.config.get("empty_records"), None);
        assert_ne!(key(json!({ "empty_records": "keep" })), key(json!({})));
    }

    #[test]
    fn cache_key_has_the_version_of_the_stage() {
        let pack = of(json!({ "kind": "pack", "from": "a", "length": 8 }));
        assert_eq!(
            pack.version,
            crate::stages::version(&stage(smallest(StageKind::Pack)))
        );
    }

    #[test]
    fn cache_key_leaves_out_settings_without_effect_on_the_result() {
        let base = json!({ "kind": "train", "from": "a", "shape": "nano", "steps": 10 });
        let with = |field: &str, value: Value| {
            let mut settings = base.clone();
            settings[field] = value;
            of(settings)
        };
        let parts = of(base.clone());
        assert_eq!(parts, with("micro_batch", json!(8)));
        assert_eq!(parts, with("checkpoint_every", json!(7)));
        assert_eq!(parts, with("keep_checkpoints", json!({ "every": 5 })));
        assert_eq!(parts, with("from", json!("renamed")));
        assert_eq!(
            parts,
            with("learning_rate", json!(3e-4)),
            "a default that is written is a default"
        );
        assert_eq!(parts, with("weight_decay", json!(0)), "an integer is a number");
        assert_eq!(parts, with("seed", json!(1)), "the pipeline's own seed");
        assert_ne!(parts, with("learning_rate", json!(1e-4)));
        assert_ne!(parts, with("seed", json!(2)));
        assert_ne!(parts, with("steps", json!(11)));
    }

    #[test]
    fn cache_key_has_a_seed_only_where_it_has_an_effect() {
        let pack = |validation: f64| {
            of(json!({ "kind": "pack", "from": "a", "length": 8, "validation": validation, "seed": 3 })).seed
        };
        assert_eq!(pack(0.0), None);
        assert_eq!(pack(0.1), Some(3));
        assert_eq!(pack(1.0), None);
        let text = of(json!({ "kind": "source", "input": { "kind": "files", "files": ["a"] } }));
        assert_eq!(text.seed, None);
        let synthetic = |seed: u64| {
            of(json!({ "kind": "source", "input":
                { "kind": "synthetic", "grammar": "a", "records": 5, "seed": seed } }))
        };
        assert_eq!(synthetic(3).seed, Some(3));
        assert_eq!(
            synthetic(3).config,
            synthetic(4).config,
            "a seed is a separate part"
        );
    }
}
