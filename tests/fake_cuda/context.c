/* Contexts: one primary per device, counted by its retains, and those that cuCtxCreate makes. Each thread has a stack of
 * current contexts. A context that is gone stays in the list, dead, until the next reset: a thread may still wait in it. */
#include "fake.h"

#include <stdlib.h>

struct context *contexts;
static struct context *primaries[FAKECUDA_MAX_DEVICES];

bool is_device(int device)
{
    return device >= 0 && device < settings.devices;
}

struct context *current_context(void)
{
    struct thread *thread = this_thread();
    return thread->depth ? handle_get(CONTEXT, thread->stack[thread->depth - 1]) : NULL;
}

void context_fail(struct context *context, CUresult code)
{
    if (!context->error)
        context->error = code;
    progress();
}

static struct context *context_new(int device, bool primary)
{
    struct context *context = calloc(1, sizeof *context);
    if (!context)
        abort();
    context->device = device;
    context->primary = primary;
    context->alive = true;
    context->handle = handle_new(CONTEXT, context);
    context->next = contexts;
    contexts = context;
    return context;
}

/* Destroys all that is in a context; what the caller left there counts as lost. */
static void context_end(struct context *context)
{
    context->alive = false;
    handle_retire(context->handle);
    captures_forget(context);
    streams_stop(context);
    events_forget(context);
    memory_forget(context);
}

void contexts_forget(void)
{
    while (contexts) {
        struct context *context = contexts;
        if (context->alive)
            context_end(context);
        contexts = context->next;
        streams_free(context);
        free(context);
    }
    for (int i = 0; i < FAKECUDA_MAX_DEVICES; i++)
        primaries[i] = NULL;
}

CUresult cuDevicePrimaryCtxRetain(CUcontext *context, CUdevice device)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !context)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code) {
        if (!primaries[device])
            primaries[device] = context_new(device, true);
        counts.retains[device]++;
        *context = primaries[device]->handle;
    }
    return call_end(&call);
}

CUresult cuDevicePrimaryCtxRelease_v2(CUdevice device)
{
    struct call call = call_begin(__func__, GIVES_BACK);
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code && counts.retains[device] == 0)
        call.code = CUDA_ERROR_INVALID_CONTEXT;
    if (!call.code && --counts.retains[device] == 0) {
        struct context *context = primaries[device];
        primaries[device] = NULL;
        context_end(context);
    }
    return call_end(&call);
}

CUresult cuDevicePrimaryCtxGetState(CUdevice device, unsigned int *flags, int *active)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && (!flags || !active))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code) {
        *flags = 0;
        *active = primaries[device] != NULL;
    }
    return call_end(&call);
}

static CUresult push(CUcontext context)
{
    struct thread *thread = this_thread();
    if (thread->depth == MAX_DEPTH)
        return CUDA_ERROR_INVALID_VALUE;
    thread->stack[thread->depth++] = context;
    return CUDA_SUCCESS;
}

CUresult cuCtxCreate_v2(CUcontext *context, unsigned int flags, CUdevice device)
{
    struct call call = call_begin(__func__, UNSAFE);
    if (!call.code && (!context || flags > 0xFF))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !is_device(device))
        call.code = CUDA_ERROR_INVALID_DEVICE;
    if (!call.code) {
        *context = context_new(device, false)->handle;
        counts.live_contexts++;
        call.code = push(*context);
    }
    return call_end(&call);
}

CUresult cuCtxDestroy_v2(CUcontext handle)
{
    struct call call = call_begin(__func__, GIVES_BACK);
    struct context *context = handle_get(CONTEXT, handle);
    if (!call.code && (!context || context->primary))
        call.code = CUDA_ERROR_INVALID_CONTEXT;
    if (!call.code) {
        struct thread *thread = this_thread();
        if (thread->depth && thread->stack[thread->depth - 1] == handle)
            thread->depth--;
        counts.live_contexts--;
        context_end(context);
    }
    return call_end(&call);
}

CUresult cuCtxGetCurrent(CUcontext *context)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !context)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code) {
        struct thread *thread = this_thread();
        *context = thread->depth ? thread->stack[thread->depth - 1] : NULL;
    }
    return call_end(&call);
}

/* Replaces the top of the stack; NULL removes it. */
CUresult cuCtxSetCurrent(CUcontext context)
{
    struct call call = call_begin(__func__, 0);
    struct thread *thread = this_thread();
    if (!call.code && context && !handle_get(CONTEXT, context))
        call.code = CUDA_ERROR_INVALID_CONTEXT;
    if (!call.code && thread->depth)
        thread->depth--;
    if (!call.code && context)
        call.code = push(context);
    return call_end(&call);
}

CUresult cuCtxPushCurrent_v2(CUcontext context)
{
    struct call call = call_begin(__func__, 0);
    if (!call.code && !handle_get(CONTEXT, context))
        call.code = CUDA_ERROR_INVALID_CONTEXT;
    if (!call.code)
        call.code = push(context);
    return call_end(&call);
}

CUresult cuCtxPopCurrent_v2(CUcontext *context)
{
    struct call call = call_begin(__func__, GIVES_BACK);
    struct thread *thread = this_thread();
    if (!call.code && thread->depth == 0)
        call.code = CUDA_ERROR_INVALID_CONTEXT;
    if (!call.code) {
        thread->depth--;
        if (context)
            *context = thread->stack[thread->depth];
    }
    return call_end(&call);
}

CUresult cuCtxGetDevice(CUdevice *device)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    if (!call.code && !device)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        *device = call.context->device;
    return call_end(&call);
}

CUresult cuCtxGetStreamPriorityRange(int *least, int *greatest)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    if (!call.code && least)
        *least = 0;
    if (!call.code && greatest)
        *greatest = -5;
    return call_end(&call);
}

CUresult cuCtxSynchronize(void)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | WAITS);
    if (!call.code)
        call.code = streams_wait(call.context);
    return call_end(&call);
}
