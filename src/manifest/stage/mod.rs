//! The stages of a manifest: one file per kind, with its settings and all that follows from them alone.
//!
//! A kind is a line in the table of [`stage_kinds!`] and the file of its settings, which implements [`StageSpec`]. What a
//! stage does with its settings is in `mdlm::stages`, by the same names.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::Objective;
use super::fault::Draft;
use check::{StageEntry, Stages};

pub(super) mod check;
mod checkpoint;
mod compare;
mod evaluate;
mod judge;
mod pack;
mod sample;
pub mod source;
mod table;
mod tokenize;
mod train;

pub use checkpoint::Checkpoint;
pub(super) use compare::COMPARED;
pub use compare::{COMPARABLE, Compare, Compared, METRICS_IN_ORDER, Metric, ModelFacts, Seed, compared_role};
pub use evaluate::{Evaluate, Split, Weights};
pub(super) use judge::JUDGED;
pub use judge::{
    DEFAULT_REFERENCE_RECORDS, DEFAULT_VERBATIM_TOKENS, Judge, Judged, PerplexityVariant, model_role,
};
pub use pack::{Pack, Padding, RowFormat, Scored, Tail};
pub use sample::{DEFAULT_SAMPLE_STEPS, Sample};
pub use source::{Source, SourceInput, SyntheticInput};
pub(super) use table::TABULATED_FORM;
pub use table::{PublishedFigure, Table, TableColumn, TableRow, TableValue};
pub use tokenize::{
    BertFile, Characters, Gpt2Files, PublishedTokenizer, SpecialTokens, SpecialTokensInText, TEXT8_ALPHABET,
    Tokenize, Tokenizer, TokenizerDownload, TokenizerFile, TokenizerOfStage, TrainTokenizer,
};
pub use train::{DEFAULT_DROPOUT, KeepCheckpoints, LearningRateSchedule, Train};

/// Makes [`Stage`] and [`StageKind`] from the table of kinds, and the macros [`with_settings!`] and [`with_kind!`]. `$` is an
/// argument, since a macro cannot write it into the macros that it makes.
macro_rules! stage_kinds {
    (($d:tt) $($(#[$doc:meta])* $kind:ident = $name:literal,)*) => {
        /// One stage of a pipeline; `kind` selects which.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
        #[serde(tag = "kind", rename_all = "snake_case")]
        pub enum Stage {
            $($(#[$doc])* $kind($kind),)*
        }

        /// The kind of a stage, as the manifest spells it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum StageKind {
            $(#[doc = concat!("`", $name, "`")] $kind,)*
        }

        impl StageKind {
            /// Every kind, in the order in which a pipeline has them.
            pub const ALL: &[Self] = &[$(Self::$kind),*];

            /// The manifest's spelling.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$kind => $name,)*
                }
            }
        }

        impl Stage {
            /// The stage's kind.
            #[must_use]
            pub fn kind(&self) -> StageKind {
                match self {
                    $(Self::$kind(_) => StageKind::$kind,)*
                }
            }
        }

        /// Evaluates an expression with the settings of a stage, whose type is that of its kind.
        #[macro_export]
        macro_rules! with_settings {
            ($d stage:expr, $d settings:ident => $d result:expr) => {
                match $d stage {
                    $($crate::manifest::Stage::$kind($d settings) => $d result,)*
                }
            };
        }

        /// Evaluates an expression with the type of the settings of a kind.
        macro_rules! with_kind {
            ($d of:expr, $d Settings:ident => $d result:expr) => {
                match $d of {
                    $($crate::manifest::StageKind::$kind => {
                        type $d Settings = $crate::manifest::$kind;
                        $d result
                    })*
                }
            };
        }
    };
}

stage_kinds! {
    ($)
    /// Reads text and splits it into records.
    Source = "source",
    /// Turns records into tokens, with a tokenizer that is loaded, or trained on the records.
    Tokenize = "tokenize",
    /// Packs tokens into rows of fixed length, wrapped or padded, and splits the records into training and validation.
    Pack = "pack",
    /// Trains a network on packed rows with the objective in `objective`, by default masked diffusion.
    Train = "train",
    /// Takes a trained model from a file, a folder or the Hugging Face hub.
    Checkpoint = "checkpoint",
    /// Computes the perplexity of a model on packed rows: an upper bound, the exact value or the pseudo-perplexity.
    Evaluate = "evaluate",
    /// Samples texts from a model.
    Sample = "sample",
    /// Measures the quality of sampled texts: against the grammar that they imitate, by an autoregressive model, and by what
    /// they repeat.
    Judge = "judge",
    /// Collects the results of several stages, or of all instances of a sweep, in one table.
    Compare = "compare",
    /// Puts results into the rows and columns of a table, beside published figures.
    Table = "table",
}

/// The kinds of stages that make a model.
pub const MODELS: &[StageKind] = &[StageKind::Train, StageKind::Checkpoint];

/// What the settings of a kind of stage say by themselves: which stages and files they name, what of them decides the
/// result, and which faults no schema can state. It is implemented for the settings of each kind, in the kind's file.
pub(super) trait StageSpec: Sized + 'static {
    /// The fields that name the stages which it consumes, in a fixed order.
    const REFERENCES: &'static [ReferenceField<Self>] = &[];
    /// The field that lists stages, and the kinds that these may have. Of a swept stage it takes all instances; a stage without
    /// such a field is made once for each of them.
    const COLLECTS: Option<(&'static str, &'static [StageKind])> = None;
    /// Former fields, and the object that has each of them now.
    const MOVED: &'static [(&'static str, &'static str)] = &[];
    /// Fields that change how a stage works and never what it makes.
    const NOT_IN_KEY: &'static [&'static str] = &[];
    /// Fields in the key that change what a stage writes down beside its result, and never the result.
    const BESIDE_RESULT: &'static [&'static str] = &[];
    /// Whether it computes a network.
    const COMPUTES_NETWORK: bool = false;
    /// Whether it measures a model that another stage has made.
    const MEASURES_MODEL: bool = false;
    /// A stage with nothing but what it must have, and the settings in its key: those at their defaults and those required. The
    /// list does not grow: a field that comes later has `skip_serializing_if = "published::is_default"`, or is an `Option`.
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str);

    /// The stages that it consumes.
    fn references(&self) -> Vec<Reference<'_>> {
        let named = |field: &ReferenceField<Self>| {
            Some(Reference {
                field: field.name,
                stage: (field.stage)(self)?,
                expects: field.expects,
            })
        };
        Self::REFERENCES.iter().filter_map(named).collect()
    }

    /// Its own seed, where it has one.
    fn seed(&self) -> Option<u64> {
        None
    }

    /// Whether it draws random numbers.
    fn is_random(&self) -> bool {
        false
    }

    /// The files outside the store that it reads.
    fn files(&self) -> Vec<FileReference> {
        vec![]
    }

    /// Whether its result has a metric by which it can be compared.
    fn has_metric(&self) -> bool {
        false
    }

    /// The results that it compares, where it compares some: planning fills in which of them differ in seeds alone.
    fn collected(&mut self) -> Option<&mut Vec<Compared>> {
        None
    }

    /// Fills in the settings whose default depends on the objective of the model that it names.
    fn fill_in(&mut self, _objective: &Objective) {}

    /// Adds the faults that no schema can state. `entry` is this stage in the manifest.
    fn check(&self, _stages: &Stages<'_>, _entry: &StageEntry<'_>, _faults: &mut Vec<Draft>) {}
}

/// A field of the settings `S` that names another stage.
pub(super) struct ReferenceField<S> {
    /// The JSON pointer of the field below the stage: `from`, `tokenizer/stage`.
    pub name: &'static str,
    /// The kinds that the named stage may have.
    pub expects: &'static [StageKind],
    /// The stage that it names, where it names one.
    pub stage: fn(&S) -> Option<&str>,
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

/// A field that names files outside the store.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileReference {
    /// The JSON pointer of the field below the stage: `input/files`.
    pub field: &'static str,
    /// Paths and, where the field takes them, globs.
    pub patterns: Vec<String>,
    /// Globs over what is not read.
    pub exclude: Vec<String>,
    /// Whether `-` may stand among the patterns.
    pub takes_pipes: bool,
    /// Whether a pattern may be a folder, which stands for the files of the checkpoint in it.
    pub takes_folders: bool,
}

impl FileReference {
    /// A field that names one file.
    fn one(field: &'static str, path: &str) -> Self {
        Self {
            field,
            patterns: vec![path.to_owned()],
            exclude: vec![],
            takes_pipes: false,
            takes_folders: false,
        }
    }
}

impl StageKind {
    /// The kind of that name.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|kind| kind.name() == name)
    }

    /// The fields that name stages, each with the kinds that it takes.
    pub(super) fn references(self) -> Vec<(&'static str, &'static [StageKind])> {
        with_kind!(self, Settings => {
            let fields = Settings::REFERENCES.iter();
            fields.map(|field| (field.name, field.expects)).collect()
        })
    }

    /// See [`StageSpec::COLLECTS`].
    pub(super) fn collects(self) -> Option<(&'static str, &'static [StageKind])> {
        with_kind!(self, Settings => Settings::COLLECTS)
    }

    /// The object that has a former field now.
    pub(super) fn moved(self, field: &str) -> Option<&'static str> {
        self.all_moved()
            .find(|(former, _)| *former == field)
            .map(|(_, into)| into)
    }

    /// The former fields, and the object that has each of them now.
    pub(super) fn all_moved(self) -> impl Iterator<Item = (&'static str, &'static str)> {
        with_kind!(self, Settings => Settings::MOVED).iter().copied()
    }

    /// Whether its stages measure a model that another stage has made.
    #[must_use]
    pub fn measures_model(self) -> bool {
        with_kind!(self, Settings => Settings::MEASURES_MODEL)
    }

    /// A stage with nothing but what it must have, and the settings in its key.
    #[cfg(any(test, feature = "testing"))]
    #[must_use]
    pub fn smallest(self) -> (&'static str, &'static str) {
        with_kind!(self, Settings => Settings::SMALLEST)
    }
}

impl Stage {
    /// The stages that this one consumes, in a fixed order.
    #[must_use]
    pub fn references(&self) -> Vec<Reference<'_>> {
        with_settings!(self, settings => settings.references())
    }

    /// The effective seed: the stage's own or the pipeline's.
    #[must_use]
    pub fn seed(&self, of_pipeline: u64) -> u64 {
        with_settings!(self, settings => StageSpec::seed(settings)).unwrap_or(of_pipeline)
    }

    /// Whether it draws random numbers.
    #[must_use]
    pub fn is_random(&self) -> bool {
        with_settings!(self, settings => settings.is_random())
    }

    /// The files outside the store that it reads, by the field that names them.
    #[must_use]
    pub fn files(&self) -> Vec<FileReference> {
        with_settings!(self, settings => StageSpec::files(settings))
    }

    /// Fields that change how it works and never what it makes.
    #[must_use]
    pub fn not_in_key(&self) -> &'static [&'static str] {
        with_kind!(self.kind(), Settings => Settings::NOT_IN_KEY)
    }

    /// Fields in the key that change what it writes down beside its result, and never the result.
    #[must_use]
    pub fn beside_result(&self) -> &'static [&'static str] {
        with_kind!(self.kind(), Settings => Settings::BESIDE_RESULT)
    }

    /// Whether it computes a network, so that it matters where it runs.
    #[must_use]
    pub fn computes_network(&self) -> bool {
        with_kind!(self.kind(), Settings => Settings::COMPUTES_NETWORK)
    }

    /// Whether its result has a metric by which it can be compared.
    #[must_use]
    pub fn has_metric(&self) -> bool {
        with_settings!(self, settings => settings.has_metric())
    }

    /// The results that it compares, where it compares some.
    pub fn collected(&mut self) -> Option<&mut Vec<Compared>> {
        with_settings!(self, settings => settings.collected())
    }

    /// The stage whose model it evaluates or samples.
    #[must_use]
    pub fn model(&self) -> Option<&str> {
        let mut references = self.references().into_iter();
        let is_model = |reference: &Reference<'_>| reference.expects == MODELS;
        let model = references
            .find(is_model)
            .filter(|_| self.kind().measures_model())?;
        Some(model.stage)
    }

    /// Fills in the settings whose default depends on the objective of the model that it evaluates or samples.
    pub fn fill_in(&mut self, objective: &Objective) {
        with_settings!(self, settings => settings.fill_in(objective));
    }

    /// Adds the faults that no schema can state.
    pub(super) fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        with_settings!(self, settings => settings.check(stages, entry, faults));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_has_one_name_and_its_smallest_stage_is_of_it() {
        for &kind in StageKind::ALL {
            assert_eq!(serde_json::to_value(kind).unwrap(), kind.name());
            assert_eq!(StageKind::named(kind.name()), Some(kind));
            let stage: Stage = serde_json::from_str(kind.smallest().0).unwrap();
            assert_eq!(stage.kind(), kind);
            assert_eq!(serde_json::to_value(stage).unwrap()["kind"], kind.name());
        }
        assert_eq!(StageKind::named("trains"), None);
    }
}
