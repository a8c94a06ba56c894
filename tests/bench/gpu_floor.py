"""The work of a training step on a GPU: operations and bytes of each kernel, and the least time that they take.

    python3 tests/bench/gpu_floor.py > tests/bench/gpu-floor.md

All figures are computed from the shapes. Operations are those of matrix products, two for a multiplication and an addition.
The last block's queries, output and MLP and the output layer are counted for masked positions only, half of all. Bytes are
the reads and writes that each kernel needs at least once, with bf16 activations, for the kernels as they are now.
"""

# V, L, D, H, N, C: as `mdlm shapes` lists them.
SHAPES = {
    "lm1b-small": (30522, 128, 768, 12, 12, 128),
    "owt-small": (50258, 1024, 768, 12, 12, 128),
}
ROWS = {"lm1b-small": 512, "owt-small": 64}
MASKED = 0.5
# Published measurements of an H200; a run that reports a result measures them again.
TFLOPS, TERABYTES = 790, 4.3


def products(shape):
    """(what, operations a token forward, what share of the tokens takes part), of a block and of the rest."""
    v, length, d, _, blocks, _ = SHAPES[shape]
    # Of one block, in multiply-adds a token: D² each of q, k, v, output; 8 D² of the MLP; scores and mixing.
    keys, queries, output, mlp = 2 * d * d, d * d, d * d, 8 * d * d
    attention = 2 * length * d
    rows = []
    for name, macs, last in [
        ("keys and values", keys, 1),
        ("queries", queries, MASKED),
        ("attention", attention, MASKED),
        ("attention's output", output, MASKED),
        ("MLP", mlp, MASKED),
    ]:
        rows.append((name, 2 * macs * (blocks - 1 + last)))
    rows.append(("output layer", 2 * v * d * MASKED))
    return rows


def flops_per_token(shape):
    """Operations of a training step per token: the backward pass does twice what the forward pass does."""
    return 3 * sum(flops for _, flops in products(shape))


def parameters(shape):
    v, _, d, _, blocks, c = SHAPES[shape]
    block = 2 * d + 12 * d * d + 5 * d + 6 * d * c + 6 * d
    return 2 * v * d + v + d + 256 * c + c + c * c + c + 2 * d * c + 2 * d + blocks * block


def kernels(shape):
    """(kernel, bytes a token, operations a token) of a whole step."""
    v, length, d, heads, blocks, _ = SHAPES[shape]
    tokens = ROWS[shape] * length
    n, unit = MASKED, 2 * d  # bytes of a token's row of the residual stream
    depth = blocks - 1 + n  # blocks, the last of them for masked positions alone
    both = blocks - 1 + 1  # blocks whose norm before the keys is for all
    products_of = dict(products(shape))
    rows = [
        ("matrix products, forward: factors and results", unit * ((2 + 1) * both + (1 + 1 + 1 + 1) * depth + (1 + 4 + 4 + 4 + 1) * depth),
         sum(products_of[x] for x in ("keys and values", "queries", "attention's output", "MLP"))),
        ("matrix products, backward", unit * 2 * ((2 + 1) * both + (1 + 1 + 1 + 1) * depth + (1 + 4 + 4 + 1) * depth),
         2 * sum(products_of[x] for x in ("keys and values", "queries", "attention's output", "MLP"))),
        ("attention, forward", unit * (1 + 2 + 1) * depth, products_of["attention"]),
        ("attention, δ of the backward pass", unit * 2 * depth, 0),
        ("attention, backward by keys", unit * (1 + 2 + 1 + 2) * depth, 2 * products_of["attention"]),
        ("attention, backward by queries", unit * (1 + 2 + 1 + 1) * depth, 1.5 * products_of["attention"]),
        ("norms, forward", unit * 2 * (both + depth + n), 0),
        ("norms, backward", unit * 4 * (both + depth + n), 0),
        ("gate, dropout, residual, forward", unit * 3 * 2 * depth, 0),
        ("gate, dropout, residual, backward", unit * 3 * 2 * depth, 0),
        ("gradients of biases that no matrix product computes", unit * (4 + 1) * depth, 0),
        ("embedding and its gradient", unit * 3, 0),
        ("output layer: logits in f32, their gradients", n * v * (4 + 4 + 4 + 2 + 2 + 2), 3 * products_of["output layer"]),
        ("norm of the gradient, clip, AdamW, average", 46 * parameters(shape) / tokens, 0),
    ]
    return rows


def main():
    print("# The work of a training step on a GPU\n")
    print("No GPU has run mdlm yet: this page has no measured times. `gpu_floor.py` counts the work and computes the least time")
    print("of each kernel from it. A run of `tests/peers/gpu.sh` on a GPU will give the times for the last column: it measures the")
    print("card's limits first and then times each kernel (`mdlm bench --kernels`).\n")
    for shape, rows in ROWS.items():
        length = SHAPES[shape][1]
        tokens = rows * length
        all_bytes = sum(per for _, per, _ in kernels(shape))
        flops = flops_per_token(shape)
        arithmetic, traffic = flops * tokens / TFLOPS / 1e9, all_bytes * tokens / TERABYTES / 1e9
        print(f"## `{shape}`, {rows} rows of {length}\n")
        print(f"- {flops / 1e9:.3f} GFLOP a token, {flops * tokens / 1e12:.1f} TFLOP a step: {arithmetic:.1f} ms at {TFLOPS} TFLOP/s.")
        print(f"- {all_bytes / 1e3:.0f} kB a token, {all_bytes * tokens / 1e9:.1f} GB a step: {traffic:.1f} ms at {TERABYTES} TB/s.")
        floor = sum(max(per * tokens / TERABYTES / 1e9, work * tokens / TFLOPS / 1e9) for _, per, work in kernels(shape))
        print(f"- Sum over the kernels of the larger of both times: {floor:.1f} ms, {tokens / floor / 1e3:.2f} million tokens a second;")
        print(f"  55% of the matrix rate would be {0.55 * TFLOPS * 1e12 / flops / 1e6:.2f} million.\n")
        print("| kernel | GB | TFLOP | floor, ms | measured, ms |\n|---|---|---|---|---|")
        for name, per, work in kernels(shape):
            least = max(per * tokens / TERABYTES / 1e9, work * tokens / TFLOPS / 1e9)
            print(f"| {name} | {per * tokens / 1e9:.1f} | {work * tokens / 1e12:.2f} | {least:.2f} | |")
        print()


if __name__ == "__main__":
    main()
