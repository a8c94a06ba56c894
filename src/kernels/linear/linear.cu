// What a linear layer needs beside its products. WIDTH: columns.
//
// A bias costs nothing where products add it themselves; its gradient reads dy once.
#include "device.h"

#define N (WIDTH % LANES == 0 ? LANES : 1)
#define PACKS (WIDTH / N)

// y[r] += b; a thread a pack.
extern "C" __global__ void add_bias(GLOBAL(const float) b, GLOBAL(element) y, uint32_t rows) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= rows) return;
  size_t at = size_t(row) * WIDTH + column;
  Pack<N> sum = load<N>(y, at), bias = load_floats<N>(b, column);
  for (int j = 0; j < N; j++) sum.at[j] += bias.at[j];
  store<N>(y, at, sum);
}
KERNEL(add_bias)

// partial[block.y] = Σ y[r] over the rows r of a chunk of `chunk`, in order; a thread a pack of columns.
extern "C" __global__ void column_sums(GLOBAL(const element) y, GLOBAL(float) partial, uint32_t rows, uint32_t chunk) {
  uint32_t column = (blockIdx.x * blockDim.x + threadIdx.x) * N;
  if (column >= WIDTH) return;
  uint32_t first = blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
  Pack<N> sum;
  for (int j = 0; j < N; j++) sum.at[j] = 0.f;
#pragma unroll 4
  for (uint32_t row = first; row < end; row++) {
    Pack<N> own = load<N>(y, size_t(row) * WIDTH + column);
    for (int j = 0; j < N; j++) sum.at[j] += own.at[j];
  }
  store_floats<N>(partial, size_t(blockIdx.y) * WIDTH + column, sum);
}
KERNEL(column_sums)

// total += Σ partial[c]; 32 columns a block.
extern "C" __global__ void add_partial_sums(GLOBAL(const float) partial, GLOBAL(float) total, uint32_t chunks) {
  SHARED_ARRAY(float, eighths, 0, 256);
  uint32_t column = blockIdx.x * 32 + threadIdx.x % 32;
  bool is_column = column < WIDTH;
  float sum = column_total(partial, column, WIDTH, chunks, is_column, eighths);
  if (threadIdx.x < 32 && is_column) total[column] += sum;
}
KERNEL(add_partial_sums)

// y += x, element by element.
extern "C" __global__ void add_elements(GLOBAL(const element) x, GLOBAL(element) y, uint32_t count) {
  uint32_t i = (blockIdx.x * blockDim.x + threadIdx.x) * LANES;
  if (i + LANES <= count) {
    Pack<LANES> sum = load<LANES>(y, i), other = load<LANES>(x, i);
    for (int j = 0; j < LANES; j++) sum.at[j] += other.at[j];
    store<LANES>(y, i, sum);
    return;
  }
  for (; i < count; i++) narrow(y[i], wide(y[i]) + wide(x[i]));
}
KERNEL(add_elements)
