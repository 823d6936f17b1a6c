"""A GPU as the bench uses it without the library: memory, overwriting, comparing, and the kernels of pinned.c."""

from __future__ import annotations

import ctypes
import errno
import json
import os
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import byref, c_int, c_size_t, c_uint64, c_void_p
from pathlib import Path
from typing import Any

import numpy as np

from measure import WrongResult
from workloads import PIECE, Workload

FOLDER = Path(__file__).resolve().parent
FLAGS = ["-std=gnu11", "-O2", "-pthread", "-Wall", "-Wextra"]
STANDALONE_SECONDS = 40.0
"""That driver.c may take at most."""
ALIGNMENT = 256
"""Of tensors in device memory, as every allocator there gives it."""


class DriverError(Exception):
    """A call of the driver failed."""


class Device:
    """An open GPU with page-locked memory for the kernels and for checks."""

    def __init__(self, number: int, build_dir: Path, buffer: int) -> None:
        self.number, self.buffer = number, buffer
        self._lib = ctypes.CDLL(str(_compiled("pinned.c", build_dir / "libpinned.so", "-shared", "-fPIC")))
        self._lib.pin_memory.restype = self._lib.pin_stream.restype = c_void_p
        self._pin = c_void_p()
        self._call("pin_open", c_int(number), c_size_t(buffer), byref(self._pin))
        self._prove_compare()

    def close(self) -> None:
        """Gives everything back."""
        self._call("pin_close", self._pin)

    @property
    def pinned(self) -> int:
        """The address of the page-locked memory, `buffer` bytes."""
        return int(self._lib.pin_memory(self._pin))

    @property
    def stream(self) -> int:
        """A stream that does not wait for others."""
        return int(self._lib.pin_stream(self._pin, c_int(0)))

    def wait(self) -> None:
        """Until what that stream has been told to wait for has happened."""
        self._call("pin_wait", self._pin, c_int(0))

    @contextmanager
    def memory(self, size: int) -> Iterator[int]:
        """Device memory, by its address."""
        address = c_uint64()
        self._call("pin_alloc", self._pin, c_size_t(size), byref(address))
        try:
            yield address.value
        finally:
            self._call("pin_free", self._pin, address)

    def fill(self, pieces: np.ndarray, byte: int) -> None:
        """Overwrites device memory, and waits."""
        self._call("pin_fill", self._pin, *_array(pieces), c_int(byte))

    def to_device(self, address: int, size: int, chunk: int, streams: int) -> None:
        """The plain loop of copies from page-locked memory."""
        self._copy(0, address, size, chunk, streams)

    def to_host(self, address: int, size: int, chunk: int, streams: int) -> None:
        """The plain loop of copies to page-locked memory."""
        self._copy(1, address, size, chunk, streams)

    def _copy(self, way: int, address: int, size: int, chunk: int, streams: int) -> None:
        sizes = (c_uint64(address), c_size_t(size), c_size_t(chunk), c_int(streams))
        self._call("pin_copy", self._pin, c_int(way), *sizes)

    def pieces(self, pieces: np.ndarray, *, batched: bool) -> None:
        """A copy to the device for each piece: a call for each, or one for all."""
        self._call("pin_pieces", self._pin, c_int(0), *_array(pieces), c_int(batched))

    def ring(self, path: str, pieces: np.ndarray, chunk: int, slots: int, threads: int) -> None:
        """File to device through so many slots of a chunk, without a checksum."""
        counts = (c_int(slots), c_int(threads))
        self._call("pin_ring", self._pin, os.fsencode(path), *_array(pieces), c_size_t(chunk), *counts)

    def compare(self, device: np.ndarray, host: np.ndarray) -> None:
        """Raises WrongResult unless both hold the same bytes."""
        self._call("pin_compare", self._pin, _array(device)[0], *_array(host))

    def upload(self, host: np.ndarray, pieces: np.ndarray) -> None:
        """Bytes of the host to the pieces, one after the other, in the plainest way."""
        for source, piece in zip(host, pieces):
            for start in range(0, int(piece["size"]), self.buffer):
                length = min(self.buffer, int(piece["size"]) - start)
                ctypes.memmove(self.pinned, int(source["data"]) + start, length)
                self.to_device(int(piece["data"]) + start, length, self.buffer, 1)

    def _prove_compare(self) -> None:
        """A check that cannot fail proves nothing: one flipped bit must be seen."""
        want = np.full(100, 7, np.uint8)
        host = span(want.ctypes.data, want.size)
        with self.memory(100) as address:
            there = span(address, 100)
            self.fill(there, 7)
            self.compare(there, host)
            want[-1] ^= 1
            try:
                self.compare(there, host)
            except WrongResult:
                return
        raise RuntimeError("the comparison does not see a flipped bit")

    def _call(self, name: str, *arguments: Any) -> None:
        code = getattr(self._lib, name)(*arguments)
        if code == -errno.EILSEQ:
            raise WrongResult("other bytes than saved")
        if code:
            raise DriverError(f"{name}: {os.strerror(-code) if code < 0 else f'CUDA error {code}'}")


def span(address: int, size: int) -> np.ndarray:
    """One piece of memory."""
    return np.array([(0, address, size)], PIECE)


def places(workload: Workload, address: int, *, scattered: bool) -> np.ndarray:
    """The workload's tensors in a device allocation: each in a place of its own, 256 bytes apart from the next and in
    random order; or packed into one slab in the order of the file."""
    order = workload.memory_order() if scattered else np.arange(workload.num_tensors)
    strides = (workload.sizes[order] + np.uint64(ALIGNMENT - 1)) // np.uint64(ALIGNMENT) * np.uint64(ALIGNMENT)
    strides += np.uint64(ALIGNMENT * scattered)
    pieces = np.empty(workload.num_tensors, PIECE)
    pieces["offset"], pieces["size"] = workload.offsets, workload.sizes
    pieces["data"][order] = np.cumsum(strides) - strides + np.uint64(address)
    return pieces


def room(workload: Workload) -> int:
    """Bytes of an allocation that holds the workload's tensors, scattered or not."""
    return workload.size + 2 * ALIGNMENT * workload.num_tensors


def standalone(build_dir: Path, number: int, mib: int, runs: int, seconds: float) -> dict[str, list[dict[str, Any]]]:
    """What driver.c measures in a process of its own, the first call of the driver included, by section; with `error`
    where something could not be measured. After so many seconds it ends with what there is."""
    program = _compiled("driver.c", build_dir / "driver")
    command = [str(program), "--device", str(number), "--mib", str(mib), "--runs", str(runs)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        lines, error = process.communicate(timeout=max(0.0, min(STANDALONE_SECONDS, seconds)))
    except subprocess.TimeoutExpired as late:
        process.kill()
        lines, _ = process.communicate()
        error = f"ended after {late.timeout:.0f} s"
    sections: dict[str, list[dict[str, Any]]] = {}
    for line in lines.split("\n")[:-1]:  # what follows the last line's end is not whole
        row = json.loads(line)
        sections.setdefault(row.pop("section"), []).append(row)
    if error.strip():
        sections["whole"] = [{"error": error.strip()}]
    return sections


def _compiled(source: str, made: Path, *flags: str) -> Path:
    made.parent.mkdir(parents=True, exist_ok=True)
    command = [os.environ.get("CC", "gcc"), *FLAGS, *flags, str(FOLDER / source), "-o", str(made), "-ldl"]
    subprocess.run(command, check=True)
    return made


def _array(pieces: np.ndarray) -> tuple[c_void_p, c_size_t]:
    return c_void_p(pieces.ctypes.data), c_size_t(len(pieces))
