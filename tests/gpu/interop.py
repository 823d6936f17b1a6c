#!/usr/bin/env python3
"""The library beside PyTorch, CuPy and JAX in one process: their memory, their streams, their captures, DLPack.

    python3 tests/gpu/interop.py --lib libtfckpt.so [--group torch]

Each group is played in a process of its own, so that a crash, or a driver that is gone, hides nothing else. What is not
installed is said to be skipped. On the fake driver of the tests the group `driver` is played, the others are skipped.
Exit status: 0, 1 if a case failed, or 2 without NumPy.
"""

from __future__ import annotations

import argparse
import faulthandler
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

sys.dont_write_bytecode = True

if find_spec("numpy") is None:
    print(f"interop.py: {sys.executable} has no NumPy", file=sys.stderr)
    sys.exit(2)

from binding import Driver, Library  # noqa: E402
from cases import CASES, Case  # noqa: E402
from cupy_cases import CUPY_CASES  # noqa: E402
from dlpack_cases import CUPY_DLPACK, DRIVER_DLPACK, JAX_DLPACK, TORCH_DLPACK  # noqa: E402
from engines import OnCupy, OnDriver, OnTorch, Skip  # noqa: E402
from jax_cases import JAX_CASES, OnJax  # noqa: E402
from torch_cases import EXPANDABLE, EXPANDABLE_CASES, TORCH_CASES  # noqa: E402

GROUP_SECONDS, CASE_SECONDS = 100, 40


@dataclass(frozen=True)
class Group:
    """Cases with an engine."""

    make: Callable[[Driver], Any]
    cases: tuple[Case, ...]
    environment: tuple[tuple[str, str], ...] = ()


GROUPS: dict[str, Group] = {
    "driver": Group(OnDriver, (*CASES, *DRIVER_DLPACK)),
    "torch": Group(lambda _driver: OnTorch(), (*CASES, *TORCH_CASES, *TORCH_DLPACK)),
    "torch, expandable segments": Group(
        lambda _driver: OnTorch(),
        (*EXPANDABLE_CASES, *CASES, *TORCH_CASES),
        # The name of today, and the one before.
        (("PYTORCH_ALLOC_CONF", EXPANDABLE), ("PYTORCH_CUDA_ALLOC_CONF", EXPANDABLE)),
    ),
    "cupy": Group(lambda _driver: OnCupy(), (*CASES, *CUPY_CASES, *CUPY_DLPACK)),
    "jax": Group(lambda _driver: OnJax(), (*JAX_CASES, *JAX_DLPACK), (("XLA_PYTHON_CLIENT_PREALLOCATE", "false"),)),
}


def main() -> int:
    """All groups, or one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--lib", required=True, help="libtfckpt.so")
    parser.add_argument("--group", choices=list(GROUPS), help="play this one, in this process")
    arguments = parser.parse_args()
    lib = Path(arguments.lib).resolve()
    if arguments.group:
        return _play(arguments.group, lib)
    failed = [name for name in GROUPS if _in_a_process(name, lib)]
    print(f"interop: failed: {', '.join(failed)}" if failed else "interop: passed", flush=True)
    return 1 if failed else 0


def _in_a_process(name: str, lib: Path) -> int:
    command = [sys.executable, str(Path(__file__).resolve()), "--lib", str(lib), "--group", name]
    environment = {**os.environ, **dict(GROUPS[name].environment)}
    try:
        return subprocess.run(command, env=environment, timeout=GROUP_SECONDS).returncode
    except subprocess.TimeoutExpired:
        print(f"FAILED  {name}: not done after {GROUP_SECONDS} s", flush=True)
        return 1


def _play(name: str, path: Path) -> int:
    group, driver = GROUPS[name], Driver()
    try:
        if driver.is_fake and name != "driver":
            raise Skip("the driver is the fake one")
        engine = group.make(driver)
    except Skip as reason:
        print(f"skipped {name}: {reason}", flush=True)
        return 0
    print(f"== {name}, on the {'fake' if driver.is_fake else 'real'} driver", flush=True)
    lib, failed = Library(path), 0
    for case in group.cases:
        failed += not _passes(name, case, lib, engine, driver)
    lib.close()
    return 1 if failed else 0


def _passes(name: str, case: Case, lib: Library, engine: Any, driver: Driver) -> bool:
    title, begun = f"{name}: {case.__name__.replace('_', ' ')}", time.monotonic()
    faulthandler.dump_traceback_later(CASE_SECONDS, exit=True)
    try:
        with tempfile.TemporaryDirectory(prefix="tfckpt-gpu-") as folder:
            case(lib, engine, driver, Path(folder))
    except Skip as reason:
        print(f"skipped {title}: {reason}", flush=True)
        return True
    except Exception:  # the other cases are worth their time all the same
        print(f"FAILED  {title}", flush=True)
        traceback.print_exc(file=sys.stdout)
        return False
    finally:
        faulthandler.cancel_dump_traceback_later()
    print(f"ok      {title} ({time.monotonic() - begun:.1f} s)", flush=True)
    return True


if __name__ == "__main__":
    sys.exit(main())
