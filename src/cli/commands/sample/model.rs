//! The model of `mdlm sample`: an artifact, a stage of a manifest, or a checkpoint of this or another program.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::Args;
use crate::cli::args::project::ProjectArgs;
use crate::cli::args::stage::{check_has_model, find, models};
use crate::cli::render::terminal::Terminal;
use mdlm::data::tokenizer::Tokenizer;
use mdlm::data::{SpecialIds, TOKENIZER, TOKENS_INFO};
use mdlm::error::{Context as _, Error, Kind, Result, Wrap as _};
use mdlm::manifest::{Manifest, Objective, SpecialTokens, TokenizerFile, Weights};
use mdlm::model::{self, Device, Network};
use mdlm::plural::counted;
use mdlm::precision::Precision;
use mdlm::shapes::{SHAPES, Shape};
use mdlm::stages::trained::{MODEL_INFO, ModelInfo};
use mdlm::store::Pin;
use mdlm::weights::import::ForeignCheckpoint;

/// The tokens of special roles in a folder of Hugging Face.
const SPECIAL_TOKENS: &str = "special_tokens_map.json";

/// A model whose weights are yet to be read.
pub struct FoundModel {
    /// What it is.
    pub info: ModelInfo,
    /// Its tokenizer; nothing where tokens are printed and none is found.
    pub tokenizer: Option<Tokenizer>,
    weights: FoundWeights,
    /// Keeps the artifact where it is.
    _pin: Option<Pin>,
}

/// Where the weights are.
enum FoundWeights {
    /// In the folder of an artifact.
    Artifact(PathBuf),
    /// In a checkpoint.
    Checkpoint(Box<ForeignCheckpoint>),
}

/// Weights that were read from a checkpoint, or the folder of an artifact and which of its weights.
pub enum ReadWeights {
    /// In the folder of an artifact.
    Artifact(PathBuf, Weights),
    /// In the flat order of the network.
    Values(Vec<f32>),
}

impl FoundModel {
    /// Finds the model that the arguments name. The inner error is the exit code, the faults of a manifest having been
    /// printed.
    ///
    /// # Errors
    /// There is no such model, it has not been trained, its file is damaged, or what it is, is not stated.
    pub fn of(args: &Args, terminal: &Terminal) -> Result<Result<Self, u8>> {
        let path = &args.model;
        if !path.exists() {
            let written = path.to_string_lossy();
            return match written.rsplit_once('#') {
                Some((manifest, stage)) => of_stage(args, Path::new(manifest), stage, terminal),
                None => Err(Error::input(format!("there is no `{written}`")).hint(
                    "name the folder of a model's results, a stage as in `pipelines/quickstart.json#model`, or the file or \
                     folder of a checkpoint",
                )),
            };
        }
        if path.is_dir() && path.join(MODEL_INFO).is_file() {
            return of_artifact(args, path.clone(), None).map(Ok);
        }
        let is_json = path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("json"));
        if is_json && path.is_file() {
            return Err(no_stage(path));
        }
        of_checkpoint(args, terminal).map(Ok)
    }

    /// Reads the weights of a checkpoint; those of an artifact are read with their network.
    ///
    /// # Errors
    /// The checkpoint lacks the weights that are asked for, or its file cannot be read.
    pub fn read(&mut self, asked: Option<Weights>) -> Result<ReadWeights> {
        match &mut self.weights {
            FoundWeights::Artifact(folder) => {
                let which = asked.unwrap_or_default();
                Ok(ReadWeights::Artifact(folder.clone(), which))
            }
            FoundWeights::Checkpoint(checkpoint) => {
                let which = checkpoint.choose(asked).map_err(|error| {
                    let other = asked.map_or("", |asked| if asked == Weights::Ema { "raw" } else { "ema" });
                    error.replace_hint(format!("use `--weights {other}`, or leave it out"))
                })?;
                let (shape, backbone) = (self.info.shape()?, self.info.objective.backbone());
                checkpoint.read(shape, backbone, which).map(ReadWeights::Values)
            }
        }
    }
}

impl ReadWeights {
    /// The network with these weights.
    ///
    /// # Errors
    /// The weights of an artifact are absent or damaged, or the device fails.
    pub fn network(&self, info: &ModelInfo, device: Device) -> Result<Box<dyn Network>> {
        match self {
            Self::Artifact(folder, which) => info.network(folder, *which, device),
            Self::Values(values) => {
                let backbone = info.objective.backbone();
                model::build(info.shape()?, backbone, device, info.precision_on(device), values)
            }
        }
    }
}

/// The model of a stage, as it is in the store.
fn of_stage(
    args: &Args,
    manifest: &Path,
    stage: &str,
    terminal: &Terminal,
) -> Result<Result<FoundModel, u8>> {
    if stage.is_empty() {
        return Err(no_stage(manifest));
    }
    let project = ProjectArgs {
        manifest: manifest.to_owned(),
        set: args.set.clone(),
        store: args.store.clone(),
    };
    let project = match project.open(terminal) {
        Ok(project) => project,
        Err(code) => return Ok(Err(code)),
    };
    check_has_model(&project, stage)?;
    let record = find(&project, stage)?;
    let pin = project.store.pin_if_writable(&record.artifact)?;
    of_artifact(args, project.store.artifact_path(&record.artifact), pin).map(Ok)
}

/// The error of a manifest without a stage: its models are listed.
fn no_stage(path: &Path) -> Error {
    let shown = path.display();
    let error = Error::input(format!("`{shown}` names no model"));
    let Ok(loaded) = Manifest::load(path, &[], SHAPES) else {
        return error.hint(
            "name the folder of a model's results, a stage as in `pipelines/quickstart.json#model`, or the file or folder \
             of a checkpoint",
        );
    };
    let models = models(&loaded.manifest);
    error.hint(if models.is_empty() {
        "the manifest has no train or checkpoint stage".to_owned()
    } else {
        let models: Vec<_> = models.iter().map(|stage| format!("`{shown}#{stage}`")).collect();
        format!("name a stage of it: {}", models.join(", "))
    })
}

/// The model in the folder of a train or checkpoint stage's results.
fn of_artifact(args: &Args, folder: PathBuf, pin: Option<Pin>) -> Result<FoundModel> {
    for (option, is_stated) in [
        ("--tokenizer", args.tokenizer.is_some()),
        ("--shape", args.shape.is_some()),
        ("--objective", args.objective.is_some()),
    ] {
        if is_stated {
            let message = format!("`{option}` has no effect: `{MODEL_INFO}` of the model states it");
            return Err(Error::input(message).hint(format!("leave `{option}` out")));
        }
    }
    let info = ModelInfo::open(&folder)?;
    let tokenizer = info.tokenizer(&folder)?;
    Ok(FoundModel {
        info,
        tokenizer: Some(tokenizer),
        weights: FoundWeights::Artifact(folder),
        _pin: pin,
    })
}

/// The model in a checkpoint: what the file does not state, the options do.
fn of_checkpoint(args: &Args, terminal: &Terminal) -> Result<FoundModel> {
    let path = &args.model;
    let checkpoint = ForeignCheckpoint::at(path)
        .map_err(|error| error.or_hint("`mdlm checkpoint FILE` shows what a checkpoint holds"))?;
    let folder = if path.is_dir() {
        path.as_path()
    } else {
        path.parent().unwrap_or(Path::new(""))
    };
    // Weights that were taken from a train stage's results with what says what they are.
    if !path.is_dir() && folder.join(MODEL_INFO).is_file() {
        let found = of_artifact(args, folder.to_owned(), None)?;
        return Ok(FoundModel {
            weights: FoundWeights::Checkpoint(Box::new(checkpoint)),
            ..found
        });
    }
    let objective = objective(args, &checkpoint, terminal)?;
    let shape = shape(args, &checkpoint, terminal)?;
    let tokenizer = tokenizer(args, folder, &checkpoint)?;
    let facts = checkpoint.facts();
    let (vocabulary, special) = if let Some(tokenizer) = &tokenizer {
        agree(&checkpoint, shape, tokenizer, terminal)?;
        (tokenizer.vocabulary(), tokenizer.special())
    } else {
        let stated = facts.and_then(|facts| facts.tokens.or(facts.vocabulary));
        let vocabulary = stated.and_then(|stated| u32::try_from(stated).ok());
        let vocabulary = vocabulary.unwrap_or(shape.vocabulary as u32);
        let mask = facts.and_then(|facts| facts.mask);
        let mask = mask
            .and_then(|mask| u32::try_from(mask).ok())
            .unwrap_or(vocabulary - 1);
        // Roles that no option which needs them can ask for.
        (
            vocabulary,
            SpecialIds {
                bos: mask,
                eos: mask,
                pad: mask,
                mask,
            },
        )
    };
    if vocabulary as usize > shape.vocabulary || special.mask >= vocabulary {
        return Err(Error::input(format!(
            "{}: a vocabulary of {vocabulary} tokens with the mask {} does not fit shape `{}`, which has {}",
            checkpoint.place(),
            special.mask,
            shape.name,
            shape.vocabulary
        ))
        .hint("name the tokenizer that the model was trained with: `--tokenizer FILE`"));
    }
    let info = ModelInfo {
        shape: shape.name.to_owned(),
        vocabulary,
        length: shape.length as u32,
        wrap: facts.and_then(|facts| facts.wrap).unwrap_or(true),
        special,
        tokenizer_digest: String::new(),
        objective,
        steps: checkpoint.training().steps.unwrap_or(0),
        seed: 0,
        precision: Precision::default(),
        origin: None,
    };
    Ok(FoundModel {
        info,
        tokenizer,
        weights: FoundWeights::Checkpoint(Box::new(checkpoint)),
        _pin: None,
    })
}

/// The objective: that of the option, or that of the file.
fn objective(args: &Args, checkpoint: &ForeignCheckpoint, terminal: &Terminal) -> Result<Objective> {
    let facts = checkpoint.facts();
    let stated = facts.and_then(|facts| facts.objective);
    let foreign = facts.and_then(|facts| facts.foreign.as_deref());
    let place = checkpoint.place();
    let Some(text) = &args.objective else {
        return stated.ok_or_else(|| {
            let message = match foreign {
                Some(reason) => format!("{place} was trained for another objective: {reason}"),
                None => format!("{place} does not state its objective"),
            };
            Error::input(message).hint("state it: `--objective mdlm`; `mdlm objectives` lists the kinds")
        });
    };
    let own = Objective::from_argument(text)?;
    if let Some(reason) = foreign {
        terminal.warn(&format!(
            "{place} was trained for another objective than `{}`: {reason}; its texts are those of a model that was not \
             trained for them",
            own.kind()
        ));
    }
    // BD3-LM's code saves models of all objectives of one network under its name.
    let is_of_any = facts.is_some_and(|facts| facts.model_type.as_deref() == Some("bd3lm"))
        && stated.is_some_and(|stated| stated.backbone() == own.backbone());
    if let (Some(facts), true) = (facts, stated.is_some() && !is_of_any)
        && let Some((field, theirs, ours)) = facts.conflict(&own)
    {
        let message = format!(
            "{place}: `{field}` of the objective is {theirs} by `{}`, but {ours} by `--objective`",
            facts.file
        );
        return Err(Error::input(message).hint("leave `--objective` out: it is taken from the file"));
    }
    Ok(own)
}

/// The compiled shape: that of the option, or the only one that fits.
fn shape(args: &Args, checkpoint: &ForeignCheckpoint, terminal: &Terminal) -> Result<&'static Shape> {
    let place = checkpoint.place();
    let Some(guess) = checkpoint.guess() else {
        let what = checkpoint.family();
        let what = what.unwrap_or_else(|| "not a network that mdlm has".to_owned());
        return Err(Error::input(format!("{place} holds no model of mdlm's: {what}"))
            .hint("`mdlm checkpoint FILE` shows what a checkpoint holds"));
    };
    let shape = if let Some(name) = &args.shape {
        // The weights are compared with it when they are read.
        SHAPES
            .find(name)
            .ok_or_else(|| Error::input(format!("shape `{name}` is not compiled")))?
    } else {
        let fitting = guess.fitting();
        let stated = checkpoint.facts().and_then(|facts| facts.shape.as_deref());
        match fitting[..] {
            [only] => only,
            [] => {
                let message = format!("no compiled shape fits the network of {place}: {}", guess.text());
                return Err(Error::input(message).hint(guess.way_out()));
            }
            _ => {
                let found = fitting.iter().copied().find(|shape| Some(shape.name) == stated);
                found.ok_or_else(|| {
                    let names: Vec<_> = fitting
                        .iter()
                        .map(|shape| format!("`--shape {}`", shape.name))
                        .collect();
                    Error::input(format!(
                        "{} fit the network of {place}",
                        counted(fitting.len(), "compiled shape")
                    ))
                    .hint(format!("choose one: {}", names.join(", ")))
                })?
            }
        }
    };
    if guess.heads.is_none() {
        terminal.warn(&format!(
            "{place} does not state its number of heads, which its tensors do not show: {} of shape `{}` are taken",
            counted(shape.heads, "head"),
            shape.name
        ));
    }
    Ok(shape)
}

/// The tokenizer of the option, or the one beside the weights.
fn tokenizer(args: &Args, folder: &Path, checkpoint: &ForeignCheckpoint) -> Result<Option<Tokenizer>> {
    let beside = folder.join(TOKENIZER);
    let stated = args.tokenizer.clone();
    let stated = stated.map(|path| if path.is_dir() { path.join(TOKENIZER) } else { path });
    match stated {
        Some(path) => read_tokenizer(&path).map(Some),
        None if beside.is_file() => read_tokenizer(&beside).map(Some),
        None if args.tokens => Ok(None),
        None => Err(Error::input(format!("{} has no tokenizer beside it", checkpoint.place())).hint(
            "name the tokenizer that the model was trained with, `--tokenizer FILE` (a `tokenizer.json` or its folder), or \
             print tokens with `--tokens`",
        )),
    }
}

/// Reads a `tokenizer.json`. The files beside it say which tokens have special roles.
fn read_tokenizer(path: &Path) -> Result<Tokenizer> {
    let folder = path.parent().unwrap_or(Path::new(""));
    if path.file_name().is_some_and(|name| name == TOKENIZER) {
        if folder.join(MODEL_INFO).is_file() {
            return ModelInfo::open(folder)?.tokenizer(folder);
        }
        if folder.join(TOKENS_INFO).is_file() {
            return Tokenizer::open(folder);
        }
    }
    let file = TokenizerFile {
        path: path.to_string_lossy().into_owned(),
        special: special_tokens(&folder.join(SPECIAL_TOKENS))?,
    };
    Tokenizer::from_file(&file, Path::new(""))
}

/// The tokens of special roles in a file of Hugging Face, each as text or as an object with its `content`.
fn special_tokens(path: &Path) -> Result<Option<SpecialTokens>> {
    if !path.is_file() {
        return Ok(None);
    }
    let what = || format!("read `{}`", path.display());
    let text = std::fs::read_to_string(path).context(what)?;
    let json: Value = serde_json::from_str(&text).wrap(Kind::Input, what)?;
    let token = |role: &str| {
        let token = json.get(role)?;
        let text = token.as_str().or_else(|| token.get("content")?.as_str())?;
        Some(text.to_owned())
    };
    Ok(Some(SpecialTokens {
        bos: token("bos_token"),
        eos: token("eos_token"),
        pad: token("pad_token"),
        mask: token("mask_token"),
    }))
}

/// What the file states of tokens must agree with the tokenizer.
fn agree(
    checkpoint: &ForeignCheckpoint,
    shape: &Shape,
    tokenizer: &Tokenizer,
    terminal: &Terminal,
) -> Result<()> {
    let place = checkpoint.place();
    let other = |what: &str, file: &str, theirs: &dyn std::fmt::Display, ours: &dyn std::fmt::Display| {
        Error::input(format!(
            "{place}: {what} is {theirs} by `{file}`, but {ours} by the tokenizer"
        ))
        .hint("name the tokenizer that the model was trained with: `--tokenizer FILE`")
    };
    for warning in tokenizer.warnings() {
        terminal.warn(warning);
    }
    let ours = u64::from(tokenizer.vocabulary());
    let of_network = shape.vocabulary as u64;
    let Some(facts) = checkpoint.facts() else {
        if ours != of_network {
            terminal.warn(&format!(
                "{place}: its network has {of_network} tokens, but the tokenizer has {ours}: the others are not used"
            ));
        }
        return Ok(());
    };
    let mask = u64::from(tokenizer.special().mask);
    if let Some(theirs) = facts.mask.filter(|theirs| *theirs != mask) {
        return Err(other("the mask token", &facts.file, &theirs, &mask));
    }
    if let Some(theirs) = &facts.tokenizer {
        let digest = tokenizer.digest()?;
        if *theirs != digest {
            let short = |digest: &str| digest.chars().take(8).collect::<String>();
            return Err(other(
                "the tokenizer",
                &facts.file,
                &short(theirs),
                &short(&digest),
            ));
        }
    }
    // A model that states no mask has it among the tokens of its vocabulary.
    let stated = facts.tokens.or(facts.vocabulary.filter(|_| facts.mask.is_none()));
    match stated {
        Some(theirs) if theirs != ours => Err(other("the vocabulary", &facts.file, &theirs, &ours)),
        _ => Ok(()),
    }
}
