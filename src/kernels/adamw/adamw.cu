// The norm of all gradients, and the update of all weights. EACH: elements of a thread.
#include "device.h"

// Of `settings`, in this order; then the largest norm, 0 for none.
enum { BETA1, ONE_MINUS_BETA1, BETA2, ONE_MINUS_BETA2, KEEP, STEP, ROOT, EPSILON, ONE_MINUS_EMA, CLIP };
// Of `totals`, from step to step: the loss so far, and whether a step was not finite.
enum { LOSS, HALTED };

// partial[block] = Σ g² of its EACH · blockDim elements.
extern "C" __global__ void squares(GLOBAL(const float) gradient, GLOBAL(double) partial, uint32_t count) {
  SHARED_ARRAY(double, sums, 0, blockDim.x / 32);
  uint32_t first = blockIdx.x * EACH * blockDim.x + threadIdx.x;
  float sum = 0.f;
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t at = first + i * blockDim.x;
    float g = at < count ? gradient[at] : 0.f;
    sum += g * g;
  }
  double all = sum;
  for (int mask = 16; mask; mask /= 2) all += __shfl_xor_sync(ALL_LANES, all, mask);
  if (threadIdx.x % 32 == 0) sums[threadIdx.x / 32] = all;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (uint32_t warp = 1; warp < blockDim.x / 32; warp++) all += sums[warp];
  partial[blockIdx.x] = all;
}
KERNEL(squares)

// control = {factor of the gradient, whether weights move}; outcome = {loss, norm, halted}. One block.
extern "C" __global__ void decide(GLOBAL(const double) partial, uint32_t blocks, GLOBAL(const float) settings,
                                  GLOBAL(double) totals, GLOBAL(float) control, GLOBAL(double) outcome) {
  SHARED_ARRAY(double, sums, 0, blockDim.x);
  double sum = 0.;
  for (uint32_t i = threadIdx.x; i < blocks; i += blockDim.x) sum += partial[i];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (uint32_t thread = 1; thread < blockDim.x; thread++) sum += sums[thread];
  double norm = sqrt(sum), loss = totals[LOSS], clip = settings[CLIP];
  // A difference of infinities, and any with a NaN, is no zero.
  if (!(loss - loss == 0. && norm - norm == 0.)) totals[HALTED] = 1.;
  control[0] = clip > 0. && norm > clip ? float(clip / norm) : 1.f;
  control[1] = totals[HALTED] == 0. ? 1.f : 0.f;
  outcome[0] = loss;
  outcome[1] = norm;
  outcome[2] = totals[HALTED];
  totals[LOSS] = 0.;
}
KERNEL(decide)

// EACH elements a thread, those of a block side by side.
extern "C" __global__ void update(GLOBAL(float) weights, GLOBAL(element) working, GLOBAL(float) gradient,
                                  GLOBAL(float) first, GLOBAL(float) second, GLOBAL(float) average,
                                  GLOBAL(const float) settings, GLOBAL(const float) control, uint32_t count) {
  if (control[1] == 0.f) return;
  float scale = control[0];
  uint32_t begin = blockIdx.x * EACH * blockDim.x + threadIdx.x;
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t at = begin + i * blockDim.x;
    if (at >= count) return;
    float g = gradient[at] * scale;
    float m = settings[BETA1] * first[at] + settings[ONE_MINUS_BETA1] * g;
    float v = settings[BETA2] * second[at] + settings[ONE_MINUS_BETA2] * (g * g);
    float w = weights[at] * settings[KEEP] - settings[STEP] * m / (sqrtf(v) * settings[ROOT] + settings[EPSILON]);
    float mean = average[at];
    first[at] = m;
    second[at] = v;
    weights[at] = w;
    average[at] = mean + settings[ONE_MINUS_EMA] * (w - mean);
    gradient[at] = 0.f;
#ifdef ELEMENT_BF16
    narrow(working[at], w);
#endif
  }
}
KERNEL(update)

// into += from, element by element: the gradients of two grains, or of two sums of grains.
extern "C" __global__ void add_gradients(GLOBAL(float) into, GLOBAL(const float) from, uint32_t count) {
  uint32_t begin = blockIdx.x * EACH * blockDim.x + threadIdx.x;
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t at = begin + i * blockDim.x;
    if (at >= count) return;
    into[at] += from[at];
  }
}
KERNEL(add_gradients)

// The loss so far = Σ losses, one of each grain, in their order. One thread works.
extern "C" __global__ void fold_losses(GLOBAL(const double) losses, GLOBAL(double) totals, uint32_t count) {
  if (threadIdx.x > 0) return;
  double sum = 0.;
  for (uint32_t i = 0; i < count; i++) sum += losses[i];
  totals[LOSS] = sum;
}
KERNEL(fold_losses)

#ifdef ELEMENT_BF16
// The working copies of weights that another rank has updated.
extern "C" __global__ void refresh(GLOBAL(const float) weights, GLOBAL(element) working, uint32_t count) {
  uint32_t begin = blockIdx.x * EACH * blockDim.x + threadIdx.x;
  for (uint32_t i = 0; i < EACH; i++) {
    uint32_t at = begin + i * blockDim.x;
    if (at >= count) return;
    narrow(working[at], weights[at]);
  }
}
KERNEL(refresh)
#endif

// The weights and their average change places.
extern "C" __global__ void swap_average(GLOBAL(float) weights, GLOBAL(element) working, GLOBAL(float) average,
                                        uint32_t count) {
  uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  float w = average[at];
  average[at] = weights[at];
  weights[at] = w;
#ifdef ELEMENT_BF16
  narrow(working[at], w);
#endif
}
KERNEL(swap_average)
