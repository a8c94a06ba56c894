//! Buckets: servers that speak as much of each cloud's language as reading takes, and a store in memory.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::Arc;

use object_store::ObjectStoreExt as _;

use super::*;

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
