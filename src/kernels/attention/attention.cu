// y = softmax(rot(q) rot(k)ᵀ / √W) v per batch row and head, without the (L, L) matrix (arXiv 2205.14135); bidirectional.
//
// HEAD: W, a multiple of 16. HEADS: H. LENGTH: L, the keys of a batch row. Queries are rows of q (n, H·W), those of batch
// row b being starts[b] ≤ i < starts[b + 1], at the positions of their token rows. k and v are the column blocks of kv
// (B·L, 2·H·W). `turns`: cos and sin of the angle of pair j at position l, (L, W/2, 2).
//
// A block has four warps; a tile is 64 queries or keys, 16 of them a warp's. All products are a warp's a · bᵀ from shared
// memory, where rows are padded by 8 elements so that the lanes of a fragment hit different banks.
#include "device.h"

#define TILE 64
#define ROWS 16
#define WIDTH (HEADS * HEAD)
#define SCALE (1.f / SQRT_HEAD)
#define STRIDE (HEAD + 8)   // of a tile of heads' rows
#define ACROSS (TILE + 8)   // of a transposed tile
#define TILE_BYTES (TILE * STRIDE * sizeof(element))
#define ACROSS_BYTES (HEAD * ACROSS * sizeof(element))
#define SCORES_BYTES (TILE * ACROSS * sizeof(element))

// d(16, 8·COUNT) += a(16, K) · b(8·COUNT, K)ᵀ by a warp. Lane 4g + t has of tile n the rows g and g + 8, columns 2t, 2t + 1:
// d[n] = {(g, 2t), (g, 2t + 1), (g + 8, 2t), (g + 8, 2t + 1)}.
template <int COUNT, int K>
__device__ void multiply(float (&d)[COUNT][4], SHARED(element) a, int a_stride, SHARED(element) b, int b_stride) {
  int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
#ifdef ELEMENT_BF16
  SHARED(uint32_t) a_pairs = as<uint32_t>(a);
  SHARED(uint32_t) b_pairs = as<uint32_t>(b);
  for (int k = 0; k < K; k += 16) {
    int at = (group * a_stride + k) / 2 + pair, below = at + 4 * a_stride;
    uint32_t left[4] = {a_pairs[at], a_pairs[below], a_pairs[at + 4], a_pairs[below + 4]};
    for (int n = 0; n < COUNT; n++) {
      int from = ((n * 8 + group) * b_stride + k) / 2 + pair;
      uint32_t right[2] = {b_pairs[from], b_pairs[from + 4]};
      multiply_tile(d[n], left, right);
    }
  }
#else
  for (int n = 0; n < COUNT; n++)
    for (int i = 0; i < 4; i++) {
      int row = (group + 8 * (i / 2)) * a_stride, column = (n * 8 + 2 * pair + i % 2) * b_stride;
      float sum = 0.f;
      for (int k = 0; k < K; k++) sum += a[row + k] * b[column + k];
      d[n][i] += sum;
    }
#endif
}

// Writes what `multiply` left to shared memory.
template <int COUNT> __device__ void store(const float (&d)[COUNT][4], SHARED(element) to, int stride) {
  int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  for (int n = 0; n < COUNT; n++)
    for (int i = 0; i < 4; i++) narrow(to[(group + 8 * (i / 2)) * stride + n * 8 + 2 * pair + i % 2], d[n][i]);
}

// A tile of a head's rows: rows first ≤ r < end of `from`, which begin `offset` into rows of `columns`; beyond them zeros.
// With `turns`, row r is turned as position `positions(r)`; with `across`, the transpose is written too.
struct Rows {
  uint32_t first, end;
  uint32_t columns, offset;
};

__device__ void place(SHARED(element) to, SHARED(element) across, bool is_straight, bool is_across, int row, int column,
                      float value) {
  if (is_straight) narrow(to[row * STRIDE + column], value);
  if (is_across) narrow(across[column * ACROSS + row], value);
}

__device__ void load(GLOBAL(const element) from, Rows rows, SHARED(element) to, SHARED(element) across,
                     bool is_straight, bool is_across) {
  for (int i = threadIdx.x; i < TILE * HEAD; i += blockDim.x) {
    uint32_t row = i / HEAD, column = i % HEAD;
    float value = 0.f;
    if (rows.first + row < rows.end) value = wide(from[size_t(rows.first + row) * rows.columns + rows.offset + column]);
    place(to, across, is_straight, is_across, row, column, value);
  }
}

__device__ void load_turned(GLOBAL(const element) from, Rows rows, GLOBAL(const float) turns,
                            GLOBAL(const uint32_t) listed, uint32_t is_listed, SHARED(element) to,
                            SHARED(element) across, bool is_across) {
  const int half = HEAD / 2;
  for (int i = threadIdx.x; i < TILE * half; i += blockDim.x) {
    uint32_t row = i / half, pair = i % half;
    float first = 0.f, second = 0.f;
    if (rows.first + row < rows.end) {
      size_t at = size_t(rows.first + row) * rows.columns + rows.offset + pair;
      size_t turn = (size_t(token_row(listed, is_listed, rows.first + row) % LENGTH) * half + pair) * 2;
      float a = wide(from[at]), b = wide(from[at + half]), cosine = turns[turn], sine = turns[turn + 1];
      first = a * cosine - b * sine;
      second = b * cosine + a * sine;
    }
    place(to, across, true, is_across, row, pair, first);
    place(to, across, true, is_across, row, pair + half, second);
  }
}

// Turns a warp's rows of gradients back and writes them; row `first + r` for r < 16, below `end`.
__device__ void store_turned_back(const float (&d)[HEAD / 8][4], GLOBAL(element) to, Rows rows,
                                  GLOBAL(const float) turns, GLOBAL(const uint32_t) listed, uint32_t is_listed) {
  const int half = HEAD / 2;
  int lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  for (int n = 0; n < HEAD / 16; n++)
    for (int i = 0; i < 4; i++) {
      uint32_t row = rows.first + group + 8 * (i / 2), column = n * 8 + 2 * pair + i % 2;
      if (row >= rows.end) continue;
      size_t turn = (size_t(token_row(listed, is_listed, row) % LENGTH) * half + column) * 2;
      float a = d[n][i], b = d[n + HEAD / 16][i], cosine = turns[turn], sine = turns[turn + 1];
      size_t at = size_t(row) * rows.columns + rows.offset + column;
      narrow(to[at], a * cosine + b * sine);
      narrow(to[at + half], b * cosine - a * sine);
    }
}

// Of each of the two rows that a lane has: over the four lanes that share them.
__device__ float over_row_max(float x) {
  x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 1));
  return fmaxf(x, __shfl_xor_sync(ALL_LANES, x, 2));
}
__device__ float over_row_sum(float x) {
  x += __shfl_xor_sync(ALL_LANES, x, 1);
  return x + __shfl_xor_sync(ALL_LANES, x, 2);
}

// Grid: (tiles of queries, H, B). logarithms[i, h]: of the softmax's denominator.
extern "C" __global__ void attention_forward(GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns,
                                  GLOBAL(const uint32_t) starts, GLOBAL(const uint32_t) listed, uint32_t is_listed,
                                  GLOBAL(element) y, GLOBAL(float) logarithms) {
  uint32_t head = blockIdx.y, batch = blockIdx.z;
  uint32_t first = starts[batch] + blockIdx.x * TILE, end = starts[batch + 1];
  if (first >= end) return;
  SHARED_ARRAY(element, queries, 0, TILE * STRIDE);
  SHARED_ARRAY(element, keys, TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, values, 2 * TILE_BYTES, HEAD * ACROSS);
  SHARED_ARRAY(element, shares, 2 * TILE_BYTES + ACROSS_BYTES, TILE * ACROSS);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  Rows of_queries = {first, end, WIDTH, head * HEAD};
  load_turned(q, of_queries, turns, listed, is_listed, queries, queries, false);
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f}, out[HEAD / 8][4] = {};
  for (uint32_t key = 0; key < LENGTH; key += TILE) {
    __syncthreads();
    Rows of_keys = {batch * LENGTH + key, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
    load_turned(kv, of_keys, turns, listed, 0, keys, keys, false);
    of_keys.offset += WIDTH;
    load(kv, of_keys, values, values, false, true);
    __syncthreads();
    float scores[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, queries + warp * ROWS * STRIDE, STRIDE, keys, STRIDE);
    float top[2] = {max[0], max[1]};
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        bool is_key = key + n * 8 + 2 * pair + i % 2 < LENGTH;
        scores[n][i] = is_key ? scores[n][i] * SCALE : -INFINITY;
        top[i / 2] = fmaxf(top[i / 2], scores[n][i]);
      }
    float shrink[2];
    for (int r = 0; r < 2; r++) {
      top[r] = over_row_max(top[r]);
      shrink[r] = expf(max[r] - top[r]);
      max[r] = top[r];
      sum[r] *= shrink[r];
    }
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        scores[n][i] = expf(scores[n][i] - max[i / 2]);
        sum[i / 2] += scores[n][i];
      }
    for (int n = 0; n < HEAD / 8; n++)
      for (int i = 0; i < 4; i++) out[n][i] *= shrink[i / 2];
    store(scores, shares + warp * ROWS * ACROSS, ACROSS);
    __syncwarp();
    multiply<HEAD / 8, TILE>(out, shares + warp * ROWS * ACROSS, ACROSS, values, ACROSS);
    __syncwarp();
  }
  for (int r = 0; r < 2; r++) {
    sum[r] = over_row_sum(sum[r]);
    uint32_t row = first + warp * ROWS + group + 8 * r;
    if (row >= end) continue;
    for (int n = 0; n < HEAD / 8; n++)
      for (int i = 0; i < 2; i++)
        narrow(y[size_t(row) * WIDTH + head * HEAD + n * 8 + 2 * pair + i], out[n][2 * r + i] / sum[r]);
    if (pair == 0) logarithms[size_t(row) * HEADS + head] = max[r] + logf(sum[r]);
  }
}
KERNEL(attention_forward)

// deltas[i, h] = Σ_w dy_iw y_iw; a block a query, a warp a head.
extern "C" __global__ void attention_deltas(GLOBAL(const element) y, GLOBAL(const element) dy, GLOBAL(float) deltas) {
  uint32_t head = threadIdx.x / 32;
  size_t at = size_t(blockIdx.x) * WIDTH + head * HEAD;
  float sum = 0.f;
  for (uint32_t column = threadIdx.x % 32; column < HEAD; column += 32) sum += wide(y[at + column]) * wide(dy[at + column]);
  sum = warp_sum(sum);
  if (threadIdx.x % 32 == 0) deltas[size_t(blockIdx.x) * HEADS + head] = sum;
}
KERNEL(attention_deltas)

// The logarithms and deltas of a tile of queries; of those that are not there, what makes their shares 0.
__device__ void load_sums(GLOBAL(const float) logarithms, GLOBAL(const float) deltas, uint32_t first, uint32_t end,
                          uint32_t head, SHARED(float) sums) {
  for (uint32_t i = threadIdx.x; i < TILE; i += blockDim.x) {
    bool is_query = first + i < end;
    size_t at = size_t(first + i) * HEADS + head;
    sums[2 * i] = is_query ? logarithms[at] : INFINITY;
    sums[2 * i + 1] = is_query ? deltas[at] : 0.f;
  }
}

// dk and dv of a tile of keys: over all queries, tile by tile, in order. Grid: (tiles of keys, H, B).
extern "C" __global__ void attention_keys(GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns,
                               GLOBAL(const uint32_t) starts, GLOBAL(const uint32_t) listed, uint32_t is_listed,
                               GLOBAL(const float) logarithms, GLOBAL(const float) deltas, GLOBAL(const element) dy,
                               GLOBAL(element) dkv) {
  uint32_t head = blockIdx.y, batch = blockIdx.z, key = blockIdx.x * TILE;
  SHARED_ARRAY(element, keys, 0, TILE * STRIDE);
  SHARED_ARRAY(element, values, TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, queries, 2 * TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, slopes, 3 * TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, queries_across, 4 * TILE_BYTES, HEAD * ACROSS);
  SHARED_ARRAY(element, slopes_across, 4 * TILE_BYTES + ACROSS_BYTES, HEAD * ACROSS);
  SHARED_ARRAY(element, shares, 4 * TILE_BYTES + 2 * ACROSS_BYTES, TILE * ACROSS);
  SHARED_ARRAY(float, sums, 4 * TILE_BYTES + 2 * ACROSS_BYTES + SCORES_BYTES, 2 * TILE);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  Rows of_keys = {batch * LENGTH + key, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
  load_turned(kv, of_keys, turns, listed, 0, keys, keys, false);
  Rows of_values = of_keys;
  of_values.offset += WIDTH;
  load(kv, of_values, values, values, true, false);
  SHARED(element) own_keys = keys + warp * ROWS * STRIDE;
  SHARED(element) own_values = values + warp * ROWS * STRIDE;
  SHARED(element) own_shares = shares + warp * ROWS * ACROSS;
  float dk[HEAD / 8][4] = {}, dv[HEAD / 8][4] = {};
  uint32_t end = starts[batch + 1];
  for (uint32_t first = starts[batch]; first < end; first += TILE) {
    __syncthreads();
    Rows of_queries = {first, end, WIDTH, head * HEAD};
    load_turned(q, of_queries, turns, listed, is_listed, queries, queries_across, true);
    load(dy, of_queries, slopes, slopes_across, true, true);
    load_sums(logarithms, deltas, first, end, head, sums);
    __syncthreads();
    // Keys are rows and queries columns here.
    float scores[TILE / 8][4] = {}, toward[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, own_keys, STRIDE, queries, STRIDE);
    multiply<TILE / 8, HEAD>(toward, own_values, STRIDE, slopes, STRIDE);
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        int column = n * 8 + 2 * pair + i % 2;
        scores[n][i] = expf(scores[n][i] * SCALE - sums[2 * column]);
        toward[n][i] = scores[n][i] * (toward[n][i] - sums[2 * column + 1]) * SCALE;
      }
    store(scores, own_shares, ACROSS);
    __syncwarp();
    multiply<HEAD / 8, TILE>(dv, own_shares, ACROSS, slopes_across, ACROSS);
    __syncwarp();
    store(toward, own_shares, ACROSS);
    __syncwarp();
    multiply<HEAD / 8, TILE>(dk, own_shares, ACROSS, queries_across, ACROSS);
    __syncwarp();
  }
  of_keys.first += warp * ROWS;
  of_values.first += warp * ROWS;
  store_turned_back(dk, dkv, of_keys, turns, listed, 0);
  for (int n = 0; n < HEAD / 8; n++)
    for (int i = 0; i < 4; i++) {
      uint32_t row = of_values.first + group + 8 * (i / 2);
      if (row >= of_values.end) continue;
      narrow(dkv[size_t(row) * of_values.columns + of_values.offset + n * 8 + 2 * pair + i % 2], dv[n][i]);
    }
}
KERNEL(attention_keys)

// dq of a tile of queries: over all keys. Grid: (tiles of queries, H, B).
extern "C" __global__ void attention_queries(GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns,
                                  GLOBAL(const uint32_t) starts, GLOBAL(const uint32_t) listed, uint32_t is_listed,
                                  GLOBAL(const float) logarithms, GLOBAL(const float) deltas, GLOBAL(const element) dy,
                                  GLOBAL(element) dq) {
  uint32_t head = blockIdx.y, batch = blockIdx.z;
  uint32_t first = starts[batch] + blockIdx.x * TILE, end = starts[batch + 1];
  if (first >= end) return;
  SHARED_ARRAY(element, queries, 0, TILE * STRIDE);
  SHARED_ARRAY(element, slopes, TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, keys, 2 * TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, values, 3 * TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(element, keys_across, 4 * TILE_BYTES, HEAD * ACROSS);
  SHARED_ARRAY(element, shares, 4 * TILE_BYTES + ACROSS_BYTES, TILE * ACROSS);
  SHARED_ARRAY(float, sums, 4 * TILE_BYTES + ACROSS_BYTES + SCORES_BYTES, 2 * TILE);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = lane / 4, pair = lane % 4;
  Rows of_queries = {first, end, WIDTH, head * HEAD};
  load_turned(q, of_queries, turns, listed, is_listed, queries, queries, false);
  load(dy, of_queries, slopes, slopes, true, false);
  load_sums(logarithms, deltas, first, end, head, sums);
  SHARED(element) own_shares = shares + warp * ROWS * ACROSS;
  float out[HEAD / 8][4] = {};
  for (uint32_t key = 0; key < LENGTH; key += TILE) {
    __syncthreads();
    Rows of_keys = {batch * LENGTH + key, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
    load_turned(kv, of_keys, turns, listed, 0, keys, keys_across, true);
    of_keys.offset += WIDTH;
    load(kv, of_keys, values, values, true, false);
    __syncthreads();
    float scores[TILE / 8][4] = {}, toward[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, queries + warp * ROWS * STRIDE, STRIDE, keys, STRIDE);
    multiply<TILE / 8, HEAD>(toward, slopes + warp * ROWS * STRIDE, STRIDE, values, STRIDE);
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        int row = warp * ROWS + group + 8 * (i / 2);
        bool is_key = key + n * 8 + 2 * pair + i % 2 < LENGTH;
        float share = is_key ? expf(scores[n][i] * SCALE - sums[2 * row]) : 0.f;
        toward[n][i] = share * (toward[n][i] - sums[2 * row + 1]) * SCALE;
      }
    store(toward, own_shares, ACROSS);
    __syncwarp();
    multiply<HEAD / 8, TILE>(out, own_shares, ACROSS, keys_across, ACROSS);
    __syncwarp();
  }
  of_queries.first += warp * ROWS;
  store_turned_back(out, dq, of_queries, turns, listed, is_listed);
}
KERNEL(attention_queries)
