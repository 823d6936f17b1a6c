"""`tfckpt inspect` prints what TensorFlow's inspect_checkpoint tool prints, and the debug string is TensorFlow's."""

from __future__ import annotations

import contextlib
import io
import pathlib
import random
import runpy
import subprocess
import sys

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.tools import inspect_checkpoint
from tensorflow.python.training import py_checkpoint_reader

import tensorflow_side
import tfckpt
from conftest import library_path
from tfckpt import Reader
from values import part, tensor

# The dtypes whose values are printed alike, by what makes random elements of them.
INTEGERS = [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64]
FLOATS = [np.float16, np.float32, np.float64]
NAMES = ["w", "b", "dense/kernel", "dense/bias", "global_step", "Adam/m", "a.b", "été", "x y", "~", "0"]


def program() -> str:
    """The program, which is built beside the library."""
    path = library_path().with_name("tfckpt")
    if not path.exists():
        pytest.fail(f"no program at {path}: run `cargo build --release --features cli`")
    return str(path)


def ours(*arguments: str) -> str:
    """What the program prints; it must succeed."""
    done = subprocess.run([program(), "inspect", *arguments], capture_output=True, check=False)
    assert done.returncode == 0 and not done.stderr, (arguments, done.stderr)
    return done.stdout.decode()


def theirs(prefix: str, print_options: dict[str, object] | None = None, **arguments: object) -> str:
    """What the tool prints."""
    full = {"tensor_name": "", "all_tensors": False, "all_tensor_names": False, "count_exclude_pattern": ""}
    out = io.StringIO()
    with np.printoptions(**(print_options or {})), contextlib.redirect_stdout(out):
        inspect_checkpoint.print_tensors_in_checkpoint_file(prefix, **(full | arguments))
    return out.getvalue()


def random_shape(rng: random.Random) -> tuple[int, ...]:
    """Few or many elements, some none, rank 0 to 5."""
    kind = rng.randrange(6)
    if kind == 0:
        return ()
    if kind == 1:
        return (rng.randrange(0, 60),)
    if kind == 2:
        return (rng.randrange(900, 1300),)
    if kind == 3:
        return (rng.randrange(1, 60), rng.randrange(1, 60))
    return tuple(rng.choice([0, 1, 1, 2, 3, 5, 8]) for _ in range(rng.randrange(2, 6)))


def random_floats(rng: np.random.Generator, dtype: type, shape: tuple[int, ...]) -> np.ndarray:
    """Whole numbers, measurements, extremes, any bits."""
    kind = rng.integers(8)
    if kind == 0:
        values = rng.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return np.frombuffer(values, dtype).reshape(shape)
    with np.errstate(over="ignore"):
        made = np.asarray(
            [
                lambda: rng.integers(-50, 50, shape),
                lambda: rng.integers(-10, 10, shape) / 4,
                lambda: rng.normal(size=shape),
                lambda: rng.normal(size=shape) * 10.0 ** rng.integers(-12, 12),
                lambda: 10.0 ** rng.uniform(-9, 9, shape),
                lambda: rng.choice([0.0, -0.0, 1.0, 0.1, 1e-4, 1e-5, 99999.5, 1e8, 1e16], shape),
                lambda: np.round(rng.normal(size=shape) * 100, int(rng.integers(0, 6))),
            ][kind - 1]()
        ).astype(dtype)
    if made.size and rng.random() < 0.3:
        flat = made.reshape(-1)
        flat[rng.integers(made.size, size=2)] = rng.choice([np.nan, np.inf, -np.inf])
    return made


def random_tensor(rng: random.Random) -> np.ndarray:
    """A tensor of a dtype that NumPy prints."""
    generator, shape = np.random.default_rng(rng.getrandbits(64)), random_shape(rng)
    kind = rng.randrange(8)
    if kind == 0:
        return generator.integers(0, 2, shape).astype(bool)
    if kind == 1:
        strings = np.empty(int(np.prod(shape)), object)
        for i in range(strings.size):
            strings[i] = generator.bytes(int(generator.choice([0, 1, 3, 90], p=[0.2, 0.4, 0.38, 0.02])))
        return strings.reshape(shape)
    if kind in (2, 3):
        dtype = rng.choice(INTEGERS)
        if rng.random() < 0.5:
            raw = generator.bytes(int(np.prod(shape)) * np.dtype(dtype).itemsize)
            return np.frombuffer(raw, dtype).reshape(shape)
        return generator.integers(0, 100, shape).astype(dtype)
    return random_floats(generator, rng.choice(FLOATS), shape)


def random_checkpoint(rng: random.Random, prefix: str) -> list[str]:
    """A checkpoint of a few tensors; their names."""
    names = rng.sample(NAMES, rng.randrange(1, 6))
    tensorflow_side.save(prefix, {name: random_tensor(rng) for name in names})
    return names


def random_print_options(rng: random.Random) -> dict[str, object]:
    """Some of the options, none of them half the time."""
    if rng.random() < 0.5:
        return {}
    every = {
        "precision": rng.choice([0, 1, 3, 8, 12, 20]),
        "threshold": rng.choice([0, 5, 20, 1000, 5000]),
        "edgeitems": rng.choice([0, 1, 2, 3, 5]),
        "linewidth": rng.choice([1, 10, 40, 75, 200]),
        "suppress": rng.choice([True, False]),
    }
    return {name: every[name] for name in rng.sample(sorted(every), rng.randrange(1, 6))}


@pytest.mark.parametrize("seed", range(120))
def test_random_checkpoints_and_options(seed: int, prefix: str) -> None:
    rng = random.Random(seed)
    names = random_checkpoint(rng, prefix)
    for _ in range(3):
        theirs_arguments: dict[str, object] = {}
        arguments = [f"--file_name={prefix}"] if rng.random() < 0.5 else [prefix]
        if rng.random() < 0.6:
            theirs_arguments["all_tensors"] = True
            arguments.append(rng.choice(["--all_tensors", "--all_tensors=true", "--all"]))
        if rng.random() < 0.3:
            theirs_arguments["all_tensor_names"] = True
            arguments.append(rng.choice(["--all_tensor_names", "--all_tensor_names=TRUE", "--all-names"]))
        if rng.random() < 0.4:
            theirs_arguments["tensor_name"] = rng.choice(names)
            arguments += ["--tensor_name", theirs_arguments["tensor_name"]]
        if rng.random() < 0.4:
            pattern = rng.choice(["", "dense", "^[a-w]", "b$|m", r"\w/\w+", "."])
            theirs_arguments["count_exclude_pattern"] = pattern
            arguments += ["--count_exclude_pattern", pattern]
        print_options = random_print_options(rng)
        if print_options:
            arguments += ["--printoptions", *[f"{name}={value}" for name, value in print_options.items()]]
        assert ours(*arguments) == theirs(prefix, print_options, **theirs_arguments), arguments


def the_tool(*arguments: str) -> str:
    """What the tool prints, its command line included."""
    out = io.StringIO()
    with np.printoptions(), contextlib.redirect_stdout(out), pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["inspect_checkpoint", *arguments])
        patch.delitem(sys.modules, inspect_checkpoint.__name__)
        with pytest.raises(SystemExit) as ended:
            runpy.run_module(inspect_checkpoint.__name__, run_name="__main__", alter_sys=True)
    assert not ended.value.code
    return out.getvalue()


@pytest.mark.parametrize(
    "arguments",
    [
        "--all_tensors True --printoptions precision=3 suppress=t",
        "--printoptions precision=3 --all_tensors --printoptions edgeitems=1 threshold=4 --printoptions precision=5",
        "--all_tensor_names --count_exclude_pattern=e --all_tensors no",
        "--all_tensor_names TRUE --tensor_name={name}",
        "--tensor_name {name} --all_tensors=false --printoptions suppress=1 linewidth=30",
        "--tensor_name= --printoptions",
        "",
    ],
)
def test_the_command_lines_of_the_tool(arguments: str, prefix: str) -> None:
    names = random_checkpoint(random.Random(7), prefix)
    words = ["--file_name", prefix, *arguments.format(name=names[0]).split()]
    assert ours(*words) == the_tool(*words)


@pytest.mark.parametrize(
    "option", ["precision", "=3", "precision=x", "nonsense=1", "formatter=1", "floatmode=fixed", "suppress=maybe"]
)
def test_a_print_option_that_is_not_taken(option: str, prefix: str) -> None:
    tensorflow_side.save(prefix, {"w": np.float32([1])})
    done = subprocess.run([program(), "inspect", prefix, "--printoptions", option], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (2, b"")
    assert option in done.stderr.decode()


def test_every_power_of_two_and_ten(prefix: str) -> None:
    """Where NumPy turns to another notation, for elements alone and together."""
    tensors = {}
    for dtype in FLOATS:
        with np.errstate(over="ignore", under="ignore"):
            powers = np.array([10.0**e for e in range(-20, 20)] + [2.0**e for e in range(-24, 64)]).astype(dtype)
            near = np.nextafter(powers, dtype(0))
        for name, values in (("p", powers), ("n", near), ("m", -near)):
            kind = np.dtype(dtype).name
            tensors[f"{kind}/{name}"] = values
            tensors |= {f"{kind}/{name}/{i}": np.asarray(value) for i, value in enumerate(values)}
            tensors |= {f"{kind}/{name}/{i}/pair": np.array([1, value], dtype) for i, value in enumerate(values)}
    tensorflow_side.save(prefix, tensors)
    assert ours(prefix, "--all") == theirs(prefix, all_tensors=True)


def test_partitioned_tensors_have_their_full_names_where_tensorflow_has_keys_of_slices(prefix: str) -> None:
    full = tensor(9, (4, 6))
    tensorflow_side.save(
        prefix, [("p", part(full, "0,2:-")), ("p", part(full, "2,2:-")), ("one", part(full, "-:0,2")), ("w", full)]
    )
    lines = ours(prefix).splitlines()
    assert lines == [
        "one (DT_INT64) [4,6], 1 slice: -:0,2",
        "p (DT_INT64) [4,6], 2 slices: 0,2:- 2,2:-",
        "w (DT_INT64) [4,6]",
        "",
        "# Total number of params: 72",
    ]
    tool = theirs(prefix).splitlines()
    assert [line for line in tool if "\x00" not in line] == lines[2:]
    assert ours(prefix, "--tensor", "p") == theirs(prefix, tensor_name="p")
    assert ours(prefix, "--all-names") == theirs(prefix, all_tensor_names=True)
    with Reader(prefix) as reader:
        assert reader.debug_string().decode().splitlines() == lines[:3]


def test_a_missing_tensor_is_an_error_with_the_same_words(prefix: str) -> None:
    tensorflow_side.save(prefix, {"w": np.float32([1])})
    done = subprocess.run([program(), "inspect", prefix, "--tensor", "zz"], capture_output=True, check=False)
    assert (done.returncode, done.stdout) == (1, b"")
    assert done.stderr.decode() == f"tfckpt: {theirs(prefix, tensor_name='zz')}"


# ---- the debug string ----


def test_the_debug_string_is_tensorflows(prefix: str) -> None:
    rng = random.Random(3)
    tensors = {f"t{number}": tensor(number, random_shape(rng)) for number in tfckpt.DTYPES}
    keys = {b"\xff": np.float32(1), b"n\n": np.float32([[1]]), "été".encode(): np.int32(1), b"k" * 5000: np.int8(1)}
    tensorflow_side.save(prefix, tensors | keys)
    expected = py_checkpoint_reader.NewCheckpointReader(prefix).debug_string()
    with Reader(prefix) as reader:
        assert reader.debug_string() == expected
    assert b"\xff (DT_FLOAT) []\n" in expected


def test_the_debug_string_of_many_tensors(prefix: str) -> None:
    tensorflow_side.save(prefix, {f"{i:05}/" + "x" * (i % 700): np.zeros([i % 3, 2], np.int16) for i in range(3000)})
    with Reader(prefix) as reader:
        assert reader.debug_string() == py_checkpoint_reader.NewCheckpointReader(prefix).debug_string()


def test_the_debug_string_of_an_object_based_checkpoint(tmp_path: pathlib.Path) -> None:
    saved = tf.train.Checkpoint(v=tf.Variable([1.0]), d={"a/b": tf.Variable(True)}).save(str(tmp_path / "c"))
    expected = py_checkpoint_reader.NewCheckpointReader(saved).debug_string()
    with Reader(saved) as reader:
        assert reader.debug_string() == expected
    assert ours(saved) == theirs(saved)
    assert ours(saved, "--all") == theirs(saved, all_tensors=True)


def test_a_nul_in_a_name_is_shown(prefix: str) -> None:
    tensorflow_side.save(prefix, {b"a\x00b": np.float32(1)})
    with Reader(prefix) as reader:
        assert reader.debug_string() == b"a\\0b (DT_FLOAT) []\n"
    assert py_checkpoint_reader.NewCheckpointReader(prefix).debug_string() == b"a\x00b (DT_FLOAT) []\n"


# ---- format V1 ----


@pytest.fixture
def saved_v1(prefix: str) -> str:
    """A V1 checkpoint with whole tensors of every dtype that TensorFlow's reader shows, and slices."""
    rng = random.Random(11)
    whole = {f"t{number}": tensor(number, random_shape(rng)) for number in (1, 2, 3, 4, 5, 6, 7, 9, 10)}
    full = tensor(9, (4, 6))
    slices = [("p", full[:2], "4 6 0,2:-"), ("p", full[2:], "4 6 2,2:-"), ("one", full[:, :2], "4 6 -:0,2")]
    everything = [(name, value, "") for name, value in whole.items()] + slices
    tf.raw_ops.SaveSlices(
        filename=prefix,
        tensor_names=[name for name, _, _ in everything],
        shapes_and_slices=[spec for _, _, spec in everything],
        data=[tensorflow_side.constant(value) for _, value, _ in everything],
    )
    try:
        with Reader(prefix):
            pass
    except tfckpt.CheckpointError as error:
        assert error.code_name == "UNIMPLEMENTED", error
        pytest.skip("V1 cannot be read yet")
    return prefix


def test_the_debug_string_of_v1_has_the_same_lines(saved_v1: str) -> None:
    expected = py_checkpoint_reader.NewCheckpointReader(saved_v1).debug_string().splitlines()
    assert b"p (DT_INT64) [4,6], 2 slices" in expected
    assert b"one (DT_INT64) [4,6]" in expected
    with Reader(saved_v1) as reader:
        assert reader.debug_string().splitlines() == sorted(expected)
    assert sorted(ours(saved_v1).splitlines()) == sorted(theirs(saved_v1).splitlines())


def test_tensors_of_v1(saved_v1: str) -> None:
    assert ours(saved_v1, "--all-names") == theirs(saved_v1, all_tensor_names=True)
    for number in (1, 2, 3, 4, 5, 6, 7, 9, 10):
        assert ours(saved_v1, "--tensor", f"t{number}") == theirs(saved_v1, tensor_name=f"t{number}")
