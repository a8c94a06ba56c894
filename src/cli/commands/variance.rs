//! `mdlm variance`: how much the training loss of a model varies under each distribution of times and each weighting.

use std::fmt::Write as _;
use std::sync::Arc;

use rayon::prelude::*;
use serde::Serialize;

use crate::cli::args::compute::{ComputeArgs, compute_on};
use crate::cli::args::project::{Project, ProjectArgs};
use crate::cli::args::stage::{find, one};
use crate::cli::render::progress::Display;
use crate::cli::render::style;
use crate::cli::render::table::paragraph;
use crate::cli::render::terminal::Terminal;
use crate::cli::signals::listen;
use mdlm::data::rows::Rows;
use mdlm::diffusion::Mdlm;
use mdlm::error::{Error, Result};
use mdlm::evaluate::{Interval, LEAST_ROWS, LossVariance, ProbedLosses, VarianceProbe};
use mdlm::event::{Cancel, Event, Progress, Sink as _};
use mdlm::manifest::{
    Bell, Clipped, MdlmObjective, Objective, Split, Stage, Times, Train, Weighting, Weights,
};
use mdlm::numbers::count;
use mdlm::plural::counted;
use mdlm::stages::memory;
use mdlm::stages::trained::ModelInfo;

/// What `mdlm variance --help` says first.
pub const LONG_ABOUT: &str = "\
    Measure the variance of the training loss by its times: how much the loss of a training step deviates under each \
    distribution of times and each weighting, with a trained model and held-out rows.\n\n\
    For choosing `objective.times` and `objective.weighting` of a train stage with the objective `mdlm` in continuous \
    time. The network is asked once, at evenly spaced masked fractions; every distribution is an integral over them. \
    Clipped distributions are searched on a grid of limits (arXiv 2503.09573). Nothing is stored. Fails if the stage has \
    not run with its present settings and inputs.";

/// Clipped pairs that are printed for each weighting.
const SHOWN: usize = 3;
/// The smallest limit that a manifest may have.
const LEAST_LIMIT: f64 = 1e-3;

/// Arguments of `mdlm variance`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm variance pipelines/quickstart.json model --rows 256")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The train stage; may be left out where there is one
    #[arg(value_name = "STAGE")]
    pub stage: Option<String>,
    /// Rows of the validation split to use, at most
    #[arg(long, value_name = "N", default_value_t = 64, value_parser = clap::value_parser!(u64).range(LEAST_ROWS..=1_000_000))]
    pub rows: u64,
    /// Draws of noise per row: two at each of half as many masked fractions
    #[arg(long, value_name = "N", default_value_t = 32, value_parser = clap::value_parser!(u16).range(4..=1024))]
    pub draws: u16,
    /// Distance of the limits of clipped distributions
    #[arg(long, value_name = "FRACTION", default_value_t = 0.1, value_parser = grid)]
    pub grid: f64,
    /// Least distance between the two limits of a clipped distribution
    #[arg(long, value_name = "FRACTION", default_value_t = 0.5, value_parser = fraction)]
    pub width: f64,
    /// Print JSON instead of a table, with every pair of limits
    #[arg(long)]
    pub json: bool,
    /// Where and how to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

fn grid(text: &str) -> std::result::Result<f64, String> {
    between(text, 0.01, 0.5)
}

fn fraction(text: &str) -> std::result::Result<f64, String> {
    between(text, 0.01, 0.99)
}

fn between(text: &str, low: f64, high: f64) -> std::result::Result<f64, String> {
    let number = text.parse().ok().filter(|number| (low..=high).contains(number));
    number.ok_or_else(|| format!("expected a number from {low} to {high}"))
}

/// One distribution of times with a weighting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Candidate {
    weighting: Weighting,
    times: Times,
    /// Whether the manifest has it.
    in_manifest: bool,
    #[serde(flatten)]
    found: LossVariance,
}

impl Candidate {
    fn relative(&self) -> f64 {
        self.found.relative_deviation.value
    }

    fn limits(&self) -> Option<Clipped> {
        match self.times {
            Times::Clipped(limits) => Some(limits),
            _ => None,
        }
    }
}

/// What `--json` prints.
#[derive(Serialize)]
struct VarianceReport<'a> {
    stage: &'a str,
    weights: Weights,
    rows: u64,
    rows_of_split: u64,
    draws: u16,
    /// Rows of a training step.
    batch: u32,
    antithetic: bool,
    candidates: &'a [Candidate],
    /// The clipped pair of least relative deviation with the weighting of the bound.
    least_clipped: Option<Clipped>,
}

/// Measures and prints.
///
/// # Errors
/// The stage has no objective whose times can be chosen, or has not run with its present settings and inputs; there are too
/// few held-out rows; the device fails; the interruption.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    if !args.draws.is_multiple_of(2) {
        return Err(
            Error::input(format!("`--draws {}` is odd: draws come in pairs", args.draws))
                .hint(format!("use `--draws {}`", args.draws + 1)),
        );
    }
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let (stage, train) = chosen(&project, args.stage.as_deref())?;
    let settings = fitting(stage, &train.objective)?;
    let artifact = |stage: &str| {
        let record = find(&project, stage)?;
        Ok::<_, Error>(project.store.artifact_path(&record.artifact))
    };
    let (trained, packed) = (artifact(stage)?, artifact(&train.from)?);
    let model = ModelInfo::open(&trained)?;
    let rows = Rows::open(&packed, Split::Validation)?;
    let objective = Mdlm::new(settings, model.special.mask, model.vocabulary, model.seed);
    let candidates = candidates(settings, args.grid, args.width);

    let cancel = Cancel::default();
    let display = Arc::new(Display::new(terminal));
    listen(&cancel, display.printer())?;
    let (device, _lock) = compute_on(args.compute.device()?, &cancel, terminal)?;
    let measured = args.compute.pool()?.install(|| {
        let network = model.network(&trained, Weights::Ema, device)?;
        let probe = VarianceProbe {
            rows: &rows,
            limit: args.rows,
            chances: usize::from(args.draws / 2),
            objective: &objective,
            seed: model.seed,
            micro_batch: memory::rows_at_a_time(network.shape(), device),
        };
        display.begin(stage);
        let losses = probe.run(&*network, &cancel, &mut |done, total| {
            let progress = Progress {
                done,
                total: Some(total),
                unit: "rows",
                figures: vec![],
            };
            display.emit(stage, Event::Progress(progress));
        });
        display.clear();
        let losses = losses?;
        let found = measured(&losses, &objective, &candidates, train.batch, &cancel)?;
        Ok::<_, Error>((losses.rows(), found))
    });
    let (used, found) = measured?;
    if args.json {
        terminal.output_json(&VarianceReport {
            stage,
            weights: Weights::Ema,
            rows: used,
            rows_of_split: rows.len(),
            draws: args.draws,
            batch: train.batch,
            antithetic: settings.antithetic,
            candidates: &found,
            least_clipped: least(&found, Weighting::Elbo).and_then(|least| least.limits()),
        })?;
    } else {
        let heading = format!(
            "`{stage}`, averaged weights: {} of {} held-out rows, {} per row; steps of {}",
            count(used),
            count(rows.len()),
            counted(args.draws, "draw"),
            counted(train.batch, "row"),
        );
        terminal.output(&text(&heading, stage, &found, terminal))?;
    }
    Ok(0)
}

/// The train stage of that name, or the only one.
fn chosen<'a>(project: &'a Project, name: Option<&'a str>) -> Result<(&'a str, &'a Train)> {
    let trains: Vec<_> = project
        .loaded
        .manifest
        .stages
        .iter()
        .filter_map(|(name, stage)| match stage {
            Stage::Train(train) => Some((&**name, train)),
            _ => None,
        })
        .collect();
    let names = || {
        let names: Vec<_> = trains
            .iter()
            .take(10)
            .map(|(name, _)| format!("`{name}`"))
            .collect();
        names.join(", ")
    };
    let Some(name) = name else {
        return match trains[..] {
            [only] => Ok(only),
            [] => Err(Error::input("the manifest has no train stage")
                .hint("name a manifest that trains a model with the objective `mdlm`")),
            _ => Err(Error::input(format!(
                "the manifest has {}",
                counted(trains.len(), "train stage")
            ))
            .hint(format!("name one of them after the manifest: {}", names()))),
        };
    };
    if let Some(found) = trains.iter().find(|(train, _)| *train == name) {
        return Ok(*found);
    }
    one(project, name)?;
    let Some(stage) = project.loaded.manifest.stages.get(name) else {
        // Its error has the nearest name.
        find(project, name)?;
        return Err(Error::internal(format!(
            "stage `{name}` has a record, but is not in the manifest"
        )));
    };
    let error = Error::input(format!(
        "`{name}` is a {} stage: it trains no model",
        stage.kind().name()
    ));
    Err(error.hint(if trains.is_empty() {
        "name a manifest that trains a model with the objective `mdlm`".to_owned()
    } else {
        format!("name a train stage: {}", names())
    }))
}

/// The settings of an objective that has distributions of times to choose from.
fn fitting<'a>(stage: &str, objective: &'a Objective) -> Result<&'a MdlmObjective> {
    let what = match objective {
        Objective::Mdlm(settings) => match settings.steps {
            None => return Ok(settings),
            Some(_) => "`mdlm` in discrete time, whose steps are equally likely".to_owned(),
        },
        Objective::Ar(_) | Objective::Mlm(_) => {
            format!("`{}`, which has no times", objective.kind())
        }
        Objective::Sedd(_) | Objective::D3pm(_) => {
            format!("`{}`, whose times are uniform", objective.kind())
        }
    };
    Err(
        Error::input(format!("the objective of `{stage}` is {what}")).hint(
            "distributions of times, which are compared here, belong to the objective `mdlm` in continuous time \
             (without `steps`): name a stage that is trained with it",
        ),
    )
}

/// What is compared: that of the manifest first; for each weighting the distributions with their defaults, then the pairs of
/// clipped limits.
fn candidates(settings: &MdlmObjective, grid: f64, width: f64) -> Vec<(Weighting, Times)> {
    let all = [Weighting::Elbo, Weighting::CrossEntropy]
        .into_iter()
        .flat_map(|weighting| {
            let named = [Times::Uniform, Times::Importance, Times::Bell(Bell::default())];
            let clipped = pairs(grid, width).into_iter().map(Times::Clipped);
            named
                .into_iter()
                .chain(clipped)
                .map(move |times| (weighting, times))
        });
    let present = (settings.weighting, same_as(settings.times));
    let mut found: Vec<_> = std::iter::once(present).collect();
    found.extend(all.filter(|candidate| *candidate != present));
    found
}

/// `importance` for `change_of_variables`, which draws the same masked fractions with the same weights.
fn same_as(times: Times) -> Times {
    match times {
        Times::ChangeOfVariables => Times::Importance,
        times => times,
    }
}

/// Pairs of limits on a grid, at least a width apart.
fn pairs(grid: f64, width: f64) -> Vec<Clipped> {
    let count = (1.0 / grid + 1e-9) as u32;
    let mut limits: Vec<f64> = (0..=count)
        // As a person writes it: 0.3, not 0.30000000000000004.
        .map(|index| (f64::from(index) * grid * 1e6).round() / 1e6)
        .collect();
    limits[0] = LEAST_LIMIT;
    if limits.last().is_some_and(|&last| last < 1.0) {
        limits.push(1.0);
    }
    let all = limits
        .iter()
        .flat_map(|&low| limits.iter().map(move |&high| Clipped { low, high }));
    // The lowest limit stands for 0.
    all.filter(|pair| pair.high - pair.low + LEAST_LIMIT + 1e-9 >= width && pair.high > pair.low)
        .collect()
}

/// All candidates with what the answers make of them.
fn measured(
    losses: &ProbedLosses,
    objective: &Mdlm,
    candidates: &[(Weighting, Times)],
    batch: u32,
    cancel: &Cancel,
) -> Result<Vec<Candidate>> {
    let of = |(index, &(weighting, times)): (usize, &(Weighting, Times))| {
        cancel.check()?;
        // The network is fed what it was trained with, whatever the times.
        let objective = Mdlm {
            times,
            weighting,
            ..*objective
        };
        Ok(Candidate {
            weighting,
            times,
            in_manifest: index == 0,
            found: losses.variance(&objective, batch),
        })
    };
    candidates.par_iter().enumerate().map(of).collect()
}

/// The clipped pair of least relative deviation with a weighting.
fn least(candidates: &[Candidate], weighting: Weighting) -> Option<Candidate> {
    clipped(candidates, weighting).into_iter().next()
}

/// The clipped pairs of a weighting, by relative deviation.
fn clipped(candidates: &[Candidate], weighting: Weighting) -> Vec<Candidate> {
    let mut found: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate.weighting == weighting && candidate.limits().is_some())
        .copied()
        .collect();
    found.sort_by(|a, b| a.relative().total_cmp(&b.relative()));
    found
}

fn text(heading: &str, stage: &str, candidates: &[Candidate], terminal: &Terminal) -> String {
    let mut shown: Vec<Candidate> = Vec::new();
    let mut left_out = 0;
    for weighting in [Weighting::Elbo, Weighting::CrossEntropy] {
        let named = candidates.iter().filter(|candidate| {
            candidate.weighting == weighting && (candidate.limits().is_none() || candidate.in_manifest)
        });
        shown.extend(named);
        let pairs = clipped(candidates, weighting);
        let searched = pairs.iter().filter(|pair| !pair.in_manifest);
        left_out += searched.clone().count().saturating_sub(SHOWN);
        shown.extend(searched.take(SHOWN));
    }
    let bests = [Weighting::Elbo, Weighting::CrossEntropy].map(|weighting| least(candidates, weighting));
    let mut rows = vec![
        ["", "weighting", "times", "loss", "row", "step", "step / loss"]
            .map(str::to_owned)
            .to_vec(),
    ];
    rows.extend(shown.iter().map(|candidate| {
        let mark = match (candidate.in_manifest, bests.contains(&Some(*candidate))) {
            (true, true) => "m*",
            (true, false) => "m",
            (false, true) => "*",
            (false, false) => "",
        };
        let found = &candidate.found;
        vec![
            mark.to_owned(),
            weighting_name(candidate.weighting).to_owned(),
            times_name(candidate.times),
            format!("{:.3}", found.nats_per_token.value),
            format!("{:.3}", found.row_deviation.value),
            format!("{:.4}", found.step_deviation.value),
            percent(found.relative_deviation),
        ]
    }));
    let table = terminal.table(
        &rows,
        |row, _| {
            if row == 0 { style::STRONG } else { style::PLAIN }
        },
    );
    let mut text = format!("{}\n\n{table}\n", paragraph(heading));
    for note in notes(stage, &bests, left_out) {
        let _ = writeln!(text, "{}", paragraph(&note));
    }
    text
}

/// What the table means, and what to write in the manifest.
fn notes(stage: &str, bests: &[Option<Candidate>; 2], left_out: usize) -> Vec<String> {
    let mut notes = vec![
        "loss: mean in nats per token. row: standard deviation of one row's loss over times and masks. step: that of a \
         training step's loss, over rows, times and masks. step / loss: the relative deviation, ± its 95% interval. \
         m: the manifest's. *: the clipped pair of least relative deviation."
            .to_owned(),
        "`change_of_variables` draws the masked fractions of `importance` with the same weights: its figures are the \
         same."
            .to_owned(),
        "A clipped loss is the part of the bound between its limits, and a loss with `cross_entropy` is not the bound: \
         compare them by the relative deviation, never by the loss. These are deviations of the loss, not of its \
         gradient. Pairs whose intervals overlap may be equally good."
            .to_owned(),
    ];
    if left_out > 0 {
        notes.push(format!(
            "{} more: `--json` prints them.",
            counted(left_out, "clipped pair")
        ));
    }
    for best in bests.iter().flatten() {
        let times = serde_json::to_string(&best.times).unwrap_or_default();
        notes.push(match best.weighting {
            Weighting::Elbo => format!("In the objective of `{stage}`, * is \"times\": {times}"),
            Weighting::CrossEntropy => {
                format!("With \"weighting\": \"cross_entropy\", * is \"times\": {times}")
            }
        });
    }
    notes
}

fn weighting_name(weighting: Weighting) -> &'static str {
    match weighting {
        Weighting::Elbo => "elbo",
        Weighting::CrossEntropy => "cross_entropy",
    }
}

fn times_name(times: Times) -> String {
    match times {
        Times::Uniform => "uniform".to_owned(),
        Times::Importance | Times::ChangeOfVariables => "importance".to_owned(),
        Times::Bell(bell) => format!("bell {} ± {}", bell.center, bell.scale),
        Times::Clipped(limits) => format!("clipped {} to {}", limits.low, limits.high),
    }
}

/// `10.3% ± 1.2`.
fn percent(interval: Interval) -> String {
    let half = interval.high.map_or_else(String::new, |high| {
        format!(" ± {:.2}", 100.0 * (high - interval.value))
    });
    format!("{:.2}%{half}", 100.0 * interval.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pairs_are_on_the_grid_and_wide_enough() {
        let all = pairs(0.25, 0.5);
        let written: Vec<_> = all.iter().map(|pair| (pair.low, pair.high)).collect();
        assert_eq!(
            written,
            [
                (0.001, 0.5),
                (0.001, 0.75),
                (0.001, 1.0),
                (0.25, 0.75),
                (0.25, 1.0),
                (0.5, 1.0)
            ]
        );
        assert_eq!(pairs(0.1, 0.5).len(), 21);
        // A grid that does not divide 1 ends there all the same.
        assert!(
            pairs(0.3, 0.5)
                .iter()
                .any(|pair| (pair.low, pair.high) == (0.3, 1.0))
        );
        for pair in pairs(0.1, 0.5) {
            // The manifest's range.
            assert!((0.001..=1.0).contains(&pair.low) && pair.low < pair.high && pair.high <= 1.0);
            assert!(pair.low.to_string().len() <= 5, "{pair:?}");
        }
    }

    #[test]
    fn candidates_have_the_manifests_times_first_and_once() {
        let settings = MdlmObjective::default();
        let found = candidates(&settings, 0.25, 0.5);
        assert_eq!(found[0], (Weighting::Elbo, Times::Uniform));
        assert_eq!(found.len(), 2 * (3 + 6));
        let settings = MdlmObjective {
            times: Times::ChangeOfVariables,
            weighting: Weighting::CrossEntropy,
            ..settings
        };
        let found = candidates(&settings, 0.25, 0.5);
        assert_eq!(found[0], (Weighting::CrossEntropy, Times::Importance));
        assert_eq!(found.len(), 2 * (3 + 6));
        let limits = Clipped { low: 0.12, high: 0.8 };
        let settings = MdlmObjective {
            times: Times::Clipped(limits),
            ..settings
        };
        let found = candidates(&settings, 0.25, 0.5);
        assert_eq!(found[0], (Weighting::CrossEntropy, Times::Clipped(limits)));
        assert_eq!(found.len(), 2 * (3 + 6) + 1);
    }

    /// A table has the manifest's candidate, the least clipped pairs with their mark, and what to write.
    #[test]
    fn table_marks_the_least_clipped_pairs() {
        let figure = |value: f64| Interval::of(value, Some(value / 20.0), 31);
        let candidate = |index: usize, (weighting, times): (Weighting, Times)| Candidate {
            weighting,
            times,
            in_manifest: index == 0,
            found: LossVariance {
                nats_per_token: figure(3.0),
                row_deviation: figure(1.0),
                step_deviation: figure(0.3),
                relative_deviation: figure(0.1 + (index * 7 % 5) as f64 / 100.0 + index as f64 / 1e4),
            },
        };
        let all = candidates(&MdlmObjective::default(), 0.25, 0.5);
        let all: Vec<_> = all
            .into_iter()
            .enumerate()
            .map(|(index, one)| candidate(index, one))
            .collect();
        let terminal = Terminal::new(false, clap::ColorChoice::Never);
        let text = text("heading", "model", &all, &terminal);
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let best = least(&all, Weighting::Elbo).unwrap();
        let marked: Vec<_> = text.lines().filter(|line| line.starts_with('*')).collect();
        assert_eq!(marked.len(), 2, "{text}");
        assert!(marked[0].contains(&times_name(best.times)), "{text}");
        assert!(text.contains("m  elbo"), "{text}");
        // Each weighting has six pairs, of which three are shown.
        assert!(text.contains("6 clipped pairs more"), "{text}");
        assert!(
            text.replace('\n', " ")
                .contains("In the objective of `model`, * is \"times\": {\"kind\":\"clipped\""),
            "{text}"
        );
    }

    #[test]
    fn objectives_without_a_choice_of_times_are_refused() {
        let of = |argument: &str| {
            let objective = Objective::from_argument(argument).unwrap();
            fitting("model", &objective).map(|_| ()).unwrap_err().to_string()
        };
        assert_eq!(of("ar"), "the objective of `model` is `ar`, which has no times");
        assert_eq!(of("mlm"), "the objective of `model` is `mlm`, which has no times");
        assert_eq!(
            of("sedd"),
            "the objective of `model` is `sedd`, whose times are uniform"
        );
        assert_eq!(
            of("d3pm"),
            "the objective of `model` is `d3pm`, whose times are uniform"
        );
        assert_eq!(
            of(r#"{ "kind": "mdlm", "steps": 100 }"#),
            "the objective of `model` is `mdlm` in discrete time, whose steps are equally likely"
        );
        assert!(fitting("model", &Objective::default()).is_ok());
    }
}
