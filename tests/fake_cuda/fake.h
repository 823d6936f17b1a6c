/* What the files of the fake driver share. Nothing here is exported.
 *
 *   control.c   settings, reset, statistics, the report at exit
 *   call.c      what every call of the driver begins and ends with: counts, faults, the current context, captures
 *   fault.c     the list of faults
 *   handle.c    handles: numbers that are looked up, never pointers that are followed
 *   device.c    cuInit, devices, names of errors
 *   context.c   contexts, and each thread's stack of them
 *   memory.c    allocations of all kinds, and the table that finds them by address
 *   pointer.c   questions about addresses
 *   stream.c    streams: a thread and a queue of operations each
 *   event.c     events
 *   copy.c      copies and memsets, single and in batches
 *   capture.c   captures: never a graph, only what they forbid
 *
 * One lock guards everything. An operation runs without it. A thread that waits for something waits for progress(), which
 * wakes all waiting threads: simple, and fast enough for tests.
 */
#ifndef FAKE_CUDA_INTERNAL_H
#define FAKE_CUDA_INTERNAL_H

#include "cuda_api.h"
#include "fake_cuda.h"

#include <stdbool.h>
#include <pthread.h>

/* --- control.c --- */

struct settings {
    int64_t init_code, driver_version, devices, memory, pinned_limit, pools, read_only, delay_us, seed, shuffle_batches,
        lazy_pageable, free_waits, capture, trace;
};
extern struct settings settings;
extern struct fakecuda_stats counts;
extern bool initialised; /* cuInit has succeeded */
extern bool exited;      /* the process is ending: every call returns 4 */
extern bool reporting;   /* FAKECUDA_REPORT */
extern bool all_held;
/* Grows with every reset; what a thread or a handle knows from an older one is void. Never 0. */
extern uint32_t epoch;

void fake_lock(void);
void fake_unlock(void);
/* With the lock held: let others act until something has changed; say that something has. */
void wait_for_progress(void);
void progress(void);
void fake_wait(pthread_cond_t *condition);

void count_device_memory(int64_t bytes);
void count_pinned_memory(int64_t bytes);

/* --- handle.c --- */

enum kind { CONTEXT = 1, STREAM, EVENT, GRAPH };

void *handle_new(enum kind kind, void *object);
/* NULL if the handle is not one of this kind, or was retired, or comes from before the last reset. */
void *handle_get(enum kind kind, const void *handle);
void handle_retire(const void *handle);
void handles_forget(void);

/* --- fault.c --- */

void faults_clear(void);
/* Counts a call of `symbol` and returns the code it has to fail with, or CUDA_SUCCESS. */
CUresult fault_of_call(const char *symbol);
/* The same for an operation that runs on a stream. */
CUresult fault_of_operation(void);
/* Whether a pattern names a symbol: "*", the symbol, or the symbol without its _v2. */
bool symbol_matches(const char *pattern, const char *symbol);

/* --- call.c --- */

enum needs {
    NEEDS_CONTEXT = 1,   /* 201 without a current one; its sticky error is returned */
    UNSAFE = 2,          /* not allowed while a capture in global mode goes on */
    GIVES_BACK = 4,      /* does its work even if a fault or an earlier error is reported */
    WAITS = 8,           /* waits even if a fault is reported */
    BEFORE_INIT = 16     /* allowed before cuInit */
};

struct call {
    const char *name;
    CUresult code;           /* not 0: the call is to do nothing */
    CUresult late;           /* what to return although the work was done */
    struct context *context; /* the current one, if there is one */
    bool foreign;
};

/* Takes the lock and checks everything that `needs` says. */
struct call call_begin(const char *name, unsigned needs);
/* Releases it and returns what the driver's function returns. */
CUresult call_end(struct call *call);
/* Notes that the call uses something that belongs to `context`. */
void call_uses(struct call *call, struct context *context);
void calls_forget(void);

/* What the driver knows of a thread. */
enum { MAX_DEPTH = 64 };
struct thread {
    uint64_t number; /* no other thread ever has it; never 0 */
    uint32_t epoch;
    int capture_mode;
    int depth;
    CUcontext stack[MAX_DEPTH];
    bool in_host_function;
};
struct thread *this_thread(void);

/* --- context.c --- */

struct context {
    struct context *next;
    CUcontext handle;
    int device;
    bool alive, primary;
    CUresult error; /* sticky */
    struct stream *streams;
    struct stream *legacy; /* one of the streams; NULL until it is used */
    struct event *events;
    unsigned workers; /* threads of streams that have not ended */
};

extern struct context *contexts; /* all, until the next reset */
struct context *current_context(void);
bool is_device(int device);
void context_fail(struct context *context, CUresult code);
void contexts_forget(void);

/* --- memory.c --- */

enum memory_kind { DEVICE_MEMORY, MANAGED_MEMORY, PINNED_MEMORY, REGISTERED_MEMORY };

struct allocation {
    uint64_t address, size; /* as the caller sees it */
    unsigned char *bytes;   /* where the host finds the bytes */
    enum memory_kind kind;
    struct context *context;
    uint64_t id;
    void *reservation; /* what to unmap: the addresses, and the bytes of a device */
    size_t reserved;
    unsigned users; /* operations that run on it now */
    bool freed;     /* out of the table; its last user unmaps it */
};

/* The allocation that holds `address`, or NULL. */
struct allocation *allocation_at(uint64_t address);
/* The allocation that holds all of [address, address + size), or NULL. */
struct allocation *allocation_of(uint64_t address, uint64_t size);
bool is_device_memory(const struct allocation *allocation);
/* Keeps it mapped while an operation runs on it. false from unuse: it was freed meanwhile. */
void allocation_use(struct allocation *allocation);
bool allocation_unuse(struct allocation *allocation);
/* Frees what the context owns and counts it as lost. */
void memory_forget(struct context *context);

/* --- stream.c --- */

struct operation {
    struct operation *next;
    /* Without the lock. An error sticks to the stream's context. */
    CUresult (*run)(struct operation *operation, struct stream *stream);
    /* With the lock, whether it ran or was dropped: tells those who wait, and frees the operation. */
    void (*finish)(struct operation *operation);
};

struct stream {
    struct stream *next; /* of the context */
    CUstream handle;
    struct context *context;
    struct capture *capture;
    uint64_t thread; /* whose default stream it is, the number of a thread; 0: nobody's */
    bool non_blocking, started, held, closing, abandoned;
    uint64_t enqueued, finished; /* operations, ever */
    struct operation *first, *last;
    pthread_cond_t work;
    uint64_t random;
};

/* The stream of a handle, the special ones included; else NULL, and the call fails. */
struct stream *stream_of(struct call *call, CUstream handle);
/* Takes the operation over. Does nothing with it on a stream that captures. */
CUresult stream_enqueue(struct stream *stream, struct operation *operation);
/* Waits for what has been enqueued so far; returns the context's sticky error. */
CUresult stream_wait(struct stream *stream);
CUresult streams_wait(struct context *context);
/* From an operation: waits while the stream is held, then for a random time. */
void stream_pause(struct stream *stream);
uint64_t stream_random(struct stream *stream);
/* Drops all work, waits for all threads of the context to end. */
void streams_stop(struct context *context);
void streams_free(struct context *context);

/* --- event.c --- */

/* One record of an event: what waits for it holds it, whatever becomes of the event. */
struct marker {
    unsigned references;
    bool done;
    double milliseconds;
};

struct event {
    struct event *next, *previous; /* of the context */
    CUevent handle;
    struct context *context;
    unsigned flags;
    bool captured;         /* last recorded in a capture */
    struct marker *marker; /* of the latest record; NULL before the first */
};

void events_forget(struct context *context);

/* --- capture.c --- */

/* The error for an unsafe call of this thread, or CUDA_SUCCESS. Breaks the captures that forbid the call. */
CUresult capture_forbids_unsafe(void);
/* The error for work on the legacy default stream of the context, which every blocking stream depends on. Work breaks their
 * captures, a question does not. */
CUresult capture_forbids_legacy(struct context *context, bool invalidate);
void capture_invalidate(struct capture *capture);
void captures_forget(struct context *context);
/* Begins or ends the capture of the setting "capture". */
void capture_elsewhere(bool begin);

#endif
