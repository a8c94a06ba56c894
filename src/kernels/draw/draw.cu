// Tokens drawn where the network computes. STRIDE: elements of a row of logits. LENGTH: tokens of a row.
#include "device.h"

// tokens[i] = chain[rows[i]], rows of LENGTH tokens; a block a row.
extern "C" __global__ void pick_rows(GLOBAL(const uint32_t) chain, GLOBAL(const uint32_t) rows,
                                     GLOBAL(uint32_t) tokens) {
  size_t from = size_t(rows[blockIdx.x]) * LENGTH, to = size_t(blockIdx.x) * LENGTH;
  for (uint32_t l = threadIdx.x; l < LENGTH; l += blockDim.x) tokens[to + l] = chain[from + l];
}
KERNEL(pick_rows)

#define NOWHERE 0xFFFFFFFFu
#define NOT_FINITE 0xFFFFFFFFu

// chain[into[i]] = the first token whose cumulative share exceeds uniforms[1 + i], of the softmax of logits[i] + bias over
// the first `size` tokens without `mask`, at the temperature uniforms[0]. A block a position, a thread a run of tokens; all
// sums in f64, of runs in order, so that a draw sees the tail (arXiv 2409.02908).
extern "C" __global__ void draw_tokens(GLOBAL(const float) logits, GLOBAL(const float) bias,
                                       GLOBAL(const double) uniforms, GLOBAL(const uint32_t) into,
                                       GLOBAL(uint32_t) chain, uint32_t size, uint32_t mask) {
  SHARED_ARRAY(double, sums, 0, blockDim.x);
  SHARED_ARRAY(float, partial, blockDim.x * sizeof(double), 32);
  uint32_t to = into[blockIdx.x];
  if (to == NOWHERE) return;
  double temperature = uniforms[0];
  size_t row = size_t(blockIdx.x) * STRIDE;
  uint32_t each = (size + blockDim.x - 1) / blockDim.x, first = threadIdx.x * each;
  uint32_t end = first + each < size ? first + each : size;
  float top = -INFINITY;
  bool is_number = true;
  for (uint32_t token = first; token < end; token++) {
    float logit = logits[row + token] + bias[token];
    if (token != mask) {
      top = fmaxf(top, logit);
      // fmaxf passes over a NaN.
      is_number = is_number && logit == logit;
    }
  }
  top = block_max(is_number ? top : INFINITY, partial);
  double own = 0.;
  for (uint32_t token = first; token < end; token++)
    if (token != mask) own += exp((double(logits[row + token] + bias[token]) - double(top)) / temperature);
  sums[threadIdx.x] = own;
  __syncthreads();
  if (threadIdx.x > 0) return;
  if (!(top - top == 0.f)) {
    chain[to] = NOT_FINITE;
    return;
  }
  double total = 0.;
  for (uint32_t thread = 0; thread < blockDim.x; thread++) total += sums[thread];
  double target = uniforms[1 + blockIdx.x] * total, before = 0.;
  // u · total rounds to less than the total: some run exceeds it.
  uint32_t thread = 0;
  while (thread + 1 < blockDim.x && before + sums[thread] <= target) before += sums[thread++];
  uint32_t token = thread * each, last = token + each < size ? token + each : size, drawn = token;
  double sum = 0.;
  for (; token < last; token++) {
    if (token == mask) continue;
    sum += exp((double(logits[row + token] + bias[token]) - double(top)) / temperature);
    drawn = token;
    if (before + sum > target) break;
  }
  chain[to] = drawn;
}
KERNEL(draw_tokens)
