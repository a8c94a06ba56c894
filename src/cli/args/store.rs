//! What the commands on a store have in common: which store, and what of it manifests reach.

use std::path::PathBuf;

use super::{environment, manifest};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context as _, Error, Result};
use mdlm::manifest::Manifest;
use mdlm::plan::{Decision, Plan, Selection, Sources};
use mdlm::store::Store;
use mdlm::store::gc::Keep;

/// A store, by manifests of its project or by its folder.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArgs {
    /// Manifests of the project; default: the project of this folder
    #[arg(value_name = "MANIFEST")]
    pub manifests: Vec<PathBuf>,
    /// Folder of results, instead of `.mdlm` of the project
    ///
    /// Environment variable: MDLM_STORE.
    #[arg(long, value_name = "DIR")]
    pub store: Option<PathBuf>,
}

/// A manifest and the state of its stages.
pub struct Reached {
    /// The manifest.
    pub manifest: Manifest,
    /// Its plan.
    pub plan: Plan,
}

impl StoreArgs {
    /// The store, which is there.
    ///
    /// # Errors
    /// There is no store, or the manifests have several stores.
    pub fn open(&self) -> Result<Store> {
        for manifest in &self.manifests {
            if !manifest.exists() {
                return Err(Error::input(format!("there is no `{}`", manifest.display()))
                    .hint("name a manifest of the project, or its store with `--store DIR`"));
            }
        }
        let mut roots: Vec<PathBuf> = match environment::store(self.store.as_ref())? {
            Some(store) => vec![store],
            None if self.manifests.is_empty() => vec![environment::store_here()],
            None => self
                .manifests
                .iter()
                .map(|manifest| Store::locate(manifest))
                .collect(),
        };
        roots.dedup();
        if let [one, other, ..] = roots.as_slice() {
            let message = format!(
                "the manifests have several stores: `{}`, `{}`",
                one.display(),
                other.display()
            );
            return Err(Error::input(message)
                .hint("name the manifests of one store at a time, or the store with `--store DIR`"));
        }
        let store = Store::at(roots.swap_remove(0));
        store.check()?;
        if !store.root().is_dir() {
            return Err(
                Error::input(format!("there is no store `{}`", store.root().display()))
                    .hint("name a manifest of the project, or its store with `--store DIR`"),
            );
        }
        Ok(store)
    }

    /// The manifests with their plans.
    ///
    /// # Errors
    /// A manifest cannot be planned: what it reaches is not known. The inner error is the exit code, the faults of a
    /// manifest having been printed.
    pub fn reached(&self, store: &Store, terminal: &Terminal) -> Result<Result<Vec<Reached>, u8>> {
        let mut reached = Vec::new();
        for path in &self.manifests {
            let loaded = match manifest::load(path, &[], terminal) {
                Ok(loaded) => loaded,
                Err(code) => return Ok(Err(code)),
            };
            // Files that are not here now may be again tomorrow: what they led to is reached.
            let selection = Selection {
                allow_missing: true,
                manifest: Some(path.clone()),
                ..Selection::default()
            };
            let sources = Sources::new(&loaded.manifest, store, None);
            let plan = Plan::new(&loaded.manifest, loaded.base(), &selection, &sources)
                .context(|| format!("plan `{}`", path.display()))?;
            reached.push(Reached {
                manifest: loaded.manifest,
                plan,
            });
        }
        Ok(Ok(reached))
    }
}

/// What of a store manifests reach: the results of their stages; of a stage that has yet to run, the state from which it
/// resumes and its last result.
#[must_use]
pub fn keep(reached: &[Reached], store: &Store) -> Keep {
    let mut keep = Keep::default();
    for Reached { plan, .. } in reached {
        for stage in &plan.stages {
            match (stage.record(), &stage.decision) {
                (Some(record), _) => {
                    keep.keys.insert(record.key.digest());
                    continue;
                }
                (None, Decision::Run { key: Some(key), .. }) => {
                    keep.keys.insert(key.digest());
                }
                // Its scratch is under a key that is not known yet.
                (None, _) => keep.scratch = true,
            }
            if let Some(record) = store.latest(&plan.pipeline, &stage.name) {
                keep.keys.insert(record.key.digest());
            }
        }
    }
    keep
}
