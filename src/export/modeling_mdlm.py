"""A masked diffusion language model for `transformers`: the network and a sampler, in PyTorch alone.

    model = AutoModelForMaskedLM.from_pretrained(folder, trust_remote_code=True)
    logits = model(input_ids).logits                  # (B, L, V), raw: nothing is substituted or normalized
    log_p = model.subs(logits, input_ids)             # log p(x_0 | x_t) under SUBS
    tokens = model.sample(rows=4, steps=128, seed=1)

Written from the equations of arXiv 2406.07524; tensors have the names of its authors' release. Letters: B rows, L tokens a
row, V vocabulary, D width, H heads, C conditioning width. Rows have exactly `model_length` tokens in training, and padding
is attended to, so `attention_mask` has no effect.
"""

import math

import torch
import torch.nn.functional as F
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel
from transformers.modeling_outputs import MaskedLMOutput

TIME_FEATURES = 256
MAX_PERIOD = 10_000
ROTARY_BASE = 10_000
NORM_EPSILON = 1e-5


class MDLMConfig(PretrainedConfig):
    """The fields up to `time_conditioning` are those of the authors' release.

    `backbone` is `dit`, or `transformer`: causal, without time input, as an autoregressive model has it. `objective` is what
    the model was trained for, as in a manifest of mdlm. Token ids are below `tokenizer_vocab_size`; the network may have
    room for more.
    """

    model_type = "mdlm"
    attribute_map = {
        "hidden_size": "hidden_dim",
        "max_position_embeddings": "model_length",
        "num_attention_heads": "n_heads",
        "num_hidden_layers": "n_blocks",
    }

    def __init__(
        self,
        vocab_size=50258,
        model_length=1024,
        hidden_dim=768,
        cond_dim=128,
        n_blocks=12,
        n_heads=12,
        dropout=0.1,
        time_conditioning=False,
        backbone="dit",
        objective=None,
        tokenizer_vocab_size=None,
        mask_token_id=None,
        bos_token_id=None,
        eos_token_id=None,
        pad_token_id=None,
        tie_word_embeddings=False,
        **kwargs,
    ):
        if backbone not in ("dit", "transformer"):
            raise ValueError(f"`backbone` is {backbone!r}, expected 'dit' or 'transformer'")
        if hidden_dim % (2 * n_heads):
            raise ValueError(f"`hidden_dim` is {hidden_dim}, expected a multiple of 2 * `n_heads`, {2 * n_heads}")
        if tie_word_embeddings:
            raise ValueError("`tie_word_embeddings` is true, but the output layer has separate weights")
        self.vocab_size = vocab_size
        self.model_length = model_length
        self.hidden_dim = hidden_dim
        self.cond_dim = cond_dim
        self.n_blocks = n_blocks
        self.n_heads = n_heads
        self.dropout = dropout
        self.time_conditioning = time_conditioning
        self.backbone = backbone
        self.objective = objective or {"kind": "mdlm" if backbone == "dit" else "ar"}
        self.tokenizer_vocab_size = vocab_size if tokenizer_vocab_size is None else tokenizer_vocab_size
        self.mask_token_id = self.tokenizer_vocab_size - 1 if mask_token_id is None else mask_token_id
        super().__init__(tie_word_embeddings=False, **kwargs)
        self.bos_token_id, self.eos_token_id, self.pad_token_id = bos_token_id, eos_token_id, pad_token_id


class Norm(nn.Module):
    """LayerNorm with a weight and without a bias; PyTorch computes its statistics in f32 at least."""

    def __init__(self, width):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x, modulation=None):
        x = F.layer_norm(x, x.shape[-1:], self.weight, eps=NORM_EPSILON)
        if modulation is None:
            return x
        shift, scale = modulation
        return x * (1 + scale) + shift


class Embedding(nn.Module):
    def __init__(self, vocabulary, width):
        super().__init__()
        self.embedding = nn.Parameter(torch.empty(vocabulary, width))

    @property
    def weight(self):
        """What PyTorch's own embedding calls it."""
        return self.embedding

    def forward(self, tokens):
        return self.embedding[tokens]


class TimeEmbedding(nn.Module):
    """Cosines, then sines of σ at 128 frequencies, and an MLP: (m) → (m, C)."""

    def __init__(self, conditioning):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(TIME_FEATURES, conditioning), nn.SiLU(), nn.Linear(conditioning, conditioning)
        )

    def forward(self, sigma):
        half = TIME_FEATURES // 2
        # In f64 on the CPU: the product loses nothing before the cosine, and not every GPU computes in f64.
        frequency = torch.exp(-math.log(MAX_PERIOD) * torch.arange(half, dtype=torch.float64, device="cpu") / half)
        angle = sigma.cpu().double()[:, None] * frequency
        return self.mlp(torch.cat([angle.cos(), angle.sin()], dim=-1).to(self.mlp[0].weight))


class ZeroLinear(nn.Linear):
    """A linear layer that starts at zero."""


def frequencies(half):
    return ROTARY_BASE ** (-torch.arange(half, dtype=torch.float64, device="cpu") / half)


def buffered_frequencies(half):
    """The same in f32, to the bits that the authors' files have."""
    return 1.0 / ROTARY_BASE ** (torch.arange(0, 2 * half, 2, device="cpu").float() / (2 * half))


class Rotary(nn.Module):
    """Rotary positions over the two halves of each head (arXiv 2104.09864). The buffer is what the authors' files have; the
    angles are computed in f64 without it."""

    def __init__(self, half):
        super().__init__()
        self.half = half
        self.register_buffer("inv_freq", buffered_frequencies(half))

    def forward(self, x):
        """Cosines and sines for the rows of x (B, L, D), (L, half) each."""
        angle = torch.arange(x.shape[1], dtype=torch.float64, device="cpu")[:, None] * frequencies(self.half)
        dtype = torch.promote_types(x.dtype, torch.float32)
        return angle.cos().to(dtype).to(x.device), angle.sin().to(dtype).to(x.device)


def rotate(x, cos, sin):
    a, b = x.chunk(2, dim=-1)
    return torch.cat([a * cos - b * sin, b * cos + a * sin], dim=-1).to(x.dtype)


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        width, self.heads, self.is_dit = config.hidden_dim, config.n_heads, config.backbone == "dit"
        self.norm1 = Norm(width)
        self.attn_qkv = nn.Linear(width, 3 * width, bias=False)
        self.attn_out = nn.Linear(width, width, bias=False)
        self.dropout = nn.Dropout(config.dropout)
        self.norm2 = Norm(width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU("tanh"), nn.Linear(4 * width, width))
        if self.is_dit:
            self.adaLN_modulation = ZeroLinear(config.cond_dim, 6 * width)

    def attention(self, x, turns):
        rows, length, _ = x.shape
        qkv = self.attn_qkv(x).view(rows, length, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        q, k, v = rotate(qkv[0], *turns), rotate(qkv[1], *turns), qkv[2]  # (B, H, L, D / H)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=not self.is_dit)
        return self.attn_out(y.transpose(1, 2).reshape(rows, length, -1))

    def forward(self, x, c, turns):
        if not self.is_dit:
            x = x + self.dropout(self.attention(self.norm1(x), turns))
            return x + self.dropout(self.mlp(self.norm2(x)))
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(c)[:, None].chunk(6, dim=-1)
        x = x + gate_a * self.dropout(self.attention(self.norm1(x, (shift_a, scale_a)), turns))
        return x + gate_m * self.dropout(self.mlp(self.norm2(x, (shift_m, scale_m))))


class OutputLayer(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.norm_final = Norm(config.hidden_dim)
        self.linear = ZeroLinear(config.hidden_dim, config.vocab_size)
        if config.backbone == "dit":
            self.adaLN_modulation = ZeroLinear(config.cond_dim, 2 * config.hidden_dim)

    def normalize(self, x, c):
        return self.norm_final(x, None if c is None else self.adaLN_modulation(c)[:, None].chunk(2, dim=-1))


class Network(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.vocab_embed = Embedding(config.vocab_size, config.hidden_dim)
        if config.backbone == "dit":
            self.sigma_map = TimeEmbedding(config.cond_dim)
        self.rotary_emb = Rotary(config.hidden_dim // config.n_heads // 2)
        self.blocks = nn.ModuleList([Block(config) for _ in range(config.n_blocks)])
        self.output_layer = OutputLayer(config)

    def hidden(self, tokens, sigma, states=None):
        """The output layer's normalized input (B, L, D). One σ serves all rows; the plain transformer takes none. To `states`
        are appended the embedded tokens and what each block makes of them."""
        x = self.vocab_embed(tokens)
        c = None if sigma is None else F.silu(self.sigma_map(sigma))
        turns = self.rotary_emb(x)
        for block in self.blocks:
            if states is not None:
                states.append(x)
            x = block(x, c, turns)
        if states is not None:
            states.append(x)
        return self.output_layer.normalize(x, c)


class MDLM(PreTrainedModel):
    config_class = MDLMConfig
    base_model_prefix = "mdlm"
    _supports_sdpa = True
    # It follows from the shape, and is not in every file.
    _keys_to_ignore_on_load_missing = [r"rotary_emb\.inv_freq"]

    def __init__(self, config):
        super().__init__(config)
        self.backbone = Network(config)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module):
        """PyTorch's defaults, uniform on ±1 / √inputs; modulations and the output layer start at zero."""
        if isinstance(module, (nn.Linear, Embedding)):
            is_zero, inputs = isinstance(module, ZeroLinear), next(module.parameters()).shape[1]
            limit = 0.0 if is_zero else inputs**-0.5
            for weight in module.parameters():
                nn.init.uniform_(weight, -limit, limit)
        elif isinstance(module, Norm):
            nn.init.ones_(module.weight)
        elif isinstance(module, Rotary):
            module.inv_freq.copy_(buffered_frequencies(module.half))

    def get_input_embeddings(self):
        return self.backbone.vocab_embed

    def set_input_embeddings(self, value):
        self.backbone.vocab_embed = value

    def get_output_embeddings(self):
        return self.backbone.output_layer.linear

    def set_output_embeddings(self, value):
        self.backbone.output_layer.linear = value

    def sigma(self, timesteps, device):
        """σ as the network takes it: of each row with time conditioning, 0 for all rows without, nothing without an input."""
        if self.config.backbone != "dit":
            return None
        if not self.config.time_conditioning:
            return torch.zeros(1, device=device)
        if timesteps is None:
            raise ValueError("`timesteps` is missing: the model is conditioned on the noise level σ of each row")
        return torch.as_tensor(timesteps, device=device).reshape(-1)

    def forward(
        self,
        input_ids,
        timesteps=None,
        attention_mask=None,
        output_hidden_states=None,
        return_dict=None,
        labels=None,
    ):
        """Raw logits (B, L, V) of noised tokens (B, L). `timesteps` (B) holds the noise level σ of each row; without time
        conditioning it has no effect. With `labels` (B, L) there is a loss too: the mean of -log p over the tokens that are
        predicted, with -100 left out. A DiT predicts masked tokens, under SUBS; an autoregressive model the token after each
        position. It is not weighted with time, so that it is no bound. With `return_dict=False` the result is the logits alone,
        as in the authors' release, and with `labels` the loss before them."""
        if output_hidden_states is None:
            output_hidden_states = self.config.output_hidden_states
        states = [] if output_hidden_states else None
        hidden = self.backbone.hidden(input_ids, self.sigma(timesteps, input_ids.device), states)
        logits = self.backbone.output_layer.linear(hidden)
        loss = None if labels is None else self.loss(logits, input_ids, labels)
        if not (self.config.return_dict if return_dict is None else return_dict):
            return logits if loss is None else (loss, logits)
        return MaskedLMOutput(loss=loss, logits=logits, hidden_states=states and tuple(states))

    def loss(self, logits, xt, labels):
        """The mean of -log p(labels) over the tokens that are predicted, in nats; 0 where there are none."""
        ids = torch.arange(logits.shape[-1], device=logits.device)
        impossible = (ids == self.config.mask_token_id) | (ids >= self.config.tokenizer_vocab_size)
        log_p = logits.float().masked_fill(impossible, -torch.inf).log_softmax(-1)
        if self.config.backbone == "dit":
            is_predicted = (xt == self.config.mask_token_id) & (labels != -100)
        else:
            log_p, labels = log_p[:, :-1], labels[:, 1:]
            is_predicted = labels != -100
        nll = -log_p.gather(-1, labels.clamp(min=0)[..., None])[..., 0]
        return nll.masked_fill(~is_predicted, 0).sum() / is_predicted.sum().clamp(min=1)

    def subs(self, logits, xt):
        """log p(x_0 | x_t) (…, V) of raw logits (…, V) under SUBS: the mask has probability 0, and an unmasked token of x_t
        (…) has probability 1 (arXiv 2406.07524, section 3.2.3)."""
        ids = torch.arange(logits.shape[-1], device=logits.device)
        impossible = (ids == self.config.mask_token_id) | (ids >= self.config.tokenizer_vocab_size)
        log_p = logits.masked_fill(impossible, -torch.inf).log_softmax(-1)
        kept = torch.zeros_like(log_p).masked_fill(ids != xt[..., None], -torch.inf)
        return torch.where((xt == self.config.mask_token_id)[..., None], log_p, kept)

    def alpha(self, t):
        """The probability that a token is kept at time t; 1 at t = 0, so that the chain ends with clean text."""
        noise = self.config.objective.get("noise") or {"kind": "log_linear"}
        kind, epsilon = noise["kind"], noise.get("epsilon", 1e-3)
        if t == 0:
            return 1.0
        if kind == "log_linear":
            return 1 - (1 - epsilon) * t
        if kind in ("cosine", "cosine_squared"):
            return epsilon + (1 - epsilon) * math.cos(math.pi / 2 * t) ** (1 if kind == "cosine" else 2)
        low, high = noise["sigma_min"], noise["sigma_max"]
        return math.exp(-(low + t * (high - low) if kind == "linear" else low ** (1 - t) * high**t))

    @torch.no_grad()
    def sample(self, rows=1, steps=128, seed=0, tokens=None, temperature=1.0):
        """Rows of tokens (rows, L) by ancestral sampling in `steps` steps (arXiv 2406.07524, eq. 7). `tokens` (rows, L) are
        kept where they are not the mask, and the rest is filled in. Draws are made on the CPU in f64 and depend on the seed
        alone; `mdlm` makes others."""
        objective, mask = self.config.objective, self.config.mask_token_id
        if objective["kind"] not in ("mdlm", "mlm") or not objective.get("zero_masking", True):
            raise ValueError(f"`sample` takes a model with the SUBS parameterization; this one has {objective}")
        if self.config.time_conditioning and (objective.get("times") or {}).get("kind") == "change_of_variables":
            raise ValueError("`sample` feeds the network σ; this one was trained with a change of variables")
        x = torch.full((rows, self.config.model_length), mask) if tokens is None else tokens.cpu().clone()
        random = torch.Generator().manual_seed(seed)
        for i in range(steps):
            t, s = (steps - i) / steps, (steps - i - 1) / steps
            alpha_t, alpha_s = self.alpha(t), self.alpha(s)
            unmask = (alpha_s - alpha_t) / (1 - alpha_t) if s > 0 else 1.0
            drawn = (torch.rand(x.shape, generator=random, dtype=torch.float64) < unmask) & (x == mask)
            # The network is needed for rows that change, and the output layer for their new tokens.
            at = drawn.any(-1).nonzero()[:, 0]
            if len(at) == 0:
                continue
            sigma = self.sigma(torch.full((len(at),), -math.log(alpha_t)), self.device)
            hidden = self.backbone.hidden(x[at].to(self.device), sigma)
            logits = self.backbone.output_layer.linear(hidden[drawn[at].to(self.device)]).cpu().double()
            p = self.subs(logits / temperature, x[drawn]).exp()
            # The largest p / E, E exponential, is a draw from p.
            x[drawn] = (p / torch.empty_like(p).exponential_(generator=random)).argmax(-1)
        return x.to(self.device)
