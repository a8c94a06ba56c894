//! What is kept: found again, shared, damaged, left by processes that were killed.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::data::fetch::cache::Partial;
use crate::error::Kind;

#[test]
fn cache_serves_a_downloaded_file_without_the_network() {
    let bytes = content(100_000, 1);
    let served = bytes.clone();
    let case = Case::new(move |request| file(request, &served, Some("\"a\"")));
    let reports = Mutex::new(Vec::new());
    let remote = unpinned(case.url());
    let fetched = fetch_with(
        &settings(),
        &remote,
        &downloads(case.folder.path()),
        &Cancel::default(),
        &|progress| {
            assert_eq!(progress.url, remote.url);
            reports.lock().unwrap().push((progress.done, progress.total));
        },
    )
    .unwrap();
    assert_eq!(fetched.len(), 1);
    assert_eq!(fetched[0].url, remote.url);
    assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
    assert!(fs::metadata(&fetched[0].path).unwrap().permissions().readonly());
    let reports = reports.into_inner().unwrap();
    assert_eq!(reports.first(), Some(&(0, Some(100_000))));
    assert_eq!(reports.last(), Some(&(100_000, Some(100_000))));
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
fn cache_lets_one_of_two_processes_download() {
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
fn cancel_ends_the_wait_for_another_download() {
    let case = Case::new(|_| Reply::new(200, "x"));
    let remote = unpinned(case.url());
    let cache = Cache::at(case.folder.path());
    let _held = cache.lock(&remote.url, &Cancel::default(), &|_| ()).unwrap();
    let cancel = Cancel::default();
    let waited = AtomicUsize::new(0);
    let error = fetch_with(
        &settings(),
        &remote,
        &downloads(case.folder.path()),
        &cancel,
        &|_| {
            if waited.fetch_add(1, Ordering::Relaxed) == 2 {
                cancel.cancel();
            }
        },
    )
    .unwrap_err();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert_eq!(case.server.requests().len(), 0);
}

#[test]
fn cache_ignores_damaged_files() {
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
        Partial::open(
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
fn cache_takes_a_complete_download_that_was_not_renamed() {
    let bytes = content(1_000, 20);
    let folder = tempfile::tempdir().unwrap();
    let remote = unpinned("https://nowhere.invalid/x".to_owned());
    let cache = Cache::at(folder.path());
    for etag in [None, Some("\"a\"".to_owned())] {
        let cancel = Cancel::default();
        let expected = Expected::default();
        let mut partial = Partial::open(&cache, &remote.url, "shown", &expected, 1 << 20, &cancel).unwrap();
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
fn checksum_of_files_by_hand_is_computed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x");
    let cancel = Cancel::default();
    assert_eq!(sha256_of(&path, &cancel).unwrap_err().kind(), Kind::Input);
    let bytes = content(600_000, 21);
    fs::write(&path, &bytes).unwrap();
    assert_eq!(sha256_of(&path, &cancel).unwrap(), sha256(&bytes));
    cancel.cancel();
    assert_eq!(sha256_of(&path, &cancel).unwrap_err().kind(), Kind::Interrupted);
}

#[test]
fn resume_of_a_download_after_a_kill_at_any_byte() {
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
