"""What owns the GPU's memory in a test: the driver itself, PyTorch, CuPy. To `cases.py` all offer the same."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import numpy as np

from binding import BFLOAT16, FLOAT32, Driver, Placed

BUSY_SECONDS = 0.05
CYCLES = 100_000_000
"""About as long, on a GPU."""
DEVICE = 0


class Skip(Exception):
    """A case cannot be played here; says why."""


class Engine(Protocol):
    """A library that owns arrays and streams on a GPU. Arrays are of float32."""

    name: str

    def array(self, values: np.ndarray) -> Any:
        """A new array with these values, there when this returns."""

    def place(self, key: str, array: Any, stream: Any = None, flags: int = 0) -> Placed:
        """The array as a tensor that is used on the stream; None is the default stream."""

    def values(self, array: Any) -> np.ndarray:
        """What is in it once everything has run."""

    def stream(self) -> Any:
        """A new one."""

    def keep_busy(self, stream: Any) -> None:
        """Enqueues work that takes a while."""

    def fill(self, array: Any, value: float, stream: Any) -> None:
        """Enqueues an overwriting; value is 0 or -1."""

    def copy(self, array: Any, stream: Any) -> Any:
        """Enqueues a copy to a new array."""

    def current(self) -> Any:
        """The device, or whatever else this engine thinks of as current."""


class OnDriver:
    """Plain calls of the driver: works on the fake one, too."""

    name = "driver"

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        driver.retain(DEVICE)
        self._scratch: tuple[int, int] | None = None

    def array(self, values: np.ndarray) -> tuple[int, tuple[int, ...]]:
        """Never freed: the process is short."""
        address = self._driver.allocate(max(values.nbytes, 1))
        self._driver.upload(address, np.array(values, order="C"))
        return address, values.shape

    def place(self, key: str, array: tuple[int, tuple[int, ...]], stream: Any = None, flags: int = 0) -> Placed:
        """As it is."""
        address, shape = array
        return Placed(key, FLOAT32, shape, address, _size(shape), DEVICE, stream or 0, flags)

    def values(self, array: tuple[int, tuple[int, ...]]) -> np.ndarray:
        """By a copy that waits for nothing but itself: streams have to be waited for before."""
        out = np.empty(array[1], np.float32)
        self._driver.download(out, array[0])
        return out

    def stream(self) -> int:
        """A stream that does not wait for the default one."""
        return self._driver.new_stream()

    def keep_busy(self, stream: int) -> None:
        """The fake holds the stream for a while; a real one has much to overwrite."""
        if self._driver.is_fake:
            self._driver.hold(stream, True)
            threading.Timer(BUSY_SECONDS, self._driver.hold, (stream, False)).start()
            return
        if self._scratch is None:
            size = 1 << 28
            self._scratch = (self._driver.allocate(size), size)
        for byte in range(200):
            self._driver.fill(self._scratch[0], byte, self._scratch[1], stream)

    def fill(self, array: tuple[int, tuple[int, ...]], value: float, stream: int) -> None:
        """Bytes of 0, or of 0xBF: any number that is not restored."""
        self._driver.fill(array[0], 0 if value == 0 else 0xBF, _size(array[1]), stream)

    def copy(self, array: tuple[int, tuple[int, ...]], stream: int) -> tuple[int, tuple[int, ...]]:
        """And waits, for nobody else would before the values are looked at."""
        address = self._driver.allocate(_size(array[1]))
        self._driver.copy(address, array[0], _size(array[1]), stream)
        self._driver.wait(stream)
        return address, array[1]

    def current(self) -> int:
        """The current context."""
        return self._driver.current()


def _size(shape: tuple[int, ...]) -> int:
    return int(np.prod(shape, dtype=np.int64)) * 4


class OnTorch:
    """PyTorch's caching allocator and streams."""

    name = "torch"

    def __init__(self) -> None:
        try:
            import torch
        except ImportError as error:
            raise Skip(f"torch is not installed: {error}") from error
        if not torch.cuda.is_available():
            raise Skip("torch finds no GPU")
        self.torch: Any = torch
        torch.cuda.set_device(DEVICE)
        torch.zeros(1, device="cuda")

    def array(self, values: np.ndarray) -> Any:
        """On the default stream, and waited for."""
        tensor = self.torch.from_numpy(np.array(values, order="C")).cuda()
        self.torch.cuda.synchronize()
        return tensor

    def place(self, key: str, array: Any, stream: Any = None, flags: int = 0) -> Placed:
        """float32 or bfloat16."""
        dtype = {self.torch.float32: FLOAT32, self.torch.bfloat16: BFLOAT16}[array.dtype]
        handle = stream.cuda_stream if stream else 0
        address, size = array.data_ptr(), array.numel() * array.element_size()
        return Placed(key, dtype, tuple(array.shape), address, size, array.device.index, handle, flags)

    def values(self, array: Any) -> np.ndarray:
        """Once the GPU is idle."""
        self.torch.cuda.synchronize()
        values: np.ndarray = array.cpu().numpy()
        return values

    def stream(self) -> Any:
        """Of torch's pool."""
        return self.torch.cuda.Stream()

    def keep_busy(self, stream: Any) -> None:
        """A kernel that counts cycles."""
        with self.torch.cuda.stream(stream):
            self.torch.cuda._sleep(CYCLES)

    def fill(self, array: Any, value: float, stream: Any) -> None:
        """A kernel."""
        with self.torch.cuda.stream(stream):
            array.fill_(value)

    def copy(self, array: Any, stream: Any) -> Any:
        """A kernel, to memory of the stream's own."""
        with self.torch.cuda.stream(stream):
            return array.clone()

    def current(self) -> Any:
        """Device and stream."""
        return self.torch.cuda.current_device(), self.torch.cuda.current_stream().cuda_stream


class OnCupy:
    """CuPy's pool and streams."""

    name = "cupy"

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise Skip(f"CuPy is not installed: {error}") from error
        try:
            found = cupy.cuda.runtime.getDeviceCount()
        except cupy.cuda.runtime.CUDARuntimeError as error:
            raise Skip(f"CuPy finds no GPU: {error}") from error
        if not found:
            raise Skip("CuPy finds no GPU")
        self.cupy: Any = cupy
        source = """extern "C" __global__ void spin(long long cycles) {
            long long begun = clock64();
            while (clock64() - begun < cycles) { }
        }"""
        self._spin = cupy.RawKernel(source, "spin")

    def array(self, values: np.ndarray) -> Any:
        """On the default stream, and waited for."""
        array = self.cupy.asarray(np.array(values, order="C"))
        self.cupy.cuda.Device().synchronize()
        return array

    def place(self, key: str, array: Any, stream: Any = None, flags: int = 0) -> Placed:
        """As it is."""
        return Placed(
            key, FLOAT32, array.shape, array.data.ptr, array.nbytes, array.device.id, stream.ptr if stream else 0, flags
        )

    def values(self, array: Any) -> np.ndarray:
        """Once the GPU is idle."""
        self.cupy.cuda.Device().synchronize()
        values: np.ndarray = self.cupy.asnumpy(array)
        return values

    def stream(self) -> Any:
        """One that does not wait for the default one."""
        return self.cupy.cuda.Stream(non_blocking=True)

    def keep_busy(self, stream: Any) -> None:
        """A kernel that counts cycles."""
        with stream:
            self._spin((1,), (1,), (np.int64(CYCLES),))

    def fill(self, array: Any, value: float, stream: Any) -> None:
        """A kernel."""
        with stream:
            array.fill(value)

    def copy(self, array: Any, stream: Any) -> Any:
        """A copy, to memory of the stream's own."""
        with stream:
            return array.copy()

    def current(self) -> Any:
        """Device and stream."""
        return self.cupy.cuda.runtime.getDevice(), self.cupy.cuda.get_current_stream().ptr


@contextmanager
def unchanged(what: str, *looks: Any) -> Iterator[None]:
    """Fails unless what the functions see is the same afterwards."""
    before = [look() for look in looks]
    yield
    after = [look() for look in looks]
    assert before == after, f"{what}: was {before}, is {after}"
