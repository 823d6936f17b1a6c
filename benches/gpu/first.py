"""How long until the first tensor is there, and what the first call of a process pays for."""

from __future__ import annotations

import ctypes
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from bars import within
from measure import LIMIT, OURS, PLAIN, Contender, Outcome, require
from moving import Scene
from rig import Rig

FIRST_TENSOR_SECONDS = 0.005
"""The bar."""
FOREVER = -1
PROCESSES = 3
PROCESS_SECONDS = 60.0


class _Job:
    """A restore in the background whose first tensor is waited for."""

    def __init__(self, scene: Scene) -> None:
        self._scene, self._lib = scene, scene.rig.lib
        self._options = scene.rig.restore_options()
        self._options.stats = None  # of a job they are asked for
        self._options.in_request_order = 1
        self._tensors = scene.on_device(shuffled=True)
        self._job = ctypes.c_void_p()
        self._is_ordered = False

    def start_and_wait(self) -> None:
        """Until the first tensor is in device memory."""
        self._start()
        self._lib.call("job_wait_tensor", self._job, 0, FOREVER)

    def start_and_order(self) -> None:
        """Until a stream waits for it."""
        self._is_ordered = True
        self._start()
        self._lib.call("job_stream_wait", self._job, 0, self._scene.rig.device.stream)

    def _start(self) -> None:
        arguments = (os.fsencode(self._scene.prefix), *self._tensors.arguments, ctypes.byref(self._options))
        self._job = self._lib.make("restore_async", *arguments)

    def check(self, _first: bool) -> None:
        """The first is there before the rest is waited for; then all are."""
        if self._is_ordered:  # behind which it is there
            self._scene.rig.device.wait()
        part = self._scene.workload.request_order()[:1]
        self._scene.rig.device.compare(self._scene.pieces[part], self._scene.source.pieces[part])
        self._lib.call("job_wait", self._job, FOREVER)
        self._scene.check()

    def end(self) -> None:
        """Waits for the job."""
        job, self._job = self._job, ctypes.c_void_p()
        self._lib.plain("job_free", job)


def first_tensor(rig: Rig) -> None:
    """From the call until a tensor of a large restore can be used."""
    workload = rig.scale.large
    with Scene.of(rig, workload) as scene:
        scene.save_from_host()
        waited, ordered = _Job(scene), _Job(scene)
        ours = Contender("tfckpt_job_wait_tensor", OURS, waited.start_and_wait, waited.check, scene.spoil, waited.end)
        label = "tfckpt_job_stream_wait"
        contenders = [ours, Contender(label, PLAIN, ordered.start_and_order, ordered.check, scene.spoil, ordered.end)]
        contenders.append(scene.restored(group=LIMIT, label="tfckpt_restore, all tensors"))
        scene.settle()
        outcome = Outcome(workload.name, "time to the first tensor", 0, workload.num_tensors)
        rig.measure(outcome, contenders, OURS)
        rig.find(within(0, outcome, ours if ours in outcome.sound() else None, FIRST_TENSOR_SECONDS))


def first_call(rig: Rig) -> None:
    """What a process pays once, part by part: the median of some processes."""
    with Scene.of(rig, rig.scale.small, scattered=False) as scene:
        scene.save_from_host()
        program = Path(__file__).resolve().parent / "first_call.py"
        job = {
            "lib": str(rig.path),
            "build_dir": str(rig.build_dir),
            "device": rig.device.number,
            "prefix": scene.prefix,
            "size": rig.scale.small.sizes.tolist()[0],
            "keys": rig.scale.small.keys,
        }
        command, most = [sys.executable, str(program)], min(PROCESS_SECONDS, max(1.0, rig.clock.left()))
        found = [_in_a_process(command, json.dumps(job), most) for _ in range(PROCESSES)]
    parts = {part: statistics.median(times[part] for times in found) for part in found[0]}
    rig.tables["first_call"] = [{"part": part, "seconds": seconds} for part, seconds in parts.items()]


def _in_a_process(command: list[str], job: str, seconds: float) -> dict[str, Any]:
    done = subprocess.run(command, input=job, capture_output=True, text=True, timeout=seconds)
    require(done.returncode == 0, f"first_call.py: {done.stderr.strip()[-400:]}")
    times: dict[str, Any] = json.loads(done.stdout)
    return times
