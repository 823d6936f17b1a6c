"""DLPack both ways, as Python's consumers and producers speak it: capsules around DLManagedTensorVersioned.

Some ask for the older DLManagedTensor, or give one: it is made here around the newer one, and the other way round.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Sequence
from ctypes import (
    CFUNCTYPE,
    POINTER,
    PYFUNCTYPE,
    Structure,
    byref,
    c_char_p,
    c_int,
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
from typing import Any

from tfckpt_abi import CDlpackOptions, CDlpackRequest, CTensor

CUDA = 2
"""kDLCUDA, and TFCKPT_DEVICE_CUDA."""
NEW, OLD = b"dltensor_versioned", b"dltensor"
_USED = b"used_dltensor_versioned"
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


# Capsules by their address: in its destructor an object has no references any more, and must not get new ones.
_new = PYFUNCTYPE(py_object, c_void_p, c_char_p, c_void_p)(("PyCapsule_New", ctypes.pythonapi))
_is_valid = PYFUNCTYPE(c_int, c_void_p, c_char_p)(("PyCapsule_IsValid", ctypes.pythonapi))
_get_pointer = PYFUNCTYPE(c_void_p, c_void_p, c_char_p)(("PyCapsule_GetPointer", ctypes.pythonapi))
_set_name = PYFUNCTYPE(c_int, c_void_p, c_char_p)(("PyCapsule_SetName", ctypes.pythonapi))


@PYFUNCTYPE(None, c_void_p)
def _destroy(capsule: int) -> None:
    """Deletes what nobody took."""
    for name, kind in ((NEW, Versioned), (OLD, Legacy)):
        if _is_valid(capsule, name):
            address = _get_pointer(capsule, name)
            kind.from_address(address).deleter(address)


def _capsule(address: int, name: bytes) -> Any:
    return _new(address, name, ctypes.cast(_destroy, c_void_p))


_legacy: dict[int, tuple[Legacy, int]] = {}
"""What older consumers hold, by the address of the struct, with that of the newer one inside."""


@Deleter
def _delete_legacy(address: int) -> None:
    _, inner = _legacy.pop(address)
    Versioned.from_address(inner).deleter(inner)


class Exported:
    """A restored tensor as consumers take it, once. What nobody takes goes with it.

    It keeps the capsule, too: a consumer that refuses it drops it with an error pending, and then no Python
    code, such as this module's destructor, may run.
    """

    def __init__(self, address: int) -> None:
        self._capsule: Any = _capsule(address, NEW)
        self._address = address

    @property
    def tensor(self) -> DLTensor:
        """What is handed out; valid until it is deleted."""
        return Versioned.from_address(self._address).tensor

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.tensor.device_type, self.tensor.device_id

    def __dlpack__(self, *, max_version: tuple[int, int] | None = None, **_others: Any) -> Any:
        """The restore has been waited for, so that no stream has to wait."""
        assert _is_valid(id(self._capsule), NEW), "was taken before"
        if max_version and tuple(max_version) >= (1, 0):
            return self._capsule
        _set_name(id(self._capsule), _USED)
        legacy = Legacy(tensor=self.tensor, deleter=_delete_legacy)
        _legacy[ctypes.addressof(legacy)] = (legacy, self._address)
        return _capsule(ctypes.addressof(legacy), OLD)

    def close(self) -> None:
        """Deletes it, if nobody took it."""
        self._capsule = None


def requests(
    keys: Sequence[str], specs: dict[str, str] = {}, device: int | None = None, stream: int = 0
) -> ctypes.Array[CDlpackRequest]:
    """For these tensors, or slices of them, on the host or on a device."""
    out = (CDlpackRequest * len(keys))()
    for request, key in zip(out, keys):
        request.struct_size, request.key, request.key_size = sizeof(CDlpackRequest), key.encode(), len(key.encode())
        request.slice_spec = specs[key].encode() if key in specs else None
        if device is not None:
            request.device_type, request.device_id, request.stream = CUDA, device, stream or None
    return out


def restore(
    call: Callable[..., None], reader: c_void_p, wanted: ctypes.Array[CDlpackRequest], options: CDlpackOptions
) -> list[Exported]:
    """`tfckpt_reader_restore_dlpack`; the options' callbacks must outlive the tensors."""
    out = (c_void_p * len(wanted))()
    try:
        call("reader_restore_dlpack", reader, wanted, c_size_t(len(wanted)), byref(options), out, None)
    except Exception:
        assert all(address is None for address in out), "tensors were handed out with an error"
        raise
    return [Exported(address) for address in out]


def described(
    call: Callable[..., None], key: str, producer: Any, *, for_restore: bool, stream: int = 0
) -> tuple[CTensor, Any]:
    """Another library's tensor as one of a call, by `tfckpt_tensor_from_dlpack`, and what must live as long."""
    keywords: dict[str, Any] = {"max_version": (1, 0)}
    if stream:
        keywords["stream"] = stream
    capsule = producer.__dlpack__(**keywords)
    managed = _versioned(capsule)
    name = key.encode()
    tensor = CTensor(struct_size=sizeof(CTensor), key=name, key_size=len(name), stream=stream or None)
    call("tensor_from_dlpack", byref(managed), c_int32(for_restore), byref(tensor))
    return tensor, (capsule, managed)


def _versioned(capsule: Any) -> Versioned:
    """What is in a capsule; around an older struct a newer one that owns nothing."""
    if _is_valid(id(capsule), NEW):
        return Versioned.from_address(_get_pointer(id(capsule), NEW))
    old = Legacy.from_address(_get_pointer(id(capsule), OLD))
    return Versioned(major=1, tensor=old.tensor)
