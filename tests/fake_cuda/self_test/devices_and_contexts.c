/* Tests of devices, and each thread's stack of contexts. */
#include "check.h"

#include <pthread.h>

void driver_starts_as_set(void)
{
    int number = 0;
    const char *name = NULL;
    fakecuda_reset();
    CHECK_CODE(CUDA_ERROR_NOT_INITIALIZED, cuDeviceGetCount(&number));
    OK(cuDriverGetVersion(&number)); /* needs no cuInit */
    CHECK(number == 13000);
    OK(fakecuda_set("driver_version", 12080));
    OK(cuDriverGetVersion(&number));
    CHECK(number == 12080);
    OK(fakecuda_set("devices", 0));
    CHECK_CODE(CUDA_ERROR_NO_DEVICE, cuInit(0));
    OK(fakecuda_set("devices", 3));
    OK(fakecuda_set("init_code", 34));
    CHECK_CODE(CUDA_ERROR_STUB_LIBRARY, cuInit(0));
    OK(fakecuda_set("init_code", 0));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuInit(1));
    OK(cuInit(0));
    OK(cuDeviceGetCount(&number));
    CHECK(number == 3);
    CHECK_CODE(CUDA_ERROR_INVALID_DEVICE, cuDeviceGet(&number, 3));
    OK(cuGetErrorName(CUDA_ERROR_ILLEGAL_ADDRESS, &name));
    CHECK(strcmp(name, "CUDA_ERROR_ILLEGAL_ADDRESS") == 0);
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuGetErrorName((CUresult)950, &name));
    CHECK(name == NULL);
    CHECK(fakecuda_set("no such setting", 1) == -1 && fakecuda_set("devices", 9) == -1);
}

void devices_describe_themselves(void)
{
    char name[32];
    size_t bytes;
    CUuuid first, second;
    int value;
    fakecuda_reset();
    OK(fakecuda_set("devices", 2));
    OK(fakecuda_set("memory", 12345));
    OK(fakecuda_set("pools", 0));
    OK(cuInit(0));
    OK(cuDeviceGetName(name, sizeof name, 1));
    CHECK(strcmp(name, "Fake GPU 1") == 0);
    OK(cuDeviceTotalMem_v2(&bytes, 1));
    CHECK(bytes == 12345);
    OK(cuDeviceGetUuid_v2(&first, 0));
    OK(cuDeviceGetUuid_v2(&second, 1));
    CHECK(memcmp(&first, &second, sizeof first) != 0);
    OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED, 1));
    CHECK(value == 0);
    OK(cuDeviceGetAttribute(&value, CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT, 1));
    CHECK(value == 3);
}


void calls_need_a_current_context(void)
{
    CUdeviceptr address;
    CUcontext context, current;
    fakecuda_reset();
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 0));
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuMemAlloc_v2(&address, 10));
    CHECK(stats().calls_without_context == 1);
    OK(cuCtxGetCurrent(&current));
    CHECK(current == NULL);
    OK(cuCtxPushCurrent_v2(context));
    OK(cuMemAlloc_v2(&address, 10));
    OK(cuCtxPopCurrent_v2(&current));
    CHECK(current == context);
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuMemFree_v2(address));
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuCtxPopCurrent_v2(&current));
}

static void *current_of_other_thread(void *unused)
{
    CUcontext current;
    (void)unused;
    OK(cuCtxGetCurrent(&current));
    return current;
}

void context_stack_is_per_thread(void)
{
    CUcontext first, second, current;
    pthread_t thread;
    void *result;
    fakecuda_reset();
    OK(fakecuda_set("devices", 2));
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&first, 0));
    OK(cuDevicePrimaryCtxRetain(&second, 1));
    CHECK(first != second);
    OK(cuCtxSetCurrent(first)); /* on an empty stack: pushes */
    OK(cuCtxPushCurrent_v2(second));
    CHECK(fakecuda_thread_context_depth() == 2);
    OK(cuCtxGetCurrent(&current));
    CHECK(current == second);
    OK(cuCtxSetCurrent(first)); /* replaces the top */
    CHECK(fakecuda_thread_context_depth() == 2);
    OK(cuCtxSetCurrent(NULL)); /* removes the top */
    CHECK(fakecuda_thread_context_depth() == 1);
    CHECK(pthread_create(&thread, NULL, current_of_other_thread, NULL) == 0);
    CHECK(pthread_join(thread, &result) == 0);
    CHECK(result == NULL);
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuCtxPushCurrent_v2((CUcontext)&first));
}

void last_release_resets_the_primary_context(void)
{
    CUcontext context = begin(), again;
    unsigned flags;
    int active;
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    CHECK(again == context && stats().retains[0] == 2);
    CUdeviceptr address = new_memory(100);
    new_pinned(100);
    CUstream stream = new_stream();
    CUevent event = new_event();
    OK(cuDevicePrimaryCtxRelease_v2(0));
    OK(cuStreamSynchronize(stream));
    OK(cuDevicePrimaryCtxRelease_v2(0));
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuStreamSynchronize(stream));
    CHECK(fakecuda_peek(address, &flags, 1) == -1);
    struct fakecuda_stats now = stats();
    CHECK(now.live_device_allocations == 0 && now.live_pinned_allocations == 0 && now.live_streams == 0);
    CHECK(now.lost_device_allocations == 1 && now.lost_pinned_allocations == 1 && now.lost_streams == 1 &&
          now.lost_events == 1);
    OK(cuDevicePrimaryCtxGetState(0, &flags, &active));
    CHECK(!active);
    CHECK_CODE(CUDA_ERROR_INVALID_CONTEXT, cuDevicePrimaryCtxRelease_v2(0));
    OK(cuDevicePrimaryCtxRetain(&again, 0));
    CHECK(again != context);
    OK(cuCtxSetCurrent(again));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventQuery(event));
}

void created_context_is_apart_from_the_primary(void)
{
    CUcontext primary = begin(), own, current;
    OK(cuCtxCreate_v2(&own, 0, 0));
    OK(cuCtxGetCurrent(&current));
    CHECK(own != primary && current == own && stats().live_contexts == 1);
    CUstream stream = new_stream();
    CUcontext of_stream;
    OK(cuStreamGetCtx(NULL, &of_stream));
    CHECK(of_stream == own);
    OK(cuCtxPopCurrent_v2(NULL));
    OK(cuStreamGetCtx(stream, &of_stream));
    CHECK(of_stream == own);
    CHECK(stats().calls_in_foreign_context == 0);
    OK(cuStreamSynchronize(stream));
    CHECK(stats().calls_in_foreign_context == 1);
    CUevent event = new_event();
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuEventRecord(event, stream)); /* of two contexts */
    OK(cuStreamWaitEvent(stream, event, 0));                             /* allowed */
    OK(cuCtxDestroy_v2(own));
    CHECK_CODE(CUDA_ERROR_INVALID_HANDLE, cuStreamSynchronize(stream));
    CHECK(stats().live_contexts == 0 && stats().lost_streams == 1);
}
