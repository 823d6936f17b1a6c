#!/usr/bin/env python3
"""Compares restores to a GPU and saves from it with plain loops of copies, and with other loaders: see ../README.md.

Exit status: 0, also when a bar is missed; 1 when a contender's result is wrong; 2 when it cannot run. GPU_DEADLINE from
the environment, in seconds since 1970: by then it is done, with fewer rounds and without the last scenes if need be.
"""

from __future__ import annotations

import argparse
import ctypes
import datetime
import gc
import json
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import asdict
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(HERE), str(HERE.parent)]

if find_spec("numpy") is None:
    print(f"bench.py: {sys.executable} has no NumPy", file=sys.stderr)
    sys.exit(2)

import first  # noqa: E402
import loaders  # noqa: E402
import machine  # noqa: E402
import moving  # noqa: E402
import reading  # noqa: E402
import render  # noqa: E402
import rig as rigging  # noqa: E402
from clock import Clock  # noqa: E402
from device import Device, DriverError, standalone  # noqa: E402
from measure import Outcome  # noqa: E402
from reference_ffi import Reference, compiler  # noqa: E402
from rig import FULL, TINY, Rig  # noqa: E402
from tfckpt_ffi import CCudaDevice, Tfckpt  # noqa: E402
from tfckpt_library import TfckptError  # noqa: E402
from workloads import GIB  # noqa: E402

SCENES: dict[str, tuple[Callable[[Rig], None], int]] = {
    "first call": (first.first_call, 1),
    "restore": (moving.restore, 6),
    "small": (moving.small, 2),
    "save": (moving.save, 3),
    "first tensor": (first.first_tensor, 2),
    "ring": (reading.ring, 2),
    "cold": (reading.cold, 2),
}
"""In the order in which they are worth the time, and with the shares of it that they get."""


def main() -> int:
    """Runs, prints the tables, and writes the JSON."""
    arguments = _arguments()
    clock = Clock(arguments.minutes)
    lib, scale = Tfckpt(Path(arguments.lib)), TINY if arguments.tiny else FULL
    try:
        lib.call("cuda_available")
    except TfckptError as error:
        _refuse(str(error))
    base, build_dir = Path(arguments.dir), Path(arguments.build_dir)
    base.mkdir(parents=True, exist_ok=True)
    _require_room(scale, base)
    by_itself = standalone(build_dir, arguments.device, scale.mib, 1 if arguments.tiny else 3, clock.left())
    directory = Path(tempfile.mkdtemp(prefix="bench-gpu-", dir=base))
    try:
        rig = Rig(
            lib=lib,
            path=Path(arguments.lib).resolve(),
            device=Device(arguments.device, build_dir, scale.buffer),
            reference=Reference(build_dir),
            loaders=[],
            directory=directory,
            build_dir=build_dir.resolve(),
            rounds=arguments.rounds,
            scale=scale,
            clock=clock,
            tables={"driver": by_itself},
        )
        if _is_fake():
            rig.loaders, packages = [loaders.StandIn(rig.device)], ["others' loaders left out"]
        else:
            rig.loaders, packages = loaders.available(arguments.device)
        facts = _facts(rig, packages)
        _play(rig, arguments, facts)
        rig.device.close()
    except DriverError as error:
        _refuse(str(error))
    finally:
        shutil.rmtree(directory)
    return 1 if _wrong(rig) else 0


def _play(rig: Rig, arguments: argparse.Namespace, facts: list[tuple[str, str]]) -> None:
    quiet, started = machine.Quiet(), time.monotonic()
    scenes = {name: SCENES[name] for name in arguments.only or SCENES}
    for name, (scene, share) in list(scenes.items()):
        begun = time.monotonic()
        rig.clock.begin_scene(share / sum(share for _, share in scenes.values()))
        del scenes[name]
        if rig.clock.left() < rig.scale.seconds:
            rig.note("Left out, as the time was over", name)
            continue
        try:
            scene(rig)
        except Exception:  # the others are worth their time all the same
            rig.broken.append(name)
            traceback.print_exc()
        gc.collect()
        print(f"{name}: {time.monotonic() - begun:.0f} s", file=sys.stderr, flush=True)
        _write(rig, facts, arguments.out)  # what has been found is not lost if a later scene takes too long
    others, steal = quiet.report()
    facts.append(("Meanwhile", f"{others:.1%} of the cores used by others, {steal:.1%} taken by the host"))
    facts.append(("Duration", f"{(time.monotonic() - started) / 60:.1f} minutes"))
    print(render.markdown(_write(rig, facts, arguments.out)))
    for line in _wrong(rig):
        print(f"wrong result: {line}", file=sys.stderr)


def _write(rig: Rig, facts: list[tuple[str, str]], path: str | None) -> dict[str, Any]:
    found = {
        "fake": _is_fake(),
        "facts": [*facts, *rig.notes],
        "findings": [asdict(finding) for finding in rig.findings],
        "outcomes": [_plain(rig, number, outcome) for number, outcome in enumerate(rig.outcomes)],
        "tables": rig.tables,
        "wrong": _wrong(rig),
    }
    if path:
        Path(path).write_text(json.dumps(found, indent=1) + "\n")
    return found


def _plain(rig: Rig, number: int, outcome: Outcome) -> dict[str, Any]:
    sound, base = outcome.sound(), rig.bases.get(number)
    contenders = [
        {
            "label": c.label,
            "group": c.group,
            "setting": c.setting,
            "threads": c.threads,
            "seconds": [round(s.seconds, 7) for s in outcome.samples[c]],
            "cpu_seconds": [round(s.cpu_seconds, 7) for s in outcome.samples[c]],
        }
        for c in sound
    ]
    return {
        "name": outcome.name,
        "operation": outcome.operation,
        "size": outcome.size,
        "num_tensors": outcome.num_tensors,
        "base": sound.index(base) if base in sound else None,
        "contenders": contenders,
        "failures": {c.label: text for c, text in outcome.failures.items()},
        "notes": outcome.notes,
    }


def _wrong(rig: Rig) -> list[str]:
    wrong = [f"{o.title}, {c.label}: {text}" for o in rig.outcomes for c, text in o.failures.items()]
    return wrong + [f"{name}: not played to its end" for name in rig.broken]


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True, help="libtfckpt.so")
    parser.add_argument("--device", type=int, default=0, help="number of the GPU (default 0)")
    parser.add_argument("--tiny", action="store_true", help="a few MiB, to show that everything runs")
    parser.add_argument("--rounds", type=int, help="rounds that count (default 5, with --tiny 1)")
    parser.add_argument("--minutes", type=float, default=10, help="be done by then (default 10), or by GPU_DEADLINE")
    parser.add_argument("--dir", default=str(ROOT / "build" / "bench"), help="where the files go (default build/bench)")
    parser.add_argument("--build-dir", default=str(ROOT / "build" / "bench"), help="where the kernels are compiled to")
    parser.add_argument("--out", help="write what was measured to this JSON file")
    parser.add_argument("--only", action="append", choices=list(SCENES), help="only this scene (repeatable)")
    arguments = parser.parse_args()
    arguments.rounds = arguments.rounds or (1 if arguments.tiny else 5)
    if not Path(arguments.lib).is_file():
        parser.error(f"no library at {arguments.lib}")
    return arguments


def _is_fake() -> bool:
    """Whether the driver of this process is the tests' own; it has been found by the time this is asked."""
    for name in ("libcuda.so", "libcuda.so.1"):
        try:
            return hasattr(ctypes.CDLL(name), "fakecuda_reset")
        except OSError:
            continue
    return False


def _require_room(scale: rigging.Scale, base: Path) -> None:
    need = rigging.needed(scale)
    if shutil.disk_usage(base).free < need:
        _refuse(f"needs {need / GIB:.1f} GiB of disk")
    if machine.memory("MemAvailable") < need + 2 * scale.large.size:
        _refuse(f"needs {(need + 2 * scale.large.size) / GIB:.1f} GiB of memory, the files' page cache included")


def _refuse(reason: str) -> NoReturn:
    print(f"bench.py: {reason}", file=sys.stderr)
    sys.exit(2)


def _facts(rig: Rig, packages: list[str]) -> list[tuple[str, str]]:
    device = rig.lib.new(CCudaDevice)
    rig.lib.call("cuda_describe_device", rig.device.number, ctypes.byref(device))
    text = f"{device.name.decode()}, {device.total_memory / GIB:.0f} GiB, {device.num_copy_engines} copy engines"
    text += f", compute {device.compute_major}.{device.compute_minor}, NUMA node {device.numa_node}"
    return [
        ("GPU", text),
        *_bus(),
        *machine.describe(rig.directory),
        ("Libraries", ", ".join([f"libtfckpt {rig.lib.version()}", *packages])),
        ("Kernels", compiler()),
        ("Date", datetime.date.today().isoformat()),
        ("Rounds", f"{rig.rounds}, after one that does not count"),
    ]


def _bus() -> list[tuple[str, str]]:
    """As nvidia-smi sees it."""
    asked = "driver_version,pcie.link.gen.current,pcie.link.gen.max,pcie.link.width.current"
    command = ["nvidia-smi", f"--query-gpu={asked}", "--format=csv,noheader"]
    try:
        lines = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True).stdout.splitlines()
    except (OSError, subprocess.SubprocessError):
        return []
    return [("Driver; PCIe generation now, at most, width", "; ".join(lines))]


if __name__ == "__main__":
    sys.exit(main())
