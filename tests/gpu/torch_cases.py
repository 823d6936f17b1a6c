"""What PyTorch adds to the common cases: graph captures, views, expandable segments."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from binding import BFLOAT16, FAILED_PRECONDITION, UNORDERED, Driver, Library
from cases import Case, numbers, same, saved
from engines import OnTorch, Skip
from tfckpt_library import TfckptError

EXPANDABLE = "expandable_segments:True"


def a_capture_on_another_thread_survives_a_restore(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """In the strictest mode, with page-locked memory made meanwhile, on each kind of stream."""
    torch, source = engine.torch, numbers((1 << 20,), 1)
    prefix = saved(lib, folder, {"w": source})
    array = engine.array(np.zeros(source.shape, np.float32))
    stream = engine.stream()
    kinds: tuple[tuple[Any, int], ...] = ((stream, 0), (None, 0), (None, UNORDERED))
    for used_on, flags in kinds:
        placed = engine.place("w", array, used_on, flags)
        array.zero_()
        torch.cuda.synchronize()
        context = lib.new_context()
        _during_a_capture(torch, lambda: lib.restore(prefix, [placed], context=context))
        lib.plain("context_free", context)
        same(engine.values(array), source)


def a_capture_on_another_thread_survives_a_save(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """The same the other way."""
    torch, source = engine.torch, numbers((1 << 20,), 2)
    array, stream = engine.array(source), engine.stream()
    _during_a_capture(torch, lambda: lib.save(folder / "model", [engine.place("w", array, stream)]))
    same(lib.restored_on_host(folder / "model", "w", source.shape), source)


def _during_a_capture(torch: Any, work: Callable[[], None]) -> None:
    """Captures a graph on this thread while another works; the graph must then do what was captured."""
    x, y = torch.full((1000,), 3.0, device="cuda"), torch.zeros(1000, device="cuda")
    torch.cuda.synchronize()
    failed: list[BaseException] = []

    def on_another_thread() -> None:
        try:
            work()
        except BaseException as error:
            failed.append(error)

    graph, thread = torch.cuda.CUDAGraph(), threading.Thread(target=on_another_thread)
    with torch.cuda.graph(graph, capture_error_mode="global"):
        y.copy_(x * 2)
        thread.start()
        thread.join()
        y.add_(1)
    assert not failed, failed[0]
    graph.replay()
    torch.cuda.synchronize()
    assert bool((y == 7).all()), "the captured graph does something else"


def a_stream_that_is_captured_is_refused(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """And the capture goes on."""
    torch, source = engine.torch, numbers((1000,), 3)
    prefix = saved(lib, folder, {"w": source})
    array, x = engine.array(source), torch.ones(10, device="cuda")
    torch.cuda.synchronize()
    graph, stream, code = torch.cuda.CUDAGraph(), engine.stream(), 0
    with torch.cuda.graph(graph, stream=stream):
        x.add_(1)
        try:
            lib.restore(prefix, [engine.place("w", array, stream)])
        except TfckptError as error:
            code = error.code
        x.add_(1)
    assert code == FAILED_PRECONDITION, f"code {code}"
    graph.replay()
    torch.cuda.synchronize()
    assert bool((x == 3).all())


def bfloat16_goes_to_a_view_of_a_larger_tensor(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """Of a block of the caching allocator, whose address is no allocation's."""
    torch = engine.torch
    source = torch.randn(300, 7, device="cuda").to(torch.bfloat16)
    lib.save(folder / "model", [engine.place("w", source)])
    whole = torch.zeros(1000, 7, device="cuda", dtype=torch.bfloat16)
    torch.cuda.synchronize()
    part = whole[400:700]
    lib.restore(folder / "model", [engine.place("w", part)])
    torch.cuda.synchronize()
    assert torch.equal(part, source)
    assert not whole[:400].any() and not whole[700:].any(), "bytes outside of the view were written"
    assert engine.place("w", part).dtype == BFLOAT16


def memory_of_a_stream_of_its_own_is_valid_behind_its_allocation(
    lib: Library, engine: OnTorch, driver: Driver, folder: Path
) -> None:
    """A tensor allocated on a busy stream, after another that used the same memory was freed on it."""
    torch, source = engine.torch, numbers((1 << 22,), 4)
    prefix = saved(lib, folder, {"w": source})
    stream = engine.stream()
    with torch.cuda.stream(stream):
        old = torch.empty(source.shape, device="cuda")
        engine.keep_busy(stream)
        old.fill_(-1)
        del old
        new = torch.empty(source.shape, device="cuda")
    lib.restore(prefix, [engine.place("w", new, stream)])
    same(engine.values(new), source)


def segments_are_expandable(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """What the other cases of this group rely on."""
    array = engine.array(np.zeros(1 << 22, np.float32))
    segments = engine.torch.cuda.memory_snapshot()
    if not any(segment.get("is_expandable") for segment in segments):
        raise Skip("this machine's torch has no expandable segments")
    assert array.numel() == 1 << 22


TORCH_CASES: tuple[Case, ...] = (
    a_capture_on_another_thread_survives_a_restore,
    a_capture_on_another_thread_survives_a_save,
    a_stream_that_is_captured_is_refused,
    bfloat16_goes_to_a_view_of_a_larger_tensor,
    memory_of_a_stream_of_its_own_is_valid_behind_its_allocation,
)
EXPANDABLE_CASES: tuple[Case, ...] = (segments_are_expandable,)
