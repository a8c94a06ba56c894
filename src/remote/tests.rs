//! Two stores with one remote, and remotes that lie.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::Ordering::SeqCst;

use std::collections::BTreeMap;
use std::sync::atomic::AtomicUsize;

use super::*;
use crate::data::fetch::tests::server::{Reply, Request, Server, file};
use crate::store::Lookup;
use crate::store::record::testing::example;

struct Fixture {
    folder: tempfile::TempDir,
    record: Record,
}

/// A file of more than one part, to go there in pieces.
const LARGE: usize = PART + PART / 2;

fn fixture() -> Fixture {
    let folder = tempfile::tempdir().unwrap();
    let store = Store::at(folder.path().join("here"));
    store.prepare().unwrap();
    let key = example(1).key;
    let lock = store.try_lock(&key.digest()).unwrap().unwrap();
    let (staging, _) = store.stage(&lock).unwrap();
    fs::create_dir(staging.join("train")).unwrap();
    fs::write(staging.join("train/0.arrow"), vec![7; LARGE]).unwrap();
    fs::write(staging.join("train/1.arrow"), [8; 1000]).unwrap();
    fs::write(staging.join("train/2.arrow"), [8; 1000]).unwrap();
    fs::write(staging.join("empty"), "").unwrap();
    let commit = |artifact, files| Record {
        artifact,
        files,
        ..example(1)
    };
    let record = store.commit(&lock, commit).unwrap();
    Fixture { folder, record }
}

impl Fixture {
    fn here(&self) -> Store {
        Store::at(self.folder.path().join("here"))
    }

    /// Another machine's store.
    fn there(&self) -> Store {
        let store = Store::at(self.folder.path().join("there"));
        store.prepare().unwrap();
        store
    }

    fn shared(&self) -> PathBuf {
        self.folder.path().join("shared")
    }

    fn remote(&self) -> Remote {
        let url = format!("file://{}", self.shared().display());
        let mut remote = Remote::open_with(&url, false, Settings::default()).unwrap();
        remote.settings.first_wait = std::time::Duration::from_millis(1);
        remote
    }

    fn push(&self, remote: &Remote) -> Result<Moved> {
        remote.push(&self.here(), &self.record, &Cancel::default(), &|_, _| ())
    }

    fn pushed(&self) -> Remote {
        self.push(&self.remote()).unwrap();
        self.remote()
    }

    fn fetch(&self, remote: &Remote) -> Result<Record> {
        let store = self.there();
        let lock = store.try_lock(&self.record.key.digest()).unwrap().unwrap();
        remote.fetch(&store, &lock, &self.record, &Cancel::default(), &|_, _| ())
    }

    fn record_path(&self) -> PathBuf {
        let digest = self.record.key.digest();
        self.shared()
            .join(record_place(&self.record.key, &digest).to_string())
    }

    fn file_path(&self, file: &str) -> PathBuf {
        let entry = self.record.files.iter().find(|entry| entry.path == file).unwrap();
        self.shared().join(file_place(&entry.digest).to_string())
    }

    /// The record as it lies there, edited and with its checksum put right.
    fn edit(&self, edit: impl FnOnce(&mut Record)) {
        let mut record = self.record.clone();
        edit(&mut record);
        fs::write(self.record_path(), record.to_text().unwrap()).unwrap();
    }
}

#[test]
fn push_and_fetch_share_an_artifact_between_stores() {
    let fixture = fixture();
    let remote = fixture.remote();
    assert!(remote.find(&fixture.record.key).is_none());
    let moved = fixture.push(&fixture.remote()).unwrap();
    // Equal files go there once.
    assert_eq!(
        moved,
        Moved {
            files: 3,
            bytes: LARGE as u64 + 1000
        }
    );
    assert_eq!(fixture.push(&fixture.remote()).unwrap(), Moved::default());

    let remote = fixture.remote();
    assert_eq!(remote.find(&fixture.record.key).as_ref(), Some(&fixture.record));
    assert_eq!(fixture.fetch(&remote).unwrap(), fixture.record);
    let store = fixture.there();
    assert!(
        matches!(store.lookup(&fixture.record.key).unwrap(), Lookup::Hit(record) if *record == fixture.record)
    );
    let pace = crate::store::verify::Pace::new(None);
    let faults = crate::store::verify::examine(
        &store.artifact_path(&fixture.record.artifact),
        &fixture.record.artifact,
        Some(&fixture.record.files),
        crate::store::verify::Depth::Full,
        &pace,
    );
    assert_eq!(faults.unwrap(), []);
    assert_eq!(fs::read_dir(store.root().join("work")).unwrap().count(), 0);
    assert_eq!(remote.troubles(), Vec::<String>::new());
}

#[test]
fn corrupt_record_is_refused_and_reported() {
    let fixture = fixture();
    fixture.pushed();
    let refused = |why: &str| {
        let remote = fixture.remote();
        assert!(remote.find(&fixture.record.key).is_none(), "{why}");
        let troubles = remote.troubles();
        assert_eq!(troubles.len(), 1, "{troubles:?}");
        assert!(troubles[0].contains(why), "{why}: {troubles:?}");
        // The next push puts it right.
        assert_eq!(fixture.push(&remote).unwrap(), Moved::default());
        assert!(fixture.remote().find(&fixture.record.key).is_some(), "{why}");
    };
    let text = fs::read_to_string(fixture.record_path()).unwrap();
    fs::write(fixture.record_path(), &text[..text.len() / 2]).unwrap();
    refused("damaged");
    fs::write(fixture.record_path(), [0xff, 0xfe]).unwrap();
    refused("invalid utf-8");
    fs::write(
        fixture.record_path(),
        text.replace("\"threads\": 2", "\"threads\": 3"),
    )
    .unwrap();
    refused("the checksum differs");
    fixture.edit(|record| record.key.version += 1);
    refused("the record belongs to another key");
    fixture.edit(|record| record.files[1].digest = Digest::of(b"other"));
    refused("its files do not add up to its artifact");
    fixture.edit(|record| {
        record.files.swap(0, 1);
        record.artifact = digest_of(&record.files);
    });
    refused("its files do not add up to its artifact");
    for path in ["../../escaped", "/etc/passwd", "a/../../b", "", "a\\..\\b", "./a"] {
        fixture.edit(|record| {
            record.files[0].path = path.to_owned();
            record.artifact = digest_of(&record.files);
        });
        refused("lies outside its artifact");
    }
}

#[test]
fn corrupt_truncated_or_missing_file_is_refused_and_replaced() {
    for (file, content, why) in [
        (
            "train/1.arrow",
            Some(vec![9; 1000]),
            "its content does not match the digest in its name",
        ),
        ("train/0.arrow", Some(vec![7; LARGE - 1]), "instead of"),
        ("train/1.arrow", None, "not found"),
    ] {
        let fixture = fixture();
        let remote = fixture.pushed();
        assert!(remote.find(&fixture.record.key).is_some());
        match &content {
            Some(content) => fs::write(fixture.file_path(file), content).unwrap(),
            None => fs::remove_file(fixture.file_path(file)).unwrap(),
        }
        let error = fixture.fetch(&remote).unwrap_err();
        assert!(error.to_string().to_lowercase().contains(why), "{why}: {error}");
        let store = fixture.there();
        assert!(matches!(
            store.lookup(&fixture.record.key).unwrap(),
            Lookup::Absent
        ));
        assert_eq!(fs::read_dir(store.root().join("artifacts")).unwrap().count(), 0);
        // The next push replaces it.
        fixture.push(&remote).unwrap();
        fixture.fetch(&fixture.remote()).unwrap();
    }
}

#[test]
fn resume_of_a_fetch_that_was_cut_off() {
    let fixture = fixture();
    let remote = fixture.pushed();
    let store = fixture.there();
    let large = fixture
        .record
        .files
        .iter()
        .find(|file| file.bytes == LARGE as u64)
        .unwrap();
    let partial = store
        .work_path(&fixture.record.key.digest())
        .join(Remote::SCRATCH)
        .join(large.digest.to_string());
    let cut = |bytes: &[u8]| {
        fs::create_dir_all(partial.parent().unwrap()).unwrap();
        fs::write(&partial, bytes).unwrap();
        let lock = store.try_lock(&fixture.record.key.digest()).unwrap().unwrap();
        let came = AtomicU64::new(0);
        let progress = |done, _| came.store(done, SeqCst);
        let fetched = remote.fetch(&store, &lock, &fixture.record, &Cancel::default(), &progress);
        fetched.unwrap();
        fs::remove_dir_all(store.artifact_path(&fixture.record.artifact)).unwrap();
        came.into_inner()
    };
    let small = 1000;
    assert_eq!(cut(&vec![7; LARGE - 10]), 10 + small, "the rest alone");
    assert_eq!(cut(&vec![7; LARGE]), small, "nothing");
    // A partial download of another file is detected, and the file is fetched from the start.
    assert_eq!(cut(&vec![6; LARGE - 10]), 10 + LARGE as u64 + small);
    assert_eq!(cut(&vec![7; LARGE + 1]), LARGE as u64 + small);
}

#[test]
fn push_of_a_corrupt_artifact_or_to_a_read_only_remote_is_refused() {
    let fixture = fixture();
    let place = fixture.here().artifact_path(&fixture.record.artifact);
    for (file, content) in [
        ("train/1.arrow", vec![9; 1000]),
        ("train/0.arrow", vec![9; LARGE]),
    ] {
        let path = place.join(file);
        let sound = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, content).unwrap();
        let remote = fixture.remote();
        let error = fixture.push(&remote).unwrap_err();
        assert!(
            error.to_string().ends_with("is corrupt: it is not pushed"),
            "{error}"
        );
        assert!(remote.find(&fixture.record.key).is_none());
        assert!(!fixture.file_path(file).exists());
        fs::write(&path, sound).unwrap();
    }
    let url = format!("file://{}", fixture.shared().display());
    let reader = Remote::open_with(&url, true, Settings::default()).unwrap();
    let error = fixture.push(&reader).unwrap_err();
    assert!(error.to_string().ends_with("the remote is read-only"), "{error}");
    fixture.push(&fixture.remote()).unwrap();
    fixture.fetch(&reader).unwrap();
}

#[test]
fn url_that_is_no_remote_is_an_error_with_a_hint() {
    let error = |url: &str| {
        let error = Remote::open_with(url, true, Settings::default()).unwrap_err();
        assert!(error.hint_text().is_some(), "{error}");
        error.to_string()
    };
    for url in [
        "https://example.org/cache",
        "cache",
        "/srv/cache",
        "s4://bucket/cache",
    ] {
        assert!(
            error(url).contains("it is not the URL of a cache that machines can share"),
            "{url}"
        );
    }
    for url in ["s3://bucket", "gs://bucket/"] {
        assert!(
            error(url).contains("it does not name a folder of a bucket"),
            "{url}"
        );
    }
    assert!(error("file://cache").contains("its path is not absolute"));
}

/// An unreachable remote is asked once and reported once.
#[test]
fn unreachable_remote_is_reported_once_and_the_run_continues() {
    let fixture = fixture();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let variables = [
        ("AWS_ENDPOINT_URL", format!("http://{address}")),
        ("AWS_ALLOW_HTTP", "true".to_owned()),
        ("AWS_SKIP_SIGNATURE", "true".to_owned()),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value));
    let settings = Settings {
        retries: 1,
        first_wait: std::time::Duration::from_millis(1),
        buckets: Settings::from_variables(&variables.into_iter().collect()).buckets,
        ..Settings::default()
    };
    let remote = Remote::open_with("s3://bucket/cache", false, settings).unwrap();
    assert!(remote.find(&fixture.record.key).is_none());
    assert!(remote.find(&example(2).key).is_none());
    let troubles = remote.troubles();
    assert_eq!(troubles.len(), 1, "{troubles:?}");
    assert!(
        troubles[0].starts_with("continuing without the remote: "),
        "{troubles:?}"
    );
    let error = fixture.push(&remote).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("push to `s3://bucket/cache`: read `"),
        "{error}"
    );
    assert!(error.hint_text().is_some());
}

/// As much of S3 as a remote takes: objects are put, whole or in parts, asked for and got with ranges.
#[derive(Default)]
struct S3 {
    objects: BTreeMap<String, Vec<u8>>,
    parts: BTreeMap<(String, usize), Vec<u8>>,
}

fn serve(s3: &Mutex<S3>, request: &Request) -> Reply {
    let mut s3 = s3.lock().unwrap();
    let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
    let key = path.strip_prefix("/bucket/").unwrap().to_owned();
    let get = |name: &str| {
        let mut parts = query
            .split('&')
            .map(|part| part.split_once('=').unwrap_or((part, "")));
        parts
            .find(|(key, _)| *key == name)
            .map(|(_, value)| value.to_owned())
    };
    let body = request.body.to_vec();
    match (&*request.method, get("uploadId"), get("partNumber")) {
        ("POST", None, _) if get("uploads").is_some() => {
            let xml =
                "<InitiateMultipartUploadResult><UploadId>upload</UploadId></InitiateMultipartUploadResult>";
            Reply::new(200, xml)
        }
        ("PUT", Some(_), Some(number)) => {
            s3.parts.insert((key, number.parse().unwrap()), body);
            Reply::new(200, "").header("ETag", "\"part\"")
        }
        ("POST", Some(_), None) => {
            let whole = s3.parts.iter().filter(|((of, _), _)| *of == key);
            let whole = whole.flat_map(|(_, bytes)| bytes.clone()).collect();
            s3.objects.insert(key, whole);
            Reply::new(
                200,
                "<CompleteMultipartUploadResult><ETag>e</ETag></CompleteMultipartUploadResult>",
            )
        }
        ("PUT", None, _) => {
            s3.objects.insert(key, body);
            Reply::new(200, "").header("ETag", "\"e\"")
        }
        ("GET" | "HEAD", ..) => {
            let Some(object) = s3.objects.get(&key) else {
                return Reply::new(404, "<Error><Code>NoSuchKey</Code></Error>");
            };
            let mut reply = file(request, object, Some("\"e\""));
            if request.method == "HEAD" {
                reply.body.clear();
            }
            reply.header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
        }
        _ => Reply::new(405, ""),
    }
}

/// A server that speaks S3, refuses every seventh request for now and cuts every other large answer off.
#[test]
fn bucket_behind_an_unreliable_connection_is_a_remote() {
    let fixture = fixture();
    let (s3, count) = (Arc::new(Mutex::new(S3::default())), AtomicUsize::new(0));
    let there = s3.clone();
    let server = Server::start(move |request| {
        let number = count.fetch_add(1, SeqCst);
        if number % 7 == 3 {
            return Reply::new(503, "<Error><Code>SlowDown</Code></Error>");
        }
        let mut reply = serve(&there, request);
        if request.method == "GET" && reply.body.len() > 1 << 20 && number.is_multiple_of(2) {
            reply.cut = Some(reply.body.len() / 2);
        }
        reply
    });
    let variables = [
        ("AWS_ENDPOINT_URL", server.url.as_str()),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings {
        first_wait: std::time::Duration::from_millis(1),
        buckets: Settings::from_variables(&variables.into_iter().collect()).buckets,
        ..Settings::default()
    };
    let open = || Remote::open_with("s3://bucket/team/cache/", false, settings.clone()).unwrap();
    let moved = fixture.push(&open()).unwrap();
    assert_eq!(moved.bytes, LARGE as u64 + 1000);
    assert_eq!(fixture.push(&open()).unwrap(), Moved::default());
    assert!(
        s3.lock()
            .unwrap()
            .objects
            .keys()
            .all(|key| key.starts_with("team/cache/"))
    );
    assert_eq!(s3.lock().unwrap().parts.len(), 2, "the large file went in parts");

    let remote = open();
    assert_eq!(remote.find(&fixture.record.key).as_ref(), Some(&fixture.record));
    assert_eq!(fixture.fetch(&remote).unwrap(), fixture.record);
    assert_eq!(remote.troubles(), Vec::<String>::new());
    // Truncated there: refused, and replaced by the next push.
    for object in s3
        .lock()
        .unwrap()
        .objects
        .values_mut()
        .filter(|object| object.len() == 1000)
    {
        object.truncate(999);
    }
    fs::remove_dir_all(fixture.there().artifact_path(&fixture.record.artifact)).unwrap();
    let remote = open();
    assert!(remote.find(&fixture.record.key).is_some());
    let error = fixture.fetch(&remote).unwrap_err();
    assert!(
        error.to_string().contains("it has 999 bytes instead of 1000"),
        "{error}"
    );
    assert_eq!(fixture.push(&remote).unwrap().files, 1);
    fixture.fetch(&open()).unwrap();
}
