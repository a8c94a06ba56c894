//! `source`: text files or a grammar → records.

use rayon::prelude::*;

use crate::data::grammar::Grammar;
use crate::data::records::RecordWriter;
use crate::data::read::{self, TextFile};
use crate::data::{SOURCE_INFO, SourceInfo, write_json};
use crate::error::{Context as _, Error, Result};
use crate::event::Progress;
use crate::manifest::source::LocalFiles;
use crate::manifest::{Source, SourceInput, SyntheticInput};
use crate::rng::{Random, Stream};
use crate::stages::{Context, Outcome};

/// Version of the stage: a change of what it writes for the same input raises it.
///
/// 1: text files and grammars.
pub const VERSION: u32 = 1;

/// File name of the grammar below a synthetic source's artifact.
pub const GRAMMAR: &str = "records.grammar";
/// Records drawn by all threads before they are written: some megabytes of text.
const DRAWN_AT_ONCE: u64 = 1 << 15;

/// Runs the stage.
///
/// # Errors
/// The input is absent, is not UTF-8 or is no grammar; the disk is full; somebody asked to end.
pub fn run(config: &Source, context: &Context) -> Result<Outcome> {
    let info = match &config.input {
        SourceInput::Files(input) => read_text(input, context)?,
        SourceInput::Download(_) | SourceInput::Corpus(_) => {
            return Err(Error::internal("downloads are not there yet"));
        }
        SourceInput::Synthetic(input) => generate(input, context)?,
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

fn read_text(input: &LocalFiles, context: &Context) -> Result<SourceInfo> {
    let files = read::expand(context.base, &input.files)?;
    let mut total = 0;
    for file in &files {
        let metadata = std::fs::metadata(file).context(|| format!("read `{}`", file.display()))?;
        total += metadata.len();
    }
    let mut writer = RecordWriter::new(context.output);
    let mut before = 0;
    for file in &files {
        let mut here = 0;
        read::records(&TextFile::local(file.clone()), &input.read, &mut |record, read| {
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

/// Draws records: number i is a function of the grammar, the seed and i, so that threads do not matter and more records
/// begin with the same ones.
fn generate(input: &SyntheticInput, context: &Context) -> Result<SourceInfo> {
    let path = context.base.join(&input.grammar);
    let grammar = Grammar::open(&path)?;
    let random = Random::new(context.seed, Stream::Synthetic);
    let mut writer = RecordWriter::new(context.output);
    let mut start = 0;
    while start < input.records {
        context.cancel.check()?;
        let end = (start + DRAWN_AT_ONCE).min(input.records);
        let texts: Vec<String> = (start..end)
            .into_par_iter()
            .map(|number| grammar.record(random, number).text)
            .collect();
        for text in &texts {
            writer.push(text)?;
        }
        start = end;
        context.progress(Progress {
            done: end,
            total: Some(input.records),
            unit: "records",
            figures: vec![("bytes", writer.bytes().to_string())],
        });
    }
    let info = SourceInfo {
        records: writer.records(),
        bytes: writer.bytes(),
        grammar: Some(GRAMMAR.to_owned()),
        entropy_bits_per_byte: Some(grammar.entropy().bits_per_byte()),
        entropy_nats_per_record: Some(grammar.entropy().nats_per_record),
    };
    writer.finish()?;
    let copy = context.output.join(GRAMMAR);
    std::fs::copy(&path, &copy).context(|| format!("copy `{}`", path.display()))?;
    Ok(info)
}
