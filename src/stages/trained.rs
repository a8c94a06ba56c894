//! A trained model on disk: what `train` and `checkpoint` write, and `evaluate`, `sample` and `train` read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{SpecialIds, TOKENIZER, tokenizer::Tokenizer};
use crate::diffusion::{Objective, objective};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::manifest::{self, Weights};
use crate::model::{self, Device, Network};
use crate::precision::Precision;
use crate::shapes::{SHAPES, Shape};
use crate::stages::StageOutput;
use crate::store::Digest;
use crate::store::digest::hash_file;
use crate::train::checkpoint::{self, EMA, OPTIMIZER, RAW};
use crate::weights;
use crate::weights::import::run::{RateState, RunSettings, RunState};

/// File name of [`ModelInfo`].
pub const MODEL_INFO: &str = "model.json";

/// `model.json`: what the weights beside it are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelInfo {
    /// Name of the compiled shape.
    pub shape: String,
    /// Tokens in the vocabulary, the mask included: the softmax ranges over the ids below it but the mask's.
    pub vocabulary: u32,
    /// L: tokens a row.
    pub length: u32,
    /// Whether it learnt from joined and cut documents (`true`) or from one record a row (`false`).
    pub wrap: bool,
    /// Special roles.
    pub special: SpecialIds,
    /// BLAKE3 of `tokenizer.json`, in hex.
    pub tokenizer_digest: String,
    /// What it was trained for.
    pub objective: manifest::Objective,
    /// Updates. Of a model from elsewhere: as its file states, 0 where it does not.
    pub steps: u64,
    /// Seed of its training. Of a model from elsewhere: 0.
    pub seed: u64,
    /// Precision of its training; left out where it is f32.
    #[serde(default, skip_serializing_if = "Precision::is_default")]
    pub precision: Precision,
    /// Where it comes from if it was not trained here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub origin: Option<ModelOrigin>,
}

/// Where a model comes from that was not trained here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ModelOrigin {
    /// The format of its file: `safetensors file`.
    #[serde(alias = "form")]
    pub format: String,
    /// Which weights `ema.safetensors` holds.
    pub weights: Weights,
    /// Whether `raw.safetensors` holds other ones; else both files are the same.
    pub has_both: bool,
    /// Whether its file has one set of weights, which it does not call an average.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_only_set: bool,
    /// Updates, where its file states them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub steps: Option<u64>,
    /// Its training, if that can be continued.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunState>,
    /// Why its training cannot be continued although its file has the state of an optimizer: a fragment to go after its name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub no_run: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_false(value: &bool) -> bool {
    !value
}

impl ModelInfo {
    /// Reads `model.json` of a train artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        let path = artifact.join(MODEL_INFO);
        let what = || format!("read `{}`", path.display());
        let text = std::fs::read_to_string(&path).context(what)?;
        serde_json::from_str(&text).wrap(Kind::Input, what)
    }

    /// Which training a train artifact is of: BLAKE3 of its averaged weights. Evaluations of one model have it in common.
    ///
    /// # Errors
    /// The weights are absent.
    pub fn identity(artifact: &Path) -> Result<Digest> {
        hash_file(&artifact.join(EMA)).map(|(_, digest)| digest)
    }

    /// The training of an artifact, as it can be continued.
    ///
    /// # Errors
    /// Why it cannot be continued: a fragment to go after the model's name.
    pub fn run(&self, artifact: &Path) -> std::result::Result<RunState, String> {
        let run = match &self.origin {
            None => checkpoint::digest_of(artifact).map(|digest| RunState {
                step: self.steps,
                has_average: true,
                average_updates: Some(self.steps),
                is_decay_constant: false,
                settings: RunSettings::default(),
                schedule: None,
                rates: RateState::default(),
                digest,
            }),
            Some(ModelOrigin {
                no_run: Some(reason), ..
            }) => return Err(reason.clone()),
            Some(origin) => origin.run.clone(),
        };
        run.filter(|_| artifact.join(OPTIMIZER).is_file())
            .ok_or_else(|| "its file has no state of an optimizer".to_owned())
    }

    /// Which weights are read where `asked` is asked for: a model from elsewhere may have one set alone.
    #[must_use]
    pub fn weights(&self, asked: Weights) -> Weights {
        match &self.origin {
            Some(origin) if !origin.has_both => origin.weights,
            _ => asked,
        }
    }

    /// Its compiled shape.
    ///
    /// # Errors
    /// This binary was not compiled with it.
    pub fn shape(&self) -> Result<&'static Shape> {
        SHAPES.find(&self.shape).ok_or_else(|| {
            Error::input(format!("shape `{}` of the model is not compiled", self.shape))
                .hint("`mdlm shapes` lists those that are")
        })
    }

    /// The objective that it was trained for, with random numbers under `seed`.
    #[must_use]
    pub fn build_objective(&self, seed: u64) -> Box<dyn Objective> {
        objective::build(&self.objective, self.special.mask, self.vocabulary, seed)
    }

    /// Whether the first token of each row is given to it and not predicted, so that what it scores is fewer tokens.
    #[must_use]
    pub fn is_first_token_given(&self) -> bool {
        let length = self.length as usize;
        self.build_objective(self.seed).predicted(&(0..length)) < length
    }

    /// The precision that evaluation and sampling compute in. On the CPU that is f32 always. On a GPU a model that was trained
    /// in bf16 is computed in bf16, as it was validated; all others in f32, those trained in tf32 too: a bound does not depend
    /// on a rounding that its training did not have, or that has no visible effect.
    #[must_use]
    pub fn precision_on(&self, device: Device) -> Precision {
        match (device, self.precision) {
            (Device::Cuda, Precision::Bf16) => Precision::Bf16,
            _ => Precision::F32,
        }
    }

    /// Takes note, for the provenance, of a precision that is not f32.
    pub fn note_precision(&self, device: Device, outcome: &mut StageOutput) {
        if self.precision_on(device) == Precision::Bf16 {
            let value = serde_json::json!("bf16");
            outcome.provenance.insert("precision".to_owned(), value);
        }
    }

    /// The network of a train artifact with the weights asked for, in [`ModelInfo::precision_on`] the device.
    ///
    /// # Errors
    /// The weights are absent or damaged, or the device fails.
    pub fn network(&self, artifact: &Path, weights: Weights, device: Device) -> Result<Box<dyn Network>> {
        let (shape, backbone) = (self.shape()?, self.objective.backbone());
        let file = match weights {
            Weights::Ema => EMA,
            Weights::Raw => RAW,
        };
        model::build(
            shape,
            backbone,
            device,
            self.precision_on(device),
            &weights::read(&artifact.join(file), shape, backbone)?,
        )
    }

    /// The tokenizer of a train artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn tokenizer(&self, artifact: &Path) -> Result<Tokenizer> {
        Tokenizer::load(&artifact.join(TOKENIZER), self.special)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info() -> serde_json::Value {
        serde_json::json!({
            "shape": "nano", "vocabulary": 512, "length": 32, "wrap": true,
            "special": { "bos": 1, "eos": 1, "pad": 2, "mask": 511 }, "tokenizer_digest": "00",
            "objective": {
                "kind": "mdlm", "noise": { "kind": "log_linear", "epsilon": 1e-3 }, "sampling_epsilon": 1e-3,
                "antithetic": true, "time_conditioning": false
            },
            "steps": 10, "seed": 1
        })
    }

    /// A model of an earlier version is one of f32, and is written as it was.
    #[test]
    fn precision_at_its_default_is_not_written() {
        let old: ModelInfo = serde_json::from_value(info()).unwrap();
        assert_eq!(old.precision, Precision::F32);
        assert_eq!(serde_json::to_value(&old).unwrap(), info());
        let bf16 = ModelInfo {
            precision: Precision::Bf16,
            ..old
        };
        let written = serde_json::to_value(&bf16).unwrap();
        assert_eq!(written["precision"], "bf16");
        assert_eq!(serde_json::from_value::<ModelInfo>(written).unwrap(), bf16);
    }

    #[test]
    fn checkpoint_with_one_set_of_weights_says_which_are_read() {
        let trained: ModelInfo = serde_json::from_value(info()).unwrap();
        assert_eq!(trained.weights(Weights::Raw), Weights::Raw);
        let of = |weights, has_both| ModelInfo {
            origin: Some(ModelOrigin {
                format: "safetensors file".to_owned(),
                weights,
                has_both,
                is_only_set: false,
                steps: None,
                run: None,
                no_run: None,
            }),
            ..trained.clone()
        };
        assert_eq!(of(Weights::Raw, false).weights(Weights::Ema), Weights::Raw);
        assert_eq!(of(Weights::Ema, false).weights(Weights::Raw), Weights::Ema);
        assert_eq!(of(Weights::Ema, true).weights(Weights::Raw), Weights::Raw);
        let written = serde_json::to_value(of(Weights::Raw, false)).unwrap();
        assert_eq!(
            written["origin"],
            serde_json::json!({ "format": "safetensors file", "weights": "raw", "has_both": false })
        );
    }

    #[test]
    fn precision_bf16_of_a_training_is_used_only_on_a_gpu() {
        let of = |precision, device| {
            let info = ModelInfo {
                precision,
                ..serde_json::from_value(info()).unwrap()
            };
            info.precision_on(device)
        };
        assert_eq!(of(Precision::Bf16, Device::Cuda), Precision::Bf16);
        assert_eq!(of(Precision::Bf16, Device::Cpu), Precision::F32);
        assert_eq!(of(Precision::Tf32, Device::Cuda), Precision::F32);
        assert_eq!(of(Precision::F32, Device::Cuda), Precision::F32);
    }
}
