//! What comes in: connections that break, versions that change, lengths and contents that are wrong.

use super::*;
use crate::error::Kind;

#[test]
fn resume_after_a_connection_that_breaks_again_and_again() {
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
fn resume_without_a_validator_needs_a_checksum() {
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
fn resume_restarts_when_the_file_has_changed() {
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
fn resume_restarts_at_a_server_without_ranges() {
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
fn length_header_that_is_too_long_is_an_error() {
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
fn length_header_that_is_too_short_is_an_error_with_a_checksum() {
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
fn length_header_that_is_absent_needs_a_checksum() {
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
fn checksum_of_other_content_is_refused_and_leaves_no_file() {
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
fn checksum_of_a_wrong_beginning_restarts_the_download() {
    let bytes = content(50_000, 10);
    let served = bytes.clone();
    // Another file comes first; without validators only the checksum shows it.
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
    // The first process gives up, the second goes on with what it left, fails, and starts from the beginning.
    get(&impatient, &pinned(case.url(), &bytes), case.folder.path()).unwrap_err();
    assert_eq!(partials(case.folder.path()).len(), 1);
    case.pinned(&bytes).unwrap();
    let ranges: Vec<_> = case.ranges().into_iter().map(Option::unwrap_or_default).collect();
    assert_eq!(ranges, ["", "bytes=20000-", "bytes=20001-", ""]);
}

#[test]
fn resume_restarts_when_the_range_is_refused() {
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
fn empty_file_is_an_error_unless_pinned() {
    let case = Case::new(|request| file(request, b"", None));
    assert!(case.unpinned().unwrap_err().to_string().contains("empty"));
    case.pinned(b"").unwrap();
}

#[test]
fn size_limit_ends_a_download() {
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
