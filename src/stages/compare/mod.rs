//! `compare`: several results → one table, as `compare.json`, `compare.md` and `compare.csv`.
//!
//! A row is an instance of a sweep or a stage of a list. Its columns are the fields that distinguish it from other rows
//! (the swept fields, the stage's name) and the metrics of its artifact, each with its 95% interval. `mdlm compare`
//! shows the same table for the stages that have run so far.
//!
//! Models of several objectives compare by the bits per byte of one text. An exact likelihood and a bound are both in that
//! column, and where a table has both, bounds have the sign ≤. Nats and perplexity per scored token (an autoregressive model
//! is given the first token of each row) are not ranked with those per token, a bound that is given the lengths of the
//! records is not ranked with a number that pays for them, and a pseudo-perplexity has a separate column.
//!
//! Results on different texts are not ranked with each other: each text has a table ([`by_text`]).
//!
//! Rows whose settings differ in seeds alone are replicates, whatever their stages are called ([`super::replicates`],
//! [`group`]). The table of means over seeds comes first; single rows follow by setting, in that order, and within a
//! setting in the order of the manifest, not by rank. The first setting is called best only if its distance from all
//! others exceeds the uncertainty ([`verdict`]).

use std::cmp::Ordering;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use indexmap::IndexSet;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::evaluate::{EVALUATION, Evaluation, MDLM};
use super::key::value_of;
use super::replicates::Spread;
use super::sample::{SUMMARY, Summary};
use super::trained::ModelInfo;
use super::{Context, Run, StageOutput};
use crate::data::{Unit, write_json};
use crate::error::{Context as _, Error, Kind, Result, Wrap};
use crate::evaluate::{Interval, Quantity};
use crate::manifest::{BoundEnds, Compare, Compared, Estimator, Metric, Point, Scored, Seed};
use crate::plural::counted;
use crate::store::{Digest, ExternalFile};
use crate::train::{METRICS, ValidationLine};

mod by_text;
mod columns;
pub mod group;
pub(super) mod metric;
mod paired;
mod places;
mod remarks;
mod table;
pub mod verdict;

pub use by_text::{ComparedText, by_text};
pub use columns::{Column, fields};
pub use paired::{Difference, Losses, shown as shown_differences};
pub use remarks::remarks;
pub use table::{TableHead, TextBlock, blocks, markdown_of, metrics_json, title_of_text};
pub use verdict::Verdict;

pub use crate::manifest::METRICS_IN_ORDER;
use group::{Group, groups};
pub(super) use table::quoted_field;
use table::{csv, markdown, table, tables};

/// File name of the table as JSON.
pub const TABLE: &str = "compare.json";
/// The same for people.
const TABLE_TEXT: &str = "compare.md";
/// The same for spreadsheets.
const TABLE_CSV: &str = "compare.csv";

/// The column of objectives.
const OBJECTIVE: &str = "objective";
/// The field of an object that says which of several it is.
const KIND: &str = "kind";

/// A metric's value with its interval.
pub type Measured = (Metric, Interval);

/// A row of a table: as `compare.json` has it too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Its name, where its values do not distinguish it from the others.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Its place in its sweep.
    pub point: Point,
    /// What was measured; nothing of a stage that has yet to run.
    #[serde(with = "table::by_name")]
    pub metrics: Vec<Measured>,
    /// What the measured model was trained for: the kind of its objective; `mdlm` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objective: Option<String>,
    /// Whether the metrics of its likelihood are bounds; they are where absent.
    #[serde(default, skip_serializing_if = "Quantity::is_bound")]
    pub quantity: Quantity,
    /// What nats and perplexity are per, where they were measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<Unit>,
    /// Whether they are per scored token: the first token of each row was given.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub scored: bool,
    /// Whether the lengths of the records were given, by padding that was excluded and visible.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub given_lengths: bool,
    /// Whether they are the published estimate, which is not a bound.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub published: bool,
    /// The training whose model was measured; nothing where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model: Option<Digest>,
    /// The tokenizer of the text; nothing where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokenizer: Option<Digest>,
    /// What of the bits per byte spells out text that the tokenizer lost.
    #[serde(default, skip_serializing_if = "crate::data::is_nought")]
    pub lost_bits_per_byte: f64,
    /// Whether rows began with context, so that their BOS and EOS were not scored.
    #[serde(default, skip_serializing_if = "crate::data::is_false")]
    pub context: bool,
    /// Rows of text that were evaluated.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rows: Option<u64>,
    /// Tokens that were scored in them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u64>,
    /// Words of their text, where the source counts them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub words: Option<u64>,
    /// The text that was evaluated; nothing of other stages, or where it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<ComparedText>,
    /// The number of its setting; nothing where no two rows have one setting.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub setting: Option<usize>,
    /// The seeds that distinguish rows of one setting.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub seeds: Vec<Seed>,
    /// The losses row by row of the text; nothing where the artifact has none.
    #[serde(skip)]
    pub losses: Option<Arc<Losses>>,
}

impl AsRef<Row> for Row {
    fn as_ref(&self) -> &Row {
        self
    }
}

impl AsMut<Row> for Row {
    fn as_mut(&mut self) -> &mut Row {
        self
    }
}

impl Row {
    /// Takes its setting, and shows the seeds that its place in its sweep does not.
    pub fn place(&mut self, setting: usize, seeds: Vec<Seed>) {
        for seed in &seeds {
            self.point
                .entry(seed.label.clone())
                .or_insert_with(|| Value::from(seed.value));
        }
        self.setting = Some(setting);
        self.seeds = seeds;
    }

    /// The value of a metric.
    #[must_use]
    pub fn metric(&self, metric: Metric) -> Option<Interval> {
        let found = self.metrics.iter().find(|(other, _)| *other == metric);
        found.map(|(_, interval)| *interval)
    }

    /// The value of a metric as a table shows it, with a sign where bounds have one ([`are_signed`]); empty where there is
    /// none.
    #[must_use]
    pub fn shown(&self, metric: Metric, signed: bool) -> String {
        let sign = metric::sign(metric, signed, self.quantity, self.published);
        self.metric(metric).map_or_else(String::new, |interval| {
            format!("{sign}{}", metric::shown(metric, interval))
        })
    }

    /// What nats and perplexity are per: `per scored token of text`.
    #[must_use]
    pub fn per(&self) -> Option<String> {
        self.unit.map(|unit| unit.per(self.scored))
    }

    /// The kind of the measured model's objective; nothing where no likelihood was measured.
    fn trained_for(&self) -> Option<&str> {
        let measured = self.metrics.iter().any(|(metric, _)| metric.is_of_text());
        measured.then(|| self.objective.as_deref().unwrap_or(MDLM))
    }
}

/// Whether exact values and bounds stand in one table, in which bounds then have a sign.
#[must_use]
pub fn are_signed(rows: &[&Row]) -> bool {
    let of = |quantity| {
        let mut likelihoods = rows.iter().filter(|row| row.trained_for().is_some());
        likelihoods.any(|row| row.quantity == quantity && !row.published)
    };
    of(Quantity::Exact) && of(Quantity::Bound)
}

/// Shows the objectives of rows among their values where they differ and neither the rows' names nor a column shows them.
/// A column of swept objectives takes those of rows that do not sweep theirs.
fn show_objectives<T: AsRef<Row> + AsMut<Row>>(rows: &mut [T]) {
    let of_text = || {
        let rows = rows.iter().map(T::as_ref);
        rows.filter_map(|row| Some((row, row.trained_for()?)))
    };
    let Some((_, kind)) = of_text().next() else {
        return;
    };
    let named = of_text().all(|(row, kind)| row.name.as_deref() == Some(kind));
    if named || of_text().all(|(_, other)| other == kind) {
        return;
    }
    let shows = |value: &Value, kind: &str| value == kind || value.get(KIND).is_some_and(|own| own == kind);
    let labels: IndexSet<&String> = of_text().flat_map(|(row, _)| row.point.keys()).collect();
    let column = labels.into_iter().find(|label| {
        let is_objective = label.split('.').any(|name| name == OBJECTIVE);
        of_text().all(|(row, kind)| stated(row, label).map_or(is_objective, |value| shows(value, kind)))
    });
    let column = column.map_or(OBJECTIVE, String::as_str).to_owned();
    for row in rows {
        let row = row.as_mut();
        if let Some(kind) = row.trained_for().map(Value::from)
            && stated(row, &column).is_none()
        {
            row.point.shift_insert(0, column.clone(), kind);
        }
    }
}

/// The value of a field that a sweep sets in a row; nothing where it leaves the default.
fn stated<'a>(row: &'a Row, label: &str) -> Option<&'a Value> {
    row.point.get(label).filter(|value| !value.is_null())
}

/// What a row or a group is called: its name and its values of some fields.
fn title(name: Option<&str>, point: &Point, of: &[Column]) -> String {
    let values = of.iter().filter_map(|column| {
        let value = column.value(point)?;
        Some(format!("{} {}", column.label, cell(value)))
    });
    let name = name.map(str::to_owned).into_iter();
    name.chain(values).collect::<Vec<_>>().join(", ")
}

impl Run for Compare {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: fields, metrics, intervals. 2: means over seeds, of what has the same settings; what nats and perplexity are per;
    /// whether the first is clearly different from the others; a count of one has a noun in the singular. Still 2: notes of
    /// `compare.md` are worded more plainly. Still 2: no rank across tokenizers, and no best of trainings with one seed each.
    /// Still 2: what was measured of models of other objectives, and no rank across what is given the lengths of records and
    /// what is not. Still 2: a column for each field in which swept objects differ. 3: differences from the first, row by
    /// row of the text, which decide what differs clearly. Still 3: a table for each text, where there are several; how much
    /// text each row is of.
    const VERSION: u32 = 3;

    /// Runs the stage.
    ///
    /// # Errors
    /// A consumed artifact cannot be read or has nothing to compare.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let mut rows = Vec::new();
        for (of, (_, folder)) in self.of.iter().zip(context.inputs) {
            let found = metrics(folder)?;
            if found.metrics.is_empty() {
                let message = format!("`{}` has no metric to compare", of.stage);
                return Err(Error::input(message).hint(
                    "samples are judged where their stage names a `grammar`, trainings where the rows have a `validation` \
                     split",
                ));
            }
            let mut row = Row {
                name: of.name.clone(),
                point: of.point.clone(),
                ..found
            };
            if let Some(setting) = of.setting {
                row.place(setting, of.seeds.clone());
            }
            rows.push(row);
        }
        let count = rows.len();
        let texts = by_text(rows);
        let several = texts.len() > 1;
        let found: Vec<Comparison> = texts
            .into_iter()
            .map(|rows| {
                // What last words are in order by, other results may not have.
                let has = |by: &Metric| !several || rows.iter().any(|row| row.metric(*by).is_some());
                let by = self.sort.filter(has);
                Comparison::of(rows, by)
            })
            .collect();
        write_tables(context.output, &found)?;
        let mut outcome = StageOutput::default();
        outcome.figures.push(("rows".to_owned(), count.to_string()));
        if found.len() > 1 {
            outcome
                .figures
                .push(("texts".to_owned(), found.len().to_string()));
        }
        outcome.figures.extend(found.iter().filter_map(figure));
        Ok(outcome)
    }

    /// What its rows are called is written into its table, as is which of them differ in seeds alone; which stages made them is
    /// not.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        config.insert("of".to_owned(), contents_of(&self.of)?);
        Ok(vec![])
    }
}

/// What results are called, and which of them differ in seeds alone, as a key has it.
///
/// # Errors
/// A bug: the values of sweeps have a canonical form.
pub(super) fn contents_of(of: &[Compared]) -> Result<Value> {
    let rows = of.iter().map(|row| {
        let point = value_of(&row.point)?;
        let mut written = match &row.name {
            Some(name) => json!({ "name": name, "point": point }),
            None => json!({ "point": point }),
        };
        if let Some(setting) = row.setting {
            written["setting"] = json!(setting);
            written["seeds"] = json!(row.seeds);
        }
        Ok(written)
    });
    rows.collect()
}

/// A table in order. Its rows may have more to them than what is compared.
#[derive(Clone, Debug, PartialEq)]
pub struct Comparison<T = Row> {
    /// The rows.
    pub rows: Vec<T>,
    /// The metric that orders them.
    pub by: Option<Metric>,
    /// Rows that differ in seeds alone, where there are any.
    pub groups: Option<Vec<Group>>,
    /// The differences from the first, row by row of the same text.
    pub differences: Vec<Difference>,
    /// Whether the first of them is clearly different from the others.
    pub verdict: Option<Verdict>,
}

impl<T: AsRef<Row> + AsMut<Row>> Comparison<T> {
    /// Puts rows into order ([`arrange`]).
    #[must_use]
    pub fn of(rows: Vec<T>, by: Option<Metric>) -> Self {
        Self::with(rows, by, None)
    }

    /// The same with differences that are known, or else are computed from the losses row by row.
    fn with(mut rows: Vec<T>, by: Option<Metric>, differences: Option<Vec<Difference>>) -> Self {
        show_objectives(&mut rows);
        let (by, groups) = arrange(&mut rows, by);
        let all: Vec<&Row> = rows.iter().map(T::as_ref).collect();
        let differences = differences.unwrap_or_else(|| {
            by.map_or_else(Vec::new, |by| paired::differences(&all, groups.as_deref(), by))
        });
        let verdict = by.and_then(|by| Verdict::of(&all, groups.as_deref(), by, &differences));
        Self {
            rows,
            by,
            groups,
            differences,
            verdict,
        }
    }
}

impl Comparison {
    /// The same for rows that are in order, as a compare stage has written them: without a metric they are not ranked.
    fn read(rows: Vec<Row>, by: Option<Metric>, differences: Vec<Difference>) -> Self {
        if by.is_some() {
            return Self::with(rows, by, Some(differences));
        }
        let groups = groups(&rows.iter().collect::<Vec<_>>());
        Self {
            rows,
            by,
            groups,
            differences,
            verdict: None,
        }
    }

    /// Opens what a compare stage has written: a table for each text.
    ///
    /// # Errors
    /// A file that cannot be read or is not a table.
    pub fn open(folder: &Path) -> Result<Vec<Self>> {
        let path = folder.join(TABLE);
        let text = fs::read_to_string(&path).context(|| format!("read `{}`", path.display()))?;
        table::parse(&text).wrap(Kind::Environment, || format!("read `{}`", path.display()))
    }
}

/// Writes the tables of a compare stage.
fn write_tables(folder: &Path, found: &[Comparison]) -> Result<()> {
    match found {
        [one] => write_json(&folder.join(TABLE), &table(one))?,
        all => write_json(&folder.join(TABLE), &tables(all))?,
    }
    for (name, text) in [(TABLE_TEXT, markdown(found)), (TABLE_CSV, csv(found))] {
        let path = folder.join(name);
        fs::write(&path, text).context(|| format!("write `{}`", path.display()))?;
    }
    Ok(())
}

/// The key figure: what is best, where the uncertainty leaves one; what leads and is not clearly different from others, where it does
/// not; of one setting alone its mean.
fn figure(found: &Comparison) -> Option<(String, String)> {
    let by = found.by?;
    let groups = found.groups.as_deref();
    let signed = are_signed(&found.rows.iter().collect::<Vec<_>>());
    let spread = |group: &Group, spread: Spread| {
        let of = if spread.sd.is_some() { "mean ± sd of " } else { "" };
        format!(
            "{} {}, {of}{}",
            by.name(),
            group.shown(by, signed),
            counted(spread.n, "seed")
        )
    };
    let value = if let Some(groups) = groups {
        spread(groups.first()?, groups.first()?.metric(by)?)
    } else {
        let first = found.rows.first().filter(|first| first.metric(by).is_some())?;
        format!("{} {}", by.name(), first.shown(by, signed))
    };
    let Some(verdict) = &found.verdict else {
        return groups.is_some().then(|| ("mean".to_owned(), value));
    };
    Some(if verdict.is_best() {
        ("best".to_owned(), format!("{} ({value})", verdict.title))
    } else if verdict.others().is_empty() {
        let figure = format!(
            "{} ({value}); the effect of another seed of training is not covered",
            verdict.title
        );
        (by.lead(), figure)
    } else {
        let figure = format!(
            "{} ({value}), not clearly different from {}",
            verdict.title,
            verdict.others()
        );
        (by.lead(), figure)
    })
}

/// What an artifact of an evaluate, sample or train stage has measured, as a row without name and place; no metric where
/// there was nothing to measure.
///
/// # Errors
/// A file of the stage cannot be read.
pub fn metrics(folder: &Path) -> Result<Row> {
    let read = |name: &str| -> Result<Option<String>> {
        let path = folder.join(name);
        match fs::read_to_string(&path) {
            Ok(text) => Ok(Some(text)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).wrap(Kind::Environment, || format!("read `{}`", path.display())),
        }
    };
    let damaged = |name: &str| format!("read `{}`", folder.join(name).display());
    if let Some(text) = read(EVALUATION)? {
        let found: Evaluation =
            serde_json::from_str(&text).wrap(Kind::Environment, || damaged(EVALUATION))?;
        let losses = match found.estimator {
            Estimator::Pseudo => None,
            Estimator::Time | Estimator::Count | Estimator::Exact => super::losses::read(folder)?,
        };
        return Ok(Row {
            context: found.stride.is_some() || found.scored != Scored::All,
            rows: Some(found.rows),
            tokens: Some(found.scored_tokens.unwrap_or(found.tokens)),
            words: found.words,
            text: ComparedText::of(&found, losses.as_ref()),
            losses: losses.map(|by_row| {
                Arc::new(Losses {
                    by_row,
                    bytes_per_token: found.bytes_per_token,
                })
            }),
            metrics: metrics_of(&found),
            quantity: found.estimator.into(),
            unit: Some(found.unit),
            scored: found.scored_tokens.is_some(),
            given_lengths: found.is_given_lengths(),
            objective: Some(found.objective).filter(|kind| kind != MDLM),
            published: found.bound == BoundEnds::Published,
            model: found.model,
            tokenizer: found.tokenizer,
            lost_bits_per_byte: found.lost_bits_per_byte,
            ..Row::default()
        });
    }
    if let Some(text) = read(SUMMARY)? {
        let found: Summary = serde_json::from_str(&text).wrap(Kind::Environment, || damaged(SUMMARY))?;
        let judged = found.grammar.and_then(|judgement| {
            let share = Interval {
                value: judgement.share?,
                low: judgement.low,
                high: judgement.high,
            };
            Some((Metric::Grammatical, share))
        });
        return Ok(Row {
            metrics: judged.into_iter().collect(),
            model: found.model,
            ..Row::default()
        });
    }
    let Some(text) = read(METRICS)? else {
        return Ok(Row::default());
    };
    let model = ModelInfo::open(folder).ok();
    let tokenizer = model
        .as_ref()
        .and_then(|model| model.tokenizer_digest.parse().ok());
    let kind = model.as_ref().map_or(MDLM, |model| model.objective.kind());
    let padded = model.as_ref().is_some_and(|model| !model.wrap);
    let last = text
        .lines()
        .rev()
        .find_map(|line| serde_json::from_str::<ValidationLine>(line).ok());
    Ok(last.map_or_else(Row::default, |line| {
        let found = line.validation;
        let nats = Interval {
            value: found.nats_per_token,
            low: found.low,
            high: found.high,
        };
        // Bits per byte are proportional to nats per token, but for what spells out lost text.
        let lost = found.lost_bits_per_byte;
        let bits = nats.map(|end| end * (found.bits_per_byte - lost) / found.nats_per_token + lost);
        Row {
            metrics: vec![
                (Metric::bits_per_byte(found.normalized), bits),
                (Metric::NatsPerToken, nats),
            ],
            objective: (kind != MDLM).then(|| kind.to_owned()),
            quantity: found.quantity(),
            unit: Some(found.unit),
            scored: found.scored,
            given_lengths: padded && found.unit == Unit::Token && found.quantity() != Quantity::Exact,
            // Two trainings with the same losses and validations are one.
            model: Some(Digest::of(text.as_bytes())),
            tokenizer,
            lost_bits_per_byte: lost,
            ..Row::default()
        }
    }))
}

/// Puts rows into the order of a table and says by which metric: the best value first ([`Ranking`]); where some differ in
/// seeds alone, the best mean over seeds first, and the rows of a group as they were. The groups' rows are those of the new
/// order. Where nothing was measured there is nothing to take a mean of, and rows stay as they are.
fn arrange<T: AsRef<Row>>(rows: &mut Vec<T>, by: Option<Metric>) -> (Option<Metric>, Option<Vec<Group>>) {
    let all: Vec<&Row> = rows.iter().map(T::as_ref).collect();
    if measured(&all).is_empty() {
        return (None, None);
    }
    let ranking = Ranking::of(by, &all);
    let mut groups = groups(&all);
    match &mut groups {
        None => rows.sort_by(|a, b| {
            let (a, b) = (a.as_ref(), b.as_ref());
            let value = |row: &Row, by| row.metric(by).map(|interval| interval.value);
            ranking.order(
                (a.published, &|by| value(a, by)),
                (b.published, &|by| value(b, by)),
            )
        }),
        Some(groups) => {
            groups.sort_by(|a, b| {
                let mean = |group: &Group, by| group.metric(by).map(|spread| spread.mean);
                ranking.order((a.published, &|by| mean(a, by)), (b.published, &|by| mean(b, by)))
            });
            let mut old: Vec<Option<T>> = std::mem::take(rows).into_iter().map(Some).collect();
            for place in groups.iter_mut().flat_map(|group| &mut group.rows) {
                let row = old[*place].take();
                *place = rows.len();
                rows.extend(row);
            }
        }
    }
    (ranking.by, groups)
}

/// By what a table is in order.
struct Ranking {
    /// The metric; nothing where its values do not compare.
    by: Option<Metric>,
    /// Whether bounds on normalized text compare.
    normalized: bool,
}

impl Ranking {
    fn of(by: Option<Metric>, rows: &[&Row]) -> Self {
        Self {
            by: ordering(by, rows),
            normalized: ranks(Metric::BitsPerByteNormalized, rows),
        }
    }

    /// The order of two rows or two groups, each by whether it is the published estimate, and its values: the best value of
    /// the metric first; what has none comes last. Equal ones, and all where no metric ranks them, keep their order.
    fn order(&self, a: (bool, MetricValues<'_>), b: (bool, MetricValues<'_>)) -> Ordering {
        // Bounds on normalized text, all lower than those on the text itself, come after them.
        let normalized = self.by.filter(|_| self.normalized);
        let normalized = normalized.map(|_| Metric::BitsPerByteNormalized);
        // What is not a bound comes after bounds.
        let order = a.0.cmp(&b.0);
        let metrics = [self.by, normalized].into_iter().flatten();
        metrics.fold(order, |order, by| {
            order.then_with(|| by.order((a.1)(by), (b.1)(by)))
        })
    }
}

/// The values of a row or a group, by metric.
type MetricValues<'a> = &'a dyn Fn(Metric) -> Option<f64>;

/// Whether two results compare by a metric: those per token only where both count the same unit in tokens of one tokenizer,
/// bounds on normalized text only where one tokenizer normalized it, and those per token not where only one counts the BOS and EOS
/// of rows. One that turns every letter into `x` would win. What is
/// given the lengths of records does not compare with what has to predict them.
fn compare(by: Metric, a: &Row, b: &Row) -> bool {
    let per_token = by.is_per_token();
    // Words are the same for all tokenizers that keep them.
    let keeps_text =
        |row: &Row| row.lost_bits_per_byte == 0.0 && row.metric(Metric::BitsPerByteNormalized).is_none();
    let of_words = by.is_per_word() && !(keeps_text(a) && keeps_text(b));
    let of_tokenizer = per_token || of_words || by == Metric::BitsPerByteNormalized;
    (!per_token || (a.unit, a.scored, a.context) == (b.unit, b.scored, b.context))
        && (!of_tokenizer || a.tokenizer == b.tokenizer)
        && (!by.is_of_text() || a.given_lengths == b.given_lengths)
}

/// Whether a metric ranks some rows: all that have it compare.
fn ranks(by: Metric, rows: &[&Row]) -> bool {
    let mut measured = rows.iter().filter(|row| row.metric(by).is_some());
    let first = measured.next();
    first.is_some_and(|first| measured.all(|row| compare(by, first, row)))
}

/// The metric that orders rows: the one asked for, else the first that some row has; nothing where its values do not compare
/// ([`compare`]). Where all of them are bounds on normalized text, bits per byte are those.
fn ordering(by: Option<Metric>, rows: &[&Row]) -> Option<Metric> {
    let measured = measured(rows);
    let by = match by {
        Some(Metric::BitsPerByte)
            if !measured.contains(&Metric::BitsPerByte)
                && measured.contains(&Metric::BitsPerByteNormalized) =>
        {
            Some(Metric::BitsPerByteNormalized)
        }
        Some(by) => Some(by),
        None => measured.first().copied(),
    };
    by.filter(|by| ranks(*by, rows) || rows.iter().all(|row| row.metric(*by).is_none()))
}

/// The metrics that some row has, in the order of columns.
#[must_use]
pub fn measured(rows: &[&Row]) -> Vec<Metric> {
    METRICS_IN_ORDER
        .into_iter()
        .filter(|metric| rows.iter().any(|row| row.metric(*metric).is_some()))
        .collect()
}

/// A swept value as people read it.
#[must_use]
pub fn cell(value: &Value) -> String {
    match value {
        Value::Null => "default".to_owned(),
        Value::String(text) => text.clone(),
        Value::Object(fields) if fields.len() == 1 && fields.contains_key(KIND) => cell(&fields[KIND]),
        other => other.to_string(),
    }
}

/// The metrics of an evaluation. A pseudo-likelihood has a separate metric: it is not comparable with a bound.
fn metrics_of(found: &Evaluation) -> Vec<Measured> {
    let accuracy = found
        .last_word
        .map(|last| (Metric::LastWordAccuracy, last.accuracy));
    if found.estimator == Estimator::Pseudo {
        let pseudo = (Metric::PseudoPerplexity, found.perplexity);
        return [pseudo].into_iter().chain(accuracy).collect();
    }
    let bits = found
        .bits_per_byte
        .map(|bits| (Metric::bits_per_byte(found.normalized), bits));
    let others = [
        (Metric::Perplexity, found.perplexity),
        (Metric::NatsPerToken, found.nats_per_token),
    ];
    let per_word = found
        .perplexity_per_word
        .map(|perplexity| (Metric::PerplexityPerWord, perplexity));
    let last = found
        .last_word
        .map(|last| (Metric::LastWordPerplexity, last.perplexity));
    bits.into_iter()
        .chain(others)
        .chain(per_word)
        .chain(last)
        .chain(accuracy)
        .collect()
}

#[cfg(test)]
mod tests;
