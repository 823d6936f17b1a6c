/* Stops restores and saves while copies are under way: when the call returns, nothing of the caller's is touched any more,
 * nothing new is visible on disk, and the context can be used again. */
#include "gate.h"
#include "model.h"

static struct model model;

static int32_t stop_at_once(const tfckpt_progress *progress, void *user_data)
{
    (void)progress;
    (void)user_data;
    return 1;
}

/* From the progress callback, which is called before the first byte is moved. */
static void cancel_by_callback(const char *prefix, const tfckpt_context *context)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error = NULL;

    restore.context = save.context = context;
    restore.progress = save.progress = stop_at_once;
    model_put(&model, 1);
    CHECK_FAILS(tfckpt_restore(prefix, model_in_place(&model), model.num, &restore, codes, &error), TFCKPT_CANCELLED, error,
                "");
    for (size_t i = 0; i < model.num; i++)
        CHECK(codes[i] == TFCKPT_ABORTED && model_holds(&model, i, 1));
    CHECK_FAILS(tfckpt_save(prefix, model_in_place(&model), model.num, &save, NULL, &error), TFCKPT_CANCELLED, error, "");
    model_check_checkpoint(&model, prefix);
}

static uint64_t copies(void)
{
    return gpu_stats().h2d_copies + gpu_stats().d2h_copies;
}

/* A job is told to stop while its copies stand still; they must all have run when it has ended. */
static void cancel_in_flight(const char *dir, const char *prefix, const tfckpt_context *context, int save)
{
    tfckpt_restore_options restore_options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save_options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;
    char before[4096], after[4096];
    uint64_t enqueued;

    restore_options.context = save_options.context = context;
    save_options.borrow = 1;
    save_options.no_sync = 1;
    list_folder(dir, before, sizeof before);
    model_put(&model, 1);
    enqueued = copies();
    fake.hold(1);
    if (save)
        CHECK_OK(tfckpt_save_async(prefix, model_in_place(&model), model.num, &save_options, &job, &error), error);
    else
        CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &restore_options, &job, &error), error);
    while (copies() == enqueued)
        sleep_ms(1);
    CHECK_FAILS(tfckpt_job_wait(job, 1000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    tfckpt_job_cancel(job);
    fake.hold(0);
    CHECK_FAILS(tfckpt_job_wait(job, FOREVER, &error), TFCKPT_CANCELLED, error, "");
    CHECK(gpu_no_copies_left());
    if (!save) {
        CHECK_OK(tfckpt_job_codes(job, codes, model.num, &error), error);
        for (size_t i = 0; i < model.num; i++)
            CHECK(codes[i] == TFCKPT_ABORTED || (codes[i] == TFCKPT_OK && model_holds(&model, i, 0)));
    }
    tfckpt_job_free(job);

    /* The checkpoint before is there, and nothing else; and the context works. */
    list_folder(dir, after, sizeof after);
    CHECK(strcmp(before, after) == 0);
    model_check_checkpoint(&model, prefix);
    model_put(&model, 1);
    restore_options.progress = NULL;
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &restore_options, NULL, &error), error);
    CHECK(model_is_complete(&model));
}

/* Freeing a job waits for its end; cancelled first, that is soon. */
static void cancel_and_free(const char *prefix, const tfckpt_context *context)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.context = context;
    for (int i = 0; i < 20; i++) {
        tfckpt_job *job = NULL;

        CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
        if (i % 2 == 0)
            tfckpt_job_cancel(job);
        tfckpt_job_free(job);
        CHECK(gpu_no_copies_left());
    }
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    struct fakecuda_stats before;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    before = gpu_stats();
    model_of_all_kinds(&model, gpu.num_devices, 1);
    model_save(&model, prefix);
    for (uint64_t mebibytes = 0; mebibytes <= 6; mebibytes += 6) {
        tfckpt_context *context = new_context(mebibytes << 20);

        cancel_by_callback(prefix, context);
        if (needs_the_fake("copies that stand still")) {
            cancel_in_flight(dir, prefix, context, 0);
            cancel_in_flight(dir, prefix, context, 1);
        }
        cancel_and_free(prefix, context);
        tfckpt_context_free(context);
    }
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
