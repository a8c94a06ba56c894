// y = n · weight · (1 + scale) + shift, n = (x − μ) / √(σ² + ε). WIDTH: D. COLUMNS: of a modulation row. SHIFT, SCALE: where
// in it they begin. LENGTH: token rows of a batch row.
//
// Per row, of D elements each: forward reads x and writes y; backward reads x and dy, and writes dx (or reads and writes
// it). What is read of a modulation and of the weight stays in the caches.
#include "device.h"

#define EPSILON 1e-5f
#define WARPS 4
#define N (WIDTH % LANES == 0 ? LANES : 1)
// Accesses of a lane to a row: lane l has the l-th, the 32 + l-th, ….
#define PACKS (WIDTH / N)
#define EACH ((PACKS + 31) / 32)

// A warp a row: what it has of it stays in its registers. statistics[r] = (μ, 1 / √(σ² + ε)).
extern "C" __global__ void norm_forward(GLOBAL(const element) x, GLOBAL(const float) weight, GLOBAL(const element) modulation,
                             GLOBAL(element) y, GLOBAL(float) statistics, GLOBAL(const uint32_t) listed,
                             uint32_t is_listed, uint32_t rows, uint32_t shared) {
  uint32_t row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  Pack<N> values[EACH];
  size_t at = size_t(row) * WIDTH;
  float sum = 0.f;
#pragma unroll
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t pack = i * 32 + lane;
    if (pack < PACKS) {
      values[i] = load<N>(x, at + pack * N);
      for (int j = 0; j < N; j++) sum += values[i].at[j];
    }
  }
  float mean = warp_sum(sum) / WIDTH;
  float squares = 0.f;
#pragma unroll
  for (uint32_t i = 0; i < EACH; i++)
    if (i * 32 + lane < PACKS)
      for (int j = 0; j < N; j++) {
        float distance = values[i].at[j] - mean;
        squares += distance * distance;
      }
  float scale_to_one = rsqrtf(warp_sum(squares) / WIDTH + EPSILON);
  size_t m = shared ? 0 : size_t(token_row(listed, is_listed, row) / LENGTH) * COLUMNS;
#pragma unroll
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t column = (i * 32 + lane) * N;
    if (column >= WIDTH) break;
    Pack<N> shift = load<N>(modulation, m + SHIFT + column), scale = load<N>(modulation, m + SCALE + column);
    Pack<N> factor = load_floats<N>(weight, column);
    for (int j = 0; j < N; j++)
      values[i].at[j] = (values[i].at[j] - mean) * scale_to_one * factor.at[j] * (1.f + scale.at[j]) + shift.at[j];
    store<N>(y, at + column, values[i]);
  }
  if (lane == 0) {
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = scale_to_one;
  }
}
KERNEL(norm_forward)

// dx = ρ (g − mean(g) − n · mean(g · n)), g = dy · weight · (1 + scale), added to what is there if `add`; and of a chunk of
// the rows of modulation row m = block.y, starts[m] + block.x · chunk ≤ r < starts[m + 1], in the order of the warps:
// partial[m, block.x] = (Σ dy, Σ dy · n). A warp a row in turn.
extern "C" __global__ void norm_backward(GLOBAL(const element) x, GLOBAL(const float) weight, GLOBAL(const element) modulation,
                              GLOBAL(const float) statistics, GLOBAL(const element) dy, GLOBAL(element) dx,
                              GLOBAL(const uint32_t) starts, GLOBAL(float) partial, uint32_t chunk, uint32_t add) {
  SHARED_ARRAY(float, sums, 0, WARPS * 2 * WIDTH);
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  uint32_t first = starts[blockIdx.y] + blockIdx.x * chunk, end = starts[blockIdx.y + 1];
  if (first + chunk < end) end = first + chunk;
  size_t m = size_t(blockIdx.y) * COLUMNS;
  Pack<N> shifts[EACH], products[EACH];
  for (uint32_t i = 0; i < EACH; i++)
    for (int j = 0; j < N; j++) shifts[i].at[j] = products[i].at[j] = 0.f;
  for (uint32_t row = first + warp; row < end; row += WARPS) {
    Pack<N> slopes[EACH], normal[EACH];
    size_t at = size_t(row) * WIDTH;
    float mean = statistics[2 * row], scale_to_one = statistics[2 * row + 1];
    float sum = 0.f, product = 0.f;
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
      uint32_t column = (i * 32 + lane) * N;
      if (column < WIDTH) {
        normal[i] = load<N>(x, at + column);
        slopes[i] = load<N>(dy, at + column);
      }
    }
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
      uint32_t column = (i * 32 + lane) * N;
      if (column >= WIDTH) break;
      Pack<N> factor = load_floats<N>(weight, column), scale = load<N>(modulation, m + SCALE + column);
      for (int j = 0; j < N; j++) {
        normal[i].at[j] = (normal[i].at[j] - mean) * scale_to_one;
        shifts[i].at[j] += slopes[i].at[j];
        products[i].at[j] += slopes[i].at[j] * normal[i].at[j];
        slopes[i].at[j] *= factor.at[j] * (1.f + scale.at[j]);
        sum += slopes[i].at[j];
        product += slopes[i].at[j] * normal[i].at[j];
      }
    }
    sum = warp_sum(sum) / WIDTH;
    product = warp_sum(product) / WIDTH;
#pragma unroll
    for (uint32_t i = 0; i < EACH; i++) {
      uint32_t column = (i * 32 + lane) * N;
      if (column >= WIDTH) break;
      for (int j = 0; j < N; j++) slopes[i].at[j] = scale_to_one * (slopes[i].at[j] - sum - normal[i].at[j] * product);
      if (add) {
        Pack<N> there = load<N>(dx, at + column);
        for (int j = 0; j < N; j++) slopes[i].at[j] += there.at[j];
      }
      store<N>(dx, at + column, slopes[i]);
    }
  }
#pragma unroll
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t column = (i * 32 + lane) * N;
    if (column >= WIDTH) break;
    for (int j = 0; j < N; j++) {
      sums[warp * 2 * WIDTH + column + j] = shifts[i].at[j];
      sums[warp * 2 * WIDTH + WIDTH + column + j] = products[i].at[j];
    }
  }
  __syncthreads();
  size_t to = (size_t(blockIdx.y) * gridDim.x + blockIdx.x) * 2 * WIDTH;
  for (uint32_t i = threadIdx.x; i < 2 * WIDTH; i += blockDim.x) {
    float sum = sums[i];
    for (uint32_t other = 1; other < WARPS; other++) sum += sums[other * 2 * WIDTH + i];
    partial[to + i] = sum;
  }
}
KERNEL(norm_backward)

// Of modulation row m = block.y, over its chunks: dshift = Σ dy and dscale = Σ dy · n · weight, added to dmodulation;
// weights[m] = Σ dy · n · (1 + scale), dweight's share. 32 columns a block.
extern "C" __global__ void norm_parameters(GLOBAL(const float) weight, GLOBAL(const element) modulation,
                                GLOBAL(const float) partial, GLOBAL(element) dmodulation, GLOBAL(float) weights,
                                uint32_t chunks) {
  SHARED_ARRAY(float, eighths, 0, 256);
  uint32_t column = blockIdx.x * 32 + threadIdx.x % 32;
  bool is_column = column < WIDTH;
  size_t first = size_t(blockIdx.y) * chunks * 2 * WIDTH + column;
  float shifts = column_total(partial, first, 2 * WIDTH, chunks, is_column, eighths);
  float products = column_total(partial, first + WIDTH, 2 * WIDTH, chunks, is_column, eighths);
  if (threadIdx.x >= 32 || !is_column) return;
  size_t m = size_t(blockIdx.y) * COLUMNS, shift = m + SHIFT + column, scale = m + SCALE + column;
  narrow(dmodulation[shift], wide(dmodulation[shift]) + shifts);
  narrow(dmodulation[scale], wide(dmodulation[scale]) + products * weight[column]);
  weights[size_t(blockIdx.y) * WIDTH + column] = products * (1.f + wide(modulation[scale]));
}
KERNEL(norm_parameters)
