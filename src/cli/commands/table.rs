//! `mdlm table`: the tables of a manifest, with the cells that are there.

use clap::ValueEnum;

use crate::cli::args::project::{Project, ProjectArgs};
use crate::cli::render::tabulated;
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::joined;
use mdlm::error::{Context as _, Error, Result};
use mdlm::manifest::{self, Compared, Stage};
use mdlm::plan::{self, Decision, Plan, Selection};
use mdlm::stages::compare::markdown_of;
use mdlm::stages::table::{FoundResult, Sought, TableResult, blocks, csv, latex};

/// What `mdlm table --help` says first.
pub const LONG_ABOUT: &str = "\
    Show the table stages of a manifest: results in rows and columns beside published figures, each with its interval or \
    its standard deviation over seeds, and a verdict where both have the same settings.\n\n\
    Shows the results that the store has. A cell without a result is shown as missing, with the reason: a stage that has not \
    run, or a corpus that is not there. The files that a run writes, as `mdlm path MANIFEST STAGE` names their folder, are the \
    same table: `table.json`, `table.md`, `table.csv`, `table.tex`.";

/// Arguments of `mdlm table`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:\n  \
        mdlm table pipelines/paper/small/lm1b.json\n  \
        mdlm table pipelines/paper/zero-shot.json --format latex > zero-shot.tex")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// Table stages; default: all
    #[arg(value_name = "STAGE")]
    pub stages: Vec<String>,
    /// Format: text for a terminal, markdown, csv, latex (with booktabs) or json
    #[arg(long, value_name = "FORMAT", value_enum, default_value_t = Format::Text)]
    pub format: Format,
    /// Print the tables as JSON, as `--format json`
    #[arg(long, conflicts_with = "format")]
    pub json: bool,
}

/// How tables are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For a terminal.
    Text,
    /// Markdown.
    Markdown,
    /// CSV, one line a cell.
    Csv,
    /// LaTeX with the rules of `booktabs`.
    Latex,
    /// JSON.
    Json,
}

/// Prints the tables.
///
/// # Errors
/// An unknown stage, a manifest without tables, a store that cannot be read.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let tables = chosen(&project, &args.stages)?;
    // A table that cannot be filled does not hide the others.
    let mut failed = None;
    let mut filled_tables = Vec::new();
    for (name, table) in tables {
        match filled(&project, table).context(|| format!("table `{name}`")) {
            Ok(table) => filled_tables.push((name, table)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    let tables = filled_tables;
    let format = if args.json { Format::Json } else { args.format };
    let texts = tables.iter().map(|(_, table)| match format {
        Format::Text => tabulated::text(table, terminal.colors_output()),
        Format::Markdown => markdown_of(&blocks(table)),
        Format::Csv => csv(table),
        Format::Latex => latex(table),
        Format::Json => String::new(),
    });
    if format == Format::Json {
        let reports: serde_json::Map<_, _> = tables
            .iter()
            .filter_map(|(name, table)| Some((name.clone(), serde_json::to_value(table).ok()?)))
            .collect();
        terminal.output_json(&reports)?;
    } else {
        terminal.output(&texts.collect::<Vec<_>>().join("\n"))?;
    }
    match failed {
        Some(error) => Err(error),
        None => Ok(0),
    }
}

/// The table stages to show.
fn chosen(project: &Project, names: &[String]) -> Result<Vec<(String, manifest::Table)>> {
    let stages = &project.loaded.manifest.stages;
    let table = |stage: &Stage| match stage {
        Stage::Table(table) => Some(table.clone()),
        _ => None,
    };
    if !names.is_empty() {
        let named = project.loaded.sweeps.spelt_out(names);
        return named
            .into_iter()
            .map(|name| {
                let Some(stage) = stages.get(&name) else {
                    return Err(plan::unknown(&project.loaded.manifest, &name));
                };
                let table = table(stage).ok_or_else(|| {
                    let kind = stage.kind().name();
                    Error::input(format!("`{name}` is a stage of kind {kind}"))
                        .hint("name a stage of kind table")
                })?;
                Ok((name, table))
            })
            .collect();
    }
    let all: Vec<_> = stages
        .iter()
        .filter_map(|(name, stage)| Some((name.clone(), table(stage)?)))
        .collect();
    if all.is_empty() {
        let message = format!("`{}` has no stage of kind table", project.loaded.manifest.name);
        return Err(Error::input(message).hint("`mdlm compare` shows the results of any manifest"));
    }
    Ok(all)
}

/// A table with the results that are there.
fn filled(project: &Project, mut table: manifest::Table) -> Result<TableResult> {
    let plan_of = |targets: Vec<String>| {
        project.plan(&Selection {
            targets,
            ..Selection::default()
        })
    };
    let names = |of: &[Compared]| of.iter().map(|result| result.stage.clone()).collect::<Vec<_>>();
    let mut reasons: Vec<Option<String>> = vec![None; table.of.len()];
    let plan = match plan_of(names(&table.of)) {
        Ok(plan) => plan,
        // Where the whole cannot be planned, what can be planned is shown.
        Err(_) => {
            for (result, reason) in table.of.iter().zip(&mut reasons) {
                *reason = plan_of(vec![result.stage.clone()])
                    .err()
                    .map(|error| error.to_string());
            }
            let plannable = table
                .of
                .iter()
                .zip(&reasons)
                .filter(|(_, reason)| reason.is_none());
            let plannable: Vec<String> = plannable.map(|(result, _)| result.stage.clone()).collect();
            if plannable.is_empty() {
                let results: Vec<Sought> = reasons
                    .into_iter()
                    .map(|reason| Err(reason.unwrap_or_default()))
                    .collect();
                return TableResult::build(&table, &results);
            }
            plan_of(plannable)?
        }
    };
    plan.describe(&mut table.of);
    let results = table.of.iter().zip(reasons).map(|(of, reason)| match reason {
        Some(reason) => Ok(Err(reason)),
        None => sought(project, &plan, of),
    });
    let results: Vec<Sought> = results.collect::<Result<_>>()?;
    TableResult::build(&table, &results)
}

/// A planned result, or why it is not there.
fn sought(project: &Project, plan: &Plan, of: &Compared) -> Result<Sought> {
    let planned = plan.stages.iter().find(|stage| stage.name == of.stage);
    let Some(planned) = planned else {
        return Err(Error::internal(format!("`{}` is not planned", of.stage)));
    };
    Ok(match &planned.decision {
        Decision::Cached(record) => Ok(FoundResult::open(
            of,
            &project.store.artifact_path(&record.artifact),
        )?),
        Decision::Away(_) | Decision::Fetch(_) => {
            Err("its result is in the shared cache; `mdlm pull` fetches it".to_owned())
        }
        Decision::Run { reasons, .. } => Err(format!("not run with these settings: {}", joined(reasons))),
    })
}
