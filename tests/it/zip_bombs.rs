//! Why archives are read by code of ours and not by the crate `zip`: files that it takes far more memory for than they have
//! bytes, or loses members of, and which `mdlm` refuses or reads within its limits. A test that fails because the crate has
//! become bounded says which code can go.

use std::io::{self, Cursor, Read as _, Write as _};

use serde_json::json;
use zip::CompressionMethod;
use zip::read::{ArchiveOffset, Config, ZipArchive};
use zip::unstable::read::ZipIterable;
use zip::write::{SimpleFileOptions, ZipWriter};

use crate::bombs::{LITTLE, MIB, ours, refused};
use crate::memory::peak;

/// An end record of 64 bits, with any length; then what stands between; its locator; and an end record that
/// refers to it.
fn end_64(at: u64, record: u64, members: u64, directory: (u64, u64), between: &[u8]) -> Vec<u8> {
    let (size, offset) = directory;
    let mut end = b"PK\x06\x06".to_vec();
    end.extend(record.to_le_bytes());
    end.extend([45, 0, 45, 0]);
    end.extend([0; 8]);
    for number in [members, members, size, offset] {
        end.extend(number.to_le_bytes());
    }
    end.extend(between);
    end.extend(b"PK\x06\x07\0\0\0\0");
    end.extend(at.to_le_bytes());
    end.extend(1u32.to_le_bytes());
    end.extend(b"PK\x05\x06\0\0\0\0");
    end.extend([0xFF; 12]);
    end.extend([0; 2]);
    end
}

/// A stored member: its local header with the content, and its entry in the directory.
fn stored(name: &str, content: &[u8], at: usize) -> (Vec<u8>, Vec<u8>) {
    let mut crc = flate2::Crc::new();
    crc.update(content);
    let mut common = vec![20, 0, 0, 0, 0, 0];
    common.extend([0; 4]);
    common.extend(crc.sum().to_le_bytes());
    common.extend((content.len() as u32).to_le_bytes());
    common.extend((content.len() as u32).to_le_bytes());
    common.extend((name.len() as u16).to_le_bytes());
    common.extend([0; 2]);
    let local = [b"PK\x03\x04", &common[..], name.as_bytes(), content].concat();
    let at = (at as u32).to_le_bytes();
    let entry = [b"PK\x01\x02\x14\0", &common[..], &[0; 10], &at, name.as_bytes()].concat();
    (local, entry)
}

fn archive(members: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
    let mut bytes: Vec<u8> = members.iter().flat_map(|(local, _)| local.clone()).collect();
    let (at, count) = (bytes.len() as u32, members.len() as u16);
    for (_, entry) in members {
        bytes.extend(entry);
    }
    let size = bytes.len() as u32 - at;
    bytes.extend(b"PK\x05\x06\0\0\0\0");
    bytes.extend([count.to_le_bytes(), count.to_le_bytes()].concat());
    bytes.extend([size.to_le_bytes(), at.to_le_bytes()].concat());
    bytes.extend([0; 2]);
    bytes
}

/// What the crate `zip` takes before it knows the first member, with an archive's start that it is to find or that it is
/// given.
fn end_found(file: &[u8], archive_offset: ArchiveOffset) -> (bool, usize) {
    peak(|| ZipIterable::try_new(Cursor::new(file), Config { archive_offset }).is_ok())
}

/// Why the end record is found here: whatever an archive's start is taken for, the crate holds what the record is said to
/// have behind it, up to the length of the file; where it looks for the start, it remembers all that might be a record,
/// at twenty times their bytes and more.
#[test]
fn zip_crate_searches_the_directory_in_memory_as_long_as_the_file() {
    let filling = vec![0; 32 * MIB];
    let end = end_64(4, 44 + filling.len() as u64, 0, (0, 0), &filling);
    let file = [b"PK\x03\x04", &end[..]].concat();
    for offset in [ArchiveOffset::Detect, ArchiveOffset::Known(0)] {
        let (_, memory) = end_found(&file, offset);
        assert!(
            memory >= filling.len(),
            "the crate is bounded now: {memory} bytes"
        );
    }
    refused(&file, "a.zip");

    let records = b"PK\x06\x06".repeat(MIB / 4);
    let end = end_64(0, 0, 0, (0, 0), &[]);
    let file = [b"PK\x03\x04", &records[..], &end].concat();
    let (found, memory) = end_found(&file, ArchiveOffset::Detect);
    assert!(
        !found && memory > 20 * records.len(),
        "the crate is bounded now: {memory} bytes"
    );
    refused(&file, "a.zip");
}

/// An end record that states more members than there can be is refused by both: no longer a reason.
#[test]
fn zip_crate_refuses_more_members_than_a_file_can_hold() {
    let end = end_64(4, 44, 1 << 32, (46 << 32, 0), &[]);
    let file = [b"PK\x03\x04", &end[..]].concat();
    let (found, memory) = end_found(&file, ArchiveOffset::Known(0));
    assert!(!found && memory < MIB, "{memory} bytes");
    let (archive, memory) = peak(|| ZipArchive::new(Cursor::new(&file)).is_ok());
    assert!(!archive && memory < MIB, "{memory} bytes");
    refused(&file, "a.zip");
}

/// Why the directory is not read by `ZipArchive`: of members of one name it knows the last alone, and it holds the whole
/// directory, several times its bytes.
#[test]
fn zip_crate_loses_members_and_holds_the_directory_in_memory() {
    let (one, entry) = stored("a.txt", b"one", 0);
    let two = stored("a.txt", b"two", one.len());
    let file = archive(&[(one, entry), two]);
    let mut read = ZipArchive::new(Cursor::new(&file)).unwrap();
    let mut text = String::new();
    read.by_index(0).unwrap().read_to_string(&mut text).unwrap();
    assert_eq!((read.len(), &*text), (1, "two"), "the crate reads both now");
    assert_eq!(ours(&file, "a.zip", json!({})).0.unwrap(), ["one", "two"]);

    let mut members = vec![stored("0000000", b"x", 0)];
    let (local, _) = &members[0];
    // The others have the content of the first.
    let length = local.len();
    members.extend((1..40_000).map(|number| (vec![], stored(&format!("{number:07}"), b"x", 0).1)));
    // A directory that starts behind as many bytes as it has members is what the crate makes room by.
    members[0].0.resize(length.max(40_000), 0);
    let file = archive(&members);
    let (read, memory) = peak(|| ZipArchive::new(Cursor::new(&file)).map(|archive| archive.len()));
    assert_eq!(read.unwrap(), 40_000);
    assert!(
        memory > 3 * file.len(),
        "the crate is bounded now: {memory} bytes"
    );
    // A file of as many bytes may become that many records; only the memory for them is taken.
    let (records, memory) = ours(&file, "a.zip", json!({}));
    assert_eq!(records.unwrap().len(), 40_000);
    assert!(memory < LITTLE, "{memory} bytes");
}

/// Why members are decoded here: the crate's decoders have no limits on what they hold.
#[test]
fn zip_crate_decodes_without_a_limit() {
    // The sixth level has a dictionary of 8 MiB.
    let options = SimpleFileOptions::default()
        .compression_method(CompressionMethod::Xz)
        .compression_level(Some(6));
    let mut writer = ZipWriter::new(Cursor::new(Vec::new()));
    writer.start_file("a.txt", options).unwrap();
    writer.write_all(&vec![b'\n'; 12 * MIB]).unwrap();
    let file = writer.finish().unwrap().into_inner();
    assert!(file.len() < MIB / 64, "{} bytes", file.len());
    let mut archive = ZipArchive::new(Cursor::new(&file)).unwrap();
    let copy = || io::copy(&mut archive.by_index(0).unwrap(), &mut io::sink());
    let (copied, memory) = peak(copy);
    assert_eq!(copied.unwrap(), 12 * MIB as u64);
    assert!(memory > 8 * MIB, "the crate is bounded now: {memory} bytes");
    let settings = json!({ "largest_buffer": MIB, "largest_ratio": 1 << 20 });
    let (read, memory) = ours(&file, "a.zip", settings);
    assert!(memory < LITTLE, "{memory} bytes");
    let message = read.unwrap_err();
    let expected = "the dictionary of the xz data takes more than 1 MiB";
    assert!(message.contains(expected), "{message}");
}
