/* Whatever call of the driver fails, and whichever copy: the error is reported with the right code, nothing is leaked or
 * left behind, what is said to be complete is, the thread stands to CUDA as before, and the next call works. Where the
 * copies run after the call, the caller's stream and the next call say what became of them. */
#include "faults.h"

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
    wait_for_copies(run);
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

static const struct scenario scenarios[] = {
    {"restore", do_restore, 0},
    {"strict restore", do_strict_restore, 0},
    {"stream-ordered restore", do_stream_ordered_restore, LEAVES_COPIES},
    {"asynchronous restore", do_restore_async, HAS_CODES},
    {"save", do_save, IS_SAVE},
    {"asynchronous save", do_save_async, IS_SAVE},
    {"asynchronous save of borrowed tensors", do_save_borrowed, IS_SAVE},
};
enum { NUM_SCENARIOS = sizeof scenarios / sizeof *scenarios };

int main(int argc, char **argv)
{
    static const int64_t large[] = {300000, 1000, 500000, 0, 70000};
    int64_t small[24];
    uint64_t seed, step;

    if (!start_faults(argc, argv, &seed, &step))
        return 0;
    for (int i = 0; i < 24; i++)
        small[i] = 1024;
    run_scenarios(scenarios, NUM_SCENARIOS, 1, large, 5, "one device", seed, step);
    run_scenarios(scenarios, NUM_SCENARIOS, 1, small, 24, "many small", seed + 1, step);
    if (needs_two_devices("two devices"))
        run_scenarios(scenarios, NUM_SCENARIOS, 2, large, 5, "two devices", seed + 2, step);
    end_faults(step);
    return 0;
}
