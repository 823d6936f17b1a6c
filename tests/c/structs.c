/* Structs that can grow: each begins with its own size, so that programs and libraries of different versions get along.
 * An initialiser macro and its function agree; sizes that cannot be right are refused; the larger struct of a newer
 * program is accepted as long as it asks for nothing that this library does not know. */
#include "check.h"

/* ---- Macro and function ---- */

typedef tfckpt_code (*init_fn)(void *memory, size_t struct_size);

/* `expected`: what the macro gives, `size` bytes of it. */
static void check_init(init_fn init, const void *expected, size_t size)
{
    uint64_t memory[64], before[64];
    unsigned char *bytes = (unsigned char *)memory;
    size_t larger = size + 16;

    CHECK(larger <= sizeof memory);
    memset(memory, 0, sizeof memory); /* padding too */
    CHECK(init(memory, size) == TFCKPT_OK);
    CHECK(memcmp(memory, expected, size) == 0);

    /* Whatever was in the memory, nothing of it stays, and nothing behind it is touched. */
    memset(memory, 0xa5, sizeof memory);
    CHECK(init(memory, size) == TFCKPT_OK);
    CHECK(memory[0] == size);
    CHECK(bytes[size - 1] == 0 && bytes[size] == 0xa5);

    /* A newer program's struct. */
    memset(memory, 0xa5, sizeof memory);
    CHECK(init(memory, larger) == TFCKPT_OK);
    CHECK(memory[0] == larger);
    for (size_t i = size; i < larger; i++)
        CHECK(bytes[i] == 0);
    CHECK(bytes[larger] == 0xa5);

    /* Too small. */
    memset(memory, 0xa5, sizeof memory);
    memcpy(before, memory, sizeof memory);
    CHECK(init(memory, 0) == TFCKPT_INVALID_ARGUMENT);
    CHECK(init(memory, sizeof(size_t)) == TFCKPT_INVALID_ARGUMENT);
    CHECK(init(memory, size - 1) == TFCKPT_INVALID_ARGUMENT);
    CHECK(memcmp(memory, before, sizeof memory) == 0);
}

/* A function of one type for each struct's own init function. */
#define INIT_OF(name)                                                      \
    static tfckpt_code init_##name(void *memory, size_t struct_size)       \
    {                                                                      \
        return tfckpt_##name##_init((tfckpt_##name *)memory, struct_size); \
    }

INIT_OF(tensor)
INIT_OF(stats)
INIT_OF(progress)
INIT_OF(context_options)
INIT_OF(save_options)
INIT_OF(restore_options)
INIT_OF(latest_options)
INIT_OF(merge_options)
INIT_OF(reader_options)
INIT_OF(verify_options)
INIT_OF(update_options)
INIT_OF(remove_options)
INIT_OF(saveable)
INIT_OF(saver_options)
INIT_OF(saver_save_options)

static const tfckpt_tensor TENSOR = TFCKPT_TENSOR_INIT;
static const tfckpt_stats STATS = TFCKPT_STATS_INIT;
static const tfckpt_progress PROGRESS = TFCKPT_PROGRESS_INIT;
static const tfckpt_context_options CONTEXT_OPTIONS = TFCKPT_CONTEXT_OPTIONS_INIT;
static const tfckpt_save_options SAVE_OPTIONS = TFCKPT_SAVE_OPTIONS_INIT;
static const tfckpt_restore_options RESTORE_OPTIONS = TFCKPT_RESTORE_OPTIONS_INIT;
static const tfckpt_latest_options LATEST_OPTIONS = TFCKPT_LATEST_OPTIONS_INIT;
static const tfckpt_merge_options MERGE_OPTIONS = TFCKPT_MERGE_OPTIONS_INIT;
static const tfckpt_reader_options READER_OPTIONS = TFCKPT_READER_OPTIONS_INIT;
static const tfckpt_verify_options VERIFY_OPTIONS = TFCKPT_VERIFY_OPTIONS_INIT;
static const tfckpt_update_options UPDATE_OPTIONS = TFCKPT_UPDATE_OPTIONS_INIT;
static const tfckpt_remove_options REMOVE_OPTIONS = TFCKPT_REMOVE_OPTIONS_INIT;
static const tfckpt_saveable SAVEABLE = TFCKPT_SAVEABLE_INIT;
static const tfckpt_saver_options SAVER_OPTIONS = TFCKPT_SAVER_OPTIONS_INIT;
static const tfckpt_saver_save_options SAVER_SAVE_OPTIONS = TFCKPT_SAVER_SAVE_OPTIONS_INIT;

static void macros_equal_functions(void)
{
    check_init(init_tensor, &TENSOR, sizeof TENSOR);
    check_init(init_stats, &STATS, sizeof STATS);
    check_init(init_progress, &PROGRESS, sizeof PROGRESS);
    check_init(init_context_options, &CONTEXT_OPTIONS, sizeof CONTEXT_OPTIONS);
    check_init(init_save_options, &SAVE_OPTIONS, sizeof SAVE_OPTIONS);
    check_init(init_restore_options, &RESTORE_OPTIONS, sizeof RESTORE_OPTIONS);
    check_init(init_latest_options, &LATEST_OPTIONS, sizeof LATEST_OPTIONS);
    check_init(init_merge_options, &MERGE_OPTIONS, sizeof MERGE_OPTIONS);
    check_init(init_reader_options, &READER_OPTIONS, sizeof READER_OPTIONS);
    check_init(init_verify_options, &VERIFY_OPTIONS, sizeof VERIFY_OPTIONS);
    check_init(init_update_options, &UPDATE_OPTIONS, sizeof UPDATE_OPTIONS);
    check_init(init_remove_options, &REMOVE_OPTIONS, sizeof REMOVE_OPTIONS);
    check_init(init_saveable, &SAVEABLE, sizeof SAVEABLE);
    check_init(init_saver_options, &SAVER_OPTIONS, sizeof SAVER_OPTIONS);
    check_init(init_saver_save_options, &SAVER_SAVE_OPTIONS, sizeof SAVER_SAVE_OPTIONS);
}

/* ---- Sizes of options ---- */

static char scratch[PATH_SIZE], prefix[PATH_SIZE];
static float values[4] = {1, 2, 3, 4};
static const int64_t FOUR[] = {4};

static tfckpt_tensor values_tensor(void)
{
    return host_tensor("values", TFCKPT_DTYPE_FLOAT, 1, FOUR, values, sizeof values);
}

/* One function that takes the struct, called with whatever `options` are. */
typedef tfckpt_code (*call_with)(void *options, tfckpt_error **error_out);

static tfckpt_code new_context(void *options, tfckpt_error **error_out)
{
    tfckpt_context *context = NULL;
    tfckpt_code code = tfckpt_context_new((const tfckpt_context_options *)options, &context, error_out);

    tfckpt_context_free(context);
    return code;
}

static tfckpt_code save(void *options, tfckpt_error **error_out)
{
    tfckpt_tensor tensor = values_tensor();

    return tfckpt_save(prefix, &tensor, 1, (const tfckpt_save_options *)options, NULL, error_out);
}

static tfckpt_code restore(void *options, tfckpt_error **error_out)
{
    tfckpt_tensor tensor = values_tensor();

    return tfckpt_restore(prefix, &tensor, 1, (const tfckpt_restore_options *)options, NULL, error_out);
}

static tfckpt_code latest(void *options, tfckpt_error **error_out)
{
    char *found = NULL;
    tfckpt_code code = tfckpt_latest_checkpoint(scratch, (tfckpt_latest_options *)options, &found, error_out);

    tfckpt_string_free(found);
    return code;
}

static tfckpt_code merge(void *options, tfckpt_error **error_out)
{
    tfckpt_tensor tensor = values_tensor();
    char *part = NULL;
    tfckpt_code code;

    CHECK(tfckpt_save_shard(prefix, 0, 1, NULL, &tensor, 1, NULL, &part, NULL) == TFCKPT_OK);
    code = tfckpt_merge((const char *const *)&part, 1, prefix, (const tfckpt_merge_options *)options, error_out);
    tfckpt_string_free(part);
    return code;
}

static tfckpt_code open_reader(void *options, tfckpt_error **error_out)
{
    tfckpt_reader *reader = NULL;
    tfckpt_code code = tfckpt_reader_open(prefix, (const tfckpt_reader_options *)options, &reader, error_out);

    tfckpt_reader_free(reader);
    return code;
}

static tfckpt_code verify(void *options, tfckpt_error **error_out)
{
    tfckpt_reader *reader = NULL;
    tfckpt_code code;

    CHECK(tfckpt_reader_open(prefix, NULL, &reader, NULL) == TFCKPT_OK);
    code = tfckpt_reader_verify(reader, (const tfckpt_verify_options *)options, NULL, error_out);
    tfckpt_reader_free(reader);
    return code;
}

static tfckpt_code update_state(void *options, tfckpt_error **error_out)
{
    return tfckpt_update_checkpoint_state(scratch, prefix, (const tfckpt_update_options *)options, error_out);
}

static tfckpt_code remove_nothing(void *options, tfckpt_error **error_out)
{
    char gone[PATH_SIZE];

    path_in(gone, scratch, "gone");
    return tfckpt_remove_checkpoint(gone, (const tfckpt_remove_options *)options, error_out);
}

static tfckpt_code new_saver(void *options, tfckpt_error **error_out)
{
    const tfckpt_tensor tensor = values_tensor();
    tfckpt_saver *saver = NULL;
    tfckpt_code code =
        tfckpt_saver_create(&tensor, 1, NULL, 0, (const tfckpt_saver_options *)options, &saver, error_out);

    tfckpt_saver_free(saver);
    return code;
}

static tfckpt_code save_with_saver(void *options, tfckpt_error **error_out)
{
    const tfckpt_tensor tensor = values_tensor();
    tfckpt_saver *saver = NULL;
    tfckpt_code code;

    CHECK(tfckpt_saver_create(&tensor, 1, NULL, 0, NULL, &saver, NULL) == TFCKPT_OK);
    code = tfckpt_saver_save(saver, prefix, (const tfckpt_saver_save_options *)options, NULL, error_out);
    tfckpt_saver_free(saver);
    return code;
}

static int32_t never_called(tfckpt_tensor *tensors, size_t num_tensors, void *user_data)
{
    (void)tensors;
    (void)num_tensors;
    (void)user_data;
    return 1;
}

static tfckpt_code new_saver_of(void *saveable, tfckpt_error **error_out)
{
    tfckpt_saver *saver = NULL;
    tfckpt_code code = tfckpt_saver_create(NULL, 0, (const tfckpt_saveable *)saveable, 1, NULL, &saver, error_out);

    tfckpt_saver_free(saver);
    return code;
}

static tfckpt_code save_tensor(void *tensor, tfckpt_error **error_out)
{
    return tfckpt_save(prefix, (const tfckpt_tensor *)tensor, 1, NULL, NULL, error_out);
}

static tfckpt_code restore_tensor(void *tensor, tfckpt_error **error_out)
{
    return tfckpt_restore(prefix, (const tfckpt_tensor *)tensor, 1, NULL, NULL, error_out);
}

static void check_sizes(call_with call, const void *good, size_t size)
{
    static const size_t too_small[] = {0, 1, sizeof(size_t)};
    uint64_t memory[64];
    size_t larger = size + 16;
    tfckpt_error *error = NULL;

    CHECK(larger <= sizeof memory && size % 8 == 0);
    memset(memory, 0, sizeof memory);
    memcpy(memory, good, size);
    CHECK_OK(call(memory, &error), error);

    for (int i = 0; i < 3; i++) {
        memory[0] = too_small[i];
        CHECK_FAILS(call(memory, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    }
    memory[0] = size - 1;
    CHECK_FAILS(call(memory, &error), TFCKPT_INVALID_ARGUMENT, error, "");

    memory[0] = larger; /* with nothing in the fields that this library does not know */
    CHECK_OK(call(memory, &error), error);
    ((unsigned char *)memory)[larger - 1] = 1; /* with something in the last one */
    CHECK_FAILS(call(memory, &error), TFCKPT_UNIMPLEMENTED, error, "");
}

static void sizes_are_checked(void)
{
    const tfckpt_tensor tensor = values_tensor();
    tfckpt_save_options save_options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_saveable saveable = TFCKPT_SAVEABLE_INIT;

    saveable.name = "table";
    saveable.tensors = &tensor;
    saveable.num_tensors = 1;
    saveable.save = never_called;
    saveable.restore = never_called;
    save_options.update_state = 1; /* so that there is a latest one */
    check_sizes(save, &save_options, sizeof save_options);
    check_sizes(new_context, &CONTEXT_OPTIONS, sizeof CONTEXT_OPTIONS);
    check_sizes(restore, &RESTORE_OPTIONS, sizeof RESTORE_OPTIONS);
    check_sizes(latest, &LATEST_OPTIONS, sizeof LATEST_OPTIONS);
    check_sizes(merge, &MERGE_OPTIONS, sizeof MERGE_OPTIONS);
    check_sizes(open_reader, &READER_OPTIONS, sizeof READER_OPTIONS);
    check_sizes(verify, &VERIFY_OPTIONS, sizeof VERIFY_OPTIONS);
    check_sizes(update_state, &UPDATE_OPTIONS, sizeof UPDATE_OPTIONS);
    check_sizes(remove_nothing, &REMOVE_OPTIONS, sizeof REMOVE_OPTIONS);
    check_sizes(new_saver, &SAVER_OPTIONS, sizeof SAVER_OPTIONS);
    check_sizes(save_with_saver, &SAVER_SAVE_OPTIONS, sizeof SAVER_SAVE_OPTIONS);
    check_sizes(new_saver_of, &saveable, sizeof saveable);
    check_sizes(save_tensor, &tensor, sizeof tensor);
    check_sizes(restore_tensor, &tensor, sizeof tensor);
}

/* Structs that the library fills: it writes no further than it is told, and not beyond what it knows. */
static void stats_are_filled_within_their_size(void)
{
    struct {
        tfckpt_stats known;
        unsigned char behind[16];
    } stats;
    const tfckpt_stats initial = TFCKPT_STATS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    memset(&stats, 0xa5, sizeof stats);
    stats.known = initial;
    options.stats = &stats.known;
    CHECK_OK(restore(&options, &error), error);
    CHECK(stats.known.num_tensors == 1 && stats.known.bytes == sizeof values);
    for (size_t i = 0; i < sizeof stats.behind; i++)
        CHECK(stats.behind[i] == 0xa5);

    stats.known.struct_size = 0;
    CHECK_FAILS(restore(&options, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

/* An array of a newer program's tensors: the first one's size is the distance from each to the next. */
static void the_first_size_is_the_stride(void)
{
    struct newer_tensor {
        tfckpt_tensor known;
        uint64_t since_then;
    } tensors[3];
    static const char *const keys[] = {"a", "b", "c"};
    double numbers[3] = {0.25, 0.5, 0.75}, restored[3] = {0, 0, 0};
    char path[PATH_SIZE];
    tfckpt_error *error = NULL;

    path_in(path, scratch, "strided");
    for (int i = 0; i < 3; i++) {
        memset(&tensors[i], 0, sizeof tensors[i]);
        tensors[i].known = host_tensor(keys[i], TFCKPT_DTYPE_DOUBLE, 0, NULL, &numbers[i], sizeof numbers[i]);
        tensors[i].known.struct_size = sizeof tensors[i];
    }
    CHECK_OK(tfckpt_save(path, &tensors[0].known, 3, NULL, NULL, &error), error);
    for (int i = 0; i < 3; i++)
        tensors[i].known.data = &restored[i];
    CHECK_OK(tfckpt_restore(path, &tensors[0].known, 3, NULL, NULL, &error), error);
    CHECK(memcmp(numbers, restored, sizeof numbers) == 0);

    tensors[2].since_then = 1;
    CHECK_FAILS(tfckpt_restore(path, &tensors[0].known, 3, NULL, NULL, &error), TFCKPT_UNIMPLEMENTED, error, "");
    tensors[2].since_then = 0;
    tensors[1].known.struct_size = sizeof(tfckpt_tensor); /* all sizes must be equal */
    CHECK_FAILS(tfckpt_restore(path, &tensors[0].known, 3, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

static void versions_agree(void)
{
    char text[32];

    CHECK(tfckpt_version() == TFCKPT_VERSION_NUMBER);
    CHECK(TFCKPT_VERSION_NUMBER ==
          TFCKPT_VERSION_MAJOR * 10000 + TFCKPT_VERSION_MINOR * 100 + TFCKPT_VERSION_PATCH);
    CHECK(strcmp(tfckpt_version_string(), TFCKPT_VERSION_STRING) == 0);
    CHECK(snprintf(text, sizeof text, "%d.%d.%d", TFCKPT_VERSION_MAJOR, TFCKPT_VERSION_MINOR,
                   TFCKPT_VERSION_PATCH) > 0);
    CHECK(strcmp(text, TFCKPT_VERSION_STRING) == 0);
}

int main(int argc, char **argv)
{
    make_scratch_folder(argc, argv, scratch);
    path_in(prefix, scratch, "m");
    versions_agree();
    macros_equal_functions();
    sizes_are_checked();
    stats_are_filled_within_their_size();
    the_first_size_is_the_stride();
    remove_scratch_folder(scratch);
    return 0;
}
