/* Restores slices to a GPU, as an inference server does that splits a model over devices: rows, columns and blocks of a
 * table, verified whole, by the chunk checksums of the sidecar, or not at all. */
#include "gpu.h"

enum { ROWS = 3000, COLUMNS = 1000 };

static const int64_t SHAPE[] = {ROWS, COLUMNS};
static float *table;

/* Rows [row, row + rows) and columns [column, column + columns), and what reads them. */
struct slice {
    int64_t row, rows, column, columns;
};
static const struct slice slices[] = {
    {0, ROWS, 0, COLUMNS},  /* all of it */
    {700, 1500, 0, COLUMNS}, /* rows: one range of the file */
    {0, 1000, 250, 500},    /* columns: a range in each row */
    {100, 300, 999, 1},     /* part of the last column: 300 ranges of 4 bytes */
    {1234, 1, 100, 300},    /* part of a row */
    {2990, 10, 990, 10},    /* the last corner */
};
enum { NUM_SLICES = sizeof slices / sizeof *slices };

static size_t slice_size(const struct slice *slice)
{
    return (size_t)(slice->rows * slice->columns) * sizeof *table;
}

static void cut(const struct slice *slice, float *out)
{
    for (int64_t r = 0; r < slice->rows; r++)
        memcpy(out + r * slice->columns, table + (slice->row + r) * COLUMNS + slice->column,
               (size_t)slice->columns * sizeof *table);
}

static void write_spec(char *spec, size_t size, const struct slice *slice)
{
    snprintf(spec, size, "%d %d %" PRId64 ",%" PRId64 ":%" PRId64 ",%" PRId64, ROWS, COLUMNS, slice->row, slice->rows,
             slice->column, slice->columns);
}

/* All slices in one call. */
static void restore_slices(const char *prefix, tfckpt_context *context, int verify, int strict, tfckpt_stats *stats)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_tensor tensors[NUM_SLICES];
    int64_t shapes[NUM_SLICES][2];
    char specs[NUM_SLICES][64];
    tfckpt_error *error = NULL;

    for (int i = 0; i < NUM_SLICES; i++) {
        size_t size = slice_size(&slices[i]);

        shapes[i][0] = slices[i].rows;
        shapes[i][1] = slices[i].columns;
        write_spec(specs[i], sizeof specs[i], &slices[i]);
        tensors[i] = device_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shapes[i], 0, gpu_alloc(size), size);
        tensors[i].slice_spec = specs[i];
    }
    options.context = context;
    options.verify = verify;
    options.strict = strict;
    options.stats = stats;
    CHECK_OK(tfckpt_restore(prefix, tensors, NUM_SLICES, &options, NULL, &error), error);
    for (int i = 0; i < NUM_SLICES; i++) {
        float *want = (float *)allocate(tensors[i].size);

        cut(&slices[i], want);
        CHECK(gpu_holds((uintptr_t)tensors[i].data, want, tensors[i].size));
        CU(gpu.cuMemFree((uintptr_t)tensors[i].data));
        free(want);
    }
}

static void save_whole(const char *prefix, int chunk_checksums)
{
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, SHAPE, table, sizeof(float) * ROWS * COLUMNS);
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.no_sync = 1;
    options.chunk_checksums = chunk_checksums;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &options, NULL, &error), error);
}

/* As a partitioned variable, whose parts are slices, and saved from device memory. */
static void save_in_parts(const char *prefix)
{
    static const struct slice parts[] = {{0, 1000, 0, COLUMNS}, {1000, 2000, 0, 300}, {1000, 2000, 300, 700}};
    tfckpt_tensor tensors[3];
    int64_t shapes[3][2];
    char specs[3][64];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    for (int i = 0; i < 3; i++) {
        size_t size = slice_size(&parts[i]);
        float *bytes = (float *)allocate(size);

        cut(&parts[i], bytes);
        shapes[i][0] = parts[i].rows;
        shapes[i][1] = parts[i].columns;
        write_spec(specs[i], sizeof specs[i], &parts[i]);
        tensors[i] = device_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shapes[i], 0, gpu_alloc(size), size);
        tensors[i].slice_spec = specs[i];
        gpu_write((uintptr_t)tensors[i].data, bytes, size);
        free(bytes);
    }
    options.no_sync = 1;
    options.chunk_checksums = 1;
    CHECK_OK(tfckpt_save(prefix, tensors, 3, &options, NULL, &error), error);
    for (int i = 0; i < 3; i++)
        CU(gpu.cuMemFree((uintptr_t)tensors[i].data));
}

/* Several slices of one small tensor, which share what is read of the file: each has its own bytes. */
static void share_a_small_table(const char *prefix)
{
    enum { SIDE = 40, NUM = 5 };
    static const int64_t shape[] = {SIDE, SIDE}, shapes[NUM][2] = {{40, 7}, {40, 30}, {40, 3}, {40, 40}, {11, 40}};
    static const char *const specs[NUM] = {"40 40 0,40:0,7", "40 40 0,40:5,30", "40 40 0,40:37,3", "", "40 40 29,11:0,40"};
    static const int columns[NUM] = {0, 5, 37, 0, 0}, rows[NUM] = {0, 0, 0, 0, 29};
    float small[SIDE][SIDE], want[SIDE * SIDE];
    tfckpt_tensor tensors[NUM], tensor = host_tensor("small", TFCKPT_DTYPE_FLOAT, 2, shape, small, sizeof small);
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    fill(small, sizeof small, 3);
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);
    for (int i = 0; i < NUM; i++) {
        size_t size = (size_t)(shapes[i][0] * shapes[i][1]) * sizeof(float);

        tensors[i] = device_tensor("small", TFCKPT_DTYPE_FLOAT, 2, shapes[i], 0, gpu_alloc(size), size);
        tensors[i].slice_spec = specs[i];
    }
    for (int verify = TFCKPT_VERIFY_FULL; verify <= TFCKPT_VERIFY_NONE; verify++) {
        for (int i = 0; i < NUM; i++)
            gpu_set((uintptr_t)tensors[i].data, POISON, tensors[i].size);
        options.verify = verify;
        CHECK_OK(tfckpt_restore(prefix, tensors, NUM, &options, NULL, &error), error);
        for (int i = 0; i < NUM; i++) {
            for (int r = 0; r < shapes[i][0]; r++)
                memcpy(want + r * shapes[i][1], small[rows[i] + r] + columns[i], (size_t)shapes[i][1] * sizeof(float));
            CHECK(gpu_holds((uintptr_t)tensors[i].data, want, tensors[i].size));
        }
    }
    for (int i = 0; i < NUM; i++)
        CU(gpu.cuMemFree((uintptr_t)tensors[i].data));
}

/* Columns of a wide table lie far apart in the file, each row's by itself, but next to each other on the device: they go
 * there together. */
static void send_columns_together(const char *prefix)
{
    enum { HEIGHT = 512, WIDTH = 4096, WANTED = 512 }; /* eight chunks; 2 KiB of each row of 16 KiB */
    static const int64_t shape[] = {HEIGHT, WIDTH}, slice_shape[] = {HEIGHT, WANTED};
    static float wide[HEIGHT][WIDTH], want[HEIGHT][WANTED];
    tfckpt_tensor tensor = host_tensor("wide", TFCKPT_DTYPE_FLOAT, 2, shape, wide, sizeof wide);
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    gpu_address address = gpu_alloc(sizeof want);

    fill(wide, sizeof wide, 5);
    for (int r = 0; r < HEIGHT; r++)
        memcpy(want[r], wide[r] + 3 * WANTED, sizeof want[r]);
    save.no_sync = 1;
    save.chunk_checksums = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    tensor = device_tensor("wide", TFCKPT_DTYPE_FLOAT, 2, slice_shape, 0, address, sizeof want);
    tensor.slice_spec = "512 4096 0,512:1536,512";
    for (int verify = TFCKPT_VERIFY_FULL; verify <= TFCKPT_VERIFY_NONE; verify++) {
        struct fakecuda_stats before = gpu_stats();

        gpu_set(address, POISON, sizeof want);
        options.verify = verify;
        CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), error);
        CHECK(gpu_stats().h2d_copies - before.h2d_copies <= 2);
        CHECK(gpu_holds(address, want, sizeof want));
    }
    CU(gpu.cuMemFree(address));
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefixes[3][PATH_SIZE];
    struct fakecuda_stats before;
    tfckpt_context *small;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    uint64_t wanted = 0;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefixes[0], dir, "plain.ckpt");
    path_in(prefixes[1], dir, "sidecar.ckpt");
    path_in(prefixes[2], dir, "parts.ckpt");
    table = (float *)allocate(sizeof(float) * ROWS * COLUMNS);
    for (int i = 0; i < ROWS * COLUMNS; i++)
        table[i] = (float)i;
    for (int i = 0; i < NUM_SLICES; i++)
        wanted += slice_size(&slices[i]);
    save_whole(prefixes[0], 0);
    save_whole(prefixes[1], 1);
    save_in_parts(prefixes[2]);

    before = gpu_stats();
    small = new_context(4 << 20); /* page-locked buffers of 1 MiB */
    for (int i = 0; i < 12; i++) {
        tfckpt_context *context = i < 6 ? NULL : small;
        const char *prefix = prefixes[i % 3];
        int strict = i / 3 % 2;

        restore_slices(prefix, context, TFCKPT_VERIFY_FULL, strict, &stats);
        CHECK(stats.bytes_unverified == 0);
        restore_slices(prefix, context, TFCKPT_VERIFY_FETCHED, strict, &stats);
        if (i % 3 == 0) /* only the whole table is verified */
            CHECK(stats.bytes_unverified == wanted - slice_size(&slices[0]));
        if (i % 3 == 1)
            CHECK(stats.bytes_unverified == 0 && stats.bytes_verified_by_chunks > 0);
        restore_slices(prefix, context, TFCKPT_VERIFY_NONE, strict, &stats);
        CHECK(stats.bytes_unverified == wanted && stats.bytes_verified == 0);
    }
    tfckpt_context_free(small);
    share_a_small_table(prefixes[0]);
    send_columns_together(prefixes[0]);
    CHECK(gpu_nothing_left(before));

    free(table);
    remove_scratch_folder(dir);
    return 0;
}
