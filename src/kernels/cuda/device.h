// What every kernel begins with: the same source for NVRTC and, in tests, for a C++ compiler (emulate.h).
//
// ELEMENT_BF16 decides what activations and the weights' working copies are made of: bf16 or, for checking, f32. All
// arithmetic is in f32. Dimensions come as macros: constants for the compiler.
#ifdef __CUDACC_RTC__
typedef unsigned short uint16_t;
typedef unsigned int uint32_t;
typedef unsigned long long uint64_t;
typedef unsigned long size_t;
#define INFINITY __uint_as_float(0x7F800000u)
#define GLOBAL(T) T *__restrict__
#define SHARED(T) T *
#define SHARED_ARRAY(T, name, offset, length) T *name = reinterpret_cast<T *>(shared_memory + (offset))
#define KERNEL(name)
extern __shared__ __align__(128) unsigned char shared_memory[];
template <class U, class T> __device__ inline U *as(T *x) { return reinterpret_cast<U *>(x); }

// A warp's d(16, 8) += a(16, 16) · b(8, 16)ᵀ on the tensor cores, bf16 pairs in, f32 out.
__device__ inline void multiply_tile(float *d, const uint32_t *a, const uint32_t *b) {
  asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
               : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

// Four 8x8 tiles of bf16 from shared memory: lane l tells where row l % 8 of tile l / 8 begins, and gets of each tile the
// elements (l / 4, 2 (l % 4)) and (l / 4, 2 (l % 4) + 1), or of its transpose.
__device__ inline void load_tiles(uint32_t *tiles, const void *row) {
  uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3]) : "r"(at));
}
__device__ inline void load_tiles_across(uint32_t *tiles, const void *row) {
  uint32_t at = uint32_t(__cvta_generic_to_shared(row));
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];"
               : "=r"(tiles[0]), "=r"(tiles[1]), "=r"(tiles[2]), "=r"(tiles[3]) : "r"(at));
}
#else
#include "emulate.h"
#endif

#define ALL_LANES 0xFFFFFFFFu

// A bf16 number: the upper half of an f32.
struct bf16 {
  uint16_t bits;
};

// Rounded to the nearest, ties to even; a NaN stays one.
__device__ uint32_t rounded(float x) {
  uint32_t bits = __float_as_uint(x);
  if ((bits & 0x7FFFFFFFu) > 0x7F800000u) return 0x7FC0u;
  return (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
}

#ifdef ELEMENT_BF16
typedef bf16 element;
#else
typedef float element;
#endif

__device__ float wide(float x) { return x; }
__device__ float wide(bf16 x) { return __uint_as_float(uint32_t(x.bits) << 16); }
__device__ void narrow(float &y, float x) { y = x; }
__device__ void narrow(bf16 &y, float x) { y.bits = uint16_t(rounded(x)); }

// Two numbers as bf16 in a word, the first one in its lower half.
__device__ uint32_t pair(float low, float high) {
#ifdef __CUDACC_RTC__
  uint32_t both;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(both) : "f"(high), "f"(low));
  return both;
#else
  return rounded(low) | rounded(high) << 16;
#endif
}

// Elements that one access of 16 bytes moves.
#ifdef ELEMENT_BF16
#define LANES 8
#else
#define LANES 4
#endif

// N elements of a row as f32: LANES of them, or single ones where rows are not made of whole accesses.
template <int N> struct Pack {
  float at[N];
};

__device__ Pack<LANES> unpacked(uint4 words) {
  Pack<LANES> pack;
  uint32_t all[4] = {words.x, words.y, words.z, words.w};
  for (int i = 0; i < 4; i++) {
#ifdef ELEMENT_BF16
    pack.at[2 * i] = __uint_as_float(all[i] << 16);
    pack.at[2 * i + 1] = __uint_as_float(all[i] & 0xFFFF0000u);
#else
    pack.at[i] = __uint_as_float(all[i]);
#endif
  }
  return pack;
}

__device__ uint4 packed(const Pack<LANES> &pack) {
  uint32_t all[4];
  for (int i = 0; i < 4; i++) {
#ifdef ELEMENT_BF16
    all[i] = pair(pack.at[2 * i], pack.at[2 * i + 1]);
#else
    all[i] = __float_as_uint(pack.at[i]);
#endif
  }
  return uint4{all[0], all[1], all[2], all[3]};
}

template <int N> __device__ Pack<N> load(GLOBAL(const element) from, size_t at) {
  if constexpr (N == 1) {
    return Pack<1>{{wide(from[at])}};
  } else {
    return unpacked(as<const uint4>(from)[at / LANES]);
  }
}

template <int N> __device__ void store(GLOBAL(element) to, size_t at, const Pack<N> &pack) {
  if constexpr (N == 1) {
    narrow(to[at], pack.at[0]);
  } else {
    as<uint4>(to)[at / LANES] = packed(pack);
  }
}

// The same of f32 numbers, whatever elements are.
template <int N> __device__ Pack<N> load_floats(GLOBAL(const float) from, size_t at) {
  Pack<N> pack;
  if constexpr (N == 1) {
    pack.at[0] = from[at];
  } else {
    for (int i = 0; i < N / 4; i++) {
      float4 four = as<const float4>(from)[at / 4 + i];
      pack.at[4 * i] = four.x;
      pack.at[4 * i + 1] = four.y;
      pack.at[4 * i + 2] = four.z;
      pack.at[4 * i + 3] = four.w;
    }
  }
  return pack;
}

template <int N> __device__ void store_floats(GLOBAL(float) to, size_t at, const Pack<N> &pack) {
  if constexpr (N == 1) {
    to[at] = pack.at[0];
  } else {
    for (int i = 0; i < N / 4; i++)
      as<float4>(to)[at / 4 + i] = float4{pack.at[4 * i], pack.at[4 * i + 1], pack.at[4 * i + 2], pack.at[4 * i + 3]};
  }
}

__device__ float warp_sum(float x) {
  for (int mask = 16; mask; mask /= 2) x += __shfl_xor_sync(ALL_LANES, x, mask);
  return x;
}
__device__ float warp_max(float x) {
  for (int mask = 16; mask; mask /= 2) x = fmaxf(x, __shfl_xor_sync(ALL_LANES, x, mask));
  return x;
}

// Over all threads of a block, in a fixed order; `partial` has a number a warp. Every thread gets the sum.
__device__ float block_sum(float x, SHARED(float) partial) {
  unsigned warps = blockDim.x / 32;
  x = warp_sum(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float sum = 0.f;
  for (unsigned warp = 0; warp < warps; warp++) sum += partial[warp];
  return sum;
}
__device__ float block_max(float x, SHARED(float) partial) {
  unsigned warps = blockDim.x / 32;
  x = warp_max(x);
  __syncthreads();
  if (threadIdx.x % 32 == 0) partial[threadIdx.x / 32] = x;
  __syncthreads();
  float max = partial[0];
  for (unsigned warp = 1; warp < warps; warp++) max = fmaxf(max, partial[warp]);
  return max;
}

// Of bf16 elements two digits are kept: the hardware's own exponential, good for six, is exact enough there.
__device__ float exponential(float x) {
#if defined(__CUDACC_RTC__) && defined(ELEMENT_BF16)
  return __expf(x);
#else
  return expf(x);
#endif
}
// 2^x.
__device__ float power_of_two(float x) {
#if defined(__CUDACC_RTC__) && defined(ELEMENT_BF16)
  float power;
  asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(power) : "f"(x));
  return power;
#else
  return exp2f(x);
#endif
}
__device__ float sigmoid(float x) { return 1.f / (1.f + exponential(-x)); }

// Σ partial[c · stride + column] over c < count, by a block of 8 warps whose lanes are 32 columns: every warp adds up its
// eighth of them, then the eighths are added, always in the same order. Warp 0 has the sum. `eighths`: 256 numbers.
__device__ float column_total(GLOBAL(const float) partial, size_t first, size_t stride, uint32_t count, bool is_column,
                              SHARED(float) eighths) {
  uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  float sum = 0.f;
  if (is_column)
    for (uint32_t c = warp; c < count; c += 8) sum += partial[first + c * stride];
  __syncthreads();
  eighths[threadIdx.x] = sum;
  __syncthreads();
  if (warp > 0) return 0.f;
  for (uint32_t other = 1; other < 8; other++) sum += eighths[other * 32 + lane];
  return sum;
}

// Which batch row a row of an activation belongs to: rows are listed as token rows, or all are there in order.
__device__ uint32_t token_row(GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t row) {
  return is_listed ? listed[row] : row;
}
