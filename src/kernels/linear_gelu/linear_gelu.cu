// GELU, the tanh form: u · sigmoid(2z), z = √(2/π)(u + 0.044715u³), for where products do not go through it themselves.
// WIDTH: columns. A thread a pack.
#include "device.h"

#define OUTER 1.5957691216f   // 2 √(2/π)
#define CUBIC 0.0713548162726f // 2 √(2/π) · 0.044715
#define N (WIDTH % LANES == 0 ? LANES : 1)
#define PACKS (WIDTH / N)

// u[r] += b, y = gelu(u).
extern "C" __global__ void bias_gelu(GLOBAL(const float) b, GLOBAL(element) u, GLOBAL(element) y, uint32_t rows) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= rows) return;
  size_t at = size_t(row) * WIDTH + column;
  Pack<N> value = load<N>(u, at), bias = load_floats<N>(b, column);
  for (int j = 0; j < N; j++) value.at[j] += bias.at[j];
  store<N>(u, at, value);
  for (int j = 0; j < N; j++) {
    float own = value.at[j];
    value.at[j] = own * sigmoid(own * (OUTER + CUBIC * own * own));
  }
  store<N>(y, at, value);
}
KERNEL(bias_gelu)

// dy becomes du.
extern "C" __global__ void gelu_backward(GLOBAL(const element) u, GLOBAL(element) dy, uint32_t rows) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x, row = i / PACKS, column = i % PACKS * N;
  if (row >= rows) return;
  size_t at = size_t(row) * WIDTH + column;
  Pack<N> value = load<N>(u, at), slope = load<N>(dy, at);
  for (int j = 0; j < N; j++) {
    float own = value.at[j], square = own * own, s = sigmoid(own * (OUTER + CUBIC * square));
    slope.at[j] *= s + own * s * (1.f - s) * (OUTER + 3.f * CUBIC * square);
  }
  store<N>(dy, at, slope);
}
KERNEL(gelu_backward)
