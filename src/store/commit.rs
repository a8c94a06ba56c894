//! The commit: from staged files to an artifact with its record, all or nothing.
//!
//! Order matters. The artifact is in place and on disk before the record that names it is; the record's rename is the
//! one moment at which the key becomes known. What a crash leaves at each point:
//!
//! | dies after | is left | the next run |
//! |---|---|---|
//! | [`CommitStep::Listed`], [`CommitStep::Synced`] | staged files | sweeps them, runs the stage |
//! | [`CommitStep::Published`], [`CommitStep::PublishedSynced`] | an artifact that no record names | runs the stage, finds its output there |
//! | [`CommitStep::RecordStaged`] | also a staged record | sweeps it, as above |
//! | [`CommitStep::Recorded`] | a complete action, and its scratch | serves it, sweeps the scratch |

use std::fs::{self, File};
use std::io::{ErrorKind, Write};
use std::path::Path;

use rayon::prelude::*;

use super::digest::{digest_of, hash_files, list_folder, paths_below};
use super::{Digest, FileEntry, KeyLock, Record, Store, create_folder, remove_folder};
use crate::disk::sync_folder;
use crate::error::{Error, Kind, Result, Wrap};

/// The points between which a commit can die.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CommitStep {
    /// The staged files are hashed, and on disk themselves.
    Listed,
    /// Their folders are on disk, too.
    Synced,
    /// The artifact is at its place.
    Published,
    /// The artifact's place is on disk.
    PublishedSynced,
    /// The record is written beside its place and on disk.
    RecordStaged,
    /// The record is at its place and on disk: the key is known.
    Recorded,
    /// The scratch is deleted.
    Cleaned,
}

impl CommitStep {
    /// Every step, in order.
    pub const ALL: [Self; 7] = [
        Self::Listed,
        Self::Synced,
        Self::Published,
        Self::PublishedSynced,
        Self::RecordStaged,
        Self::Recorded,
        Self::Cleaned,
    ];
}

impl Store {
    /// Commits the staged files of a key. `record` makes the record from the artifact's digest and files.
    ///
    /// # Errors
    /// The disk is full, a file cannot be read, or a staged thing is neither file nor folder.
    pub fn commit(
        &self,
        lock: &KeyLock,
        record: impl FnOnce(Digest, Vec<FileEntry>) -> Record,
    ) -> Result<Record> {
        self.commit_with(lock, record, &mut |_| Ok(()))
    }

    /// [`Store::commit`] that calls `passed` after each step, for tests that end it there.
    ///
    /// # Errors
    /// The errors of [`Store::commit`] and of `passed`.
    pub fn commit_with(
        &self,
        lock: &KeyLock,
        record: impl FnOnce(Digest, Vec<FileEntry>) -> Record,
        passed: &mut dyn FnMut(CommitStep) -> Result<()>,
    ) -> Result<Record> {
        let staging = self.staging_path(lock.key());
        drop_empty_folders(&staging)?;
        let paths = paths_below(&staging)?;
        // The disk writes while the processor hashes.
        let seal_all = || paths.par_iter().try_for_each(|path| seal(&staging.join(path)));
        let (files, sealed) = rayon::join(|| hash_files(&staging, &paths), seal_all);
        let files = files?;
        let artifact = digest_of(&files);
        passed(CommitStep::Listed)?;
        sealed?;
        sync_folders(&staging)?;
        passed(CommitStep::Synced)?;
        let place = self.artifact_path(&artifact);
        // `gc` does not delete it although its record is not written yet.
        let _pin = self.pin(&artifact)?;
        self.publish(lock.key(), &place, &files)?;
        passed(CommitStep::Published)?;
        sync_folder(&self.root().join("artifacts"))?;
        passed(CommitStep::PublishedSynced)?;

        let record = record(artifact, files);
        if record.key.digest() != *lock.key() {
            return Err(Error::internal("commit under the lock of another key"));
        }
        let path = self.record_path(&record.key.kind, lock.key());
        let beside = self.staged_record_path(lock.key());
        let folder = path.parent().unwrap_or(self.root());
        create_folder(folder)?;
        let context = || format!("write `{}`", path.display());
        let text = record.to_text()?;
        File::create(&beside)
            .and_then(|mut file| {
                file.write_all(text.as_bytes())?;
                file.sync_all()
            })
            .wrap(Kind::Environment, context)?;
        passed(CommitStep::RecordStaged)?;
        fs::rename(&beside, &path).wrap(Kind::Environment, context)?;
        sync_folder(folder)?;
        sync_folder(&self.root().join("actions"))?;
        passed(CommitStep::Recorded)?;
        self.clear_work(lock)?;
        passed(CommitStep::Cleaned)?;
        Ok(record)
    }

    /// Moves the staged folder to the artifact's place. When the same content is already there, in full, the staged
    /// one is dropped; a damaged one gives way.
    fn publish(&self, key: &Digest, place: &Path, files: &[FileEntry]) -> Result<()> {
        let staging = &self.staging_path(key);
        let context = || format!("publish `{}`", place.display());
        loop {
            match fs::rename(staging, place) {
                Ok(()) => return Ok(()),
                // A folder with files is in the way. (An empty one is replaced by the rename itself.)
                Err(error)
                    if matches!(
                        error.kind(),
                        ErrorKind::DirectoryNotEmpty | ErrorKind::AlreadyExists
                    ) => {}
                Err(error) => return Err(error).wrap(Kind::Environment, context),
            }
            if list_folder(place).is_ok_and(|there| there == files) {
                return remove_folder(staging);
            }
            // Out of the way in one step, so that no reader finds half of it; then deleted.
            let aside = self.displaced_path(key);
            remove_folder(&aside)?;
            match fs::rename(place, &aside) {
                Err(error) if error.kind() != ErrorKind::NotFound => {
                    return Err(error).wrap(Kind::Environment, context);
                }
                _ => remove_folder(&aside)?,
            }
        }
    }
}

/// Makes a file read-only and its content durable.
fn seal(path: &Path) -> Result<()> {
    let context = || format!("sync `{}`", path.display());
    let file = File::open(path).wrap(Kind::Environment, context)?;
    let mut permissions = file.metadata().wrap(Kind::Environment, context)?.permissions();
    permissions.set_readonly(true);
    file.set_permissions(permissions)
        .wrap(Kind::Environment, context)?;
    file.sync_all().wrap(Kind::Environment, context)
}

/// Deletes the folders without files below a folder: they are not content, and a consumer must not see what a copy of
/// the artifact would lack.
fn drop_empty_folders(folder: &Path) -> Result<()> {
    let context = || format!("read `{}`", folder.display());
    for entry in fs::read_dir(folder).wrap(Kind::Environment, context)? {
        let entry = entry.wrap(Kind::Environment, context)?;
        if entry.file_type().wrap(Kind::Environment, context)?.is_dir() {
            drop_empty_folders(&entry.path())?;
            // Refused by the system when it is not empty.
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

/// Makes the names in a folder and in those below it durable.
fn sync_folders(folder: &Path) -> Result<()> {
    let context = || format!("read `{}`", folder.display());
    for entry in fs::read_dir(folder).wrap(Kind::Environment, context)? {
        let entry = entry.wrap(Kind::Environment, context)?;
        if entry.file_type().wrap(Kind::Environment, context)?.is_dir() {
            sync_folders(&entry.path())?;
        }
    }
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::super::record::testing::example;
    use super::super::{Key, Lookup};
    use super::*;

    struct Fixture {
        _folder: tempfile::TempDir,
        store: Store,
    }

    fn fixture() -> Fixture {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::at(folder.path().join("store"));
        store.prepare().unwrap();
        Fixture {
            _folder: folder,
            store,
        }
    }

    fn key(seed: u64) -> Key {
        example(seed).key
    }

    /// Stages two files for the key and commits them.
    fn act(store: &Store, seed: u64, passed: &mut dyn FnMut(CommitStep) -> Result<()>) -> Result<Record> {
        let lock = store.lock(&key(seed).digest(), &mut |_| Ok(()))?;
        let (staging, work) = store.stage(&lock)?;
        fs::write(work.join("checkpoint"), "half way").unwrap();
        fs::create_dir_all(staging.join("train")).unwrap();
        fs::create_dir_all(staging.join("empty/too")).unwrap();
        fs::write(staging.join("train/00000.arrow"), vec![7; 10_000]).unwrap();
        fs::write(staging.join("rows.json"), "{}").unwrap();
        store.commit_with(
            &lock,
            |artifact, files| Record {
                artifact,
                files,
                ..example(seed)
            },
            passed,
        )
    }

    fn hit(store: &Store, seed: u64) -> Record {
        match store.lookup(&key(seed)).unwrap() {
            Lookup::Hit(record) => *record,
            other => panic!("{other:?}"),
        }
    }

    fn damage(store: &Store, seed: u64) -> String {
        match store.lookup(&key(seed)).unwrap() {
            Lookup::Damaged(reason) => reason,
            other => panic!("{other:?}"),
        }
    }

    fn names(folder: &Path) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn commit_is_served_read_only_and_leaves_nothing_over() {
        let Fixture { store, .. } = &fixture();
        assert!(matches!(store.lookup(&key(1)).unwrap(), Lookup::Absent));
        let record = act(store, 1, &mut |_| Ok(())).unwrap();
        assert_eq!(hit(store, 1), record);
        let place = store.artifact_path(&record.artifact);
        assert_eq!(names(&place), ["rows.json", "train"]);
        assert_eq!(
            fs::read(place.join("train/00000.arrow")).unwrap(),
            vec![7; 10_000]
        );
        assert!(
            fs::metadata(place.join("rows.json"))
                .unwrap()
                .permissions()
                .readonly()
        );
        for folder in ["staging", "work"] {
            assert!(names(&store.root().join(folder)).is_empty(), "{folder}");
        }
    }

    /// A process that opens a store while another one creates it finds the version file whole or absent.
    #[test]
    fn store_can_be_prepared_by_many_at_once() {
        for _ in 0..100 {
            let folder = tempfile::tempdir().unwrap();
            let store = || Store::at(folder.path());
            let ready = std::sync::Barrier::new(2);
            std::thread::scope(|scope| {
                let looking = scope.spawn(|| {
                    ready.wait();
                    while !folder.path().join("version").exists() {
                        std::hint::spin_loop();
                    }
                    store().check().and_then(|()| store().prepare())
                });
                ready.wait();
                store().prepare().unwrap();
                looking.join().unwrap().unwrap();
            });
            assert_eq!(names(folder.path()).len(), 9, "nothing is left over");
        }
    }

    #[test]
    fn commit_of_equal_content_under_two_keys_is_stored_once() {
        let Fixture { store, .. } = &fixture();
        let one = act(store, 1, &mut |_| Ok(())).unwrap();
        let two = act(store, 2, &mut |_| Ok(())).unwrap();
        assert_eq!(one.artifact, two.artifact);
        assert_eq!(names(&store.root().join("artifacts")), [one.artifact.to_string()]);
        assert!(names(&store.root().join("staging")).is_empty());
    }

    /// The commit ends between every two steps, by an error: what a full disk does.
    #[test]
    fn commit_error_between_any_two_steps_leaves_all_or_nothing() {
        for step in CommitStep::ALL {
            let Fixture { store, .. } = &fixture();
            let error = act(store, 1, &mut |passed| {
                if passed == step {
                    Err(Error::environment("no space left on device"))
                } else {
                    Ok(())
                }
            });
            assert!(error.is_err());
            check_recovery(store, step);
        }
    }

    /// The process is killed between every two steps: a child that aborts, in the middle of this very program.
    #[cfg(unix)]
    #[test]
    fn commit_death_between_any_two_steps_leaves_all_or_nothing() {
        for (index, step) in CommitStep::ALL.into_iter().enumerate() {
            let Fixture { store, .. } = &fixture();
            let status = Command::new(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "store::commit::tests::commit_dies_on_request",
                    "--ignored",
                    "--nocapture",
                ])
                .env("MDLM_TEST_STORE", store.root())
                .env("MDLM_TEST_STEP", index.to_string())
                .output()
                .unwrap()
                .status;
            assert_eq!(
                std::os::unix::process::ExitStatusExt::signal(&status),
                Some(6),
                "{step:?}"
            );
            check_recovery(store, step);
        }
    }

    /// Not a separate test: the child process of the one above.
    #[test]
    #[ignore = "run by `commit_death_between_any_two_steps_leaves_all_or_nothing`"]
    fn commit_dies_on_request() {
        let store = Store::at(std::env::var_os("MDLM_TEST_STORE").expect("run by the test above alone"));
        let index: usize = std::env::var("MDLM_TEST_STEP").unwrap().parse().unwrap();
        let _ = act(&store, 1, &mut |passed| {
            if passed == CommitStep::ALL[index] {
                std::process::abort();
            }
            Ok(())
        });
    }

    fn check_recovery(store: &Store, died_after: CommitStep) {
        let known = matches!(died_after, CommitStep::Recorded | CommitStep::Cleaned);
        match store.lookup(&key(1)).unwrap() {
            Lookup::Hit(_) => assert!(known, "{died_after:?}"),
            Lookup::Absent => assert!(!known, "{died_after:?}"),
            other => panic!("{died_after:?}: {other:?}"),
        }
        // The next run sweeps and, where need be, does it again.
        store.prepare().unwrap();
        assert!(names(&store.root().join("staging")).is_empty(), "{died_after:?}");
        if !known {
            assert_eq!(
                names(&store.root().join("work")).len(),
                1,
                "the scratch survives {died_after:?}"
            );
            act(store, 1, &mut |_| Ok(())).unwrap();
        }
        let record = hit(store, 1);
        let place = store.artifact_path(&record.artifact);
        assert_eq!(list_folder(&place).unwrap(), record.files);
        assert!(names(&store.root().join("work")).is_empty(), "{died_after:?}");
    }

    fn writable(path: &Path) {
        let mut permissions = fs::metadata(path).unwrap().permissions();
        #[expect(
            clippy::permissions_set_readonly_false,
            reason = "a file of this test's own folder"
        )]
        permissions.set_readonly(false);
        fs::set_permissions(path, permissions).unwrap();
    }

    #[test]
    fn cache_miss_for_a_damaged_artifact_has_a_reason_and_it_is_replaced() {
        let Fixture { store, .. } = &fixture();
        let record = act(store, 1, &mut |_| Ok(())).unwrap();
        let file = store.artifact_path(&record.artifact).join("train/00000.arrow");

        writable(&file);
        File::options()
            .write(true)
            .open(&file)
            .unwrap()
            .set_len(3)
            .unwrap();
        assert_eq!(
            damage(store, 1),
            "`train/00000.arrow` of its artifact has 3 bytes instead of 10000"
        );
        act(store, 1, &mut |_| Ok(())).unwrap();
        assert_eq!(
            fs::read(&file).unwrap().len(),
            10_000,
            "the damaged artifact gave way"
        );

        fs::remove_file(&file).unwrap();
        assert_eq!(damage(store, 1), "`train/00000.arrow` of its artifact is missing");
        act(store, 1, &mut |_| Ok(())).unwrap();
        hit(store, 1);

        // Equal length, other bytes: not seen by a lookup, but a commit of the same content puts it right.
        writable(&file);
        fs::write(&file, vec![8; 10_000]).unwrap();
        act(store, 1, &mut |_| Ok(())).unwrap();
        assert_eq!(fs::read(&file).unwrap(), vec![7; 10_000]);

        // All of it is gone: that is not damage.
        fs::remove_dir_all(store.artifact_path(&record.artifact)).unwrap();
        assert!(matches!(store.lookup(&key(1)).unwrap(), Lookup::Away(found) if *found == record));
    }

    #[test]
    fn cache_miss_for_a_damaged_record_has_a_reason() {
        let Fixture { store, .. } = &fixture();
        act(store, 1, &mut |_| Ok(())).unwrap();
        act(store, 2, &mut |_| Ok(())).unwrap();
        let path = store.record_path("train", &key(1).digest());
        let text = fs::read(&path).unwrap();
        for (content, reason) in [
            (&text[..text.len() / 2], "its action record is damaged: EOF"),
            (&[], "its action record is damaged: EOF"),
            (b"\xff\xfe", "its action record is damaged: it is not UTF-8"),
            (b"{}", "its action record is damaged: the checksum differs"),
        ] {
            fs::write(&path, content).unwrap();
            assert!(damage(store, 1).starts_with(reason), "{}", damage(store, 1));
        }
        fs::copy(store.record_path("train", &key(2).digest()), &path).unwrap();
        assert_eq!(damage(store, 1), "its action record belongs to another key");
        act(store, 1, &mut |_| Ok(())).unwrap();
        hit(store, 1);
    }

    #[test]
    fn commit_of_the_same_content_by_many_threads_succeeds() {
        let Fixture { store, .. } = &fixture();
        std::thread::scope(|scope| {
            for seed in 0..8 {
                // Two threads a key: the second waits for the first and commits again.
                scope.spawn(move || act(store, seed / 2, &mut |_| Ok(())).unwrap());
            }
        });
        for seed in 0..4 {
            let record = hit(store, seed);
            assert_eq!(
                list_folder(&store.artifact_path(&record.artifact)).unwrap(),
                record.files
            );
        }
        assert_eq!(names(&store.root().join("artifacts")).len(), 1);
        assert!(names(&store.root().join("staging")).is_empty());
    }

    #[test]
    fn sweep_keeps_scratch_of_living_processes() {
        let Fixture { store, .. } = &fixture();
        let lock = store.try_lock(&key(1).digest()).unwrap().unwrap();
        let (staging, _) = store.stage(&lock).unwrap();
        fs::write(staging.join("file"), "being written").unwrap();
        store.prepare().unwrap();
        assert!(staging.join("file").is_file());
        drop(lock);
        store.prepare().unwrap();
        assert!(!staging.exists());
    }

    #[test]
    fn store_of_another_layout_is_refused() {
        let Fixture { store, .. } = &fixture();
        fs::write(store.root().join("version"), "99\n").unwrap();
        let error = store.prepare().unwrap_err();
        assert!(
            error
                .to_string()
                .ends_with("its layout version is `99`, but this mdlm supports 1"),
            "{error}"
        );
    }

    #[test]
    fn store_is_found_from_the_manifest() {
        let folder = tempfile::tempdir().unwrap();
        let root = fs::canonicalize(folder.path()).unwrap();
        fs::create_dir_all(root.join("pipelines/deep")).unwrap();
        for path in ["a.json", "pipelines/b.json", "pipelines/deep/c.json"] {
            fs::write(root.join(path), "{}").unwrap();
        }
        let locate = |path: &str| Store::locate(&root.join(path));
        assert_eq!(locate("a.json"), root.join(".mdlm"));
        assert_eq!(locate("pipelines/b.json"), root.join(".mdlm"));
        assert_eq!(locate("pipelines/deep/c.json"), root.join("pipelines/deep/.mdlm"));
        fs::create_dir(root.join(".mdlm")).unwrap();
        assert_eq!(locate("pipelines/deep/c.json"), root.join(".mdlm"));
    }

    #[test]
    fn store_remembers_the_latest_key_of_a_stage() {
        let Fixture { store, .. } = &fixture();
        assert!(store.latest("p", "model").is_none());
        for seed in [1, 2, 1] {
            act(store, seed, &mut |_| Ok(())).unwrap();
            store.remember(("p", None), "model", &key(seed), &[]);
            assert_eq!(store.latest("p", "model").unwrap().key, key(seed));
        }
        assert!(store.latest("p", "../model").is_none());
    }
}
