"""The method: rounds in rotated order, the first one dropped, figures as medians of per-round ratios."""

from __future__ import annotations

import gc
import resource
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

GIB = 1 << 30

OURS = "ours"
TENSORFLOW = "tensorflow"
SAFETENSORS = "safetensors"
TORCH = "torch"
PEER = "peer"
"""Another way of a peer that has a better one, or one without a column of its own."""
PLAIN = "plain"
"""The library itself, doing the same in a plainer way."""
REFERENCE = "reference"
"""Bare system calls doing the same work: what the library is measured against."""
LIMIT = "limit"
"""Bare kernels that do less than the work: shown, never a base of a ratio."""

THREADS = (1, 2)
"""What contenders that can be told how many threads to use are run with."""
MOST = max(THREADS)


def counted(threads: int) -> str:
    """As labels say it."""
    return f"{threads} thread" + "s" * (threads > 1)


class WrongResult(Exception):
    """A contender did not move the bytes that it was asked to move."""


def require(condition: bool, message: str = "other bytes than saved") -> None:
    """Raises WrongResult unless the condition holds."""
    if not condition:
        raise WrongResult(message)


def _nothing() -> None:
    pass


def _nothing_to_check(_first: bool) -> None:
    pass


@dataclass(eq=False)
class Contender:
    """One way to do a workload's work, in one setting."""

    label: str
    group: str
    run: Callable[[], object]
    """Timed."""
    verify: Callable[[bool], object] = _nothing_to_check
    """Untimed, after the run. Raises if the result is wrong; told whether it is the first round, when more may be
    checked."""
    prepare: Callable[[], object] = _nothing
    """Untimed, just before the run: the same state of caches and memory for everyone."""
    clean: Callable[[], object] = _nothing
    """Untimed, after the verification: gives back what the run took."""
    setting: str = ""
    """What it does besides, or what distinguishes it from others of its label, of which only the best is shown."""
    threads: int | None = None
    """How many threads it was told to use; None: its own choice."""

    def forget(self) -> None:
        """Lets go of the memory and files that it works on: the report needs its name and its figures only."""
        self.run, self.verify, self.prepare, self.clean = _nothing, _nothing_to_check, _nothing, _nothing


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

    name: str
    operation: str
    size: int
    """Bytes moved; 0 where the work is not moving bytes."""
    num_tensors: int
    samples: dict[Contender, list[Sample]] = field(default_factory=dict)
    failures: dict[Contender, str] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    @property
    def title(self) -> str:
        """For a heading."""
        return f"{self.name}: {self.operation}"

    def seconds(self, contender: Contender) -> Spread:
        """Time of a run."""
        return Spread.of([s.seconds for s in self.samples[contender]])

    def rate(self, contender: Contender) -> float:
        """Median bytes per second; runs per second where no bytes are moved."""
        return (self.size or 1) / self.seconds(contender).median

    def cpu_seconds(self, contender: Contender) -> float:
        """Median CPU-seconds (user and system, all threads of the process) of a run."""
        return statistics.median(s.cpu_seconds for s in self.samples[contender])

    def ratio(self, contender: Contender, base: Contender) -> Spread:
        """How many times as fast as `base`, per round."""
        pairs = zip(self.samples[contender], self.samples[base])
        return Spread.of([b.seconds / c.seconds for c, b in pairs])

    def sound(self) -> list[Contender]:
        """The contenders without a failure that have been measured."""
        return [c for c in self.samples if c not in self.failures and self.samples[c]]

    def labelled(self, label: str) -> Contender | None:
        """The fastest contender of this label."""
        return max((c for c in self.sound() if c.label == label), key=self.rate, default=None)

    def best(self, group: str, most_threads: int | None = None) -> Contender | None:
        """The fastest by median of a group, with at most so many threads."""
        allowed = [
            c
            for c in self.sound()
            if c.group == group and (most_threads is None or c.threads is None or c.threads <= most_threads)
        ]
        return max(allowed, key=self.rate, default=None)

    def ours(self, threads: int = MOST) -> Contender | None:
        """The library with so many threads."""
        return next((c for c in self.sound() if c.group == OURS and c.threads == threads), None)

    def shown(self) -> list[Contender]:
        """One contender per label: the fastest of its settings, in the order in which they were given."""
        return [best for label in dict.fromkeys(c.label for c in self.sound()) if (best := self.labelled(label))]


def _always(_rounds: int, _seconds: float) -> bool:
    return True


def run_rounds(
    outcome: Outcome, contenders: list[Contender], rounds: int, has_time: Callable[[int, float], bool] = _always
) -> Outcome:
    """Runs every contender once per round, `rounds` rounds after one that does not count, or fewer when `has_time` says
    so, which is told how many have counted and the seconds of the last one."""
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
        seconds = time.monotonic() - started
        _say(outcome, number, rounds, seconds)
        if number < rounds and not has_time(number, seconds):
            outcome.notes.append(f"Cut short: {number} of {rounds} rounds, as the time was over.")
            break
    for contender in contenders:
        contender.forget()
    return outcome


def _rotated(contenders: list[Contender], number: int, rounds: int) -> list[Contender]:
    """The order of a round: rotated evenly over all rounds, and backwards in every second, so that nobody keeps the
    same place or the same predecessor."""
    start = number * max(1, len(contenders) // rounds) % max(1, len(contenders))
    order = contenders[start:] + contenders[:start]
    return order[::-1] if number % 2 else order


def _run_once(contender: Contender, first: bool) -> Sample:
    contender.prepare()
    gc.collect(0)
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
    which = "warm-up round" if number == 0 else f"round {number} of {rounds}"
    print(f"{outcome.title}: {which}, {seconds:.1f} s", file=sys.stderr, flush=True)
