/* One call for several devices: a table is split by columns over two of them, as tensor parallelism does it, and saved
 * again from both. */
#include "model.h"

enum { ROWS = 2000, COLUMNS = 1024, HALF = COLUMNS / 2 };

static const int64_t SHAPE[] = {ROWS, COLUMNS}, HALF_SHAPE[] = {ROWS, HALF};
static const char *const specs[2] = {"2000 1024 0,2000:0,512", "2000 1024 0,2000:512,512"};
static float table[ROWS][COLUMNS], halves[2][ROWS][HALF];
static struct model model;

static void describe_halves(tfckpt_tensor tensors[2], const gpu_address memory[2])
{
    for (int d = 0; d < 2; d++) {
        tensors[d] = device_tensor("table", TFCKPT_DTYPE_FLOAT, 2, HALF_SHAPE, d, memory[d], sizeof halves[d]);
        tensors[d].slice_spec = specs[d];
    }
}

static void split_a_table(const char *prefix, const char *parts)
{
    tfckpt_tensor whole = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, SHAPE, table, sizeof table), tensors[2];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    gpu_address memory[2];

    for (int r = 0; r < ROWS; r++) {
        for (int c = 0; c < COLUMNS; c++)
            table[r][c] = (float)(r * COLUMNS + c);
        memcpy(halves[0][r], table[r], sizeof halves[0][r]);
        memcpy(halves[1][r], table[r] + HALF, sizeof halves[1][r]);
    }
    for (int d = 0; d < 2; d++) {
        gpu_use(d);
        memory[d] = gpu_alloc(sizeof halves[d]);
    }
    CHECK_OK(tfckpt_save(prefix, &whole, 1, NULL, NULL, &error), error);
    describe_halves(tensors, memory);
    CHECK_OK(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), error);
    for (int d = 0; d < 2; d++) {
        gpu_use(d);
        CHECK(gpu_holds(memory[d], halves[d], sizeof halves[d]));
    }

    /* A data file for each device, all in one checkpoint of the whole table. */
    options.shard_by_device = 1;
    describe_halves(tensors, memory);
    CHECK_OK(tfckpt_save(parts, tensors, 2, &options, NULL, &error), error);
    memset(table, 0, sizeof table);
    CHECK_OK(tfckpt_restore(parts, &whole, 1, NULL, NULL, &error), error);
    for (int r = 0; r < ROWS; r++)
        for (int c = 0; c < COLUMNS; c++)
            CHECK(table[r][c] == (float)(r * COLUMNS + c));
    for (int d = 0; d < 2; d++) {
        gpu_use(d);
        CU(gpu.cuMemFree(memory[d]));
    }
    gpu_use(0);
}

/* Tensors on the host and on both devices, within one budget. */
static void mix(const char *prefix)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    restore.stats = save.stats = &stats;
    for (uint64_t mebibytes = 5; mebibytes <= 40; mebibytes += 7) {
        tfckpt_context *context = new_context(mebibytes << 20);

        restore.context = save.context = context;
        model_put(&model, 0);
        CHECK_OK(tfckpt_save(prefix, model_in_place(&model), model.num, &save, NULL, &error), error);
        CHECK(stats.num_slots >= 2 && stats.peak_host_bytes <= mebibytes << 20);
        model_put(&model, 1);
        CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &restore, NULL, &error), error);
        CHECK(stats.num_slots >= 2 && stats.peak_host_bytes <= mebibytes << 20);
        CHECK(model_is_complete(&model));
        tfckpt_context_free(context);
    }
}

/* A tensor that has arrived can be used, whatever keeps the copies to the other device. */
static void wait_beside_a_device_that_stands(const char *prefix)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;
    gpu_stream stream[2];

    if (!needs_the_fake("a device that stands still"))
        return;
    for (int d = 0; d < 2; d++) {
        gpu_use(d);
        CU(gpu.cuStreamCreate(&stream[d], 1));
    }
    gpu_use(0);
    model_put(&model, 1);
    model_in_place(&model);
    for (size_t i = 0; i < model.num; i++)
        if (model.members[i].device != HOST)
            model.tensors[i].stream = stream[model.members[i].device];
    CHECK(fake.hold_stream(stream[1], 1) == 0);
    CHECK_OK(tfckpt_restore_async(prefix, model.tensors, model.num, NULL, &job, &error), error);
    for (size_t i = 0; i < model.num; i++) {
        if (model.members[i].device == 1)
            continue;
        CHECK_OK(tfckpt_job_wait_tensor(job, i, FOREVER, &error), error);
        CHECK(model_holds(&model, i, 0));
        if (model.members[i].device == 0) {
            CHECK_OK(tfckpt_job_stream_wait(job, i, stream[0], &error), error);
            CU(gpu.cuStreamSynchronize(stream[0]));
        }
    }
    CHECK_FAILS(tfckpt_job_wait(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    CHECK(fake.hold_stream(stream[1], 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_job_free(job);
    for (int d = 0; d < 2; d++) {
        gpu_use(d);
        CU(gpu.cuStreamDestroy(stream[d]));
    }
    gpu_use(0);
}

/* Waits for a while until the device memory of a tensor holds what belongs there. */
static int arrives(const struct member *member)
{
    unsigned char *got = (unsigned char *)allocate(member->size);
    int holds = 0;

    for (int i = 0; i < 5000 && !holds; i++) {
        CHECK(fake.peek(member->address, got, member->size) == 0);
        holds = memcmp(got, member->bytes, member->size) == 0;
        if (!holds)
            sleep_ms(2);
    }
    free(got);
    return holds;
}

/* Each device has a data file, and the first one's copies stand still: what goes to the second arrives all the same. */
static void serve_one_while_the_other_stands_still(const char *prefix)
{
    enum { NUM = 8 };
    static struct model layers; /* 24 MB for each device, of which only a part fits the page-locked buffers */
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context_options resources = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    gpu_stream stream;

    if (!needs_the_fake("a stream that stands still"))
        return;
    memset(&layers, 0, sizeof layers);
    for (int i = 0; i < 2 * NUM; i++) {
        char key[32];

        snprintf(key, sizeof key, "layer_%02d/kernel", i);
        model_add(&layers, key, TFCKPT_DTYPE_FLOAT, 1000, 750, i / NUM);
    }
    model_put(&layers, 0);
    save.shard_by_device = 1;
    save.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, model_in_place(&layers), layers.num, &save, NULL, &error), error);
    model_put(&layers, 1);

    CU(gpu.cuStreamCreate(&stream, 1));
    CU(gpu.cuMemsetD8Async(layers.members[0].address, POISON, 1, stream));
    CHECK(fake.hold_stream(stream, 1) == 0);
    resources.max_host_bytes = 12 << 20;
    resources.num_threads = 3;
    CHECK_OK(tfckpt_context_new(&resources, &context, &error), error);
    options.context = context;
    model_in_place(&layers);
    layers.tensors[0].stream = stream; /* what the copies of device 0 come after */
    CHECK_OK(tfckpt_restore_async(prefix, layers.tensors, layers.num, &options, &job, &error), error);
    for (int i = NUM; i < 2 * NUM; i++)
        CHECK(arrives(&layers.members[i]));
    CHECK(tfckpt_job_wait(job, 0, NULL) == TFCKPT_DEADLINE_EXCEEDED);
    CHECK(model_holds(&layers, 0, 1));
    CHECK(fake.hold_stream(stream, 0) == 0);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&layers));
    tfckpt_job_free(job);
    CU(gpu.cuStreamDestroy(stream));
    tfckpt_context_free(context);
    model_free(&layers);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], parts[PATH_SIZE];
    struct fakecuda_stats before;

    gpu_start();
    if (!needs_two_devices("all of it"))
        return 0;
    before = gpu_stats();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(parts, dir, "parts.ckpt");
    split_a_table(prefix, parts);
    model_of_all_kinds(&model, 2, 1);
    mix(prefix);
    wait_beside_a_device_that_stands(prefix);
    model_free(&model);
    serve_one_while_the_other_stands_still(parts);
    CHECK(gpu_nothing_left(before));
    CHECK(gpu_stats().cross_device_copies == 0);
    remove_scratch_folder(dir);
    return 0;
}
