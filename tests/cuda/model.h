/* A model for the CUDA test programs: tensors whose bytes are known, and memory for them on the host and on devices. */
#ifndef TFCKPT_TESTS_MODEL_H
#define TFCKPT_TESTS_MODEL_H

#include "gpu.h"

enum { MODEL_SIZE = 512, HOST = -1, NONE = -1 };

struct member {
    char key[32];
    int32_t dtype, rank;
    int64_t shape[2];
    size_t size;
    unsigned char *bytes; /* what belongs in it */
    int device;           /* where its memory is: HOST or the number of a device */
    unsigned char *host;  /* that memory */
    gpu_address address;  /* or this */
};

/* Large: keep it static. */
struct model {
    size_t num;
    struct member members[MODEL_SIZE];
    tfckpt_tensor tensors[MODEL_SIZE]; /* filled by model_in_place and model_at_home */
};

/* Adds a tensor of shape [rows, columns]; [rows] if columns are NONE, a scalar if rows are, too. */
static inline void model_add(struct model *model, const char *key, int32_t dtype, int64_t rows, int64_t columns, int device)
{
    struct member *member = &model->members[model->num++];
    size_t count = (rows == NONE ? 1 : (size_t)rows) * (columns == NONE ? 1 : (size_t)columns);

    CHECK(model->num <= MODEL_SIZE && strlen(key) < sizeof member->key);
    memset(member, 0, sizeof *member);
    strcpy(member->key, key);
    member->dtype = dtype;
    member->rank = (rows != NONE) + (columns != NONE);
    member->shape[0] = rows;
    member->shape[1] = columns;
    member->size = count * tfckpt_dtype_size(dtype);
    member->bytes = (unsigned char *)allocate(member->size);
    fill(member->bytes, member->size, model->num);
    member->device = device;
    if (device == HOST) {
        member->host = (unsigned char *)allocate(member->size);
        memset(member->host, POISON, member->size);
    } else {
        gpu_use(device);
        member->address = gpu_alloc(member->size);
        gpu_use(0);
    }
}

/* A model that has a bit of everything: dtypes, ranks, sizes, an empty tensor; every third one on the host, unless
 * `num_devices` are to take all. */
static inline void model_of_all_kinds(struct model *model, int num_devices, int with_host)
{
    static const int32_t dtypes[] = {TFCKPT_DTYPE_FLOAT, TFCKPT_DTYPE_BFLOAT16, TFCKPT_DTYPE_INT8,
                                     TFCKPT_DTYPE_BOOL,  TFCKPT_DTYPE_INT64,    TFCKPT_DTYPE_COMPLEX128,
                                     TFCKPT_DTYPE_HALF,  TFCKPT_DTYPE_DOUBLE,   TFCKPT_DTYPE_FLOAT8_E4M3FN,
                                     TFCKPT_DTYPE_UINT32};
    static const int64_t rows[] = {500, 77, 13, 5, NONE, 3, 70001, 0, 1 << 20, 300};
    static const int64_t columns[] = {3000, NONE, NONE, 3, NONE, NONE, NONE, 4, 3, 300};

    memset(model, 0, sizeof *model);
    for (int i = 0; i < 10; i++) {
        char key[32];

        snprintf(key, sizeof key, "layer_%d/kernel", i);
        model_add(model, key, dtypes[i], rows[i], columns[i], with_host && i % 3 == 1 ? HOST : i % num_devices);
    }
    for (size_t i = 0; i < model->num; i++) /* a bool is 0 or 1 */
        for (size_t b = 0; model->members[i].dtype == TFCKPT_DTYPE_BOOL && b < model->members[i].size; b++)
            model->members[i].bytes[b] &= 1;
}

/* Bytes of the tensors on devices: what is copied from or to them. */
static inline uint64_t model_device_bytes(const struct model *model)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < model->num; i++)
        if (model->members[i].device != HOST)
            bytes += model->members[i].size;
    return bytes;
}

/* The tensors in their memory, wherever that is. */
static inline const tfckpt_tensor *model_in_place(struct model *model)
{
    for (size_t i = 0; i < model->num; i++) {
        struct member *it = &model->members[i];

        model->tensors[i] = it->device == HOST
                                ? host_tensor(it->key, it->dtype, it->rank, it->shape, it->host, it->size)
                                : device_tensor(it->key, it->dtype, it->rank, it->shape, it->device, it->address, it->size);
    }
    return model->tensors;
}

/* The same tensors with all their bytes on the host. */
static inline const tfckpt_tensor *model_at_home(struct model *model)
{
    for (size_t i = 0; i < model->num; i++) {
        struct member *it = &model->members[i];

        model->tensors[i] = host_tensor(it->key, it->dtype, it->rank, it->shape, it->bytes, it->size);
    }
    return model->tensors;
}

/* Puts the bytes that belong there into the tensors' memory, or poison. */
static inline void model_put(struct model *model, int poison)
{
    for (size_t i = 0; i < model->num; i++) {
        struct member *it = &model->members[i];

        if (it->device == HOST) {
            if (poison)
                memset(it->host, POISON, it->size);
            else
                memcpy(it->host, it->bytes, it->size);
            continue;
        }
        gpu_use(it->device);
        if (poison)
            gpu_set(it->address, POISON, it->size);
        else
            gpu_write(it->address, it->bytes, it->size);
    }
    gpu_use(0);
}

/* Whether tensor i holds what belongs there, or poison. */
static inline int model_holds(const struct model *model, size_t i, int poison)
{
    const struct member *it = &model->members[i];
    int holds = 1;

    if (it->device == HOST) {
        for (size_t b = 0; b < it->size && holds; b++)
            holds = it->host[b] == (poison ? POISON : it->bytes[b]);
    } else {
        gpu_use(it->device);
        holds = gpu_holds(it->address, poison ? NULL : it->bytes, it->size);
        gpu_use(0);
    }
    if (!holds)
        fprintf(stderr, "tensor %s is not what it should be\n", it->key);
    return holds;
}

static inline int model_is_complete(const struct model *model)
{
    int holds = 1;

    for (size_t i = 0; i < model->num; i++)
        holds = model_holds(model, i, 0) && holds;
    return holds;
}

/* Saves the model from its bytes on the host. */
static inline void model_save(struct model *model, const char *prefix)
{
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;

    options.no_sync = 1;
    CHECK_OK(tfckpt_save(prefix, model_at_home(model), model->num, &options, NULL, &error), error);
}

/* Checks that a checkpoint holds the model, by a restore to the host. */
static inline void model_check_checkpoint(struct model *model, const char *prefix)
{
    tfckpt_tensor tensors[MODEL_SIZE];
    tfckpt_error *error = NULL;

    memcpy(tensors, model_at_home(model), model->num * sizeof *tensors);
    for (size_t i = 0; i < model->num; i++)
        tensors[i].data = allocate(tensors[i].size);
    CHECK_OK(tfckpt_restore(prefix, tensors, model->num, NULL, NULL, &error), error);
    for (size_t i = 0; i < model->num; i++) {
        CHECK(memcmp(tensors[i].data, model->members[i].bytes, tensors[i].size) == 0);
        free(tensors[i].data);
    }
}

static inline void model_free(struct model *model)
{
    for (size_t i = 0; i < model->num; i++) {
        struct member *it = &model->members[i];

        if (it->address != 0) {
            gpu_use(it->device);
            CU(gpu.cuMemFree(it->address));
            gpu_use(0);
        }
        free(it->host);
        free(it->bytes);
    }
    model->num = 0;
}

#endif
