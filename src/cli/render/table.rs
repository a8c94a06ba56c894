//! Text and tables of text that fit a terminal of 80 columns.
//!
//! Widths are those on a terminal: Chinese, Japanese and Korean characters take two columns, combining ones none.

use console::{Alignment, Term, measure_text_width, pad_str};
use textwrap::{Options, WordSplitter};

use super::style::{Style, painted};

/// Columns of a terminal that everything fits into.
pub const WIDTH: usize = 80;
/// Columns beyond which lines are no longer easy to read.
const WIDEST: usize = 160;
/// Columns that the last column of a table has at least.
const NARROWEST: usize = 20;

/// Columns that text on standard output may take: those of its terminal, [`WIDTH`] where it is none.
#[must_use]
pub fn width() -> usize {
    let size = Term::stdout().size_checked();
    // Snapshots do not depend on where they are looked at.
    let size = size.filter(|_| !cfg!(test));
    size.map_or(WIDTH, |(_, columns)| {
        usize::from(columns).clamp(WIDTH / 2, WIDEST)
    })
}

/// Lines of at most `width` columns, broken between words alone: a longer word, as a URL or a path, can be copied.
#[must_use]
pub fn options<'a>(width: usize) -> Options<'a> {
    Options::new(width)
        .break_words(false)
        .word_splitter(WordSplitter::NoHyphenation)
}

/// The words of a text, a space apart, in lines.
#[must_use]
pub fn wrap(text: &str, options: Options<'_>) -> String {
    let words: Vec<_> = text.split_whitespace().collect();
    textwrap::fill(&words.join(" "), options)
}

/// The words of a text in lines that fit [`width`].
#[must_use]
pub fn paragraph(text: &str) -> String {
    wrap(text, options(width()))
}

/// The longest end of a text that fits into so many columns.
#[must_use]
pub fn end(text: &str, width: usize) -> &str {
    let ends = text.char_indices().rev().map(|(at, _)| &text[at..]);
    ends.take_while(|end| measure_text_width(end) <= width)
        .last()
        .unwrap_or_default()
}

/// The widths of a table's columns.
#[must_use]
pub fn widths(rows: &[Vec<String>]) -> Vec<usize> {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells.map(|cell| measure_text_width(cell)).max().unwrap_or(0)
    };
    (0..count).map(widest).collect()
}

/// A cell on one line, with control characters escaped: terminals obey them.
fn visible(cell: &str) -> String {
    let mut text = String::with_capacity(cell.len());
    for character in cell.chars() {
        match character {
            '\t' | '\n' | '\r' => text.push(' '),
            control if control.is_control() => text.extend(control.escape_default()),
            other => text.push(other),
        }
    }
    text
}

/// Rows with their columns aligned, two spaces apart, in the styles of their cells (row, column); the last column is
/// wrapped.
#[must_use]
pub fn columns(rows: &[Vec<String>], color: bool, style: impl Fn(usize, usize) -> Style) -> String {
    let rows: Vec<Vec<String>> = rows
        .iter()
        .map(|row| row.iter().map(|cell| visible(cell)).collect())
        .collect();
    let widths = widths(&rows);
    let last = widths.len().saturating_sub(1);
    let indent: usize = widths[..last].iter().map(|width| width + 2).sum();
    let options = options(width().saturating_sub(indent).max(NARROWEST));
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, width) in widths[..last].iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let cell = painted(color, style(index, column), cell);
            line += &pad_str(&cell, width + 2, Alignment::Left, None);
        }
        let cell = row.get(last).map_or("", String::as_str);
        for part in wrap(cell, options.clone()).split('\n') {
            let part = painted(color, style(index, last), part);
            text += format!("{line}{part}").trim_end();
            text.push('\n');
            line = " ".repeat(indent);
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::super::style::{FAINT, PLAIN};
    use super::*;

    fn plain<const N: usize>(rows: &[[&str; N]]) -> String {
        let rows: Vec<_> = rows.iter().map(|row| row.map(str::to_owned).to_vec()).collect();
        columns(&rows, false, |_, _| PLAIN)
    }

    #[test]
    fn table_wraps_its_last_column_under_itself() {
        let text = plain(&[["text", "cached", ""], ["model", "done", &"word ".repeat(20)]]);
        insta::assert_snapshot!(text, @r"
        text   cached
        model  done    word word word word word word word word word word word word word
                       word word word word word word word
        ");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }

    #[test]
    fn table_leaves_long_words_whole() {
        let url = format!("https://example.com/{}", "x".repeat(WIDTH));
        assert_eq!(plain(&[["text", &url]]), format!("text  {url}\n"));
    }

    #[test]
    fn table_aligns_wide_and_zero_width_characters() {
        let text = plain(&[["日本語", "x"], ["e\u{301}\u{200b}", "y"], ["abcdef", "z"]]);
        assert_eq!(text, "日本語  x\ne\u{301}\u{200b}       y\nabcdef  z\n");
        let text = plain(&[["a", &"文字 ".repeat(30)]]);
        assert_eq!(text.lines().map(measure_text_width).max(), Some(77));
    }

    #[test]
    fn table_escapes_control_characters() {
        let text = plain(&[["a\u{1b}[2J\nb", "one\r\ttwo\u{7}"]]);
        assert_eq!(text, "a\\u{1b}[2J b  one two\\u{7}\n");
    }

    #[test]
    fn table_pads_beside_colors() {
        let rows = [["a", "b"], ["long", ""]].map(|row| row.map(str::to_owned).to_vec());
        let text = columns(&rows, true, |_, column| if column == 0 { FAINT } else { PLAIN });
        assert_eq!(text, "\u{1b}[2ma\u{1b}[0m     b\n\u{1b}[2mlong\u{1b}[0m\n");
    }
}
