/* The controls of the fake CUDA driver: a libcuda.so without a GPU, for tests.
 *
 * The fake is stricter than CUDA where CUDA leaves a freedom, so that code which passes on it relies on nothing that the
 * driver does not promise:
 *
 * - A stream is a thread. A copy runs in two halves with a pause before each, so memory that is reused too early is seen.
 *   No stream waits for another by itself: the default stream has no implicit order with the others.
 * - A device address is inaccessible to the host. Fresh memory is poisoned: 0xD5 on a device, 0xA5 in pinned host memory.
 * - Pinned and registered host memory is read and written when the copy runs. Pageable memory is read at the call, and
 *   written before the call returns, unless "lazy_pageable" is set.
 * - Freeing memory waits for nothing: a copy that still needs it fails with 700, unless "free_waits" is set.
 * - Handles are never reused before a reset: a destroyed event or stream gives 400, a destroyed context 201.
 *
 * A test loads a variant by dlopen() with its path before anything asks for a driver: glibc then finds it by its SONAME,
 * libcuda.so, the first name that is tried. LD_PRELOAD does the same, and so does its folder on LD_LIBRARY_PATH.
 *
 * Every function below may be called from any thread, but fakecuda_reset() needs the process to be quiet: no other thread
 * may be inside a call of the driver or of these functions. None of them is counted, and no fault hits them.
 *
 * A program that only preloads the library sets the same by the environment. The variables are read when the library is
 * loaded, and again by fakecuda_reset():
 *
 *   FAKECUDA_<NAME>=n             any setting of fakecuda_set(), in capitals: FAKECUDA_DEVICES=2
 *   FAKECUDA_FAULTS=list          as fakecuda_set_faults()
 *   FAKECUDA_REPORT=1             what is left and what was counted, on stderr at exit; each call after exit, too
 *   FAKECUDA_TRACE=1              each call of the driver, on stderr
 *
 * Which symbols there are cannot change in a loaded library; build.sh links one variant per folder:
 *
 *   full/              all of them, as a driver of CUDA 13
 *   batch-12.8/        cuMemcpyBatchAsync, but no cuMemcpyBatchAsync_v2: CUDA 12.8 and 12.9
 *   no-batch/          neither: CUDA 12.7 and older
 *   missing-required/  no cuMemcpyHtoDAsync_v2: nothing can work
 *
 * The version that a variant reports is a setting, "driver_version", and 13000 in all of them unless it is set.
 */
#ifndef FAKE_CUDA_H
#define FAKE_CUDA_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define FAKECUDA_API __attribute__((visibility("default")))

enum { FAKECUDA_MAX_DEVICES = 8 };

/* What was counted since the last reset. "live" is what exists now and "peak" the most that existed at once; "lost" is what
 * still existed in a context when it went away with its last reference, which hides it from "live". */
struct fakecuda_stats {
    uint64_t live_device_bytes, live_device_allocations, peak_device_bytes;
    uint64_t live_pinned_bytes, live_pinned_allocations, peak_pinned_bytes; /* cuMemHostAlloc */
    uint64_t live_registrations;                                            /* cuMemHostRegister */
    uint64_t live_streams, live_events;                                     /* created, not yet destroyed */
    uint64_t live_contexts;                                                 /* created by cuCtxCreate, not yet destroyed */
    uint64_t retains[FAKECUDA_MAX_DEVICES];                                 /* of the primary contexts, now */
    uint64_t lost_device_allocations, lost_pinned_allocations, lost_registrations, lost_streams, lost_events;
    uint64_t h2d_copies, h2d_bytes, d2h_copies, d2h_bytes, d2d_copies, d2d_bytes; /* enqueued; each member of a batch */
    uint64_t batches;                  /* calls of cuMemcpyBatchAsync, either form */
    uint64_t pageable_copies;          /* copies from or to host memory that is neither pinned nor registered */
    uint64_t cross_device_copies;      /* copies on a stream of one device with memory of another */
    uint64_t write_combined;           /* allocations of pinned memory that is slow to read */
    uint64_t host_functions;           /* calls of cuLaunchHostFunc */
    uint64_t calls;                    /* of the driver, all */
    uint64_t calls_without_context;    /* calls refused with 201 */
    uint64_t calls_in_foreign_context; /* calls on a stream, event or memory of another context than the current one */
    uint64_t calls_refused_by_capture; /* unsafe calls during a capture */
    uint64_t captures_invalidated;     /* captures that somebody's call broke */
    uint64_t copies_executed;          /* copies and memsets begun on a stream: what ASYNC faults count */
    uint64_t stale_copies;             /* copies that found their memory freed */
    uint64_t faults_fired;             /* as fakecuda_faults_fired() */
};

/* Destroys all contexts and what is in them, forgets faults, counts and held streams, sets every setting to the
 * environment's value or its default, and initialises the driver anew: cuInit must be called again. All handles and
 * device addresses become invalid. Every thread's current context and capture mode are gone, too. */
FAKECUDA_API void fakecuda_reset(void);

/* Sets one setting. Returns 0, or -1 if there is no such setting or the value is out of range.
 *
 *   init_code          0       what cuInit returns: 100 no device, 34 a toolkit's stub library, 803, 999, ...
 *   driver_version     13000   what cuDriverGetVersion returns
 *   devices            1       0 to FAKECUDA_MAX_DEVICES; with 0, cuInit returns 100
 *   memory             1 GiB   bytes of memory of each device
 *   pinned_limit       0       bytes of pinned memory that can be had in all; 0: no limit
 *   pools              1       0: cuMemAllocAsync gives 801
 *   read_only          1       0: no read-only registration
 *   delay_us           0       each half of a copy waits for 0 to this many microseconds, at random
 *   seed               1       of the random delays and orders, for streams made from then on
 *   shuffle_batches    1       0: the copies of a batch run in their order
 *   lazy_pageable      0       1: pageable memory is read and written when the copy runs
 *   free_waits         0       1: cuMemFree and cuMemFreeHost wait for all work of the context, as they do in CUDA
 *   capture            0       1: another thread captures a stream in global mode, 0: it has ended its capture
 *   trace              0       1: each call on stderr
 */
FAKECUDA_API int fakecuda_set(const char *name, int64_t value);

/* Replaces the list of faults: "symbol:nth:code", separated by commas. The nth call of the symbol from now on, counted
 * from 1, returns the code. Returns 0, or -1 if the list cannot be read (then no fault is set). NULL or "": none.
 *
 * - The symbol may lack its version: cuMemAlloc is cuMemAlloc_v2. It may be "*": the nth call of any symbol.
 * - ASYNC:nth:code: the nth copy or memset from now on fails half-done when it runs. The error sticks to its context: later
 *   work there is dropped, and calls return the code until the context is reset; those that give back still do so.
 * - A call that fails does nothing, with two exceptions, so that a caller that cleans up can do so. Calls that give back
 *   (free, destroy, unregister, release, pop; setting a capture mode back) do their work and return the code. Calls that
 *   wait (synchronize) wait and return the code.
 * - Each fault fires once. Several on one symbol count for themselves.
 */
FAKECUDA_API int fakecuda_set_faults(const char *list);

/* How many faults have fired since the last reset. A test of all failure points sets "*:n:code" for n = 1, 2, ... until
 * this stays as it was. */
FAKECUDA_API uint64_t fakecuda_faults_fired(void);

/* Fills *stats. The caller passes sizeof *stats; a smaller size fills the beginning only. */
FAKECUDA_API void fakecuda_stats(struct fakecuda_stats *stats, size_t size);

/* One of the numbers by its name: "live_streams", "retains[0]". UINT64_MAX if there is none of that name. */
FAKECUDA_API uint64_t fakecuda_stat(const char *name);

/* 1: every stream stops before its next half of an operation. 0: all go on, except those held by themselves.
 * Calls that wait for a held stream wait until it is released. */
FAKECUDA_API void fakecuda_hold(int hold);

/* The same for one stream, a handle of the driver; NULL and 1 are the legacy default stream of the current context, 2 is the
 * calling thread's. A held stream is work of the caller's that takes long. Returns 0, or -1 if there is no such stream. */
FAKECUDA_API int fakecuda_hold_stream(void *stream, int hold);

/* Waits until every stream is idle, held ones excepted, but not those that wait for one of them. Returns at once while all
 * are held. */
FAKECUDA_API void fakecuda_drain(void);

/* How many operations wait or run on a stream, all streams (`stream` (void *)-1), or -1 if there is no such stream. */
FAKECUDA_API int64_t fakecuda_pending(void *stream);

/* Copy to and from device memory at once, past all streams. Return 0, or -1 if [address, address + len) is not inside one
 * allocation. */
FAKECUDA_API int fakecuda_poke(uint64_t address, const void *bytes, size_t len);
FAKECUDA_API int fakecuda_peek(uint64_t address, void *bytes, size_t len);

/* Whether the capture that the setting "capture" began was invalidated: 1 or 0. */
FAKECUDA_API int fakecuda_capture_invalidated(void);

/* The calling thread's capture mode, and the depth of its context stack: what a guest must leave as it was. */
FAKECUDA_API int fakecuda_thread_capture_mode(void);
FAKECUDA_API int fakecuda_thread_context_depth(void);

/* How often a symbol was called since the last reset, with or without its version; "*": all calls. */
FAKECUDA_API uint64_t fakecuda_calls(const char *symbol);

#ifdef __cplusplus
}
#endif

#endif
