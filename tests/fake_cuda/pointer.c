/* What is at an address: the driver's questions, and the tests' own look at device memory. */
#include "fake.h"

#include <string.h>

/* Writes the value in the type that the attribute has. For an address that is none of CUDA's, `allocation` is NULL. */
static CUresult write_attribute(CUpointer_attribute attribute, const struct allocation *allocation, uint64_t address, void *data)
{
    bool on_device = allocation && is_device_memory(allocation);
    bool on_host = allocation && allocation->kind != DEVICE_MEMORY;
    switch (attribute) {
    case CU_POINTER_ATTRIBUTE_CONTEXT:
        *(CUcontext *)data = allocation ? allocation->context->handle : NULL;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MEMORY_TYPE:
        *(unsigned *)data = !allocation ? 0 : on_device ? CU_MEMORYTYPE_DEVICE : CU_MEMORYTYPE_HOST;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_POINTER:
        *(CUdeviceptr *)data = allocation ? address : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_HOST_POINTER:
        *(void **)data = on_host ? (void *)(uintptr_t)address : NULL;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_BUFFER_ID:
        *(unsigned long long *)data = allocation ? allocation->id : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_IS_MANAGED:
        *(unsigned *)data = allocation && allocation->kind == MANAGED_MEMORY;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL:
        *(int *)data = allocation ? allocation->context->device : CU_DEVICE_INVALID;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_START_ADDR:
        *(CUdeviceptr *)data = allocation ? allocation->address : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_RANGE_SIZE:
        *(size_t *)data = allocation ? (size_t)allocation->size : 0;
        return CUDA_SUCCESS;
    case CU_POINTER_ATTRIBUTE_MAPPED:
        *(unsigned *)data = allocation != NULL;
        return CUDA_SUCCESS;
    default:
        return CUDA_ERROR_INVALID_VALUE;
    }
}

CUresult cuPointerGetAttribute(void *data, CUpointer_attribute attribute, CUdeviceptr address)
{
    struct call call = call_begin(__func__, 0);
    const struct allocation *allocation = allocation_at(address);
    if (!call.code && (!data || !allocation))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        call.code = write_attribute(attribute, allocation, address, data);
    return call_end(&call);
}

/* Unlike the singular form this is no error for an address that is none of CUDA's: zeroes, and device -2. */
CUresult cuPointerGetAttributes(unsigned int count, CUpointer_attribute *attributes, void **data, CUdeviceptr address)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && (count == 0 || !attributes || !data))
        call.code = CUDA_ERROR_INVALID_VALUE;
    const struct allocation *allocation = allocation_at(address);
    for (unsigned i = 0; i < count && !call.code; i++)
        call.code = data[i] ? write_attribute(attributes[i], allocation, address, data[i]) : CUDA_ERROR_INVALID_VALUE;
    return call_end(&call);
}

CUresult cuMemGetAddressRange_v2(CUdeviceptr *base, size_t *size, CUdeviceptr address)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    const struct allocation *allocation = allocation_at(address);
    if (!call.code && (!allocation || !is_device_memory(allocation)))
        call.code = CUDA_ERROR_NOT_FOUND;
    if (!call.code && base)
        *base = allocation->address;
    if (!call.code && size)
        *size = (size_t)allocation->size;
    return call_end(&call);
}

static unsigned char *bytes_at(uint64_t address, size_t len)
{
    struct allocation *allocation = allocation_of(address, len);
    return allocation && is_device_memory(allocation) ? allocation->bytes + (address - allocation->address) : NULL;
}

int fakecuda_poke(uint64_t address, const void *bytes, size_t len)
{
    fake_lock();
    unsigned char *at = bytes_at(address, len);
    if (at)
        memcpy(at, bytes, len);
    fake_unlock();
    return at ? 0 : -1;
}

int fakecuda_peek(uint64_t address, void *bytes, size_t len)
{
    fake_lock();
    const unsigned char *at = bytes_at(address, len);
    if (at)
        memcpy(bytes, at, len);
    fake_unlock();
    return at ? 0 : -1;
}
