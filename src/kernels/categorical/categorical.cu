// Categorical draws where the network computes. STRIDE: elements of a row of logits. LENGTH: tokens of a row of the chain.
#include "device.h"

// tokens[i] = chain[rows[i]], rows of LENGTH tokens; a block a row.
extern "C" __global__ void pick_rows(GLOBAL(const uint32_t) chain, GLOBAL(const uint32_t) rows,
                                     GLOBAL(uint32_t) tokens) {
  size_t from = size_t(rows[blockIdx.x]) * LENGTH, to = size_t(blockIdx.x) * LENGTH;
  for (uint32_t l = threadIdx.x; l < LENGTH; l += blockDim.x) tokens[to + l] = chain[from + l];
}
KERNEL(pick_rows)

// chain[into[i]] = tokens[i], for count tokens.
extern "C" __global__ void write_tokens(GLOBAL(const uint32_t) tokens, GLOBAL(const uint32_t) into,
                                        GLOBAL(uint32_t) chain, uint32_t count) {
  uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < count) chain[into[i]] = tokens[i];
}
KERNEL(write_tokens)

// What `into` says of a position besides a place in the chain: nothing is drawn; the token is not written.
#define NOT_DRAWN 0xFFFFFFFFu
#define NOT_WRITTEN 0xFFFFFFFEu
// The token where logits are not finite.
#define NOT_FINITE 0xFFFFFFFFu

// Numbers of a report, and of one with the two largest probabilities and the entropy; 0 for no report.
#define DRAW 4
#define CONFIDENCE 7

// A thread's part of a distribution: weights exp((l - top) / temperature).
struct Part {
  double sum, weighted, first, second;
};

// The sum of the weights e of a run of tokens, in order; of a report with confidence also the sum of e ln e and the two
// largest weights.
__device__ Part part_of(GLOBAL(const float) logits, GLOBAL(const float) bias, uint32_t begin, uint32_t end, uint32_t excluded,
                        double top, double temperature, bool confidence) {
  Part part = {0., 0., 0., 0.};
  for (uint32_t token = begin; token < end; token++) {
    if (token == excluded) continue;
    double exponent = (double(logits[token] + bias[token]) - top) / temperature, weight = exp(exponent);
    part.sum += weight;
    if (!confidence) continue;
    // 0 ln 0 is 0.
    if (weight > 0.) part.weighted += weight * exponent;
    if (weight > part.first) {
      part.second = part.first;
      part.first = weight;
    } else if (weight > part.second) {
      part.second = weight;
    }
  }
  return part;
}

// Draws the first token whose cumulative probability exceeds uniforms[1 + i], of the softmax of logits[i] + bias over the
// first `size` tokens without `excluded`, at the temperature uniforms[0]: it goes to chain[into[i]], and with its numbers to
// report[i] (without a logit of the mask where that is beyond STRIDE). A block a position, a thread a run of tokens; all sums
// in f64, of runs in order, so that a draw sees the tail (arXiv 2409.02908).
extern "C" __global__ void draw_tokens(GLOBAL(const float) logits, GLOBAL(const float) bias,
                                       GLOBAL(const double) uniforms, GLOBAL(const uint32_t) into,
                                       GLOBAL(uint32_t) chain, GLOBAL(double) report, uint32_t size, uint32_t excluded,
                                       uint32_t mask, uint32_t reported) {
  SHARED_ARRAY(double, sums, 0, blockDim.x);
  SHARED_ARRAY(double, weighted, blockDim.x * sizeof(double), blockDim.x);
  SHARED_ARRAY(double, firsts, blockDim.x * 2 * sizeof(double), blockDim.x);
  SHARED_ARRAY(double, seconds, blockDim.x * 3 * sizeof(double), blockDim.x);
  SHARED_ARRAY(float, partial, blockDim.x * 4 * sizeof(double), 32);
  uint32_t to = into[blockIdx.x];
  if (to == NOT_DRAWN) return;
  double temperature = uniforms[0];
  bool confidence = reported == CONFIDENCE;
  GLOBAL(const float) row = logits + size_t(blockIdx.x) * STRIDE;
  uint32_t each = (size + blockDim.x - 1) / blockDim.x, begin = threadIdx.x * each;
  uint32_t end = begin + each < size ? begin + each : size;
  float top = -INFINITY;
  bool is_number = true;
  for (uint32_t token = begin; token < end; token++) {
    float logit = row[token] + bias[token];
    if (token != excluded) {
      top = fmaxf(top, logit);
      // fmaxf passes over a NaN.
      is_number = is_number && logit == logit;
    }
  }
  top = block_max(is_number ? top : INFINITY, partial);
  Part own = part_of(row, bias, begin, end, excluded, top, temperature, confidence);
  sums[threadIdx.x] = own.sum;
  if (confidence) {
    weighted[threadIdx.x] = own.weighted;
    firsts[threadIdx.x] = own.first;
    seconds[threadIdx.x] = own.second;
  }
  __syncthreads();
  if (threadIdx.x > 0) return;
  size_t at = size_t(blockIdx.x) * reported;
  if (!(top - top == 0.f)) {
    if (to != NOT_WRITTEN) chain[to] = NOT_FINITE;
    for (uint32_t i = 0; i < reported; i++) report[at + i] = double(NOT_FINITE);
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
    if (token == excluded) continue;
    sum += exp((double(row[token] + bias[token]) - double(top)) / temperature);
    drawn = token;
    if (before + sum > target) break;
  }
  if (to != NOT_WRITTEN) chain[to] = drawn;
  if (reported == 0) return;
  report[at] = double(drawn);
  report[at + 1] = (double(row[drawn] + bias[drawn]) - double(top)) / temperature - log(total);
  report[at + 2] = double(top) / temperature + log(total);
  report[at + 3] = mask < STRIDE ? double(row[mask] + bias[mask]) / temperature : double(-INFINITY);
  if (!confidence) return;
  double all = 0., first = 0., second = 0.;
  for (uint32_t other = 0; other < blockDim.x; other++) {
    all += weighted[other];
    if (firsts[other] > first) {
      second = first > seconds[other] ? first : seconds[other];
      first = firsts[other];
    } else if (firsts[other] > second) {
      second = firsts[other];
    }
  }
  report[at + 4] = first / total;
  report[at + 5] = second / total;
  report[at + 6] = log(total) - all / total;
}
KERNEL(draw_tokens)
