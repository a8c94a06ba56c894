//! What the commands on a manifest have in common: their arguments, the manifest, its store.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::{Terminal, validate};
use crate::error::{Error, Result};
use crate::executor;
use crate::manifest::Loaded;
use crate::plan::{Plan, Selection};
use crate::remote::Remote;
use crate::stages::Device;
use crate::store::Store;

/// The manifest and where its results lie.
#[derive(Clone, Debug, clap::Args)]
pub struct ProjectArgs {
    /// The manifest
    #[arg(value_name = "MANIFEST")]
    pub manifest: PathBuf,
    /// Set a field for this time: stages.model.steps=200
    ///
    /// PATH=VALUE: names joined by points, and a value that is JSON or else text; `null` takes a field away, so that
    /// its default holds. Checked like the manifest itself, and recorded with what is made.
    #[arg(long, value_name = "PATH=VALUE")]
    pub set: Vec<String>,
    /// Folder of results, instead of `.mdlm` beside the project
    ///
    /// Unless told otherwise, results are kept in `.mdlm` in the nearest folder above the manifest that has one; else
    /// beside the manifest, or beside its folder when that is called `pipelines`.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// What to run, and where.
#[derive(Clone, Debug, clap::Args)]
pub struct ExecutionArgs {
    /// Run this stage and what it needs, nothing else; repeatable
    ///
    /// A swept stage stands for all its instances; one of them has a name of its own, such as `model@seed=1`.
    #[arg(long, value_name = "STAGE")]
    pub target: Vec<String>,
    /// Run this stage even if it is cached; repeatable
    ///
    /// Its consumers rerun only if it makes something else than before.
    #[arg(long, value_name = "STAGE")]
    pub force: Vec<String>,
    /// Take what is known by its record alone for made
    ///
    /// Without it, the files of stages that nothing consumes are made or fetched where they are missing. With it they
    /// are not, and of data files that are missing the digests of the last run are believed: a checkout of nothing but
    /// manifests and records can be planned.
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
    /// Cache that machines share: s3://, gs://, az:// or file://
    ///
    /// `s3://BUCKET/folder`, `gs://…`, `az://…` or `file:///folder`. What is there is fetched instead of made, checked by
    /// its digests; what is made is put there. Stated by the environment too: MDLM_REMOTE.
    #[arg(long, value_name = "URL")]
    pub remote: Option<String>,
    /// Put nothing into the remote cache
    ///
    /// Stated by the environment too: MDLM_REMOTE_READ_ONLY=1.
    #[arg(long)]
    pub remote_read_only: bool,
}

impl RemoteArgs {
    /// The remote, if one is named.
    ///
    /// # Errors
    /// As [`Remote::open`].
    pub fn open(&self) -> Result<Option<Arc<Remote>>> {
        let variable = |name| std::env::var(name).ok().filter(|value| !value.is_empty());
        let Some(url) = self.remote.clone().or_else(|| variable("MDLM_REMOTE")) else {
            return Ok(None);
        };
        let no = |value: String| matches!(&*value.to_lowercase(), "0" | "false" | "no");
        let read_only =
            self.remote_read_only || variable("MDLM_REMOTE_READ_ONLY").is_some_and(|value| !no(value));
        Ok(Some(Arc::new(Remote::open(&url, read_only)?)))
    }
}

/// Where and how to compute, neither of which changes what is made.
#[derive(Clone, Debug, clap::Args)]
pub struct ComputeArgs {
    /// Threads; all processors unless told otherwise
    ///
    /// Their number changes the time that it takes, never what is made.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub threads: Option<u16>,
    /// Where to compute: auto, cpu or cuda
    ///
    /// auto takes the GPU if this mdlm was built for it, else the CPU.
    #[arg(
        long,
        value_name = "DEVICE",
        default_value = "auto",
        hide_possible_values = true,
        hide_default_value = true
    )]
    pub device: DeviceChoice,
}

/// Where to compute, as asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum DeviceChoice {
    /// The GPU if this program was built for it, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU.
    Cuda,
}

/// A manifest with its store.
pub struct Project {
    /// The manifest.
    pub loaded: Loaded,
    /// The store.
    pub store: Store,
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
    /// The exit code, the manifest's faults having been told.
    pub fn open(&self, terminal: &Terminal) -> Result<Project, u8> {
        let loaded = validate::load(&self.manifest, &self.set, terminal)?;
        let root = self.store.clone().unwrap_or_else(|| Store::locate(&loaded.path));
        Ok(Project {
            loaded,
            store: Store::at(root),
        })
    }
}

impl Project {
    /// The plan of the whole manifest or of a selection.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn plan(&self, selection: &Selection) -> Result<Plan> {
        self.plan_with(selection, None)
    }

    /// The plan of the whole manifest or of a selection, with a remote.
    ///
    /// # Errors
    /// As [`Plan::with_remote`].
    pub fn plan_with(&self, selection: &Selection, remote: Option<Arc<Remote>>) -> Result<Plan> {
        let Loaded { manifest, sweeps, .. } = &self.loaded;
        // A swept stage stands for all its instances.
        let selection = Selection {
            targets: sweeps.spelt_out(&selection.targets),
            force: sweeps.spelt_out(&selection.force),
            ..*selection
        };
        Plan::with_remote(manifest, self.loaded.base(), &selection, &self.store, remote)
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
        }
    }
}

impl ComputeArgs {
    /// The number of threads.
    #[must_use]
    pub fn threads(&self) -> usize {
        self.threads.map_or_else(
            || std::thread::available_parallelism().map_or(1, usize::from),
            usize::from,
        )
    }

    /// A pool of that many threads.
    ///
    /// # Errors
    /// The system gives no threads.
    pub fn pool(&self) -> Result<rayon::ThreadPool> {
        executor::pool(self.threads())
    }

    /// The device to compute on.
    ///
    /// # Errors
    /// As [`DeviceChoice::resolve`].
    pub fn device(&self) -> Result<Device> {
        self.device.resolve()
    }
}

impl DeviceChoice {
    /// The device to compute on.
    ///
    /// # Errors
    /// An environment error when this program was built without it.
    pub fn resolve(self) -> Result<Device> {
        let has_cuda = cfg!(feature = "dfdx-cuda");
        match self {
            Self::Cuda if !has_cuda => Err(Error::environment(
                "use `--device cuda`: this mdlm was built without it",
            )
            .hint(
                "build it with `cargo build --release --features dfdx-cuda` (needs the CUDA toolkit), or use \
                 `--device cpu`",
            )),
            Self::Cuda => Ok(Device::Cuda),
            Self::Auto if has_cuda => Ok(Device::Cuda),
            Self::Auto | Self::Cpu => Ok(Device::Cpu),
        }
    }
}
