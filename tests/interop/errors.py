"""The same wrong call to TensorFlow and to the library: code and beginning of the text are equal."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import tensorflow as tf

import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, Reader, Request


def their_error(call: Callable[[], Any]) -> tuple[int, str]:
    """The code and the core of the text of TensorFlow's error."""
    with pytest.raises(tf.errors.OpError) as failure:
        call()
    return failure.value.error_code, tensorflow_side.core_message(failure.value)


def our_error(call: Callable[[], Any]) -> CheckpointError:
    """The library's error."""
    with pytest.raises(CheckpointError) as failure:
        call()
    return failure.value


def assert_same_error(
    theirs: Callable[[], Any], ours: Callable[[], Any], our_code: str | None = None
) -> CheckpointError:
    """Fails unless our message begins with TensorFlow's and the codes are equal.

    `our_code` is given where the code differs on purpose: what is wrong inside a file is
    DATA_LOSS, also where TensorFlow says INTERNAL or blames the caller.
    """
    code, message = their_error(theirs)
    error = our_error(ours)
    assert error.message.startswith(message), f"\n{error.message}\ndoes not begin with\n{message}"
    assert error.code_name == (our_code or tfckpt.CODES[code])
    return error


def assert_same_restore_error(
    prefix: str, *requests: Request, our_code: str | None = None
) -> CheckpointError:
    """The same requests to `RestoreV2` and to us, by prefix and by an open reader."""
    error = assert_same_error(
        lambda: tensorflow_side.restore(prefix, requests),
        lambda: tfckpt.restore(prefix, requests),
        our_code,
    )
    by_reader = our_error(lambda: restore_by_reader(prefix, requests))
    assert (by_reader.code, by_reader.message) == (error.code, error.message)
    return error


def restore_by_reader(prefix: str, requests: tuple[Request, ...]) -> None:
    """Opens and restores."""
    with Reader(prefix) as reader:
        reader.restore(requests)
