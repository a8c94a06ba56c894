use serde_json::json;

use super::*;
use crate::manifest::StageKind;

mod objectives;

/// The files of one table.
pub(super) mod one {
    use super::*;

    pub fn markdown(found: &Comparison) -> String {
        table::markdown(std::slice::from_ref(found))
    }

    pub fn csv(found: &Comparison) -> String {
        table::csv(std::slice::from_ref(found))
    }

    pub fn parse(text: &str) -> serde_json::Result<Comparison> {
        Ok(table::parse(text)?.remove(0))
    }
}

use one::{csv, markdown, parse};

pub(super) fn row(name: Option<&str>, point: &Value, bits: Option<(f64, f64)>) -> Row {
    Row {
        name: name.map(str::to_owned),
        point: point
            .as_object()
            .unwrap()
            .iter()
            .map(|(label, value)| (label.clone(), value.clone()))
            .collect(),
        metrics: bits
            .map(|(value, half)| {
                let interval = Interval {
                    value,
                    low: Some(value - half),
                    high: Some(value + half),
                };
                (Metric::BitsPerByte, interval)
            })
            .into_iter()
            .collect(),
        model: Some(Digest::of(b"model")),
        ..Row::default()
    }
}

#[test]
fn tables_are_in_order_with_columns_of_what_differs() {
    let rows = vec![
        row(
            None,
            &json!({ "rate": 0.1, "note": "a,b|c", "seed": 1 }),
            Some((2.0, 0.5)),
        ),
        row(None, &json!({ "rate": 0.2, "note": null, "seed": 1 }), None),
        row(
            None,
            &json!({ "rate": 0.3, "note": { "kind": "x" }, "seed": 1 }),
            Some((1.25, 0.125)),
        ),
    ];
    let found = Comparison::of(rows, None);
    assert_eq!(found.by, Some(Metric::BitsPerByte));
    insta::assert_snapshot!(markdown(&found), @r"
    # 3 results

    Lowest bits_per_byte first.

    The same in all: seed 1.

    | rate | note | bits_per_byte |
    |---|---|---|
    | 0.3 | x | 1.2500 ± 0.1250 |
    | 0.1 | a,b\|c | 2.0000 ± 0.5000 |
    | 0.2 | default |  |

    Best by bits_per_byte: rate 0.3, note x, clearly different from all others; results differ clearly where their 95% intervals do not overlap.

    Intervals are at 95%, each for its result only: they cover the choice of rows and noise in the measurement (the seed of evaluate or sample), not another seed of training.
    ");
    insta::assert_snapshot!(csv(&found).replace('\r', ""), @r#"
    rate,note,seed,bits_per_byte,bits_per_byte_low,bits_per_byte_high
    0.3,x,1,1.25,1.125,1.375
    0.1,"a,b|c",1,2,1.5,2.5
    0.2,default,1,,,
    "#);
    let text = serde_json::to_string(&table(&Comparison::of(found.rows[..1].to_vec(), None))).unwrap();
    assert_eq!(
        text,
        format!(
            r#"{{"sorted_by":"bits_per_byte","rows":[{{"point":{{"rate":0.3,"note":{{"kind":"x"}},"seed":1}},"metrics":{{"bits_per_byte":{{"value":1.25,"low":1.125,"high":1.375}}}},"model":"{}"}}]}}"#,
            Digest::of(b"model")
        )
    );
}

/// A row of a setting, drawn by a seed of the training.
fn seeded(setting: usize, seed: u64, bits: f64) -> Row {
    let mut row = row(None, &json!({ "rate": setting }), Some((bits, 0.125)));
    let seed = Seed {
        label: "seed".to_owned(),
        kinds: vec![StageKind::Train],
        value: seed,
    };
    row.place(setting, vec![seed]);
    row.model = None;
    row
}

#[test]
fn seeds_have_a_mean_and_no_rank() {
    // The best of all is a seed of the setting that is worse.
    let mut rows = vec![
        seeded(1, 1, 2.5),
        seeded(1, 2, 1.0),
        seeded(1, 3, 4.0),
        seeded(2, 1, 1.5),
        seeded(2, 2, 1.25),
    ];
    for row in &mut rows {
        row.unit = Some(Unit::Position);
        row.metrics
            .push((Metric::Perplexity, row.metrics[0].1.map(f64::exp)));
    }
    let found = Comparison::of(rows, None);
    insta::assert_snapshot!(markdown(&found));
    insta::assert_snapshot!(csv(&found).replace('\r', ""));
    assert_eq!(
        figure(&found).unwrap(),
        (
            "lowest bits_per_byte".to_owned(),
            "rate 2 (bits_per_byte 1.3750 ± 0.1768, mean ± sd of 2 seeds), not clearly different from rate 1"
                .to_owned()
        )
    );
    let text = serde_json::to_value(table(&found)).unwrap();
    // What is read is what was written.
    assert_eq!(parse(&text.to_string()).unwrap(), found);
    assert_eq!(text["verdict"]["best"], Value::Null);
    assert_eq!(text["verdict"]["not_apart"], json!([1]));
    assert_eq!(text["groups"][0]["point"], json!({ "rate": 2 }));
    assert_eq!(text["groups"][0]["seeds"], json!({ "seed": 2 }));
    assert_eq!(text["groups"][1]["rows"], json!([2, 3, 4]));
    let spread = &text["groups"][1]["metrics"]["bits_per_byte"];
    assert_eq!(
        (&spread["mean"], &spread["sd"], &spread["n"]),
        (&json!(2.5), &json!(1.5), &json!(3))
    );
    assert_eq!(text["rows"][2]["point"]["seed"], 1);
    // Of seeds alone there is no best.
    let found = Comparison::of(found.rows[2..].to_vec(), None);
    assert_eq!(found.verdict, None);
    assert_eq!(
        figure(&found).unwrap(),
        (
            "mean".to_owned(),
            "bits_per_byte 2.5000 ± 1.5000, mean ± sd of 3 seeds".to_owned()
        )
    );
}

#[test]
fn one_seed_has_no_plus_minus() {
    let found = Comparison::of(
        vec![seeded(1, 1, 1.0), seeded(2, 1, 2.0), seeded(2, 2, 2.5)],
        None,
    );
    let (name, value) = figure(&found).unwrap();
    assert_eq!(name, "lowest bits_per_byte");
    assert_eq!(
        value,
        "rate 1 (bits_per_byte 1.0000, 1 seed); the effect of another seed of training is not covered"
    );
    let text = markdown(&found);
    assert!(text.contains("| 1 | 1 | 1.0000 |\n"), "{text}");
    assert!(
        text.starts_with("# 3 results\n\n2 settings, 1 to 2 seeds each: "),
        "{text}"
    );
    assert!(
        text.contains(
            "No best by bits_per_byte: rate 1 comes first, clearly different from the others in the evaluation alone; "
        ),
        "{text}"
    );
}

#[test]
fn intervals_that_lie_apart_make_the_first_best() {
    let rows = vec![
        row(None, &json!({ "rate": 1 }), Some((2.0, 0.25))),
        row(None, &json!({ "rate": 2 }), Some((1.0, 0.25))),
    ];
    let found = Comparison::of(rows, None);
    assert_eq!(found.groups, None);
    assert_eq!(
        figure(&found).unwrap(),
        (
            "best".to_owned(),
            "rate 2 (bits_per_byte 1.0000 ± 0.2500)".to_owned()
        )
    );
    let text = markdown(&found);
    assert!(
        text.contains("\nBest by bits_per_byte: rate 2, clearly different from all others; "),
        "{text}"
    );
}

#[test]
fn units_of_values_are_stated() {
    let with = |unit, published| Row {
        unit: Some(unit),
        published,
        metrics: vec![(
            Metric::Perplexity,
            row(None, &json!({}), Some((1.0, 0.5))).metrics[0].1,
        )],
        ..Row::default()
    };
    let (token, position) = (with(Unit::Token, false), with(Unit::Position, true));
    assert_eq!(remarks(&[&token]), ["perplexity: per token of text"]);
    assert_eq!(
        remarks(&[&token, &position]),
        [
            "perplexity: per token of text in 1 row, per position, padding included in 1; the two are not comparable",
            "the published estimate in 1 of 2 rows: it is lower than the bound and is not a bound, so that it comes \
             last"
        ]
    );
    assert!(remarks(&[&Row::default()]).is_empty());
    let mut rows = [position, token];
    rows[0].metrics[0].1.value = 0.5;
    let rows = Comparison::of(rows.to_vec(), None).rows;
    assert!(!rows[0].published, "the lower number is no bound");
}

/// Rows of two tokenizers, with a metric.
fn of_tokenizers(by: Metric) -> Vec<Row> {
    [("plain", 2.0), ("every letter an x", 0.5)]
        .into_iter()
        .map(|(name, value)| {
            let mut row = row(Some(name), &json!({}), Some((value, 0.125)));
            row.metrics[0].0 = by;
            row.unit = Some(Unit::Token);
            row.tokenizer = Some(Digest::of(name.as_bytes()));
            row
        })
        .collect()
}

#[test]
fn tokenizers_that_differ_are_ranked_by_bits_per_byte_alone() {
    for by in [
        Metric::BitsPerByteNormalized,
        Metric::Perplexity,
        Metric::NatsPerToken,
    ] {
        for asked in [None, Some(by)] {
            let found = Comparison::of(of_tokenizers(by), asked);
            assert_eq!((found.by, &found.verdict), (None, &None));
            assert_eq!(
                found.rows[0].name.as_deref(),
                Some("plain"),
                "in the manifest's order"
            );
            assert_eq!(figure(&found), None);
            let text = markdown(&found);
            assert!(
                text.contains("not ranked, because ") && text.contains(" do not compare"),
                "{text}"
            );
            assert!(
                !text.contains(" first") && !text.to_lowercase().contains("best"),
                "{text}"
            );
            let json = serde_json::to_string(&table(&found)).unwrap();
            assert_eq!(parse(&json).unwrap(), found);
        }
        // One tokenizer ranks.
        let mut rows = of_tokenizers(by);
        rows[1].tokenizer = rows[0].tokenizer;
        let found = Comparison::of(rows, None);
        assert!(found.by == Some(by) && found.verdict.is_some());
    }
    let found = Comparison::of(of_tokenizers(Metric::BitsPerByte), None);
    assert_eq!(found.rows[0].name.as_deref(), Some("every letter an x"));
}

#[test]
fn tokens_and_positions_are_not_ranked_against_each_other() {
    let mut rows = of_tokenizers(Metric::Perplexity);
    rows[1].tokenizer = rows[0].tokenizer;
    rows[1].unit = Some(Unit::Position);
    assert_eq!(Comparison::of(rows, None).by, None);
}

#[test]
fn lost_text_is_remarked() {
    let mut rows = of_tokenizers(Metric::BitsPerByte);
    assert!(remarks(&[&rows[0], &rows[1]]).is_empty());
    rows[0].lost_bits_per_byte = 1.08;
    assert_eq!(
        remarks(&[&rows[0], &rows[1]]),
        [
            "a tokenizer lost text: 54.0% of the bits per byte of plain spell it out; nats_per_token and perplexity \
             leave it out"
        ]
    );
}

#[test]
fn grammatical_records_are_ranked_highest_first() {
    let share = |value| Row {
        name: Some(format!("{value}")),
        point: Point::new(),
        metrics: vec![(
            Metric::Grammatical,
            Interval {
                value,
                low: None,
                high: None,
            },
        )],
        ..Row::default()
    };
    let found = Comparison::of(vec![share(0.25), share(0.75), share(0.5)], None);
    assert_eq!(found.by, Some(Metric::Grammatical));
    let names: Vec<_> = found.rows.iter().filter_map(|row| row.name.as_deref()).collect();
    assert_eq!(names, ["0.75", "0.5", "0.25"]);
    assert_eq!(
        metric::shown(Metric::Grammatical, share(0.5).metrics[0].1),
        "50.0%"
    );
}

/// Results on two texts are in two tables, each with its own order and its own best.
#[test]
fn texts_are_not_ranked_with_each_other() {
    let of = |name: &str, bytes: u64, bits: f64| Row {
        rows: Some(20),
        tokens: Some(640),
        words: (bytes == 300).then_some(90),
        text: Some(ComparedText {
            split: Some([10, bytes]),
            last_words: false,
            rows: None,
        }),
        ..row(Some(name), &json!({}), Some((bits, 0.125)))
    };
    let rows = vec![
        of("hard b", 200, 4.0),
        of("easy b", 300, 2.0),
        of("hard a", 200, 3.0),
        of("easy a", 300, 1.0),
    ];
    let found: Vec<Comparison> = by_text(rows)
        .into_iter()
        .map(|rows| Comparison::of(rows, None))
        .collect();
    insta::assert_snapshot!(table::markdown(&found), @r"
    # 2 results

    On one text: 10 records, 200 bytes.

    Lowest bits_per_byte first.

    | stage | bits_per_byte |
    |---|---|
    | hard a | 3.0000 ± 0.1250 |
    | hard b | 4.0000 ± 0.1250 |

    Best by bits_per_byte: hard a, clearly different from all others; results differ clearly where their 95% intervals do not overlap.

    Intervals are at 95%, each for its result only: they cover the choice of rows and noise in the measurement (the seed of evaluate or sample), not another seed of training.

    # 2 results

    On one text: 10 records, 300 bytes.

    Lowest bits_per_byte first.

    | stage | bits_per_byte |
    |---|---|
    | easy a | 1.0000 ± 0.1250 |
    | easy b | 2.0000 ± 0.1250 |

    Best by bits_per_byte: easy a, clearly different from all others; results differ clearly where their 95% intervals do not overlap.

    Intervals are at 95%, each for its result only: they cover the choice of rows and noise in the measurement (the seed of evaluate or sample), not another seed of training.
    ");
    insta::assert_snapshot!(table::csv(&found).replace('\r', ""), @r"
    text,stage,bits_per_byte,bits_per_byte_low,bits_per_byte_high,rows,tokens,words
    1,hard a,3,2.875,3.125,20,640,
    1,hard b,4,3.875,4.125,20,640,
    2,easy a,1,0.875,1.125,20,640,90
    2,easy b,2,1.875,2.125,20,640,90
    ");
    let folder = tempfile::tempdir().unwrap();
    write_tables(folder.path(), &found).unwrap();
    assert_eq!(Comparison::open(folder.path()).unwrap(), found);
    let json: Value = serde_json::from_str(&fs::read_to_string(folder.path().join(TABLE)).unwrap()).unwrap();
    assert_eq!(json["texts"][1]["verdict"]["best"], 0);
    assert_eq!(json["texts"][1]["rows"][0]["words"], 90);
    // One text has the file that it had.
    write_tables(folder.path(), &found[..1]).unwrap();
    let json: Value = serde_json::from_str(&fs::read_to_string(folder.path().join(TABLE)).unwrap()).unwrap();
    assert_eq!(json["rows"][0]["name"], "hard a");
    assert_eq!(Comparison::open(folder.path()).unwrap(), found[..1]);
}

#[test]
fn words_compare_between_tokenizers_that_keep_the_text() {
    for by in [Metric::PerplexityPerWord, Metric::LastWordPerplexity] {
        let found = Comparison::of(of_tokenizers(by), None);
        assert_eq!(found.by, Some(by));
        let mut rows = of_tokenizers(by);
        rows[1].lost_bits_per_byte = 0.25;
        assert_eq!(Comparison::of(rows, None).by, None);
    }
    let rows = of_tokenizers(Metric::LastWordAccuracy);
    let found = Comparison::of(rows, Some(Metric::LastWordAccuracy));
    assert_eq!(found.rows[0].name.as_deref(), Some("plain"), "more is better");
}
