"""The reference kernels of a restore."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from measure import LIMIT, REFERENCE, Contender, counted
from reference_ffi import Setting
from restore_scene import Scene
from settling import QUEUES, SWEEP_SIZE, settings, settle
from workloads import GIB, KIB, Arena, prefix_of


def kernel(
    scene: Scene, name: str, group: str, setting: Setting, run: Callable[[], None], checked: bool = True
) -> Contender:
    """A reference kernel moving the data file's pieces."""
    out = Contender(f"{name}, {counted(setting.threads)}", group, run)
    if checked:
        out.verify = lambda _first: scene.check_destination()
    out.prepare, out.threads, out.setting = scene.ready(scene.data, into_caller=True), setting.threads, str(setting)
    return out


def read_kernels(scene: Scene, direct: bool = False) -> list[Contender]:
    """pread, preadv where a chunk holds several tensors, or O_DIRECT, into the caller's memory: the settings that the
    sweep left."""
    stage, pieces = scene.stage, scene.destination.pieces
    part = prefix_of(pieces, SWEEP_SIZE)
    size = int(part["size"].sum())
    sweep = stage.sweep(f"{scene.workload.name}: restore" + (", cold" if scene.cold else ""))
    before = (lambda: scene.cool(scene.data)) if scene.cold else (lambda: None)
    candidates = settings(quick=stage.quick)
    many = int(scene.workload.sizes.max()) < 256 * KIB
    kinds = {"pread": candidates, **({"preadv": [s.but(vectored=True) for s in candidates]} if many else {})}
    if direct:
        kinds["O_DIRECT pread"] = [s.but(direct=True) for s in settings(quick=stage.quick, threads=QUEUES)]
    out = []
    for name, all_settings in kinds.items():
        read = lambda setting: stage.reference.read(scene.data, part, setting)
        kept = 1 if scene.workload.size > 2 * GIB else 2
        for s in settle(sweep, name, all_settings, size, read, before, kept):
            run = lambda s=s: stage.reference.read(scene.data, pieces, s)
            out.append(kernel(scene, name, REFERENCE, s, run))
            if s.direct:
                out[-1].label, out[-1].threads = f"{name}, queue of {s.threads}", None
    return out


def limit_kernels(scene: Scene) -> list[Contender]:
    """Kernels that do less than a restore: reading into one hot buffer, memcpy, CRC, each in its best chunk."""
    reference, whole, other = scene.stage.reference, scene.destination.pieces, Arena(scene.workload)
    part = prefix_of(whole, SWEEP_SIZE)
    runs: dict[str, Callable[[np.ndarray, Setting], None]] = {
        "pread into a hot buffer": lambda pieces, s: reference.read_hot(scene.data, pieces, s),
        "memcpy": lambda pieces, s: reference.copy(prefix_of(other.pieces, int(pieces["size"].sum())), pieces, s),
        "CRC-32C, SSE 4.2 instruction": reference.crc,
    }
    out = []
    sweep = scene.stage.sweep(f"{scene.workload.name}: limits")
    for name, run in runs.items():
        swept = settings(quick=scene.stage.quick)
        for s in settle(sweep, name, swept, int(part["size"].sum()), lambda s, run=run: run(part, s), kept=1):
            out.append(kernel(scene, name, LIMIT, s, lambda run=run, s=s: run(whole, s), checked=False))
    return out
