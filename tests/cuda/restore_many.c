/* Restores ten thousand small tensors, which an optimizer has, to memory all over the device. */
#include "gpu.h"

enum { NUM = 10000, SIZE = 4096, STRIDE = SIZE + 512 };

static char keys[NUM][20];
static tfckpt_tensor tensors[NUM];
static const int64_t SHAPE[] = {SIZE};

static void describe_on_host(unsigned char *bytes)
{
    for (int i = 0; i < NUM; i++) {
        snprintf(keys[i], sizeof keys[i], "slot/%05d", i);
        tensors[i] = host_tensor(keys[i], TFCKPT_DTYPE_UINT8, 1, SHAPE, bytes + (size_t)i * SIZE, SIZE);
    }
}

/* Not in the order of the files: 7919 and NUM have no divisor in common. */
static size_t place_of(int i)
{
    return (size_t)i * 7919 % NUM * STRIDE;
}

/* Tensors of middling size share page-locked buffers, and what it costs to send one. */
static void share_buffers(const char *prefix)
{
    enum { NUM_LAYERS = 250, LAYER = 100000, PER_BUFFER = 10 }; /* of 1 MiB or more */
    static const int64_t shape[] = {LAYER};
    unsigned char *bytes = (unsigned char *)allocate((size_t)NUM_LAYERS * LAYER);
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    gpu_address slab = gpu_alloc((size_t)NUM_LAYERS * LAYER);
    uint64_t records;
    struct fakecuda_stats before;

    fill(bytes, (size_t)NUM_LAYERS * LAYER, 2);
    for (int i = 0; i < NUM_LAYERS; i++) {
        snprintf(keys[i], sizeof keys[i], "layer/%03d", i);
        tensors[i] = host_tensor(keys[i], TFCKPT_DTYPE_UINT8, 1, shape, bytes + (size_t)i * LAYER, LAYER);
    }
    save.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, tensors, NUM_LAYERS, &save, NULL, &error), error);
    for (int i = 0; i < NUM_LAYERS; i++)
        tensors[i] = device_tensor(keys[i], TFCKPT_DTYPE_UINT8, 1, shape, 0, slab + (size_t)i * LAYER, LAYER);
    before = gpu_stats();
    records = fake.reset != NULL ? fake.calls("cuEventRecord") : 0;
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM_LAYERS, NULL, NULL, &error), error);
    CHECK(gpu_holds(slab, bytes, (size_t)NUM_LAYERS * LAYER));
    if (needs_the_fake("counting calls")) {
        CHECK(gpu_stats().h2d_copies - before.h2d_copies == NUM_LAYERS);
        CHECK(gpu_stats().batches - before.batches <= NUM_LAYERS / PER_BUFFER);
        /* One for each buffer that is sent, and a few for the caller's stream. */
        CHECK(fake.calls("cuEventRecord") - records <= NUM_LAYERS / PER_BUFFER + 4);
    }
    CU(gpu.cuMemFree(slab));
    free(bytes);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    struct fakecuda_stats before;
    uint64_t entered = 0;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    unsigned char *bytes = (unsigned char *)allocate((size_t)NUM * SIZE);
    unsigned char *want = (unsigned char *)allocate((size_t)NUM * STRIDE);
    gpu_address slab;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    fill(bytes, (size_t)NUM * SIZE, 1);
    describe_on_host(bytes);
    save.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, tensors, NUM, &save, NULL, &error), error);

    /* What is between the tensors stays as it is. */
    slab = gpu_alloc((size_t)NUM * STRIDE);
    memset(want, POISON, (size_t)NUM * STRIDE);
    for (int i = 0; i < NUM; i++) {
        tensors[i] = device_tensor(keys[i], TFCKPT_DTYPE_UINT8, 1, SHAPE, 0, slab + place_of(i), SIZE);
        memcpy(want + place_of(i), bytes + (size_t)i * SIZE, SIZE);
    }
    before = gpu_stats();
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM, NULL, NULL, &error), error);
    CHECK(gpu_holds(slab, want, (size_t)NUM * STRIDE));
    CHECK(gpu_nothing_left(before));

    /* And back: the same bytes, saved from where they are now. The driver is not asked anew for each of them. */
    if (fake.reset != NULL)
        entered = fake.calls("cuCtxPushCurrent");
    CHECK_OK(tfckpt_save(prefix, tensors, NUM, &save, NULL, &error), error);
    if (fake.reset != NULL)
        CHECK(fake.calls("cuCtxPushCurrent") - entered < NUM);
    memset(bytes, 0, (size_t)NUM * SIZE);
    describe_on_host(bytes);
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM, NULL, NULL, &error), error);
    for (int i = 0; i < NUM; i++)
        CHECK(memcmp(bytes + (size_t)i * SIZE, want + place_of(i), SIZE) == 0);
    CHECK(gpu_nothing_left(before));

    CU(gpu.cuMemFree(slab));
    share_buffers(prefix);
    free(bytes);
    free(want);
    remove_scratch_folder(dir);
    return 0;
}
