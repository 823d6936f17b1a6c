"""The bars that the library has to reach, row by row, and what it reached."""

from __future__ import annotations

from dataclasses import dataclass

from measure import Contender, Outcome, Spread

ROWS = {
    1: "restore, warm cache, into the caller's warm memory, verified",
    2: "restore into memory that the library allocates",
    3: "CRC verification",
    4: "save to page cache, no sync",
    5: "save with sync",
    6: "cold restore",
    7: "20,000 x 4 KiB",
    8: "1,000,000 x 64 B",
    9: "4 KiB slice of a 1 GiB tensor",
    10: "a budget of 8 MiB",
    11: "shards and slices",
    12: "growth",
    13: "asynchronous save",
}
"""The rows of the bars' table, and the bar of asynchronous jobs, which is not among them."""
JOBS = 13


def row_name(row: int) -> str:
    """As the report says it."""
    return "jobs" if row == JOBS else str(row)


@dataclass(frozen=True)
class Finding:
    """One bar: what was asked and what was measured."""

    row: int
    what: str
    bar: str
    measured: str
    reached: bool
    floor: str
    """What the machine itself takes."""


def at_least(
    row: int,
    outcome: Outcome,
    ours: Contender | None,
    base: Contender | None,
    least: float,
    how: str = "",
) -> Finding | None:
    """Ours is to be so many times as fast as the base, by the median of the rounds' ratios."""
    if ours is None or base is None:
        return None
    ratio = outcome.ratio(ours, base)
    what = ", ".join(part for part in (outcome.title, how or ours.label) if part)
    return Finding(
        row, what, f">= {least:g} x {base.label}", spread(ratio), ratio.median >= least, _floor(outcome, base)
    )


def at_most(row: int, outcome: Outcome, ours: Contender | None, base: Contender | None, most: float) -> Finding | None:
    """Ours is to take at most so many times the base's time."""
    if ours is None or base is None:
        return None
    ratio = outcome.ratio(base, ours)
    what = f"{outcome.title}, {ours.label}"
    return Finding(
        row, what, f"<= {most:g} x the time of {base.label}", spread(ratio), ratio.median <= most, _floor(outcome, base)
    )


def within(
    row: int, outcome: Outcome, ours: Contender | None, seconds: float, base: Contender | None = None
) -> Finding | None:
    """A run is to take at most so many seconds; `base` is only shown beside it."""
    if ours is None:
        return None
    spent = outcome.seconds(ours)
    floor = _floor(outcome, base) if base else ""
    what = f"{outcome.title}, {ours.label}"
    return Finding(row, what, f"<= {duration(seconds)}", durations(spent), spent.median <= seconds, floor)


def number(row: int, what: str, bar: str, measured: str, reached: bool, floor: str = "") -> Finding:
    """Any other bar."""
    return Finding(row, what, bar, measured, reached, floor)


def _floor(outcome: Outcome, base: Contender) -> str:
    words = [f"{base.label}" + f" ({base.setting})" * bool(base.setting), durations(outcome.seconds(base))]
    return ": ".join(words)


def spread(value: Spread) -> str:
    """Median and quartiles of a ratio."""
    digits = 0 if value.median >= 100 else 1 if value.median >= 20 else 2
    return f"{value.median:.{digits}f} ({value.low:.{digits}f} to {value.high:.{digits}f})"


def duration(seconds: float) -> str:
    """With a unit that suits it."""
    for unit, size in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def durations(value: Spread) -> str:
    """Median and quartiles of a time."""
    return f"{duration(value.median)} ({duration(value.low)} to {duration(value.high)})"
