"""Files of `torch.save`, as the peer that the reader and the writer in `src/weights/torch` are compared with.

Needs `torch` and `numpy`; a CPU is enough.

    python tests/peers/torch_files.py golden tests/it/golden/torch
        small files of each kind, and `expected.json` with what is in them
    python tests/peers/torch_files.py check FOLDER
        files of every type, stride and protocol, and `expected.json`
    python tests/peers/torch_files.py load FILE...
        reads files with `torch.load(weights_only=True)`, mapped and not, and prints what is in them

`expected.json` is {FILE: {"uncalled": [GLOBAL], "tensors": {PATH: {"dtype", "dims", "hex"}}}}. A path joins the keys of dicts
and the numbers of lists with `/`; `hex` has the elements in the order of rows, lowest byte first.
"""

import argparse
import json
import pathlib
from collections import OrderedDict

import numpy
import torch

TYPES = [
    torch.float64,
    torch.float32,
    torch.float16,
    torch.bfloat16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.uint8,
    torch.bool,
]


class Settings:
    """A class that no reader knows: what OmegaConf's nodes and tokenizers are in the authors' checkpoints."""

    def __init__(self, **settings):
        self.__dict__.update(settings)


def content(tensor):
    """The elements in the order of rows, lowest byte first."""
    tensor = tensor.detach().contiguous()
    return b"" if tensor.numel() == 0 else tensor.reshape(-1).view(torch.uint8).numpy().tobytes()


def tensors(value, path=()):
    """Paths and tensors of a value."""
    if isinstance(value, torch.Tensor):
        yield "/".join(map(str, path)), value
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from tensors(item, (*path, key))
    elif isinstance(value, (list, tuple)):
        for place, item in enumerate(value):
            yield from tensors(item, (*path, place))


def facts(value, uncalled=()):
    def of(tensor):
        return {
            "dtype": str(tensor.dtype).removeprefix("torch."),
            "dims": list(tensor.shape),
            "hex": content(tensor).hex(),
        }

    return {"uncalled": list(uncalled), "tensors": {path: of(tensor) for path, tensor in tensors(value)}}


def numbers(dtype, *dims):
    """Different values that every type has exactly, negative ones where it has them."""
    count = int(numpy.prod(dims))
    values = torch.arange(count) - (0 if dtype in (torch.uint8, torch.bool) else count // 2)
    return (values % 2 if dtype == torch.bool else values).to(dtype).reshape(dims)


def views(dtype):
    """Tensors of one storage: all that strides and offsets can say."""
    whole = numbers(dtype, 4, 6)
    return {
        "whole": whole,
        "transposed": whole.t(),
        "narrowed": whole[1:3, 2:5],
        "every_second": whole[:, ::2],
        "column": whole[:, 3],
        "element": whole[2, 2],
        "expanded": whole[1:2].expand(3, 6),
        "unfolded": whole.view(-1).unfold(0, 4, 2),
        "permuted": whole.view(2, 2, 6).permute(2, 0, 1),
        "empty": whole[:0],
        "unsqueezed": whole.unsqueeze(1),
    }


def checkpoint():
    """The keys of a Lightning checkpoint as the authors' code writes it."""
    weights = [numbers(torch.float32, 2, 3), numbers(torch.float32, 3)]
    adam = {
        place: {"step": torch.tensor(1000.0), "exp_avg": weight / 4, "exp_avg_sq": weight**2}
        for place, weight in enumerate(weights)
    }
    progress = {"total": {"completed": 1000}, "current": {"completed": 1000}}
    linear = torch.nn.Linear(2, 3)
    linear.weight.data, linear.bias.data = weights[0].t(), weights[1]
    return {
        "epoch": 0,
        "global_step": 1000,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": OrderedDict(linear.state_dict(prefix="backbone.")),
        "loops": {"fit_loop": {"epoch_progress": progress, "epoch_loop.batch_progress": progress}},
        "optimizer_states": [{"state": adam, "param_groups": [{"lr": 3e-4, "betas": (0.9, 0.999), "params": [0, 1]}]}],
        "ema": {"decay": 0.9999, "num_updates": 1000, "shadow_params": [torch.nn.Parameter(w + 1) for w in weights]},
        "sampler": {"random_state": None},
        "hyper_parameters": {"config": Settings(length=1024, dtype=torch.bfloat16), "rate": numpy.float64(0.5)},
    }


def values():
    """Everything else that is read as data."""
    return {
        "bytes": b"\x00\xff",
        "no_bytes": b"",
        "long": 1 << 100,
        "text": "\N{LATIN SMALL LETTER E WITH ACUTE}\N{GRINNING FACE}" * 40,
        "size": torch.Size([2, 3]),
        "device": torch.device("cpu"),
        "frozen": frozenset([1]),
        "float16": numpy.float16(0.5),
        "int32": numpy.int32(-5),
        "bool": numpy.bool_(True),
        "parameter": torch.nn.Parameter(numbers(torch.float32, 3)),
        "again": [numbers(torch.int16, 2)] * 2,
    }


def golden(folder):
    folder.mkdir(parents=True, exist_ok=True)
    types = {str(dtype).removeprefix("torch."): numbers(dtype, 3) for dtype in TYPES}
    files = {
        "types.pt": (types, 2, []),
        "views.pt": (views(torch.float32), 2, []),
        "protocol5.pt": (values(), 5, []),
        "lightning.ckpt": (checkpoint(), 2, ["__main__.Settings"]),
    }
    expected = {}
    for name, (value, protocol, uncalled) in files.items():
        torch.save(value, folder / name, pickle_protocol=protocol)
        expected[name] = facts(value, uncalled)
    torch.save(types["int8"], folder / "legacy.pt", _use_new_zipfile_serialization=False)
    (folder / "expected.json").write_text(json.dumps(expected, indent=1) + "\n")


def check(folder):
    folder.mkdir(parents=True, exist_ok=True)
    expected = {}
    for protocol in range(2, 6):
        for dtype in TYPES:
            name = f"{str(dtype).removeprefix('torch.')}-{protocol}.pt"
            value = {"views": views(dtype), "list": [numbers(dtype), numbers(dtype, 0, 3), numbers(dtype, 70_000)]}
            torch.save(value, folder / name, pickle_protocol=protocol)
            expected[name] = facts(value)
        frozen = ["__builtin__.frozenset"] if protocol < 3 else ["builtins.frozenset"] if protocol < 4 else []
        for name, value, uncalled in [
            (f"values-{protocol}.pt", values(), frozen),
            (f"checkpoint-{protocol}.ckpt", checkpoint(), ["__main__.Settings"]),
        ]:
            torch.save(value, folder / name, pickle_protocol=protocol)
            expected[name] = facts(value, uncalled)
    (folder / "expected.json").write_text(json.dumps(expected) + "\n")


def load(paths):
    for path in paths:
        value = torch.load(path, weights_only=True)
        found = facts(value)
        assert found == facts(torch.load(path, weights_only=True, mmap=True)), path
        print(json.dumps({"file": str(path), "value": repr(value)[:200], **found}))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("command", choices=["golden", "check", "load"])
    parser.add_argument("paths", nargs="+", type=pathlib.Path)
    arguments = parser.parse_args()
    if arguments.command == "load":
        load(arguments.paths)
    else:
        {"golden": golden, "check": check}[arguments.command](*arguments.paths)


if __name__ == "__main__":
    main()
