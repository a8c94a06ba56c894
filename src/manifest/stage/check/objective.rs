//! Settings of an objective that exclude each other.

use super::StageEntry;
use crate::manifest::fault::{Code, Draft, quoted};
use crate::manifest::{
    DEFAULT_D3PM_STEPS, DEFAULT_SAMPLING_EPSILON, MdlmObjective, MlmObjective, Noise, Objective,
    SeddObjective, Times, Weighting,
};

/// Shares are compared to one part in so many: a sum of decimals such as 0.7 + 0.3 is off by its last bits.
const PARTS: f64 = 1e9;

/// The largest σ at which f32 holds the scores of `sedd`: 1 / (e^σ − 1) is a normal number up to −ln 2⁻¹²⁶ = 87.3, and 0
/// from 104 on, where the loss is not defined.
const LARGEST_SIGMA_OF_SCORES: f64 = 87.0;

/// Adds the faults of an objective's settings that exclude each other.
pub fn check_objective(entry: &StageEntry<'_>, objective: &Objective, faults: &mut Vec<Draft>) {
    if let Some(Noise::Linear(range) | Noise::Geometric(range)) = objective.noise()
        && range.sigma_min >= range.sigma_max
    {
        let (low, high) = (range.sigma_min, range.sigma_max);
        faults.push(
            entry
                .fault(
                    Code::Noise,
                    "objective/noise/sigma_max",
                    format!("`sigma_max` {high} is not above `sigma_min` {low}"),
                )
                .expected(format!("a `sigma_max` above `sigma_min`, {low}"))
                .hint("set `\"sigma_min\": 1e-4`"),
        );
    }
    match objective {
        Objective::Mdlm(settings) => mdlm(entry, objective, settings, faults),
        Objective::Sedd(settings) => sedd(entry, settings, faults),
        Objective::Mlm(settings) => mlm(entry, settings, faults),
        Objective::Ar(_) | Objective::D3pm(_) => {}
    }
}

fn mdlm(entry: &StageEntry<'_>, objective: &Objective, settings: &MdlmObjective, faults: &mut Vec<Draft>) {
    let off = objective.switched_off();
    let switched_off = |fault: Draft, switch: &str| {
        fault.related(entry.span(&format!("objective/{switch}")), "switched off here")
    };
    if let (Some(switch), None) = (off.first(), settings.steps) {
        let names: Vec<_> = off.iter().map(|switch| quoted(switch)).collect();
        let message = format!(
            "without {} the bound exists in discrete time only, but the objective has no `steps`",
            names.join(" and ")
        );
        faults.push(
            entry
                .fault(Code::Objective, &format!("objective/{switch}"), message)
                .expected("`steps` beside it")
                .hint(format!(
                    "add `\"steps\": {DEFAULT_D3PM_STEPS}` to `objective`, or leave {} out",
                    names.join(" and ")
                )),
        );
    }
    if let Some(&switch) = off.first()
        && settings.weighting == Weighting::CrossEntropy
    {
        let message = format!(
            "`cross_entropy` weighs −log p of masked tokens, but without `{switch}` the loss is another"
        );
        let fault = entry
            .fault(Code::Objective, "objective/weighting", message)
            .expected("the weighting `elbo`")
            .hint(format!(
                "leave `weighting` out, or leave `{}` out",
                off.join("` and `")
            ));
        faults.push(switched_off(fault, switch));
    }
    if settings.times != Times::Uniform && (settings.steps.is_some() || !off.is_empty()) {
        let fault = entry
            .fault(
                Code::Objective,
                "objective/times",
                "`times` is a distribution of continuous times, but time is discrete here",
            )
            .expected("`times` only without `steps`");
        faults.push(match (off.first(), settings.steps) {
            (Some(switch), _) => switched_off(fault, switch).hint("leave `times` out"),
            (None, _) => fault
                .hint("leave `times` out, or leave `steps` out for continuous time")
                .related(entry.span("objective/steps"), "discrete time"),
        });
    }
    // What is written and equal to the default has always been accepted.
    let is_other = settings.sampling_epsilon != DEFAULT_SAMPLING_EPSILON;
    if is_other && settings.steps.is_some() {
        faults.push(
            entry
                .fault(
                    Code::Objective,
                    "objective/sampling_epsilon",
                    "`sampling_epsilon` is the smallest continuous time, but time is discrete here",
                )
                .expected("`sampling_epsilon` only without `steps`")
                .hint("leave `sampling_epsilon` out")
                .related(entry.span("objective/steps"), "discrete time"),
        );
    }
    if let Times::Clipped(limits) = settings.times
        && limits.low >= limits.high
    {
        let (low, high) = (limits.low, limits.high);
        let way = if low > high {
            format!("set `\"low\": {high}, \"high\": {low}`")
        } else if high < 1.0 {
            "set `\"high\": 1`".to_owned()
        } else {
            "set `\"low\": 0.5`".to_owned()
        };
        faults.push(
            entry
                .fault(
                    Code::Objective,
                    "objective/times/high",
                    format!("`high` {high} is not above `low` {low}"),
                )
                .expected(format!("a `high` above `low`, {low}"))
                .hint(way)
                .related(entry.span("objective/times/low"), "the lower limit"),
        );
    }
}

fn sedd(entry: &StageEntry<'_>, settings: &SeddObjective, faults: &mut Vec<Draft>) {
    if !settings.time_conditioning {
        faults.push(
            entry
                .fault(
                    Code::TimeConditioning,
                    "objective/time_conditioning",
                    "`sedd` predicts scores, which depend on the noise level: its network needs time conditioning",
                )
                .expected("`true`")
                .hint("leave `time_conditioning` out: `sedd` has it"),
        );
    }
    if let Noise::Linear(range) | Noise::Geometric(range) = settings.noise
        && range.sigma_max > LARGEST_SIGMA_OF_SCORES
    {
        let message = format!(
            "`sigma_max` {} is too large for `sedd`: the scores at that noise, 1 / (e^σ − 1), are too small for f32",
            range.sigma_max
        );
        faults.push(
            entry
                .fault(Code::Noise, "objective/noise/sigma_max", message)
                .expected(format!("a `sigma_max` of at most {LARGEST_SIGMA_OF_SCORES}"))
                .hint("set `\"sigma_max\": 20`"),
        );
    }
}

fn mlm(entry: &StageEntry<'_>, settings: &MlmObjective, faults: &mut Vec<Draft>) {
    let (random, kept) = (settings.random, settings.kept);
    if random + kept <= 1.0 + 1.0 / PARTS {
        return;
    }
    // What is left beside the one that is written, in decimals as people write them.
    let rounded = |share: f64| ((1.0 - share) * PARTS).round() / PARTS;
    let (field, other, value) = if entry.has("objective/random") {
        ("random", "kept", rounded(random))
    } else {
        ("kept", "random", rounded(kept))
    };
    let name = |field: &str, value: f64| {
        let which = if entry.has(&format!("objective/{field}")) {
            ""
        } else {
            "the default "
        };
        format!("{which}`{field}` {value}")
    };
    let message = format!(
        "{} and {} add up to more than 1, and both are shares of the chosen tokens",
        name("random", random),
        name("kept", kept)
    );
    let mut fault = entry
        .fault(Code::Objective, &format!("objective/{field}"), message)
        .expected("shares that add up to at most 1")
        .hint(format!("set `\"{other}\": {value}`"));
    if entry.has(&format!("objective/{other}")) {
        fault = fault.related(entry.span(&format!("objective/{other}")), "the other share");
    }
    faults.push(fault);
}
