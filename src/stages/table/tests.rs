//! Tables filled from results.

use serde_json::{Value, json};

use super::*;
use crate::evaluate::{Interval, Quantity};
use crate::manifest::{Compared, Metric, ModelFacts, Seed, StageKind};
use crate::stages::compare::Row;

/// A table of a manifest, of results by their stage's name and their values, the seeds of each by `seed`.
fn table(results: &[(&str, Value)], fields: &Value) -> Table {
    let of = results
        .iter()
        .map(|(stage, point)| json!({ "stage": stage, "point": point }));
    let mut all = json!({ "of": of.collect::<Vec<_>>() });
    for (name, value) in fields.as_object().unwrap() {
        all[name] = value.clone();
    }
    let mut table: Table = serde_json::from_value(all).unwrap();
    let mut settings: Vec<Value> = Vec::new();
    for result in &mut table.of {
        let mut point = json!(result.point);
        let seed = point.as_object_mut().unwrap().remove("seed");
        let setting = json!([manifest_stage(&result.stage), point]);
        let place = settings.iter().position(|other| *other == setting);
        result.setting = Some(place.unwrap_or(settings.len()));
        settings.push(setting);
        result.seeds = seed
            .and_then(|seed| seed.as_u64())
            .map(|value| Seed {
                label: "seed".to_owned(),
                kinds: vec![StageKind::Train],
                value,
            })
            .into_iter()
            .collect();
    }
    table
}

fn manifest_stage(name: &str) -> &str {
    crate::manifest::instance::written(name)
}

/// A result with a perplexity and half of its interval.
fn found(of: &Compared, perplexity: f64, half: f64, quantity: Quantity) -> Sought {
    let interval = Interval {
        value: perplexity,
        low: Some(perplexity - half),
        high: Some(perplexity + half),
    };
    let mut row = Row {
        metrics: vec![
            (Metric::BitsPerByte, interval.map(|value| value.log2() / 4.0)),
            (Metric::Perplexity, interval),
        ],
        quantity,
        ..Row::default()
    };
    row.place(of.setting.unwrap(), of.seeds.clone());
    Ok(FoundResult::with(row, of.facts))
}

/// Two models with three seeds each on two corpora; the second model is a bound.
fn results() -> Vec<(&'static str, Value)> {
    let mut all = Vec::new();
    for model in ["ar", "mdlm"] {
        for corpus in ["ptb", "wiki"] {
            for seed in 1..=3 {
                all.push(("bound", json!({ "model": model, "corpus": corpus, "seed": seed })));
            }
        }
    }
    all
}

fn fields() -> Value {
    json!({
        "caption": "Zero-shot perplexity",
        "source": "a paper, table 3",
        "rows": [
            { "name": "Old model", "group": "Quoted", "published": { "PTB": { "value": 90.5 } }, "source": "another paper" },
            { "name": "AR", "group": "Ours", "where": { "model": "ar" },
              "published": { "PTB": { "value": 82.05 }, "Wikitext": { "value": 25.75 } } },
            { "name": "MDLM", "group": "Ours", "where": { "model": "mdlm" }, "note": "half of the tokens",
              "published": { "PTB": { "value": 95.26, "at_most": true }, "Wikitext": { "value": 32.83, "at_most": true } } }
        ],
        "columns": [
            { "name": "PTB", "where": { "corpus": "ptb" } },
            { "name": "Wikitext", "where": { "corpus": "wiki" } }
        ],
        "notes": ["Rows of 1,024 tokens."]
    })
}

/// The perplexity of each of [`results`].
fn measured(table: &Table) -> Vec<Sought> {
    let of = |result: &Compared| {
        let (model, corpus) = (&result.point["model"], &result.point["corpus"]);
        let seed = result.point["seed"].as_f64().unwrap() - 2.0;
        let (value, quantity) = match (model.as_str().unwrap(), corpus.as_str().unwrap()) {
            ("ar", "ptb") => (82.0, Quantity::Exact),
            ("ar", _) => (30.0, Quantity::Exact),
            (_, "ptb") => (96.0, Quantity::Bound),
            _ => (32.8, Quantity::Bound),
        };
        found(result, value + 0.25 * seed, 0.05, quantity)
    };
    table.of.iter().map(of).collect()
}

#[test]
fn table_has_means_over_seeds_verdicts_and_footnotes() {
    let table = table(&results(), &fields());
    check_cells(&table).unwrap();
    let built = TableResult::build(&table, &measured(&table)).unwrap();
    insta::assert_snapshot!("table_markdown", markdown_of(&blocks(&built)));
    insta::assert_snapshot!("table_latex", latex(&built));
    insta::assert_snapshot!("table_csv", csv(&built).replace("\r\n", "\n"));
    let cell = &built.rows[1].cells[0];
    let here = cell.here.as_ref().unwrap();
    assert_eq!((here.value, here.sd, here.seeds), (82.0, Some(0.25), 3));
    assert_eq!(cell.verdict, Some(Agreement::Agrees));
    // The prediction interval of AR on Wikitext is 30 ± 4.303 · 0.25 · √(4/3) = 30 ± 1.242.
    let Some(Agreement::Higher { percent }) = built.rows[1].cells[1].verdict else {
        panic!("{:?}", built.rows[1].cells[1]);
    };
    assert!((percent - 100.0 * (30.0 / 25.75 - 1.0)).abs() < 1e-9);
    let read: TableResult = serde_json::from_str(&serde_json::to_string(&built).unwrap()).unwrap();
    assert_eq!(read, built);
}

#[test]
fn table_states_why_cells_are_missing() {
    let table = table(&results(), &fields());
    let mut sought = measured(&table);
    for (result, found) in table.of.iter().zip(&mut sought) {
        if result.point["corpus"] == "ptb" && result.point["model"] == "mdlm" {
            *found = Err("never ran".to_owned());
        }
    }
    // One seed of three.
    sought[0] = Err("its settings changed".to_owned());
    let built = TableResult::build(&table, &sought).unwrap();
    let cell = &built.rows[2].cells[0];
    assert_eq!((&cell.here, cell.missing.as_deref()), (&None, Some("never ran")));
    assert_eq!(cell.verdict, None);
    let some = &built.rows[1].cells[0];
    assert_eq!(some.here.as_ref().unwrap().seeds, 2);
    assert_eq!(
        some.missing.as_deref(),
        Some("1 of 3 results: its settings changed")
    );
    let notes = notes(&built);
    for expected in [
        "Missing: MDLM in PTB: never ran.",
        "Missing: AR in PTB: 1 of 3 results: its settings changed.",
    ] {
        assert!(notes.iter().any(|note| note == expected), "{notes:?}");
    }
    // Rows that cannot have results state the reason that the manifest gives.
    let mut unpublished = table.clone();
    unpublished.rows[0].missing = Some("its weights are not public".to_owned());
    let built = TableResult::build(&unpublished, &sought).unwrap();
    assert!(!built.rows[0].quoted);
    assert_eq!(
        built.rows[0].cells[1].missing.as_deref(),
        Some("its weights are not public")
    );
}

#[test]
fn table_refuses_results_that_differ_in_more_than_seeds() {
    let mut fields = fields();
    fields["rows"][2]["where"] = json!({});
    let table = table(&results(), &fields);
    let error = check_cells(&table).unwrap_err();
    assert_eq!(
        error.to_string(),
        "the cell of row `MDLM` and column `PTB` has 6 results, which differ in more than seeds: `bound` and `bound`"
    );
    assert_eq!(
        error.hint_text(),
        Some("state `model` or `stage` in `where` of the row or of the column")
    );
    assert!(TableResult::build(&table, &measured(&table)).is_err());
    // A result that is not there decides nothing.
    let nothing: Vec<Sought> = table.of.iter().map(|_| Err("never ran".to_owned())).collect();
    assert!(TableResult::build(&table, &nothing).is_ok());
}

#[test]
fn table_makes_rows_and_columns_of_swept_fields_in_their_order() {
    let table = table(&results(), &json!({ "rows_by": "model", "columns_by": "corpus" }));
    let built = TableResult::build(&table, &measured(&table)).unwrap();
    let names: Vec<&str> = built.rows.iter().map(|row| &*row.name).collect();
    let columns: Vec<&str> = built.columns.iter().map(|column| &*column.name).collect();
    assert_eq!((names, columns), (vec!["ar", "mdlm"], vec!["ptb", "wiki"]));
    assert_eq!(built.rows[1].cells[1].here.as_ref().unwrap().value, 32.8);
    assert!(built.order.is_empty() && built.cells().all(|cell| cell.verdict.is_none()));
    assert_eq!(built.caption, "Results");
}

#[test]
fn table_shows_facts_of_models() {
    let mut table = table(
        &[("bound", json!({ "model": "mdlm" }))],
        &json!({
            "rows_by": "model",
            "columns": [{ "name": "Parameters", "show": "parameters" }, { "name": "Tokens", "show": "trained_tokens" }]
        }),
    );
    table.of[0].facts = Some(ModelFacts {
        parameters: 139_000_000,
        trained_tokens: Some(33_000_000_000),
    });
    let sought = [found(&table.of[0], 27.04, 0.1, Quantity::Bound)];
    let built = TableResult::build(&table, &sought).unwrap();
    let pivot = blocks(&built);
    let crate::stages::compare::TextBlock::Table(rows) = &pivot[1] else {
        panic!("{pivot:?}");
    };
    assert_eq!(rows[0], ["", "Parameters", "Tokens (trained tokens)"]);
    assert_eq!(rows[1], ["mdlm", "139M", "33B"]);
    // A result that is not there may have what the others do not.
    table.columns[1].show = Some(TableValue::NetworkCalls);
    let mut other = table.clone();
    other.of.push(Compared {
        stage: "texts".to_owned(),
        ..table.of[0].clone()
    });
    other.of[1].point["model"] = json!("ar");
    let sought_of_both = [sought[0].clone(), Err("never ran".to_owned())];
    assert!(TableResult::build(&other, &sought_of_both).is_ok());
    // What a result does not have is an error that names what it has.
    table.columns[1].show = Some(TableValue::NetworkCalls);
    let error = TableResult::build(&table, &sought).unwrap_err();
    assert_eq!(
        error.to_string(),
        "column `Tokens` shows `network_calls`, which no result of the column has"
    );
    let hint = error.hint_text().unwrap().to_owned();
    assert!(
        hint.contains("`perplexity`, `bits_per_byte`, `parameters`, `trained_tokens`"),
        "{hint}"
    );
}

#[test]
fn table_tests_the_published_order_of_rows() {
    // Single results on other texts: by their intervals.
    let built = |ar: f64, mdlm: f64, half: f64| {
        let mut fields = fields();
        fields["columns"] = json!([{ "name": "PTB" }]);
        for row in fields["rows"].as_array_mut().unwrap() {
            row["published"].as_object_mut().unwrap().remove("Wikitext");
        }
        let results = [("a", json!({ "model": "ar" })), ("b", json!({ "model": "mdlm" }))];
        let table = table(&results, &fields);
        let sought = [
            found(&table.of[0], ar, half, Quantity::Bound),
            found(&table.of[1], mdlm, half, Quantity::Bound),
        ];
        TableResult::build(&table, &sought).unwrap().order
    };
    for (ar, mdlm, half, expected) in [
        (80.0, 90.0, 0.5, OrderFinding::Same),
        (90.0, 80.0, 0.5, OrderFinding::Reversed),
        (80.0, 80.1, 0.5, OrderFinding::Open),
    ] {
        let order = built(ar, mdlm, half);
        assert_eq!(order.len(), 1);
        assert_eq!((&*order[0].first, &*order[0].second), ("AR", "MDLM"));
        assert_eq!(order[0].found, expected);
        // Which trainings they are is not known.
        assert!(!order[0].covers_seeds || expected == OrderFinding::Open);
    }
    // Over seeds.
    let table = table(&results(), &fields());
    let order = TableResult::build(&table, &measured(&table)).unwrap().order;
    assert_eq!(order.len(), 2);
    assert!(
        order
            .iter()
            .all(|pair| pair.found == OrderFinding::Same && pair.covers_seeds),
        "{order:?}"
    );
}
