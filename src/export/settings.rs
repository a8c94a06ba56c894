//! The settings of a folder of Hugging Face: `config.json`, `tokenizer_config.json`, `special_tokens_map.json`.
//!
//! Every field is written out: the defaults of the classes that read them may change, and the authors' own class has another
//! default for `cond_dim` than their release.

use serde_json::{Map, Value, json};

use super::FinishedModel;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Kind, Result, Wrap as _};
use crate::manifest::{DEFAULT_DROPOUT, Stage};
use crate::shapes::Backbone;

/// `backbone` of `config.json`.
pub(super) fn backbone_name(backbone: Backbone) -> &'static str {
    match backbone {
        Backbone::Dit => "dit",
        Backbone::Transformer => "transformer",
    }
}

/// The dropout of the training; of a model from elsewhere, whose file does not state it, the authors'.
pub(super) fn dropout(stage: &Stage) -> f64 {
    match stage {
        Stage::Train(train) => train.dropout,
        _ => DEFAULT_DROPOUT,
    }
}

/// `config.json`. The importer reads all of it back.
pub(super) fn config(model: &FinishedModel<'_>) -> Result<Value> {
    let (shape, info) = (model.shape, &model.info);
    let objective =
        serde_json::to_value(info.objective).wrap(Kind::Internal, || "write the objective".to_owned())?;
    Ok(json!({
        "architectures": ["MDLM"],
        "auto_map": {
            "AutoConfig": "modeling_mdlm.MDLMConfig",
            "AutoModel": "modeling_mdlm.MDLM",
            "AutoModelForMaskedLM": "modeling_mdlm.MDLM"
        },
        "model_type": "mdlm",
        "dtype": "float32",
        "return_dict": true,
        "tie_word_embeddings": false,
        "vocab_size": shape.vocabulary,
        "model_length": shape.length,
        "hidden_dim": shape.width,
        "cond_dim": shape.conditioning,
        "n_blocks": shape.blocks,
        "n_heads": shape.heads,
        "dropout": dropout(&model.planned.stage),
        "time_conditioning": info.objective.is_time_conditioned(),
        "backbone": backbone_name(info.objective.backbone()),
        "objective": objective,
        "tokenizer_vocab_size": info.vocabulary,
        "mdlm_tokenizer_digest": info.tokenizer_digest,
        "wrap": info.wrap,
        "mask_token_id": info.special.mask,
        "bos_token_id": info.special.bos,
        "eos_token_id": info.special.eos,
        "pad_token_id": info.special.pad
    }))
}

/// Spellings of the tokens with special roles, by the names that `transformers` has for them. The unknown token is among them
/// where the vocabulary has one.
pub(super) fn role_tokens(tokenizer: &Tokenizer, json: &Value) -> Result<Map<String, Value>> {
    let special = tokenizer.special();
    let mut roles = Map::new();
    for (role, id) in [
        ("bos_token", special.bos),
        ("eos_token", special.eos),
        ("pad_token", special.pad),
        ("mask_token", special.mask),
    ] {
        let token = tokenizer.token(id);
        let token = token.ok_or_else(|| Error::input(format!("the tokenizer has no token {id}")))?;
        roles.insert(role.to_owned(), Value::String(token));
    }
    if let Some(unknown) = unknown_token(json) {
        roles.insert("unk_token".to_owned(), Value::String(unknown.to_owned()));
    }
    Ok(roles)
}

/// The unknown token of a `tokenizer.json`, if its vocabulary has it: some state a token that it lacks.
fn unknown_token(json: &Value) -> Option<&str> {
    let model = json.get("model")?;
    if let Some(id) = model.get("unk_id").and_then(Value::as_u64) {
        // Unigram: a list of tokens with their scores.
        return model
            .get("vocab")?
            .get(usize::try_from(id).ok()?)?
            .get(0)?
            .as_str();
    }
    let token = model.get("unk_token")?.as_str()?;
    let is_in_vocabulary = model
        .get("vocab")
        .is_some_and(|vocabulary| vocabulary.get(token).is_some());
    let mut added = json
        .get("added_tokens")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    (is_in_vocabulary || added.any(|other| other["content"] == token)).then_some(token)
}

/// `tokenizer_config.json`. Without `added_tokens_decoder`: the tokens are those of `tokenizer.json`.
pub(super) fn tokenizer_config(length: usize, roles: &Map<String, Value>) -> Value {
    let mut config = json!({
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": length,
        "padding_side": "right",
        "clean_up_tokenization_spaces": false
    });
    if let Value::Object(fields) = &mut config {
        fields.extend(roles.clone());
    }
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn export_names_an_unknown_token_that_the_vocabulary_has() {
        for (json, expected) in [
            (
                json!({ "model": { "unk_token": "[UNK]", "vocab": { "[UNK]": 1 } } }),
                Some("[UNK]"),
            ),
            (
                json!({ "model": { "unk_token": "[UNK]", "vocab": { "a": 1 } } }),
                None,
            ),
            (
                json!({ "model": { "unk_token": "u", "vocab": {} }, "added_tokens": [{ "id": 3, "content": "u" }] }),
                Some("u"),
            ),
            (json!({ "model": { "unk_token": null, "vocab": {} } }), None),
            (
                json!({ "model": { "unk_id": 1, "vocab": [["a", -1.0], ["<unk>", 0.0]] } }),
                Some("<unk>"),
            ),
            (json!({ "model": { "unk_id": 7, "vocab": [["a", -1.0]] } }), None),
        ] {
            assert_eq!(unknown_token(&json), expected, "{json}");
        }
    }
}
