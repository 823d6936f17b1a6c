/* Saves that wait for their turn, and for memory, behind each other: whatever they hold meanwhile, those before them get
 * what they need, and so do other calls. A circle among them would last for ever: the program has a time limit. */
#include "gate.h"

enum {
    SIZE = 6 << 20, /* of the large tensor */
    /* What tfckpt.h says is needed to copy it before anything is written: its size, 2 MiB for a data file and for each of
     * two threads, 2 MiB for a device, and 1 MiB. */
    LITTLE = SIZE + (2 << 20) + 2 * (2 << 20) + (2 << 20) + (1 << 20),
    ROOMY = 40 << 20 /* for the copies and a large ring */
};

static const int64_t SHAPE[] = {SIZE / 4}, HALF_SHAPE[] = {SIZE / 2}, SMALL_SHAPE[] = {1000};
static unsigned char weights[SIZE];
static int64_t step = 7;

static tfckpt_context *new_context_of(uint64_t max_host_bytes)
{
    tfckpt_context_options options = TFCKPT_CONTEXT_OPTIONS_INIT;
    tfckpt_context *context = NULL;
    tfckpt_error *error = NULL;

    options.max_host_bytes = max_host_bytes;
    options.num_threads = 2;
    CHECK_OK(tfckpt_context_new(&options, &context, &error), error);
    return context;
}

/* ---- The jobs of one saver ---- */

struct queue {
    tfckpt_context *context;
    tfckpt_saver *saver;
    gpu_address address;
    struct gate gate; /* where the first job stops: it has its turn, and no memory */
    tfckpt_job *jobs[3];
    int num_jobs;
    char path[PATH_SIZE];
};

enum how { BORROW, COPY, COPY_ON_DEVICE };

static void add_job(struct queue *queue, enum how how)
{
    tfckpt_saver_save_options save = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    int64_t number = queue->num_jobs;

    save.no_sync = 1;
    save.global_step = &number;
    save.borrow = how == BORROW;
    save.device_snapshot = how == COPY_ON_DEVICE;
    if (queue->num_jobs == 0) {
        save.progress = gate_pass;
        save.user_data = &queue->gate;
    }
    CHECK_OK(tfckpt_saver_save_async(queue->saver, queue->path, &save, &queue->jobs[queue->num_jobs++], &error), error);
}

/* A saver of a tensor on the first device and of the step on the host, whose first job is at the gate. */
static void open_queue(struct queue *queue, const char *dir, uint64_t max_host_bytes)
{
    static const struct gate closed = GATE_INIT;
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    memset(queue, 0, sizeof *queue);
    queue->gate = closed;
    path_in(queue->path, dir, "model.ckpt");
    queue->context = new_context_of(max_host_bytes);
    queue->address = gpu_alloc(SIZE);
    gpu_write(queue->address, weights, SIZE);
    tensors[0] = device_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, queue->address, SIZE);
    tensors[1] = host_tensor("global_step", TFCKPT_DTYPE_INT64, 0, NULL, &step, sizeof step);
    options.context = queue->context;
    CHECK_OK(tfckpt_saver_create(tensors, 2, NULL, 0, &options, &queue->saver, &error), error);
    add_job(queue, BORROW);
    gate_wait(&queue->gate);
}

/* Lets the first job go on; all of them end. */
static void close_queue(struct queue *queue)
{
    tfckpt_error *error = NULL;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    unsigned char *read = (unsigned char *)allocate(SIZE);

    gate_open(&queue->gate);
    options.context = queue->context;
    for (int i = 0; i < queue->num_jobs; i++) {
        int64_t restored_step = 0;
        tfckpt_tensor tensors[2];

        CHECK_OK(tfckpt_job_wait(queue->jobs[i], FOREVER, &error), error);
        tensors[0] = host_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, SHAPE, read, SIZE);
        tensors[1] = host_tensor("global_step", TFCKPT_DTYPE_INT64, 0, NULL, &restored_step, sizeof restored_step);
        CHECK_OK(tfckpt_restore(tfckpt_job_prefix(queue->jobs[i]), tensors, 2, &options, NULL, &error), error);
        CHECK(memcmp(read, weights, SIZE) == 0 && restored_step == step);
        tfckpt_job_free(queue->jobs[i]);
    }
    free(read);
    tfckpt_saver_free(queue->saver);
    tfckpt_context_free(queue->context);
    CU(gpu.cuMemFree(queue->address));
}

/* The copies of the second save leave the first one, which has none, the buffers that it needs. */
static void copy_behind_a_save_that_borrows(const char *dir, uint64_t max_host_bytes)
{
    struct queue queue;

    open_queue(&queue, dir, max_host_bytes);
    add_job(&queue, COPY);
    close_queue(&queue);
}

/* So do those of the third one, which the device had no room for. */
static void copy_behind_a_copy_on_the_device(const char *dir)
{
    struct queue queue;
    gpu_address rest = 0;

    if (!needs_the_fake("a device that is nearly full"))
        return;
    open_queue(&queue, dir, ROOMY);
    add_job(&queue, COPY_ON_DEVICE);
    CU(gpu.cuMemAlloc(&rest, ((size_t)1 << 30) - ((size_t)64 << 20)));
    add_job(&queue, COPY);
    close_queue(&queue);
    CU(gpu.cuMemFree(rest));
}

/* A save that has copied its tensors keeps only the copies: others may use the rest while it waits. */
static void restore_while_a_save_waits(const char *dir)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    char prefix[PATH_SIZE];
    tfckpt_tensor tensor;
    tfckpt_error *error = NULL;
    struct queue queue;
    gpu_address address = gpu_alloc(SIZE);

    path_in(prefix, dir, "other.ckpt");
    tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, weights, SIZE);
    save.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    open_queue(&queue, dir, LITTLE);
    add_job(&queue, COPY);
    tensor = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, address, SIZE);
    options.context = queue.context;
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), error);
    CHECK(gpu_holds(address, weights, SIZE));
    CHECK(tfckpt_job_poll(queue.jobs[1]) == 0);
    close_queue(&queue);
    CU(gpu.cuMemFree(address));
}

/* The tensors may change when they have been copied within the device, long before the save has its turn. */
static void promise_in_time(const char *dir)
{
    struct queue queue;
    tfckpt_error *error = NULL;

    open_queue(&queue, dir, LITTLE);
    if (fake.reset != NULL)
        fake.hold(1);
    add_job(&queue, COPY_ON_DEVICE);
    if (fake.reset != NULL) {
        sleep_ms(20); /* time for a mistake */
        CHECK_FAILS(tfckpt_job_wait_snapshot(queue.jobs[1], 0, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
        fake.hold(0);
    }
    CHECK_OK(tfckpt_job_wait_snapshot(queue.jobs[1], FOREVER, &error), error);
    CHECK(tfckpt_job_poll(queue.jobs[1]) == 0);
    close_queue(&queue);
}

/* A job that is cancelled ends when the copies within the device have run: till then they need its memory. */
static void cancel_while_the_device_copies(const char *dir)
{
    struct queue queue;
    tfckpt_error *error = NULL;

    if (!needs_the_fake("copies that stand still"))
        return;
    open_queue(&queue, dir, LITTLE);
    fake.hold(1);
    add_job(&queue, COPY_ON_DEVICE);
    tfckpt_job_cancel(queue.jobs[1]);
    CHECK_FAILS(tfckpt_job_wait(queue.jobs[1], 50000000, &error), TFCKPT_DEADLINE_EXCEEDED, error, "");
    fake.hold(0);
    CHECK_FAILS(tfckpt_job_wait(queue.jobs[1], FOREVER, &error), TFCKPT_CANCELLED, error, "");
    tfckpt_job_free(queue.jobs[--queue.num_jobs]);
    close_queue(&queue);
}

/* A device has taken part in a context that has just the least for it: the host's tensors are saved without copies. */
static void copy_where_a_device_needs_all(const char *dir)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    char prefix[PATH_SIZE];
    tfckpt_context *context = new_context_of(3 << 20);
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    gpu_address address = gpu_alloc(SIZE);
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, weights, SIZE);

    path_in(prefix, dir, "other.ckpt");
    restore.context = save.context = context;
    save.no_sync = 1;
    for (int i = 0; i < 2; i++) {
        tfckpt_tensor onto = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, address, SIZE);

        CHECK_OK(tfckpt_save_async(prefix, &tensor, 1, &save, &job, &error), error);
        CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
        tfckpt_job_free(job);
        gpu_set(address, POISON, SIZE);
        CHECK_OK(tfckpt_restore(prefix, &onto, 1, &restore, NULL, &error), error);
        CHECK(gpu_holds(address, weights, SIZE));
    }
    tfckpt_context_free(context);
    CU(gpu.cuMemFree(address));
}

/* ---- Saves at the same time ---- */

struct runner {
    tfckpt_context *context;
    gpu_address address;
    int number, num_rounds;
    char dir[PATH_SIZE];
};

static void *save_a_small_tensor(void *argument)
{
    const struct runner *runner = (const struct runner *)argument;
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    size_t size = (size_t)SMALL_SHAPE[0] * 4;
    char prefix[PATH_SIZE];
    tfckpt_tensor tensor;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    path_in(prefix, runner->dir, runner->number == 0 ? "small_0.ckpt" : "small_1.ckpt");
    tensor = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SMALL_SHAPE, 0, runner->address, size);
    options.context = runner->context;
    options.no_sync = 1;
    CHECK_OK(tfckpt_save_async(prefix, &tensor, 1, &options, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    return NULL;
}

/* A restore has half of the memory. A save has begun with the other half, and another save waits; then the restore ends,
 * and both go on with what it gives back. There is enough for both, but not for the rings of both and nothing else. */
static void go_on_at_the_same_time(const char *dir)
{
    size_t size = (size_t)SMALL_SHAPE[0] * 4;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    char prefix[PATH_SIZE];
    tfckpt_context *context;
    tfckpt_error *error = NULL;
    tfckpt_tensor tensor = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SMALL_SHAPE, weights, size);
    gpu_address address;

    if (!needs_the_fake("copies that stand still"))
        return;
    path_in(prefix, dir, "other.ckpt");
    save.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    context = new_context_of(7 << 20);
    address = gpu_alloc(size);
    restore.context = context;
    tensor = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SMALL_SHAPE, 0, address, size);
    for (int round = 0; round < 10; round++) {
        struct runner runners[2];
        pthread_t threads[2];
        tfckpt_job *job = NULL;
        uint64_t copies = gpu_stats().h2d_copies;

        fake.hold(1);
        CHECK_OK(tfckpt_restore_async(prefix, &tensor, 1, &restore, &job, &error), error);
        while (gpu_stats().h2d_copies == copies)
            sleep_ms(1);
        for (int i = 0; i < 2; i++) {
            runners[i].context = context;
            runners[i].address = address;
            runners[i].number = i;
            strcpy(runners[i].dir, dir);
            CHECK(pthread_create(&threads[i], NULL, save_a_small_tensor, &runners[i]) == 0);
            sleep_ms(20);
        }
        fake.hold(0);
        for (int i = 0; i < 2; i++)
            CHECK(pthread_join(threads[i], NULL) == 0);
        CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
        tfckpt_job_free(job);
    }
    tfckpt_context_free(context);
    CU(gpu.cuMemFree(address));
}

/* Jobs of all kinds, some of them cancelled, of a saver per thread. */
static void *save_in_all_ways(void *argument)
{
    const struct runner *runner = (const struct runner *)argument;
    tfckpt_saver_options options = TFCKPT_SAVER_OPTIONS_INIT;
    int device = runner->number % gpu.num_devices;
    tfckpt_tensor tensors[2];
    tfckpt_saver *saver = NULL;
    tfckpt_job *jobs[24];
    tfckpt_error *error = NULL;
    char name[32], path[PATH_SIZE];
    gpu_address address;

    CHECK((size_t)runner->num_rounds <= sizeof jobs / sizeof *jobs);
    gpu_use(device);
    address = gpu_alloc(SIZE / 2);
    gpu_write(address, weights, SIZE / 2);
    snprintf(name, sizeof name, "of_%d.ckpt", runner->number);
    path_in(path, runner->dir, name);
    tensors[0] = device_tensor("weights", TFCKPT_DTYPE_INT8, 1, HALF_SHAPE, device, address, SIZE / 2);
    tensors[1] = host_tensor("global_step", TFCKPT_DTYPE_INT64, 0, NULL, &step, sizeof step);
    options.context = runner->context;
    CHECK_OK(tfckpt_saver_create(tensors, 2, NULL, 0, &options, &saver, &error), error);
    for (int64_t round = 0; round < runner->num_rounds; round++) {
        tfckpt_saver_save_options save = TFCKPT_SAVER_SAVE_OPTIONS_INIT;
        int how = (int)(round * 7 + runner->number) % 3;

        save.no_sync = 1;
        save.global_step = &round;
        save.borrow = how == BORROW;
        save.device_snapshot = how == COPY_ON_DEVICE;
        CHECK_OK(tfckpt_saver_save_async(saver, path, &save, &jobs[round], &error), error);
        if (round % 5 == 3)
            tfckpt_job_cancel(jobs[round]);
    }
    for (int round = 0; round < runner->num_rounds; round++) {
        tfckpt_code code = tfckpt_job_wait(jobs[round], FOREVER, &error);

        CHECK(code == TFCKPT_OK || (code == TFCKPT_CANCELLED && round % 5 == 3));
        tfckpt_error_free(error);
        error = NULL;
        tfckpt_job_free(jobs[round]);
    }
    tfckpt_saver_free(saver);
    CU(gpu.cuMemFree(address));
    return NULL;
}

static void run_side_by_side(const char *dir, uint64_t max_host_bytes)
{
    static struct runner runners[4];
    tfckpt_context *context = new_context_of(max_host_bytes);
    pthread_t threads[4];

    for (int i = 0; i < 4; i++) {
        runners[i].context = context;
        runners[i].number = i;
        runners[i].num_rounds = 12;
        strcpy(runners[i].dir, dir);
        CHECK(pthread_create(&threads[i], NULL, save_in_all_ways, &runners[i]) == 0);
    }
    for (int i = 0; i < 4; i++)
        CHECK(pthread_join(threads[i], NULL) == 0);
    tfckpt_context_free(context);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    struct fakecuda_stats before;

    alarm(240);
    gpu_start();
    make_scratch_folder(argc, argv, dir);
    fill(weights, SIZE, 1);
    before = gpu_stats();
    copy_behind_a_save_that_borrows(dir, ROOMY);
    copy_behind_a_save_that_borrows(dir, LITTLE);
    copy_behind_a_copy_on_the_device(dir);
    restore_while_a_save_waits(dir);
    promise_in_time(dir);
    cancel_while_the_device_copies(dir);
    copy_where_a_device_needs_all(dir);
    go_on_at_the_same_time(dir);
    run_side_by_side(dir, ((uint64_t)gpu.num_devices * 2 + 1) << 20); /* the least */
    run_side_by_side(dir, 12 << 20);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
