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

__device__ float sigmoid(float x) { return 1.f / (1.f + expf(-x)); }

// Which batch row a row of an activation belongs to: rows are listed as token rows, or all are there in order.
__device__ uint32_t token_row(GLOBAL(const uint32_t) listed, uint32_t is_listed, uint32_t row) {
  return is_listed ? listed[row] : row;
}
