"""Seeds of the fuzz targets `torch` and `checkpoint`: small checkpoints in the layouts that are read, of PyTorch's files the
pickles without the archives around them. Needs `torch`; a CPU is enough.

    python tests/fuzz/seeds/checkpoints.py tests/fuzz/seeds
"""

import json
import sys
import tempfile
import zipfile
from collections import OrderedDict
from pathlib import Path

import torch

V, D, C, TIME = 5, 4, 2, 256


def network(dtype=torch.float32):
    """The tensors of a DiT with one block, in the authors' order."""
    dims = {
        "vocab_embed.embedding": (V, D),
        "sigma_map.mlp.0.weight": (C, TIME), "sigma_map.mlp.0.bias": (C,),
        "sigma_map.mlp.2.weight": (C, C), "sigma_map.mlp.2.bias": (C,),
        "blocks.0.norm1.weight": (D,), "blocks.0.attn_qkv.weight": (3 * D, D), "blocks.0.attn_out.weight": (D, D),
        "blocks.0.norm2.weight": (D,), "blocks.0.mlp.0.weight": (4 * D, D), "blocks.0.mlp.0.bias": (4 * D,),
        "blocks.0.mlp.2.weight": (D, 4 * D), "blocks.0.mlp.2.bias": (D,),
        "blocks.0.adaLN_modulation.weight": (6 * D, C), "blocks.0.adaLN_modulation.bias": (6 * D,),
        "output_layer.norm_final.weight": (D,), "output_layer.linear.weight": (V, D), "output_layer.linear.bias": (V,),
        "output_layer.adaLN_modulation.weight": (2 * D, C), "output_layer.adaLN_modulation.bias": (2 * D,),
    }  # fmt: skip
    return OrderedDict((f"backbone.{name}", torch.zeros(size, dtype=dtype)) for name, size in dims.items())


def lightning():
    state = network()
    moments = {
        place: {"step": torch.zeros(()), "exp_avg": torch.zeros_like(tensor), "exp_avg_sq": torch.zeros_like(tensor)}
        for place, tensor in enumerate(state.values())
    }
    group = {"lr": 1e-4, "initial_lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False}
    schedule = {"T_max": 9, "eta_min": 0.0, "base_lrs": [3e-4], "last_epoch": 0, "_last_lr": [1e-4]}
    model = {"hidden_size": D, "cond_dim": C, "length": 8, "n_blocks": 1, "n_heads": 2, "dropout": 0.1}
    return {
        "epoch": 0,
        "global_step": 0,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": state,
        "loops": {"fit_loop": {"epoch_progress": {"current": {"completed": 0}}}},
        "optimizer_states": [{"state": moments, "param_groups": [{**group, "params": list(moments)}]}],
        "lr_schedulers": [schedule],
        "ema": {"decay": 0.9999, "num_updates": 0, "shadow_params": list(network().values())},
        "hyper_parameters": {
            "config": {"parameterization": "subs", "backbone": "dit", "T": 0, "model": model, "noise": {"type": "loglinear"}}
        },
    }


def without_dots():
    average = {f"model_ema.{name.replace('.', '')}": tensor for name, tensor in network().items()}
    counters = {"model_ema.decay": torch.tensor(0.9), "model_ema.num_updates": torch.tensor(3, dtype=torch.int32)}
    return {"state_dict": OrderedDict(network() | average | counters)}


def main():
    folder = Path(sys.argv[1])
    halves = {name.removeprefix("backbone."): tensor for name, tensor in network(torch.bfloat16).items()}
    for name, value, protocol in [
        ("lightning", lightning(), 2),
        ("without_dots", without_dots(), 2),
        ("state", {"model": halves, "model_ema": halves}, 4),
    ]:
        with tempfile.NamedTemporaryFile() as file:
            torch.save(value, file.name, pickle_protocol=protocol)
            archive = zipfile.ZipFile(file.name)
            record = next(record for record in archive.namelist() if record.endswith("/data.pkl"))
            (folder / f"{name}.pkl").write_bytes(archive.read(record))
    header, at = {}, 0
    for name, tensor in network().items():
        end = at + 2 * tensor.numel()
        header[name] = {"dtype": "BF16", "shape": list(tensor.shape), "data_offsets": [at, end]}
        at = end
    header = json.dumps(header).encode()
    (folder / "state.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(at))


main()
