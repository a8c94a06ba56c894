//! An objective as an argument of a command, read as a manifest reads it.

use super::{Fault, Manifest, Objective, Stage};
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
            serde_json::json!({ "kind": text }).to_string()
        };
        let around = serde_json::json!({ "name": "argument", "seed": 0, "stages": {
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
