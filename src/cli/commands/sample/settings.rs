//! The options of `mdlm sample` as the settings of a sample stage, and its faults in words of the command line.

use serde_json::{Map, Value, json};

use super::Args;
use mdlm::error::{Error, Result};
use mdlm::manifest::template::escape;
use mdlm::manifest::{RefusedSetting, Sample, SampledModel, Sampler, SemiAutoregressive};
use mdlm::shapes::SHAPES;
use mdlm::stages::trained::ModelInfo;

/// Settings of a sample stage, and the option that has each.
const OPTIONS: [(&str, &str); 20] = [
    ("count", "--count"),
    ("steps", "--steps"),
    ("sampler", "--sampler"),
    ("given_ends", "--given-ends"),
    ("temperature", "--temperature"),
    ("top_k", "--top-k"),
    ("top_p", "--top-p"),
    ("min_p", "--min-p"),
    ("repetition_penalty", "--repetition-penalty"),
    ("guidance", "--guidance"),
    ("end_of_text", "--end-of-text"),
    ("weights", "--weights"),
    ("seed", "--seed"),
    ("prompt", "--prompt"),
    ("suffix", "--suffix"),
    ("template", "--infill"),
    ("file", "--given"),
    ("given/prompt", "--prompt"),
    ("given/suffix", "--suffix"),
    ("given/template", "--infill"),
];

/// The number that an option has, as JSON; the settings say which numbers they take.
pub fn number(text: &str) -> std::result::Result<Value, String> {
    let plain = text.strip_prefix('+').unwrap_or(text);
    match serde_json::from_str(plain) {
        Ok(number @ Value::Number(_)) => Ok(number),
        _ => Err("expected a number".to_owned()),
    }
}

/// The settings of the options, checked for the model.
///
/// # Errors
/// The first setting that is refused, with its option and a way out; the others stand beside it.
pub fn of(args: &Args, model: &ModelInfo) -> Result<Sample> {
    let mut fields = Map::new();
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            fields.insert(name.to_owned(), value);
        }
    };
    set("count", Some(args.count.clone()));
    set("steps", args.steps.clone());
    set("temperature", args.temperature.clone());
    set("top_k", args.top_k.clone());
    set("top_p", args.top_p.clone());
    set("min_p", args.min_p.clone());
    set("repetition_penalty", args.repetition_penalty.clone());
    set("guidance", args.guidance.clone());
    set("end_of_text", args.end_of_text.clone().map(Value::String));
    set("given_ends", args.given_ends.then_some(Value::Bool(true)));
    set("weights", args.weights.clone().map(Value::String));
    set("seed", Some(args.seed.clone()));
    set("given", given(args));
    let sampler = args.sampler.as_deref().map(sampler).transpose()?;
    let sampler = match &args.length {
        Some(length) => windows(length, sampler, model)?,
        None => sampler,
    };
    // The default is stated: what else is asked for must fit it too.
    set(
        "sampler",
        sampler.or_else(|| serde_json::to_value(model.objective.samplers()[0]).ok()),
    );
    let model = SampledModel {
        shape: &model.shape,
        objective: &model.objective,
        shapes: SHAPES,
    };
    Sample::from_fields(&fields, model, &|refused| said(refused, args))
}

/// The given tokens. A prompt and a suffix beside a template belong to its text.
fn given(args: &Args) -> Option<Value> {
    let mut given = Map::new();
    let mut set = |name: &str, text: Option<String>| {
        if let Some(text) = text {
            given.insert(name.to_owned(), Value::String(text));
        }
    };
    let text = |part: &Option<String>| escape(part.as_deref().unwrap_or_default());
    if let Some(infill) = &args.infill {
        let template = format!("{}{infill}{}", text(&args.prompt), text(&args.suffix));
        set("template", Some(template));
    } else {
        set("prompt", args.prompt.clone());
        set("suffix", args.suffix.clone());
    }
    let file = args.given.as_ref();
    set("file", file.map(|path| path.to_string_lossy().into_owned()));
    (!given.is_empty()).then_some(Value::Object(given))
}

/// The options that give a text; nothing where a file does.
pub fn given_by(args: &Args) -> Option<String> {
    let options = [
        ("--prompt", args.prompt.is_some()),
        ("--infill", args.infill.is_some()),
        ("--suffix", args.suffix.is_some()),
    ];
    let stated = options.into_iter().filter(|(_, is_stated)| *is_stated);
    let stated: Vec<_> = stated.map(|(option, _)| format!("`{option}`")).collect();
    (!stated.is_empty()).then(|| stated.join(" and "))
}

/// A sampler: the name of a kind, with its defaults, or an object as in a manifest.
fn sampler(text: &str) -> Result<Value> {
    if !text.trim_start().starts_with('{') {
        return Ok(json!({ "kind": text }));
    }
    serde_json::from_str(text).map_err(|error| {
        Error::input(format!("`--sampler`: `{text}` is not JSON: {error}")).hint(
            "give a kind, or an object as in a manifest: `--sampler '{ \"kind\": \"confidence\", \"block\": 16 }'`",
        )
    })
}

/// The sampler of texts with so many tokens; the stated one draws their windows.
fn windows(length: &Value, stated: Option<Value>, model: &ModelInfo) -> Result<Option<Value>> {
    let row = model.length;
    let long = Sampler::SemiAutoregressive(SemiAutoregressive::default());
    if let Some(misfit) = model.objective.misfit_of_sampler(&long) {
        let message = format!("`--length` does not fit the model: {}", misfit.reason);
        return Err(Error::input(message).hint(format!("leave it out: a text has {row} tokens")));
    }
    if length.as_u64() == Some(u64::from(row)) {
        return Ok(stated);
    }
    let kind = long.kind();
    let Some(Value::Object(mut stated)) = stated else {
        return Ok(Some(json!({ "kind": kind, "length": length })));
    };
    let written = stated.get("kind").and_then(Value::as_str).unwrap_or_default();
    if written == kind {
        let other = ["length", "until", "max_length"]
            .into_iter()
            .find(|field| stated.contains_key(*field));
        if let Some(other) = other {
            let message = format!("`--length` and `{other}` of the sampler exclude each other");
            return Err(Error::input(message).hint("leave one of them out"));
        }
        stated.insert("length".to_owned(), length.clone());
        return Ok(Some(Value::Object(stated)));
    }
    let is_window = ["cached", "ancestral", "first_hitting"].contains(&written);
    if is_window && stated.len() == 1 {
        return Ok(Some(json!({ "kind": kind, "length": length, "window": written })));
    }
    let message = if is_window {
        format!(
            "`--length` draws windows with the sampler `{written}` at its defaults, without other settings"
        )
    } else {
        format!(
            "`--length` draws windows with `cached`, `ancestral` or `first_hitting`, not with `{written}`"
        )
    };
    Err(Error::input(message).hint(format!(
        "leave `--length` out: a text then has {row} tokens; or use `--sampler cached`"
    )))
}

/// The error of a setting that is refused.
fn said(refused: &RefusedSetting, args: &Args) -> Error {
    let field = refused.field.trim_start_matches('/');
    let find = |field: &str| OPTIONS.iter().find(|(name, _)| *name == field);
    let (option, within) = if let Some((_, option)) = find(field) {
        (*option, None)
    } else if let Some(within) = field.strip_prefix("sampler") {
        let is_by_length = args.length.is_some() && (args.sampler.is_none() || within == "/length");
        let option = if is_by_length { "--length" } else { "--sampler" };
        (
            option,
            Some(within.trim_start_matches('/')).filter(|_| !is_by_length),
        )
    } else if field.starts_with("given") {
        ("--given", None)
    } else {
        ("", None)
    };
    let fault = &refused.fault;
    let mut message = in_options(&fault.message);
    if let Some(expected) = &fault.expected {
        message = format!("{message}, expected {}", in_options(expected));
    }
    message = match (option, within.filter(|within| !within.is_empty())) {
        ("", _) => message,
        (option, Some(within)) => format!("`{option}`: `{within}`: {message}"),
        (option, None) => format!("`{option}`: {message}"),
    };
    let error = Error::input(message);
    match &fault.hint {
        Some(hint) => error.hint(in_options(hint)),
        None => error,
    }
}

/// A message about settings as one about options: `top_k` is `--top-k`, and the name of the model's stage is the model.
fn in_options(text: &str) -> String {
    let mut said = String::new();
    let parts: Vec<_> = text.split('`').collect();
    for (index, part) in parts.iter().enumerate() {
        let is_code = index % 2 == 1;
        let is_closed = index + 1 < parts.len();
        match code_in_options(part).filter(|_| is_closed) {
            _ if !is_code => said += part,
            Some(text) => said += &text,
            None => {
                let end = if is_closed { "`" } else { "" };
                said.extend(["`", *part, end]);
            }
        }
    }
    said
}

/// What stands between backticks, if it is about a setting that is an option.
fn code_in_options(code: &str) -> Option<String> {
    let option = |name: &str| {
        let found = OPTIONS.iter().find(|(setting, _)| *setting == name);
        found.map(|(_, option)| *option)
    };
    match code {
        "model" => return Some("the model".to_owned()),
        "given" => return Some("`--prompt`, `--suffix`, `--infill` or `--given`".to_owned()),
        _ => {}
    }
    if let Some(option) = option(code) {
        return Some(format!("`{option}`"));
    }
    let member: Map<String, Value> = serde_json::from_str(&format!("{{{code}}}")).ok()?;
    let (name, value) = member.iter().next().filter(|_| member.len() == 1)?;
    let option = option(name)?;
    let kind = value
        .as_object()
        .filter(|object| object.len() == 1)
        .and_then(|object| object.get("kind"));
    Some(match kind.unwrap_or(value) {
        Value::String(text) => format!("`{option} {text}`"),
        Value::Object(_) => {
            let object = code.split_once(':').map_or(code, |(_, value)| value.trim());
            format!("`{option} '{object}'`")
        }
        value => format!("`{option} {value}`"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_faults_name_options() {
        for (of_stage, of_command) in [
            ("`top_k` has no effect", "`--top-k` has no effect"),
            (
                "add `given`, or leave `guidance` out",
                "add `--prompt`, `--suffix`, `--infill` or `--given`, or leave `--guidance` out",
            ),
            ("set `\"end_of_text\": \"never\"`", "set `--end-of-text never`"),
            (
                "set `\"sampler\": { \"kind\": \"cached\" }`, or",
                "set `--sampler cached`, or",
            ),
            (
                "set `\"sampler\": { \"kind\": \"cached\", \"grid\": \"published\" }`",
                "set `--sampler '{ \"kind\": \"cached\", \"grid\": \"published\" }'`",
            ),
            (
                "sampler `gibbs` does not fit `model`: it",
                "sampler `gibbs` does not fit the model: it",
            ),
            ("add `\"length\": 2048`", "add `\"length\": 2048`"),
            ("`template` and `prompt`", "`--infill` and `--prompt`"),
            ("an odd ` backtick", "an odd ` backtick"),
        ] {
            assert_eq!(in_options(of_stage), of_command);
        }
    }

    #[test]
    fn sample_numbers_are_json() {
        assert_eq!(number("3"), Ok(json!(3)));
        assert_eq!(number("-0.5"), Ok(json!(-0.5)));
        for text in ["", "x", "\"3\"", "3 4", "null"] {
            assert!(number(text).is_err(), "{text}");
        }
    }
}
