"""The peers' own calls: TensorFlow's ops and safetensors."""

from __future__ import annotations

import json
import os
import struct
import time
from typing import Any

import numpy as np

from workloads import Tensors


class TensorFlow:
    """RestoreV2 and SaveV2 called eagerly, on a workload's tensors, with all arguments made beforehand."""

    def __init__(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import tensorflow  # heavy, and wants its environment set first

        self._tf: Any = tensorflow
        self.version: str = tensorflow.__version__

    def saver(self, tensors: Tensors) -> TfSaver:
        """A SaveV2 of the workload's own memory (through DLPack, without a copy)."""
        return TfSaver(self._tf, tensors)

    def restore_slice(self, prefix: str, key: str, spec: str) -> list[np.ndarray]:
        """RestoreV2 of one slice."""
        outputs = self._tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=[key], shape_and_slices=[spec], dtypes=[self._tf.float32]
        )
        return as_arrays(outputs)

    def restorer(self, keys: list[str]) -> TfRestorer:
        """A RestoreV2 of the keys, in their order."""
        return TfRestorer(self._tf, keys)


class TfSaver:
    """raw_ops.SaveV2 of fixed tensors."""

    def __init__(self, tf: Any, tensors: Tensors) -> None:
        self._tf = tf
        self._names = tf.constant(tensors.keys)
        self._slices = tf.constant([""] * len(tensors.keys))
        self._tensors = _borrow(tf, tensors.source.arrays)

    def save(self, prefix: str) -> None:
        """Writes prefix.index and prefix.data-00000-of-00001; TensorFlow never syncs."""
        self._tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=self._names, shape_and_slices=self._slices, tensors=self._tensors
        )


class TfRestorer:
    """raw_ops.RestoreV2 of fixed keys."""

    def __init__(self, tf: Any, keys: list[str]) -> None:
        self._tf = tf
        self._names = tf.constant(keys)
        self._slices = tf.constant([""] * len(keys))
        self._dtypes = [tf.float32] * len(keys)

    def restore(self, prefix: str) -> list[Any]:
        """The op's outputs, in memory that TensorFlow allocates."""
        outputs: list[Any] = self._tf.raw_ops.RestoreV2(
            prefix=prefix, tensor_names=self._names, shape_and_slices=self._slices, dtypes=self._dtypes
        )
        return outputs

    def graph_seconds(self, prefix: str) -> float:
        """The best time of the same op in a graph that hands out one of its outputs: what remains without eager
        execution's cost per output."""

        graph = self._tf.function(lambda prefix: self.restore(prefix)[0])
        times = []
        for _ in range(5):
            started = time.perf_counter()
            graph(self._tf.constant(prefix))
            times.append(time.perf_counter() - started)
        return min(times[1:])


def _borrow(tf: Any, arrays: list[np.ndarray]) -> list[Any]:
    return [tf.experimental.dlpack.from_dlpack(array.__dlpack__()) for array in arrays]


def as_arrays(outputs: list[Any]) -> list[np.ndarray]:
    """The tensors' memory, not copied."""
    return [np.asarray(memoryview(output)) for output in outputs]


def safetensors_offsets(path: str) -> dict[str, tuple[int, int]]:
    """Key to (offset in the file, size), read from the file's header."""
    with open(path, "rb") as file:
        (header_size,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(header_size))
    header.pop("__metadata__", None)
    base = 8 + header_size
    return {
        key: (base + entry["data_offsets"][0], entry["data_offsets"][1] - entry["data_offsets"][0])
        for key, entry in header.items()
        if entry["dtype"] == "F32"
    }
