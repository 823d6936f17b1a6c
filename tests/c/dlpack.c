/* Saves a tensor of another library's, and restores into it; then lets this library allocate, and hands tensors over. */
#include "check.h"
#include "dl_tensor.h"

#include <pthread.h>

/* ---- In ---- */

/* A tensor as another library would lend it: it owns nothing, so that it has no deleter. */
static DLManagedTensorVersioned lend(void *data, uint8_t code, uint8_t bits, int32_t ndim, int64_t *shape)
{
    DLManagedTensorVersioned managed;

    memset(&managed, 0, sizeof managed);
    managed.version.major = 1;
    managed.dl_tensor.data = data;
    managed.dl_tensor.device.device_type = kDLCPU;
    managed.dl_tensor.dtype.code = code;
    managed.dl_tensor.dtype.bits = bits;
    managed.dl_tensor.dtype.lanes = 1;
    managed.dl_tensor.ndim = ndim;
    managed.dl_tensor.shape = shape;
    return managed;
}

static tfckpt_code describe(const DLManagedTensorVersioned *managed, int for_restore, const char *key,
                            tfckpt_tensor *tensor, tfckpt_error **error)
{
    tfckpt_tensor described = TFCKPT_TENSOR_INIT;

    described.key = key;
    described.key_size = strlen(key);
    *tensor = described;
    return tfckpt_tensor_from_dlpack(managed, for_restore, tensor, error);
}

/* Rows 1 and 2 of a matrix of 4 rows, which are contiguous; its columns are not. */
static void save_and_restore_lent_tensors(const char *prefix)
{
    float matrix[4][3] = {{0, 1, 2}, {3, 4, 5}, {6, 7, 8}, {9, 10, 11}};
    float read[2][3] = {{0}};
    int64_t shape[] = {2, 3}, strides[] = {3, 1}, transposed[] = {1, 3};
    DLManagedTensorVersioned rows = lend(matrix, kDLFloat, 32, 2, shape);
    DLManagedTensorVersioned to = lend(read, kDLFloat, 32, 2, shape);
    tfckpt_tensor tensor;
    tfckpt_error *error = NULL;

    rows.dl_tensor.strides = strides;
    rows.dl_tensor.byte_offset = sizeof matrix[0];
    rows.flags = DLPACK_FLAG_BITMASK_READ_ONLY; /* a save only reads */
    CHECK_OK(describe(&rows, 0, "rows", &tensor, &error), error);
    CHECK(tensor.dtype == TFCKPT_DTYPE_FLOAT && tensor.rank == 2 && tensor.data == matrix[1] && tensor.size == 24);
    CHECK_OK(tfckpt_save(prefix, &tensor, 1, NULL, NULL, &error), error);

    CHECK_OK(describe(&to, 1, "rows", &tensor, &error), error);
    CHECK_OK(tfckpt_restore(prefix, &tensor, 1, NULL, NULL, &error), error);
    CHECK(memcmp(read, matrix[1], sizeof read) == 0);

    CHECK_FAILS(describe(&rows, 1, "rows", &tensor, &error), TFCKPT_INVALID_ARGUMENT, error, "read-only");
    rows.dl_tensor.strides = transposed;
    CHECK_FAILS(describe(&rows, 0, "rows", &tensor, &error), TFCKPT_INVALID_ARGUMENT, error, "not contiguous");
    CHECK(tensor.data == NULL && tensor.key_size == 4);
    to.dl_tensor.device.device_type = kDLROCM;
    CHECK_FAILS(describe(&to, 1, "rows", &tensor, &error), TFCKPT_UNIMPLEMENTED, error, "device_type=10");
    to = lend(read, kDLInt, 4, 2, shape); /* two elements to a byte: not so in a checkpoint */
    CHECK_FAILS(describe(&to, 1, "rows", &tensor, &error), TFCKPT_UNIMPLEMENTED, error, "a byte for each");
    to.flags = DLPACK_FLAG_BITMASK_IS_SUBBYTE_TYPE_PADDED;
    CHECK_OK(describe(&to, 1, "rows", &tensor, &error), error);
    CHECK(tensor.dtype == TFCKPT_DTYPE_INT4 && tensor.size == 6);
    CHECK_FAILS(tfckpt_dlpack_stream_wait(&to, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "not handed out");
    CHECK_FAILS(tfckpt_dlpack_stream_wait(NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "managed");
    CHECK_FAILS(tfckpt_tensor_from_dlpack(NULL, 1, &tensor, &error), TFCKPT_INVALID_ARGUMENT, error, "managed");
    CHECK_FAILS(tfckpt_tensor_from_dlpack(&to, 1, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, "tensor");
}

/* ---- Out ---- */

enum { BIG = 3 << 20, NUM = 5 };

static int8_t big_value(size_t i)
{
    return (int8_t)(i * 31 + i / 4096);
}

/* "weight" of shape [2,3], the scalar "step", "none" without elements, "big" of 3 MiB, and strings. */
static void save_model(const char *prefix)
{
    static int8_t big[BIG];
    static const int64_t weight_shape[] = {2, 3}, none_shape[] = {4, 0, 2}, big_shape[] = {BIG};
    float weight[] = {0, 1, 2, 3, 4, 5};
    int64_t step = 1234567890123;
    tfckpt_string name = {"name", 4};
    tfckpt_tensor tensors[NUM];
    tfckpt_error *error = NULL;

    for (size_t i = 0; i < BIG; i++)
        big[i] = big_value(i);
    tensors[0] = host_tensor("weight", TFCKPT_DTYPE_FLOAT, 2, weight_shape, weight, sizeof weight);
    tensors[1] = host_tensor("step", TFCKPT_DTYPE_INT64, 0, NULL, &step, sizeof step);
    tensors[2] = host_tensor("none", TFCKPT_DTYPE_HALF, 3, none_shape, NULL, 0);
    tensors[3] = host_tensor("big", TFCKPT_DTYPE_INT8, 1, big_shape, big, sizeof big);
    tensors[4] = host_tensor("name", TFCKPT_DTYPE_STRING, 0, NULL, &name, sizeof name);
    CHECK_OK(tfckpt_save(prefix, tensors, NUM, NULL, NULL, &error), error);
}

static tfckpt_reader *open_reader(const char *prefix)
{
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    CHECK_OK(tfckpt_reader_open(prefix, NULL, &reader, &error), error);
    return reader;
}

static void ask_for(tfckpt_dlpack_request *request, const char *key, const char *slice_spec)
{
    tfckpt_dlpack_request init = TFCKPT_DLPACK_REQUEST_INIT;

    *request = init;
    request->key = key;
    request->key_size = strlen(key);
    request->slice_spec = slice_spec;
}

static void ask_for_all(tfckpt_dlpack_request requests[4])
{
    ask_for(&requests[0], "weight", NULL);
    ask_for(&requests[1], "step", NULL);
    ask_for(&requests[2], "none", NULL);
    ask_for(&requests[3], "big", NULL);
}

/* What every tensor that is handed out keeps to. */
static void check_form(const DLManagedTensorVersioned *managed, uint8_t code, uint8_t bits, int32_t ndim)
{
    const DLTensor *tensor = &managed->dl_tensor;
    int64_t elements = 1;

    CHECK(managed->version.major == 1 && managed->deleter != NULL && managed->flags == 0);
    CHECK(tensor->device.device_type == kDLCPU && tensor->device.device_id == 0);
    CHECK(tensor->dtype.code == code && tensor->dtype.bits == bits && tensor->dtype.lanes == 1);
    CHECK(tensor->ndim == ndim && tensor->byte_offset == 0);
    for (int32_t i = ndim - 1; i >= 0; i--) {
        CHECK(tensor->strides[i] == elements || elements == 0);
        elements *= tensor->shape[i];
    }
    if (elements == 0)
        CHECK(tensor->data == NULL);
    else
        CHECK(tensor->data != NULL && (uintptr_t)tensor->data % 256 == 0);
}

/* A consumer as NumPy is one: it goes by the strides alone. */
static double element(const DLManagedTensorVersioned *managed, int64_t i, int64_t j)
{
    const DLTensor *tensor = &managed->dl_tensor;
    const char *start = (const char *)tensor->data + tensor->byte_offset;
    float value;

    memcpy(&value, start + (i * tensor->strides[0] + j * tensor->strides[1]) * tensor->dtype.bits / 8, sizeof value);
    return value;
}

static void check_all(DLManagedTensorVersioned *const tensors[4])
{
    int64_t step;
    size_t i = 0;

    check_form(tensors[0], kDLFloat, 32, 2);
    CHECK(element(tensors[0], 0, 1) == 1 && element(tensors[0], 1, 2) == 5);
    check_form(tensors[1], kDLInt, 64, 0);
    memcpy(&step, tensors[1]->dl_tensor.data, sizeof step);
    CHECK(step == 1234567890123);
    check_form(tensors[2], kDLFloat, 16, 3);
    CHECK(tensors[2]->dl_tensor.shape[0] == 4 && tensors[2]->dl_tensor.shape[1] == 0);
    check_form(tensors[3], kDLInt, 8, 1);
    CHECK(tensors[3]->dl_tensor.shape[0] == BIG);
    while (i < BIG && ((const int8_t *)tensors[3]->dl_tensor.data)[i] == big_value(i))
        i++;
    CHECK(i == BIG);
}

static void delete_tensor(DLManagedTensorVersioned *managed)
{
    if (managed != NULL)
        managed->deleter(managed);
}

static void *use_and_delete(void *argument)
{
    DLManagedTensorVersioned **tensors = (DLManagedTensorVersioned **)argument;

    check_all(tensors);
    for (int i = 3; i >= 0; i--)
        delete_tensor(tensors[i]);
    return NULL;
}

/* The tensors outlive the reader and the thread that asked for them. */
static void hand_over(const char *prefix, uint64_t max_slab_size)
{
    tfckpt_dlpack_request requests[4];
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    DLManagedTensorVersioned *tensors[4];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_error *error = NULL;
    pthread_t thread;

    ask_for_all(requests);
    options.max_slab_size = max_slab_size;
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, 4, &options, tensors, NULL, &error), error);
    tfckpt_reader_free(reader);
    CHECK_OK(tfckpt_dlpack_stream_wait(tensors[0], NULL, &error), error); /* for what is not there on the host */
    CHECK(pthread_create(&thread, NULL, use_and_delete, tensors) == 0);
    CHECK(pthread_join(thread, NULL) == 0);
}

/* A slice of a tensor is a tensor of its own; a tensor may be asked for more than once. */
static void hand_over_slices(const char *prefix)
{
    tfckpt_dlpack_request requests[3];
    DLManagedTensorVersioned *tensors[3];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_error *error = NULL;

    ask_for(&requests[0], "weight", "2 3 -:1,2");
    ask_for(&requests[1], "weight", "2 3 1,1:-");
    ask_for(&requests[2], "weight", "");
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, 3, NULL, tensors, NULL, &error), error);
    check_form(tensors[0], kDLFloat, 32, 2);
    CHECK(tensors[0]->dl_tensor.shape[0] == 2 && tensors[0]->dl_tensor.shape[1] == 2);
    CHECK(element(tensors[0], 0, 0) == 1 && element(tensors[0], 1, 1) == 5);
    CHECK(tensors[1]->dl_tensor.shape[0] == 1 && element(tensors[1], 0, 0) == 3);
    CHECK(element(tensors[2], 1, 0) == 3);
    for (int i = 0; i < 3; i++)
        delete_tensor(tensors[i]);

    ask_for(&requests[0], "weight", "2 4 -:1,2");
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 3, NULL, tensors, NULL, &error), TFCKPT_INVALID_ARGUMENT,
                error, "does not match the shape");
    CHECK(tensors[0] == NULL && tensors[1] == NULL && tensors[2] == NULL);
    tfckpt_reader_free(reader);
}

/* With codes, what cannot be had does not keep the others; without, there is all or nothing. */
static void hand_over_what_there_is(const char *prefix)
{
    tfckpt_dlpack_request requests[5];
    DLManagedTensorVersioned *tensors[5];
    tfckpt_code codes[5];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_error *error = NULL;

    ask_for_all(requests);
    requests[4] = requests[1];
    ask_for(&requests[1], "name", NULL);
    ask_for(&requests[2], "nobody", NULL);
    requests[4].device_type = 99;
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 5, NULL, tensors, codes, &error), TFCKPT_UNIMPLEMENTED,
                error, "DLPack has no such data type; dtype=string [tensor=name");
    CHECK(codes[0] == TFCKPT_OK && codes[1] == TFCKPT_UNIMPLEMENTED && codes[2] == TFCKPT_NOT_FOUND);
    CHECK(codes[3] == TFCKPT_OK && codes[4] == TFCKPT_UNIMPLEMENTED);
    CHECK(tensors[1] == NULL && tensors[2] == NULL && tensors[4] == NULL);
    CHECK(element(tensors[0], 0, 1) == 1);
    delete_tensor(tensors[0]);
    CHECK(((const int8_t *)tensors[3]->dl_tensor.data)[BIG - 1] == big_value(BIG - 1));
    delete_tensor(tensors[3]);

    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 5, NULL, tensors, NULL, &error), TFCKPT_NOT_FOUND, error,
                "Key nobody not found");
    for (int i = 0; i < 5; i++)
        CHECK(tensors[i] == NULL);
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, NULL, 0, NULL, NULL, NULL, &error), error);
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 1, NULL, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT,
                error, "tensors_out");
    CHECK_FAILS(tfckpt_reader_restore_dlpack(NULL, requests, 1, NULL, tensors, NULL, &error), TFCKPT_INVALID_ARGUMENT,
                error, "reader");
    tfckpt_reader_free(reader);
}

/* The memory of a tensor whose checksum differs goes back; the others are handed over. */
static void find_damage(const char *dir, const char *prefix)
{
    tfckpt_dlpack_request requests[4];
    DLManagedTensorVersioned *tensors[4];
    tfckpt_code codes[4];
    char data[PATH_SIZE];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_error *error = NULL;

    path_in(data, dir, "model.data-00000-of-00001");
    flip_bit(data, 100); /* of "big" */
    ask_for_all(requests);
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 4, NULL, tensors, codes, &error), TFCKPT_DATA_LOSS, error,
                "big");
    CHECK(codes[3] == TFCKPT_DATA_LOSS && tensors[3] == NULL && codes[0] == TFCKPT_OK);
    for (int i = 0; i < 4; i++)
        delete_tensor(tensors[i]);
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 4, NULL, tensors, NULL, &error), TFCKPT_DATA_LOSS, error,
                "big");
    for (int i = 0; i < 4; i++)
        CHECK(tensors[i] == NULL);
    flip_bit(data, 100);
    tfckpt_reader_free(reader);
}

/* ---- The caller's memory ---- */

struct pool {
    int calls_left; /* before there is no memory */
    int allocations;
    size_t bytes;
};

static void *pool_alloc(size_t size, size_t alignment, int32_t device_type, int32_t device_id, void *stream,
                        void *user_data)
{
    struct pool *pool = (struct pool *)user_data;
    void *memory = NULL;

    CHECK(device_type == TFCKPT_DEVICE_HOST && device_id == 0 && stream == NULL && alignment == 256);
    if (pool->calls_left-- == 0 || posix_memalign(&memory, alignment, size) != 0)
        return NULL;
    pool->allocations++;
    pool->bytes += size;
    return memory;
}

static void pool_free(void *data, size_t size, int32_t device_type, int32_t device_id, void *stream, void *user_data)
{
    struct pool *pool = (struct pool *)user_data;

    CHECK(device_type == TFCKPT_DEVICE_HOST && device_id == 0 && stream == NULL);
    pool->allocations--;
    pool->bytes -= size;
    free(data);
}

static void hand_over_from_a_pool(const char *prefix)
{
    struct pool pool = {-1, 0, 0};
    tfckpt_dlpack_request requests[4];
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    DLManagedTensorVersioned *tensors[4];
    tfckpt_code codes[4];
    tfckpt_reader *reader = open_reader(prefix);
    tfckpt_error *error = NULL;
    int rounds = 0;

    ask_for_all(requests);
    options.alloc = pool_alloc;
    options.free = pool_free;
    options.user_data = &pool;
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, 4, &options, tensors, NULL, &error), error);
    CHECK(pool.allocations == 1 && pool.bytes == 256 + 256 + BIG);
    check_all(tensors);
    delete_tensor(tensors[3]);
    delete_tensor(tensors[2]);
    delete_tensor(tensors[0]);
    CHECK(pool.allocations == 1); /* the last tensor in it keeps it */
    delete_tensor(tensors[1]);
    CHECK(pool.allocations == 0 && pool.bytes == 0);

    options.max_slab_size = 1;
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, 4, &options, tensors, NULL, &error), error);
    CHECK(pool.allocations == 3);
    check_all(tensors);
    delete_tensor(tensors[3]);
    CHECK(pool.allocations == 2 && pool.bytes == 512);
    for (int i = 0; i < 3; i++)
        delete_tensor(tensors[i]);
    CHECK(pool.allocations == 0);

    /* Each of the allocations fails in turn. */
    for (pool.calls_left = 0; rounds < 3; pool.calls_left = ++rounds) {
        CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 4, &options, tensors, codes, &error),
                    TFCKPT_RESOURCE_EXHAUSTED, error, "alloc");
        for (int i = 0; i < 4; i++)
            CHECK(tensors[i] == NULL && codes[i] == TFCKPT_ABORTED);
        CHECK(pool.allocations == 0);
    }
    options.free = NULL;
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 4, &options, tensors, NULL, &error),
                TFCKPT_INVALID_ARGUMENT, error, "alloc and free");
    tfckpt_reader_free(reader);
}

/* An index that promises more than the data file holds gets no memory. */
static void ask_for_what_is_cut_off(const char *dir, const char *prefix)
{
    struct pool pool = {5, 0, 0};
    tfckpt_dlpack_request request;
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    DLManagedTensorVersioned *tensor;
    tfckpt_code code;
    char data[PATH_SIZE];
    tfckpt_reader *reader;
    tfckpt_error *error = NULL;

    path_in(data, dir, "model.data-00000-of-00001");
    CHECK(truncate(data, 4096) == 0);
    reader = open_reader(prefix);
    ask_for(&request, "big", NULL);
    options.alloc = pool_alloc;
    options.free = pool_free;
    options.user_data = &pool;
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, &request, 1, &options, &tensor, &code, &error), TFCKPT_OUT_OF_RANGE,
                error, "model.data-00000-of-00001");
    CHECK(code == TFCKPT_OUT_OF_RANGE && tensor == NULL && pool.calls_left == 5);
    tfckpt_reader_free(reader);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], prefix[PATH_SIZE];

    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "lent");
    save_and_restore_lent_tensors(prefix);
    path_in(prefix, dir, "model");
    save_model(prefix);
    hand_over(prefix, 0);
    hand_over(prefix, 1);
    hand_over(prefix, 1000);
    hand_over_slices(prefix);
    hand_over_what_there_is(prefix);
    hand_over_from_a_pool(prefix);
    find_damage(dir, prefix);
    ask_for_what_is_cut_off(dir, prefix);
    remove_scratch_folder(dir);
    return 0;
}
