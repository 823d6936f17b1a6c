"""What the contenders of a restore share: files and memory."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import safetensors.numpy

from measure import SAFETENSORS, TORCH, Contender, require
from stage import Stage, warm
from tfckpt_ffi import CStats
from workloads import Arena, Source, Workload, pieces_at

POISON = 0xA5
DATA = ".data-00000-of-00001"
ALL = (SAFETENSORS, TORCH)
"""The peers that have formats of their own."""


class Scene:
    """What the contenders of one restore share: the files and the caller's warm memory. Nothing of the source is kept:
    the data file is compared with it once, and from then on is what others are compared with."""

    def __init__(self, stage: Stage, workload: Workload, folder: Path, formats: tuple[str, ...] = ALL) -> None:
        self.stage, self.workload = stage, workload
        self.prefix = str(folder / "model")
        self.data = self.prefix + DATA
        self.safetensors, self.torch = str(folder / "model.safetensors"), str(folder / "model.pt")
        self.cold = False
        self.stats: dict[Contender, CStats] = {}
        source = Source(workload)
        stage.tf.saver(workload, source.arena.arrays).save(self.prefix)
        if SAFETENSORS in formats:
            safetensors.numpy.save_file(dict(zip(workload.keys, source.arena.arrays)), self.safetensors)
        if TORCH in formats and stage.torch:
            stage.torch.save(stage.torch.tensors(workload.keys, source.arena.arrays), self.torch)
        for path in folder.iterdir():
            stage.reference.sync(str(path))  # or its pages are written to disk in the middle of the rounds
        stage.reference.compare_file(self.data, source.pieces)
        del source
        self.destination = Arena(workload)

    def check_destination(self) -> None:
        """Raises unless the caller's memory holds the tensors."""
        self.stage.reference.compare_file(self.data, self.destination.pieces)

    def check(self, arrays: list[np.ndarray]) -> None:
        """Raises unless the arrays, in key order, hold the tensors."""
        same = all(a.shape == s.shape and a.nbytes == s.size for a, s in zip(arrays, self.workload.specs, strict=True))
        require(same, "a restored tensor has another shape or size")
        self.stage.reference.compare_file(self.data, pieces_at(self.workload, arrays))

    def ready(self, path: str, into_caller: bool) -> Callable[[], None]:
        """What comes before a run: the caller's memory overwritten, which also keeps it warm; the file warm or cold."""

        def prepare() -> None:
            if into_caller:
                self.destination.fill(POISON)
            self.cool(path) if self.cold else warm(path)

        return prepare

    def cool(self, path: str) -> None:
        """Takes the file out of the page cache and makes sure of it."""
        pages = self.stage.reference.cool(path)
        require(pages == 0, f"{pages} pages of the file stay in the page cache")
