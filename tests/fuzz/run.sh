#!/usr/bin/env bash
# Runs every fuzz target for SECONDS (600 if not stated), one after the other, from the files of tests/it/golden and of seeds:
#     tests/fuzz/run.sh [SECONDS [TARGET…]]
# Needs `cargo install cargo-fuzz`; without sanitizers the stable toolchain will do (a nightly one will not: dfdx then
# asks for what it no longer has). What it finds lies in tests/fuzz/artifacts.
set -euo pipefail
cd "$(dirname "$0")"
seconds=${1:-600}
shift $(($# > 0))
forms=../it/golden/forms
targets=("$@")
if ((${#targets[@]} == 0)); then
    targets=(text json_lines csv parquet arrow gzip zstd bzip2 xz tar zip manifest grammar detokenize tokenizer torch checkpoint)
fi

seed() {
    mkdir -p "corpus/$1"
    for file in "${@:2}"; do
        cp -u "$file" "corpus/$1/"
    done
}
seed text ../it/golden/forms/make.sh
seed csv ../it/golden/forms/make.sh
seed json_lines ../../pipelines/*.json
seed parquet $forms/*.parquet
seed arrow $forms/*.arrow
for tool in gzip zstd bzip2 xz; do
    seed $tool $forms/*.$tool
done
seed zip $forms/*.zip
seed manifest ../../pipelines/*.json
seed grammar $(find ../../data ../../pipelines -name '*.grammar')
seed detokenize ../../README.md
seed tokenizer seeds/*.json
seed torch ../it/golden/torch/*.pt ../it/golden/torch/*.ckpt seeds/*.pkl
seed checkpoint ../it/golden/torch/*.pt ../it/golden/torch/*.ckpt seeds/*.pkl seeds/*.safetensors
mkdir -p corpus/tar
for form in gnu posix ustar v7; do
    gzip -dc $forms/$form.tar.gz > corpus/tar/$form
done

for target in "${targets[@]}"; do
    echo "== $target"
    # No sanitizer: the code is safe Rust but for zstd. Memory is what hostile files aim at.
    cargo fuzz run --fuzz-dir . --target-dir ../../target/fuzz -s none --no-cfg-fuzzing "$target" -- \
        -max_total_time="$seconds" -rss_limit_mb=1024 -timeout=20 -max_len=65536 -print_final_stats=1 2>&1 |
        grep -E '^(==|SUMMARY|stat::number|stat::peak|Done|artifact|thread|ALARM)|ERROR|panicked' || true
done
