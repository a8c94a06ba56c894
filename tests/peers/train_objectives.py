"""Trains AR, MDLM, SEDD and D3PM in PyTorch on the rows of a pack stage, measures them on held-out rows, and compares
the figures with those of `mdlm run`: the peer of whole trainings and evaluations. CPU, f32.

Networks are those of `torch_dit.py`, losses those of `torch_objectives.py`. What is new here follows the papers and the
documentation of the settings, with random numbers of its own: initial weights, order of rows, times, masks. So both
sides differ as two seeds of one side do.

    learning rate   of update n = 1, 2, ..., N with warm-up W: peak n / W below W; from then on peak, or with `cosine`
                    peak (1 + cos(pi (n - W) / (N - W))) / 2
    rows            each epoch in a random order, one after the other, cut into batches
    times           place u_i = ((U_i + i) / B) mod 1 of row i of a batch of B; t = e + (1 - e) u with e = 1e-3, or with
                    T steps t = (floor(u T) + 1) / T
    average         a += (1 - d) (w - a) with d = min(ema, (1 + n) / (10 + n)), from the initial weights on; it is what
                    is measured
    initial         uniform on +-1/sqrt(inputs); modulations and output layer zero, norms one

The bound on a row, in nats, with m the probability of being masked: no noise level is left out.

    MDLM, SEDD      reconstruction at t = e, and the mean of the training loss over t in [e, 1] times 1 - e, and
                    alpha(1) times -ln p(x0) of the row that is masked as a whole
    D3PM            mean over T steps of T KL, the chain beginning with the whole row masked, and -ln p(x0 | x0)
    AR              -ln p(x0), exactly

Of D draws, the d-th has its place in the d-th of D equal parts of [0, 1), spread evenly over the rows. All models are
measured under the same draws. Bits per byte are of whole rows: the first token of AR costs nothing.

    M=tests/bench/objectives/wikitext-2.json    # and --set as in tests/bench/objectives.py, the same for each command
    mdlm run $M
    python tests/peers/train_objectives.py --rows $(mdlm path $M rows) --test $(mdlm path $M test_rows) \\
        --settings settings.json --draws 4 --record record.json \\
        --mdlm $(mdlm path $M model@objective=sedd,seed=1) $(mdlm path $M bound@objective=sedd,seed=1) \\
        --mdlm $(mdlm path $M model@objective=sedd,seed=2) $(mdlm path $M bound@objective=sedd,seed=2) ...

`settings.json` is a train stage as a manifest has it (`matrix` of objectives and seeds included), or a list of them.
Each `--mdlm` takes the folders of a training and of its evaluation: mdlm's own figures, and mdlm's weights, which are
measured here too, on the rows of that evaluation. Prints JSON: the figures of the peer's weights ("peer"), of mdlm's
("mdlm"), and of mdlm's weights by the peer's evaluation; the differences of the means over seeds from both, with 95%
intervals of Welch's test. `--record` keeps each figure once it is computed; the same command continues with the missing
ones.

Needs `torch`, `numpy`, `pyarrow` and `safetensors`. `tiny` at 600 steps of 32 rows takes 3 to 12 minutes of one core.
"""

import argparse
import copy
import datetime
import hashlib
import itertools
import json
import math
import platform
import sys
import time
from pathlib import Path

import numpy
import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import torch
from bench import processor
from torch_dit import Dit, Transformer, load
from torch_mdlm import SHAPES
from torch_objectives import Noise, Objective, pick

SMALLEST_TIME = 1e-3
DIMENSIONS = ("vocabulary", "length", "width", "heads", "blocks", "conditioning")
# As a manifest's train stage has them where it does not state them.
DEFAULTS = {
    "batch": 512,
    "learning_rate": 3e-4,
    "warmup_steps": 2500,
    "schedule": "constant",
    "beta1": 0.9,
    "beta2": 0.999,
    "epsilon": 1e-8,
    "weight_decay": 0.0,
    "gradient_clip": 1.0,
    "ema": 0.9999,
    "dropout": 0.1,
    "objective": {"kind": "mdlm"},
    "seed": 1,
}
# What a train stage may state besides; none of it changes the weights.
WITHOUT_EFFECT = {
    "kind",
    "from",
    "micro_batch",
    "checkpoint_every",
    "keep_checkpoints",
    "validation_every",
    "validation_rows",
}
OF_OBJECTIVE = {"kind", "noise", "steps", "time_conditioning", "zero_masking", "carry_over"}
KINDS = ("ar", "mdlm", "sedd", "d3pm")
METRICS = ("nats_per_token", "bits_per_byte")


class Rows:
    """A split of a pack artifact: tokens and validity (R, L), the vocabulary, the mask, and bytes per valid token."""

    def __init__(self, folder, split):
        info = json.loads((folder / "rows.json").read_text())
        self.length, self.vocabulary, self.mask = info["length"], info["vocabulary"], info["special"]["mask"]
        shards = [read_shard(folder / shard, self.length) for shard in info[split]["shards"]]
        if not shards:
            sys.exit(f"{folder} has no rows in its {split} split")
        self.tokens, self.valid = (torch.cat(parts) for parts in zip(*shards))
        self.bytes_per_token = info[split]["kept_bytes"] / info[split]["counted"]

    def take(self, numbers):
        taken = copy.copy(self)
        taken.tokens, taken.valid = self.tokens[numbers], self.valid[numbers]
        return taken


def read_shard(path, length):
    if path.suffix == ".parquet":
        table = pyarrow.parquet.read_table(path)
    else:
        table = pyarrow.ipc.open_file(pyarrow.memory_map(str(path))).read_all()

    def column(name):
        values = table[name].combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return torch.from_numpy(values.astype(numpy.int64).reshape(-1, length))

    tokens = column("input_ids")
    valid = column("loss_mask") > 0 if "loss_mask" in table.column_names else torch.ones_like(tokens, dtype=torch.bool)
    return tokens, valid


def trainings(stages):
    """The settings of each training of train stages, defaults filled in."""
    for stage in stages:
        matrix = stage.get("matrix", {})
        for values in itertools.product(*matrix.values()):
            given = {name: value for name, value in stage.items() if name != "matrix"} | dict(zip(matrix, values))
            unknown = given.keys() - DEFAULTS.keys() - WITHOUT_EFFECT - {"shape", "steps"}
            objective = given.get("objective", DEFAULTS["objective"])
            unknown |= {f"objective.{name}" for name in objective.keys() - OF_OBJECTIVE}
            if unknown or objective["kind"] not in KINDS:
                sys.exit(f"this peer does not implement {', '.join(unknown) or objective['kind']}")
            yield DEFAULTS | {name: value for name, value in given.items() if name not in WITHOUT_EFFECT}


def dimensions(shape):
    return shape if isinstance(shape, dict) else dict(zip(DIMENSIONS, SHAPES[shape]))


def network_of(settings):
    """The network with its initial weights."""
    shape = dimensions(settings["shape"])
    arguments = {name: shape[name] for name in ("vocabulary", "width", "heads", "blocks")}
    if settings["objective"]["kind"] == "ar":
        network = Transformer(**arguments, dropout=settings["dropout"])
    else:
        network = Dit(**arguments, conditioning=shape["conditioning"], dropout=settings["dropout"])
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if "adaLN_modulation" in name or name.startswith("output_layer.linear"):
                parameter.zero_()
            elif name == "vocab_embed.embedding":
                parameter.uniform_(-1, 1).div_(math.sqrt(shape["width"]))
    return network  # nn.Linear's own beginning is the one wanted, and norms are 1.


def learning_rate(update, settings):
    peak, warmup, steps = (settings[name] for name in ("learning_rate", "warmup_steps", "steps"))
    if update < warmup:
        return peak * update / warmup
    if settings["schedule"] == "constant":
        return peak
    return peak * (1 + math.cos(math.pi * (update - warmup) / max(steps - warmup, 1))) / 2


def batches(rows, batch, random):
    """Numbers of the rows of batch after batch, epochs in a random order without end."""
    waiting = torch.empty(0, dtype=torch.int64)
    while True:
        while len(waiting) < batch:
            waiting = torch.cat([waiting, torch.randperm(rows, generator=random)])
        yield waiting[:batch]
        waiting = waiting[batch:]


def masked(objective, x0, chance, random):
    """x_t: each token masked with its row's chance."""
    u = torch.rand(x0.shape, generator=random, dtype=torch.float64)
    return torch.where(u < chance[:, None], objective.mask, x0)


def at_masked(objective, network, x0, xt, t, loss):
    """loss(logits, x0, t) at masked positions and 0 elsewhere, (B, L): logits are of masked positions alone."""
    at = xt == objective.mask
    sigma = objective.noise.sigma(t) if objective.is_conditioned else torch.zeros_like(t)
    logits = network.output_layer.linear(network.hidden(xt, sigma)[at])[..., : objective.vocabulary]
    found = loss(logits, x0[at], t[:, None].expand_as(x0)[at])
    return torch.zeros(x0.shape, dtype=found.dtype).masked_scatter(at, found)


def training_loss(objective, network, x0, valid, random):
    """The loss of a batch in nats per scored token."""
    if objective.kind == "ar":
        loss, _ = objective.losses(network, x0, None, None)
        return (loss * valid).sum() / valid[:, 1:].sum()
    place = torch.rand(len(x0), generator=random, dtype=torch.float64)
    place = ((place + torch.arange(len(x0))) / len(x0)) % 1
    t = time_at(objective, place)
    xt = masked(objective, x0, 1 - objective.noise.alpha(t), random)
    loss = at_masked(objective, network, x0, xt, t, objective.masked_loss)
    if not objective.carry_over:
        loss = loss + objective.reconstruction(network, x0)
    return (loss * valid).sum() / valid.sum()


def time_at(objective, place):
    if objective.steps is None:
        return SMALLEST_TIME + (1 - SMALLEST_TIME) * place
    return ((place * objective.steps).floor() + 1) / objective.steps


def train(settings, rows):
    """The network with the averaged weights."""
    torch.manual_seed(settings["seed"])
    random = torch.Generator().manual_seed(settings["seed"])
    network = network_of(settings)
    average = copy.deepcopy(network)
    objective = Objective(settings["objective"], rows.vocabulary, rows.mask)
    weights, averages = list(network.parameters()), list(average.parameters())
    constants = {"betas": (settings["beta1"], settings["beta2"]), "eps": settings["epsilon"]}
    adam = torch.optim.AdamW(weights, **constants, weight_decay=settings["weight_decay"])
    order = batches(len(rows.tokens), settings["batch"], random)
    recent = []
    network.train()
    for update in range(1, settings["steps"] + 1):
        numbers = next(order)
        loss = training_loss(objective, network, rows.tokens[numbers], rows.valid[numbers], random)
        adam.zero_grad(set_to_none=True)
        loss.backward()
        if settings["gradient_clip"] > 0:
            torch.nn.utils.clip_grad_norm_(weights, settings["gradient_clip"])
        adam.param_groups[0]["lr"] = learning_rate(update, settings)
        adam.step()
        decay = min(settings["ema"], (1 + update) / (10 + update))
        with torch.no_grad():
            torch._foreach_lerp_(averages, weights, 1 - decay)
        recent.append(loss.item())
        if update % 50 == 0 or update == settings["steps"]:
            print(f"step {update}: loss {numpy.mean(recent[-50:]):.4f}", file=sys.stderr)
    return average.eval()


class WholeNoise(Noise):
    """The noise of a chain that begins with all tokens masked."""

    def alpha(self, t):
        return torch.where(t == 1, 0.0, super().alpha(t))


@torch.no_grad()
def evaluate(settings, network, rows, draws, seed=1, micro_batch=64):
    """Nats per scored token, and the standard error that more draws would take away."""
    objective = Objective(settings["objective"], rows.vocabulary, rows.mask)
    if objective.kind == "ar":
        nats = 0.0
        for x0, valid in parts(rows, micro_batch):
            nats += (objective.losses(network, x0, None, None)[0].double() * valid).sum().item()
        return nats / rows.valid[:, 1:].sum().item(), 0.0
    random = torch.Generator().manual_seed(seed)
    count = len(rows.tokens)
    spread = torch.stack([torch.randperm(count, generator=random) for _ in range(draws)], dim=1)
    place = (spread + torch.rand(spread.shape, generator=random, dtype=torch.float64)) / count
    place = (place + torch.arange(draws)) / draws  # (R, D)
    if objective.steps is not None:
        objective.noise = WholeNoise(objective.settings.get("noise"))
    fixed, drawn = [], []
    for (x0, valid), places in zip(parts(rows, micro_batch), place.split(micro_batch)):

        def nats(t, loss, xt=None):
            """Of each row at a time."""
            if xt is None:
                xt = masked(objective, x0, 1 - objective.noise.alpha(t), random)
            return (at_masked(objective, network, x0, xt, t, loss).double() * valid).sum(1)

        def nll(logits, x0, _):
            return -pick(objective.log_p(logits), x0)

        if objective.steps is None:
            first, last = (torch.full((len(x0),), t, dtype=torch.float64) for t in (SMALLEST_TIME, 1.0))
            whole = torch.full_like(x0, objective.mask)
            ends = nats(first, nll) + objective.noise.alpha(last) * nats(last, nll, whole)
            share = 1 - SMALLEST_TIME
        else:
            ends, share = torch.zeros(len(x0), dtype=torch.float64), 1.0
            if not objective.carry_over:
                ends = (objective.reconstruction(network, x0).double() * valid).sum(1)
        values = [share * nats(time_at(objective, u), objective.masked_loss) for u in places.unbind(1)]
        fixed.append(ends)
        drawn.append(torch.stack(values, dim=1))
    fixed, drawn = torch.cat(fixed), torch.cat(drawn)
    scored = rows.valid.sum().item()
    error = (drawn.var(1).sum() / draws).sqrt().item() / scored if draws > 1 else None
    return (fixed + drawn.mean(1)).sum().item() / scored, error


def parts(rows, size):
    return zip(rows.tokens.split(size), rows.valid.split(size))


def figures(objective, nats, rows):
    """In the units of an evaluation."""
    share = rows.valid[:, 1:].sum().item() / rows.valid.sum().item() if objective["kind"] == "ar" else 1
    return {
        "nats_per_token": nats,
        "bits_per_byte": nats * share / math.log(2) / rows.bytes_per_token,
        "perplexity": math.exp(nats),
    }


def name_of(settings):
    return {name: settings[name] for name in ("objective", "steps", "seed")}


def mdlm_figures(folder):
    found = json.loads((folder / "evaluation.json").read_text())
    values = {name: found[name]["value"] for name in ("nats_per_token", "bits_per_byte", "perplexity")}
    return values | {"error_of_draws": found.get("monte_carlo_error") or 0.0}


def mdlm_rows(folders):
    """Numbers of the rows that evaluations have measured, which must be the same in all."""
    tables = [pyarrow.ipc.open_file(str(folder / "losses.arrow")).read_all() for folder in folders]
    lists = {tuple(table["row"].to_pylist()) for table in tables}
    if len(lists) > 1:
        sys.exit("the evaluations of --mdlm have measured different rows")
    return list(lists.pop())


def student_quantile(freedom, probability=0.975):
    """Of Student's t, by integration: t = sqrt(freedom) tan(a), and the density of a is cos(a)^(freedom - 1), but for a
    factor."""
    angle = numpy.linspace(-math.pi / 2, math.pi / 2, 400_001)
    density = numpy.cos(angle).clip(0) ** (freedom - 1)
    below = numpy.concatenate([[0], numpy.cumsum((density[1:] + density[:-1]) / 2)])
    return math.sqrt(freedom) * math.tan(numpy.interp(probability * below[-1], below, angle))


def difference(mdlm, peer, metric, same_draws):
    """Of the means over seeds, with the 95% interval of Welch's test. All seeds of a side are measured under the same
    draws: unless both sides are, their error is no part of the seeds' spread, and widens the interval."""
    sides = [numpy.array([value[metric] for value in side]) for side in (mdlm, peer)]
    errors = [values.var(ddof=1) / len(values) for values in sides]
    freedom = sum(errors) ** 2 / sum(error**2 / (len(values) - 1) for error, values in zip(errors, sides))
    half = student_quantile(freedom) * math.sqrt(sum(errors))
    found = {
        "mdlm": {"mean": sides[0].mean(), "sd": sides[0].std(ddof=1)},
        "peer": {"mean": sides[1].mean(), "sd": sides[1].std(ddof=1)},
        "peer_less_mdlm": sides[1].mean() - sides[0].mean(),
        "half_width": half,
        "degrees_of_freedom": freedom,
    }
    if not same_draws:
        # In the metric's unit: as large a part of it as of the nats.
        draws = [side[0]["error_of_draws"] / side[0]["nats_per_token"] * side[0][metric] for side in (mdlm, peer)]
        found["half_width"] = math.hypot(half, *(1.96 * error for error in draws))
        found["half_width_without_draws"] = half
    return found | {"within": bool(abs(found["peer_less_mdlm"]) <= found["half_width"])}


def differences(values, side, same_draws):
    """Of the peer's figures from those of a side, by objective and steps."""
    groups = {}
    for value in values:
        training = value["training"]
        group = groups.setdefault(f"{training['objective']['kind']}, {training['steps']} steps", {})
        group.setdefault(value["side"], []).append(value)
    return {
        name: {metric: difference(group[side], group["peer"], metric, same_draws) for metric in METRICS}
        for name, group in groups.items()
        if all(len(group.get(name, [])) > 1 for name in (side, "peer"))
    }


class Record:
    """Values as they come; those of an earlier run with the same settings stay."""

    def __init__(self, path, head):
        self.path, self.head, self.values = path, head, []
        if path and path.exists():
            earlier = json.loads(path.read_text())
            if all(earlier[name] == head[name] for name in ("settings", "rows", "draws")):
                self.values = earlier["values"]

    def has(self, side, training):
        return any(value["side"] == side and value["training"] == training for value in self.values)

    def add(self, side, training, figures):
        self.values.append({"side": side, "training": training, **figures})
        if self.path:
            self.path.write_text(self.text())

    def text(self):
        content = {
            **self.head,
            "values": self.values,
            "differences": differences(self.values, "mdlm", same_draws=False),
            "differences_under_the_same_draws": differences(self.values, "mdlm, measured by the peer", same_draws=True),
        }
        return json.dumps(content, indent=1) + "\n"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="folder of the pack stage that is trained on")
    parser.add_argument("--test", type=Path, required=True, help="folder of the pack stage with the held-out rows")
    parser.add_argument("--settings", type=Path, required=True, help="JSON: a train stage, or a list of them")
    parser.add_argument("--draws", type=int, default=4, help="draws a row")
    parser.add_argument("--limit", type=int, help="held-out rows, those of --mdlm or else the first ones")
    parser.add_argument(
        "--mdlm",
        type=Path,
        nargs=2,
        action="append",
        default=[],
        metavar=("TRAINING", "EVALUATION"),
        help="folders of a training by mdlm and of its evaluation",
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--record", type=Path, help="JSON file that keeps the values")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    stages = json.loads(arguments.settings.read_text())
    settings = list(trainings(stages if isinstance(stages, list) else [stages]))
    rows, test = Rows(arguments.rows, "train"), Rows(arguments.test, "validation")
    if arguments.mdlm:
        numbers = mdlm_rows([evaluation for _, evaluation in arguments.mdlm])
    else:
        numbers = list(range(len(test.tokens)))
    test = test.take(torch.tensor(numbers[: arguments.limit]))
    head = {
        "date": datetime.date.today().isoformat(),
        "processor": processor(),
        "torch": torch.__version__,
        "python": platform.python_version(),
        "threads": arguments.threads,
        "settings": stages,
        "rows": {
            "trained": len(rows.tokens),
            "held_out": len(test.tokens),
            "length": rows.length,
            "held_out_sha256": hashlib.sha256(test.tokens.numpy()).hexdigest(),
        },
        "bytes_per_token": test.bytes_per_token,
        "draws": arguments.draws,
    }
    record = Record(arguments.record, head)

    def measured(one, network):
        start = time.perf_counter()
        nats, error = evaluate(one, network, test, arguments.draws)
        found = figures(one["objective"], nats, test)
        return found | {"error_of_draws": error, "seconds_of_evaluation": round(time.perf_counter() - start, 1)}

    for training, evaluation in arguments.mdlm:
        info = json.loads((training / "model.json").read_text())
        wanted = (info["objective"]["kind"], info["steps"], info["seed"])
        one = next((one for one in settings if (one["objective"]["kind"], one["steps"], one["seed"]) == wanted), None)
        if one is None:
            sys.exit(f"{training} is of a training that the settings do not have: objective, steps, seed {wanted}")
        name = name_of(one)
        if not record.has("mdlm", name):
            record.add("mdlm", name, mdlm_figures(evaluation))
        if not record.has("mdlm, measured by the peer", name):
            network = load(training / "ema.safetensors", dimensions(one["shape"])["heads"], "float32").eval()
            record.add("mdlm, measured by the peer", name, measured(one, network))
    for one in settings:
        name = name_of(one)
        if record.has("peer", name):
            continue
        print(f"training {name}", file=sys.stderr)
        start = time.perf_counter()
        network = train(one, rows)
        seconds = round(time.perf_counter() - start, 1)
        record.add("peer", name, measured(one, network) | {"seconds": seconds})
    print(record.text(), end="")


if __name__ == "__main__":
    main()
