//! The members of a compressed file, one after the other, and what stands behind the last.
//!
//! Zeros are padding, as `gzip` and the format of xz have it: tapes and block devices leave them. (`bzip2` leaves out
//! anything, `zstd` refuses even zeros.) Anything else is an error that says how much it is, since a file that goes on is
//! not the file that was written.

use std::io::{self, BufRead, Read};

use super::fault::carry;
use super::recognise;
use crate::error::Error;
use crate::manifest::reading::Compression;
use crate::plural::{agreeing, counted};

/// Bytes that show whether another member follows: as far as bzip2's magic.
const HEAD: usize = 10;
/// What an xz decoder takes beside its dictionary, in KiB, and some to spare.
const XZ_KIBIBYTES: u64 = 128;

/// Decodes all members.
pub struct Members<R: BufRead> {
    compression: Compression,
    /// Bytes that a decoder may hold at once, at most.
    buffer: u64,
    state: MemberState<R>,
}

enum MemberState<R: BufRead> {
    /// Before a member.
    Between(Ahead<R>, bool),
    Member(CompressedMember<R>),
    /// After the last one, or after an error.
    Done,
}

enum CompressedMember<R: BufRead> {
    Gzip(Box<flate2::bufread::GzDecoder<Ahead<R>>>),
    Zstd(zstd::stream::read::Decoder<'static, Ahead<R>>),
    Bzip2(bzip2::bufread::BzDecoder<Ahead<R>>),
    Xz(Box<lzma_rust2::XzReader<Ahead<R>>>),
}

impl<R: BufRead> CompressedMember<R> {
    fn new(compression: Compression, input: Ahead<R>, buffer: u64) -> io::Result<Self> {
        Ok(match compression {
            Compression::None => return Err(carry(Error::internal("no compression has members"))),
            Compression::Gzip => Self::Gzip(Box::new(flate2::bufread::GzDecoder::new(input))),
            Compression::Zstd => {
                let mut decoder = zstd::stream::read::Decoder::with_buffer(input)?.single_frame();
                decoder.window_log_max(zstd_window(buffer))?;
                Self::Zstd(decoder)
            }
            Compression::Bzip2 => Self::Bzip2(bzip2::bufread::BzDecoder::new(input)),
            Compression::Xz => {
                let kibibytes = (buffer / 1024).saturating_add(XZ_KIBIBYTES);
                let kibibytes = u32::try_from(kibibytes).unwrap_or(u32::MAX);
                Self::Xz(Box::new(lzma_rust2::XzReader::new_mem_limit(
                    input, false, kibibytes,
                )))
            }
        })
    }

    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Gzip(decoder) => decoder.read(to),
            Self::Zstd(decoder) => decoder.read(to),
            Self::Bzip2(decoder) => decoder.read(to),
            Self::Xz(decoder) => decoder.read(to),
        }
    }

    fn into_inner(self) -> Ahead<R> {
        match self {
            Self::Gzip(decoder) => decoder.into_inner(),
            Self::Zstd(decoder) => decoder.into_inner(),
            Self::Bzip2(decoder) => decoder.into_inner(),
            Self::Xz(decoder) => decoder.into_inner(),
        }
    }
}

impl<R: BufRead> Members<R> {
    /// Decodes what `input` holds; a decoder holds `buffer` bytes at most.
    pub fn new(compression: Compression, input: R, buffer: u64) -> Self {
        Self {
            compression,
            buffer,
            state: MemberState::Between(Ahead::new(input), true),
        }
    }

    /// Finds the next member; `first` if none came before.
    fn next(&self, mut input: Ahead<R>, first: bool) -> io::Result<MemberState<R>> {
        if !first {
            let zeros = input.skip_zeros()?;
            let head = input.head()?;
            if head.is_empty() {
                return Ok(MemberState::Done);
            }
            if !begins(self.compression, head) {
                let count = zeros + input.drain()?;
                let verb = agreeing(count, "stands", "stand");
                return Err(carry(
                    Error::input(format!(
                        "{} {verb} after the last member of the {} data",
                        counted(count, "byte"),
                        name(self.compression)
                    ))
                    .hint(format!(
                        "the file continues after its end; if these bytes are not text, cut them off: `truncate -s \
                         -{count} FILE`"
                    )),
                ));
            }
        }
        CompressedMember::new(self.compression, input, self.buffer).map(MemberState::Member)
    }
}

/// The compression's name.
pub fn name(compression: Compression) -> &'static str {
    match compression {
        Compression::None => "no compression",
        Compression::Gzip => "gzip",
        Compression::Zstd => "zstd",
        Compression::Bzip2 => "bzip2",
        Compression::Xz => "xz",
    }
}

/// Binary logarithm of the largest zstd window that `buffer` bytes hold, within what zstd takes.
pub fn zstd_window(buffer: u64) -> u32 {
    buffer.max(1).ilog2().clamp(10, 31)
}

/// Whether a member begins so, or would if it were not cut off.
fn begins(compression: Compression, head: &[u8]) -> bool {
    if recognise::compression(head) == Some(compression) {
        return true;
    }
    let magic: &[u8] = match compression {
        Compression::None => return false,
        Compression::Gzip => &[0x1F, 0x8B, 8],
        Compression::Zstd => &[0x28, 0xB5, 0x2F, 0xFD],
        Compression::Bzip2 => b"BZh",
        Compression::Xz => b"\xFD7zXZ\0",
    };
    let cut = compression == Compression::Bzip2 || head.len() < magic.len();
    head.len() < HEAD && cut && head.iter().zip(magic).all(|(byte, magic)| byte == magic)
}

impl<R: BufRead> Read for Members<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if to.is_empty() {
            return Ok(0);
        }
        loop {
            match std::mem::replace(&mut self.state, MemberState::Done) {
                MemberState::Done => return Ok(0),
                MemberState::Between(input, first) => self.state = self.next(input, first)?,
                MemberState::Member(mut member) => {
                    let result = member.read(to);
                    match result {
                        Ok(0) => self.state = MemberState::Between(member.into_inner(), false),
                        Ok(_) => {
                            self.state = MemberState::Member(member);
                            return result;
                        }
                        Err(error) => {
                            if error.kind() == io::ErrorKind::Interrupted {
                                self.state = MemberState::Member(member);
                            }
                            return Err(error);
                        }
                    }
                }
            }
        }
    }
}

/// An input whose next bytes can be looked at, even where its buffer holds fewer.
struct Ahead<R> {
    head: [u8; HEAD],
    at: usize,
    end: usize,
    input: R,
}

impl<R: BufRead> Ahead<R> {
    fn new(input: R) -> Self {
        Self {
            head: [0; HEAD],
            at: 0,
            end: 0,
            input,
        }
    }

    /// The next bytes, as many as identify a member.
    fn head(&mut self) -> io::Result<&[u8]> {
        self.head.copy_within(self.at..self.end, 0);
        self.end -= self.at;
        self.at = 0;
        while self.end < HEAD {
            let read = match self.input.read(&mut self.head[self.end..]) {
                Ok(0) => break,
                Ok(read) => read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error),
            };
            self.end += read;
        }
        Ok(&self.head[..self.end])
    }

    /// Passes over zeros; how many.
    fn skip_zeros(&mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let chunk = self.fill_buf()?;
            let zeros = chunk.iter().take_while(|&&byte| byte == 0).count();
            let ended = zeros < chunk.len() || chunk.is_empty();
            self.consume(zeros);
            count += zeros as u64;
            if ended {
                return Ok(count);
            }
        }
    }

    /// Passes over everything; how much it was.
    fn drain(&mut self) -> io::Result<u64> {
        let mut count = 0;
        loop {
            let length = self.fill_buf()?.len();
            if length == 0 {
                return Ok(count);
            }
            self.consume(length);
            count += length as u64;
        }
    }
}

impl<R: BufRead> Read for Ahead<R> {
    fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
        if self.at == self.end {
            return self.input.read(to);
        }
        let count = to.len().min(self.end - self.at);
        to[..count].copy_from_slice(&self.head[self.at..self.at + count]);
        self.at += count;
        Ok(count)
    }
}

impl<R: BufRead> BufRead for Ahead<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if self.at < self.end {
            return Ok(&self.head[self.at..self.end]);
        }
        self.input.fill_buf()
    }

    fn consume(&mut self, count: usize) {
        if self.at < self.end {
            self.at += count;
        } else {
            self.input.consume(count);
        }
    }
}
