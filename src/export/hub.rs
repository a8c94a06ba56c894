//! A folder of Hugging Face: weights, settings, tokenizer, the network in PyTorch, and a model card.

use std::fs;
use std::path::{Path, PathBuf};

use super::{FinishedModel, NetworkTensor, card, refuse_link, settings, write_text};
use crate::data::TOKENIZER;
use crate::data::tokenizer::Tokenizer;
use crate::disk::{sync_folder, sync_parent};
use crate::error::{Context as _, Error, Kind, Result, Wrap as _};
use crate::manifest::Weights;
use crate::weights::rotary_buffer;
use crate::weights::tensors::Writer;

/// The network in PyTorch.
const MODELING: &str = include_str!("modeling_mdlm.py");

/// The files of a folder.
pub const FILES: [&str; 7] = [
    "README.md",
    "config.json",
    "model.safetensors",
    "modeling_mdlm.py",
    "special_tokens_map.json",
    "tokenizer.json",
    "tokenizer_config.json",
];

/// Writes a folder under another name beside its place, and renames it. A folder that is there is replaced if `is_forced`, and
/// only if all that it holds is of an export.
///
/// # Errors
/// Input errors: the folder is not empty, or is a file. The environment's: the disk is full or not writable.
pub fn write(model: &FinishedModel<'_>, which: Weights, folder: &Path, is_forced: bool) -> Result<()> {
    refuse_link(folder)?;
    let replaces = occupied(folder, is_forced)?;
    let writing = || format!("write `{}`", folder.display());
    let whole = std::path::absolute(folder).context(writing)?;
    let name = whole.file_name();
    let (Some(name), Some(parent)) = (name, whole.parent()) else {
        return Err(Error::input(format!(
            "`{}` does not name a folder that can be made",
            folder.display()
        )));
    };
    fs::create_dir_all(parent).context(writing)?;
    let beside = |what: &str| {
        let name = name.to_string_lossy();
        parent.join(format!(".{name}.{}.{what}", std::process::id()))
    };
    let new = UnfinishedFolder::create(beside("partial")).context(writing)?;
    fill(model, which, &new.path)?;
    sync_folder(&new.path)?;
    let old = beside("replaced");
    if replaces {
        fs::rename(&whole, &old).context(writing)?;
    }
    // An empty folder gives way to the new one.
    if let Err(error) = fs::rename(&new.path, &whole) {
        if replaces {
            let _ = fs::rename(&old, &whole);
        }
        return Err(error).context(writing);
    }
    new.keep();
    if replaces {
        fs::remove_dir_all(&old).context(|| format!("delete `{}`", old.display()))?;
    }
    sync_parent(&whole)
}

/// Whether the folder is there and is to be replaced.
fn occupied(folder: &Path, is_forced: bool) -> Result<bool> {
    let reading = || format!("read `{}`", folder.display());
    if !folder.try_exists().context(reading)? {
        return Ok(false);
    }
    if !folder.is_dir() {
        return Err(Error::input(format!("`{}` is a file", folder.display()))
            .hint("name a folder that is not there yet, or an empty one"));
    }
    let mut others = Vec::new();
    let mut is_empty = true;
    for entry in fs::read_dir(folder).context(reading)? {
        let name = entry.context(reading)?.file_name();
        is_empty = false;
        if !FILES.iter().any(|own| name == *own) {
            others.push(name.to_string_lossy().into_owned());
        }
    }
    if is_empty {
        return Ok(false);
    }
    if !is_forced {
        return Err(Error::input(format!("`{}` is not empty", folder.display()))
            .hint("name another folder, or replace an earlier export with `--force`"));
    }
    others.sort();
    match others.first() {
        None => Ok(true),
        Some(other) => Err(Error::input(format!(
            "`{}` holds `{other}`, which is not a file of an export",
            folder.display()
        ))
        .hint("name another folder: `--force` replaces a folder that holds an export alone")),
    }
}

/// Writes the files.
fn fill(model: &FinishedModel<'_>, which: Weights, folder: &Path) -> Result<()> {
    let tokenizer_path = model.folder.join(TOKENIZER);
    let text =
        fs::read_to_string(&tokenizer_path).context(|| format!("read `{}`", tokenizer_path.display()))?;
    let tokenizer = Tokenizer::load(&tokenizer_path, model.info.special)?;
    let parsed =
        serde_json::from_str(&text).wrap(Kind::Input, || format!("read `{}`", tokenizer_path.display()))?;
    let roles = settings::role_tokens(&tokenizer, &parsed)?;

    let values = model.read_weights(which)?;
    let buffer = rotary_buffer(model.shape);
    let tensors = NetworkTensor::all(model.shape, &model.parameters());
    let header: Vec<_> = (tensors.iter())
        .map(|tensor| (tensor.name.clone(), tensor.dims.clone()))
        .collect();
    // `transformers` refuses files without `format`.
    let mut writer = Writer::create(&folder.join("model.safetensors"), &header, &[("format", "pt")])?;
    for tensor in &tensors {
        writer.append(tensor.values(&values, &buffer))?;
    }
    writer.finish()?;

    write_text(&folder.join("tokenizer.json"), &text)?;
    let json = |name: &str, value: &serde_json::Value| {
        let text = serde_json::to_string_pretty(value).wrap(Kind::Internal, || format!("write `{name}`"))?;
        write_text(&folder.join(name), &(text + "\n"))
    };
    json("config.json", &settings::config(model)?)?;
    json(
        "tokenizer_config.json",
        &settings::tokenizer_config(model.shape.length, &roles),
    )?;
    json(
        "special_tokens_map.json",
        &serde_json::Value::Object(roles.clone()),
    )?;
    write_text(&folder.join("modeling_mdlm.py"), MODELING)?;
    write_text(&folder.join("README.md"), &card::text(model, which, &roles)?)
}

/// A folder that is removed unless it is kept.
#[derive(Debug)]
struct UnfinishedFolder {
    path: PathBuf,
    is_kept: bool,
}

impl UnfinishedFolder {
    fn create(path: PathBuf) -> std::io::Result<Self> {
        // Of a process with the same number that was killed.
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path)?;
        Ok(Self { path, is_kept: false })
    }

    fn keep(mut self) {
        self.is_kept = true;
    }
}

impl Drop for UnfinishedFolder {
    fn drop(&mut self) {
        if !self.is_kept {
            // The error that led here is the one to report.
            let _ = fs::remove_dir_all(&self.path);
        }
    }
}
