"""Tensors of strings."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np

from measure import MOST, OURS, TENSORFLOW, Contender, Outcome, require
from restore_scene import DATA
from stage import Stage, warm
from tfckpt_ffi import DTYPES, CRestoreOptions, CSaveOptions, TensorArray

COUNT = 1_000_000
"""Strings in all, in tensors of equal size."""
NUM_TENSORS = 10

# Layout of tfckpt_string.
STRING = np.dtype([("data", "<u8"), ("size", "<u8")])


class _Texts:
    """Strings of 1 to 64 random bytes."""

    def __init__(self) -> None:
        rng = np.random.default_rng(0)
        self.sizes = rng.integers(1, 65, COUNT, np.uint64)
        self.bytes = rng.integers(0, 256, int(self.sizes.sum()), np.uint8)
        self.starts = np.cumsum(self.sizes) - self.sizes
        self.strings = np.empty(COUNT, STRING)
        self.strings["data"] = self.starts + np.uint64(self.bytes.ctypes.data)
        self.strings["size"] = self.sizes
        self.keys = [f"vocabulary_{i}" for i in range(NUM_TENSORS)]

    @property
    def each(self) -> int:
        """Strings of a tensor."""
        return COUNT // NUM_TENSORS

    def tensors(self) -> TensorArray:
        """Without their data."""
        return TensorArray(self.keys, [(self.each,)] * NUM_TENSORS, [DTYPES["strings"]] * NUM_TENSORS)

    def arrays(self) -> list[np.ndarray]:
        """As Python's bytes, for TensorFlow."""
        raw, ends = self.bytes.tobytes(), (self.starts + self.sizes).tolist()
        values = [raw[a:b] for a, b in zip(self.starts.tolist(), ends)]
        return [np.array(values[i : i + self.each], object) for i in range(0, COUNT, self.each)]


def strings(stage: Stage) -> None:
    """Saved and restored, with TensorFlow beside."""
    with stage.folder() as folder:
        texts = _Texts()
        tensors = texts.tensors()
        records = tensors.records
        at = np.arange(NUM_TENSORS, dtype=np.uint64) * np.uint64(texts.each * STRING.itemsize)
        records["data"] = np.uint64(texts.strings.ctypes.data) + at
        records["size"] = texts.each * STRING.itemsize
        options = stage.lib.new(CSaveOptions)
        options.context, options.no_sync = stage.lib.context(MOST), 1
        tf, held = stage.tf.tf, stage.tf.tf.constant
        theirs = [held(array) for array in texts.arrays()]
        names, whole = held(texts.keys), held([""] * NUM_TENSORS)
        ours, other = str(folder / "ours"), str(folder / "theirs")

        def save_theirs() -> None:
            tf.raw_ops.SaveV2(prefix=other, tensor_names=names, shape_and_slices=whole, tensors=theirs)

        def same(_first: bool = True) -> None:
            pairs = [(Path(p + end).read_bytes() for p in (ours, other)) for end in (DATA, ".index")]
            require(all(a == b for a, b in pairs), "other files than TensorFlow's")

        save_theirs()
        run = lambda: stage.lib.save(ours, tensors, options)
        contenders = [
            Contender("tfckpt_save", OURS, run, same, threads=MOST),
            Contender("TensorFlow SaveV2", TENSORFLOW, save_theirs),
        ]
        size = Path(other + DATA).stat().st_size
        outcome = Outcome("strings", "save, no sync", size, COUNT)
        outcome.notes.append(f"{COUNT:,} strings of 1 to 64 bytes in {NUM_TENSORS} tensors; tensors/s counts strings.")
        stage.measure(outcome, contenders)
        _restore(stage, texts, other, size)


def _restore(stage: Stage, texts: _Texts, prefix: str, size: int) -> None:
    lib, tf = stage.lib, stage.tf.tf
    handles = (ctypes.c_void_p * NUM_TENSORS)()
    tensors = texts.tensors()
    tensors.records["data"] = ctypes.addressof(handles) + 8 * np.arange(NUM_TENSORS, dtype=np.uint64)
    tensors.records["size"] = 8
    options = lib.new(CRestoreOptions)
    options.context = lib.context(MOST)
    held: list[Any] = []

    def check(_first: bool) -> None:
        length = ctypes.c_size_t()
        for i in range(0, COUNT, 997):  # all would take longer than everything else
            at = lib.plain("strings_get", handles[i // texts.each], i % texts.each, ctypes.byref(length))
            start = int(texts.starts[i])
            wanted = texts.bytes[start : start + int(texts.sizes[i])].tobytes()
            require(ctypes.string_at(at, length.value) == wanted)

    def free() -> None:
        for i in range(NUM_TENSORS):
            lib.plain("strings_free", handles[i])
            handles[i] = None

    def run_theirs() -> None:
        held[:] = tf.raw_ops.RestoreV2(
            prefix=prefix,
            tensor_names=texts.keys,
            shape_and_slices=[""] * NUM_TENSORS,
            dtypes=[tf.string] * NUM_TENSORS,
        )

    prepare = lambda: warm(prefix + DATA)
    run = lambda: lib.restore(prefix, tensors, options)
    contenders = [
        Contender("tfckpt_restore", OURS, run, check, prepare, free, "allocates, checksums verified", MOST),
        Contender(
            "TensorFlow RestoreV2", TENSORFLOW, run_theirs, prepare=prepare, clean=held.clear, setting="allocates"
        ),
    ]
    outcome = Outcome("strings", "restore", size, COUNT)
    outcome.notes.append("Every 997th string is compared; every checksum is verified.")
    stage.measure(outcome, contenders)
