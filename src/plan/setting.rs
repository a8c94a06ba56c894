//! What a stage's result comes from, but for seeds: its settings, those of all stages behind it, and the files that they
//! read.
//!
//! Names do not count: two trainings written by hand under two names, which differ in `seed` alone, have one setting.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use super::Plan;
use crate::manifest::instance::written;
use crate::manifest::{Compared, Point};
use crate::stages::replicates::{Setting, StageSeed, replicates};
use crate::store::Digest;

impl Plan {
    /// The settings of stages, by their places.
    #[must_use]
    pub fn settings(&self, of: impl IntoIterator<Item = usize>) -> Vec<Setting> {
        let mut known = HashMap::new();
        of.into_iter()
            .map(|index| self.setting(index, &mut known))
            .collect()
    }

    fn setting(&self, index: usize, known: &mut HashMap<usize, Setting>) -> Setting {
        if let Some(setting) = known.get(&index) {
            return setting.clone();
        }
        let stage = &self.stages[index];
        let mut seeds = Vec::new();
        seeds.extend(stage.parts.seed.map(|seed| StageSeed {
            path: String::new(),
            stage: written(&stage.name).to_owned(),
            kind: stage.kind(),
            seed,
        }));
        let mut inputs = Map::new();
        for input in &stage.inputs {
            let other = self.setting(input.index, known);
            inputs.insert(input.role.to_owned(), json!(other.digest.to_string()));
            let role = input.role.replace('/', ".");
            seeds.extend(other.seeds.into_iter().map(|drawn| StageSeed {
                path: match &*drawn.path {
                    "" => role.clone(),
                    path => format!("{role}.{path}"),
                },
                ..drawn
            }));
        }
        let files = stage.files.iter();
        let files: Vec<Value> = files
            .map(|file| json!([file.field, file.digest.to_string()]))
            .collect();
        // The settings are in the key's form: canonical, without names, seeds, and what changes no result.
        let all = json!([stage.kind().name(), stage.parts.config, inputs, files]);
        let setting = Setting {
            digest: Digest::of(all.to_string().as_bytes()),
            seeds,
        };
        known.insert(index, setting.clone());
        setting
    }

    /// Fills in which of some results differ in seeds alone, and what is known of their models: of those that are planned.
    pub fn describe(&self, results: &mut [Compared]) {
        let stages = self.stages.iter().enumerate();
        let places: HashMap<&str, usize> = stages.map(|(place, stage)| (&*stage.name, place)).collect();
        // A stage that is not there is a fault of the manifest, found elsewhere, or is left out of the plan.
        let planned: Vec<(usize, usize)> = results
            .iter()
            .enumerate()
            .filter_map(|(result, of)| Some((result, *places.get(&*of.stage)?)))
            .collect();
        let settings = self.settings(planned.iter().map(|(_, stage)| *stage));
        let points: Vec<&Point> = planned
            .iter()
            .map(|(result, _)| &results[*result].point)
            .collect();
        let rows: Vec<_> = points.into_iter().zip(&settings).collect();
        let found = replicates(&rows).unwrap_or_default();
        for ((result, _), replicate) in planned.iter().zip(found) {
            results[*result].setting = Some(replicate.setting);
            results[*result].seeds = replicate.seeds;
        }
        for (result, stage) in planned {
            results[result].facts = self.facts(stage);
        }
    }
}
