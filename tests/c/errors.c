/* What goes wrong, and how the library says so: a code to act on, TensorFlow's own text where it has one, and getters
 * for the tensor, the file and the offset. */
#include "check.h"

static const int64_t FOUR[] = {4}, FIVE[] = {5};

/* "weights", four floats, and "step", an int64. */
struct model {
    float weights[4];
    int64_t step;
};

static void describe(struct model *m, tfckpt_tensor tensors[2])
{
    tensors[0] = host_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, FOUR, m->weights, sizeof m->weights);
    tensors[1] = host_tensor("step", TFCKPT_DTYPE_INT64, 0, NULL, &m->step, sizeof m->step);
}

static void save_model(const char *prefix)
{
    struct model model = {{1, 2, 3, 4}, 5};
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    describe(&model, tensors);
    CHECK_OK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error), error);
}

static tfckpt_code restore_one(const char *prefix, tfckpt_tensor tensor, tfckpt_error **error_out)
{
    return tfckpt_restore(prefix, &tensor, 1, NULL, NULL, error_out);
}

/* The request does not fit the checkpoint. These texts are TensorFlow's, word for word, because programs match them. */
static void requests_that_do_not_fit(const char *prefix)
{
    float five[5];
    int64_t four[4];
    tfckpt_tensor tensor;
    tfckpt_error *error = NULL;

    tensor = host_tensor("weights", TFCKPT_DTYPE_INT64, 1, FOUR, four, sizeof four);
    CHECK_FAILS(restore_one(prefix, tensor, &error), TFCKPT_INVALID_ARGUMENT, error,
                "tensor_name = weights; expected dtype int64 does not equal original dtype float");
    tensor = host_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, FIVE, five, sizeof five);
    CHECK_FAILS(restore_one(prefix, tensor, &error), TFCKPT_INVALID_ARGUMENT, error,
                "tensor_name = weights; shape in shape_and_slice spec [5] does not match the shape stored in "
                "checkpoint: [4]");
    tensor = host_tensor("step", TFCKPT_DTYPE_INT64, 1, FOUR, four, sizeof four);
    CHECK_FAILS(restore_one(prefix, tensor, &error), TFCKPT_INVALID_ARGUMENT, error,
                "tensor_name = step; shape in shape_and_slice spec [4] does not match the shape stored in "
                "checkpoint: []");
    /* The same with a slice of a tensor that has another full shape. */
    tensor = host_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, FOUR, five, sizeof(float) * 4);
    tensor.slice_spec = "5 1,4";
    CHECK_FAILS(restore_one(prefix, tensor, &error), TFCKPT_INVALID_ARGUMENT, error,
                "tensor_name = weights; shape in shape_and_slice spec [5] does not match the shape stored in "
                "checkpoint: [4]");
}

/* An error object tells what a program needs without parsing the message. */
static void a_missing_key_is_named(const char *prefix)
{
    struct model model;
    tfckpt_tensor tensors[3];
    tfckpt_error *error = NULL;
    const char *key;
    size_t size = 0;
    float bias[4];

    describe(&model, tensors);
    tensors[2] = host_tensor("bias", TFCKPT_DTYPE_FLOAT, 1, FOUR, bias, sizeof bias);
    CHECK(tfckpt_restore(prefix, tensors, 3, NULL, NULL, &error) == TFCKPT_NOT_FOUND);
    CHECK(error != NULL && tfckpt_error_code(error) == TFCKPT_NOT_FOUND);
    CHECK(strncmp(tfckpt_error_message(error), "Key bias not found in checkpoint", 32) == 0);
    key = tfckpt_error_key(error, &size);
    CHECK(key != NULL && size == 4 && memcmp(key, "bias", 4) == 0);
    CHECK(tfckpt_error_tensor_index(error) == 2);
    tfckpt_error_free(error);
}

static void prefixes_that_are_none(const char *dir, const char *prefix)
{
    static const char *const endings[] = {".index", ".data-00000-of-00001", ".meta"};
    char wrong[PATH_SIZE];
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    /* The name of a file in place of the prefix: the message says what the prefix would be. */
    path_in(wrong, dir, "model.ckpt.meta");
    write_file(wrong, "a graph");
    for (int i = 0; i < 3; i++) {
        char hint[PATH_SIZE];

        CHECK(snprintf(wrong, sizeof wrong, "%s%s", prefix, endings[i]) < PATH_SIZE);
        CHECK(snprintf(hint, sizeof hint, "not its prefix; prefix=%s", prefix) < PATH_SIZE);
        CHECK_FAILS(tfckpt_reader_open(wrong, NULL, &reader, &error), TFCKPT_INVALID_ARGUMENT, error, hint);
    }
    /* A folder opens only if it is a SavedModel's. */
    CHECK_FAILS(tfckpt_reader_open(dir, NULL, &reader, &error), TFCKPT_DATA_LOSS, error, "Unable to open table file");
    path_in(wrong, dir, "nothing");
    CHECK_FAILS(tfckpt_reader_open(wrong, NULL, &reader, &error), TFCKPT_NOT_FOUND, error,
                "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for");
    path_in(wrong, dir, "no/such/folder");
    CHECK_FAILS(tfckpt_reader_open(wrong, NULL, &reader, &error), TFCKPT_NOT_FOUND, error,
                "Unsuccessful TensorSliceReader constructor: Failed to find any matching files for");
    CHECK_FAILS(tfckpt_reader_open("", NULL, &reader, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK(reader == NULL);
}

static void damage_is_located(const char *dir)
{
    char prefix[PATH_SIZE], data[PATH_SIZE];
    struct model model;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;
    const char *key;
    size_t size = 0;

    path_in(prefix, dir, "damaged");
    path_in(data, dir, "damaged.data-00000-of-00001");
    save_model(prefix);
    flip_bit(data, 17); /* "step" is at offset 16 */
    describe(&model, tensors);
    CHECK(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error) == TFCKPT_DATA_LOSS);
    CHECK(strstr(tfckpt_error_message(error), "Checksum does not match: stored") != NULL);
    CHECK(strcmp(tfckpt_error_file(error), data) == 0);
    CHECK(tfckpt_error_offset(error) == 16);
    CHECK(tfckpt_error_tensor_index(error) == 1);
    key = tfckpt_error_key(error, &size);
    CHECK(size == 4 && memcmp(key, "step", 4) == 0);
    tfckpt_error_free(error);
    error = NULL;

    /* A file that is too short. */
    CHECK(truncate(data, 20) == 0);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_OUT_OF_RANGE, error,
                "Read less bytes than requested");
    /* One that is gone. */
    CHECK(remove(data) == 0);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_NOT_FOUND, error,
                ".data-00000-of-00001; No such file or directory");
    /* An index that is none: the last 8 bytes are its magic number. */
    path_in(data, dir, "damaged.index");
    flip_bit(data, file_size(data) - 1);
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_DATA_LOSS, error, "");
}

/* With an array of codes, every tensor is tried and has a code of its own. */
static void codes_of_each_tensor(const char *prefix)
{
    struct model model;
    float bias[4], wrong[4];
    tfckpt_tensor tensors[4];
    tfckpt_code codes[4] = {99, 99, 99, 99};
    tfckpt_error *error = NULL;

    memset(&model, 0, sizeof model);
    describe(&model, tensors);
    tensors[3] = tensors[1];
    tensors[1] = host_tensor("bias", TFCKPT_DTYPE_FLOAT, 1, FOUR, bias, sizeof bias);
    tensors[2] = host_tensor("step", TFCKPT_DTYPE_FLOAT, 1, FOUR, wrong, sizeof wrong);
    CHECK(tfckpt_restore(prefix, tensors, 4, NULL, codes, &error) == TFCKPT_NOT_FOUND);
    CHECK(tfckpt_error_tensor_index(error) == 1); /* the first that failed */
    tfckpt_error_free(error);
    error = NULL;
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_NOT_FOUND);
    CHECK(codes[2] == TFCKPT_INVALID_ARGUMENT && codes[3] == TFCKPT_OK);
    CHECK(model.weights[0] == 1 && model.weights[3] == 4 && model.step == 5);

    describe(&model, tensors);
    codes[0] = codes[1] = 99;
    CHECK_OK(tfckpt_restore(prefix, tensors, 2, NULL, codes, &error), error);
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_OK);
}

/* Whatever stops a save, the checkpoint of the same name that was there before stays. */
static void a_failed_save_changes_nothing(const char *dir)
{
    char only[PATH_SIZE], prefix[PATH_SIZE];
    struct model model = {{9, 9, 9, 9}, 9};
    tfckpt_tensor tensors[2];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    char *prefix_out = NULL;
    uint64_t before;

    path_in(only, dir, "only");
    CHECK(mkdir(only, 0777) == 0);
    path_in(prefix, only, "model.ckpt");
    save_model(prefix);
    before = folder_digest(only);
    options.update_state = 1;

    describe(&model, tensors);
    tensors[1] = tensors[0];
    CHECK_FAILS(tfckpt_save(prefix, tensors, 2, &options, &prefix_out, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Adding duplicate key: weights");
    CHECK(prefix_out == NULL && folder_digest(only) == before);

    describe(&model, tensors);
    tensors[1].size = 4;
    CHECK_FAILS(tfckpt_save(prefix, tensors, 2, &options, &prefix_out, &error), TFCKPT_INVALID_ARGUMENT, error, "");
    CHECK(prefix_out == NULL && folder_digest(only) == before);

    /* A folder that may not be written. Root may write everywhere. */
    if (geteuid() != 0) {
        describe(&model, tensors);
        CHECK(chmod(only, 0555) == 0);
        CHECK_FAILS(tfckpt_save(prefix, tensors, 2, &options, &prefix_out, &error), TFCKPT_PERMISSION_DENIED, error,
                    "");
        CHECK(chmod(only, 0777) == 0);
        CHECK(prefix_out == NULL && folder_digest(only) == before);
    }

    /* A folder that a file is in the way of. */
    path_in(prefix, only, "model.ckpt.index/model.ckpt");
    describe(&model, tensors);
    CHECK(tfckpt_save(prefix, tensors, 2, NULL, NULL, &error) != TFCKPT_OK);
    CHECK(error != NULL);
    tfckpt_error_free(error);
    CHECK(folder_digest(only) == before);
}

/* Two tensors may not be restored into the same bytes. */
static void destinations_may_not_overlap(const char *prefix)
{
    struct model model;
    tfckpt_tensor tensors[2];
    tfckpt_error *error = NULL;

    describe(&model, tensors);
    tensors[1].data = &model.weights[3]; /* 8 bytes, of which the first 4 belong to "weights" */
    CHECK_FAILS(tfckpt_restore(prefix, tensors, 2, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "");
}

/* Descriptions that make no sense are refused by save and restore alike, and by the former before it writes a byte. */
static void refused(const char *dir, const char *prefix, tfckpt_tensor tensor, tfckpt_code code)
{
    uint64_t before = folder_digest(dir);
    tfckpt_error *error = NULL;

    CHECK_FAILS(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), code, error, "");
    CHECK(folder_digest(dir) == before);
    CHECK_FAILS(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), code, error, "");
}

static void descriptions_that_make_no_sense(const char *dir, const char *prefix)
{
    static const int64_t negative[] = {-4}, huge[] = {INT64_MAX, 2};
    float weights[4] = {0, 0, 0, 0};
    const tfckpt_tensor good = host_tensor("weights", TFCKPT_DTYPE_FLOAT, 1, FOUR, weights, sizeof weights);
    tfckpt_tensor bad;

    bad = good, bad.size = 15;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.size = 20;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.rank = -1;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.rank = 255;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.shape = NULL;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.shape = negative;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.shape = huge, bad.rank = 2;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.data = NULL;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.key = NULL;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.key_size = 0;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.dtype = 0;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.dtype = 99;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.dtype = -1;
    refused(dir, prefix, bad, TFCKPT_INVALID_ARGUMENT);
    bad = good, bad.flags = 1u << 31; /* a flag of a later version */
    refused(dir, prefix, bad, TFCKPT_UNIMPLEMENTED);
}

/* A resource is a handle inside a running program, and a variant has no layout that other programs know. */
static void dtypes_that_are_not_data(const char *dir, const char *prefix)
{
    float weights[4] = {0, 0, 0, 0};

    refused(dir, prefix, host_tensor("weights", TFCKPT_DTYPE_RESOURCE, 1, FOUR, weights, sizeof weights),
            TFCKPT_UNIMPLEMENTED);
    refused(dir, prefix, host_tensor("weights", TFCKPT_DTYPE_VARIANT, 1, FOUR, weights, sizeof weights),
            TFCKPT_UNIMPLEMENTED);
}

/* TensorFlow's texts for each kind of mistake in a slice_spec. */
static void slice_specs_that_make_no_sense(const char *dir)
{
    static const struct {
        const char *spec;
        tfckpt_code code;
        const char *text;
    } cases[] = {
        {"4 6", TFCKPT_INVALID_ARGUMENT, "Expected a pair of numbers or '-' but got '6': string = 6"},
        {"4 6 a,b:-", TFCKPT_INVALID_ARGUMENT, "Expected a pair of numbers or '-' but got 'a,b': string = a,b:-"},
        {"4 6 0,0:-", TFCKPT_INVALID_ARGUMENT,
         "Expected non-negative start and positive length but got start = 0, length = 0: string = 0,0:-"},
        {"4 6 -1,2:-", TFCKPT_INVALID_ARGUMENT,
         "Expected non-negative start and positive length but got start = -1, length = 2: string = -1,2:-"},
        {"4 x 0,2:-", TFCKPT_INVALID_ARGUMENT, "Non numerical dimension in shape_and_slice: 4 x 0,2:-"},
        {"4  6 0,2:-", TFCKPT_INVALID_ARGUMENT, "Non numerical dimension in shape_and_slice: 4  6 0,2:-"},
        {" ", TFCKPT_INVALID_ARGUMENT, "Non numerical dimension in shape_and_slice:  "},
        {"-", TFCKPT_INVALID_ARGUMENT, "Need least two elements in shape_and_slice specification: -"},
        {"4 6 0,2", TFCKPT_INTERNAL, "Mismatching ranks: shape = [4,6], slice = 0,2"},
        {"4 6 0,5:-", TFCKPT_INTERNAL,
         "Extent in dimension 0 out of bounds: shape = [4,6], slice = 0,5:-"},
        {"4 6 0,3:-", TFCKPT_INVALID_ARGUMENT,
         "Slice in shape_and_slice specification does not match the shape of the tensor to  save: 4 6 0,3:-, "
         "tensor: [2,6]"},
        {"-4 6 0,2:-", TFCKPT_INVALID_ARGUMENT, ""}, /* TensorFlow ends the process here */
    };
    static const int64_t two_by_six[] = {2, 6};
    char prefix[PATH_SIZE];
    float table[12] = {0};
    tfckpt_tensor tensor = host_tensor("table", TFCKPT_DTYPE_FLOAT, 2, two_by_six, table, sizeof table);
    tfckpt_error *error = NULL;
    uint64_t before = folder_digest(dir);

    path_in(prefix, dir, "sliced");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        tensor.slice_spec = cases[i].spec;
        CHECK_FAILS(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), cases[i].code, error, cases[i].text);
    }
    CHECK(folder_digest(dir) == before);

    /* What TensorFlow lets pass. */
    tensor.slice_spec = "4 6 0,2:-:";
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);

    /* Half of a tensor was saved; the other half cannot be restored. */
    tensor.slice_spec = "4 6 1,2:-";
    CHECK_FAILS(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error,
                "Does not have sufficient slices for partitioned tensor table to restore in slice_spec: 1,2:-");
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], models[PATH_SIZE], prefix[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    path_in(models, dir, "models"); /* a folder with the one good checkpoint */
    CHECK(mkdir(models, 0777) == 0);
    path_in(prefix, models, "model.ckpt");
    save_model(prefix);
    requests_that_do_not_fit(prefix);
    a_missing_key_is_named(prefix);
    prefixes_that_are_none(models, prefix);
    codes_of_each_tensor(prefix);
    destinations_may_not_overlap(prefix);
    descriptions_that_make_no_sense(models, prefix);
    dtypes_that_are_not_data(models, prefix);
    slice_specs_that_make_no_sense(models);
    damage_is_located(dir);
    a_failed_save_changes_nothing(dir);
    remove_scratch_folder(dir);
    return 0;
}
