//! `tokenize`: records → tokens, with a tokenizer that is loaded or trained here.
//!
//! Records are tokenized by all threads and written in their order; which thread had which record leaves no trace.

use std::path::Path;

use arrow::array::{Array as _, LargeStringArray};
use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::data::encoder::Encoders;
use crate::data::fetch;
use crate::data::loss::Loss;
use crate::data::records::Records;
use crate::data::tokenizer::Tokenizer;
use crate::data::tokens::{TokenPiece, TokenWriter, text_hash};
use crate::data::word_count::words_in;
use crate::data::words::{ChunkCounts, WordCounts, WordCutter};
use crate::data::{RoleSource, TOKENIZER, TOKENS_INFO, TokensInfo, write_json};
use crate::error::{Context as _, Error, Result};
use crate::event::Progress;
use crate::manifest::reading::RemoteFile;
use crate::manifest::vocabularies::{Family, Published};
use crate::manifest::{self, BertFile, Gpt2Files, SpecialTokensInText, TokenizerFile, TrainTokenizer};
use crate::plural::counted;
use crate::shapes::SHAPES;
use crate::stages::by_hand::{self, Sha256};
use crate::stages::key::value_of;
use crate::stages::{Context, Run, StageOutput, fetched};
use crate::store::ExternalFile;

/// The share of the text's bytes from which on its loss is a warning.
const WORTH_WARNING: f64 = 0.001;

/// What the summary calls the size of the vocabulary, the mask included.
pub const VOCABULARY: &str = "vocabulary";

/// Pieces of a batch for each thread: enough that a thread with long records is waited for only shortly.
const PIECES_PER_THREAD: usize = 16;

impl Run for manifest::Tokenize {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: `tokenizers` 0.22, byte-pair merges of our own, special tokens in the text tokenized as text. 2: tokens of 16 bits
    /// where they fit; `tokens.json` records how the special tokens were found. 3: records are identified by XXH3. 4: what tokens
    /// leave out of the text is counted, dropout is off, text makes no special token. Still 4: words of each record, where the
    /// source counts them.
    const VERSION: u32 = 4;

    /// Runs the stage.
    ///
    /// # Errors
    /// The tokenizer is absent or unfit, a record cannot be tokenized, the disk is full, or the run is cancelled.
    #[expect(clippy::too_many_lines, reason = "one step after the other")]
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let records = Records::open(context.input("from")?)?;
        let mut provenance = serde_json::Map::new();
        let mut downloads = None;
        let local = fetched::tokenizer(&self.tokenizer, &mut downloads, context, &mut provenance)?;
        let mut tokenizer = match &local {
            manifest::Tokenizer::Published(_) | manifest::Tokenizer::Download(_) => {
                return Err(Error::internal("a tokenizer to download has no local file"));
            }
            manifest::Tokenizer::File(file) => Tokenizer::from_file(file, context.base)?,
            manifest::Tokenizer::Gpt2(files) => Tokenizer::gpt2(files, context.base)?,
            manifest::Tokenizer::Bert(file) => Tokenizer::bert(file, context.base)?,
            manifest::Tokenizer::TrainBpe(training) => {
                let words = words(&WordCutter::bpe(training.lowercase)?, &records, context)?;
                note_size(Tokenizer::train_bpe(training, &words)?, training, context)
            }
            manifest::Tokenizer::TrainWordpiece(training) => {
                let words = words(&WordCutter::wordpiece(training.lowercase)?, &records, context)?;
                note_size(Tokenizer::train_wordpiece(training, &words)?, training, context)
            }
            manifest::Tokenizer::Characters(characters) => Tokenizer::characters(&characters.alphabet)?,
            manifest::Tokenizer::Stage(_) => Tokenizer::open(context.input("tokenizer/stage")?)?,
        };
        // Read; its files may go.
        drop(downloads);
        if let Some(room) = &context.room {
            room.takes(tokenizer.vocabulary())?;
        }
        for warning in tokenizer.warnings() {
            context.warn(warning.clone());
        }
        if self.special_tokens_in_text == SpecialTokensInText::Allow {
            tokenizer.allow_special_tokens();
        }
        let path = context.output.join(TOKENIZER);
        let roles = tokenizer
            .roles()
            .ok_or_else(|| Error::internal("the origin of the special tokens is missing"))?;
        if roles.mask.found == RoleSource::Appended {
            context.note(format!(
                "the vocabulary has no mask token: `{}` is appended to it, id {}",
                roles.mask.token,
                tokenizer.special().mask
            ));
        }
        let mut info = TokensInfo {
            vocabulary: tokenizer.vocabulary(),
            special: tokenizer.special(),
            roles: roles.clone(),
            tokenizer_digest: String::new(),
            records: 0,
            tokens: 0,
            bytes: 0,
            words: 0,
            unknown: 0,
            lost_characters: 0,
            lost_bytes: 0,
            lost_records: 0,
            normalized_records: 0,
        };
        let (digest, done) = rayon::join(
            || {
                let json = tokenizer.json()?;
                std::fs::write(&path, json).context(|| format!("write `{}`", path.display()))?;
                tokenizer.digest()
            },
            || {
                tokenize_all(
                    &Encoders::new(&tokenizer, records.info().bytes)?,
                    &records,
                    &mut info,
                    context,
                )
            },
        );
        done?;
        info.tokenizer_digest = digest?;
        if info.records != records.info().records {
            return Err(Error::input(format!(
                "the source holds {}, but its `source.json` says {}",
                counted(info.records, "record"),
                records.info().records
            ))
            .hint("run the source stage again with `--force`"));
        }
        if let Some(lost) = lost(&info) {
            let message = format!(
                "no token spells {lost}: bits per byte will include the cost of spelling it out; a byte-level tokenizer \
                 loses nothing"
            );
            if info.lost_bytes as f64 >= WORTH_WARNING * info.bytes as f64 {
                context.warn(message);
            } else {
                context.note(message);
            }
        }
        write_json(&context.output.join(TOKENS_INFO), &info)?;
        let mut figures = figures(&info);
        figures.extend(fetched::elsewhere(&provenance));
        Ok(StageOutput {
            figures,
            provenance,
            ..StageOutput::default()
        })
    }

    /// The kind that reads the files of a tokenizer from elsewhere, and their checksums instead of places. Gives the files whose
    /// digests are known.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        let mut known = Vec::new();
        let settings = match &self.tokenizer {
            manifest::Tokenizer::Published(named) => {
                // An unknown name is a fault of the manifest, found before.
                let Some(published) = Published::find(&named.name) else {
                    return Ok(known);
                };
                let nowhere = String::new;
                let mut settings = value_of(&match published.family {
                    Family::Gpt2 => manifest::Tokenizer::Gpt2(Gpt2Files {
                        vocabulary: nowhere(),
                        merges: nowhere(),
                    }),
                    Family::Bert { lowercase } => manifest::Tokenizer::Bert(BertFile {
                        vocabulary: nowhere(),
                        lowercase,
                    }),
                })?;
                for file in published.files {
                    if let Some(blake3) = file.blake3 {
                        // As of a file that is named by its path.
                        if let Some(settings) = settings.as_object_mut() {
                            settings.shift_remove(file.field);
                        }
                        known.push(ExternalFile {
                            field: format!("tokenizer/{}", file.field),
                            path: file.url.to_owned(),
                            bytes: file.bytes,
                            digest: blake3.parse()?,
                        });
                    } else {
                        settings[file.field] = json!({ "sha256": file.sha256 });
                    }
                }
                settings
            }
            manifest::Tokenizer::Download(download) => {
                let mut settings = value_of(&manifest::Tokenizer::File(TokenizerFile {
                    path: String::new(),
                    special: download.special.clone(),
                }))?;
                settings["path"] = match (&download.sha256, &download.path) {
                    (Some(sha256), _) => json!({ "sha256": sha256 }),
                    // Its own content is in the key.
                    (None, Some(_)) => Value::Null,
                    (None, None) => json!({ "url": download.url }),
                };
                settings
            }
            _ => return Ok(known),
        };
        config.insert("tokenizer".to_owned(), settings);
        Ok(known)
    }

    fn downloads(&self) -> (Vec<RemoteFile>, Option<u64>) {
        let downloads = self.tokenizer.downloads().into_iter();
        let bytes = match &self.tokenizer {
            manifest::Tokenizer::Published(config) => Published::find(&config.name).map(Published::bytes),
            _ => None,
        };
        (downloads.map(|(_, file)| file).collect(), bytes)
    }

    fn check_by_hand(&self, base: &Path, sha256: Sha256<'_>) -> Result<()> {
        match &self.tokenizer {
            manifest::Tokenizer::Published(config) => {
                if let (Some(path), Some(published)) = (&config.path, Published::find(&config.name)) {
                    by_hand::tokenizer(published, &base.join(path), sha256)?;
                }
            }
            manifest::Tokenizer::Download(config) => {
                if let (Some(path), Some(known)) = (&config.path, &config.sha256) {
                    by_hand::check(&base.join(path), known, sha256)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn is_by_hand_here(&self, base: &Path) -> bool {
        let path = match &self.tokenizer {
            manifest::Tokenizer::Published(config) => config.path.as_ref(),
            manifest::Tokenizer::Download(config) => config.path.as_ref(),
            _ => None,
        };
        path.is_some_and(|path| base.join(path).exists())
    }
}

/// The network that is to learn a tokenizer's tokens, as far as its vocabulary goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Room {
    /// The train stage.
    pub stage: String,
    /// Its shape.
    pub shape: &'static str,
    /// Tokens that the shape takes, the mask included.
    pub vocabulary: usize,
}

impl Room {
    /// Whether a vocabulary fits: before hours are spent on tokens that cannot be learnt.
    ///
    /// # Errors
    /// The vocabulary has more tokens than the shape has room for.
    pub fn takes(&self, vocabulary: u32) -> Result<()> {
        if vocabulary as usize <= self.vocabulary {
            return Ok(());
        }
        let large: Vec<_> = SHAPES
            .iter()
            .filter(|shape| shape.vocabulary >= vocabulary as usize)
            .map(|shape| format!("`{}`", shape.name))
            .collect();
        let hint = if large.is_empty() {
            "use a smaller tokenizer; `mdlm shapes` lists the vocabulary of each shape".to_owned()
        } else {
            format!(
                "take a smaller tokenizer, or a shape with room for it and rows of its length: {}",
                large.join(", ")
            )
        };
        Err(Error::input(format!(
            "the tokenizer has {vocabulary} tokens, and shape `{}` of `{}` has room for {}",
            self.shape, self.stage, self.vocabulary
        ))
        .hint(hint))
    }
}

/// What is wrong with the files of a tokenizer that are named by their paths, with the field that names the first of them:
/// nothing where one of them is not there, or where no file is named.
#[must_use]
pub fn damaged(config: &manifest::Tokenizer, base: &Path) -> Option<(&'static str, Error)> {
    let (field, files) = match config {
        manifest::Tokenizer::File(file) => ("path", vec![&file.path]),
        manifest::Tokenizer::Gpt2(files) => ("vocabulary", vec![&files.vocabulary, &files.merges]),
        manifest::Tokenizer::Bert(file) => ("vocabulary", vec![&file.vocabulary]),
        _ => return None,
    };
    if !files.iter().all(|file| base.join(file).is_file()) {
        return None;
    }
    // No download is asked for.
    let error = vocabulary(config, base, Path::new("")).err()?;
    Some((field, error))
}

/// The size of a tokenizer whose files are on this machine; nothing where it is known only once it is trained or
/// downloaded.
///
/// # Errors
/// A file is at fault: before an hour is spent on the text.
pub fn vocabulary(config: &manifest::Tokenizer, base: &Path, downloads: &Path) -> Result<Option<u32>> {
    let tokenizer = match config {
        manifest::Tokenizer::Published(config) => {
            return Ok(Published::find(&config.name).map(|published| published.vocabulary));
        }
        manifest::Tokenizer::Download(config) => {
            let path = match &config.path {
                Some(path) => Some(base.join(path)),
                None => fetch::place_of(&config.remote(), downloads),
            };
            let Some(path) = path.as_ref().and_then(|path| path.to_str()) else {
                return Ok(None);
            };
            let file = manifest::TokenizerFile {
                path: path.to_owned(),
                special: config.special.clone(),
            };
            Tokenizer::from_file(&file, base)
        }
        manifest::Tokenizer::File(file) => Tokenizer::from_file(file, base),
        manifest::Tokenizer::Gpt2(files) => Tokenizer::gpt2(files, base),
        manifest::Tokenizer::Bert(file) => Tokenizer::bert(file, base),
        // The manifest's faults say more of the largest that they may become.
        manifest::Tokenizer::TrainBpe(_)
        | manifest::Tokenizer::TrainWordpiece(_)
        | manifest::Tokenizer::Characters(_)
        | manifest::Tokenizer::Stage(_) => return Ok(None),
    };
    tokenizer.map(|tokenizer| Some(tokenizer.vocabulary()))
}

/// Tokenizes all records and counts them.
fn tokenize_all(
    encoders: &Encoders<'_>,
    records: &Records,
    info: &mut TokensInfo,
    context: &Context<'_>,
) -> Result<()> {
    let mut writer = TokenWriter::new(context.output, info.vocabulary);
    let mut done = Vec::new();
    for index in 0..records.batches() {
        context.cancel.check()?;
        // A batch is written while the next one is tokenized.
        let (written, next) = rayon::join(
            || writer.push(&done),
            || {
                let (texts, words) = records.batch_with_words(index)?;
                tokenize(encoders, &texts, words.as_deref(), info.records, context.threads)
            },
        );
        written?;
        done = Vec::new();
        for (piece, counts) in next? {
            info.records += piece.lengths.len() as u64;
            info.tokens += piece.tokens.len() as u64;
            info.bytes += piece.bytes.iter().map(|&n| u64::from(n)).sum::<u64>();
            info.words += counts.words;
            info.unknown += counts.loss.unknown;
            info.lost_characters += counts.loss.characters;
            info.lost_bytes += counts.loss.bytes;
            info.lost_records += piece.lost.len() as u64;
            info.normalized_records += counts.changed;
            done.push(piece);
        }
        context.progress(Progress {
            done: info.bytes,
            total: Some(records.info().bytes),
            unit: "bytes",
            figures: vec![("tokens", info.tokens.to_string())],
        });
    }
    writer.push(&done)?;
    writer.finish()
}

/// What a person wants to know.
fn figures(info: &TokensInfo) -> Vec<(String, String)> {
    let share = |part: u64, whole: u64| part as f64 / whole.max(1) as f64;
    let per_byte = share(info.tokens, info.bytes);
    let per_word = share(info.tokens, info.words);
    let unknown = 100.0 * share(info.unknown, info.tokens);
    let mut figures = vec![
        ("records", info.records.to_string()),
        ("tokens", info.tokens.to_string()),
        (VOCABULARY, info.vocabulary.to_string()),
        ("tokens per byte", format!("{per_byte:.4}")),
        ("tokens per word", format!("{per_word:.3}")),
        ("unknown", format!("{unknown:.3}%")),
    ];
    if let Some(lost) = lost(info) {
        figures.push(("lost", lost));
    }
    figures
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// How much of the text no token spells, if any.
fn lost(info: &TokensInfo) -> Option<String> {
    (info.lost_characters > 0).then(|| {
        format!(
            "{} ({:.3}% of the bytes)",
            counted(info.lost_characters, "character"),
            100.0 * info.lost_bytes as f64 / info.bytes.max(1) as f64
        )
    })
}

/// Calls `work` on consecutive ranges of the batch's records, in parallel; results in order.
fn in_pieces<T: Send>(
    texts: &LargeStringArray,
    threads: usize,
    work: impl Fn(std::ops::Range<usize>) -> T + Sync,
) -> Vec<T> {
    let records = texts.len();
    let size = records.div_ceil(PIECES_PER_THREAD * threads.max(1)).max(1);
    (0..records.div_ceil(size))
        .into_par_iter()
        .map(|piece| work(piece * size..((piece + 1) * size).min(records)))
        .collect()
}

/// Tokenizes a batch by all threads: its tokens in pieces, each with what was counted.
fn tokenize(
    encoders: &Encoders<'_>,
    texts: &LargeStringArray,
    words: Option<&[u32]>,
    before: u64,
    threads: usize,
) -> Result<Vec<(TokenPiece, Counts)>> {
    let pieces = in_pieces(texts, threads, |range| {
        let words = words.map_or_else(Vec::new, |words| words[range.clone()].to_vec());
        let (piece, counts) = encode(encoders, texts, range)?;
        Ok((TokenPiece { words, ..piece }, counts))
    });
    let record =
        |(record, error): (usize, Error)| error.context(format!("record {}", before + record as u64 + 1));
    pieces.into_iter().map(|piece| piece.map_err(record)).collect()
}

/// What is counted of some records.
#[derive(Clone, Copy, Default)]
struct Counts {
    /// What lies between ASCII white space.
    words: u64,
    /// What tokens leave out of the text.
    loss: Loss,
    /// Records that are changed before they are tokenized.
    changed: u64,
}

type Encoded = std::result::Result<(TokenPiece, Counts), (usize, Error)>;

/// Tokenizes some records of a batch, or returns the first record at fault.
fn encode(encoders: &Encoders<'_>, texts: &LargeStringArray, range: std::ops::Range<usize>) -> Encoded {
    encoders.lend(|encoder| {
        let mut piece = TokenPiece::default();
        let mut counts = Counts::default();
        for record in range {
            let text = texts.value(record);
            let before = piece.tokens.len();
            let loss = encoder
                .encode(text, &mut piece.tokens)
                .map_err(|error| (record, error))?;
            if loss.bits > 0 {
                piece.lost.push((piece.lengths.len(), loss.bits));
            }
            counts.changed += u64::from(loss.changed);
            counts.loss.add(loss);
            piece.lengths.push((piece.tokens.len() - before) as u32);
            // A record is shorter than 2^32 bytes: `records::MAX_RECORD_BYTES`.
            piece.bytes.push(text.len() as u32);
            counts.words += words_in(text);
            piece.hashes.push(text_hash(text));
        }
        Ok((piece, counts))
    })
}

/// The words of the records, counted.
fn words(cutter: &WordCutter, records: &Records, context: &Context) -> Result<WordCounts> {
    let mut counts = ChunkCounts::default();
    let mut done = 0;
    for index in 0..records.batches() {
        context.cancel.check()?;
        let texts = records.batch(index)?;
        let pieces = in_pieces(&texts, context.threads, |range| {
            let mut counts = ChunkCounts::default();
            for record in range {
                cutter.count(texts.value(record), &mut counts);
            }
            counts
        });
        for piece in pieces {
            counts.append(piece);
        }
        // Between batches alone, whose ends the records decide, not the threads.
        counts.bound();
        done += texts.value_data().len() as u64;
        context.progress(Progress {
            done,
            total: Some(records.info().bytes),
            unit: "bytes",
            figures: vec![("counting", "words".to_owned())],
        });
    }
    cutter.words(&counts)
}

fn note_size(tokenizer: Tokenizer, training: &TrainTokenizer, context: &Context) -> Tokenizer {
    if tokenizer.vocabulary() < training.vocabulary_size {
        context.note(format!(
            "the text yields a vocabulary of {}, fewer than the {} asked for",
            tokenizer.vocabulary(),
            training.vocabulary_size
        ));
    }
    tokenizer
}
