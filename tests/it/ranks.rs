//! `mdlm run --ranks`: any number of processes, over any MPI, leaves the artifacts of one process.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use crate::require::require;
use crate::support::{Project, mdlm, printed, send};

/// A training whose batches are cut into eight grains.
const GRAINS: [&str; 6] = [
    "--set",
    "stages.model.grains=8",
    "--set",
    "stages.model.steps=12",
    "--set",
    "stages.model.dropout=0.1",
];

/// A launcher, and the arguments before the number of processes.
struct Launcher {
    name: &'static str,
    program: PathBuf,
    arguments: &'static [&'static str],
}

/// The launchers of both families, as Debian names them.
fn launchers() -> Vec<Launcher> {
    let known: [(&str, &str, &[&str]); 2] = [
        (
            "openmpi",
            "mpirun.openmpi",
            &["--allow-run-as-root", "--oversubscribe", "-n"],
        ),
        ("mpich", "mpirun.mpich", &["-n"]),
    ];
    let found = |(name, program, arguments): (&'static str, &str, &'static [&'static str])| {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let file = std::env::split_paths(&path)
            .map(|folder| folder.join(program))
            .find(|file| file.is_file());
        let program = require(name, file.ok_or(format!("no `{program}` on the PATH")))?;
        Some(Launcher {
            name,
            program,
            arguments,
        })
    };
    known.into_iter().filter_map(found).collect()
}

impl Launcher {
    /// `mpirun -n WORLD mdlm run pipelines/tiny.json …`, without the variables of a launcher that started the tests.
    fn run(&self, project: &Project, world: u32, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.program);
        command
            .args(self.arguments)
            .args([
                &world.to_string(),
                env!("CARGO_BIN_EXE_mdlm"),
                "run",
                "pipelines/tiny.json",
                "--threads",
                "1",
            ])
            .args(GRAINS)
            .args(arguments)
            .current_dir(project.path())
            .env("MDLM_DEVICE", "cpu");
        for name in ["MDLM_STORE", "MDLM_THREADS", "MDLM_JOBS", "MDLM_MPI"] {
            command.env_remove(name);
        }
        command
    }
}

/// Exit code, standard output and standard error.
fn ended(command: &mut Command) -> (Option<i32>, String, String) {
    let output = command.output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn artifacts(summary: &str) -> Vec<String> {
    Project::artifacts(&serde_json::from_str(summary).unwrap_or_else(|error| panic!("{error}: {summary}")))
}

#[test]
fn ranks_as_threads_leave_the_artifacts_of_one_process() {
    let project = Project::whole(200);
    let one = Project::artifacts(&project.run(&GRAINS));
    for world in ["2", "8"] {
        let project = Project::whole(200);
        let summary = project.run(&[&["--ranks", world][..], &GRAINS].concat());
        assert_eq!(Project::artifacts(&summary), one, "{world} ranks");
        let figures = &summary["stages"][3]["figures"];
        assert_eq!(figures["ranks"], world);
    }
}

#[test]
fn ranks_over_mpi_leave_the_artifacts_of_one_process() {
    let project = Project::whole(200);
    let one = Project::artifacts(&project.run(&GRAINS));
    for launcher in launchers() {
        // MPICH waits by spinning: more ranks than processors stall.
        let worlds: &[u32] = if launcher.name == "openmpi" { &[2, 4] } else { &[2] };
        for &world in worlds {
            let project = Project::whole(200);
            let (code, output, talk) =
                ended(&mut launcher.run(&project, world, &["--json", "--ranks", &world.to_string()]));
            assert_eq!(code, Some(0), "{}, {world} ranks: {talk}", launcher.name);
            assert_eq!(artifacts(&output), one, "{}, {world} ranks", launcher.name);
            let shown = project
                .mdlm("show", &[&["model", "--json"][..], &GRAINS].concat())
                .output()
                .unwrap();
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            let name = if launcher.name == "openmpi" {
                "Open MPI "
            } else {
                "MPICH "
            };
            assert!(shown.contains(name) && shown.contains("\"exchange\""), "{shown}");
        }
    }
}

/// A rank that is killed ends the job; another number of ranks, over the other MPI, goes on from its checkpoint.
#[test]
fn ranks_that_are_killed_are_taken_up_by_any_others() {
    let launchers = launchers();
    let (Some(first), Some(last)) = (launchers.first(), launchers.last()) else {
        return;
    };
    let long = [
        "--set",
        "stages.model.steps=80",
        "--set",
        "stages.model.checkpoint_every=8",
        "--set",
        "stages.model.validation_every=0",
    ];
    let project = Project::whole(200);
    let mut run = first
        .run(&project, 2, &[&["--ranks", "2"][..], &long].concat())
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let work = project.store().join("work");
    let has_checkpoint = || {
        let stages = fs::read_dir(&work).into_iter().flatten().flatten();
        let mut checkpoints =
            stages.flat_map(|stage| fs::read_dir(stage.path()).into_iter().flatten().flatten());
        checkpoints.any(|entry| entry.file_name().to_string_lossy().contains("step"))
    };
    let start = std::time::Instant::now();
    while !has_checkpoint() {
        assert!(run.try_wait().unwrap().is_none(), "the run has ended");
        assert!(start.elapsed().as_secs() < 120, "no checkpoint");
        std::thread::sleep(std::time::Duration::from_millis(20));
    }
    // The second rank: the process of this program with the greater number that this launcher has started.
    let rank = descendants(run.id()).into_iter().max().expect("ranks");
    send("KILL", rank);
    let status = run.wait().unwrap();
    assert!(!status.success(), "{status}");
    assert!(start.elapsed().as_secs() < 150, "the job ends within seconds");

    let (code, output, talk) =
        ended(&mut last.run(&project, 2, &[&["--json", "--ranks", "2"][..], &long].concat()));
    assert_eq!(code, Some(0), "{talk}");
    assert!(talk.contains("resuming from the checkpoint"), "{talk}");
    let whole = Project::whole(200);
    let one = Project::artifacts(&whole.run(&[&GRAINS[..], &long].concat()));
    assert_eq!(artifacts(&output), one);
}

/// Processes of this program below a process.
fn descendants(of: u32) -> Vec<u32> {
    let mut found = Vec::new();
    let children = Command::new("pgrep")
        .args(["-P", &of.to_string()])
        .output()
        .unwrap()
        .stdout;
    for child in String::from_utf8_lossy(&children).split_whitespace() {
        let child: u32 = child.parse().unwrap();
        let program = fs::read_link(format!("/proc/{child}/exe")).unwrap_or_default();
        if program == PathBuf::from(env!("CARGO_BIN_EXE_mdlm")) {
            found.push(child);
        }
        found.extend(descendants(child));
    }
    found
}

#[test]
fn ranks_that_cannot_share_are_refused_before_anything_runs() {
    let project = Project::whole(100);
    let refused = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = project.mdlm("run", arguments);
        command.envs(environment.iter().copied());
        let (code, _, talk) = printed(&mut command);
        let actions = fs::read_dir(project.store().join("actions"));
        assert_eq!(actions.into_iter().flatten().count(), 0, "{arguments:?}: {talk}");
        (code, talk)
    };
    let (code, talk) = refused(&["--ranks", "4", "--set", "stages.model.grains=2"], &[]);
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("4 ranks cannot share a training whose `grains` is 2"),
        "{talk}"
    );
    assert!(talk.contains("`\"grains\": 4`"), "{talk}");
    let (code, talk) = refused(&["--ranks", "3"], &[]);
    assert_eq!(code, Some(2));
    assert!(talk.contains("not a power of two"), "{talk}");
    let (code, talk) = refused(&["--ranks", "2", "--target", "rows"], &[]);
    assert_eq!(code, Some(2));
    assert!(talk.contains("no train stage"), "{talk}");
    let launched = [("OMPI_COMM_WORLD_RANK", "0"), ("OMPI_COMM_WORLD_SIZE", "4")];
    let (code, talk) = refused(&["--ranks", "2"], &launched);
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("mpirun of Open MPI has started 4 processes"),
        "{talk}"
    );
    let launched = [
        ("PMI_RANK", "0"),
        ("PMI_SIZE", "2"),
        ("MDLM_MPI", "/nowhere/libmpich.so.12"),
    ];
    let (code, talk) = refused(&["--ranks", "2"], &launched);
    assert_eq!(code, Some(3), "{talk}");
    assert!(talk.contains("/nowhere/libmpich.so.12"), "{talk}");
}

/// The launcher of one MPI with the library of another makes a world of one in each process.
#[test]
fn ranks_of_another_mpi_than_the_launchers_are_refused() {
    for launcher in launchers() {
        let other = if launcher.name == "openmpi" {
            "libmpich.so.12"
        } else {
            "libmpi.so.40"
        };
        let project = Project::whole(100);
        let (code, _, talk) = ended(
            launcher
                .run(&project, 2, &["--ranks", "2"])
                .env("MDLM_MPI", other),
        );
        if talk.contains("cannot open shared object") {
            // The other family is not installed; its launcher was skipped with a message.
            continue;
        }
        assert_eq!(code, Some(3), "{}: {talk}", launcher.name);
        assert!(talk.contains("another MPI's launcher"), "{talk}");
        assert!(!project.store().join("actions").exists(), "{talk}");
    }
}

#[test]
fn launcher_without_ranks_is_warned_about() {
    let project = Project::new(20);
    let mut command = mdlm();
    command
        .current_dir(project.path())
        .args(["run", "pipelines/tiny.json", "--target", "text"])
        .envs([("PMI_RANK", "0"), ("PMI_SIZE", "2")]);
    let (code, _, talk) = printed(&mut command);
    assert_eq!(code, Some(0), "{talk}");
    assert!(talk.contains("each of which runs the whole pipeline"), "{talk}");
    assert!(talk.contains("`--ranks 2`"), "{talk}");
}

#[test]
fn grains_that_cannot_cut_a_batch_are_faults_with_their_place() {
    let project = Project::whole(20);
    for (grains, message, hint) in [
        ("3", "3 is not a power of two", "`\"grains\": 2`"),
        (
            "16",
            "16 grains do not divide the batch of 8 rows",
            "`\"grains\": 8`",
        ),
    ] {
        let set = format!("stages.model.grains={grains}");
        let (code, _, talk) = printed(&mut project.mdlm("validate", &["--set", &set]));
        assert_eq!(code, Some(2));
        assert!(talk.contains(message) && talk.contains(hint), "{talk}");
    }
    let sets = [
        "--set",
        "stages.model.grains=4",
        "--set",
        "stages.model.micro_batch=4",
    ];
    let (code, _, talk) = printed(&mut project.mdlm("validate", &sets));
    assert_eq!(code, Some(2));
    assert!(talk.contains("4 does not divide a grain of 2 rows"), "{talk}");
}
