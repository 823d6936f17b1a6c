"""One checkpoint in several data files, and one tensor in several slices."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np

from bars import at_least
from measure import MOST, OURS, PLAIN, Contender, Outcome, counted, require
from restore_scene import POISON
from stage import Stage, touch_page_cache, warm
from tfckpt_ffi import CRestoreOptions, CSaveOptions, TensorArray
from workloads import MIB, Arena, Source, Workload, uniform

SHARDS = (1, 8, 64)
SHARDED = Workload("shards", uniform(64, 8 * MIB))
SHAPE = (512 * MIB // 4 // 16384, 16384)
KEY = "table"


def _options(stage: Stage, sharded: bool) -> CSaveOptions:
    options = stage.lib.new(CSaveOptions)
    options.context, options.no_sync, options.shard_by_device = stage.lib.context(MOST), 1, sharded
    return options


def _restore_options(stage: Stage) -> CRestoreOptions:
    options = stage.lib.new(CRestoreOptions)
    options.context = stage.lib.context(MOST)
    return options


def _name(shards: int) -> str:
    return f"{shards} shards, one per device" if shards > 1 else "one shard"


def _tensors(workload: Workload, source: Source, shards: int) -> TensorArray:
    tensors = TensorArray.of_workload(workload, source.pieces)
    tensors.set_texts("device_name", [f"/device:CPU:{i % shards}" for i in range(workload.num_tensors)])
    return tensors


def sharded_save(stage: Stage) -> None:
    """Row 11: saved into 1, 8 and 64 data files."""
    workload = SHARDED
    with stage.folder() as base:
        source, back = Source(workload), Arena(workload)
        touch_page_cache(base / "touch", 2 * workload.size)
        into = TensorArray.of_workload(workload, back.pieces)
        verify = _restore_options(stage)

        def case(shards: int) -> Contender:
            folder, tensors, options = (
                base / f"save{shards}",
                _tensors(workload, source, shards),
                _options(stage, shards > 1),
            )
            folder.mkdir()
            prefix = str(folder / "model")

            def check(first: bool) -> None:
                files = sorted(folder.glob("model.data-*"))
                sizes = sum(file.stat().st_size for file in files)
                require(len(files) == shards and sizes == workload.size, f"{len(files)} data files of {sizes} bytes")
                back.fill(POISON)
                stage.lib.restore(prefix, into, verify)
                stage.reference.compare(back.pieces, source.pieces)
                if first:
                    arrays = stage.tf.as_arrays(stage.tf.restorer(workload).restore(prefix))
                    require(
                        all(np.array_equal(a.view("u4"), b.view("u4")) for a, b in zip(arrays, source.arena.arrays))
                    )

            def clean() -> None:
                shutil.rmtree(folder)
                folder.mkdir()

            run = lambda: stage.lib.save(prefix, tensors, options)
            group = OURS if shards == 8 else PLAIN
            return Contender(_name(shards), group, run, check, source.arena.touch, clean, counted(MOST), MOST)

        outcome = Outcome(workload.name, "save, no sync", workload.size, workload.num_tensors)
        stage.measure(outcome, [case(shards) for shards in SHARDS])
        stage.find(at_least(11, outcome, outcome.labelled(_name(8)), outcome.labelled(_name(1)), 0.9))


def sharded_restore(stage: Stage) -> None:
    """Restored from 1, 8 and 64 data files."""
    workload = SHARDED
    with stage.folder() as base:
        source, back = Source(workload), Arena(workload)
        into = TensorArray.of_workload(workload, back.pieces)

        def case(shards: int) -> Contender:
            prefix, options = str(base / f"stored{shards}"), _restore_options(stage)
            stage.lib.save(prefix, _tensors(workload, source, shards), _options(stage, shards > 1))
            files = sorted(Path(base).glob(f"stored{shards}.data-*"))

            def prepare() -> None:
                back.fill(POISON)
                for file in files:
                    warm(str(file))

            run = lambda: stage.lib.restore(prefix, into, options)
            check = lambda _first: stage.reference.compare(back.pieces, source.pieces)
            group = OURS if shards == 8 else PLAIN
            return Contender(_name(shards), group, run, check, prepare, setting=counted(MOST), threads=MOST)

        outcome = Outcome(workload.name, "restore", workload.size, workload.num_tensors)
        stage.measure(outcome, [case(shards) for shards in SHARDS])
        stage.find(at_least(11, outcome, outcome.labelled(_name(8)), outcome.labelled(_name(1)), 0.9))


def reshard(stage: Stage, axis: int) -> None:
    """Row 11: a tensor stored in 8 slices along an axis, restored as 3 runs, and stored and restored whole."""
    lib = stage.lib
    with stage.folder() as folder:
        source = np.random.default_rng(0).integers(0, 1 << 32, SHAPE, np.uint32).view(np.float32)
        whole, parts = str(folder / "whole"), str(folder / "parts")
        stored, slices = _cut(source, axis, 8)
        lib.save(whole, TensorArray.of_arrays([KEY], [source]), _options(stage, False))
        lib.save(parts, _described(stored, slices), _options(stage, False))
        del stored
        expected, specs = _cut(source, axis, 3)

        def case(label: str, group: str, prefix: str, wanted: list[np.ndarray], specs: list[str]) -> Contender:
            out = [np.zeros_like(array) for array in wanted]
            tensors, options = _described(out, specs), _restore_options(stage)

            def prepare() -> None:
                for array in out:
                    array.view(np.uint8).fill(POISON)
                warm(prefix + ".data-00000-of-00001")

            def check(_first: bool) -> None:
                require(all(np.array_equal(a.view("u4"), b.view("u4")) for a, b in zip(out, wanted)))

            run = lambda: lib.restore(prefix, tensors, options)
            return Contender(label, group, run, check, prepare, setting="checksums verified", threads=MOST)

        name = f"8 slices of {'rows' if axis == 0 else 'columns'}"
        outcome = Outcome(name, "restore", source.nbytes, 1)
        plain = case("the whole tensor, plain", PLAIN, whole, [source], [""])
        stage.measure(outcome, [case("8 slices as 3 runs", OURS, parts, expected, specs), plain])
        stage.find(at_least(11, outcome, outcome.ours(), outcome.labelled(plain.label), 0.6))


def _cut(source: np.ndarray, axis: int, number: int) -> tuple[list[np.ndarray], list[str]]:
    """Runs of an axis, and their shape_and_slice."""
    edges = [SHAPE[axis] * i // number for i in range(number + 1)]
    arrays = [np.ascontiguousarray(part) for part in np.split(source, edges[1:-1], axis)]
    spans = [f"{start},{end - start}" for start, end in zip(edges, edges[1:])]
    return arrays, [f"{SHAPE[0]} {SHAPE[1]} " + (f"{span}:-" if axis == 0 else f"-:{span}") for span in spans]


def _described(arrays: list[np.ndarray], specs: list[str]) -> TensorArray:
    tensors = TensorArray.of_arrays([KEY] * len(arrays), arrays)
    tensors.set_texts("slice_spec", specs)
    return tensors
