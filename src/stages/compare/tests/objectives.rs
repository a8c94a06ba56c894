//! Tables of models of several objectives.

use serde_json::json;

use super::super::*;
use super::{csv, markdown, parse, seeded};
use crate::data::SpecialIds;
use crate::manifest::{self, ArObjective, MlmObjective, Split, Weights};
use crate::precision::Precision;
use crate::stages::trained::MODEL_INFO;
use crate::train::Validation;

fn interval(value: f64, half: f64) -> Interval {
    Interval {
        value,
        low: Some(value - half),
        high: Some(value + half),
    }
}

/// An evaluation on joined rows: bits per byte, nats and perplexity, each ± 1/16.
fn evaluation(objective: &str, estimator: Estimator, [bits, nats, perplexity]: [f64; 3]) -> Evaluation {
    Evaluation {
        model: None,
        tokenizer: None,
        split: Split::Validation,
        weights: Weights::Ema,
        objective: objective.to_owned(),
        estimator,
        steps: (objective == "d3pm").then_some(1000),
        rows: 20,
        rows_of_split: 20,
        draws: 1,
        tokens: 640,
        scored_tokens: (estimator == Estimator::Exact).then_some(620),
        bytes_per_token: 2.0,
        bound: BoundEnds::Valid,
        unit: Unit::Token,
        nats_per_token: interval(nats, 0.0625),
        standard_error: Some(0.03),
        monte_carlo_error: None,
        perplexity: interval(perplexity, 0.0625),
        nats_per_token_of_text: None,
        perplexity_per_token_of_text: None,
        bits_per_byte: (estimator != Estimator::Pseudo).then(|| interval(bits, 0.0625)),
        lost_bits_per_byte: 0.0,
        normalized: false,
        entropy_bits_per_byte: None,
        stride: None,
        scored: manifest::Scored::All,
        words: None,
        words_in_proportion: false,
        perplexity_per_word: None,
        last_word: None,
        text: None,
        padding_excluded: false,
    }
}

/// The row that is read of an evaluation.
fn row_of(name: &str, evaluation: &Evaluation) -> Row {
    let folder = tempfile::tempdir().unwrap();
    write_json(&folder.path().join(EVALUATION), evaluation).unwrap();
    Row {
        name: Some(name.to_owned()),
        ..metrics(folder.path()).unwrap()
    }
}

/// By bits per byte AR is best, by the numbers per token MDLM.
const AR: [f64; 3] = [0.75, 1.25, 3.5];
const MDLM_VALUES: [f64; 3] = [1.0, 1.125, 3.0];

fn ar() -> Evaluation {
    evaluation("ar", Estimator::Exact, AR)
}

fn mdlm() -> Evaluation {
    evaluation("mdlm", Estimator::Count, MDLM_VALUES)
}

/// Rows of all objectives, not in the order of any metric.
fn all() -> Vec<Row> {
    [
        ("alone", evaluation("mlm", Estimator::Pseudo, [0.0, 0.75, 2.0])),
        ("bert", evaluation("mlm", Estimator::Count, [2.0, 2.0, 7.5])),
        ("masked", mdlm()),
        ("steps", evaluation("d3pm", Estimator::Time, [1.5, 1.5, 4.5])),
        ("causal", ar()),
        ("scores", evaluation("sedd", Estimator::Time, [1.25, 1.25, 3.5])),
    ]
    .map(|(name, found)| row_of(name, &found))
    .to_vec()
}

fn names(found: &Comparison) -> Vec<&str> {
    found.rows.iter().filter_map(|row| row.name.as_deref()).collect()
}

#[test]
fn bits_per_byte_rank_all_objectives() {
    let found = Comparison::of(all(), None);
    insta::assert_snapshot!(markdown(&found), @r"
    # 6 results

    Lowest bits_per_byte first.

    | stage | objective | bits_per_byte | perplexity | nats_per_token | pseudo_perplexity |
    |---|---|---|---|---|---|
    | causal | ar | 0.7500 ± 0.0625 | 3.500 (3.438–3.562) | 1.2500 ± 0.0625 |  |
    | masked | mdlm | ≤ 1.0000 ± 0.0625 | ≤ 3.000 (2.938–3.062) | ≤ 1.1250 ± 0.0625 |  |
    | scores | sedd | ≤ 1.2500 ± 0.0625 | ≤ 3.500 (3.438–3.562) | ≤ 1.2500 ± 0.0625 |  |
    | steps | d3pm | ≤ 1.5000 ± 0.0625 | ≤ 4.500 (4.438–4.562) | ≤ 1.5000 ± 0.0625 |  |
    | bert | mlm | ≤ 2.0000 ± 0.0625 | ≤ 7.500 (7.438–7.562) | ≤ 2.0000 ± 0.0625 |  |
    | alone | mlm |  |  |  | 2.000 (1.938–2.062) |

    No best by bits_per_byte: causal, objective ar comes first, clearly different from the others in the evaluation alone; results differ clearly where their 95% intervals do not overlap; with one seed of training, the intervals cover the evaluation alone, not the effect of another seed; the first is exact and the others are upper bounds, so that the differences are upper bounds on those of the likelihoods.

    Intervals are at 95%, each for its result only: they cover the choice of rows and noise in the measurement (the seed of evaluate or sample), not another seed of training.

    Note: ≤ marks an upper bound; 1 of 6 rows is exact, without a sign.

    Note: perplexity, nats_per_token and pseudo_perplexity: per token of text in 5 rows, per scored token of text in 1; the two are not comparable: an autoregressive model is given the first token of each row; compare them by bits_per_byte.

    Note: pseudo_perplexity: each token is predicted from all others; it is neither a likelihood nor a bound on one, and is not ranked with them.
    ");
    insta::assert_snapshot!(csv(&Comparison::of(all()[..3].to_vec(), None)).replace('\r', ""), @"
    stage,objective,bits_per_byte,bits_per_byte_low,bits_per_byte_high,perplexity,perplexity_low,perplexity_high,nats_per_token,nats_per_token_low,nats_per_token_high,pseudo_perplexity,pseudo_perplexity_low,pseudo_perplexity_high,unit,quantity,rows,tokens
    masked,mdlm,1,0.9375,1.0625,3,2.9375,3.0625,1.125,1.0625,1.1875,,,,per token of text,bound,20,640
    bert,mlm,2,1.9375,2.0625,7.5,7.4375,7.5625,2,1.9375,2.0625,,,,per token of text,bound,20,640
    alone,mlm,,,,,,,,,,2,1.9375,2.0625,per token of text,pseudo,20,640
    ");
}

#[test]
fn files_of_several_objectives_are_read_as_they_were_written() {
    let found = Comparison::of(all(), None);
    let json = serde_json::to_value(table(&found)).unwrap();
    assert_eq!(parse(&json.to_string()).unwrap(), found);
    let ends = |value: f64| json!({ "value": value, "low": value - 0.0625, "high": value + 0.0625 });
    assert_eq!(
        json["rows"][0],
        json!({
            "name": "causal",
            "point": { "objective": "ar" },
            "metrics": { "bits_per_byte": ends(0.75), "perplexity": ends(3.5), "nats_per_token": ends(1.25) },
            "objective": "ar",
            "quantity": "exact",
            "unit": "per token of text",
            "scored": true,
            "rows": 20,
            "tokens": 620,
        })
    );
    // A row of MDLM has no field about objectives.
    let metrics =
        json!({ "bits_per_byte": ends(1.0), "perplexity": ends(3.0), "nats_per_token": ends(1.125) });
    assert_eq!(
        json["rows"][1],
        json!({
            "name": "masked",
            "point": { "objective": "mdlm" },
            "metrics": metrics,
            "unit": "per token of text",
            "rows": 20,
            "tokens": 640,
        })
    );
    assert_eq!(json["rows"][5]["quantity"], "pseudo");
    assert_eq!(
        json["rows"][5]["metrics"],
        json!({ "pseudo_perplexity": ends(2.0) })
    );
    let verdict = &json["verdict"];
    assert_eq!(
        (&verdict["best"], &verdict["apart_in_evaluation"]),
        (&Value::Null, &json!([1, 2, 3, 4]))
    );
    assert_eq!(verdict["difference_at_most"], json!([1, 2, 3, 4]));
    assert_eq!(verdict["difference_at_least"], Value::Null);
    // What older versions have written is of MDLM.
    let old = r#"{ "sorted_by": "perplexity", "rows": [
        { "point": {}, "metrics": { "perplexity": { "value": 2.0, "low": 1.0, "high": 3.0 } } }
    ] }"#;
    let old = parse(old).unwrap();
    assert_eq!(old.rows[0].trained_for(), Some("mdlm"));
    assert_eq!(
        (
            old.rows[0].quantity,
            old.rows[0].scored,
            old.rows[0].given_lengths
        ),
        (Quantity::Bound, false, false)
    );
}

#[test]
fn numbers_per_scored_token_are_not_ranked_with_those_per_token() {
    for by in [Metric::Perplexity, Metric::NatsPerToken] {
        let found = Comparison::of(all(), Some(by));
        assert_eq!((found.by, &found.verdict), (None, &None));
        assert_eq!(
            names(&found),
            ["alone", "bert", "masked", "steps", "causal", "scores"],
            "in the manifest's order"
        );
        let text = markdown(&found).to_lowercase();
        assert!(!text.contains(" first.") && !text.contains("best"), "{text}");
        // Without AR they rank, and with AR alone.
        let of = |exact: bool| -> Vec<Row> {
            let rows = all().into_iter();
            rows.filter(|row| exact == (row.quantity == Quantity::Exact))
                .collect()
        };
        let bounds = Comparison::of(of(false), Some(by));
        assert_eq!(names(&bounds), ["masked", "scores", "steps", "bert", "alone"]);
        assert_eq!(bounds.by, Some(by));
        assert_eq!(Comparison::of(of(true), Some(by)).by, Some(by));
    }
    // A pseudo-perplexity is the lowest number, and has a column without another row.
    let found = Comparison::of(all(), Some(Metric::PseudoPerplexity));
    assert_eq!(found.verdict, None);
    assert_eq!(names(&found)[0], "alone");
    for row in &found.rows[1..] {
        assert_eq!(row.metric(Metric::PseudoPerplexity), None);
    }
    assert_eq!(found.rows[0].metrics.len(), 1);
}

#[test]
fn bounds_given_lengths_are_not_ranked_with_those_that_predict_them() {
    let excluded = |evaluation: Evaluation| Evaluation {
        padding_excluded: true,
        ..evaluation
    };
    let rows = vec![
        row_of("masked", &excluded(mdlm())),
        row_of("causal", &excluded(ar())),
    ];
    assert_eq!([rows[0].given_lengths, rows[1].given_lengths], [true, false]);
    for by in [None, Some(Metric::BitsPerByte)] {
        let found = Comparison::of(rows.clone(), by);
        assert_eq!((found.by, &found.verdict), (None, &None));
        assert_eq!((names(&found), figure(&found)), (vec!["masked", "causal"], None));
        let text = markdown(&found);
        assert!(
            text.contains(
                "Note: bits_per_byte, perplexity and nats_per_token: not ranked, because 1 of 2 rows is given the \
                 lengths of the records by the padding, which is excluded, and the other is not; pack the rows with \
                 `\"padding\": \"counted\"` to compare them."
            ),
            "{text}"
        );
        assert!(
            text.contains("of each row.") && !text.contains("compare them by bits_per_byte"),
            "bits per byte do not compare either: {text}"
        );
        assert!(!text.contains(" first.") && !text.contains("est by "), "{text}");
        let json = serde_json::to_value(table(&found)).unwrap();
        assert_eq!(json["rows"][0]["given_lengths"], true);
        assert_eq!(json["rows"][1]["given_lengths"], Value::Null);
        assert_eq!(parse(&json.to_string()).unwrap(), found);
        let csv = csv(&found);
        let given: Vec<_> = csv.lines().map(|line| line.rsplit(',').nth(2).unwrap()).collect();
        assert_eq!(given, ["given_lengths", "true", "false"]);
    }
    // Counted padding is predicted by both.
    let counted = |evaluation: Evaluation| Evaluation {
        unit: Unit::Position,
        ..evaluation
    };
    let rows = vec![
        row_of("masked", &counted(mdlm())),
        row_of("causal", &counted(ar())),
    ];
    let found = Comparison::of(rows, None);
    assert_eq!(found.by, Some(Metric::BitsPerByte));
    assert_eq!(names(&found), ["causal", "masked"]);
    let text = markdown(&found);
    assert!(!text.contains("not ranked"), "{text}");
    assert!(
        text.contains(
            "per position, padding included in 1 row, per scored position, padding included in 1; the two are not \
             comparable"
        ),
        "{text}"
    );
    // The same holds of one objective: one padding counted, one excluded.
    let rows = vec![
        row_of("excluded", &excluded(mdlm())),
        row_of("counted", &counted(mdlm())),
    ];
    assert_eq!(Comparison::of(rows, None).by, None);
    // All given: they rank as before.
    let rows = vec![row_of("a", &excluded(mdlm())), row_of("b", &excluded(mdlm()))];
    assert_eq!(Comparison::of(rows, None).by, Some(Metric::BitsPerByte));
}

#[test]
fn signs_are_shown_only_where_exact_values_and_bounds_meet() {
    let found = Comparison::of(vec![row_of("a", &mdlm()), row_of("b", &mdlm())], None);
    let text = markdown(&found);
    assert!(!text.contains('≤') && !text.contains("exact"), "{text}");
    assert!(!text.contains("objective"), "all have the same: {text}");
    let sedd = evaluation("sedd", Estimator::Time, [1.25, 1.25, 3.5]);
    let text = markdown(&Comparison::of(
        vec![row_of("a", &mdlm()), row_of("b", &sedd)],
        None,
    ));
    assert!(
        !text.contains('≤') && text.contains("| b | sedd | 1.2500 "),
        "{text}"
    );
    let text = markdown(&Comparison::of(
        vec![row_of("a", &ar()), row_of("b", &ar())],
        None,
    ));
    assert!(!text.contains('≤'), "{text}");
    assert!(
        text.contains("Note: bits_per_byte, perplexity and nats_per_token: exact, not a bound."),
        "{text}"
    );
    assert!(
        text.contains("Note: perplexity and nats_per_token: per scored token of text."),
        "{text}"
    );
    // The published estimate is not a bound, and a share of samples is not a likelihood.
    let published = Evaluation {
        bound: BoundEnds::Published,
        ..mdlm()
    };
    let mut sampled = row_of("c", &mdlm());
    sampled.metrics = vec![(Metric::Grammatical, interval(0.5, 0.25))];
    let rows = vec![row_of("a", &ar()), row_of("b", &published), sampled];
    let text = markdown(&Comparison::of(rows, None));
    assert!(
        !text.contains('≤') && text.contains("Note: 1 of 2 rows is exact."),
        "{text}"
    );
    assert!(text.contains("| b | mdlm | 1.0000 ± 0.0625 |"), "{text}");
    assert!(text.contains("| 50.0% (25.0–75.0%) |"), "{text}");
}

#[test]
fn objectives_are_shown_once() {
    let labels = |rows: Vec<Row>| -> Vec<String> {
        let found = Comparison::of(rows, None);
        found.rows[0].point.keys().cloned().collect()
    };
    assert_eq!(
        labels(vec![row_of("a", &mdlm()), row_of("b", &ar())]),
        ["objective"]
    );
    assert!(labels(vec![row_of("mdlm", &mdlm()), row_of("ar", &ar())]).is_empty());
    // Swept, with its settings or by its kind alone.
    for label in ["model.objective", "kind"] {
        let swept = |kind: &str, evaluation: &Evaluation| {
            let mut row = row_of("bound", evaluation);
            let value = if label == "kind" {
                json!(kind)
            } else {
                json!({ "kind": kind })
            };
            row.point.insert(label.to_owned(), value);
            row
        };
        assert_eq!(labels(vec![swept("mdlm", &mdlm()), swept("ar", &ar())]), [label]);
    }
    // A field of that name that is something else does not hide them.
    let mut rows = vec![row_of("a", &mdlm()), row_of("b", &ar())];
    rows[0].point.insert("kind".to_owned(), json!("mdlm"));
    rows[1].point.insert("kind".to_owned(), json!("files"));
    assert_eq!(labels(rows), ["objective", "kind"]);
    // A row that was not measured has none.
    let found = Comparison::of(
        vec![row_of("a", &mdlm()), row_of("b", &ar()), Row::default()],
        None,
    );
    assert!(found.rows[2].point.is_empty() && found.rows[2].metrics.is_empty());
}

/// Results of two swept trainings of MDLM, of one of AR, and of an AR training that is not swept.
fn swept() -> Vec<Row> {
    let row = |name: &str, objective: Value, bits: f64| {
        let exact = objective["kind"] == "ar";
        let kind = if exact { "ar" } else { "mdlm" };
        let estimator = if exact { Estimator::Exact } else { Estimator::Count };
        let mut row = row_of(name, &evaluation(kind, estimator, [bits; 3]));
        row.metrics.truncate(1);
        if name == "bound" {
            row.point.insert("objective".to_owned(), objective);
        }
        row
    };
    vec![
        row("bound", json!({ "kind": "ar" }), 2.0),
        row("bound", json!({ "kind": "mdlm" }), 1.0625),
        row("bound", json!({ "kind": "mdlm", "time_conditioning": true }), 1.0),
        row("half", json!({ "kind": "ar" }), 3.0),
    ]
}

#[test]
fn swept_objectives_show_the_fields_in_which_they_differ() {
    let found = Comparison::of(swept(), None);
    insta::assert_snapshot!(markdown(&found), @r"
    # 4 results

    Lowest bits_per_byte first.

    | stage | objective | objective.time_conditioning | bits_per_byte |
    |---|---|---|---|
    | bound | mdlm | true | ≤ 1.0000 ± 0.0625 |
    | bound | mdlm |  | ≤ 1.0625 ± 0.0625 |
    | bound | ar |  | 2.0000 ± 0.0625 |
    | half | ar |  | 3.0000 ± 0.0625 |

    No best by bits_per_byte: bound, objective mdlm, objective.time_conditioning true is not clearly different from bound, objective mdlm; results differ clearly where their 95% intervals do not overlap; with one seed of training, the intervals cover the evaluation alone, not the effect of another seed; the first is an upper bound and 2 of 3 others are exact, so that the differences are lower bounds on those of the likelihoods.

    Intervals are at 95%, each for its result only: they cover the choice of rows and noise in the measurement (the seed of evaluate or sample), not another seed of training.

    Note: ≤ marks an upper bound; 2 of 4 rows are exact, without a sign.
    ");
    insta::assert_snapshot!(csv(&found).replace('\r', ""), @"
    stage,objective,objective.time_conditioning,bits_per_byte,bits_per_byte_low,bits_per_byte_high,unit,quantity,rows,tokens
    bound,mdlm,true,1,0.9375,1.0625,per token of text,bound,20,640
    bound,mdlm,,1.0625,1,1.125,per token of text,bound,20,640
    bound,ar,,2,1.9375,2.0625,per scored token of text,exact,20,620
    half,ar,,3,2.9375,3.0625,per scored token of text,exact,20,620
    ");
    assert_eq!(
        figure(&found).unwrap(),
        (
            "lowest bits_per_byte".to_owned(),
            "bound, objective mdlm, objective.time_conditioning true (bits_per_byte ≤ 1.0000 ± 0.0625), not clearly \
             different from bound, objective mdlm"
                .to_owned()
        )
    );
    // Files keep the values of the sweep.
    let json = serde_json::to_value(table(&found)).unwrap();
    assert_eq!(
        json["rows"][0]["point"],
        json!({ "objective": { "kind": "mdlm", "time_conditioning": true } })
    );
    assert_eq!(json["rows"][3]["point"], json!({ "objective": "ar" }));
    assert_eq!(parse(&json.to_string()).unwrap(), found);
    // What is left to the default is shown.
    let mut rows = swept();
    rows[1].point["objective"] = Value::Null;
    let found = Comparison::of(rows, None);
    assert_eq!(found.rows[1].point["objective"], "mdlm");
}

/// Results over two seeds of two settings, the first with a quantity, the second with another.
fn over_seeds(first: Quantity, second: Quantity) -> Comparison {
    let rows = [(1, 1, 1.0), (1, 2, 1.0625), (2, 1, 9.0), (2, 2, 9.0625)];
    let rows = rows.map(|(setting, seed, bits)| Row {
        quantity: if setting == 1 { first } else { second },
        ..seeded(setting, seed, bits)
    });
    Comparison::of(rows.to_vec(), None)
}

#[test]
fn difference_of_an_exact_value_and_a_bound_is_a_bound() {
    let (exact, bound) = (Quantity::Exact, Quantity::Bound);
    let of = |first, second| {
        let verdict = over_seeds(first, second).verdict.unwrap();
        assert!(verdict.is_best());
        let json = serde_json::to_value(verdict.report()).unwrap();
        let ends = ["difference_at_most", "difference_at_least"].map(|end| json[end].clone());
        (verdict.sentence(), ends)
    };
    let (sentence, ends) = of(exact, bound);
    assert!(
        sentence.ends_with(
            "; the first is exact and the other is an upper bound, so that the difference is an upper bound on that \
             of the likelihoods"
        ),
        "{sentence}"
    );
    assert_eq!(ends, [json!([1]), Value::Null]);
    let (sentence, ends) = of(bound, exact);
    assert!(
        sentence.ends_with(
            "; the first is an upper bound and the other is exact, so that the difference is a lower bound on that of \
             the likelihoods"
        ),
        "{sentence}"
    );
    assert_eq!(ends, [Value::Null, json!([1])]);
    for alike in [exact, bound] {
        let (sentence, ends) = of(alike, alike);
        assert!(!sentence.contains("likelihoods"), "{sentence}");
        assert_eq!(ends, [Value::Null, Value::Null]);
    }
    // Of several others some are bounds.
    let mut rows = all();
    rows.push(row_of(
        "causal too",
        &evaluation("ar", Estimator::Exact, [3.0, 3.0, 20.0]),
    ));
    let sentence = Comparison::of(rows, None).verdict.unwrap().sentence();
    assert!(
        sentence.ends_with(
            "the first is exact and 4 of 5 others are upper bounds, so that the differences are upper bounds on those \
             of the likelihoods"
        ),
        "{sentence}"
    );
}

#[test]
fn means_over_seeds_have_the_sign_of_their_results() {
    let found = over_seeds(Quantity::Bound, Quantity::Exact);
    let text = markdown(&found);
    assert!(text.contains("| 1 | 2 | ≤ 1.0312 ± 0.0442 |"), "{text}");
    assert!(text.contains("| 2 | 2 | 9.0312 ± 0.0442 |"), "{text}");
    assert!(text.contains("| 1 | 1 | ≤ 1.0000 ± 0.1250 |"), "{text}");
    assert_eq!(
        figure(&found).unwrap(),
        (
            "best".to_owned(),
            "rate 1 (bits_per_byte ≤ 1.0312 ± 0.0442, mean ± sd of 2 seeds)".to_owned()
        )
    );
}

/// The row that is read of a training with one validation.
fn trained(objective: manifest::Objective, wrap: bool, validation: Validation) -> Row {
    let folder = tempfile::tempdir().unwrap();
    let model = ModelInfo {
        shape: "nano".to_owned(),
        vocabulary: 64,
        length: 32,
        wrap,
        special: SpecialIds {
            bos: 0,
            eos: 1,
            pad: 2,
            mask: 3,
        },
        tokenizer_digest: "of a tokenizer".to_owned(),
        objective,
        steps: 4,
        seed: 1,
        precision: Precision::F32,
        origin: None,
    };
    write_json(&folder.path().join(MODEL_INFO), &model).unwrap();
    let line = ValidationLine { step: 4, validation };
    let line = serde_json::to_string(&line).unwrap() + "\n";
    fs::write(folder.path().join(METRICS), line).unwrap();
    metrics(folder.path()).unwrap()
}

#[test]
fn trainings_compare_as_evaluations_do() {
    let validation = Validation {
        nats_per_token: 2.0,
        bits_per_byte: 1.0,
        rows: 8,
        ..Validation::default()
    };
    let exact = Validation {
        estimator: Some(Estimator::Exact),
        scored: true,
        ..validation
    };
    let any_order = Validation {
        estimator: Some(Estimator::Count),
        ..validation
    };
    let mdlm = manifest::Objective::default;
    let ar = manifest::Objective::Ar(ArObjective {});
    let mlm = manifest::Objective::Mlm(MlmObjective::default());
    let row = trained(ar, false, exact);
    assert_eq!(row.objective.as_deref(), Some("ar"));
    assert_eq!(
        (row.quantity, row.scored, row.given_lengths),
        (Quantity::Exact, true, false)
    );
    let row = trained(mlm, false, any_order);
    assert_eq!(row.objective.as_deref(), Some("mlm"));
    assert_eq!(
        (row.quantity, row.scored, row.given_lengths),
        (Quantity::Bound, false, true)
    );
    let row = trained(mdlm(), false, validation);
    assert_eq!((row.objective.as_deref(), row.given_lengths), (None, true));
    assert!(!trained(mdlm(), true, validation).given_lengths, "joined rows");
    let counted = Validation {
        unit: Unit::Position,
        ..validation
    };
    assert!(!trained(mdlm(), false, counted).given_lengths);
    let [joined_ar, joined] = [trained(ar, true, exact), trained(mdlm(), true, validation)];
    let found = Comparison::of(vec![joined_ar, joined], Some(Metric::NatsPerToken));
    assert_eq!(found.by, None, "per scored token and per token");
}
