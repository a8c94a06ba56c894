//! `mdlm compare`: results in one table.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use crate::cli::args::project::{Project, ProjectArgs};
use crate::cli::render::comparison::{all_settings, by_kind, distinguish, planned, report, sort_of, texts};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Error, Result};
use mdlm::manifest::{COMPARABLE, Metric, Point, Stage, StageKind};
use mdlm::plan::{self, Selection};
use mdlm::stages::compare::METRICS_IN_ORDER;

/// What `mdlm compare --help` says first.
pub const LONG_ABOUT: &str = "\
    Put results side by side: the instances of sweeps with the fields that differ and what was measured, each with its \
    95% interval, in order of a metric.\n\n\
    Results whose settings differ in seeds alone, whatever their stages are called, are replicates: a table of their means \
    and standard deviations comes first, in order of the means, and single results follow by setting, within a setting in the order \
    of the manifest.\n\n\
    The first setting is called best only if it differs from all others by more than the uncertainty; a note below the \
    table states the criterion.\n\n\
    Models of several objectives compare by the bits per byte of one text. Where exact values and bounds are in one table, \
    bounds have the sign ≤. Numbers per token and per scored token are not ranked together, and no bound that is given the \
    lengths of the records (padding excluded) is ranked with a number that includes them; a note below the table says so. \
    Results on different texts have a table for each text.\n\n\
    Without STAGE, compares all evaluate stages and all sample stages with a grammar; if there are none, all train stages, \
    by their last validation. For several manifests, the settings that differ are listed, from the sources on.\n\n\
    Stages that have not run are listed as such; `mdlm plan` says why.";

/// Arguments of `mdlm compare`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm compare pipelines/sweep.json --sort perplexity\n  \
        mdlm compare before.json after.json bound")]
pub struct Args {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Stages, with all their instances, or compare stages; and further manifests, whose names end in `.json`
    #[arg(value_name = "STAGE")]
    pub more: Vec<String>,
    /// Metric to sort by: `bits_per_byte`, perplexity, ...
    ///
    /// One of `bits_per_byte`, `bits_per_byte_normalized` (of a tokenizer that changes the text), `perplexity`,
    /// `perplexity_per_word`, `nats_per_token`, `last_word_perplexity`, `last_word_accuracy`, `pseudo_perplexity` and
    /// `grammatical`; default: the `sort` of the manifest's compare stages, else the first of these that was measured.
    #[arg(long, value_name = "METRIC", value_parser = metric)]
    pub sort: Option<Metric>,
    /// Set a field for this comparison: stages.model.steps=200
    ///
    /// PATH=VALUE, as in `mdlm run`; applies to every manifest.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Folder of results, instead of `.mdlm` beside the project
    ///
    /// Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
    /// Print the tables as JSON
    #[arg(long)]
    pub json: bool,
}

fn metric(name: &str) -> std::result::Result<Metric, String> {
    Metric::find(name).ok_or_else(|| {
        let names: Vec<_> = METRICS_IN_ORDER.iter().map(|metric| metric.name()).collect();
        format!("the metrics are {}", names.join(", "))
    })
}

/// Prints the tables.
///
/// # Errors
/// An unknown stage, a stage that measures nothing, a store that cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let (manifests, stages): (Vec<&String>, Vec<&String>) =
        args.more.iter().partition(|name| is_manifest(name));
    let manifests: Vec<PathBuf> = [args.manifest.clone()]
        .into_iter()
        .chain(manifests.into_iter().map(PathBuf::from))
        .collect();
    let mut projects = Vec::new();
    for manifest in &manifests {
        let arguments = ProjectArgs {
            manifest: manifest.clone(),
            set: args.set.clone(),
            store: args.store.clone(),
        };
        match arguments.open(terminal) {
            Ok(project) => projects.push(project),
            Err(code) => return Ok(code),
        }
    }
    let mut rows = Vec::new();
    let mut settings = Vec::new();
    let mut sort: Option<Option<Metric>> = None;
    let mut called = BTreeMap::new();
    for project in &projects {
        let chosen = chosen(project, &stages)?;
        let selection = Selection {
            targets: chosen.clone(),
            ..Selection::default()
        };
        let plan = project.plan(&selection)?;
        let names = project.loaded.sweeps.spelt_out(&chosen);
        let compared: Vec<&str> = names.iter().map(String::as_str).collect();
        let own = sort_of(&project.loaded, &compared, &stages);
        // Of several manifests, one that all have.
        sort = Some(sort.map_or(own, |other| other.filter(|_| other == own)));
        rows.extend(planned(&project.loaded, &project.store, &plan, &names)?);
        for name in names {
            settings.push(if projects.len() > 1 {
                all_settings(&project.loaded, &plan, &name, &mut called)?
            } else {
                Point::new()
            });
        }
    }
    if projects.len() > 1 {
        distinguish(&mut rows, &settings);
    }
    let tables = by_kind(rows, args.sort.or(sort.flatten()));
    if args.json {
        let reports: Vec<_> = tables.iter().map(report).collect();
        terminal.output_json(&reports)?;
    } else {
        let texts = texts(&tables, terminal.colors_output());
        terminal.output(&texts.join("\n"))?;
    }
    Ok(0)
}

/// Whether an argument is a manifest rather than a stage.
fn is_manifest(name: &str) -> bool {
    // Names of stages have no point but behind their sign.
    let path = Path::new(name);
    path.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("json"))
        || name.contains('/')
}

/// The stages to compare, by their written names or those of instances.
fn chosen(project: &Project, stages: &[&String]) -> Result<Vec<String>> {
    let loaded = &project.loaded;
    let first = |name: &str| -> Option<&Stage> {
        let instance = loaded.sweeps.instances(name).and_then(<[_]>::first);
        loaded
            .manifest
            .stages
            .get(instance.map_or(name, |one| &*one.name))
    };
    let mut written: Vec<&str> = Vec::new();
    for name in loaded.manifest.stages.keys() {
        let name = loaded.sweeps.written(name);
        if !written.contains(&name) {
            written.push(name);
        }
    }
    if !stages.is_empty() {
        for &name in stages {
            let Some(stage) = first(name) else {
                return Err(plan::unknown(&loaded.manifest, name));
            };
            // Of a compare stage, what it collects.
            if !COMPARABLE.contains(&stage.kind()) && stage.kind() != StageKind::Compare {
                let message = format!(
                    "`{name}` is a stage of kind {}, which has no metric",
                    stage.kind().name()
                );
                return Err(Error::input(message).hint("name evaluate, sample, train or compare stages"));
            }
        }
        let collected = |name: &String| match first(name) {
            Some(Stage::Compare(compare)) => compare.of.iter().map(|row| row.stage.clone()).collect(),
            _ => vec![name.clone()],
        };
        return Ok(stages.iter().flat_map(|&name| collected(name)).collect());
    }
    let of = |wanted: &dyn Fn(&Stage) -> bool| -> Vec<String> {
        let chosen = written.iter().filter(|name| first(name).is_some_and(wanted));
        chosen.map(|&name| name.to_owned()).collect()
    };
    let judged = of(&|stage| stage.kind().measures_model() && stage.has_metric());
    let chosen = if judged.is_empty() {
        of(&|stage| !stage.kind().measures_model() && stage.has_metric())
    } else {
        judged
    };
    if chosen.is_empty() {
        return Err(
            Error::input(format!("`{}` has nothing to compare", loaded.manifest.name))
                .hint("evaluate, sample and train stages have metrics"),
        );
    }
    Ok(chosen)
}
