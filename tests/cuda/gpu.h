/* What the CUDA test programs share: the driver, found at run time as the library finds it, and the fake driver's controls
 * where that is the driver.
 *
 * The programs run on the fake driver (tests/fake_cuda) and, unchanged, on a real one; they say which. What only the fake
 * can show is left out on a real driver, with a line that begins with "skipped:". As those of tests/c they are examples,
 * each of one task, and are compiled as C99 and as C++17. */
#ifndef TFCKPT_TESTS_GPU_H
#define TFCKPT_TESTS_GPU_H

#include "../c/check.h"
#include "../fake_cuda/fake_cuda.h"

#include <dlfcn.h>
#include <time.h>

enum {
    MAX_DEVICES = 2, /* more are left alone */
    FOREVER = -1     /* for the calls on jobs that wait */
};
#define POISON 0xD5 /* of memory before a restore; that of the fake's fresh device memory, too */

typedef uint64_t gpu_address; /* CUdeviceptr */
typedef void *gpu_stream;     /* CUstream */

/* The driver's functions that the programs call, without their versions; the types are those of cuda.h, in plain C. */
static struct gpu_driver {
    int num_devices;
    int version;
    void *library;
    void *contexts[MAX_DEVICES]; /* the primary ones */

    int (*cuInit)(unsigned flags);
    int (*cuDriverGetVersion)(int *version);
    int (*cuDeviceGetCount)(int *num);
    int (*cuDeviceGetName)(char *name, int size, int device);
    int (*cuDevicePrimaryCtxRetain)(void **context, int device);
    int (*cuDevicePrimaryCtxRelease)(int device);
    int (*cuCtxGetCurrent)(void **context);
    int (*cuCtxSetCurrent)(void *context);
    int (*cuThreadExchangeStreamCaptureMode)(int *mode);
    int (*cuStreamCreate)(gpu_stream *stream, unsigned flags);
    int (*cuStreamDestroy)(gpu_stream stream);
    int (*cuStreamSynchronize)(gpu_stream stream);
    int (*cuStreamBeginCapture)(gpu_stream stream, int mode);
    int (*cuStreamEndCapture)(gpu_stream stream, void **graph);
    int (*cuGraphDestroy)(void *graph);
    int (*cuMemAlloc)(gpu_address *address, size_t size);
    int (*cuMemFree)(gpu_address address);
    int (*cuMemHostAlloc)(void **memory, size_t size, unsigned flags);
    int (*cuMemFreeHost)(void *memory);
    int (*cuMemcpyHtoD)(gpu_address to, const void *from, size_t size);
    int (*cuMemcpyDtoH)(void *to, gpu_address from, size_t size);
    int (*cuMemcpyDtoHAsync)(void *to, gpu_address from, size_t size, gpu_stream stream);
    int (*cuMemsetD8Async)(gpu_address to, unsigned char value, size_t size, gpu_stream stream);
} gpu;

/* The fake's controls; NULL on a real driver. fake_cuda.h says what they do. */
static struct fake_driver {
    __typeof__(fakecuda_reset) *reset;
    __typeof__(fakecuda_set) *set;
    __typeof__(fakecuda_set_faults) *set_faults;
    __typeof__(fakecuda_faults_fired) *faults_fired;
    __typeof__(fakecuda_stats) *stats;
    __typeof__(fakecuda_stat) *stat;
    __typeof__(fakecuda_hold) *hold;
    __typeof__(fakecuda_hold_stream) *hold_stream;
    __typeof__(fakecuda_drain) *drain;
    __typeof__(fakecuda_pending) *pending;
    __typeof__(fakecuda_peek) *peek;
    __typeof__(fakecuda_poke) *poke;
    __typeof__(fakecuda_capture_invalidated) *capture_invalidated;
    __typeof__(fakecuda_thread_context_depth) *thread_context_depth;
    __typeof__(fakecuda_calls) *calls;
} fake;

/* ---- Finding the driver ---- */

/* Looks a function up; `place` is a function pointer of whatever type. Leaves it NULL if there is none. */
static inline void gpu_find(void *place, const char *name)
{
    void *address = dlsym(gpu.library, name);

    memcpy(place, &address, sizeof address);
}

#define GPU_FIND(name, version)             \
    do {                                    \
        gpu_find(&gpu.name, #name version); \
        CHECK(gpu.name != NULL);            \
    } while (0)
#define FAKE_FIND(name) gpu_find(&fake.name, "fakecuda_" #name)

/* A call of the driver succeeds. */
static inline void gpu_check(int code, const char *call, const char *file, int line)
{
    if (code == 0)
        return;
    fprintf(stderr, "%s:%d: %s: CUDA error %d\n", file, line, call, code);
    exit(EXIT_FAILURE);
}
#define CU(call) gpu_check((call), #call, __FILE__, __LINE__)

/* 1 on the fake driver; on a real one it says what is left out and returns 0. */
static inline int needs_the_fake(const char *what)
{
    if (fake.reset == NULL)
        printf("skipped: %s needs the fake driver\n", what);
    return fake.reset != NULL;
}

/* 1 if there are two devices; otherwise as above. */
static inline int needs_two_devices(const char *what)
{
    if (gpu.num_devices < 2)
        printf("skipped: %s needs two devices\n", what);
    return gpu.num_devices >= 2;
}

/* Makes the primary context of a device current on this thread. */
static inline void gpu_use(int device)
{
    CU(gpu.cuCtxSetCurrent(gpu.contexts[device]));
}

/* Holds the primary contexts, as an engine does that uses the devices, and makes the first one current. */
static inline void gpu_enter(void)
{
    CU(gpu.cuInit(0));
    CU(gpu.cuDeviceGetCount(&gpu.num_devices));
    if (gpu.num_devices > MAX_DEVICES)
        gpu.num_devices = MAX_DEVICES;
    for (int device = 0; device < gpu.num_devices; device++)
        CU(gpu.cuDevicePrimaryCtxRetain(&gpu.contexts[device], device));
    gpu_use(0);
}

/* Finds the driver and enters it. Without a driver there is nothing to test: the program ends. */
static inline void gpu_start(void)
{
    char name[256];

    gpu.library = dlopen("libcuda.so", RTLD_NOW);
    if (gpu.library == NULL)
        gpu.library = dlopen("libcuda.so.1", RTLD_NOW);
    if (gpu.library == NULL) {
        printf("skipped: all of it needs a CUDA driver, real or fake\n");
        exit(EXIT_SUCCESS);
    }
    GPU_FIND(cuInit, "");
    GPU_FIND(cuDriverGetVersion, "");
    GPU_FIND(cuDeviceGetCount, "");
    GPU_FIND(cuDeviceGetName, "");
    GPU_FIND(cuDevicePrimaryCtxRetain, "");
    GPU_FIND(cuDevicePrimaryCtxRelease, "_v2");
    GPU_FIND(cuCtxGetCurrent, "");
    GPU_FIND(cuCtxSetCurrent, "");
    GPU_FIND(cuThreadExchangeStreamCaptureMode, "");
    GPU_FIND(cuStreamCreate, "");
    GPU_FIND(cuStreamDestroy, "_v2");
    GPU_FIND(cuStreamSynchronize, "");
    GPU_FIND(cuStreamBeginCapture, "_v2");
    GPU_FIND(cuStreamEndCapture, "");
    GPU_FIND(cuGraphDestroy, "");
    GPU_FIND(cuMemAlloc, "_v2");
    GPU_FIND(cuMemFree, "_v2");
    GPU_FIND(cuMemHostAlloc, "");
    GPU_FIND(cuMemFreeHost, "");
    GPU_FIND(cuMemcpyHtoD, "_v2");
    GPU_FIND(cuMemcpyDtoH, "_v2");
    GPU_FIND(cuMemcpyDtoHAsync, "_v2");
    GPU_FIND(cuMemsetD8Async, "");
    FAKE_FIND(reset);
    FAKE_FIND(set);
    FAKE_FIND(set_faults);
    FAKE_FIND(faults_fired);
    FAKE_FIND(stats);
    FAKE_FIND(stat);
    FAKE_FIND(hold);
    FAKE_FIND(hold_stream);
    FAKE_FIND(drain);
    FAKE_FIND(pending);
    FAKE_FIND(peek);
    FAKE_FIND(poke);
    FAKE_FIND(capture_invalidated);
    FAKE_FIND(thread_context_depth);
    FAKE_FIND(calls);

    gpu_enter();
    CU(gpu.cuDriverGetVersion(&gpu.version));
    CU(gpu.cuDeviceGetName(name, sizeof name, 0));
    printf("on %s driver %d.%d, %d device(s) in use: %s\n", fake.reset != NULL ? "the fake" : "a real", gpu.version / 1000,
           gpu.version % 1000 / 10, gpu.num_devices, name);
    fflush(stdout);
}

/* A fresh fake driver, without what came before. All memory and streams are gone. Nothing on a real driver. */
static inline void gpu_reset(void)
{
    if (fake.reset == NULL)
        return;
    fake.reset();
    gpu_enter();
}

/* ---- Memory ---- */

/* Bytes that look like no other: equal seeds, equal bytes (splitmix64). */
static inline void fill(void *bytes, size_t size, uint64_t seed)
{
    unsigned char *at = (unsigned char *)bytes;

    for (size_t i = 0; i < size; i += sizeof(uint64_t)) {
        uint64_t word = seed * UINT64_C(0x2545F4914F6CDD1D) + (i / sizeof word + 1) * UINT64_C(0x9E3779B97F4A7C15);
        size_t left = size - i < sizeof word ? size - i : sizeof word;

        word = (word ^ word >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
        word = (word ^ word >> 27) * UINT64_C(0x94D049BB133111EB);
        word ^= word >> 31;
        memcpy(at + i, &word, left);
    }
}

static inline void *allocate(size_t size)
{
    void *memory = malloc(size > 0 ? size : 1);

    CHECK(memory != NULL);
    return memory;
}

/* Sets device memory of the current context's device, and waits until it is set. */
static inline void gpu_set(gpu_address to, unsigned char value, size_t size)
{
    if (size == 0)
        return;
    CU(gpu.cuMemsetD8Async(to, value, size, NULL));
    CU(gpu.cuStreamSynchronize(NULL));
}

/* Poisoned memory of the current context's device. */
static inline gpu_address gpu_alloc(size_t size)
{
    gpu_address address = 0;

    CU(gpu.cuMemAlloc(&address, size > 0 ? size : 1));
    gpu_set(address, POISON, size);
    return address;
}

static inline void gpu_write(gpu_address to, const void *from, size_t size)
{
    if (size > 0)
        CU(gpu.cuMemcpyHtoD(to, from, size));
}

/* Whether device memory holds these bytes, NULL for poison; if not, it says where it does not. */
static inline int gpu_holds(gpu_address address, const void *bytes, size_t size)
{
    const unsigned char *want = (const unsigned char *)bytes;
    unsigned char *got = (unsigned char *)allocate(size);
    size_t i = 0;

    if (size > 0)
        CU(gpu.cuMemcpyDtoH(got, address, size));
    while (i < size && got[i] == (want != NULL ? want[i] : POISON))
        i++;
    if (i < size)
        fprintf(stderr, "byte %zu of %zu is %02x instead of %02x\n", i, size, got[i], want != NULL ? want[i] : POISON);
    free(got);
    return i == size;
}

/* A tensor in device memory. As host_tensor, otherwise. */
static inline tfckpt_tensor device_tensor(const char *key, int32_t dtype, int32_t rank, const int64_t *shape, int device,
                                          gpu_address address, size_t size)
{
    tfckpt_tensor tensor = host_tensor(key, dtype, rank, shape, (void *)(uintptr_t)address, size);

    tensor.device_type = TFCKPT_DEVICE_CUDA;
    tensor.device_id = device;
    return tensor;
}

/* ---- What a guest must leave as it was ---- */

/* How this thread stands to CUDA. */
struct gpu_thread {
    void *context; /* the current one */
    int mode;      /* towards captures */
    int depth;     /* of the stack of contexts; 0 on a real driver */
};

static inline struct gpu_thread gpu_thread(void)
{
    struct gpu_thread thread = {NULL, 2, 0};
    int mode;

    CU(gpu.cuCtxGetCurrent(&thread.context));
    CU(gpu.cuThreadExchangeStreamCaptureMode(&thread.mode));
    mode = thread.mode;
    CU(gpu.cuThreadExchangeStreamCaptureMode(&mode));
    if (fake.reset != NULL)
        thread.depth = fake.thread_context_depth();
    return thread;
}

static inline int gpu_same_thread(struct gpu_thread before)
{
    struct gpu_thread now = gpu_thread();

    return now.context == before.context && now.mode == before.mode && now.depth == before.depth;
}

/* The fake's counts; zeros on a real driver. */
static inline struct fakecuda_stats gpu_stats(void)
{
    struct fakecuda_stats stats;

    memset(&stats, 0, sizeof stats);
    if (fake.reset != NULL)
        fake.stats(&stats, sizeof stats);
    return stats;
}

/* How often the fake was asked for device memory, 0 on a real driver. A destination of the caller's needs none beside. */
static inline uint64_t gpu_allocations(void)
{
    return fake.reset != NULL ? fake.calls("cuMemAlloc") + fake.calls("cuMemAllocAsync") : 0;
}

/* Whether nothing is there that was not there before, and nothing was done that a guest does not do. Everything holds on a
 * real driver, which does not count. */
static inline int gpu_nothing_left(struct fakecuda_stats before)
{
    struct fakecuda_stats now = gpu_stats();
    int same = now.live_device_allocations == before.live_device_allocations && now.live_streams == before.live_streams &&
               now.live_pinned_bytes == before.live_pinned_bytes && now.live_events == before.live_events &&
               now.live_registrations == before.live_registrations && now.retains[0] == before.retains[0] &&
               now.retains[1] == before.retains[1];
    int well = now.lost_device_allocations + now.lost_pinned_allocations + now.lost_streams + now.lost_events == 0 &&
               now.calls_without_context + now.calls_in_foreign_context + now.stale_copies + now.write_combined +
                       now.host_functions ==
                   0;

    if (!same || !well)
        fprintf(stderr,
                "left: device allocations %" PRIu64 ", pinned bytes %" PRIu64 ", streams %" PRIu64 ", events %" PRIu64
                ", retains %" PRIu64 " and %" PRIu64 "; lost: %" PRIu64 ", without context: %" PRIu64
                ", in a foreign one: %" PRIu64 ", stale copies: %" PRIu64 "\n",
                now.live_device_allocations - before.live_device_allocations,
                now.live_pinned_bytes - before.live_pinned_bytes, now.live_streams - before.live_streams,
                now.live_events - before.live_events, now.retains[0] - before.retains[0], now.retains[1] - before.retains[1],
                now.lost_device_allocations + now.lost_pinned_allocations + now.lost_streams + now.lost_events,
                now.calls_without_context, now.calls_in_foreign_context, now.stale_copies);
    return same && well;
}

/* Whether no copy is left to run on any stream: what runs from now on would be a copy that a call has left behind. */
static inline int gpu_no_copies_left(void)
{
    uint64_t executed = gpu_stats().copies_executed;

    if (fake.reset != NULL)
        fake.drain();
    return gpu_stats().copies_executed == executed;
}

/* A context with this budget; 0 is the default. */
static inline tfckpt_context *new_context(uint64_t max_host_bytes)
{
    tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;

    options.max_host_bytes = max_host_bytes;
    CHECK_OK(tfckpt_context_new(&options, &context, &error), error);
    return context;
}

static inline void sleep_ms(long milliseconds)
{
    struct timespec time = {milliseconds / 1000, milliseconds % 1000 * 1000000};

    nanosleep(&time, NULL);
}

#endif
