/* Streams: each is a queue of operations and a thread that runs them in order. The thread begins with the first operation
 * and ends when the stream is destroyed and its queue empty. The default streams, the legacy one and that of each thread, are
 * streams like the others: they have no order with them by themselves. They end with their context. */
#include "fake.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <time.h>

static uint64_t num_streams; /* ever made: seeds their random numbers */

static struct stream *stream_new(struct context *context, bool non_blocking)
{
    struct stream *stream = calloc(1, sizeof *stream);
    if (!stream)
        abort();
    stream->context = context;
    stream->non_blocking = non_blocking;
    stream->random = (uint64_t)settings.seed * UINT64_C(0x9E3779B97F4A7C15) + ++num_streams;
    pthread_cond_init(&stream->work, NULL);
    stream->handle = handle_new(STREAM, stream);
    stream->next = context->streams;
    context->streams = stream;
    return stream;
}

/* splitmix64 */
uint64_t stream_random(struct stream *stream)
{
    uint64_t value = stream->random += UINT64_C(0x9E3779B97F4A7C15);
    value = (value ^ value >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    value = (value ^ value >> 27) * UINT64_C(0x94D049BB133111EB);
    return value ^ value >> 31;
}

static bool is_special(CUstream handle)
{
    return handle == NULL || handle == CU_STREAM_LEGACY || handle == CU_STREAM_PER_THREAD;
}

/* A default stream of the context: the legacy one, or the calling thread's. */
static struct stream *special(struct context *context, CUstream handle)
{
    if (handle != CU_STREAM_PER_THREAD) {
        if (!context->legacy)
            context->legacy = stream_new(context, false);
        return context->legacy;
    }
    uint64_t thread = this_thread()->number;
    struct stream *stream = context->streams;
    while (stream && stream->thread != thread)
        stream = stream->next;
    if (!stream) {
        stream = stream_new(context, true);
        stream->thread = thread;
    }
    return stream;
}

/* Whether a stream was made by cuStreamCreate. */
static bool is_created(const struct stream *stream)
{
    return stream != stream->context->legacy && !stream->thread;
}

struct stream *stream_of(struct call *call, CUstream handle)
{
    if (call->code)
        return NULL;
    struct stream *stream = is_special(handle) ? special(call->context, handle) : handle_get(STREAM, handle);
    if (stream && stream == stream->context->legacy)
        call->code = capture_forbids_legacy(call->context, true);
    if (!stream) {
        call->code = CUDA_ERROR_INVALID_HANDLE;
        return NULL;
    }
    call_uses(call, stream->context);
    if (!call->code)
        call->code = stream->context->error;
    return stream;
}

/* --- the thread --- */

/* With the lock held: waits while the stream is held. */
static void wait_while_held(struct stream *stream)
{
    while ((all_held || stream->held) && !stream->abandoned)
        wait_for_progress();
}

void stream_pause(struct stream *stream)
{
    fake_lock();
    wait_while_held(stream);
    uint64_t random = stream_random(stream);
    uint64_t delay = settings.delay_us ? random % ((uint64_t)settings.delay_us + 1) : 0;
    fake_unlock();
    struct timespec time = { (time_t)(delay / 1000000), (long)(delay % 1000000 * 1000) };
    if (delay)
        while (nanosleep(&time, &time) != 0 && errno == EINTR) {
        }
    else if (random % 4 == 0)
        sched_yield();
}

static void run_first(struct stream *stream)
{
    struct operation *operation = stream->first;
    wait_while_held(stream);
    if (!stream->context->error && !stream->abandoned) {
        fake_unlock();
        CUresult code = operation->run(operation, stream);
        fake_lock();
        if (code)
            context_fail(stream->context, code);
    }
    stream->first = operation->next;
    if (!stream->first)
        stream->last = NULL;
    stream->finished++;
    operation->finish(operation);
    progress();
}

static void *run(void *argument)
{
    struct stream *stream = argument;
    struct context *context = stream->context;
    fake_lock();
    while (stream->first || !stream->closing) {
        if (stream->first)
            run_first(stream);
        else
            fake_wait(&stream->work);
    }
    context->workers--;
    progress();
    fake_unlock();
    return NULL;
}

/* A thread that no signal of the process goes to, and that nobody joins. */
static CUresult start(struct stream *stream)
{
    pthread_attr_t attributes;
    pthread_t thread;
    sigset_t all, before;
    pthread_attr_init(&attributes);
    pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int error = pthread_create(&thread, &attributes, run, stream);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    pthread_attr_destroy(&attributes);
    if (error)
        return CUDA_ERROR_OPERATING_SYSTEM;
    stream->started = true;
    stream->context->workers++;
    return CUDA_SUCCESS;
}

CUresult stream_enqueue(struct stream *stream, struct operation *operation)
{
    if (stream->capture) {
        operation->finish(operation);
        return CUDA_SUCCESS;
    }
    if (!stream->started) {
        CUresult code = start(stream);
        if (code) {
            operation->finish(operation);
            return code;
        }
    }
    operation->next = NULL;
    if (stream->last)
        stream->last->next = operation;
    else
        stream->first = operation;
    stream->last = operation;
    stream->enqueued++;
    pthread_cond_signal(&stream->work);
    return CUDA_SUCCESS;
}

CUresult stream_wait(struct stream *stream)
{
    uint64_t target = stream->enqueued;
    while (stream->finished < target)
        wait_for_progress();
    return stream->context->error;
}

CUresult streams_wait(struct context *context)
{
    for (struct stream *stream = context->streams; stream; stream = stream->next)
        stream_wait(stream);
    return context->error;
}

static void close_stream(struct stream *stream)
{
    handle_retire(stream->handle);
    stream->closing = true;
    pthread_cond_signal(&stream->work);
}

void streams_stop(struct context *context)
{
    for (struct stream *stream = context->streams; stream; stream = stream->next) {
        if (!stream->closing && is_created(stream)) {
            counts.lost_streams++;
            counts.live_streams--;
        }
        stream->abandoned = true;
        close_stream(stream);
    }
    progress();
    while (context->workers)
        wait_for_progress();
}

void streams_free(struct context *context)
{
    while (context->streams) {
        struct stream *stream = context->streams;
        context->streams = stream->next;
        pthread_cond_destroy(&stream->work);
        free(stream);
    }
}

/* --- the driver's functions --- */

static CUresult create(struct call *call, CUstream *stream, unsigned flags)
{
    if (!stream || (flags & ~(unsigned)CU_STREAM_NON_BLOCKING))
        return CUDA_ERROR_INVALID_VALUE;
    *stream = stream_new(call->context, flags & CU_STREAM_NON_BLOCKING)->handle;
    counts.live_streams++;
    return CUDA_SUCCESS;
}

CUresult cuStreamCreate(CUstream *stream, unsigned int flags)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    if (!call.code)
        call.code = create(&call, stream, flags);
    return call_end(&call);
}

CUresult cuStreamCreateWithPriority(CUstream *stream, unsigned int flags, int priority)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    (void)priority; /* out of range is clamped */
    if (!call.code)
        call.code = create(&call, stream, flags);
    return call_end(&call);
}

/* Returns at once; what is on the stream still runs. */
CUresult cuStreamDestroy_v2(CUstream handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | GIVES_BACK);
    struct stream *stream = handle_get(STREAM, handle);
    if (!call.code && (!stream || !is_created(stream)))
        call.code = CUDA_ERROR_INVALID_HANDLE;
    if (!call.code) {
        call_uses(&call, stream->context);
        if (stream->capture)
            capture_invalidate(stream->capture);
        close_stream(stream);
        counts.live_streams--;
    }
    return call_end(&call);
}

/* An error for a stream that captures, which cannot be waited for or asked; the capture breaks. */
static CUresult forbid_capturing(struct stream *stream)
{
    if (!stream->capture)
        return CUDA_SUCCESS;
    capture_invalidate(stream->capture);
    return CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED;
}

CUresult cuStreamSynchronize(CUstream handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE | WAITS);
    struct stream *stream = stream_of(&call, handle);
    if (!call.code)
        call.code = forbid_capturing(stream);
    if (!call.code)
        call.code = stream_wait(stream);
    return call_end(&call);
}

CUresult cuStreamQuery(CUstream handle)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT | UNSAFE);
    struct stream *stream = stream_of(&call, handle);
    if (!call.code)
        call.code = forbid_capturing(stream);
    if (!call.code && stream->finished < stream->enqueued)
        call.code = CUDA_ERROR_NOT_READY;
    return call_end(&call);
}

CUresult cuStreamGetCtx(CUstream handle, CUcontext *context)
{
    bool of_context = is_special(handle);
    struct call call = call_begin(__func__, of_context ? NEEDS_CONTEXT : 0);
    const struct stream *stream = of_context ? NULL : handle_get(STREAM, handle);
    if (!call.code && !context)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code && !of_context && !stream)
        call.code = CUDA_ERROR_INVALID_HANDLE;
    if (!call.code)
        *context = of_context ? call.context->handle : stream->context->handle;
    return call_end(&call);
}

struct host_operation {
    struct operation operation;
    CUhostFn function;
    void *argument;
};

static CUresult run_host_function(struct operation *operation, struct stream *stream)
{
    struct host_operation *host = (struct host_operation *)operation;
    stream_pause(stream);
    fake_lock();
    this_thread()->in_host_function = true;
    fake_unlock();
    host->function(host->argument);
    fake_lock();
    this_thread()->in_host_function = false;
    fake_unlock();
    return CUDA_SUCCESS;
}

static void finish_host_function(struct operation *operation)
{
    free(operation);
}

/* As in CUDA, the function is not called at all once the context has an error, and must not call the driver. */
CUresult cuLaunchHostFunc(CUstream handle, CUhostFn function, void *argument)
{
    struct call call = call_begin(__func__, NEEDS_CONTEXT);
    struct stream *stream = stream_of(&call, handle);
    if (!call.code && !function)
        call.code = CUDA_ERROR_INVALID_VALUE;
    if (!call.code) {
        struct host_operation *host = calloc(1, sizeof *host);
        if (!host)
            abort();
        host->operation.run = run_host_function;
        host->operation.finish = finish_host_function;
        host->function = function;
        host->argument = argument;
        counts.host_functions++;
        call.code = stream_enqueue(stream, &host->operation);
    }
    return call_end(&call);
}

/* --- controls --- */

/* A stream as the controls name it: NULL, 1 and 2 are streams of the current context, 2 the calling thread's. */
static struct stream *controlled(void *handle)
{
    struct context *context = current_context();
    if (!is_special(handle))
        return handle_get(STREAM, handle);
    return context ? special(context, handle) : NULL;
}

int fakecuda_hold_stream(void *handle, int hold)
{
    fake_lock();
    struct stream *stream = controlled(handle);
    if (stream)
        stream->held = hold != 0;
    progress();
    fake_unlock();
    return stream ? 0 : -1;
}

static uint64_t pending(const struct stream *stream)
{
    return stream->enqueued - stream->finished;
}

int64_t fakecuda_pending(void *handle)
{
    int64_t sum = 0;
    fake_lock();
    if (handle == (void *)-1) {
        for (const struct context *context = contexts; context; context = context->next)
            for (const struct stream *stream = context->streams; stream; stream = stream->next)
                sum += (int64_t)pending(stream);
    } else {
        const struct stream *stream = controlled(handle);
        sum = stream ? (int64_t)pending(stream) : -1;
    }
    fake_unlock();
    return sum;
}

static bool all_drained(void)
{
    for (const struct context *context = contexts; context; context = context->next)
        for (const struct stream *stream = context->streams; stream; stream = stream->next)
            if (pending(stream) && !stream->held)
                return false;
    return true;
}

void fakecuda_drain(void)
{
    fake_lock();
    while (!all_held && !all_drained())
        wait_for_progress();
    fake_unlock();
}
