//! Faults of a sample stage: settings that exclude each other, have no effect, or do not fit the rows of its model.

use super::files::local;
use super::{StageEntry, Stages};
use crate::manifest::fault::{Code, Draft};
use crate::manifest::{
    EndOfText, GivenText, Remasking, RemaskingRule, Sampler, SemiAutoregressive, WindowSampler,
};
use crate::plural::counted;

/// Smallest temperature above 0: below it, weights are 0 in f64 but for the likeliest token's.
const SMALLEST_TEMPERATURE: f64 = 1e-3;

/// Settings of a sample stage that are checked together.
pub struct SamplingSettings<'a> {
    pub model: &'a str,
    pub sampler: Option<Sampler>,
    pub steps: u32,
    pub temperature: f64,
    /// The fields that leave tokens out, and whether each is stated.
    pub truncations: [(&'static str, bool); 3],
    pub end_of_text: EndOfText,
    pub guidance: f64,
    pub given: Option<&'a GivenText>,
    pub record_steps: u32,
    pub has_grammar: bool,
}

impl SamplingSettings<'_> {
    /// Adds their faults.
    pub fn check(&self, stages: &Stages<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
        check_draws(self, entry, faults);
        check_given(self, stages, entry, faults);
        let shape = stages
            .model_of(self.model)
            .and_then(|model| stages.shapes.find(model.shape));
        let length = shape.map(|shape| shape.length as u32);
        match self.sampler {
            Some(Sampler::SemiAutoregressive(windows)) => {
                check_windows(&windows, length, entry, faults);
                self.check_beside_windows(&windows, entry, faults);
            }
            Some(Sampler::Remasking(remasking)) => {
                check_remasking(&remasking, entry, faults);
                check_steps_of_remasking(&remasking, self.steps, entry, faults);
            }
            Some(sampler) => check_blocks(&sampler, self.steps, length, entry, faults),
            None => {}
        }
    }
}

impl SamplingSettings<'_> {
    /// Settings that windows have no use for.
    fn check_beside_windows(
        &self,
        windows: &SemiAutoregressive,
        entry: &StageEntry<'_>,
        faults: &mut Vec<Draft>,
    ) {
        if self.guidance != 0.0 {
            let message = "guidance compares a row with and without its given tokens, but windows carry drawn tokens over";
            let fault = entry.fault(Code::InvalidValue, "guidance", message);
            faults.push(fault.hint("leave `guidance` out, or use another sampler"));
        }
        if self.record_steps > 0 {
            let message = "`record_steps` has no effect: steps of windows are not recorded".to_owned();
            faults.push(no_effect(entry, "record_steps", message));
        }
        if windows.until.is_some() && self.end_of_text == EndOfText::Never {
            let message = "no text ends: `end_of_text` forbids the token that `until` waits for";
            let fault = entry.fault(Code::NoEffect, "sampler/until", message);
            faults.push(fault.hint("leave `end_of_text` out, or state `length` in the place of `until`"));
        }
        if windows.until.is_some() && self.has_grammar {
            let message =
                "a grammar judges complete records between two ends, but these texts stop at the first";
            let fault = entry.fault(Code::Grammar, "grammar", message);
            faults.push(fault.hint("leave `grammar` out, or state `length` in the place of `until`"));
        }
        if windows.window_steps.is_some() && windows.window == Some(WindowSampler::FirstHitting) {
            let message = "`window_steps` has no effect: `first_hitting` takes a step per token".to_owned();
            faults.push(no_effect(entry, "sampler/window_steps", message));
        }
    }
}

/// Too few steps for any token to be masked again.
fn check_steps_of_remasking(
    remasking: &Remasking,
    steps: u32,
    entry: &StageEntry<'_>,
    faults: &mut Vec<Draft>,
) {
    let (on, off) = (
        remasking.loop_on.unwrap_or(Remasking::LOOP_ON),
        remasking.loop_off.unwrap_or(Remasking::LOOP_OFF),
    );
    let masks_again = |steps: u32| match remasking.rule {
        // A step lies within the loop.
        RemaskingRule::Loop => {
            let time = |i: u32| 1.0 - f64::from(i) / f64::from(steps);
            (0..steps).any(|i| time(i) <= on && time(i + 1) >= off)
        }
        // The first step finds no token, and the last masks none.
        _ => steps > 2,
    };
    // Times in a wrong order are a fault already.
    let is_loop = remasking.rule == RemaskingRule::Loop;
    if steps == 0 || masks_again(steps) || (is_loop && (off >= on || on >= 1.0)) {
        return;
    }
    let message = format!(
        "in {} no token is masked again",
        counted(u64::from(steps), "step")
    );
    let fewest = (steps..=1000).find(|&steps| masks_again(steps));
    let fault = entry.fault(Code::OutOfRange, "steps", message);
    faults.push(match fewest {
        Some(fewest) => fault.hint(format!("set `steps` to {fewest} or more")),
        None => fault.hint("set `loop_on` and `loop_off` further apart"),
    });
}

fn no_effect(entry: &StageEntry<'_>, field: &str, message: String) -> Draft {
    let hint = format!("leave `{}` out", field.rsplit('/').next().unwrap_or(field));
    entry.fault(Code::NoEffect, field, message).hint(hint)
}

/// Temperature, truncation, and when a text ends.
fn check_draws(sample: &SamplingSettings<'_>, entry: &StageEntry<'_>, faults: &mut Vec<Draft>) {
    if sample.temperature > 0.0 && sample.temperature < SMALLEST_TEMPERATURE {
        let message = format!(
            "the temperature {} is neither 0 nor at least 0.001",
            sample.temperature
        );
        let fault = entry.fault(Code::OutOfRange, "temperature", message);
        faults.push(fault.hint("set `temperature` to 0, which draws the likeliest token"));
    }
    if sample.temperature == 0.0 {
        for (field, _) in sample.truncations.into_iter().filter(|(_, is_stated)| *is_stated) {
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
fn check_given(
    sample: &SamplingSettings<'_>,
    stages: &Stages<'_>,
    entry: &StageEntry<'_>,
    faults: &mut Vec<Draft>,
) {
    let is_autoregressive = matches!(sample.sampler, Some(Sampler::Autoregressive(_)));
    if sample.guidance != 0.0 {
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
    let Some(given) = sample.given else { return };
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
            ("autoregressive", "it does not see what comes later")
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
    let model = stages.model_of(sample.model);
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
        let message = format!(
            "{} are listed, but a row has {}",
            counted(tokens.len() as u64, "token"),
            shape.length
        );
        let fault = entry.fault(Code::RowLength, "given/template_tokens", message);
        faults.push(fault.hint("give fewer tokens, or use a model with longer rows"));
    }
    let holes = given.holes();
    if holes >= shape.length as u64 {
        let message = format!("the holes have {holes} tokens, but a row has {}", shape.length);
        let fault = entry.fault(Code::RowLength, "given/template", message);
        faults.push(fault.hint("write smaller holes, or `⟨…⟩`, which fills the row"));
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
