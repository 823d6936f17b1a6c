"""Damaged files: our message begins with TensorFlow's; where TensorFlow hides damage, we do not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from errors import assert_same_restore_error, our_error, their_error
from tfckpt import Reader, Request
from values import tensor

FLOAT, STRING = np.dtype(np.float32), np.dtype(object)
X = Request("x", FLOAT, (4, 6))
S = Request("s", STRING, (2,))

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


@pytest.mark.parametrize(
    "dims", [[-1], [4, -6], [1 << 62, 1 << 62], [1] * 255], ids=["neg", "neg2", "huge", "255"]
)
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
