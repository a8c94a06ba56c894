//! A trained model as the files of other programs: what [`crate::weights::import`] reads, written.
//!
//! | file | what it does |
//! |---|---|
//! | `hub.rs` | a folder of Hugging Face, which `transformers` loads |
//! | `settings.rs` | its `config.json` and the settings of its tokenizer |
//! | `card.rs`, `card.md` | its `README.md`: results, data, settings and provenance |
//! | `modeling_mdlm.py` | the network and a sampler in PyTorch, which the folder contains |
//! | `lightning.rs` | a checkpoint of PyTorch Lightning, from which the authors' code resumes |
//!
//! Tensors have the names of the authors' release, weights are f32, and the same result of a stage gives the same files.

use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::data::RowsInfo;
use crate::error::{Error, Result};
use crate::evaluate::Interval;
use crate::manifest::{Stage, StageKind, Weights};
use crate::model::{Parameter, parameters};
use crate::plan::{Decision, Plan, PlannedStage};
use crate::shapes::Shape;
use crate::stages::evaluate::Evaluation;
use crate::stages::trained::ModelInfo;
use crate::store::{Record, Store};
use crate::train::checkpoint::{EMA, RAW};
use crate::weights::{self, PREFIX, ROTARY_BUFFER, rotary_buffer};

mod card;
pub mod hub;
pub mod lightning;
mod settings;

/// Kinds of stages that have a model.
pub const MODELS: [StageKind; 2] = [StageKind::Train, StageKind::Checkpoint];

/// A finished model, with what its pipeline knows of it.
#[derive(Debug)]
pub struct FinishedModel<'p> {
    /// The stage that made it.
    planned: &'p PlannedStage,
    record: &'p Record,
    /// The folder of its result.
    folder: PathBuf,
    info: ModelInfo,
    shape: &'static Shape,
    plan: &'p Plan,
    store: &'p Store,
    /// What the manifest says of itself.
    description: Option<&'p str>,
}

/// An evaluation of a model.
#[derive(Debug)]
struct MeasuredModel<'p> {
    /// The evaluate stage.
    stage: &'p str,
    /// Its place in the plan.
    index: usize,
    found: Evaluation,
}

impl<'p> FinishedModel<'p> {
    /// The model of a stage whose result is in the store. The plan's other stages are what else is known: evaluations of the
    /// model, its data.
    ///
    /// # Errors
    /// The stage has no result here, or its result is damaged.
    pub fn of(plan: &'p Plan, store: &'p Store, stage: &str) -> Result<Self> {
        let planned = plan.stages.iter().find(|planned| planned.name == stage);
        let planned = planned.ok_or_else(|| Error::internal("the plan lacks the stage"))?;
        let Decision::Cached(record) = &planned.decision else {
            return Err(Error::internal("the stage has no result in the store"));
        };
        let folder = store.artifact_path(&record.artifact);
        let info = ModelInfo::open(&folder)?;
        let shape = info.shape()?;
        Ok(Self {
            planned,
            record,
            folder,
            info,
            shape,
            plan,
            store,
            description: None,
        })
    }

    /// The same with the description of its manifest, for the model card.
    #[must_use]
    pub fn with_description(self, description: Option<&'p str>) -> Self {
        Self { description, ..self }
    }

    /// The set of weights that is exported where `asked` is asked for: by default the average if there is one.
    ///
    /// # Errors
    /// The model has no such set of weights.
    pub fn choose(&self, asked: Option<Weights>) -> Result<Weights> {
        let Some(asked) = asked else {
            return Ok(self.info.weights(Weights::default()));
        };
        let has = self.info.weights(asked);
        if has == asked {
            return Ok(asked);
        }
        let (name, other) = match asked {
            Weights::Ema => ("averaged weights", "raw"),
            Weights::Raw => ("weights of the last step", "ema"),
        };
        Err(Error::input(format!("its model has no {name}")).hint(format!(
            "leave `--weights` out, or set `--weights {other}`: the file that it comes from has no others"
        )))
    }

    /// Whether its weights are the only ones of a file from elsewhere, which does not call them an average.
    #[must_use]
    pub fn has_only_set(&self) -> bool {
        self.info.origin.as_ref().is_some_and(|origin| origin.is_only_set)
    }

    fn parameters(&self) -> Vec<Parameter> {
        parameters(self.shape, self.info.objective.backbone())
    }

    /// The values of a set of weights, in the flat order.
    fn read_weights(&self, which: Weights) -> Result<Vec<f32>> {
        let file = match which {
            Weights::Ema => EMA,
            Weights::Raw => RAW,
        };
        weights::read(
            &self.folder.join(file),
            self.shape,
            self.info.objective.backbone(),
        )
    }

    /// The evaluations of these weights whose results are in the store, in the order of the plan.
    fn evaluations(&self, which: Weights) -> Result<Vec<MeasuredModel<'p>>> {
        let mut all = Vec::new();
        for (index, stage) in self.plan.stages.iter().enumerate() {
            let (Stage::Evaluate(_), Decision::Cached(record)) = (&stage.stage, &stage.decision) else {
                continue;
            };
            if self
                .input(stage, "model")
                .is_none_or(|model| model.name != self.planned.name)
            {
                continue;
            }
            let found = Evaluation::open(&self.store.artifact_path(&record.artifact))?;
            if found.weights == which {
                all.push(MeasuredModel {
                    stage: &stage.name,
                    index,
                    found,
                });
            }
        }
        Ok(all)
    }

    /// The stage that another one consumes in a role.
    fn input(&self, stage: &PlannedStage, role: &str) -> Option<&'p PlannedStage> {
        let input = stage.inputs.iter().find(|input| input.role == role)?;
        self.plan.stages.get(input.index)
    }

    /// The update at which the training of a stage's model is, where it is in the store and can be continued.
    fn step_of(&self, stage: &PlannedStage) -> Option<u64> {
        let folder = self.store.artifact_path(stage.artifact()?);
        let info = ModelInfo::open(&folder).ok()?;
        info.run(&folder).ok().map(|run| run.step)
    }

    /// The rows that it learnt, where they are in the store.
    fn rows(&self) -> Option<RowsInfo> {
        let pack = self.input(self.planned, "from")?;
        let folder = self.store.artifact_path(pack.artifact()?);
        RowsInfo::open(&folder).ok()
    }
}

/// A tensor of the network as the authors' files have it.
#[derive(Debug)]
struct NetworkTensor {
    name: String,
    dims: Vec<usize>,
    /// Its place in the flat order; nothing for the rotary buffer.
    range: Option<Range<usize>>,
}

impl NetworkTensor {
    /// All, the rotary buffer before the blocks.
    fn all(shape: &Shape, parameters: &[Parameter]) -> Vec<Self> {
        let mut tensors = Vec::with_capacity(parameters.len() + 1);
        for parameter in parameters {
            if parameter.name == "blocks.0.norm1.weight" {
                tensors.push(Self {
                    name: format!("{PREFIX}{ROTARY_BUFFER}"),
                    dims: vec![rotary_buffer(shape).len()],
                    range: None,
                });
            }
            tensors.push(Self {
                name: format!("{PREFIX}{}", parameter.name),
                dims: parameter.dims.clone(),
                range: Some(parameter.range()),
            });
        }
        tensors
    }

    /// Its values, of those of all parameters or of the buffer.
    fn values<'v>(&self, of_parameters: &'v [f32], buffer: &'v [f32]) -> &'v [f32] {
        match &self.range {
            Some(range) => &of_parameters[range.clone()],
            None => buffer,
        }
    }
}

/// An interval's sign: whether the value is an upper bound of what is meant.
fn bound_sign(found: &Evaluation) -> &'static str {
    if found.is_bound() { "≤ " } else { "" }
}

/// Whether a number and its ends can be written in JSON.
fn is_finite(interval: Interval) -> bool {
    interval.value.is_finite()
}

/// Refuses a symbolic link: what is written is renamed to its place, and would take the place of the link alone.
fn refuse_link(path: &Path) -> Result<()> {
    let Ok(target) = std::fs::read_link(path) else {
        return Ok(());
    };
    let target = path.parent().unwrap_or(Path::new("")).join(target);
    Err(Error::input(format!(
        "`{}` is a symbolic link to `{}`",
        path.display(),
        target.display()
    ))
    .hint(format!("name the place itself: `{}`", target.display())))
}

/// Writes a text file durably.
fn write_text(path: &Path, text: &str) -> Result<()> {
    let mut file = crate::disk::NewFile::create(path)?;
    file.append(text.as_bytes())?;
    file.finish()
}
