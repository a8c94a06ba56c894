// y = x + gate · f · branch; f is dropout's factor. WIDTH: D. COLUMNS: of a modulation row. GATE: where in it the gate
// begins. LENGTH: token rows of a batch row.
//
// Per row, of D elements each: forward reads x and branch and writes y; backward reads branch and dy and writes dbranch (dx
// is dy itself). Four neighbouring elements share a block of random words.
#include "device.h"

#define WARPS 4
#define N (WIDTH % LANES == 0 ? LANES : 1)
#define PACKS (WIDTH / N)
#define EACH ((PACKS + 31) / 32)

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

// Dropout's factors for the elements of a token row from `column` on. `random`: key (2), step (2), first row of the
// micro-batch (2), in words of 32 bits, low ones first: what changes from step to step lies in memory.
__device__ Pack<N> factors(Drop drop, GLOBAL(const uint32_t) random, uint32_t token_row, uint32_t column) {
  Pack<N> pack;
  for (int j = 0; j < N; j++) pack.at[j] = 1.f;
  if (drop.threshold == 0) return pack;
  uint64_t row = (uint64_t(random[5]) << 32 | random[4]) + token_row / LENGTH;
  uint32_t first = token_row % LENGTH * WIDTH + column;
  uint32_t last = uint32_t(row >> 32) & 0xFFFFu;
  if constexpr (N == 1) {
    uint32_t words[4] = {drop.site << 24 | first / 4, uint32_t(row), random[2], random[3] << 16 | last};
    philox(words, random[0], random[1]);
    pack.at[0] = words[first % 4] >= drop.threshold ? drop.scale : 0.f;
  } else {
#pragma unroll
    for (int four = 0; four < N; four += 4) {
      uint32_t words[4] = {drop.site << 24 | (first + four) / 4, uint32_t(row), random[2], random[3] << 16 | last};
      philox(words, random[0], random[1]);
      for (int j = 0; j < 4; j++) pack.at[four + j] = words[j] >= drop.threshold ? drop.scale : 0.f;
    }
  }
  return pack;
}

// A thread a pack.
extern "C" __global__ void residual_forward(GLOBAL(const element) x, GLOBAL(const element) branch,
                                 GLOBAL(const element) modulation, GLOBAL(element) y, GLOBAL(const uint32_t) listed,
                                 uint32_t is_listed, uint32_t rows, uint32_t shared, GLOBAL(const uint32_t) random,
                                 uint32_t threshold, float scale, uint32_t site) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= rows) return;
  Drop drop = {threshold, scale, site};
  uint32_t token = token_row(listed, is_listed, row);
  size_t at = size_t(row) * WIDTH + column, m = shared ? 0 : size_t(token / LENGTH) * COLUMNS;
  Pack<N> sum = load<N>(x, at), passed = load<N>(branch, at), gate = load<N>(modulation, m + GATE + column);
  Pack<N> kept = factors(drop, random, token, column);
  for (int j = 0; j < N; j++) sum.at[j] += gate.at[j] * (passed.at[j] * kept.at[j]);
  store<N>(y, at, sum);
}
KERNEL(residual_forward)

// Of a chunk of the rows of modulation row m = block.y, starts[m] + block.x · chunk ≤ r < starts[m + 1]:
// dbranch = dy · f · gate, and partial[m, block.x] = Σ dy · f · branch, in the order of the warps. A warp a row in turn.
extern "C" __global__ void residual_backward(GLOBAL(const element) branch, GLOBAL(const element) modulation,
                                  GLOBAL(const element) dy, GLOBAL(const uint32_t) starts, GLOBAL(element) dbranch,
                                  GLOBAL(float) partial, uint32_t chunk, GLOBAL(const uint32_t) listed,
                                  uint32_t is_listed, GLOBAL(const uint32_t) random, uint32_t threshold, float scale,
                                  uint32_t site) {
  SHARED_ARRAY(float, sums, 0, WARPS * WIDTH);
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t first = starts[blockIdx.y] + blockIdx.x * chunk, end = starts[blockIdx.y + 1];
  if (first + chunk < end) end = first + chunk;
  size_t m = size_t(blockIdx.y) * COLUMNS;
  Drop drop = {threshold, scale, site};
  Pack<N> gates[EACH];
  for (uint32_t i = 0; i < EACH; i++)
    for (int j = 0; j < N; j++) gates[i].at[j] = 0.f;
  for (uint32_t row = first + warp; row < end; row += WARPS) {
    uint32_t token = token_row(listed, is_listed, row);
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
      uint32_t column = (i * 32 + lane) * N;
      if (column >= WIDTH) break;
      size_t at = size_t(row) * WIDTH + column;
      Pack<N> slope = load<N>(dy, at), passed = load<N>(branch, at), gate = load<N>(modulation, m + GATE + column);
      Pack<N> kept = factors(drop, random, token, column);
      for (int j = 0; j < N; j++) {
        slope.at[j] *= kept.at[j];
        gates[i].at[j] += slope.at[j] * passed.at[j];
        slope.at[j] *= gate.at[j];
      }
      store<N>(dbranch, at, slope);
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t column = (i * 32 + lane) * N;
    if (column >= WIDTH) break;
    for (int j = 0; j < N; j++) sums[warp * WIDTH + column + j] = gates[i].at[j];
  }
  __syncthreads();
  size_t to = (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float sum = sums[column];
    for (uint32_t other = 1; other < WARPS; other++) sum += sums[other * WIDTH + column];
    partial[to + column] = sum;
  }
}
KERNEL(residual_backward)

// dgate of modulation row m = block.y, over its chunks, added to dmodulation. 32 columns a block.
extern "C" __global__ void residual_gates(GLOBAL(const float) partial, GLOBAL(element) dmodulation, uint32_t chunks) {
  SHARED_ARRAY(float, eighths, 0, 256);
  uint32_t column = blockIdx.x * 32 + threadIdx.x % 32;
  bool is_column = column < WIDTH;
  float sum = column_total(partial, size_t(blockIdx.y) * chunks * WIDTH + column, WIDTH, chunks, is_column, eighths);
  if (threadIdx.x >= 32 || !is_column) return;
  size_t to = size_t(blockIdx.y) * COLUMNS + GATE + column;
  narrow(dmodulation[to], wide(dmodulation[to]) + sum);
}
KERNEL(residual_gates)
