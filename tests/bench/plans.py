"""Times `mdlm plan` of a sweep of 10,000 instances beside 10,000 records, in the cases in which a plan looks at most of them.

    cargo build --release
    pip install blake3
    python tests/bench/plans.py --record tests/bench/2026-11-30-plans.json

The records are made of real ones: of the stages of one sample seed and of one learning rate, which run. Each record is copied with
the keys of the other instances, as `mdlm plan --json` has them; the checksums of the copies take `blake3`. That the next plan
finds all of them cached is checked. Each case is planned in a fresh process, in turns with the others. With `--against` another mdlm plans them too: an
older one, with as many instances as it takes (`--instances 900`).
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

sys.path.insert(0, str(Path(__file__).parent.parent / "peers"))
from bench import processor  # noqa: E402
from blake3 import blake3  # noqa: E402

ROOT = Path(__file__).parent.parent.parent


def manifest(kind, instances, name="plans", stage=None, change=None):
    """A pipeline of a sweep over seeds of a sample stage, or over learning rates of trainings."""
    stages = {
        "text": {"kind": "source", "input": {"kind": "files", "files": ["a.txt"]}},
        "tokens": {"kind": "tokenize", "from": "text", "tokenizer": {"kind": "train_bpe", "vocabulary_size": 320}},
        "rows": {"kind": "pack", "from": "tokens", "length": 32, "validation": 0.05},
    }
    model = {"kind": "train", "from": "rows", "shape": "nano", "steps": 1, "batch": 8, "warmup_steps": 1}
    if kind == "sample":
        sampled = {"kind": "sample", "model": "model", "count": 1, "steps": 1}
        sampled["matrix"] = {"seed": {"from": 1, "to": instances}}
        stages["model"] = model
        stages[stage or "texts"] = {**sampled, **(change or {})}
    else:
        rates = {"from": 1e-6, "to": 1e-6 * instances, "step": 1e-6}
        model["matrix"] = {"learning_rate": rates}
        stages[stage or "trained"] = {**model, **(change or {})}
    return {"name": name, "seed": 1, "stages": stages}


def write(path, content):
    path.write_text(json.dumps(content, indent=1))
    return path.name


def raw(text):
    """Reads JSON with its floats as they are written: they are hashed as text."""
    return json.loads(text, parse_float=lambda number: f"<{number}>")


def spelt(value, **style):
    text = json.dumps(value, ensure_ascii=False, **style)
    return text.replace('"<', "").replace('>"', "")


def fake(folder, mdlm, kind, path, instances):
    """Records of all instances of a sweep, made of that of the first one."""
    command = [mdlm, "plan", "--json", path]
    write(folder / path, manifest(kind, 1))
    subprocess.run([mdlm, "run", "--quiet", path], cwd=folder, check=True, stderr=subprocess.DEVNULL)
    write(folder / path, manifest(kind, instances))
    stages = raw(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)["stages"]
    actions = folder / ".mdlm" / "actions" / kind
    swept = [stage for stage in stages if "@" in stage["name"]]
    done = next(stage for stage in swept if stage["decision"] == "cached")
    record = raw((actions / f"{done['key']}.json").read_text())
    del record["checksum"]
    for stage in swept:
        if stage["decision"] != "run":
            continue
        record["key"] = stage["parts"]
        record["provenance"]["stage"] = stage["name"]
        digest = blake3(spelt(record, separators=(",", ":")).encode()).hexdigest()
        text = spelt({**record, "checksum": digest}, indent=2) + "\n"
        (actions / f"{stage['key']}.json").write_text(text)
    stages = json.loads(subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)["stages"]
    undone = sum(stage["decision"] != "cached" for stage in stages)
    assert undone == 0 and len(stages) >= instances, f"{undone} of {len(stages)} stages are not cached"


def cases(instances):
    """The manifests to plan, by what they are: file and content."""
    more = {"steps": 2}
    changed = {"batch": 4}
    return {
        "all cached": ("plans.json", manifest("sample", instances)),
        "a setting changed": ("plans.json", manifest("sample", instances, change=more)),
        "stage renamed, a setting changed": ("plans.json", manifest("sample", instances, stage="drawn", change=more)),
        "another pipeline": ("other.json", manifest("sample", instances, name="other", change=more)),
        "trainings, all cached": ("trained.json", manifest("train", instances)),
        "trainings, validated otherwise": (
            "trained.json",
            manifest("train", instances, change={"validation_rows": 3}),
        ),
        "trainings, another batch": ("trained.json", manifest("train", instances, change=changed)),
        "trainings renamed, another batch": (
            "trained.json",
            manifest("train", instances, stage="learnt", change=changed),
        ),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm")
    parser.add_argument("--against", help="another mdlm that plans the same")
    parser.add_argument("--instances", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--store", type=Path, help="folder that is kept: records are made once")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    scratch = tempfile.TemporaryDirectory()
    folder = arguments.store or Path(scratch.name)
    folder.mkdir(parents=True, exist_ok=True)
    mdlm = str(Path(arguments.mdlm).absolute())
    with open(folder / "a.txt", "w") as file:
        for n in range(2000):
            file.write(f"the quick brown fox number {n * 7919 % 101} jumps over {n * 104729 % 997} dogs\n")
    # A young file is hashed again.
    time.sleep(3)
    fake(folder, mdlm, "sample", "plans.json", arguments.instances)
    fake(folder, mdlm, "train", "trained.json", arguments.instances)
    found = cases(arguments.instances)
    programs = {"mdlm": mdlm}
    if arguments.against:
        programs["against"] = str(Path(arguments.against).absolute())
    turns = {case: {program: [] for program in programs} for case in found}
    for _ in range(arguments.rounds):
        for case, (path, content) in found.items():
            write(folder / path, content)
            for name, program in programs.items():
                start = time.perf_counter()
                command = [program, "plan", path]
                subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                turns[case][name].append(time.perf_counter() - start)
    print(f"`mdlm plan` of {arguments.instances} instances, seconds, median of {arguments.rounds} (smallest to largest)\n")
    print("| case | " + " | ".join(programs) + " |\n|---|" + "---|" * len(programs))
    for case, of in turns.items():
        cells = [f"{statistics.median(s):.2f} ({min(s):.2f} to {max(s):.2f})" for s in of.values()]
        print(f"| {case} | " + " | ".join(cells) + " |")
    entry = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "load": os.getloadavg()[0],
        "instances": arguments.instances,
        "seconds": turns,
    }
    if arguments.record:
        record = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.write_text(json.dumps([*record, entry], indent=1) + "\n")


if __name__ == "__main__":
    main()
