//! Models of several objectives in one table: what their numbers are, what they are per, and what compares.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Project, printed};

/// A project that trains and evaluates MDLM and AR on the same rows.
fn both(rows: &Value) -> Project {
    let project = Project::whole(60);
    let path = project.path().join("pipelines/tiny.json");
    let mut manifest: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    let stages = manifest["stages"].as_object_mut().unwrap();
    stages.shift_remove("texts");
    let fields = stages["rows"].as_object_mut().unwrap();
    fields.extend(rows.as_object().unwrap().clone());
    stages["model"]["steps"] = json!(4);
    let mut causal = stages["model"].clone();
    causal["objective"] = json!({ "kind": "ar" });
    let mut bound = stages["bound"].clone();
    bound["model"] = json!("causal");
    stages.insert("causal".to_owned(), causal);
    stages.insert("exact".to_owned(), bound);
    stages.insert(
        "table".to_owned(),
        json!({ "kind": "compare", "of": ["bound", "exact"] }),
    );
    fs::write(path, manifest.to_string()).unwrap();
    project
}

/// The tables of `mdlm compare`.
fn tables(project: &Project, arguments: &[&str]) -> Value {
    let (code, out, talk) = printed(&mut project.mdlm("compare", &[arguments, &["--json"]].concat()));
    assert_eq!(code, Some(0), "{talk}");
    serde_json::from_str(&out).unwrap()
}

/// The stage that a summary has under that name.
fn stage<'a>(summary: &'a Value, name: &str) -> &'a Value {
    let stages = summary["stages"].as_array().unwrap();
    stages.iter().find(|stage| stage["name"] == name).unwrap()
}

#[test]
fn compare_has_one_column_of_bits_per_byte_for_exact_values_and_bounds() {
    let project = both(&json!({}));
    let output = project.mdlm("run", &["--json"]).output().unwrap();
    let talk = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{talk}");
    let summary: Value = serde_json::from_slice(&output.stdout).unwrap();
    for expected in ["validation bound ", "exact validation "] {
        assert!(talk.contains(&format!("step 4: {expected}")), "{talk}");
    }
    assert!(
        talk.contains(" nats per token of text, ") && talk.contains(" nats per scored token of text, "),
        "{talk}"
    );
    let figures = |name: &str, wanted: &str| stage(&summary, name)["figures"][wanted].as_str();
    assert!(figures("model", "bound").is_some() && figures("model", "exact").is_none());
    assert!(figures("causal", "exact").is_some() && figures("causal", "bound").is_none());
    let loss = figures("causal", "loss").unwrap();
    assert!(loss.ends_with(" nats/scored token"), "{loss}");

    let shown = tables(&project, &["bound", "exact"]);
    assert_eq!(shown[0]["sorted_by"], "bits_per_byte");
    let folder = PathBuf::from(stage(&summary, "table")["path"].as_str().unwrap());
    let folder = project.path().join(folder);
    let file = |name: &str| fs::read_to_string(folder.join(name)).unwrap();
    let made: Value = serde_json::from_str(&file("compare.json")).unwrap();
    for table in [&shown[0], &made] {
        let rows = table["rows"].as_array().unwrap();
        let of = |kind: &str| {
            let mut found = rows.iter().filter(|row| row["point"]["objective"] == kind);
            found.next().unwrap_or_else(|| panic!("no {kind}: {rows:?}"))
        };
        let fields =
            |kind: &str| ["quantity", "scored", "given_lengths"].map(|field| of(kind)[field].clone());
        assert_eq!(fields("ar"), [json!("exact"), json!(true), Value::Null]);
        assert_eq!(fields("mdlm"), [Value::Null, Value::Null, Value::Null]);
        let bits = |kind: &str| of(kind)["metrics"]["bits_per_byte"]["value"].as_f64().unwrap();
        let first = rows[0]["point"]["objective"].as_str().unwrap();
        assert_eq!(first, if bits("ar") < bits("mdlm") { "ar" } else { "mdlm" });
        // Which of them is first is a matter of four steps, and what their difference bounds follows from it.
        let end = if first == "ar" {
            "difference_at_most"
        } else {
            "difference_at_least"
        };
        assert_eq!(table["verdict"][end], json!([1]), "{table}");
    }
    let text = file("compare.md");
    assert!(
        text.contains("| mdlm | ≤ ") && text.contains("Note: ≤ marks an upper bound; 1 of 2 rows is exact"),
        "{text}"
    );
    assert_eq!(
        tables(&project, &["bound", "exact", "--sort", "perplexity"])[0]["sorted_by"],
        Value::Null,
        "per token and per scored token"
    );
    // The validations of the trainings compare by the same rules.
    let trained = tables(&project, &["model", "causal"]);
    assert_eq!(trained[0]["sorted_by"], "bits_per_byte");
    let quantities: Vec<_> = trained[0]["rows"].as_array().unwrap().iter().collect();
    assert!(
        quantities
            .iter()
            .all(|row| (row["quantity"] == "exact") == (row["stage"] == "causal")),
        "{quantities:?}"
    );
    let page = fs::read_to_string(project.store().join("reports/tiny.html")).unwrap();
    for expected in [
        ">validation bound, 95% interval<",
        ">exact validation, 95% interval<",
        ">nats per scored token of text<",
        "<td>≤ ",
    ] {
        assert!(page.contains(expected), "{expected}");
    }
}

#[test]
fn compare_does_not_rank_bounds_given_lengths_with_ar() {
    let project = both(&json!({ "wrap": false }));
    project.run(&[]);
    let shown = tables(&project, &["bound", "exact"]);
    assert_eq!(shown[0]["sorted_by"], Value::Null);
    let given: Vec<(bool, bool)> = shown[0]["rows"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| (row["given_lengths"] == true, row["quantity"] == "exact"))
        .collect();
    assert_eq!(given, [(true, false), (false, true)]);
    let (_, text, _) = printed(&mut project.mdlm("compare", &["bound", "exact"]));
    let text = text.replace('\n', " ");
    assert!(
        text.contains("not ranked, because 1 of 2 rows is given the lengths of the records")
            && text.contains("`\"padding\": \"counted\"`"),
        "{text}"
    );
    // Its way out works.
    let counted = "stages.rows.padding=counted";
    project.run(&["--set", counted]);
    let shown = tables(&project, &["bound", "exact", "--set", counted]);
    assert_eq!(shown[0]["sorted_by"], "bits_per_byte");
    let rows = shown[0]["rows"].as_array().unwrap();
    assert!(
        rows.iter().all(|row| row["given_lengths"] == Value::Null),
        "{rows:?}"
    );
}
