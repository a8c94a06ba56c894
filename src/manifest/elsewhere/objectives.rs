//! Objectives, samplers and estimates as other programs, papers and the MDLM authors' configuration write them.

use serde_json::{Map, Value, json};

use super::fields::SYNONYMS;
use crate::manifest::fault::{argument, spaced};
use crate::manifest::instance::SIGN;
use crate::manifest::json::{Node, pointer_join, pointer_tokens};
use crate::manifest::schema_parts::stage_schema;
use crate::manifest::{DEFAULT_D3PM_STEPS, Objective};

/// Kinds as other programs and papers call them: the field that has the `kind`, their names, and ours.
const KINDS: &[(&str, &[&str], &[&str])] = &[
    (
        "objective",
        &[
            "arm",
            "autoregression",
            "autoregressive",
            "causal",
            "causal_lm",
            "clm",
            "gpt",
            "gpt2",
            "lm",
            "next_token",
        ],
        &["ar"],
    ),
    (
        "objective",
        &["bert", "bert_mouth", "masked_language_modelling", "masked_lm"],
        &["mlm"],
    ),
    (
        "objective",
        &["diffusion", "masked_diffusion", "md4", "mdm", "subs"],
        &["mdlm"],
    ),
    ("objective", &["score", "score_entropy"], &["sedd"]),
    (
        "objective",
        &["absorb", "absorbing", "absorbing_state"],
        &["mdlm", "sedd", "d3pm"],
    ),
    ("sampler", &["ddpm"], &["ancestral"]),
    ("sampler", &["ddpm_cache"], &["cached"]),
    ("sampler", &["fhs", "first_hitting_sampler"], &["first_hitting"]),
    (
        "sampler",
        &["ar", "autoregression", "left_to_right"],
        &["autoregressive"],
    ),
    ("times", &["importance_sampling"], &["importance"]),
];

/// The kinds that a name of another program may stand for, in the field that has the `kind`.
#[must_use]
pub fn kinds_meant(field: &str, name: &str) -> Option<&'static [&'static str]> {
    let name = name.to_lowercase().replace(['-', ' '], "_");
    let found = KINDS
        .iter()
        .find(|(of, names, _)| *of == field && names.contains(&&*name));
    found.map(|(.., ours)| *ours)
}

/// The way out where a field of the MDLM authors' configuration about training stands in a train stage or in its
/// objective: the objective to write.
pub(in crate::manifest) fn of_authors(tree: &Node, pointer: &str, key: &str) -> Option<String> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let (["stages", name] | ["stages", name, "objective"]) = tokens.as_slice() else {
        return None;
    };
    let stage = tree.at(&pointer_join("/stages", name))?;
    let kind = stage.member("kind").and_then(|kind| kind.value.as_str());
    let member = tree.at(pointer)?.member(key)?;
    let value = member.value.to_json();
    let is_off = value == false || value == 0;
    if key == "T" && is_off && matches!(kind, Some("train" | "evaluate")) {
        return Some("leave it out: continuous time is the default".to_owned());
    }
    if kind != Some("train") {
        return None;
    }
    let fields = match (key, value.as_str()) {
        ("T", _) => json!({ "steps": value }),
        ("importance_sampling" | "change_of_variables" | "subs_masking", _) if is_off => {
            return Some("leave it out: it is off by default".to_owned());
        }
        ("importance_sampling", _) => json!({ "times": { "kind": "importance" } }),
        ("change_of_variables", _) => json!({ "times": { "kind": "change_of_variables" } }),
        // D3PM whose mask has no probability (arXiv 2406.07524, eq. 41).
        ("subs_masking", _) => {
            json!({ "kind": "mdlm", "steps": DEFAULT_D3PM_STEPS, "carry_over": false })
        }
        ("parameterization", Some(written)) => {
            let names = Objective::every_kind().map(|objective| objective.kind());
            let ours = names.into_iter().find(|name| *name == written);
            let ours = ours.or_else(|| Some(kinds_meant("objective", written)?[0]))?;
            json!({ "kind": ours })
        }
        ("sampling_eps" | "antithetic_sampling", _) => {
            let (_, ours) = SYNONYMS.iter().find(|(other, _)| *other == key)?;
            json!({ *ours: value })
        }
        _ => return None,
    };
    let fields = fields.as_object()?.clone();
    let (name, point) = name.split_once(SIGN).unwrap_or((*name, ""));
    if point.contains(key) {
        return None;
    }
    let objective = stage
        .member("objective")
        .map(|objective| objective.value.to_json());
    let mut written = match objective {
        Some(Value::Object(written)) => written,
        _ => Map::from_iter([("kind".to_owned(), json!("mdlm"))]),
    };
    written.shift_remove(key);
    written.extend(fields.clone());
    let kinds = stage_schema("train")?["properties"]["objective"]["oneOf"].as_array()?;
    let branch = kinds
        .iter()
        .find(|branch| branch["properties"]["kind"]["const"] == written["kind"])?;
    if written
        .keys()
        .any(|field| branch["properties"].get(field).is_none())
    {
        return None;
    }
    if member.key_span.source > 0 {
        let set =
            |(field, value): (&String, &Value)| argument(&format!("stages.{name}.objective.{field}"), value);
        let arguments: Vec<_> = fields.iter().map(set).collect();
        return Some(format!("`{}`", arguments.join(" ")));
    }
    Some(format!(
        "write `\"objective\": {}`",
        spaced(&Value::Object(written))
    ))
}

/// The way out where `steps` of an objective or an evaluation is 0, which other programs take for continuous time.
pub(in crate::manifest) fn continuous_time(tree: &Node, pointer: &str) -> Option<&'static str> {
    let tokens: Vec<_> = pointer_tokens(pointer).collect();
    let tokens: Vec<&str> = tokens.iter().map(String::as_str).collect();
    let kind_of = |object: &str| tree.at(object)?.member("kind")?.value.as_str();
    match tokens.as_slice() {
        ["stages", name, "steps"] => (kind_of(&pointer_join("/stages", name)) == Some("evaluate"))
            .then_some("leave `steps` out for continuous time, or for the `steps` of the model's objective"),
        ["stages", _, "objective", "steps"] => match kind_of(pointer.strip_suffix("/steps")?) {
            Some("d3pm") => Some("`d3pm` has no continuous time: leave `steps` out for its default"),
            _ => Some("leave `steps` out for continuous time"),
        },
        _ => None,
    }
}

/// The way out where an estimator is asked for the number of the published code.
pub(in crate::manifest) fn published_estimator(pointer: &str, written: &str) -> Option<&'static str> {
    let is_published = ["authors", "mdlm", "paper", "published"].contains(&written);
    (pointer.ends_with("/estimator") && is_published)
        .then_some("leave `estimator` out and write `\"bound\": \"published\"`, the published number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::shape::tests::EXAMPLES;

    /// A manifest with these settings of its train stage.
    fn trained(settings: &Value, overrides: &[String]) -> Result<crate::manifest::Loaded, Vec<String>> {
        let mut train = json!({ "kind": "train", "from": "rows", "shape": "nano", "steps": 9000 });
        train
            .as_object_mut()
            .unwrap()
            .extend(settings.as_object().unwrap().clone());
        let manifest = json!({ "name": "x", "seed": 1, "stages": {
            "text": { "kind": "source", "input": { "kind": "files", "files": ["a"] } },
            "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
            "rows": { "kind": "pack", "from": "tokens", "length": 32 },
            "model": train,
        } });
        let loaded = Manifest::from_bytes("x", manifest.to_string().into_bytes(), overrides, EXAMPLES);
        loaded.map_err(|faults| {
            let hints = faults.list.into_iter().filter_map(|fault| fault.hint);
            hints.collect()
        })
    }

    #[test]
    fn hint_for_an_objective_as_others_write_it_is_the_object_to_write() {
        for (settings, expected) in [
            (json!({ "objective": "ar" }), r#"{ "kind": "ar" }"#),
            (json!({ "objective": "gpt" }), r#"{ "kind": "ar" }"#),
            (json!({ "objective": "BERT" }), r#"{ "kind": "mlm" }"#),
            (json!({ "objective": "subs" }), r#"{ "kind": "mdlm" }"#),
            (json!({ "objective": "d3mp" }), r#"{ "kind": "d3pm" }"#),
            (json!({ "T": 1000 }), r#"{ "kind": "mdlm", "steps": 1000 }"#),
            (
                json!({ "objective": { "kind": "mdlm", "T": 1000, "antithetic": false } }),
                r#"{ "kind": "mdlm", "antithetic": false, "steps": 1000 }"#,
            ),
            (json!({ "parameterization": "d3pm" }), r#"{ "kind": "d3pm" }"#),
            (json!({ "parameterization": "subs" }), r#"{ "kind": "mdlm" }"#),
            (
                json!({ "subs_masking": true }),
                r#"{ "kind": "mdlm", "steps": 1000, "carry_over": false }"#,
            ),
            (
                json!({ "objective": { "kind": "mdlm", "importance_sampling": true } }),
                r#"{ "kind": "mdlm", "times": { "kind": "importance" } }"#,
            ),
            (
                json!({ "change_of_variables": true }),
                r#"{ "kind": "mdlm", "times": { "kind": "change_of_variables" } }"#,
            ),
            (
                json!({ "sampling_eps": 0.01 }),
                r#"{ "kind": "mdlm", "sampling_epsilon": 0.01 }"#,
            ),
        ] {
            let hint = format!("write `\"objective\": {expected}`");
            assert_eq!(trained(&settings, &[]).unwrap_err(), [hint], "{settings}");
            let objective: Value = serde_json::from_str(expected).unwrap();
            trained(&json!({ "objective": objective }), &[]).unwrap();
        }
        for (settings, hint) in [
            (json!({ "T": 0 }), "leave it out: continuous time is the default"),
            (
                json!({ "objective": { "kind": "mdlm", "change_of_variables": false } }),
                "leave it out: it is off by default",
            ),
            (json!({ "objective": { "kind": "gpt" } }), "did you mean `ar`?"),
            (
                json!({ "objective": { "kind": "autoregressive" } }),
                "did you mean `ar`?",
            ),
            (
                json!({ "objective": { "kind": "score_entropy" } }),
                "did you mean `sedd`?",
            ),
            (
                json!({ "objective": { "kind": "absorb" } }),
                "did you mean `mdlm`, `sedd` or `d3pm`?",
            ),
            (
                json!({ "objective": { "kind": "mlm", "mlm_probability": 0.3 } }),
                "did you mean `rate`?",
            ),
        ] {
            assert_eq!(trained(&settings, &[]).unwrap_err(), [hint], "{settings}");
        }
        // Scores have no steps, and no hint writes them.
        let sedd = json!({ "objective": { "kind": "sedd", "T": 1000 } });
        assert_eq!(trained(&sedd, &[]).unwrap_err(), [""; 0]);
        for (argument, way) in [
            (
                "stages.model.objective=gpt",
                "--set stages.model.objective.kind=ar",
            ),
            (
                "stages.model.objective.importance_sampling=true",
                r#"--set 'stages.model.objective.times={"kind":"importance"}'"#,
            ),
            ("stages.model.T=1000", "--set stages.model.objective.steps=1000"),
        ] {
            let hints = trained(&json!({}), &[argument.to_owned()]).unwrap_err();
            assert_eq!(hints, [format!("`{way}`")], "{argument}");
            let followed = way.trim_start_matches("--set ").trim_matches('\'').to_owned();
            trained(&json!({}), &[followed]).unwrap();
        }
    }

    #[test]
    fn hints_for_continuous_time_and_for_the_published_number_name_the_field() {
        let hint = |objective: Value, evaluate: Value| {
            let mut bound = json!({ "kind": "evaluate", "model": "model", "data": "rows" });
            let settings = evaluate.as_object().unwrap().clone();
            bound.as_object_mut().unwrap().extend(settings);
            let manifest = json!({ "name": "x", "seed": 1, "stages": {
                "text": { "kind": "source", "input": { "kind": "files", "files": ["a.txt"] } },
                "tokens": { "kind": "tokenize", "from": "text", "tokenizer": { "kind": "characters" } },
                "rows": { "kind": "pack", "from": "tokens", "length": 32, "validation": 0.1 },
                "model": {
                    "kind": "train", "from": "rows", "shape": "nano", "steps": 9000, "objective": objective,
                },
                "bound": bound,
            } });
            let bytes = manifest.to_string().into_bytes();
            let faults = Manifest::from_bytes("x.json", bytes, &[], EXAMPLES).unwrap_err();
            faults.list[0].hint.clone().unwrap_or_default()
        };
        let mdlm = json!({ "kind": "mdlm" });
        let none = json!({});
        let of_zero = |kind: &str| hint(json!({ "kind": kind, "steps": 0 }), none.clone());
        assert_eq!(of_zero("mdlm"), "leave `steps` out for continuous time");
        assert_eq!(
            of_zero("d3pm"),
            "`d3pm` has no continuous time: leave `steps` out for its default"
        );
        assert_eq!(
            hint(mdlm.clone(), json!({ "steps": 0 })),
            "leave `steps` out for continuous time, or for the `steps` of the model's objective"
        );
        assert_eq!(
            hint(json!({ "kind": "mdlm", "steps": 2_000_000 }), none.clone()),
            ""
        );
        assert_eq!(
            hint(mdlm, json!({ "estimator": "authors" })),
            "leave `estimator` out and write `\"bound\": \"published\"`, the published number"
        );
    }
}
