/* The driver itself, its devices, and the names of its errors. */
#include "fake.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

CUresult cuInit(unsigned int flags)
{
    struct call call = call_begin(__func__, BEFORE_INIT);
    if (!call.code && flags != 0)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        call.code = settings.devices == 0 && settings.init_code == 0 ? CUDA_ERROR_NO_DEVICE : (CUresult)settings.init_code;
    if (!call.code)
        initialised = true;
    return call_end(&call);
}

CUresult cuDriverGetVersion(int *version)
{
    struct call call = call_begin(__func__, BEFORE_INIT);
    if (!call.code && !version)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        *version = (int)settings.driver_version;
    return call_end(&call);
}

CUresult cuDeviceGetCount(int *count)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !count)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        *count = (int)settings.devices;
    return call_end(&call);
}

CUresult cuDeviceGet(CUdevice *device, int ordinal)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !device)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(ordinal))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code)
        *device = ordinal;
    return call_end(&call);
}

CUresult cuDeviceGetName(char *name, int len, CUdevice device)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && (!name || len <= 0))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code)
        snprintf(name, (size_t)len, "Fake GPU %d", device);
    return call_end(&call);
}

CUresult cuDeviceGetUuid_v2(CUuuid *uuid, CUdevice device)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !uuid)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code) {
        memcpy(uuid->bytes, "fake-cuda-gpu-0", 16);
        uuid->bytes[14] = (char)('0' + device);
    }
    return call_end(&call);
}

CUresult cuDeviceTotalMem_v2(size_t *bytes, CUdevice device)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !bytes)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code)
        *bytes = (size_t)settings.memory;
    return call_end(&call);
}

static int attribute_of(CUdevice_attribute attribute, CUdevice device)
{
    switch (attribute) {
    case CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR: return 9;
    case CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT: return 132;
    case CU_DEVICE_ATTRIBUTE_CAN_MAP_HOST_MEMORY: return 1;
    case CU_DEVICE_ATTRIBUTE_PCI_BUS_ID: return 1 + device;
    case CU_DEVICE_ATTRIBUTE_ASYNC_ENGINE_COUNT: return 3;
    case CU_DEVICE_ATTRIBUTE_UNIFIED_ADDRESSING: return 1;
    case CU_DEVICE_ATTRIBUTE_MANAGED_MEMORY: return 1;
    case CU_DEVICE_ATTRIBUTE_HOST_REGISTER_SUPPORTED: return 1;
    case CU_DEVICE_ATTRIBUTE_READ_ONLY_HOST_REGISTER_SUPPORTED: return settings.read_only != 0;
    case CU_DEVICE_ATTRIBUTE_MEMORY_POOLS_SUPPORTED: return settings.pools != 0;
    default: return 0; /* what a driver says of an attribute that it knows and the device lacks */
    }
}

CUresult cuDeviceGetAttribute(int *value, CUdevice_attribute attribute, CUdevice device)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && (!value || (int)attribute <= 0))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code)
        *value = attribute_of(attribute, device);
    return call_end(&call);
}

#define NAMED(name) { name, #name }
static const struct {
    CUresult code;
    const char *name;
} names[] = {
    NAMED(CUDA_SUCCESS),
    NAMED(CUDA_ERROR_INVALID_VALUE),
    NAMED(CUDA_ERROR_OUT_OF_MEMORY),
    NAMED(CUDA_ERROR_NOT_INITIALIZED),
    NAMED(CUDA_ERROR_DEINITIALIZED),
    NAMED(CUDA_ERROR_STUB_LIBRARY),
    NAMED(CUDA_ERROR_NO_DEVICE),
    NAMED(CUDA_ERROR_INVALID_DEVICE),
    NAMED(CUDA_ERROR_INVALID_CONTEXT),
    NAMED(CUDA_ERROR_ECC_UNCORRECTABLE),
    NAMED(CUDA_ERROR_OPERATING_SYSTEM),
    NAMED(CUDA_ERROR_INVALID_HANDLE),
    NAMED(CUDA_ERROR_ILLEGAL_STATE),
    NAMED(CUDA_ERROR_NOT_FOUND),
    NAMED(CUDA_ERROR_NOT_READY),
    NAMED(CUDA_ERROR_ILLEGAL_ADDRESS),
    NAMED(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED),
    NAMED(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED),
    NAMED(CUDA_ERROR_LAUNCH_FAILED),
    NAMED(CUDA_ERROR_NOT_PERMITTED),
    NAMED(CUDA_ERROR_NOT_SUPPORTED),
    NAMED(CUDA_ERROR_SYSTEM_NOT_READY),
    NAMED(CUDA_ERROR_SYSTEM_DRIVER_MISMATCH),
    NAMED(CUDA_ERROR_COMPAT_NOT_SUPPORTED_ON_DEVICE),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_UNMATCHED),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_ISOLATION),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT),
    NAMED(CUDA_ERROR_CAPTURED_EVENT),
    NAMED(CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD),
    NAMED(CUDA_ERROR_UNKNOWN),
};

/* The driver has a name and a sentence for each code; the fake gives the name for both. An unknown code gives NULL. */
static CUresult name_of(CUresult error, const char **text)
{
    if (!text)
        return CUDA_ERROR_INVALID_VALUE;
    *text = NULL;
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].code == error)
            *text = names[i].name;
    return *text ? CUDA_SUCCESS : CUDA_ERROR_INVALID_VALUE;
}

CUresult cuGetErrorName(CUresult error, const char **name)
{
    struct call call = call_begin(__func__, BEFORE_INIT);
    if (!call.code)
        call.code = name_of(error, name);
    return call_end(&call);
}

CUresult cuGetErrorString(CUresult error, const char **text)
{
    struct call call = call_begin(__func__, BEFORE_INIT);
    if (!call.code)
        call.code = name_of(error, text);
    return call_end(&call);
}
