// Rows of a table looked up, and their gradients added: in the order of the rows, without atomics. WIDTH: D.
#include "device.h"

// y[r] = table[tokens[r]]; a block a row.
extern "C" __global__ void embed_forward(GLOBAL(const element) table, GLOBAL(const uint32_t) tokens, GLOBAL(element) y) {
  size_t from = size_t(tokens[blockIdx.x]) * WIDTH, to = size_t(blockIdx.x) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) y[to + column] = table[from + column];
}
KERNEL(embed_forward)

// The rows of dy are listed by the table's entry that they were looked up from (`order`), ascending within one, and cut
// into segments of bounded length, so that the mask's entry, which has half of them, is no one block's work.
// partial[s] = Σ dy[order[i]] over starts[s] ≤ i < starts[s + 1]; a block a segment.
extern "C" __global__ void embed_segments(GLOBAL(const element) dy, GLOBAL(const uint32_t) order, GLOBAL(const uint32_t) starts,
                               GLOBAL(float) partial) {
  uint32_t first = starts[blockIdx.x], end = starts[blockIdx.x + 1];
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float sum = 0.f;
    for (uint32_t i = first; i < end; i++) sum += wide(dy[size_t(order[i]) * WIDTH + column]);
    partial[size_t(blockIdx.x) * WIDTH + column] = sum;
  }
}
KERNEL(embed_segments)

// table[entries[e]] += Σ partial[s] over segments[e] ≤ s < segments[e + 1]; a block an entry.
extern "C" __global__ void embed_entries(GLOBAL(const float) partial, GLOBAL(const uint32_t) entries,
                              GLOBAL(const uint32_t) segments, GLOBAL(float) table) {
  uint32_t first = segments[blockIdx.x], end = segments[blockIdx.x + 1];
  size_t to = size_t(entries[blockIdx.x]) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float sum = table[to + column];
    for (uint32_t s = first; s < end; s++) sum += partial[size_t(s) * WIDTH + column];
    table[to + column] = sum;
  }
}
KERNEL(embed_entries)
