/* Mistakes that are easy to make and must never cost more than an error: sizes that are not set, strings that share
 * their place, handles that are freed when the process is all but gone. */
#include "check.h"

#include <sys/resource.h>
#include <unistd.h>

static tfckpt_context *freed_at_exit;

/* Threads' own data are gone by now; freeing must work all the same. */
static void free_context(void)
{
    tfckpt_context_free(freed_at_exit);
}

static const int64_t SHAPE[] = {2};

static void sizes_are_checked_before_any_work(const char *dir)
{
    char prefix[PATH_SIZE], index[PATH_SIZE];
    float values[2] = {1, 2};
    tfckpt_tensor tensors[2];
    tfckpt_stats stats;
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    path_in(prefix, dir, "sizes");
    path_in(index, dir, "sizes.index");
    tensors[0] = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tensors[1] = host_tensor("b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);

    memset(&stats, 0, sizeof stats); /* struct_size is 0 */
    options.stats = &stats;
    CHECK_FAILS(tfckpt_save(prefix, tensors, 2, &options, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "tfckpt_stats");
    CHECK(!file_exists(index));

    tensors[1].struct_size = 5000; /* the second element does not get to say how long it is */
    CHECK_FAILS(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK(!file_exists(index));
}

static void strings_are_handed_out_by_calls_that_succeed(const char *dir)
{
    char prefix[PATH_SIZE], data[PATH_SIZE];
    tfckpt_string text[2] = {{"one", 3}, {"two", 3}};
    tfckpt_strings *restored[2] = {NULL, NULL};
    tfckpt_code codes[2];
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    path_in(prefix, dir, "strings");
    path_in(data, dir, "strings.data-00000-of-00001");
    tensors[0] = host_tensor("a", TFCKPT_DTYPE_STRING, 1, SHAPE, text, sizeof text);
    tensors[1] = host_tensor("b", TFCKPT_DTYPE_STRING, 1, SHAPE, text, sizeof text);
    CHECK_OK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), error);

    /* Both to one place: the first would be lost. */
    tensors[0] = host_tensor("a", TFCKPT_DTYPE_STRING, 1, SHAPE, &restored[0], sizeof restored[0]);
    tensors[1] = host_tensor("b", TFCKPT_DTYPE_STRING, 1, SHAPE, &restored[0], sizeof restored[0]);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK(restored[0] == NULL);

    /* The last byte is one of "b": without codes nothing is handed out, with codes "a" is. */
    tensors[1].data = &restored[1];
    flip_bit(data, file_size(data) - 1);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_DATA_LOSS, error, "");
    CHECK(restored[0] == NULL && restored[1] == NULL);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, codes, &error), TFCKPT_DATA_LOSS, error, "");
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_DATA_LOSS);
    CHECK(restored[0] != NULL && restored[1] == NULL);
    tfckpt_strings_free(restored[0]);
}

static void messages_show_all_of_a_key(const char *dir)
{
    char prefix[PATH_SIZE];
    float values[2] = {1, 2};
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tfckpt_error *error = NULL;

    path_in(prefix, dir, "key");
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
    tensor.key = "a\0b";
    tensor.key_size = 3;
    CHECK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error) == TFCKPT_NOT_FOUND);
    CHECK(strstr(tfckpt_error_message(error), "not found in checkpoint [tensor=a\\x00b") != NULL);
    tfckpt_error_free(error);
}

static int32_t stop(const tfckpt_progress *progress, void *user_data)
{
    (void)progress;
    (void)user_data;
    return 1;
}

static void a_cancelled_save_takes_its_folder_along(const char *dir)
{
    char prefix[PATH_SIZE], folder[PATH_SIZE];
    float values[2] = {1, 2};
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    path_in(folder, dir, "new");
    path_in(prefix, dir, "new/m");
    options.progress = stop;
    CHECK_FAILS(tfckpt_save(prefix, &tensor, 1, &options, NULL, &error), TFCKPT_CANCELLED, error, "");
    CHECK(!file_exists(folder));
}

static void a_prefix_needs_a_file_name(const char *dir)
{
    char prefix[PATH_SIZE];
    float values[2] = {1, 2};
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tfckpt_error *error = NULL;

    path_in(prefix, dir, "folder/");
    CHECK_FAILS(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK_FAILS(tfckpt_save("", &tensor, 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

/* A checkpoint that cannot be opened for want of descriptors is not lost: nobody may go on from an older one. */
static void too_few_descriptors_are_no_loss(const char *dir)
{
    char models[PATH_SIZE], old[PATH_SIZE], sharded[PATH_SIZE];
    float values[2] = {1, 2};
    tfckpt_tensor tensors[2];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_latest_options latest = TFCKPT_LATEST_OPTIONS_INIT;
    struct rlimit before, few;
    char *prefix = NULL;
    tfckpt_error *error = NULL;

    path_in(models, dir, "few");
    path_in(old, dir, "few/old");
    path_in(sharded, dir, "few/sharded");
    tensors[0] = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    tensors[1] = host_tensor("b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, values, sizeof values);
    options.update_state = 1;
    CHECK_OK(tfckpt_save(old, tensors, 1, &options, NULL, &error), error);
    options.max_shard_size = sizeof values; /* two data files */
    CHECK_OK(tfckpt_save(sharded, tensors, 2, &options, NULL, &error), error);

    /* Room for the state file or the index, but not for index and data files together. */
    int next = dup(0);
    CHECK(next >= 0 && close(next) == 0);
    CHECK(getrlimit(RLIMIT_NOFILE, &before) == 0);
    few = before;
    few.rlim_cur = (rlim_t)next + 2;
    CHECK(setrlimit(RLIMIT_NOFILE, &few) == 0);
    latest.fall_back = 1;
    tfckpt_code code = tfckpt_latest_checkpoint(models, &latest, &prefix, &error);
    CHECK(setrlimit(RLIMIT_NOFILE, &before) == 0);
    CHECK(code == TFCKPT_RESOURCE_EXHAUSTED && prefix == NULL);
    tfckpt_error_free(error);

    CHECK_OK(tfckpt_latest_checkpoint(models, &latest, &prefix, &error), error);
    CHECK(latest.fell_back == 0 && strcmp(prefix, sharded) == 0);
    tfckpt_string_free(prefix);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    tfckpt_error *error = NULL;

    CHECK(atexit(free_context) == 0);
    CHECK_OK(tfckpt_context_new(NULL, &freed_at_exit, &error), error);
    make_scratch_folder(argc, argv, dir);
    sizes_are_checked_before_any_work(dir);
    strings_are_handed_out_by_calls_that_succeed(dir);
    messages_show_all_of_a_key(dir);
    a_cancelled_save_takes_its_folder_along(dir);
    a_prefix_needs_a_file_name(dir);
    too_few_descriptors_are_no_loss(dir);
    remove_scratch_folder(dir);
    return 0;
}
