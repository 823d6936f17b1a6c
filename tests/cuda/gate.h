/* A gate that a job's progress callback stops at, so that a test can do something at a known point of the job. */
#ifndef TFCKPT_TESTS_GATE_H
#define TFCKPT_TESTS_GATE_H

#include "gpu.h"

#include <pthread.h>

struct gate {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    int reached, open;
};
#define GATE_INIT {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, 0, 0}

/* The progress callback; user_data is the gate. */
static inline int32_t gate_pass(const tfckpt_progress *progress, void *user_data)
{
    struct gate *gate = (struct gate *)user_data;

    (void)progress;
    pthread_mutex_lock(&gate->mutex);
    gate->reached = 1;
    pthread_cond_broadcast(&gate->changed);
    while (!gate->open)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
    return 0;
}

/* Waits until the job has come to the gate. */
static inline void gate_wait(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    while (!gate->reached)
        pthread_cond_wait(&gate->changed, &gate->mutex);
    pthread_mutex_unlock(&gate->mutex);
}

static inline void gate_open(struct gate *gate)
{
    pthread_mutex_lock(&gate->mutex);
    gate->open = 1;
    pthread_cond_broadcast(&gate->changed);
    pthread_mutex_unlock(&gate->mutex);
}

#endif
