//! Faults of estimators and samplers that do not fit the objective of their model.
//!
//! [`crate::manifest::fit`] states what fits. What a stage leaves out is never at fault: its default is one that fits.

use super::upstream::TokenizerOrigin;
use super::{StageEntry, Stages};
use crate::manifest::Objective;
use crate::manifest::fault::{Code, Draft, quoted};
use crate::manifest::fit::Misfit;
use crate::manifest::instance::written;
use crate::manifest::stage::Stage;

/// What a manifest states of a model: that of a train stage, or that of a checkpoint.
pub struct StatedModel<'m> {
    pub shape: &'m str,
    /// Nothing where the file of a checkpoint states it.
    pub objective: Option<&'m Objective>,
    /// The stage with its tokenizer, if no stage on the way has a fault.
    pub tokenizer: Option<TokenizerOrigin<'m>>,
}

impl Stages<'_> {
    pub fn model_of(&self, name: &str) -> Option<StatedModel<'_>> {
        match &self.entry(name)?.stage {
            Some(Stage::Train(train)) => Some(StatedModel {
                shape: &train.shape,
                objective: Some(&train.objective),
                tokenizer: self.upstream(&train.from).map(|upstream| upstream.origin()),
            }),
            Some(Stage::Checkpoint(checkpoint)) => Some(StatedModel {
                shape: &checkpoint.shape,
                objective: checkpoint.objective.as_ref(),
                tokenizer: self.tokenizer_of(&checkpoint.tokenizer),
            }),
            _ => None,
        }
    }

    /// The way out that removes a field; where an override has chosen the objective of the model, as another override.
    pub fn leave_out(&self, entry: &StageEntry<'_>, field: &str, model: &str) -> String {
        let way = format!("leave `{field}` out");
        match self.entry(model) {
            Some(model) if model.span("objective/kind").source > 0 => {
                format!("{way}: `--set stages.{}.{field}=null`", written(entry.name))
            }
            _ => way,
        }
    }

    /// The fault of an estimator or a sampler that does not fit the objective of its model.
    pub fn misfit(
        &self,
        entry: &StageEntry<'_>,
        field: &str,
        what: &str,
        (model, misfit): (&str, &Misfit),
    ) -> Draft {
        if misfit.setting == "time_conditioning" {
            let message = format!(
                "{what} needs a model without time conditioning, but {} has it",
                quoted(model)
            );
            let fault = entry.fault(Code::TimeConditioning, field, message);
            return match self.entry(model) {
                Some(model) => fault.related(model.span("objective/time_conditioning"), "switched on here"),
                None => fault,
            };
        }
        let message = format!("{what} does not fit {}: {}", quoted(model), misfit.reason);
        let fault = entry.fault(Code::Objective, field, message);
        match self.entry(model) {
            Some(train) if misfit.setting != "kind" => {
                let span = train.span(&format!("objective/{}", misfit.setting));
                let what = if misfit.setting == "noise" {
                    "its noise"
                } else {
                    "switched off here"
                };
                fault.related(span, what)
            }
            _ => self.about_model(fault, model),
        }
    }

    /// Adds the place where the objective of a model is written, or its name where the objective is the default.
    pub fn about_model(&self, fault: Draft, model: &str) -> Draft {
        let objective = self.model_of(model).and_then(|model| model.objective);
        match (self.entry(model), objective) {
            (Some(entry), Some(objective)) => {
                let message = format!("its objective is `{}`", objective.kind());
                fault.related(entry.span("objective/kind"), message)
            }
            _ => fault,
        }
    }
}

/// The way out, and training a model that fits, where one setting of the objective decides.
pub fn or_train(way: String, misfit: &Misfit) -> String {
    match misfit.setting {
        "time_conditioning" => format!("{way}, or train without time conditioning"),
        _ => way,
    }
}
