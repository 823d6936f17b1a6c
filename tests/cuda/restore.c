/* Restores tensors straight to a GPU: of several dtypes and sizes, beside others that stay on the host. */
#include "model.h"

static struct model model;

/* The simple call: it makes a context for itself, and all is there when it returns. */
static void restore_once(const char *prefix)
{
    struct fakecuda_stats before = gpu_stats();
    uint64_t allocations = gpu_allocations();
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, NULL, NULL, &error), error);
    CHECK(gpu_allocations() == allocations);
    CHECK(model_is_complete(&model));
    CHECK(gpu_nothing_left(before));
}

/* A context keeps the page-locked memory, which takes longer to make than to use, and a reader the open checkpoint. */
static void restore_again_and_again(const char *prefix)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_reader_options reader_options = TFCKPT_READER_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_context *context = new_context(64 << 20);
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;
    uint64_t bytes = 0;

    for (size_t i = 0; i < model.num; i++)
        bytes += model.members[i].size;
    reader_options.context = context;
    options.stats = &stats;
    CHECK_OK(tfckpt_reader_open(prefix, &reader_options, &reader, &error), error);
    for (int verify = TFCKPT_VERIFY_FULL; verify <= TFCKPT_VERIFY_NONE; verify++) {
        options.verify = verify;
        model_put(&model, 1);
        CHECK_OK(tfckpt_reader_restore(reader, model_in_place(&model), model.num, &options, NULL, &error), error);
        CHECK(model_is_complete(&model));
        CHECK(stats.bytes == bytes && stats.num_tensors == model.num);
        CHECK(stats.bytes_device == model_device_bytes(&model));
        CHECK(stats.bytes_verified == (verify == TFCKPT_VERIFY_NONE ? 0 : bytes));
        CHECK(stats.bytes_unverified == (verify == TFCKPT_VERIFY_NONE ? bytes : 0));
        CHECK(stats.num_slots >= 1 && stats.num_retries == 0);
        CHECK(stats.peak_pinned_bytes > 0 && stats.peak_pinned_bytes <= stats.peak_host_bytes);
        CHECK(stats.peak_host_bytes <= 64 << 20);
    }
    tfckpt_reader_free(reader);
    tfckpt_context_free(context);
    CHECK(gpu_nothing_left(before));
}

/* With codes, a tensor that is not there does not keep the others. */
static void restore_what_there_is(const char *prefix)
{
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error = NULL;

    model_put(&model, 1);
    model_in_place(&model);
    model.tensors[6].key_size--;
    CHECK_FAILS(tfckpt_restore(prefix, model.tensors, model.num, NULL, codes, &error), TFCKPT_NOT_FOUND, error, "layer_6");
    for (size_t i = 0; i < model.num; i++) {
        CHECK(codes[i] == (i == 6 ? TFCKPT_NOT_FOUND : TFCKPT_OK));
        CHECK(model_holds(&model, i, i == 6));
    }
    /* Without, nothing is written. */
    model_put(&model, 1);
    CHECK_FAILS(tfckpt_restore(prefix, model.tensors, model.num, NULL, NULL, &error), TFCKPT_NOT_FOUND, error, "layer_6");
    for (size_t i = 0; i < model.num; i++)
        CHECK(model_holds(&model, i, 1));
}

/* Tensors without elements need no memory, not even an address. */
static void restore_nothing(const char *prefix)
{
    static const int64_t shape[] = {0, 4};
    tfckpt_tensor tensor = device_tensor(model.members[7].key, model.members[7].dtype, 2, shape, 0, 0, 0);
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
}

/* Many times what the page-locked memory holds. */
static void restore_large(const char *prefix)
{
    struct fakecuda_stats before = gpu_stats();
    static struct model large;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_context *context = new_context(5 << 20);
    tfckpt_error *error = NULL;

    model_add(&large, "large", TFCKPT_DTYPE_FLOAT, 9 << 20, NONE, 0);
    model_save(&large, prefix);
    options.stats = &stats;
    for (int i = 0; i < 2; i++) {
        options.context = i == 0 ? NULL : context;
        model_put(&large, 1);
        CHECK_OK(tfckpt_restore(prefix, model_in_place(&large), 1, &options, NULL, &error), error);
        CHECK(model_is_complete(&large));
    }
    CHECK(stats.peak_pinned_bytes <= 5 << 20);
    model_free(&large);
    tfckpt_context_free(context);
    CHECK(gpu_nothing_left(before));
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], large[PATH_SIZE];

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(large, dir, "large.ckpt");

    for (int with_host = 0; with_host < 2; with_host++) {
        gpu_reset();
        model_of_all_kinds(&model, 1, with_host);
        model_save(&model, prefix);
        restore_once(prefix);
        restore_again_and_again(prefix);
        /* Device memory was never needed beside that of the tensors. */
        CHECK(gpu_stats().peak_device_bytes == gpu_stats().live_device_bytes);
        restore_what_there_is(prefix);
        restore_nothing(prefix);
        model_free(&model);
    }
    restore_large(large);
    remove_scratch_folder(dir);
    return 0;
}
