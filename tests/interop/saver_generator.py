"""Random sequences of calls to a `Saver`.

Left out, because we differ on purpose (docs/differences.md) or because TensorFlow's result is left to chance:

* prefixes with `* ? [ \\`, `//` or a `/` at the end, empty prefixes: TensorFlow makes patterns of them, leaks files
  or writes what it cannot read;
* a checkpoint with the name of the state file that names it (it takes `sharded` and relative paths): once it is
  deleted, TensorFlow's `latest_checkpoint` takes the state file for it;
* a data file removed alone: TensorFlow's `latest_checkpoint` does not notice;
* a path that is saved under two spellings, and a save to the name of the state file: they are made, but after
  them the comparison ends (`saver_run.difference`);
* folders in the place of a checkpoint, state files that do not parse: None or any error in TensorFlow;
* a negative `max_to_keep`, a negative `keep_checkpoint_every_n_hours`: an error, and the same as 0;
* a shape that differs: TensorFlow takes over the checkpoint's shape, or says `Assign requires shapes…`;
* more than 16 tensors in a V1 file together with a partitioned variable: the order of its slices is that of an
  unstable sort.
"""

from __future__ import annotations

import dataclasses
import math
import os
import random
from typing import Any

import numpy as np

from saver_model import (
    BOOL,
    FOLDER,
    STRING,
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

KEYS = ["w", "layer/kernel", "b", "Zähler", "x y", "w/Adam", "w_1", "W", "a-b", "layer"]
# As the caller writes them, and as TensorFlow groups by them.
DEVICES = {
    "": "",
    "/cpu:0": "/device:CPU:0",
    "/device:CPU:0": "/device:CPU:0",
    "/CPU:1": "/device:CPU:1",
    "/device:CPU:10": "/device:CPU:10",
    "cpu:2": "/device:CPU:2",
    "/job:localhost/cpu:3": "/job:localhost/device:CPU:3",
    "/job:localhost/replica:0/task:0/device:CPU:0": "/job:localhost/replica:0/task:0/device:CPU:0",
}
PATHS = [
    "m", "./m", "d/m", f"{FOLDER}/m", f"{FOLDER}/d/m", "a/../d/m", f"{FOLDER}/a/../m", "d/./m", "model.ckpt",
    "run-1-of-3", "zwölf", "d/m m", "new/m", f"{FOLDER}/other/m", "./d/../m",
]  # fmt: skip
HOPELESS = ["new/deep/m", f"{FOLDER}/other/m", "new/m", "checkpoint", f"{FOLDER}/checkpoint"]
HOURS = [10000.0, 10000.0, None, 0, 0.5, 1.0, 0.001, 1 / 3, 24]
DTYPES = [1, 1, 1, 2, 3, 6, 9, 19, BOOL, STRING]
SHAPES = [(), (2,), (3, 2), (0, 3), (1,)]


def sequence(rng: random.Random) -> Sequence:
    """A random sequence of about a dozen saves and what may come between them."""
    return _Generator(rng).sequence()


class _Generator:
    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.paths = self.make_paths()
        self.latest = [None] * 12 + [rng.choice(["latest", "state.txt", "sub/state"])]
        if rng.random() < 0.1:
            self.latest += ["latest"] * 8
        self.prefixes: list[str] = []  # relative to the folder, of what was saved
        self.saved: list[str] = []  # what `save` returned
        self.step = 0
        self.now = 0.0
        self.built = 0.0
        self.variables = self.make_variables()
        self.options = self.make_options()

    def sequence(self) -> Sequence:
        rng, options = self.rng, self.options
        steps: list[Step] = []
        for _ in range(rng.choice([8, 16, 22, 26])):
            if rng.random() < 0.3:
                steps.append(self.advance())
            steps.append(self.any_step())
        folders = ("a", "d") if rng.random() < 0.9 else ()
        return Sequence(self.variables, options, tuple(steps), folders, rng.random() < 0.5)

    def make_paths(self) -> list[str]:
        """Of different places: two spellings of one are a listed difference."""
        rng = self.rng
        paths = rng.sample(PATHS, rng.choice([1, 1, 2, 3]))
        if rng.random() < 0.15:
            paths.append(rng.choice(HOPELESS))
        by_place = {os.path.normpath(path.replace(FOLDER, ".")): path for path in paths}
        return list(by_place.values())

    def make_variables(self) -> tuple[Variable, ...]:
        rng = self.rng
        if rng.random() < 0.05:
            devices = [f"/cpu:{i}" for i in range(16)]
            return tuple(
                Variable(f"v{i}", rng.choice(DTYPES), devices=(devices[i % 16],)) for i in range(rng.choice([16, 20]))
            )
        devices = rng.sample(list(DEVICES), rng.choice([1, 2, 2, 3, 4]))
        made = []
        for key in rng.sample(KEYS, rng.choice([1, 2, 2, 3, 4])):
            dtype = rng.choice(DTYPES)
            if rng.random() < 0.2:
                parts = rng.choice([2, 3])
                shape = rng.choice([(6, 2), (5,), (4, 1, 2)])
                made.append(Variable(key, dtype, shape, tuple(rng.choices(devices, k=parts)), parts))
            else:
                made.append(Variable(key, dtype, rng.choice(SHAPES), (rng.choice(devices),)))
        return tuple(made)

    def make_options(self) -> Options:
        rng = self.rng
        keys, allow_empty = None, rng.random() < 0.05
        if len(self.variables) > 1 and rng.random() < 0.2:
            chosen = rng.sample(self.variables, rng.randrange(1, len(self.variables)))
            keys = tuple(variable.key for variable in chosen)
        if allow_empty and rng.random() < 0.4:
            keys = ()
        self.built = self.now
        return Options(
            keys,
            "ema/" if rng.random() < 0.05 else "",
            rng.random() < 0.4,
            rng.choice([5, 5, 1, 1, 2, 2, 3, 4, 0, None]),
            rng.choice(HOURS),
            allow_empty,
            rng.choice([2, 2, 2, 1]),
            rng.random() < 0.2,
            rng.random() < 0.25,
        )

    def any_step(self) -> Step:
        makers: list[tuple[Any, float]] = [
            (self.save, 70), (self.restart, 5), (self.reload, 1), (self.delete, 4), (self.restore, 7),
            (self.restore_latest, 4), (self.latest_checkpoint, 3), (self.set_last, 2),
            (self.set_last_with_time, 2), (self.recover, 2), (self.recover_from_state, 3),
        ]  # fmt: skip
        return self.rng.choices([maker for maker, _ in makers], [weight for _, weight in makers])[0]()

    def save(self) -> Save:
        rng = self.rng
        path = rng.choice(self.paths)
        step: int | None
        if rng.random() < 0.85:
            self.step += rng.choice([0, 1, 1, 1, 1, 1, 7])
            step = self.step
            if rng.random() < 0.05:
                step = rng.choice([-3, 0, 123456789, 2**40, -(2**31)])
        else:
            step = None
        if step is None and self.options.relative and os.path.basename(path) == "checkpoint":
            step = self.step
        saved = path if step is None else f"{path}-{step:08d}" if self.options.pad else f"{path}-{step}"
        self.prefixes.append(os.path.normpath(saved.replace(FOLDER, ".")))
        self.saved.append(saved + self.pattern())
        return Save(
            path,
            step,
            rng.choice(self.latest),
            "graph" if rng.random() < 0.08 else "meta",
            rng.random() > 0.06,
        )

    def pattern(self) -> str:
        """What a sharded V1 save puts after the name."""
        if self.options.version == 2 or not self.options.sharded:
            return ""
        saved = [v for v in self.variables if self.options.keys is None or v.key in self.options.keys]
        num = len({DEVICES.get(d, d) for variable in saved for d in variable.part_devices()})
        return f"-?????-of-{num:05}"

    def restart(self) -> Restart:
        options = self.make_options()
        if self.rng.random() < 0.02:
            # Refused; the saver before stays.
            return Restart(Options((), max_to_keep=1))
        self.options = options
        return Restart(options)

    def reload(self) -> Reload:
        step = Reload(self.rng.random() < 0.3, self.rng.random() < 0.3)
        if self.options.keys != ():
            self.options = dataclasses.replace(self.options, pad=step.pad, relative=step.relative)
            self.built = self.now
        return step

    def advance(self) -> Advance:
        hours = self.options.keep_hours or 0.0
        seconds = self.rng.choice(
            [1, 0.5, 60, 600, 1800, 3600, 3601, 7200, 36000, 100000, -60, 1e-6]
            # To the very instants that are kept.
            + [hours * 3600, float(np.float32(hours)) * 3600, self.built + hours * 3600 - self.now] * 2
        )
        seconds = round(seconds, 9) if abs(seconds) < 1e6 else 1e6
        self.now += seconds
        return Advance(seconds)

    def some_saved(self, num: int) -> list[str]:
        """Paths that were saved, now and then one that was not."""
        rng = self.rng
        some = [rng.choice(self.saved[-8:] or ["m-0"]) for _ in range(num)]
        if rng.random() < 0.1:
            some.insert(0, rng.choice(["gone", "gone/m-1", f"{FOLDER}/gone"]))
        return list(dict.fromkeys(some))

    def delete(self) -> Delete:
        return Delete(self.rng.choice(self.prefixes[-8:] or ["m-0"]), self.rng.random() < 0.4)

    def restore(self) -> Restore:
        rng = self.rng
        if rng.random() < 0.1:
            return Restore(rng.choice(["m-999", f"{FOLDER}/gone/m", "gone/m"]))
        if self.prefixes and rng.random() < 0.15:
            # The name without the pattern of V1 shards, with another number of them, or one shard.
            tail = rng.choice(["", "-?????-of-00003", "-00000-of-00002"])
            return Restore(rng.choice(self.prefixes[-8:]) + tail)
        return Restore(self.some_saved(1)[0])

    def directory(self) -> str:
        return self.rng.choice([FOLDER, "", ".", "d", f"{FOLDER}/d", "new", "gone"])

    def state_file(self) -> tuple[str, str | None]:
        """A folder and a state file; mostly that of the last save."""
        if not self.saved or self.rng.random() < 0.3:
            return self.directory(), self.rng.choice([name for name in self.latest if name != "sub/state"])
        return os.path.dirname(self.rng.choice(self.paths)), None

    def restore_latest(self) -> RestoreLatest:
        return RestoreLatest(*self.state_file())

    def latest_checkpoint(self) -> Latest:
        return Latest(*self.state_file())

    def set_last(self) -> SetLast:
        return SetLast(tuple(self.some_saved(self.rng.randrange(4))))

    def set_last_with_time(self) -> SetLastWithTime:
        paths = self.some_saved(self.rng.randrange(1, 5))
        kept = self.built + (self.options.keep_hours or 0.0) * 3600
        times = [0.0, self.now, self.now - 100, self.now + 50, self.built, kept, kept + 1e-3, math.inf, -math.inf]
        return SetLastWithTime(tuple(paths), tuple(self.rng.choice(times) for _ in paths))

    def recover(self) -> Recover:
        return Recover(tuple(self.some_saved(self.rng.randrange(1, 6))))

    def recover_from_state(self) -> RecoverFromState:
        return RecoverFromState(*self.state_file())
