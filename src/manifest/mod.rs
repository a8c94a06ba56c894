//! The manifest as the user wrote it: its types, its schema and its faults.
//!
//! The doc comments of the types are the schema's text, which editors show on hover. Every default is a named constant,
//! and the field's doc comment gives its source: "Default: why" in a doc comment becomes "Default `value`: why" in the
//! schema. Every field has an effect.
//!
//! | file | purpose |
//! |---|---|
//! | `load.rs` | [`Manifest::load`]: file and `--set` arguments → a manifest without faults, or all its faults |
//! | `json.rs` | JSON → a tree whose nodes know their positions in the text |
//! | `source.rs` | the settings of source stages |
//! | `detokenize.rs` | the detokenizers of source stages |
//! | `corpora.rs` | the named corpora |
//! | `objective.rs` | the objectives of train stages |
//! | `fit.rs` | the estimators and samplers that fit an objective |
//! | `published.rs` | the settings that follow the published code where it differs from mdlm's defaults |
//! | `sampler.rs` | samplers and their settings |
//! | `compare.rs` | the settings of compare stages |
//! | `order.rs` | the stages in an order in which each follows the stages that it consumes |
//! | `vocabularies.rs` | the named tokenizers |
//! | `schema.rs` | the JSON Schema of the types below |
//! | `sweep/` | sweeps: expands a stage with a `matrix` into plain stages |
//! | `schema_check.rs` | faults against the schema |
//! | `kinds.rs` | objects with a `kind`: their defaults, and the former fields that moved into them |
//! | `elsewhere.rs` | fields and tokenizers as other programs name them |
//! | `spelling.rs`, `number_hints.rs` | numbers and words as other languages spell them |
//! | `semantic/` | faults that no schema can state |
//! | `fault.rs` | the fields of a fault |
//!
//! A `Manifest` is what was written. The plan (`crate::plan`) is what it means: a DAG with cache keys.

use std::sync::LazyLock;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod compare;
pub mod corpora;
pub mod detokenize;
mod elsewhere;
pub mod fault;
pub mod fit;
pub mod json;
mod kinds;
pub mod load;
mod number_hints;
mod objective;
pub mod order;
mod published;
mod sampler;
pub mod schema;
mod schema_check;
mod semantic;
pub mod source;
mod spelling;
pub mod sweep;
pub mod vocabularies;

pub use compare::{Compare, Compared, Metric, Seed};
pub use elsewhere::{kinds_meant, tokenizer as tokenizer_object};
pub(crate) use fault::did_you_mean;
pub use fault::{Code, Fault, Faults, Location, Related};
pub use load::Loaded;
pub use objective::*;
pub use published::{BoundEnds, Grid, WarmupRates};
pub use sampler::*;
pub use schema::{schema, schema_text};
pub use schema_check::stage_field;
pub use source::{Source, SourceInput, SyntheticInput};
pub use sweep::{Instance, Point, Sweeps};
pub use vocabularies::{PublishedTokenizer, TokenizerDownload};

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
/// Smallest diffusion time drawn ("sampling_eps"); the authors' configuration.
pub const DEFAULT_SAMPLING_EPSILON: f64 = 1e-3;
/// ε of the log-linear and cosine schedules; the authors' configuration.
pub const DEFAULT_NOISE_EPSILON: f64 = 1e-3;
/// Steps between checkpoints: a compromise of ours, about every few minutes at a GPU's pace.
pub const DEFAULT_CHECKPOINT_EVERY: u64 = 1_000;
/// Steps between validations during training; the authors' `val_check_interval` is 10,000, ours is denser.
pub const DEFAULT_VALIDATION_EVERY: u64 = 1_000;
/// Rows of a validation during training: enough for a bound within about 1%.
pub const DEFAULT_VALIDATION_ROWS: u32 = 256;
/// Sampler steps; the authors' configuration (`sampling.steps` is 128).
pub const DEFAULT_SAMPLE_STEPS: u32 = 128;
/// Smallest vocabulary of a tokenizer trained on the records: 256 bytes, the special tokens and some merges.
const MIN_TRAINED_VOCABULARY: u32 = 300;
/// Rows packed into one shard: about 32 MB at 128 tokens of 16 bits.
pub const DEFAULT_SHARD_ROWS: u32 = 131_072;

/// A pipeline that turns text into a trained, evaluated and sampled language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mdlm pipeline")]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Path or URL of the JSON Schema of this file, such as `../schemas/pipeline.schema.json`. Editors use it to
    /// complete and check the file; it has no effect on a run. Default: none.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the pipeline, shown in summaries: up to 64 letters, digits, `-`, `_` and `.`; the first is a letter or a
    /// digit.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), extend("patternErrorMessage" = PIPELINE_NAME))]
    pub name: String,
    /// Purpose of the pipeline, in a sentence or two. It has no effect on a run. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Seed of all random numbers in the pipeline; a stage can set its own `seed`. On a CPU, the same manifest, inputs
    /// and seed give the same bits, whatever the number of threads.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: u64,
    /// The stages, by name: up to 64 letters, digits, `-` and `_`. A stage names the stages whose output it reads;
    /// these references make the graph, and the order in the file does not matter. The name of a swept stage stands for
    /// all its instances; `model@seed=1` names one instance.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1000, "propertyNames" = {
        "pattern": "^[A-Za-z0-9_-]{1,64}(@.{1,1000})?$", "patternErrorMessage": STAGE_NAME
    }))]
    pub stages: IndexMap<String, Stage>,
}

/// The form of a pipeline's name, as messages state it.
const PIPELINE_NAME: &str = "a name: up to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit";
/// The form of a stage's name, as messages state it.
const STAGE_NAME: &str = "a name: up to 64 letters, digits, `-` and `_`";

/// One stage of a pipeline; `kind` selects which.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stage {
    /// Reads text and splits it into records.
    Source(Source),
    /// Turns records into tokens, with a tokenizer that is loaded, or trained on the records.
    Tokenize(Tokenize),
    /// Packs tokens into rows of fixed length, wrapped or padded, and splits the records into training and validation.
    Pack(Pack),
    /// Trains a network on packed rows with the objective in `objective`, by default masked diffusion.
    Train(Train),
    /// Computes the perplexity of a model on packed rows: an upper bound, the exact value or the pseudo-perplexity.
    Evaluate(Evaluate),
    /// Samples texts from a model.
    Sample(Sample),
    /// Collects the results of several stages, or of all instances of a sweep, in one table.
    Compare(Compare),
}

/// Turns records into tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenize {
    /// Name of the source stage whose records are tokenized.
    pub from: String,
    /// The tokenizer: loaded, trained on these records, or taken from another stage.
    pub tokenizer: Tokenizer,
    /// Whether the text of a record may produce special tokens. This happens when the vocabulary has them as ordinary
    /// pieces or words (`</s>` of a Unigram). Special tokens are those with a role and all that the tokenizer marks as
    /// special, except the unknown token. Text that produces the mask token is always an error. Default: `refuse`, so
    /// that such a record is an error.
    #[serde(default, skip_serializing_if = "SpecialTokensInText::is_default")]
    pub special_tokens_in_text: SpecialTokensInText,
}

/// Whether the text of a record may produce special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokensInText {
    /// A record whose text produces a special token is an error.
    #[default]
    Refuse,
    /// Special tokens are produced: the text `</s>` ends a document.
    Allow,
}

impl SpecialTokensInText {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
    fn is_default(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A tokenizer: loaded, trained on the records, or taken from another stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Tokenizer {
    /// A published tokenizer, by name. Its files are downloaded once, or read from `path`. `mdlm tokenizers` lists the
    /// names.
    Published(PublishedTokenizer),
    /// A Hugging Face `tokenizer.json` from `http(s)`, the Hugging Face hub (`hf://`) or a bucket (`s3://`, `gs://`,
    /// `az://`), downloaded once or read from `path`.
    Download(TokenizerDownload),
    /// A local Hugging Face `tokenizer.json`. Truncation, padding and dropout set in the file are switched off.
    File(TokenizerFile),
    /// GPT-2's byte-level BPE, from its vocabulary and merges files. BOS and EOS are `<|endoftext|>`; the mask token is
    /// appended (id 50,257).
    Gpt2(Gpt2Files),
    /// BERT's WordPiece, from its `vocab.txt`. BOS is `[CLS]`, EOS `[SEP]`, padding `[PAD]`, mask `[MASK]`. It
    /// normalizes white space, so bits per byte refer to the normalized text; they include the cost of spelling out the
    /// words that `[UNK]` replaces.
    Bert(BertFile),
    /// Trains a byte-level BPE on the records.
    TrainBpe(TrainTokenizer),
    /// Trains a WordPiece vocabulary on the records. As with `bert`, bits per byte refer to the normalized text.
    TrainWordpiece(TrainTokenizer),
    /// One token per character of a fixed alphabet, as for text8. Any other character is an error that shows its place.
    Characters(Characters),
    /// The tokenizer of another tokenize stage. Use it for text that a model is evaluated on but not trained on.
    Stage(TokenizerOfStage),
}

/// A Hugging Face `tokenizer.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFile {
    /// Path of the file, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Tokens of the special roles. A mask token that the vocabulary lacks is appended to it. Default: the usual names
    /// are tried; see each role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special: Option<SpecialTokens>,
}

/// Tokens of the special roles; for a role that is left out, the usual names are tried.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// The token that begins a row. Default: the first of `[BOS]`, `<s>`, `[CLS]`, `<|endoftext|>` in the vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "BOS")]
    pub bos: Option<String>,
    /// The token that ends a document. Default: the first of `[EOS]`, `</s>`, `[SEP]`, `<|endoftext|>` in the
    /// vocabulary.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "EOS")]
    pub eos: Option<String>,
    /// The token that fills up a padded row. Default: the first of `[PAD]`, `<pad>` in the vocabulary; else the EOS
    /// token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
    /// The token that replaces masked tokens (the absorbing state). Default: the first of `[MASK]`, `<mask>` in the
    /// vocabulary; else `[MASK]` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// GPT-2's byte-level BPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Files {
    /// Path of `vocab.json` (OpenAI's `encoder.json`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// Path of `merges.txt` (OpenAI's `vocab.bpe`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub merges: String,
}

/// BERT's WordPiece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertFile {
    /// Path of `vocab.txt`, one token per line, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// Converts text to lower case and strips accents. Default: the setting of bert-base-uncased, the tokenizer of the
    /// LM1B figures in arXiv 2406.07524.
    #[serde(default = "yes")]
    pub lowercase: bool,
}

/// Settings of a tokenizer trained on the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// Number of tokens in the vocabulary, including the special ones. There are fewer if the text has too few
    /// different words.
    #[schemars(range(min = MIN_TRAINED_VOCABULARY, max = 1_000_000))]
    pub vocabulary_size: u32,
    /// Smallest number of occurrences at which a pair of tokens is merged. Default: as in Hugging Face's trainers of
    /// byte-level BPE and WordPiece.
    #[serde(default = "two")]
    #[schemars(range(min = 1))]
    pub min_frequency: u32,
    /// Converts the text to lower case first. Samples are then lower case too, and bits per byte refer to the
    /// lower-case text. Default: the text is not changed.
    #[serde(default)]
    pub lowercase: bool,
}

/// One token per character.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Characters {
    /// The characters, each once; four special tokens (BOS, EOS, padding, mask) are added. Default: the 27 characters
    /// of text8, the space and the letters.
    #[serde(default = "text8_alphabet")]
    #[schemars(length(min = 1))]
    pub alphabet: String,
}

/// The tokenizer of another stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerOfStage {
    /// Name of the tokenize stage.
    pub stage: String,
}

/// Packs tokens into rows of fixed length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// Name of the tokenize stage whose tokens are packed.
    pub from: String,
    /// L, the number of tokens in a row, including BOS and EOS. It must equal the row length of the `shape` of every
    /// model that is trained or evaluated on the rows.
    #[schemars(range(min = 4, max = 65_536))]
    pub length: u32,
    /// `true`: documents are joined with EOS between them and cut into rows of BOS + (L − 2) tokens + EOS; `tail`
    /// decides about the last, incomplete row. `false`: one record per row, as BOS + record + EOS, truncated or padded
    /// to L; `padding` decides whether padding counts. The published LM1B figures (27.04, 23.00) are for `false`.
    /// Default: the MDLM authors' setting for OpenWebText (arXiv 2406.07524).
    #[serde(default = "yes")]
    pub wrap: bool,
    /// Whether padding counts in losses and bounds. Wrapped rows have no padding to count. Default: as the MDLM authors
    /// do (arXiv 2406.07524).
    #[serde(default)]
    pub padding: Padding,
    /// What happens to the last tokens of each split when they do not fill a row. Only wrapped rows have such a tail.
    /// Default: the MDLM authors drop tails too, one for every 1,000 documents in every worker.
    #[serde(default)]
    pub tail: Tail,
    /// Share of the records that goes to the `validation` split, chosen by a seeded hash of each record's text; the
    /// other records go to `train`. Set 1 if the text is used for evaluation only. Default: no records are held out
    /// unless you set this.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub validation: f64,
    /// File format of the shards. Default: training reads rows in random order, which is fastest with memory-mapped
    /// files.
    #[serde(default)]
    pub format: RowFormat,
    /// Number of rows in a shard. Default: our choice, about 32 MB per shard for rows of 128 tokens of 16 bits.
    #[serde(default = "default_shard_rows")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub shard_rows: u32,
    /// Seed of the hash that splits the records. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// Whether padding counts in losses and bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Padding counts in no loss and no bound. The network still sees it and so knows how long the text is: a bound is
    /// on the text given its length.
    #[default]
    Excluded,
    /// Padding counts like text. A bound is then on the whole record and can be compared with an entropy.
    Counted,
}

/// What happens to the last tokens of a split when they do not fill a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// The last tokens are dropped.
    #[default]
    Drop,
    /// The last tokens become a padded row. The padding is left out of every loss, and the shards carry a loss mask.
    Pad,
}

/// File format of packed rows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum RowFormat {
    /// Arrow IPC files, mapped into memory.
    #[default]
    Arrow,
    /// Parquet, compressed with zstd.
    Parquet,
}

/// Trains a network on packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// Name of the pack stage. Its `train` split is trained on, and its `validation` split is used to validate during
    /// training.
    pub from: String,
    /// Compiled shape of the network; `mdlm shapes` lists them. To add a shape, add a line to `src/shapes.rs` and
    /// rebuild.
    #[schemars(schema_with = "shape_names")]
    pub shape: String,
    /// Number of optimizer steps. (The MDLM authors: 1,000,000 on LM1B, which is 33 billion tokens, and on
    /// OpenWebText.)
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: u64,
    /// Number of rows per optimizer step (the global batch). Default: the MDLM authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch: u32,
    /// Number of rows that go through the network at a time; it must divide `batch`. It changes memory and speed, never
    /// the result, and is not part of the cache key. Default: chosen to fit the memory.
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

/// Precision of activations and matrix products in training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// On a GPU, tensor cores round the factors of f32 products to tf32 (10 bits of mantissa): faster than f32, and
    /// more precise than bf16. On a CPU, which lacks such instructions, the same as f32.
    Tf32,
    /// On a GPU, activations and the factors of products are bfloat16; sums, master weights, gradients of weights and
    /// the optimizer's state are f32. On a CPU, only the factors of the linear layers' products are rounded to
    /// bfloat16: faster if the processor has AVX512-BF16, else slower, with the same results.
    Bf16,
}

impl Precision {
    /// Whether it is the default, which `model.json` leaves out.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Computes the perplexity of a model on packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// Name of the train stage whose model is evaluated.
    pub model: String,
    /// Name of the pack stage whose rows the model is evaluated on.
    pub data: String,
    /// Split of `data` to evaluate on. Default: held-out text measures how a model generalizes.
    #[serde(default = "validation_split")]
    pub split: Split,
    /// Weights to evaluate. Default: the MDLM authors evaluate the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// How the negative log-likelihood is estimated. Default: that of the model's objective, `time` for `mdlm`, `sedd`
    /// and `d3pm`, `exact` for `ar`, `pseudo` for `mlm`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub estimator: Option<Estimator>,
    /// T of the bound in discrete time: that of a reverse process of T steps (arXiv 2406.07524, eq. 43). Only for the
    /// estimator `time`. Default: the `steps` of the model's objective, or else continuous time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1_000_000))]
    #[schemars(title = "Steps of discrete time")]
    pub steps: Option<u32>,
    /// Range of noise levels that the bound covers. Default: `valid`, since the published number is not a bound.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub bound: BoundEnds,
    /// Number of Monte Carlo draws per row. The times of a row's draws are stratified, and the report gives a 95%
    /// interval. The estimators `exact` and `pseudo` draw nothing. Default: our choice; four times as many draws halve
    /// the interval.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100_000))]
    pub draws: u32,
    /// Largest number of rows to evaluate: the first of a seeded permutation. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// Name of the synthetic source stage that the rows come from. The report then shows its exact entropy beside the
    /// result. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of the times, the masks and the permutation of the rows. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// A split of packed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The rows that are trained on.
    Train,
    /// The rows that are held out.
    Validation,
}

/// Which weights of a trained model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The exponential moving average of the weights.
    #[default]
    Ema,
    /// The weights after the last step.
    Raw,
}

/// How the negative log-likelihood of a model is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Draws a time, masks each token with the schedule's probability and weights the loss with the schedule's rate
    /// (arXiv 2406.07524, eq. 10; with `steps`, eq. 43). For `mdlm`, `sedd` and `d3pm`.
    #[default]
    Time,
    /// Draws the number of masked tokens uniformly and weights the loss with length / number (arXiv 2502.09992): the
    /// any-order bound. It is the bound that `time` estimates, with lower variance. For `mlm`, and for `mdlm` without
    /// time conditioning and with both of its switches on.
    Count,
    /// The exact likelihood of a model of `ar`, by the chain rule. Nothing is drawn.
    Exact,
    /// Pseudo-perplexity: each token is masked alone and predicted from all others (arXiv 1902.04094). It is not a bound
    /// on the likelihood. Nothing is drawn, and each token takes a network call. For the same models as `count`.
    Pseudo,
}

impl Estimator {
    /// The manifest's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Time => "time",
            Self::Count => "count",
            Self::Exact => "exact",
            Self::Pseudo => "pseudo",
        }
    }

    /// Whether it draws times or masks: the others give the same number for every seed.
    #[must_use]
    pub fn is_random(self) -> bool {
        matches!(self, Self::Time | Self::Count)
    }
}

/// Samples texts from a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Name of the train stage whose model is sampled.
    pub model: String,
    /// Number of rows to sample.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub count: u32,
    /// Number of reverse steps, from all tokens masked to none. The sampler `autoregressive` takes a step per token,
    /// whatever this number is. Default: the MDLM authors' configuration (`sampling.steps`, arXiv 2406.07524).
    #[serde(default = "default_sample_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub steps: u32,
    /// How texts are drawn. Default: `autoregressive` for a model of `ar`; `cached` for a model without time conditioning
    /// that gives the mask no probability (the MDLM authors' configuration, `ddpm_cache`, arXiv 2406.07524); `ancestral`
    /// for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Starts from rows whose BOS, and EOS in wrapped rows, are already in place instead of masked. The network sees
    /// only relative positions, so these tokens show it where a row begins and ends. The sampler `autoregressive` does
    /// not have it: it always begins with BOS. Default: the MDLM authors start from rows that are all masked (arXiv
    /// 2406.07524).
    #[serde(default)]
    pub given_ends: bool,
    /// Number that the logits are divided by; below 1, likely tokens become more likely. Default: the model's own
    /// distribution.
    #[serde(default = "one")]
    #[schemars(range(min = 1e-3, max = 100.0))]
    pub temperature: f64,
    /// Weights to sample from. Default: the MDLM authors sample from the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// Name of a synthetic source stage. The report then shows the share of sampled sentences that its grammar accepts.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of the random draws. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// Characters of text8: 26 letters and the space.
pub const TEXT8_ALPHABET: &str = " abcdefghijklmnopqrstuvwxyz";

fn shape_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<_> = crate::shapes::SHAPES.iter().map(|s| s.name).collect();
    let sizes: Vec<_> = crate::shapes::SHAPES
        .iter()
        .map(|s| {
            format!(
                "vocabulary {}, rows of {} tokens, width {}, {} heads, {} blocks, conditioning {}",
                s.vocabulary, s.length, s.width, s.heads, s.blocks, s.conditioning
            )
        })
        .collect();
    // `enumDescriptions` is VS Code's: it shows them beside the names.
    schemars::json_schema!({ "type": "string", "enum": names, "enumDescriptions": sizes })
}

macro_rules! defaults {
    ($($name:ident: $type:ty = $value:expr;)*) => { $(fn $name() -> $type { $value })* };
}
defaults! {
    yes: bool = true;
    one: f64 = 1.0;
    two: u32 = 2;
    four: u32 = 4;
    text8_alphabet: String = TEXT8_ALPHABET.to_owned();
    validation_split: Split = Split::Validation;
    default_shard_rows: u32 = DEFAULT_SHARD_ROWS;
    default_batch: u32 = DEFAULT_BATCH;
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
    default_sample_steps: u32 = DEFAULT_SAMPLE_STEPS;
}

/// The kind of a stage, as the manifest spells it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StageKind {
    /// `source`
    Source,
    /// `tokenize`
    Tokenize,
    /// `pack`
    Pack,
    /// `train`
    Train,
    /// `evaluate`
    Evaluate,
    /// `sample`
    Sample,
    /// `compare`
    Compare,
}

impl StageKind {
    /// The manifest's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Tokenize => "tokenize",
            Self::Pack => "pack",
            Self::Train => "train",
            Self::Evaluate => "evaluate",
            Self::Sample => "sample",
            Self::Compare => "compare",
        }
    }
}

/// A field of a stage that names another stage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference<'a> {
    /// The JSON pointer of the field below the stage: `from`, `tokenizer/stage`, `of/0`. Also the input's role.
    pub field: &'static str,
    /// The stage that it names.
    pub stage: &'a str,
    /// The kinds that the named stage may have.
    pub expects: &'static [StageKind],
}

/// The kinds of stages that can be compared.
const COMPARABLE: &[StageKind] = &[StageKind::Evaluate, StageKind::Sample, StageKind::Train];

/// The roles of the inputs of a compare stage, in order: `of/0`, `of/1`, …
pub(crate) fn compared_role(index: usize) -> Option<&'static str> {
    static ROLES: LazyLock<Vec<String>> = LazyLock::new(|| {
        (0..sweep::MAX_STAGES)
            .map(|index| format!("of/{index}"))
            .collect()
    });
    ROLES.get(index).map(String::as_str)
}

impl Stage {
    /// The stage's kind.
    #[must_use]
    pub fn kind(&self) -> StageKind {
        match self {
            Self::Source(_) => StageKind::Source,
            Self::Tokenize(_) => StageKind::Tokenize,
            Self::Pack(_) => StageKind::Pack,
            Self::Train(_) => StageKind::Train,
            Self::Evaluate(_) => StageKind::Evaluate,
            Self::Sample(_) => StageKind::Sample,
            Self::Compare(_) => StageKind::Compare,
        }
    }

    /// The stages that this one consumes, in a fixed order.
    #[must_use]
    pub fn references(&self) -> Vec<Reference<'_>> {
        let to = |field, stage, expects: &'static [StageKind]| Reference {
            field,
            stage,
            expects,
        };
        match self {
            Self::Source(_) => vec![],
            Self::Tokenize(stage) => {
                let mut all = vec![to("from", &*stage.from, &[StageKind::Source])];
                if let Tokenizer::Stage(other) = &stage.tokenizer {
                    all.push(to("tokenizer/stage", &other.stage, &[StageKind::Tokenize]));
                }
                all
            }
            Self::Pack(stage) => vec![to("from", &stage.from, &[StageKind::Tokenize])],
            Self::Train(stage) => vec![to("from", &stage.from, &[StageKind::Pack])],
            Self::Evaluate(stage) => {
                let mut all = vec![
                    to("model", &*stage.model, &[StageKind::Train]),
                    to("data", &stage.data, &[StageKind::Pack]),
                ];
                all.extend(
                    stage
                        .grammar
                        .iter()
                        .map(|g| to("grammar", g, &[StageKind::Source])),
                );
                all
            }
            Self::Sample(stage) => {
                let mut all = vec![to("model", &*stage.model, &[StageKind::Train])];
                all.extend(
                    stage
                        .grammar
                        .iter()
                        .map(|g| to("grammar", g, &[StageKind::Source])),
                );
                all
            }
            Self::Compare(stage) => stage
                .of
                .iter()
                .enumerate()
                .filter_map(|(index, of)| Some(to(compared_role(index)?, &*of.stage, COMPARABLE)))
                .collect(),
        }
    }
}
