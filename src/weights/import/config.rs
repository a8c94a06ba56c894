//! What the file beside the weights says of a model: `config.json` of Hugging Face, the settings that SEDD and the authors'
//! training code save, or `model.json` of a train stage.

use serde_json::Value;

use crate::error::{Error, Result};
use crate::manifest::{
    ArObjective, D3pmObjective, MdlmObjective, Noise, NoiseEpsilon, NoiseRange, Objective, SeddObjective,
};

/// Facts about a model. What a file does not state is `None`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct ConfigFacts {
    /// The file that states them: `config.json`.
    pub file: String,
    /// `model_type` of Hugging Face.
    pub model_type: Option<String>,
    /// V.
    pub vocabulary: Option<u64>,
    /// L.
    pub length: Option<u64>,
    /// D.
    pub width: Option<u64>,
    /// H.
    pub heads: Option<u64>,
    /// N.
    pub blocks: Option<u64>,
    /// C.
    pub conditioning: Option<u64>,
    /// Whether the network is fed the noise level.
    pub time_conditioning: Option<bool>,
    /// Id of the mask token.
    pub mask: Option<u64>,
    /// Tokens of the tokenizer where they are fewer than V.
    pub tokens: Option<u64>,
    /// Name of the compiled shape, in a file of this program's.
    pub shape: Option<String>,
    /// Updates of its training.
    pub steps: Option<u64>,
    /// Whether rows are joined and cut documents.
    pub wrap: Option<bool>,
    /// The objective.
    pub objective: Option<Objective>,
    /// Why it has no objective of this program's, where it has another one: a fragment to go after a colon.
    pub foreign: Option<String>,
}

impl ConfigFacts {
    /// The facts in a file's JSON.
    ///
    /// # Errors
    /// It is not an object, a field has another type, or an objective that it spells out has a fault.
    pub fn read(file: &str, json: &Value) -> Result<Self> {
        let Value::Object(_) = json else {
            return Err(Error::input(format!(
                "it is {}, expected an object",
                kind_of(json)
            )));
        };
        let mut facts = Self {
            file: file.to_owned(),
            ..Self::default()
        };
        let reader = FieldReader { json };
        if json.get("tokenizer_digest").is_some() {
            facts.of_train_stage(&reader)?;
        } else if json.get("model").is_some_and(Value::is_object) {
            facts.of_settings(&reader)?;
        } else {
            facts.of_hub(&reader)?;
        }
        Ok(facts)
    }

    /// `model.json`.
    fn of_train_stage(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        self.shape = reader.text("shape")?;
        self.tokens = reader.number("vocabulary")?;
        self.length = reader.number("length")?;
        self.mask = reader.number("special/mask")?;
        self.steps = reader.number("steps")?;
        self.wrap = reader.flag("wrap")?;
        self.spelled_out(reader)
    }

    /// `config.json` of a model on the hub.
    fn of_hub(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        self.model_type = reader.text("model_type")?;
        self.vocabulary = reader.number("vocab_size")?;
        self.length = reader.number("model_length")?;
        self.width = reader.number("hidden_dim")?;
        self.heads = reader.number("n_heads")?;
        self.blocks = reader.number("n_blocks")?;
        self.conditioning = reader.number("cond_dim")?;
        self.time_conditioning = reader.flag("time_conditioning")?;
        self.mask = reader.number("mask_token_id")?;
        self.tokens = reader.number("tokenizer_vocab_size")?;
        self.wrap = reader.flag("wrap")?;
        self.spelled_out(reader)?;
        if self.objective.is_some() {
            return Ok(());
        }
        let kind = self.model_type.as_deref().map(str::to_ascii_lowercase);
        match kind.as_deref() {
            Some("mdlm") => self.objective = Some(self.mdlm()),
            Some("bd3lm") => self.block_diffusion(reader)?,
            Some("duo") => {
                self.foreign = Some(
                    "a Duo model has uniform noise, and mdlm's objectives have absorbing noise".to_owned(),
                );
            }
            Some("gpt2" | "gpt_neox" | "llama" | "bert" | "mamba" | "qwen2" | "qwen3" | "llada") | None => {}
            Some(other) => self.foreign = Some(format!("no objective is known for `model_type` `{other}`")),
        }
        Ok(())
    }

    /// BD3-LM (arXiv 2503.09573): with one block a row it is masked diffusion.
    fn block_diffusion(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        let block = reader.number("block_size")?;
        let is_causal = reader.flag("causal")?.unwrap_or(false);
        let has_blocks = reader.flag("cross_attn")?.unwrap_or(true);
        if is_causal {
            self.objective = Some(Objective::Ar(ArObjective::default()));
        } else if has_blocks && block != self.length {
            let [block, length] =
                [block, self.length].map(|number| number.map_or("?".to_owned(), |number| number.to_string()));
            self.foreign = Some(format!(
                "a BD3-LM with blocks of {block} tokens in rows of {length} attends from block to block, and mdlm's \
                 transformer attends to the whole row: only those with `block_size` equal to `model_length` fit"
            ));
        } else {
            self.objective = Some(self.mdlm());
        }
        Ok(())
    }

    fn mdlm(&self) -> Objective {
        Objective::Mdlm(MdlmObjective {
            time_conditioning: self.time_conditioning.unwrap_or(false),
            ..MdlmObjective::default()
        })
    }

    /// The settings that SEDD and the authors' training code save: a tree with an object `model`.
    fn of_settings(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        self.length = reader.number("model/length")?;
        self.width = reader.number("model/hidden_size")?;
        self.heads = reader.number("model/n_heads")?;
        self.blocks = reader.number("model/n_blocks")?;
        self.conditioning = reader.number("model/cond_dim")?;
        // Duo's code has these in `algo`.
        self.time_conditioning = match reader.flag("time_conditioning")? {
            None => reader.flag("algo/time_conditioning")?,
            stated => stated,
        };
        self.spelled_out(reader)?;
        if self.objective.is_some() {
            return Ok(());
        }
        let noise = Self::noise(reader)?;
        if let Some(graph) = reader.text("graph/type")? {
            // SEDD's code: `tokens` are without the mask, which absorbing noise adds.
            if graph == "absorb" {
                self.vocabulary = reader.number("tokens")?.map(|tokens| tokens.saturating_add(1));
                self.time_conditioning = Some(true);
                self.objective = Some(Objective::Sedd(SeddObjective {
                    noise,
                    ..SeddObjective::default()
                }));
            } else {
                self.foreign = Some(format!(
                    "a SEDD with `{graph}` noise, and mdlm's objectives have absorbing noise"
                ));
            }
            return Ok(());
        }
        let steps = reader
            .number("T")?
            .or(reader.number("algo/T")?)
            .and_then(|steps| u32::try_from(steps).ok());
        let steps = steps.filter(|&steps| steps > 0);
        let is_conditioned = self.time_conditioning.unwrap_or(false);
        let parameterization = reader.text("parameterization")?;
        let named = parameterization.or(reader.text("algo/name")?);
        match named.as_deref() {
            Some("subs" | "mdlm") => {
                self.objective = Some(Objective::Mdlm(MdlmObjective {
                    noise,
                    steps,
                    time_conditioning: is_conditioned,
                    ..MdlmObjective::default()
                }));
            }
            Some("d3pm") => {
                self.objective = Some(Objective::D3pm(D3pmObjective {
                    noise,
                    steps: steps.unwrap_or(D3pmObjective::default().steps),
                    time_conditioning: is_conditioned,
                    ..D3pmObjective::default()
                }));
            }
            Some("sedd") => {
                self.objective = Some(Objective::Sedd(SeddObjective {
                    noise,
                    ..SeddObjective::default()
                }));
            }
            Some("ar") => self.objective = Some(Objective::Ar(ArObjective::default())),
            Some(other) => {
                self.foreign = Some(format!(
                    "no objective is known for the parameterization `{other}`"
                ));
            }
            None => {}
        }
        Ok(())
    }

    /// The noise schedule of saved settings, by the authors' names; log-linear where they name none that is known.
    fn noise(reader: &FieldReader<'_>) -> Result<Noise> {
        let range = || -> Result<NoiseRange> {
            Ok(NoiseRange {
                sigma_min: reader.float("noise/sigma_min")?.unwrap_or(1e-4),
                sigma_max: reader.float("noise/sigma_max")?.unwrap_or(20.0),
            })
        };
        let epsilon = NoiseEpsilon { epsilon: 1e-3 };
        Ok(match reader.text("noise/type")?.as_deref() {
            Some("geometric") => Noise::Geometric(range()?),
            Some("linear") => Noise::Linear(range()?),
            Some("cosine") => Noise::Cosine(epsilon),
            Some("cosinesqr") => Noise::CosineSquared(epsilon),
            _ => Noise::LogLinear(epsilon),
        })
    }

    /// An objective as manifests have it: this program writes it into the files that it exports.
    fn spelled_out(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        let Some(object) = reader.json.get("objective").filter(|object| object.is_object()) else {
            return Ok(());
        };
        let objective = serde_json::from_value(object.clone())
            .map_err(|error| Error::input(format!("`objective` is {object}: {error}")))?;
        self.objective = Some(objective);
        Ok(())
    }
}

/// Fields of a JSON object.
struct FieldReader<'a> {
    json: &'a Value,
}

impl FieldReader<'_> {
    fn field(&self, path: &str) -> Option<&Value> {
        let found = self.json.pointer(&format!("/{path}"));
        found.filter(|value| !value.is_null())
    }

    fn wrong(path: &str, value: &Value, expected: &str) -> Error {
        let name = path.replace('/', ".");
        Error::input(format!("`{name}` is {value}, expected {expected}"))
    }

    fn number(&self, path: &str) -> Result<Option<u64>> {
        let read = |value: &Value| {
            value
                .as_u64()
                .ok_or_else(|| Self::wrong(path, value, "a whole number"))
        };
        self.field(path).map(read).transpose()
    }

    fn float(&self, path: &str) -> Result<Option<f64>> {
        let read = |value: &Value| value.as_f64().ok_or_else(|| Self::wrong(path, value, "a number"));
        self.field(path).map(read).transpose()
    }

    fn flag(&self, path: &str) -> Result<Option<bool>> {
        let read = |value: &Value| {
            value
                .as_bool()
                .ok_or_else(|| Self::wrong(path, value, "true or false"))
        };
        self.field(path).map(read).transpose()
    }

    fn text(&self, path: &str) -> Result<Option<String>> {
        let read = |value: &Value| {
            let text = value.as_str().map(str::to_owned);
            text.ok_or_else(|| Self::wrong(path, value, "a text"))
        };
        self.field(path).map(read).transpose()
    }
}

fn kind_of(json: &Value) -> &'static str {
    match json {
        Value::Null => "null",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a text",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn facts(json: &Value) -> ConfigFacts {
        ConfigFacts::read("config.json", json).unwrap()
    }

    /// The fields of `kuleshov-group/mdlm-owt`.
    fn published() -> Value {
        json!({
            "_name_or_path": "kuleshov-group/mdlm-owt", "architectures": ["MDLM"],
            "auto_map": { "AutoConfig": "configuration_mdlm.MDLMConfig", "AutoModelForMaskedLM": "modeling_mdlm.MDLM" },
            "cond_dim": 128, "dropout": 0.1, "hidden_dim": 768, "model_length": 1024, "model_type": "mdlm",
            "n_blocks": 12, "n_heads": 12, "return_dict": false, "time_conditioning": false,
            "torch_dtype": "float32", "transformers_version": "4.38.2", "vocab_size": 50258
        })
    }

    #[test]
    fn checkpoint_config_of_the_hub_states_dimensions_and_objective() {
        let found = facts(&published());
        assert_eq!(
            [
                found.vocabulary,
                found.length,
                found.width,
                found.heads,
                found.blocks,
                found.conditioning
            ],
            [50258, 1024, 768, 12, 12, 128].map(Some)
        );
        assert_eq!(found.objective, Some(Objective::default()));
        assert_eq!((found.mask, found.foreign), (None, None));
        let mut conditioned = published();
        conditioned["time_conditioning"] = json!(true);
        assert!(facts(&conditioned).objective.unwrap().is_time_conditioned());
        let mut ours = published();
        ours["objective"] = json!({ "kind": "d3pm", "steps": 50 });
        ours["mask_token_id"] = json!(7);
        ours["tokenizer_vocab_size"] = json!(8);
        ours["wrap"] = json!(false);
        let found = facts(&ours);
        assert_eq!((found.objective.unwrap().kind(), found.mask), ("d3pm", Some(7)));
        assert_eq!((found.tokens, found.wrap), (Some(8), Some(false)));
    }

    #[test]
    fn checkpoint_config_of_block_diffusion_fits_with_one_block_a_row() {
        let with = |more: Value| {
            let mut config = published();
            config["model_type"] = json!("bd3lm");
            config
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            facts(&config)
        };
        assert_eq!(
            with(json!({ "block_size": 1024 })).objective,
            Some(Objective::default())
        );
        let no_blocks = with(json!({ "block_size": 1, "cross_attn": false }));
        assert_eq!(no_blocks.objective, Some(Objective::default()));
        let blocks = with(json!({ "block_size": 16 }));
        assert_eq!(blocks.objective, None);
        assert!(
            blocks
                .foreign
                .unwrap()
                .contains("blocks of 16 tokens in rows of 1024")
        );
        let duo = with(json!({ "model_type": "DUO" }));
        assert!(duo.objective.is_none() && duo.foreign.unwrap().contains("uniform noise"));
    }

    #[test]
    fn checkpoint_config_of_saved_settings_states_sedd_and_the_authors_objectives() {
        let sedd = json!({
            "ngpus": 8, "tokens": 50257, "graph": { "type": "absorb", "file": "data" },
            "noise": { "type": "loglinear", "sigma_min": 1e-4, "sigma_max": 20 },
            "model": {
                "name": "small", "type": "ddit", "hidden_size": 768, "cond_dim": 128, "length": 1024, "n_blocks": 12,
                "n_heads": 12, "scale_by_sigma": true, "dropout": 0.1
            }
        });
        let found = facts(&sedd);
        assert_eq!((found.vocabulary, found.width), (Some(50258), Some(768)));
        assert_eq!(found.objective, Some(Objective::Sedd(SeddObjective::default())));
        let mut uniform = sedd.clone();
        uniform["graph"]["type"] = json!("uniform");
        assert!(facts(&uniform).foreign.unwrap().contains("`uniform` noise"));
        let mut geometric = sedd;
        geometric["noise"]["type"] = json!("geometric");
        let Some(Objective::Sedd(settings)) = facts(&geometric).objective else {
            panic!()
        };
        assert!(matches!(settings.noise, Noise::Geometric(range) if range.sigma_max == 20.0));

        let of = |parameterization: &str, steps: u32| {
            facts(&json!({
                "parameterization": parameterization, "T": steps, "time_conditioning": true,
                "model": { "hidden_size": 768, "length": 128 }, "noise": { "type": "loglinear" }
            }))
            .objective
        };
        assert_eq!(of("subs", 0).unwrap().steps(), None);
        assert_eq!(of("subs", 100).unwrap().steps(), Some(100));
        assert_eq!(of("d3pm", 1000), Some(Objective::D3pm(D3pmObjective::default())));
        assert_eq!(of("ar", 0).unwrap().kind(), "ar");
        assert_eq!(of("sedd", 0).unwrap().kind(), "sedd");
        assert_eq!(of("another", 0), None);
    }

    #[test]
    fn checkpoint_config_with_a_wrong_type_is_refused_with_the_field() {
        for (config, text) in [
            (json!([1]), "it is a list"),
            (
                json!({ "vocab_size": "many" }),
                "`vocab_size` is \"many\", expected a whole number",
            ),
            (json!({ "vocab_size": -1 }), "expected a whole number"),
            (json!({ "time_conditioning": 1 }), "expected true or false"),
            (json!({ "model": { "length": true } }), "`model.length` is true"),
            (json!({ "objective": { "kind": "mdlm", "no": 1 } }), "`objective`"),
        ] {
            let error = ConfigFacts::read("config.json", &config).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
