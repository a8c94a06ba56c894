//! A stage as the report sees it.

use std::path::PathBuf;

use crate::manifest::StageKind;
use crate::store::Record;

/// A stage of the report, in topological order.
#[derive(Debug)]
pub struct ReportedStage<'a> {
    /// Its name, as an instance where it is one of a sweep.
    pub name: &'a str,
    /// Its name in the manifest: that of the swept stage.
    pub written: &'a str,
    /// Its kind.
    pub kind: StageKind,
    /// The stages that it consumes, by their place in the list.
    pub inputs: Vec<usize>,
    /// Its record and its artifact's folder, when it has run.
    pub done: Option<(&'a Record, PathBuf)>,
    /// The record's key figures, with what a plan counts anew.
    pub figures: Vec<(String, String)>,
}
