//! What the file beside the weights says of a model: `config.json` of Hugging Face, the settings that SEDD and the authors'
//! training code save, or `model.json` of a train stage.

use std::fmt::Display;

use serde_json::{Map, Value, json};

use super::run::RunSettings;
use crate::error::{Error, Result};
use crate::manifest::{
    ArObjective, D3pmObjective, MdlmObjective, Noise, NoiseEpsilon, NoiseRange, Objective, SeddObjective,
    Times,
};
use crate::shapes::{Backbone, SHAPES};
use crate::weights::ROTARY_BASE;

/// The key of a Lightning checkpoint under which the settings of its run lie.
pub(super) const SETTINGS: &str = "hyper_parameters";
/// Why a Duo model has no objective of mdlm's.
const DUO: &str = "a Duo model has uniform noise, and mdlm's objectives have absorbing noise";

/// Why a SEDD with unscaled scores has none. Of the other objectives the scale is a constant that their softmax takes out.
const UNSCALED: &str =
    "a SEDD without `scale_by_sigma`, and mdlm's divides the scores by exp(σ) - 1 as the published ones do";

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
    /// The network by the name that the file has for it.
    pub backbone: Option<StatedBackbone>,
    /// Whether its attention is causal, and the field that states it.
    pub causal: Option<(String, bool)>,
    /// The field that states that the embedding is the output layer's weight too.
    pub tied: Option<String>,
    /// The first setting that mdlm's network has otherwise: a fragment to go after a colon.
    pub unlike: Option<String>,
    /// Ids of special tokens other than the mask.
    pub roles: Vec<StatedRole>,
    /// The kind of its learning rate's schedule.
    pub schedule: Option<String>,
    /// Why it has no objective of this program's, where it has another one: a fragment to go after a colon.
    pub foreign: Option<String>,
}

/// The name of a network in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedBackbone {
    /// The field that states it.
    pub field: String,
    /// Its value.
    pub value: String,
    /// The networks of mdlm's that it may stand for; none where it is of another kind.
    pub fits: Vec<Backbone>,
}

/// The id that a file states of a token with a special role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StatedRole {
    /// The role: `bos`, `eos` or `pad`.
    pub role: &'static str,
    /// The field that states it: `bos_token_id`.
    pub field: String,
    /// Its id; several where each of them ends a text.
    pub ids: Vec<u64>,
}

/// What mdlm's network has one value of, by the names that configurations have for it.
const FIXED: [(&str, f64); 9] = [
    ("rope_theta", ROTARY_BASE),
    ("rope_parameters/rope_theta", ROTARY_BASE),
    ("rotary_base", ROTARY_BASE),
    ("rotary_emb_base", ROTARY_BASE),
    ("mlp_ratio", 4.0),
    ("layer_norm_eps", 1e-5),
    ("layer_norm_epsilon", 1e-5),
    ("norm_eps", 1e-5),
    ("frequency_embedding_size", 256.0),
];

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
        facts.is_consistent(&reader)?;
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

    /// `config.json` of a model on the hub. Fields have their names in the authors' class, and those of `transformers`.
    fn of_hub(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        self.model_type = reader.text("model_type")?;
        self.vocabulary = reader.number("vocab_size")?;
        self.length = reader.number_of(&["model_length", "max_position_embeddings"])?;
        self.width = reader.number_of(&["hidden_dim", "hidden_size"])?;
        self.heads = reader.number_of(&["n_heads", "num_attention_heads"])?;
        self.blocks = reader.number_of(&["n_blocks", "num_hidden_layers"])?;
        self.conditioning = reader.number("cond_dim")?;
        self.time_conditioning = reader.flag("time_conditioning")?;
        self.mask = reader.number_of(&["mask_token_id", "mask_index"])?;
        self.roles = reader.roles()?;
        self.network(reader, "")?;
        self.tokens = reader.number("tokenizer_vocab_size")?;
        self.tokenizer = reader.text("mdlm_tokenizer_digest")?;
        self.wrap = reader.flag("wrap")?;
        self.settings.dropout = reader.float("dropout").ok().flatten();
        self.spelled_out(reader)?;
        if self.objective.is_some() {
            return Ok(());
        }
        let kind = self.model_type.as_deref().map(str::to_ascii_lowercase);
        let is_causal = self.causal.as_ref().is_some_and(|(_, is_causal)| *is_causal)
            || (self.backbone.as_ref()).is_some_and(|stated| stated.fits == [Backbone::Transformer]);
        match kind.as_deref() {
            Some("mdlm" | "duo" | "bd3lm") if is_causal => self.autoregressive(),
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
        self.schedule = reader.schedule();
        // Duo's code has these in `algo`.
        self.time_conditioning = reader.flag_of(&["time_conditioning", "algo/time_conditioning"])?;
        self.network(reader, "model/")?;
        self.spelled_out(reader)?;
        if self.objective.is_some() && self.states_all {
            return Ok(());
        }
        // A text is the kind alone.
        let kind = self.objective.take();
        self.of_authors(reader)?;
        match (kind, &self.objective) {
            (Some(kind), Some(derived)) if kind.kind() != derived.kind() => {
                let (kind, derived) = (kind.kind(), derived.kind());
                return Err(Error::input(format!(
                    "`objective` is `{kind}`, but the other settings are those of `{derived}`"
                ))
                .hint("correct the field that is wrong"));
            }
            (Some(kind), None) if self.foreign.is_none() => self.objective = Some(kind),
            _ => {}
        }
        Ok(())
    }

    /// The objective by the settings of SEDD's or the authors' training code.
    fn of_authors(&mut self, reader: &FieldReader<'_>) -> Result<()> {
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
            self.foreign = Some(UNSCALED.to_owned());
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
        let steps = reader.number_of(&["T", "algo/T"])?;
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
        let is_masking = reader.flag("subs_masking")? == Some(true);
        if let Some(other) = parameterization
            .as_deref()
            .filter(|name| is_masking && *name != "d3pm")
        {
            return Err(Error::input(format!(
                "`subs_masking` is true, but `parameterization` is `{other}`"
            ))
            .hint(
                "the authors' code takes `subs_masking` with `d3pm` alone: correct the field that is wrong",
            ));
        }
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
            // The mask has no probability, and no token is carried over (arXiv 2406.07524, eq. 41).
            Some("d3pm") if is_masking => {
                self.objective = Some(Objective::Mdlm(MdlmObjective {
                    noise,
                    steps: Some(count.unwrap_or(D3pmObjective::default().steps)),
                    carry_over: false,
                    time_conditioning: conditioned.unwrap_or(false),
                    ..MdlmObjective::default()
                }));
                self.state("kind", "mdlm");
                self.state("carry_over", false);
                if let Some(count) = count {
                    self.state("steps", count);
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
            Some("sedd") if reader.flag("model/scale_by_sigma")? == Some(false) => {
                self.foreign = Some(UNSCALED.to_owned());
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

    /// What the file states of the network beside its dimensions; `below` is where.
    fn network(&mut self, reader: &FieldReader<'_>, below: &str) -> Result<()> {
        let at = |field: &str| format!("{below}{field}");
        for field in [at("causal"), at("is_causal"), "algo/causal_attention".to_owned()] {
            if let Some(is_causal) = reader.flag(&field)? {
                self.causal.get_or_insert((shown(&field), is_causal));
            }
        }
        for field in ["backbone", "algo/backbone"] {
            let Some(value) = reader.text(field)? else {
                continue;
            };
            let is_causal = self.causal == Some(("algo.causal_attention".to_owned(), true));
            let fits = match &*value.to_ascii_lowercase() {
                // In the code of BD3-LM and Duo the same class is the causal one.
                "dit" if is_causal => vec![Backbone::Transformer],
                "dit" | "ddit" | "hf_dit" => vec![Backbone::Dit],
                "transformer" | "ar" => vec![Backbone::Transformer],
                _ => vec![],
            };
            let field = shown(field);
            self.backbone.get_or_insert(StatedBackbone { field, value, fits });
        }
        if reader.flag(&at("tie_word_embeddings"))? == Some(true) {
            self.tied = Some(shown(&at("tie_word_embeddings")));
        }
        let unlike = |field: &str, value: &str, own: &str| {
            Some(format!(
                "`{}` is {value}, and mdlm's network has {own}",
                shown(field)
            ))
        };
        for (field, own) in FIXED {
            let field = at(field);
            if let Some(value) = reader.float(&field).ok().flatten().filter(|value| *value != own) {
                self.unlike = self
                    .unlike
                    .take()
                    .or_else(|| unlike(&field, &value.to_string(), &own.to_string()));
            }
        }
        for field in [at("hidden_act"), at("activation")] {
            if let Some(value) = reader
                .text(&field)
                .ok()
                .flatten()
                .filter(|value| !value.starts_with("gelu"))
            {
                self.unlike = self
                    .unlike
                    .take()
                    .or_else(|| unlike(&field, &format!("`{value}`"), "GELU"));
            }
        }
        let scaling = ["rope_type", "type"]
            .map(|kind| reader.text(&at(&format!("rope_scaling/{kind}"))).ok().flatten());
        if let Some(value) = scaling.into_iter().flatten().find(|value| value != "default") {
            let field = at("rope_scaling");
            self.unlike = self
                .unlike
                .take()
                .or_else(|| unlike(&field, &format!("`{value}`"), "none"));
        }
        Ok(())
    }

    /// Whether the fields that say which network it is say the same.
    fn is_consistent(&self, reader: &FieldReader<'_>) -> Result<()> {
        let conflict = |one: String, other: String| {
            Err(Error::input(format!("{one}, but {other}"))
                .hint("correct the field that is wrong, or bring the file that belongs to the weights"))
        };
        let stated = self.backbone.as_ref();
        let backbone = |stated: &StatedBackbone| format!("`{}` is `{}`", stated.field, stated.value);
        if let Some((field, is_causal)) = &self.causal {
            let is_fit = |held: &Backbone| *is_causal == (*held == Backbone::Transformer);
            if let Some(stated) =
                stated.filter(|stated| !stated.fits.is_empty() && !stated.fits.iter().any(is_fit))
            {
                return conflict(backbone(stated), format!("`{field}` is {is_causal}"));
            }
        }
        let Some(objective) = &self.objective else {
            return Ok(());
        };
        let own = objective.backbone();
        let named = format!(
            "the objective is `{}`, which a {own} is trained for",
            objective.kind()
        );
        if let Some(stated) = stated.filter(|stated| !stated.fits.is_empty() && !stated.fits.contains(&own)) {
            return conflict(named, backbone(stated));
        }
        if let Some((field, is_causal)) = &self.causal
            && *is_causal != (own == Backbone::Transformer)
        {
            return conflict(named, format!("`{field}` is {is_causal}"));
        }
        let is_duo = self
            .model_type
            .as_deref()
            .is_some_and(|kind| kind.eq_ignore_ascii_case("duo"));
        if is_duo && own == Backbone::Dit {
            return conflict(named, format!("`model_type` is `duo`: {DUO}"));
        }
        let is_unscaled = reader.flag("model/scale_by_sigma").ok().flatten() == Some(false)
            || reader.flag("scale_by_sigma").ok().flatten() == Some(false);
        if is_unscaled && objective.kind() == "sedd" {
            return conflict(named, format!("`scale_by_sigma` is false: {UNSCALED}"));
        }
        Ok(())
    }

    /// An objective as manifests have it: this program writes it into the files that it exports. A text is its kind.
    fn spelled_out(&mut self, reader: &FieldReader<'_>) -> Result<()> {
        let (object, is_whole) = match reader.field("objective") {
            None => return Ok(()),
            Some(Value::String(kind)) => (json!({ "kind": kind }), false),
            Some(other) => (other.clone(), true),
        };
        let objective = serde_json::from_value(object.clone()).map_err(|error| {
            let value = reader.field("objective").unwrap_or(&Value::Null);
            Error::input(format!("`objective` is {value}: {error}")).hint(
                "an objective is an object as in a manifest, `{ \"kind\": \"mdlm\" }`; if the field means something else, \
                 take it out of the file",
            )
        })?;
        let mut objective: Objective = objective;
        let beside = self
            .time_conditioning
            .filter(|_| objective.backbone() == Backbone::Dit);
        if let Some(beside) = beside
            && beside != objective.is_time_conditioned()
        {
            let stated = object.get("time_conditioning").is_some() || is_whole;
            let with = json!({ "kind": objective.kind(), "time_conditioning": beside });
            match serde_json::from_value(with) {
                Ok(conditioned) if !stated => objective = conditioned,
                _ => {
                    return Err(Error::input(format!(
                        "`time_conditioning` is {beside}, but {} in its `objective`",
                        objective.is_time_conditioned()
                    ))
                    .hint("export the model again: both say whether the network is fed the noise level"));
                }
            }
        }
        if is_whole {
            if let Ok(Value::Object(stated)) = serde_json::to_value(objective) {
                (self.stated, self.states_all) = (stated, true);
            }
        } else {
            self.state("kind", objective.kind());
            if let Some(beside) = beside {
                self.state("time_conditioning", beside);
            }
        }
        self.objective = Some(objective);
        Ok(())
    }
}

/// A place as messages show it: `model.causal`.
fn shown(path: &str) -> String {
    path.replace('/', ".")
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

    /// The value that all of some fields have which state one.
    fn same<T: PartialEq + Display>(
        &self,
        paths: &[&str],
        read: impl Fn(&Self, &str) -> Result<Option<T>>,
    ) -> Result<Option<T>> {
        let mut found: Option<(&str, T)> = None;
        for path in paths {
            match (read(self, path)?, &found) {
                (Some(value), Some((first, known))) if value != *known => {
                    return Err(Error::input(format!(
                        "`{}` is {known}, but `{}` is {value}",
                        shown(first),
                        shown(path)
                    ))
                    .hint("correct the field that is wrong: both mean the same"));
                }
                (Some(value), None) => found = Some((path, value)),
                _ => {}
            }
        }
        Ok(found.map(|(_, value)| value))
    }

    fn number_of(&self, paths: &[&str]) -> Result<Option<u64>> {
        self.same(paths, Self::number)
    }

    fn flag_of(&self, paths: &[&str]) -> Result<Option<bool>> {
        self.same(paths, Self::flag)
    }

    /// Ids of special tokens. -1 stands for none in some files.
    fn roles(&self) -> Result<Vec<StatedRole>> {
        let mut roles = Vec::new();
        for role in ["bos", "eos", "pad"] {
            let field = format!("{role}_token_id");
            let ids: Vec<u64> = match self.field(&field) {
                None => continue,
                Some(Value::Array(ids)) => ids.iter().filter_map(Value::as_u64).collect(),
                Some(value) if value.as_i64() == Some(-1) => continue,
                Some(_) => self.number(&field)?.into_iter().collect(),
            };
            if !ids.is_empty() {
                roles.push(StatedRole { role, field, ids });
            }
        }
        Ok(roles)
    }

    /// The kind of the learning rate's schedule: the authors' settings name the class or function that makes it.
    fn schedule(&self) -> Option<String> {
        let named = |field: &str| self.text(&format!("lr_scheduler/{field}")).ok().flatten();
        let target = named("_target_").or_else(|| named("name"))?;
        let class = target.rsplit('.').next().unwrap_or(&target);
        Some(schedule_kind(class).unwrap_or(class).to_owned())
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

/// The kind of schedule that a class or function makes, as manifests call it, if its name says so.
pub(super) fn schedule_kind(name: &str) -> Option<&'static str> {
    let name = name.to_ascii_lowercase();
    ["constant", "cosine"]
        .into_iter()
        .find(|kind| name.contains(kind))
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
mod tests;
