/* While a stream is captured that waits for the legacy default stream (one that was made without CU_STREAM_NON_BLOCKING),
 * that one cannot be used: calls on it are refused, and the capture goes on. Calls on other streams work. */
#include "model.h"

#include "../c/dl_tensor.h"

static struct model model;
static char prefix[PATH_SIZE], saved[PATH_SIZE];

static const tfckpt_tensor *on_stream(gpu_stream stream, uint32_t flags)
{
    model_in_place(&model);
    for (size_t i = 0; i < model.num; i++) {
        model.tensors[i].stream = stream;
        model.tensors[i].flags = flags;
    }
    return model.tensors;
}

static void refuse(const tfckpt_reader *reader, const tfckpt_context *context, const tfckpt_job *done, gpu_stream legacy)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
    tfckpt_dlpack_options dlpack = TFCKPT_DLPACK_OPTIONS_INIT;
    DLManagedTensorVersioned *tensor = NULL;
    const tfckpt_tensor *tensors = on_stream(legacy, 0);
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    restore.context = save.context = context;
    CHECK_FAILS(tfckpt_restore(prefix, tensors, model.num, &restore, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                "CUDA error 906 (CUDA_ERROR_STREAM_CAPTURE_IMPLICIT)");
    CHECK_FAILS(tfckpt_restore(prefix, tensors, model.num, &restore, NULL, &error), TFCKPT_FAILED_PRECONDITION, error,
                "layer_0");
    CHECK_FAILS(tfckpt_save(saved, tensors, model.num, &save, NULL, &error), TFCKPT_FAILED_PRECONDITION, error, "layer_0");
    CHECK_FAILS(tfckpt_restore_async(prefix, tensors, model.num, &restore, &job, &error), TFCKPT_FAILED_PRECONDITION, error,
                "layer_0");
    save.device_snapshot = 1;
    CHECK_FAILS(tfckpt_save_async(saved, tensors, model.num, &save, &job, &error), TFCKPT_FAILED_PRECONDITION, error,
                "layer_0");
    CHECK_FAILS(tfckpt_job_stream_wait(done, 0, legacy, &error), TFCKPT_FAILED_PRECONDITION, error, "CUDA error 906");
    dlpack.restore = &restore;
    restore.stream_ordered = 1;
    request.key = model.members[0].key;
    request.key_size = strlen(request.key);
    request.device_type = TFCKPT_DEVICE_CUDA;
    request.stream = legacy;
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, &request, 1, &dlpack, &tensor, NULL, &error),
                TFCKPT_FAILED_PRECONDITION, error, "layer_0");
    CHECK(tensor == NULL);
}

static void work_beside(const tfckpt_context *context, const tfckpt_job *done, gpu_stream stream, uint32_t flags)
{
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    const tfckpt_tensor *tensors = on_stream(stream, flags);
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    restore.context = save.context = context;
    save.no_sync = 1;
    CHECK_OK(tfckpt_restore(prefix, tensors, model.num, &restore, NULL, &error), error);
    CHECK_OK(tfckpt_restore_async(prefix, tensors, model.num, &restore, &job, &error), error);
    if (stream != NULL) {
        CHECK_OK(tfckpt_job_stream_wait(done, 0, stream, &error), error);
        CHECK_OK(tfckpt_job_stream_wait(job, 0, stream, &error), error);
    }
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    CHECK_OK(tfckpt_save(saved, tensors, model.num, &save, NULL, &error), error);
}

static void capture_a_blocking_stream(int mode)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_context *context = new_context(32 << 20);
    gpu_stream captured = NULL, other = NULL;
    tfckpt_reader *reader = NULL;
    tfckpt_job *done = NULL;
    tfckpt_error *error = NULL;
    void *graph = NULL;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    options.context = context;
    CHECK_OK(tfckpt_restore_async(prefix, on_stream(NULL, 0), model.num, &options, &done, &error), error);
    CHECK_OK(tfckpt_job_wait(done, FOREVER, &error), error);
    model_put(&model, 1);
    CU(gpu.cuStreamCreate(&other, 1));
    CU(gpu.cuStreamCreate(&captured, 0)); /* blocking */
    CU(gpu.cuStreamBeginCapture(captured, mode));
    refuse(reader, context, done, NULL);
    refuse(reader, context, done, (gpu_stream)1);
    work_beside(context, done, other, 0);
    work_beside(context, done, (gpu_stream)2, 0);
    work_beside(context, done, NULL, TFCKPT_TENSOR_UNORDERED);
    CU(gpu.cuStreamEndCapture(captured, &graph));
    CHECK(graph != NULL);
    CHECK(model_is_complete(&model));
    model_check_checkpoint(&model, saved);
    CU(gpu.cuGraphDestroy(graph));
    CU(gpu.cuStreamDestroy(captured));
    CU(gpu.cuStreamDestroy(other));
    CHECK_OK(tfckpt_restore(prefix, on_stream(NULL, 0), model.num, &options, NULL, &error), error);
    tfckpt_job_free(done);
    tfckpt_reader_free(reader);
    tfckpt_context_free(context);
    CHECK(gpu_stats().captures_invalidated == 0 && gpu_stats().calls_refused_by_capture == 0);
    CHECK(gpu_nothing_left(before));
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    model_of_all_kinds(&model, 1, 0);
    model_save(&model, prefix);
    for (int mode = 0; mode <= 2; mode++) /* global, of the thread, relaxed */
        capture_a_blocking_stream(mode);
    model_free(&model);
    remove_scratch_folder(dir);
    return 0;
}
