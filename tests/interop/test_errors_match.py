"""Wrong calls: our message begins with TensorFlow's, and the code is the same."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from errors import assert_same_error, assert_same_restore_error, our_error
from tfckpt import CheckpointError, Part, Reader, Request
from values import files, part, tensor

FLOAT, INT32, STRING = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object)
FULL = tensor(1, (4, 6))
X = Request("x", FLOAT, (4, 6))
S = Request("s", STRING, (2,))


# ---- requests ----


@pytest.mark.parametrize("name", ["q", "", "x/y", "zwölf", "X"], ids=repr)
def test_a_missing_key(name: str, saved: str) -> None:
    if not name:
        # TensorFlow finds the header entry and calls it a tensor.
        error = our_error(lambda: tfckpt.restore(saved, [Request(name, FLOAT, ())]))
        assert error.code_name == "INVALID_ARGUMENT"
        return
    error = assert_same_restore_error(saved, X, Request(name, FLOAT, ()))
    assert (error.key, error.tensor_index) == (name.encode(), 1)
    assert our_error(lambda: find(saved, name)).message.startswith(f"Key {name} not found in checkpoint")


def find(prefix: str, key: str) -> None:
    """Opens and looks up."""
    with Reader(prefix) as reader:
        reader.find(key)


def test_a_missing_key_that_is_not_utf_8_is_named_by_its_bytes(saved: str) -> None:
    error = our_error(lambda: tfckpt.restore(saved, [Request(b"\xff\x00", FLOAT, ())]))
    assert (error.code_name, error.key) == ("NOT_FOUND", b"\xff\x00")


WRONG_DTYPES = [n for n in tfckpt.DTYPES if n not in (1,)]


@pytest.mark.parametrize("number", WRONG_DTYPES)
def test_a_dtype_that_differs(number: int, saved: str) -> None:
    assert_same_restore_error(saved, Request("x", tfckpt.DTYPES[number], (4, 6)))


@pytest.mark.parametrize("key", ["s", "p", "y"])
def test_a_dtype_that_differs_from_a_string_a_partitioned_tensor_or_a_scalar(key: str, saved: str) -> None:
    assert_same_restore_error(saved, Request(key, np.dtype(np.uint8), ()))


def test_all_dtypes_that_differ_are_told_at_once_in_the_order_of_the_file(saved: str, prefix: str) -> None:
    three = [Request("y", FLOAT, ()), Request("s", FLOAT, (2,)), Request("x", np.dtype(np.int8), (4, 6))]
    error = assert_same_restore_error(saved, *three)
    assert error.message.count("expected dtype") == 3 and error.tensor_index == 0
    error = assert_same_restore_error(saved, Request("x", FLOAT, (4, 6)), *three)
    assert error.tensor_index == 1
    codes = [code for code, _ in tfckpt.restore_each(saved, three)]
    assert codes == [3, 3, 3]
    tensorflow_side.save_by_device(
        prefix, {key: part(tensor(1, (2, 3)), "-:-", device) for key, device in [("a", "/cpu:1"), ("b", "/cpu:0")]}
    )
    assert_same_restore_error(prefix, *[Request(key, np.dtype(np.int8), (2, 3)) for key in "ab"])


@pytest.mark.parametrize(
    "spec", ["5 6 0,2:-", "4 7 0,2:-", "4 0,2", "4 6 1 0,2:-:-", "24 0,2", "40 60 0,2:-"]
)
@pytest.mark.parametrize("key", ["x", "p"])
def test_a_full_shape_that_differs_in_the_spec(key: str, spec: str, saved: str) -> None:
    sizes = [int(dim) for dim in spec.split()[:-1]]
    assert_same_restore_error(saved, Request(key, FLOAT, (2, *sizes[1:]), spec))


@pytest.mark.parametrize("shape", [(), (24,), (6, 4), (4, 6, 1), (0,), (4, 5)], ids=str)
@pytest.mark.parametrize("key", ["x", "p"])
def test_a_shape_that_differs_gets_the_text_of_the_spec(key: str, shape: tuple[int, ...], saved: str) -> None:
    error = our_error(lambda: tfckpt.restore(saved, [Request(key, FLOAT, shape)]))
    want = ",".join(map(str, shape))
    assert error.code_name == "INVALID_ARGUMENT"
    assert error.message.startswith(
        f"tensor_name = {key}; shape in shape_and_slice spec [{want}] "
        "does not match the shape stored in checkpoint: [4,6]"
    )


BAD_SPECS = [
    "4 6",
    "4 6 a,b:-",
    "4 6 0,0:-",
    "4 6 -1,2:-",
    "4 6 0,-2:-",
    "4 x 0,2:-",
    "4  6 0,2:-",
    " ",
    "-",
    "4 6 0,2",
    "4 6 0,2:-:-",
    "4 6 0,5:-",
    "4 6 3,2:-",
    "4 6 0,2:0,7",
    "4 6 0:-",
    "4 6 0,2;-",
    "4 6 0,2,1:-",
    "4 6 --:-",
    "4 6 ",
    "4 6 1.0,2:-",
    "4 99999999999999999999 0,2:-",
    "4 6 0,99999999999999999999:-",
]


@pytest.mark.parametrize("spec", BAD_SPECS, ids=repr)
def test_a_bad_slice_spec_on_restore(spec: str, saved: str) -> None:
    assert_same_restore_error(saved, Request("x", FLOAT, (2, 6), spec))


@pytest.mark.parametrize("spec", BAD_SPECS, ids=repr)
def test_a_bad_slice_spec_on_save(spec: str, prefix: str, other_prefix: str) -> None:
    assert_same_save_error(prefix, other_prefix, [("x", Part(FULL[:2], spec))])


def test_slices_that_are_not_enough(prefix: str) -> None:
    tensorflow_side.save(prefix, [("p", part(FULL, "0,1:-")), ("p", part(FULL, "2,2:-"))])
    for shape, spec in [((4, 6), ""), ((4, 6), "4 6 -:-"), ((2, 6), "4 6 0,2:-"), ((1, 2), "4 6 1,1:2,2")]:
        assert_same_restore_error(prefix, Request("p", FLOAT, shape, spec))


def test_overlapping_slices(prefix: str) -> None:
    tensorflow_side.save(prefix, [("p", part(FULL, "0,2:-")), ("p", part(FULL, "1,2:-"))])
    assert_same_restore_error(prefix, Request("p", FLOAT, (4, 6)), our_code="DATA_LOSS")


# ---- saves ----


def assert_same_save_error(prefix: str, other_prefix: str, tensors: tfckpt.Tensors) -> CheckpointError:
    """The same save by both; ours leaves nothing behind."""
    error = assert_same_error(
        lambda: tensorflow_side.save(other_prefix, tensors), lambda: tfckpt.save(prefix, tensors)
    )
    assert files(prefix) == {}
    folder = pathlib.Path(prefix).parent
    assert [f.name for f in folder.iterdir() if f.name != "other"] == []
    return error


@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (2, 5), (2,), (12,), ()], ids=str)
def test_a_tensor_of_another_shape_than_its_slice(
    shape: tuple[int, ...], prefix: str, other_prefix: str
) -> None:
    assert_same_save_error(prefix, other_prefix, [("x", Part(tensor(1, shape), "4 6 0,2:-"))])


DUPLICATES = {
    "whole-twice": [("a", FULL), ("b", FULL), ("a", FULL)],
    "slice-twice": [("a", part(FULL, "0,2:-")), ("a", part(FULL, "0,2:-"))],
    "whole-after-slice": [("a", part(FULL, "0,2:-")), ("a", FULL)],
    "other-dtype": [("a", FULL), ("a", tensor(9, ()))],
}


@pytest.mark.parametrize("tensors", DUPLICATES.values(), ids=DUPLICATES.keys())
def test_a_name_saved_twice(tensors: list[tuple[str, Any]], prefix: str, other_prefix: str) -> None:
    assert_same_save_error(prefix, other_prefix, tensors)


def test_a_slice_after_the_whole_is_refused_where_tensorflow_corrupts_the_entry(prefix: str) -> None:
    error = our_error(lambda: tfckpt.save(prefix, [("a", FULL), ("a", part(FULL, "0,2:-"))]))
    assert error.code_name == "INVALID_ARGUMENT"
    assert error.message.startswith("Adding duplicate key: a")
    assert files(prefix) == {}


def test_slices_of_one_name_with_other_full_shapes_or_dtypes_are_refused(prefix: str) -> None:
    other = [Part(tensor(1, (2, 6)), "5 6 2,2:-"), Part(tensor(9, (2, 6)), "4 6 2,2:-")]
    for second in other:
        error = our_error(
            lambda second=second: tfckpt.save(prefix, [("a", part(FULL, "0,2:-")), ("a", second)])
        )
        assert error.code_name == "INVALID_ARGUMENT"
        assert files(prefix) == {}


def test_a_failed_save_keeps_the_checkpoint_that_was_there(saved: str) -> None:
    before = files(saved)
    our_error(lambda: tfckpt.save(saved, [("x", FULL), ("x", FULL)]))
    our_error(lambda: tfckpt.save(saved, {"x": FULL}, progress=lambda report: 1))
    assert files(saved) == before


def test_a_parent_folder_that_is_a_file(tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    error = our_error(lambda: tfckpt.save(str(tmp_path / "file" / "m"), {"x": FULL}))
    assert error.code_name in ("FAILED_PRECONDITION", "NOT_FOUND", "INVALID_ARGUMENT")


# ---- prefixes ----


@pytest.mark.parametrize("name", ["none", "no/such/folder", "zwölf"])
def test_a_prefix_without_files(name: str, tmp_path: pathlib.Path) -> None:
    assert_same_restore_error(str(tmp_path / name), X)


def test_a_missing_data_file(saved: str) -> None:
    table_file.data_file(saved).unlink()
    for request in (X, S, Request("p", FLOAT, (4, 6))):
        assert_same_restore_error(saved, request)


@pytest.mark.parametrize("suffix", [".index", ".data-00000-of-00001"])
def test_a_file_given_as_prefix_is_explained(suffix: str, saved: str) -> None:
    error = our_error(lambda: tfckpt.restore(saved + suffix, [X]))
    assert error.code != 0
    assert saved in error.message.replace(saved + suffix, ""), "the message does not name the prefix"


def test_a_folder_given_as_prefix_is_refused(saved: str) -> None:
    error = our_error(lambda: tfckpt.restore(str(pathlib.Path(saved).parent), [X]))
    assert error.code_name in ("DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "FAILED_PRECONDITION")
