/* What stream_ordered promises when it does not return early: a call that fails has no copies under way, nor has one whose
 * tensors have no stream; a saver's saveables are told when their memory is complete. All with copies that stand still. */
#include "gate.h"
#include "model.h"

enum { SIZE = 300000 };

static struct model model; /* two tensors of SIZE bytes on the device, one on the host */

/* What a thread lets go on after a moment: a stream, or NULL for the device's work as a whole. */
struct hold {
    gpu_stream stream;
    pthread_t thread;
    pthread_mutex_t mutex;
    int is_over;
};

static void *let_go(void *argument)
{
    struct hold *hold = (struct hold *)argument;

    sleep_ms(50);
    pthread_mutex_lock(&hold->mutex);
    hold->is_over = 1;
    pthread_mutex_unlock(&hold->mutex);
    if (hold->stream != NULL)
        CHECK(fake.hold_stream(hold->stream, 0) == 0);
    else
        fake.hold(0);
    return NULL;
}

static void hold_start(struct hold *hold, gpu_stream stream)
{
    hold->stream = stream;
    hold->is_over = 0;
    CHECK(pthread_mutex_init(&hold->mutex, NULL) == 0);
    if (stream != NULL)
        CHECK(fake.hold_stream(stream, 1) == 0);
    else
        fake.hold(1);
    CHECK(pthread_create(&hold->thread, NULL, let_go, hold) == 0);
}

static int hold_is_over(struct hold *hold)
{
    int is_over;

    pthread_mutex_lock(&hold->mutex);
    is_over = hold->is_over;
    pthread_mutex_unlock(&hold->mutex);
    return is_over;
}

static void hold_end(struct hold *hold)
{
    CHECK(pthread_join(hold->thread, NULL) == 0);
    CHECK(pthread_mutex_destroy(&hold->mutex) == 0);
}

/* Whether device memory holds the bytes now; it does not wait for anything. */
static int is_complete_now(size_t i)
{
    static unsigned char bytes[SIZE];

    CHECK(fake.peek(model.members[i].address, bytes, SIZE) == 0);
    return memcmp(bytes, model.members[i].bytes, SIZE) == 0;
}

static tfckpt_tensor *on_stream(gpu_stream stream, uint32_t flags)
{
    model_in_place(&model);
    for (size_t i = 0; i < 2; i++) {
        model.tensors[i].stream = stream;
        model.tensors[i].flags = flags;
    }
    return model.tensors;
}

static tfckpt_restore_options ordered(const tfckpt_context *context)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;

    options.context = context;
    options.stream_ordered = 1;
    return options;
}

/* Nobody could tell when copies end that come before no stream of the caller's. */
static void restore_without_a_stream(const char *prefix, const tfckpt_context *context)
{
    tfckpt_restore_options options = ordered(context);
    tfckpt_error *error = NULL;
    struct hold hold;

    model_put(&model, 1);
    hold_start(&hold, NULL);
    CHECK_OK(tfckpt_restore(prefix, on_stream(NULL, TFCKPT_TENSOR_UNORDERED), model.num, &options, NULL, &error), error);
    CHECK(hold_is_over(&hold) && is_complete_now(0) && is_complete_now(1));
    hold_end(&hold);
}

/* A tensor is damaged; who is told may free the memory of all of them. */
static void fail(const char *prefix, const char *data, const tfckpt_context *context, gpu_stream stream, int with_codes)
{
    tfckpt_restore_options options = ordered(context);
    tfckpt_code codes[3];
    tfckpt_error *error = NULL;
    struct hold hold;

    flip_bit(data, 2 * (long)SIZE + 5); /* the one on the host */
    model_put(&model, 1);
    hold_start(&hold, stream);
    CHECK_FAILS(tfckpt_restore(prefix, on_stream(stream, 0), model.num, &options, with_codes ? codes : NULL, &error),
                TFCKPT_DATA_LOSS, error, "c");
    CHECK(hold_is_over(&hold));
    if (with_codes) {
        CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_OK && codes[2] == TFCKPT_DATA_LOSS);
        CHECK(is_complete_now(0) && is_complete_now(1));
    }
    hold_end(&hold);
    CU(gpu.cuStreamSynchronize(stream));
    flip_bit(data, 2 * (long)SIZE + 5);
}

/* ---- Savers ---- */

/* A saver of tensors alone returns early, as a restore does. */
static void restore_a_saver(const char *prefix, const tfckpt_context *context, gpu_stream stream)
{
    tfckpt_restore_options options = ordered(context);
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;

    model_put(&model, 1);
    CHECK_OK(tfckpt_saver_create(on_stream(stream, 0), model.num, NULL, 0, NULL, &saver, &error), error);
    CHECK(fake.hold_stream(stream, 1) == 0);
    CHECK_OK(tfckpt_saver_restore(saver, prefix, &options, &error), error);
    CHECK(!is_complete_now(0) && !is_complete_now(1) && model_holds(&model, 2, 0));
    CHECK(fake.hold_stream(stream, 0) == 0);
    CU(gpu.cuStreamSynchronize(stream));
    CHECK(model_is_complete(&model));
    tfckpt_saver_free(saver);
}

struct part {
    struct hold *hold;
    gpu_stream stream;
    int was_told;
};

static int32_t part_save(tfckpt_tensor *tensors, size_t num_tensors, void *user_data)
{
    (void)tensors, (void)num_tensors, (void)user_data;
    return 1;
}

static int32_t part_restore(tfckpt_tensor *tensors, size_t num_tensors, void *user_data)
{
    struct part *part = (struct part *)user_data;

    CHECK(num_tensors == 1);
    tensors[0] = on_stream(part->stream, 0)[0];
    return 0;
}

static void part_finish(tfckpt_code code, void *user_data)
{
    struct part *part = (struct part *)user_data;

    CHECK(code == TFCKPT_OK && hold_is_over(part->hold) && is_complete_now(0));
    part->was_told = 1;
}

/* A saveable is told that its memory is complete when it is. */
static void restore_a_saveable(const char *prefix, const tfckpt_context *context, gpu_stream stream)
{
    tfckpt_restore_options options = ordered(context);
    tfckpt_saveable saveable = TFCKPT_SAVEABLE_INIT;
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;
    tfckpt_tensor tensor = on_stream(stream, 0)[0];
    struct hold hold;
    struct part part = {&hold, stream, 0};

    saveable.name = "part";
    saveable.tensors = &tensor;
    saveable.num_tensors = 1;
    saveable.save = part_save;
    saveable.restore = part_restore;
    saveable.finish = part_finish;
    saveable.user_data = &part;
    model_put(&model, 1);
    CHECK_OK(tfckpt_saver_create(NULL, 0, &saveable, 1, NULL, &saver, &error), error);
    hold_start(&hold, stream);
    CHECK_OK(tfckpt_saver_restore(saver, prefix, &options, &error), error);
    CHECK(part.was_told);
    hold_end(&hold);
    tfckpt_saver_free(saver);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], data[PATH_SIZE];
    struct fakecuda_stats before;
    tfckpt_context *context;
    gpu_stream stream = NULL;

    gpu_start();
    if (!needs_the_fake("all of it"))
        return 0;
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(data, dir, "model.ckpt.data-00000-of-00001");
    before = gpu_stats();
    context = new_context(32 << 20);
    CU(gpu.cuStreamCreate(&stream, 1));
    model_add(&model, "a", TFCKPT_DTYPE_UINT8, SIZE, NONE, 0);
    model_add(&model, "b", TFCKPT_DTYPE_UINT8, SIZE, NONE, 0);
    model_add(&model, "c", TFCKPT_DTYPE_UINT8, SIZE, NONE, HOST);
    model_save(&model, prefix);
    restore_without_a_stream(prefix, context);
    fail(prefix, data, context, stream, 0);
    fail(prefix, data, context, stream, 1);
    restore_a_saver(prefix, context, stream);
    restore_a_saveable(prefix, context, stream);
    CU(gpu.cuStreamDestroy(stream));
    tfckpt_context_free(context);
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
