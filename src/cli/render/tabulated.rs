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
    let mut text = paragraph(&table.caption);
    text.push_str("\n\n");
    let head = |row, _| if row == 0 { style::STRONG } else { style::PLAIN };
    match pivot.filter(fits) {
        Some(rows) => text.push_str(&columns(&rows, color, head)),
        None => text.push_str(&by_column(&lines(table), color)),
    }
    for note in notes(table) {
        text.push('\n');
        text.push_str(&paragraph(&note));
        text.push('\n');
    }
    text
}

/// One line a cell, below the name of its column.
fn by_column(lines: &[Vec<String>], color: bool) -> String {
    let Some((heading, cells)) = lines.split_first() else {
        return String::new();
    };
    let tables = cells.chunk_by(|a, b| a[0] == b[0]).map(|cells| {
        let mut rows = vec![heading[1..].to_vec()];
        rows[0][0].clone_from(&cells[0][0]);
        rows.extend(cells.iter().map(|cell| cell[1..].to_vec()));
        columns(
            &rows,
            color,
            |row, _| if row == 0 { style::STRONG } else { style::PLAIN },
        )
    });
    tables.collect::<Vec<_>>().join("\n")
}
