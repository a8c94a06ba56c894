//! What a folder of downloads holds, and forgetting it.

use super::*;
use crate::error::Kind;

fn urls(downloads: &[Download]) -> Vec<&str> {
    downloads.iter().map(|download| &*download.url).collect()
}

#[test]
fn forget_makes_the_next_run_download_again() {
    let (old, new) = (content(1_000, 70), content(2_000, 71));
    let served = (old.clone(), new.clone());
    let case = Case::new(move |request| {
        let bytes = if request.number == 0 { &served.0 } else { &served.1 };
        file(request, bytes, None)
    });
    let folder = case.folder.path();
    assert_eq!(inventory(folder).unwrap(), Inventory::default());
    assert_eq!(forget(folder, "*").unwrap_err().kind(), Kind::Input);
    assert_eq!(fs::read_dir(folder).unwrap().count(), 0);

    assert_eq!(case.unpinned().unwrap(), old);
    assert_eq!(case.unpinned().unwrap(), old);
    let held = inventory(folder).unwrap();
    assert_eq!((held.begun, held.unnamed), (vec![], vec![]));
    assert_eq!(urls(&held.downloads), [case.url()]);
    let [download] = held.downloads.as_slice() else {
        panic!()
    };
    assert!(!download.pinned && download.when.elapsed().unwrap() < Duration::from_secs(60));
    let [found] = download.files.as_slice() else {
        panic!()
    };
    assert_eq!(
        (&*found.sha256, found.bytes, found.here),
        (&*sha256(&old), 1_000, true)
    );

    // As the manifest has it, with a query that is not kept.
    let forgotten = forget(folder, &format!("{}?signature=x", case.url())).unwrap();
    assert_eq!(urls(&forgotten.downloads), [case.url()]);
    assert_eq!(forgotten.deleted.len(), 1);
    assert_eq!(whole(folder), 0);
    assert_eq!(inventory(folder).unwrap(), Inventory::default());
    assert_eq!(case.unpinned().unwrap(), new);
    assert_eq!(case.server.requests().len(), 2);
}

#[test]
fn forget_keeps_content_that_another_url_names() {
    let bytes = content(1_000, 72);
    let served = bytes.clone();
    let case = Case::new(move |request| file(request, &served, None));
    let folder = case.folder.path();
    let other = format!("{}/other", case.server.url);
    case.pinned(&bytes).unwrap();
    get(&settings(), &unpinned(other.clone()), folder).unwrap();
    let held = inventory(folder).unwrap();
    let pinned: Vec<bool> = held.downloads.iter().map(|download| download.pinned).collect();
    assert_eq!(
        (urls(&held.downloads), pinned),
        (vec![&*case.url(), &*other], vec![true, false])
    );

    let forgotten = forget(folder, &case.url()).unwrap();
    assert_eq!((forgotten.deleted.len(), forgotten.named.len()), (0, 1));
    assert_eq!(whole(folder), 1);
    // `*` stands for slashes too.
    let forgotten = forget(folder, "http://*other").unwrap();
    assert_eq!(urls(&forgotten.downloads), [other]);
    assert_eq!((forgotten.deleted.len(), forgotten.named.len()), (1, 0));
    assert_eq!(whole(folder), 0);
}

#[test]
fn forget_keeps_content_that_a_process_reads() {
    let bytes = content(1_000, 73);
    let served = bytes.clone();
    let case = Case::new(move |request| file(request, &served, None));
    let folder = case.folder.path();
    let reader = downloads(folder);
    assert_eq!(case.unpinned().unwrap(), bytes);
    let forgotten = forget(folder, &case.url()).unwrap();
    assert_eq!((forgotten.deleted.len(), forgotten.in_use.len()), (0, 1));
    let held = inventory(folder).unwrap();
    assert_eq!((held.downloads.len(), held.unnamed.len()), (0, 1));
    assert_eq!(forget(folder, "sha256:*").unwrap().in_use.len(), 1);
    drop(reader);
    let forgotten = forget(folder, &format!("sha256:{}", sha256(&bytes))).unwrap();
    assert_eq!(forgotten.deleted, held.unnamed);
    assert_eq!(whole(folder), 0);
}

#[test]
fn forget_leaves_a_download_in_progress() {
    let bytes = content(300_000, 74);
    let served = bytes.clone();
    let case = Case::new(move |request| Reply {
        pace: Duration::from_millis(20),
        ..file(request, &served, Some("\"a\""))
    });
    let folder = case.folder.path();
    std::thread::scope(|scope| {
        let download = scope.spawn(|| case.unpinned().unwrap());
        while inventory(folder)
            .unwrap()
            .begun
            .iter()
            .all(|begun| begun.bytes == 0)
        {
            std::thread::sleep(Duration::from_millis(5));
        }
        let forgotten = forget(folder, "*").unwrap();
        assert_eq!(
            forgotten,
            Forgotten {
                busy: vec![case.url()],
                ..Forgotten::default()
            }
        );
        assert_eq!(download.join().unwrap(), bytes);
    });
    assert_eq!(case.server.requests().len(), 1);
}

#[test]
fn forget_deletes_a_download_that_has_begun() {
    let case = Case::new(|request| Reply {
        cut: (request.number == 0).then_some(20_000),
        ..file(request, &content(50_000, 75), Some("\"a\""))
    });
    let folder = case.folder.path();
    let once = Settings {
        retries: 0,
        ..settings()
    };
    get(&once, &unpinned(case.url()), folder).unwrap_err();
    let held = inventory(folder).unwrap();
    let [begun] = held.begun.as_slice() else {
        panic!("{held:?}")
    };
    assert_eq!(
        (&*begun.url, begun.bytes, begun.total),
        (&*case.url(), 20_000, Some(50_000))
    );
    assert_eq!(forget(folder, &case.url()).unwrap().begun, held.begun);
    assert_eq!(partials(folder), Vec::<PathBuf>::new());
    case.unpinned().unwrap();
    assert_eq!(case.ranges(), [None, None]);
}

#[test]
fn forget_and_list_work_beside_damaged_records() {
    let case = Case::new(|request| file(request, &content(1_000, 76), None));
    let folder = case.folder.path();
    case.unpinned().unwrap();
    fs::write(folder.join("index/0123.json"), "{\"url\": \"x\"").unwrap();
    fs::write(
        folder.join("index/4567.json"),
        "{\"url\": \"x\", \"files\": [{\"url\": \"x\", \"sha256\": \"../x\", \"bytes\": 1}]}",
    )
    .unwrap();
    fs::write(folder.join("index/x.json.tmp1-0"), "").unwrap();
    fs::write(folder.join("sha256/x"), "").unwrap();
    assert_eq!(inventory(folder).unwrap().downloads.len(), 1);
    // A file that is gone: the index counts for nothing, and can be forgotten.
    let file = get(&settings(), &unpinned(case.url()), folder).unwrap().remove(0);
    fs::remove_file(&file.path).unwrap();
    assert!(!inventory(folder).unwrap().downloads[0].files[0].here);
    assert_eq!(forget(folder, "*").unwrap().deleted, []);
    let error = forget(folder, "a**b").unwrap_err();
    assert!(
        error.to_string().contains("a**b") && error.hint_text().unwrap().contains("`*`"),
        "{error}"
    );
}
