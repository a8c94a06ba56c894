"""Times a run in which nothing is to be done: mdlm, DVC and Snakemake in turn, over pipelines of the same size.

    cargo build --release
    python tests/peers/noop.py --record tests/bench/2026-11-24-noop.json

Six stages, 2 GB of input in eight files, an intermediate of a thousand files. mdlm's stages are real ones; those of the
others copy a few bytes, since only what they do before they find that nothing is to be done counts here. Each is run
until it says so, then timed in turns, each a fresh process. Needs `dvc` and `snakemake` on the PATH or beside this
Python.
"""

import argparse
import datetime
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from bench import processor

ROOT = Path(__file__).parent.parent.parent
STAGES = ["text", "tokens", "rows", "model", "bound", "texts"]
SHARDS = 1000


def inputs(folder, gigabytes, files=8):
    folder.mkdir()
    line = b"the quick brown fox number %d jumps over %d lazy dogs and word%d it\n"
    block = b"".join(line % (n * 7919 % 101, n * 104729 % 997, n * n % 1009) for n in range(16384))
    for number in range(files):
        with open(folder / f"{number}.txt", "wb") as file:
            left = int(gigabytes * 1e9) // files
            while left > 0:
                file.write(block[:left])
                left -= len(block)


def manifest(folder):
    stages = {
        "text": {"kind": "source", "input": {"kind": "files", "files": ["data/*.txt"]}, "limit": 12000},
        "tokens": {"kind": "tokenize", "from": "text", "tokenizer": {"kind": "train_bpe", "vocabulary_size": 320}},
        "rows": {"kind": "pack", "from": "tokens", "length": 32, "validation": 0.05, "shard_rows": 1},
        "model": {"kind": "train", "from": "rows", "shape": "nano", "steps": 5, "batch": 8, "warmup_steps": 1},
        "bound": {"kind": "evaluate", "model": "model", "data": "rows", "rows": 8, "draws": 1},
        "texts": {"kind": "sample", "model": "model", "count": 2, "steps": 4},
    }
    return {"name": "noop", "seed": 1, "stages": stages}


def prepare_mdlm(folder, arguments):
    """Runs the pipeline with shards of such a size that there are about a thousand of them."""
    path = folder / "noop.json"
    content = manifest(folder)
    content["stages"]["rows"]["shard_rows"] = 1 << 20
    path.write_text(json.dumps(content))
    command = [arguments.mdlm, "run", "--quiet", "--json", path]
    made = json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)
    rows = next(stage for stage in made["stages"] if stage["name"] == "rows")
    count = int(dict(rows["figures"])["train rows"])
    content["stages"]["rows"]["shard_rows"] = max(1, count // SHARDS)
    path.write_text(json.dumps(content))
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE)
    made = json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)
    assert all(stage["status"] == "cached" for stage in made["stages"]), made
    rows = next(stage for stage in made["stages"] if stage["name"] == "rows")
    shards = sum(1 for file in Path(folder, rows["path"]).rglob("*") if file.suffix == ".arrow")
    return [arguments.mdlm, "run", "--quiet", path], shards


COMMANDS = {
    "text": ("head -c 1000 data/0.txt > text", "data", "text"),
    "tokens": ("cp text tokens", "text", "tokens"),
    "rows": (f"mkdir -p rows && for n in $(seq {SHARDS}); do cp tokens rows/$n; done", "tokens", "rows"),
    "model": ("cp rows/1 model", "rows", "model"),
    "bound": ("cp model bound", "model", "bound"),
    "texts": ("cp model texts", "model", "texts"),
}


def prepare_dvc(folder, tool):
    stages = "".join(
        f"  {name}:\n    cmd: {json.dumps(command)}\n    deps: [{needs}]\n    outs: [{makes}]\n"
        for name, (command, needs, makes) in COMMANDS.items()
    )
    (folder / "dvc.yaml").write_text("stages:\n" + stages)
    for command in (["init", "--no-scm"], ["config", "core.analytics", "false"], ["repro"], ["repro"]):
        subprocess.run([tool, "-q", *command], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return [tool, "-q", "repro"]


def prepare_snakemake(folder, tool):
    rules = "rule all:\n    input: 'bound', 'texts'\n"
    for name, (command, needs, makes) in COMMANDS.items():
        read = [f"data/{n}.txt" for n in range(8)] if needs == "data" else [needs]
        read = [f"rows/{n}" for n in range(1, SHARDS + 1)] if needs == "rows" else read
        made = [f"rows/{n}" for n in range(1, SHARDS + 1)] if makes == "rows" else [makes]
        rules += f"rule {name}:\n    input: {read}\n    output: {made}\n    shell: {json.dumps(command.replace('{', '{{'))}\n"
    (folder / "Snakefile").write_text(rules)
    command = [tool, "--cores", "2", "--quiet", "all"]
    for _ in range(2):
        subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return command


def find(name):
    beside = Path(sys.executable).parent / name
    return str(beside) if beside.exists() else shutil.which(name)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.0)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm")
    parser.add_argument("--scratch", help="folder for what is made")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as scratch:
        data = Path(scratch) / "data"
        inputs(data, arguments.gigabytes)
        sides, shards = {}, 0
        for name in ("mdlm", "DVC", "Snakemake"):
            folder = Path(scratch) / name.lower()
            folder.mkdir()
            (folder / "data").symlink_to(data)
            if name == "mdlm":
                # Young files are hashed again until they are two seconds old.
                time.sleep(3)
                command, shards = prepare_mdlm(folder, arguments)
            elif tool := find(name.lower()):
                command = (prepare_dvc if name == "DVC" else prepare_snakemake)(folder, tool)
            else:
                print(f"{name} is not installed", file=sys.stderr)
                continue
            sides[name] = (command, folder)
        turns = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, (command, folder) in sides.items():
                start = time.perf_counter()
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                turns[name].append(time.perf_counter() - start)
    median = {name: statistics.median(seconds) for name, seconds in turns.items()}
    print(f"6 stages, {arguments.gigabytes} GB of input, {shards} shards of rows; medians of {arguments.rounds} turns\n")
    print("| nothing to do | milliseconds | mdlm is |\n|---|---|---|")
    for name, seconds in median.items():
        print(f"| {name} | {seconds * 1e3:.0f} | {seconds / median['mdlm']:.0f} times as fast |")
    entry = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "gigabytes": arguments.gigabytes,
        "shards": shards,
        "seconds": turns,
    }
    if arguments.record:
        record = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.write_text(json.dumps([*record, entry], indent=1) + "\n")


if __name__ == "__main__":
    main()
