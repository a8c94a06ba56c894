// GELU, the tanh form: u · sigmoid(2z), z = √(2/π)(u + 0.044715u³). WIDTH: columns.
#include "device.h"

#define OUTER 1.5957691216f   // 2 √(2/π)
#define CUBIC 0.0713548162726f // 2 √(2/π) · 0.044715

// u[r] += b, y = gelu(u); a block a row.
extern "C" __global__ void bias_gelu(GLOBAL(const float) b, GLOBAL(element) u, GLOBAL(element) y) {
  size_t row = size_t(blockIdx.x) * WIDTH;
  for (uint32_t column = threadIdx.x; column < WIDTH; column += blockDim.x) {
    float value = wide(u[row + column]) + b[column];
    narrow(u[row + column], value);
    // What the backward pass sees is what was rounded.
    value = wide(u[row + column]);
    narrow(y[row + column], value * sigmoid(value * (OUTER + CUBIC * value * value)));
  }
}
KERNEL(bias_gelu)

// dy becomes du.
extern "C" __global__ void gelu_backward(GLOBAL(const element) u, GLOBAL(element) dy, uint32_t count) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = wide(u[i]), square = value * value;
  float s = sigmoid(value * (OUTER + CUBIC * square));
  float slope = s + value * s * (1.f - s) * (OUTER + 3.f * CUBIC * square);
  narrow(dy[i], wide(dy[i]) * slope);
}
KERNEL(gelu_backward)
