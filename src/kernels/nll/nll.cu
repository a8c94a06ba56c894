// The masked negative log-likelihood of rows of logits, which are f32 and lack their bias. VOCABULARY: tokens; STRIDE:
// elements of a row, a multiple of 8. A block a row; `size` tokens of it are the alphabet, `mask` is not.
//
// Per position, V logits of 4 bytes are read twice, the second time from a cache, and V slopes written.
#include "device.h"

// The largest logit of a row, and Σ exp(logit − max).
struct Softmax {
  float max, sum;
};

// Four logits; those that are not in the alphabet are −∞.
__device__ float4 biased(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t token,
                         uint32_t size, uint32_t mask) {
  float4 four = as<const float4>(logits)[(row + token) / 4], own = as<const float4>(bias)[token / 4];
  auto in = [&](uint32_t which, float logit) { return which >= size || which == mask ? -INFINITY : logit; };
  return float4{in(token, four.x + own.x), in(token + 1, four.y + own.y), in(token + 2, four.z + own.z),
                in(token + 3, four.w + own.w)};
}

// One pass: a running maximum and a sum that is scaled when it rises (Milakov and Gimelshein, arXiv 1805.02867).
__device__ Softmax softmax(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t size,
                           uint32_t mask, SHARED(float) partial) {
  float max = -INFINITY, sum = 0.f;
  for (uint32_t token = 4 * threadIdx.x; token < size; token += 4 * blockDim.x) {
    float4 four = biased(logits, bias, row, token, size, mask);
    float top = fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w));
    if (top > max) {
      sum *= exponential(max - top);
      max = top;
    }
    // A NaN is passed over by fmaxf, and reaches the sum; before the first logit of the alphabet there is none to subtract.
    if (max > -INFINITY || !(top <= INFINITY))
      sum += exponential(four.x - max) + exponential(four.y - max) + exponential(four.z - max) + exponential(four.w - max);
  }
  float top = block_max(max, partial);
  sum = block_sum(max > -INFINITY ? sum * exponential(max - top) : sum, partial);
  return {top, sum};
}

__device__ float at(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t token) {
  return logits[row + token] + bias[token];
}

// nll[i] = log Σ exp(logits) − logits[target].
extern "C" __global__ void nll_forward(GLOBAL(const float) logits, GLOBAL(const float) bias, GLOBAL(const uint32_t) targets,
                            GLOBAL(float) nll, uint32_t size, uint32_t mask) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * STRIDE;
  Softmax over = softmax(logits, bias, row, size, mask, partial);
  if (threadIdx.x == 0) nll[blockIdx.x] = over.max + logf(over.sum) - at(logits, bias, row, targets[blockIdx.x]);
}
KERNEL(nll_forward)

// The same, and dlogits = weight · (softmax − [target]); beyond the alphabet it is 0.
extern "C" __global__ void nll_gradient(GLOBAL(const float) logits, GLOBAL(const float) bias, GLOBAL(const uint32_t) targets,
                             GLOBAL(const float) weights, GLOBAL(float) nll, GLOBAL(element) dlogits, uint32_t size,
                             uint32_t mask) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * STRIDE;
  Softmax over = softmax(logits, bias, row, size, mask, partial);
  uint32_t target = targets[blockIdx.x];
  float weight = weights[blockIdx.x], share = weight / over.sum;
  if (threadIdx.x == 0) nll[blockIdx.x] = over.max + logf(over.sum) - at(logits, bias, row, target);
  for (uint32_t token = LANES * threadIdx.x; token < STRIDE; token += LANES * blockDim.x) {
    Pack<LANES> slopes;
#pragma unroll
    for (int four = 0; four < LANES; four += 4) {
      float4 own = biased(logits, bias, row, token + four, size, mask);
      float all[4] = {own.x, own.y, own.z, own.w};
      for (int j = 0; j < 4; j++) {
        uint32_t which = token + four + j;
        // exp(−∞) is 0.
        float slope = share * exponential(all[j] - over.max);
        slopes.at[four + j] = which == target ? slope - weight : slope;
      }
    }
    store<LANES>(dlogits, row + token, slopes);
  }
}
KERNEL(nll_gradient)

// losses += loss = Σ nll[i] · weights[i], in f64, in an order that depends on `count` alone; one block.
extern "C" __global__ void nll_total(GLOBAL(const float) nll, GLOBAL(const float) weights, GLOBAL(double) losses,
                                     GLOBAL(float) loss, uint32_t count) {
  SHARED_ARRAY(double, partial, 0, blockDim.x);
  double sum = 0.;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) sum += double(nll[i]) * double(weights[i]);
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (uint32_t thread = 1; thread < blockDim.x; thread++) sum += partial[thread];
  losses[0] += sum;
  loss[0] = float(sum);
}
KERNEL(nll_total)
