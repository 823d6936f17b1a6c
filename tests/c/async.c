/* Saves behind the training's back: a loop that trains while its last step is being written, and what can be asked of
 * such a job. Restores in the background are at the end: the first layers are used before the last ones are there. */
#include "check.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

enum { NUM_TENSORS = 3, NUM_VALUES = 300000, FOREVER = -1 };

static float weights[NUM_TENSORS][NUM_VALUES];
static const char *const keys[NUM_TENSORS] = {"layer_1/kernel", "layer_2/kernel", "layer_3/kernel"};

static void describe(tfckpt_tensor tensors[NUM_TENSORS], float values[NUM_TENSORS][NUM_VALUES])
{
    static const int64_t shape[] = {NUM_VALUES};

    for (int t = 0; t < NUM_TENSORS; t++)
        tensors[t] = host_tensor(keys[t], TFCKPT_DTYPE_FLOAT, 1, shape, values[t], sizeof values[t]);
}

/* One step of a training that sets every weight to the number of the step. */
static void train(int64_t step)
{
    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            weights[t][i] = (float)step;
}

static int all_equal(float values[NUM_TENSORS][NUM_VALUES], int64_t step)
{
    for (int t = 0; t < NUM_TENSORS; t++)
        for (int i = 0; i < NUM_VALUES; i++)
            if (values[t][i] != (float)step)
                return 0;
    return 1;
}

/* A context that can hold a copy of the whole model. */
static tfckpt_context *new_context(void)
{
    tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;

    options.max_host_bytes = 2 * sizeof weights;
    CHECK_OK(tfckpt_context_new(&options, &context, &error), error);
    return context;
}

static tfckpt_saver *new_saver(tfckpt_context *context)
{
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_saver *saver = NULL;
    tfckpt_error *error = NULL;

    describe(tensors, weights);
    options.context = context;
    options.max_to_keep = 2;
    CHECK_OK(tfckpt_saver_create(tensors, NUM_TENSORS, NULL, 0, &options, &saver, &error), error);
    return saver;
}

static tfckpt_job *save_async(tfckpt_saver *saver, const char *path, int64_t step)
{
    tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.global_step = &step;
    options.no_sync = 1;
    CHECK_OK(tfckpt_saver_save_async(saver, path, &options, &job, &error), error);
    return job;
}

static void check_checkpoint(const char *prefix, int64_t step)
{
    static float values[NUM_TENSORS][NUM_VALUES];
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_error *error = NULL;

    describe(tensors, values);
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM_TENSORS, NULL, NULL, &error), error);
    CHECK(all_equal(values, step));
}

static void train_and_save(const char *dir, const char *path)
{
    tfckpt_context *context = new_context();
    tfckpt_saver *saver = new_saver(context);
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    char *latest = NULL;

    for (int64_t step = 1; step <= 5; step++) {
        train(step);
        /* The weights have been copied when this returns: the next step may change them while they are written. */
        tfckpt_job *next = save_async(saver, path, step);
        if (job != NULL) {
            /* By now the save before is done, or nearly so. */
            CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
            check_checkpoint(tfckpt_job_prefix(job), step - 1);
            tfckpt_job_free(job);
        }
        job = next;
    }
    train(6);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(tfckpt_job_poll(job) == 1);
    check_checkpoint(tfckpt_job_prefix(job), 5);
    train(5);

    /* The job's figures, as a call fills them in. */
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_progress progress = TFCKPT_PROGRESS_INIT;
    CHECK_OK(tfckpt_job_stats(job, &stats, &error), error);
    CHECK(stats.bytes == sizeof weights && stats.num_tensors == NUM_TENSORS);
    CHECK_OK(tfckpt_job_progress(job, &progress, &error), error);
    CHECK(progress.bytes_done == sizeof weights && progress.bytes_total == sizeof weights);
    tfckpt_job_free(job);

    CHECK_OK(tfckpt_latest_checkpoint(dir, NULL, &latest, &error), error);
    CHECK(strstr(latest, "-5") != NULL);
    tfckpt_string_free(latest);
    CHECK(tfckpt_saver_num_last_checkpoints(saver) == 2);
    CHECK(strstr(tfckpt_saver_last_checkpoint(saver, 1), "-5") != NULL);
    CHECK(tfckpt_saver_last_checkpoint_time(saver, 1) > 0);

    tfckpt_context_trim(context); /* the memory of the copies, which was kept from one save to the next */
    job = save_async(saver, path, 5);
    tfckpt_context_free(context); /* saver and jobs keep what they need of it */
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    tfckpt_saver_free(saver);
}

/* Without memory for a copy: the tensors are left alone until they have been written. */
static void borrow_the_tensors(const char *prefix)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    train(7);
    describe(tensors, weights);
    options.borrow = 1;
    CHECK_OK(tfckpt_save_async(prefix, tensors, NUM_TENSORS, &options, &job, &error), error);
    memset(tensors, 0, sizeof tensors); /* descriptions are copied */
    CHECK_OK(tfckpt_job_wait_snapshot(job, FOREVER, &error), error);
    train(8);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(strcmp(tfckpt_job_prefix(job), prefix) == 0);
    tfckpt_job_free(job);
    check_checkpoint(prefix, 7);
}

/* What a progress callback and the main thread say to each other. */
struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int called, open;
};

static int32_t pass_gate(const tfckpt_progress *progress, void *user_data)
{
    struct gate *gate = (struct gate *)user_data;

    (void)progress;
    pthread_mutex_lock(&gate->mutex);
    gate->called = 1;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

static void wait_until_called(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    while (!gate->called)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static void open_gate(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->open = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

static void *wait_for(void *job)
{
    return (void *)(intptr_t)tfckpt_job_wait((const tfckpt_job *)job, FOREVER, NULL);
}

/* One thread stops what another one waits for; what was there before stays. */
static void cancel_from_another_thread(const char *prefix)
{
    struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    pthread_t waiter;
    void *code = NULL;

    describe(tensors, weights);
    options.borrow = 1;
    options.progress = pass_gate;
    options.user_data = &gate;
    CHECK_OK(tfckpt_save_async(prefix, tensors, NUM_TENSORS, &options, &job, &error), error);
    CHECK(pthread_create(&waiter, NULL, wait_for, job) == 0);
    wait_until_called(&gate); /* on the job's thread */

    CHECK(tfckpt_job_poll(job) == 0);
    CHECK(tfckpt_job_prefix(job) == NULL);
    CHECK_FAILS(tfckpt_job_wait(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "the job has not ended");
    CHECK_FAILS(tfckpt_job_wait(job, 1000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "the job has not ended");
    CHECK_FAILS(tfckpt_job_wait_snapshot(job, 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "the tensors");
    CHECK_FAILS(tfckpt_job_stats(job, &stats, &error), TFCKPT_FAILED_PRECONDITION, error, "the job has not ended");

    tfckpt_job_cancel(job);
    open_gate(&gate);
    CHECK(pthread_join(waiter, &code) == 0);
    CHECK((intptr_t)code == TFCKPT_CANCELLED);
    CHECK_FAILS(tfckpt_job_wait(job, FOREVER, &error), TFCKPT_CANCELLED, error, "");
    CHECK(tfckpt_job_prefix(job) == NULL);
    tfckpt_job_free(job);
    check_checkpoint(prefix, 7);
}

/* Layer after layer is used as soon as it is there. */
static void restore_in_order(const char *prefix)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_code codes[NUM_TENSORS];
    tfckpt_reader *reader = NULL;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    train(0);
    describe(tensors, weights);
    options.in_request_order = 1;
    CHECK_OK(tfckpt_restore_async(prefix, tensors, NUM_TENSORS, &options, &job, &error), error);
    for (int t = 0; t < NUM_TENSORS; t++) {
        CHECK_OK(tfckpt_job_wait_tensor(job, (size_t)t, FOREVER, &error), error);
        CHECK(weights[t][0] == 7 && weights[t][NUM_VALUES - 1] == 7);
    }
    CHECK_FAILS(tfckpt_job_wait_tensor(job, NUM_TENSORS, 0, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);

    /* One key is not there; the others are restored all the same. */
    train(0);
    tensors[1].key_size--;
    options.keep_going = 1;
    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    CHECK_OK(tfckpt_reader_restore_async(reader, tensors, NUM_TENSORS, &options, &job, &error), error);
    tfckpt_reader_free(reader);
    CHECK_OK(tfckpt_job_wait_tensor(job, 2, FOREVER, &error), error);
    CHECK_FAILS(tfckpt_job_wait(job, FOREVER, &error), TFCKPT_NOT_FOUND, error, "");
    CHECK_FAILS(tfckpt_job_wait_tensor(job, 1, 0, &error), TFCKPT_NOT_FOUND, error, "");
    CHECK_OK(tfckpt_job_codes(job, codes, NUM_TENSORS, &error), error);
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_NOT_FOUND && codes[2] == TFCKPT_OK);
    CHECK(weights[0][0] == 7 && weights[1][0] == 0 && weights[2][0] == 7);
    tfckpt_job_free(job);
}

/* Strings come to the caller's pointer as soon as they are restored. */
static void strings_in_the_background(const char *prefix)
{
    tfckpt_string words[2] = {{"one", 3}, {"three", 5}};
    const int64_t shape[] = {2};
    tfckpt_tensor tensor = host_tensor("words", TFCKPT_DTYPE_STRING, 1, shape, words, sizeof words);
    tfckpt_strings *strings = (tfckpt_strings *)words; /* set to NULL at once */
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    size_t size = 0;

    CHECK_OK(tfckpt_save_async(prefix, &tensor, 1, NULL, &job, &error), error);
    memset(words, 0, sizeof words);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    tensor.data = &strings;
    tensor.size = sizeof strings;
    CHECK_OK(tfckpt_restore_async(prefix, &tensor, 1, NULL, &job, &error), error);
    CHECK_OK(tfckpt_job_wait_tensor(job, 0, FOREVER, &error), error);
    CHECK(strncmp(tfckpt_strings_get(strings, 1, &size), "three", 5) == 0 && size == 5);
    tfckpt_job_free(job);
    tfckpt_strings_free(strings);
}

/* A saver that is told to stop is freed at once; its jobs can still be asked what came of them. */
static void free_a_busy_saver(const char *path)
{
    struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
    tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_saver *saver = new_saver(NULL);
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.borrow = 1;
    options.progress = pass_gate;
    options.user_data = &gate;
    CHECK_OK(tfckpt_saver_save_async(saver, path, &options, &job, &error), error);
    tfckpt_saver_cancel(saver);
    open_gate(&gate);
    tfckpt_saver_free(saver);
    CHECK(tfckpt_job_poll(job) == 1);
    CHECK_FAILS(tfckpt_job_wait(job, FOREVER, &error), TFCKPT_CANCELLED, error, "");
    tfckpt_job_free(job);
}

/* An error that nobody waited for comes back from the saver's next save, once. */
static void hear_of_an_error_later(const char *path, const char *bad_path)
{
    tfckpt_saver *saver = new_saver(NULL);
    tfckpt_error *error = NULL;
    char *prefix = NULL;

    tfckpt_job_free(save_async(saver, bad_path, 1)); /* waits, and nobody asks how it went */
    CHECK(tfckpt_saver_save(saver, path, NULL, &prefix, &error) != TFCKPT_OK);
    CHECK(strstr(tfckpt_error_message(error), "; nothing was saved by this call: call again") != NULL);
    tfckpt_error_free(error);
    CHECK(prefix == NULL);
    CHECK_OK(tfckpt_saver_save(saver, path, NULL, &prefix, &error), error);
    tfckpt_string_free(prefix);
    tfckpt_saver_free(saver);
}

/* A process that ends while a save is under way leaves the checkpoint before. */
static void die_in_the_middle(const char *dir, const char *path)
{
    tfckpt_error *error = NULL;
    char *latest = NULL;
    pid_t child;
    int status = 0;

    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        struct gate gate = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0};
        tfckpt_saver_save_options options = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
        tfckpt_saver *saver = new_saver(NULL);
        tfckpt_job *job = NULL;
        int64_t step = 9;

        train(9);
        options.global_step = &step;
        options.borrow = 1;
        options.progress = pass_gate;
        options.user_data = &gate;
        CHECK_OK(tfckpt_saver_save_async(saver, path, &options, &job, &error), error);
        wait_until_called(&gate);
        _exit(7); /* no more than a kill would do */
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    CHECK_OK(tfckpt_latest_checkpoint(dir, NULL, &latest, &error), error);
    CHECK(strstr(latest, "-5") != NULL);
    check_checkpoint(latest, 5);
    tfckpt_string_free(latest);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], path[PATH_SIZE], other[PATH_SIZE], words[PATH_SIZE], none[PATH_SIZE], bad[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    path_in(path, dir, "model.ckpt");
    path_in(other, dir, "other.ckpt");
    path_in(words, dir, "words.ckpt");
    path_in(none, dir, "file");
    path_in(bad, none, "model.ckpt"); /* its folder is a file */
    write_file(none, "");

    train_and_save(dir, path);
    die_in_the_middle(dir, path);
    borrow_the_tensors(other);
    cancel_from_another_thread(other);
    restore_in_order(other);
    strings_in_the_background(words);
    free_a_busy_saver(path);
    hear_of_an_error_later(other, bad);
    remove_scratch_folder(dir);
    return 0;
}
