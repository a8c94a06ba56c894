//! `source`: files, downloads, a named corpus or a grammar → records.
//!
//! One thread reads, decompresses and parses; the stage's pool detokenizes and filters; records are written in the order
//! in which they were read.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{SyncSender, sync_channel};

use rayon::prelude::*;
use serde_json::{Map, Value, json};

use crate::data::fetch::{self, Downloads};
use crate::data::files::{self, FilePatterns};
use crate::data::grammar::Grammar;
use crate::data::read::{self, Consumed, Irregular, Observed, TextFile, Witness, form};
use crate::data::records::{RecordWriter, Texts};
use crate::data::select::{LeftOut, Selection};
use crate::data::word_count::words_in;
use crate::data::{SOURCE_INFO, SourceInfo, write_json};
use crate::error::{Context as _, Error, Result};
use crate::event::Progress;
use crate::manifest::reading::{EmptyRecords, Reading, RemoteFile};
use crate::manifest::{Source, SourceInput, SyntheticInput};
use crate::numbers::power_of_two;
use crate::plural::agreeing;
use crate::rng::{Random, Stream};
use crate::stages::by_hand::{self, Sha256};
use crate::stages::key::value_of;
use crate::stages::{Context, Run, StageOutput, fetched};
use crate::store::ExternalFile;
use crate::store::key::canonical;

/// File name of the grammar below a synthetic source's artifact.
pub const GRAMMAR: &str = "records.grammar";
/// Records drawn by all threads before they are written: some megabytes of text.
const DRAWN_AT_ONCE: u64 = 1 << 15;
/// Text that is read before it is handed on: enough to keep every core busy for some milliseconds.
const BATCH_BYTES: usize = 4 << 20;
/// Records of a batch, at most.
const BATCH_RECORDS: usize = 1 << 15;
/// Batches that wait for the stage: with the one being read and the one being worked on, what bounds memory.
const WAITING_BATCHES: usize = 2;

impl Run for Source {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: the first.
    /// 2: text without a line feed ends its lines in carriage returns; byte order marks at the start of lines are left out.
    /// 2: Arrow streams behind each other are all read, files by their footer; columns of nulls are empty records.
    /// 2: detokenizers join the halves of names (`O 'Reilly`), weigh the quotes of a line together, and join `@,@` at a line's
    ///    ends.
    /// 2: detokenizers pair quotes after words in `s`, too (`uses ' home ' and names ' X '`); `'em` stays apart, as do letters in
    ///    quotes under `ptb`.
    /// 2: groups of columns in which no row has a value are empty records, as columns of nulls are.
    /// 2: hidden members of archives and system files in them are passed over.
    /// 2: members of archives that lie in stores of mdlm are passed over; a zip with something before it is read.
    /// 2: a file that `exclude` matches is excluded under all its names.
    /// 2: UTF-16 without a byte order mark is refused in scripts other than Latin, too.
    /// 2: half of a surrogate pair is replaced by one U+FFFD.
    /// 2: words are counted where the stage asks for it.
    /// 2: `\r\r\n` ends a line as `\r\n` does. Text that begins with `PAR1` or `ARROW1` is text.
    const VERSION: u32 = 2;

    /// Runs the stage.
    ///
    /// # Errors
    /// The input is absent, damaged, not of the stated form or no grammar; a download fails; no record is left; the disk is
    /// full; or the run is cancelled.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let mut consumed = vec![];
        let (info, provenance, mut figures) = match &self.input {
            SourceInput::Synthetic(input) => {
                let info = generate(self, input, context, &mut consumed)?;
                (info, serde_json::Map::new(), vec![])
            }
            SourceInput::Files(_) | SourceInput::Download(_) | SourceInput::Corpus(_) => {
                let mut input = SourceFiles::of(self, context)?;
                let mut provenance = std::mem::take(&mut input.provenance);
                let (info, figures) = read_files(input, context, &mut consumed, &mut provenance)?;
                (info, provenance, figures)
            }
        };
        write_json(&context.output.join(SOURCE_INFO), &info)?;
        figures.splice(
            0..0,
            [
                ("records".to_owned(), info.records.to_string()),
                ("bytes".to_owned(), info.bytes.to_string()),
            ],
        );
        if let Some(words) = info.words {
            figures.insert(2, ("words".to_owned(), words.to_string()));
        }
        if let Some(bits) = info.entropy_bits_per_byte {
            figures.push(("entropy".to_owned(), format!("{bits:.4} bits/byte (exact)")));
        }
        // That the files came from elsewhere than the manifest says is for the summary too.
        figures.extend(fetched::elsewhere(&provenance));
        Ok(StageOutput {
            figures,
            provenance,
            consumed,
            content: None,
        })
    }

    /// A checksum instead of a place, and what the name of a corpus stands for instead of the name.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        state_stripping(config);
        state_empty_records(self.empty(), config);
        let (files, read) = match &self.input {
            SourceInput::Files(_) | SourceInput::Synthetic(_) => return Ok(vec![]),
            SourceInput::Download(input) => (input.files.clone(), input.read.clone()),
            SourceInput::Corpus(corpus) => {
                // An unknown name is a fault of the manifest, found before.
                let Some(resolved) = corpus.resolve() else {
                    return Ok(vec![]);
                };
                if self.detokenize.is_none() {
                    config.insert("detokenize".to_owned(), value_of(&resolved.detokenize)?);
                }
                if self.range.is_none()
                    && let Some(range) = &resolved.range
                {
                    config.insert("range".to_owned(), value_of(range)?);
                }
                (resolved.files, resolved.read)
            }
        };
        let by_hand = matches!(&self.input, SourceInput::Corpus(corpus) if !corpus.files.is_empty());
        let contents: Vec<Value> = files
            .iter()
            .map(|file| match &file.sha256 {
                Some(sha256) => json!({ "sha256": sha256 }),
                // Its own content is in the key.
                None if by_hand => json!({}),
                None if file.exclude.is_empty() => json!({ "url": file.url }),
                None => json!({ "url": file.url, "exclude": file.exclude }),
            })
            .zip(&files)
            .map(|(mut content, file)| {
                if read.format.is_none() {
                    content["form"] = json!(form(&file.url));
                }
                content
            })
            .collect();
        let input = json!({ "kind": "download", "contents": contents, "read": value_of(&read)? });
        config.insert("input".to_owned(), input);
        Ok(vec![])
    }

    /// The form that the names of local files imply, where no format is stated: names are not in the key, but `a.txt` and
    /// `a.jsonl` are read in two ways.
    fn state_names(&self, names: &[&str], config: &mut Value) {
        let SourceInput::Files(input) = &self.input else {
            return;
        };
        if input.read.format.is_some() {
            return;
        }
        let mut forms: Vec<&str> = names.iter().copied().map(form).collect();
        if forms.iter().all(|form| *form == forms[0]) {
            forms.truncate(1);
        }
        config["input"]["forms"] = json!(forms);
        *config = canonical(config.take());
    }

    fn downloads(&self) -> (Vec<RemoteFile>, Option<u64>) {
        match &self.input {
            SourceInput::Download(input) => (input.files.clone(), None),
            SourceInput::Corpus(corpus) if corpus.files.is_empty() => {
                let files = corpus.resolve().map_or_else(Vec::new, |resolved| resolved.files);
                (files, corpus.bytes())
            }
            _ => (vec![], None),
        }
    }

    fn check_by_hand(&self, base: &Path, sha256: Sha256<'_>) -> Result<()> {
        match &self.input {
            SourceInput::Corpus(named) if !named.files.is_empty() => {
                by_hand::corpus(named, base, sha256).map(drop)
            }
            _ => Ok(()),
        }
    }

    fn is_by_hand_here(&self, base: &Path) -> bool {
        match &self.input {
            SourceInput::Corpus(named) => named.files.iter().any(|pattern| {
                base.join(pattern).exists()
                    || files::expand(base, FilePatterns::by(std::slice::from_ref(pattern))).is_ok()
            }),
            _ => false,
        }
    }
}

/// Names and values for the summary.
type Figures = Vec<(String, String)>;

/// The fact of a source's provenance that holds the warnings about the contents of its files.
pub const WARNINGS: &str = "warnings";
/// What counts records without text.
const EMPTY: &str = "empty records";
/// What counts rows that are not as the others.
const BAD_ROWS: &str = "bad rows skipped";
/// What counts records that are not UTF-8.
const SKIPPED: &str = "invalid UTF-8 skipped";

/// What a person wants to know of records that are not there, or not as they were. Of the summary and not of the
/// artifact: a blank line more makes no other text.
fn described(left_out: LeftOut, irregular: Irregular, files: &files::LeftOut) -> Figures {
    let LeftOut {
        range,
        empty,
        length,
        expression,
        duplicate,
        sample,
    } = left_out;
    // A member of an archive and a file in a folder are left out for the same reasons.
    let of_files = |sort: files::SkipReason| {
        let in_archives = match sort {
            files::SkipReason::Hidden => irregular.hidden,
            files::SkipReason::System => irregular.system,
            files::SkipReason::Store => irregular.stores,
            files::SkipReason::Excluded => irregular.excluded,
            _ => 0,
        };
        (sort.name(), files.count(sort) + in_archives)
    };
    [
        ("outside the range", range),
        (EMPTY, empty + irregular.empty),
        ("too short or long", length),
        ("left out by expression", expression),
        ("duplicates dropped", duplicate),
        ("not sampled", sample),
        ("invalid UTF-8 replaced", irregular.replaced),
        (SKIPPED, irregular.skipped),
        (BAD_ROWS, irregular.rows),
        ("byte order marks left out", irregular.marks),
        ("links and devices in archives", irregular.members),
    ]
    .into_iter()
    .chain(files::SkipReason::ALL.into_iter().map(of_files))
    .filter(|(_, count)| *count > 0)
    .map(|(what, count)| (what.to_owned(), count.to_string()))
    .collect()
}

/// States of the published rules of PTB and One Billion Word that they take the white space at a record's ends away, as
/// they did not at first: a key of their own, where a version of the stage would change every source's.
fn state_stripping(config: &mut Map<String, Value>) {
    let rules = config.get_mut("detokenize").and_then(Value::as_array_mut);
    for rules in rules.into_iter().flatten() {
        if rules["as"] == "published" && (rules["rules"] == "ptb" || rules["rules"] == "lm1b") {
            rules["stripped"] = json!(true);
        }
    }
}

/// States that empty records are kept, whether the manifest or its rules say so: that they are dropped is in no key.
fn state_empty_records(empty: EmptyRecords, config: &mut Map<String, Value>) {
    config.shift_remove("empty_records");
    if empty == EmptyRecords::Keep {
        config.insert("empty_records".to_owned(), json!("keep"));
    }
}

/// The files of a source, ready to be read.
struct SourceFiles {
    files: Vec<TextFile>,
    left_out: files::LeftOut,
    read: Reading,
    empty: EmptyRecords,
    selection: Selection,
    provenance: serde_json::Map<String, Value>,
    /// Keeps the files from being deleted until they are read.
    _downloads: Option<Downloads>,
}

impl SourceFiles {
    fn of(config: &Source, context: &Context) -> Result<Self> {
        let mut provenance = serde_json::Map::new();
        let mut detokenize = vec![];
        let mut range = None;
        let mut downloads = None;
        let mut left_out = files::LeftOut::default();
        let mut repeated = 0;
        let (files, read) = match &config.input {
            SourceInput::Files(input) => {
                let named = FilePatterns {
                    files: &input.files,
                    exclude: &input.exclude,
                    piped: Some(context.piped),
                };
                let found = files::expand(context.base, named)?;
                left_out = found.left_out;
                for line in left_out.lines() {
                    context.note(line);
                }
                for warning in left_out.warnings() {
                    context.warn(warning);
                }
                (
                    found.files.into_iter().map(TextFile::found).collect(),
                    input.read.clone(),
                )
            }
            SourceInput::Download(input) => {
                let downloads = downloads.insert(Downloads::open(context.downloads, context.cancel)?);
                (
                    download(&input.files, downloads, context, &mut provenance, &mut repeated)?,
                    input.read.clone(),
                )
            }
            SourceInput::Corpus(corpus) => {
                let resolved = corpus
                    .resolve()
                    .ok_or_else(|| Error::internal(format!("corpus `{}` has no such part", corpus.corpus)))?;
                detokenize = resolved.detokenize.into_iter().map(Into::into).collect();
                range = resolved.range;
                let files = if corpus.files.is_empty() {
                    let downloads = downloads.insert(Downloads::open(context.downloads, context.cancel)?);
                    download(
                        &resolved.files,
                        downloads,
                        context,
                        &mut provenance,
                        &mut repeated,
                    )?
                } else {
                    let sha256 = |path: &Path| fetch::sha256_of(path, context.cancel);
                    let paths = by_hand::corpus(corpus, context.base, &sha256)?;
                    paths.into_iter().map(TextFile::local).collect()
                };
                (files, resolved.read)
            }
            SourceInput::Synthetic(_) => return Err(Error::internal("a synthetic source has no files")),
        };
        left_out.add_counts(files::SkipReason::Repeated, repeated);
        if let Some(downloads) = &downloads {
            let globs = downloads.left_out();
            left_out.add_counts(files::SkipReason::System, globs.passed_over);
            left_out.add_counts(files::SkipReason::Excluded, globs.excluded);
            for warning in globs.warnings() {
                context.warn(warning);
            }
        }
        let selection = Selection::new(
            config,
            config.detokenize.as_deref().unwrap_or(&detokenize),
            config.range.as_ref().or(range.as_ref()),
            Random::new(context.seed, Stream::Selection),
        )?;
        Ok(Self {
            files,
            left_out,
            read,
            empty: config.empty(),
            selection,
            provenance,
            _downloads: downloads,
        })
    }
}

/// Downloads what is not there yet.
fn download(
    remote: &[RemoteFile],
    downloads: &Downloads,
    context: &Context,
    provenance: &mut serde_json::Map<String, Value>,
    repeated: &mut u64,
) -> Result<Vec<TextFile>> {
    let files = fetched::download(remote, downloads, context, provenance, repeated)?;
    let named = files.into_iter().map(|file| TextFile {
        path: file.path,
        name: file.url,
    });
    Ok(named.collect())
}

/// What the reading thread hands on.
struct Batch {
    texts: Texts,
    /// Bytes of the files read so far.
    read: u64,
    /// What was not as it should be so far. With the batch, since the thread may be ahead of what is taken.
    irregular: Irregular,
}

/// Reads all files, batch by batch; ends early when nothing takes them any more. What was read of each; what is worth a
/// warning goes to `observed`.
fn read_all(
    files: &[TextFile],
    reading: &Reading,
    empty: EmptyRecords,
    observed: &mut Observed,
    batches: &SyncSender<Batch>,
) -> Result<Vec<(PathBuf, Consumed)>> {
    let mut consumed = Vec::new();
    let mut irregular = Irregular::default();
    let mut texts = Texts::with_room(BATCH_BYTES);
    let mut before = 0;
    for file in files {
        let mut here = 0;
        let mut taken = true;
        let witness = Witness::default();
        let result = read::records(file, reading, empty, observed, &witness, &mut |text, now| {
            here = now.read;
            texts.push(text);
            if texts.bytes() < BATCH_BYTES && texts.len() < BATCH_RECORDS {
                return Ok(());
            }
            let batch = Batch {
                texts: std::mem::replace(&mut texts, Texts::with_room(BATCH_BYTES)),
                read: before + now.read,
                irregular: irregular.and(now.irregular),
            };
            taken = batches.send(batch).is_ok();
            // Any error ends the reading; this one is not reported.
            if taken { Ok(()) } else { Err(Error::interrupted()) }
        });
        consumed.push((file.path.clone(), witness.consumed()));
        if !taken {
            return Ok(consumed);
        }
        irregular = irregular.and(result?);
        before += here;
    }
    let last = Batch {
        texts,
        read: before,
        irregular,
    };
    // The receiver may have ended.
    let _ = batches.send(last);
    Ok(consumed)
}

/// Reads, selects and writes.
fn read_files(
    input: SourceFiles,
    context: &Context,
    consumed: &mut Vec<(PathBuf, Consumed)>,
    provenance: &mut serde_json::Map<String, Value>,
) -> Result<(SourceInfo, Figures)> {
    let SourceFiles {
        files,
        left_out,
        read,
        empty,
        mut selection,
        ..
    } = input;
    let mut total = 0;
    for file in &files {
        let metadata = std::fs::metadata(&file.path).context(|| format!("read `{}`", file.path.display()))?;
        total += metadata.len();
    }
    let mut writer = RecordWriter::new(context.output);
    let mut lengths = Lengths([0; 64]);
    let (sender, batches) = sync_channel(WAITING_BATCHES);
    let mut irregular = Irregular::default();
    let mut observed = Observed::default();
    let result = std::thread::scope(|scope| {
        let (files, read, observed) = (&files, &read, &mut observed);
        let reader = scope.spawn(move || read_all(files, read, empty, observed, &sender));
        let taken = (|| {
            for batch in &batches {
                context.cancel.check()?;
                irregular = batch.irregular;
                for record in selection.apply(&batch.texts)? {
                    lengths.count(record.text.len());
                    writer.push(&record.text, record.words)?;
                }
                context.progress(Progress {
                    done: batch.read,
                    total: Some(total),
                    unit: "bytes",
                    figures: vec![("records", writer.records().to_string())],
                });
                if selection.is_full() {
                    break;
                }
            }
            Ok(())
        })();
        // The reader ends at its next batch.
        drop(batches);
        let read = match reader.join() {
            Ok(read) => read,
            Err(panic) => std::panic::resume_unwind(panic),
        };
        taken.and(read).map(|read| *consumed = read)
    });
    let warnings = observed.warnings();
    for warning in &warnings {
        context.warn(warning.clone());
    }
    result?;
    if !warnings.is_empty() {
        // A run that serves the result repeats them.
        provenance.insert(WARNINGS.to_owned(), warnings.into());
    }
    let info = SourceInfo {
        records: writer.records(),
        bytes: writer.bytes(),
        words: writer.words(),
        grammar: None,
        entropy_bits_per_byte: None,
        entropy_nats_per_record: None,
    };
    let counts = described(selection.left_out(), irregular, &left_out);
    // Kept or not, records without text leave nothing to learn.
    if info.bytes == 0 {
        return Err(nothing_left(&counts, files.len(), context));
    }
    writer.finish()?;
    let mut figures = lengths.figures();
    figures.extend(counts);
    Ok((info, figures))
}

/// The error of a source without records: why none is left.
fn nothing_left(counts: &Figures, files: usize, context: &Context) -> Error {
    let hold = agreeing(files, "holds", "hold");
    let files = match files {
        1 => "the file".to_owned(),
        _ => format!("the {files} files"),
    };
    let gone: Vec<String> = counts
        .iter()
        .map(|(what, count)| format!("{count} {what}"))
        .collect();
    let has = |name: &str| counts.iter().any(|(what, _)| what == name);
    let of_files = |what: &String| files::SkipReason::ALL.iter().any(|sort| sort.name() == what);
    if counts.iter().all(|(what, _)| what == EMPTY) {
        return Error::input(format!("{files} of `{}` {hold} no text", context.name))
            .hint("empty records are dropped: check which files `files` names and how `read` reads them");
    }
    if counts.iter().all(|(what, _)| what == EMPTY || of_files(what)) {
        return Error::input(format!(
            "{files} of `{}` {hold} no text: {}",
            context.name,
            gone.join(", ")
        ))
        .hint(
            "hidden files and system files are read where `files`, or of an archive `members`, names them",
        );
    }
    Error::input(format!(
        "no record of `{}` is left of {files}: {}",
        context.name,
        gone.join(", ")
    ))
    .hint(if has(BAD_ROWS) {
        "leave out `\"bad_rows\": \"skip\"`: the error then shows what is wrong with the first row"
    } else if has(SKIPPED) {
        "leave out `\"invalid_utf8\": \"skip\"`: the error then shows the first record that is not UTF-8"
    } else {
        "loosen `range`, `filter` or `sample`"
    })
}

/// How long records are: counts by powers of two of bytes.
struct Lengths([u64; 64]);

impl Lengths {
    fn count(&mut self, bytes: usize) {
        self.0[bytes.max(1).ilog2() as usize] += 1;
    }

    /// A histogram in a line: `8 B ▁▃█▅▁ 128 B`.
    fn figures(&self) -> Figures {
        const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
        let Some(first) = self.0.iter().position(|&count| count > 0) else {
            return vec![];
        };
        let last = self.0.iter().rposition(|&count| count > 0).unwrap_or(first);
        let most = self.0.iter().copied().max().unwrap_or(1).max(1);
        let bars: String = self.0[first..=last]
            .iter()
            .map(|&count| match count {
                0 => ' ',
                count => BARS[(count * 7).div_ceil(most) as usize],
            })
            .collect();
        let text = format!(
            "{} {bars} {}",
            power_of_two(1 << first),
            power_of_two(1_u64 << (last + 1).min(63))
        );
        vec![("record lengths".to_owned(), text)]
    }
}

/// Draws records: number i is a function of the grammar, the seed and i, so that threads do not matter and more records
/// begin with the same ones.
fn generate(
    config: &Source,
    input: &SyntheticInput,
    context: &Context,
    consumed: &mut Vec<(PathBuf, Consumed)>,
) -> Result<SourceInfo> {
    let path = context.base.join(&input.grammar);
    let (grammar, bytes) = Grammar::open_with_text(&path)?;
    consumed.push((path, Consumed::whole(bytes.as_bytes())));
    let random = Random::new(context.seed, Stream::Synthetic);
    let mut writer = RecordWriter::new(context.output);
    let mut start = 0;
    while start < input.records {
        context.cancel.check()?;
        let end = (start + DRAWN_AT_ONCE).min(input.records);
        let texts: Vec<String> = (start..end)
            .into_par_iter()
            .map(|number| grammar.record(random, number).text)
            .collect();
        for text in &texts {
            let words = config.count_words.then(|| words_in(text) as u32);
            writer.push(text, words)?;
        }
        start = end;
        context.progress(Progress {
            done: end,
            total: Some(input.records),
            unit: "records",
            figures: vec![("bytes", writer.bytes().to_string())],
        });
    }
    let info = SourceInfo {
        records: writer.records(),
        bytes: writer.bytes(),
        words: writer.words(),
        grammar: Some(GRAMMAR.to_owned()),
        entropy_bits_per_byte: Some(grammar.entropy().bits_per_byte()),
        entropy_nats_per_record: Some(grammar.entropy().nats_per_record),
    };
    writer.finish()?;
    let copy = context.output.join(GRAMMAR);
    // As it was read, even if the file changed meanwhile.
    std::fs::write(&copy, bytes).context(|| format!("write `{}`", copy.display()))?;
    Ok(info)
}
