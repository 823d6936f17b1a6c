"""What all workloads need: the library, the peers, the kernels, a place for files, and where findings go."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from bars import Finding
from measure import Contender, Outcome, run_rounds
from peers import TensorFlow, Torch
from reference_ffi import Reference
from settling import Sweep
from tfckpt_ffi import Tfckpt
from workloads import MIB

SHORT_FACTOR = 3
"""Times as many rounds where a run takes milliseconds."""


@dataclass
class Growth:
    """A curve of the chart of growth: time at each size or count, ours and the kernel's."""

    title: str
    unit: str
    points: list[tuple[float, float, float]] = field(default_factory=list)
    """(bytes or tensors, our seconds, the kernel's)"""


@dataclass
class Stage:
    """Where a workload is played, and what has been found so far."""

    lib: Tfckpt
    tf: TensorFlow
    torch: Torch | None
    reference: Reference
    directory: Path
    build_dir: Path
    rounds: int
    quick: bool
    outcomes: list[Outcome] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    sweeps: list[Sweep] = field(default_factory=list)
    growth: list[Growth] = field(default_factory=list)
    broken: list[str] = field(default_factory=list)
    """Workloads that could not be played to their end."""
    at_end: list[Callable[[], object]] = field(default_factory=list)
    """Called when the folder in use is removed."""

    @contextmanager
    def folder(self) -> Iterator[Path]:
        """An empty folder, removed at the end together with the contexts made meanwhile."""
        with tempfile.TemporaryDirectory(dir=self.directory) as name:
            try:
                yield Path(name)
            finally:
                self.lib.free_contexts()
                while self.at_end:
                    self.at_end.pop()()

    def measure(self, outcome: Outcome, contenders: list[Contender], *, short: bool = False) -> Outcome:
        """Runs the rounds, more where they are short and vary much, and keeps the outcome."""
        self.outcomes.append(
            run_rounds(outcome, contenders, self.rounds * SHORT_FACTOR if short and not self.quick else self.rounds)
        )
        return outcome

    def sweep(self, title: str) -> Sweep:
        """A new one, kept for the report."""
        self.sweeps.append(Sweep(title))
        return self.sweeps[-1]

    def find(self, *findings: Finding | None) -> None:
        """Keeps what was found about bars; None where it could not be measured."""
        self.findings += [finding for finding in findings if finding]


def warm(path: str) -> None:
    """Reads the file once, into a small buffer."""
    buffer = bytearray(1 * MIB)
    with open(path, "rb", buffering=0) as file:
        while file.readinto(buffer):
            pass


def touch_page_cache(path: Path, size: int) -> None:
    """Has the machine back so many bytes of page cache with real memory: a virtual machine's own host gives a page
    only when it is first used, and that is slow."""
    block = bytes(4 * MIB)
    with open(path, "wb", buffering=0) as file:
        for _ in range(0, size, len(block)):
            file.write(block)
    path.unlink()
