"""Workloads of one tensor in parts: shards saved side by side, slices restored, stored slices cut anew."""

from __future__ import annotations

import ctypes
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np

from measure import OURS, PLAIN, TENSORFLOW, THREADS, Contender, WrongResult, counted
from peers import TensorFlow
from restoring import POISON, warm
from saving import touch_page_cache
from tfckpt_ffi import CRestoreOptions, CSaveOptions, CStats, CTensor, Tfckpt
from workloads import GIB, KIB, MIB, Workload

VERIFY_FETCHED = 1
KEY = "table"

WORKLOADS: tuple[Workload, ...] = (
    Workload("shards8", 64, 8 * MIB, bars={"save": 0.9}, base=PLAIN),
    Workload("reshard rows", 1, 512 * MIB, bars={"restore": 0.6}, base=PLAIN),
    Workload("reshard columns", 1, 512 * MIB, bars={"restore": 0.6}, base=PLAIN),
    Workload("slice4k", 1, 4 * KIB, bars={"restore": 100.0}, memory=GIB),
)

MOST = max(THREADS)


class Case(Contender):
    """One way to do it, from functions."""

    def __init__(self, label: str, group: str, setting: str, run: Callable[[], None], check: Callable[[], None]) -> None:
        self.label, self.group, self.setting, self._run, self._check = label, group, setting, run, check
        self.threads = None if group == TENSORFLOW else MOST
        self.before: Callable[[], None] = lambda: None
        self.after: Callable[[], None] = lambda: None

    def prepare(self) -> None:
        """What the case says."""
        self.before()

    def run(self) -> None:
        """One call."""
        self._run()

    def verify(self, first: bool) -> None:
        """What the case says."""
        self._check()

    def clean(self) -> None:
        """What the case says."""
        self.after()


def contenders(workload: Workload, lib: Tfckpt, tf: TensorFlow, directory: Path) -> list[Contender]:
    """Everyone who takes part in a workload of this module."""
    if workload.name == "shards8":
        return _shards(workload, lib, directory)
    if workload.name == "slice4k":
        return _slice(workload, lib, tf, directory)
    return _reshard(workload, lib, directory, axis=0 if workload.name.endswith("rows") else 1)


def _require(same: bool) -> None:
    if not same:
        raise WrongResult("other bytes than saved")


def _random(shape: tuple[int, ...]) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 1 << 32, shape, np.uint32).view(np.float32)


def _save(lib: Tfckpt, prefix: str, tensors: ctypes.Array[CTensor], shard_by_device: bool = False) -> None:
    options = lib.new(CSaveOptions)
    options.context, options.no_sync, options.shard_by_device = lib.context(MOST), 1, shard_by_device
    lib.save(prefix, tensors, options)


def _shards(workload: Workload, lib: Tfckpt, directory: Path) -> list[Contender]:
    arrays = list(_random((workload.num_tensors, *workload.shape)))
    tensors = lib.tensors(workload.keys(), arrays, list(range(len(arrays))))
    for i, tensor in enumerate(tensors):
        tensor.device_name = b"/device:CPU:%d" % (i % 8)
    touch_page_cache(directory / "touch", 2 * workload.size)

    def case(label: str, group: str, shards: int) -> Case:
        options = lib.new(CSaveOptions)
        options.context, options.no_sync, options.shard_by_device = lib.context(MOST), 1, shards > 1
        folder = directory / f"save{shards}"
        folder.mkdir()

        def check() -> None:
            files = sorted(folder.glob("m.data-*"))
            _require(len(files) == shards and sum(file.stat().st_size for file in files) == workload.size)
            for shard, file in enumerate(files):
                own = arrays if shards == 1 else arrays[shard::shards]
                saved = np.memmap(file, np.uint8, "r").reshape(len(own), -1)
                _require(all(np.array_equal(a.view(np.uint8), b) for a, b in zip(own, saved)))

        def clean() -> None:
            shutil.rmtree(folder)
            folder.mkdir()

        out = Case(label, group, counted(MOST), lambda: lib.save(str(folder / "m"), tensors, options), check)
        out.after = clean
        return out

    return [case("8 shards, one per device", OURS, 8), case("one shard", PLAIN, 1)]


def _reshard(workload: Workload, lib: Tfckpt, directory: Path, axis: int) -> list[Contender]:
    shape = (workload.size // 4 // 16384, 16384)
    source = _random(shape)
    whole, parts = str(directory / "whole"), str(directory / "parts")
    _save(lib, whole, lib.tensors([KEY], [source], [0]))

    def cut(number: int) -> tuple[list[np.ndarray], list[bytes]]:
        edges = [shape[axis] * i // number for i in range(number + 1)]
        arrays = [np.ascontiguousarray(part) for part in np.split(source, edges[1:-1], axis)]
        spans = [f"{start},{end - start}" for start, end in zip(edges, edges[1:])]
        slices = [f"{span}:-" if axis == 0 else f"-:{span}" for span in spans]
        return arrays, [f"{shape[0]} {shape[1]} {text}".encode() for text in slices]

    def described(arrays: list[np.ndarray], specs: list[bytes]) -> ctypes.Array[CTensor]:
        tensors = lib.tensors([KEY] * len(arrays), arrays, list(range(len(arrays))))
        for tensor, spec in zip(tensors, specs):
            tensor.slice_spec = spec
        return tensors

    stored, slices = cut(8)
    _save(lib, parts, described(stored, slices))
    del stored
    expected, specs = cut(3)
    runs = [np.empty_like(array) for array in expected]
    plain = np.empty_like(source)

    def case(label: str, group: str, prefix: str, wanted: list[np.ndarray], out: list[np.ndarray], slices: list[bytes]):
        options = lib.new(CRestoreOptions)
        options.context = lib.context(MOST)
        tensors = described(out, slices)
        check = lambda: _require(all(np.array_equal(a.view(np.uint32), b.view(np.uint32)) for a, b in zip(out, wanted)))
        result = Case(label, group, "checksums verified", lambda: lib.restore(prefix, tensors, options), check)

        def prepare() -> None:
            for array in out:
                array.view(np.uint8).fill(POISON)
            warm(prefix + ".data-00000-of-00001")

        result.before = prepare
        return result

    return [
        case("8 slices as 3 runs", OURS, parts, expected, runs, specs),
        case("the whole tensor", PLAIN, whole, [source], [plain], [b""]),
    ]


def _slice(workload: Workload, lib: Tfckpt, tf: TensorFlow, directory: Path) -> list[Contender]:
    row = workload.shape[0]
    rows = GIB // 4 // row
    source = _random((rows, row))
    prefix = str(directory / "whole")
    _save(lib, prefix, lib.tensors([KEY], [source], [0]))
    wanted = source[rows // 2 : rows // 2 + 1].copy()
    del source
    spec = f"{rows} {row} {rows // 2},1:-"
    out = np.empty_like(wanted)
    tensors = lib.tensors([KEY], [out], [0])
    tensors[0].slice_spec = spec.encode()
    options, stats = lib.new(CRestoreOptions), lib.new(CStats)
    options.context, options.verify = lib.context(MOST), VERIFY_FETCHED
    options.stats = ctypes.pointer(stats)
    restored: list[np.ndarray] = []

    def theirs() -> None:
        restored[:] = tf.restore_slice(prefix, KEY, spec)

    def same(array: np.ndarray) -> None:
        _require(np.array_equal(array.view(np.uint32), wanted.view(np.uint32)))

    ours = Case("one row, FETCHED", OURS, "only the row is read", lambda: lib.restore(prefix, tensors, options),
                lambda: same(out))  # fmt: skip
    tensorflow = Case("TensorFlow RestoreV2", TENSORFLOW, "reads the tensor", theirs, lambda: same(restored[0]))
    ours.before = lambda: out.view(np.uint8).fill(POISON)
    for contender in (ours, tensorflow):
        spoil = contender.before
        contender.before = lambda spoil=spoil: (spoil(), warm(prefix + ".data-00000-of-00001"))[0]
    return [ours, tensorflow]
