//! What the commands on a manifest have in common: their arguments, the manifest, its store.

use std::path::{Path, PathBuf};

use clap::ValueEnum;

use super::{Terminal, stated, validate};
use crate::error::{Error, Result};
use crate::event::{Cancel, Event};
use crate::executor;
use crate::manifest::Loaded;
use crate::manifest::source::is_open_file;
use crate::model::GpuLock;
use crate::plan::{Plan, Selection, Sources};
use crate::remote::Remote;
use crate::stages::{Choice, Device};
use crate::store::Store;

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

/// What to run, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ExecutionArgs {
    /// Run this stage and what it needs, nothing else; repeatable
    ///
    /// A swept stage stands for all its instances; one of them has a name such as `model@seed=1`.
    #[arg(long, value_name = "STAGE")]
    pub target: Vec<String>,
    /// Run this stage even if it is cached; repeatable
    ///
    /// Its consumers rerun only if its output differs from before.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Treat a stage as done if only its record is here, not its files
    ///
    /// Without it, missing files of final stages are made or fetched. With it they are not, and for missing data files
    /// the digests of the last run are used: a checkout of manifests and records alone can be planned.
    #[arg(long)]
    pub allow_missing: bool,
    /// A cache that machines share.
    #[command(flatten)]
    pub remote: RemoteArgs,
    /// Where and how to compute.
    #[command(flatten)]
    pub compute: ComputeArgs,
}

/// A cache that machines share.
#[derive(Clone, Debug, clap::Args)]
pub struct RemoteArgs {
    /// Shared cache: s3://, gs://, az:// or file://
    ///
    /// `s3://BUCKET/folder`, `gs://…`, `az://…` or `file:///folder`. Its results are fetched instead of made, and checked
    /// by their digests; new results are uploaded. Environment variable: MDLM_REMOTE.
    #[arg(long, value_name = "URL")]
    pub remote: Option<String>,
    /// Upload nothing to the shared cache
    ///
    /// Environment variable: MDLM_REMOTE_READ_ONLY=1.
    #[arg(long)]
    pub remote_read_only: bool,
}

impl RemoteArgs {
    /// The remote, if one is named.
    ///
    /// # Errors
    /// The errors of [`Remote::open`].
    pub fn open(&self) -> Result<Option<Remote>> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = self.remote.clone().or_else(|| variable("MDLM_REMOTE")) else {
            return Ok(None);
        };
        let no = |value: String| matches!(&*value.to_lowercase(), "0" | "false" | "no");
        let read_only =
            self.remote_read_only || variable("MDLM_REMOTE_READ_ONLY").is_some_and(|value| !no(value));
        Ok(Some(Remote::open(&url, read_only)?))
    }
}

/// Where and how to compute, neither of which changes what is made.
#[derive(Clone, Debug, clap::Args)]
pub struct ComputeArgs {
    /// Threads; default: all processors
    ///
    /// Their number changes the time, never the result. Environment variable: MDLM_THREADS.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: auto, cpu or cuda
    ///
    /// auto, the default, uses a GPU if one can be used, else the CPU; `mdlm doctor` shows which. CUDA_VISIBLE_DEVICES
    /// selects one of several GPUs. Environment variable: MDLM_DEVICE.
    #[arg(long, value_name = "DEVICE", hide_possible_values = true)]
    pub device: Option<DeviceChoice>,
}

/// Where to compute, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The GPU if there is one that can be used, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU.
    #[value(alias = "gpu")]
    Cuda,
    /// dfdx's own CUDA device.
    #[cfg(feature = "dfdx-cuda")]
    DfdxCuda,
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

/// An argument as it is typed in a shell: in quotes if a character has a meaning there.
#[must_use]
pub fn in_shell(argument: &str) -> String {
    let plain = argument
        .chars()
        .all(|c| c.is_alphanumeric() || matches!(c, '.' | '_' | '-' | '/' | ':' | '+' | ',' | '=' | '@'));
    if plain && !argument.is_empty() {
        argument.to_owned()
    } else {
        format!("'{}'", argument.replace('\'', r"'\''"))
    }
}

/// A path as a person here would type it: relative where it lies below the current folder.
#[must_use]
pub fn shown(path: &Path) -> String {
    let here = std::env::current_dir().and_then(std::fs::canonicalize).ok();
    let below = here.as_ref().and_then(|here| path.strip_prefix(here).ok());
    below.unwrap_or(path).display().to_string()
}

impl ProjectArgs {
    /// Reads the manifest, and finds its store.
    ///
    /// # Errors
    /// The exit code, the manifest's faults having been printed.
    pub fn open(&self, terminal: &Terminal) -> Result<Project, u8> {
        let loaded = validate::load(&self.manifest, &self.set, terminal)?;
        let stated = stated::store(self.store.as_ref()).map_err(|error| {
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

impl ExecutionArgs {
    /// What is to run.
    #[must_use]
    pub fn selection(&self) -> Selection {
        Selection {
            targets: self.target.clone(),
            force: self.force.clone(),
            allow_missing: self.allow_missing,
            piped: vec![],
            manifest: None,
        }
    }
}

impl ComputeArgs {
    /// The number of threads.
    ///
    /// # Errors
    /// MDLM_THREADS is not a number of threads.
    pub fn threads(&self) -> Result<usize> {
        stated::threads(self.threads)
    }

    /// A pool of that many threads.
    ///
    /// # Errors
    /// The system gives no threads, or the environment states no number of them.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        executor::pool(self.threads()?)
    }

    /// Where to compute, as asked for: by the command line, else by the environment.
    ///
    /// # Errors
    /// The errors of [`DeviceChoice::or_stated`].
    pub fn device(&self) -> Result<Choice> {
        DeviceChoice::or_stated(self.device)
    }
}

impl DeviceChoice {
    /// What the command line asks for, else the environment, else `auto`.
    ///
    /// # Errors
    /// MDLM_DEVICE is not a device.
    pub fn or_stated(asked: Option<Self>) -> Result<Choice> {
        if let Some(asked) = asked {
            return Ok(asked.choice());
        }
        let Some(stated) = stated::variable("MDLM_DEVICE") else {
            return Ok(Choice::Auto);
        };
        Self::from_str(&stated, false).map(Self::choice).map_err(|_| {
            let names: Vec<_> = Self::value_variants()
                .iter()
                .filter_map(ValueEnum::to_possible_value)
                .map(|value| value.get_name().to_owned())
                .collect();
            Error::input(format!("read MDLM_DEVICE: `{stated}` is not a device"))
                .hint(format!("set it to one of {}, or unset it", names.join(", ")))
        })
    }

    fn choice(self) -> Choice {
        match self {
            Self::Auto => Choice::Auto,
            Self::Cpu => Choice::On(Device::Cpu),
            Self::Cuda => Choice::On(Device::Cuda),
            #[cfg(feature = "dfdx-cuda")]
            Self::DfdxCuda => Choice::On(Device::DfdxCuda),
        }
    }
}

/// The device of a command that computes at once, and the GPU lock. Prints the device, and the process it waits for.
///
/// # Errors
/// The GPU that was asked for cannot be used, or the interruption.
pub fn compute_on(choice: Choice, cancel: &Cancel, terminal: &Terminal) -> Result<(Device, Option<GpuLock>)> {
    let (device, event) = choice.resolve()?;
    let print = |event| match event {
        Some(Event::Warning(text)) => terminal.warn(&text),
        Some(Event::Note(text)) => terminal.say(&text),
        _ => {}
    };
    print(event);
    let mut is_reported = false;
    let lock = device.lock(&mut |why| {
        cancel.check()?;
        if !is_reported {
            is_reported = true;
            terminal.say(why);
        }
        Ok(())
    })?;
    let (device, event) = choice.trusted(device)?;
    print(event);
    Ok((device, lock.filter(|_| device.is_gpu())))
}
