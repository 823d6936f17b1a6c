#!/usr/bin/env python3
"""Compares the library with TensorFlow, safetensors, torch and bare system calls: see README.md.

Exit status: 0, also when a bar is missed; 1 when a contender's result is wrong; 2 when it cannot run.
"""

from __future__ import annotations

import os

os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # before NumPy: the computation beside a job runs on one thread

import argparse  # noqa: E402
import datetime  # noqa: E402
import gc  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402
import tempfile  # noqa: E402
import time  # noqa: E402
import traceback  # noqa: E402
from importlib.metadata import PackageNotFoundError, version  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import NoReturn  # noqa: E402

import charts  # noqa: E402
import machine  # noqa: E402
import report  # noqa: E402
from peers import TensorFlow, Torch  # noqa: E402
from reference_ffi import Reference, compiler  # noqa: E402
from scenarios import SCENARIOS, Scenario  # noqa: E402
from stage import Stage  # noqa: E402
from tfckpt_ffi import Tfckpt  # noqa: E402
from workloads import GIB  # noqa: E402

BENCHES = Path(__file__).resolve().parent
ROOT = BENCHES.parent
RESULTS = BENCHES / "RESULTS.md"
QUICK_ROUNDS = 3
BUSY = 0.05
"""Share of the cores used by others above which figures are called unreliable."""


def main() -> int:
    """Runs, prints, and rewrites RESULTS.md and the charts when asked."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(2))  # so that the files are removed
    arguments = _arguments()
    base = Path(arguments.dir)
    base.mkdir(parents=True, exist_ok=True)
    _require_room(arguments.scenarios, base)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        stage = Stage(
            lib=Tfckpt(Path(arguments.lib)),
            tf=TensorFlow(),
            torch=_torch(),
            reference=Reference(Path(arguments.build_dir)),
            directory=directory,
            build_dir=Path(arguments.build_dir),
            rounds=arguments.rounds,
            quick=arguments.quick,
        )
        facts = _facts(stage)
        quiet, started = machine.Quiet(), time.monotonic()
        left_out = []
        for scenario in arguments.scenarios:
            begun = time.monotonic()
            if begun - started > 60 * arguments.minutes:
                left_out.append(scenario.name)
                continue
            try:
                scenario.run(stage)
            except Exception:  # the others are worth their time all the same
                stage.broken.append(scenario.name)
                traceback.print_exc()
            gc.collect()
            print(f"{scenario.name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
            if arguments.write:  # what has been found is not lost if a later workload brings the process down
                facts_so_far = facts + [("Incomplete", "the bench has not come to its end")]
                found = (facts_so_far, stage.findings, stage.outcomes, stage.sweeps, stage.growth)
                RESULTS.write_text(report.whole(*found, [], full=True))
        facts += [("Duration", f"{(time.monotonic() - started) / 60:.0f} minutes")]
        if left_out:
            facts += [("Left out, as the time was over", ", ".join(left_out))]
        facts += _quiet_facts(*quiet.report())
    finally:
        shutil.rmtree(directory)
    return _publish(stage, facts, arguments)


def _publish(stage: Stage, facts: list[tuple[str, str]], arguments: argparse.Namespace) -> int:
    wrong = [f"{o.title}, {c.label}: {text}" for o in stage.outcomes for c, text in o.failures.items()]
    wrong += [f"{name}: not played to its end" for name in stage.broken]
    found = (facts, stage.findings, stage.outcomes, stage.sweeps, stage.growth)
    print(report.whole(*found, [], full=not arguments.quick))
    for line in wrong:
        print(f"wrong result: {line}", file=sys.stderr)
    if arguments.charts and not wrong:
        written = charts.write(Path(arguments.charts), stage.outcomes, stage.growth)
        if arguments.write:
            RESULTS.write_text(report.whole(*found, written, full=True))
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True, help="libtfckpt.so")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds of some workloads, ratios only")
    mode.add_argument("--write", action="store_true", help="rewrite benches/RESULTS.md and benches/charts")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 7)")
    parser.add_argument("--minutes", type=float, default=60, help="begin no workload after so long (default 60)")
    parser.add_argument("--dir", default=str(ROOT / "build" / "bench"), help="where the files go (default build/bench)")
    parser.add_argument("--build-dir", default=str(ROOT / "build" / "bench"), help="where reference.c is compiled to")
    parser.add_argument("--charts", help="write the charts to this folder")
    parser.add_argument(
        "--only", action="append", metavar="NAME", help="only workloads whose name begins so (repeatable)"
    )
    parser.add_argument("--list", action="store_true", help="list the workloads' names and end")
    arguments = parser.parse_args()
    if arguments.list:
        print("\n".join(scenario.name for scenario in SCENARIOS))
        parser.exit()
    arguments.rounds = arguments.rounds or (QUICK_ROUNDS if arguments.quick else 7)
    if arguments.write and (arguments.only or arguments.rounds < 7):
        parser.error("--write needs all workloads and at least 7 rounds")
    if arguments.write:
        arguments.charts = str(BENCHES / "charts")
    if not Path(arguments.lib).is_file():
        parser.error(f"no library at {arguments.lib}")
    chosen = [s for s in SCENARIOS if s.quick or not arguments.quick]
    if arguments.only:
        chosen = [s for s in SCENARIOS if any(s.name.startswith(name) for name in arguments.only)]
    if not chosen:
        parser.error("no workload has such a name; see --list")
    arguments.scenarios = chosen
    return arguments


def _torch() -> Torch | None:
    """torch is a large download, and the bench does without it where it is missing."""
    try:
        return Torch()
    except ImportError as error:
        print(f"without torch: {error}", file=sys.stderr)
        return None


def _require_room(scenarios: list[Scenario], base: Path) -> None:
    """Files of three formats; the caller's memory, the file's page cache and what a peer allocates, twice over for the
    smaller workloads, whose peers hold more at a time."""
    size = max(scenario.size for scenario in scenarios)
    if shutil.disk_usage(base).free < 4 * size:
        _refuse(f"needs {4 * size / GIB:.1f} GiB of disk")
    if machine.memory("MemAvailable") < 2 * size + 6 * GIB:
        _refuse(f"needs {(2 * size + 6 * GIB) / GIB:.1f} GiB of memory, the files' page cache included")


def _refuse(reason: str) -> NoReturn:
    print(f"bench.py: {reason}", file=sys.stderr)
    sys.exit(2)


def _facts(stage: Stage) -> list[tuple[str, str]]:
    names = {"safetensors": "safetensors", "torch": "torch", "numpy": "NumPy"}
    libraries = [f"libtfckpt {stage.lib.version()}", f"TensorFlow {stage.tf.version}"]
    libraries += [f"{name} {_version(package)}" for package, name in names.items()]
    return [
        *machine.describe(stage.directory),
        ("Libraries", ", ".join(libraries)),
        ("Reference kernels", compiler()),
        ("Date", datetime.date.today().isoformat()),
        ("Command", _command()),
        ("Rounds", f"{stage.rounds}, after one that does not count"),
    ]


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "missing"


def _command() -> str:
    """As typed at the root of the repository; paths elsewhere shortened to their last part."""
    words = []
    for word in sys.argv[1:]:
        path = Path(word)
        if path.is_absolute():
            word = str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
        words.append(f'"{word}"' if " " in word else word)
    return " ".join(["python benches/bench.py", *words])


def _quiet_facts(others: float, steal: float) -> list[tuple[str, str]]:
    text = f"{others:.1%} of the cores used by other processes and kernel threads, {steal:.1%} taken by the host"
    if others + steal > BUSY:
        text += ". **The machine was busy: do not rely on these figures**"
    return [("Meanwhile", text)]


if __name__ == "__main__":
    sys.exit(main())
