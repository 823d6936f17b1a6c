"""The library reads files that TensorFlow reads and never writes: big-endian, Snappy, gaps, more."""

from __future__ import annotations

import struct

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from tfckpt import Request
from values import FIXED_SIZE_DTYPES, assert_same, assert_same_tensors, dtype_id, part, tensor

FLOAT = np.dtype(np.float32)
TILES = ["0,1:0,4", "0,1:4,2", "1,3:0,1", "1,3:1,5"]

SWAP_UNIT = {8: 4, 18: 8}
BIG_ENDIAN_DTYPES = [n for n in FIXED_SIZE_DTYPES if n < 24]


def make_big_endian(prefix: str) -> None:
    """Turns a little-endian bundle of numbers into the big-endian one of the same values."""
    data = bytearray(table_file.data_file(prefix).read_bytes())

    def change(entries: dict[bytes, bytes]) -> None:
        for key in [key for key in entries if key]:
            entry = table_file.BundleEntry.FromString(entries[key])
            unit = SWAP_UNIT.get(entry.dtype) or tfckpt.DTYPES[entry.dtype].itemsize
            stored = slice(entry.offset, entry.offset + entry.size)
            data[stored] = (
                np.frombuffer(data[stored], f"V{unit}").view("u1").reshape(-1, unit)[:, ::-1].tobytes()
            )
            entry.crc32c = table_file.mask(table_file.crc32c(data[stored]))
            entries[key] = entry.SerializeToString(deterministic=True)

    table_file.rewrite_index(prefix, change)
    table_file.edit_header(prefix, lambda header: setattr(header, "endianness", 1))
    table_file.data_file(prefix).write_bytes(data)


def test_numbers_of_a_big_endian_bundle_are_swapped(prefix: str) -> None:
    tensors = {dtype_id(n): tensor(n, (2, 3)) for n in BIG_ENDIAN_DTYPES} | {
        "empty": tensor(1, (0, 2)),
        "scalar": tensor(2, ()),
    }
    tensorflow_side.save(prefix, tensors)
    make_big_endian(prefix)
    requests = [Request(key, value.dtype, value.shape) for key, value in tensors.items()]
    for value, theirs in zip(tensors.values(), tensorflow_side.restore(prefix, requests)):
        assert_same(theirs, value)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


def test_slices_of_a_big_endian_bundle_are_swapped(prefix: str) -> None:
    full = tensor(9, (4, 6))
    tensorflow_side.save(prefix, [("x", part(full, spec)) for spec in TILES] + [("y", full)])

    def without_slices(entries: dict[bytes, bytes]) -> None:
        hidden["x"] = entries.pop(b"x")

    hidden: dict[str, bytes] = {}
    table_file.rewrite_index(prefix, without_slices)
    make_big_endian(prefix)
    table_file.rewrite_index(prefix, lambda entries: entries.update({b"x": hidden["x"]}))
    assert_same_tensors(tfckpt.restore_all(prefix), {"x": full, "y": full})
    requests = [Request(key, full.dtype, (2, 3), "4 6 1,2:2,3") for key in "xy"]
    for restored in tfckpt.restore(prefix, requests):
        assert_same(restored, full[1:3, 2:5])


def test_strings_of_a_big_endian_bundle_have_big_endian_length_checksums(prefix: str) -> None:
    elements = [b"ab", b"cde"]
    tensorflow_side.save(prefix, {"s": np.array(elements, object)})
    lengths = table_file.crc32c(b"".join(struct.pack(">I", len(e)) for e in elements))
    checksum = struct.pack(">I", table_file.mask(lengths))
    whole = table_file.crc32c(b"".join(elements), table_file.crc32c(checksum, lengths))
    table_file.data_file(prefix).write_bytes(bytes([2, 3]) + checksum + b"".join(elements))
    assert checksum == bytes.fromhex("ded0c98d")
    table_file.edit_entry(prefix, b"s", lambda entry: setattr(entry, "crc32c", table_file.mask(whole)))
    table_file.edit_header(prefix, lambda header: setattr(header, "endianness", 1))
    request = Request("s", np.dtype(object), (2,))
    assert_same(tensorflow_side.restore(prefix, [request])[0], np.array(elements, object))
    assert_same(tfckpt.restore(prefix, [request])[0], np.array(elements, object))


@pytest.mark.parametrize("per_block", [1, 2, 100])
@pytest.mark.parametrize("kind", [0, 1], ids=["plain", "snappy"])
def test_tables_of_small_or_snappy_blocks(per_block: int, kind: int, prefix: str) -> None:
    tensors = {f"v{i:03}": tensor(3, (2,), i) for i in range(37)}
    tensorflow_side.save(prefix, tensors)
    table_file.rewrite_index(prefix, lambda entries: None, per_block=per_block, kind=kind)
    requests = [Request(key, value.dtype, value.shape) for key, value in tensors.items()]
    for value, theirs in zip(tensors.values(), tensorflow_side.restore(prefix, requests)):
        assert_same(theirs, value)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


def move_data(prefix: str, gap: int, order: list[bytes]) -> None:
    """Writes the data file anew: the tensors in another order with gaps between them."""
    old, new = table_file.data_file(prefix).read_bytes(), bytearray()

    def change(entries: dict[bytes, bytes]) -> None:
        for key in order:
            entry = table_file.BundleEntry.FromString(entries[key])
            new.extend(b"\xee" * gap)
            stored = old[entry.offset : entry.offset + entry.size]
            entry.offset = len(new)
            new.extend(stored)
            entries[key] = entry.SerializeToString(deterministic=True)
        new.extend(b"\xee" * gap)

    table_file.rewrite_index(prefix, change)
    table_file.data_file(prefix).write_bytes(new)


@pytest.mark.parametrize("gap", [0, 13, 64])
def test_tensors_in_any_order_with_gaps_between_them(gap: int, prefix: str) -> None:
    tensors = {key: tensor(number, (3, 5)) for key, number in zip("abcd", [1, 7, 10, 18])}
    tensorflow_side.save(prefix, tensors)
    move_data(prefix, gap, [b"c", b"a", b"d", b"b"])
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


def test_unknown_fields_and_a_newer_producer_are_accepted(prefix: str) -> None:
    tensorflow_side.save(prefix, {"x": tensor(1, (2,))})

    def add_unknown(entries: dict[bytes, bytes]) -> None:
        for key in entries:
            entries[key] += bytes([15 << 3 | 2, 3]) + b"new"

    table_file.rewrite_index(prefix, add_unknown)
    table_file.edit_header(prefix, lambda header: setattr(header.version, "producer", 99))
    request = Request("x", FLOAT, (2,))
    assert_same(tensorflow_side.restore(prefix, [request])[0], tensor(1, (2,)))
    assert_same(tfckpt.restore(prefix, [request])[0], tensor(1, (2,)))


def test_bool_bytes_other_than_0_and_1_are_delivered_as_stored(prefix: str) -> None:
    tensorflow_side.save(prefix, {"b": np.array([False, True, False])})
    table_file.data_file(prefix).write_bytes(bytes([2, 1, 255]))
    crc = table_file.mask(table_file.crc32c(bytes([2, 1, 255])))
    table_file.edit_entry(prefix, b"b", lambda entry: setattr(entry, "crc32c", crc))
    [restored] = tfckpt.restore(prefix, [Request("b", np.dtype(bool), (3,))])
    assert restored.tobytes() == bytes([2, 1, 255])
