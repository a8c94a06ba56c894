"""Bits per byte of a text by the frequencies of tokens alone: what a model has to be better than.

    python tests/bench/frequencies.py "$(mdlm path MANIFEST ROWS)" "$(mdlm path MANIFEST BOUND)" \\
        --measured "$(mdlm path MANIFEST TEST_ROWS)"

ROWS is the pack stage that a model was trained on, and BOUND its evaluation, which states the bytes of a token. All held-out
rows are measured; `--measured` names their pack stage if it is another one. Needs `pyarrow` and `numpy`.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import pyarrow as pa


def tokens(folder, split):
    """The tokens of a split in Arrow files."""
    files = sorted((folder / split).glob("*.arrow"))
    table = pa.concat_tables([pa.ipc.open_file(file).read_all() for file in files])
    return table["input_ids"].combine_chunks().flatten().to_numpy()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("trained", type=Path, metavar="ROWS")
    parser.add_argument("bound", type=Path, metavar="BOUND")
    parser.add_argument("--measured", type=Path, metavar="TEST_ROWS")
    arguments = parser.parse_args()
    evaluation = json.loads((arguments.bound / "evaluation.json").read_text())
    frequencies = np.bincount(tokens(arguments.trained, "train"), minlength=1 << 16) + 1e-9
    log_p = np.log(frequencies / frequencies.sum())
    nats = -log_p[tokens(arguments.measured or arguments.trained, "validation")].mean()
    bits = nats / math.log(2) / evaluation["bytes_per_token"]
    print(f"{nats:.3f} nats per token, {bits:.3f} bits per byte")


main()
