"""Parts of tensors: 4 KiB of one of 1 GiB, one eighth of each of many."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from bars import Finding, number, within
from measure import MOST, OURS, PLAIN, REFERENCE, TENSORFLOW, Contender, Outcome, counted, require
from reference_ffi import Setting
from restore_scene import DATA, POISON
from settling import settings, settle
from stage import Stage, warm
from tfckpt_ffi import VERIFY_FETCHED, VERIFY_FULL, CRestoreOptions, CSaveOptions, CStats, TensorArray
from workloads import GIB, KIB, MIB, PIECE, Source, Spec, Workload

ROW = 1024
LARGE = Workload("4KiB of 1GiB", lambda: [Spec("table", (GIB // 4 // ROW, ROW))])
MATRICES = Workload(
    "an eighth of 64x16MiB", lambda: [Spec(f"layer_{i:02}/weights", (ROW, 16 * MIB // 4 // ROW)) for i in range(64)]
)


class _Scene:
    """A stored workload, and one run of rows of each of its tensors, `start` and `count`."""

    def __init__(self, stage: Stage, workload: Workload, prefix: str, start: int, count: int) -> None:
        self.stage, self.workload, self.prefix = stage, workload, prefix
        self.data = prefix + DATA
        self.start, self.count = start, count
        source = Source(workload)
        options = stage.lib.new(CSaveOptions)
        options.context = stage.lib.context(MOST)
        self.has_sidecar = hasattr(options, "chunk_checksums")
        if self.has_sidecar:
            options.chunk_checksums = 1
        stage.lib.save(prefix, TensorArray.of_workload(workload, source.pieces), options)
        stage.reference.compare_file(self.data, source.pieces)
        self.wanted = [array[start : start + count].copy() for array in source.arena.arrays]
        self.out = [np.empty_like(array) for array in self.wanted]
        self.pieces = np.empty(workload.num_tensors, PIECE)
        row = [spec.size // spec.shape[0] for spec in workload.specs]
        self.pieces["offset"] = workload.offsets + np.array(row, np.uint64) * np.uint64(start)
        self.pieces["size"] = [array.nbytes for array in self.out]
        self.pieces["data"] = [array.ctypes.data for array in self.out]

    @property
    def specs(self) -> list[str]:
        """As shape_and_slice."""
        return [f"{s.shape[0]} {s.shape[1]} {self.start},{self.count}:-" for s in self.workload.specs]

    @property
    def size(self) -> int:
        """Bytes that are wanted."""
        return sum(array.nbytes for array in self.wanted)

    def check(self, arrays: list[np.ndarray]) -> None:
        """Raises unless they are the rows."""
        require(
            all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(arrays, self.wanted, strict=True))
        )

    def ready(self) -> None:
        """Before every run."""
        for array in self.out:
            array.view(np.uint8).fill(POISON)
        warm(self.data)

    def ours(self, how: str, verify: int, prefix: str, group: str) -> Contender:
        """tfckpt_restore of the rows."""
        lib = self.stage.lib
        tensors = TensorArray.of_arrays(self.workload.keys, self.out)
        tensors.set_texts("slice_spec", self.specs)
        stats, options = lib.new(CStats), lib.new(CRestoreOptions)
        options.context, options.verify, options.stats = lib.context(MOST), verify, ctypes.pointer(stats)

        def check(_first: bool) -> None:
            self.check(self.out)
            require(verify == VERIFY_FETCHED or stats.bytes_verified >= self.size, "not all of it was verified")

        run = lambda: lib.restore(prefix, tensors, options)
        return Contender(f"tfckpt_restore, {how}", group, run, check, self.ready, threads=MOST)

    def tensorflow(self) -> Contender:
        """RestoreV2 with the same shape_and_slices."""
        stage = self.stage
        held: list[Any] = []
        restorer = stage.tf.restorer(self.workload, slices=self.specs)

        def run() -> None:
            held[:] = restorer.restore(self.prefix)

        check = lambda _first: self.check(stage.tf.as_arrays(held))
        setting = "reads and verifies whole tensors, allocates its outputs"
        return Contender("TensorFlow RestoreV2", TENSORFLOW, run, check, self.ready, held.clear, setting)

    def kernel(self, setting: Setting) -> Contender:
        """pread of the rows."""
        run = lambda: self.stage.reference.read(self.data, self.pieces, setting)
        check = lambda _first: self.check(self.out)
        label = f"pread, {counted(setting.threads)}"
        return Contender(label, REFERENCE, run, check, self.ready, setting=str(setting), threads=setting.threads)


def _contenders(scene: _Scene, kernels: list[Setting]) -> list[Contender]:
    out = [scene.ours("unverified (FETCHED)", VERIFY_FETCHED, _without_sidecar(scene), OURS)]
    if scene.has_sidecar:
        out.append(scene.ours("verified by the sidecar", VERIFY_FETCHED, scene.prefix, PLAIN))
        out[-1].verify = _verified(out[-1].verify, scene)
    out.append(scene.ours("verified whole", VERIFY_FULL, scene.prefix, PLAIN))
    return [*out, scene.tensorflow(), *(scene.kernel(setting) for setting in kernels)]


def _verified(check: Callable[[bool], Any], scene: _Scene) -> Callable[[bool], Any]:
    """The rows, and that they can not be restored when they are damaged: the first round flips a bit of them."""

    def checked(first: bool) -> None:
        check(first)
        if first:
            _require_refusal(scene)

    return checked


def _require_refusal(scene: _Scene) -> None:
    at = int(scene.pieces["offset"][0])
    probe = scene.ours("", VERIFY_FETCHED, scene.prefix, OURS)
    with open(scene.data, "r+b") as file:
        original = os.pread(file.fileno(), 1, at)
        os.pwrite(file.fileno(), bytes([original[0] ^ 1]), at)
        try:
            probe.run()
        except Exception:
            return
        finally:
            os.pwrite(file.fileno(), original, at)
    require(False, "a flipped bit was not noticed")


def _without_sidecar(scene: _Scene) -> str:
    """The same files under another prefix, the sidecar left out."""
    other = scene.prefix + "-bare"
    for end in (DATA, ".index"):
        os.link(scene.prefix + end, other + end)
    return other


def one_row(stage: Stage) -> None:
    """Row 9."""
    with stage.folder() as folder:
        scene = _Scene(stage, LARGE, str(folder / "model"), start=LARGE.specs[0].shape[0] // 2, count=1)
        outcome = Outcome(LARGE.name, "restore", scene.size, 1)
        stage.measure(outcome, _contenders(scene, [Setting(chunk=4 * KIB)]))
        unverified = outcome.labelled("tfckpt_restore, unverified (FETCHED)")
        stage.find(within(9, outcome, unverified, 1e-3, outcome.best(REFERENCE)), _with_sidecar(outcome))


def _with_sidecar(outcome: Outcome) -> Finding | None:
    ours = outcome.labelled("tfckpt_restore, verified by the sidecar")
    if ours is None:
        return number(9, f"{outcome.title}, verified by the sidecar", "<= 1 ms", "the library has no sidecar", False)
    return within(9, outcome, ours, 1e-3, outcome.best(REFERENCE))


def eighths(stage: Stage) -> None:
    """One eighth of each tensor."""
    with stage.folder() as folder:
        scene = _Scene(stage, MATRICES, str(folder / "model"), start=ROW // 4, count=ROW // 8)
        read = lambda setting: stage.reference.read(scene.data, scene.pieces, setting)
        sweep = stage.sweep(f"{MATRICES.name}: restore")
        kernels = settle(sweep, "pread", settings(quick=stage.quick), scene.size, read)
        outcome = Outcome(MATRICES.name, "restore", scene.size, MATRICES.num_tensors)
        stage.measure(outcome, _contenders(scene, kernels))
