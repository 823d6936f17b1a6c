/* Tests of copies: what moves when, and what is noticed. */
#include "check.h"

#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

void bytes_make_the_round_trip(void)
{
    begin();
    CUdeviceptr one = new_memory(SIZE), two = new_memory(SIZE);
    CUstream stream = new_stream();
    unsigned char *up = new_pinned(SIZE), *down = new_pinned(SIZE);
    CHECK(is_filled(up, 0xA5, SIZE) && device_is_filled(one, 0xD5, SIZE));
    CHECK(one % 256 == 0 && two % 256 == 0);
    for (size_t i = 0; i < SIZE; i++)
        up[i] = (unsigned char)(i * 7);
    OK(cuMemcpyHtoDAsync_v2(one, up, SIZE, stream));
    OK(cuMemcpyDtoDAsync_v2(two + 1, one + 1, SIZE - 1, stream));
    OK(cuMemsetD8Async(two, 9, 1, stream));
    OK(cuMemcpyDtoHAsync_v2(down, two, SIZE, stream));
    OK(cuStreamSynchronize(stream));
    CHECK(down[0] == 9 && memcmp(down + 1, up + 1, SIZE - 1) == 0);
    struct fakecuda_stats now = stats();
    CHECK(now.h2d_bytes == SIZE && now.d2d_bytes == SIZE - 1 && now.d2h_bytes == SIZE && now.d2h_copies == 1);
    CHECK(now.pageable_copies == 0 && now.copies_executed == 4);
}

void pageable_memory_is_staged_unless_lazy(void)
{
    begin();
    CUdeviceptr address = new_memory(SIZE);
    CUstream stream = new_stream();
    unsigned char *pageable = malloc(SIZE);
    CHECK(pageable);
    for (int lazy = 0; lazy < 2; lazy++) {
        OK(fakecuda_set("lazy_pageable", lazy));
        memset(pageable, 1, SIZE);
        fakecuda_hold(1);
        OK(cuMemcpyHtoDAsync_v2(address, pageable, SIZE, stream));
        fill_unseen(pageable, 2, SIZE);
        fakecuda_hold(0);
        OK(cuStreamSynchronize(stream));
        CHECK(device_is_filled(address, lazy ? 2 : 1, SIZE));
    }
    OK(fakecuda_set("lazy_pageable", 0));
    OK(cuMemcpyDtoHAsync_v2(pageable, address, SIZE, stream)); /* done on return */
    CHECK(is_filled(pageable, 2, SIZE));
    memset(pageable, 3, SIZE);
    OK(cuMemcpyHtoD_v2(address, pageable, SIZE));
    memset(pageable, 4, SIZE);
    OK(cuMemcpyDtoH_v2(pageable, address, SIZE));
    CHECK(is_filled(pageable, 3, SIZE));
    CHECK(stats().pageable_copies == 5);
    free(pageable);
}

void registered_memory_is_read_when_the_copy_runs(void)
{
    begin();
    OK(fakecuda_set("read_only", 0));
    CUdeviceptr address = new_memory(4096);
    CUstream stream = new_stream();
    unsigned char *memory = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    CHECK(memory != MAP_FAILED);
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister_v2(memory, 0, 0));
    CHECK_CODE(CUDA_ERROR_NOT_SUPPORTED, cuMemHostRegister_v2(memory, 8192, CU_MEMHOSTREGISTER_READ_ONLY));
    OK(cuMemHostRegister_v2(memory, 4096, CU_MEMHOSTREGISTER_PORTABLE));
    CHECK_CODE(CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED, cuMemHostRegister_v2(memory + 4095, 10, 0));
    fakecuda_hold(1);
    fill_unseen(memory, 1, 4096);
    OK(cuMemcpyHtoDAsync_v2(address, memory, 4096, stream));
    fill_unseen(memory, 2, 4096);
    fakecuda_hold(0);
    OK(cuStreamSynchronize(stream));
    CHECK(device_is_filled(address, 2, 4096));
    OK(cuMemHostUnregister(memory));
    CHECK_CODE(CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED, cuMemHostUnregister(memory));
    CHECK(munmap(memory, 8192) == 0);
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemHostRegister_v2(memory, 8192, 0)); /* not mapped */
    CHECK(stats().live_registrations == 0);
}

/* Many chunks through a ring of two slots, as the library uploads. Returns how many bytes are wrong on the device. */
static size_t upload_through_a_ring(int64_t seed, int64_t delay_us, bool wait_for_slots)
{
    enum { CHUNK = 4096, NUM_CHUNKS = 12, NUM_SLOTS = 2 };
    begin();
    OK(fakecuda_set("seed", seed));
    OK(fakecuda_set("delay_us", delay_us));
    CUdeviceptr address = new_memory(CHUNK * NUM_CHUNKS);
    CUstream stream = new_stream();
    unsigned char *slots[NUM_SLOTS];
    CUevent events[NUM_SLOTS];
    for (int i = 0; i < NUM_SLOTS; i++) {
        slots[i] = new_pinned(CHUNK);
        events[i] = new_event();
    }
    for (unsigned i = 0; i < NUM_CHUNKS; i++) {
        if (wait_for_slots) {
            OK(cuEventSynchronize(events[i % NUM_SLOTS]));
            memset(slots[i % NUM_SLOTS], (int)i, CHUNK);
        } else {
            fill_unseen(slots[i % NUM_SLOTS], (unsigned char)i, CHUNK);
        }
        OK(cuMemcpyHtoDAsync_v2(address + i * CHUNK, slots[i % NUM_SLOTS], CHUNK, stream));
        OK(cuEventRecord(events[i % NUM_SLOTS], stream));
    }
    OK(cuStreamSynchronize(stream));
    unsigned char *bytes = malloc(CHUNK * NUM_CHUNKS);
    CHECK(bytes);
    OK(fakecuda_peek(address, bytes, CHUNK * NUM_CHUNKS));
    size_t wrong = 0;
    for (size_t i = 0; i < CHUNK * NUM_CHUNKS; i++)
        wrong += bytes[i] != i / CHUNK;
    free(bytes);
    return wrong;
}

void slot_that_is_reused_too_early_is_seen(void)
{
    enum { SEEDS = 10 };
    int seen_with_delay = 0, seen_without = 0;
    for (int seed = 1; seed <= SEEDS; seed++) {
        CHECK(upload_through_a_ring(seed, 200, true) == 0);
        CHECK(upload_through_a_ring(seed, 0, true) == 0);
        seen_with_delay += upload_through_a_ring(seed, 200, false) > 0;
        seen_without += upload_through_a_ring(seed, 0, false) > 0;
    }
    printf("        reuse without a wait gave wrong bytes in %d of %d runs with delays, %d of %d with none\n",
           seen_with_delay, SEEDS, seen_without, SEEDS);
    CHECK(seen_with_delay == SEEDS);
}

void copy_outside_of_memory_is_refused(void)
{
    begin();
    CUdeviceptr address = new_memory(1000);
    CUstream stream = new_stream();
    unsigned char *pinned = new_pinned(1000);
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2(address + 1, pinned, 1000, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2(address, pinned + 1, 1000, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2((uintptr_t)pinned, pinned, 10, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyDtoHAsync_v2((void *)(uintptr_t)address, address, 10, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemsetD8Async(address + 999, 0, 2, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2(0, pinned, 1, stream));
    OK(cuMemcpyHtoDAsync_v2(address + 999, pinned, 1, stream));
    OK(cuMemFree_v2(address));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemFree_v2(address));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyHtoDAsync_v2(address, pinned, 1, stream));
    CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemFreeHost(pinned + 1));
}

void memory_freed_under_a_copy_is_seen(void)
{
    for (int pinned_one = 0; pinned_one < 2; pinned_one++) {
        begin();
        CUdeviceptr address = new_memory(1000);
        CUstream stream = new_stream();
        unsigned char *pinned = new_pinned(1000);
        fakecuda_hold(1);
        OK(cuMemcpyHtoDAsync_v2(address, pinned, 1000, stream));
        if (pinned_one)
            OK(cuMemFreeHost(pinned));
        else
            OK(cuMemFree_v2(address));
        fakecuda_hold(0);
        CHECK_CODE(CUDA_ERROR_ILLEGAL_ADDRESS, cuStreamSynchronize(stream));
        CHECK(stats().stale_copies == 1);
    }
    begin();
    OK(fakecuda_set("free_waits", 1));
    OK(fakecuda_set("delay_us", 1000));
    CUdeviceptr address = new_memory(1000);
    CUstream stream = new_stream();
    OK(cuMemcpyHtoDAsync_v2(address, new_pinned(1000), 1000, stream));
    OK(cuMemFree_v2(address));
    OK(cuStreamSynchronize(stream));
}

void host_cannot_touch_device_memory(void)
{
    begin();
    CUdeviceptr address = new_memory(4096);
    unsigned char *pinned = new_pinned(4096);
    for (int behind_pinned = 0; behind_pinned < 2; behind_pinned++) {
        volatile unsigned char *bad = behind_pinned ? pinned + 4096 : (unsigned char *)(uintptr_t)address;
        pid_t child = fork();
        CHECK(child >= 0);
        if (child == 0) {
            signal(SIGSEGV, SIG_DFL);
            _exit(*bad == 0);
        }
        int status;
        CHECK(waitpid(child, &status, 0) == child);
        CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGSEGV);
    }
}


enum { BATCH = 20 };

void batch_copies_all(void)
{
    for (int old_form = 0; old_form < 2; old_form++) {
        begin();
        CUdeviceptr address = new_memory(BATCH * 100);
        CUstream stream = new_stream();
        unsigned char *pinned = new_pinned(BATCH * 100);
        CUdeviceptr to[BATCH], from[BATCH];
        size_t sizes[BATCH], first = 0, failed = 7;
        CUmemcpyAttributes attributes = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
        for (size_t i = 0; i < BATCH; i++) {
            memset(pinned + i * 100, (int)i, 100);
            to[i] = address + i * 100;
            from[i] = (uintptr_t)pinned + i * 100;
            sizes[i] = 100;
        }
        if (old_form)
            OK(cuMemcpyBatchAsync(to, from, sizes, BATCH, &attributes, &first, 1, &failed, stream));
        else
            OK(cuMemcpyBatchAsync_v2(to, from, sizes, BATCH, &attributes, &first, 1, stream));
        OK(cuStreamSynchronize(stream));
        for (size_t i = 0; i < BATCH; i++)
            CHECK(device_is_filled(to[i], (unsigned char)i, 100));
        CHECK(stats().batches == 1 && stats().h2d_copies == BATCH && stats().h2d_bytes == BATCH * 100);
        /* What is wrong with it is told before anything is copied. */
        sizes[3] = 100000;
        CHECK_CODE(CUDA_ERROR_INVALID_VALUE,
                   cuMemcpyBatchAsync(to, from, sizes, BATCH, &attributes, &first, 1, &failed, stream));
        CHECK(failed == 3);
        sizes[3] = 100;
        CHECK_CODE(CUDA_ERROR_INVALID_VALUE,
                   cuMemcpyBatchAsync(to, from, sizes, BATCH, &attributes, &first, 1, &failed, NULL));
        CHECK(failed == SIZE_MAX);
        first = 1;
        CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyBatchAsync_v2(to, from, sizes, BATCH, &attributes, &first, 1, stream));
        first = 0;
        CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyBatchAsync_v2(to, from, sizes, BATCH, &attributes, &first, 0, stream));
        attributes.srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_INVALID;
        CHECK_CODE(CUDA_ERROR_INVALID_VALUE, cuMemcpyBatchAsync_v2(to, from, sizes, BATCH, &attributes, &first, 1, stream));
        CHECK(stats().h2d_copies == BATCH);
    }
}

/* Copies of one batch onto one place: which comes last is left open. */
void batch_has_no_order(void)
{
    int others = 0;
    for (int seed = 1; seed <= 5; seed++) {
        begin();
        OK(fakecuda_set("seed", seed));
        CUdeviceptr address = new_memory(1);
        CUstream stream = new_stream();
        unsigned char *pinned = new_pinned(BATCH), last;
        CUdeviceptr to[BATCH], from[BATCH];
        size_t sizes[BATCH], first = 0;
        CUmemcpyAttributes attributes = { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM };
        for (size_t i = 0; i < BATCH; i++) {
            pinned[i] = (unsigned char)i;
            to[i] = address;
            from[i] = (uintptr_t)pinned + i;
            sizes[i] = 1;
        }
        OK(cuMemcpyBatchAsync_v2(to, from, sizes, BATCH, &attributes, &first, 1, stream));
        OK(cuStreamSynchronize(stream));
        OK(fakecuda_peek(address, &last, 1));
        others += last != BATCH - 1;
    }
    CHECK(others > 0);
}

void source_order_any_is_read_early(void)
{
    begin();
    CUdeviceptr address = new_memory(2);
    CUstream stream = new_stream();
    unsigned char *pinned = new_pinned(2), bytes[2];
    CUdeviceptr to[2] = { address, address + 1 }, from[2] = { (uintptr_t)pinned, (uintptr_t)pinned + 1 };
    size_t sizes[2] = { 1, 1 }, firsts[2] = { 0, 1 };
    CUmemcpyAttributes attributes[2] = { { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_ANY },
                                         { .srcAccessOrder = CU_MEMCPY_SRC_ACCESS_ORDER_STREAM } };
    memset(pinned, 1, 2);
    fakecuda_hold(1);
    OK(cuMemcpyBatchAsync_v2(to, from, sizes, 2, attributes, firsts, 2, stream));
    fill_unseen(pinned, 2, 2);
    fakecuda_hold(0);
    OK(cuStreamSynchronize(stream));
    OK(fakecuda_peek(address, bytes, 2));
    CHECK(bytes[0] == 1 && bytes[1] == 2);
}
