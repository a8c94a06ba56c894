//! `source`: text files or a grammar → records.

use std::path::PathBuf;

use crate::data::records::RecordWriter;
use crate::data::{SOURCE_INFO, SourceInfo, text, write_json};
use crate::error::{Context as _, Error, Result};
use crate::event::Progress;
use crate::manifest::{Source, SourceInput, TextInput};
use crate::stages::{Context, Outcome};

/// Version of the stage: a change of what it writes for the same input raises it.
///
/// 1: text files and grammars.
pub const VERSION: u32 = 1;

/// The files outside the store whose contents decide what the stage writes, in the order that matters.
///
/// # Errors
/// A pattern matches nothing.
pub fn files(config: &Source, base: &std::path::Path) -> Result<Vec<PathBuf>> {
    match &config.input {
        SourceInput::Text(input) => text::expand(base, &input.files),
        SourceInput::Synthetic(input) => Ok(vec![base.join(&input.grammar)]),
    }
}

/// Runs the stage.
///
/// # Errors
/// The input is absent, is not UTF-8 or is no grammar; the disk is full; somebody asked to end.
pub fn run(config: &Source, context: &Context) -> Result<Outcome> {
    let info = match &config.input {
        SourceInput::Text(input) => read_text(input, context)?,
        SourceInput::Synthetic(_) => return Err(Error::internal("grammars are not read yet")),
    };
    write_json(&context.output.join(SOURCE_INFO), &info)?;
    let mut figures = vec![
        ("records".to_owned(), info.records.to_string()),
        ("bytes".to_owned(), info.bytes.to_string()),
    ];
    if let Some(bits) = info.entropy_bits_per_byte {
        figures.push(("entropy".to_owned(), format!("{bits:.4} bits/byte (exact)")));
    }
    Ok(Outcome {
        figures,
        ..Outcome::default()
    })
}

fn read_text(input: &TextInput, context: &Context) -> Result<SourceInfo> {
    let files = text::expand(context.base, &input.files)?;
    let mut total = 0;
    for file in &files {
        let metadata = std::fs::metadata(file).context(|| format!("read `{}`", file.display()))?;
        total += metadata.len();
    }
    let mut writer = RecordWriter::new(context.output);
    let mut before = 0;
    for file in &files {
        let mut here = 0;
        text::records(file, input.record, |record, read| {
            here = read;
            if writer.push(record)? {
                context.cancel.check()?;
                context.progress(Progress {
                    done: before + read,
                    total: Some(total),
                    unit: "bytes",
                    figures: vec![("records", writer.records().to_string())],
                });
            }
            Ok(())
        })?;
        before += here;
        context.cancel.check()?;
    }
    let info = SourceInfo {
        records: writer.records(),
        bytes: writer.bytes(),
        grammar: None,
        entropy_bits_per_byte: None,
        entropy_nats_per_record: None,
    };
    if info.records == 0 {
        return Err(Error::input(format!(
            "the {} files of `{}` hold no text",
            files.len(),
            context.name
        ))
        .hint("empty records are dropped; look at the files that `files` matches"));
    }
    writer.finish()?;
    Ok(info)
}
