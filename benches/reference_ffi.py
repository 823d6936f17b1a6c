"""Builds and calls the kernels of reference/reference.c."""

from __future__ import annotations

import ctypes
import errno
import os
import subprocess
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from workloads import KIB, MIB, PIECE

SOURCE = Path(__file__).parent / "reference" / "reference.c"
FLAGS = ["-std=gnu11", "-O2", "-pthread", "-Wall", "-Wextra", "-shared", "-fPIC"]


@dataclass(frozen=True)
class Setting:
    """One way to run a kernel."""

    chunk: int = 1 * MIB
    threads: int = 1
    vectored: bool = False
    fallocate: bool = False
    fsync: bool = False

    def __str__(self) -> str:
        """What a label (kernel and threads) leaves open."""
        chunk = f"{self.chunk // MIB} MiB" if self.chunk >= MIB else f"{self.chunk // KIB} KiB"
        words = [f"{chunk} chunks"]
        words += [name for name in ("fallocate", "fsync") if getattr(self, name)]
        return ", ".join(words)


class _Setting(ctypes.Structure):
    """ref_setting."""

    _fields_ = [
        ("chunk", ctypes.c_uint64),
        ("threads", ctypes.c_uint32),
        ("vectored", ctypes.c_uint32),
        ("fallocate", ctypes.c_uint32),
        ("fsync", ctypes.c_uint32),
    ]


class Differs(Exception):
    """Two sets of tensors that should be equal are not."""


class Reference:
    """The compiled kernels. Each call raises OSError for an errno, Differs for unequal bytes."""

    def __init__(self, build_dir: Path) -> None:
        self._lib = ctypes.CDLL(str(_compile(build_dir)))
        self._prove_compare()

    def read(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pread or preadv of the pieces into their memory."""
        self._call("ref_read", setting, path, pieces)

    def read_hot(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pread of the same bytes into one buffer per thread."""
        self._call("ref_read_hot", setting, path, pieces)

    def write(self, path: str, pieces: np.ndarray, setting: Setting) -> None:
        """pwrite or pwritev of the pieces into a new file."""
        self._call("ref_write", setting, path, pieces)

    def copy(self, pieces: np.ndarray, source: np.ndarray, setting: Setting) -> None:
        """memcpy from one memory to the other."""
        self._call("ref_copy", setting, pieces, source)

    def compare_file(self, path: str, pieces: np.ndarray) -> None:
        """Raises Differs unless the file holds the pieces' bytes."""
        self._call("ref_compare_file", Setting(threads=2), path, pieces)

    def compare(self, pieces: np.ndarray, source: np.ndarray) -> None:
        """Raises Differs unless both memories hold the same bytes."""
        self._call("ref_compare", Setting(threads=2), pieces, source)

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
        c_setting = _Setting(setting.chunk, setting.threads, setting.vectored, setting.fallocate, setting.fsync)
        code = getattr(self._lib, name)(*converted, ctypes.c_size_t(len(others[-1])), ctypes.byref(c_setting))
        if code == errno.EILSEQ:
            raise Differs(f"{name}: bytes differ")
        if code:
            raise OSError(code, f"{name}: {os.strerror(code)}")


def _compile(build_dir: Path) -> Path:
    build_dir.mkdir(parents=True, exist_ok=True)
    library = build_dir / "libreference.so"
    subprocess.run([os.environ.get("CC", "gcc"), *FLAGS, str(SOURCE), "-o", str(library)], check=True)
    return library


def compiler() -> str:
    """The compiler's own name and version, with the flags used."""
    command = [os.environ.get("CC", "gcc"), "--version"]
    first_line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[0]
    return f"{first_line}, {' '.join(FLAGS[:3])}"
