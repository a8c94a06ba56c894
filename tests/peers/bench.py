"""Times `mdlm bench` and the PyTorch peer in turn (A B C A B C …) and keeps the result as a dated record.

    cargo build --release
    python tests/peers/bench.py train mini 32                    # a task, a shape, rows of a batch
    python tests/peers/bench.py sample mini 16 --rounds 3 --record tests/bench/2026-11-23-cpu.json
    python tests/peers/bench.py train tiny 32 --objectives mdlm ar sedd d3pm mlm
    python tests/peers/bench.py decode tiny 16 --record tests/bench/DATE-decode.json

Needs `torch`. Machines are shared and clocks change: sides take turns, each turn is a fresh process, and what counts is
the ratio of medians within one run. A record holds every turn. With `--objectives`, each is compared with its plain form,
and its ratio with MDLM's. `decode` has no peer: it is the autoregressive sampler with keys and values kept beside the same
sampler that computes whole rows at every step.
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
OBJECTIVES = ("mdlm", "ar", "sedd", "d3pm", "mlm")


def mdlm(arguments, objective="mdlm", task=None):
    command = [arguments.mdlm, "bench", "--json", "--task", task or arguments.task, "--shape", arguments.shape]
    command += ["--objective", objective]
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
    parser.add_argument("task", choices=("train", "evaluate", "sample", "decode"))
    parser.add_argument("shape")
    parser.add_argument("batch", type=int)
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=int, default=20, help="of each turn")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--micro-batch", type=int, help="of mdlm, which chooses one unless told")
    parser.add_argument("--objectives", nargs="+", choices=OBJECTIVES, help="compare each with its plain form")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out")
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm")
    parser.add_argument("--record", type=Path, help="JSON file to add the result to")
    arguments = parser.parse_args()
    if arguments.objectives and arguments.task in ("sample", "decode"):
        parser.error("--objectives compares training or evaluation")
    entry = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": platform.system(),
        "task": arguments.task,
        "shape": arguments.shape,
        "batch": arguments.batch,
    }
    title = f"{arguments.task} {arguments.shape}, {arguments.batch} rows: median of {arguments.rounds} turns\n"
    if arguments.task == "decode":
        compare_decoding(arguments, title, entry)
    elif arguments.objectives:
        compare_objectives(arguments, title, entry)
    else:
        compare_forms(arguments, title, entry)
    if arguments.record:
        record = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps([*record, entry], indent=1) + "\n")


def in_turns(arguments, sides):
    """What each side has measured, in turns."""
    turns = {name: [] for name in sides}
    for number in range(arguments.rounds):
        for name, side in sides.items():
            turn = side()
            turns[name].append(turn)
            print(f"round {number + 1}: {name}: {turn['tokens_per_second']:.0f} tokens/s", file=sys.stderr)
    return turns


def median(turns, what="tokens_per_second"):
    return statistics.median(turn[what] for turn in turns)


def compare_objectives(arguments, title, entry):
    sides = {}
    for kind in dict.fromkeys(["mdlm", *arguments.objectives]):
        sides[f"mdlm {kind}"] = lambda kind=kind: mdlm(arguments, kind)
        sides[f"torch plain {kind}"] = lambda kind=kind: torch(arguments, "--form", "plain", "--objective", kind)
    turns = in_turns(arguments, sides)
    kinds = [name.split()[1] for name in sides if name.startswith("mdlm ")]
    ratios = {kind: median(turns[f"mdlm {kind}"]) / median(turns[f"torch plain {kind}"]) for kind in kinds}
    rates = {kind: median(turns[f"mdlm {kind}"], "gflops") for kind in kinds}
    print(title)
    print("| objective | mdlm tokens/s | torch plain tokens/s | ratio | of MDLM's ratio | mdlm GFLOP/s | of MDLM's rate |")
    print("|---|---|---|---|---|---|---|")
    entry["objectives"] = {}
    for kind in kinds:
        speeds = {name: [round(turn["tokens_per_second"], 1) for turn in turns[f"{name} {kind}"]] for name in ("mdlm", "torch plain")}
        entry["objectives"][kind] = {
            "tokens_per_second": speeds,
            "ratio": round(ratios[kind], 3),
            "of_mdlms_ratio": round(ratios[kind] / ratios["mdlm"], 3),
            "gflops": round(rates[kind], 2),
            "of_mdlms_rate": round(rates[kind] / rates["mdlm"], 3),
        }
        ours, theirs = (statistics.median(speeds[name]) for name in ("mdlm", "torch plain"))
        print(
            f"| {kind} | {ours:.0f} | {theirs:.0f} | {ratios[kind]:.2f} | {ratios[kind] / ratios['mdlm']:.2f} "
            f"| {rates[kind]:.1f} | {rates[kind] / rates['mdlm']:.2f} |"
        )


def compare_decoding(arguments, title, entry):
    sides = {task: lambda task=task: mdlm(arguments, "ar", task) for task in ("sample", "recompute")}
    turns = in_turns(arguments, sides)
    kept = median(turns["sample"])
    entry["decoding"] = {}
    print(title)
    print("| keys and values | tokens/s | turns | kept is | peak memory |\n|---|---|---|---|---|")
    for name, task in (("kept", "sample"), ("recomputed", "recompute")):
        speeds = [round(turn["tokens_per_second"], 1) for turn in turns[task]]
        middle = statistics.median(speeds)
        memory = max(turn["peak_memory_bytes"] for turn in turns[task])
        entry["decoding"][name] = {
            "program": turns[task][0]["program"],
            "threads": turns[task][0]["threads"],
            "steps": turns[task][0]["steps"],
            "tokens_per_second": speeds,
            "median": middle,
            "kept_is_times": round(kept / middle, 2),
            "peak_memory_bytes": memory,
        }
        spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
        print(f"| {name} | {middle:.0f} | {spread} | {kept / middle:.2f}x | {memory / 1e6:.0f} MB |")


def compare_forms(arguments, title, entry):
    sides = {
        "mdlm": lambda: mdlm(arguments),
        "torch plain": lambda: torch(arguments, "--form", "plain"),
        "torch tuned": lambda: torch(arguments, "--form", "tuned"),
    }
    if not arguments.no_compile:
        sides["torch tuned compiled"] = lambda: torch(arguments, "--form", "tuned", "--compile")
    turns = in_turns(arguments, sides)
    ours = median(turns["mdlm"])
    entry["sides"] = {}
    print(title)
    print("| | tokens/s | turns | mdlm is | peak memory |\n|---|---|---|---|---|")
    for name, list_of in turns.items():
        speeds = [round(turn["tokens_per_second"], 1) for turn in list_of]
        middle = statistics.median(speeds)
        memory = max(turn["peak_memory_bytes"] for turn in list_of)
        entry["sides"][name] = {
            "program": list_of[0]["program"],
            "threads": list_of[0]["threads"],
            "tokens_per_second": speeds,
            "median": middle,
            "mdlm_is_times": round(ours / middle, 2),
            "peak_memory_bytes": memory,
        }
        spread = f"{min(speeds):.0f} to {max(speeds):.0f}"
        print(f"| {name} | {middle:.0f} | {spread} | {ours / middle:.2f}x | {memory / 1e6:.0f} MB |")


if __name__ == "__main__":
    main()
