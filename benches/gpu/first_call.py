#!/usr/bin/env python3
"""Times the parts of a process's first restore to a GPU; first.py runs it.

Reads what to do from standard input and prints seconds, each a JSON object.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent)]

from tfckpt_ffi import CRestoreOptions, TensorArray, Tfckpt  # noqa: E402

TIMES: dict[str, float] = {}


@contextmanager
def timed(part: str) -> Iterator[None]:
    """Notes what the block takes."""
    begun = time.perf_counter()
    yield
    TIMES[part] = time.perf_counter() - begun


def main() -> None:
    """In the order in which a program meets them."""
    job = json.load(sys.stdin)
    # Before the driver is there: this loads NumPy's and ctypes' own parts, and nothing of CUDA's.
    tensors = TensorArray(job["keys"], [(job["size"] // 4,)] * len(job["keys"]), [1] * len(job["keys"]))
    kernels = ctypes.CDLL(str(Path(job["build_dir"]) / "libpinned.so"))
    with timed("loading libtfckpt"):
        lib = Tfckpt(Path(job["lib"]))
    with timed("tfckpt_cuda_available: driver loaded, cuInit"):
        lib.call("cuda_available")
    pin, address = ctypes.c_void_p(), ctypes.c_uint64()
    with timed("primary context made, with 16 streams"):
        _check(kernels.pin_open(ctypes.c_int(job["device"]), ctypes.c_size_t(4096), ctypes.byref(pin)))
    with timed("memory of the tensors"):
        size = ctypes.c_size_t(job["size"] * len(job["keys"]))
        _check(kernels.pin_alloc(pin, size, ctypes.byref(address)))
    tensors.records["size"] = job["size"]
    for i, record in enumerate(tensors.records):
        record["data"] = address.value + i * job["size"]
    options = lib.new(CRestoreOptions)
    options.context = lib.context(0)
    tensors.on_device(job["device"])
    for part in ("first restore: stream and page-locked memory made", "second restore"):
        with timed(part):
            lib.restore(os.fsdecode(job["prefix"]), tensors, options)
    lib.free_contexts()
    print(json.dumps(TIMES))


def _check(code: int) -> None:
    if code:
        raise SystemExit(f"pinned.c: error {code}")


if __name__ == "__main__":
    main()
