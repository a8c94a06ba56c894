//! The stages: config and inputs in, an artifact's files out. One file per kind.
//!
//! A stage reads the folders of its inputs, writes only below `output` and `work`, and reports progress through `sink`.
//! It does not depend on the store, on keys or on other stages. The files below `output` are a function of its config,
//! the contents of its inputs and its seed alone: they contain no time, path or machine. Such facts go into
//! [`StageOutput`].

use std::path::{Path, PathBuf};

use crate::data::files::Piped;
use crate::data::read::Consumed;
use crate::error::{Error, Result};
use crate::event::{Cancel, Event, Progress, Sink};
use crate::manifest::{Stage, StageKind};
use crate::store::Digest;
use crate::store::checkpoints::Checkpoints;

pub mod by_hand;
pub mod compare;
pub mod evaluate;
pub mod fetched;
pub mod key;
mod losses;
pub mod memory;
pub mod pack;
pub mod replicates;
pub mod sample;
pub mod source;
pub mod tokenize;
pub mod train;
pub mod trained;

/// The version of a stage's code, part of its cache key: raised when the same settings and inputs would give other
/// files. Every stage's constant carries its history.
#[must_use]
pub fn version(kind: StageKind) -> u32 {
    match kind {
        StageKind::Source => source::VERSION,
        StageKind::Tokenize => tokenize::VERSION,
        StageKind::Pack => pack::VERSION,
        StageKind::Train => train::VERSION,
        StageKind::Evaluate => evaluate::VERSION,
        StageKind::Sample => sample::VERSION,
        StageKind::Compare => compare::VERSION,
    }
}

/// Runs a stage.
///
/// # Errors
/// The errors of the `run` of the stage's module, such as [`train::run`].
pub fn run(stage: &Stage, context: &Context<'_>) -> Result<StageOutput> {
    match stage {
        Stage::Source(config) => source::run(config, context),
        Stage::Tokenize(config) => tokenize::run(config, context),
        Stage::Pack(config) => pack::run(config, context),
        Stage::Train(config) => train::run(config, context),
        Stage::Evaluate(config) => evaluate::run(config, context),
        Stage::Sample(config) => sample::run(config, context),
        Stage::Compare(config) => compare::run(config, context),
    }
}

pub use crate::model::{Device, DeviceRequest, SelfTest, self_test};

/// Whether a stage computes a network, and so where matters.
#[must_use]
pub fn computes(stage: &Stage) -> bool {
    matches!(stage, Stage::Train(_) | Stage::Evaluate(_) | Stage::Sample(_))
}

/// What a stage is given.
pub struct Context<'a> {
    /// The stage's name, for events.
    pub name: &'a str,
    /// The manifest's folder: relative paths of the manifest start here.
    pub base: &'a Path,
    /// The folders of the consumed artifacts, by role (the field of [`crate::manifest::Reference`]).
    pub inputs: &'a [(&'static str, PathBuf)],
    /// An empty folder for the artifact's files; committed when the stage returns.
    pub output: &'a Path,
    /// A folder that survives interruption under the same key. Deleted after the commit.
    pub work: &'a Path,
    /// Where a training finds states to go on from, and where it leaves its own: in that folder, and what is to stay in one
    /// that stages and runs share.
    pub checkpoints: &'a Checkpoints,
    /// What has come through pipes, and where it was copied to.
    pub piped: &'a [Piped],
    /// The folder of downloaded files, shared between stages and runs.
    pub downloads: &'a Path,
    /// The effective seed: the stage's own or the pipeline's.
    pub seed: u64,
    /// Where to compute a network.
    pub device: Device,
    /// Threads of the pool that the stage runs in.
    pub threads: usize,
    /// Takes events.
    pub sink: &'a dyn Sink,
    /// Asks to end at the next safe place.
    pub cancel: &'a Cancel,
    /// Of a tokenize stage, the smallest network that is to learn its tokens.
    pub room: Option<tokenize::Room>,
}

/// What a stage says when it is done. None of it is part of the artifact's content.
#[derive(Clone, Debug, Default)]
pub struct StageOutput {
    /// Key figures for the summary, in order: name and value as text.
    pub figures: Vec<(String, String)>,
    /// Facts for the provenance: speed, peak memory, device.
    pub provenance: serde_json::Map<String, serde_json::Value>,
    /// What was read of files outside the store, by their paths: to be compared with what the key says of them.
    pub consumed: Vec<(PathBuf, Consumed)>,
    /// What the artifact holds, whatever it is kept in: consumers run again when this is another one. Nothing where the
    /// artifact itself is what they depend on.
    pub content: Option<Digest>,
}

impl Context<'_> {
    /// The folder of the input with that role.
    ///
    /// # Errors
    /// An internal error when the plan did not provide it.
    pub fn input(&self, role: &str) -> Result<&Path> {
        self.inputs
            .iter()
            .find(|(name, _)| *name == role)
            .map(|(_, path)| path.as_path())
            .ok_or_else(|| Error::internal(format!("stage `{}` was given no input `{role}`", self.name)))
    }

    /// Emits progress.
    pub fn progress(&self, progress: Progress) {
        self.sink.emit(self.name, Event::Progress(progress));
    }

    /// Emits a line worth keeping.
    pub fn note(&self, text: impl Into<String>) {
        self.sink.emit(self.name, Event::Note(text.into()));
    }

    /// Emits a warning.
    pub fn warn(&self, text: impl Into<String>) {
        self.sink.emit(self.name, Event::Warning(text.into()));
    }
}
