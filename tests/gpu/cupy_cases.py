"""What CuPy adds to the common cases: graph captures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from binding import FAILED_PRECONDITION, UNORDERED, Driver, Library
from cases import Case, numbers, same, saved
from engines import OnCupy
from tfckpt_library import TfckptError


def a_capture_on_another_thread_survives_a_restore(lib: Library, engine: OnCupy, driver: Driver, folder: Path) -> None:
    """In the strictest mode, with page-locked memory made meanwhile, on each kind of stream."""
    source = numbers((1 << 20,), 1)
    prefix = saved(lib, folder, {"w": source})
    array, stream = engine.array(np.zeros(source.shape, np.float32)), engine.stream()
    kinds: tuple[tuple[Any, int], ...] = ((stream, 0), (None, 0), (None, UNORDERED))
    for used_on, flags in kinds:
        placed = engine.place("w", array, used_on, flags)
        array.fill(0)
        context = lib.new_context()
        _during_a_capture(engine, lambda: lib.restore(prefix, [placed], context=context))
        lib.plain("context_free", context)
        same(engine.values(array), source)


def a_capture_on_another_thread_survives_a_save(lib: Library, engine: OnCupy, driver: Driver, folder: Path) -> None:
    """The same the other way."""
    source = numbers((1 << 20,), 2)
    array, stream = engine.array(source), engine.stream()
    _during_a_capture(engine, lambda: lib.save(folder / "model", [engine.place("w", array, stream)]))
    same(lib.restored_on_host(folder / "model", "w", source.shape), source)


def _during_a_capture(engine: OnCupy, work: Callable[[], None]) -> None:
    """Captures a graph on this thread while another works; the graph must then do what was captured."""
    cupy = engine.cupy
    x, y = cupy.full(1000, 3, np.float32), cupy.zeros(1000, np.float32)
    double, increase = lambda: cupy.multiply(x, 2, out=y), lambda: cupy.add(y, 1, out=y)
    double(), increase()  # so that the kernels are compiled and loaded: not a capture's work
    y.fill(0)
    cupy.cuda.Device().synchronize()
    failed: list[BaseException] = []

    def on_another_thread() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    stream, thread = engine.stream(), threading.Thread(target=on_another_thread)
    with stream:
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
        double()
        thread.start()
        thread.join()
        increase()
        graph = stream.end_capture()
    assert not failed, failed[0]
    graph.launch(stream)
    stream.synchronize()
    assert bool((y == 7).all()), "the captured graph does something else"


def a_stream_that_is_captured_is_refused(lib: Library, engine: OnCupy, driver: Driver, folder: Path) -> None:
    """And the capture goes on."""
    cupy, source = engine.cupy, numbers((1000,), 3)
    prefix = saved(lib, folder, {"w": source})
    array, x = engine.array(source), cupy.zeros(10, np.float32)
    increase = lambda: cupy.add(x, 1, out=x)
    increase()
    cupy.cuda.Device().synchronize()
    stream, code = engine.stream(), 0
    with stream:
        stream.begin_capture(cupy.cuda.runtime.streamCaptureModeGlobal)
        increase()
        try:
            lib.restore(prefix, [engine.place("w", array, stream)])
        except TfckptError as error:
            code = error.code
        increase()
        graph = stream.end_capture()
    assert code == FAILED_PRECONDITION, f"code {code}"
    graph.launch(stream)
    stream.synchronize()
    assert bool((x == 3).all())


CUPY_CASES: tuple[Case, ...] = (
    a_capture_on_another_thread_survives_a_restore,
    a_capture_on_another_thread_survives_a_save,
    a_stream_that_is_captured_is_refused,
)
