// Rows of a table looked up, and the gradient of the table, without atomics. WIDTH: D.
//
// Forward reads and writes a row a token; backward reads one.
#include "device.h"

#define N (WIDTH % LANES == 0 ? LANES : 1)
#define PACKS (WIDTH / N)

// y[i] = table[tokens[i]]; a thread a pack.
extern "C" __global__ void embed_forward(GLOBAL(const element) table, GLOBAL(const uint32_t) tokens, GLOBAL(element) y,
                                         uint32_t rows) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= rows) return;
  store<N>(y, size_t(row) * WIDTH + column, load<N>(table, size_t(tokens[row]) * WIDTH + column));
}
KERNEL(embed_forward)

// The rows of the gradient are taken by token, in order, cut into segments: partial[s] = Σ dy[order[i]] over
// cuts[s] ≤ i < cuts[s + 1]. A block a segment; there may be fewer than blocks, which are empty then.
extern "C" __global__ void embed_segments(GLOBAL(const element) dy, GLOBAL(const uint32_t) order,
                                          GLOBAL(const uint32_t) cuts, GLOBAL(float) partial) {
  uint32_t first = cuts[blockIdx.x], end = cuts[blockIdx.x + 1];
  if (first == end) return;
  for (uint32_t column = threadIdx.x * N; column < WIDTH; column += blockDim.x * N) {
    Pack<N> sum;
    for (int j = 0; j < N; j++) sum.at[j] = 0.f;
#pragma unroll 4
    for (uint32_t i = first; i < end; i++) {
      Pack<N> own = load<N>(dy, size_t(order[i]) * WIDTH + column);
      for (int j = 0; j < N; j++) sum.at[j] += own.at[j];
    }
    store_floats<N>(partial, size_t(blockIdx.x) * WIDTH + column, sum);
  }
}
KERNEL(embed_segments)

// dtable[entries[e]] += Σ partial[s] over segments[e] ≤ s < segments[e + 1], in order; a block an entry, of which there may
// be fewer than blocks.
extern "C" __global__ void embed_entries(GLOBAL(const float) partial, GLOBAL(const uint32_t) entries,
                                         GLOBAL(const uint32_t) segments, GLOBAL(float) dtable) {
  uint32_t first = segments[blockIdx.x], end = segments[blockIdx.x + 1];
  if (first == end) return;
  size_t to = size_t(entries[blockIdx.x]) * WIDTH;
  for (uint32_t column = threadIdx.x * N; column < WIDTH; column += blockDim.x * N) {
    Pack<N> sum = load_floats<N>(dtable, to + column);
    for (uint32_t s = first; s < end; s++) {
      Pack<N> own = load_floats<N>(partial, size_t(s) * WIDTH + column);
      for (int j = 0; j < N; j++) sum.at[j] += own.at[j];
    }
    store_floats<N>(dtable, to + column, sum);
  }
}
KERNEL(embed_entries)
