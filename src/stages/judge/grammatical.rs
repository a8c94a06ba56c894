//! Sampled records against the grammar that they imitate.
//!
//! Rows are cut into complete records as a sample stage cuts them. A joined row cuts long records more often than short
//! ones, so that its complete records are shorter than those of the source. What they are compared with is therefore fresh
//! text of the source, which no stage has seen, tokenized and packed into rows as the model's training text was, and cut
//! in the same way. What a perfect sampler would score is measured on such text too.

use std::collections::BTreeSet;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::divergence::{OUTCOMES, OutcomeCounts, SourceCounts, WordNumbers};
use super::statistics::{FRESH_SETS, proportion, ratio};
use crate::data::SpecialIds;
use crate::data::grammar::Grammar;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Context as _, Error, Result};
use crate::evaluate::Interval;
use crate::event::Cancel;
use crate::rng::{Random, Stream};
use crate::stages::sample::records;

/// Rows without a complete record after which fresh text is given up: its records are longer than rows.
const MOST_EMPTY_ROWS: usize = 10_000;
/// Records of a set of fresh text, at most: their numbers have 32 bits.
const SET_BITS: u32 = 32;

/// The records of samples, measured against a grammar.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct GrammarMeasures {
    /// Complete records.
    pub records: u64,
    /// How many of them have a special token within or no beginning or end.
    pub malformed: u64,
    /// How many of them the grammar makes.
    pub grammatical: u64,
    /// How many of those differ from each other.
    pub distinct: u64,
    /// grammatical / records, with Wilson's interval, clustered by row; absent without a record.
    pub share: Option<Interval>,
    /// The exact −log p of a grammatical record in nats, the mean over them, clustered by row.
    pub nats_per_record: Option<Interval>,
    /// The same in bits per byte of the records, a separator byte each included.
    pub bits_per_byte: Option<Interval>,
    /// Symmetric KL divergence of words from the source.
    pub unigrams: Option<Divergence>,
    /// That of pairs of neighbouring words, ends of records included.
    pub bigrams: Option<Divergence>,
    /// That of the number of words of a record.
    pub lengths: Option<Divergence>,
    /// The source that they are compared with.
    pub source: SourceMeasures,
}

/// A divergence from the source in nats.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Divergence {
    /// That of the samples; the standard error is that of rows drawn again.
    pub samples: Interval,
    /// That of fresh text of the source, as many rows as the samples: the mean of 39 sets, the lowest and the highest. The
    /// value of a perfect sampler lies between these two with a probability of 95%.
    pub fresh: Interval,
}

/// The source.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct SourceMeasures {
    /// Exact entropy of a record in nats.
    pub entropy_nats_per_record: f64,
    /// Exact entropy in bits per byte, a separator byte a record included.
    pub entropy_bits_per_byte: f64,
    /// Complete records of the fresh text that the samples are compared with.
    pub records: u64,
    /// Share of them that the grammar still makes after the model's tokenizer; 1 unless it changes text.
    pub share: Option<f64>,
    /// Mean −log p of them in nats: below the entropy where rows cut long records.
    pub nats_per_record: Option<Interval>,
}

/// How a model's rows are made of text.
#[derive(Clone, Copy)]
pub struct RowForm<'a> {
    /// The model's tokenizer.
    pub tokenizer: &'a Tokenizer,
    /// Special tokens.
    pub special: SpecialIds,
    /// Whether records are joined and cut.
    pub wrap: bool,
}

/// A row's records.
#[derive(Clone, Debug, Default)]
struct RowRecords {
    /// The texts of those that are not malformed.
    texts: Vec<String>,
    /// Complete records, the malformed ones included.
    complete: u64,
    /// log p of those that the grammar makes.
    logs: Vec<(usize, f64)>,
}

impl RowForm<'_> {
    fn records(&self, row: &[u32], grammar: Option<&Grammar>) -> Result<RowRecords> {
        let mut found = RowRecords::default();
        if row.len() < 2 {
            return Ok(found);
        }
        for record in records(row, self.special, self.wrap) {
            found.complete += 1;
            let Some(record) = record else { continue };
            let text = self.tokenizer.decode(record)?;
            if let Some(log) = grammar.and_then(|grammar| grammar.log_probability(&text)) {
                found.logs.push((found.texts.len(), log));
            }
            found.texts.push(text);
        }
        Ok(found)
    }
}

/// Fresh text of a source in rows, a set of them for each number.
struct FreshText<'a> {
    grammar: &'a Grammar,
    form: RowForm<'a>,
    random: Random,
    /// The next record.
    number: u64,
    /// Tokens that wait for a row.
    waiting: Vec<u32>,
    /// Tokens to leave out before the first row: a joined row begins anywhere.
    skip: u64,
}

impl<'a> FreshText<'a> {
    fn new(grammar: &'a Grammar, form: RowForm<'a>, random: Random, set: u64, length: usize) -> Self {
        let piece = length.saturating_sub(2).max(1) as u64;
        Self {
            grammar,
            form,
            random,
            number: set << SET_BITS,
            waiting: Vec::new(),
            skip: if form.wrap {
                random.below(piece, 0, (1 << 47) + set, 0)
            } else {
                0
            },
        }
    }

    fn record(&mut self) -> Result<()> {
        let text = self.grammar.record(self.random, self.number).text;
        self.number += 1;
        self.form
            .tokenizer
            .encode(&text, &mut self.waiting)
            .context(|| "write the source's text in the tokens of the model".to_owned())?;
        Ok(())
    }

    /// The next row of that length.
    fn row(&mut self, length: usize) -> Result<Vec<u32>> {
        let SpecialIds { bos, eos, pad, .. } = self.form.special;
        let piece = length.saturating_sub(2);
        let mut row = vec![bos];
        if self.form.wrap {
            while (self.waiting.len() as u64) < self.skip + piece as u64 {
                self.record()?;
                self.waiting.push(eos);
            }
            let skip = std::mem::take(&mut self.skip) as usize;
            row.extend(self.waiting.drain(..skip + piece).skip(skip));
            row.push(eos);
            return Ok(row);
        }
        self.record()?;
        row.extend(self.waiting.drain(..).take(piece));
        row.push(eos);
        row.resize(length.max(2), pad);
        Ok(row)
    }
}

/// Fresh text of a source, measured for rows of certain lengths.
pub struct FreshSource {
    numbers: WordNumbers,
    counts: SourceCounts,
    /// By outcome: what sets as large as the samples score.
    fresh: [Option<Interval>; 3],
    measures: SourceMeasures,
}

impl FreshSource {
    /// Measures fresh text in rows of these lengths: at least so many records, and the sets of as many rows.
    ///
    /// # Errors
    /// The model's tokenizer cannot write the text, or its rows hold no complete record.
    pub fn new(
        grammar: &Grammar,
        form: RowForm<'_>,
        lengths: &[usize],
        least: u64,
        seed: u64,
        cancel: &Cancel,
    ) -> Result<Self> {
        let random = Random::new(seed, Stream::Judge);
        let first = lengths.first().copied().unwrap_or(2);
        let mut text = FreshText::new(grammar, form, random, 0, first);
        let (mut numbers, mut counts) = (WordNumbers::default(), OutcomeCounts::default());
        let mut figures = Figures::default();
        for (rows, &length) in lengths.iter().cycle().enumerate() {
            if figures.records >= least {
                break;
            }
            if rows % 256 == 0 {
                cancel.check()?;
            }
            if rows >= MOST_EMPTY_ROWS && figures.records == 0 {
                return Err(Error::input(format!(
                    "{MOST_EMPTY_ROWS} rows of {length} tokens hold no complete record of the source"
                ))
                .hint("sample longer rows, or leave `grammar` out"));
            }
            let found = form.records(&text.row(length)?, Some(grammar))?;
            counts.push(found.texts.iter().map(String::as_str), &mut numbers);
            figures.push(&found);
        }
        let source = SourceCounts::from(&counts);
        let sets = (1..=FRESH_SETS)
            .into_par_iter()
            .map(|set| {
                cancel.check()?;
                let mut text = FreshText::new(grammar, form, random, set, first);
                let (mut numbers, mut counts) = (numbers.clone(), OutcomeCounts::default());
                for &length in lengths {
                    let found = form.records(&text.row(length)?, None)?;
                    counts.push(found.texts.iter().map(String::as_str), &mut numbers);
                }
                Ok(OUTCOMES.map(|outcome| source.divergence_alone(&counts, outcome)))
            })
            .collect::<Result<Vec<_>>>()?;
        let fresh = [0, 1, 2].map(|outcome| {
            let values: Option<Vec<f64>> = sets.iter().map(|set| set[outcome]).collect();
            let values = values?;
            Some(Interval {
                value: values.iter().sum::<f64>() / values.len() as f64,
                low: values.iter().copied().reduce(f64::min),
                high: values.iter().copied().reduce(f64::max),
            })
        });
        let entropy = grammar.entropy();
        Ok(Self {
            numbers,
            counts: source,
            fresh,
            measures: SourceMeasures {
                entropy_nats_per_record: entropy.nats_per_record,
                entropy_bits_per_byte: entropy.bits_per_byte(),
                records: figures.records,
                share: proportion(&figures.shares).map(|share| share.value),
                nats_per_record: ratio(&figures.nats),
            },
        })
    }

    /// Measures the records of samples.
    ///
    /// # Errors
    /// The model's tokenizer cannot decode them.
    pub fn measure(
        &self,
        grammar: &Grammar,
        form: RowForm<'_>,
        rows: &[Vec<u32>],
        seed: u64,
    ) -> Result<GrammarMeasures> {
        let found = rows
            .par_iter()
            .map(|row| form.records(row, Some(grammar)))
            .collect::<Result<Vec<_>>>()?;
        let (mut figures, mut counts) = (Figures::default(), OutcomeCounts::default());
        let (mut numbers, mut distinct) = (self.numbers.clone(), BTreeSet::new());
        for row in &found {
            figures.push(row);
            counts.push(row.texts.iter().map(String::as_str), &mut numbers);
            distinct.extend(row.logs.iter().map(|&(record, _)| row.texts[record].as_str()));
        }
        let random = Random::new(seed, Stream::Judge);
        let [unigrams, bigrams, lengths] = [0, 1, 2].map(|place| {
            Some(Divergence {
                samples: self.counts.divergence(&counts, OUTCOMES[place], random)?,
                fresh: self.fresh[place]?,
            })
        });
        Ok(GrammarMeasures {
            records: figures.records,
            malformed: figures.malformed,
            grammatical: figures.shares.iter().map(|row| row.0).sum(),
            distinct: distinct.len() as u64,
            share: proportion(&figures.shares),
            nats_per_record: ratio(&figures.nats),
            bits_per_byte: ratio(&figures.bits),
            unigrams,
            bigrams,
            lengths,
            source: self.measures,
        })
    }
}

/// Sums over the records of each row.
#[derive(Default)]
struct Figures {
    records: u64,
    malformed: u64,
    /// Grammatical records, and all.
    shares: Vec<(u64, u64)>,
    /// −log p of the grammatical records, and their number.
    nats: Vec<(f64, f64)>,
    /// The same in bits, and their bytes.
    bits: Vec<(f64, f64)>,
}

impl Figures {
    fn push(&mut self, row: &RowRecords) {
        self.records += row.complete;
        self.malformed += row.complete - row.texts.len() as u64;
        self.shares.push((row.logs.len() as u64, row.complete));
        let nats: f64 = row.logs.iter().map(|(_, log)| -log).sum();
        let bytes: usize = row
            .logs
            .iter()
            .map(|&(record, _)| row.texts[record].len() + 1)
            .sum();
        self.nats.push((nats, row.logs.len() as f64));
        self.bits.push((nats / std::f64::consts::LN_2, bytes as f64));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Records of one to four words of one letter.
    const SMALL: &str = "\
class letter: form
  a, b, c, d
rule record =
  3: {letter}
  2: {letter} {letter}
  1: {letter} {letter} {letter} {letter}
";

    fn grammar() -> Grammar {
        Grammar::parse(SMALL, "g").unwrap()
    }

    fn tokenizer() -> Tokenizer {
        Tokenizer::characters(" abcdef").unwrap()
    }

    fn form(tokenizer: &Tokenizer, wrap: bool) -> RowForm<'_> {
        RowForm {
            tokenizer,
            special: tokenizer.special(),
            wrap,
        }
    }

    /// Rows as a perfect sampler would draw them, from text that no measure uses.
    fn perfect(grammar: &Grammar, form: RowForm<'_>, rows: usize, length: usize) -> Vec<Vec<u32>> {
        let random = Random::new(77, Stream::Synthetic);
        let mut text = FreshText::new(grammar, form, random, 0, length);
        (0..rows).map(|_| text.row(length).unwrap()).collect()
    }

    #[test]
    fn grammar_measures_of_a_perfect_sampler_are_those_of_fresh_text() {
        let (grammar, tokenizer) = (grammar(), tokenizer());
        for wrap in [false, true] {
            let form = form(&tokenizer, wrap);
            let rows = perfect(&grammar, form, 400, 20);
            let fresh = FreshSource::new(&grammar, form, &[20; 400], 5_000, 1, &Cancel::default()).unwrap();
            let found = fresh.measure(&grammar, form, &rows, 1).unwrap();
            assert_eq!(found.share.unwrap().value, 1.0);
            assert_eq!(found.source.share, Some(1.0));
            assert_eq!((found.malformed, found.grammatical), (0, found.records));
            assert!(found.source.records >= 5_000);
            for divergence in [found.unigrams, found.bigrams, found.lengths] {
                let Divergence { samples, fresh } = divergence.unwrap();
                // The mean of the sets is a perfect sampler's expectation. A divergence of as few outcomes as the lengths have
                // is about χ² with two degrees of freedom: eight times the mean has a probability of e⁻⁸.
                assert!(samples.value < 8.0 * fresh.value, "{samples:?} {fresh:?}");
                assert!(fresh.low.unwrap() <= fresh.value && fresh.value <= fresh.high.unwrap());
            }
            let nats = found.nats_per_record.unwrap();
            let (low, high) = found.source.nats_per_record.unwrap().ends().unwrap();
            assert!(
                nats.low.unwrap() < high && low < nats.high.unwrap(),
                "{nats:?} {low} {high}"
            );
            if !wrap {
                // Rows that cut nothing: the mean of −log p converges to the exact entropy.
                let entropy = found.source.entropy_nats_per_record;
                assert!(
                    low - 0.02 < entropy && entropy < high + 0.02,
                    "{low} {entropy} {high}"
                );
            }
        }
    }

    #[test]
    fn grammar_measures_of_another_source_show_the_difference() {
        let (grammar, tokenizer) = (grammar(), tokenizer());
        let form = form(&tokenizer, false);
        let other = SMALL.replace("a, b, c, d", "a, b, e, f").replace("3:", "9:");
        let other = Grammar::parse(&other, "g").unwrap();
        let rows = perfect(&other, form, 300, 20);
        let fresh = FreshSource::new(&grammar, form, &[20; 300], 5_000, 1, &Cancel::default()).unwrap();
        let found = fresh.measure(&grammar, form, &rows, 1).unwrap();
        // A record of one word is grammatical with probability ½, one of two with ¼, one of four with 1/16.
        let expected = (9.0 / 2.0 + 2.0 / 4.0 + 1.0 / 16.0) / 12.0;
        let (low, high) = found.share.unwrap().ends().unwrap();
        assert!(low < expected && expected < high, "{low} {expected} {high}");
        for divergence in [found.unigrams, found.bigrams, found.lengths] {
            let Divergence { samples, fresh } = divergence.unwrap();
            assert!(
                samples.low.unwrap() > fresh.high.unwrap(),
                "{samples:?} {fresh:?}"
            );
        }
    }

    #[test]
    fn grammar_measures_count_malformed_records_and_distinct_ones() {
        let (grammar, tokenizer) = (grammar(), tokenizer());
        let form = form(&tokenizer, false);
        let SpecialIds { bos, eos, pad, mask } = form.special;
        let mut a = Vec::new();
        tokenizer.encode("a", &mut a).unwrap();
        let a = a[0];
        let rows = [
            vec![bos, a, eos, pad, pad],
            vec![bos, a, eos, pad, pad],
            vec![bos, mask, eos, pad, pad],
            vec![bos, a, a, eos, pad],
            vec![],
        ];
        let fresh = FreshSource::new(&grammar, form, &[20; 5], 100, 1, &Cancel::default()).unwrap();
        let found = fresh.measure(&grammar, form, &rows, 1).unwrap();
        assert_eq!(
            (found.records, found.malformed, found.grammatical, found.distinct),
            (4, 1, 2, 1)
        );
        // p(`a`) = 3 / 6 · 1 / 4; a record and its separator are two bytes.
        assert!((found.nats_per_record.unwrap().value - 8f64.ln()).abs() < 1e-12);
        assert!((found.bits_per_byte.unwrap().value - 1.5).abs() < 1e-12);
    }
}
