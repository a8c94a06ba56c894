//! Where the tensors of a checkpoint lie: in one file of safetensors or PyTorch, or in several.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;

use crate::error::{Error, Result};
use crate::weights::fitting::NamedTensor;
use crate::weights::tensors::Reader;

/// Tensors that are read by name.
pub trait TensorStore: fmt::Debug {
    /// Reads a whole tensor, by its name in the file.
    ///
    /// # Errors
    /// The tensor is absent, has another number of elements or holds no floating-point numbers, or the file cannot be read.
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()>;

    /// Reads a whole tensor of integers, by its name in the file.
    ///
    /// # Errors
    /// The tensor is absent, has another number of elements or holds no integers, or the file cannot be read.
    fn integers(&mut self, stored: &str, into: &mut [i64]) -> Result<()>;
}

impl TensorStore for Reader {
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()> {
        Self::floats(self, stored, 0, into)
    }

    fn integers(&mut self, stored: &str, into: &mut [i64]) -> Result<()> {
        Self::integers(self, stored, 0, into)
    }
}

/// The tensors of one file or of the shards of an index.
#[derive(Debug, Default)]
pub struct Shards {
    files: Vec<(String, Box<dyn TensorStore>)>,
    /// In which of them each tensor lies.
    places: HashMap<String, usize>,
    /// By arena, in the order in which they were added.
    tensors: IndexMap<String, Vec<NamedTensor>>,
}

impl Shards {
    /// Adds a file and the names of its tensors.
    ///
    /// # Errors
    /// A tensor is in two files.
    pub fn add(&mut self, tensors: Vec<String>, name: &str, store: Box<dyn TensorStore>) -> Result<()> {
        let index = self.files.len();
        for tensor in tensors {
            if let Some(&other) = self.places.get(&tensor) {
                let other = self.files.get(other).map_or(name, |(name, _)| name);
                return Err(Error::input(format!(
                    "tensor `{tensor}` is in two files: `{other}` and `{name}`"
                ))
                .hint("download or export the model again: its shards do not belong together"));
            }
            self.places.insert(tensor, index);
        }
        self.files.push((name.to_owned(), store));
        Ok(())
    }

    /// Adds tensors of an arena.
    pub fn add_tensors(&mut self, arena: &str, tensors: Vec<NamedTensor>) {
        self.tensors.entry(arena.to_owned()).or_default().extend(tensors);
    }

    /// The file with a tensor.
    fn with(&mut self, stored: &str) -> Result<&mut dyn TensorStore> {
        let place = self.places.get(stored);
        let file = place.and_then(|place| self.files.get_mut(*place));
        match file {
            Some((_, file)) => Ok(&mut **file),
            None => Err(Error::internal(format!("tensor `{stored}` got lost"))),
        }
    }

    /// The tensors by arena.
    pub fn take_tensors(&mut self) -> IndexMap<String, Vec<NamedTensor>> {
        std::mem::take(&mut self.tensors)
    }
}

impl TensorStore for Shards {
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()> {
        self.with(stored)?.floats(stored, into)
    }

    fn integers(&mut self, stored: &str, into: &mut [i64]) -> Result<()> {
        self.with(stored)?.integers(stored, into)
    }
}
