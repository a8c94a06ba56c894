//! A trained model on disk: what `train` writes and `evaluate`, `sample` read.

use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::data::{SpecialIds, TOKENIZER, tokenizer::Tokenizer};
use crate::diffusion::Mdlm;
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::kernels::{Alphabet, gemm::Precision};
use crate::manifest::{Noise, Weights};
use crate::model::{self, Device, Network, checkpoint};
use crate::shapes::Shape;
use crate::train::checkpoint::{EMA, RAW};

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
    /// The forward process.
    pub noise: Noise,
    /// Smallest diffusion time of its training.
    pub sampling_epsilon: f64,
    /// Whether the network is told the noise level.
    pub time_conditioning: bool,
    /// Updates.
    pub steps: u64,
    /// Seed of its training.
    pub seed: u64,
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

    /// Its compiled shape.
    ///
    /// # Errors
    /// This binary was not compiled with it.
    pub fn shape(&self) -> Result<&'static Shape> {
        Shape::find(&self.shape).ok_or_else(|| {
            Error::input(format!("shape `{}` of the model is not compiled", self.shape))
                .hint("`mdlm shapes` lists those that are")
        })
    }

    /// The tokens that the softmax ranges over.
    #[must_use]
    pub fn alphabet(&self) -> Alphabet {
        Alphabet {
            mask: self.special.mask,
            size: self.vocabulary,
        }
    }

    /// The forward process and its objective, its random numbers under `seed`.
    #[must_use]
    pub fn mdlm(&self, seed: u64) -> Mdlm {
        Mdlm {
            schedule: self.noise.into(),
            sampling_epsilon: self.sampling_epsilon,
            antithetic: true,
            time_conditioning: self.time_conditioning,
            mask: self.special.mask,
            seed,
        }
    }

    /// The network of a train artifact with the weights asked for.
    ///
    /// # Errors
    /// The weights are absent or damaged, or the device fails.
    pub fn network(&self, artifact: &Path, weights: Weights, device: Device) -> Result<Box<dyn Network>> {
        let shape = self.shape()?;
        let file = match weights {
            Weights::Ema => EMA,
            Weights::Raw => RAW,
        };
        model::build(
            shape,
            device,
            Precision::Single,
            &checkpoint::read(&artifact.join(file), shape)?,
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
