"""The calls of the C header that the GPU interop tests make, through ctypes."""

from __future__ import annotations

import ctypes
import os
import sys
from ctypes import byref, c_int32, c_size_t, c_uint64, c_void_p, sizeof
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).resolve().parents[1] / "interop"))
from tfckpt_abi import CContextOptions, CRestoreOptions, CSaveOptions, CTensor  # noqa: E402
from tfckpt_library import Functions  # noqa: E402

CUDA = 2
UNORDERED = 1
INVALID_ARGUMENT, FAILED_PRECONDITION = 3, 9
FOREVER = -1
FLOAT32, BFLOAT16, UINT8 = 1, 14, 4


@dataclass(frozen=True)
class Placed:
    """A tensor of a call: what the checkpoint calls it, and where its bytes are."""

    key: str
    dtype: int
    shape: tuple[int, ...]
    address: int
    size: int
    device: int | None = None
    """None: the host."""
    stream: int = 0
    flags: int = 0
    slice_spec: str = ""


def on_host(key: str, array: np.ndarray) -> Placed:
    """A NumPy array of float32 or bytes."""
    return Placed(key, {"f": FLOAT32, "u": UINT8}[array.dtype.kind], array.shape, array.ctypes.data, array.nbytes)


class Tensors:
    """An array of tfckpt_tensor with all that it points to."""

    def __init__(self, placed: list[Placed]) -> None:
        self.array = (CTensor * len(placed))()
        self._kept: list[Any] = []
        for record, tensor in zip(self.array, placed):
            shape = (ctypes.c_int64 * len(tensor.shape))(*tensor.shape)
            self._kept.append(shape)
            record.struct_size = sizeof(CTensor)
            record.key, record.key_size = tensor.key.encode(), len(tensor.key.encode())
            record.dtype, record.rank, record.shape = tensor.dtype, len(tensor.shape), shape
            record.data, record.size = tensor.address, tensor.size
            record.slice_spec = tensor.slice_spec.encode() or None
            if tensor.device is not None:
                record.device_type, record.device_id = CUDA, tensor.device
                record.stream, record.flags = tensor.stream or None, tensor.flags

    @property
    def arguments(self) -> tuple[Any, int]:
        """As C functions take them."""
        return self.array, len(self.array)


class Library(Functions):
    """The loaded library, with a context."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.context = self.new_context()

    def close(self) -> None:
        """Gives the context back, and with it all page-locked memory."""
        self.plain("context_free", self.context)

    def new_context(self, max_host_bytes: int = 0) -> c_void_p:
        """To be freed with `tfckpt_context_free`."""
        options = CContextOptions(struct_size=sizeof(CContextOptions), max_host_bytes=max_host_bytes)
        return self.make("context_new", byref(options))

    def save(self, prefix: Path, placed: list[Placed]) -> None:
        """tfckpt_save, without a sync."""
        options = CSaveOptions(struct_size=sizeof(CSaveOptions), context=self.context, no_sync=1)
        self.call("save", os.fsencode(prefix), *Tensors(placed).arguments, byref(options), None)

    def restore(
        self, prefix: Path, placed: list[Placed], *, context: c_void_p | None = None, stream_ordered: bool = False
    ) -> None:
        """tfckpt_restore."""
        options = self.restore_options(context)
        options.stream_ordered = stream_ordered
        self.call("restore", os.fsencode(prefix), *Tensors(placed).arguments, byref(options), None)

    def restore_options(self, context: c_void_p | None = None) -> CRestoreOptions:
        """The default, in the library's context or another."""
        return CRestoreOptions(struct_size=sizeof(CRestoreOptions), context=context or self.context)

    def restored_on_host(self, prefix: Path, key: str, shape: tuple[int, ...]) -> np.ndarray:
        """A tensor of float32, to compare with."""
        array = np.full(shape, np.nan, np.float32)
        self.restore(prefix, [on_host(key, array)])
        return array


class Driver:
    """The little of CUDA's driver that the tests look at by themselves, and that works on the fake one, too."""

    def __init__(self) -> None:
        self._lib = _driver()
        self.is_fake = hasattr(self._lib, "fakecuda_reset")
        self._check(self._lib.cuInit(0))

    def retain(self, number: int) -> None:
        """Makes the device's primary context the thread's current one, and keeps it for the process."""
        context, device = c_void_p(), c_int32()
        self._check(self._lib.cuDeviceGet(byref(device), number))
        self._check(self._lib.cuDevicePrimaryCtxRetain(byref(context), device))
        self._check(self._lib.cuCtxSetCurrent(context))

    def current(self) -> int:
        """The thread's current context; 0 without one."""
        context = c_void_p()
        self._check(self._lib.cuCtxGetCurrent(byref(context)))
        return context.value or 0

    def allocate(self, size: int) -> int:
        """Device memory in the current context."""
        address = c_uint64()
        self._check(self._lib.cuMemAlloc_v2(byref(address), c_size_t(size)))
        return address.value

    def free(self, address: int) -> None:
        """Gives it back."""
        self._check(self._lib.cuMemFree_v2(c_uint64(address)))

    def new_stream(self) -> int:
        """One that does not wait for others."""
        stream = c_void_p()
        self._check(self._lib.cuStreamCreate(byref(stream), 1))
        return stream.value or 0

    def wait(self, stream: int) -> None:
        """Until all that is enqueued on the stream has run."""
        self._check(self._lib.cuStreamSynchronize(c_void_p(stream)))

    def fill(self, address: int, byte: int, size: int, stream: int) -> None:
        """Enqueues an overwriting."""
        self._check(self._lib.cuMemsetD8Async(c_uint64(address), byte, c_size_t(size), c_void_p(stream)))

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """Enqueues a copy within the device."""
        arguments = (c_uint64(to), c_uint64(source), c_size_t(size), c_void_p(stream))
        self._check(self._lib.cuMemcpyDtoDAsync_v2(*arguments))

    def upload(self, address: int, array: np.ndarray) -> None:
        """To the device, at once."""
        self._check(self._lib.cuMemcpyHtoD_v2(c_uint64(address), c_void_p(array.ctypes.data), c_size_t(array.nbytes)))

    def download(self, array: np.ndarray, address: int) -> None:
        """From the device, at once."""
        self._check(self._lib.cuMemcpyDtoH_v2(c_void_p(array.ctypes.data), c_uint64(address), c_size_t(array.nbytes)))

    def hold(self, stream: int, held: bool) -> None:
        """Of the fake alone: a stream stands still, as if it had much to do."""
        self._check(self._lib.fakecuda_hold_stream(c_void_p(stream), int(held)))

    def _check(self, code: int) -> None:
        if code:
            raise RuntimeError(f"CUDA error {code}")


def _driver() -> ctypes.CDLL:
    """As the library looks for it."""
    for name in ("libcuda.so", "libcuda.so.1"):
        try:
            return ctypes.CDLL(name)
        except OSError:
            continue
    raise OSError("there is no CUDA driver")


