//! gzip, zstd, bzip2 and xz, each with any number of members one after the other; and what they may become at most.

use std::cell::Cell;
use std::io::{self, BufRead, BufReader, Read};
use std::rc::Rc;

use super::fault::{carry, damaged};
use super::members::{Members, name};
use super::sink::{bomb, too_large};
use super::stored::ReadCount;
use super::{FREE_BYTES, READ_BYTES};
use crate::error::{Error, Result};
use crate::manifest::reading::Compression;

/// How the decoders say that a window or a dictionary is larger than they were allowed to take.
const TOO_LARGE: [&str; 2] = ["Frame requires too much memory", "needed memory too big"];

/// Bytes that all decoders of one layer made of a stored file.
#[derive(Clone)]
pub struct Meter {
    count: ReadCount,
    length: u64,
    ratio: u64,
    buffer: u64,
    produced: Rc<Cell<u64>>,
}

impl Meter {
    /// Measures against what is read of a stored file of `length` bytes; decoders hold `buffer` bytes at most.
    pub fn new(count: &ReadCount, length: u64, ratio: u64, buffer: u64) -> Self {
        Self {
            count: count.clone(),
            length,
            ratio,
            buffer,
            produced: Rc::default(),
        }
    }

    /// Counts what a decoder made.
    pub fn add(&self, produced: u64) -> Result<()> {
        let total = self.produced.get().saturating_add(produced);
        self.produced.set(total);
        let read = self.count.get().min(self.length);
        if total > FREE_BYTES.saturating_add(read.saturating_mul(self.ratio)) {
            return Err(bomb(total, read, self.ratio));
        }
        Ok(())
    }
}

/// Decodes what `input` holds.
pub fn decode<'r>(compression: Compression, input: impl BufRead + 'r, meter: Meter) -> Box<dyn BufRead + 'r> {
    let decoder: Box<dyn Read + 'r> = match compression {
        Compression::None => Box::new(input),
        _ => Box::new(Members::new(compression, input, meter.buffer)),
    };
    buffered(Decoded::new(name(compression), decoder, meter))
}

/// Decodes a deflate stream without a header, as zip has it.
pub fn inflate<'r>(input: impl BufRead + 'r, meter: Meter) -> Box<dyn BufRead + 'r> {
    buffered(Decoded::new(
        "deflate",
        Box::new(flate2::bufread::DeflateDecoder::new(input)),
        meter,
    ))
}

fn buffered<'r>(decoded: Decoded<'r>) -> Box<dyn BufRead + 'r> {
    Box::new(BufReader::with_capacity(READ_BYTES, decoded))
}

/// What comes out of a decoder: counted, and with errors that say what is wrong with the file.
struct Decoded<'r> {
    name: &'static str,
    decoder: Box<dyn Read + 'r>,
    meter: Meter,
    produced: u64,
    /// A decoder is not asked again after an error.
    failed: bool,
}

impl<'r> Decoded<'r> {
    fn new(name: &'static str, decoder: Box<dyn Read + 'r>, meter: Meter) -> Self {
        Self {
            name,
            decoder,
            meter,
            produced: 0,
            failed: false,
        }
    }

    fn fault(&self, error: io::Error) -> io::Error {
        let error = match error.downcast::<Error>() {
            Ok(error) => return carry(error),
            Err(error) => error,
        };
        let (name, produced) = (self.name, self.produced);
        let before = self.meter.count.get().min(self.meter.length);
        let text = error.to_string();
        carry(if TOO_LARGE.iter().any(|words| text.contains(words)) {
            let what = match name {
                "xz" => "the dictionary of the xz data",
                _ => "the window of the zstd data",
            };
            too_large(what, self.meter.buffer)
        } else if error.kind() == io::ErrorKind::UnexpectedEof {
            damaged(format!(
                "the {name} data end too early, after {produced} decompressed bytes: the file is cut off"
            ))
        } else {
            damaged(format!(
                "the {name} data are damaged, before byte {before} of the file and after {produced} decompressed bytes: {text}"
            ))
        })
    }
}

impl Read for Decoded<'_> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.failed {
            return Err(carry(damaged(format!("the {} data are damaged", self.name))));
        }
        let result = match self.decoder.read(to) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Err(error),
            Err(error) => Err(self.fault(error)),
            Ok(read) => {
                self.produced += read as u64;
                self.meter.add(read as u64).map(|()| read).map_err(carry)
            }
        };
        self.failed = result.is_err();
        result
    }
}
