//! What the file beside the weights says of a model: `config.json` of Hugging Face, the settings that SEDD and the authors'
//! training code save, or `model.json` of a train stage.

use serde_json::{Map, Value, json};

use super::run::RunSettings;
use crate::error::{Error, Result};
use crate::manifest::{
    ArObjective, D3pmObjective, MdlmObjective, Noise, NoiseEpsilon, NoiseRange, Objective, SeddObjective,
    Times,
};
use crate::shapes::{Backbone, SHAPES};

/// Why a Duo model has no objective of mdlm's.
const DUO: &str = "a Duo model has uniform noise, and mdlm's objectives have absorbing noise";

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
    /// The digest of its tokenizer, in files of mdlm's.
    pub tokenizer: Option<String>,
    /// Name of the compiled shape, in a file of this program's.
    pub shape: Option<String>,
    /// Updates of its training.
    pub steps: Option<u64>,
    /// Whether rows are joined and cut documents.
    pub wrap: Option<bool>,
    /// The objective.
    pub objective: Option<Objective>,
    /// The fields of the objective that the file states, as a manifest has them; null for one that it states to be absent.
    pub stated: Map<String, Value>,
    /// Whether `stated` are all fields: one that it lacks has its default.
    pub states_all: bool,
    /// Settings of its training.
    pub settings: RunSettings,
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
        // Heads leave no trace in the tensors.
        if let Some(shape) = self.shape.as_deref().and_then(|name| SHAPES.find(name)) {
            self.heads = Some(shape.heads as u64);
        }
        self.tokens = reader.number("vocabulary")?;
        self.tokenizer = reader.text("tokenizer_digest")?;
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
        self.tokenizer = reader.text("mdlm_tokenizer_digest")?;
        self.wrap = reader.flag("wrap")?;
        self.settings.dropout = reader.float("dropout").ok().flatten();
        self.spelled_out(reader)?;
        if self.objective.is_some() {
            return Ok(());
        }
        let kind = self.model_type.as_deref().map(str::to_ascii_lowercase);
        match kind.as_deref() {
            Some("mdlm" | "duo" | "bd3lm") if reader.flag("causal")? == Some(true) => self.autoregressive(),
            Some("mdlm") => self.mdlm(),
            Some("bd3lm") => {
                let has_blocks = reader.flag("cross_attn")?.unwrap_or(true);
                self.block_diffusion(reader.number("block_size")?, has_blocks);
            }
            Some("duo") => self.foreign = Some(DUO.to_owned()),
            Some("gpt2" | "gpt_neox" | "llama" | "bert" | "mamba" | "qwen2" | "qwen3" | "llada") | None => {}
            Some(other) => self.foreign = Some(format!("no objective is known for `model_type` `{other}`")),
        }
        Ok(())
    }

    fn autoregressive(&mut self) {
        self.objective = Some(Objective::Ar(ArObjective::default()));
        self.state("kind", "ar");
    }

    /// A field of the objective that the file states.
    fn state(&mut self, field: &str, value: impl Into<Value>) {
        self.stated.insert(field.to_owned(), value.into());
    }

    /// BD3-LM (arXiv 2503.09573): with one block a row it is masked diffusion.
    fn block_diffusion(&mut self, block: Option<u64>, has_blocks: bool) {
        if has_blocks && block != self.length {
            let [block, length] =
                [block, self.length].map(|number| number.map_or("?".to_owned(), |number| number.to_string()));
            self.foreign = Some(format!(
                "a BD3-LM with blocks of {block} tokens in rows of {length} attends from block to block, and mdlm's \
                 transformer attends to the whole row: only those with `block_size` equal to `model_length` fit"
            ));
        } else {
            self.mdlm();
        }
    }

    fn mdlm(&mut self) {
        self.objective = Some(Objective::Mdlm(MdlmObjective {
            time_conditioning: self.time_conditioning.unwrap_or(false),
            ..MdlmObjective::default()
        }));
        self.state("kind", "mdlm");
        if let Some(flag) = self.time_conditioning {
            self.state("time_conditioning", flag);
        }
    }

    /// The settings that SEDD and the authors' training code save: a tree with an object `model`.
    fn of_settings(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        self.length = reader.number("model/length")?;
        self.width = reader.number("model/hidden_size")?;
        self.heads = reader.number("model/n_heads")?;
        self.blocks = reader.number("model/n_blocks")?;
        self.conditioning = reader.number("model/cond_dim")?;
        self.wrap = reader.flag("data/wrap")?;
        // Of mdlm's own files alone: theirs are a tokenizer's.
        self.mask = reader.number("mask_token_id")?;
        self.tokens = reader.number("tokenizer_vocab_size")?;
        self.tokenizer = reader.text("mdlm_tokenizer_digest")?;
        self.settings = Self::run(reader);
        // Duo's code has these in `algo`.
        self.time_conditioning = match reader.flag("time_conditioning")? {
            None => reader.flag("algo/time_conditioning")?,
            stated => stated,
        };
        self.spelled_out(reader)?;
        if self.objective.is_some() {
            return Ok(());
        }
        let (noise, named) = match Self::noise(reader)? {
            Ok(found) => found,
            Err(unknown) => {
                self.foreign = Some(format!("no noise schedule of mdlm's is called `{unknown}`"));
                return Ok(());
            }
        };
        let stated_noise = named.then(|| serde_json::to_value(noise).unwrap_or_default());
        if let Some(graph) = reader.text("graph/type")? {
            self.sedd(&graph, noise, reader)?;
        } else {
            self.parameterization(noise, reader)?;
        }
        if let (Some(objective), Some(stated)) = (self.objective, stated_noise)
            && objective.noise().is_some()
        {
            self.state("noise", stated);
        }
        Ok(())
    }

    /// SEDD's code: `tokens` are without the mask, which absorbing noise adds.
    fn sedd(&mut self, graph: &str, noise: Noise, reader: &FieldReader<'_>) -> Result<()> {
        if graph != "absorb" {
            self.foreign = Some(format!(
                "a SEDD with `{graph}` noise, and mdlm's objectives have absorbing noise"
            ));
            return Ok(());
        }
        self.vocabulary = reader.number("tokens")?.map(|tokens| tokens.saturating_add(1));
        if reader.flag("model/scale_by_sigma")? == Some(false) {
            self.foreign = Some(
                "a SEDD without `scale_by_sigma`, and mdlm's divides the scores by exp(σ) - 1 as the published ones do"
                    .to_owned(),
            );
            return Ok(());
        }
        self.time_conditioning = Some(true);
        self.objective = Some(Objective::Sedd(SeddObjective {
            noise,
            ..SeddObjective::default()
        }));
        self.state("kind", "sedd");
        self.state("time_conditioning", true);
        Ok(())
    }

    /// The objective by the authors' name of its parameterization, or by Duo's of the algorithm.
    fn parameterization(&mut self, noise: Noise, reader: &FieldReader<'_>) -> Result<()> {
        let steps = match reader.number("T")? {
            None => reader.number("algo/T")?,
            stated => stated,
        };
        let conditioned = self.time_conditioning;
        let parameterization = match reader.text("parameterization")? {
            None => reader.text("algo/name")?,
            stated => stated,
        };
        let count = match steps.filter(|&steps| steps > 0) {
            Some(steps) => {
                let known = u32::try_from(steps).ok();
                Some(known.ok_or_else(|| FieldReader::wrong("T", &Value::from(steps), "fewer steps"))?)
            }
            None => None,
        };
        match parameterization.as_deref() {
            _ if reader.flag("algo/causal_attention")? == Some(true) => self.autoregressive(),
            Some("bd3lm") => {
                let has_blocks = reader.flag("algo/cross_attn")?.unwrap_or(true);
                self.block_diffusion(reader.number("block_size")?, has_blocks);
            }
            Some("subs" | "mdlm") => {
                self.objective = Some(Objective::Mdlm(MdlmObjective {
                    noise,
                    steps: count,
                    time_conditioning: conditioned.unwrap_or(false),
                    ..self.sampled_times(reader)?
                }));
                self.state("kind", "mdlm");
                if steps.is_some() {
                    self.state("steps", count.map_or(Value::Null, Value::from));
                }
            }
            Some("d3pm") => {
                self.objective = Some(Objective::D3pm(D3pmObjective {
                    noise,
                    steps: count.unwrap_or(D3pmObjective::default().steps),
                    time_conditioning: conditioned.unwrap_or(false),
                    ..D3pmObjective::default()
                }));
                self.state("kind", "d3pm");
                if let Some(count) = count {
                    self.state("steps", count);
                }
            }
            Some("sedd") => {
                let settings = SeddObjective::default();
                self.objective = Some(Objective::Sedd(SeddObjective {
                    noise,
                    time_conditioning: conditioned.unwrap_or(settings.time_conditioning),
                    ..settings
                }));
                self.state("kind", "sedd");
            }
            Some("ar") => self.autoregressive(),
            Some(other) if other.starts_with("duo") => self.foreign = Some(DUO.to_owned()),
            Some(other) => {
                self.foreign = Some(format!(
                    "no objective is known for the parameterization `{other}`"
                ));
            }
            None => {}
        }
        let objective = self.objective.filter(|objective| objective.kind() != "ar");
        if let (Some(_), Some(flag)) = (objective, conditioned) {
            self.state("time_conditioning", flag);
        }
        Ok(())
    }

    /// How the authors' training draws times. What is not at its default is stated.
    fn sampled_times(&mut self, reader: &FieldReader<'_>) -> Result<MdlmObjective> {
        let mut found = MdlmObjective::default();
        if reader.flag("training/change_of_variables")? == Some(true) {
            found.times = Times::ChangeOfVariables;
            self.state("times", json!({ "kind": "change_of_variables" }));
        } else if reader.flag("training/importance_sampling")? == Some(true) {
            found.times = Times::Importance;
            self.state("times", json!({ "kind": "importance" }));
        }
        if let Some(is_on) = reader.flag("training/antithetic_sampling")?
            && is_on != found.antithetic
        {
            found.antithetic = is_on;
            self.state("antithetic", is_on);
        }
        if let Some(epsilon) = reader.float("training/sampling_eps")?
            && epsilon != found.sampling_epsilon
        {
            found.sampling_epsilon = epsilon;
            self.state("sampling_epsilon", epsilon);
        }
        Ok(found)
    }

    /// The settings of a training, by the authors' names. They do not concern the network: one of another type is left out.
    fn run(reader: &FieldReader<'_>) -> RunSettings {
        let number = |path: &str| reader.float(path).ok().flatten();
        RunSettings {
            learning_rate: number("optim/lr"),
            warmup_steps: number("lr_scheduler/num_warmup_steps"),
            beta1: number("optim/beta1"),
            beta2: number("optim/beta2"),
            epsilon: number("optim/eps"),
            weight_decay: number("optim/weight_decay"),
            gradient_clip: number("trainer/gradient_clip_val"),
            ema: number("training/ema"),
            dropout: number("model/dropout"),
            batch: number("loader/global_batch_size"),
        }
    }

    /// The noise schedule of saved settings, by the authors' names, and whether they name one: log-linear where they do not.
    /// An unknown name is the error.
    fn noise(reader: &FieldReader<'_>) -> Result<std::result::Result<(Noise, bool), String>> {
        let range = || -> Result<NoiseRange> {
            Ok(NoiseRange {
                sigma_min: reader.float("noise/sigma_min")?.unwrap_or(1e-4),
                sigma_max: reader.float("noise/sigma_max")?.unwrap_or(20.0),
            })
        };
        let epsilon = NoiseEpsilon { epsilon: 1e-3 };
        let named = reader.text("noise/type")?;
        // Duo's code spells it with a hyphen.
        Ok(Ok(match named.as_deref() {
            None => (Noise::LogLinear(epsilon), false),
            Some("loglinear" | "log-linear") => (Noise::LogLinear(epsilon), true),
            Some("geometric") => (Noise::Geometric(range()?), true),
            Some("linear") => (Noise::Linear(range()?), true),
            Some("cosine") => (Noise::Cosine(epsilon), true),
            Some("cosinesqr") => (Noise::CosineSquared(epsilon), true),
            Some(other) => return Ok(Err(other.to_owned())),
        }))
    }

    /// The first field of the objective that the file states and a manifest has otherwise, with both values.
    #[must_use]
    pub fn conflict(&self, own: &Objective) -> Option<(String, String, String)> {
        let Ok(Value::Object(own)) = serde_json::to_value(own) else {
            return None;
        };
        let shown = |field: &str, value: Option<&Value>| match value {
            Some(Value::String(text)) if field == "kind" => format!("`{text}`"),
            None | Some(Value::Null) => "absent".to_owned(),
            Some(value) => value.to_string(),
        };
        let more = own.keys().filter(|_| self.states_all);
        // The kind decides which others there are.
        let kind = self.stated.get_key_value("kind").map(|(field, _)| field);
        let fields = kind.into_iter().chain(self.stated.keys()).chain(more);
        fields.into_iter().find_map(|field| {
            let theirs = self.stated.get(field).filter(|value| !value.is_null());
            let ours = own.get(field).filter(|value| !value.is_null());
            (theirs != ours).then(|| (field.clone(), shown(field, theirs), shown(field, ours)))
        })
    }

    /// The first fact that another file of the same checkpoint states otherwise, as an error.
    ///
    /// # Errors
    /// There is one.
    pub fn agree(&self, other: &Self) -> Result<()> {
        let number = |number: Option<u64>| number.map(|number| number.to_string());
        let flag = |flag: Option<bool>| flag.map(|flag| flag.to_string());
        let kind = |facts: &Self| facts.objective.map(|objective| format!("`{}`", objective.kind()));
        for (what, own, theirs) in [
            (
                "the vocabulary",
                number(self.vocabulary),
                number(other.vocabulary),
            ),
            ("the length of rows", number(self.length), number(other.length)),
            ("the width", number(self.width), number(other.width)),
            ("the number of heads", number(self.heads), number(other.heads)),
            ("the number of blocks", number(self.blocks), number(other.blocks)),
            (
                "the width of the conditioning",
                number(self.conditioning),
                number(other.conditioning),
            ),
            ("the mask token", number(self.mask), number(other.mask)),
            (
                "`time_conditioning`",
                flag(self.time_conditioning),
                flag(other.time_conditioning),
            ),
            ("the objective", kind(self), kind(other)),
        ] {
            if let (Some(own), Some(theirs)) = (own, theirs)
                && own != theirs
            {
                return Err(Error::input(format!(
                    "{what} is {own} in `{}`, but {theirs} in `{}`",
                    self.file, other.file
                ))
                .hint(format!(
                    "`{}` belongs to another model: bring the one that belongs to the weights",
                    self.file
                )));
            }
        }
        let both =
            (self.stated.iter()).filter_map(|(field, own)| Some((field, own, other.stated.get(field)?)));
        for (field, own, theirs) in both {
            if own != theirs {
                return Err(Error::input(format!(
                    "`{field}` of the objective is {own} in `{}`, but {theirs} in `{}`",
                    self.file, other.file
                ))
                .hint(format!(
                    "`{}` belongs to another model: bring the one that belongs to the weights",
                    self.file
                )));
            }
        }
        Ok(())
    }

    /// An objective as manifests have it: this program writes it into the files that it exports.
    fn spelled_out(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        let Some(object) = reader.json.get("objective").filter(|object| object.is_object()) else {
            return Ok(());
        };
        let objective = serde_json::from_value(object.clone())
            .map_err(|error| Error::input(format!("`objective` is {object}: {error}")))?;
        let objective: Objective = objective;
        if let Some(beside) = self.time_conditioning
            && objective.backbone() == Backbone::Dit
            && beside != objective.is_time_conditioned()
        {
            return Err(Error::input(format!(
                "`time_conditioning` is {beside}, but {} in its `objective`",
                objective.is_time_conditioned()
            ))
            .hint("export the model again: both say whether the network is fed the noise level"));
        }
        if let Ok(Value::Object(stated)) = serde_json::to_value(objective) {
            (self.stated, self.states_all) = (stated, true);
        }
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
        ours["objective"] = json!({ "kind": "d3pm", "steps": 50, "time_conditioning": false });
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
    fn checkpoint_config_that_contradicts_the_settings_beside_it_is_refused() {
        let of = |noise: &str| {
            let objective = json!({ "kind": "mdlm", "noise": { "kind": noise } });
            ConfigFacts::read(
                "config.json",
                &json!({ "model_type": "mdlm", "objective": objective }),
            )
            .unwrap()
        };
        of("cosine").agree(&of("cosine")).unwrap();
        let error = of("cosine").agree(&of("log_linear")).unwrap_err().to_string();
        assert!(error.contains("`noise` of the objective is "), "{error}");
    }

    #[test]
    fn checkpoint_config_that_contradicts_itself_or_a_manifest_is_refused() {
        let mut ours = published();
        ours["objective"] = json!({ "kind": "mdlm", "time_conditioning": true });
        let error = ConfigFacts::read("config.json", &ours).unwrap_err().to_string();
        assert!(
            error.contains("`time_conditioning` is false, but true in its `objective`"),
            "{error}"
        );

        let shown = |json: &Value, own: &Value| {
            let own = serde_json::from_value(own.clone()).unwrap();
            facts(json)
                .conflict(&own)
                .map(|(field, theirs, ours)| format!("{field}: {theirs}, {ours}"))
        };
        // A model of the hub states no schedule.
        let cosine = json!({ "kind": "mdlm", "noise": { "kind": "cosine" } });
        assert_eq!(shown(&published(), &cosine), None);
        let conflict = shown(&published(), &json!({ "kind": "ar" }));
        assert_eq!(conflict.unwrap(), "kind: `mdlm`, `ar`");
        let settings = json!({
            "parameterization": "subs", "T": 0, "noise": { "type": "loglinear" }, "model": { "length": 128 }
        });
        assert_eq!(shown(&settings, &json!({ "kind": "mdlm" })), None);
        assert!(shown(&settings, &cosine).unwrap().starts_with("noise: {"));
        let conflict = shown(&settings, &json!({ "kind": "mdlm", "steps": 9 }));
        assert_eq!(conflict.unwrap(), "steps: absent, 9");
        // All is stated: what is left out has its default.
        ours["objective"] = json!({ "kind": "mdlm" });
        assert_eq!(shown(&ours, &json!({ "kind": "mdlm" })), None);
        let conflict = shown(&ours, &json!({ "kind": "mdlm", "carry_over": false }));
        assert_eq!(conflict.unwrap(), "carry_over: absent, false");
    }

    #[test]
    fn checkpoint_settings_of_unknown_noise_have_no_objective() {
        let settings =
            json!({ "parameterization": "subs", "noise": { "type": "square" }, "model": { "length": 128 } });
        let found = facts(&settings);
        assert!(found.objective.is_none() && found.foreign.unwrap().contains("`square`"));
        let unconditioned = json!({ "parameterization": "sedd", "time_conditioning": false, "model": {} });
        assert!(!facts(&unconditioned).objective.unwrap().is_time_conditioned());
        let causal = json!({ "algo": { "name": "ar", "causal_attention": true }, "model": {} });
        assert_eq!(facts(&causal).objective.unwrap().kind(), "ar");
        let run = json!({
            "optim": { "lr": 3e-4, "beta1": "much" }, "training": { "ema": 0.9999 }, "model": {}, "data": { "wrap": false }
        });
        let found = facts(&run);
        assert_eq!(
            (found.settings.learning_rate, found.settings.beta1),
            (Some(3e-4), None)
        );
        assert_eq!((found.settings.ema, found.wrap), (Some(0.9999), Some(false)));
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
