/* What a damaged data file does: by default its tensor is reported and its device memory may hold anything, with strict the
 * device memory is as it was before. */
#include "model.h"

static struct model model;

/* The last byte of a tensor in the data file, where they follow each other: all but one of its buffers are sound. */
static long last_byte_of(size_t i)
{
    long offset = 0;

    for (size_t before = 0; before < i; before++)
        offset += (long)model.members[before].size;
    return offset + (long)model.members[i].size - 1;
}

/* Restores the model although tensor `bad` is damaged. */
static void restore_damaged(const char *prefix, const tfckpt_context *context, size_t bad, int strict, int order)
{
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code codes[MODEL_SIZE];
    tfckpt_error *error = NULL;

    options.context = context;
    options.strict = strict;
    options.in_request_order = order == 1;
    options.restore_sequentially = order == 2;
    model_put(&model, 1);
    CHECK_FAILS(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, codes, &error), TFCKPT_DATA_LOSS, error,
                model.members[bad].key);
    for (size_t i = 0; i < model.num; i++) {
        CHECK(codes[i] == (i == bad ? TFCKPT_DATA_LOSS : TFCKPT_OK));
        if (i != bad)
            CHECK(model_holds(&model, i, 0));
        else if (strict && model.members[i].device != HOST)
            CHECK(model_holds(&model, i, 1));
    }

    /* Without codes the call ends there. Of a tensor that is damaged, nothing is on the device all the same. */
    model_put(&model, 1);
    CHECK_FAILS(tfckpt_restore(prefix, model_in_place(&model), model.num, &options, NULL, &error), TFCKPT_DATA_LOSS, error,
                model.members[bad].key);
    if (strict && model.members[bad].device != HOST)
        CHECK(model_holds(&model, bad, 1));
}

/* Columns of a table: many ranges, which lie in many chunks. */
static void restore_damaged_slice(const char *prefix, const char *data, const tfckpt_context *context)
{
    enum { ROWS = 3500, COLUMNS = 500, WANTED = 100 }; /* seven chunks */
    static const int64_t shape[] = {ROWS, COLUMNS}, slice_shape[] = {ROWS, WANTED};
    static float table[ROWS][COLUMNS], slice[ROWS][WANTED];
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shape, table, sizeof table);
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    gpu_address address = gpu_alloc(sizeof slice);

    fill(table, sizeof table, 7);
    for (int r = 0; r < ROWS; r++)
        memcpy(slice[r], table[r] + 300, sizeof slice[r]);
    save.no_sync = 1;
    save.chunk_checksums = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    tensor = device_tensor("table", TFCKPT_DTYPE_FLOAT, 2, slice_shape, 0, address, sizeof slice);
    tensor.slice_spec = "3500 500 0,3500:300,100";
    options.context = context;
    for (int i = 0; i < 4; i++) {
        options.verify = i & 1 ? TFCKPT_VERIFY_FETCHED : TFCKPT_VERIFY_FULL;
        options.strict = i >= 2;
        flip_bit(data, (long)sizeof table - 1000);
        gpu_set(address, POISON, sizeof slice);
        CHECK_FAILS(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), TFCKPT_DATA_LOSS, error, "table");
        if (options.strict)
            CHECK(gpu_holds(address, NULL, sizeof slice));
        flip_bit(data, (long)sizeof table - 1000);
        CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), error);
        CHECK(gpu_holds(address, slice, sizeof slice));
    }
    CU(gpu.cuMemFree(address));
}

/* Rows of a table, as a server of eight takes its part: by the chunk checksums only what is fetched counts, with strict,
 * too, and nothing else is read. */
static void restore_part_of_a_damaged_table(const char *prefix, const char *data, const tfckpt_context *context)
{
    enum { ROWS = 20000, COLUMNS = 500, FIRST = 5000, WANTED = 2500, CHUNK = 1 << 20 };
    static const int64_t shape[] = {ROWS, COLUMNS}, slice_shape[] = {WANTED, COLUMNS};
    static float table[ROWS][COLUMNS];
    const size_t size = sizeof(float) * WANTED * COLUMNS; /* 5 MB of 40 */
    const long outside = (long)sizeof table - 1000, inside = (long)sizeof(float) * (FIRST + WANTED) * COLUMNS - 1;
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shape, table, sizeof table);
    tfckpt_save_options save = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_stats stats = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;
    gpu_address address = gpu_alloc(size);

    fill(table, sizeof table, 8);
    save.no_sync = 1;
    save.chunk_checksums = 1;
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, &save, NULL, &error), error);
    tensor = device_tensor("table", TFCKPT_DTYPE_FLOAT, 2, slice_shape, 0, address, size);
    tensor.slice_spec = "20000 500 5000,2500:0,500";
    options.context = context;
    options.stats = &stats;
    for (options.strict = 0; options.strict <= 1; options.strict++) {
        flip_bit(data, outside);
        options.verify = TFCKPT_VERIFY_FETCHED;
        gpu_set(address, POISON, size);
        CHECK_OK(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), error);
        CHECK(gpu_holds(address, table[FIRST], size));
        CHECK(stats.bytes_io <= (1 + (uint64_t)options.strict) * (size + 2 * CHUNK));
        CHECK(stats.bytes_unverified == 0);
        options.verify = TFCKPT_VERIFY_FULL;
        gpu_set(address, POISON, size);
        CHECK_FAILS(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), TFCKPT_DATA_LOSS, error, "table");
        if (options.strict)
            CHECK(gpu_holds(address, NULL, size));
        flip_bit(data, outside);

        flip_bit(data, inside);
        options.verify = TFCKPT_VERIFY_FETCHED;
        gpu_set(address, POISON, size);
        CHECK_FAILS(tfckpt_restore(prefix, &tensor, 1, &options, NULL, &error), TFCKPT_DATA_LOSS, error, "table");
        if (options.strict)
            CHECK(gpu_holds(address, NULL, size));
        flip_bit(data, inside);
    }
    CU(gpu.cuMemFree(address));
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE], data[PATH_SIZE], table[PATH_SIZE], table_data[PATH_SIZE];
    tfckpt_context *contexts[2];
    struct fakecuda_stats before;
    tfckpt_error *error = NULL;
    static const size_t bad[] = {0, 1, 2, 4, 6, 8};

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(data, dir, "model.ckpt.data-00000-of-00001");
    path_in(table, dir, "table.ckpt");
    path_in(table_data, dir, "table.ckpt.data-00000-of-00001");
    before = gpu_stats();
    model_of_all_kinds(&model, 1, 1);
    model_save(&model, prefix);
    contexts[0] = new_context(0);       /* a large tensor takes one page-locked buffer or two */
    contexts[1] = new_context(4 << 20); /* or many */
    for (int c = 0; c < 2; c++) {
        for (size_t b = 0; b < sizeof bad / sizeof *bad; b++) {
            flip_bit(data, last_byte_of(bad[b]));
            for (int strict = 0; strict < 2; strict++)
                restore_damaged(prefix, contexts[c], bad[b], strict, (int)b % 3);
            flip_bit(data, last_byte_of(bad[b]));
        }
        model_put(&model, 1);
        CHECK_OK(tfckpt_restore(prefix, model_in_place(&model), model.num, NULL, NULL, &error), error);
        CHECK(model_is_complete(&model));
        restore_damaged_slice(table, table_data, contexts[c]);
        restore_part_of_a_damaged_table(table, table_data, contexts[c]);
        tfckpt_context_free(contexts[c]);
    }
    model_free(&model);
    CHECK(gpu_nothing_left(before));
    remove_scratch_folder(dir);
    return 0;
}
