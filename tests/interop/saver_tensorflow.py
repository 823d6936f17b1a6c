"""TensorFlow's `Saver`, in a process of its own: graphs, sessions and a clock that the test sets."""

from __future__ import annotations

import multiprocessing
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from typing import Any

from saver_model import START_NS, Options, Reload, Save, Sequence, Variable
from saver_run import Failure, Seen, run

# TensorFlow is imported in the other process only.
tf: Any = None


class _Clock:
    """Stands in for the module `time` inside TensorFlow's saver."""

    now_ns = START_NS

    def time(self) -> float:
        return self.now_ns / 1e9


CLOCK = _Clock()


def pool(processes: int) -> ProcessPoolExecutor:
    """Processes that call `run_sequence` and nothing else."""
    return ProcessPoolExecutor(processes, multiprocessing.get_context("spawn"), initializer=start)


def start() -> None:
    """Prepares a process that does nothing else."""
    attach()
    tf.compat.v1.disable_eager_execution()
    tf.get_logger().setLevel("CRITICAL")


def attach() -> None:
    """Imports TensorFlow and gives its saver the test's clock."""
    global tf
    import tensorflow
    from tensorflow.python.training import saver

    tf = tensorflow
    saver.time = CLOCK


def run_sequence(sequence: Sequence, folder: str) -> list[Seen]:
    """What TensorFlow shows."""
    return run(sequence, folder, TensorFlowSide)


_CODES = {
    1: "CANCELLED", 2: "UNKNOWN", 3: "INVALID_ARGUMENT", 5: "NOT_FOUND", 6: "ALREADY_EXISTS",
    7: "PERMISSION_DENIED", 8: "RESOURCE_EXHAUSTED", 9: "FAILED_PRECONDITION", 10: "ABORTED",
    11: "OUT_OF_RANGE", 12: "UNIMPLEMENTED", 13: "INTERNAL", 14: "UNAVAILABLE", 15: "DATA_LOSS",
}  # fmt: skip


def failure(error: Exception) -> Failure:
    """The code and the core of the text, or of each op's text, of an error of a session."""
    if isinstance(error, (ValueError, TypeError, AssertionError)):
        return Failure("INVALID_ARGUMENT", (str(error),))
    if isinstance(error, RuntimeError):
        return Failure("FAILED_PRECONDITION", (str(error),))
    wrapper, mark, text = error.message.rpartition("Original error:\n\n")
    text = re.sub(r"\AGraph execution error:\n.*\nNode: '[^']*'\n", "", text, flags=re.DOTALL)
    roots = [text]
    if re.match(r"\d+ root error\(s\) found\.\n", text):
        roots = re.split(r"\n  \(\d+\) [A-Z_]+: ", text.partition("\n0 successful operations.")[0])[1:]
    cores = dict.fromkeys(root.partition("\n\t [[")[0].rstrip("\n") for root in roots)
    return Failure(_CODES[error.error_code], tuple(wrapper + mark + core for core in cores))


def or_none(read: Callable[[], Any]) -> Any:
    """None also for a state file that is no text, such as a V1 checkpoint of that name: TensorFlow lets the error of
    the decoder pass, and returns None for anything else that does not parse."""
    try:
        return read()
    except UnicodeDecodeError:
        return None


def as_values(value: Any) -> Any:
    """What a session returned, to be compared and sent: bytes, or lists of byte strings."""
    if isinstance(value, bytes):
        return value  # of a scalar string
    return value.tolist() if value.dtype == object else value.tobytes()


class TensorFlowSide:
    """A graph with the variables, a session, and the newest `Saver`."""

    def __init__(self, variables: tuple[Variable, ...], use_resource: bool) -> None:
        self.v1 = tf.compat.v1
        self.graph = tf.Graph()
        self.saver: Any = None
        self.options = Options()
        self.parts: dict[str, list[Any]] = {}
        with self.graph.as_default():
            for i, variable in enumerate(variables):
                self.parts[variable.key] = self.make(variable, f"v{i}", use_resource)
            trained = [p for v in variables if v.trains for p in self.parts[v.key]]
            self.training = tf.group(*[part.assign_add(tf.ones_like(part)) for part in trained])
            self.initializer = self.v1.global_variables_initializer()
        self.session = self.v1.Session(graph=self.graph, config=self.config())
        self.session.run(self.initializer)

    def config(self) -> Any:
        """Sixteen devices; and no optimizer, which would take longer than what it optimizes."""
        config = self.v1.ConfigProto(
            device_count={"CPU": 16}, intra_op_parallelism_threads=1, inter_op_parallelism_threads=1
        )
        config.graph_options.rewrite_options.disable_meta_optimizer = True
        config.graph_options.optimizer_options.opt_level = -1
        return config

    def make(self, variable: Variable, name: str, use_resource: bool) -> list[Any]:
        made = []
        for i, (value, device) in enumerate(zip(variable.initial(), variable.part_devices())):
            with tf.device(device or None):
                constant = tf.constant(value, tf.DType(variable.dtype), value.shape)
                made.append(self.v1.Variable(constant, name=f"{name}_{i}", use_resource=use_resource))
            if variable.parts:
                start, length = variable.slices()[i]
                rest = variable.shape[1:]
                made[-1]._set_save_slice_info(
                    self.v1.Variable.SaveSliceInfo(
                        name, [*variable.shape], [start, *[0] * len(rest)], [length, *rest]
                    )
                )
        return made

    def close(self) -> None:
        self.session.close()

    def var_list(self, options: Options) -> dict[str, Any]:
        """The variables by key."""
        named = {}
        for key in self.parts if options.keys is None else options.keys:
            parts = self.parts[key]
            named[options.renamed + key] = parts if parts[0]._save_slice_info else parts[0]
        return named

    def restart(self, options: Options, now_ns: int) -> None:
        CLOCK.now_ns = now_ns
        self.saver = self.call(
            lambda: self.v1.train.Saver(
                self.var_list(options),
                sharded=options.sharded,
                max_to_keep=options.max_to_keep,
                keep_checkpoint_every_n_hours=options.keep_hours,
                allow_empty=options.allow_empty,
                write_version=options.version,
                pad_step_number=options.pad,
                save_relative_paths=options.relative,
            )
        )
        self.options = options

    def reload(self, step: Reload, now_ns: int) -> None:
        if self.saver.saver_def is None:
            return  # it is empty
        CLOCK.now_ns = now_ns
        self.saver = self.call(
            lambda: self.v1.train.Saver(
                saver_def=self.saver.as_saver_def(),
                pad_step_number=step.pad,
                save_relative_paths=step.relative,
            )
        )

    def call(self, function: Callable[[], Any]) -> Any:
        """What the function returns in the graph; its error as a `Failure`."""
        try:
            with self.graph.as_default():
                return function()
        except (ValueError, TypeError, RuntimeError, AssertionError, tf.errors.OpError) as error:
            raise failure(error) from None

    def train(self) -> None:
        self.session.run(self.training)

    def save(self, step: Save, now_ns: int) -> str | None:
        CLOCK.now_ns = now_ns
        return self.call(
            lambda: self.saver.save(
                self.session,
                step.path,
                global_step=step.step,
                latest_filename=step.latest_filename,
                meta_graph_suffix=step.suffix,
                write_meta_graph=False,
                write_state=step.write_state,
            )
        )

    def restore(self, path: str) -> None:
        try:
            self.call(lambda: self.saver.restore(self.session, path))
        except Failure as error:
            if error.code == "NOT_FOUND" and self.options.sharded:
                raise Failure(error.code, self.any_missing_key(path, error.texts[0])) from None
            raise

    def any_missing_key(self, path: str, text: str) -> tuple[str, ...]:
        """The text for each key that is missing: which shard's op is the first to say so is chance."""
        found = re.search(r'(?<=Original error:\n\n)(Key |Tensor name ")(.+?)("? not found in checkpoint)', text)
        if not found:
            return (text,)
        reader = tf.train.load_checkpoint(path)
        missing = [key for key in self.saved_keys() if not reader.has_tensor(key)]
        return tuple(text[: found.start(2)] + key + text[found.end(2) :] for key in missing)

    def saved_keys(self) -> list[str]:
        keys = self.parts if self.options.keys is None else self.options.keys
        return [self.options.renamed + key for key in keys]

    def values(self) -> list[Any]:
        parts = [part for parts in self.parts.values() for part in parts]
        return [as_values(value) for value in self.session.run(parts)]

    def reset(self) -> None:
        self.session.run(self.initializer)

    def last_checkpoints(self) -> list[str]:
        return self.saver.last_checkpoints

    def last_times(self) -> list[float]:
        return [float(time) for _, time in self.saver._last_checkpoints]

    def set_last_checkpoints(self, paths: list[str]) -> None:
        self.call(lambda: self.saver.set_last_checkpoints(paths))

    def set_last_checkpoints_with_time(self, paths: list[str], times: list[float]) -> None:
        self.call(lambda: self.saver.set_last_checkpoints_with_time(list(zip(paths, times))))

    def recover_last_checkpoints(self, paths: list[str]) -> None:
        self.call(lambda: self.saver.recover_last_checkpoints(paths))

    def latest_checkpoint(self, directory: str, latest_filename: str | None) -> str | None:
        return self.call(lambda: or_none(lambda: tf.train.latest_checkpoint(directory, latest_filename)))

    def state_paths(self, directory: str, latest_filename: str | None) -> list[str]:
        state = self.call(lambda: or_none(lambda: tf.train.get_checkpoint_state(directory, latest_filename)))
        return [] if state is None else list(state.all_model_checkpoint_paths)
