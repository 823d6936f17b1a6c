"""Builds and calls the kernels of reference/reference.c."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from workloads import KIB, MIB, PIECE

SOURCE = Path(__file__).parent / "reference" / "reference.c"
FLAGS = ["-std=gnu11", "-O2", "-pthread", "-Wall", "-Wextra", "-shared", "-fPIC"]

COOLING = 5.0
"""Seconds after which pages that stay in the page cache stay for good."""
NO_SYNC, SYNC_AT_END, SYNC_AHEAD = 0, 1, 2


@dataclass(frozen=True)
class Setting:
    """One way to run a kernel."""

    chunk: int = 1 * MIB
    threads: int = 1
    vectored: bool = False
    fallocate: bool = False
    sync: int = NO_SYNC
    direct: bool = False

    def __str__(self) -> str:
        """What a label (kernel and threads) leaves open."""
        chunk = f"{self.chunk // MIB} MiB" if self.chunk >= MIB else f"{self.chunk // KIB} KiB"
        return f"{chunk} chunks" + ", fallocate" * self.fallocate

    def but(self, **changes: Any) -> Setting:
        """The same with some other fields."""
        return replace(self, **changes)


class _Setting(ctypes.Structure):
    """ref_setting."""

    _fields_ = [
        ("chunk", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
        ("vectored", ctypes.c_uint32),
        ("fallocate", ctypes.c_uint32),
        ("sync", ctypes.c_uint32),
        ("direct", ctypes.c_uint32),
        ("unused", ctypes.c_uint32),
    ]


class Differs(Exception):
    """Two sets of tensors that should be equal are not."""


class Reference:
    """The compiled kernels. Each call raises OSError for an errno, Differs for unequal bytes."""

    def __init__(self, build_dir: Path) -> None:
        self._lib = ctypes.CDLL(str(compiled(SOURCE, build_dir)))
        self._prove_compare()

    def read(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pread or preadv of the pieces into their memory."""
        self._call("ref_read", setting, path, pieces)

    def read_hot(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pread of the same bytes into one buffer per thread."""
        self._call("ref_read_hot", setting, path, pieces)

    def read_fresh(self, path: str, size: int, setting: Setting) -> Mapping:
        """pread of so many bytes into new memory of huge pages."""
        mapping, data = ctypes.c_void_p(), ctypes.c_void_p()
        where = (ctypes.byref(mapping), ctypes.byref(data))
        code = self._lib.ref_read_fresh(os.fsencode(path), ctypes.c_uint64(size), _converted(setting), *where)
        _raise(code, "ref_read_fresh")
        return Mapping(self._lib, mapping, data.value or 0, size)

    def write(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pwrite or pwritev of the pieces into a new file."""
        self._call("ref_write", setting, path, pieces)

    def publish(self, folder: str, pieces: np.ndarray, index_size: int, setting: Setting) -> None:
        """The system calls of a checkpoint of two files, `data` and `index`."""
        count = ctypes.c_size_t(len(pieces))
        where = (os.fsencode(folder), ctypes.c_void_p(pieces.ctypes.data), count, ctypes.c_uint64(index_size))
        _raise(self._lib.ref_publish(*where, _converted(setting)), "ref_publish")

    def copy(self, pieces: np.ndarray, source: np.ndarray, setting: Setting) -> None:
        """memcpy from one memory to the other."""
        self._call("ref_copy", setting, pieces, source)

    def crc(self, pieces: np.ndarray, setting: Setting) -> None:
        """CRC-32C of the pieces."""
        self._call("ref_crc", setting, pieces)

    def compare_file(self, path: str, pieces: np.ndarray) -> None:
        """Raises Differs unless the file holds the pieces' bytes."""
        self._call("ref_compare_file", Setting(threads=2), path, pieces)

    def compare(self, pieces: np.ndarray, source: np.ndarray) -> None:
        """Raises Differs unless both memories hold the same bytes."""
        self._call("ref_compare", Setting(threads=2), pieces, source)

    def sync(self, path: str) -> None:
        """fsync of a file or folder."""
        _raise(self._lib.ref_sync(os.fsencode(path)), "ref_sync")

    def drop(self, path: str) -> None:
        """Takes the file's pages, which are on disk, out of the page cache."""
        _raise(self._lib.ref_drop(os.fsencode(path)), "ref_drop")

    def cool(self, path: str) -> int:
        """Drops the file's pages, and returns how many stay. Those that the kernel still reads ahead cannot be dropped,
        so it may take more than one try."""
        deadline = time.monotonic() + COOLING
        self.drop(path)
        while (pages := self.resident(path)) and time.monotonic() < deadline:
            time.sleep(0.01)
            self.drop(path)
        return pages

    def resident(self, path: str) -> int:
        """Pages of the file in the page cache."""
        pages = ctypes.c_uint64()
        _raise(self._lib.ref_resident(os.fsencode(path), ctypes.byref(pages)), "ref_resident")
        return pages.value

    def _prove_compare(self) -> None:
        """A check that cannot fail proves nothing: one flipped bit must be seen."""
        have, want = np.zeros(100, np.uint8), np.zeros(100, np.uint8)
        pieces, source = (np.array([(0, a.ctypes.data, a.size)], PIECE) for a in (have, want))
        self.compare(pieces, source)
        have[-1] ^= 1
        try:
            self.compare(pieces, source)
        except Differs:
            return
        raise RuntimeError("the comparison does not see a flipped bit")

    def _call(self, name: str, setting: Setting, *others: str | np.ndarray) -> None:
        """Calls with a path or arrays of pieces, the number of pieces and the setting."""
        converted = [os.fsencode(a) if isinstance(a, str) else ctypes.c_void_p(a.ctypes.data) for a in others]
        code = getattr(self._lib, name)(*converted, ctypes.c_size_t(len(others[-1])), _converted(setting))
        _raise(code, name)


class Mapping:
    """Memory that read_fresh has mapped."""

    def __init__(self, lib: ctypes.CDLL, mapping: ctypes.c_void_p, data: int, size: int) -> None:
        self._lib, self._mapping, self._size = lib, mapping, size
        self.pieces = np.array([(0, data, size)], PIECE)

    def free(self) -> None:
        """Gives it back."""
        _raise(self._lib.ref_unmap(self._mapping, ctypes.c_uint64(self._size)), "ref_unmap")


def _converted(setting: Setting) -> ctypes._CArgObject:
    s = setting
    return ctypes.byref(_Setting(s.chunk, s.threads, s.vectored, s.fallocate, s.sync, s.direct, 0))


def _raise(code: int, name: str) -> None:
    if code == errno.EILSEQ:
        raise Differs(f"{name}: bytes differ")
    if code:
        raise OSError(code, f"{name}: {os.strerror(code)}")


def compiled(source: Path, build_dir: Path) -> Path:
    """The shared library of a C file."""
    build_dir.mkdir(parents=True, exist_ok=True)
    library = build_dir / f"lib{source.stem}.so"
    subprocess.run([os.environ.get("CC", "gcc"), *FLAGS, str(source), "-o", str(library)], check=True)
    return library


def compiler() -> str:
    """The compiler's own name and version, with the flags used."""
    command = [os.environ.get("CC", "gcc"), "--version"]
    first_line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return f"{first_line}, {' '.join(FLAGS[:3])}"
