//! Which records stay, and as what: range, detokenizers, filter, sample, limit.

use std::borrow::Cow;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

use rayon::prelude::*;
use regex::Regex;

use crate::data::detokenize::detokenize_by_all;
use crate::data::records::Texts;
use crate::data::word_count::words_in;
use crate::error::{Error, Result};
use crate::manifest::detokenize::Detokenization;
use crate::manifest::reading::{EmptyRecords, Range, RangeUnit};
use crate::manifest::source::{Filter, Source};
use crate::rng::Random;

/// What was left out, by reason. What comes after the last record that can stay is not read to its end, and not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct LeftOut {
    /// Before the range.
    pub range: u64,
    /// Without text, as cut or after detokenizing.
    pub empty: u64,
    /// Too short or too long.
    pub length: u64,
    /// By a regular expression.
    pub expression: u64,
    /// Equal to one before.
    pub duplicate: u64,
    /// Not drawn.
    pub sample: u64,
}

/// A record that stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Selected<'a> {
    /// Its text.
    pub text: Cow<'a, str>,
    /// Its words before it was detokenized, where they are counted.
    pub words: Option<u32>,
}

/// Applies a source's settings to its records, batch by batch.
pub struct Selection {
    window: Option<Window>,
    transform: Transform,
    /// Hashes of the texts so far, where each is to stay once.
    seen: Option<HashSet<u128, BuildHasherDefault<Folded>>>,
    sample: Option<Sample>,
    /// Records that may still stay.
    room: u64,
    left_out: LeftOut,
}

impl Selection {
    /// The selection of a source: with the detokenizers and the range that hold (a named corpus brings its own), and the
    /// random numbers of `sample`.
    ///
    /// # Errors
    /// A regular expression is malformed, or takes too much memory.
    pub fn new(
        source: &Source,
        detokenize: &[Detokenization],
        range: Option<&Range>,
        random: Random,
    ) -> Result<Self> {
        let default = Filter::default();
        let filter = source.filter.as_ref().unwrap_or(&default);
        Ok(Self {
            window: range.map(Window::new),
            transform: Transform {
                detokenize: detokenize.to_vec(),
                min_bytes: filter.min_bytes.unwrap_or(0),
                max_bytes: filter.max_bytes.unwrap_or(u64::MAX),
                matches: expression("matches", filter.matches.as_deref())?,
                excludes: expression("excludes", filter.excludes.as_deref())?,
                hash: filter.unique,
                keeps_empty: source.empty() == EmptyRecords::Keep,
                words: source.count_words,
            },
            seen: filter.unique.then(HashSet::default),
            sample: source.sample.map(|share| Sample {
                share,
                random,
                number: 0,
            }),
            room: source.limit.unwrap_or(u64::MAX),
            left_out: LeftOut::default(),
        })
    }

    /// The records that stay of the next ones, in order. The work on each record is done on all threads; how records are
    /// cut into batches does not show.
    ///
    /// # Errors
    /// None now; the signature allows for filters that can fail.
    pub fn apply<'a>(&mut self, records: &'a Texts) -> Result<Vec<Selected<'a>>> {
        if self.room == 0 {
            return Ok(vec![]);
        }
        let records: Vec<&str> = match &mut self.window {
            Some(window) => window.cut(records, &mut self.left_out),
            None => records.iter().collect(),
        };
        let transform = &self.transform;
        let transformed: Vec<Transformed> = records
            .into_par_iter()
            .map(|text| transform.apply(text))
            .collect();
        let mut kept = Vec::with_capacity(transformed.len());
        // What depends on the records before comes one by one.
        for record in transformed {
            let (selected, hash) = match record {
                Transformed::Text(selected, hash) => (selected, hash),
                Transformed::Empty => {
                    self.left_out.empty += 1;
                    continue;
                }
                Transformed::Length => {
                    self.left_out.length += 1;
                    continue;
                }
                Transformed::Expression => {
                    self.left_out.expression += 1;
                    continue;
                }
            };
            if self.seen.as_mut().is_some_and(|seen| !seen.insert(hash)) {
                self.left_out.duplicate += 1;
                continue;
            }
            if self.sample.as_mut().is_some_and(|sample| !sample.draw()) {
                self.left_out.sample += 1;
                continue;
            }
            kept.push(selected);
            self.room -= 1;
            if self.room == 0 {
                break;
            }
        }
        Ok(kept)
    }

    /// Whether no further record can stay: the limit or the range's end is reached.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.room == 0 || self.window.as_ref().is_some_and(Window::is_past)
    }

    /// What was left out so far.
    #[must_use]
    pub fn left_out(&self) -> LeftOut {
        self.left_out
    }
}

fn expression(field: &str, pattern: Option<&str>) -> Result<Option<Regex>> {
    let Some(pattern) = pattern else {
        return Ok(None);
    };
    match Regex::new(pattern) {
        Ok(regex) => Ok(Some(regex)),
        Err(error) => {
            // The crate shows the expression over several lines; the last one says what is wrong.
            let text = error.to_string();
            let last = text.lines().last().unwrap_or_default().trim();
            let reason = last.strip_prefix("error: ").unwrap_or(last);
            Err(Error::input(format!(
                "the regular expression `{pattern}` of `filter/{field}`: {reason}"
            ))
            .hint("the syntax is that of the Rust crate `regex`; in JSON a backslash is written twice"))
        }
    }
}

/// The range, and how far it is.
struct Window {
    unit: RangeUnit,
    from: u64,
    to: u64,
    /// Units before the next record.
    position: u64,
}

impl Window {
    fn new(range: &Range) -> Self {
        Self {
            unit: range.unit,
            from: range.from,
            to: range.to.unwrap_or(u64::MAX),
            position: 0,
        }
    }

    fn is_past(&self) -> bool {
        self.position >= self.to || self.from >= self.to
    }

    /// What of the next records lies within.
    fn cut<'a>(&mut self, records: &'a Texts, left_out: &mut LeftOut) -> Vec<&'a str> {
        let lengths: Vec<u64> = match self.unit {
            RangeUnit::Records => vec![1; records.len()],
            RangeUnit::Characters => (0..records.len())
                .into_par_iter()
                .map(|index| records.get(index).chars().count() as u64)
                .collect(),
        };
        let mut within = Vec::with_capacity(records.len());
        for (text, length) in records.iter().zip(lengths) {
            if self.is_past() {
                break;
            }
            let start = self.position;
            self.position = start.saturating_add(length);
            // Of no character, a record lies where it stands.
            if self.position < self.from || (self.position == self.from && length > 0) {
                left_out.range += 1;
                continue;
            }
            let from = self.from.saturating_sub(start);
            let to = self.to.saturating_sub(start).min(length);
            within.push(if from == 0 && to == length {
                text
            } else {
                characters(text, from as usize, to as usize)
            });
        }
        within
    }
}

/// The characters of a text from one number to another, both at most its own.
fn characters(text: &str, from: usize, to: usize) -> &str {
    let byte_of = |text: &str, number: usize| {
        text.char_indices()
            .nth(number)
            .map_or(text.len(), |(byte, _)| byte)
    };
    let rest = &text[byte_of(text, from)..];
    &rest[..byte_of(rest, to - from)]
}

/// What is done to each record by itself.
struct Transform {
    detokenize: Vec<Detokenization>,
    min_bytes: u64,
    max_bytes: u64,
    matches: Option<Regex>,
    excludes: Option<Regex>,
    /// Whether to hash the text.
    hash: bool,
    /// Whether records without text stay.
    keeps_empty: bool,
    /// Whether to count words.
    words: bool,
}

enum Transformed<'a> {
    /// The text, and its hash where asked for.
    Text(Selected<'a>, u128),
    Empty,
    Length,
    Expression,
}

impl Transform {
    fn apply<'a>(&self, text: &'a str) -> Transformed<'a> {
        // A record is shorter than 2^32 bytes.
        let words = self.words.then(|| words_in(text) as u32);
        let text = detokenize_by_all(&self.detokenize, text);
        if !self.keeps_empty && text.trim_start().is_empty() {
            return Transformed::Empty;
        }
        let bytes = text.len() as u64;
        if bytes < self.min_bytes || bytes > self.max_bytes {
            return Transformed::Length;
        }
        if self.matches.as_ref().is_some_and(|regex| !regex.is_match(&text))
            || self.excludes.as_ref().is_some_and(|regex| regex.is_match(&text))
        {
            return Transformed::Expression;
        }
        let hash = if self.hash { hash(&text) } else { 0 };
        Transformed::Text(Selected { text, words }, hash)
    }
}

/// The first 128 bits of the text's BLAKE3: of a billion texts two are taken for equal with a chance of 2^-69.
fn hash(text: &str) -> u128 {
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&blake3::hash(text.as_bytes()).as_bytes()[..16]);
    u128::from_le_bytes(bytes)
}

/// Takes a hash for its own hash: BLAKE3's bits need no further mixing.
#[derive(Default)]
struct Folded(u64);

impl Hasher for Folded {
    fn write(&mut self, bytes: &[u8]) {
        for (index, &byte) in bytes.iter().enumerate() {
            self.0 ^= u64::from(byte) << (8 * (index % 8));
        }
    }

    fn write_u128(&mut self, value: u128) {
        self.0 ^= value as u64;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// A share of the records, drawn.
struct Sample {
    share: f64,
    random: Random,
    /// Records drawn for so far.
    number: u64,
}

impl Sample {
    /// Whether the next record stays: a function of the seed and of its number among those that come this far.
    fn draw(&mut self) -> bool {
        let number = self.number;
        self.number += 1;
        self.random.uniform(0, number, 0) < self.share
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::detokenize::Detokenizer;
    use crate::manifest::reading::Reading;
    use crate::manifest::source::{LocalFiles, SourceInput};
    use crate::rng::Stream;
    use proptest::prelude::*;

    fn source() -> Source {
        Source {
            input: SourceInput::Files(LocalFiles {
                files: vec!["x".to_owned()],
                exclude: vec![],
                read: Reading::default(),
            }),
            range: None,
            detokenize: None,
            empty_records: None,
            filter: None,
            sample: None,
            limit: None,
            count_words: false,
            seed: None,
        }
    }

    fn range(unit: RangeUnit, from: u64, to: Option<u64>) -> Range {
        Range { unit, from, to }
    }

    fn selection(source: &Source) -> Selection {
        Selection::new(
            source,
            source.detokenize.as_deref().unwrap_or_default(),
            source.range.as_ref(),
            Random::new(7, Stream::Split),
        )
        .unwrap()
    }

    /// What stays of records that come in batches of a size.
    fn select(source: &Source, records: &[&str], batch: usize) -> (Vec<String>, LeftOut, bool) {
        let mut selection = selection(source);
        let mut kept = Vec::new();
        for batch in records.chunks(batch) {
            // As a reader does: it stops when it may.
            if selection.is_full() {
                break;
            }
            let batch: Texts = batch.iter().copied().collect();
            let selected = selection.apply(&batch).unwrap().into_iter();
            kept.extend(selected.map(|record| record.text.into_owned()));
        }
        (kept, selection.left_out(), selection.is_full())
    }

    #[test]
    fn no_settings_keep_every_record() {
        let records = ["a", "b b", "a"];
        let (kept, left_out, full) = select(&source(), &records, 2);
        assert_eq!(kept, records);
        assert_eq!((left_out, full), (LeftOut::default(), false));
    }

    #[test]
    fn range_of_records_keeps_those_inside() {
        let mut source = source();
        source.range = Some(range(RangeUnit::Records, 1, Some(3)));
        let (kept, left_out, full) = select(&source, &["a", "b", "c", "d"], 4);
        assert_eq!(kept, ["b", "c"]);
        assert_eq!((left_out.range, full), (1, true));
        source.range = Some(range(RangeUnit::Records, 2, None));
        let (kept, _, full) = select(&source, &["a", "b", "c", "d"], 1);
        assert_eq!((kept, full), (vec!["c".to_owned(), "d".to_owned()], false));
        source.range = Some(range(RangeUnit::Records, 3, Some(3)));
        let (kept, _, full) = select(&source, &["a", "b", "c", "d"], 1);
        assert_eq!((kept, full), (vec![], true));
    }

    #[test]
    fn range_of_characters_cuts_the_first_and_the_last_record() {
        let records = ["añb", "cdé", "fgh", "ijk"];
        let cut = |from, to| {
            let mut source = source();
            source.range = Some(range(RangeUnit::Characters, from, to));
            select(&source, &records, 3)
        };
        assert_eq!(cut(1, Some(8)).0, ["ñb", "cdé", "fg"]);
        assert_eq!(cut(4, Some(5)).0, ["d"]);
        assert_eq!(cut(3, Some(6)).0, ["cdé"]);
        assert_eq!(cut(3, Some(6)).1.range, 1);
        assert!(cut(3, Some(6)).2);
        assert_eq!(cut(5, None).0, ["é", "fgh", "ijk"]);
        assert_eq!(cut(12, None).0, Vec::<String>::new());
        assert_eq!(cut(0, Some(1)).0, ["a"]);
        assert_eq!(cut(u64::MAX - 1, Some(u64::MAX)).0, Vec::<String>::new());
    }

    #[test]
    fn ranges_that_meet_make_the_whole_text() {
        let text = "eins zwei dräi vier";
        let part = |from, to| {
            let mut source = source();
            source.range = Some(range(RangeUnit::Characters, from, to));
            select(&source, &[text], 1).0.concat()
        };
        assert_eq!(part(0, Some(9)) + &part(9, Some(12)) + &part(12, None), text);
    }

    #[test]
    fn filters_see_detokenized_text_and_count_by_reason() {
        let mut source = source();
        source.detokenize = Some(vec![Detokenizer::Lm1b.into()]);
        source.filter = Some(Filter {
            min_bytes: Some(2),
            max_bytes: Some(9),
            matches: Some("[a-z],|!$".to_owned()),
            excludes: Some("secret".to_owned()),
            unique: true,
        });
        let records = [
            "a , b",
            "   ",
            "x",
            "much too long , it is",
            "no comma",
            "secret!",
            "a, b",
            "hey !",
        ];
        let (kept, left_out, _) = select(&source, &records, 3);
        assert_eq!(kept, ["a, b", "hey!"]);
        assert_eq!(
            left_out,
            LeftOut {
                range: 0,
                empty: 1,
                length: 2,
                expression: 2,
                duplicate: 1,
                sample: 0
            }
        );
    }

    #[test]
    fn empty_records_stay_where_the_source_keeps_them() {
        let mut source = source();
        source.empty_records = Some(EmptyRecords::Keep);
        let all = ["", "ab", " ", "", "cd"];
        assert_eq!(select(&source, &all, 2).0, all);
        // They count as records of a range, and have no character of one.
        for (unit, from, to, kept) in [
            (RangeUnit::Records, 1, 4, &["ab", " ", ""][..]),
            (RangeUnit::Characters, 0, 3, &["", "ab", " "]),
            (RangeUnit::Characters, 3, 5, &["", "cd"]),
        ] {
            source.range = Some(Range {
                unit,
                from,
                to: Some(to),
            });
            assert_eq!(select(&source, &all, 2).0, kept, "{from} to {to}");
        }
    }

    #[test]
    fn words_are_those_before_detokenization() {
        let mut source = source();
        source.detokenize = Some(vec![Detokenizer::Ptb.into()]);
        let records: Texts = ["it did n't <unk> ,", "two words"].into_iter().collect();
        let words = |source: &Source| -> Vec<Option<u32>> {
            let kept = selection(source).apply(&records).unwrap();
            assert_ne!(kept[0].text.split(' ').count(), 5, "{:?}", kept[0].text);
            kept.iter().map(|record| record.words).collect()
        };
        assert_eq!(words(&source), [None, None]);
        source.count_words = true;
        assert_eq!(words(&source), [Some(5), Some(2)]);
    }

    #[test]
    fn filter_with_a_malformed_expression_is_refused() {
        let mut source = source();
        source.filter = Some(Filter {
            excludes: Some("a(b".to_owned()),
            ..Filter::default()
        });
        let error = Selection::new(&source, &[], None, Random::new(0, Stream::Split))
            .err()
            .unwrap();
        assert_eq!(
            error.to_string(),
            "the regular expression `a(b` of `filter/excludes`: unclosed group"
        );
        assert!(error.hint_text().unwrap().contains("`regex`"));
    }

    #[test]
    fn sample_is_a_fraction_that_differs_by_seed() {
        let texts: Vec<String> = (0..4000).map(|number| format!("record {number}")).collect();
        let records: Vec<&str> = texts.iter().map(String::as_str).collect();
        let mut source = source();
        source.sample = Some(0.25);
        let (kept, left_out, _) = select(&source, &records, 999);
        // 4000 draws with a quarter each: six standard deviations are 164.
        assert!(kept.len().abs_diff(1000) < 164, "{}", kept.len());
        assert_eq!(kept.len() as u64 + left_out.sample, 4000);
        let mut other = Selection::new(&source, &[], None, Random::new(8, Stream::Split)).unwrap();
        let texts: Texts = records.iter().copied().collect();
        let others = other.apply(&texts).unwrap().into_iter();
        assert_ne!(
            others.map(|record| record.text.into_owned()).collect::<Vec<_>>(),
            kept
        );
        source.sample = Some(1.0);
        assert_eq!(select(&source, &records, 999).0.len(), 4000);
    }

    #[test]
    fn limit_ends_reading_and_counting() {
        let mut source = source();
        source.limit = Some(2);
        source.filter = Some(Filter {
            min_bytes: Some(2),
            ..Filter::default()
        });
        let (kept, left_out, full) = select(&source, &["a", "bb", "cc", "d", "ee"], 5);
        assert_eq!(kept, ["bb", "cc"]);
        assert_eq!((left_out.length, full), (1, true));
    }

    #[test]
    fn unique_hashes_differ_for_different_texts() {
        assert_eq!(hash("a"), hash("a"));
        assert_ne!(hash("a"), hash("b"));
        let mut seen: HashSet<u128, BuildHasherDefault<Folded>> = HashSet::default();
        // Equal in what `Folded` looks at, different still.
        assert!(seen.insert(1));
        assert!(seen.insert(1 | 1 << 90));
        assert!(!seen.insert(1));
    }

    fn any_source() -> impl Strategy<Value = Source> {
        (
            prop::option::of((any::<bool>(), 0u64..12, prop::option::of(0u64..30))),
            any::<bool>(),
            prop::option::of((
                prop::option::of(1u64..4),
                prop::option::of(3u64..6),
                any::<bool>(),
                any::<bool>(),
            )),
            prop::option::of(0.0..1.0),
            prop::option::of(1u64..6),
        )
            .prop_map(|(cut, natural, filter, sample, limit)| Source {
                empty_records: None,
                range: cut.map(|(records, from, to)| {
                    let unit = if records {
                        RangeUnit::Records
                    } else {
                        RangeUnit::Characters
                    };
                    range(unit, from, to)
                }),
                detokenize: natural.then(|| vec![Detokenizer::Wikitext.into()]),
                filter: filter.map(|(min_bytes, max_bytes, matches, unique)| Filter {
                    min_bytes,
                    max_bytes,
                    matches: matches.then(|| "[ab]".to_owned()),
                    excludes: None,
                    unique,
                }),
                sample,
                limit,
                ..source()
            })
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn batches_and_threads_do_not_change_the_selection(
            source in any_source(),
            texts in prop::collection::vec("[abé ,]{0,5}", 0..24),
            batch in 1usize..9,
        ) {
            let records: Vec<&str> = texts.iter().map(String::as_str).collect();
            let whole = select(&source, &records, records.len().max(1));
            prop_assert_eq!(&select(&source, &records, batch), &whole);
            let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
            prop_assert_eq!(&one.install(|| select(&source, &records, batch)), &whole);
        }
    }
}
