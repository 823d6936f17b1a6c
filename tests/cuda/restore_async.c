/* Restores a model in the background and uses each layer as soon as it is there: the host waits for a tensor, or a stream
 * does, so that layer 0 runs while the last one is still being read. */
#include "gate.h"
#include "model.h"

enum { NUM_LAYERS = 8, LAYER = 1 << 18 }; /* floats: 1 MiB each */

static struct model model;

/* In the order of the request, on its own context if none is given. */
static tfckpt_job *restore_async(const char *prefix, const tfckpt_context *context, struct gate *gate)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.context = context;
    options.in_request_order = 1;
    if (gate != NULL) {
        options.progress = gate_pass;
        options.user_data = gate;
    }
    CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
    return job;
}

/* What it is for: wait for layer after layer. */
static void wait_for_each_layer(const char *prefix, const tfckpt_context *context)
{
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    tfckpt_job *job;

    model_put(&model, 1);
    job = restore_async(prefix, context, NULL);
    for (size_t i = 0; i < model.num; i++) {
        CHECK_OK(tfckpt_job_wait_tensor(job, i, FOREVER, &error), error);
        CHECK(model_holds(&model, i, 0));
    }
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK_OK(tfckpt_job_stats(job, &stats, &error), error);
    CHECK(stats.num_slots >= 1 && stats.bytes_verified == (uint64_t)NUM_LAYERS * LAYER * sizeof(float));
    CHECK_FAILS(tfckpt_job_wait_tensor(job, NUM_LAYERS, 0, &error), TFCKPT_INVALID_ARGUMENT, error, "no such tensor");
    CHECK_FAILS(tfckpt_job_stream_wait(job, NUM_LAYERS, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "no such tensor");
    tfckpt_job_free(job);
}

/* An engine's stream, and the page-locked memory that its work brings a layer to. */
struct engine {
    tfckpt_job *job;
    gpu_stream stream;
    unsigned char *out[NUM_LAYERS];
    int waits_done; /* stream waits that have returned */
    pthread_mutex_t mutex;
};

/* What an engine's thread does: for each layer, a wait and the work behind it. The host never waits for a copy. */
static void *enqueue_all(void *argument)
{
    struct engine *engine = (struct engine *)argument;
    tfckpt_error *error = NULL;

    gpu_use(0);
    for (size_t i = 0; i < NUM_LAYERS; i++) {
        CHECK_OK(tfckpt_job_stream_wait(engine->job, i, engine->stream, &error), error);
        CU(gpu.cuMemcpyDtoHAsync(engine->out[i], model.members[i].address, LAYER * sizeof(float), engine->stream));
        pthread_mutex_lock(&engine->mutex);
        engine->waits_done++;
        pthread_mutex_unlock(&engine->mutex);
    }
    return NULL;
}

static int waits_done(struct engine *engine)
{
    int done;

    pthread_mutex_lock(&engine->mutex);
    done = engine->waits_done;
    pthread_mutex_unlock(&engine->mutex);
    return done;
}

/* Streams wait for layers, and are asked to before the first byte has been read. */
static void let_a_stream_wait(const char *prefix, const tfckpt_context *context)
{
    struct gate gate = GATE_INIT;
    struct engine engine = {NULL, NULL, {NULL}, 0, PTHREAD_MUTEX_INITIALIZER};
    tfckpt_error *error = NULL;
    pthread_t thread;

    model_put(&model, 1);
    CU(gpu.cuStreamCreate(&engine.stream, 1)); /* non-blocking: no order with the default stream */
    for (int i = 0; i < NUM_LAYERS; i++)
        CU(gpu.cuMemHostAlloc((void **)&engine.out[i], LAYER * sizeof(float), 0));
    engine.job = restore_async(prefix, context, &gate);
    gate_wait(&gate); /* the job stands before its first read */
    CHECK(pthread_create(&thread, NULL, enqueue_all, &engine) == 0);
    CHECK_FAILS(tfckpt_job_wait_tensor(engine.job, 0, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK_FAILS(tfckpt_job_wait_tensor(engine.job, 0, 20000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(waits_done(&engine) == 0);
    gate_open(&gate);
    CHECK(pthread_join(thread, NULL) == 0);
    CU(gpu.cuStreamSynchronize(engine.stream));
    for (int i = 0; i < NUM_LAYERS; i++) {
        CHECK(memcmp(engine.out[i], model.members[i].bytes, LAYER * sizeof(float)) == 0);
        CU(gpu.cuMemFreeHost(engine.out[i]));
    }
    CHECK_OK(tfckpt_job_wait(engine.job, FOREVER, &error), error);
    tfckpt_job_free(engine.job);
    CU(gpu.cuStreamDestroy(engine.stream));
}

/* While copies are held up, a stream's wait returns as soon as they are enqueued, and the host's does not. */
static void wait_for_copies_that_take_long(const char *prefix, const tfckpt_context *context)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job;
    gpu_stream stream = NULL;
    void *out = NULL;

    if (!needs_the_fake("copies that take long"))
        return;
    model_put(&model, 1);
    CU(gpu.cuStreamCreate(&stream, 1));
    CU(gpu.cuMemHostAlloc(&out, LAYER * sizeof(float), 0));
    fake.hold(1);
    job = restore_async(prefix, context, NULL);
    CHECK_OK(tfckpt_job_stream_wait(job, 0, stream, &error), error);
    CU(gpu.cuMemcpyDtoHAsync(out, model.members[0].address, LAYER * sizeof(float), stream));
    for (int i = 0; i < 3; i++) {
        CHECK_FAILS(tfckpt_job_wait_tensor(job, 0, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
        CHECK_FAILS(tfckpt_job_wait_tensor(job, 0, 5000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
        CHECK_FAILS(tfckpt_job_wait(job, 5000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    }
    CHECK(fake.pending(stream) >= 2); /* the wait, and the copy behind it */
    fake.hold(0);
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(memcmp(out, model.members[0].bytes, LAYER * sizeof(float)) == 0);
    CHECK_OK(tfckpt_job_wait_tensor(job, 0, FOREVER, &error), error);
    CHECK(model_holds(&model, 0, 0));
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_job_free(job);
    CU(gpu.cuMemFreeHost(out));
    CU(gpu.cuStreamDestroy(stream));
}

struct self {
    struct gate gate;
    tfckpt_job *job;
    int num_calls;
};

/* The job's own thread is never kept waiting for itself. */
static int32_t wait_for_oneself(const tfckpt_progress *progress, void *user_data)
{
    struct self *self = (struct self *)user_data;
    tfckpt_error *error = NULL;

    if (self->num_calls++ > 0)
        return 0;
    gate_pass(progress, &self->gate);
    CHECK_FAILS(tfckpt_job_wait_tensor(self->job, 0, FOREVER, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK_FAILS(tfckpt_job_stream_wait(self->job, 0, NULL, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK_FAILS(tfckpt_job_stream_wait(self->job, 6, NULL, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    return 0;
}

static void let_the_job_wait_for_itself(const char *prefix)
{
    struct self self = {GATE_INIT, NULL, 0};
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.progress = wait_for_oneself;
    options.user_data = &self;
    CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &self.job, &error), error);
    gate_wait(&self.gate); /* before the first read */
    gate_open(&self.gate);
    CHECK_OK(tfckpt_job_wait(self.job, FOREVER, &error), error);
    CHECK(self.num_calls > 0);
    tfckpt_job_free(self.job);
}

/* A tensor that is damaged is known as such; those before and after it can be used. */
static void meet_a_damaged_tensor(const char *prefix, const char *data)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code codes[NUM_LAYERS];
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;

    flip_bit(data, 3 * (long)LAYER * 4 + 12345);
    model_put(&model, 1);
    options.in_request_order = 1;
    options.keep_going = 1;
    CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
    CHECK_OK(tfckpt_job_wait_tensor(job, 4, FOREVER, &error), error);
    CHECK_FAILS(tfckpt_job_wait_tensor(job, 3, FOREVER, &error), TFCKPT_DATA_LOSS, error, "layer_3");
    CHECK_FAILS(tfckpt_job_stream_wait(job, 3, NULL, &error), TFCKPT_DATA_LOSS, error, "layer_3");
    CHECK_OK(tfckpt_job_stream_wait(job, 2, NULL, &error), error);
    CHECK_FAILS(tfckpt_job_wait(job, FOREVER, &error), TFCKPT_DATA_LOSS, error, "layer_3");
    CHECK_OK(tfckpt_job_codes(job, codes, NUM_LAYERS, &error), error);
    for (size_t i = 0; i < NUM_LAYERS; i++) {
        CHECK(codes[i] == (i == 3 ? TFCKPT_DATA_LOSS : TFCKPT_OK));
        CHECK(i == 3 || model_holds(&model, i, 0));
    }
    tfckpt_job_free(job);
    flip_bit(data, 3 * (long)LAYER * 4 + 12345);
}

/* Streams that cannot wait: one of another device, one that is being captured. A capture elsewhere goes on. */
static void refuse_a_stream(const char *prefix)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job = restore_async(prefix, NULL, NULL);
    gpu_stream captured = NULL, stream = NULL;
    void *graph = NULL;

    CU(gpu.cuStreamCreate(&captured, 1));
    CU(gpu.cuStreamCreate(&stream, 1));
    CU(gpu.cuStreamBeginCapture(captured, 0)); /* globally: torch's default, and the strictest */
    CHECK_FAILS(tfckpt_job_stream_wait(job, 0, captured, &error), TFCKPT_FAILED_PRECONDITION, error, "captured");
    CHECK_OK(tfckpt_job_stream_wait(job, 0, stream, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CU(gpu.cuStreamEndCapture(captured, &graph));
    CU(gpu.cuGraphDestroy(graph));
    CU(gpu.cuStreamDestroy(captured));
    CU(gpu.cuStreamDestroy(stream));
    if (needs_two_devices("a stream of another device")) {
        gpu_use(1);
        CU(gpu.cuStreamCreate(&stream, 1));
        gpu_use(0);
        CHECK_FAILS(tfckpt_job_stream_wait(job, 0, stream, &error), TFCKPT_INVALID_ARGUMENT, error, "device 1");
        gpu_use(1);
        CU(gpu.cuStreamDestroy(stream));
        gpu_use(0);
    }
    tfckpt_job_free(job);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], data[PATH_SIZE];
    struct fakecuda_stats before;
    tfckpt_context *context;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(data, dir, "model.ckpt.data-00000-of-00001");
    before = gpu_stats();
    for (int i = 0; i < NUM_LAYERS; i++) {
        char key[32];

        snprintf(key, sizeof key, "layer_%d", i);
        model_add(&model, key, TFCKPT_DTYPE_FLOAT, LAYER, NONE, i == 6 ? HOST : 0);
    }
    /* A layer on the host is waited for as well; for the streams all are on the device. */
    model_save(&model, prefix);
    context = new_context(4 << 20);
    wait_for_each_layer(prefix, NULL);
    wait_for_each_layer(prefix, context);
    meet_a_damaged_tensor(prefix, data);
    refuse_a_stream(prefix);
    let_the_job_wait_for_itself(prefix);

    free(model.members[6].host);
    model.members[6].host = NULL;
    model.members[6].device = 0;
    model.members[6].address = gpu_alloc(model.members[6].size);
    let_a_stream_wait(prefix, NULL);
    let_a_stream_wait(prefix, context); /* far less memory than layers */
    wait_for_copies_that_take_long(prefix, NULL);
    wait_for_copies_that_take_long(prefix, context);

    tfckpt_context_free(context);
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
