"""The report as Markdown: for the terminal and for RESULTS.md."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bars import ROWS, Finding, duration, row_name, spread
from measure import GIB, LIMIT, OURS, REFERENCE, TENSORFLOW, Contender, Outcome

if TYPE_CHECKING:  # gpu/render.py works with Python alone
    from settling import Sweep
    from stage import Growth

Row = list[str]

WEIGHED = Path(__file__).resolve().parent / "WEIGHED.md"
"""What was tried by hand; part of RESULTS.md."""

GPU = Path(__file__).resolve().parent / "GPU.md"
"""What was measured where there is a GPU: benches/gpu/render.py writes it; part of RESULTS.md."""

MANY = 10_000
"""Tensors from which on the cost per tensor counts: rates are then given in tensors, too."""


def table(header: Row, rows: list[Row]) -> str:
    """A Markdown table whose columns line up in plain text, too."""
    widths = [max(len(row[i]) for row in [header, *rows]) for i in range(len(header))]
    lines = [_line(header, widths), "|" + "|".join("-" * (width + 2) for width in widths) + "|"]
    return "\n".join(lines + [_line(row, widths) for row in rows])


def _line(row: Row, widths: list[int]) -> str:
    return "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths)) + " |"


def bars_table(findings: list[Finding]) -> str:
    """What the library has to reach and what it reached, row by row; first those that it has not reached."""
    header = ["row", "work", "bar", "measured", "", "the machine's own floor"]
    rows = []
    for finding in sorted(findings, key=lambda f: f.row):
        reached = "reached" if finding.reached else "**NOT REACHED**"
        rows.append([row_name(finding.row), finding.what, finding.bar, finding.measured, reached, finding.floor])
    missed = [finding for finding in findings if not finding.reached]
    first = "Every bar that was measured is reached."
    if missed:
        numbers = sorted({finding.row for finding in missed})
        first = "Below their bar: " + "; ".join(f"row {row_name(n)} ({ROWS[n]})" for n in numbers) + "."
    return f"{first}\n\n{table(header, rows)}" if rows else ""


def outcome_table(outcome: Outcome, absolute: bool) -> str:
    """Every contender in its best setting, with its ratios."""
    many = outcome.num_tensors >= MANY and outcome.size > 0
    header = ["contender", "how"]
    if absolute:
        header += ["time"] + ["GiB/s"] * (outcome.size > 0) + ["thousand tensors/s"] * many
    header += ["x TensorFlow", "x reference", "x ours"]
    header += ["CPU s/GiB" if outcome.size else "CPU s"]
    rows = [_outcome_row(outcome, c, absolute, many) for c in outcome.shown()]
    rows += [[c.label, f"WRONG: {text}"] + [""] * (len(header) - 2) for c, text in outcome.failures.items()]
    return table(header, rows)


def _outcome_row(outcome: Outcome, contender: Contender, absolute: bool, many: bool) -> Row:
    row = [contender.label, contender.setting]
    if absolute:
        row.append(duration(outcome.seconds(contender).median))
        row += [f"{outcome.rate(contender) / GIB:.2f}"] * (outcome.size > 0)
        row += [f"{outcome.num_tensors / outcome.seconds(contender).median / 1000:.0f}"] * many
    bases = [outcome.best(TENSORFLOW), reference_for(outcome, contender), outcome.ours() or outcome.best(OURS)]
    row += [_ratio(outcome, contender, base) for base in bases]
    cpu = outcome.cpu_seconds(contender)
    return [*row, f"{cpu / outcome.size * GIB:.2f}" if outcome.size else f"{cpu:.3f}"]


def reference_for(outcome: Outcome, contender: Contender) -> Contender | None:
    """The fastest reference kernel with no more threads than the contender has."""
    most = contender.threads if contender.group in (OURS, REFERENCE, LIMIT) else None
    return outcome.best(REFERENCE, most)


def _ratio(outcome: Outcome, contender: Contender, base: Contender | None) -> str:
    if base is None:
        return "-"
    return "1" if base is contender else spread(outcome.ratio(contender, base))


def sweep_table(sweep: Sweep) -> str:
    """Every setting of every reference kernel, as swept; those that went on are marked."""
    rows = [
        [kernel, str(s.threads), str(s), f"{rate / GIB:.2f}", "went on" if kept else ""]
        for kernel, s, rate, kept in sweep.rates
    ]
    return table(["kernel", "threads", "setting", "GiB/s", ""], rows)


def growth_table(growth: Growth) -> str:
    """Time at each size, ours and the kernel's."""
    rows = [
        [_amount(x, growth.unit), duration(ours), duration(kernel), f"{ours / kernel:.2f}"]
        for x, ours, kernel in growth.points
    ]
    return table([growth.unit, "ours", "reference kernel", "ours / kernel"], rows)


def _amount(value: float, unit: str) -> str:
    return f"{value / 2**20:g} MiB" if unit == "size" else f"{value:,.0f}"


def whole(
    facts: list[tuple[str, str]],
    findings: list[Finding],
    outcomes: list[Outcome],
    sweeps: list[Sweep],
    growth: list[Growth],
    charts: list[tuple[str, str]],
    full: bool,
) -> str:
    """The report; without `full`, ratios only."""
    parts = ["# Results"]
    if full:
        parts.append("Written by `make bench`. What each figure means and hides: [README.md](README.md).")
    parts.append("\n".join(f"- {name}: {value}" for name, value in facts))
    if findings:
        parts += ["## Bars", bars_table(findings)]
    if full and charts:
        parts += ["## Charts", *(f"![{title}](charts/{file})" for file, title in charts)]
    for outcome in outcomes:
        parts += [f"## {outcome.title}", outcome_table(outcome, full), *outcome.notes]
    if growth and full:
        parts.append("## Growth")
        for curve in growth:
            parts += [f"### {curve.title}", growth_table(curve)]
    if full:
        parts += [GPU.read_text().rstrip(), WEIGHED.read_text().rstrip()]
    if full and sweeps:
        parts += ["## Reference kernels, every setting", "As swept before the rounds; see README.md."]
        for sweep in sweeps:
            if sweep.rates:
                parts += [f"### {sweep.title}", sweep_table(sweep)]
    return "\n\n".join(part for part in parts if part) + "\n"
