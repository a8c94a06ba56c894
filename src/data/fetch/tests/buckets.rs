//! Buckets: servers that speak as much of each cloud's language as reading takes, and a store in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use object_store::ObjectStoreExt as _;

use super::*;
use crate::data::fetch::place::Cloud;

const CLOUDS: [Cloud; 3] = [Cloud::S3, Cloud::Gcs, Cloud::Azure];

/// As much of a cloud's interface as reading takes: `GET` of objects with ranges and `If-Match`, lists in pages of one.
fn serve(
    cloud: Cloud,
    objects: BTreeMap<String, Vec<u8>>,
) -> impl Fn(&Request) -> Reply + Send + Sync + 'static {
    move |request| {
        let (path, query) = request.target.split_once('?').unwrap_or((&request.target, ""));
        let path = decoded(path);
        let Some(key) = path
            .strip_prefix("/bucket")
            .map(|key| key.trim_start_matches('/'))
        else {
            return Reply::new(404, "<Error><Code>NoSuchBucket</Code></Error>");
        };
        let get = |name: &str| {
            let mut parts = query.split('&').filter_map(|part| part.split_once('='));
            parts
                .find(|(key, _)| *key == name)
                .map(|(_, value)| decoded(value))
        };
        let is_list = match cloud {
            Cloud::S3 | Cloud::Gcs => get("list-type").as_deref() == Some("2"),
            Cloud::Azure => get("comp").as_deref() == Some("list"),
        };
        if is_list {
            let after = get(match cloud {
                Cloud::S3 | Cloud::Gcs => "continuation-token",
                Cloud::Azure => "marker",
            });
            let (prefix, after) = (get("prefix").unwrap_or_default(), after.unwrap_or_default());
            let mut listed = objects
                .iter()
                .filter(|(key, _)| key.starts_with(&prefix) && **key > after);
            let (first, more) = (listed.next(), listed.next().is_some());
            return Reply::new(200, list(cloud, first, more));
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

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text)
        .decode_utf8()
        .unwrap()
        .into_owned()
}

/// A page of a list, of one object or none.
fn list(cloud: Cloud, object: Option<(&String, &Vec<u8>)>, more: bool) -> String {
    let mut xml = "<?xml version=\"1.0\" encoding=\"utf-8\"?>".to_owned();
    let next = object.filter(|_| more).map(|(key, _)| key.as_str());
    match cloud {
        Cloud::S3 | Cloud::Gcs => {
            let _ = write!(xml, "<ListBucketResult><IsTruncated>{more}</IsTruncated>");
            if let Some((key, bytes)) = object {
                xml += "<Contents><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>\"e\"</ETag>";
                let _ = write!(xml, "<Key>{key}</Key><Size>{}</Size></Contents>", bytes.len());
            }
            if let Some(next) = next {
                let _ = write!(xml, "<NextContinuationToken>{next}</NextContinuationToken>");
            }
            xml + "</ListBucketResult>"
        }
        Cloud::Azure => {
            xml += "<EnumerationResults ContainerName=\"bucket\"><Blobs>";
            if let Some((key, bytes)) = object {
                let _ = write!(
                    xml,
                    "<Blob><Name>{key}</Name><Properties><Last-Modified>Mon, 01 Jan 2024 00:00:00 \
                     GMT</Last-Modified><Etag>0x8D</Etag><Content-Length>{}</Content-Length><Content-Type>text/plain\
                     </Content-Type><BlobType>BlockBlob</BlobType></Properties></Blob>",
                    bytes.len()
                );
            }
            let next = next.unwrap_or_default();
            let _ = write!(
                xml,
                "</Blobs><NextMarker>{next}</NextMarker></EnumerationResults>"
            );
            xml
        }
    }
}

/// The variables that name a server, and allow anonymous access; of S3, with a signature.
fn settings_of(cloud: Cloud, server: &Server) -> Settings {
    let url = &*server.url;
    let variables: &[(&str, &str)] = match cloud {
        Cloud::S3 => &[
            ("AWS_ENDPOINT_URL", url),
            ("AWS_ALLOW_HTTP", "true"),
            ("AWS_ACCESS_KEY_ID", "key"),
            ("AWS_SECRET_ACCESS_KEY", "secret"),
            ("AWS_REGION", "eu-central-1"),
        ],
        Cloud::Gcs => &[
            ("GOOGLE_BASE_URL", url),
            ("GOOGLE_ALLOW_HTTP", "true"),
            ("GOOGLE_SKIP_SIGNATURE", "true"),
        ],
        Cloud::Azure => &[
            ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
            ("AZURE_STORAGE_ENDPOINT", url),
            ("AZURE_ALLOW_HTTP", "true"),
            ("AZURE_SKIP_SIGNATURE", "true"),
        ],
    };
    let variables = variables
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Settings {
        buckets: Settings::from_variables(&variables.collect()).buckets,
        ..settings()
    }
}

/// A URL of the bucket.
fn at(cloud: Cloud, key: &str) -> String {
    let scheme = match cloud {
        Cloud::S3 => "s3",
        Cloud::Gcs => "gs",
        Cloud::Azure => "az",
    };
    format!("{scheme}://bucket/{key}")
}

#[test]
fn buckets_of_s3_gcs_and_azure_are_listed_and_read() {
    for cloud in CLOUDS {
        objects_of(cloud);
    }
}

fn objects_of(cloud: Cloud) {
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
    let answer = serve(cloud, objects.clone());
    let server = Server::start(move |request| {
        let mut reply = answer(request);
        // The first connection for an object breaks.
        if decoded(&request.target).contains(".txt")
            && !request.target.contains('?')
            && !request.headers.contains_key("range")
        {
            reply.cut = Some(20_000);
        }
        reply
    });
    let folder = tempfile::tempdir().unwrap();
    let fetched = get(
        &settings_of(cloud, &server),
        &unpinned(at(cloud, "a/*.txt")),
        folder.path(),
    )
    .unwrap();
    let urls: Vec<&str> = fetched.iter().map(|file| &*file.url).collect();
    assert_eq!(urls, [at(cloud, "a/1.txt"), at(cloud, "a/2.txt")]);
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
        &settings_of(cloud, &server),
        &unpinned(at(cloud, "a/*.txt")),
        folder.path(),
    )
    .unwrap();
    assert_eq!(again, fetched);
    let excluding = RemoteFile {
        exclude: vec!["a/1*".to_owned()],
        ..unpinned(at(cloud, "a/*.txt"))
    };
    let second = get(&settings_of(cloud, &server), &excluding, folder.path()).unwrap();
    assert_eq!(second, fetched[1..]);
    // The list was asked for again, the object was here.
    assert!(
        server.requests()[before..]
            .iter()
            .all(|request| request.target.contains('?'))
    );
    let before = server.requests().len();
    let one = get(
        &settings_of(cloud, &server),
        &unpinned(at(cloud, "a/2.txt")),
        folder.path(),
    )
    .unwrap();
    assert_eq!(one, fetched[1..]);
    assert_eq!(server.requests().len(), before);
    let one = get(
        &settings_of(cloud, &server),
        &pinned(at(cloud, "c/5.txt"), &objects["c/5.txt"]),
        folder.path(),
    );
    assert_eq!(fs::read(&one.unwrap()[0].path).unwrap(), objects["c/5.txt"]);

    let error = |url: String| get(&settings_of(cloud, &server), &unpinned(url), folder.path()).unwrap_err();
    let missing = error(at(cloud, "none"));
    assert!(
        missing.to_string().contains("there is no object `none`"),
        "{missing}"
    );
    assert!(
        error(at(cloud, "a/*.csv"))
            .to_string()
            .contains("any of the 4 objects")
    );
    // The same key of another server is another file.
    let other = Server::start(serve(cloud, [("a/2.txt".to_owned(), content(10, 45))].into()));
    let fetched = get(
        &settings_of(cloud, &other),
        &unpinned(at(cloud, "a/2.txt")),
        folder.path(),
    )
    .unwrap();
    assert_eq!(fs::read(&fetched[0].path).unwrap(), content(10, 45));
}

#[test]
fn resume_restarts_when_the_object_has_changed() {
    let (old, new) = (content(60_000, 46), content(60_000, 47));
    for cloud in CLOUDS {
        let first = serve(cloud, [("x".to_owned(), old.clone())].into());
        let then = serve(cloud, [("x".to_owned(), new.clone())].into());
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
            &settings_of(cloud, &server),
            &unpinned(at(cloud, "x")),
            folder.path(),
        )
        .unwrap();
        assert_eq!(fs::read(&fetched[0].path).unwrap(), new);
    }
}

#[test]
fn retries_wait_as_long_as_a_bucket_asks() {
    let bytes = content(60_000, 48);
    for cloud in CLOUDS {
        let answer = serve(cloud, [("x".to_owned(), bytes.clone())].into());
        let phase = Arc::new(AtomicUsize::new(0));
        let now = phase.clone();
        let server = Server::start(move |request| match now.load(Ordering::SeqCst) {
            0 if request.number == 0 => Reply::new(503, "slow down").header("Retry-After", "1"),
            0 if request.headers.contains_key("range") => Reply::new(503, "not now"),
            0 => Reply {
                cut: Some(20_000),
                ..answer(request)
            },
            1 => Reply::new(429, "no").header("Retry-After", "3600"),
            _ => answer(request),
        });
        let folder = tempfile::tempdir().unwrap();
        let settings = settings_of(cloud, &server);
        let remote = unpinned(at(cloud, "x"));
        let start = Instant::now();
        // Twice in vain, and what has come in stays.
        let error = get(&settings, &remote, folder.path()).unwrap_err();
        assert!(start.elapsed() >= Duration::from_secs(1));
        assert!(error.to_string().contains("503"), "{error}");
        phase.store(1, Ordering::SeqCst);
        let before = server.requests().len();
        let error = get(&settings, &remote, folder.path()).unwrap_err();
        assert_eq!(server.requests().len(), before + 1);
        assert!(
            error
                .to_string()
                .contains("`127.0.0.1` answered 429 and asks to retry in 3600 s"),
            "{error}"
        );
        phase.store(2, Ordering::SeqCst);
        let fetched = get(&settings, &remote, folder.path()).unwrap();
        assert_eq!(fs::read(&fetched[0].path).unwrap(), bytes);
        let requests = server.requests();
        assert!(!requests[1].headers.contains_key("range"));
        for request in &requests[2..] {
            assert!(
                request.headers["range"].starts_with("bytes=20000-"),
                "{request:?}"
            );
        }
    }
}

#[test]
fn buckets_are_asked_without_tls_only_if_allowed() {
    for cloud in CLOUDS {
        let server = Server::start(serve(cloud, [("x".to_owned(), vec![1])].into()));
        let mut settings = settings_of(cloud, &server);
        settings.buckets.retain(|name, _| !name.ends_with("_allow_http"));
        let folder = tempfile::tempdir().unwrap();
        get(&settings, &unpinned(at(cloud, "x")), folder.path()).unwrap_err();
        assert_eq!(server.requests().len(), 0);
    }
}

#[test]
fn buckets_of_every_cloud_open_from_the_environment() {
    let variables = [
        ("AZURE_STORAGE_ACCOUNT_NAME", "account"),
        ("AZURE_SKIP_SIGNATURE", "true"),
        ("GOOGLE_SKIP_SIGNATURE", "true"),
        ("AWS_SKIP_SIGNATURE", "true"),
    ];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let settings = Settings::from_variables(&variables.into());
    for url in ["az://container/x", "gs://bucket/x", "s3://bucket/x"] {
        let RemotePlace::Bucket(place) = RemotePlace::parse(url).unwrap() else {
            panic!()
        };
        Bucket::open_store(&place, &settings).unwrap();
    }
    let RemotePlace::Bucket(place) = RemotePlace::parse("az://container/x").unwrap() else {
        panic!()
    };
    let error = Bucket::open_store(&place, &Settings::default()).err().unwrap();
    assert!(
        error.hint_text().unwrap().contains("AZURE_STORAGE_ACCOUNT_NAME"),
        "{error}"
    );
}

#[test]
fn buckets_in_memory_are_listed_and_read() {
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
        for key in ["a/1", "a/2", "a/_SUCCESS", "b/3"] {
            store
                .put(&key.into(), key.as_bytes().to_vec().into())
                .await
                .unwrap();
        }
        let bucket = Bucket::of(store);
        let RemotePlace::Bucket(place) = RemotePlace::parse("gs://bucket/a/*").unwrap() else {
            panic!()
        };
        let remote = unpinned("gs://bucket/a/*".to_owned());
        let entries = bucket_entries(&bucket, &remote, &place, "identity", "shown", with)
            .await
            .unwrap();
        let read = |entry: &IndexedFile| fs::read_to_string(cache.path(&entry.sha256)).unwrap();
        assert_eq!(entries.iter().map(read).collect::<Vec<_>>(), ["a/1", "a/2"]);
        assert_eq!(cache.known("identity"), Some(entries));
        assert_eq!(cache.known_index("identity").unwrap().left_out.passed_over, 1);
        let remote = RemoteFile {
            exclude: vec!["a/2".to_owned(), "b".to_owned()],
            ..remote
        };
        let entries = bucket_entries(&bucket, &remote, &place, "other", "shown", with)
            .await
            .unwrap();
        assert_eq!(entries.iter().map(read).collect::<Vec<_>>(), ["a/1"]);
        let left_out = cache.known_index("other").unwrap().left_out;
        assert_eq!((left_out.passed_over, left_out.excluded), (1, 1));
        assert_eq!(left_out.idle, ["b"]);
    });
}
