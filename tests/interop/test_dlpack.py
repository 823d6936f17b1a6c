"""Tensors to and from NumPy by DLPack's versioned capsules."""

from __future__ import annotations

import ctypes
import gc
from ctypes import POINTER, byref, c_char_p, c_int64, c_uint8, c_void_p, py_object, sizeof
from typing import Any

import numpy as np
import pytest

import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, Request
from tfckpt_abi import AllocFn, CDlpackOptions, CDlpackRequest, CTensor, FreeFn
from values import tensor

NAME, USED = b"dltensor_versioned", b"used_dltensor_versioned"

_api = ctypes.pythonapi
_api.PyCapsule_New.restype = py_object
_api.PyCapsule_New.argtypes = [c_void_p, c_char_p, c_void_p]
_api.PyCapsule_GetPointer.restype = c_void_p
_api.PyCapsule_GetPointer.argtypes = [py_object, c_char_p]

# A destructor gets an object that is going: it must not become a Python reference again.
_is_valid = ctypes.PYFUNCTYPE(ctypes.c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", _api))
_get_pointer = ctypes.PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", _api))


class _Managed(ctypes.Structure):
    """The fields of a DLManagedTensorVersioned that somebody who passes it on looks at."""

    _fields_ = [
        ("major", ctypes.c_uint32),
        ("minor", ctypes.c_uint32),
        ("manager_ctx", c_void_p),
        ("deleter", ctypes.CFUNCTYPE(None, c_void_p)),
        ("flags", ctypes.c_uint64),
        ("data", c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


def _managed(pointer: int) -> _Managed:
    return _Managed.from_address(pointer)


@ctypes.PYFUNCTYPE(None, c_void_p)
def _destroy(capsule: int) -> None:
    if _is_valid(capsule, NAME):
        pointer = _get_pointer(capsule, NAME)
        _managed(pointer).deleter(pointer)


class Exported:
    """A tensor that was handed out, as the object that consumers take."""

    def __init__(self, pointer: int) -> None:
        self.capsule = _api.PyCapsule_New(pointer, NAME, ctypes.cast(_destroy, c_void_p))
        managed = _managed(pointer)
        self.device = (managed.device_type, managed.device_id)

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_: Any) -> Any:
        assert max_version is not None and max_version[0] >= 1
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.device


def restore(prefix: str, keys: list[str], specs: dict[str, str] = {}, **options: Any) -> list[Exported]:
    """`tfckpt_reader_restore_dlpack`, of host tensors."""
    requests = (CDlpackRequest * len(keys))()
    for request, key in zip(requests, keys):
        request.struct_size = sizeof(CDlpackRequest)
        request.key, request.key_size = key.encode(), len(key.encode())
        request.slice_spec = specs[key].encode() if key in specs else None
    out = (c_void_p * len(keys))()
    c_options = CDlpackOptions(struct_size=sizeof(CDlpackOptions), **options)
    reader = c_void_p()
    tfckpt._call("reader_open", prefix.encode(), None, byref(reader))
    try:
        tfckpt._call(
            "reader_restore_dlpack", reader, requests, len(keys), byref(c_options), out, None
        )
    finally:
        tfckpt._functions["reader_free"](reader)
        if any(pointer is None for pointer in out):
            assert all(pointer is None for pointer in out)
    return [Exported(pointer) for pointer in out]


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
    managed = _managed(_api.PyCapsule_GetPointer(exported.capsule, NAME))
    assert (managed.code, managed.bits, managed.lanes) == (4, 16, 1)
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
    capsule = array.__dlpack__(max_version=(1, 0))
    c_tensor = CTensor(struct_size=sizeof(CTensor), key=key.encode(), key_size=len(key))
    pointer = _api.PyCapsule_GetPointer(capsule, NAME)
    tfckpt._call("tensor_from_dlpack", pointer, int(for_restore), byref(c_tensor))
    return c_tensor, capsule


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
