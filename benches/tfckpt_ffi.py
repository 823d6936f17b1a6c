"""The little of include/tfckpt.h that the bench calls, through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_int32, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

# The structs and prototypes are those of the interop tests, which compare them with the header.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "interop"))
from tfckpt_abi import (  # noqa: E402
    CContextOptions,
    CCudaDevice,
    CCudaDriver,
    CMergeOptions,
    CRestoreOptions,
    CSaveOptions,
    CStats,
    CTensor,
)
from tfckpt_library import Functions, TfckptError  # noqa: E402

from workloads import Workload  # noqa: E402

CUDA = 2
"""TFCKPT_DEVICE_CUDA."""

VERIFY_FULL, VERIFY_FETCHED, VERIFY_NONE = 0, 1, 2
DTYPES = {"float32": 1, "bfloat16": 14, "strings": 7}

_INIT = {
    CTensor: "tfckpt_tensor_init",
    CStats: "tfckpt_stats_init",
    CContextOptions: "tfckpt_context_options_init",
    CSaveOptions: "tfckpt_save_options_init",
    CRestoreOptions: "tfckpt_restore_options_init",
    CMergeOptions: "tfckpt_merge_options_init",
    CCudaDriver: "tfckpt_cuda_driver_init",
    CCudaDevice: "tfckpt_cuda_device_init",
}

_OUT = ctypes.POINTER(c_void_p)
_BUFFERS: dict[str, tuple[Any, list[Any]]] = {
    "buffer_new": (c_int32, [c_uint64, _OUT, _OUT]),
    "buffer_data": (c_void_p, [c_void_p]),
    "buffer_free": (None, [c_void_p]),
}


def _format(kind: Any) -> str:
    number = kind in (ctypes.c_int32, ctypes.c_int64)
    return f"<{'i' if number else 'u'}{ctypes.sizeof(kind)}"


_RECORD = np.dtype(
    {
        "names": [name for name, _ in CTensor._fields_],
        "formats": [_format(kind) for _, kind in CTensor._fields_],
        "offsets": [getattr(CTensor, name).offset for name, _ in CTensor._fields_],
        "itemsize": ctypes.sizeof(CTensor),
    }
)


class TensorArray:
    """An array of tfckpt_tensor, made at the speed of NumPy; it borrows the tensors' memory."""

    def __init__(self, keys: list[str], shapes: list[tuple[int, ...]], dtypes: list[int]) -> None:
        encoded = [key.encode() for key in keys]
        self._keys = np.frombuffer(b"".join(encoded) + b"\0", np.uint8)
        self._dims = np.array([dim for shape in shapes for dim in shape] + [0], np.int64)
        self._texts: list[Any] = []
        ranks = np.array([len(shape) for shape in shapes], np.uint64)
        sizes = np.array([len(key) for key in encoded], np.uint64)
        self.records = np.zeros(len(keys), _RECORD)
        self.records["struct_size"] = ctypes.sizeof(CTensor)
        self.records["key"] = _starts(sizes) + np.uint64(self._keys.ctypes.data)
        self.records["key_size"], self.records["rank"], self.records["dtype"] = sizes, ranks, dtypes
        self.records["shape"] = _starts(ranks) * np.uint64(8) + np.uint64(self._dims.ctypes.data)

    @classmethod
    def of_workload(cls, workload: Workload, pieces: np.ndarray, order: np.ndarray | None = None) -> TensorArray:
        """A workload's tensors at the pieces' places, in the given order."""
        specs = workload.specs
        out = cls([s.key for s in specs], [s.shape for s in specs], [DTYPES[s.dtype.name] for s in specs])
        out.move(pieces)
        if order is not None:
            out.records = np.ascontiguousarray(out.records[order])
        return out

    @classmethod
    def of_arrays(cls, keys: list[str], arrays: list[np.ndarray]) -> TensorArray:
        """NumPy arrays; the caller keeps them."""
        out = cls(keys, [a.shape for a in arrays], [DTYPES[a.dtype.name] for a in arrays])
        out.records["data"] = [a.ctypes.data for a in arrays]
        out.records["size"] = [a.nbytes for a in arrays]
        return out

    def move(self, pieces: np.ndarray) -> None:
        """To other memory."""
        self.records["data"], self.records["size"] = pieces["data"], pieces["size"]

    def set_texts(self, field: str, texts: list[str]) -> None:
        """A field of C strings, such as slice_spec."""
        buffers = [ctypes.create_string_buffer(text.encode()) for text in texts]
        self._texts.append(buffers)
        self.records[field] = [ctypes.addressof(buffer) for buffer in buffers]

    def on_device(self, number: int, stream: int = 0) -> TensorArray:
        """The same in a GPU's memory, which is where `data` points to."""
        self.records["device_type"], self.records["device_id"], self.records["stream"] = CUDA, number, stream
        return self

    def part(self, start: int, stop: int) -> TensorArray:
        """Some of them, sharing what they point to."""
        out = TensorArray([], [], [])
        out._keys, out._dims, out._texts = self._keys, self._dims, self._texts
        out.records = self.records[start:stop]
        return out

    @property
    def arguments(self) -> tuple[Any, int]:
        """As C functions take them."""
        return ctypes.cast(c_void_p(self.records.ctypes.data), ctypes.POINTER(CTensor)), len(self.records)


def _starts(sizes: np.ndarray) -> np.ndarray:
    return (np.cumsum(sizes) - sizes).astype(np.uint64)


class Tfckpt(Functions):
    """The loaded library, with contexts."""

    def __init__(self, path: Path) -> None:
        super().__init__(path, _BUFFERS)
        self._contexts: list[c_void_p] = []

    def address(self, name: str) -> c_void_p:
        """Of a function."""
        return ctypes.cast(getattr(self._lib, f"tfckpt_{name}"), c_void_p)

    def version(self) -> str:
        """The library's version."""
        return str(self._lib.tfckpt_version_string(), "ascii")

    def new(self, kind: type[ctypes.Structure]) -> Any:
        """A struct that the library itself has initialised, which also proves that it knows this size."""
        struct = kind()
        code = getattr(self._lib, _INIT[kind])(byref(struct), ctypes.sizeof(kind))
        if code or struct.struct_size != ctypes.sizeof(kind):
            raise TfckptError(_INIT[kind], code, "tfckpt_abi.py does not match the library's header")
        return struct

    def context(self, num_threads: int, max_host_bytes: int = 0) -> c_void_p:
        """A context of its own for one contender, valid until free_contexts."""
        options = self.new(CContextOptions)
        options.num_threads, options.max_host_bytes = num_threads, max_host_bytes
        context = self.make("context_new", byref(options))
        self._contexts.append(context)
        return context

    def free_contexts(self) -> None:
        """Ends all threads and gives back all buffers of the contexts."""
        while self._contexts:
            self._lib.tfckpt_context_free(self._contexts.pop())

    def save(self, prefix: str, tensors: TensorArray, options: CSaveOptions) -> None:
        """tfckpt_save."""
        self.call("save", os.fsencode(prefix), *tensors.arguments, byref(options), None)

    def restore(self, prefix: str, tensors: TensorArray, options: CRestoreOptions) -> None:
        """tfckpt_restore."""
        self.call("restore", os.fsencode(prefix), *tensors.arguments, byref(options), None)
