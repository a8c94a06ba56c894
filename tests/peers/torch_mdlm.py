"""MDLM in PyTorch, and the objectives beside it: the peer that `mdlm bench` is compared with. Prints one line of JSON.

Two forms of the same mathematics on the same network (`torch_dit.py`), written from the equations:

    plain   as the published training code goes about it: logits and log-softmax over the whole vocabulary at every
            position, SUBS by assignment through index masks, AdamW as it comes, a loop over parameters for the moving
            average, Gumbel draws over the vocabulary at every position in every sampling step
    tuned   what a PyTorch user who profiles would write: only masked rows reach the output layer, cross-entropy,
            one conditioning row, fused AdamW, foreach clipping and averaging; in sampling only what is unmasked is drawn

`--compile` puts the network through `torch.compile`. With `--device cuda` both forms compute as one does there: bf16
autocast, flash attention, TF32 where f32 is multiplied, fused AdamW; the tuned form answers a fixed number of positions,
the masked ones first, so that no step waits for a count and compiled shapes are static. Training measures whole steps (noise, forward, backward, clip,
AdamW, moving average); the first steps are left out.

`--objective` trains or evaluates another objective, in the plain form: SEDD, D3PM and AR as the MDLM authors' code computes
them, MLM likewise, each at every position over the whole vocabulary.

    python tests/peers/torch_mdlm.py --task train --form tuned --shape mini --batch 32 --seconds 20
    python tests/peers/torch_mdlm.py --task train --form plain --objective sedd --shape tiny --batch 32
    python tests/peers/torch_mdlm.py --device cuda --task train --form tuned --shape lm1b-small --batch 512 --compile
    python tests/peers/torch_mdlm.py --device cuda --task ceilings
"""

import argparse
import contextlib
import json
import math
import resource
import time

import torch
import torch.nn.functional as F
from torch_dit import Dit, Transformer

# V, L, D, H, N, C: as `mdlm shapes` lists them.
SHAPES = {
    "nano": (512, 32, 64, 2, 2, 32),
    "quickstart": (2560, 32, 128, 4, 3, 64),
    "tiny": (1024, 128, 128, 4, 4, 128),
    "mini": (8192, 128, 256, 8, 6, 128),
    "lm1b-small": (30522, 128, 768, 12, 12, 128),
    "owt-small": (50258, 1024, 768, 12, 12, 128),
}
EPSILON = 1e-3  # of the log-linear schedule, and the smallest time
DECAY = 0.9999
MINUS_INFINITY = -1_000_000.0
OBJECTIVES = ("mdlm", "ar", "sedd", "d3pm", "mlm")
D3PM_STEPS = 1000
MLM_RATE = 0.15


class Peer:
    def __init__(self, arguments):
        self.tuned = arguments.form == "tuned"
        self.objective = arguments.objective
        self.vocabulary, self.length, width, heads, blocks, conditioning = SHAPES[arguments.shape]
        self.mask = self.vocabulary - 1
        self.batch = arguments.batch
        self.micro_batch = arguments.micro_batch or arguments.batch
        self.device = torch.device(arguments.device)
        self.on_gpu = self.device.type == "cuda"
        torch.manual_seed(1)
        torch.backends.cuda.matmul.allow_tf32 = True
        if self.objective == "ar":
            network = Transformer(self.vocabulary, width, heads, blocks, dropout=0.1)
        else:
            network = Dit(self.vocabulary, width, heads, blocks, conditioning, dropout=0.1)
        self.network = network.to(self.device)
        # Embedding and output small, everything else as PyTorch begins: the arithmetic does not depend on it.
        torch.nn.init.uniform_(self.network.vocab_embed.embedding, -0.05, 0.05)
        self.forward, self.hidden = self.network.forward, self.network.hidden
        if arguments.compile:
            self.forward, self.hidden = torch.compile(self.forward), torch.compile(self.hidden)
        self.text = torch.randint(0, self.mask, (64, self.batch, self.length)).to(self.device)

    def autocast(self):
        return torch.autocast("cuda", torch.bfloat16) if self.on_gpu else contextlib.nullcontext()

    def sigma(self, z):
        """The network ignores time: σ = 0, for every row or once."""
        return torch.zeros(1 if self.tuned else len(z), device=self.device)

    def noised(self, step):
        """Text, noised text and weights of a batch: antithetic times, log-linear noise."""
        x = self.text[step % len(self.text)]
        rows = torch.arange(self.batch, device=self.device)
        u = (torch.rand(self.batch, device=self.device) / self.batch + rows / self.batch) % 1
        t = EPSILON + (1 - EPSILON) * u
        sigma = -torch.log1p(-(1 - EPSILON) * t)
        rate = (1 - EPSILON) / (1 - (1 - EPSILON) * t)
        moved = torch.rand(self.batch, self.length, device=self.device) < -torch.expm1(-sigma)[:, None]
        return x, torch.where(moved, self.mask, x), (rate / torch.expm1(sigma))[:, None]

    def log_probabilities(self, z):
        """SUBS over the whole vocabulary, by assignment."""
        logits = self.forward(z, self.sigma(z))
        logits[:, :, self.mask] += MINUS_INFINITY
        logits = logits - torch.logsumexp(logits, dim=-1, keepdim=True)
        unmasked = z != self.mask
        logits[unmasked] = MINUS_INFINITY
        logits[unmasked, z[unmasked]] = 0
        return logits

    def masked_logits(self, z, at):
        """Logits of the positions where `at` holds, (n, V)."""
        logits = self.network.output_layer.linear(self.hidden(z, self.sigma(z))[at])
        logits[:, self.mask] = -torch.inf
        return logits

    def losses(self, step):
        """The loss of each micro-batch, their sum that of the batch."""
        noised, loss = {
            "mdlm": (self.noised, self.loss),
            "ar": (self.texts, self.ar_loss),
            "sedd": (self.noised_at_times, self.sedd_loss),
            "d3pm": (self.noised_at_times, self.d3pm_loss),
            "mlm": (self.corrupted, self.mlm_loss),
        }[self.objective]
        with self.autocast():
            for parts in zip(*(part.split(self.micro_batch) for part in noised(step))):
                yield loss(*parts) * (len(parts[0]) / self.batch)

    def texts(self, step):
        return (self.text[step % len(self.text)],)

    def noised_at_times(self, step):
        """Text, noised text and times: D3PM's are multiples of 1/T."""
        x = self.text[step % len(self.text)]
        rows = torch.arange(self.batch, device=self.device)
        u = (torch.rand(self.batch, device=self.device) / self.batch + rows / self.batch) % 1
        t = EPSILON + (1 - EPSILON) * u
        if self.objective == "d3pm":
            t = (t * D3PM_STEPS).to(torch.int) / D3PM_STEPS + 1 / D3PM_STEPS
            t = t.clamp(max=1)
        moved = torch.rand(self.batch, self.length, device=self.device) < ((1 - EPSILON) * t)[:, None]
        return x, torch.where(moved, self.mask, x), t

    def corrupted(self, step):
        """BERT's: of the chosen tokens 80% become the mask, 10% another token, 10% stay."""
        x = self.text[step % len(self.text)]
        chosen = torch.rand(x.shape, device=self.device) < MLM_RATE
        part = torch.rand(x.shape, device=self.device)
        others = torch.randint(0, self.mask, x.shape, device=self.device)
        z = torch.where(part < 0.8, self.mask, torch.where(part < 0.9, others, x))
        return x, torch.where(chosen, z, x), chosen

    def ar_loss(self, x):
        logits = self.forward(x[:, :-1])
        logits[:, :, self.mask] = -1000
        return -logits.log_softmax(-1).gather(-1, x[:, 1:, None]).mean()

    def mlm_loss(self, x, z, chosen):
        logits = self.forward(z, self.sigma(z))
        logits[:, :, self.mask] += MINUS_INFINITY
        nll = -logits.log_softmax(-1).gather(-1, x[:, :, None]).squeeze(-1)
        return (nll * chosen / MLM_RATE).mean()

    def sedd_loss(self, x, z, t):
        sigma = -torch.log1p(-(1 - EPSILON) * t)
        rate = (1 - EPSILON) / (1 - (1 - EPSILON) * t)
        ratio_log = torch.where(sigma < 0.5, torch.expm1(sigma), sigma.exp() - 1).log()[:, None, None]
        log_score = self.forward(z, sigma) - ratio_log - math.log(self.vocabulary - 1)
        log_score = torch.scatter(log_score, -1, z[..., None], torch.zeros_like(log_score[..., :1]))
        masked = z == self.mask
        ratio = 1 / torch.expm1(sigma)[:, None].expand_as(z)[masked]
        of_masked = log_score[masked]
        negative = ratio * of_masked.gather(-1, x[masked][:, None]).squeeze(-1)
        # The mask is the last token.
        positive = of_masked.exp()[:, : self.mask].sum(-1)
        entropy = torch.zeros(z.shape, dtype=positive.dtype, device=self.device)
        entropy[masked] += positive - negative + ratio * (ratio.log() - 1)
        return (entropy * rate[:, None]).mean()

    def d3pm_loss(self, x, z, t):
        log_p = self.forward(z, -torch.log1p(-(1 - EPSILON) * t)).log_softmax(-1)
        dt = 1 / D3PM_STEPS
        t = t.clamp(max=1 - 1e-4)[:, None] + torch.zeros_like(log_p[..., 0])
        alpha_t, alpha_s = 1 - t, 1 - (t - dt)
        of_text = log_p.gather(-1, x[..., None]).squeeze(-1)
        of_mask = log_p[:, :, self.mask].exp()
        now = torch.log(alpha_t * of_mask / t + 1)
        # At s = 0 the second term is 0 / 0, and its factor 0.
        before = torch.log(alpha_s * of_mask / (t - dt).clamp(min=1e-9) + 1)
        loss = dt / t * (now - of_text) + (1 - dt / t).clamp(min=0) * (now - before)
        loss = D3PM_STEPS * loss * (z == self.mask)
        clean = self.forward(x, torch.zeros(len(x), device=self.device)).log_softmax(-1)
        return (loss - clean.gather(-1, x[..., None]).squeeze(-1)).mean()

    def masked_first(self, z):
        """Flat positions, as many as are masked of a batch but once in some 10^15: half of them on average, R / 6 their
        variance. The masked ones come first."""
        tokens = z.numel()
        count = min(tokens, (tokens // 2 + int(8 * math.sqrt(tokens / 6)) + 64) // 64 * 64)
        return torch.argsort((z != self.mask).flatten().to(torch.int8), stable=True)[:count]

    def loss(self, x, z, weight):
        if self.tuned and self.on_gpu:
            at = self.masked_first(z)
            h = self.hidden(z, self.sigma(z)).flatten(0, 1)[at]
            logits = self.network.output_layer.linear(h)
            logits[:, self.mask] = -torch.inf
            # A position that is not masked weighs nothing; any target but the mask will do for it.
            weight = (weight.expand_as(z) * (z == self.mask)).flatten()[at]
            nll = F.cross_entropy(logits.float(), x.flatten()[at], reduction="none")
            return (nll * weight).sum() / z.numel()
        if self.tuned:
            at = z == self.mask
            nll = F.cross_entropy(self.masked_logits(z, at), x[at], reduction="none")
            return (nll * weight.expand_as(z)[at]).sum() / z.numel()
        nll = -self.log_probabilities(z).gather(-1, x[:, :, None]).squeeze(-1)
        return (nll * weight).mean()

    def train(self):
        parameters = list(self.network.parameters())
        adam = {"lr": 3e-4, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0}
        adam = torch.optim.AdamW(parameters, **adam, **({"fused": True} if self.tuned else {}))
        average = [parameter.detach().clone() for parameter in parameters]
        self.network.train()
        step = 0
        while True:
            adam.zero_grad(set_to_none=True)
            for loss in self.losses(step):
                loss.backward()
            torch.nn.utils.clip_grad_norm_(parameters, 1.0, foreach=self.tuned)
            adam.step()
            step += 1
            decay = min(DECAY, (1 + step) / (10 + step))
            with torch.no_grad():
                if self.tuned:
                    torch._foreach_lerp_(average, parameters, 1 - decay)
                else:
                    for mean, parameter in zip(average, parameters):
                        mean.sub_((1 - decay) * (mean - parameter))
            yield self.batch * self.length

    def evaluate(self):
        self.network.eval()
        step = 0
        while True:
            with torch.no_grad():
                for _ in self.losses(step):
                    pass
            step += 1
            yield self.batch * self.length

    def sample(self, steps):
        """Whole batches of rows drawn in that many steps, as the cached sampler does: 64-bit draws."""
        self.network.eval()
        while True:
            with torch.no_grad(), self.autocast():
                self.tuned_rows(steps) if self.tuned else self.plain_rows(steps)
            yield self.batch * self.length

    def plain_rows(self, steps):
        z = torch.full((self.batch, self.length), self.mask, device=self.device)
        times, cache, calls = torch.linspace(1, EPSILON, steps + 1, device=self.device), None, 0
        for step in range(steps):
            t, s = (1 - EPSILON) * times[step], (1 - EPSILON) * times[step + 1]
            if cache is None:
                cache, calls = self.log_probabilities(z).exp(), calls + 1
            q = cache * (t - s)
            q[:, :, self.mask] = s
            noise = 1e-10 - (torch.rand_like(q, dtype=torch.float64) + 1e-10).log()
            drawn = torch.where(z == self.mask, (q / noise).argmax(-1), z)
            if not torch.equal(drawn, z):
                cache = None
            z = drawn
        return self.log_probabilities(z).argmax(-1)

    def tuned_rows(self, steps):
        z = torch.full((self.batch, self.length), self.mask, device=self.device)
        times = torch.linspace(1, 0, steps + 1, device=self.device)
        for step in range(steps):
            chance = (times[step] - times[step + 1]) / times[step]
            chosen = (z == self.mask) & (torch.rand(z.shape, device=self.device) < chance)
            if chosen.any():
                p = F.softmax(self.masked_logits(z, chosen).double(), dim=-1)
                z[chosen] = torch.multinomial(p, 1).squeeze(-1)
        return z


def synchronize(device):
    if device.type == "cuda":
        torch.cuda.synchronize()


def ceilings(device):
    """What no step exceeds on this card: bf16 products of random numbers, and copies, by events; medians of rounds."""

    def seconds(work, rounds=20):
        for _ in range(3):
            work()
        times = []
        for _ in range(rounds):
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            work()
            end.record()
            torch.cuda.synchronize()
            times.append(begin.elapsed_time(end) / 1000)
        return sorted(times)[rounds // 2]

    products = {}
    for m, n, k in [(8192, 8192, 8192), (65536, 2304, 768), (65536, 3072, 768), (65536, 768, 3072), (3072, 768, 65536)]:
        a = torch.randn(m, k, device=device, dtype=torch.bfloat16)
        b = torch.randn(n, k, device=device, dtype=torch.bfloat16)
        products[f"{m}x{n}x{k}"] = round(2 * m * n * k / seconds(lambda: a @ b.T) / 1e12, 1)
    source = torch.empty(1 << 31, device=device, dtype=torch.uint8).random_()
    target = torch.empty_like(source)
    copied = round(2 * source.numel() / seconds(lambda: target.copy_(source)) / 1e12, 3)
    return {"card": torch.cuda.get_device_name(), "bf16_tflops": products, "copy_tb_per_second": copied}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--task", choices=("train", "evaluate", "sample", "ceilings"), required=True)
    parser.add_argument("--form", choices=("plain", "tuned"), default="tuned")
    parser.add_argument("--objective", choices=OBJECTIVES, default="mdlm", help="others than mdlm: plain, no `sample`")
    parser.add_argument("--shape", choices=SHAPES, default="tiny")
    parser.add_argument("--batch", type=int, default=32, help="rows")
    parser.add_argument("--micro-batch", type=int, help="rows at a time; all unless told")
    parser.add_argument("--device", default="cpu", help="cpu or cuda")
    parser.add_argument("--steps", type=int, default=128, help="reverse steps of `sample`")
    parser.add_argument("--seconds", type=float, default=20, help="measure for about so long")
    parser.add_argument("--warmup", type=float, default=3, help="seconds that are left out first")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--compile", action="store_true")
    arguments = parser.parse_args()
    if arguments.objective != "mdlm" and (arguments.form != "plain" or arguments.task == "sample"):
        parser.error(f"--objective {arguments.objective} needs --form plain, and --task train or evaluate")
    torch.set_num_threads(arguments.threads)
    device = torch.device(arguments.device)
    if arguments.task == "ceilings":
        print(json.dumps(ceilings(device)))
        return
    peer = Peer(arguments)
    tokens_of = peer.sample(arguments.steps) if arguments.task == "sample" else getattr(peer, arguments.task)()
    # At least one round is left out (compilation, first touch of memory) and one measured.
    begin = time.perf_counter()
    next(tokens_of)
    while time.perf_counter() - begin < arguments.warmup:
        next(tokens_of)
        synchronize(device)
    begin, tokens, rounds = time.perf_counter(), 0, 0
    while rounds == 0 or time.perf_counter() - begin < arguments.seconds:
        tokens += next(tokens_of)
        synchronize(device)
        rounds += 1
    seconds = time.perf_counter() - begin
    record = {
        "program": f"torch {torch.__version__.split('+')[0]} {arguments.form}"
        + (" compiled" if arguments.compile else ""),
        "task": arguments.task,
        "objective": arguments.objective,
        "shape": arguments.shape,
        "batch": arguments.batch,
        "threads": arguments.threads,
        "rounds": rounds,
        "seconds": seconds,
        "tokens_per_second": tokens / seconds,
        **({"device_memory_bytes": torch.cuda.max_memory_allocated()} if device.type == "cuda" else {}),
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }
    print(json.dumps(record))


if __name__ == "__main__":
    main()
