"""Checkpoints as others write and read them: the authors' layouts with random weights, and `transformers` as the reader of
what mdlm exports.

Needs `torch`, `numpy`, `safetensors`, `transformers` and, for `tokenizer`, `tokenizers`; a CPU is enough. Nothing is
downloaded. A command that finds a fault prints it and ends with status 1.

    python tests/peers/hub.py random DIR --shape nano --form hf sharded bin ckpt    # one folder or file a form
    python tests/peers/hub.py logits DIR X.safetensors Y.safetensors                # the same input as `mdlm logits`
    python tests/peers/hub.py compare Y.safetensors OURS.safetensors --tolerance 2e-4
    python tests/peers/hub.py load FILE                                             # JSON: digests of all tensors
    python tests/peers/hub.py resave DIR OTHER
    python tests/peers/hub.py tokenizer DIR TEXT
    python tests/peers/hub.py exported CASES.json --tolerance 2e-4    # what `cargo test export_` runs
    python tests/peers/hub.py resume FILE                             # a Lightning checkpoint, taken by AdamW
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import os
import shutil
import sys
import tempfile
from pathlib import Path

# Neither a network nor the code of an earlier folder with the same name.
MODULES = tempfile.TemporaryDirectory()
os.environ["HF_HUB_OFFLINE"], os.environ["HF_MODULES_CACHE"] = "1", MODULES.name

import numpy
import torch
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from safetensors.torch import save_file as save_tensors
from torch_dit import ROTARY_BASE, Dit, Transformer
from torch_mdlm import SHAPES

MODELING = Path(__file__).parents[2] / "src/export/modeling_mdlm.py"
FORMS = ("hf", "sharded", "bin", "sharded-bin", "ckpt")
DTYPES = {name: getattr(torch, name) for name in ("float32", "float16", "bfloat16", "float64")}
STEPS, BATCHES, LEARNING_RATE = 1000, 250, 3e-4
INV_FREQ = "backbone.rotary_emb.inv_freq"


# Writing


def network(arguments):
    """Weights of order one over the square root of the inputs, nothing zero, so that every part of the network counts."""
    vocabulary, _, width, heads, blocks, conditioning = SHAPES[arguments.shape]
    if arguments.backbone == "dit":
        model = Dit(vocabulary, width, heads, blocks, conditioning)
    else:
        model = Transformer(vocabulary, width, heads, blocks)
    random = torch.Generator().manual_seed(arguments.seed)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            u = 2 * torch.rand(weight.shape, generator=random) - 1
            if "norm" in name:
                weight.copy_(1 + 0.3 * u)
            elif weight.ndim == 1:
                weight.copy_(0.3 * u)
            else:
                weight.copy_(u if name == "vocab_embed.embedding" else u * math.sqrt(3 / weight.shape[1]))
    return model


def state(model, arguments):
    """The tensors in the order of the authors' files, the rotary buffer with them."""
    half = SHAPES[arguments.shape][2] // SHAPES[arguments.shape][3] // 2
    tensors = {}
    for name, weight in model.named_parameters():
        if name == "blocks.0.norm1.weight":
            tensors[INV_FREQ] = 1.0 / ROTARY_BASE ** (torch.arange(0, 2 * half, 2).float() / (2 * half))
        tensors[f"backbone.{name}"] = weight.detach().to(DTYPES[arguments.dtype])
    return tensors


def config(arguments):
    vocabulary, length, width, heads, blocks, conditioning = SHAPES[arguments.shape]
    objective = json.loads(arguments.objective) if arguments.objective else None
    if objective is None:
        kind = "mdlm" if arguments.backbone == "dit" else "ar"
        objective = {"kind": kind, "time_conditioning": True} if arguments.time_conditioning else {"kind": kind}
    return {
        "architectures": ["MDLM"],
        "auto_map": {
            "AutoConfig": "modeling_mdlm.MDLMConfig",
            "AutoModel": "modeling_mdlm.MDLM",
            "AutoModelForMaskedLM": "modeling_mdlm.MDLM",
        },
        "model_type": "mdlm",
        "dtype": arguments.dtype,
        "return_dict": True,
        "tie_word_embeddings": False,
        "vocab_size": vocabulary,
        "model_length": length,
        "hidden_dim": width,
        "cond_dim": conditioning,
        "n_blocks": blocks,
        "n_heads": heads,
        "dropout": 0.1,
        "time_conditioning": arguments.time_conditioning,
        "backbone": arguments.backbone,
        "objective": objective,
        "tokenizer_vocab_size": vocabulary,
        "mask_token_id": vocabulary - 1,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
    }


def lightning(model, arguments):
    """A checkpoint of PyTorch Lightning as the authors' trainer writes it, after `STEPS` updates of AdamW."""
    random = torch.Generator().manual_seed(arguments.seed + 1)
    parameters = list(model.parameters())
    like = lambda weight: torch.randn(weight.shape, generator=random)
    shadow = [weight.detach() + 0.01 * like(weight) for weight in parameters]
    moments = {
        i: {"step": torch.tensor(float(STEPS)), "exp_avg": 1e-3 * like(weight), "exp_avg_sq": 1e-6 * like(weight) ** 2}
        for i, weight in enumerate(parameters)
    }
    group = {
        "lr": LEARNING_RATE, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0, "amsgrad": False, "foreach": None,
        "maximize": False, "capturable": False, "differentiable": False, "fused": None, "initial_lr": LEARNING_RATE,
        "params": list(range(len(parameters))),
    }  # fmt: skip
    counted = lambda count, *names: {name: count for name in ("ready", "completed", *names)}
    progress = lambda total, current, *names: {"total": counted(total, *names), "current": counted(current, *names)}
    batches = {**progress(STEPS, BATCHES, "started", "processed"), "is_last_batch": False}
    steps = lambda key: {key: progress(STEPS, BATCHES)}
    loops = {
        "fit_loop": {
            "state_dict": {},
            "epoch_loop.state_dict": {"_batches_that_stepped": STEPS},
            "epoch_loop.batch_progress": batches,
            "epoch_loop.scheduler_progress": progress(STEPS, BATCHES),
            "epoch_loop.automatic_optimization.state_dict": {},
            "epoch_loop.automatic_optimization.optim_progress": {
                "optimizer": {**steps("step"), "zero_grad": progress(STEPS, BATCHES, "started")}
            },
            "epoch_loop.manual_optimization.state_dict": {},
            "epoch_loop.manual_optimization.optim_step_progress": progress(0, 0),
            "epoch_progress": progress(STEPS // BATCHES, STEPS // BATCHES - 1, "started", "processed"),
        }
    }
    whole = {
        "epoch": STEPS // BATCHES - 1,
        "global_step": STEPS,
        "pytorch-lightning_version": "2.2.1",
        "state_dict": state(model, arguments),
        "loops": loops,
        "callbacks": {},
        "optimizer_states": [{"state": moments, "param_groups": [group]}],
        "lr_schedulers": [{"base_lrs": [LEARNING_RATE], "last_epoch": STEPS, "_last_lr": [LEARNING_RATE]}],
        "ema": {"decay": 0.9999, "num_updates": STEPS, "shadow_params": shadow},
        "sampler": {"random_state": None},
    }
    if arguments.hyper_parameters:
        whole["hparams_name"] = "kwargs"
        whole["hyper_parameters"] = {"config": config(arguments), "tokenizer": None}
    return whole


def write_sharded(folder, tensors, stem, ending, write):
    """Two shards and the index that says which has a tensor."""
    names = list(tensors)
    half = len(names) // 2
    shards = {
        f"{stem}-{i + 1:05}-of-00002.{ending}": part for i, part in enumerate((names[:half], names[half:]))
    }
    for file, part in shards.items():
        write({name: tensors[name] for name in part}, folder / file)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {
        "metadata": {"total_size": size},
        "weight_map": {name: file for file, part in shards.items() for name in part},
    }
    (folder / f"{stem}.{ending}.index.json").write_text(json.dumps(index, indent=2) + "\n")


def random(arguments):
    model, root = network(arguments), Path(arguments.folder)
    tensors = state(model, arguments)
    in_safetensors = lambda tensors, path: save_tensors(tensors, path, metadata={"format": "pt"})
    for form in arguments.form:
        folder = root if len(arguments.form) == 1 else root / form
        folder.mkdir(parents=True, exist_ok=True)
        if form == "ckpt":
            torch.save(lightning(model, arguments), folder / "last.ckpt")
            continue
        if form == "hf":
            in_safetensors(tensors, folder / "model.safetensors")
        elif form == "bin":
            torch.save(tensors, folder / "pytorch_model.bin")
        elif form == "sharded":
            write_sharded(folder, tensors, "model", "safetensors", in_safetensors)
        else:
            write_sharded(folder, tensors, "pytorch_model", "bin", torch.save)
        (folder / "config.json").write_text(json.dumps(config(arguments), indent=2) + "\n")
        shutil.copy(MODELING, folder)


# Reading


def pretrained(folder, dtype="auto"):
    """The model, with every tensor of the file in its place."""
    from transformers import AutoModelForMaskedLM

    model, info = AutoModelForMaskedLM.from_pretrained(
        folder, trust_remote_code=True, dtype=dtype, output_loading_info=True
    )
    faults = {name: sorted(map(str, found)) for name, found in info.items() if found}
    if faults:
        sys.exit(f"{folder}: {json.dumps(faults)}")
    return model


def computed(model, path):
    """The model's logits of the rows in a file."""
    inputs = load_file(path)
    # An autoregressive model has clean tokens.
    xt = torch.from_numpy(inputs["xt" if "xt" in inputs else "x0"].astype(numpy.int64))
    sigma = inputs.get("sigma")
    if "t" in inputs:
        sigma = [-math.log(model.alpha(t)) for t in inputs["t"].astype(float).tolist()]
    sigma = torch.zeros(len(xt)) if sigma is None else torch.as_tensor(sigma, dtype=torch.float32)
    with torch.no_grad():
        rows = [model(xt[i : i + 1], timesteps=sigma[i : i + 1]).logits for i in range(len(xt))]
    return torch.cat(rows).float().numpy()


def logits(arguments):
    dtype = DTYPES.get(arguments.dtype, arguments.dtype)
    save_file({"logits": computed(pretrained(arguments.folder, dtype), arguments.input)}, arguments.output)


def compare(arguments):
    a, b = (load_file(path)["logits"] for path in (arguments.first, arguments.second))
    if a.shape != b.shape:
        sys.exit(f"{arguments.first} has logits {a.shape}, {arguments.second} {b.shape}")
    difference = numpy.abs(a - b)
    print(f"{a.size} logits, standard deviation {a.std():.4g}, largest {numpy.abs(a).max():.4g}")
    print(f"largest difference {difference.max():.3g}, mean {difference.mean():.3g}")
    print(f"same argmax at {(a.argmax(-1) == b.argmax(-1)).mean():.4%} of the positions")
    # NaN compares false.
    if not difference.max() <= arguments.tolerance:
        sys.exit(f"the largest difference is above {arguments.tolerance:g}")


def described(tensor):
    raw = tensor.contiguous().flatten().view(torch.uint8).numpy() if tensor.numel() else b""
    return {
        "dtype": str(tensor.dtype).removeprefix("torch."),
        "shape": list(tensor.shape),
        "sha256": hashlib.sha256(raw).hexdigest(),
    }


def summary(value):
    """The same value with tensors described: dictionaries and lists stay, other objects become text."""
    if isinstance(value, torch.Tensor):
        return described(value)
    if isinstance(value, dict):
        return {str(key): summary(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [summary(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else repr(value)


def read(path):
    """What a file has, read without executing anything of it."""
    if path.suffix == ".safetensors":
        with safe_open(path, "pt") as file:
            return {
                "metadata": file.metadata(),
                "state_dict": {name: file.get_tensor(name) for name in file.keys()},
            }
    whole = torch.load(path, map_location="cpu", weights_only=True)
    return whole if "state_dict" in whole else {"state_dict": whole}


def load(arguments):
    whole = summary(read(Path(arguments.file)))
    whole["tensors"] = len(whole["state_dict"])
    print(json.dumps(whole, indent=2))


def resave(arguments):
    """Loads and saves a folder: the tensors and the settings are the same."""
    from transformers import AutoConfig

    model = pretrained(arguments.folder)
    model.save_pretrained(arguments.other)
    again = pretrained(arguments.other)
    a, b = (summary(dict(model.state_dict())) for model in (model, again))
    of_file = [
        summary(read(Path(folder) / "model.safetensors")["state_dict"]) for folder in (arguments.folder, arguments.other)
    ]
    if a != b or of_file[0] != of_file[1]:
        sys.exit("the tensors differ")
    ours, theirs = (
        AutoConfig.from_pretrained(folder, trust_remote_code=True).to_dict()
        for folder in (arguments.folder, arguments.other)
    )
    leave_out = {"_name_or_path", "transformers_version"}
    differing = {
        key: (ours.get(key), theirs.get(key))
        for key in sorted((ours.keys() | theirs.keys()) - leave_out)
        if str(ours.get(key)).split("--")[-1] != str(theirs.get(key)).split("--")[-1]
    }
    print(f"{len(b)} tensors are equal; settings that differ: {differing}")


def tokenized(folder, text):
    """`AutoTokenizer` gives the ids of `tokenizer.json`, and the special tokens those of `config.json`. Lines, tokens, class."""
    from tokenizers import Tokenizer
    from transformers import AutoTokenizer

    folder = Path(folder)
    settings = json.loads((folder / "config.json").read_text())
    kept = Tokenizer.from_file(str(folder / "tokenizer.json"))
    # `transformers` reads config.json first, and would ask at a terminal whether to run the modelling file.
    auto = AutoTokenizer.from_pretrained(folder, trust_remote_code=True)
    for role in ("mask", "bos", "eos", "pad"):
        found, expected = getattr(auto, f"{role}_token_id"), settings[f"{role}_token_id"]
        if found != expected:
            sys.exit(f"{role}: `AutoTokenizer` has id {found}, `config.json` {expected}")
    if len(auto) != settings["tokenizer_vocab_size"]:
        sys.exit(f"`AutoTokenizer` has {len(auto)} tokens, `config.json` {settings['tokenizer_vocab_size']}")
    tokens = 0
    for number, line in enumerate(Path(text).read_text(encoding="utf-8").split("\n"), 1):
        found = auto(line, add_special_tokens=False)["input_ids"]
        expected = kept.encode(line, add_special_tokens=False).ids
        if found != expected:
            at = next((i for i, pair in enumerate(zip(found, expected)) if pair[0] != pair[1]), None)
            sys.exit(f"line {number}: `AutoTokenizer` and `tokenizer.json` differ at token {at}")
        if auto.decode(found) != kept.decode(expected, skip_special_tokens=False):
            sys.exit(f"line {number}: `AutoTokenizer` decodes otherwise than `tokenizer.json`")
        tokens += len(found)
    middle = auto("a" + auto.mask_token, add_special_tokens=False)["input_ids"]
    if settings["mask_token_id"] not in middle:
        sys.exit(f"`{auto.mask_token}` in a text gives {middle}, without the mask")
    return number, tokens, type(auto).__name__


def tokenizer(arguments):
    lines, tokens, kind = tokenized(arguments.folder, arguments.text)
    print(f"{lines} lines, {tokens} tokens: the same ids; class {kind}")


def trained(folder, path):
    """The loss of the rows in a file with `labels`: the mean of -log p over what is predicted, which has a finite gradient and
    reaches the embedding."""
    model = pretrained(folder)
    inputs, config = load_file(path), model.config
    x0 = torch.from_numpy(inputs["xt" if "xt" in inputs else "x0"].astype(numpy.int64))
    # Tokens of its vocabulary, the mask not among them.
    x0 %= config.tokenizer_vocab_size
    x0[x0 == config.mask_token_id] = config.eos_token_id
    is_dit = config.backbone == "dit"
    xt = x0.clone()
    if is_dit:
        xt[:, ::3] = config.mask_token_id
    labels = x0.clone()
    labels[:, :6] = -100
    sigma = torch.ones(len(x0))
    found = model(xt, timesteps=sigma, labels=labels)
    logits = model(xt, timesteps=sigma).logits.detach().double()
    logits[..., config.mask_token_id] = -torch.inf
    logits[..., config.tokenizer_vocab_size :] = -torch.inf
    log_p = logits.log_softmax(-1)
    nll = [
        -log_p[row, at if is_dit else at - 1, x0[row, at]]
        for row in range(len(x0))
        for at in range(6, x0.shape[1])
        if not is_dit or at % 3 == 0
    ]
    expected = torch.stack(nll).mean()
    # NaN compares false.
    if not abs(found.loss.double() - expected) <= 1e-4 * expected < torch.inf:
        sys.exit(f"{folder}: the loss is {found.loss:g}, expected {expected:g}")
    if model(xt, timesteps=sigma, labels=labels, return_dict=False)[0] != found.loss:
        sys.exit(f"{folder}: `return_dict=False` has another loss")
    found.loss.backward()
    embedding = model.get_input_embeddings().weight
    if embedding.shape != (config.vocab_size, config.hidden_dim) or not embedding.grad.isfinite().all():
        sys.exit(f"{folder}: the embedding is {tuple(embedding.shape)}, or its gradient is not finite")
    if model.get_output_embeddings().weight.shape != embedding.shape:
        sys.exit(f"{folder}: the output layer has another shape than the embedding")
    return found.loss.item()


def exported(arguments):
    """Each case is {folder, input, logits, text}: the folder's logits are those of mdlm in a file, its tokenizer encodes the
    text as its `tokenizer.json` does, `labels` give a loss, and the example of its card runs."""
    answers = []
    for case in json.loads(Path(arguments.cases).read_text()):
        folder = case["folder"]
        ours, theirs = load_file(case["logits"])["logits"], computed(pretrained(folder), case["input"])
        difference = float(numpy.abs(ours - theirs).max())
        # NaN compares false.
        if ours.shape != theirs.shape or not difference <= arguments.tolerance:
            sys.exit(f"{folder}: logits differ by {difference:g}, above {arguments.tolerance:g}")
        _, tokens, kind = tokenized(folder, case["text"])
        example = (Path(folder) / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]
        names, here = {}, os.getcwd()
        os.chdir(folder)
        with contextlib.redirect_stdout(io.StringIO()):
            exec(compile(example, f"{folder}/README.md", "exec"), names)
        os.chdir(here)
        if names["logits"].shape != (1, *theirs.shape[1:]) or not names["logits"].isfinite().all():
            sys.exit(f"{folder}: the example of the card has logits {names['logits'].shape}")
        largest = float(numpy.abs(ours).max())
        answers.append(
            {
                "folder": folder,
                "difference": difference,
                "largest": largest,
                "tokens": tokens,
                "tokenizer": kind,
                "loss": trained(folder, case["input"]),
            }
        )
    print(json.dumps(answers, indent=2))


def resume(arguments):
    """Restores what Lightning restores, except for its loops: weights by name, AdamW's state, the scheduler's."""
    whole = read(Path(arguments.file))
    buffers = {INV_FREQ}
    parameters = [
        torch.nn.Parameter(tensor.clone()) for name, tensor in whole["state_dict"].items() if name not in buffers
    ]
    optimizer = torch.optim.AdamW(parameters, lr=1.0)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    optimizer.load_state_dict(whole["optimizer_states"][0])
    scheduler.load_state_dict(whole["lr_schedulers"][0])
    answer = summary(whole)
    answer["adamw"] = summary(optimizer.state_dict())
    answer["steps"] = [float(state["step"]) for state in optimizer.state_dict()["state"].values()]
    for weight in parameters:
        weight.grad = torch.zeros_like(weight)
    optimizer.step()
    scheduler.step()
    if any(not weight.isfinite().all() for weight in parameters):
        sys.exit("a further step of AdamW gives weights that are not finite")
    answer["learning_rate"] = scheduler.get_last_lr()[0]
    print(json.dumps(answer))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("random")
    command.add_argument("folder")
    command.add_argument("--shape", choices=SHAPES, default="nano")
    command.add_argument("--form", choices=FORMS, nargs="+", default=["hf"])
    command.add_argument("--backbone", choices=("dit", "transformer"), default="dit")
    command.add_argument("--time-conditioning", action="store_true")
    command.add_argument("--objective", help="JSON as in a manifest")
    command.add_argument("--dtype", choices=DTYPES, default="float32")
    command.add_argument("--hyper-parameters", action="store_true", help="with settings as a plain dictionary")
    command.add_argument("--seed", type=int, default=1)
    command = commands.add_parser("logits")
    for name in ("folder", "input", "output"):
        command.add_argument(name)
    command.add_argument("--dtype", choices=("auto", *DTYPES), default="auto")
    command = commands.add_parser("compare")
    command.add_argument("first")
    command.add_argument("second")
    command.add_argument("--tolerance", type=float, default=2e-4)
    command = commands.add_parser("load")
    command.add_argument("file")
    command = commands.add_parser("exported")
    command.add_argument("cases")
    command.add_argument("--tolerance", type=float, default=2e-4)
    command = commands.add_parser("resume")
    command.add_argument("file")
    for name, last in (("resave", "other"), ("tokenizer", "text")):
        command = commands.add_parser(name)
        command.add_argument("folder")
        command.add_argument(last)
    arguments = parser.parse_args()
    run = {
        "random": random, "logits": logits, "compare": compare, "load": load, "resave": resave, "tokenizer": tokenizer,
        "exported": exported, "resume": resume,
    }  # fmt: skip
    run[arguments.command](arguments)


if __name__ == "__main__":
    main()
