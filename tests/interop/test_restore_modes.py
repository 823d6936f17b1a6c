"""Reshaped and sequential restores, against what `tf.train.Saver` makes of the same options."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import tensorflow_side
import tfckpt
from errors import our_error
from tfckpt import CheckpointError, Request
from values import tensor

v1 = tf.compat.v1
FLOAT = np.dtype(np.float32)
MINIMUM = 2 << 20
FULL = tensor(1, (4, 6))


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """`x` of shape [4,6], written by TensorFlow."""
    path = str(tmp_path / "m")
    tensorflow_side.save(path, {"x": FULL})
    return path


def saver_restores(prefix: str, shape: tuple[int, ...], use_resource: bool) -> np.ndarray:
    """What `Saver(reshape=True)` puts into a variable of this shape."""
    with tf.Graph().as_default(), v1.Session() as session:
        variable = v1.get_variable("x", shape, tf.float32, v1.zeros_initializer(), use_resource=use_resource)
        v1.train.Saver({"x": variable}, reshape=True).restore(session, prefix)
        return session.run(variable)


@pytest.mark.parametrize("use_resource", [False, True], ids=["reference", "resource"])
@pytest.mark.parametrize("shape", [(24,), (6, 4), (2, 3, 4), (4, 6), (24, 1)], ids=str)
def test_as_many_elements_are_reshaped(prefix: str, shape: tuple[int, ...], use_resource: bool) -> None:
    theirs = saver_restores(prefix, shape, use_resource)
    (ours,) = tfckpt.restore(prefix, [Request("x", FLOAT, shape)], reshape=1)
    assert ours.shape == theirs.shape
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.view(np.uint32))


@pytest.mark.parametrize("shape", [(5,), (), (4, 7), (0, 6)], ids=str)
def test_another_number_of_elements_is_refused_in_tensorflows_words(prefix: str, shape: tuple[int, ...]) -> None:
    with pytest.raises(tf.errors.InvalidArgumentError) as caught:
        saver_restores(prefix, shape, use_resource=False)
    error = our_error(lambda: tfckpt.restore(prefix, [Request("x", FLOAT, shape)], reshape=1))
    text = error.message.split(";")[0]
    assert text.startswith("Input to reshape is a tensor with 24 values, but the requested shape has ")
    assert text in caught.value.message
    assert error.code_name == "INVALID_ARGUMENT"


def test_the_slice_is_what_is_reshaped(prefix: str) -> None:
    spec = "4 6 1,2:-"
    (theirs,) = tensorflow_side.restore(prefix, [Request("x", FLOAT, (2, 6), spec)])
    (ours,) = tfckpt.restore(prefix, [Request("x", FLOAT, (3, 4), spec)], reshape=1)
    np.testing.assert_array_equal(ours.view(np.uint32), theirs.reshape(3, 4).view(np.uint32))
    with pytest.raises(CheckpointError, match="tensor with 12 values, but the requested shape has 24"):
        tfckpt.restore(prefix, [Request("x", FLOAT, (24,), spec)], reshape=1)


@pytest.mark.parametrize("number", sorted(tfckpt.DTYPES))
def test_every_dtype_comes_in_slices_of_any_layout_within_the_least_budget(
    number: int, tmp_path: pathlib.Path
) -> None:
    path = str(tmp_path / "m")
    full = tensor(number, (4, 6))
    stored = {"whole": full}
    tensorflow_side.save(path, stored)
    parted = str(tmp_path / "p")
    cuts = {"4 6 -:0,2": full[:, :2], "4 6 0,3:2,4": full[:3, 2:], "4 6 3,1:2,4": full[3:, 2:]}
    tfckpt.save(parted, [("whole", tfckpt.Part(np.ascontiguousarray(cut), spec)) for spec, cut in cuts.items()])
    for source in (path, parted):
        for sequentially in (0, 1):
            requests = [
                Request("whole", full.dtype, (2, 3), "4 6 2,2:1,3"),
                Request("whole", full.dtype, (4, 1), "4 6 -:5,1"),
                Request("whole", full.dtype, (4, 6)),
            ]
            options = {"restore_sequentially": sequentially, "max_host_bytes": MINIMUM}
            ours = tfckpt.restore(source, requests, **options)
            for have, want in zip(ours, [full[2:, 1:4], full[:, 5:], full]):
                assert have.tolist() == want.tolist() or have.tobytes() == np.ascontiguousarray(want).tobytes()
