/* The memory budget holds for transfers to and from devices as well: page-locked and other buffers together. What is
 * page-locked is kept from call to call and given back when it is asked for. */
#include "model.h"

static struct model model;

enum { KIND_RESTORE, KIND_SEQUENTIAL, KIND_STRICT, KIND_SAVE, KIND_SAVE_DURABLE, KIND_COPIED, NUM_KINDS };

/* One call of a kind, within limits of its own or the context's. */
static tfckpt_code call(int kind, const char *prefix, const tfckpt_context *context, uint64_t max_host_bytes,
                        tfckpt_stats *stats, tfckpt_error **error)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    restore.context = save.context = context;
    restore.max_host_bytes = save.max_host_bytes = max_host_bytes;
    restore.restore_sequentially = kind == KIND_SEQUENTIAL;
    restore.strict = kind == KIND_STRICT;
    save.no_sync = kind != KIND_SAVE_DURABLE;
    if (kind == KIND_COPIED) {
        code = tfckpt_save_async(prefix, model_in_place(&model), model.num, &save, &job, error);
        if (code != TFCKPT_OK)
            return code;
        code = tfckpt_job_wait(job, FOREVER, error);
        if (stats != NULL)
            CHECK(tfckpt_job_stats(job, stats, NULL) == TFCKPT_OK);
        tfckpt_job_free(job);
        return code;
    }
    restore.stats = save.stats = stats;
    if (kind >= KIND_SAVE)
        return tfckpt_save(prefix, model_in_place(&model), model.num, &save, NULL, error);
    return tfckpt_restore(prefix, model_in_place(&model), model.num, &restore, NULL, error);
}

/* A fresh driver, whose peaks are those of one call, and the model on it. */
static void start_afresh(int num_devices, int with_host, int poison)
{
    model_free(&model);
    gpu_reset();
    model_of_all_kinds(&model, num_devices, with_host);
    model_put(&model, poison);
}

static void keep_within(const char *prefix, uint64_t limit, int kind, int with_host, int own_limit)
{
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_context *context = new_context(own_limit ? 0 : limit);
    tfckpt_error *error = NULL;
    uint64_t peak, most;

    start_afresh(gpu.num_devices, with_host, kind <= KIND_STRICT);
    CHECK(gpu_stats().live_pinned_bytes == 0);
    CHECK_OK(call(kind, prefix, context, own_limit ? limit : 0, &stats, &error), error);
    peak = gpu_stats().peak_pinned_bytes;
    /* One after the other, tensors leave buffers behind that those of the next do not fit: they count for the context,
     * whose budget is 256 MiB if it is not the limit. */
    most = kind != KIND_SEQUENTIAL ? stats.peak_pinned_bytes : own_limit ? (uint64_t)256 << 20 : limit;
    if (!(peak <= most && stats.peak_pinned_bytes <= stats.peak_host_bytes &&
          stats.peak_host_bytes <= limit)) {
        fprintf(stderr, "kind %d, limit %" PRIu64 "%s: pinned %" PRIu64 ", said to be %" PRIu64 ", in all %" PRIu64 "\n",
                kind, limit, own_limit ? " of the call" : "", peak, stats.peak_pinned_bytes, stats.peak_host_bytes);
        CHECK(!"the budget holds");
    }
    CHECK(stats.num_slots >= (uint64_t)gpu.num_devices);
    if (kind <= KIND_STRICT)
        CHECK(model_is_complete(&model));
    else
        model_check_checkpoint(&model, prefix);
    tfckpt_context_free(context);
}

/* Two buffers of 1 MiB for each device, and 1 MiB for the work beside: less is refused, by both limits. */
static void refuse_less(const char *prefix)
{
    uint64_t least = ((uint64_t)gpu.num_devices * 2 + 1) << 20;
    tfckpt_context *roomy = new_context(0);
    tfckpt_error *error = NULL;

    start_afresh(gpu.num_devices, 1, 1);
    for (int kind = 0; kind < NUM_KINDS; kind++) {
        tfckpt_context *context = new_context(least - 1);
        struct fakecuda_stats before = gpu_stats();

        CHECK_FAILS(call(kind, prefix, context, 0, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "max_host_bytes");
        CHECK_FAILS(call(kind, prefix, roomy, least - 1, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "max_host_bytes");
        CHECK(gpu_stats().h2d_copies == before.h2d_copies && gpu_stats().d2h_copies == before.d2h_copies);
        CHECK(gpu_stats().live_pinned_bytes == 0);
        tfckpt_context_free(context);
    }
    tfckpt_context_free(roomy);
    model_save(&model, prefix);
}

/* Page-locked memory is made once. */
static void keep_the_buffers(const char *prefix)
{
    tfckpt_context *context = new_context(24 << 20);
    tfckpt_error *error = NULL;
    uint64_t made, pinned;

    if (!needs_the_fake("counting allocations"))
        return;
    start_afresh(1, 0, 1);
    CHECK_OK(call(KIND_RESTORE, prefix, context, 0, NULL, &error), error);
    pinned = gpu_stats().live_pinned_bytes;
    made = fake.calls("cuMemHostAlloc");
    CHECK(pinned > 0 && pinned <= 24 << 20 && made > 0);
    for (int i = 0; i < 3; i++)
        CHECK_OK(call(KIND_RESTORE, prefix, context, 0, NULL, &error), error);
    CHECK(gpu_stats().live_pinned_bytes <= 24 << 20);
    pinned = gpu_stats().live_pinned_bytes;
    made = fake.calls("cuMemHostAlloc");
    /* Threads that are slow need fewer of them, so a later call may still make one; most are there. */
    CHECK_OK(call(KIND_RESTORE, prefix, context, 0, NULL, &error), error);
    CHECK(fake.calls("cuMemHostAlloc") - made <= 2);

    tfckpt_context_trim(context);
    CHECK(gpu_stats().live_pinned_bytes == 0 && gpu_stats().live_streams == 0 && gpu_stats().live_events == 0);
    CHECK_OK(call(KIND_SAVE, prefix, context, 0, NULL, &error), error);
    CHECK(gpu_stats().live_pinned_bytes > 0);
    CHECK(gpu_stats().retains[0] == 2);
    tfckpt_context_free(context);
    CHECK(gpu_stats().live_pinned_bytes == 0 && gpu_stats().retains[0] == 1);
}

/* The system has less page-locked memory than the budget allows: the call makes do with what there is. */
static void run_out_of_pinned_memory(const char *prefix)
{
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    if (!needs_the_fake("a limit of page-locked memory"))
        return;
    for (int kind = 0; kind < NUM_KINDS; kind++) {
        tfckpt_context *context = new_context(16 << 20);
        uint64_t slot;

        start_afresh(1, 0, kind <= KIND_STRICT);
        CHECK_OK(call(kind, prefix, context, 0, &stats, &error), error);
        CHECK(stats.num_retries == 0);
        slot = gpu_stats().peak_pinned_bytes / stats.num_slots;
        for (uint64_t num_slots = 3; num_slots >= 1; num_slots--) {
            tfckpt_context_trim(context);
            CHECK(fake.set("pinned_limit", (int64_t)(slot * num_slots + slot / 2)) == 0);
            CHECK_OK(call(kind, prefix, context, 0, &stats, &error), error);
            CHECK(stats.num_slots <= num_slots);
            if (kind <= KIND_STRICT)
                CHECK(model_is_complete(&model));
            else
                model_check_checkpoint(&model, prefix);
        }
        tfckpt_context_trim(context);

        /* Not enough for one. */
        CHECK(fake.set("pinned_limit", (int64_t)(slot - 1)) == 0);
        CHECK_FAILS(call(kind, prefix, context, 0, &stats, &error), TFCKPT_RESOURCE_EXHAUSTED, error, "page-locking");
        CHECK(fake.set("pinned_limit", 0) == 0);
        CHECK_OK(call(kind, prefix, context, 0, &stats, &error), error);
        CHECK(stats.num_retries == 0);
        tfckpt_context_free(context);
        CHECK(gpu_stats().live_pinned_bytes == 0);
    }
}

/* All buffers are on their way when another one is wanted and cannot be had: that is counted, once, as nobody asks again. */
static void count_what_could_not_be_had(const char *prefix)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(5 << 20); /* four buffers of 1 MiB */
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    if (!needs_the_fake("copies that stand still"))
        return;
    start_afresh(1, 0, 1);
    CHECK(fake.set("pinned_limit", 2 << 20) == 0);
    fake.hold(1);
    options.context = context;
    CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
    while (fake.calls("cuMemHostAlloc") < 3)
        sleep_ms(1);
    fake.hold(0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&model));
    CHECK_OK(tfckpt_job_stats(job, &stats, &error), error);
    CHECK(stats.num_slots == 2 && stats.num_retries >= 1 && stats.num_retries <= 2);
    tfckpt_job_free(job);
    tfckpt_context_free(context);
}

int main(int argc, char **argv)
{
    static const uint64_t mebibytes[] = {5, 7, 16, 64};
    char dir[PATH_SIZE], prefix[PATH_SIZE];

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    start_afresh(gpu.num_devices, 1, 1);
    model_save(&model, prefix);
    refuse_less(prefix);
    for (size_t i = 0; i < sizeof mebibytes / sizeof *mebibytes; i++)
        for (int kind = 0; kind < NUM_KINDS; kind++)
            for (int with = 0; with < 4; with++)
                keep_within(prefix, mebibytes[i] << 20, kind, with & 1, with & 2);
    keep_the_buffers(prefix);
    run_out_of_pinned_memory(prefix);
    count_what_could_not_be_had(prefix);
    model_free(&model);
    remove_scratch_folder(dir);
    return 0;
}
