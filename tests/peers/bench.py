"""Times `mdlm bench` and the PyTorch peer in turn (A B C A B C …) and keeps the result as a dated record.

    cargo build --release
    python tests/peers/bench.py train mini 32                    # a task, a shape, rows of a batch
    python tests/peers/bench.py sample mini 16 --rounds 3 --record tests/bench/2026-11-23-cpu.json

Needs `torch`. Machines are shared and clocks change: sides take turns, each turn is a fresh process, and what counts is
the ratio of medians within one run. A record holds every turn.
"""

import argparse
import datetime
import json
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent.parent


def mdlm(arguments):
    command = [arguments.mdlm, "bench", "--json", "--task", arguments.task, "--shape", arguments.shape]
    command += ["--batch", str(arguments.batch), "--seconds", str(arguments.seconds)]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    if arguments.micro_batch:
        command += ["--micro-batch", str(arguments.micro_batch)]
    return json.loads(run(command))["tasks"][0]


def torch(arguments, *options):
    command = [sys.executable, HERE / "torch_mdlm.py", "--task", arguments.task, "--shape", arguments.shape]
    command += ["--batch", str(arguments.batch), "--seconds", str(arguments.seconds), *options]
    if arguments.threads:
        command += ["--threads", str(arguments.threads)]
    return json.loads(run(command).splitlines()[-1])


def run(command):
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def processor():
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("task", choices=("train", "evaluate", "sample"))
    parser.add_argument("shape")
    parser.add_argument("batch", type=int)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=int, default=20, help="of each turn")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--micro-batch", type=int, help="of mdlm, which chooses one unless told")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    sides = {
        "mdlm": lambda: mdlm(arguments),
        "torch plain": lambda: torch(arguments, "--form", "plain"),
        "torch tuned": lambda: torch(arguments, "--form", "tuned"),
    }
    if not arguments.no_compile:
        sides["torch tuned compiled"] = lambda: torch(arguments, "--form", "tuned", "--compile")
    turns = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name, side in sides.items():
            turn = side()
            turns[name].append(turn)
            print(f"round {number + 1}: {name}: {turn['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    ours = statistics.median(turn["tokens_per_second"] for turn in turns["mdlm"])
    entry = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "task": arguments.task,
        "shape": arguments.shape,
        "batch": arguments.batch,
        "sides": {},
    }
    print(f"{arguments.task} {arguments.shape}, {arguments.batch} rows: median of {arguments.rounds} turns\n")
    print("| | tokens/s | turns | mdlm is | peak memory |\n|---|---|---|---|---|")
    for name, list_of in turns.items():
        speeds = [round(turn["tokens_per_second"], 1) for turn in list_of]
        median = statistics.median(speeds)
        memory = max(turn["peak_memory_bytes"] for turn in list_of)
        entry["sides"][name] = {
            "program": list_of[0]["program"],
            "threads": list_of[0]["threads"],
            "tokens_per_second": speeds,
            "median": median,
            "mdlm_is_times": round(ours / median, 2),
            "peak_memory_bytes": memory,
        }
        spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
        print(f"| {name} | {median:.0f} | {spread} | {ours / median:.2f}x | {memory / 1e6:.0f} MB |")
    if arguments.record:
        record = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps([*record, entry], indent=1) + "\n")


if __name__ == "__main__":
    main()
