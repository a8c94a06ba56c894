//! `mdlm`: masked diffusion language models (arXiv 2406.07524) from a JSON manifest, rerunning only what changed.
//!
//! # Map
//!
//! manifest → plan (typed DAG with a cache key per stage) → executor → stages: source → tokenize → pack → train |
//! checkpoint → evaluate | sample → judge | compare | table. Stages exchange data only as files in a content-addressed store.
//!
//! A module imports only from layers below its own; a test checks this.
//!
//! | layer | modules | purpose |
//! |---|---|---|
//! | 13 | `main` | the program: allocator, call, exit code |
//! | 12 | `cli` | a part of the program, not of the library: `commands`, one file or folder each, which do not import each other; `args` and `render`, which they share |
//! | 11 | [`executor`], [`export`] | runs a plan: look up, lock, run, commit, emit events; a trained model as files of other programs |
//! | 10 | [`plan`], [`report`], [`bench`] | manifest → DAG, keys, reasons; metrics → HTML, Markdown; measurements of time and memory |
//! | 9 | [`stages`] | one file per stage kind: config + inputs → artifact |
//! | 8 | [`train`], [`evaluate`], [`sample`] | the training loop, AdamW, EMA; bounds and perplexity; samplers |
//! | 7 | [`system`], [`weights`] | the machine: GPUs, their locks and self-tests, variables, kept files; weights on disk |
//! | 6 | [`model`] | the DiT and the plain transformer |
//! | 5 | [`shapes`] | the table of compiled shapes |
//! | 4 | [`remote`] | artifacts shared between machines |
//! | 3 | [`data`], [`diffusion`] | records → tokens → rows; schedules and objectives |
//! | 2 | [`manifest`], [`store`], [`event`], [`kernels`] | the manifest as written; artifacts; events of a run; tensor operations |
//! | 1 | [`disk`], [`numbers`], [`ranks`] | durable names of files; numbers, sizes and intervals as texts; processes that train together |
//! | 0 | [`error`], [`memory`], [`plural`], [`precision`], [`rng`], [`shape`], `testing` | the one error type; the allocator's settings; counts with their nouns; the precisions of training; counter-based random streams; the dimensions of a network; what tests share |
//!
//! Layers 0 to 4 are the crate `mdlm-base` (`base.rs`), so that a new line in the table of compiled shapes recompiles only
//! the layers above them, which are the crate `mdlm`: from 5 to 11 its library, then its program. The base cannot name the
//! table. What a manifest may say depends on it all the same; [`manifest::Manifest::load`] and
//! [`schema`](manifest::schema()) take the table as an argument.
//!
//! # Invariants
//!
//! 1. Every random number is a function of (seed, stream, step, row, position): see [`rng`].
//! 2. An artifact is written under another name, fsynced, then renamed to its final path.
//! 3. The cache key is one printable struct: see [`plan`]. Where a stage runs is not part of it.
//! 4. If a stage's output equals its previous output, the stages after it do not rerun.
//! 5. A manifest cannot run a program, nor write outside the store.
//! 6. [`diffusion`], [`model`] and [`kernels`] do no I/O, but that they load CUDA's libraries: [`system`] hands them what
//!    they need of the machine, [`weights`] reads and writes weight files. [`kernels`] do not depend on language; `cli`
//!    alone prints.
//! 7. `unsafe` is confined to the seam files: `kernels/seam.rs`, `kernels/cuda/compiler.rs`, `kernels/cuda/device.rs`,
//!    `kernels/cuda/emulated.rs`, `kernels/cuda/nccl.rs`, `kernels/cuda/probe.rs`, `kernels/cuda/products.rs`,
//!    `data/mapping.rs`, `memory.rs`, `ranks/mpi.rs`.
//! 8. Numbers that reach a user carry their uncertainty or say that they are exact.
//!
//! # Shape letters
//!
//! B rows of a batch, L tokens a row, R = B·L token rows, n masked positions, D width, H heads, N blocks, F = 4D hidden
//! width, C conditioning width, V vocabulary.

pub use mdlm_base::{
    data, diffusion, disk, error, event, kernels, manifest, memory, numbers, plural, precision, ranks,
    remote, rng, shape, store,
};

pub mod bench;
pub mod evaluate;
pub mod executor;
pub mod export;
pub mod model;
pub mod plan;
pub mod report;
pub mod sample;
pub mod shapes;
pub mod stages;
pub mod system;
pub mod train;
pub mod weights;

#[cfg(test)]
#[path = "../tests/it/require.rs"]
mod require;
