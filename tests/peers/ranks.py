"""Times a training that ranks share beside the same training of one process, in turns.

    cargo build --release
    python tests/peers/ranks.py                               # shape mini, three turns
    python tests/peers/ranks.py --record tests/bench/DATE-ranks.json

Three comparisons, each of the seconds that the train stage took for the same steps:

- two ranks of one thread each, as threads and over MPI, with one process of two threads (8 grains each);
- one process with 8 grains and with 1, at batch 256;
- the largest memory of a rank, of 1 and of 2 ranks (over MPI: threads share one process).

Every turn trains each of them once, in a fresh store that has the rows already. The artifacts with 8 grains must be equal.
"""

import argparse
import datetime
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench import processor

ROOT = Path(__file__).parent.parent.parent


def manifest(shape, batch, steps):
    grammar = {"kind": "synthetic", "grammar": str(ROOT / "data/briefs.grammar"), "records": 20000}
    stages = {
        "text": {"kind": "source", "input": grammar},
        "tokens": {
            "kind": "tokenize",
            "from": "text",
            "tokenizer": {"kind": "train_bpe", "vocabulary_size": 1024},
        },
        "rows": {"kind": "pack", "from": "tokens", "length": 128, "validation": 0.02},
        "model": {
            "kind": "train",
            "from": "rows",
            "shape": shape,
            "steps": steps,
            "batch": batch,
            "warmup_steps": 1,
            "validation_every": 0,
            "validation_rows": 1,
            "checkpoint_every": steps,
        },
    }
    return {"name": "ranks", "seed": 1, "stages": stages}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm", type=Path)
    parser.add_argument("--shape", default="mini")
    parser.add_argument("--batch", default=32, type=int, help="rows of a step that ranks share")
    parser.add_argument("--steps", default=8, type=int)
    parser.add_argument("--turns", default=3, type=int)
    parser.add_argument("--launcher", default="mpirun.openmpi --allow-run-as-root --bind-to none -n 2")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp())
    try:
        result = measured(arguments, folder)
    finally:
        shutil.rmtree(folder)
    print(json.dumps(result, indent=1))
    if arguments.record:
        known = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.write_text(json.dumps([*known, result], indent=1) + "\n")


def measured(arguments, folder):
    def pipeline(name, batch, steps):
        path = folder / f"{name}.json"
        path.write_text(json.dumps(manifest(arguments.shape, batch, steps)))
        return path

    shared = pipeline("shared", arguments.batch, arguments.steps)
    large = pipeline("large", 256, max(1, arguments.steps * arguments.batch // 256))

    def run(path, *words, launcher=()):
        store = folder / "store"
        line = [*launcher, arguments.mdlm, "run", path, "--store", store, "--device", "cpu", "--json", *words]
        output = subprocess.run(line, check=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True).stdout
        return {stage["name"]: stage for stage in json.loads(output)["stages"]}

    run(shared, "--target", "rows")
    grains = ("--set", "stages.model.grains=8")
    launcher = arguments.launcher.split()
    cases = {
        "one process, 2 threads": (shared, [*grains, "--threads", "2"], ()),
        "2 ranks as threads, 1 thread each": (shared, [*grains, "--ranks", "2", "--threads", "1"], ()),
        "2 ranks over MPI, 1 thread each": (shared, [*grains, "--ranks", "2", "--threads", "1"], launcher),
        "batch 256, 1 grain": (large, ["--threads", "2"], ()),
        "batch 256, 8 grains": (large, [*grains, "--threads", "2"], ()),
    }
    seconds, artifacts = {name: [] for name in cases}, {}
    for _ in range(arguments.turns):
        for name, (path, words, before) in cases.items():
            # The rows stay; what was trained is trained again.
            stage = run(path, *words, "--force", "model", launcher=before)["model"]
            seconds[name].append(stage["seconds"])
            artifacts.setdefault(name, stage["artifact"])
    of_ranks = [artifacts[name] for name in list(cases)[:3]]
    if len(set(of_ranks)) > 1:
        sys.exit(f"ranks have other artifacts: {of_ranks}")
    median = {name: statistics.median(values) for name, values in seconds.items()}
    one, threads, mpi, whole, cut = median.values()
    return {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "task": "ranks",
        "shape": arguments.shape,
        "batch": arguments.batch,
        "steps": arguments.steps,
        "seconds": seconds,
        "speed_of_2_ranks_as_threads": one / threads,
        "speed_of_2_ranks_over_mpi": one / mpi,
        "speed_of_8_grains": whole / cut,
        "memory_of_a_process": memory(arguments, folder, shared, grains, launcher),
    }


def memory(arguments, folder, path, grains, launcher):
    """Bytes at most of a process that trains alone, and of the larger of two ranks."""
    peaks = {}
    for name, words, before in (("1 rank", [], []), ("2 ranks", ["--ranks", "2"], launcher)):
        child = os.fork()
        if child == 0:
            line = [*before, arguments.mdlm, "run", path, "--store", folder / "store", "--device", "cpu"]
            line += [*grains, "--threads", "1", *words, "--force", "model"]
            ended = subprocess.run(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode
            # Of all that has ended below, the largest.
            peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
            (folder / "peak").write_text(str(peak if ended == 0 else 0))
            os._exit(0)
        os.waitpid(child, 0)
        peaks[name] = int((folder / "peak").read_text())
    return peaks


if __name__ == "__main__":
    main()
