//! Whatever the bytes are and wherever their pieces end.

use super::*;

/// A reader that gives its bytes in pieces of odd sizes.
struct Pieces<'b> {
    bytes: &'b [u8],
    size: usize,
}

impl Read for Pieces<'_> {
    fn read(&mut self, to: &mut [u8]) -> std::io::Result<usize> {
        let chunk = self.fill_buf()?;
        let count = chunk.len().min(to.len());
        to[..count].copy_from_slice(&chunk[..count]);
        self.consume(count);
        Ok(count)
    }
}

impl BufRead for Pieces<'_> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        Ok(&self.bytes[..self.size.min(self.bytes.len())])
    }

    fn consume(&mut self, count: usize) {
        self.bytes = &self.bytes[count..];
    }
}

/// Reads in pieces: what comes out, or the error.
fn in_pieces(
    bytes: &[u8],
    size: usize,
    name: &str,
    settings: &Reading,
) -> std::result::Result<Vec<String>, String> {
    let mut all = Vec::new();
    let mut each = |text: &str, _: Here| {
        all.push(text.to_owned());
        Ok(())
    };
    let mut observed = Observed::default();
    let mut sink = Sink::new(settings, name, u64::MAX, &mut observed, &mut each);
    sink.ratio = u64::MAX;
    let mut input = Pieces { bytes, size };
    let result = match recognise::format(name, bytes) {
        Format::Text(format) => text::read(&mut input, format.record, &mut sink),
        Format::JsonLines(format) => json::read(&mut input, &format, &mut sink),
        Format::Csv(format) | Format::Tsv(format) => csv::read(&mut input, &format, b',', &mut sink),
        Format::Arrow(format) if arrow::is_file(bytes) => Stored::copy(&mut input)
            .and_then(|copy| arrow::file(&copy, &ReadCount::default(), &format, &mut sink)),
        Format::Arrow(format) => arrow::streams(&mut input, &format, &mut sink),
        Format::Parquet(_) => Ok(()),
    };
    result.map(|()| all).map_err(|error| error.to_string())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn any_bytes_are_records_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300), form in 0..16usize) {
        let (prefix, name): (&[u8], _) = [
            (&b""[..], "a.txt"), (b"", "a.jsonl"), (b"{\"text\":", "a.jsonl"), (b"text\n", "a.csv"), (b"", "a.tsv"),
            (b"", "a.parquet"), (b"PAR1", "a.parquet"), (b"", "a.arrow"), (b"ARROW1\0\0", "a.arrow"),
            (b"\xFF\xFF\xFF\xFF\x20\0\0\0", "a.arrow"), (b"\x1F\x8B\x08", "a"), (b"\x28\xB5\x2F\xFD", "a"),
            (b"BZh91AY&SY", "a"), (b"\xFD7zXZ\0", "a"), (b"PK\x03\x04", "a"), (b"", "a.tar"),
        ][form];
        let bytes = [prefix, &bytes].concat();
        if let Ok((records, _)) = read(&bytes, name, &Reading::default()) {
            prop_assert!(records.iter().all(|record| !record.trim().is_empty()));
        }
    }

    #[test]
    fn chunk_boundaries_do_not_change_records(
        parts in proptest::collection::vec("[a\"{}\\[\\],:\\\\ é\n\r1]{0,6}|\\{\"text\":\"[a-z\\\\\\\\\"]{0,5}\"\\}|\"a\"\"b\",|\r\n|null", 0..12),
        name in prop::sample::select(vec!["a.txt", "a.jsonl", "a.csv"]),
        size in 1..9usize,
    ) {
        let text = parts.concat();
        let whole = in_pieces(text.as_bytes(), usize::MAX, name, &Reading::default());
        let pieces = in_pieces(text.as_bytes(), size, name, &Reading::default());
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn json_limits_hold_wherever_chunks_end(
        parts in proptest::collection::vec("[a\"{}\\[\\],:\\\\ é\n1]{0,6}|\\{\"text\":\"[a-z]{0,20}\"\\}|NaN|-Infinity|null|nan", 0..12),
        size in 1..9usize,
    ) {
        let text = parts.concat();
        let settings = reading(json!({"longest_record": 20}));
        let whole = in_pieces(text.as_bytes(), usize::MAX, "a.jsonl", &settings);
        let pieces = in_pieces(text.as_bytes(), size, "a.jsonl", &settings);
        prop_assert_eq!(whole, pieces);
    }

    #[test]
    fn columns_read_in_chunks_have_the_same_records(size in 1..200usize) {
        for name in ["plain.file.arrow", "lz4.stream.arrow"] {
            prop_assert_eq!(in_pieces(&golden(name), size, name, &Reading::default()).unwrap(), forty());
        }
    }

    #[test]
    fn archives_that_are_changed_are_records_or_an_error(at: prop::sample::Index, byte: u8, name in prop::sample::select(vec![
        "gnu.tar.gz", "posix.tar.gz", "infozip.zip", "stream.zip", "nested.tar.xz", "two.bzip2", "two.zstd", "two.xz",
    ])) {
        let mut bytes = golden(name);
        if name.ends_with("tar.gz") {
            let mut tar = Vec::new();
            flate2::read::GzDecoder::new(&bytes[..]).read_to_end(&mut tar).unwrap();
            bytes = tar;
        }
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = read(&bytes, name, &Reading::default());
    }

    #[test]
    fn json_strings_are_read_back(texts in proptest::collection::vec(".{1,20}", 0..8), pretty: bool) {
        let values: Vec<String> = texts
            .iter()
            .map(|text| {
                let value = json!({"a": [1, {"b": text}], "text": text});
                if pretty { serde_json::to_string_pretty(&value).unwrap() } else { value.to_string() }
            })
            .collect();
        let kept: Vec<&String> = texts.iter().filter(|text| !text.trim().is_empty()).collect();
        let found = read(values.join("\n").as_bytes(), "a.jsonl", &Reading::default()).unwrap().0;
        prop_assert_eq!(found.iter().collect::<Vec<_>>(), kept);
    }
}
