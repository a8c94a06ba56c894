//! The samplers of a sample stage with the real network at shape `nano`: given texts, truncation, recorded steps, long texts.

use std::path::Path;

use mdlm::stages::sample::{SampleLine, Summary, UnmaskedLine, WindowLine};
use mdlm::stages::trained::ModelInfo;
use serde_json::{Value, json};

use crate::train::{Lab, read, train, trained};

fn sample(changes: &Value) -> Value {
    let mut config = json!({"kind": "sample", "model": "m", "count": 4, "steps": 16});
    for (name, value) in changes.as_object().unwrap() {
        config[name] = value.clone();
    }
    config
}

fn lines<T: serde::de::DeserializeOwned>(output: &Path, name: &str) -> Vec<T> {
    let text = std::fs::read_to_string(output.join(name)).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn drawn(changes: &Value) -> Vec<SampleLine> {
    let (lab, _, model) = trained();
    lines(&lab.run(&sample(changes), &[("model", model)]), "samples.jsonl")
}

fn info() -> ModelInfo {
    ModelInfo::open(&trained().2).unwrap()
}

#[test]
fn samplers_of_every_kind_that_fits_draw_whole_rows() {
    let info = info();
    let (lab, _, model) = trained();
    for sampler in info.objective.samplers() {
        let mut settings = json!(sampler);
        if sampler.kind() == "semi_autoregressive" {
            settings["length"] = json!(70);
        }
        let output = lab.run(&sample(&json!({"sampler": settings})), &[("model", model)]);
        let (rows, summary): (Vec<SampleLine>, Summary) =
            (lines(&output, "samples.jsonl"), read(&output, "sample.json"));
        let length = if sampler.kind() == "semi_autoregressive" {
            70
        } else {
            32
        };
        for row in &rows {
            assert_eq!(row.tokens.len(), length, "{}", sampler.kind());
            assert!(!row.tokens.contains(&info.special.mask), "{}", sampler.kind());
            let most = info.objective.network_calls(&sampler, 16, 32);
            // Five windows: 32 and 16 tokens each.
            let windows = if length == 70 { 4 } else { 1 };
            assert!(
                row.network_calls <= windows * most,
                "{}: {}",
                sampler.kind(),
                row.network_calls
            );
        }
        let calls: u64 = rows.iter().map(|row| u64::from(row.network_calls)).sum();
        assert_eq!((summary.network_calls, summary.rows), (calls, 4));
        assert_eq!(summary.tokens, (length == 70).then_some(280));
    }
}

#[test]
fn sample_analytic_of_probabilities_is_ancestral_on_the_published_grid() {
    let texts = |sampler: Value| -> Vec<Vec<u32>> {
        let rows = drawn(&json!({"sampler": sampler}));
        rows.into_iter().map(|row| row.tokens).collect()
    };
    let ancestral = texts(json!({"kind": "ancestral", "grid": "published"}));
    assert_eq!(texts(json!({"kind": "analytic"})), ancestral);
    assert_ne!(
        texts(json!({"kind": "remasking", "rule": "rescale", "eta": 0.5})),
        ancestral
    );
}

#[test]
fn given_prompt_suffix_and_template_stay_where_they_are() {
    let special = info().special;
    let (lab, _, model) = trained();
    let tokenizer = info().tokenizer(model).unwrap();
    let encode = |text: &str| {
        let mut tokens = Vec::new();
        tokenizer.encode(text, &mut tokens).unwrap();
        tokens
    };
    let prompt = encode("ada sees bob");
    let suffix = encode(" on day 7");
    for sampler in [
        "cached",
        "first_hitting",
        "confidence",
        "left_to_right",
        "remasking",
    ] {
        let given = json!({"prompt": "ada sees bob", "suffix": " on day 7"});
        for row in drawn(&json!({"given": given, "sampler": {"kind": sampler}})) {
            assert_eq!(row.tokens[0], special.bos);
            assert_eq!(row.tokens[1..=prompt.len()], prompt[..], "{sampler}");
            assert_eq!(row.tokens[31], special.eos);
            assert_eq!(row.tokens[31 - suffix.len()..31], suffix[..], "{sampler}");
        }
    }
    let template = json!({"template": "ada sees bob⟨3⟩ on day 7"});
    for row in drawn(&json!({"given": template})) {
        let hole = 1 + prompt.len();
        assert_eq!(row.tokens[1..hole], prompt[..]);
        assert_eq!(row.tokens[hole + 3..][..suffix.len()], suffix[..]);
        assert_eq!(row.tokens[hole + 3 + suffix.len()], special.eos);
    }
    let tokens = json!({"template_tokens": [special.bos, -1, 9, -1, 8]});
    for row in drawn(&json!({"given": tokens})) {
        assert_eq!((row.tokens[0], row.tokens[2], row.tokens[4]), (special.bos, 9, 8));
    }
    // Many texts, `count` rows of each; the file is looked for beside the manifest.
    let file = r#"{"prompt": "eve likes kim"}

{"template": "bob⟨…⟩"}
"#;
    let config = sample(&json!({"given": {"file": "given.jsonl"}, "count": 3}));
    std::fs::write(lab.base().join("given.jsonl"), file).unwrap();
    let rows: Vec<SampleLine> = lines(&lab.run(&config, &[("model", model)]), "samples.jsonl");
    let numbers: Vec<_> = rows.iter().map(|row| row.given).collect();
    assert_eq!(numbers, [0, 0, 0, 1, 1, 1].map(Some));
    for row in &rows[..3] {
        let prompt = encode("eve likes kim");
        assert_eq!(row.tokens[1..=prompt.len()], prompt[..]);
    }
    std::fs::write(
        lab.base().join("given.jsonl"),
        "{\"prompt\": \"ada\"}\n{\"promt\": \"bob\"}\n",
    )
    .unwrap();
    let refusal = lab.refused(&config, &[("model", model)]);
    assert!(
        refusal.contains("given.jsonl`, line 2") && refusal.contains("promt"),
        "{refusal}"
    );
}

#[test]
fn given_texts_that_leave_nothing_or_are_unknown_are_refused_before_a_network_call() {
    let (lab, _, model) = trained();
    let long = "ada sees bob and bob sees ada on day 7 ".repeat(4);
    for (given, expected) in [
        (
            json!({"prompt": long}),
            "but a row has 32, of which one at least is drawn",
        ),
        (json!({"template": "ada⟨31⟩"}), "but a row has 32"),
        (
            json!({"prompt_tokens": [400]}),
            "the given token 400 is not in the vocabulary",
        ),
        (json!({"prompt_tokens": [info().special.mask]}), "the mask token"),
    ] {
        let refusal = lab.refused(&sample(&json!({"given": given})), &[("model", model)]);
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!refusal.ends_with("none"), "{refusal}");
    }
}

/// What the lines of a file state is checked as what a manifest states, each with its line.
#[test]
fn given_file_is_checked_line_by_line() {
    let (lab, _, model) = trained();
    let config = sample(&json!({"given": {"file": "lines.jsonl"}}));
    for (line, expected) in [
        (
            r#"{"template_tokens": [5000000000, -1]}"#,
            "line 2: 5000000000 is no token",
        ),
        (r#"{"template_tokens": [4, -9, -1]}"#, "line 2: -9 is no token"),
        (r#"{"template": "no hole"}"#, "line 2: the template has no hole"),
        (r#"{"template": "ada⟨4000000000⟩"}"#, "line 2"),
        (r#"{"prompt": 3}"#, "line 2, column"),
    ] {
        std::fs::write(
            lab.base().join("lines.jsonl"),
            format!("\u{feff}{{\"prompt\": \"ada\"}}\n{line}\n"),
        )
        .unwrap();
        let refusal = lab.refused(&config, &[("model", model)]);
        assert!(refusal.contains(expected), "{refusal}");
        assert!(!refusal.contains("at line 1"), "{refusal}");
    }
    std::fs::write(
        lab.base().join("lines.jsonl"),
        r#"{"prompt": "ada", "suffix": " on day"}"#,
    )
    .unwrap();
    let windows = json!({"kind": "semi_autoregressive", "length": 50});
    let config = sample(&json!({"given": {"file": "lines.jsonl"}, "sampler": windows}));
    let refusal = lab.refused(&config, &[("model", model)]);
    assert!(refusal.contains("takes prompts alone"), "{refusal}");
    let short = json!({"kind": "semi_autoregressive", "length": 2});
    let config = sample(&json!({"given": {"prompt": "ada sees"}, "sampler": short}));
    let refusal = lab.refused(&config, &[("model", model)]);
    assert!(refusal.contains("but the text is to have 2"), "{refusal}");
}

#[test]
fn given_tokens_stay_beside_given_ends() {
    let tokens: Vec<i64> = (0..32).map(|l| if l == 1 { -1 } else { 5 }).collect();
    for row in drawn(&json!({"given": {"template_tokens": tokens}, "given_ends": true})) {
        assert_eq!((row.tokens[0], row.tokens[31]), (5, 5));
    }
}

#[test]
fn greedy_truncated_and_penalized_draws_are_what_they_say() {
    let same = |a: &Value, b: &Value| {
        let tokens =
            |rows: Vec<SampleLine>| -> Vec<Vec<u32>> { rows.into_iter().map(|row| row.tokens).collect() };
        tokens(drawn(a)) == tokens(drawn(b))
    };
    assert!(same(&json!({"temperature": 0}), &json!({"top_k": 1})));
    assert!(same(&json!({"temperature": 0}), &json!({"min_p": 1.0})));
    assert!(same(&json!({"top_p": 1.0, "min_p": 0.0}), &json!({})));
    assert!(!same(&json!({"top_k": 3}), &json!({})));
    assert!(!same(&json!({"repetition_penalty": 3.0}), &json!({})));
    assert!(same(&json!({"repetition_penalty": 1.0}), &json!({})));
    let special = info().special;
    let never = drawn(&json!({"end_of_text": "never", "count": 20}));
    assert!(
        never
            .iter()
            .all(|row| !row.tokens.contains(&special.eos) || special.eos == special.bos)
    );
    let prompt = json!({"prompt": "ada sees"});
    assert!(same(
        &json!({"given": prompt, "guidance": 0.0}),
        &json!({"given": prompt})
    ));
    let guided = drawn(&json!({"given": prompt, "guidance": 2.0}));
    let plain = drawn(&json!({"given": prompt}));
    let calls = |rows: &[SampleLine]| rows.iter().map(|row| row.network_calls).sum::<u32>();
    assert_eq!(
        calls(&guided),
        2 * calls(&plain),
        "the same positions, each asked twice"
    );
    assert!(guided.iter().zip(&plain).any(|(a, b)| a.tokens != b.tokens));
}

#[test]
fn recorded_steps_state_when_each_token_was_drawn() {
    let (lab, _, model) = trained();
    for sampler in ["cached", "confidence", "remasking"] {
        let settings = |recorded: u32| {
            sample(
                &json!({"sampler": {"kind": sampler}, "record_steps": recorded, "given": {"prompt": "ada"}}),
            )
        };
        let output = lab.run(&settings(2), &[("model", model)]);
        let (rows, steps): (Vec<SampleLine>, Vec<UnmaskedLine>) =
            (lines(&output, "samples.jsonl"), lines(&output, "steps.jsonl"));
        assert_eq!(steps.len(), 2);
        for (line, row) in steps.iter().zip(&rows) {
            assert_eq!(line.tokens, row.tokens);
            assert_eq!(line.steps[0], None, "BOS is given");
            assert!(
                line.steps[5..]
                    .iter()
                    .all(|step| step.is_some_and(|step| step < 16))
            );
            let asked = |probability: &Option<f32>| probability.is_some_and(|p| p > 0.0 && p <= 1.0);
            assert!(line.probabilities[5..].iter().all(asked), "{sampler}");
        }
        let without = lab.run(&settings(0), &[("model", model)]);
        assert!(!without.join("steps.jsonl").exists());
        let unrecorded: Vec<SampleLine> = lines(&without, "samples.jsonl");
        assert_eq!(unrecorded, rows, "recording changes no draw");
    }
}

#[test]
fn long_texts_come_window_by_window() {
    let (lab, _, model) = trained();
    let settings = json!({"kind": "semi_autoregressive", "stride": 12, "length": 80, "window_steps": 8});
    let output = lab.run(
        &sample(&json!({"sampler": settings, "given": {"prompt": "ada sees"}})),
        &[("model", model)],
    );
    let (rows, windows): (Vec<SampleLine>, Vec<WindowLine>) =
        (lines(&output, "samples.jsonl"), lines(&output, "windows.jsonl"));
    // 32 and 4 times 12.
    assert_eq!(windows.len(), 4 * 5);
    for (index, row) in (0..).zip(&rows) {
        assert_eq!(row.tokens.len(), 80);
        let parts: Vec<u32> = windows
            .iter()
            .filter(|window| window.row == index)
            .flat_map(|window| window.tokens.clone())
            .collect();
        assert_eq!(parts, row.tokens);
    }
    let until = json!({"kind": "semi_autoregressive", "until": "end_of_text", "max_length": 200});
    let special = info().special;
    for row in drawn(&json!({"sampler": until, "count": 10})) {
        let end = row.tokens[1..].iter().position(|&token| token == special.eos);
        assert_eq!(end.map_or(200, |end| end + 2), row.tokens.len());
    }
}

#[test]
fn samplers_of_a_masked_language_model_and_of_scores_draw_texts() {
    let lab = Lab::new();
    let rows = lab.rows(32, true);
    for (objective, sampler) in [
        (json!({"kind": "mlm"}), json!({"kind": "gibbs"})),
        (json!({"kind": "sedd"}), json!({"kind": "analytic"})),
        (json!({"kind": "sedd"}), json!({"kind": "euler"})),
        (
            json!({"kind": "sedd"}),
            json!({"kind": "remasking", "rule": "loop"}),
        ),
    ] {
        let model = lab.run(
            &train(&json!({"steps": 6, "objective": objective})),
            &[("from", &rows)],
        );
        let mask = ModelInfo::open(&model).unwrap().special.mask;
        let output = lab.run(
            &sample(&json!({"sampler": sampler, "steps": 3, "count": 2})),
            &[("model", &model)],
        );
        let found: Vec<SampleLine> = lines(&output, "samples.jsonl");
        assert!(found.iter().all(|row| !row.tokens.contains(&mask)), "{sampler}");
        let refusal = lab.refused(
            &sample(&json!({"sampler": {"kind": "autoregressive"}})),
            &[("model", &model)],
        );
        assert!(refusal.contains("depend on both sides"), "{refusal}");
    }
}
