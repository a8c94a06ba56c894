//! Where records go: checked to be UTF-8 and within the limits, counted, and handed on.

use super::encoding::{TextContainer, lossy, surrogate, way_out};
use super::stored::ReadCount;
use super::{FREE_BYTES, Here, Irregular, Observed};
use crate::data::records::MAX_RECORD_BYTES;
use crate::error::{Error, Result};
use crate::manifest::reading::{InvalidUtf8, Reading};
use crate::numbers::limit;
use crate::plural::counted;

/// Takes the records of one stored file.
pub struct Sink<'a> {
    each: &'a mut dyn FnMut(&str, Here) -> Result<()>,
    invalid_utf8: InvalidUtf8,
    /// Bytes of a record, at most.
    pub longest: usize,
    /// Bytes that a byte of the stored file may become, at most.
    pub ratio: u64,
    /// Bytes that a decoder may hold at once, at most.
    pub buffer: u64,
    /// Whether records without text are handed on.
    pub keeps_empty: bool,
    /// Bytes read from the stored file.
    pub count: ReadCount,
    length: u64,
    text: u64,
    /// The file's name, and that of the archive's member.
    file: String,
    member: Option<String>,
    /// What is worth a warning.
    pub observed: &'a mut Observed,
    /// What was not as it should be.
    pub irregular: Irregular,
    /// The error of `each`, which is reported without the place in the file.
    pub failed: Option<Error>,
}

impl<'a> Sink<'a> {
    /// Hands records of the file called so, of `length` bytes, to `each`.
    pub fn new(
        reading: &Reading,
        file: &str,
        length: u64,
        observed: &'a mut Observed,
        each: &'a mut dyn FnMut(&str, Here) -> Result<()>,
    ) -> Self {
        Self {
            each,
            invalid_utf8: reading.invalid_utf8,
            longest: usize::try_from(reading.longest_record)
                .unwrap_or(usize::MAX)
                .min(MAX_RECORD_BYTES),
            ratio: reading.largest_ratio.into(),
            buffer: reading.largest_buffer,
            keeps_empty: false,
            count: ReadCount::default(),
            length,
            text: 0,
            file: file.to_owned(),
            member: None,
            observed,
            irregular: Irregular::default(),
            failed: None,
        }
    }

    /// States the member of an archive that is read.
    pub fn member(&mut self, name: Option<&str>) {
        match (name, &mut self.member) {
            (Some(name), Some(member)) => name.clone_into(member),
            (name, member) => *member = name.map(str::to_owned),
        }
    }

    /// What is read, as warnings name it: the file, with the member of the archive.
    pub fn place(&self) -> String {
        match &self.member {
            Some(member) => format!("`{}`: member `{member}`", self.file),
            None => format!("`{}`", self.file),
        }
    }

    /// Takes a warning about what is read; one of a kind is kept.
    pub fn warn(&mut self, kind: &'static str, text: impl FnOnce() -> String) {
        let place = self.place();
        self.observed
            .warn(kind, &place, || format!("{place}: {}", text()));
    }

    /// The treatment of bytes that are not UTF-8.
    pub fn policy(&self) -> InvalidUtf8 {
        self.invalid_utf8
    }

    /// Bytes of the stored file that were read; what was read twice counts once.
    pub fn read(&self) -> u64 {
        self.count.get().min(self.length)
    }

    /// Takes a record of any bytes, of a column of strings; `place` says where it stands.
    pub fn push(&mut self, text: &[u8], place: impl FnOnce() -> String) -> Result<()> {
        self.push_of(text, TextContainer::Column, place)
    }

    /// As [`Self::push`], of another kind of file: the way out of bytes that are not UTF-8 is another one.
    pub fn push_of(
        &mut self,
        text: &[u8],
        holder: TextContainer,
        place: impl FnOnce() -> String,
    ) -> Result<()> {
        match std::str::from_utf8(text) {
            Ok(text) => self.emit(text),
            Err(fault) => match self.invalid_utf8 {
                InvalidUtf8::Error => {
                    let at = fault.valid_up_to();
                    if let Some((message, hint)) = surrogate(text, at, holder) {
                        let message = format!("{}: {message} at byte {} of the text", place(), at + 1);
                        return Err(Error::input(message).hint(hint));
                    }
                    Err(Error::input(format!(
                        "{}: invalid UTF-8 (0x{:02X}) at byte {} of the text",
                        place(),
                        text[at],
                        at + 1
                    ))
                    .hint(way_out(text, holder)))
                }
                InvalidUtf8::Replace => {
                    self.irregular.replaced += 1;
                    self.emit(&lossy(text))
                }
                InvalidUtf8::Skip => {
                    self.irregular.skipped += 1;
                    Ok(())
                }
            },
        }
    }

    /// Takes a record of text.
    pub fn emit(&mut self, text: &str) -> Result<()> {
        if !self.keeps_empty && text.chars().all(char::is_whitespace) {
            self.irregular.empty += 1;
            return Ok(());
        }
        if text.len() > self.longest {
            return Err(self.too_long());
        }
        // A record without text takes room, too.
        self.text += text.len().max(1) as u64;
        let read = self.read();
        // A dictionary or a view can repeat what the file holds once.
        if self.text > FREE_BYTES.saturating_add(read.saturating_mul(self.ratio)) {
            return Err(bomb(self.text, read, self.ratio));
        }
        let here = Here {
            read,
            irregular: self.irregular,
        };
        (self.each)(text, here).map_err(|error| {
            self.failed = Some(error);
            Error::interrupted()
        })
    }

    /// Takes a record without text: hands it on or counts it.
    pub fn empty(&mut self) -> Result<()> {
        self.empties(1)
    }

    /// Takes records without text: hands them on or counts them.
    pub fn empties(&mut self, count: u64) -> Result<()> {
        if self.keeps_empty {
            return (0..count).try_for_each(|_| self.emit(""));
        }
        self.irregular.empty = self.irregular.empty.saturating_add(count);
        Ok(())
    }

    /// A record is longer than the limit.
    pub fn too_long(&self) -> Error {
        let limit = limit(self.longest as u64);
        Error::input(format!("the record is longer than {limit}")).hint(
            "cut it into shorter ones, or raise `longest_record` (1,073,741,824 at most), which bounds the memory in \
             use",
        )
    }
}

/// A decoder would have to hold more at once than it may; `what` it is that is too large.
pub fn too_large(what: impl std::fmt::Display, buffer: u64) -> Error {
    Error::input(format!("{what} takes more than {} of memory", limit(buffer))).hint(
        "raise `largest_buffer` (2,147,483,648 at most) if you trust the file, or write it with smaller windows, \
         dictionaries, pages or batches",
    )
}

/// What was read became far more than text can.
pub fn bomb(produced: u64, read: u64, ratio: u64) -> Error {
    Error::input(format!(
        "{} decompressed to {produced}: more than {ratio} times as many",
        counted(read, "byte")
    ))
    .hint("this looks like a decompression bomb; if you trust the file, raise `largest_ratio`")
}
