/* Tests of addresses. */
#include "check.h"

struct answer {
    unsigned type, managed;
    int device;
    CUdeviceptr start;
    size_t size;
};

static struct answer ask(uint64_t address)
{
    struct answer answer;
    memset(&answer, 0x77, sizeof answer);
    CUpointer_attribute attributes[] = { CU_POINTER_ATTRIBUTE_MEMORY_TYPE, CU_POINTER_ATTRIBUTE_IS_MANAGED,
                                         CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL, CU_POINTER_ATTRIBUTE_RANGE_START_ADDR,
                                         CU_POINTER_ATTRIBUTE_RANGE_SIZE };
    void *data[] = { &answer.type, &answer.managed, &answer.device, &answer.start, &answer.size };
    OK(cuPointerGetAttributes(5, attributes, data, address));
    return answer;
}

void addresses_are_told_apart(void)
{
    CUcontext context;
    int on_stack;
    unsigned type;
    fakecuda_reset();
    OK(fakecuda_set("devices", 2));
    OK(cuInit(0));
    OK(cuDevicePrimaryCtxRetain(&context, 1));
    OK(cuCtxPushCurrent_v2(context));
    CUdeviceptr device = new_memory(1000), managed;
    OK(cuMemAllocManaged(&managed, 500, 1));
    unsigned char *pinned = new_pinned(100);
    OK(cuCtxPopCurrent_v2(NULL)); /* no context is needed to ask */
    struct answer answer = ask(device + 999);
    CHECK(answer.type == CU_MEMORYTYPE_DEVICE && !answer.managed && answer.device == 1);
    CHECK(answer.start == device && answer.size == 1000);
    answer = ask(device + 1000);
    CHECK(answer.type == 0 && answer.device == CU_DEVICE_INVALID && answer.start == 0 && answer.size == 0);
    answer = ask(managed);
    CHECK(answer.type == CU_MEMORYTYPE_DEVICE && answer.managed && answer.device == 1);
    answer = ask((uintptr_t)pinned + 1);
    CHECK(answer.type == CU_MEMORYTYPE_HOST && !answer.managed && answer.start == (uintptr_t)pinned);
    answer = ask((uintptr_t)&on_stack);
    CHECK(answer.type == 0 && answer.device == CU_DEVICE_INVALID);
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE,
               cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, (uintptr_t)&on_stack));
    OK(cuPointerGetAttribute(&type, CU_POINTER_ATTRIBUTE_MEMORY_TYPE, device));
    CHECK(type == CU_MEMORYTYPE_DEVICE);
    memset((void *)(uintptr_t)managed, 1, 500); /* the host may */
}

void tests_look_into_device_memory(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    unsigned char bytes[100];
    OK(fakecuda_poke(address + 90, "0123456789", 10));
    OK(fakecuda_peek(address, bytes, 100));
    CHECK(bytes[89] == 0xD5 && memcmp(bytes + 90, "0123456789", 10) == 0);
    CHECK(fakecuda_poke(address + 91, "0123456789", 10) == -1);
    CHECK(fakecuda_peek(address - 1, bytes, 2) == -1);
    CHECK(fakecuda_peek((uintptr_t)new_pinned(10), bytes, 1) == -1);
}
