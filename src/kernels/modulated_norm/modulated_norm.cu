// y = n · weight · (1 + scale) + shift, n = (x − μ) / √(σ² + ε). WIDTH: D. COLUMNS: of a modulation row. SHIFT, SCALE: where
// in it they begin. LENGTH: token rows of a batch row.
#include "device.h"

#define EPSILON 1e-5f
#define WARPS 4

// A warp a row: what it has of it stays in its registers. statistics[r] = (μ, 1 / √(σ² + ε)).
extern "C" __global__ void norm_forward(GLOBAL(const element) x, GLOBAL(const float) weight, GLOBAL(const element) modulation,
                             GLOBAL(element) y, GLOBAL(float) statistics, GLOBAL(const uint32_t) listed,
                             uint32_t is_listed, uint32_t rows, uint32_t shared) {
  uint32_t row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const uint32_t each = (WIDTH + 31) / 32;
  float values[each];
  size_t at = size_t(row) * WIDTH;
  float sum = 0.f;
  for (uint32_t i = 0; i < each; i++) {
    uint32_t column = i * 32 + lane;
    values[i] = column < WIDTH ? wide(x[at + column]) : 0.f;
    sum += values[i];
  }
  float mean = warp_sum(sum) / WIDTH;
  float squares = 0.f;
  for (uint32_t i = 0; i < each; i++) {
    float distance = i * 32 + lane < WIDTH ? values[i] - mean : 0.f;
    squares += distance * distance;
  }
  float scale_to_one = rsqrtf(warp_sum(squares) / WIDTH + EPSILON);
  size_t m = shared ? 0 : size_t(token_row(listed, is_listed, row) / LENGTH) * COLUMNS;
  for (uint32_t i = 0; i < each; i++) {
    uint32_t column = i * 32 + lane;
    if (column >= WIDTH) break;
    float shift = wide(modulation[m + SHIFT + column]), scale = wide(modulation[m + SCALE + column]);
    narrow(y[at + column], (values[i] - mean) * scale_to_one * weight[column] * (1.f + scale) + shift);
  }
  if (lane == 0) {
    statistics[2 * row] = mean;
    statistics[2 * row + 1] = scale_to_one;
  }
}
KERNEL(norm_forward)

// dx = ρ (g − mean(g) − n · mean(g · n)), g = dy · weight · (1 + scale), added to what is there if `add`; a warp a row.
extern "C" __global__ void norm_backward(GLOBAL(const element) x, GLOBAL(const float) weight, GLOBAL(const element) modulation,
                              GLOBAL(const float) statistics, GLOBAL(const element) dy, GLOBAL(element) dx,
                              GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t rows, uint32_t shared,
                              uint32_t add) {
  uint32_t row = blockIdx.x * WARPS + threadIdx.x / 32, lane = threadIdx.x % 32;
  if (row >= rows) return;
  const uint32_t each = (WIDTH + 31) / 32;
  float slopes[each], normal[each];
  size_t at = size_t(row) * WIDTH;
  size_t m = shared ? 0 : size_t(token_row(listed, is_listed, row) / LENGTH) * COLUMNS;
  float mean = statistics[2 * row], scale_to_one = statistics[2 * row + 1];
  float sum = 0.f, product = 0.f;
  for (uint32_t i = 0; i < each; i++) {
    uint32_t column = i * 32 + lane;
    slopes[i] = normal[i] = 0.f;
    if (column >= WIDTH) continue;
    normal[i] = (wide(x[at + column]) - mean) * scale_to_one;
    slopes[i] = wide(dy[at + column]) * weight[column] * (1.f + wide(modulation[m + SCALE + column]));
    sum += slopes[i];
    product += slopes[i] * normal[i];
  }
  sum = warp_sum(sum) / WIDTH;
  product = warp_sum(product) / WIDTH;
  for (uint32_t i = 0; i < each; i++) {
    uint32_t column = i * 32 + lane;
    if (column >= WIDTH) break;
    float slope = scale_to_one * (slopes[i] - sum - normal[i] * product);
    narrow(dx[at + column], add ? wide(dx[at + column]) + slope : slope);
  }
}
KERNEL(norm_backward)

// Over the rows starts[m] ≤ r < starts[m + 1] of modulation row m = block.y, in order, a thread a column: dshift = Σ dy and
// dscale = Σ dy · n · weight, added to dmodulation; partial[m] = Σ dy · n · (1 + scale), dweight's share.
extern "C" __global__ void norm_parameters(GLOBAL(const element) x, GLOBAL(const float) weight, GLOBAL(const element) modulation,
                                GLOBAL(const float) statistics, GLOBAL(const element) dy,
                                GLOBAL(const uint32_t) starts, GLOBAL(element) dmodulation, GLOBAL(float) partial) {
  uint32_t column = blockIdx.x * blockDim.x + threadIdx.x;
  if (column >= WIDTH) return;
  size_t m = size_t(blockIdx.y) * COLUMNS;
  float shifts = 0.f, products = 0.f;
  for (uint32_t row = starts[blockIdx.y]; row < starts[blockIdx.y + 1]; row++) {
    size_t at = size_t(row) * WIDTH + column;
    float slope = wide(dy[at]);
    shifts += slope;
    products += slope * (wide(x[at]) - statistics[2 * row]) * statistics[2 * row + 1];
  }
  size_t shift = m + SHIFT + column, scale = m + SCALE + column;
  narrow(dmodulation[shift], wide(dmodulation[shift]) + shifts);
  narrow(dmodulation[scale], wide(dmodulation[scale]) + products * weight[column]);
  partial[size_t(blockIdx.y) * WIDTH + column] = products * (1.f + wide(modulation[scale]));
}
KERNEL(norm_parameters)
