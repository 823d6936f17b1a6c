"""Tables from outcomes: for the terminal and for RESULTS.md."""

from __future__ import annotations

from measure import LIMIT, OURS, REFERENCE, TENSORFLOW, Contender, Outcome, Spread
from workloads import GIB

Row = list[str]

MANY = 1000
"""Tensors from which on the cost per tensor counts: rates are then given in tensors, too."""


def table(header: Row, rows: list[Row]) -> str:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [_line(header, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(row: Row, widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"


def outcome_table(outcome: Outcome, absolute: bool) -> str:
    """Every contender in its best setting, with its ratios."""
    many = outcome.workload.num_tensors >= MANY
    header = ["contender", "how"]
    if absolute:
        header += ["GiB/s"] + ["thousand tensors/s"] * many
    header += ["x TensorFlow", "x reference", "x ours", "CPU s/GiB"]
    rows = [_outcome_row(outcome, c, absolute, many) for c in outcome.shown()]
    rows += [[c.label, f"WRONG: {text}"] + [""] * (len(header) - 2) for c, text in outcome.failures.items()]
    return table(header, rows)


def _outcome_row(outcome: Outcome, contender: Contender, absolute: bool, many: bool) -> Row:
    row = [contender.label, contender.setting]
    if absolute:
        row.append(f"{outcome.rate(contender) / GIB:.2f}")
        if many:
            row.append(f"{outcome.rate(contender) / outcome.workload.tensor_size / 1000:.0f}")
    bases = [outcome.find(TENSORFLOW), reference_for(outcome, contender), outcome.find(OURS)]
    row += [_ratio(outcome, contender, base) for base in bases]
    return [*row, f"{outcome.cpu_per_gib(contender):.2f}"]


def reference_for(outcome: Outcome, contender: Contender) -> Contender | None:
    """The fastest reference kernel with no more threads than the contender has."""
    most = contender.threads if contender.group in (OURS, REFERENCE, LIMIT) else None
    return outcome.best(REFERENCE, most)


def _ratio(outcome: Outcome, contender: Contender, base: Contender | None) -> str:
    if base is None:
        return "-"
    return "1" if base is contender else spread(outcome.ratio(contender, base))


def spread(value: Spread) -> str:
    """Median and quartiles."""
    return f"{value.median:.2f} ({value.low:.2f} to {value.high:.2f})"


def settings_table(outcome: Outcome) -> str:
    """Every setting of every reference kernel."""
    kernels = [c for c in outcome.sound() if c.group in (REFERENCE, LIMIT)]
    rows = [[c.label, c.setting, f"{outcome.rate(c) / GIB:.2f}", f"{outcome.cpu_per_gib(c):.2f}"] for c in kernels]
    return table(["kernel", "setting", "GiB/s", "CPU s/GiB"], rows)


def bars_table(outcomes: list[Outcome]) -> str:
    """What the library has to reach, and what it reached."""
    rows: list[Row] = []
    for outcome in outcomes:
        bar, ours = outcome.workload.bars.get(outcome.operation), outcome.find(OURS)
        base = outcome.find(outcome.workload.base)
        if bar is None or ours is None or base is None:
            continue
        ratio = outcome.ratio(ours, base)
        rows.append(
            [
                f"{outcome.workload.name}, {outcome.operation}",
                f">= {bar:.1f} x {base.label}",
                spread(ratio),
                "reached" if ratio.median >= bar else "NOT REACHED",
                _ratio(outcome, ours, reference_for(outcome, ours)),
            ]
        )
    return table(["workload", "bar", "ratio", "", "x reference"], rows) if rows else ""


def title(outcome: Outcome) -> str:
    """For a heading."""
    return f"{outcome.workload.name}: {outcome.operation}"
