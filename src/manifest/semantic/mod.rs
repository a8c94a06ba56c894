//! Semantic faults, which no schema can state.
//!
//! References and cycles are checked on the JSON tree, so that they are reported together with structural faults. A
//! check that follows a chain of stages runs only if no stage of the chain has a structural fault.

mod objective;
mod references;
mod source;
mod tokenizer;

use std::collections::HashSet;

use indexmap::IndexMap;
use serde::Deserialize as _;

use super::fault::{Code, Draft, alternatives, quoted};
use super::json::{Data, Node, Span, pointer_join};
use super::sweep::SIGN;
use super::vocabularies::Published;
use super::{
    COMPARABLE, Evaluate, MIN_TRAINED_VOCABULARY, Pack, Padding, Sample, Source, SourceInput, Split, Stage,
    StageKind, Tail, Tokenize, Tokenizer, Train, compared_role,
};
use crate::plural::counted;
use crate::shapes::{SHAPES, Shape};

/// Tokens of GPT-2's vocabulary with the mask token appended.
const GPT2_VOCABULARY: usize = 50_258;
/// Special tokens of a character tokenizer: BOS, EOS, padding, mask.
const CHARACTER_SPECIAL_TOKENS: usize = 4;

/// The fields that name stages: the kind of stage that has the field, the field, and the kinds that it may name.
/// `Stage::references` lists the same fields of a typed stage; a test compares them. A compare stage has a list instead:
/// see [`Entry::references`].
pub(super) const REFERENCES: &[(StageKind, &str, &[StageKind])] = &[
    (StageKind::Tokenize, "from", &[StageKind::Source]),
    (StageKind::Tokenize, "tokenizer/stage", &[StageKind::Tokenize]),
    (StageKind::Pack, "from", &[StageKind::Tokenize]),
    (StageKind::Train, "from", &[StageKind::Pack]),
    (StageKind::Evaluate, "model", &[StageKind::Train]),
    (StageKind::Evaluate, "data", &[StageKind::Pack]),
    (StageKind::Evaluate, "grammar", &[StageKind::Source]),
    (StageKind::Sample, "model", &[StageKind::Train]),
    (StageKind::Sample, "grammar", &[StageKind::Source]),
];

pub(super) const KINDS: [StageKind; 7] = [
    StageKind::Source,
    StageKind::Tokenize,
    StageKind::Pack,
    StageKind::Train,
    StageKind::Evaluate,
    StageKind::Sample,
    StageKind::Compare,
];

/// The name as written, without the values of an instance.
fn written(name: &str) -> &str {
    name.split(SIGN).next().unwrap_or_default()
}

/// "a source stage", "an evaluate stage".
fn a_stage(kind: StageKind) -> String {
    let article = if kind == StageKind::Evaluate { "an" } else { "a" };
    format!("{article} {} stage", kind.name())
}

/// "an evaluate, sample or train stage".
fn a_stage_of(kinds: &[StageKind]) -> String {
    match kinds {
        [kind] => a_stage(*kind),
        kinds => {
            let names: Vec<_> = kinds.iter().map(|kind| kind.name()).collect();
            format!("a stage of kind {}", alternatives(&names))
        }
    }
}

/// The semantic faults of a manifest, given its structural faults.
pub(super) fn check(tree: &Node, structural: &[Draft]) -> Vec<Draft> {
    let Some(stages) = tree.member("stages") else {
        return Vec::new();
    };
    let entries = stages
        .value
        .members()
        .iter()
        // The schema bounds the number of stages; this keeps the work bounded where that is violated.
        .take(1_000)
        .map(|member| {
            let pointer = pointer_join("/stages", &member.key);
            let kind = member
                .value
                .member("kind")
                .and_then(|kind| kind.value.as_str())
                .and_then(|name| KINDS.into_iter().find(|kind| kind.name() == name));
            let sound = !structural.iter().any(|fault| {
                fault
                    .pointer
                    .strip_prefix(&pointer)
                    .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
            });
            let stage = if sound {
                Stage::deserialize(member.value.to_json()).ok()
            } else {
                None
            };
            let entry = Entry {
                node: &member.value,
                key_span: member.key_span,
                pointer,
                kind,
                stage,
            };
            (member.key.as_str(), entry)
        })
        .collect();
    let mut checker = Checker {
        stages: entries,
        faults: Vec::new(),
    };
    checker.references();
    checker.cycles();
    checker.stages();
    checker.faults
}

struct Entry<'t> {
    node: &'t Node,
    key_span: Span,
    pointer: String,
    kind: Option<StageKind>,
    /// The stage, if it has no structural fault.
    stage: Option<Stage>,
}

impl Entry<'_> {
    /// The place of a field, or of the stage's name where the field is not written.
    fn span(&self, field: &str) -> Span {
        self.node
            .at(&format!("/{field}"))
            .map_or(self.key_span, |node| node.span)
    }

    /// Whether a field is written.
    fn has(&self, field: &str) -> bool {
        self.node.at(&format!("/{field}")).is_some()
    }

    fn fault(&self, code: Code, field: &str, message: impl Into<String>) -> Draft {
        let written = self.node.at(&format!("/{field}"));
        let pointer = if written.is_some() {
            format!("{}/{field}", self.pointer)
        } else {
            self.pointer.clone()
        };
        let draft = Draft::new(code, self.span(field), pointer, message);
        match written {
            Some(node) => draft.value(&node.to_json()),
            None => draft,
        }
    }

    /// The stages that this one names: field, place, name, expected kind.
    fn references(&self) -> impl Iterator<Item = (&'static str, Span, &str, &'static [StageKind])> {
        let compared = match self.node.member("of").map(|of| &of.value.data) {
            Some(Data::Array(items)) if self.kind == Some(StageKind::Compare) => items.as_slice(),
            _ => &[],
        };
        let compared = compared.iter().enumerate().filter_map(|(index, item)| {
            let stage = &item.member("stage")?.value;
            Some((compared_role(index)?, stage.span, stage.as_str()?, COMPARABLE))
        });
        REFERENCES
            .iter()
            .filter(|(kind, ..)| self.kind == Some(*kind))
            .filter_map(|(_, field, expects)| {
                let node = self.node.at(&format!("/{field}"))?;
                Some((*field, node.span, node.as_str()?, *expects))
            })
            .chain(compared)
    }
}

struct Checker<'t> {
    stages: IndexMap<&'t str, Entry<'t>>,
    faults: Vec<Draft>,
}

/// A pack stage and the tokenizer of its rows.
struct Upstream<'m> {
    pack: &'m Pack,
    /// The stage with the tokenizer; references to the tokenizers of other stages are followed.
    tokens: &'m str,
    tokenize: &'m Tokenize,
}

impl<'t> Checker<'t> {
    fn stages(&mut self) {
        let mut faults = Vec::new();
        for (name, entry) in &self.stages {
            match &entry.stage {
                Some(Stage::Tokenize(stage)) => tokenizer::tokenize(entry, stage, &mut faults),
                Some(Stage::Pack(stage)) => pack(entry, stage, &mut faults),
                Some(Stage::Train(stage)) => self.train(entry, stage, &mut faults),
                Some(Stage::Evaluate(stage)) => self.evaluate(name, entry, stage, &mut faults),
                Some(Stage::Sample(stage)) => self.sample(entry, stage, &mut faults),
                Some(Stage::Source(stage)) => source::source(entry, stage, &mut faults),
                Some(Stage::Compare(_)) | None => {}
            }
        }
        self.faults.extend(faults);
    }

    fn entry(&self, name: &str) -> Option<&Entry<'t>> {
        self.stages.get(name)
    }

    fn source_of(&self, name: &str) -> Option<&Source> {
        match &self.entry(name)?.stage {
            Some(Stage::Source(stage)) => Some(stage),
            _ => None,
        }
    }

    fn tokenize_of(&self, name: &str) -> Option<&Tokenize> {
        match &self.entry(name)?.stage {
            Some(Stage::Tokenize(stage)) => Some(stage),
            _ => None,
        }
    }

    fn pack_of(&self, name: &str) -> Option<&Pack> {
        match &self.entry(name)?.stage {
            Some(Stage::Pack(stage)) => Some(stage),
            _ => None,
        }
    }

    fn train_of(&self, name: &str) -> Option<&Train> {
        match &self.entry(name)?.stage {
            Some(Stage::Train(stage)) => Some(stage),
            _ => None,
        }
    }

    /// A pack stage and its tokenizer, if no stage on the way has a fault.
    fn upstream(&self, pack: &str) -> Option<Upstream<'_>> {
        let pack = self.pack_of(pack)?;
        let mut tokens = pack.from.as_str();
        let mut seen = HashSet::new();
        loop {
            let tokenize = self.tokenize_of(tokens)?;
            match &tokenize.tokenizer {
                Tokenizer::Stage(other) if seen.insert(tokens) => tokens = &other.stage,
                Tokenizer::Stage(_) => return None,
                _ => {
                    return Some(Upstream {
                        pack,
                        tokens,
                        tokenize,
                    });
                }
            }
        }
    }

    fn train(&self, entry: &Entry<'_>, stage: &Train, faults: &mut Vec<Draft>) {
        if let Some(micro_batch) = stage.micro_batch
            && !stage.batch.is_multiple_of(micro_batch)
        {
            let batch = stage.batch;
            let below = (1..=micro_batch.min(batch))
                .rev()
                .find(|size| batch.is_multiple_of(*size))
                .unwrap_or(1);
            faults.push(
                entry
                    .fault(
                        Code::MicroBatch,
                        "micro_batch",
                        format!("{micro_batch} does not divide the batch of {batch}"),
                    )
                    .expected(format!("a divisor of {batch}"))
                    .hint(format!(
                        "set `\"micro_batch\": {below}`, the next smaller divisor; it changes memory and speed, not the result"
                    )),
            );
        }
        if stage.warmup_steps > stage.steps {
            let (field, written) = match entry.node.member("warmup_steps") {
                Some(_) => ("warmup_steps", ""),
                None => ("steps", "the default "),
            };
            let message = format!(
                "{written}warm-up of {} is longer than the training of {}",
                counted(stage.warmup_steps, "step"),
                counted(stage.steps, "step")
            );
            faults.push(
                entry
                    .fault(Code::Warmup, field, message)
                    .expected(format!("`warmup_steps` of at most {}", stage.steps))
                    .hint(match stage.steps / 10 {
                        0 => "set `\"warmup_steps\": 0`: no warm-up".to_owned(),
                        tenth => format!("set `\"warmup_steps\": {tenth}`, a tenth of the training"),
                    }),
            );
        }
        objective::settings(entry, &stage.objective, faults);
        if let (Some(pack), Some(rows)) = (self.pack_of(&stage.from), self.entry(&stage.from))
            && pack.validation >= 1.0
        {
            faults.push(
                entry
                    .fault(
                        Code::EmptySplit,
                        "from",
                        format!("{} has no rows to train on", quoted(&stage.from)),
                    )
                    .expected("a pack stage whose `validation` is below 1")
                    .related(rows.span("validation"), "every record goes to `validation`"),
            );
        }
        if let Some(shape) = Shape::find(&stage.shape) {
            let fault = |length: u32| {
                let same: Vec<_> = SHAPES
                    .iter()
                    .filter(|s| s.length == length as usize)
                    .map(|s| s.name)
                    .collect();
                let message = format!(
                    "shape {} has rows of {}, but {} packs rows of {length}",
                    quoted(shape.name),
                    counted(shape.length, "token"),
                    quoted(&stage.from)
                );
                let other_shape = format!("use a shape with rows of {length}: {}", alternatives(&same));
                entry
                    .fault(Code::RowLength, "shape", message)
                    .expected(format!("a shape with rows of {length}"))
                    .maybe_hint((!same.is_empty()).then_some(other_shape))
            };
            faults.extend(self.row_length(&stage.from, shape, fault));
            self.vocabulary(entry, stage, shape, faults);
        }
    }

    /// The fault of a stage that uses rows of another length than its network's. `fault` makes it from the rows' length; its
    /// hint, if any, is another way out.
    fn row_length(&self, rows: &str, shape: &Shape, fault: impl FnOnce(u32) -> Draft) -> Option<Draft> {
        let pack = self.pack_of(rows)?;
        if pack.length as usize == shape.length {
            return None;
        }
        let fault = fault(pack.length).related(self.entry(rows)?.span("length"), "packed here");
        let way = format!("set `\"length\": {}` in {}", shape.length, quoted(rows));
        let hint = match &fault.hint {
            Some(other) => format!("{way}, or {other}"),
            None => way,
        };
        Some(fault.hint(hint))
    }

    /// The tokenizer must not have more tokens than the shape, where its size is known without data.
    fn vocabulary(&self, entry: &Entry<'_>, stage: &Train, shape: &Shape, faults: &mut Vec<Draft>) {
        let Some(upstream) = self.upstream(&stage.from) else {
            return;
        };
        let Some(tokens) = self.entry(upstream.tokens) else {
            return;
        };
        let (size, field, how) = match &upstream.tokenize.tokenizer {
            Tokenizer::Gpt2(_) => (GPT2_VOCABULARY, "tokenizer/kind", "has"),
            Tokenizer::Published(named) => match Published::find(&named.name) {
                Some(published) => (published.vocabulary as usize, "tokenizer/name", "has"),
                None => return, // the schema check reports it
            },
            Tokenizer::TrainBpe(train) | Tokenizer::TrainWordpiece(train) => (
                train.vocabulary_size as usize,
                "tokenizer/vocabulary_size",
                "may have",
            ),
            Tokenizer::Characters(characters) => {
                let size = characters.alphabet.chars().count() + CHARACTER_SPECIAL_TOKENS;
                (size, "tokenizer/alphabet", "has, with special ones,")
            }
            // Their size is in their files, which planning reads.
            Tokenizer::File(_) | Tokenizer::Bert(_) | Tokenizer::Download(_) | Tokenizer::Stage(_) => return,
        };
        if size <= shape.vocabulary {
            return;
        }
        let large: Vec<_> = SHAPES
            .iter()
            .filter(|s| s.vocabulary >= size && s.length == upstream.pack.length as usize)
            .map(|s| s.name)
            .collect();
        let mut ways = Vec::new();
        if field == "tokenizer/vocabulary_size" && shape.vocabulary >= MIN_TRAINED_VOCABULARY as usize {
            ways.push(format!(
                "set `\"vocabulary_size\": {}` in {}",
                shape.vocabulary,
                quoted(upstream.tokens)
            ));
        }
        if !large.is_empty() {
            ways.push(format!(
                "use a shape with a larger vocabulary: {}",
                alternatives(&large)
            ));
        }
        let message = format!(
            "shape {} has a vocabulary of {} tokens, but the tokenizer of {} {how} {size}",
            quoted(shape.name),
            shape.vocabulary,
            quoted(upstream.tokens),
        );
        let hint = if ways.is_empty() {
            None
        } else {
            Some(ways.join(", or "))
        };
        faults.push(
            entry
                .fault(Code::Vocabulary, "shape", message)
                .expected(format!("a shape with a vocabulary of at least {size}"))
                .maybe_hint(hint)
                .related(tokens.span(field), "the size of the tokenizer"),
        );
    }

    fn evaluate(&self, name: &str, entry: &Entry<'_>, stage: &Evaluate, faults: &mut Vec<Draft>) {
        let model = self.train_of(&stage.model);
        if let (Some(pack), Some(rows)) = (self.pack_of(&stage.data), self.entry(&stage.data)) {
            let empty = match stage.split {
                Split::Validation if pack.validation <= 0.0 => Some(("validation", "above 0", "train")),
                Split::Train if pack.validation >= 1.0 => Some(("train", "below 1", "validation")),
                _ => None,
            };
            if let Some((split, bound, other)) = empty {
                let field = if entry.node.member("split").is_some() {
                    "split"
                } else {
                    "data"
                };
                let message = format!("the `{split}` split of {} is empty", quoted(&stage.data));
                faults.push(
                    entry
                        .fault(Code::EmptySplit, field, message)
                        .expected(format!("a split with rows: here `\"split\": \"{other}\"`"))
                        .hint(format!("or set `validation` of {} {bound}", quoted(&stage.data)))
                        .related(rows.span("validation"), "the share of `validation`"),
                );
            }
        }
        if let Some(shape) = model.and_then(|model| Shape::find(&model.shape)) {
            let fault = |length: u32| {
                let message = format!(
                    "{} packs rows of {}, but the model {} has rows of {}",
                    quoted(&stage.data),
                    counted(length, "token"),
                    quoted(&stage.model),
                    shape.length
                );
                entry
                    .fault(Code::RowLength, "data", message)
                    .expected(format!("a pack stage with rows of {}", shape.length))
            };
            faults.extend(self.row_length(&stage.data, shape, fault));
        }
        if let Some(model) = model
            && let (Some(of_model), Some(of_data)) = (self.upstream(&model.from), self.upstream(&stage.data))
            && !same_tokenizer(&of_model, &of_data)
        {
            let message = format!(
                "the rows of {} come from the tokenizer of {}, but {} was trained with that of {}",
                quoted(&stage.data),
                quoted(of_data.tokens),
                quoted(&stage.model),
                quoted(of_model.tokens)
            );
            let mut fault = entry
                .fault(Code::Tokenizer, "data", message)
                .expected("rows from the model's own tokenizer")
                .hint(format!(
                    "tokenize the rows with `\"tokenizer\": {{ \"kind\": \"stage\", \"stage\": \"{}\" }}`",
                    of_model.tokens
                ));
            if let Some(tokens) = self.entry(of_data.tokens) {
                fault = fault.related(tokens.span("tokenizer/kind"), "a different tokenizer");
            }
            faults.push(fault);
        }
        self.estimator(name, entry, stage, faults);
        self.grammar(entry, stage.grammar.as_deref(), Some(&stage.data), faults);
    }

    fn sample(&self, entry: &Entry<'_>, stage: &Sample, faults: &mut Vec<Draft>) {
        self.sampler(entry, stage, faults);
        self.grammar(entry, stage.grammar.as_deref(), None, faults);
    }

    /// `grammar` names a synthetic source; for an evaluation, the one that the rows come from.
    fn grammar(&self, entry: &Entry<'_>, grammar: Option<&str>, data: Option<&str>, faults: &mut Vec<Draft>) {
        let Some(grammar) = grammar else { return };
        let Some(Source { input, .. }) = self.source_of(grammar) else {
            return;
        };
        let SourceInput::Synthetic(synthetic) = input else {
            let synthetic: Vec<_> = self
                .stages
                .iter()
                .filter(|(_, e)| matches!(&e.stage, Some(Stage::Source(s)) if matches!(s.input, SourceInput::Synthetic(_))))
                .map(|(name, _)| *name)
                .collect();
            let which = if synthetic.is_empty() {
                String::new()
            } else {
                format!(": {}", alternatives(&synthetic))
            };
            let mut fault = entry
                .fault(
                    Code::Grammar,
                    "grammar",
                    format!("{} has no grammar: it is not a synthetic source", quoted(grammar)),
                )
                .expected(format!("a synthetic source{which}"))
                .hint("leave `grammar` out if the text is not synthetic");
            if let Some(source) = self.entry(grammar) {
                fault = fault.related(source.span("input/kind"), "not synthetic");
            }
            faults.push(fault);
            return;
        };
        // The exact entropy of a grammar says nothing about text from elsewhere.
        let Some(rows) = data else { return };
        let Some(from) = self
            .pack_of(rows)
            .and_then(|pack| self.tokenize_of(&pack.from))
            .map(|tokens| &tokens.from)
        else {
            return;
        };
        let same = match self.source_of(from).map(|source| &source.input) {
            Some(SourceInput::Synthetic(other)) => other.grammar == synthetic.grammar,
            Some(_) => false,
            None => return,
        };
        if !same {
            let message = format!(
                "the rows of {} come from {}, not from the grammar of {}",
                quoted(rows),
                quoted(from),
                quoted(grammar)
            );
            faults.push(
                entry
                    .fault(Code::Grammar, "grammar", message)
                    .expected("the synthetic source of the rows")
                    .hint("leave `grammar` out if the rows are not synthetic: the entropy of a grammar applies only to its own text"),
            );
        }
    }
}

/// Reports a setting about padding or the tail for rows that have none.
fn pack(entry: &Entry<'_>, stage: &Pack, faults: &mut Vec<Draft>) {
    if stage.wrap && stage.padding == Padding::Counted {
        faults.push(
            entry
                .fault(Code::Padding, "padding", "wrapped rows have no padding to count")
                .expected("`padding` only beside `\"wrap\": false`")
                .hint("set `wrap` to false for one padded record per row, or remove `padding`"),
        );
    }
    if !stage.wrap && stage.tail == Tail::Pad {
        faults.push(
            entry
                .fault(Code::Padding, "tail", "rows that are not wrapped have no tail")
                .expected("`tail` only beside `\"wrap\": true`")
                .hint("remove `tail`: without `wrap`, every row is padded"),
        );
    }
}

/// Whether the tokenizers of two pack stages may be the same: one stage, or the same name, files or alphabet.
fn same_tokenizer(a: &Upstream<'_>, b: &Upstream<'_>) -> bool {
    if a.tokens == b.tokens {
        return true;
    }
    match (&a.tokenize.tokenizer, &b.tokenize.tokenizer) {
        (Tokenizer::TrainBpe(_) | Tokenizer::TrainWordpiece(_), other) => {
            a.tokenize.tokenizer == *other && a.tokenize.from == b.tokenize.from
        }
        // A local copy has the published content.
        (Tokenizer::Published(a), Tokenizer::Published(b)) => a.name == b.name,
        (Tokenizer::Download(a), Tokenizer::Download(b)) => a.url == b.url && a.special == b.special,
        (a, b) => a == b,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::manifest::Manifest;
    use crate::manifest::json::parse;

    /// The faults of a pipeline that evaluates rows of `tests` with a model of rows of `tokens`, as one text.
    fn faults(shape: &str, tokens: serde_json::Value, tests: serde_json::Value) -> String {
        let length = Shape::find(shape).unwrap().length;
        let rows =
            |tokens: &str| json!({ "kind": "pack", "from": tokens, "length": length, "validation": 0.1 });
        let tokenize = |tokenizer| json!({ "kind": "tokenize", "from": "text", "tokenizer": tokenizer });
        let manifest = json!({ "name": "x", "seed": 1, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
            "tokens": tokenize(tokens), "tests": tokenize(tests),
            "rows": rows("tokens"), "test-rows": rows("tests"),
            "model": { "kind": "train", "from": "rows", "shape": shape, "steps": 9000 },
            "bound": { "kind": "evaluate", "model": "model", "data": "test-rows" },
        } });
        match Manifest::from_bytes("x.json", manifest.to_string().into_bytes(), &[]) {
            Ok(_) => String::new(),
            Err(faults) => faults.to_string(),
        }
    }

    #[test]
    fn a_local_copy_is_the_same_tokenizer() {
        let published = |name: &str| json!({ "kind": "published", "name": name });
        let copy = |name: &str| json!({ "kind": "published", "name": name, "path": "copies" });
        assert_eq!(faults("owt-small", published("gpt2"), copy("gpt2")), "");
        let other = faults(
            "lm1b-small",
            published("bert-base-uncased"),
            copy("bert-base-cased"),
        );
        assert!(other.contains("come from the tokenizer of `tests`"), "{other}");
        let url = "hf://o/n@607a30d783dfa663caf39e06633721c8d4cfcd7e/tokenizer.json";
        let download = |more: serde_json::Value| {
            let mut download = json!({ "kind": "download", "url": url });
            download
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            download
        };
        let copy = download(json!({ "path": "tokenizer.json" }));
        assert_eq!(faults("tiny", download(json!({})), copy), "");
        let special = download(json!({ "special": { "bos": "<s>" } }));
        assert!(!faults("tiny", download(json!({})), special).is_empty());
    }

    #[test]
    fn a_path_of_another_program_is_answered_with_a_json_pointer() {
        for (field, hint) in [
            ("text", "did you mean `/text`?"),
            (".text", "did you mean `/text`?"),
            ("$.article.text", "did you mean `/article/text`?"),
            (".", "write an empty string if the value itself is the text"),
        ] {
            let read = json!({ "format": { "kind": "json_lines", "field": field } });
            let input = json!({ "kind": "files", "files": ["a.jsonl"], "read": read });
            let stages = json!({ "text": { "kind": "source", "input": input } });
            let manifest = json!({ "name": "x", "seed": 1, "stages": stages }).to_string();
            let faults = Manifest::from_bytes("x.json", manifest.into_bytes(), &[]).unwrap_err();
            assert_eq!(faults.list[0].hint.as_deref(), Some(hint), "{field}: {faults}");
        }
    }

    #[test]
    fn the_hint_sets_a_vocabulary_only_if_it_can_be_trained() {
        let trained = json!({ "kind": "train_bpe", "vocabulary_size": 4096 });
        let fits = faults(
            "nano",
            trained.clone(),
            json!({ "kind": "stage", "stage": "tokens" }),
        );
        assert!(
            fits.contains("hint: set `\"vocabulary_size\": 512` in `tokens`"),
            "{fits}"
        );
        let small = faults(
            "text8-small",
            trained,
            json!({ "kind": "stage", "stage": "tokens" }),
        );
        assert!(
            small.contains("has a vocabulary of 35 tokens") && !small.contains("set `"),
            "{small}"
        );
    }

    #[test]
    fn the_table_of_references_says_what_the_types_say() {
        let stages = [
            json!({ "kind": "source", "input": { "kind": "files", "files": ["a"] } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "stage", "stage": "b" } }),
            json!({ "kind": "tokenize", "from": "a", "tokenizer": { "kind": "characters" } }),
            json!({ "kind": "pack", "from": "a", "length": 8 }),
            json!({ "kind": "train", "from": "a", "shape": "nano", "steps": 1 }),
            json!({ "kind": "evaluate", "model": "a", "data": "b", "grammar": "c" }),
            json!({ "kind": "evaluate", "model": "a", "data": "b" }),
            json!({ "kind": "sample", "model": "a", "count": 1, "grammar": "c" }),
            json!({ "kind": "compare", "of": [{ "stage": "a", "point": {} }, { "stage": "b", "point": {} }] }),
        ];
        let mut kinds = HashSet::new();
        for stage in stages {
            let typed = Stage::deserialize(&stage).unwrap();
            kinds.insert(typed.kind());
            let node = parse(&stage.to_string(), 0).0.unwrap();
            let entry = Entry {
                node: &node,
                key_span: Span::default(),
                pointer: String::new(),
                kind: Some(typed.kind()),
                stage: None,
            };
            let raw: Vec<_> = entry
                .references()
                .map(|(field, _, target, kind)| (field, target, kind))
                .collect();
            let wanted: Vec<_> = typed
                .references()
                .iter()
                .map(|to| (to.field, to.stage, to.expects))
                .collect();
            assert_eq!(raw, wanted, "{stage}");
        }
        assert_eq!(kinds.len(), KINDS.len());
    }
}
