//! Sources through the program: forms that are recognised, downloads, what is left out.

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use arrow::array::{ArrayRef, Int64Array, NullArray, RecordBatch, StringArray};
use arrow::datatypes::{Field, Schema};
use arrow::ipc::writer::StreamWriter;
use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed};

/// A project with one source and nothing else.
fn project(source: &Value) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let manifest = json!({ "name": "sources", "seed": 1, "stages": { "text": source } });
    fs::write(folder.path().join("a.json"), manifest.to_string()).unwrap();
    folder
}

/// Runs the project's source: its records, or what was said.
fn records(folder: &tempfile::TempDir) -> Result<Vec<String>, String> {
    let run = mdlm()
        .current_dir(folder.path())
        .args(["run", "a.json"])
        .output()
        .unwrap();
    if !run.status.success() {
        return Err(String::from_utf8(run.stderr).unwrap());
    }
    let shown = mdlm()
        .current_dir(folder.path())
        .args(["data", "a.json", "text", "--json", "--head", "1000"])
        .output()
        .unwrap();
    let text = String::from_utf8(shown.stdout).unwrap();
    let record = |line: &str| {
        serde_json::from_str::<Value>(line).unwrap()["text"]
            .as_str()
            .unwrap()
            .to_owned()
    };
    Ok(text.lines().map(record).collect())
}

#[test]
fn format_is_recognised_and_a_renamed_file_is_read_again() {
    let folder = project(&json!({ "kind": "source", "input": { "kind": "files", "files": ["corpus/*"] } }));
    fs::create_dir(folder.path().join("corpus")).unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join("corpus").join(name), text).unwrap();
    write(
        "a.jsonl",
        "{\"text\": \"one\"}\n{\"text\": [\"two\", \"three\"]}\n",
    );
    write("b.csv", "id,text\n1,\"four\nfive\"\n");
    write("c.txt", "six\n\nseven\n");
    assert_eq!(
        records(&folder).unwrap(),
        ["one", "two\nthree", "four\nfive", "six", "seven"]
    );
    // The same bytes under another name are another text.
    fs::rename(
        folder.path().join("corpus/a.jsonl"),
        folder.path().join("corpus/a.txt"),
    )
    .unwrap();
    assert_eq!(records(&folder).unwrap()[0], "{\"text\": \"one\"}");
}

#[test]
fn filter_and_limit_count_the_records_left_out() {
    let folder = project(&json!({
        "kind": "source", "input": { "kind": "files", "files": ["a.txt"] },
        "detokenize": ["wikitext"], "filter": { "min_bytes": 6, "unique": true, "excludes": "z" }, "limit": 2
    }));
    let text = "1 @,@ 000 men\nshort\n1 @,@ 000 men\nzebras\n\nthe end .\nnever read\n";
    fs::write(folder.path().join("a.txt"), text).unwrap();
    assert_eq!(records(&folder).unwrap(), ["1,000 men", "the end."]);
    let show = mdlm()
        .current_dir(folder.path())
        .args(["show", "a.json", "text"])
        .output()
        .unwrap();
    let show = String::from_utf8(show.stdout).unwrap();
    for figure in [
        "duplicates dropped",
        "too short or long",
        "left out by expression",
        "record lengths",
    ] {
        assert!(show.contains(figure), "{figure} in\n{show}");
    }
    fs::write(folder.path().join("a.txt"), "short\n").unwrap();
    let said = records(&folder).unwrap_err();
    assert!(
        said.contains("no record of `text` is left of the file: 1 too short or long"),
        "{said}"
    );
}

/// A source that is served from the store repeats the warnings of its run, and those about globs as they are now.
#[test]
fn cached_source_repeats_its_warnings() {
    let source = |input: Value| json!({ "kind": "source", "input": input });
    let folder = project(&source(json!({ "kind": "files", "files": ["a.txt"] })));
    fs::write(folder.path().join("a.txt"), "one\u{1}two\nthree\n").unwrap();
    let run = || {
        let mut mdlm = mdlm();
        let output = mdlm
            .current_dir(folder.path())
            .args(["run", "a.json"])
            .output()
            .unwrap();
        String::from_utf8(output.stderr).unwrap()
    };
    let first = run();
    let warning = "1 control character (NUL or another below U+0020) stands in the text";
    assert_eq!(first.matches(warning).count(), 1, "{first}");
    let again = run();
    assert_eq!(again.matches(warning).count(), 1, "{again}");
    assert!(again.contains("cached"), "{again}");
    let input = json!({ "kind": "files", "files": ["a.txt"], "exclude": ["b.txt"] });
    let manifest = json!({ "name": "sources", "seed": 1, "stages": { "text": source(input) } });
    fs::write(folder.path().join("a.json"), manifest.to_string()).unwrap();
    let excluding = run();
    assert!(
        excluding.contains("cached") && excluding.contains(warning),
        "{excluding}"
    );
    assert!(
        excluding.contains("`exclude` pattern `b.txt` matches no file"),
        "{excluding}"
    );
}

#[test]
fn download_is_fetched_once_and_checked() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let requests = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&requests);
    let body = "{\"body\": \"from afar\"}\n";
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut lines = BufReader::new(stream.try_clone().unwrap()).lines();
            while lines
                .next()
                .is_some_and(|line| line.is_ok_and(|line| !line.is_empty()))
            {}
            counted.fetch_add(1, SeqCst);
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    let source = |sha256: &str, limit: u32| {
        json!({ "kind": "source", "limit": limit, "input": { "kind": "download",
            "files": [{ "url": format!("http://{address}/corpus.jsonl"), "sha256": sha256 }],
            "read": { "format": { "kind": "json_lines", "field": "/body" } } } })
    };
    // sha256sum of the body.
    let sha256 = "5fc686729c243a72c69e5ee6556dbf3305aa4898de362be94007bd5109831b1c";
    let folder = project(&source(sha256, 1));
    assert_eq!(records(&folder).unwrap(), ["from afar"]);
    assert_eq!(requests.load(SeqCst), 1);
    // Another stage over the same file asks no server.
    let manifest = json!({ "name": "again", "seed": 1, "stages": { "text": source(sha256, 2) } });
    fs::write(folder.path().join("a.json"), manifest.to_string()).unwrap();
    assert_eq!(records(&folder).unwrap(), ["from afar"]);
    assert_eq!(requests.load(SeqCst), 1);
    let wrong = project(&source(&"0123456789abcdef".repeat(4), 1));
    let said = records(&wrong).unwrap_err();
    assert!(said.contains("SHA-256") && said.contains(sha256), "{said}");
}

/// Batches of texts as an Arrow stream.
fn stream(column: ArrayRef) -> Vec<u8> {
    let schema = Schema::new(vec![Field::new("text", column.data_type().clone(), true)]);
    let batch = RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    let mut writer = StreamWriter::try_new(Vec::new(), &batch.schema()).unwrap();
    writer.write(&batch).unwrap();
    writer.finish().unwrap();
    writer.into_inner().unwrap()
}

#[test]
fn arrow_shards_without_texts_and_joined_streams_are_read() {
    let folder = project(&json!({ "kind": "source", "input": { "kind": "files", "files": ["*.arrow"] } }));
    let texts = |texts: &[&str]| stream(Arc::new(StringArray::from(texts.to_vec())));
    let write = |name: &str, bytes: &[u8]| fs::write(folder.path().join(name), bytes).unwrap();
    write(
        "a.arrow",
        &[texts(&["one", "two"]), texts(&["three", "four"])].concat(),
    );
    write("b.arrow", &stream(Arc::new(NullArray::new(2))));
    assert_eq!(records(&folder).unwrap(), ["one", "two", "three", "four"]);
    write(
        "c.arrow",
        &stream(Arc::new(Int64Array::from(vec![None, Some(1)]))),
    );
    let said = records(&folder).unwrap_err();
    assert!(said.contains("c.arrow"), "{said}");
    assert!(
        said.contains("row 2: the column `text` holds values of the type Int64, not strings"),
        "{said}"
    );
    assert!(said.contains("no column holds strings"), "{said}");
}

/// What is damaged ends in an error, where the file has a checksum.
#[test]
fn parquet_page_with_a_wrong_checksum_is_an_error() {
    let folder = project(&json!({ "kind": "source", "input": { "kind": "files", "files": ["a.parquet"] } }));
    let golden = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/tests/it/golden/forms/checksums1.parquet"
    );
    let mut bytes = fs::read(golden).unwrap();
    let place = folder.path().join("a.parquet");
    fs::write(&place, &bytes).unwrap();
    assert_eq!(records(&folder).unwrap().len(), 38);
    // In the dictionary, the first page of the column.
    let at = bytes.windows(9).position(|part| part == b"two\nlines").unwrap();
    bytes[at] ^= 1;
    fs::write(&place, &bytes).unwrap();
    let said = records(&folder).unwrap_err();
    assert!(said.contains("row group 1: page 1 at byte"), "{said}");
    assert!(
        said.contains("do not have the checksum that its header states"),
        "{said}"
    );
}

/// Names, quotes and separators that the tokenizers of WikiText and of One Billion Word set apart, in whole lines.
#[test]
fn detokenize_joins_names_quotes_and_separators() {
    let source = |rules: &str| {
        project(
            &json!({ "kind": "source", "input": { "kind": "files", "files": ["a.txt"] }, "detokenize": [rules] }),
        )
    };
    let wikitext = source("wikitext");
    let text = "They called O 'Reilly 's remarks a coup d 'état , said Yar 'Adua .\n\
                the song goes ' I want my child back ' .\n\
                \" She will receive Hamas 's ' kisses , \" ' it said .\n\
                ' C ' and ' D ' — from\n\
                It opened in 1932 @,@\n@-@ and closed\n";
    fs::write(wikitext.path().join("a.txt"), text).unwrap();
    assert_eq!(
        records(&wikitext).unwrap(),
        [
            "They called O'Reilly's remarks a coup d'état, said Yar'Adua.",
            "the song goes 'I want my child back'.",
            "\"She will receive Hamas's 'kisses,\"' it said.",
            "'C' and 'D' — from",
            "It opened in 1932,",
            "-and closed",
        ]
    );
    let lm1b = source("lm1b");
    fs::write(
        lm1b.path().join("a.txt"),
        "K 'awiil says ' the players ' union ' is big .\n",
    )
    .unwrap();
    assert_eq!(
        records(&lm1b).unwrap(),
        ["K'awiil says 'the players' union' is big."]
    );
}

/// The published rules, by name, beside ours; the short form and the long form of ours are one text and one key.
#[test]
fn detokenize_as_published_is_a_setting_beside_our_rules() {
    let folder = project(&json!({}));
    let write = |detokenize: Value| {
        let source = json!({ "kind": "source", "input": { "kind": "files", "files": ["a.txt"] },
            "detokenize": detokenize });
        let manifest = json!({ "name": "sources", "seed": 1, "stages": { "text": source } });
        fs::write(folder.path().join("a.json"), manifest.to_string()).unwrap();
    };
    let published = |rules: &str| json!({ "rules": rules, "as": "published" });
    fs::write(folder.path().join("a.txt"), "he 'd pay $ N in nov. N\n").unwrap();
    write(json!(["ptb"]));
    assert_eq!(records(&folder).unwrap(), ["he'd pay $1 in nov. 1"]);
    for same in [
        json!("ptb"),
        json!({ "rules": "ptb" }),
        json!([{ "rules": "ptb", "as": "natural" }]),
    ] {
        write(same.clone());
        let plan = mdlm()
            .current_dir(folder.path())
            .args(["plan", "a.json", "--exit-code"])
            .output();
        assert_eq!(plan.unwrap().status.code(), Some(0), "{same}");
    }
    write(json!([published("ptb")]));
    assert_eq!(records(&folder).unwrap(), ["he 'd pay $1 in nov. N"]);
    write(published("ptb"));
    assert_eq!(records(&folder).unwrap(), ["he 'd pay $1 in nov. N"]);

    fs::write(folder.path().join("a.txt"), " = Title = \n\n a , b .\n").unwrap();
    write(json!("wikitext"));
    assert_eq!(records(&folder).unwrap(), ["= Title =", "a, b."]);
    write(published("wikitext"));
    assert_eq!(records(&folder).unwrap(), [" = Title =\n", "", " a, b .\n"]);

    for (detokenize, said) in [
        (
            json!([published("ptb"), "lm1b"]),
            "for every rule set or for none",
        ),
        (
            json!([{ "rules": "ptb", "as": "publsihed" }]),
            "did you mean `published`?",
        ),
        (json!({ "rule": "ptb" }), "did you mean `rules`?"),
        (json!(["pbt"]), "did you mean `ptb`?"),
        (json!("wikitxt"), "did you mean `wikitext`?"),
    ] {
        write(detokenize);
        let faults = records(&folder).unwrap_err();
        assert!(faults.contains(said), "{faults}");
    }
    let corpus = json!({ "kind": "source", "input": { "kind": "corpus", "corpus": "wikitext2-raw" },
        "detokenize": [published("ptb")] });
    let wrong = project(&corpus);
    let faults = records(&wrong).unwrap_err();
    assert!(
        faults.contains("{ \"rules\": \"wikitext\", \"as\": \"published\" }"),
        "{faults}"
    );
}

#[test]
fn grammar_that_is_not_utf8_is_an_input_error() {
    let project = Project::new(5);
    fs::write(
        project.path().join("pipelines/bad.grammar"),
        b"sentence = \"\xFF\"\n",
    )
    .unwrap();
    let input = r#"stages.text.input={"kind":"synthetic","grammar":"bad.grammar","records":5}"#;
    let (code, _, talk) = printed(&mut project.mdlm("run", &["--set", input]));
    assert_eq!(code, Some(2), "{talk}");
    assert!(talk.contains("it is not UTF-8 at byte 13"), "{talk}");
}
