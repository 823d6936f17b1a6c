"""Tensors to and from NumPy by DLPack's versioned capsules."""

from __future__ import annotations

import ctypes
import gc
from ctypes import byref, c_void_p, sizeof
from typing import Any

import numpy as np
import pytest

import dlpack_objects
import tensorflow_side
import tfckpt
from dlpack_objects import Exported
from tfckpt import CheckpointError, Request
from tfckpt_abi import AllocFn, CDlpackOptions, CTensor, FreeFn
from values import tensor


def restore(prefix: str, keys: list[str], specs: dict[str, str] = {}, **options: Any) -> list[Exported]:
    """`tfckpt_reader_restore_dlpack`, of host tensors."""
    c_options = CDlpackOptions(struct_size=sizeof(CDlpackOptions), **options)
    reader = c_void_p()
    tfckpt._call("reader_open", prefix.encode(), None, byref(reader))
    try:
        return dlpack_objects.restore(tfckpt._call, reader, dlpack_objects.requests(keys, specs), c_options)
    finally:
        tfckpt._functions["reader_free"](reader)


NUMPY_DTYPES = [
    *(np.dtype(f"{kind}{size}") for kind in "iu" for size in (1, 2, 4, 8)),
    *(np.dtype(name) for name in ("f2", "f4", "f8", "c8", "c16", "?")),
]


def test_numpy_takes_what_tensorflow_saved(prefix: str) -> None:
    shapes = [(), (5,), (2, 3, 4), (3, 0, 2), (1, 7)]
    saved = {
        f"{dtype.name}/{number}": (np.arange(int(np.prod(shape))).reshape(shape) % 100).astype(dtype)
        for dtype in NUMPY_DTYPES
        for number, shape in enumerate(shapes)
    }
    tensorflow_side.save(prefix, saved)
    for key, exported in zip(saved, restore(prefix, list(saved))):
        array = np.from_dlpack(exported)
        assert array.dtype == saved[key].dtype and array.shape == saved[key].shape
        assert array.flags.writeable and (array.size == 0 or array.ctypes.data % 256 == 0)
        np.testing.assert_array_equal(array, saved[key])


def test_a_slice_is_an_array_of_its_own(prefix: str) -> None:
    whole = tensor(1, (4, 6))
    tfckpt.save(prefix, {"w": whole})
    (exported,) = restore(prefix, ["w"], {"w": "4 6 -:2,3"})
    np.testing.assert_array_equal(np.from_dlpack(exported), whole[:, 2:5])


def test_memory_goes_back_with_the_last_array(prefix: str) -> None:
    live: dict[int, Any] = {}

    @AllocFn
    def alloc(size: int, alignment: int, *_: Any) -> int:
        memory = ctypes.create_string_buffer(size + alignment)
        start = -(-ctypes.addressof(memory) // alignment) * alignment
        live[start] = memory
        return start

    @FreeFn
    def free(data: int, *_: Any) -> None:
        del live[data]

    tfckpt.save(prefix, {key: tensor(1, (10, 10), seed) for seed, key in enumerate("abc")})
    exported = restore(prefix, ["a", "b", "c"], alloc=alloc, free=free)
    assert len(live) == 1
    first, second = (np.from_dlpack(each) for each in exported[:2])
    del exported  # The third one was never taken.
    gc.collect()
    assert len(live) == 1
    view = second[1:, ::2]
    del first, second
    gc.collect()
    np.testing.assert_array_equal(view, tensor(1, (10, 10), 1)[1:, ::2])
    assert len(live) == 1
    del view
    gc.collect()
    assert not live

    exported = restore(prefix, ["a", "b", "c"], alloc=alloc, free=free, max_slab_size=1)
    assert len(live) == 3
    del exported[1]
    gc.collect()
    assert len(live) == 2
    exported.clear()
    gc.collect()
    assert not live


def test_what_numpy_cannot_take_is_given_back_all_the_same(prefix: str) -> None:
    tfckpt.save(prefix, {"b": tensor(14, (8,))})
    (exported,) = restore(prefix, ["b"])
    handed_out = exported.tensor
    assert (handed_out.code, handed_out.bits, handed_out.lanes) == (4, 16, 1)
    with pytest.raises((BufferError, RuntimeError)):
        np.from_dlpack(exported)


def test_strings_and_missing_keys_are_errors(prefix: str) -> None:
    tfckpt.save(prefix, {"s": np.array([b"x", b"yz"], object), "w": tensor(1, (3,))})
    with pytest.raises(CheckpointError, match="UNIMPLEMENTED: DLPack has no such data type"):
        restore(prefix, ["w", "s"])
    with pytest.raises(CheckpointError, match="NOT_FOUND: Key v not found"):
        restore(prefix, ["w", "v"])


def described(array: np.ndarray, key: str, for_restore: bool) -> tuple[CTensor, Any]:
    """`tfckpt_tensor_from_dlpack` of an array, and what must live as long."""
    return dlpack_objects.described(tfckpt._call, key, array, for_restore=for_restore)


@pytest.mark.parametrize("dtype", NUMPY_DTYPES, ids=str)
def test_numpy_arrays_are_saved_and_restored_to(prefix: str, dtype: np.dtype) -> None:
    values = (np.arange(24).reshape(4, 6) % 100).astype(dtype)
    c_tensor, capsule = described(values[1:3], "w", for_restore=False)
    tfckpt._call("save", prefix.encode(), byref(c_tensor), 1, None, None)
    (read,) = tensorflow_side.restore(prefix, [Request("w", dtype, (2, 6))])
    np.testing.assert_array_equal(read, values[1:3])

    target = np.zeros((2, 6), dtype)
    c_tensor, capsule = described(target, "w", for_restore=True)
    tfckpt._call("restore", prefix.encode(), byref(c_tensor), 1, None, None)
    np.testing.assert_array_equal(target, values[1:3])
    del capsule


def test_arrays_that_cannot_be_used_are_refused() -> None:
    values = tensor(1, (4, 6))
    with pytest.raises(CheckpointError, match="INVALID_ARGUMENT: the DLPack tensor is not contiguous"):
        described(values[:, 1:3], "w", for_restore=False)
    with pytest.raises(CheckpointError, match="INVALID_ARGUMENT: the DLPack tensor is not contiguous"):
        described(values.T, "w", for_restore=False)
    values.flags.writeable = False
    described(values, "w", for_restore=False)
    with pytest.raises(CheckpointError, match="INVALID_ARGUMENT: the DLPack tensor is read-only"):
        described(values, "w", for_restore=True)
