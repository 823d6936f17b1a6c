"""The contenders of a save: memory into new files in the page cache, nothing synced."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from safetensors.numpy import save_file

import peers
from measure import OURS, REFERENCE, SAFETENSORS, TENSORFLOW, THREADS, Contender, WrongResult, counted
from reference_ffi import Reference, Setting
from restoring import DATA_SUFFIX
from tfckpt_ffi import CSaveOptions, CStats, Tfckpt
from workloads import MIB, Tensors


class Scene:
    """What the contenders of one save share: the source, an empty directory, the index that TensorFlow writes."""

    def __init__(self, tensors: Tensors, directory: Path, tf: peers.TensorFlow, reference: Reference) -> None:
        self.tensors, self.tf, self.reference = tensors, tf, reference
        self.saver = tf.saver(tensors)
        self.restorer = tf.restorer(tensors.keys)
        self._directory = directory
        self.prefix = str(directory / "model")
        self.data = self.prefix + DATA_SUFFIX
        self.safetensors = str(directory / "model.safetensors")
        touch_page_cache(directory / "touch", 2 * tensors.workload.size)
        self._index = self._index_of_tensorflow()

    def empty(self) -> None:
        """Removes what was saved; pages not yet on disk are dropped, not written."""
        shutil.rmtree(self._directory)
        self._directory.mkdir()

    def check_bundle(self) -> None:
        """Raises unless both files are, byte for byte, what TensorFlow writes."""
        self.check_file(self.data)
        if Path(self.prefix + ".index").read_bytes() != self._index:
            raise WrongResult("the index differs from TensorFlow's")

    def check_file(self, path: str) -> None:
        """Raises unless the file holds the tensors, packed, and nothing else."""
        if os.path.getsize(path) != self.tensors.workload.size:
            raise WrongResult(f"data file of {os.path.getsize(path)} bytes")
        self.reference.compare_file(path, self.tensors.source.pieces)

    def check_with_tensorflow(self) -> None:
        """Raises unless TensorFlow restores the tensors from the files."""
        arrays = peers.as_arrays(self.restorer.restore(self.prefix))
        self.reference.compare(self.tensors.pieces_at(arrays), self.tensors.source.pieces)

    def _index_of_tensorflow(self) -> bytes:
        self.empty()
        self.saver.save(self.prefix)
        index = Path(self.prefix + ".index").read_bytes()
        self.empty()
        return index


class Save(Contender):
    """A contender writing into the empty directory."""

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    def prepare(self) -> None:
        """Reads the source once."""
        self._scene.tensors.source.touch()

    def clean(self) -> None:
        """Removes the files."""
        self._scene.empty()


class OursSave(Save):
    """tfckpt_save with no_sync, through a context."""

    group = OURS
    setting = "checksums computed"

    def __init__(self, scene: Scene, lib: Tfckpt, threads: int) -> None:
        super().__init__(scene)
        self.label, self.threads = f"tfckpt_save, {counted(threads)}", threads
        self._lib = lib
        tensors = scene.tensors
        self._tensors = lib.tensors(tensors.keys, tensors.source.arrays, list(range(len(tensors.keys))))
        self._stats = lib.new(CStats)
        self._options = lib.new(CSaveOptions)
        self._options.context = lib.context(threads)
        self._options.no_sync = 1
        self._options.stats = ctypes.pointer(self._stats)

    def run(self) -> None:
        """One call."""
        self._lib.save(self._scene.prefix, self._tensors, self._options)

    def verify(self, first: bool) -> None:
        """TensorFlow's bytes; in the first round TensorFlow reads them, too."""
        self._scene.check_bundle()
        if first:
            self._scene.check_with_tensorflow()


class TfSave(Save):
    """raw_ops.SaveV2."""

    group = TENSORFLOW
    label = "TensorFlow SaveV2"
    setting = "eager op, checksums computed"

    def run(self) -> None:
        """One op."""
        self._scene.saver.save(self._scene.prefix)

    def verify(self, first: bool) -> None:
        """The same bytes as ever."""
        self._scene.check_bundle()


class SafetensorsSave(Save):
    """safetensors.numpy.save_file."""

    group = SAFETENSORS
    label = "safetensors save_file"
    setting = "no checksum"

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        self._arrays = dict(zip(scene.tensors.keys, scene.tensors.source.arrays))

    def run(self) -> None:
        """One call."""
        save_file(self._arrays, self._scene.safetensors)

    def verify(self, first: bool) -> None:
        """Every tensor where the header says it is."""
        tensors = self._scene.tensors
        places = peers.safetensors_offsets(self._scene.safetensors)
        if sorted(places) != tensors.keys:
            raise WrongResult("other keys than given")
        pieces = tensors.source.pieces.copy()
        pieces["offset"] = [places[key][0] for key in tensors.keys]
        if any(places[key][1] != tensors.workload.tensor_size for key in tensors.keys):
            raise WrongResult("another size than given")
        self._scene.reference.compare_file(self._scene.safetensors, pieces)


class ReferenceSave(Save):
    """pwrite or pwritev of the same pieces to the same offsets of one new file."""

    group = REFERENCE

    def __init__(self, scene: Scene, setting: Setting) -> None:
        super().__init__(scene)
        name = "pwritev" if setting.vectored else "pwrite"
        self.label = f"{name}, {counted(setting.threads)}"
        self.threads, self.setting = setting.threads, str(setting)
        self._setting = setting

    def run(self) -> None:
        """One call."""
        self._scene.reference.write(self._scene.data, self._scene.tensors.source.pieces, self._setting)

    def verify(self, first: bool) -> None:
        """Every byte."""
        self._scene.check_file(self._scene.data)


def contenders(scene: Scene, lib: Tfckpt | None, settings: list[Setting]) -> list[Contender]:
    """Everyone."""
    out: list[Contender] = []
    if lib:
        out += [OursSave(scene, lib, threads) for threads in reversed(THREADS)]
    out += [TfSave(scene), SafetensorsSave(scene)]
    out += [ReferenceSave(scene, setting) for setting in settings]
    return out


def touch_page_cache(path: Path, size: int) -> None:
    """Has the machine back so many bytes of page cache with real memory: a virtual machine's own host gives a page
    only when it is first used, and that is slow."""
    block = bytes(4 * MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
    path.unlink()
