//! `mdlm pull`: a pipeline's results, out of the cache that machines share.

use crate::cli::args::transfer::{Args, StageTransfer, Work};
use crate::cli::render::terminal::Terminal;
use mdlm::error::{Context as _, Error, Kind, Result};
use mdlm::numbers::bytes;
use mdlm::plan::{Decision, Plan};
use mdlm::store::{Lookup, Record};

/// What `mdlm pull --help` says first.
pub const LONG_ABOUT: &str = "\
    Fetch results from the shared cache: those of all stages of the manifest that the cache has, with their inputs.\n\n\
    Files are checked by their digests on arrival; an interrupted transfer resumes. `mdlm run --remote` fetches by \
    itself what it needs, and no more.";

/// Pulls.
///
/// # Errors
/// No remote is named or it does not answer; the contents do not match their record.
pub fn run(args: &Args, terminal: &Terminal) -> Result<u8> {
    let work = match args.prepare(true, terminal)? {
        Ok(work) => work,
        Err(code) => return Ok(code),
    };
    let pulled = args.compute.pool()?.install(|| {
        work.project.store.prepare()?;
        let sources = work.project.sources(Some(&work.remote));
        let mut plan = work.project.plan_with(&args.selection(), &sources)?;
        let (mut lines, mut refused) = (Vec::new(), None);
        for index in 0..plan.stages.len() {
            let name = plan.stages[index].name.clone();
            plan.need(index, Some(name.clone()));
            plan.decide(index, &sources)?;
            match pull(&work, &mut plan, index).context(|| format!("stage `{name}`")) {
                Ok(line) => lines.push(line),
                // A damaged result there does not stop the others.
                Err(error) if error.kind() == Kind::Input => {
                    lines.push(StageTransfer {
                        stage: name,
                        status: "refused",
                        text: "rejected: contents do not match the recorded digest".to_owned(),
                        bytes: 0,
                    });
                    refused.get_or_insert(error);
                }
                Err(error) => return Err(error),
            }
        }
        Ok::<_, Error>((lines, refused))
    });
    let (lines, refused) = pulled.inspect_err(|_| work.display.clear())?;
    // A remote that does not answer is an error of this command.
    let silent = work.remote.answers().is_err();
    work.report(&lines, args.json, terminal)?;
    if silent {
        return Err(Error::environment(format!(
            "`{}` does not answer",
            work.remote.url()
        )));
    }
    refused.map_or(Ok(0), Err)
}

fn pull(work: &Work, plan: &mut Plan, index: usize) -> Result<StageTransfer> {
    let stage = plan.stages[index].name.clone();
    let line = |status, text: &str| StageTransfer {
        stage: stage.clone(),
        status,
        text: text.to_owned(),
        bytes: 0,
    };
    let record = match &plan.stages[index].decision {
        Decision::Cached(_) => return Ok(line("there", "here already")),
        Decision::Run { .. } | Decision::Away(_) => return Ok(line("none", "not there")),
        Decision::Fetch(record) => record.clone(),
    };
    let store = &work.project.store;
    let lock = store.lock(&record.key.digest(), &mut |_| work.cancel.check())?;
    let made: Record = match store.lookup(&record.key)? {
        Lookup::Hit(record) => *record,
        _ => {
            work.remote
                .fetch(store, &lock, &record, &work.cancel, &work.progress(&stage))
                .map_err(|error| match error.kind() {
                    Kind::Input => error
                        .hint("the remote's copy is not used; `mdlm run` makes the result on this machine"),
                    _ => error,
                })?
        }
    };
    let size = made.files.iter().map(|file| file.bytes).sum();
    plan.settle(index, made);
    Ok(StageTransfer {
        bytes: size,
        ..line("moved", &format!("pulled {}", bytes(size)))
    })
}
