"""Small writers for the pieces of a V2 checkpoint, with every part open to damage.

Nothing here guards against nonsense: what is given is what is written. Layouts are TensorFlow's:
protobuf fields, masked CRC-32C, ordered code for slice keys, blocks, handles and the footer of a
table, and the length prefix of string tensors.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, replace
from typing import Iterable, Sequence

# ---------------------------------------------------------------------------------------------
# Checksums and varints


def _crc_table() -> list[int]:
    table = []
    for byte in range(256):
        for _ in range(8):
            byte = byte >> 1 ^ (0x82F63B78 if byte & 1 else 0)
        table.append(byte)
    return table


CRC_TABLE = _crc_table()


def crc32c(data: bytes, crc: int = 0) -> int:
    """CRC-32C of `data`, continuing the finished value `crc`."""
    crc ^= 0xFFFFFFFF
    for byte in data:
        crc = CRC_TABLE[(crc ^ byte) & 0xFF] ^ crc >> 8
    return crc ^ 0xFFFFFFFF


def mask(crc: int) -> int:
    """The form in which checksums are stored."""
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def varint(value: int) -> bytes:
    """Base-128, little-endian groups; negative numbers as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


# ---------------------------------------------------------------------------------------------
# Protobuf messages


def int_field(number: int, value: int) -> bytes:
    return varint(number << 3) + varint(value)


def bytes_field(number: int, value: bytes) -> bytes:
    return varint(number << 3 | 2) + varint(len(value)) + value


def fixed32_field(number: int, value: int) -> bytes:
    return varint(number << 3 | 5) + struct.pack("<I", value)


def header(num_shards: int = 1, endianness: int = 0, version: bytes | None = int_field(1, 1)) -> bytes:
    """BundleHeaderProto. `version` is a serialized VersionDef, None leaves it out."""
    out = int_field(1, num_shards) if num_shards else b""
    out += int_field(2, endianness) if endianness else b""
    return out + (bytes_field(3, version) if version is not None else b"")


def shape_proto(dims: Iterable[int], unknown_rank: bool = False) -> bytes:
    """TensorShapeProto."""
    out = b"".join(bytes_field(2, int_field(1, dim) if dim else b"") for dim in dims)
    return out + (int_field(3, 1) if unknown_rank else b"")


Extent = tuple[int, int] | None  # (start, length); None is the whole dimension


def slice_proto(extents: Sequence[Extent]) -> bytes:
    """TensorSliceProto."""
    out = b""
    for extent in extents:
        start, length = extent or (0, None)
        body = int_field(1, start) if start else b""
        out += bytes_field(1, body + (int_field(2, length) if length is not None else b""))
    return out


def entry(
    dtype: int = 1,
    shape: Iterable[int] | bytes | None = (4,),
    shard_id: int = 0,
    offset: int = 0,
    size: int = 0,
    crc: int | None = 0,
    slices: Sequence[Sequence[Extent]] = (),
) -> bytes:
    """BundleEntryProto. `crc` is unmasked; None leaves it out. `shape` may be serialized already."""
    out = int_field(1, dtype) if dtype else b""
    if shape is not None:
        out += bytes_field(2, shape if isinstance(shape, bytes) else shape_proto(shape))
    for number, value in ((3, shard_id), (4, offset), (5, size)):
        out += int_field(number, value) if value else b""
    out += fixed32_field(6, mask(crc)) if crc is not None else b""
    return out + b"".join(bytes_field(7, slice_proto(extents)) for extents in slices)


# ---------------------------------------------------------------------------------------------
# Slice keys (ordered code)


def ordered_number(value: int) -> bytes:
    body = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return bytes([len(body)]) + body


def ordered_string(text: bytes) -> bytes:
    escapes = {0x00: b"\0\xff", 0xFF: b"\xff\0"}
    return b"".join(escapes.get(byte, bytes([byte])) for byte in text) + b"\0\1"


def ordered_signed(value: int) -> bytes:
    """Signed ordered code of any 64-bit number."""
    magnitude = ~value if value < 0 else value
    if magnitude < 64:
        return bytes([0x80 ^ value & 0xFF])
    length = next(n for n in range(2, 11) if magnitude.bit_length() <= 7 * n - 1)
    body = bytearray((value & (1 << 80) - 1).to_bytes(10, "big")[-length:])
    # The header has one 1 bit per byte of length, counted from the top.
    ones = (0xFFFF << 16 - length) & 0xFFFF
    body[0] ^= ones >> 8
    body[1] ^= ones & 0xFF
    return bytes(body)


def slice_key(name: bytes, extents: Sequence[Extent]) -> bytes:
    out = ordered_number(0) + ordered_string(name) + ordered_number(len(extents))
    for extent in extents:
        start, length = extent or (0, -1)
        out += ordered_signed(start) + ordered_signed(length)
    return out


# ---------------------------------------------------------------------------------------------
# Tables


def block_entry(key: bytes, value: bytes, shared: int = 0, unshared: int | None = None,
                value_size: int | None = None) -> bytes:
    """One entry of a block; the three lengths may lie."""
    lengths = (shared, len(key) if unshared is None else unshared,
               len(value) if value_size is None else value_size)
    return b"".join(map(varint, lengths)) + key + value


def block_of(raw_entries: bytes, restarts: Sequence[int] = (0,), restart_count: int | None = None) -> bytes:
    """A block from entries that are encoded already."""
    count = len(restarts) if restart_count is None else restart_count
    return raw_entries + struct.pack(f"<{len(restarts)}I", *restarts) + struct.pack("<I", count)


def block(entries: Iterable[tuple[bytes, bytes]], share: bool = True) -> bytes:
    """A sound data block of at most 16 entries (one restart point)."""
    out, last = b"", b""
    for key, value in entries:
        shared = 0
        while share and shared < min(len(key), len(last)) and key[shared] == last[shared]:
            shared += 1
        out += block_entry(key[shared:], value, shared)
        last = key
    return block_of(out)


Handle = tuple[int, int]  # (offset, size)


def handle_bytes(handle: Handle) -> bytes:
    return varint(handle[0]) + varint(handle[1])


@dataclass(frozen=True)
class Block:
    """A block as it goes into the file, and what the index says of it."""

    body: bytes
    index_key: bytes = b""
    type: int = 0
    crc_xor: int = 0
    handle: Handle | None = None  # in place of the true one
    handle_raw: bytes | None = None  # the index value itself

    def stored(self) -> bytes:
        crc = mask(crc32c(self.body + bytes([self.type]))) ^ self.crc_xor
        return self.body + bytes([self.type]) + struct.pack("<I", crc)

    def damaged(self, **changes: object) -> Block:
        return replace(self, **changes)


EMPTY_BLOCK = Block(block_of(b""))
MAGIC = bytes.fromhex("57fb808b247547db")


def footer(metaindex: Handle, index: Handle, padding: int = 0, magic: bytes = MAGIC) -> bytes:
    handles = handle_bytes(metaindex) + handle_bytes(index)
    return handles + bytes([padding]) * (40 - len(handles)) + magic


def table(
    blocks: Sequence[Block],
    metaindex: Block = EMPTY_BLOCK,
    index: Block | None = None,
    metaindex_handle: Handle | None = None,
    index_handle: Handle | None = None,
    padding: int = 0,
) -> bytes:
    """A table of `blocks`. The index block is made from them, unless `index` is given."""
    out, rows = b"", []
    for data in blocks:
        value = data.handle_raw or handle_bytes(data.handle or (len(out), len(data.body)))
        rows.append((data.index_key, value))
        out += data.stored()
    true_metaindex = (len(out), len(metaindex.body))
    out += metaindex.stored()
    if index is None:
        index = Block(index_block(rows))
    true_index = (len(out), len(index.body))
    return out + index.stored() + footer(metaindex_handle or true_metaindex, index_handle or true_index, padding)


def index_block(rows: Iterable[tuple[bytes, bytes]]) -> bytes:
    """An index block: every entry is a restart point."""
    out, restarts = b"", []
    for key, value in rows:
        restarts.append(len(out))
        out += block_entry(key, value)
    return block_of(out, restarts or [0])


# ---------------------------------------------------------------------------------------------
# Snappy


def snappy_literal(data: bytes) -> bytes:
    """One literal of 1 to 60 bytes."""
    return bytes([len(data) - 1 << 2]) + data


def snappy_copy(offset: int, length: int) -> bytes:
    """One copy of 1 to 64 bytes with a two-byte offset."""
    return bytes([length - 1 << 2 | 2]) + struct.pack("<H", offset)


def snappy(data: bytes) -> bytes:
    """Sound Snappy: literals, and runs of one byte as copies that overlap themselves."""
    out, start, at = varint(len(data)), 0, 1
    while at < len(data):
        run = 0
        while at + run < len(data) and run < 64 and data[at + run] == data[at - 1]:
            run += 1
        if run >= 3:
            out += b"".join(snappy_literal(data[i:min(i + 60, at)]) for i in range(start, at, 60))
            out += snappy_copy(1, run)
            start = at = at + run
        at += 1
    return out + b"".join(snappy_literal(data[i:i + 60]) for i in range(start, len(data), 60))


# ---------------------------------------------------------------------------------------------
# String tensors


def string_lengths_crc(lengths: Iterable[int], big_endian: bool = False) -> int:
    """CRC of the decoded lengths: 4 bytes each, 8 where 4 are too few."""
    order = ">" if big_endian else "<"
    return crc32c(b"".join(struct.pack(order + ("I" if n < 1 << 32 else "Q"), n) for n in lengths))


def string_data(
    values: Sequence[bytes],
    lengths: Sequence[int] | None = None,
    lengths_raw: bytes | None = None,
    crc_xor: int = 0,
    big_endian: bool = False,
) -> tuple[bytes, int]:
    """The bytes of a string tensor and its CRC; the stored lengths and their checksum may lie."""
    lengths = [len(value) for value in values] if lengths is None else lengths
    crc = string_lengths_crc(lengths, big_endian)
    checksum = struct.pack(">I" if big_endian else "<I", mask(crc) ^ crc_xor)
    text = b"".join(values)
    stored = lengths_raw if lengths_raw is not None else b"".join(map(varint, lengths))
    return stored + checksum + text, crc32c(checksum + text, crc)
