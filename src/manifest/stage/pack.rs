//! The pack stage: tokens → rows of fixed length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{StageEntry, Stages};
use super::{ReferenceField, StageKind, StageSpec};
use crate::manifest::fault::{Code, Draft, quoted};
use crate::manifest::published::Grouping;
use crate::plural::counted;

/// Rows packed into one shard: about 32 MB at 128 tokens of 16 bits.
pub const DEFAULT_SHARD_ROWS: u32 = 131_072;

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
    /// How the documents of wrapped rows are joined before they are cut. Default: `whole`, which drops one tail a split
    /// and does not depend on the machine; `published` is for rows equal to those of the published code.
    #[serde(default, skip_serializing_if = "crate::manifest::published::is_default")]
    pub grouping: Grouping,
    /// Makes wrapped rows overlap, for evaluation: each begins so many tokens of text after the one before. Every token of the
    /// text and the EOS after each document is scored once, given the tokens before it in its row: at least L − 2 − `stride`
    /// of them, but for the first row. No tail is lost, since the last row ends with the text. BOS at a row's start and EOS at
    /// its end are not scored. At most L − 2; half of that gives every token half a row of context. Default: rows do not
    /// overlap, as in the MDLM authors' evaluation (arXiv 2406.07524).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 65_534))]
    #[schemars(title = "Stride of overlapping rows")]
    pub stride: Option<u32>,
    /// Which tokens of a record are scored, of rows that are not wrapped. Default: all.
    #[serde(default, skip_serializing_if = "Scored::is_all")]
    pub scored: Scored,
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

/// Which tokens of a record are scored.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Scored {
    /// All of them, with BOS and EOS.
    #[default]
    All,
    /// Those of the record's last word, with its leading space; the tokens before are given (LAMBADA, arXiv 1606.06031). For
    /// evaluation only. A row is BOS + record without an EOS. A record with more than L − 1 tokens loses the first of them; a
    /// record whose last word alone has more, or without a word, is dropped and counted. `evaluate` reports the perplexity and the
    /// accuracy of last words. The tokenizer must keep white space.
    LastWord,
}

impl Scored {
    /// Whether it is the default, which files leave out.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == Self::All
    }
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

defaults! {
    yes: bool = true;
    default_shard_rows: u32 = DEFAULT_SHARD_ROWS;
}

impl Pack {
    /// Whether its rows begin with tokens that are given and not scored, so that they are for evaluation only.
    #[must_use]
    pub fn has_context(&self) -> bool {
        self.context_field().is_some()
    }

    /// The field that makes them so.
    #[must_use]
    pub fn context_field(&self) -> Option<&'static str> {
        if self.stride.is_some() {
            Some("stride")
        } else {
            (self.scored != Scored::All).then_some("scored")
        }
    }
}

impl StageSpec for Pack {
    const REFERENCES: &'static [ReferenceField<Self>] = &[ReferenceField {
        name: "from",
        expects: &[StageKind::Tokenize],
        stage: |pack| Some(&pack.from),
    }];
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "pack", "from": "a", "length": 8 }"#,
        "format length padding shard_rows tail validation wrap",
    );

    fn seed(&self) -> Option<u64> {
        self.seed
    }

    /// Without a share to split off, or with nothing else, no hash decides.
    fn is_random(&self) -> bool {
        self.validation > 0.0 && self.validation < 1.0
    }

    /// Reports a setting about padding, the tail or context for rows that have none.
    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        self.check_context(stages, entry, faults);
        if self.wrap && self.padding == Padding::Counted {
            faults.push(
                entry
                    .fault(Code::Padding, "padding", "wrapped rows have no padding to count")
                    .expected("`padding` only beside `\"wrap\": false`")
                    .hint("set `wrap` to false for one padded record per row, or remove `padding`"),
            );
        }
        if !self.wrap && self.tail == Tail::Pad {
            faults.push(
                entry
                    .fault(Code::Padding, "tail", "rows that are not wrapped have no tail")
                    .expected("`tail` only beside `\"wrap\": true`")
                    .hint("remove `tail`: without `wrap`, every row is padded"),
            );
        }
        if self.grouping != Grouping::Whole {
            self.check_grouping(entry, faults);
        }
    }
}

impl Pack {
    /// Reports settings that the published grouping excludes.
    fn check_grouping(&self, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        if !self.wrap {
            faults.push(
                entry
                    .fault(Code::NoEffect, "grouping", "`grouping` has no effect on rows that are not wrapped")
                    .hint("remove `grouping`: without `wrap`, the published code packs a document a row, as mdlm does"),
            );
        }
        if self.wrap && self.tail == Tail::Pad {
            faults.push(
                entry
                    .fault(Code::Padding, "tail", "the published grouping drops its tails")
                    .expected("`\"tail\": \"drop\"`")
                    .hint("remove `tail`, or `grouping` to keep every token"),
            );
        }
        if self.wrap && self.stride.is_some() {
            faults.push(
                entry
                    .fault(
                        Code::Context,
                        "stride",
                        "rows of the published grouping do not overlap",
                    )
                    .expected("`stride` without `grouping`")
                    .hint("remove `stride`, or `grouping` to score every token once"),
            );
        }
        if self.validation > 0.0 && self.validation < 1.0 {
            let message = "the published grouping shares out a whole corpus and splits none";
            faults.push(
                entry
                    .fault(Code::InvalidValue, "validation", message)
                    .expected("`validation` 0 or 1")
                    .hint("make the splits in sources: by the `split` of a corpus, or by `range`"),
            );
        }
    }
}

impl Pack {
    /// Reports settings of rows with context that exclude each other.
    fn check_context(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let most = self.length.saturating_sub(2);
        if let Some(stride) = self.stride {
            if !self.wrap {
                faults.push(
                    entry
                        .fault(Code::Context, "stride", "rows that are not wrapped do not overlap")
                        .expected("`stride` only beside `\"wrap\": true`")
                        .hint("remove `stride`, or set `wrap` to true to join the records and score every token"),
                );
            } else if stride > most {
                let message = format!(
                    "rows of {} have {most} tokens of text, but each begins {} after the one before: some would be in no row",
                    self.length,
                    counted(stride, "token")
                );
                faults.push(
                    entry
                        .fault(Code::Context, "stride", message)
                        .expected(format!("from 1 to {most}"))
                        .hint(format!(
                            "set `\"stride\": {}`: every token then has at least half a row of context",
                            (most / 2).max(1)
                        )),
                );
            }
            if self.wrap && entry.has("tail") {
                faults.push(
                    entry
                        .fault(
                            Code::NoEffect,
                            "tail",
                            "with `stride`, no tail is left: the last row ends with the text",
                        )
                        .hint("leave `tail` out"),
                );
            }
        }
        if self.scored == Scored::LastWord {
            if self.wrap {
                faults.push(
                    entry
                        .fault(
                            Code::Context,
                            "scored",
                            "wrapped rows have no last word: their records are joined",
                        )
                        .expected("`\"scored\": \"last_word\"` only beside `\"wrap\": false`")
                        .hint("set `wrap` to false for one record per row"),
                );
            } else if self.padding == Padding::Counted {
                let message = "where last words alone are scored, padding is not";
                faults.push(
                    entry
                        .fault(Code::Padding, "padding", message)
                        .expected("`\"excluded\"`")
                        .hint("leave `padding` out"),
                );
            }
            if let Some(name) = stages.tokenizer_without_spaces(&self.from) {
                let message = format!(
                    "the tokenizer of {} drops white space, so that the last word of a record cannot be found",
                    quoted(name)
                );
                faults.push(
                    entry
                        .fault(Code::Context, "scored", message)
                        .expected("a tokenizer that keeps white space: byte-level, or `characters`"),
                );
            }
        }
    }
}
