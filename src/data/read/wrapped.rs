//! Whether the lines of a text are pieces of paragraphs that were broken at a column, as mails, books of Project Gutenberg
//! and papers have them: one record a line is wrong then.
//!
//! Greedy breaking leaves a trace that nothing else has: the first word of the next line would not have fitted into this
//! one. Verses, sentences and code end their lines wherever their sense ends, far from the longest. Beside it, the lines
//! of prose begin in the middle of sentences and end there.

/// Lines that are looked at.
const LOOKED_AT: usize = 4_000;
/// Lines followed by another of their paragraph, at least.
const FEWEST: usize = 6;
/// Columns at which people break prose.
const WIDTHS: std::ops::RangeInclusive<usize> = 45..=120;
/// Share of these lines that the next word would have made too long, or nearly, at least.
const FULL: f64 = 0.85;
/// Columns that people and their editors leave free.
const SPARE: usize = 8;
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
/// Share of lines that are no words, at most: tables and code.
const ODD: f64 = 0.15;

/// What was seen of the lines so far.
#[derive(Default)]
pub struct Wrapped {
    lines: Vec<Line>,
    /// Blank lines between others.
    blank: u64,
    /// The last line was blank, or the first of its file is next.
    apart: bool,
    /// The last line began with white space.
    indented: bool,
    before: String,
}

#[expect(clippy::struct_excessive_bools, reason = "each is a share of its own")]
struct Line {
    /// Characters.
    length: usize,
    /// Characters of its first word.
    first: usize,
    /// It follows another one, in the same paragraph.
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
}

impl Wrapped {
    /// A file begins.
    pub fn file(&mut self) {
        self.apart = true;
    }

    /// Looks at a line.
    pub fn line(&mut self, text: &str) {
        if self.lines.len() >= LOOKED_AT {
            return;
        }
        let text = text.trim_end();
        let Some(first) = text.split_whitespace().next() else {
            self.blank += u64::from(!self.apart && !self.lines.is_empty());
            self.apart = true;
            return;
        };
        // An indent begins a paragraph.
        let indented = text.starts_with([' ', '\t']);
        let apart = self.apart || indented && !self.indented;
        self.indented = indented;
        // No line of wrapped prose is so long; what is not looked at costs nothing.
        let long = text.len() > 8 * WIDTHS.end();
        let mut length = 0;
        let mut plain = 0;
        let mut words = 1;
        for character in text.chars().take(8 * WIDTHS.end()) {
            length += 1;
            plain += usize::from(character.is_alphabetic() || character == ' ');
            words += usize::from(character == ' ');
        }
        let end = text.trim_end_matches(['"', '\'', '”', '’', ')', ']', '»', '*', '_']);
        let initial = first.chars().find(|character| character.is_alphanumeric());
        self.lines.push(Line {
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
        });
        self.apart = false;
        self.before.clear();
        if first.len() < 100 {
            self.before.push_str(first);
        }
    }

    /// The column at which the lines were broken, if they were.
    fn column(&self) -> Option<usize> {
        let pairs = || self.lines.windows(2).filter(|pair| pair[1].follows);
        let mut lengths: Vec<usize> = pairs().map(|pair| pair[0].length).collect();
        if lengths.len() < FEWEST {
            return None;
        }
        lengths.sort_unstable();
        // A line that could not be broken, of a URL say, does not count.
        let column = lengths[(lengths.len() - 1) * 49 / 50];
        let share = |of: &dyn Fn(&[Line]) -> bool| {
            pairs().filter(|pair| of(pair)).count() as f64 / lengths.len() as f64
        };
        let full = |spare: usize| share(&|pair| pair[0].length + 1 + pair[1].first + spare > column);
        let prose =
            share(&|pair| pair[0].inner) >= INNER || full(0) >= FULL_ALONE.0 && lengths.len() >= FULL_ALONE.1;
        let breaks = WIDTHS.contains(&column)
            && lengths[0] < column
            && full(SPARE) >= FULL
            && prose
            && share(&|pair| pair[0].ends) <= ENDING
            && share(&|pair| pair[1].capital) <= CAPITAL
            && share(&|pair| pair[1].alike) <= ALIKE
            && share(&|pair| pair[0].odd) <= ODD;
        breaks.then_some(column)
    }

    /// Whether paragraphs between blank lines were broken.
    #[must_use]
    pub fn is_paragraphs(&self) -> bool {
        self.blank > 0 && self.column().is_some()
    }

    /// What to say of it.
    pub fn warning(&self) -> Option<String> {
        let column = self.column()?;
        let (what, record) = if self.blank > 0 {
            ("what stands between blank lines", "paragraph")
        } else {
            ("each file", "file")
        };
        Some(format!(
            "each line is a record, but the lines look like paragraphs broken at {column} columns; to take {what} as a \
             record: `\"read\": {{\"format\": {{\"kind\": \"text\", \"record\": \"{record}\"}}}}`"
        ))
    }
}

#[cfg(test)]
mod tests;
