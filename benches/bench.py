#!/usr/bin/env python3
"""Compares the library with TensorFlow, safetensors and bare system calls: see README.md.

Exit status: 0, also when a bar is missed; 1 when a contender's result is wrong; 2 when it cannot run.
"""

from __future__ import annotations

import argparse
import datetime
import shutil
import sys
import tempfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NoReturn

import machine
import report
import restoring
import saving
import slicing
from measure import TENSORFLOW, THREADS, Outcome, run_rounds
from peers import TensorFlow
from reference_ffi import Reference, Setting, compiler
from tfckpt_ffi import Tfckpt
from workloads import GIB, KIB, MIB, WORKLOADS, Tensors, Workload

BENCHES = Path(__file__).resolve().parent
ROOT = BENCHES.parent
RESULTS = BENCHES / "RESULTS.md"
ALL = WORKLOADS + slicing.WORKLOADS
QUICK_ROUNDS = 3
CHUNKS = (256 * KIB, 1 * MIB, 4 * MIB)
QUICK_CHUNKS = (1 * MIB,)
BUSY = 0.05
"""Share of the cores used by others above which figures are called unreliable."""


@dataclass(frozen=True)
class Bench:
    """What all phases need."""

    lib: Tfckpt | None
    tf: TensorFlow
    reference: Reference
    directory: Path
    rounds: int
    chunks: tuple[int, ...]

    def run(self, workload: Workload) -> list[Outcome]:
        """One workload, restored and saved; one of parts in its own way."""
        if workload in slicing.WORKLOADS:
            return self._parts(workload)
        tensors = Tensors(workload)
        return [self._restore(tensors), self._save(tensors)]

    def _restore(self, tensors: Tensors) -> Outcome:
        outcome = Outcome(tensors.workload, "restore")
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            scene = restoring.Scene(tensors, Path(directory), self.tf, self.reference)
            settings = _settings(self.chunks, tensors.workload, fallocate=(False,))
            run_rounds(outcome, restoring.contenders(scene, self.lib, settings), self.rounds)
            outcome.notes.append(_graph_note(outcome, scene))
        return self._end(outcome)

    def _save(self, tensors: Tensors) -> Outcome:
        outcome = Outcome(tensors.workload, "save")
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            scene = saving.Scene(tensors, Path(directory), self.tf, self.reference)
            settings = _settings(self.chunks, tensors.workload, fallocate=(False, True))
            run_rounds(outcome, saving.contenders(scene, self.lib, settings), self.rounds)
        return self._end(outcome)

    def _parts(self, workload: Workload) -> list[Outcome]:
        if self.lib is None:
            return []
        (operation,) = workload.bars
        outcome = Outcome(workload, operation)
        with tempfile.TemporaryDirectory(dir=self.directory) as directory:
            run_rounds(outcome, slicing.contenders(workload, self.lib, self.tf, Path(directory)), self.rounds)
        return [self._end(outcome)]

    def _end(self, outcome: Outcome) -> Outcome:
        if self.lib:
            self.lib.free_contexts()
        return outcome


def _graph_note(outcome: Outcome, scene: restoring.Scene) -> str:
    """How much of TensorFlow's figure is Python's, where there are outputs enough for it to count."""
    tensorflow = outcome.find(TENSORFLOW)
    if tensorflow is None or outcome.workload.num_tensors < report.MANY:
        return ""
    eager = outcome.workload.size / outcome.rate(tensorflow)
    graph = scene.tf.restorer(scene.tensors.keys).graph_seconds(scene.prefix)
    return (
        "Not in the table: inside a tf.function that hands out only one of the outputs, RestoreV2 takes "
        f"{graph / eager:.2f} of its eager time (best of 4, not interleaved); the rest is Python's share per output."
    )


def _settings(chunks: tuple[int, ...], workload: Workload, fallocate: tuple[bool, ...]) -> list[Setting]:
    """All settings of the reference kernels; vectored ones only where a chunk holds several tensors."""
    vectored = (False, True) if workload.tensor_size < min(chunks) else (False,)
    return [Setting(c, t, v, f) for v in vectored for t in THREADS for c in chunks for f in fallocate]


def main() -> int:
    """Runs, prints, and rewrites RESULTS.md when asked."""
    arguments = _arguments()
    build_dir = Path(arguments.build_dir)
    base = Path(arguments.dir)
    base.mkdir(parents=True, exist_ok=True)
    _require_room(arguments.workloads, base)
    directory = Path(tempfile.mkdtemp(prefix="bench-", dir=base))
    try:
        bench = Bench(
            lib=Tfckpt(Path(arguments.lib)) if arguments.lib else None,
            tf=TensorFlow(),
            reference=Reference(build_dir),
            directory=directory,
            rounds=arguments.rounds,
            chunks=QUICK_CHUNKS if arguments.quick else CHUNKS,
        )
        facts = _facts(bench, arguments)
        quiet = machine.Quiet()
        outcomes = [outcome for workload in arguments.workloads for outcome in bench.run(workload)]
        facts += _quiet_facts(*quiet.report())
    finally:
        shutil.rmtree(directory)
    print(_text(facts, outcomes, absolute=not arguments.quick, settings=False))
    wrong = [f"{c.label}: {text}" for outcome in outcomes for c, text in outcome.failures.items()]
    for line in wrong:
        print(f"wrong result: {line}", file=sys.stderr)
    if arguments.write and not wrong:
        RESULTS.write_text(_text(facts, outcomes, absolute=True, settings=True))
    return 1 if wrong else 0


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", help="libtfckpt.so; without it only the others are measured")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument("--quick", action="store_true", help=f"{QUICK_ROUNDS} rounds, one chunk size, ratios only")
    mode.add_argument("--write", action="store_true", help="rewrite benches/RESULTS.md")
    parser.add_argument("--rounds", type=int, help="rounds that count, at least 5 (default 7)")
    parser.add_argument("--dir", default=str(ROOT / "build" / "bench"), help="where the files go (default build/bench)")
    parser.add_argument("--build-dir", default=str(ROOT / "build" / "bench"), help="where reference.c is compiled to")
    names = [workload.name for workload in ALL]
    parser.add_argument("--workload", action="append", choices=names, help="only this one (repeatable)")
    arguments = parser.parse_args()
    if arguments.quick and arguments.rounds:
        parser.error("--quick has its own number of rounds")
    arguments.rounds = QUICK_ROUNDS if arguments.quick else arguments.rounds or 7
    if not arguments.quick and arguments.rounds < 5:
        parser.error("--rounds must be at least 5")
    if arguments.write and (arguments.workload or not arguments.lib):
        parser.error("--write needs --lib and all workloads")
    if arguments.lib and not Path(arguments.lib).is_file():
        parser.error(f"no library at {arguments.lib}")
    arguments.workloads = [w for w in ALL if not arguments.workload or w.name in arguments.workload]
    return arguments


def _require_room(workloads: list[Workload], base: Path) -> None:
    """Source, destination and what the peers allocate (4.2 GiB measured for 1 GiB of tensors); two files at a time."""
    size = max(max(workload.size, workload.memory) for workload in workloads)
    if shutil.disk_usage(base).free < 3 * size:
        _refuse(f"needs {3 * size / GIB:.1f} GiB of disk")
    if machine.memory("MemAvailable") < 6 * size + GIB:
        _refuse(f"needs {(6 * size + GIB) / GIB:.1f} GiB of memory, the files' page cache included")


def _refuse(reason: str) -> NoReturn:
    print(f"bench.py: {reason}", file=sys.stderr)
    sys.exit(2)


def _facts(bench: Bench, arguments: argparse.Namespace) -> list[tuple[str, str]]:
    libraries = f"TensorFlow {bench.tf.version}, safetensors {version('safetensors')}, NumPy {version('numpy')}"
    if bench.lib:
        libraries = f"libtfckpt {bench.lib.version()}, {libraries}"
    return [
        *machine.describe(bench.directory),
        ("Libraries", libraries),
        ("Reference kernels", compiler()),
        ("Date", datetime.date.today().isoformat()),
        ("Command", _command()),
        ("Rounds", f"{arguments.rounds}, after one that does not count"),
    ]


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


def _text(facts: list[tuple[str, str]], outcomes: list[Outcome], absolute: bool, settings: bool) -> str:
    """The whole report as Markdown."""
    parts = [
        "# Results",
        "Written by `make bench`. What each figure means and hides: [README.md](README.md).",
        "\n".join(f"- {name}: {value}" for name, value in facts),
    ]
    bars = report.bars_table(outcomes)
    if bars:
        parts += ["## Bars", bars]
    for outcome in outcomes:
        parts += [f"## {report.title(outcome)}", report.outcome_table(outcome, absolute), *outcome.notes]
    if settings:
        parts.append("## Reference kernels, every setting")
        for outcome in outcomes:
            parts += [f"### {report.title(outcome)}", report.settings_table(outcome)]
    return "\n\n".join(part for part in parts if part) + "\n"


if __name__ == "__main__":
    sys.exit(main())
