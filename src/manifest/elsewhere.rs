//! Fields and tokenizers as the configurations of other programs name them.

use serde_json::{Map, Value, json};

use super::fault::{alternatives, argument, spaced};
use super::instance::SIGN;
use super::json::{Node, pointer_join, pointer_tokens};
use super::reading::RemoteFile;
use super::schema_check::{options, stage_schema};
use super::vocabularies::Published;

/// Names that other programs give to fields of ours.
pub(super) const SYNONYMS: &[(&str, &str)] = &[
    ("T", "steps"),
    ("antithetic_sampling", "antithetic"),
    ("batch_size", "batch"),
    ("block_size", "length"),
    ("ckpt_every", "checkpoint_every"),
    ("clip_grad_norm", "gradient_clip"),
    ("context_length", "length"),
    ("depends_on", "from"),
    ("deps", "from"),
    ("dropout_rate", "dropout"),
    ("dtype", "precision"),
    ("ema_decay", "ema"),
    ("eps", "epsilon"),
    ("eval_every", "validation_every"),
    ("eval_interval", "validation_every"),
    ("eval_steps", "validation_every"),
    ("global_batch_size", "batch"),
    ("grad_clip", "gradient_clip"),
    ("input", "from"),
    ("inputs", "from"),
    ("iterations", "steps"),
    ("lr", "learning_rate"),
    ("lr_scheduler", "schedule"),
    ("max_grad_norm", "gradient_clip"),
    ("max_iters", "steps"),
    ("max_length", "length"),
    ("max_seq_length", "length"),
    ("max_steps", "steps"),
    ("mask_prob", "rate"),
    ("micro_batch_size", "micro_batch"),
    ("mixed_precision", "precision"),
    ("mlm_probability", "rate"),
    ("needs", "from"),
    ("num_samples", "count"),
    ("num_steps", "steps"),
    ("sampling_eps", "sampling_epsilon"),
    ("save_every", "checkpoint_every"),
    ("save_steps", "checkpoint_every"),
    ("scheduler", "schedule"),
    ("seq_len", "length"),
    ("seq_length", "length"),
    ("sequence_length", "length"),
    ("total_steps", "steps"),
    ("train_batch_size", "batch"),
    ("type", "kind"),
    ("val_check_interval", "validation_every"),
    ("val_every", "validation_every"),
    ("vocab", "vocabulary"),
    ("vocab_file", "vocabulary"),
    ("vocab_size", "vocabulary_size"),
    ("warmup", "warmup_steps"),
];

/// Fields of other programs' configurations that mdlm does not have, and the way out.
const ELSEWHERE: &[(&[&str], &str)] = &[
    (
        &[
            "epoch",
            "epochs",
            "max_epochs",
            "n_epochs",
            "num_epochs",
            "num_train_epochs",
        ],
        "set `steps` of the train stage; an epoch takes as many steps as there are train rows (`mdlm show` of the pack stage) \
         divided by `batch`",
    ),
    (
        &[
            "anchors",
            "base",
            "base_config",
            "defaults",
            "extend",
            "extends",
            "import",
            "imports",
            "include",
            "includes",
            "inherit",
            "inherits",
            "parent",
            "<<",
        ],
        "a manifest is one file: `--set PATH=VALUE` changes a field for a run, and `matrix` makes variants of a stage",
    ),
    (
        &[
            "constants",
            "env",
            "environment",
            "param",
            "params",
            "vars",
            "variables",
        ],
        "a manifest has no variables: write the value into its field, or set it with `--set PATH=VALUE`",
    ),
    (
        &["cmd", "command", "commands", "exec", "run", "script", "shell"],
        "a manifest cannot run programs: prepare the files first, then list them in `files` of a source stage",
    ),
    (
        &["accelerator", "cuda", "device", "devices", "gpu", "gpus"],
        "the device is not part of a manifest: use `mdlm run --device cpu|cuda` or MDLM_DEVICE",
    ),
    (
        &[
            "cores",
            "cpus",
            "n_jobs",
            "num_proc",
            "num_workers",
            "parallel",
            "resources",
            "threads",
            "workers",
        ],
        "the number of threads is not part of a manifest: use `mdlm run --threads N`, and `--jobs N` to run stages side by side",
    ),
    (
        &[
            "dest",
            "out",
            "out_dir",
            "output",
            "output_dir",
            "output_path",
            "outputs",
            "outs",
            "results",
            "save_dir",
            "save_path",
        ],
        "results are kept in the store: `mdlm path MANIFEST STAGE` prints their folder, and `--store DIR` selects another \
         store",
    ),
    (
        &[
            "ckpt_path",
            "restart",
            "resume",
            "resume_from",
            "resume_from_checkpoint",
        ],
        "leave it out: an interrupted training resumes from its checkpoint when you run the same command again",
    ),
    (
        &[
            "foreach",
            "grid",
            "grid_search",
            "search_space",
            "strategy",
            "sweep",
            "sweeps",
        ],
        "`matrix` of a stage sweeps its fields: `\"matrix\": { \"learning_rate\": [1e-3, 3e-3] }`",
    ),
    (
        &[
            "d_model",
            "depth",
            "dim",
            "embedding_size",
            "heads",
            "hidden_size",
            "layers",
            "n_embd",
            "n_head",
            "n_heads",
            "n_layer",
            "n_layers",
            "num_heads",
            "num_hidden_layers",
            "num_layers",
            "width",
        ],
        "`shape` sets the sizes of the network; `mdlm shapes` lists the shapes",
    ),
    (
        &["diffusion", "graph", "prior", "transition"],
        "leave it out: the noise of every objective but `ar` masks tokens; `mdlm objectives` lists the objectives",
    ),
    (
        &["backbone"],
        "leave it out: the kind of the `objective` chooses the network, a plain transformer for `ar` and a DiT for all others",
    ),
    (
        &["predictor"],
        "set the `kind` of `sampler` of a sample stage: `ancestral` (`ddpm`) or `cached` (`ddpm_cache`)",
    ),
    (
        &["optim", "optimizer"],
        "the optimizer is always AdamW; set `learning_rate`, `beta1`, `beta2`, `epsilon` and `weight_decay`",
    ),
    (
        &[
            "accumulate_grad_batches",
            "gradient_accumulation",
            "gradient_accumulation_steps",
        ],
        "set `batch` to the rows of a whole step, and `micro_batch` to the rows that go through the network at a time",
    ),
    (
        &[
            "log_every",
            "log_interval",
            "logging",
            "logging_steps",
            "tensorboard",
            "wandb",
        ],
        "the losses are in `metrics.jsonl` in the folder that `mdlm path` prints; `mdlm run --log-every` sets how often they are printed",
    ),
];

/// The way out for a field of another program's configuration.
pub(super) fn elsewhere(key: &str) -> Option<&'static str> {
    let key = key.to_lowercase().replace('-', "_");
    let found = ELSEWHERE.iter().find(|(names, _)| names.contains(&&*key));
    found.map(|(_, hint)| *hint)
}

/// Kinds as other programs and papers call them: the field that has the `kind`, their names, and ours.
const KINDS: &[(&str, &[&str], &[&str])] = &[
    (
        "objective",
        &[
            "arm",
            "autoregression",
            "autoregressive",
            "causal",
            "causal_lm",
            "clm",
            "gpt",
            "gpt2",
            "lm",
            "next_token",
        ],
        &["ar"],
    ),
    (
        "objective",
        &["bert", "bert_mouth", "masked_language_modelling", "masked_lm"],
        &["mlm"],
    ),
    (
        "objective",
        &["diffusion", "masked_diffusion", "md4", "mdm", "subs"],
        &["mdlm"],
    ),
    ("objective", &["score", "score_entropy"], &["sedd"]),
    (
        "objective",
        &["absorb", "absorbing", "absorbing_state"],
        &["mdlm", "sedd", "d3pm"],
    ),
    ("sampler", &["ddpm"], &["ancestral"]),
    ("sampler", &["ddpm_cache"], &["cached"]),
    (
        "sampler",
        &["ar", "autoregression", "left_to_right"],
        &["autoregressive"],
    ),
    ("times", &["importance_sampling"], &["importance"]),
];

/// The kinds that a name of another program may stand for, in the field that has the `kind`.
#[must_use]
pub fn kinds_meant(field: &str, name: &str) -> Option<&'static [&'static str]> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let found = KINDS
        .iter()
        .find(|(of, names, _)| *of == field && names.contains(&&*name));
    found.map(|(.., ours)| *ours)
}

/// The way out where a field of the MDLM authors' configuration about training stands in a train stage or in its
/// objective: the objective to write.
pub(super) fn of_authors(tree: &Node, pointer: &str, key: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let (["stages", name] | ["stages", name, "objective"]) = tokens.as_slice() else {
        return None;
    };
    let stage = tree.at(&pointer_join("/stages", name))?;
    let kind = stage.member("kind").and_then(|kind| kind.value.as_str());
    let member = tree.at(pointer)?.member(key)?;
    let value = member.value.to_json();
    let is_off = value == false || value == 0;
    if key == "T" && is_off && matches!(kind, Some("train" | "evaluate")) {
        return Some("leave it out: continuous time is the default".to_owned());
    }
    if kind != Some("train") {
        return None;
    }
    let fields = match (key, value.as_str()) {
        ("T", _) => json!({ "steps": value }),
        ("importance_sampling" | "change_of_variables" | "subs_masking", _) if is_off => {
            return Some("leave it out: it is off by default".to_owned());
        }
        ("importance_sampling", _) => json!({ "times": { "kind": "importance" } }),
        ("change_of_variables", _) => json!({ "times": { "kind": "change_of_variables" } }),
        // D3PM whose mask has no probability (arXiv 2406.07524, eq. 41).
        ("subs_masking", _) => {
            json!({ "kind": "mdlm", "steps": super::DEFAULT_D3PM_STEPS, "carry_over": false })
        }
        ("parameterization", Some(written)) => {
            let names = super::Objective::every_kind().map(|objective| objective.kind());
            let ours = names.into_iter().find(|name| *name == written);
            let ours = ours.or_else(|| Some(kinds_meant("objective", written)?[0]))?;
            json!({ "kind": ours })
        }
        ("sampling_eps" | "antithetic_sampling", _) => {
            let (_, ours) = SYNONYMS.iter().find(|(other, _)| *other == key)?;
            json!({ *ours: value })
        }
        _ => return None,
    };
    let fields = fields.as_object()?.clone();
    let (name, point) = name.split_once(SIGN).unwrap_or((*name, ""));
    if point.contains(key) {
        return None;
    }
    let objective = stage
        .member("objective")
        .map(|objective| objective.value.to_json());
    let mut written = match objective {
        Some(Value::Object(written)) => written,
        _ => Map::from_iter([("kind".to_owned(), json!("mdlm"))]),
    };
    written.shift_remove(key);
    written.extend(fields.clone());
    let kinds = stage_schema("train")?["properties"]["objective"]["oneOf"].as_array()?;
    let branch = kinds
        .iter()
        .find(|branch| branch["properties"]["kind"]["const"] == written["kind"])?;
    if written
        .keys()
        .any(|field| branch["properties"].get(field).is_none())
    {
        return None;
    }
    if member.key_span.source > 0 {
        let set =
            |(field, value): (&String, &Value)| argument(&format!("stages.{name}.objective.{field}"), value);
        let arguments: Vec<_> = fields.iter().map(set).collect();
        return Some(format!("`{}`", arguments.join(" ")));
    }
    Some(format!(
        "write `\"objective\": {}`",
        spaced(&Value::Object(written))
    ))
}

/// Other names of the published tokenizers.
const SAME_VOCABULARY: &[(&str, &str)] = &[
    ("bert-large-cased", "bert-base-cased"),
    ("bert-large-uncased", "bert-base-uncased"),
    ("gpt-2", "gpt2"),
    ("gpt2-large", "gpt2"),
    ("gpt2-medium", "gpt2"),
    ("gpt2-xl", "gpt2"),
];

/// Owners of models on Hugging Face that are named without one.
const OWNERS: &[(&str, &str)] = &[
    ("albert-", "albert"),
    ("distilbert-", "distilbert"),
    ("distilgpt2", "distilbert"),
    ("distilroberta-", "distilbert"),
    ("gpt2", "openai-community"),
    ("bert-", "google-bert"),
    ("roberta-", "FacebookAI"),
    ("t5-", "google-t5"),
    ("xlm-roberta-", "FacebookAI"),
    ("xlnet-", "xlnet"),
];

/// The object to write for a tokenizer that is called by its name alone: one of those that have a name here, one of
/// Hugging Face, a file, or a way to train one.
#[must_use]
#[expect(
    clippy::case_sensitive_file_extension_comparisons,
    reason = "the name is in lower case"
)]
pub fn tokenizer(name: &str) -> Option<String> {
    let name = name.trim();
    let plain = name.strip_prefix("hf://").unwrap_or(name);
    let plain = plain.strip_prefix("https://huggingface.co/").unwrap_or(plain);
    let bare = plain.rsplit('/').next().unwrap_or(plain).to_lowercase();
    let same = SAME_VOCABULARY.iter().find(|(other, _)| *other == bare);
    let published = same.map_or(bare.as_str(), |(_, ours)| *ours);
    let is_id = |text: &str| {
        !text.is_empty()
            && text
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    let owned: Vec<&str> = plain.split('/').collect();
    let is_owned = matches!(owned.as_slice(), [owner, _] if is_id(owner) && !owner.starts_with('.'));
    if Published::find(published).is_some() && (owned.len() == 1 || is_owned) {
        return Some(format!(
            "{{ \"kind\": \"published\", \"name\": \"{published}\" }}"
        ));
    }
    if bare.ends_with(".json") || bare.ends_with(".txt") {
        return match name.split_once("://") {
            None if bare == "merges.txt" => {
                let vocabulary = format!("{}vocab.json", &name[..name.len() - bare.len()]);
                Some(format!(
                    "{{ \"kind\": \"gpt2\", \"vocabulary\": \"{vocabulary}\", \"merges\": \"{name}\" }}"
                ))
            }
            None if bare.ends_with(".txt") => {
                Some(format!("{{ \"kind\": \"bert\", \"vocabulary\": \"{name}\" }}"))
            }
            None => Some(format!("{{ \"kind\": \"file\", \"path\": \"{name}\" }}")),
            Some(("hf" | "http" | "https" | "s3" | "gs" | "az", _)) if bare.ends_with(".json") => {
                Some(download(name))
            }
            Some(_) => None,
        };
    }
    match bare.as_str() {
        "bpe" | "byte_bpe" | "bytelevel" | "byte-level" | "train_bpe" => {
            return Some("{ \"kind\": \"train_bpe\", \"vocabulary_size\": 4096 }".to_owned());
        }
        "wordpiece" | "train_wordpiece" => {
            return Some("{ \"kind\": \"train_wordpiece\", \"vocabulary_size\": 4096 }".to_owned());
        }
        "char" | "chars" | "character" | "characters" => {
            return Some("{ \"kind\": \"characters\" }".to_owned());
        }
        _ => {}
    }
    let repository = match owned.as_slice() {
        [owner, model] if is_owned && is_id(model) => format!("{owner}/{model}"),
        [model] if is_id(model) => {
            let owner = OWNERS.iter().find(|(start, _)| bare.starts_with(start));
            format!("{}/{model}", owner.map_or("OWNER", |(_, owner)| owner))
        }
        _ => return None,
    };
    Some(download(&format!("hf://{repository}@main/tokenizer.json")))
}

/// The object of a `tokenizer.json` at a URL.
fn download(url: &str) -> String {
    let remote = RemoteFile {
        url: url.to_owned(),
        sha256: None,
        unpinned: true,
        max_bytes: None,
        exclude: vec![],
    };
    let unpinned = if remote.names_commit() {
        ""
    } else {
        ", \"unpinned\": true"
    };
    format!("{{ \"kind\": \"download\", \"url\": \"{url}\"{unpinned} }}")
}

/// The way out where the tokenizer at `pointer` lacks a field of its kind: what another field says, or an example.
pub(super) fn missing_of_tokenizer(tree: &Node, pointer: &str, field: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let [stages, stage, tokenizer_field] = tokens.as_slice() else {
        return None;
    };
    if stages != "stages" || tokenizer_field != "tokenizer" {
        return None;
    }
    let written = tree.at(pointer)?;
    let kind = written.member("kind")?.value.as_str()?;
    let others = written.members().iter().filter(|member| member.key != "kind");
    let texts = others.filter_map(|member| Some((member.key.as_str(), member.value.as_str()?)));
    let texts: Vec<_> = texts.collect();
    let mut urls = texts.iter().filter(|(_, text)| text.contains("://"));
    if let Some(hint) = urls.find_map(|(_, url)| written_tokenizer(url)) {
        return Some(hint);
    }
    let example = match (kind, field) {
        ("published", "name") => {
            let mut named = texts
                .iter()
                .filter(|(key, _)| *key != "path" && NAMED.contains(key));
            if let Some(hint) = named.find_map(|(_, name)| written_tokenizer(name)) {
                return Some(hint);
            }
            // A folder is often called by the name of the tokenizer in it.
            let folder = |text: &str| Published::find(text.trim_end_matches('/').rsplit('/').next()?);
            let found = texts.iter().find_map(|(_, text)| folder(text));
            let name = found.map_or("gpt2", |published| published.name);
            return Some(format!(
                "add `\"name\": \"{name}\"`; `mdlm tokenizers` lists the names"
            ));
        }
        ("download", "url") => "hf://OWNER/NAME@REVISION/tokenizer.json",
        ("file", "path") => "tokenizer.json",
        ("gpt2", "vocabulary") => "vocab.json",
        ("gpt2", "merges") => "merges.txt",
        ("bert", "vocabulary") => "vocab.txt",
        ("train_bpe" | "train_wordpiece", "vocabulary_size") => {
            return written_tokenizer(kind);
        }
        ("stage", "stage") => other_tokenize_stage(tree, stage)?,
        _ => return None,
    };
    // A field of another name may name the file.
    let ending = example.rsplit_once('.').map(|(_, ending)| format!(".{ending}"));
    let file = texts.iter().find(|(key, text)| {
        !["vocabulary", "merges"].contains(key)
            && ending.as_deref().is_some_and(|ending| text.ends_with(ending))
    });
    let value = file
        .filter(|_| kind != "download")
        .map_or(example, |(_, text)| *text);
    Some(format!("add `\"{field}\": \"{value}\"`"))
}

/// The first stage but `stage` that loads or trains a tokenizer.
fn other_tokenize_stage<'t>(tree: &'t Node, stage: &str) -> Option<&'t str> {
    let has_tokenizer = |node: &Node| {
        let kind = node.at("/tokenizer/kind").and_then(Node::as_str);
        kind.is_some_and(|kind| kind != "stage")
    };
    let mut stages = tree.member("stages")?.value.members().iter();
    let other = stages.find(|other| other.key != stage && has_tokenizer(&other.value))?;
    Some(&other.key)
}

/// The way out where `steps` of an objective or an evaluation is 0, which other programs take for continuous time.
pub(super) fn continuous_time(tree: &Node, pointer: &str) -> Option<&'static str> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let kind_of = |object: &str| tree.at(object)?.member("kind")?.value.as_str();
    match tokens.as_slice() {
        ["stages", name, "steps"] => (kind_of(&pointer_join("/stages", name)) == Some("evaluate"))
            .then_some("leave `steps` out for continuous time, or for the `steps` of the model's objective"),
        ["stages", _, "objective", "steps"] => match kind_of(pointer.strip_suffix("/steps")?) {
            Some("d3pm") => Some("`d3pm` has no continuous time: leave `steps` out for its default"),
            _ => Some("leave `steps` out for continuous time"),
        },
        _ => None,
    }
}

/// The way out where an estimator is asked for the number of the published code.
pub(super) fn published_estimator(pointer: &str, written: &str) -> Option<&'static str> {
    let is_published = ["authors", "mdlm", "paper", "published"].contains(&written);
    (pointer.ends_with("/estimator") && is_published)
        .then_some("leave `estimator` out and write `\"bound\": \"published\"`, the published number")
}

/// The object to write where a tokenizer or a detokenizer is called by a name alone.
pub(super) fn object_to_write(tree: &Node, pointer: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let node = tree.at(pointer)?;
    match tokens.as_slice() {
        ["stages", _, "detokenize"] | ["stages", _, "detokenize", _] => {
            let names = options(&stage_schema("source")?["properties"]["detokenize"]);
            let first = names.first().copied().unwrap_or("ptb");
            let others = alternatives(&names);
            (node.as_str()? == "published").then(|| {
                format!("write {{ \"rules\": \"{first}\", \"as\": \"published\" }}; the rules are {others}")
            })
        }
        ["stages", _, "tokenizer"] if !node.is_object() => written_tokenizer(node.as_str()?),
        ["stages", _, "tokenizer", "name"] => written_tokenizer(node.as_str()?),
        ["stages", stage, "tokenizer"] | ["stages", stage, "tokenizer", "kind"] => {
            let stage = pointer_join("/stages", stage);
            let written = tree.at(&pointer_join(&stage, "tokenizer"))?;
            let text = |field: &str| written.member(field)?.value.as_str();
            let kind = text("kind").filter(|kind| !NAMELESS.contains(kind));
            let named = NAMED.iter().find_map(|field| text(field));
            match named.or(kind) {
                Some(name) => written_tokenizer(name),
                None if text("kind").is_some() => Some(format!(
                    "write {}, or {}",
                    tokenizer("gpt2")?,
                    tokenizer("OWNER/NAME")?
                )),
                None => None,
            }
        }
        _ => None,
    }
}

/// Fields in which other programs name a tokenizer.
const NAMED: [&str; 9] = [
    "name",
    "repo",
    "repo_id",
    "repository",
    "model",
    "id",
    "pretrained",
    "pretrained_model_name_or_path",
    "path",
];

/// Kinds of tokenizers of other programs, which name the tokenizer in another field.
const NAMELESS: [&str; 9] = [
    "auto",
    "autotokenizer",
    "hf",
    "hub",
    "huggingface",
    "pretrained",
    "sentencepiece",
    "tokenizers",
    "transformers",
];

fn written_tokenizer(name: &str) -> Option<String> {
    tokenizer(name).map(|object| format!("write {object}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;

    #[test]
    fn hint_for_a_tokenizers_name_is_an_object_that_a_manifest_takes() {
        for (name, part) in [
            ("gpt2", "\"published\", \"name\": \"gpt2\""),
            ("openai-community/gpt2", "\"published\", \"name\": \"gpt2\""),
            (
                "bert-base-uncased",
                "\"published\", \"name\": \"bert-base-uncased\"",
            ),
            (
                "bert-large-uncased",
                "\"published\", \"name\": \"bert-base-uncased\"",
            ),
            (
                "roberta-base",
                "\"hf://FacebookAI/roberta-base@main/tokenizer.json\"",
            ),
            (
                "EleutherAI/gpt-neox-20b",
                "\"hf://EleutherAI/gpt-neox-20b@main/tokenizer.json\"",
            ),
            ("some-model", "\"hf://OWNER/some-model@main/tokenizer.json\""),
            (
                "../kit/tokenizer.json",
                "\"file\", \"path\": \"../kit/tokenizer.json\"",
            ),
            (
                "hf://x/y/tokenizer.json",
                "\"download\", \"url\": \"hf://x/y/tokenizer.json\", \"unpinned\": true",
            ),
            (
                "https://a.org/tokenizer.json",
                "\"download\", \"url\": \"https://a.org/tokenizer.json\", \"unpinned\": true",
            ),
            (
                "hf://x/y@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json",
                "@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json\" }",
            ),
            ("bpe", "\"train_bpe\""),
            ("a/vocab.txt", "\"bert\", \"vocabulary\": \"a/vocab.txt\""),
            (
                "a/merges.txt",
                "\"gpt2\", \"vocabulary\": \"a/vocab.json\", \"merges\": \"a/merges.txt\"",
            ),
            ("characters", "\"characters\""),
        ] {
            let object = tokenizer(name).unwrap();
            assert!(object.contains(part), "{name}: {object}");
            let manifest = format!(
                "{{ \"name\": \"x\", \"seed\": 1, \"stages\": {{
                    \"text\": {{ \"kind\": \"source\", \"input\": {{ \"kind\": \"files\", \"files\": [\"a\"] }} }},
                    \"tokens\": {{ \"kind\": \"tokenize\", \"from\": \"text\", \"tokenizer\": {object} }} }} }}"
            );
            if let Err(faults) = Manifest::from_bytes("x", manifest.into_bytes(), &[]) {
                panic!("{name}: {faults}");
            }
        }
        for name in [
            "",
            "a b",
            "a/b/c",
            "https://a.org/vocab.txt",
            "file:///a/tokenizer.json",
        ] {
            assert_eq!(tokenizer(name), None, "{name}");
        }
    }

    /// The hints about a tokenizer that is written like this.
    fn hints(tokenizer: &serde_json::Value) -> Vec<String> {
        let manifest = serde_json::json!({ "name": "x", "seed": 1, "stages": {
            "letters": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": tokenizer },
        } });
        let faults = Manifest::from_bytes("x", manifest.to_string().into_bytes(), &[]).unwrap_err();
        faults
            .list
            .iter()
            .filter_map(|fault| fault.hint.clone())
            .collect()
    }

    /// A manifest with these settings of its train stage.
    fn trained(settings: &Value, overrides: &[String]) -> Result<crate::manifest::Loaded, Vec<String>> {
        let mut train = json!({ "kind": "train", "from": "rows", "shape": "nano", "steps": 9000 });
        train
            .as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        let manifest = json!({ "name": "x", "seed": 1, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32 },
            "model": train,
        } });
        let loaded = Manifest::from_bytes("x", manifest.to_string().into_bytes(), overrides);
        loaded.map_err(|faults| {
            let hints = faults.list.into_iter().filter_map(|fault| fault.hint);
            hints.collect()
        })
    }

    #[test]
    fn hint_for_an_objective_as_others_write_it_is_the_object_to_write() {
        for (settings, expected) in [
            (json!({ "objective": "ar" }), r#"{ "kind": "ar" }"#),
            (json!({ "objective": "gpt" }), r#"{ "kind": "ar" }"#),
            (json!({ "objective": "BERT" }), r#"{ "kind": "mlm" }"#),
            (json!({ "objective": "subs" }), r#"{ "kind": "mdlm" }"#),
            (json!({ "objective": "d3mp" }), r#"{ "kind": "d3pm" }"#),
            (json!({ "T": 1000 }), r#"{ "kind": "mdlm", "steps": 1000 }"#),
            (
                json!({ "objective": { "kind": "mdlm", "T": 1000, "antithetic": false } }),
                r#"{ "kind": "mdlm", "antithetic": false, "steps": 1000 }"#,
            ),
            (json!({ "parameterization": "d3pm" }), r#"{ "kind": "d3pm" }"#),
            (json!({ "parameterization": "subs" }), r#"{ "kind": "mdlm" }"#),
            (
                json!({ "subs_masking": true }),
                r#"{ "kind": "mdlm", "steps": 1000, "carry_over": false }"#,
            ),
            (
                json!({ "objective": { "kind": "mdlm", "importance_sampling": true } }),
                r#"{ "kind": "mdlm", "times": { "kind": "importance" } }"#,
            ),
            (
                json!({ "change_of_variables": true }),
                r#"{ "kind": "mdlm", "times": { "kind": "change_of_variables" } }"#,
            ),
            (
                json!({ "sampling_eps": 0.01 }),
                r#"{ "kind": "mdlm", "sampling_epsilon": 0.01 }"#,
            ),
        ] {
            let hint = format!("write `\"objective\": {expected}`");
            assert_eq!(trained(&settings, &[]).unwrap_err(), [hint], "{settings}");
            let objective: Value = serde_json::from_str(expected).unwrap();
            trained(&json!({ "objective": objective }), &[]).unwrap();
        }
        for (settings, hint) in [
            (json!({ "T": 0 }), "leave it out: continuous time is the default"),
            (
                json!({ "objective": { "kind": "mdlm", "change_of_variables": false } }),
                "leave it out: it is off by default",
            ),
            (json!({ "objective": { "kind": "gpt" } }), "did you mean `ar`?"),
            (
                json!({ "objective": { "kind": "autoregressive" } }),
                "did you mean `ar`?",
            ),
            (
                json!({ "objective": { "kind": "score_entropy" } }),
                "did you mean `sedd`?",
            ),
            (
                json!({ "objective": { "kind": "absorb" } }),
                "did you mean `mdlm`, `sedd` or `d3pm`?",
            ),
            (
                json!({ "objective": { "kind": "mlm", "mlm_probability": 0.3 } }),
                "did you mean `rate`?",
            ),
        ] {
            assert_eq!(trained(&settings, &[]).unwrap_err(), [hint], "{settings}");
        }
        // Scores have no steps, and no hint writes them.
        let sedd = json!({ "objective": { "kind": "sedd", "T": 1000 } });
        assert_eq!(trained(&sedd, &[]).unwrap_err(), [""; 0]);
        for (argument, way) in [
            (
                "stages.model.objective=gpt",
                "--set stages.model.objective.kind=ar",
            ),
            (
                "stages.model.objective.importance_sampling=true",
                r#"--set 'stages.model.objective.times={"kind":"importance"}'"#,
            ),
            ("stages.model.T=1000", "--set stages.model.objective.steps=1000"),
        ] {
            let hints = trained(&json!({}), &[argument.to_owned()]).unwrap_err();
            assert_eq!(hints, [format!("`{way}`")], "{argument}");
            let followed = way.trim_start_matches("--set ").trim_matches('\'').to_owned();
            trained(&json!({}), &[followed]).unwrap();
        }
    }

    #[test]
    fn hint_for_a_tokenizer_that_lacks_a_field_is_that_field() {
        use serde_json::json;
        let url = "hf://google-bert/bert-base-uncased@main/tokenizer.json";
        let download = format!("write {{ \"kind\": \"download\", \"url\": \"{url}\", \"unpinned\": true }}");
        for (tokenizer, expected) in [
            (
                json!({ "kind": "published" }),
                "add `\"name\": \"gpt2\"`; `mdlm tokenizers` lists the names",
            ),
            (
                json!({ "kind": "published", "path": "../corpora/bert-base-cased/" }),
                "add `\"name\": \"bert-base-cased\"`; `mdlm tokenizers` lists the names",
            ),
            (
                json!({ "kind": "published", "model": "bert-base-uncased" }),
                "write { \"kind\": \"published\", \"name\": \"bert-base-uncased\" }",
            ),
            (json!({ "kind": "file" }), "add `\"path\": \"tokenizer.json\"`"),
            (
                json!({ "kind": "file", "file": "my.json" }),
                "add `\"path\": \"my.json\"`",
            ),
            (json!({ "kind": "file", "file": url }), download.as_str()),
            (json!({ "kind": "bert", "path": url }), download.as_str()),
            (json!({ "kind": "published", "url": url }), download.as_str()),
            (
                json!({ "kind": "bert", "path": "x" }),
                "add `\"vocabulary\": \"vocab.txt\"`",
            ),
            (
                json!({ "kind": "gpt2", "vocabulary": "vocab.json" }),
                "add `\"merges\": \"merges.txt\"`",
            ),
            (
                json!({ "kind": "download" }),
                "add `\"url\": \"hf://OWNER/NAME@REVISION/tokenizer.json\"`",
            ),
            (
                json!({ "kind": "train_bpe" }),
                "write { \"kind\": \"train_bpe\", \"vocabulary_size\": 4096 }",
            ),
            (json!({ "kind": "stage" }), "add `\"stage\": \"letters\"`"),
            (json!(url), download.as_str()),
        ] {
            let hints = hints(&tokenizer);
            assert!(
                hints.iter().any(|hint| hint == expected),
                "{tokenizer}: {hints:?}"
            );
            let invented = hints.iter().any(|hint| hint.contains("OWNER/published"));
            assert!(!invented, "{tokenizer}: {hints:?}");
        }
    }

    #[test]
    fn hints_for_continuous_time_and_for_the_published_number_name_the_field() {
        let hint = |objective: Value, evaluate: Value| {
            let mut bound = json!({ "kind": "evaluate", "model": "model", "data": "rows" });
            let settings = evaluate.as_object().unwrap().clone();
            bound.as_object_mut().unwrap().extend(settings);
            let manifest = json!({ "name": "x", "seed": 1, "stages": {
                "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
                "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
                "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
                "model": {
                    "kind": "train", "from": "rows", "shape": "nano", "steps": 9000, "objective": objective,
                },
                "bound": bound,
            } });
            let bytes = manifest.to_string().into_bytes();
            let faults = Manifest::from_bytes("x.json", bytes, &[]).unwrap_err();
            faults.list[0].hint.clone().unwrap_or_default()
        };
        let mdlm = json!({ "kind": "mdlm" });
        let none = json!({});
        let of_zero = |kind: &str| hint(json!({ "kind": kind, "steps": 0 }), none.clone());
        assert_eq!(of_zero("mdlm"), "leave `steps` out for continuous time");
        assert_eq!(
            of_zero("d3pm"),
            "`d3pm` has no continuous time: leave `steps` out for its default"
        );
        assert_eq!(
            hint(mdlm.clone(), json!({ "steps": 0 })),
            "leave `steps` out for continuous time, or for the `steps` of the model's objective"
        );
        assert_eq!(
            hint(json!({ "kind": "mdlm", "steps": 2_000_000 }), none.clone()),
            ""
        );
        assert_eq!(
            hint(mdlm, json!({ "estimator": "authors" })),
            "leave `estimator` out and write `\"bound\": \"published\"`, the published number"
        );
    }
}
