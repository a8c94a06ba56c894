//! `mdlm report`: the results of a pipeline as one HTML file.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use super::Terminal;
use super::project::{Project, ProjectArgs, shown};
use crate::error::{Context, Error, Result};
use crate::plan::{Decision, Plan, Selection};
use crate::report::{self, Stage};
use crate::store::Digest;

/// What `mdlm report --help` says first.
pub const LONG_ABOUT: &str = "\
    Write the results of a pipeline as one HTML file: its graph, training curves, bounds, samples and where they \
    came from.\n\n\
    The file is self-contained. Stages that have not run are shown as such. A run of a whole pipeline \
    writes the report too.";

/// Arguments of `mdlm report`.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example: mdlm report pipelines/quickstart.json --output quickstart.html")]
pub struct Args {
    /// The manifest and its store.
    #[command(flatten)]
    pub project: ProjectArgs,
    /// The file to write, instead of `reports/NAME.html` in the folder of results
    ///
    /// Of two manifests of one name the second has `reports/NAME-DIGEST.html`, and says so.
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
}

/// Writes the report and prints its path.
///
/// # Errors
/// No stage has run, an artifact cannot be read, the file cannot be written.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let project = match args.project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(code),
    };
    let plan = project.plan(&Selection::default())?;
    if plan.stages.iter().all(|stage| stage.artifact().is_none()) {
        let hint = format!("run the pipeline first: `{}`", project.run_command(None));
        return Err(Error::input("no stage has run").hint(hint));
    }
    let path = match &args.output {
        Some(path) => path.clone(),
        None => default_path(&project, terminal),
    };
    write(&project, &plan, &path).map_err(|error| match args.output {
        None if error.is_denied() => error.hint("name a file that can be written with `--output FILE`"),
        _ => error,
    })?;
    terminal.output(&format!("{}\n", path.display()))?;
    Ok(0)
}

/// `reports/NAME.html` in the folder of results. Where that is the report of another manifest of the same name, which is
/// still there, `reports/NAME-DIGEST.html` by the manifest's place; says so.
fn default_path(project: &Project, terminal: &Terminal) -> PathBuf {
    let name = &project.loaded.manifest.name;
    let reports = project.store.root().join("reports");
    let path = reports.join(format!("{name}.html"));
    let own = project.store.place(&project.loaded.path);
    let root = project.store.project();
    let other = owner(&path).filter(|other| *other != own && root.join(other).is_file());
    let Some(other) = other else { return path };
    let digest = Digest::of(own.as_bytes()).short();
    let path = reports.join(format!("{name}-{digest}.html"));
    terminal.warn(&format!(
        "{} is the report of `{}`, which has the same name; that of `{}` goes to {}",
        shown(&reports.join(format!("{name}.html"))),
        shown(&root.join(other)),
        project.loaded.path.display(),
        shown(&path)
    ));
    path
}

/// The beginning of a report, which names its pipeline; it ends with a quote and a bracket.
const OWNER: &str = "<meta name=\"mdlm-manifest\" content=\"";

/// The manifest whose report lies in a file, if it says so.
fn owner(path: &Path) -> Option<String> {
    let mut head = Vec::new();
    fs::File::open(path)
        .ok()?
        .take(1 << 16)
        .read_to_end(&mut head)
        .ok()?;
    let head = String::from_utf8_lossy(&head);
    let (owner, _) = head.split_once(OWNER)?.1.split_once("\">")?;
    Some(
        owner
            .replace("&quot;", "\"")
            .replace("&lt;", "<")
            .replace("&amp;", "&"),
    )
}

/// A page that says whose report it is.
fn owned(page: &str, project: &Project) -> String {
    let own = project
        .store
        .place(&project.loaded.path)
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('"', "&quot;");
    page.replacen("<head>", &format!("<head>{OWNER}{own}\">"), 1)
}

/// Writes the report of a plan as it stands.
fn write(project: &Project, plan: &Plan, path: &Path) -> Result<()> {
    let stages: Vec<Stage<'_>> = plan
        .stages
        .iter()
        .map(|stage| Stage {
            name: &stage.name,
            written: project.loaded.sweeps.written(&stage.name),
            kind: stage.kind(),
            inputs: stage.inputs.iter().map(|input| input.index).collect(),
            done: match &stage.decision {
                Decision::Cached(record) => Some((&**record, project.store.artifact_path(&record.artifact))),
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => None,
            },
            figures: match &stage.decision {
                Decision::Cached(record) => stage.figures(record),
                Decision::Away(_) | Decision::Fetch(_) | Decision::Run { .. } => vec![],
            },
        })
        .collect();
    let manifest = &project.loaded.manifest;
    let page = report::html(&manifest.name, manifest.description.as_deref(), &stages)?;
    let page = owned(&page, project);
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
/// The errors of [`run`].
pub(super) fn after_run(project: &Project, plan: &Plan, terminal: &Terminal) -> Result<PathBuf> {
    let path = default_path(project, terminal);
    write(project, plan, &path)?;
    Ok(path)
}
