"""Whole workloads between the page cache and the GPU: restored, saved, and many small tensors."""

from __future__ import annotations

import statistics
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bars import at_least, number
from device import places, room, span
from loaders import Loader, pieces_of
from measure import LIMIT, OURS, PLAIN, REFERENCE, Contender, Outcome, counted, require
from reference_ffi import Setting
from rig import DATA, NO_STREAM, SMALL_BUDGET, Rig, check_figures
from tfckpt_ffi import VERIFY_FULL, VERIFY_NONE, CStats, TensorArray
from workloads import MIB, Source, Workload

ASIDE = "aside"
"""Contenders that are only shown."""
STALE = 0xEE
"""What device memory holds before a restore."""
SETTLING = 0.3
"""Of a scene's time, for files on their way to the disk."""
RING_CHUNK = 8 * MIB
COPY_RATE, SMALL_COPY_RATE, SAVE_RATE, SMALL_TENSORS = 0.90, 0.85, 0.80, 300_000
"""The bars: of the plain loop's rate, with the default and the small budget; of the slower of device-to-host copies and
page-cache writes; tensors of 4 KiB per second."""


class Scene:
    """A workload in host memory, in the library's files and in device memory."""

    def __init__(self, rig: Rig, workload: Workload, folder: Path, address: int, *, scattered: bool = True) -> None:
        self.rig, self.workload, self.folder, self.address = rig, workload, folder, address
        self.source = Source(workload)
        self.pieces = places(workload, address, scattered=scattered)
        self.prefix = str(folder / "model")
        self.data = self.prefix + DATA
        self.cold = False
        """Whether the data file is taken out of the page cache before each restore."""
        self.stats: CStats | None = None
        """Of the last restore by the library's own choice."""
        self.waited: list[float] = []
        """Of each restore by the library's own choice: the share of its threads' time spent waiting for copies."""

    @classmethod
    @contextmanager
    def of(cls, rig: Rig, workload: Workload, *, scattered: bool = True) -> Iterator[Scene]:
        """In a folder and device memory of its own."""
        with rig.folder() as folder, rig.device.memory(room(workload)) as address:
            yield cls(rig, workload, folder, address, scattered=scattered)

    def save_from_host(self) -> None:
        """Writes the checkpoint that is restored."""
        tensors = TensorArray.of_workload(self.workload, self.source.pieces)
        self.rig.lib.save(self.prefix, tensors, self.rig.save_options())
        self.rig.reference.compare_file(self.data, self.source.pieces)

    def settle(self) -> None:
        """Lets the files reach the disk, or it is busy with them in the middle of the rounds, and reads them once. A slow
        disk does not take the time of the rounds."""
        paths = list(self.folder.iterdir())
        syncing = threading.Thread(target=self._sync, args=(paths,), daemon=True)
        syncing.start()
        syncing.join(max(1.0, SETTLING * self.rig.clock.scene_left()))
        if syncing.is_alive():
            self.rig.note("Files were still written to the disk during", self.workload.name)
        buffer = bytearray(8 * MIB)
        for path in paths:
            with open(path, "rb", buffering=0) as file:
                while file.readinto(buffer):
                    pass

    def _sync(self, paths: list[Path]) -> None:
        for path in paths:
            with suppress(OSError):  # the scene has gone on, and has removed it
                self.rig.reference.sync(str(path))

    def cool(self) -> None:
        """Takes the data file out of the page cache and makes sure of it."""
        pages = self.rig.reference.cool(self.data)
        require(pages == 0, f"{pages} pages of the file stay in the page cache")

    def spoil(self) -> None:
        """What comes before a restore: device memory overwritten, so that stale bytes never pass for restored ones."""
        self.rig.device.fill(span(self.address, room(self.workload)), STALE)
        if self.cold:
            self.cool()

    def check(self, pieces: np.ndarray | None = None) -> None:
        """The device has the source's bytes."""
        self.rig.device.compare(self.pieces if pieces is None else pieces, self.source.pieces)

    def on_device(self, *, shuffled: bool = False) -> TensorArray:
        """The tensors in device memory."""
        order = self.workload.request_order() if shuffled else None
        return TensorArray.of_workload(self.workload, self.pieces, order).on_device(self.rig.device.number, NO_STREAM)

    def restored(
        self,
        threads: int = 0,
        budget: int = 0,
        *,
        verify: int = VERIFY_FULL,
        group: str = OURS,
        label: str = "tfckpt_restore",
    ) -> Contender:
        """The library, with the page-locked memory that its first round has made."""
        options, tensors = self.rig.restore_options(threads, budget, verify), self.on_device(shuffled=True)

        def check(first: bool) -> None:
            stats = options.stats.contents
            check_figures(stats, self.workload, budget, verified=verify == VERIFY_FULL)
            if group == OURS:
                self.stats = stats
            if group == OURS and not first:
                self.waited.append(stats.device_wait_ns / (stats.elapsed_ns * stats.num_threads))
            self.check()

        run = partial(self.rig.lib.restore, self.prefix, tensors, options)
        setting = counted(threads) if threads else "threads chosen by the library"
        contender = Contender(label, group, run, check, self.spoil, setting=setting, threads=threads or None)
        if budget:
            contender.label += f", budget {budget // MIB} MiB"
        return contender

    def kernel(
        self, label: str, group: str, setting: str, run: Callable[[], object], *, moves: bool = False
    ) -> Contender:
        """A kernel; one that moves the file's bytes to their places is checked."""
        if not moves:
            return Contender(label, group, run, setting=setting)
        return Contender(label, group, run, lambda _first: self.check(), self.spoil, setting=setting)

    def loaded(self, loader: Loader) -> Contender:
        """Another's loader, with a file of its own format. Its memory comes from an allocator that hands the same out
        again: what it held is overwritten, or a loader that does nothing would pass."""
        path = str(self.folder / f"other{loader.suffix}")
        if not Path(path).exists():
            loader.write(path, self.workload, self.source.arena.arrays)
        held: dict[str, Any] = {}

        def clean() -> None:
            self._forget(loader, held)

        check = lambda _first: self.check(pieces_of(held, self.workload))
        return Contender(loader.label, loader.group, lambda: held.update(loader.load(path)), check, clean=clean)


    def _forget(self, loader: Loader, held: dict[str, Any]) -> None:
        if held:
            self.rig.device.fill(pieces_of(held, self.workload), STALE)
        held.clear()
        loader.release()

    def saved_by(self, loader: Loader) -> Contender:
        """Another's save of the tensors, where it has put them itself; read back in the first round."""
        path = str(self.folder / f"other{loader.suffix}")
        loader.write(path, self.workload, self.source.arena.arrays)
        tensors = loader.load(path)
        self.check(pieces_of(tensors, self.workload))
        Path(path).unlink()

        def check(first: bool) -> None:
            if first:
                held = loader.load(path)
                self.check(pieces_of(held, self.workload))
                self._forget(loader, held)

        run = partial(loader.save, path, tensors)
        return Contender(loader.save_label, loader.group, run, check, clean=partial(_empty, self))


def copy_loops(rig: Rig, address: int, size: int, *, to_host: bool) -> list[Contender]:
    """The plain loop of copies with each size of chunk, in one stream and in two."""
    copy = rig.device.to_host if to_host else rig.device.to_device
    label = "pinned device-to-host copies" if to_host else "pinned host-to-device copies"
    out = []
    for chunk in rig.scale.chunks:
        for streams in (1, 2):
            setting = f"{chunk // MIB} MiB, {streams} stream" + "s" * (streams > 1)
            out.append(Contender(label, REFERENCE, partial(copy, address, size, chunk, streams), setting=setting))
    return out


def restore(rig: Rig) -> None:
    """Warm page cache to the GPU, verified."""
    workload, threads = rig.scale.large, rig.scale.threads
    with Scene.of(rig, workload) as scene:
        scene.save_from_host()
        ours = scene.restored()
        small = scene.restored(budget=SMALL_BUDGET, group=PLAIN)
        blind = scene.restored(verify=VERIFY_NONE, group=PLAIN, label="tfckpt_restore, unverified")
        contenders = [ours, small, blind]
        contenders += [scene.restored(t, group=PLAIN, label=f"tfckpt_restore, {counted(t)}") for t in threads]
        contenders += copy_loops(rig, scene.address, workload.size, to_host=False)
        for count in threads[-3:]:
            chunk = min(RING_CHUNK, rig.scale.buffer // (2 * count))
            run = partial(rig.device.ring, scene.data, scene.pieces, chunk, 2 * count, count)
            setting = f"{2 * count} x {chunk // MIB} MiB, {counted(count)}"
            contenders.append(scene.kernel("pread and copies, no checksum", LIMIT, setting, run, moves=True))
            pread = partial(rig.reference.read_hot, scene.data, scene.source.pieces, Setting(threads=count))
            contenders.append(scene.kernel("pread into a hot buffer", LIMIT, counted(count), pread))
        contenders += [scene.loaded(loader) for loader in rig.loaders]
        scene.settle()
        outcome = Outcome(workload.name, "page cache to GPU", workload.size, workload.num_tensors)
        base = rig.measure(outcome, contenders, REFERENCE)
        rig.find(at_least(0, outcome, _sound(outcome, ours), base, COPY_RATE))
        rig.find(at_least(0, outcome, _sound(outcome, small), base, SMALL_COPY_RATE))
        _ahead_of_all(rig, outcome, ours, [loader.label for loader in rig.loaders])
        rig.tables["stages"] = _stages(outcome, ours, blind, scene.waited)


def _sound(outcome: Outcome, contender: Contender) -> Contender | None:
    return contender if contender in outcome.sound() else None


def _ahead_of_all(rig: Rig, outcome: Outcome, ours: Contender, labels: list[str]) -> None:
    for label in labels:
        rig.find(at_least(0, outcome, _sound(outcome, ours), outcome.labelled(label), 1.0))


def _stages(outcome: Outcome, ours: Contender, blind: Contender, waited: list[float]) -> list[dict[str, Any]]:
    """Each stage alone, in its best setting, as a share of the whole: stages run side by side, so that the shares may
    add up to more than 1, and the largest is what the restore waits for. And what the library says itself."""
    if _sound(outcome, ours) is None or not waited:
        return []
    whole = outcome.seconds(ours).median
    out: list[tuple[str, str, float]] = []
    for stage, label in (("reading", "pread into a hot buffer"), ("copying", "pinned host-to-device copies")):
        contender = outcome.labelled(label)
        if contender:
            out.append((stage, f"{label}, alone", outcome.seconds(contender).median))
    if _sound(outcome, blind):
        out.append(("checksums", "what leaving them out saves", whole - outcome.seconds(blind).median))
    out.append(("waiting for copies", "device_wait_ns, of all threads' time", statistics.median(waited) * whole))
    out.append(("processor", "time of all threads together", outcome.cpu_seconds(ours)))
    return [{"stage": stage, "how": how, "seconds": s, "share": s / whole} for stage, how, s in out]


def save(rig: Rig) -> None:
    """The GPU to the page cache, with checksums."""
    workload = rig.scale.medium
    with Scene.of(rig, workload) as scene:
        rig.device.upload(scene.source.pieces, scene.pieces)
        scene.check()
        ours = _saved(scene)
        contenders = [ours, _saved(scene, budget=SMALL_BUDGET, group=PLAIN)]
        contenders += copy_loops(rig, scene.address, workload.size, to_host=True)
        for count in rig.scale.threads[-3:]:
            contenders.append(_saved(scene, count, group=PLAIN, label=f"tfckpt_save, {counted(count)}"))
            contenders += [_written(scene, count, fallocate) for fallocate in (False, True)]
        contenders.append(_written_from_pinned(scene, rig.scale.threads[-2]))
        contenders += [scene.saved_by(loader) for loader in rig.loaders if loader.save_label]
        outcome = Outcome(workload.name, "GPU to page cache", workload.size, workload.num_tensors)
        copies, writes = rig.measure(outcome, contenders, REFERENCE, rounds=-(-rig.rounds // 2)), outcome.best(LIMIT)
        slower = min((c for c in (copies, writes) if c), key=outcome.rate, default=None)
        rig.find(at_least(0, outcome, _sound(outcome, ours), slower, SAVE_RATE))
        _ahead_of_all(rig, outcome, ours, [loader.save_label for loader in rig.loaders if loader.save_label])


def _empty(scene: Scene) -> None:
    for path in scene.folder.iterdir():
        path.unlink()


def _saved(
    scene: Scene, threads: int = 0, budget: int = 0, *, group: str = OURS, label: str = "tfckpt_save"
) -> Contender:
    options, tensors = scene.rig.save_options(threads, budget), scene.on_device()

    def check(_first: bool) -> None:
        check_figures(options.stats.contents, scene.workload, budget, verified=False)
        scene.rig.reference.compare_file(scene.data, scene.source.pieces)

    run = partial(scene.rig.lib.save, scene.prefix, tensors, options)
    setting = counted(threads) if threads else "threads chosen by the library"
    contender = Contender(label, group, run, check, clean=partial(_empty, scene), setting=setting)
    if budget:
        contender.label += f", budget {budget // MIB} MiB"
    return contender


def _written(scene: Scene, threads: int, fallocate: bool) -> Contender:
    """What writing to the page cache takes by itself, from memory that the kernel reads as it likes."""
    setting = Setting(chunk=4 * MIB, threads=threads, fallocate=fallocate)
    reference, pieces = scene.rig.reference, scene.source.pieces

    def check(first: bool) -> None:
        if first:
            reference.compare_file(scene.data, pieces)

    run, text = partial(reference.write, scene.data, pieces, setting), f"{setting}, {counted(threads)}"
    return Contender("pwrite from host memory", LIMIT, run, check, clean=partial(_empty, scene), setting=text)


def _written_from_pinned(scene: Scene, threads: int) -> Contender:
    """Beside it: whether page-locked memory is slower to write from. The same few bytes again and again."""
    pieces, device = scene.source.pieces.copy(), scene.rig.device
    step = max(1, device.buffer // int(pieces["size"].max()))
    pieces["data"] = device.pinned + np.arange(len(pieces), dtype=np.uint64) % np.uint64(step) * pieces["size"]
    setting = Setting(chunk=4 * MIB, threads=threads)
    run, text = partial(scene.rig.reference.write, scene.data, pieces, setting), f"{setting}, {counted(threads)}"
    return Contender("pwrite from page-locked memory", ASIDE, run, clean=partial(_empty, scene), setting=text)


def small(rig: Rig) -> None:
    """Many tensors of 4 KiB at scattered addresses, and into one slab."""
    workload = rig.scale.small
    for scattered in (True, False):
        with Scene.of(rig, workload, scattered=scattered) as scene:
            scene.save_from_host()
            ours = scene.restored()
            contenders = [ours, scene.restored(1, group=PLAIN, label="tfckpt_restore, 1 thread")]
            for batched in (False, True):
                run = partial(rig.device.pieces, scene.pieces, batched=batched)
                label = "one batch of copies" if batched else "a copy for each tensor"
                contenders.append(scene.kernel(label, REFERENCE, "from page-locked memory", run))
            if scattered:
                contenders += [scene.loaded(loader) for loader in rig.loaders]
            scene.settle()
            places_text = "scattered" if scattered else "one slab"
            outcome = Outcome(workload.name, f"page cache to GPU, {places_text}", workload.size, workload.num_tensors)
            rig.measure(outcome, contenders, REFERENCE, rounds=3 * rig.rounds)
            if scattered and _sound(outcome, ours):
                rate = workload.num_tensors / outcome.seconds(ours).median
                bar, measured = f">= {SMALL_TENSORS:,} tensors/s", f"{rate:,.0f} tensors/s"
                rig.find(number(0, outcome.title, bar, measured, rate >= SMALL_TENSORS))
                _ahead_of_all(rig, outcome, ours, [loader.label for loader in rig.loaders])
