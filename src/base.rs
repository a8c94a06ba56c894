//! The layers of `mdlm` below its table of compiled shapes, as a crate of their own: a new line in the table does not
//! recompile them. `lib.rs` has the map of all layers, and passes these modules on.

pub mod data;
pub mod diffusion;
pub mod disk;
pub mod error;
pub mod event;
pub mod kernels;
pub mod manifest;
pub mod memory;
pub mod numbers;
pub mod plural;
pub mod precision;
pub mod ranks;
pub mod remote;
pub mod rng;
pub mod shape;
pub mod store;

#[cfg(any(test, feature = "testing"))]
pub mod testing;

#[cfg(test)]
#[path = "../tests/it/require.rs"]
mod require;
