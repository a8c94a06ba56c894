"""The objectives' losses in PyTorch: the peer that `mdlm logits --objective` and the gradients of training are compared with.

Written from the papers' equations, with distributions over x_s as vectors where our code has a formula of three numbers, so
that an error would have to be made twice. Notation of arXiv 2406.07524: alpha(t) is the probability that a token is kept,
sigma = -ln alpha, m the mask, V the vocabulary with the mask, T the steps, s = t - 1/T.

    mdlm    sigma'(t) / (e^sigma - 1) * -ln p(x0) at masked positions, p without the mask (eq. 10)
    mdlm with `steps`, d3pm
            T * KL(q(x_s | x_t, x_0) || q(x_s | x_t, p)) at masked positions (eq. 39, 41, 43); p without the mask if
            `zero_masking`; without `carry_over`, at all positions, -ln p(x0) of the network that sees x_0 at t = 0
    sedd    sigma'(t) * (sum_(y != m) e^(s_y) - r s_(x0) + r (ln r - 1)) at masked positions, r = 1 / (e^sigma - 1) and
            s = logits - ln(e^sigma - 1) - ln(V - 1) (arXiv 2310.16834; s of the MDLM authors' code)
    ar      -ln p(x0[l] | x0[..l]), p without the mask
    mlm     -ln p(x0) where x_t differs from x_0, p without the mask (arXiv 1810.04805)

Needs `torch`, `numpy` and `safetensors`; a CPU is enough.

    python tests/peers/torch_objectives.py losses --objective '{"kind": "sedd"}' --heads 12 --checkpoint W.safetensors \\
        --input X.safetensors --output Y.safetensors        # the same files as `mdlm logits --objective`
    python tests/peers/torch_objectives.py golden tests/it/golden/objectives.safetensors
"""

import argparse
import json
import math

import numpy
import torch
from safetensors.numpy import load_file, save_file
from torch_dit import Dit, Transformer, formula, load, uniform

DEFAULT_D3PM_STEPS = 1000


class Noise:
    """alpha(t) and sigma'(t) of a schedule, t (B)."""

    def __init__(self, settings):
        settings = {"kind": "log_linear", **(settings or {})}
        self.kind = settings["kind"]
        self.epsilon = settings.get("epsilon", 1e-3)
        self.range = settings.get("sigma_min"), settings.get("sigma_max")

    def sigma(self, t):
        if self.kind == "log_linear":
            return -torch.log1p(-(1 - self.epsilon) * t)
        low, high = self.range
        if self.kind == "geometric":
            return low ** (1 - t) * high**t
        if self.kind == "linear":
            return low + t * (high - low)
        power = {"cosine": 1, "cosine_squared": 2}[self.kind]
        return -torch.log(self.epsilon + (1 - self.epsilon) * torch.cos(math.pi / 2 * t) ** power)

    def rate(self, t):
        """sigma'(t), by differentiation."""
        with torch.enable_grad():
            t = t.detach().requires_grad_()
            return torch.autograd.grad(self.sigma(t).sum(), t)[0]

    def alpha(self, t):
        """alpha(0) = 1: the chain ends with clean text."""
        return torch.where(t == 0, 1.0, torch.exp(-self.sigma(t)))


class Objective:
    def __init__(self, settings, vocabulary, mask):
        self.settings, self.kind = settings, settings["kind"]
        self.vocabulary, self.mask = vocabulary, mask
        self.noise = Noise(settings.get("noise"))
        self.steps = settings.get("steps", DEFAULT_D3PM_STEPS if self.kind == "d3pm" else None)
        self.is_conditioned = settings.get("time_conditioning", self.kind in ("sedd", "d3pm"))
        of_mdlm = self.kind == "mdlm"
        self.zero_masking = settings.get("zero_masking", True) if of_mdlm else self.kind != "d3pm"
        self.carry_over = settings.get("carry_over", True) if of_mdlm else self.kind != "d3pm"

    def logits(self, network, tokens, t):
        """Logits over the vocabulary, those of the shape's further tokens left out."""
        sigma = self.noise.sigma(t) if self.is_conditioned else torch.zeros_like(t)
        return network(tokens, sigma)[..., : self.vocabulary]

    def log_p(self, logits, zero_masking=True):
        if zero_masking:
            logits = logits.index_fill(-1, torch.tensor([self.mask]), -torch.inf)
        return logits.log_softmax(-1)

    def losses(self, network, x0, xt, t):
        """The loss of each position, (B, L), in nats; the logits."""
        if self.kind == "ar":
            logits = network(x0)[..., : self.vocabulary]
            nll = -pick(self.log_p(logits)[:, :-1], x0[:, 1:])
            return torch.cat([torch.zeros_like(nll[:, :1]), nll], dim=1), logits
        if self.kind == "mlm":
            logits = network(xt, torch.zeros(len(xt), dtype=torch.get_default_dtype()))[..., : self.vocabulary]
            return torch.where(xt != x0, -pick(self.log_p(logits), x0), 0.0), logits
        logits = self.logits(network, xt, t)
        loss = self.masked_loss(logits, x0, t[:, None].expand_as(x0))
        loss = torch.where(xt == self.mask, loss, 0.0)
        if not self.carry_over:
            loss = loss + self.reconstruction(network, x0)
        return loss, logits

    def masked_loss(self, logits, x0, t):
        """The loss of masked positions of any shape (...), in nats, given logits (..., V), true tokens and times."""
        if self.kind == "sedd":
            return self.score_entropy(logits, x0, t)
        if self.steps is None:
            return -pick(self.log_p(logits), x0) * (self.noise.rate(t) / torch.expm1(self.noise.sigma(t)))
        return self.steps * self.divergence(self.log_p(logits, self.zero_masking).exp(), x0, t)

    def reconstruction(self, network, x0):
        """-ln p(x0) of the network that sees x0 at t = 0, (B, L)."""
        clean = self.logits(network, x0, torch.zeros(len(x0), dtype=torch.get_default_dtype()))
        return -pick(self.log_p(clean, self.zero_masking), x0)

    def score_entropy(self, logits, x0, t):
        sigma = self.noise.sigma(t)
        r = 1 / torch.expm1(sigma)
        log_score = logits - torch.log(torch.expm1(sigma)).to(logits)[..., None] - math.log(self.vocabulary - 1)
        others = torch.arange(self.vocabulary) != self.mask
        entropy = log_score[..., others].exp().sum(-1) - r * pick(log_score, x0) + r * (torch.log(r) - 1)
        return self.noise.rate(t) * entropy

    def reverse(self, p, t):
        """q(x_s | x_t = m, p(x_0)) = q(x_t = m | x_s) * sum_(x_0) q(x_s | x_0) p(x_0) / q(x_t = m | p), over all x_s."""
        s = torch.round(t * self.steps - 1) / self.steps
        alpha_t, alpha_s = (self.noise.alpha(time)[..., None] for time in (t, s))
        is_mask = torch.arange(self.vocabulary) == self.mask
        to_mask = torch.where(is_mask, 1.0, (1 - alpha_t / alpha_s).to(p))
        at_s = alpha_s.to(p) * p + (1 - alpha_s).to(p) * is_mask
        joint = to_mask * at_s
        return joint / joint.sum(-1, keepdim=True)

    def divergence(self, p, x0, t):
        clean = torch.nn.functional.one_hot(x0, self.vocabulary).to(p)
        q, p = self.reverse(clean, t), self.reverse(p, t)
        # 0 ln 0 = 0; where q is not 0, p is not either.
        ratio = torch.where(q > 0, q, 1.0).log() - torch.where(q > 0, p, 1.0).log()
        return (q * ratio).sum(-1)


def pick(values, tokens):
    """The value at each position's token."""
    return values.gather(-1, tokens[..., None]).squeeze(-1)


# Name, objective, vocabulary and mask.
CASES = [
    ("mdlm", {"kind": "mdlm"}, 512, 511),
    ("mdlm in a smaller vocabulary", {"kind": "mdlm"}, 500, 7),
    ("mdlm with time conditioning", {"kind": "mdlm", "time_conditioning": True}, 512, 511),
    ("mdlm in 8 steps", {"kind": "mdlm", "steps": 8}, 512, 511),
    ("mdlm without zero masking", {"kind": "mdlm", "steps": 8, "zero_masking": False}, 512, 511),
    ("mdlm without carry-over", {"kind": "mdlm", "steps": 8, "carry_over": False}, 512, 511),
    ("sedd", {"kind": "sedd"}, 512, 511),
    (
        "sedd with geometric noise in a smaller vocabulary",
        {"kind": "sedd", "noise": {"kind": "geometric", "sigma_min": 0.01, "sigma_max": 20.0}},
        500,
        7,
    ),
    ("d3pm", {"kind": "d3pm"}, 512, 511),
    ("d3pm in 8 steps", {"kind": "d3pm", "steps": 8, "time_conditioning": False}, 512, 511),
    ("ar", {"kind": "ar"}, 512, 511),
    ("ar in a smaller vocabulary", {"kind": "ar"}, 500, 7),
    ("mlm", {"kind": "mlm"}, 512, 511),
]
ROWS, LENGTH = 4, 32
TIMES, TIMES_OF_8_STEPS = [0.07, 0.38, 0.71, 1.0], [0.125, 0.375, 0.75, 1.0]


def batch(number, objective):
    """Clean tokens, noised tokens and times of a case."""
    x0 = (uniform(ROWS * LENGTH, 1000 * number) * (objective.vocabulary - 1)).astype(numpy.int64)
    x0 = torch.from_numpy(x0 + (x0 >= objective.mask)).view(ROWS, LENGTH)
    t = torch.tensor(TIMES_OF_8_STEPS if objective.steps == 8 else TIMES)
    u = torch.from_numpy(uniform(ROWS * LENGTH, 1000 * number + 500)).view(ROWS, LENGTH)
    if objective.kind == "mlm":
        xt = torch.where(u < 0.3, objective.mask, torch.where(u < 0.4, x0.roll(1, dims=1), x0))
    else:
        xt = torch.where(u < 1 - objective.noise.alpha(t)[:, None], objective.mask, x0)
    return x0, xt, t


def network_of(objective):
    dimensions = {"vocabulary": 512, "width": 64, "heads": 2, "blocks": 2}
    model = Transformer(**dimensions) if objective.kind == "ar" else Dit(**dimensions, conditioning=32)
    model.load_state_dict(formula(model))
    return model


def gradients(model, at):
    """Of each parameter's gradient: its norm, its product with numbers on (-1, 1) that are a function of their place,
    and `KEPT` entries, evenly spread."""
    numbers, start = [], at
    for parameter in model.parameters():
        gradient = parameter.grad.flatten()
        product = gradient @ torch.from_numpy(2 * uniform(len(gradient), start) - 1).to(gradient)
        start += len(gradient)
        entries = gradient[(torch.arange(KEPT) * len(gradient)) // KEPT]
        numbers.append(torch.cat([gradient.norm()[None], product[None], entries]))
    return torch.stack(numbers)


KEPT = 14


def computed(number, case, dtype):
    """Losses, logits and gradients of the batch's mean loss."""
    torch.set_default_dtype(dtype)
    _, settings, vocabulary, mask = case
    objective = Objective(settings, vocabulary, mask)
    x0, xt, t = batch(number, objective)
    model = network_of(objective)
    loss, logits = objective.losses(model, x0, xt, t)
    (loss.sum() / loss.numel()).backward()
    return (x0, xt, t), loss.detach(), gradients(model, 0)


def golden(path):
    """What f64 makes of f32 weights. Printed: by how much f32 differs from it here, of gradients relative to the norm of
    the parameter's."""
    tensors, cases = {}, []
    for number, case in enumerate(CASES):
        name, settings, vocabulary, mask = case
        _, rough, rough_gradients = computed(number, case, torch.float32)
        (x0, xt, t), loss, found = computed(number, case, torch.float64)
        differs = ((rough_gradients.double() - found).abs() / found[:, :1]).amax(0)
        print(
            f"{name}: loss {loss.min():.3g} to {loss.max():.3g}; f32 differs by "
            f"{((rough - loss).abs() / loss.abs().clamp(min=1)).max():.1e} (losses, relative above 1), "
            f"{differs[0]:.1e} (norms), {differs[1]:.1e} (products), {differs[2:].max():.1e} (entries)"
        )
        cases.append({"name": name, "objective": settings, "vocabulary": vocabulary, "mask": mask})
        tensors |= {
            f"{number}/x0": x0.numpy().astype(numpy.uint16),
            f"{number}/xt": xt.numpy().astype(numpy.uint16),
            f"{number}/t": t.numpy(),
            f"{number}/loss": loss.numpy().astype(numpy.float32),
            f"{number}/gradients": found.numpy().astype(numpy.float32),
        }
    save_file(tensors, path, metadata={"cases": json.dumps(cases)})


def losses(arguments):
    torch.set_default_dtype(getattr(torch, arguments.dtype))
    text = arguments.objective
    settings = json.loads(text) if text.lstrip().startswith("{") else {"kind": text}
    model = load(arguments.checkpoint, arguments.heads, arguments.dtype)
    vocabulary = arguments.vocabulary or len(model.vocab_embed.embedding)
    mask = vocabulary - 1 if arguments.mask is None else arguments.mask
    objective = Objective(settings, vocabulary, mask)
    inputs = load_file(arguments.input)
    x0 = torch.from_numpy(inputs["x0"].astype(numpy.int64))
    xt = torch.from_numpy(inputs["xt"].astype(numpy.int64)) if "xt" in inputs else x0
    t = torch.from_numpy(inputs["t"]).to(torch.get_default_dtype()) if "t" in inputs else torch.ones(len(x0))
    rows = []
    with torch.no_grad():
        for i in range(len(x0)):
            rows.append(objective.losses(model, x0[i : i + 1], xt[i : i + 1], t[i : i + 1]))
    found = {
        "loss": torch.cat([loss for loss, _ in rows]).float().numpy(),
        "logits": torch.cat([logits for _, logits in rows]).float().numpy(),
    }
    if objective.kind == "ar":
        found["log_probabilities"] = -found["loss"]
    save_file(found, arguments.output)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("losses")
    for name in ("checkpoint", "input", "output"):
        command.add_argument(f"--{name}", required=True)
    command.add_argument("--objective", required=True, help="a kind, or JSON as in a manifest")
    command.add_argument("--heads", type=int, required=True)
    command.add_argument("--vocabulary", type=int)
    command.add_argument("--mask", type=int)
    command.add_argument("--dtype", choices=("float32", "float64"), default="float64")
    command = commands.add_parser("golden")
    command.add_argument("path")
    arguments = parser.parse_args()
    golden(arguments.path) if arguments.command == "golden" else losses(arguments)


if __name__ == "__main__":
    main()
