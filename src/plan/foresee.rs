//! What would go wrong later: files that were brought by hand and are other ones, tokenizers whose files are damaged or that
//! no network has room for.

use std::collections::HashMap;
use std::path::Path;

use super::{Decision, Plan, PlannedStage};
use crate::data::fetch;
use crate::error::{Context as _, Result};
use crate::event::Cancel;
use crate::manifest::Stage;
use crate::shapes::SHAPES;
use crate::stages;
use crate::stages::tokenize::{self, Room};
use crate::store::Store;
use crate::store::stat::ChecksumCache;

impl Plan {
    /// The smallest network that is to learn the tokens of a stage, or tokens made with its tokenizer.
    #[must_use]
    pub fn room(&self, index: usize) -> Option<Room> {
        let stage = self.stages.get(index)?;
        if !matches!(stage.stage, Stage::Tokenize(_)) {
            return None;
        }
        let learning = (0..self.stages.len())
            .filter(|&train| self.tokenizers(train).contains(&index))
            .filter_map(|train| self.room_of(train));
        learning.min_by_key(|room| room.vocabulary)
    }

    /// The files that a stage which is to run has to download.
    #[must_use]
    pub fn downloads(&self, index: usize, store: &Store) -> Option<Needed> {
        let stage = self.stages.get(index)?;
        if !matches!(stage.decision, Decision::Run { .. }) {
            return None;
        }
        let (files, bytes) = stages::downloads(&stage.stage);
        let folder = store.downloads_path();
        let missing: Vec<String> = files
            .iter()
            .filter(|file| fetch::is_missing(file, &folder))
            .map(|file| fetch::shown(&file.url))
            .collect();
        if missing.is_empty() {
            return None;
        }
        // Of a series of which some are here, the size of the rest is not known.
        let bytes = bytes.filter(|_| missing.len() == files.len());
        Some(Needed { urls: missing, bytes })
    }

    /// The network of a train or checkpoint stage that is to run, as far as its vocabulary goes.
    fn room_of(&self, index: usize) -> Option<Room> {
        let stage = &self.stages[index];
        let shape = match (&stage.stage, &stage.decision) {
            (Stage::Train(config), Decision::Run { .. }) => &config.shape,
            (Stage::Checkpoint(config), Decision::Run { .. }) => &config.shape,
            _ => return None,
        };
        let shape = SHAPES.find(shape)?;
        Some(Room {
            stage: stage.name.clone(),
            shape: shape.name,
            vocabulary: shape.vocabulary,
        })
    }

    /// The tokenize stages from which a train or checkpoint stage has its tokenizer: the one whose tokens it learns, and those
    /// whose tokenizer that one takes.
    fn tokenizers(&self, train: usize) -> Vec<usize> {
        let consumed = |stage: &PlannedStage, role: &str| {
            let input = stage.inputs.iter().find(|input| input.role == role)?;
            Some(input.index)
        };
        let stage = &self.stages[train];
        let tokens = match stage.stage {
            Stage::Train(_) => consumed(stage, "from").and_then(|rows| consumed(&self.stages[rows], "from")),
            Stage::Checkpoint(_) => consumed(stage, "tokenizer"),
            _ => None,
        };
        std::iter::successors(tokens, |&index| consumed(&self.stages[index], "tokenizer/stage")).collect()
    }

    /// Fails if the files of a tokenizer that are here are not a tokenizer, if one whose size is known is larger than the
    /// network that is to learn its tokens, and where a file that was brought by hand is another one than the published:
    /// also where the results of both are known.
    ///
    /// # Errors
    /// A vocabulary does not fit its shape; a file to be supplied by hand is absent and its stage runs.
    pub(super) fn foresee(&self, store: &Store) -> Result<()> {
        self.check_by_hand(store)?;
        self.check_vocabularies(store)
    }

    fn check_by_hand(&self, store: &Store) -> Result<()> {
        let known = ChecksumCache::open(store.known_checksums_path());
        let cancel = Cancel::default();
        let compute = |path: &Path| {
            let bytes = std::fs::metadata(path)
                .context(|| format!("read `{}`", path.display()))?
                .len();
            Ok((bytes, fetch::sha256_of(path, &cancel)?.parse()?))
        };
        let sha256 = |path: &Path| Ok(known.hash_with(path, &compute)?.1.to_string());
        for stage in &self.stages {
            let runs = matches!(stage.decision, Decision::Run { .. });
            if runs || stages::is_by_hand_here(&stage.stage, &self.base) {
                stages::check_by_hand(&stage.stage, &self.base, &sha256)
                    .context(|| format!("stage `{}`", stage.name))?;
            }
        }
        known.save();
        Ok(())
    }

    fn check_vocabularies(&self, store: &Store) -> Result<()> {
        let mut sizes: HashMap<usize, u32> = HashMap::new();
        for (index, stage) in self.stages.iter().enumerate() {
            if let Some(size) = self
                .vocabulary(index, store)
                .context(|| format!("stage `{}`", stage.name))?
            {
                sizes.insert(index, size);
            }
        }
        for train in 0..self.stages.len() {
            let Some(room) = self.room_of(train) else {
                continue;
            };
            let tokenizers = self.tokenizers(train);
            let size = tokenizers.iter().find_map(|index| sizes.get(index));
            if let (Some(&size), Some(&tokens)) = (size, tokenizers.last()) {
                room.takes(size)
                    .context(|| format!("stage `{}`", self.stages[tokens].name))?;
            }
        }
        Ok(())
    }

    /// The size of a stage's tokenizer: as its record says, else as the files say that are here. Those of a stage that runs
    /// are read for it.
    ///
    /// # Errors
    /// The errors of [`tokenize::vocabulary`].
    fn vocabulary(&self, index: usize, store: &Store) -> Result<Option<u32>> {
        let stage = &self.stages[index];
        let Stage::Tokenize(config) = &stage.stage else {
            return Ok(None);
        };
        if let Some(record) = stage.record() {
            let size = record.figures.get(tokenize::VOCABULARY);
            return Ok(size.and_then(|size| size.parse().ok()));
        }
        tokenize::vocabulary(&config.tokenizer, &self.base, &store.downloads_path())
    }
}

/// Files that a run has to download.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Needed {
    /// Where they are; globs as they are written.
    pub urls: Vec<String>,
    /// Their size, where it is known beforehand.
    pub bytes: Option<u64>,
}
