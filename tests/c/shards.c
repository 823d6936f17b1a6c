/* Several processes save one checkpoint together: each saves its own tensors, and its slice of a partitioned one, as a
 * part; when all are done the parent merges the parts. */
#include "check.h"

#include <sys/wait.h>

enum { NUM_PROCESSES = 4, NUM_ROWS = 8, NUM_COLUMNS = 3, ROWS_EACH = 2 };

static const char SAVE_ID[] = "step-7";

/* Process `rank` owns two rows of "table" and the scalar "scalar_<rank>"; the last process owns nothing. */
static int save_part(const char *prefix, uint32_t rank)
{
    static const int64_t rows[] = {ROWS_EACH, NUM_COLUMNS};
    float table[ROWS_EACH][NUM_COLUMNS];
    double scalar = (double)rank + 0.5;
    char key[32], slice[64];
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    for (int i = 0; i < ROWS_EACH * NUM_COLUMNS; i++)
        table[i / NUM_COLUMNS][i % NUM_COLUMNS] = (float)((int)rank * ROWS_EACH * NUM_COLUMNS + i);
    snprintf(key, sizeof key, "scalar_%u", (unsigned)rank);
    snprintf(slice, sizeof slice, "%d %d %u,%d:-", NUM_ROWS, NUM_COLUMNS, (unsigned)rank * ROWS_EACH, ROWS_EACH);
    tensors[0] = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, rows, table, sizeof table);
    tensors[0].slice_spec = slice;
    tensors[1] = host_tensor(key, TFCKPT_DTYPE_DOUBLE, 0, NULL, &scalar, sizeof scalar);
    CHECK_OK(tfckpt_save_shard(prefix, rank, NUM_PROCESSES + 1, SAVE_ID, tensors, rank < NUM_PROCESSES ? 2 : 0, NULL,
                               NULL, &error),
             error);
    return EXIT_SUCCESS;
}

static void save_in_processes(const char *prefix)
{
    pid_t children[NUM_PROCESSES + 1];

    for (uint32_t rank = 0; rank <= NUM_PROCESSES; rank++) {
        children[rank] = fork();
        CHECK(children[rank] >= 0);
        if (children[rank] == 0)
            _exit(save_part(prefix, rank));
    }
    for (uint32_t rank = 0; rank <= NUM_PROCESSES; rank++) {
        int status = -1;

        CHECK(waitpid(children[rank], &status, 0) == children[rank]);
        CHECK(WIFEXITED(status) && WEXITSTATUS(status) == EXIT_SUCCESS);
    }
}

static void check_restored(const char *prefix)
{
    static const int64_t shape[] = {NUM_ROWS, NUM_COLUMNS};
    float table[NUM_ROWS][NUM_COLUMNS];
    double scalar = 0;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    tensors[0] = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shape, table, sizeof table);
    tensors[1] = host_tensor("scalar_2", TFCKPT_DTYPE_DOUBLE, 0, NULL, &scalar, sizeof scalar);
    CHECK_OK(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), error);
    CHECK(scalar == 2.5);
    for (int i = 0; i < NUM_ROWS * NUM_COLUMNS; i++)
        CHECK(table[i / NUM_COLUMNS][i % NUM_COLUMNS] == (float)i);
}

/* Parts and names as the header tells them. */
static void name_parts(const char *prefix, char names[NUM_PROCESSES + 1][PATH_SIZE],
                       const char *parts[NUM_PROCESSES + 1])
{
    for (int rank = 0; rank <= NUM_PROCESSES; rank++) {
        int size = snprintf(names[rank], PATH_SIZE, "%s_temp_%s/part-%05d-of-%05d", prefix, SAVE_ID, rank,
                            NUM_PROCESSES + 1);

        CHECK(size > 0 && size < PATH_SIZE);
        parts[rank] = names[rank];
    }
}

static int32_t cancel(const tfckpt_progress *progress, void *user_data)
{
    (void)progress;
    (*(int *)user_data)++;
    return 1;
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], temp[PATH_SIZE], listed[1024], *latest = NULL;
    static char names[NUM_PROCESSES + 1][PATH_SIZE];
    const char *parts[NUM_PROCESSES + 1];
    tfckpt_merge_options options = TFCKPT_MERGE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    uint64_t before;
    int asked = 0;

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "m");
    path_in(temp, dir, "m_temp_step-7");
    save_in_processes(prefix);
    name_parts(prefix, names, parts);

    /* A merge that fails or is cancelled leaves the parts as they are. */
    before = folder_digest(temp);
    options.progress = cancel;
    options.user_data = &asked;
    CHECK_FAILS(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, &options, &error), TFCKPT_CANCELLED, error, "");
    CHECK(asked == 1);
    options.progress = NULL;
    parts[1] = parts[0];
    CHECK_FAILS(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, &options, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Duplicate tensor keyed by ");
    parts[1] = "/no/such/part";
    CHECK_FAILS(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, &options, &error), TFCKPT_INVALID_ARGUMENT, error,
                "allow_missing_files was set to false and /no/such/part did not exist.");
    parts[1] = names[1];
    list_folder(dir, listed, sizeof listed);
    CHECK(strcmp(listed, "m_temp_step-7\n") == 0);
    CHECK(folder_digest(temp) == before);

    /* One that succeeds leaves the checkpoint only. The part without tensors has no data file in it. */
    options.update_state = 1;
    options.stats = &stats;
    CHECK_OK(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, &options, &error), error);
    list_folder(dir, listed, sizeof listed);
    CHECK(strcmp(listed, "checkpoint\nm.data-00000-of-00004\nm.data-00001-of-00004\nm.data-00002-of-00004\n"
                         "m.data-00003-of-00004\nm.index\n") == 0);
    CHECK(stats.num_tensors == 2 * NUM_PROCESSES && stats.elapsed_ns > 0);
    CHECK_OK(tfckpt_latest_checkpoint(dir, NULL, &latest, &error), error);
    CHECK(strcmp(latest, prefix) == 0);
    tfckpt_string_free(latest);
    check_restored(prefix);

    /* The next save to the same prefix. */
    save_in_processes(prefix);
    CHECK_OK(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, NULL, &error), error);
    check_restored(prefix);
    CHECK_FAILS(tfckpt_merge(parts, NUM_PROCESSES + 1, prefix, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "the checkpoint exists, perhaps of an earlier merge");

    remove_scratch_folder(dir);
    return 0;
}
