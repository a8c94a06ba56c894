//! The tokenizers that are published under a name: where their files are, what they hold, and how they are read.
//!
//! Facts with their sources; no vocabulary is here. A checksum is given only where it was computed from the bytes or
//! where several independent public programs state it; what comes from a place is checked against it in any case.

use super::reading::RemoteFile;

/// A tokenizer that is published under a name.
#[derive(Debug)]
pub struct Published {
    /// What manifests call it.
    pub name: &'static str,
    /// What it is, in some words.
    pub title: &'static str,
    /// Its licence, as its makers state it.
    pub licence: &'static str,
    /// Where it is described.
    pub homepage: &'static str,
    /// How its files are read.
    pub family: Family,
    /// Tokens, the mask included: appended where the files have none.
    pub vocabulary: u32,
    /// The files, in the order of the family's fields.
    pub files: &'static [PublishedFile],
}

/// How the files of a published tokenizer are read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// As `"kind": "gpt2"` reads them.
    Gpt2,
    /// As `"kind": "bert"` reads them.
    Bert {
        /// Whether text is lower-cased and accents are stripped.
        lowercase: bool,
    },
}

/// A file of a published tokenizer.
#[derive(Debug)]
pub struct PublishedFile {
    /// The field of the family's kind that names such a file.
    pub field: &'static str,
    /// Where it is.
    pub url: &'static str,
    /// SHA-256 of it, in hex.
    pub sha256: &'static str,
    /// BLAKE3 of it, in hex, where its bytes were at hand: with it, the file by name and the same file by path have one
    /// cache key.
    pub blake3: Option<&'static str>,
    /// Its size.
    pub bytes: u64,
    /// What it is called in a folder; the first is the name on the hub.
    pub names: &'static [&'static str],
}

impl Published {
    /// The tokenizer of that name.
    #[must_use]
    pub fn find(name: &str) -> Option<&'static Self> {
        PUBLISHED.iter().find(|published| published.name == name)
    }

    /// Bytes to download.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.files.iter().map(|file| file.bytes).sum()
    }
}

impl PublishedFile {
    /// The file as a download.
    #[must_use]
    pub fn remote(&self) -> RemoteFile {
        RemoteFile {
            url: self.url.to_owned(),
            sha256: Some(self.sha256.to_owned()),
            unpinned: false,
            max_bytes: Some(self.bytes),
            exclude: vec![],
        }
    }

    /// The file with that SHA-256.
    #[must_use]
    pub fn with_sha256(sha256: &str) -> Option<&'static Self> {
        let mut files = PUBLISHED.iter().flat_map(|published| published.files);
        files.find(|file| file.sha256 == sha256)
    }
}

/// Every published tokenizer that has a name here.
pub const PUBLISHED: &[Published] = &[
    Published {
        name: "gpt2",
        title: "GPT-2's byte-level BPE, the same for all sizes of GPT-2",
        licence: "MIT (modified; openai/gpt-2, LICENSE)",
        homepage: "https://github.com/openai/gpt-2",
        family: Family::Gpt2,
        // 50,257 of its own and the mask.
        vocabulary: 50_258,
        // Checksums and sizes: computed from OpenAI's files `encoder.json` and `vocab.bpe`; openai/tiktoken,
        // tiktoken_ext/openai_public.py, checks OpenAI's files against the same. The hub's copies, `vocab.json` and
        // `merges.txt`, are the same bytes: public programs that pin openai-community/gpt2 at this commit, which is
        // `main` since 2024, state the same checksums for them.
        files: &[
            PublishedFile {
                field: "vocabulary",
                url: "hf://openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e/vocab.json",
                sha256: "196139668be63f3b5d6574427317ae82f612a97c5d1cdaf36ed2256dbf636783",
                blake3: Some("08eb4745fda590b9020901dfedd3f6c059b70dde728ac46111315c17d82176db"),
                bytes: 1_042_301,
                names: &["vocab.json", "encoder.json"],
            },
            PublishedFile {
                field: "merges",
                url: "hf://openai-community/gpt2@607a30d783dfa663caf39e06633721c8d4cfcd7e/merges.txt",
                sha256: "1ce1664773c50f3e0cc8842619a93edc4624525b728b188a9e0be33b7726adc5",
                blake3: Some("0362ae9e4f1b1f4ca16fdaa6699ecac71e4096b4261197681cd7d9e7b6eff70d"),
                bytes: 456_318,
                names: &["merges.txt", "vocab.bpe"],
            },
        ],
    },
    Published {
        name: "bert-base-uncased",
        title: "BERT's WordPiece of lower-case English, also of bert-large-uncased",
        licence: "Apache-2.0 (google-research/bert)",
        homepage: "https://github.com/google-research/bert",
        family: Family::Bert { lowercase: true },
        vocabulary: 30_522,
        // Checksum and size: computed from the file. Public programs that pin google-bert/bert-base-uncased at this commit
        // state the same. Not its `tokenizer.json`, of which there are several: some of them cut texts off.
        files: &[PublishedFile {
            field: "vocabulary",
            url: "hf://google-bert/bert-base-uncased@86b5e0934494bd15c9632b12f734a8a67f723594/vocab.txt",
            sha256: "07eced375cec144d27c900241f3e339478dec958f92fddbc551f295c992038a3",
            blake3: Some("29a772c92cf4b7bc8f4c52d801f03d36ad8528ef964f856dadc4c4e7cb14e451"),
            bytes: 231_508,
            names: &["vocab.txt"],
        }],
    },
    Published {
        name: "bert-base-cased",
        title: "BERT's WordPiece of English as it is written, also of bert-large-cased",
        licence: "Apache-2.0 (google-research/bert)",
        homepage: "https://github.com/google-research/bert",
        family: Family::Bert { lowercase: false },
        vocabulary: 28_996,
        // Checksum: NVIDIA/DeepLearningExamples, whose downloader checks the `vocab.txt` of Google's own archives against
        // it, and public programs that pin copies of the file on the hub (dslim/bert-base-NER, Xenova/bert-base-NER). Size:
        // the latter. Commit: public programs that pin google-bert/bert-base-cased. Its bytes were not at hand.
        files: &[PublishedFile {
            field: "vocabulary",
            url: "hf://google-bert/bert-base-cased@cd5ef92a9fb2f889e972770a36d4ed042daf221e/vocab.txt",
            sha256: "eeaa9875b23b04b4c54ef759d03db9d1ba1554838f8fb26c5d96fa551df93d02",
            blake3: None,
            bytes: 213_450,
            names: &["vocab.txt"],
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_well_formed() {
        let is_hex = |text: &str| {
            text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        for published in PUBLISHED {
            let fields: Vec<_> = published.files.iter().map(|file| file.field).collect();
            match published.family {
                Family::Gpt2 => assert_eq!(fields, ["vocabulary", "merges"]),
                Family::Bert { .. } => assert_eq!(fields, ["vocabulary"]),
            }
            for file in published.files {
                assert!(
                    is_hex(file.sha256) && file.blake3.is_none_or(is_hex),
                    "{}",
                    file.url
                );
                assert!(file.remote().names_commit(), "{}", file.url);
                assert!(file.url.ends_with(&format!("/{}", file.names[0])), "{}", file.url);
            }
        }
        // The names that manifests may use are a promise.
        let names: Vec<_> = PUBLISHED.iter().map(|published| published.name).collect();
        assert_eq!(names, ["gpt2", "bert-base-uncased", "bert-base-cased"]);
    }

    /// The kit has the bytes: this repository does not contain them.
    #[test]
    fn digests_are_those_of_the_bytes() {
        let kit = std::env::var_os("MDLM_TEST_KIT").ok_or("MDLM_TEST_KIT names no folder");
        let Some(kit) = crate::require::require("kit", kit) else {
            return;
        };
        let packed = std::fs::File::open(std::path::Path::new(&kit).join("tokenizers.tar.zst")).unwrap();
        let bytes = zstd::decode_all(packed).unwrap();
        for file in PUBLISHED.iter().flat_map(|published| published.files) {
            let Some(blake3) = file.blake3 else { continue };
            let length = usize::try_from(file.bytes).unwrap();
            // A member of a tar archive follows a block of 512 bytes that has its size in octal digits.
            let size = format!("{length:011o}");
            let found = (0..bytes.len() / 512)
                .map(|block| block * 512)
                .filter(|at| bytes[at + 124..].starts_with(size.as_bytes()))
                .filter_map(|at| bytes.get(at + 512..at + 512 + length))
                .any(|content| {
                    let digest = ring::digest::digest(&ring::digest::SHA256, content);
                    let hex = |text: &str| {
                        (0..32)
                            .map(|at| u8::from_str_radix(&text[2 * at..][..2], 16).unwrap())
                            .collect::<Vec<_>>()
                    };
                    digest.as_ref() == hex(file.sha256) && blake3::hash(content).to_hex().as_str() == blake3
                });
            assert!(found, "{}", file.url);
        }
    }
}
