"""A small reader and writer of index files, to make checkpoints that TensorFlow never writes.

An index file is a sorted-string table: data blocks, an empty metaindex block, an index block and a
footer. Each block is followed by a type byte and a masked CRC-32C:

    entry  = varint shared, varint unshared, varint value size, key bytes, value
    block  = entries, fixed32 restart offsets, fixed32 number of restarts
    footer = varint metaindex offset and size, varint index offset and size, zeros to 40 bytes, magic

Everything here is slow, simple and independent of the library, so that it can serve as an oracle.
"""

from __future__ import annotations

import pathlib
import struct
from collections.abc import Callable

from tensorflow.core.protobuf import tensor_bundle_pb2

MAGIC = bytes.fromhex("57fb808b247547db")
Items = list[tuple[bytes, bytes]]
BundleEntry = tensor_bundle_pb2.BundleEntryProto
BundleHeader = tensor_bundle_pb2.BundleHeaderProto


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


_CRC_TABLE = _crc_table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C, continued from `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = crc >> 8 ^ _CRC_TABLE[(crc ^ byte) & 0xFF]
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """The form in which checksums are stored."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    """LEB128."""
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """A varint and where it ends."""
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            return value, at


def block_items(block: bytes) -> Items:
    """The entries of a block."""
    (num_restarts,) = struct.unpack("<I", block[-4:])
    at, end, key, items = 0, len(block) - 4 - 4 * num_restarts, b"", []
    while at < end:
        shared, at = read_varint(block, at)
        unshared, at = read_varint(block, at)
        size, at = read_varint(block, at)
        key = key[:shared] + block[at : at + unshared]
        at += unshared
        items.append((key, block[at : at + size]))
        at += size
    return items


def index_handles(data: bytes) -> list[tuple[int, int]]:
    """Offset and size of each data block, by the footer and the index block."""
    footer = data[-48:]
    assert footer[40:] == MAGIC
    _, at = read_varint(footer, 0)
    _, at = read_varint(footer, at)
    offset, at = read_varint(footer, at)
    size, at = read_varint(footer, at)
    handles = []
    for _, handle in block_items(data[offset : offset + size]):
        start, at = read_varint(handle, 0)
        handles.append((start, read_varint(handle, at)[0]))
    return handles


def read_table(data: bytes) -> Items:
    """All entries of a table."""
    return [
        item for offset, size in index_handles(data) for item in block_items(data[offset : offset + size])
    ]


def make_block(items: Items) -> bytes:
    """A block with a restart at every entry: larger than TensorFlow's, and as valid."""
    out, restarts = bytearray(), []
    for key, value in items:
        restarts.append(len(out))
        out += varint(0) + varint(len(key)) + varint(len(value)) + key + value
    restarts = restarts or [0]
    return bytes(out) + struct.pack(f"<{len(restarts) + 1}I", *restarts, len(restarts))


def snappy(data: bytes) -> bytes:
    """Valid Snappy without any matches: the size, then literals of up to 60 bytes."""
    out = bytearray(varint(len(data)))
    for at in range(0, len(data), 60):
        literal = data[at : at + 60]
        out += bytes([(len(literal) - 1) << 2]) + literal
    return bytes(out)


def sealed(block: bytes, kind: int = 0) -> bytes:
    """A block with its trailer."""
    block = snappy(block) if kind == 1 else block
    return block + bytes([kind]) + struct.pack("<I", mask(crc32c(block + bytes([kind]))))


def write_table(items: Items, *, per_block: int | None = None, kind: int = 0) -> bytes:
    """A table of the items as given, sorted or not; `kind` is the type byte of the data blocks."""
    per_block = per_block or max(len(items), 1)
    out, index = bytearray(), []
    for first in range(0, len(items), per_block):
        some = items[first : first + per_block]
        block = sealed(make_block(some), kind)
        index.append((some[-1][0], varint(len(out)) + varint(len(block) - 5)))
        out += block
    footer = b""
    for block in (make_block([]), make_block(index)):
        footer += varint(len(out)) + varint(len(block))
        out += sealed(block)
    return bytes(out) + footer.ljust(40, b"\0") + MAGIC


# ---- bundles ----


def index_file(prefix: str) -> pathlib.Path:
    """`PREFIX.index`."""
    return pathlib.Path(prefix + ".index")


def data_file(prefix: str, shard: int = 0, num_shards: int = 1) -> pathlib.Path:
    """`PREFIX.data-SSSSS-of-NNNNN`."""
    return pathlib.Path(f"{prefix}.data-{shard:05}-of-{num_shards:05}")


def rewrite_index(prefix: str, edit: Callable[[dict[bytes, bytes]], None], **table: int) -> None:
    """Lets `edit` change the entries of an index, then writes it anew in key order."""
    entries = dict(read_table(index_file(prefix).read_bytes()))
    edit(entries)
    index_file(prefix).write_bytes(write_table(sorted(entries.items()), **table))


def edit_entry(prefix: str, key: bytes, edit: Callable[[BundleEntry], None]) -> None:
    """Changes one entry of an index."""

    def change(entries: dict[bytes, bytes]) -> None:
        entry = BundleEntry.FromString(entries[key])
        edit(entry)
        entries[key] = entry.SerializeToString(deterministic=True)

    rewrite_index(prefix, change)


def edit_header(prefix: str, edit: Callable[[BundleHeader], None]) -> None:
    """Changes the header entry of an index."""

    def change(entries: dict[bytes, bytes]) -> None:
        header = BundleHeader.FromString(entries[b""])
        edit(header)
        entries[b""] = header.SerializeToString(deterministic=True)

    rewrite_index(prefix, change)


def read_entry(prefix: str, key: bytes) -> BundleEntry:
    """One entry of an index."""
    return BundleEntry.FromString(dict(read_table(index_file(prefix).read_bytes()))[key])
