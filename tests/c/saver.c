/* What a training loop does with a saver: numbered checkpoints of which a few are kept, a restart that goes on counting,
 * tensors that move in memory, a table that grows, and a loop that restores what the last one saved. */
#include "check.h"

enum { NUM_WEIGHTS = 6 };

static const int64_t weights_shape[] = {2, 3};

static tfckpt_saver *new_saver(const tfckpt_tensor *tensors, size_t num_tensors, const tfckpt_saver_options *options)
{
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_saver_create(tensors, num_tensors, NULL, 0, options, &saver, &error), error);
    return saver;
}

/* Saves step `step` of DIR/m; without fsync, because nobody pulls the plug here. */
static void save_step(tfckpt_saver *saver, const char *dir, int64_t step)
{
    char path[PATH_SIZE];
    char *saved = NULL;
    tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    path_in(path, dir, "m");
    options.global_step = &step;
    options.no_sync = 1;
    CHECK_OK(tfckpt_saver_save(saver, path, &options, &saved, &error), error);
    CHECK(strncmp(saved, path, strlen(path)) == 0);
    tfckpt_string_free(saved);
}

static void check_folder(const char *dir, const char *expected)
{
    char names[4096];

    list_folder(dir, names, sizeof names);
    if (strcmp(names, expected) != 0)
        fprintf(stderr, "in the folder:\n%sexpected:\n%s", names, expected);
    CHECK(strcmp(names, expected) == 0);
}

static void keeps_two_and_goes_on_after_a_restart(const char *dir)
{
    float weights[NUM_WEIGHTS] = {1, 2, 3, 4, 5, 6}, restored[NUM_WEIGHTS];
    tfckpt_tensor tensor = host_tensor("w", TFCKPT_DTYPE_FLOAT, 2, weights_shape, weights, sizeof weights);
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_checkpoint_state *state = NULL;
    tfckpt_error *error = NULL;
    tfckpt_saver *saver;
    const char *paths[2];

    options.max_to_keep = 2;
    saver = new_saver(&tensor, 1, &options);
    for (int64_t step = 1; step <= 3; step++)
        save_step(saver, dir, step);
    check_folder(dir, "checkpoint\nm-2.data-00000-of-00001\nm-2.index\nm-3.data-00000-of-00001\nm-3.index\n");
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 2);
    CHECK(strstr(tfckpt_saver_last_checkpoint(saver, 1), "/m-3") != NULL);
    CHECK(tfckpt_saver_last_checkpoint_time(saver, 1) > 1.7e9);
    CHECK(tfckpt_saver_last_checkpoint(saver, 2) == NULL);
    tfckpt_saver_free(saver);

    /* The next process asks the state file what there is. */
    tensor.data = restored;
    saver = new_saver(&tensor, 1, &options);
    CHECK_OK(tfckpt_get_checkpoint_state(dir, NULL, &state, &error), error);
    CHECK(tfckpt_checkpoint_state_num_paths(state) == 2);
    for (size_t i = 0; i < 2; i++)
        paths[i] = tfckpt_checkpoint_state_path(state, i);
    CHECK_OK(tfckpt_saver_restore(saver, tfckpt_checkpoint_state_model_checkpoint_path(state), NULL, &error), error);
    CHECK(memcmp(restored, weights, sizeof weights) == 0);
    CHECK_OK(tfckpt_saver_recover_last_checkpoints(saver, paths, 2, &error), error);
    tfckpt_checkpoint_state_free(state);
    save_step(saver, dir, 4);
    check_folder(dir, "checkpoint\nm-3.data-00000-of-00001\nm-3.index\nm-4.data-00000-of-00001\nm-4.index\n");
    tfckpt_saver_free(saver);
}

/* A loop with two buffers saves whichever is current. */
static void memory_can_be_bound_anew(const char *dir)
{
    float even[NUM_WEIGHTS] = {0, 2, 4, 6, 8, 10}, odd[NUM_WEIGHTS] = {1, 3, 5, 7, 9, 11}, restored[NUM_WEIGHTS];
    tfckpt_tensor tensor = host_tensor("w", TFCKPT_DTYPE_FLOAT, 2, weights_shape, even, sizeof even);
    tfckpt_tensor other = tensor;
    tfckpt_saver *saver = new_saver(&tensor, 1, NULL);
    tfckpt_error *error = NULL;
    char path[PATH_SIZE];

    save_step(saver, dir, 1);
    tensor.data = odd;
    CHECK_OK(tfckpt_saver_bind(saver, &tensor, 1, &error), error);
    save_step(saver, dir, 2);
    tensor.data = restored;
    CHECK_OK(tfckpt_saver_bind(saver, &tensor, 1, &error), error);
    path_in(path, dir, "m-1");
    CHECK_OK(tfckpt_saver_restore(saver, path, NULL, &error), error);
    CHECK(memcmp(restored, even, sizeof even) == 0);
    path_in(path, dir, "m-2");
    CHECK_OK(tfckpt_saver_restore(saver, path, NULL, &error), error);
    CHECK(memcmp(restored, odd, sizeof odd) == 0);

    other.key = "b";
    other.key_size = 1;
    CHECK_FAILS(tfckpt_saver_bind(saver, &other, 1, &error), TFCKPT_NOT_FOUND, error, "no such tensor");
    other = tensor;
    other.dtype = TFCKPT_DTYPE_INT32;
    CHECK_FAILS(tfckpt_saver_bind(saver, &other, 1, &error), TFCKPT_INVALID_ARGUMENT, error, "another dtype");
    tfckpt_saver_free(saver);
}

/* A table from names to numbers, as a lookup table is: its size is not known when the saver is made. */
struct table {
    int64_t shape[1];
    tfckpt_string keys[4];
    int64_t values[4];
    tfckpt_strings *restored_keys;
    int64_t *restored_values;
    size_t num_restored;
    int num_finished, fails;
};

static int32_t table_save(tfckpt_tensor *tensors, size_t num_tensors, void *user_data)
{
    struct table *table = (struct table *)user_data;

    if (table->fails)
        return 7;
    CHECK(num_tensors == 2 && tensors[0].rank == -1);
    for (size_t i = 0; i < num_tensors; i++) {
        tensors[i].rank = 1;
        tensors[i].shape = table->shape;
    }
    tensors[0].data = table->keys;
    tensors[0].size = (size_t)table->shape[0] * sizeof table->keys[0];
    tensors[1].data = table->values;
    tensors[1].size = (size_t)table->shape[0] * sizeof table->values[0];
    return 0;
}

static int32_t table_restore(tfckpt_tensor *tensors, size_t num_tensors, void *user_data)
{
    struct table *table = (struct table *)user_data;

    CHECK(num_tensors == 2 && tensors[1].rank == 1);
    table->num_restored = (size_t)tensors[1].shape[0];
    table->restored_values = (int64_t *)malloc(table->num_restored * sizeof(int64_t));
    CHECK(table->restored_values != NULL);
    tensors[0].data = &table->restored_keys;
    tensors[0].size = sizeof table->restored_keys;
    tensors[1].data = table->restored_values;
    tensors[1].size = table->num_restored * sizeof(int64_t);
    return 0;
}

static void table_finish(tfckpt_code code, void *user_data)
{
    struct table *table = (struct table *)user_data;

    CHECK(code == (table->fails ? TFCKPT_ABORTED : TFCKPT_OK));
    table->num_finished++;
}

/* Saves the table in the background. It is told that the save is over when its elements have been copied, before the
 * call returns, or if they are borrowed, when the job has ended. */
static void save_table_in_the_background(tfckpt_saver *saver, struct table *table, const char *path)
{
    tfckpt_error *error = NULL;

    for (int32_t borrow = 0; borrow < 2; borrow++) {
        tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
        int num_finished = table->num_finished;
        tfckpt_job *job = NULL;

        options.no_state = 1;
        options.borrow = borrow;
        CHECK_OK(tfckpt_saver_save_async(saver, path, &options, &job, &error), error);
        if (!borrow)
            CHECK(table->num_finished == num_finished + 1);
        CHECK_OK(tfckpt_job_wait(job, -1, &error), error);
        CHECK(table->num_finished == num_finished + 1);
        tfckpt_job_free(job);

        job = NULL;
        table->fails = 1;
        CHECK_FAILS(tfckpt_saver_save_async(saver, path, &options, &job, &error), TFCKPT_ABORTED, error, "name=table");
        CHECK(table->num_finished == num_finished + 2 && job == NULL);
        table->fails = 0;
    }
}

static void a_table_takes_part_by_callbacks(const char *dir)
{
    static const char *const words[] = {"one", "two", "three", "four"};
    tfckpt_tensor tensors[2];
    tfckpt_saveable saveable = TFCKPT_SAVEABLE_INIT;
    struct table table;
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;
    char path[PATH_SIZE];
    size_t size = 0;

    memset(&table, 0, sizeof table);
    for (size_t i = 0; i < 4; i++) {
        table.keys[i].data = words[i];
        table.keys[i].size = strlen(words[i]);
        table.values[i] = (int64_t)i + 1;
    }
    tensors[0] = host_tensor("table-keys", TFCKPT_DTYPE_STRING, -1, NULL, NULL, 0);
    tensors[1] = host_tensor("table-values", TFCKPT_DTYPE_INT64, -1, NULL, NULL, 0);
    saveable.name = "table";
    saveable.tensors = tensors;
    saveable.num_tensors = 2;
    saveable.save = table_save;
    saveable.restore = table_restore;
    saveable.finish = table_finish;
    saveable.user_data = &table;
    CHECK_OK(tfckpt_saver_create(NULL, 0, &saveable, 1, NULL, &saver, &error), error);

    for (int64_t step = 1; step <= 2; step++) {
        table.shape[0] = 2 * step;
        save_step(saver, dir, step);
    }
    CHECK(table.num_finished == 2);
    for (size_t step = 1; step <= 2; step++) {
        path_in(path, dir, step == 1 ? "m-1" : "m-2");
        CHECK_OK(tfckpt_saver_restore(saver, path, NULL, &error), error);
        CHECK(table.num_restored == 2 * step);
        CHECK(memcmp(table.restored_values, table.values, table.num_restored * sizeof table.values[0]) == 0);
        CHECK(tfckpt_strings_num(table.restored_keys) == table.num_restored);
        CHECK(memcmp(tfckpt_strings_get(table.restored_keys, 1, &size), "two", 3) == 0 && size == 3);
        tfckpt_strings_free(table.restored_keys);
        free(table.restored_values);
    }
    CHECK(table.num_finished == 4);
    path_in(path, dir, "background");
    save_table_in_the_background(saver, &table, path);
    table.num_finished = 4;

    /* A callback that fails, fails the save, and is told so. */
    table.fails = 1;
    path_in(path, dir, "m-3");
    CHECK_FAILS(tfckpt_saver_save(saver, path, NULL, NULL, &error), TFCKPT_ABORTED, error, "name=table");
    CHECK(table.num_finished == 5);
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 2);
    tfckpt_saver_free(saver);

    saveable.save = NULL;
    CHECK_FAILS(tfckpt_saver_create(NULL, 0, &saveable, 1, NULL, &saver, &error), TFCKPT_INVALID_ARGUMENT, error,
                "needs name, save and restore");
}

static void building_may_wait_for_the_tensors(const char *dir)
{
    float weights[NUM_WEIGHTS] = {0};
    tfckpt_tensor tensor = host_tensor("w", TFCKPT_DTYPE_FLOAT, 2, weights_shape, weights, sizeof weights);
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_strings *definition = NULL;
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;
    char path[PATH_SIZE];
    char *saved = path;

    path_in(path, dir, "m");
    options.defer_build = 1;
    CHECK_FAILS(tfckpt_saver_create(&tensor, 1, NULL, 0, &options, &saver, &error), TFCKPT_INVALID_ARGUMENT, error,
                "build cannot be deferred");
    saver = new_saver(NULL, 0, &options);
    CHECK_FAILS(tfckpt_saver_save(saver, path, NULL, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                "`build()` should be called before save if defer_build==True");
    CHECK_FAILS(tfckpt_saver_build(saver, NULL, 0, NULL, 0, &error), TFCKPT_INVALID_ARGUMENT, error,
                "No variables to save");
    CHECK_OK(tfckpt_saver_build(saver, &tensor, 1, NULL, 0, &error), error);
    CHECK_OK(tfckpt_saver_build(saver, NULL, 0, NULL, 0, &error), error);
    CHECK_FAILS(tfckpt_saver_build(saver, &tensor, 1, NULL, 0, &error), TFCKPT_FAILED_PRECONDITION, error, "already");
    save_step(saver, dir, 1);

    /* What a meta graph would hold, and a saver made of it. */
    CHECK_OK(tfckpt_saver_as_saver_def(saver, &definition, &error), error);
    tfckpt_saver_free(saver);
    options.defer_build = 0;
    options.saver_def = tfckpt_strings_get(definition, 0, &options.saver_def_size);
    tfckpt_saver_free(new_saver(&tensor, 1, &options));
    options.saver_def_size--;
    CHECK_FAILS(tfckpt_saver_create(&tensor, 1, NULL, 0, &options, &saver, &error), TFCKPT_INVALID_ARGUMENT, error,
                "saver_def");
    tfckpt_strings_free(definition);

    /* No tensors at all are an error, unless that is wanted. */
    CHECK_OK(tfckpt_saver_options_init(&options, sizeof options), error);
    CHECK_FAILS(tfckpt_saver_create(NULL, 0, NULL, 0, &options, &saver, &error), TFCKPT_INVALID_ARGUMENT, error,
                "No variables to save");
    options.allow_empty = 1;
    saver = new_saver(NULL, 0, &options);
    CHECK_OK(tfckpt_saver_save(saver, path, NULL, &saved, &error), error);
    CHECK(saved == NULL);
    CHECK_OK(tfckpt_saver_restore(saver, NULL, NULL, &error), error);
    tfckpt_saver_free(saver);
}

static void what_goes_wrong_has_tensorflows_words(const char *dir)
{
    float weights[NUM_WEIGHTS] = {0};
    tfckpt_tensor tensors[2];
    tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_saver_options saver_options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;
    char path[PATH_SIZE];

    tensors[0] = host_tensor("w", TFCKPT_DTYPE_FLOAT, 2, weights_shape, weights, sizeof weights);
    tensors[1] = tensors[0];
    CHECK_FAILS(tfckpt_saver_create(tensors, 2, NULL, 0, NULL, &saver, &error), TFCKPT_INVALID_ARGUMENT, error,
                "At least two variables have the same name: w");
    saver_options.max_to_keep = -2;
    CHECK_FAILS(tfckpt_saver_create(tensors, 1, NULL, 0, &saver_options, &saver, &error), TFCKPT_INVALID_ARGUMENT,
                error, "max_to_keep=-2");
    saver = new_saver(tensors, 1, NULL);

    path_in(path, dir, "checkpoint");
    CHECK_FAILS(tfckpt_saver_save(saver, path, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "'latest_filename' collides with 'save_path': 'checkpoint' and '");
    path_in(path, dir, "a/b/m");
    CHECK_FAILS(tfckpt_saver_save(saver, path, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "doesn't exist, can't save.");
    options.write_meta_graph = 1;
    path_in(path, dir, "m");
    CHECK_FAILS(tfckpt_saver_save(saver, path, &options, NULL, &error), TFCKPT_UNIMPLEMENTED, error, "meta graphs");
    CHECK_FAILS(tfckpt_saver_restore(saver, path, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "The passed save_path is not a valid checkpoint: ");
    CHECK_FAILS(tfckpt_saver_restore(saver, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Can't load save_path when it is None.");
    save_step(saver, dir, 1);
    tfckpt_saver_free(saver);

    path_in(path, dir, "m-1");
    tensors[1].key = "x";
    saver = new_saver(&tensors[1], 1, NULL);
    CHECK_FAILS(tfckpt_saver_restore(saver, path, NULL, &error), TFCKPT_NOT_FOUND, error,
                "Original error:\n\nKey x not found in checkpoint");
    tfckpt_saver_free(saver);
    tensors[0].dtype = TFCKPT_DTYPE_INT32;
    saver = new_saver(tensors, 1, NULL);
    CHECK_FAILS(tfckpt_saver_restore(saver, path, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Original error:\n\ntensor_name = w; expected dtype int32 does not equal original dtype float");
    tfckpt_saver_free(saver);
}

int main(int argc, char **argv)
{
    static void (*const tests[])(const char *) = {
        keeps_two_and_goes_on_after_a_restart, memory_can_be_bound_anew,           a_table_takes_part_by_callbacks,
        building_may_wait_for_the_tensors,     what_goes_wrong_has_tensorflows_words,
    };
    char dir[PATH_SIZE];

    for (size_t i = 0; i < sizeof tests / sizeof tests[0]; i++) {
        make_scratch_folder(argc, argv, dir);
        tests[i](dir);
        remove_scratch_folder(dir);
    }
    return 0;
}
