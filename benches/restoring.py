"""Restores of a workload: warm or cold, into the caller's warm memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

import peers
from bars import at_least, number
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
from restore_kernels import limit_kernels, read_kernels
from restore_scene import ALL, Scene
from stage import Stage
from tfckpt_ffi import VERIFY_FULL, VERIFY_NONE, CRestoreOptions, CStats, TensorArray
from workloads import MIB, Workload

SMALL_BUDGET = 8 * MIB


def ours(scene: Scene, threads: int, verify: int = VERIFY_FULL, budget: int = 0, group: str = OURS) -> Contender:
    """tfckpt_restore into the caller's warm memory, through a context."""
    lib, workload = scene.stage.lib, scene.workload
    tensors = TensorArray.of_workload(workload, scene.destination.pieces, workload.request_order())
    stats, options = lib.new(CStats), lib.new(CRestoreOptions)
    options.context, options.verify, options.stats = lib.context(threads, budget), verify, ctypes.pointer(stats)

    def check(_first: bool) -> None:
        scene.check_destination()
        verified = workload.size if verify == VERIFY_FULL else 0
        require(stats.bytes_verified == verified, f"checksums of {stats.bytes_verified} bytes verified, not {verified}")
        most = (budget or 64 * MIB) + 200 * workload.num_tensors + 4 * MIB
        require(stats.peak_host_bytes <= most, f"{stats.peak_host_bytes} bytes of buffers, {most} allowed")

    label = f"tfckpt_restore, {counted(threads)}" + (", unverified" if verify == VERIFY_NONE else "")
    label += f", budget {budget // MIB} MiB" if budget else ""
    out = Contender(label, group, lambda: lib.restore(scene.prefix, tensors, options), check)
    out.prepare, out.threads = scene.ready(scene.data, into_caller=True), threads
    out.setting = "checksums verified" if verify == VERIFY_FULL else ""
    scene.stats[out] = stats
    return out


def theirs(scene: Scene, label: str, group: str, path: str, load: Callable[[], Any], arrays: Callable[[Any], Any]):
    """A peer that allocates its outputs; `arrays` makes NumPy arrays in key order of what `load` returned."""
    held: list[Any] = []

    def run() -> None:
        held[:] = [load()]

    def check(_first: bool) -> None:
        scene.check(arrays(held[0]))

    out = Contender(label, group, run, check, scene.ready(path, into_caller=False), held.clear)
    out.setting = "allocates its outputs"
    return out


def peer_contenders(scene: Scene, *, saver: bool = False) -> list[Contender]:
    """Everyone else, in their steady state. RestoreV2 asked for shuffled keys reads its 1 MiB buffer again for most of
    them, so it is also asked in the file's order, and its better figure counts."""
    stage, workload = scene.stage, scene.workload
    in_order, requested = list(range(workload.num_tensors)), workload.request_order().tolist()
    orders = (
        {"": in_order} if requested == in_order else {", keys in file order": in_order, ", keys shuffled": requested}
    )
    out = []
    for name, order in orders.items():
        restorer = stage.tf.restorer(workload, order)
        back = np.argsort(order)

        def arrays(outputs: list[Any], back: np.ndarray = back) -> list[np.ndarray]:
            found = stage.tf.as_arrays(outputs)
            return [found[i] for i in back]

        load = lambda restorer=restorer: restorer.restore(scene.prefix)
        out.append(theirs(scene, f"TensorFlow RestoreV2{name}", TENSORFLOW, scene.data, load, arrays))
    if saver:
        v1 = peers.TfV1Saver(stage.tf, workload)
        stage.at_end.append(v1.close)
        load_v1 = lambda: v1.restore(scene.prefix)
        out.append(theirs(scene, "TensorFlow Saver.restore", PEER, scene.data, load_v1, lambda _: v1.arrays()))
    by_key = lambda found: [found[key] for key in workload.keys]
    if Path(scene.safetensors).exists():
        for backend in ("mmap", "pread"):
            load = lambda backend=backend: safetensors.numpy.load_file(scene.safetensors, backend=backend)
            out.append(theirs(scene, f"safetensors load_file, {backend}", SAFETENSORS, scene.safetensors, load, by_key))
    if (torch := stage.torch) and Path(scene.torch).exists():
        load_torch = lambda: torch.load(scene.torch)
        as_arrays = lambda tensors: by_key(torch.as_arrays(tensors))
        out.append(theirs(scene, "torch.load(mmap=True)", TORCH, scene.torch, load_torch, as_arrays))
    return out


def warm_restore(
    stage: Stage, workload: Workload, *, detailed: bool = False, formats: tuple[str, ...] = ALL
) -> Outcome:
    """Rows 1, 3 and 10, or 7: the workload restored from the page cache into the caller's warm memory."""
    with stage.folder() as folder:
        scene = Scene(stage, workload, folder, formats)
        contenders = [ours(scene, threads) for threads in reversed(THREADS)]
        if detailed:
            contenders += [ours(scene, t, verify=VERIFY_NONE, group=PLAIN) for t in reversed(THREADS)]
            contenders += [ours(scene, MOST, budget=SMALL_BUDGET, group=PLAIN)]
        contenders += peer_contenders(scene, saver=detailed)
        contenders += read_kernels(scene)
        contenders += limit_kernels(scene) if detailed else []
        outcome = Outcome(workload.name, "restore", workload.size, workload.num_tensors)
        stage.measure(outcome, contenders)
        if workload.shuffled:
            outcome.notes.append(_graph_note(outcome, scene))
            _find_small(stage, outcome)
        else:
            _find_warm(stage, outcome)
    return outcome


def cold_restore(stage: Stage, workload: Workload) -> Outcome:
    """Row 6: from the disk."""
    with stage.folder() as folder:
        scene = Scene(stage, workload, folder)
        scene.cold = True
        contenders = [ours(scene, threads) for threads in reversed(THREADS)]
        contenders += [*peer_contenders(scene), *read_kernels(scene, direct=True)]
        outcome = Outcome(workload.name, "cold restore", workload.size, workload.num_tensors)
        stage.measure(outcome, contenders)
        stage.find(at_least(6, outcome, outcome.ours(), outcome.best(REFERENCE), 0.95))
        best = outcome.ours()
        if best and (direct := getattr(scene.stats[best], "bytes_direct", None)) is not None:
            outcome.notes.append(
                f"Of its last cold restore tfckpt_restore read {direct / workload.size:.0%} with O_DIRECT."
            )
    return outcome


def _find_warm(stage: Stage, outcome: Outcome) -> None:
    best, one = outcome.ours(), outcome.ours(1)
    stage.find(
        at_least(1, outcome, best, outcome.best(REFERENCE), 0.85),
        at_least(1, outcome, one, outcome.best(REFERENCE, 1), 0.75),
        at_least(1, outcome, best, outcome.best(TENSORFLOW), 3.5),
        at_least(1, outcome, best, outcome.best(SAFETENSORS), 4),
        at_least(3, outcome, best, outcome.labelled("tfckpt_restore, 2 threads, unverified"), 0.85),
        at_least(3, outcome, one, outcome.labelled("tfckpt_restore, 1 thread, unverified"), 0.75),
        at_least(10, outcome, outcome.labelled("tfckpt_restore, 2 threads, budget 8 MiB"), best, 0.8),
    )


def _find_small(stage: Stage, outcome: Outcome) -> None:
    best = outcome.ours()
    if best:
        rate = outcome.num_tensors / outcome.seconds(best).median
        kernel = outcome.best(REFERENCE)
        floor = (
            f"{kernel.label} ({kernel.setting}): {outcome.num_tensors / outcome.seconds(kernel).median:,.0f}/s"
            if kernel
            else ""
        )
        what = f"{outcome.title}, {best.label}"
        stage.find(number(7, what, ">= 1,500,000 tensors/s", f"{rate:,.0f}", rate >= 1.5e6, floor))
    stage.find(at_least(7, outcome, best, outcome.best(TENSORFLOW), 6))


def _graph_note(outcome: Outcome, scene: Scene) -> str:
    """How much of TensorFlow's figure is Python's, where there are outputs enough for it to count."""
    tensorflow = outcome.best(TENSORFLOW)
    if tensorflow is None or scene.stage.quick:
        return ""
    graph = scene.stage.tf.restorer(scene.workload).graph_seconds(scene.prefix)
    return (
        "Not in the table: inside a tf.function that hands out only one of the outputs, RestoreV2 takes "
        f"{graph / outcome.seconds(tensorflow).median:.2f} of its eager time (best of 4, not interleaved); the rest is "
        "Python's share per output."
    )
