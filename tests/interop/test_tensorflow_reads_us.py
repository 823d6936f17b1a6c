"""TensorFlow reads what the library writes, by every way that it has of reading."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest
import tensorflow as tf

import table_file
import tensorflow_side
import tfckpt
from tensorflow_side import v1
from tfckpt import Part, Request
from values import ALL_DTYPES, PARTIAL_DTYPES, assert_same, box, dtype_id, part, tensor

SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3), (1, 2, 1, 3, 1)]
SAVER_DTYPES = [1, 2, 3, 4, 7, 9, 10, 14, 19]
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
each_dtype = pytest.mark.parametrize("number", ALL_DTYPES, ids=dtype_id)


def requests_for(tensors: dict[str, np.ndarray]) -> list[Request]:
    """A request for each tensor, whole."""
    return [Request(key, value.dtype, value.shape) for key, value in tensors.items()]


def assert_tensorflow_restores(prefix: str, tensors: dict[str, np.ndarray]) -> None:
    """`RestoreV2` of everything in one call."""
    for (key, value), theirs in zip(tensors.items(), tensorflow_side.restore(prefix, requests_for(tensors))):
        assert_same(theirs, value, key)


def mixed(num: int = 40) -> dict[str, np.ndarray]:
    """Tensors of all dtypes and shapes in no particular order."""
    order = [(i * 17) % num for i in range(num)]
    return {f"t{i:02}": tensor(ALL_DTYPES[i % len(ALL_DTYPES)], SHAPES[i % len(SHAPES)], i) for i in order}


@each_dtype
def test_every_dtype_in_every_kind_of_shape(number: int, prefix: str) -> None:
    tensors = {f"shape{list(shape)}": tensor(number, shape) for shape in SHAPES}
    tfckpt.save(prefix, tensors)
    assert_tensorflow_restores(prefix, tensors)


def test_the_checkpoint_reader_lists_and_loads_all(prefix: str) -> None:
    tensors = mixed()
    tfckpt.save(prefix, tensors)
    reader = tf.train.load_checkpoint(prefix)
    assert reader.get_variable_to_shape_map() == {k: list(v.shape) for k, v in tensors.items()}
    assert {k: t.as_datatype_enum for k, t in reader.get_variable_to_dtype_map().items()} == {
        k: tfckpt.dtype_number(v.dtype) for k, v in tensors.items()
    }
    for key, value in tensors.items():
        if value.dtype.names is None:  # NumPy has no type of its own for quantized numbers
            assert_same(np.asarray(reader.get_tensor(key), value.dtype), value, key)


def test_list_variables_sees_partitioned_and_plain_tensors(prefix: str) -> None:
    full = tensor(1, (4, 6))
    tfckpt.save(
        prefix, [("p", part(full, "0,2:-")), ("p", part(full, "2,2:-")), ("a", tensor(9, ())), ("z", full)]
    )
    assert tf.train.list_variables(prefix) == [("a", []), ("p", [4, 6]), ("z", [4, 6])]
    assert_same(tf.train.load_variable(prefix, "p"), full)


def test_a_saver_restores_its_variables(prefix: str) -> None:
    tensors = {f"v_{dtype_id(n)}": tensor(n, (2, 3)) for n in SAVER_DTYPES}
    tfckpt.save(prefix, dict(sorted(tensors.items())))
    for key, value in tensorflow_side.restore_with_saver(prefix, tensors).items():
        assert_same(value, tensors[key], key)


def test_a_saver_restores_partitioned_variables(prefix: str) -> None:
    full = tensor(2, (7, 4))
    cuts = ["0,3:0,4", "3,2:0,4", "5,2:0,4"]
    tfckpt.save(prefix, [("part", part(full, cut)) for cut in cuts])
    with tf.Graph().as_default(), tensorflow_side.session() as running:
        variable = v1.get_variable(
            "part", [7, 4], tf.float64, partitioner=tf.compat.v1.fixed_size_partitioner(3)
        )
        v1.train.Saver().restore(running, prefix)
        assert_same(running.run(tf.convert_to_tensor(variable)), full)


@each_dtype
def test_slices_are_restored_one_by_one(number: int, prefix: str) -> None:
    full = tensor(number, (4, 6))
    cuts = ["0,1:0,4", "0,1:4,2", "1,3:0,1", "1,3:1,5"]
    tfckpt.save(prefix, [("x", part(full, cut)) for cut in cuts])
    requests = [Request("x", full.dtype, full[box(cut, full.shape)].shape, f"4 6 {cut}") for cut in cuts]
    for cut, restored in zip(cuts, tensorflow_side.restore(prefix, requests)):
        assert_same(restored, full[box(cut, full.shape)], cut)


@pytest.mark.parametrize("number", PARTIAL_DTYPES, ids=dtype_id)
def test_parts_are_restored_from_slices_and_from_a_whole_tensor(number: int, prefix: str) -> None:
    full = tensor(number, (4, 6))
    tfckpt.save(prefix, [("x", part(full, "0,1:-")), ("x", part(full, "1,3:-")), ("y", full)])
    specs = ["", "4 6 -:-", "4 6 0,2:1,3", "4 6 -:5,1", "4 6 3,1:-"]
    for key in "xy":
        wanted = [full[box(spec.split()[-1], full.shape)] if spec else full for spec in specs]
        requests = [Request(key, full.dtype, w.shape, spec) for w, spec in zip(wanted, specs)]
        for spec, value, restored in zip(specs, wanted, tensorflow_side.restore(prefix, requests)):
            assert_same(restored, value, (key, spec))


def test_a_step_and_a_state_file_for_latest_checkpoint(tmp_path: pathlib.Path) -> None:
    directory = str(tmp_path)
    for step in (1, 2, 30):
        saved = tfckpt.save(f"{directory}/m", {"x": np.float32([step])}, global_step=step, update_state=1)
        assert saved == f"{directory}/m-{step}"
        assert tf.train.latest_checkpoint(directory) == saved
        assert tf.train.load_variable(directory, "x") == [step]
    state = tf.train.get_checkpoint_state(directory)
    assert list(state.all_model_checkpoint_paths) == [f"{directory}/m-{step}" for step in (1, 2, 30)]


def test_a_padded_step_and_relative_paths(tmp_path: pathlib.Path) -> None:
    directory = str(tmp_path)
    saved = tfckpt.save(
        f"{directory}/m",
        {"x": np.float32([1])},
        global_step=42,
        pad_step_number=1,
        update_state=1,
        save_relative_paths=1,
    )
    assert saved == f"{directory}/m-00000042"
    assert '"m-00000042"' in (tmp_path / "checkpoint").read_text()
    assert tf.train.latest_checkpoint(directory) == saved


@pytest.mark.parametrize("alignment", [0, 1, 2, 64, 4096, 1 << 20])
def test_padding_between_tensors(alignment: int, prefix: str) -> None:
    tensors = mixed(12 if alignment > 4096 else 40)
    tfckpt.save(prefix, tensors, alignment=alignment)
    assert_tensorflow_restores(prefix, tensors)
    offsets = [table_file.read_entry(prefix, key.encode()).offset for key in tensors]
    assert all(offset % max(alignment, 1) == 0 for offset in offsets)


def test_an_aligned_checkpoint_can_be_viewed(prefix: str) -> None:
    tensors = {f"t{i}": tensor(2, (i,)) for i in range(1, 9)} | {"b": tensor(4, (5,))}
    tfckpt.save(prefix, tensors, alignment=64)
    with tfckpt.Reader(prefix) as reader:
        for key, value in tensors.items():
            assert reader.view(key) == value.tobytes()


@pytest.mark.parametrize("limit", [1, 100, 1000, 10_000_000])
def test_several_shards_by_size(limit: int, prefix: str) -> None:
    full = tensor(1, (4, 6))
    tensors = mixed()
    parts = [*tensors.items(), ("p", part(full, "0,1:-")), ("p", part(full, "1,3:-"))]
    tfckpt.save(prefix, parts, max_shard_size=limit)
    assert_tensorflow_restores(prefix, tensors | {"p": full})
    folder = pathlib.Path(prefix).parent
    shards = sorted(folder.glob("*.data-*"))
    with tfckpt.Reader(prefix) as reader:
        assert reader.num_shards == len(shards)
        assert reader.verify() == []
    assert (len(shards) == 1) == (limit == 10_000_000)


def test_one_shard_per_device(prefix: str) -> None:
    tensors = mixed()
    placed = {k: Part(v, "", f"/device:CPU:{i % 12}") for i, (k, v) in enumerate(tensors.items())}
    tfckpt.save(prefix, placed, shard_by_device=1)
    assert_tensorflow_restores(prefix, tensors)
    assert len(list(pathlib.Path(prefix).parent.glob("*.data-*-of-00012"))) == 12


def test_an_object_restores_from_a_name_based_file(prefix: str) -> None:
    tensors = {"kernel": tensor(1, (2, 3)), "bias": tensor(1, (3,)), "step": np.array(5, np.int64)}
    tfckpt.save(prefix, tensors)
    variables = {k: tf.Variable(np.zeros_like(v), name=k) for k, v in tensors.items()}
    tf.train.Checkpoint(**variables).restore(prefix).assert_consumed()
    for key, value in tensors.items():
        assert_same(variables[key].numpy(), value, key)


def test_an_object_restores_from_an_object_based_file_that_we_copied(prefix: str, other_prefix: str) -> None:
    values = {"a": tensor(1, (3, 2)), "b": tensor(7, (4,))}
    tf.train.Checkpoint(**{k: tf.Variable(tensorflow_side.constant(v)) for k, v in values.items()}).write(
        other_prefix
    )
    tfckpt.save(prefix, tfckpt.restore_all(other_prefix))
    copies = {k: tf.Variable(tf.zeros_like(tensorflow_side.constant(v))) for k, v in values.items()}
    tf.train.Checkpoint(**copies).read(prefix).assert_consumed()
    for key, value in values.items():
        assert_same(copies[key].numpy(), value, key)


def test_a_prefix_is_saved_to_again_and_again(prefix: str) -> None:
    for round_number in range(4):
        tensors = {f"x{i}": tensor(1, (round_number + i,), round_number) for i in range(3)}
        tfckpt.save(prefix, tensors, update_state=round_number % 2, no_sync=round_number < 2)
        assert_tensorflow_restores(prefix, tensors)
    assert not [
        f.name for f in pathlib.Path(prefix).parent.iterdir() if ".tmp" in f.name or ".prev" in f.name
    ]


def test_a_synced_save_leaves_the_same_files_as_one_that_is_not(prefix: str, other_prefix: str) -> None:
    tensors = mixed()
    tfckpt.save(prefix, tensors, no_sync=False)
    tfckpt.save(other_prefix, tensors, no_sync=True)
    for suffix in (".index", ".data-00000-of-00001"):
        assert pathlib.Path(prefix + suffix).read_bytes() == pathlib.Path(other_prefix + suffix).read_bytes()
    assert_tensorflow_restores(prefix, tensors)


def test_a_tensor_of_many_chunks(prefix: str) -> None:
    tensors = {"a": tensor(4, (7,)), "big": tensor(1, (5_000_001,)), "z": tensor(9, (3,))}
    stats = tfckpt.new_stats()
    tfckpt.save(prefix, tensors, stats=stats)
    assert_tensorflow_restores(prefix, tensors)
    assert (stats.num_tensors, stats.bytes) == (3, sum(value.nbytes for value in tensors.values()))


def test_a_saved_model_with_its_variables_written_by_us(tmp_path: pathlib.Path) -> None:
    module = tf.Module()
    module.v = tf.Variable([1.0, 2.0])
    tf.saved_model.save(module, str(tmp_path / "saved"))
    variables = str(tmp_path / "saved" / "variables" / "variables")
    tensors = tfckpt.restore_all(variables)
    tensors[f"v{VALUE}".encode()] = np.float32([3.0, 4.0])
    tfckpt.save(variables, tensors)
    assert_same(tf.saved_model.load(str(tmp_path / "saved")).v.numpy(), np.float32([3.0, 4.0]))


@pytest.mark.parametrize("budget", [2 << 20, 64 << 20])
def test_what_was_saved_in_the_background_is_what_the_tensors_were(prefix: str, budget: int) -> None:
    before = mixed() | {"large": tensor(1, (1500, 1000))}
    tensors = {key: value.copy() for key, value in before.items()}
    job = tfckpt.save_async(prefix, tensors, max_host_bytes=budget)
    for value in tensors.values():
        value[...] = np.zeros((), value.dtype)
    assert job.wait() == prefix
    assert_tensorflow_restores(prefix, before)


def test_a_saver_trains_on_while_it_saves(tmp_path: pathlib.Path) -> None:
    weights = np.zeros((300, 1000), np.float32)
    saver = tfckpt.Saver({"w": weights}, max_to_keep=2)
    jobs = []
    for step in range(1, 5):
        weights[...] = step
        jobs.append(saver.save_async(str(tmp_path / "model.ckpt"), global_step=step))
    weights[...] = 0
    prefixes = [job.wait() for job in jobs]
    assert tf.train.latest_checkpoint(str(tmp_path)) == prefixes[-1]
    assert [path for path, _ in saver.last_checkpoints_with_time()] == prefixes[-2:]
    for step in (3, 4):
        expected = np.full((300, 1000), step, np.float32)
        assert_tensorflow_restores(str(tmp_path / f"model.ckpt-{step}"), {"w": expected})
    assert not v1.train.checkpoint_exists(prefixes[0])
