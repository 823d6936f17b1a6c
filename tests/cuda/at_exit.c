/* Nothing is done when the process exits: by then the driver may be gone, and memory and contexts with it. The program runs
 * itself, and ends in several ways with a context, jobs and DLPack tensors alive. */
#include "model.h"

#include "../c/dl_tensor.h"

#include <pthread.h>
#include <sys/wait.h>

static struct model model;
static char prefix[PATH_SIZE];

/* What is alive when the process ends, and not less in the fake's report: nothing was given back. */
static const char *const names[] = {"live_pinned_bytes", "live_device_allocations", "live_streams", "live_events",
                                    "retains[0]"};
enum { NUM_NAMES = sizeof names / sizeof *names };

/* ---- The child ---- */

static tfckpt_context *context;
static tfckpt_reader *reader;
static tfckpt_saver *saver;
static tfckpt_job *restored, *saved, *copied;
static DLManagedTensorVersioned *tensors[MODEL_SIZE];

/* What an engine has when it ends without giving anything back. */
static void *use_everything(void *argument)
{
    static char other[PATH_SIZE];
    tfckpt_reader_options reader_options = TFCKPT_READER_OPTIONS_INIT;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_saver_options saver_options = TFCKPT_SAVER_OPTIONS_INIT;
    tfckpt_dlpack_options dlpack = TFCKPT_DLPACK_OPTIONS_INIT;
    tfckpt_dlpack_request requests[MODEL_SIZE];
    tfckpt_error *error = NULL;

    (void)argument;
    gpu_use(0);
    CHECK((size_t)snprintf(other, sizeof other, "%s-other", prefix) < sizeof other);
    context = new_context(32 << 20);
    reader_options.context = restore.context = save.context = saver_options.context = context;
    save.no_sync = 1;
    CHECK_OK(tfckpt_reader_open(prefix, &reader_options, &reader, &error), error);
    CHECK_OK(tfckpt_reader_restore_async(reader, model_in_place(&model), model.num, &restore, &restored, &error), error);
    CHECK_OK(tfckpt_job_wait(restored, FOREVER, &error), error);
    CHECK_OK(tfckpt_save_async(other, model_in_place(&model), model.num, &save, &saved, &error), error);
    CHECK_OK(tfckpt_job_wait(saved, FOREVER, &error), error);
    save.device_snapshot = 1;
    CHECK_OK(tfckpt_save_async(other, model_in_place(&model), model.num, &save, &copied, &error), error);
    CHECK_OK(tfckpt_job_wait(copied, FOREVER, &error), error);
    CHECK_OK(tfckpt_saver_create(model_in_place(&model), model.num, NULL, 0, &saver_options, &saver, &error), error);
    CHECK_OK(tfckpt_saver_restore(saver, prefix, &restore, &error), error);
    for (size_t i = 0; i < model.num; i++) {
        tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;

        request.key = model.members[i].key;
        request.key_size = strlen(request.key);
        request.device_type = TFCKPT_DEVICE_CUDA;
        request.device_id = model.members[i].device;
        requests[i] = request;
    }
    dlpack.restore = &restore;
    restore.stream_ordered = 1; /* the tensors know of events */
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, model.num, &dlpack, tensors, NULL, &error), error);
    return NULL;
}

/* A line as the fake's report has it. */
static void say(const char *name, uint64_t number)
{
    CHECK(number > 0);
    fprintf(stderr, "fake CUDA: %s %" PRIu64 "\n", name, number);
}

static int be_the_child(const char *way)
{
    tfckpt_error *error = NULL;
    pthread_t thread;

    model_of_all_kinds(&model, gpu.num_devices, 0);
    if (strcmp(way, "a thread") == 0) { /* which has ended: what it leaves in thread-local variables goes, too */
        CHECK(pthread_create(&thread, NULL, use_everything, NULL) == 0);
        CHECK(pthread_join(thread, NULL) == 0);
    } else {
        use_everything(NULL);
    }
    CHECK(context != NULL && reader != NULL && saver != NULL && restored != NULL && saved != NULL && copied != NULL);
    if (strcmp(way, "a job that runs") == 0) { /* its threads go on until the very end */
        fake.hold(1);
        tfckpt_job_free(restored);
        CHECK_OK(tfckpt_reader_restore_async(reader, model_in_place(&model), model.num, NULL, &restored, &error), error);
    }
    if (fake.reset != NULL) {
        fake.drain();
        for (size_t i = 0; i < NUM_NAMES; i++)
            say(names[i], fake.stat(names[i]));
    }
    if (strcmp(way, "exit") == 0)
        exit(0);
    return 0;
}

/* ---- The parent ---- */

/* Runs the child, and returns what it has said. */
static char *run_child(const char *dir, const char *way)
{
    char log[PATH_SIZE];
    int status = 0;
    pid_t child;

    path_in(log, dir, "stderr.txt");
    fflush(stdout);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        if (setenv("FAKECUDA_REPORT", "1", 1) == 0 && freopen(log, "w", stderr) != NULL)
            execl("/proc/self/exe", "at_exit", prefix, way, (char *)NULL);
        _exit(126);
    }
    CHECK(waitpid(child, &status, 0) == child);
    if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) {
        fprintf(stderr, "%s: status %#x\n%s", way, (unsigned)status, read_file(log, NULL));
        CHECK(!"the child ends well");
    }
    return read_file(log, NULL);
}

/* The child's lines are there twice. */
static void check_report(const char *log)
{
    for (size_t i = 0; i < NUM_NAMES; i++) {
        char line[128];
        const char *first;

        snprintf(line, sizeof line, "fake CUDA: %s ", names[i]);
        first = strstr(log, line);
        CHECK(first != NULL && (size_t)(strchr(first, '\n') - first + 1) < sizeof line);
        memcpy(line, first, (size_t)(strchr(first, '\n') - first + 1));
        line[strchr(first, '\n') - first + 1] = '\0';
        if (strstr(first + 1, line) == NULL) {
            fprintf(stderr, "%s", log);
            CHECK(!"nothing was given back");
        }
    }
}

int main(int argc, char **argv)
{
    static const char *const ways[] = {"return", "exit", "a thread", "a job that runs"};
    char dir[PATH_SIZE];

    gpu_start();
    if (argc == 3) {
        CHECK(strlen(argv[1]) < sizeof prefix);
        strcpy(prefix, argv[1]);
        return be_the_child(argv[2]);
    }
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    model_of_all_kinds(&model, 1, 0);
    model_save(&model, prefix);
    model_free(&model);
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        char *log;

        if (i == 3 && !needs_the_fake("an exit under a running job")) /* NVIDIA says nothing of it */
            continue;
        log = run_child(dir, ways[i]);
        if (fake.reset != NULL) {
            CHECK(strstr(log, "fake CUDA: end of report") != NULL);
            if (i < 3) { /* a job goes on to the very end */
                CHECK(strstr(log, "called after exit") == NULL);
                check_report(log);
            }
        }
        free(log);
    }
    remove_scratch_folder(dir);
    return 0;
}
