/* See check.h. */
#include "check.h"

struct fakecuda_stats stats(void)
{
    struct fakecuda_stats now;
    fakecuda_stats(&now, sizeof now);
    return now;
}

/* A fresh driver with the primary context of device 0 current. */
CUcontext begin(void)
{
    CUcontext context;
    fakecuda_reset();
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    OK(cuCtxPushCurrent_v2(context));
    return context;
}

CUstream new_stream(void)
{
    CUstream stream;
    OK(cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING));
    return stream;
}

CUevent new_event(void)
{
    CUevent event;
    OK(cuEventCreate(&event, CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING));
    return event;
}

CUdeviceptr new_memory(size_t size)
{
    CUdeviceptr address;
    OK(cuMemAlloc_v2(&address, size));
    return address;
}

unsigned char *new_pinned(size_t size)
{
    void *pointer;
    OK(cuMemHostAlloc(&pointer, size, CU_MEMHOSTALLOC_PORTABLE));
    return pointer;
}

bool is_filled(const unsigned char *bytes, unsigned char value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (bytes[i] != value)
            return false;
    return true;
}

bool device_is_filled(CUdeviceptr address, unsigned char value, size_t size)
{
    unsigned char *bytes = malloc(size);
    CHECK(bytes);
    OK(fakecuda_peek(address, bytes, size));
    bool filled = is_filled(bytes, value, size);
    free(bytes);
    return filled;
}

/* Writes without ThreadSanitizer's knowledge: what some tests do on purpose is a data race. */
#if defined __clang__ || __GNUC__ >= 8
__attribute__((noinline, no_sanitize("thread")))
#endif
void fill_unseen(volatile unsigned char *bytes, unsigned char value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        bytes[i] = value;
}
