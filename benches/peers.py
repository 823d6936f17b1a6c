"""The peers' own calls: TensorFlow's ops and its Saver, safetensors, torch."""

from __future__ import annotations

import json
import os
import struct
import time
from typing import Any

import numpy as np

from workloads import Workload


class TensorFlow:
    """RestoreV2 and SaveV2 called eagerly, on a workload's tensors, with all arguments made beforehand."""

    def __init__(self) -> None:
        os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        import tensorflow  # heavy, and wants its environment set first

        self.tf: Any = tensorflow
        self.version: str = tensorflow.__version__

    def saver(self, workload: Workload, arrays: list[np.ndarray]) -> TfSaver:
        """A SaveV2 of the workload's own memory (through DLPack, without a copy)."""
        return TfSaver(self.tf, workload, arrays)

    def restorer(
        self, workload: Workload, order: list[int] | None = None, slices: list[str] | None = None
    ) -> TfRestorer:
        """A RestoreV2 of the workload's tensors, in this order, whole or in slices."""
        return TfRestorer(self.tf, workload, order, slices)

    def as_arrays(self, outputs: list[Any]) -> list[np.ndarray]:
        """The tensors' memory, not copied."""
        return [np.asarray(memoryview(self._viewable(output))) for output in outputs]

    def _viewable(self, output: Any) -> Any:
        return self.tf.bitcast(output, self.tf.uint16) if output.dtype == self.tf.bfloat16 else output

    def list_keys(self, prefix: str) -> int:
        """Opens a checkpoint and lists it."""
        return len(self.tf.train.load_checkpoint(prefix).get_variable_to_shape_map())


class TfSaver:
    """raw_ops.SaveV2 of fixed tensors."""

    def __init__(self, tf: Any, workload: Workload, arrays: list[np.ndarray]) -> None:
        self._tf = tf
        self._names = tf.constant(workload.keys)
        self._slices = tf.constant([""] * len(workload.keys))
        self._tensors = [_borrow(tf, array) for array in arrays]

    def save(self, prefix: str) -> None:
        """Writes prefix.index and prefix.data-00000-of-00001; TensorFlow never syncs."""
        self._tf.raw_ops.SaveV2(
            prefix=prefix, tensor_names=self._names, shape_and_slices=self._slices, tensors=self._tensors
        )


def _borrow(tf: Any, array: np.ndarray) -> Any:
    if array.dtype.name == "bfloat16":  # DLPack from NumPy does not know it
        return tf.bitcast(_borrow(tf, array.view(np.uint16)), tf.bfloat16)
    return tf.experimental.dlpack.from_dlpack(array.__dlpack__())


class TfRestorer:
    """raw_ops.RestoreV2 of fixed keys."""

    def __init__(self, tf: Any, workload: Workload, order: list[int] | None, slices: list[str] | None) -> None:
        self._tf = tf
        specs = [workload.specs[i] for i in order] if order else workload.specs
        self._names = tf.constant([spec.key for spec in specs])
        self._slices = tf.constant(slices or [""] * len(specs))
        self._dtypes = [tf.dtypes.as_dtype(spec.dtype) for spec in specs]

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


class TfV1Saver:
    """tf.compat.v1.train.Saver with a session whose variables hold the tensors."""

    def __init__(self, tensorflow: TensorFlow, workload: Workload) -> None:
        self._v1 = tensorflow.tf.compat.v1
        self._graph = self._v1.Graph()
        with self._graph.as_default():
            self._variables = [self._variable(spec.shape, spec.dtype) for spec in workload.specs]
            self._saver = self._v1.train.Saver(dict(zip(workload.keys, self._variables)), max_to_keep=1)
            self._session = self._v1.Session(graph=self._graph)

    def _variable(self, shape: tuple[int, ...], dtype: np.dtype) -> Any:
        zeros = self._v1.zeros_initializer()  # never run: a restore gives the values
        return self._v1.Variable(lambda: zeros(shape, dtype), dtype=dtype, use_resource=True)

    def restore(self, prefix: str) -> None:
        """Into the variables, in memory that TensorFlow allocates."""
        with self._graph.as_default():
            self._saver.restore(self._session, prefix)

    def save(self, prefix: str) -> None:
        """The variables; neither graph nor state file."""
        with self._graph.as_default():
            self._saver.save(self._session, prefix, write_meta_graph=False, write_state=False)

    def arrays(self) -> list[np.ndarray]:
        """Copies of the variables."""
        values: list[np.ndarray] = self._session.run(self._variables)
        return values

    def close(self) -> None:
        """Gives the variables' memory back."""
        self._session.close()


class Torch:
    """torch.save and torch.load of a dictionary."""

    def __init__(self) -> None:
        import torch

        self._torch: Any = torch
        self.version: str = torch.__version__

    def tensors(self, keys: list[str], arrays: list[np.ndarray]) -> dict[str, Any]:
        """The same memory as tensors."""
        return {key: self._borrow(array) for key, array in zip(keys, arrays)}

    def _borrow(self, array: np.ndarray) -> Any:
        if array.dtype.name == "bfloat16":
            return self._torch.from_numpy(array.view(np.uint16)).view(self._torch.bfloat16)
        return self._torch.from_numpy(array)

    def save(self, tensors: dict[str, Any], path: str) -> None:
        """torch.save."""
        self._torch.save(tensors, path)

    def load(self, path: str) -> dict[str, Any]:
        """torch.load(mmap=True), and a copy of each tensor: mapping alone moves no byte."""
        mapped = self._torch.load(path, mmap=True, weights_only=True)
        return {key: tensor.clone() for key, tensor in mapped.items()}

    def as_arrays(self, tensors: dict[str, Any]) -> dict[str, np.ndarray]:
        """The tensors' memory, not copied."""
        bfloat16, uint16 = self._torch.bfloat16, self._torch.uint16
        return {key: (t.view(uint16) if t.dtype == bfloat16 else t).numpy() for key, t in tensors.items()}


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
    }
