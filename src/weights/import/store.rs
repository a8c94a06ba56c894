//! Where the tensors of a checkpoint lie: in one safetensors file, in several, or in a file of PyTorch's.

use std::collections::HashMap;
use std::fmt;

use indexmap::IndexMap;

use crate::error::{Error, Result};
use crate::weights::fitting::NamedTensor;
use crate::weights::tensors::Reader;

/// Tensors of floating-point numbers that are read by name.
pub trait TensorStore: fmt::Debug {
    /// Reads a whole tensor, by its name in the file.
    ///
    /// # Errors
    /// The tensor is absent, has another number of elements or holds no floating-point numbers, or the file cannot be read.
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()>;
}

/// The tensors of one safetensors file or of the shards of an index.
#[derive(Debug, Default)]
pub struct SafetensorsStore {
    readers: Vec<Reader>,
    /// In which of them each tensor lies.
    places: HashMap<String, usize>,
}

impl SafetensorsStore {
    /// Adds a file: its tensors, and a fault for each that another file has too.
    ///
    /// # Errors
    /// A tensor is in two files.
    pub fn add(&mut self, reader: Reader, name: &str) -> Result<()> {
        let index = self.readers.len();
        for tensor in reader.names() {
            if let Some(other) = self.places.insert(tensor.clone(), index) {
                return Err(Error::input(format!(
                    "tensor `{tensor}` is in two files: shard {} of the index and `{name}`",
                    other + 1
                ))
                .hint("download or export the model again: its shards do not belong together"));
            }
        }
        self.readers.push(reader);
        Ok(())
    }

    /// The tensors by the arena that they are in, file after file; those of the nameless arena have no slash in their names.
    #[must_use]
    pub fn arenas(&self) -> IndexMap<String, Vec<NamedTensor>> {
        let mut all = IndexMap::<String, Vec<NamedTensor>>::new();
        for (arena, tensors) in self.readers.iter().flat_map(Reader::arenas) {
            all.entry(arena).or_default().extend(tensors);
        }
        all
    }
}

impl TensorStore for SafetensorsStore {
    fn floats(&mut self, stored: &str, into: &mut [f32]) -> Result<()> {
        let place = self.places.get(stored);
        let reader = place.and_then(|place| self.readers.get_mut(*place));
        let reader = reader.ok_or_else(|| Error::internal(format!("tensor `{stored}` got lost")))?;
        reader.floats(stored, 0, into)
    }
}
