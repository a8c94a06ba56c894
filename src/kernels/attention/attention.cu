// y = softmax(rot(q) rot(k)ᵀ / √W) v per batch row and head, without the (L, L) matrix (arXiv 2205.14135, 2307.08691).
//
// SPAN: 0 where a query attends to all keys of its row. Else it attends to those of its own block of SPAN positions and of
// the blocks before, a prefix; SPAN < LENGTH. Tiles of keys that no query of a tile sees, and tiles of queries that see no
// key of a tile, are passed over; within the others, scores that are not seen have no share.
//
// HEAD: W, a multiple of 16. HEADS: H. LENGTH: L, the keys of a batch row. Queries are rows of q (n, H·W), those of batch
// row b being starts[b] ≤ i < starts[b + 1], at the positions of their token rows. k and v are the column blocks of kv
// (B·L, 2·H·W). `turns`: cos and sin of the angle of pair j at position l, (L, W/2, 2).
//
// A block has four warps; a tile is 64 queries or keys, 16 of them a warp's. A warp's 16 rows of a factor stay in its
// registers as the tensor cores take them, the other factor's tile lies in shared memory for all warps, either as its rows
// or, transposed by the load itself, as its columns. A product's result is laid out as the next one's factor is taken, so
// that shares and their slopes never leave the registers. The next tile is on its way while the current one is multiplied.
// Rows in shared memory are padded by 8 elements, so that the rows of a tile hit different banks. A tile is turned on its
// way into shared memory: to turn q and k once beforehand would read and write both again, which at L = 128, where a key's
// tile is wanted by two tiles of queries, costs more than turning it twice.
#include "device.h"

#define TILE 64
#define ROWS 16
#define THREADS 128
#define WIDTH (HEADS * HEAD)
#define SCALE (1.f / SQRT_HEAD)
#define LOG2_E 1.4426950408889634f
#define STRIDE (HEAD + 8)
#define TILE_BYTES (TILE * STRIDE * sizeof(element))
#define PACKS (HEAD / LANES)
#define HALF (HEAD / 2)
// Numbers that attention_keys keeps of a query.
#if SPAN
#define SUMS 3
#else
#define SUMS 2
#endif

// Where the keys end that the query of a row of q sees: a position of its batch row.
__device__ uint32_t visible(GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t row) {
#if SPAN
  uint32_t position = token_row(listed, is_listed, row) % LENGTH;
  uint32_t end = (position / SPAN + 1) * SPAN;
  return end < LENGTH ? end : LENGTH;
#else
  return LENGTH;
#endif
}

// A warp's 16 rows of a factor, K deep. Lane 4g + q has of each 8 columns 2q, 2q + 1 of the rows g and g + 8.
template <int K> struct Fragments {
#ifdef ELEMENT_BF16
  uint32_t at[K / 16][4];
#else
  float at[K / 8][4];
#endif
};

// Rows of a tile.
template <int K> __device__ Fragments<K> rows_of(SHARED(element) tile) {
  Fragments<K> own;
  int lane = threadIdx.x % 32;
#ifdef ELEMENT_BF16
#pragma unroll
  for (int k = 0; k < K / 16; k++) load_tiles(own.at[k], tile + (lane % 16 * STRIDE + k * 16 + lane / 16 * 8));
#else
  for (int n = 0; n < K / 8; n++)
    for (int i = 0; i < 4; i++) own.at[n][i] = tile[(lane / 4 + 8 * (i / 2)) * STRIDE + n * 8 + lane % 4 * 2 + i % 2];
#endif
  return own;
}

// What a product left: d[n] = {(g, 2q), (g, 2q + 1), (g + 8, 2q), (g + 8, 2q + 1)} of its n-th 8 columns.
template <int K> __device__ Fragments<K> factor_of(const float (&d)[K / 8][4]) {
  Fragments<K> own;
#ifdef ELEMENT_BF16
#pragma unroll
  for (int k = 0; k < K / 16; k++)
    for (int i = 0; i < 4; i++) own.at[k][i] = pair(d[2 * k + i / 2][2 * (i % 2)], d[2 * k + i / 2][2 * (i % 2) + 1]);
#else
  for (int n = 0; n < K / 8; n++)
    for (int i = 0; i < 4; i++) own.at[n][i] = d[n][i];
#endif
  return own;
}

#ifndef ELEMENT_BF16
// For checking: a's elements go round the lanes that share its rows, b is read number by number.
template <int COUNT, int K>
__device__ void multiply_by(float (&d)[COUNT][4], const Fragments<K> &a, SHARED(element) b, int of_column, int of_depth) {
  int lane = threadIdx.x % 32;
  for (int k = 0; k < K; k++) {
    int from = lane / 4 * 4 + k % 8 / 2;
    float first = __shfl_sync(ALL_LANES, a.at[k / 8][k % 2], from);
    float second = __shfl_sync(ALL_LANES, a.at[k / 8][2 + k % 2], from);
    for (int n = 0; n < COUNT; n++)
      for (int i = 0; i < 2; i++) {
        float other = b[(n * 8 + lane % 4 * 2 + i) * of_column + k * of_depth];
        d[n][i] += first * other;
        d[n][2 + i] += second * other;
      }
  }
}
#endif

// d(16, 8·COUNT) += a(16, K) · b(8·COUNT, K)ᵀ by a warp.
template <int COUNT, int K>
__device__ void multiply(float (&d)[COUNT][4], const Fragments<K> &a, SHARED(element) b) {
#ifdef ELEMENT_BF16
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K / 16; k++)
#pragma unroll
    for (int n = 0; n < COUNT; n += 2) {
      uint32_t right[4];
      load_tiles(right, b + ((n * 8 + lane % 8 + lane / 16 * 8) * STRIDE + k * 16 + lane / 8 % 2 * 8));
      multiply_tile(d[n], a.at[k], right);
      multiply_tile(d[n + 1], a.at[k], right + 2);
    }
#else
  multiply_by<COUNT, K>(d, a, b, STRIDE, 1);
#endif
}

// d(16, 8·COUNT) += a(16, K) · b(K, 8·COUNT).
template <int COUNT, int K>
__device__ void multiply_across(float (&d)[COUNT][4], const Fragments<K> &a, SHARED(element) b) {
#ifdef ELEMENT_BF16
  int lane = threadIdx.x % 32;
#pragma unroll
  for (int k = 0; k < K / 16; k++)
#pragma unroll
    for (int n = 0; n < COUNT; n += 2) {
      uint32_t right[4];
      load_tiles_across(right, b + ((k * 16 + lane % 16) * STRIDE + n * 8 + lane / 16 * 8));
      multiply_tile(d[n], a.at[k], right);
      multiply_tile(d[n + 1], a.at[k], right + 2);
    }
#else
  multiply_by<COUNT, K>(d, a, b, 1, STRIDE);
#endif
}

// Rows first ≤ r < end of a matrix of `columns`, from its column `offset` on: a head's part of a tile.
struct Rows {
  uint32_t first, end;
  uint32_t columns, offset;
};

// What a thread brings of a tile, on its way; rows that are not there are zeros.
struct Straight {
  uint4 packs[HEAD / 16 * 8 / LANES];
};

__device__ Straight fetch(GLOBAL(const element) from, Rows rows) {
  Straight own;
#pragma unroll
  for (int i = 0; i < TILE * PACKS / THREADS; i++) {
    uint32_t at = i * THREADS + threadIdx.x, row = rows.first + at / PACKS;
    own.packs[i] = uint4{0, 0, 0, 0};
    if (row < rows.end)
      own.packs[i] = as<const uint4>(from)[(size_t(row) * rows.columns + rows.offset) / LANES + at % PACKS];
  }
  return own;
}

__device__ void place(const Straight &own, SHARED(element) to) {
#pragma unroll
  for (int i = 0; i < TILE * PACKS / THREADS; i++) {
    uint32_t at = i * THREADS + threadIdx.x;
    as<uint4>(to)[at / PACKS * (STRIDE / LANES) + at % PACKS] = own.packs[i];
  }
}

// The same of a tile that is to be turned: of each pair of packs the one in the first half of a row and its partner.
#define PAIRS (TILE * HALF / LANES)
struct Turned {
  uint4 packs[(PAIRS + THREADS - 1) / THREADS][2];
};

__device__ Turned fetch_turned(GLOBAL(const element) from, Rows rows) {
  Turned own;
#pragma unroll
  for (int i = 0; i < (PAIRS + THREADS - 1) / THREADS; i++) {
    uint32_t at = i * THREADS + threadIdx.x, row = rows.first + at / (HALF / LANES);
    own.packs[i][0] = own.packs[i][1] = uint4{0, 0, 0, 0};
    if (at < PAIRS && row < rows.end) {
      size_t pack = (size_t(row) * rows.columns + rows.offset) / LANES + at % (HALF / LANES);
      own.packs[i][0] = as<const uint4>(from)[pack];
      own.packs[i][1] = as<const uint4>(from)[pack + HALF / LANES];
    }
  }
  return own;
}

__device__ void place_turned(const Turned &own, Rows rows, GLOBAL(const float) turns, GLOBAL(const uint32_t) listed,
                             uint32_t is_listed, SHARED(element) to) {
#pragma unroll
  for (int i = 0; i < (PAIRS + THREADS - 1) / THREADS; i++) {
    uint32_t at = i * THREADS + threadIdx.x, row = at / (HALF / LANES), pack = at % (HALF / LANES);
    if (at >= PAIRS) break;
    Pack<LANES> first = unpacked(own.packs[i][0]), second = unpacked(own.packs[i][1]);
    if (rows.first + row < rows.end) {
      uint32_t position = token_row(listed, is_listed, rows.first + row) % LENGTH;
      size_t turn = (size_t(position) * HALF + pack * LANES) * 2;
#pragma unroll
      for (int two = 0; two < LANES; two += 2) {
        float4 both = as<const float4>(turns)[turn / 4 + two / 2];
        float cosine[2] = {both.x, both.z}, sine[2] = {both.y, both.w};
        for (int j = 0; j < 2; j++) {
          float a = first.at[two + j], b = second.at[two + j];
          first.at[two + j] = a * cosine[j] - b * sine[j];
          second.at[two + j] = b * cosine[j] + a * sine[j];
        }
      }
    }
    as<uint4>(to)[row * (STRIDE / LANES) + pack] = packed(first);
    as<uint4>(to)[row * (STRIDE / LANES) + pack + HALF / LANES] = packed(second);
  }
}

// Writes a warp's rows of a result, `rows` being theirs, by way of its own rows of a tile.
__device__ void write(const float (&d)[HEAD / 8][4], SHARED(element) own, GLOBAL(element) to, Rows rows) {
  int lane = threadIdx.x % 32;
  for (int n = 0; n < HEAD / 8; n++)
    for (int r = 0; r < 2; r++) {
      int at = (lane / 4 + 8 * r) * STRIDE + n * 8 + lane % 4 * 2;
#ifdef ELEMENT_BF16
      as<uint32_t>(own)[at / 2] = pair(d[n][2 * r], d[n][2 * r + 1]);
#else
      own[at] = d[n][2 * r];
      own[at + 1] = d[n][2 * r + 1];
#endif
    }
  __syncwarp();
  for (int i = lane; i < ROWS * PACKS; i += 32) {
    uint32_t row = rows.first + i / PACKS;
    if (row < rows.end)
      as<uint4>(to)[(size_t(row) * rows.columns + rows.offset) / LANES + i % PACKS] =
          as<uint4>(own)[i / PACKS * (STRIDE / LANES) + i % PACKS];
  }
  __syncwarp();
}

// Turns a warp's rows of gradients back.
__device__ void turn_back(float (&d)[HEAD / 8][4], Rows rows, GLOBAL(const float) turns, GLOBAL(const uint32_t) listed,
                          uint32_t is_listed) {
  int lane = threadIdx.x % 32;
  for (int r = 0; r < 2; r++) {
    uint32_t row = rows.first + lane / 4 + 8 * r;
    if (row >= rows.end) continue;
    size_t turn = size_t(token_row(listed, is_listed, row) % LENGTH) * HALF * 2;
#pragma unroll
    for (int n = 0; n < HEAD / 16; n++) {
      float4 both = as<const float4>(turns)[(turn + (n * 8 + lane % 4 * 2) * 2) / 4];
      float cosine[2] = {both.x, both.z}, sine[2] = {both.y, both.w};
      for (int i = 0; i < 2; i++) {
        float a = d[n][2 * r + i], b = d[n + HEAD / 16][2 * r + i];
        d[n][2 * r + i] = a * cosine[i] + b * sine[i];
        d[n + HEAD / 16][2 * r + i] = b * cosine[i] - a * sine[i];
      }
    }
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

// Where the keys end that any of a tile's queries sees: the last one's, as positions ascend.
__device__ uint32_t last_visible(GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t first, uint32_t end) {
#if SPAN
  return visible(listed, is_listed, (first + TILE < end ? first + TILE : end) - 1);
#else
  return LENGTH;
#endif
}

// Where the keys end that each of the two queries sees that a lane has, of a warp's that begin at `first`.
struct Ends {
#if SPAN
  uint32_t at[2];
#endif
};

__device__ Ends ends_of(GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t first, uint32_t end) {
  Ends ends;
#if SPAN
  for (int r = 0; r < 2; r++) {
    uint32_t row = first + threadIdx.x % 32 / 4 + 8 * r;
    ends.at[r] = row < end ? visible(listed, is_listed, row) : LENGTH;
  }
#endif
  return ends;
}

// Whether a lane's query attends to the key at a position of its row.
__device__ bool is_seen(const Ends &ends, int which, uint32_t key) {
#if SPAN
  return key < ends.at[which];
#else
  return LENGTH % TILE == 0 || key < LENGTH;
#endif
}

// Grid: (tiles of queries, H, B). logarithms[i, h]: of the softmax's denominator, to base 2.
extern "C" __global__ void __launch_bounds__(THREADS) attention_forward(
    GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns, GLOBAL(const uint32_t) starts,
    GLOBAL(const uint32_t) listed, uint32_t is_listed, GLOBAL(element) y, GLOBAL(float) logarithms) {
  uint32_t head = blockIdx.y, batch = blockIdx.z;
  uint32_t first = starts[batch] + blockIdx.x * TILE, end = starts[batch + 1];
  if (first >= end) return;
  SHARED_ARRAY(element, keys, 0, TILE * STRIDE);
  SHARED_ARRAY(element, values, TILE_BYTES, TILE * STRIDE);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Rows of_queries = {first, end, WIDTH, head * HEAD};
  Rows of_keys = {batch * LENGTH, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
  Rows of_values = of_keys;
  of_values.offset += WIDTH;
  place_turned(fetch_turned(q, of_queries), of_queries, turns, listed, is_listed, keys);
  Turned next_keys = fetch_turned(kv, of_keys);
  Straight next_values = fetch(kv, of_values);
  __syncthreads();
  Fragments<HEAD> queries = rows_of<HEAD>(keys + warp * ROWS * STRIDE);
  float max[2] = {-INFINITY, -INFINITY}, sum[2] = {0.f, 0.f}, out[HEAD / 8][4] = {};
  uint32_t keys_end = last_visible(listed, is_listed, first, end);
  for (uint32_t key = 0; key < keys_end; key += TILE) {
    __syncthreads();
    place_turned(next_keys, of_keys, turns, listed, 0, keys);
    place(next_values, values);
    __syncthreads();
    of_keys.first += TILE;
    of_values.first += TILE;
    if (key + TILE < keys_end) {
      next_keys = fetch_turned(kv, of_keys);
      next_values = fetch(kv, of_values);
    }
    float scores[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, queries, keys);
    // Found anew for each tile: to keep them would take registers that the products need.
    Ends ends = ends_of(listed, is_listed, first + warp * ROWS, end);
    float top[2] = {max[0], max[1]};
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        scores[n][i] = is_seen(ends, i / 2, key + n * 8 + lane % 4 * 2 + i % 2) ? scores[n][i] * (SCALE * LOG2_E) : -INFINITY;
        top[i / 2] = fmaxf(top[i / 2], scores[n][i]);
      }
    float shrink[2];
    for (int r = 0; r < 2; r++) {
      top[r] = over_row_max(top[r]);
      shrink[r] = power_of_two(max[r] - top[r]);
      max[r] = top[r];
      sum[r] *= shrink[r];
    }
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        scores[n][i] = power_of_two(scores[n][i] - max[i / 2]);
        sum[i / 2] += scores[n][i];
      }
#pragma unroll
    for (int n = 0; n < HEAD / 8; n++)
      for (int i = 0; i < 4; i++) out[n][i] *= shrink[i / 2];
    multiply_across<HEAD / 8, TILE>(out, factor_of<TILE>(scores), values);
  }
  of_queries.first += warp * ROWS;
  for (int r = 0; r < 2; r++) {
    sum[r] = over_row_sum(sum[r]);
    float share = 1.f / sum[r];
    for (int n = 0; n < HEAD / 8; n++)
      for (int i = 0; i < 2; i++) out[n][2 * r + i] *= share;
    uint32_t row = of_queries.first + lane / 4 + 8 * r;
    if (row < end && lane % 4 == 0) logarithms[size_t(row) * HEADS + head] = max[r] + log2f(sum[r]);
  }
  __syncthreads();
  write(out, keys + warp * ROWS * STRIDE, y, of_queries);
}
KERNEL(attention_forward)

// deltas[i, h] = Σ_w dy_iw y_iw; a thread a query's head.
extern "C" __global__ void attention_deltas(GLOBAL(const element) y, GLOBAL(const element) dy, GLOBAL(float) deltas,
                                            uint32_t count) {
  uint32_t at = blockIdx.x * blockDim.x + threadIdx.x;
  if (at >= count) return;
  float sum = 0.f;
#pragma unroll
  for (int pack = 0; pack < PACKS; pack++) {
    Pack<LANES> left = load<LANES>(y, size_t(at) * HEAD + pack * LANES);
    Pack<LANES> right = load<LANES>(dy, size_t(at) * HEAD + pack * LANES);
    for (int j = 0; j < LANES; j++) sum += left.at[j] * right.at[j];
  }
  deltas[at] = sum;
}
KERNEL(attention_deltas)

// The logarithms and deltas of a tile of queries, and where the keys end that they see; of queries that are not there, what
// makes their shares 0.
__device__ void load_sums(GLOBAL(const float) logarithms, GLOBAL(const float) deltas, GLOBAL(const uint32_t) listed,
                          uint32_t is_listed, uint32_t first, uint32_t end, uint32_t head, SHARED(float) sums) {
  for (uint32_t i = threadIdx.x; i < TILE; i += blockDim.x) {
    bool is_query = first + i < end;
    size_t at = size_t(first + i) * HEADS + head;
    sums[2 * i] = is_query ? logarithms[at] : INFINITY;
    sums[2 * i + 1] = is_query ? deltas[at] : 0.f;
#if SPAN
    // Below 2^24: exact.
    sums[2 * TILE + i] = is_query ? float(visible(listed, is_listed, first + i)) : 0.f;
#endif
  }
}

// dk and dv of a tile of keys: over all queries, tile by tile, in order. Keys are rows and queries columns of the scores.
// Grid: (tiles of keys, H, B).
extern "C" __global__ void __launch_bounds__(THREADS) attention_keys(
    GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns, GLOBAL(const uint32_t) starts,
    GLOBAL(const uint32_t) listed, uint32_t is_listed, GLOBAL(const float) logarithms, GLOBAL(const float) deltas,
    GLOBAL(const element) dy, GLOBAL(element) dkv) {
  uint32_t head = blockIdx.y, batch = blockIdx.z;
  SHARED_ARRAY(element, queries, 0, TILE * STRIDE);
  SHARED_ARRAY(element, slopes, TILE_BYTES, TILE * STRIDE);
  SHARED_ARRAY(float, sums, 2 * TILE_BYTES, SUMS * TILE);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Rows of_keys = {batch * LENGTH + blockIdx.x * TILE, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
  Rows of_values = of_keys;
  of_values.offset += WIDTH;
  place_turned(fetch_turned(kv, of_keys), of_keys, turns, listed, 0, queries);
  place(fetch(kv, of_values), slopes);
  __syncthreads();
  Fragments<HEAD> keys = rows_of<HEAD>(queries + warp * ROWS * STRIDE);
  Fragments<HEAD> values = rows_of<HEAD>(slopes + warp * ROWS * STRIDE);
  float dk[HEAD / 8][4] = {}, dv[HEAD / 8][4] = {};
  uint32_t from = starts[batch], end = starts[batch + 1];
#if SPAN
  // Queries before the block of the tile's first key do not see it, nor any after it.
  while (from < end && last_visible(listed, is_listed, from, end) <= blockIdx.x * TILE) from += TILE;
  float own_key = float(blockIdx.x * TILE + warp * ROWS + lane / 4);
#endif
  for (Rows of_queries = {from, end, WIDTH, head * HEAD}; of_queries.first < end; of_queries.first += TILE) {
    Turned next_queries = fetch_turned(q, of_queries);
    Straight next_slopes = fetch(dy, of_queries);
    __syncthreads();
    place_turned(next_queries, of_queries, turns, listed, is_listed, queries);
    place(next_slopes, slopes);
    load_sums(logarithms, deltas, listed, is_listed, of_queries.first, end, head, sums);
    __syncthreads();
    float scores[TILE / 8][4] = {}, toward[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, keys, queries);
    multiply<TILE / 8, HEAD>(toward, values, slopes);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        int column = n * 8 + lane % 4 * 2 + i % 2;
        scores[n][i] = power_of_two(scores[n][i] * (SCALE * LOG2_E) - sums[2 * column]);
#if SPAN
        if (own_key + float(8 * (i / 2)) >= sums[2 * TILE + column]) scores[n][i] = 0.f;
#endif
        toward[n][i] = scores[n][i] * (toward[n][i] - sums[2 * column + 1]) * SCALE;
      }
    multiply_across<HEAD / 8, TILE>(dv, factor_of<TILE>(scores), slopes);
    multiply_across<HEAD / 8, TILE>(dk, factor_of<TILE>(toward), queries);
  }
  of_keys.first += warp * ROWS;
  of_values.first += warp * ROWS;
  turn_back(dk, of_keys, turns, listed, 0);
  __syncthreads();
  write(dk, queries + warp * ROWS * STRIDE, dkv, of_keys);
  write(dv, queries + warp * ROWS * STRIDE, dkv, of_values);
}
KERNEL(attention_keys)

// dq of a tile of queries: over all keys, tile by tile, in order. Grid: (tiles of queries, H, B). One block a processor is
// enough: without the 1, a compiler may aim at more, and spill (13.5 does at 32 wide heads, causal, sm_100).
extern "C" __global__ void __launch_bounds__(THREADS, 1) attention_queries(
    GLOBAL(const element) q, GLOBAL(const element) kv, GLOBAL(const float) turns, GLOBAL(const uint32_t) starts,
    GLOBAL(const uint32_t) listed, uint32_t is_listed, GLOBAL(const float) logarithms, GLOBAL(const float) deltas,
    GLOBAL(const element) dy, GLOBAL(element) dq) {
  uint32_t head = blockIdx.y, batch = blockIdx.z;
  uint32_t first = starts[batch] + blockIdx.x * TILE, end = starts[batch + 1];
  if (first >= end) return;
  SHARED_ARRAY(element, keys, 0, TILE * STRIDE);
  SHARED_ARRAY(element, values, TILE_BYTES, TILE * STRIDE);
  int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
  Rows of_queries = {first, end, WIDTH, head * HEAD};
  Rows of_keys = {batch * LENGTH, (batch + 1) * LENGTH, 2 * WIDTH, head * HEAD};
  Rows of_values = of_keys;
  of_values.offset += WIDTH;
  place_turned(fetch_turned(q, of_queries), of_queries, turns, listed, is_listed, keys);
  place(fetch(dy, of_queries), values);
  Turned next_keys = fetch_turned(kv, of_keys);
  Straight next_values = fetch(kv, of_values);
  __syncthreads();
  Fragments<HEAD> queries = rows_of<HEAD>(keys + warp * ROWS * STRIDE);
  Fragments<HEAD> slopes = rows_of<HEAD>(values + warp * ROWS * STRIDE);
  of_queries.first += warp * ROWS;
  float logarithm[2], delta[2];
  for (int r = 0; r < 2; r++) {
    uint32_t row = of_queries.first + lane / 4 + 8 * r;
    logarithm[r] = row < end ? logarithms[size_t(row) * HEADS + head] : INFINITY;
    delta[r] = row < end ? deltas[size_t(row) * HEADS + head] : 0.f;
  }
  float own[HEAD / 8][4] = {};
  uint32_t keys_end = last_visible(listed, is_listed, first, end);
  Ends ends = ends_of(listed, is_listed, of_queries.first, end);
  for (uint32_t key = 0; key < keys_end; key += TILE) {
    __syncthreads();
    place_turned(next_keys, of_keys, turns, listed, 0, keys);
    place(next_values, values);
    __syncthreads();
    of_keys.first += TILE;
    of_values.first += TILE;
    if (key + TILE < keys_end) {
      next_keys = fetch_turned(kv, of_keys);
      next_values = fetch(kv, of_values);
    }
    float scores[TILE / 8][4] = {}, toward[TILE / 8][4] = {};
    multiply<TILE / 8, HEAD>(scores, queries, keys);
    multiply<TILE / 8, HEAD>(toward, slopes, values);
#pragma unroll
    for (int n = 0; n < TILE / 8; n++)
      for (int i = 0; i < 4; i++) {
        bool is_key = is_seen(ends, i / 2, key + n * 8 + lane % 4 * 2 + i % 2);
        float share = is_key ? power_of_two(scores[n][i] * (SCALE * LOG2_E) - logarithm[i / 2]) : 0.f;
        toward[n][i] = share * (toward[n][i] - delta[i / 2]) * SCALE;
      }
    multiply_across<HEAD / 8, TILE>(own, factor_of<TILE>(toward), keys);
  }
  turn_back(own, of_queries, turns, listed, is_listed);
  __syncthreads();
  write(own, keys + warp * ROWS * STRIDE, dq, of_queries);
}
KERNEL(attention_queries)
