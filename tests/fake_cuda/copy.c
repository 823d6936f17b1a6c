/* Copies and memsets. What the driver can check at the call is checked there: that each side lies inside one allocation of
 * the right kind. The operation then looks the memory up again when it runs, and finds out if it was freed meanwhile. */
#include "fake.h"

#include <stdlib.h>
#include <string.h>

/* One side of a copy. Pageable memory has no allocation. */
struct place {
    uint64_t address;
    bool pageable;
    unsigned char *bytes;         /* while the operation runs */
    struct allocation *allocation; /* likewise */
};

struct copy {
    struct place to, from;
    size_t size;
    unsigned char *snapshot; /* of a pageable source, unless that is lazy */
};

struct copy_operation {
    struct operation operation;
    bool is_fill;
    unsigned char value; /* of a memset, which has no source */
    size_t num_copies;
    struct copy copies[];
};

/* --- at the call --- */

enum side { HOST_SIDE, DEVICE_SIDE, ANY_SIDE };

/* The place at an address, or an error if the side is not what it is said to be or the range leaves its allocation. */
static CUresult place_at(struct call *call, const struct stream *stream, uint64_t address, size_t size, enum side side,
                         struct place *place)
{
    struct allocation *allocation = allocation_at(address);
    bool on_device = allocation && is_device_memory(allocation);
    *place = (struct place){ .address = address, .pageable = !allocation };
    if (address == 0 || (side == DEVICE_SIDE && !on_device))
        return CUDA_ERROR_INVALID_VALUE;
    if (side == HOST_SIDE && allocation && allocation->kind == DEVICE_MEMORY)
        return CUDA_ERROR_INVALID_VALUE;
    if (allocation && !allocation_of(address, size))
        return CUDA_ERROR_INVALID_VALUE;
    if (on_device && allocation->context->device != stream->context->device)
        counts.cross_device_copies++;
    (void)call;
    return CUDA_SUCCESS;
}

static bool is_on_device(const struct place *place)
{
    struct allocation *allocation = place->pageable ? NULL : allocation_at(place->address);
    return allocation && is_device_memory(allocation);
}

static void count(const struct copy *copy)
{
    bool to_device = is_on_device(&copy->to);
    bool from_device = is_on_device(&copy->from);
    uint64_t *copies = NULL, *bytes = NULL;
    if (to_device && from_device) {
        copies = &counts.d2d_copies;
        bytes = &counts.d2d_bytes;
    } else if (to_device) {
        copies = &counts.h2d_copies;
        bytes = &counts.h2d_bytes;
    } else if (from_device) {
        copies = &counts.d2h_copies;
        bytes = &counts.d2h_bytes;
    }
    if (copies) {
        ++*copies;
        *bytes += copy->size;
    }
    counts.pageable_copies += copy->to.pageable || copy->from.pageable;
}

static void take_snapshot(struct copy *copy)
{
    copy->snapshot = malloc(copy->size);
    if (!copy->snapshot)
        abort();
    memcpy(copy->snapshot, (const void *)(uintptr_t)copy->from.address, copy->size);
}

static CUresult prepare(struct call *call, const struct stream *stream, struct copy *copy, uint64_t to, enum side to_side,
                        uint64_t from, enum side from_side, size_t size)
{
    copy->size = size;
    CUresult code = place_at(call, stream, to, size, to_side, &copy->to);
    if (!code)
        code = place_at(call, stream, from, size, from_side, &copy->from);
    return code;
}

/* --- when it runs --- */

static CUresult use(struct place *place, size_t size)
{
    if (place->pageable) {
        place->bytes = (unsigned char *)(uintptr_t)place->address;
        return CUDA_SUCCESS;
    }
    place->allocation = allocation_of(place->address, size);
    if (!place->allocation)
        return CUDA_ERROR_ILLEGAL_ADDRESS;
    allocation_use(place->allocation);
    place->bytes = place->allocation->bytes + (place->address - place->allocation->address);
    return CUDA_SUCCESS;
}

static bool unuse(struct place *place)
{
    bool good = !place->allocation || allocation_unuse(place->allocation);
    place->allocation = NULL;
    return good;
}

static void move_bytes(const struct copy_operation *operation, const struct copy *copy, size_t offset, size_t len)
{
    if (operation->is_fill)
        memset(copy->to.bytes + offset, operation->value, len);
    else
        memcpy(copy->to.bytes + offset, copy->snapshot ? copy->snapshot + offset : copy->from.bytes + offset, len);
}

/* Two halves, each after a pause. A fault of the kind ASYNC ends the copy between them. */
static CUresult run_copy(const struct copy_operation *operation, struct copy *copy, struct stream *stream)
{
    stream_pause(stream);
    fake_lock();
    counts.copies_executed++;
    CUresult fault = fault_of_operation();
    CUresult code = use(&copy->to, copy->size);
    if (!code && !operation->is_fill && !copy->snapshot)
        code = use(&copy->from, copy->size);
    fake_unlock();
    size_t half = copy->size / 2;
    if (!code)
        move_bytes(operation, copy, 0, half);
    stream_pause(stream);
    if (!code && !fault)
        move_bytes(operation, copy, half, copy->size - half);
    fake_lock();
    bool to_good = unuse(&copy->to);
    bool from_good = unuse(&copy->from);
    if (code || !to_good || !from_good) {
        code = CUDA_ERROR_ILLEGAL_ADDRESS;
        counts.stale_copies++;
    }
    progress(); /* one who unregisters memory may wait for us */
    fake_unlock();
    return code ? code : fault;
}

static CUresult run_copies(struct operation *base, struct stream *stream)
{
    struct copy_operation *operation = (struct copy_operation *)base;
    for (size_t i = 0; i < operation->num_copies; i++) {
        CUresult code = run_copy(operation, &operation->copies[i], stream);
        if (code)
            return code;
    }
    return CUDA_SUCCESS;
}

static void finish_copies(struct operation *base)
{
    struct copy_operation *operation = (struct copy_operation *)base;
    for (size_t i = 0; i < operation->num_copies; i++)
        free(operation->copies[i].snapshot);
    free(operation);
}

static struct copy_operation *copies_new(size_t count)
{
    struct copy_operation *operation = calloc(1, sizeof *operation + count * sizeof operation->copies[0]);
    if (!operation)
        abort();
    operation->operation.run = run_copies;
    operation->operation.finish = finish_copies;
    operation->num_copies = count;
    return operation;
}

/* --- the driver's functions --- */

/* Waits at the end if `synchronous`, or if pageable memory is to be written. */
static CUresult copy_one(struct call *call, struct stream *stream, uint64_t to, enum side to_side, uint64_t from,
                         enum side from_side, size_t size, bool synchronous)
{
    if (size == 0)
        return synchronous ? stream_wait(stream) : CUDA_SUCCESS;
    struct copy_operation *operation = copies_new(1);
    struct copy *copy = &operation->copies[0];
    CUresult code = prepare(call, stream, copy, to, to_side, from, from_side, size);
    if (code) {
        finish_copies(&operation->operation);
        return code;
    }
    count(copy);
    if (copy->from.pageable && !settings.lazy_pageable)
        take_snapshot(copy);
    bool wait = synchronous || (copy->to.pageable && !settings.lazy_pageable);
    code = stream_enqueue(stream, &operation->operation);
    return code || !wait ? code : stream_wait(stream);
}

CUresult cuMemcpyHtoDAsync_v2(CUdeviceptr to, const void *from, size_t size, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    if (!call.code)
        call.code = copy_one(&call, stream, to, DEVICE_SIDE, (uintptr_t)from, HOST_SIDE, size, false);
    return call_end(&call);
}

CUresult cuMemcpyDtoHAsync_v2(void *to, CUdeviceptr from, size_t size, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    if (!call.code)
        call.code = copy_one(&call, stream, (uintptr_t)to, HOST_SIDE, from, DEVICE_SIDE, size, false);
    return call_end(&call);
}

CUresult cuMemcpyDtoDAsync_v2(CUdeviceptr to, CUdeviceptr from, size_t size, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    if (!call.code)
        call.code = copy_one(&call, stream, to, DEVICE_SIDE, from, DEVICE_SIDE, size, false);
    return call_end(&call);
}

CUresult cuMemcpyHtoD_v2(CUdeviceptr to, const void *from, size_t size)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    struct stream *stream = stream_of(&call, CU_STREAM_LEGACY);
    if (!call.code)
        call.code = copy_one(&call, stream, to, DEVICE_SIDE, (uintptr_t)from, HOST_SIDE, size, true);
    return call_end(&call);
}

CUresult cuMemcpyDtoH_v2(void *to, CUdeviceptr from, size_t size)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    struct stream *stream = stream_of(&call, CU_STREAM_LEGACY);
    if (!call.code)
        call.code = copy_one(&call, stream, (uintptr_t)to, HOST_SIDE, from, DEVICE_SIDE, size, true);
    return call_end(&call);
}

CUresult cuMemsetD8Async(CUdeviceptr to, unsigned char value, size_t size, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    if (!call.code && size > 0) {
        struct copy_operation *operation = copies_new(1);
        operation->is_fill = true;
        operation->value = value;
        operation->copies[0].size = size;
        call.code = place_at(&call, stream, to, size, DEVICE_SIDE, &operation->copies[0].to);
        if (call.code)
            finish_copies(&operation->operation);
        else
            call.code = stream_enqueue(stream, &operation->operation);
    }
    return call_end(&call);
}

/* --- batches --- */

/* Fisher-Yates: the copies of a batch have no order. */
static void shuffle(struct copy_operation *operation, struct stream *stream)
{
    for (size_t left = operation->num_copies; left > 1; left--) {
        size_t other = stream_random(stream) % left;
        struct copy last = operation->copies[left - 1];
        operation->copies[left - 1] = operation->copies[other];
        operation->copies[other] = last;
    }
}

struct batch {
    const CUdeviceptr *to, *from;
    const size_t *sizes;
    size_t count;
    const CUmemcpyAttributes *attributes;
    const size_t *firsts;
    size_t num_attributes;
};

static bool is_well_formed(const struct batch *batch)
{
    if (!batch->to || !batch->from || !batch->sizes || !batch->attributes || !batch->firsts)
        return false;
    if (batch->count == 0 || batch->num_attributes == 0 || batch->num_attributes > batch->count || batch->firsts[0] != 0)
        return false;
    for (size_t i = 0; i < batch->num_attributes; i++) {
        int order = (int)batch->attributes[i].srcAccessOrder;
        if (order < CU_MEMCPY_SRC_ACCESS_ORDER_STREAM || order > CU_MEMCPY_SRC_ACCESS_ORDER_ANY)
            return false;
        if (batch->firsts[i] >= batch->count || (i > 0 && batch->firsts[i] <= batch->firsts[i - 1]))
            return false;
    }
    return true;
}

/* A source that may be read out of order is read at the call, the earliest that the caller has allowed: before what is
 * already on the stream. That is done for host memory only. */
static void read_early(struct copy *copy, CUmemcpySrcAccessOrder order)
{
    if (is_on_device(&copy->from))
        return;
    if (order != CU_MEMCPY_SRC_ACCESS_ORDER_STREAM || (copy->from.pageable && !settings.lazy_pageable))
        take_snapshot(copy);
}

/* fail_index: which copy is wrong, or SIZE_MAX. */
static CUresult copy_batch(struct call *call, struct stream *stream, const struct batch *batch, size_t *fail_index)
{
    *fail_index = SIZE_MAX;
    if (!is_well_formed(batch))
        return CUDA_ERROR_INVALID_VALUE;
    struct copy_operation *operation = copies_new(batch->count);
    for (size_t i = 0; i < batch->count; i++) {
        CUresult code = CUDA_ERROR_INVALID_VALUE;
        if (batch->sizes[i] > 0)
            code = prepare(call, stream, &operation->copies[i], batch->to[i], ANY_SIDE, batch->from[i], ANY_SIDE,
                           batch->sizes[i]);
        if (code) {
            finish_copies(&operation->operation);
            *fail_index = i;
            return code;
        }
    }
    bool writes_pageable = false;
    size_t attribute = 0;
    for (size_t i = 0; i < batch->count; i++) {
        while (attribute + 1 < batch->num_attributes && batch->firsts[attribute + 1] <= i)
            attribute++;
        count(&operation->copies[i]);
        read_early(&operation->copies[i], batch->attributes[attribute].srcAccessOrder);
        writes_pageable = writes_pageable || operation->copies[i].to.pageable;
    }
    counts.batches++;
    if (settings.shuffle_batches)
        shuffle(operation, stream);
    CUresult code = stream_enqueue(stream, &operation->operation);
    return code || !writes_pageable || settings.lazy_pageable ? code : stream_wait(stream);
}

/* A batch cannot go to the legacy default stream. */
static struct stream *batch_stream(struct call *call, CUstream handle)
{
    if (!call->code && (handle == NULL || handle == CU_STREAM_LEGACY))
        call->code = CUDA_ERROR_INVALID_VALUE;
    return stream_of(call, handle);
}

CUresult cuMemcpyBatchAsync_v2(CUdeviceptr *to, CUdeviceptr *from, size_t *sizes, size_t count,
                               CUmemcpyAttributes *attributes, size_t *firsts, size_t num_attributes,
                               CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = batch_stream(&call, stream_handle);
    struct batch batch = { to, from, sizes, count, attributes, firsts, num_attributes };
    size_t fail_index;
    if (!call.code)
        call.code = copy_batch(&call, stream, &batch, &fail_index);
    return call_end(&call);
}

CUresult cuMemcpyBatchAsync(CUdeviceptr *to, CUdeviceptr *from, size_t *sizes, size_t count,
                            CUmemcpyAttributes *attributes, size_t *firsts, size_t num_attributes, size_t *fail_index,
                            CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = batch_stream(&call, stream_handle);
    struct batch batch = { to, from, sizes, count, attributes, firsts, num_attributes };
    size_t failed = SIZE_MAX;
    if (!call.code)
        call.code = copy_batch(&call, stream, &batch, &failed);
    if (call.code && fail_index)
        *fail_index = failed;
    return call_end(&call);
}
