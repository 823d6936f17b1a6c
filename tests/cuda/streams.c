/* The order between a call's copies and the caller's streams: behind what was enqueued before the call, and, if asked for,
 * before what is enqueued after it without waiting on the host. */
#include "gate.h"
#include "model.h"

enum { SIZE = 3 << 20, BEFORE = 0x11, AFTER = 0x22 };
#define LARGE (fake.reset != NULL ? (size_t)2 << 20 : (size_t)1 << 30) /* to keep a device busy for a moment */

static struct model model; /* one tensor */

static const tfckpt_tensor *on_stream(gpu_stream stream, uint32_t flags)
{
    model_in_place(&model);
    model.tensors[0].stream = stream;
    model.tensors[0].flags = flags;
    return model.tensors;
}

/* The tensor is still being written on its stream when it is to be restored: the restore comes last. */
static void restore_after_pending_work(const char *prefix, gpu_stream stream)
{
    gpu_address other = gpu_alloc(LARGE), address = model.members[0].address;
    tfckpt_error *error = NULL;

    for (int i = 0; i < 20; i++)
        CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
    CU(gpu.cuMemsetD8Async(address, BEFORE, SIZE, stream));
    CHECK_OK(tfckpt_restore(prefix, on_stream(stream, 0), 1, NULL, NULL, &error), error);
    CHECK(model_is_complete(&model));
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(model_is_complete(&model));
    CU(gpu.cuMemFree(other));
}

/* The same of a save: what the stream writes is what is saved. */
static void save_after_pending_work(const char *prefix, gpu_stream stream)
{
    gpu_address other = gpu_alloc(LARGE), address = model.members[0].address;
    unsigned char *saved = (unsigned char *)allocate(SIZE);
    tfckpt_tensor tensor;
    tfckpt_error *error = NULL;

    gpu_set(address, BEFORE, SIZE);
    for (int i = 0; i < 20; i++)
        CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
    CU(gpu.cuMemsetD8Async(address, AFTER, SIZE, stream));
    CHECK_OK(tfckpt_save(prefix, on_stream(stream, 0), 1, NULL, NULL, &error), error);
    tensor = *model_at_home(&model);
    tensor.data = saved;
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
    for (int i = 0; i < SIZE; i++)
        CHECK(saved[i] == AFTER);
    CU(gpu.cuMemFree(other));
    free(saved);
}

/* The call returns while the copies are waiting, and what comes on the stream afterwards finds the tensor complete. */
static void return_before_the_copies(const char *prefix, gpu_stream stream)
{
    gpu_address other = gpu_alloc(LARGE), address = model.members[0].address;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(32 << 20);
    tfckpt_error *error = NULL;
    void *out = NULL;

    CU(gpu.cuMemHostAlloc(&out, SIZE, 0));
    options.context = context;
    options.stream_ordered = 1;
    for (int round = 0; round < 4; round++) {
        memset(out, 0, SIZE);
        for (int i = 0; i < 20; i++)
            CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
        CU(gpu.cuMemsetD8Async(address, BEFORE, SIZE, stream));
        CHECK_OK(tfckpt_restore(prefix, on_stream(stream, 0), 1, &options, NULL, &error), error);
        CU(gpu.cuMemcpyDtoHAsync(out, address, SIZE, stream));
        CU(gpu.cuMemsetD8Async(address, AFTER, SIZE, stream));
        CU(gpu.cuStreamSynchronize(stream));
        CHECK(memcmp(out, model.members[0].bytes, SIZE) == 0);
    }
    /* The context may go before the copies have run. */
    for (int i = 0; i < 20; i++)
        CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
    CHECK_OK(tfckpt_restore(prefix, on_stream(stream, 0), 1, &options, NULL, &error), error);
    tfckpt_context_free(context);
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(model_is_complete(&model));
    CU(gpu.cuMemFreeHost(out));
    CU(gpu.cuMemFree(other));
}

/* A saver's restore does the same, on the streams of the saver's tensors. */
static void return_before_a_savers_copies(const char *prefix, gpu_stream stream)
{
    gpu_address other = gpu_alloc(LARGE), address = model.members[0].address;
    tfckpt_saver_options saver_options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(32 << 20);
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;
    void *out = NULL;

    CU(gpu.cuMemHostAlloc(&out, SIZE, 0));
    saver_options.context = context;
    options.stream_ordered = 1;
    CHECK_OK(tfckpt_saver_create(on_stream(stream, 0), 1, NULL, 0, &saver_options, &saver, &error), error);
    for (int round = 0; round < 2; round++) {
        uint64_t executed = gpu_stats().copies_executed;

        if (fake.reset != NULL)
            CHECK(fake.hold_stream(stream, 1) == 0);
        for (int i = 0; i < 20; i++)
            CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
        CU(gpu.cuMemsetD8Async(address, BEFORE, SIZE, stream));
        CHECK_OK(tfckpt_saver_restore(saver, prefix, &options, &error), error);
        CHECK(gpu_stats().copies_executed == executed);
        if (fake.reset != NULL)
            CHECK(fake.hold_stream(stream, 0) == 0);
        CU(gpu.cuMemcpyDtoHAsync(out, address, SIZE, stream));
        CU(gpu.cuMemsetD8Async(address, AFTER, SIZE, stream));
        CU(gpu.cuStreamSynchronize(stream));
        CHECK(memcmp(out, model.members[0].bytes, SIZE) == 0);
    }
    tfckpt_saver_free(saver);
    tfckpt_context_free(context);
    CU(gpu.cuMemFreeHost(out));
    CU(gpu.cuMemFree(other));
}

/* ---- With a stream that stands still, on the fake ---- */

/* Waits until the library has enqueued its copies, and then a little for one that does not wait as it should. */
static void wait_until_enqueued(uint64_t bytes_before, int to_device)
{
    uint64_t bytes;

    do {
        struct fakecuda_stats stats = gpu_stats();

        bytes = to_device ? stats.h2d_bytes : stats.d2h_bytes;
        sleep_ms(1);
    } while (bytes < bytes_before + SIZE);
    sleep_ms(20);
}

static void hold_the_stream(const char *prefix, gpu_stream stream)
{
    gpu_address address = model.members[0].address;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_context *context = new_context(32 << 20);
    unsigned char *bytes = (unsigned char *)allocate(SIZE);
    tfckpt_tensor tensor;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    uint64_t enqueued;

    /* A restore in the background: nothing is written as long as the stream stands. */
    gpu_set(address, POISON, SIZE);
    CHECK(fake.hold_stream(stream, 1) == 0);
    CU(gpu.cuMemsetD8Async(address, BEFORE, SIZE, stream));
    enqueued = gpu_stats().h2d_bytes;
    CHECK_OK(tfckpt_restore_async(prefix, on_stream(stream, 0), 1, NULL, &job, &error), error);
    wait_until_enqueued(enqueued, 1);
    CHECK(fake.peek(address, bytes, SIZE) == 0);
    CHECK(bytes[0] == POISON && bytes[SIZE - 1] == POISON);
    CHECK_FAILS(tfckpt_job_wait(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(fake.hold_stream(stream, 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(model_is_complete(&model));

    /* A save in the background reads nothing before that. */
    CHECK(fake.hold_stream(stream, 1) == 0);
    CU(gpu.cuMemsetD8Async(address, AFTER, SIZE, stream));
    enqueued = gpu_stats().d2h_bytes;
    save.borrow = 1;
    save.no_sync = 1;
    save.context = context;
    CHECK_OK(tfckpt_save_async(prefix, on_stream(stream, 0), 1, &save, &job, &error), error);
    while (gpu_stats().d2h_bytes == enqueued)
        sleep_ms(1);
    sleep_ms(20);
    CHECK_FAILS(tfckpt_job_wait_snapshot(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(fake.hold_stream(stream, 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    tensor = *model_at_home(&model);
    tensor.data = bytes;
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
    for (int i = 0; i < SIZE; i++)
        CHECK(bytes[i] == AFTER);
    model_save(&model, prefix);

    /* A tensor without an order does not wait: the call returns while the stream stands. */
    gpu_set(address, POISON, SIZE);
    CHECK(fake.hold_stream(stream, 1) == 0);
    CU(gpu.cuMemsetD8Async(address, AFTER, SIZE, stream)); /* the caller's mistake, to see the order */
    options.context = context; /* keeps its memory: freeing it waits for all work of the device, by CUDA's rules */
    CHECK_OK(tfckpt_restore(prefix, on_stream(stream, TFCKPT_TENSOR_UNORDERED), 1, &options, NULL, &error), error);
    CHECK(fake.peek(address, bytes, SIZE) == 0 && memcmp(bytes, model.members[0].bytes, SIZE) == 0);
    CHECK(fake.hold_stream(stream, 0) == 0);
    CU(gpu.cuStreamSynchronize(stream));

    /* stream_ordered: the call returns, the copies do not run before the stream goes on. */
    gpu_set(address, POISON, SIZE);
    CHECK(fake.hold_stream(stream, 1) == 0);
    CU(gpu.cuMemsetD8Async(address, BEFORE, SIZE, stream));
    options.stream_ordered = 1;
    CHECK_OK(tfckpt_restore(prefix, on_stream(stream, 0), 1, &options, NULL, &error), error);
    sleep_ms(20);
    CHECK(fake.peek(address, bytes, SIZE) == 0 && bytes[0] == POISON && bytes[SIZE - 1] == POISON);
    CHECK(fake.hold_stream(stream, 0) == 0);
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(model_is_complete(&model));

    tfckpt_context_free(context);
    free(bytes);
}

/* A call that is ordered with nothing does not wait for copies that an earlier one has left behind, neither on its stream nor
 * for its buffers, of which there are as many again. */
static void do_not_wait_for_others(const char *prefix, gpu_stream stream)
{
    gpu_address address = model.members[0].address, other = gpu_alloc(SIZE);
    tfckpt_context_options with = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    unsigned char *bytes = (unsigned char *)allocate(SIZE);
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;
    uint64_t made;

    with.max_host_bytes = 12 << 20;
    with.num_threads = 1; /* as many buffers are wanted each time: three, of which two are left behind */
    CHECK_OK(tfckpt_context_new(&with, &context, &error), error);
    options.context = context;
    for (int round = 0; round < 3; round++) {
        gpu_set(address, POISON, SIZE);
        gpu_set(other, POISON, SIZE);
        CHECK(fake.hold_stream(stream, 1) == 0);
        options.stream_ordered = 1;
        CHECK_OK(tfckpt_restore(prefix, on_stream(stream, 0), 1, &options, NULL, &error), error);
        options.stream_ordered = 0;
        made = fake.calls("cuMemHostAlloc");
        for (int again = 0; again < 2; again++) {
            on_stream(stream, TFCKPT_TENSOR_UNORDERED);
            model.tensors[0].data = (void *)(uintptr_t)other;
            CHECK_OK(tfckpt_restore(prefix, model.tensors, 1, &options, NULL, &error), error);
            CHECK(fake.peek(other, bytes, SIZE) == 0 && memcmp(bytes, model.members[0].bytes, SIZE) == 0);
        }
        CHECK(round == 0 || fake.calls("cuMemHostAlloc") == made); /* by now there are enough */
        CHECK(fake.peek(address, bytes, SIZE) == 0 && bytes[0] == POISON && bytes[SIZE - 1] == POISON);
        CHECK(fake.hold_stream(stream, 0) == 0);
        CU(gpu.cuStreamSynchronize(stream));
        CHECK(model_is_complete(&model));
    }
    tfckpt_context_free(context);
    CU(gpu.cuMemFree(other));
    free(bytes);
}

/* ---- Streams that cannot be used ---- */

static void refuse_streams(const char *prefix)
{
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    gpu_stream captured = NULL, other = NULL;
    void *graph = NULL;

    /* One that is being captured. The capture, the strictest there is, is not broken, not even by calls that work. */
    gpu_set(model.members[0].address, POISON, SIZE);
    CU(gpu.cuStreamCreate(&captured, 1));
    CU(gpu.cuStreamCreate(&other, 1));
    CU(gpu.cuStreamBeginCapture(captured, 0));
    save.no_sync = 1;
    CHECK_FAILS(tfckpt_restore(prefix, on_stream(captured, 0), 1, NULL, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                "captured");
    CHECK_FAILS(tfckpt_save(prefix, on_stream(captured, 0), 1, &save, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                "captured");
    CHECK_FAILS(tfckpt_restore_async(prefix, on_stream(captured, 0), 1, NULL, &job, &error), TFCKPT_FAILED_PRECONDITION,
                error, "captured");
    CHECK_OK(tfckpt_restore(prefix, on_stream(other, 0), 1, NULL, NULL, &error), error);
    CHECK_OK(tfckpt_save(prefix, on_stream(other, 0), 1, &save, NULL, &error), error);
    CHECK_OK(tfckpt_restore_async(prefix, on_stream(other, 0), 1, NULL, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CHECK_OK(tfckpt_save_async(prefix, on_stream(other, 0), 1, &save, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CU(gpu.cuStreamEndCapture(captured, &graph));
    CU(gpu.cuGraphDestroy(graph));
    CU(gpu.cuStreamDestroy(captured));
    CU(gpu.cuStreamDestroy(other));
    CHECK(model_is_complete(&model));

    /* One of another device. */
    if (needs_two_devices("a stream of another device")) {
        gpu_use(1);
        CU(gpu.cuStreamCreate(&other, 1));
        gpu_use(0);
        CHECK_FAILS(tfckpt_restore(prefix, on_stream(other, 0), 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                    "the stream is of CUDA device 1, not of 0");
        CHECK_FAILS(tfckpt_save(prefix, on_stream(other, 0), 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                    "tensor");
        CHECK(model_is_complete(&model));
        gpu_use(1);
        CU(gpu.cuStreamDestroy(other));
        gpu_use(0);
    }

    /* Jobs order streams by tfckpt_job_stream_wait; tensors on the host have none. */
    options.stream_ordered = 1;
    CHECK_FAILS(tfckpt_restore_async(prefix, on_stream(NULL, 0), 1, &options, &job, &error), TFCKPT_INVALID_ARGUMENT, error,
                "stream_ordered");
    model_at_home(&model);
    model.tensors[0].stream = &job;
    CHECK_FAILS(tfckpt_restore(prefix, model.tensors, 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "stream");
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], other[PATH_SIZE];
    struct fakecuda_stats before;
    gpu_stream streams[4] = {NULL, (gpu_stream)1, (gpu_stream)2, NULL};

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(other, dir, "other.ckpt");
    before = gpu_stats();
    CU(gpu.cuStreamCreate(&streams[3], 1));
    model_add(&model, "weights", TFCKPT_DTYPE_UINT8, SIZE, NONE, 0);
    model_save(&model, prefix);
    for (int i = 0; i < 4; i++) { /* the legacy default stream by both names, this thread's, and one of our own */
        restore_after_pending_work(prefix, streams[i]);
        save_after_pending_work(other, streams[i]);
        return_before_the_copies(prefix, streams[i]);
        return_before_a_savers_copies(prefix, streams[i]);
    }
    if (needs_the_fake("a stream that stands still")) {
        hold_the_stream(prefix, streams[3]);
        do_not_wait_for_others(prefix, streams[3]);
    }
    refuse_streams(prefix);
    CU(gpu.cuStreamDestroy(streams[3]));
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
