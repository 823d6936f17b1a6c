"""Saves of a workload: into the page cache, or down to the disk."""

from __future__ import annotations

import ctypes
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import safetensors.numpy

import peers
from bars import at_least, at_most
from measure import (
    MOST,
    OURS,
    PEER,
    PLAIN,
    REFERENCE,
    SAFETENSORS,
    TENSORFLOW,
    THREADS,
    TORCH,
    Contender,
    Outcome,
    counted,
    require,
)
from reference_ffi import SYNC_AHEAD, SYNC_AT_END, Setting
from restore_scene import DATA
from restoring import SMALL_BUDGET
from settling import QUEUES, SWEEP_SIZE, settings, settle
from stage import Stage, touch_page_cache
from tfckpt_ffi import CSaveOptions, CStats, TensorArray
from workloads import FEW, GIB, KIB, MIB, Source, Workload, prefix_of

NAMES = {"pwrite": Setting(), "pwritev": Setting(vectored=True)}
DURABLE = {
    "O_DIRECT pwrite + fsync": Setting(sync=SYNC_AT_END, direct=True),
    "pwrite + sync_file_range + fsync": Setting(sync=SYNC_AHEAD),
    "pwrite + fsync": Setting(sync=SYNC_AT_END),
}


class Scene:
    """What the contenders of one save share: the source, an empty folder, the index that TensorFlow writes."""

    def __init__(self, stage: Stage, workload: Workload, folder: Path) -> None:
        self.stage, self.workload, self.folder = stage, workload, folder / "empty"
        self.folder.mkdir()
        self.source = Source(workload)
        self.prefix = str(self.folder / "model")
        self.data = self.prefix + DATA
        self.safetensors, self.torch = str(self.folder / "model.safetensors"), str(self.folder / "model.pt")
        self.saver = stage.tf.saver(workload, self.source.arena.arrays)
        touch_page_cache(folder / "touch", min(2 * workload.size, 6 * GIB))
        self.saver.save(self.prefix)
        self.index = Path(self.prefix + ".index").read_bytes()
        self.empty()

    def empty(self) -> None:
        """Removes what was saved; pages not yet on disk are dropped, not written."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def check_bundle(self) -> None:
        """Raises unless both files are, byte for byte, what TensorFlow writes."""
        self.check_file(self.data)
        require(Path(self.prefix + ".index").read_bytes() == self.index, "the index differs from TensorFlow's")

    def check_file(self, path: str) -> None:
        """Raises unless the file holds the tensors, packed, and nothing else."""
        require(os.path.getsize(path) == self.workload.size, f"data file of {os.path.getsize(path)} bytes")
        self.stage.reference.compare_file(path, self.source.pieces)

    def check_with_tensorflow(self) -> None:
        """Raises unless TensorFlow restores the tensors from the files."""
        arrays = self.stage.tf.as_arrays(self.stage.tf.restorer(self.workload).restore(self.prefix))
        for have, want in zip(arrays, self.source.arena.arrays, strict=True):
            require(np.array_equal(have.view(np.uint8), want.view(np.uint8)))

    def check_safetensors(self) -> None:
        """Raises unless every tensor is where the file's header says."""
        places, pieces = peers.safetensors_offsets(self.safetensors), self.source.pieces.copy()
        require(sorted(places) == self.workload.keys, "other keys than given")
        pieces["offset"] = [places[key][0] for key in self.workload.keys]
        require([places[key][1] for key in self.workload.keys] == pieces["size"].tolist(), "other sizes than given")
        self.stage.reference.compare_file(self.safetensors, np.sort(pieces, order="offset"))

    def check_torch(self) -> None:
        """Raises unless torch loads the tensors back."""
        torch = self.stage.torch
        found = torch.as_arrays(torch.load(self.torch)) if torch else {}
        for key, want in zip(self.workload.keys, self.source.arena.arrays):
            require(np.array_equal(found[key].view(np.uint8), want.view(np.uint8)))

    def contender(self, label: str, group: str, run: Callable[[], None], check: Callable[[], None]) -> Contender:
        """One who writes into the empty folder."""
        return Contender(label, group, run, lambda _first: check(), self.source.arena.touch, self.empty)


def ours(scene: Scene, threads: int, sync: bool, budget: int = 0, group: str = OURS) -> Contender:
    """tfckpt_save through a context."""
    lib, workload = scene.stage.lib, scene.workload
    tensors = TensorArray.of_workload(workload, scene.source.pieces)
    stats, options = lib.new(CStats), lib.new(CSaveOptions)
    options.context, options.no_sync, options.stats = lib.context(threads, budget), not sync, ctypes.pointer(stats)

    def check(first: bool) -> None:
        scene.check_bundle()
        if first and workload.size <= 2 * GIB:
            scene.check_with_tensorflow()
        most = (budget or 64 * MIB) + 200 * workload.num_tensors + 4 * MIB
        require(stats.peak_host_bytes <= most, f"{stats.peak_host_bytes} bytes of buffers, {most} allowed")

    label = f"tfckpt_save, {counted(threads)}" + (f", budget {budget // MIB} MiB" if budget else "")
    out = scene.contender(label, group, lambda: lib.save(scene.prefix, tensors, options), scene.check_bundle)
    out.verify, out.threads, out.setting = check, threads, "checksums computed"
    return out


def peer_contenders(scene: Scene, *, saver: bool, all_peers: bool) -> list[Contender]:
    """Everyone else; nobody of them syncs."""
    stage, workload = scene.stage, scene.workload
    save_v2 = lambda: scene.saver.save(scene.prefix)
    out = [scene.contender("TensorFlow SaveV2", TENSORFLOW, save_v2, scene.check_bundle)]
    if saver:
        v1 = peers.TfV1Saver(stage.tf, workload)
        stage.at_end.append(v1.close)
        scene.saver.save(scene.prefix)
        v1.restore(scene.prefix)
        scene.empty()
        save = lambda: v1.save(scene.prefix)
        out.append(scene.contender("TensorFlow Saver.save", PEER, save, scene.check_bundle))
    if all_peers:
        arrays = dict(zip(workload.keys, scene.source.arena.arrays))
        save_file = lambda: safetensors.numpy.save_file(arrays, scene.safetensors)
        out.append(scene.contender("safetensors save_file", SAFETENSORS, save_file, scene.check_safetensors))
    if all_peers and (torch := stage.torch):
        tensors = torch.tensors(workload.keys, scene.source.arena.arrays)
        save_torch = lambda: torch.save(tensors, scene.torch)
        out.append(scene.contender("torch.save", TORCH, save_torch, scene.check_torch))
    return out


class Writing(Protocol):
    """What write_kernels needs of a scene."""

    stage: Stage
    workload: Workload
    source: Source
    data: str

    def empty(self) -> None: ...
    def check_file(self, path: str) -> None: ...
    def contender(self, label: str, group: str, run: Callable[[], None], check: Callable[[], None]) -> Contender: ...


def write_kernels(scene: Writing, kinds: dict[str, Setting]) -> list[Contender]:
    """Each kind in the settings that the sweep left."""
    stage, pieces = scene.stage, scene.source.pieces
    part = prefix_of(pieces, SWEEP_SIZE)
    size = int(part["size"].sum())
    durable = any(kind.sync for kind in kinds.values())
    sweep = stage.sweep(f"{scene.workload.name}: save" + (", durable" if durable else ""))
    out = []
    for name, kind in kinds.items():
        threads = QUEUES if kind.direct else THREADS
        vectored = kind.vectored or (bool(kind.sync) and int(pieces["size"].max()) < 256 * KIB)
        change = {"vectored": vectored, "sync": kind.sync, "direct": kind.direct}
        candidates = [s.but(**change) for s in settings(fallocate=True, quick=stage.quick, threads=threads)]
        kept = 1 if scene.workload.size > 2 * GIB or durable else 2
        write = lambda s: stage.reference.write(scene.data, part, s)
        for s in settle(sweep, name, candidates, size, write, scene.empty, kept):
            run = lambda s=s: stage.reference.write(scene.data, pieces, s)
            label = f"{name}, {'queue of ' + str(s.threads) if s.direct else counted(s.threads)}"
            contender = scene.contender(label, REFERENCE, run, lambda: scene.check_file(scene.data))
            contender.threads, contender.setting = s.threads if not s.direct else None, str(s)
            out.append(contender)
        scene.empty()
    return out


def page_cache_save(stage: Stage, workload: Workload, *, detailed: bool = False, all_peers: bool = True) -> Outcome:
    """Rows 4 and 10, or 7: the workload saved without a sync."""
    with stage.folder() as folder:
        scene = Scene(stage, workload, folder)
        contenders = [ours(scene, threads, sync=False) for threads in reversed(THREADS)]
        if detailed:
            contenders.append(ours(scene, MOST, sync=False, budget=SMALL_BUDGET, group=PLAIN))
        contenders += peer_contenders(scene, saver=detailed, all_peers=all_peers)
        many = int(workload.sizes.max()) < 256 * KIB
        contenders += write_kernels(scene, NAMES if many else {"pwrite": NAMES["pwrite"]})
        outcome = Outcome(workload.name, "save, no sync", workload.size, workload.num_tensors)
        stage.measure(outcome, contenders, short=workload.size < 256 * MIB)
        best, row = outcome.ours(), 7 if workload.shuffled else 4
        stage.find(
            at_least(row, outcome, best, outcome.best(REFERENCE), 0.6 if workload.shuffled else 0.85),
            at_least(row, outcome, best, outcome.best(TENSORFLOW), 6 if workload.shuffled else 2),
            at_least(10, outcome, outcome.labelled("tfckpt_save, 2 threads, budget 8 MiB"), best, 0.8),
        )
    return outcome


def durable_save(stage: Stage, workload: Workload) -> Outcome:
    """Row 5: down to the disk."""
    with stage.folder() as folder:
        scene = Scene(stage, workload, folder)
        contenders = [ours(scene, threads, sync=True) for threads in reversed(THREADS)]
        contenders += write_kernels(scene, DURABLE)
        outcome = Outcome(workload.name, "save, synced", workload.size, workload.num_tensors)
        stage.measure(outcome, contenders)
        stage.find(at_least(5, outcome, outcome.ours(), outcome.best(REFERENCE), 0.9))
    return outcome


def small_durable_save(stage: Stage) -> Outcome:
    """Row 5: so little that the system calls of publishing are all there is."""
    with stage.folder() as folder:
        scene = Scene(stage, FEW, folder)
        contenders = [ours(scene, threads, sync=True) for threads in reversed(THREADS)]
        for name, setting in (("", Setting(fallocate=True)), ("O_DIRECT ", Setting(fallocate=True, direct=True))):
            setting = setting.but(sync=SYNC_AT_END)
            run = lambda s=setting: stage.reference.publish(str(scene.folder), scene.source.pieces, len(scene.index), s)
            check = lambda: scene.check_file(str(scene.folder / "data"))
            contenders.append(scene.contender(f"the bare system calls {name}".strip(), REFERENCE, run, check))
            contenders[-1].setting = "two files written, synced, renamed; the folder synced twice"
        outcome = Outcome(FEW.name, "save, synced", FEW.size, FEW.num_tensors)
        stage.measure(outcome, contenders, short=True)
        stage.find(at_most(5, outcome, outcome.ours(), outcome.best(REFERENCE), 1.5))
    return outcome
