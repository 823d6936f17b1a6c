/* Finds the latest checkpoint of a folder: the usual case, a damaged one, and a folder that was moved. */
#include "check.h"

static const int64_t SHAPE[] = {8};

/* Saves DIR/model.ckpt-<step> and makes it the latest; all eight values are the step. */
static void save_step(const char *dir, int64_t step, int32_t save_relative_paths)
{
    char prefix[PATH_SIZE];
    int64_t values[8];
    tfckpt_tensor tensor = host_tensor("values", TFCKPT_DTYPE_INT64, 1, SHAPE, values, sizeof values);
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    for (int i = 0; i < 8; i++)
        values[i] = step;
    path_in(prefix, dir, "model.ckpt");
    options.global_step = &step;
    options.update_state = 1; /* writes the file `checkpoint`, which names the latest one */
    options.save_relative_paths = save_relative_paths;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &options, NULL, &error), error);
}

static int64_t restored_step(const char *prefix)
{
    int64_t values[8] = {0};
    tfckpt_tensor tensor = host_tensor("values", TFCKPT_DTYPE_INT64, 1, SHAPE, values, sizeof values);
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
    for (int i = 1; i < 8; i++)
        CHECK(values[i] == values[0]);
    return values[0];
}

/* Expects DIR/NAME as the latest checkpoint. */
static void check_latest(const char *dir, tfckpt_latest_options *options, const char *name)
{
    char expected[PATH_SIZE];
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    path_in(expected, dir, name);
    CHECK_OK(tfckpt_latest_checkpoint(dir, options, &prefix, &error), error);
    CHECK(prefix != NULL && strcmp(prefix, expected) == 0);
    tfckpt_string_free(prefix);
}

static void nothing_was_saved_yet(const char *dir)
{
    char nowhere[PATH_SIZE];
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    CHECK_FAILS(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), TFCKPT_NOT_FOUND, error, "");
    path_in(nowhere, dir, "nowhere");
    CHECK_FAILS(tfckpt_latest_checkpoint(nowhere, NULL, &prefix, &error), TFCKPT_NOT_FOUND, error, "");
    CHECK(prefix == NULL);
}

static void the_last_save_is_the_latest(const char *dir)
{
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    for (int64_t step = 1; step <= 3; step++)
        save_step(dir, step, 0);
    check_latest(dir, NULL, "model.ckpt-3");
    CHECK_OK(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), error);
    CHECK(restored_step(prefix) == 3);
    tfckpt_string_free(prefix);
}

/* An engine that is told "not found" starts at step 0. A damaged checkpoint is therefore another error, and an older
 * one is taken only if the caller asks for that. */
static void a_damaged_latest_is_not_passed_over_silently(const char *dir)
{
    char data[PATH_SIZE], index[PATH_SIZE];
    tfckpt_latest_options options = TFCKPT_LATEST_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    path_in(data, dir, "model.ckpt-3.data-00000-of-00001");
    path_in(index, dir, "model.ckpt-3.index");
    CHECK(truncate(data, 10) == 0);
    CHECK_FAILS(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), TFCKPT_DATA_LOSS, error, "model.ckpt-3");

    options.fall_back = 1;
    check_latest(dir, &options, "model.ckpt-2");
    CHECK(options.fell_back == 1);
    CHECK(options.reason != NULL && strstr(options.reason, "model.ckpt-3") != NULL);
    tfckpt_string_free(options.reason);
    options.reason = NULL;

    /* Missing files are damage as well. */
    CHECK(remove(index) == 0);
    CHECK_FAILS(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), TFCKPT_DATA_LOSS, error, "model.ckpt-3");
    CHECK(prefix == NULL);
    check_latest(dir, &options, "model.ckpt-2");
    CHECK(options.fell_back == 1);
    tfckpt_string_free(options.reason);
    options.reason = NULL;

    /* The next save makes all well again. */
    save_step(dir, 4, 0);
    check_latest(dir, &options, "model.ckpt-4");
    CHECK(options.fell_back == 0 && options.reason == NULL);
}

/* The state file holds absolute paths by default, as TensorFlow's does. */
static void a_moved_folder_is_found_with_rebase(const char *parent)
{
    char before[PATH_SIZE], after[PATH_SIZE];
    tfckpt_latest_options options = TFCKPT_LATEST_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    path_in(before, parent, "before");
    path_in(after, parent, "after");
    CHECK(mkdir(before, 0777) == 0);
    save_step(before, 5, 0);
    CHECK(rename(before, after) == 0);
    CHECK_FAILS(tfckpt_latest_checkpoint(after, NULL, &prefix, &error), TFCKPT_DATA_LOSS, error, "model.ckpt-5");
    options.rebase = 1;
    check_latest(after, &options, "model.ckpt-5");
    CHECK(options.fell_back == 0 && options.reason == NULL);
}

/* With relative paths a folder can be moved without more ado. */
static void relative_paths_survive_a_move(const char *parent)
{
    char before[PATH_SIZE], after[PATH_SIZE], state[PATH_SIZE];
    char *text;

    path_in(before, parent, "relative");
    path_in(after, parent, "relative-moved");
    CHECK(mkdir(before, 0777) == 0);
    save_step(before, 6, 1);
    path_in(state, before, "checkpoint");
    text = read_file(state, NULL);
    CHECK(strcmp(text, "model_checkpoint_path: \"model.ckpt-6\"\nall_model_checkpoint_paths: \"model.ckpt-6\"\n") == 0);
    free(text);
    CHECK(rename(before, after) == 0);
    check_latest(after, NULL, "model.ckpt-6");
}

/* What is in the state file is not trusted. */
static void a_broken_state_file_is_an_error(const char *parent)
{
    char dir[PATH_SIZE], state[PATH_SIZE];
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    path_in(dir, parent, "broken");
    CHECK(mkdir(dir, 0777) == 0);
    path_in(state, dir, "checkpoint");
    write_file(state, "model_checkpoint_path: model.ckpt-1\n"); /* no quotes */
    CHECK_FAILS(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), TFCKPT_DATA_LOSS, error, "");
    write_file(state, "");
    CHECK_FAILS(tfckpt_latest_checkpoint(dir, NULL, &prefix, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Invalid checkpoint state loaded from");
    CHECK(prefix == NULL);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    nothing_was_saved_yet(dir);
    the_last_save_is_the_latest(dir);
    a_damaged_latest_is_not_passed_over_silently(dir);
    a_moved_folder_is_found_with_rebase(dir);
    relative_paths_survive_a_move(dir);
    a_broken_state_file_is_an_error(dir);
    remove_scratch_folder(dir);
    return 0;
}
