//! What ranks do that are not the first: they wait for trainings, and take part in them.
//!
//! The first rank runs the pipeline. When a training begins, it sends the others what they need to take part: the stage's
//! settings, its seed, the folders of its inputs, which all ranks must see under the same paths, and which build of this
//! program it is. Another build could compute other bits, and is refused.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{ReadyTraining, Sharing};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::event::Cancel;
use crate::manifest::Train;
use crate::model::Device;
use crate::ranks::Communicator;
use crate::stages::Context;
use crate::train::{CheckpointManager, Trainer, checkpoint};

/// A training, as the first rank sends it.
#[derive(Debug, Serialize, Deserialize)]
struct SharedTraining {
    build: String,
    stage: String,
    settings: Train,
    seed: u64,
    from: PathBuf,
    init: Option<PathBuf>,
}

/// Which program this is: its version, its revision and the digest of its file, where they are known.
fn build() -> String {
    let file = std::env::current_exe().and_then(|path| {
        let mut hasher = blake3::Hasher::new();
        hasher.update_mmap_rayon(path)?;
        Ok(hasher.finalize().to_hex()[..16].to_owned())
    });
    let revision = option_env!("MDLM_GIT_REVISION").unwrap_or("no revision");
    let file = file.unwrap_or_default();
    format!("{} ({revision}) {file}", env!("CARGO_PKG_VERSION"))
        .trim_end()
        .to_owned()
}

/// Has the other ranks take part in a training that learns the rows in the folder `from`, and begins with the model in the
/// folder `init`.
///
/// # Errors
/// Another rank has failed, or has gone.
pub(super) fn call(
    config: &Train,
    context: &Context<'_>,
    (from, init): (&Path, Option<&Path>),
) -> Result<()> {
    let job = SharedTraining {
        build: build(),
        stage: context.name.to_owned(),
        settings: config.clone(),
        seed: context.seed,
        from: from.to_owned(),
        init: init.map(Path::to_owned),
    };
    let text = serde_json::to_vec(&job).wrap(Kind::Internal, || "describe a training".to_owned())?;
    context.ranks.broadcast(&mut { text })
}

/// Lets the other ranks go: there are no more trainings.
///
/// # Errors
/// Another rank has failed, or has gone.
pub fn dismiss(ranks: &dyn Communicator) -> Result<()> {
    if ranks.rank().world == 1 {
        return Ok(());
    }
    ranks.broadcast(&mut Vec::new())
}

/// Takes part in trainings until the first rank lets this one go.
///
/// # Errors
/// Whatever this rank alone fails with: the others then have to be ended ([`Communicator::abandon`]). Another rank has failed,
/// or has gone.
pub fn serve(ranks: &Arc<dyn Communicator>, device: Device, cancel: &Cancel) -> Result<()> {
    loop {
        let mut text = Vec::new();
        ranks.broadcast(&mut text)?;
        if text.is_empty() {
            return Ok(());
        }
        let job: SharedTraining =
            serde_json::from_slice(&text).map_err(|_| other_build("which sends other messages"))?;
        if job.build != build() {
            return Err(other_build(&job.build));
        }
        let rank = ranks.rank().rank;
        take_part(&job, ranks, device, cancel).context(|| format!("train `{}` on rank {rank}", job.stage))?;
    }
}

fn other_build(first: &str) -> Error {
    Error::environment(format!(
        "rank 0 runs another build of mdlm, {first}; this one is {}",
        build()
    ))
    .hint("start the same file on every machine")
}

fn take_part(
    job: &SharedTraining,
    ranks: &Arc<dyn Communicator>,
    device: Device,
    cancel: &Cancel,
) -> Result<()> {
    let sharing = Sharing {
        ranks: ranks.clone(),
        grains: job.settings.grains,
    };
    let inputs = (&*job.from, job.init.as_deref());
    let mut ready =
        ReadyTraining::new(&job.settings, job.seed, device, inputs, &sharing).map_err(|error| {
            error.or_hint(
                "all ranks read the store under the same path: it has to be shared between their machines",
            )
        })?;
    let settings = super::share(
        &job.settings,
        job.seed,
        &*ready.objective,
        &mut *ready.learner,
        &sharing,
    )?;
    let trainer = Trainer {
        rows: &ready.rows,
        objective: &*ready.objective,
        config: settings,
        checkpoints: &CheckpointManager::default(),
        sharing,
        cancel,
    };
    if trainer.follow(&mut *ready.learner)? {
        // The first rank writes the artifact.
        checkpoint::lend(&*ready.learner)?;
    }
    Ok(())
}
