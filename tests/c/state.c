/* The file `checkpoint`, in which TensorFlow and this library record what was saved: writing and reading it, and asking
 * about, dating and removing the checkpoints it names. */
#include "check.h"

static void save(const char *prefix)
{
    float value = 1;
    tfckpt_tensor tensor = host_tensor("value", TFCKPT_DTYPE_FLOAT, 0, NULL, &value, sizeof value);
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
}

static void write_and_read_the_state(const char *dir)
{
    static const char *const paths[] = {"m-1", "m-2"};
    static const double timestamps[] = {1700000000.5, 1700000600.0};
    static const double preserved = 1699999999.0;
    static const char expected[] = "model_checkpoint_path: \"m-2\"\n"
                                   "all_model_checkpoint_paths: \"m-1\"\n"
                                   "all_model_checkpoint_paths: \"m-2\"\n"
                                   "all_model_checkpoint_timestamps: 1700000000.5\n"
                                   "all_model_checkpoint_timestamps: 1700000600.0\n"
                                   "last_preserved_timestamp: 1699999999.0\n";
    char state_file[PATH_SIZE], path[PATH_SIZE];
    tfckpt_update_options options = TFCKPT_UPDATE_OPTIONS_INIT;
    tfckpt_checkpoint_state *state = NULL;
    tfckpt_error *error = NULL;
    char *text;

    CHECK_FAILS(tfckpt_get_checkpoint_state(dir, NULL, &state, &error), TFCKPT_NOT_FOUND, error, "");
    CHECK(state == NULL);

    options.all_model_checkpoint_paths = paths;
    options.num_paths = 2;
    options.all_model_checkpoint_timestamps = timestamps;
    options.num_timestamps = 2;
    options.last_preserved_timestamp = &preserved;
    CHECK_OK(tfckpt_update_checkpoint_state(dir, "m-2", &options, &error), error);
    path_in(state_file, dir, "checkpoint");
    text = read_file(state_file, NULL);
    CHECK(strcmp(text, expected) == 0);
    free(text);

    /* Read back, relative paths are joined to the folder. */
    CHECK_OK(tfckpt_get_checkpoint_state(dir, NULL, &state, &error), error);
    path_in(path, dir, "m-2");
    CHECK(strcmp(tfckpt_checkpoint_state_model_checkpoint_path(state), path) == 0);
    CHECK(tfckpt_checkpoint_state_num_paths(state) == 2);
    CHECK(strcmp(tfckpt_checkpoint_state_path(state, 1), path) == 0);
    path_in(path, dir, "m-1");
    CHECK(strcmp(tfckpt_checkpoint_state_path(state, 0), path) == 0);
    CHECK(tfckpt_checkpoint_state_path(state, 2) == NULL);
    CHECK(tfckpt_checkpoint_state_num_timestamps(state) == 2);
    CHECK(tfckpt_checkpoint_state_timestamp(state, 0) == 1700000000.5);
    CHECK(tfckpt_checkpoint_state_timestamp(state, 1) == 1700000600.0);
    CHECK(tfckpt_checkpoint_state_last_preserved_timestamp(state) == preserved);
    tfckpt_checkpoint_state_free(state);

    /* As many timestamps as paths, or none. */
    options.num_timestamps = 1;
    CHECK_FAILS(tfckpt_update_checkpoint_state(dir, "m-2", &options, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Checkpoint timestamps, if provided, must match checkpoint paths");
    text = read_file(state_file, NULL);
    CHECK(strcmp(text, expected) == 0);
    free(text);
}

/* Without options: one path, nothing else; and under another name. */
static void write_the_least(const char *dir)
{
    char state_file[PATH_SIZE];
    tfckpt_update_options options = TFCKPT_UPDATE_OPTIONS_INIT;
    tfckpt_checkpoint_state *state = NULL;
    tfckpt_error *error = NULL;
    char *text;

    CHECK_OK(tfckpt_update_checkpoint_state(dir, "m-3", NULL, &error), error);
    path_in(state_file, dir, "checkpoint");
    text = read_file(state_file, NULL);
    CHECK(strcmp(text, "model_checkpoint_path: \"m-3\"\nall_model_checkpoint_paths: \"m-3\"\n") == 0);
    free(text);

    options.latest_filename = "best";
    CHECK_OK(tfckpt_update_checkpoint_state(dir, "m-2", &options, &error), error);
    CHECK_OK(tfckpt_get_checkpoint_state(dir, "best", &state, &error), error);
    CHECK(strstr(tfckpt_checkpoint_state_model_checkpoint_path(state), "/m-2") != NULL);
    CHECK(tfckpt_checkpoint_state_num_paths(state) == 1);
    CHECK(tfckpt_checkpoint_state_num_timestamps(state) == 0);
    tfckpt_checkpoint_state_free(state);
}

static int32_t exists(const char *prefix)
{
    tfckpt_error *error = NULL;
    int32_t answer = -1;

    CHECK_OK(tfckpt_checkpoint_exists(prefix, &answer, &error), error);
    return answer;
}

static void ask_date_and_remove(const char *dir)
{
    char first[PATH_SIZE], second[PATH_SIZE], none[PATH_SIZE], meta[PATH_SIZE], data[PATH_SIZE];
    const char *prefixes[3];
    double mtimes[3] = {0, 0, 0};
    tfckpt_error *error = NULL;
    size_t num = 99;

    path_in(first, dir, "m-1");
    path_in(second, dir, "m-2");
    path_in(none, dir, "m-0");
    save(first);
    save(second);
    CHECK(exists(first) == 1 && exists(second) == 1 && exists(none) == 0);
    CHECK(exists("no/such/folder/m") == 0);

    /* Those that do not exist are left out, so there may be fewer times than prefixes. */
    prefixes[0] = first;
    prefixes[1] = none;
    prefixes[2] = second;
    CHECK_OK(tfckpt_get_checkpoint_mtimes(prefixes, 3, mtimes, &num, &error), error);
    CHECK(num == 2 && mtimes[0] > 1.6e9 && mtimes[1] >= mtimes[0] && mtimes[2] == 0);

    /* Removing takes all files of the checkpoint, its meta graph too, and leaves the state file alone. */
    path_in(meta, dir, "m-1.meta");
    write_file(meta, "a graph");
    CHECK_OK(tfckpt_remove_checkpoint(first, NULL, &error), error);
    path_in(data, dir, "m-1.data-00000-of-00001");
    CHECK(exists(first) == 0 && !file_exists(meta) && !file_exists(data));
    CHECK(exists(second) == 1);
    path_in(data, dir, "checkpoint");
    CHECK(file_exists(data));

    /* What is gone already needs no removing. */
    CHECK_OK(tfckpt_remove_checkpoint(first, NULL, &error), error);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    write_and_read_the_state(dir);
    write_the_least(dir);
    ask_date_and_remove(dir);
    remove_scratch_folder(dir);
    return 0;
}
