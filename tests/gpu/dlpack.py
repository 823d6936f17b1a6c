"""DLPack both ways, as Python's consumers and producers speak it: capsules around DLManagedTensorVersioned.

JAX asks for the older DLManagedTensor, which is made here around the newer one.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import (
    CFUNCTYPE,
    POINTER,
    Structure,
    byref,
    c_char_p,
    c_int32,
    c_int64,
    c_size_t,
    c_uint8,
    c_uint16,
    c_uint32,
    c_uint64,
    c_void_p,
    py_object,
    sizeof,
)
from pathlib import Path
from typing import Any

from binding import CUDA, Library
from tfckpt_abi import CDlpackOptions, CDlpackRequest, CTensor

Deleter = CFUNCTYPE(None, c_void_p)


class DLTensor(Structure):
    """DLPack's."""

    _fields_ = [
        ("data", c_void_p),
        ("device_type", c_int32),
        ("device_id", c_int32),
        ("ndim", c_int32),
        ("code", c_uint8),
        ("bits", c_uint8),
        ("lanes", c_uint16),
        ("shape", POINTER(c_int64)),
        ("strides", POINTER(c_int64)),
        ("byte_offset", c_uint64),
    ]


class Versioned(Structure):
    """DLManagedTensorVersioned."""

    _fields_ = [
        ("major", c_uint32),
        ("minor", c_uint32),
        ("manager", c_void_p),
        ("deleter", Deleter),
        ("flags", c_uint64),
        ("tensor", DLTensor),
    ]


class Legacy(Structure):
    """DLManagedTensor."""

    _fields_ = [("tensor", DLTensor), ("manager", c_void_p), ("deleter", Deleter)]


NEW, OLD = b"dltensor_versioned", b"dltensor"
_python = ctypes.pythonapi
_python.PyCapsule_New.restype = py_object
_python.PyCapsule_New.argtypes = [c_void_p, c_char_p, c_void_p]
# By address: an object whose reference count has come to 0 must not be counted again.
_python.PyCapsule_IsValid.argtypes = [c_void_p, c_char_p]
_python.PyCapsule_GetPointer.restype = c_void_p
_python.PyCapsule_GetPointer.argtypes = [c_void_p, c_char_p]
_python.PyCapsule_SetName.argtypes = [c_void_p, c_char_p]


@CFUNCTYPE(None, c_void_p)
def _unused(capsule: int) -> None:
    """The capsule's destructor: deletes what nobody took."""
    for name, kind in ((NEW, Versioned), (OLD, Legacy)):
        if _python.PyCapsule_IsValid(capsule, name):
            address = _python.PyCapsule_GetPointer(capsule, name)
            kind.from_address(address).deleter(address)


_legacy: dict[int, tuple[Legacy, int]] = {}
"""What the older consumers hold, by the address of the struct, with that of the newer one inside."""


@Deleter
def _delete_legacy(address: int) -> None:
    _, inner = _legacy.pop(address)
    Versioned.from_address(inner).deleter(inner)


class Exported:
    """A restored tensor as Python's consumers want it: taken once, or freed with `close`."""

    def __init__(self, address: int) -> None:
        self.address: int | None = address

    @property
    def tensor(self) -> DLTensor:
        """What is handed out."""
        return Versioned.from_address(self.address).tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.device_type, self.tensor.device_id

    def __dlpack__(self, *, stream: Any = None, max_version: tuple[int, int] | None = None, **_others: Any) -> Any:
        """The restore has been waited for, so that no stream has to wait."""
        assert self.address, "was taken before"
        address, self.address = self.address, None
        if max_version and tuple(max_version) >= (1, 0):
            return _python.PyCapsule_New(address, NEW, ctypes.cast(_unused, c_void_p))
        inner = Versioned.from_address(address)
        legacy = Legacy(tensor=inner.tensor, deleter=_delete_legacy)
        _legacy[ctypes.addressof(legacy)] = (legacy, address)
        return _python.PyCapsule_New(ctypes.addressof(legacy), OLD, ctypes.cast(_unused, c_void_p))

    def close(self) -> None:
        """Frees what nobody took."""
        if self.address:
            address, self.address = self.address, None
            Versioned.from_address(address).deleter(address)


def restore(
    lib: Library,
    prefix: Path,
    keys: list[str],
    device: int | None,
    *,
    alloc: Any = None,
    free: Any = None,
    stream: int = 0,
) -> list[Exported]:
    """tfckpt_reader_restore_dlpack; the callbacks must outlive the tensors."""
    requests = (CDlpackRequest * len(keys))()
    for request, key in zip(requests, keys):
        request.struct_size, request.key, request.key_size = sizeof(CDlpackRequest), key.encode(), len(key.encode())
        if device is not None:
            request.device_type, request.device_id, request.stream = CUDA, device, stream or None
    how = lib.restore_options()
    options = CDlpackOptions(struct_size=sizeof(CDlpackOptions), restore=ctypes.pointer(how))
    if alloc:
        options.alloc, options.free = alloc, free
    reader = lib.make("reader_open", os.fsencode(prefix), None)
    out = (c_void_p * len(keys))()
    try:
        lib.call("reader_restore_dlpack", reader, requests, c_size_t(len(keys)), byref(options), out, None)
    finally:
        lib.plain("reader_free", reader)
    return [Exported(address) for address in out]


@contextmanager
def described(lib: Library, key: str, producer: Any, *, for_restore: bool, stream: int = 0) -> Iterator[CTensor]:
    """A tensor of another library as one of a call: tfckpt_tensor_from_dlpack. The other's stays alive meanwhile."""
    keywords: dict[str, Any] = {"max_version": (1, 0)}
    if stream:
        keywords["stream"] = stream
    capsule = producer.__dlpack__(**keywords)
    address = _python.PyCapsule_GetPointer(id(capsule), NEW)
    name = key.encode()
    tensor = CTensor(struct_size=sizeof(CTensor), key=name, key_size=len(name), stream=stream or None)
    lib.call("tensor_from_dlpack", c_void_p(address), c_int32(for_restore), byref(tensor))
    yield tensor
    del capsule
