/* Tests of streams and events. */
#include "check.h"

#include <pthread.h>

void event_tells_of_its_latest_record(void)
{
    begin();
    CUstream stream = new_stream(), other = new_stream();
    CUevent event = new_event();
    OK(cuEventQuery(event)); /* never recorded: complete */
    OK(cuEventSynchronize(event));
    OK(cuStreamWaitEvent(stream, event, 0)); /* no wait */
    OK(fakecuda_hold_stream(stream, 1));
    OK(cuEventRecord(event, stream));
    CHECK_CODE(CUDA_ERROR_NOT_READY, cuEventQuery(event));
    CHECK_CODE(CUDA_ERROR_NOT_READY, cuStreamQuery(stream));
    OK(cuStreamWaitEvent(other, event, 0)); /* waits for this record */
    OK(cuEventRecord(event, NULL));
    OK(cuEventSynchronize(event)); /* of the default stream; `other` still waits for the held one */
    CHECK_CODE(CUDA_ERROR_NOT_READY, cuStreamQuery(other));
    OK(fakecuda_hold_stream(stream, 0));
    OK(cuStreamSynchronize(other));
    OK(cuEventDestroy_v2(event));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventQuery(event));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(event, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamWaitEvent(stream, event, 0));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventDestroy_v2(event));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventQuery((CUevent)stream)); /* a stream is no event */
}

void wait_orders_two_streams(void)
{
    for (int with_wait = 0; with_wait < 2; with_wait++) {
        begin();
        CUdeviceptr address = new_memory(100);
        CUstream caller = new_stream(), copies = new_stream();
        CUevent event = new_event();
        unsigned char *pinned = new_pinned(100);
        OK(fakecuda_hold_stream(caller, 1)); /* the caller's work takes long */
        OK(cuMemsetD8Async(address, 1, 100, caller));
        OK(cuEventRecord(event, caller));
        memset(pinned, 2, 100);
        if (with_wait)
            OK(cuStreamWaitEvent(copies, event, 0));
        OK(cuMemcpyHtoDAsync_v2(address, pinned, 100, copies));
        if (!with_wait)
            OK(cuStreamSynchronize(copies));
        else
            CHECK(fakecuda_pending(copies) == 2);
        OK(fakecuda_hold_stream(caller, 0));
        OK(cuCtxSynchronize());
        CHECK(device_is_filled(address, with_wait ? 2 : 1, 100));
        CHECK(fakecuda_pending((void *)-1) == 0);
    }
}

void destroyed_stream_finishes_its_work(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream stream = new_stream();
    CUevent event = new_event();
    fakecuda_hold(1);
    OK(cuMemsetD8Async(address, 1, 100, stream));
    OK(cuEventRecord(event, stream));
    OK(cuStreamDestroy_v2(stream));
    CHECK(stats().live_streams == 0);
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamQuery(stream));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamDestroy_v2(stream));
    fakecuda_hold(0);
    OK(cuEventSynchronize(event));
    CHECK(device_is_filled(address, 1, 100));
}

void default_stream_has_no_order_by_itself(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream blocking;
    OK(cuStreamCreate(&blocking, 0));
    OK(fakecuda_hold_stream(NULL, 1));
    OK(cuMemsetD8Async(address, 1, 100, NULL));
    OK(cuMemsetD8Async(address, 2, 100, blocking)); /* in CUDA this would wait */
    OK(cuStreamSynchronize(blocking));
    CHECK(device_is_filled(address, 2, 100));
    CHECK(fakecuda_pending(NULL) == 1 && fakecuda_pending((void *)1) == 1);
    OK(fakecuda_hold_stream(NULL, 0));
    OK(cuStreamSynchronize(CU_STREAM_LEGACY));
    OK(cuMemsetD8Async(address, 3, 100, CU_STREAM_PER_THREAD));
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    CHECK(device_is_filled(address, 3, 100));
}

static void *use_own_default_stream(void *context)
{
    OK(cuCtxSetCurrent(context));
    CHECK(fakecuda_pending((void *)2) == 0); /* what the other thread waits for is on another stream */
    CUdeviceptr address = new_memory(100);
    OK(cuMemsetD8Async(address, 3, 100, CU_STREAM_PER_THREAD));
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    CHECK(device_is_filled(address, 3, 100));
    OK(cuMemFree_v2(address));
    CHECK(fakecuda_hold_stream((void *)2, 1) == 0);
    OK(cuMemsetD8Async(new_memory(1), 3, 1, CU_STREAM_PER_THREAD)); /* dropped with the context */
    return NULL;
}

void each_thread_has_a_default_stream_of_its_own(void)
{
    CUcontext context = begin();
    CUdeviceptr address = new_memory(100);
    pthread_t thread;
    OK(fakecuda_hold_stream((void *)2, 1));
    OK(cuMemsetD8Async(address, 1, 100, CU_STREAM_PER_THREAD));
    for (int i = 0; i < 2; i++) { /* a thread that comes after another has not its stream either */
        CHECK(pthread_create(&thread, NULL, use_own_default_stream, context) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    }
    CHECK(fakecuda_pending((void *)2) == 1 && device_is_filled(address, 0xD5, 100));
    OK(fakecuda_hold_stream((void *)2, 0));
    OK(cuStreamSynchronize(CU_STREAM_PER_THREAD));
    CHECK(device_is_filled(address, 1, 100));
    CHECK(stats().live_streams == 0 && fakecuda_pending((void *)-1) == 2);
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK(stats().lost_streams == 0);
}

static int code_in_host_function;

static void call_the_driver(void *argument)
{
    int count;
    *(int *)argument = (int)cuDeviceGetCount(&count);
}

void host_function_runs_and_must_not_call_the_driver(void)
{
    begin();
    CUstream stream = new_stream();
    code_in_host_function = -1;
    OK(cuLaunchHostFunc(stream, call_the_driver, &code_in_host_function));
    OK(cuStreamSynchronize(stream));
    CHECK(code_in_host_function == CUDA_ERROR_NOT_PERMITTED);
    CHECK(stats().host_functions == 1);
    /* Not at all after an error. */
    code_in_host_function = -1;
    OK(fakecuda_set_faults("ASYNC:1:719"));
    OK(cuMemsetD8Async(new_memory(1), 0, 1, stream));
    OK(cuLaunchHostFunc(stream, call_the_driver, &code_in_host_function));
    CHECK_CODE(CUDA_ERROR_LAUNCH_FAILED, cuStreamSynchronize(stream));
    fakecuda_drain();
    CHECK(code_in_host_function == -1);
}

void two_devices_work_side_by_side(void)
{
    CUcontext contexts[2];
    CUstream streams[2];
    CUdeviceptr addresses[2];
    CUevent events[2];
    unsigned char *pinned[2];
    fakecuda_reset();
    OK(fakecuda_set("devices", 2));
    OK(cuInit(0));
    for (int i = 0; i < 2; i++) {
        OK(cuDevicePrimaryCtxRetain(&contexts[i], i));
        OK(cuCtxSetCurrent(contexts[i]));
        streams[i] = new_stream();
        events[i] = new_event();
        addresses[i] = new_memory(SIZE);
        pinned[i] = new_pinned(SIZE);
        memset(pinned[i], i + 1, SIZE);
    }
    /* Device 1 waits for device 0, then takes over what it has. */
    OK(cuCtxSetCurrent(contexts[0]));
    OK(cuMemcpyHtoDAsync_v2(addresses[0], pinned[0], SIZE, streams[0]));
    OK(cuEventRecord(events[0], streams[0]));
    OK(cuCtxSetCurrent(contexts[1]));
    OK(cuStreamWaitEvent(streams[1], events[0], 0));
    CHECK(stats().calls_in_foreign_context == 0 && stats().cross_device_copies == 0);
    OK(cuMemcpyDtoDAsync_v2(addresses[1], addresses[0], SIZE, streams[1]));
    OK(cuStreamSynchronize(streams[1]));
    CHECK(device_is_filled(addresses[1], 1, SIZE));
    CHECK(stats().cross_device_copies == 1);
    OK(cuMemcpyHtoDAsync_v2(addresses[0], pinned[0], 1, streams[0]));
    CHECK(stats().calls_in_foreign_context == 1);
    /* An error on one is none on the other. */
    fakecuda_drain();
    OK(fakecuda_set_faults("ASYNC:1:700"));
    OK(cuMemcpyHtoDAsync_v2(addresses[1], pinned[1], SIZE, streams[1]));
    CHECK_CODE(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(streams[1]));
    OK(cuCtxSetCurrent(contexts[0]));
    OK(cuStreamSynchronize(streams[0]));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    OK(cuDevicePrimaryCtxRelease_v2(1));
}
