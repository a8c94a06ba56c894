//! What fits an objective: estimators and samplers, and which of them are the defaults. Validation, the defaults of
//! `evaluate` and `sample` stages and `mdlm objectives` read it here.

use std::collections::HashMap;

use super::{
    AncestralSteps, Autoregressive, Estimator, Evaluate, Manifest, Objective, Sample, Sampler, Stage,
};

impl Objective {
    /// Whether the network's prediction at a masked position is p(x_0 | x_t) of tokens alone, whatever the time: only then
    /// the number of masked tokens can be drawn in the place of a time.
    fn is_any_order(&self) -> bool {
        self.has_subs() && !self.is_time_conditioned()
    }

    /// Whether the loss of a masked token is −log p over the tokens without the mask, and nothing else is predicted.
    fn has_subs(&self) -> bool {
        match self {
            Self::Mdlm(objective) => objective.zero_masking && objective.carry_over,
            Self::Sedd(_) | Self::Mlm(_) => true,
            Self::Ar(_) | Self::D3pm(_) => false,
        }
    }

    /// Whether the network gives the mask a probability, which the reverse step depends on.
    #[must_use]
    pub fn predicts_mask(&self) -> bool {
        match self {
            Self::Mdlm(objective) => !objective.zero_masking,
            Self::D3pm(_) => true,
            Self::Ar(_) | Self::Sedd(_) | Self::Mlm(_) => false,
        }
    }

    /// The estimators that fit, the default first.
    #[must_use]
    pub fn estimators(&self) -> Vec<Estimator> {
        match self {
            Self::Ar(_) => vec![Estimator::Exact],
            Self::Mlm(_) => vec![Estimator::Pseudo, Estimator::Count],
            Self::Mdlm(_) if self.is_any_order() => {
                vec![Estimator::Time, Estimator::Count, Estimator::Pseudo]
            }
            Self::Mdlm(_) | Self::Sedd(_) | Self::D3pm(_) => vec![Estimator::Time],
        }
    }

    /// Whether its bound exists in discrete time only.
    #[must_use]
    pub fn needs_steps(&self) -> bool {
        matches!(self, Self::Mdlm(_) | Self::D3pm(_)) && !self.has_subs()
    }

    /// The samplers that fit, the default first.
    #[must_use]
    pub fn samplers(&self) -> Vec<Sampler> {
        let (cached, ancestral) = (
            Sampler::Cached(AncestralSteps::default()),
            Sampler::Ancestral(AncestralSteps::default()),
        );
        match self {
            Self::Ar(_) => vec![Sampler::Autoregressive(Autoregressive {})],
            _ if self.is_time_conditioned() || self.predicts_mask() => vec![ancestral],
            _ => vec![cached, ancestral],
        }
    }
}

impl Manifest {
    /// Fills in the settings whose default depends on the model's objective.
    pub(super) fn fill_in(&mut self) {
        let objectives: HashMap<String, Objective> = self
            .stages
            .iter()
            .filter_map(|(name, stage)| match stage {
                Stage::Train(train) => Some((name.clone(), train.objective.clone())),
                _ => None,
            })
            .collect();
        for stage in self.stages.values_mut() {
            let (Stage::Evaluate(Evaluate { model, .. }) | Stage::Sample(Sample { model, .. })) = &*stage
            else {
                continue;
            };
            if let Some(objective) = objectives.get(model) {
                stage.fill_in(objective);
            }
        }
    }
}

impl Stage {
    /// Fills in the settings whose default depends on the objective of the model that the stage evaluates or samples.
    pub fn fill_in(&mut self, objective: &Objective) {
        match self {
            Self::Evaluate(evaluate) => {
                let estimator = *evaluate
                    .estimator
                    .get_or_insert_with(|| objective.estimators()[0]);
                if estimator == Estimator::Time && evaluate.steps.is_none() {
                    evaluate.steps = objective.steps();
                }
            }
            Self::Sample(sample) => {
                sample.sampler.get_or_insert_with(|| objective.samplers()[0]);
            }
            _ => {}
        }
    }
}
