/* Captures of graphs. Work on a stream that captures is dropped, no graph is made: what matters here is what a capture
 * forbids to other threads, and that a forbidden call breaks it. */
#include "fake.h"

#include <stdlib.h>

struct capture {
    struct capture *next;
    struct stream *stream; /* NULL: the capture of the setting "capture" */
    struct thread *thread; /* that began it; NULL: another one */
    CUstreamCaptureMode mode;
    bool invalidated;
};
static struct capture *captures;
static bool elsewhere_invalidated;

static struct capture *begin(struct stream *stream, struct thread *thread, CUstreamCaptureMode mode)
{
    struct capture *capture = calloc(1, sizeof *capture);
    if (!capture)
        abort();
    *capture = (struct capture){ captures, stream, thread, mode, false };
    captures = capture;
    if (stream)
        stream->capture = capture;
    return capture;
}

static void end(struct capture *capture)
{
    struct capture **at = &captures;
    while (*at != capture)
        at = &(*at)->next;
    *at = capture->next;
    if (capture->stream)
        capture->stream->capture = NULL;
    free(capture);
}

void captures_forget(struct context *context)
{
    struct capture *capture = captures;
    while (capture) {
        struct capture *next = capture->next;
        if (capture->stream && capture->stream->context == context)
            end(capture);
        capture = next;
    }
}

void capture_elsewhere(bool wanted)
{
    struct capture *capture = captures;
    while (capture && capture->stream)
        capture = capture->next;
    if (wanted && !capture) {
        elsewhere_invalidated = false;
        begin(NULL, NULL, CU_STREAM_CAPTURE_MODE_GLOBAL);
    }
    if (!wanted && capture)
        end(capture);
}

int fakecuda_capture_invalidated(void)
{
    fake_lock();
    int invalidated = elsewhere_invalidated;
    fake_unlock();
    return invalidated;
}

void capture_invalidate(struct capture *capture)
{
    if (!capture->invalidated)
        counts.captures_invalidated++;
    capture->invalidated = true;
    if (!capture->stream)
        elsewhere_invalidated = true;
}

CUresult capture_forbids_unsafe(void)
{
    struct thread *thread = this_thread();
    bool forbidden = false;
    if (thread->capture_mode == CU_STREAM_CAPTURE_MODE_RELAXED)
        return CUDA_SUCCESS;
    for (struct capture *capture = captures; capture; capture = capture->next) {
        bool forbids = capture->thread == thread ? capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED
                                                 : capture->mode == CU_STREAM_CAPTURE_MODE_GLOBAL &&
                                                       thread->capture_mode == CU_STREAM_CAPTURE_MODE_GLOBAL;
        if (forbids)
            capture_invalidate(capture);
        forbidden = forbidden || forbids;
    }
    counts.calls_refused_by_capture += forbidden;
    return forbidden ? CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED : CUDA_SUCCESS;
}

CUresult capture_forbids_legacy(struct context *context, bool invalidate)
{
    bool forbidden = false;
    for (struct capture *capture = captures; capture; capture = capture->next) {
        if (!capture->stream || capture->stream->non_blocking || capture->stream->context != context)
            continue;
        if (invalidate)
            capture_invalidate(capture);
        forbidden = true;
    }
    counts.calls_refused_by_capture += forbidden && invalidate;
    return forbidden ? CUDA_ERROR_STREAM_CAPTURE_IMPLICIT : CUDA_SUCCESS;
}

CUresult cuStreamBeginCapture_v2(CUstream handle, CUstreamCaptureMode mode)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, handle);
    if (!call.code && (unsigned)mode > CU_STREAM_CAPTURE_MODE_RELAXED)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && (handle == NULL || handle == CU_STREAM_LEGACY))
        call.code = CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
    if (!call.code && stream->capture)
        call.code = CUDA_ERROR_ILLEGAL_STATE;
    if (!call.code)
        begin(stream, this_thread(), mode);
    return call_end(&call);
}

CUresult cuStreamEndCapture(CUstream handle, CUgraph *graph)
{
    static char any; /* graphs are nothing but handles */
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, handle);
    if (!call.code && !graph)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !stream->capture)
        call.code = CUDA_ERROR_ILLEGAL_STATE;
    if (!call.code && stream->capture->thread != this_thread() && stream->capture->mode != CU_STREAM_CAPTURE_MODE_RELAXED)
        call.code = CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD;
    if (!call.code) {
        bool invalidated = stream->capture->invalidated;
        end(stream->capture);
        *graph = invalidated ? NULL : handle_new(GRAPH, &any);
        call.code = invalidated ? CUDA_ERROR_STREAM_CAPTURE_INVALIDATED : CUDA_SUCCESS;
    }
    return call_end(&call);
}

CUresult cuGraphDestroy(CUgraph graph)
{
    struct call call = call_begin(__func__, GIVES_BACK);
    if (!call.code && !handle_get(GRAPH, graph))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        handle_retire(graph);
    return call_end(&call);
}

/* Harmless in any capture. The legacy default stream has no answer while a blocking one captures, which goes on. */
CUresult cuStreamIsCapturing(CUstream handle, CUstreamCaptureStatus *status)
{
    bool is_legacy = handle == NULL || handle == CU_STREAM_LEGACY;
    bool of_context = is_legacy || handle == CU_STREAM_PER_THREAD;
    struct call call = call_begin(__func__, of_context ? NEEDS_CONTEXT : 0);
    if (!call.code && is_legacy)
        call.code = capture_forbids_legacy(call.context, false);
    const struct stream *stream = of_context ? stream_of(&call, handle) : handle_get(STREAM, handle);
    if (!call.code && !stream)
        call.code = CUDA_ERROR_INVALID_HANDLE;
    if (!call.code && !status)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code)
        *status = !stream->capture              ? CU_STREAM_CAPTURE_STATUS_NONE
                  : stream->capture->invalidated ? CU_STREAM_CAPTURE_STATUS_INVALIDATED
                                                 : CU_STREAM_CAPTURE_STATUS_ACTIVE;
    return call_end(&call);
}

/* A fault refuses to make the thread more relaxed, but never to set it back. */
CUresult cuThreadExchangeStreamCaptureMode(CUstreamCaptureMode *mode)
{
    struct call call = call_begin(__func__, GIVES_BACK);
    struct thread *thread = this_thread();
    if (!call.code && (!mode || (unsigned)*mode > CU_STREAM_CAPTURE_MODE_RELAXED))
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && call.late && (int)*mode > thread->capture_mode)
        call.code = call.late;
    if (!call.code) {
        int before = thread->capture_mode;
        thread->capture_mode = (int)*mode;
        *mode = (CUstreamCaptureMode)before;
    }
    return call_end(&call);
}
