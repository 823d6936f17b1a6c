"""Each argument and method of `Saver`, given to TensorFlow and to us."""

from __future__ import annotations

import os
import pathlib
import re
import shutil
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import saver_pb2

import saver_ours
import saver_tensorflow
import tfckpt
from saver_model import BOOL, STRING, Options, Save, Variable
from saver_pair import OURS, THEIRS, Pair, our_arguments
from saver_run import Failure
from tensorflow_side import v1

V1_DTYPES = [1, 2, 3, 4, 5, 6, STRING, 8, 9, BOOL, 17, 18, 19]
VERSIONS = pytest.mark.parametrize("version", [2, 1], ids=["V2", "V1"])
SHARDED = pytest.mark.parametrize("sharded", [False, True], ids=["one file", "sharded"])
WRAPPER = (
    "Restoring from checkpoint failed. This is most likely due to {} from the checkpoint. Please ensure that you "
    "have not altered the graph expected based on the checkpoint. Original error:\n\n"
)
MISSING = WRAPPER.format("a Variable name or other graph key that is missing")
MISMATCH = WRAPPER.format("a mismatch between the current graph and the graph")
A, B = Variable("a", 1, (3, 2)), Variable("b", STRING, (2,))


@pytest.fixture
def make(tmp_path: pathlib.Path) -> Iterator[Any]:
    """Makes a pair of sides with these variables."""
    made = []

    def make(*variables: Variable, **options: Any) -> Pair:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        made.append(Pair(folder, *(variables or (A, B)), **options))
        return made[-1]

    yield make
    for pair in made:
        pair.close()


def refused(call: Any, *arguments: Any, **named: Any) -> tuple[str, str]:
    """The code and our text, without what we add to TensorFlow's, of a call that both refuse."""
    with pytest.raises(Failure) as failure:
        call(*arguments, **named)
    return failure.value.code, re.sub(r" \[(tensor|file)=.*\]$", "", failure.value.texts[0])


def move(pair: Pair, other: Pair) -> None:
    """Lets other variables have the files of both sides."""
    for name in (THEIRS, OURS):
        shutil.copytree(pair.root / name, other.root / name, dirs_exist_ok=True)


def devices(num: int) -> list[Variable]:
    """A model on so many devices: whole and partitioned variables, more of them than devices."""
    names = [f"/cpu:{i}" for i in range(num)]
    whole = [
        Variable(f"v{i}", dtype, (i % 4, 2), (names[i % num],))
        for i, dtype in enumerate([1, 2, 3, 9, BOOL, STRING, 19, 1, 1, 1, 1, 1][: max(num - 4, 8)])
    ]
    # V1 files are equal for up to 16 tensors.
    return [*whole, Variable("p", 1, (7, 3), tuple(names[:4]), min(4, max(num, 2)))]


# ---- formats, shards, devices ----


@VERSIONS
@SHARDED
@pytest.mark.parametrize("num", [1, 2, 16])
def test_each_layout_both_ways(make: Any, version: int, sharded: bool, num: int) -> None:
    pair = make(*devices(num))
    pair.build(sharded=sharded, write_version=version)
    pair.train()
    path = pair.save("m", 1)
    assert path == ("m-1" if version == 2 or not sharded else f"m-1-?????-of-{min(num, 12):05}")
    saved = pair.restore(path)
    pair.train()
    assert pair.each(lambda side: side.values()) != saved
    pair.exchange()
    assert pair.restore(path) == saved


@VERSIONS
def test_sixteen_devices_are_sixteen_files_in_the_order_of_their_names(make: Any, version: int) -> None:
    pair = make(*[Variable(f"v{i:02}", 9, (1,), (f"/cpu:{i}",)) for i in range(16)])
    pair.build(sharded=True, write_version=version)
    pair.train()
    pair.save("m")
    infix = ".data" if version == 2 else ""
    assert [name for name in pair.listing() if name.endswith("-of-00016")] == [
        f"m{infix}-{i:05}-of-00016" for i in range(16)
    ]


@pytest.mark.parametrize(
    "names",
    [
        ["", "/device:CPU:0", "/cpu:1"],
        ["/cpu:10", "/cpu:2", "/cpu:1"],
        ["/job:localhost/cpu:1", "/job:localhost/replica:0/task:0/device:CPU:1", "/CPU:1"],
        ["cpu:3", "/device:CPU:3", "/cpu:3"],
    ],
    ids=str,
)
@VERSIONS
def test_devices_are_grouped_by_their_canonical_names(make: Any, version: int, names: list[str]) -> None:
    pair = make(*[Variable(f"v{i}", 3, (i + 1,), (name,)) for i, name in enumerate(names)])
    pair.build(sharded=True, write_version=version)
    pair.train()
    pair.restore(pair.save("m"))


@VERSIONS
@SHARDED
def test_every_dtype_both_ways(make: Any, version: int, sharded: bool) -> None:
    dtypes = V1_DTYPES if version == 1 else [*V1_DTYPES, 14, 22, 23]
    pair = make(*[Variable(f"v{i}", dtype, (3,), (f"/cpu:{i % 3}",)) for i, dtype in enumerate(dtypes)])
    pair.build(sharded=sharded, write_version=version)
    path = pair.save("m")
    pair.exchange()
    pair.restore(path)


@pytest.mark.parametrize("dtype", [14, 22, 23])
def test_dtypes_that_v1_does_not_write(make: Any, dtype: int) -> None:
    pair = make(Variable("a", dtype))
    pair.build(write_version=1)
    code, text = refused(pair.save, "m")
    assert code in ("UNIMPLEMENTED", "INVALID_ARGUMENT")
    assert not pair.listing()


@pytest.mark.parametrize("written", [1, 2])
@SHARDED
def test_a_saver_of_either_version_restores_the_other(make: Any, written: int, sharded: bool) -> None:
    pair = make(*devices(2))
    pair.build(sharded=sharded, write_version=written)
    pair.train()
    path = pair.save("m")
    pair.build(write_version=3 - written)
    pair.restore(path)


@VERSIONS
def test_more_than_sixteen_tensors_in_a_file(make: Any, version: int) -> None:
    pair = make(*[Variable(f"scope_{i * 7 % 40}/v", 1, (i % 3,)) for i in range(40)])
    pair.build(write_version=version)
    pair.restore(pair.save("m"))


# ---- arguments of the constructor ----


@VERSIONS
def test_a_part_of_the_variables_and_other_names(make: Any, version: int) -> None:
    pair = make(A, B, Variable("c", 9))
    pair.build(Options(keys=("c", "a"), renamed="other/"), write_version=version)
    pair.train()
    path = pair.save("m")
    pair.train()
    pair.restore(path)
    pair.build(write_version=version)
    code, text = refused(pair.restore, path)
    assert code == "NOT_FOUND"
    key = "Key a not found in checkpoint" if version == 2 else 'Tensor name "a" not found in checkpoint files m'
    assert text.startswith(MISSING + key)


@VERSIONS
@SHARDED
def test_partitioned_variables(make: Any, version: int, sharded: bool) -> None:
    parts = [Variable("p", 1, (7, 3), ("/cpu:0", "/cpu:1"), 3), Variable("q", 9, (5,), ("",), 2)]
    pair = make(*parts, A)
    pair.build(sharded=sharded, write_version=version)
    pair.train()
    path = pair.save("m")
    saved = pair.restore(path)
    # Other parts, and no parts, of the same variables: what they add up to is the same.
    for num in (2, 4, 0):
        shapes = {"p": (7, 3), "q": (5,)}
        others = [Variable(v.key, v.dtype, shapes[v.key], ("",), num) for v in parts]
        other = make(*others, A)
        move(pair, other)
        other.build()
        restored = other.restore(path)
        assert b"".join(restored[: num or 1]) == b"".join(saved[:3])


def test_reshape(make: Any) -> None:
    pair = make(Variable("a", 1, (3, 2)))
    pair.build()
    pair.train()
    path = pair.save("m")
    other = make(Variable("a", 1, (6,)))
    move(pair, other)
    other.build(reshape=True)
    (values,) = other.restore(path)
    assert [values] == pair.ours.values()
    # Without it the shape is an error here, always: docs/differences.md.
    other.build()
    with other.turn(OURS), pytest.raises(Failure) as failure:
        other.ours.restore(path)
    assert failure.value.code == "INVALID_ARGUMENT"
    assert failure.value.texts[0].startswith(
        MISMATCH + "tensor_name = a; shape in shape_and_slice spec [6] does not match the shape stored in "
        "checkpoint: [3,2]"
    )


def test_reshape_to_another_number_of_elements(make: Any) -> None:
    pair = make(Variable("a", 1, (4,)))
    pair.build()
    path = pair.save("m")
    other = make(Variable("a", 1, (5,)))
    move(pair, other)
    other.build(reshape=True)
    code, text = refused(other.restore, path)
    assert code == "INVALID_ARGUMENT"
    assert text.startswith(MISMATCH + "Input to reshape is a tensor with 4 values, but the requested shape has 5")


def test_restore_sequentially(make: Any) -> None:
    pair = make(*devices(16))
    pair.build(restore_sequentially=True, sharded=True)
    pair.train()
    path = pair.save("m")
    pair.train()
    pair.restore(path)


@pytest.mark.parametrize("step", [0, 7, -3, 99999999, 100000000, 2**62, -(2**62)])
@pytest.mark.parametrize("pad", [False, True], ids=["plain", "padded"])
def test_steps(make: Any, step: int, pad: bool) -> None:
    pair = make(Variable("a"))
    pair.build(pad_step_number=pad)
    path = pair.save("d/m", step)
    assert path == (f"d/m-{step:08d}" if pad else f"d/m-{step}")
    pair.restore(path)


@pytest.mark.parametrize("relative", [False, True], ids=["as given", "relative"])
@pytest.mark.parametrize(
    "path",
    [
        "m", "./m", "d/m", "d//../m", "a/../d/m", "{dir}/m", "{dir}/d/m", "{dir}/d/../m", "./d/./m", "../d/d/m",
        "zwölf/'\"m",
    ],  # fmt: skip
)
def test_paths_in_the_state_file(make: Any, path: str, relative: bool) -> None:
    pair = make(Variable("a"))
    for folder in ("a", "d", "zwölf"):
        pair.mkdir(folder)
    pair.build(save_relative_paths=relative, max_to_keep=2)
    for step in range(4):
        saved = pair.save(path, step)
    folder = os.path.dirname(path).replace("{dir}", str(pair.folder))
    assert pair.each(lambda side: side.latest_checkpoint(folder, None))
    pair.restore(saved)


def test_mixed_relative_and_absolute_paths(make: Any) -> None:
    pair = make(Variable("a"))
    pair.mkdir("d")
    for relative in (False, True):
        pair.build(save_relative_paths=relative, max_to_keep=3)
        for step, path in enumerate(["d/m", "{dir}/d/m", "d/m", "{dir}/d/n", "./d/m", "m"]):
            pair.save(path, step)


@pytest.mark.parametrize("filename", [None, "", "name", "d/name"])
def test_filename_is_where_a_save_without_a_path_goes(make: Any, filename: str | None) -> None:
    pair = make(A)
    pair.mkdir("d")
    pair.build(filename=filename)

    def theirs() -> str:
        return pair.theirs.session.run(pair.theirs.saver.saver_def.save_tensor_name).decode()

    saved = pair.both(theirs, lambda: pair.ours.saver.save(None, no_state=True))
    assert saved == (filename or "model")
    pair.restore(saved)


def test_no_path(make: Any) -> None:
    pair = make(A)
    pair.build()
    theirs = lambda: pair.theirs.call(lambda: pair.theirs.saver.restore(pair.theirs.session, None))  # noqa: E731
    ours = lambda: saver_ours.call(lambda: pair.ours.saver.restore(None))  # noqa: E731
    assert refused(pair.both, theirs, ours) == (
        "INVALID_ARGUMENT",
        "Can't load save_path when it is None.",
    )


def test_bind(make: Any) -> None:
    """What TensorFlow does by assigning to its variables, we do by other memory."""
    pair = make(A, B)
    pair.build()
    pair.save("m", 1)
    others = [(key, tfckpt.Part(np.array(part.data))) for key, part in pair.ours.tensors(Options())]
    pair.ours.saver.bind(others)
    others[0][1].data[...] += np.float32(1)
    pair.theirs.train()
    pair.save("m", 2)
    pair.ours.saver.bind(pair.ours.tensors(Options()))
    pair.restore("m-2")
    shorter = [("a", tfckpt.Part(np.zeros(5, np.float32)))]
    for tensors, code in [(shorter, "INVALID_ARGUMENT"), ([("x", shorter[0][1])], "NOT_FOUND")]:
        with pytest.raises(tfckpt.CheckpointError) as failure:
            pair.ours.saver.bind(tensors)
        assert failure.value.code_name == code


def test_allow_empty(make: Any) -> None:
    pair = make(A)
    assert refused(pair.build, Options(keys=())) == ("INVALID_ARGUMENT", "No variables to save")
    pair.build(Options(keys=()), allow_empty=True)
    assert pair.save("gone/gone/m", 3) is None
    assert not pair.listing()
    pair.restore("nothing")
    pair.each(lambda side: side.set_last_checkpoints(["x", "y"]))
    assert refused(pair.save, "checkpoint")[1].startswith("'latest_filename' collides with 'save_path'")


def test_build_cannot_be_deferred_with_variables(make: Any) -> None:
    pair = make(A)
    assert refused(pair.build, defer_build=True) == (
        "INVALID_ARGUMENT",
        "If `var_list` is provided then build cannot be deferred. Either set defer_build=False or var_list=None.",
    )


def test_defer_build(make: Any) -> None:
    pair = make(Variable("a"))
    pair.build(Options(keys=()), defer_build=True)
    assert refused(pair.save, "m") == (
        "FAILED_PRECONDITION",
        "`build()` should be called before save if defer_build==True",
    )
    # It saves all variables of the graph, by the names of their ops.
    pair.theirs.call(pair.theirs.saver.build)
    pair.ours.saver.build([("v0_0", pair.ours.parts["a"][0])])
    pair.restore(pair.save("m"))
    # Once more: nothing.
    pair.theirs.call(pair.theirs.saver.build)
    pair.ours.saver.build()


@pytest.mark.parametrize("num", [2**31, 2**40])
def test_max_to_keep_out_of_range(make: Any, num: int) -> None:
    pair = make(A)
    with pair.theirs.graph.as_default(), pytest.raises(ValueError):
        v1.train.Saver(pair.theirs.var_list(Options()), max_to_keep=num)
    # The field of the C struct is narrower than Python's numbers; bytes of a SaverDef are not.
    with pytest.raises(tfckpt.CheckpointError) as failure:
        tfckpt.Saver(pair.ours.tensors(Options()), max_to_keep=-2)
    assert failure.value.code_name == "INVALID_ARGUMENT"


@pytest.mark.parametrize("version", [3, 7, -1])
def test_write_version_out_of_range(make: Any, version: int) -> None:
    pair = make(A)
    with pair.theirs.graph.as_default(), pytest.raises((TypeError, ValueError, RuntimeError)):
        v1.train.Saver(pair.theirs.var_list(Options()), write_version=version)
    with pytest.raises(tfckpt.CheckpointError) as failure:
        tfckpt.Saver(pair.ours.tensors(Options()), write_version=version)
    assert failure.value.code_name == "INVALID_ARGUMENT"


def errors_of(theirs: Any, ours: Any) -> tuple[str, str]:
    """The texts of two constructors that fail."""
    with tf.Graph().as_default(), pytest.raises(ValueError) as their_failure:
        theirs()
    with pytest.raises(tfckpt.CheckpointError) as our_failure:
        ours()
    assert our_failure.value.code_name == "INVALID_ARGUMENT"
    return str(their_failure.value), our_failure.value.message


def test_names_given_twice() -> None:
    def theirs() -> None:
        variable = v1.Variable([1.0], name="a")
        v1.train.Saver([variable, variable])

    array = np.zeros(1, np.float32)
    text, our = errors_of(theirs, lambda: tfckpt.Saver([("a", array), ("a", array)]))
    assert text.startswith("At least two variables have the same name: a") and our.startswith(text)


def test_one_variable_under_two_names() -> None:
    def theirs() -> None:
        variable = v1.Variable([1.0], name="a")
        v1.train.Saver({"x": variable, "y": variable})

    part = tfckpt.Part(np.zeros(1, np.float32), variable_name="a")
    text, our = errors_of(theirs, lambda: tfckpt.Saver([("y", part), ("x", part)]))
    assert text == "The same saveable will be restored with two names: y" and our.startswith(text)


def test_tensors_of_a_saveable_on_two_devices() -> None:
    def theirs() -> None:
        specs = []
        for i in range(2):
            with tf.device(f"/cpu:{i}"):
                tensor = tf.constant([1.0])
                specs.append(_spec(tensor, f"k{i}"))
        v1.train.Saver([_Saveable(specs, "table")], sharded=True)

    def ours() -> None:
        requests = [
            tfckpt.Request(f"k{i}", np.dtype(np.float32), (1,), device_name=f"/cpu:{i}") for i in range(2)
        ]
        saveable = tfckpt.Saveable("table", requests, list, print)
        tfckpt.Saver([], [saveable], sharded=True)

    text, our = errors_of(theirs, ours)
    assert text == "All tensors of a saveable object must be on the same device: table" and our.startswith(text)


def _spec(tensor: Any, name: str) -> Any:
    from tensorflow.python.training.saving import saveable_object

    return saveable_object.SaveSpec(tensor, "", name, dtype=tensor.dtype, device=tensor.device)


class _Saveable:
    """Made below, once TensorFlow's class is there."""

    def __new__(cls, specs: list[Any], name: str) -> Any:
        from tensorflow.python.training.saving import saveable_object

        class Saveable(saveable_object.SaveableObject):
            restored: Any = None

            def restore(self, restored_tensors: list[Any], restored_shapes: Any) -> Any:
                del restored_shapes
                return tf.group(*[v.assign(t) for v, t in zip(self.variables, restored_tensors)])

        return Saveable(specs[0].tensor, specs, name)


# ---- saveables ----


@VERSIONS
@SHARDED
def test_a_saveable_of_several_tensors(make: Any, version: int, sharded: bool) -> None:
    """Its tensors stay together, in the place of its own name: they are not sorted among the others."""
    pair = make(Variable("a"), Variable("m"), Variable("z"))
    keys, values = np.arange(4), np.arange(4, dtype=np.float32) / 2
    with pair.theirs.graph.as_default():
        variables = [v1.Variable(array, use_resource=True) for array in (values, keys)]
        pair.theirs.session.run([variable.initializer for variable in variables])
        specs = [_spec(v, name) for v, name in zip(variables, ("table-values", "b-keys"))]
        for spec, variable in zip(specs, variables):
            spec._tensor = variable.value()
        saveable = _Saveable(specs, "table")
        saveable.variables = variables
        named = pair.theirs.var_list(Options())
        pair.theirs.saver = v1.train.Saver(
            {**named, "table": saveable}, sharded=sharded, write_version=version
        )
    restored: list[list[np.ndarray]] = []
    requests = [
        tfckpt.Request("table-values", values.dtype, (4,)),
        tfckpt.Request("b-keys", keys.dtype, (4,)),
    ]
    ours = tfckpt.Saveable("table", requests, lambda: [values, keys], restored.append)
    arguments = our_arguments({"sharded": sharded, "write_version": version})
    pair.ours.saver = tfckpt.Saver(pair.ours.tensors(Options()), [ours], **arguments)
    path = pair.save("m")
    pair.exchange()
    pair.restore(path)
    assert [array.tolist() for array in restored[0]] == [values.tolist(), keys.tolist()]


# ---- save ----


@pytest.mark.parametrize("name", ["a/b", "/a", "a/"])
def test_latest_filename_with_a_folder(make: Any, name: str) -> None:
    pair = make(A)
    pair.build()
    assert refused(pair.save, "m", 1, latest_filename=name) == (
        "INVALID_ARGUMENT",
        "'latest_filename' must not contain path components",
    )


@VERSIONS
def test_latest_filename(make: Any, version: int) -> None:
    pair = make(A)
    pair.build(write_version=version)
    pair.save("m", 1, latest_filename="state")
    assert "state" in pair.listing() and "checkpoint" not in pair.listing()
    assert pair.each(lambda side: side.latest_checkpoint("", "state")) == "m-1"
    assert pair.each(lambda side: side.latest_checkpoint("", None)) is None
    for path, name in [("checkpoint", None), ("./checkpoint", "checkpoint"), ("d/m", "m"), ("m", "m")]:
        code, text = refused(pair.save, path, latest_filename=name)
        assert (code, text) == (
            "INVALID_ARGUMENT",
            f"'latest_filename' collides with 'save_path': '{name or 'checkpoint'}' and '{path}'",
        )


@VERSIONS
def test_a_name_of_the_state_file_with_a_step(make: Any, version: int) -> None:
    pair = make(A)
    pair.build(write_version=version)
    assert pair.save("checkpoint", 1) == "checkpoint-1"
    pair.restore("checkpoint-1")


# Parent folders: path, made before, what is refused of (V2, V2 sharded, V1, V1 sharded).
PARENTS = {
    "there": ("d/m", "", "----"),
    "one level missing": ("new/m", "", "-xxx"),
    "two levels missing": ("new/deep/m", "", "xxxx"),
    "a file": ("f/m", "f", "xxxx"),
    "below a file": ("f/g/m", "f", "xxxx"),
    "absolute, one level missing": ("{dir}/new/m", "", "-xxx"),
    "absolute, two levels missing": ("{dir}/new/deep/m", "", "xxxx"),
    "back from one that is missing": ("new/../d/m", "", "----"),
    "back from a missing one to a missing one": ("gone/../new/m", "", "-xxx"),
}


@VERSIONS
@SHARDED
@pytest.mark.parametrize(("path", "file", "refusing"), PARENTS.values(), ids=PARENTS)
def test_parent_folders(
    make: Any, version: int, sharded: bool, path: str, file: str, refusing: str
) -> None:
    pair = make(A, Variable("c", 3, (), ("/cpu:1",)))
    pair.mkdir("d")
    if file:
        pair.write(file, "x")
    pair.build(write_version=version, sharded=sharded)
    expected = refusing[2 * (version == 1) + sharded]
    if expected == "-":
        pair.restore(pair.save(path, 1))
        return
    given = path.replace("{dir}", str(pair.folder))
    assert refused(pair.save, path, 1) == (
        "INVALID_ARGUMENT",
        f"Parent directory of {given} doesn't exist, can't save.",
    )
    assert pair.ours.last_checkpoints() == []


def test_write_state_off(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=1)
    for step in range(3):
        pair.save("m", step, write_state=False)
    assert "checkpoint" not in pair.listing()
    assert "m-0.index" in pair.listing()
    pair.save("m", 3)
    pair.save("m", 4)
    assert "m-3.index" not in pair.listing()


@pytest.mark.parametrize("version", [1, 2])
def test_meta_graph_suffix(make: Any, version: int) -> None:
    pair = make(A)
    pair.build(max_to_keep=1, write_version=version)
    for step, suffix in enumerate(["meta", "graph", "meta", "graph"]):
        for kind in ("meta", "graph"):
            pair.write(f"m-{step}.{kind}")
        pair.save("m", step, suffix=suffix)
    left = {name for name in pair.listing() if name.endswith(("meta", "graph"))}
    assert left == {"m-0.meta", "m-1.graph", "m-2.meta", "m-3.meta", "m-3.graph"}


def test_overwriting_with_fewer_shards_leaves_the_others(make: Any) -> None:
    pair = make(*devices(16))
    for sharded in (True, False):
        pair.build(sharded=sharded)
        pair.train()
        pair.save("m")
    assert "m.data-00001-of-00012" in pair.listing() or "m.data-00001-of-00016" in pair.listing()
    pair.restore("m")


# ---- retention ----


def hours(times: list[float], every: float, **arguments: Any) -> Any:
    def run(pair: Pair) -> list[int]:
        """Saves at these minutes after the building; returns the minutes of those that stay."""
        pair.build(keep_checkpoint_every_n_hours=every, **arguments)
        start = pair.now_ns
        for step, minute in enumerate(times):
            pair.now_ns = start + int(minute * 60 * 10**9)
            pair.save("m", step)
        return [minute for step, minute in enumerate(times) if f"m-{step}.index" in pair.listing()]

    return run


def test_one_checkpoint_an_hour_is_kept(make: Any) -> None:
    run = hours([10 * i for i in range(1, 26)], 1, max_to_keep=3)
    assert run(make(A)) == [70, 130, 190, 230, 240, 250]


def test_all_are_kept_while_the_grid_lags_behind(make: Any) -> None:
    times = [300 * i for i in range(1, 9)]
    assert hours(times, 1, max_to_keep=1)(make(A)) == times


@pytest.mark.parametrize("every", [None, 0])
def test_nothing_is_deleted_that_is_younger_than_the_saver(make: Any, every: float | None) -> None:
    assert hours([0, 1, 2, 3], every, max_to_keep=1)(make(A)) == [1, 2, 3]


@pytest.mark.parametrize("every", [float("nan"), float("inf"), 1e30])
def test_hours_that_never_come(make: Any, every: float) -> None:
    assert hours([1, 2, 3, 1e6], every, max_to_keep=2)(make(A)) == [3, 1e6]


def test_hours_are_rounded_to_a_float(make: Any) -> None:
    every = 0.1  # 360.00000536 s as a float
    edge = float(np.float32(every)) * 60
    pair = make(A)
    left = hours([6, edge, edge + 1e-9, edge + 1e-6, 100], every, max_to_keep=1)(pair)
    assert 6 not in left and left[-1] == 100


@pytest.mark.parametrize("num", [0, None])
def test_keep_all(make: Any, num: int | None) -> None:
    pair = make(A)
    pair.build(max_to_keep=num)
    for step in range(8):
        pair.save("m", step)
    assert len([name for name in pair.listing() if name.endswith(".index")]) == 8
    assert (pair.root / OURS / "checkpoint").read_text().count("m-") == 2
    pair.each(lambda side: side.set_last_checkpoints(["x", "y"]))
    pair.save("m", 9)
    assert pair.ours.last_checkpoints() == ["x", "y"]


def test_one_deletion_for_each_save(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=5)
    for step in range(5):
        pair.save("m", step)
    pair.advance(60)
    pair.build(max_to_keep=2)
    pair.each(lambda side: side.recover_last_checkpoints([f"m-{i}" for i in range(5)]))
    for step in range(5, 8):
        pair.save("m", step)
    assert pair.ours.last_checkpoints() == [f"m-{i}" for i in range(3, 8)]


def test_what_was_set_is_never_deleted(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=1)
    pair.save("m", 1)
    pair.each(lambda side: side.set_last_checkpoints(["m-1"]))
    pair.save("m", 2)
    pair.save("m", 3)
    assert "m-1.index" in pair.listing() and "m-2.index" not in pair.listing()


def test_the_same_path_again_and_again(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=2)
    for path in ["a", "b", "a", "a", "c", "b", "d", "a"]:
        pair.advance(1)
        pair.train()
        pair.save(path)
    assert pair.ours.last_checkpoints() == ["d", "a"]


def test_two_savers_in_one_folder(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=2)
    first = (pair.theirs.saver, pair.ours.saver)
    pair.build(max_to_keep=2)
    second = (pair.theirs.saver, pair.ours.saver)
    for step in range(6):
        pair.theirs.saver, pair.ours.saver = (first, second)[step % 2]
        pair.save("m", step)


@VERSIONS
@SHARDED
def test_resuming_from_the_state_file(make: Any, version: int, sharded: bool) -> None:
    pair = make(*devices(2))
    for start in (0, 4, 8):
        pair.build(max_to_keep=3, write_version=version, sharded=sharded)
        latest = pair.each(lambda side: side.latest_checkpoint("", None))
        assert (latest is None) == (start == 0)
        if latest:
            pair.restore(latest)
            pair.each(lambda side: side.recover_last_checkpoints(side.state_paths("", None)))
        for step in range(start, start + 4):
            pair.train()
            pair.advance(600)
            pair.save("m", step)
    left = {name.removeprefix("m-").split(".")[0].split("-")[0] for name in pair.listing() if name.startswith("m-")}
    assert left == {"9", "10", "11"}


# ---- restore ----


@pytest.mark.parametrize("path", ["gone", "d/gone", "m-1.index", "m-2", "m-?????-of-00002"])
def test_no_checkpoint(make: Any, path: str) -> None:
    pair = make(A)
    pair.build()
    pair.save("m", 1)
    if path == "m-1.index":
        return  # explained: tests/c/errors.c
    assert refused(pair.restore, path) == (
        "INVALID_ARGUMENT",
        f"The passed save_path is not a valid checkpoint: {path}",
    )


@VERSIONS
def test_missing_names(make: Any, version: int) -> None:
    pair = make(A, Variable("c"), Variable("e"))
    pair.build(Options(keys=("c",)), write_version=version)
    path = pair.save("m")
    pair.build(write_version=version)
    code, text = refused(pair.restore, path)
    assert code == "NOT_FOUND" and text.startswith(MISSING)
    assert pair.ours.values() == pair.theirs.values()


@VERSIONS
@pytest.mark.parametrize(
    "dtypes", [(3, 9, STRING), (3, 2, STRING), (STRING, 9, STRING), (3, 3, 3), (1, 9, 1)], ids=str
)
def test_other_dtypes(make: Any, version: int, dtypes: tuple[int, ...]) -> None:
    pair = make(Variable("a", 1), Variable("b", 9), Variable("c", STRING))
    pair.build(write_version=version)
    path = pair.save("m")
    other = make(*[Variable(key, dtype) for key, dtype in zip("abc", dtypes)])
    move(pair, other)
    other.build()
    code, text = refused(other.restore, path)
    assert code == "INVALID_ARGUMENT" and text.startswith(MISMATCH)


def test_another_dtype_of_a_later_tensor_in_a_v1_file(make: Any) -> None:
    """TensorFlow names the dtype of the first tensor asked for. A difference: docs/differences.md."""
    pair = make(Variable("a", 1), Variable("b", 9))
    pair.build(write_version=1)
    path = pair.save("m")
    other = make(Variable("a", 1), Variable("b", 2))
    move(pair, other)
    other.build()
    texts = []
    for name, side in ((THEIRS, other.theirs), (OURS, other.ours)):
        with other.turn(name), pytest.raises(Failure) as failure:
            side.restore(path)
        assert failure.value.code == "INVALID_ARGUMENT"
        texts.append(failure.value.texts[0])
    text = MISMATCH + "Expected to restore a tensor of type {}, got a tensor of type int64 instead: tensor_name = b"
    assert texts[0].startswith(text.format("float"))
    assert texts[1].startswith(text.format("double"))


def test_damage_is_not_wrapped(make: Any) -> None:
    pair = make(Variable("a", 1, (100,)))
    pair.build()
    path = pair.save("m")
    for name in (THEIRS, OURS):
        data = pair.root / name / "m.data-00000-of-00001"
        flipped = bytearray(data.read_bytes())
        flipped[17] ^= 1
        data.write_bytes(flipped)
    code, text = refused(pair.restore, path)
    assert code == "DATA_LOSS" and not text.startswith("Restoring")


def test_a_missing_data_file(make: Any) -> None:
    pair = make(Variable("a", 1, (100,)))
    pair.build()
    path = pair.save("m")
    for name in (THEIRS, OURS):
        (pair.root / name / "m.data-00000-of-00001").unlink()
    code, text = refused(pair.restore, path)
    assert code == "NOT_FOUND" and text.startswith(MISSING)


# ---- checkpoints of tf.train.Checkpoint ----


def object_based(pair: Pair, **variables: tf.Variable) -> None:
    """Writes the same object-based checkpoint into both folders."""
    checkpoint = tf.train.Checkpoint(**variables)
    written = checkpoint.write(str(pair.root / "object"))
    for name in (THEIRS, OURS):
        for path in pair.root.glob("object.*"):
            (pair.root / name / path.name).write_bytes(path.read_bytes())
    assert written
    for path in pair.root.glob("object.*"):
        path.unlink()


def test_an_object_based_checkpoint_by_names(make: Any) -> None:
    pair = make(Variable("w", 1, (3,)), Variable("n/step", 9, ()))
    kernel = tf.Variable(np.array([5, 6, 7], np.float32), name="w")
    step = tf.Variable(np.int64(99), name="n/step")
    object_based(pair, layer=tf.train.Checkpoint(kernel=kernel), count=step)
    pair.build()
    values = pair.restore("object")
    assert values == [kernel.numpy().tobytes(), step.numpy().tobytes()]
    pair.restore("object")


def test_an_object_based_checkpoint_without_some_names(make: Any) -> None:
    pair = make(Variable("w", 1, (3,)), Variable("x", 9, ()), Variable("y"))
    object_based(
        pair, k=tf.Variable(np.zeros(3, np.float32), name="w"), o=tf.Variable(1.0, name="old"), p=tf.Variable(2)
    )
    pair.build()
    with pair.turn(THEIRS), pytest.raises(Failure) as theirs:
        pair.theirs.restore("object")
    with pair.turn(OURS), pytest.raises(Failure) as ours:
        pair.ours.restore("object")
    assert theirs.value.code == ours.value.code == "NOT_FOUND"
    # The names and their number are equal; the advice that follows is each one's own.
    advice = "Could not find some variables in the checkpoint (see names above)."
    beginning = theirs.value.texts[0].partition(advice)[0]
    assert beginning.startswith("\n\nExisting variables not in the checkpoint: x, y\n\n")
    assert ours.value.texts[0].startswith(beginning + advice)


# ---- SaverDef ----


@VERSIONS
@SHARDED
@pytest.mark.parametrize("name", [None, "ema", "a/b"])
def test_the_savers_definition(make: Any, version: int, sharded: bool, name: str | None) -> None:
    pair = make(*devices(2))
    for arguments in [{}, {"max_to_keep": 7}, {"max_to_keep": 0, "keep_checkpoint_every_n_hours": 0.1}]:
        with tf.Graph().as_default():
            variable = v1.Variable([1.0])
            theirs = v1.train.Saver(
                [variable], sharded=sharded, write_version=version, name=name, **arguments
            ).as_saver_def()
        pair.build(sharded=sharded, write_version=version, **arguments)
        translated = our_arguments({"sharded": sharded, "write_version": version, **arguments})
        ours = tfckpt.Saver([("a", np.zeros(1, np.float32))], name=name, **translated)
        assert ours.as_saver_def() == theirs.SerializeToString()
        # And both make savers of it.
        again = tfckpt.Saver([("a", np.zeros(1, np.float32))], saver_def=theirs.SerializeToString())
        assert again.as_saver_def() == theirs.SerializeToString()
        assert saver_pb2.SaverDef.FromString(ours.as_saver_def()) == theirs


@VERSIONS
@SHARDED
def test_a_saver_from_a_definition(make: Any, version: int, sharded: bool) -> None:
    pair = make(*devices(2))
    pair.build(max_to_keep=2, sharded=sharded, write_version=version, keep_checkpoint_every_n_hours=0.5)
    saver_def = pair.theirs.saver.as_saver_def()
    theirs = saver_def.SerializeToString()
    ours = saver_pb2.SaverDef.FromString(pair.ours.saver.as_saver_def())
    if sharded:
        ours.save_tensor_name = saver_def.save_tensor_name  # depends on what else is in the graph
    assert ours == saver_def
    # TensorFlow gets our definition, and we get TensorFlow's.
    saver_def = ours
    saver_tensorflow.CLOCK.now_ns = pair.now_ns
    pair.theirs.saver = pair.theirs.call(lambda: v1.train.Saver(saver_def=saver_def))
    tensors = pair.ours.tensors(Options())
    pair.ours.saver = tfckpt.Saver(tensors, saver_def=theirs, now_ns=pair.now_ns)
    for step in range(12):
        pair.advance(360)
        pair.train()
        path = pair.save("m", step)
    pair.restore(path)


def test_a_saver_from_a_definition_of_shards_minds_the_name_of_the_state_file(make: Any) -> None:
    """TensorFlow looks at the argument, not at the definition."""
    pair = make(A)
    pair.build(sharded=True)
    saver_def = pair.theirs.saver.as_saver_def()
    pair.theirs.saver = pair.theirs.call(lambda: v1.train.Saver(saver_def=saver_def))
    pair.ours.saver = tfckpt.Saver(pair.ours.tensors(Options()), saver_def=saver_def.SerializeToString())
    assert refused(pair.save, "d/checkpoint")[1].startswith("'latest_filename' collides with 'save_path'")


@pytest.mark.parametrize("field", ["save_tensor_name", "restore_op_name"])
def test_a_definition_without_a_name(field: str) -> None:
    saver_def = saver_pb2.SaverDef(
        filename_tensor_name="save/Const:0",
        save_tensor_name="save/control_dependency:0",
        restore_op_name="save/restore_all",
        max_to_keep=5,
        keep_checkpoint_every_n_hours=0.1,
        version=2,
    )
    saver_def.ClearField(field)
    array = np.zeros(1, np.float32)
    text, our = errors_of(
        lambda: v1.train.Saver(saver_def=saver_def),
        lambda: tfckpt.Saver([("a", array)], saver_def=saver_def.SerializeToString()),
    )
    assert text.startswith(f"saver_def must specify the {field}: ")
    assert our == text


@pytest.mark.parametrize("version", [0, 1, 2])
def test_definitions_of_each_version(version: int) -> None:
    saver_def = saver_pb2.SaverDef(
        filename_tensor_name="save/Const:0", save_tensor_name="save/Identity:0", restore_op_name="save/r",
        max_to_keep=3, sharded=True, version=version,
    )  # fmt: skip
    saver = tfckpt.Saver([("a", np.zeros(1, np.float32))], saver_def=saver_def.SerializeToString())
    assert saver_pb2.SaverDef.FromString(saver.as_saver_def()) == saver_def


@pytest.mark.parametrize(
    "saver_def",
    [b"\xff", b"\x0a\x05ab", b"\x20\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x7f", b"\x38\x07", b"\x20\x80"],
    ids=bytes.hex,
)
def test_bytes_that_are_no_definition(saver_def: bytes) -> None:
    with pytest.raises(tfckpt.CheckpointError) as failure:
        tfckpt.Saver([("a", np.zeros(1, np.float32))], saver_def=saver_def)
    assert failure.value.code_name == "INVALID_ARGUMENT"


def test_a_definition_with_an_import_scope(make: Any) -> None:
    pair = make(A)
    pair.build()
    saver_def = pair.theirs.saver.as_saver_def()
    theirs = saver_pb2.SaverDef()
    theirs.CopyFrom(saver_def)
    with tf.Graph().as_default():
        theirs = v1.train.Saver(saver_def=theirs, name="in/scope").as_saver_def()
    ours = tfckpt.Saver(
        pair.ours.tensors(Options()), saver_def=saver_def.SerializeToString(), name="in/scope"
    )
    assert ours.as_saver_def() == theirs.SerializeToString()


# ---- differences: docs/differences.md ----


@SHARDED
def test_a_save_to_the_name_of_the_state_file_leaves_nothing(make: Any, sharded: bool) -> None:
    pair = make(A)
    pair.build(sharded=sharded)
    path, name = ("{dir}/checkpoint", None) if sharded else ("{dir}/m", "m-1")
    failures = {}
    for side, each in ((THEIRS, pair.theirs), (OURS, pair.ours)):
        save = Save(path.replace("{dir}", str(pair.folder)), None if sharded else 1, name)
        with pair.turn(side), pytest.raises(Failure) as failure:
            each.save(save, pair.now_ns)
        failures[side] = failure.value
    assert failures[OURS].code == failures[THEIRS].code == "FAILED_PRECONDITION"
    assert failures[OURS].texts[0].startswith(failures[THEIRS].texts[0])
    assert pair.theirs.last_checkpoints() and not pair.ours.last_checkpoints()
    assert os.listdir(pair.root / THEIRS) and not os.listdir(pair.root / OURS)


def test_a_checkpoint_under_two_spellings_keeps_its_files(make: Any) -> None:
    pair = make(A)
    pair.build(max_to_keep=1)
    pair.save("m")
    for name, side in ((THEIRS, pair.theirs), (OURS, pair.ours)):
        with pair.turn(name):
            side.save(Save("./m"), pair.now_ns)
    assert pair.theirs.last_checkpoints() == pair.ours.last_checkpoints() == ["./m"]
    assert os.listdir(pair.root / THEIRS) == ["checkpoint"]
    assert sorted(os.listdir(pair.root / OURS)) == ["checkpoint", "m.data-00000-of-00001", "m.index"]


def test_a_negative_number_to_keep(make: Any) -> None:
    pair = make(A)
    for arguments in [{"max_to_keep": -2}, {"saver_def": saver_def_of(max_to_keep=-1)}]:
        with pytest.raises(tfckpt.CheckpointError) as failure:
            tfckpt.Saver(pair.ours.tensors(Options()), **arguments)
        assert failure.value.code_name == "INVALID_ARGUMENT"


def saver_def_of(**fields: Any) -> bytes:
    names = {"filename_tensor_name": "f", "save_tensor_name": "s", "restore_op_name": "r"}
    return saver_pb2.SaverDef(**names, **{"version": 2, **fields}).SerializeToString()


def test_negative_hours_are_none(make: Any) -> None:
    pair = make(A)
    listings = []
    for options in [{"keep_checkpoint_every_n_hours": -3.0}, {"keep_checkpoint_every_n_hours": -1e-9}]:
        pair.ours.saver = tfckpt.Saver(
            pair.ours.tensors(Options()), max_to_keep=1, now_ns=pair.now_ns, **options
        )
        with pair.turn(OURS):
            # The first is as old as the saver, the others are younger.
            for step in range(3):
                pair.ours.saver.save("m", global_step=step, now_ns=pair.now_ns + step * 10**9)
        listings.append(pair.listing())
    assert listings[0] == listings[1]
    assert "m-0.index" not in listings[0] and "m-1.index" in listings[0]


def test_an_empty_name_of_the_state_file(make: Any) -> None:
    pair = make(A)
    pair.build()
    with pair.turn(OURS), pytest.raises(Failure) as failure:
        pair.ours.save(Save("m", latest_filename=""), pair.now_ns)
    assert failure.value.code == "INVALID_ARGUMENT"
    assert not pair.listing()
