"""TensorFlow's saver and ours side by side: one call to both, in folders that take turns at one path."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import saver_ours
import saver_tensorflow
import tfckpt
from saver_model import START_NS, Options, Save, Variable
from saver_ours import OurSide
from saver_run import Failure, Files, Side, same_result
from saver_tensorflow import TensorFlowSide

THEIRS, OURS = "theirs", "ours"


class Pair:
    """Two savers with the same variables. Every call compares results, files and lists."""

    def __init__(self, root: pathlib.Path, *variables: Variable, use_resource: bool = True) -> None:
        saver_tensorflow.attach()
        self.root = root
        self.folder = root / "d"
        self.now_ns = START_NS
        self.files = {THEIRS: Files(), OURS: Files()}
        self.theirs = TensorFlowSide(variables, use_resource)
        self.ours = OurSide(variables, use_resource)
        for name in (THEIRS, OURS):
            (root / name).mkdir()

    def close(self) -> None:
        self.theirs.close()
        self.ours.close()

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """The folder of one of the two is at the path, and is the working directory."""
        before = os.getcwd()
        os.rename(self.root / name, self.folder)
        os.chdir(self.folder)
        try:
            yield
        finally:
            os.chdir(before)
            os.rename(self.folder, self.root / name)

    def exchange(self) -> None:
        """Each gets the other's files."""
        os.rename(self.root / OURS, self.root / "x")
        os.rename(self.root / THEIRS, self.root / OURS)
        os.rename(self.root / "x", self.root / THEIRS)

    def both(self, theirs: Callable[[], Any], ours: Callable[[], Any]) -> Any:
        """Calls both; returns the result they agree on, or raises the failure, with our text."""
        results, seen = {}, {}
        for name, call in ((THEIRS, theirs), (OURS, ours)):
            with self.turn(name):
                try:
                    results[name] = ("ok", call())
                except Failure as failure:
                    results[name] = ("error", failure.code, failure.texts)
                seen[name] = self.files[name].snapshot(self.now_ns)
        assert same_result(results[THEIRS], results[OURS]), f"{results[THEIRS]}\nis not\n{results[OURS]}"
        assert seen[THEIRS] == seen[OURS]
        if self.theirs.saver is not None and self.ours.saver is not None:
            assert self.theirs.last_checkpoints() == self.ours.last_checkpoints()
            assert self.theirs.last_times() == self.ours.last_times()
        if results[OURS][0] == "error":
            raise Failure(*results[OURS][1:])
        return results[OURS][1]

    def build(self, options: Options = Options(), **arguments: Any) -> None:
        """Constructs both savers; the arguments are those of TensorFlow's class."""

        def theirs() -> None:
            saver_tensorflow.CLOCK.now_ns = self.now_ns
            make = self.theirs.v1.train.Saver
            named = self.theirs.var_list(options)
            var_list = None if arguments.get("defer_build") and not named else named
            self.theirs.saver = self.theirs.call(lambda: make(var_list, **arguments))
            self.theirs.options = Options(sharded=arguments.get("sharded", False))

        def ours() -> None:
            tensors = self.ours.tensors(options)
            translated = our_arguments(arguments)
            make = tfckpt.Saver
            self.ours.saver = saver_ours.call(lambda: make(tensors, now_ns=self.now_ns, **translated))

        self.both(theirs, ours)

    def advance(self, seconds: float) -> None:
        self.now_ns += round(seconds * 1e9)

    def train(self) -> None:
        self.theirs.train()
        self.ours.train()

    def save(self, path: str, step: int | None = None, **arguments: Any) -> str | None:
        """Saves with both."""
        save = Save(path.replace("{dir}", str(self.folder)), step, **arguments)
        return self.each(lambda side: side.save(save, self.now_ns))

    def restore(self, path: str) -> list[Any]:
        """Restores with both; returns the values."""

        def restore(side: Side) -> list[Any]:
            try:
                side.restore(path.replace("{dir}", str(self.folder)))
            except Failure:
                side.reset()
                raise
            return side.values()

        return self.each(restore)

    def each(self, call: Callable[[Side], Any]) -> Any:
        return self.both(lambda: call(self.theirs), lambda: call(self.ours))

    def listing(self) -> list[str]:
        """The files that both have."""
        return sorted(os.listdir(self.root / OURS))

    def write(self, name: str, contents: str = "") -> None:
        """Puts a file into both folders."""
        for side in (THEIRS, OURS):
            (self.root / side / name).write_text(contents)

    def mkdir(self, name: str) -> None:
        """Makes a folder in both."""
        for side in (THEIRS, OURS):
            (self.root / side / name).mkdir()


def our_arguments(arguments: dict[str, Any]) -> dict[str, Any]:
    """TensorFlow's arguments as our options."""
    ours = dict(arguments)
    if "max_to_keep" in ours:
        ours["max_to_keep"] = saver_ours.max_to_keep(ours["max_to_keep"])
    if "keep_checkpoint_every_n_hours" in ours:
        ours["keep_checkpoint_every_n_hours"] = saver_ours.keep_hours(ours["keep_checkpoint_every_n_hours"])
    if "write_version" in ours:
        ours["write_version"] = saver_ours.FORMATS[ours["write_version"]]
    if "saver_def" in ours:
        ours["saver_def"] = ours["saver_def"].SerializeToString()
    return ours
