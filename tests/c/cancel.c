/* Cancels a save over an existing checkpoint, and a restore, at every moment at which the library asks. */
#include "check.h"

/* 4 MiB in all, so that the library asks more than once. */
enum { NUM_TENSORS = 4, NUM_VALUES = 1 << 18 };

static int32_t values[NUM_TENSORS][NUM_VALUES];

static void describe(tfckpt_tensor tensors[NUM_TENSORS])
{
    static const int64_t shape[] = {NUM_VALUES};
    static const char *const keys[] = {"a", "b", "c", "d"};

    for (int t = 0; t < NUM_TENSORS; t++)
        tensors[t] = host_tensor(keys[t], TFCKPT_DTYPE_INT32, 1, shape, values[t], sizeof values[t]);
}

static void fill(int32_t value)
{
    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            values[t][i] = value;
}

static int all_equal(int32_t value)
{
    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            if (values[t][i] != value)
                return 0;
    return 1;
}

/* Counts the calls down and cancels at the last one. */
static int32_t cancel_at(const tfckpt_progress *progress, void *user_data)
{
    int *calls_left = (int *)user_data;

    CHECK(progress->bytes_done <= progress->bytes_total);
    return --*calls_left == 0;
}

static tfckpt_code save(const char *prefix, int cancel_call, tfckpt_error **error_out)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;

    describe(tensors);
    options.update_state = 1;
    options.max_shard_size = sizeof values / 2; /* two data files */
    options.progress = cancel_at;
    options.user_data = &cancel_call;
    return tfckpt_save(prefix, tensors, NUM_TENSORS, &options, NULL, error_out);
}

static tfckpt_code restore(const char *prefix, int cancel_call, tfckpt_error **error_out)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;

    describe(tensors);
    options.progress = cancel_at;
    options.user_data = &cancel_call;
    return tfckpt_restore(prefix, tensors, NUM_TENSORS, &options, NULL, error_out);
}

/* After a cancelled save the folder is as it was, to the byte; only a save that went through changes it. */
static void cancel_saves(const char *dir, const char *prefix)
{
    static char before[4096], after[4096];
    uint64_t digest = folder_digest(dir);
    tfckpt_error *error = NULL;
    int num_cancelled = 0;
    tfckpt_code code;

    list_folder(dir, before, sizeof before);
    for (;;) {
        fill(2);
        code = save(prefix, num_cancelled + 1, &error);
        if (code == TFCKPT_OK)
            break; /* it asked less often than that */
        CHECK_FAILS(code, TFCKPT_CANCELLED, error, "");
        CHECK(folder_digest(dir) == digest);
        CHECK_OK(restore(prefix, 0, &error), error);
        CHECK(all_equal(1));
        CHECK(++num_cancelled < 10000);
    }
    CHECK(num_cancelled > 0);
    list_folder(dir, after, sizeof after);
    CHECK(strcmp(before, after) == 0); /* new data, the same names, nothing left over */
    CHECK_OK(restore(prefix, 0, &error), error);
    CHECK(all_equal(2));
}

/* A cancelled restore leaves its destinations undefined, and the next one is as good as the first. */
static void cancel_restores(const char *prefix)
{
    tfckpt_error *error = NULL;
    int num_cancelled = 0;
    tfckpt_code code;

    for (;;) {
        code = restore(prefix, num_cancelled + 1, &error);
        if (code == TFCKPT_OK)
            break;
        CHECK_FAILS(code, TFCKPT_CANCELLED, error, "");
        CHECK(++num_cancelled < 10000);
    }
    CHECK(num_cancelled > 0);
    CHECK(all_equal(2));
}

/* A first save that is cancelled leaves nothing at all. */
static void cancel_the_first_save(const char *dir, const char *prefix)
{
    char names[64];
    tfckpt_error *error = NULL;

    CHECK_FAILS(save(prefix, 1, &error), TFCKPT_CANCELLED, error, "");
    list_folder(dir, names, sizeof names);
    CHECK(strcmp(names, "") == 0);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    tfckpt_error *error = NULL;

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    fill(1);
    cancel_the_first_save(dir, prefix);
    CHECK_OK(save(prefix, 0, &error), error);
    cancel_saves(dir, prefix);
    cancel_restores(prefix);
    remove_scratch_folder(dir);
    return 0;
}
