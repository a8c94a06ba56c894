"""Times `mdlm bench --device cuda` and the PyTorch peer in turns on one card, and keeps the result as a dated record.

    python3 tests/peers/gpu.py --mdlm target/release/mdlm [--quick] [--record tests/bench/DATE-gpu.json]

First the card's own limits are measured (bf16 products, copies). Then, for each task, sides take turns (A B C A B C …), each
turn a fresh process. The goals: training at least 1.3 times the best peer and 55% of the card's bf16 rate, counting only the
operations that have to be done (gpu_floor.py); sampling 3 times the peer; 0.7 of its memory. A training's kernels are timed
one by one too: what stands in tests/bench/gpu-floor.md beside their floors.
"""

import argparse
import datetime
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "bench"))
import gpu_floor  # noqa: E402

# Task, shape, rows, reverse steps. The first ones matter most, in case time runs out.
TASKS = [
    ("train", "lm1b-small", 512, None),
    ("train", "owt-small", 64, None),
    ("sample", "lm1b-small", 64, 128),
    ("sample", "owt-small", 16, 128),
    ("evaluate", "lm1b-small", 512, None),
]
PEERS = {
    "torch plain compiled": ("--form", "plain", "--compile"),
    "torch tuned compiled": ("--form", "tuned", "--compile"),
}


def run(command, limit, environment=None):
    """The last line of what a command prints, as JSON; what went wrong instead, in words."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, timeout=limit, env={**os.environ, **(environment or {})})
    except subprocess.TimeoutExpired:
        return None, f"took more than {limit} s"
    if done.returncode:
        return None, (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
    text = done.stdout.strip()
    return json.loads(text if text.startswith("{\n") else text.splitlines()[-1]), None


def plain_mdlm(*rest):
    """Products without epilogues, kernels for what they would have done."""
    return mdlm(*rest, environment={"MDLM_GPU_PLAIN": "1"})


def mdlm(arguments, task, shape, rows, steps, seconds, environment=None):
    command = [arguments.mdlm, "bench", "--device", "cuda", "--precision", "bf16", "--json", "--task", task]
    command += ["--shape", shape, "--batch", str(rows), "--seconds", str(seconds)]
    command += ["--steps", str(steps)] if steps else []
    command += ["--kernels"] if task == "train" else []
    found, why = run(command, arguments.limit, environment)
    return (found["tasks"][0], None) if found else (None, why)


def torch(options, arguments, task, shape, rows, steps, seconds):
    """The peer, in the largest micro-batches that fit."""
    micro_batch = rows
    while True:
        command = [sys.executable, HERE / "torch_mdlm.py", "--device", "cuda", "--task", task, "--shape", shape]
        command += ["--batch", str(rows), "--micro-batch", str(micro_batch), "--seconds", str(seconds), *options]
        command += ["--steps", str(steps)] if steps else []
        found, why = run(command, arguments.limit)
        if found or "out of memory" not in why.lower() or micro_batch == 1 or task != "train":
            return ({**found, "micro_batch": micro_batch} if found else None), why
        micro_batch //= 2


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mdlm", default="target/release/mdlm")
    parser.add_argument("--quick", action="store_true", help="within some minutes: fewer and shorter turns")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each side")
    parser.add_argument("--seconds", type=int, default=15, help="of each turn")
    parser.add_argument("--record", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    begin, budget = time.monotonic(), 1e9
    arguments.limit = 600
    if arguments.quick:
        arguments.rounds, arguments.seconds, arguments.limit, budget = 1, 6, 120, 330
    card, why = run([sys.executable, HERE / "torch_mdlm.py", "--device", "cuda", "--task", "ceilings"], 120)
    if not card:
        sys.exit(f"the card's limits could not be measured: {why}")
    rate = max(card["bf16_tflops"].values())
    print(f"{card['card']}: bf16 products {card['bf16_tflops']} TFLOP/s, copies {card['copy_tb_per_second']} TB/s\n")
    record = {"date": datetime.date.today().isoformat(), "card": card, "tasks": []}
    for task, shape, rows, steps in TASKS:
        if time.monotonic() - begin > budget:
            print(f"{task} {shape}: left out, the time is used up")
            continue
        sides = {"mdlm": mdlm} | {
            name: lambda *rest, options=options: torch(options, *rest) for name, options in PEERS.items()
        }
        if task == "train":
            sides["mdlm, plain products"] = plain_mdlm
        turns = {name: [] for name in sides}
        for _ in range(arguments.rounds):
            for name, side in sides.items():
                found, why = side(arguments, task, shape, rows, steps, arguments.seconds)
                if found:
                    turns[name].append(found)
                else:
                    print(f"{task} {shape}, {name}: {why}", file=sys.stderr)
        entry = {"task": task, "shape": shape, "rows": rows, "steps": steps, "sides": turns}
        record["tasks"].append(entry)
        medians = {
            name: statistics.median(turn["tokens_per_second"] for turn in list_of)
            for name, list_of in turns.items()
            if list_of
        }
        memory = {
            name: max(turn.get("device_memory_bytes", 0) for turn in list_of)
            for name, list_of in turns.items()
            if list_of
        }
        for name, median in medians.items():
            line = f"{task:9}{shape:12}{rows:4} rows  {name:22}{median:12.0f} tokens/s{memory[name] / 2**30:8.1f} GiB"
            if name != "mdlm" and "mdlm" in medians:
                line += f"   mdlm is {medians['mdlm'] / median:.2f} times, memory {memory['mdlm'] / max(memory[name], 1):.2f}"
            if name == "mdlm" and task == "train":
                share = gpu_floor.flops_per_token(shape) * median / 1e12 / rate
                line += f"   {100 * share:.1f}% of the bf16 rate"
                entry["share_of_bf16_rate"] = round(share, 4)
            print(line, flush=True)
        for kernel in turns["mdlm"][0].get("kernels", [])[:14] if turns["mdlm"] else []:
            print(f"    {kernel['what']:36}{kernel['count']:5} times{1000 * kernel['seconds']:9.3f} ms", flush=True)
    if arguments.record:
        arguments.record.parent.mkdir(parents=True, exist_ok=True)
        arguments.record.write_text(json.dumps(record, indent=1) + "\n")


if __name__ == "__main__":
    main()
