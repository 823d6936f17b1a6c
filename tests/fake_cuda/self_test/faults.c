/* Tests of limits, faults and counts. */
#include "check.h"

void memory_runs_out(void)
{
    CUdeviceptr address;
    size_t available, total;
    void *pointer;
    begin();
    OK(fakecuda_set("memory", 10000));
    OK(fakecuda_set("pinned_limit", 5000));
    CHECK_CODE(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&address, 10001));
    OK(cuMemAlloc_v2(&address, 6000));
    OK(cuMemGetInfo_v2(&available, &total));
    CHECK(available == 4000 && total == 10000);
    CUdeviceptr second;
    CHECK_CODE(CUDA_ERROR_OUT_OF_MEMORY, cuMemAlloc_v2(&second, 4001));
    OK(cuMemAlloc_v2(&second, 4000));
    OK(cuMemFree_v2(address));
    OK(cuMemFree_v2(second));
    OK(cuMemHostAlloc(&pointer, 5000, CU_MEMHOSTALLOC_WRITECOMBINED));
    CHECK_CODE(CUDA_ERROR_OUT_OF_MEMORY, cuMemHostAlloc(&pointer, 1, 0));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemAlloc_v2(&address, 0));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemHostAlloc(&pointer, 1, 0x80));
    struct fakecuda_stats now = stats();
    CHECK(now.peak_device_bytes == 10000 && now.live_device_bytes == 0 && now.live_device_allocations == 0);
    CHECK(fakecuda_stat("peak_device_bytes") == 10000 && fakecuda_stat("no such number") == UINT64_MAX);
    CHECK(now.peak_pinned_bytes == 5000 && now.live_pinned_bytes == 5000 && now.write_combined == 1);
}

void pools_can_be_missing(void)
{
    begin();
    CUstream stream = new_stream();
    CUdeviceptr address;
    OK(cuMemAllocAsync(&address, 100, stream));
    OK(cuMemsetD8Async(address, 1, 100, stream));
    OK(cuMemFreeAsync(address, stream));
    OK(cuStreamSynchronize(stream));
    CHECK(stats().live_device_allocations == 0 && stats().stale_copies == 0);
    OK(fakecuda_set("pools", 0));
    CHECK_CODE(CUDA_ERROR_NOT_SUPPORTED, cuMemAllocAsync(&address, 100, stream));
}

void fault_hits_the_nth_call(void)
{
    begin();
    CUdeviceptr address;
    OK(fakecuda_set_faults("cuMemAlloc:2:2,cuMemAlloc_v2:3:999,cuEventCreate:1:950"));
    OK(cuMemAlloc_v2(&address, 10));
    CHECK_CODE(2, cuMemAlloc_v2(&address, 10));
    CHECK_CODE(999, cuMemAlloc_v2(&address, 10));
    OK(cuMemAlloc_v2(&address, 10));
    CUevent event;
    CHECK_CODE(950, cuEventCreate(&event, 0)); /* a code that no header knows */
    CHECK(fakecuda_faults_fired() == 3);
    CHECK(stats().live_device_allocations == 2 && stats().live_events == 0);
    CHECK(fakecuda_calls("cuMemAlloc") == 4 && fakecuda_calls("cuMemAlloc_v2") == 4);
    const char *bad[] = { "cuInit", "cuInit:1", "cuInit:0:2", "cuInit:1:0", "cuInit:x:1", ":1:1", "cuInit:1:2x", "a:1:1,," };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++)
        CHECK(fakecuda_set_faults(bad[i]) == -1);
    OK(fakecuda_set_faults(NULL));
}

void calls_that_give_back_do_so_despite_a_fault(void)
{
    CUcontext context = begin(), current;
    CUdeviceptr address = new_memory(10);
    unsigned char *pinned = new_pinned(10);
    CUstream stream = new_stream();
    CUevent event = new_event();
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    OK(fakecuda_set_faults("cuMemFree:1:1,cuMemFreeHost:1:1,cuStreamDestroy:1:1,cuEventDestroy:1:1,cuCtxPopCurrent:1:1,"
                           "cuDevicePrimaryCtxRelease:1:1,cuThreadExchangeStreamCaptureMode:1:1,"
                           "cuThreadExchangeStreamCaptureMode:3:1"));
    CHECK_CODE(1, cuThreadExchangeStreamCaptureMode(&mode)); /* not made more relaxed */
    CHECK(fakecuda_thread_capture_mode() == CU_STREAM_CAPTURE_MODE_GLOBAL);
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    CHECK(mode == CU_STREAM_CAPTURE_MODE_GLOBAL && fakecuda_thread_capture_mode() == CU_STREAM_CAPTURE_MODE_RELAXED);
    CHECK_CODE(1, cuThreadExchangeStreamCaptureMode(&mode)); /* but set back */
    CHECK(fakecuda_thread_capture_mode() == CU_STREAM_CAPTURE_MODE_GLOBAL);
    CHECK_CODE(1, cuMemFree_v2(address));
    CHECK_CODE(1, cuMemFreeHost(pinned));
    CHECK_CODE(1, cuStreamDestroy_v2(stream));
    CHECK_CODE(1, cuEventDestroy_v2(event));
    CHECK_CODE(1, cuCtxPopCurrent_v2(&current));
    CHECK(current == context);
    CHECK_CODE(1, cuDevicePrimaryCtxRelease_v2(0));
    struct fakecuda_stats now = stats();
    CHECK(now.live_device_allocations + now.live_pinned_allocations + now.live_streams + now.live_events == 0);
    CHECK(now.lost_device_allocations + now.lost_pinned_allocations + now.lost_streams + now.lost_events == 0);
    CHECK(now.retains[0] == 0 && fakecuda_thread_context_depth() == 0);
}

void calls_that_wait_do_so_despite_a_fault(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream stream = new_stream();
    CUevent event = new_event();
    OK(fakecuda_set("delay_us", 2000));
    OK(fakecuda_set_faults("cuStreamSynchronize:1:1,cuEventSynchronize:1:1"));
    OK(cuMemsetD8Async(address, 1, 100, stream));
    CHECK_CODE(1, cuStreamSynchronize(stream));
    CHECK(fakecuda_pending(stream) == 0 && device_is_filled(address, 1, 100));
    OK(cuMemsetD8Async(address, 2, 100, stream));
    OK(cuEventRecord(event, stream));
    CHECK_CODE(1, cuEventSynchronize(event));
    CHECK(device_is_filled(address, 2, 100));
}

void asynchronous_fault_sticks_to_its_context(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream stream = new_stream();
    CUevent event = new_event();
    unsigned char *pinned = new_pinned(100);
    memset(pinned, 1, 100);
    OK(fakecuda_set_faults("ASYNC:2:700"));
    fakecuda_hold(1);
    OK(cuMemcpyHtoDAsync_v2(address, pinned, 10, stream));
    OK(cuMemcpyHtoDAsync_v2(address + 10, pinned, 10, stream));
    OK(cuMemcpyHtoDAsync_v2(address + 20, pinned, 10, stream));
    OK(cuEventRecord(event, stream));
    fakecuda_hold(0);
    CHECK_CODE(700, cuEventSynchronize(event));
    CHECK_CODE(700, cuEventQuery(event));
    CHECK_CODE(700, cuMemcpyHtoDAsync_v2(address, pinned, 10, stream));
    CHECK_CODE(700, cuStreamSynchronize(stream));
    CHECK(fakecuda_faults_fired() == 1 && stats().copies_executed == 2);
    CHECK(device_is_filled(address, 1, 15));          /* half of the second */
    CHECK(device_is_filled(address + 15, 0xD5, 85)); /* nothing of what came later */
    CHECK_CODE(700, cuMemFree_v2(address));           /* but done */
    CHECK(stats().live_device_allocations == 0);
    OK(cuCtxPopCurrent_v2(NULL));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CUcontext fresh;
    OK(cuDevicePrimaryCtxRetain(&fresh, 0));
    OK(cuCtxPushCurrent_v2(fresh));
    new_memory(10);
}

/* A small upload that cleans up whatever happens; returns the first error. */
static int careful_upload(void)
{
    CUcontext context;
    CUdeviceptr address = 0;
    CUstream stream = NULL;
    void *pinned = NULL;
    int code = (int)cuDevicePrimaryCtxRetain(&context, 0), late;
    if (code)
        return code;
    code = (int)cuCtxPushCurrent_v2(context);
    if (!code) {
        code = (int)cuMemAlloc_v2(&address, 100);
        code = code ? code : (int)cuMemHostAlloc(&pinned, 100, 0);
        code = code ? code : (int)cuStreamCreate(&stream, CU_STREAM_NON_BLOCKING);
        code = code ? code : (int)cuMemcpyHtoDAsync_v2(address, pinned, 100, stream);
        if (stream) {
            late = (int)cuStreamSynchronize(stream);
            code = code ? code : late;
            late = (int)cuStreamDestroy_v2(stream);
            code = code ? code : late;
        }
        if (pinned) {
            late = (int)cuMemFreeHost(pinned);
            code = code ? code : late;
        }
        if (address) {
            late = (int)cuMemFree_v2(address);
            code = code ? code : late;
        }
        late = (int)cuCtxPopCurrent_v2(NULL);
        code = code ? code : late;
    }
    late = (int)cuDevicePrimaryCtxRelease_v2(0);
    return code ? code : late;
}

void every_call_can_be_made_to_fail(void)
{
    int nth = 0;
    for (bool fired = true; fired;) {
        char fault[64];
        snprintf(fault, sizeof fault, "*:%d:999", ++nth);
        fakecuda_reset();
        OK(cuInit(0));
        OK(fakecuda_set_faults(fault));
        int code = careful_upload();
        fired = fakecuda_faults_fired() > 0;
        CHECK(code == (fired ? 999 : 0));
        struct fakecuda_stats now = stats();
        CHECK(now.live_device_allocations + now.live_pinned_allocations + now.live_streams + now.retains[0] == 0);
        CHECK(now.lost_device_allocations + now.lost_pinned_allocations + now.lost_streams == 0);
        CHECK(fakecuda_thread_context_depth() == 0);
    }
    CHECK(nth == 13); /* twelve calls, and a run in which none failed */
}
