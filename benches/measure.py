"""The method: rounds in rotated order, the first one dropped, figures as medians of per-round ratios."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from workloads import GIB, Workload

OURS = "ours"
TENSORFLOW = "tensorflow"
PLAIN = "plain"
"""The library itself, doing the same without slices or shards."""
SAFETENSORS = "safetensors"
REFERENCE = "reference"
"""Bare system calls doing the same work: what the library is measured against."""
LIMIT = "limit"
"""Bare kernels that do less than the work: shown, never a base of a ratio."""

THREADS = (1, 2)
"""What contenders that can be told how many threads to use are run with."""


def counted(threads: int) -> str:
    """As labels say it."""
    return f"{threads} thread" + "s" * (threads > 1)


class WrongResult(Exception):
    """A contender did not move the bytes that it was asked to move."""


class Contender(ABC):
    """One way to save or restore a workload, in one setting."""

    label: str
    group: str
    threads: int | None = None
    """How many threads it was told to use; None: its own choice."""
    setting: str = ""
    """What it does besides, or what distinguishes it from others of its label, of which only the best is shown."""

    @abstractmethod
    def prepare(self) -> None:
        """Untimed, just before the run: the same state of caches and memory for everyone."""

    @abstractmethod
    def run(self) -> None:
        """Timed."""

    @abstractmethod
    def verify(self, first: bool) -> None:
        """Untimed, after the run. Raises if the result is wrong; in the `first` round more may be checked."""

    def clean(self) -> None:
        """Untimed, after the verification: gives back what the run took."""


@dataclass(frozen=True)
class Sample:
    """One timed run."""

    seconds: float
    cpu_seconds: float


@dataclass(frozen=True)
class Spread:
    """A median with its quartiles."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: list[float]) -> Spread:
        """Of at least one value."""
        if len(values) == 1:
            return cls(values[0], values[0], values[0])
        low, median, high = statistics.quantiles(values, n=4, method="inclusive")
        return cls(median, low, high)


@dataclass
class Outcome:
    """What one phase (a workload restored, or saved) measured."""

    workload: Workload
    operation: str
    samples: dict[Contender, list[Sample]] = field(default_factory=dict)
    failures: dict[Contender, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def rate(self, contender: Contender) -> float:
        """Median bytes per second."""
        return self.workload.size / statistics.median(s.seconds for s in self.samples[contender])

    def cpu_per_gib(self, contender: Contender) -> float:
        """Median CPU-seconds (user and system, all threads of the process) per GiB moved."""
        return statistics.median(s.cpu_seconds for s in self.samples[contender]) / self.workload.size * GIB

    def ratio(self, contender: Contender, base: Contender) -> Spread:
        """How many times as fast as `base`, per round."""
        pairs = zip(self.samples[contender], self.samples[base])
        return Spread.of([b.seconds / c.seconds for c, b in pairs])

    def find(self, group: str) -> Contender | None:
        """The contender that stands for a group: the library with the most threads; of others the fastest."""
        if group == OURS:
            return max((c for c in self.sound() if c.group == OURS), key=lambda c: c.threads or 0, default=None)
        return self.best(group)

    def sound(self) -> list[Contender]:
        """The contenders without a failure."""
        return [c for c in self.samples if c not in self.failures]

    def best(self, group: str, most_threads: int | None = None) -> Contender | None:
        """The fastest by median of a group's settings, with at most so many threads."""
        allowed = [
            c
            for c in self.sound()
            if c.group == group and (most_threads is None or c.threads is None or c.threads <= most_threads)
        ]
        return max(allowed, key=self.rate, default=None)

    def shown(self) -> list[Contender]:
        """One contender per label: the fastest of its settings, in the order in which they were given."""
        best: dict[str, Contender] = {}
        for contender in self.sound():
            rival = best.get(contender.label)
            if rival is None or self.rate(contender) > self.rate(rival):
                best[contender.label] = contender
        return list(best.values())


def run_rounds(outcome: Outcome, contenders: list[Contender], rounds: int) -> Outcome:
    """Runs every contender once per round, `rounds` rounds after one that does not count."""
    outcome.samples = {contender: [] for contender in contenders}
    for number in range(rounds + 1):
        started = time.monotonic()
        for contender in _rotated(contenders, number, rounds + 1):
            if contender in outcome.failures:
                continue
            try:
                sample = _run_once(contender, first=number == 0)
            except Exception as error:  # a contender that fails must not hide the others
                outcome.failures[contender] = f"{type(error).__name__}: {error}"
                contender.clean()
                continue
            if number > 0:
                outcome.samples[contender].append(sample)
        _say(outcome, number, rounds, time.monotonic() - started)
    return outcome


def _rotated(contenders: list[Contender], number: int, rounds: int) -> list[Contender]:
    """The order of a round: rotated evenly over all rounds, and backwards in every second, so that nobody keeps the
    same place or the same predecessor."""
    start = number * max(1, len(contenders) // rounds) % len(contenders)
    order = contenders[start:] + contenders[:start]
    return order[::-1] if number % 2 else order


def _run_once(contender: Contender, first: bool) -> Sample:
    contender.prepare()
    gc.collect()
    gc.disable()
    try:
        cpu, started = _cpu_seconds(), time.perf_counter()
        contender.run()
        seconds, cpu = time.perf_counter() - started, _cpu_seconds() - cpu
    finally:
        gc.enable()
    contender.verify(first)
    contender.clean()
    return Sample(seconds, cpu)


def _cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def _say(outcome: Outcome, number: int, rounds: int, seconds: float) -> None:
    what = f"{outcome.workload.name} {outcome.operation}"
    which = "warm-up round" if number == 0 else f"round {number} of {rounds}"
    print(f"{what}: {which}, {seconds:.1f} s", file=sys.stderr, flush=True)
