/* Events. Each record makes a marker that its stream completes; whoever waits holds the marker of the moment, so a later
 * record, or the event's end, changes nothing for him. */
#include "fake.h"

#include <stdlib.h>
#include <time.h>

static void marker_drop(struct marker *marker)
{
    if (marker && --marker->references == 0)
        free(marker);
}

static void event_free(struct event *event)
{
    handle_retire(event->handle);
    marker_drop(event->marker);
    if (event->previous)
        event->previous->next = event->next;
    else
        event->context->events = event->next;
    if (event->next)
        event->next->previous = event->previous;
    counts.live_events--;
    free(event);
}

void events_forget(struct context *context)
{
    while (context->events) {
        counts.lost_events++;
        event_free(context->events);
    }
}

CUresult cuEventCreate(CUevent *handle, unsigned int flags)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    const unsigned known = CU_EVENT_BLOCKING_SYNC | CU_EVENT_DISABLE_TIMING;
    if (!call.code && (!handle || (flags & ~known)))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code) {
        struct event *event = calloc(1, sizeof *event);
        if (!event)
            abort();
        event->context = call.context;
        event->flags = flags;
        event->next = call.context->events;
        if (event->next)
            event->next->previous = event;
        call.context->events = event;
        counts.live_events++;
        *handle = event->handle = handle_new(EVENT, event);
    }
    return call_end(&call);
}

/* The event of a handle that is not destroyed; else the call fails. */
static struct event *event_of(struct call *call, CUevent handle)
{
    struct event *event = handle_get(EVENT, handle);
    if (!call->code && !event)
        call->code = CUDA_ERROR_INVALID_HANDLE;
    return call->code ? NULL : event;
}

CUresult cuEventDestroy_v2(CUevent handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | GIVES_BACK);
    struct event *event = event_of(&call, handle);
    if (event) {
        call_uses(&call, event->context);
        event_free(event);
    }
    return call_end(&call);
}

/* --- record and wait, as operations --- */

struct marker_operation {
    struct operation operation;
    struct marker *marker;
};

static CUresult enqueue(struct stream *stream, struct marker *marker, CUresult (*run)(struct operation *, struct stream *),
                        void (*finish)(struct operation *))
{
    struct marker_operation *operation = calloc(1, sizeof *operation);
    if (!operation)
        abort();
    operation->operation.run = run;
    operation->operation.finish = finish;
    operation->marker = marker;
    marker->references++;
    return stream_enqueue(stream, &operation->operation);
}

static CUresult run_record(struct operation *operation, struct stream *stream)
{
    (void)operation;
    (void)stream;
    return CUDA_SUCCESS;
}

static void finish_record(struct operation *operation)
{
    struct marker *marker = ((struct marker_operation *)operation)->marker;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    marker->done = true;
    marker->milliseconds = (double)now.tv_sec * 1e3 + (double)now.tv_nsec / 1e6;
    marker_drop(marker);
    free(operation);
}

static CUresult run_wait(struct operation *operation, struct stream *stream)
{
    const struct marker *marker = ((struct marker_operation *)operation)->marker;
    fake_lock();
    while (!marker->done && !stream->abandoned)
        wait_for_progress();
    fake_unlock();
    return CUDA_SUCCESS;
}

static void finish_wait(struct operation *operation)
{
    marker_drop(((struct marker_operation *)operation)->marker);
    free(operation);
}

/* The event and the stream must be of one context. */
CUresult cuEventRecord(CUevent handle, CUstream stream_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    struct event *event = event_of(&call, handle);
    if (!call.code && event->context != stream->context)
        call.code = CUDA_ERROR_INVALID_HANDLE;
    if (!call.code) {
        struct marker *marker = calloc(1, sizeof *marker);
        if (!marker)
            abort();
        marker->references = 1;
        marker_drop(event->marker);
        event->marker = marker;
        event->captured = stream->capture != NULL;
        call.code = enqueue(stream, marker, run_record, finish_record);
    }
    return call_end(&call);
}

/* The event may be of any context. A wait for an event that was never recorded is no wait. */
CUresult cuStreamWaitEvent(CUstream stream_handle, CUevent handle, unsigned int flags)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, stream_handle);
    struct event *event = event_of(&call, handle);
    if (!call.code && flags != 0)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && event->marker && (event->captured || stream->capture)) {
        /* A capture that depends on work outside it breaks. That it may grow to a second stream is left out. */
        if (stream->capture && !event->captured)
            capture_invalidate(stream->capture);
        if (!stream->capture || !event->captured)
            call.code = CUDA_ERROR_STREAM_CAPTURE_ISOLATION;
    }
    if (!call.code && event->marker && !event->marker->done)
        call.code = enqueue(stream, event->marker, run_wait, finish_wait);
    return call_end(&call);
}

/* --- from the host --- */

CUresult cuEventQuery(CUevent handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    struct event *event = event_of(&call, handle);
    if (event) {
        call_uses(&call, event->context);
        call.code = event->captured ? CUDA_ERROR_CAPTURED_EVENT : event->context->error;
    }
    if (!call.code && event->marker && !event->marker->done)
        call.code = CUDA_ERROR_NOT_READY;
    return call_end(&call);
}

CUresult cuEventSynchronize(CUevent handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | WAITS);
    struct event *event = event_of(&call, handle);
    if (event) {
        call_uses(&call, event->context);
        call.code = event->captured ? CUDA_ERROR_CAPTURED_EVENT : event->context->error;
    }
    if (!call.code && event->marker) {
        const struct context *context = event->context; /* the event may be destroyed while we wait */
        struct marker *marker = event->marker;
        marker->references++;
        while (!marker->done)
            wait_for_progress();
        marker_drop(marker);
        call.code = context->error;
    }
    return call_end(&call);
}

CUresult cuEventElapsedTime_v2(float *milliseconds, CUevent start_handle, CUevent end_handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    const struct event *start = event_of(&call, start_handle);
    const struct event *end = event_of(&call, end_handle);
    if (!call.code && !milliseconds)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && (!start->marker || !end->marker || ((start->flags | end->flags) & CU_EVENT_DISABLE_TIMING)))
        call.code = CUDA_ERROR_INVALID_HANDLE;
    if (!call.code && (!start->marker->done || !end->marker->done))
        call.code = CUDA_ERROR_NOT_READY;
    if (!call.code)
        *milliseconds = (float)(end->marker->milliseconds - start->marker->milliseconds);
    return call_end(&call);
}
