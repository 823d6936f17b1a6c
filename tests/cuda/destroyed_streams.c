/* A stream that was destroyed is undefined in CUDA, and the header forbids it. The fake driver knows such a stream: on it the
 * calls say what is wrong and with which tensor, and copy nothing. */
#include "model.h"

#include "../c/dl_tensor.h"

static struct model model;
static char prefix[PATH_SIZE], saved[PATH_SIZE];

/* A stream that is no more. */
static gpu_stream destroyed(void)
{
    gpu_stream stream = NULL;

    CU(gpu.cuStreamCreate(&stream, 1));
    CU(gpu.cuStreamDestroy(stream));
    return stream;
}

/* All tensors on streams that live, and one that does not. */
static const tfckpt_tensor *on_a_destroyed_stream(void)
{
    model_in_place(&model);
    model.tensors[2].stream = destroyed();
    return model.tensors;
}

static int nothing_was_copied(struct fakecuda_stats before)
{
    struct fakecuda_stats now = gpu_stats();

    return now.h2d_copies == before.h2d_copies && now.d2h_copies == before.d2h_copies && now.d2d_copies == before.d2d_copies;
}

static void restore_and_save(void)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error = NULL;

    for (int stream_ordered = 0; stream_ordered < 2; stream_ordered++) {
        restore.stream_ordered = stream_ordered;
        CHECK_FAILS(tfckpt_restore(prefix, on_a_destroyed_stream(), model.num, &restore, NULL, &error),
                    TFCKPT_INVALID_ARGUMENT, error, "layer_2");
        CHECK_FAILS(tfckpt_restore(prefix, on_a_destroyed_stream(), model.num, &restore, NULL, &error),
                    TFCKPT_INVALID_ARGUMENT, error, "CUDA error 400 (CUDA_ERROR_INVALID_HANDLE)");
    }
    CHECK_FAILS(tfckpt_save(saved, on_a_destroyed_stream(), model.num, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "layer_2");
    CHECK_FAILS(tfckpt_save(saved, on_a_destroyed_stream(), model.num, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "CUDA error 400");
    CHECK(nothing_was_copied(before));
    for (size_t i = 0; i < model.num; i++)
        CHECK(model_holds(&model, i, 1));

    /* With codes it is the error of its tensor alone. */
    CHECK_FAILS(tfckpt_restore(prefix, on_a_destroyed_stream(), model.num, NULL, codes, &error), TFCKPT_INVALID_ARGUMENT,
                error, "layer_2");
    for (size_t i = 0; i < model.num; i++) {
        CHECK(codes[i] == (i == 2 ? TFCKPT_INVALID_ARGUMENT : TFCKPT_OK));
        CHECK(model_holds(&model, i, i == 2));
    }
    model_put(&model, 1);

    /* A tensor that is ordered with no stream has none that could be wrong. */
    on_a_destroyed_stream();
    model.tensors[2].flags = TFCKPT_TENSOR_UNORDERED;
    CHECK_OK(tfckpt_restore(prefix, model.tensors, model.num, NULL, NULL, &error), error);
    CHECK(model_is_complete(&model));
    model_put(&model, 1);
}

static void begin_jobs(void)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    CHECK_FAILS(tfckpt_restore_async(prefix, on_a_destroyed_stream(), model.num, NULL, &job, &error),
                TFCKPT_INVALID_ARGUMENT, error, "layer_2");
    for (int kind = 0; kind < 3; kind++) {
        save.borrow = kind == 1;
        save.device_snapshot = kind == 2;
        CHECK_FAILS(tfckpt_save_async(saved, on_a_destroyed_stream(), model.num, &save, &job, &error),
                    TFCKPT_INVALID_ARGUMENT, error, "layer_2");
        CHECK_FAILS(tfckpt_save_async(saved, on_a_destroyed_stream(), model.num, &save, &job, &error),
                    TFCKPT_INVALID_ARGUMENT, error, "CUDA error 400");
    }
    CHECK(job == NULL && nothing_was_copied(before));
    for (size_t i = 0; i < model.num; i++)
        CHECK(model_holds(&model, i, 1));
}

/* The stream is destroyed when the job has begun: that is allowed, as the order was taken when the call was made. But it
 * cannot be made to wait. */
static void let_it_wait(void)
{
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    gpu_stream stream = NULL;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    CU(gpu.cuStreamCreate(&stream, 1));
    model_in_place(&model);
    model.tensors[2].stream = stream;
    CHECK_OK(tfckpt_restore_async(prefix, model.tensors, model.num, NULL, &job, &error), error);
    CU(gpu.cuStreamDestroy(stream));
    CHECK_FAILS(tfckpt_job_stream_wait(job, 2, stream, &error), TFCKPT_INVALID_ARGUMENT, error, "CUDA error 400");
    CHECK_OK(tfckpt_job_stream_wait(job, 2, NULL, &error), error);
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    CHECK(model_is_complete(&model));
    tfckpt_job_free(job);

    CU(gpu.cuStreamCreate(&stream, 1));
    model_in_place(&model);
    model.tensors[2].stream = stream;
    save.device_snapshot = 1;
    save.no_sync = 1;
    CHECK_OK(tfckpt_save_async(saved, model.tensors, model.num, &save, &job, &error), error);
    CU(gpu.cuStreamDestroy(stream));
    CHECK_FAILS(tfckpt_job_snapshot_stream_wait(job, 0, stream, &error), TFCKPT_INVALID_ARGUMENT, error, "CUDA error 400");
    CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
    tfckpt_job_free(job);
    model_check_checkpoint(&model, saved);
    model_put(&model, 1);
}

static void hand_tensors_over(void)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    struct DLManagedTensorVersioned *tensor = NULL;
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    options.restore = &restore;
    restore.stream_ordered = 1; /* without it there is nothing to be ordered with */
    request.key = model.members[2].key;
    request.key_size = strlen(request.key);
    request.device_type = TFCKPT_DEVICE_CUDA;
    request.stream = destroyed();
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, &request, 1, &options, &tensor, NULL, &error), TFCKPT_INVALID_ARGUMENT,
                error, "layer_2");
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, &request, 1, &options, &tensor, NULL, &error), TFCKPT_INVALID_ARGUMENT,
                error, "CUDA error 400");
    CHECK(tensor == NULL && nothing_was_copied(before));

    request.stream = NULL;
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, &request, 1, &options, &tensor, NULL, &error), error);
    CHECK_FAILS(tfckpt_dlpack_stream_wait(tensor, destroyed(), &error), TFCKPT_INVALID_ARGUMENT, error, "CUDA error 400");
    CU(gpu.cuStreamSynchronize(NULL));
    CHECK(gpu_holds((gpu_address)(uintptr_t)tensor->dl_tensor.data, model.members[2].bytes,
                    model.members[2].size));
    tensor->deleter(tensor);
    tfckpt_reader_free(reader);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    struct fakecuda_stats before;

    gpu_start();
    if (!needs_the_fake("a stream that was destroyed"))
        return 0;
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    before = gpu_stats();
    model_of_all_kinds(&model, 1, 0);
    model_save(&model, prefix);
    restore_and_save();
    begin_jobs();
    let_it_wait();
    hand_tensors_over();
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
