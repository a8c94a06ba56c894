//! Text to rows: the stages `source`, `tokenize` and `pack`, run in process on small inputs.

use std::path::{Path, PathBuf};

use mdlm::data::rows::Rows;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::data::tokens::{TokenFiles, text_hash};
use mdlm::data::{RoleSource, Roles, RowsInfo, SourceInfo, TokensInfo};
use mdlm::error::{Kind, Result};
use mdlm::event::{Cancel, Silent};
use mdlm::manifest::{Split, Stage};
use mdlm::model::Device;
use mdlm::stages::{self, Context};
use mdlm::store::checkpoints::Checkpoints;
use proptest::prelude::*;
use serde_json::{Value, json};

use crate::support::kit;

/// A folder for sources and artifacts; stages are run one by one, as an executor would.
struct Project {
    folder: tempfile::TempDir,
    threads: usize,
}

impl Project {
    fn new() -> Self {
        Self {
            folder: tempfile::tempdir().unwrap(),
            threads: 2,
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), content).unwrap();
    }

    /// Runs a stage into the folder of its name. A role's input is the folder of that name.
    fn run(&self, name: &str, stage: Value) -> Result<Vec<(String, String)>> {
        let stage: Stage = serde_json::from_value(stage).unwrap();
        let inputs: Vec<(&str, PathBuf)> = stage
            .references()
            .iter()
            .map(|reference| (reference.field, self.path(reference.stage)))
            .collect();
        let (output, work) = (self.path(name), self.path("work"));
        std::fs::create_dir_all(&output).unwrap();
        std::fs::create_dir_all(&work).unwrap();
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(self.threads)
            .build()
            .unwrap();
        let context = Context {
            name,
            base: self.folder.path(),
            inputs: &inputs,
            output: &output,
            work: &work,
            checkpoints: &Checkpoints::default(),
            piped: &[],
            downloads: &self.folder.path().join("downloads"),
            seed: 5,
            device: Device::Cpu,
            threads: self.threads,
            ranks: &(std::sync::Arc::new(mdlm::ranks::Alone) as _),
            sink: &Silent,
            cancel: &Cancel::default(),
            room: None,
        };
        pool.install(|| stages::run(&stage, &context))
            .map(|outcome| outcome.figures)
    }

    fn source(&self, text: &str, record: &str) {
        self.write("text.txt", text);
        let input = json!({"kind": "files", "files": ["text.txt"], "read": { "format": { "kind": "text", "record": record } }});
        self.run("text", json!({"kind": "source", "input": input}))
            .unwrap();
    }

    /// The lines of a text, of a source with further settings.
    #[expect(
        clippy::needless_pass_by_value,
        reason = "calls read better with `json!` in place"
    )]
    fn source_with(&self, text: &str, settings: Value) {
        self.write("text.txt", text);
        let mut source = json!({"kind": "source", "input": {
            "kind": "files", "files": ["text.txt"], "read": { "format": { "kind": "text", "record": "line" } }
        }});
        source
            .as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        self.run("text", source).unwrap();
    }

    fn news(&self, records: u64) {
        let grammar = concat!(env!("CARGO_MANIFEST_DIR"), "/data/news.grammar");
        let input = json!({"kind": "synthetic", "grammar": grammar, "records": records});
        self.run("text", json!({"kind": "source", "input": input}))
            .unwrap();
    }

    #[expect(
        clippy::needless_pass_by_value,
        reason = "calls read better with `json!` in place"
    )]
    fn tokenize(&self, tokenizer: Value) -> Result<Tokenizer> {
        self.run(
            "tokens",
            json!({"kind": "tokenize", "from": "text", "tokenizer": tokenizer}),
        )?;
        Tokenizer::open(&self.path("tokens"))
    }

    fn pack(&self, mut config: Value) -> Result<RowsInfo> {
        config["kind"] = json!("pack");
        config["from"] = json!("tokens");
        self.run("rows", config)?;
        RowsInfo::open(&self.path("rows"))
    }

    /// The rows of a split and how many of their leading tokens count.
    fn rows(&self, split: Split) -> Vec<(Vec<u32>, usize)> {
        let rows = self.scored_rows(split).into_iter();
        rows.map(|(tokens, scored)| {
            assert_eq!(scored.start, 0, "no context");
            (tokens, scored.end)
        })
        .collect()
    }

    /// The rows of a split and which of their positions are scored.
    fn scored_rows(&self, split: Split) -> Vec<(Vec<u32>, std::ops::Range<usize>)> {
        let rows = Rows::open(&self.path("rows"), split).unwrap();
        let mut tokens = vec![0; rows.length()];
        (0..rows.len())
            .map(|row| {
                let scored = rows.read(row, &mut tokens).unwrap();
                (tokens.clone(), scored)
            })
            .collect()
    }

    /// The tokens of every record.
    fn tokens(&self) -> Vec<Vec<u32>> {
        let files = TokenFiles::open(&self.path("tokens")).unwrap();
        let mut all = Vec::new();
        for index in 0..files.batches() {
            let batch = files.batch(index).unwrap();
            all.extend((0..batch.records()).map(|record| batch.tokens(record)));
        }
        all
    }
}

/// Names and digests of all files below a folder.
fn digests(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut all = Vec::new();
    let mut open = vec![folder.to_owned()];
    while let Some(next) = open.pop() {
        for entry in std::fs::read_dir(next).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                open.push(path);
            } else {
                let digest = blake3::hash(&std::fs::read(&path).unwrap()).to_hex().to_string();
                all.push((path.strip_prefix(folder).unwrap().to_owned(), digest));
            }
        }
    }
    all.sort();
    all
}

fn letters() -> Value {
    json!({"kind": "characters", "alphabet": "abc"})
}

#[test]
fn pack_wrapped_rows_equal_those_by_hand() {
    for format in ["arrow", "parquet"] {
        let project = Project::new();
        project.source("ab\nc\nabc\nb\n", "line");
        project.tokenize(letters()).unwrap();
        let info = project
            .pack(json!({"length": 5, "format": format, "shard_rows": 2}))
            .unwrap();
        // a b c are 4 5 6, EOS is 2. Joined: 4 5 2 6 2 4 5 6 2 5 2; cut into threes: the last 5 2 fill no row.
        let row = |tokens: [u32; 5]| (tokens.to_vec(), 5);
        assert_eq!(
            project.rows(Split::Train),
            [row([1, 4, 5, 2, 2]), row([1, 6, 2, 4, 2]), row([1, 5, 6, 2, 2])]
        );
        let train = &info.train;
        assert_eq!(
            (train.rows, train.records, train.bytes, train.tokens),
            (3, 4, 11, 11)
        );
        assert_eq!((train.kept_tokens, train.valid_tokens), (9, 15));
        // All but `b` and its separator.
        assert_eq!((train.kept_bytes, train.padding), (Some(9), 0));
        assert_eq!(
            train.shards,
            [format!("train/00000.{format}"), format!("train/00001.{format}")]
        );
        assert_eq!(info.validation, mdlm::data::SplitInfo::default());
        assert!(project.path("rows/tokenizer.json").exists());
    }
}

/// As `pack_wrapped_rows_equal_those_by_hand`, with the two tokens of the tail in a row of their own.
#[test]
fn pack_pads_the_tail_of_wrapped_rows() {
    for format in ["arrow", "parquet"] {
        let project = Project::new();
        project.source("ab\nc\nabc\nb\n", "line");
        project.tokenize(letters()).unwrap();
        let info = project
            .pack(json!({"length": 5, "format": format, "tail": "pad"}))
            .unwrap();
        let rows = project.rows(Split::Train);
        assert_eq!(rows[0], (vec![1, 4, 5, 2, 2], 5));
        assert_eq!(rows[3..], [(vec![1, 5, 2, 2, 0], 4)]);
        let train = &info.train;
        assert_eq!((train.rows, train.tokens, train.kept_tokens), (4, 11, 11));
        assert_eq!(train.valid_tokens, 5 + 5 + 5 + 4);
        assert_eq!((train.kept_bytes, train.padding), (Some(11), 1));
        // Where nothing is left over, there is no row of padding alone; a split of a few tokens has its row.
        project.source("ab\nab\n", "line");
        project.tokenize(letters()).unwrap();
        let pack = |length: u32| {
            project
                .pack(json!({"length": length, "format": format, "tail": "pad"}))
                .unwrap()
        };
        assert_eq!(pack(5).train.rows, 2);
        assert_eq!(pack(64).train.rows, 1);
        assert_eq!(project.rows(Split::Train)[0].1, 8);
    }
}

#[test]
fn pack_overlapping_rows_equal_those_by_hand() {
    for format in ["arrow", "parquet"] {
        let project = Project::new();
        project.source_with("ab\nc\nabc\nb\n", json!({ "count_words": true }));
        project.tokenize(letters()).unwrap();
        let info = project
            .pack(json!({"length": 6, "format": format, "stride": 2}))
            .unwrap();
        // a b c are 4 5 6, EOS is 2. Joined: 4 5 2 6 2 4 5 6 2 5 2; windows of four, two further on each time.
        assert_eq!(
            project.scored_rows(Split::Train),
            [
                (vec![1, 4, 5, 2, 6, 2], 1..5),
                (vec![1, 2, 6, 2, 4, 2], 3..5),
                (vec![1, 2, 4, 5, 6, 2], 3..5),
                (vec![1, 5, 6, 2, 5, 2], 3..5),
                // One token is left: the last window ends with it.
                (vec![1, 6, 2, 5, 2, 2], 4..5),
            ]
        );
        let train = &info.train;
        assert_eq!((info.stride, train.rows, train.tokens), (Some(2), 5, 11));
        assert_eq!((train.kept_tokens, train.valid_tokens), (11, 11));
        assert_eq!((train.kept_bytes, train.padding), (Some(11), 0));
        assert_eq!((train.words, train.kept_words), (Some(4), Some(4)));
        // Less than a row is a row.
        project
            .pack(json!({"length": 32, "format": format, "stride": 15}))
            .unwrap();
        let rows = project.scored_rows(Split::Train);
        assert_eq!((rows.len(), &rows[0].1), (1, &(1..12)));
        assert_eq!(rows[0].0[11..], [[2, 2].as_slice(), &[0; 19]].concat());
    }
}

/// Every token after the first of a split is predicted once over all windows, given as much of what is before it as its row has.
#[test]
fn pack_overlapping_rows_score_what_wrapped_rows_hold() {
    let project = Project::new();
    let text: String = (0..300)
        .map(|line: u32| {
            let letter = |place: u32| char::from(b'a' + (line / 3_u32.pow(place) % 3) as u8);
            let length = 1 + line * 7 % 9;
            format!("{}\n", (0..length).map(letter).collect::<String>())
        })
        .collect();
    project.source(&text, "line");
    project.tokenize(letters()).unwrap();
    project
        .pack(json!({"length": 16, "tail": "pad", "validation": 0.3}))
        .unwrap();
    let stream = |split| -> Vec<u32> {
        let rows = project.scored_rows(split);
        let pieces = rows.iter().map(|(row, scored)| row[1..scored.end - 1].to_vec());
        pieces.collect::<Vec<_>>().concat()
    };
    let whole = [Split::Train, Split::Validation].map(stream);
    for stride in [1, 7, 14] {
        project
            .pack(json!({"length": 16, "stride": stride, "validation": 0.3}))
            .unwrap();
        for (split, whole) in [Split::Train, Split::Validation].into_iter().zip(&whole) {
            let mut at = 0;
            for (row, scored) in project.scored_rows(split) {
                assert_eq!((row[0], row[15]), (1, 2));
                assert_eq!(row[scored.clone()], whole[at..][..scored.len()], "{stride}, {at}");
                // Before them are the tokens before them.
                let context = &row[1..scored.start];
                assert_eq!(context, &whole[at - context.len()..at]);
                assert!(at == 0 || context.len() >= 14 - stride);
                at += scored.len();
            }
            assert_eq!(at, whole.len());
        }
    }
}

#[test]
fn pack_last_words_are_scored_after_their_context() {
    let project = Project::new();
    project.source_with(
        "ab c\nabc\na bc  \nb abcab\nba ca bc\n",
        json!({ "count_words": true }),
    );
    project
        .tokenize(json!({"kind": "characters", "alphabet": "abc "}))
        .unwrap();
    let info = project
        .pack(json!({"length": 6, "wrap": false, "scored": "last_word"}))
        .unwrap();
    // a b c and the space are 4 5 6 7: `ab c`, `abc`, `a bc`; ` abcab` has no room; `ca bc` without what is before.
    assert_eq!(
        project.scored_rows(Split::Train),
        [
            (vec![1, 4, 5, 7, 6, 0], 3..5),
            (vec![1, 4, 5, 6, 0, 0], 1..4),
            (vec![1, 4, 7, 5, 6, 0], 2..5),
            (vec![1, 6, 4, 7, 5, 6], 3..6),
        ]
    );
    let train = &info.train;
    assert_eq!((train.rows, train.records, train.dropped_records), (4, 5, 1));
    assert_eq!((train.kept_tokens, train.valid_tokens), (11, 11));
    assert_eq!((train.kept_bytes, train.kept_words), (Some(11), Some(4)));
    assert_eq!(train.words, Some(2 + 1 + 2 + 2 + 3));
    // A tokenizer without white space has no last word.
    let project = Project::new();
    project.source("ab\n", "line");
    project.tokenize(letters()).unwrap();
    let error = project
        .pack(json!({"length": 6, "wrap": false, "scored": "last_word"}))
        .unwrap_err();
    assert!(error.to_string().contains("drops white space"), "{error}");
}

/// Words go with the text of their records, in proportion where a record is cut.
#[test]
fn pack_counts_the_words_of_kept_text() {
    let project = Project::new();
    project.source_with("ab ab ab ab\nc\nb b\n", json!({ "count_words": true }));
    project
        .tokenize(json!({"kind": "characters", "alphabet": "abc "}))
        .unwrap();
    let words = |config: Value| {
        let train = project.pack(config).unwrap().train;
        (train.words, train.kept_words)
    };
    assert_eq!(words(json!({"length": 6, "tail": "pad"})), (Some(7), Some(7)));
    // 18 tokens with their EOS: the last two, a `b` and its EOS, are dropped; two of three bytes have one of two words.
    assert_eq!(words(json!({"length": 6})), (Some(7), Some(6)));
    // Six of eleven bytes have two of four words.
    assert_eq!(
        words(json!({"length": 8, "wrap": false})),
        (Some(7), Some(2 + 1 + 2))
    );
    // Nothing was counted without asking.
    project.source("ab\n", "line");
    project.tokenize(letters()).unwrap();
    assert_eq!(words(json!({"length": 4})), (None, None));
}

#[test]
fn pack_padded_rows_equal_those_by_hand() {
    let project = Project::new();
    project.source("ab\nc\nabc\n", "line");
    project.tokenize(letters()).unwrap();
    let info = project.pack(json!({"length": 4, "wrap": false})).unwrap();
    // The third record is cut to L - 2 tokens and keeps its EOS.
    assert_eq!(
        project.rows(Split::Train),
        [
            (vec![1, 4, 5, 2], 4),
            (vec![1, 6, 2, 0], 3),
            (vec![1, 4, 5, 2], 4)
        ]
    );
    let train = &info.train;
    assert_eq!(
        (train.rows, train.records, train.bytes, train.tokens),
        (3, 3, 9, 9)
    );
    assert_eq!((train.kept_tokens, train.valid_tokens), (8, 11));
    assert_eq!((train.kept_bytes, train.padding), (Some(8), 1));
    // Padding is padding whatever counts.
    let counted = project
        .pack(json!({"length": 4, "wrap": false, "padding": "counted"}))
        .unwrap();
    assert_eq!((counted.train.valid_tokens, counted.train.padding), (12, 1));
}

/// Where tokens differ in bytes, their number says little about the bytes that are kept.
#[test]
fn pack_counts_the_bytes_of_kept_tokens() {
    let project = Project::new();
    let kept = |text: &str, tokenizer: Value, settings: Value| {
        project.source(text, "line");
        project.tokenize(tokenizer).unwrap();
        let train = project.pack(settings).unwrap().train;
        (train.kept_tokens, train.kept_bytes.unwrap())
    };
    let letters = || json!({"kind": "characters", "alphabet": "aé"});
    // Of `ééaaaa`, two tokens of two bytes each and EOS: not a third of eight bytes.
    let cut = json!({"length": 4, "wrap": false});
    assert_eq!(kept("ééaaaa\n", letters(), cut.clone()), (3, 5));
    assert_eq!(kept("aaaaéé\n", letters(), cut), (3, 3));
    // Joined: é a EOS a é EOS; of pieces of four, é and EOS are dropped.
    assert_eq!(kept("éa\naé\n", letters(), json!({"length": 6})), (4, 5));
    // A record that lies in two pieces, of which the second is dropped but for its beginning.
    assert_eq!(kept("aéé\n", letters(), json!({"length": 5})), (3, 5));
    let padded = json!({"length": 5, "tail": "pad"});
    assert_eq!(kept("aéé\n", letters(), padded), (4, 6));
    // Byte-level merges: the text of the tokens that were kept, by decoding them.
    let text = "the cat sat on the mat and the cat sat on the hat, naïve as ever\n".repeat(40);
    let settings = json!({"length": 8, "wrap": false});
    let (tokens, bytes) = kept(
        &text,
        json!({"kind": "train_bpe", "vocabulary_size": 320}),
        settings,
    );
    let tokenizer = mdlm::data::tokenizer::Tokenizer::open(&project.path("tokens")).unwrap();
    let row = project.rows(Split::Train)[0].0.clone();
    let decoded = tokenizer.decode(&row[1..7]).unwrap();
    assert_eq!((tokens, bytes), (40 * 7, 40 * (decoded.len() as u64 + 1)));
}

#[test]
fn threads_do_not_change_the_files_of_tokenize_and_pack() {
    let run = |threads, tokenizer: &str| {
        let mut project = Project::new();
        project.threads = threads;
        project.news(3000);
        project
            .tokenize(json!({"kind": tokenizer, "vocabulary_size": 600}))
            .unwrap();
        project
            .pack(json!({"length": 32, "validation": 0.1, "format": "parquet"}))
            .unwrap();
        ["text", "tokens", "rows"].map(|stage| digests(&project.path(stage)))
    };
    for tokenizer in ["train_bpe", "train_wordpiece"] {
        let one = run(1, tokenizer);
        assert_eq!(one, run(2, tokenizer), "{tokenizer}");
        assert_eq!(one, run(4, tokenizer), "{tokenizer}");
    }
}

#[test]
fn split_keeps_equal_documents_together() {
    let project = Project::new();
    // Every text three times, far apart.
    let texts: Vec<String> = (0..400).map(|i| format!("document number {i}")).collect();
    project.source(
        &[texts.join("\n"), texts.join("\n"), texts.join("\n")].join("\n"),
        "line",
    );
    let tokenizer = project
        .tokenize(json!({"kind": "train_bpe", "vocabulary_size": 300}))
        .unwrap();
    let info = project
        .pack(json!({"length": 64, "wrap": false, "validation": 0.25}))
        .unwrap();
    let decoded = |split| -> Vec<String> {
        let rows = project.rows(split);
        rows.iter()
            .map(|(row, _)| tokenizer.decode(row).unwrap())
            .collect()
    };
    let (train, validation) = (decoded(Split::Train), decoded(Split::Validation));
    assert!(train.iter().all(|text| !validation.contains(text)));
    let mut all = [train, validation].concat();
    all.sort();
    let mut expected: Vec<String> = texts
        .iter()
        .flat_map(|t| std::iter::repeat_n(t.clone(), 3))
        .collect();
    expected.sort();
    assert_eq!(all, expected);
    // 400 distinct texts at 0.25: 100 ± 9 (one standard deviation), so 60 to 140.
    assert!((60..=140).contains(&(info.validation.records / 3)), "{info:?}");

    // Wrapped, the same documents fall to the same splits, and only whole ones stand in a split's stream.
    let wrapped = project.pack(json!({"length": 64, "validation": 0.25})).unwrap();
    assert_eq!(wrapped.validation.records, info.validation.records);
    assert_eq!(wrapped.validation.tokens, info.validation.tokens);
}

#[test]
fn split_without_rows_is_an_error_with_a_hint() {
    let project = Project::new();
    project.source("ab\nc\n", "line");
    project.tokenize(letters()).unwrap();
    let error = project.pack(json!({"length": 64})).unwrap_err();
    assert_eq!(error.kind(), Kind::Input);
    assert_eq!(
        error.to_string(),
        "the `train` split gets no row: it has 2 records with 5 tokens, and a row takes 62"
    );
    assert!(error.hint_text().unwrap().contains("add text"));
    let error = project
        .pack(json!({"length": 4, "wrap": false, "validation": 1e-9}))
        .unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("the `validation` split gets no row: it has 0 records")
    );
    assert!(error.hint_text().unwrap().contains("set `validation` to 0"));
    // All for validation is a wish, not a fault.
    let info = project
        .pack(json!({"length": 4, "wrap": false, "validation": 1.0}))
        .unwrap();
    assert_eq!((info.train.rows, info.validation.rows), (0, 2));
}

#[test]
fn source_figures_count_files_records_and_bytes() {
    let project = Project::new();
    project.write("a.txt", "first\r\nline\r\n\r\nsecond\n");
    project.write("b.txt", "\u{FEFF}third");
    let input = json!({"kind": "files", "files": ["b.txt", "*.txt"], "read": { "format": { "kind": "text", "record": "paragraph" } }});
    let figures = project
        .run("text", json!({"kind": "source", "input": input}))
        .unwrap();
    assert_eq!(figures[0], ("records".to_owned(), "3".to_owned()));
    let info = SourceInfo::open(&project.path("text")).unwrap();
    assert_eq!((info.records, info.bytes, info.grammar), (3, 5 + 10 + 6, None));

    project.write("a.txt", "fine\nbro\u{0}ken\n\n");
    project.write("c.txt", b"good\nb\xE4d\n");
    let input = json!({"kind": "files", "files": ["*.txt"]});
    let error = project
        .run("text", json!({"kind": "source", "input": input}))
        .unwrap_err();
    let message = error.to_string();
    assert!(
        message.ends_with("c.txt`: line 2: invalid UTF-8 (0xE4) at byte 2 of the line, 7 of the file"),
        "{message}"
    );
    project.write("empty.txt", "\n \n");
    let input = json!({"kind": "files", "files": ["empty.txt"]});
    let error = project
        .run("text", json!({"kind": "source", "input": input}))
        .unwrap_err();
    assert_eq!(error.to_string(), "the file of `text` holds no text");
}

#[test]
fn synthetic_source_has_its_grammar_and_entropy() {
    let project = Project::new();
    project.news(500);
    let source = project.path("text");
    let info = SourceInfo::open(&source).unwrap();
    let grammar = info.grammar(&source).unwrap().unwrap();
    assert_eq!(
        info.entropy_nats_per_record,
        Some(grammar.entropy().nats_per_record)
    );
    assert_eq!(
        info.entropy_bits_per_byte,
        Some(grammar.entropy().bits_per_byte())
    );
    let tokenizer = project
        .tokenize(json!({"kind": "train_bpe", "vocabulary_size": 1000}))
        .unwrap();
    let texts: Vec<String> = project
        .tokens()
        .iter()
        .map(|tokens| tokenizer.decode(tokens).unwrap())
        .collect();
    assert_eq!(texts.len(), 500);
    assert!(texts.iter().all(|text| grammar.accepts(text)));
    assert_eq!(texts.iter().map(|t| t.len() as u64).sum::<u64>(), info.bytes);
}

#[test]
fn unknown_character_is_an_error_with_its_place() {
    let project = Project::new();
    project.source("abc\ncab\nab\u{e9}c\nq\n", "line");
    let error = project.tokenize(letters()).err().unwrap();
    assert_eq!(
        error.to_string(),
        "record 3: the character `\u{e9}` (U+00E9) at byte 3 is not in the alphabet"
    );
    assert_eq!(error.kind(), Kind::Input);
    assert!(error.hint_text().unwrap().contains("`alphabet`"));
    let error = project
        .tokenize(json!({"kind": "characters", "alphabet": "aba"}))
        .err()
        .unwrap();
    assert_eq!(
        error.to_string(),
        "the alphabet has the character `a` (U+0061) twice"
    );
}

/// Special tokens spelled in the text are text.
#[test]
fn special_tokens_spelled_in_text_are_text() {
    let spelled = "[MASK] and [PAD][BOS] [EOS] [UNK] <|endoftext|> mask";
    for tokenizer in [
        json!({"kind": "train_bpe", "vocabulary_size": 400}),
        json!({"kind": "train_wordpiece", "vocabulary_size": 400}),
        json!({"kind": "characters", "alphabet": "abcdefghijklmnopqrstuvwxyzABEKMNOPSTUD[]<>| "}),
    ] {
        let project = Project::new();
        // Often enough that a trainer would merge it.
        project.source(&format!("{spelled}\n").repeat(20), "line");
        let tokens = project.tokenize(tokenizer.clone()).unwrap();
        let special = tokens.special();
        let ids = [special.bos, special.eos, special.pad, special.mask];
        let records = project.tokens();
        assert_eq!(records.len(), 20);
        for record in &records {
            assert!(
                record.iter().all(|id| !ids.contains(id)),
                "{tokenizer} {record:?}"
            );
            let text = tokens.decode(record).unwrap();
            // WordPiece's decoder joins words with spaces of its own.
            let bare = |text: &str| text.replace(' ', "");
            assert_eq!(bare(&text), bare(spelled), "{tokenizer}");
        }
        assert_eq!(TokensInfo::open(&project.path("tokens")).unwrap().unknown, 0);
    }
}

/// A vocabulary of words in Hugging Face's format.
fn word_level(words: &[&str], added: &[&str]) -> String {
    let vocabulary: serde_json::Map<String, Value> = words
        .iter()
        .enumerate()
        .map(|(id, word)| ((*word).to_owned(), json!(id)))
        .collect();
    let added: Vec<Value> = added
        .iter()
        .map(|word| {
            json!({"id": vocabulary[*word], "content": word, "single_word": false, "lstrip": false,
                   "rstrip": false, "normalized": false, "special": true})
        })
        .collect();
    json!({
        "version": "1.0",
        "truncation": {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0},
        "padding": {"strategy": {"Fixed": 8}, "direction": "Right", "pad_to_multiple_of": null,
                    "pad_id": 0, "pad_type_id": 0, "pad_token": "<pad>"},
        "added_tokens": added, "normalizer": null, "pre_tokenizer": {"type": "WhitespaceSplit"},
        "post_processor": null, "decoder": null,
        "model": {"type": "WordLevel", "vocab": vocabulary, "unk_token": "<unk>"},
    })
    .to_string()
}

#[test]
fn tokenizer_file_is_read_with_its_roles_resolved() {
    let project = Project::new();
    project.source("one two three two nine\n", "line");
    let file = |special: Value| json!({"kind": "file", "path": "tokenizer.json", "special": special});

    // Truncation to 2 and padding to 8, fixed in the file, are switched off; a missing mask is appended.
    project.write(
        "tokenizer.json",
        word_level(
            &["<pad>", "<s>", "</s>", "<unk>", "one", "two", "three"],
            &["<s>"],
        ),
    );
    let tokenizer = project.tokenize(file(json!({}))).unwrap();
    assert_eq!(project.tokens(), [[4, 5, 6, 5, 3]]);
    let special = tokenizer.special();
    assert_eq!(
        (special.bos, special.eos, special.pad, special.mask),
        (1, 2, 0, 7)
    );
    assert_eq!(tokenizer.vocabulary(), 8);
    assert_eq!(tokenizer.token(7).as_deref(), Some("[MASK]"));
    let info = TokensInfo::open(&project.path("tokens")).unwrap();
    assert_eq!((info.tokens, info.unknown, info.vocabulary), (5, 1, 8));
    let found = |info: &TokensInfo| {
        let Roles { bos, eos, pad, mask } = &info.roles;
        [bos, eos, pad, mask].map(|role| (role.token.clone(), role.found))
    };
    let role = |token: &str, found| (token.to_owned(), found);
    assert_eq!(
        found(&info),
        [
            role("<s>", RoleSource::UsualName),
            role("</s>", RoleSource::UsualName),
            role("<pad>", RoleSource::UsualName),
            role("[MASK]", RoleSource::Appended)
        ]
    );
    assert_eq!(info.tokenizer_digest, tokenizer.digest().unwrap());
    assert_eq!(tokenizer.decode(&[1, 4, 7, 5, 2, 0, 0]).unwrap(), "one two");

    // Named roles.
    let tokenizer = project
        .tokenize(file(json!({"pad": "<s>", "mask": "<hole>"})))
        .unwrap();
    assert_eq!((tokenizer.special().pad, tokenizer.special().mask), (1, 7));
    let info = TokensInfo::open(&project.path("tokens")).unwrap();
    assert_eq!(found(&info)[2], role("<s>", RoleSource::Manifest));
    assert_eq!(found(&info)[3], role("<hole>", RoleSource::Appended));
    let error = project.tokenize(file(json!({"eos": "<end>"}))).err().unwrap();
    assert!(
        error
            .to_string()
            .ends_with("the vocabulary has no token `<end>`, named as `special.eos`")
    );
    assert_eq!(error.hint_text(), Some("its special tokens are `<s>`"));
    let error = project.tokenize(file(json!({"mask": "<s>"}))).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("`<s>` is the mask and has another role too")
    );

    // No usual name for a role.
    project.write("tokenizer.json", word_level(&["<s>", "<unk>", "one"], &[]));
    let error = project.tokenize(file(json!({}))).err().unwrap();
    assert!(
        error
            .to_string()
            .contains("the vocabulary has no eos token: tried [EOS], </s>, [SEP]")
    );
    // Without PAD, EOS fills up.
    project.source("nine\n", "line");
    let tokenizer = project.tokenize(file(json!({"eos": "one"}))).unwrap();
    assert_eq!((tokenizer.special().eos, tokenizer.special().pad), (2, 2));

    // A vocabulary whose words include the mask would make it of text.
    project.source("one [MASK] two\n", "line");
    project.write(
        "tokenizer.json",
        word_level(&["<s>", "</s>", "<unk>", "one", "[MASK]"], &[]),
    );
    let error = project.tokenize(file(json!({}))).err().unwrap();
    assert_eq!(
        error.to_string(),
        "record 1: the text contains the mask token `[MASK]`"
    );

    project.write("tokenizer.json", "{}");
    let error = project.tokenize(file(json!({}))).err().unwrap();
    assert!(error.to_string().contains("not a tokenizer file"), "{error}");
}

#[test]
fn vocabulary_faults_are_refused() {
    let project = Project::new();
    project.source("a\n", "line");
    let bert = json!({"kind": "bert", "vocabulary": "vocab.txt"});
    let gpt2 = json!({"kind": "gpt2", "vocabulary": "vocab.json", "merges": "merges.txt"});
    let check = |tokenizer: &Value, expected: &str| {
        let error = project.tokenize(tokenizer.clone()).err().unwrap().to_string();
        assert!(error.contains(expected), "{error}");
    };
    check(&bert, "No such file");
    project.write("vocab.txt", "[UNK]\n[CLS]\n[CLS]\n");
    check(&bert, "vocab.txt`: line 3: `[CLS]` occurs twice");
    project.write("vocab.txt", "[UNK]\n[CLS]\n");
    check(&bert, "there is no token `[SEP]`");
    project.write("vocab.txt", "[UNK]\n[CLS]\n[SEP]\na\n##a\n");
    let tokenizer = project.tokenize(bert).unwrap();
    let special = tokenizer.special();
    // No padding token: EOS; no mask: appended.
    assert_eq!(
        (special.bos, special.eos, special.pad, special.mask),
        (1, 2, 2, 5)
    );
    let roles = tokenizer.roles().unwrap();
    assert_eq!(
        [
            roles.bos.found,
            roles.eos.found,
            roles.pad.found,
            roles.mask.found
        ],
        [
            RoleSource::Kind,
            RoleSource::Kind,
            RoleSource::Eos,
            RoleSource::Appended
        ]
    );

    project.write("vocab.json", "{\"a\": 0, \"b\": 1}");
    check(&gpt2, "there is no token `<|endoftext|>`");
    project.write("vocab.json", "{\"a\": -1}");
    check(&gpt2, "token `a` has the id -1");
    project.write(
        "vocab.json",
        "{\"a\": 0, \"b\": 1, \"ab\": 2, \"<|endoftext|>\": 3}",
    );
    project.write("merges.txt", "#version: 0.2\na b\nb a\n");
    check(
        &gpt2,
        "merges.txt`: line 3: `b a` is not two tokens of the vocabulary that make a third",
    );
    project.write("merges.txt", "#version: 0.2\na b\n");
    project.source("abba\n", "line");
    let tokenizer = project.tokenize(gpt2).unwrap();
    assert_eq!(project.tokens(), [[2, 1, 0]]);
    assert_eq!((tokenizer.special().mask, tokenizer.vocabulary()), (4, 5));
}

#[test]
fn vocabulary_that_is_trained_begins_with_its_special_tokens() {
    let project = Project::new();
    project.source(&"low lower newest widest\n".repeat(5), "line");
    let bpe = project
        .tokenize(json!({"kind": "train_bpe", "vocabulary_size": 300}))
        .unwrap();
    let first = |tokenizer: &Tokenizer, n: u32| -> Vec<String> {
        (0..n).map(|id| tokenizer.token(id).unwrap()).collect()
    };
    assert_eq!(first(&bpe, 5), ["[PAD]", "[BOS]", "[EOS]", "[MASK]", "!"]);
    // 4 special tokens, 256 bytes and the merges of the four words: fewer than 40 are there to be made.
    assert!(bpe.vocabulary() < 300, "{}", bpe.vocabulary());
    assert_eq!(project.tokens()[0].len(), 4);

    let pieces = project
        .tokenize(json!({"kind": "train_wordpiece", "vocabulary_size": 300, "lowercase": true}))
        .unwrap();
    assert_eq!(
        first(&pieces, 6),
        ["[PAD]", "[BOS]", "[EOS]", "[MASK]", "[UNK]", "d"]
    );
    assert_eq!(project.tokens()[0].len(), 4);

    // Another stage's tokenizer: the same file, the same ids.
    let digest = pieces.digest().unwrap();
    let before = project.tokens();
    project
        .run(
            "again",
            json!({"kind": "tokenize", "from": "text", "tokenizer": {"kind": "stage", "stage": "tokens"}}),
        )
        .unwrap();
    let info = TokensInfo::open(&project.path("again")).unwrap();
    assert_eq!(info.tokenizer_digest, digest);
    assert_eq!(info, TokensInfo::open(&project.path("tokens")).unwrap());
    assert_eq!(
        digests(&project.path("again")),
        digests(&project.path("tokens")),
        "{before:?}"
    );
}

/// Files on which `tokenizers` panics, as fuzzing has found.
#[test]
fn tokenizer_library_panic_is_an_error_of_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    for decoder in [r#"{":": 108}"#, r#"{"type": "ByteLevel"}"#, "3"] {
        let model = r#"{"type": "WordLevel", "vocab": {"a": 0}, "unk_token": "a"}"#;
        std::fs::write(
            &path,
            format!(r#"{{"version": "1.0", "decoder": {decoder}, "model": {model}}}"#),
        )
        .unwrap();
        let config = mdlm::manifest::TokenizerFile {
            path: "tokenizer.json".to_owned(),
            special: None,
        };
        let error = Tokenizer::from_file(&config, folder.path()).err().unwrap();
        assert_eq!(error.kind(), Kind::Input, "{error}");
        assert!(error.to_string().contains("not a tokenizer file"), "{error}");
    }
}

/// What fuzzing has found: of two tokens with one id the library forgets one when it writes the tokenizer.
#[test]
fn token_ids_that_two_tokens_share_are_refused() {
    let project = Project::new();
    project.source("a b\n", "line");
    project.write(
        "tokenizer.json",
        word_level_of(&json!({"a": 0, "b": 1, "c": 1, "[BOS]": 2, "[EOS]": 3})),
    );
    let error = project
        .tokenize(json!({"kind": "file", "path": "tokenizer.json"}))
        .err()
        .unwrap();
    assert_eq!(error.kind(), Kind::Input);
    assert!(
        error
            .to_string()
            .ends_with("tokenizer.json`: the tokens `b` and `c` have the same id, 1"),
        "{error}"
    );
}

/// The library says so on the standard output, where only results belong, when it is asked to write such a tokenizer.
#[test]
fn token_ids_with_gaps_are_kept() {
    let project = Project::new();
    project.source("a b\n", "line");
    let vocabulary = json!({"a": 0, "b": 7, "[BOS]": 2, "[EOS]": 3, "[MASK]": 9});
    project.write("tokenizer.json", word_level_of(&vocabulary));
    let tokenizer = project
        .tokenize(json!({"kind": "file", "path": "tokenizer.json"}))
        .unwrap();
    assert_eq!(project.tokens(), [[0, 7]]);
    assert_eq!(tokenizer.vocabulary(), 10);
    let written: Value = serde_json::from_str(tokenizer.json().unwrap()).unwrap();
    assert_eq!(written["model"]["vocab"], vocabulary);
    let added = written["added_tokens"].as_array().unwrap();
    let ids: Vec<_> = added
        .iter()
        .map(|token| (&token["content"], &token["id"]))
        .collect();
    assert_eq!(json!(ids), json!([["[BOS]", 2], ["[EOS]", 3], ["[MASK]", 9]]));
}

fn word_level_of(vocabulary: &Value) -> String {
    let model = json!({"type": "WordLevel", "vocab": vocabulary, "unk_token": "a"});
    json!({"version": "1.0", "pre_tokenizer": {"type": "Whitespace"}, "model": model}).to_string()
}

#[test]
fn text_hash_is_xxh3() {
    // `xxhash.xxh3_64_intdigest` of the reference implementation, by way of Python.
    assert_eq!(text_hash(""), 0x2d06_8005_38d3_94c2);
    assert_eq!(text_hash("abc"), 0x78af_5f94_892f_3950);
    assert_eq!(text_hash(&"x".repeat(300)), 0xa5d1_b460_7dc8_3554);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn byte_level_tokens_decode_to_the_text(
        // A byte order mark at the start of a line is left out of the text.
        texts in proptest::collection::vec("[^\r\n\\x{FEFF}]{0,40}", 1..8)
    ) {
        let kept: Vec<&String> = texts.iter().filter(|t| !t.trim().is_empty()).collect();
        prop_assume!(!kept.is_empty());
        let project = Project::new();
        project.source(&texts.join("\n"), "line");
        let tokenizer = project.tokenize(json!({"kind": "train_bpe", "vocabulary_size": 300, "min_frequency": 1})).unwrap();
        let decoded: Vec<String> = project.tokens().iter().map(|t| tokenizer.decode(t).unwrap()).collect();
        prop_assert_eq!(decoded.iter().collect::<Vec<_>>(), kept);
    }
}

/// The ids of `golden/token_ids.json` were made by Hugging Face's Python tokenizers; `token_ids.py` beside it says how.
#[test]
fn token_ids_of_bert_and_gpt2_are_the_published_ones() {
    let Some(kit) = kit("tokenizers.tar.zst") else {
        return;
    };
    let (bert, gpt2) = (kit.path().join("bert-base-uncased"), kit.path().join("gpt2-bpe"));
    let from = |tokenizer: Value| -> Tokenizer {
        match serde_json::from_value(tokenizer).unwrap() {
            mdlm::manifest::Tokenizer::File(file) => Tokenizer::from_file(&file, &bert),
            mdlm::manifest::Tokenizer::Gpt2(files) => Tokenizer::gpt2(&files, &gpt2),
            mdlm::manifest::Tokenizer::Bert(file) => Tokenizer::bert(&file, &bert),
            _ => unreachable!("the three kinds below"),
        }
        .unwrap()
    };
    let vocab = from(json!({"kind": "bert", "vocabulary": "vocab.txt"}));
    let file = from(json!({"kind": "file", "path": "tokenizer.json"}));
    let gpt2 = from(json!({"kind": "gpt2", "vocabulary": "encoder.json", "merges": "vocab.bpe"}));
    for bert in [&vocab, &file] {
        let special = bert.special();
        assert_eq!(
            (special.bos, special.eos, special.pad, special.mask),
            (101, 102, 0, 103)
        );
        assert_eq!(bert.vocabulary(), 30_522);
    }
    let special = gpt2.special();
    assert_eq!(
        (special.bos, special.eos, special.pad, special.mask),
        (50_256, 50_256, 50_256, 50_257)
    );
    assert_eq!(gpt2.vocabulary(), 50_258);
    let cases: Vec<Value> = serde_json::from_str(include_str!("golden/token_ids.json")).unwrap();
    assert!(cases.len() > 15);
    for case in cases {
        let text = case["text"].as_str().unwrap();
        for (tokenizer, name) in [(&vocab, "bert"), (&file, "bert"), (&gpt2, "gpt2")] {
            let mut ids = Vec::new();
            tokenizer.encode(text, &mut ids).unwrap();
            assert_eq!(json!(ids), case[name], "{name} {text:?}");
        }
        let mut ids = Vec::new();
        gpt2.encode(text, &mut ids).unwrap();
        assert_eq!(gpt2.decode(&ids).unwrap(), text);
    }
}

/// Lines that are not blank, and GPT-2's tokens in them as Hugging Face's Python tokenizers (0.22.1) count them:
/// `t = ByteLevelBPETokenizer(vocab, merges); sum(len(t.encode(line.rstrip("\n")).ids) for line in file if line.strip())`.
#[test]
fn pack_of_wikitext_has_the_published_counts() {
    let (Some(text), Some(tokenizers)) = (kit("wikitext.tar.zst"), kit("tokenizers.tar.zst")) else {
        return;
    };
    let project = Project::new();
    let input = json!({"kind": "files", "files": [text.path().join("wikitext-2/wiki.valid.tokens")]});
    project
        .run("text", json!({"kind": "source", "input": input}))
        .unwrap();
    let gpt2 = tokenizers.path().join("gpt2-bpe");
    project
        .tokenize(json!({
            "kind": "gpt2", "vocabulary": gpt2.join("encoder.json"), "merges": gpt2.join("vocab.bpe"),
        }))
        .unwrap();
    let tokens = TokensInfo::open(&project.path("tokens")).unwrap();
    assert_eq!((tokens.records, tokens.tokens), (2461, 253_600));
    let rows = project.pack(json!({"length": 1024, "validation": 0.1})).unwrap();
    let all = rows.train.tokens + rows.validation.tokens;
    assert_eq!(all, tokens.tokens + tokens.records);
    assert_eq!(rows.train.rows, rows.train.tokens / 1022);
}
