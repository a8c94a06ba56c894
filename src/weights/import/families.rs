//! Models of other kinds, by the names of their tensors: what a message says in place of a long list of unknown names.

use crate::error::Error;
use crate::weights::fitting::NamedTensor;

/// A kind of model that is not mdlm's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ModelFamily {
    /// Parts of names, all of which such a file has.
    parts: &'static [&'static str],
    /// What it is.
    name: &'static str,
    /// What it has and mdlm's network has otherwise.
    reason: &'static str,
}

/// The first that fits counts.
const FAMILIES: [ModelFamily; 9] = [
    ModelFamily {
        parts: &["wpe.weight"],
        name: "a GPT-2 model",
        reason: "its positions are learned (`wpe`), and mdlm's transformer has rotary ones",
    },
    ModelFamily {
        parts: &["embeddings.position_embeddings."],
        name: "a BERT model",
        reason: "its positions are learned, and mdlm's transformer has rotary ones",
    },
    ModelFamily {
        parts: &["self_attn.q_proj."],
        name: "a model of the Llama family (LLaDA, Dream, Qwen)",
        reason: "its attention has separate projections and its MLP a gate, and mdlm's blocks have `attn_qkv` and GELU",
    },
    ModelFamily {
        parts: &["transformer.h.", ".attn.attn."],
        name: "a lit-gpt model (SMDM)",
        reason: "its blocks are those of Llama, and mdlm's blocks have `attn_qkv` and GELU",
    },
    ModelFamily {
        parts: &["transformer.blocks.", ".ff_proj."],
        name: "an OLMo model (LLaDA)",
        reason: "its MLP has a gate, and mdlm's blocks have GELU",
    },
    ModelFamily {
        parts: &["attention.query_key_value."],
        name: "a GPT-NeoX model",
        reason: "its blocks have biases and other names, and mdlm's attention has no biases",
    },
    ModelFamily {
        parts: &["mixer.in_proj."],
        name: "a Mamba model (DiMamba)",
        reason: "it has no attention",
    },
    ModelFamily {
        parts: &["down_blocks."],
        name: "a U-Net",
        reason: "it is a model of images",
    },
    ModelFamily {
        parts: &["lora_A."],
        name: "a LoRA adapter",
        reason: "it holds changes of a model's weights: merge it into the model first",
    },
];

/// The family of a file's tensors, if they are of a known one.
pub(super) fn of(tensors: &[NamedTensor]) -> Option<&'static ModelFamily> {
    let has = |part: &&str| tensors.iter().any(|tensor| tensor.stored.contains(*part));
    FAMILIES.iter().find(|family| family.parts.iter().all(&has))
}

impl ModelFamily {
    /// What it is, and what it has otherwise.
    pub(super) fn text(&self) -> String {
        format!("{}: {}", self.name, self.reason)
    }

    /// The error of such a file.
    pub(super) fn refused(&self, place: &str) -> Error {
        Error::input(format!("{place} is {}", self.text())).hint(
            "mdlm reads the networks of MDLM's release: the DiT (MDLM, SEDD, D3PM, BD3-LM with one block) and its \
             plain transformer (AR)",
        )
    }
}
