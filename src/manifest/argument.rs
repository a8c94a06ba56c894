//! Settings as arguments of a command, read as a manifest reads them: an objective, and those of a sample stage.

use serde_json::{Map, Value, json};

use super::{Fault, Manifest, Objective, Sample, Stage};
use crate::error::{Error, Result};
use crate::shape::{Shape, Shapes};

/// The shape of the train stage around an objective, which has a tokenizer of characters.
const AROUND: Shapes = Shapes(&[Shape {
    name: "around",
    vocabulary: 512,
    length: 32,
    width: 64,
    heads: 2,
    blocks: 2,
    conditioning: 32,
}]);

impl Objective {
    /// The objective that an argument of a command gives: the name of a kind, with its defaults, or an object as in a
    /// manifest. It is checked as the objective of a manifest's train stage.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) for anything else.
    pub fn from_argument(text: &str) -> Result<Self> {
        const PLACE: &str = "stages.model.objective";
        let object = if text.trim_start().starts_with('{') {
            text.to_owned()
        } else {
            json!({ "kind": text }).to_string()
        };
        let around = json!({ "name": "argument", "seed": 0, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["text"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32 },
            "model": {
                "kind": "train", "from": "rows", "shape": "around", "steps": 1, "batch": 1, "warmup_steps": 0,
            },
        } });
        let set = format!("{PLACE}={object}");
        let found = Manifest::from_bytes("argument", around.to_string().into_bytes(), &[set], AROUND);
        let stage = found.map(|mut found| found.manifest.stages.shift_remove("model"));
        match stage {
            Ok(Some(Stage::Train(train))) => Ok(train.objective),
            Ok(_) => Err(Error::internal(
                "the manifest around an objective has no train stage",
            )),
            Err(faults) => Err(refused(text, &faults.list)),
        }
    }
}

/// The model that the settings of a sample stage are checked for.
#[derive(Clone, Copy, Debug)]
pub struct SampledModel<'a> {
    /// The name of its shape.
    pub shape: &'a str,
    /// Its objective.
    pub objective: &'a Objective,
    /// The compiled shapes.
    pub shapes: Shapes,
}

/// A setting that is refused: a JSON pointer within the settings, such as `/sampler/block`, and the fault.
#[derive(Clone, Debug, PartialEq)]
pub struct RefusedSetting {
    /// The setting; empty for all of them together.
    pub field: String,
    /// What is wrong, what was expected, and the way out, as a manifest's fault.
    pub fault: Fault,
}

impl Sample {
    /// The settings of a sample stage from its fields without `kind` and `model`, checked for a model as those of a manifest are.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) errors that `say` makes of refused settings: the first one, the others beside it.
    pub fn from_fields(
        fields: &Map<String, Value>,
        model: SampledModel<'_>,
        say: &dyn Fn(&RefusedSetting) -> Error,
    ) -> Result<Self> {
        const PLACE: &str = "/stages/texts";
        let mut texts = Map::new();
        texts.insert("kind".to_owned(), json!("sample"));
        texts.insert("model".to_owned(), json!("model"));
        texts.extend(fields.clone());
        let around = json!({ "name": "argument", "seed": 0, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["text"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "model": {
                "kind": "checkpoint", "file": "model.safetensors", "tokenizer": "tokens", "shape": model.shape,
                "objective": model.objective,
            },
            "texts": texts,
        } });
        let found = Manifest::from_bytes("argument", around.to_string().into_bytes(), &[], model.shapes);
        let faults = match found.map(|mut found| found.manifest.stages.shift_remove("texts")) {
            Ok(Some(Stage::Sample(sample))) => return Ok(sample),
            Ok(_) => {
                return Err(Error::internal(
                    "the manifest around the settings has no sample stage",
                ));
            }
            Err(faults) => faults,
        };
        let mut errors = faults
            .list
            .into_iter()
            .map(|fault| match fault.pointer.strip_prefix(PLACE) {
                Some(field) => say(&RefusedSetting {
                    field: field.to_owned(),
                    fault,
                }),
                None => Error::internal(format!("check settings of sampling: {fault}")),
            });
        let first = errors.next();
        let first = first.unwrap_or_else(|| Error::internal("settings are refused without a fault"));
        Err(first.beside(errors))
    }
}

/// The error of an argument by its first fault.
fn refused(text: &str, faults: &[Fault]) -> Error {
    let mut message = format!("read the objective `{text}`");
    let mut hint = None;
    if let Some(fault) = faults.first() {
        let field = fault.pointer.strip_prefix("/stages/model/objective/");
        let field = field.map(|field| format!("`{field}`: ")).unwrap_or_default();
        let expected = fault.expected.as_ref();
        let expected = expected
            .map(|expected| format!(", expected {expected}"))
            .unwrap_or_default();
        message = format!("{message}: {field}{}{expected}", fault.message);
        hint.clone_from(&fault.hint);
    }
    Error::input(message).hint(hint.unwrap_or_else(|| {
        "give a kind (`mdlm objectives` lists them), or an object as in a manifest: \
         `{ \"kind\": \"mdlm\", \"steps\": 1000 }`"
            .to_owned()
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::EXAMPLES;

    fn sample(fields: &Value, objective: &Objective) -> Result<Sample> {
        let model = SampledModel {
            shape: "nano",
            objective,
            shapes: EXAMPLES,
        };
        let fields = fields.as_object().unwrap();
        Sample::from_fields(fields, model, &|refused| {
            Error::input(format!("{}: {}", refused.field, refused.fault.message))
        })
    }

    #[test]
    fn settings_of_sampling_are_those_of_a_manifest() {
        let mdlm = Objective::default();
        let read = sample(&json!({ "count": 2, "top_k": 3 }), &mdlm).unwrap();
        assert_eq!((read.count, read.top_k, read.seed), (2, Some(3), None));
        assert_eq!(read.steps, crate::manifest::DEFAULT_SAMPLE_STEPS);
        // The default depends on the objective.
        assert_eq!(read.sampler, Some(mdlm.samplers()[0]));
        for objective in Objective::every() {
            sample(&json!({ "count": 1 }), &objective).unwrap();
        }
    }

    #[test]
    fn settings_of_sampling_fit_the_default_sampler() {
        let ar = Objective::Ar(crate::manifest::ArObjective::default());
        let suffix = json!({ "count": 1, "given": { "suffix": "a" } });
        let last = json!({ "count": 1, "end_of_text": "last" });
        for (fields, objective, place) in [
            (&suffix, ar, "/given/suffix: sampler `autoregressive`"),
            (&last, Objective::default(), "/end_of_text: sampler `cached`"),
        ] {
            let error = sample(fields, &objective).unwrap_err();
            assert!(error.to_string().starts_with(place), "{error}");
        }
        sample(&suffix, &Objective::default()).unwrap();
    }

    #[test]
    fn settings_of_sampling_are_refused_with_their_field() {
        let mdlm = Objective::default();
        for (fields, place) in [
            (json!({}), "/"),
            (json!({ "count": 0 }), "/count: "),
            (
                json!({ "count": 1, "sampler": { "kind": "gibbs" } }),
                "/sampler: ",
            ),
            (
                json!({ "count": 1, "sampler": { "kind": "threshold", "block": 99 } }),
                "/sampler/block: ",
            ),
            (
                json!({ "count": 1, "given": { "template": "a" } }),
                "/given/template: ",
            ),
            (json!({ "count": 1, "guidance": 1.0 }), "/guidance: "),
        ] {
            let error = sample(&fields, &mdlm).unwrap_err();
            assert_eq!(error.kind(), crate::error::Kind::Input, "{fields}");
            let message = error.to_string();
            assert!(
                message.starts_with(place) || (place == "/" && message.contains("count")),
                "{fields}: {message}"
            );
        }
    }
}
