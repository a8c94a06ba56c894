//! What fits an objective: estimators and samplers, and which of them are the defaults. Validation, the defaults of
//! `evaluate` and `sample` stages, the stages themselves and `mdlm objectives` read it here.

use super::{
    ArObjective, D3pmObjective, Estimator, MlmObjective, Noise, Objective, Sampler, SeddObjective,
    SemiAutoregressive, WindowSampler,
};
use crate::error::{Error, Result};

/// Why an estimator or a sampler does not fit an objective.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Misfit {
    /// The setting of the objective that decides: `kind`, `time_conditioning`, `noise`.
    pub setting: &'static str,
    /// The reason: a fragment to go after a colon.
    pub reason: String,
}

impl Misfit {
    #[expect(clippy::unnecessary_wraps, reason = "its callers return an option")]
    fn of(setting: &'static str, reason: impl Into<String>) -> Option<Self> {
        Some(Self {
            setting,
            reason: reason.into(),
        })
    }

    /// Of what needs a network whose output depends on the tokens alone.
    fn of_time() -> Option<Self> {
        Self::of("time_conditioning", "it needs a model without time conditioning")
    }

    /// The error at run time, for a model that is trained already: `what`, an estimator or a sampler, is not among those
    /// that fit.
    fn error(self, what: &str, name: &str, fitting: &[&str]) -> Error {
        let fitting: Vec<_> = fitting.iter().map(|fits| format!("`{fits}`")).collect();
        let reason = self.reason;
        Error::input(format!("{what} `{name}` does not fit the model: {reason}"))
            .hint(format!("use the {what} {}", fitting.join(" or ")))
    }
}

impl Objective {
    /// Each kind with its defaults.
    #[must_use]
    pub fn every_kind() -> [Self; 5] {
        [
            Self::default(),
            Self::Ar(ArObjective::default()),
            Self::Sedd(SeddObjective::default()),
            Self::D3pm(D3pmObjective::default()),
            Self::Mlm(MlmObjective::default()),
        ]
    }

    /// The switches of SUBS that are off: where one is, the bound exists in discrete time only.
    #[must_use]
    pub fn switched_off(&self) -> Vec<&'static str> {
        let Self::Mdlm(objective) = self else {
            return Vec::new();
        };
        let switches = [
            ("zero_masking", objective.zero_masking),
            ("carry_over", objective.carry_over),
        ];
        let off = switches.into_iter().filter(|(_, is_on)| !is_on);
        off.map(|(name, _)| name).collect()
    }

    /// Whether its bound exists in discrete time only.
    #[must_use]
    pub fn needs_steps(&self) -> bool {
        matches!(self, Self::D3pm(_)) || !self.switched_off().is_empty()
    }

    /// Whether the network gives the mask a probability, which the reverse step depends on.
    #[must_use]
    pub fn predicts_mask(&self) -> bool {
        matches!(self, Self::D3pm(_)) || self.switched_off().contains(&"zero_masking")
    }

    /// Why the likelihood of a model cannot be estimated that way; nothing where it can.
    #[must_use]
    pub fn misfit_of_estimator(&self, estimator: Estimator) -> Option<Misfit> {
        let kind = self.kind();
        match (self, estimator) {
            (Self::Ar(_), Estimator::Exact) => None,
            (Self::Ar(_), _) => Misfit::of("kind", "the likelihood of `ar` is exact"),
            (_, Estimator::Exact) => Misfit::of("kind", format!("`{kind}` has no exact likelihood")),
            (Self::Mlm(_), Estimator::Time) => Misfit::of(
                "kind",
                "`mlm` is trained at one masking rate and has no bound by times",
            ),
            (_, Estimator::Time) | (Self::Mlm(_), _) => None,
            (Self::Sedd(_), _) => Misfit::of("kind", "the scores of `sedd` depend on the time"),
            (Self::D3pm(_), _) => Misfit::of("kind", "`d3pm` has a bound in discrete time only"),
            (Self::Mdlm(objective), _) => match self.switched_off().first() {
                Some(&switch) => Misfit::of(
                    switch,
                    format!("without `{switch}` there is a bound in discrete time only"),
                ),
                None if objective.time_conditioning => Misfit::of_time(),
                None => None,
            },
        }
    }

    /// The estimators that fit, the default first.
    #[must_use]
    pub fn estimators(&self) -> Vec<Estimator> {
        let mut all = vec![
            Estimator::Time,
            Estimator::Count,
            Estimator::Pseudo,
            Estimator::Exact,
        ];
        if matches!(self, Self::Mlm(_)) {
            all.swap(1, 2);
        }
        all.retain(|&estimator| self.misfit_of_estimator(estimator).is_none());
        all
    }

    /// Checks that the likelihood of a trained model can be estimated that way.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) where it cannot, with the estimators that fit.
    pub fn check_estimator(&self, estimator: Estimator) -> Result<()> {
        let Some(misfit) = self.misfit_of_estimator(estimator) else {
            return Ok(());
        };
        let fitting: Vec<_> = self.estimators().iter().map(|fits| fits.name()).collect();
        Err(misfit.error("estimator", estimator.name(), &fitting))
    }

    /// Why there is no published number in `steps` steps, or in continuous time; nothing where there is one. The
    /// published code weighs steps with 1 − t in the place of α(t), whatever noise draws the masks (`mdlm`, `diffusion.py`
    /// 329–358), and refuses steps with scores (155–166).
    #[must_use]
    pub fn misfit_of_published(&self, steps: Option<u32>) -> Option<Misfit> {
        steps?;
        match (self, self.noise()) {
            (Self::Sedd(_), _) => Misfit::of("kind", "the published code has no `sedd` in discrete time"),
            (_, Some(Noise::LogLinear(_)) | None) => None,
            (_, Some(_)) => Misfit::of(
                "noise",
                "with `steps`, the published code weighs losses as of log-linear noise",
            ),
        }
    }

    /// Why texts cannot be drawn from a model that way; nothing where they can.
    #[must_use]
    pub fn misfit_of_sampler(&self, sampler: &Sampler) -> Option<Misfit> {
        let kind = self.kind();
        match (self, sampler) {
            (Self::Ar(_), Sampler::Autoregressive(_)) | (Self::Mlm(_), Sampler::Gibbs(_)) => return None,
            (Self::Ar(_), _) => return Misfit::of("kind", "a model of `ar` is sampled from left to right"),
            (_, Sampler::Autoregressive(_)) => {
                return Misfit::of("kind", format!("the tokens of `{kind}` depend on both sides"));
            }
            (_, Sampler::Gibbs(_)) => {
                return Misfit::of(
                    "kind",
                    "it needs a model of `mlm`, trained on rows with few masks",
                );
            }
            _ => {}
        }
        let of_mask = || {
            let setting = self.switched_off().first().copied().unwrap_or("kind");
            let reason = "its network gives the mask a probability, which decides what a step unmasks";
            Misfit::of(setting, reason)
        };
        let of_time = || match self {
            Self::Sedd(_) => Misfit::of("kind", "the scores of `sedd` depend on the time"),
            _ => Misfit::of_time(),
        };
        match sampler {
            Sampler::Cached(_)
            | Sampler::FirstHitting(_)
            | Sampler::Analytic(_)
            | Sampler::Euler(_)
            | Sampler::Remasking(_)
                if self.predicts_mask() =>
            {
                of_mask()
            }
            Sampler::Cached(_)
            | Sampler::FirstHitting(_)
            | Sampler::Random(_)
            | Sampler::Confidence(_)
            | Sampler::Margin(_)
            | Sampler::Entropy(_)
            | Sampler::LeftToRight(_)
            | Sampler::Threshold(_)
                if self.is_time_conditioned() =>
            {
                of_time()
            }
            Sampler::SemiAutoregressive(windows) => self.misfit_of_sampler(&self.window_sampler(windows)),
            _ => None,
        }
    }

    /// The sampler that draws the windows of semi-autoregressive sampling: as written, or the one that asks the network least
    /// and fits.
    #[must_use]
    pub fn window_sampler(&self, windows: &SemiAutoregressive) -> Sampler {
        let cached = WindowSampler::Cached.sampler();
        match windows.window {
            Some(window) => window.sampler(),
            None if self.misfit_of_sampler(&cached).is_none() => cached,
            None => WindowSampler::Ancestral.sampler(),
        }
    }

    /// The samplers that fit, the default first.
    #[must_use]
    pub fn samplers(&self) -> Vec<Sampler> {
        let mut all = Sampler::every_kind();
        all.retain(|sampler| self.misfit_of_sampler(sampler).is_none());
        all
    }

    /// Checks that texts can be drawn from a trained model that way.
    ///
    /// # Errors
    /// [`Input`](crate::error::Kind::Input) where they cannot, with the samplers that fit.
    pub fn check_sampler(&self, sampler: &Sampler) -> Result<()> {
        let Some(misfit) = self.misfit_of_sampler(sampler) else {
            return Ok(());
        };
        let fitting: Vec<_> = self.samplers().iter().map(Sampler::kind).collect();
        Err(misfit.error("sampler", sampler.kind(), &fitting))
    }

    /// How often a sampler that fits asks the network about a row of `length` tokens, at most.
    #[must_use]
    pub fn network_calls(&self, sampler: &Sampler, steps: u32, length: u32) -> u32 {
        match sampler {
            // Scores of `sedd` decide what a step unmasks.
            Sampler::Analytic(_) | Sampler::Euler(_) if matches!(self, Self::Sedd(_)) => steps,
            Sampler::Cached(_)
            | Sampler::Analytic(_)
            | Sampler::Euler(_)
            | Sampler::Random(_)
            | Sampler::Confidence(_)
            | Sampler::Margin(_)
            | Sampler::Entropy(_)
            | Sampler::LeftToRight(_) => steps.min(length),
            // A last step draws what is masked at time 0.
            Sampler::Ancestral(_) => steps + u32::from(self.predicts_mask()),
            Sampler::Remasking(_) => steps,
            Sampler::FirstHitting(_) | Sampler::Threshold(_) => length,
            Sampler::Gibbs(_) => steps.saturating_mul(length),
            // Of a window.
            Sampler::SemiAutoregressive(windows) => {
                self.network_calls(&self.window_sampler(windows), steps, length)
            }
            Sampler::Autoregressive(_) => length.saturating_sub(1),
        }
    }

    /// Settings that change what fits the objective or what it costs, each as in a manifest, and the objective with them.
    #[must_use]
    pub fn variants(&self) -> Vec<(&'static str, Self)> {
        let settings: &[&'static str] = match self {
            Self::Mdlm(_) => &[
                "\"time_conditioning\": true",
                "\"times\": { \"kind\": \"importance\" }",
                "\"steps\": 1000",
                "\"steps\": 1000, \"carry_over\": false",
                "\"steps\": 1000, \"zero_masking\": false, \"carry_over\": false",
            ],
            Self::D3pm(_) => &["\"time_conditioning\": false"],
            Self::Ar(_) | Self::Sedd(_) | Self::Mlm(_) => &[],
        };
        let with = |settings: &&'static str| {
            let text = format!("{{ \"kind\": \"{}\", {settings} }}", self.kind());
            Some((*settings, serde_json::from_str(&text).ok()?))
        };
        settings.iter().filter_map(with).collect()
    }
}

#[cfg(any(test, feature = "testing"))]
impl Objective {
    /// Each kind and variant, for tests.
    #[must_use]
    pub fn every() -> Vec<Self> {
        let kinds = Self::every_kind();
        let variants = kinds
            .iter()
            .flat_map(|kind| kind.variants().into_iter().map(|(_, variant)| variant));
        kinds.iter().copied().chain(variants).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(objective: &Objective) -> String {
        let estimators: Vec<_> = objective.estimators().iter().map(|fits| fits.name()).collect();
        let samplers: Vec<_> = objective.samplers().iter().map(Sampler::kind).collect();
        format!("{}; {}", estimators.join(" "), samplers.join(" "))
    }

    const ORDERS: &str = "random confidence margin entropy left_to_right threshold";
    const ALL: &str = "cached ancestral first_hitting analytic euler random confidence margin entropy left_to_right \
                       threshold remasking";

    #[test]
    fn objectives_of_every_kind_have_estimators_and_samplers() {
        let found: Vec<_> = Objective::every()
            .iter()
            .map(|objective| format!("{}: {}", objective.kind(), names(objective)))
            .collect();
        assert_eq!(
            found,
            [
                &format!("mdlm: time count pseudo; {ALL} semi_autoregressive"),
                "ar: exact; autoregressive",
                "sedd: time; ancestral analytic euler remasking semi_autoregressive",
                "d3pm: time; ancestral semi_autoregressive",
                &format!("mlm: pseudo count; {ALL} gibbs semi_autoregressive"),
                "mdlm: time; ancestral analytic euler remasking semi_autoregressive",
                &format!("mdlm: time count pseudo; {ALL} semi_autoregressive"),
                &format!("mdlm: time count pseudo; {ALL} semi_autoregressive"),
                &format!("mdlm: time; {ALL} semi_autoregressive"),
                &format!("mdlm: time; ancestral {ORDERS} semi_autoregressive"),
                &format!("d3pm: time; ancestral {ORDERS} semi_autoregressive"),
            ]
        );
    }

    #[test]
    fn objectives_are_listed_once_with_their_defaults() {
        let kinds = Objective::every_kind();
        for kind in kinds {
            assert_eq!(Objective::from_argument(kind.kind()).unwrap(), kind);
            assert_eq!(
                kinds.iter().filter(|other| other.kind() == kind.kind()).count(),
                1
            );
        }
        let schema =
            &super::super::schema::resolved()["properties"]["stages"]["additionalProperties"]["oneOf"];
        let train = schema
            .as_array()
            .unwrap()
            .iter()
            .find(|stage| stage["title"] == "train");
        let branches = train.unwrap()["properties"]["objective"]["oneOf"]
            .as_array()
            .unwrap();
        let titles: Vec<_> = branches
            .iter()
            .map(|branch| branch["title"].as_str().unwrap())
            .collect();
        assert_eq!(titles, kinds.map(|kind| kind.kind()));
    }
}
