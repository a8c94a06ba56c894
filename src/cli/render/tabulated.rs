//! Tables of results in a terminal: rows and columns where they fit, else one line a cell.

use super::style;
use super::table::{columns, paragraph, width, widths};
use mdlm::stages::compare::TextBlock;
use mdlm::stages::table::{TableResult, blocks, lines, notes};

/// A table as text.
pub fn text(table: &TableResult, color: bool) -> String {
    let pivot = blocks(table).into_iter().find_map(|block| match block {
        TextBlock::Table(rows) => Some(rows),
        TextBlock::Heading(_) | TextBlock::Paragraph(_) => None,
    });
    let fits = |rows: &Vec<Vec<String>>| {
        let widths = widths(rows);
        widths.iter().sum::<usize>() + 2 * widths.len().saturating_sub(1) <= width()
    };
    let rows = pivot.filter(fits).unwrap_or_else(|| lines(table));
    let mut text = paragraph(&table.caption);
    text.push_str("\n\n");
    text.push_str(&columns(&rows, color, |row, _| {
        if row == 0 { style::STRONG } else { style::PLAIN }
    }));
    for note in notes(table) {
        text.push('\n');
        text.push_str(&paragraph(&note));
        text.push('\n');
    }
    text
}
