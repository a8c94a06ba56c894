// CUDA C on the CPU, for tests: the kernels' sources compiled by a C++ compiler, with the meaning that CUDA gives them.
//
// Every thread of a block is a fiber with a stack of its own; the blocks of a grid run one after the other. A fiber runs
// until it waits: for its block (__syncthreads) or for its warp (shuffles, tensor-core products). What a GPU leaves
// undefined ends the process with its place: a barrier that not all threads reach, lanes of a warp that wait for different
// things, an access outside of every buffer or of a shared array. Shared memory holds NaNs when a block begins.
#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#if !defined(__x86_64__)
#include <ucontext.h>
#endif

// Of CUDA's own types.
struct alignas(16) uint4 {
  uint32_t x, y, z, w;
};
struct alignas(16) float4 {
  float x, y, z, w;
};

#define __global__
#define __device__ static inline
#define __launch_bounds__(...)

namespace emulate {

struct Index {
  unsigned x, y, z;
};

const unsigned WARP = 32;
const unsigned THREADS = 1024;
const size_t STACK = 96 << 10;

enum Wait { RUNNING, BLOCK, LANES, DONE };

struct Fiber {
#if defined(__x86_64__)
  void *stack;
#else
  ucontext_t context;
#endif
  Index thread;
  unsigned number;
  Wait waits;
  int at; // which operation of the warp it waits for
};

static Fiber fibers[THREADS];
static char *stacks;
static Fiber *current;
static unsigned count;
static Index block, grid, threads;
static const char *kernel = "?";

[[noreturn]] static void die(const char *what) {
  fprintf(stderr, "kernel %s, block (%u, %u, %u)", kernel, block.x, block.y, block.z);
  if (current) fprintf(stderr, ", thread %u", current->number);
  fprintf(stderr, ": %s\n", what);
  abort();
}

#if defined(__x86_64__)
static void *scheduler;
// Saves what a function call keeps (System V ABI), changes stacks, restores.
__attribute__((naked, noinline)) static void change(void **, void *) {
  asm volatile("push %rbp\n push %rbx\n push %r12\n push %r13\n push %r14\n push %r15\n"
               "mov %rsp, (%rdi)\n mov %rsi, %rsp\n"
               "pop %r15\n pop %r14\n pop %r13\n pop %r12\n pop %rbx\n pop %rbp\n ret\n");
}
static void leave() { change(&current->stack, scheduler); }
static void enter(Fiber &fiber) { change(&scheduler, fiber.stack); }
#else
static ucontext_t scheduler;
static void leave() { swapcontext(&current->context, &scheduler); }
static void enter(Fiber &fiber) { swapcontext(&scheduler, &fiber.context); }
#endif

static void (*body)(void *);
static void *body_arguments;

static void wait(Wait what, int at) {
  current->waits = what;
  current->at = at;
  leave();
}

static void begin() {
  body(body_arguments);
  wait(DONE, 0);
}

// A thread that goes on past the barrier its warp waits at would never meet it again: a GPU hangs, this says where.
static bool release_warps() {
  bool released = false;
  for (unsigned first = 0; first < count; first += WARP) {
    unsigned end = first + WARP < count ? first + WARP : count, live = 0, waiting = 0;
    int at = -1;
    for (unsigned i = first; i < end; i++) {
      live += fibers[i].waits != DONE;
      if (fibers[i].waits != LANES) continue;
      current = &fibers[i];
      if (waiting++ && fibers[i].at != at) die("lanes of a warp wait for different operations");
      at = fibers[i].at;
    }
    if (waiting == 0 || waiting != live) continue;
    for (unsigned i = first; i < end; i++)
      if (fibers[i].waits == LANES) fibers[i].waits = RUNNING;
    released = true;
  }
  return released;
}

static void run_block() {
  for (;;) {
    bool ran = false;
    for (unsigned i = 0; i < count; i++)
      if (fibers[i].waits == RUNNING) {
        current = &fibers[i];
        enter(fibers[i]);
        ran = true;
      }
    unsigned done = 0, at_barrier = 0;
    for (unsigned i = 0; i < count; i++) {
      done += fibers[i].waits == DONE;
      at_barrier += fibers[i].waits == BLOCK;
    }
    if (done == count) return;
    if (release_warps()) continue;
    if (at_barrier == count) {
      for (unsigned i = 0; i < count; i++) fibers[i].waits = RUNNING;
      continue;
    }
    if (!ran || at_barrier) {
      for (unsigned i = 0; i < count; i++)
        if (fibers[i].waits != BLOCK) current = &fibers[i];
      die("a barrier that not all threads reach");
    }
  }
}

// Memory of the device: what kernels may touch.
struct Region {
  uintptr_t first, end;
};
const unsigned REGIONS = 1 << 16;
static Region regions[REGIONS];
static unsigned regions_used;

// An address that a kernel was given, with the bounds of the buffer that it lies in.
template <class T> struct Global {
  T *at;
  uintptr_t first, end;

  static Global of(T *at) {
    uintptr_t address = reinterpret_cast<uintptr_t>(at);
    // Buffers may touch each other.
    for (unsigned i = 0; i < regions_used; i++)
      if (regions[i].first <= address && address < regions[i].end) return {at, regions[i].first, regions[i].end};
    return {at, address, address}; // of no buffer: any access is outside
  }
  T &operator[](size_t i) const {
    uintptr_t address = reinterpret_cast<uintptr_t>(at + i);
    if (address < first || address + sizeof(T) > end) die("an access outside of its buffer");
    if (address % alignof(T)) die("an access that is not aligned");
    return at[i];
  }
  Global operator+(size_t i) const { return {at + i, first, end}; }
  operator Global<const T>() const { return {at, first, end}; }
};

template <class U, class T> static inline Global<U> as(Global<T> x) {
  return {reinterpret_cast<U *>(x.at), x.first, x.end};
}

// Shared memory, poisoned at the beginning of each block.
const size_t SHARED = 232 << 10; // what a thread block of a H200 may have, 227 KiB, and some
alignas(128) static unsigned char shared[SHARED];
static size_t shared_size;

template <class T> struct Shared {
  T *at;
  size_t length;
  T &operator[](size_t i) const {
    if (i >= length) die("an access outside of a shared array");
    return at[i];
  }
  Shared operator+(size_t i) const {
    if (i > length) die("an address outside of a shared array");
    return {at + i, length - i};
  }
};

template <class U, class T> static inline Shared<U> as(Shared<T> x) {
  if (reinterpret_cast<uintptr_t>(x.at) % alignof(U)) die("a shared access that is not aligned");
  return {reinterpret_cast<U *>(x.at), x.length * sizeof(T) / sizeof(U)};
}

template <class T> static inline Shared<T> shared_array(size_t offset, size_t length) {
  if (offset % alignof(T)) die("a shared array that is not aligned");
  if (offset + length * sizeof(T) > shared_size) die("a shared array outside of what was asked for at the launch");
  return {reinterpret_cast<T *>(shared + offset), length};
}

static void run_grid(void (*what)(void *), void *arguments) {
  body = what;
  body_arguments = arguments;
  count = threads.x * threads.y * threads.z;
  if (count == 0 || count > THREADS) die("a block of no or too many threads");
  if (!stacks) stacks = static_cast<char *>(aligned_alloc(64, THREADS * STACK));
  for (block.z = 0; block.z < grid.z; block.z++)
    for (block.y = 0; block.y < grid.y; block.y++)
      for (block.x = 0; block.x < grid.x; block.x++) {
        memset(shared, 0xFF, shared_size);
        for (unsigned i = 0; i < count; i++) {
          Fiber &fiber = fibers[i];
          fiber.number = i;
          fiber.thread = {i % threads.x, i / threads.x % threads.y, i / (threads.x * threads.y)};
          fiber.waits = RUNNING;
          char *stack = stacks + i * STACK;
#if defined(__x86_64__)
          void **top = reinterpret_cast<void **>(stack + STACK) - 1; // `begin` starts as after a call
          *--top = reinterpret_cast<void *>(&begin);
          for (int saved = 0; saved < 6; saved++) *--top = nullptr;
          fiber.stack = top;
#else
          getcontext(&fiber.context);
          fiber.context.uc_stack.ss_sp = stack;
          fiber.context.uc_stack.ss_size = STACK;
          fiber.context.uc_link = &scheduler;
          makecontext(&fiber.context, begin, 0);
#endif
        }
        run_block();
      }
  current = nullptr;
}

// Arguments of a kernel, from addresses of their values.
template <class T> struct Argument {
  static T from(void *value) { return *static_cast<T *>(value); }
};
template <class T> struct Argument<Global<T>> {
  static Global<T> from(void *value) { return Global<T>::of(*static_cast<T **>(value)); }
};

template <size_t... I> struct Places {};
template <size_t N, size_t... I> struct Count : Count<N - 1, N - 1, I...> {};
template <size_t... I> struct Count<0, I...> {
  typedef Places<I...> places;
};

template <class... A> struct Call {
  void (*kernel)(A...);
  void **values;
  template <size_t... I> void apply(Places<I...>) { kernel(Argument<A>::from(values[I])...); }
  static void run(void *self) { static_cast<Call *>(self)->apply(typename Count<sizeof...(A)>::places()); }
};

template <class... A> constexpr unsigned arguments(void (*)(A...)) { return sizeof...(A); }

template <class... A> static void launch(void (*what)(A...), const char *name, const unsigned *sizes, void **values) {
  kernel = name;
  current = nullptr;
  grid = {sizes[0], sizes[1], sizes[2]};
  threads = {sizes[3], sizes[4], sizes[5]};
  shared_size = sizes[6];
  if (shared_size > SHARED) die("more shared memory than there is");
  Call<A...> call = {what, values};
  run_grid(Call<A...>::run, &call);
}

static uint64_t slots[THREADS];

// Every lane shows a value and sees that of another one.
template <class T> static inline T exchange(T value, unsigned lane, int at) {
  static_assert(sizeof(T) <= 8, "a shuffle of more than eight bytes");
  unsigned own = current->number, first = own / WARP * WARP;
  memcpy(&slots[own], &value, sizeof(T));
  wait(LANES, at);
  unsigned from = first + lane % WARP;
  if (from >= count || fibers[from].waits == DONE) die("a shuffle from a lane that is not there");
  T other;
  memcpy(&other, &slots[from], sizeof(T));
  wait(LANES, at + 1);
  return other;
}

struct Fragments {
  uint32_t a[4], b[2];
};
static Fragments fragments[THREADS];

} // namespace emulate

// For who runs the kernels.
extern "C" void emulate_buffer(void *first, size_t bytes) {
  using namespace emulate;
  if (regions_used == REGIONS) die("too many buffers");
  uintptr_t address = reinterpret_cast<uintptr_t>(first);
  regions[regions_used++] = {address, address + bytes};
}
extern "C" void emulate_no_buffers() { emulate::regions_used = 0; }

#define GLOBAL(T) emulate::Global<T>
#define SHARED(T) emulate::Shared<T>
#define SHARED_ARRAY(T, name, offset, length) emulate::Shared<T> name = emulate::shared_array<T>(offset, length)
#define KERNEL(name)                                                                                                   \
  extern "C" const unsigned emulate_count_##name = emulate::arguments(name);                                           \
  extern "C" void emulate_##name(const unsigned *sizes, void **values) {                                               \
    emulate::launch(name, #name, sizes, values);                                                                       \
  }

#define threadIdx (emulate::current->thread)
#define blockIdx (emulate::block)
#define blockDim (emulate::threads)
#define gridDim (emulate::grid)

using emulate::as;

static inline void __syncthreads() { emulate::wait(emulate::BLOCK, 0); }
static inline void __syncwarp() { emulate::wait(emulate::LANES, -2); }
template <class T> static inline T __shfl_xor_sync(unsigned, T value, int mask) {
  return emulate::exchange(value, (emulate::current->number % emulate::WARP) ^ mask, 2);
}
template <class T> static inline T __shfl_sync(unsigned, T value, int lane) { return emulate::exchange(value, lane, 4); }
static inline float __uint_as_float(unsigned bits) {
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
static inline unsigned __float_as_uint(float value) {
  unsigned bits;
  memcpy(&bits, &value, 4);
  return bits;
}
static inline unsigned __umulhi(unsigned a, unsigned b) { return static_cast<uint64_t>(a) * b >> 32; }
static inline float rsqrtf(float x) { return 1.f / sqrtf(x); }

// mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32, by the layout of its fragments (PTX ISA, "Matrix Fragments for
// mma.m16n8k16"): a warp's d(16, 8) += a(16, 16) · b(8, 16)ᵀ.
static inline void multiply_tile(float *d, const uint32_t *a, const uint32_t *b) {
  using namespace emulate;
  unsigned own = current->number, first = own / WARP * WARP, group = own % WARP / 4, pair = own % 4;
  memcpy(fragments[own].a, a, sizeof fragments[own].a);
  memcpy(fragments[own].b, b, sizeof fragments[own].b);
  wait(LANES, 8);
  auto half = [](uint32_t both, unsigned high) { return __uint_as_float(high ? both & 0xFFFF0000u : both << 16); };
  for (unsigned i = 0; i < 4; i++) {
    unsigned row = group + 8 * (i / 2), column = 2 * pair + i % 2;
    for (unsigned k = 0; k < 16; k++) {
      const Fragments &left = fragments[first + row % 8 * 4 + k % 8 / 2];
      const Fragments &right = fragments[first + column * 4 + k % 8 / 2];
      d[i] += half(left.a[row / 8 + 2 * (k / 8)], k % 2) * half(right.b[k / 8], k % 2);
    }
  }
  wait(LANES, 9);
}

// ldmatrix.sync.aligned.m8n8.x4.b16, by the layout of its fragments (PTX ISA, "Warp-level matrix load instruction").
namespace emulate {
static const void *rows[THREADS];
template <class T> static inline void load_tiles(uint32_t *tiles, Shared<T> row, bool across) {
  if (reinterpret_cast<uintptr_t>(row.at) % 16) die("a row of a tile that is not aligned to 16 bytes");
  if (row.length * sizeof(T) < 16) die("a row of a tile outside of a shared array");
  unsigned own = current->number, first = own / WARP * WARP, lane = own % WARP;
  rows[own] = row.at;
  wait(LANES, across ? 12 : 10);
  for (unsigned tile = 0; tile < 4; tile++) {
    uint16_t both[2];
    for (unsigned i = 0; i < 2; i++) {
      unsigned r = across ? 2 * (lane % 4) + i : lane / 4, c = across ? lane / 4 : 2 * (lane % 4) + i;
      memcpy(&both[i], static_cast<const char *>(rows[first + 8 * tile + r]) + 2 * c, 2);
    }
    tiles[tile] = both[0] | uint32_t(both[1]) << 16;
  }
  wait(LANES, across ? 13 : 11);
}
} // namespace emulate
template <class T> static inline void load_tiles(uint32_t *tiles, emulate::Shared<T> row) {
  emulate::load_tiles(tiles, row, false);
}
template <class T> static inline void load_tiles_across(uint32_t *tiles, emulate::Shared<T> row) {
  emulate::load_tiles(tiles, row, true);
}
