"""The V1 format: our files are TensorFlow's, each reads the other's, and errors have its texts."""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import tempfile

import hypothesis
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import strategies as st

import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, Part, Reader, Request, Tensors
from values import assert_same, box, dtype_id, part, tensor

SEED = int(os.environ.get("TFCKPT_SEED", "0"))
EXAMPLES = int(os.environ.get("TFCKPT_EXAMPLES", "200"))

V1 = 1  # TFCKPT_FORMAT_V1

# The dtypes that TensorFlow can save in this format.
DTYPES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 17, 18, 19]
OTHERS = [number for number in tfckpt.DTYPES if number not in DTYPES]
SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3), (1, 2, 1, 3, 1), (2,) * 8]


def pairs_of(tensors: Tensors) -> list[tuple[bytes | str, Part]]:
    pairs = list(tensors.items() if hasattr(tensors, "items") else tensors)
    return [(key, value if isinstance(value, Part) else Part(value)) for key, value in pairs]


def tensorflow_saves(path: str, tensors: Tensors) -> None:
    """`SaveSlices` of the tensors in their order."""
    pairs = pairs_of(tensors)
    tf.raw_ops.SaveSlices(
        filename=path,
        tensor_names=tf.constant([key for key, _ in pairs], tf.string),
        shapes_and_slices=[value.slice_spec for _, value in pairs],
        data=[tensorflow_side.constant(value.data) for _, value in pairs],
    )


def assert_same_file(ours: str, theirs: str) -> None:
    mine, other = pathlib.Path(ours).read_bytes(), pathlib.Path(theirs).read_bytes()
    if mine != other:
        at = next((i for i, (a, b) in enumerate(zip(mine, other)) if a != b), min(len(mine), len(other)))
        pytest.fail(
            f"{ours} differs at {at}: {mine[at : at + 40].hex()} not {other[at : at + 40].hex()}; "
            f"sizes {len(mine)} {len(other)}"
        )


def both_ways(tmp: pathlib.Path, tensors: Tensors) -> None:
    """Saves with both, compares the bytes, and has each read every tensor in the other's file."""
    ours, theirs = str(tmp / "ours"), str(tmp / "theirs")
    assert tfckpt.save(ours, tensors, format=V1) == ours
    tensorflow_saves(theirs, tensors)
    assert_same_file(ours, theirs)
    requests = [
        (Request(key, value.data.dtype, value.data.shape, value.slice_spec), value.data)
        for key, value in pairs_of(tensors)
    ]
    for restore, path in ((tensorflow_side.restore, ours), (tfckpt.restore, theirs)):
        restored = restore(path, [request for request, _ in requests])
        for (request, expected), actual in zip(requests, restored):
            assert_same(actual, expected, request.key)


def refusal(call, *arguments, **options) -> tuple[str, str]:
    with pytest.raises(CheckpointError) as caught:
        call(*arguments, **options)
    return caught.value.code_name, caught.value.message


def tensorflow_refusal(call, *arguments) -> tuple[str, str]:
    with pytest.raises(tf.errors.OpError) as caught:
        call(*arguments)
    return tfckpt.CODES[caught.value.error_code], tensorflow_side.core_message(caught.value)


@pytest.mark.parametrize("number", DTYPES, ids=dtype_id)
def test_every_shape_of_a_dtype(number: int, tmp_path: pathlib.Path) -> None:
    for i, shape in enumerate(SHAPES):
        folder = tmp_path / str(i)
        folder.mkdir()
        both_ways(folder, {"x": tensor(number, shape)})
    both_ways(tmp_path, {f"v{i * 5 % 8}": tensor(number, shape, i) for i, shape in enumerate(SHAPES)})


@pytest.mark.parametrize("number", OTHERS, ids=dtype_id)
def test_a_dtype_that_the_format_does_not_have(number: int, tmp_path: pathlib.Path) -> None:
    tensors = {"x": tensor(number, (2,))}
    code, message = refusal(tfckpt.save, str(tmp_path / "ours"), tensors, format=V1)
    their_code, their_message = tensorflow_refusal(tensorflow_saves, str(tmp_path / "theirs"), tensors)
    assert (code, message) == (their_code, f"{their_message} [tensor=x]")
    assert not list(tmp_path.glob("ours*"))


def test_extreme_values(tmp_path: pathlib.Path) -> None:
    tensors: Tensors = {}
    for kind in (np.int8, np.int16, np.int32, np.int64, np.uint8, np.uint16):
        info = np.iinfo(kind)
        tensors[np.dtype(kind).name] = np.array([info.min, -1 if info.min else 1, 0, 1, 127, info.max], kind)
    tensors["half"] = np.arange(65536, dtype=np.uint16).view(np.float16)
    tensors["nan"] = np.array([np.nan, -np.nan, np.inf, -0.0, 5e-324], np.float64)
    both_ways(tmp_path, tensors)


@pytest.mark.parametrize("size", [130_000, 131_050, 131_060, 131_072, 200_000, 1_500_000])
def test_records_about_as_large_as_blocks(size: int, tmp_path: pathlib.Path) -> None:
    rng = np.random.default_rng(size)
    tensors: Tensors = {
        "a": tensor(9, (3,)),
        "f": rng.random(size, np.float32),
        "g": rng.integers(-5, 300, size, np.int32),
        "h": rng.integers(-128, 127, size, np.int8),
        "s": np.array([b"x" * size, b"", b"y" * 7], object),
        "z": tensor(1, (2,)),
    }
    both_ways(tmp_path, tensors)


def test_many_tensors_and_a_meta_of_several_blocks(tmp_path: pathlib.Path) -> None:
    tensors = {f"scope/{i * 7919 % 6000:05}/" + "long_name/" * 10: tensor(3, (2,), i) for i in range(6000)}
    ours, theirs = str(tmp_path / "ours"), str(tmp_path / "theirs")
    tfckpt.save(ours, tensors, format=V1)
    tensorflow_saves(theirs, tensors)
    assert_same_file(ours, theirs)
    for name, value in tfckpt.restore_all(theirs).items():
        assert_same(value, tensors[name.decode()], name)
    # TensorFlow's own reading is quadratic.
    name = next(reversed(tensors))
    (value,) = tensorflow_side.restore(ours, [Request(name, tensors[name].dtype, (2,))])
    assert_same(value, tensors[name])


def test_names_of_odd_bytes(tmp_path: pathlib.Path) -> None:
    names = ["\x01", "a\x00b", "zwölf/×", " ", "\x00", "x" * 70_000]
    both_ways(tmp_path, {name.encode(): tensor(3, (2,)) for name in names})


FULL = tensor(1, (4, 6))


@pytest.mark.parametrize("number", DTYPES, ids=dtype_id)
def test_any_slice_from_any_slices(number: int, tmp_path: pathlib.Path) -> None:
    full = tensor(number, (4, 6))
    for i, cuts in enumerate(
        [["0,2:-", "2,2:-"], ["0,1:0,4", "0,1:4,2", "1,3:0,1", "1,3:1,5"], ["-:-"], ["0,4:0,6"], ["2,2:-", "0,2:-"]]
    ):
        path = str(tmp_path / str(i))
        tensors = [("x", part(full, cut)) for cut in cuts] + [("a", tensor(number, (3,)))]
        tfckpt.save(path, tensors, format=V1)
        tensorflow_saves(path + ".theirs", tensors)
        assert_same_file(path, path + ".theirs")
        reads = ["-:-", "1,2:-", "-:3,2", "0,1:0,1", "3,1:5,1", "1,3:1,4", *cuts]
        requests = [Request("x", full.dtype, full.shape)]
        values = [full]
        for spec in reads:
            want = full[box(spec, full.shape)]
            requests.append(Request("x", full.dtype, want.shape, f"4 6 {spec}"))
            values.append(want)
        for restore in (tensorflow_side.restore, tfckpt.restore):
            for request, actual, expected in zip(requests, restore(path, requests), values):
                assert_same(actual, expected, (cuts, request.slice_spec))
        for verify in (1, 2):
            for actual, expected in zip(tfckpt.restore(path, requests, verify=verify), values):
                assert_same(actual, expected)


def test_slices_of_large_records_are_found_without_holding_them(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    rng = np.random.default_rng(1)
    for kind in (np.float32, np.int32, np.int64):
        full = rng.integers(-1000, 1 << 30, (3000, 1000)).astype(kind)
        tensorflow_saves(path, [("x", part(full, "0,1000:-")), ("x", part(full, "1000,2000:-"))])
        for spec in ("990,20:5,9", "0,3000:999,1", "2999,1:-", "500,1000:-"):
            want = full[box(spec, full.shape)]
            request = Request("x", full.dtype, want.shape, f"3000 1000 {spec}")
            for verify in (0, 1, 2):
                (actual,) = tfckpt.restore(path, [request], verify=verify, max_host_bytes=2 << 20)
                assert_same(actual, want, spec)


@pytest.mark.parametrize("devices", [1, 2, 16])
def test_sharded_by_device(devices: int, tmp_path: pathlib.Path) -> None:
    ours, theirs = tmp_path / "ours", tmp_path / "theirs"
    ours.mkdir()
    theirs.mkdir()
    values = {f"v{i}": (tensor(DTYPES[i % 2], (i % 5,), i), f"/cpu:{i * 7 % devices}") for i in range(40)}
    with tf.Graph().as_default(), tensorflow_side.session(devices) as running:
        variables = tensorflow_side.variable_list(values)
        saver = tf.compat.v1.train.Saver(variables, sharded=True, write_version=tf.compat.v1.train.SaverDef.V1)
        running.run(tf.compat.v1.global_variables_initializer())
        pattern = saver.save(running, str(theirs / "m"), write_meta_graph=False)
    name = "/job:localhost/replica:0/task:0/device:CPU:{}"
    tensors = [
        (key, Part(value, "", name.format(device.rpartition(":")[2])))
        for key, (value, device) in values.items()
    ]
    saved = tfckpt.save(str(ours / "m"), tensors, format=V1, shard_by_device=1, update_state=1, save_relative_paths=1)
    assert saved == pattern.replace("/theirs/", "/ours/")
    names = sorted(path.name for path in theirs.iterdir() if path.name != "checkpoint")
    assert sorted(path.name for path in ours.iterdir() if path.name != "checkpoint") == names
    for file in names:
        assert_same_file(str(ours / file), str(theirs / file))
    for folder in (ours, theirs):
        found = tfckpt.latest_checkpoint(str(folder))
        assert found == str(folder / f"m-?????-of-{devices:05}") == tf.train.latest_checkpoint(str(folder))
        restored = tfckpt.restore_all(found)
        assert sorted(restored) == sorted(key.encode() for key in values)
        for key, (value, _) in values.items():
            assert_same(restored[key.encode()], value, key)
            (theirs_value,) = tensorflow_side.restore(found, [Request(key, value.dtype, value.shape)])
            assert_same(theirs_value, value, key)
    (ours / names[0]).unlink()
    with pytest.raises(CheckpointError) as caught:
        tfckpt.latest_checkpoint(str(ours))
    assert caught.value.code_name == "DATA_LOSS"


def test_over_and_over_at_the_same_path(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    devices = [{"v": tensor(1, (3,), i), "w": tensor(1, (2,), i)} for i in range(4)]
    for sharded in (0, 1):
        for values in devices:
            tensors = [(key, Part(value, "", f"/cpu:{i}")) for i, (key, value) in enumerate(values.items())]
            saved = tfckpt.save(path, tensors, format=V1, shard_by_device=sharded, update_state=1)
            assert_same(tfckpt.restore_all(saved)[b"w"], values["w"])
            assert tfckpt.latest_checkpoint(str(tmp_path)) == saved
    names = sorted(file.name for file in tmp_path.iterdir())
    assert names == ["checkpoint", "m", "m-00000-of-00002", "m-00001-of-00002"]


# ---- what cannot be read ----


def saved_by_tensorflow(tmp_path: pathlib.Path) -> str:
    path = str(tmp_path / "m")
    tensorflow_saves(path, {"w": FULL, "b": tensor(9, ()), "s": tensor(7, (3,))})
    return path


def assert_same_refusal(path: str, request: Request) -> None:
    code, message = refusal(tfckpt.restore, path, [request])
    their_code, their_message = tensorflow_refusal(tensorflow_side.restore, path, [request])
    assert code == their_code
    assert message.startswith(their_message), (message, their_message)


def test_requests_that_do_not_fit(tmp_path: pathlib.Path) -> None:
    path = saved_by_tensorflow(tmp_path)
    for request in [
        Request("nothing", FULL.dtype, (4, 6)),
        Request("w", np.dtype(np.int32), (4, 6)),
        Request("w", FULL.dtype, (3, 3), "3 3 -:-"),
        Request("b", FULL.dtype, ()),
    ]:
        assert_same_refusal(path, request)
    code, message = refusal(tfckpt.restore, path, [Request("w", FULL.dtype, (6, 4))])
    assert (code, "shape in shape_and_slice spec [6,4]" in message) == ("INVALID_ARGUMENT", True)


def test_files_that_are_none(tmp_path: pathlib.Path) -> None:
    path = saved_by_tensorflow(tmp_path)
    sound = pathlib.Path(path).read_bytes()
    request = Request("w", FULL.dtype, FULL.shape)
    flipped = bytearray(sound)
    flipped[30] ^= 1
    for damaged in (b"", b"short", sound[:-1], sound + b"x", bytes(len(sound)), bytes(flipped)):
        pathlib.Path(path).write_bytes(damaged)
        assert_same_refusal(path, request)
    pathlib.Path(path).unlink()
    assert_same_refusal(path, request)
    assert_same_refusal(str(tmp_path / "m-?????-of-00002"), request)


def test_a_record_that_is_damaged(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    big = np.arange(1 << 18, dtype=np.float32)
    tensorflow_saves(path, {"a": tensor(1, (4,)), "big": big})
    data = bytearray(pathlib.Path(path).read_bytes())
    data[len(data) // 2] ^= 0x10
    pathlib.Path(path).write_bytes(data)
    code, message = refusal(tfckpt.restore, path, [Request("big", big.dtype, big.shape)])
    assert code == "INVALID_ARGUMENT"
    assert message.startswith("Error copying slice data; block checksum mismatch")
    assert_same(tfckpt.restore(path, [Request("a", big.dtype, (4,))])[0], tensor(1, (4,)))
    with Reader(path) as reader:
        (damage,) = reader.verify()
    assert damage.code_name == "DATA_LOSS"


def test_a_missing_shard(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    parts = [("x", part(FULL, "0,2:-")), ("x", part(FULL, "2,2:-"))]
    for i, one in enumerate(parts):
        tensorflow_saves(f"{path}-{i:05}-of-00002", [one])
    pattern = path + "-?????-of-00002"
    assert_same(tfckpt.restore_all(pattern)[b"x"], FULL)
    os.unlink(path + "-00001-of-00002")
    assert_same_refusal(pattern, Request("x", FULL.dtype, FULL.shape))
    half = Request("x", FULL.dtype, (2, 6), "4 6 0,2:-")
    assert_same(tfckpt.restore(pattern, [half])[0], FULL[:2])


def test_an_index_is_no_checkpoint_of_this_format(tmp_path: pathlib.Path) -> None:
    path = str(tmp_path / "m")
    tfckpt.save(path, {"x": FULL})
    assert refusal(Reader, path + ".index")[0] == "INVALID_ARGUMENT"


def test_views_are_refused(tmp_path: pathlib.Path) -> None:
    path = saved_by_tensorflow(tmp_path)
    with Reader(path) as reader:
        assert refusal(reader.view, "w")[0] == "FAILED_PRECONDITION"


# ---- random checkpoints ----


@st.composite
def checkpoints(draw: st.DrawFn) -> list[tuple[bytes, np.ndarray, list[str]]]:
    name_bytes = st.text(max_size=12, min_size=1).map(lambda text: text.encode())
    names = draw(st.lists(name_bytes, min_size=1, max_size=8, unique=True))
    found = []
    for name in names:
        shape = tuple(draw(st.lists(st.integers(0, 6), max_size=3)))
        full = tensor(draw(st.sampled_from(DTYPES)), shape, draw(st.integers(0, 99)))
        specs: list[str] = []
        if shape and all(shape) and draw(st.booleans()):
            axis = draw(st.integers(0, len(shape) - 1))
            at = sorted({0, shape[axis], *draw(st.lists(st.integers(0, shape[axis]), max_size=2))})
            for start, end in zip(at, at[1:]):
                dims = ["-"] * len(shape)
                dims[axis] = f"{start},{end - start}"
                specs.append(":".join(dims))
        found.append((name, full, specs))
    return found


@hypothesis.seed(SEED)
@hypothesis.settings(max_examples=EXAMPLES, deadline=None, database=None)
@hypothesis.given(checkpoints(), st.randoms(use_true_random=False))
def test_random_checkpoints(drawn: list[tuple[bytes, np.ndarray, list[str]]], rng: random.Random) -> None:
    folder = tempfile.mkdtemp()
    try:
        tensors: list[tuple[bytes, np.ndarray | Part]] = []
        for name, full, specs in drawn:
            tensors += [(name, part(full, spec)) for spec in specs] or [(name, full)]
        rng.shuffle(tensors)
        # Beyond this, TensorFlow's order of slices is that of an unstable sort.
        if len(tensors) > 16:
            tensors = tensors[:16]
        both_ways(pathlib.Path(folder), tensors)
    finally:
        shutil.rmtree(folder)
