/* What the tests of the fake have in common. A test that finds something wrong says what, and ends the program. */
#ifndef FAKE_CUDA_SELF_TEST_H
#define FAKE_CUDA_SELF_TEST_H

#include "../cuda_api.h"
#include "../fake_cuda.h"

#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK(condition)                                                                             \
    do {                                                                                             \
        if (!(condition)) {                                                                          \
            fprintf(stderr, "%s:%d: %s: not so: %s\n", __FILE__, __LINE__, __func__, #condition);    \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

#define CHECK_CODE(expected, call)                                                                   \
    do {                                                                                             \
        int code_ = (int)(call);                                                                     \
        if (code_ != (expected)) {                                                                   \
            fprintf(stderr, "%s:%d: %s: %s gave %d, not %d\n", __FILE__, __LINE__, __func__, #call,  \
                    code_, (int)(expected));                                                         \
            exit(1);                                                                                 \
        }                                                                                            \
    } while (0)

#define OK(call) CHECK_CODE(0, call)

extern const char *lib_dir, *program;

struct fakecuda_stats stats(void);
/* A fresh driver with the primary context of device 0 current. */
CUcontext begin(void);
CUstream new_stream(void);
CUevent new_event(void);
CUdeviceptr new_memory(size_t size);
unsigned char *new_pinned(size_t size);
bool is_filled(const unsigned char *bytes, unsigned char value, size_t size);
bool device_is_filled(CUdeviceptr address, unsigned char value, size_t size);
/* Writes without ThreadSanitizer's knowledge: what some tests do on purpose is a data race. */
void fill_unseen(volatile unsigned char *bytes, unsigned char value, size_t size);

enum { SIZE = 100001 };

/* The tests, in the order in which they run. The first forks: there must be no threads yet. */
#define TESTS(TEST) \
    TEST(host_cannot_touch_device_memory) \
    TEST(driver_starts_as_set) \
    TEST(devices_describe_themselves) \
    TEST(calls_need_a_current_context) \
    TEST(context_stack_is_per_thread) \
    TEST(last_release_resets_the_primary_context) \
    TEST(created_context_is_apart_from_the_primary) \
    TEST(bytes_make_the_round_trip) \
    TEST(pageable_memory_is_staged_unless_lazy) \
    TEST(registered_memory_is_read_when_the_copy_runs) \
    TEST(slot_that_is_reused_too_early_is_seen) \
    TEST(copy_outside_of_memory_is_refused) \
    TEST(memory_freed_under_a_copy_is_seen) \
    TEST(event_tells_of_its_latest_record) \
    TEST(wait_orders_two_streams) \
    TEST(destroyed_stream_finishes_its_work) \
    TEST(default_stream_has_no_order_by_itself) \
    TEST(each_thread_has_a_default_stream_of_its_own) \
    TEST(host_function_runs_and_must_not_call_the_driver) \
    TEST(two_devices_work_side_by_side) \
    TEST(memory_runs_out) \
    TEST(pools_can_be_missing) \
    TEST(fault_hits_the_nth_call) \
    TEST(calls_that_give_back_do_so_despite_a_fault) \
    TEST(calls_that_wait_do_so_despite_a_fault) \
    TEST(asynchronous_fault_sticks_to_its_context) \
    TEST(every_call_can_be_made_to_fail) \
    TEST(capture_elsewhere_forbids_unsafe_calls) \
    TEST(capturing_stream_is_told_and_breaks) \
    TEST(legacy_stream_cannot_be_used_beside_a_blocking_capture) \
    TEST(addresses_are_told_apart) \
    TEST(tests_look_into_device_memory) \
    TEST(batch_copies_all) \
    TEST(batch_has_no_order) \
    TEST(source_order_any_is_read_early) \
    TEST(variants_lack_what_they_say) \
    TEST(report_at_exit_tells_what_is_left) \
    TEST(many_threads_work_at_once)

#define DECLARE(name) void name(void);
TESTS(DECLARE)
#undef DECLARE

void leave_something(void);

#endif
