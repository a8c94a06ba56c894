// What a linear layer needs beside its products. WIDTH: columns.
#include "device.h"

// y[r] += b; a block a row.
extern "C" __global__ void add_bias(GLOBAL(const float) b, GLOBAL(element) y) {
  size_t row = size_t(blockIdx.x) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x)
    narrow(y[row + column], wide(y[row + column]) + b[column]);
}
KERNEL(add_bias)

// partial[block.y] = Σ y[r] over the rows r of a chunk of `chunk`, in order; a thread a column.
extern "C" __global__ void column_sums(GLOBAL(const element) y, GLOBAL(float) partial, uint32_t rows, uint32_t chunk) {
  uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= WIDTH) return;
  uint32_t first = blockIdx.y * chunk, end = first + chunk < rows ? first + chunk : rows;
  float sum = 0.f;
  for (uint32_t row = first; row < end; row++) sum += wide(y[size_t(row) * WIDTH + column]);
  partial[size_t(blockIdx.y) * WIDTH + column] = sum;
}
KERNEL(column_sums)

// total += Σ partial[c] in order; a thread a column.
extern "C" __global__ void add_partial_sums(GLOBAL(const float) partial, GLOBAL(float) total, uint32_t chunks) {
  uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= WIDTH) return;
  float sum = total[column];
  for (uint32_t c = 0; c < chunks; c++) sum += partial[size_t(c) * WIDTH + column];
  total[column] = sum;
}
KERNEL(add_partial_sums)

// y += x, element by element.
extern "C" __global__ void add_elements(GLOBAL(const element) x, GLOBAL(element) y, uint32_t count) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) narrow(y[i], wide(y[i]) + wide(x[i]));
}
KERNEL(add_elements)
