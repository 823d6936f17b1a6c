"""Names and object paths of TF2 checkpoints lead to the keys to which TensorFlow leads."""

from __future__ import annotations

import pathlib
import random

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.core.protobuf import trackable_object_graph_pb2
from tensorflow.python.trackable import autotrackable, trackable_utils
from tensorflow.python.training import saver as saver_lib

import tensorflow_side
import tfckpt
from tfckpt import CheckpointError, ObjectGraph, Reader
from values import assert_same

v1 = tf.compat.v1
KEY = "_CHECKPOINTABLE_OBJECT_GRAPH"
VALUE = "/.ATTRIBUTES/VARIABLE_VALUE"
NAMES = ["w", "kernel", "a/b", "x.y", ".", "/", "..S", ".ATTRIBUTES", "grüße", "0", " "]


def graph_of(prefix: str) -> ObjectGraph:
    """The library's object graph."""
    with Reader(prefix) as reader:
        return reader.object_graph()


def proto_of(prefix: str) -> trackable_object_graph_pb2.TrackableObjectGraph:
    """TensorFlow's."""
    proto = trackable_object_graph_pb2.TrackableObjectGraph()
    proto.ParseFromString(tf.train.load_checkpoint(prefix).get_tensor(KEY))
    return proto


def assert_same_graph(prefix: str, rng: random.Random) -> None:
    """Compares names, keys and paths of a checkpoint, and paths that TensorFlow did not take."""
    graph, proto = graph_of(prefix), proto_of(prefix)
    attributes = [a for node in proto.nodes for a in node.attributes]
    tensors = graph.tensors()
    assert [(t.attribute, t.full_name, t.key) for t in tensors] == [
        (a.name, a.full_name, a.checkpoint_key) for a in attributes
    ]
    names = saver_lib.object_graph_key_mapping(prefix)
    for name, key in names.items():
        assert graph.key_of_name(name) == key
    assert graph.key_of_name("no such name") is None
    # Of tables and iterators TensorFlow notes no keys, only how they begin.
    stored = set(tf.train.load_checkpoint(prefix).get_variable_to_shape_map()) - {KEY}
    assert {t.key for t in tensors if t.attribute == "VARIABLE_VALUE"} == {k for k in stored if k.endswith(VALUE)}
    assert all(any(key.startswith(t.key) for key in stored) for t in tensors)
    for t in tensors:
        assert t.path == trackable_utils.extract_object_name(t.key)
        assert graph.key_of_path(t.key) == t.key
        wanted = t.key if t.attribute == "VARIABLE_VALUE" else graph.key_of_path(t.path + VALUE)
        assert graph.key_of_path(t.path) == wanted
    walk_at_random(graph, proto, rng)


def walk_at_random(
    graph: ObjectGraph, proto: trackable_object_graph_pb2.TrackableObjectGraph, rng: random.Random
) -> None:
    """Paths that need not be the shortest, over cycles and shared objects."""
    slots = {
        (slot.original_variable_node_id, optimizer, slot.slot_name): slot.slot_variable_node_id
        for optimizer, node in enumerate(proto.nodes)
        for slot in node.slot_variables
    }
    paths: dict[int, str] = {}
    for _ in range(100):
        node, path = 0, []
        for _ in range(rng.randrange(1, 12)):
            if not proto.nodes[node].children:
                break
            child = rng.choice(proto.nodes[node].children)
            node = child.node_id
            path.append(trackable_utils.escape_local_name(child.local_name))
        paths[node] = "/".join(path)
        assert graph.key_of_path(paths[node]) == value_key(proto, node), paths[node]
    for (variable, optimizer, name), slot in slots.items():
        if variable in paths and optimizer in paths:
            path = trackable_utils.slot_variable_key(paths[variable], paths[optimizer], name)
            assert graph.key_of_path(path) == value_key(proto, slot)


def value_key(proto: trackable_object_graph_pb2.TrackableObjectGraph, node: int) -> str | None:
    """The key of the value of a variable."""
    keys = [a.checkpoint_key for a in proto.nodes[node].attributes if a.name == "VARIABLE_VALUE"]
    return keys[0] if keys else None


def random_object(rng: random.Random, depth: int, pool: list[object]) -> object:
    """A module, list, dictionary or variable, some of them shared."""
    if pool and rng.random() < 0.2:
        return rng.choice(pool)
    kind = rng.randrange(4) if depth else 3
    if kind == 0:
        made: object = autotrackable.AutoTrackable()
        pool.append(made)
        for name in rng.sample(NAMES, rng.randrange(4)):
            setattr(made, name, random_object(rng, depth - 1, pool))
        if rng.random() < 0.3:
            made.again = rng.choice(pool)  # perhaps itself, or what holds it
    elif kind == 1:
        made = [random_object(rng, depth - 1, pool) for _ in range(rng.randrange(4))]
    elif kind == 2:
        made = {name: random_object(rng, depth - 1, pool) for name in rng.sample(NAMES, rng.randrange(4))}
    else:
        name = rng.choice(["w", "b", "scope/w", "w"])
        made = tf.Variable(rng.choice([1.0, [2.0, 3.0], True, b"text"]), name=name)
        pool.append(made)
    return made


@pytest.mark.parametrize("seed", range(40))
def test_random_objects(seed: int, tmp_path: pathlib.Path) -> None:
    rng = random.Random(seed)
    root = autotrackable.AutoTrackable()
    pool: list[object] = [root]
    for name in rng.sample(NAMES, 4):
        setattr(root, name, random_object(rng, 4, pool))
    prefix = tf.train.Checkpoint(root=root).write(str(tmp_path / "ckpt"))
    assert_same_graph(prefix, rng)


class Layer(tf.Module):
    """Two variables."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self.kernel = tf.Variable(tf.ones([rows, 3]), name="kernel")
        self.bias = tf.Variable(tf.zeros([3]), name="bias")


class Net(tf.Module):
    """A list, a dictionary, names that need escaping, a shared layer and a cycle."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = [Layer(2), Layer(3)]
        self.first = self.layers[0]
        self.odd = {"a/b": tf.Variable(1.0), "x.y": {"..": tf.Variable([2])}}
        self.myself = self


def trained(optimizer: v1.train.Optimizer, net: Net) -> v1.train.Optimizer:
    """The optimizer after one step, so that it has slots."""
    optimizer.minimize(lambda: sum(tf.reduce_sum(v**2) for v in net.layers[0].trainable_variables))
    return optimizer


@pytest.mark.parametrize("manager", [False, True], ids=["save", "manager"])
def test_a_model_with_the_slots_of_two_optimizers(manager: bool, tmp_path: pathlib.Path) -> None:
    net = Net()
    adam = trained(v1.train.AdamOptimizer(0.1), net)
    momentum = trained(v1.train.MomentumOptimizer(0.1, 0.9), net)
    step = tf.Variable(5, name="step")
    checkpoint = tf.train.Checkpoint(net=net, adam=adam, opts={"mo/m": momentum}, step=step)
    if manager:
        saved = tf.train.CheckpointManager(checkpoint, str(tmp_path), max_to_keep=1).save()
    else:
        saved = checkpoint.save(str(tmp_path / "model"))
    assert_same_graph(saved, random.Random(1))
    graph = graph_of(saved)
    kernel = f"net/first/kernel/.OPTIMIZER_SLOT/adam/m{VALUE}"
    assert graph.key_of_path("net/layers/0/kernel/.OPTIMIZER_SLOT/adam/m") == kernel
    assert graph.key_of_path("net/myself/layers/0/kernel/.OPTIMIZER_SLOT/adam/m") == kernel
    assert graph.key_of_path("net/first/kernel/.OPTIMIZER_SLOT/opts/mo.Sm/momentum") is not None
    assert graph.key_of_path("net/layers/1/kernel/.OPTIMIZER_SLOT/adam/m") is None
    assert graph.key_of_name("step") == f"step{VALUE}"
    assert graph.key_of_path("save_counter") == f"save_counter{VALUE}"


def test_the_root_may_be_a_variable_itself(prefix: str) -> None:
    tf.train.Checkpoint(root=tf.Variable(3.0, name="v")).write(prefix)
    graph = graph_of(prefix)
    assert graph.key_of_path("") == graph.key_of_name("v") == VALUE
    assert_same_graph(prefix, random.Random(2))


def test_state_that_is_no_variable(prefix: str) -> None:
    table = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)
    table.insert(tf.constant(["a"]), tf.constant([7], tf.int64))
    iterator = iter(tf.data.Dataset.range(3))
    tf.train.Checkpoint(table=table, v=tf.Variable(1.0, name="v"), iterator=iterator).write(prefix)
    graph, proto = graph_of(prefix), proto_of(prefix)
    for node in proto.nodes:
        for attribute in node.attributes:
            assert graph.key_of_path(attribute.checkpoint_key) == attribute.checkpoint_key
    assert graph.key_of_path("table") is None
    assert_same_graph(prefix, random.Random(3))


def test_names_for_a_saver_of_tf1(prefix: str) -> None:
    """What a name finds is what `tf.train.Saver` restores from the object-based checkpoint."""
    net = Net()
    tf.train.Checkpoint(net=net).write(prefix)
    graph = graph_of(prefix)
    with Reader(prefix) as reader:
        for name in ("kernel", "bias"):
            entry = reader.find(graph.key_of_name(name))
            wanted = np.zeros(entry.shape, np.float32)
            [ours] = reader.restore([tfckpt.Request(entry.key, wanted.dtype, entry.shape)])
            assert_same(ours, tensorflow_side.restore_with_saver(prefix, {name: wanted})[name])


def test_a_checkpoint_of_names_has_no_graph(prefix: str) -> None:
    tensorflow_side.save(prefix, {"w": np.float32([1])})
    with pytest.raises(CheckpointError, match="no object graph") as failure:
        graph_of(prefix)
    assert failure.value.code_name == "NOT_FOUND"
    with pytest.raises(tf.errors.NotFoundError):
        saver_lib.object_graph_key_mapping(prefix)


@pytest.mark.parametrize(
    "value",
    [np.array([b""], object), np.float32(1), np.array(b"\x0a\x05ab", object), np.array(b"\x0a\x02\x0a\x09", object)],
    ids=["rank-1", "float", "cut", "message-cut"],
)
def test_what_is_no_graph_is_data_loss(value: np.ndarray, prefix: str) -> None:
    tensorflow_side.save(prefix, {KEY: np.asarray(value, object if value.dtype == object else None)})
    with pytest.raises(CheckpointError) as failure:
        graph_of(prefix)
    assert failure.value.code_name == "DATA_LOSS"
    assert failure.value.key == KEY.encode()
    assert failure.value.file is not None


def test_a_graph_whose_bytes_changed_is_data_loss(prefix: str) -> None:
    tf.train.Checkpoint(v=tf.Variable(1.0)).write(prefix)
    data = pathlib.Path(f"{prefix}.data-00000-of-00001")
    raw = data.read_bytes()
    at = raw.index(b"VARIABLE_VALUE")
    data.write_bytes(raw[:at] + b"X" + raw[at + 1 :])
    with pytest.raises(CheckpointError, match="Checksum does not match") as failure:
        graph_of(prefix)
    assert failure.value.code_name == "DATA_LOSS"


# ---- SavedModel ----


def test_a_saved_model_of_tf2(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "saved")
    tf.saved_model.save(Net(), folder)
    variables = f"{folder}/variables/variables"
    for path in (folder, f"{folder}/", variables):
        graph = graph_of(path)
        assert graph.key_of_path("first/kernel") == f"first/kernel{VALUE}"
        assert graph.key_of_path("layers/1/bias") == f"layers/1/bias{VALUE}"
    assert_same_graph(variables, random.Random(4))


def test_a_saved_model_of_the_builder_of_tf1(tmp_path: pathlib.Path) -> None:
    folder = str(tmp_path / "saved")
    with tf.Graph().as_default(), tensorflow_side.session(2) as running:
        with tf.device("/cpu:1"):
            v1.get_variable("dense/kernel", initializer=tf.constant([[1.0, 2.0]]))
        v1.get_variable("step", initializer=tf.constant(3, tf.int64))
        running.run(v1.global_variables_initializer())
        builder = v1.saved_model.builder.SavedModelBuilder(folder)
        builder.add_meta_graph_and_variables(running, [tf.saved_model.SERVING])
        builder.save()
    with Reader(folder) as reader:
        assert reader.num_shards == 2
        assert reader.prefix == f"{folder}/variables/variables"
        with pytest.raises(CheckpointError, match="no object graph"):
            reader.object_graph()
    restored = tfckpt.restore_all(folder)
    assert sorted(restored) == [b"dense/kernel", b"step"]
    assert_same(restored[b"dense/kernel"], np.float32([[1, 2]]))
    assert_same(restored[b"step"], np.int64(3))
