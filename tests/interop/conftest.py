"""Finds the library and keeps TensorFlow quiet.

The library is what `TFCKPT_LIBRARY` names, else `target/release/libtfckpt.so` of this checkout.
"""

from __future__ import annotations

import os
import pathlib
import tempfile

# Before TensorFlow is imported anywhere: no log lines, no GPU, no notes about rounding.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
# Hypothesis would keep notes in the checkout.
os.environ.setdefault(
    "HYPOTHESIS_STORAGE_DIRECTORY", os.path.join(tempfile.gettempdir(), "tfckpt-hypothesis")
)

import numpy as np
import pytest

pytest.register_assert_rewrite("errors", "values")

import tfckpt
from values import part, tensor

DEFAULT_LIBRARY = pathlib.Path(__file__).parents[2] / "target" / "release" / "libtfckpt.so"


def library_path() -> pathlib.Path:
    """Where the library under test is."""
    return pathlib.Path(os.environ.get("TFCKPT_LIBRARY") or DEFAULT_LIBRARY)


def pytest_configure(config: pytest.Config) -> None:
    """Loads the library once, or stops with what to do."""
    path = library_path()
    if not path.exists():
        pytest.exit(f"no library at {path}: run `cargo build --release` or set TFCKPT_LIBRARY", returncode=2)
    config.stash[_VERSION] = tfckpt.load(str(path.resolve()))


_VERSION: pytest.StashKey[str] = pytest.StashKey()


def pytest_report_header(config: pytest.Config) -> list[str]:
    """Says what judges what."""
    import tensorflow as tf

    tf.get_logger().setLevel("ERROR")
    return [
        f"library: {library_path()} (version {config.stash[_VERSION]})",
        f"judge: TensorFlow {tf.__version__}",
    ]


@pytest.fixture
def prefix(tmp_path: pathlib.Path) -> str:
    """A prefix in an empty folder."""
    return str(tmp_path / "model.ckpt")


@pytest.fixture
def other_prefix(tmp_path: pathlib.Path) -> str:
    """A prefix of the same last part in another empty folder."""
    (tmp_path / "other").mkdir()
    return str(tmp_path / "other" / "model.ckpt")


@pytest.fixture
def saved(prefix: str) -> str:
    """A checkpoint of TensorFlow with a tensor of each kind."""
    import tensorflow_side  # not before the library was found

    full = tensor(1, (4, 6))
    parts = [("p", part(full, "0,2:-")), ("p", part(full, "2,2:-"))]
    tensors = [("s", np.array([b"ab", b"cde"], object)), ("x", full), ("y", tensor(9, ())), *parts]
    tensorflow_side.save(prefix, tensors)
    return prefix
