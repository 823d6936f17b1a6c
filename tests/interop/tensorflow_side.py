"""TensorFlow's side: the same calls as in `tfckpt.py`, made by its own save and restore ops."""

from __future__ import annotations

import re
from collections.abc import Iterable

import numpy as np
import tensorflow as tf
from tensorflow.python.checkpoint import checkpoint_management

import tfckpt
from tfckpt import Part, Request, Tensors

v1 = tf.compat.v1


def dtype(number: int) -> tf.DType:
    """TensorFlow's dtype of a number."""
    return tf.DType(number)


def constant(array: np.ndarray) -> tf.Tensor:
    """The array as a tensor with the same bits."""
    return tf.constant(array, dtype(tfckpt.dtype_number(array.dtype)), array.shape)


def to_numpy(tensor: tf.Tensor) -> np.ndarray:
    """The tensor as an array of the dtypes in `tfckpt.DTYPES`, which keep quantized types apart."""
    array = np.asarray(tensor.numpy(), dtype=object if tensor.dtype == tf.string else None)
    if tensor.dtype == tf.string:
        return array
    return np.ascontiguousarray(array).reshape(array.shape).view(tfckpt.DTYPES[tensor.dtype.as_datatype_enum])


def save(prefix: str, tensors: Tensors) -> None:
    """`SaveV2` of the tensors in their order; devices are ignored."""
    pairs = list(tensors.items() if hasattr(tensors, "items") else tensors)
    parts = [value if isinstance(value, Part) else Part(value) for _, value in pairs]
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=tf.constant([key for key, _ in pairs], tf.string),
        shape_and_slices=[part.slice_spec for part in parts],
        tensors=[constant(part.data) for part in parts],
    )


def restore(prefix: str, requests: Iterable[Request]) -> list[np.ndarray]:
    """`RestoreV2` of all requests in one call."""
    requests = list(requests)
    tensors = tf.raw_ops.RestoreV2(
        prefix=prefix,
        tensor_names=tf.constant([request.key for request in requests], tf.string),
        shape_and_slices=[request.slice_spec for request in requests],
        dtypes=[dtype(tfckpt.dtype_number(request.dtype)) for request in requests],
    )
    return [to_numpy(tensor) for tensor in tensors]


def merge(parts: list[str], prefix: str, *, allow_missing_files: bool = False) -> None:
    """`MergeV2Checkpoints`, the last step of a sharded save."""
    tf.raw_ops.MergeV2Checkpoints(
        checkpoint_prefixes=tf.constant(parts, tf.string, [len(parts)]),
        destination_prefix=prefix,
        delete_old_dirs=True,
        allow_missing_files=allow_missing_files,
    )


def save_by_device(prefix: str, tensors: Tensors) -> None:
    """What `Saver(sharded=True)` does, by its ops: a part per device in string order, then a merge."""
    pairs = list(tensors.items() if hasattr(tensors, "items") else tensors)
    devices = sorted({part.device_name or "" for _, part in pairs})
    names = [f"{prefix}_temp/part-{i:05}-of-{len(devices):05}" for i in range(len(devices))]
    for name, device in zip(names, devices):
        save(name, [(key, part) for key, part in pairs if (part.device_name or "") == device])
    merge(names, prefix)


def core_message(error: tf.errors.OpError) -> str:
    """An eager op's error without what Python puts around the op's own text."""
    text = re.sub(r"^\{\{function_node [^}]*\}\} ", "", error.message)
    return re.sub(r" \[Op:\w+\](?: name: .*)?$", "", text, flags=re.DOTALL)


def session(num_cpus: int = 1) -> v1.Session:
    """A session with several CPU devices."""
    return v1.Session(config=v1.ConfigProto(device_count={"CPU": num_cpus}))


def variable_list(saved_by_saver: dict[str, tuple[np.ndarray, str]]) -> list[tf.Variable]:
    """TF1 variables, in the current graph, of the values on the devices."""
    variables = []
    for name, (value, device) in saved_by_saver.items():
        with tf.device(device or None):
            variables.append(v1.Variable(lambda value=value: constant(value), name=name, use_resource=True))
    return variables


def save_with_saver(
    prefix: str, tensors: dict[str, tuple[np.ndarray, str]], *, sharded: bool, **options: object
) -> str:
    """`Saver.save` of variables with these names, values and devices; returns the prefix."""
    num_cpus = 1 + max((int(d.rpartition(":")[2]) for _, d in tensors.values() if d), default=0)
    with tf.Graph().as_default(), session(num_cpus) as running:
        variables = variable_list(tensors)
        saver = v1.train.Saver(variables, sharded=sharded)
        running.run(v1.global_variables_initializer())
        return saver.save(running, prefix, **options)


def restore_with_saver(prefix: str, tensors: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`Saver.restore` into zeroed variables of these names, dtypes and shapes."""
    with tf.Graph().as_default(), session() as running:
        zeros = {name: (np.zeros_like(value), "") for name, value in tensors.items()}
        for name, (value, _) in zeros.items():
            if value.dtype == object:
                value[...] = b""
        variables = variable_list(zeros)
        saver = v1.train.Saver(variables)
        saver.restore(running, prefix)
        return {
            name: np.asarray(value, tensors[name].dtype)
            for name, value in zip(tensors, running.run(variables))
        }


def update_checkpoint_state(
    save_dir: str,
    model_checkpoint_path: str,
    all_model_checkpoint_paths: list[str] | None = None,
    latest_filename: str | None = None,
    all_model_checkpoint_timestamps: list[float] | None = None,
    last_preserved_timestamp: float | None = None,
    *,
    save_relative_paths: bool = False,
) -> None:
    """TensorFlow's writer of the state file, the flag for relative paths included."""
    checkpoint_management.update_checkpoint_state_internal(
        save_dir,
        model_checkpoint_path,
        # With relative paths TensorFlow trips over None.
        all_model_checkpoint_paths=all_model_checkpoint_paths or [model_checkpoint_path],
        latest_filename=latest_filename,
        save_relative_paths=save_relative_paths,
        all_model_checkpoint_timestamps=all_model_checkpoint_timestamps,
        last_preserved_timestamp=last_preserved_timestamp,
    )
