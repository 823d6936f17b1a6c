"""What all scenes of the GPU bench share: the library, the device, the kernels, folders, and where findings go."""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bars import Finding
from clock import Clock
from device import Device
from loaders import Loader
from measure import Contender, Outcome, require, run_rounds
from reference_ffi import Reference
from tfckpt_ffi import VERIFY_FULL, CRestoreOptions, CSaveOptions, CStats, Tfckpt
from workloads import GIB, KIB, MIB, Workload, uniform

DATA = ".data-00000-of-00001"
DEFAULT_BUDGET = 256 * MIB
"""What a context holds at most, unless told, once a device takes part."""
SMALL_BUDGET = 64 * MIB
ROOM_PER_TENSOR, ROOM = 200, 4 * MIB
"""What calls hold beside the budget."""
NO_STREAM = 0


@dataclass(frozen=True)
class Scale:
    """How much is moved."""

    large: Workload
    """Restored."""
    medium: Workload
    """Saved."""
    small: Workload
    buffer: int
    """Bytes of page-locked memory of the kernels."""
    chunks: tuple[int, ...]
    """Of the plain loops of copies."""
    threads: tuple[int, ...]
    """That the library and the kernels are told to use."""
    rings: tuple[tuple[int, int], ...]
    """Slots and their size, of kernels that read a file."""
    mib: int
    """That each measurement of driver.c moves."""
    seconds: float
    """Without which no scene is begun: what its files and its first round may take."""


FULL = Scale(
    Workload("128x32MiB", uniform(128, 32 * MIB)),
    Workload("64x32MiB", uniform(64, 32 * MIB)),
    Workload("10k x 4KiB", uniform(10_000, 4 * KIB), shuffled=True),
    buffer=256 * MIB,
    chunks=tuple(MIB << i for i in range(7)),
    threads=(1, 2, 4, 8, 16),
    rings=((2, 64 * MIB), (16, 8 * MIB), (64, 2 * MIB)),
    mib=2048,
    seconds=30,
)
TINY = Scale(
    Workload("6x1MiB", uniform(6, MIB)),
    Workload("6x1MiB", uniform(6, MIB)),
    Workload("200 x 4KiB", uniform(200, 4 * KIB), shuffled=True),
    buffer=8 * MIB,
    chunks=(MIB, 4 * MIB),
    threads=(1, 2),
    rings=((2, 2 * MIB), (4, MIB)),
    mib=4,
    seconds=3,
)
"""Shows that everything runs; its figures mean nothing."""


@dataclass
class Rig:
    """Where the scenes are played, and what has been found so far."""

    lib: Tfckpt
    path: Path
    """The library's, for processes of their own."""
    device: Device
    reference: Reference
    loaders: list[Loader]
    directory: Path
    build_dir: Path
    rounds: int
    scale: Scale
    clock: Clock
    outcomes: list[Outcome] = field(default_factory=list)
    bases: dict[int, Contender] = field(default_factory=dict)
    """Of an outcome, by its place: the contender that ratios are made with."""
    findings: list[Finding] = field(default_factory=list)
    tables: dict[str, Any] = field(default_factory=dict)
    """Whatever is not measured in rounds."""
    broken: list[str] = field(default_factory=list)
    """Scenes that could not be played to their end."""
    notes: list[tuple[str, str]] = field(default_factory=list)
    """What else the report has to say."""

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder, removed at the end together with the contexts made meanwhile."""
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            try:
                yield Path(name)
            finally:
                self.lib.free_contexts()
                for loader in self.loaders:
                    loader.trim()

    def measure(self, outcome: Outcome, contenders: list[Contender], base: str, rounds: int = 0) -> Contender | None:
        """Runs the rounds and keeps the outcome; returns the fastest of the group `base`, by which ratios are made."""
        self.outcomes.append(run_rounds(outcome, contenders, rounds or self.rounds, self.clock.has_time))
        best = outcome.best(base)
        if best:
            self.bases[len(self.outcomes) - 1] = best
        return best

    def note(self, name: str, text: str) -> None:
        """Keeps it for the report."""
        self.notes.append((name, text))

    def find(self, finding: Finding | None) -> None:
        """Keeps what was found about a bar; None where it could not be measured."""
        if finding:
            self.findings.append(finding)

    def restore_options(self, threads: int = 0, budget: int = 0, verify: int = VERIFY_FULL) -> CRestoreOptions:
        """Of a context of its own, with figures."""
        options = self.lib.new(CRestoreOptions)
        options.context, options.verify = self.lib.context(threads, budget), verify
        options.stats = ctypes.pointer(self.lib.new(CStats))
        return options

    def save_options(self, threads: int = 0, budget: int = 0) -> CSaveOptions:
        """The same for a save that is not synced."""
        options = self.lib.new(CSaveOptions)
        options.context, options.no_sync = self.lib.context(threads, budget), 1
        options.stats = ctypes.pointer(self.lib.new(CStats))
        return options


def check_figures(stats: CStats, workload: Workload, budget: int, *, verified: bool) -> None:
    """The call has moved everything, verified it, went through page-locked memory, and kept to its budget."""
    require(stats.bytes == workload.size, f"moved {stats.bytes} of {workload.size} bytes")
    most = (budget or DEFAULT_BUDGET) + ROOM_PER_TENSOR * workload.num_tensors + ROOM
    require(stats.peak_host_bytes <= most, f"held {stats.peak_host_bytes / MIB:.1f} MiB of buffers")
    require(0 < stats.peak_pinned_bytes <= stats.peak_host_bytes, "used no page-locked memory")
    require(not verified or stats.bytes_verified >= workload.size, "checksums were not verified")


def needed(scale: Scale) -> int:
    """Bytes of memory, page cache included: the source, and a file of each of three formats."""
    return 4 * scale.large.size + GIB // 2
