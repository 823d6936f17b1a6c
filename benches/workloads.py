"""The named workloads: which tensors, where they lie in memory, where in the file.

A workload fixes everything that contenders must share: the keys, the bytes, the place of each tensor in the data
file (packed in key order, as TensorFlow packs) and the order in which a restore asks for them.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field

import numpy as np

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

# Bytes between two tensors in memory: keeps 64-byte alignment, varies the place within a page, and makes sure that no
# two tensors can be moved as one.
GAP = 64

# One tensor in a file and in memory. Same layout as ref_piece in reference/reference.c.
PIECE = np.dtype([("offset", "<u8"), ("data", "<u8"), ("size", "<u8")])


@dataclass(frozen=True)
class Workload:
    """A number of float32 tensors of one size, and what the library has to reach on them."""

    name: str
    num_tensors: int
    tensor_size: int
    shuffled: bool = False
    """Restores ask in random order, and the tensors lie in memory in random order."""
    bars: dict[str, float] = field(default_factory=dict)
    """For "restore" and "save": the least ratio to the base."""
    base: str = "tensorflow"
    """The group that the bars are about."""
    memory: int = 0
    """Bytes of the stored tensors, where a workload moves only some of them."""

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return self.num_tensors * self.tensor_size

    @property
    def shape(self) -> tuple[int]:
        """The shape of every tensor."""
        return (self.tensor_size // 4,)

    def keys(self) -> list[str]:
        """Tensor names whose order of creation is also their sorted order, as all formats keep it in the file."""
        width = len(str(self.num_tensors - 1))
        return [f"layer_{i:0{width}}/weights" for i in range(self.num_tensors)]

    def request_order(self) -> list[int]:
        """The order in which a restore asks for the tensors."""
        return self._order(seed=1)

    def memory_order(self) -> list[int]:
        """Which place in memory each tensor has."""
        return self._order(seed=2)

    def _order(self, seed: int) -> list[int]:
        if not self.shuffled:
            return list(range(self.num_tensors))
        return [int(i) for i in np.random.default_rng(seed).permutation(self.num_tensors)]


WORKLOADS: tuple[Workload, ...] = (
    Workload("64x16MiB", 64, 16 * MIB, bars={"restore": 2.5, "save": 1.5}),
    Workload("20k x 4KiB", 20_000, 4 * KIB, shuffled=True, bars={"restore": 4.0, "save": 4.0}),
)


class Arena:
    """The memory of a workload's tensors: one allocation, touched, each tensor in a place of its own."""

    def __init__(self, workload: Workload) -> None:
        stride = workload.tensor_size + GAP
        self._memory = np.empty(workload.num_tensors * stride + GAP, np.uint8)
        base = -self._memory.ctypes.data % GAP
        self.arrays: list[np.ndarray] = []
        for place in workload.memory_order():
            start = base + place * stride
            self.arrays.append(self._memory[start : start + workload.tensor_size].view(np.float32))
        self.pieces = np.empty(workload.num_tensors, PIECE)
        self.pieces["offset"] = np.arange(workload.num_tensors, dtype=np.uint64) * workload.tensor_size
        self.pieces["data"] = [array.ctypes.data for array in self.arrays]
        self.pieces["size"] = workload.tensor_size
        self.fill(0)

    def fill(self, byte: int) -> None:
        """Overwrites all of it, so that stale bytes never pass for restored ones."""
        ctypes.memset(self._memory.ctypes.data, byte, self._memory.nbytes)

    def fill_random(self, seed: int) -> None:
        """Bytes that do not repeat: no two tensors are alike."""
        rng = np.random.default_rng(seed)
        for array in self.arrays:
            array.view(np.uint32)[:] = rng.integers(0, 1 << 32, array.size, np.uint32)

    def touch(self) -> None:
        """Reads all of it once, to leave the caches in the same state before every save."""
        int(np.bitwise_xor.reduce(self._memory.view(np.uint64)))


class Tensors:
    """A workload's tensors, ready for every contender."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.keys = workload.keys()
        self.source = Arena(workload)
        self.source.fill_random(seed=0)

    def pieces_at(self, arrays: list[np.ndarray]) -> np.ndarray:
        """The same tensors in other memory."""
        pieces = self.source.pieces.copy()
        pieces["data"] = [array.ctypes.data for array in arrays]
        return pieces
