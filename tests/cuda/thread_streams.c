/* Stream 2 is another one on each thread. A call, also one that starts a job, is ordered with that of the thread that makes
 * it, whatever threads do the work. */
#include "gate.h"
#include "model.h"

#include "../c/dl_tensor.h"

enum { SIZE = 3 << 20, BEFORE = 0x11, AFTER = 0x22 };
#define OWN ((gpu_stream)2)
#define LARGE (fake.reset != NULL ? (size_t)2 << 20 : (size_t)1 << 30) /* to keep a device busy for a moment */

static struct model model; /* two tensors */
static char prefix[PATH_SIZE], saved[PATH_SIZE];

/* The tensors, used on stream 2. */
static const tfckpt_tensor *on_own_stream(void)
{
    model_in_place(&model);
    for (size_t i = 0; i < model.num; i++)
        model.tensors[i].stream = OWN;
    return model.tensors;
}

/* Work that takes a while, and then sets the first tensor. */
static void keep_busy(gpu_address other, unsigned char value)
{
    for (int i = 0; i < 20; i++)
        CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, OWN));
    CU(gpu.cuMemsetD8Async(model.members[0].address, value, SIZE, OWN));
}

/* ---- On any driver: the order with this thread's work ---- */

static void restore_behind_own_work(gpu_address other)
{
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    void *out = NULL;

    CU(gpu.cuMemHostAlloc(&out, SIZE, 0));
    keep_busy(other, BEFORE);
    CHECK_OK(tfckpt_restore_async(prefix, on_own_stream(), 1, NULL, &job, &error), error);
    CHECK_OK(tfckpt_job_stream_wait(job, 0, OWN, &error), error);
    CU(gpu.cuMemcpyDtoHAsync(out, model.members[0].address, SIZE, OWN));
    CU(gpu.cuMemsetD8Async(model.members[0].address, AFTER, SIZE, OWN));
    CU(gpu.cuStreamSynchronize(OWN));
    CHECK(memcmp(out, model.members[0].bytes, SIZE) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CU(gpu.cuMemFreeHost(out));
}

/* A save in one of its three ways: what the thread's stream has written is saved, what it writes later is not. */
static void save_behind_own_work(gpu_address other, int way)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    unsigned char *bytes = (unsigned char *)allocate(SIZE);
    tfckpt_tensor tensor;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.borrow = way == 1;
    options.device_snapshot = way == 2;
    options.no_sync = 1;
    gpu_set(model.members[0].address, BEFORE, SIZE);
    keep_busy(other, AFTER);
    CHECK_OK(tfckpt_save_async(saved, on_own_stream(), 1, &options, &job, &error), error);
    CHECK_OK(tfckpt_job_snapshot_stream_wait(job, 0, OWN, &error), error);
    CU(gpu.cuMemsetD8Async(model.members[0].address, BEFORE, SIZE, OWN));
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CU(gpu.cuStreamSynchronize(OWN));
    tensor = *model_at_home(&model);
    tensor.data = bytes;
    CHECK_OK(tfckpt_restore(saved, &tensor, 1, NULL, NULL, &error), error);
    for (int i = 0; i < SIZE; i++)
        CHECK(bytes[i] == AFTER);
    free(bytes);
}

/* ---- On the fake: streams that stand still ---- */

/* Runs a function on a thread of its own, and waits for it. */
static void on_another_thread(void *(*run)(void *), void *argument)
{
    pthread_t thread;

    CHECK(pthread_create(&thread, NULL, run, argument) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* This thread's stream 2 is free, so nothing keeps these calls. */
static void *use_the_second_tensor(void *argument)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_tensor tensor;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    gpu_use(0);
    restore.context = save.context = (const tfckpt_context *)argument; /* frees nothing meanwhile: that waits for all */
    save.no_sync = 1;
    tensor = on_own_stream()[1];
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &restore, NULL, &error), error);
    CHECK_OK(tfckpt_restore_async(prefix, &tensor, 1, &restore, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CHECK(model_holds(&model, 1, 0));
    CHECK_OK(tfckpt_save(saved, &tensor, 1, &save, NULL, &error), error);
    CHECK_OK(tfckpt_save_async(saved, &tensor, 1, &save, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    return NULL;
}

/* A job of this thread writes nothing as long as this thread's stream stands; other threads' calls go on. */
static void hold_the_threads_stream(tfckpt_context *context)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    unsigned char *bytes = (unsigned char *)allocate(SIZE);
    uint64_t enqueued = gpu_stats().h2d_bytes;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    model_put(&model, 1);
    options.context = save.context = context;
    CHECK(fake.hold_stream(OWN, 1) == 0);
    CHECK_OK(tfckpt_restore_async(prefix, on_own_stream(), 1, &options, &job, &error), error);
    while (gpu_stats().h2d_bytes < enqueued + SIZE)
        sleep_ms(1);
    on_another_thread(use_the_second_tensor, context);
    sleep_ms(20); /* time for a mistake */
    CHECK(fake.peek(model.members[0].address, bytes, SIZE) == 0);
    CHECK(bytes[0] == POISON && bytes[SIZE - 1] == POISON);
    CHECK_FAILS(tfckpt_job_wait(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(fake.hold_stream(OWN, 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_job_free(job);

    /* Nor does a save read anything. */
    save.borrow = 1;
    save.no_sync = 1;
    CHECK(fake.hold_stream(OWN, 1) == 0);
    CU(gpu.cuMemsetD8Async(model.members[0].address, AFTER, SIZE, OWN));
    enqueued = gpu_stats().d2h_bytes;
    CHECK_OK(tfckpt_save_async(prefix, on_own_stream(), 1, &save, &job, &error), error);
    while (gpu_stats().d2h_bytes == enqueued)
        sleep_ms(1);
    sleep_ms(20);
    CHECK_FAILS(tfckpt_job_wait_snapshot(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(fake.hold_stream(OWN, 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    on_own_stream();
    model.tensors[0].data = bytes;
    model.tensors[0].device_type = TFCKPT_DEVICE_HOST;
    model.tensors[0].stream = NULL;
    CHECK_OK(tfckpt_restore(prefix, model.tensors, 1, NULL, NULL, &error), error);
    for (int i = 0; i < SIZE; i++)
        CHECK(bytes[i] == AFTER);
    model_save(&model, prefix);
    free(bytes);
}

/* The thread's stream waits for a job that another thread has started, or for a tensor that one was handed. */
struct waited {
    const tfckpt_job *job;
    const DLManagedTensorVersioned *tensor;
    gpu_address address;
};

static void *let_own_stream_wait(void *argument)
{
    const struct waited *waited = (const struct waited *)argument;
    tfckpt_error *error = NULL;
    void *out = NULL;

    gpu_use(0);
    CU(gpu.cuMemHostAlloc(&out, SIZE, 0));
    if (waited->job != NULL)
        CHECK_OK(tfckpt_job_stream_wait(waited->job, 0, OWN, &error), error);
    else
        CHECK_OK(tfckpt_dlpack_stream_wait(waited->tensor, OWN, &error), error);
    CU(gpu.cuMemcpyDtoHAsync(out, waited->address, SIZE, OWN));
    CHECK(fake.pending(OWN) >= 2); /* the wait, and the copy behind it */
    sleep_ms(20);
    fake.hold(0);
    CU(gpu.cuStreamSynchronize(OWN));
    CHECK(memcmp(out, model.members[0].bytes, SIZE) == 0);
    CU(gpu.cuMemFreeHost(out));
    return NULL;
}

static void let_another_thread_wait(tfckpt_context *context)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
    tfckpt_dlpack_options dlpack = TFCKPT_DLPACK_OPTIONS_INIT;
    struct waited waited = {NULL, NULL, model.members[0].address};
    DLManagedTensorVersioned *tensor = NULL;
    tfckpt_reader *reader = NULL;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    model_put(&model, 1);
    options.context = context;
    fake.hold(1);
    CHECK_OK(tfckpt_restore_async(prefix, on_own_stream(), 1, &options, &job, &error), error);
    waited.job = job;
    on_another_thread(let_own_stream_wait, &waited);
    CHECK(fake.pending(OWN) == 0); /* this thread's has nothing to wait for */
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    dlpack.restore = &options;
    options.stream_ordered = 1;
    request.key = model.members[0].key;
    request.key_size = strlen(request.key);
    request.device_type = TFCKPT_DEVICE_CUDA;
    request.stream = OWN;
    fake.hold(1);
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, &request, 1, &dlpack, &tensor, NULL, &error), error);
    CHECK(fake.pending(OWN) > 0); /* that of the request */
    waited.job = NULL;
    waited.tensor = tensor;
    waited.address = (gpu_address)(uintptr_t)tensor->dl_tensor.data;
    on_another_thread(let_own_stream_wait, &waited);
    tensor->deleter(tensor);
    tfckpt_reader_free(reader);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    struct fakecuda_stats before;
    tfckpt_context *context;
    gpu_address other;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    before = gpu_stats();
    model_add(&model, "first", TFCKPT_DTYPE_UINT8, SIZE, NONE, 0);
    model_add(&model, "second", TFCKPT_DTYPE_UINT8, SIZE, NONE, 0);
    model_save(&model, prefix);
    other = gpu_alloc(LARGE);
    restore_behind_own_work(other);
    for (int way = 0; way < 3; way++)
        save_behind_own_work(other, way);
    CU(gpu.cuMemFree(other));
    if (needs_the_fake("a stream that stands still")) {
        context = new_context(256 << 20); /* more than is needed: nothing that is kept has to go */
        hold_the_threads_stream(context);
        let_another_thread_wait(context);
        tfckpt_context_free(context);
    }
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
