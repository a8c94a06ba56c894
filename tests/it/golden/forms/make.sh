#!/usr/bin/env bash
# Makes the files of this folder with GNU tar, gzip, bzip2, xz, zstd, Info-ZIP and pyarrow (26 when they were made): other
# writers than the program's, so that its readers are tested against what people have.
set -euo pipefail
cd "$(dirname "$0")"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

printf 'one\ntwo\n' > "$work/1"
printf 'three' > "$work/2"
for tool in gzip bzip2 xz zstd; do
    # Two members, one after the other.
    { $tool -c < "$work/1"; $tool -c < "$work/2"; } > "two.$tool"
    # The members of nothing.
    $tool -c < /dev/null > "none.$tool"
done

tree=$work/tree
long=$(printf 'long-%.0s' {1..30})
mkdir -p "$tree/d/$long"
printf 'one\ntwo\n' > "$tree/a.txt"
gzip -nc < "$work/2" > "$tree/d/b.txt.gz"
printf 'four\n' > "$tree/d/$long/c.txt"
ln -s a.txt "$tree/link"
ln "$tree/a.txt" "$tree/z-hard"
truncate -s 1M "$tree/z-sparse"
printf 'x' >> "$tree/z-sparse"
chmod -R u=rwX,go=rX "$tree"
flags=(--sort=name --owner=0 --group=0 --numeric-owner --mtime=2020-01-01T00:00Z --sparse -C "$tree")
for form in gnu posix ustar v7; do
    contents=(a.txt d link z-hard z-sparse)
    [[ $form == ustar || $form == v7 ]] && contents=(a.txt d/b.txt.gz link z-hard)
    sparse=("${flags[@]}")
    [[ $form == ustar || $form == v7 ]] && sparse=("${flags[@]/--sparse/--check-links}")
    tar --format=$form "${sparse[@]}" -cf - "${contents[@]}" 2>/dev/null | gzip -nc > "$form.tar.gz"
done
# An archive of compressed archives, as OpenWebText comes.
mkdir "$work/outer"
tar --format=gnu "${flags[@]}" -cf - a.txt | xz -c > "$work/outer/part1.xz"
tar --format=gnu "${flags[@]}" -cf - d/b.txt.gz | xz -c > "$work/outer/part2.xz"
tar --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mtime=2020-01-01T00:00Z -C "$work" -cf - outer | xz -c > nested.tar.xz

out=$PWD
(cd "$tree" && rm z-hard z-sparse && printf 'three\n%.0s' {1..12} > d/e.txt && TZ=UTC find . -exec touch -h -d 2020-01-01 {} + \
    && rm -f "$out/infozip.zip" && TZ=UTC zip -qryX "$out/infozip.zip" a.txt d/b.txt.gz d/e.txt link)
# From a pipe to a pipe: lengths follow the data, and 64-bit extensions are in use.
(cd "$tree" && TZ=UTC zip -qrX - a.txt d/e.txt | cat > "$out/stream.zip")

python3 - "$PWD" <<'PYTHON'
import base64, sys
import pyarrow as pa, pyarrow.feather as feather, pyarrow.parquet as pq, pyarrow.parquet.encryption as pe

out = sys.argv[1]
texts = ["one", "two\nlines", "", None, "thrée", "one"] + [f"row {i}" for i in range(6, 40)]
lists = [[t, "x"] if t else [] if t == "" else None for t in texts]
table = pa.table({
    "id": pa.array(range(40)),
    "text": pa.array(texts),
    "article": pa.array([{"n": 1, "text": t} for t in texts]),
    "lines": pa.array(lists),
    "dictionary": pa.array(texts).dictionary_encode(),
    "large": pa.array(texts, pa.large_string()),
    "view": pa.array(texts, pa.string_view()),
    "large_lists": pa.array(lists, pa.large_list(pa.large_string())),
})
plain = table.drop(["view"])
pages = dict(data_page_size=64, write_batch_size=8, row_group_size=16)
for codec in ["none", "snappy", "gzip", "zstd", "lz4"]:
    pq.write_table(plain, f"{out}/{codec}.parquet", compression=codec, **pages)
pq.write_table(plain, f"{out}/brotli.parquet", compression="brotli")
pq.write_table(plain, f"{out}/version2.parquet", data_page_version="2.0", **pages)
pq.write_table(plain, f"{out}/plain.parquet", use_dictionary=False, **pages)
for name in ["DELTA_LENGTH_BYTE_ARRAY", "DELTA_BYTE_ARRAY"]:
    columns = {c: name for c in ["text", "large", "dictionary", "lines.list.element", "article.text", "large_lists.list.element"]}
    pq.write_table(plain, f"{out}/{name.lower()}.parquet", use_dictionary=False, column_encoding=columns, data_page_version="2.0", **pages)
pq.write_table(table.slice(0, 0).drop(["view"]), f"{out}/none_at_all.parquet")
for name, compression in [("plain", None), ("lz4", "lz4"), ("zstd", "zstd")]:
    options = pa.ipc.IpcWriteOptions(compression=compression)
    with pa.ipc.new_stream(f"{out}/{name}.stream.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=16)
    with pa.ipc.new_file(f"{out}/{name}.file.arrow", table.schema, options=options) as writer:
        writer.write_table(table, max_chunksize=16)
# Messages of metadata version 4 below a footer that says 5.
short = ["one", "two", "one"]
old = pa.table({"id": [1, 2, 3], "text": short, "dictionary": pa.array(short).dictionary_encode(), "lines": [[t] for t in short]})
for name, legacy in [("v4", False), ("v4_legacy", True)]:
    options = pa.ipc.IpcWriteOptions(metadata_version=pa.ipc.MetadataVersion.V4, use_legacy_format=legacy)
    with pa.ipc.new_file(f"{out}/{name}.file.arrow", old.schema, options=options) as writer:
        writer.write_table(old)
feather.write_feather(table.select(["text"]), f"{out}/feather1.feather", version=1)
# Checksums of pages, of dictionaries too; and a column that is encrypted below a footer that is not.
two = plain.select(["id", "text"])
for name, version, codec in [("checksums1", "1.0", "none"), ("checksums2", "2.0", "zstd")]:
    pq.write_table(two, f"{out}/{name}.parquet", compression=codec, data_page_version=version, write_page_checksum=True, **pages)
class Keys(pe.KmsClient):
    def __init__(self, config):
        super().__init__()
    def wrap_key(self, key, name):
        return base64.b64encode(key)
    def unwrap_key(self, key, name):
        return base64.b64decode(key)
encryption = pe.EncryptionConfiguration(footer_key="f", column_keys={"k": ["text"]}, plaintext_footer=True)
keys = pe.CryptoFactory(Keys).file_encryption_properties(pe.KmsConnectionConfig(), encryption)
with pq.ParquetWriter(f"{out}/encrypted.parquet", two.schema, encryption_properties=keys) as writer:
    writer.write_table(two)
PYTHON
