"""Damage to the table: file, footer, handles, index block, data blocks, Snappy."""

from __future__ import annotations

import struct

from base import (ACCEPTED, ANY, Case, DATA_LOSS, HEADER, LIST, OK, OPEN, Row, SOUND_INDEX, T_DATA, one_block,
                  t_entry)
from writers import (Block, Handle, block, block_entry, block_of, handle_bytes, index_block, int_field,
                     bytes_field, snappy, snappy_copy, snappy_literal, table, varint)

ROWS: list[Row] = [HEADER, OK, (b"t", t_entry())]
DATA_BLOCK = one_block(ROWS)
SIZE = len(SOUND_INDEX)
HUGE: dict[str, Handle] = {
    "size_2_40": (0, 1 << 40),
    "size_2_63_less_1": (0, (1 << 63) - 1),
    "size_2_64_less_6": (0, (1 << 64) - 6),
    "size_2_64_less_1": (0, (1 << 64) - 1),
    "offset_plus_size_wraps": ((1 << 64) - 64, 64),
    "offset_past_end": (1 << 20, 16),
    "offset_2_63": (1 << 63, 16),
}


def opening(case: str, description: str, index: bytes | None, **more: object) -> Case:
    return Case(case, description, OPEN, DATA_LOSS, index, **more)


def flipped(at: int) -> bytes:
    """The sound index with the lowest bit of one byte changed."""
    at %= SIZE
    return SOUND_INDEX[:at] + bytes([SOUND_INDEX[at] ^ 1]) + SOUND_INDEX[at + 1:]


def file_cases() -> list[Case]:
    sound = SOUND_INDEX
    v1_meta = bytes_field(1, bytes_field(1, bytes_field(1, b"x") + int_field(3, 1)))
    return [
        Case("index_missing", "no index file, only data", OPEN, "NOT_FOUND", None),
        Case("index_is_directory", "the index file is a folder", OPEN, "FAILED_PRECONDITION", None,
             files={"m.index/": b""}),
        opening("index_empty", "index file of 0 bytes", b""),
        opening("index_short", "one byte less than a footer", sound[-47:]),
        opening("index_only_footer", "nothing but a sound footer", sound[-48:]),
        opening("index_zeros", "1024 zero bytes", bytes(1024)),
        opening("index_text", "a text file", b"this is no table, but it is longer than a footer is\n" * 3),
        opening("index_bad_magic", "last byte of the magic number changed", flipped(-1)),
        opening("index_first_bytes_missing", "7 bytes cut from the front", sound[7:]),
        opening("index_last_byte_missing", "1 byte cut from the end", sound[:-1]),
        opening("index_half", "the second half missing", sound[:SIZE // 2]),
        opening("index_byte_appended", "one byte after the footer", sound + b"\0"),
        opening("index_of_v1", "a checkpoint in the V1 format under the name of an index",
                table([one_block([(b"", v1_meta)])])),
    ]


def bit_cases() -> list[Case]:
    data_end = len(DATA_BLOCK.body)
    metaindex = data_end + 5
    index = metaindex + 8 + 5
    places = {
        "header_value": (4, "the header's value"),
        "entry_key": (SOUND_INDEX.index(b"ok"), "the key of an entry"),
        "entry_value": (SOUND_INDEX.index(b"ok") + 4, "the value of an entry"),
        "restarts": (data_end - 8, "the restart array of the data block"),
        "restart_count": (data_end - 4, "the restart count of the data block"),
        "block_type": (data_end, "the compression type of the data block"),
        "block_crc": (data_end + 1, "the checksum of the data block"),
        "metaindex": (metaindex, "the metaindex block"),
        "metaindex_crc": (metaindex + 9, "the checksum of the metaindex block"),
        "index_key": (index + 3, "a key of the index block"),
        "index_handle": (index + 6, "a handle in the index block"),
        "index_crc": (SIZE - 48 - 1, "the checksum of the index block"),
        "footer_metaindex_handle": (SIZE - 48, "the metaindex handle in the footer"),
        "footer_index_handle": (SIZE - 48 + 3, "the index handle in the footer"),
        "footer_padding": (SIZE - 9, "the padding of the footer"),
        "footer_magic": (SIZE - 8, "the magic number"),
    }
    return [opening(f"bit_{name}", f"one bit changed in {what}", flipped(at)) for name, (at, what) in places.items()]


def footer_cases() -> list[Case]:
    cases = []
    for name, handle in HUGE.items():
        text = f"offset {handle[0]}, size {handle[1]}"
        cases.append(opening(f"footer_index_{name}", f"index handle in the footer: {text}",
                             table([DATA_BLOCK], index_handle=handle)))
    for name in ("size_2_40", "size_2_64_less_1", "offset_plus_size_wraps"):
        handle = HUGE[name]
        cases.append(opening(f"footer_metaindex_{name}",
                             f"metaindex handle in the footer: offset {handle[0]}, size {handle[1]}",
                             table([DATA_BLOCK], metaindex_handle=handle)))
    overlong = SOUND_INDEX[:-48] + b"\xff" * 40 + SOUND_INDEX[-8:]
    return cases + [
        opening("footer_index_size_zero", "index handle of size 0", table([DATA_BLOCK], index_handle=(0, 0))),
        opening("footer_index_handle_is_data", "the index handle names the data block",
                table([DATA_BLOCK], index_handle=(0, len(DATA_BLOCK.body)))),
        opening("footer_varint_endless", "handles without an end", overlong),
        opening("footer_padding_nonzero", "padding of 0xaa bytes (TensorFlow does not look)",
                table([DATA_BLOCK], padding=0xAA)),
        opening("metaindex_restart_count_huge", "metaindex block with 2^32-1 restarts and a valid checksum",
                table([DATA_BLOCK], metaindex=Block(block_of(b"", restart_count=(1 << 32) - 1)))),
        opening("metaindex_type_2", "metaindex block of unknown type with a valid checksum",
                table([DATA_BLOCK], metaindex=Block(block_of(b""), type=2))),
    ]


def index_block_cases() -> list[Case]:
    rows = [(b"u", handle_bytes((0, len(DATA_BLOCK.body))))]
    body = index_block(rows)

    def with_index(index: Block) -> bytes:
        return table([DATA_BLOCK], index=index)

    cases = [
        opening(f"index_block_type_{number}", f"index block of type {number} with a valid checksum",
                with_index(Block(body, type=number))) for number in (2, 255)
    ]
    cases += [
        opening(f"index_block_handle_{name}", f"handle of the only data block: offset {handle[0]}, size {handle[1]}",
                table([DATA_BLOCK.damaged(handle=handle)])) for name, handle in HUGE.items()
    ]
    cases += [
        opening("index_block_restart_count_huge", "index block with 2^32-1 restarts",
                with_index(Block(body[:-4] + b"\xff" * 4))),
        opening("index_block_restart_count_zero", "index block with 0 restarts",
                with_index(Block(body[:-4] + bytes(4)))),
        opening("index_block_3_bytes", "index block too short for a restart count", with_index(Block(b"\1\0\0"))),
        opening("index_block_empty", "index block without entries", with_index(Block(block_of(b"")))),
        opening("index_block_handle_empty", "an entry of the index block with an empty value",
                with_index(Block(index_block([(b"u", b"")])))),
        opening("index_block_handle_endless", "an entry of the index block whose handle has no end",
                with_index(Block(index_block([(b"u", b"\xff" * 12)])))),
        opening("index_block_shared_first", "the first entry of the index block shares 3 bytes with nothing",
                with_index(Block(block_of(block_entry(b"u", rows[0][1], shared=3))))),
        opening("index_block_value_past_block", "an entry of the index block is longer than the block",
                with_index(Block(block_of(block_entry(b"u", rows[0][1], value_size=200))))),
        opening("index_block_snappy_garbage", "index block of type 1 that is no Snappy",
                with_index(Block(b"\xff\xff\xff\xff\x0fgarbage", type=1))),
        Case("index_block_handle_trailing", "a handle in the index block is followed by 2 more bytes", ANY, DATA_LOSS,
             with_index(Block(index_block([(b"u", rows[0][1] + b"\0\0")]))), or_accepted=True, value=T_DATA),
    ]
    return cases


def data_block_cases() -> list[Case]:
    body = DATA_BLOCK.body
    rows = b"".join(block_entry(key, value) for key, value in ROWS[:2])
    t_value = t_entry()

    def with_body(damaged: bytes) -> bytes:
        return table([DATA_BLOCK.damaged(body=damaged)])

    def last(**lies: int) -> bytes:
        """The block with a last entry `t` whose lengths lie."""
        return with_body(block_of(rows + block_entry(b"t", t_value, **lies)))

    def either(case: str, description: str, index: bytes, **more: object) -> Case:
        return Case(case, description, ANY, DATA_LOSS, index, **more)

    return [
        *(opening(f"block_type_{number}", f"data block of type {number} with a valid checksum",
                  table([DATA_BLOCK.damaged(type=number)])) for number in (2, 255)),
        opening("block_crc_wrong", "data block with another checksum", table([DATA_BLOCK.damaged(crc_xor=0x1000)])),
        opening("block_restart_count_huge", "data block with 2^32-1 restarts", with_body(body[:-4] + b"\xff" * 4)),
        opening("block_restart_count_wraps", "data block with 2^30 restarts: 4 times that is 0 in 32 bits",
                with_body(body[:-4] + struct.pack("<I", 1 << 30))),
        opening("block_restart_count_zero", "data block with 0 restarts", with_body(body[:-4] + bytes(4))),
        opening("block_3_bytes", "data block too short for a restart count", with_body(b"\1\0\0")),
        opening("block_handle_one_less", "the handle of the data block is 1 byte too small",
                table([DATA_BLOCK.damaged(handle=(0, len(body) - 1))])),
        opening("block_header_shared", "the first entry shares 1 byte with nothing",
                with_body(block_of(block_entry(b"", HEADER[1], shared=1) + rows[3 + len(HEADER[1]):]))),
        opening("block_header_value_past_block", "the header's value is longer than the block",
                with_body(block_of(block_entry(b"", HEADER[1], value_size=1 << 20)))),
        either("block_restart_past_block", "the restart point is behind the block", with_body(
            body[:-8] + struct.pack("<2I", 1 << 20, 1)), key="t", or_accepted=True, value=T_DATA),
        either("entry_shared_past_key", "an entry shares 9 bytes with a key of 2", last(shared=9)),
        either("entry_unshared_past_block", "an entry's key is longer than the block", last(unshared=1 << 16)),
        either("entry_unshared_2_32_less_1", "an entry's key has 2^32-1 bytes", last(unshared=(1 << 32) - 1)),
        either("entry_value_past_block", "an entry's value is longer than the block", last(value_size=1 << 16)),
        either("entry_lengths_wrap", "key and value sizes add up to 2^32", last(
            unshared=1, value_size=(1 << 32) - 1)),
        either("entry_lengths_endless", "the lengths of an entry have no end",
               with_body(block_of(rows + b"\xff" * 30))),
        either("entry_cut", "the block ends inside the lengths of an entry", with_body(block_of(rows + b"\0"))),
        either("keys_out_of_order", "`t` stands before `ok`",
               table([one_block([HEADER, ROWS[2], OK]).damaged(index_key=b"z")])),
        either("key_twice", "`t` stands there twice, with equal values", table([one_block([*ROWS, ROWS[2]])]),
               or_accepted=True, value=T_DATA),
    ]


def many_blocks(*damage: tuple[int, dict[str, object]]) -> bytes:
    """Three data blocks: header and `ok`; `s` and `t`; `u` and `v`. All but `ok` name the data of `t`."""
    value = t_entry()
    blocks = [one_block([HEADER, OK]), one_block([(b"s", value), (b"t", value)]),
              one_block([(b"u", value), (b"v", value)])]
    for at, changes in damage:
        blocks[at] = blocks[at].damaged(**changes)
    return table(blocks)


def many_block_cases() -> list[Case]:
    value = t_entry()

    def listing(case: str, description: str, changes: dict[str, object], at: int = 1, key: str = "t") -> Case:
        return Case(case, description, LIST, DATA_LOSS, many_blocks((at, changes)), key=key)

    unordered = block([(b"t", value), (b"s", value)], share=False)
    sound = Case("many_blocks_sound", "three data blocks, nothing damaged", ACCEPTED, None, many_blocks(),
                 value=T_DATA)
    return [
        sound,
        opening("many_blocks_first_crc", "the first of three data blocks has another checksum",
                many_blocks((0, {"crc_xor": 1}))),
        listing("many_blocks_middle_crc", "the second of three data blocks has another checksum", {"crc_xor": 1}),
        listing("many_blocks_last_crc", "the last of three data blocks has another checksum", {"crc_xor": 1}, 2, "v"),
        listing("many_blocks_middle_type_255", "the second data block is of type 255", {"type": 255}),
        listing("many_blocks_middle_snappy", "the second data block is of type 1 and no Snappy",
                {"type": 1, "body": b"\xff\xff\xff\xff\x0fgarbage"}),
        opening("many_blocks_middle_handle_huge", "the handle of the second data block is 2^63-1 bytes large",
                many_blocks((1, {"handle": HUGE["size_2_63_less_1"]}))),
        listing("many_blocks_middle_restarts_huge", "the second data block has 2^32-1 restarts",
                {"body": block_of(b"", restart_count=(1 << 32) - 1)}),
        listing("many_blocks_middle_restarts_zero", "the second data block has 0 restarts",
                {"body": block_of(block_entry(b"t", value), restarts=(), restart_count=0)}),
        listing("many_blocks_middle_entry", "an entry of the second data block is longer than the block",
                {"body": block_of(block_entry(b"s", value) + block_entry(b"t", value, value_size=999))}),
        Case("many_blocks_keys_out_of_order", "the second data block has its keys in the wrong order", ANY, DATA_LOSS,
             many_blocks((1, {"body": unordered})), key="s"),
        Case("many_blocks_out_of_order", "the second and third data block stand in the wrong order in the index", ANY,
             DATA_LOSS, table([one_block([HEADER, OK]), one_block([(b"u", value)]), one_block([(b"t", value)])])),
        listing("many_blocks_middle_empty", "the second data block has a checksum, but no entries",
                {"body": block_of(b"")}),
    ]


def snappy_cases() -> list[Case]:
    body = DATA_BLOCK.body
    packed = snappy(body)
    assert snappy_copy(1, 3) in packed, "the sound case must contain a copy"

    def with_body(damaged: bytes) -> bytes:
        return table([DATA_BLOCK.damaged(body=damaged, type=1)])

    size = varint(len(body))
    start = snappy_literal(body[:4])
    index = index_block([(b"u", handle_bytes((0, len(body))))])
    return [
        Case("snappy_data_block", "data block in sound Snappy, with copies that overlap", ACCEPTED, None,
             with_body(packed), value=T_DATA),
        Case("snappy_index_block", "index block in sound Snappy", ACCEPTED, None,
             table([DATA_BLOCK], index=Block(snappy(index), type=1)), value=T_DATA),
        opening("snappy_garbage", "type 1, but random bytes", with_body(bytes(range(200, 256)))),
        opening("snappy_empty", "type 1 and 0 bytes", with_body(b"")),
        opening("snappy_copy_offset_zero", "a copy from 0 bytes back", with_body(size + start + snappy_copy(0, 60))),
        opening("snappy_copy_before_start", "a copy from before the start",
                with_body(size + start + snappy_copy(5, 60))),
        opening("snappy_literal_past_end", "a literal of 60 bytes where 4 are left",
                with_body(size + bytes([59 << 2]) + body[:4])),
        opening("snappy_length_bomb", "claims to unpack to 2^32-1 bytes", with_body(varint((1 << 32) - 1) + start)),
        opening("snappy_length_endless", "the length has no end", with_body(b"\xff" * 12)),
        opening("snappy_longer_than_said", "unpacks to more than it says", with_body(varint(4) + packed[len(size):])),
        opening("snappy_shorter_than_said", "unpacks to less than it says",
                with_body(varint(len(body) + 1) + packed[len(size):])),
    ]


def cases() -> list[Case]:
    return [*file_cases(), *bit_cases(), *footer_cases(), *index_block_cases(), *data_block_cases(),
            *many_block_cases(), *snappy_cases()]
