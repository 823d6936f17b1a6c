"""Damage to the data file: its bytes, its strings, its byte order."""

from __future__ import annotations

import struct

from base import (ACCEPTED, Case, DATA, DATA_LOSS, MARKED, OK_DATA, RESTORE, SOUND, SOUND_INDEX, T_DATA, T_OFFSET,
                  bundle, t_entry, with_t)
from writers import crc32c, entry, header, string_data, string_lengths_crc, varint

STRING = 7


def file_cases() -> list[Case]:
    def damaged(name: str, description: str, data: bytes | None, code: str = DATA_LOSS, **more: object) -> Case:
        return Case(f"data_{name}", description, RESTORE + "t", code, SOUND_INDEX, data=data, **more)

    return [
        damaged("missing", "no data file", None, "NOT_FOUND", ok_survives=False),
        damaged("is_directory", "the data file is a folder", None, "FAILED_PRECONDITION", ok_survives=False,
                files={"m.data-00000-of-00001/": b""}),
        damaged("empty", "data file of 0 bytes", b"", "OUT_OF_RANGE", ok_survives=False),
        damaged("cut", "the last byte missing", DATA[:-1], "OUT_OF_RANGE"),
        damaged("cut_at_tensor", "nothing but `ok`", OK_DATA, "OUT_OF_RANGE"),
        damaged("first_bit", "the first bit of `t` changed", DATA[:8] + bytes([DATA[8] ^ 1]) + DATA[9:],
                listing=SOUND),
        damaged("last_bit", "the last bit of `t` changed", DATA[:-1] + bytes([DATA[-1] ^ 0x80]), listing=SOUND),
        damaged("zeros", "all bytes of `t` are 0", OK_DATA + bytes(16), listing=SOUND),
        Case("data_in_other_count", "the data file says shard 0 of 2, the header 1 shard", RESTORE + "t", "NOT_FOUND",
             SOUND_INDEX, data=None, ok_survives=False, files={"m.data-00000-of-00002": DATA}),
        Case("data_trailing", "100 bytes behind the last tensor", ACCEPTED, None, SOUND_INDEX,
             data=DATA + b"\xee" * 100, value=T_DATA),
        Case("data_gap", "13 unused bytes before `t`", ACCEPTED, None, with_t(t_entry(offset=T_OFFSET + 13)),
             data=OK_DATA + bytes(13) + T_DATA, value=T_DATA),
        Case("crc_wrong", "another checksum in the entry", RESTORE + "t", DATA_LOSS, with_t(t_entry(crc=0x12345678)),
             listing=SOUND),
        Case("crc_missing", "no checksum in the entry, which means a stored 0", RESTORE + "t", DATA_LOSS,
             with_t(t_entry(crc=None)), listing=SOUND),
        Case("crc_of_empty_wrong", "a tensor without elements with another checksum", RESTORE + "t", DATA_LOSS,
             with_t(t_entry(shape=[0], size=0, crc=0x1234)), listing=SOUND),
        Case("bool_bytes", "bool elements of 2 and 255, delivered as they are", ACCEPTED, None,
             with_t(t_entry(dtype=10, size=4, crc=crc32c(b"\0\1\2\xff"))), data=OK_DATA + b"\0\1\2\xff", dtype=10,
             value=b"\0\1\2\xff"),
    ]


# ---------------------------------------------------------------------------------------------
# Strings


def string_case(name: str, description: str, stored: tuple[bytes, int], code: str | None = DATA_LOSS,
                size: int | None = None, shape: tuple[int, ...] = (2,), tail: bytes = b"", **more: object) -> Case:
    """`t` as a string tensor: its bytes and CRC as given, `tail` behind it in the file."""
    data, crc = stored
    value = entry(dtype=STRING, shape=shape, offset=T_OFFSET, size=len(data) if size is None else size, crc=crc)
    where = RESTORE + "t" if code else ACCEPTED
    options: dict[str, object] = {"data": OK_DATA + data + tail, **more}
    return Case(f"string_{name}", description, where, code, with_t(value), dtype=STRING, **options)


def length_cases() -> list[Case]:
    """Lengths that lead out of the entry, all with a valid length checksum."""
    values = [b"ab", b"cde"]
    lies = {
        "length_1_too_large": ("lengths add up to 1 more than there is", [2, 4]),
        "length_2_31": ("a length of 2^31", [1 << 31, 3]),
        "length_2_32": ("a length of 2^32, which the checksum takes as 8 bytes", [1 << 32, 3]),
        "length_2_50": ("a length of 2^50", [1 << 50, 3]),
        "length_2_63": ("a length of 2^63", [1 << 63, 3]),
        "length_2_64_less_1": ("a length of 2^64-1", [(1 << 64) - 1, 3]),
        "lengths_wrap": ("lengths that add up to 5 in 64 bits", [(1 << 64) - 3, 8]),
    }
    cases = [string_case(name, text, string_data(values, lengths)) for name, (text, lengths) in lies.items()]
    into_next = string_data(values, [2, 9])
    return cases + [
        string_case("length_into_next", "a length reaches into the bytes behind the entry", (
            into_next[0], crc32c(b"abcdefghijk", crc32c(into_next[0][2:6], string_lengths_crc([2, 9])))),
            tail=b"fghijk"),
    ]


def string_cases() -> list[Case]:
    values = [b"ab", b"cde"]
    sound = string_data(values)
    endless = string_data(values, lengths_raw=b"\x02" + b"\xff" * 11)
    overlong = string_data(values, lengths_raw=b"\x82\x00\x83\x80\x00")
    no_length = (varint(2), 0)
    empty = string_data([])
    return [
        *length_cases(),
        string_case("length_endless", "a length without an end", endless),
        string_case("lengths_cut", "the data file ends after the first length", no_length, "OUT_OF_RANGE", size=2),
        string_case("lengths_only", "the entry ends before the length checksum", (b"\0\0", 0)),
        string_case("length_crc_wrong", "another length checksum", string_data(values, crc_xor=0x100)),
        string_case("content_bit", "one bit of the strings changed", (sound[0][:-1] + b"d", sound[1]), listing=SOUND),
        string_case("crc_wrong", "another checksum in the entry", (sound[0], 0x1234), listing=SOUND),
        string_case("lengths_swapped", "lengths 3 and 2 for strings of 2 and 3, old checksums",
                    (b"\x03\x02" + sound[0][2:], sound[1]), listing=SOUND),
        string_case("size_less_than_elements", "1 byte for 2 elements", sound, size=1, listing=MARKED),
        string_case("size_0", "0 bytes for 2 elements", sound, size=0, listing=MARKED),
        string_case("size_negative", "size -11", sound, size=-11, listing=MARKED),
        string_case("size_without_checksum", "no elements and no length checksum", (b"", 0), shape=(0,),
                    or_accepted=True, strings=[]),
        string_case("size_too_large", "3 more bytes in the entry than the strings have", sound,
                    size=len(sound[0]) + 3, tail=b"xyz", or_accepted=True, strings=values),
        string_case("size_too_small", "the entry is 1 byte shorter than the strings", sound, size=len(sound[0]) - 1),
        string_case("size_past_end", "the entry reaches 2^40 bytes past the data file", sound, "OUT_OF_RANGE",
                    size=1 << 40),
        string_case("file_cut", "the data file ends inside the strings", sound, "OUT_OF_RANGE",
                    data=OK_DATA + sound[0][:-2]),
        string_case("shape_2_40", "2^40 elements in as many bytes, but the data file is small", sound, "OUT_OF_RANGE",
                    size=1 << 40, shape=(1 << 40,)),
        string_case("shape_2_62", "2^62 elements in as many bytes, but the data file is small", sound, "OUT_OF_RANGE",
                    size=1 << 62, shape=(1 << 62,)),
        string_case("shape_2_40_no_file", "2^40 elements and no data file", sound, "NOT_FOUND", size=1 << 40,
                    shape=(1 << 40,), data=None, ok_survives=False),
        string_case("shape_2_62_no_file", "2^62 elements and no data file", sound, "NOT_FOUND", size=1 << 62,
                    shape=(1 << 62,), data=None, ok_survives=False),
        string_case("shape_2_40_small_size", "2^40 elements in 11 bytes", sound, shape=(1 << 40,), listing=MARKED),
        string_case("sound", "two strings", sound, None, strings=values),
        string_case("no_elements", "no elements: 4 bytes of checksum", empty, None, shape=(0,), strings=[]),
        string_case("length_overlong", "lengths as numbers of 2 and 3 bytes", overlong, None, strings=values),
    ]


# ---------------------------------------------------------------------------------------------
# The other byte order


def big_endian_case(name: str, description: str, row: bytes, stored: bytes, code: str | None = None,
                    **more: object) -> Case:
    ok_data = struct.pack(">2f", 10.0, 20.0)
    ok = (b"ok", entry(shape=[2], size=8, crc=crc32c(ok_data)))
    where = RESTORE + "t" if code else ACCEPTED
    index = bundle(ok, (b"t", row), head=header(endianness=1))
    return Case(f"big_endian_{name}", description, where, code, index, data=ok_data + stored, **more)


def big_endian_number(name: str, dtype: int, code: str, values: list[float]) -> Case:
    """Four elements of a dtype that is swapped, `code` as in `struct`."""
    count = len(values)  # a complex element takes two
    stored = struct.pack(f">{count}{code}", *values)
    row = t_entry(dtype=dtype, shape=[4], size=len(stored), crc=crc32c(stored))
    return big_endian_case(name, f"big-endian file, dtype {dtype}", row, stored, dtype=dtype,
                           value=struct.pack(f"<{count}{code}", *values))


def big_endian_cases() -> list[Case]:
    values = [b"ab", b"cde"]
    text, crc = string_data(values, big_endian=True)
    refused = [big_endian_case(
        f"dtype_{dtype}", f"big-endian file, dtype {dtype}, which has no swapping",
        t_entry(dtype=dtype, size=4, crc=crc32c(b"\1\2\3\4")), b"\1\2\3\4", "UNIMPLEMENTED", dtype=dtype)
        for dtype in (24, 29)]
    return [
        big_endian_number("float", 1, "f", [1.5, -2.0, 3.0, 0.25]),
        big_endian_number("double", 2, "d", [1.5, -2.0, 3.0, 0.25]),
        big_endian_number("int16", 5, "h", [1, -2, 300, 4]),
        big_endian_number("int64", 9, "q", [1, -2, 3 << 40, 4]),
        big_endian_number("uint8", 4, "B", [1, 2, 3, 255]),
        big_endian_number("complex64", 8, "f", [1.5, -2.0, 3.0, 0.25, 5.0, 6.0, 7.0, 8.0]),
        big_endian_number("complex128", 18, "d", [1.5, -2.0, 3.0, 0.25, 5.0, 6.0, 7.0, 8.0]),
        big_endian_case("string", "big-endian file, two strings", entry(
            dtype=STRING, shape=[2], offset=T_OFFSET, size=len(text), crc=crc), text, dtype=STRING, strings=values),
        big_endian_case("string_little_checksum", "big-endian file, strings with a little-endian checksum", entry(
            dtype=STRING, shape=[2], offset=T_OFFSET, size=len(text), crc=string_data(values)[1]),
            string_data(values)[0], DATA_LOSS, dtype=STRING),
        *refused,
        big_endian_case("variant", "big-endian file, a DT_VARIANT tensor", t_entry(
            dtype=21, shape=[], size=4, crc=0), bytes(4), "UNIMPLEMENTED", dtype=21),
        big_endian_case("crc_wrong", "big-endian file, checksum of the swapped bytes", t_entry(), T_DATA[::-1],
                        DATA_LOSS, listing=SOUND),
    ]


def cases() -> list[Case]:
    return [*file_cases(), *string_cases(), *big_endian_cases()]
