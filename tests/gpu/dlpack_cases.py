"""Tensors that the library hands out by DLPack, and takes in."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from ctypes import byref
from pathlib import Path
from typing import Any

import numpy as np

import dlpack_objects as dlpack
from binding import Driver, Library
from cases import LARGE, Case, numbers, same, saved
from engines import DEVICE, OnCupy, OnTorch, unchanged
from jax_cases import OnJax
from tfckpt_abi import AllocFn, CDlpackOptions, CSaveOptions, FreeFn


def _restored(
    lib: Library, prefix: Path, keys: list[str], device: int | None, *, stream: int = 0, **callbacks: Any
) -> list[dlpack.Exported]:
    how = lib.restore_options()
    options = CDlpackOptions(struct_size=ctypes.sizeof(CDlpackOptions), restore=ctypes.pointer(how), **callbacks)
    reader = lib.make("reader_open", os.fsencode(prefix), None)
    try:
        return dlpack.restore(lib.call, reader, dlpack.requests(keys, device=device, stream=stream), options)
    finally:
        lib.plain("reader_free", reader)


def tensors_are_handed_out_with_what_they_are(lib: Library, engine: Any, driver: Driver, folder: Path) -> None:
    """Device, type, shape, strides and 256-byte alignment; the deleters are called on another thread."""
    source = {"a": numbers((3, 5), 1), "b": numbers((1000,), 2)}
    exported = _restored(lib, saved(lib, folder, source), list(source), DEVICE)
    for tensor, values in zip((e.tensor for e in exported), source.values()):
        assert (tensor.device_type, tensor.device_id, tensor.ndim) == (2, DEVICE, values.ndim)
        assert (tensor.code, tensor.bits, tensor.lanes, tensor.byte_offset) == (2, 32, 1, 0)
        assert tuple(tensor.shape[: values.ndim]) == values.shape
        assert tuple(tensor.strides[i] * 4 for i in range(values.ndim)) == values.strides
        assert tensor.data % 256 == 0
        have = np.empty(values.shape, np.float32)
        driver.download(have, tensor.data)
        same(have, values)
    thread = threading.Thread(target=lambda: [e.close() for e in exported])
    thread.start()
    thread.join()


def a_host_tensor_goes_to_numpy_and_back(lib: Library, engine: Any, driver: Driver, folder: Path) -> None:
    """kDLCPU both ways."""
    source = {"w": numbers((7, 9), 3)}
    (exported,) = _restored(lib, saved(lib, folder, source), ["w"], None)
    array = np.from_dlpack(exported)
    same(np.array(array), source["w"])
    _save_through_dlpack(lib, folder / "other", np.ascontiguousarray(array))
    same(lib.restored_on_host(folder / "other", "w", (7, 9)), source["w"])


def a_device_tensor_goes_out_and_comes_in(lib: Library, engine: Any, driver: Driver, folder: Path) -> None:
    """What the library has handed out is a source and a destination of its own."""
    source = {"w": numbers((300, 70), 11)}
    prefix = saved(lib, folder, source)
    _save_through_dlpack(lib, folder / "other", _restored(lib, prefix, ["w"], DEVICE)[0])
    same(lib.restored_on_host(folder / "other", "w", (300, 70)), source["w"])
    _restore_through_dlpack(lib, prefix, _restored(lib, folder / "other", ["w"], DEVICE)[0])


def _save_through_dlpack(lib: Library, prefix: Path, producer: Any, stream: int = 0) -> None:
    options = CSaveOptions(struct_size=ctypes.sizeof(CSaveOptions), context=lib.context, no_sync=1)
    tensor, _kept = dlpack.described(lib.call, "w", producer, for_restore=False, stream=stream)
    lib.call("save", os.fsencode(prefix), byref(tensor), 1, byref(options), None)


def _restore_through_dlpack(lib: Library, prefix: Path, producer: Any, stream: int = 0) -> None:
    options = lib.restore_options()
    tensor, _kept = dlpack.described(lib.call, "w", producer, for_restore=True, stream=stream)
    lib.call("restore", os.fsencode(prefix), byref(tensor), 1, byref(options), None)


def torch_takes_a_tensor_and_frees_it_while_kernels_run(
    lib: Library, engine: OnTorch, driver: Driver, folder: Path
) -> None:
    """The last reference goes while a copy from its memory is still to come: cuMemFree may wait for it, and this says
    whether it does."""
    torch, source = engine.torch, numbers(LARGE[False], 4)
    prefix = saved(lib, folder, {"w": source})
    stream = engine.stream()
    for _ in range(3):
        (exported,) = _restored(lib, prefix, ["w"], DEVICE)
        tensor = torch.from_dlpack(exported)
        assert tensor.shape == source.shape and tensor.is_contiguous()
        engine.keep_busy(stream)
        copy = engine.copy(tensor, stream)
        del tensor
        gc.collect()
        same(engine.values(copy), source)


def torch_gives_a_tensor_to_a_restore_and_a_save(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """DLPack in, on a stream of torch's."""
    source = numbers((123, 45), 5)
    prefix = saved(lib, folder, {"w": source})
    tensor, stream = engine.array(np.zeros(source.shape, np.float32)), engine.stream()
    _restore_through_dlpack(lib, prefix, tensor, stream.cuda_stream)
    same(engine.values(tensor), source)
    _save_through_dlpack(lib, folder / "other", tensor, stream.cuda_stream)
    same(lib.restored_on_host(folder / "other", "w", source.shape), source)


def restored_tensors_live_in_the_pool_of_torch(lib: Library, engine: OnTorch, driver: Driver, folder: Path) -> None:
    """Through the pair of callbacks; torch counts the memory, and gets it back."""
    torch, source = engine.torch, {"a": numbers((1 << 20,), 6), "b": numbers((77,), 7)}
    prefix = saved(lib, folder, source)
    stream, asked = engine.stream(), []
    sizes: dict[int, int] = {}

    @AllocFn
    def alloc(size: int, alignment: int, _kind: int, device: int, on: int | None, _data: int | None) -> int:
        asked.append((size, alignment, on))
        address = int(torch.cuda.caching_allocator_alloc(size, device, on or 0))
        sizes[address] = size
        return address

    @FreeFn
    def free(address: int, size: int, _kind: int, device: int, on: int | None, _data: int | None) -> None:
        assert sizes.pop(address) == size
        torch.cuda.caching_allocator_delete(address)

    before = torch.cuda.memory_allocated()
    made = _restored(lib, prefix, list(source), DEVICE, alloc=alloc, free=free, stream=stream.cuda_stream)
    assert torch.cuda.memory_allocated() - before >= sum(values.nbytes for values in source.values())
    assert asked and all(on == stream.cuda_stream and 256 % alignment == 0 for _, alignment, on in asked), asked
    tensors = [torch.from_dlpack(exported) for exported in made]
    for tensor, values in zip(tensors, source.values()):
        same(engine.values(tensor), values)
    tensor = None
    tensors.clear()
    gc.collect()
    assert not sizes and torch.cuda.memory_allocated() == before


def cupy_takes_a_tensor_and_frees_it(lib: Library, engine: OnCupy, driver: Driver, folder: Path) -> None:
    """cupy.from_dlpack."""
    source = numbers((300, 70), 8)
    (exported,) = _restored(lib, saved(lib, folder, {"w": source}), ["w"], DEVICE)
    array, stream = engine.cupy.from_dlpack(exported), engine.stream()
    engine.keep_busy(stream)
    copy = engine.copy(array, stream)
    del array
    gc.collect()
    same(engine.values(copy), source)


def cupy_gives_an_array_to_a_restore_and_a_save(lib: Library, engine: OnCupy, driver: Driver, folder: Path) -> None:
    """DLPack in, on a stream of CuPy's."""
    source = numbers((300, 70), 9)
    prefix = saved(lib, folder, {"w": source})
    array, stream = engine.array(np.zeros(source.shape, np.float32)), engine.stream()
    _restore_through_dlpack(lib, prefix, array, stream.ptr)
    same(engine.values(array), source)
    _save_through_dlpack(lib, folder / "other", array, stream.ptr)
    same(lib.restored_on_host(folder / "other", "w", source.shape), source)


def jax_takes_a_tensor(lib: Library, engine: OnJax, driver: Driver, folder: Path) -> None:
    """jax.dlpack.from_dlpack, then a computation with it; what is current stays so."""
    source = numbers((300, 70), 10)
    prefix = saved(lib, folder, {"w": source})
    with unchanged("after a restore", driver.current, engine.current):
        (exported,) = _restored(lib, prefix, ["w"], DEVICE)
    array = engine.jax.dlpack.from_dlpack(exported)
    doubled = array * 2
    del array
    gc.collect()
    same(np.asarray(doubled), source * 2)


def jax_gives_an_array_to_a_save(lib: Library, engine: OnJax, driver: Driver, folder: Path) -> None:
    """DLPack in; in JAX's older capsule, too."""
    source = numbers((300, 70), 12)
    _save_through_dlpack(lib, folder / "model", engine.doubled(source))
    same(lib.restored_on_host(folder / "model", "w", source.shape), source * 2)


DRIVER_DLPACK: tuple[Case, ...] = (
    tensors_are_handed_out_with_what_they_are,
    a_host_tensor_goes_to_numpy_and_back,
    a_device_tensor_goes_out_and_comes_in,
)
TORCH_DLPACK: tuple[Case, ...] = (
    torch_takes_a_tensor_and_frees_it_while_kernels_run,
    torch_gives_a_tensor_to_a_restore_and_a_save,
    restored_tensors_live_in_the_pool_of_torch,
)
CUPY_DLPACK: tuple[Case, ...] = (cupy_takes_a_tensor_and_frees_it, cupy_gives_an_array_to_a_restore_and_a_save)
JAX_DLPACK: tuple[Case, ...] = (jax_takes_a_tensor, jax_gives_an_array_to_a_save)
