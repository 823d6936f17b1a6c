/* Opens a checkpoint and looks around in it: number, iteration, lookup, slices, views and checksums. */
#include "check.h"

/* Element i of the 4 x 6 tensor "table" is i. */
static void fill_table(float table[24])
{
    for (int i = 0; i < 24; i++)
        table[i] = (float)i;
}

static tfckpt_reader *open_reader(const char *prefix)
{
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    CHECK(reader != NULL && strcmp(tfckpt_reader_prefix(reader), prefix) == 0);
    return reader;
}

/* Saves "table" in two slices, as a variable that is partitioned over two devices, beside two whole tensors. A slice
 * says which part of which full shape it is in TensorFlow's words: "4 6 2,2:-" is 2 rows from row 2 on of [4,6]. */
static void save_slices(const char *prefix)
{
    static const int64_t half[] = {2, 6}, bias_shape[] = {3}, names_shape[] = {2};
    float table[24];
    int32_t bias[3] = {7, 8, 9};
    tfckpt_string names[2] = {{"x", 1}, {"yz", 2}};
    tfckpt_tensor tensors[4];
    tfckpt_error *error = NULL;

    fill_table(table);
    tensors[0] = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, half, table, 12 * sizeof(float));
    tensors[0].slice_spec = "4 6 0,2:-";
    tensors[1] = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, half, table + 12, 12 * sizeof(float));
    tensors[1].slice_spec = "4 6 2,2:-";
    tensors[2] = host_tensor("bias", TFCKPT_DTYPE_INT32, 1, bias_shape, bias, sizeof bias);
    tensors[3] = host_tensor("names", TFCKPT_DTYPE_STRING, 1, names_shape, names, sizeof names);
    CHECK_OK(tfckpt_save(prefix, tensors, 4, NULL, NULL, &error), error);
}

/* Entries come in the order of their keys. An entry is borrowed: it is gone with the next call. */
static void iterate(const tfckpt_reader *reader)
{
    static const char *const keys[] = {"bias", "names", "table"};
    tfckpt_entries *entries = NULL;
    const tfckpt_entry *entry = NULL;
    tfckpt_error *error = NULL;
    size_t num = 0;

    CHECK_OK(tfckpt_reader_num_tensors(reader, &num, &error), error);
    CHECK(num == 3 && tfckpt_reader_num_shards(reader) == 1);

    CHECK_OK(tfckpt_reader_entries(reader, &entries, &error), error);
    for (size_t i = 0; i < 3; i++) {
        size_t size = 0;

        CHECK_OK(tfckpt_entries_next(entries, &entry, &error), error);
        CHECK(entry != NULL && tfckpt_entry_code(entry) == TFCKPT_OK && tfckpt_entry_message(entry) == NULL);
        CHECK(memcmp(tfckpt_entry_key(entry, &size), keys[i], strlen(keys[i])) == 0 && size == strlen(keys[i]));
    }
    CHECK_OK(tfckpt_entries_next(entries, &entry, &error), error);
    CHECK(entry == NULL);
    CHECK_OK(tfckpt_entries_next(entries, &entry, &error), error); /* the end stays the end */
    CHECK(entry == NULL);
    tfckpt_entries_free(entries);
}

/* Looked up by key, an entry belongs to the caller. */
static void look_up(const tfckpt_reader *reader)
{
    tfckpt_entry *entry = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_reader_find(reader, "bias", 4, &entry, &error), error);
    CHECK(tfckpt_entry_dtype(entry) == TFCKPT_DTYPE_INT32);
    CHECK(tfckpt_entry_rank(entry) == 1 && tfckpt_entry_shape(entry)[0] == 3);
    CHECK(tfckpt_entry_size(entry) == 12 && tfckpt_entry_shard_id(entry) == 0);
    CHECK(tfckpt_entry_offset(entry) == 96); /* right behind the two slices */
    CHECK(tfckpt_entry_num_slices(entry) == 0 && tfckpt_entry_slice(entry, 0) == NULL);
    tfckpt_entry_free(entry);

    CHECK_OK(tfckpt_reader_find(reader, "table", 5, &entry, &error), error);
    CHECK(tfckpt_entry_dtype(entry) == TFCKPT_DTYPE_FLOAT && tfckpt_entry_rank(entry) == 2);
    CHECK(tfckpt_entry_shape(entry)[0] == 4 && tfckpt_entry_shape(entry)[1] == 6);
    CHECK(tfckpt_entry_size(entry) == 96 && tfckpt_entry_num_slices(entry) == 2);
    CHECK(strcmp(tfckpt_entry_slice(entry, 0), "0,2:-") == 0);
    CHECK(strcmp(tfckpt_entry_slice(entry, 1), "2,2:-") == 0);
    CHECK(tfckpt_entry_slice(entry, 2) == NULL);
    tfckpt_entry_free(entry);

    entry = NULL;
    CHECK_FAILS(tfckpt_reader_find(reader, "tabl", 4, &entry, &error), TFCKPT_NOT_FOUND, error,
                "Key tabl not found in checkpoint");
    CHECK(entry == NULL);
}

/* The full tensor, put together from its slices. */
static tfckpt_code restore_table(const tfckpt_reader *reader, int32_t verify, tfckpt_error **error_out)
{
    static const int64_t shape[] = {4, 6};
    float expected[24], table[24] = {0};
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shape, table, sizeof table);
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code code;

    fill_table(expected);
    options.verify = verify;
    code = tfckpt_reader_restore(reader, &tensor, 1, &options, NULL, error_out);
    CHECK(code != TFCKPT_OK || verify == TFCKPT_VERIFY_NONE || memcmp(table, expected, sizeof table) == 0);
    return code;
}

/* Columns 0 to 2 of rows 1 and 2, which lie in different stored slices. */
static tfckpt_code restore_part(const tfckpt_reader *reader, int32_t verify, tfckpt_stats *stats,
                                tfckpt_error **error_out)
{
    static const int64_t shape[] = {2, 3};
    static const float expected[6] = {6, 7, 8, 12, 13, 14};
    float part[6] = {0};
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, shape, part, sizeof part);
    tfckpt_restore_options options = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_code code;

    tensor.slice_spec = "4 6 1,2:0,3";
    options.verify = verify;
    options.stats = stats;
    code = tfckpt_reader_restore(reader, &tensor, 1, &options, NULL, error_out);
    CHECK(code != TFCKPT_OK || memcmp(part, expected, sizeof part) == 0);
    return code;
}

static void restore_in_each_mode(const tfckpt_reader *reader)
{
    tfckpt_stats full = TFCKPT_STATS_INIT, fetched = TFCKPT_STATS_INIT, none = TFCKPT_STATS_INIT;
    tfckpt_error *error = NULL;

    CHECK_OK(restore_table(reader, TFCKPT_VERIFY_FULL, &error), error);
    CHECK_OK(restore_table(reader, TFCKPT_VERIFY_FETCHED, &error), error);
    CHECK_OK(restore_table(reader, TFCKPT_VERIFY_NONE, &error), error);

    /* FULL checks every stored piece that it touches; FETCHED reads only what it needs; NONE checks nothing. */
    CHECK_OK(restore_part(reader, TFCKPT_VERIFY_FULL, &full, &error), error);
    CHECK_OK(restore_part(reader, TFCKPT_VERIFY_FETCHED, &fetched, &error), error);
    CHECK_OK(restore_part(reader, TFCKPT_VERIFY_NONE, &none, &error), error);
    CHECK(full.bytes == 24 && fetched.bytes == 24 && none.bytes == 24);
    CHECK(full.bytes_verified == 96 && fetched.bytes_verified == 0 && none.bytes_verified == 0);

    CHECK_FAILS(restore_part(reader, 3, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

/* Several requests in one call: a stored slice, a slice of a tensor stored whole, and the strings. */
static void restore_a_batch(const tfckpt_reader *reader)
{
    static const int64_t half[] = {2, 6}, two[] = {2};
    float lower[12] = {0};
    int32_t last_two[2] = {0, 0};
    tfckpt_strings *names = NULL;
    tfckpt_tensor tensors[3];
    tfckpt_error *error = NULL;
    size_t size = 0;

    tensors[0] = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, half, lower, sizeof lower);
    tensors[0].slice_spec = "4 6 2,2:-";
    tensors[1] = host_tensor("bias", TFCKPT_DTYPE_INT32, 1, two, last_two, sizeof last_two);
    tensors[1].slice_spec = "3 1,2";
    tensors[2] = host_tensor("names", TFCKPT_DTYPE_STRING, 1, two, &names, sizeof(tfckpt_strings *));
    CHECK_OK(tfckpt_reader_restore(reader, tensors, 3, NULL, NULL, &error), error);
    CHECK(lower[0] == 12 && lower[11] == 23 && last_two[0] == 8 && last_two[1] == 9);
    CHECK(memcmp(tfckpt_strings_get(names, 1, &size), "yz", 2) == 0 && size == 2);
    tfckpt_strings_free(names);
}

struct damage_seen {
    int num;
    char key[16];
};

static void on_damage(const tfckpt_error *error, void *user_data)
{
    struct damage_seen *seen = (struct damage_seen *)user_data;
    size_t size = 0;
    const char *key = tfckpt_error_key(error, &size);

    CHECK(tfckpt_error_code(error) == TFCKPT_DATA_LOSS);
    CHECK(key != NULL && size < sizeof seen->key);
    memcpy(seen->key, key, size);
    seen->key[size] = '\0';
    seen->num++;
}

/* Bit 0 of the last byte of row 0 flips: outside of the part that restore_part asks for, inside of the first slice. */
static void find_damage(const char *dir, const char *prefix)
{
    char data[PATH_SIZE];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_verify_options options = TFCKPT_VERIFY_OPTIONS_INIT;
    struct damage_seen seen = {0, ""};
    tfckpt_error *error = NULL;
    uint64_t num_damaged = 99;

    CHECK_OK(tfckpt_reader_verify(reader, NULL, &num_damaged, &error), error);
    CHECK(num_damaged == 0);
    tfckpt_reader_free(reader);

    path_in(data, dir, "slices.data-00000-of-00001");
    flip_bit(data, 23);
    reader = open_reader(prefix); /* opening reads no data */
    options.damage = on_damage;
    options.user_data = &seen;
    CHECK_FAILS(tfckpt_reader_verify(reader, &options, &num_damaged, &error), TFCKPT_DATA_LOSS, error,
                "Checksum does not match");
    CHECK(num_damaged == 1 && seen.num == 1 && strcmp(seen.key, "table") == 0);

    CHECK_FAILS(restore_table(reader, TFCKPT_VERIFY_FULL, &error), TFCKPT_DATA_LOSS, error, "Checksum does not match");
    CHECK_FAILS(restore_table(reader, TFCKPT_VERIFY_FETCHED, &error), TFCKPT_DATA_LOSS, error,
                "Checksum does not match");
    CHECK_OK(restore_table(reader, TFCKPT_VERIFY_NONE, &error), error);
    CHECK_FAILS(restore_part(reader, TFCKPT_VERIFY_FULL, NULL, &error), TFCKPT_DATA_LOSS, error,
                "Checksum does not match");
    CHECK_OK(restore_part(reader, TFCKPT_VERIFY_FETCHED, NULL, &error), error);
    CHECK_OK(restore_part(reader, TFCKPT_VERIFY_NONE, NULL, &error), error);
    tfckpt_reader_free(reader);
}

/* A view shows a tensor where it lies in the file, without a copy. */
static void view(const char *dir)
{
    static const int64_t three[] = {3}, four[] = {4};
    char prefix[PATH_SIZE];
    uint8_t bytes[3] = {1, 2, 3};
    double values[4] = {0.5, 1.5, 2.5, 3.5};
    tfckpt_string text = {"text", 4};
    tfckpt_tensor tensors[3];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    tfckpt_reader *reader;
    tfckpt_view *view = NULL;

    tensors[0] = host_tensor("bytes", TFCKPT_DTYPE_UINT8, 1, three, bytes, sizeof bytes);
    tensors[1] = host_tensor("values", TFCKPT_DTYPE_DOUBLE, 1, four, values, sizeof values);
    tensors[2] = host_tensor("text", TFCKPT_DTYPE_STRING, 0, NULL, &text, sizeof text);

    path_in(prefix, dir, "aligned");
    options.alignment = 64;
    CHECK_OK(tfckpt_save(prefix, tensors, 3, &options, NULL, &error), error);
    reader = open_reader(prefix);
    CHECK_OK(tfckpt_reader_view(reader, "values", 6, 0, &view, &error), error);
    tfckpt_reader_free(reader); /* the view lives on */
    CHECK((uintptr_t)tfckpt_view_data(view) % 64 == 0 && tfckpt_view_size(view) == sizeof values);
    CHECK(memcmp(tfckpt_view_data(view), values, sizeof values) == 0);
    tfckpt_view_free(view);

    /* TensorFlow packs tensors tightly, so that these doubles begin at the file's fourth byte. */
    path_in(prefix, dir, "packed");
    CHECK_OK(tfckpt_save(prefix, tensors, 3, NULL, NULL, &error), error);
    reader = open_reader(prefix);
    view = NULL;
    CHECK_FAILS(tfckpt_reader_view(reader, "values", 6, 0, &view, &error), TFCKPT_FAILED_PRECONDITION, error, "");
    CHECK(view == NULL);
    CHECK_OK(tfckpt_reader_view(reader, "values", 6, TFCKPT_VIEW_ALLOW_UNALIGNED, &view, &error), error);
    CHECK(memcmp(tfckpt_view_data(view), values, sizeof values) == 0);
    tfckpt_view_free(view);

    /* Strings have no fixed layout to show; and what is not there cannot be shown. */
    CHECK_FAILS(tfckpt_reader_view(reader, "text", 4, 0, &view, &error), TFCKPT_FAILED_PRECONDITION, error, "");
    CHECK_FAILS(tfckpt_reader_view(reader, "none", 4, 0, &view, &error), TFCKPT_NOT_FOUND, error,
                "Key none not found in checkpoint");
    /* A flag of a later version. */
    CHECK_FAILS(tfckpt_reader_view(reader, "values", 6, 1u << 31, &view, &error), TFCKPT_UNIMPLEMENTED, error, "");
    tfckpt_reader_free(reader);

    /* The first look at the data checks it, unless told not to. */
    path_in(prefix, dir, "aligned.data-00000-of-00001");
    flip_bit(prefix, 64);
    path_in(prefix, dir, "aligned");
    reader = open_reader(prefix);
    CHECK_FAILS(tfckpt_reader_view(reader, "values", 6, 0, &view, &error), TFCKPT_DATA_LOSS, error,
                "Checksum does not match");
    CHECK_OK(tfckpt_reader_view(reader, "values", 6, TFCKPT_VIEW_NO_VERIFY, &view, &error), error);
    CHECK(memcmp(tfckpt_view_data(view), values, sizeof values) != 0);
    tfckpt_view_free(view);
    tfckpt_reader_free(reader);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];
    tfckpt_view *view_of_slices = NULL;
    tfckpt_error *error = NULL;
    tfckpt_reader *reader;

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "slices");
    save_slices(prefix);
    reader = open_reader(prefix);
    iterate(reader);
    look_up(reader);
    restore_in_each_mode(reader);
    restore_a_batch(reader);
    CHECK_FAILS(tfckpt_reader_view(reader, "table", 5, 0, &view_of_slices, &error), TFCKPT_FAILED_PRECONDITION, error,
                "");
    tfckpt_reader_free(reader);
    find_damage(dir, prefix);
    view(dir);
    remove_scratch_folder(dir);
    return 0;
}
