"""Damage to the messages in the index: header, entries, slices."""

from __future__ import annotations

from typing import Sequence

from base import (ACCEPTED, ANY, Case, DATA, DATA_LOSS, HEADER, MARKED, OK, OPEN, RESTORE, SOUND, T_DATA,
                  T_OFFSET, bundle, one_block, t_entry, with_t)
from writers import (Extent, bytes_field, crc32c, entry, fixed32_field, header, int_field, shape_proto, slice_key,
                     slice_proto, table, varint)

MAX = (1 << 63) - 1
MIN = -(1 << 63)


def header_cases() -> list[Case]:
    def refused(name: str, description: str, value: bytes, code: str = DATA_LOSS) -> Case:
        return Case(f"header_{name}", description, OPEN, code, with_t(t_entry(), head=value))

    def accepted(name: str, description: str, value: bytes) -> Case:
        return Case(f"header_{name}", description, ACCEPTED, None, with_t(t_entry(), head=value), value=T_DATA)

    rows = [OK, (b"t", t_entry())]
    sound = header()
    return [
        Case("header_missing", "the first entry is `ok`, there is no header", OPEN, DATA_LOSS,
             table([one_block(rows)])),
        Case("header_missing_empty_table", "a sound table without entries", OPEN, DATA_LOSS, table([])),
        Case("header_after_keys", "the header stands behind the tensors", OPEN, DATA_LOSS,
             table([one_block([*rows, HEADER]).damaged(index_key=b"z")])),
        refused("not_a_message", "the header's value is no message", b"\xff" * 10),
        refused("cut", "the header ends inside a number", sound + b"\x08\xff"),
        refused("empty", "the header's value is empty: 0 shards", b""),
        refused("num_shards_wrong_type", "num_shards is a string field", bytes_field(1, b"\1") + sound[2:]),
        refused("num_shards_0", "0 shards", header(0)),
        refused("num_shards_negative", "-1 shards", header(-1)),
        # None of their files is opened before a tensor in it is asked for.
        Case("header_num_shards_2_31_less_1", "2^31-1 shards, whose data files are not there", RESTORE + "t", "NOT_FOUND",
             with_t(t_entry(), head=header((1 << 31) - 1)), ok_survives=False),
        refused("endianness_9", "an unknown byte order", header(endianness=9)),
        refused("endianness_negative", "byte order -1", header(endianness=-1)),
        refused("version_not_a_message", "the version is no message", header(version=b"\xff\xff")),
        refused("min_consumer_2", "asks for a reader of version 2", header(
            version=int_field(1, 2) + int_field(2, 2)), "INVALID_ARGUMENT"),
        refused("min_consumer_2_31_less_1", "asks for a reader of version 2^31-1", header(
            version=int_field(1, 1) + int_field(2, (1 << 31) - 1)), "INVALID_ARGUMENT"),
        refused("bad_consumer_1", "excludes readers of version 1", header(
            version=int_field(1, 1) + bytes_field(3, varint(1))), "INVALID_ARGUMENT"),
        refused("bad_consumer_1_unpacked", "excludes readers of versions 7 and 1, one field each", header(
            version=int_field(1, 1) + int_field(3, 7) + int_field(3, 1)), "INVALID_ARGUMENT"),
        refused("producer_negative", "written by version -1", header(version=int_field(1, -1)), "INVALID_ARGUMENT"),
        accepted("producer_99", "written by version 99", header(version=int_field(1, 99))),
        accepted("version_missing", "no version", header(version=None)),
        accepted("bad_consumer_7", "excludes readers of version 7", header(
            version=int_field(1, 1) + bytes_field(3, varint(7)))),
        accepted("unknown_fields", "unknown fields of each wire type",
                 sound + int_field(99, 5) + bytes_field(100, b"x") + fixed32_field(101, 1) + b"\xb1\x06" + bytes(8)),
        accepted("fields_reversed", "fields in the reverse order, num_shards twice",
                 bytes_field(3, int_field(1, 1)) + int_field(1, 9) + int_field(1, 1)),
        Case("header_num_shards_2", "2 shards, but all tensors are in the first, and only it is there", ACCEPTED, None,
             with_t(t_entry(), head=header(2)), data=None, value=T_DATA, files={"m.data-00000-of-00002": DATA}),
    ]


def marked(case: str, description: str, row: bytes, code: str = DATA_LOSS, **more: object) -> Case:
    """The entry of `t` is bad in itself, whatever the data file holds."""
    return Case(case, description, RESTORE + "t", code, with_t(row), listing=MARKED, **more)


def accepted(case: str, description: str, row: bytes, **more: object) -> Case:
    return Case(case, description, ACCEPTED, None, with_t(row), **{"value": T_DATA, **more})


def message_cases() -> list[Case]:
    sound = t_entry()
    fixed = fixed32_field(6, int.from_bytes(sound[-4:], "little"))
    backwards = fixed + int_field(5, 16) + int_field(4, T_OFFSET) + bytes_field(2, shape_proto([4])) + int_field(1, 1)
    named = bytes_field(2, int_field(1, 4) + bytes_field(2, b"rows"))
    overlong_dtype = b"\x08\x81\x80\x00" + sound[2:]
    return [
        marked("entry_not_a_message", "the entry is no message", b"\xff" * 10),
        marked("entry_group", "the entry opens a group that never ends", sound + b"\x0b"),
        marked("entry_message_cut", "the entry ends inside its checksum", sound[:-2]),
        marked("entry_shape_cut", "the shape is said to be longer than the entry", b"\x08\x01\x12\x7f\x12\x02\x08\x04"),
        marked("entry_shape_not_a_message", "the shape is no message", t_entry(shape=b"\xff\xff\xff")),
        marked("entry_empty", "the entry's value is empty", b""),
        marked("entry_varint_endless", "the offset has no end", sound[:8] + b"\x20" + b"\xff" * 11),
        marked("entry_shape_missing", "no shape, so a scalar, but 16 bytes", t_entry(shape=None)),
        accepted("entry_shape_missing_scalar", "no shape and the size of a scalar",
                 t_entry(shape=None, size=4, crc=crc32c(T_DATA[:4])), value=T_DATA[:4]),
        accepted("entry_unknown_fields", "unknown fields of each wire type",
                 sound + int_field(99, 5) + bytes_field(100, b"x") + fixed32_field(101, 1) + b"\xb1\x06" + bytes(8)),
        accepted("entry_fields_reversed", "fields in the reverse order", backwards),
        accepted("entry_fields_twice", "dtype, offset and size twice: the last ones count",
                 int_field(1, 9) + int_field(4, 99) + int_field(5, 1) + sound),
        accepted("entry_shape_in_two_parts", "the shape in two messages, which a parser joins",
                 bytes_field(2, shape_proto([2])) + t_entry(shape=[2])),
        accepted("entry_dim_names", "dimensions with names", t_entry(shape=named)),
        accepted("entry_varint_overlong", "the dtype as a number of 3 bytes", overlong_dtype),
        accepted("entry_unknown_rank_with_dims", "unknown_rank next to dimensions",
                 t_entry(shape=shape_proto([4], unknown_rank=True))),
        Case("entry_unknown_rank", "unknown_rank and no dimensions, size of a scalar", ANY, DATA_LOSS,
             with_t(t_entry(shape=shape_proto([], unknown_rank=True), size=4, crc=crc32c(T_DATA[:4]))),
             or_accepted=True, value=T_DATA[:4]),
    ]


def shape_cases() -> list[Case]:
    def shape(name: str, dims: Sequence[int], size: int = len(T_DATA), dtype: int = 1) -> Case:
        text = list(dims) if len(dims) < 9 else f"{len(dims)} ones"
        return marked(f"shape_{name}", f"shape {text}, size {size}, dtype {dtype}",
                      t_entry(shape=dims, size=size, dtype=dtype), dtype=dtype)

    return [
        shape("dim_minus_1", [-1]),
        shape("dim_minus_10", [4, -10]),
        shape("dims_minus_2_minus_2", [-2, -2]),
        shape("dim_min", [MIN]),
        shape("product_2_80", [1 << 40, 1 << 40]),
        shape("product_2_64", [1 << 32, 1 << 32], size=0),
        shape("product_wraps_to_4", [(1 << 62) + 1, 4]),
        shape("product_2_80_times_0", [1 << 40, 1 << 40, 0], size=0),
        shape("bytes_2_64", [1 << 62], size=0),
        shape("bytes_2_65", [MAX], size=16, dtype=9),
        shape("rank_255", [1] * 255, size=4),
        shape("rank_300", [1] * 300, size=4),
        accepted("shape_0_times_2_124", "shape [0, 2^62, 2^62] has no elements",
                 t_entry(shape=[0, 1 << 62, 1 << 62], size=0, crc=0), value=b""),
        accepted("shape_rank_254", "254 ones", t_entry(shape=[1] * 254, size=4, crc=crc32c(T_DATA[:4])),
                 value=T_DATA[:4]),
    ]


def field_cases() -> list[Case]:
    cases = [marked(f"dtype_{name}", f"dtype {number}", t_entry(dtype=number)) for name, number in (
        ("0", 0), ("34", 34), ("99", 99), ("ref_101", 101), ("127", 127), ("minus_1", -1), ("2_31_less_1", (1 << 31) - 1))]
    cases.append(Case("dtype_resource", "a DT_RESOURCE tensor", RESTORE + "t", "UNIMPLEMENTED",
                      with_t(t_entry(dtype=20, shape=[], size=0)), dtype=20))
    cases += [marked(f"size_{name}", f"4 floats in {size} bytes", t_entry(size=size)) for name, size in (
        ("0", 0), ("12", 12), ("20", 20), ("minus_16", -16), ("2_63_less_1", MAX))]
    cases += [
        marked("size_of_empty", "16 bytes for no elements", t_entry(shape=[0])),
        marked("offset_minus_5", "offset -5", t_entry(offset=-5)),
        marked("offset_min", "offset -2^63", t_entry(offset=MIN)),
        marked("shard_minus_1", "shard -1", t_entry(shard_id=-1)),
        marked("shard_1_of_1", "shard 1 of 1", t_entry(shard_id=1), files={"m.data-00001-of-00001": DATA}),
        marked("shard_2_31_less_1", "shard 2^31-1 of 1", t_entry(shard_id=(1 << 31) - 1)),
    ]
    # The data file's size decides these; whether listing looks at it is left open.
    past_end = {
        "offset_at_end": t_entry(offset=len(DATA)),
        "offset_1_too_large": t_entry(offset=T_OFFSET + 1),
        "offset_2_40": t_entry(offset=1 << 40),
        "size_2_42": t_entry(shape=[1 << 40], size=1 << 42),
        "size_2_62": t_entry(shape=[1 << 60], size=1 << 62),
    }
    cases += [Case(name, "the entry reaches past the end of the data file", RESTORE + "t", "OUT_OF_RANGE", with_t(value))
              for name, value in past_end.items()]
    # No file of any size could hold these.
    cases += [marked(name, "offset + size is beyond 2^63", t_entry(offset=offset)) for name, offset in (
        ("offset_2_63_less_1", MAX), ("offset_plus_size_overflows", MAX - 15))]
    cases += [
        Case("entries_overlap", "`ok` and `t` share bytes of the data file", ACCEPTED, None,
             with_t(t_entry(offset=4, crc=crc32c(DATA[4:20]))), value=DATA[4:20]),
        Case("entry_of_empty_anywhere", "a tensor without elements at an offset past the end", RESTORE + "t",
             "OUT_OF_RANGE", with_t(t_entry(shape=[0], offset=1 << 30, size=0, crc=0)), or_accepted=True, value=b""),
    ]
    return cases


# ---------------------------------------------------------------------------------------------
# Keys


def key_cases() -> list[Case]:
    value = t_entry()
    return [
        Case("key_absent", "a key that is not there", RESTORE + "nope", "NOT_FOUND", with_t(value), key="nope"),
        Case("key_absent_prefix", "a key of which another one is a prefix", RESTORE + "t/x", "NOT_FOUND",
             with_t(value), key="t/x"),
        Case("key_with_nul", "a NUL inside a key", ACCEPTED, None, bundle((b"n\0m", value), OK), key="n\0m",
             value=T_DATA),
        Case("key_not_utf8", "a key that is not UTF-8 next to `t`", ACCEPTED, None,
             bundle(OK, (b"t", value), (b"\xff\xfe", value)), value=T_DATA),
        Case("key_slice_alone", "a slice's key without the full tensor's entry", ACCEPTED, None,
             bundle((slice_key(b"s", [(0, 4)]), value), OK, (b"t", value)), value=T_DATA),
        Case("key_slice_malformed", "a key that begins as a slice's key but is none", ACCEPTED, None,
             bundle((b"\0junk", value), OK, (b"t", value)), value=T_DATA),
    ]


# ---------------------------------------------------------------------------------------------
# Slices


def piece(start: int, length: int, **changes: object) -> bytes:
    """The entry of elements start..start+length of `t`."""
    content = T_DATA[4 * start:4 * (start + length)]
    return entry(**{"shape": [length], "offset": T_OFFSET + 4 * start, "size": 4 * length,
                    "crc": crc32c(content), **changes})


HALVES: dict[tuple[Extent, ...], bytes] = {((0, 2),): piece(0, 2), ((2, 2),): piece(2, 2)}


def sliced(slices: Sequence[Sequence[Extent]], pieces: dict[tuple[Extent, ...], bytes] = HALVES,
           **full: object) -> bytes:
    """An index where `t` consists of slices."""
    rows = sorted((slice_key(b"t", extents), value) for extents, value in pieces.items())
    whole = entry(**{"shape": [4], "crc": None, "slices": slices, **full})
    return bundle(*rows, OK, (b"t", whole))


def geometry_cases() -> list[Case]:
    """The slices in the full entry cannot be right, whatever else there is."""
    two = [(2, 2)]
    bad: dict[str, tuple[str, list[list[Extent]]]] = {
        "length_minus_10": ("a slice of length -10", [[(0, -10)], two]),
        "length_0": ("a slice of length 0", [[(0, 0)], two]),
        "start_minus_1": ("a slice that starts at -1", [[(-1, 2)], two]),
        "start_min": ("a slice that starts at -2^63", [[(MIN, 2)], two]),
        "past_end": ("a slice reaches past the dimension", [[(0, 2)], [(2, 3)]]),
        "start_plus_length_overflows": ("start + length is beyond 2^63", [[(0, 2)], [(2, MAX)]]),
        "overlap": ("two slices overlap", [[(0, 3)], two]),
        "twice": ("one slice twice", [[(0, 2)], [(0, 2)]]),
        "rank_2": ("slices of rank 2 in a tensor of rank 1", [[(0, 2), (0, 1)], [(2, 2), (0, 1)]]),
        "rank_0": ("a slice of rank 0 in a tensor of rank 1", [[], two]),
    }
    return [Case(f"slices_{name}", description, RESTORE + "t", DATA_LOSS, sliced(slices), listing=MARKED)
            for name, (description, slices) in bad.items()]


def slice_cases() -> list[Case]:
    halves = [[(0, 2)], [(2, 2)]]
    second = ((2, 2),)

    def second_half(name: str, description: str, value: bytes | None, code: str = DATA_LOSS) -> Case:
        pieces = {extents: row for extents, row in {**HALVES, second: value}.items() if row is not None}
        return Case(f"slice_{name}", description, RESTORE + "t", code, sliced(halves, pieces))

    doubles = bytes_field(7, slice_proto([(0, 1)]))
    return [
        *geometry_cases(),
        Case("slices_sound", "two halves", ACCEPTED, None, sliced(halves), value=T_DATA),
        Case("slices_reversed", "two halves, the second one first", ACCEPTED, None, sliced(halves[::-1]),
             value=T_DATA),
        # TensorFlow takes it for an ordinary tensor then, and looks at the full entry's own offset.
        Case("slices_whole_dimension", "one slice that is the whole dimension", ANY, DATA_LOSS,
             sliced([[None]], {(None,): t_entry()}), or_accepted=True, value=T_DATA),
        Case("slices_entry_fields_ignored", "a sliced tensor with an absurd offset, size and checksum of its own",
             ACCEPTED, None, sliced(halves, shard_id=7, offset=MAX, size=MAX, crc=0x1234), value=T_DATA),
        Case("slices_gap", "one element is in no slice", RESTORE + "t", "INVALID_ARGUMENT",
             sliced([[(0, 2)], [(2, 1)]], {((0, 2),): piece(0, 2), ((2, 1),): piece(2, 1)}), listing=SOUND),
        Case("slices_of_scalar", "a scalar with a slice of rank 0", ANY, DATA_LOSS,
             sliced([[]], {(): t_entry(shape=[], size=4, crc=crc32c(T_DATA[:4]))}, shape=[]),
             or_accepted=True, value=T_DATA[:4]),
        Case("slices_huge_shape", "full shape [2^60], of which two halves of [4] are stored", RESTORE + "t",
             "INVALID_ARGUMENT", sliced(halves, shape=[1 << 60])),
        second_half("missing", "the entry of the second slice is not there", None),
        second_half("other_dtype", "the second slice is int32, the tensor float", piece(2, 2, dtype=3)),
        second_half("other_shape", "the second slice has 1 element, its key says 2",
                    piece(2, 2, shape=[1], size=4, crc=crc32c(T_DATA[8:12]))),
        second_half("other_rank", "the second slice is a matrix", piece(2, 2, shape=[2, 1])),
        second_half("sliced_itself", "the second slice has slices of its own", piece(2, 2) + doubles),
        second_half("not_a_message", "the entry of the second slice is no message", b"\xff" * 10),
        second_half("dim_negative", "the second slice has dimension -2", piece(2, 2, shape=[-2])),
        second_half("shard_9", "the second slice is in shard 9 of 1", piece(2, 2, shard_id=9)),
        second_half("size_wrong", "the second slice has 12 bytes", piece(2, 2, size=12)),
        second_half("offset_minus_8", "the second slice has offset -8", piece(2, 2, offset=-8)),
        second_half("past_end", "the second slice reaches past the data file", piece(2, 2, offset=20),
                    "OUT_OF_RANGE"),
        second_half("crc_wrong", "the second slice has another checksum", piece(2, 2, crc=0x1234)),
    ]


def cases() -> list[Case]:
    return [*header_cases(), *message_cases(), *shape_cases(), *field_cases(), *key_cases(), *slice_cases()]
