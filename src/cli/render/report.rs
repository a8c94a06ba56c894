//! The report of a pipeline, as a file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::terminal::Terminal;
use super::words::shown;
use mdlm::error::{Context as _, Result};
use mdlm::manifest::Loaded;
use mdlm::plan::{Decision, Plan};
use mdlm::report::{self, ReportSubject, ReportedStage};
use mdlm::store::{Digest, Store};

/// `reports/NAME.html` in the folder of results. Where that is the report of another manifest of the same name, which is
/// still there, `reports/NAME-DIGEST.html` by the manifest's place; says so.
#[must_use]
pub fn default_path(loaded: &Loaded, store: &Store, terminal: &Terminal) -> PathBuf {
    let name = &loaded.manifest.name;
    let reports = store.root().join("reports");
    let path = reports.join(format!("{name}.html"));
    let own = store.place(&loaded.path);
    let root = store.project();
    let other = owner(&path).filter(|other| *other != own && root.join(other).is_file());
    let Some(other) = other else { return path };
    let digest = Digest::of(own.as_bytes()).short();
    let path = reports.join(format!("{name}-{digest}.html"));
    terminal.warn(&format!(
        "{} is the report of `{}`, which has the same name; that of `{}` goes to {}",
        shown(&reports.join(format!("{name}.html"))),
        shown(&root.join(other)),
        loaded.path.display(),
        shown(&path)
    ));
    path
}

/// The manifest whose report lies in a file, if it says so.
fn owner(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(1 << 16)
        .read_to_end(&mut head)
        .ok()?;
    report::manifest_of(&String::from_utf8_lossy(&head))
}

/// Writes the report of a plan as it stands.
///
/// # Errors
/// An artifact cannot be read, the file cannot be written.
pub fn write(loaded: &Loaded, store: &Store, plan: &Plan, path: &Path) -> Result<()> {
    let stages: Vec<ReportedStage<'_>> = plan
        .stages
        .iter()
        .map(|stage| ReportedStage {
            name: &stage.name,
            written: loaded.sweeps.written(&stage.name),
            kind: stage.kind(),
            inputs: stage.inputs.iter().map(|input| input.index).collect(),
            done: match &stage.decision {
                Decision::Cached(record) => Some((&**record, store.artifact_path(&record.artifact))),
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => None,
            },
            figures: match &stage.decision {
                Decision::Cached(record) => stage.figures(record),
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => vec![],
            },
        })
        .collect();
    let manifest = &loaded.manifest;
    let subject = ReportSubject {
        title: &manifest.name,
        description: manifest.description.as_deref(),
        manifest: &store.place(&loaded.path),
    };
    let page = report::page(subject, &stages)?;
    // Of a store that can only be read, it is there already.
    if fs::read(path).is_ok_and(|before| before == page.as_bytes()) {
        return Ok(());
    }
    let writing = || format!("write `{}`", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).context(writing)?;
    }
    fs::write(path, page).context(writing)
}

/// Writes the report of a run that is over, where `mdlm report` would.
///
/// # Errors
/// The errors of [`write`].
pub fn after_run(loaded: &Loaded, store: &Store, plan: &Plan, terminal: &Terminal) -> Result<PathBuf> {
    let path = default_path(loaded, store, terminal);
    write(loaded, store, plan, &path)?;
    Ok(path)
}
