"""Runs a manifest that compares models on a real text, and keeps its tables as a dated record.

    cargo build --release
    python tests/bench/objectives.py tests/bench/objectives/wikitext-2.json \\
        --set 'stages.text.input.files=["/data/wiki.train.tokens"]' \\
        --set 'stages.test_text.input.files=["/data/wiki.test.tokens"]' \\
        --record tests/bench/2026-11-29-objectives.json

The record is a list of runs. Each has the digests of the texts, the tables of its `compare` and `table` stages, and the
seconds that each stage took: those of a stage from the store are of the run that made it. With `--partial`, stages may
fail, and with `--no-run` nothing runs: the tables then state why cells are missing. `MDLM_STORE` names a store that
several manifests share.
"""

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent.parent


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("manifest", type=Path)
    parser.add_argument("--mdlm", default=ROOT / "target/release/mdlm", type=Path)
    parser.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="as of `mdlm run`")
    parser.add_argument("--threads", default=os.cpu_count(), type=int)
    parser.add_argument("--partial", action="store_true", help="record what is there although a stage fails")
    parser.add_argument("--no-run", action="store_true", help="record what the store has, and run nothing")
    parser.add_argument("--record", type=Path, help="JSON list to which the run is added")
    arguments = parser.parse_args()
    overrides = [word for assignment in arguments.set for word in ("--set", assignment)]

    def mdlm(command, *words, check=True):
        line = [arguments.mdlm, command, arguments.manifest, *words, *overrides]
        return subprocess.run(line, check=check, stdout=subprocess.PIPE, text=True).stdout

    arguments.partial |= arguments.no_run
    if not arguments.no_run:
        run = [arguments.mdlm, "run", arguments.manifest, "--threads", str(arguments.threads), *overrides]
        subprocess.run(run, check=not arguments.partial)
    stages = json.loads(mdlm("plan", "--json"))["stages"]
    shown = {stage["name"]: mdlm("show", stage["name"], "--json", check=not arguments.partial) for stage in stages}
    shown = {name: json.loads(text) for name, text in shown.items() if text}
    shown = {name: record for name, record in shown.items() if "key" in record}
    compared = [stage["name"] for stage in stages if stage["kind"] == "compare" and stage["name"] in shown]
    tables = {name: json.loads((Path(mdlm("path", name).strip()) / "compare.json").read_text()) for name in compared}
    if any(stage["kind"] == "table" for stage in stages):
        tables |= json.loads(mdlm("table", "--json"))
    entry = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "system": platform.system(),
        "threads": arguments.threads,
        "manifest": str(arguments.manifest.resolve().relative_to(ROOT)),
        "texts": {stage: of["key"]["files"] for stage, of in shown.items() if of["key"]["kind"] == "source"},
        "seconds": {stage: round(of["provenance"]["seconds"], 1) for stage, of in shown.items()},
        "tables": tables,
    }
    if arguments.record:
        entries = json.loads(arguments.record.read_text()) if arguments.record.exists() else []
        arguments.record.write_text(json.dumps([*entries, entry], indent=1) + "\n")


def processor():
    """Model, family and model number: two processors of one name may have different instructions."""
    fields = {}
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().split("\n\n")[0].splitlines()
        fields = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    names = [fields.get("model name") or platform.processor()]
    names += [f"{key} {fields[key]}" for key in ("cpu family", "model") if key in fields]
    return ", ".join(name for name in names if name)


if __name__ == "__main__":
    sys.exit(main())
