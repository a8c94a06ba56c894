//! Downloads from faulty servers.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use ring::digest;

use super::*;

mod buckets;
mod cache;
mod hub;
mod inventory;
pub(crate) mod server;
mod transfers;
mod web;

use server::{Reply, Request, Server, file};

/// Impatient, and without anything from the environment.
fn settings() -> Settings {
    Settings {
        connect_timeout: Duration::from_secs(2),
        idle_timeout: Duration::from_millis(400),
        retries: 2,
        first_wait: Duration::from_millis(5),
        longest_wait: Duration::from_secs(2),
        sync_every: 64 << 10,
        ..Settings::default()
    }
}

/// Bytes without a pattern that a wrong splice could hide in.
fn content(length: usize, seed: u32) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(1);
    let next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    };
    std::iter::repeat_with(next).take(length).collect()
}

fn hash(bytes: &[u8], algorithm: &'static digest::Algorithm) -> String {
    let digest = digest::digest(algorithm, bytes);
    super::cache::hex(digest.as_ref())
}

fn sha256(bytes: &[u8]) -> String {
    hash(bytes, &digest::SHA256)
}

fn pinned(url: String, content: &[u8]) -> RemoteFile {
    RemoteFile {
        url,
        sha256: Some(sha256(content)),
        unpinned: false,
        max_bytes: None,
        exclude: vec![],
    }
}

fn unpinned(url: String) -> RemoteFile {
    RemoteFile {
        url,
        sha256: None,
        unpinned: true,
        max_bytes: None,
        exclude: vec![],
    }
}

fn get(settings: &Settings, remote: &RemoteFile, folder: &Path) -> Result<Vec<Fetched>> {
    fetch_with(settings, remote, &downloads(folder), &Cancel::default(), &|_| ())
}

fn downloads(folder: &Path) -> Downloads {
    Downloads::open(folder, &Cancel::default()).unwrap()
}

/// What is left of begun downloads: data files.
fn partials(folder: &Path) -> Vec<PathBuf> {
    let Ok(entries) = fs::read_dir(folder.join("partial")) else {
        return Vec::new();
    };
    let paths = entries.map(|entry| entry.unwrap().path());
    paths.filter(|path| path.extension().is_none()).collect()
}

/// Whole files: every one is named by its content, or the test fails.
fn whole(folder: &Path) -> usize {
    let mut count = 0;
    for path in glob::glob(&format!("{}/sha256/*/*", folder.display())).unwrap() {
        let path = path.unwrap();
        assert_eq!(
            path.file_name().unwrap().to_str().unwrap(),
            sha256(&fs::read(&path).unwrap())
        );
        count += 1;
    }
    count
}

struct Case {
    server: Server,
    folder: tempfile::TempDir,
}

impl Case {
    fn new(handler: impl Fn(&Request) -> Reply + Send + Sync + 'static) -> Self {
        Self {
            server: Server::start(handler),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn url(&self) -> String {
        format!("{}/folder/file.txt", self.server.url)
    }

    /// Downloads a pinned file; its content is checked.
    fn pinned(&self, bytes: &[u8]) -> Result<()> {
        let fetched = get(&settings(), &pinned(self.url(), bytes), self.folder.path())?;
        assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
        assert_eq!(partials(self.folder.path()), Vec::<PathBuf>::new());
        Ok(())
    }

    /// Downloads an unpinned file: its content.
    fn unpinned(&self) -> Result<Vec<u8>> {
        let fetched = get(&settings(), &unpinned(self.url()), self.folder.path())?;
        let bytes = fs::read(&fetched[0].path).unwrap();
        assert_eq!(fetched[0].sha256, sha256(&bytes));
        assert_eq!(fetched[0].bytes, bytes.len() as u64);
        Ok(bytes)
    }

    fn ranges(&self) -> Vec<Option<String>> {
        let requests = self.server.requests();
        requests
            .iter()
            .map(|request| request.headers.get("range").cloned())
            .collect()
    }
}

/// The child process of other tests: downloads a given file to a given folder.
#[test]
#[ignore = "run by other tests"]
fn child() {
    let task = std::env::var("MDLM_TEST_FETCH").expect("run by other tests alone");
    let parts: Vec<&str> = task.split('\n').collect();
    let remote = RemoteFile {
        url: parts[0].to_owned(),
        sha256: (!parts[2].is_empty()).then(|| parts[2].to_owned()),
        unpinned: parts[2].is_empty(),
        max_bytes: None,
        exclude: vec![],
    };
    if let Err(error) = get(&settings(), &remote, Path::new(parts[1])) {
        panic!("{error}");
    }
}

fn command(remote: &RemoteFile, folder: &Path) -> Command {
    let sha256 = remote.sha256.as_deref().unwrap_or_default();
    let task = format!("{}\n{}\n{sha256}", remote.url, folder.display());
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .args(["--exact", "--ignored", "data::fetch::tests::child"])
        .env("MDLM_TEST_FETCH", task);
    command
}

fn spawn_child(remote: &RemoteFile, folder: &Path) -> Child {
    let mut command = command(remote, folder);
    command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap()
}
