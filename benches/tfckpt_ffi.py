"""The little of include/tfckpt.h that the bench calls, through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import POINTER, byref, c_char_p, c_int32, c_int64, c_size_t, c_void_p
from pathlib import Path

import numpy as np

# The structs are those of the interop tests, which compare them with the header.
sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "interop"))
from tfckpt_abi import CContextOptions, CRestoreOptions, CSaveOptions, CStats, CTensor  # noqa: E402

DTYPE_FLOAT = 1

_PROTOTYPES: dict[str, tuple[object, list[object]]] = {
    "tfckpt_version_string": (c_char_p, []),
    "tfckpt_context_options_init": (c_int32, [POINTER(CContextOptions), c_size_t]),
    "tfckpt_save_options_init": (c_int32, [POINTER(CSaveOptions), c_size_t]),
    "tfckpt_restore_options_init": (c_int32, [POINTER(CRestoreOptions), c_size_t]),
    "tfckpt_stats_init": (c_int32, [POINTER(CStats), c_size_t]),
    "tfckpt_tensor_init": (c_int32, [POINTER(CTensor), c_size_t]),
    "tfckpt_context_new": (c_int32, [POINTER(CContextOptions), POINTER(c_void_p), POINTER(c_void_p)]),
    "tfckpt_context_free": (None, [c_void_p]),
    "tfckpt_save": (
        c_int32,
        [c_char_p, POINTER(CTensor), c_size_t, POINTER(CSaveOptions), POINTER(c_char_p), POINTER(c_void_p)],
    ),
    "tfckpt_restore": (
        c_int32,
        [c_char_p, POINTER(CTensor), c_size_t, POINTER(CRestoreOptions), POINTER(c_int32), POINTER(c_void_p)],
    ),
    "tfckpt_error_message": (c_char_p, [c_void_p]),
    "tfckpt_error_free": (None, [c_void_p]),
}


class TfckptError(Exception):
    """A call of the library failed."""


class Tfckpt:
    """The loaded library."""

    def __init__(self, path: Path) -> None:
        self._lib = ctypes.CDLL(str(path))
        self._contexts: list[c_void_p] = []
        for name, (result, arguments) in _PROTOTYPES.items():
            function = getattr(self._lib, name)
            function.restype = result
            function.argtypes = arguments

    def version(self) -> str:
        """The library's version."""
        return str(self._lib.tfckpt_version_string(), "ascii")

    def new(self, kind: type[ctypes.Structure]) -> ctypes.Structure:
        """A struct that the library itself has initialised, which also proves that both sides agree on its size."""
        name = {
            CTensor: "tfckpt_tensor_init",
            CStats: "tfckpt_stats_init",
            CContextOptions: "tfckpt_context_options_init",
            CSaveOptions: "tfckpt_save_options_init",
            CRestoreOptions: "tfckpt_restore_options_init",
        }[kind]
        struct = kind()
        code = getattr(self._lib, name)(byref(struct), ctypes.sizeof(kind))
        if code or struct.struct_size != ctypes.sizeof(kind):
            raise TfckptError(f"{name} code={code}: tfckpt_ffi.py does not match the library's header")
        return struct

    def context(self, num_threads: int) -> c_void_p:
        """A context of its own for one contender, valid until free_contexts."""
        options = self.new(CContextOptions)
        options.num_threads = num_threads
        context, error = c_void_p(), c_void_p()
        self._check(self._lib.tfckpt_context_new(byref(options), byref(context), byref(error)), error)
        self._contexts.append(context)
        return context

    def free_contexts(self) -> None:
        """Ends all threads and gives back all buffers of the contexts."""
        while self._contexts:
            self._lib.tfckpt_context_free(self._contexts.pop())

    def tensors(self, keys: list[str], arrays: list[np.ndarray], order: list[int]) -> ctypes.Array[CTensor]:
        """The array of tfckpt_tensor for float32 arrays, in the given order; it borrows the arrays' memory."""
        out = (CTensor * len(order))()
        for tensor, i in zip(out, order):
            key, array = keys[i].encode(), arrays[i]
            tensor.struct_size = ctypes.sizeof(CTensor)
            tensor.key, tensor.key_size = key, len(key)
            tensor.dtype, tensor.rank = DTYPE_FLOAT, array.ndim
            tensor.shape = (c_int64 * array.ndim)(*array.shape)
            tensor.data, tensor.size = array.ctypes.data, array.nbytes
        return out

    def save(self, prefix: str, tensors: ctypes.Array[CTensor], options: ctypes.Structure) -> None:
        """tfckpt_save."""
        error = c_void_p()
        code = self._lib.tfckpt_save(os.fsencode(prefix), tensors, len(tensors), byref(options), None, byref(error))
        self._check(code, error)

    def restore(self, prefix: str, tensors: ctypes.Array[CTensor], options: ctypes.Structure) -> None:
        """tfckpt_restore."""
        error = c_void_p()
        code = self._lib.tfckpt_restore(os.fsencode(prefix), tensors, len(tensors), byref(options), None, byref(error))
        self._check(code, error)

    def _check(self, code: int, error: c_void_p) -> None:
        if code == 0:
            return
        message = self._lib.tfckpt_error_message(error) if error else b""
        self._lib.tfckpt_error_free(error)
        raise TfckptError(f"code={code} {message.decode(errors='replace')}")
