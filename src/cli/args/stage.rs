//! The stage that an argument names, and its result.

use super::project::Project;
use crate::cli::render::words::not_done;
use mdlm::error::{Error, Result};
use mdlm::export::MODELS;
use mdlm::manifest::{Manifest, Stage};
use mdlm::plan::{Decision, PlannedStage, Selection};
use mdlm::plural::counted;
use mdlm::store::Record;

/// Instances of a sweep that are listed at most.
const LISTED: usize = 20;

/// Checks that a name is not that of a swept stage, which has results of many instances and none of its own.
///
/// # Errors
/// The stage is swept; the hint has the names of its instances.
pub fn one(project: &Project, stage: &str) -> Result<()> {
    if let Some(instances) = project.loaded.sweeps.instances(stage) {
        let names: Vec<_> = instances
            .iter()
            .take(LISTED)
            .map(|instance| format!("`{}`", instance.name))
            .collect();
        let more = match instances.len().saturating_sub(LISTED) {
            0 => String::new(),
            more => format!(" and {more} more, which `mdlm compare` lists"),
        };
        let message = format!("it is swept and has {}", counted(instances.len(), "instance"));
        return Err(Error::input(message).hint(format!("name one of {}{more}", names.join(", "))));
    }
    Ok(())
}

/// The stages of a manifest that have a model.
#[must_use]
pub fn models(manifest: &Manifest) -> Vec<&str> {
    let stages = manifest.stages.iter();
    let models = stages.filter(|(_, stage)| MODELS.contains(&stage.kind()));
    models.map(|(name, _)| &**name).collect()
}

/// Checks that a stage is of a kind that has a model. A name that is not in the manifest is left to the plan.
///
/// # Errors
/// The stage has none; the hint names those that have one.
pub fn check_has_model(project: &Project, name: &str) -> Result<()> {
    let manifest = &project.loaded.manifest;
    let Some(kind) = manifest.stages.get(name).map(Stage::kind) else {
        return Ok(());
    };
    if MODELS.contains(&kind) {
        return Ok(());
    }
    let message = format!(
        "it is a {} stage, and a train or checkpoint stage has a model",
        kind.name()
    );
    let models: Vec<_> = models(manifest).iter().map(|name| format!("`{name}`")).collect();
    Err(Error::input(message).hint(if models.is_empty() {
        "the manifest has no such stage".to_owned()
    } else {
        format!("name one of {}", models.join(", "))
    }))
}

/// The record of a stage that has run for the present manifest.
///
/// # Errors
/// The errors of [`find_lacking`].
pub fn find(project: &Project, stage: &str) -> Result<Record> {
    find_lacking(project, stage).map(|(record, _)| record)
}

/// The same, with what its artifact lacks of what is asked for.
///
/// # Errors
/// The name is that of a sweep, planning fails, the stage has not run, or its files are not in the store.
pub fn find_lacking(project: &Project, stage: &str) -> Result<(Record, Option<String>)> {
    one(project, stage)?;
    let selection = Selection {
        targets: vec![stage.to_owned()],
        ..Selection::default()
    };
    let mut plan = project.plan(&selection)?;
    // The plan is for this stage, which stands last: after all that it needs.
    let planned = plan.stages.pop();
    let lacking = planned.as_ref().and_then(PlannedStage::lacking);
    // What globs leave out is counted while planning, as a run does.
    let figures = planned.as_ref().and_then(|planned| match &planned.decision {
        Decision::Cached(record) => Some(planned.figures(record)),
        _ => None,
    });
    match planned.map(|stage| stage.decision) {
        Some(Decision::Cached(mut record)) => {
            record.figures = figures.unwrap_or_default().into_iter().collect();
            Ok((*record, lacking))
        }
        Some(Decision::Away(record) | Decision::Fetch(record)) => {
            let message = format!(
                "its files are not in the store: artifact {}",
                record.artifact.short()
            );
            Err(Error::input(message).hint(format!(
                "`{}` fetches or makes them",
                project.run_command(Some(stage))
            )))
        }
        Some(Decision::Run { reasons, .. }) => Err(Error::input(format!("it {}", not_done(&reasons)))
            .hint(format!("`{}`", project.run_command(Some(stage))))),
        None => Err(Error::internal("plan a stage: the plan is empty")),
    }
}
