//! Faults around a run: a full disk, a store or a file that cannot be written or read, files that change, a clock that
//! goes back. After every fault the error is clear and names a way out, no artifact is incomplete, and the next run makes
//! what an undisturbed run makes.

#![cfg(unix)]

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, SystemTime};

use mdlm::store::Record;

use crate::require::require;
use crate::support::{Project, mdlm};

/// A small separate file system; nothing where it may not be mounted.
struct Disk {
    folder: tempfile::TempDir,
}

impl Disk {
    fn new(kilobytes: u64) -> Option<Self> {
        let disk = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        let mounted = mount(
            &["-t", "tmpfs", "-o", &format!("size={kilobytes}k"), "tmpfs"],
            disk.path(),
        );
        let found = mounted
            .then_some(())
            .ok_or("a file system may not be mounted here");
        if require("mount", found).is_none() {
            // Nothing to unmount.
            std::mem::forget(disk);
            return None;
        }
        Some(disk)
    }

    fn path(&self) -> &Path {
        self.folder.path()
    }

    fn remount(&self, option: &str) {
        assert!(mount(&["-o", &format!("remount,{option}")], self.path()));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.path()).status();
    }
}

fn mount(arguments: &[&str], place: &Path) -> bool {
    let mut command = Command::new("mount");
    command.args(arguments).arg(place).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn run(project: &Project, store: &Path, arguments: &[&str]) -> Output {
    let store = store.to_str().unwrap();
    let arguments = [&["--store", store], arguments].concat();
    project.mdlm("run", &arguments).output().unwrap()
}

fn talk(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Every artifact in a store is what its name says.
fn assert_sound(project: &Project, store: &Path) {
    let output = mdlm()
        .current_dir(project.path())
        .args(["verify", "--dry-run", "--store"])
        .arg(store)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", talk(&output));
}

/// The disk is full again and again, each time a little later.
#[test]
fn full_disk_is_an_error_and_the_run_completes_with_more_space() {
    let Some(disk) = Disk::new(96) else { return };
    let project = Project::whole(100);
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed"]));
    let store = disk.path().join("store");
    let mut kilobytes = 96;
    let mut faults = 0;
    loop {
        let output = run(&project, &store, &[]);
        if output.status.success() {
            break;
        }
        faults += 1;
        let talk = talk(&output);
        assert_eq!(output.status.code(), Some(3), "{talk}");
        assert!(talk.contains("No space left on device"), "{talk}");
        assert!(talk.contains("hint: ") && talk.contains("mdlm gc"), "{talk}");
        if store.join("artifacts").is_dir() {
            assert_sound(&project, &store);
        }
        kilobytes = kilobytes * 3 / 2;
        assert!(kilobytes < 1 << 20, "{talk}");
        disk.remount(&format!("size={kilobytes}k"));
    }
    assert!(faults >= 5, "{faults}");
    let summary = project.run(&["--store", store.to_str().unwrap()]);
    assert_eq!(Project::artifacts(&summary), undisturbed);
    assert_sound(&project, &store);
    assert_eq!(fs::read_dir(store.join("staging")).unwrap().count(), 0);
}

/// A store on a file system that is mounted read-only can be read, says why a run fails, and is continued once it can be
/// written.
#[test]
fn read_only_store_is_readable_and_a_run_says_why_it_fails() {
    let Some(disk) = Disk::new(64 << 10) else { return };
    let project = Project::new(60);
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed"]));
    let store = disk.path().join("store");
    assert!(run(&project, &store, &["--target", "text"]).status.success());
    disk.remount("ro");
    let output = run(&project, &store, &[]);
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("Read-only file system") && errors.contains("hint: "),
        "{errors}"
    );
    let arguments = ["--store", store.to_str().unwrap()];
    let output = project.mdlm("plan", &arguments).output().unwrap();
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("3 stages, 2 to run"), "{plan}");
    assert_sound(&project, &store);
    disk.remount("rw");
    let summary = project.run(&arguments);
    assert_eq!(
        Project::statuses(&summary),
        "text: cached, tokens: done, rows: done"
    );
    assert_eq!(Project::artifacts(&summary), undisturbed);
}

/// The commands that only read, in a store that can only be read. `mdlm` starts one, and `output` is a file that can be
/// written.
fn assert_readable(mut mdlm: impl FnMut(&[&str]) -> Command, store: &str, output: &Path) {
    let manifest = "pipelines/tiny.json";
    let output = output.to_str().unwrap();
    for line in [
        format!("run {manifest} --store {store}"),
        format!("run {manifest} --store {store} --target tokens"),
        format!("run {manifest} --store {store} --json --paranoid --jobs 2"),
        format!("plan {manifest} --store {store} --exit-code"),
        format!("show {manifest} rows --store {store}"),
        format!("path {manifest} rows --store {store}"),
        format!("data {manifest} rows --store {store}"),
        format!("data {manifest} text --store {store}"),
        format!("explain {manifest} tokens --store {store}"),
        format!("graph {manifest}"),
        format!("report {manifest} --store {store} --output {output}"),
        format!("status --store {store}"),
        format!("status {manifest} --store {store}"),
        format!("verify --store {store}"),
        format!("verify {manifest} --store {store}"),
        format!("verify {manifest} --chain rows --store {store}"),
        format!("gc {manifest} --dry-run --store {store}"),
        format!("downloads --store {store}"),
    ] {
        let words: Vec<&str> = line.split(' ').collect();
        let output = mdlm(&words).env("MDLM_DEVICE", "cpu").output().unwrap();
        let errors = talk(&output);
        assert!(output.status.success(), "{line}: {errors}");
        assert!(
            !errors.contains("warning") && !errors.contains("error"),
            "{line}: {errors}"
        );
    }
}

/// A run with nothing to do, and all that only looks, succeed in a store on a file system that is mounted read-only.
#[test]
fn read_only_store_serves_its_results() {
    let Some(disk) = Disk::new(64 << 10) else { return };
    let project = Project::new(60);
    let store = disk.path().join("store");
    assert!(run(&project, &store, &[]).status.success());
    disk.remount("ro");
    let output = project.path().join("report.html");
    let here = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
        command.current_dir(project.path()).args(words);
        command
    };
    assert_readable(here, store.to_str().unwrap(), &output);
    assert!(output.is_file());
    // What has to be made still says why it cannot be.
    let refused = run(&project, &store, &["--force", "rows"]);
    assert_eq!(refused.status.code(), Some(3));
    assert!(
        talk(&refused).contains("Read-only file system"),
        "{}",
        talk(&refused)
    );
    disk.remount("rw");
}

/// A result that the remote alone has, and that nothing needs, is no reason to write into the store.
#[test]
fn read_only_store_serves_results_that_a_remote_completes() {
    let Some(disk) = Disk::new(64 << 10) else { return };
    let project = Project::new(60);
    let store = disk.path().join("store");
    let remote = format!("file://{}", project.path().join("remote").display());
    let arguments = ["--remote", remote.as_str()];
    assert!(run(&project, &store, &arguments).status.success());
    fs::remove_dir_all(store.join("actions/source")).unwrap();
    disk.remount("ro");
    let output = run(
        &project,
        &store,
        &[&arguments[..], &["--remote-read-only"]].concat(),
    );
    assert!(output.status.success(), "{}", talk(&output));
    disk.remount("rw");
}

/// The same for a user who may read the store and not write it.
#[test]
fn store_of_another_user_serves_its_results() {
    let project = Project::new(60);
    project.run(&[]);
    if !can_be_strangers(&project) {
        return;
    }
    let locked = lock_store(&project);
    let place = tempfile::tempdir().unwrap();
    set_mode(place.path(), 0o777);
    let output = place.path().join("report.html");
    assert_readable(|words| stranger(&project, words), ".mdlm", &output);
    assert!(output.is_file());
    for folder in &locked {
        set_mode(folder, 0o755);
    }
}

/// The program run by a user without rights: this user, or another one if this user is root.
fn stranger(project: &Project, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_mdlm"));
    command.current_dir(project.path()).args(arguments);
    if fs::metadata("/proc/self").is_ok_and(|own| own.uid() == 0) {
        command.uid(65_534).gid(65_534);
    }
    command
}

/// Whether the program can be started by [`stranger`] in a project, which everyone may then enter.
fn can_be_strangers(project: &Project) -> bool {
    set_mode(project.path(), 0o755);
    let started = stranger(project, &["--version"]).output();
    let can_start = started.is_ok_and(|output| output.status.success());
    let found = can_start
        .then_some(())
        .ok_or("the program cannot be started as another user here");
    require("other-user", found).is_some()
}

/// Lets a store be read and not written. Returns its folders.
fn lock_store(project: &Project) -> Vec<PathBuf> {
    let locked = folders(&project.store());
    for folder in &locked {
        set_mode(folder, 0o555);
    }
    for name in fs::read_dir(project.store().join("locks")).unwrap() {
        set_mode(&name.unwrap().path(), 0o444);
    }
    locked
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Folders below a path, itself included.
fn folders(path: &Path) -> Vec<PathBuf> {
    let mut all = vec![path.to_owned()];
    for entry in fs::read_dir(path).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            all.extend(folders(&path));
        }
    }
    all
}

/// The hint suggests another store only to a command that makes results, not to one that changes this store or writes
/// elsewhere.
#[test]
fn permission_hint_fits_the_command() {
    let project = Project::new(60);
    project.run(&["--set", "stages.rows.length=16"]);
    project.run(&[]);
    if !can_be_strangers(&project) {
        return;
    }
    let locked = lock_store(&project);
    let output = stranger(&project, &["gc", "pipelines/tiny.json"])
        .output()
        .unwrap();
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("hint: the command changes the store itself: run it as the user who owns the store")
            || errors.contains("hint: give this user the permission\n"),
        "{errors}"
    );
    assert!(!errors.contains("--store"), "{errors}");
    for folder in &locked {
        set_mode(folder, 0o755);
    }
    let shut = project.path().join("shut");
    fs::create_dir(&shut).unwrap();
    set_mode(&shut, 0o555);
    for folder in ["shut", "shut/new"] {
        let output = stranger(&project, &["init", folder, "--files", "corpus/*.txt"])
            .output()
            .unwrap();
        let errors = talk(&output);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(
            errors.contains("hint: name a folder that can be written: `mdlm init DIR"),
            "{errors}"
        );
    }
}

#[test]
fn permission_denied_is_an_error_and_the_next_run_completes() {
    let project = Project::new(60);
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed"]));
    project.run(&["--target", "text"]);
    if !can_be_strangers(&project) {
        return;
    }
    // The store may be read and not written.
    let locked = folders(&project.store());
    for folder in &locked {
        set_mode(folder, 0o555);
    }
    let output = stranger(&project, &["run", "pipelines/tiny.json"])
        .output()
        .unwrap();
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(errors.contains("Permission denied"), "{errors}");
    assert!(
        errors.contains("hint: choose a folder that can be written with `--store DIR`"),
        "{errors}"
    );
    let output = stranger(&project, &["plan", "pipelines/tiny.json"])
        .output()
        .unwrap();
    let plan = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(plan.contains("3 stages, 2 to run"), "{plan}");
    for folder in &locked {
        set_mode(folder, 0o755);
    }

    // A file of the corpus may not be read.
    let corpus = project.path().join("corpus/b.txt");
    set_mode(&corpus, 0o000);
    let output = stranger(&project, &["run", "pipelines/tiny.json", "--store", "/tmp/never"])
        .output()
        .unwrap();
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("corpus/b.txt`: Permission denied") && errors.contains("hint: give"),
        "{errors}"
    );
    set_mode(&corpus, 0o644);

    // An artifact that may not be read is not taken for corrupt.
    let summary = project.run(&["--target", "tokens"]);
    let artifact = project
        .store()
        .join("artifacts")
        .join(&Project::artifacts(&summary)[1]);
    let shared = tempfile::tempdir().unwrap();
    set_mode(shared.path(), 0o777);
    let file = artifact.join("tokens-00000.arrow");
    set_mode(&file, 0o000);
    for folder in folders(&project.store()) {
        set_mode(&folder, 0o777);
    }
    for name in fs::read_dir(project.store().join("locks")).unwrap() {
        set_mode(&name.unwrap().path(), 0o666);
    }
    let output = stranger(&project, &["run", "pipelines/tiny.json"])
        .output()
        .unwrap();
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert!(
        errors.contains("Permission denied") && errors.contains("hint: "),
        "{errors}"
    );
    assert!(!project.store().join("quarantine").exists(), "{errors}");
    set_mode(&file, 0o444);

    let summary = project.run(&[]);
    assert_eq!(Project::artifacts(&summary), undisturbed);
    assert_sound(&project, &project.store());
}

/// Another process writes to a file of the corpus for as long as the run reads it.
#[test]
fn file_that_changes_while_it_is_read_is_an_error() {
    let project = Project::new(5_000);
    let undisturbed = Project::artifacts(&project.run(&["--store", "undisturbed"]));
    let corpus = project.path().join("corpus/a.txt");
    let text = fs::read(&corpus).unwrap();
    let disturbed = || {
        let mut child = Command::new(env!("CARGO_BIN_EXE_mdlm"))
            .current_dir(project.path())
            .args(["run", "pipelines/tiny.json"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut changed = text.clone();
        while child.try_wait().unwrap().is_none() {
            changed.extend_from_slice(b"one line more\n");
            fs::write(&corpus, &changed).unwrap();
            std::thread::sleep(Duration::from_millis(1));
        }
        child.wait_with_output().unwrap()
    };
    // On a busy machine a run may end between two changes: then it is repeated.
    let mut output = disturbed();
    for _ in 0..9 {
        if output.status.success() {
            fs::remove_dir_all(project.store()).unwrap();
            fs::write(&corpus, &text).unwrap();
            output = disturbed();
        }
    }
    let errors = talk(&output);
    assert_eq!(output.status.code(), Some(2), "{errors}");
    assert!(
        errors.contains("`../corpus/a.txt` changed while the stage was reading it"),
        "{errors}"
    );
    assert!(
        errors.contains("hint: run again when no other process writes to it"),
        "{errors}"
    );
    let made = fs::read_dir(project.store().join("artifacts")).unwrap().count();
    assert_eq!(made, 0, "nothing is kept of what may be half of both");
    fs::write(&corpus, text).unwrap();
    assert_eq!(Project::artifacts(&project.run(&[])), undisturbed);
}

/// Records, files and runs from the future: the clock was wrong then, or is now.
#[test]
fn clock_that_goes_back_changes_no_result() {
    let project = Project::new(60);
    let corpus = project.path().join("corpus/b.txt");
    let future = SystemTime::now() + Duration::from_secs(40 * 365 * 86_400);
    let touch = || {
        fs::File::options()
            .write(true)
            .open(&corpus)
            .unwrap()
            .set_modified(future)
            .unwrap();
    };
    touch();
    let made = project.run(&[]);
    for entry in ["source", "tokenize", "pack"] {
        let folder = project.store().join("actions").join(entry);
        let path = fs::read_dir(folder).unwrap().next().unwrap().unwrap().path();
        let mut record = Record::read(&path).unwrap().unwrap();
        record.provenance.started = "2099-01-31T09:05:07.123Z".to_owned();
        fs::write(&path, record.to_text().unwrap()).unwrap();
    }
    let note = fs::read_dir(project.store().join("runs"))
        .unwrap()
        .next()
        .unwrap()
        .unwrap()
        .path();
    let text = fs::read_to_string(&note).unwrap();
    fs::write(&note, text.replace("\"started\": \"20", "\"started\": \"21")).unwrap();

    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    // Another content of the same length, at the same time from the future.
    let text = fs::read_to_string(&corpus).unwrap();
    fs::write(&corpus, text.replace("hare", "hart")).unwrap();
    touch();
    let changed = project.run(&[]);
    assert_eq!(
        Project::statuses(&changed),
        "text: done, tokens: done, rows: done"
    );
    assert_eq!(changed["stages"][0]["why"], "`../corpus/b.txt` changed");
    // The last run is the last one whatever the clock said.
    let output = mdlm()
        .current_dir(project.path())
        .args(["gc", "--last", "1", "--json"])
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", talk(&output));
    assert_eq!(
        Project::statuses(&project.run(&[])),
        "text: cached, tokens: cached, rows: cached"
    );
    fs::write(&corpus, text).unwrap();
    assert_eq!(Project::artifacts(&project.run(&[])), Project::artifacts(&made));
}

/// A full standard output is not reported as a full store.
#[cfg(target_os = "linux")]
#[test]
fn full_standard_output_is_not_reported_as_a_full_store() {
    let project = Project::new(5);
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = std::process::Command::new(env!("CARGO_BIN_EXE_mdlm"))
        .current_dir(project.path())
        .args(["plan", "pipelines/tiny.json"])
        .stdout(full)
        .output()
        .unwrap();
    let talk = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{talk}");
    assert!(
        talk.contains("write to standard output")
            && talk.contains("free space where standard output is written to"),
        "{talk}"
    );
    assert!(!talk.contains("gc"), "{talk}");
}
