// The loss of rows of logits, which are f32 and lack their bias. VOCABULARY: tokens; STRIDE: elements of a row, a multiple
// of 8. LOSS: which one. A block a row. The support is the tokens below `size` without `excluded`; `mask` is in it unless it
// is the excluded one.
//
// Per position, V logits of 4 bytes are read twice, the second time from a cache, and V slopes written.
#include "device.h"

// As `Loss` numbers them.
#define CROSS_ENTROPY 0
#define ABSORBING_KL 1
#define SCORE_ENTROPY 2

// What a loss is a function of: max + log(sum) is the logarithm of Σ exp(logit); the target's logit; the mask's.
struct Numbers {
  float max, sum, target, mask;
};

// Factors of the softmax and of the one-hots of the target and of the mask in a loss's derivative.
struct Slopes {
  float softmax, target, mask;
};

__device__ float log_sum_exp(const Numbers &of) { return of.max + logf(of.sum); }

// The loss of a position and its derivative; `constants` are the position's three.
#if LOSS == CROSS_ENTROPY
__device__ float loss_of(const Numbers &of, GLOBAL(const float)) { return log_sum_exp(of) - of.target; }
__device__ Slopes slopes_of(const Numbers &, GLOBAL(const float)) { return {1.f, -1.f, 0.f}; }
#elif LOSS == ABSORBING_KL
__device__ float loss_of(const Numbers &of, GLOBAL(const float) constants) {
  float a = constants[0], b = constants[1], c = constants[2], lse = log_sum_exp(of), mu = expf(of.mask - lse);
  return a * (lse - of.target) + log1pf(b * mu) - (1.f - a) * log1pf(c * mu);
}
__device__ Slopes slopes_of(const Numbers &of, GLOBAL(const float) constants) {
  float a = constants[0], b = constants[1], c = constants[2], mu = expf(of.mask - log_sum_exp(of));
  float mask = mu * (b / (1.f + b * mu) - (1.f - a) * c / (1.f + c * mu));
  return {a - mask, -a, mask};
}
#elif LOSS == SCORE_ENTROPY
__device__ float loss_of(const Numbers &of, GLOBAL(const float) constants) {
  float r = constants[0], lse = log_sum_exp(of), total = lse - constants[1], d = total - logf(r);
  if (constants[2] == 0.f) return r * (lse - of.target);
  // Beyond 1 nothing cancels, and e^d · r may be finite where e^d is not.
  float surplus = d < 1.f ? r * (expm1f(d) - d) : expf(total) - r * (1.f + d);
  return surplus + r * (lse - of.target);
}
__device__ Slopes slopes_of(const Numbers &of, GLOBAL(const float) constants) {
  float r = constants[0];
  return {constants[2] == 0.f ? r : expf(log_sum_exp(of) - constants[1]), -r, 0.f};
}
#endif

// Four logits; those that are not in the support are −∞.
__device__ float4 biased(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t token,
                         uint32_t size, uint32_t excluded) {
  float4 four = as<const float4>(logits)[(row + token) / 4], own = as<const float4>(bias)[token / 4];
  auto in = [&](uint32_t which, float logit) { return which >= size || which == excluded ? -INFINITY : logit; };
  return float4{in(token, four.x + own.x), in(token + 1, four.y + own.y), in(token + 2, four.z + own.z),
                in(token + 3, four.w + own.w)};
}

__device__ float at(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t token) {
  return logits[row + token] + bias[token];
}

// One pass: a running maximum and a sum that is scaled when it rises (Milakov and Gimelshein, arXiv 1805.02867).
__device__ Numbers numbers_of(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t target,
                              uint32_t size, uint32_t mask, uint32_t excluded, SHARED(float) partial) {
  float max = -INFINITY, sum = 0.f;
  for (uint32_t token = 4 * threadIdx.x; token < size; token += 4 * blockDim.x) {
    float4 four = biased(logits, bias, row, token, size, excluded);
    float top = fmaxf(fmaxf(four.x, four.y), fmaxf(four.z, four.w));
    if (top > max) {
      sum *= exponential(max - top);
      max = top;
    }
    // A NaN is passed over by fmaxf, and reaches the sum; before the first logit of the support there is none to subtract.
    if (max > -INFINITY || !(top <= INFINITY))
      sum += exponential(four.x - max) + exponential(four.y - max) + exponential(four.z - max) + exponential(four.w - max);
  }
  float top = block_max(max, partial);
  sum = block_sum(max > -INFINITY ? sum * exponential(max - top) : sum, partial);
  Numbers of = {top, sum, at(logits, bias, row, target), -INFINITY};
#if LOSS == ABSORBING_KL
  if (mask != excluded) of.mask = at(logits, bias, row, mask);
#endif
  return of;
}

// losses[i] = the loss of position i. `constants`: three a position, none for the cross-entropy.
extern "C" __global__ void readout_forward(GLOBAL(const float) logits, GLOBAL(const float) bias,
                                           GLOBAL(const uint32_t) targets, GLOBAL(const float) constants,
                                           GLOBAL(float) losses, uint32_t size, uint32_t mask, uint32_t excluded) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * STRIDE;
  Numbers of = numbers_of(logits, bias, row, targets[blockIdx.x], size, mask, excluded, partial);
  if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(of, constants + 3 * blockIdx.x);
}
KERNEL(readout_forward)

// The same, and dlogits = weight · the loss's derivative; beyond the support it is 0.
extern "C" __global__ void readout_gradient(GLOBAL(const float) logits, GLOBAL(const float) bias,
                                            GLOBAL(const uint32_t) targets, GLOBAL(const float) constants,
                                            GLOBAL(const float) weights, GLOBAL(float) losses, GLOBAL(element) dlogits,
                                            uint32_t size, uint32_t mask, uint32_t excluded) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * STRIDE;
  uint32_t target = targets[blockIdx.x];
  Numbers of = numbers_of(logits, bias, row, target, size, mask, excluded, partial);
  Slopes slopes = slopes_of(of, constants + 3 * blockIdx.x);
  float weight = weights[blockIdx.x], share = weight * slopes.softmax / of.sum;
  float of_target = weight * slopes.target;
#if LOSS == ABSORBING_KL
  float of_mask = weight * slopes.mask;
#endif
  if (threadIdx.x == 0) losses[blockIdx.x] = loss_of(of, constants + 3 * blockIdx.x);
  for (uint32_t token = LANES * threadIdx.x; token < STRIDE; token += LANES * blockDim.x) {
    Pack<LANES> pack;
#pragma unroll
    for (int four = 0; four < LANES; four += 4) {
      float4 own = biased(logits, bias, row, token + four, size, excluded);
      float all[4] = {own.x, own.y, own.z, own.w};
      for (int j = 0; j < 4; j++) {
        uint32_t which = token + four + j;
        // exp(−∞) is 0.
        float slope = share * exponential(all[j] - of.max);
        if (which == target) slope += of_target;
#if LOSS == ABSORBING_KL
        // An excluded mask's slope is 0.
        if (which == mask) slope += of_mask;
#endif
        pack.at[four + j] = slope;
      }
    }
    store<LANES>(dlogits, row + token, pack);
  }
}
KERNEL(readout_gradient)

// total += loss = Σ losses[i] · weights[i], in f64, in an order that depends on `count` alone; one block.
extern "C" __global__ void readout_total(GLOBAL(const float) losses, GLOBAL(const float) weights, GLOBAL(double) total,
                                         GLOBAL(float) loss, uint32_t count) {
  SHARED_ARRAY(double, partial, 0, blockDim.x);
  double sum = 0.;
  for (uint32_t i = threadIdx.x; i < count; i += blockDim.x) sum += double(losses[i]) * double(weights[i]);
  partial[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x > 0) return;
  for (uint32_t thread = 1; thread < blockDim.x; thread++) sum += partial[thread];
  total[0] += sum;
  loss[0] = float(sum);
}
KERNEL(readout_total)
