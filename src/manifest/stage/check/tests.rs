//! Faults of objectives, and of estimators and samplers that do not fit the objective of their model: their texts, and
//! that each way of each hint leads to a valid manifest.

use serde_json::{Value, json};

use crate::manifest::fault::Fault;
use crate::manifest::{Faults, Loaded, Manifest};
use crate::shape::tests::EXAMPLES;

/// A pipeline whose model has this objective, with these settings of its evaluation and of its samples.
fn pipeline(objective: &Value, evaluate: &Value, sample: &Value) -> Value {
    let with = |mut stage: Value, settings: &Value| {
        let settings = settings.as_object().unwrap().clone();
        stage.as_object_mut().unwrap().extend(settings);
        stage
    };
    json!({ "name": "x", "seed": 1, "stages": {
        "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
        "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
        "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
        "model": with(json!({ "kind": "train", "from": "rows", "shape": "nano", "steps": 9000 }), objective),
        "bound": with(json!({ "kind": "evaluate", "model": "model", "data": "rows" }), evaluate),
        "texts": with(json!({ "kind": "sample", "model": "model", "count": 3 }), sample),
    } })
}

fn load(manifest: &Value) -> Result<Loaded, Faults> {
    Manifest::from_bytes("x.json", manifest.to_string().into_bytes(), &[], EXAMPLES)
}

/// The manifest after one of the ways of a hint.
fn follow(mut manifest: Value, fault: &Fault, way: &str) -> Value {
    let parent = fault.pointer.rsplit_once('/').unwrap().0;
    let quoted =
        |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    let remove = |object: &mut Value, field: &str| {
        let removed = object.as_object_mut().unwrap().remove(field);
        assert!(removed.is_some(), "there is no {field} to leave out");
    };
    if way == "train without time conditioning" {
        remove(&mut manifest["stages"]["model"]["objective"], "time_conditioning");
        return manifest;
    }
    if way == "train with log-linear noise" {
        remove(&mut manifest["stages"]["model"]["objective"], "noise");
        return manifest;
    }
    if way.starts_with("leave ") {
        for field in quoted(way.split(':').next().unwrap()) {
            remove(manifest.pointer_mut(parent).unwrap(), &field);
        }
        return manifest;
    }
    let object = if way.starts_with("add ") {
        assert!(way.ends_with(" to `objective`"), "{way}");
        &mut manifest["stages"]["model"]["objective"]
    } else {
        assert!(way.starts_with("set "), "{way}");
        manifest.pointer_mut(parent).unwrap()
    };
    let fields: Value = serde_json::from_str(&format!("{{ {} }}", quoted(way)[0])).unwrap();
    object
        .as_object_mut()
        .unwrap()
        .extend(fields.as_object().unwrap().clone());
    manifest
}

/// Checks the faults, each as pointer, message, the text at the related place and hint, and that each way of each hint
/// makes a manifest that is valid when the other faults are mended too.
#[expect(clippy::needless_pass_by_value, reason = "callers write the values in place")]
fn check(objective: Value, evaluate: Value, sample: Value, expected: &[[&str; 4]]) {
    let objective = if objective.is_null() {
        json!({})
    } else {
        json!({ "objective": objective })
    };
    let manifest = pipeline(&objective, &evaluate, &sample);
    let faults = match load(&manifest) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.list,
    };
    let found: Vec<[&str; 4]> = faults
        .iter()
        .map(|fault| {
            let related = fault
                .related
                .first()
                .map_or("", |related| related.message.as_str());
            let hint = fault.hint.as_deref().unwrap_or_default();
            [
                fault.pointer.trim_start_matches("/stages/"),
                &fault.message,
                related,
                hint,
            ]
        })
        .collect();
    assert_eq!(found, expected, "{manifest}");
    let ways = |fault: &Fault| -> Vec<String> {
        let hint = fault.hint.clone().unwrap();
        hint.split(", or ").map(str::to_owned).collect()
    };
    for (index, fault) in faults.iter().enumerate() {
        assert!(fault.expected.is_some(), "{fault}");
        for way in ways(fault) {
            let mut mended = follow(manifest.clone(), fault, &way);
            for (_, other) in faults.iter().enumerate().filter(|(other, _)| *other != index) {
                mended = follow(mended, other, &ways(other)[0]);
            }
            if let Err(faults) = load(&mended) {
                panic!("{way}: {faults}\n{mended}");
            }
        }
    }
}

fn of_objective(objective: Value, expected: &[[&str; 4]]) {
    check(objective, json!({}), json!({}), expected);
}

fn of_evaluation(objective: Value, evaluate: Value, expected: &[[&str; 4]]) {
    check(objective, evaluate, json!({}), expected);
}

fn of_samples(objective: Value, sample: Value, expected: &[[&str; 4]]) {
    check(objective, json!({}), sample, expected);
}

#[test]
fn settings_that_exclude_each_other_are_faults() {
    of_objective(
        json!({ "kind": "sedd", "time_conditioning": false }),
        &[[
            "model/objective/time_conditioning",
            "`sedd` predicts scores, which depend on the noise level: its network needs time conditioning",
            "",
            "leave `time_conditioning` out: `sedd` has it",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "zero_masking": false }),
        &[[
            "model/objective/zero_masking",
            "without `zero_masking` the bound exists in discrete time only, but the objective has no `steps`",
            "",
            "add `\"steps\": 1000` to `objective`, or leave `zero_masking` out",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "carry_over": false, "zero_masking": false }),
        &[[
            "model/objective/zero_masking",
            "without `zero_masking` and `carry_over` the bound exists in discrete time only, but the objective has no \
             `steps`",
            "",
            "add `\"steps\": 1000` to `objective`, or leave `zero_masking` and `carry_over` out",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "steps": 50, "carry_over": false, "weighting": "cross_entropy" }),
        &[[
            "model/objective/weighting",
            "`cross_entropy` weighs −log p of masked tokens, but without `carry_over` the loss is another",
            "switched off here",
            "leave `weighting` out, or leave `carry_over` out",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "steps": 50, "times": { "kind": "importance" } }),
        &[[
            "model/objective/times",
            "`times` is a distribution of continuous times, but time is discrete here",
            "discrete time",
            "leave `times` out, or leave `steps` out for continuous time",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "steps": 50, "sampling_epsilon": 0.01 }),
        &[[
            "model/objective/sampling_epsilon",
            "`sampling_epsilon` is the smallest continuous time, but time is discrete here",
            "discrete time",
            "leave `sampling_epsilon` out",
        ]],
    );
    of_objective(
        json!({ "kind": "mdlm", "steps": 50, "sampling_epsilon": 0.001 }),
        &[],
    );
    of_objective(
        json!({ "kind": "mdlm", "zero_masking": false, "times": { "kind": "bell" } }),
        &[
            [
                "model/objective/zero_masking",
                "without `zero_masking` the bound exists in discrete time only, but the objective has no `steps`",
                "",
                "add `\"steps\": 1000` to `objective`, or leave `zero_masking` out",
            ],
            [
                "model/objective/times",
                "`times` is a distribution of continuous times, but time is discrete here",
                "switched off here",
                "leave `times` out",
            ],
        ],
    );
}

#[test]
fn numbers_that_exclude_each_other_are_faults() {
    for (low, high, way) in [
        (0.8, 0.3, "set `\"low\": 0.3, \"high\": 0.8`"),
        (0.3, 0.3, "set `\"high\": 1`"),
        (1.0, 1.0, "set `\"low\": 0.5`"),
    ] {
        let times = json!({ "kind": "clipped", "low": low, "high": high });
        of_objective(
            json!({ "kind": "mdlm", "times": times }),
            &[[
                "model/objective/times/high",
                &format!("`high` {high} is not above `low` {low}"),
                "the lower limit",
                way,
            ]],
        );
    }
    for kind in ["mdlm", "sedd", "d3pm"] {
        let noise = json!({ "kind": "geometric", "sigma_min": 1, "sigma_max": 1 });
        of_objective(
            json!({ "kind": kind, "noise": noise }),
            &[[
                "model/objective/noise/sigma_max",
                "`sigma_max` 1 is not above `sigma_min` 1",
                "",
                "set `\"sigma_min\": 1e-4`",
            ]],
        );
    }
    for kind in ["linear", "geometric"] {
        let noise = |most: f64| json!({ "kind": kind, "sigma_min": 1e-4, "sigma_max": most });
        of_objective(
            json!({ "kind": "sedd", "noise": noise(87.5) }),
            &[[
                "model/objective/noise/sigma_max",
                "`sigma_max` 87.5 is too large for `sedd`: the scores at that noise, 1 / (e^σ − 1), are too small for f32",
                "",
                "set `\"sigma_max\": 20`",
            ]],
        );
        of_objective(json!({ "kind": "sedd", "noise": noise(87.0) }), &[]);
        of_objective(json!({ "kind": "mdlm", "noise": noise(1000.0) }), &[]);
    }
    of_objective(
        json!({ "kind": "mlm", "random": 0.95 }),
        &[[
            "model/objective/random",
            "`random` 0.95 and the default `kept` 0.1 add up to more than 1, and both are shares of the chosen tokens",
            "",
            "set `\"kept\": 0.05`",
        ]],
    );
    of_objective(
        json!({ "kind": "mlm", "kept": 1 }),
        &[[
            "model/objective/kept",
            "the default `random` 0.1 and `kept` 1 add up to more than 1, and both are shares of the chosen tokens",
            "",
            "set `\"random\": 0`",
        ]],
    );
    of_objective(
        json!({ "kind": "mlm", "random": 0.7, "kept": 0.7 }),
        &[[
            "model/objective/random",
            "`random` 0.7 and `kept` 0.7 add up to more than 1, and both are shares of the chosen tokens",
            "the other share",
            "set `\"kept\": 0.3`",
        ]],
    );
}

#[test]
fn estimators_that_do_not_fit_the_objective_are_faults() {
    let masked = json!({ "kind": "mdlm", "time_conditioning": true });
    for estimator in ["count", "pseudo"] {
        let written = json!({ "estimator": estimator });
        of_evaluation(
            masked.clone(),
            written.clone(),
            &[[
                "bound/estimator",
                &format!(
                    "estimator `{estimator}` needs a model without time conditioning, but `model` has it"
                ),
                "switched on here",
                "set `\"estimator\": \"time\"`, or train without time conditioning",
            ]],
        );
        for (objective, reason, related) in [
            (
                json!({ "kind": "sedd" }),
                "the scores of `sedd` depend on the time",
                "its objective is `sedd`",
            ),
            (
                json!({ "kind": "d3pm", "time_conditioning": false }),
                "`d3pm` has a bound in discrete time only",
                "its objective is `d3pm`",
            ),
            (
                json!({ "kind": "mdlm", "steps": 9, "zero_masking": false }),
                "without `zero_masking` there is a bound in discrete time only",
                "switched off here",
            ),
            (
                json!({ "kind": "mdlm", "steps": 9, "carry_over": false }),
                "without `carry_over` there is a bound in discrete time only",
                "switched off here",
            ),
        ] {
            of_evaluation(
                objective,
                written.clone(),
                &[[
                    "bound/estimator",
                    &format!("estimator `{estimator}` does not fit `model`: {reason}"),
                    related,
                    "set `\"estimator\": \"time\"`",
                ]],
            );
        }
    }
    for estimator in ["time", "count", "pseudo"] {
        of_evaluation(
            json!({ "kind": "ar" }),
            json!({ "estimator": estimator }),
            &[[
                "bound/estimator",
                &format!("estimator `{estimator}` does not fit `model`: the likelihood of `ar` is exact"),
                "its objective is `ar`",
                "set `\"estimator\": \"exact\"`",
            ]],
        );
    }
    of_evaluation(
        Value::Null,
        json!({ "estimator": "exact" }),
        &[[
            "bound/estimator",
            "estimator `exact` does not fit `model`: `mdlm` has no exact likelihood",
            "its objective is `mdlm`",
            "set `\"estimator\": \"time\"`",
        ]],
    );
    of_evaluation(
        json!({ "kind": "mlm" }),
        json!({ "estimator": "time" }),
        &[[
            "bound/estimator",
            "estimator `time` does not fit `model`: `mlm` is trained at one masking rate and has no bound by times",
            "its objective is `mlm`",
            "set `\"estimator\": \"pseudo\"`",
        ]],
    );
}

#[test]
fn published_numbers_in_steps_need_log_linear_noise() {
    let cosine = json!({ "kind": "cosine" });
    let of_noise = [[
        "bound/bound",
        "the published number does not fit `model`: with `steps`, the published code weighs losses as of log-linear noise",
        "its noise",
        "leave `bound` out, or train with log-linear noise",
    ]];
    let published = json!({ "bound": "published" });
    of_evaluation(
        json!({ "kind": "d3pm", "noise": cosine }),
        published.clone(),
        &of_noise,
    );
    of_evaluation(
        json!({ "kind": "mdlm", "steps": 9, "noise": cosine }),
        published.clone(),
        &of_noise,
    );
    let in_steps = json!({ "bound": "published", "steps": 9 });
    of_evaluation(
        json!({ "kind": "mdlm", "noise": cosine }),
        in_steps.clone(),
        &of_noise,
    );
    of_evaluation(
        json!({ "kind": "sedd" }),
        in_steps.clone(),
        &[[
            "bound/bound",
            "the published number does not fit `model`: the published code has no `sedd` in discrete time",
            "its objective is `sedd`",
            "leave `bound` out, or leave `steps` out",
        ]],
    );
    of_evaluation(json!({ "kind": "mdlm", "noise": cosine }), published.clone(), &[]);
    of_evaluation(json!({ "kind": "sedd" }), published.clone(), &[]);
    of_evaluation(json!({ "kind": "d3pm" }), published, &[]);
    of_evaluation(Value::Null, in_steps, &[]);
}

#[test]
fn settings_of_other_estimators_are_faults() {
    of_evaluation(
        Value::Null,
        json!({ "estimator": "count", "steps": 100, "bound": "published" }),
        &[
            [
                "bound/steps",
                "`steps` makes the times of the bound discrete, but estimator `count` draws no times",
                "its objective is `mdlm`",
                "leave `steps` out, or set `\"estimator\": \"time\"`",
            ],
            [
                "bound/bound",
                "the published number is a mean over times, but estimator `count` draws no times",
                "its objective is `mdlm`",
                "leave `bound` out, or set `\"estimator\": \"time\"`",
            ],
        ],
    );
    of_evaluation(
        json!({ "kind": "ar" }),
        json!({ "steps": 100, "draws": 8 }),
        &[[
            "bound/steps",
            "`steps` makes the times of the bound discrete, but the model's estimator `exact` draws no times",
            "its objective is `ar`",
            "leave `steps` out",
        ]],
    );
    // An estimator that does not fit, and what does not fit the one that does.
    of_evaluation(
        json!({ "kind": "mlm" }),
        json!({ "estimator": "time", "bound": "published" }),
        &[
            [
                "bound/estimator",
                "estimator `time` does not fit `model`: `mlm` is trained at one masking rate and has no bound by times",
                "its objective is `mlm`",
                "set `\"estimator\": \"pseudo\"`",
            ],
            [
                "bound/bound",
                "the published number is a mean over times, but the model's estimator `pseudo` draws no times",
                "its objective is `mlm`",
                "leave `bound` out",
            ],
        ],
    );
}

#[test]
fn samplers_and_settings_that_do_not_fit_the_objective_are_faults() {
    for sampler in ["ancestral", "cached"] {
        of_samples(
            json!({ "kind": "ar" }),
            json!({ "sampler": { "kind": sampler } }),
            &[[
                "texts/sampler",
                &format!(
                    "sampler `{sampler}` does not fit `model`: a model of `ar` is sampled from left to right"
                ),
                "its objective is `ar`",
                "set `\"sampler\": { \"kind\": \"autoregressive\" }`",
            ]],
        );
    }
    for (objective, fitting) in [
        ("mdlm", "cached"),
        ("sedd", "ancestral"),
        ("d3pm", "ancestral"),
        ("mlm", "cached"),
    ] {
        of_samples(
            json!({ "kind": objective }),
            json!({ "sampler": { "kind": "autoregressive" } }),
            &[[
                "texts/sampler",
                &format!(
                    "sampler `autoregressive` does not fit `model`: the tokens of `{objective}` depend on both sides"
                ),
                &format!("its objective is `{objective}`"),
                &format!("set `\"sampler\": {{ \"kind\": \"{fitting}\" }}`"),
            ]],
        );
    }
    let cached = json!({ "sampler": { "kind": "cached", "grid": "published" } });
    let way = "set `\"sampler\": { \"kind\": \"ancestral\", \"grid\": \"published\" }`";
    of_samples(
        json!({ "kind": "mdlm", "time_conditioning": true }),
        cached.clone(),
        &[[
            "texts/sampler",
            "sampler `cached` needs a model without time conditioning, but `model` has it",
            "switched on here",
            &format!("{way}, or train without time conditioning"),
        ]],
    );
    let mask = "its network gives the mask a probability, which decides what a step unmasks";
    for (objective, reason, related) in [
        (
            json!({ "kind": "sedd" }),
            "the scores of `sedd` depend on the time",
            "its objective is `sedd`",
        ),
        (json!({ "kind": "d3pm" }), mask, "its objective is `d3pm`"),
        (
            json!({ "kind": "mdlm", "steps": 9, "zero_masking": false }),
            mask,
            "switched off here",
        ),
    ] {
        let message = format!("sampler `cached` does not fit `model`: {reason}");
        of_samples(
            objective,
            cached.clone(),
            &[["texts/sampler", &message, related, way]],
        );
    }
}

#[test]
fn settings_that_fit_and_defaults_are_valid() {
    for (objective, evaluate, sample) in [
        (Value::Null, json!({}), json!({})),
        (json!({ "kind": "ar" }), json!({}), json!({})),
        // One field of a manifest chooses the objective: what the others say of draws and steps stays.
        (
            json!({ "kind": "ar" }),
            json!({ "draws": 8 }),
            json!({ "steps": 64, "given_ends": true }),
        ),
        (json!({ "kind": "sedd" }), json!({ "steps": 100 }), json!({})),
        (
            json!({ "kind": "d3pm" }),
            json!({ "draws": 2 }),
            json!({ "steps": 9 }),
        ),
        (json!({ "kind": "mlm" }), json!({}), json!({ "given_ends": true })),
        (
            json!({ "kind": "mlm", "rate": 0.5, "random": 0.5, "kept": 0.5 }),
            json!({ "estimator": "count", "draws": 2 }),
            json!({ "sampler": { "kind": "cached" } }),
        ),
        (
            json!({ "kind": "mdlm", "time_conditioning": true, "times": { "kind": "change_of_variables" } }),
            json!({ "bound": "published" }),
            json!({}),
        ),
        (
            json!({ "kind": "mdlm", "times": { "kind": "change_of_variables" } }),
            json!({ "estimator": "pseudo" }),
            json!({}),
        ),
        (
            json!({ "kind": "mdlm", "steps": 20, "zero_masking": false, "carry_over": false }),
            json!({}),
            json!({}),
        ),
        (
            json!({ "kind": "mdlm", "steps": 20, "weighting": "cross_entropy" }),
            json!({ "steps": 5 }),
            json!({}),
        ),
    ] {
        check(objective, evaluate, sample, &[]);
    }
}

#[test]
fn hint_for_an_objective_of_an_override_is_an_override() {
    let manifest = pipeline(
        &json!({}),
        &json!({ "draws": 8, "steps": 9 }),
        &json!({ "steps": 64 }),
    );
    let mut overrides = vec!["stages.model.objective.kind=ar".to_owned()];
    let load = |overrides: &[String]| {
        Manifest::from_bytes("x.json", manifest.to_string().into_bytes(), overrides, EXAMPLES)
    };
    let faults = load(&overrides).unwrap_err();
    let ways: Vec<_> = faults
        .list
        .iter()
        .map(|fault| {
            let hint = fault.hint.as_deref().unwrap();
            let way = hint.split("`--set ").nth(1).unwrap();
            way.trim_end_matches('`').to_owned()
        })
        .collect();
    assert_eq!(ways.len(), 1, "{faults}");
    overrides.extend(ways);
    load(&overrides).unwrap();
}
