//! Whether the lines of a text are pieces of paragraphs that were broken at a column, as mails, books of Project Gutenberg
//! and papers have them: one record a line is wrong then.
//!
//! Greedy breaking leaves a trace that nothing else has: the first word of the next line would not have fitted into this
//! one. Verses, sentences and code end their lines wherever their sense ends, far from the longest. Beside it, the lines
//! of prose begin in the middle of sentences and end there.

use crate::manifest::reading::RecordUnit;
use crate::plural;

/// Lines that are looked at.
const LOOKED_AT: usize = 4_000;
/// Lines followed by another of their paragraph, at least.
const FEWEST: usize = 6;
/// Columns at which people break prose.
const WIDTHS: std::ops::RangeInclusive<usize> = 32..=120;
/// Share of these lines that the next word would have made too long, or nearly, at least.
const FULL: f64 = 0.85;
/// Columns that people and their editors leave free: of 9, one.
const SPARE: usize = 9;
/// Share of these lines that end a sentence, at most: in prose every tenth does, of one sentence a line nearly all.
const ENDING: f64 = 0.3;
/// Share of lines that begin with a capital letter, at most: verses do, and sentences.
const CAPITAL: f64 = 0.55;
/// Share of lines that begin as the one before, at most: made texts do.
const ALIKE: f64 = 0.2;
/// Share of these lines within which a sentence ends, at least, where not all are full to the last word.
const INNER: f64 = 0.03;
/// That share, and the lines it takes, where sentences do not show.
const FULL_ALONE: (f64, usize) = (0.9, 12);
/// Share of lines that are not words, at most: tables and code.
const ODD: f64 = 0.15;
/// Share of lines that end a paragraph without a blank line behind it, at most: a list of sentences is none.
const LAST: f64 = 0.6;
/// Share of lines of capitals alone, from which capitals say nothing of where a line begins.
const SHOUTED: f64 = 0.8;
/// Lines of a file that is too short to be judged alone, at most: such files are judged together.
const SHORT: usize = 50;

/// What was seen of the lines of all files, each judged for itself: other files are broken at other columns, or not at all.
#[derive(Default)]
pub struct WrappedFiles {
    /// The file, or the member of an archive, that is read.
    here: Wrapped,
    place: String,
    /// Lines of the files that are too short, and the first of these files.
    short: Wrapped,
    first_short: String,
    short_files: u64,
    /// Lines of all of them, also of those that were not looked at together.
    short_lines: usize,
    /// The first file whose lines were broken: its place and the column.
    first: Option<(String, usize)>,
    /// Files whose lines were broken.
    files: u64,
    /// One of them has blank lines.
    blank: bool,
    /// Lines that were looked at, and those of them in such files.
    lines: usize,
    broken: usize,
}

impl WrappedFiles {
    /// A file, or a member of an archive, begins; `place` names it in a warning.
    pub fn file(&mut self, place: String) {
        self.finish();
        self.place = place;
        self.here.file();
    }

    /// Looks at a line of it.
    pub fn line(&mut self, text: &str) {
        self.here.line(text);
    }

    /// Judges the file that was read last.
    fn finish(&mut self) {
        let mut here = std::mem::take(&mut self.here);
        if here.lines.is_empty() {
            return;
        }
        self.lines += here.lines.len();
        if let Some(column) = here.column() {
            self.broken += here.lines.len();
            self.blank |= here.blank > 0;
            self.files += 1;
            if self.first.is_none() {
                self.first = Some((std::mem::take(&mut self.place), column));
            }
        } else if here.lines.len() < SHORT {
            if self.short_files == 0 {
                self.first_short = std::mem::take(&mut self.place);
            }
            self.short_files += 1;
            self.short_lines += here.lines.len();
            self.short.blank += here.blank;
            if self.short.lines.len() < LOOKED_AT {
                self.short.lines.append(&mut here.lines);
            }
        }
    }

    /// What was found: in files by themselves, and in the short ones together.
    fn found(&mut self) -> Option<Found<'_>> {
        self.finish();
        let short = self.short.column();
        let (place, column) = match &self.first {
            Some((place, column)) => (place, *column),
            None => (&self.first_short, short?),
        };
        let (mut files, mut blank, mut broken) = (self.files, self.blank, self.broken);
        if short.is_some() {
            files += self.short_files;
            blank |= self.short.blank > 0;
            broken += self.short_lines;
        }
        Some(Found {
            place,
            column,
            more: files - 1,
            blank,
            broken,
        })
    }

    /// What a record had better be than a line, if most lines are of files that were broken: a paragraph where blank lines
    /// stand between them, or else a file.
    #[must_use]
    pub fn record(&mut self) -> Option<RecordUnit> {
        let lines = self.lines + self.here.lines.len();
        let found = self.found()?;
        (2 * found.broken > lines).then_some(if found.blank {
            RecordUnit::Paragraph
        } else {
            RecordUnit::File
        })
    }

    /// What to say of it.
    #[must_use]
    pub fn warning(&mut self) -> Option<String> {
        let lines = self.lines + self.here.lines.len();
        let Found {
            place,
            column,
            more,
            blank,
            broken,
        } = self.found()?;
        let (what, record) = if blank {
            ("what stands between blank lines", "paragraph")
        } else {
            ("each file", "file")
        };
        let others = match more {
            0 => String::new(),
            more => format!(" (as in {more} more {})", plural::of(more, "file")),
        };
        let all = if broken < lines {
            ", which holds for all files of the source"
        } else {
            ""
        };
        Some(format!(
            "{place}: each line is a record, but the lines look like paragraphs broken at {column} columns{others}; to take \
             {what} as a record: `\"read\": {{\"format\": {{\"kind\": \"text\", \"record\": \"{record}\"}}}}`{all}"
        ))
    }
}

/// Files whose lines were broken.
struct Found<'f> {
    /// The first, and the column of its lines.
    place: &'f str,
    column: usize,
    /// Others.
    more: u64,
    /// One of them has blank lines.
    blank: bool,
    /// Their lines.
    broken: usize,
}

/// What was seen of the lines of a file so far.
#[derive(Default)]
struct Wrapped {
    lines: Vec<LineFeatures>,
    /// Blank lines between others of a file.
    blank: u64,
    /// The last line was blank, and not the first of its file.
    gap: bool,
    /// The last line was blank or quoted otherwise, or the first of its file is next.
    apart: bool,
    /// The last line began with white space.
    indented: bool,
    /// Marks of quotation before the last line.
    quoted: usize,
    before: String,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a separate share")]
struct LineFeatures {
    /// Characters.
    length: usize,
    /// Characters of its first word.
    first: usize,
    /// It follows another one, in the same paragraph by blank lines and indents.
    follows: bool,
    capital: bool,
    /// Begins with the word with which the one before begins.
    alike: bool,
    /// Ends a sentence.
    ends: bool,
    /// A sentence ends within it.
    inner: bool,
    /// Too many characters are neither letters nor spaces, or there are too few words.
    odd: bool,
    /// All of its letters are capitals.
    shouted: bool,
}

impl Wrapped {
    /// A file begins.
    fn file(&mut self) {
        self.apart = true;
        self.gap = false;
    }

    /// Looks at a line.
    fn line(&mut self, text: &str) {
        if self.lines.len() >= LOOKED_AT {
            return;
        }
        let (quoted, text) = unquoted(text.trim_end());
        let Some(first) = text.split_whitespace().next() else {
            // A record may end at a blank line, not at a mark alone.
            self.gap |= quoted == 0 && !self.apart;
            self.apart = true;
            return;
        };
        self.blank += u64::from(std::mem::take(&mut self.gap));
        // An indent begins a paragraph.
        let indented = text.starts_with([' ', '\t']);
        let apart = self.apart || indented && !self.indented || quoted != self.quoted;
        self.indented = indented;
        self.quoted = quoted;
        // No line of wrapped prose is so long; what is not looked at costs nothing.
        let long = text.len() > 8 * WIDTHS.end();
        let mut length = 0;
        let mut plain = 0;
        let mut words = 1;
        let (mut upper, mut lower) = (0, 0);
        for character in text.chars().take(8 * WIDTHS.end()) {
            length += 1;
            plain += usize::from(character.is_alphabetic() || character == ' ');
            words += usize::from(character == ' ');
            upper += usize::from(character.is_uppercase());
            lower += usize::from(character.is_lowercase());
        }
        let end = text.trim_end_matches(['"', '\'', '”', '’', ')', ']', '»', '*', '_']);
        let initial = first.chars().find(|character| character.is_alphanumeric());
        self.lines.push(LineFeatures {
            length,
            first: first.chars().take(8 * WIDTHS.end()).count(),
            follows: !apart,
            capital: initial.is_none_or(char::is_uppercase),
            alike: self.before == first,
            ends: end.ends_with(['.', '!', '?', ':', ';', '…', '。', '।']),
            inner: text.as_bytes().windows(3).any(|three| match three {
                [_, b'.' | b'!' | b'?', b' '] => true,
                [b'.' | b'!' | b'?', quote, b' '] => !quote.is_ascii_alphanumeric(),
                _ => false,
            }),
            odd: long || plain * 4 < length * 3 || words < 4,
            shouted: upper > 0 && lower == 0,
        });
        self.apart = false;
        self.before.clear();
        if first.len() < 100 {
            self.before.push_str(first);
        }
    }

    /// The column at which the lines were broken, if they were.
    fn column(&self) -> Option<usize> {
        let following = || self.lines.windows(2).filter(|pair| pair[1].follows);
        let mut lengths: Vec<usize> = following().map(|pair| pair[0].length).collect();
        if lengths.len() < FEWEST {
            return None;
        }
        lengths.sort_unstable();
        // A line that could not be broken, of a URL say, does not count.
        let column = lengths[(lengths.len() - 1) * 49 / 50];
        let is_full =
            |pair: &[LineFeatures], spare: usize| pair[0].length + 1 + pair[1].first + spare > column;
        // Without blank lines a paragraph's last line shows by what it leaves free.
        let is_last =
            |pair: &[LineFeatures]| pair[0].ends && pair[1].capital && !is_full(pair, column / SPARE);
        let pairs = || following().filter(|pair| !is_last(pair));
        let count = pairs().count();
        if count < FEWEST || ((lengths.len() - count) as f64) > LAST * lengths.len() as f64 {
            return None;
        }
        let share = |of: &dyn Fn(&[LineFeatures]) -> bool| {
            pairs().filter(|pair| of(pair)).count() as f64 / count as f64
        };
        let full = |spare: usize| share(&|pair| is_full(pair, spare));
        let prose = share(&|pair| pair[0].inner) >= INNER || full(0) >= FULL_ALONE.0 && count >= FULL_ALONE.1;
        let breaks = WIDTHS.contains(&column)
            && lengths[0] < column
            && full(column / SPARE) >= FULL
            && prose
            && share(&|pair| pair[0].ends) <= ENDING
            && (share(&|pair| pair[1].capital) <= CAPITAL || share(&|pair| pair[1].shouted) >= SHOUTED)
            && share(&|pair| pair[1].alike) <= ALIKE
            && share(&|pair| pair[0].odd) <= ODD;
        breaks.then_some(column)
    }
}

/// How many marks of quotation stand before a line, as mails have them (`> `), and the line behind them.
fn unquoted(text: &str) -> (usize, &str) {
    let mut marks = 0;
    let mut rest = text;
    while let Some(behind) = rest.strip_prefix('>') {
        marks += 1;
        rest = behind.strip_prefix(' ').unwrap_or(behind);
    }
    (marks, rest)
}

#[cfg(test)]
mod tests;
