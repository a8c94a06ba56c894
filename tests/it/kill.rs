//! Kills at any moment: runs are killed at random points, over all stages, alone and two at a time, with and without a
//! remote cache. After every kill the files in the store are whole, and in the end the results are those of an
//! undisturbed run.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write as _};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use mdlm::store::digest::hash_file;
use mdlm::store::verify::{Depth, Pace, examine};
use mdlm::store::{Digest, Store};
use serde_json::Value;

use crate::support::{Project, untimed};

/// How often a run is killed; more with `MDLM_TEST_KILLS`.
const KILLS: usize = 200;
/// The longest that a run is left alone from its start, in microseconds: some do not come to their first stage.
const FROM_START: u64 = 60_000;
/// The longest that a stage is left alone: a quick one may end and the next one begin.
const IN_STAGE: u64 = 20_000;
/// The same for the training, which is not quick.
const IN_TRAINING: u64 = 100_000;
/// The pipeline's stages.
const STAGES: [&str; 6] = ["text", "tokens", "rows", "model", "bound", "texts"];
/// A short training.
const SETTING: [&str; 2] = ["--set", "stages.model.steps=12"];

/// Numbers that look random: a linear congruential generator with Knuth's constants (MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

fn start(project: &Project, remote: Option<&str>) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
    command
        .current_dir(project.path())
        .args(["run", "pipelines/tiny.json"])
        .args(SETTING)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    if let Some(url) = remote {
        command.args(["--remote", url]);
    }
    command.spawn().unwrap()
}

/// When a run is to be killed.
enum When {
    /// So long after its start.
    FromStart(Duration),
    /// So long after it has begun with so many stages; the second time is for a training.
    InStage(usize, Duration, Duration),
}

impl When {
    fn draw(dice: &mut Dice) -> Self {
        let mut below = |limit| Duration::from_micros(dice.below(limit));
        let (start, stage, training) = (below(FROM_START), below(IN_STAGE), below(IN_TRAINING));
        match dice.below(5) {
            0 => Self::FromStart(start),
            drawn => Self::InStage(1 + drawn as usize % 3, stage, training),
        }
    }
}

/// Kills a run when it is time, unless it has ended. Whether it was killed, and what it said.
fn kill(mut run: Child, when: &When) -> (bool, String) {
    let mut stderr = BufReader::new(run.stderr.take().unwrap());
    let mut talk = String::new();
    match when {
        When::FromStart(time) => std::thread::sleep(*time),
        When::InStage(begun, time, training) => {
            let (mut left, mut at) = (*begun, talk.len());
            while left > 0 && stderr.read_line(&mut talk).unwrap() > 0 {
                left -= usize::from(untimed(&talk[at..]).starts_with('['));
                if left > 0 {
                    at = talk.len();
                }
            }
            let in_training = talk[at..].contains("] model:");
            std::thread::sleep(if in_training { *training } else { *time });
        }
    }
    let ended = run.try_wait().unwrap();
    if ended.is_none() {
        run.kill().unwrap();
    }
    let status = run.wait().unwrap();
    stderr.read_to_string(&mut talk).unwrap();
    assert!(ended.is_none() || status.success(), "{status}: {talk}");
    (status.code().is_none(), talk)
}

/// The stage that was at work: the last one that was begun and not ended.
fn at_work(talk: &str) -> &str {
    let begun = talk.lines().rev().map(untimed).find(|line| line.starts_with('['));
    let Some(stage) = begun.and_then(|line| line.split_once("] ")?.1.split_once(':')) else {
        return "none";
    };
    let stage = stage.0;
    if talk
        .lines()
        .any(|line| untimed(line).starts_with(&format!("{stage}: done")))
    {
        "none"
    } else {
        stage
    }
}

/// Every artifact is what its name says, and every record's artifact is there.
fn check_store(store: &Store, after: &str) {
    let pace = Pace::new(None);
    for entry in fs::read_dir(store.root().join("artifacts")).into_iter().flatten() {
        let entry = entry.unwrap();
        let digest: Digest = entry.file_name().to_str().unwrap().parse().unwrap();
        let faults = examine(&entry.path(), &digest, None, Depth::Full, &pace).unwrap();
        assert_eq!(faults, [], "after: {after}");
    }
    for kind in ["source", "tokenize", "pack", "train", "evaluate", "sample"] {
        let folder = store.root().join("actions").join(kind);
        let names = fs::read_dir(folder).into_iter().flatten().count();
        let records = store.records(kind).unwrap();
        assert_eq!(records.len(), names, "every record is whole, after: {after}");
        for record in records {
            assert!(store.still_has(&record), "after: {after}");
        }
    }
}

/// Every file of the remote has the content that its name states, and every record its files.
fn check_remote(folder: &Path, after: &str) {
    let below = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).into_iter().flatten();
        entries.map(|entry| entry.unwrap().path()).collect()
    };
    for file in below(&folder.join("files"))
        .iter()
        .flat_map(|folder| below(folder))
    {
        let name = file.file_name().unwrap().to_str().unwrap();
        // What was on its way lies beside its place under another name.
        if name.contains('#') {
            continue;
        }
        assert_eq!(hash_file(&file).unwrap().1.to_string(), name, "after: {after}");
    }
    for record in below(&folder.join("actions"))
        .iter()
        .flat_map(|folder| below(folder))
    {
        if record.to_str().unwrap().contains('#') {
            continue;
        }
        let record: Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
        for file in record["files"].as_array().unwrap() {
            let digest = file["digest"].as_str().unwrap();
            assert!(
                folder.join("files").join(&digest[..2]).join(digest).is_file(),
                "after: {after}"
            );
        }
    }
}

#[test]
fn resume_after_kills_at_any_moment_gives_the_results_of_an_undisturbed_run() {
    let number = |variable: &str| std::env::var(variable).map(|text| text.parse::<u64>().expect("a number"));
    let kills = number("MDLM_TEST_KILLS").map_or(KILLS, |kills| kills as usize);
    let seed = number("MDLM_TEST_SEED").unwrap_or(u64::from(std::process::id()));
    // Past the capture of output: the seed is known however the test ends.
    writeln!(std::io::stderr(), "kills with MDLM_TEST_SEED={seed}").unwrap();
    let undisturbed = Project::artifacts(&Project::whole(60).run(&SETTING));
    let mut dice = Dice(seed);
    let mut hit: BTreeMap<String, usize> = BTreeMap::new();
    let (mut killed, mut whole) = (0, 0);
    let clock = Instant::now();
    let all_hit = |hit: &BTreeMap<String, usize>| STAGES.iter().all(|stage| hit.contains_key(*stage));
    // The quick stages are met rarely: on until each was.
    while killed < kills || whole == 0 || !all_hit(&hit) {
        let project = Project::whole(60);
        let shared = project.path().join("shared");
        let url = format!("file://{}", shared.display());
        let remote = (whole % 2 == 1).then_some(url.as_str());
        let store = Store::at(project.store());
        loop {
            let pair = dice.below(4) == 0;
            let runs: Vec<_> = (0..=usize::from(pair)).map(|_| start(&project, remote)).collect();
            let mut done = false;
            for run in runs {
                let (was_killed, talk) = kill(run, &When::draw(&mut dice));
                killed += usize::from(was_killed);
                done |= !was_killed;
                if was_killed {
                    *hit.entry(at_work(&talk).to_owned()).or_default() += 1;
                }
                // The other one may be at work: what is in place is whole at any time.
                check_store(&store, &talk);
                check_remote(&shared, &talk);
            }
            if done {
                break;
            }
            assert!(
                clock.elapsed() < Duration::from_secs(1200),
                "{killed} kills, {hit:?}: no run ends"
            );
        }
        whole += 1;
        let summary = project.run(&SETTING);
        assert_eq!(Project::artifacts(&summary), undisturbed, "{hit:?}");
        // Nothing is left over.
        for folder in ["staging", "work"] {
            let left = fs::read_dir(project.store().join(folder)).unwrap().count();
            assert_eq!(left, 0, "{folder}");
        }
    }
    println!("{killed} kills in {whole} pipelines, by the stage at work: {hit:?}");
}
