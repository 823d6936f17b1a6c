/* A small training engine that survives being killed.
 *
 * Trains a network with one hidden layer on Fisher's iris data and saves a checkpoint every few steps, in TensorFlow's
 * own format and under the names that TensorFlow 1 gives to such a network, so that TensorFlow can restore it too.
 * Started again after a crash it resumes from the latest checkpoint and ends with the very same bits as a run that was
 * never interrupted, because a checkpoint holds everything that the next step depends on: weights, the optimizer's
 * slots, the step number, the random number generator and the order of the flowers in the current epoch.
 *
 *   train_iris MODEL_DIR --steps N --save-every K [--die-at STEP]
 *
 * --die-at kills the process (SIGKILL) right after that step, before anything more is saved. */
#define _POSIX_C_SOURCE 200809L

#include <inttypes.h>
#include <math.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <tfckpt.h>

#include "iris.h"

enum { INPUTS = IRIS_FEATURES, HIDDEN = 16, OUTPUTS = IRIS_SPECIES, BATCH = 15, BATCHES = IRIS_ROWS / BATCH };

static const float LEARNING_RATE = 0.05f;

/* What training changes from step to step; all of it goes into a checkpoint. */
struct model {
    float kernel[INPUTS][HIDDEN], kernel_slot[INPUTS][HIDDEN];
    float bias[HIDDEN], bias_slot[HIDDEN];
    float kernel_1[HIDDEN][OUTPUTS], kernel_1_slot[HIDDEN][OUTPUTS];
    float bias_1[OUTPUTS], bias_1_slot[OUTPUTS];
    int64_t global_step;
    uint64_t rng_state;
    int32_t order[IRIS_ROWS]; /* rows of the table in the order of the current epoch */
};

/* ---- Checkpoints: the part that uses libtfckpt ---- */

/* Prints why a call did not work, and gives up. */
static void check(tfckpt_code code, tfckpt_error **error)
{
    if (code == TFCKPT_OK)
        return;
    fprintf(stderr, "train_iris: %s: %s\n", tfckpt_code_name(code), tfckpt_error_message(*error));
    tfckpt_error_free(*error);
    exit(EXIT_FAILURE);
}

static tfckpt_tensor tensor(const char *key, int32_t dtype, int32_t rank, const int64_t *shape, void *data, size_t size)
{
    tfckpt_tensor result = TFCKPT_TENSOR_INIT;
    result.key = key;
    result.key_size = strlen(key);
    result.dtype = dtype;
    result.rank = rank;
    result.shape = shape;
    result.data = data;
    result.size = size;
    return result;
}

enum { NUM_TENSORS = 11 };

/* Describes the model to the library. Saving reads from this memory, restoring writes into it. */
static void describe(struct model *m, tfckpt_tensor tensors[NUM_TENSORS])
{
    static const int64_t kernel[] = {INPUTS, HIDDEN}, bias[] = {HIDDEN};
    static const int64_t kernel_1[] = {HIDDEN, OUTPUTS}, bias_1[] = {OUTPUTS};
    static const int64_t order[] = {IRIS_ROWS};
    tfckpt_tensor *t = tensors;

    *t++ = tensor("dense/bias", TFCKPT_DTYPE_FLOAT, 1, bias, m->bias, sizeof m->bias);
    *t++ = tensor("dense/bias/Adagrad", TFCKPT_DTYPE_FLOAT, 1, bias, m->bias_slot, sizeof m->bias_slot);
    *t++ = tensor("dense/kernel", TFCKPT_DTYPE_FLOAT, 2, kernel, m->kernel, sizeof m->kernel);
    *t++ = tensor("dense/kernel/Adagrad", TFCKPT_DTYPE_FLOAT, 2, kernel, m->kernel_slot, sizeof m->kernel_slot);
    *t++ = tensor("dense_1/bias", TFCKPT_DTYPE_FLOAT, 1, bias_1, m->bias_1, sizeof m->bias_1);
    *t++ = tensor("dense_1/bias/Adagrad", TFCKPT_DTYPE_FLOAT, 1, bias_1, m->bias_1_slot, sizeof m->bias_1_slot);
    *t++ = tensor("dense_1/kernel", TFCKPT_DTYPE_FLOAT, 2, kernel_1, m->kernel_1, sizeof m->kernel_1);
    *t++ = tensor("dense_1/kernel/Adagrad", TFCKPT_DTYPE_FLOAT, 2, kernel_1, m->kernel_1_slot,
                  sizeof m->kernel_1_slot);
    *t++ = tensor("global_step", TFCKPT_DTYPE_INT64, 0, NULL, &m->global_step, sizeof m->global_step);
    *t++ = tensor("order", TFCKPT_DTYPE_INT32, 1, order, m->order, sizeof m->order);
    *t++ = tensor("rng_state", TFCKPT_DTYPE_UINT64, 0, NULL, &m->rng_state, sizeof m->rng_state);
}

/* Saves to MODEL_DIR/model.ckpt-<step> and names that checkpoint in MODEL_DIR/checkpoint as the latest one. */
static void save(const char *model_dir, struct model *m)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_save_options options = TFCKPT_SAVE_OPTIONS_INIT;
    tfckpt_error *error = NULL;
    char *saved = NULL;
    char prefix[4096];

    if (snprintf(prefix, sizeof prefix, "%s/model.ckpt", model_dir) >= (int)sizeof prefix) {
        fprintf(stderr, "train_iris: the name of the model's folder is too long\n");
        exit(EXIT_FAILURE);
    }
    describe(m, tensors);
    options.global_step = &m->global_step;
    options.update_state = 1;
    check(tfckpt_save(prefix, tensors, NUM_TENSORS, &options, &saved, &error), &error);
    printf("  saved %s\n", saved);
    tfckpt_string_free(saved);
}

/* Restores the latest checkpoint, if there is one. False: a fresh start.
 *
 * Only NOT_FOUND means that nothing was saved yet. Any other error, such as a damaged checkpoint, must stop the
 * program: starting again at step 0 would silently throw the training away. */
static bool resume(const char *model_dir, struct model *m)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    tfckpt_error *error = NULL;
    char *prefix = NULL;
    tfckpt_code code = tfckpt_latest_checkpoint(model_dir, NULL, &prefix, &error);

    if (code == TFCKPT_NOT_FOUND) {
        tfckpt_error_free(error);
        return false;
    }
    check(code, &error);
    describe(m, tensors);
    check(tfckpt_restore(prefix, tensors, NUM_TENSORS, NULL, NULL, &error), &error);
    printf("  restored %s\n", prefix);
    tfckpt_string_free(prefix);
    return true;
}

/* ---- Random numbers: SplitMix64, whose whole state is one integer ---- */

static uint64_t next_random(struct model *m)
{
    uint64_t z = (m->rng_state += UINT64_C(0x9e3779b97f4a7c15));

    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* Evenly spread over [-limit, limit). */
static float uniform(struct model *m, float limit)
{
    return ((float)(next_random(m) >> 40) / 8388608.0f - 1.0f) * limit;
}

/* A new order of the flowers, for one epoch (Fisher-Yates). */
static void shuffle(struct model *m)
{
    for (int32_t i = 0; i < IRIS_ROWS; i++)
        m->order[i] = i;
    for (int i = IRIS_ROWS - 1; i > 0; i--) {
        int j = (int)(next_random(m) % (uint64_t)(i + 1));
        int32_t row = m->order[i];

        m->order[i] = m->order[j];
        m->order[j] = row;
    }
}

/* ---- The network: 4 inputs, 16 rectified linear units, 3 outputs with softmax ---- */

static void fill(float *values, size_t num, float value)
{
    for (size_t i = 0; i < num; i++)
        values[i] = value;
}

/* Weights drawn after Glorot and Bengio, biases 0, Adagrad's accumulators 0.1 as in TensorFlow. */
static void initialize(struct model *m)
{
    memset(m, 0, sizeof *m);
    m->rng_state = 1936;
    for (int i = 0; i < INPUTS; i++)
        for (int h = 0; h < HIDDEN; h++)
            m->kernel[i][h] = uniform(m, sqrtf(6.0f / (INPUTS + HIDDEN)));
    for (int h = 0; h < HIDDEN; h++)
        for (int o = 0; o < OUTPUTS; o++)
            m->kernel_1[h][o] = uniform(m, sqrtf(6.0f / (HIDDEN + OUTPUTS)));
    fill(&m->kernel_slot[0][0], INPUTS * HIDDEN, 0.1f);
    fill(m->bias_slot, HIDDEN, 0.1f);
    fill(&m->kernel_1_slot[0][0], HIDDEN * OUTPUTS, 0.1f);
    fill(m->bias_1_slot, OUTPUTS, 0.1f);
}

/* What the network makes of one flower. */
struct activations {
    float input[INPUTS], hidden[HIDDEN], probability[OUTPUTS];
};

static void forward(const struct model *m, const uint8_t *flower, struct activations *a)
{
    /* Brings the four lengths to about mean 0 and deviation 1. */
    static const float mean[INPUTS] = {58.4f, 30.6f, 37.6f, 12.0f}, deviation[INPUTS] = {8.3f, 4.4f, 17.7f, 7.6f};
    float sum = 0.0f, largest;

    for (int i = 0; i < INPUTS; i++)
        a->input[i] = (flower[i] - mean[i]) / deviation[i];
    for (int h = 0; h < HIDDEN; h++) {
        float x = m->bias[h];

        for (int i = 0; i < INPUTS; i++)
            x += a->input[i] * m->kernel[i][h];
        a->hidden[h] = x > 0.0f ? x : 0.0f;
    }
    for (int o = 0; o < OUTPUTS; o++) {
        a->probability[o] = m->bias_1[o];
        for (int h = 0; h < HIDDEN; h++)
            a->probability[o] += a->hidden[h] * m->kernel_1[h][o];
    }
    /* Softmax; taking the largest away first keeps the exponentials small. */
    largest = fmaxf(a->probability[0], fmaxf(a->probability[1], a->probability[2]));
    for (int o = 0; o < OUTPUTS; o++)
        sum += a->probability[o] = expf(a->probability[o] - largest);
    for (int o = 0; o < OUTPUTS; o++)
        a->probability[o] /= sum;
}

struct gradient {
    float kernel[INPUTS][HIDDEN], bias[HIDDEN], kernel_1[HIDDEN][OUTPUTS], bias_1[OUTPUTS];
};

/* Adds one flower's share of the gradient of the mean cross-entropy. */
static void backward(const struct model *m, const struct activations *a, int species, struct gradient *g)
{
    float logit[OUTPUTS];

    for (int o = 0; o < OUTPUTS; o++) {
        logit[o] = (a->probability[o] - (o == species ? 1.0f : 0.0f)) / BATCH;
        g->bias_1[o] += logit[o];
    }
    for (int h = 0; h < HIDDEN; h++) {
        float hidden = 0.0f;

        for (int o = 0; o < OUTPUTS; o++) {
            g->kernel_1[h][o] += a->hidden[h] * logit[o];
            hidden += m->kernel_1[h][o] * logit[o];
        }
        if (a->hidden[h] <= 0.0f)
            continue;
        g->bias[h] += hidden;
        for (int i = 0; i < INPUTS; i++)
            g->kernel[i][h] += a->input[i] * hidden;
    }
}

/* Adagrad: the more a weight has moved already, the smaller its next steps. */
static void descend(float *weight, float *slot, const float *gradient, size_t num)
{
    for (size_t i = 0; i < num; i++) {
        slot[i] += gradient[i] * gradient[i];
        weight[i] -= LEARNING_RATE * gradient[i] / sqrtf(slot[i]);
    }
}

/* One step: the next mini-batch of the epoch's order. */
static void train_step(struct model *m)
{
    int batch = (int)(m->global_step % BATCHES);
    struct gradient g;

    if (batch == 0)
        shuffle(m);
    memset(&g, 0, sizeof g);
    for (int i = batch * BATCH; i < (batch + 1) * BATCH; i++) {
        const uint8_t *flower = IRIS[m->order[i]];
        struct activations a;

        forward(m, flower, &a);
        backward(m, &a, flower[IRIS_FEATURES], &g);
    }
    descend(&m->kernel[0][0], &m->kernel_slot[0][0], &g.kernel[0][0], INPUTS * HIDDEN);
    descend(m->bias, m->bias_slot, g.bias, HIDDEN);
    descend(&m->kernel_1[0][0], &m->kernel_1_slot[0][0], &g.kernel_1[0][0], HIDDEN * OUTPUTS);
    descend(m->bias_1, m->bias_1_slot, g.bias_1, OUTPUTS);
    m->global_step++;
}

/* ---- What came of it ---- */

static void print_quality(const struct model *m)
{
    double loss = 0.0;
    int num_right = 0;

    for (int row = 0; row < IRIS_ROWS; row++) {
        int species = IRIS[row][IRIS_FEATURES], best = 0;
        struct activations a;

        forward(m, IRIS[row], &a);
        for (int o = 1; o < OUTPUTS; o++)
            if (a.probability[o] > a.probability[best])
                best = o;
        num_right += best == species;
        loss -= log(a.probability[species]);
    }
    printf("step %" PRId64 ": loss %.4f, %d of %d flowers right\n", m->global_step, loss / IRIS_ROWS, num_right,
           IRIS_ROWS);
}

/* FNV-1a over the bytes of all tensors: equal digests, equal bits. */
static uint64_t digest(struct model *m)
{
    tfckpt_tensor tensors[NUM_TENSORS];
    uint64_t hash = UINT64_C(0xcbf29ce484222325);

    describe(m, tensors);
    for (int t = 0; t < NUM_TENSORS; t++) {
        const unsigned char *bytes = (const unsigned char *)tensors[t].data;

        for (size_t i = 0; i < tensors[t].size; i++)
            hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    }
    return hash;
}

/* ---- The program ---- */

struct arguments {
    const char *model_dir;
    int64_t steps, save_every, die_at;
};

static int64_t parse_number(const char *text)
{
    char *end;
    int64_t number = strtoll(text, &end, 10);

    return *text != '\0' && *end == '\0' ? number : -1;
}

static bool parse_arguments(int argc, char **argv, struct arguments *args)
{
    memset(args, 0, sizeof *args);
    if (argc < 2)
        return false;
    args->model_dir = argv[1];
    for (int i = 2; i + 1 < argc; i += 2) {
        int64_t *field = strcmp(argv[i], "--steps") == 0        ? &args->steps
                         : strcmp(argv[i], "--save-every") == 0 ? &args->save_every
                         : strcmp(argv[i], "--die-at") == 0     ? &args->die_at
                                                                : NULL;

        if (field == NULL || (*field = parse_number(argv[i + 1])) <= 0)
            return false;
    }
    return argc % 2 == 0 && args->steps > 0 && args->save_every > 0;
}

int main(int argc, char **argv)
{
    struct arguments args;
    static struct model model;

    if (!parse_arguments(argc, argv, &args)) {
        fprintf(stderr, "usage: %s MODEL_DIR --steps N --save-every K [--die-at STEP]\n", argv[0]);
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, BUFSIZ); /* so that nothing printed is lost when the process is killed */

    if (!resume(args.model_dir, &model)) {
        initialize(&model);
        printf("  no checkpoint in %s: starting at step 0\n", args.model_dir);
    }
    while (model.global_step < args.steps) {
        train_step(&model);
        if (model.global_step == args.die_at) {
            printf("  killed at step %" PRId64 "\n", model.global_step);
            raise(SIGKILL);
        }
        if (model.global_step % args.save_every == 0 || model.global_step == args.steps)
            save(args.model_dir, &model);
    }
    print_quality(&model);
    printf("digest %016" PRIx64 "\n", digest(&model));
    return EXIT_SUCCESS;
}
