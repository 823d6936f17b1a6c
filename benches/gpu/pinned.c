/* Reference kernels of the GPU bench: what the driver and the bus take, without the library.
 *
 * Plain loops of copies between page-locked host memory and a device, nothing cleverer: what the library is compared
 * with. The driver is loaded at run time; no header of CUDA's is needed. device.py compiles this to a shared library and
 * calls it in the rounds of the bench; driver.c measures with it in a process of its own.
 *
 * Functions return 0, a CUresult, or -errno. They leave the caller's current context as it was.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum {
  MAX_STREAMS = 16, /* and threads */
  MAX_SLOTS = 64,
  COMPARE_THREADS = 4,
  NON_BLOCKING = 1, /* CU_STREAM_NON_BLOCKING */
  SLEEP_NO_TIME = 3, /* CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING */
  PORTABLE = 1,      /* CU_MEMHOSTALLOC_PORTABLE */
  WRITE_COMBINED = 4,
  NOT_SUPPORTED = 801,
};
#define MIB ((size_t)1 << 20)

/* CUmemcpyAttributes: only the order in which sources are read matters here. */
typedef struct attributes {
  uint32_t source_access_order; /* 1: in the order of the stream */
  uint32_t locations[4];
  uint32_t flags;
} attributes;

/* ---- the driver ---- */

#define REQUIRED(X)                                                       \
  X(cuInit, (unsigned))                                                   \
  X(cuDriverGetVersion, (int *))                                          \
  X(cuDeviceGet, (int *, int))                                            \
  X(cuDeviceGetAttribute, (int *, int, int))                              \
  X(cuDevicePrimaryCtxRetain, (void **, int))                             \
  X(cuDevicePrimaryCtxRelease_v2, (int))                                  \
  X(cuCtxPushCurrent_v2, (void *))                                        \
  X(cuCtxPopCurrent_v2, (void **))                                        \
  X(cuStreamCreate, (void **, unsigned))                                  \
  X(cuStreamDestroy_v2, (void *))                                         \
  X(cuStreamSynchronize, (void *))                                        \
  X(cuEventCreate, (void **, unsigned))                                   \
  X(cuEventRecord, (void *, void *))                                      \
  X(cuEventSynchronize, (void *))                                         \
  X(cuEventDestroy_v2, (void *))                                          \
  X(cuMemAlloc_v2, (uint64_t *, size_t))                                  \
  X(cuMemFree_v2, (uint64_t))                                             \
  X(cuMemHostAlloc, (void **, size_t, unsigned))                          \
  X(cuMemFreeHost, (void *))                                              \
  X(cuMemHostRegister_v2, (void *, size_t, unsigned))                     \
  X(cuMemHostUnregister, (void *))                                        \
  X(cuMemsetD8Async, (uint64_t, unsigned char, size_t, void *))           \
  X(cuMemcpyHtoDAsync_v2, (uint64_t, const void *, size_t, void *))       \
  X(cuMemcpyDtoHAsync_v2, (void *, uint64_t, size_t, void *))
#define OPTIONAL(X)                                                                                       \
  X(cuMemcpyBatchAsync_v2, (uint64_t *, uint64_t *, size_t *, size_t, attributes *, size_t *, size_t, void *)) \
  X(cuMemcpyBatchAsync, (uint64_t *, uint64_t *, size_t *, size_t, attributes *, size_t *, size_t, size_t *, void *))

#define FIELD(name, arguments) int(*name) arguments;
static struct { REQUIRED(FIELD) OPTIONAL(FIELD) } cu;

/* Loads the driver once, as the library looks for it; -ENOENT if there is none, -ENOSYS if it lacks a function. */
static int load(void) {
  static void *library;
  if (library) return 0;
  void *found = dlopen("libcuda.so", RTLD_NOW);
  if (!found) found = dlopen("libcuda.so.1", RTLD_NOW);
  if (!found) return -ENOENT;
#define LOOK(name, arguments) *(void **)&cu.name = dlsym(found, #name);
#define CHECK(name, arguments) \
  if (!cu.name) return -ENOSYS;
  REQUIRED(LOOK) OPTIONAL(LOOK) REQUIRED(CHECK)
  library = found;
  return 0;
}

/* Returns from the function with the first error. */
#define TRY(call)            \
  do {                       \
    int code_ = (call);      \
    if (code_) return code_; \
  } while (0)

/* Keeps the first error of several calls that are all made. */
static int first(int code, int next) { return code ? code : next; }

/* ---- a device with a buffer ---- */

/* A device, its primary context, streams, and page-locked memory that copies come from and go to. */
typedef struct pin {
  int device;
  void *context;
  void *streams[MAX_STREAMS];
  unsigned char *memory;
  size_t size;
} pin;

/* One tensor. Same layout as PIECE in workloads.py: here `data` is an address on the device, or on the host. */
typedef struct piece {
  uint64_t offset, data, size;
} piece;

static int enter(const pin *pin) { return cu.cuCtxPushCurrent_v2(pin->context); }

static int leave(int code) {
  void *context;
  return first(code, cu.cuCtxPopCurrent_v2(&context));
}

/* Runs a function's body inside the device's context. */
#define INSIDE(pin, call)  \
  do {                     \
    TRY(enter(pin));       \
    return leave((call));  \
  } while (0)

static int open_inside(pin *made, size_t size) {
  for (int i = 0; i < MAX_STREAMS; i++) TRY(cu.cuStreamCreate(&made->streams[i], NON_BLOCKING));
  TRY(cu.cuMemHostAlloc((void **)&made->memory, size, PORTABLE));
  memset(made->memory, 0x5a, size);
  made->size = size;
  return 0;
}

/* Opens a device with so many bytes of page-locked memory. What an error leaves behind lives as long as the process. */
API int pin_open(int number, size_t size, pin **out) {
  TRY(load());
  TRY(cu.cuInit(0));
  pin *made = calloc(1, sizeof *made);
  if (!made) return -ENOMEM;
  TRY(cu.cuDeviceGet(&made->device, number));
  TRY(cu.cuDevicePrimaryCtxRetain(&made->context, made->device));
  *out = made;
  INSIDE(made, open_inside(made, size));
}

static int close_inside(pin *pin) {
  int code = cu.cuMemFreeHost(pin->memory);
  for (int i = 0; i < MAX_STREAMS; i++) code = first(code, cu.cuStreamDestroy_v2(pin->streams[i]));
  return code;
}

API int pin_close(pin *pin) {
  TRY(enter(pin));
  int code = leave(close_inside(pin));
  code = first(code, cu.cuDevicePrimaryCtxRelease_v2(pin->device));
  free(pin);
  return code;
}

/* The address of the page-locked memory. */
API void *pin_memory(pin *pin) { return pin->memory; }

API void *pin_stream(pin *pin, int number) { return pin->streams[number % MAX_STREAMS]; }

API int pin_alloc(pin *pin, size_t size, uint64_t *address_out) { INSIDE(pin, cu.cuMemAlloc_v2(address_out, size)); }

API int pin_free(pin *pin, uint64_t address) { INSIDE(pin, cu.cuMemFree_v2(address)); }

/* Waits for a stream that the caller has let wait for something. */
API int pin_wait(pin *pin, int number) { INSIDE(pin, cu.cuStreamSynchronize(pin->streams[number % MAX_STREAMS])); }

static int fill_inside(pin *pin, const piece *pieces, size_t count, int byte) {
  int code = 0;
  for (size_t i = 0; i < count && !code; i++)
    if (pieces[i].size > 0)
      code = cu.cuMemsetD8Async(pieces[i].data, (unsigned char)byte, pieces[i].size, pin->streams[0]);
  return first(code, cu.cuStreamSynchronize(pin->streams[0]));
}

/* Overwrites pieces of device memory, and waits. */
API int pin_fill(pin *pin, const piece *pieces, size_t count, int byte) {
  INSIDE(pin, fill_inside(pin, pieces, count, byte));
}

/* ---- loops of copies ---- */

enum direction { TO_DEVICE, TO_HOST };

static int copy(enum direction direction, uint64_t device, unsigned char *host, size_t size, void *stream) {
  if (direction == TO_DEVICE) return cu.cuMemcpyHtoDAsync_v2(device, host, size, stream);
  return cu.cuMemcpyDtoHAsync_v2(host, device, size, stream);
}

static int wait_for(pin *pin, int streams) {
  int code = 0;
  for (int i = 0; i < streams; i++) code = first(code, cu.cuStreamSynchronize(pin->streams[i]));
  return code;
}

/* Chunk after chunk, over the streams in turn, through all of `memory` again and again; waits at the end. */
static int loop(pin *pin, enum direction direction, unsigned char *memory, size_t room, uint64_t address, size_t size,
                size_t chunk, int streams) {
  if (chunk == 0 || chunk > room || streams < 1 || streams > MAX_STREAMS) return -EINVAL;
  int code = 0;
  size_t at = 0, turn = 0;
  for (size_t done = 0; done < size && !code; done += chunk, turn++) {
    size_t len = size - done < chunk ? size - done : chunk;
    if (at + len > room) at = 0;
    code = copy(direction, address + done, memory + at, len, pin->streams[turn % (size_t)streams]);
    at += chunk;
  }
  return first(code, wait_for(pin, streams));
}

/* `to_host`: 0 to the device, 1 from it. */
API int pin_copy(pin *pin, int to_host, uint64_t address, size_t size, size_t chunk, int streams) {
  enum direction direction = to_host ? TO_HOST : TO_DEVICE;
  INSIDE(pin, loop(pin, direction, pin->memory, pin->size, address, size, chunk, streams));
}

static int batch(uint64_t *to, uint64_t *from, size_t *sizes, size_t count, void *stream) {
  attributes how = {.source_access_order = 1};
  size_t begin = 0, failed;
  if (cu.cuMemcpyBatchAsync_v2) return cu.cuMemcpyBatchAsync_v2(to, from, sizes, count, &how, &begin, 1, stream);
  if (cu.cuMemcpyBatchAsync) return cu.cuMemcpyBatchAsync(to, from, sizes, count, &how, &begin, 1, &failed, stream);
  return NOT_SUPPORTED;
}

/* Many pieces, each from where the one before it ends in the page-locked memory: a call for each, or one for all. */
static int pieces_inside(pin *pin, enum direction direction, const piece *pieces, size_t count, int batched) {
  uint64_t *to = malloc(count * sizeof *to), *from = malloc(count * sizeof *from);
  size_t *sizes = malloc(count * sizeof *sizes);
  int code = to && from && sizes ? 0 : -ENOMEM;
  size_t at = 0;
  for (size_t i = 0; i < count && !code; i++) {
    if (pieces[i].size > pin->size) code = -EINVAL;
    if (at + pieces[i].size > pin->size) at = 0;
    unsigned char *host = pin->memory + at;
    if (!batched && !code) code = copy(direction, pieces[i].data, host, pieces[i].size, pin->streams[0]);
    to[i] = direction == TO_DEVICE ? pieces[i].data : (uint64_t)(uintptr_t)host;
    from[i] = direction == TO_DEVICE ? (uint64_t)(uintptr_t)host : pieces[i].data;
    sizes[i] = pieces[i].size;
    at += pieces[i].size;
  }
  if (batched && !code) code = batch(to, from, sizes, count, pin->streams[0]);
  code = first(code, wait_for(pin, 1));
  free(to), free(from), free(sizes);
  return code;
}

API int pin_pieces(pin *pin, int to_host, const piece *pieces, size_t count, int batched) {
  INSIDE(pin, pieces_inside(pin, to_host ? TO_HOST : TO_DEVICE, pieces, count, batched));
}

/* ---- work of several threads ---- */

/* Page-locked memory of one chunk, which threads use in turns. */
typedef struct slot {
  pthread_mutex_t lock;
  void *event; /* behind the last copy from it */
  int used;
} slot;

/* Pieces cut into units of at most `chunk` bytes, which threads take one after the other. */
typedef struct work {
  pin *pin;
  const piece *pieces, *others;
  size_t count, chunk;
  int file;
  int threads;
  slot *slots;
  size_t num_slots;
  pthread_mutex_t lock;
  size_t next, done, taken; /* the piece, how much of it is taken, and how many units are */
  atomic_int code;
} work;

typedef struct worker {
  work *work;
  int number;
} worker;

/* A part of a piece. */
typedef struct unit {
  size_t piece, start, len;
  size_t number; /* how many were taken before it */
} unit;

/* The next unit; 0 when there is none. */
static int take(work *work, unit *out) {
  pthread_mutex_lock(&work->lock);
  while (work->next < work->count && work->done == work->pieces[work->next].size) work->next++, work->done = 0;
  int found = work->next < work->count;
  if (found) {
    size_t left = work->pieces[work->next].size - work->done;
    *out = (unit){work->next, work->done, left < work->chunk ? left : work->chunk, work->taken++};
    work->done += out->len;
  }
  pthread_mutex_unlock(&work->lock);
  return found;
}

static void fail(work *work, int code) {
  int none = 0;
  if (code) atomic_compare_exchange_strong(&work->code, &none, code);
}

static int run(work *work, void *(*body)(void *)) {
  pthread_t threads[MAX_STREAMS];
  worker workers[MAX_STREAMS];
  int started = 0;
  if (work->threads < 1 || work->threads > MAX_STREAMS) return -EINVAL;
  pthread_mutex_init(&work->lock, NULL);
  for (; started < work->threads; started++) {
    workers[started] = (worker){work, started};
    int code = pthread_create(&threads[started], NULL, body, &workers[started]);
    if (code) {
      fail(work, -code);
      break;
    }
  }
  for (int i = 0; i < started; i++) pthread_join(threads[i], NULL);
  pthread_mutex_destroy(&work->lock);
  return atomic_load(&work->code);
}

static int read_all(int file, unsigned char *to, size_t size, uint64_t offset) {
  while (size > 0) {
    ssize_t got = pread(file, to, size, (off_t)offset);
    if (got < 0 && errno == EINTR) continue;
    if (got <= 0) return got < 0 ? -errno : -EIO;
    to += got, size -= (size_t)got, offset += (uint64_t)got;
  }
  return 0;
}

/* Reads a unit into a slot, once the copy before it has left, and sends it on. */
static int pass(work *work, slot *slot, unsigned char *memory, const unit *unit, void *stream) {
  const piece *piece = &work->pieces[unit->piece];
  if (slot->used) TRY(cu.cuEventSynchronize(slot->event));
  TRY(read_all(work->file, memory, unit->len, piece->offset + unit->start));
  TRY(cu.cuMemcpyHtoDAsync_v2(piece->data + unit->start, memory, unit->len, stream));
  slot->used = 1;
  return cu.cuEventRecord(slot->event, stream);
}

/* The units go through the slots in turn, whoever takes them. */
static void *ring_thread(void *argument) {
  const worker *self = argument;
  work *work = self->work;
  void *stream = work->pin->streams[self->number];
  int code = enter(work->pin);
  if (code) return fail(work, code), NULL;
  unit unit;
  while (!code && !atomic_load(&work->code) && take(work, &unit)) {
    size_t number = unit.number % work->num_slots;
    slot *slot = &work->slots[number];
    pthread_mutex_lock(&slot->lock);
    code = pass(work, slot, work->pin->memory + number * work->chunk, &unit, stream);
    pthread_mutex_unlock(&slot->lock);
  }
  code = first(code, cu.cuStreamSynchronize(stream));
  fail(work, leave(code));
  return NULL;
}

static int ring_inside(work *work) {
  int code = 0;
  for (size_t i = 0; i < work->num_slots; i++) {
    pthread_mutex_init(&work->slots[i].lock, NULL);
    code = first(code, cu.cuEventCreate(&work->slots[i].event, SLEEP_NO_TIME));
  }
  if (!code) code = run(work, ring_thread);
  for (size_t i = 0; i < work->num_slots; i++) {
    if (work->slots[i].event) code = first(code, cu.cuEventDestroy_v2(work->slots[i].event));
    pthread_mutex_destroy(&work->slots[i].lock);
  }
  return code;
}

/* File to device: `pread` into a ring of slots of `chunk` bytes, and a copy from there. No checksum. */
API int pin_ring(pin *pin, const char *path, const piece *pieces, size_t count, size_t chunk, int num_slots,
                 int threads) {
  slot slots[MAX_SLOTS] = {{.used = 0}};
  if (chunk == 0 || num_slots < 1 || num_slots > MAX_SLOTS || (size_t)num_slots * chunk > pin->size) return -EINVAL;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -errno;
  work work = {.pin = pin, .pieces = pieces, .count = count, .chunk = chunk, .file = file, .threads = threads,
               .slots = slots, .num_slots = (size_t)num_slots};
  int code = enter(pin);
  if (!code) code = leave(ring_inside(&work));
  close(file);
  return code;
}

static void *compare_thread(void *argument) {
  const worker *self = argument;
  work *work = self->work;
  unsigned char *buffer = work->pin->memory + (size_t)self->number * work->chunk;
  void *stream = work->pin->streams[self->number];
  int code = enter(work->pin);
  if (code) return fail(work, code), NULL;
  unit unit;
  while (!code && !atomic_load(&work->code) && take(work, &unit)) {
    const unsigned char *want = (const unsigned char *)(uintptr_t)work->others[unit.piece].data;
    code = cu.cuMemcpyDtoHAsync_v2(buffer, work->pieces[unit.piece].data + unit.start, unit.len, stream);
    code = first(code, cu.cuStreamSynchronize(stream));
    if (!code && memcmp(buffer, want + unit.start, unit.len) != 0) code = -EILSEQ;
  }
  fail(work, leave(code));
  return NULL;
}

/* -EILSEQ unless the pieces on the device hold the same bytes as those on the host. */
API int pin_compare(pin *pin, const piece *device, const piece *host, size_t count) {
  for (size_t i = 0; i < count; i++)
    if (device[i].size != host[i].size) return -EINVAL;
  size_t chunk = pin->size / COMPARE_THREADS < 8 * MIB ? pin->size / COMPARE_THREADS : 8 * MIB;
  work work = {.pin = pin, .pieces = device, .others = host, .count = count, .chunk = chunk, .threads = COMPARE_THREADS};
  return run(&work, compare_thread);
}
