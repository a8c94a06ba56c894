// y = x + gate · f · branch; f is dropout's factor. WIDTH: D. COLUMNS: of a modulation row. GATE: where in it the gate
// begins. LENGTH: token rows of a batch row.
#include "device.h"

struct Drop {
  uint32_t threshold; // words below it drop; 0: no dropout
  float scale;        // 1 / (1 − rate)
  uint32_t site;
};

// A block of Philox4x32-10 (Salmon et al. 2011): the same words as `rng::philox`.
__device__ void philox(uint32_t *counter, uint32_t key0, uint32_t key1) {
  for (int round = 0; round < 10; round++) {
    uint32_t low0 = 0xD2511F53u * counter[0], high0 = __umulhi(0xD2511F53u, counter[0]);
    uint32_t low1 = 0xCD9E8D57u * counter[2], high1 = __umulhi(0xCD9E8D57u, counter[2]);
    uint32_t first = high1 ^ counter[1] ^ key0, third = high0 ^ counter[3] ^ key1;
    counter[0] = first;
    counter[1] = low1;
    counter[2] = third;
    counter[3] = low0;
    key0 += 0x9E3779B9u;
    key1 += 0xBB67AE85u;
  }
}

// Dropout's factor for an element of a token row. `random`: key (2), step (2), first row of the micro-batch (2), in words of
// 32 bits, low ones first: what changes from step to step lies in memory.
__device__ float factor(Drop drop, GLOBAL(const uint32_t) random, uint32_t token_row, uint32_t column) {
  if (drop.threshold == 0) return 1.f;
  uint64_t row = (uint64_t(random[5]) << 32 | random[4]) + token_row / LENGTH;
  uint32_t element = token_row % LENGTH * WIDTH + column;
  uint32_t counter[4] = {drop.site << 24 | element / 4, uint32_t(row), random[2],
                         random[3] << 16 | (uint32_t(row >> 32) & 0xFFFFu)};
  philox(counter, random[0], random[1]);
  return counter[element % 4] >= drop.threshold ? drop.scale : 0.f;
}

// A block a row.
extern "C" __global__ void residual_forward(GLOBAL(const element) x, GLOBAL(const element) branch,
                                 GLOBAL(const element) modulation, GLOBAL(element) y, GLOBAL(const uint32_t) listed,
                                 uint32_t is_listed, uint32_t shared, GLOBAL(const uint32_t) random,
                                 uint32_t threshold, float scale, uint32_t site) {
  Drop drop = {threshold, scale, site};
  uint32_t token = token_row(listed, is_listed, blockIdx.x);
  size_t at = size_t(blockIdx.x) * WIDTH, m = shared ? 0 : size_t(token / LENGTH) * COLUMNS;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float gate = wide(modulation[m + GATE + column]);
    float passed = wide(branch[at + column]) * factor(drop, random, token, column);
    narrow(y[at + column], wide(x[at + column]) + gate * passed);
  }
}
KERNEL(residual_forward)

// Over the rows starts[m] ≤ r < starts[m + 1] of modulation row m = block.y, in order, a thread a column:
// dbranch = dy · f · gate, and dgate = Σ dy · f · branch, added to dmodulation.
extern "C" __global__ void residual_backward(GLOBAL(const element) branch, GLOBAL(const element) modulation,
                                  GLOBAL(const element) dy, GLOBAL(const uint32_t) starts, GLOBAL(element) dbranch,
                                  GLOBAL(element) dmodulation, GLOBAL(const uint32_t) listed, uint32_t is_listed,
                                  GLOBAL(const uint32_t) random, uint32_t threshold, float scale, uint32_t site) {
  uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= WIDTH) return;
  Drop drop = {threshold, scale, site};
  size_t to = size_t(blockIdx.y) * COLUMNS + GATE + column;
  float gate = wide(modulation[to]), sum = 0.f;
  for (uint32_t row = starts[blockIdx.y]; row < starts[blockIdx.y + 1]; row++) {
    size_t at = size_t(row) * WIDTH + column;
    float passed = wide(dy[at]) * factor(drop, random, token_row(listed, is_listed, row), column);
    sum += passed * wide(branch[at]);
    narrow(dbranch[at], passed * gate);
  }
  narrow(dmodulation[to], wide(dmodulation[to]) + sum);
}
KERNEL(residual_backward)
