//! Places in the texts of a manifest.

/// A range of bytes in one of the texts that make up a manifest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Span {
    /// 0: the file; i + 1: the i-th `--set` argument.
    pub source: usize,
    /// First byte.
    pub start: usize,
    /// One past the last byte.
    pub end: usize,
}
