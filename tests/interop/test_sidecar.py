"""The sidecar of chunk checksums beside TensorFlow: it ignores the file, and leaves it behind when it overwrites."""

from __future__ import annotations

import pathlib

import numpy as np
import tensorflow as tf

import table_file
import tensorflow_side
import tfckpt
from tfckpt import Request
from values import assert_same_files, assert_same_tensors

FETCHED = 1
MIB = 1 << 20


def tensors(seed: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {
        "small": rng.random(10, dtype=np.float32),
        "large": rng.random((1000, 700), dtype=np.float32),
        "strings": np.array([b"x" * (2 * MIB), b"y"], dtype=object),
    }


def rows(prefix: str, first: int, num: int) -> tuple[np.ndarray, tfckpt.CStats]:
    """These rows of "large", verified as far as that does not take the others."""
    stats = tfckpt.new_stats()
    request = Request("large", np.dtype(np.float32), (num, 700), f"1000 700 {first},{num}:-")
    [value] = tfckpt.restore(prefix, [request], verify=FETCHED, stats=stats)
    return value, stats


def sidecar(prefix: str) -> pathlib.Path:
    return pathlib.Path(prefix + ".crc32c")


def test_tensorflow_reads_and_deletes_a_checkpoint_with_a_sidecar(prefix: str, other_prefix: str) -> None:
    saved = tensors(1)
    tfckpt.save(prefix, saved, chunk_checksums=1)
    tensorflow_side.save(other_prefix, saved)
    # Nothing else differs.
    sidecar(prefix).rename(sidecar(other_prefix + "-aside"))
    assert_same_files(prefix, other_prefix)
    sidecar(other_prefix + "-aside").rename(sidecar(prefix))
    reader = tf.train.load_checkpoint(prefix)
    for key, value in saved.items():
        assert np.array_equal(reader.get_tensor(key), value)
    assert tf.compat.v1.train.checkpoint_exists(prefix)
    value, stats = rows(prefix, 990, 10)
    assert np.array_equal(value, saved["large"][990:])
    assert (stats.bytes_verified_by_chunks, stats.bytes_unverified) == (1000 * 700 * 4 - 2 * MIB, 0)
    tf.compat.v1.train.remove_checkpoint(prefix)
    assert not pathlib.Path(prefix + ".index").exists()
    # It stays; nobody looks at it.
    assert sidecar(prefix).exists() and not tfckpt.checkpoint_exists(prefix)


def test_a_sidecar_that_tensorflow_left_behind_is_ignored(prefix: str) -> None:
    tfckpt.save(prefix, tensors(1), chunk_checksums=1)
    other = tensors(2)
    tensorflow_side.save(prefix, other)
    assert sidecar(prefix).exists()
    value, stats = rows(prefix, 500, 3)
    assert np.array_equal(value, other["large"][500:503])
    assert (stats.bytes_verified_by_chunks, stats.bytes_unverified) == (0, 3 * 700 * 4)
    assert stats.num_sidecar_ignored == 1
    assert_same_tensors(tfckpt.restore_all(prefix), {key.encode(): value for key, value in other.items()})
    with tfckpt.Reader(prefix) as reader:
        [damage] = reader.verify()
    assert "not the index's" in str(damage)
    # A save that knows of it removes it.
    tfckpt.save(prefix, other)
    assert not sidecar(prefix).exists()


def test_parts_of_a_big_endian_bundle_are_verified_as_they_are_stored(prefix: str) -> None:
    large = tensors(4)["large"]
    tfckpt.save(prefix, {"large": large.byteswap()}, chunk_checksums=1)
    table_file.edit_header(prefix, lambda header: setattr(header, "endianness", 1))
    # Some rows in one chunk, and across two.
    for first in (10, 370):
        value, stats = rows(prefix, first, 20)
        assert np.array_equal(value, large[first : first + 20])
        assert stats.bytes_unverified == 0
        assert stats.bytes_verified_by_chunks == stats.bytes_verified > 0


def test_a_saver_of_tensorflow_goes_on_where_ours_wrote_sidecars(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    large = tensors(3)["large"]
    ours = tfckpt.Saver({"large": large}, max_to_keep=2, chunk_checksums=1)
    for step in (1, 2, 3):
        ours.save(path, global_step=step)
    assert sorted(file.name for file in tmp_path.glob("*.crc32c")) == ["m-2.crc32c", "m-3.crc32c"]
    assert tf.train.latest_checkpoint(str(tmp_path)) == path + "-3"
    [restored] = tensorflow_side.restore_with_saver(path + "-3", {"large": np.zeros_like(large)}).values()
    assert np.array_equal(restored, large)
