//! The sample stage: a model → texts.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::check::model::or_train;
use super::check::sampling::SamplingSettings;
use super::check::{StageEntry, Stages};
use super::evaluate::Weights;
use super::{FileReference, MODELS, ReferenceField, StageKind, StageSpec};
use crate::manifest::fault::{Draft, quoted, spaced};
use crate::manifest::published::is_default;
use crate::manifest::{EndOfText, GivenText, Objective, Sampler};

/// Sampler steps; the authors' configuration (`sampling.steps` is 128).
pub const DEFAULT_SAMPLE_STEPS: u32 = 128;

/// Samples texts from a model.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// Name of the train or checkpoint stage whose model is sampled.
    pub model: String,
    /// Number of rows to sample; with `given`, of each of its texts.
    #[schemars(range(min = 1, max = 10_000_000))]
    pub count: u32,
    /// Number of reverse steps, from all tokens masked to none; of `gibbs`, number of sweeps. The samplers `first_hitting`
    /// and `autoregressive` take a step per token and `threshold` as many as a row needs, whatever this number is. Default:
    /// the MDLM authors' configuration (`sampling.steps`, arXiv 2406.07524).
    #[serde(default = "default_sample_steps")]
    #[schemars(range(min = 1, max = 1_000_000))]
    pub steps: u32,
    /// How texts are drawn. Default: `autoregressive` for a model of `ar`; `cached` for a model without time conditioning
    /// that gives the mask no probability (the MDLM authors' configuration, `ddpm_cache`, arXiv 2406.07524); `ancestral`
    /// for all others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sampler: Option<Sampler>,
    /// Starts from rows whose BOS, and EOS in wrapped rows, are already in place instead of masked. The network sees
    /// only relative positions, so these tokens show it where a row begins and ends. The sampler `autoregressive` does
    /// not have it: it always begins with BOS. Default: the MDLM authors start from rows that are all masked (arXiv
    /// 2406.07524).
    #[serde(default)]
    pub given_ends: bool,
    /// Tokens that are given instead of drawn: a prompt, a suffix, or a text with holes. The row then begins with BOS.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub given: Option<GivenText>,
    /// Number that the logits are divided by; below 1, likely tokens become more likely, and 0 draws the likeliest token.
    /// Default: the model's own distribution.
    #[serde(default = "one")]
    #[schemars(range(min = 0.0, max = 100.0))]
    pub temperature: f64,
    /// Draws from the k likeliest tokens alone (arXiv 1805.04833). Default: from all.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1))]
    pub top_k: Option<u32>,
    /// Draws from the likeliest tokens alone, as few as have this probability together (nucleus sampling, arXiv
    /// 1904.09751). Default: from all.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 1e-6, max = 1.0))]
    pub top_p: Option<f64>,
    /// Draws from those tokens alone that have at least this share of the likeliest one's probability (arXiv 2407.01082).
    /// Default: from all.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub min_p: Option<f64>,
    /// Divides positive logits of tokens that the row has already, and multiplies negative ones: above 1, repetition becomes
    /// less likely (CTRL, arXiv 1909.05858). BOS, EOS and padding are exempt. Default: 1, no penalty.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = 0.01, max = 100.0))]
    pub repetition_penalty: Option<f64>,
    /// Strength w of guidance by the given tokens: logits u + (1 + w) (l − u), where u are those of the row with its given
    /// tokens masked (arXiv 2410.18514). It doubles the network calls and needs `given`. Default: 0, no guidance.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(min = -1.0, max = 100.0))]
    pub guidance: Option<f64>,
    /// When the token that ends a text (EOS) is drawn. Default: as the model draws it.
    #[serde(default, skip_serializing_if = "is_default")]
    pub end_of_text: EndOfText,
    /// Number of rows, the first ones, of which `steps.jsonl` records when each token was drawn and with which probability.
    /// Default: 0, none.
    #[serde(default, skip_serializing_if = "is_default")]
    #[schemars(range(max = 1000))]
    pub record_steps: u32,
    /// Weights to sample from. Default: the MDLM authors sample from the average (arXiv 2406.07524).
    #[serde(default)]
    pub weights: Weights,
    /// Name of a synthetic source stage. The report then shows the share of sampled sentences that its grammar accepts.
    /// Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grammar: Option<String>,
    /// Seed of the random draws. Default: the pipeline's seed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(max = 9_007_199_254_740_991_u64))]
    pub seed: Option<u64>,
}

defaults! {
    one: f64 = 1.0;
    default_sample_steps: u32 = DEFAULT_SAMPLE_STEPS;
}

impl Sample {
    /// The settings that change what is drawn, but for sampler, steps, temperature, weights and seed: those that have an
    /// effect.
    #[must_use]
    pub fn further_settings(&self) -> Map<String, Value> {
        const OTHERS: [&str; 9] = [
            "model",
            "count",
            "steps",
            "sampler",
            "temperature",
            "weights",
            "seed",
            "record_steps",
            "grammar",
        ];
        let neutral = [
            ("given_ends", json!(false)),
            ("top_p", json!(1.0)),
            ("min_p", json!(0.0)),
            ("repetition_penalty", json!(1.0)),
            ("guidance", json!(0.0)),
        ];
        let Ok(Value::Object(mut fields)) = serde_json::to_value(self) else {
            return Map::new();
        };
        fields.retain(|field, value| {
            !OTHERS.contains(&&**field)
                && !neutral
                    .iter()
                    .any(|(name, neutral)| *name == field && neutral == value)
        });
        fields
    }
}

impl StageSpec for Sample {
    const REFERENCES: &'static [ReferenceField<Self>] = &[
        ReferenceField {
            name: "model",
            expects: MODELS,
            stage: |sample| Some(&sample.model),
        },
        ReferenceField {
            name: "grammar",
            expects: &[StageKind::Source],
            stage: |sample| sample.grammar.as_deref(),
        },
    ];
    const MOVED: &'static [(&'static str, &'static str)] = &[("grid", "sampler")];
    const COMPUTES_NETWORK: bool = true;
    const MEASURES_MODEL: bool = true;
    #[cfg(any(test, feature = "testing"))]
    const SMALLEST: (&'static str, &'static str) = (
        r#"{ "kind": "sample", "model": "a", "count": 2 }"#,
        "count given_ends sampler.kind steps temperature weights",
    );

    fn seed(&self) -> Option<u64> {
        self.seed
    }

    fn is_random(&self) -> bool {
        true
    }

    fn files(&self) -> Vec<FileReference> {
        let file = self.given.as_ref().and_then(|given| given.file.as_ref());
        file.map(|path| FileReference::one("given/file", path))
            .into_iter()
            .collect()
    }

    /// The share of records that its grammar accepts.
    fn has_metric(&self) -> bool {
        self.grammar.is_some()
    }

    fn fill_in(&mut self, objective: &Objective) {
        self.sampler.get_or_insert_with(|| objective.samplers()[0]);
    }

    fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        let objective = stages.model_of(&self.model).and_then(|model| model.objective);
        if let (Some(objective), Some(sampler)) = (objective, self.sampler)
            && let Some(misfit) = objective.misfit_of_sampler(&sampler)
        {
            let fitting = objective.samplers();
            let kinds: Vec<_> = fitting.iter().map(|fits| quoted(fits.kind())).collect();
            let fault = stages
                .misfit(
                    entry,
                    "sampler",
                    &format!("sampler `{}`", sampler.kind()),
                    (&self.model, &misfit),
                )
                .expected(format!("a sampler of kind {}", kinds.join(" or ")));
            let way = format!("set `\"sampler\": {}`", spaced(&in_place_of(sampler, fitting[0])));
            faults.push(fault.hint(or_train(way, &misfit)));
        }
        let settings = SamplingSettings {
            model: &self.model,
            // Settings must fit the default sampler, too.
            sampler: self.sampler.or_else(|| objective.map(|fits| fits.samplers()[0])),
            steps: self.steps,
            temperature: self.temperature,
            truncations: [
                ("top_k", self.top_k.is_some()),
                ("top_p", self.top_p.is_some()),
                ("min_p", self.min_p.is_some()),
            ],
            end_of_text: self.end_of_text,
            guidance: self.guidance.unwrap_or(0.0),
            given: self.given.as_ref(),
            record_steps: self.record_steps,
            has_grammar: self.grammar.is_some(),
        };
        settings.check(stages, entry, faults);
        stages.grammar(entry, self.grammar.as_deref(), None, faults);
    }
}

/// A sampler that fits, with the settings of the written one that it has too.
fn in_place_of(written: Sampler, fitting: Sampler) -> Value {
    let sampler = match (written, fitting) {
        (Sampler::Cached(settings), Sampler::Ancestral(_)) => Sampler::Ancestral(settings),
        (Sampler::Ancestral(settings), Sampler::Cached(_)) => Sampler::Cached(settings),
        (_, fitting) => fitting,
    };
    serde_json::to_value(sampler).unwrap_or_else(|_| json!({ "kind": sampler.kind() }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_settings_that_change_what_is_drawn_are_listed() {
        let further = |more: Value| {
            let mut stage =
                json!({ "model": "a", "count": 2, "seed": 4, "record_steps": 1, "temperature": 0.5 });
            stage
                .as_object_mut()
                .unwrap()
                .extend(more.as_object().unwrap().clone());
            let stage: Sample = serde_json::from_value(stage).unwrap();
            Value::Object(stage.further_settings())
        };
        let neutral = json!({
            "top_p": 1.0, "min_p": 0.0, "repetition_penalty": 1.0, "guidance": 0.0, "given_ends": false,
            "end_of_text": "drawn", "grammar": "b", "weights": "raw", "steps": 3, "sampler": { "kind": "cached" }
        });
        assert_eq!(further(neutral), json!({}));
        let effective = json!({
            "top_k": 3, "top_p": 0.5, "min_p": 0.1, "repetition_penalty": 1.2, "guidance": 2.0, "given_ends": true,
            "end_of_text": "never", "given": { "prompt": "x" }
        });
        assert_eq!(further(effective.clone()), effective);
    }
}
