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

/* Tensors of the host go along: they are copied before the call returns. */
static void copy_the_hosts_too(const char *prefix, const tfckpt_context *context, const gpu_stream *streams)
{
    tfckpt_job *job;

    model_put(&model, 0);
    job = save_async(prefix, context, streams);
    for (size_t i = 0; i < model.num; i++)
        if (model.members[i].device == HOST)
            memset(model.members[i].host, POISON, model.members[i].size);
    go_on_training(job, streams);
    check(job, streams, prefix);
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
            copy_the_hosts_too(prefix, context, streams);
        else
            return_at_once(prefix, context, streams);
        do_without_room(prefix, context, streams);
        save_with_a_saver(prefix, context, streams);
        refuse_what_is_wrong(prefix, context, streams);
        model_free(&model);
    }
    tfckpt_context_free(context);
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
