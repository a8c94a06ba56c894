//! PyTorch files (`torch.save`), read without executing anything, and written.
//!
//! A file of `torch.save` is a zip archive: a pickle, which is a program for a small machine, and the bytes of each storage.
//! PyTorch runs that program, and whatever function it names runs with it. Here it builds values alone:
//!
//! | file | what it does |
//! |---|---|
//! | `archive.rs` | the records of the zip archive: found, checked, read by place |
//! | `pickle.rs` | the opcodes: bytes to values |
//! | `pickle/constructors.rs` | the few functions that are known; a call of any other is kept as data |
//! | `values.rs` | the values of a pickle, and the ways through them |
//! | `dtype.rs` | types of elements |
//! | `tensor.rs` | tensors as views of storages |
//! | `write.rs` | files that `torch.load(weights_only=True)` reads |
//!
//! All that a file states is compared with its length before memory is reserved for it, values lie side by side and refer to
//! each other by number, and no function calls itself: neither a hostile length, nor deep nesting, nor values that contain
//! themselves take more than the limits that the files state.

pub mod archive;
pub mod dtype;
pub mod pickle;
pub mod tensor;
pub mod values;
pub mod write;

#[cfg(test)]
mod tests;

/// The way out where a file is damaged.
const BRING_AGAIN: &str = "the file is damaged or incomplete: copy or download it again";

/// The way out where a file is whole but in another format.
const SAVE_AGAIN: &str =
    "load it with PyTorch and save it again: `torch.save(torch.load(FILE, weights_only=True), NEW_FILE)`";
