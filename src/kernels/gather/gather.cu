// Rows of an activation picked, and their gradients put back. WIDTH: D. Each way reads and writes the rows picked.
#include "device.h"

#define N (WIDTH % LANES == 0 ? LANES : 1)
#define PACKS (WIDTH / N)

// y[i] = x[rows[i]]; a thread a pack.
extern "C" __global__ void gather_forward(GLOBAL(const element) x, GLOBAL(const uint32_t) rows, GLOBAL(element) y,
                                          uint32_t count) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= count) return;
  store<N>(y, size_t(row) * WIDTH + column, load<N>(x, size_t(rows[row]) * WIDTH + column));
}
KERNEL(gather_forward)

// dx[entries[e]] += Σ dy[order[i]] over starts[e] ≤ i < starts[e + 1], in order; a thread a pack of an entry, of which there
// may be fewer than `count`: those have no rows.
extern "C" __global__ void gather_backward(GLOBAL(const element) dy, GLOBAL(const uint32_t) order,
                                           GLOBAL(const uint32_t) starts, GLOBAL(const uint32_t) entries,
                                           GLOBAL(element) dx, uint32_t count) {
  uint32_t at = blockIdx.x * blockDim.x + threadIdx.x, entry = at / PACKS, column = at % PACKS * N;
  if (entry >= count) return;
  uint32_t first = starts[entry], end = starts[entry + 1];
  if (first == end) return;
  size_t to = size_t(entries[entry]) * WIDTH + column;
  Pack<N> sum = load<N>(dx, to);
  for (uint32_t i = first; i < end; i++) {
    Pack<N> own = load<N>(dy, size_t(order[i]) * WIDTH + column);
    for (int j = 0; j < N; j++) sum.at[j] += own.at[j];
  }
  store<N>(dx, to, sum);
}
KERNEL(gather_backward)
