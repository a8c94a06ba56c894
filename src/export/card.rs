//! The model card: `README.md` of a folder of Hugging Face, from the template `card.md`.

use std::collections::HashSet;
use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::{FinishedModel, MeasuredModel, bound_sign, is_finite};
use crate::data::split_name;
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::evaluate::Interval;
use crate::manifest::corpora::Corpus;
use crate::manifest::{Objective, SourceInput, Stage, Times, Weights};
use crate::model::total;
use crate::numbers;
use crate::plan::PlannedStage;
use crate::plural::counted;
use crate::shapes::Backbone;
use crate::stages::evaluate::Evaluation;
use crate::stages::trained::ModelInfo;

const TEMPLATE: &str = include_str!("card.md");
/// Settings of a train stage that decide nothing of the model.
const NOT_SHOWN: [&str; 7] = [
    "from",
    "init",
    "micro_batch",
    "validation_every",
    "validation_rows",
    "checkpoint_every",
    "keep_checkpoints",
];
/// Sources that a line names at most.
const NAMED: usize = 4;

/// The card of a model whose weights `which` are exported, with the spellings of its special tokens.
pub(super) fn text(model: &FinishedModel<'_>, which: Weights, roles: &Map<String, Value>) -> Result<String> {
    let info = &model.info;
    let backbone = info.objective.backbone();
    let pipeline_tag = match backbone {
        Backbone::Dit => "fill-mask",
        Backbone::Transformer => "text-generation",
    };
    let evaluations = model.evaluations(which)?;
    let name = format!("{}: {}", model.plan.pipeline, model.planned.name);
    let description = model
        .description
        .map_or(String::new(), |text| format!("{text}\n\n"));
    fill(
        TEMPLATE,
        &[
            ("pipeline_tag", pipeline_tag.to_owned()),
            ("tags", tags(&info.objective)),
            ("objective", info.objective.kind().to_owned()),
            ("base", base_fields(model)),
            ("licence", licence(model)),
            ("index", index(model, &name, &evaluations)),
            ("name", name),
            ("description", description),
            ("backbone", backbone.to_string()),
            ("parameters", numbers::abbreviated(total(&model.parameters()))),
            ("length", info.length.to_string()),
            ("citation", citation(&info.objective)),
            ("made", made(model, which)),
            ("use", example(model)),
            ("rows", rows(info, roles)),
            ("results", results(model, &evaluations, which)),
            ("data", data(model)),
            ("training", training(model)?),
            ("provenance", provenance(model, which)?),
        ],
    )
}

/// Puts values in the place of `{name}`; values are not searched for further ones.
fn fill(template: &str, values: &[(&str, String)]) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, behind) = after.split_once('}').unwrap_or((after, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        let (_, value) =
            value.ok_or_else(|| Error::internal(format!("the card has no value for `{name}`")))?;
        text.push_str(before);
        text.push_str(value);
        rest = behind;
    }
    text.push_str(rest);
    Ok(text)
}

/// A text for one line of YAML or of a table.
fn quoted(text: &str) -> String {
    Value::String(text.to_owned()).to_string()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

/// The tags of the hub, a line each.
fn tags(objective: &Objective) -> String {
    let kind = match objective {
        Objective::Mdlm(_) | Objective::Sedd(_) | Objective::D3pm(_) => "masked-diffusion",
        Objective::Mlm(_) => "masked-language-model",
        Objective::Ar(_) => "autoregressive",
    };
    let mut tags = vec!["mdlm", kind, "custom_code"];
    if objective.kind() != "mdlm" {
        tags.insert(1, objective.kind());
    }
    let lines: Vec<_> = tags.iter().map(|tag| format!("- {tag}")).collect();
    lines.join("\n")
}

fn citation(objective: &Objective) -> String {
    let (name, arxiv) = match objective {
        Objective::Mdlm(_) => ("MDLM", "2406.07524"),
        Objective::Ar(_) => ("autoregression", "2406.07524"),
        Objective::Sedd(_) => ("SEDD", "2310.16834"),
        Objective::D3pm(_) => ("D3PM", "2107.03006"),
        Objective::Mlm(_) => ("masked language modelling", "1810.04805"),
    };
    format!("{name}, [arXiv {arxiv}](https://arxiv.org/abs/{arxiv})")
}

fn weights_name(model: &FinishedModel<'_>, which: Weights) -> &'static str {
    match which {
        Weights::Ema => "an exponential moving average",
        Weights::Raw if model.has_only_set() => {
            "the only ones of the file, which does not say whether they are an average"
        }
        Weights::Raw => "those of the last step",
    }
}

fn made(model: &FinishedModel<'_>, which: Weights) -> String {
    let version = env!("CARGO_PKG_VERSION");
    let which = weights_name(model, which);
    match (&model.planned.stage, &model.info.origin) {
        (Stage::Checkpoint(checkpoint), Some(origin)) => {
            let steps = origin.steps.map_or(String::new(), |steps| {
                format!(" after {} updates", numbers::count(steps))
            });
            format!(
                "The weights come from `{}` ({}){steps}, and are {which}. mdlm {version} exported them.",
                checkpoint.file, origin.format
            )
        }
        _ => format!(
            "The weights are {which}, after {} updates. {}mdlm {} trained the model from a manifest, and mdlm {version} exported it.",
            numbers::count(model.info.steps),
            beginnings(model),
            model.record.provenance.version
        ),
    }
}

/// What a training began from, and that in turn: a sentence each, with a space behind it.
fn beginnings(model: &FinishedModel<'_>) -> String {
    let mut text = String::new();
    let mut stage = model.planned;
    while let (Stage::Train(train), Some(from)) = (&stage.stage, model.input(stage, "init")) {
        let subject = if stage.name == model.planned.name {
            "It".to_owned()
        } else {
            format!("`{}`", stage.name)
        };
        let of = match &from.stage {
            Stage::Checkpoint(checkpoint) => format!("`{}`, which is `{}`", from.name, checkpoint.file),
            _ => format!("`{}`", from.name),
        };
        let step = model.step_of(from).filter(|_| train.continues);
        let _ = match (train.continues, step) {
            (true, Some(step)) => write!(
                text,
                "{subject} continues the training of {of}, from update {step} on. "
            ),
            (true, None) => write!(text, "{subject} continues the training of {of}. "),
            (false, _) => write!(text, "{subject} was fine-tuned from the weights of {of}. "),
        };
        stage = from;
    }
    text
}

/// The file from elsewhere that a model is, or that its training began from.
fn file_of<'p>(model: &FinishedModel<'p>) -> Option<&'p str> {
    let mut stage = model.planned;
    loop {
        match &stage.stage {
            Stage::Checkpoint(checkpoint) => return Some(&checkpoint.file),
            Stage::Train(_) => stage = model.input(stage, "init")?,
            _ => return None,
        }
    }
}

/// The model on the hub that an address names: `OWNER/NAME`.
fn hub_name(address: &str) -> Option<String> {
    let path = if let Some(rest) = address.strip_prefix("hf://") {
        rest.strip_prefix("models/").unwrap_or(rest)
    } else {
        let rest = address.strip_prefix("https://huggingface.co/")?;
        rest.split_once("/resolve/")?.0
    };
    let path = path.split('@').next().unwrap_or_default();
    let mut parts = path.split('/').filter(|part| !part.is_empty());
    let owner = parts.next()?;
    Some(
        parts
            .next()
            .map_or(owner.to_owned(), |name| format!("{owner}/{name}")),
    )
}

/// The lines of the page's head that name the model it comes from.
fn base_fields(model: &FinishedModel<'_>) -> String {
    let Some(file) = file_of(model) else {
        return String::new();
    };
    let mut text = "license: unknown\n".to_owned();
    if let Some(name) = hub_name(file) {
        let _ = writeln!(text, "base_model: {}", quoted(&name));
        if matches!(model.planned.stage, Stage::Train(_)) {
            text += "base_model_relation: finetune\n";
        }
    }
    text
}

fn licence(model: &FinishedModel<'_>) -> String {
    match file_of(model) {
        Some(file) => format!(
            "The licence of the weights is unknown to mdlm. That of `{file}`, from which they come, applies: put it into the head \
             of this page, in the place of `unknown`, before you publish them."
        ),
        None => "The licence of the weights is not stated here: add `license` to the head of this page before you publish them."
            .to_owned(),
    }
}

/// Python that loads the model: it samples where `modeling_mdlm.py` can, and else computes logits.
fn example(model: &FinishedModel<'_>) -> String {
    let info = &model.info;
    let can_sample = match &info.objective {
        Objective::Mdlm(own) => {
            own.zero_masking && !(own.time_conditioning && own.times == Times::ChangeOfVariables)
        }
        Objective::Mlm(_) => true,
        _ => false,
    };
    let mut code = "```python\n\
                    import torch\n\
                    from transformers import AutoModelForMaskedLM, AutoTokenizer\n\n\
                    folder = \".\"  # this folder, or its name on the hub\n\
                    tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)\n\
                    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)\n\n"
        .to_owned();
    if can_sample {
        code += "for row in model.sample(rows=2, steps=32, seed=1):\n    \
                 print(tokenizer.decode(row))\n\n";
    }
    let of = match info.objective.backbone() {
        Backbone::Dit => "of the token at each position",
        Backbone::Transformer => "of the token after each position",
    };
    let sigma = if info.objective.is_time_conditioned() {
        "timesteps = torch.ones(1)  # the noise level σ of the row\n"
    } else {
        ""
    };
    let arguments = if sigma.is_empty() {
        "row"
    } else {
        "row, timesteps=timesteps"
    };
    let masked = match info.objective.backbone() {
        Backbone::Dit => "row[0, 1] = model.config.mask_token_id\n",
        Backbone::Transformer => "",
    };
    let _ = write!(
        code,
        "tokens = tokenizer(\"a text\", add_special_tokens=False)[\"input_ids\"][: model.config.model_length - 2]\n\
         row = torch.full((1, model.config.model_length), model.config.pad_token_id)\n\
         row[0, : len(tokens) + 2] = torch.tensor([model.config.bos_token_id, *tokens, model.config.eos_token_id])\n\
         {masked}{sigma}with torch.no_grad():\n    \
         logits = model({arguments}).logits  # (B, L, V), {of}\n\
         ```"
    );
    code
}

fn rows(info: &ModelInfo, roles: &Map<String, Value>) -> String {
    let role = |name: &str| {
        let token = roles.get(name).and_then(Value::as_str).unwrap_or_default();
        format!("`` {token} ``")
    };
    let (bos, eos, pad) = (role("bos_token"), role("eos_token"), role("pad_token"));
    if info.wrap {
        format!("{bos}, text whose documents end with {eos} and are joined and cut, {eos}")
    } else {
        format!("{bos}, one record, {eos}, and {pad} up to the end")
    }
}

fn number(interval: Interval, decimals: usize, with: fn(Interval, usize) -> String) -> String {
    if is_finite(interval) {
        with(interval, decimals)
    } else {
        "not finite".to_owned()
    }
}

/// The rows of an evaluation in words: `WikiText-2, split test`, or the name of the stage.
fn measured_on(model: &FinishedModel<'_>, measured: &MeasuredModel<'_>) -> String {
    let stage = &model.plan.stages[measured.index];
    let Some(pack) = model.input(stage, "data") else {
        return measured.stage.to_owned();
    };
    let mut sources = Vec::new();
    let mut seen = HashSet::new();
    model.sources(pack, "text", &mut sources, &mut seen);
    let names: Vec<_> = sources.iter().map(|(source, _)| corpus_or_name(source)).collect();
    format!(
        "{} ({}, split `{}`)",
        names.join(", "),
        pack.name,
        split_name(measured.found.split)
    )
}

fn corpus_or_name(source: &PlannedStage) -> String {
    match &source.stage {
        Stage::Source(own) => match &own.input {
            SourceInput::Corpus(named) => match Corpus::find(&named.corpus) {
                Some(corpus) => format!("{}, `{}`", corpus.title, named.split.name()),
                None => named.corpus.clone(),
            },
            _ => source.name.clone(),
        },
        _ => source.name.clone(),
    }
}

fn results(model: &FinishedModel<'_>, evaluations: &[MeasuredModel<'_>], which: Weights) -> String {
    if evaluations.is_empty() {
        return "The manifest had no evaluation of these weights with a result when the model was exported. Those of other \
                manifests are not listed here."
            .to_owned();
    }
    let mut text =
        "| data | what the numbers are | bits per byte | perplexity | measured on |\n|---|---|---|---|---|\n"
            .to_owned();
    for measured in evaluations {
        let found = &measured.found;
        let sign = bound_sign(found);
        let bits = found.bits_per_byte.map_or_else(
            || "not defined".to_owned(),
            |bits| {
                let of = if found.normalized {
                    " of normalized text"
                } else {
                    ""
                };
                let entropy = found.entropy_bits_per_byte;
                let entropy = entropy.map_or(String::new(), |bits| {
                    format!("; the language's entropy is {bits:.4} (exact)")
                });
                format!("{sign}{}{of}{entropy}", number(bits, 4, Interval::plus_minus))
            },
        );
        let mut perplexity = format!(
            "{sign}{} {}",
            number(found.perplexity, 3, Interval::with_ends),
            found.per()
        );
        if let Some(of_text) = found.perplexity_per_token_of_text {
            let _ = write!(
                perplexity,
                "; {sign}{} per token of text",
                number(of_text, 3, Interval::with_ends)
            );
        }
        let _ = writeln!(
            text,
            "| {} | {} | {bits} | {perplexity} | {} |",
            cell(&measured_on(model, measured)),
            kind(found),
            sample(found)
        );
    }
    let _ = write!(
        text,
        "\nAll are of {}. `≤` marks an upper bound. Ranges are 95% intervals: they cover which rows were held out and, where \
         there are draws, which times and masks were drawn. Perplexities of different tokenizers cannot be compared, bits per \
         byte can.",
        match which {
            Weights::Ema => "the averaged weights, which this folder holds",
            Weights::Raw if model.has_only_set() => "the weights of the file, which this folder holds",
            Weights::Raw => "the weights of the last step, which this folder holds",
        }
    );
    text
}

fn kind(found: &Evaluation) -> String {
    let given = if found.is_given_lengths() {
        ", given the lengths of the records"
    } else {
        ""
    };
    format!("{} (`{}`){given}", found.quantity(), found.estimator.name())
}

fn sample(found: &Evaluation) -> String {
    let rows = format!(
        "{} of {}",
        numbers::count(found.rows),
        counted(found.rows_of_split, "row")
    );
    if found.estimator.is_random() {
        format!("{rows}, {} each", counted(found.draws, "draw"))
    } else {
        rows
    }
}

/// The evaluations in the form that the hub reads, as YAML; empty if there are none.
fn index(model: &FinishedModel<'_>, name: &str, evaluations: &[MeasuredModel<'_>]) -> String {
    let mut text = String::new();
    for measured in evaluations {
        let found = &measured.found;
        let mut metrics = String::new();
        let mut add = |kind: &str, interval: Interval, what: String, decimals: usize| {
            if !is_finite(interval) {
                return;
            }
            let range = interval.ends().map_or(String::new(), |(low, high)| {
                format!(", 95% interval {low:.decimals$} to {high:.decimals$}")
            });
            let name = format!("{what}, {}{range}", found.quantity());
            let _ = write!(
                metrics,
                "    - type: {kind}\n      name: {}\n      value: {:.decimals$}\n",
                quoted(&name),
                interval.value
            );
        };
        let perplexity = format!("{} {}", found.perplexity_name(), found.per());
        add("perplexity", found.perplexity, perplexity, 3);
        if let Some(bits) = found.bits_per_byte {
            add("bits_per_byte", bits, "bits per byte".to_owned(), 4);
        }
        if metrics.is_empty() {
            continue;
        }
        let _ = write!(
            text,
            "  - task:\n      type: text-generation\n      name: language modelling\n    dataset:\n      type: {}\n      name: {}\n      split: {}\n    metrics:\n{metrics}",
            quoted(measured.stage),
            quoted(&measured_on(model, measured)),
            split_name(found.split)
        );
    }
    if text.is_empty() {
        return text;
    }
    format!("model-index:\n- name: {}\n  results:\n{text}", quoted(name))
}

impl<'p> FinishedModel<'p> {
    /// The source stages behind a stage with what they served for, each once. `purpose` is that of the stage itself.
    fn sources(
        &self,
        stage: &'p PlannedStage,
        purpose: &'static str,
        found: &mut Vec<(&'p PlannedStage, &'static str)>,
        seen: &mut HashSet<(&'p str, &'static str)>,
    ) {
        if !seen.insert((&stage.name, purpose)) {
            return;
        }
        if matches!(stage.stage, Stage::Source(_)) {
            found.push((stage, purpose));
            return;
        }
        for input in &stage.inputs {
            let purpose = match (&stage.stage, input.role) {
                (Stage::Train(_), "init") => "initial weights",
                (Stage::Tokenize(_), "tokenizer/stage") | (Stage::Checkpoint(_), "tokenizer") => "tokenizer",
                _ => purpose,
            };
            if let Some(stage) = self.plan.stages.get(input.index) {
                self.sources(stage, purpose, found, seen);
            }
        }
    }
}

/// What it learnt, source by source, with licences as far as they are known.
fn data(model: &FinishedModel<'_>) -> String {
    let mut sources = Vec::new();
    model.sources(model.planned, "text", &mut sources, &mut HashSet::new());
    let mut text = String::new();
    if let Stage::Checkpoint(checkpoint) = &model.planned.stage {
        let _ = writeln!(
            text,
            "The model was not trained by this pipeline: see `{}` for the text that it learnt.\n",
            checkpoint.file
        );
    } else if let Some(file) = file_of(model) {
        let _ = writeln!(
            text,
            "The weights that the training began with were trained elsewhere: see `{file}` for the text that they learnt.\n"
        );
    }
    text += "| source | for | content | licence |\n|---|---|---|---|\n";
    for (source, purpose) in sources {
        let Stage::Source(own) = &source.stage else {
            continue;
        };
        let (content, licence) = content_of(&own.input);
        let _ = writeln!(
            text,
            "| `{}` | {purpose} | {} | {} |",
            source.name,
            cell(&content),
            cell(&licence)
        );
    }
    if let Some(rows) = model.rows() {
        let train = &rows.train;
        let _ = write!(
            text,
            "\nThe training split has {} records and {}; {} records were held out.",
            numbers::count(train.records),
            counted(train.rows, "row"),
            numbers::count(rows.validation.records)
        );
    }
    text.trim_end().to_owned()
}

/// What a source has, and its licence.
fn content_of(input: &SourceInput) -> (String, String) {
    let unknown = || "not stated in the manifest".to_owned();
    let listed = |names: Vec<&str>| {
        let shown: Vec<_> = names.iter().take(NAMED).map(|name| format!("`{name}`")).collect();
        let more = names.len().saturating_sub(NAMED);
        let more = if more > 0 {
            format!(" and {more} more")
        } else {
            String::new()
        };
        format!("{}{more}", shown.join(", "))
    };
    match input {
        SourceInput::Corpus(named) => match Corpus::find(&named.corpus) {
            Some(corpus) => (
                format!(
                    "[{}]({}), part `{}`",
                    corpus.title,
                    corpus.homepage,
                    named.split.name()
                ),
                corpus.licence.to_owned(),
            ),
            None => (named.corpus.clone(), unknown()),
        },
        SourceInput::Files(files) => (
            format!(
                "files {}",
                listed(files.files.iter().map(|file| &**file).collect())
            ),
            unknown(),
        ),
        SourceInput::Download(download) => (
            listed(download.files.iter().map(|file| &*file.url).collect()),
            unknown(),
        ),
        SourceInput::Synthetic(synthetic) => (
            format!("{} drawn from a grammar", counted(synthetic.records, "record")),
            "synthetic text".to_owned(),
        ),
    }
}

fn training(model: &FinishedModel<'_>) -> Result<String> {
    let Stage::Train(train) = &model.planned.stage else {
        return Ok(
            "mdlm did not train it: the settings are those of the program that wrote the file.".to_owned(),
        );
    };
    let made = &model.record.provenance;
    let continued = model.input(model.planned, "init").filter(|_| train.continues);
    let before = continued.and_then(|from| model.step_of(from)).unwrap_or(0);
    let steps = train.steps.saturating_sub(before);
    let tokens = steps * u64::from(train.batch) * u64::from(model.info.length);
    let mut text = format!(
        "{} updates of {}, {} tokens in all (padding included)",
        numbers::count(steps),
        counted(train.batch, "row"),
        numbers::abbreviated(usize::try_from(tokens).unwrap_or(usize::MAX)),
    );
    if before > 0 {
        let _ = write!(
            text,
            ", after the {} updates that it continues",
            numbers::count(before)
        );
    }
    if let Some(rows) = model.rows().filter(|rows| rows.train.rows > 0) {
        let passes = steps as f64 * f64::from(train.batch) / rows.train.rows as f64;
        let _ = write!(text, ", {passes:.2} passes through the training rows");
    }
    let _ = write!(
        text,
        ". It took {}, on `{}` with {}.\n\n| setting | value |\n|---|---|\n",
        numbers::took(made.seconds, made.resumed_from()),
        made.device,
        counted(made.threads, "thread")
    );
    let settings = serde_json::to_value(train).wrap(Kind::Internal, || "write the settings".to_owned())?;
    let fields = settings.as_object().into_iter().flatten();
    for (name, value) in fields.filter(|(name, _)| !NOT_SHOWN.contains(&&***name) && *name != "seed") {
        let value = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
        let _ = writeln!(text, "| `{name}` | `{}` |", cell(&value));
    }
    let _ = write!(text, "| `seed` | `{}` |", model.info.seed);
    Ok(text)
}

fn provenance(model: &FinishedModel<'_>, which: Weights) -> Result<String> {
    let (record, made) = (model.record, &model.record.provenance);
    let revision = made.revision.as_deref().unwrap_or("not known");
    let mut text = "| what | value |\n|---|---|\n".to_owned();
    let mut row = |name: &str, value: &str| {
        let _ = writeln!(text, "| {name} | `{}` |", cell(value));
    };
    row("pipeline, stage", &format!("{}, {}", made.pipeline, made.stage));
    row(
        "weights",
        match which {
            Weights::Ema => "ema",
            Weights::Raw if model.has_only_set() => "as the file has them",
            Weights::Raw => "raw",
        },
    );
    row("artifact", &record.artifact.to_string());
    row("cache key", &record.key.digest().to_string());
    row(
        "training (the averaged weights)",
        &ModelInfo::identity(&model.folder)?.to_string(),
    );
    row("tokenizer", &model.info.tokenizer_digest);
    for input in &made.inputs {
        row(
            &format!("input `{}`", input.role),
            &format!("{} {}", input.stage, input.artifact),
        );
    }
    row("mdlm", &made.version);
    row("git revision of mdlm", revision);
    for argument in &made.overrides {
        row("override", argument);
    }
    Ok(text.trim_end().to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn export_card_takes_values_as_they_are() {
        let values = [("a", "{b}".to_owned()), ("b", "x".to_owned())];
        assert_eq!(fill("1 {a} {b} 2", &values).unwrap(), "1 {b} x 2");
        assert!(fill("{c}", &values).is_err());
    }

    #[test]
    fn export_card_states_the_licence_of_a_corpus_as_far_as_it_is_known() {
        let content = |input: Value| content_of(&serde_json::from_value(input).unwrap());
        let (text, licence) = content(json!({ "kind": "corpus", "corpus": "text8" }));
        let corpus = Corpus::find("text8").unwrap();
        assert_eq!(
            text,
            format!("[{}]({}), part `train`", corpus.title, corpus.homepage)
        );
        assert_eq!(licence, corpus.licence);
        let files = json!({ "kind": "files", "files": ["a", "b", "c", "d", "e", "f"] });
        assert_eq!(
            content(files),
            (
                "files `a`, `b`, `c`, `d` and 2 more".to_owned(),
                "not stated in the manifest".to_owned()
            )
        );
        let synthetic = json!({ "kind": "synthetic", "grammar": "s -> 'a'", "records": 10 });
        assert_eq!(content(synthetic).0, "10 records drawn from a grammar");
    }

    #[test]
    fn export_card_names_the_model_of_an_address() {
        for (address, name) in [
            (
                "hf://kuleshov-group/mdlm-owt@25ce5c5",
                Some("kuleshov-group/mdlm-owt"),
            ),
            ("hf://models/o/n@refs/pr/7/model.safetensors", Some("o/n")),
            ("hf://o/n/model.safetensors", Some("o/n")),
            ("hf://gpt2@main", Some("gpt2")),
            (
                "https://huggingface.co/o/n/resolve/main/model.safetensors",
                Some("o/n"),
            ),
            ("https://example.org/o/n/resolve/m", None),
            ("models/last.ckpt", None),
        ] {
            assert_eq!(hub_name(address).as_deref(), name, "{address}");
        }
    }

    #[test]
    fn export_card_has_each_tag_once() {
        let of = |kind: &str| tags(&serde_json::from_value(json!({ "kind": kind })).unwrap());
        assert_eq!(of("mdlm"), "- mdlm\n- masked-diffusion\n- custom_code");
        assert_eq!(of("ar"), "- mdlm\n- ar\n- autoregressive\n- custom_code");
    }
}
