"""Generative perplexity in NumPy: the peer that the variants of judge stages are compared with.

`mdlm` follows `compute_generative_perplexity` of the MDLM authors' diffusion.py (arXiv 2406.07524) and
`record_generative_perplexity` of Duo's metrics.py line by line: tokens cut to the length of the model and filled up with EOS
to the longest row, chunks of the judge's context, cumulative sums of EOS. `bd3lms` follows the sliding window of the BD3-LM
authors' metrics.py (arXiv 2503.09573), whose stride of 512 is half the context, with the tokens of all rows in one mean.
`plain` scores each text alone as Hugging Face's guide to the perplexity of fixed-length models does.

The judge is a formula instead of a network, so that this needs no weights: -ln p of token t after the tokens c of its window is
0.05 + ((sum_j (j + 1) c_j + 7 t + 3 |c|) mod 101) / 40.

    python tests/peers/generative_perplexity.py golden tests/it/golden/generative_perplexity.json
"""

import json
import math
import sys

import numpy

PAD, BOS, EOS, MASK = 0, 1, 2, 3
FIRST, LETTERS = 4, 8
CONTEXT, MODEL_LENGTH = 8, 19


def nll(context, token):
    """-ln p of a token after the tokens before it in its window."""
    places = numpy.arange(1, len(context) + 1)
    return 0.05 + (int((places * context).sum()) + 7 * token + 3 * len(context)) % 101 / 40


def nlls(chunk):
    """cross_entropy(logits[..., :-1], chunk[..., 1:]) of one chunk."""
    return numpy.array([nll(chunk[:place], chunk[place]) for place in range(1, len(chunk))])


def retokenized(row):
    """The row decoded and encoded again by the same tokenizer: padding and masks are no text."""
    return [token for token in row if token not in (PAD, MASK)][:MODEL_LENGTH]


def mdlm(rows):
    rows = [retokenized(row) for row in rows]
    longest = max(map(len, rows))
    samples = numpy.array([row + [EOS] * (longest - len(row)) for row in rows])
    nats, tokens = numpy.zeros(len(rows)), numpy.zeros(len(rows))
    for start in range(0, longest, CONTEXT):
        chunk = samples[:, start : start + CONTEXT]
        if chunk.shape[1] < 2:
            continue
        losses = numpy.stack([nlls(row) for row in chunk])
        first_eos = (chunk == EOS).cumsum(-1) == 1
        token_mask = chunk != EOS
        valid = first_eos[..., 1:] | token_mask[..., 1:]
        nats += (losses * valid).sum(-1)
        tokens += valid.sum(-1)
    return nats, tokens


def sliding(row):
    """(place, -ln p) of all tokens but the first: windows of the context, half of it apart."""
    found, previous_end = [], 1
    for begin in range(0, len(row), CONTEXT // 2):
        end = min(begin + CONTEXT, len(row))
        losses = nlls(numpy.array(row[begin:end]))
        found += [(place, losses[place - begin - 1]) for place in range(previous_end, end)]
        previous_end = end
        if end == len(row):
            break
    return found


def bd3lms(rows):
    rows = [retokenized(row) for row in rows]
    longest, stride = max(map(len, rows)), CONTEXT // 2
    samples = numpy.array([row + [EOS] * (longest - len(row)) for row in rows])
    nats, tokens = numpy.zeros(samples.shape), numpy.zeros(samples.shape)
    for number in range(max(math.ceil((longest - CONTEXT + stride) / stride), 1)):
        start = number * stride
        end = min(start + CONTEXT, longest)
        chunk = samples[:, start:end]
        losses = numpy.stack([nlls(row) for row in chunk])
        valid = chunk[:, 1:] != EOS
        # The whole first window, and the last stride of the others.
        first = start + 1 if number == 0 else start + CONTEXT - stride
        nats[:, first:end] += (losses * valid)[:, -(end - first) :]
        tokens[:, first:end] += valid[:, -(end - first) :]
    return nats.sum(-1), tokens.sum(-1)


def plain(rows, wrap):
    nats, tokens = numpy.zeros(len(rows)), numpy.zeros(len(rows))
    for number, row in enumerate(rows):
        text = []
        for place, token in enumerate([*row, None]):
            if token in (PAD, MASK):
                continue
            if token not in (BOS, EOS, None):
                text.append(token)
                continue
            ended = token == EOS and not (wrap and place == len(row) - 1)
            if text:
                scored = sliding([BOS, *text] + [EOS] * ended)
                nats[number] += sum(loss for _, loss in scored)
                tokens[number] += len(scored)
            text = []
    return nats, tokens


def cases():
    random = numpy.random.default_rng(5)

    def letters(count):
        return random.integers(FIRST, FIRST + LETTERS, count).tolist()

    padded = [[BOS, *letters(count), EOS] + [PAD] * (17 - count) for count in (3, 7, 12, 17)]
    padded.append([BOS, *letters(4), MASK, *letters(3), EOS, *letters(5), EOS, PAD, PAD, PAD])
    joined = [[BOS, *letters(a), EOS, *letters(16 - a), EOS] for a in (2, 9, 15)]
    joined.append([BOS, EOS, *letters(6), EOS, EOS, *letters(8), EOS])
    # Longer than the model's rows, and without a special token.
    joined.append([BOS, *letters(30), EOS, *letters(7), EOS])
    joined.append(letters(21))
    return [(False, padded), (True, joined)]


def golden():
    variants = {"mdlm": lambda rows, _: mdlm(rows), "bd3lms": lambda rows, _: bd3lms(rows), "plain": plain}
    made = []
    for wrap, rows in cases():
        expected = {}
        for name, variant in variants.items():
            nats, tokens = variant(rows, wrap)
            perplexity = float(numpy.exp(nats.sum() / tokens.sum()))
            expected[name] = {"nats": nats.tolist(), "tokens": tokens.tolist(), "perplexity": perplexity}
        made.append({"wrap": wrap, "rows": rows, "expected": expected})
    special = {"mask": MASK, "bos": BOS, "eos": EOS, "pad": PAD}
    return {"special": special, "first_letter": FIRST, "context": CONTEXT, "model_length": MODEL_LENGTH, "cases": made}


if __name__ == "__main__":
    if len(sys.argv) != 3 or sys.argv[1] != "golden":
        sys.exit(__doc__)
    with open(sys.argv[2], "w", encoding="utf-8") as file:
        json.dump(golden(), file, indent=1)
        file.write("\n")
