// The masked negative log-likelihood of rows of logits, which are f32 and lack their bias. VOCABULARY: of a row. A block a
// row; SIZE tokens of it are the alphabet, MASK is not.
#include "device.h"

// The largest logit of a row, and log Σ exp(logit), in two passes over it by all threads.
struct Softmax {
  float max, sum;
};

__device__ float biased(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t token,
                        uint32_t mask) {
  return token == mask ? -INFINITY : logits[row + token] + bias[token];
}

// One pass: a running maximum and a sum that is scaled when it rises (Milakov and Gimelshein, arXiv 1805.02867).
__device__ Softmax softmax(GLOBAL(const float) logits, GLOBAL(const float) bias, size_t row, uint32_t size,
                           uint32_t mask, SHARED(float) partial) {
  float max = -INFINITY, sum = 0.f;
  for (uint32_t token = threadIdx.x; token < size; token += blockDim.x) {
    float logit = biased(logits, bias, row, token, mask);
    if (logit > max) {
      sum *= expf(max - logit);
      max = logit;
    }
    if (logit > -INFINITY) sum += expf(logit - max);
  }
  float top = block_max(max, partial);
  sum = block_sum(max > -INFINITY ? sum * expf(max - top) : 0.f, partial);
  return {top, sum};
}

// nll[i] = log Σ exp(logits) − logits[target].
extern "C" __global__ void nll_forward(GLOBAL(const float) logits, GLOBAL(const float) bias, GLOBAL(const uint32_t) targets,
                            GLOBAL(float) nll, uint32_t size, uint32_t mask) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * VOCABULARY;
  Softmax over = softmax(logits, bias, row, size, mask, partial);
  uint32_t target = targets[blockIdx.x];
  if (threadIdx.x == 0) nll[blockIdx.x] = over.max + logf(over.sum) - biased(logits, bias, row, target, mask);
}
KERNEL(nll_forward)

// The same, and dlogits = weight · (softmax − [target]); beyond the alphabet it is 0.
extern "C" __global__ void nll_gradient(GLOBAL(const float) logits, GLOBAL(const float) bias, GLOBAL(const uint32_t) targets,
                             GLOBAL(const float) weights, GLOBAL(float) nll, GLOBAL(element) dlogits, uint32_t size,
                             uint32_t mask) {
  SHARED_ARRAY(float, partial, 0, 32);
  size_t row = size_t(blockIdx.x) * VOCABULARY;
  Softmax over = softmax(logits, bias, row, size, mask, partial);
  uint32_t target = targets[blockIdx.x];
  float weight = weights[blockIdx.x], share = weight / over.sum;
  if (threadIdx.x == 0) nll[blockIdx.x] = over.max + logf(over.sum) - biased(logits, bias, row, target, mask);
  for (uint32_t token = threadIdx.x; token < VOCABULARY; token += blockDim.x) {
    float slope = 0.f;
    if (token < size && token != mask) slope = share * expf(biased(logits, bias, row, token, mask) - over.max);
    narrow(dlogits[row + token], token == target ? slope - weight : slope);
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
