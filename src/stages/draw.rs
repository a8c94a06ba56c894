//! Texts from a model: what the sample stage and the command `mdlm sample` have in common.

use std::cell::RefCell;

use super::given::GivenRows;
use super::memory;
use super::trained::ModelInfo;
use crate::data::SpecialIds;
use crate::data::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::event::{Cancel, Progress};
use crate::kernels::categorical::Truncation;
use crate::manifest::{self, EndOfText, Sample, Sampler};
use crate::model::{Device, Network};
use crate::sample::semi_autoregressive::{SemiAutoregressive, TextWindow};
use crate::sample::{self, Sampling, Unmasked};

/// What to draw texts from, and how.
#[derive(Clone, Copy)]
pub struct Drawing<'a> {
    /// The model.
    pub model: &'a ModelInfo,
    /// Its network.
    pub network: &'a dyn Network,
    /// The settings; those that name a model, weights or a file are not read here.
    pub settings: &'a Sample,
    /// The given tokens.
    pub given: &'a GivenRows,
    /// Seed of the draws.
    pub seed: u64,
    /// Where the network computes.
    pub device: Device,
    /// Of how many rows, the first ones, the steps are recorded ([`Texts::unmasked`]) and seen ([`DrawnStep::tokens`]).
    pub recorded: usize,
}

/// Texts drawn.
#[derive(Clone, Debug)]
pub struct Texts {
    /// The sampler.
    pub sampler: Sampler,
    /// Of each text its tokens: L of them, but for semi-autoregressive sampling.
    pub rows: Vec<Vec<u32>>,
    /// How often the network was asked about each (rows).
    pub network_calls: Vec<u32>,
    /// Steps of the sampler.
    pub steps: u32,
    /// When each token of the recorded rows was drawn, row-major (recorded, L); empty for semi-autoregressive sampling.
    pub unmasked: Vec<Option<Unmasked>>,
}

/// A step that is done.
#[derive(Clone, Copy, Debug)]
pub struct DrawnStep<'a> {
    /// The window, from 0, and how many there are at most, where texts are drawn in windows.
    pub window: Option<(u32, u32)>,
    /// Steps done; of the window.
    pub done: u32,
    /// Of how many.
    pub of: u32,
    /// The rows, row-major (rows, L): [`sample::UNSEEN`] where only the device has the token, which is not so in recorded rows.
    pub tokens: &'a [u32],
}

impl DrawnStep<'_> {
    /// How far the drawing is: in windows, if there are any, else in steps.
    #[must_use]
    pub fn progress(&self, rows: u32) -> Progress {
        let (done, total, unit) = match self.window {
            Some((window, windows)) => (window, windows, "windows"),
            None => (self.done, self.of, "steps"),
        };
        Progress {
            done: u64::from(done),
            total: Some(u64::from(total)),
            unit,
            figures: vec![("rows", rows.to_string())],
        }
    }
}

/// Sees texts while they are drawn.
pub trait Watch {
    /// Called after each step. The first error is returned once all texts are drawn.
    ///
    /// # Errors
    /// What it was shown cannot be written.
    fn step(&mut self, step: &DrawnStep<'_>) -> Result<()>;

    /// Called with the new tokens of each window, where texts are drawn in windows.
    ///
    /// # Errors
    /// What it was shown cannot be written.
    fn window(&mut self, _window: TextWindow<'_>) -> Result<()> {
        Ok(())
    }
}

/// Draws texts.
///
/// # Errors
/// The sampler does not fit the model, there are too many texts, the network fails, the drawing is cancelled, or `watch` fails.
pub fn draw(drawing: &Drawing<'_>, cancel: &Cancel, watch: &mut dyn Watch) -> Result<Texts> {
    let Drawing {
        model,
        network,
        settings,
        given,
        seed,
        device,
        recorded,
    } = *drawing;
    let objective = model.build_objective(seed);
    let sampler = sampler(settings, model);
    let special = model.special;
    let structural = [special.bos, special.eos, special.pad];
    let late: &[u32] = match settings.end_of_text {
        EndOfText::Last => &structural[1..],
        EndOfText::Drawn | EndOfText::Never => &[],
    };
    let banned: &[u32] = match settings.end_of_text {
        EndOfText::Never => &structural[1..],
        EndOfText::Drawn | EndOfText::Last => &[],
    };
    let make = || sample::build(sampler, &model.objective, &*objective, special, model.wrap, late);
    let count = given.count(settings.count)?;
    check_given(given, &sampler, model)?;
    let task = Sampling {
        ends: if settings.given_ends {
            let is_one_row = !matches!(
                sampler,
                Sampler::SemiAutoregressive(_) | Sampler::Autoregressive(_)
            );
            let is_last_given = model.wrap && is_one_row;
            [Some(special.bos), is_last_given.then_some(special.eos)]
        } else {
            [None; 2]
        },
        given: &given.tokens,
        count,
        steps: settings.steps,
        temperature: settings.temperature,
        truncation: Truncation {
            top_k: settings.top_k,
            top_p: settings.top_p.unwrap_or(1.0),
            min_p: settings.min_p.unwrap_or(0.0),
        },
        banned,
        repetition_penalty: settings.repetition_penalty.unwrap_or(1.0),
        guidance: settings.guidance.unwrap_or(0.0),
        structural: &structural,
        support: objective.support(),
        seed,
        first_step: 0,
        micro_batch: memory::rows_at_a_time(network.shape(), device),
        recorded,
    };
    let length = model.length as usize;
    if let Sampler::SemiAutoregressive(stated) = sampler {
        return draw_long(drawing, stated, &task, &make, cancel, watch);
    }
    // A step cannot be left half done: its error is returned when all are.
    let mut failed = None;
    let mut drawer = make()?;
    let steps = drawer.steps(settings.steps, length);
    let drawn = task.run(&mut *drawer, network, cancel, &mut |done| {
        let step = DrawnStep {
            window: None,
            done: done.steps,
            of: steps,
            tokens: done.tokens,
        };
        let result = watch.step(&step);
        failed = failed.take().or(result.err());
    })?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Texts {
            steps: match sampler {
                // As many as the rows needed, each with a network call; with guidance two.
                Sampler::Threshold(_) => {
                    let most = drawn.network_calls.iter().copied().max().unwrap_or_default();
                    most / (1 + u32::from(task.guidance != 0.0))
                }
                _ => steps,
            },
            sampler,
            rows: drawn.tokens.chunks(length).map(<[u32]>::to_vec).collect(),
            network_calls: drawn.network_calls,
            unmasked: drawn.unmasked,
        }),
    }
}

/// Refuses given tokens that the sampler cannot keep: after drawn ones, where it does not see them, or beyond the text.
fn check_given(given: &GivenRows, sampler: &Sampler, model: &ModelInfo) -> Result<()> {
    let most = match sampler {
        Sampler::Autoregressive(_) => model.length as usize,
        Sampler::SemiAutoregressive(windows) => {
            windows.length.or(windows.max_length).unwrap_or(model.length) as usize
        }
        _ => return Ok(()),
    };
    for (row, tokens) in (1..).zip(given.tokens.chunks(model.length as usize)) {
        let prompt = tokens
            .iter()
            .take_while(|&&token| token != sample::UNSEEN)
            .count();
        let name = sampler.kind();
        if tokens[prompt..].iter().any(|&token| token != sample::UNSEEN) {
            return Err(Error::input(format!(
                "sampler `{name}` takes prompts alone, but tokens of the given text {row} follow a token that is drawn"
            ))
            .hint("give prompts alone, or use another sampler"));
        }
        if prompt >= most {
            return Err(Error::input(format!(
                "the given text {row} has {prompt} tokens with BOS, but the text is to have {most}"
            ))
            .hint(format!("set `length` above {prompt}, or give fewer tokens")));
        }
    }
    Ok(())
}

/// Draws texts in windows.
fn draw_long(
    drawing: &Drawing<'_>,
    stated: manifest::SemiAutoregressive,
    task: &Sampling<'_>,
    make: &dyn Fn() -> Result<Box<dyn sample::Sampler>>,
    cancel: &Cancel,
    watch: &mut dyn Watch,
) -> Result<Texts> {
    let Drawing { model, settings, .. } = *drawing;
    let windows = SemiAutoregressive {
        stride: stated.stride.unwrap_or(model.length.div_ceil(2)) as usize,
        length: stated.length.or(stated.max_length).unwrap_or(model.length) as usize,
        end: stated.until.map(|_| model.special.eos),
        window_steps: stated.window_steps.unwrap_or(settings.steps),
    };
    let length = model.length as usize;
    let count = windows.windows(length);
    let steps = make()?.steps(settings.steps, length);
    let window_steps = make()?.steps(windows.window_steps, length);
    // Steps and windows are seen in turn.
    let watch = RefCell::new(watch);
    let mut failed = None;
    let drawn = windows.run(
        task,
        make,
        drawing.network,
        cancel,
        &mut |window, done| {
            let step = DrawnStep {
                window: Some((window, count)),
                done: done.steps,
                of: if window == 0 { steps } else { window_steps },
                tokens: done.tokens,
            };
            let result = watch.borrow_mut().step(&step);
            failed = failed.take().or(result.err());
        },
        &mut |window| watch.borrow_mut().window(window),
    )?;
    match failed {
        Some(error) => Err(error),
        None => Ok(Texts {
            sampler: Sampler::SemiAutoregressive(stated),
            rows: drawn.tokens,
            network_calls: drawn.network_calls,
            steps,
            unmasked: Vec::new(),
        }),
    }
}

/// The sampler of the settings, or the model's default.
#[must_use]
pub fn sampler(settings: &Sample, model: &ModelInfo) -> Sampler {
    settings.sampler.unwrap_or_else(|| model.objective.samplers()[0])
}

/// The text of a row, one record a line.
///
/// # Errors
/// The tokenizer's decoder fails.
pub fn text(row: &[u32], special: SpecialIds, tokenizer: &Tokenizer) -> Result<String> {
    let mut text = String::new();
    for piece in row.split(|&token| token == special.eos) {
        let piece = tokenizer.decode(piece)?;
        if !piece.trim().is_empty() {
            if !text.is_empty() {
                text.push('\n');
            }
            text += &piece;
        }
    }
    Ok(text)
}
