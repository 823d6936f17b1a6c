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
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
