/* What every call of the driver has in common: it is counted and traced, a fault may hit it, it may need the driver to be
 * initialised, a living current context without a sticky error, and no capture that forbids it. */
#include "fake.h"

#include <stdio.h>
#include <string.h>

static struct {
    const char *name;
    uint64_t calls;
} symbols[128];
static size_t num_symbols;

static void count(const char *name)
{
    counts.calls++;
    size_t i = 0;
    while (i < num_symbols && symbols[i].name != name)
        i++;
    if (i == num_symbols) {
        if (num_symbols == sizeof symbols / sizeof *symbols)
            return;
        symbols[num_symbols++].name = name;
    }
    symbols[i].calls++;
}

void calls_forget(void)
{
    memset(symbols, 0, sizeof symbols);
    num_symbols = 0;
}

uint64_t fakecuda_calls(const char *symbol)
{
    uint64_t calls = 0;
    fake_lock();
    for (size_t i = 0; i < num_symbols; i++)
        if (symbol_matches(symbol, symbols[i].name))
            calls += symbols[i].calls;
    fake_unlock();
    return calls;
}

struct thread *this_thread(void)
{
    static _Thread_local struct thread thread;
    static uint64_t num_threads; /* ever seen */
    if (!thread.number)
        thread.number = ++num_threads;
    if (thread.epoch != epoch)
        thread = (struct thread){
            .number = thread.number, .epoch = epoch, .in_host_function = thread.in_host_function };
    return &thread;
}

static CUresult check_context(struct call *call, unsigned needs)
{
    if (!call->context) {
        counts.calls_without_context++;
        return CUDA_ERROR_INVALID_CONTEXT;
    }
    if (call->context->error && (needs & GIVES_BACK)) {
        call->late = call->context->error;
        return CUDA_SUCCESS;
    }
    return call->context->error;
}

static CUresult check(struct call *call, unsigned needs)
{
    if (exited) {
        if (reporting)
            fprintf(stderr, "fake CUDA: %s called after exit\n", call->name);
        return CUDA_ERROR_DEINITIALIZED;
    }
    count(call->name);
    CUresult fault = fault_of_call(call->name);
    if (this_thread()->in_host_function)
        return CUDA_ERROR_NOT_PERMITTED;
    if (fault && !(needs & (GIVES_BACK | WAITS)))
        return fault;
    if (!initialised && !(needs & BEFORE_INIT))
        return CUDA_ERROR_NOT_INITIALIZED;
    call->late = fault;
    call->context = current_context();
    if (needs & NEEDS_CONTEXT) {
        CUresult code = check_context(call, needs);
        if (code)
            return code;
    }
    return needs & UNSAFE ? capture_forbids_unsafe() : CUDA_SUCCESS;
}

struct call call_begin(const char *name, unsigned needs)
{
    struct call call = { .name = name };
    fake_lock();
    call.code = check(&call, needs);
    return call;
}

CUresult call_end(struct call *call)
{
    CUresult code = call->code ? call->code : call->late;
    if (settings.trace)
        fprintf(stderr, "fake CUDA: %s -> %d\n", call->name, (int)code);
    fake_unlock();
    return code;
}

void call_uses(struct call *call, struct context *context)
{
    if (call->context && context != call->context && !call->foreign) {
        call->foreign = true;
        counts.calls_in_foreign_context++;
    }
}

int fakecuda_thread_capture_mode(void)
{
    fake_lock();
    int mode = this_thread()->capture_mode;
    fake_unlock();
    return mode;
}

int fakecuda_thread_context_depth(void)
{
    fake_lock();
    int depth = this_thread()->depth;
    fake_unlock();
    return depth;
}
