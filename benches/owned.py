"""Restores into memory that is allocated for them: tfckpt_buffer against the peers' own allocations."""

from __future__ import annotations

import ctypes
from collections.abc import Callable

import numpy as np

from bars import at_least, number
from measure import OURS, PLAIN, REFERENCE, TENSORFLOW, THREADS, Contender, Outcome, counted, require
from reference_ffi import Mapping, Setting
from restore_scene import Scene
from restoring import peer_contenders
from settling import settings, settle
from stage import Stage, warm
from tfckpt_ffi import VERIFY_FULL, VERIFY_NONE, CRestoreOptions, CStats, TensorArray
from workloads import GAP, PIECE, Workload


def owned_restore(stage: Stage, workload: Workload) -> Outcome | None:
    """Row 2."""
    with stage.folder() as folder:
        scene = Scene(stage, workload, folder)
        contenders = [_fresh_memory(scene, t) for t in reversed(THREADS)]
        if stage.lib.has("buffer_new", "buffer_data", "buffer_free"):
            floor = _buffer(scene, THREADS[-1], VERIFY_NONE)  # what is left of the bar's distance is no checksum's
            contenders = [*(_buffer(scene, t) for t in reversed(THREADS)), floor, *contenders]
        contenders += [*peer_contenders(scene), *_kernels(scene)]
        outcome = Outcome(workload.name, "restore into new memory", workload.size, workload.num_tensors)
        stage.measure(outcome, contenders)
        best, base = outcome.ours(), outcome.best(REFERENCE)
        if best is None:
            stage.find(number(2, outcome.title, "tfckpt_buffer", "the library has none", False))
        stage.find(at_least(2, outcome, best, base, 0.9), at_least(2, outcome, best, outcome.best(TENSORFLOW), 2))
    return outcome


def _packed(workload: Workload, base: int) -> np.ndarray:
    """The workload's tensors in one memory, each at a multiple of 64 bytes."""
    pieces = np.empty(workload.num_tensors, PIECE)
    pieces["offset"], pieces["size"] = workload.offsets, workload.sizes
    pieces["data"] = np.uint64(base) + _places(workload)
    return pieces


def _places(workload: Workload) -> np.ndarray:
    strides = (workload.sizes + np.uint64(GAP - 1)) // np.uint64(GAP) * np.uint64(GAP)
    return np.cumsum(strides) - strides


def _room(workload: Workload) -> int:
    return int(_places(workload)[-1] + workload.sizes[-1])


def _contender(
    scene: Scene,
    threads: int,
    label: str,
    group: str,
    take: Callable[[], int],
    give_back: Callable[[], object],
    verify: int = VERIFY_FULL,
) -> Contender:
    """`take` allocates and returns the address, within the timed run."""
    lib, workload = scene.stage.lib, scene.workload
    tensors = TensorArray.of_workload(workload, _packed(workload, 0))
    stats, options = lib.new(CStats), lib.new(CRestoreOptions)
    options.context, options.verify, options.stats = lib.context(threads), verify, ctypes.pointer(stats)
    places, base = _places(workload), [0]

    def run() -> None:
        base[0] = take()
        tensors.records["data"] = np.uint64(base[0]) + places
        lib.restore(scene.prefix, tensors, options)

    def check(_first: bool) -> None:
        scene.stage.reference.compare_file(scene.data, _packed(workload, base[0]))
        verified = workload.size if verify == VERIFY_FULL else 0
        require(stats.bytes_verified == verified, f"checksums of {stats.bytes_verified} bytes verified, not {verified}")

    out = Contender(label, group, run, check, lambda: warm(scene.data), give_back)
    checked = "checksums verified" if verify == VERIFY_FULL else "unverified"
    out.threads, out.setting = threads, f"allocation included, {checked}"
    return out


def _buffer(scene: Scene, threads: int, verify: int = VERIFY_FULL) -> Contender:
    lib, buffers = scene.stage.lib, []

    def take() -> int:
        buffers.append(lib.make("buffer_new", ctypes.c_uint64(_room(scene.workload))))
        return int(lib.plain("buffer_data", buffers[0]))

    def give_back() -> None:
        while buffers:
            lib.plain("buffer_free", buffers.pop())

    label = f"tfckpt_buffer_new, tfckpt_restore, {counted(threads)}"
    if verify == VERIFY_FULL:
        return _contender(scene, threads, label, OURS, take, give_back)
    return _contender(scene, threads, f"{label}, unverified", PLAIN, take, give_back, verify)


def _fresh_memory(scene: Scene, threads: int) -> Contender:
    """As a caller does who knows of no buffer: NumPy's memory, which asks for huge pages and gets them or not."""
    arrays: list[np.ndarray] = []

    def take() -> int:
        arrays.append(np.empty(_room(scene.workload) + GAP, np.uint8))
        return arrays[0].ctypes.data + -arrays[0].ctypes.data % GAP

    label = f"np.empty, tfckpt_restore, {counted(threads)}"
    return _contender(scene, threads, label, PLAIN, take, arrays.clear)


def _kernels(scene: Scene) -> list[Contender]:
    """mmap + MADV_HUGEPAGE + pread."""
    stage, size = scene.stage, scene.workload.size
    mappings: list[Mapping] = []

    def free() -> None:
        while mappings:
            mappings.pop().free()

    def check(_first: bool) -> None:
        stage.reference.compare_file(scene.data, mappings[0].pieces)

    def run(setting: Setting) -> None:
        mappings.append(stage.reference.read_fresh(scene.data, size, setting))

    def run_and_free(setting: Setting) -> None:
        run(setting)
        free()

    name, out = "mmap + MADV_HUGEPAGE + pread", []
    sweep = stage.sweep(f"{scene.workload.name}: restore into new memory")
    for s in settle(sweep, name, settings(quick=stage.quick), size, run_and_free):
        contender = Contender(f"{name}, {counted(s.threads)}", REFERENCE, lambda s=s: run(s), check)
        contender.prepare, contender.clean = lambda: warm(scene.data), free
        contender.threads, contender.setting = s.threads, f"{s}, allocation included"
        out.append(contender)
    return out
