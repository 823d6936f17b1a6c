"""Our saver, driven as TensorFlow's is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import tfckpt
from saver_model import Options, Reload, Save, Variable
from saver_run import Failure


# By TensorFlow's number of a version.
FORMATS = {1: tfckpt.FORMAT_V1, 2: tfckpt.FORMAT_V2}


def call(function: Callable[[], Any]) -> Any:
    """The call's result; its error as a `Failure`."""
    try:
        return function()
    except tfckpt.CheckpointError as error:
        raise Failure(error.code_name, (error.message,)) from None


def max_to_keep(num: int | None) -> int:
    """TensorFlow's argument in the options, where 0 is the default."""
    return num or tfckpt.KEEP_ALL


def keep_hours(hours: float | None) -> float:
    """TensorFlow's argument in the options, where 0 is the default, too."""
    return hours or -1.0


class OurSide:
    """Arrays in the place of variables, and the newest saver."""

    def __init__(self, variables: tuple[Variable, ...], _use_resource: bool) -> None:
        self.variables = variables
        self.parts = {variable.key: variable.initial() for variable in variables}
        self.saver: Any = None
        self.options = Options()

    def close(self) -> None:
        self.saver = None

    def tensors(self, options: Options) -> list[tuple[str, tfckpt.Part]]:
        """The variables' arrays by key."""
        by_key = {variable.key: variable for variable in self.variables}
        tensors = []
        for key in self.parts if options.keys is None else options.keys:
            variable = by_key[key]
            for part, spec, device in zip(self.parts[key], variable.specs(), variable.part_devices()):
                tensors.append((options.renamed + key, tfckpt.Part(part, spec, device or None)))
        return tensors

    def restart(self, options: Options, now_ns: int) -> None:
        self.saver = call(
            lambda: tfckpt.Saver(
                self.tensors(options),
                sharded=options.sharded,
                max_to_keep=max_to_keep(options.max_to_keep),
                keep_checkpoint_every_n_hours=keep_hours(options.keep_hours),
                allow_empty=options.allow_empty,
                write_version=FORMATS[options.version],
                pad_step_number=options.pad,
                save_relative_paths=options.relative,
                now_ns=now_ns,
            )
        )
        self.options = options

    def reload(self, step: Reload, now_ns: int) -> None:
        tensors = self.tensors(self.options)
        if not tensors:
            return
        self.saver = call(
            lambda: tfckpt.Saver(
                tensors,
                saver_def=self.saver.as_saver_def(),
                pad_step_number=step.pad,
                save_relative_paths=step.relative,
                now_ns=now_ns,
            )
        )

    def train(self) -> None:
        for variable in self.variables:
            if variable.trains:
                for part in self.parts[variable.key]:
                    part += part.dtype.type(1)

    def save(self, step: Save, now_ns: int) -> str | None:
        return call(
            lambda: self.saver.save(
                step.path,
                global_step=step.step,
                latest_filename=step.latest_filename,
                meta_graph_suffix=step.suffix,
                no_state=not step.write_state,
                now_ns=now_ns,
            )
        )

    def restore(self, path: str) -> None:
        call(lambda: self.saver.restore(path))

    def values(self) -> list[Any]:
        parts = [part for parts in self.parts.values() for part in parts]
        return [as_values(part) for part in parts]

    def reset(self) -> None:
        for variable in self.variables:
            for part, initial in zip(self.parts[variable.key], variable.initial()):
                part[...] = initial

    def last_checkpoints(self) -> list[str]:
        return self.saver.last_checkpoints

    def last_times(self) -> list[float]:
        return [time for _, time in self.saver.last_checkpoints_with_time()]

    def set_last_checkpoints(self, paths: list[str]) -> None:
        call(lambda: self.saver.set_last_checkpoints(paths))

    def set_last_checkpoints_with_time(self, paths: list[str], times: list[float]) -> None:
        call(lambda: self.saver.set_last_checkpoints_with_time(paths, times))

    def recover_last_checkpoints(self, paths: list[str]) -> None:
        call(lambda: self.saver.recover_last_checkpoints(paths))

    def latest_checkpoint(self, directory: str, latest_filename: str | None) -> str | None:
        """TensorFlow's None is NOT_FOUND or DATA_LOSS here."""
        try:
            return call(lambda: tfckpt.latest_checkpoint(directory, latest_filename))
        except Failure as failure:
            if failure.code in ("NOT_FOUND", "DATA_LOSS"):
                return None
            raise

    def state_paths(self, directory: str, latest_filename: str | None) -> list[str]:
        """TensorFlow's None is NOT_FOUND or DATA_LOSS here."""
        try:
            state = call(lambda: tfckpt.get_checkpoint_state(directory, latest_filename))
        except Failure as failure:
            if failure.code in ("NOT_FOUND", "DATA_LOSS"):
                return []
            raise
        return state.all_model_checkpoint_paths


def as_values(part: np.ndarray) -> Any:
    """As a session's result is compared: bytes, or lists of byte strings; see `saver_tensorflow`."""
    return part.tolist() if part.dtype == object else part.tobytes()
