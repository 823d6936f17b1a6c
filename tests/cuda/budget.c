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
    CHECK(gpu_stats().peak_device_bytes == gpu_stats().live_device_bytes); /* the tensors' own */
    CHECK(stats.bytes_device == model_device_bytes(&model));
    peak = gpu_stats().peak_pinned_bytes;
    /* One after the other, tensors leave the buffers of their device behind, for the next one there: these count for the
     * context. */
    most = stats.peak_pinned_bytes * (kind == KIND_SEQUENTIAL ? (uint64_t)gpu.num_devices : 1);
    if (!own_limit && most > limit)
        most = limit;
    if (!(peak <= most && stats.peak_pinned_bytes <= stats.peak_host_bytes &&
          stats.peak_host_bytes <= limit)) {
        fprintf(stderr, "kind %d, limit %" PRIu64 "%s: pinned %" PRIu64 ", said to be %" PRIu64 ", in all %" PRIu64 "\n",
                kind, limit, own_limit ? " of the call" : "", peak, stats.peak_pinned_bytes, stats.peak_host_bytes);
        CHECK(!"the budget holds");
    }
    CHECK(stats.num_slots >= (uint64_t)gpu.num_devices);
    if (fake.reset != NULL && kind != KIND_SEQUENTIAL)
        CHECK(peak == stats.peak_pinned_bytes); /* what there was, not what there might have been */
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

/* Restores `num` tensors of `size` bytes, on so many devices in turn. */
static void restore_on(const char *prefix, const tfckpt_context *context, int num_devices, int num, int64_t size,
                       tfckpt_stats *stats)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    model_free(&model);
    for (int i = 0; i < num; i++) {
        char key[32];

        snprintf(key, sizeof key, "layer_%d", i);
        model_add(&model, key, TFCKPT_DTYPE_UINT8, size, NONE, i % num_devices);
    }
    model_save(&model, prefix);
    options.context = context;
    options.stats = stats;
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    CHECK(model_is_complete(&model));
}

/* A context's buffers serve all its calls, on however many devices, and a call holds only what it needs. */
static void use_the_same_buffers(const char *prefix)
{
    tfckpt_context_options resources = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    uint64_t slot = 0;

    if (!needs_the_fake("counting allocations"))
        return;
    start_afresh(gpu.num_devices, 0, 1);
    resources.max_host_bytes = 64 << 20;
    resources.num_threads = 5;
    CHECK_OK(tfckpt_context_new(&resources, &context, &error), error);
    for (int i = 0; i < 4; i++) {
        uint64_t made;

        restore_on(prefix, context, i % 2 == 0 ? 1 : gpu.num_devices, 4, 2000000, &stats);
        made = fake.calls("cuMemHostAlloc");
        if (i == 0)
            slot = gpu_stats().live_pinned_bytes / made;
        CHECK(gpu_stats().live_pinned_bytes == made * slot); /* all of one size, none given back */
    }
    tfckpt_context_free(context);

    resources.max_host_bytes = 0;
    resources.num_threads = 16;
    CHECK_OK(tfckpt_context_new(&resources, &context, &error), error);
    restore_on(prefix, context, 1, 1, 4096, &stats);
    CHECK(stats.num_slots == 1 && stats.peak_host_bytes <= 16 << 20);
    tfckpt_context_free(context);
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

/* Restores with a code for each tensor, as a job or not. Returns how many of the codes are `code`. */
static size_t restore_and_count(const char *prefix, const tfckpt_context *context, int as_job, tfckpt_code code)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    size_t count = 0;

    options.context = context;
    options.keep_going = as_job;
    if (as_job) {
        CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
        CHECK(tfckpt_job_wait(job, FOREVER, NULL) == code);
        CHECK_OK(tfckpt_job_codes(job, codes, model.num, &error), error);
        tfckpt_job_free(job);
    } else {
        CHECK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, codes, NULL) == code);
    }
    for (size_t i = 0; i < model.num; i++)
        count += codes[i] == code;
    return count;
}

/* There is no page-locked memory at all, for far more tensors than there would be buffers, and all of them are asked for:
 * each gets its code, however many threads find out at the same time. */
static void run_out_for_all(const char *prefix)
{
    enum { NUM = 40, NUM_FAULTS = 64 };
    static const int64_t sizes[] = {4096, 3 << 20}; /* many by one read, and several reads for each */
    static char faults[NUM_FAULTS * 32];
    size_t length = 0;

    if (!needs_the_fake("a limit of page-locked memory"))
        return;
    for (int i = 1; i <= NUM_FAULTS; i++)
        length += (size_t)snprintf(faults + length, sizeof faults - length, "%scuMemHostAlloc:%d:700", i > 1 ? "," : "", i);
    for (int round = 0; round < 16; round++) {
        tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
        tfckpt_context *context = NULL;
        tfckpt_error *error = NULL;
        int as_job = round & 1, large = round >> 1 & 1;

        model_free(&model);
        gpu_reset();
        memset(&model, 0, sizeof model);
        for (int i = 0; i < NUM; i++) {
            char key[32];

            snprintf(key, sizeof key, "tensor_%02d", i);
            model_add(&model, key, TFCKPT_DTYPE_UINT8, i < 8 || !large ? sizes[large] : sizes[0], NONE, 0);
        }
        model_save(&model, prefix);
        options.max_host_bytes = 16 << 20;
        options.num_threads = round < 4 ? 1 : 8;
        CHECK_OK(tfckpt_context_new(&options, &context, &error), error);
        CHECK(fake.set("pinned_limit", 1) == 0);
        CHECK(restore_and_count(prefix, context, as_job, TFCKPT_RESOURCE_EXHAUSTED) == NUM);
        CHECK(fake.set("pinned_limit", 0) == 0);

        /* The same with an error that is not about memory, and is there again whenever somebody tries. */
        CHECK(fake.set_faults(faults) == 0);
        CHECK(restore_and_count(prefix, context, as_job, TFCKPT_INTERNAL) == NUM);
        CHECK(fake.set_faults(NULL) == 0);
        CHECK(restore_and_count(prefix, context, as_job, TFCKPT_OK) == NUM);
        CHECK(model_is_complete(&model));
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
    use_the_same_buffers(prefix);
    run_out_for_all(prefix);
    model_free(&model);
    remove_scratch_folder(dir);
    return 0;
}
