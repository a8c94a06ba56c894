// A stub of CUDA, for tests on machines without a GPU: libcuda, libnvrtc, libcublasLt and libnccl as far as mdlm calls them, in
// one library. Memory is the process's, "machine code" is the kernel's source compiled by the system's C++ compiler with emulate.h,
// products are plain loops. What the documentation forbids is refused as a driver would, or ends the process with a message.
//
// Work is put off as long as it may be: a stream runs when a call waits for it. A read that is too early
// finds poison, a write over memory that a copy still needs sends the new content.
//
// It shows that the calls are made as they are documented. It says nothing about a GPU's speed, and nothing about its rounding.
//
// The environment: CUDA_STUB_MEMORY (bytes of the device), CUDA_STUB_DEVICES (0 for none; all share one memory), CUDA_STUB_DRIVER (13000 for CUDA 13.0),
// CUDA_STUB_FAILS (a kernel that ends in an illegal address), CUDA_STUB_PLAIN (no epilogues), CUDA_STUB_CALLS (a file that
// gets, at the end, how often each kind of work was done), CUDA_STUB_WRONG (products of something else).
#include <dlfcn.h>
#include <elf.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <fstream>
#include <functional>
#include <map>
#include <mutex>
#include <set>
#include <sstream>
#include <string>
#include <thread>
#include <vector>

#define API extern "C" __attribute__((visibility("default")))

namespace {

// CUresult
enum Result {
  SUCCESS = 0,
  INVALID_VALUE = 1,
  OUT_OF_MEMORY = 2,
  NOT_INITIALIZED = 3,
  NO_DEVICE = 100,
  INVALID_DEVICE = 101,
  INVALID_IMAGE = 200,
  INVALID_CONTEXT = 201,
  INVALID_HANDLE = 400,
  NOT_FOUND = 500,
  NOT_READY = 600,
  ILLEGAL_ADDRESS = 700,
  CAPTURE_UNSUPPORTED = 900,
  CAPTURE_INVALIDATED = 901,
};

typedef std::function<void()> Task;

struct Graph {
  std::vector<Task> tasks;
};

struct Stream {
  std::deque<Task> waiting;
  uint64_t queued = 0, done = 0; // tasks, in order
  Graph *capturing = nullptr;
  bool invalidated = false;
  int mode = 0; // of the capture: 0 global, 1 of this thread, 2 relaxed
  std::thread::id thread;
};

struct Event {
  bool has_time;
  Stream *stream = nullptr;
  uint64_t number = 0; // of the task after which it has happened
  double seconds = 0;
};

struct Module {
  void *library;
  void (*forget)();
  void (*buffer)(void *, size_t);
};

struct Function {
  Module *module;
  std::string name;
  void (*run)(const unsigned *sizes, void **values);
  unsigned count; // of arguments
  unsigned shared = 48 << 10;
  bool is_loaded = false; // it has been launched outside of a capture
};

std::recursive_mutex mutex;
std::map<uintptr_t, size_t> memory, pinned;
std::set<void *> streams, events, modules, functions, graphs, executables;
std::set<std::vector<uint64_t>> multiplied; // products that have run outside of a capture
std::map<std::string, size_t> calls;
size_t used = 0;
bool is_initialized = false;
Result broken = SUCCESS; // what went wrong on the device stays
int context;             // the one device's primary context
thread_local void *current = nullptr;

typedef std::lock_guard<std::recursive_mutex> Lock;

[[noreturn]] void die(const std::string &what) {
  fprintf(stderr, "CUDA stub: %s\n", what.c_str());
  abort();
}

size_t setting(const char *name, size_t usual) {
  const char *text = getenv(name);
  return text && *text ? strtoull(text, nullptr, 10) : usual;
}

int devices() { return int(setting("CUDA_STUB_DEVICES", 1)); }

size_t total() { return setting("CUDA_STUB_MEMORY", size_t(4) << 30); }

void write_calls() {
  const char *path = getenv("CUDA_STUB_CALLS");
  if (!path || !*path) return;
  std::ofstream file(path);
  for (auto &call : calls) file << call.first << " " << call.second << "\n";
}

bool inside(const std::map<uintptr_t, size_t> &pieces, const void *at, size_t bytes) {
  uintptr_t address = reinterpret_cast<uintptr_t>(at);
  auto after = pieces.upper_bound(address);
  if (after == pieces.begin()) return false;
  auto piece = std::prev(after);
  return address + bytes <= piece->first + piece->second;
}

// Whether a call may be made at all.
Result ready() {
  if (!is_initialized) return NOT_INITIALIZED;
  if (!current) return INVALID_CONTEXT;
  return broken;
}

void advance(Stream *stream, uint64_t until) {
  while (stream->done < until && !stream->waiting.empty()) {
    Task task = std::move(stream->waiting.front());
    stream->waiting.pop_front();
    if (broken == SUCCESS) task();
    stream->done++;
  }
}

void advance_all() {
  for (void *stream : streams) advance(static_cast<Stream *>(stream), ~uint64_t(0));
}

// What may not be called during a capture, as the capture's mode says: it makes the capture invalid.
Result outside_of_captures() {
  Result result = SUCCESS;
  for (void *each : streams) {
    Stream *stream = static_cast<Stream *>(each);
    if (!stream->capturing || stream->mode == 2) continue;
    if (stream->mode == 1 && stream->thread != std::this_thread::get_id()) continue;
    stream->invalidated = true;
    result = CAPTURE_UNSUPPORTED;
  }
  return result;
}

bool is_capturing(void *stream) { return streams.count(stream) && static_cast<Stream *>(stream)->capturing; }

Result queue(void *handle, Task task) {
  if (Result result = ready()) return result;
  if (!streams.count(handle)) return INVALID_HANDLE;
  Stream *stream = static_cast<Stream *>(handle);
  if (stream->capturing) {
    if (stream->invalidated) return CAPTURE_INVALIDATED;
    stream->capturing->tasks.push_back(std::move(task));
    return SUCCESS;
  }
  stream->waiting.push_back(std::move(task));
  stream->queued++;
  return SUCCESS;
}

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

} // namespace

// The driver.

API Result cuInit(unsigned flags) {
  Lock lock(mutex);
  if (flags) return INVALID_VALUE;
  if (setting("CUDA_STUB_DEVICES", 1) == 0) return NO_DEVICE;
  if (!is_initialized) atexit(write_calls);
  is_initialized = true;
  return SUCCESS;
}
API Result cuDriverGetVersion(int *version) {
  *version = int(setting("CUDA_STUB_DRIVER", 13000));
  return SUCCESS;
}
API Result cuGetErrorName(Result result, const char **name) {
  static const std::map<int, const char *> names = {
      {SUCCESS, "CUDA_SUCCESS"},
      {INVALID_VALUE, "CUDA_ERROR_INVALID_VALUE"},
      {OUT_OF_MEMORY, "CUDA_ERROR_OUT_OF_MEMORY"},
      {NOT_INITIALIZED, "CUDA_ERROR_NOT_INITIALIZED"},
      {NO_DEVICE, "CUDA_ERROR_NO_DEVICE"},
      {INVALID_DEVICE, "CUDA_ERROR_INVALID_DEVICE"},
      {INVALID_IMAGE, "CUDA_ERROR_INVALID_IMAGE"},
      {INVALID_CONTEXT, "CUDA_ERROR_INVALID_CONTEXT"},
      {INVALID_HANDLE, "CUDA_ERROR_INVALID_HANDLE"},
      {NOT_FOUND, "CUDA_ERROR_NOT_FOUND"},
      {NOT_READY, "CUDA_ERROR_NOT_READY"},
      {ILLEGAL_ADDRESS, "CUDA_ERROR_ILLEGAL_ADDRESS"},
      {CAPTURE_UNSUPPORTED, "CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED"},
      {CAPTURE_INVALIDATED, "CUDA_ERROR_STREAM_CAPTURE_INVALIDATED"},
  };
  auto found = names.find(result);
  *name = found == names.end() ? nullptr : found->second;
  return found == names.end() ? INVALID_VALUE : SUCCESS;
}
API Result cuGetErrorString(Result, const char **text) {
  *text = "so says the CUDA stub";
  return SUCCESS;
}
API Result cuDeviceGetCount(int *count) {
  if (!is_initialized) return NOT_INITIALIZED;
  *count = devices();
  return SUCCESS;
}
API Result cuDeviceGet(int *device, int number) {
  if (!is_initialized) return NOT_INITIALIZED;
  *device = number;
  return number < devices() ? SUCCESS : INVALID_DEVICE;
}
API Result cuDeviceGetName(char *name, int length, int device) {
  if (device >= devices()) return INVALID_DEVICE;
  snprintf(name, length, "CUDA stub (no GPU)");
  return SUCCESS;
}
API Result cuDeviceGetUuid_v2(unsigned char *uuid, int device) {
  for (int i = 0; i < 16; i++) uuid[i] = i + device;
  return device >= devices() ? INVALID_DEVICE : SUCCESS;
}
API Result cuDeviceGetUuid(unsigned char *uuid, int device) { return cuDeviceGetUuid_v2(uuid, device); }
API Result cuDeviceTotalMem_v2(size_t *bytes, int device) {
  *bytes = total();
  return device >= devices() ? INVALID_DEVICE : SUCCESS;
}
API Result cuDeviceGetAttribute(int *value, int attribute, int device) {
  static const std::map<int, int> values = {{16, 2}, {20, 0}, {75, 9}, {76, 0}}; // multiprocessors, mode, capability
  auto found = values.find(attribute);
  if (device >= devices()) return INVALID_DEVICE;
  if (found == values.end()) die("an attribute of a device that it does not have: " + std::to_string(attribute));
  *value = found->second;
  return SUCCESS;
}
API Result cuDevicePrimaryCtxRetain(void **handle, int device) {
  if (!is_initialized) return NOT_INITIALIZED;
  if (device >= devices()) return INVALID_DEVICE;
  *handle = &context;
  return SUCCESS;
}
API Result cuDevicePrimaryCtxRelease_v2(int device) { return device ? INVALID_DEVICE : SUCCESS; }
API Result cuCtxSetCurrent(void *handle) {
  if (handle && handle != &context) return INVALID_CONTEXT;
  current = handle;
  return SUCCESS;
}
API Result cuCtxGetCurrent(void **handle) {
  *handle = current;
  return SUCCESS;
}

// Memory.

API Result cuMemGetInfo_v2(size_t *free, size_t *all) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  *all = total();
  *free = total() - used;
  return SUCCESS;
}
API Result cuMemAlloc_v2(uint64_t *at, size_t bytes) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (Result result = outside_of_captures()) return result;
  if (bytes == 0) return INVALID_VALUE;
  if (bytes > total() - used) return OUT_OF_MEMORY;
  void *piece = aligned_alloc(256, (bytes + 255) / 256 * 256);
  if (!piece) return OUT_OF_MEMORY;
  memset(piece, 0xFF, bytes); // NaNs
  *at = reinterpret_cast<uint64_t>(piece);
  memory[*at] = bytes;
  used += bytes;
  calls["allocations"]++;
  return SUCCESS;
}
API Result cuMemFree_v2(uint64_t at) {
  Lock lock(mutex);
  if (!at) return SUCCESS;
  if (Result result = ready()) return result;
  if (Result result = outside_of_captures()) return result;
  auto piece = memory.find(at);
  if (piece == memory.end()) return INVALID_VALUE;
  advance_all();
  used -= piece->second;
  memset(reinterpret_cast<void *>(at), 0xFF, piece->second);
  memory.erase(piece);
  free(reinterpret_cast<void *>(at));
  return SUCCESS;
}
API Result cuMemHostAlloc(void **at, size_t bytes, unsigned) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (Result result = outside_of_captures()) return result;
  *at = aligned_alloc(64, (bytes + 63) / 64 * 64);
  if (!*at) return OUT_OF_MEMORY;
  memset(*at, 0xFF, bytes);
  pinned[reinterpret_cast<uintptr_t>(*at)] = bytes;
  return SUCCESS;
}
API Result cuMemFreeHost(void *at) {
  Lock lock(mutex);
  auto piece = pinned.find(reinterpret_cast<uintptr_t>(at));
  if (piece == pinned.end()) return INVALID_VALUE;
  advance_all();
  pinned.erase(piece);
  free(at);
  return SUCCESS;
}
API Result cuMemsetD8Async(uint64_t at, unsigned char value, size_t count, void *stream) {
  Lock lock(mutex);
  void *to = reinterpret_cast<void *>(at);
  if (!inside(memory, to, count)) return INVALID_VALUE;
  return queue(stream, [=] {
    memset(to, value, count);
    calls["clears"]++;
  });
}
API Result cuMemcpyDtoDAsync_v2(uint64_t to, uint64_t from, size_t bytes, void *stream) {
  Lock lock(mutex);
  void *target = reinterpret_cast<void *>(to), *source = reinterpret_cast<void *>(from);
  if (!inside(memory, target, bytes) || !inside(memory, source, bytes)) return INVALID_VALUE;
  return queue(stream, [=] {
    memcpy(target, source, bytes);
    calls["copies"]++;
  });
}
API Result cuMemcpyHtoDAsync_v2(uint64_t to, const void *source, size_t bytes, void *stream) {
  Lock lock(mutex);
  void *target = reinterpret_cast<void *>(to);
  if (!inside(memory, target, bytes)) return INVALID_VALUE;
  if (inside(pinned, source, bytes)) return queue(stream, [=] { memcpy(target, source, bytes); });
  // From memory that is not pinned it goes over by way of a copy of the driver's.
  if (Result result = outside_of_captures()) return result;
  std::string content(static_cast<const char *>(source), bytes);
  return queue(stream, [=] { memcpy(target, content.data(), bytes); });
}
API Result cuMemcpyDtoHAsync_v2(void *to, uint64_t from, size_t bytes, void *stream) {
  Lock lock(mutex);
  void *source = reinterpret_cast<void *>(from);
  if (!inside(memory, source, bytes)) return INVALID_VALUE;
  return queue(stream, [=] { memcpy(to, source, bytes); });
}

// Streams, events and graphs.

API Result cuStreamCreate(void **handle, unsigned flags) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (flags > 1) return INVALID_VALUE;
  streams.insert(*handle = new Stream);
  return SUCCESS;
}
API Result cuStreamSynchronize(void *handle) {
  Lock lock(mutex);
  if (!streams.count(handle)) return INVALID_HANDLE;
  Stream *stream = static_cast<Stream *>(handle);
  if (stream->capturing) {
    stream->invalidated = true;
    return CAPTURE_UNSUPPORTED;
  }
  advance(stream, ~uint64_t(0));
  calls["waits for a stream"]++;
  return ready();
}
API Result cuStreamDestroy_v2(void *handle) {
  Lock lock(mutex);
  if (!streams.erase(handle)) return INVALID_HANDLE;
  advance(static_cast<Stream *>(handle), ~uint64_t(0));
  delete static_cast<Stream *>(handle);
  return SUCCESS;
}
API Result cuEventCreate(void **handle, unsigned flags) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (flags > 7) return INVALID_VALUE;
  events.insert(*handle = new Event{(flags & 2) == 0});
  return SUCCESS;
}
API Result cuEventRecord(void *handle, void *stream) {
  Lock lock(mutex);
  if (!events.count(handle)) return INVALID_HANDLE;
  if (!streams.count(stream)) return INVALID_HANDLE;
  if (static_cast<Stream *>(stream)->capturing) die("an event is recorded within a capture");
  Event *event = static_cast<Event *>(handle);
  Result result = queue(stream, [=] {
    if (events.count(event)) event->seconds = now();
  });
  event->stream = static_cast<Stream *>(stream);
  event->number = event->stream->queued;
  return result;
}
API Result cuEventSynchronize(void *handle) {
  Lock lock(mutex);
  if (!events.count(handle)) return INVALID_HANDLE;
  Event *event = static_cast<Event *>(handle);
  if (event->stream && streams.count(event->stream)) {
    if (event->stream->capturing) return outside_of_captures();
    advance(event->stream, event->number);
  }
  return ready();
}
API Result cuEventElapsedTime(float *milliseconds, void *from, void *to) {
  Lock lock(mutex);
  if (!events.count(from) || !events.count(to)) return INVALID_HANDLE;
  Event *start = static_cast<Event *>(from), *end = static_cast<Event *>(to);
  if (!start->has_time || !end->has_time || !start->stream || !end->stream) return INVALID_HANDLE;
  if (start->stream->done < start->number || end->stream->done < end->number) return NOT_READY;
  *milliseconds = float((end->seconds - start->seconds) * 1e3);
  return SUCCESS;
}
API Result cuEventDestroy_v2(void *handle) {
  Lock lock(mutex);
  if (!events.erase(handle)) return INVALID_HANDLE;
  delete static_cast<Event *>(handle);
  return SUCCESS;
}
API Result cuStreamBeginCapture_v2(void *handle, int mode) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (!streams.count(handle)) return INVALID_HANDLE;
  Stream *stream = static_cast<Stream *>(handle);
  if (mode < 0 || mode > 2 || stream->capturing) return INVALID_VALUE;
  graphs.insert(stream->capturing = new Graph);
  stream->invalidated = false;
  stream->mode = mode;
  stream->thread = std::this_thread::get_id();
  return SUCCESS;
}
API Result cuStreamEndCapture(void *handle, void **graph) {
  Lock lock(mutex);
  if (!streams.count(handle)) return INVALID_HANDLE;
  Stream *stream = static_cast<Stream *>(handle);
  if (!stream->capturing) return INVALID_VALUE;
  *graph = stream->invalidated ? nullptr : stream->capturing;
  stream->capturing = nullptr;
  return stream->invalidated ? CAPTURE_INVALIDATED : SUCCESS;
}
API Result cuGraphInstantiateWithFlags(void **executable, void *graph, unsigned long long flags) {
  Lock lock(mutex);
  if (!graphs.count(graph)) return INVALID_HANDLE;
  if (flags) return INVALID_VALUE;
  executables.insert(*executable = new Graph(*static_cast<Graph *>(graph)));
  calls["graphs"]++;
  return SUCCESS;
}
API Result cuGraphDestroy(void *graph) {
  Lock lock(mutex);
  if (!graphs.erase(graph)) return INVALID_HANDLE;
  delete static_cast<Graph *>(graph);
  return SUCCESS;
}
API Result cuGraphLaunch(void *executable, void *stream) {
  Lock lock(mutex);
  if (!executables.count(executable)) return INVALID_HANDLE;
  auto tasks = static_cast<Graph *>(executable)->tasks; // it may be destroyed before it has run
  return queue(stream, [=] {
    for (auto &task : tasks)
      if (broken == SUCCESS) task();
    calls["launches of a graph"]++;
  });
}
API Result cuGraphExecDestroy(void *executable) {
  Lock lock(mutex);
  if (!executables.erase(executable)) return INVALID_HANDLE;
  delete static_cast<Graph *>(executable);
  return SUCCESS;
}

// Kernels.

API Result cuModuleLoadData(void **handle, const void *image) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (Result result = outside_of_captures()) return result;
  if (memcmp(image, ELFMAG, SELFMAG) != 0) return INVALID_IMAGE;
  auto header = static_cast<const Elf64_Ehdr *>(image);
  size_t bytes = header->e_shoff + size_t(header->e_shentsize) * header->e_shnum;
  int file = memfd_create("kernels", MFD_CLOEXEC);
  if (file < 0 || write(file, image, bytes) != ssize_t(bytes)) return OUT_OF_MEMORY;
  void *library = dlopen(("/proc/self/fd/" + std::to_string(file)).c_str(), RTLD_NOW | RTLD_LOCAL);
  // The file stays open: another one of its name would be taken for it.
  if (!library) return INVALID_IMAGE;
  Module *module = new Module{library, nullptr, nullptr};
  module->forget = reinterpret_cast<void (*)()>(dlsym(library, "emulate_no_buffers"));
  module->buffer = reinterpret_cast<void (*)(void *, size_t)>(dlsym(library, "emulate_buffer"));
  if (!module->forget || !module->buffer) return INVALID_IMAGE;
  modules.insert(*handle = module);
  return SUCCESS;
}
API Result cuModuleUnload(void *handle) {
  Lock lock(mutex);
  if (Result result = ready()) return result;
  if (Result result = outside_of_captures()) return result;
  if (!modules.erase(handle)) return INVALID_HANDLE;
  advance_all();
  for (auto each = functions.begin(); each != functions.end();) {
    Function *function = static_cast<Function *>(*each);
    bool goes = function->module == handle;
    each = goes ? functions.erase(each) : std::next(each);
    if (goes) delete function;
  }
  delete static_cast<Module *>(handle);
  return SUCCESS;
}
API Result cuModuleGetFunction(void **handle, void *from, const char *name) {
  Lock lock(mutex);
  if (!modules.count(from)) return INVALID_HANDLE;
  Module *module = static_cast<Module *>(from);
  void *run = dlsym(module->library, (std::string("emulate_") + name).c_str());
  void *count = dlsym(module->library, (std::string("emulate_count_") + name).c_str());
  if (!run || !count) return NOT_FOUND;
  functions.insert(*handle = new Function{module, name, reinterpret_cast<void (*)(const unsigned *, void **)>(run),
                                          *static_cast<unsigned *>(count)});
  return SUCCESS;
}
API Result cuFuncSetAttribute(void *handle, int attribute, int value) {
  Lock lock(mutex);
  if (!functions.count(handle)) return INVALID_HANDLE;
  if (attribute != 8 || value < 0 || value > 227 << 10) return INVALID_VALUE;
  static_cast<Function *>(handle)->shared = value;
  return SUCCESS;
}
API Result cuLaunchKernel(void *handle, unsigned x, unsigned y, unsigned z, unsigned threads_x, unsigned threads_y,
                          unsigned threads_z, unsigned shared, void *stream, void **values, void **extra) {
  Lock lock(mutex);
  if (!functions.count(handle)) return INVALID_HANDLE;
  Function *function = static_cast<Function *>(handle);
  uint64_t threads = uint64_t(threads_x) * threads_y * threads_z;
  if (!x || !y || !z || !threads || x > 0x7FFFFFFFu || y > 0xFFFFu || z > 0xFFFFu || threads > 1024) return INVALID_VALUE;
  if (shared > function->shared || extra || (function->count && !values)) return INVALID_VALUE;
  // With lazy loading a kernel is loaded when it is launched first, which drivers may refuse within a capture.
  if (!is_capturing(stream)) function->is_loaded = true;
  if (!function->is_loaded) die("the kernel " + function->name + " is launched for the first time within a capture");
  // Arguments are read now. Each is of at most 64 bits, and stands in as many.
  std::vector<uint64_t> content;
  for (unsigned i = 0; i < function->count; i++) content.push_back(*static_cast<uint64_t *>(values[i]));
  return queue(stream, [=] {
    const char *fails = getenv("CUDA_STUB_FAILS");
    if (fails && function->name == fails) {
      broken = ILLEGAL_ADDRESS;
      return;
    }
    function->module->forget();
    for (auto &piece : memory) function->module->buffer(reinterpret_cast<void *>(piece.first), piece.second);
    const unsigned sizes[] = {x, y, z, threads_x, threads_y, threads_z, shared};
    std::vector<void *> addresses;
    for (auto &value : content) addresses.push_back(const_cast<uint64_t *>(&value));
    function->run(sizes, addresses.data());
    calls["kernels"]++;
  });
}

// NVRTC. Statuses: 0 success, 3 invalid input, 4 invalid program, 5 invalid option, 6 compilation.

namespace {

struct Program {
  std::string source, log, code;
  std::map<std::string, std::string> headers;
};

std::string content_of(const std::string &path) {
  std::ifstream file(path, std::ios::binary);
  std::stringstream content;
  content << file.rdbuf();
  return content.str();
}

// The folder of this library, where emulate.h lies.
std::string own_folder() {
  Dl_info own;
  dladdr(reinterpret_cast<void *>(&cuInit), &own);
  std::string path = own.dli_fname;
  return path.substr(0, path.rfind('/'));
}

const int ARCHITECTURES[] = {80, 90, 100};

} // namespace

API int nvrtcVersion(int *major, int *minor) {
  *major = 13;
  *minor = 0;
  return 0;
}
API int nvrtcGetNumSupportedArchs(int *count) {
  *count = sizeof ARCHITECTURES / sizeof *ARCHITECTURES;
  return 0;
}
API int nvrtcGetSupportedArchs(int *all) {
  memcpy(all, ARCHITECTURES, sizeof ARCHITECTURES);
  return 0;
}
API int nvrtcCreateProgram(void **handle, const char *source, const char *, int count, const char *const *headers,
                           const char *const *names) {
  Program *program = new Program{source, "", "", {}};
  for (int i = 0; i < count; i++) program->headers[names[i]] = headers[i];
  *handle = program;
  return 0;
}
API int nvrtcCompileProgram(void *handle, int count, const char *const *options) {
  Program *program = static_cast<Program *>(handle);
  std::string all;
  bool has_architecture = false;
  for (int i = 0; i < count; i++) {
    std::string option = options[i];
    if (option.rfind("--gpu-architecture=sm_", 0) == 0) {
      int number = atoi(option.c_str() + strlen("--gpu-architecture=sm_"));
      for (int known : ARCHITECTURES) has_architecture |= number == known;
    } else {
      all += " '" + option + "'";
    }
  }
  if (!has_architecture) return 5;
  const char *temporary = getenv("TMPDIR");
  std::string at = std::string(temporary && *temporary ? temporary : "/tmp") + "/cuda-stub-XXXXXX";
  if (!mkdtemp(&at[0])) return 1; // out of memory
  std::ofstream(at + "/kernels.cpp") << program->source;
  for (auto &header : program->headers) std::ofstream(at + "/" + header.first) << header.second;
  const char *compiler = getenv("CXX");
  std::string command = std::string("cd ") + at + " && " + (compiler && *compiler ? compiler : "c++") +
                        " -O1 -ffp-contract=off -w -fPIC -shared -I'" + own_folder() + "'" + all +
                        " kernels.cpp -o kernels.so >log 2>&1";
  int status = system(command.c_str());
  program->log = content_of(at + "/log");
  program->code = content_of(at + "/kernels.so");
  status |= system(("rm -r " + at).c_str());
  return status ? 6 : 0;
}
API int nvrtcGetProgramLogSize(void *handle, size_t *bytes) {
  *bytes = static_cast<Program *>(handle)->log.size() + 1;
  return 0;
}
API int nvrtcGetProgramLog(void *handle, char *log) {
  strcpy(log, static_cast<Program *>(handle)->log.c_str());
  return 0;
}
API int nvrtcGetCUBINSize(void *handle, size_t *bytes) {
  *bytes = static_cast<Program *>(handle)->code.size();
  return 0;
}
API int nvrtcGetCUBIN(void *handle, char *code) {
  auto &own = static_cast<Program *>(handle)->code;
  memcpy(code, own.data(), own.size());
  return 0;
}
API int nvrtcDestroyProgram(void **handle) {
  delete static_cast<Program *>(*handle);
  *handle = nullptr;
  return 0;
}

// cublasLt. Matrices are stored by columns.

namespace {

enum Status { DONE = 0, BAD_VALUE = 7, UNSUPPORTED = 15 };
enum Type { F32 = 0, BF16 = 14 };
enum Compute { IN_F32 = 68, IN_TF32 = 77 };
enum Epilogue { PLAIN = 1, BIAS = 4, GELU_AUX_BIAS = 164, DGELU = 192, BGRADB = 512 };

struct Layout {
  int type;
  uint64_t rows, columns;
  int64_t leading;
  size_t bytes() const { return columns == 0 ? 0 : (leading * (columns - 1) + rows) * (type == F32 ? 4 : 2); }
};

struct Operation {
  int compute, scale;
  int32_t transposed[2] = {0, 0};
  uint32_t epilogue = PLAIN;
  uint64_t bias = 0, kept = 0;
  int64_t kept_leading = 0;
};

struct Preference {
  uint64_t workspace = 0;
  uint32_t reductions = ~0u;
  uint32_t alignments[4] = {256, 256, 256, 256}; // of A, B, C and D
};

// What an algorithm is chosen for. The library's is opaque and of so many bytes.
struct Algorithm {
  uint64_t marks[8];
};

struct Heuristic {
  Algorithm algorithm;
  size_t workspace;
  int status;
  float waves;
  int reserved[4];
};

Algorithm algorithm_for(const Operation &what, const Layout &a, const Layout &b, const Layout &d,
                        const uint32_t *alignments) {
  Algorithm own = {};
  own.marks[0] = 0x57A4D141;
  own.marks[1] = uint64_t(what.compute) << 32 | what.epilogue;
  own.marks[2] = uint64_t(what.transposed[0]) << 1 | what.transposed[1];
  own.marks[3] = d.rows << 32 | d.columns;
  own.marks[4] = a.rows << 32 | a.columns;
  own.marks[5] = uint64_t(a.type) << 32 | b.type << 8 | d.type;
  own.marks[6] = uint64_t(alignments[0]) << 32 | alignments[1];
  own.marks[7] = uint64_t(alignments[2]) << 32 | alignments[3];
  return own;
}

float widened(uint16_t half) {
  uint32_t bits = uint32_t(half) << 16;
  float value;
  memcpy(&value, &bits, 4);
  return value;
}
uint16_t narrowed(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if (std::isnan(value)) return bits >> 16 | 0x40;
  return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16;
}
float to_tf32(float value) {
  uint32_t bits;
  memcpy(&bits, &value, 4);
  if (std::isfinite(value)) bits = (bits + 0x0FFF + (bits >> 13 & 1)) & ~0x1FFFu;
  memcpy(&value, &bits, 4);
  return value;
}
float read(const void *at, int type, size_t i) {
  return type == F32 ? static_cast<const float *>(at)[i] : widened(static_cast<const uint16_t *>(at)[i]);
}
void write(void *at, int type, size_t i, float value) {
  if (type == F32)
    static_cast<float *>(at)[i] = value;
  else
    static_cast<uint16_t *>(at)[i] = narrowed(value);
}

// Packed by rows: (rows, columns) of op(matrix).
std::vector<float> packed(const void *at, const Layout &layout, bool transposed, bool tf32) {
  std::vector<float> all(layout.rows * layout.columns);
  for (uint64_t j = 0; j < layout.columns; j++)
    for (uint64_t i = 0; i < layout.rows; i++) {
      float value = read(at, layout.type, j * layout.leading + i);
      if (tf32) value = to_tf32(value);
      all[transposed ? j * layout.rows + i : i * layout.columns + j] = value;
    }
  return all;
}

const float SLOPE = 0.7978845608028654f, CUBE = 0.044715f; // sqrt(2 / π): GELU by tanh
float gelu(float x) { return 0.5f * x * (1.f + std::tanh(SLOPE * (x + CUBE * x * x * x))); }
float gelu_gradient(float x) {
  float t = std::tanh(SLOPE * (x + CUBE * x * x * x));
  return 0.5f * (1.f + t) + 0.5f * x * (1.f - t * t) * SLOPE * (1.f + 3.f * CUBE * x * x);
}

bool is_aligned(const void *at, size_t bytes) { return reinterpret_cast<uintptr_t>(at) % bytes == 0; }

// Whether sizes fit together.
bool fit(const Operation &what, const Layout &a, const Layout &b, const Layout &d) {
  uint64_t m = what.transposed[0] ? a.columns : a.rows, k = what.transposed[0] ? a.rows : a.columns;
  uint64_t other = what.transposed[1] ? b.columns : b.rows, n = what.transposed[1] ? b.rows : b.columns;
  bool leads = a.leading >= int64_t(a.rows) && b.leading >= int64_t(b.rows) && d.leading >= int64_t(d.rows);
  return leads && k == other && d.rows == m && d.columns == n && m && n && k;
}

} // namespace

API int cublasLtGetProperty(int property, int *value) {
  *value = property == 0 ? 13 : 0;
  return property < 0 || property > 2 ? BAD_VALUE : DONE;
}
API int cublasLtCreate(void **handle) {
  if (!current) return 1;
  *handle = new int;
  return DONE;
}
API int cublasLtDestroy(void *handle) {
  delete static_cast<int *>(handle);
  return DONE;
}
API int cublasLtMatrixLayoutCreate(void **handle, int type, uint64_t rows, uint64_t columns, int64_t leading) {
  if (type != F32 && type != BF16) return UNSUPPORTED;
  *handle = new Layout{type, rows, columns, leading};
  return DONE;
}
API int cublasLtMatrixLayoutDestroy(void *handle) {
  delete static_cast<Layout *>(handle);
  return DONE;
}
API int cublasLtMatmulDescCreate(void **handle, int compute, int scale) {
  if ((compute != IN_F32 && compute != IN_TF32) || scale != F32) return UNSUPPORTED;
  *handle = new Operation{compute, scale};
  return DONE;
}
API int cublasLtMatmulDescDestroy(void *handle) {
  delete static_cast<Operation *>(handle);
  return DONE;
}
API int cublasLtMatmulDescSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
  Operation *what = static_cast<Operation *>(handle);
  struct {
    int attribute;
    void *to;
    size_t bytes;
  } all[] = {{3, &what->transposed[0], 4}, {4, &what->transposed[1], 4}, {7, &what->epilogue, 4},
             {8, &what->bias, 8},          {11, &what->kept, 8},         {12, &what->kept_leading, 8}};
  for (auto &each : all) {
    if (each.attribute != attribute) continue;
    if (each.bytes != bytes) return BAD_VALUE;
    memcpy(each.to, value, bytes);
    return DONE;
  }
  die("an attribute of a product that it does not have: " + std::to_string(attribute));
}
API int cublasLtMatmulPreferenceCreate(void **handle) {
  *handle = new Preference;
  return DONE;
}
API int cublasLtMatmulPreferenceDestroy(void *handle) {
  delete static_cast<Preference *>(handle);
  return DONE;
}
API int cublasLtMatmulPreferenceSetAttribute(void *handle, int attribute, const void *value, size_t bytes) {
  Preference *preference = static_cast<Preference *>(handle);
  if (attribute == 1 && bytes == 8)
    memcpy(&preference->workspace, value, bytes);
  else if (attribute == 3 && bytes == 4)
    memcpy(&preference->reductions, value, bytes);
  else if (attribute >= 5 && attribute <= 8 && bytes == 4)
    memcpy(&preference->alignments[attribute - 5], value, bytes);
  else
    return BAD_VALUE;
  return DONE;
}
API int cublasLtMatmulAlgoGetHeuristic(void *, void *operation, void *a_layout, void *b_layout, void *, void *d_layout,
                                       void *preference, int wanted, Heuristic *found, int *count) {
  const Operation &what = *static_cast<Operation *>(operation);
  const Layout &a = *static_cast<Layout *>(a_layout), &b = *static_cast<Layout *>(b_layout);
  const Layout &d = *static_cast<Layout *>(d_layout);
  *count = 0;
  for (void *each : streams)
    if (is_capturing(each) && static_cast<Stream *>(each)->thread == std::this_thread::get_id())
      die("an algorithm is asked for within a capture");
  if (wanted < 1 || !preference || !fit(what, a, b, d)) return BAD_VALUE;
  bool is_known = false;
  for (uint32_t each : {PLAIN, BIAS, GELU_AUX_BIAS, DGELU, BGRADB}) is_known |= what.epilogue == each;
  if (!is_known || a.type != b.type || (what.compute == IN_TF32 && a.type != F32)) return UNSUPPORTED;
  if (a.type == F32 && d.type != F32) return UNSUPPORTED;
  if (what.epilogue != PLAIN && setting("CUDA_STUB_PLAIN", 0)) return UNSUPPORTED;
  bool keeps = what.epilogue == GELU_AUX_BIAS || what.epilogue == DGELU;
  if (keeps && (what.kept_leading % 8 || what.kept_leading < int64_t(d.rows))) return UNSUPPORTED;
  *found = Heuristic{algorithm_for(what, a, b, d, static_cast<Preference *>(preference)->alignments), 0, DONE, 1.f, {}};
  *count = devices();
  return DONE;
}
API int cublasLtMatmul(void *, void *operation, const void *alpha, const void *a_at, void *a_layout, const void *b_at,
                       void *b_layout, const void *beta, const void *c_at, void *c_layout, void *d_at, void *d_layout,
                       const Algorithm *algorithm, void *workspace, size_t workspace_bytes, void *stream) {
  Lock lock(mutex);
  const Operation what = *static_cast<Operation *>(operation);
  const Layout a = *static_cast<Layout *>(a_layout), b = *static_cast<Layout *>(b_layout);
  const Layout c = *static_cast<Layout *>(c_layout), d = *static_cast<Layout *>(d_layout);
  if (!algorithm || !fit(what, a, b, d) || c.rows != d.rows || c.columns != d.columns || c.type != d.type) return BAD_VALUE;
  const uint32_t alignments[] = {uint32_t(algorithm->marks[6] >> 32), uint32_t(algorithm->marks[6]),
                                 uint32_t(algorithm->marks[7] >> 32), uint32_t(algorithm->marks[7])};
  Algorithm own = algorithm_for(what, a, b, d, alignments);
  if (memcmp(&own, algorithm, sizeof own) != 0) return BAD_VALUE; // chosen for something else
  std::vector<uint64_t> marks(own.marks, own.marks + 8);
  if (!is_capturing(stream)) multiplied.insert(marks);
  if (!multiplied.count(marks)) die("a product's kernel is launched for the first time within a capture");
  if (workspace_bytes && !inside(memory, workspace, workspace_bytes)) die("a workspace outside of the device's memory");
  if (!inside(memory, a_at, a.bytes()) || !inside(memory, b_at, b.bytes()) || !inside(memory, d_at, d.bytes()))
    die("a product outside of the device's memory");
  const void *all[] = {a_at, b_at, c_at, d_at};
  for (int i = 0; i < 4; i++)
    if (!is_aligned(all[i], alignments[i])) die("a factor that is not aligned as the algorithm was chosen for");
  float scale = *static_cast<const float *>(alpha), start = *static_cast<const float *>(beta);
  bool has_bias = what.epilogue == BIAS || what.epilogue == GELU_AUX_BIAS;
  bool keeps = what.epilogue == GELU_AUX_BIAS || what.epilogue == DGELU;
  const void *bias = reinterpret_cast<const void *>(what.bias);
  void *kept = reinterpret_cast<void *>(what.kept);
  size_t one = d.type == F32 ? 4 : 2;
  if (has_bias && !inside(memory, bias, d.rows * one)) die("a bias outside of the device's memory");
  if (what.epilogue == BGRADB && !inside(memory, bias, d.columns * one)) die("sums outside of the device's memory");
  if (keeps && !inside(memory, kept, (what.kept_leading * (d.columns - 1) + d.rows) * one))
    die("what an epilogue keeps is outside of the device's memory");
  if (keeps && !is_aligned(kept, 16)) die("what an epilogue keeps is not aligned to 16 bytes");
  Result result = queue(stream, [=] {
    bool tf32 = what.compute == IN_TF32;
    // op(A) by columns and op(B) by rows: a column of D is a sum of columns.
    std::vector<float> left = packed(a_at, a, !what.transposed[0], tf32), right = packed(b_at, b, what.transposed[1], tf32);
    size_t m = d.rows, n = d.columns, k = what.transposed[0] ? a.rows : a.columns;
    if (setting("CUDA_STUB_WRONG", 0)) left[left.size() / 2] += 1e3f;
    std::vector<float> column(m);
    for (size_t j = 0; j < n; j++) {
      std::fill(column.begin(), column.end(), 0.f);
      for (size_t l = 0; l < k; l++) {
        float factor = right[l * n + j];
        const float *row = &left[l * m];
        for (size_t i = 0; i < m; i++) column[i] += factor * row[i];
      }
      for (size_t i = 0; i < m; i++) {
        float value = scale * column[i];
        if (start != 0.f) value += start * read(c_at, c.type, j * c.leading + i);
        if (has_bias) value += read(bias, d.type, i);
        if (what.epilogue == GELU_AUX_BIAS) {
          write(kept, d.type, j * what.kept_leading + i, value);
          value = gelu(value);
        }
        if (what.epilogue == DGELU) value *= gelu_gradient(read(kept, d.type, j * what.kept_leading + i));
        write(d_at, d.type, j * d.leading + i, value);
      }
    }
    for (size_t j = 0; what.epilogue == BGRADB && j < n; j++) {
      float sum = 0.f;
      for (size_t l = 0; l < k; l++) sum += right[l * n + j];
      write(const_cast<void *>(bias), d.type, j, sum);
    }
    calls[what.epilogue == PLAIN ? "products" : "products with an epilogue"]++;
  });
  return result == SUCCESS ? DONE : 13; // execution failed
}

// NCCL, between the threads of one process: ranks send and receive, grouped. A call does not block: it is in progress until
// the others have made theirs. What does not fit, which hangs or ends in wrong numbers on GPUs, is refused: a send and a receive
// of different sizes, a call outside of a group or within a capture, memory that was not allocated. Unlike the other work it
// is not put off: a group ends when the work before it is done.

namespace {

enum NcclResult { NCCL_SUCCESS = 0, NCCL_SYSTEM = 2, NCCL_INVALID_ARGUMENT = 4, NCCL_INVALID_USAGE = 5, NCCL_IN_PROGRESS = 7 };

struct NcclId {
  char bytes[128];
};

struct NcclConfig {
  size_t size;
  unsigned magic, version;
  int blocking, cga_cluster_size, min_ctas, max_ctas;
  const char *net_name;
};

struct NcclWorld {
  int size;
  std::set<int> ranks;
  std::map<std::pair<int, int>, std::deque<std::vector<char>>> sent; // by sender and receiver
};

struct NcclCall {
  struct NcclComm *comm;
  bool is_send;
  char *at;
  size_t bytes;
  int peer;
  void *stream;
};

struct NcclComm {
  std::string id;
  int rank;
  bool has_joined = false;
  NcclResult failed = NCCL_SUCCESS;
  std::deque<NcclCall> receiving;
};

std::map<std::string, NcclWorld> nccl_worlds;
std::set<NcclComm *> nccl_comms;
thread_local int nccl_depth = 0;
thread_local std::vector<NcclCall> nccl_group;

NcclResult nccl_state(NcclComm *comm) {
  NcclWorld &world = nccl_worlds[comm->id];
  if (comm->failed) return comm->failed;
  comm->has_joined = comm->has_joined || int(world.ranks.size()) == world.size;
  if (!comm->has_joined) return NCCL_IN_PROGRESS;
  while (!comm->receiving.empty()) {
    NcclCall call = comm->receiving.front();
    auto &box = world.sent[{call.peer, comm->rank}];
    if (box.empty()) return NCCL_IN_PROGRESS;
    if (box.front().size() != call.bytes) {
      fprintf(stderr, "CUDA stub: rank %d receives %zu bytes from rank %d, which sends %zu\n", comm->rank, call.bytes, call.peer,
              box.front().size());
      return comm->failed = NCCL_INVALID_USAGE;
    }
    memcpy(call.at, box.front().data(), call.bytes);
    calls["bytes between devices"] += call.peer == comm->rank ? 0 : call.bytes;
    box.pop_front();
    comm->receiving.pop_front();
  }
  return NCCL_SUCCESS;
}

int nccl_queue(NcclCall call) {
  Lock lock(mutex);
  if (!nccl_depth) die("a call of NCCL outside of a group, which hangs where the peer's call comes later");
  if (!nccl_comms.count(call.comm) || !call.comm->has_joined) return NCCL_INVALID_ARGUMENT;
  if (!inside(memory, call.at, call.bytes)) die("NCCL is given memory that was not allocated");
  if (call.peer < 0 || call.peer >= nccl_worlds[call.comm->id].size) return NCCL_INVALID_ARGUMENT;
  if (!streams.count(call.stream) || is_capturing(call.stream)) return NCCL_INVALID_USAGE;
  nccl_group.push_back(call);
  return NCCL_SUCCESS;
}

} // namespace

API int ncclGetVersion(int *version) {
  *version = 22703;
  return NCCL_SUCCESS;
}
API const char *ncclGetErrorString(int) { return "so says the CUDA stub"; }
API int ncclGetUniqueId(NcclId *id) {
  static int number = 0;
  Lock lock(mutex);
  memset(id, 0, sizeof *id);
  snprintf(id->bytes, sizeof id->bytes, "world %d of process %d", number++, int(getpid()));
  return NCCL_SUCCESS;
}
API int ncclCommInitRankConfig(NcclComm **comm, int world, NcclId id, int rank, NcclConfig *config) {
  Lock lock(mutex);
  if (ready() != SUCCESS) return NCCL_INVALID_USAGE;
  if (config->magic != 0xcafebeef || config->size != sizeof *config || config->blocking != 0) return NCCL_INVALID_ARGUMENT;
  NcclWorld &there = nccl_worlds[id.bytes];
  if (there.size && there.size != world) return NCCL_INVALID_ARGUMENT;
  there.size = world;
  if (rank < 0 || rank >= world || !there.ranks.insert(rank).second) return NCCL_INVALID_ARGUMENT;
  nccl_comms.insert(*comm = new NcclComm{id.bytes, rank});
  return NCCL_IN_PROGRESS;
}
API int ncclCommGetAsyncError(NcclComm *comm, int *result) {
  Lock lock(mutex);
  if (!nccl_comms.count(comm)) return NCCL_INVALID_ARGUMENT;
  *result = nccl_state(comm);
  return NCCL_SUCCESS;
}
API int ncclCommAbort(NcclComm *comm) {
  Lock lock(mutex);
  if (!nccl_comms.erase(comm)) return NCCL_INVALID_ARGUMENT;
  delete comm;
  return NCCL_SUCCESS;
}
API int ncclGroupStart() {
  nccl_depth++;
  return NCCL_SUCCESS;
}
API int ncclGroupEnd() {
  Lock lock(mutex);
  if (!nccl_depth) return NCCL_INVALID_USAGE;
  if (--nccl_depth) return NCCL_SUCCESS;
  int result = NCCL_SUCCESS;
  for (NcclCall &call : nccl_group) {
    advance(static_cast<Stream *>(call.stream), ~uint64_t(0));
    if (call.is_send) {
      nccl_worlds[call.comm->id].sent[{call.comm->rank, call.peer}].emplace_back(call.at, call.at + call.bytes);
    } else {
      call.comm->receiving.push_back(call);
      result = NCCL_IN_PROGRESS;
    }
  }
  nccl_group.clear();
  return result;
}
API int ncclSend(void *at, size_t bytes, int type, int peer, NcclComm *comm, void *stream) {
  return type == 1 ? nccl_queue({comm, true, static_cast<char *>(at), bytes, peer, stream}) : NCCL_INVALID_ARGUMENT;
}
API int ncclRecv(void *at, size_t bytes, int type, int peer, NcclComm *comm, void *stream) {
  return type == 1 ? nccl_queue({comm, false, static_cast<char *>(at), bytes, peer, stream}) : NCCL_INVALID_ARGUMENT;
}
