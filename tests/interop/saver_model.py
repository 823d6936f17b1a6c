"""What a sequence of calls to a `Saver` is made of; it prints as Python that builds it again."""

from __future__ import annotations

import zlib
from dataclasses import dataclass, field

import numpy as np

import tfckpt

# Where the clock stands when a sequence begins, in nanoseconds since 1970.
START_NS = 1_700_000_000 * 10**9
FOLDER = "{dir}"  # stands, in a path, for the absolute path of the sequence's folder
BOOL, STRING = 10, tfckpt.STRING


@dataclass(frozen=True)
class Variable:
    """A variable of the training; with `parts` it is partitioned along its first dimension."""

    key: str
    dtype: int = 1
    shape: tuple[int, ...] = (2,)
    devices: tuple[str, ...] = ("",)  # one, or one per part
    parts: int = 0

    def slices(self) -> list[tuple[int, int]]:
        """Start and length of each part in the first dimension; the first parts are the longer ones."""
        length, longer = divmod(self.shape[0], self.parts)
        slices, start = [], 0
        for i in range(self.parts):
            slices.append((start, length + (i < longer)))
            start += slices[-1][1]
        return slices

    def specs(self) -> list[str]:
        """The slice spec of each part, written as TensorFlow writes it; `""` for a whole variable."""
        if not self.parts:
            return [""]
        dims = " ".join(map(str, self.shape))
        rest = [f"0,{dim}" for dim in self.shape[1:]]
        return [f"{dims} " + ":".join([f"{start},{length}", *rest]) for start, length in self.slices()]

    def part_devices(self) -> list[str]:
        """The device of each part."""
        return [self.devices[i % len(self.devices)] for i in range(self.parts or 1)]

    def initial(self) -> list[np.ndarray]:
        """The values of each part before the training; they differ from key to key."""
        num = int(np.prod(self.shape, dtype=int))
        seed = zlib.crc32(self.key.encode()) % 50
        numbers = (np.arange(num) * 3 + seed) % 97
        if self.dtype == STRING:
            full = np.empty(num, object)
            full[:] = [b"s" * (int(n) % 7) + str(n).encode() for n in numbers]
        elif self.dtype == BOOL:
            full = numbers % 2 == 0
        else:
            full = numbers.astype(tfckpt.DTYPES[self.dtype])
        full = full.reshape(self.shape)
        if not self.parts:
            return [full]
        return [np.ascontiguousarray(full[start : start + length]) for start, length in self.slices()]

    @property
    def trains(self) -> bool:
        """Whether one is added to the values before each save."""
        return self.dtype not in (BOOL, STRING)


@dataclass(frozen=True)
class Options:
    """The arguments of `Saver`, with TensorFlow's meaning and defaults."""

    keys: tuple[str, ...] | None = None  # of the variables to save; None: all
    renamed: str = ""  # put before each key
    sharded: bool = False
    max_to_keep: int | None = 5
    keep_hours: float | None = 10000.0
    allow_empty: bool = False
    version: int = 2
    pad: bool = False
    relative: bool = False


@dataclass(frozen=True)
class Restart:
    """A new `Saver`, as after a restart of the process; the variables keep their values."""

    options: Options = Options()


@dataclass(frozen=True)
class Reload:
    """A new `Saver` from the definition of the one before, of the same variables."""

    pad: bool = False
    relative: bool = False


@dataclass(frozen=True)
class Save:
    """`save`, after one more step of training."""

    path: str
    step: int | None = None
    latest_filename: str | None = None
    suffix: str = "meta"
    write_state: bool = True


@dataclass(frozen=True)
class Advance:
    """The clock moves on, or back."""

    seconds: float


@dataclass(frozen=True)
class Delete:
    """Somebody removes a checkpoint's files, or its index only. The prefix is relative to the folder."""

    prefix: str
    index_only: bool = False


@dataclass(frozen=True)
class Restore:
    """`restore`."""

    path: str


@dataclass(frozen=True)
class RestoreLatest:
    """`latest_checkpoint` and, if there is one, `restore`."""

    directory: str = FOLDER
    latest_filename: str | None = None


@dataclass(frozen=True)
class Latest:
    """`latest_checkpoint`."""

    directory: str = FOLDER
    latest_filename: str | None = None


@dataclass(frozen=True)
class SetLast:
    """`set_last_checkpoints`."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class SetLastWithTime:
    """`set_last_checkpoints_with_time`; the times are seconds after the sequence's start."""

    paths: tuple[str, ...]
    times: tuple[float, ...]


@dataclass(frozen=True)
class Recover:
    """`recover_last_checkpoints`."""

    paths: tuple[str, ...]


@dataclass(frozen=True)
class RecoverFromState:
    """`recover_last_checkpoints` of what the state file lists, as TensorFlow's session manager does."""

    directory: str = FOLDER
    latest_filename: str | None = None


Step = (
    Restart | Reload | Save | Advance | Delete | Restore | RestoreLatest | Latest | SetLast | SetLastWithTime
    | Recover | RecoverFromState
)  # fmt: skip


@dataclass(frozen=True)
class Sequence:
    """A folder, variables and what happens to them; a `Saver` with `options` is there from the start."""

    variables: tuple[Variable, ...]
    options: Options
    steps: tuple[Step, ...]
    folders: tuple[str, ...] = ()  # made before the first step
    use_resource: bool = field(default=True)
