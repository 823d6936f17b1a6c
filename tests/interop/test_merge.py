"""Parts of several processes, merged by us and by TensorFlow's MergeV2Checkpoints: equal files and errors."""

from __future__ import annotations

import pathlib
import random
import shutil
from collections.abc import Callable

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from errors import assert_same_error, our_error
from tfckpt import Tensors
from values import ALL_DTYPES, assert_same, assert_same_files, assert_same_tensors, files, part, tensor

Save = Callable[[str, Tensors], None]
SAVERS: dict[str, Save] = {"our parts": tfckpt.save, "their parts": tensorflow_side.save}


@pytest.fixture
def folders(tmp_path: pathlib.Path) -> tuple[pathlib.Path, pathlib.Path]:
    """Two folders: one for our merge and one, not there yet, for TensorFlow's."""
    (tmp_path / "ours").mkdir()
    return tmp_path / "ours", tmp_path / "theirs"


def assert_same_merge(folders: tuple[pathlib.Path, pathlib.Path], parts: list[str]) -> str:
    """Merges the same parts with both and compares what is left; returns the merged prefix."""
    ours, theirs = folders
    shutil.copytree(ours, theirs)
    tfckpt.merge([str(ours / name) for name in parts], str(ours / "m"))
    tensorflow_side.merge([str(theirs / name) for name in parts], str(theirs / "m"))
    assert_same_files(str(ours / "m"), str(theirs / "m"))
    left = [sorted(str(path.relative_to(dir)) for path in dir.rglob("*")) for dir in folders]
    assert left[0] == left[1]
    return str(ours / "m")


def cuts(rng: random.Random, rows: int) -> list[str]:
    """Slices that make up `rows` rows."""
    points = [0, *sorted(rng.sample(range(1, rows), rng.randint(1, rows - 1))), rows]
    return [f"{start},{end - start}:-" for start, end in zip(points, points[1:])]


def random_parts(rng: random.Random, num_parts: int) -> tuple[list[list], dict[str, np.ndarray]]:
    """Tensors and slices dealt out to the parts, none of which stays empty; and the whole tensors."""
    parts: list[list] = [[(f"own/{i}", tensor(3, (2,), i))] for i in range(num_parts)]
    whole = {key: value for some in parts for key, value in some}
    for number in range(rng.randint(0, 30)):
        key = rng.choice(["a", "b/", "z", "\x01", "ä"]) + str(rng.randrange(1000)) + f"-{number}"
        value = tensor(rng.choice(ALL_DTYPES), rng.choice([(), (3,), (2, 0), (4, 5)]), number)
        whole[key] = value
        rng.choice(parts).append((key, value))
    for number in range(rng.randint(0, 4)):
        full = tensor(1, (rng.randint(2, 9), 3), number)
        whole[f"part_{number}"] = full
        for spec in cuts(rng, full.shape[0]):
            rng.choice(parts).append((f"part_{number}", part(full, spec)))
    for some in parts:
        rng.shuffle(some)
    return parts, whole


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("seed", range(15))
def test_random_parts(seed: int, save: Save, folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    rng = random.Random(seed)
    parts, whole = random_parts(rng, rng.randint(1, 9))
    names = [f"t{i % 2}/p{i}" for i in range(len(parts))]
    for folder in ("t0", "t1"):
        (folders[0] / folder).mkdir()
    for name, some in zip(names, parts):
        save(str(folders[0] / name), some)
    rng.shuffle(names)
    merged = assert_same_merge(folders, names)
    assert_same_tensors(tfckpt.restore_all(merged), whole)
    partial = [key for key in whole if key.startswith(("part_", "own/"))]
    requests = [tfckpt.Request(key, whole[key].dtype, whole[key].shape) for key in partial]
    for request, value in zip(requests, tensorflow_side.restore(merged, requests)):
        assert_same(value, whole[request.key], request.key)


@pytest.mark.parametrize("save", SAVERS.values(), ids=SAVERS)
@pytest.mark.parametrize("seed", range(8))
def test_what_was_merged_is_merged_again(
    seed: int, save: Save, folders: tuple[pathlib.Path, pathlib.Path]
) -> None:
    rng = random.Random(1000 + seed)
    parts, whole = random_parts(rng, 5)
    names = [str(folders[0] / f"p{i}") for i in range(5)]
    for name, some in zip(names, parts):
        save(name, some)
    merge = tfckpt.merge if seed % 2 else tensorflow_side.merge
    merge([names[3], names[1], names[4]], str(folders[0] / "three"))
    order = ["p0", "three", "p2"]
    rng.shuffle(order)
    merged = assert_same_merge(folders, order)
    assert_same_tensors(tfckpt.restore_all(merged), whole)


def test_the_example_of_two_shards_with_slices(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    full, other = tensor(1, (4, 2)), tensor(1, (4, 6))
    a, b = np.float32(1), np.float32(2)
    tfckpt.save(str(folders[0] / "p0"), [("a", np.array(a)), ("part", part(full, "0,2:-"))])
    tensors = [("b", np.array(b)), ("part", part(full, "2,2:-")), ("q", part(other, "0,1:-"))]
    tfckpt.save(str(folders[0] / "p1"), tensors)
    merged = assert_same_merge(folders, ["p0", "p1"])
    # The shard of the part that brought it in, which has no meaning.
    assert table_file.read_entry(merged, b"q").shard_id == 1
    assert table_file.read_entry(merged, b"part").shard_id == 0


def test_an_index_of_several_blocks(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    keys = [f"layer_{i * 7919 % 6000:05}/" + "long_name/" * 15 + "kernel" for i in range(6000)]
    for shard in range(3):
        mine = {key: np.array(i, np.int32) for i, key in enumerate(keys) if i % 3 == shard}
        tfckpt.save(str(folders[0] / f"p{shard}"), mine)
    merged = assert_same_merge(folders, ["p2", "p0", "p1"])
    assert len(table_file.index_handles(table_file.index_file(merged).read_bytes())) > 3


def test_big_endian_parts(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    for name in ("p0", "p1"):
        tensorflow_side.save(str(folders[0] / name), {name: tensor(4, (3,))})
        table_file.edit_header(str(folders[0] / name), lambda header: setattr(header, "endianness", 1))
    merged = assert_same_merge(folders, ["p0", "p1"])
    assert dict(table_file.read_table(table_file.index_file(merged).read_bytes()))[b""][2:4] == b"\x10\x01"


def test_a_save_by_processes_equals_a_sharded_save(prefix: str, other_prefix: str) -> None:
    tensors = [(f"v{i}", part(tensor(1, (2, 2), i), "-:-", f"/device:CPU:{i % 3}")) for i in range(7)]
    saved = [
        tfckpt.save_shard(prefix, shard, 3, [pair for i, pair in enumerate(tensors) if i % 3 == shard])
        for shard in range(3)
    ]
    assert saved == [f"{prefix}_temp/part-{shard:05}-of-00003" for shard in range(3)]
    tfckpt.merge(saved, prefix)
    tensorflow_side.save_by_device(other_prefix, tensors)
    assert_same_files(prefix, other_prefix)
    assert not pathlib.Path(f"{prefix}_temp").exists()


def test_a_checkpoint_is_overwritten(folders: tuple[pathlib.Path, pathlib.Path]) -> None:
    for names in (["p0", "p1"], ["p1", "p0", "p2"]):
        shutil.rmtree(folders[1], ignore_errors=True)
        for number, name in enumerate(names):
            tensorflow_side.save(str(folders[0] / name), {name: tensor(1, (number + 1,))})
        assert_same_merge(folders, names)


def test_parts_that_are_not_there_are_left_out_on_request(
    folders: tuple[pathlib.Path, pathlib.Path],
) -> None:
    ours, theirs = folders
    for name in ("p0", "p2"):
        tfckpt.save(str(ours / name), {name: tensor(1, (2,))})
    shutil.copytree(ours, theirs)
    names = ["p0", "p1", "p2"]
    tfckpt.merge([str(ours / name) for name in names], str(ours / "m"), allow_missing_files=1)
    tensorflow_side.merge(
        [str(theirs / name) for name in names], str(theirs / "m"), allow_missing_files=True
    )
    assert_same_files(str(ours / "m"), str(theirs / "m"))


# ---- differences ----


def test_a_part_without_tensors_adds_nothing(prefix: str) -> None:
    """TensorFlow counts its shard and not its file; nobody can read what it makes of it."""
    tensors = {"x": tensor(1, (3,)), "y": tensor(1, (2,))}
    parts = [
        tfckpt.save_shard(prefix, shard, 3, some, "id")
        for shard, some in enumerate([{"x": tensors["x"]}, {}, {"y": tensors["y"]}])
    ]
    with pytest.raises(tfckpt.CheckpointError):
        tfckpt.merge([parts[1]], prefix)
    tfckpt.merge(parts, prefix)
    assert list(files(prefix)) == [".data-00000-of-00002", ".data-00001-of-00002", ".index"]
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)
    requests = [tfckpt.Request(key, value.dtype, value.shape) for key, value in tensors.items()]
    for value, restored in zip(tensors.values(), tensorflow_side.restore(prefix, requests)):
        assert_same(restored, value)


def test_theirs_of_a_part_without_tensors_cannot_be_read(prefix: str) -> None:
    parts = [tfckpt.save_shard(prefix, i, 2, some) for i, some in enumerate([{"x": tensor(1, (3,))}, {}])]
    tensorflow_side.merge(parts, prefix)
    assert our_error(lambda: tfckpt.restore_all(prefix)).code_name == "NOT_FOUND"


def test_slices_that_overlap_or_disagree_are_refused(prefix: str, tmp_path: pathlib.Path) -> None:
    full = tensor(1, (4, 6))
    parts = [str(tmp_path / name) for name in ("p0", "p1")]
    tfckpt.save(parts[0], {"x": part(full, "0,2:-")})
    for spec, of in [("1,2:-", full), ("0,2:-", tensor(1, (4, 5))), ("2,2:-", tensor(3, (4, 6)))]:
        tfckpt.save(parts[1], {"x": part(of, spec)})
        error = our_error(lambda: tfckpt.merge(parts, prefix))
        # Of two slices with the same numbers, whose keys sort first, TensorFlow has a text.
        assert error.code_name == "INVALID_ARGUMENT"
        assert len(list(tmp_path.glob("p*"))) == 4


# ---- errors ----


@pytest.fixture
def parts(tmp_path: pathlib.Path) -> list[str]:
    """Two sound parts."""
    (tmp_path / "t").mkdir()
    names = [str(tmp_path / "t" / name) for name in ("p0", "p1")]
    for number, name in enumerate(names):
        tfckpt.save(name, {f"v{number}": tensor(1, (2,), number)})
    return names


def assert_same_failure(parts: list[str], prefix: str, **options: bool) -> tfckpt.CheckpointError:
    """The same error from both, ours first; ours leaves everything as it was."""
    folder = pathlib.Path(prefix).parent

    def contents() -> dict[str, bytes]:
        return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}

    before = contents()
    ours = our_error(lambda: tfckpt.merge(parts, prefix, **options))
    assert contents() == before
    assert_same_error(
        lambda: tensorflow_side.merge(parts, prefix, **options), lambda: raise_again(ours)
    )
    return ours


def raise_again(error: tfckpt.CheckpointError) -> None:
    """The error."""
    raise error


def test_no_parts(prefix: str, parts: list[str]) -> None:
    missing = [f"{parts[0]}-no", f"{parts[0]}-more"]
    assert_same_failure([], prefix)
    assert_same_failure(missing, prefix, allow_missing_files=True)


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_part_that_is_not_there(place: int, prefix: str, parts: list[str]) -> None:
    missing = f"{parts[0]}-no"
    error = assert_same_failure([*parts[:place], missing, *parts[place:]], prefix)
    assert error.message.startswith(f"allow_missing_files was set to false and {missing} did not exist.")


def test_a_tensor_of_two_parts(prefix: str, parts: list[str]) -> None:
    other = parts[0] + "-other"
    tfckpt.save(other, {"a": tensor(1, ()), "v1": tensor(1, ()), "v0": tensor(1, ())})
    error = assert_same_failure([*parts, other], prefix)
    assert (error.code_name, error.key) == ("INVALID_ARGUMENT", b"v0")
    # The first in the order of the parts, not of the keys.
    tfckpt.save(other, {"v1": tensor(1, ())})
    error = assert_same_failure([parts[1], other, parts[0], parts[0]], prefix)
    assert error.key == b"v1"
    # Before a part that is missing further on.
    assert_same_failure([*parts, other, other + "-no"], prefix)


def test_a_tensor_whole_and_in_slices(prefix: str, parts: list[str]) -> None:
    full = tensor(1, (4, 2))
    tfckpt.save(parts[0], {"x": full})
    tfckpt.save(parts[1], {"x": part(full, "0,2:-")})
    assert assert_same_failure(parts, prefix).code_name == "INVALID_ARGUMENT"
    assert assert_same_failure(parts[::-1], prefix).code_name == "INTERNAL"


def test_one_slice_twice(prefix: str, parts: list[str]) -> None:
    for name in parts:
        tfckpt.save(name, {"x": part(tensor(1, (4, 2)), "0,2:-")})
    error = our_error(lambda: tfckpt.merge(parts, prefix))
    # TensorFlow's text ends at the first byte of the key, which is 0.
    assert error.message.startswith("Duplicate tensor keyed by \\0x\\0")
    assert error.code_name == "INVALID_ARGUMENT"


def test_headers_that_disagree(prefix: str, parts: list[str]) -> None:
    def big_endian(header: table_file.BundleHeader) -> None:
        header.endianness = 1

    def older(header: table_file.BundleHeader) -> None:
        header.endianness = 0
        header.version.producer = 0
        header.version.bad_consumers.append(77)

    table_file.edit_header(parts[1], big_endian)
    error = assert_same_failure(parts, prefix)
    assert error.message.startswith("Merging bundles with conflicting endianness; inputs corrupted?")
    table_file.edit_header(parts[1], older)
    error = assert_same_failure(parts, prefix)
    assert error.message.startswith("Merging bundles with different format versions: merged ")


def test_a_part_without_its_data_file(prefix: str, parts: list[str]) -> None:
    """TensorFlow has moved the other part's file by then."""
    missing = table_file.data_file(parts[1])
    missing.unlink()
    error = assert_same_failure(parts, prefix)
    assert (error.code_name, error.file) == ("NOT_FOUND", str(missing))


def test_a_damaged_part(prefix: str, parts: list[str]) -> None:
    index = table_file.index_file(parts[1])
    sound = index.read_bytes()
    index.write_bytes(b"short")
    assert_same_failure(parts, prefix)
    # A bit that is wrong in a block: theirs is without these tensors.
    index.write_bytes(sound[:20] + bytes([sound[20] ^ 4]) + sound[21:])
    assert our_error(lambda: tfckpt.merge(parts, prefix)).code_name == "DATA_LOSS"
    # An entry that is none.
    index.write_bytes(table_file.write_table([*table_file.read_table(sound), (b"z", b"\xff")]))
    error = assert_same_failure(parts, prefix)
    assert (error.code_name, error.key) == ("DATA_LOSS", b"z")
