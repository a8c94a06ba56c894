//! Tables of text that fit a terminal of 80 columns.

/// Columns of a terminal that everything fits into.
pub const WIDTH: usize = 80;
/// Columns beyond which lines are no longer easy to read.
const WIDEST: usize = 160;

/// Columns that text on standard output may take: those of its terminal, [`WIDTH`] where it is none.
#[must_use]
pub fn width() -> usize {
    let size = console::Term::stdout().size_checked();
    // Snapshots do not depend on where they are looked at.
    let size = size.filter(|_| !cfg!(test));
    size.map_or(WIDTH, |(_, columns)| {
        usize::from(columns).clamp(WIDTH / 2, WIDEST)
    })
}

/// Words broken into lines of at most `width` characters. A longer word gets a line to itself.
#[must_use]
pub fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    let mut length = 0;
    for word in text.split_whitespace() {
        let more = word.chars().count();
        match lines.last_mut() {
            Some(line) if length + 1 + more <= width => {
                line.push(' ');
                line.push_str(word);
                length += 1 + more;
            }
            _ => {
                lines.push(word.to_owned());
                length = more;
            }
        }
    }
    lines
}

/// Rows with their columns aligned, two spaces apart; the last column is wrapped. Cells may be painted by `paint`
/// (row, column, padded cell), which sees them after they were measured.
#[must_use]
pub fn columns(rows: &[Vec<String>], paint: impl Fn(usize, usize, &str) -> String) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width_of = |column: usize| {
        rows.iter()
            .filter_map(|row| row.get(column))
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or(0)
    };
    let widths: Vec<_> = (0..count.saturating_sub(1)).map(width_of).collect();
    let indent: usize = widths.iter().map(|width| width + 2).sum();
    let mut text = String::new();
    for (index, row) in rows.iter().enumerate() {
        let mut line = String::new();
        for (column, width) in widths.iter().enumerate() {
            let cell = row.get(column).map_or("", String::as_str);
            let padding = " ".repeat(width - cell.chars().count() + 2);
            line.push_str(&paint(index, column, cell));
            line.push_str(&padding);
        }
        let last = row.get(widths.len()).map_or("", String::as_str);
        let lines = wrap(last, width().saturating_sub(indent).max(20));
        for (number, part) in lines.iter().enumerate() {
            if number > 0 {
                text.push_str(line.trim_end());
                text.push('\n');
                line = " ".repeat(indent);
            }
            line.push_str(&paint(index, widths.len(), part));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn last_column_wraps_under_itself() {
        let rows = vec![
            vec!["text".to_owned(), "cached".to_owned(), String::new()],
            vec!["model".to_owned(), "done".to_owned(), "word ".repeat(20)],
        ];
        let text = columns(&rows, |_, _, cell| cell.to_owned());
        insta::assert_snapshot!(text, @r"
        text   cached
        model  done    word word word word word word word word word word word word word
                       word word word word word word word
        ");
        assert!(text.lines().all(|line| line.chars().count() <= WIDTH));
    }
}
