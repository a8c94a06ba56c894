//! The stages: config and inputs in, an artifact's files out. One file per kind, which implements `Run`.
//!
//! A stage reads the folders of its inputs, writes only below `output` and `work`, and reports progress through `sink`.
//! It looks nothing up in the store and does not depend on which stages made its inputs. The files below `output` are a
//! function of its config, the contents of its inputs and its seed alone: they contain no time, path or machine. Such
//! facts go into [`StageOutput`].

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::data::files::Piped;
use crate::data::read::Consumed;
use crate::error::{Error, Result};
use crate::event::{Cancel, Event, Progress, Sink};
use crate::manifest::Stage;
use crate::manifest::reading::RemoteFile;
use crate::model::Device;
use crate::ranks::Communicator;
use crate::store::checkpoints::Checkpoints;
use crate::store::{Digest, ExternalFile};
use by_hand::Sha256;
use mdlm_base::with_settings;

pub mod by_hand;
pub mod checkpoint;
pub mod compare;
pub mod draw;
pub mod evaluate;
pub mod fetched;
pub mod given;
pub mod judge;
pub mod key;
mod losses;
pub mod memory;
pub mod pack;
pub mod replicates;
pub mod sample;
pub mod source;
pub mod table;
pub mod tokenize;
pub mod train;
pub mod trained;

/// What a stage does with its settings. It is implemented for the settings of each kind, in the kind's file.
trait Run {
    /// Version of the stage's code, part of its cache key: raised when the same settings and inputs would give other files. Its
    /// comment has the history.
    const VERSION: u32;
    /// Whether it resumes from a state that it, or another stage of its kind, has left.
    const RESUMES: bool = false;

    /// Runs the stage.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput>;

    /// Replaces settings in `config`, those in the key, by what they stand for, so that the key does not depend on how they
    /// are written. Returns the files whose contents are known beforehand.
    fn state_contents(&self, _config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        Ok(vec![])
    }

    /// Puts into `config` what the names of the files that it reads imply for their contents.
    fn state_names(&self, _names: &[&str], _config: &mut Value) {}

    /// The files that it downloads unless they are here, and their size where it is known beforehand.
    fn downloads(&self) -> (Vec<RemoteFile>, Option<u64>) {
        (vec![], None)
    }

    /// Fails where a local copy that the settings name is absent, or is not the published file.
    fn check_by_hand(&self, _base: &Path, _sha256: Sha256<'_>) -> Result<()> {
        Ok(())
    }

    /// Whether any local copy that the settings name exists: an absent file cannot be a wrong one.
    fn is_by_hand_here(&self, _base: &Path) -> bool {
        false
    }

    /// What an artifact made for the settings `made` lacks of what the settings `asked` ask for, though its result is the same;
    /// each as a lowercase fragment. `left` is looked at where it is given.
    fn lacks(&self, _made: &Value, _asked: &Value, _left: Option<&LeftBehind<'_>>) -> Vec<String> {
        vec![]
    }

    /// Memory in bytes that it is estimated to take, given the stages that it consumes and the folder that its paths start from;
    /// nothing where it takes a constant.
    fn memory(&self, _inputs: &[&Stage], _base: &Path) -> Option<u64> {
        None
    }
}

/// What a stage has left: its artifact's folder, and the folder of the checkpoints that stages share.
#[derive(Clone, Copy, Debug)]
pub struct LeftBehind<'a> {
    /// The artifact.
    pub artifact: &'a Path,
    /// The checkpoints that stay.
    pub checkpoints: &'a Path,
}

/// The version of a stage's code, part of its cache key.
#[must_use]
pub fn version(stage: &Stage) -> u32 {
    fn of<R: Run>(_: &R) -> u32 {
        R::VERSION
    }
    with_settings!(stage, settings => of(settings))
}

/// Whether a stage resumes from a state that it, or another stage of its kind, has left.
#[must_use]
pub fn resumes(stage: &Stage) -> bool {
    fn of<R: Run>(_: &R) -> bool {
        R::RESUMES
    }
    with_settings!(stage, settings => of(settings))
}

/// Runs a stage.
///
/// # Errors
/// Those of its kind, in the comment of its `run`.
pub fn run(stage: &Stage, context: &Context<'_>) -> Result<StageOutput> {
    with_settings!(stage, settings => settings.run(context))
}

/// Replaces settings in a stage's key by what they stand for; returns the files whose contents are known beforehand.
fn state_contents(stage: &Stage, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
    with_settings!(stage, settings => settings.state_contents(config))
}

/// Puts what the names of the files that a stage reads imply for their contents into the settings in its key.
pub fn state_names(stage: &Stage, names: &[&str], config: &mut Value) {
    with_settings!(stage, settings => settings.state_names(names, config));
}

/// The files that a stage downloads unless they are here, and their size where it is known beforehand.
#[must_use]
pub fn downloads(stage: &Stage) -> (Vec<RemoteFile>, Option<u64>) {
    with_settings!(stage, settings => settings.downloads())
}

/// Checks the local copies that a stage's settings name.
///
/// # Errors
/// A file is absent, or is not the published one.
pub fn check_by_hand(stage: &Stage, base: &Path, sha256: Sha256<'_>) -> Result<()> {
    with_settings!(stage, settings => settings.check_by_hand(base, sha256))
}

/// Whether any local copy that a stage's settings name exists.
#[must_use]
pub fn is_by_hand_here(stage: &Stage, base: &Path) -> bool {
    with_settings!(stage, settings => settings.is_by_hand_here(base))
}

/// What an artifact lacks of what is asked for, though its result is the same: see `Run::lacks`.
#[must_use]
pub fn lacks(stage: &Stage, made: &Value, asked: &Value, left: Option<&LeftBehind<'_>>) -> Vec<String> {
    with_settings!(stage, settings => settings.lacks(made, asked, left))
}

/// Memory in bytes that a stage is estimated to take, given the stages that it consumes and the folder that its paths start
/// from; nothing where it takes a constant.
#[must_use]
pub fn memory_of(stage: &Stage, inputs: &[&Stage], base: &Path) -> Option<u64> {
    with_settings!(stage, settings => settings.memory(inputs, base))
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
    /// The ranks that share trainings with this one, the first.
    pub ranks: &'a Arc<dyn Communicator>,
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
