//! Faults of a sample stage: settings that exclude each other, have no effect, or do not fit the rows of its model.

use super::files::local;
use super::{StageEntry, Stages};
use crate::manifest::fault::{Code, Draft};
use crate::manifest::stage::{Sample, StageSpec as _};
use crate::manifest::{EndOfText, Remasking, RemaskingRule, Sampler, SemiAutoregressive};
use crate::plural::counted;

/// Smallest temperature above 0: below it, weights are 0 in f64 but for the likeliest token's.
const SMALLEST_TEMPERATURE: f64 = 1e-3;

/// Adds the faults of a sample stage.
pub fn check(sample: &Sample, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
    let model = stages.model_of(&sample.model);
    let mut sample = sample.clone();
    // Settings must fit the default sampler too.
    if let Some(objective) = model.as_ref().and_then(|model| model.objective) {
        sample.fill_in(objective);
    }
    let sample = &sample;
    check_draws(sample, entry, faults);
    check_given(sample, stages, entry, faults);
    let shape = model.and_then(|model| stages.shapes.find(model.shape));
    let length = shape.map(|shape| shape.length as u32);
    match sample.sampler {
        Some(Sampler::SemiAutoregressive(windows)) => check_windows(&windows, length, entry, faults),
        Some(Sampler::Remasking(remasking)) => check_remasking(&remasking, entry, faults),
        Some(sampler) => check_blocks(&sampler, sample.steps, length, entry, faults),
        None => {}
    }
}

fn no_effect(entry: &StageEntry<'_>, field: &str, message: String) -> Draft {
    let hint = format!("leave `{}` out", field.rsplit('/').next().unwrap_or(field));
    entry.fault(Code::NoEffect, field, message).hint(hint)
}

/// Temperature, truncation, and when a text ends.
fn check_draws(sample: &Sample, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
    if sample.temperature > 0.0 && sample.temperature < SMALLEST_TEMPERATURE {
        let message = "the temperature is neither 0 nor at least 0.001";
        let fault = entry.fault(Code::OutOfRange, "temperature", message);
        faults.push(fault.hint("set `temperature` to 0, which draws the likeliest token"));
    }
    if sample.temperature == 0.0 {
        let truncations = [
            ("top_k", sample.top_k.is_some()),
            ("top_p", sample.top_p.is_some()),
            ("min_p", sample.min_p.is_some()),
        ];
        for (field, _) in truncations.into_iter().filter(|(_, is_stated)| *is_stated) {
            let message = format!("`{field}` has no effect: at temperature 0 the likeliest token is drawn");
            faults.push(no_effect(entry, field, message));
        }
    }
    if sample.end_of_text == EndOfText::Last
        && let Some(sampler) = sample.sampler.filter(|sampler| !sampler.is_by_confidence())
    {
        let message = format!(
            "sampler `{}` does not choose tokens by confidence, so that none comes last",
            sampler.kind()
        );
        let fault = entry.fault(Code::InvalidValue, "end_of_text", message);
        faults.push(fault.hint(
            "use the sampler `confidence`, `margin`, `entropy` or `threshold`, or set `\"end_of_text\": \"never\"`",
        ));
    }
}

/// What is given, and guidance by it.
fn check_given(sample: &Sample, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
    let is_autoregressive = matches!(sample.sampler, Some(Sampler::Autoregressive(_)));
    if sample.guidance.is_some_and(|scale| scale != 0.0) {
        if sample.given.is_none() {
            let message = "guidance masks the given tokens, but none is given";
            let fault = entry.fault(Code::NoEffect, "guidance", message);
            faults.push(fault.hint("add `given`, or leave `guidance` out"));
        } else if is_autoregressive {
            let message = "guidance masks the given tokens, but a model of `ar` does not know the mask";
            let fault = entry.fault(Code::Objective, "guidance", message);
            faults.push(fault.hint("leave `guidance` out"));
        }
    }
    let Some(given) = &sample.given else { return };
    if let Some((field, message, hint)) = given.fault() {
        let field = if field.is_empty() {
            "given".to_owned()
        } else {
            format!("given/{field}")
        };
        faults.push(entry.fault(Code::InvalidValue, &field, message).hint(hint));
        return;
    }
    if let Some(path) = &given.file {
        let hint = "`file` takes a local file: download it first";
        local(entry, "given/file", path, hint, faults);
    }
    let is_semi = matches!(sample.sampler, Some(Sampler::SemiAutoregressive(_)));
    if given.has_suffix() && (is_autoregressive || is_semi) {
        let (what, reason) = if is_autoregressive {
            (
                "autoregressive",
                "it draws from left to right and does not see what comes later",
            )
        } else {
            (
                "semi_autoregressive",
                "the end of its text is beyond the first window",
            )
        };
        let field = given
            .stated()
            .into_iter()
            .find(|name| *name != "prompt" && *name != "prompt_tokens")
            .unwrap_or("prompt");
        let message = format!("sampler `{what}` takes a prompt alone: {reason}");
        let fault = entry.fault(Code::InvalidValue, &format!("given/{field}"), message);
        faults.push(fault.hint("state `prompt` alone, or use another sampler"));
    }
    let model = stages.model_of(&sample.model);
    let Some(shape) = model.and_then(|model| stages.shapes.find(model.shape)) else {
        return;
    };
    if let Some((field, token)) = given.largest_token()
        && token as usize >= shape.vocabulary
    {
        let message = format!(
            "token {token} is not in the vocabulary of shape `{}`, which has {} tokens",
            shape.name, shape.vocabulary
        );
        let fault = entry.fault(Code::Vocabulary, &format!("given/{field}"), message);
        faults.push(fault.expected(format!("tokens below {}", shape.vocabulary)));
    }
    // BOS comes first, and one token at least is drawn.
    let of = |tokens: &Option<Vec<u32>>| tokens.as_ref().map_or(0, Vec::len);
    let ends = [&given.prompt_tokens, &given.suffix_tokens].map(of);
    let stated = ends[0] + ends[1] + 1 + usize::from(ends[1] > 0);
    let is_listed = given.prompt_tokens.is_some() || given.suffix_tokens.is_some();
    let field = if ends[0] >= ends[1] {
        "prompt_tokens"
    } else {
        "suffix_tokens"
    };
    if is_listed && stated >= shape.length {
        faults.push(too_long(entry, field, stated, shape.length));
    }
    if let Some(tokens) = &given.template_tokens
        && tokens.len() > shape.length
    {
        faults.push(too_long(entry, "template_tokens", tokens.len(), shape.length));
    }
}

fn too_long(entry: &StageEntry<'_>, field: &str, stated: usize, length: usize) -> Draft {
    let message = format!(
        "{} are given with BOS and EOS, but a row has {length}, and one at least is drawn",
        counted(stated as u64, "token")
    );
    entry
        .fault(Code::RowLength, &format!("given/{field}"), message)
        .hint("give fewer tokens, or use a model with longer rows")
}

/// Blocks and their steps.
fn check_blocks(
    sampler: &Sampler,
    steps: u32,
    length: Option<u32>,
    entry: &StageEntry<'_>,
    faults: &mut Vec<Draft>,
) {
    let (Some(block), Some(length)) = (sampler.block(), length) else {
        return;
    };
    if block > length {
        let message = format!("a block has {block} tokens, but a row has {length}");
        let fault = entry.fault(Code::OutOfRange, "sampler/block", message);
        faults.push(fault.hint("leave `block` out: the row is then one block"));
        return;
    }
    let blocks = length.div_ceil(block);
    if steps < blocks && !matches!(sampler, Sampler::Threshold(_)) {
        let message = format!(
            "{} are too few for {} of {block} tokens: each takes one at least",
            counted(u64::from(steps), "step"),
            counted(u64::from(blocks), "block")
        );
        let fault = entry.fault(Code::OutOfRange, "steps", message);
        let block = length.div_ceil(steps.max(1));
        faults.push(fault.hint(format!(
            "set `steps` to {blocks} or more, or `block` to {block} or more"
        )));
    }
}

/// The windows of semi-autoregressive sampling.
fn check_windows(
    windows: &SemiAutoregressive,
    length: Option<u32>,
    entry: &StageEntry<'_>,
    faults: &mut Vec<Draft>,
) {
    if let (Some(stride), Some(length)) = (windows.stride, length)
        && stride >= length
    {
        let message =
            format!("a stride of {stride} keeps no token of the window before: rows have {length} tokens");
        let fault = entry.fault(Code::OutOfRange, "sampler/stride", message);
        faults.push(fault.hint(format!("set `stride` to a number from 1 to {}", length - 1)));
    }
    let stated = (
        windows.length.is_some(),
        windows.until.is_some(),
        windows.max_length.is_some(),
    );
    let (field, message, hint) = match stated {
        (true, false, false) | (false, true, true) => return,
        (true, true, _) => (
            "sampler/until",
            "`length` and `until` exclude each other",
            "leave one of them out",
        ),
        (true, false, true) => (
            "sampler/max_length",
            "`max_length` has no effect: `length` states how long every text is",
            "leave `max_length` out, or write `\"until\": \"end_of_text\"` in the place of `length`",
        ),
        (false, true, false) => (
            "sampler/until",
            "a text may never end: `until` needs `max_length`",
            "add `max_length`, such as `\"max_length\": 4096`",
        ),
        (false, false, _) => (
            "sampler",
            "how long a text is, is not stated",
            "add `\"length\": 2048`, or `\"until\": \"end_of_text\"` and `max_length`",
        ),
    };
    faults.push(entry.fault(Code::InvalidValue, field, message).hint(hint));
}

/// The numbers of a remasking rule.
fn check_remasking(remasking: &Remasking, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
    if remasking.eta.is_some() && remasking.eta().is_none() {
        let message = "`eta` has no effect: the rule has no η".to_owned();
        faults.push(no_effect(entry, "sampler/eta", message));
    }
    let of_loop = [
        ("sampler/loop_on", remasking.loop_on),
        ("sampler/loop_off", remasking.loop_off),
        ("sampler/loop_alpha", remasking.loop_alpha),
    ];
    if remasking.rule != RemaskingRule::Loop {
        for (field, _) in of_loop.into_iter().filter(|(_, value)| value.is_some()) {
            let name = field.rsplit('/').next().unwrap_or(field);
            let message = format!("`{name}` has no effect: it belongs to the rule `loop`");
            faults.push(no_effect(entry, field, message));
        }
        return;
    }
    let on = remasking.loop_on.unwrap_or(Remasking::LOOP_ON);
    let off = remasking.loop_off.unwrap_or(Remasking::LOOP_OFF);
    if off >= on || on >= 1.0 {
        let field = if remasking.loop_on.is_some() {
            "sampler/loop_on"
        } else {
            "sampler/loop_off"
        };
        let message = format!("times run from 1 to 0, but the loop begins at {on} and ends at {off}");
        let fault = entry.fault(Code::OutOfRange, field, message);
        faults.push(fault.hint("set `loop_on` below 1, and `loop_off` below `loop_on`"));
    }
    if remasking
        .loop_alpha
        .is_some_and(|alpha| alpha <= 0.0 || alpha >= 1.0)
    {
        let message = "a share of 0 or of all tokens leaves nothing to mask again or to draw";
        let fault = entry.fault(Code::OutOfRange, "sampler/loop_alpha", message);
        faults.push(fault.hint("set `loop_alpha` between 0 and 1, such as 0.9"));
    }
}
