//! The pack stage: tokens → rows of fixed length.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::check::{StageEntry, Stages};
use super::{ReferenceField, StageKind, StageSpec};
use crate::manifest::fault::{Code, Draft};
use crate::manifest::published::Grouping;

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

defaults! {
    yes: bool = true;
    default_shard_rows: u32 = DEFAULT_SHARD_ROWS;
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

    /// Reports a setting about padding or the tail for rows that have none.
    fn check(&self, _stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
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
