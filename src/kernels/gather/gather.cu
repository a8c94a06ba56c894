// Rows of an activation picked, and their gradients put back. WIDTH: D.
#include "device.h"

// y[i] = x[rows[i]]; a block a row.
extern "C" __global__ void gather_forward(GLOBAL(const element) x, GLOBAL(const uint32_t) rows, GLOBAL(element) y) {
  size_t from = size_t(rows[blockIdx.x]) * WIDTH, to = size_t(blockIdx.x) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) y[to + column] = x[from + column];
}
KERNEL(gather_forward)

// dx[entries[e]] += Σ dy[order[i]] over starts[e] ≤ i < starts[e + 1], in order; a block an entry.
extern "C" __global__ void gather_backward(GLOBAL(const element) dy, GLOBAL(const uint32_t) order, GLOBAL(const uint32_t) starts,
                                GLOBAL(const uint32_t) entries, GLOBAL(element) dx) {
  uint32_t first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  size_t to = size_t(entries[blockIdx.x]) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float sum = wide(dx[to + column]);
    for (uint32_t i = first; i < end; i++) sum += wide(dy[size_t(order[i]) * WIDTH + column]);
    narrow(dx[to + column], sum);
  }
}
KERNEL(gather_backward)
