/* Saves a GPU's tensors behind the training's back: copied first, or borrowed until the job says that they may change. */
#include "model.h"

static struct model model;

static void new_weights(int step)
{
    for (size_t i = 0; i < model.num; i++) {
        struct member *it = &model.members[i];

        fill(it->bytes, it->size, (uint64_t)(100 * step) + i);
        for (size_t b = 0; it->dtype == TFCKPT_DTYPE_BOOL && b < it->size; b++)
            it->bytes[b] &= 1;
    }
}

static tfckpt_job *save_async(const char *prefix, const tfckpt_context *context, int borrow)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.context = context;
    options.borrow = borrow;
    options.no_sync = 1;
    options.shard_by_device = 1;
    CHECK_OK(tfckpt_save_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
    return job;
}

/* When the call returns, the tensors have been copied, as far as the budget goes, and the rest has been written. */
static void copy_the_tensors(const char *prefix, uint64_t max_host_bytes)
{
    tfckpt_context *context = new_context(max_host_bytes);
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    for (int step = 0; step < 3; step++) {
        tfckpt_job *job;

        new_weights(step);
        model_put(&model, 0);
        job = save_async(prefix, context, 0);
        CHECK_OK(tfckpt_job_wait_snapshot(job, 0, &error), error);
        model_put(&model, 1); /* the next step of the training */
        CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
        CHECK_OK(tfckpt_job_stats(job, &stats, &error), error);
        CHECK(stats.peak_host_bytes <= max_host_bytes && stats.num_slots >= 1);
        tfckpt_job_free(job);
        model_check_checkpoint(&model, prefix);
    }
    tfckpt_context_free(context);
}

/* Without memory for a copy: the call returns at once, and the tensors are left alone until they have been written. */
static void borrow_the_tensors(const char *prefix)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job;

    new_weights(10);
    model_put(&model, 0);
    job = save_async(prefix, NULL, 1);
    CHECK_FAILS(tfckpt_job_snapshot_stream_wait(job, 99, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "there is no CUDA device 99");
    CHECK_OK(tfckpt_job_snapshot_stream_wait(job, 0, NULL, &error), error); /* it waits on the host */
    CHECK_OK(tfckpt_job_wait_snapshot(job, 0, &error), error);
    model_put(&model, 1);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    model_check_checkpoint(&model, prefix);
}

/* As long as a copy has not run, the job does not say that the tensors may change. */
static void do_not_promise_too_early(const char *prefix)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job;
    uint64_t copies = gpu_stats().d2h_copies;

    if (!needs_the_fake("a copy that takes long"))
        return;
    new_weights(11);
    model_put(&model, 0);
    fake.hold(1);
    job = save_async(prefix, NULL, 1);
    while (gpu_stats().d2h_copies == copies)
        sleep_ms(1);
    sleep_ms(20); /* time for a mistake */
    CHECK_FAILS(tfckpt_job_wait_snapshot(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK_FAILS(tfckpt_job_wait(job, 1000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    fake.hold(0);
    CHECK_OK(tfckpt_job_wait_snapshot(job, FOREVER, &error), error);
    model_put(&model, 1);
    tfckpt_job_free(job);
    model_check_checkpoint(&model, prefix);
}

/* A saver keeps its contexts, and its jobs follow each other. */
static void save_step_after_step(const char *path)
{
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_saver_save_options save = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_context *context = new_context(96 << 20);
    tfckpt_saver *saver = NULL;
    tfckpt_job *jobs[3] = {NULL, NULL, NULL};
    tfckpt_error *error = NULL;
    int64_t step;

    options.context = context;
    options.max_to_keep = 3;
    save.global_step = &step;
    save.no_sync = 1;
    CHECK_OK(tfckpt_saver_create(model_in_place(&model), model.num, NULL, 0, &options, &saver, &error), error);
    for (step = 0; step < 3; step++) {
        new_weights(20 + (int)step);
        model_put(&model, 0);
        CHECK_OK(tfckpt_saver_save_async(saver, path, &save, &jobs[step], &error), error);
        model_put(&model, 1);
    }
    for (step = 0; step < 3; step++) {
        CHECK_OK(tfckpt_job_wait(jobs[step], FOREVER, &error), error);
        new_weights(20 + (int)step);
        model_check_checkpoint(&model, tfckpt_job_prefix(jobs[step]));
        tfckpt_job_free(jobs[step]);
    }
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 3);
    CHECK_OK(tfckpt_saver_restore(saver, tfckpt_saver_last_checkpoint(saver, 2), NULL, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_saver_free(saver);
    tfckpt_context_free(context);
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
    copy_the_tensors(prefix, 96 << 20);
    copy_the_tensors(prefix, 9 << 20); /* a third of the model */
    borrow_the_tensors(prefix);
    do_not_promise_too_early(prefix);
    save_step_after_step(prefix);
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
