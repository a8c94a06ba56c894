//! `mdlm`: masked diffusion language models (arXiv 2406.07524) from a JSON manifest, rerunning only what changed.
//!
//! # Map
//!
//! manifest → plan (typed DAG with a cache key per stage) → executor → stages: source → tokenize → pack → train |
//! checkpoint → evaluate | sample → compare. Stages exchange data only as files in a content-addressed store.
//!
//! A module imports only from layers below its own; a test checks this.
//!
//! | layer | modules | purpose |
//! |---|---|---|
//! | 10 | `main` | the program: allocator, call, exit code |
//! | 9 | `cli` | a part of the program, not of the library: `commands`, one file or folder each, which do not import each other; `args` and `render`, which they share |
//! | 8 | [`executor`], [`export`] | runs a plan: look up, lock, run, commit, emit events; a trained model as files of other programs |
//! | 7 | [`plan`], [`report`], [`bench`] | manifest → DAG, keys, reasons; metrics → HTML, Markdown; measurements of time and memory |
//! | 6 | [`stages`] | one file per stage kind: config + inputs → artifact |
//! | 5 | [`train`], [`evaluate`], [`sample`], [`remote`] | the training loop, AdamW, EMA; bounds and perplexity; samplers; artifacts shared between machines |
//! | 4 | [`system`], [`weights`] | the machine: GPUs, their locks and self-tests, variables, kept files; weights on disk |
//! | 3 | [`data`], [`diffusion`], [`model`] | records → tokens → rows; schedules and objectives; the DiT and the plain transformer |
//! | 2 | [`manifest`], [`store`], [`event`], [`kernels`] | the manifest as written; artifacts; events of a run; tensor operations |
//! | 1 | [`disk`], [`numbers`] | durable names of files; numbers, sizes and intervals as texts |
//! | 0 | [`error`], [`memory`], [`plural`], [`precision`], [`rng`], [`shapes`] | the one error type; the allocator's settings; counts with their nouns; the precisions of training; counter-based random streams; the table of compiled shapes |
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
//!    `kernels/cuda/emulated.rs`, `kernels/cuda/probe.rs`, `kernels/cuda/products.rs`, `data/mapping.rs`, `memory.rs`.
//! 8. Numbers that reach a user carry their uncertainty or say that they are exact.
//!
//! # Shape letters
//!
//! B rows of a batch, L tokens a row, R = B·L token rows, n masked positions, D width, H heads, N blocks, F = 4D hidden
//! width, C conditioning width, V vocabulary.

pub mod bench;
pub mod data;
pub mod diffusion;
pub mod disk;
pub mod error;
pub mod evaluate;
pub mod event;
pub mod executor;
pub mod export;
pub mod kernels;
pub mod manifest;
pub mod memory;
pub mod model;
pub mod numbers;
pub mod plan;
pub mod plural;
pub mod precision;
pub mod remote;
pub mod report;
pub mod rng;
pub mod sample;
pub mod shapes;
pub mod stages;
pub mod store;
pub mod system;
pub mod train;
pub mod weights;

#[cfg(test)]
#[path = "../tests/it/require.rs"]
mod require;
