//! `mdlm logits --objective`: the loss of each position, of rows under noise that the input gives.

use std::path::Path;

use super::{Args, conditioning, missing, network, read_tokens, rows_at_a_time, rows_of};
use crate::cli::render::terminal::Terminal;
use mdlm::diffusion::objective::{self, Given};
use mdlm::diffusion::{NoisedBatch, Objective};
use mdlm::error::{Context as _, Error, Result};
use mdlm::evaluate;
use mdlm::manifest;
use mdlm::model::Network;
use mdlm::shapes::{Backbone, Shape};
use mdlm::stages::trained::{MODEL_INFO, ModelInfo};
use mdlm::weights::import::ForeignCheckpoint;
use mdlm::weights::tensors::{Reader, Writer};

/// Writes the logits and the losses of the input's rows.
///
/// # Errors
/// The errors of [`super::run`].
pub(super) fn run(
    args: &Args,
    shape: &Shape,
    settings: &manifest::Objective,
    terminal: &Terminal,
) -> Result<u8> {
    let (vocabulary, mask) = vocabulary(args, shape)?;
    // Times and masks are given, so that the seed of their draws has no effect.
    let objective = objective::build(settings, mask, vocabulary, 0);
    let context = || format!("read `{}`", args.input.display());
    let mut input = LossInput {
        reader: Reader::open(&args.input)?,
        shape,
        settings,
        vocabulary,
        mask,
    };
    let rows = input.rows().context(context)?;
    let at_a_time = rows_at_a_time(shape);
    let parts = || {
        let starts = (0..rows).step_by(at_a_time);
        starts.map(|start| [start, at_a_time.min(rows - start)])
    };
    // Before a long computation, all faults of the input.
    for part in parts() {
        let part = input.read(part).context(context)?;
        part.noise(&*objective, 0, &mut NoisedBatch::default())
            .context(context)?;
    }
    let mut checkpoint = ForeignCheckpoint::at(&args.checkpoint)?;
    let (own, backbone) = (settings.is_time_conditioned(), settings.backbone());
    if let Some(stated) = conditioning(args, &checkpoint)
        && backbone == Backbone::Dit
        && stated.is_on != own
    {
        let (is_on, kind) = (stated.is_on, settings.kind());
        return Err(Error::input(format!(
            "`time_conditioning` is {is_on} in `{}`, but {own} in `--objective`",
            stated.file
        ))
        .hint(match kind {
            "mdlm" | "d3pm" => format!(
                "give the objective that the model was trained for, such as \
                 `--objective '{{ \"kind\": \"{kind}\", \"time_conditioning\": {is_on} }}'`"
            ),
            _ => "give the objective that the model was trained for: `mdlm checkpoint FILE` shows it"
                .to_owned(),
        }));
    }
    let (network, _lock) = network(args, &mut checkpoint, shape, backbone, terminal)?;

    let length = shape.length;
    let is_ar = matches!(settings, manifest::Objective::Ar(_));
    let mut tensors = vec![
        ("logits".to_owned(), vec![rows, length, shape.vocabulary]),
        ("loss".to_owned(), vec![rows, length]),
    ];
    if is_ar {
        tensors.push(("log_probabilities".to_owned(), vec![rows, length]));
    }
    let mut writer = Writer::create(&args.output, &tensors, &[])?;
    // They follow the logits in the file: a number a token, as the input has it.
    let mut losses = Vec::with_capacity(rows * length);
    for part in parts() {
        let part = input.read(part).context(context)?;
        let (logits, loss) = part.compute(&*objective, &*network)?;
        writer.append(&logits)?;
        losses.extend(loss.iter().map(|&loss| loss as f32));
    }
    if is_ar {
        // Position l predicts token l + 1; the first token is given.
        for row in losses.chunks_exact_mut(length) {
            row.rotate_right(1);
        }
    }
    writer.append(&losses)?;
    if is_ar {
        let log_probabilities: Vec<_> = losses.iter().map(|loss| 0.0 - loss).collect();
        writer.append(&log_probabilities)?;
    }
    writer.finish()?;
    let tensors: Vec<_> = tensors
        .iter()
        .map(|(name, dims)| format!("`{name}` {dims:?}"))
        .collect();
    terminal.say(&format!(
        "wrote `{}`: {}",
        args.output.display(),
        tensors.join(", ")
    ));
    Ok(0)
}

/// Tokens of the vocabulary, and which of them is the mask: the arguments, or else what `model.json` beside the weights says,
/// or else the shape's tokens and the last of them.
fn vocabulary(args: &Args, shape: &Shape) -> Result<(u32, u32)> {
    let most = shape.vocabulary as u32;
    let model = match (args.vocabulary, args.mask) {
        (Some(_), Some(_)) => None,
        _ => model_beside(&args.checkpoint)?,
    };
    let known = model.as_ref();
    let vocabulary = args.vocabulary.or(known.map(|model| model.vocabulary));
    let vocabulary = vocabulary.unwrap_or(most);
    if !(2..=most).contains(&vocabulary) {
        let what = if args.vocabulary.is_some() {
            "`--vocabulary` is"
        } else {
            "the vocabulary of `model.json` is"
        };
        return Err(Error::input(format!(
            "{what} {vocabulary}: shape `{}` takes 2 to {most} tokens",
            shape.name
        ))
        .hint("give the number of the tokenizer's tokens, the mask included"));
    }
    let mask = args.mask.or(known.map(|model| model.special.mask));
    let mask = mask.unwrap_or(vocabulary - 1);
    if mask >= vocabulary {
        let what = if args.mask.is_some() {
            "`--mask` is"
        } else {
            "the mask of `model.json` is"
        };
        return Err(Error::input(format!(
            "{what} {mask}: the vocabulary has tokens 0 to {}",
            vocabulary - 1
        )));
    }
    Ok((vocabulary, mask))
}

/// What `model.json` says of the weights that it lies beside; nothing where there is none.
pub(super) fn model_beside(checkpoint: &Path) -> Result<Option<ModelInfo>> {
    let folder = checkpoint.parent().unwrap_or(Path::new(""));
    if !folder.join(MODEL_INFO).is_file() {
        return Ok(None);
    }
    let read = ModelInfo::open(folder);
    read.map(Some)
        .map_err(|error| error.hint("give `--vocabulary` and `--mask`: the file is then not read"))
}

/// The input file, and what its tokens mean.
struct LossInput<'a> {
    reader: Reader,
    shape: &'a Shape,
    settings: &'a manifest::Objective,
    vocabulary: u32,
    mask: u32,
}

/// Some rows of the input.
struct RowChunk {
    /// The first one's number.
    start: usize,
    /// L.
    length: usize,
    /// The clean tokens (rows, L).
    x0: Vec<u32>,
    /// The tokens under noise (rows, L).
    xt: Vec<u32>,
    /// The time of each row.
    t: Vec<f64>,
}

impl LossInput<'_> {
    /// Whether the objective predicts masked tokens of a row under noise.
    fn has_noise(&self) -> bool {
        !matches!(self.settings, manifest::Objective::Ar(_))
    }

    /// Whether its noise has times.
    fn has_times(&self) -> bool {
        self.settings.noise().is_some()
    }

    /// The number of rows, the same in all tensors that the objective needs.
    fn rows(&self) -> Result<usize> {
        let reader = &self.reader;
        if reader.info("sigma").is_some() {
            return Err(
                Error::input("there is a tensor `sigma`, but an objective is given")
                    .hint("with `--objective`, the network's input follows from `t`: remove `sigma`"),
            );
        }
        let rows = rows_of(reader, "x0", "the clean tokens", self.shape)?;
        let same = |name: &str, dims: &[usize], expected: &str| {
            if dims.first() == Some(&rows) {
                return Ok(());
            }
            Err(Error::input(format!(
                "`{name}` is {dims:?}, expected {expected}: `x0` has {rows} rows"
            )))
        };
        if self.has_noise() {
            let own = rows_of(reader, "xt", "the noised tokens", self.shape)?;
            let length = self.shape.length;
            same("xt", &[own, length], &format!("[{rows}, {length}]"))?;
        }
        if self.has_times() {
            let Some(info) = reader.info("t") else {
                let holds = "the times, [rows], as floating-point numbers above 0 and at most 1";
                return Err(missing(reader, "t", holds));
            };
            if info.shape.len() != 1 {
                return Err(Error::input(format!(
                    "`t` is {:?}, expected [{rows}], one per row",
                    info.shape
                )));
            }
            same("t", &info.shape, &format!("[{rows}]"))?;
        }
        Ok(rows)
    }

    /// Rows `start..start + count`.
    fn read(&mut self, [start, count]: [usize; 2]) -> Result<RowChunk> {
        let (shape, vocabulary, mask) = (self.shape, self.vocabulary as usize, self.mask);
        let mut tokens = |name| read_tokens(&mut self.reader, name, [start, count], shape, vocabulary);
        let length = shape.length;
        let place = |name: &str, at: usize| format!("`{name}`[{}, {}]", start + at / length, at % length);
        let x0 = tokens("x0")?;
        if let Some(at) = x0.iter().position(|&token| token == mask) {
            return Err(Error::input(format!(
                "{} is {mask}, the mask, which clean text does not have",
                place("x0", at)
            ))
            .hint("if that token is not the mask, give the mask's id with `--mask`"));
        }
        // Without noise, the network sees the clean tokens.
        let xt = if self.has_noise() {
            self.read_noised(&x0, [start, count])?
        } else {
            x0.clone()
        };
        let mut t = vec![1.0; count];
        if self.has_times() {
            self.reader.doubles("t", start, &mut t)?;
            if let Some(row) = t.iter().position(|&t| !(t > 0.0 && t <= 1.0)) {
                return Err(Error::input(format!(
                    "`t`[{}] is {}, expected a time above 0 and at most 1",
                    start + row,
                    t[row]
                )));
            }
        }
        Ok(RowChunk {
            start,
            length,
            x0,
            xt,
            t,
        })
    }

    /// The tokens of `xt`, which belong to `x0`.
    fn read_noised(&mut self, x0: &[u32], [start, count]: [usize; 2]) -> Result<Vec<u32>> {
        let (shape, mask) = (self.shape, self.mask);
        let xt = read_tokens(
            &mut self.reader,
            "xt",
            [start, count],
            shape,
            self.vocabulary as usize,
        )?;
        // Masked language modelling also replaces tokens by others.
        if !self.has_times() {
            return Ok(xt);
        }
        let fits = |(&noised, &clean): (&u32, &u32)| noised == clean || noised == mask;
        let Some(at) = xt.iter().zip(x0).position(|pair| !fits(pair)) else {
            return Ok(xt);
        };
        let (row, l) = (start + at / shape.length, at % shape.length);
        Err(Error::input(format!(
            "`xt`[{row}, {l}] is {}, expected {}, which is `x0`[{row}, {l}], or {mask}, the mask",
            xt[at], x0[at]
        ))
        .hint("noise masks a token or keeps it; give another mask's id with `--mask`"))
    }
}

impl RowChunk {
    /// The rows in a pass of the objective.
    fn noise(&self, objective: &dyn Objective, pass: u32, into: &mut NoisedBatch) -> Result<()> {
        into.clear();
        let rows = self
            .x0
            .chunks_exact(self.length)
            .zip(self.xt.chunks_exact(self.length));
        for (row, ((x0, xt), &t)) in rows.zip(&self.t).enumerate() {
            objective
                .given(&Given { t, x0, xt }, pass, into)
                .context(|| format!("`t`[{}]", self.start + row))?;
        }
        Ok(())
    }

    /// The logits of the first pass (rows, L, V), and the losses (rows, L), in all passes together.
    fn compute(&self, objective: &dyn Objective, network: &dyn Network) -> Result<(Vec<f32>, Vec<f64>)> {
        let (mut logits, mut losses) = (Vec::new(), vec![0.0; self.x0.len()]);
        let mut noised = NoisedBatch::default();
        for pass in 0..objective.passes() {
            self.noise(objective, pass, &mut noised)?;
            if pass == 0 {
                let all: Vec<u32> = (0..self.x0.len() as u32).collect();
                logits = network.logits(&noised.tokens, &noised.sigma, &all, objective.pattern())?;
            }
            let found = evaluate::losses(network, objective, &noised)?;
            let weighted = noised.weights.iter().zip(&found);
            for (&position, (&weight, &loss)) in noised.positions.iter().zip(weighted) {
                losses[position as usize] += f64::from(weight) * f64::from(loss);
            }
        }
        Ok((logits, losses))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use mdlm::shapes::SHAPES;

    #[test]
    fn vocabulary_is_that_of_the_model_file_beside_the_weights_unless_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let shape = SHAPES.find("nano").unwrap();
        let most = shape.vocabulary as u32;
        let of = |vocabulary, mask| {
            let args = Args {
                checkpoint: folder.path().join("ema.safetensors"),
                shape: shape.name.to_owned(),
                input: "in".into(),
                output: "out".into(),
                objective: Some("ar".to_owned()),
                vocabulary,
                mask,
                device: None,
            };
            super::vocabulary(&args, shape).map_err(|error| error.to_string())
        };
        assert_eq!(of(None, None), Ok((most, most - 1)));
        let write = |vocabulary: u32| {
            let model = serde_json::json!({
                "shape": shape.name, "vocabulary": vocabulary, "length": shape.length, "wrap": true,
                "special": { "bos": 0, "eos": 1, "pad": 2, "mask": 3 }, "tokenizer_digest": "",
                "objective": { "kind": "ar" }, "steps": 1, "seed": 1,
            });
            std::fs::write(folder.path().join(MODEL_INFO), model.to_string()).unwrap();
        };
        write(500);
        assert_eq!(of(None, None), Ok((500, 3)));
        assert_eq!(of(None, Some(7)), Ok((500, 7)));
        assert_eq!(of(Some(40), None), Ok((40, 3)));
        assert_eq!(of(Some(40), Some(7)), Ok((40, 7)));
        write(most + 1);
        assert!(
            of(None, None)
                .unwrap_err()
                .starts_with("the vocabulary of `model.json` is")
        );
        std::fs::write(folder.path().join(MODEL_INFO), "{").unwrap();
        assert!(of(None, None).unwrap_err().contains(MODEL_INFO));
        assert_eq!(of(Some(40), Some(7)), Ok((40, 7)));
    }
}
