"""The networks in PyTorch, under the authors' tensor names: the peer that `mdlm logits` is compared with. The denoiser, and
the plain transformer of an autoregressive model.

Written from the equations (arXiv 2406.07524 and its published configuration), with PyTorch's own operations, so that
an error would have to be made twice. Needs `torch`, `numpy` and `safetensors`; a CPU is enough.

    python tests/peers/torch_dit.py logits --heads 12 --checkpoint W.safetensors --input X.safetensors \
        --output Y.safetensors        # the same files as `mdlm logits`
    python tests/peers/torch_dit.py compare Y.safetensors OURS.safetensors
    python tests/peers/torch_dit.py golden tests/it/golden/nano_logits.safetensors
"""

import argparse
import math

import numpy
import torch
import torch.nn.functional as F
from safetensors.numpy import load_file, save_file
from torch import nn

TIME_FEATURES = 256
MAX_PERIOD = 10_000
ROTARY_BASE = 10_000


class Norm(nn.Module):
    """LayerNorm with a weight and without a bias."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x, shift, scale):
        return self.plain(x) * (1 + scale) + shift

    def plain(self, x):
        return F.layer_norm(x, x.shape[-1:], self.weight, eps=1e-5)


class Block(nn.Module):
    """A block of the denoiser; without a conditioning width, a causal one without modulation."""

    def __init__(self, width, heads, conditioning=None, dropout=0.0):
        super().__init__()
        self.heads = heads
        self.is_causal = conditioning is None
        self.dropout = nn.Dropout(dropout)
        self.norm1 = Norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.norm2 = Norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        if conditioning is not None:
            self.adaLN_modulation = nn.Linear(conditioning, 6 * width)

    def attention(self, x, turns):
        rows, length, _ = x.shape
        qkv = self.attn_qkv(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = rotate(qkv[0], *turns), rotate(qkv[1], *turns), qkv[2]  # (B, H, L, D / H)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=self.is_causal)
        return self.attn_out(y.transpose(1, 2).reshape(rows, length, -1))

    def forward(self, x, c, turns):
        modulation = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = modulation
        x = x + gate_a * self.dropout(self.attention(self.norm1(x, shift_a, scale_a), turns))
        return x + gate_m * self.dropout(self.mlp(self.norm2(x, shift_m, scale_m)))

    def plain(self, x, turns):
        x = x + self.dropout(self.attention(self.norm1.plain(x), turns))
        return x + self.dropout(self.mlp(self.norm2.plain(x)))


def turns(length, half, device):
    """Cosines and sines of the rotary angles, (L, half) each."""
    frequency = ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64, device=device) / half)
    angle = torch.arange(length, dtype=torch.float64, device=device)[:, None] * frequency
    return angle.cos(), angle.sin()


def rotate(x, cos, sin):
    """Rotary positions over the two halves of each head (arXiv 2104.09864, in the half-split form)."""
    cos, sin, half = cos.to(x.dtype), sin.to(x.dtype), x.shape[-1] // 2
    a, b = x[..., :half], x[..., half:]
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1)


class TimeEmbedding(nn.Module):
    def __init__(self, conditioning):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_FEATURES, conditioning), nn.SiLU(), nn.Linear(conditioning, conditioning)
        )

    def forward(self, sigma):
        half = TIME_FEATURES // 2
        frequency = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float64, device=sigma.device) / half)
        angle = sigma.double()[:, None] * frequency
        features = torch.cat([angle.cos(), angle.sin()], dim=-1)
        return self.mlp(features.to(self.mlp[0].weight))


class Embedding(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))

    def forward(self, tokens):
        return self.embedding[tokens]


class Final(nn.Module):
    def __init__(self, vocabulary, width, conditioning=None):
        super().__init__()
        self.norm_final = Norm(width)
        self.linear = nn.Linear(width, vocabulary)
        if conditioning is not None:
            self.adaLN_modulation = nn.Linear(conditioning, 2 * width)

    def forward(self, x, c):
        return self.linear(self.hidden(x, c))

    def hidden(self, x, c):
        """What the vocabulary is multiplied with."""
        shift, scale = self.adaLN_modulation(c)[:, None].chunk(2, dim=-1)
        return self.norm_final(x, shift, scale)


class Dit(nn.Module):
    def __init__(self, vocabulary, width, heads, blocks, conditioning, dropout=0.0):
        super().__init__()
        self.vocab_embed = Embedding(vocabulary, width)
        self.sigma_map = TimeEmbedding(conditioning)
        self.blocks = nn.ModuleList([Block(width, heads, conditioning, dropout) for _ in range(blocks)])
        self.output_layer = Final(vocabulary, width, conditioning)

    def forward(self, tokens, sigma):
        return self.output_layer.linear(self.hidden(tokens, sigma))

    def hidden(self, tokens, sigma):
        """The final layer's normalized input, (B, L, D). One σ serves all rows."""
        x = self.vocab_embed(tokens)
        c = F.silu(self.sigma_map(sigma))
        around = turns(tokens.shape[-1], x.shape[-1] // self.blocks[0].heads // 2, x.device)
        for block in self.blocks:
            x = block(x, c, around)
        return self.output_layer.hidden(x, c)


class Transformer(nn.Module):
    """The autoregressive network: causal, without time input and without modulation."""

    def __init__(self, vocabulary, width, heads, blocks, dropout=0.0):
        super().__init__()
        self.vocab_embed = Embedding(vocabulary, width)
        self.blocks = nn.ModuleList([Block(width, heads, dropout=dropout) for _ in range(blocks)])
        self.output_layer = Final(vocabulary, width)

    def forward(self, tokens):
        return self.output_layer.linear(self.hidden(tokens))

    def hidden(self, tokens):
        """The final layer's normalized input, (B, L, D)."""
        x = self.vocab_embed(tokens)
        around = turns(tokens.shape[-1], x.shape[-1] // self.blocks[0].heads // 2, x.device)
        for block in self.blocks:
            x = block.plain(x, around)
        return self.output_layer.norm_final.plain(x)


def uniform(count, start):
    """Numbers in [0, 1) without a pattern, as functions of their index: the Rust test computes the same ones."""
    x = numpy.sin(numpy.arange(start, start + count, dtype=numpy.float64) * 12.9898 + 78.233) * 43758.5453
    return x - numpy.floor(x)


def formula(model):
    """Weights of order one over the square root of the inputs, nothing zero, in the order of the state."""
    state, at = {}, 0
    for name, weight in model.state_dict().items():
        u = 2 * uniform(weight.numel(), at).reshape(weight.shape) - 1
        if "norm" in name:
            value = 1 + 0.3 * u
        elif weight.ndim == 1:
            value = 0.3 * u
        elif name == "vocab_embed.embedding":
            value = u
        else:
            value = u * math.sqrt(3 / weight.shape[1])
        # The weights are f32; the golden logits are what f64 makes of them.
        state[name] = torch.from_numpy(value.astype(numpy.float32)).to(weight)
        at += weight.numel()
    return state


def golden(path):
    torch.set_default_dtype(torch.float64)
    model = Dit(vocabulary=512, width=64, heads=2, blocks=2, conditioning=32)
    model.load_state_dict(formula(model))
    i = torch.arange(64)
    tokens = ((i * i * 7 + i * 13 + 5) % 512).view(2, 32)
    sigma = torch.tensor([0.0, 1.75])
    with torch.no_grad():
        logits = model(tokens, sigma)
    print(f"logits: standard deviation {logits.std():.3f}, largest {logits.abs().max():.3f}")
    save_file(
        {
            "xt": tokens.numpy().astype(numpy.uint16),
            "sigma": sigma.numpy().astype(numpy.float32),
            "logits": logits.numpy().astype(numpy.float32),
        },
        path,
    )


def load(checkpoint, heads, dtype):
    """The network of a checkpoint: the denoiser, or the plain transformer where it has no time input."""
    state = {
        name.removeprefix("backbone."): torch.from_numpy(value)
        for name, value in load_file(checkpoint).items()
        if "/" not in name and not name.endswith("rotary_emb.inv_freq")
    }
    vocabulary, width = state["vocab_embed.embedding"].shape
    blocks = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    if "sigma_map.mlp.2.bias" in state:
        conditioning = state["sigma_map.mlp.2.bias"].shape[0]
        model = Dit(vocabulary, width, heads, blocks, conditioning)
    else:
        model = Transformer(vocabulary, width, heads, blocks)
    model.load_state_dict(state)
    return model.to(getattr(torch, dtype))


def logits(arguments):
    model = load(arguments.checkpoint, arguments.heads, arguments.dtype)
    inputs = load_file(arguments.input)
    tokens = torch.from_numpy(inputs["xt"].astype(numpy.int64))
    sigma = torch.from_numpy(inputs.get("sigma", numpy.zeros(len(tokens), numpy.float32)))
    with torch.no_grad():
        rows = [model(tokens[i : i + 1], sigma[i : i + 1]) for i in range(len(tokens))]
    save_file({"logits": torch.cat(rows).float().numpy()}, arguments.output)


def compare(arguments):
    a, b = (load_file(path)["logits"] for path in (arguments.first, arguments.second))
    difference = numpy.abs(a - b)
    print(f"{a.size} logits, standard deviation {a.std():.4g}")
    print(f"largest difference {difference.max():.3g}, mean {difference.mean():.3g}")
    print(f"same argmax at {(a.argmax(-1) == b.argmax(-1)).mean():.4%} of the positions")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    command = commands.add_parser("logits")
    for name in ("checkpoint", "input", "output"):
        command.add_argument(f"--{name}", required=True)
    command.add_argument("--heads", type=int, required=True)
    command.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    command = commands.add_parser("compare")
    command.add_argument("first")
    command.add_argument("second")
    command = commands.add_parser("golden")
    command.add_argument("path")
    arguments = parser.parse_args()
    if arguments.command == "golden":
        golden(arguments.path)
    else:
        {"logits": logits, "compare": compare}[arguments.command](arguments)


if __name__ == "__main__":
    main()
