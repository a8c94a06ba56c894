//! `checkpoint`: weights from elsewhere → a model, laid out as that of a train stage.
//!
//! | file | content |
//! |---|---|
//! | `ema.safetensors` | the weights that were chosen, under the authors' names, as f32 |
//! | `raw.safetensors` | the weights of the last step where the file has them too, else the same as `ema.safetensors` |
//! | `model.json` | what the weights are ([`ModelInfo`]), with what they come from ([`ModelOrigin`]) |
//! | `optimizer.safetensors` | AdamW's moments where the file has them and the training can be continued |
//! | `tokenizer.json` | the tokenizer, so that the model is whole without its data |

use std::path::Path;

use serde_json::{Map, Value, json};

use crate::data::fetch::{self, Downloads, Fetched};
use crate::data::{TOKENIZER, TokensInfo, write_json};
use crate::error::{Context as _, Error, Kind, Result};
use crate::manifest::reading::RemoteFile;
use crate::manifest::{Checkpoint, Objective, Stage, Weights};
use crate::model::{Parameter, parameters, total};
use crate::numbers;
use crate::plural::counted;
use crate::precision::Precision;
use crate::shapes::{SHAPES, Shape};
use crate::stages::by_hand::{self, Sha256};
use crate::stages::train::dimensions;
use crate::stages::trained::{MODEL_INFO, ModelInfo, ModelOrigin};
use crate::stages::{Context, Run, StageOutput, fetched};
use crate::store::ExternalFile;
use crate::train::checkpoint::{EMA, OPTIMIZER, RAW};
use crate::weights;
use crate::weights::import::config::{ConfigFacts, StatedRole};
use crate::weights::import::files::{CheckpointFile, FileSet};
use crate::weights::import::tokens::TokenizerFacts;
use crate::weights::import::{ForeignCheckpoint, MOMENTS, not_finite};

/// Tensors with NaN or infinite values that a warning names at most.
const NAMED: usize = 5;
/// Values that are converted to bytes at a time.
const BLOCK: usize = 1 << 14;

impl Run for Checkpoint {
    /// Version of the stage: a change of what it writes for the same input raises it.
    ///
    /// 1: safetensors files, folders of the hub, results of train stages, files of PyTorch and PyTorch Lightning. 2: the moments
    /// of an optimizer; what contradicts the file is refused in more cases. 3: averages in further layouts; the files of a
    /// tokenizer are compared; moments that are not finite are not taken. 4: averages whose names have no dots; the learning
    /// rate of the next update and the end of its cosine, with which a training is compared that continues.
    const VERSION: u32 = 4;

    /// Runs the stage.
    ///
    /// # Errors
    /// The file cannot be had or read, is not a network of the shape, or contradicts the manifest; the disk is full.
    fn run(&self, context: &Context<'_>) -> Result<StageOutput> {
        let input = context.input("tokenizer")?;
        let tokens = TokensInfo::open(input)?;
        let shape = SHAPES
            .find(&self.shape)
            .ok_or_else(|| Error::input(format!("shape `{}` is not compiled", self.shape)))?;
        let mut outcome = StageOutput::default();
        let mut downloads = None;
        let files = files(self, &mut downloads, context, &mut outcome)?;
        let mut checkpoint = ForeignCheckpoint::open(&files)?;
        let objective = objective(self, &checkpoint, context)?;
        agree(&checkpoint, shape, &tokens, self, context)?;
        agree_on_tokens(&checkpoint, &tokens, self, input)?;
        let chosen = checkpoint.choose(self.weights)?;
        if let (None, Some((path, reason))) = (self.weights, checkpoint.unread_average()) {
            context.warn(format!(
                "{}: the averaged weights in `{path}` are not read, and those of the last step are taken: {reason}",
                checkpoint.place()
            ));
        }
        let backbone = objective.backbone();
        let parameters = parameters(shape, backbone);
        // Of the weights of the last step and the moments.
        let mut identity = blake3::Hasher::new();
        let values = checkpoint.read(shape, backbone, chosen)?;
        warn_of(&not_finite(&parameters, &values), context);
        write(&context.output.join(EMA), &parameters, &values)?;
        // Where the average was taken by default, what it is the average of comes along.
        let has_both = chosen == Weights::Ema
            && (checkpoint.sets().iter()).any(|set| set.which == Weights::Raw && !set.tensors.is_empty());
        if has_both {
            drop(values);
            let values = checkpoint.read(shape, backbone, Weights::Raw)?;
            warn_of(&not_finite(&parameters, &values), context);
            write(&context.output.join(RAW), &parameters, &values)?;
            identify(&mut identity, &values);
        } else {
            identify(&mut identity, &values);
            same(&context.output.join(EMA), &context.output.join(RAW))?;
        }
        let (run, no_run) = match checkpoint.run(shape, backbone) {
            Ok(mut run) => {
                run.has_average &= has_both;
                match moments(&mut checkpoint, &parameters, &mut identity, context)? {
                    None => {
                        run.digest = identity.finalize().to_hex().to_string();
                        (Some(run), None)
                    }
                    Some(fault) => (None, Some(fault)),
                }
            }
            Err(reason) => (None, reason),
        };
        let steps = checkpoint.training().steps;
        let model = ModelInfo {
            shape: self.shape.clone(),
            vocabulary: tokens.vocabulary,
            length: shape.length as u32,
            wrap: wrap(self, &checkpoint)?,
            special: tokens.special,
            tokenizer_digest: tokens.tokenizer_digest.clone(),
            objective,
            steps: steps.unwrap_or(0),
            seed: 0,
            precision: Precision::F32,
            origin: Some(ModelOrigin {
                format: checkpoint.format().to_string(),
                weights: chosen,
                has_both,
                is_only_set: chosen == Weights::Raw
                    && checkpoint.sets().len() == 1
                    && checkpoint.unread_average().is_none(),
                steps,
                run,
                no_run,
            }),
        };
        write_json(&context.output.join(MODEL_INFO), &model)?;
        let tokenizer = input.join(TOKENIZER);
        std::fs::copy(&tokenizer, context.output.join(TOKENIZER))
            .context(|| format!("copy `{}`", tokenizer.display()))?;
        outcome.figures = figures(self, &checkpoint, &model, total(&parameters));
        outcome.figures.extend(fetched::elsewhere(&outcome.provenance));
        Ok(outcome)
    }

    /// The shape by its dimensions too, as for a training; of a download its checksum, or its URL.
    fn state_contents(&self, config: &mut Map<String, Value>) -> Result<Vec<ExternalFile>> {
        if let Some(shape) = SHAPES.find(&self.shape) {
            config.insert("shape".to_owned(), Value::String(dimensions(shape)));
        }
        for field in ["sha256", "unpinned"] {
            config.shift_remove(field);
        }
        if self.is_remote() {
            let file = match (&self.sha256, &self.path) {
                (Some(sha256), _) => Some(json!({ "sha256": sha256 })),
                // Its own content is in the key.
                (None, Some(_)) => None,
                (None, None) => Some(json!({ "url": self.file })),
            };
            match file {
                Some(file) => drop(config.insert("file".to_owned(), file)),
                None => drop(config.shift_remove("file")),
            }
            config.shift_remove("path");
        }
        Ok(vec![])
    }

    fn downloads(&self) -> (Vec<RemoteFile>, Option<u64>) {
        (self.remote_files(), None)
    }

    fn check_by_hand(&self, base: &Path, sha256: Sha256<'_>) -> Result<()> {
        match (&self.path, &self.sha256) {
            (Some(path), Some(known)) => by_hand::check(&base.join(path), known, sha256),
            _ => Ok(()),
        }
    }

    fn is_by_hand_here(&self, base: &Path) -> bool {
        let path = self.path.as_ref();
        path.is_some_and(|path| base.join(path).exists())
    }

    /// Two copies of the weights; the moments are read one after the other.
    fn memory(&self, _inputs: &[&Stage], _base: &Path) -> Option<u64> {
        let shape = SHAPES.find(&self.shape)?;
        let backbone = self.objective.unwrap_or_default().backbone();
        Some(8 * total(&parameters(shape, backbone)) as u64)
    }
}

/// What the summary of the stage shows.
fn figures(
    config: &Checkpoint,
    checkpoint: &ForeignCheckpoint,
    model: &ModelInfo,
    parameters: usize,
) -> Vec<(String, String)> {
    let mut figures = Vec::new();
    let mut figure = |name: &str, value: String| figures.push((name.to_owned(), value));
    let Some(origin) = &model.origin else {
        return figures;
    };
    figure("format", origin.format.clone());
    figure("parameters", numbers::count(parameters as u64));
    let weights = match (origin.weights, origin.has_both) {
        (Weights::Ema, true) => "average, and those of the last step",
        (Weights::Ema, false) => "average",
        (Weights::Raw, _) if origin.is_only_set => "the only ones of the file (not called an average)",
        (Weights::Raw, _) => "of the last step",
    };
    figure("weights", weights.to_owned());
    let objective = model.objective.kind();
    figure(
        "objective",
        match (&config.objective, checkpoint.facts()) {
            (None, Some(facts)) => format!("{objective}, by `{}`", facts.file),
            _ => objective.to_owned(),
        },
    );
    let steps = origin.steps.map(|steps| counted(steps, "step"));
    figure("trained for", steps.unwrap_or("not stated".to_owned()));
    match (&origin.run, &origin.no_run) {
        (Some(run), _) => figure("can be continued", format!("from step {} on", run.step)),
        (None, Some(reason)) => figure("can be continued", format!("no: {reason}")),
        (None, None) => {}
    }
    figures
}

/// The files of the checkpoint on this machine; those that are downloaded stay while `downloads` lives.
fn files(
    config: &Checkpoint,
    downloads: &mut Option<Downloads>,
    context: &Context<'_>,
    outcome: &mut StageOutput,
) -> Result<FileSet> {
    let remote = config.remote_files();
    if remote.is_empty() {
        let path = context.base.join(config.path.as_ref().unwrap_or(&config.file));
        if let (Some(_), Some(sha256)) = (&config.path, &config.sha256) {
            by_hand::check(&path, sha256, &|path| fetch::sha256_of(path, context.cancel))?;
        }
        return FileSet::at(&path);
    }
    let downloads = downloads.insert(Downloads::open(context.downloads, context.cancel)?);
    let found = fetched::download(&remote, downloads, context, &mut outcome.provenance, &mut 0)
        .map_err(|error| with_way_out(config, error))?;
    let place = format!("`{}`", fetch::shown(&config.file));
    let file = |file: Fetched| CheckpointFile {
        name: file.url.rsplit('/').next().unwrap_or_default().to_owned(),
        path: file.path,
    };
    let mut found: Vec<_> = found.into_iter().map(file).collect();
    match (config.is_repository(), found.len()) {
        (false, 1) => Ok(FileSet::of_one(place, found.remove(0))),
        (false, several) => {
            let message = format!("{place} stands for {}", counted(several, "file"));
            Err(Error::input(message).hint("name one file, or a repository: `hf://OWNER/NAME@COMMIT`"))
        }
        (true, _) => FileSet::among(&place, found),
    }
}

/// An error of a checkpoint's download with a hint about the checkpoint's settings.
fn with_way_out(config: &Checkpoint, error: Error) -> Error {
    let by_hand =
        "or copy the checkpoint to this machine and name the copy beside `file`: `\"path\": \"FOLDER\"`";
    match error.kind() {
        Kind::Input if config.is_repository() => error.or_hint(
            "the `config.json` and the safetensors files at the root of the repository are downloaded; where its weights \
             are in another file, name it: `hf://OWNER/NAME@COMMIT/pytorch_model.bin`",
        ),
        Kind::Environment => error.or_hint(by_hand),
        _ => error,
    }
}

/// The objective: that of the manifest, or that of the file.
fn objective(
    config: &Checkpoint,
    checkpoint: &ForeignCheckpoint,
    context: &Context<'_>,
) -> Result<Objective> {
    const FROM_FILE: &str = "leave `objective` out: it is taken from the file";
    let facts = checkpoint.facts();
    let stated = facts.and_then(|facts| facts.objective);
    let foreign = facts.and_then(|facts| facts.foreign.as_deref());
    let place = checkpoint.place();
    let Some(own) = config.objective else {
        return stated.ok_or_else(|| match foreign {
            Some(reason) => Error::input(format!("{place} was trained for another objective: {reason}"))
                .hint("to fine-tune it all the same, state the objective that it is to be taken for: `\"objective\": { \"kind\": \"mdlm\" }`"),
            None => Error::input(format!("{place} does not state its objective"))
                .hint("state it: `\"objective\": { \"kind\": \"mdlm\" }`; `mdlm objectives` lists the kinds"),
        });
    };
    if let Some(reason) = foreign {
        context.warn(format!(
            "{place} was trained for another objective than `{}`: {reason}; its bounds and samples are those of a model \
             that was not trained for them",
            own.kind()
        ));
    }
    let Some(facts) = facts else { return Ok(own) };
    let conflict = |what: &str, theirs: &str, ours: &str, hint: &str| {
        let message = format!(
            "{place}: {what} is {theirs} in `{}`, but {ours} in the manifest",
            facts.file
        );
        Err(Error::input(message).hint(hint.to_owned()))
    };
    // BD3-LM's code saves models of all objectives of one network under its name.
    let is_of_any = facts.model_type.as_deref() == Some("bd3lm")
        && stated.is_some_and(|stated| stated.backbone() == own.backbone());
    let conflicting = facts.conflict(&own).filter(|_| !is_of_any);
    if let Some((field, theirs, ours)) = &conflicting
        && field == "kind"
    {
        return conflict("the objective", theirs, ours, FROM_FILE);
    }
    // A `config.json` may state it beside the objective, a `model.json` states it within.
    let stated = stated.map(|stated| stated.is_time_conditioned());
    if let Some(theirs) = facts.time_conditioning.or(stated)
        && own.backbone() == crate::shapes::Backbone::Dit
        && theirs != own.is_time_conditioned()
    {
        return conflict(
            "`time_conditioning`",
            &theirs.to_string(),
            &own.is_time_conditioned().to_string(),
            &format!("set `\"time_conditioning\": {theirs}` in `objective`, or leave `objective` out"),
        );
    }
    if let Some((field, theirs, ours)) = &conflicting {
        return conflict(&format!("`{field}` of the objective"), theirs, ours, FROM_FILE);
    }
    Ok(own)
}

/// Writes AdamW's moments; where they are not all finite, none, and the reason why the training cannot be continued.
fn moments(
    checkpoint: &mut ForeignCheckpoint,
    parameters: &[Parameter],
    identity: &mut blake3::Hasher,
    context: &Context<'_>,
) -> Result<Option<String>> {
    let path = context.output.join(OPTIMIZER);
    let mut fault = None;
    weights::write(&path, parameters, &MOMENTS, &[], &mut |which, into| {
        checkpoint.moments(parameters, which, into)?;
        identify(identity, into);
        if let Some((name, count)) = not_finite(parameters, into).first() {
            fault.get_or_insert_with(|| {
                let values = counted(*count, "value");
                format!(
                    "its moments `{}` of `{name}` are NaN or infinite in {values}",
                    MOMENTS[which]
                )
            });
        }
        Ok(())
    })?;
    if let Some(fault) = &fault {
        context.warn(format!("{}: {fault}: they are not taken", checkpoint.place()));
        std::fs::remove_file(&path).context(|| format!("delete `{}`", path.display()))?;
    }
    Ok(fault)
}

/// Adds values to a digest.
fn identify(identity: &mut blake3::Hasher, values: &[f32]) {
    let mut bytes = Vec::new();
    for values in values.chunks(BLOCK) {
        bytes.clear();
        bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
        identity.update(&bytes);
    }
}

/// Whether rows are joined and cut documents: by the file, by the manifest, or as the authors train on OpenWebText.
fn wrap(config: &Checkpoint, checkpoint: &ForeignCheckpoint) -> Result<bool> {
    let facts = checkpoint.facts();
    let stated = facts.and_then(|facts| Some((facts.wrap?, &facts.file)));
    if let (Some(own), Some((theirs, file))) = (config.wrap, stated)
        && own != theirs
    {
        return Err(Error::input(format!(
            "{}: `wrap` is {theirs} in `{file}`, but {own} in the manifest",
            checkpoint.place()
        ))
        .hint("leave `wrap` out: it is taken from the file"));
    }
    Ok(config.wrap.or(stated.map(|(wrap, _)| wrap)).unwrap_or(true))
}

/// What the file states of tokens must agree with the tokenizer, and the shape must have room for its tokens. What it does
/// not state, and the tensors do not show, is a warning.
fn agree(
    checkpoint: &ForeignCheckpoint,
    shape: &Shape,
    tokens: &TokensInfo,
    config: &Checkpoint,
    context: &Context<'_>,
) -> Result<()> {
    let place = checkpoint.place();
    let other = |what: &str, file: &str, theirs: u64, ours: u64| {
        Error::input(format!(
            "{place}: {what} is {theirs} by `{file}`, but {ours} by the tokenizer of `{}`",
            config.tokenizer
        ))
        .hint("name the tokenize stage of the tokenizer that the model was trained with; its `special` names the mask token")
    };
    if tokens.vocabulary as usize > shape.vocabulary {
        return Err(Error::input(format!(
            "the tokenizer has {} tokens, shape `{}` has room for {}",
            tokens.vocabulary, shape.name, shape.vocabulary
        ))
        .hint("name the tokenizer that the model was trained with; `mdlm shapes` lists the shapes"));
    }
    let guess = checkpoint.guess();
    if guess.is_some_and(|guess| guess.heads.is_none()) {
        context.warn(format!(
            "{place} does not state its number of heads, which its tensors do not show: {} of shape `{}` are taken",
            counted(shape.heads, "head"),
            shape.name
        ));
    }
    let of_network = guess.map(|guess| guess.vocabulary as u64);
    let warn_of_vocabulary = || {
        if let Some(theirs) = of_network.filter(|theirs| *theirs != u64::from(tokens.vocabulary)) {
            context.warn(format!(
                "{place}: its network has {theirs} tokens, but the tokenizer of `{}` has {}: the others are not used",
                config.tokenizer, tokens.vocabulary
            ));
        }
    };
    let Some(facts) = checkpoint.facts() else {
        warn_of_vocabulary();
        return Ok(());
    };
    let ConfigFacts {
        file,
        mask,
        vocabulary,
        tokens: stated,
        ..
    } = facts;
    if let Some(mask) = *mask
        && mask != u64::from(tokens.special.mask)
    {
        return Err(other(
            "the mask token",
            file,
            mask,
            u64::from(tokens.special.mask),
        ));
    }
    if let Some(theirs) = &facts.tokenizer
        && *theirs != tokens.tokenizer_digest
    {
        return Err(Error::input(format!(
            "{place}: the model was trained with the tokenizer {} by `{file}`, but that of `{}` is {}",
            short(theirs),
            config.tokenizer,
            short(&tokens.tokenizer_digest)
        ))
        .hint("name the tokenize stage of the tokenizer that the model was trained with"));
    }
    // A model of the hub or of the authors' training that states no mask has it among the tokens of its vocabulary.
    let size = stated.or(vocabulary.or(of_network).filter(|_| mask.is_none()));
    match size {
        Some(size) if size != u64::from(tokens.vocabulary) => {
            let by = if stated.or(*vocabulary).is_some() {
                file
            } else {
                "vocab_embed.embedding"
            };
            Err(other("the vocabulary", by, size, u64::from(tokens.vocabulary)))
        }
        Some(_) => Ok(()),
        None => {
            warn_of_vocabulary();
            Ok(())
        }
    }
}

/// The ids and spellings that stand beside the weights must be those of the tokenizer.
fn agree_on_tokens(
    checkpoint: &ForeignCheckpoint,
    tokens: &TokensInfo,
    config: &Checkpoint,
    input: &Path,
) -> Result<()> {
    let place = checkpoint.place();
    let other = |difference: String| {
        Error::input(format!("{place}: {difference}"))
            .hint("name the tokenize stage of the tokenizer that the model was trained with; its `special` names special tokens")
    };
    if let Some(facts) = checkpoint.facts() {
        for StatedRole { role, field, ids } in &facts.roles {
            let (ours, spelled) = match *role {
                "bos" => (tokens.special.bos, &tokens.roles.bos.token),
                "eos" => (tokens.special.eos, &tokens.roles.eos.token),
                _ => (tokens.special.pad, &tokens.roles.pad.token),
            };
            if !ids.contains(&u64::from(ours)) {
                let ids: Vec<_> = ids.iter().map(ToString::to_string).collect();
                return Err(other(format!(
                    "`{field}` is {} in `{}`, but the {role} token is {ours} (`{spelled}`) by the tokenizer of `{}`",
                    ids.join(", "),
                    facts.file,
                    config.tokenizer
                )));
            }
        }
    }
    let Some(theirs) = checkpoint.tokenizer()? else {
        return Ok(());
    };
    let ours = TokenizerFacts::open(&input.join(TOKENIZER))?;
    theirs
        .difference(&ours, tokens, &config.tokenizer)
        .map_or(Ok(()), |difference| Err(other(difference)))
}

/// The beginning of a digest in hex.
fn short(digest: &str) -> String {
    digest.chars().take(8).collect()
}

fn warn_of(tensors: &[(&str, usize)], context: &Context<'_>) {
    for (name, count) in tensors.iter().take(NAMED) {
        let values = counted(*count, "value");
        context.warn(format!("tensor `{name}` is NaN or infinite in {values}"));
    }
    if tensors.len() > NAMED {
        let more = counted(tensors.len() - NAMED, "more tensor");
        context.warn(format!("NaN or infinite values are in {more}"));
    }
}

fn write(path: &Path, parameters: &[Parameter], values: &[f32]) -> Result<()> {
    weights::write(path, parameters, &[""], &[], &mut |_, into| {
        into.copy_from_slice(values);
        Ok(())
    })
}

/// The same file under another name: without a second copy where the file system can do that.
fn same(path: &Path, name: &Path) -> Result<()> {
    if std::fs::hard_link(path, name).is_ok() {
        return Ok(());
    }
    std::fs::copy(path, name).context(|| format!("copy `{}`", path.display()))?;
    Ok(())
}
