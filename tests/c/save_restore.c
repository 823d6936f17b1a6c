/* Saves tensors of many dtypes in one call and restores them into other memory. */
#include "check.h"

/* The caller's own data: the library reads it when it saves and fills it when it restores. */
struct model {
    float kernel[2][3];
    double rate;             /* a scalar has rank 0 */
    int32_t counts[4];
    int64_t step;
    uint8_t pixels[2][2][3]; /* rank 3, row-major as C lays it out */
    uint8_t flags[5];        /* DT_BOOL is one byte each, 0 or 1 */
    uint16_t halves[3];      /* float16, as bits */
    float waves[2][2];       /* two complex64: real and imaginary part */
};

enum { NUM_NUMERIC = 9, NUM_TENSORS = 11 };

/* The nine numeric tensors, one of them without elements. */
static void describe(struct model *m, tfckpt_tensor *tensors)
{
    static const int64_t kernel[] = {2, 3}, counts[] = {4}, pixels[] = {2, 2, 3}, flags[] = {5}, halves[] = {3};
    static const int64_t waves[] = {2}, empty[] = {0, 3};
    tfckpt_tensor *t = tensors;

    *t++ = host_tensor("kernel", TFCKPT_DTYPE_FLOAT, 2, kernel, m->kernel, sizeof m->kernel);
    *t++ = host_tensor("rate", TFCKPT_DTYPE_DOUBLE, 0, NULL, &m->rate, sizeof m->rate);
    *t++ = host_tensor("counts", TFCKPT_DTYPE_INT32, 1, counts, m->counts, sizeof m->counts);
    *t++ = host_tensor("step", TFCKPT_DTYPE_INT64, 0, NULL, &m->step, sizeof m->step);
    *t++ = host_tensor("pixels", TFCKPT_DTYPE_UINT8, 3, pixels, m->pixels, sizeof m->pixels);
    *t++ = host_tensor("flags", TFCKPT_DTYPE_BOOL, 1, flags, m->flags, sizeof m->flags);
    *t++ = host_tensor("halves", TFCKPT_DTYPE_HALF, 1, halves, m->halves, sizeof m->halves);
    *t++ = host_tensor("waves", TFCKPT_DTYPE_COMPLEX64, 1, waves, m->waves, sizeof m->waves);
    *t++ = host_tensor("empty", TFCKPT_DTYPE_FLOAT, 2, empty, NULL, 0);
    CHECK(t == tensors + NUM_NUMERIC);
}

static void fill(struct model *m)
{
    unsigned char *bytes = (unsigned char *)m;

    for (size_t i = 0; i < sizeof *m; i++)
        bytes[i] = (unsigned char)(i * 7 + 1);
    for (size_t i = 0; i < sizeof m->flags; i++)
        m->flags[i] = i % 2;
    m->step = 42;
}

static void check_equal(const struct model *a, const struct model *b)
{
    CHECK(memcmp(a->kernel, b->kernel, sizeof a->kernel) == 0);
    CHECK(memcmp(&a->rate, &b->rate, sizeof a->rate) == 0);
    CHECK(memcmp(a->counts, b->counts, sizeof a->counts) == 0);
    CHECK(a->step == b->step);
    CHECK(memcmp(a->pixels, b->pixels, sizeof a->pixels) == 0);
    CHECK(memcmp(a->flags, b->flags, sizeof a->flags) == 0);
    CHECK(memcmp(a->halves, b->halves, sizeof a->halves) == 0);
    CHECK(memcmp(a->waves, b->waves, sizeof a->waves) == 0);
}

/* Called by the library while it works; returning something other than 0 would cancel the call. */
struct progress_seen {
    int num_calls;
    uint64_t bytes_done, tensors_done;
};

static int32_t on_progress(const tfckpt_progress *progress, void *user_data)
{
    struct progress_seen *seen = (struct progress_seen *)user_data;

    CHECK(progress->struct_size >= sizeof *progress);
    CHECK(progress->bytes_done >= seen->bytes_done && progress->bytes_done <= progress->bytes_total);
    CHECK(progress->tensors_done >= seen->tensors_done && progress->tensors_done <= progress->tensors_total);
    CHECK(progress->tensors_total == NUM_TENSORS);
    seen->num_calls++;
    seen->bytes_done = progress->bytes_done;
    seen->tensors_done = progress->tensors_done;
    return 0;
}

static const uint64_t NUMERIC_BYTES = 24 + 8 + 16 + 8 + 12 + 5 + 6 + 16;

/* The strings "a" and "" and three bytes with a NUL among them. */
static const tfckpt_string STRINGS[] = {{"a", 1}, {"", 0}, {"\x00\xff!", 3}};

static void save(const char *prefix, const char *saved_as)
{
    static const int64_t three[] = {3};
    tfckpt_string labels[3], name = {"iris", 4};
    struct model model;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    struct progress_seen seen = {0, 0, 0};
    tfckpt_error *error = NULL;
    char *prefix_out = NULL;

    fill(&model);
    memcpy(labels, STRINGS, sizeof labels);
    describe(&model, tensors);
    /* For strings, `data` is an array of tfckpt_string and `size` the size of that array. */
    tensors[9] = host_tensor("labels", TFCKPT_DTYPE_STRING, 1, three, labels, sizeof labels);
    tensors[10] = host_tensor("name", TFCKPT_DTYPE_STRING, 0, NULL, &name, sizeof name);

    options.global_step = &model.step;
    options.progress = on_progress;
    options.user_data = &seen;
    options.stats = &stats;
    CHECK_OK(tfckpt_save(prefix, tensors, NUM_TENSORS, &options, &prefix_out, &error), error);

    CHECK(prefix_out != NULL && strcmp(prefix_out, saved_as) == 0);
    tfckpt_string_free(prefix_out);
    CHECK(seen.num_calls > 0 && seen.tensors_done == NUM_TENSORS);
    CHECK(stats.num_tensors == NUM_TENSORS);
    CHECK(stats.bytes >= NUMERIC_BYTES && stats.bytes_io >= NUMERIC_BYTES);
    CHECK(stats.num_io > 0 && stats.elapsed_ns > 0 && stats.num_threads > 0);
}

static void restore(const char *prefix)
{
    static const int64_t three[] = {3};
    tfckpt_strings *labels = NULL, *name = NULL;
    struct model expected, model;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    struct progress_seen seen = {0, 0, 0};
    tfckpt_error *error = NULL;
    const char *bytes;
    size_t size = 0;

    memset(&model, 0, sizeof model);
    describe(&model, tensors);
    /* Restored strings belong to the library: it sets the pointer that `data` points to. */
    tensors[9] = host_tensor("labels", TFCKPT_DTYPE_STRING, 1, three, &labels, sizeof(tfckpt_strings *));
    tensors[10] = host_tensor("name", TFCKPT_DTYPE_STRING, 0, NULL, &name, sizeof(tfckpt_strings *));

    options.progress = on_progress;
    options.user_data = &seen;
    options.stats = &stats;
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM_TENSORS, &options, NULL, &error), error);

    fill(&expected);
    check_equal(&model, &expected);
    CHECK(tfckpt_strings_num(labels) == 3 && tfckpt_strings_num(name) == 1);
    for (size_t i = 0; i < 3; i++) {
        bytes = tfckpt_strings_get(labels, i, &size);
        CHECK(bytes != NULL && size == STRINGS[i].size && memcmp(bytes, STRINGS[i].data, size) == 0);
    }
    CHECK(tfckpt_strings_get(labels, 3, &size) == NULL);
    bytes = tfckpt_strings_get(name, 0, &size);
    CHECK(size == 4 && memcmp(bytes, "iris", 4) == 0);
    tfckpt_strings_free(labels);
    tfckpt_strings_free(name);
    CHECK(seen.num_calls > 0 && seen.tensors_done == NUM_TENSORS);
    CHECK(stats.num_tensors == NUM_TENSORS);
    CHECK(stats.bytes_verified >= NUMERIC_BYTES && stats.bytes_io >= NUMERIC_BYTES);
    CHECK(stats.elapsed_ns > 0 && stats.num_threads > 0);
}

/* Only some of a checkpoint's tensors, in any order. */
static void restore_two(const char *prefix)
{
    static const int64_t kernel[] = {2, 3};
    struct model expected, model;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    fill(&expected);
    memset(&model, 0, sizeof model);
    tensors[0] = host_tensor("step", TFCKPT_DTYPE_INT64, 0, NULL, &model.step, sizeof model.step);
    tensors[1] = host_tensor("kernel", TFCKPT_DTYPE_FLOAT, 2, kernel, model.kernel, sizeof model.kernel);
    CHECK_OK(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), error);
    CHECK(model.step == 42);
    CHECK(memcmp(model.kernel, expected.kernel, sizeof model.kernel) == 0);
}

/* Options that change the names of the files. */
static void save_under_other_names(const char *dir)
{
    char prefix[PATH_SIZE], expected[PATH_SIZE];
    float values[4] = {1, 2, 3, 4}, restored[4] = {0, 0, 0, 0};
    const int64_t four[] = {4};
    const int64_t step = 7;
    tfckpt_tensor tensor = host_tensor("values", TFCKPT_DTYPE_FLOAT, 1, four, values, sizeof values);
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    char *prefix_out = NULL;

    /* Without options the prefix is used as it is. */
    path_in(prefix, dir, "plain");
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, &prefix_out, &error), error);
    CHECK(strcmp(prefix_out, prefix) == 0);
    tfckpt_string_free(prefix_out);
    path_in(expected, dir, "plain.data-00000-of-00001");
    CHECK(file_exists(expected));
    path_in(expected, dir, "plain.index");
    CHECK(file_exists(expected));

    /* Steps of at least eight digits sort as text. The prefix is not asked for this time. */
    options.global_step = &step;
    options.pad_step_number = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &options, NULL, &error), error);
    path_in(expected, dir, "plain-00000007.index");
    CHECK(file_exists(expected));

    path_in(prefix, dir, "plain-00000007");
    tensor.data = restored;
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
    CHECK(memcmp(values, restored, sizeof values) == 0);
}

/* Several data files, and a context that two calls share. */
static void save_in_shards(const char *dir)
{
    char prefix[PATH_SIZE], expected[PATH_SIZE];
    int32_t values[3][256], restored[3][256];
    const int64_t shape[] = {256};
    const char *keys[] = {"first", "second", "third"};
    tfckpt_tensor tensors[3];
    tfckpt_context_options context_options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_save_options save_options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options restore_options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    context_options.num_threads = 2;
    CHECK_OK(tfckpt_context_new(&context_options, &context, &error), error);
    for (int t = 0; t < 3; t++) {
        for (int i = 0; i < 256; i++)
            values[t][i] = 1000 * t + i;
        tensors[t] = host_tensor(keys[t], TFCKPT_DTYPE_INT32, 1, shape, values[t], sizeof values[t]);
    }

    path_in(prefix, dir, "sharded");
    save_options.context = context;
    save_options.max_shard_size = sizeof values[0]; /* one tensor fills a shard */
    CHECK_OK(tfckpt_save(prefix, tensors, 3, &save_options, NULL, &error), error);
    path_in(expected, dir, "sharded.data-00002-of-00003");
    CHECK(file_exists(expected));

    memset(restored, 0, sizeof restored);
    for (int t = 0; t < 3; t++)
        tensors[t].data = restored[t];
    restore_options.context = context;
    CHECK_OK(tfckpt_restore(prefix, tensors, 3, &restore_options, NULL, &error), error);
    CHECK(memcmp(values, restored, sizeof values) == 0);
    tfckpt_context_free(context);
}

/* A program that has no memory yet lets the library allocate it, in huge pages, and lays the tensors out in it. */
static void restore_into_a_buffer(const char *prefix)
{
    static const int64_t kernel[] = {2, 3};
    struct model expected;
    tfckpt_buffer *buffer = NULL, *empty = NULL;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;
    char *memory;

    CHECK_OK(tfckpt_buffer_new(128, &buffer, &error), error);
    CHECK(tfckpt_buffer_size(buffer) == 128);
    memory = (char *)tfckpt_buffer_data(buffer);
    CHECK(memory != NULL && (uintptr_t)memory % (2 << 20) == 0 && memory[0] == 0 && memory[127] == 0);

    tensors[0] = host_tensor("kernel", TFCKPT_DTYPE_FLOAT, 2, kernel, memory, sizeof expected.kernel);
    tensors[1] = host_tensor("rate", TFCKPT_DTYPE_DOUBLE, 0, NULL, memory + 64, sizeof expected.rate);
    CHECK_OK(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), error);
    fill(&expected);
    CHECK(memcmp(memory, expected.kernel, sizeof expected.kernel) == 0);
    CHECK(memcmp(memory + 64, &expected.rate, sizeof expected.rate) == 0);
    tfckpt_buffer_free(buffer);

    CHECK_OK(tfckpt_buffer_new(0, &empty, &error), error);
    CHECK(tfckpt_buffer_size(empty) == 0);
    tfckpt_buffer_free(empty);
    empty = NULL;
    CHECK_FAILS(tfckpt_buffer_new(SIZE_MAX, &empty, &error), TFCKPT_RESOURCE_EXHAUSTED, error, "no memory for a buffer");
    CHECK(empty == NULL);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], saved_as[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved_as, dir, "model.ckpt-42");
    save(prefix, saved_as);
    restore(saved_as);
    restore_two(saved_as);
    restore_into_a_buffer(saved_as);
    save_under_other_names(dir);
    save_in_shards(dir);
    remove_scratch_folder(dir);
    return 0;
}
