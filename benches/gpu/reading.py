"""How a restore reads: the geometry of the ring that bytes pass through, and files that are not in the page cache."""

from __future__ import annotations

from functools import partial

from measure import LIMIT, PLAIN, REFERENCE, Contender, Outcome, counted
from moving import STALE, Scene, copy_loops
from reference_ffi import Setting
from rig import Rig
from tfckpt_ffi import VERIFY_NONE
from workloads import MIB, Arena

ROUNDS = 2
COLD_CHUNKS = (1 * MIB, 4 * MIB)
QUEUES = (2, 8)
"""Threads of bare reads from the disk, each with one read in flight."""


def ring(rig: Rig) -> None:
    """Warm page cache to the GPU through rings of few large slots and of many small ones, without a checksum."""
    workload = rig.scale.medium
    with Scene.of(rig, workload) as scene:
        scene.save_from_host()
        contenders = []
        for slots, chunk in rig.scale.rings:
            for threads in rig.scale.threads:
                run = partial(rig.device.ring, scene.data, scene.pieces, chunk, slots, threads)
                label = f"{slots} x {chunk // MIB} MiB, {counted(threads)}"
                contenders.append(scene.kernel(label, LIMIT, "pread and copies, no checksum", run, moves=True))
        contenders += copy_loops(rig, scene.address, workload.size, to_host=False)
        contenders.append(scene.restored(group=PLAIN))
        scene.settle()
        operation = "page cache to GPU, by geometry of the ring"
        outcome = Outcome(workload.name, operation, workload.size, workload.num_tensors)
        rig.measure(outcome, contenders, REFERENCE, rounds=ROUNDS)


def cold(rig: Rig) -> None:
    """From the disk to the GPU: before each run the file is taken out of the page cache, which is made sure of."""
    workload = rig.scale.medium
    with Scene.of(rig, workload) as scene:
        scene.save_from_host()
        rig.reference.sync(scene.data)
        if pages := rig.reference.cool(scene.data):
            rig.note("Left out: cold restores", f"{pages} pages of a file stay in the page cache here")
            return
        scene.cold = True
        ours = scene.restored()
        contenders = [ours, scene.restored(verify=VERIFY_NONE, group=PLAIN, label="tfckpt_restore, unverified")]
        memory = Arena(workload)
        contenders += [_read(scene, memory, Setting(threads=count)) for count in QUEUES]
        for chunk in COLD_CHUNKS:
            contenders += [_read(scene, memory, Setting(chunk=chunk, threads=count, direct=True)) for count in QUEUES]
        outcome = Outcome(workload.name, "disk to GPU, cold", workload.size, workload.num_tensors)
        rig.measure(outcome, contenders, REFERENCE, rounds=ROUNDS)
        if scene.stats and ours in outcome.sound():
            shares = [part / workload.size for part in (scene.stats.bytes_cold, scene.stats.bytes_direct)]
            outcome.notes.append(
                f"Of its last restore tfckpt_restore found {shares[0]:.0%} cold and read {shares[1]:.0%} with O_DIRECT. "
                "The bare reads end in host memory."
            )


def _read(scene: Scene, memory: Arena, setting: Setting) -> Contender:
    """The disk by itself, to host memory."""
    reference = scene.rig.reference

    def prepare() -> None:
        memory.fill(STALE)
        scene.cool()

    run = partial(reference.read, scene.data, memory.pieces, setting)
    check = lambda _first: reference.compare(memory.pieces, scene.source.pieces)
    label = "O_DIRECT pread to host memory" if setting.direct else "pread to host memory"
    return Contender(label, REFERENCE, run, check, prepare, setting=f"{setting}, {counted(setting.threads)}")
