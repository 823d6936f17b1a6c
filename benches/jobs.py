"""A save that goes on behind the caller's back: how long it blocks, and what it costs a computation beside it."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bars import JOBS, at_most, number
from measure import MOST, OURS, PLAIN, REFERENCE, TENSORFLOW, THREADS, Contender, Outcome, counted
from restore_scene import DATA
from settling import settings, settle
from stage import Stage
from tfckpt_ffi import CSaveOptions, TensorArray
from workloads import MEDIUM, MIB, Arena, Source

FOREVER = -1
SIDE = 512
"""Of the matrices that the computation multiplies."""


class _Scene:
    """The source, an empty folder, and the job in flight."""

    def __init__(self, stage: Stage, folder: Path) -> None:
        self.stage, self.folder = stage, folder / "empty"
        self.folder.mkdir()
        self.source = Source(MEDIUM)
        self.tensors = TensorArray.of_workload(MEDIUM, self.source.pieces)
        self.prefix = str(self.folder / "model")
        self._job = ctypes.c_void_p()

    def options(self, threads: int) -> CSaveOptions:
        """A durable save, in a context whose budget holds all tensors."""
        options = self.stage.lib.new(CSaveOptions)
        options.context = self.stage.lib.context(threads, MEDIUM.size + MEDIUM.size // 4 + 64 * MIB)
        return options

    def start(self, options: CSaveOptions) -> None:
        """Begins a save."""
        arguments = (os.fsencode(self.prefix), *self.tensors.arguments, ctypes.byref(options))
        self._job = self.stage.lib.make("save_async", *arguments)

    def finish(self) -> None:
        """Waits for its end."""
        job, self._job = self._job, ctypes.c_void_p()
        try:
            self.stage.lib.call("job_wait", job, FOREVER)
        finally:
            self.stage.lib.plain("job_free", job)

    def check(self, _first: bool) -> None:
        """The file is there and is right."""
        self.stage.reference.compare_file(self.prefix + DATA, self.source.pieces)

    def empty(self) -> None:
        """Removes what was saved."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()


def asynchronous_save(stage: Stage) -> None:
    """Time blocked against a memcpy, and a computation beside the job."""
    if not stage.lib.has("save_async", "job_wait", "job_free"):
        stage.find(number(JOBS, MEDIUM.name, "tfckpt_save_async", "the library has none", False))
        return
    with stage.folder() as folder:
        scene = _Scene(stage, folder)
        _blocked(scene)
        _beside(scene)


def _blocked(scene: _Scene) -> None:
    stage, other = scene.stage, Arena(MEDIUM)

    def background(threads: int) -> Contender:
        options = scene.options(threads)

        def check(first: bool) -> None:
            scene.finish()
            scene.check(first)

        label = f"tfckpt_save_async returns, {counted(threads)}"
        run = lambda: scene.start(options)
        setting = "the budget holds the tensors; synced"
        return Contender(label, OURS, run, check, scene.source.arena.touch, scene.empty, setting, threads)

    def blocking() -> Contender:
        options = scene.options(MOST)
        run = lambda: stage.lib.save(scene.prefix, scene.tensors, options)
        label = f"tfckpt_save, {counted(MOST)}"
        return Contender(label, PLAIN, run, scene.check, scene.source.arena.touch, scene.empty, "synced", MOST)

    copy = lambda setting: stage.reference.copy(other.pieces, scene.source.pieces, setting)
    sweep = stage.sweep("asynchronous save: memcpy")
    copies = settle(sweep, "memcpy", settings(quick=stage.quick), MEDIUM.size, copy)
    contenders = [background(threads) for threads in reversed(THREADS)] + [blocking()]
    for s in copies:
        run, check = (lambda s=s: copy(s)), lambda _first: stage.reference.compare(other.pieces, scene.source.pieces)
        label = f"memcpy, {counted(s.threads)}"
        contenders.append(Contender(label, REFERENCE, run, check, setting=f"{s}, warm memory", threads=s.threads))
    outcome = Outcome(MEDIUM.name, "time blocked by a save", MEDIUM.size, MEDIUM.num_tensors)
    stage.measure(outcome, contenders, short=True)
    for threads in reversed(THREADS):
        stage.find(at_most(JOBS, outcome, outcome.ours(threads), outcome.labelled(f"memcpy, {counted(threads)}"), 1.15))


def _beside(scene: _Scene) -> None:
    """The same products of matrices, on one thread, alone and while a save goes on."""
    matrix = np.random.default_rng(0).random((SIDE, SIDE), np.float32)
    options = scene.options(MOST)
    started = time.perf_counter()
    scene.start(options)
    scene.finish()
    duration = time.perf_counter() - started
    scene.empty()
    count = max(1, round(0.8 * duration / _seconds_of(matrix)))

    def compute() -> None:
        for _ in range(count):
            matrix @ matrix

    def in_thread(save: Callable[[], object]) -> tuple[Callable[[], None], Callable[[bool], None]]:
        threads: list[threading.Thread] = []

        def start() -> None:
            threads.append(threading.Thread(target=save))
            threads[0].start()

        def finish(first: bool) -> None:
            threads.pop().join()
            scene.check(first)

        return start, finish

    def finish(first: bool) -> None:
        scene.finish()
        scene.check(first)

    tensorflow = scene.stage.tf.saver(MEDIUM, scene.source.arena.arrays)
    plain_options = scene.options(MOST)
    plain = in_thread(lambda: scene.stage.lib.save(scene.prefix, scene.tensors, plain_options))
    theirs = in_thread(lambda: tensorflow.save(scene.prefix))
    contenders = [
        Contender("alone", REFERENCE, compute, setting=f"{count} products of {SIDE} x {SIDE} float32 on one thread"),
        Contender(
            "beside tfckpt_save_async", OURS, compute, finish, lambda: scene.start(options), scene.empty, threads=MOST
        ),
        Contender("beside tfckpt_save in a thread", PLAIN, compute, plain[1], plain[0], scene.empty),
        Contender("beside SaveV2 in a thread", TENSORFLOW, compute, theirs[1], theirs[0], scene.empty),
    ]
    outcome = Outcome(MEDIUM.name, "a computation beside a save", 0, MEDIUM.num_tensors)
    outcome.notes.append(
        f"A save takes {duration:.2f} s alone; the computation about 0.8 of that. SaveV2 does not sync."
    )
    scene.stage.measure(outcome, contenders)


def _seconds_of(matrix: np.ndarray) -> float:
    times = []
    for _ in range(20):
        started = time.perf_counter()
        matrix @ matrix
        times.append(time.perf_counter() - started)
    return statistics.median(times)
