/* Reads a few elements of a large tensor and verifies them without reading the rest: by the sidecar of chunk checksums
 * that the save was asked to write. */
#include "check.h"

enum { ROWS = 4000, COLUMNS = 1000, WANTED = 512 };

static const int64_t SHAPE[] = {ROWS, COLUMNS}, SLICE[] = {1, WANTED};

/* Restores half of a row; the statistics say what was read and checked. */
static tfckpt_code restore_slice(const char *prefix, float *slice, tfckpt_stats *stats, tfckpt_error **error)
{
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, SLICE, slice, WANTED * sizeof *slice);
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;

    tensor.slice_spec = "4000 1000 2500,1:100,512"; /* the whole shape, then begin and length in each dimension */
    options.verify = TFCKPT_VERIFY_FETCHED;         /* read no more than is needed for that */
    options.stats = stats;
    return tfckpt_restore(prefix, &tensor, 1, &options, NULL, error);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], data[PATH_SIZE], sidecar[PATH_SIZE];
    float *table = (float *)malloc(sizeof(float) * ROWS * COLUMNS), slice[WANTED];
    tfckpt_tensor tensor;
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    CHECK(table != NULL);
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(data, dir, "model.ckpt.data-00000-of-00001");
    path_in(sidecar, dir, "model.ckpt.crc32c");
    for (int i = 0; i < ROWS * COLUMNS; i++)
        table[i] = (float)i;
    tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, SHAPE, table, sizeof(float) * ROWS * COLUMNS);
    save.chunk_checksums = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    CHECK(file_exists(sidecar));

    /* The slice lies in one chunk of 1 MiB, which is all that is read, and verified. */
    CHECK_OK(restore_slice(prefix, slice, &stats, &error), error);
    for (int i = 0; i < WANTED; i++)
        CHECK(slice[i] == (float)(2500 * COLUMNS + 100 + i));
    CHECK(stats.bytes_io == 1 << 20 && stats.bytes_verified_by_chunks == 1 << 20);
    CHECK(stats.bytes_unverified == 0 && stats.num_sidecar_ignored == 0);

    /* A bit flipped somewhere in that chunk is found, though not where the slice is ... */
    flip_bit(data, (long)sizeof(float) * (2500 * COLUMNS + 700));
    CHECK_FAILS(restore_slice(prefix, slice, &stats, &error), TFCKPT_DATA_LOSS, error, "Checksum does not match");
    flip_bit(data, (long)sizeof(float) * (2500 * COLUMNS + 700));

    /* ... and a sidecar that is itself damaged is ignored. */
    flip_bit(sidecar, 50);
    CHECK_OK(restore_slice(prefix, slice, &stats, &error), error);
    CHECK(stats.bytes_unverified == WANTED * sizeof(float) && stats.num_sidecar_ignored == 1);

    /* It goes with its checkpoint, and V1 has none. */
    CHECK_OK(tfckpt_remove_checkpoint(prefix, NULL, &error), error);
    CHECK(!file_exists(sidecar));
    save.format = TFCKPT_FORMAT_V1;
    CHECK_FAILS(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "V2");

    free(table);
    remove_scratch_folder(dir);
    return EXIT_SUCCESS;
}
