"""Given the same tensors in the same order, our files are TensorFlow's files, byte for byte."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

import table_file
import tensorflow_side
import tfckpt
from tfckpt import Part, Tensors
from values import ALL_DTYPES, assert_same_files, dtype_id, files, part, tensor

SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3), (1, 2, 1, 3, 1), (2,) * 8]


def assert_same_bytes(prefix: str, other_prefix: str, tensors: Tensors) -> None:
    """Saves with both and compares every file."""
    tfckpt.save(prefix, tensors)
    tensorflow_side.save(other_prefix, tensors)
    assert_same_files(prefix, other_prefix)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", ALL_DTYPES, ids=dtype_id)
def test_one_tensor(number: int, shape: tuple[int, ...], prefix: str, other_prefix: str) -> None:
    assert_same_bytes(prefix, other_prefix, {"x": tensor(number, shape)})


@pytest.mark.parametrize("number", ALL_DTYPES, ids=dtype_id)
def test_every_shape_of_a_dtype_in_one_file(number: int, prefix: str, other_prefix: str) -> None:
    tensors = {f"v{i}": tensor(number, shape) for i, shape in enumerate(reversed(SHAPES))}
    assert_same_bytes(prefix, other_prefix, tensors)


def test_many_tensors_of_all_dtypes_out_of_key_order(prefix: str, other_prefix: str) -> None:
    tensors = {
        f"scope_{i * 37 % 500}/v": tensor(ALL_DTYPES[i % len(ALL_DTYPES)], SHAPES[i % 7], i)
        for i in range(500)
    }
    assert_same_bytes(prefix, other_prefix, tensors)


@pytest.mark.parametrize(
    "elements",
    [
        [b""],
        [b"", b"", b""],
        [b"\x00", b"\xff" * 127, b"\x80" * 128, bytes(range(256))],
        [b"x" * 16_383, b"x" * 16_384, b"", b"y" * 70_000],
        [b"z" * 3_000_000],
        [b"%d" % i for i in range(20_000)],
    ],
    ids=["empty", "empties", "binary", "over-16-KiB", "3-MB", "20000"],
)
def test_strings(elements: list[bytes], prefix: str, other_prefix: str) -> None:
    strings = np.array(elements, object)
    tensors = {"s": strings, "f": tensor(1, (3,)), "scalar": np.array(elements[-1], object)}
    assert_same_bytes(prefix, other_prefix, tensors)


def test_keys_of_odd_bytes(prefix: str, other_prefix: str) -> None:
    keys = [b"\x01", b"a\x00b", b"\xff\xfe", b"\xff\xff", "zwölf/×".encode(), b" ", b"\x00", b"x" * 70_000]
    assert_same_bytes(prefix, other_prefix, {key: tensor(3, (2,)) for key in keys})


@pytest.mark.parametrize("last", [b"w", b"\xff", b"\xff\xffz\x01", b"a\xfe", b"\x7f\xff"], ids=bytes.hex)
def test_the_index_key_after_the_last_key(last: bytes, prefix: str, other_prefix: str) -> None:
    assert_same_bytes(prefix, other_prefix, {last: tensor(1, (1,))})


def test_an_index_of_several_blocks(prefix: str, other_prefix: str) -> None:
    keys = [f"layer_{i * 7919 % 4000:05}/" + "long_name/" * 20 + "kernel" for i in range(4000)]
    assert_same_bytes(prefix, other_prefix, {k: np.array(i, np.int32) for i, k in enumerate(keys)})
    assert len(table_file.index_handles(table_file.index_file(prefix).read_bytes())) > 3


@pytest.mark.parametrize("size", [262_000, 524_270, 524_280, 524_288, 600_000])
def test_keys_about_as_long_as_blocks(size: int, prefix: str, other_prefix: str) -> None:
    keys = [b"a", b"b" * size, b"c", b"c" + b"d" * size, b"e"]
    assert_same_bytes(prefix, other_prefix, {key: tensor(9, ()) for key in keys})


@pytest.mark.parametrize("gap", [0x01, 0x02, 0xFF])
def test_separators_between_blocks(gap: int, prefix: str, other_prefix: str) -> None:
    keys = [b"p" * 200_000 + bytes([first, gap, 7]) for first in (0, 1, 2, 4, 254, 255)]
    assert_same_bytes(prefix, other_prefix, {key: tensor(9, ()) for key in keys})


def test_a_tensor_of_many_chunks(prefix: str, other_prefix: str) -> None:
    tensors = {"a": tensor(4, (7,)), "big": tensor(1, (5_000_001,)), "z": tensor(9, (3,))}
    assert_same_bytes(prefix, other_prefix, tensors)


def test_a_prefix_at_the_end_of_a_new_folder(tmp_path: pathlib.Path) -> None:
    ours, theirs = str(tmp_path / "ours" / "m"), str(tmp_path / "theirs" / "m")
    assert_same_bytes(ours, theirs, {"x": tensor(1, (2,))})


# ---- slices ----

FULL = tensor(1, (4, 6))
CUTS: dict[str, list[tuple[str, np.ndarray | Part]]] = {
    "rows": [("x", part(FULL, "0,2:-")), ("x", part(FULL, "2,2:-"))],
    "explicit": [("x", part(FULL, "0,2:0,6")), ("x", part(FULL, "2,2:0,6"))],
    "tiles": [("x", part(FULL, cut)) for cut in ("0,1:0,4", "0,1:4,2", "1,3:0,1", "1,3:1,5")],
    "backwards": [("x", part(FULL, "2,2:-")), ("x", part(FULL, "0,2:-"))],
    "incomplete": [("x", part(FULL, "1,2:2,2"))],
    "whole-by-dashes": [("x", part(FULL, "-:-"))],
    "whole-by-numbers": [("x", part(FULL, "0,4:0,6"))],
    "whole-mixed": [("x", part(FULL, "-:0,6"))],
    "before-others": [("x", part(FULL, "0,2:-")), ("x", part(FULL, "2,2:-")), ("a", FULL), ("z", FULL)],
    "after-others": [("z", FULL), ("a", FULL), ("x", part(FULL, "0,2:-")), ("x", part(FULL, "2,2:-"))],
    "interleaved": [
        ("y", part(FULL, "0,2:-")),
        ("b", FULL),
        ("x", part(FULL, "0,3:-")),
        ("y", part(FULL, "2,2:-")),
        ("x", part(FULL, "3,1:-")),
    ],
    "odd-separators": [("x", part(FULL, "0,2:-:")), ("x", Part(FULL[2:], "4 6 2,2,:-"))],
    "odd-numbers": [("x", Part(FULL[1:3], "04 6 +1,2:-"))],
    "odd-keys": [(b"n\x00m\xff\xe9", part(FULL, "0,2:-")), (b"\xff", part(FULL, "1,2:-"))],
}


@pytest.mark.parametrize("parts", CUTS.values(), ids=CUTS.keys())
def test_slices(parts: list[tuple[str, np.ndarray | Part]], prefix: str, other_prefix: str) -> None:
    assert_same_bytes(prefix, other_prefix, parts)


@pytest.mark.parametrize("number", ALL_DTYPES, ids=dtype_id)
def test_slices_of_every_dtype(number: int, prefix: str, other_prefix: str) -> None:
    full = tensor(number, (5, 3, 2))
    cuts = ["0,2:-:-", "2,3:0,1:-", "2,3:1,2:1,1", "2,3:1,2:0,1"]
    assert_same_bytes(prefix, other_prefix, [("x", part(full, cut)) for cut in cuts])


def test_slices_at_the_limits_of_their_encoding(prefix: str, other_prefix: str) -> None:
    full = tensor(6, (2_200_000,))
    cuts = [
        "0,63",
        "63,1",
        "64,8127",
        "8191,1",
        "8192,91807",
        "99999,948577",
        "1048576,63",
        "1048639,1151361",
    ]
    assert_same_bytes(prefix, other_prefix, [("v", part(full, cut)) for cut in cuts])


def test_slices_with_zero_elements_in_another_dimension(prefix: str, other_prefix: str) -> None:
    full = tensor(1, (4, 0))
    assert_same_bytes(prefix, other_prefix, [("x", part(full, "0,2:-")), ("x", part(full, "2,2:-"))])


# ---- shards ----

DEVICES = [
    "/device:CPU:10",
    "",
    "/device:CPU:2",
    "/device:CPU:0",
    "/job:worker/replica:0/task:1/device:CPU:0",
]


def placed(num: int = 17) -> list[tuple[str, Part]]:
    """Tensors of all dtypes on the devices in turn."""
    return [
        (f"v{i * 5 % num:02}", Part(tensor(ALL_DTYPES[i], (2, 3)), "", DEVICES[i % len(DEVICES)]))
        for i in range(num)
    ]


def assert_same_shards(prefix: str, other_prefix: str, tensors: list[tuple[str, Part]]) -> None:
    """Saves with both, one shard per device, and compares every file."""
    tfckpt.save(prefix, tensors, shard_by_device=1)
    tensorflow_side.save_by_device(other_prefix, tensors)
    assert_same_files(prefix, other_prefix)


def test_a_shard_per_device_in_string_order(prefix: str, other_prefix: str) -> None:
    assert_same_shards(prefix, other_prefix, placed())
    assert len(files(prefix)) == 1 + len(DEVICES)


def test_all_tensors_on_one_device(prefix: str, other_prefix: str) -> None:
    tensors = [(f"v{i}", Part(tensor(1, (i,)), "", "/device:CPU:0")) for i in range(5)]
    assert_same_shards(prefix, other_prefix, tensors)


def test_slices_of_one_tensor_on_several_devices(prefix: str, other_prefix: str) -> None:
    other = tensor(3, (4, 6))
    assert_same_shards(
        prefix,
        other_prefix,
        [
            ("x", part(FULL, "0,2:-", "/device:CPU:1")),
            ("q", part(other, "1,1:-", "/device:CPU:1")),
            ("x", part(FULL, "2,1:-", "/device:CPU:0")),
            ("b", Part(other, "", "/device:CPU:2")),
            ("x", part(FULL, "3,1:-", "/device:CPU:2")),
            ("q", part(other, "0,1:-", "/device:CPU:2")),
        ],
    )


@pytest.mark.parametrize("number", [1, 7, 9, 14], ids=dtype_id)
def test_a_sharded_saver(number: int, prefix: str, other_prefix: str) -> None:
    placed = {
        f"v{i:02}": (tensor(number, (i % 4, 3), i), f"/device:CPU:{i * 3 % 11}" if i % 5 else "")
        for i in range(24)
    }
    tensorflow_side.save_with_saver(other_prefix, placed, sharded=True)
    ours = [(name, Part(value, "", device)) for name, (value, device) in sorted(placed.items())]
    tfckpt.save(prefix, ours, shard_by_device=1)
    assert_same_files(prefix, other_prefix)


def test_an_unsharded_saver(prefix: str, other_prefix: str) -> None:
    tensors = {f"v{i:02}": tensor([1, 7, 9, 14][i % 4], (i % 3, 2), i) for i in range(20)}
    placed = {name: (value, "") for name, value in tensors.items()}
    theirs = tensorflow_side.save_with_saver(other_prefix, placed, sharded=False, global_step=7)
    ours = tfckpt.save(prefix, dict(sorted(tensors.items())), global_step=7)
    assert_same_files(ours, theirs)


# ---- the state file ----


def state_files(tmp_path: pathlib.Path, name: str = "checkpoint") -> tuple[bytes, bytes]:
    """Ours and TensorFlow's."""
    return (tmp_path / "ours" / name).read_bytes(), (tmp_path / "theirs" / name).read_bytes()


@pytest.fixture
def cwd(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The working folder, with `ours/d` and `theirs/d` in it."""
    for side in ("ours", "theirs"):
        (tmp_path / side / "d").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_same_state(cwd: pathlib.Path, save_dir: str, path: str, *rest: object, **options: object) -> bytes:
    """Writes the state file with both from folders of the same length of name; `{}` is the folder."""
    for side, update in (
        ("ours", tfckpt.update_checkpoint_state),
        ("theirs", tensorflow_side.update_checkpoint_state),
    ):
        with_side = lambda text, side=side: text.replace("{}", str(cwd / side))  # noqa: E731
        paths = None if not rest or rest[0] is None else [with_side(p) for p in rest[0]]
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(cwd / side)
            update(with_side(save_dir), with_side(path), paths, *rest[1:], **options)
    name = rest[1] if len(rest) > 1 and rest[1] else "checkpoint"
    ours, theirs = ((cwd / side / "d" / name).read_bytes() for side in ("ours", "theirs"))
    assert ours == theirs.replace(str(cwd / "theirs").encode(), str(cwd / "ours").encode())
    return ours


PLACES = [
    ("d", "d/m-1"),
    ("./d", "./d/m-1"),
    ("d/../d", "d/../d/m-1"),
    ("d/", "d/m-1"),
    ("d", "m-1"),
    ("d", "../other/m-1"),
    ("d", "{}/d/m-1"),
    ("d", "{}/elsewhere/m-1"),
    ("{}/d", "{}/d/m-1"),
    ("{}/d", "{}/d//m-1"),
    ("{}/d/", "{}/d/./m-1"),
    ("{}/d", "d/m-1"),
    ("{}/d", "m-1"),
    ("{}/d", "{}/elsewhere/m-1"),
    ("d", "gs://bucket/m-1"),
]


@pytest.mark.parametrize("relative", [False, True], ids=["as-is", "relative"])
@pytest.mark.parametrize(("save_dir", "path"), PLACES)
def test_the_state_file_of_each_kind_of_path(
    save_dir: str, path: str, relative: bool, cwd: pathlib.Path
) -> None:
    assert_same_state(cwd, save_dir, path, save_relative_paths=relative)


@pytest.mark.parametrize("relative", [False, True], ids=["as-is", "relative"])
@pytest.mark.parametrize("save_dir", ["d", "{}/d"])
def test_the_state_file_of_several_paths(save_dir: str, relative: bool, cwd: pathlib.Path) -> None:
    paths = ["d/m-1", "{}/d/m-2", "m-3", "/m-4", "../m-5"]
    content = assert_same_state(cwd, save_dir, "{}/d/m-6", paths, save_relative_paths=relative)
    assert content.count(b"all_model_checkpoint_paths") == 6


def test_a_path_at_the_end_of_the_list_is_not_added_again(cwd: pathlib.Path) -> None:
    content = assert_same_state(cwd, "{}/d", "{}/d/m-2", ["{}/d/m-1", "{}/d/m-2"])
    assert content.count(b"m-2") == 2


NAMES = [
    "plain",
    "with space",
    'quote"d',
    "it's",
    "back\\slash",
    "line\nfeed\rreturn\ttab",
    "bell\x07 escape\x1b delete\x7f",
    "zwölf ×",
    "日本語",
    "\U0001f600",
    "trailing\\",
    "%d $HOME ~ `id`",
    "\x01\x1f\x0b\x0c7",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_escapes_in_the_state_file(name: str, cwd: pathlib.Path) -> None:
    assert_same_state(cwd, "{}/d", "{}/d/" + name, ["{}/d/" + n for n in NAMES])
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(cwd / "ours")
        state = tfckpt.get_checkpoint_state("d")
    assert state.model_checkpoint_path == str(cwd / "ours" / "d" / name)


TIMES = [0.0, 1.0, 0.1, 1e16, 1e15, 123456789012345680.0, 1e-4, 1e-5, 1e-7, 1700000000.123456, 1e100, 5e-324,
         -1.5, 1.7976931348623157e308, float("inf"), float("-inf"), 2.0**53, 1 / 3, -0.0]  # fmt: skip


def test_times_in_the_state_file(cwd: pathlib.Path) -> None:
    paths = [f"m-{i}" for i in range(len(TIMES))]
    assert_same_state(cwd, "{}/d", paths[-1], paths, None, TIMES, 0.30000000000000004)
    theirs = [
        float(time)
        for time in tfckpt.get_checkpoint_state(str(cwd / "theirs" / "d")).all_model_checkpoint_timestamps
    ]
    assert theirs == TIMES


@pytest.mark.parametrize("time", TIMES, ids=repr)
def test_a_last_preserved_time(time: float, cwd: pathlib.Path) -> None:
    assert_same_state(cwd, "d", "d/m", None, None, None, time)


def test_a_state_file_of_another_name(cwd: pathlib.Path) -> None:
    assert_same_state(cwd, "d", "d/m-1", None, "latest best")


def test_a_save_with_update_state_writes_what_a_saver_writes(tmp_path: pathlib.Path) -> None:
    value = tensor(1, (2,))
    for side in ("ours", "theirs"):
        (tmp_path / side).mkdir()
    tfckpt.save(str(tmp_path / "ours" / "m"), {"v": value}, global_step=5, update_state=1)
    tensorflow_side.save_with_saver(
        str(tmp_path / "theirs" / "m"), {"v": (value, "")}, sharded=False, global_step=5
    )
    ours, theirs = state_files(tmp_path)
    assert ours == theirs.replace(b"/theirs/", b"/ours/")
