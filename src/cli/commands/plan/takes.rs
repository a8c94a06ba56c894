//! What a run would take, as a table and as JSON: tokens, operations, memory and time of each stage, and what fits in a stretch
//! of time.

use std::time::Duration;

use indexmap::IndexSet;
use serde::Serialize;

use super::table::{SHOWN_INSTANCES, instances_in_plan};
use crate::cli::args::compute::compute_on;
use crate::cli::args::project::Project;
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use mdlm::bench;
use mdlm::error::Result;
use mdlm::event::Cancel;
use mdlm::manifest::{Stage, StageKind, Sweeps};
use mdlm::model::Device;
use mdlm::numbers::{abbreviated, bytes, count, duration, operations};
use mdlm::plan::estimate::{
    Measurement, PlanEstimator, RunPlace, StageEstimate, TimeBudget, UnknownTime, Unmeasured,
};
use mdlm::plan::{Decision, Plan, Sources, named};
use mdlm::plural::counted;
use mdlm::store::Machine;
use mdlm::system::{self, DeviceRequest};

/// Time of a measurement, and of the warm-up before it.
const MEASURED: Duration = Duration::from_millis(1500);
const WARMUP: Duration = Duration::from_millis(300);

/// What a run would take.
pub(super) struct Takes {
    pub estimates: Vec<StageEstimate>,
    /// What fits in the time that was asked about.
    pub budget: Option<(Duration, TimeBudget)>,
}

/// Where a run would compute.
pub(super) struct Compute {
    pub threads: usize,
    pub device: DeviceRequest,
}

/// Estimates what a run would take, after measurements where they are asked for.
///
/// # Errors
/// The store cannot be read, a measurement fails, or the interruption.
pub(super) fn takes(
    plan: &Plan,
    sources: &Sources,
    from_step: &[Option<u64>],
    compute: &Compute,
    (measure, budget): (bool, Option<Duration>),
    terminal: &Terminal,
) -> Result<Takes> {
    let runs = |stage: &&mdlm::plan::PlannedStage| matches!(stage.decision, Decision::Run { .. });
    let computes = plan.stages.iter().filter(runs);
    let computes = computes.into_iter().any(|stage| stage.stage.computes_network());
    let device = match computes.then(|| compute.device.resolve()) {
        None => system::described(Device::Cpu),
        Some(Ok((device, _))) => system::described(device),
        // Another machine may have it.
        Some(Err(_)) => "not usable here".to_owned(),
    };
    let place = RunPlace {
        machine: Machine::this(),
        device,
        threads: compute.threads,
    };
    let mut estimator = PlanEstimator::new(plan, sources, &place);
    let mut estimates = estimator.estimates(from_step)?;
    if measure {
        let wanted = estimator.measurable(&estimates);
        if wanted.is_empty() {
            terminal.say("nothing is measured: no time is unknown that a measurement would show");
        } else {
            let cancel = Cancel::default();
            let (device, _lock) = compute_on(compute.device, &cancel, terminal)?;
            for one in wanted {
                terminal.say(&format!(
                    "measures {} with shape `{}` and objective `{}`",
                    one.kind.name(),
                    one.shape.name,
                    one.objective.kind()
                ));
                estimator.add(&measured(one, device, &cancel)?)?;
            }
            estimates = estimator.estimates(from_step)?;
        }
    }
    let budget = budget.map(|limit| (limit, TimeBudget::of(&estimates, limit.as_secs_f64())));
    Ok(Takes { estimates, budget })
}

fn measured(of: Unmeasured, device: Device, cancel: &Cancel) -> Result<Measurement> {
    let task = match of.kind {
        StageKind::Train => bench::Task::Train,
        StageKind::Sample => bench::Task::Sample,
        _ => bench::Task::Evaluate,
    };
    let options = bench::Options {
        shape: of.shape,
        objective: of.objective,
        device,
        precision: of.precision,
        batch: of.batch,
        micro_batch: None,
        steps: of.steps,
        warmup: WARMUP,
        time: MEASURED,
        kernels: false,
    };
    let found = bench::measure(task, &options, cancel)?;
    Ok(Measurement {
        of,
        tokens_per_second: found.tokens_per_second,
    })
}

/// What a stage takes, in numbers.
#[derive(Serialize)]
pub(super) struct TakesReport {
    #[serde(skip_serializing_if = "Option::is_none")]
    tokens: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    flops: Option<f64>,
    /// Bytes that are read.
    #[serde(skip_serializing_if = "Option::is_none")]
    bytes: Option<u64>,
    memory_bytes: u64,
    /// Of a training, the steps that are left.
    #[serde(skip_serializing_if = "Option::is_none")]
    steps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds: Option<f64>,
    /// By the fastest and the slowest of several runs.
    #[serde(skip_serializing_if = "Option::is_none")]
    seconds_range: Option<[f64; 2]>,
    /// Runs that the time rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    runs: Option<usize>,
    /// What the time rests on.
    #[serde(skip_serializing_if = "Option::is_none")]
    basis: Option<String>,
    /// Why no time is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<&'static str>,
}

impl TakesReport {
    pub fn of(estimate: &StageEstimate) -> Self {
        let time = estimate.time.as_ref().ok();
        Self {
            tokens: estimate.tokens.map(|tokens| tokens.round() as u64),
            flops: estimate.flops,
            bytes: estimate.bytes,
            memory_bytes: estimate.memory,
            steps: estimate.steps.map(|(from, to)| to - from),
            seconds: time.map(|time| time.seconds),
            seconds_range: time.and_then(|time| time.range).map(|(low, high)| [low, high]),
            runs: time.map(|time| time.runs),
            basis: time.map(|time| time.basis.clone()),
            unknown: estimate.time.as_ref().err().map(why_unknown),
        }
    }
}

/// What all stages take that are to run.
#[derive(Serialize)]
pub(super) struct TotalReport {
    /// Operations of networks, as far as they are known.
    flops: f64,
    /// The largest of all.
    memory_bytes: u64,
    /// One after the other, as far as the times are known.
    seconds: f64,
    /// Stages whose time is unknown.
    unknown: usize,
}

impl TotalReport {
    pub fn of(estimates: &[StageEstimate]) -> Self {
        let seconds = |estimate: &StageEstimate| Some(estimate.time.as_ref().ok()?.seconds);
        Self {
            flops: estimates.iter().filter_map(|estimate| estimate.flops).sum(),
            memory_bytes: estimates
                .iter()
                .map(|estimate| estimate.memory)
                .max()
                .unwrap_or(0),
            seconds: estimates.iter().filter_map(seconds).sum(),
            unknown: estimates.iter().filter(|estimate| estimate.time.is_err()).count(),
        }
    }
}

/// What fits in a stretch of time.
#[derive(Serialize)]
pub(super) struct BudgetReport<'a> {
    /// The time.
    seconds: f64,
    /// What of it is used.
    used_seconds: f64,
    /// Stages that fit whole.
    whole: Vec<&'a str>,
    /// The training of which some steps fit.
    #[serde(skip_serializing_if = "Option::is_none")]
    part: Option<PartReport<'a>>,
    /// The stage whose time is unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    unknown: Option<&'a str>,
    /// Stages that do not fit whole, and those after them.
    left: Vec<&'a str>,
}

#[derive(Serialize)]
struct PartReport<'a> {
    stage: &'a str,
    /// Steps that fit.
    steps: u64,
    /// Steps that are left to do.
    of: u64,
    /// The step at which the training then stands.
    reached: u64,
}

impl<'a> BudgetReport<'a> {
    pub fn of(plan: &'a Plan, limit: Duration, budget: &TimeBudget) -> Self {
        let name = |index: &usize| plan.stages[*index].name.as_str();
        Self {
            seconds: limit.as_secs_f64(),
            used_seconds: budget.seconds,
            whole: budget.whole.iter().map(name).collect(),
            part: budget.part.map(|part| PartReport {
                stage: name(&part.index),
                steps: part.steps,
                of: part.of,
                reached: part.reached,
            }),
            unknown: budget.unknown.as_ref().map(name),
            left: budget.left.iter().map(name).collect(),
        }
    }
}

fn why_unknown(why: &UnknownTime) -> &'static str {
    match why {
        UnknownTime::Amount => "unknown before its inputs are made",
        UnknownTime::Download => "unknown: it downloads",
        UnknownTime::NeverMeasured | UnknownTime::NeverRan => "unknown: nothing like it ran here",
    }
}

/// The instances of a sweep that share a row, or one stage.
struct TakesRow<'a> {
    name: String,
    estimates: Vec<&'a StageEstimate>,
}

/// What the stages take that are to run; nothing where none is.
pub(super) fn text(plan: &Plan, takes: &Takes, project: &Project, terminal: &Terminal) -> String {
    let estimates = &takes.estimates;
    if estimates.is_empty() {
        return String::new();
    }
    let rows = rows(plan, estimates, &project.loaded.sweeps);
    let heading = ["to run", "tokens", "operations", "memory", "time"];
    let mut cells: Vec<Vec<String>> = vec![heading.map(str::to_owned).to_vec()];
    cells.extend(rows.iter().map(|row| {
        let mut cells = vec![row.name.clone()];
        cells.extend(figures(plan, &row.estimates));
        cells
    }));
    let last = cells.len();
    if rows.len() > 1 {
        let all: Vec<&StageEstimate> = estimates.iter().collect();
        let mut total = vec!["all".to_owned()];
        total.extend(figures(plan, &all));
        cells.push(total);
    }
    let table = terminal.table(&cells, |row, column| match (row, column) {
        (0, _) => style::FAINT,
        (row, 0) if row < last => style::STRONG,
        _ => style::PLAIN,
    });
    let mut text = format!("\n{table}");
    for line in [ways(plan, estimates, project), budget(plan, takes)]
        .into_iter()
        .flatten()
    {
        text.push('\n');
        text.push_str(&paragraph(&line));
        text.push('\n');
    }
    text
}

fn rows<'a>(plan: &Plan, estimates: &'a [StageEstimate], sweeps: &Sweeps) -> Vec<TakesRow<'a>> {
    let counts = instances_in_plan(plan, sweeps);
    let mut rows: Vec<TakesRow> = Vec::new();
    let mut places = std::collections::HashMap::new();
    for estimate in estimates {
        let name = &plan.stages[estimate.index].name;
        let written = sweeps.written(name);
        let is_large = counts.get(written).is_some_and(|&count| count > SHOWN_INSTANCES);
        if is_large && let Some(&place) = places.get(written) {
            let row: &mut TakesRow = &mut rows[place];
            row.estimates.push(estimate);
            row.name = format!("{written} ×{}", count(row.estimates.len() as u64));
            continue;
        }
        places.insert(written, rows.len());
        rows.push(TakesRow {
            name: name.clone(),
            estimates: vec![estimate],
        });
    }
    rows
}

/// Tokens, operations, memory and time of some stages together. Of stages of which some compute networks, the tokens are those
/// that go through these. A sum that lacks those of a stage says so.
fn figures(plan: &Plan, estimates: &[&StageEstimate]) -> [String; 4] {
    let computes = |estimate: &&&StageEstimate| match &plan.stages[estimate.index].stage {
        Stage::Judge(judge) => judge.model.is_some(),
        stage => stage.computes_network(),
    };
    let networks: Vec<&StageEstimate> = estimates.iter().filter(computes).copied().collect();
    let sum = |of: &[&StageEstimate], value: &dyn Fn(&StageEstimate) -> Option<f64>| {
        let known: Vec<f64> = of.iter().filter_map(|estimate| value(estimate)).collect();
        let least = if known.len() < of.len() { "≥ " } else { "" };
        (!known.is_empty()).then(|| (least, known.iter().sum::<f64>()))
    };
    let unknown = "–".to_owned();
    let counted = if networks.is_empty() { estimates } else { &networks };
    let tokens = sum(counted, &|estimate| estimate.tokens);
    let flops = sum(&networks, &|estimate| estimate.flops);
    let memory = estimates
        .iter()
        .map(|estimate| estimate.memory)
        .max()
        .unwrap_or(0);
    [
        tokens.map_or(unknown.clone(), |(least, tokens)| {
            format!("{least}{}", abbreviated(tokens.round() as usize))
        }),
        flops.map_or(unknown, |(least, flops)| format!("{least}{}", operations(flops))),
        bytes(memory),
        time(estimates),
    ]
}

fn time(estimates: &[&StageEstimate]) -> String {
    let known: Vec<_> = estimates
        .iter()
        .filter_map(|estimate| estimate.time.as_ref().ok())
        .collect();
    let open = estimates.len() - known.len();
    let seconds =
        |of: &dyn Fn(&mdlm::plan::estimate::TimeEstimate) -> f64| known.iter().map(|time| of(time)).sum();
    let total: f64 = seconds(&|time| time.seconds);
    let low: f64 = seconds(&|time| time.range.map_or(time.seconds, |(low, _)| low));
    let high: f64 = seconds(&|time| time.range.map_or(time.seconds, |(_, high)| high));
    let range = if known.iter().any(|time| time.range.is_some()) {
        format!(" ({} to {})", duration(low), duration(high))
    } else {
        String::new()
    };
    match (known.as_slice(), estimates) {
        ([], [one]) => one.time.as_ref().err().map_or("", why_unknown).to_owned(),
        ([], _) => "unknown".to_owned(),
        ([time], [_]) => format!("{}{range}, {}", duration(total), time.basis),
        (known, _) => {
            let mut text = format!("{}{range}", duration(total));
            if open > 0 {
                text = format!("at least {text}; that of {} is unknown", counted(open, "stage"));
            } else if known.iter().all(|time| time.basis == known[0].basis) {
                text = format!("{text}, {}", known[0].basis);
            }
            text
        }
    }
}

/// Which commands make unknown times known.
fn ways(plan: &Plan, estimates: &[StageEstimate], project: &Project) -> Option<String> {
    let sweeps = &project.loaded.sweeps;
    let names = |why: &[UnknownTime]| -> Vec<String> {
        let names: IndexSet<&str> = estimates
            .iter()
            .filter(|estimate| estimate.time.as_ref().is_err_and(|own| why.contains(own)))
            .map(|estimate| sweeps.written(&plan.stages[estimate.index].name))
            .collect();
        names.into_iter().map(str::to_owned).collect()
    };
    let mut ways = Vec::new();
    let measured = names(&[UnknownTime::NeverMeasured]);
    if !measured.is_empty() {
        let command = project.run_command(None).replacen("mdlm run", "mdlm plan", 1);
        ways.push(format!(
            "`{command} --measure` measures {} on this machine, which takes seconds",
            named(&measured)
        ));
    }
    // That of a download is not known afterwards either.
    let others = names(&[UnknownTime::Amount, UnknownTime::NeverRan]);
    if let Some(first) = others.first() {
        ways.push(format!(
            "the time of {} is known once {} run here: `{}`",
            named(&others),
            if others.len() == 1 { "it has" } else { "they have" },
            project.run_command(Some(first).filter(|_| others.len() == 1).map(String::as_str))
        ));
    }
    (!ways.is_empty()).then(|| ways.join("; "))
}

/// What fits in the time that was asked about.
fn budget(plan: &Plan, takes: &Takes) -> Option<String> {
    let (limit, budget) = takes.budget.as_ref()?;
    let limit = duration(limit.as_secs_f64());
    let names = |places: &[usize]| -> String {
        let names: Vec<&str> = places
            .iter()
            .map(|&place| plan.stages[place].name.as_str())
            .collect();
        named(&names)
    };
    let used = duration(budget.seconds);
    if budget.left.is_empty() {
        let stages = counted(budget.whole.len(), "stage");
        return Some(format!("all fits in {limit}: {stages}, {used}"));
    }
    let mut parts = Vec::new();
    if !budget.whole.is_empty() {
        let fit = if budget.whole.len() == 1 { "fits" } else { "fit" };
        parts.push(format!("{} {fit} whole", names(&budget.whole)));
    }
    let left = if let Some(part) = budget.part {
        parts.push(format!(
            "of `{}` {} of {} steps fit, up to step {}, from which the same run resumes",
            plan.stages[part.index].name,
            count(part.steps),
            count(part.of),
            count(part.reached)
        ));
        &budget.left[1..]
    } else {
        &budget.left[..]
    };
    match budget.unknown {
        Some(unknown) => {
            parts.push(format!(
                "the time of `{}` is unknown, and so is what fits from there on",
                plan.stages[unknown].name
            ));
        }
        None if !left.is_empty() => {
            let fit = if left.len() == 1 { "does" } else { "do" };
            parts.push(format!("{} {fit} not fit", names(left)));
        }
        None => {}
    }
    if budget.seconds > 0.0 {
        parts.push(format!("{used} of it in use"));
    }
    Some(format!("in {limit}: {}", parts.join("; ")))
}
