/* The fake's state as a whole: its lock, its settings, reset, statistics, and the report at exit. */
#include "fake.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct settings settings;
struct fakecuda_stats counts;
bool initialised, exited, reporting, all_held;
uint32_t epoch = 1;

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;

void fake_lock(void)
{
    pthread_mutex_lock(&lock);
}

void fake_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

void fake_wait(pthread_cond_t *condition)
{
    pthread_cond_wait(condition, &lock);
}

void wait_for_progress(void)
{
    fake_wait(&changed);
}

void progress(void)
{
    pthread_cond_broadcast(&changed);
}

/* --- settings --- */

static const struct {
    const char *name;
    int64_t *value;
    int64_t usual, least, most;
} table[] = {
    { "init_code", &settings.init_code, 0, 0, INT32_MAX },
    { "driver_version", &settings.driver_version, 13000, 0, INT32_MAX },
    { "devices", &settings.devices, 1, 0, FAKECUDA_MAX_DEVICES },
    { "memory", &settings.memory, INT64_C(1) << 30, 0, INT64_MAX },
    { "pinned_limit", &settings.pinned_limit, 0, 0, INT64_MAX },
    { "pools", &settings.pools, 1, 0, 1 },
    { "read_only", &settings.read_only, 1, 0, 1 },
    { "delay_us", &settings.delay_us, 0, 0, 60000000 },
    { "seed", &settings.seed, 1, INT64_MIN, INT64_MAX },
    { "shuffle_batches", &settings.shuffle_batches, 1, 0, 1 },
    { "lazy_pageable", &settings.lazy_pageable, 0, 0, 1 },
    { "free_waits", &settings.free_waits, 0, 0, 1 },
    { "capture", &settings.capture, 0, 0, 1 },
    { "trace", &settings.trace, 0, 0, 1 },
};
enum { NUM_SETTINGS = sizeof table / sizeof *table };

int fakecuda_set(const char *name, int64_t value)
{
    int result = -1;
    fake_lock();
    for (size_t i = 0; i < NUM_SETTINGS; i++) {
        if (strcmp(table[i].name, name) != 0 || value < table[i].least || value > table[i].most)
            continue;
        *table[i].value = value;
        if (table[i].value == &settings.capture)
            capture_elsewhere(value != 0);
        result = 0;
    }
    fake_unlock();
    return result;
}

/* FAKECUDA_<NAME> from the environment. A variable that cannot be read ends the process: a test that sets it and does not
 * get it would prove nothing. */
static void set_from_environment(const char *name)
{
    char variable[64] = "FAKECUDA_";
    size_t len = strlen(variable);
    for (const char *at = name; *at; at++)
        variable[len++] = (char)toupper((unsigned char)*at);
    variable[len] = '\0';
    const char *text = getenv(variable);
    if (!text)
        return;
    char *end;
    long long value = strtoll(text, &end, 0);
    if (*text == '\0' || *end != '\0' || fakecuda_set(name, value) != 0) {
        fprintf(stderr, "fake CUDA: %s=%s is no good\n", variable, text);
        abort();
    }
}

static void read_environment(void)
{
    for (size_t i = 0; i < NUM_SETTINGS; i++)
        set_from_environment(table[i].name);
    const char *faults = getenv("FAKECUDA_FAULTS");
    if (faults && fakecuda_set_faults(faults) != 0) {
        fprintf(stderr, "fake CUDA: FAKECUDA_FAULTS=%s is no good\n", faults);
        abort();
    }
    const char *report = getenv("FAKECUDA_REPORT");
    reporting = report && strcmp(report, "0") != 0;
}

static void set_usual(void)
{
    for (size_t i = 0; i < NUM_SETTINGS; i++)
        *table[i].value = table[i].usual;
}

void fakecuda_reset(void)
{
    fake_lock();
    capture_elsewhere(false);
    contexts_forget();
    faults_clear();
    calls_forget();
    handles_forget();
    set_usual();
    initialised = false;
    all_held = false;
    epoch++;
    memset(&counts, 0, sizeof counts);
    fake_unlock();
    read_environment();
}

void fakecuda_hold(int hold)
{
    fake_lock();
    all_held = hold != 0;
    progress();
    fake_unlock();
}

/* --- statistics --- */

void count_device_memory(int64_t bytes)
{
    counts.live_device_bytes += (uint64_t)bytes;
    if (counts.live_device_bytes > counts.peak_device_bytes)
        counts.peak_device_bytes = counts.live_device_bytes;
}

void count_pinned_memory(int64_t bytes)
{
    counts.live_pinned_bytes += (uint64_t)bytes;
    if (counts.live_pinned_bytes > counts.peak_pinned_bytes)
        counts.peak_pinned_bytes = counts.live_pinned_bytes;
}

void fakecuda_stats(struct fakecuda_stats *stats, size_t size)
{
    fake_lock();
    memcpy(stats, &counts, size < sizeof counts ? size : sizeof counts);
    fake_unlock();
}

#define NUMBER(name) { #name, offsetof(struct fakecuda_stats, name) }
static const struct {
    const char *name;
    size_t offset;
} numbers[] = {
    NUMBER(live_device_bytes), NUMBER(live_device_allocations), NUMBER(peak_device_bytes),
    NUMBER(live_pinned_bytes), NUMBER(live_pinned_allocations), NUMBER(peak_pinned_bytes),
    NUMBER(live_registrations), NUMBER(live_streams), NUMBER(live_events), NUMBER(live_contexts),
    NUMBER(retains[0]), NUMBER(retains[1]), NUMBER(retains[2]), NUMBER(retains[3]),
    NUMBER(retains[4]), NUMBER(retains[5]), NUMBER(retains[6]), NUMBER(retains[7]),
    NUMBER(lost_device_allocations), NUMBER(lost_pinned_allocations), NUMBER(lost_registrations),
    NUMBER(lost_streams), NUMBER(lost_events),
    NUMBER(h2d_copies), NUMBER(h2d_bytes), NUMBER(d2h_copies), NUMBER(d2h_bytes), NUMBER(d2d_copies), NUMBER(d2d_bytes),
    NUMBER(batches), NUMBER(pageable_copies), NUMBER(cross_device_copies), NUMBER(write_combined),
    NUMBER(host_functions), NUMBER(calls), NUMBER(calls_without_context), NUMBER(calls_in_foreign_context),
    NUMBER(calls_refused_by_capture), NUMBER(captures_invalidated), NUMBER(copies_executed), NUMBER(stale_copies),
    NUMBER(faults_fired),
};
_Static_assert(sizeof numbers / sizeof *numbers == sizeof(struct fakecuda_stats) / sizeof(uint64_t),
               "the report has every number");

static uint64_t number(size_t index)
{
    uint64_t value;
    memcpy(&value, (const char *)&counts + numbers[index].offset, sizeof value);
    return value;
}

uint64_t fakecuda_stat(const char *name)
{
    uint64_t value = UINT64_MAX;
    fake_lock();
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        if (strcmp(numbers[i].name, name) == 0)
            value = number(i);
    fake_unlock();
    return value;
}

__attribute__((constructor)) static void begin(void)
{
    set_usual();
    read_environment();
}

/* What is not 0, one number per line. */
__attribute__((destructor)) static void end(void)
{
    fake_lock();
    exited = true;
    for (size_t i = 0; reporting && i < sizeof numbers / sizeof *numbers; i++)
        if (number(i))
            fprintf(stderr, "fake CUDA: %s %" PRIu64 "\n", numbers[i].name, number(i));
    if (reporting)
        fprintf(stderr, "fake CUDA: end of report\n");
    fake_unlock();
}
