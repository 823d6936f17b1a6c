/* Reference kernels of the GPU bench: what the driver and the bus take, without the library.
 *
 * Plain loops of copies between page-locked host memory and a device, nothing cleverer: what the library is compared
 * with. The driver is loaded at run time; no header of CUDA's is needed. As a shared library it is called by device.py,
 * in the rounds of the bench; as a program it measures by itself and prints one JSON object:
 *
 *   gcc -std=gnu11 -O2 -pthread pinned.c -o pinned -ldl && ./pinned [--device N] [--mib M] [--runs N]
 *
 * --mib (default 2048): bytes that one measurement moves; --runs (default 3): of which the best is printed.
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
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define API __attribute__((visibility("default")))

enum {
  MAX_STREAMS = 16,
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

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
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

/* Overwrites device memory, and waits. */
static int set_inside(pin *pin, uint64_t address, int byte, size_t size) {
  TRY(cu.cuMemsetD8Async(address, (unsigned char)byte, size, pin->streams[0]));
  return cu.cuStreamSynchronize(pin->streams[0]);
}

/* Waits for a stream that the caller has let wait for something. */
API int pin_wait(pin *pin, int number) { INSIDE(pin, cu.cuStreamSynchronize(pin->streams[number % MAX_STREAMS])); }

API int pin_set(pin *pin, uint64_t address, int byte, size_t size) { INSIDE(pin, set_inside(pin, address, byte, size)); }

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

/* Pieces cut into units of at most `chunk` bytes, which threads take one after the other. */
typedef struct work {
  pin *pin;
  const piece *pieces, *others;
  size_t count, chunk;
  int file;
  int threads;
  pthread_mutex_t lock;
  size_t next, done; /* the piece, and how much of it is taken */
  atomic_int code;
} work;

typedef struct worker {
  work *work;
  int number;
} worker;

/* The next unit: its piece, where it begins in it, its length; 0 when there is none. */
static int take(work *work, size_t *piece_out, size_t *start_out, size_t *len_out) {
  pthread_mutex_lock(&work->lock);
  while (work->next < work->count && work->done == work->pieces[work->next].size) work->next++, work->done = 0;
  int found = work->next < work->count;
  if (found) {
    size_t left = work->pieces[work->next].size - work->done;
    *piece_out = work->next, *start_out = work->done, *len_out = left < work->chunk ? left : work->chunk;
    work->done += *len_out;
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

/* Reads into two slots in turn and sends each on, without looking at the bytes. */
static void *ring_thread(void *argument) {
  const worker *self = argument;
  work *work = self->work;
  pin *pin = work->pin;
  unsigned char *slots = pin->memory + (size_t)self->number * 2 * work->chunk;
  void *stream = pin->streams[self->number], *events[2] = {NULL, NULL};
  int used[2] = {0, 0}, code = enter(pin);
  if (code) return fail(work, code), NULL;
  for (int i = 0; i < 2 && !code; i++) code = cu.cuEventCreate(&events[i], SLEEP_NO_TIME);
  size_t which, start, len;
  for (int turn = 0; !code && !atomic_load(&work->code) && take(work, &which, &start, &len); turn ^= 1) {
    unsigned char *slot = slots + (size_t)turn * work->chunk;
    const piece *piece = &work->pieces[which];
    if (used[turn]) code = cu.cuEventSynchronize(events[turn]);
    if (!code) code = read_all(work->file, slot, len, piece->offset + start);
    if (!code) code = cu.cuMemcpyHtoDAsync_v2(piece->data + start, slot, len, stream);
    if (!code) code = cu.cuEventRecord(events[turn], stream);
    used[turn] = 1;
  }
  code = first(code, cu.cuStreamSynchronize(stream));
  for (int i = 0; i < 2; i++)
    if (events[i]) code = first(code, cu.cuEventDestroy_v2(events[i]));
  fail(work, leave(code));
  return NULL;
}

/* File to device: `pread` into two slots of `chunk` bytes for each thread and a copy from there. No checksum. */
API int pin_ring(pin *pin, const char *path, const piece *pieces, size_t count, size_t chunk, int threads) {
  if (chunk == 0 || (size_t)threads * 2 * chunk > pin->size) return -EINVAL;
  int file = open(path, O_RDONLY | O_CLOEXEC);
  if (file < 0) return -errno;
  work work = {.pin = pin, .pieces = pieces, .count = count, .chunk = chunk, .file = file, .threads = threads};
  int code = run(&work, ring_thread);
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
  size_t which, start, len;
  while (!code && !atomic_load(&work->code) && take(work, &which, &start, &len)) {
    const unsigned char *want = (const unsigned char *)(uintptr_t)work->others[which].data;
    code = cu.cuMemcpyDtoHAsync_v2(buffer, work->pieces[which].data + start, len, stream);
    code = first(code, cu.cuStreamSynchronize(stream));
    if (!code && memcmp(buffer, want + start, len) != 0) code = -EILSEQ;
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

/* ---- the program ---- */

static int comma; /* whether the list that is being printed has begun */

static void list(const char *name, int is_first) {
  printf("%s\"%s\": [", is_first ? "" : "],\n", name);
  comma = 0;
}

#define ENTRY(...)                         \
  do {                                     \
    printf(comma++ ? ",\n  {" : "\n  {"); \
    printf(__VA_ARGS__);                   \
    printf("}");                           \
  } while (0)

/* The best of some runs of `call`, in seconds, in `best_`; the first run, which may have to set up, is not among them. */
#define BEST(runs, call)                                  \
  double best_ = 1e9;                                     \
  for (int run_ = 0; run_ <= (runs); run_++) {            \
    double begun_ = now();                                \
    TRY(call);                                            \
    double took_ = now() - begun_;                        \
    if (run_ > 0 && took_ < best_) best_ = took_;         \
  }

static const char *const ways[] = {"h2d", "d2h"};

/* Host memory of every kind; the page-locked ones by the driver or by registration. */
enum kind { ALLOCATED, COMBINED, REGISTERED, REGISTERED_HUGE, PAGEABLE, NUM_KINDS };
static const char *const kinds[] = {"cuMemHostAlloc", "write-combined", "registered", "registered, huge pages", "pageable"};

static int host_memory(enum kind kind, size_t size, int touch, unsigned char **out) {
  if (kind <= COMBINED) return cu.cuMemHostAlloc((void **)out, size, PORTABLE | (kind == COMBINED ? WRITE_COMBINED : 0));
  void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (memory == MAP_FAILED) return -errno;
  madvise(memory, size, kind == REGISTERED_HUGE ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
  if (touch) memset(memory, 0x5a, size);
  *out = memory;
  return kind == PAGEABLE ? 0 : cu.cuMemHostRegister_v2(memory, size, PORTABLE);
}

static int free_host_memory(enum kind kind, unsigned char *memory, size_t size) {
  if (kind <= COMBINED) return cu.cuMemFreeHost(memory);
  int code = kind == PAGEABLE ? 0 : cu.cuMemHostUnregister(memory);
  munmap(memory, size);
  return code;
}

/* What it takes to page-lock memory, and to give it back. */
static int measure_pinning(size_t most) {
  const size_t sizes[] = {16 * MIB, 128 * MIB, 1024 * MIB, 4096 * MIB};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (enum kind kind = ALLOCATED; kind < PAGEABLE; kind++) {
      for (int touch = 0; touch <= (kind >= REGISTERED); touch++) {
        unsigned char *memory = NULL;
        if (sizes[i] > 4 * most || (i == 3 && kind == COMBINED)) continue;
        double begun = now();
        TRY(host_memory(kind, sizes[i], touch, &memory));
        double made = now();
        TRY(free_host_memory(kind, memory, sizes[i]));
        ENTRY("\"memory\": \"%s%s\", \"bytes\": %zu, \"seconds\": %.6f, \"free_seconds\": %.6f", kinds[kind],
              touch ? ", touched within" : "", sizes[i], made - begun, now() - made);
      }
    }
  }
  return 0;
}

static int measure_copies(pin *pin, uint64_t device, size_t size, int runs) {
  for (int way = TO_DEVICE; way <= TO_HOST; way++) {
    for (size_t chunk = MIB; chunk <= 64 * MIB; chunk *= 2) {
      for (int streams = 1; streams <= 4 && chunk <= size; streams++) {
        BEST(runs, loop(pin, way, pin->memory, pin->size, device, size, chunk, streams));
        ENTRY("\"way\": \"%s\", \"chunk\": %zu, \"streams\": %d, \"bytes\": %zu, \"seconds\": %.6f", ways[way], chunk,
              streams, size, best_);
      }
    }
  }
  return 0;
}

static int measure_kinds(pin *pin, uint64_t device, size_t size, int runs) {
  size_t room = size < 256 * MIB ? size : 256 * MIB;
  for (enum kind kind = ALLOCATED; kind < NUM_KINDS; kind++) {
    unsigned char *memory = NULL;
    TRY(host_memory(kind, room, 1, &memory));
    memset(memory, 0x5a, room);
    for (int way = TO_DEVICE; way <= TO_HOST; way++) {
      BEST(runs, loop(pin, way, memory, room, device, size, room < 8 * MIB ? room : 8 * MIB, 1));
      ENTRY("\"memory\": \"%s\", \"way\": \"%s\", \"bytes\": %zu, \"seconds\": %.6f", kinds[kind], ways[way], size,
            best_);
    }
    TRY(free_host_memory(kind, memory, room));
  }
  return 0;
}

static int both_ways(pin *pin, uint64_t device, size_t size) {
  size_t half = pin->size / 2, chunk = half < 8 * MIB ? half : 8 * MIB;
  int code = 0;
  for (size_t done = 0, at = 0; done + chunk <= size / 2 && !code; done += chunk, at = (at + chunk) % (half / chunk * chunk)) {
    code = copy(TO_DEVICE, device + done, pin->memory + at, chunk, pin->streams[0]);
    if (!code) code = copy(TO_HOST, device + size / 2 + done, pin->memory + half + at, chunk, pin->streams[1]);
  }
  return first(code, wait_for(pin, 2));
}

static int measure_small(pin *pin, uint64_t device, size_t size, int runs) {
  for (size_t bytes = 4096; bytes <= 65536; bytes *= 16) {
    size_t count = size / (2 * bytes) < 10000 ? size / (2 * bytes) : 10000;
    piece *pieces = calloc(count, sizeof *pieces);
    if (!pieces) return -ENOMEM;
    /* Every second place, and those in an order that jumps about. */
    for (size_t i = 0; i < count; i++) pieces[i] = (piece){0, device + i * 7919 % count * 2 * bytes, bytes};
    for (int way = TO_DEVICE; way <= TO_HOST; way++) {
      for (int batched = 0; batched <= (cu.cuMemcpyBatchAsync_v2 || cu.cuMemcpyBatchAsync); batched++) {
        BEST(runs, pieces_inside(pin, way, pieces, count, batched));
        ENTRY("\"way\": \"%s\", \"how\": \"%s\", \"bytes\": %zu, \"count\": %zu, \"seconds\": %.6f", ways[way],
              batched ? "batch" : "loop", bytes, count, best_);
      }
    }
    free(pieces);
  }
  return 0;
}

static int measure(pin *pin, size_t size, int runs) {
  uint64_t device = 0;
  TRY(cu.cuMemAlloc_v2(&device, size));
  list("pinning", 1);
  TRY(measure_pinning(size));
  list("copies", 0);
  TRY(measure_copies(pin, device, size, runs));
  list("kinds", 0);
  TRY(measure_kinds(pin, device, size, runs));
  list("both_ways", 0);
  BEST(runs, both_ways(pin, device, size));
  ENTRY("\"bytes_each_way\": %zu, \"seconds\": %.6f", size / 2, best_);
  list("small", 0);
  TRY(measure_small(pin, device, size, runs));
  printf("]\n");
  return cu.cuMemFree_v2(device);
}

/* The attributes of the device that decide what can be done, by CUDA's number. */
static int print_attributes(int device) {
  const struct { int number; const char *name; } asked[] = {
      {16, "multiprocessors"}, {40, "copy_engines"}, {88, "pageable_memory_access"}, {99, "host_register"},
      {113, "read_only_host_register"}, {115, "memory_pools"}, {116, "gpu_direct_rdma"}, {134, "host_numa_node"}};
  printf("\"attributes\": {");
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
    int value = 0, code = cu.cuDeviceGetAttribute(&value, asked[i].number, device);
    printf(code ? "%s\"%s\": null" : "%s\"%s\": %d", i ? ", " : "", asked[i].name, value);
  }
  printf("},\n");
  return 0;
}

static int play(int number, size_t size, int runs) {
  double begun = now();
  TRY(load());
  double loaded = now();
  TRY(cu.cuInit(0));
  double ready = now();
  int device, version = 0;
  void *context;
  TRY(cu.cuDeviceGet(&device, number));
  TRY(cu.cuDevicePrimaryCtxRetain(&context, device));
  double retained = now();
  pin *pin = NULL;
  TRY(pin_open(number, size < 256 * MIB ? size : 256 * MIB, &pin));
  double opened = now();
  TRY(cu.cuDriverGetVersion(&version));
  printf("{\"driver_version\": %d,\n", version);
  printf("\"first_call\": {\"dlopen\": %.6f, \"cuInit\": %.6f, \"primary_context\": %.6f, \"buffer\": %.6f},\n",
         loaded - begun, ready - loaded, retained - ready, opened - retained);
  TRY(print_attributes(device));
  TRY(enter(pin));
  TRY(leave(measure(pin, size, runs)));
  printf("}\n");
  TRY(pin_close(pin));
  return cu.cuDevicePrimaryCtxRelease_v2(device);
}

int main(int argc, char **argv) {
  long device = 0, mib = 2048, runs = 3;
  for (int i = 1; i + 1 < argc; i += 2) {
    long value = atol(argv[i + 1]);
    if (!strcmp(argv[i], "--device")) device = value;
    else if (!strcmp(argv[i], "--mib")) mib = value;
    else if (!strcmp(argv[i], "--runs")) runs = value;
    else return fprintf(stderr, "pinned: unknown option %s\n", argv[i]), 2;
  }
  int code = play((int)device, (size_t)mib * MIB, (int)runs);
  if (code) fprintf(stderr, code < 0 ? "pinned: %s\n" : "pinned: CUDA error %s%d\n", code < 0 ? strerror(-code) : "", code);
  return code != 0;
}
