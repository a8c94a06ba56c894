//! What a manifest states of the models behind results: for the columns of tables.

use super::{Plan, PlannedStage};
use crate::manifest::{ModelFacts, Objective, Stage, Train};
use crate::model::{parameters, total};
use crate::shapes::SHAPES;

impl Plan {
    /// What is known of the model of the planned stage at a place.
    pub(super) fn facts(&self, place: usize) -> Option<ModelFacts> {
        stated(&self.model_of(&self.stages[place])?.stage)
    }

    /// The train or checkpoint stage whose model a stage is, evaluates, samples or judges.
    fn model_of<'a>(&'a self, planned: &'a PlannedStage) -> Option<&'a PlannedStage> {
        match &planned.stage {
            Stage::Train(_) | Stage::Checkpoint(_) => Some(planned),
            Stage::Judge(_) => {
                let samples = planned.inputs.iter().find(|input| input.role == "of/0")?;
                self.model_of(&self.stages[samples.index])
            }
            _ => {
                let model = planned.inputs.iter().find(|input| input.role == "model")?;
                self.model_of(&self.stages[model.index])
            }
        }
    }
}

/// What a train or checkpoint stage states of its model.
fn stated(stage: &Stage) -> Option<ModelFacts> {
    let (shape, backbone, trained_tokens) = match stage {
        Stage::Train(train) => (&train.shape, train.objective.backbone(), trained_tokens(train)),
        Stage::Checkpoint(checkpoint) => {
            let objective = checkpoint.objective.as_ref();
            (
                &checkpoint.shape,
                objective.map(Objective::backbone).unwrap_or_default(),
                None,
            )
        }
        _ => return None,
    };
    Some(ModelFacts {
        parameters: total(&parameters(SHAPES.find(shape)?, backbone)) as u64,
        trained_tokens,
    })
}

/// Tokens that a training predicts: steps · batch · L for `ar`, and the masked half of them otherwise, as the MDLM authors count
/// (arXiv 2406.07524, section 5); of `mlm` the masked share.
fn trained_tokens(train: &Train) -> Option<u64> {
    if train.init.is_some() && !train.continues {
        return None;
    }
    let length = SHAPES.find(&train.shape)?.length as u64;
    let positions = train.steps * u64::from(train.batch) * length;
    Some(match &train.objective {
        Objective::Ar(_) => positions,
        Objective::Mlm(objective) => (positions as f64 * objective.rate).round() as u64,
        Objective::Mdlm(_) | Objective::Sedd(_) | Objective::D3pm(_) => positions / 2,
    })
}
