//! What to run, and the cache that machines share.

use super::compute::ComputeArgs;
use mdlm::error::Result;
use mdlm::plan::Selection;
use mdlm::remote::Remote;

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
