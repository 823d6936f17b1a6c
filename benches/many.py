"""A million small tensors: what the index costs."""

from __future__ import annotations

import ctypes
import os
import shutil
import statistics
from collections.abc import Callable
from pathlib import Path

import numpy as np

from bars import number, within
from measure import MOST, OURS, REFERENCE, TENSORFLOW, Contender, Outcome, counted, require
from reference_ffi import compiled
from restore_scene import DATA
from saving import NAMES, write_kernels
from stage import Stage, warm
from tfckpt_ffi import CMergeOptions, CSaveOptions, TensorArray
from workloads import TINY, Source

FINDS = 1000
PARTS = 1024
NO_OPTIONS = None
LISTING = Path(__file__).parent / "listing.c"


def index_of_many(stage: Stage) -> None:
    """Row 8, without merging: open, find, list and save."""
    workload = TINY
    with stage.folder() as folder:
        source = Source(workload)
        scene = _Scene(stage, folder, source)
        scene.save("model", _options(stage, sync=False))
        warm(scene.prefix("model") + ".index")
        for measure in (_open, _find, _list):
            measure(scene)
        _save(scene)


class _Scene:
    """What the contenders share: the source, and the empty folder that a save writes into."""

    def __init__(self, stage: Stage, folder: Path, source: Source) -> None:
        self.stage, self.base, self.source, self.workload = stage, folder, source, source.workload
        self.folder = folder / "empty"
        self.folder.mkdir()
        self.data = str(self.folder / "model") + DATA
        self.tensors = TensorArray.of_workload(source.workload, source.pieces)
        self.listing = ctypes.CDLL(str(compiled(LISTING, stage.build_dir)))
        self.listing.list_all.restype = ctypes.c_int64

    def prefix(self, name: str) -> str:
        """Of a checkpoint outside the empty folder."""
        return str(self.base / name)

    def save(self, name: str, options: CSaveOptions) -> None:
        """A checkpoint of all tensors."""
        self.stage.lib.save(self.prefix(name), self.tensors, options)

    def contender(self, label: str, group: str, run: Callable[[], None], check: Callable[[], None]) -> Contender:
        """As write_kernels wants it of a scene."""
        return Contender(label, group, run, lambda _first: check(), self.source.arena.touch, self.empty)

    def empty(self) -> None:
        """Removes what was saved."""
        shutil.rmtree(self.folder)
        self.folder.mkdir()

    def check_file(self, path: str) -> None:
        """Raises unless the file holds the tensors, packed."""
        require(os.path.getsize(path) == self.workload.size, "a data file of another size")
        self.stage.reference.compare_file(path, self.source.pieces)


class _Reader:
    """An open checkpoint."""

    def __init__(self, scene: _Scene) -> None:
        self._scene, self.handle = scene, ctypes.c_void_p()

    def open(self) -> None:
        """Anew."""
        self.close()
        self.handle = self._scene.stage.lib.make("reader_open", os.fsencode(self._scene.prefix("model")), NO_OPTIONS)

    def close(self) -> None:
        """Gives it back."""
        self._scene.stage.lib.plain("reader_free", self.handle)
        self.handle = ctypes.c_void_p()


def _options(stage: Stage, sync: bool) -> CSaveOptions:
    options = stage.lib.new(CSaveOptions)
    options.context, options.no_sync = stage.lib.context(MOST), not sync
    return options


def _open(scene: _Scene) -> None:
    reader = _Reader(scene)
    ours = Contender("tfckpt_reader_open", OURS, reader.open, clean=reader.close)
    outcome = Outcome(scene.workload.name, "open", 0, scene.workload.num_tensors)
    scene.stage.measure(outcome, [ours], short=True)
    scene.stage.find(within(8, outcome, outcome.best(OURS), 2e-3))


def _find(scene: _Scene) -> None:
    lib, reader, medians = scene.stage.lib, _Reader(scene), []
    chosen = np.random.default_rng(3).choice(scene.workload.num_tensors, FINDS, replace=False)
    keys = [scene.workload.keys[i].encode() for i in chosen]
    c_keys, sizes = (ctypes.c_char_p * FINDS)(*keys), (ctypes.c_size_t * FINDS)(*map(len, keys))
    times = (ctypes.c_uint64 * FINDS)()
    find, free = lib.address("reader_find"), lib.address("entry_free")

    def run() -> None:
        code = scene.listing.find_each(reader.handle, find, free, c_keys, sizes, ctypes.c_size_t(FINDS), times)
        require(code == 0, f"code {code}")

    def check(_first: bool) -> None:
        medians.append(statistics.median(times))

    ours = Contender(f"tfckpt_reader_find, {FINDS} keys at random", OURS, run, check, reader.open, reader.close)
    ours.setting = "a reader just opened, nothing cached of the index but its pages"
    outcome = Outcome(scene.workload.name, "find", 0, scene.workload.num_tensors)
    scene.stage.measure(outcome, [ours], short=True)
    if medians:
        micros = statistics.median(medians[1:]) / 1000
        what = f"{outcome.title}, median of {FINDS} keys at random"
        scene.stage.find(number(8, what, "<= 25 us", f"{micros:.1f} us", micros <= 25))


def _list(scene: _Scene) -> None:
    lib, reader, found, length = scene.stage.lib, _Reader(scene), [0], ctypes.c_uint64()
    functions = [lib.address(name) for name in ("reader_entries", "entries_next", "entry_key", "entries_free")]
    reader.open()

    def run() -> None:
        found[0] = scene.listing.list_all(reader.handle, *functions, ctypes.byref(length))

    def check(_first: bool) -> None:
        require(found[0] == scene.workload.num_tensors, f"{found[0]} entries listed")
        require(length.value == sum(map(len, scene.workload.keys)), "keys of another length")

    ours = Contender("tfckpt_reader_entries, from C", OURS, run, check)
    theirs = Contender(
        "TensorFlow CheckpointReader", TENSORFLOW, lambda: scene.stage.tf.list_keys(scene.prefix("model"))
    )
    theirs.setting = "opened and listed; from Python, which makes a dictionary of it"
    outcome = Outcome(scene.workload.name, "list all", 0, scene.workload.num_tensors)
    scene.stage.measure(outcome, [ours, theirs])
    reader.close()
    scene.stage.find(within(8, outcome, outcome.best(OURS), 0.1))


def _save(scene: _Scene) -> None:
    """Memory per entry is not measured here, in a process that keeps what it has freed: the test `bookkeeping` counts
    every allocation."""
    stage, workload = scene.stage, scene.workload
    options = _options(stage, sync=False)

    def check(_first: bool) -> None:
        scene.check_file(scene.data)

    run = lambda: stage.lib.save(str(scene.folder / "model"), scene.tensors, options)
    ours = Contender(f"tfckpt_save, {counted(MOST)}", OURS, run, check, scene.source.arena.touch, scene.empty, "checksums, index", MOST)
    outcome = Outcome(workload.name, "save, no sync", workload.size, workload.num_tensors)
    stage.measure(outcome, [ours, *write_kernels(scene, {"pwritev": NAMES["pwritev"]})])
    stage.find(within(8, outcome, outcome.best(OURS), 0.5, outcome.best(REFERENCE)))


def merge_of_many(stage: Stage) -> None:
    """Row 8: 1,024 parts with a million tensors in all become one checkpoint."""
    with stage.folder() as folder:
        source = Source(TINY)
        scene = _Scene(stage, folder, source)
        for sync, seconds in ((False, 1.0), (True, 3.0)):
            outcome = Outcome(
                TINY.name, f"merge of {PARTS} parts, {'synced' if sync else 'no sync'}", 0, TINY.num_tensors
            )
            stage.measure(outcome, [_merge(scene, sync)])
            stage.find(within(8, outcome, outcome.best(OURS), seconds))


def _merge(scene: _Scene, sync: bool) -> Contender:
    lib, prefix = scene.stage.lib, os.fsencode(scene.folder / "model")
    save_options, options = _options(scene.stage, sync=False), lib.new(CMergeOptions)
    options.context, options.no_sync = lib.context(MOST), not sync
    edges = np.linspace(0, scene.workload.num_tensors, PARTS + 1).astype(int).tolist()
    names = [prefix + b"_temp_x/part-%05d-of-%05d" % (i, PARTS) for i in range(PARTS)]
    parts = (ctypes.c_char_p * PARTS)(*names)

    def prepare() -> None:
        for i in range(PARTS):
            tensors = scene.tensors.part(edges[i], edges[i + 1])
            lib.call("save_shard", prefix, i, PARTS, b"x", *tensors.arguments, ctypes.byref(save_options), None)
        if sync:
            os.sync()  # or the merge waits for what the parts' saves left

    def check(_first: bool) -> None:
        files = list(scene.folder.iterdir())
        require(len(files) == PARTS + 1, f"{len(files)} files")
        require(sum(f.stat().st_size for f in files if ".data-" in f.name) == scene.workload.size, "other data files")
        require(scene.stage.tf.list_keys(os.fsdecode(prefix)) == scene.workload.num_tensors, "other tensors")

    run = lambda: lib.call("merge", parts, PARTS, prefix, ctypes.byref(options))
    checked_once = lambda first: check(first) if first else None
    return Contender("tfckpt_merge", OURS, run, checked_once, prepare, scene.empty)
