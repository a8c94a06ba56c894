//! Tokenizers that others bring: what they lose of a text, what they draw by chance, which special tokens text makes of
//! them, and files that are not what they are named.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::support::{Project, mdlm, printed, words as joined};

/// A folder with inputs and a manifest.
struct Case(tempfile::TempDir);

/// What a run said.
struct Ran {
    code: i32,
    talk: String,
    summary: Value,
}

impl Ran {
    /// The folder of a stage's artifact.
    fn path(&self, case: &Case, stage: &str) -> PathBuf {
        let stages = self.summary["stages"]
            .as_array()
            .unwrap_or_else(|| panic!("{}", self.talk));
        let found = stages.iter().find(|one| one["name"] == stage).unwrap();
        case.path()
            .join(found["path"].as_str().unwrap_or_else(|| panic!("{}", self.talk)))
    }

    fn json(&self, case: &Case, stage: &str, name: &str) -> Value {
        serde_json::from_str(&self.text(case, stage, name)).unwrap()
    }

    fn text(&self, case: &Case, stage: &str, name: &str) -> String {
        fs::read_to_string(self.path(case, stage).join(name)).unwrap()
    }
}

impl Case {
    fn new(text: &str) -> Self {
        let case = Self(tempfile::tempdir().unwrap());
        case.write("a.txt", text);
        case
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path().join(name), content).unwrap();
    }

    /// Runs a pipeline of these stages behind the source `text`.
    fn run(&self, stages: &Value, arguments: &[&str]) -> Ran {
        let mut all = json!({"text": {"kind": "source", "input": {"kind": "files", "files": ["a.txt"]}}});
        let more = stages.as_object().unwrap().clone();
        all.as_object_mut().unwrap().extend(more);
        self.write(
            "m.json",
            json!({"name": "case", "seed": 1, "stages": all}).to_string(),
        );
        let output = mdlm()
            .current_dir(self.path())
            .args(["run", "m.json", "--json"])
            .args(arguments)
            .output()
            .unwrap();
        Ran {
            code: output.status.code().unwrap(),
            talk: String::from_utf8_lossy(&output.stderr).into_owned(),
            summary: serde_json::from_slice(&output.stdout).unwrap_or_default(),
        }
    }

    /// Tokenizes with a `tokenizer.json`.
    fn tokenize(&self, file: &str) -> Ran {
        self.run(
            &json!({"tokens": tokens(&json!({"kind": "file", "path": file}))}),
            &[],
        )
    }
}

fn tokens(tokenizer: &Value) -> Value {
    json!({"kind": "tokenize", "from": "text", "tokenizer": tokenizer})
}

/// The stages from tokens to a bound, their names behind a prefix.
fn to_bound(prefix: &str, tokenizer: &Value) -> Value {
    let name = |stage: &str| format!("{prefix}{stage}");
    json!({
        name("tokens"): tokens(tokenizer),
        name("rows"): {"kind": "pack", "from": name("tokens"), "length": 32, "validation": 0.25},
        name("model"): {"kind": "train", "from": name("rows"), "shape": "nano", "steps": 4, "batch": 4,
                        "learning_rate": 2e-3, "warmup_steps": 1, "validation_every": 4},
        name("bound"): {"kind": "evaluate", "model": name("model"), "data": name("rows"), "draws": 1},
    })
}

/// A tokenizer with `<s>`, `</s>`, `<pad>` and `<mask>`, as others write them.
fn file(model: &Value, pre_tokenizer: &Value, special: &[(u32, &str)]) -> String {
    let added: Vec<Value> = special
        .iter()
        .map(|(id, name)| {
            json!({"id": id, "content": name, "single_word": false, "lstrip": false, "rstrip": false,
                   "normalized": false, "special": true})
        })
        .collect();
    json!({"version": "1.0", "truncation": null, "padding": null, "added_tokens": added, "normalizer": null,
           "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null, "model": model})
    .to_string()
}

const SPECIAL: [(u32, &str); 4] = [(0, "<s>"), (1, "</s>"), (2, "<pad>"), (3, "<mask>")];

/// A byte-pair encoding of the words hug and pug that has no unknown token.
fn hug() -> String {
    let model = json!({
        "type": "BPE", "dropout": null, "unk_token": null,
        "vocab": {"<s>": 0, "</s>": 1, "<pad>": 2, "<mask>": 3, "h": 4, "u": 5, "g": 6, "p": 7, "ug": 8, "hug": 9, "pug": 10},
        "merges": [["u", "g"], ["h", "ug"], ["p", "ug"]],
    });
    file(&model, &json!({"type": "Whitespace"}), &SPECIAL)
}

/// Lines of which every second word is of letters that the vocabularies here lack, and which differ.
fn foreign(lines: usize) -> String {
    let line = |n: usize| {
        let words = (0..6).map(|at| ["hug", "pug"][(n >> at) & 1]);
        words
            .map(|word| format!("{word} мир"))
            .collect::<Vec<_>>()
            .join(" ")
            + "\n"
    };
    (0..lines).map(line).collect()
}

#[test]
fn lost_text_is_counted_and_included_in_bits_per_byte() {
    let case = Case::new(&foreign(60));
    case.write("t.json", hug());
    let ran = case.run(&to_bound("", &json!({"kind": "file", "path": "t.json"})), &[]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    let found = ran.json(&case, "tokens", "tokens.json");
    assert_eq!(
        [
            &found["unknown"],
            &found["lost_characters"],
            &found["lost_bytes"],
            &found["lost_records"]
        ],
        [0, 60 * 6 * 3, 60 * 6 * 6, 60]
    );
    // Which white space it was is lost too.
    assert_eq!(found["normalized_records"], 60);
    let share = 100.0 * 36.0 / (6.0 * (3.0 + 1.0 + 6.0 + 1.0) - 1.0);
    let lost = format!("no token spells 1080 characters ({share:.3}% of the bytes)");
    assert!(ran.talk.contains(&lost), "{}", ran.talk);
    let rows = ran.json(&case, "rows", "rows.json");
    assert_eq!(rows["normalized"], true);
    for split in ["train", "validation"] {
        let records = rows[split]["records"].as_u64().unwrap();
        // Six gaps a record: 33 bits for a place, 8 for the end, 48 of six bytes; and one bit a record.
        assert_eq!(
            rows[split]["lost_bits"],
            records * (6 * (33 + 8 + 48) + 1),
            "{split}"
        );
    }

    let found = ran.json(&case, "bound", "evaluation.json");
    let number = |value: &Value| value.as_f64().unwrap();
    let lost = number(&rows["validation"]["lost_bits"]) / number(&rows["validation"]["bytes"]);
    assert!(lost > 7.0, "{lost}");
    assert!((number(&found["lost_bits_per_byte"]) - lost).abs() < 1e-12);
    let of_model = number(&found["nats_per_token"]["value"]) / 2f64.ln() / number(&found["bytes_per_token"]);
    let bits = &found["bits_per_byte"];
    assert!((number(&bits["value"]) - of_model - lost).abs() < 1e-9, "{found}");
    // The price has no uncertainty: the interval is the model's.
    let width = |interval: &Value| number(&interval["high"]) - number(&interval["low"]);
    let of_model = width(&found["nats_per_token"]) / 2f64.ln() / number(&found["bytes_per_token"]);
    assert!((width(bits) - of_model).abs() < 1e-9, "{found}");
    assert_eq!(found["normalized"], true);
    let text = ran.text(&case, "bound", "evaluation.md");
    for expected in [
        "| bits per byte of normalized text |",
        "No token spells some of the text",
        "not a bound on the original text",
    ] {
        assert!(text.contains(expected), "{text}");
    }
    // The validation of the training has the same price.
    let metrics = ran.text(&case, "model", "metrics.jsonl");
    let line: Value = serde_json::from_str(metrics.lines().last().unwrap()).unwrap();
    let validation = &line["validation"];
    assert!(
        (number(&validation["lost_bits_per_byte"]) - lost).abs() < 1e-12,
        "{line}"
    );
    assert!(number(&validation["bits_per_byte"]) > lost, "{line}");
    assert!(ran.talk.contains("bits/byte of normalized text"), "{}", ran.talk);
}

#[test]
fn compare_does_not_rank_bounds_of_changed_text_first() {
    let case = Case::new(&foreign(60));
    case.write("vocab.txt", "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhug\npug\nмир\n");
    let mut stages = to_bound("bpe-", &json!({"kind": "train_bpe", "vocabulary_size": 300}));
    let bert = to_bound("bert-", &json!({"kind": "bert", "vocabulary": "vocab.txt"}));
    let all = stages.as_object_mut().unwrap();
    all.extend(bert.as_object().unwrap().clone());
    all.insert(
        "table".to_owned(),
        json!({"kind": "compare", "of": ["bert-bound", "bpe-bound"]}),
    );
    let ran = case.run(&stages, &[]);
    assert_eq!(ran.code, 0, "{}", ran.talk);
    // The words are known: nothing is lost but which white space it was.
    let tokens = ran.json(&case, "bert-tokens", "tokens.json");
    assert_eq!(
        (&tokens["lost_characters"], &tokens["normalized_records"]),
        (&Value::Null, &json!(60))
    );
    let tokens = ran.json(&case, "bpe-tokens", "tokens.json");
    assert_eq!(tokens["normalized_records"], Value::Null);
    let shown = mdlm()
        .current_dir(case.path())
        .args(["compare", "m.json", "bert-bound", "bpe-bound", "--json"])
        .output()
        .unwrap();
    let shown: Value = serde_json::from_slice(&shown.stdout).unwrap();
    for table in [&ran.json(&case, "table", "compare.json"), &shown[0]] {
        assert_eq!(table["sorted_by"], "bits_per_byte");
        let rows = table["rows"].as_array().unwrap();
        let name = |row: &Value| {
            [&row["name"], &row["stage"]]
                .into_iter()
                .find_map(Value::as_str)
                .unwrap()
                .to_owned()
        };
        assert_eq!([name(&rows[0]), name(&rows[1])], ["bpe-bound", "bert-bound"]);
        let value = |row: usize, metric: &str| rows[row]["metrics"][metric]["value"].as_f64();
        let (honest, changed) = (value(0, "bits_per_byte"), value(1, "bits_per_byte_normalized"));
        assert!(
            changed.unwrap() < honest.unwrap(),
            "the lower number is second: {rows:?}"
        );
        assert_eq!(value(1, "bits_per_byte"), None);
    }
    let text = ran.text(&case, "table", "compare.md");
    assert!(
        text.contains("bits_per_byte_normalized: the tokenizer changes the text"),
        "{text}"
    );
    // Alone, such bounds are ordered among themselves, by either name.
    for sort in ["bits_per_byte", "bits_per_byte_normalized"] {
        let shown = mdlm()
            .current_dir(case.path())
            .args(["compare", "m.json", "bert-bound", "--sort", sort])
            .output()
            .unwrap();
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("bits_per_byte_normalized"), "{shown}");
    }
}

#[test]
fn dropout_of_a_tokenizer_is_switched_off_with_a_note() {
    let case = Case::new(&foreign(60));
    let mut tokenizer: Value = serde_json::from_str(&hug()).unwrap();
    let plain = case.tokenize_json(&tokenizer, &["--force", "tokens"]);
    assert!(!plain.0.talk.contains("dropout"), "{}", plain.0.talk);
    tokenizer["model"]["dropout"] = json!(0.5);
    for _ in 0..2 {
        let (ran, files) = case.tokenize_json(&tokenizer, &["--force", "tokens"]);
        assert!(ran.talk.contains("`dropout` 0.5"), "{}", ran.talk);
        assert!(files == plain.1, "the tokens are those without dropout");
    }
    // With gaps among the ids the file is written in another way.
    tokenizer["model"]["vocab"]["x"] = json!(50);
    let (ran, _) = case.tokenize_json(&tokenizer, &[]);
    let written: Value = serde_json::from_str(&ran.text(&case, "tokens", "tokenizer.json")).unwrap();
    assert_eq!(written["model"]["dropout"], Value::Null);
}

impl Case {
    /// Tokenizes, and returns the files of the artifact, the note of the tokenizer's own file left out.
    fn tokenize_json(&self, tokenizer: &Value, arguments: &[&str]) -> (Ran, Vec<Vec<u8>>) {
        self.write("t.json", tokenizer.to_string());
        let ran = self.run(
            &json!({"tokens": tokens(&json!({"kind": "file", "path": "t.json"}))}),
            arguments,
        );
        assert_eq!(ran.code, 0, "{}", ran.talk);
        let folder = ran.path(self, "tokens");
        let names = [
            "tokens-00000.arrow",
            "tokens.json",
            "tokenizer.json",
            "lost-00000.arrow",
        ];
        let files = names.map(|name| fs::read(folder.join(name)).unwrap()).to_vec();
        (ran, files)
    }
}

#[test]
fn special_tokens_in_text_are_refused_unless_allowed() {
    let words = |kind: &str| {
        json!({"type": kind, "unk_token": "<unk>", "continuing_subword_prefix": "##", "max_input_chars_per_word": 100,
               "vocab": {"<s>": 0, "</s>": 1, "<pad>": 2, "<mask>": 3, "<unk>": 4, "a": 5, "<extra>": 6}})
    };
    let pieces = json!({"type": "Unigram", "unk_id": 4, "vocab": [["<s>", 0.0], ["</s>", 0.0], ["<pad>", 0.0],
        ["<mask>", 0.0], ["<unk>", 0.0], ["a", -1.0], ["<extra>", 0.0], ["\u{2581}", -1.0]]});
    let pairs = json!({"type": "BPE", "ignore_merges": true, "merges": [], "unk_token": "<unk>", "vocab": {"<s>": 0, "</s>": 1,
        "<pad>": 2, "<mask>": 3, "<unk>": 4, "a": 5, "<extra>": 6}});
    let split = json!({"type": "WhitespaceSplit"});
    let metaspace =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": true});
    let special = [&SPECIAL[..], &[(4, "<unk>"), (6, "<extra>")]].concat();
    // Whether the file lists the special tokens or not: they have roles.
    for (model, cut, listed) in [
        (&words("WordLevel"), &split, &special[..]),
        (&words("WordLevel"), &split, &[]),
        (&words("WordPiece"), &split, &special),
        (&pieces, &metaspace, &special),
        (&pairs, &split, &special),
    ] {
        let kind = model["type"].as_str().unwrap();
        let case = Case::new("a a\n");
        case.write("t.json", file(model, cut, listed));
        for (text, expected) in [
            (
                "a </s> a\n",
                "record 1: the text contains the special token `</s>` (EOS) at byte 3",
            ),
            (
                "a\n<s> a\n",
                "record 2: the text contains the special token `<s>` (BOS) at byte 1",
            ),
            (
                "a <pad>\n",
                "record 1: the text contains the special token `<pad>` (PAD) at byte 3",
            ),
            (
                "a <mask>\n",
                "record 1: the text contains the mask token `<mask>`",
            ),
        ] {
            case.write("a.txt", text);
            let ran = case.tokenize("t.json");
            assert_eq!(ran.code, 2, "{kind} {text:?}: {}", ran.talk);
            assert!(ran.talk.contains(expected), "{kind}: {}", ran.talk);
        }
        if !listed.is_empty() {
            case.write("a.txt", "<extra>\n");
            let ran = case.tokenize("t.json");
            assert!(
                ran.talk
                    .contains("contains the special token `<extra>` at byte 1"),
                "{}",
                ran.talk
            );
        }
        // The unknown token is no secret: it is counted.
        case.write("a.txt", "a b\n");
        let ran = case.tokenize("t.json");
        assert_eq!(ran.code, 0, "{kind}: {}", ran.talk);
        assert_eq!(ran.json(&case, "tokens", "tokens.json")["unknown"], 1, "{kind}");

        let allow = |text: &str| {
            case.write("a.txt", text);
            let mut stage = tokens(&json!({"kind": "file", "path": "t.json"}));
            stage["special_tokens_in_text"] = json!("allow");
            case.run(&json!({"tokens": stage}), &[])
        };
        let ran = allow("a </s> a\n<pad>\n");
        assert_eq!(ran.code, 0, "{kind}: {}", ran.talk);
        assert!(allow("<mask>\n").talk.contains("the mask token `<mask>`"));
    }
}

/// The vocabulary lacks a part of the text: the unknown token stands for it, which has a role here.
#[test]
fn unknown_token_with_a_role_is_refused_unless_allowed() {
    for (role, shown) in [
        ("<s>", "(BOS)"),
        ("</s>", "(EOS)"),
        ("<pad>", "(PAD)"),
        ("<mask>", "the mask token"),
    ] {
        let case = Case::new("a a\na b\n");
        let model = json!({"type": "WordLevel", "unk_token": role,
            "vocab": {"<s>": 0, "</s>": 1, "<pad>": 2, "<mask>": 3, "a": 4}});
        case.write(
            "t.json",
            file(&model, &json!({"type": "WhitespaceSplit"}), &SPECIAL),
        );
        let stage = |stated: Option<&str>| {
            let mut stage = tokens(&json!({"kind": "file", "path": "t.json"}));
            if let Some(stated) = stated {
                stage["special_tokens_in_text"] = json!(stated);
            }
            case.run(&json!({"tokens": stage}), &[])
        };
        for stated in [None, Some("refuse")] {
            let ran = stage(stated);
            assert_eq!(ran.code, 2, "{role}: {}", ran.talk);
            for part in [
                "record 2",
                &format!("unknown token `{role}`"),
                shown,
                "a separate unknown token",
            ] {
                assert!(ran.talk.contains(part), "{role}, {part}: {}", ran.talk);
            }
        }
        let ran = stage(Some("allow"));
        assert_eq!(
            ran.code,
            if role == "<mask>" { 2 } else { 0 },
            "{role}: {}",
            ran.talk
        );
    }
}

/// A token that is added and not special is cut out of text by the library, whatever role it plays.
#[test]
fn role_of_a_token_that_is_not_special_is_refused() {
    let case = Case::new("hug<pad>hug\n");
    let mut tokenizer: Value = serde_json::from_str(&hug()).unwrap();
    tokenizer["added_tokens"][2]["special"] = json!(false);
    case.write("t.json", tokenizer.to_string());
    let ran = case.tokenize("t.json");
    assert_eq!(ran.code, 2);
    assert!(
        ran.talk.contains("the special token `<pad>` (PAD) at byte 4"),
        "{}",
        ran.talk
    );
}

#[test]
fn tokenizer_files_of_other_formats_are_recognised() {
    let case = Case::new("hug pug\n");
    // A byte order mark is left out, and said.
    case.write("marked.json", format!("\u{feff}{}", hug()));
    let ran = case.tokenize("marked.json");
    assert_eq!(ran.code, 0, "{}", ran.talk);
    assert!(
        ran.talk
            .contains("marked.json` begins with a byte order mark, which is left out"),
        "{}",
        ran.talk
    );

    let bert = |vocabulary: &str| {
        case.write("vocab.txt", vocabulary);
        case.run(
            &json!({"tokens": tokens(&json!({"kind": "bert", "vocabulary": "vocab.txt"}))}),
            &[],
        )
    };
    let lines = "[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhug\npug\n";
    let plain = bert(lines).json(&case, "tokens", "tokens.json");
    for changed in [
        format!("\u{feff}{lines}"),
        lines.replace('\n', "\r\n"),
        format!("{lines}\n\n"),
    ] {
        let ran = bert(&changed);
        assert_eq!(ran.code, 0, "{}", ran.talk);
        assert_eq!(
            ran.talk.contains("byte order mark"),
            changed.starts_with('\u{feff}'),
            "{}",
            ran.talk
        );
        assert_eq!(ran.json(&case, "tokens", "tokens.json"), plain, "{changed:?}");
    }
    for (changed, expected) in [
        (
            lines.replace("hug\n", "hug\n\n"),
            "vocab.txt`: line 7: there is no token",
        ),
        (
            lines.replace("pug", "hug"),
            "vocab.txt`: line 7: `hug` occurs twice",
        ),
        (
            lines.replace('\n', "\r"),
            "vocab.txt`: the lines end in a carriage return alone",
        ),
    ] {
        let ran = bert(&changed);
        assert_eq!(ran.code, 2, "{}", ran.talk);
        assert!(ran.talk.contains(expected), "{}", ran.talk);
    }

    let gpt2 = |vocabulary: &str, merges: &str| {
        case.write("vocab.json", vocabulary);
        case.write("merges.txt", merges);
        let kind = json!({"kind": "gpt2", "vocabulary": "vocab.json", "merges": "merges.txt"});
        case.run(&json!({"tokens": tokens(&kind)}), &[])
    };
    let vocabulary = r#"{"h": 0, "u": 1, "g": 2, "p": 3, "ug": 4, "Ġ": 5, "<|endoftext|>": 6}"#;
    let plain = gpt2(vocabulary, "#version: 0.2\nu g\n").json(&case, "tokens", "tokens.json");
    assert_eq!(plain["lost_characters"], Value::Null);
    for (vocabulary, merges) in [
        (format!("\u{feff}{vocabulary}"), "#version: 0.2\nu g\n"),
        (vocabulary.to_owned(), "\u{feff}#version: 0.2\r\nu g\r\n"),
    ] {
        let ran = gpt2(&vocabulary, merges);
        assert_eq!(ran.code, 0, "{}", ran.talk);
        assert!(ran.talk.contains("byte order mark"), "{}", ran.talk);
        assert_eq!(ran.json(&case, "tokens", "tokens.json"), plain);
    }
    // Of two tokens with one id the library would take either.
    let ran = gpt2(&vocabulary.replace("\"ug\": 4", "\"ug\": 0"), "u g\n");
    assert_eq!(ran.code, 2);
    assert!(
        ran.talk.contains("the tokens `h` and `ug` have the same id, 0"),
        "{}",
        ran.talk
    );

    let utf16: Vec<u8> = hug().encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (content, expected) in [
        (
            b"<!DOCTYPE html>\n<html><body>Sign in</body></html>".to_vec(),
            "the file is a web page (HTML)",
        ),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n".to_vec(),
            "the file is a pointer of Git LFS",
        ),
        (utf16, "the file is UTF-16LE, and UTF-8 is expected"),
        (Vec::new(), "the file is empty"),
    ] {
        case.write("t.json", content);
        let ran = case.tokenize("t.json");
        assert_eq!(ran.code, 2, "{}", ran.talk);
        assert!(ran.talk.contains(expected), "{}", ran.talk);
        assert!(ran.talk.contains("hint: "), "{}", ran.talk);
    }
}

/// A fault in a tokenizer's file is found before the text is read, and shown with its place.
#[test]
fn tokenizer_file_faults_are_found_before_anything_runs() {
    let project = Project::new(5);
    let path = project.path().join("pipelines/tiny.json");
    let manifest = fs::read_to_string(&path).unwrap();
    let own = "{ \"kind\": \"train_bpe\", \"vocabulary_size\": 320 }";
    fs::write(
        &path,
        manifest.replace(own, "{ \"kind\": \"file\", \"path\": \"../tokenizer.json\" }"),
    )
    .unwrap();
    for (text, place) in [
        (
            "{\n  \"version\": \"1.0\",\n  \"model\": {,\n}",
            ":3:13`: this is not a tokenizer file",
        ),
        (
            "{\n  \"version\": \"1.0\",\n  \"model\": { \"type\": \"BPE\" }\n}\n",
            "this is not a tokenizer file",
        ),
    ] {
        fs::write(project.path().join("tokenizer.json"), text).unwrap();
        for command in ["plan", "run", "validate"] {
            let (code, _, talk) = printed(&mut project.mdlm(command, &[]));
            let talk = joined(&talk.replace(" | ", " "));
            assert_eq!(code, Some(2), "{command}: {talk}");
            assert!(talk.contains(place), "{command}: {talk}");
            assert!(talk.contains("tokenizer.json:"), "{command}: {talk}");
        }
        assert!(!project.store().join("artifacts").exists());
    }
    // `validate` needs no data.
    fs::remove_file(project.path().join("tokenizer.json")).unwrap();
    let (code, _, talk) = printed(&mut project.mdlm("validate", &[]));
    assert_eq!(code, Some(0), "{talk}");
}
