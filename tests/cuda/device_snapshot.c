/* Saves a GPU's tensors from copies within the GPU: the call returns at once, and a stream is told when it may go on. */
#include "model.h"

static struct model model;

/* Begins a save; the tensors are used on `streams`, one of each device. */
static tfckpt_job *save_async(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_tensor tensors[MODEL_SIZE];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    memcpy(tensors, model_in_place(&model), model.num * sizeof *tensors);
    for (size_t i = 0; i < model.num; i++)
        if (model.members[i].device != HOST)
            tensors[i].stream = streams[model.members[i].device];
    options.context = context;
    options.device_snapshot = 1;
    options.no_sync = 1;
    CHECK_OK(tfckpt_save_async(prefix, tensors, model.num, &options, &job, &error), error);
    return job;
}

/* The next step of the training: enqueued at once, run when the copies have been made. */
static void go_on_training(const tfckpt_job *job, const gpu_stream *streams)
{
    tfckpt_error *error = NULL;

    for (int device = 0; device < gpu.num_devices; device++)
        CHECK_OK(tfckpt_job_snapshot_stream_wait(job, device, streams[device], &error), error);
    for (size_t i = 0; i < model.num; i++) {
        const struct member *it = &model.members[i];

        if (it->device == HOST || it->size == 0)
            continue;
        gpu_use(it->device);
        CU(gpu.cuMemsetD8Async(it->address, POISON, it->size, streams[it->device]));
    }
    gpu_use(0);
}

static void check(tfckpt_job *job, const gpu_stream *streams, const char *prefix)
{
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    for (int device = 0; device < gpu.num_devices; device++) {
        gpu_use(device);
        CU(gpu.cuStreamSynchronize(streams[device]));
    }
    gpu_use(0);
    model_check_checkpoint(&model, prefix);
    for (size_t i = 0; i < model.num; i++)
        CHECK(model.members[i].device == HOST || model_holds(&model, i, 1));
}

/* Nothing has run when the call returns, and everything comes in its order. */
static void return_at_once(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    uint64_t d2d = gpu_stats().d2d_copies;
    tfckpt_job *job;

    model_put(&model, 0);
    if (fake.reset != NULL)
        fake.hold(1);
    job = save_async(prefix, context, streams);
    CHECK(fake.reset == NULL || gpu_stats().d2d_copies > d2d);
    go_on_training(job, streams);
    if (fake.reset != NULL)
        fake.hold(0);
    check(job, streams, prefix);
}

/* Tensors of the host go along: they are copied before the call returns, which does not wait for the device, nor for room
 * for what is there already. */
static void copy_the_hosts_too(const char *prefix, const gpu_stream *streams)
{
    tfckpt_context *context = new_context(9 << 20); /* a third of the model */
    tfckpt_job *job;

    model_put(&model, 0);
    if (fake.reset != NULL)
        fake.hold(1);
    job = save_async(prefix, context, streams);
    for (size_t i = 0; i < model.num; i++)
        if (model.members[i].device == HOST)
            memset(model.members[i].host, POISON, model.members[i].size);
    go_on_training(job, streams);
    if (fake.reset != NULL)
        fake.hold(0);
    check(job, streams, prefix);
    tfckpt_context_free(context);
}

/* Hosts' tensors of all sizes, and strings among them, with a budget that holds copies of them, or does not. */
static void copy_what_is_large_too(const char *prefix, uint64_t max_host_bytes)
{
    enum { NUM_BYTES = 5000001, NUM_STRINGS = 3, NUM_TENSORS = 4 };
    static const int64_t bytes_shape[] = {NUM_BYTES}, strings_shape[] = {NUM_STRINGS}, few_shape[] = {3};
    static unsigned char bytes[2][NUM_BYTES], text[2][NUM_BYTES], few[2][3];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_context *context = new_context(max_host_bytes);
    tfckpt_string strings[NUM_STRINGS];
    tfckpt_strings *restored = NULL;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    gpu_address address = gpu_alloc(NUM_BYTES);
    size_t size;

    fill(bytes[0], NUM_BYTES, 1);
    fill(text[0], NUM_BYTES, 2);
    fill(few[0], sizeof few[0], 3);
    memcpy(bytes[1], bytes[0], NUM_BYTES);
    memcpy(text[1], text[0], NUM_BYTES);
    memcpy(few[1], few[0], sizeof few[0]);
    gpu_write(address, bytes[0], NUM_BYTES);
    memset(strings, 0, sizeof strings);
    strings[0].data = (const char *)text[1];
    strings[0].size = 10;
    strings[2].data = (const char *)text[1] + 10;
    strings[2].size = NUM_BYTES - 10;
    tensors[0] = host_tensor("bytes", TFCKPT_DTYPE_UINT8, 1, bytes_shape, bytes[1], NUM_BYTES);
    tensors[1] = device_tensor("device", TFCKPT_DTYPE_UINT8, 1, bytes_shape, 0, address, NUM_BYTES);
    tensors[2] = host_tensor("strings", TFCKPT_DTYPE_STRING, 1, strings_shape, strings, sizeof strings);
    tensors[3] = host_tensor("few", TFCKPT_DTYPE_UINT8, 1, few_shape, few[1], sizeof few[1]);
    options.context = context;
    options.device_snapshot = 1;
    options.chunk_checksums = 1;
    CHECK_OK(tfckpt_save_async(prefix, tensors, NUM_TENSORS, &options, &job, &error), error);
    memset(bytes[1], POISON, NUM_BYTES);
    memset(text[1], POISON, NUM_BYTES);
    memset(few[1], POISON, sizeof few[1]);
    memset(strings, 0, sizeof strings);
    CHECK_OK(tfckpt_job_wait_snapshot(job, FOREVER, &error), error);
    gpu_set(address, POISON, NUM_BYTES);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);

    tensors[2].data = &restored;
    tensors[2].size = sizeof restored;
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM_TENSORS, NULL, NULL, &error), error);
    CHECK(memcmp(bytes[1], bytes[0], NUM_BYTES) == 0 && memcmp(few[1], few[0], sizeof few[1]) == 0);
    CHECK(gpu_holds(address, bytes[0], NUM_BYTES));
    CHECK(memcmp(tfckpt_strings_get(restored, 0, &size), text[0], 10) == 0 && size == 10);
    CHECK(tfckpt_strings_get(restored, 1, &size) != NULL && size == 0);
    CHECK(memcmp(tfckpt_strings_get(restored, 2, &size), text[0] + 10, NUM_BYTES - 10) == 0 && size == NUM_BYTES - 10);
    tfckpt_strings_free(restored);
    tfckpt_context_free(context);
    CU(gpu.cuMemFree(address));
}

/* There seems to be room, but no piece of that size: as if there were none. */
static void do_without_one_piece(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    static const char *const faults[] = {"cuMemAlloc:1:2", "cuMemAlloc:2:2"};

    if (!needs_the_fake("an allocation that fails"))
        return;
    for (int i = 0; i < gpu.num_devices; i++) {
        uint64_t d2d = gpu_stats().d2d_copies;
        tfckpt_job *job;

        model_put(&model, 0);
        CHECK(fake.set_faults(faults[i]) == 0);
        job = save_async(prefix, context, streams);
        CHECK(fake.set_faults(NULL) == 0);
        go_on_training(job, streams);
        check(job, streams, prefix);
        CHECK(gpu_stats().d2d_copies == d2d);
    }
}

/* A device without room: the tensors are copied to the host, as without the option. */
static void do_without_room(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    uint64_t d2d = gpu_stats().d2d_copies;
    gpu_address rest = 0;
    tfckpt_job *job;

    if (!needs_the_fake("a device that is nearly full"))
        return;
    model_put(&model, 0);
    CU(gpu.cuMemAlloc(&rest, ((size_t)1 << 30) - ((size_t)64 << 20))); /* of 1 GiB, and 64 MiB are left to others */
    job = save_async(prefix, context, streams);
    go_on_training(job, streams);
    check(job, streams, prefix);
    CHECK(gpu_stats().d2d_copies == d2d);
    CU(gpu.cuMemFree(rest));
}

/* A saver does the same. */
static void save_with_a_saver(const char *path, const tfckpt_context *context, const gpu_stream *streams)
{
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_saver_save_options save = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_saver *saver = NULL;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.context = context;
    save.device_snapshot = 1;
    save.no_sync = 1;
    model_put(&model, 0);
    CHECK_OK(tfckpt_saver_create(model_in_place(&model), model.num, NULL, 0, &options, &saver, &error), error);
    CHECK_OK(tfckpt_saver_save_async(saver, path, &save, &job, &error), error);
    go_on_training(job, streams);
    check(job, streams, path);
    tfckpt_saver_free(saver);
}

/* Orders are refused where there is nothing to order with. */
static void refuse_what_is_wrong(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job;

    CHECK_FAILS(tfckpt_job_snapshot_stream_wait(NULL, 0, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "job is NULL");
    model_put(&model, 0);
    job = save_async(prefix, context, streams);
    if (needs_two_devices("a stream of another device"))
        CHECK_FAILS(tfckpt_job_snapshot_stream_wait(job, 0, streams[1], &error), TFCKPT_INVALID_ARGUMENT, error,
                    "the stream is of CUDA device 1, not of 0");
    go_on_training(job, streams);
    check(job, streams, prefix);
}

/* An engine's own context in place of the primary one. */
static void use_a_given_context(const char *prefix)
{
    tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    int (*create)(void **context, unsigned flags, int device) = NULL;
    int (*destroy)(void *context) = NULL;
    float values[1000];
    int64_t shape[1] = {1000};
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, shape, values, sizeof values);
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;
    uint64_t retained;
    void *own = NULL;
    gpu_address address;

    gpu_find(&create, "cuCtxCreate_v2");
    gpu_find(&destroy, "cuCtxDestroy_v2");
    CHECK(create != NULL && destroy != NULL);
    fill(values, sizeof values, 1);
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
    CU(create(&own, 0, 0)); /* it is current now */
    address = gpu_alloc(sizeof values);
    options.cuda_contexts = &own;
    options.num_cuda_contexts = 1;
    CHECK_OK(tfckpt_context_new(&options, &context, &error), error);
    retained = gpu_stats().retains[0];
    restore.context = context;
    tensor = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, shape, 0, address, sizeof values);
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &restore, NULL, &error), error);
    CHECK(gpu_holds(address, values, sizeof values));
    CHECK(gpu_stats().retains[0] == retained); /* the primary context is left alone */
    tfckpt_context_free(context);
    CU(gpu.cuMemFree(address));
    CU(destroy(own));
    gpu_use(0);

    own = NULL;
    options.num_cuda_contexts = 1;
    options.cuda_contexts = NULL;
    CHECK_FAILS(tfckpt_context_new(&options, &context, &error), TFCKPT_INVALID_ARGUMENT, error, "cuda_contexts");
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    gpu_stream streams[MAX_DEVICES];
    struct fakecuda_stats before;
    tfckpt_context *context;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    before = gpu_stats();
    for (int device = 0; device < gpu.num_devices; device++) {
        gpu_use(device);
        CU(gpu.cuStreamCreate(&streams[device], 1)); /* not ordered with the default stream */
    }
    gpu_use(0);
    context = new_context(96 << 20);
    for (int with_host = 0; with_host < 2; with_host++) {
        model_of_all_kinds(&model, gpu.num_devices, with_host);
        if (with_host)
            copy_the_hosts_too(prefix, streams);
        else
            return_at_once(prefix, context, streams);
        do_without_room(prefix, context, streams);
        do_without_one_piece(prefix, context, streams);
        save_with_a_saver(prefix, context, streams);
        refuse_what_is_wrong(prefix, context, streams);
        model_free(&model);
    }
    tfckpt_context_free(context);
    copy_what_is_large_too(prefix, 64 << 20);
    copy_what_is_large_too(prefix, 6 << 20);
    use_a_given_context(prefix);
    for (int device = 0; device < gpu.num_devices; device++) {
        gpu_use(device);
        CU(gpu.cuStreamDestroy(streams[device]));
    }
    gpu_use(0);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
