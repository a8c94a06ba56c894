"""Times each sampler of `mdlm run` beside `cached`, and long texts beside separate rows, in turns.

    cargo build --release
    python tests/peers/samplers.py                               # shape tiny, 32 rows, 128 steps, three turns
    python tests/peers/samplers.py --record tests/bench/DATE-samplers.json

A network call here is one row that goes through the network once. Samplers differ in how many of them a row takes, so
what is compared is the time of a call: the seconds that the stage was drawing, over the calls that it counted. Each turn
draws with every sampler once, from another seed. Semi-autoregressive texts of 2,048 tokens from rows of 128 take
T · S / L steps a window and are compared with as many tokens in separate rows, as many side by side.

The models are trained for a few steps only: the time of a call does not depend on what a model has learnt, except that
`threshold` ends sooner with a model that is sure.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import tempfile
from pathlib import Path

from bench import processor

ROOT = Path(__file__).parent.parent.parent
LENGTH = 128
TEXT = 2048

MASKED = [
    {"kind": "cached"},
    {"kind": "ancestral"},
    {"kind": "first_hitting"},
    {"kind": "analytic"},
    {"kind": "euler"},
    {"kind": "random"},
    {"kind": "confidence"},
    {"kind": "margin"},
    {"kind": "entropy"},
    {"kind": "left_to_right"},
    {"kind": "threshold", "probability": 0.9},
    {"kind": "remasking"},
    {"kind": "remasking", "rule": "rescale"},
    {"kind": "remasking", "rule": "confidence"},
    {"kind": "remasking", "rule": "loop"},
    {"kind": "remasking", "rule": "forward_backward"},
]
SCORES = [{"kind": "ancestral"}, {"kind": "analytic"}, {"kind": "euler"}]


def name(sampler):
    return " ".join([sampler["kind"], *(str(value) for key, value in sampler.items() if key != "kind")])


def manifest(arguments):
    """One pipeline: a model of each objective, a sample stage for each sampler, and the long texts."""
    grammar = {"kind": "synthetic", "grammar": str(ROOT / "data/briefs.grammar"), "records": 5000}
    stages = {
        "text": {"kind": "source", "input": grammar},
        "tokens": {"kind": "tokenize", "from": "text", "tokenizer": {"kind": "train_bpe", "vocabulary_size": 1024}},
        "rows": {"kind": "pack", "from": "tokens", "length": LENGTH},
    }
    cases = {}
    train = {"kind": "train", "from": "rows", "shape": arguments.shape, "steps": 20, "batch": 8, "warmup_steps": 1}
    for objective, samplers in ("mdlm", MASKED), ("sedd", SCORES), ("mlm", [{"kind": "gibbs"}]):
        stages[objective] = {**train, "objective": {"kind": objective}, "seed": 1}
        for number, sampler in enumerate(samplers):
            stage = f"{objective}-{number}"
            steps = 1 if sampler["kind"] == "gibbs" else arguments.steps
            stages[stage] = {
                "kind": "sample", "model": objective, "count": arguments.rows, "steps": steps, "sampler": sampler
            }
            cases[stage] = f"{objective}: {name(sampler)}"
    # A window after the first draws S of L tokens in T · S / L steps: as many steps a token as a separate row.
    stride = LENGTH // 2
    texts = arguments.rows
    windows = 1 + (TEXT - LENGTH) // stride
    stages["long"] = {
        "kind": "sample", "model": "mdlm", "count": texts, "steps": arguments.steps,
        "sampler": {
            "kind": "semi_autoregressive", "stride": stride, "length": TEXT,
            "window_steps": arguments.steps * stride // LENGTH,
        },
    }
    stages["separate"] = {
        "kind": "sample", "model": "mdlm", "count": texts * TEXT // LENGTH, "steps": arguments.steps,
        "sampler": {"kind": "cached"},
    }
    cases["long"] = f"{texts} texts of {TEXT} tokens in {windows} windows"
    cases["separate"] = f"{texts * TEXT // LENGTH} rows of {LENGTH} tokens"
    return {"name": "samplers", "seed": 1, "stages": stages}, cases


def figures(folder, arguments, stage, seed):
    """Seconds of drawing, and network calls, of a stage that was run with that seed."""
    show = [arguments.mdlm, "show", "pipeline.json", stage, "--json", "--set", f"seed={seed}"]
    shown = json.loads(subprocess.run(show, cwd=folder, check=True, stdout=subprocess.PIPE).stdout)
    summary = json.loads(Path(folder, shown["path"], "sample.json").read_text())
    tokens = summary.get("tokens", summary["rows"] * LENGTH)
    return tokens / shown["provenance"]["facts"]["tokens_per_second"], summary["network_calls"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="tiny", help="a shape with rows of 128 tokens")
    parser.add_argument("--rows", type=int, default=32)
    parser.add_argument("--steps", type=int, default=128)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm", type=Path)
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    arguments.mdlm = arguments.mdlm.resolve()
    content, cases = manifest(arguments)
    turns = {stage: [] for stage in cases}
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, "pipeline.json").write_text(json.dumps(content))
        for seed in range(1, arguments.turns + 1):
            run = [arguments.mdlm, "run", "--quiet", "pipeline.json", "--set", f"seed={seed}"]
            if arguments.threads:
                run += ["--threads", str(arguments.threads)]
            subprocess.run(run, cwd=folder, check=True)
            for stage in cases:
                turns[stage].append(figures(folder, arguments, stage, seed))
    medians = {stage: statistics.median(seconds / calls for seconds, calls in turns[stage]) for stage in cases}
    for stage, case in cases.items():
        calls = statistics.median(calls for _, calls in turns[stage])
        ratio = medians[stage] / medians["mdlm-0"]
        print(f"{case:45} {calls:>9.0f} calls  {1e3 * medians[stage]:8.3f} ms a call  {ratio:5.2f} of cached")
    long, separate = (statistics.median(seconds for seconds, _ in turns[stage]) for stage in ("long", "separate"))
    print(f"{cases['long']} take {long / separate:.3f} times the seconds of {cases['separate']}")
    if arguments.record:
        entries = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        entries.append({
            "date": datetime.date.today().isoformat(),
            "processor": processor(),
            "cores": os.cpu_count(),
            "threads": arguments.threads or os.cpu_count(),
            "task": "samplers",
            "shape": arguments.shape,
            "rows": arguments.rows,
            "steps": arguments.steps,
            "milliseconds_a_call": {cases[stage]: 1e3 * median for stage, median in medians.items()},
            "of_cached": {cases[stage]: median / medians["mdlm-0"] for stage, median in medians.items()},
            "long_of_separate": long / separate,
            "turns": {cases[stage]: each for stage, each in turns.items()},
        })
        arguments.record.write_text(json.dumps(entries, indent=1) + "\n")


if __name__ == "__main__":
    main()
