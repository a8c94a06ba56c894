//! Integration tests of the `mdlm` program: one binary, one module per topic.

mod cli;
mod corpora;
mod data;
mod doctor;
mod downloads;
mod faults;
mod key;
mod kill;
mod kit;
mod layers;
mod manifest;
mod memory;
mod model;
mod pipeline;
mod provenance;
mod readers;
mod readme;
mod run;
mod shared;
mod sources;
mod stand_in;
mod store;
mod support;
mod sweep;
mod train;
mod validate;
