/* The library is a guest in a process that uses the devices itself: after every call, one that fails included, the thread's
 * current context and its mode towards captures are what they were, a capture elsewhere goes on, and contexts are given
 * back. A forked child is told that CUDA does not survive that. */
#include "gate.h"
#include "model.h"

#include <sys/wait.h>

static struct model model;
static char prefix[PATH_SIZE], other[PATH_SIZE], missing[PATH_SIZE];

/* ---- Calls of all kinds ---- */

static void restore_it(void)
{
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, NULL, NULL, &error), error);
}

static void save_it(void)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.no_sync = 1;
    CHECK_OK(tfckpt_save(other, model_in_place(&model), model.num, &options, NULL, &error), error);
}

static void restore_in_the_background(void)
{
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;

    CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, NULL, &job, &error), error);
    for (size_t i = 0; i < model.num; i++) {
        CHECK_OK(tfckpt_job_wait_tensor(job, i, FOREVER, &error), error);
        CHECK_OK(tfckpt_job_stream_wait(job, i, NULL, &error), error);
    }
    tfckpt_job_free(job);
}

static void save_in_the_background(void)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;

    options.no_sync = 1;
    CHECK_OK(tfckpt_save_async(other, model_in_place(&model), model.num, &options, &job, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
}

static void restore_what_is_not_there(void)
{
    tfckpt_error *error = NULL;

    CHECK_FAILS(tfckpt_restore(missing, model_in_place(&model), model.num, NULL, NULL, &error), TFCKPT_NOT_FOUND, error, "");
}

static void restore_to_the_wrong_memory(void)
{
    tfckpt_error *error = NULL;

    model_in_place(&model);
    model.tensors[8].data = model.members[8].bytes;
    CHECK_FAILS(tfckpt_restore(prefix, model.tensors, model.num, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK_FAILS(tfckpt_save(other, model.tensors, model.num, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

static void use_a_context_and_trim_it(void)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(8 << 20);
    tfckpt_error *error = NULL;

    options.context = context;
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    tfckpt_context_trim(context);
    tfckpt_context_free(context);
}

static void look_at_the_devices(void)
{
    tfckpt_cuda_driver driver = TFCKPT_CUDA_DRIVER_INIT;
    tfckpt_cuda_device device = TFCKPT_CUDA_DEVICE_INIT;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_cuda_available(&error), error);
    CHECK_OK(tfckpt_cuda_describe(&driver, &error), error);
    CHECK(driver.version == gpu.version && driver.num_devices >= gpu.num_devices);
    for (int i = 0; i < gpu.num_devices; i++) {
        CHECK_OK(tfckpt_cuda_describe_device(i, &device, &error), error);
        CHECK(device.name != NULL && device.name[0] != '\0' && device.total_memory > 0 && device.compute_major > 0);
    }
    CHECK_FAILS(tfckpt_cuda_describe_device(driver.num_devices, &device, &error), TFCKPT_INVALID_ARGUMENT, error,
                "there is no CUDA device");
    CHECK_FAILS(tfckpt_cuda_describe_device(-1, &device, &error), TFCKPT_INVALID_ARGUMENT, error, "no CUDA device -1");
}

static void (*const calls[])(void) = {
    restore_it,
    save_it,
    restore_in_the_background,
    save_in_the_background,
    restore_what_is_not_there,
    restore_to_the_wrong_memory,
    use_a_context_and_trim_it,
    look_at_the_devices,
};
enum { NUM_CALLS = sizeof calls / sizeof *calls };

/* ---- From threads that stand in all ways to CUDA ---- */

static void call_from_this_thread(void)
{
    for (int i = 0; i < NUM_CALLS; i++) {
        struct gpu_thread before = gpu_thread();

        calls[i]();
        CHECK(gpu_same_thread(before));
    }
}

static void call_with_every_mode(void)
{
    for (int mode = 0; mode <= 2; mode++) {
        int exchanged = mode;

        CU(gpu.cuThreadExchangeStreamCaptureMode(&exchanged));
        call_from_this_thread();
        CU(gpu.cuThreadExchangeStreamCaptureMode(&exchanged));
        CHECK(exchanged == mode);
    }
}

static void call_with_every_context(void)
{
    call_with_every_mode();
    if (gpu.num_devices > 1) { /* of a device other than the tensors' first */
        gpu_use(1);
        call_with_every_mode();
    }
    CU(gpu.cuCtxSetCurrent(NULL)); /* of none, as on a thread that never used CUDA */
    call_with_every_mode();
    gpu_use(0);
}

/* A capture in the strictest mode forbids much to every thread that has not said that it is none of its business. */
static void call_during_a_capture(void)
{
    gpu_stream captured = NULL;
    void *graph = NULL;

    CU(gpu.cuStreamCreate(&captured, 1));
    CU(gpu.cuStreamBeginCapture(captured, 0));
    for (int i = 0; i < NUM_CALLS; i++)
        calls[i]();
    CU(gpu.cuStreamEndCapture(captured, &graph));
    CHECK(graph != NULL);
    CU(gpu.cuGraphDestroy(graph));
    CU(gpu.cuStreamDestroy(captured));
    if (needs_the_fake("a capture on another thread")) {
        fake.set("capture", 1);
        for (int i = 0; i < NUM_CALLS; i++)
            calls[i]();
        CHECK(fake.capture_invalidated() == 0);
        fake.set("capture", 0);
        CHECK(gpu_stats().captures_invalidated == 0 && gpu_stats().calls_refused_by_capture == 0);
    }
}

/* ---- Contexts ---- */

/* A context holds the devices that its calls have used, and lets go of them. */
static void give_the_devices_back(void)
{
    struct fakecuda_stats before = gpu_stats(), during;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(0);
    tfckpt_error *error = NULL;

    CHECK(gpu_nothing_left(before)); /* a context alone uses no device */
    options.context = context;
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    during = gpu_stats();
    if (fake.reset != NULL)
        for (int device = 0; device < gpu.num_devices; device++)
            CHECK(during.retains[device] == before.retains[device] + 1);
    tfckpt_context_free(context);
    CHECK(gpu_nothing_left(before));
}

/* If nobody else uses the device, the library makes its context, and it is gone afterwards. */
static void be_alone_on_a_device(void)
{
    static const int64_t shape[] = {0};
    tfckpt_tensor tensor = device_tensor("empty", TFCKPT_DTYPE_FLOAT, 1, shape, 0, 0, 0);
    tfckpt_error *error = NULL;

    model_free(&model);
    for (int device = 0; device < gpu.num_devices; device++)
        CU(gpu.cuDevicePrimaryCtxRelease(device));
    CU(gpu.cuCtxSetCurrent(NULL));
    CHECK_OK(tfckpt_save(other, &tensor, 1, NULL, NULL, &error), error);
    CHECK_OK(tfckpt_restore(other, &tensor, 1, NULL, NULL, &error), error);
    if (fake.reset != NULL) {
        struct fakecuda_stats now = gpu_stats();

        CHECK(now.retains[0] == 0 && now.retains[1] == 0 && now.live_device_allocations == 0);
        CHECK(now.live_streams == 0 && now.live_events == 0 && now.live_pinned_bytes == 0);
        CHECK(now.lost_device_allocations + now.lost_pinned_allocations + now.lost_streams + now.lost_events == 0);
    }
}

/* ---- After a fork ---- */

static void fork_a_child(void)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(0);
    tfckpt_error *error = NULL;
    int status = 0;
    pid_t child;

    options.context = context;
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    child = fork();
    CHECK(child >= 0);
    if (child == 0) {
        CHECK_FAILS(tfckpt_cuda_available(&error), TFCKPT_FAILED_PRECONDITION, error, "forked");
        CHECK_FAILS(tfckpt_restore(prefix, model.tensors, model.num, &options, NULL, &error), TFCKPT_FAILED_PRECONDITION,
                    error, "forked");
        CHECK_FAILS(tfckpt_restore(prefix, model.tensors, model.num, NULL, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                    "forked");
        CHECK_FAILS(tfckpt_save(other, model.tensors, model.num, NULL, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                    "forked");
        model_check_checkpoint(&model, prefix); /* the host is none of CUDA's business */
        tfckpt_context_trim(context);
        tfckpt_context_free(context);
        _exit(7);
    }
    CHECK(waitpid(child, &status, 0) == child);
    CHECK(WIFEXITED(status) && WEXITSTATUS(status) == 7);
    /* The parent goes on. */
    model_put(&model, 1);
    CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_context_free(context);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    struct fakecuda_stats before;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(other, dir, "other.ckpt");
    path_in(missing, dir, "missing.ckpt");
    before = gpu_stats();
    model_of_all_kinds(&model, gpu.num_devices, 1);
    model_save(&model, prefix);
    call_with_every_context();
    call_during_a_capture();
    give_the_devices_back();
    fork_a_child();
    model_put(&model, 1);
    restore_it();
    CHECK(model_is_complete(&model));
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    be_alone_on_a_device();
    remove_scratch_folder(dir);
    return 0;
}
