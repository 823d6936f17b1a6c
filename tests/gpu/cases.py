"""What must hold for everybody's arrays and streams.

Each case is a sentence, and gets a library, an engine, the driver and an empty folder.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from binding import FOREVER, INVALID_ARGUMENT, UNORDERED, Driver, Library, Placed, Tensors, on_host
from engines import DEVICE, Engine, unchanged
from tfckpt_library import TfckptError

Case = Callable[[Library, Any, Driver, Path], None]

SHAPES: tuple[tuple[int, ...], ...] = ((), (1,), (3, 5), (1000, 257), (0, 4), (1 << 18,))
LARGE = {True: (256, 1024), False: (4096, 8192)}
"""Of tensors whose copies take a while, on the fake driver and on a GPU."""


def numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Values that do not repeat."""
    values = np.random.default_rng(seed).standard_normal(int(np.prod(shape)), np.float32)
    return values.reshape(shape)


def saved(lib: Library, folder: Path, tensors: dict[str, np.ndarray]) -> Path:
    """A checkpoint written from host memory."""
    prefix = folder / "model"
    lib.save(prefix, [on_host(key, values) for key, values in tensors.items()])
    return prefix


def same(have: np.ndarray, want: np.ndarray) -> None:
    """Fails unless both are equal bit for bit."""
    assert have.shape == want.shape, f"shape {have.shape}, not {want.shape}"
    assert have.tobytes() == want.tobytes(), "other values than saved"


def a_restore_fills_arrays_of_many_shapes(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """On a stream of the engine's, and beside a tensor that stays on the host."""
    source = {f"layer_{i}": numbers(shape, i) for i, shape in enumerate(SHAPES)}
    prefix = saved(lib, folder, source)
    stream = engine.stream()
    arrays = {key: engine.array(np.full(values.shape, np.nan, np.float32)) for key, values in source.items()}
    host = np.zeros(SHAPES[2], np.float32)
    placed = [engine.place(key, array, stream) for key, array in arrays.items() if key != "layer_2"]
    lib.restore(prefix, [*placed, on_host("layer_2", host)])
    arrays.pop("layer_2")
    for key, array in arrays.items():
        same(engine.values(array), source[key])
    same(host, source["layer_2"])


def a_restore_on_the_default_stream_fills_an_array(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """And one whose memory is not ordered with any stream."""
    source = {"a": numbers((777,), 1), "b": numbers((55, 3), 2)}
    prefix = saved(lib, folder, source)
    arrays = {key: engine.array(np.zeros(values.shape, np.float32)) for key, values in source.items()}
    lib.restore(prefix, [engine.place("a", arrays["a"]), engine.place("b", arrays["b"], flags=UNORDERED)])
    for key, array in arrays.items():
        same(engine.values(array), source[key])


def a_restore_of_a_slice_reads_its_part(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """Rows, and columns, as an engine with tensor parallelism asks for them."""
    full = numbers((64, 48), 3)
    prefix = saved(lib, folder, {"w": full})
    for spec, part in (("64 48 16,32:-", full[16:48]), ("64 48 -:24,12", full[:, 24:36])):
        array = engine.array(np.zeros(part.shape, np.float32))
        lib.restore(prefix, [replace(engine.place("w", array), slice_spec=spec)])
        same(engine.values(array), np.ascontiguousarray(part))


def a_save_writes_what_arrays_hold(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """Read back on the host."""
    source = {f"layer_{i}": numbers(shape, 10 + i) for i, shape in enumerate(SHAPES)}
    stream = engine.stream()
    arrays = {key: engine.array(values) for key, values in source.items()}
    lib.save(folder / "model", [engine.place(key, array, stream) for key, array in arrays.items()])
    for key, values in source.items():
        same(lib.restored_on_host(folder / "model", key, values.shape), values)


def a_restore_comes_after_what_was_enqueued_before(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """A kernel that is late to overwrite the destination does not win."""
    source = numbers(LARGE[driver.is_fake], 4)
    prefix = saved(lib, folder, {"w": source})
    array, stream = engine.array(np.zeros(source.shape, np.float32)), engine.stream()
    engine.keep_busy(stream)
    engine.fill(array, -1, stream)
    lib.restore(prefix, [engine.place("w", array, stream)])
    same(engine.values(engine.copy(array, stream)), source)  # behind the overwriting, wherever that came


def what_is_enqueued_afterwards_comes_after_a_stream_ordered_restore(
    lib: Library, engine: Engine, driver: Driver, folder: Path
) -> None:
    """A copy on the stream finds the tensor complete although the call did not wait for it."""
    source = numbers(LARGE[driver.is_fake], 5)
    prefix = saved(lib, folder, {"w": source})
    array, stream = engine.array(np.zeros(source.shape, np.float32)), engine.stream()
    engine.keep_busy(stream)  # and with it the copies, so that the call returns before them
    lib.restore(prefix, [engine.place("w", array, stream)], stream_ordered=True)
    same(engine.values(engine.copy(array, stream)), source)


def a_save_comes_after_what_was_enqueued_before(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """It saves what a late kernel leaves."""
    shape = LARGE[driver.is_fake]
    array, stream = engine.array(numbers(shape, 6)), engine.stream()
    engine.keep_busy(stream)
    engine.fill(array, 0, stream)
    lib.save(folder / "model", [engine.place("w", array, stream)])
    same(lib.restored_on_host(folder / "model", "w", shape), np.zeros(shape, np.float32))


def a_stream_waits_for_one_tensor_of_a_job(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """Asked for at once, tensor by tensor, while the others are still read."""
    source = {f"layer_{i}": numbers(LARGE[True], 20 + i) for i in range(6)}
    prefix = saved(lib, folder, source)
    stream, user = engine.stream(), engine.stream()
    arrays = {key: engine.array(np.zeros(values.shape, np.float32)) for key, values in source.items()}
    tensors = Tensors([engine.place(key, array, stream) for key, array in arrays.items()])
    options = lib.restore_options()
    options.in_request_order = 1
    job = lib.make("restore_async", os.fsencode(prefix), *tensors.arguments, ctypes.byref(options))
    handle = engine.place("layer_0", arrays["layer_0"], user).stream
    copies = {}
    for i, (key, array) in enumerate(arrays.items()):
        lib.call("job_stream_wait", job, i, handle)
        copies[key] = engine.copy(array, user)
    lib.call("job_wait", job, FOREVER)
    lib.plain("job_free", job)
    for key, copy in copies.items():
        same(engine.values(copy), source[key])


def what_is_current_stays_so(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """Device, stream and context; on a thread that has no context, too, and after an error."""
    source = numbers((4096,), 7)
    prefix = saved(lib, folder, {"w": source})
    array = engine.array(np.zeros(source.shape, np.float32))
    looks = (driver.current, engine.current)
    with unchanged("after a restore", *looks):
        lib.restore(prefix, [engine.place("w", array)])
    with unchanged("after a save", *looks):
        lib.save(folder / "other", [engine.place("w", array)])
    with unchanged("after an error", *looks):
        refused(lib, prefix, Placed("w", 1, (4096,), 0, 16384, 99))
    seen: list[object] = []

    def on_a_fresh_thread() -> None:
        try:
            with unchanged("on a thread without a context", driver.current):
                assert driver.current() == 0
                lib.restore(prefix, [engine.place("w", array)])
        except BaseException as error:
            seen.append(error)

    thread = threading.Thread(target=on_a_fresh_thread)
    thread.start()
    thread.join()
    assert not seen, seen[0]
    same(engine.values(array), source)


def memory_that_is_not_the_devices_is_refused(lib: Library, engine: Engine, driver: Driver, folder: Path) -> None:
    """A host pointer, a device that is not there: the error names the tensor."""
    source = numbers((1 << 20,), 8)
    prefix = saved(lib, folder, {"weights": source})
    refused(lib, prefix, Placed("weights", 1, source.shape, source.ctypes.data, source.nbytes, DEVICE), "weights")
    placed = engine.place("weights", engine.array(source))
    refused(lib, prefix, replace(placed, device=99), "weights")


def refused(lib: Library, prefix: Path, placed: Placed, text: str = "") -> None:
    """Fails unless the restore says INVALID_ARGUMENT, with this text."""
    try:
        lib.restore(prefix, [placed])
    except TfckptError as error:
        assert error.code == INVALID_ARGUMENT, str(error)
        assert text in error.message, str(error)
        return
    raise AssertionError("the restore was not refused")


CASES: tuple[Case, ...] = (
    a_restore_fills_arrays_of_many_shapes,
    a_restore_on_the_default_stream_fills_an_array,
    a_restore_of_a_slice_reads_its_part,
    a_save_writes_what_arrays_hold,
    a_restore_comes_after_what_was_enqueued_before,
    what_is_enqueued_afterwards_comes_after_a_stream_ordered_restore,
    a_save_comes_after_what_was_enqueued_before,
    a_stream_waits_for_one_tensor_of_a_job,
    what_is_current_stays_so,
    memory_that_is_not_the_devices_is_refused,
)
