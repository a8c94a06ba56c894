//! The train stage: rows → a model.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::objective::check_objective;
use super::check::upstream::same_tokenizer;
use super::check::{StageEntry, Stages};
use super::tokenize::{MIN_TRAINED_VOCABULARY, Tokenizer, is_false};
use super::{MODELS, ReferenceField, Stage, StageKind, StageSpec};
use crate::manifest::Objective;
use crate::manifest::fault::{Code, Draft, alternatives, quoted};
use crate::manifest::published::{self, WarmupRates};
use crate::manifest::shape_field::shape_schema;
use crate::manifest::vocabularies::Published;
use crate::plural::counted;
use crate::precision::Precision;
use crate::shape::Shape;

/// Tokens of GPT-2's vocabulary with the mask token appended.
const GPT2_VOCABULARY: usize = 50_258;
/// Special tokens of a character tokenizer: BOS, EOS, padding, mask.
const CHARACTER_SPECIAL_TOKENS: usize = 4;

/// Learning rate of AdamW; arXiv 2406.07524, appendix on training.
pub const DEFAULT_LEARNING_RATE: f64 = 3e-4;
/// Linear warm-up steps; the authors' configuration.
pub const DEFAULT_WARMUP_STEPS: u64 = 2_500;
/// Rows a step; the authors' configuration.
pub const DEFAULT_BATCH: u32 = 512;
/// AdamW's β1; the authors' configuration.
pub const DEFAULT_BETA1: f64 = 0.9;
/// AdamW's β2; the authors' configuration.
pub const DEFAULT_BETA2: f64 = 0.999;
/// AdamW's ε; the authors' configuration.
pub const DEFAULT_EPSILON: f64 = 1e-8;
/// Global gradient-norm clip; the authors' configuration.
pub const DEFAULT_GRADIENT_CLIP: f64 = 1.0;
/// Decay of the weights' exponential moving average; arXiv 2406.07524.
pub const DEFAULT_EMA: f64 = 0.9999;
/// Dropout on the outputs of attention and MLP; the authors' configuration.
pub const DEFAULT_DROPOUT: f64 = 0.1;
/// Steps between checkpoints: a compromise of ours, about every few minutes at a GPU's pace.
pub const DEFAULT_CHECKPOINT_EVERY: u64 = 1_000;
/// Steps between validations during training; the authors' `val_check_interval` is 10,000, ours is denser.
pub const DEFAULT_VALIDATION_EVERY: u64 = 1_000;
/// Rows of a validation during training: enough for a bound within about 1%.
pub const DEFAULT_VALIDATION_ROWS: u32 = 256;

/// Trains a network on packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Name of the pack stage. Its `train` split is trained on, and its `validation` split is used to validate during
    /// training.
    pub from: String,
    /// Compiled shape of the network; `mdlm shapes` lists them. To add a shape, add a line to `src/shapes.rs` and
    /// rebuild.
    #[schemars(schema_with = "shape_schema")]
    pub shape: String,
    /// Name of the train or checkpoint stage whose averaged weights are the initial weights (fine-tuning). It must have this
    /// stage's shape, tokenizer and kind of network; the optimizer starts from zero. Default: random weights.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<String>,
    /// Continues the training of the model that `init` names, where its file has the state of the optimizer: the weights of
    /// the last step, their average, AdamW's moments and the number of steps are taken, and `steps` counts from the
    /// beginning of that training. Optimizer settings that its file states must be the same. Default: false, a new training
    /// from the averaged weights.
    #[serde(default, rename = "continue", skip_serializing_if = "is_false")]
    pub continues: bool,
    /// Number of optimizer steps. (The MDLM authors: 1,000,000 on LM1B, which is 33 billion tokens, and on
    /// OpenWebText.)
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: u64,
    /// Number of rows per optimizer step (the global batch). Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch: u32,
    /// Number of parts of a batch whose gradients are added in a fixed binary tree: a power of two that divides `batch`. As
    /// many processes as divide it can share the training (`mdlm run --ranks`), and all give the same result. Another number
    /// sums in another order: results differ in the last digits. Default: 1, no parts.
    #[serde(default = "default_grains", skip_serializing_if = "published::is_one")]
    #[schemars(range(min = 1, max = 4096))]
    pub grains: u32,
    /// Number of rows that go through the network at a time; it must divide `batch`, and with `grains` a grain. It changes
    /// memory and speed, never the result, and is not part of the cache key. Default: chosen to fit the memory.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch: Option<u32>,
    /// Learning rate of AdamW after warm-up. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_learning_rate")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: f64,
    /// Number of steps over which the learning rate rises linearly from zero; at most `steps`. Default: the MDLM
    /// authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_warmup_steps")]
    pub warmup_steps: u64,
    /// How the learning rate rises during warm-up. Default: `from_one`, so that no update has a learning rate of zero.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub warmup_rates: WarmupRates,
    /// Learning rate after warm-up. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub schedule: LearningRateSchedule,
    /// AdamW's β1: decay of the average of the gradients. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_beta1")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    #[schemars(title = "β1")]
    pub beta1: f64,
    /// AdamW's β2: decay of the average of the squared gradients. Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_beta2")]
    #[schemars(range(min = 0.0, max = 0.999_999_9))]
    #[schemars(title = "β2")]
    pub beta2: f64,
    /// AdamW's ε, added to the root of the averaged squared gradient. Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_epsilon")]
    #[schemars(range(min = 1e-16, max = 1.0))]
    #[schemars(title = "ε")]
    pub epsilon: f64,
    /// AdamW's decoupled weight decay. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// Largest global norm of the gradients; larger ones are scaled down to it. 0 switches clipping off. Default: the
    /// MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_gradient_clip")]
    #[schemars(range(min = 0.0))]
    pub gradient_clip: f64,
    /// Decay of the exponential moving average (EMA) of the weights: min(ema, (1 + n) / (10 + n)) at update n.
    /// Evaluation and sampling use the average by default. Default: the MDLM authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_ema")]
    #[schemars(range(min = 0.0, max = 0.999_999_999))]
    #[schemars(title = "EMA")]
    pub ema: f64,
    /// Dropout probability on the outputs of attention and MLP. Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_dropout")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout: f64,
    /// Precision of activations and matrix products in training. Weights, gradients of weights, optimizer state and
    /// sums are always f32. A model that was trained in `bf16` is also evaluated and sampled in bf16 on a GPU;
    /// everything else is evaluated and sampled in f32. Default: less precision must be asked for.
    #[serde(default)]
    pub precision: Precision,
    /// Objective of training; `mdlm objectives` lists them with their costs. Default: MDLM in the authors' configuration
    /// (arXiv 2406.07524).
    #[serde(default)]
    pub objective: Objective,
    /// Number of steps between validations; 0 validates only at the end. It does not affect the weights: a change of
    /// only this and `validation_rows` does not repeat the training, except with `--force`. Default: our choice; the
    /// MDLM authors' `val_check_interval` is 10,000.
    #[serde(default = "default_validation_every")]
    pub validation_every: u64,
    /// Largest number of rows in a validation. Like `validation_every`, it does not affect the weights. Default: our
    /// choice, enough for a bound within about 1%.
    #[serde(default = "default_validation_rows")]
    #[schemars(range(min = 1))]
    pub validation_rows: u32,
    /// Number of steps between checkpoints, from which an interrupted training resumes. If steps are slow, a checkpoint
    /// is also written every ten minutes. It is not part of the cache key. Default: our choice, every few minutes at
    /// the speed of a GPU.
    #[serde(default = "default_checkpoint_every")]
    #[schemars(range(min = 1))]
    pub checkpoint_every: u64,
    /// Which checkpoints stay in the store after the training has ended. A later training with other `steps`, or with
    /// learning rates that are the same only up to some step, resumes from the newest kept checkpoint that it would
    /// have reached with its own settings; it can always resume from the final state of a shorter training. Not part of
    /// the cache key: if the training is already done, use `--force` to run it again and keep them. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<KeepCheckpoints>,
    /// Seed of the initial weights, the order of the rows, the times, the masks and dropout. Default: the pipeline's
    /// seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// Which checkpoints stay in the store. Each takes four times the size of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepCheckpoints {
    /// Keep the checkpoint of every step that is a multiple of this; 0 keeps none. Default: none, since checkpoints are
    /// large.
    #[serde(default)]
    pub every: u64,
    /// Keep this many of the last checkpoints that `checkpoint_every` writes. Default: none, since the artifact already
    /// holds the final state.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub last: u32,
    /// Keep the checkpoint with the best validation. Default: it is not kept.
    #[serde(default)]
    pub best: bool,
}

/// Learning rate after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    /// Stays constant (as the MDLM authors do).
    #[default]
    Constant,
    /// Falls along a half cosine and reaches zero at the last step.
    Cosine,
}

defaults! {
    default_batch: u32 = DEFAULT_BATCH;
    default_grains: u32 = 1;
    default_learning_rate: f64 = DEFAULT_LEARNING_RATE;
    default_warmup_steps: u64 = DEFAULT_WARMUP_STEPS;
    default_beta1: f64 = DEFAULT_BETA1;
    default_beta2: f64 = DEFAULT_BETA2;
    default_epsilon: f64 = DEFAULT_EPSILON;
    default_gradient_clip: f64 = DEFAULT_GRADIENT_CLIP;
    default_ema: f64 = DEFAULT_EMA;
    default_dropout: f64 = DEFAULT_DROPOUT;
    default_validation_every: u64 = DEFAULT_VALIDATION_EVERY;
    default_validation_rows: u32 = DEFAULT_VALIDATION_ROWS;
    default_checkpoint_every: u64 = DEFAULT_CHECKPOINT_EVERY;
}

/// The size of a tokenizer that its settings state, the field that states it, and how.
pub(super) fn stated_vocabulary(tokenizer: &Tokenizer) -> Option<(usize, &'static str, &'static str)> {
    Some(match tokenizer {
        Tokenizer::Gpt2(_) => (GPT2_VOCABULARY, "tokenizer/kind", "has"),
        Tokenizer::Published(named) => {
            // The schema check reports another name.
            let published = Published::find(&named.name)?;
            (published.vocabulary as usize, "tokenizer/name", "has")
        }
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
        Tokenizer::File(_) | Tokenizer::Bert(_) | Tokenizer::Download(_) | Tokenizer::Stage(_) => {
            return None;
        }
    })
}

impl StageSpec for Train {
    const REFERENCES: &'static [ReferenceField<Self>] = &[
        ReferenceField {
            name: "from",
            expects: &[StageKind::Pack],
            stage: |train| Some(&train.from),
        },
        ReferenceField {
            name: "init",
            expects: MODELS,
            stage: |train| train.init.as_deref(),
        },
    ];
    const MOVED: &'static [(&'static str, &'static str)] = &[
        ("noise", "objective"),
        ("sampling_epsilon", "objective"),
        ("antithetic", "objective"),
        ("time_conditioning", "objective"),
    ];
    const NOT_IN_KEY: &'static [&'static str] = Self::BESIDE_STEPS[0];
    /// When a training validates, and on how many rows.
    const BESIDE_RESULT: &'static [&'static str] = Self::BESIDE_STEPS[1];
    const COMPUTES_NETWORK: bool = true;
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "train", "from": "a", "shape": "nano", "steps": 10 }"#,
        "batch beta1 beta2 dropout ema epsilon gradient_clip learning_rate objective.antithetic objective.kind \
         objective.noise.epsilon objective.noise.kind objective.sampling_epsilon objective.time_conditioning precision \
         schedule shape steps validation_every validation_rows warmup_steps weight_decay",
    );

    fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn is_random(&self) -> bool {
        true
    }

    /// That of its last validation.
    fn has_metric(&self) -> bool {
        true
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        self.check_grains(entry, faults);
        let grain = self.grain().unwrap_or(self.batch);
        if let Some(micro_batch) = self.micro_batch
            && !grain.is_multiple_of(micro_batch)
        {
            let batch = grain;
            let of = if grain == self.batch {
                format!("the batch of {batch}")
            } else {
                format!(
                    "a grain of {batch} rows (`batch` {} / `grains` {})",
                    self.batch, self.grains
                )
            };
            let below = (1..=micro_batch.min(batch))
                .rev()
                .find(|size| batch.is_multiple_of(*size))
                .unwrap_or(1);
            faults.push(
                entry
                    .fault(
                        Code::MicroBatch,
                        "micro_batch",
                        format!("{micro_batch} does not divide {of}"),
                    )
                    .expected(format!("a divisor of {batch}"))
                    .hint(format!(
                        "set `\"micro_batch\": {below}`, the next smaller divisor; it changes memory and speed, not the result"
                    )),
            );
        }
        if self.warmup_steps > self.steps {
            let (field, written) = match entry.node.member("warmup_steps") {
                Some(_) => ("warmup_steps", ""),
                None => ("steps", "the default "),
            };
            let message = format!(
                "{written}warm-up of {} is longer than the training of {}",
                counted(self.warmup_steps, "step"),
                counted(self.steps, "step")
            );
            faults.push(
                entry
                    .fault(Code::Warmup, field, message)
                    .expected(format!("`warmup_steps` of at most {}", self.steps))
                    .hint(match self.steps / 10 {
                        0 => "set `\"warmup_steps\": 0`: no warm-up".to_owned(),
                        tenth => format!("set `\"warmup_steps\": {tenth}`, a tenth of the training"),
                    }),
            );
        }
        check_objective(entry, &self.objective, faults);
        self.check_init(stages, entry, faults);
        if let (Some(pack), Some(rows)) = (stages.pack_of(&self.from), stages.entry(&self.from))
            && pack.validation >= 1.0
        {
            faults.push(
                entry
                    .fault(
                        Code::EmptySplit,
                        "from",
                        format!("{} has no rows to train on", quoted(&self.from)),
                    )
                    .expected("a pack stage whose `validation` is below 1")
                    .related(rows.span("validation"), "every record goes to `validation`"),
            );
        }
        if let (Some(pack), Some(rows)) = (stages.pack_of(&self.from), stages.entry(&self.from))
            && let Some(field) = pack.context_field()
        {
            let message = format!(
                "the rows of {} begin with tokens that are given and not scored: no model learns from them",
                quoted(&self.from)
            );
            faults.push(
                entry
                    .fault(Code::Context, "from", message)
                    .expected("a pack stage without `stride` and `scored`")
                    .hint("pack the tokens twice: once to train on, and once to evaluate on")
                    .related(rows.span(field), "rows with context"),
            );
        }
        if let Some(shape) = stages.shapes.find(&self.shape) {
            let fault = |length: u32| {
                let same: Vec<_> = stages
                    .shapes
                    .iter()
                    .filter(|s| s.length == length as usize)
                    .map(|s| s.name)
                    .collect();
                let message = format!(
                    "shape {} has rows of {}, but {} packs rows of {length}",
                    quoted(shape.name),
                    counted(shape.length, "token"),
                    quoted(&self.from)
                );
                let other_shape = format!("use a shape with rows of {length}: {}", alternatives(&same));
                entry
                    .fault(Code::RowLength, "shape", message)
                    .expected(format!("a shape with rows of {length}"))
                    .maybe_hint((!same.is_empty()).then_some(other_shape))
            };
            faults.extend(stages.row_length(&self.from, shape, fault));
            self.check_vocabulary(stages, entry, shape, faults);
        }
    }
}

impl Train {
    /// The fields that change no step: how the training works, and when it validates.
    pub const BESIDE_STEPS: [&'static [&'static str]; 2] = [
        &["micro_batch", "checkpoint_every", "keep_checkpoints"],
        &["validation_every", "validation_rows"],
    ];

    /// Rows of a grain, where the batch can be cut as the settings say.
    #[must_use]
    pub fn grain(&self) -> Option<u32> {
        let fits = self.grains.is_power_of_two() && self.batch.is_multiple_of(self.grains);
        fits.then(|| self.batch / self.grains)
    }

    /// Grains are a power of two that divides the batch.
    fn check_grains(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        if self.grain().is_some() {
            return;
        }
        let (grains, batch) = (self.grains, self.batch);
        let message = match grains.is_power_of_two() {
            true => format!(
                "{grains} grains do not divide the batch of {}",
                counted(u64::from(batch), "row")
            ),
            false => format!("{grains} is not a power of two"),
        };
        // The largest power of two that divides the batch, and those below it.
        let most = 1 << batch.trailing_zeros().min(12);
        let below = (grains.min(most) + 1).next_power_of_two() / 2;
        faults.push(
            entry
                .fault(Code::Grains, "grains", message)
                .expected(match most {
                    1 => "1, since the batch is odd".to_owned(),
                    most => format!("a power of two, at most {most} for a batch of {batch}"),
                })
                .hint(format!(
                    "set `\"grains\": {below}`; as many processes as divide it can share the training"
                )),
        );
    }

    /// The model that it starts from must have its shape, its network and its tokenizer.
    fn check_init(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let Some(init) = &self.init else {
            if self.continues {
                let message = "`continue` is true, but `init` names no model";
                faults.push(
                    entry
                        .fault(Code::Init, "continue", message)
                        .expected("`init` with the name of a train or checkpoint stage")
                        .hint("name the model in `init`, or leave `continue` out"),
                );
            }
            return;
        };
        if self.continues {
            self.check_continued(init, stages, entry, faults);
        }
        let Some(model) = stages.model_of(init) else {
            return;
        };
        if model.shape != self.shape {
            let message = format!(
                "{} has shape {}, but this stage has {}: weights of another shape do not fit",
                quoted(init),
                quoted(model.shape),
                quoted(&self.shape)
            );
            faults.push(
                entry
                    .fault(Code::Init, "init", message)
                    .expected(format!("a model of shape {}", quoted(&self.shape)))
                    .hint(format!("set `\"shape\": \"{}\"`", model.shape)),
            );
        }
        let own = self.objective.backbone();
        if let Some(objective) = model.objective
            && objective.backbone() != own
        {
            let message = format!(
                "{} is a {} (objective `{}`), but objective `{}` trains a {own}",
                quoted(init),
                objective.backbone(),
                objective.kind(),
                self.objective.kind()
            );
            faults.push(
                entry
                    .fault(Code::Init, "init", message)
                    .expected(format!("a model that is a {own}"))
                    .hint("leave `init` out, or name a model of the same kind of network"),
            );
        }
        if let (Some(of_model), Some(of_rows)) = (&model.tokenizer, stages.upstream(&self.from))
            && !same_tokenizer(of_model, &of_rows.origin())
        {
            let message = format!(
                "the rows of {} come from the tokenizer of {}, but {} was trained with that of {}",
                quoted(&self.from),
                quoted(of_rows.tokens),
                quoted(init),
                quoted(of_model.tokens)
            );
            faults.push(
                entry
                    .fault(Code::Tokenizer, "init", message)
                    .expected("a model of the same tokenizer")
                    .hint(format!(
                        "tokenize the rows with `\"tokenizer\": {{ \"kind\": \"stage\", \"stage\": \"{}\" }}`",
                        of_model.tokens
                    )),
            );
        }
    }

    /// A training that is continued has the same optimizer, and fewer steps. Of a file, it is known when it is read.
    fn check_continued(
        &self,
        init: &str,
        stages: &Stages<'_>,
        entry: &StageEntry<'_>,
        faults: &mut Vec<Draft>,
    ) {
        let Some(Some(Stage::Train(other))) = stages.entry(init).map(|entry| &entry.stage) else {
            return;
        };
        for (field, theirs, ours) in [
            ("beta1", other.beta1, self.beta1),
            ("beta2", other.beta2, self.beta2),
            ("epsilon", other.epsilon, self.epsilon),
            ("weight_decay", other.weight_decay, self.weight_decay),
            ("ema", other.ema, self.ema),
        ] {
            if theirs != ours {
                let message = format!(
                    "`{field}` is {theirs} in {}, but {ours} in this stage, which continues its training",
                    quoted(init)
                );
                faults.push(
                    entry
                        .fault(Code::Init, "continue", message)
                        .expected("the optimizer of the training that is continued")
                        .hint(format!("set `\"{field}\": {theirs}`, or leave `continue` out")),
                );
            }
        }
        if self.steps <= other.steps {
            let message = format!(
                "{} is at step {} at its end, and `steps` is {}",
                quoted(init),
                other.steps,
                self.steps
            );
            faults.push(
                entry
                    .fault(Code::Init, "steps", message)
                    .expected(format!("more than {} steps", other.steps))
                    .hint("set `steps` to those of the whole training: the ones of the model count"),
            );
        }
    }

    /// The tokenizer must not have more tokens than the shape, where its size is known without data.
    fn check_vocabulary(
        &self,
        stages: &Stages<'_>,
        entry: &StageEntry<'_>,
        shape: &Shape,
        faults: &mut Vec<Draft>,
    ) {
        let Some(upstream) = stages.upstream(&self.from) else {
            return;
        };
        let Some(tokens) = stages.entry(upstream.tokens) else {
            return;
        };
        let Some((size, field, how)) = stated_vocabulary(&upstream.tokenize.tokenizer) else {
            return;
        };
        if size <= shape.vocabulary {
            return;
        }
        let large: Vec<_> = stages
            .shapes
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
}
