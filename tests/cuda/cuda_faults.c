/* Whatever call of the driver fails, and whichever copy: the error is reported with the right code, nothing is leaked or
 * left behind, what is said to be complete is, the thread stands to CUDA as before, and the next call works.
 *
 * For each scenario the 1st, 2nd, 3rd, ... call of the driver fails, until there is no such call; then the 1st, 2nd, ...
 * copy fails on the device, which then has to be given up. Only the fake can do that. With a number n as argv[2], every nth
 * call or copy fails only, beginning with one that the seed chooses. */
#include "model.h"

static struct model model;
static unsigned char *old_bytes[MODEL_SIZE]; /* what the checkpoint holds that a save replaces */
static char dir[PATH_SIZE], prefix[PATH_SIZE], saved[PATH_SIZE];
static uint64_t num_runs, num_unnoticed;
static const char *running = ""; /* the scenario */
static char fault_list[64];      /* and its fault */

/* Where the program was when it ended too early. */
static void say_where(void)
{
    if (running[0] != '\0')
        fprintf(stderr, "in: %s with %s\n", running, fault_list);
}

/* ---- Looking at memory without the driver, which may have been given up ---- */

static int holds(size_t i, const unsigned char *bytes)
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
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error;
};

static tfckpt_code restore_with(struct run *run, int strict)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;

    options.context = run->context;
    options.strict = strict;
    return tfckpt_restore(prefix, model_in_place(&model), model.num, &options, run->keep_going ? run->codes : NULL,
                          &run->error);
}

static tfckpt_code do_restore(struct run *run)
{
    return restore_with(run, 0);
}

static tfckpt_code do_strict_restore(struct run *run)
{
    return restore_with(run, 1);
}

/* The call returns before the copies have run, which the default stream then waits for. */
static tfckpt_code do_stream_ordered_restore(struct run *run)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code code;

    options.context = run->context;
    options.stream_ordered = 1;
    code = tfckpt_restore(prefix, model_in_place(&model), model.num, &options, run->keep_going ? run->codes : NULL,
                          &run->error);
    if (code != TFCKPT_OK && !run->keep_going)
        CHECK(gpu_no_copies_left()); /* the caller may free the memory */
    fake.set_faults(NULL);
    for (int device = 0; device < gpu.num_devices; device++) {
        gpu_use(device);
        gpu.cuStreamSynchronize(NULL); /* and is told of what happens to the copies now */
    }
    gpu_use(0);
    return code;
}

/* Each tensor that is said to be there is there at that moment. */
static tfckpt_code do_restore_async(struct run *run)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    options.context = run->context;
    options.in_request_order = 1;
    options.keep_going = run->keep_going;
    code = tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &run->error);
    if (code != TFCKPT_OK) {
        CHECK(job == NULL);
        for (size_t i = 0; i < model.num; i++)
            run->codes[i] = TFCKPT_ABORTED;
        return code;
    }
    for (size_t i = 0; i < model.num; i++)
        if (tfckpt_job_wait_tensor(job, i, FOREVER, NULL) == TFCKPT_OK)
            CHECK(holds(i, model.members[i].bytes));
    code = tfckpt_job_wait(job, FOREVER, &run->error);
    if (tfckpt_job_codes(job, run->codes, model.num, NULL) != TFCKPT_OK)
        CHECK(!"the codes are there");
    tfckpt_job_free(job);
    return code;
}

static tfckpt_code do_save(struct run *run)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;

    options.context = run->context;
    options.no_sync = 1;
    return tfckpt_save(saved, model_in_place(&model), model.num, &options, NULL, &run->error);
}

static tfckpt_code save_async_with(struct run *run, int borrow)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    options.context = run->context;
    options.no_sync = 1;
    options.borrow = borrow;
    code = tfckpt_save_async(saved, model_in_place(&model), model.num, &options, &job, &run->error);
    if (code != TFCKPT_OK)
        return code;
    CHECK(tfckpt_job_wait_snapshot(job, FOREVER, NULL) == TFCKPT_OK);
    code = tfckpt_job_wait(job, FOREVER, &run->error);
    tfckpt_job_free(job);
    return code;
}

static tfckpt_code do_save_async(struct run *run)
{
    return save_async_with(run, 0);
}

static tfckpt_code do_save_borrowed(struct run *run)
{
    return save_async_with(run, 1);
}

struct scenario {
    const char *name;
    tfckpt_code (*call)(struct run *run);
    int is_save;
    int leaves_copies; /* which run when the call has returned, and fail unseen */
};
static const struct scenario scenarios[] = {
    {"restore", do_restore, 0, 0},
    {"strict restore", do_strict_restore, 0, 0},
    {"stream-ordered restore", do_stream_ordered_restore, 0, 1},
    {"asynchronous restore", do_restore_async, 0, 0},
    {"save", do_save, 1, 0},
    {"asynchronous save", do_save_async, 1, 0},
    {"asynchronous save of borrowed tensors", do_save_borrowed, 1, 0},
};

/* ---- Models ---- */

static void make_model(int num_devices, int many_small)
{
    memset(&model, 0, sizeof model);
    for (int i = 0; i < (many_small ? 24 : 5); i++) {
        static const int64_t rows[] = {300000, 1000, 500000, 0, 70000};
        char key[32];

        snprintf(key, sizeof key, "tensor_%02d", i);
        model_add(&model, key, TFCKPT_DTYPE_FLOAT, many_small ? 1024 : rows[i], NONE,
                  i == 1 ? HOST : i / 2 % num_devices);
    }
}

/* The device memory of a driver that was reset. */
static void make_memory_again(void)
{
    gpu_reset();
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
static void save_old_bytes(void)
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
static void check_saved(int is_new)
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

/* The code and the message say what the driver said. */
static void check_error(tfckpt_code code, int fault, tfckpt_error *error)
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
static void check_outcome(const struct scenario *scenario, const struct run *run, tfckpt_code code)
{
    if (scenario->is_save) {
        check_saved(code == TFCKPT_OK);
        return;
    }
    for (size_t i = 0; i < model.num; i++) {
        if (code == TFCKPT_OK || (run->keep_going && run->codes[i] == TFCKPT_OK))
            CHECK(holds(i, model.members[i].bytes));
        if (code == TFCKPT_OK && (run->keep_going || scenario->call == do_restore_async))
            CHECK(run->codes[i] == TFCKPT_OK);
    }
}

/* Runs a scenario with a fault. Returns whether the fault was met. */
static int run_with_fault(const struct scenario *scenario, const char *symbol, uint64_t nth, int fault)
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
    run.context = new_context((uint64_t)(2 * gpu.num_devices + 2) << 20);
    model_put(&model, !scenario->is_save);
    list_folder(dir, names_before, sizeof names_before);
    snprintf(fault_list, sizeof fault_list, "%s:%" PRIu64 ":%d", symbol, nth, fault);
    CHECK(fake.set_faults(fault_list) == 0);
    code = scenario->call(&run);
    if (nth % 2 == 0) /* the fault may be met in giving back, too */
        tfckpt_context_free(run.context);
    fake.set_faults(NULL);
    fired = fake.faults_fired() - fired;

    CHECK(gpu_same_thread(thread));
    if (code != TFCKPT_OK)
        check_error(code, fault, run.error);
    else if (fired > 0)
        num_unnoticed++;
    CHECK(code == TFCKPT_OK || fired > 0);
    CHECK(!(is_async && fired > 0) || code != TFCKPT_OK); /* a copy that did not run is always noticed */
    check_outcome(scenario, &run, code);
    list_folder(dir, names_after, sizeof names_after);
    CHECK(strcmp(names_before, names_after) == 0);
    tfckpt_error_free(run.error);
    run.error = NULL;

    /* The context can be used again, unless the device is lost; if so, after a restart. */
    if (nth % 2 != 0) {
        if (!is_async && fired > 0) {
            model_put(&model, !scenario->is_save);
            CHECK_OK(scenario->call(&run), run.error);
            check_outcome(scenario, &run, TFCKPT_OK);
        }
        tfckpt_context_free(run.context);
    }
    CHECK(gpu_nothing_left(before));
    if (is_async && fired > 0)
        make_memory_again();
    running = "";
    return fired > 0;
}

static void run_all_faults(const struct scenario *scenario, const char *what, uint64_t seed, uint64_t step)
{
    static const int faults[] = {2, 1, 700};
    uint64_t calls = 1 + seed % step, copies = 1 + seed % step;

    while (run_with_fault(scenario, "*", calls, faults[(calls + seed) % 3]))
        calls += step;
    while (!scenario->leaves_copies && run_with_fault(scenario, "ASYNC", copies, 700))
        copies += step;
    printf("%s, %s: about %" PRIu64 " calls, %" PRIu64 " copies\n", scenario->name, what, calls - 1, copies - 1);
    fflush(stdout);
    CHECK(calls > 20 && (scenario->leaves_copies || copies > 4 || step > 1));
}

int main(int argc, char **argv)
{
    uint64_t seed = getenv("FAKECUDA_SEED") != NULL ? strtoull(getenv("FAKECUDA_SEED"), NULL, 0) : 0;
    uint64_t step = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    CHECK(step > 0);
    gpu_start();
    if (!needs_the_fake("all of it"))
        return 0;
    CHECK(atexit(say_where) == 0);
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    CHECK(tfckpt_cuda_available(NULL) == TFCKPT_OK); /* what fails here is kept for good */
    for (int kind = 0; kind < 3; kind++) {
        static const char *const what[] = {"one device", "many small", "two devices"};

        if (kind == 2 && !needs_two_devices(what[kind]))
            continue;
        make_model(kind == 2 ? 2 : 1, kind == 1);
        model_save(&model, prefix);
        save_old_bytes();
        for (size_t i = 0; i < sizeof scenarios / sizeof *scenarios; i++)
            run_all_faults(&scenarios[i], what[kind], seed + i + (uint64_t)kind, step);
        for (size_t i = 0; i < model.num; i++) {
            free(old_bytes[i]);
            old_bytes[i] = NULL;
        }
        model_free(&model);
    }
    printf("%" PRIu64 " runs, of which %" PRIu64 " did without what failed\n", num_runs, num_unnoticed);
    remove_scratch_folder(dir);
    return 0;
}
