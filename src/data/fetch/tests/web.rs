//! The way there: redirects, refusals, patience, proxies, TLS.

use std::time::Instant;

use super::server::CERTIFICATE;
use super::*;
use crate::error::Kind;

#[test]
fn redirects_are_followed_up_to_a_limit() {
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
fn retries_wait_for_refusals_that_pass() {
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
fn retries_are_not_made_after_refusals_that_stay() {
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
fn timeout_of_a_response_is_an_error() {
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
fn cancel_ends_a_download() {
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
    let error = fetch_with(
        &patient,
        &remote,
        &downloads(case.folder.path()),
        &cancel,
        &|_| (),
    )
    .unwrap_err();
    thread.join().unwrap();
    assert_eq!(error.kind(), Kind::Interrupted);
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    // What came in is kept, durably.
    let state = fs::read_to_string(partials(case.folder.path())[0].with_extension("json")).unwrap();
    assert!(state.contains("\"synced\": 20000"), "{state}");
}

#[test]
fn connection_refused_is_an_error_of_the_environment() {
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
fn unpinned_downloads_must_be_declared() {
    let folder = tempfile::tempdir().unwrap();
    let remote = |url: &str, sha256: Option<&str>| RemoteFile {
        url: url.to_owned(),
        sha256: sha256.map(str::to_owned),
        unpinned: false,
        max_bytes: None,
        exclude: vec![],
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

/// In a separate process, whose environment names the certificates to trust.
#[test]
#[cfg(target_os = "linux")]
fn tls_trusts_the_certificates_of_the_environment() {
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
