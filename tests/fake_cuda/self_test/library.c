/* Tests of the library as a whole: variants, environment, many threads. */
#include "check.h"

#include <dlfcn.h>
#include <pthread.h>

static bool has(const char *variant, const char *symbol)
{
    char path[4096];
    snprintf(path, sizeof path, "%s/%s/libcuda.so", lib_dir, variant);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        fprintf(stderr, "%s\n", dlerror());
        exit(1);
    }
    CHECK(dlsym(library, "cuInit") && dlsym(library, "fakecuda_reset"));
    return dlsym(library, symbol) != NULL;
}

void variants_lack_what_they_say(void)
{
    CHECK(has("full", "cuMemcpyBatchAsync") && has("full", "cuMemcpyBatchAsync_v2"));
    CHECK(has("batch-12.8", "cuMemcpyBatchAsync") && !has("batch-12.8", "cuMemcpyBatchAsync_v2"));
    CHECK(!has("no-batch", "cuMemcpyBatchAsync") && !has("no-batch", "cuMemcpyBatchAsync_v2"));
    CHECK(!has("missing-required", "cuMemcpyHtoDAsync_v2") && has("missing-required", "cuMemcpyDtoHAsync_v2"));
}

/* Leaves something behind, with settings from the environment only. */
void leave_something(void)
{
    CUcontext context;
    CUdeviceptr address;
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 4));
    OK(cuCtxPushCurrent_v2(context));
    OK(cuMemAlloc_v2(&address, 10));
    CHECK_CODE(2, cuMemAlloc_v2(&address, 10));
}

void report_at_exit_tells_what_is_left(void)
{
    char command[8192], line[256], all[4096] = "";
    snprintf(command, sizeof command,
             "FAKECUDA_DEVICES=5 FAKECUDA_FAULTS=cuMemAlloc:2:2 FAKECUDA_REPORT=1 '%s' '%s' report 2>&1", program, lib_dir);
    FILE *output = popen(command, "r");
    CHECK(output);
    while (fgets(line, sizeof line, output))
        if (strlen(all) + strlen(line) < sizeof all)
            strcat(all, line);
    CHECK(pclose(output) == 0);
    CHECK(strstr(all, "live_device_allocations 1\n") && strstr(all, "live_device_bytes 10\n"));
    CHECK(strstr(all, "retains[4] 1\n") && strstr(all, "faults_fired 1\n") && strstr(all, "end of report"));
    CHECK(!strstr(all, "live_streams"));
}

static void *upload_many(void *context)
{
    enum { CHUNK = 10000, NUM_CHUNKS = 50 };
    OK(cuCtxPushCurrent_v2(context));
    CUdeviceptr address = new_memory(CHUNK);
    CUstream stream = new_stream();
    CUevent event = new_event();
    unsigned char *pinned = new_pinned(CHUNK);
    for (int i = 0; i < NUM_CHUNKS; i++) {
        OK(cuEventSynchronize(event));
        memset(pinned, i, CHUNK);
        OK(cuMemcpyHtoDAsync_v2(address, pinned, CHUNK, stream));
        OK(cuEventRecord(event, stream));
    }
    OK(cuStreamSynchronize(stream));
    CHECK(device_is_filled(address, NUM_CHUNKS - 1, CHUNK));
    OK(cuMemFree_v2(address));
    OK(cuMemFreeHost(pinned));
    OK(cuEventDestroy_v2(event));
    OK(cuStreamDestroy_v2(stream));
    OK(cuCtxPopCurrent_v2(NULL));
    return NULL;
}

void many_threads_work_at_once(void)
{
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    CUcontext context = begin();
    OK(fakecuda_set("delay_us", 20));
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_create(&threads[i], NULL, upload_many, context) == 0);
    for (int i = 0; i < THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    struct fakecuda_stats now = stats();
    CHECK(now.live_device_allocations + now.live_pinned_allocations + now.live_streams + now.live_events == 0);
    CHECK(now.h2d_copies == THREADS * 50 && now.calls_in_foreign_context == 0);
}
