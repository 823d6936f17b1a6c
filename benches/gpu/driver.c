/* What the driver and the bus do by themselves: copies of every size and kind, and what page-locking takes.
 *
 *   gcc -std=gnu11 -O2 -pthread driver.c -o driver -ldl && ./driver [--device N] [--mib M] [--runs N]
 *
 * --mib (default 2048): bytes that one measurement moves; --runs (default 3): of which the best is printed. Prints a line
 * for each measurement when it is made, a JSON object with the `section` it belongs to and `seconds`; or `error`, after
 * which the others are made all the same. Exit status: 0, or 1 when there is nothing to measure with.
 */
#include "pinned.c" /* one program: the kernels' own functions are static */

#include <stdarg.h>
#include <sys/mman.h>
#include <time.h>

static double now(void) {
  struct timespec time;
  clock_gettime(CLOCK_MONOTONIC, &time);
  return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

/* An error as people read it; valid until the next. */
static const char *reason(int code) {
  static char text[32];
  if (code < 0) return strerror(-code);
  snprintf(text, sizeof text, "CUDA error %d", code);
  return text;
}

/* A line of output; `format` has the fields that say what was measured. Negative seconds are left out. */
__attribute__((format(printf, 4, 5))) static void entry(const char *section, int code, double seconds,
                                                        const char *format, ...) {
  va_list fields;
  va_start(fields, format);
  printf("{\"section\": \"%s\", ", section);
  vprintf(format, fields);
  va_end(fields);
  if (code) printf(", \"error\": \"%s\"}\n", reason(code));
  else if (seconds >= 0) printf(", \"seconds\": %.6f}\n", seconds);
  else printf("}\n");
}

/* Sets `code` and `best`, the seconds of the fastest of some runs of `call`; the first run, which may have to set up, is
 * not among them. */
#define BEST(code, best, runs, call)                                 \
  int code = 0;                                                      \
  double best = 1e9;                                                 \
  for (int run_ = 0; run_ <= (runs) && !code; run_++) {              \
    double begun_ = now();                                           \
    code = (call);                                                   \
    double took_ = now() - begun_;                                   \
    if (run_ > 0 && took_ < best) best = took_;                      \
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
  int code = kind == PAGEABLE ? 0 : cu.cuMemHostRegister_v2(memory, size, PORTABLE);
  if (code) munmap(memory, size);
  return code;
}

static int free_host_memory(enum kind kind, unsigned char *memory, size_t size) {
  if (kind <= COMBINED) return cu.cuMemFreeHost(memory);
  int code = kind == PAGEABLE ? 0 : cu.cuMemHostUnregister(memory);
  munmap(memory, size);
  return code;
}

static void measure_copies(pin *pin, uint64_t device, size_t size, int runs) {
  for (int way = TO_DEVICE; way <= TO_HOST; way++) {
    for (size_t chunk = MIB; chunk <= 64 * MIB && chunk <= size; chunk *= 2) {
      for (int streams = 1; streams <= 4; streams++) {
        BEST(code, best, runs, loop(pin, way, pin->memory, pin->size, device, size, chunk, streams));
        entry("copies", code, best, "\"way\": \"%s\", \"chunk\": %zu, \"streams\": %d, \"bytes\": %zu", ways[way],
              chunk, streams, size);
      }
    }
  }
}

static void measure_kinds(pin *pin, uint64_t device, size_t size, int runs) {
  size_t room = size < 256 * MIB ? size : 256 * MIB;
  for (enum kind kind = ALLOCATED; kind < NUM_KINDS; kind++) {
    unsigned char *memory = NULL;
    int made = host_memory(kind, room, 1, &memory);
    if (made) {
      entry("kinds", made, 0, "\"memory\": \"%s\", \"way\": \"both\"", kinds[kind]);
      continue;
    }
    memset(memory, 0x5a, room);
    for (int way = TO_DEVICE; way <= TO_HOST; way++) {
      BEST(code, best, runs, loop(pin, way, memory, room, device, size, room < 8 * MIB ? room : 8 * MIB, 1));
      entry("kinds", code, best, "\"memory\": \"%s\", \"way\": \"%s\", \"bytes\": %zu", kinds[kind], ways[way], size);
    }
    free_host_memory(kind, memory, room);
  }
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

static void measure_both_ways(pin *pin, uint64_t device, size_t size, int runs) {
  BEST(code, best, runs, both_ways(pin, device, size));
  entry("both_ways", code, best, "\"bytes_each_way\": %zu", size / 2);
}

static void measure_small(pin *pin, uint64_t device, size_t size, int runs) {
  for (size_t bytes = 4096; bytes <= 65536; bytes *= 16) {
    size_t count = size / (2 * bytes) < 10000 ? size / (2 * bytes) : 10000;
    piece *pieces = calloc(count, sizeof *pieces);
    if (!pieces) return entry("small", -ENOMEM, 0, "\"way\": \"both\", \"how\": \"both\", \"bytes\": %zu", bytes);
    /* Every second place, and those in an order that jumps about. */
    for (size_t i = 0; i < count; i++) pieces[i] = (piece){0, device + i * 7919 % count * 2 * bytes, bytes};
    for (int way = TO_DEVICE; way <= TO_HOST; way++) {
      for (int batched = 0; batched <= (cu.cuMemcpyBatchAsync_v2 || cu.cuMemcpyBatchAsync); batched++) {
        BEST(code, best, runs, pieces_inside(pin, way, pieces, count, batched));
        entry("small", code, best, "\"way\": \"%s\", \"how\": \"%s\", \"bytes\": %zu, \"count\": %zu", ways[way],
              batched ? "batch" : "loop", bytes, count);
      }
    }
    free(pieces);
  }
}

/* What it takes to page-lock memory, and to give it back. Last, as it takes most of the time, and most may go wrong. */
static void measure_pinning(size_t most) {
  const size_t sizes[] = {16 * MIB, 128 * MIB, 1024 * MIB, 4096 * MIB};
  for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
    for (enum kind kind = ALLOCATED; kind < PAGEABLE; kind++) {
      for (int touch = 0; touch <= (kind >= REGISTERED); touch++) {
        unsigned char *memory = NULL;
        if (sizes[i] > 4 * most || (i == 3 && kind == COMBINED)) continue;
        double begun = now();
        int code = host_memory(kind, sizes[i], touch, &memory);
        double made = now();
        if (!code) code = free_host_memory(kind, memory, sizes[i]);
        entry("pinning", code, made - begun, "\"memory\": \"%s%s\", \"bytes\": %zu, \"free_seconds\": %.6f", kinds[kind],
              touch ? ", touched within" : "", sizes[i], now() - made);
      }
    }
  }
}

/* The attributes of the device that decide what can be done, by CUDA's number. */
static void print_attributes(int device) {
  const struct { int number; const char *name; } asked[] = {
      {16, "multiprocessors"}, {40, "copy_engines"}, {88, "pageable_memory_access"}, {99, "host_register"},
      {113, "read_only_host_register"}, {115, "memory_pools"}, {116, "gpu_direct_rdma"}, {134, "host_numa_node"}};
  for (size_t i = 0; i < sizeof asked / sizeof *asked; i++) {
    int value = 0, code = cu.cuDeviceGetAttribute(&value, asked[i].number, device);
    entry("attributes", code, -1, "\"name\": \"%s\", \"value\": %d", asked[i].name, value);
  }
}

static int measure(pin *pin, size_t size, int runs) {
  uint64_t device = 0;
  int code = cu.cuMemAlloc_v2(&device, size);
  if (!code) {
    measure_copies(pin, device, size, runs);
    measure_both_ways(pin, device, size, runs);
    measure_small(pin, device, size, runs);
    measure_kinds(pin, device, size, runs);
    code = cu.cuMemFree_v2(device);
  }
  measure_pinning(size);
  return code;
}

static int play(int number, size_t size, int runs) {
  double begun = now();
  TRY(load());
  double loaded = now();
  TRY(cu.cuInit(0));
  double ready = now();
  int device;
  void *context;
  TRY(cu.cuDeviceGet(&device, number));
  TRY(cu.cuDevicePrimaryCtxRetain(&context, device));
  double retained = now();
  pin *pin = NULL;
  size_t room = size < 256 * MIB ? size : 256 * MIB;
  TRY(pin_open(number, room, &pin));
  entry("first_call", 0, loaded - begun, "\"part\": \"dlopen\"");
  entry("first_call", 0, ready - loaded, "\"part\": \"cuInit\"");
  entry("first_call", 0, retained - ready, "\"part\": \"primary context\"");
  entry("first_call", 0, now() - retained, "\"part\": \"16 streams, %zu MiB of page-locked memory\"", room / MIB);
  print_attributes(device);
  TRY(enter(pin));
  TRY(leave(measure(pin, size, runs)));
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
    else return fprintf(stderr, "driver: unknown option %s\n", argv[i]), 2;
  }
  setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* so that nothing that was measured is lost with the process */
  int code = play((int)device, (size_t)mib * MIB, (int)runs);
  if (code) fprintf(stderr, "%s\n", reason(code));
  return code != 0;
}
