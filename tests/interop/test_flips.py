"""One bit flipped anywhere, or a file cut anywhere: an error, never a wrong value, never a crash."""

from __future__ import annotations

import pathlib
import random
from collections.abc import Iterator

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, Reader, Request
from values import part, same_bits, tensor

HONEST = {"DATA_LOSS", "OUT_OF_RANGE", "INVALID_ARGUMENT", "UNIMPLEMENTED", "NOT_FOUND"}
FULL = tensor(1, (4, 3))
TENSORS = {
    "f": tensor(1, (3, 2)),
    "s": np.array([b"ab", b"", b"\x80" * 130], object),
    "e": tensor(2, (0, 3)),
    "b": tensor(10, (5,)),
    "step": np.array(7, np.int64),
    "p": FULL,
}
REQUESTS = [Request(key, value.dtype, value.shape) for key, value in TENSORS.items()]


@pytest.fixture
def saved(prefix: str) -> str:
    """A small checkpoint of TensorFlow with every kind of entry; ours has the same bytes."""
    whole = [(key, value) for key, value in TENSORS.items() if key != "p"]
    tensorflow_side.save(prefix, [*whole, ("p", part(FULL, "0,1:-")), ("p", part(FULL, "1,3:-"))])
    return prefix


def restore_all_wanted(prefix: str) -> None:
    """Restores everything; a wrong value is a failed test, an error is an exception."""
    for value, wanted in zip(tfckpt.restore(prefix, REQUESTS), TENSORS.values()):
        assert same_bits(value, wanted), "a wrong value was restored without an error"


def list_and_verify(prefix: str) -> list[CheckpointError]:
    """What a listing and a verification find; opening may fail."""
    found: list[CheckpointError] = []
    try:
        with Reader(prefix) as reader:
            found += [wrong(e) for e in reader.entries() if e.code != 0]
            found += reader.verify()
    except CheckpointError as error:
        found.append(error)
    return found


def wrong(entry: tfckpt.Entry) -> CheckpointError:
    """A bad entry as the error that it stands for."""
    return CheckpointError(entry.code, entry.message or "", -1, entry.key, None, -1)


def assert_found(prefix: str, what: str) -> None:
    """Fails unless restoring and verifying both report honest errors."""
    with pytest.raises(CheckpointError) as failure:
        restore_all_wanted(prefix)
        pytest.fail(f"{what}: restored without an error")
    assert failure.value.code_name in HONEST, f"{what}: {failure.value}"
    found = list_and_verify(prefix)
    assert found, f"{what}: verify found nothing"
    assert all(error.code_name in HONEST for error in found), f"{what}: {found}"


def damaged_copies(file: pathlib.Path, positions: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Writes the file again and again with one bit flipped, and at the end as it was."""
    sound = file.read_bytes()
    try:
        for at, bit in positions:
            broken = bytearray(sound)
            broken[at] ^= 1 << bit
            file.write_bytes(broken)
            yield at, bit
    finally:
        file.write_bytes(sound)


def test_the_sound_checkpoint_is_restored(saved: str) -> None:
    restore_all_wanted(saved)
    assert list_and_verify(saved) == []


def test_every_flipped_bit_of_the_index_is_found(saved: str) -> None:
    index = table_file.index_file(saved)
    positions = [(at, bit) for at in range(index.stat().st_size) for bit in range(8)]
    for at, bit in damaged_copies(index, positions):
        assert_found(saved, f"bit {bit} of byte {at} of the index flipped")


def test_every_flipped_bit_of_the_data_is_found(saved: str) -> None:
    data = table_file.data_file(saved)
    positions = [(at, bit) for at in range(data.stat().st_size) for bit in range(8)]
    for at, bit in damaged_copies(data, positions):
        assert_found(saved, f"bit {bit} of byte {at} of the data flipped")


@pytest.mark.parametrize("which", ["index", "data"])
def test_a_file_cut_at_every_length_is_found(which: str, saved: str) -> None:
    file = table_file.index_file(saved) if which == "index" else table_file.data_file(saved)
    sound = file.read_bytes()
    for keep in range(len(sound)):
        file.write_bytes(sound[:keep])
        assert_found(saved, f"{which} cut to {keep} of {len(sound)} bytes")


@pytest.mark.parametrize("which", ["index", "data"])
def test_several_random_bytes_at_once_are_found(which: str, saved: str) -> None:
    file = table_file.index_file(saved) if which == "index" else table_file.data_file(saved)
    sound, rng = file.read_bytes(), random.Random(20261121)
    for _ in range(500):
        broken = bytearray(sound)
        for _ in range(rng.randrange(2, 9)):
            broken[rng.randrange(len(broken))] = rng.randrange(256)
        if broken == sound:
            continue
        file.write_bytes(broken)
        assert_found(saved, f"{which} is {broken.hex()}")


def resealed(prefix: str, at: int, bit: int, entries: dict[bytes, bytes]) -> None:
    """Writes an index whose checksums are right and in which one bit of one value is not."""
    changed, position = dict(entries), at
    for key, value in entries.items():
        if position < len(value):
            changed[key] = value[:position] + bytes([value[position] ^ 1 << bit]) + value[position + 1 :]
            break
        position -= len(value)
    table_file.index_file(prefix).write_bytes(table_file.write_table(sorted(changed.items())))


def test_flipped_bits_under_right_block_checksums_never_give_wrong_values(saved: str) -> None:
    """The entries' own fields are then all that speaks: an error, or the values as they were."""
    entries = dict(table_file.read_table(table_file.index_file(saved).read_bytes()))
    rng = random.Random(7)
    for at in range(sum(map(len, entries.values()))):
        resealed(saved, at, rng.randrange(8), entries)
        try:
            restore_all_wanted(saved)
        except CheckpointError as error:
            assert error.code_name in HONEST | {"INTERNAL"}, (at, error)
        for error in list_and_verify(saved):
            assert error.code_name in HONEST | {"INTERNAL"}, (at, error)
