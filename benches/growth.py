"""Row 12: how time grows with size and with the number of tensors, beside the reference kernel's own."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bars import number
from measure import MOST, OURS, REFERENCE, Contender, Outcome, require, run_rounds
from reference_ffi import Setting
from restore_scene import DATA, POISON
from settling import SWEEP_SIZE, Sweep, settings, settle
from stage import SHORT_FACTOR, Growth, Stage, touch_page_cache, warm
from tfckpt_ffi import CRestoreOptions, CSaveOptions, CStats, TensorArray
from workloads import GIB, KIB, MIB, PIECE, Arena, Source, Workload, prefix_of, uniform

SIZES = (1 * MIB, 4 * MIB, 16 * MIB, 64 * MIB, 256 * MIB, 1 * GIB, 4 * GIB, 6 * GIB)
TENSORS = 16
"""Tensors that each size is made of."""
COUNTS = (1, 10, 100, 1_000, 10_000, 100_000, 1_000_000)
TENSOR_SIZE = 1 * KIB
"""Of each tensor, where their number grows."""
MOST_TIMES = 1.3
SMALL = 64 * MIB
"""Up to that size there are more rounds."""


def by_size(stage: Stage) -> None:
    """From 1 MiB to 6 GiB."""
    touch_page_cache(stage.directory / "touch", SIZES[-1])
    works = {size: Workload(f"growth, {size // MIB} MiB", uniform(TENSORS, size // TENSORS)) for size in SIZES}
    _curves(stage, "size", works)


def by_count(stage: Stage) -> None:
    """From 1 tensor to a million."""
    works = {count: Workload(f"growth, {count} tensors", uniform(count, TENSOR_SIZE)) for count in COUNTS}
    _curves(stage, "tensors", works)


def _curves(stage: Stage, unit: str, works: dict[int, Workload]) -> None:
    saves, restores = Growth(f"Save, no sync, by {unit}", unit), Growth(f"Restore, by {unit}", unit)
    for x, workload in works.items():
        with stage.folder() as folder:
            for curve, outcome in ((saves, _save), (restores, _restore)):
                _add(stage, curve, x, outcome(stage, workload, folder))
    for curve in (saves, restores):
        stage.growth.append(curve)
        ratios = [ours / kernel for _, ours, kernel in curve.points]
        over = [
            f"{x / MIB:g} MiB" if unit == "size" else f"{x:,}"
            for (x, *_), r in zip(curve.points, ratios)
            if r > MOST_TIMES
        ]
        measured = f"at most {max(ratios):.2f}" + (f"; above at {', '.join(over)}" if over else "")
        stage.find(
            number(12, curve.title, f"<= {MOST_TIMES} x the kernel's time everywhere", measured, not over, "see Growth")
        )


def _add(stage: Stage, curve: Growth, x: int, outcome: Outcome) -> None:
    ours, kernel = outcome.best(OURS), outcome.best(REFERENCE)
    if outcome.failures:
        stage.outcomes.append(outcome)
    if ours and kernel:
        ratio = outcome.ratio(kernel, ours).median  # of times, per round; ours follows from it
        seconds = outcome.seconds(kernel).median
        curve.points.append((x, ratio * seconds, seconds))


def _rounds(stage: Stage, workload: Workload) -> int:
    return stage.rounds * (SHORT_FACTOR if workload.size <= SMALL else 1)


def _settled(
    workload: Workload, run: Callable[[Setting], None], before: Callable[[], object], fallocate: bool
) -> list[Setting]:
    """The best setting of each number of threads; of more than 1 GiB, where a run takes seconds, the best of all."""
    candidates = settings(fallocate=fallocate)
    if int(workload.sizes.max()) < 256 * KIB:
        candidates = [s.but(vectored=True) for s in candidates]
    sweep = Sweep("")
    kept = settle(sweep, "", candidates, 1, run, before, kept=1)
    if workload.size <= GIB:
        return kept
    return [max(sweep.rates, key=lambda row: row[2])[1]]


def _save(stage: Stage, workload: Workload, folder: Path) -> Outcome:
    """The kernel writes and renames a data file and an index, of as many bytes as ours."""
    source = Source(workload)
    tensors = TensorArray.of_workload(workload, source.pieces)
    options = stage.lib.new(CSaveOptions)
    options.context, options.no_sync = stage.lib.context(MOST), 1
    place = folder / "place"
    place.mkdir()
    prefix = str(place / "saved")

    def save() -> None:
        stage.lib.save(prefix, tensors, options)

    def clean() -> None:
        for path in place.iterdir():
            path.unlink()

    def checked(data: str) -> Callable[[bool], None]:
        return lambda _first: stage.reference.compare_file(data, source.pieces)

    save()
    index_size = os.path.getsize(prefix + ".index")
    clean()
    part = prefix_of(source.pieces, SWEEP_SIZE)
    kernels = _settled(workload, lambda s: stage.reference.write(str(place / "data"), part, s), clean, fallocate=True)
    contenders = [Contender("ours", OURS, save, checked(prefix + DATA), clean=clean)]
    for s in kernels:
        run = lambda s=s: stage.reference.publish(str(place), source.pieces, index_size, s)
        contenders.append(Contender("kernel", REFERENCE, run, checked(str(place / "data")), clean=clean))
    outcome = Outcome(workload.name, "save", workload.size, workload.num_tensors)
    return run_rounds(outcome, contenders, _rounds(stage, workload))


def _restore(stage: Stage, workload: Workload, folder: Path) -> Outcome:
    """The kernel reads the index, too, whole."""
    prefix = str(folder / "stored")
    source = Source(workload)
    save_options = stage.lib.new(CSaveOptions)
    save_options.context = stage.lib.context(MOST)
    stage.lib.save(prefix, TensorArray.of_workload(workload, source.pieces), save_options)
    stage.reference.compare_file(prefix + DATA, source.pieces)
    del source
    into = Arena(workload)
    tensors = TensorArray.of_workload(workload, into.pieces)
    options, stats = stage.lib.new(CRestoreOptions), stage.lib.new(CStats)
    options.context, options.stats = stage.lib.context(MOST), ctypes.pointer(stats)

    def prepare() -> None:
        into.fill(POISON)
        warm(prefix + DATA)

    def check(_first: bool) -> None:
        stage.reference.compare_file(prefix + DATA, into.pieces)

    def check_ours(first: bool) -> None:
        check(first)
        require(stats.bytes_verified == workload.size, "not every checksum was verified")

    part = prefix_of(into.pieces, SWEEP_SIZE)
    kernels = _settled(workload, lambda s: stage.reference.read(prefix + DATA, part, s), lambda: None, fallocate=False)
    index = np.empty(os.path.getsize(prefix + ".index"), np.uint8)
    index_piece = np.array([(0, index.ctypes.data, index.size)], PIECE)

    def read(setting: Setting) -> None:
        stage.reference.read(prefix + ".index", index_piece, Setting())
        stage.reference.read(prefix + DATA, into.pieces, setting)

    contenders = [Contender("ours", OURS, lambda: stage.lib.restore(prefix, tensors, options), check_ours, prepare)]
    contenders += [Contender("kernel", REFERENCE, lambda s=s: read(s), check, prepare) for s in kernels]
    outcome = Outcome(workload.name, "restore", workload.size, workload.num_tensors)
    return run_rounds(outcome, contenders, _rounds(stage, workload))
