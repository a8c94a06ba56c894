//! The files of a checkpoint: one, or those of a folder or repository that belong together.

use std::fs;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use crate::disk::open_file;
use crate::error::{Context as _, Error, Result};
use crate::plural::counted;

/// What a folder of a Hugging Face model says of it.
pub const CONFIG: &str = "config.json";
/// What a model of a train stage says of it.
pub const MODEL: &str = "model.json";
/// Averaged weights of a train stage.
const AVERAGED: &str = "ema.safetensors";
/// Weights of the last step of a train stage.
const LAST: &str = "raw.safetensors";
/// AdamW's moments of a train stage.
const OPTIMIZER: &str = "optimizer.safetensors";
/// The weights of a Hugging Face model.
const SAFETENSORS: &str = "model.safetensors";
/// Which shard has which tensor.
const INDEX: &str = "model.safetensors.index.json";
/// The weights of an older Hugging Face model.
const PYTORCH: &str = "pytorch_model.bin";
/// Its index.
const PYTORCH_INDEX: &str = "pytorch_model.bin.index.json";

/// What says which tokens a model of Hugging Face was trained with, in the order in which a contradiction is looked for.
const TOKENIZER_FILES: [&str; 5] = [
    "tokenizer.json",
    "vocab.json",
    "vocab.txt",
    "special_tokens_map.json",
    "tokenizer_config.json",
];

/// Bytes of a JSON file beside weights, at most: an index of a hundred thousand tensors has some 10 MB.
const MOST_JSON: u64 = 64 << 20;
/// Shards of an index, at most.
const MOST_SHARDS: usize = 10_000;
/// Bytes by which a file is recognized.
const HEAD: u64 = 512;
/// Names that a message lists at most.
const LISTED: usize = 8;

/// A file of a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CheckpointFile {
    /// Its name in its folder or repository.
    pub name: String,
    /// Where it lies.
    pub path: PathBuf,
}

/// The files of a checkpoint, by their roles.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileSet {
    /// The file or folder, as messages name it.
    pub place: String,
    /// The weights: one file, or the shards of an index in its order.
    pub weights: Vec<CheckpointFile>,
    /// Whether the weights are shards.
    pub is_sharded: bool,
    /// Further weights of the last step, where `weights` are averaged: those of a train stage's folder.
    pub last: Option<CheckpointFile>,
    /// The moments beside them.
    pub optimizer: Option<CheckpointFile>,
    /// `config.json` or `model.json`.
    pub config: Option<CheckpointFile>,
    /// The index of the shards.
    pub index: Option<CheckpointFile>,
    /// The files of its tokenizer.
    pub tokenizer: Vec<CheckpointFile>,
}

/// What a file is, by its first bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Container {
    /// A safetensors file.
    Safetensors,
    /// A zip archive with a pickle: `torch.save`.
    Torch,
    /// A bare pickle or a tar archive: `torch.save` before version 1.6.
    OldTorch,
}

impl FileSet {
    /// A file, or the files of a folder. The index of shards stands for the shards beside it.
    ///
    /// # Errors
    /// Nothing has that path; a folder has no weights or several; an index is malformed or names files elsewhere.
    pub fn at(path: &Path) -> Result<Self> {
        let place = format!("`{}`", path.display());
        let metadata = fs::metadata(path).context(|| format!("read {place}"))?;
        if !metadata.is_dir() {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            let file = CheckpointFile {
                name: name.into_owned(),
                path: path.to_owned(),
            };
            if !is_index(path) {
                return Ok(Self::of_one(place, file));
            }
            let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
            let files = Self::inside(folder.unwrap_or(Path::new(".")), &place)?;
            return Self::of_index(place, file, &files);
        }
        let files = Self::inside(path, &place)?;
        Self::among(&place, files)
    }

    /// The files of a folder.
    fn inside(folder: &Path, place: &str) -> Result<Vec<CheckpointFile>> {
        let read = || format!("read {place}");
        let mut files = Vec::new();
        for entry in fs::read_dir(folder).context(read)? {
            let entry = entry.context(read)?;
            if let Ok(name) = entry.file_name().into_string()
                && entry.path().is_file()
            {
                files.push(CheckpointFile {
                    name,
                    path: entry.path(),
                });
            }
        }
        Ok(files)
    }

    /// One file without others beside it.
    #[must_use]
    pub fn of_one(place: String, file: CheckpointFile) -> Self {
        Self {
            place,
            weights: vec![file],
            is_sharded: false,
            last: None,
            optimizer: None,
            config: None,
            index: None,
            tokenizer: vec![],
        }
    }

    /// The shards of an index among files, and what stands beside them.
    fn of_index(place: String, index: CheckpointFile, files: &[CheckpointFile]) -> Result<Self> {
        let weights = shards(&index, files).context(|| format!("{place}: read `{}`", index.name))?;
        Ok(Self {
            place,
            weights,
            is_sharded: true,
            last: None,
            optimizer: None,
            config: files.iter().find(|file| file.name == CONFIG).cloned(),
            index: Some(index),
            tokenizer: of_tokenizer(files),
        })
    }

    /// Those of a folder's or repository's files that belong to the model.
    ///
    /// # Errors
    /// There are no weights, or several; an index is malformed or names files elsewhere.
    pub fn among(place: &str, mut files: Vec<CheckpointFile>) -> Result<Self> {
        files.sort_by(|a, b| a.name.cmp(&b.name));
        let find = |name: &str| files.iter().find(|file| file.name == name).cloned();
        let config = find(CONFIG);
        let with = |weights: CheckpointFile| Self {
            config: config.clone(),
            tokenizer: of_tokenizer(&files),
            ..Self::of_one(place.to_owned(), weights)
        };
        if let (Some(model), Some(averaged)) = (find(MODEL), find(AVERAGED)) {
            return Ok(Self {
                last: find(LAST),
                optimizer: find(OPTIMIZER),
                config: Some(model),
                ..with(averaged)
            });
        }
        // As `from_pretrained` of transformers chooses: safetensors before PyTorch.
        for (index, whole) in [(INDEX, SAFETENSORS), (PYTORCH_INDEX, PYTORCH)] {
            if let Some(index) = find(index) {
                return Self::of_index(place.to_owned(), index, &files);
            }
            if let Some(weights) = find(whole) {
                return Ok(with(weights));
            }
        }
        let is_weights = |file: &&CheckpointFile| {
            let ending = Path::new(&file.name).extension().unwrap_or_default();
            ["safetensors", "ckpt", "pt", "pth", "bin"]
                .iter()
                .any(|known| *known == ending)
        };
        let found: Vec<_> = files.iter().filter(is_weights).collect();
        match found[..] {
            [only] => Ok(with(only.clone())),
            [] => Err(Error::input(format!(
                "{place} has no weights: no `{SAFETENSORS}`, `{INDEX}`, `{PYTORCH}`, `{PYTORCH_INDEX}` or other file ending in \
                 `.safetensors`, `.ckpt`, `.pt`, `.pth` or `.bin`"
            ))
            .hint("name the file that holds the weights")),
            _ => {
                let names: Vec<_> = found
                    .iter()
                    .take(LISTED)
                    .map(|file| format!("`{}`", file.name))
                    .collect();
                Err(Error::input(format!(
                    "{place} has {} with weights, and none is called `{SAFETENSORS}`",
                    counted(found.len(), "file")
                ))
                .hint(format!("name one of them: {}", names.join(", "))))
            }
        }
    }

    /// All files, those that say what the weights are first.
    #[must_use]
    pub fn all(&self) -> Vec<&CheckpointFile> {
        let beside = self.config.iter().chain(&self.index);
        let weights = beside.chain(&self.weights).chain(&self.last);
        weights.chain(&self.optimizer).chain(&self.tokenizer).collect()
    }
}

/// Whether a file is the index of shards, by its name.
#[must_use]
pub fn is_index(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".index.json")
}

/// The files of a tokenizer.
fn of_tokenizer(files: &[CheckpointFile]) -> Vec<CheckpointFile> {
    let find = |name: &&str| files.iter().find(|file| file.name == **name).cloned();
    TOKENIZER_FILES.iter().filter_map(find).collect()
}

/// The shards that an index names, each once, in order.
fn shards(index: &CheckpointFile, files: &[CheckpointFile]) -> Result<Vec<CheckpointFile>> {
    let json = read_json(&index.path)?;
    let map = json.get("weight_map").and_then(Value::as_object);
    let map = map.ok_or_else(|| {
        Error::input("it has no object `weight_map`")
            .hint("it maps the name of each tensor to the file that has it")
    })?;
    let mut names: Vec<&str> = Vec::new();
    for (tensor, file) in map {
        let Some(file) = file.as_str() else {
            return Err(Error::input(format!(
                "`weight_map` of `{tensor}` is {file}, expected a file's name"
            )));
        };
        // A name that leaves the folder is refused before any file is looked at.
        let is_plain = Path::new(file).file_name().is_some_and(|name| name == file) && !file.contains('\\');
        if !is_plain {
            return Err(Error::input(format!(
                "`weight_map` of `{tensor}` names `{file}`, which is not a file of the same folder"
            ))
            .hint("shards lie beside their index; a name with a folder in it is refused"));
        }
        names.push(file);
    }
    names.sort_unstable();
    names.dedup();
    if names.is_empty() || names.len() > MOST_SHARDS {
        return Err(
            Error::input(format!("`weight_map` names {}", counted(names.len(), "shard")))
                .hint(format!("it names 1 to {MOST_SHARDS}")),
        );
    }
    let find = |name: &str| {
        let found = files.iter().find(|file| file.name == name).cloned();
        found.ok_or_else(|| {
            Error::input(format!("it names the shard `{name}`, which is absent"))
                .hint("copy all shards into the folder of the index")
        })
    };
    names.into_iter().map(find).collect()
}

/// Reads a JSON file of a checkpoint.
///
/// # Errors
/// The file is absent, larger than such files are, or no JSON.
pub fn read_json(path: &Path) -> Result<Value> {
    let what = || "open it".to_owned();
    let file = open_file(path)?;
    let mut text = Vec::new();
    file.take(MOST_JSON + 1).read_to_end(&mut text).context(what)?;
    if text.len() as u64 > MOST_JSON {
        return Err(Error::input(format!("it is larger than {MOST_JSON} bytes"))
            .hint("check that it is the file of a model"));
    }
    serde_json::from_slice(&text).map_err(|error| Error::input(format!("it is not JSON: {error}")))
}

/// What a file is, by its first bytes.
///
/// # Errors
/// It cannot be read, or is not of a known format: the error says what it is where that shows.
pub fn recognize(path: &Path) -> Result<Container> {
    let context = || format!("read `{}`", path.display());
    let mut head = Vec::new();
    let file = open_file(path).context(context)?;
    file.take(HEAD).read_to_end(&mut head).context(context)?;
    by_head(&head).map_err(|error| error.context(context()))
}

fn by_head(head: &[u8]) -> Result<Container> {
    const SAVE: &str = "save it with `safetensors.torch.save_file` or `torch.save`";
    if head.starts_with(b"PK\x03\x04") {
        return Ok(Container::Torch);
    }
    // Protocol 2 to 5 of pickle.
    let is_tar = head.get(257..262) == Some(b"ustar");
    if is_tar || matches!(head, [0x80, 2..=5, ..]) {
        return Ok(Container::OldTorch);
    }
    if head.get(8) == Some(&b'{') {
        return Ok(Container::Safetensors);
    }
    let text = String::from_utf8_lossy(head).trim_start().to_ascii_lowercase();
    let (what, hint) = if head.is_empty() {
        ("an empty file", "copy or download it again")
    } else if head.starts_with(b"GGUF") {
        (
            "a GGUF file, of llama.cpp",
            "take the model that it was converted from",
        )
    } else if head.starts_with(b"\x89HDF") {
        ("an HDF5 file, of Keras", SAVE)
    } else if head.starts_with(b"\x93NUMPY") {
        ("an array of NumPy", SAVE)
    } else if text.starts_with("version https://git-lfs") {
        (
            "a pointer of Git LFS, not the file itself",
            "fetch the file with `git lfs pull`",
        )
    } else if text.starts_with("<!doctype") || text.starts_with("<html") {
        ("a web page", "download the file itself, not the page about it")
    } else if text.starts_with('{') || text.starts_with('[') {
        (
            "a JSON file, without weights",
            "name the file or folder with the weights",
        )
    } else {
        ("its first bytes are of an unknown format", SAVE)
    };
    let message = format!("not a checkpoint: {what}; a safetensors or PyTorch file is expected");
    Err(Error::input(message).hint(hint))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    fn names(files: &[(&str, &str)]) -> Result<String, String> {
        let folder = folder(files);
        match FileSet::at(folder.path()) {
            Ok(set) => {
                let names: Vec<_> = set.all().iter().map(|file| file.name.clone()).collect();
                Ok(names.join(" "))
            }
            Err(error) => Err(format!("{error} {}", error.hint_text().unwrap_or_default())),
        }
    }

    #[test]
    fn checkpoint_folder_is_the_files_that_belong_to_the_model() {
        let readme = ("README.md", "");
        assert_eq!(
            names(&[readme, (CONFIG, "{}"), (SAFETENSORS, ""), (PYTORCH, "")]).unwrap(),
            "config.json model.safetensors"
        );
        assert_eq!(names(&[readme, (PYTORCH, "")]).unwrap(), PYTORCH);
        assert_eq!(
            names(&[("last.ckpt", ""), (CONFIG, "")]).unwrap(),
            "config.json last.ckpt"
        );
        assert_eq!(
            names(&[
                (MODEL, ""),
                (AVERAGED, ""),
                (LAST, ""),
                ("optimizer.safetensors", "")
            ])
            .unwrap(),
            "model.json ema.safetensors raw.safetensors optimizer.safetensors"
        );
        let index =
            r#"{ "weight_map": { "a": "m-2.safetensors", "b": "m-1.safetensors", "c": "m-2.safetensors" } }"#;
        let shards = [
            ("m-1.safetensors", ""),
            ("m-2.safetensors", ""),
            ("other.safetensors", ""),
        ];
        let mut files = vec![(CONFIG, "{}"), (INDEX, index)];
        files.extend(shards);
        assert_eq!(
            names(&files).unwrap(),
            "config.json model.safetensors.index.json m-1.safetensors m-2.safetensors"
        );
        let error = names(&files[..3]).unwrap_err();
        assert!(error.contains("`m-2.safetensors`, which is absent"), "{error}");
        let error = names(&[readme]).unwrap_err();
        assert!(error.contains("has no weights"), "{error}");
        let error = names(&[("a.ckpt", ""), ("b.pt", "")]).unwrap_err();
        assert!(
            error.contains("2 files with weights") && error.contains("`a.ckpt`, `b.pt`"),
            "{error}"
        );
        let index = r#"{ "weight_map": { "a": "m-1.bin", "b": "m-2.bin" } }"#;
        assert_eq!(
            names(&[
                ("m-1.bin", ""),
                ("m-2.bin", ""),
                (PYTORCH_INDEX, index),
                (PYTORCH, "")
            ])
            .unwrap(),
            "pytorch_model.bin.index.json m-1.bin m-2.bin"
        );
        assert_eq!(
            names(&[(SAFETENSORS, ""), ("m-1.bin", ""), (PYTORCH_INDEX, index)]).unwrap(),
            SAFETENSORS
        );
    }

    #[test]
    fn checkpoint_index_does_not_leave_its_folder() {
        for name in [
            "../secret.safetensors",
            "/etc/passwd",
            "a/b.safetensors",
            "..",
            "",
            "a\\\\b",
            ".",
        ] {
            let index = format!(r#"{{ "weight_map": {{ "t": "{name}" }} }}"#);
            let error = names(&[(INDEX, &index)]).unwrap_err();
            assert!(error.contains("not a file of the same folder"), "{name}: {error}");
        }
        for index in [
            "{}",
            r#"{ "weight_map": { "t": 1 } }"#,
            r#"{ "weight_map": {} }"#,
            "{",
            "[]",
        ] {
            let error = names(&[(INDEX, index)]).unwrap_err();
            assert!(error.contains(INDEX), "{index}: {error}");
        }
    }

    #[test]
    fn checkpoint_files_are_recognized_by_content() {
        assert_eq!(by_head(b"PK\x03\x04....").unwrap(), Container::Torch);
        assert_eq!(by_head(b"\x80\x02\x8a\x0a").unwrap(), Container::OldTorch);
        assert_eq!(
            by_head(b"\x10\0\0\0\0\0\0\0{\"a\"").unwrap(),
            Container::Safetensors
        );
        for (head, what) in [
            (&b""[..], "empty"),
            (b"GGUF\x03", "llama.cpp"),
            (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
            (b"\n<!DOCTYPE html>", "web page"),
            (b"{ \"a\": 1 }", "JSON"),
            (b"\x89HDF\r\n", "HDF5"),
            (b"whatever this may be", "unknown format"),
        ] {
            let error = by_head(head).unwrap_err();
            assert!(error.to_string().contains(what), "{error}");
            assert!(error.hint_text().is_some());
        }
    }
}
