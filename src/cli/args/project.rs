//! A manifest and where its results lie.

use std::path::PathBuf;

use super::{environment, manifest};
use crate::cli::render::terminal::Terminal;
use crate::cli::render::words::in_shell;
use mdlm::error::Result;
use mdlm::manifest::Loaded;
use mdlm::manifest::reading::is_open_file;
use mdlm::plan::{Plan, Selection, Sources};
use mdlm::remote::Remote;
use mdlm::store::Store;

/// The manifest and where its results lie.
#[derive(Clone, Debug, clap::Args)]
pub struct ProjectArgs {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Set a field for this run: stages.model.steps=200
    ///
    /// PATH=VALUE: names joined by points, and a value that is JSON or else text; `null` removes the field, so that its
    /// default applies. It is checked like the manifest itself, and recorded with the results.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Folder of results, instead of `.mdlm` beside the project
    ///
    /// Default: `.mdlm` in the nearest folder above the manifest that has one; else beside the manifest, or beside its
    /// folder if that is called `pipelines`. Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// A manifest with its store.
pub struct Project {
    /// The manifest.
    pub loaded: Loaded,
    /// The store.
    pub store: Store,
    /// The folder of results that the command line names.
    stated_store: Option<PathBuf>,
}

impl ProjectArgs {
    /// Reads the manifest, and finds its store.
    ///
    /// # Errors
    /// The exit code, the manifest's faults having been printed.
    pub fn open(&self, terminal: &Terminal) -> Result<Project, u8> {
        let loaded = manifest::load(&self.manifest, &self.set, terminal)?;
        let stated = environment::store(self.store.as_ref()).map_err(|error| {
            terminal.error(&format!("failed to {error}"), error.hint_text());
            error.kind().exit_code()
        })?;
        let root = stated.unwrap_or_else(|| {
            if is_open_file(&loaded.path.to_string_lossy()) {
                let here = std::env::current_dir().unwrap_or_default();
                return Store::locate(&here.join(&loaded.manifest.name));
            }
            Store::locate(&loaded.path)
        });
        Ok(Project {
            loaded,
            store: Store::at(root),
            stated_store: self.store.clone(),
        })
    }
}

impl Project {
    /// The command that runs the manifest as this command reads it, with the same overrides and store: all of it, or a
    /// stage and what it needs.
    #[must_use]
    pub fn run_command(&self, target: Option<&str>) -> String {
        let mut words = vec![
            "mdlm run".to_owned(),
            in_shell(&self.loaded.path.display().to_string()),
        ];
        for argument in &self.loaded.overrides {
            words.extend(["--set".to_owned(), in_shell(argument)]);
        }
        if let Some(store) = &self.stated_store {
            words.extend(["--store".to_owned(), in_shell(&store.display().to_string())]);
        }
        if let Some(target) = target {
            words.extend(["--target".to_owned(), in_shell(target)]);
        }
        words.join(" ")
    }

    /// The plan of the whole manifest or of a selection, for commands that show results: for missing data files it uses
    /// the digests of the last run.
    ///
    /// # Errors
    /// The errors of [`Plan::new`].
    pub fn plan(&self, selection: &Selection) -> Result<Plan> {
        let selection = Selection {
            allow_missing: true,
            ..selection.clone()
        };
        self.plan_with(&selection, &self.sources(None))
    }

    /// Where a plan of the manifest looks for results: this project's store, and the remote.
    #[must_use]
    pub fn sources<'a>(&'a self, remote: Option<&'a Remote>) -> Sources<'a> {
        Sources::new(&self.loaded.manifest, &self.store, remote)
    }

    /// The plan of the whole manifest or of a selection, from [`Project::sources`].
    ///
    /// # Errors
    /// The errors of [`Plan::new`].
    pub fn plan_with(&self, selection: &Selection, sources: &Sources) -> Result<Plan> {
        let Loaded { manifest, sweeps, .. } = &self.loaded;
        // A swept stage stands for all its instances.
        let selection = Selection {
            targets: sweeps.spelt_out(&selection.targets),
            force: sweeps.spelt_out(&selection.force),
            allow_missing: selection.allow_missing,
            piped: selection.piped.clone(),
            manifest: (!is_open_file(&self.loaded.path.to_string_lossy())).then(|| self.loaded.path.clone()),
        };
        Plan::new(manifest, self.loaded.base(), &selection, sources)
    }
}
