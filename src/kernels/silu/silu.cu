// y = x · sigmoid(x) and its gradient, element by element.
#include "device.h"

extern "C" __global__ void silu_forward(GLOBAL(const element) x, GLOBAL(element) y, uint32_t count) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = wide(x[i]);
  narrow(y[i], value * sigmoid(value));
}
KERNEL(silu_forward)

// dx = dy · (s + x s (1 − s)), s = sigmoid(x), added to what is there if `add`.
extern "C" __global__ void silu_backward(GLOBAL(const element) x, GLOBAL(const element) dy, GLOBAL(element) dx, uint32_t count,
                              uint32_t add) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= count) return;
  float value = wide(x[i]), s = sigmoid(value);
  float slope = wide(dy[i]) * (s + value * s * (1.f - s));
  narrow(dx[i], add ? wide(dx[i]) + slope : slope);
}
KERNEL(silu_backward)
