//! What the user wrote: the manifest, its types, its schema and its faults.
//!
//! The doc comments of the types are the schema's text: they are what an editor shows on hover. Every default
//! is a named constant, and the field's text says where it comes from: "Default: why" in a doc comment becomes
//! "Default `value`: why" in the schema. A field that has no effect does not exist.
//!
//! | file | what it does |
//! |---|---|
//! | `load.rs` | [`Manifest::load`]: file and `--set` arguments → a manifest without faults, or all its faults |
//! | `text.rs` | JSON → a tree that knows the place of everything |
//! | `source.rs` | the settings of source stages |
//! | `corpora.rs` | the corpora that have names |
//! | `objective.rs` | the objectives of train stages |
//! | `published.rs` | where the published code does otherwise, by name |
//! | `sampler.rs` | samplers and their settings |
//! | `order.rs` | stages, each after those it consumes |
//! | `vocabularies.rs` | the tokenizers that have names |
//! | `schema.rs` | the JSON Schema of the types below |
//! | `matrix.rs` | sweeps: a stage with a `matrix` spelt out as plain stages |
//! | `structure.rs` | faults against the schema |
//! | `kinds.rs` | objects with a `kind`: their defaults, and former fields that they took in |
//! | `meaning.rs` | faults that no schema can state |
//! | `fault.rs` | the fields of a fault |
//!
//! `Manifest` is what was written; what it means (a DAG with cache keys) is the plan's (`crate::plan`).

use std::sync::LazyLock;

use indexmap::IndexMap;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub mod compare;
pub mod corpora;
pub mod detokenize;
mod elsewhere;
pub mod fault;
mod kinds;
pub mod load;
pub mod matrix;
mod meaning;
mod objective;
pub mod order;
mod published;
mod sampler;
pub mod schema;
pub mod source;
mod spelling;
mod structure;
pub mod text;
pub mod vocabularies;

pub use compare::{Compare, Compared, Metric, Seed};
pub use elsewhere::tokenizer as tokenizer_object;
pub use fault::{Code, Fault, Faults, Place, Related};
pub use load::Loaded;
pub use matrix::{Instance, Point, Sweeps};
pub use objective::{MdlmObjective, Noise, NoiseEpsilon, NoiseRange, Objective};
pub use published::{BoundEnds, Grid, WarmupRates};
pub use sampler::{AncestralSteps, Sampler};
pub use schema::{schema, schema_text};
pub use source::{Source, SourceInput, SyntheticInput};
pub use structure::stage_field;
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
/// Rows packed into one shard: about 32 MB at 128 tokens of 16 bits.
pub const DEFAULT_SHARD_ROWS: u32 = 131_072;

/// A pipeline from text to a trained, evaluated and sampled masked diffusion language model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(title = "mdlm pipeline")]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Path or URL of the JSON Schema of this file, with which editors complete and check it:
    /// `../schemas/pipeline.schema.json`. Has no effect on what runs. Default: none.
    #[serde(rename = "$schema", default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<String>,
    /// Name of the pipeline, shown in summaries: up to 64 letters, digits, `-`, `_` and `.`.
    #[schemars(regex(pattern = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"), extend("patternErrorMessage" = PIPELINE_NAME))]
    pub name: String,
    /// What the pipeline is for, in a sentence or two. Has no effect on what runs. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Seed of every random number of the pipeline; a stage may have its own. The same manifest, inputs and seed give
    /// the same bits on a CPU, whatever the number of threads.
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: u64,
    /// The stages by name: up to 64 letters, digits, `-` and `_`. A stage names the stages that it consumes, which
    /// makes the graph; the order in the file has no meaning. A swept stage is consumed by its name, in all its
    /// instances, or by that of one instance: `model@seed=1`.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 1000, "propertyNames" = {
        "pattern": "^[A-Za-z0-9_-]{1,64}(@.{1,1000})?$", "patternErrorMessage": STAGE_NAME
    }))]
    pub stages: IndexMap<String, Stage>,
}

/// What a pipeline may be called, for a person.
const PIPELINE_NAME: &str = "a name: up to 64 letters, digits, `-`, `_` and `.`, the first a letter or digit";
/// What a stage may be called, for a person.
const STAGE_NAME: &str = "a name: up to 64 letters, digits, `-` and `_`";

/// One stage of a pipeline; `kind` says of which kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Stage {
    /// Brings text in, as records.
    Source(Source),
    /// Turns records into tokens, with a tokenizer that is loaded or trained here.
    Tokenize(Tokenize),
    /// Cuts tokens into rows of fixed length, wrapped or padded, and splits them for training and validation.
    Pack(Pack),
    /// Trains a network on packed rows for the objective that `objective` names, masked diffusion by default.
    Train(Train),
    /// Bounds the perplexity of a model on packed rows.
    Evaluate(Evaluate),
    /// Draws texts from a model.
    Sample(Sample),
    /// Puts the results of several stages, or of all instances of a sweep, into one table.
    Compare(Compare),
}

/// Turns records into tokens.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tokenize {
    /// The source stage whose records are tokenized.
    pub from: String,
    /// The tokenizer: loaded, trained on these records, or another stage's.
    pub tokenizer: Tokenizer,
    /// Whether text may make special tokens, as a vocabulary does that has them among its pieces or words (`</s>` of a
    /// Unigram). Meant are the tokens of the roles and all that the tokenizer marks as special, but for the unknown token.
    /// The mask is refused whatever is set here. Default: such a record is an error.
    #[serde(default, skip_serializing_if = "SpecialTokensInText::is_default")]
    pub special_tokens_in_text: SpecialTokensInText,
}

/// Whether text may make special tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum SpecialTokensInText {
    /// A record whose text makes one is an error.
    #[default]
    Refuse,
    /// They are made: the text `</s>` ends a document.
    Allow,
}

impl SpecialTokensInText {
    fn is_default(&self) -> bool {
        *self == Self::Refuse
    }
}

/// A tokenizer: loaded, trained on the records, or another stage's.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Tokenizer {
    /// A tokenizer by the name under which it is published, downloaded once or brought by hand; `mdlm tokenizers` lists
    /// them.
    Published(PublishedTokenizer),
    /// A Hugging Face `tokenizer.json` from `http(s)`, the Hugging Face hub (`hf://`) or a bucket, downloaded once or
    /// brought by hand.
    Download(TokenizerDownload),
    /// A Hugging Face `tokenizer.json`. Truncation, padding and dropout fixed in the file are switched off.
    File(TokenizerFile),
    /// GPT-2's byte-level BPE from its vocabulary and merges. BOS and EOS are `<|endoftext|>`; the mask token is
    /// appended (id 50,257).
    Gpt2(Gpt2Files),
    /// BERT's WordPiece from its `vocab.txt`. BOS is `[CLS]`, EOS `[SEP]`, padding `[PAD]`, mask `[MASK]`. It does not distinguish
    /// white space, so that bits per byte are those of normalized text; what `[UNK]` stands for is spelled out in them.
    Bert(BertFile),
    /// Trains a byte-level BPE on the records.
    TrainBpe(TrainTokenizer),
    /// Trains a WordPiece vocabulary on the records. As with `bert`, bits per byte are those of normalized text.
    TrainWordpiece(TrainTokenizer),
    /// One token a character of a fixed alphabet, as for text8; any other character is an error that shows its place.
    Characters(Characters),
    /// The tokenizer of another tokenize stage: for text that a model is evaluated on and did not learn from.
    Stage(TokenizerOfStage),
}

/// A Hugging Face `tokenizer.json`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerFile {
    /// The file, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub path: String,
    /// Which of its tokens play the special roles. A mask token that the vocabulary lacks is appended to it. Default:
    /// the usual names are tried, see each role.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub special: Option<SpecialTokens>,
}

/// Which tokens play the special roles; the usual names are tried for those left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct SpecialTokens {
    /// Begins a row. Default: the first that exists of `[BOS]`, `<s>`, `[CLS]`, `<|endoftext|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "BOS")]
    pub bos: Option<String>,
    /// Ends a document. Default: the first that exists of `[EOS]`, `</s>`, `[SEP]`, `<|endoftext|>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(title = "EOS")]
    pub eos: Option<String>,
    /// Fills up a padded row. Default: the first that exists of `[PAD]`, `<pad>`; else the EOS token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pad: Option<String>,
    /// The absorbing state. Default: the first that exists of `[MASK]`, `<mask>`; else `[MASK]` is appended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mask: Option<String>,
}

/// GPT-2's byte-level BPE.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Gpt2Files {
    /// `vocab.json` (OpenAI's `encoder.json`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// `merges.txt` (OpenAI's `vocab.bpe`), relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub merges: String,
}

/// BERT's WordPiece.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct BertFile {
    /// `vocab.txt`, one token a line, relative to the manifest's folder.
    #[schemars(length(min = 1))]
    pub vocabulary: String,
    /// Lower-cases and strips accents. Default: bert-base-uncased's own setting, the tokenizer of the LM1B figures in
    /// arXiv 2406.07524.
    #[serde(default = "yes")]
    pub lowercase: bool,
}

/// Settings of a tokenizer trained on the records.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TrainTokenizer {
    /// Tokens in the vocabulary, the special ones included. Fewer result when the text has too few words.
    #[schemars(range(min = 300, max = 1_000_000))]
    pub vocabulary_size: u32,
    /// A pair of tokens is merged only when it occurs this often. Default: Hugging Face's trainers of byte-level BPE
    /// and WordPiece.
    #[serde(default = "two")]
    #[schemars(range(min = 1))]
    pub min_frequency: u32,
    /// Lower-cases the text first; what is sampled is then lower case too, and bits per byte are those of lower-cased text.
    /// Default: the text stays what it is.
    #[serde(default)]
    pub lowercase: bool,
}

/// One token a character.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Characters {
    /// The characters, each once; four special tokens are added. Default: text8's 27, the space and the letters.
    #[serde(default = "text8_alphabet")]
    #[schemars(length(min = 1))]
    pub alphabet: String,
}

/// The tokenizer of another stage.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TokenizerOfStage {
    /// A tokenize stage.
    pub stage: String,
}

/// Cuts tokens into rows of fixed length.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Pack {
    /// The tokenize stage whose tokens are packed.
    pub from: String,
    /// L: tokens a row, BOS and EOS included. The shape of the model that learns or judges the rows has the same L.
    #[schemars(range(min = 4, max = 65_536))]
    pub length: u32,
    /// `true`: documents are joined with EOS between them and cut into rows BOS + (length − 2) tokens + EOS; `tail`
    /// decides about the tail that does not fill a row. `false`: one record a row, BOS + record + EOS, truncated
    /// and padded; what padding counts for is `padding`'s choice. The published LM1B figures (27.04, 23.00) are for `false`.
    /// Default: the authors' setting for OpenWebText.
    #[serde(default = "yes")]
    pub wrap: bool,
    /// What padding is to losses and bounds. Wrapped rows have none to count. Default: as the authors do.
    #[serde(default)]
    pub padding: Padding,
    /// The treatment of the last tokens of each split's joined documents, which do not fill a row. Rows that are not
    /// wrapped have no such tail. Default: the authors drop tails, too, one of every 1,000 documents in every worker.
    #[serde(default)]
    pub tail: Tail,
    /// Share of the records that goes to the `validation` split, by a seeded hash of the record's text; the rest is
    /// `train`. 1 for text that is for evaluation only. Default: nothing is held out that was not asked for.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub validation: f64,
    /// File format of the shards. Default: rows are read in random order, and mapped files are fastest at that.
    #[serde(default)]
    pub format: RowFormat,
    /// Rows a shard. Default: our choice, about 32 MB a shard at 128 tokens of 16 bits.
    #[serde(default = "default_shard_rows")]
    #[schemars(range(min = 1, max = 100_000_000))]
    pub shard_rows: u32,
    /// Seed of the split. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// What padding is to losses and bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Padding {
    /// Left out of every loss. The network sees it and so knows a text's length: bounds are on the text given its length.
    #[default]
    Excluded,
    /// Counts like text: bounds are on the whole record, and compare with an entropy.
    Counted,
}

/// The treatment of tokens that do not fill a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Tail {
    /// They are dropped.
    #[default]
    Drop,
    /// They make a last row, padded; the padding is left out of every loss, and the shards carry a loss mask.
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

/// Trains a network on packed rows for the objective that `objective` names.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Train {
    /// The pack stage whose `train` split is learnt and whose `validation` split is watched.
    pub from: String,
    /// The compiled shape of the network; `mdlm shapes` lists them. Another one is a line in `src/shapes.rs` and a
    /// rebuild.
    #[schemars(schema_with = "shape_names")]
    pub shape: String,
    /// Optimizer steps. (The authors: 1,000,000 on LM1B, 33 billion tokens, and on OpenWebText.)
    #[schemars(range(min = 1, max = 1_000_000_000))]
    pub steps: u64,
    /// Rows a step (the global batch). Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_batch")]
    #[schemars(range(min = 1, max = 1_048_576))]
    pub batch: u32,
    /// Rows that go through the network at a time; must divide `batch`. Changes memory and speed, never the result, and
    /// is not part of the cache key. Default: chosen to fit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub micro_batch: Option<u32>,
    /// Learning rate of AdamW after warm-up. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_learning_rate")]
    #[schemars(range(min = 0.0, max = 10.0))]
    pub learning_rate: f64,
    /// Steps over which the learning rate rises linearly from zero; at most `steps`. Default: the authors'
    /// configuration (arXiv 2406.07524).
    #[serde(default = "default_warmup_steps")]
    pub warmup_steps: u64,
    /// From which number updates are counted during warm-up. Default: no update without effect.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub warmup_rates: WarmupRates,
    /// What the learning rate does after warm-up. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub schedule: LearningRateSchedule,
    /// AdamW's β1: decay of the gradient's average. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_beta1")]
    #[schemars(range(min = 0.0, max = 0.999_999))]
    #[schemars(title = "β1")]
    pub beta1: f64,
    /// AdamW's β2: decay of the squared gradient's average. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_beta2")]
    #[schemars(range(min = 0.0, max = 0.999_999_9))]
    #[schemars(title = "β2")]
    pub beta2: f64,
    /// AdamW's ε, added to the root of the squared gradient's average. Default: the authors' configuration (arXiv
    /// 2406.07524).
    #[serde(default = "default_epsilon")]
    #[schemars(range(min = 1e-16, max = 1.0))]
    #[schemars(title = "ε")]
    pub epsilon: f64,
    /// AdamW's decoupled weight decay. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub weight_decay: f64,
    /// Gradients whose global norm exceeds this are scaled down to it; 0 switches it off. Default: the authors'
    /// configuration (arXiv 2406.07524).
    #[serde(default = "default_gradient_clip")]
    #[schemars(range(min = 0.0))]
    pub gradient_clip: f64,
    /// Decay of the weights' exponential moving average: min(ema, (1 + n) / (10 + n)) at update n. Evaluation and
    /// sampling use the average. Default: arXiv 2406.07524.
    #[serde(default = "default_ema")]
    #[schemars(range(min = 0.0, max = 0.999_999_999))]
    #[schemars(title = "EMA")]
    pub ema: f64,
    /// Dropout on the outputs of attention and MLP. Default: the authors' configuration (arXiv 2406.07524).
    #[serde(default = "default_dropout")]
    #[schemars(range(min = 0.0, max = 0.9))]
    pub dropout: f64,
    /// Precision of training. Weights, their gradients, the optimizer's state and all sums are f32 whatever this says.
    /// Evaluation and sampling compute in f32, but on a GPU in bf16 where the model was trained in bf16. Default: no
    /// rounding that was not asked for.
    #[serde(default)]
    pub precision: Precision,
    /// What the model is trained for. Default: MDLM in the authors' configuration (arXiv 2406.07524).
    #[serde(default)]
    pub objective: Objective,
    /// Steps between validations; 0 validates at the end only. It cannot change the weights: a training that differs in
    /// this and in `validation_rows` alone is not repeated, unless `--force` asks for it. Default: our choice; the authors' `val_check_interval`
    /// is 10,000.
    #[serde(default = "default_validation_every")]
    pub validation_every: u64,
    /// Rows of each validation, at most. As `validation_every`, it cannot change the weights. Default: our choice, enough for a bound within about 1%.
    #[serde(default = "default_validation_rows")]
    #[schemars(range(min = 1))]
    pub validation_rows: u32,
    /// Steps between checkpoints, from which an interrupted training goes on; where steps take long there is one every ten
    /// minutes too. Not part of the cache key. Default: our choice, every few minutes at a GPU's pace.
    #[serde(default = "default_checkpoint_every")]
    #[schemars(range(min = 1))]
    pub checkpoint_every: u64,
    /// Which checkpoints stay in the store when the training has ended. Not part of the cache key. A training with other
    /// `steps`, or with learning rates that differ later on, goes on from the newest that it would have come through
    /// itself; from the end of a shorter training it does so in any case. Of a training that is done already, `--force`
    /// makes them. Default: none stay.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keep_checkpoints: Option<KeepCheckpoints>,
    /// Seed of weights, order, times, masks and dropout. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// Which checkpoints stay. Each has four times the size of the weights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepCheckpoints {
    /// Those of every so many steps; 0 for none. Default: none, they take room.
    #[serde(default)]
    pub every: u64,
    /// That many of the last that are written (`checkpoint_every`). Default: none, the artifact holds the last state.
    #[serde(default)]
    #[schemars(range(max = 1000))]
    pub last: u32,
    /// The one with the best validation bound. Default: no.
    #[serde(default)]
    pub best: bool,
}

/// What the learning rate does after warm-up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum LearningRateSchedule {
    /// Stays (the authors' choice).
    #[default]
    Constant,
    /// Falls to zero along a half cosine at the last step.
    Cosine,
}

/// Precision of training.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Precision {
    /// 32-bit floats.
    #[default]
    F32,
    /// On a GPU, the tensor cores round the factors of f32 products to tf32, 10 bits of mantissa: faster, and nearer to f32
    /// than bf16. On a CPU, which has no such instructions, the same as f32.
    Tf32,
    /// On a GPU, activations and the factors of products in bfloat16; sums, master weights, gradients of weights and the
    /// optimizer's state in f32. On a CPU, the factors of the linear layers' products rounded to bfloat16, all else in f32:
    /// faster where the processor has AVX512-BF16, slower elsewhere; the same results on both.
    Bf16,
}

impl Precision {
    /// Whether it is the default: what is written of a model leaves it out then.
    #[must_use]
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Bounds the perplexity of a model on packed rows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Evaluate {
    /// The train stage whose model is evaluated.
    pub model: String,
    /// The pack stage whose rows it is evaluated on.
    pub data: String,
    /// Which of its splits. Default: held-out text measures how a model generalizes.
    #[serde(default = "validation_split")]
    pub split: Split,
    /// Which weights. Default: the authors evaluate the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// How the bound is estimated. Both estimate the same quantity. Default: the authors' estimator (arXiv 2406.07524).
    #[serde(default)]
    pub estimator: Estimator,
    /// What of the noise levels the bound covers. Default: all, since the published number is no bound.
    #[serde(default, skip_serializing_if = "published::is_default")]
    pub bound: BoundEnds,
    /// Monte-Carlo draws per row; the times of a row's draws are stratified, and the report has a 95% interval. Default:
    /// our choice; four times as many halve the interval.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 100_000))]
    pub draws: u32,
    /// Rows evaluated, at most: the first of a seeded permutation. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub rows: Option<u64>,
    /// The synthetic source stage that the rows come from: its exact entropy is reported beside the bound. Default:
    /// none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of times and masks. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

/// A split of packed rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Split {
    /// The rows that are learnt.
    Train,
    /// The rows that are held out.
    Validation,
}

/// Which weights of a trained model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Weights {
    /// The exponential moving average.
    #[default]
    Ema,
    /// The weights of the last step.
    Raw,
}

/// How the bound is estimated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Estimator {
    /// Draws a time, masks each token with the schedule's probability, weighs with the schedule's rate
    /// (arXiv 2406.07524, eq. 10).
    #[default]
    Time,
    /// Draws the number of masked tokens uniformly and weighs with length / number (arXiv 2502.09992): lower variance.
    /// For a model without time conditioning.
    Count,
}

/// Draws texts from a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The train stage whose model is sampled.
    pub model: String,
    /// Rows to draw.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub count: u32,
    /// Reverse steps from all masked to none. Default: the authors' configuration (`sampling.steps`, arXiv 2406.07524).
    #[serde(default = "default_sample_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub steps: u32,
    /// The sampler of the reverse process. Default: the authors' configuration (`ddpm_cache`, arXiv 2406.07524).
    #[serde(default)]
    pub sampler: Sampler,
    /// Gives the sampler what every row has by construction, BOS first and EOS at the end of a wrapped row, instead of
    /// drawing them. The network sees positions only relative to each other, so this shows it where a row begins.
    /// Default: the authors' start, all masked.
    #[serde(default)]
    pub given_ends: bool,
    /// Divides the logits: below 1 the model's favourites gain. Default: the model's own distribution.
    #[serde(default = "one")]
    #[schemars(range(min = 1e-3, max = 100.0))]
    pub temperature: f64,
    /// Which weights. Default: the authors sample from the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// A synthetic source stage: the share of sampled sentences that its grammar accepts is reported. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of the draws. Default: the pipeline's seed.
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
    /// The kinds of which that stage must have one.
    pub expects: &'static [StageKind],
}

/// The kinds of stages that can be compared.
const COMPARABLE: &[StageKind] = &[StageKind::Evaluate, StageKind::Sample, StageKind::Train];

/// The roles of what a compare stage consumes, in order: `of/0`, `of/1`, …
pub(crate) fn compared_role(index: usize) -> Option<&'static str> {
    static ROLES: LazyLock<Vec<String>> = LazyLock::new(|| {
        (0..matrix::MAX_STAGES)
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
