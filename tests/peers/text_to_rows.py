"""Times text to rows on disk, mdlm and Hugging Face in turn, beside the fastest tokenizer library in memory.

    cargo build --release
    cargo build --release --manifest-path tests/peers/fastest/Cargo.toml --target-dir target/fastest
    python tests/peers/text_to_rows.py text.txt gpt2-bpe bert-base-uncased --record tests/bench/2026-11-24-tokenize.json

`text.txt` has one document a line; `gpt2-bpe` holds `encoder.json` and `vocab.bpe`, `bert-base-uncased` `vocab.txt`. Needs
`datasets` and `tokenizers`. Every turn is a fresh process in a fresh folder. mdlm's time is that of the whole command
`mdlm run` of source, tokenize and pack: starting, loading the tokenizer, hashing what was made and bringing it to the disk
for good are in it. Hugging Face's is from the text file to the saved rows, without Python's start and imports. The
library in memory reads and writes nothing; the best of its five turns in each process counts. Beside it stand the three
stages alone, without the start of the program and the plan: the median of the ratios of turns that follow each other. What counts is the ratio
of medians within one run, since machines are shared and clocks change.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import processor

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def manifest(text, tokenizer, length, form):
    return {
        "name": "peer",
        "seed": 1,
        "stages": {
            "text": {"kind": "source", "input": {"kind": "files", "files": [str(text)]}},
            "tokens": {"kind": "tokenize", "from": "text", "tokenizer": tokenizer},
            "rows": {"kind": "pack", "from": "tokens", "length": length, "format": form},
        },
    }


def mdlm(arguments, text, tokenizer, length, form):
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        path = Path(folder) / "peer.json"
        path.write_text(json.dumps(manifest(text, tokenizer, length, form)))
        start = time.perf_counter()
        command = [arguments.mdlm, "run", "--json", path]
        process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        output = process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode:
            sys.exit(f"mdlm ended with {process.returncode}")
    stages = {stage["name"]: round(stage["seconds"], 3) for stage in json.loads(output)["stages"]}
    return {"seconds": seconds, "stages": stages, "peak_memory_bytes": usage.ru_maxrss * 1024}


def hf(arguments, text, tokenizer, length, ends):
    command = [sys.executable, HERE / "hf_tokenize.py", text, tokenizer, str(length)]
    command += ["--bos", str(ends[0]), "--eos", str(ends[1]), "--processes", str(arguments.processes)]
    return json.loads(run(command).splitlines()[-1])


def fastest(arguments, text, tokenizer):
    turns = json.loads(run([arguments.fastest, tokenizer, text]))
    return {"seconds": min(turns["seconds"]), "tokens": turns["tokens"]}


def run(command, **options):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, **options).stdout


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path)
    parser.add_argument("gpt2", type=Path)
    parser.add_argument("bert", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--without-datasets", action="store_true", help="leave Hugging Face out, for more rounds")
    parser.add_argument("--megabytes", type=int, help="take the first of the text's lines, about this much")
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm")
    parser.add_argument("--fastest", default=ROOT / "target/fastest/release/fastest")
    parser.add_argument("--scratch", help="folder for what is made")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    import tokenizers

    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        text = Path(folder) / "text.txt"
        whole = arguments.text.read_bytes()
        if arguments.megabytes and len(whole) > arguments.megabytes * 10**6:
            whole = whole[: whole.rindex(b"\n", 0, arguments.megabytes * 10**6) + 1]
        text.write_bytes(whole)
        size = len(whole)
        vocabulary, merges = (str((arguments.gpt2 / name).resolve()) for name in ("encoder.json", "vocab.bpe"))
        words = str((arguments.bert / "vocab.txt").resolve())
        gpt2, bert = (str(Path(folder) / name) for name in ("gpt2.json", "bert.json"))
        tokenizers.ByteLevelBPETokenizer(vocabulary, merges).save(gpt2)
        tokenizers.BertWordPieceTokenizer(words).save(bert)
        kinds = {
            "GPT-2 BPE": ({"kind": "gpt2", "vocabulary": vocabulary, "merges": merges}, gpt2, 1024, (50256, 50256)),
            "BERT WordPiece": ({"kind": "bert", "vocabulary": words}, bert, 128, (101, 102)),
        }
        entry = {
            "date": datetime.date.today().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "system": platform.system(),
            "bytes": size,
            "kinds": {},
        }
        for kind, (ours, theirs, length, ends) in kinds.items():
            sides = {
                "mdlm, Arrow": lambda: mdlm(arguments, text, ours, length, "arrow"),
                "mdlm, Parquet": lambda: mdlm(arguments, text, ours, length, "parquet"),
                "Hugging Face datasets.map": lambda: hf(arguments, text, theirs, length, ends),
                "tokenizers 1.0.0-rc.3 in memory": lambda: fastest(arguments, text, theirs),
            }
            if arguments.without_datasets:
                del sides["Hugging Face datasets.map"]
            turns = {name: [] for name in sides}
            for number in range(arguments.rounds):
                for name, side in sides.items():
                    turn = side()
                    turns[name].append(turn)
                    speed = size / turn["seconds"] / 1e6
                    print(f"{kind}, round {number + 1}: {name}: {speed:.1f} MB/s {turn.get('stages', '')}", file=sys.stderr)
            median = {name: statistics.median(turn["seconds"] for turn in list_of) for name, list_of in turns.items()}
            print(f"\n{kind}, {size / 1e6:.1f} MB, median of {arguments.rounds} turns\n")
            print("| | MB/s | seconds of the turns | mdlm (Arrow) is |\n|---|---|---|---|")
            entry["kinds"][kind] = {}
            for name, list_of in turns.items():
                ratio = median[name] / median["mdlm, Arrow"]
                entry["kinds"][kind][name] = {
                    "megabytes_per_second": round(size / median[name] / 1e6, 1),
                    "mdlm_arrow_is_times": round(ratio, 2),
                    "turns": list_of,
                }
                seconds = ", ".join(f"{turn['seconds']:.2f}" for turn in list_of)
                print(f"| {name} | {size / median[name] / 1e6:.1f} | {seconds} | {ratio:.2f}x |")
            library = turns["tokenizers 1.0.0-rc.3 in memory"]
            stages = [sum(turn["stages"].values()) for turn in turns["mdlm, Arrow"]]
            share = statistics.median(theirs["seconds"] / ours for theirs, ours in zip(library, stages))
            entry["kinds"][kind]["mdlm, Arrow"]["stages_alone"] = {
                "megabytes_per_second": round(size / statistics.median(stages) / 1e6, 1),
                "of_the_library_in_memory": round(share, 3),
            }
            print(f"\nThe three stages alone: {size / statistics.median(stages) / 1e6:.1f} MB/s, {share:.0%} of the library")
    if arguments.record:
        record = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.write_text(json.dumps([*record, entry], indent=1) + "\n")


if __name__ == "__main__":
    main()
