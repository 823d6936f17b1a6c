"""Wrong calls and damaged files: our message begins with TensorFlow's, and the code is the same."""

from __future__ import annotations

import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import tensorflow as tf

import table_file
import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, Part, Reader, Request
from values import files, part, tensor

FLOAT, INT32, STRING = np.dtype(np.float32), np.dtype(np.int32), np.dtype(object)
FULL = tensor(1, (4, 6))


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


@pytest.fixture
def saved(prefix: str) -> str:
    """A checkpoint of TensorFlow with a tensor of each kind."""
    parts = [("p", part(FULL, "0,2:-")), ("p", part(FULL, "2,2:-"))]
    tensors = [("s", np.array([b"ab", b"cde"], object)), ("x", FULL), ("y", tensor(9, ())), *parts]
    tensorflow_side.save(prefix, tensors)
    return prefix


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


@pytest.mark.parametrize("spec", ["5 6 0,2:-", "4 7 0,2:-", "4 0,2", "4 6 1 0,2:-:-", "24 0,2", "40 60 0,2:-"])
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
def test_a_tensor_of_another_shape_than_its_slice(shape: tuple[int, ...], prefix: str, other_prefix: str) -> None:
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
        error = our_error(lambda second=second: tfckpt.save(prefix, [("a", part(FULL, "0,2:-")), ("a", second)]))
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


# ---- damaged data ----


@pytest.mark.parametrize("keep", [0, 1, 8, 50, 90, 120, 200])
def test_a_truncated_data_file(keep: int, saved: str) -> None:
    data = table_file.data_file(saved)
    data.write_bytes(data.read_bytes()[:keep])
    cut = [
        request
        for request in (S, X, Request("y", np.dtype(np.int64), ()), Request("p", FLOAT, (4, 6)))
        if keep < end_of_data(saved, request.key)
    ]
    assert cut
    for request in cut:
        assert_same_restore_error(saved, request)


def end_of_data(prefix: str, key: str) -> int:
    """Where the bytes of a tensor end in the data file; those of the slices of `p` end it."""
    if key == "p":
        return 1 << 30
    entry = table_file.read_entry(prefix, key.encode())
    return entry.offset + entry.size


@pytest.mark.parametrize("at", [0, 1, 47, 48, 95])
@pytest.mark.parametrize("key", ["x", "p", "y"])
def test_a_flipped_byte_of_numbers(key: str, at: int, saved: str) -> None:
    data = bytearray(table_file.data_file(saved).read_bytes())
    start = len(data) - 96 if key == "p" else table_file.read_entry(saved, key.encode()).offset
    data[start + at % (8 if key == "y" else 96)] ^= 0x40
    table_file.data_file(saved).write_bytes(data)
    request = Request("y", np.dtype(np.int64), ()) if key == "y" else Request(key, FLOAT, (4, 6))
    error = assert_same_restore_error(saved, request)
    assert error.key == key.encode()
    assert error.file == str(table_file.data_file(saved))


@pytest.mark.parametrize("at", range(11))
def test_a_flipped_byte_of_strings(at: int, saved: str) -> None:
    entry = table_file.read_entry(saved, b"s")
    data = bytearray(table_file.data_file(saved).read_bytes())
    data[entry.offset + at] ^= 1
    table_file.data_file(saved).write_bytes(data)
    assert_same_restore_error(saved, S)


# ---- damaged indexes ----


@pytest.mark.parametrize("keep", [0, 1, 47, 48, 60, 100, -1])
def test_a_truncated_index(keep: int, saved: str) -> None:
    index = table_file.index_file(saved)
    index.write_bytes(index.read_bytes()[:keep])
    error = assert_same_restore_error(saved, X)
    assert error.file == str(index)


@pytest.mark.parametrize("extra", [b"\0", b"index"])
def test_an_index_with_more_bytes_at_its_end(extra: bytes, saved: str) -> None:
    index = table_file.index_file(saved)
    index.write_bytes(index.read_bytes() + extra)
    assert_same_restore_error(saved, X)


@pytest.mark.parametrize("at", [0, 3, 40, 90])
def test_a_flipped_byte_in_the_only_block(at: int, saved: str) -> None:
    index = table_file.index_file(saved)
    data = bytearray(index.read_bytes())
    data[at] ^= 0x10
    index.write_bytes(data)
    assert_same_restore_error(saved, X)


def rewrite_footer(prefix: str, *numbers: int) -> None:
    """Replaces the four numbers in the footer."""
    index = table_file.index_file(prefix)
    footer = b"".join(table_file.varint(number) for number in numbers)
    index.write_bytes(index.read_bytes()[:-48] + footer.ljust(40, b"\0") + table_file.MAGIC)


def footer_numbers(prefix: str) -> list[int]:
    """The four numbers in the footer."""
    footer, at, numbers = table_file.index_file(prefix).read_bytes()[-48:], 0, []
    for _ in range(4):
        number, at = table_file.read_varint(footer, at)
        numbers.append(number)
    return numbers


def test_an_index_block_past_the_end_of_the_file(saved: str) -> None:
    *meta, offset, size = footer_numbers(saved)
    for wrong in [(offset + 10_000, size), (offset, size + 10_000), (1 << 40, size)]:
        rewrite_footer(saved, *meta, *wrong)
        code, message = their_error(lambda: tensorflow_side.restore(saved, [X]))
        assert (tfckpt.CODES[code], message) == ("OUT_OF_RANGE", "Read less bytes than requested")
        error = our_error(lambda: tfckpt.restore(saved, [X]))
        assert error.code_name == "DATA_LOSS"
        # TensorFlow has the second text where a file system returns what there is.
        assert error.message.startswith(("Read less bytes than requested", "truncated block read"))


def test_an_index_block_of_an_absurd_size_or_offset(saved: str) -> None:
    *meta, offset, size = footer_numbers(saved)
    top = (1 << 64) - 1
    for wrong in [(offset, top), (offset, 1 << 62), (top, size), (1 << 63, 1 << 63), (top, top)]:
        rewrite_footer(saved, *meta, *wrong)
        error = our_error(lambda: tfckpt.restore(saved, [X]))
        assert error.code_name in ("DATA_LOSS", "OUT_OF_RANGE")


def test_footer_varints_that_do_not_end(saved: str) -> None:
    index = table_file.index_file(saved)
    index.write_bytes(index.read_bytes()[:-48] + b"\xff" * 40 + table_file.MAGIC)
    assert_same_restore_error(saved, X)


def replace_block(prefix: str, block: bytes) -> None:
    """Makes an index of one sealed block."""
    index = table_file.make_block([(b"\xff", table_file.varint(0) + table_file.varint(len(block) - 5))])
    meta = table_file.sealed(table_file.make_block([]))
    footer = b"".join(
        table_file.varint(n) for n in (len(block), len(meta) - 5, len(block) + len(meta), len(index))
    )
    file = block + meta + table_file.sealed(index) + footer.ljust(40, b"\0") + table_file.MAGIC
    table_file.index_file(prefix).write_bytes(file)


def entries_block(prefix: str) -> bytes:
    """A block of all entries."""
    return table_file.make_block(table_file.read_table(table_file.index_file(prefix).read_bytes()))


def sealed_as(block: bytes, kind: int) -> bytes:
    """A block with a type byte that says something else than what it is."""
    checksum = table_file.mask(table_file.crc32c(block + bytes([kind])))
    return block + bytes([kind]) + checksum.to_bytes(4, "little")


BAD_BLOCKS: dict[str, Callable[[bytes], bytes]] = {
    "bad-type": lambda block: sealed_as(block, 2),
    "bad-type-255": lambda block: sealed_as(block, 255),
    "bad-snappy": lambda block: sealed_as(b"\xff" * 9 + block, 1),
    "too-short": lambda block: sealed_as(b"\0\0", 0),
    "absurd-restarts": lambda block: sealed_as(block[:-4] + b"\xff\xff\xff\x7f", 0),
    "empty": lambda block: table_file.sealed(table_file.make_block([])),
}


@pytest.mark.parametrize("make", BAD_BLOCKS.values(), ids=BAD_BLOCKS.keys())
def test_a_bad_block(make: Callable[[bytes], bytes], saved: str) -> None:
    replace_block(saved, make(entries_block(saved)))
    assert_same_restore_error(saved, X, our_code="DATA_LOSS")


def test_a_header_that_is_no_proto(saved: str) -> None:
    table_file.rewrite_index(saved, lambda entries: entries.update({b"": b"\xff\xff\xff"}))
    assert_same_restore_error(saved, X)


@pytest.mark.parametrize("version", [2, 1 << 30])
def test_a_checkpoint_for_newer_readers(version: int, saved: str) -> None:
    table_file.edit_header(saved, lambda header: setattr(header.version, "min_consumer", version))
    code, message = their_error(lambda: tensorflow_side.restore(saved, [X]))
    error = our_error(lambda: tfckpt.restore(saved, [X]))
    assert error.code == code
    core = f"Checkpoint min consumer version {version} above current version 1"
    assert message.startswith(core) and error.message.startswith(core)


def test_a_checkpoint_that_disallows_this_version(saved: str) -> None:
    table_file.edit_header(saved, lambda header: header.version.bad_consumers.append(1))
    code, message = their_error(lambda: tensorflow_side.restore(saved, [X]))
    error = our_error(lambda: tfckpt.restore(saved, [X]))
    assert error.code == code
    core = "Checkpoint disallows consumer version 1."
    assert message.startswith(core) and error.message.startswith(core)


def test_an_entry_that_is_no_proto(saved: str) -> None:
    table_file.rewrite_index(saved, lambda entries: entries.update({b"x": b"\xff\xff\xff"}))
    assert_same_restore_error(saved, X)
    with Reader(saved) as reader:
        codes = {entry.key: tfckpt.CODES[entry.code] for entry in reader.entries()}
    assert codes == {b"p": "OK", b"s": "OK", b"x": "DATA_LOSS", b"y": "OK"}


ENTRY_DAMAGE: dict[str, tuple[Request, Callable[[table_file.BundleEntry], Any]]] = {
    "size-too-small": (X, lambda entry: setattr(entry, "size", 12)),
    "size-too-large": (X, lambda entry: setattr(entry, "size", 100)),
    "size-negative": (X, lambda entry: setattr(entry, "size", -1)),
    "offset-past-end": (X, lambda entry: setattr(entry, "offset", 1 << 30)),
    "offset-near-end": (X, lambda entry: setattr(entry, "offset", 180)),
    "offset-elsewhere": (X, lambda entry: setattr(entry, "offset", 13)),
    "crc": (X, lambda entry: setattr(entry, "crc32c", 5)),
    "crc-absent": (X, lambda entry: entry.ClearField("crc32c")),
    "shape-absent": (Request("x", FLOAT, ()), lambda entry: entry.ClearField("shape")),
    "string-size-zero": (S, lambda entry: setattr(entry, "size", 0)),
    "string-size-one": (S, lambda entry: setattr(entry, "size", 1)),
    "string-crc": (S, lambda entry: setattr(entry, "crc32c", 5)),
    "string-offset": (S, lambda entry: setattr(entry, "offset", 1 << 30)),
}


@pytest.mark.parametrize(("request_", "damage"), ENTRY_DAMAGE.values(), ids=ENTRY_DAMAGE.keys())
def test_a_damaged_entry(
    request_: Request, damage: Callable[[table_file.BundleEntry], Any], saved: str
) -> None:
    table_file.edit_entry(saved, request_.key.encode(), damage)
    assert_same_restore_error(saved, request_)


def test_a_negative_offset_in_an_entry(saved: str) -> None:
    table_file.edit_entry(saved, b"x", lambda entry: setattr(entry, "offset", -5))
    assert_same_restore_error(saved, X, our_code="DATA_LOSS")


@pytest.mark.parametrize("shard", [1, 7, -1, (1 << 31) - 1])
def test_a_shard_that_the_header_does_not_have(shard: int, saved: str) -> None:
    table_file.edit_entry(saved, b"x", lambda entry: setattr(entry, "shard_id", shard))
    error = our_error(lambda: tfckpt.restore(saved, [X]))
    assert (error.code_name, error.key) == ("DATA_LOSS", b"x")


@pytest.mark.parametrize("dims", [[-1], [4, -6], [1 << 62, 1 << 62], [1] * 255], ids=["neg", "neg2", "huge", "255"])
def test_an_invalid_shape_in_an_entry(dims: list[int], saved: str) -> None:
    table_file.edit_entry(saved, b"x", lambda entry: set_dims(entry, dims))
    code, message = their_error(lambda: tensorflow_side.restore(saved, [X]))
    error = our_error(lambda: tfckpt.restore(saved, [X]))
    assert message.startswith("Invalid tensor shape: x ")
    assert error.message.startswith("Invalid tensor shape: x")
    assert error.code == code


def set_dims(entry: table_file.BundleEntry, dims: list[int]) -> None:
    """Gives an entry another shape."""
    del entry.shape.dim[:]
    for dim in dims:
        entry.shape.dim.add(size=dim)


def test_an_entry_of_as_many_dimensions_as_there_can_be(saved: str) -> None:
    table_file.edit_entry(saved, b"y", lambda entry: set_dims(entry, [1] * 254))
    with Reader(saved) as reader:
        assert reader.find("y").shape == (1,) * 254


def test_a_big_endian_bundle_of_a_dtype_that_cannot_be_swapped(prefix: str) -> None:
    value = tensor(25, (3,))
    tensorflow_side.save(prefix, {"f": value})
    table_file.edit_header(prefix, lambda header: setattr(header, "endianness", 1))
    assert_same_restore_error(prefix, Request("f", value.dtype, (3,)))


def test_a_damaged_later_block_is_data_loss_where_tensorflow_hides_tensors(prefix: str) -> None:
    tensorflow_side.save(prefix, {f"v{i:02}": tensor(3, (2,), i) for i in range(20)})
    table_file.rewrite_index(prefix, lambda entries: None, per_block=7)
    index = table_file.index_file(prefix)
    offset, _ = table_file.index_handles(index.read_bytes())[1]
    data = bytearray(index.read_bytes())
    data[offset + 3] ^= 1
    index.write_bytes(data)
    with Reader(prefix) as reader:
        assert our_error(lambda: reader.find("v08")).code_name == "DATA_LOSS"
        assert reader.find("v02").code == reader.find("v18").code == 0
        listed = []
        error = our_error(lambda: listed.extend(e.key for e in iterate(reader, listed)))
        assert error.code_name == "DATA_LOSS"
    assert listed == [f"v{i:02}".encode() for i in range(20) if not 6 <= i < 13]


def iterate(reader: Reader, listed: list[bytes]) -> list[tfckpt.Entry]:
    """Collects keys until the listing ends in its error."""
    for entry in reader.entries():
        listed.append(entry.key)
    return []
