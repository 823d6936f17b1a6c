/* Tests of captures. */
#include "check.h"

void capture_elsewhere_forbids_unsafe_calls(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    unsigned char *pinned = new_pinned(100);
    CUstream stream = new_stream();
    CUevent event = new_event();
    OK(fakecuda_set("capture", 1));
    /* Harmless: work on our own stream. */
    OK(cuMemcpyHtoDAsync_v2(address, pinned, 100, stream));
    OK(cuEventRecord(event, stream));
    CHECK(!fakecuda_capture_invalidated());
    /* Relaxed: all is allowed. */
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    OK(cuEventSynchronize(event));
    OK(cuEventQuery(event));
    OK(cuMemFree_v2(address));
    CHECK(!fakecuda_capture_invalidated());
    /* Thread-local: other threads' captures do not matter. */
    CUstreamCaptureMode local = CU_STREAM_CAPTURE_MODE_THREAD_LOCAL;
    OK(cuThreadExchangeStreamCaptureMode(&local));
    OK(cuEventQuery(event));
    CHECK(!fakecuda_capture_invalidated());
    /* As it was: an unsafe call fails, and breaks the other's capture. */
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    CHECK(mode == CU_STREAM_CAPTURE_MODE_THREAD_LOCAL);
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuEventQuery(event));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuMemAlloc_v2(&address, 1));
    CHECK(fakecuda_capture_invalidated());
    CHECK(stats().captures_invalidated == 1 && stats().calls_refused_by_capture == 2);
    OK(fakecuda_set("capture", 0));
    OK(cuEventQuery(event));
    CHECK(fakecuda_capture_invalidated()); /* still told */
    OK(fakecuda_set("capture", 1));
    CHECK(!fakecuda_capture_invalidated());
}

void capturing_stream_is_told_and_breaks(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream stream = new_stream(), other = new_stream();
    CUevent event = new_event(), captured = new_event();
    CUstreamCaptureStatus status;
    CUgraph graph;
    OK(cuStreamIsCapturing(stream, &status));
    CHECK(status == CU_STREAM_CAPTURE_STATUS_NONE);
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuStreamIsCapturing(stream, &status));
    CHECK(status == CU_STREAM_CAPTURE_STATUS_ACTIVE);
    OK(cuMemsetD8Async(address, 1, 100, stream)); /* captured, not run */
    OK(cuEventRecord(captured, stream));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
    CHECK(device_is_filled(address, 0xD5, 100));
    CHECK_CODE(CUDA_ERROR_CAPTURED_EVENT, cuEventQuery(captured));
    /* A thread's own capture forbids unsafe calls, unless the thread is relaxed. */
    CUstreamCaptureMode mode = CU_STREAM_CAPTURE_MODE_RELAXED;
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_THREAD_LOCAL));
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    OK(cuStreamSynchronize(other));
    OK(cuThreadExchangeStreamCaptureMode(&mode));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(other));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    /* Waiting for work outside of the capture breaks it. */
    OK(cuEventRecord(event, other));
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_ISOLATION, cuStreamWaitEvent(stream, event, 0));
    OK(cuStreamIsCapturing(stream, &status));
    CHECK(status == CU_STREAM_CAPTURE_STATUS_INVALIDATED);
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    CHECK(graph == NULL);
    /* So does waiting for the stream. */
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, cuStreamSynchronize(stream));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(stream, &graph));
    CHECK(stats().captures_invalidated == 3);
}

void legacy_stream_cannot_be_used_beside_a_blocking_capture(void)
{
    begin();
    CUdeviceptr address = new_memory(100);
    CUstream blocking;
    CUstreamCaptureStatus status;
    CUgraph graph;
    OK(cuStreamCreate(&blocking, 0));
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
    /* To ask breaks nothing, and other streams can be used. */
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(NULL, &status));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuStreamIsCapturing(CU_STREAM_LEGACY, &status));
    OK(cuStreamIsCapturing(CU_STREAM_PER_THREAD, &status));
    CHECK(status == CU_STREAM_CAPTURE_STATUS_NONE);
    OK(cuMemsetD8Async(address, 1, 100, CU_STREAM_PER_THREAD));
    OK(cuStreamEndCapture(blocking, &graph));
    OK(cuGraphDestroy(graph));
    CHECK(stats().captures_invalidated == 0);
    OK(cuStreamIsCapturing(NULL, &status));
    /* Work does. */
    OK(cuStreamBeginCapture_v2(blocking, CU_STREAM_CAPTURE_MODE_RELAXED));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, cuMemsetD8Async(address, 2, 100, NULL));
    CHECK_CODE(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, cuStreamEndCapture(blocking, &graph));
    CHECK(stats().captures_invalidated == 1);
    /* A stream that does not wait for the legacy one is nothing to it. */
    CUstream stream = new_stream();
    OK(cuStreamBeginCapture_v2(stream, CU_STREAM_CAPTURE_MODE_RELAXED));
    OK(cuMemsetD8Async(address, 3, 100, NULL));
    OK(cuStreamEndCapture(stream, &graph));
    OK(cuGraphDestroy(graph));
}
