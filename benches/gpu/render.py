#!/usr/bin/env python3
"""Turns the GPU bench's JSON into Markdown: for the terminal, and for benches/GPU.md and benches/RESULTS.md.

    python benches/gpu/render.py bench.json            # prints
    python benches/gpu/render.py bench.json --write    # rewrites GPU.md, and its part of RESULTS.md
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from pathlib import Path
from typing import Any

BENCHES = Path(__file__).resolve().parent.parent
sys.path.append(str(BENCHES))

from bars import duration, spread  # noqa: E402
from measure import GIB, Spread  # noqa: E402
from report import MANY, table  # noqa: E402

HEADING = "## GPU"
WRITTEN_BY = "Written by `benches/gpu/render.py` from the file that `tests/gpu/run.sh` leaves."
MEANS_NOTHING = "**Taken on the fake driver of the tests: shows that everything runs, and the figures mean nothing.**"
Found = dict[str, Any]


def markdown(found: Found) -> str:
    """The whole section."""
    parts = [HEADING]
    if found["fake"]:
        parts.append(MEANS_NOTHING)
    parts.append("\n".join(f"- {name}: {value}" for name, value in found["facts"]))
    if found["findings"]:
        parts += ["### GPU: bars", _bars(found["findings"])]
    for outcome in found["outcomes"]:
        parts += [f"### GPU: {outcome['name']}, {outcome['operation']}", _outcome(outcome), *outcome["notes"]]
    tables = found["tables"]
    if tables.get("stages"):
        parts += ["### GPU: where the time of a restore goes", _stages(tables["stages"])]
    if tables.get("first_call"):
        rows = [[row["part"], duration(row["seconds"])] for row in tables["first_call"]]
        parts += ["### GPU: the first call of a process", table(["part", "time"], rows)]
    parts += _driver(tables.get("driver", {}))
    parts += [f"- wrong or not measured: {text}" for text in found["wrong"]]
    return "\n\n".join(parts) + "\n"


def _bars(findings: list[Found]) -> str:
    header = ["work", "bar", "measured", "", "measured against"]
    rows = []
    for finding in findings:
        reached = "reached" if finding["reached"] else "**NOT REACHED**"
        rows.append([finding["what"], finding["bar"], finding["measured"], reached, finding["floor"]])
    return table(header, rows)


def _outcome(outcome: Found) -> str:
    """Of each label the fastest setting, with its ratio to the base within the rounds."""
    size, num_tensors = outcome["size"], outcome["num_tensors"]
    many = num_tensors >= MANY and size > 0
    base = outcome["base"]
    base_samples = outcome["contenders"][base]["seconds"] if base is not None else []
    header = ["contender", "how", "time"] + ["GiB/s"] * (size > 0) + ["thousand tensors/s"] * many
    header += ["x base", "CPU s/GiB" if size else "CPU s"]
    rows = []
    for number, contender in _fastest(outcome["contenders"]):
        seconds = statistics.median(contender["seconds"])
        row = [contender["label"], contender["setting"], duration(seconds)]
        row += [f"{size / seconds / GIB:.2f}"] * (size > 0) + [f"{num_tensors / seconds / 1000:.0f}"] * many
        ratios = [b / c for b, c in zip(base_samples, contender["seconds"])]
        row.append("1 (base)" if number == base else spread(Spread.of(ratios)) if ratios else "-")
        cpu = statistics.median(contender["cpu_seconds"])
        rows.append([*row, f"{cpu * GIB / size:.2f}" if size else f"{cpu:.3f}"])
    rows += [[label, f"WRONG: {text}"] + [""] * (len(header) - 2) for label, text in outcome["failures"].items()]
    return table(header, rows)


def _fastest(contenders: list[Found]) -> list[tuple[int, Found]]:
    best: dict[str, tuple[int, Found]] = {}
    for number, contender in enumerate(contenders):
        known = best.get(contender["label"])
        if known is None or statistics.median(contender["seconds"]) < statistics.median(known[1]["seconds"]):
            best[contender["label"]] = (number, contender)
    return list(best.values())


def _stages(stages: list[Found]) -> str:
    rows = [[s["stage"], s["how"], duration(max(0.0, s["seconds"])), f"{s['share']:.0%}"] for s in stages]
    header = ["stage", "how it is known", "time", "share of the restore"]
    return table(header, rows) + "\n\nStages run side by side: shares may add up to more than the whole."


def _driver(driver: dict[str, list[Found]]) -> list[str]:
    """What driver.c has measured by itself: each section that it came to."""
    found = {name: [row for row in rows if "error" not in row] for name, rows in driver.items()}
    parts: list[str] = []
    if copies := found.get("copies"):
        text = "GiB/s, the best of some runs, by size of chunk and number of streams."
        parts += ["### GPU: page-locked copies", text, _grid(copies)]
    rows = [[r["memory"], r["way"], _rate(r["bytes"], r["seconds"])] for r in found.get("kinds", [])]
    for row in found.get("both_ways", []):
        rows.append(["both ways at once", "each way", _rate(row["bytes_each_way"], row["seconds"])])
    if rows:
        parts += ["### GPU: kinds of host memory", table(["memory", "way", "GiB/s"], rows)]
    if pinning := found.get("pinning"):
        rows = [[r["memory"], _mib(r["bytes"]), duration(r["seconds"]), duration(r["free_seconds"])] for r in pinning]
        parts += ["### GPU: what page-locking takes", table(["memory", "size", "time", "time to free"], rows)]
    if small := found.get("small"):
        header = ["way", "how", "copies", "bytes each", "time", "thousand copies/s"]
        parts += ["### GPU: small copies", table(header, [_small(row) for row in small])]
    rows = [[row["part"], duration(row["seconds"])] for row in found.get("first_call", [])]
    rows += [[row["name"], str(row["value"])] for row in found.get("attributes", [])]
    if rows:
        parts += ["### GPU: the driver by itself", table(["first call, attribute", ""], rows)]
    missing = [(name, row) for name, rows in driver.items() for row in rows if "error" in row]
    return [*parts, *(f"- driver.c, {name}: {_missing(row)}" for name, row in missing)]


def _missing(row: Found) -> str:
    what = ", ".join(f"{name} {value}" for name, value in row.items() if name != "error")
    return f"{what}: {row['error']}" if what else str(row["error"])


def _small(row: Found) -> list[str]:
    rate = row["count"] / max(row["seconds"], 1e-9) / 1000
    return [row["way"], row["how"], f"{row['count']:,}", str(row["bytes"]), duration(row["seconds"]), f"{rate:.0f}"]


def _grid(copies: list[Found]) -> str:
    columns = sorted({(c["way"], c["streams"]) for c in copies}, key=lambda c: (c[0] != "h2d", c[1]))
    rates = {(c["chunk"], c["way"], c["streams"]): _rate(c["bytes"], c["seconds"]) for c in copies}
    chunks = sorted({c["chunk"] for c in copies})
    rows = [[_mib(chunk), *(rates.get((chunk, *c), "-") for c in columns)] for chunk in chunks]
    return table(["chunk", *(f"{way}, {streams}" for way, streams in columns)], rows)


def _rate(size: int, seconds: float) -> str:
    return f"{size / max(seconds, 1e-9) / GIB:.1f}"


def _mib(size: int) -> str:
    return f"{size >> 20} MiB"


def replace_section(text: str, section: str) -> str:
    """The results with this section for the one of its heading, which ends at the next of its rank or at the end."""
    begin = text.find(f"\n{HEADING}\n")
    if begin < 0:
        return text.rstrip() + "\n\n" + section
    end = text.find("\n## ", begin + 1)
    rest = "" if end < 0 else "\n" + text[end + 1 :]
    return text[: begin + 1] + section + rest


def main() -> int:
    """Prints or writes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", help="bench.json")
    parser.add_argument("--write", action="store_true", help="rewrite benches/GPU.md and its part of RESULTS.md")
    arguments = parser.parse_args()
    found = json.loads(Path(arguments.file).read_text())
    section = markdown(found)
    if not arguments.write:
        print(section)
        return 0
    if found["fake"]:
        print("render.py: figures of the fake driver are not written anywhere", file=sys.stderr)
        return 1
    section = section.replace(HEADING + "\n", f"{HEADING}\n\n{WRITTEN_BY}\n", 1)
    (BENCHES / "GPU.md").write_text(section)
    results = BENCHES / "RESULTS.md"
    results.write_text(replace_section(results.read_text(), section))
    return 0


if __name__ == "__main__":
    sys.exit(main())
