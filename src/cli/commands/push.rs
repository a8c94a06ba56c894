//! `mdlm push`: a pipeline's results, into the cache that machines share.

use crate::cli::args::transfer::{Args, StageTransfer};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context as _, Error, Result};
use mdlm::numbers::bytes;
use mdlm::plan::Decision;

/// What `mdlm push --help` says first.
pub const LONG_ABOUT: &str = "\
    Upload results and their records to the shared cache, from which runs of the same stages with `--remote` \
    fetch them.\n\n\
    Files that the cache has are not sent again; an interrupted push resumes with the file that was cut off. \
    `mdlm run --remote` pushes by itself.";

/// Pushes.
///
/// # Errors
/// No remote is named, it does not answer or may not be written; what is here is corrupt.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let work = match args.prepare(false, terminal)? {
        Ok(work) => work,
        Err(code) => return Ok(code),
    };
    let lines = args.compute.pool()?.install(|| {
        let plan = work.project.plan(&args.selection())?;
        let mut lines = Vec::new();
        for stage in &plan.stages {
            let Decision::Cached(record) = &stage.decision else {
                lines.push(StageTransfer {
                    stage: stage.name.clone(),
                    status: "none",
                    text: "not in the store".to_owned(),
                    bytes: 0,
                });
                continue;
            };
            let store = &work.project.store;
            let _pin = store.pin_if_writable(&record.artifact)?;
            let pushed = work
                .remote
                .push(store, record, &work.cancel, &work.progress(&stage.name));
            let moved = pushed.context(|| format!("stage `{}`", stage.name))?;
            let (status, text) = match moved.files {
                0 => ("there", "there already".to_owned()),
                _ => ("moved", format!("pushed {}", bytes(moved.bytes))),
            };
            lines.push(StageTransfer {
                stage: stage.name.clone(),
                status,
                text,
                bytes: moved.bytes,
            });
        }
        Ok::<_, Error>(lines)
    });
    let lines = lines.inspect_err(|_| work.display.clear())?;
    work.report(&lines, args.json, terminal)?;
    Ok(0)
}
