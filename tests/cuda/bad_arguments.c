/* Arguments that cannot work are refused by name, before anything is copied: memory that is not where it is said to be, a
 * device that is not there, what device memory is not for. */
#include "gpu.h"

enum { SIZE = 4096 };

static const int64_t SHAPE[] = {SIZE / 4};
static char prefix[PATH_SIZE], other[PATH_SIZE];
static tfckpt_tensor tensors[2]; /* the first is good, the second is not */

/* A call has failed with this code, and the error names the second tensor. Frees the error. */
static void check_names_it(tfckpt_code got, tfckpt_code code, const char *text, tfckpt_error *error)
{
    CHECK(got == code);
    CHECK(tfckpt_error_tensor_index(error) == 1);
    CHECK(strstr(tfckpt_error_message(error), "tensor=b") != NULL);
    CHECK_FAILS(tfckpt_error_code(error), code, error, text);
}

/* All calls refuse the second tensor, and say so. */
static void refuse(tfckpt_tensor bad, tfckpt_code code, const char *text)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_code codes[2];
    tfckpt_error *error = NULL;
    tfckpt_job *job = NULL;
    tfckpt_code got;

    tensors[1] = bad;
    got = tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error);
    check_names_it(got, code, text, error);
    got = tfckpt_restore_async(prefix, tensors, 2, NULL, &job, &error);
    check_names_it(got, code, text, error);
    got = tfckpt_save_async(other, tensors, 2, NULL, &job, &error);
    check_names_it(got, code, text, error);
    CHECK(job == NULL);
    got = tfckpt_save(other, tensors, 2, NULL, NULL, &error);
    check_names_it(got, code, text, error);
    CHECK(gpu_holds((uintptr_t)tensors[0].data, NULL, SIZE));
    CHECK(gpu_stats().h2d_copies == before.h2d_copies);
    CHECK(gpu_nothing_left(before));

    /* With codes the good one is restored. */
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, codes, &error), code, error, text);
    CHECK(codes[0] == TFCKPT_OK && codes[1] == code);
    gpu_set((uintptr_t)tensors[0].data, POISON, SIZE);
}

static void refuse_memory(gpu_address good, const void *host)
{
    tfckpt_tensor tensor = device_tensor("b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, good, SIZE);
    tfckpt_tensor bad = tensor;
    void *pinned = NULL;

    bad.data = (void *)(uintptr_t)host;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "host memory");
    CU(gpu.cuMemHostAlloc(&pinned, SIZE, 0));
    bad.data = pinned;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "page-locked host memory");
    CU(gpu.cuMemFreeHost(pinned));
    bad.data = NULL;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "data is NULL");
    bad.data = (void *)(uintptr_t)(good + 2);
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "not a multiple");
    if (needs_the_fake("an allocation that ends at a known place")) {
        bad.data = (void *)(uintptr_t)(good + 4);
        refuse(bad, TFCKPT_INVALID_ARGUMENT, "too small");
    }
    if (needs_two_devices("memory of another device")) {
        gpu_address elsewhere;

        gpu_use(1);
        elsewhere = gpu_alloc(SIZE);
        gpu_use(0);
        bad.data = (void *)(uintptr_t)elsewhere;
        refuse(bad, TFCKPT_INVALID_ARGUMENT, "of CUDA device 1");
        gpu_use(1);
        CU(gpu.cuMemFree(elsewhere));
        gpu_use(0);
        bad.device_id = 1;
        bad.data = tensor.data;
        refuse(bad, TFCKPT_INVALID_ARGUMENT, "of CUDA device 0");
    }
}

static void refuse_devices_and_flags(gpu_address good)
{
    tfckpt_tensor tensor = device_tensor("b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, good, SIZE);
    tfckpt_tensor bad = tensor;

    bad.device_id = 99;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "no CUDA device 99");
    bad.device_id = -1;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "no CUDA device -1");
    bad = tensor;
    bad.device_type = 8; /* kDLVPI, whatever that is */
    refuse(bad, TFCKPT_UNIMPLEMENTED, "device_type=8");
    bad = tensor;
    bad.flags = 2;
    refuse(bad, TFCKPT_UNIMPLEMENTED, "flags=0x2");
    bad = tensor;
    bad.dtype = TFCKPT_DTYPE_STRING;
    refuse(bad, TFCKPT_INVALID_ARGUMENT, "strings are in host memory");
}

/* Two destinations that share a byte. */
static void refuse_overlaps(gpu_address good)
{
    tfckpt_tensor overlapping[2];
    tfckpt_error *error = NULL;

    overlapping[0] = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, good, SIZE);
    overlapping[1] = device_tensor("b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, good + SIZE / 2, SIZE);
    CHECK_FAILS(tfckpt_restore(prefix, overlapping, 2, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "overlap");
}

/* The older format goes through the host's memory only. */
static void refuse_v1(gpu_address good, float *host)
{
    tfckpt_tensor on_host = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, host, SIZE);
    tfckpt_tensor on_device = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, good, SIZE);
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.format = TFCKPT_FORMAT_V1;
    CHECK_FAILS(tfckpt_save(other, &on_device, 1, &options, NULL, &error), TFCKPT_UNIMPLEMENTED, error, "V1");
    CHECK_OK(tfckpt_save(other, &on_host, 1, &options, NULL, &error), error);
    gpu_set(good, POISON, SIZE);
    CHECK_FAILS(tfckpt_restore(other, &on_device, 1, NULL, NULL, &error), TFCKPT_UNIMPLEMENTED, error, "V1");
    CHECK(gpu_holds(good, NULL, SIZE));
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    float host[SIZE / 4];
    tfckpt_tensor saved[2];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    gpu_address first, second, pair;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(other, dir, "other.ckpt");
    fill(host, sizeof host, 1);
    for (int i = 0; i < 2; i++)
        saved[i] = host_tensor(i == 0 ? "a" : "b", TFCKPT_DTYPE_FLOAT, 1, SHAPE, host, sizeof host);
    CHECK_OK(tfckpt_save(prefix, saved, 2, &options, NULL, &error), error);
    first = gpu_alloc(SIZE);
    second = gpu_alloc(SIZE);
    pair = gpu_alloc(2 * SIZE);
    tensors[0] = device_tensor("a", TFCKPT_DTYPE_FLOAT, 1, SHAPE, 0, first, SIZE);
    refuse_memory(second, host);
    refuse_devices_and_flags(second);
    refuse_overlaps(pair);
    refuse_v1(second, host);
    CU(gpu.cuMemFree(first));
    CU(gpu.cuMemFree(second));
    CU(gpu.cuMemFree(pair));
    remove_scratch_folder(dir);
    return 0;
}
