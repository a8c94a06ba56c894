//! The corpora of the field by name: where they are, what they are, and how they are read.
//!
//! Facts with their sources; no text of any corpus is here. A checksum is given where somebody has published it.

use super::source::{
    CorpusSplit, Detokenizer, Format, NamedCorpus, Range, Reading, RemoteFile, TextFormat,
};

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
    /// The files, in the order in which `files` of a manifest names them.
    pub files: &'static [CorpusFile],
    /// The parts it has.
    pub parts: &'static [Part],
}

/// A file of a corpus.
#[derive(Debug)]
pub struct CorpusFile {
    /// Where it is.
    pub url: &'static str,
    /// SHA-256 in hex, where it is publicly known.
    pub sha256: Option<&'static str>,
    /// Its size, where it is publicly known.
    pub bytes: Option<u64>,
}

/// A part of a corpus.
#[derive(Debug)]
pub struct Part {
    /// Which.
    pub split: CorpusSplit,
    /// Indices of its files.
    pub files: &'static [usize],
    /// How they are read.
    pub reading: fn() -> Reading,
    /// Its detokenizers.
    pub detokenize: &'static [Detokenizer],
    /// The part of the text.
    pub range: Option<Range>,
}

/// A named corpus spelt out.
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
    pub fn part(&self, split: CorpusSplit) -> Option<&Part> {
        self.parts.iter().find(|part| part.split == split)
    }
}

impl NamedCorpus {
    /// What the name stands for; nothing if there is no such corpus or part.
    #[must_use]
    pub fn resolve(&self) -> Option<Resolved> {
        let corpus = Corpus::find(&self.corpus)?;
        let part = corpus.part(self.split)?;
        let files = part
            .files
            .iter()
            .map(|&index| {
                let file = &corpus.files[index];
                RemoteFile {
                    url: file.url.to_owned(),
                    sha256: file.sha256.map(str::to_owned),
                    unpinned: file.sha256.is_none(),
                    max_bytes: None,
                }
            })
            .collect();
        Some(Resolved {
            files,
            read: (part.reading)(),
            detokenize: part.detokenize.to_vec(),
            range: part.range.clone(),
        })
    }
}

/// Every corpus.
pub const CORPORA: &[Corpus] = &[Corpus {
    name: "text8",
    title: "text8: 100 million characters of English Wikipedia, lower case",
    licence: "CC BY-SA 3.0 (Wikipedia)",
    homepage: "http://mattmahoney.net/dc/textdata.html",
    files: &[CorpusFile {
        url: "http://mattmahoney.net/dc/text8.zip",
        sha256: None,
        bytes: None,
    }],
    parts: &[Part {
        split: CorpusSplit::Train,
        files: &[0],
        reading: whole_file,
        detokenize: &[],
        range: None,
    }],
}];

fn whole_file() -> Reading {
    Reading {
        format: Some(Format::Text(TextFormat {
            record: super::source::RecordUnit::File,
        })),
        longest_record: 1 << 30,
        ..Reading::default()
    }
}
