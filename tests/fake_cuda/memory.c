/* Memory. A device address is a reservation that nobody can touch; the bytes lie in a second mapping, which is shared memory
 * so that it does not count as the process's anonymous memory. Pinned host memory ends at an inaccessible page. One sorted
 * table finds every allocation by its address. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static struct allocation **table; /* sorted by address; ranges do not overlap */
static size_t num_allocations, capacity;
static uint64_t device_used[FAKECUDA_MAX_DEVICES];
static uint64_t last_id;

enum { DEVICE_POISON = 0xD5, PINNED_POISON = 0xA5 };

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t round_up(size_t size)
{
    return (size + page_size() - 1) / page_size() * page_size();
}

/* --- the table --- */

/* The index of the first allocation that begins above `address`. */
static size_t first_above(uint64_t address)
{
    size_t low = 0, high = num_allocations;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (table[middle]->address > address)
            high = middle;
        else
            low = middle + 1;
    }
    return low;
}

struct allocation *allocation_at(uint64_t address)
{
    size_t above = first_above(address);
    struct allocation *allocation = above ? table[above - 1] : NULL;
    return allocation && address - allocation->address < allocation->size ? allocation : NULL;
}

struct allocation *allocation_of(uint64_t address, uint64_t size)
{
    struct allocation *allocation = allocation_at(address);
    return allocation && size <= allocation->size - (address - allocation->address) ? allocation : NULL;
}

bool is_device_memory(const struct allocation *allocation)
{
    return allocation->kind == DEVICE_MEMORY || allocation->kind == MANAGED_MEMORY;
}

static bool overlaps(uint64_t address, uint64_t size)
{
    size_t above = first_above(address);
    return allocation_at(address) || (above < num_allocations && table[above]->address - address < size);
}

/* Counts what appears (sign 1) or goes (sign -1). */
static void account(const struct allocation *allocation, int sign)
{
    int64_t bytes = sign * (int64_t)allocation->size;
    switch (allocation->kind) {
    case DEVICE_MEMORY:
    case MANAGED_MEMORY:
        device_used[allocation->context->device] += (uint64_t)bytes;
        counts.live_device_allocations += (uint64_t)(int64_t)sign;
        count_device_memory(bytes);
        break;
    case PINNED_MEMORY:
        counts.live_pinned_allocations += (uint64_t)(int64_t)sign;
        count_pinned_memory(bytes);
        break;
    case REGISTERED_MEMORY:
        counts.live_registrations += (uint64_t)(int64_t)sign;
        break;
    }
}

static void insert(struct allocation allocation)
{
    if (num_allocations == capacity) {
        capacity = capacity ? 2 * capacity : 256;
        table = realloc(table, capacity * sizeof *table);
        if (!table)
            abort();
    }
    struct allocation *kept = malloc(sizeof *kept);
    if (!kept)
        abort();
    *kept = allocation;
    kept->id = ++last_id;
    size_t at = first_above(kept->address);
    memmove(table + at + 1, table + at, (num_allocations - at) * sizeof *table);
    table[at] = kept;
    num_allocations++;
    account(kept, 1);
}

static void unmap(struct allocation *allocation)
{
    if (allocation->kind == DEVICE_MEMORY)
        munmap(allocation->bytes, round_up(allocation->size));
    if (allocation->reservation)
        munmap(allocation->reservation, allocation->reserved);
    free(allocation);
}

/* Takes it out of the table. Waits for nothing, but for the copies that are reading or writing what the caller had
 * registered: the caller unmaps that itself. */
static void release(struct allocation *allocation)
{
    size_t at = first_above(allocation->address) - 1;
    num_allocations--;
    memmove(table + at, table + at + 1, (num_allocations - at) * sizeof *table);
    account(allocation, -1);
    allocation->users++;
    allocation->freed = true;
    while (allocation->kind == REGISTERED_MEMORY && allocation->users > 1)
        wait_for_progress();
    allocation_unuse(allocation);
}

void allocation_use(struct allocation *allocation)
{
    allocation->users++;
}

bool allocation_unuse(struct allocation *allocation)
{
    bool freed = allocation->freed;
    if (--allocation->users == 0 && freed)
        unmap(allocation);
    return !freed;
}

void memory_forget(struct context *context)
{
    size_t i = 0;
    while (i < num_allocations) {
        struct allocation *allocation = table[i];
        if (allocation->context != context) {
            i++;
            continue;
        }
        counts.lost_device_allocations += is_device_memory(allocation);
        counts.lost_pinned_allocations += allocation->kind == PINNED_MEMORY;
        counts.lost_registrations += allocation->kind == REGISTERED_MEMORY;
        release(allocation);
    }
    if (num_allocations == 0) {
        free(table);
        table = NULL;
        capacity = 0;
    }
}

/* --- mappings --- */

static void *map(size_t size, int protection, int flags)
{
    void *mapping = mmap(NULL, size, protection, flags | MAP_ANONYMOUS, -1, 0);
    return mapping == MAP_FAILED ? NULL : mapping;
}

/* Host memory of `size` bytes with an inaccessible page behind it. */
static unsigned char *map_guarded(size_t size, size_t *reserved)
{
    *reserved = round_up(size) + page_size();
    unsigned char *mapping = map(*reserved, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
    if (mapping && mprotect(mapping, round_up(size), PROT_READ | PROT_WRITE) != 0) {
        munmap(mapping, *reserved);
        return NULL;
    }
    return mapping;
}

/* --- device memory --- */

static bool fits(struct context *context, size_t size)
{
    uint64_t used = device_used[context->device];
    return size <= (uint64_t)settings.memory && used <= (uint64_t)settings.memory - size;
}

static CUresult allocate_device(struct context *context, size_t size, CUdeviceptr *address)
{
    if (!address || size == 0)
        return CUDA_ERROR_INVALID_VALUE;
    if (!fits(context, size))
        return CUDA_ERROR_OUT_OF_MEMORY;
    struct allocation allocation = { .size = size, .kind = DEVICE_MEMORY, .context = context };
    /* 512-byte aligned, as in CUDA, and seldom more: nothing may rely on whole pages. */
    size_t shift = last_id % 8 * 512;
    allocation.reserved = round_up(size + shift) + page_size();
    allocation.reservation = map(allocation.reserved, PROT_NONE, MAP_PRIVATE | MAP_NORESERVE);
    allocation.bytes = map(round_up(size), PROT_READ | PROT_WRITE, MAP_SHARED);
    if (!allocation.reservation || !allocation.bytes) {
        if (allocation.reservation)
            munmap(allocation.reservation, allocation.reserved);
        if (allocation.bytes)
            munmap(allocation.bytes, round_up(size));
        return CUDA_ERROR_OUT_OF_MEMORY;
    }
    memset(allocation.bytes, DEVICE_POISON, size);
    allocation.address = (uintptr_t)allocation.reservation + shift;
    insert(allocation);
    *address = allocation.address;
    return CUDA_SUCCESS;
}

CUresult cuMemAlloc_v2(CUdeviceptr *address, size_t size)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    if (!call.code)
        call.code = allocate_device(call.context, size, address);
    return call_end(&call);
}

CUresult cuMemAllocManaged(CUdeviceptr *address, size_t size, unsigned int flags)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    if (!call.code && (!address || size == 0 || (flags != 1 && flags != 2)))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !fits(call.context, size))
        call.code = CUDA_ERROR_OUT_OF_MEMORY;
    if (!call.code) {
        struct allocation allocation = { .size = size, .kind = MANAGED_MEMORY, .context = call.context };
        allocation.bytes = allocation.reservation = map_guarded(size, &allocation.reserved);
        allocation.address = (uintptr_t)allocation.bytes;
        if (allocation.bytes) {
            memset(allocation.bytes, DEVICE_POISON, size);
            insert(allocation);
            *address = allocation.address;
        } else {
            call.code = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    return call_end(&call);
}

CUresult cuMemFree_v2(CUdeviceptr address)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | GIVES_BACK);
    if (!call.code && address != 0) {
        struct allocation *allocation = allocation_at(address);
        if (!allocation || allocation->address != address || !is_device_memory(allocation)) {
            call.code = CUDA_ERROR_INVALID_VALUE;
        } else {
            call_uses(&call, allocation->context);
            if (settings.free_waits)
                streams_wait(allocation->context);
            release(allocation);
        }
    }
    return call_end(&call);
}

/* The address can be used at once; CUDA promises it only to work that comes later on the stream. */
CUresult cuMemAllocAsync(CUdeviceptr *address, size_t size, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    if (!call.code && !settings.pools)
        call.code = CUDA_ERROR_NOT_SUPPORTED;
    if (!call.code)
        call.code = allocate_device(stream->context, size, address);
    return call_end(&call);
}

struct free_operation {
    struct operation operation;
    uint64_t address;
};

static CUresult run_nothing(struct operation *operation, struct stream *stream)
{
    (void)operation;
    (void)stream;
    return CUDA_SUCCESS;
}

static void finish_free(struct operation *operation)
{
    struct allocation *allocation = allocation_at(((struct free_operation *)operation)->address);
    if (allocation)
        release(allocation);
    free(operation);
}

CUresult cuMemFreeAsync(CUdeviceptr address, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | GIVES_BACK);
    struct stream *stream = stream_of(&call, stream_handle);
    struct allocation *allocation = allocation_at(address);
    if (!call.code && !settings.pools)
        call.code = CUDA_ERROR_NOT_SUPPORTED;
    if (!call.code && (!allocation || allocation->address != address || allocation->kind != DEVICE_MEMORY))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code) {
        struct free_operation *operation = calloc(1, sizeof *operation);
        if (!operation)
            abort();
        operation->operation.run = run_nothing;
        operation->operation.finish = finish_free;
        operation->address = address;
        call.code = stream_enqueue(stream, &operation->operation);
    }
    return call_end(&call);
}

CUresult cuMemGetInfo_v2(size_t *available, size_t *total)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    if (!call.code && (!available || !total))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code) {
        uint64_t used = device_used[call.context->device];
        *total = (size_t)settings.memory;
        *available = used < *total ? *total - used : 0;
    }
    return call_end(&call);
}

/* --- host memory --- */

CUresult cuMemHostAlloc(void **pointer, size_t size, unsigned int flags)
{
    const unsigned known = CU_MEMHOSTALLOC_PORTABLE | CU_MEMHOSTALLOC_DEVICEMAP | CU_MEMHOSTALLOC_WRITECOMBINED;
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    if (!call.code && (!pointer || size == 0 || (flags & ~known)))
        call.code = CUDA_ERROR_INVALID_VALUE;
    uint64_t limit = settings.pinned_limit ? (uint64_t)settings.pinned_limit : UINT64_MAX;
    if (!call.code && (size > limit || counts.live_pinned_bytes > limit - size))
        call.code = CUDA_ERROR_OUT_OF_MEMORY;
    if (!call.code) {
        struct allocation allocation = { .size = size, .kind = PINNED_MEMORY, .context = call.context };
        allocation.bytes = allocation.reservation = map_guarded(size, &allocation.reserved);
        allocation.address = (uintptr_t)allocation.bytes;
        if (allocation.bytes) {
            memset(allocation.bytes, PINNED_POISON, size);
            counts.write_combined += (flags & CU_MEMHOSTALLOC_WRITECOMBINED) != 0;
            insert(allocation);
            *pointer = allocation.bytes;
        } else {
            call.code = CUDA_ERROR_OUT_OF_MEMORY;
        }
    }
    return call_end(&call);
}

static CUresult release_host(struct call *call, const void *pointer, enum memory_kind kind, CUresult otherwise)
{
    struct allocation *allocation = allocation_at((uintptr_t)pointer);
    if (!allocation || allocation->address != (uintptr_t)pointer || allocation->kind != kind)
        return otherwise;
    call_uses(call, allocation->context);
    if (settings.free_waits)
        streams_wait(allocation->context);
    release(allocation);
    return CUDA_SUCCESS;
}

CUresult cuMemFreeHost(void *pointer)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | GIVES_BACK);
    if (!call.code)
        call.code = release_host(&call, pointer, PINNED_MEMORY, CUDA_ERROR_INVALID_VALUE);
    return call_end(&call);
}

static bool is_mapped(const void *pointer, size_t size)
{
    uintptr_t begin = (uintptr_t)pointer / page_size() * page_size();
    for (uintptr_t page = begin; page < (uintptr_t)pointer + size; page += page_size()) {
        unsigned char resident;
        if (mincore((void *)page, 1, &resident) != 0)
            return false;
    }
    return true;
}

CUresult cuMemHostRegister_v2(void *pointer, size_t size, unsigned int flags)
{
    const unsigned known = CU_MEMHOSTREGISTER_PORTABLE | CU_MEMHOSTREGISTER_DEVICEMAP | CU_MEMHOSTREGISTER_IOMEMORY |
                           CU_MEMHOSTREGISTER_READ_ONLY;
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    if (!call.code && (!pointer || size == 0 || (flags & ~known)))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && (flags & CU_MEMHOSTREGISTER_READ_ONLY) && !settings.read_only)
        call.code = CUDA_ERROR_NOT_SUPPORTED;
    if (!call.code && overlaps((uintptr_t)pointer, size))
        call.code = CUDA_ERROR_HOST_MEMORY_ALREADY_REGISTERED;
    if (!call.code && !is_mapped(pointer, size))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        insert((struct allocation){ .address = (uintptr_t)pointer,
                                    .size = size,
                                    .bytes = pointer,
                                    .kind = REGISTERED_MEMORY,
                                    .context = call.context });
    return call_end(&call);
}

CUresult cuMemHostUnregister(void *pointer)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | GIVES_BACK);
    if (!call.code)
        call.code = release_host(&call, pointer, REGISTERED_MEMORY, CUDA_ERROR_HOST_MEMORY_NOT_REGISTERED);
    return call_end(&call);
}
