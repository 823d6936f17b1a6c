/* Restores to GPUs from files that are not in the page cache, through it and past it. The file systems of some machines keep
 * everything in memory: there the bytes are checked all the same. */
#include "model.h"

#include <fcntl.h>
#include <sys/mman.h>

static struct model model;

/* Drops a file from the page cache. Returns whether the system says that nothing is left of it there. */
static int drop(const char *path)
{
    size_t size = (size_t)file_size(path), page = (size_t)sysconf(_SC_PAGESIZE), pages = (size + page - 1) / page, cached = 0;
    unsigned char *states = (unsigned char *)allocate(pages);
    int file = open(path, O_RDONLY);
    void *memory;

    CHECK(file >= 0 && fsync(file) == 0);
    (void)posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    memory = mmap(NULL, size, PROT_READ, MAP_SHARED, file, 0);
    CHECK(memory != MAP_FAILED);
    CHECK(mincore(memory, size, states) == 0);
    for (size_t i = 0; i < pages; i++)
        cached += states[i] & 1;
    munmap(memory, size);
    close(file);
    free(states);
    return cached == 0;
}

/* Whether one of the ways to restore has brought all bytes; fills the figures. */
static int restore(const char *prefix, int way, const tfckpt_context *context, tfckpt_stats *stats)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_job *job = NULL;
    tfckpt_error *error = NULL;

    options.context = context;
    options.strict = way == 1;
    options.verify = way == 2 ? TFCKPT_VERIFY_NONE : TFCKPT_VERIFY_FULL;
    options.restore_sequentially = way == 3;
    if (way == 4) {
        CHECK_OK(tfckpt_restore_async(prefix, model_in_place(&model), model.num, &options, &job, &error), error);
        for (size_t i = 0; i < model.num; i++)
            CHECK_OK(tfckpt_job_wait_tensor(job, i, FOREVER, &error), error);
        CHECK_OK(tfckpt_job_wait(job, FOREVER, &error), error);
        CHECK_OK(tfckpt_job_stats(job, stats, &error), error);
        tfckpt_job_free(job);
    } else {
        options.stats = stats;
        CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), error);
    }
    return model_is_complete(&model);
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"model.ckpt.data-00000-of-00001", "model.ckpt.index"};
    char dir[PATH_SIZE], prefix[PATH_SIZE], data[PATH_SIZE], table[PATH_SIZE];
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    struct fakecuda_stats before;
    tfckpt_error *error = NULL;
    int num_cold = 0;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(data, dir, names[0]);
    path_in(table, dir, names[1]);
    before = gpu_stats();
    for (int with_host = 0; with_host < 2; with_host++) {
        model_of_all_kinds(&model, gpu.num_devices, with_host);
        for (uint64_t mebibytes = 0; mebibytes <= 7; mebibytes += 7) {
            tfckpt_context *context = new_context(mebibytes << 20);

            CHECK_OK(tfckpt_save(prefix, model_at_home(&model), model.num, &save, NULL, &error), error);
            for (int way = 0; way < 5; way++) {
                tfckpt_stats stats = TFCKPT_STATS_INIT;
                int is_cold;

                model_put(&model, 1);
                (void)drop(table);
                is_cold = drop(data);
                CHECK(restore(prefix, way, context, &stats));
                CHECK(stats.bytes_device == model_device_bytes(&model));
                CHECK(stats.bytes_cold <= stats.bytes_io && stats.bytes_direct <= stats.bytes_cold);
                if (is_cold)
                    CHECK(stats.bytes_cold > 0);
                num_cold += is_cold;
            }
            tfckpt_context_free(context);
        }
        model_free(&model);
    }
    if (num_cold == 0)
        printf("skipped: a file that is not in the page cache: it stays there\n");
    else
        printf("%d of 20 restores began with nothing in the page cache\n", num_cold);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
