"""Random sequences of calls to a `Saver`, in TensorFlow and here: after each step all that can be seen is equal.

`TFCKPT_SEED` and `TFCKPT_SEQUENCES` in the environment choose other sequences, and more of them.
"""

from __future__ import annotations

import collections
import dataclasses
import math
import os
import pathlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from concurrent.futures import Future, ProcessPoolExecutor

import pytest

import saver_generator
import saver_model
import saver_ours
import saver_shrink
import saver_tensorflow
from saver_model import Latest, Options, Recover, Reload, Restore, Save, Sequence, Variable
from saver_run import MakeSide, Seen, difference, run

SEED = os.environ.get("TFCKPT_SEED", "0")
NUM_SEQUENCES = int(os.environ.get("TFCKPT_SEQUENCES", "1100"))
# Sequences that TensorFlow is ahead of us.
AHEAD = 32


@pytest.fixture(scope="module")
def tensorflow() -> Iterator[ProcessPoolExecutor]:
    """Processes with TensorFlow in them."""
    with saver_tensorflow.pool(max(1, min(4, os.cpu_count() or 1))) as pool:
        yield pool


@pytest.fixture(scope="module")
def root() -> Iterator[pathlib.Path]:
    """A folder in memory, if there is such a place: nothing here is about disks."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    path = pathlib.Path(tempfile.mkdtemp(prefix="tfckpt-", dir=memory))
    yield path
    shutil.rmtree(path)


class Judge:
    """Runs sequences in TensorFlow and then, in the same folder, here."""

    def __init__(
        self, pool: ProcessPoolExecutor, root: pathlib.Path, make_side: MakeSide = saver_ours.OurSide
    ) -> None:
        self.pool = pool
        self.root = root
        self.make_side = make_side
        self.num = 0

    def submit(self, sequence: Sequence) -> tuple[Future[list[Seen]], str]:
        self.num += 1
        folder = str(self.root / str(self.num))
        return self.pool.submit(saver_tensorflow.run_sequence, sequence, folder), folder

    def compare(
        self, sequence: Sequence, theirs: Future[list[Seen]], folder: str
    ) -> tuple[int, str, str] | None:
        seen = theirs.result(timeout=300)  # before ours, which is to have the folder for itself
        ours = run(sequence, folder, self.make_side)
        return difference(folder, seen, ours)

    def check(self, sequence: Sequence) -> tuple[int, str, str] | None:
        return self.compare(sequence, *self.submit(sequence))

    def shrunk(self, sequence: Sequence, what: str) -> Sequence:
        """The shortest sequence found that differs in the same thing."""
        return saver_shrink.shrink(sequence, lambda other: (self.check(other) or (0, "", ""))[1] == what)

    def explain(self, name: str, sequence: Sequence, what: str) -> str:
        short = self.shrunk(sequence, what)
        found = self.check(short)
        assert found, "a sequence that differed does so no more"
        i, what, words = found
        step = ("construction", *short.steps)[i]
        return f"sequence {name}: the {what} differs after {step}\n  {words}\n\n{saver_shrink.repro(short)}"


@pytest.fixture
def judge(tensorflow: ProcessPoolExecutor, root: pathlib.Path) -> Judge:
    return Judge(tensorflow, root)


def test_random_sequences(judge: Judge, capsys: pytest.CaptureFixture[str]) -> None:
    names = [f"{SEED}:{i}" for i in range(NUM_SEQUENCES)]
    queue: collections.deque[tuple[str, Sequence, Future[list[Seen]], str]] = collections.deque()
    counts: collections.Counter[str] = collections.Counter()
    for name in [*names, *[""] * AHEAD]:
        if name:
            sequence = saver_generator.sequence(random.Random(name))
            queue.append((name, sequence, *judge.submit(sequence)))
        if len(queue) > AHEAD or (queue and not name):
            name, sequence, theirs, folder = queue.popleft()
            found = judge.compare(sequence, theirs, folder)
            assert not found, judge.explain(name, sequence, found[1])
            count(counts, sequence, theirs.result())
    with capsys.disabled():
        print(f"\nsequences {SEED}:0 to {names[-1]}: {dict(sorted(counts.items()))}")
    # That the sequences do what they are for.
    enough = {
        "saves": 10_000, "deletions": 2000, "kept for good": 100, "restores": 500, "saves refused": 300,
        "restores refused": 300, "latest found": 200, "latest absent": 150, "recovered": 100,
    }  # fmt: skip
    if NUM_SEQUENCES >= 1000:
        assert not {what: num for what, num in enough.items() if counts[what] < num}, counts


def count(counts: collections.Counter[str], sequence: Sequence, seen: list[Seen]) -> None:
    """Counts what happened."""
    for step, before, after in zip(sequence.steps, seen, seen[1:]):
        ok = after.result[0] == "ok"
        kind = type(step).__name__
        if isinstance(step, Save):
            counts["saves" if ok else "saves refused"] += 1
            gone = [path for path in before.last_checkpoints if path not in after.last_checkpoints]
            deleted = before.files.keys() - after.files.keys()
            counts["deletions"] += bool(deleted)
            counts["kept for good"] += bool(gone and not deleted)
        elif kind.startswith("Restore"):
            counts["restores" if ok and after.result[1] else "restores refused"] += 1
        elif kind == "Latest":
            counts["latest found" if after.result[1] else "latest absent"] += 1
        elif kind.startswith("Recover"):
            counts["recovered"] += bool(after.last_checkpoints)


# ---- the judge itself ----


class RecordsTwice(saver_ours.OurSide):
    """Lists a path twice that is saved with step 3."""

    def save(self, step: Save, now_ns: int) -> str | None:
        saved = super().save(step, now_ns)
        if saved and step.step == 3:
            self.saver.set_last_checkpoints([*self.saver.last_checkpoints, saved])
        return saved


class KeepsOneMore(saver_ours.OurSide):
    def restart(self, options: Options, now_ns: int) -> None:
        super().restart(dataclasses.replace(options, max_to_keep=(options.max_to_keep or -1) + 1), now_ns)


class IsBuiltLater(saver_ours.OurSide):
    def restart(self, options: Options, now_ns: int) -> None:
        super().restart(options, now_ns + 1000)


class ForgetsTheSuffix(saver_ours.OurSide):
    def save(self, step: Save, now_ns: int) -> str | None:
        return super().save(dataclasses.replace(step, suffix="meta"), now_ns)


class NeverPads(saver_ours.OurSide):
    def restart(self, options: Options, now_ns: int) -> None:
        super().restart(dataclasses.replace(options, pad=False), now_ns)


class RestoresNothing(saver_ours.OurSide):
    def restore(self, path: str) -> None:
        kept = [part.copy() for parts in self.parts.values() for part in parts]
        super().restore(path)
        for part, before in zip((part for parts in self.parts.values() for part in parts), kept):
            part[...] = before


WRONG = [RecordsTwice, KeepsOneMore, IsBuiltLater, ForgetsTheSuffix, NeverPads, RestoresNothing]


def first_found(judge: Judge) -> tuple[Sequence, str]:
    """The first random sequence that differs, and in what."""
    for i in range(200):
        sequence = saver_generator.sequence(random.Random(f"wrong:{i}"))
        found = judge.check(sequence)
        if found:
            return sequence, found[1]
    raise AssertionError("a wrong saver was not found")


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_saver_is_found(
    tensorflow: ProcessPoolExecutor, tmp_path: pathlib.Path, wrong: MakeSide
) -> None:
    first_found(Judge(tensorflow, tmp_path, wrong))


def test_a_sequence_that_fails_is_shrunk(tensorflow: ProcessPoolExecutor, tmp_path: pathlib.Path) -> None:
    judge = Judge(tensorflow, tmp_path, RecordsTwice)
    sequence, what = first_found(judge)
    short = judge.shrunk(sequence, what)
    assert len(short.steps) == 1 < len(sequence.steps)
    assert isinstance(short.steps[0], Save) and short.steps[0].step == 3
    assert eval(saver_shrink.repro(short), {**vars(saver_model), "inf": math.inf}) == short  # noqa: S307
    assert not Judge(tensorflow, tmp_path / "right").check(short)


# ---- sequences that once differed ----

W = (Variable("w"),)
FOUND = {
    "back from a folder that is not there": Sequence(
        W, Options(), (Save("a/../d/m"), Restore("a/../d/m"), Latest("a/../d"))
    ),
    "a folder made through a dot": Sequence(W, Options(), (Save("d/./m"), Restore("d/./m"))),
    "recovered through a folder that is not there": Sequence(
        W, Options(max_to_keep=1), (Save("m", 8), Recover(("./d/../m-8",)), Save("m", 9))
    ),
    "shards by the definition only": Sequence(W, Options(sharded=True), (Reload(), Save("{dir}/checkpoint"))),
}


@pytest.mark.parametrize("sequence", FOUND.values(), ids=FOUND)
def test_sequences_that_once_differed(judge: Judge, sequence: Sequence) -> None:
    assert not judge.check(sequence)
