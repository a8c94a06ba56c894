//! Files of text in common forms → records.
//!
//! A stored file is read from the outside in: compression and archives are recognised by their first bytes, down to a
//! few layers (`a.tar.xz` of `b.xz` of tars, as in OpenWebText); the content is read by its format. Archives are not
//! unpacked to disk. Only Parquet, Arrow and zip files within another file are copied to an unnamed temporary file,
//! because they are read from their end.
//!
//! All input is treated as hostile. Declared lengths are checked against the bytes that exist before memory is
//! allocated. A record in memory is never longer than [`Reading::longest_record`], and decompressed or repeated content
//! never exceeds [`Reading::largest_ratio`] times the bytes read. Faulty input is an error that names file, member,
//! record and byte.

mod archive;
mod arrow;
mod compression;
mod csv;
mod encoding;
mod fault;
mod foreign;
mod json;
mod members;
mod observed;
mod parquet;
mod recognise;
mod sink;
mod stored;
mod stores;
mod tar;
#[cfg(test)]
mod tests;
mod text;
mod witness;
mod wrapped;
mod zip;

use std::fs::File;
use std::io::{BufRead, BufReader, Cursor, Read};
use std::path::PathBuf;

use bytes::Bytes;

use crate::data::files::names::{Exclusions, Unwanted, unwanted_path};
use crate::data::files::{FoundFile, STANDARD_INPUT, is_open_file, special};
use crate::error::{Context as _, Error, Result};
use crate::manifest::reading::{Compression, EmptyRecords, Format, Reading};

use compression::Meter;
use recognise::Archive;
use sink::Sink;
use stored::{ReadCount, Stored};
use stores::Stores;

pub use encoding::POLICY;
pub use foreign::check_pointer;
pub use observed::Observed;
pub use witness::{Consumed, Witness};

/// Bytes read at a time.
const READ_BYTES: usize = 1 << 18;
/// Bytes that may come out whatever came in, before ratios count: a few zeros compress better than any text.
const FREE_BYTES: u64 = 1 << 20;
/// First bytes that identify a format: as far as tar's magic.
const HEAD_BYTES: usize = 512;
/// Compressions and archives within each other, at most. OpenWebText has four.
const DEEPEST: usize = 6;
/// Names of columns that a hint shows.
const SHOWN: usize = 10;
/// Names of columns of strings that are listed, at most.
const LISTED: usize = 1_000;

/// A file to read records from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TextFile {
    /// Where it lies.
    pub path: PathBuf,
    /// Its name in messages, which also implies its form: the path, or the URL of a download.
    pub name: String,
}

impl TextFile {
    /// A file under its own name.
    #[must_use]
    pub fn local(path: PathBuf) -> Self {
        let name = path.display().to_string();
        Self { path, name }
    }

    /// A file that a manifest names.
    #[must_use]
    pub fn found(file: FoundFile) -> Self {
        if is_open_file(&file.name) {
            let name = match file.name.as_str() {
                STANDARD_INPUT => "standard input".to_owned(),
                _ => file.name,
            };
            return Self {
                path: file.path,
                name,
            };
        }
        Self::local(file.path)
    }
}

/// Records that are not what they were in the file, or not there at all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Irregular {
    /// Records with bytes that were not UTF-8, replaced.
    pub replaced: u64,
    /// Records with such bytes, left out.
    pub skipped: u64,
    /// Records without text: white space, or a null.
    pub empty: u64,
    /// Members of archives that are not regular files (links, devices, sparse files), passed over.
    pub members: u64,
    /// Rows of tables that are not as the others, left out.
    #[serde(default)]
    pub rows: u64,
    /// Byte order marks within files, left out.
    #[serde(default)]
    pub marks: u64,
    /// Hidden members of archives, passed over.
    pub hidden: u64,
    /// Members that are system files, passed over.
    pub system: u64,
    /// Members that lie in stores of mdlm, passed over.
    #[serde(default)]
    pub stores: u64,
    /// Members that `exclude` matches, left out.
    #[serde(default)]
    pub excluded: u64,
}

impl Irregular {
    /// These counts and those of another file.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            replaced: self.replaced + other.replaced,
            skipped: self.skipped + other.skipped,
            empty: self.empty + other.empty,
            members: self.members + other.members,
            rows: self.rows + other.rows,
            marks: self.marks + other.marks,
            hidden: self.hidden + other.hidden,
            system: self.system + other.system,
            stores: self.stores + other.stores,
            excluded: self.excluded + other.excluded,
        }
    }
}

/// How far a file is read when a record is handed on.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Here {
    /// Bytes of the file, as it is stored, read so far.
    pub read: u64,
    /// What was not as it should be so far.
    pub irregular: Irregular,
}

/// What a file of that name is read as where nothing is stated and its first bytes are not recognized: part of a cache key,
/// since two names of the same bytes may be read in two ways.
#[must_use]
pub fn form(name: &str) -> &'static str {
    match recognise::format(name, b"") {
        _ if recognise::names_tar(name) => "tar",
        Format::Text(_) => "text",
        Format::JsonLines(_) => "json_lines",
        Format::Csv(_) => "csv",
        Format::Tsv(_) => "tsv",
        Format::Parquet(_) => "parquet",
        Format::Arrow(_) => "arrow",
    }
}

/// Whether the name is that of an archive: a zip, or a tar, compressed or not.
#[must_use]
pub fn names_archive(name: &str) -> bool {
    recognise::names_tar(name) || recognise::ends(name, ".zip")
}

/// Calls `each` with every record of the file and with how far it is; `empty` decides about records without text, what is
/// worth a warning goes to `observed`, and `witness` records what is read.
///
/// # Errors
/// The file is absent, damaged, not of the form that was stated, has a record that is too long or is a bomb; what is at
/// fault is located by file, archive member, record and byte. And the errors of `each`, as they are.
pub fn records(
    file: &TextFile,
    reading: &Reading,
    empty: EmptyRecords,
    observed: &mut Observed,
    witness: &Witness,
    each: &mut dyn FnMut(&str, Here) -> Result<()>,
) -> Result<Irregular> {
    let what = || format!("read `{}`", file.name);
    special::check(&file.path).context(what)?;
    let stored = File::open(&file.path).context(what)?;
    has_length(&stored).context(what)?;
    let stored = Stored::file(stored, witness).context(what)?;
    records_stored(&stored, &file.name, reading, empty, observed, each)
}

/// Refuses a file that has content and states no length: one that a system makes when it is read, below `/proc` or in some
/// mounted services. What is read is bounded by the length, so that such a file would pass for an empty one.
fn has_length(file: &File) -> Result<()> {
    let metadata = file.metadata().context(|| "ask for its length".to_owned())?;
    if metadata.len() > 0 || metadata.is_dir() {
        return Ok(());
    }
    // A file may grow meanwhile: then its length is asked for once more.
    let mut one = [0];
    let read = (&mut &*file)
        .read(&mut one)
        .context(|| "read its first byte".to_owned())?;
    if read == 0 || file.metadata().is_ok_and(|metadata| metadata.len() > 0) {
        return Ok(());
    }
    Err(Error::input(
        "it has content, but its length is 0: the system generates it on reading, like the files below `/proc`",
    )
    .hint("copy it to a plain file, which can be checked and read again: `cat FILE > NEW`"))
}

/// Names of the columns that hold strings or bytes in a file of Parquet or Arrow, compressed or not: a thousand at most.
///
/// # Errors
/// The file is absent or damaged, or takes more memory or bytes than `reading` permits.
pub fn string_columns(file: &TextFile, reading: &Reading) -> Result<Vec<String>> {
    let what = || format!("read `{}`", file.name);
    special::check(&file.path).context(what)?;
    let stored = File::open(&file.path).context(what)?;
    let stored = Stored::file(stored, &Witness::default()).context(what)?;
    columns_within(&stored, reading, 0).context(what)
}

fn columns_within(stored: &Stored, reading: &Reading, layer: usize) -> Result<Vec<String>> {
    let count = ReadCount::default();
    let mut input = BufReader::with_capacity(READ_BYTES, stored.section(0, stored.len(), &count));
    let head = input.fill_buf().map_err(fault::landed)?;
    if let Some(found) = recognise::compression(head).filter(|_| layer < DEEPEST) {
        let ratio = reading.largest_ratio.into();
        let meter = Meter::new(&count, stored.len(), ratio, reading.largest_buffer);
        let copy = Stored::copy(&mut compression::decode(found, input, meter))?;
        return columns_within(&copy, reading, layer + 1);
    }
    if head.starts_with(b"PAR1") {
        parquet::strings(stored, &count, reading.largest_buffer)
    } else {
        arrow::strings(stored, &count)
    }
}

/// Calls `each` with every record of a file whose bytes are in memory, as [`records`] does.
///
/// # Errors
/// The errors of [`records`].
pub fn records_of(
    bytes: Bytes,
    name: &str,
    reading: &Reading,
    each: &mut dyn FnMut(&str, Here) -> Result<()>,
) -> Result<Irregular> {
    records_stored(
        &Stored::Bytes(bytes),
        name,
        reading,
        EmptyRecords::Drop,
        &mut Observed::default(),
        each,
    )
}

fn records_stored(
    stored: &Stored,
    name: &str,
    reading: &Reading,
    empty: EmptyRecords,
    observed: &mut Observed,
    each: &mut dyn FnMut(&str, Here) -> Result<()>,
) -> Result<Irregular> {
    let members = (reading.members.iter())
        .map(|glob| archive::pattern(glob))
        .collect::<Result<Vec<_>>>()?;
    let mut sink = Sink::new(reading, name, stored.len(), observed, each);
    sink.keeps_empty = empty == EmptyRecords::Keep;
    let count = sink.count.clone();
    let meters = [(); DEEPEST].map(|()| Meter::new(&count, stored.len(), sink.ratio, sink.buffer));
    let mut opener = Opener {
        reading,
        members,
        exclude: Exclusions::new(&reading.exclude)?,
        meters,
        sink: &mut sink,
    };
    let mut input = BufReader::with_capacity(READ_BYTES, stored.section(0, stored.len(), &count));
    let result = opener.open(&mut input, Some(stored), name, 0, false);
    let Opener { exclude, .. } = opener;
    sink.observed.exclusions(&exclude);
    match (sink.failed.take(), result) {
        (Some(error), _) => Err(error),
        (None, result) => result
            .map(|()| sink.irregular)
            .context(|| format!("read `{name}`")),
    }
}

/// What is done with a member of an archive.
enum MemberAction {
    Read,
    /// `members` means it, `exclude` leaves it out.
    Excluded,
    PassedOver,
    /// It may lie in a store that has not shown itself: in that folder.
    Undecided(String),
}

/// Looks into layers of compression and archives.
struct Opener<'a, 's> {
    reading: &'a Reading,
    members: Vec<glob::Pattern>,
    exclude: Exclusions,
    /// By layer.
    meters: [Meter; DEEPEST],
    sink: &'a mut Sink<'s>,
}

impl Opener<'_, '_> {
    /// Reads what `input` holds; `stored` is the same where it can be sought in.
    #[expect(clippy::too_many_lines, reason = "compression, archive and content in turn")]
    fn open(
        &mut self,
        input: &mut dyn BufRead,
        stored: Option<&Stored>,
        name: &str,
        layer: usize,
        in_archive: bool,
    ) -> Result<()> {
        let mut head = Vec::with_capacity(HEAD_BYTES);
        (&mut *input)
            .take(HEAD_BYTES as u64)
            .read_to_end(&mut head)
            .map_err(fault::landed)?;
        if head.is_empty() && recognise::never_empty(name) {
            return Err(fault::damaged("the file is empty"));
        }
        let found = recognise::compression(&head).unwrap_or(Compression::None);
        let stated = self.reading.compression.filter(|_| layer == 0);
        // `"compression": "none"` states that the bytes are what they seem.
        if stated != Some(Compression::None) {
            foreign::check_pointer(&head)?;
        }
        if let Some(stated) = stated.filter(|&stated| stated != Compression::None && stated != found) {
            let found = match found {
                Compression::None if head.is_empty() => "it is empty".to_owned(),
                Compression::None => match foreign::name(name, &head) {
                    Some(name) => format!("it is {name}, which mdlm does not read"),
                    None => "its first bytes belong to no compression that mdlm knows".to_owned(),
                },
                found => format!("its first bytes are those of {}", members::name(found)),
            };
            let stated = members::name(stated);
            return Err(Error::input(format!(
                "the file is stated to be compressed with {stated}, but {found}"
            ))
            .hint("leave out `compression`: mdlm recognises it"));
        }
        let compression = stated.unwrap_or(found);
        let mut archive = match compression {
            Compression::None => recognise::archive(&head, name),
            _ => None,
        };
        // `"compression": "none"` states that the bytes are what they seem.
        if archive.is_none()
            && compression == Compression::None
            && stated.is_none()
            && let Some(stored) = stored
            && zip::ends(stored, name, &head)?
        {
            archive = Some(Archive::Zip);
        }
        let mut whole = Cursor::new(&head[..]).chain(&mut *input);
        if layer + 1 >= DEEPEST && (compression != Compression::None || archive.is_some()) {
            return Err(Error::input(format!(
                "more than {DEEPEST} archives and compressions within each other"
            ))
            .hint("unpack the outer ones first"));
        }
        if compression != Compression::None {
            let mut decoded = compression::decode(compression, whole, self.meters[layer].clone());
            let inner = recognise::without_compression(name);
            return self.open(&mut decoded, None, inner, layer + 1, in_archive);
        }
        match archive {
            Some(Archive::Tar) => {
                let outermost = !in_archive;
                let mut stores = Stores::default();
                let mut names = tar::members(&mut whole, &mut |member| match member {
                    tar::TarMember::Regular(name, content) => {
                        stores.saw(name)?;
                        self.member(content, name, layer + 1, outermost, &mut stores)
                    }
                    tar::TarMember::Other => {
                        self.sink.irregular.members += 1;
                        Ok(false)
                    }
                })?;
                if self.release(layer + 1, outermost, &mut stores)? {
                    names.took();
                }
                stores.end()?;
                self.any_member(&names, outermost)
            }
            Some(Archive::Zip) => {
                let copy;
                let (stored, count) = if let Some(stored) = stored {
                    (stored, self.sink.count.clone())
                } else {
                    copy = Stored::copy(&mut whole)?;
                    (&copy, ReadCount::default())
                };
                let outermost = !in_archive;
                let mut directory = zip::Directory::open(stored, &count)?;
                let mut names = archive::MemberNames::default();
                let mut stores = Stores::default();
                // Bytes that are read twice count once.
                let mut listed = zip::Directory::open(stored, &ReadCount::default())?;
                while let Some(entry) = listed.next()? {
                    stores.saw(&entry.name)?;
                }
                while let Some(entry) = directory.next()? {
                    if !entry.regular {
                        self.sink.irregular.members += 1;
                        continue;
                    }
                    names.saw(&entry.name);
                    match self.choose(&entry.name, outermost, &mut stores) {
                        // All names are known: what is undecided is not a store.
                        MemberAction::Read | MemberAction::Undecided(_) => {}
                        MemberAction::Excluded => {
                            names.took();
                            continue;
                        }
                        MemberAction::PassedOver => continue,
                    }
                    let what = || format!("member `{}`", entry.name);
                    let meter = self.meters[layer].clone();
                    let mut content = entry.open(stored, &count, meter).context(what)?;
                    self.open(&mut content, None, &entry.name, layer + 1, true)
                        .and_then(|()| drain(&mut content))
                        .context(what)?;
                    names.took();
                }
                stores.end()?;
                self.any_member(&names, outermost)
            }
            None => {
                if !self.members.is_empty() && !in_archive {
                    return Err(Error::input("`members` is set, but the file is not an archive")
                        .hint("leave out `members`; archives are tar and zip"));
                }
                self.sink.member(in_archive.then_some(name));
                // `"compression": "none"` states that the bytes are what they seem.
                let as_it_is = stated == Some(Compression::None);
                self.format(&mut whole, stored, name, &head, as_it_is)
            }
        }
    }

    /// What is done with a member; counts it where it is left out for its name, as in a folder.
    fn choose(&mut self, member: &str, outermost: bool, stores: &mut Stores) -> MemberAction {
        let patterns = if outermost { &self.members[..] } else { &[] };
        let matching = archive::matching(patterns, member);
        if !patterns.is_empty() && matching.is_empty() {
            return MemberAction::PassedOver;
        }
        if self.exclude.exclude(member) {
            self.sink.irregular.excluded += 1;
            return MemberAction::Excluded;
        }
        if stores.holds(member, &matching) {
            self.sink.irregular.stores += 1;
            return MemberAction::PassedOver;
        }
        match unwanted_path(member, &matching) {
            None if stores.suspects(member, &matching) => self.sink.irregular.stores += 1,
            None => {
                let undecided = stores.undecided(member, &matching);
                return undecided.map_or(MemberAction::Read, |folder| {
                    MemberAction::Undecided(folder.to_owned())
                });
            }
            Some(Unwanted::Hidden) => self.sink.irregular.hidden += 1,
            Some(Unwanted::System) => self.sink.irregular.system += 1,
        }
        MemberAction::PassedOver
    }

    /// Reads a member of a tar, unless it is left out or held back. True if this or one that was held back is read, or was
    /// meant.
    fn member(
        &mut self,
        content: &mut dyn BufRead,
        name: &str,
        layer: usize,
        outermost: bool,
        stores: &mut Stores,
    ) -> Result<bool> {
        let mut start = Vec::new();
        match self.choose(name, outermost, stores) {
            MemberAction::Excluded => return Ok(true),
            MemberAction::PassedOver => return Ok(false),
            MemberAction::Read => {
                self.release(layer, outermost, stores)?;
            }
            MemberAction::Undecided(folder) => {
                let mut taken = false;
                if stores.held.folder != folder {
                    taken = self.release(layer, outermost, stores)?;
                    stores.held.folder = folder;
                }
                let rest = stores.held.take(name, content);
                match rest.context(|| format!("member `{name}`"))? {
                    None => return Ok(taken),
                    Some(read) => start = read,
                }
                self.release(layer, outermost, stores)?;
            }
        }
        self.read_member(&mut (&start[..]).chain(content), name, layer, outermost, stores)?;
        Ok(true)
    }

    /// Reads the members that were held back but those whose folder has shown itself as a store. True if any is read.
    fn release(&mut self, layer: usize, outermost: bool, stores: &mut Stores) -> Result<bool> {
        let mut taken = false;
        for (name, content) in std::mem::take(&mut stores.held).members {
            let patterns = if outermost { &self.members[..] } else { &[] };
            if stores.holds(&name, &archive::matching(patterns, &name)) {
                self.sink.irregular.stores += 1;
                continue;
            }
            self.read_member(&mut &content[..], &name, layer, outermost, stores)?;
            taken = true;
        }
        Ok(taken)
    }

    fn read_member(
        &mut self,
        content: &mut dyn BufRead,
        name: &str,
        layer: usize,
        outermost: bool,
        stores: &mut Stores,
    ) -> Result<()> {
        let patterns = if outermost { &self.members[..] } else { &[] };
        stores.reads(name, &archive::matching(patterns, name));
        self.open(content, None, name, layer, true)
            .context(|| format!("member `{name}`"))
    }

    /// An archive of which `members` means nothing is a mistake.
    fn any_member(&self, names: &archive::MemberNames, outermost: bool) -> Result<()> {
        if outermost && !self.members.is_empty() && !names.any_taken() {
            let error = Error::input("no member of the archive matches `members`").hint(names.hint());
            let irregular = &self.sink.irregular;
            return Err(if irregular.stores > 0 {
                error.or_hint(
                    "members in a store of mdlm are skipped unless a pattern names their folder there",
                )
            } else if irregular.hidden + irregular.system > 0 {
                error.or_hint("hidden members and system files are skipped unless a pattern names them")
            } else {
                error
            });
        }
        Ok(())
    }

    fn format(
        &mut self,
        input: &mut dyn BufRead,
        stored: Option<&Stored>,
        name: &str,
        head: &[u8],
        as_it_is: bool,
    ) -> Result<()> {
        let recognised;
        let format = if let Some(format) = &self.reading.format {
            format
        } else {
            recognised = recognise::format(name, head);
            &recognised
        };
        if !matches!(format, Format::Parquet(_) | Format::Arrow(_)) {
            if !as_it_is {
                foreign::check(name, head)?;
            }
            encoding::check(head)?;
        }
        match format {
            Format::Text(format) => text::read(input, format.record, self.sink),
            Format::JsonLines(format) => json::read(input, format, self.sink),
            Format::Csv(format) => csv::read(input, format, b',', self.sink),
            Format::Tsv(format) => csv::read(input, format, b'\t', self.sink),
            Format::Arrow(format) if !arrow::is_file(head) => arrow::streams(input, format, self.sink),
            Format::Arrow(column) | Format::Parquet(column) => {
                let copy;
                let (stored, count) = if let Some(stored) = stored {
                    (stored, self.sink.count.clone())
                } else {
                    copy = Stored::copy(input)?;
                    (&copy, ReadCount::default())
                };
                if matches!(format, Format::Arrow(_)) {
                    arrow::file(stored, &count, column, self.sink)
                } else {
                    parquet::read(stored, &count, column, self.sink)
                }
            }
        }
    }
}

/// The way out where a column is none of strings: those that are, `names` of them and more.
fn strings_hint(names: &[String]) -> String {
    if names.is_empty() {
        return "no column holds strings".to_owned();
    }
    let more = if names.len() > SHOWN { ", …" } else { "" };
    let shown: Vec<_> = (names.iter().take(SHOWN))
        .map(|name| format!("`{}`", name.chars().take(100).collect::<String>()))
        .collect();
    format!(
        "its columns of strings are {}{more}; set `column`",
        shown.join(", ")
    )
}

/// [`Read::read`] of what has a buffer.
fn read_buffered(input: &mut impl BufRead, to: &mut [u8]) -> std::io::Result<usize> {
    let chunk = input.fill_buf()?;
    let count = chunk.len().min(to.len());
    to[..count].copy_from_slice(&chunk[..count]);
    input.consume(count);
    Ok(count)
}

/// Reads to the end, where checksums are.
fn drain(input: &mut dyn BufRead) -> Result<()> {
    loop {
        let count = input.fill_buf().map_err(fault::landed)?.len();
        if count == 0 {
            return Ok(());
        }
        input.consume(count);
    }
}
