"""Settles which settings of a reference kernel take part in the counted rounds.

There are up to 24 settings of a kernel; to run all of them in every round would take most of the bench's time. So all
are swept first, on the first bytes of the work, and the best of them go on; the best of those in the counted rounds is
the figure.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from measure import THREADS
from reference_ffi import Setting
from workloads import KIB, MIB

CHUNKS = (256 * KIB, 1 * MIB, 4 * MIB)
QUEUES = (2, 8)
"""Threads, and so calls in flight, with O_DIRECT."""
SWEEP_SIZE = 256 * MIB
"""Bytes that a setting moves in the sweep."""
SWEEP_ROUNDS = 2
"""Rounds of the sweep, after one that does not count."""
SHORT = 0.1
SHORT_ROUNDS = 9
"""Rounds where the first run of all settings took less than that many seconds each."""
KEPT = 2


@dataclass
class Sweep:
    """What a sweep found, for the report."""

    title: str
    rates: list[tuple[str, Setting, float, bool]] = field(default_factory=list)
    """Kernel, setting, bytes per second, and whether it goes on."""


def settings(fallocate: bool = False, quick: bool = False, threads: tuple[int, ...] = THREADS) -> list[Setting]:
    """All of a kernel: chunk x threads x, for writing, fallocate or not."""
    chunks = CHUNKS[1:2] if quick else CHUNKS
    return [
        Setting(c, t, fallocate=f) for t in threads for c in chunks for f in ((False, True) if fallocate else (False,))
    ]


def settle(
    sweep: Sweep,
    kernel: str,
    candidates: list[Setting],
    size: int,
    run: Callable[[Setting], object],
    before: Callable[[], object] = lambda: None,
    kept: int = KEPT,
) -> list[Setting]:
    """The best `kept` settings for each number of threads, after having run all of them."""
    times: dict[Setting, list[float]] = {setting: [] for setting in candidates}
    number, rounds, begun = 0, SWEEP_ROUNDS, time.perf_counter()
    while number <= rounds:
        for setting in candidates[::-1] if number % 2 else candidates:
            before()
            started = time.perf_counter()
            run(setting)
            if number > 0:
                times[setting].append(time.perf_counter() - started)
        if number == 0 and time.perf_counter() - begun < SHORT * len(candidates):
            rounds = SHORT_ROUNDS
        number += 1
    ranked = sorted(candidates, key=lambda setting: statistics.median(times[setting]))
    chosen = [
        s for t in dict.fromkeys(s.threads for s in candidates) for s in [r for r in ranked if r.threads == t][:kept]
    ]
    sweep.rates += [(kernel, s, size / statistics.median(times[s]), s in chosen) for s in candidates]
    return chosen
