//! `table`: results in the cells of a table, beside published figures, as `table.json`, `table.md`, `table.csv` and
//! `table.tex`.
//!
//! | file | what it decides |
//! |---|---|
//! | `found.rs` | what a result shows: the metrics of its artifact, and facts of its model |
//! | `cell.rs` | a cell: the mean over seeds, and the verdict on the published figure |
//! | `order.rs` | whether the published order of rows holds here |
//! | `text.rs` | the table for people: cells, footnotes; Markdown |
//! | `files.rs` | the table for spreadsheets and papers: CSV, LaTeX |
//!
//! A cell takes the results that `where` of its row and its column select. They differ in seeds alone, or planning fails. A
//! cell without a result says why.
//!
//! `mdlm table` shows the same for the results that are there ([`TableResult::build`]); the reasons of missing cells are then
//! those of the plan.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

mod cell;
mod files;
mod found;
mod order;
mod text;

use super::compare::contents_of;
use super::{Context, Run, StageOutput};
use crate::data::{read_json, write_json};
use crate::error::{Context as _, Error, Result};
use crate::manifest::{Table, TableColumn, TableRow, TableValue};
use crate::numbers;
use crate::plural::counted;
use crate::store::ExternalFile;
pub use cell::{Agreement, Cell, CellValue, PublishedCell};
pub use files::{csv, latex};
pub use found::FoundResult;
pub use order::{DifferenceBound, OrderFinding, OrderedPair};
pub use text::{blocks, lines, notes};

use super::compare::markdown_of;

/// The table as JSON.
pub const TABLE_JSON: &str = "table.json";
/// The same for people.
const TABLE_MARKDOWN: &str = "table.md";
/// The same for spreadsheets.
const TABLE_CSV: &str = "table.csv";
/// The same for papers.
const TABLE_LATEX: &str = "table.tex";

/// The title of a table that states none.
const CAPTION: &str = "Results";

/// `table.json`: a table with its cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TableResult {
    /// Its title.
    pub caption: String,
    /// Where the published figures come from; rows may state another source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Whether results have the settings of the published figures.
    pub verdicts: bool,
    /// Its columns.
    pub columns: Vec<ColumnHead>,
    /// Its rows.
    pub rows: Vec<RowOfCells>,
    /// Whether the published order of rows holds here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub order: Vec<OrderedPair>,
    /// Footnotes of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
}

/// The head of a column.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ColumnHead {
    /// Its name.
    pub name: String,
    /// What it shows.
    pub show: TableValue,
    /// What was measured in its cells, where that is the same in all: rows and tokens of an evaluation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub measured: Option<MeasuredText>,
}

/// The text that an evaluation measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MeasuredText {
    /// Rows.
    pub rows: u64,
    /// Rows of the split.
    pub rows_of_split: u64,
    /// Valid tokens.
    pub tokens: u64,
    /// Words, where the source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
}

/// A row with its cells.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RowOfCells {
    /// Its name.
    pub name: String,
    /// The heading above it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// Whether it has published figures alone.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub quoted: bool,
    /// Where its published figures come from, if not where those of the table do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Its footnote.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// Its cells, one a column.
    pub cells: Vec<Cell>,
}

/// A result that a table could show: what was found, or why there is nothing.
pub type Sought = std::result::Result<FoundResult, String>;

impl TableResult {
    /// Fills the cells of a table; `results` are those of its `of`.
    ///
    /// # Errors
    /// Results of one cell differ in more than seeds, or no result of a column has what it shows.
    pub fn build(table: &Table, results: &[Sought]) -> Result<Self> {
        let (rows, columns) = table.layout();
        let mut made = Vec::new();
        for row in &rows {
            let cells = columns.iter().map(|column| {
                let places = table.cell(row, column);
                let here = |place: &usize| matches!(results.get(*place), Some(Ok(_)));
                let here: Vec<usize> = places.iter().copied().filter(here).collect();
                one_setting(table, row, column, &here)?;
                let show = column.show.unwrap_or(table.show);
                let sought: Vec<&Sought> = places.iter().filter_map(|&place| results.get(place)).collect();
                Ok(cell::fill(row, column, show, &sought, table.verdicts))
            });
            made.push(RowOfCells {
                name: row.name.clone(),
                group: row.group.clone(),
                quoted: row.select.is_none() && row.missing.is_none(),
                source: row.source.clone(),
                note: row.note.clone(),
                cells: cells.collect::<Result<_>>()?,
            });
        }
        let of_cell = |row: usize, column: usize| -> Vec<&FoundResult> {
            let places = table.cell(&rows[row], &columns[column]).into_iter();
            places
                .filter_map(|place| results.get(place)?.as_ref().ok())
                .collect()
        };
        let heads = columns.iter().enumerate().map(|(place, column)| {
            let all: Vec<&FoundResult> = (0..rows.len()).flat_map(|row| of_cell(row, place)).collect();
            let show = column.show.unwrap_or(table.show);
            // A result that is not there may have it.
            let sought = rows.iter().flat_map(|row| table.cell(row, column)).count();
            let is_whole = all.len() == sought && sought > 0;
            if is_whole && all.iter().all(|found| found.value(show).is_none()) {
                return Err(cell::lacking(column, show, &all));
            }
            let first = all.first().and_then(|found| found.text);
            Ok(ColumnHead {
                name: column.name.clone(),
                show,
                measured: first.filter(|_| all.iter().all(|found| found.text == first)),
            })
        });
        let columns: Vec<ColumnHead> = heads.collect::<Result<_>>()?;
        Ok(Self {
            order: order::pairs(&columns, &made, &of_cell),
            caption: table.caption.clone().unwrap_or_else(|| CAPTION.to_owned()),
            source: table.source.clone(),
            verdicts: table.verdicts,
            columns,
            rows: made,
            notes: table.notes.clone(),
        })
    }

    /// Reads `table.json` of a table artifact.
    ///
    /// # Errors
    /// The file is absent or damaged.
    pub fn open(artifact: &Path) -> Result<Self> {
        read_json(&artifact.join(TABLE_JSON))
    }

    /// All its cells.
    pub fn cells(&self) -> impl Iterator<Item = &Cell> {
        self.rows.iter().flat_map(|row| &row.cells)
    }
}

/// Checks every cell: its results differ in seeds alone, as far as that is known.
///
/// # Errors
/// A cell whose results differ in more.
pub fn check_cells(table: &Table) -> Result<()> {
    let (rows, columns) = table.layout();
    for row in &rows {
        for column in &columns {
            one_setting(table, row, column, &table.cell(row, column))?;
        }
    }
    Ok(())
}

/// Fails where the results at some places have several settings.
fn one_setting(table: &Table, row: &TableRow, column: &TableColumn, places: &[usize]) -> Result<()> {
    let [first, others @ ..] = places else {
        return Ok(());
    };
    let first = &table.of[*first];
    let differs = |place: &&usize| first.setting.is_none() || table.of[**place].setting != first.setting;
    let Some(other) = others.iter().find(differs) else {
        return Ok(());
    };
    let stated: Vec<&str> = row
        .select
        .iter()
        .chain(&column.select)
        .flat_map(|select| select.keys())
        .map(String::as_str)
        .collect();
    let open: Vec<String> = table
        .of
        .iter()
        .flat_map(|result| result.point.keys())
        .filter(|label| !stated.contains(&&***label) && !super::replicates::is_seed(label))
        .map(|label| format!("`{label}`"))
        .fold(Vec::new(), |mut all, label| {
            if !all.contains(&label) {
                all.push(label);
            }
            all
        });
    let stage = (!stated.contains(&"stage")).then(|| "`stage`".to_owned());
    let open: Vec<String> = open.into_iter().chain(stage).collect();
    Err(Error::input(format!(
        "the cell of row `{}` and column `{}` has {}, which differ in more than seeds: `{}` and `{}`",
        row.name,
        column.name,
        counted(places.len(), "result"),
        first.stage,
        table.of[*other].stage
    ))
    .hint(match &*open {
        [] => "take one of them out of `of`".to_owned(),
        open => format!(
            "state {} in `where` of the row or of the column",
            open.join(" or ")
        ),
    }))
}

impl Run for Table {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: the first; 2: published figures state the decimals that are printed.
    const VERSION: u32 = 2;

    /// Runs the stage.
    ///
    /// # Errors
    /// A consumed artifact cannot be read, no result of a column has what it shows, results of one cell differ in more than seeds.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let results = self
            .of
            .iter()
            .zip(context.inputs)
            .map(|(of, (_, folder))| FoundResult::open(of, folder).map(Ok));
        let results: Vec<Sought> = results.collect::<Result<_>>()?;
        let found = TableResult::build(self, &results)?;
        write_json(&context.output.join(TABLE_JSON), &found)?;
        for (name, text) in [
            (TABLE_MARKDOWN, markdown_of(&blocks(&found))),
            (TABLE_CSV, csv(&found)),
            (TABLE_LATEX, latex(&found)),
        ] {
            let path = context.output.join(name);
            fs::write(&path, text).context(|| format!("write `{}`", path.display()))?;
        }
        let mut outcome = StageOutput::default();
        outcome.figures.extend(figures(&found));
        Ok(outcome)
    }

    /// What its results are called is written into its table, as are the facts of their models; which stages made them is not.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        let (rows, columns) = self.layout();
        let cells: Vec<Vec<Vec<usize>>> = rows
            .iter()
            .map(|row| columns.iter().map(|column| self.cell(row, column)).collect())
            .collect();
        config.insert("of".to_owned(), contents_of(&self.of)?);
        config.insert("cells".to_owned(), super::key::value_of(&cells)?);
        let facts: Vec<_> = self.of.iter().map(|result| result.facts).collect();
        config.insert("facts".to_owned(), super::key::value_of(&facts)?);
        Ok(vec![])
    }
}

/// Its key figures: how many cells have a result, and how many agree with what was published.
fn figures(found: &TableResult) -> Vec<(String, String)> {
    let with = found.cells().filter(|cell| cell.here.is_some()).count();
    let missing = found.cells().filter(|cell| cell.missing.is_some()).count();
    let mut cells = counted(with, "result");
    if missing > 0 {
        cells.push_str(&format!(", {missing} missing"));
    }
    let mut figures = vec![("cells".to_owned(), cells)];
    let verdicts: Vec<&Agreement> = found.cells().filter_map(|cell| cell.verdict.as_ref()).collect();
    if !verdicts.is_empty() {
        let agree = verdicts
            .iter()
            .filter(|verdict| ***verdict == Agreement::Agrees)
            .count();
        let text = format!("{agree} of {} agree", verdicts.len());
        figures.push(("published figures".to_owned(), text));
    }
    let held = found
        .order
        .iter()
        .filter(|pair| pair.found == OrderFinding::Same)
        .count();
    if !found.order.is_empty() {
        let text = format!("{held} of {} pairs", numbers::count(found.order.len() as u64));
        figures.push(("published order holds for".to_owned(), text));
    }
    figures
}

#[cfg(test)]
mod tests;
