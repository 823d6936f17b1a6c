/* Four threads read through one reader; then four threads save through one context. Neither needs a lock. */
#include "check.h"

#include <pthread.h>

enum { NUM_THREADS = 4, NUM_ROUNDS = 40, NUM_TENSORS = 16, NUM_VALUES = 5000 };

static const int64_t SHAPE[] = {NUM_VALUES};

/* Tensor t of save s. */
static int32_t value_of(int s, int t, int i)
{
    return 1000000 * s + 10000 * t + i;
}

static void name_of(char name[16], int t)
{
    CHECK(snprintf(name, 16, "tensor_%02d", t) < 16);
}

/* Saves all tensors with the values of save number s. */
static void save(const char *prefix, int s, const tfckpt_context *context)
{
    int32_t(*values)[NUM_VALUES] = (int32_t(*)[NUM_VALUES])malloc(NUM_TENSORS * sizeof *values);
    char names[NUM_TENSORS][16];
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    CHECK(values != NULL);
    for (int t = 0; t < NUM_TENSORS; t++) {
        for (int i = 0; i < NUM_VALUES; i++)
            values[t][i] = value_of(s, t, i);
        name_of(names[t], t);
        tensors[t] = host_tensor(names[t], TFCKPT_DTYPE_INT32, 1, SHAPE, values[t], sizeof values[t]);
    }
    options.context = context;
    options.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, tensors, NUM_TENSORS, &options, NULL, &error), error);
    free(values);
}

/* Restores tensor t through the reader and checks every value. */
static void restore(const tfckpt_reader *reader, int s, int t, const tfckpt_context *context)
{
    int32_t values[NUM_VALUES];
    char name[16];
    tfckpt_tensor tensor;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    name_of(name, t);
    memset(values, 0, sizeof values);
    tensor = host_tensor(name, TFCKPT_DTYPE_INT32, 1, SHAPE, values, sizeof values);
    options.context = context;
    CHECK_OK(tfckpt_reader_restore(reader, &tensor, 1, &options, NULL, &error), error);
    for (int i = 0; i < NUM_VALUES; i++)
        CHECK(values[i] == value_of(s, t, i));
}

/* ---- Reading ---- */

struct reading {
    const tfckpt_reader *reader;
    const tfckpt_context *context;
    int number;
};

static void *read_many_times(void *argument)
{
    const struct reading *reading = (const struct reading *)argument;
    tfckpt_error *error = NULL;

    for (int round = 0; round < NUM_ROUNDS; round++) {
        int t = (round * 5 + reading->number) % NUM_TENSORS;
        char name[16];
        tfckpt_entry *entry = NULL;
        tfckpt_entries *entries = NULL;
        const tfckpt_entry *next = NULL;
        size_t num = 0;

        restore(reading->reader, 0, t, reading->context);

        name_of(name, t);
        CHECK_OK(tfckpt_reader_find(reading->reader, name, strlen(name), &entry, &error), error);
        CHECK(tfckpt_entry_shape(entry)[0] == NUM_VALUES);
        tfckpt_entry_free(entry);

        /* An iteration is a thread's own. */
        CHECK_OK(tfckpt_reader_entries(reading->reader, &entries, &error), error);
        do {
            CHECK_OK(tfckpt_entries_next(entries, &next, &error), error);
            num += next != NULL;
        } while (next != NULL);
        CHECK(num == NUM_TENSORS);
        tfckpt_entries_free(entries);
    }
    return NULL;
}

/* ---- Saving ---- */

struct saving {
    char prefix[PATH_SIZE];
    const tfckpt_context *context;
    int number;
};

static void *save_and_read_back(void *argument)
{
    const struct saving *saving = (const struct saving *)argument;

    for (int round = 1; round <= NUM_ROUNDS / 4; round++) {
        int s = NUM_THREADS * round + saving->number;
        tfckpt_reader *reader = NULL;
        tfckpt_error *error = NULL;

        save(saving->prefix, s, saving->context);
        CHECK_OK(tfckpt_reader_open(saving->prefix, NULL, &reader, &error), error);
        for (int t = 0; t < NUM_TENSORS; t++)
            restore(reader, s, t, saving->context);
        tfckpt_reader_free(reader);
    }
    return NULL;
}

int main(int argc, char **argv)
{
    static struct saving savings[NUM_THREADS];
    struct reading readings[NUM_THREADS];
    pthread_t threads[NUM_THREADS];
    char dir[PATH_SIZE], prefix[PATH_SIZE], names[4096];
    tfckpt_context *context = NULL;
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    make_scratch_folder(argc, argv, dir);
    CHECK_OK(tfckpt_context_new(NULL, &context, &error), error);
    path_in(prefix, dir, "read");
    save(prefix, 0, context);
    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);

    for (int i = 0; i < NUM_THREADS; i++) {
        readings[i].reader = reader;
        readings[i].context = i % 2 == 0 ? context : NULL;
        readings[i].number = i;
        CHECK(pthread_create(&threads[i], NULL, read_many_times, &readings[i]) == 0);
    }
    for (int i = 0; i < NUM_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    tfckpt_reader_free(reader);

    for (int i = 0; i < NUM_THREADS; i++) {
        char name[16];

        CHECK(snprintf(name, sizeof name, "save_%d", i) < (int)sizeof name);
        path_in(savings[i].prefix, dir, name);
        savings[i].context = context;
        savings[i].number = i;
        CHECK(pthread_create(&threads[i], NULL, save_and_read_back, &savings[i]) == 0);
    }
    for (int i = 0; i < NUM_THREADS; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    tfckpt_context_free(context);

    /* Two files for each of the five prefixes, and nothing else. */
    list_folder(dir, names, sizeof names);
    CHECK(strstr(names, ".tmp-") == NULL && strstr(names, ".prev-") == NULL);
    remove_scratch_folder(dir);
    return 0;
}
