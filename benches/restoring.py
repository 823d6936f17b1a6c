"""The contenders of a restore: a warm file into memory."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save_file

import peers
from measure import LIMIT, OURS, REFERENCE, SAFETENSORS, TENSORFLOW, THREADS, Contender, WrongResult, counted
from reference_ffi import Reference, Setting
from tfckpt_ffi import CRestoreOptions, CStats, Tfckpt
from workloads import MIB, Arena, Tensors

POISON = 0xA5
DATA_SUFFIX = ".data-00000-of-00001"


class Scene:
    """What the contenders of one restore share: the files, the source to compare with, the caller's warm memory."""

    def __init__(self, tensors: Tensors, directory: Path, tf: peers.TensorFlow, reference: Reference) -> None:
        self.tensors, self.tf, self.reference = tensors, tf, reference
        self.prefix = str(directory / "model")
        self.data = self.prefix + DATA_SUFFIX
        self.safetensors = str(directory / "model.safetensors")
        self.destination = Arena(tensors.workload)
        self._write()

    def _write(self) -> None:
        self.tf.saver(self.tensors).save(self.prefix)
        save_file(dict(zip(self.tensors.keys, self.tensors.source.arrays)), self.safetensors)
        for path in (self.data, self.prefix + ".index", self.safetensors):
            _sync(path)  # or its pages are written to disk in the middle of the rounds
        self.reference.compare_file(self.data, self.tensors.source.pieces)

    def check(self, arrays: list[np.ndarray]) -> None:
        """Raises unless the arrays, in key order, hold the tensors."""
        if any(array.shape != self.tensors.workload.shape or array.dtype != np.float32 for array in arrays):
            raise WrongResult("a restored tensor has another shape or dtype")
        self.reference.compare(self.tensors.pieces_at(arrays), self.tensors.source.pieces)

    def check_destination(self) -> None:
        """Raises unless the caller's memory holds the tensors."""
        self.reference.compare(self.destination.pieces, self.tensors.source.pieces)


class Restore(Contender):
    """A contender reading `file`."""

    def __init__(self, scene: Scene, file: str) -> None:
        self._scene, self._file = scene, file

    def prepare(self) -> None:
        """Spoils the caller's memory (which also keeps it warm) and reads the file once."""
        self._scene.destination.fill(POISON)
        warm(self._file)


class OursRestore(Restore):
    """tfckpt_restore into the caller's warm memory, checksums verified, through a context."""

    group = OURS
    setting = "checksums verified"

    def __init__(self, scene: Scene, lib: Tfckpt, threads: int) -> None:
        super().__init__(scene, scene.data)
        self.label, self.threads = f"tfckpt_restore, {counted(threads)}", threads
        self._lib = lib
        workload = scene.tensors.workload
        self._tensors = lib.tensors(scene.tensors.keys, scene.destination.arrays, workload.request_order())
        self._stats = lib.new(CStats)
        self._options = lib.new(CRestoreOptions)
        self._options.context = lib.context(threads)
        self._options.stats = ctypes.pointer(self._stats)

    def run(self) -> None:
        """One call."""
        self._lib.restore(self._scene.prefix, self._tensors, self._options)

    def verify(self, first: bool) -> None:
        """Every byte there, and every byte's checksum checked."""
        self._scene.check_destination()
        size = self._scene.tensors.workload.size
        if self._stats.bytes_verified != size:
            raise WrongResult(f"checksums of {self._stats.bytes_verified} of {size} bytes verified")


class TfRestore(Restore):
    """raw_ops.RestoreV2, allocating its outputs."""

    group = TENSORFLOW
    label = "TensorFlow RestoreV2"
    setting = "eager op, allocates its outputs"

    def __init__(self, scene: Scene, order: list[int], order_name: str = "") -> None:
        super().__init__(scene, scene.data)
        self.label += order_name
        self._order = order
        self._restorer = scene.tf.restorer([scene.tensors.keys[i] for i in self._order])
        self._outputs: list[Any] = []

    def run(self) -> None:
        """One op."""
        self._outputs = self._restorer.restore(self._scene.prefix)

    def verify(self, first: bool) -> None:
        """The outputs, put back into key order."""
        arrays: dict[int, np.ndarray] = dict(zip(self._order, peers.as_arrays(self._outputs)))
        self._scene.check([arrays[i] for i in range(len(arrays))])

    def clean(self) -> None:
        """Frees the outputs, so that the next run finds TensorFlow's allocator in its steady state."""
        self._outputs = []


class SafetensorsRestore(Restore):
    """safetensors.numpy.load_file: the whole file into new arrays, nothing verified."""

    group = SAFETENSORS
    label = "safetensors load_file"
    setting = "allocates its arrays, no checksum"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene, scene.safetensors)
        self._arrays: dict[str, np.ndarray] = {}

    def run(self) -> None:
        """One call."""
        self._arrays = load_file(self._scene.safetensors)

    def verify(self, first: bool) -> None:
        """All keys, and no other."""
        if sorted(self._arrays) != self._scene.tensors.keys:
            raise WrongResult("other keys than saved")
        self._scene.check([self._arrays[key] for key in self._scene.tensors.keys])

    def clean(self) -> None:
        """Frees the arrays."""
        self._arrays = {}


class ReferenceRestore(Restore):
    """pread or preadv of the data file's pieces into the caller's memory, in file order."""

    group = REFERENCE

    def __init__(self, scene: Scene, setting: Setting) -> None:
        super().__init__(scene, scene.data)
        name = "preadv" if setting.vectored else "pread"
        self.label, self.threads, self.setting = f"{name}, {counted(setting.threads)}", setting.threads, str(setting)
        self._setting = setting

    def run(self) -> None:
        """One call."""
        self._scene.reference.read(self._file, self._scene.destination.pieces, self._setting)

    def verify(self, first: bool) -> None:
        """Every byte."""
        self._scene.check_destination()


class LimitRestore(Restore):
    """A kernel that does less than a restore: memcpy of the same bytes, or reading into one hot buffer."""

    group = LIMIT

    def __init__(self, scene: Scene, name: str, setting: Setting) -> None:
        super().__init__(scene, scene.data)
        self.label, self.threads, self.setting = f"{name}, {counted(setting.threads)}", setting.threads, str(setting)
        self._copies = name == "memcpy"
        self._setting = setting

    def run(self) -> None:
        """One call."""
        reference, source = self._scene.reference, self._scene.tensors.source
        if self._copies:
            reference.copy(self._scene.destination.pieces, source.pieces, self._setting)
        else:
            reference.read_hot(self._file, source.pieces, self._setting)

    def verify(self, first: bool) -> None:
        """What was copied; bytes read into a hot buffer are overwritten at once and leave nothing to compare."""
        if self._copies:
            self._scene.check_destination()


def contenders(scene: Scene, lib: Tfckpt | None, settings: list[Setting]) -> list[Contender]:
    """Everyone."""
    out: list[Contender] = []
    if lib:
        out += [OursRestore(scene, lib, threads) for threads in reversed(THREADS)]
    out += [*_tensorflow(scene), SafetensorsRestore(scene)]
    plain = [s for s in settings if not s.vectored]
    out += [ReferenceRestore(scene, s) for s in settings]
    out += [LimitRestore(scene, name, s) for name in ("pread into a hot buffer", "memcpy") for s in plain]
    return out


def _tensorflow(scene: Scene) -> list[Contender]:
    """TensorFlow is slow when asked in random order, so it is also asked in the file's: its better one counts."""
    workload = scene.tensors.workload
    in_order, requested = list(range(workload.num_tensors)), workload.request_order()
    if requested == in_order:
        return [TfRestore(scene, in_order)]
    return [TfRestore(scene, in_order, ", keys in file order"), TfRestore(scene, requested, ", keys shuffled")]


def warm(path: str) -> None:
    """Reads the file once, into a small buffer."""
    buffer = bytearray(4 * MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def _sync(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
