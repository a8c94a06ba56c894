//! The Hugging Face hub.

use super::*;
use crate::data::fetch::{hub, web};

const COMMIT: &str = "0123456789abcdef0123456789abcdef01234567";

/// A hub: the dataset `owner/name` with one commit, whose list comes in pages of two. Large files are redirected to
/// `storage`.
fn hub(files: &[(&str, Vec<u8>, bool)], storage: &str) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    let files: Vec<(String, Vec<u8>, bool)> = files
        .iter()
        .map(|(path, bytes, large)| ((*path).to_owned(), bytes.clone(), *large))
        .collect();
    let storage = storage.to_owned();
    move |request| {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        if path == "/api/datasets/owner/name/revision/main" {
            return Reply::new(200, format!("{{\"_id\": \"1\", \"sha\": \"{COMMIT}\"}}"));
        }
        if let Some(rest) = path.strip_prefix(&format!("/api/datasets/owner/name/tree/{COMMIT}")) {
            let folder = rest.trim_start_matches('/');
            let recursive = query.contains("recursive=true");
            let listed: Vec<String> = files
                .iter()
                .filter(|(path, ..)| {
                    let inner = match path.strip_prefix(folder) {
                        Some(inner) if folder.is_empty() => Some(inner),
                        Some(inner) => inner.strip_prefix('/'),
                        None => None,
                    };
                    inner.is_some_and(|inner| recursive || !inner.contains('/'))
                })
                .map(|(path, bytes, large)| {
                    let mut blob = format!("blob {}\0", bytes.len()).into_bytes();
                    blob.extend_from_slice(bytes);
                    let oid = hash(&blob, &digest::SHA1_FOR_LEGACY_USE_ONLY);
                    let lfs = if *large {
                        let sha256 = sha256(bytes);
                        format!(", \"lfs\": {{\"oid\": \"{sha256}\", \"size\": {}, \"pointerSize\": 130}}", bytes.len())
                    } else {
                        String::new()
                    };
                    let size = bytes.len();
                    format!("{{\"type\": \"file\", \"oid\": \"{oid}\", \"size\": {size}, \"path\": \"{path}\"{lfs}}}")
                })
                .collect();
            let page: usize = query
                .split('&')
                .find_map(|part| part.strip_prefix("cursor=")?.parse().ok())
                .unwrap_or(0);
            let entries = listed.iter().skip(page * 2).take(2);
            let entries: Vec<&str> = entries.map(String::as_str).collect();
            let reply = Reply::new(
                200,
                format!(
                    "[{{\"type\": \"directory\", \"oid\": \"x\", \"size\": 0, \"path\": \"data\"}}{}{}]",
                    if entries.is_empty() { "" } else { "," },
                    entries.join(",")
                ),
            );
            return if listed.len() > (page + 1) * 2 {
                let host = &request.headers["host"];
                let next = format!(
                    "<http://{host}{path}?recursive={recursive}&cursor={}>; rel=\"next\"",
                    page + 1
                );
                reply.header("Link", next)
            } else {
                reply
            };
        }
        let found = files.iter().find(|(name, ..)| {
            path == format!(
                "/datasets/owner/name/resolve/{COMMIT}/{}",
                name.replace(' ', "%20")
            )
        });
        match found {
            Some((path, _, true)) => {
                Reply::to(&format!("{storage}/{}?signature=x", path.replace(' ', "%20")))
            }
            Some((_, bytes, false)) => file(request, bytes, Some("\"git\"")),
            None => Reply::new(404, "Repository not found"),
        }
    }
}

struct Hub {
    server: Server,
    storage: Server,
    folder: tempfile::TempDir,
}

impl Hub {
    fn new(files: &[(&'static str, Vec<u8>, bool)]) -> Self {
        let stored = files.to_vec();
        let storage = Server::start(move |request| {
            let path = request
                .target
                .trim_start_matches('/')
                .split('?')
                .next()
                .unwrap()
                .replace("%20", " ");
            let bytes = &stored.iter().find(|(name, ..)| *name == path).unwrap().1;
            Reply {
                cut: (request.number == 0).then_some(1_000),
                ..file(request, bytes, Some("\"s3\""))
            }
        });
        Self {
            server: Server::start(hub(files, &storage.url)),
            storage,
            folder: tempfile::tempdir().unwrap(),
        }
    }

    fn settings(&self) -> Settings {
        Settings {
            hub: self.server.url.clone(),
            hub_token: Some("token".to_owned()),
            ..settings()
        }
    }

    fn get(&self, revision: &str, path: &str) -> Result<Vec<Fetched>> {
        let remote = RemoteFile {
            unpinned: revision == "main",
            ..unpinned(format!("hf://datasets/owner/name@{revision}/{path}"))
        };
        get(&self.settings(), &remote, self.folder.path())
    }
}

#[test]
fn hub_files_are_listed_checked_and_cached() {
    let files = vec![
        ("README.md", content(500, 30), false),
        ("data/train-1.parquet", content(20_000, 31), true),
        ("data/train-0.parquet", content(30_000, 32), true),
        ("data/deep/train 2.parquet", content(100, 33), true),
        ("data/notes.txt", content(700, 34), false),
        ("data/empty.txt", Vec::new(), false),
    ];
    let case = Hub::new(&files);
    let read = |fetched: &[Fetched]| -> Vec<Vec<u8>> {
        fetched.iter().map(|file| fs::read(&file.path).unwrap()).collect()
    };
    let fetched = case.get(COMMIT, "data/*.parquet").unwrap();
    let urls: Vec<&str> = fetched.iter().map(|file| &*file.url).collect();
    let base = format!("hf://datasets/owner/name@{COMMIT}");
    assert_eq!(
        urls,
        [
            format!("{base}/data/train-0.parquet"),
            format!("{base}/data/train-1.parquet")
        ]
    );
    assert_eq!(read(&fetched), [&*files[2].1, &*files[1].1]);
    // The hub receives the token, the storage does not.
    assert!(
        case.server
            .requests()
            .iter()
            .all(|request| request.headers["authorization"] == "Bearer token")
    );
    assert!(
        case.storage
            .requests()
            .iter()
            .all(|request| !request.headers.contains_key("authorization"))
    );
    assert_eq!(case.storage.requests().len(), 3);
    assert!(
        case.server
            .requests()
            .iter()
            .all(|request| !request.target.contains("recursive=true"))
    );

    // A branch is looked up; what is here by its content is not downloaded again.
    let fetched = case.get("main", "data/**/*.parquet").unwrap();
    assert_eq!(read(&fetched), [&*files[3].1, &*files[2].1, &*files[1].1]);
    assert_eq!(fetched[0].url, format!("{base}/data/deep/train 2.parquet"));
    assert_eq!(case.storage.requests().len(), 4);

    assert_eq!(read(&case.get("main", "README.md").unwrap()), [&*files[0].1]);
    assert_eq!(
        read(&case.get(COMMIT, "data/*.txt").unwrap()),
        [&*files[5].1, &*files[4].1]
    );

    let before = case.server.requests().len();
    let again = [
        case.get(COMMIT, "data/*.parquet").unwrap(),
        case.get("main", "data/**/*.parquet").unwrap(),
    ];
    assert_eq!(again.map(|files| files.len()), [2, 3]);
    assert_eq!(case.server.requests().len(), before);
}

/// A repository has files beside its text, and a bucket marks of those who wrote to it.
#[test]
fn hub_globs_skip_hidden_and_system_files() {
    let case = Hub::new(&[
        (".gitattributes", content(10, 40), false),
        ("a.txt", content(20, 41), false),
        ("_SUCCESS", content(30, 42), false),
        ("data/.b.txt.crc", content(40, 43), false),
        ("data/b.txt", content(50, 44), false),
    ]);
    let downloads = Downloads::open(case.folder.path(), &Cancel::default()).unwrap();
    let names = |url: &str| -> Result<Vec<String>> {
        let remote = unpinned(format!("hf://datasets/owner/name@main/{url}"));
        let fetched = fetch_with(&case.settings(), &remote, &downloads, &Cancel::default(), &|_| ())?;
        let name = |file: Fetched| file.url.split_once(&format!("{COMMIT}/")).unwrap().1.to_owned();
        Ok(fetched.into_iter().map(name).collect())
    };
    assert_eq!(names("**/*").unwrap(), ["a.txt", "data/b.txt"]);
    assert_eq!(downloads.left_out().passed_over, 3);
    // Found again without the network, and counted again.
    assert_eq!(names("**/*").unwrap(), ["a.txt", "data/b.txt"]);
    assert_eq!(downloads.left_out().passed_over, 6);
    assert_eq!(names("*").unwrap(), ["a.txt"]);
    assert_eq!(names(".gitattributes").unwrap(), [".gitattributes"]);
    assert_eq!(names(".git*").unwrap(), [".gitattributes"]);
    let error = names("data/*.crc").unwrap_err().to_string();
    assert!(error.contains("1 hidden or system files are skipped"), "{error}");
}

#[test]
fn exclude_leaves_out_files_of_the_hub() {
    let case = Hub::new(&[
        ("README.md", content(10, 50), false),
        ("data/.part.crc", content(10, 51), false),
        ("data/old/a.txt", content(20, 52), false),
        ("data/test-0.txt", content(30, 53), false),
        ("data/train-0.txt", content(40, 54), false),
    ]);
    let get = |exclude: &[&str]| {
        let downloads = Downloads::open(case.folder.path(), &Cancel::default()).unwrap();
        let remote = RemoteFile {
            exclude: exclude.iter().map(|pattern| (*pattern).to_owned()).collect(),
            ..unpinned("hf://datasets/owner/name@main/**/*".to_owned())
        };
        let fetched = fetch_with(&case.settings(), &remote, &downloads, &Cancel::default(), &|_| ())?;
        let name = |file: Fetched| file.url.split_once(&format!("{COMMIT}/")).unwrap().1.to_owned();
        let names: Vec<String> = fetched.into_iter().map(name).collect();
        Ok::<_, Error>((names, downloads.left_out()))
    };
    let exclude = ["data/old", "**/test-*", "*.csv"];
    let (names, left_out) = get(&exclude).unwrap();
    assert_eq!(names, ["README.md", "data/train-0.txt"]);
    assert_eq!((left_out.passed_over, left_out.excluded), (1, 2));
    assert!(left_out.warnings()[0].contains("`exclude` pattern `*.csv` matches no "));
    assert_eq!(left_out.idle, ["*.csv"]);
    assert_eq!(whole(case.folder.path()), 2);
    // Found again without the network, and said again.
    let before = case.server.requests().len();
    assert_eq!(get(&exclude).unwrap(), (names, left_out));
    assert_eq!(case.server.requests().len(), before);
    // Other exclusions stand for other files.
    assert_eq!(get(&[]).unwrap().0.len(), 4);
    assert_eq!(
        get(&["*", "data"])
            .unwrap_err()
            .to_string()
            .matches("`exclude` leaves out 5")
            .count(),
        1
    );
}

#[test]
fn hub_files_that_are_absent_are_errors() {
    let case = Hub::new(&[
        ("a.txt", content(10, 35), false),
        ("b.bin", content(10, 36), true),
    ]);
    let error = case.get(COMMIT, "*.parquet").unwrap_err();
    assert!(
        error.to_string().contains("does not match any of the 2 files"),
        "{error}"
    );
    let error = case.get("missing", "a.txt").unwrap_err();
    assert!(error.to_string().contains("not pinned"), "{error}");
    let missing = unpinned("hf://datasets/owner/other@main/a.txt".to_owned());
    let error = get(&case.settings(), &missing, case.folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("404") && error.hint_text().unwrap().contains("HF_TOKEN"),
        "{error}"
    );
    let many = RemoteFile {
        sha256: Some(sha256(b"")),
        ..unpinned(format!("hf://datasets/owner/name@{COMMIT}/*"))
    };
    let error = get(&case.settings(), &many, case.folder.path()).unwrap_err();
    assert!(error.to_string().contains("2 files"), "{error}");
    let other = RemoteFile {
        url: format!("hf://datasets/owner/name@{COMMIT}/b.bin"),
        ..many
    };
    let error = get(&case.settings(), &other, case.folder.path()).unwrap_err();
    assert!(error.to_string().contains(&sha256(b"")), "{error}");
    assert_eq!(case.storage.requests().len(), 0);
}

#[test]
fn hub_files_must_match_the_listing() {
    // The list is of these files; others are sent, of the same length.
    for large in [false, true] {
        let listed = hub(&[("x", content(100, 37), large)], "");
        let server = Server::start(move |request| {
            if request.target.starts_with("/api") {
                listed(request)
            } else {
                Reply::new(200, content(100, 38))
            }
        });
        let folder = tempfile::tempdir().unwrap();
        let settings = Settings {
            hub: server.url.clone(),
            ..settings()
        };
        let remote = RemoteFile {
            unpinned: false,
            ..unpinned(format!("hf://datasets/owner/name@{COMMIT}/x"))
        };
        let error = get(&settings, &remote, folder.path()).unwrap_err();
        assert!(error.to_string().contains("instead of"), "{error}");
        assert_eq!(whole(folder.path()), 0);
    }
    // And something that is not a hub.
    let server = Server::start(|_| Reply::new(200, "<html>"));
    let settings = Settings {
        hub: server.url.clone(),
        ..settings()
    };
    let folder = tempfile::tempdir().unwrap();
    let error = get(&settings, &unpinned("hf://o/n@main/x".to_owned()), folder.path()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("HF_ENDPOINT"), "{error}");
}

#[test]
fn hub_token_is_sent_only_over_tls() {
    let cancel = Cancel::default();
    let token = |url: &str| {
        let settings = Settings {
            hub: url.to_owned(),
            hub_token: Some("token".to_owned()),
            ..settings()
        };
        let client = web::client(&settings, Duration::from_secs(1), false).unwrap();
        let hub = hub::Hub {
            client: &client,
            settings: &settings,
            cancel: &cancel,
        };
        hub.token().is_some()
    };
    assert!(token("https://hub.example"));
    assert!(token("http://127.0.0.1:8080"));
    assert!(!token("http://hub.example"));
    assert!(!token("http://127.0.0.1.hub.example"));
}
