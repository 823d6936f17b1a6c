/* What a call does while it waits for copies, which come after work of the caller's and may take as long as that: it reports
 * progress, on a thread that stands to CUDA as the caller left it, it is told to stop, and it counts the time. */
#include "model.h"

#include <pthread.h>

enum { SMALL = 64 << 10, LARGE = 12 << 20, REPORTS = 6 };
enum { KIND_RESTORE, KIND_RESTORE_JOB, KIND_SAVE, KIND_SAVE_JOB, NUM_KINDS };

static struct model model; /* one tensor */
static char dir[PATH_SIZE], prefix[PATH_SIZE];
static gpu_stream stream; /* stands still on the fake until enough was reported */

/* What the progress callback has seen. */
static struct {
    struct gpu_thread thread;
    int has_thread, num_reports, cancels;
} seen;

static void go_on(void)
{
    if (fake.reset != NULL)
        CHECK(fake.hold_stream(stream, 0) == 0);
}

static int num_reports(void)
{
    return __atomic_load_n(&seen.num_reports, __ATOMIC_SEQ_CST);
}

static int32_t look(const tfckpt_progress *progress, void *user_data)
{
    (void)progress;
    (void)user_data;
    if (!seen.has_thread) /* that of a job */
        seen.thread = gpu_thread();
    seen.has_thread = 1;
    CHECK(gpu_same_thread(seen.thread));
    CHECK(!(seen.cancels && num_reports() >= REPORTS)); /* who has said no is not asked again */
    if (__atomic_add_fetch(&seen.num_reports, 1, __ATOMIC_SEQ_CST) < REPORTS)
        return 0;
    if (seen.cancels)
        return 1;
    go_on();
    return 0;
}

static tfckpt_code call(int kind, const tfckpt_context *context, tfckpt_stats *stats, tfckpt_error **error)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    const tfckpt_tensor *tensors = model_in_place(&model);
    tfckpt_job *job = NULL;
    tfckpt_code code;

    model.tensors[0].stream = stream;
    restore.context = save.context = context;
    restore.progress = save.progress = look;
    save.no_sync = 1;
    if (kind == KIND_RESTORE || kind == KIND_SAVE) {
        seen.thread = gpu_thread();
        seen.has_thread = 1;
        restore.stats = save.stats = stats;
        return kind == KIND_SAVE ? tfckpt_save(prefix, tensors, 1, &save, NULL, error)
                                 : tfckpt_restore(prefix, tensors, 1, &restore, NULL, error);
    }
    save.borrow = 1;
    if (kind == KIND_SAVE_JOB)
        CHECK_OK(tfckpt_save_async(prefix, tensors, 1, &save, &job, error), *error);
    else
        CHECK_OK(tfckpt_restore_async(prefix, tensors, 1, &restore, &job, error), *error);
    code = tfckpt_job_wait(job, FOREVER, error);
    CHECK(tfckpt_job_stats(job, stats, NULL) == TFCKPT_OK);
    tfckpt_job_free(job);
    return code;
}

/* A tensor in a checkpoint and on the device, poisoned there if it is to be restored, and a stream with work to do. */
static void begin(int kind, size_t size, int cancels)
{
    model_free(&model);
    model_add(&model, "weights", TFCKPT_DTYPE_UINT8, (int64_t)size, NONE, 0);
    model_save(&model, prefix);
    model_put(&model, kind == KIND_RESTORE || kind == KIND_RESTORE_JOB);
    gpu_use(gpu.num_devices - 1); /* if there are two, not that of the tensor */
    memset(&seen, 0, sizeof seen);
    seen.cancels = cancels;
    if (fake.reset != NULL)
        CHECK(fake.hold_stream(stream, 1) == 0);
}

/* With few buffers the call waits for one, with many for the copies at its end. */
static void report_while_waiting(int kind, size_t size, const tfckpt_context *context)
{
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    begin(kind, size, 0);
    CHECK_OK(call(kind, context, &stats, &error), error);
    gpu_use(0);
    if (fake.reset != NULL)
        CHECK(num_reports() >= REPORTS && stats.device_wait_ns > 1000000);
    CHECK(model_is_complete(&model));
    model_check_checkpoint(&model, prefix);
}

/* The stream goes on a little after the call was told to stop. */
static void *go_on_later(void *returned)
{
    while (num_reports() < REPORTS)
        sleep_ms(1);
    sleep_ms(30);
    CHECK(!__atomic_load_n((int *)returned, __ATOMIC_SEQ_CST)); /* the copies are yet to run */
    go_on();
    return NULL;
}

/* The call ends when the copies that are enqueued have run, and enqueues no more. */
static void cancel_while_waiting(int kind, size_t size, const tfckpt_context *context)
{
    char before[4096], after[4096];
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    int returned = 0;
    pthread_t thread;

    begin(kind, size, 1);
    list_folder(dir, before, sizeof before);
    CHECK(pthread_create(&thread, NULL, go_on_later, &returned) == 0);
    CHECK_FAILS(call(kind, context, &stats, &error), TFCKPT_CANCELLED, error, "");
    __atomic_store_n(&returned, 1, __ATOMIC_SEQ_CST);
    gpu_use(0);
    CHECK(gpu_no_copies_left());
    CHECK(pthread_join(thread, NULL) == 0);
    list_folder(dir, after, sizeof after);
    CHECK(strcmp(before, after) == 0);
    model_check_checkpoint(&model, prefix);
}

/* The caller takes its memory for its own when the call returns: the call does not rely on the first thing that it hears. */
static void wait_in_spite_of_an_error(int kind, const tfckpt_context *context)
{
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    uint64_t fired = fake.faults_fired();

    tfckpt_context_trim(context); /* of streams that would be looked at before */
    begin(kind, SMALL, 0);
    CHECK(fake.set_faults("cuStreamQuery:1:1") == 0);
    CHECK_OK(call(kind, context, &stats, &error), error);
    CHECK(fake.faults_fired() == fired + 1 && fake.set_faults(NULL) == 0);
    gpu_use(0);
    CHECK(gpu_no_copies_left() && model_is_complete(&model));
}

int main(int argc, char **argv)
{
    tfckpt_context *tight, *roomy;
    struct fakecuda_stats before;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    before = gpu_stats();
    tight = new_context(5 << 20);
    roomy = new_context(0);
    CU(gpu.cuStreamCreate(&stream, 1));
    for (int kind = 0; kind < NUM_KINDS; kind++) {
        report_while_waiting(kind, LARGE, tight);
        report_while_waiting(kind, SMALL, roomy);
        if (!needs_the_fake("a stream that stands still"))
            continue;
        cancel_while_waiting(kind, LARGE, tight);
        cancel_while_waiting(kind, SMALL, roomy);
        wait_in_spite_of_an_error(kind, roomy);
    }
    CU(gpu.cuStreamDestroy(stream));
    model_free(&model);
    tfckpt_context_free(tight);
    tfckpt_context_free(roomy);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
