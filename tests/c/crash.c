/* Kills a process that saves to the same prefix again and again, at random moments. Whatever moment it was, a complete
 * checkpoint of one generation is found, and the next save goes through and tidies up. */
#include "check.h"

#include <signal.h>
#include <sys/wait.h>
#include <time.h>

enum { NUM_KILLS = 60, NUM_TENSORS = 4, NUM_VALUES = 8192, MAX_SECONDS = 10 };

/* Tensors of 64 KiB in shards of two. Every value of every tensor is the number of the save, its generation. */
static int64_t values[NUM_TENSORS][NUM_VALUES];

static void describe(tfckpt_tensor tensors[NUM_TENSORS])
{
    static const int64_t shape[] = {NUM_VALUES};
    static const char *const keys[] = {"a", "b", "c", "d"};

    for (int t = 0; t < NUM_TENSORS; t++)
        tensors[t] = host_tensor(keys[t], TFCKPT_DTYPE_INT64, 1, shape, values[t], sizeof values[t]);
}

static void save(const char *prefix, int64_t generation, int no_sync)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            values[t][i] = generation;
    describe(tensors);
    options.update_state = 1;
    options.max_shard_size = 2 * sizeof values[0];
    options.no_sync = no_sync; /* a killed process needs no fsync, only a dying machine does: both ways are tried */
    CHECK_OK(tfckpt_save(prefix, tensors, NUM_TENSORS, &options, NULL, &error), error);
}

/* Restores the folder's latest checkpoint, which must be PREFIX, and returns its generation. */
static int64_t latest_generation(const char *dir, const char *prefix)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_error *error = NULL;
    char *latest = NULL;

    CHECK_OK(tfckpt_latest_checkpoint(dir, NULL, &latest, &error), error);
    CHECK(strcmp(latest, prefix) == 0);
    memset(values, 0, sizeof values);
    describe(tensors);
    CHECK_OK(tfckpt_restore(latest, tensors, NUM_TENSORS, NULL, NULL, &error), error);
    tfckpt_string_free(latest);
    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            CHECK(values[t][i] == values[0][0]);
    return values[0][0];
}

/* Starts a process that saves one generation after the other, and kills it after a while. */
static void save_until_killed(const char *prefix, int64_t generation, int no_sync, long microseconds)
{
    struct timespec pause = {0, microseconds * 1000};
    pid_t child = fork();
    int status = 0;

    CHECK(child >= 0);
    if (child == 0) {
        alarm(MAX_SECONDS); /* should the parent die first */
        for (;;)
            save(prefix, ++generation, no_sync);
    }
    nanosleep(&pause, NULL);
    CHECK(kill(child, SIGKILL) == 0);
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL); /* it saved without an error until then */
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    static char first_names[4096], names[4096];
    const time_t start = time(NULL);
    uint32_t random = 2463534242u;
    int64_t generation = 1;
    int num_kills, num_advanced = 0, num_interrupted = 0;

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    save(prefix, generation, 0);
    list_folder(dir, first_names, sizeof first_names);

    for (num_kills = 0; num_kills < NUM_KILLS && time(NULL) - start < MAX_SECONDS; num_kills++) {
        int64_t found;

        random ^= random << 13, random ^= random >> 17, random ^= random << 5; /* xorshift32 */
        save_until_killed(prefix, generation, num_kills % 2, (long)(random % 60000));
        list_folder(dir, names, sizeof names);
        num_interrupted += strcmp(names, first_names) != 0;
        found = latest_generation(dir, prefix);
        CHECK(found >= generation);
        num_advanced += found > generation;
        generation = found;

        /* Every third time a save of ours; else the next child meets what this one left. */
        if (num_kills % 3 == 2) {
            save(prefix, ++generation, 0);
            CHECK(latest_generation(dir, prefix) == generation);
            list_folder(dir, names, sizeof names);
            CHECK(strstr(names, ".prev-") == NULL && strstr(names, ".tmp-") == NULL);
            CHECK(strcmp(names, first_names) == 0);
        }
    }
    printf("%d kills; %d found something newer, %d left files behind\n", num_kills, num_advanced, num_interrupted);
    CHECK(num_advanced > 0 && num_interrupted > 0); /* else the kills hit nothing */
    remove_scratch_folder(dir);
    return 0;
}
