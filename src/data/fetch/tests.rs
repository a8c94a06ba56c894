//! Downloads from servers that misbehave.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use object_store::ObjectStoreExt as _;
use ring::digest;

use super::server::{CERTIFICATE, Reply, Request, Server, file};
use super::*;
use crate::error::Kind;

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
    cache::hex(digest.as_ref())
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
    }
}

fn unpinned(url: String) -> RemoteFile {
    RemoteFile {
        url,
        sha256: None,
        unpinned: true,
        max_bytes: None,
    }
}

fn get(settings: &Settings, remote: &RemoteFile, folder: &Path) -> Result<Vec<Fetched>> {
    fetch_with(settings, remote, folder, &Cancel::default(), &|_| ())
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

#[test]
fn a_file_is_downloaded_once_and_found_again_without_the_network() {
    let bytes = content(100_000, 1);
    let served = bytes.clone();
    let case = Case::new(move |request| file(request, &served, Some("\"a\"")));
    let told = Mutex::new(Vec::new());
    let remote = unpinned(case.url());
    let fetched = fetch_with(
        &settings(),
        &remote,
        case.folder.path(),
        &Cancel::default(),
        &|progress| {
            assert_eq!(progress.url, remote.url);
            told.lock().unwrap().push((progress.done, progress.total));
        },
    )
    .unwrap();
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].url, remote.url);
    assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
    assert!(fs::metadata(&fetched[0].path).unwrap().permissions().readonly());
    let told = told.into_inner().unwrap();
    assert_eq!(told.first(), Some(&(0, Some(100_000))));
    assert_eq!(told.last(), Some(&(100_000, Some(100_000))));
    let request = &case.server.requests()[0];
    assert_eq!(
        request.headers["user-agent"],
        concat!("mdlm/", env!("CARGO_PKG_VERSION"))
    );
    assert_eq!(request.headers["accept-encoding"], "identity");

    assert_eq!(case.unpinned().unwrap(), bytes);
    case.pinned(&bytes).unwrap();
    let elsewhere = pinned("https://nowhere.invalid/x".to_owned(), &bytes);
    let offline = Settings {
        offline: true,
        ..settings()
    };
    assert_eq!(
        get(&offline, &elsewhere, case.folder.path()).unwrap()[0].path,
        fetched[0].path
    );
    assert_eq!(case.server.requests().len(), 1);
    let error = get(
        &offline,
        &unpinned("https://nowhere.invalid/x".to_owned()),
        case.folder.path(),
    )
    .unwrap_err();
    assert!(error.to_string().contains("HF_HUB_OFFLINE"), "{error}");
}

#[test]
fn a_connection_that_breaks_again_and_again_is_gone_on_with() {
    let bytes = content(200_000, 2);
    let served = bytes.clone();
    let case = Case::new(move |request| Reply {
        cut: Some(30_000),
        ..file(request, &served, Some("\"a\""))
    });
    assert_eq!(case.unpinned().unwrap(), bytes);
    let ranges = case.ranges();
    assert_eq!(ranges.len(), 7, "{ranges:?}");
    assert_eq!(ranges[1].as_deref(), Some("bytes=30000-"));
    assert_eq!(case.server.requests()[1].headers["if-range"], "\"a\"");
    assert_eq!(case.server.sent(), 200_000);
}

#[test]
fn without_a_validator_only_a_checksum_lets_it_go_on() {
    let bytes = content(50_000, 3);
    let served = bytes.clone();
    let weak = move |request: &Request| Reply {
        cut: (request.number == 0).then_some(30_000),
        ..file(request, &served, Some("W/\"a\""))
    };
    let case = Case::new(weak.clone());
    case.pinned(&bytes).unwrap();
    assert_eq!(case.ranges(), [None, Some("bytes=30000-".to_owned())]);
    assert!(!case.server.requests()[1].headers.contains_key("if-range"));
    // In one process the same answer may be gone on with only if it says which version it is of.
    let case = Case::new(weak);
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.ranges(), [None, None]);
}

#[test]
fn a_file_that_changes_meanwhile_is_not_spliced() {
    let (old, new) = (content(80_000, 4), content(90_000, 5));
    let served = (old.clone(), new.clone());
    // As the standard says, and as a server does that knows no If-Range.
    for deaf in [false, true] {
        let served = served.clone();
        let case = Case::new(move |request| {
            if request.number == 0 {
                return Reply {
                    cut: Some(30_000),
                    ..file(request, &served.0, Some("\"old\""))
                };
            }
            let mut request = request.clone();
            if deaf {
                request.headers.remove("if-range");
            }
            file(&request, &served.1, Some("\"new\""))
        });
        assert_eq!(case.unpinned().unwrap(), new);
        assert_eq!(case.server.requests().len(), if deaf { 3 } else { 2 });
    }
}

#[test]
fn a_server_without_ranges_is_asked_from_the_start() {
    let bytes = content(80_000, 6);
    let served = bytes.clone();
    let case = Case::new(move |request| {
        let cut = (request.number < 2).then_some(30_000 + request.number);
        Reply {
            cut,
            ..Reply::new(200, &*served).header("ETag", "\"a\"")
        }
    });
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.server.requests().len(), 3);
}

#[test]
fn a_length_that_is_too_long_is_noticed() {
    let bytes = content(10_000, 7);
    let served = bytes.clone();
    let case = Case::new(move |request| {
        let mut reply = file(request, &served, Some("\"a\""));
        if reply.status == 200 {
            reply.length = Some(20_000);
        }
        reply
    });
    for remote in [unpinned(case.url()), pinned(case.url(), &bytes)] {
        let error = get(&settings(), &remote, case.folder.path()).unwrap_err();
        assert_eq!(error.kind(), Kind::Environment);
        assert_eq!(whole(case.folder.path()), 0);
    }
}

#[test]
fn a_length_that_is_too_short_is_noticed_where_there_is_a_checksum() {
    let bytes = content(10_000, 8);
    let served = bytes.clone();
    let case = Case::new(move |request| Reply {
        length: Some(6_000),
        ..file(request, &served, Some("\"a\""))
    });
    let error = case.pinned(&bytes).unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&sha256(&bytes[..6_000])) && text.contains(&sha256(&bytes)),
        "{text}"
    );
    assert_eq!(error.kind(), Kind::Input);
    assert_eq!(whole(case.folder.path()), 0);
}

#[test]
fn where_the_end_cannot_be_told_a_checksum_is_needed() {
    let bytes = content(10_000, 9);
    let served = bytes.clone();
    let case = Case::new(move |_| Reply {
        length: None,
        ..Reply::new(200, &*served)
    });
    let error = case.unpinned().unwrap_err();
    assert!(error.hint_text().unwrap().contains("sha256"), "{error}");
    case.pinned(&bytes).unwrap();
    // Chunks have an end; and a beginning of them is not taken for all.
    let served = bytes.clone();
    let case = Case::new(move |request| Reply {
        chunked: true,
        cut: (request.number == 0).then_some(5_000),
        ..Reply::new(200, &*served)
    });
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.server.requests().len(), 2);
}

#[test]
fn a_wrong_content_is_refused_and_leaves_nothing() {
    let case = Case::new(|request| file(request, b"something else", Some("\"a\"")));
    let error = case.pinned(b"the file").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains(&sha256(b"something else")) && text.contains(&sha256(b"the file")),
        "{text}"
    );
    assert_eq!(case.server.requests().len(), 1);
    assert_eq!(partials(case.folder.path()), Vec::<PathBuf>::new());
    assert_eq!(whole(case.folder.path()), 0);
}

#[test]
fn a_wrong_beginning_is_thrown_away() {
    let bytes = content(50_000, 10);
    let served = bytes.clone();
    // Another file comes first; without validators nothing but the checksum tells.
    let case = Case::new(move |request| {
        if request.number == 0 {
            return Reply {
                cut: Some(20_000),
                ..file(request, &content(50_000, 11), None)
            };
        }
        Reply {
            cut: (request.number == 1).then_some(1),
            ..file(request, &served, None)
        }
    });
    let impatient = Settings {
        retries: 0,
        ..settings()
    };
    // The first process gives up, the second goes on with what it left, to no good end, and begins anew.
    get(&impatient, &pinned(case.url(), &bytes), case.folder.path()).unwrap_err();
    assert_eq!(partials(case.folder.path()).len(), 1);
    case.pinned(&bytes).unwrap();
    let ranges: Vec<_> = case.ranges().into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(ranges, ["", "bytes=20000-", "bytes=20001-", ""]);
}

#[test]
fn redirects_are_followed_to_an_end() {
    let served = content(1_000, 12);
    let bytes = served.clone();
    let other = Server::start(move |request| file(request, &served, None));
    let target = format!("{}/there", other.url);
    let case = Case::new(move |_| Reply::to(&target));
    case.pinned(&bytes).unwrap();
    let asked = &other.requests()[0];
    assert_eq!(asked.target, "/there");
    assert!(!asked.headers.contains_key("referer"));

    let case = Case::new(|_| Reply::to("/again"));
    let error = case.unpinned().unwrap_err();
    assert!(
        error.to_string().contains("redirected more than 10 times"),
        "{error}"
    );
    assert_eq!(case.server.requests().len(), 11);

    let case = Case::new(|_| Reply::to("ftp://127.0.0.1/x"));
    assert!(case.unpinned().is_err());
}

#[test]
fn passing_refusals_are_waited_for() {
    let bytes = content(1_000, 13);
    let served = bytes.clone();
    let case = Case::new(move |request| match request.number {
        0 => Reply::new(429, "slow down").header("Retry-After", "1"),
        1 => Reply::new(503, "not now"),
        _ => file(request, &served, None),
    });
    let start = Instant::now();
    case.pinned(&bytes).unwrap();
    assert!(start.elapsed() >= Duration::from_secs(1));
    assert_eq!(case.server.requests().len(), 3);
}

#[test]
fn refusals_that_stay_end_it() {
    let case = |status: u16, requests: usize, shown: &str| {
        let case = Case::new(move |_| Reply::new(status, "no"));
        let error = case.unpinned().unwrap_err();
        let text = error.to_string();
        assert!(text.contains(shown) && text.contains(&case.url()), "{text}");
        assert!(error.hint_text().is_some(), "{text}");
        assert_eq!(case.server.requests().len(), requests, "{status}");
    };
    case(404, 1, "404");
    case(403, 1, "403");
    case(416, 1, "416");
    case(204, 1, "204");
    case(304, 1, "304");
    case(206, 1, "206");
    case(503, 3, "attempt 3");
    let case = Case::new(|_| Reply::new(503, "no").header("Retry-After", "3600"));
    let error = case.unpinned().unwrap_err();
    assert!(error.to_string().contains("3600 s"), "{error}");
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn a_range_that_is_refused_begins_anew() {
    let bytes = content(50_000, 14);
    let served = bytes.clone();
    let case = Case::new(move |request| match request.number {
        0 | 2 => Reply {
            cut: Some(20_000),
            ..file(request, &served, Some("\"a\""))
        },
        1 => Reply::new(416, "").header("Content-Range", "bytes */10"),
        // Not what was asked for.
        3 => Reply::new(206, &served[10..]).header("Content-Range", "bytes 10-49999/50000"),
        _ => file(request, &served, Some("\"a\"")),
    });
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.server.requests().len(), 5);
}

#[test]
fn an_empty_file_is_one_only_if_it_is_expected() {
    let case = Case::new(|request| file(request, b"", None));
    assert!(case.unpinned().unwrap_err().to_string().contains("empty"));
    case.pinned(b"").unwrap();
}

#[test]
fn a_file_is_no_larger_than_allowed() {
    let bytes = content(10_000, 15);
    for chunked in [false, true] {
        let served = bytes.clone();
        let case = Case::new(move |_| Reply {
            chunked,
            ..Reply::new(200, &*served)
        });
        let limited = |max_bytes| RemoteFile {
            max_bytes: Some(max_bytes),
            ..unpinned(case.url())
        };
        let error = get(&settings(), &limited(9_999), case.folder.path()).unwrap_err();
        assert!(error.to_string().contains("9999"), "{error}");
        assert_eq!(error.kind(), Kind::Input);
        get(&settings(), &limited(10_000), case.folder.path()).unwrap();
        // Also of what is here already.
        get(&settings(), &limited(9_999), case.folder.path()).unwrap_err();
        assert_eq!(case.server.requests().len(), 2);
    }
}

#[test]
fn patience_ends() {
    let case = Case::new(|_| Reply {
        delay: Duration::from_secs(2),
        ..Reply::new(200, "late")
    });
    let once = Settings {
        retries: 0,
        ..settings()
    };
    let start = Instant::now();
    let error = get(&once, &unpinned(case.url()), case.folder.path()).unwrap_err();
    assert!(
        error.to_string().contains("no data from `127.0.0.1` for 400ms"),
        "{error}"
    );
    assert!(start.elapsed() < Duration::from_millis(1_500));

    let served = content(50_000, 16);
    let bytes = served.clone();
    let case = Case::new(move |request| Reply {
        stall: (request.number == 0).then_some(20_000),
        ..file(request, &served, Some("\"a\""))
    });
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.ranges(), [None, Some("bytes=20000-".to_owned())]);
}

#[test]
fn who_wants_to_end_does() {
    let case = Case::new(|request| Reply {
        stall: Some(20_000),
        ..file(request, &content(50_000, 17), Some("\"a\""))
    });
    let patient = Settings {
        idle_timeout: Duration::from_secs(60),
        ..settings()
    };
    let cancel = Cancel::default();
    let (canceller, start) = (cancel.clone(), Instant::now());
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        canceller.cancel();
    });
    let remote = unpinned(case.url());
    let error = fetch_with(&patient, &remote, case.folder.path(), &cancel, &|_| ()).unwrap_err();
    thread.join().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // What came in is kept, durably.
    let state = fs::read_to_string(partials(case.folder.path())[0].with_extension("json")).unwrap();
    assert!(state.contains("\"synced\": 20000"), "{state}");
}

#[test]
fn nobody_there() {
    let url = {
        let server = Server::start(|_| Reply::new(200, ""));
        server.url.clone()
    };
    let folder = tempfile::tempdir().unwrap();
    // Its thread may take a moment to let go of the port.
    std::thread::sleep(Duration::from_millis(50));
    let secret = url.replace("http://", "http://me:secret@");
    let error = get(
        &settings(),
        &unpinned(format!("{secret}/x?signature=secret")),
        folder.path(),
    )
    .unwrap_err();
    let (text, hint) = (error.to_string(), error.hint_text().unwrap());
    assert!(
        text.contains("cannot connect to `127.0.0.1`") && text.contains("refused"),
        "{text}"
    );
    assert!(!text.contains("secret"), "{text}");
    assert!(
        hint.contains("HTTPS_PROXY") && hint.contains("\"files\""),
        "{hint}"
    );
    assert_eq!(error.kind(), Kind::Environment);
}

#[test]
fn what_is_not_pinned_has_to_be_said_to_be() {
    let folder = tempfile::tempdir().unwrap();
    let remote = |url: &str, sha256: Option<&str>| RemoteFile {
        url: url.to_owned(),
        sha256: sha256.map(str::to_owned),
        unpinned: false,
        max_bytes: None,
    };
    let error = get(&settings(), &remote("http://127.0.0.1:1/x", None), folder.path()).unwrap_err();
    assert!(error.hint_text().unwrap().contains("unpinned"), "{error}");
    assert!(validate(&remote("hf://datasets/o/n@main/x", None)).is_err());
    validate(&remote(&format!("hf://datasets/o/n@{}/x", "a".repeat(40)), None)).unwrap();
    for faulty in ["", "ab", "é", &"A".repeat(64)] {
        assert!(
            validate(&remote("https://host/x", Some(faulty))).is_err(),
            "{faulty}"
        );
    }
}

#[test]
fn proxies_are_used_unless_excepted() {
    let proxy = Server::start(|request| {
        if request.target.contains("moved") {
            return Reply::to("http://other.invalid/there");
        }
        Reply::new(200, request.target.clone().into_bytes())
    });
    let folder = tempfile::tempdir().unwrap();
    let proxied = |except: Option<&str>| Settings {
        proxies: Proxies {
            http: Some(proxy.url.replace("http://", "http://me:secret@")),
            https: Some(proxy.url.replace("http://", "")),
            except: except.map(str::to_owned),
        },
        retries: 0,
        ..settings()
    };
    let fetched = get(
        &proxied(None),
        &unpinned("http://host.invalid/x".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(
        fs::read_to_string(&fetched[0].path).unwrap(),
        "http://host.invalid/x"
    );
    assert!(proxy.requests()[0].headers["proxy-authorization"].starts_with("Basic "));
    let fetched = get(
        &proxied(None),
        &unpinned("http://host.invalid/moved".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(
        fs::read_to_string(&fetched[0].path).unwrap(),
        "http://other.invalid/there"
    );
    // Through a tunnel; this proxy opens none, so that TLS comes to nothing.
    let error = get(
        &proxied(None),
        &unpinned("https://host.invalid/x".to_owned()),
        folder.path(),
    )
    .unwrap_err();
    assert!(!error.to_string().contains("secret"), "{error}");
    let last = proxy.requests().pop().unwrap();
    assert_eq!((&*last.method, &*last.target), ("CONNECT", "host.invalid:443"));

    let direct = Server::start(|_| Reply::new(200, "direct"));
    let url = format!("{}/x", direct.url);
    let fetched = get(
        &proxied(Some("example.org,127.0.0.1")),
        &unpinned(url),
        folder.path(),
    )
    .unwrap();
    assert_eq!(fs::read_to_string(&fetched[0].path).unwrap(), "direct");
}

#[test]
fn of_two_at_once_one_downloads() {
    let bytes = content(300_000, 18);
    let served = bytes.clone();
    let case = Case::new(move |request| Reply {
        pace: Duration::from_millis(10),
        ..file(request, &served, Some("\"a\""))
    });
    let remote = unpinned(case.url());
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| get(&settings(), &remote, case.folder.path()).unwrap()))
            .collect();
        let mut results = threads.into_iter().map(|thread| thread.join().unwrap());
        let first = results.next().unwrap();
        assert_eq!(fs::read(&first[0].path).unwrap(), bytes);
        assert!(results.all(|other| other == first));
    });
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn who_waits_for_another_can_give_up() {
    let case = Case::new(|_| Reply::new(200, "x"));
    let remote = unpinned(case.url());
    let cache = Cache::at(case.folder.path());
    let _held = cache.lock(&remote.url, &Cancel::default(), &|_| ()).unwrap();
    let cancel = Cancel::default();
    let waited = AtomicUsize::new(0);
    let error = fetch_with(&settings(), &remote, case.folder.path(), &cancel, &|_| {
        if waited.fetch_add(1, Ordering::Relaxed) == 2 {
            cancel.cancel();
        }
    })
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(case.server.requests().len(), 0);
}

#[test]
fn what_lies_there_damaged_counts_for_nothing() {
    let bytes = content(200_000, 19);
    let served = bytes.clone();
    let case = Case::new(move |request| file(request, &served, Some("\"a\"")));
    let once = Settings {
        retries: 0,
        ..settings()
    };
    let begin = || {
        let server = Server::start(|_| Reply::new(500, "no"));
        get(&once, &unpinned(format!("{}/x", server.url)), case.folder.path()).unwrap_err();
    };
    begin();
    let remote = unpinned(case.url());
    let cache = Cache::at(case.folder.path());
    let open = || {
        let cancel = Cancel::default();
        cache::Partial::open(
            &cache,
            &remote.url,
            "shown",
            &Expected::default(),
            64 << 10,
            &cancel,
        )
        .unwrap()
    };
    // Bytes without a description; fewer bytes than were synced; a description that is none; bytes past the synced ones.
    let begin = |synced: &[u8], more: &[u8]| {
        let mut partial = open();
        partial.restart().unwrap();
        partial.describe(Some("\"a\"".to_owned()), Some(200_000)).unwrap();
        partial.push(synced).unwrap();
        partial.sync().unwrap();
        partial.push(more).unwrap();
    };
    let data = || {
        partials(case.folder.path()).into_iter().find(|path| {
            fs::read_to_string(path.with_extension("json")).is_ok_and(|text| text.contains("shown"))
        })
    };
    begin(&bytes[..1_000], &[]);
    fs::remove_file(data().unwrap().with_extension("json")).unwrap();
    assert_eq!(open().len(), 0);
    begin(&bytes[..1_000], &[]);
    fs::write(data().unwrap(), &bytes[..999]).unwrap();
    assert_eq!(open().len(), 0);
    begin(&bytes[..1_000], &[]);
    fs::write(data().unwrap().with_extension("json"), "{\"url\": \"shown").unwrap();
    assert_eq!(open().len(), 0);
    begin(&bytes[..1_000], b"who knows");
    assert_eq!(open().len(), 1_000);
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.ranges(), [Some("bytes=1000-".to_owned())]);
    // An index whose file is gone, or has another length, is none.
    let fetched = get(&settings(), &remote, case.folder.path()).unwrap();
    fs::remove_file(&fetched[0].path).unwrap();
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.server.requests().len(), 2);
    let index = glob::glob(&format!("{}/index/*.json", case.folder.path().display()))
        .unwrap()
        .next()
        .unwrap()
        .unwrap();
    fs::write(index, "{}").unwrap();
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.server.requests().len(), 3);
}

#[test]
fn a_download_that_is_whole_and_was_not_renamed_needs_no_network() {
    let bytes = content(1_000, 20);
    let folder = tempfile::tempdir().unwrap();
    let remote = unpinned("https://nowhere.invalid/x".to_owned());
    let cache = Cache::at(folder.path());
    for etag in [None, Some("\"a\"".to_owned())] {
        let cancel = Cancel::default();
        let expected = Expected::default();
        let mut partial =
            cache::Partial::open(&cache, &remote.url, "shown", &expected, 1 << 20, &cancel).unwrap();
        partial.describe(etag, Some(1_000)).unwrap();
        partial.push(&bytes).unwrap();
        partial.sync().unwrap();
        drop(partial);
        let fetched = get(&settings(), &remote, folder.path()).unwrap();
        assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
        fs::remove_dir_all(folder.path()).unwrap();
    }
}

#[test]
fn files_brought_by_hand_are_checked() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    assert_eq!(check(&path, "").unwrap_err().kind(), Kind::Input);
    let bytes = content(600_000, 21);
    fs::write(&path, &bytes).unwrap();
    check(&path, &sha256(&bytes)).unwrap();
    let error = check(&path, &sha256(b"x")).unwrap_err();
    assert!(error.to_string().contains(&sha256(&bytes)), "{error}");
}

/// The child of the test below: downloads what it is told to, where it is told to.
#[test]
fn child() {
    let Ok(task) = std::env::var("MDLM_TEST_FETCH") else {
        return;
    };
    let parts: Vec<&str> = task.split('\n').collect();
    let remote = RemoteFile {
        url: parts[0].to_owned(),
        sha256: (!parts[2].is_empty()).then(|| parts[2].to_owned()),
        unpinned: parts[2].is_empty(),
        max_bytes: None,
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
        .args(["--exact", "data::fetch::tests::child"])
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

/// In a process of its own, which is told whom to trust by its environment.
#[test]
#[cfg(target_os = "linux")]
fn behind_tls() {
    let bytes = content(100_000, 60);
    let served = bytes.clone();
    let plain = Server::start(|_| Reply::new(200, "plain"));
    let target = plain.url.clone();
    let case = Case {
        server: Server::start_tls(move |request| match &*request.target {
            "/down" => Reply::to(&target),
            _ => Reply {
                cut: (request.number == 0).then_some(30_000),
                ..file(request, &served, Some("\"a\""))
            },
        }),
        folder: tempfile::tempdir().unwrap(),
    };
    let trusted = case.folder.path().join("certificate.pem");
    fs::write(&trusted, CERTIFICATE).unwrap();
    let child = |remote: &RemoteFile| {
        let mut command = command(remote, case.folder.path());
        command
            .env("SSL_CERT_FILE", &trusted)
            .env_remove("SSL_CERT_DIR")
            .output()
            .unwrap()
    };
    let remote = unpinned(case.url());
    let error = get(&settings(), &remote, case.folder.path()).unwrap_err();
    assert!(error.to_string().contains("certificate"), "{error}");
    assert_eq!(case.server.requests().len(), 0);
    let output = child(&remote);
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stdout)
    );
    assert_eq!(case.unpinned().unwrap(), bytes);
    assert_eq!(case.ranges(), [None, Some("bytes=30000-".to_owned())]);

    let output = child(&unpinned(format!("{}/down", case.server.url)));
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(
        text.contains("redirected from https to http://127.0.0.1"),
        "{text}"
    );
    assert_eq!(plain.requests().len(), 0);
}

#[test]
fn killed_at_any_byte_it_goes_on() {
    let bytes = content(1 << 20, 22);
    for checked in [true, false] {
        let served = bytes.clone();
        let case = Case::new(move |request| Reply {
            pace: Duration::from_millis(4),
            ..file(request, &served, Some("\"a\""))
        });
        let remote = if checked {
            pinned(case.url(), &bytes)
        } else {
            unpinned(case.url())
        };
        let mut killed = 0;
        // The bytes that the server has sent say when; each child gets further than the one before.
        for step in 0..5 {
            let mut child = spawn_child(&remote, case.folder.path());
            let start = case.server.sent();
            let goal = start + 70_000 + step * 24_001;
            while case.server.sent() < goal && child.try_wait().unwrap().is_none() {
                std::thread::sleep(Duration::from_micros(300));
            }
            killed += usize::from(child.try_wait().unwrap().is_none());
            child.kill().unwrap();
            child.wait().unwrap();
            assert_eq!(whole(case.folder.path()), 0);
        }
        assert_eq!(killed, 5);
        assert!(spawn_child(&remote, case.folder.path()).wait().unwrap().success());
        assert_eq!(whole(case.folder.path()), 1);
        let fetched = get(&settings(), &remote, case.folder.path()).unwrap();
        assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
        let ranges = case.ranges();
        assert_eq!(ranges.len(), 6);
        assert!(ranges[5].is_some(), "{ranges:?}");
        assert_eq!(partials(case.folder.path()), Vec::<PathBuf>::new());
    }
}

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
fn files_of_the_hub_are_listed_checked_and_found_again() {
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
    // The hub is told who asks, the storage is not.
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

#[test]
fn what_the_hub_does_not_have() {
    let case = Hub::new(&[
        ("a.txt", content(10, 35), false),
        ("b.bin", content(10, 36), true),
    ]);
    let error = case.get(COMMIT, "*.parquet").unwrap_err();
    assert!(
        error.to_string().contains("matches none of the 2 files"),
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
fn what_the_hub_sends_is_what_it_lists() {
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
    // And something that is no hub.
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
fn a_token_does_not_travel_in_the_clear() {
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

/// As much of S3 as reading takes: `GET` of objects with ranges and `If-Match`, lists in pages of one.
fn s3(objects: BTreeMap<String, Vec<u8>>) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let Some(key) = path
            .strip_prefix("/bucket")
            .map(|key| key.trim_start_matches('/'))
        else {
            return Reply::new(404, "<Error><Code>NoSuchBucket</Code></Error>");
        };
        if query.contains("list-type=2") {
            let get = |name: &str| {
                query
                    .split('&')
                    .find_map(|part| part.strip_prefix(name))
                    .unwrap_or_default()
            };
            let prefix = get("prefix=").replace("%2F", "/");
            let after = get("continuation-token=").replace("%2F", "/");
            let keys: Vec<&String> = objects
                .keys()
                .filter(|key| key.starts_with(&prefix) && **key > after)
                .collect();
            let mut xml = format!(
                "<?xml version=\"1.0\"?><ListBucketResult><IsTruncated>{}</IsTruncated>",
                keys.len() > 1
            );
            if let Some(key) = keys.first() {
                let size = objects[*key].len();
                xml += "<Contents><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag>";
                let _ = write!(xml, "<Key>{key}</Key><Size>{size}</Size></Contents>");
                if keys.len() > 1 {
                    let _ = write!(xml, "<NextContinuationToken>{key}</NextContinuationToken>");
                }
            }
            return Reply::new(200, xml + "</ListBucketResult>");
        }
        let Some(bytes) = objects.get(key) else {
            return Reply::new(404, "<Error><Code>NoSuchKey</Code></Error>");
        };
        let etag = format!("\"{}\"", &sha256(bytes)[..16]);
        if request
            .headers
            .get("if-match")
            .is_some_and(|wanted| *wanted != etag)
        {
            return Reply::new(412, "<Error><Code>PreconditionFailed</Code></Error>");
        }
        file(request, bytes, Some(&etag)).header("Last-Modified", "Mon, 01 Jan 2024 00:00:00 GMT")
    }
}

fn s3_settings(server: &Server) -> Settings {
    let variables = [
        ("AWS_ENDPOINT_URL", &*server.url),
        ("AWS_ALLOW_HTTP", "true"),
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_REGION", "eu-central-1"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Settings {
        buckets: Settings::from_variables(&variables.into()).buckets,
        ..settings()
    }
}

#[test]
fn objects_of_a_server_that_speaks_s3() {
    let objects: BTreeMap<String, Vec<u8>> = [
        ("a/1.txt", 40),
        ("a/2.txt", 41),
        ("a/b/3.txt", 42),
        ("a/4.bin", 43),
        ("c/5.txt", 44),
    ]
    .into_iter()
    .map(|(key, seed)| (key.to_owned(), content(60_000, seed)))
    .collect();
    let serve = s3(objects.clone());
    let server = Server::start(move |request| {
        let mut reply = serve(request);
        // The first connection for an object breaks.
        if request.target.contains(".txt")
            && !request.target.contains('?')
            && !request.headers.contains_key("range")
        {
            reply.cut = Some(20_000);
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = get(
        &s3_settings(&server),
        &unpinned("s3://bucket/a/*.txt".to_owned()),
        folder.path(),
    )
    .unwrap();
    let urls: Vec<&str> = fetched.iter().map(|file| &*file.url).collect();
    assert_eq!(urls, ["s3://bucket/a/1.txt", "s3://bucket/a/2.txt"]);
    for (file, key) in fetched.iter().zip(["a/1.txt", "a/2.txt"]) {
        assert_eq!(fs::read(&file.path).unwrap(), objects[key]);
    }
    let requests = server.requests();
    let user_agent = &requests[0].headers["user-agent"];
    assert!(user_agent.starts_with("mdlm/"), "{user_agent}");
    assert!(requests.iter().any(|request| {
        request
            .headers
            .get("range")
            .is_some_and(|range| range.contains("20000-"))
    }));

    let before = requests.len();
    let again = get(
        &s3_settings(&server),
        &unpinned("s3://bucket/a/*.txt".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(again, fetched);
    let one = get(
        &s3_settings(&server),
        &unpinned("s3://bucket/a/2.txt".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(one, fetched[1..]);
    assert_eq!(server.requests().len(), before);
    let one = get(
        &s3_settings(&server),
        &pinned("s3://bucket/c/5.txt".to_owned(), &objects["c/5.txt"]),
        folder.path(),
    );
    assert_eq!(fs::read(&one.unwrap()[0].path).unwrap(), objects["c/5.txt"]);

    let error = |url: &str| get(&s3_settings(&server), &unpinned(url.to_owned()), folder.path()).unwrap_err();
    let missing = error("s3://bucket/none");
    assert!(
        missing.to_string().contains("there is no object `none`"),
        "{missing}"
    );
    assert!(
        error("s3://bucket/a/*.csv")
            .to_string()
            .contains("none of the 4 objects")
    );
    // The same key of another server is another file.
    let other = Server::start(s3([("a/2.txt".to_owned(), content(10, 45))].into()));
    let fetched = get(
        &s3_settings(&other),
        &unpinned("s3://bucket/a/2.txt".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(fs::read(&fetched[0].path).unwrap(), content(10, 45));
}

#[test]
fn an_object_that_changes_meanwhile_is_not_spliced() {
    let (old, new) = (content(60_000, 46), content(60_000, 47));
    let (first, then) = (
        s3([("x".to_owned(), old)].into()),
        s3([("x".to_owned(), new.clone())].into()),
    );
    let server = Server::start(move |request| {
        if request.number > 0 {
            return then(request);
        }
        Reply {
            cut: Some(20_000),
            ..first(request)
        }
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = get(
        &s3_settings(&server),
        &unpinned("s3://bucket/x".to_owned()),
        folder.path(),
    )
    .unwrap();
    assert_eq!(fs::read(&fetched[0].path).unwrap(), new);
}

#[test]
fn a_bucket_is_not_asked_in_the_clear_unless_that_is_allowed() {
    let server = Server::start(s3([("x".to_owned(), vec![1])].into()));
    let mut settings = s3_settings(&server);
    settings.buckets.remove("aws_allow_http");
    let folder = tempfile::tempdir().unwrap();
    get(&settings, &unpinned("s3://bucket/x".to_owned()), folder.path()).unwrap_err();
    assert_eq!(server.requests().len(), 0);
}

#[test]
fn buckets_of_every_kind_are_made_ready() {
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_SKIP_SIGNATURE", "true"),
        ("GOOGLE_SKIP_SIGNATURE", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::from_variables(&variables.into());
    for url in ["az://container/x", "gs://bucket/x", "s3://bucket/x"] {
        let Place::Bucket(place) = Place::parse(url).unwrap() else {
            panic!()
        };
        Bucket::open_store(&place, &settings).unwrap();
    }
    let Place::Bucket(place) = Place::parse("az://container/x").unwrap() else {
        panic!()
    };
    let error = Bucket::open_store(&place, &Settings::default()).err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"),
        "{error}"
    );
}

#[test]
fn objects_in_memory() {
    let store = Arc::new(object_store::memory::InMemory::new());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let folder = tempfile::tempdir().unwrap();
    let cache = Cache::at(folder.path());
    let with = Surroundings {
        cache: &cache,
        settings: &settings(),
        cancel: &Cancel::default(),
        progress: &|_| (),
    };
    runtime.block_on(async {
        for key in ["a/1", "a/2", "b/3"] {
            store
                .put(&key.into(), key.as_bytes().to_vec().into())
                .await
                .unwrap();
        }
        let bucket = Bucket::of(store);
        let Place::Bucket(place) = Place::parse("gs://bucket/a/*").unwrap() else {
            panic!()
        };
        let remote = unpinned("gs://bucket/a/*".to_owned());
        let entries = bucket_entries(&bucket, &remote, &place, "identity", "shown", with)
            .await
            .unwrap();
        let read = |entry: &Entry| fs::read_to_string(cache.path(&entry.sha256)).unwrap();
        assert_eq!(entries.iter().map(read).collect::<Vec<_>>(), ["a/1", "a/2"]);
        assert_eq!(cache.known("identity"), Some(entries));
    });
}
