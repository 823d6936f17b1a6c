"""The library reads what TensorFlow writes: Savers, Checkpoints, SavedModels and its save op."""

from __future__ import annotations

import pathlib
import shutil
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tensorflow as tf

import table_file
import tensorflow_side
import tfckpt
from tensorflow_side import v1
from tfckpt import CheckpointError, Reader, Request
from values import (
    ALL_DTYPES,
    PARTIAL_DTYPES,
    assert_same,
    assert_same_tensors,
    box,
    dtype_id,
    part,
    tensor,
)

FLOAT = np.dtype(np.float32)
SHAPES = [(), (1,), (5,), (3, 4), (0,), (2, 0, 3), (1, 2, 1, 3, 1)]
each_dtype = pytest.mark.parametrize("number", ALL_DTYPES, ids=dtype_id)


def every_shape(number: int) -> dict[str, np.ndarray]:
    """One tensor of the dtype for each of `SHAPES`."""
    return {f"shape{list(shape)}": tensor(number, shape) for shape in SHAPES}


# ---- dtypes, shapes, listing ----


@each_dtype
def test_every_dtype_is_restored_bit_for_bit_in_every_kind_of_shape(number: int, prefix: str) -> None:
    tensors = every_shape(number)
    tensorflow_side.save(prefix, tensors)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


@each_dtype
def test_the_listing_says_what_tensorflow_says(number: int, prefix: str) -> None:
    tensorflow_side.save(prefix, every_shape(number))
    theirs = tf.train.load_checkpoint(prefix)
    with Reader(prefix) as reader:
        entries = {entry.key.decode(): entry for entry in reader.entries()}
        assert reader.num_tensors() == len(entries) == len(SHAPES)
    assert {k: list(e.shape) for k, e in entries.items()} == theirs.get_variable_to_shape_map()
    dtypes = {k: t.as_datatype_enum for k, t in theirs.get_variable_to_dtype_map().items()}
    assert {k: e.dtype for k, e in entries.items()} == dtypes


@each_dtype
def test_dtype_names_and_sizes_are_tensorflows(number: int) -> None:
    assert tfckpt.dtype_name(number) == tensorflow_side.dtype(number).name
    size = 0 if number == tfckpt.STRING else tensorflow_side.dtype(number).size
    assert tfckpt.dtype_size(number) == size


def test_entries_come_in_key_order_with_what_the_index_holds(prefix: str) -> None:
    tensors = {"z": tensor(1, (4,)), "a": tensor(9, ()), "m/n": tensor(7, (2,)), "B": tensor(10, (0,))}
    tensorflow_side.save(prefix, tensors)
    with Reader(prefix) as reader:
        entries = list(reader.entries())
        found = [reader.find(entry.key) for entry in entries]
        assert reader.num_shards == 1
        assert reader.prefix == prefix
    assert [entry.key for entry in entries] == [b"B", b"a", b"m/n", b"z"]
    assert found == entries
    for entry in entries:
        stored = table_file.read_entry(prefix, entry.key)
        assert (entry.dtype, entry.offset, entry.size) == (stored.dtype, stored.offset, stored.size)
        assert table_file.mask(entry.crc32c) == stored.crc32c
        assert (entry.code, entry.message, entry.slices) == (0, None, ())


def test_odd_keys_are_bytes_and_come_back_as_bytes(prefix: str) -> None:
    keys = [b"\x01", b"a\x00b", b"\xff\xfe", "zwölf/×".encode(), b" ", b"a b\n", b"x" * 70_000, b"-", b"\x00"]
    tensors = {key: tensor(3, (2,), seed) for seed, key in enumerate(keys)}
    tensorflow_side.save(prefix, tensors)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


def test_an_index_of_many_blocks_is_listed_and_searched(prefix: str) -> None:
    keys = [f"layer_{i:05}/" + "long_name/" * 20 + "kernel" for i in range(4000)]
    tensors = {key: np.array(i, np.int32) for i, key in enumerate(keys)}
    tensorflow_side.save(prefix, tensors)
    handles = table_file.index_handles(table_file.index_file(prefix).read_bytes())
    assert len(handles) > 3
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)
    with Reader(prefix) as reader:
        for key in keys[::97]:
            assert reader.find(key).shape == ()
        with pytest.raises(CheckpointError, match="Key layer_04000 not found in checkpoint"):
            reader.find("layer_04000")


def test_a_big_tensor_is_restored_in_several_chunks(prefix: str) -> None:
    tensors = {"small": tensor(4, (3,)), "big": tensor(1, (5_000_001,)), "tail": tensor(2, ())}
    tensorflow_side.save(prefix, tensors)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


@pytest.mark.parametrize("verify", [0, 1, 2], ids=["full", "fetched", "none"])
@pytest.mark.parametrize("budget", [0, 2 << 20], ids=["default", "2-MiB"])
def test_big_tensors_and_slices_within_a_budget(verify: int, budget: int, prefix: str) -> None:
    full = tensor(1, (1500, 1001))
    cuts = ["0,700:-", "700,800:0,1", "700,800:1,1000"]
    tensorflow_side.save(prefix, [("p", part(full, cut)) for cut in cuts] + [("x", full)])
    specs = ["-:-", "3,1400:5,900", "-:1000,1", "1499,1:-", "699,2:-"]
    wanted = [(key, spec, full[box(spec, full.shape)]) for key in "px" for spec in specs]
    requests = [Request(key, FLOAT, value.shape, f"1500 1001 {spec}") for key, spec, value in wanted]
    stats = tfckpt.new_stats()
    restored = tfckpt.restore(prefix, requests, verify=verify, max_host_bytes=budget, stats=stats)
    for (key, spec, value), ours in zip(wanted, restored):
        assert_same(ours, value, (key, spec))
    assert stats.bytes == sum(value.nbytes for _, _, value in wanted)
    assert stats.peak_host_bytes <= (budget or 64 << 20)
    assert verify or stats.bytes_verified >= 2 * full.nbytes
    assert verify != 2 or stats.bytes_verified == 0


def test_a_code_per_tensor_says_which_failed(prefix: str) -> None:
    tensors = {key: tensor(1, (4,), seed) for seed, key in enumerate("abc")}
    tensorflow_side.save(prefix, tensors)
    data = bytearray(table_file.data_file(prefix).read_bytes())
    data[20] ^= 1  # in b
    table_file.data_file(prefix).write_bytes(data)
    requests = [
        Request("a", FLOAT, (4,)),
        Request("b", FLOAT, (4,)),
        Request("q", FLOAT, (4,)),
        Request("c", np.dtype(np.int32), (4,)),
        Request("c", FLOAT, (4,)),
    ]
    results = tfckpt.restore_each(prefix, requests)
    names = [tfckpt.CODES[code] for code, _ in results]
    assert names == ["OK", "DATA_LOSS", "NOT_FOUND", "INVALID_ARGUMENT", "OK"]
    assert_same(results[0][1], tensors["a"])
    assert_same(results[4][1], tensors["c"])


def test_one_reader_serves_several_threads(prefix: str) -> None:
    tensors = {f"v{i:03}": tensor(ALL_DTYPES[i % len(ALL_DTYPES)], (50, 7), i) for i in range(200)}
    tensorflow_side.save(prefix, tensors)
    requests = [Request(key, value.dtype, value.shape) for key, value in tensors.items()]
    with Reader(prefix) as reader, ThreadPoolExecutor(8) as pool:
        for restored in pool.map(lambda _: reader.restore(requests), range(24)):
            for (key, value), ours in zip(tensors.items(), restored):
                assert_same(ours, value, key)


# ---- strings and variants ----


@pytest.mark.parametrize(
    "elements",
    [
        [b""],
        [b"", b"", b""],
        [b"\x00", b"\xff" * 127, b"\x80" * 128, bytes(range(256))],
        [b"x" * 16_385, b"", b"y" * 70_000],
        [b"z" * 3_000_000],
        [b"%d" % i for i in range(20_000)],
    ],
    ids=["empty", "empties", "binary", "over-16-KiB", "3-MB", "20000"],
)
def test_strings_are_restored_with_their_lengths(elements: list[bytes], prefix: str) -> None:
    tensors = {"s": np.array(elements, object), "scalar": np.array(elements[0], object)}
    tensorflow_side.save(prefix, tensors)
    assert_same_tensors(tfckpt.restore_all(prefix), tensors)


def save_with_variant(prefix: str) -> None:
    """A tensor list, which is a variant, between two plain tensors."""
    variant = tf.raw_ops.TensorListFromTensor(tensor=tf.ones([3, 2]), element_shape=[2])
    tf.raw_ops.SaveV2(
        prefix=prefix,
        tensor_names=["a", "list", "z"],
        shape_and_slices=[""] * 3,
        tensors=[tf.constant([1.0]), variant, tf.constant([2.0])],
    )


def test_a_variant_is_listed_and_verified_and_not_decoded(prefix: str) -> None:
    save_with_variant(prefix)
    with Reader(prefix) as reader:
        entry = reader.find("list")
        assert (entry.dtype, entry.shape, entry.code) == (tfckpt.VARIANT, (), 0)
        assert [e.key for e in reader.entries()] == [b"a", b"list", b"z"]
        assert reader.verify() == []
        assert_same(reader.restore([Request("z", FLOAT, (1,))])[0], np.float32([2.0]))


def test_a_variant_cannot_be_restored(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    save_with_variant(prefix)
    monkeypatch.setitem(tfckpt._NUMBERS, np.dtype("V8"), tfckpt.VARIANT)
    with pytest.raises(CheckpointError) as failure:
        tfckpt.restore(prefix, [Request("list", np.dtype("V8"), ())])
    assert failure.value.code_name == "UNIMPLEMENTED"
    assert failure.value.key == b"list"


@pytest.mark.parametrize("at", [0, 1, 10, -1])
def test_damage_inside_a_variant_is_found(at: int, prefix: str) -> None:
    save_with_variant(prefix)
    entry = table_file.read_entry(prefix, b"list")
    data = bytearray(table_file.data_file(prefix).read_bytes())
    data[entry.offset + at % entry.size] ^= 1
    table_file.data_file(prefix).write_bytes(data)
    with Reader(prefix) as reader:
        damages = reader.verify()
    assert [damage.key for damage in damages] == [b"list"]


# ---- slices ----

ROWS = ["0,2:-", "2,2:-"]
TILES = ["0,1:0,4", "0,1:4,2", "1,3:0,1", "1,3:1,5"]


@pytest.mark.parametrize(
    "cut", [ROWS, TILES, ROWS[::-1], TILES[::-1]], ids=["rows", "tiles", "swor", "selit"]
)
@each_dtype
def test_a_full_tensor_is_put_together_from_slices(number: int, cut: list[str], prefix: str) -> None:
    full = tensor(number, (4, 6))
    tensorflow_side.save(prefix, [("x", part(full, spec)) for spec in cut])
    [restored] = tfckpt.restore(prefix, [Request("x", full.dtype, full.shape)])
    assert_same(restored, full)


@pytest.mark.parametrize("stored", [None, ROWS, TILES], ids=["whole", "rows", "tiles"])
@each_dtype
def test_any_slice_is_read_out_of_a_whole_tensor_or_of_other_slices(
    number: int, stored: list[str] | None, prefix: str
) -> None:
    full = tensor(number, (4, 6))
    parts = [("x", full)] if stored is None else [("x", part(full, spec)) for spec in stored]
    tensorflow_side.save(prefix, parts)
    specs = ["0,2:-", "-:-", "1,2:1,4", "3,1:5,1", "-:2,1", "0,4:0,6", "2,1:-"]
    wanted = [full[box(spec, full.shape)] for spec in specs]
    requests = [Request("x", full.dtype, w.shape, f"4 6 {s}") for w, s in zip(wanted, specs)]
    for spec, restored, value in zip(specs, tfckpt.restore(prefix, requests), wanted):
        assert_same(restored, value, spec)
    if number in PARTIAL_DTYPES:
        for theirs, value in zip(tensorflow_side.restore(prefix, requests), wanted):
            assert_same(theirs, value)


def test_a_partitioned_tensor_is_one_entry_with_its_slices(prefix: str) -> None:
    full = tensor(1, (4, 6))
    tensorflow_side.save(prefix, [("x", part(full, spec)) for spec in TILES] + [("y", full)])
    with Reader(prefix) as reader:
        entries = list(reader.entries())
    assert [(entry.key, entry.shape, entry.size) for entry in entries] == [
        (b"x", (4, 6), 96),
        (b"y", (4, 6), 96),
    ]
    assert entries[0].slices == tuple(TILES)
    assert entries[1].slices == ()


def test_slices_that_do_not_cover_the_request_are_an_error_and_the_rest_is_read(prefix: str) -> None:
    full = tensor(1, (4, 6))
    tensorflow_side.save(prefix, [("x", part(full, "0,1:-")), ("x", part(full, "2,2:-"))])
    [rows] = tfckpt.restore(prefix, [Request("x", FLOAT, (2, 3), "4 6 2,2:1,3")])
    assert_same(rows, full[2:, 1:4])
    with pytest.raises(CheckpointError) as failure:
        tfckpt.restore(prefix, [Request("x", FLOAT, (4, 6))])
    assert failure.value.message.startswith(
        "Does not have sufficient slices for partitioned tensor x to restore in slice_spec: -:-"
    )


def test_slices_of_keys_with_odd_bytes_are_found(prefix: str) -> None:
    full = tensor(9, (3, 5))
    keys = [b"n\x00m\xff\xe9", b"\xff", b"\x00", b"plain"]
    parts = [(key, part(full, spec)) for key in keys for spec in ("0,1:-", "1,2:-")]
    tensorflow_side.save(prefix, parts)
    assert_same_tensors(tfckpt.restore_all(prefix), dict.fromkeys(keys, full))


def test_large_slice_bounds_are_encoded_as_tensorflow_encodes_them(prefix: str) -> None:
    full = tensor(6, (200_000,))
    cuts = ["0,63", "63,1", "64,8127", "8191,1", "8192,91807", "99999,100001"]
    tensorflow_side.save(prefix, [("v", part(full, cut)) for cut in cuts])
    assert_same_tensors(tfckpt.restore_all(prefix), {"v": full})


# ---- Saver ----


def named(numbers: list[int], shape: tuple[int, ...] = (2, 3)) -> dict[str, np.ndarray]:
    """A tensor for each dtype, by the dtype's name."""
    return {f"v_{dtype_id(number)}": tensor(number, shape) for number in numbers}


SAVER_DTYPES = [1, 2, 3, 4, 7, 9, 10, 14, 19]


def test_an_unsharded_saver_with_a_step(prefix: str) -> None:
    tensors = named(SAVER_DTYPES)
    saved = tensorflow_side.save_with_saver(
        prefix, {k: (v, "") for k, v in tensors.items()}, sharded=False, global_step=12
    )
    assert saved == f"{prefix}-12"
    assert_same_tensors(tfckpt.restore_all(saved), tensors)
    assert tfckpt.latest_checkpoint(str(pathlib.Path(prefix).parent)) == saved


def test_a_saver_sharded_over_devices(prefix: str) -> None:
    tensors = named(SAVER_DTYPES)
    devices = ["/device:CPU:0", "/device:CPU:2", "", "/device:CPU:1"]
    placed = {k: (v, devices[i % 4]) for i, (k, v) in enumerate(tensors.items())}
    saved = tensorflow_side.save_with_saver(prefix, placed, sharded=True, global_step=3)
    with Reader(saved) as reader:
        assert reader.num_shards == 4
        assert {entry.shard_id for entry in reader.entries()} == {0, 1, 2, 3}
        assert reader.verify() == []
    assert_same_tensors(tfckpt.restore_all(saved), tensors)


@pytest.mark.parametrize("sharded", [False, True], ids=["one-file", "sharded"])
def test_partitioned_variables_of_a_saver(sharded: bool, prefix: str) -> None:
    full = tensor(2, (7, 4))
    with tf.Graph().as_default(), tensorflow_side.session(2) as running:
        with tf.device("/cpu:1"):
            v1.get_variable(
                "part",
                initializer=tensorflow_side.constant(full),
                partitioner=tf.compat.v1.fixed_size_partitioner(3),
            )
        v1.get_variable("whole", initializer=tf.constant([1.5]))
        running.run(v1.global_variables_initializer())
        v1.train.Saver(sharded=sharded).save(running, prefix)
    with Reader(prefix) as reader:
        assert len(reader.find("part").slices) == 3
    assert_same_tensors(tfckpt.restore_all(prefix), {"part": full, "whole": np.float32([1.5])})
    [rows] = tfckpt.restore(prefix, [Request("part", full.dtype, (4, 2), "7 4 2,4:1,2")])
    assert_same(rows, full[2:6, 1:3])


def test_slices_on_several_devices_merge_into_one_tensor(prefix: str) -> None:
    full, other = tensor(1, (4, 6)), tensor(3, (5,))
    parts = [
        ("x", part(full, "0,2:-", "/device:CPU:1")),
        ("x", part(full, "2,1:-", "/device:CPU:0")),
        ("x", part(full, "3,1:-", "/device:CPU:2")),
        ("y", tfckpt.Part(other, "", "/device:CPU:2")),
    ]
    tensorflow_side.save_by_device(prefix, parts)
    with Reader(prefix) as reader:
        assert reader.find("x").slices == ("2,1:-", "0,2:-", "3,1:-")
    assert_same_tensors(tfckpt.restore_all(prefix), {"x": full, "y": other})


# ---- tf.train.Checkpoint, CheckpointManager, SavedModel ----

VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
OBJECT_GRAPH = b"_CHECKPOINTABLE_OBJECT_GRAPH"


class Model(tf.Module):
    """Two layers and a step, as a small TF2 model."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [tf.Variable(tensorflow_side.constant(tensor(1, (i + 2, 3), i))) for i in range(2)]
        self.tables = {"a/b": tf.Variable(["x", "yy"]), "x.y": tf.Variable(True)}
        self.step = tf.Variable(7, dtype=tf.int64)

    def expected(self, root: str) -> dict[str, np.ndarray]:
        """The keys and values in a checkpoint where the model hangs below `root`."""
        return {
            f"{root}layers/0{VALUE}": tensor(1, (2, 3), 0),
            f"{root}layers/1{VALUE}": tensor(1, (3, 3), 1),
            f"{root}tables/a.Sb{VALUE}": np.array([b"x", b"yy"], object),
            f"{root}tables/x..y{VALUE}": np.array(True),
            f"{root}step{VALUE}": np.array(7, np.int64),
        }


def test_an_object_based_checkpoint(prefix: str) -> None:
    model = Model()
    saved = tf.train.Checkpoint(model=model).save(prefix)
    assert saved == f"{prefix}-1"
    restored = tfckpt.restore_all(saved)
    graph = restored.pop(OBJECT_GRAPH)
    assert graph.shape == ()
    assert graph[()] == tf.train.load_checkpoint(saved).get_tensor(OBJECT_GRAPH.decode())
    counter = {f"save_counter{VALUE}": np.array(1, np.int64)}
    assert_same_tensors(restored, model.expected("model/") | counter)
    assert tfckpt.latest_checkpoint(str(pathlib.Path(prefix).parent)) == saved


def test_a_checkpoint_manager_with_its_state_file(tmp_path: pathlib.Path) -> None:
    directory = str(tmp_path / "ckpts")
    manager = tf.train.CheckpointManager(tf.train.Checkpoint(model=Model()), directory, max_to_keep=2)
    saved = [manager.save() for _ in range(4)]
    state, theirs = tfckpt.get_checkpoint_state(directory), tf.train.get_checkpoint_state(directory)
    assert state.model_checkpoint_path == theirs.model_checkpoint_path == saved[-1]
    assert state.all_model_checkpoint_paths == list(theirs.all_model_checkpoint_paths) == saved[2:]
    assert state.all_model_checkpoint_timestamps == list(theirs.all_model_checkpoint_timestamps)
    assert state.last_preserved_timestamp == theirs.last_preserved_timestamp
    assert tfckpt.latest_checkpoint(directory) == saved[-1]
    assert [tfckpt.checkpoint_exists(path) for path in saved] == [False, False, True, True]


def test_the_variables_of_a_saved_model(tmp_path: pathlib.Path) -> None:
    model = Model()
    del model.tables
    tf.saved_model.save(model, str(tmp_path / "saved"))
    expected = {k: v for k, v in model.expected("").items() if "tables" not in k}
    for path in (tmp_path / "saved" / "variables" / "variables", tmp_path / "saved"):
        restored = tfckpt.restore_all(str(path))
        restored.pop(OBJECT_GRAPH)
        assert_same_tensors(restored, expected)


def test_slot_variables_of_an_optimizer(prefix: str) -> None:
    with tf.Graph().as_default(), tensorflow_side.session() as running:
        weights = v1.get_variable("w", initializer=tf.constant([[1.0, 2.0], [3.0, 4.0]]))
        step = v1.train.get_or_create_global_step()
        train = v1.train.AdagradOptimizer(0.1).minimize(tf.reduce_sum(weights**2), global_step=step)
        running.run(v1.global_variables_initializer())
        running.run(train)
        expected = {variable.op.name: running.run(variable) for variable in v1.global_variables()}
        v1.train.Saver().save(running, prefix)
    assert sorted(expected) == ["global_step", "w", "w/Adagrad"]
    assert weights.op.name == "w"
    assert_same_tensors(tfckpt.restore_all(prefix), expected)


# ---- views, moved folders ----


def test_a_view_shows_the_bytes_in_the_file(prefix: str) -> None:
    tensors = {"a": tensor(1, (16,)), "b": tensor(4, (3,)), "c": tensor(2, (5,)), "e": tensor(1, (0,))}
    tensorflow_side.save(prefix, tensors)
    with Reader(prefix) as reader:
        for key in "ab":
            assert reader.view(key) == tensors[key].tobytes()
        with pytest.raises(CheckpointError) as failure:
            reader.view("c")  # 67 bytes into the file: TensorFlow packs
        assert failure.value.code_name == "FAILED_PRECONDITION"
        for key in "ce":
            assert reader.view(key, flags=1) == tensors[key].tobytes()


@pytest.mark.parametrize("relative", [False, True], ids=["absolute", "relative"])
def test_a_moved_folder_is_found_with_relative_paths_or_rebase(
    relative: bool, tmp_path: pathlib.Path
) -> None:
    old, new = tmp_path / "old", tmp_path / "new"
    old.mkdir()
    tensorflow_side.save(str(old / "m-1"), {"x": tensor(1, (2,))})
    tensorflow_side.update_checkpoint_state(str(old), str(old / "m-1"), save_relative_paths=relative)
    shutil.move(old, new)
    if not relative:
        with pytest.raises(CheckpointError):
            tfckpt.latest_checkpoint(str(new))
    assert tfckpt.latest_checkpoint(str(new), rebase=not relative) == str(new / "m-1")
