//! `mdlm variance`: the training loss of a trained model under other times and weightings.

use serde_json::Value;

use crate::support::{Project, printed};

fn relative(candidate: &Value) -> f64 {
    candidate["relative_deviation"]["value"].as_f64().unwrap()
}

#[test]
fn variance_of_a_trained_models_loss_is_measured() {
    let project = Project::whole(300);
    let (code, _, talk) = printed(&mut project.mdlm("variance", &[]));
    assert_eq!(code, Some(2));
    assert!(
        talk.contains("it has not run with the present manifest"),
        "{talk}"
    );
    assert!(
        talk.contains("mdlm run") && talk.contains("--target model"),
        "{talk}"
    );

    project.run(&["--target", "model"]);
    let measure = |arguments: &[&str]| {
        let fixed = ["--rows", "12", "--draws", "8"];
        let (code, output, talk) = printed(&mut project.mdlm("variance", &[&fixed, arguments].concat()));
        assert_eq!(code, Some(0), "{talk}");
        output
    };
    let json = measure(&["--json"]);
    assert_eq!(json, measure(&["model", "--json", "--threads", "1"]));
    let found: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        [&found["stage"], &found["rows"], &found["draws"], &found["batch"]],
        [
            &Value::from("model"),
            &Value::from(12),
            &Value::from(8),
            &Value::from(8)
        ]
    );
    let candidates = found["candidates"].as_array().unwrap();
    // Three distributions and 21 pairs of limits with each weighting.
    assert_eq!(candidates.len(), 48);
    for candidate in candidates {
        for quantity in [
            "nats_per_token",
            "row_deviation",
            "step_deviation",
            "relative_deviation",
        ] {
            let interval = &candidate[quantity];
            let [low, value, high] = ["low", "value", "high"].map(|end| interval[end].as_f64().unwrap());
            assert!(0.0 < value && low < value && value < high, "{candidate}");
        }
    }
    let of = |weighting: &str, kind: &str| {
        let is_it =
            |candidate: &&Value| candidate["weighting"] == weighting && candidate["times"]["kind"] == kind;
        candidates.iter().filter(is_it).collect::<Vec<_>>()
    };
    // Each distribution has the same bound for its mean.
    let loss = |candidate: &Value| candidate["nats_per_token"]["value"].as_f64().unwrap();
    let [uniform, importance, bell] = ["uniform", "importance", "bell"].map(|kind| loss(of("elbo", kind)[0]));
    assert!(
        (importance / uniform - 1.0).abs() < 0.01,
        "{uniform}, {importance}"
    );
    assert!((bell / uniform - 1.0).abs() < 0.01, "{uniform}, {bell}");
    // After 30 steps the model is near the uniform distribution over 320 tokens or better.
    assert!((2.0..7.0).contains(&uniform), "{uniform}");
    // A weight of 1 / m is what makes a row's loss vary: the mean without it is smaller.
    assert!(loss(of("cross_entropy", "uniform")[0]) < 0.6 * uniform);
    let present: Vec<_> = candidates
        .iter()
        .filter(|candidate| candidate["in_manifest"] == true)
        .collect();
    assert_eq!(present, of("elbo", "uniform"));
    let least = of("elbo", "clipped")
        .into_iter()
        .min_by(|a, b| relative(a).total_cmp(&relative(b)))
        .unwrap();
    assert_eq!(found["least_clipped"]["low"], least["times"]["low"]);
    assert_eq!(found["least_clipped"]["high"], least["times"]["high"]);

    let table = measure(&[]);
    assert!(table.lines().all(|line| line.chars().count() <= 80), "{table}");
    assert!(table.contains("12 of "), "{table}");
    assert!(table.contains("{\"kind\":\"clipped\",\"low\":"), "{table}");
    // What it says to write is a manifest that is valid.
    let written = format!("stages.model.objective.times={}", least["times"]);
    let (code, _, talk) = printed(&mut project.mdlm("plan", &["--set", &written]));
    assert_eq!(code, Some(0), "{talk}");
    let names = |set: &[&str]| measure(&[set, &["--json"]].concat());
    let narrow: Value = serde_json::from_str(&names(&["--grid", "0.25", "--width", "0.75"])).unwrap();
    assert_eq!(narrow["candidates"].as_array().unwrap().len(), 2 * (3 + 3));
}

#[test]
fn variance_refuses_stages_without_a_choice_of_times() {
    let project = Project::whole(60);
    let refused = |arguments: &[&str]| {
        let (code, output, talk) = printed(&mut project.mdlm("variance", arguments));
        assert_eq!((code, &*output), (Some(2), ""), "{talk}");
        talk
    };
    let talk = refused(&["rows"]);
    assert!(
        talk.contains("`rows` is a pack stage") && talk.contains("name a train stage: `model`"),
        "{talk}"
    );
    let talk = refused(&["modle"]);
    assert!(talk.contains("modle") && talk.contains("model"), "{talk}");
    let talk = refused(&["--set", "stages.model.objective.steps=100"]);
    assert!(
        talk.contains("`mdlm` in discrete time") && talk.contains("without `steps`"),
        "{talk}"
    );
    let talk = refused(&["--set", r#"stages.model.objective={"kind":"sedd"}"#]);
    assert!(talk.contains("`sedd`, whose times are uniform"), "{talk}");
    let talk = refused(&["--draws", "7"]);
    assert!(talk.contains("use `--draws 8`"), "{talk}");
}
