/* As cuda_faults, of calls that take more of the driver: copies within the device, streams that wait for jobs, slices,
 * shards, a saver, and contexts that the library is given. */
#include "faults.h"

/* ---- Waits of streams ---- */

/* A wait fails with the driver's error if it is its own call that fails, or else with the job's. */
static void check_wait(tfckpt_code code, tfckpt_error *error)
{
    int is_drivers = error != NULL && strstr(tfckpt_error_message(error), "CUDA error ") != NULL;

    CHECK(code == TFCKPT_OK || is_drivers || code == TFCKPT_ABORTED || code == TFCKPT_CANCELLED);
    CHECK(code == TFCKPT_OK || error != NULL);
    tfckpt_error_free(error);
}

/* A stream waits for each tensor, and then runs into what became of it. */
static tfckpt_code do_restore_with_stream_waits(struct run *run)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code waits[MODEL_SIZE], code;
    tfckpt_job *job = NULL;

    options.context = run->context;
    options.in_request_order = 1;
    options.keep_going = run->keep_going;
    code = tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &run->error);
    if (code != TFCKPT_OK) {
        for (size_t i = 0; i < model.num; i++)
            run->codes[i] = TFCKPT_ABORTED;
        return code;
    }
    for (size_t i = 0; i < model.num; i++) {
        tfckpt_error *error = NULL;

        waits[i] = tfckpt_job_stream_wait(job, i, NULL, &error);
        check_wait(waits[i], error);
    }
    code = tfckpt_job_wait(job, FOREVER, &run->error);
    CHECK(tfckpt_job_codes(job, run->codes, model.num, NULL) == TFCKPT_OK);
    for (size_t i = 0; i < model.num; i++) {
        if (run->codes[i] == TFCKPT_OK)
            CHECK(holds(i, model.members[i].bytes));
        else if (waits[i] == TFCKPT_OK) /* its copies were enqueued, and failed when they ran */
            CHECK(code != TFCKPT_OK);
    }
    tfckpt_job_free(job);
    return code;
}

/* Copies within the devices; once a stream may go on, the tensors change. */
static tfckpt_code do_save_from_device_copies(struct run *run)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    options.context = run->context;
    options.no_sync = 1;
    options.device_snapshot = 1;
    code = tfckpt_save_async(saved, model_in_place(&model), model.num, &options, &job, &run->error);
    if (code != TFCKPT_OK) {
        CHECK(job == NULL && gpu_no_copies_left()); /* the tensors may change */
        return code;
    }
    for (int device = 0; device < gpu.num_devices; device++) {
        tfckpt_error *error = NULL;

        code = tfckpt_job_snapshot_stream_wait(job, device, NULL, &error);
        check_wait(code, error);
    }
    if (tfckpt_job_wait_snapshot(job, FOREVER, NULL) == TFCKPT_OK) {
        static unsigned char other[4 << 20]; /* zeros */

        for (size_t i = 0; i < model.num; i++) /* past the driver, which may not count these copies */
            if (model.members[i].device != HOST && model.members[i].size > 0)
                CHECK(fake.poke(model.members[i].address, other, model.members[i].size) == 0);
    }
    code = tfckpt_job_wait(job, FOREVER, &run->error);
    tfckpt_job_free(job);
    return code;
}

/* ---- Parts of tensors ---- */

/* The tensors in two halves each, as slices; returns how many. */
static size_t in_halves(tfckpt_tensor *tensors, char specs[][48], int64_t (*shapes)[1])
{
    size_t num = 0;

    for (size_t i = 0; i < model.num; i++) {
        const struct member *it = &model.members[i];
        int64_t half = it->shape[0] / 3;

        for (int second = 0; second < (it->size > 0 ? 2 : 1); second++, num++) {
            int64_t from = second ? half : 0, rows = second ? it->shape[0] - half : half;
            size_t offset = (size_t)from * sizeof(float), size = (size_t)rows * sizeof(float);

            shapes[num][0] = rows;
            if (it->device == HOST)
                tensors[num] = host_tensor(it->key, it->dtype, 1, shapes[num], it->host + offset, size);
            else
                tensors[num] = device_tensor(it->key, it->dtype, 1, shapes[num], it->device, it->address + offset, size);
            snprintf(specs[num], sizeof specs[num], "%" PRId64 " %" PRId64 ",%" PRId64, it->shape[0], from, rows);
            if (it->size > 0)
                tensors[num].slice_spec = specs[num];
        }
    }
    return num;
}

static tfckpt_tensor halves[2 * MODEL_SIZE];
static int64_t half_shapes[2 * MODEL_SIZE][1];
static char half_specs[2 * MODEL_SIZE][48];

/* Both halves of each tensor, read for themselves. */
static tfckpt_code do_restore_slices(struct run *run)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code codes[2 * MODEL_SIZE], code;
    size_t num = in_halves(halves, half_specs, half_shapes), at = 0;

    options.context = run->context;
    options.verify = TFCKPT_VERIFY_FETCHED;
    code = tfckpt_restore(prefix, halves, num, &options, run->keep_going ? codes : NULL, &run->error);
    for (size_t i = 0; i < model.num && run->keep_going; i++) {
        run->codes[i] = codes[at++];
        if (model.members[i].size > 0 && codes[at++] != TFCKPT_OK)
            run->codes[i] = codes[at - 1];
    }
    return code;
}

/* Partitioned tensors, in a file for each device. */
static tfckpt_code do_save_shards(struct run *run)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    size_t num = in_halves(halves, half_specs, half_shapes);

    options.context = run->context;
    options.no_sync = 1;
    options.shard_by_device = 1;
    return tfckpt_save(saved, halves, num, &options, NULL, &run->error);
}

/* Through the page cache or past it, with a sidecar. */
static tfckpt_code do_save_shards_durably(struct run *run)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    options.context = run->context;
    options.max_shard_size = 1 << 20;
    options.borrow = 1;
    code = tfckpt_save_async(saved, model_in_place(&model), model.num, &options, &job, &run->error);
    if (code != TFCKPT_OK)
        return code;
    code = tfckpt_job_wait(job, FOREVER, &run->error);
    tfckpt_job_free(job);
    return code;
}

/* ---- A saver ---- */

static tfckpt_code do_restore_with_a_saver(struct run *run)
{
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_saver *saver = NULL;
    tfckpt_code code;

    options.context = run->context;
    restore.stream_ordered = 1;
    code = tfckpt_saver_create(model_in_place(&model), model.num, NULL, 0, &options, &saver, &run->error);
    if (code == TFCKPT_OK)
        code = tfckpt_saver_restore(saver, prefix, &restore, &run->error);
    if (code != TFCKPT_OK)
        CHECK(gpu_no_copies_left());
    wait_for_copies(run);
    tfckpt_saver_free(saver);
    return code;
}

static tfckpt_code do_save_with_a_saver(struct run *run)
{
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_saver_save_options save = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_saver *saver = NULL;
    tfckpt_job *job = NULL;
    tfckpt_code code;

    options.context = run->context;
    save.device_snapshot = 1;
    save.no_sync = 1;
    save.no_state = 1;
    code = tfckpt_saver_create(model_in_place(&model), model.num, NULL, 0, &options, &saver, &run->error);
    if (code == TFCKPT_OK)
        code = tfckpt_saver_save_async(saver, saved, &save, &job, &run->error);
    if (code == TFCKPT_OK)
        code = tfckpt_job_wait(job, FOREVER, &run->error);
    tfckpt_job_free(job);
    tfckpt_saver_free(saver);
    return code;
}

static const struct scenario scenarios[] = {
    {"restore that streams wait for", do_restore_with_stream_waits, HAS_CODES},
    {"save from copies within the devices", do_save_from_device_copies, IS_SAVE},
    {"restore of slices", do_restore_slices, 0},
    {"save of shards of slices", do_save_shards, IS_SAVE},
    {"durable save of shards", do_save_shards_durably, IS_SAVE},
    {"a saver's restore", do_restore_with_a_saver, LEAVES_COPIES | HAS_NO_CODES},
    {"a saver's save from copies", do_save_with_a_saver, IS_SAVE},
};
enum { NUM_SCENARIOS = sizeof scenarios / sizeof *scenarios };

/* ---- An engine's own contexts ---- */

static void make_own_contexts(void)
{
    int (*create)(void **context, unsigned flags, int device) = NULL;

    gpu_find(&create, "cuCtxCreate_v2");
    for (int device = 0; device < gpu.num_devices; device++)
        CU(create(&gpu.contexts[device], 0, device));
    gpu_use(0);
}

static void destroy_own_contexts(void)
{
    int (*destroy)(void *context) = NULL;

    gpu_find(&destroy, "cuCtxDestroy_v2");
    for (int device = 0; device < gpu.num_devices; device++)
        CU(destroy(gpu.contexts[device]));
}

int main(int argc, char **argv)
{
    static const int64_t rows[] = {200000, 1000, 150000, 0, 60000};
    uint64_t seed, step;

    if (!start_faults(argc, argv, &seed, &step))
        return 0;
    run_scenarios(scenarios, NUM_SCENARIOS, gpu.num_devices, rows, 5, "primary contexts", seed, step);
    given_contexts = gpu.contexts;
    enter_given = make_own_contexts;
    make_own_contexts();
    run_scenarios(scenarios, 3, gpu.num_devices, rows, 5, "given contexts", seed + 1, step);
    destroy_own_contexts();
    end_faults(step);
    return 0;
}
