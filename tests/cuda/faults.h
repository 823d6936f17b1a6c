/* What the programs have in common in which every call of the driver fails in turn, and every copy.
 *
 * For each scenario the 1st, 2nd, 3rd, ... call of the driver fails, until there is no such call; then the 1st, 2nd, ...
 * copy fails on the device, which then has to be given up. Only the fake can do that. With a number n as argv[2], every nth
 * call or copy fails only, beginning with one that the seed chooses. */
#ifndef TFCKPT_TESTS_FAULTS_H
#define TFCKPT_TESTS_FAULTS_H

#include "model.h"

static struct model model;
static unsigned char *old_bytes[MODEL_SIZE]; /* what the checkpoint holds that a save replaces */
static char dir[PATH_SIZE], prefix[PATH_SIZE], saved[PATH_SIZE];
static uint64_t num_runs, num_unnoticed, num_late; /* met when the call had returned */
static void *const *given_contexts; /* those of the devices that the library is to use; NULL: the primary ones */
static void (*enter_given)(void);   /* makes them */
static const char *running = "";    /* the scenario */
static char fault_list[64];         /* and its fault */

/* Where the program was when it ended too early. */
static inline void say_where(void)
{
    if (running[0] != '\0')
        fprintf(stderr, "in: %s with %s\n", running, fault_list);
}

/* ---- Looking at memory without the driver, which may have been given up ---- */

static inline int holds(size_t i, const unsigned char *bytes)
{
    static unsigned char device[4 << 20];
    const struct member *it = &model.members[i];
    const unsigned char *got = it->host;

    CHECK(it->size <= sizeof device);
    if (it->device != HOST) {
        CHECK(it->size == 0 || fake.peek(it->address, device, it->size) == 0);
        got = device;
    }
    for (size_t b = 0; b < it->size; b++)
        if (got[b] != (bytes == NULL ? POISON : bytes[b]))
            return 0;
    return 1;
}

/* ---- Scenarios ---- */

/* What one run is told and what came of it. */
struct run {
    tfckpt_context *context;
    int keep_going; /* a restore goes on with the other tensors */
    int is_async;   /* the fault hits a copy */
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error;
    int late; /* what the driver says of copies that run after the call */
};

enum {
    IS_SAVE = 1,
    HAS_CODES = 2,    /* with or without keep_going */
    HAS_NO_CODES = 4, /* nor with it */
    LEAVES_COPIES = 8 /* which run when the call has returned */
};

struct scenario {
    const char *name;
    tfckpt_code (*call)(struct run *run);
    int flags;
};

/* For scenarios that leave copies: waits for them as the caller does, on the default streams. */
static inline void wait_for_copies(struct run *run)
{
    if (!run->is_async)
        fake.set_faults(NULL);
    for (int device = 0; device < gpu.num_devices; device++) {
        int code;

        gpu_use(device);
        code = gpu.cuStreamSynchronize(NULL); /* which is told of what happens to them */
        if (code != 0)
            run->late = code;
    }
    gpu_use(0);
}

/* ---- Models ---- */

static inline void make_model(int num_devices, const int64_t *rows, size_t num)
{
    memset(&model, 0, sizeof model);
    for (size_t i = 0; i < num; i++) {
        char key[32];

        snprintf(key, sizeof key, "tensor_%02zu", i);
        model_add(&model, key, TFCKPT_DTYPE_FLOAT, rows[i], NONE, i == 1 ? HOST : (int)(i / 2) % num_devices);
    }
}

/* The device memory of a driver that was reset. */
static inline void make_memory_again(void)
{
    gpu_reset();
    if (enter_given != NULL)
        enter_given();
    for (size_t i = 0; i < model.num; i++) {
        struct member *it = &model.members[i];

        if (it->device == HOST)
            continue;
        gpu_use(it->device);
        it->address = gpu_alloc(it->size);
    }
    gpu_use(0);
}

/* The checkpoint that saves replace. */
static inline void save_old_bytes(void)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    model_at_home(&model);
    for (size_t i = 0; i < model.num; i++) {
        if (old_bytes[i] == NULL) {
            old_bytes[i] = (unsigned char *)allocate(model.members[i].size);
            fill(old_bytes[i], model.members[i].size, 1000 + i);
        }
        model.tensors[i].data = old_bytes[i];
    }
    options.no_sync = 1;
    CHECK_OK(tfckpt_save(saved, model.tensors, model.num, &options, NULL, &error), error);
}

/* The checkpoint is the new one or the old one, whole. */
static inline void check_saved(int is_new)
{
    tfckpt_tensor tensors[MODEL_SIZE];
    tfckpt_error *error = NULL;

    memcpy(tensors, model_at_home(&model), model.num * sizeof *tensors);
    for (size_t i = 0; i < model.num; i++)
        tensors[i].data = allocate(tensors[i].size);
    CHECK_OK(tfckpt_restore(saved, tensors, model.num, NULL, NULL, &error), error);
    for (size_t i = 0; i < model.num; i++) {
        const unsigned char *want = is_new ? model.members[i].bytes : old_bytes[i];

        CHECK(memcmp(tensors[i].data, want, tensors[i].size) == 0);
        free(tensors[i].data);
    }
    if (is_new)
        save_old_bytes();
}

/* ---- One run ---- */

/* NULL for an error. */
static inline tfckpt_context *new_fault_context(tfckpt_error **error)
{
    tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;

    options.max_host_bytes = (uint64_t)(2 * gpu.num_devices + 2) << 20;
    if (given_contexts != NULL) {
        options.cuda_contexts = given_contexts;
        options.num_cuda_contexts = (size_t)gpu.num_devices;
    }
    CHECK((tfckpt_context_new(&options, &context, error) == TFCKPT_OK) == (context != NULL));
    return context;
}

/* The code and the message say what the driver said. */
static inline void check_error(tfckpt_code code, int fault, tfckpt_error *error)
{
    tfckpt_code want = fault == 2 ? TFCKPT_RESOURCE_EXHAUSTED : fault == 1 ? TFCKPT_INVALID_ARGUMENT : TFCKPT_INTERNAL;
    char text[32];

    snprintf(text, sizeof text, "CUDA error %d", fault);
    if (code == want && error != NULL && strstr(tfckpt_error_message(error), text) != NULL)
        return;
    fprintf(stderr, "fault %d is %s: %s\n", fault, tfckpt_code_name(code), error == NULL ? "" : tfckpt_error_message(error));
    CHECK(!"the error is that of the driver");
}

/* What a run promises, whether it failed or not. */
static inline void check_outcome(const struct scenario *scenario, const struct run *run, tfckpt_code code)
{
    int has_codes = (scenario->flags & HAS_CODES) || (run->keep_going && !(scenario->flags & HAS_NO_CODES));
    size_t num_restored = 0, num_left_out = 0;

    if (scenario->flags & IS_SAVE) {
        check_saved(code == TFCKPT_OK);
        return;
    }
    for (size_t i = 0; i < model.num && has_codes; i++) {
        num_restored += model.members[i].size > 0 && run->codes[i] == TFCKPT_OK;
        num_left_out += run->codes[i] == TFCKPT_ABORTED;
    }
    /* An error that concerns one tensor does not keep it from others. */
    CHECK(!run->keep_going || num_restored == 0 || num_left_out == 0);
    for (size_t i = 0; i < model.num; i++) {
        if (run->late == 0 && (code == TFCKPT_OK || (run->keep_going && has_codes && run->codes[i] == TFCKPT_OK)))
            CHECK(holds(i, model.members[i].bytes));
        if (code == TFCKPT_OK && has_codes)
            CHECK(run->codes[i] == TFCKPT_OK);
    }
}

/* The device was given up: whatever is called next says so. */
static inline void check_next_call(const struct scenario *scenario, struct run *run, int fault)
{
    tfckpt_code code;

    if (run->context == NULL && given_contexts != NULL)
        run->context = new_fault_context(&run->error);
    code = run->error == NULL ? scenario->call(run) : tfckpt_error_code(run->error);
    CHECK(code != TFCKPT_OK);
    check_error(code, fault, run->error);
    tfckpt_error_free(run->error);
}

/* Runs a scenario with a fault. Returns whether the fault was met. */
static inline int run_with_fault(const struct scenario *scenario, const char *symbol, uint64_t nth, int fault)
{
    static char names_before[4096], names_after[4096];
    int is_async = strcmp(symbol, "ASYNC") == 0;
    struct fakecuda_stats before = gpu_stats();
    struct gpu_thread thread = gpu_thread();
    uint64_t fired = fake.faults_fired();
    struct run run;
    tfckpt_code code;

    num_runs++;
    running = scenario->name;
    memset(&run, 0, sizeof run);
    run.keep_going = nth % 4 < 2;
    run.is_async = is_async;
    run.context = new_fault_context(&run.error);
    CHECK(run.context != NULL);
    model_put(&model, !(scenario->flags & IS_SAVE));
    list_folder(dir, names_before, sizeof names_before);
    snprintf(fault_list, sizeof fault_list, "%s:%" PRIu64 ":%d", symbol, nth, fault);
    CHECK(fake.set_faults(fault_list) == 0);
    if (is_async && (scenario->flags & LEAVES_COPIES))
        CHECK(fake.set("delay_us", 2000) == 0); /* so that they are met when the call has returned */
    code = scenario->call(&run);
    if (nth % 2 == 0) { /* the fault may be met in giving back, too */
        tfckpt_context_free(run.context);
        run.context = NULL;
    }
    fake.set_faults(NULL);
    fired = fake.faults_fired() - fired;

    CHECK(gpu_same_thread(thread));
    if (code != TFCKPT_OK)
        check_error(code, fault, run.error);
    else if (fired > 0)
        num_unnoticed++;
    CHECK(code == TFCKPT_OK || fired > 0);
    /* A copy that did not run is always noticed, by the call, or by the caller who waits for it and by the next call. */
    CHECK(!(is_async && fired > 0) || code != TFCKPT_OK || run.late == fault);
    num_late += code == TFCKPT_OK && run.late != 0;
    CHECK(run.late == 0 || (is_async && fired > 0 && (scenario->flags & LEAVES_COPIES)));
    check_outcome(scenario, &run, code);
    list_folder(dir, names_after, sizeof names_after);
    CHECK(strcmp(names_before, names_after) == 0);
    tfckpt_error_free(run.error);
    run.error = NULL;

    /* The context can be used again, unless the device is lost; if so, after a restart. */
    if (is_async && fired > 0) {
        check_next_call(scenario, &run, fault);
    } else if (run.context != NULL && fired > 0) {
        model_put(&model, !(scenario->flags & IS_SAVE));
        CHECK_OK(scenario->call(&run), run.error);
        check_outcome(scenario, &run, TFCKPT_OK);
    }
    tfckpt_context_free(run.context);
    CHECK(gpu_nothing_left(before));
    if (is_async && (fired > 0 || (scenario->flags & LEAVES_COPIES)))
        make_memory_again(); /* with the usual settings */
    running = "";
    return fired > 0;
}

static inline void run_all_faults(const struct scenario *scenario, const char *what, uint64_t seed, uint64_t step)
{
    static const int faults[] = {2, 1, 700};
    uint64_t calls = 1 + seed % step, copies = 1 + seed % step;
    struct run run;

    /* Once without a fault. Data files of another number of shards stay where they are. */
    memset(&run, 0, sizeof run);
    run.context = new_fault_context(&run.error);
    model_put(&model, !(scenario->flags & IS_SAVE));
    CHECK_OK(scenario->call(&run), run.error);
    check_outcome(scenario, &run, TFCKPT_OK);
    tfckpt_context_free(run.context);
    while (run_with_fault(scenario, "*", calls, faults[(calls + seed) % 3]))
        calls += step;
    while (run_with_fault(scenario, "ASYNC", copies, 700))
        copies += step;
    printf("%s, %s: about %" PRIu64 " calls, %" PRIu64 " copies\n", scenario->name, what, calls - 1, copies - 1);
    fflush(stdout);
    CHECK(calls > 20 && (copies > 3 || step > 1));
}

/* All scenarios with one model: tensors of these lengths, of which the second is on the host. */
static inline void run_scenarios(const struct scenario *scenarios, size_t num_scenarios, int num_devices,
                                 const int64_t *rows, size_t num, const char *what, uint64_t seed, uint64_t step)
{
    make_model(num_devices, rows, num);
    model_save(&model, prefix);
    save_old_bytes();
    for (size_t i = 0; i < num_scenarios; i++)
        run_all_faults(&scenarios[i], what, seed + i, step);
    for (size_t i = 0; i < model.num; i++) {
        free(old_bytes[i]);
        old_bytes[i] = NULL;
    }
    model_free(&model);
}

/* Begins a program of this kind. Returns 0 if there is nothing for it to do. */
static inline int start_faults(int argc, char **argv, uint64_t *seed, uint64_t *step)
{
    *seed = getenv("FAKECUDA_SEED") != NULL ? strtoull(getenv("FAKECUDA_SEED"), NULL, 0) : 0;
    *step = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    CHECK(*step > 0);
    gpu_start();
    if (!needs_the_fake("all of it"))
        return 0;
    CHECK(atexit(say_where) == 0);
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    CHECK(tfckpt_cuda_available(NULL) == TFCKPT_OK); /* what fails here is kept for good */
    return 1;
}

static inline void end_faults(uint64_t step)
{
    printf("%" PRIu64 " runs, of which %" PRIu64 " did without what failed, and %" PRIu64 " were told later\n", num_runs,
           num_unnoticed, num_late);
    CHECK(num_late > 0 || step > 1);
    remove_scratch_folder(dir);
}

#endif
