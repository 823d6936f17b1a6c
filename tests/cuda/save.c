/* Saves tensors from a GPU's memory, straight into the data files: byte for byte what a save of the same tensors from host
 * memory writes. */
#include "model.h"

static struct model model;

/* Saves the model, from its memory on devices or from the host, into the folder `dir`, and returns a number for the
 * folder's files. */
static uint64_t save_to(const char *dir, int from_host, const tfckpt_save_options *with, tfckpt_stats *stats)
{
    char prefix[PATH_SIZE];
    tfckpt_save_options options = *with;
    tfckpt_error *error = NULL;
    uint64_t digest;

    path_in(prefix, dir, "model.ckpt");
    CHECK(mkdir(dir, 0755) == 0);
    if (from_host)
        model_at_home(&model);
    else
        model_in_place(&model);
    /* The device's name, by which a save is sharded, is that of the memory if none is given. */
    for (size_t i = 0; i < model.num && from_host; i++)
        if (model.members[i].device != HOST)
            model.tensors[i].device_name = model.members[i].device == 0 ? "/device:GPU:0" : "/device:GPU:1";
    options.stats = stats;
    CHECK_OK(tfckpt_save(prefix, model.tensors, model.num, &options, NULL, &error), error);
    digest = folder_digest(dir);
    model_check_checkpoint(&model, prefix);
    remove_scratch_folder(dir);
    return digest;
}

static void save_both_ways(const char *dir, const tfckpt_save_options *options)
{
    char folder[PATH_SIZE];
    tfckpt_stats stats = TFCKPT_STATS_INIT, host_stats = TFCKPT_STATS_INIT;

    path_in(folder, dir, "folder");
    CHECK(save_to(folder, 0, options, &stats) == save_to(folder, 1, options, &host_stats));
    CHECK(stats.bytes == host_stats.bytes && stats.bytes_io == host_stats.bytes_io);
    CHECK(stats.num_slots >= 1 && host_stats.num_slots == 0);
    CHECK(stats.bytes_device == model_device_bytes(&model) && host_stats.bytes_device == 0);
}

/* A tensor without elements has no memory: its address may be anything. */
static void save_empty_tensors(const char *dir)
{
    static const int64_t shapes[][2] = {{0, 5}, {7, 0}, {0, 0}};
    char folder[PATH_SIZE], prefix[PATH_SIZE];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_tensor tensors[3];
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;
    uint64_t digests[5];

    path_in(folder, dir, "empty");
    path_in(prefix, folder, "model.ckpt");
    options.no_sync = 1;
    for (int way = 0; way < 5; way++) { /* on the host, from devices, in the background in three ways */
        for (int i = 0; i < 3; i++) {
            static const char *const keys[] = {"a", "b", "c"};

            tensors[i] = host_tensor(keys[i], TFCKPT_DTYPE_INT32, 2, shapes[i], NULL, 0);
            if (way > 0)
                tensors[i] = device_tensor(keys[i], TFCKPT_DTYPE_INT32, 2, shapes[i], i % gpu.num_devices,
                                           i == 0 ? 0 : (gpu_address)i << 40, 0);
        }
        options.borrow = way == 3;
        options.device_snapshot = way == 4;
        options.stats = way < 2 ? &stats : NULL;
        CHECK(mkdir(folder, 0755) == 0);
        if (way < 2) {
            CHECK_OK(tfckpt_save(prefix, tensors, 3, &options, NULL, &error), error);
            CHECK(stats.num_tensors == 3 && stats.bytes == 0 && stats.bytes_device == 0);
        } else {
            CHECK_OK(tfckpt_save_async(prefix, tensors, 3, &options, &job, &error), error);
            CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
            tfckpt_job_free(job);
        }
        digests[way] = folder_digest(folder);
        CHECK(digests[way] == digests[0]);
        restore.stats = &stats;
        CHECK_OK(tfckpt_restore(prefix, tensors, 3, &restore, NULL, &error), error);
        CHECK(stats.num_tensors == 3 && stats.bytes_device == 0);
        remove_scratch_folder(folder);
    }
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE];
    struct fakecuda_stats before;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    before = gpu_stats();
    for (int with_host = 0; with_host < 2; with_host++) {
        model_of_all_kinds(&model, gpu.num_devices, with_host);
        model_put(&model, 0);
        for (int i = 0; i < 8; i++) {
            tfckpt_context *context = new_context(6 << 20);
            tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;

            options.shard_by_device = i & 1;
            options.no_sync = i & 2; /* 0: past the page cache */
            options.chunk_checksums = i & 4;
            options.max_shard_size = i == 6 ? 3 << 20 : 0;
            save_both_ways(dir, &options);
            options.context = context; /* through a few small buffers */
            save_both_ways(dir, &options);
            tfckpt_context_free(context);
        }
        model_free(&model);
    }
    save_empty_tensors(dir);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
