/* DLPack on GPUs: another library's tensor as source and destination, and tensors in memory that this library allocates,
 * or that the caller's pool has. */
#include "model.h"

#include "../c/dl_tensor.h"

#include <pthread.h>

typedef DLManagedTensorVersioned managed_tensor;

static struct model model;
static char prefix[PATH_SIZE];

/* ---- In ---- */

static managed_tensor lend(const struct member *member, int64_t shape[2])
{
    managed_tensor managed;

    memset(&managed, 0, sizeof managed);
    managed.version.major = 1;
    managed.dl_tensor.data = (void *)(uintptr_t)(member->address - 256);
    managed.dl_tensor.byte_offset = 256;
    managed.dl_tensor.device.device_type = kDLCUDA;
    managed.dl_tensor.device.device_id = member->device;
    managed.dl_tensor.dtype.code = kDLFloat;
    managed.dl_tensor.dtype.bits = 32;
    managed.dl_tensor.dtype.lanes = 1;
    managed.dl_tensor.ndim = 2;
    managed.dl_tensor.shape = shape;
    memcpy(shape, member->shape, sizeof member->shape);
    return managed;
}

/* A tensor in device memory of somebody else's is saved, and restored to. */
static void lend_device_tensors(const char *saved)
{
    struct member *member = &model.members[0];
    int64_t shape[2];
    managed_tensor managed = lend(member, shape);
    tfckpt_tensor tensor = TFCKPT_TENSOR_INIT;
    tfckpt_error *error = NULL;

    tensor.key = member->key;
    tensor.key_size = strlen(member->key);
    CHECK_OK(tfckpt_tensor_from_dlpack(&managed, 1, &tensor, &error), error);
    CHECK(tensor.device_type == TFCKPT_DEVICE_CUDA && tensor.dtype == TFCKPT_DTYPE_FLOAT && tensor.size == member->size);
    model_put(&model, 0);
    CHECK_OK(tfckpt_save(saved, &tensor, 1, NULL, NULL, &error), error);
    model_put(&model, 1);
    CHECK_OK(tfckpt_restore(saved, &tensor, 1, NULL, NULL, &error), error);
    CHECK(model_holds(&model, 0, 0));

    if (gpu.num_devices >= 2) { /* what DLPack says of the device is checked */
        managed.dl_tensor.device.device_id = 1 - member->device;
        CHECK_OK(tfckpt_tensor_from_dlpack(&managed, 1, &tensor, &error), error);
        CHECK_FAILS(tfckpt_restore(saved, &tensor, 1, NULL, NULL, &error), TFCKPT_INVALID_ARGUMENT, error, member->key);
    }
}

/* ---- Out ---- */

static tfckpt_dlpack_request requests[MODEL_SIZE];
static managed_tensor *tensors[MODEL_SIZE];
static tfckpt_code codes[MODEL_SIZE];

static void ask_for_all(gpu_stream stream)
{
    for (size_t i = 0; i < model.num; i++) {
        tfckpt_dlpack_request request = TFCKPT_DLPACK_REQUEST_INIT;
        const struct member *member = &model.members[i];

        request.key = member->key;
        request.key_size = strlen(member->key);
        request.device_type = member->device == HOST ? TFCKPT_DEVICE_HOST : TFCKPT_DEVICE_CUDA;
        request.device_id = member->device == HOST ? 0 : member->device;
        request.stream = member->device == HOST ? NULL : stream;
        requests[i] = request;
    }
}

static tfckpt_reader *open_reader(const tfckpt_context *context)
{
    tfckpt_reader_options options = TFCKPT_READER_OPTIONS_INIT;
    tfckpt_reader *reader = NULL;
    tfckpt_error *error = NULL;

    options.context = context;
    CHECK_OK(tfckpt_reader_open(prefix, &options, &reader, &error), error);
    return reader;
}

/* Whether a tensor that was handed out is what it should be, and where. */
static int is_member(const managed_tensor *managed, const struct member *member)
{
    const DLTensor *tensor = &managed->dl_tensor;

    CHECK(managed->version.major == 1 && managed->deleter != NULL && tensor->byte_offset == 0);
    CHECK(tensor->device.device_type == (member->device == HOST ? kDLCPU : kDLCUDA));
    CHECK(tensor->device.device_id == (member->device == HOST ? 0 : member->device));
    CHECK(tensor->ndim == member->rank && (uintptr_t)tensor->data % 256 == 0);
    CHECK((tensor->data == NULL) == (member->size == 0));
    for (int i = 0; i < member->rank; i++)
        CHECK(tensor->shape[i] == member->shape[i] && tensor->strides != NULL);
    if (member->device == HOST)
        return member->size == 0 || memcmp(tensor->data, member->bytes, member->size) == 0;
    if (fake.peek != NULL) { /* also of a device that was given up */
        static unsigned char bytes[16 << 20];

        CHECK(member->size <= sizeof bytes);
        CHECK(member->size == 0 || fake.peek((gpu_address)(uintptr_t)tensor->data, bytes, member->size) == 0);
        return memcmp(bytes, member->bytes, member->size) == 0;
    }
    gpu_use(member->device);
    CHECK(gpu_holds((gpu_address)(uintptr_t)tensor->data, member->bytes, member->size));
    gpu_use(0);
    return 1;
}

static void delete_all(void)
{
    for (size_t i = 0; i < model.num; i++) {
        if (tensors[i] != NULL)
            tensors[i]->deleter(tensors[i]);
        tensors[i] = NULL;
    }
}

/* Of a thread that has nothing to do with CUDA. */
static void *delete_here(void *argument)
{
    struct gpu_thread before = gpu_thread();

    CHECK(argument == NULL && before.context == NULL);
    delete_all();
    CHECK(gpu_same_thread(before));
    return NULL;
}

/* The tensors outlive reader and context, and share one allocation per device. */
static void hand_over(uint64_t max_slab_size)
{
    struct fakecuda_stats before = gpu_stats();
    struct gpu_thread thread = gpu_thread();
    tfckpt_context *context = new_context(32 << 20);
    tfckpt_reader *reader = open_reader(context);
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    uint64_t allocations = 0;
    tfckpt_error *error = NULL;
    pthread_t other;

    options.max_slab_size = max_slab_size;
    ask_for_all(NULL);
    CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, model.num, &options, tensors, codes, &error), error);
    tfckpt_reader_free(reader);
    tfckpt_context_free(context);
    for (size_t i = 0; i < model.num; i++) {
        CHECK(codes[i] == TFCKPT_OK && is_member(tensors[i], &model.members[i]));
        allocations += model.members[i].device != HOST && model.members[i].size > 0;
    }
    if (max_slab_size != 1)
        allocations = (uint64_t)gpu.num_devices;
    if (fake.reset != NULL)
        CHECK(gpu_stats().live_device_allocations == before.live_device_allocations + allocations);
    CHECK(gpu_same_thread(thread));
    CHECK(pthread_create(&other, NULL, delete_here, NULL) == 0);
    CHECK(pthread_join(other, NULL) == 0);
    CHECK(gpu_nothing_left(before));
}

/* The call returns with the copies under way: the consumer's stream waits for them, and so do deleters. */
static void hand_over_on_a_stream(gpu_stream stream, gpu_stream consumer)
{
    enum { LARGE = 64 << 20 };
    struct fakecuda_stats before = gpu_stats();
    gpu_address other = gpu_alloc(LARGE);
    tfckpt_context *context = new_context(32 << 20);
    tfckpt_reader *reader = open_reader(context);
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    const struct member *first = &model.members[0];
    tfckpt_error *error = NULL;
    void *out = NULL;

    CU(gpu.cuMemHostAlloc(&out, first->size, 0));
    options.restore = &restore;
    restore.stream_ordered = 1;
    ask_for_all(stream);
    for (int round = 0; round < 4; round++) {
        for (int i = 0; i < 5; i++)
            CU(gpu.cuMemsetD8Async(other, (unsigned char)i, LARGE, stream));
        CHECK_OK(tfckpt_reader_restore_dlpack(reader, requests, 1, &options, tensors, NULL, &error), error);
        if (round % 2 == 0) { /* on the stream that was named, or on another one that is told to wait */
            gpu_stream user = round == 0 ? stream : consumer;

            if (user != stream)
                CHECK_OK(tfckpt_dlpack_stream_wait(tensors[0], user, &error), error);
            CU(gpu.cuMemcpyDtoHAsync(out, (gpu_address)(uintptr_t)tensors[0]->dl_tensor.data, first->size, user));
            CU(gpu.cuStreamSynchronize(user));
            CHECK(memcmp(out, first->bytes, first->size) == 0);
        }
        delete_all();
    }
    tfckpt_reader_free(reader);
    tfckpt_context_free(context);
    CU(gpu.cuMemFreeHost(out));
    CU(gpu.cuMemFree(other));
    CHECK(gpu_nothing_left(before));
}

/* Whether there is room is known before anything is allocated. */
static void ask_for_too_much(void)
{
    struct fakecuda_stats before = gpu_stats();
    tfckpt_reader *reader;
    gpu_address most = 0;
    uint64_t allocations;
    tfckpt_error *error = NULL;

    if (!needs_the_fake("a device without room"))
        return;
    reader = open_reader(NULL);
    for (size_t size = (size_t)1 << 30; size >= 1 << 20; size -= 1 << 20)
        if (most == 0 && gpu.cuMemAlloc(&most, size) != 0)
            most = 0;
    CHECK(most != 0);
    allocations = fake.calls("cuMemAlloc");
    ask_for_all(NULL);
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, model.num, NULL, tensors, codes, &error),
                TFCKPT_RESOURCE_EXHAUSTED, error, "CUDA device 0; needed=");
    CHECK(fake.calls("cuMemAlloc") == allocations);
    for (size_t i = 0; i < model.num; i++)
        CHECK(tensors[i] == NULL && codes[i] == TFCKPT_ABORTED);
    CU(gpu.cuMemFree(most));
    tfckpt_reader_free(reader);
    CHECK(gpu_nothing_left(before));
}

/* A device that is not there is an error of the tensor. */
static void ask_for_a_device_that_is_not_there(void)
{
    tfckpt_reader *reader = open_reader(NULL);
    tfckpt_error *error = NULL;

    ask_for_all(NULL);
    requests[0].device_type = TFCKPT_DEVICE_CUDA;
    requests[0].device_id = 77;
    CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, 2, NULL, tensors, codes, &error), TFCKPT_INVALID_ARGUMENT,
                error, model.members[0].key);
    CHECK(tensors[0] == NULL && codes[0] == TFCKPT_INVALID_ARGUMENT);
    CHECK(is_member(tensors[1], &model.members[1]) && codes[1] == TFCKPT_OK);
    delete_all();
    tfckpt_reader_free(reader);
}

/* ---- The caller's pool ---- */

struct pool {
    int allocations;
    int calls_left; /* before there is no memory */
    gpu_stream stream;
};

static void *pool_alloc(size_t size, size_t alignment, int32_t device_type, int32_t device_id, void *stream,
                        void *user_data)
{
    struct pool *pool = (struct pool *)user_data;
    void *memory = NULL;

    if (pool->calls_left-- == 0)
        return NULL;
    pool->allocations++;
    if (device_type == TFCKPT_DEVICE_HOST) {
        CHECK(stream == NULL && posix_memalign(&memory, alignment, size) == 0);
        return memory;
    }
    CHECK(stream == pool->stream && device_id < gpu.num_devices);
    gpu_use(device_id);
    memory = (void *)(uintptr_t)gpu_alloc(size);
    gpu_use(0);
    return memory;
}

static void pool_free(void *data, size_t size, int32_t device_type, int32_t device_id, void *stream, void *user_data)
{
    struct pool *pool = (struct pool *)user_data;

    CHECK(size > 0 && pool->allocations-- > 0);
    if (device_type == TFCKPT_DEVICE_HOST) {
        free(data);
        return;
    }
    CHECK(stream == pool->stream);
    gpu_use(device_id);
    CU(gpu.cuMemFree((gpu_address)(uintptr_t)data));
    gpu_use(0);
}

static void hand_over_from_a_pool(void)
{
    struct pool pool = {0, -1, NULL};
    struct fakecuda_stats before = gpu_stats();
    tfckpt_reader *reader = open_reader(NULL);
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    int failed = 0;

    options.alloc = pool_alloc;
    options.free = pool_free;
    options.user_data = &pool;
    options.max_slab_size = 1 << 20;
    ask_for_all(NULL);
    for (pool.calls_left = 0;; pool.calls_left = ++failed) {
        if (tfckpt_reader_restore_dlpack(reader, requests, model.num, &options, tensors, NULL, &error) == TFCKPT_OK)
            break;
        CHECK(tfckpt_error_code(error) == TFCKPT_RESOURCE_EXHAUSTED && pool.allocations == 0);
        tfckpt_error_free(error);
        error = NULL;
        for (size_t i = 0; i < model.num; i++)
            CHECK(tensors[i] == NULL);
    }
    CHECK(failed >= 3 && pool.allocations == failed);
    for (size_t i = 0; i < model.num; i++)
        CHECK(is_member(tensors[i], &model.members[i]));
    delete_all();
    CHECK(pool.allocations == 0);
    tfckpt_reader_free(reader);
    CHECK(gpu_nothing_left(before));
}

/* ---- Faults ---- */

static uint64_t num_late; /* faults that the call could not know of */

/* What the driver says of the copies that run after the call. */
static int wait_as_the_consumer(void)
{
    int code = 0;

    for (int device = 0; device < gpu.num_devices; device++) {
        gpu_use(device);
        code |= gpu.cuStreamSynchronize(NULL);
    }
    gpu_use(0);
    return code;
}

/* Restores with a fault, uses what is handed over, and deletes it, in one of several ways. Returns whether the fault was
 * met. */
static int run_with_fault(const char *symbol, uint64_t nth, int fault, uint64_t way)
{
    struct fakecuda_stats before = gpu_stats();
    struct gpu_thread thread = gpu_thread();
    uint64_t fired = fake.faults_fired();
    tfckpt_context *context = new_context((uint64_t)(2 * gpu.num_devices + 2) << 20);
    tfckpt_reader *reader = open_reader(context);
    tfckpt_restore_options restore = TFCKPT_RESTORE_OPTIONS_INIT;
    tfckpt_dlpack_options options = TFCKPT_DLPACK_OPTIONS_INIT;
    int with_codes = way % 4 < 2, is_async = strcmp(symbol, "ASYNC") == 0, late = 0;
    tfckpt_error *error = NULL;
    tfckpt_code code;
    char text[64];

    options.restore = &restore;
    options.max_slab_size = way % 3 == 0 ? 1 : 0;
    restore.stream_ordered = way % 8 >= 4;
    ask_for_all(NULL);
    snprintf(text, sizeof text, "%s:%" PRIu64 ":%d", symbol, nth, fault);
    CHECK(fake.set_faults(text) == 0);
    code = tfckpt_reader_restore_dlpack(reader, requests, model.num, &options, tensors, with_codes ? codes : NULL, &error);
    snprintf(text, sizeof text, "CUDA error %d", fault);
    if (code != TFCKPT_OK)
        CHECK(error != NULL && strstr(tfckpt_error_message(error), text) != NULL);
    tfckpt_error_free(error);
    if (restore.stream_ordered && is_async) {
        late = wait_as_the_consumer();
        CHECK(late == 0 || late == fault);
    }
    if (late != 0 && code == TFCKPT_OK)
        num_late++;
    if (late != 0) { /* the next call is told as well */
        managed_tensor *again[MODEL_SIZE];

        error = NULL;
        CHECK_FAILS(tfckpt_reader_restore_dlpack(reader, requests, model.num, &options, again, NULL, &error),
                    TFCKPT_INTERNAL, error, text);
    }
    for (size_t i = 0; i < model.num; i++) { /* no calls of the driver here: they would be counted */
        CHECK((tensors[i] != NULL) == (code == TFCKPT_OK || (with_codes && codes[i] == TFCKPT_OK)));
        if (tensors[i] != NULL && !restore.stream_ordered)
            CHECK(is_member(tensors[i], &model.members[i]));
    }
    tfckpt_reader_free(reader);
    tfckpt_context_free(context);
    delete_all(); /* the fault may be met here, too */
    fake.set_faults(NULL);
    fired = fake.faults_fired() - fired;
    CHECK(gpu_same_thread(thread));
    CHECK(code == TFCKPT_OK || fired > 0);
    CHECK(!(is_async && fired > 0) || code != TFCKPT_OK || late == fault);
    if (!gpu_nothing_left(before)) {
        fprintf(stderr, "after the fault %s:%" PRIu64 ":%d\n", symbol, nth, fault);
        CHECK(!"nothing is left");
    }
    return fired > 0;
}

/* Whatever call of the driver fails: nothing is leaked, and what is handed over is complete. */
static void run_all_faults(void)
{
    static const int faults[] = {2, 1, 700};
    uint64_t seed = getenv("FAKECUDA_SEED") != NULL ? strtoull(getenv("FAKECUDA_SEED"), NULL, 0) : 0;
    uint64_t calls = 1, copies = 1;

    while (run_with_fault("*", calls, faults[(calls + seed) % 3], calls + seed))
        calls++;
    CHECK(fake.set("delay_us", 2000) == 0); /* so that copies are under way when the call returns */
    for (uint64_t way = 0; way < 8; way++) {
        copies = 1;
        while (run_with_fault("ASYNC", copies, 700, way)) {
            gpu_reset(); /* the device was given up */
            CHECK(fake.set("delay_us", 2000) == 0);
            copies++;
        }
    }
    printf("%" PRIu64 " calls, %" PRIu64 " copies, %" PRIu64 " met after the call\n", calls - 1, copies - 1, num_late);
    CHECK(calls > 20 && copies > 1 && num_late > 0);
}

int main(int argc, char **argv)
{
    char dir[PATH_SIZE], saved[PATH_SIZE];
    gpu_stream stream = NULL, consumer = NULL;

    gpu_start();
    make_scratch_folder(argc, argv, dir);
    path_in(prefix, dir, "model.ckpt");
    path_in(saved, dir, "saved.ckpt");
    CU(gpu.cuStreamCreate(&stream, 1));
    CU(gpu.cuStreamCreate(&consumer, 1));
    for (int with_host = 0; with_host < 2; with_host++) {
        model_of_all_kinds(&model, gpu.num_devices, with_host);
        model_save(&model, prefix);
        hand_over(0);
        hand_over(1);
        hand_over_on_a_stream(stream, consumer);
        ask_for_too_much();
        ask_for_a_device_that_is_not_there();
        hand_over_from_a_pool();
        lend_device_tensors(saved);
        model_free(&model);
    }
    CU(gpu.cuStreamDestroy(stream));
    CU(gpu.cuStreamDestroy(consumer));

    if (needs_the_fake("a driver whose calls fail")) {
        memset(&model, 0, sizeof model);
        for (int i = 0; i < 4; i++) {
            static const int64_t rows[] = {300000, 1000, 0, 500000};
            static const char *const keys[] = {"a", "b", "c", "d"};

            model_add(&model, keys[i], TFCKPT_DTYPE_FLOAT, rows[i], NONE, i == 1 ? HOST : i % gpu.num_devices);
        }
        model_save(&model, prefix);
        for (size_t i = 0; i < model.num; i++) { /* only their bytes are needed */
            if (model.members[i].address == 0)
                continue;
            gpu_use(model.members[i].device);
            CU(gpu.cuMemFree(model.members[i].address));
            model.members[i].address = 0;
            gpu_use(0);
        }
        run_all_faults();
        model_free(&model);
    }
    remove_scratch_folder(dir);
    return 0;
}
