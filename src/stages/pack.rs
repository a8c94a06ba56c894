//! `pack`: tokens → rows of fixed length, split for training and validation.
//!
//! Wrapping lives here and not in `tokenize`, because it has to come after the split: a document whose tokens were
//! joined with its neighbours' before the split would lie partly in rows that are learnt and partly in rows that are
//! held out. A record goes to a split by a seeded hash of its text, so that equal texts always share a split and no
//! duplicate of a held-out record is learnt.
//!
//! Wrapped, with L tokens a row: every document gets an EOS, the documents of a split are joined, cut into pieces of
//! L − 2, and a row is BOS + piece + EOS; the tail that fills no row is dropped or makes a last row that is padded. Not
//! wrapped: a row is BOS + record + EOS, a record beyond L − 2 tokens is cut so that EOS stays, and PAD fills up. Padding
//! that does not count is left out of every loss, but the network sees it, and so the text's length: a bound on such rows is
//! one given the length. Padding that counts is part of the record, so that the bound is on the whole record.
//!
//! Two packings are for evaluation alone, since their rows begin with context: tokens that are given and not scored.
//!
//! * With a `stride`, wrapped rows overlap ([`windows`]): every token of the documents, each with its EOS, is scored once, and
//!   no tail is lost. The BOS and the EOS around a row's piece are not text, and are not scored: BOS is given, and what is
//!   behind the last scored token is unknown to the model.
//! * With `"scored": "last_word"`, a row is BOS + record, padded, and the tokens of the record's last word are scored, with its
//!   leading space: `LAMBADA`'s task. No EOS follows, since the word ends nothing. A record beyond L − 1 tokens loses the first
//!   of them, as context does the least harm there; one whose last word alone has more, or that has no word, is dropped and
//!   counted.
//!
//! DIFFERENCE: the published code joins 1,000 documents at a time in each of its worker processes, and drops a tail each
//! time, so that its rows depend on the number of cores; here a split has one tail. Of the tokenizers of BERT it takes
//! `[CLS]` for EOS, which is the first token of `[SEP]` encoded. [`Grouping::Published`] makes its rows.

use std::collections::VecDeque;
use std::ops::Range;

use crate::data::rows::{Header, RowWriter, WrittenShards};
use crate::data::spelling::{Spelling, share};
use crate::data::tokens::{LostRecords, MappedTokens, TokenFiles};
use crate::data::{ROWS_INFO, RowsInfo, SpecialIds, SplitInfo, TOKENIZER, split_name, write_json};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::event::Progress;
use crate::manifest::{Between, Grouping, Pack, Padding, Scored, Split, Tail};
use crate::plural::{agreeing, counted};
use crate::rng::{Random, Stream};
use crate::stages::{Context, Run, StageOutput};
use crate::store::Digest;

mod windows;

use windows::Windows;

/// Documents that the published code joins at a time: the default of `datasets.Dataset.map`.
const DOCUMENTS_AT_ONCE: u64 = 1_000;
/// BERT's token that begins an encoding.
const CLS: &str = "[CLS]";
/// Tokens that wait before they are cut into rows.
const WAITING_TOKENS: usize = 1 << 16;

impl Run for Pack {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: Arrow or Parquet shards, wrapped or padded, split by a seeded hash. 2: `rows.json` says how the tail was treated.
    /// 3: `rows.json` has the bytes that are kept and the positions that are padding. Still 3: the record has a digest of the
    /// rows, whatever they are kept in. Still 3: `grouping`, rows with context, and words where the source counts them.
    const VERSION: u32 = 3;

    /// Runs the stage.
    ///
    /// # Errors
    /// A split that is wanted gets no row, the tokens are damaged, the disk is full, or the run is cancelled.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let input = context.input("from")?;
        let tokens = TokenFiles::open(input)?;
        let from = tokens.info();
        let random = Random::new(context.seed, Stream::Split);
        let spelling = Spelling::open(&input.join(TOKENIZER), from.vocabulary)?;
        let counts = !self.wrap && self.padding == Padding::Counted;
        let mut special = from.special;
        let (mut batches, mut between) = (None, Between::Eos);
        if let Grouping::Published(grouping) = &self.grouping {
            // All records are of one split.
            batches = Some(DocumentBatches::new(from.records, grouping.processes.into()));
            between = grouping.between;
            if from.roles.bos.token == CLS {
                special.eos = special.bos;
            }
        }
        let header = Header {
            length: self.length,
            vocabulary: from.vocabulary,
            special,
            tokenizer_digest: from.tokenizer_digest.clone(),
            padded: if self.has_context() {
                true
            } else if self.wrap {
                self.tail == Tail::Pad
            } else {
                !counts
            },
            context: self.has_context(),
        };
        if self.scored == Scored::LastWord && !spelling.has_spaces() {
            return Err(Error::input(
                "the tokenizer drops white space, so that the last word of a record cannot be found",
            )
            .hint("use a tokenizer that keeps it: byte-level, of characters, or of SentencePiece"));
        }
        let packer = |split| {
            let writer = RowWriter::new(
                context.output,
                split,
                self.format,
                header.clone(),
                self.shard_rows,
            );
            Packer {
                writer,
                length: self.length as usize,
                wrap: self.wrap,
                tail: self.tail,
                padding_counts: counts,
                batches,
                between,
                scored: self.scored,
                windows: self
                    .stride
                    .map(|stride| Windows::new(self.length as usize - 2, stride as usize)),
                special,
                spelling: &spelling,
                waiting: Vec::new(),
                open: VecDeque::new(),
                row: Vec::new(),
                info: SplitInfo::default(),
            }
        };
        let (mut train, mut validation) = (packer(Split::Train), packer(Split::Validation));
        let lost = LostRecords::open(input)?;
        let splits = [&mut train, &mut validation];
        let records = pack_all(self, &tokens, lost, random, splits, context)?;
        if records != from.records {
            return Err(Error::input(format!(
                "the tokens hold {}, but their `tokens.json` says {}",
                counted(records, "record"),
                from.records
            ))
            .hint("run the tokenize stage again with `--force`"));
        }
        let (train, train_rows) = train.finish()?;
        let (validation, validation_rows) = validation.finish()?;
        let info = RowsInfo {
            length: self.length,
            wrap: self.wrap,
            stride: self.stride,
            scored: self.scored,
            tail: self.tail,
            padding_counts: counts,
            vocabulary: from.vocabulary,
            special,
            tokenizer_digest: from.tokenizer_digest.clone(),
            normalized: from.normalized_records > 0,
            train,
            validation,
        };
        for (split, wanted) in [
            (Split::Train, self.validation < 1.0),
            (Split::Validation, self.validation > 0.0),
        ] {
            if wanted && info.split(split).rows == 0 {
                return Err(no_rows(self, split, info.split(split)));
            }
        }
        for (split, counts) in [(Split::Train, &info.train), (Split::Validation, &info.validation)] {
            if let Some(warning) = dropped(self, split, counts) {
                context.warn(warning);
            }
        }
        let cut = 1.0 - info.train.kept_tokens as f64 / info.train.tokens.max(1) as f64;
        if !self.wrap && self.scored == Scored::All && info.train.tokens > 0 && cut > WORTH_WARNING {
            context.warn(format!(
                "{:.0}% of the tokens are cut off, since a row holds at most {} of a record: `\"wrap\": true` joins \
                 records and cuts them \
                 into rows, a larger `length` keeps more",
                100.0 * cut,
                self.length - 2
            ));
        }
        let (copy, original) = (context.output.join(TOKENIZER), input.join(TOKENIZER));
        std::fs::copy(&original, &copy).context(|| format!("copy `{}`", original.display()))?;
        write_json(&context.output.join(ROWS_INFO), &info)?;
        Ok(StageOutput {
            figures: figures(&info),
            content: Some(content(&info, [train_rows, validation_rows])?),
            ..StageOutput::default()
        })
    }
}

/// Digest of what the artifact holds, but for the files that it is in: those who learn the rows or measure on them depend
/// on nothing else.
fn content(info: &RowsInfo, rows: [Digest; 2]) -> Result<Digest> {
    let info = RowsInfo {
        train: info.train.without_shards(),
        validation: info.validation.without_shards(),
        ..info.clone()
    };
    let described = serde_json::to_string(&(info, rows.map(|rows| rows.to_string())))
        .wrap(Kind::Internal, || "describe the rows".to_owned())?;
    Ok(Digest::of(described.as_bytes()))
}

/// Above this share of tokens cut off, the cause is more than a few long records.
const WORTH_WARNING: f64 = 0.1;

/// Packs all records, and returns how many they are.
fn pack_all(
    config: &Pack,
    tokens: &TokenFiles,
    mut lost: LostRecords,
    random: Random,
    [train, validation]: [&mut Packer<'_>; 2],
    context: &Context,
) -> Result<u64> {
    let mut records = 0;
    let read = |index| {
        (index < tokens.batches())
            .then(|| tokens.batch(index))
            .transpose()
    };
    let mut next = read(0)?;
    let mut index = 0;
    while let Some(batch) = next {
        context.cancel.check()?;
        index += 1;
        let mut pack = || {
            for record in 0..batch.records() {
                let split = split_of(random, batch.hashes[record], config.validation);
                let packer = match split {
                    Split::Train => &mut *train,
                    Split::Validation => &mut *validation,
                };
                packer.info.lost_bits += lost.bits(records + record as u64)?;
                packer.push(&batch, record)?;
            }
            Ok(())
        };
        // A batch is packed while the next one is read.
        let (packed, read): (Result<()>, _) = rayon::join(&mut pack, || read(index));
        packed?;
        next = read?;
        records += batch.records() as u64;
        context.progress(Progress {
            done: records,
            total: Some(tokens.info().records),
            unit: "records",
            figures: vec![("rows", (train.rows() + validation.rows()).to_string())],
        });
    }
    Ok(records)
}

/// The split of a record: validation when a uniform number that the text's hash keys is below the share.
fn split_of(random: Random, hash: u64, share: f64) -> Split {
    let row = hash & ((1 << 48) - 1);
    let position = (hash >> 48) as u32;
    // Most corpora are not split: then no number is below the share, whatever it is.
    if share > 0.0 && random.uniform(0, row, position) < share {
        Split::Validation
    } else {
        Split::Train
    }
}

fn no_rows(config: &Pack, split: Split, counts: &SplitInfo) -> Error {
    let name = split_name(split);
    let error = Error::input(format!(
        "the `{name}` split gets no row: it has {} with {}, and a row takes {}",
        counted(counts.records, "record"),
        counted(counts.tokens, "token"),
        if config.scored == Scored::LastWord {
            format!(
                "a record whose last word has at most {} tokens",
                config.length - 1
            )
        } else if config.wrap {
            format!("{}", config.length - 2)
        } else {
            "a record".to_owned()
        }
    ));
    if config.grouping != Grouping::Whole && counts.tokens >= u64::from(config.length - 2) {
        return error.hint(
            "the published grouping drops the tail of every 1,000 records of each process: lower `processes` or \
             `length`, or leave `grouping` out",
        );
    }
    // Its text would make a row that is not full.
    let short = config.wrap && counts.records > 0;
    error.hint(match split {
        Split::Train if short => {
            "set `\"tail\": \"pad\"` to have the text in a padded row, add text, lower `length` or lower `validation`"
        }
        Split::Validation if short => {
            "set `\"tail\": \"pad\"` to have the text in a padded row, or `stride` to evaluate on all of it; or add text, raise \
             `validation`, lower `length`, or set `validation` to 0 to have no such split"
        }
        Split::Train => "add text, lower `length` or lower `validation`",
        Split::Validation => {
            "add text, raise `validation`, lower `length`, or set `validation` to 0 to have no such split"
        }
    })
}

/// What is worth a warning about the text of a split that is in no row.
fn dropped(config: &Pack, split: Split, counts: &SplitInfo) -> Option<String> {
    let name = split_name(split);
    if counts.dropped_records > 0 {
        return Some(format!(
            "{} of the {} of the `{name}` split {} in no row: their last word alone has more than {} tokens, or they have no \
             word",
            counts.dropped_records,
            counted(counts.records, "record"),
            agreeing(counts.dropped_records as usize, "is", "are"),
            config.length - 1
        ));
    }
    let dropped = counts.tokens - counts.kept_tokens.min(counts.tokens);
    let share = dropped as f64 / counts.tokens.max(1) as f64;
    (config.wrap && config.tail == Tail::Drop && share > WORTH_WARNING).then(|| {
        format!(
            "{:.0}% of the `{name}` split's tokens are in no row: its {} fill {} of {}, and the tail of {dropped} is dropped; \
             `\"tail\": \"pad\"` makes a padded row of it, and `stride` scores every token of a text that is evaluated only",
            100.0 * share,
            counted(counts.tokens, "token"),
            counted(counts.rows, "row"),
            config.length - 2,
        )
    })
}

fn figures(info: &RowsInfo) -> Vec<(String, String)> {
    let mut figures = Vec::new();
    for (split, counts) in [(Split::Train, &info.train), (Split::Validation, &info.validation)] {
        if counts.records == 0 {
            continue;
        }
        let name = split_name(split);
        figures.push((format!("{name} rows"), counts.rows.to_string()));
        figures.push((format!("{name} records"), counts.records.to_string()));
        if info.scored == Scored::LastWord {
            figures.push((
                format!("{name} records dropped"),
                counts.dropped_records.to_string(),
            ));
        } else {
            let dropped = 1.0 - counts.kept_tokens as f64 / counts.tokens as f64;
            figures.push((
                format!("{name} tokens dropped"),
                format!("{:.3}%", 100.0 * dropped),
            ));
        }
        if info.has_context() {
            figures.push((format!("{name} tokens scored"), counts.valid_tokens.to_string()));
        }
        let positions = counts.rows * u64::from(info.length);
        if positions > 0 && (!info.wrap || info.tail == Tail::Pad) {
            // Of all positions, whatever counts in the loss.
            let padding = 100.0 * counts.padding as f64 / positions as f64;
            let counted = if info.padding_counts { ", counted" } else { "" };
            figures.push((format!("{name} padding"), format!("{padding:.1}%{counted}")));
        }
    }
    figures
}

/// A record whose tokens wait for a row (wrapped).
struct Open {
    /// Its tokens that wait, its EOS included.
    waiting: usize,
    /// Bytes of the text of those, its separator included.
    bytes: u64,
    /// Words of it, where they are counted.
    words: Option<u64>,
}

/// Where the published code ends its batches of documents: `datasets` cuts N records into contiguous parts, one a process,
/// of which the first N mod P have one record more, and each part into batches.
#[derive(Clone, Copy, Debug)]
struct DocumentBatches {
    /// Records of a part, but for those that have one more.
    part: u64,
    /// Parts that have one record more.
    longer: u64,
}

impl DocumentBatches {
    /// Batches of so many records. With fewer records than processes, `datasets` starts as many as there are records.
    fn new(records: u64, processes: u64) -> Self {
        let processes = processes.clamp(1, records.max(1));
        Self {
            part: records / processes,
            longer: records % processes,
        }
    }

    /// Whether a batch ends with the record of that number, counted from 1.
    fn end_with(self, number: u64) -> bool {
        let of_longer = self.longer * (self.part + 1);
        let (within, part) = match number.checked_sub(of_longer + 1) {
            Some(index) => (index, self.part.max(1)),
            None => (number - 1, self.part + 1),
        };
        let place = within % part + 1;
        place == part || place % DOCUMENTS_AT_ONCE == 0
    }
}

/// Makes the rows of one split.
struct Packer<'a> {
    writer: RowWriter,
    length: usize,
    wrap: bool,
    tail: Tail,
    padding_counts: bool,
    /// Where documents are no longer joined, if anywhere but at the end.
    batches: Option<DocumentBatches>,
    between: Between,
    scored: Scored,
    /// Of overlapping rows.
    windows: Option<Windows>,
    special: SpecialIds,
    spelling: &'a Spelling,
    /// Tokens that wait for a full row (wrapped).
    waiting: Vec<u32>,
    /// The records that they are of, in order.
    open: VecDeque<Open>,
    row: Vec<u32>,
    info: SplitInfo,
}

impl Packer<'_> {
    fn rows(&self) -> u64 {
        self.writer.rows()
    }

    /// Takes a record.
    fn push(&mut self, batch: &MappedTokens, record: usize) -> Result<()> {
        let count = batch.count(record);
        let bytes = u64::from(batch.bytes[record]);
        let mark = self.mark();
        let words = batch.words.as_ref().map(|words| u64::from(words[record]));
        if let Some(words) = words {
            *self.info.words.get_or_insert(0) += words;
        }
        self.info.records += 1;
        self.info.bytes += bytes + mark as u64;
        self.info.tokens += (count + mark) as u64;
        let piece = self.length - 2;
        if self.scored == Scored::LastWord {
            return self.last_word(batch, record, words);
        }
        if self.windows.is_some() {
            // No token is lost.
            self.keep(count as u64 + 1, bytes + 1, words);
            return self.push_to_windows(batch, record);
        }
        if !self.wrap {
            let kept = count.min(piece);
            self.waiting.clear();
            let mut kept_bytes = bytes;
            if kept < count {
                batch.append(record, count, &mut self.waiting);
                kept_bytes = self.spelling.bytes_of_first(kept, &self.waiting, bytes);
                self.waiting.truncate(kept);
            } else {
                batch.append(record, kept, &mut self.waiting);
            }
            let words = words.map(|words| share(words, kept_bytes, bytes));
            self.keep(kept as u64 + 1, kept_bytes + 1, words);
            return self.rows_of(kept);
        }
        batch.append(record, count, &mut self.waiting);
        self.waiting.extend((mark > 0).then_some(self.special.eos));
        self.open.push_back(Open {
            waiting: count + mark,
            bytes: bytes + mark as u64,
            words,
        });
        if self
            .batches
            .is_some_and(|batches| batches.end_with(self.info.records))
        {
            self.whole_rows()?;
            // The batch's tail.
            self.waiting.clear();
            self.open.clear();
            return Ok(());
        }
        // A batch of rows' worth at a time: the rest moves to the front once for many rows.
        if self.waiting.len() < WAITING_TOKENS.max(piece) {
            return Ok(());
        }
        self.whole_rows()
    }

    /// Tokens that end a record, each of which stands for a separator of one byte.
    fn mark(&self) -> usize {
        usize::from(self.between == Between::Eos)
    }

    /// Writes the whole pieces of what waits.
    fn whole_rows(&mut self) -> Result<()> {
        let whole = self.waiting.len() / (self.length - 2) * (self.length - 2);
        let (bytes, words) = self.take(whole);
        self.keep(whole as u64, bytes, words);
        self.rows_of(whole)
    }

    /// Counts what goes into rows.
    fn keep(&mut self, tokens: u64, bytes: u64, words: Option<u64>) {
        if tokens > 0 {
            self.info.kept_tokens += tokens;
            *self.info.kept_bytes.get_or_insert(0) += bytes;
        }
        if let Some(words) = words {
            *self.info.kept_words.get_or_insert(0) += words;
        }
    }

    /// The bytes and the words of the first tokens that wait, which wait no more. Words of a record that is cut are shared out by
    /// bytes.
    fn take(&mut self, tokens: usize) -> (u64, Option<u64>) {
        let (mut bytes, mut words, mut at) = (0, None, 0);
        let mark = self.mark();
        while let Some(record) = self.open.front_mut().filter(|_| at < tokens) {
            let end = at + record.waiting;
            let of_record = if end <= tokens {
                bytes += record.bytes;
                let words = record.words;
                self.open.pop_front();
                words
            } else {
                // Without EOS, which is the last and stays.
                let text = &self.waiting[at..end - mark];
                let whole = record.bytes - mark as u64;
                let taken = self.spelling.bytes_of_first(tokens - at, text, whole);
                let words = record.words.map(|words| share(words, taken, whole));
                bytes += taken;
                record.bytes -= taken;
                record.words = record.words.zip(words).map(|(all, taken)| all - taken);
                record.waiting = end - tokens;
                words
            };
            if let Some(of_record) = of_record {
                *words.get_or_insert(0) += of_record;
            }
            at = end;
        }
        (bytes, words)
    }

    /// Appends a record to the text of overlapping rows, and writes those that are whole.
    fn push_to_windows(&mut self, batch: &MappedTokens, record: usize) -> Result<()> {
        let Some(mut windows) = self.windows.take() else {
            return Ok(());
        };
        batch.append(record, batch.count(record), windows.text());
        windows.text().push(self.special.eos);
        windows.whole(&mut |window, context| self.window(window, context))?;
        self.windows = Some(windows);
        Ok(())
    }

    /// Writes a window as BOS + tokens + EOS, of which the tokens behind `context` are scored.
    fn window(&mut self, window: &[u32], context: usize) -> Result<()> {
        self.row.clear();
        self.row.push(self.special.bos);
        self.row.extend_from_slice(window);
        self.row.push(self.special.eos);
        self.write(1 + context..1 + window.len())
    }

    /// Writes a record of which the last word is scored, or drops it.
    fn last_word(&mut self, batch: &MappedTokens, record: usize, words: Option<u64>) -> Result<()> {
        let tokens = batch.tokens(record);
        let found = self.spelling.last_word(&tokens);
        let Some(word) = found.filter(|word| word.len() < self.length) else {
            self.info.dropped_records += 1;
            return Ok(());
        };
        let bytes = self.spelling.bytes_spelled(&tokens[word.clone()]);
        self.keep(word.len() as u64, bytes, words.map(|_| 1));
        // BOS and what has room before the end of the word.
        let start = word.end.saturating_sub(self.length - 1);
        self.row.clear();
        self.row.push(self.special.bos);
        self.row.extend_from_slice(&tokens[start..word.end]);
        self.write(1 + word.start - start..1 + word.end - start)
    }

    /// Writes the first tokens that wait as rows BOS + piece + EOS, the last one padded.
    fn rows_of(&mut self, count: usize) -> Result<()> {
        let waiting = std::mem::take(&mut self.waiting);
        // No token at all is an empty record: a row all the same.
        let pieces = waiting[..count].chunks(self.length - 2);
        let empty: &[u32] = &[];
        for piece in pieces.chain((count == 0 && !self.wrap).then_some(empty)) {
            self.row(piece)?;
        }
        self.waiting = waiting;
        self.waiting.drain(..count);
        Ok(())
    }

    /// Writes BOS + tokens + EOS, padded.
    fn row(&mut self, tokens: &[u32]) -> Result<()> {
        self.row.clear();
        self.row.push(self.special.bos);
        self.row.extend_from_slice(tokens);
        self.row.push(self.special.eos);
        let valid = if self.padding_counts {
            self.length
        } else {
            self.row.len()
        };
        self.write(0..valid)
    }

    /// Pads the row and writes it.
    fn write(&mut self, scored: Range<usize>) -> Result<()> {
        let text = self.row.len();
        self.row.resize(self.length, self.special.pad);
        self.info.rows += 1;
        self.info.valid_tokens += scored.len() as u64;
        self.info.padding += (self.length - text) as u64;
        self.writer.push(&self.row, scored)
    }

    /// The counts of the split, and the digest of its rows.
    fn finish(mut self) -> Result<(SplitInfo, Digest)> {
        if let Some(mut windows) = self.windows.take() {
            windows.finish(&mut |window, context| self.window(window, context))?;
        } else if self.wrap {
            self.whole_rows()?;
            if self.tail == Tail::Pad && !self.waiting.is_empty() {
                let rest = self.waiting.len();
                let (bytes, words) = self.take(rest);
                self.keep(rest as u64, bytes, words);
                self.rows_of(rest)?;
            }
        }
        if self.info.lost_bits > 0 {
            // A bit says of each record whether it loses any.
            self.info.lost_bits += self.info.records;
        }
        let WrittenShards { shards, content } = self.writer.finish()?;
        self.info.shards = shards;
        Ok((self.info, content))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Beside the parts of `Dataset.shard(contiguous=True)` and their batches, one after the other.
    #[test]
    fn document_batches_end_where_those_of_datasets_do() {
        for (records, processes) in [
            (0, 3),
            (1, 1),
            (1, 8),
            (7, 3),
            (1_000, 1),
            (1_001, 1),
            (2_303, 2),
            (2_303, 3),
            (2_303, 8),
            (4_000, 4),
            (9_999, 7),
        ] {
            let parts = processes.min(records);
            let (mut ends, mut start) = (vec![], 0);
            for part in 0..parts {
                let end = start + records / parts + u64::from(part < records % parts);
                while start < end {
                    start = end.min(start + DOCUMENTS_AT_ONCE);
                    ends.push(start);
                }
            }
            let batches = DocumentBatches::new(records, processes);
            let found: Vec<u64> = (1..=records).filter(|&number| batches.end_with(number)).collect();
            assert_eq!(found, ends, "{records} records, {processes} processes");
        }
    }
}
