/* Without a usable driver everything works but tensors on devices, which are UNAVAILABLE, with the reason. argv[2] is part
 * of that reason: the run script makes the driver unusable in all ways. */
#include "../c/check.h"

int main(int argc, char **argv)
{
    static float memory[256], values[256];
    static const int64_t shape[] = {256};
    const char *reason = argc > 2 ? argv[2] : "there is no libcuda.so.1";
    char dir[PATH_SIZE], prefix[PATH_SIZE], names[256];
    tfckpt_tensor tensors[2];
    tfckpt_code codes[2];
    tfckpt_cuda_driver driver = TFCKPT_CUDA_DRIVER_INIT;
    tfckpt_cuda_device device = TFCKPT_CUDA_DEVICE_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    for (int i = 0; i < 256; i++)
        values[i] = (float)i;

    for (int i = 0; i < 2; i++) { /* the reason is found once and stays the same */
        CHECK_FAILS(tfckpt_cuda_available(&error), TFCKPT_UNAVAILABLE, error, reason);
        CHECK_FAILS(tfckpt_cuda_describe(&driver, &error), TFCKPT_UNAVAILABLE, error, reason);
        CHECK_FAILS(tfckpt_cuda_describe_device(0, &device, &error), TFCKPT_UNAVAILABLE, error, reason);
    }
    CHECK(driver.version == 0 && device.name == NULL);

    /* The host is none of CUDA's business. */
    tensors[0] = host_tensor("a", TFCKPT_DTYPE_FLOAT, 1, shape, values, sizeof values);
    tensors[1] = host_tensor("b", TFCKPT_DTYPE_FLOAT, 1, shape, values, sizeof values);
    CHECK_OK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), error);
    CHECK_OK(tfckpt_remove_checkpoint(prefix, NULL, &error), error);
    CHECK_OK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), error);

    /* A tensor on a device is refused, beside one on the host. */
    tensors[0].data = memory;
    tensors[1].device_type = TFCKPT_DEVICE_CUDA;
    tensors[1].data = (void *)(uintptr_t)0x700000000000;
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_UNAVAILABLE, error, reason);
    CHECK(memory[255] == 0);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, codes, &error), TFCKPT_UNAVAILABLE, error, reason);
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_UNAVAILABLE);
    CHECK(memcmp(memory, values, sizeof memory) == 0);
    CHECK_FAILS(tfckpt_restore_async(prefix, tensors, 2, NULL, &job, &error), TFCKPT_UNAVAILABLE, error, reason);
    CHECK_FAILS(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_UNAVAILABLE, error, reason);
    CHECK_FAILS(tfckpt_save_async(prefix, tensors, 2, NULL, &job, &error), TFCKPT_UNAVAILABLE, error, reason);
    list_folder(dir, names, sizeof names);
    CHECK(strcmp(names, "model.ckpt.data-00000-of-00001\nmodel.ckpt.index\n") == 0);
    remove_scratch_folder(dir);
    return 0;
}
