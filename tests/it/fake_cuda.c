// Stands for libcuda, NVRTC and cublasLt where there is no GPU: tells of a machine what the environment says of it, and
// computes nothing. FAKE_DRIVER and FAKE_NVRTC are versions (13000, 13), FAKE_CAPABILITY is a compute capability (90),
// FAKE_DEVICES a number, FAKE_INIT a status of cuInit; with FAKE_CRASH set, the process aborts when a device is opened.
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

static int number(const char *name, int otherwise) {
  const char *value = getenv(name);
  return value ? atoi(value) : otherwise;
}

// CUDA_ERROR_NO_DEVICE, and what is returned by all that would compute.
enum { NO_DEVICE = 100, UNKNOWN = 999 };

int cuDriverGetVersion(int *version) {
  *version = number("FAKE_DRIVER", 13000);
  return 0;
}
int cuInit(unsigned flags) {
  (void)flags;
  int status = number("FAKE_INIT", 0);
  return status ? status : number("FAKE_DEVICES", 1) ? 0 : NO_DEVICE;
}
int cuDeviceGetCount(int *count) {
  *count = number("FAKE_DEVICES", 1);
  return 0;
}
int cuDeviceGet(int *device, int ordinal) {
  *device = ordinal;
  return 0;
}
int cuDeviceGetName(char *name, int length, int device) {
  (void)device;
  strncpy(name, "Fake GPU", (size_t)length);
  return 0;
}
int cuDeviceGetUuid_v2(char *uuid, int device) {
  memset(uuid, 0, 16);
  uuid[15] = (char)(device + 1);
  return 0;
}
int cuDeviceGetAttribute(int *value, int attribute, int device) {
  (void)device;
  int capability = number("FAKE_CAPABILITY", 90);
  switch (attribute) {
    case 16: *value = 132; break;
    case 20: *value = number("FAKE_MODE", 0); break;
    case 75: *value = capability / 10; break;
    case 76: *value = capability % 10; break;
    default: return UNKNOWN;
  }
  return 0;
}
int cuDeviceTotalMem_v2(size_t *bytes, int device) {
  (void)device;
  *bytes = (size_t)80 << 30;
  return 0;
}
int cuDevicePrimaryCtxRetain(void **context, int device) {
  if (number("FAKE_CRASH", 0)) abort();
  (void)context;
  (void)device;
  return UNKNOWN;
}
int cuGetErrorName(int error, const char **text) {
  (void)error;
  *text = "FAKE";
  return 0;
}
int cuGetErrorString(int error, const char **text) {
  (void)error;
  *text = "it computes nothing";
  return 0;
}

int nvrtcVersion(int *major, int *minor) {
  *major = number("FAKE_NVRTC", 13);
  *minor = 1;
  return 0;
}
int nvrtcGetNumSupportedArchs(int *count) {
  *count = 3;
  return 0;
}
int nvrtcGetSupportedArchs(int *all) {
  all[0] = 75, all[1] = 80, all[2] = 90;
  return 0;
}
int nvrtcCreateProgram(void **program, const char *source, const char *name, int count, const char *const *headers,
                       const char *const *names) {
  (void)source, (void)name, (void)count, (void)headers, (void)names;
  *program = (void *)program;
  return 0;
}
int nvrtcCompileProgram(void *program, int count, const char *const *options) {
  (void)program, (void)count, (void)options;
  return 0;
}
int nvrtcGetProgramLogSize(void *program, size_t *size) {
  (void)program;
  *size = 1;
  return 0;
}
int nvrtcGetProgramLog(void *program, char *log) {
  (void)program;
  *log = 0;
  return 0;
}
int nvrtcGetCUBINSize(void *program, size_t *size) {
  (void)program;
  *size = 4;
  return 0;
}
int nvrtcGetCUBIN(void *program, char *code) {
  (void)program;
  memcpy(code, "\x7f" "ELF", 4);
  return 0;
}
int nvrtcDestroyProgram(void **program) {
  *program = NULL;
  return 0;
}

int cublasLtGetProperty(int what, int *value) {
  *value = what == 0 ? number("FAKE_CUBLASLT", 13) : 2;
  return 0;
}
