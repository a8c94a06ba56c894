//! Archives: what is refused, and that nothing is read before it was checked.

use super::{file, open, refused, survives, tensor_of, tensor_pickle, text_of, zip};

const NONE: &[u8] = b"\x80\x02N.";

/// The start of the part of an archive that begins with a signature.
fn at(bytes: &[u8], signature: &[u8], number: usize) -> usize {
    memchr::memmem::find_iter(bytes, signature).nth(number).unwrap()
}

/// A file with bytes changed from a place on.
fn with(bytes: &[u8], place: usize, change: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    bytes[place..place + change.len()].copy_from_slice(change);
    bytes
}

#[test]
fn torch_archive_lists_its_records() {
    let file = open(&file(NONE, &[b"1234"])).unwrap();
    let records: Vec<_> = file.archive().records().collect();
    assert_eq!(
        records,
        [("byteorder", 6), ("data.pkl", 4), ("data/0", 4), ("version", 2)]
    );
    assert_eq!(file.archive().name(), "a");
    assert_eq!(file.archive().length("data/0"), Some(4));
    assert_eq!(file.archive().length("data/1"), None);
}

#[test]
fn torch_files_of_other_formats_are_refused_by_name() {
    let mut tar = vec![0; 512];
    tar[257..262].copy_from_slice(b"ustar");
    let script = zip(&[("m/data.pkl", NONE), ("m/code/__torch__.py", b"")]);
    let constants = zip(&[("m/data.pkl", NONE), ("m/constants.pkl", NONE)]);
    let big = zip(&[("m/data.pkl", NONE), ("m/byteorder", b"big")]);
    let future = zip(&[("m/data.pkl", NONE), ("m/version", b"11\n")]);
    for (bytes, expected) in [
        (
            &b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."[..],
            "the format of PyTorch before 1.6",
        ),
        (
            b"\x80\x04\x95\x0d\0\0\0\0\0\0\0\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
            "the format of PyTorch before 1.6",
        ),
        (&tar, "a tar archive, the format of PyTorch before 0.2"),
        (&script, "a TorchScript archive"),
        (&constants, "a TorchScript archive"),
        (b"\x80\x02}.", "a pickle without an archive"),
        (
            b"version https://git-lfs.github.com/spec/v1\n",
            "a pointer of Git LFS",
        ),
        (b"<!DOCTYPE html>", "it begins with `<!DOCTYP`"),
        (b"", "it is empty"),
        (
            &big,
            "its numbers have the byte order `big`, and `little` is read",
        ),
        (&future, "its format has version `11\\n`, and 1 to 10 are read"),
        (
            &zip(&[("x.npy", b"")]),
            "its record `x.npy` is not in the folder of the others",
        ),
        (&zip(&[("a/x", b"")]), "it has no record `data.pkl`; it has `x`"),
        (
            &zip(&[("a/data.pkl", NONE), ("b/x", b"")]),
            "its record `b/x` is not in the folder of the others",
        ),
        (&zip(&[]), "begins with"),
    ] {
        let text = refused(bytes);
        assert!(text.contains(expected), "{text}");
    }
    let legacy = refused(b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.");
    assert!(legacy.contains("save it again: `torch.save("), "{legacy}");
}

#[test]
fn torch_archive_with_hostile_names_is_refused() {
    for name in [
        "../x",
        "a/../../x",
        "/etc/passwd",
        "a//x",
        "a/./x",
        "a\\..\\x",
        "C:/x",
        "a/x\0y",
    ] {
        let text = refused(&zip(&[("a/data.pkl", NONE), (name, b"")]));
        assert!(
            text.contains("leads out of the archive; nothing was unpacked"),
            "{text}"
        );
    }
    let text = refused(&zip(&[("a/data.pkl", NONE), ("a/data.pkl", b"\x80\x02}.")]));
    assert!(text.contains("two records `a/data.pkl`"), "{text}");
    let bytes = zip(&[("a/data.pkl", NONE), ("a/xx", b"")]);
    let place = at(&bytes, b"a/xx", 1);
    let text = refused(&with(&bytes, place, b"a/\xff\xfe"));
    assert!(text.contains("it is not UTF-8"), "{text}");
    // `torch.save` names the folder after the file.
    assert!(open(&zip(&[("epoch=3-nll:2.5/data.pkl", NONE)])).is_ok());
    // A folder, as other programs write them, is no record.
    assert!(open(&zip(&[("a/", b""), ("a/data.pkl", NONE)])).is_ok());
}

#[test]
fn torch_archive_with_records_in_wrong_places_is_refused() {
    let bytes = file(NONE, &[b"1234", b"5678"]);
    let entry = |number| at(&bytes, b"PK\x01\x02", number);
    let local = |number| at(&bytes, b"PK\x03\x04", number);
    let header = |number: usize| bytes[entry(number) + 42..][..4].to_vec();
    for (changed, expected) in [
        // The last record is where the one before it is, at another one's place, beyond the end.
        (with(&bytes, entry(4) + 42, &header(3)), "overlap at byte"),
        (
            with(&bytes, entry(4) + 42, &(local(4) as u32 - 1).to_le_bytes()),
            "overlap at byte",
        ),
        (
            with(&bytes, entry(4) + 42, &[0xFF, 0xFF, 0xFF, 0x7F]),
            "lies outside of the archive",
        ),
        (
            with(&bytes, entry(4) + 20, &[4, 0, 1, 0, 4, 0, 1, 0]),
            "lies outside of the archive",
        ),
        (
            with(&bytes, entry(3) + 20, &[40, 0, 0, 0, 40, 0, 0, 0]),
            "overlap at byte",
        ),
        (
            with(&bytes, local(3), b"PK\x03\x05"),
            "its header there is another one",
        ),
        (
            with(&bytes, local(3) + 30, b"b"),
            "its header there is another one",
        ),
        (
            with(&bytes, local(3) + 8, &[8]),
            "its header there is another one",
        ),
        (
            with(&bytes, entry(3) + 10, &[8]),
            "`a/data/0` is compressed with deflate",
        ),
        (
            with(&bytes, entry(3) + 10, &[93]),
            "`a/data/0` is compressed with method 93",
        ),
        (
            with(&bytes, entry(3) + 20, &[3]),
            "`a/data/0` is stored with two lengths",
        ),
        (with(&bytes, entry(3) + 8, &[1]), "`a/data/0` is encrypted"),
        (with(&bytes, entry(3), b"XX"), "directory is damaged at record 4"),
        (
            with(&bytes, bytes.len() - 14, &[4, 0, 4, 0]),
            "bytes after its last record",
        ),
        (
            with(&bytes, bytes.len() - 14, &[6, 0, 6, 0]),
            "directory is damaged at record",
        ),
        (
            with(&bytes, bytes.len() - 14, &[0xFF; 4]),
            "the archive states 65535 records in a directory",
        ),
        (
            with(&bytes, bytes.len() - 14, &[4, 0, 5, 0]),
            "one of several parts",
        ),
        (
            with(&bytes, bytes.len() - 6, &[1]),
            "the archive states a directory of",
        ),
        ([&bytes[..], b"\n"].concat(), "does not end with its end record"),
    ] {
        let text = refused(&changed);
        assert!(text.contains(expected), "{expected}: {text}");
    }
}

#[test]
fn torch_archive_checks_the_crc_of_each_record_that_is_read() {
    let pickle = tensor_pickle("FloatStorage", 2, 0, &[1], &[1]);
    let bytes = file(&pickle, &[&[0; 8]]);
    let damaged = with(&bytes, at(&bytes, b"a/data/0", 0) + 8 + 7, &[1]);
    let mut file = open(&damaged).unwrap();
    let tensor = tensor_of(&file).unwrap();
    // The damaged byte is not one of the tensor's.
    let text = text_of(&file.floats(&tensor, &mut [0.0]).unwrap_err());
    assert!(
        text.contains("record `data/0` is damaged: its CRC-32 is"),
        "{text}"
    );
    let damaged = with(&bytes, at(&bytes, b"cpu", 0), b"cqu");
    assert!(refused(&damaged).contains("record `data.pkl` is damaged"));
}

/// PyTorch writes 0 in its place after `torch.serialization.set_crc32_options(False)`.
#[test]
fn torch_archive_without_crcs_is_refused_as_such() {
    let bytes = file(&tensor_pickle("FloatStorage", 1, 0, &[1], &[1]), &[&[7; 4]]);
    let entry = at(&bytes, b"PK\x01\x02", 0);
    assert_eq!(&bytes[entry + 46..][..10], b"a/data.pkl");
    let text = refused(&with(&bytes, entry + 16, &[0; 4]));
    assert!(text.contains("record `data.pkl` has no CRC-32"), "{text}");
    assert!(text.contains("torch.save(torch.load("), "{text}");
}

#[test]
fn torch_file_cut_anywhere_is_refused_and_changed_anywhere_does_not_panic() {
    let pickle = tensor_pickle("FloatStorage", 6, 1, &[2, 2], &[1, 2]);
    let whole = file(&pickle, &[&[7; 24]]);
    survives(&whole);
    for cut in 0..whole.len() {
        refused(&whole[..cut]);
    }
    for place in 0..whole.len() {
        for byte in [0, 1, 0x7F, 0x80, 0xFF, whole[place] ^ 1, whole[place] ^ 0x20] {
            survives(&with(&whole, place, &[byte]));
        }
    }
    // The same in the pickle alone, with its CRC-32 set right.
    for place in 0..pickle.len() {
        for byte in 0..=255 {
            survives(&file(&with(&pickle, place, &[byte]), &[&[7; 24]]));
        }
    }
}

#[test]
fn torch_file_that_is_missing_or_a_folder_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let open = |path| super::TorchFile::open(path).unwrap_err().to_string();
    assert!(open(folder.path()).contains(": not a file") || open(folder.path()).contains("open it"));
    assert!(open(&folder.path().join("x.pt")).contains("x.pt`: open it: "));
}
