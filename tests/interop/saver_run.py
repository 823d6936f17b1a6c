"""Drives one side, TensorFlow's or ours, through a sequence and notes what can be seen after each step."""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol

from saver_model import (
    FOLDER,
    START_NS,
    Advance,
    Delete,
    Latest,
    Options,
    Recover,
    RecoverFromState,
    Reload,
    Restart,
    Restore,
    RestoreLatest,
    Save,
    Sequence,
    SetLast,
    SetLastWithTime,
    Step,
    Variable,
)

# The files beside a checkpoint that a deletion takes along, by `meta_graph_suffix`, or leaves behind.
SUFFIXES = ("meta", "graph")


class Failure(Exception):
    """A call that failed: the code, and the texts it may have said (several when ops ran at once)."""

    def __init__(self, code: str, texts: tuple[str, ...]) -> None:
        super().__init__(code, texts)
        self.code = code
        self.texts = texts


class Side(Protocol):
    """One implementation of `Saver`, with the variables. Calls raise `Failure`."""

    def restart(self, options: Options, now_ns: int) -> None: ...

    def reload(self, step: Reload, now_ns: int) -> None: ...

    def train(self) -> None: ...

    def save(self, step: Save, now_ns: int) -> str | None: ...

    def restore(self, path: str) -> None: ...

    def values(self) -> list[Any]: ...

    def reset(self) -> None: ...

    def last_checkpoints(self) -> list[str]: ...

    def last_times(self) -> list[float]: ...

    def set_last_checkpoints(self, paths: list[str]) -> None: ...

    def set_last_checkpoints_with_time(self, paths: list[str], times: list[float]) -> None: ...

    def recover_last_checkpoints(self, paths: list[str]) -> None: ...

    def latest_checkpoint(self, directory: str, latest_filename: str | None) -> str | None: ...

    def state_paths(self, directory: str, latest_filename: str | None) -> list[str]: ...

    def close(self) -> None: ...


MakeSide = Callable[[tuple[Variable, ...], bool], Side]


@dataclass(frozen=True)
class Seen:
    """What can be seen after a step."""

    result: Any  # ("ok", value) or ("error", code, texts)
    last_checkpoints: list[str]
    last_times: list[float]
    files: dict[str, bytes | None]  # by path in the folder; None for a folder


def run(sequence: Sequence, folder: str, make_side: MakeSide) -> list[Seen]:
    """Runs a sequence in a folder that it makes and removes: what was seen after each step.

    The first is what was seen after the construction of the saver that is there at the start.
    """
    os.makedirs(folder)
    try:
        with _inside(folder):
            for name in sequence.folders:
                os.mkdir(name)
            return _Run(sequence, folder, make_side).run()
    finally:
        shutil.rmtree(folder)


@contextmanager
def _inside(folder: str) -> Iterator[None]:
    before = os.getcwd()
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)


class _Run:
    def __init__(self, sequence: Sequence, folder: str, make_side: MakeSide) -> None:
        self.sequence = sequence
        self.folder = folder
        self.now_ns = START_NS
        self.files = Files()
        self.side = make_side(sequence.variables, sequence.use_resource)

    def run(self) -> list[Seen]:
        try:
            return [self.seen(step) for step in (Restart(self.sequence.options), *self.sequence.steps)]
        finally:
            self.side.close()

    def seen(self, step: Step) -> Seen:
        try:
            result = ("ok", self.take(step))
        except Failure as failure:
            result = ("error", failure.code, failure.texts)
        side, files = self.side, self.files.snapshot(self.now_ns)
        return Seen(result, side.last_checkpoints(), side.last_times(), files)

    def path(self, path: str) -> str:
        return path.replace(FOLDER, self.folder)

    def take(self, step: Step) -> Any:
        side = self.side
        match step:
            case Restart():
                side.restart(step.options, self.now_ns)
            case Reload():
                side.reload(step, self.now_ns)
            case Save():
                return self.save(step)
            case Advance():
                self.now_ns += round(step.seconds * 10**9)
            case Delete():
                _delete(step)
            case Restore():
                return self.restore(self.path(step.path))
            case RestoreLatest():
                path = side.latest_checkpoint(self.path(step.directory), step.latest_filename)
                return path if path is None else (path, self.restore(path))
            case Latest():
                return side.latest_checkpoint(self.path(step.directory), step.latest_filename)
            case SetLast():
                side.set_last_checkpoints([self.path(path) for path in step.paths])
            case SetLastWithTime():
                times = [START_NS / 1e9 + time for time in step.times]
                side.set_last_checkpoints_with_time([self.path(path) for path in step.paths], times)
            case Recover():
                side.recover_last_checkpoints([self.path(path) for path in step.paths])
            case RecoverFromState():
                paths = side.state_paths(self.path(step.directory), step.latest_filename)
                side.recover_last_checkpoints(paths)
                return paths
        return None

    def save(self, step: Save) -> str | None:
        self.side.train()
        path = self.path(step.path)
        saved = self.side.save(dataclasses.replace(step, path=path), self.now_ns)
        if saved is not None:
            # What `write_meta_graph` would write, named by the path that was asked for.
            asked = re.sub(r"-\?{5}-of-\d+$", "", os.path.normpath(saved))
            for suffix in SUFFIXES:
                with open(re.sub(r"-[\d?]+-of-\d+$", "", asked) + "." + suffix, "w") as file:
                    file.write(f"{suffix} of {saved}")
        return saved

    def restore(self, path: str) -> list[Any]:
        try:
            self.side.restore(path)
        except Failure:
            # What a failed restore leaves in the variables is not the same on both sides.
            self.side.reset()
            raise
        return self.side.values()


def _delete(step: Delete) -> None:
    """Removes a V2 checkpoint, V1 file or V1 shards of this prefix."""
    folder, name = os.path.split(step.prefix)
    wanted = r"\.index" if step.index_only else r"(\.index|\.data-\d{5}-of-\d{5}|-\d{5}-of-\d{5})?"
    pattern = re.compile(re.escape(name) + wanted)
    if not os.path.isdir(folder or "."):
        return
    for found in os.listdir(folder or "."):
        path = os.path.join(folder, found)
        if pattern.fullmatch(found) and os.path.isfile(path):
            os.unlink(path)


class Files:
    """The folder's files. Each that is new or was written gets the clock's time, as its writer meant."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[int, int, bytes]] = {}  # path: inode, time, contents

    def snapshot(self, now_ns: int) -> dict[str, bytes | None]:
        known, seen = {}, {}
        for path, entry in _walk(""):
            if entry.is_dir(follow_symlinks=False):
                seen[path] = None
                continue
            stat = entry.stat()
            identity = (stat.st_ino, stat.st_mtime_ns)
            before = self.known.get(path)
            if before and before[:2] == identity:
                known[path] = before
            else:
                os.utime(path, ns=(now_ns, now_ns))
                with open(path, "rb") as file:
                    known[path] = (stat.st_ino, now_ns, file.read())
            seen[path] = known[path][2]
        self.known = known
        return seen


def _walk(folder: str) -> Iterator[tuple[str, os.DirEntry]]:
    with os.scandir(folder or ".") as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            path = os.path.join(folder, entry.name)
            # TensorFlow's leftovers: of V2 and V1 files, and of sharded saves, that failed.
            if re.search(r"\.tempstate\d+$", path) or (path.endswith("_temp") and not os.listdir(path)):
                continue
            yield path, entry
            if entry.is_dir(follow_symlinks=False):
                yield from _walk(path)


def difference(folder: str, theirs: list[Seen], ours: list[Seen]) -> tuple[int, str, str] | None:
    """The first difference: after which step (0: the construction), in what, and in words."""
    last: set[str] = set()
    kept_twice = False
    for i, (their, our) in enumerate(zip(theirs, ours, strict=True)):
        if conflicts(their) and same_result(their.result, our.result):
            return None
        last.update(their.last_checkpoints)
        places = [os.path.normpath(os.path.join(folder, path)) for path in their.last_checkpoints]
        kept_twice |= len(set(places)) < len(places) or _has_two_spellings(last, folder)
        for what, words in _differences(their, our):
            return None if kept_twice else (i, what, words)
    return None


def conflicts(seen: Seen) -> bool:
    """Whether a save failed because the state file has the checkpoint's name: then TensorFlow's files and
    list are those of a save that did not fail. A listed difference."""
    return seen.result[0] == "error" and " conflicts with path used for checkpoint state" in seen.result[2][0]


def _has_two_spellings(paths: set[str], folder: str) -> bool:
    """Whether a checkpoint was kept under two spellings of its path, or twice under one (which takes a
    state file that mixes relative and absolute paths): when the older one is too many, TensorFlow
    deletes the files of both. A listed difference."""
    return len({os.path.normpath(os.path.join(folder, path)) for path in paths}) < len(paths)


def _differences(their: Seen, our: Seen) -> Iterator[tuple[str, str]]:
    if not same_result(their.result, our.result):
        yield "result", f"TensorFlow: {their.result}\n  ours:       {our.result}"
    if their.last_checkpoints != our.last_checkpoints:
        lists = f"TensorFlow: {their.last_checkpoints}\n  ours:       {our.last_checkpoints}"
        yield "last_checkpoints", lists
    if their.last_times != our.last_times:
        yield "times", f"TensorFlow: {their.last_times}\n  ours:       {our.last_times}"
    if sorted(their.files) != sorted(our.files):
        missing, extra = sorted(set(their.files) - set(our.files)), sorted(set(our.files) - set(their.files))
        yield "listing", f"missing: {missing}, too many: {extra}"
    for path, contents in their.files.items():
        if path in our.files and our.files[path] != contents:
            both = f"of {path}, TensorFlow:\n    {contents!r}\n  ours:\n    {our.files[path]!r}"
            yield "contents", both


def same_result(theirs: Any, ours: Any) -> bool:
    if theirs[0] == ours[0] == "error":
        return theirs[1] == ours[1] and any(ours[2][0].startswith(text) for text in theirs[2])
    return theirs == ours
