"""The named workloads: which tensors, where they lie in memory, where in the file.

A workload fixes everything that contenders must share: the keys, the bytes, the place of each tensor in the data
file (packed in key order, as TensorFlow packs) and the order in which a restore asks for them.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

KIB = 1 << 10
MIB = 1 << 20
GIB = 1 << 30

FLOAT32 = np.dtype(np.float32)

# Bytes between two tensors in memory: keeps 64-byte alignment, varies the place within a page, and makes sure that no
# two tensors can be moved as one.
GAP = 64

# One tensor in a file and in memory. Same layout as ref_piece in reference/reference.c.
PIECE = np.dtype([("offset", "<u8"), ("data", "<u8"), ("size", "<u8")])


class Spec(NamedTuple):
    """One tensor."""

    key: str
    shape: tuple[int, ...]
    dtype: np.dtype = FLOAT32

    @property
    def size(self) -> int:
        """Bytes."""
        size = self.dtype.itemsize
        for dim in self.shape:
            size *= dim
        return size


@dataclass(frozen=True)
class Workload:
    """A named set of tensors."""

    name: str
    make: Callable[[], list[Spec]]
    shuffled: bool = False
    """Restores ask in random order, and the tensors lie in memory in random order."""

    @cached_property
    def specs(self) -> list[Spec]:
        """The tensors in the order of their keys, in which all formats keep them in the file."""
        return sorted(self.make())

    @cached_property
    def sizes(self) -> np.ndarray:
        """Bytes of each."""
        return np.array([spec.size for spec in self.specs], np.uint64)

    @cached_property
    def offsets(self) -> np.ndarray:
        """Where each lies in a packed data file."""
        return np.cumsum(self.sizes) - self.sizes

    @cached_property
    def keys(self) -> list[str]:
        """Their names."""
        return [spec.key for spec in self.specs]

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return int(self.sizes.sum())

    @property
    def num_tensors(self) -> int:
        """How many."""
        return len(self.specs)

    def request_order(self) -> np.ndarray:
        """The order in which a restore asks for the tensors."""
        return self._order(seed=1)

    def memory_order(self) -> np.ndarray:
        """Which tensor lies in memory first, second, ..."""
        return self._order(seed=2)

    def _order(self, seed: int) -> np.ndarray:
        count = self.num_tensors
        return np.random.default_rng(seed).permutation(count) if self.shuffled else np.arange(count)


def uniform(count: int, size: int) -> Callable[[], list[Spec]]:
    """So many float32 vectors of so many bytes."""
    width = len(str(count - 1))
    return lambda: [Spec(f"layer_{i:0{width}}/weights", (size // 4,)) for i in range(count)]


def decoder() -> list[Spec]:
    """A decoder of 355 million parameters (24 layers of width 1024, 50,257 tokens, 1,024 positions, as in GPT-2
    medium): bfloat16 weights, their float32 masters, and Adam's two slots."""
    import ml_dtypes  # which the bench for a GPU does without

    width = 1024
    parameters: dict[str, tuple[int, ...]] = {"wte": (50257, width), "wpe": (1024, width)}
    for layer in range(24):
        block: dict[str, tuple[int, ...]] = {
            "attn/c_attn/w": (width, 3 * width),
            "attn/c_attn/b": (3 * width,),
            "attn/c_proj/w": (width, width),
            "attn/c_proj/b": (width,),
            "mlp/c_fc/w": (width, 4 * width),
            "mlp/c_fc/b": (4 * width,),
            "mlp/c_proj/w": (4 * width, width),
            "mlp/c_proj/b": (width,),
            **{f"ln_{i}/{part}": (width,) for i in (1, 2) for part in "gb"},
        }
        parameters.update({f"h{layer:02}/{name}": shape for name, shape in block.items()})
    parameters.update({"ln_f/g": (width,), "ln_f/b": (width,)})
    kinds = {"": np.dtype(ml_dtypes.bfloat16), "/master": FLOAT32, "/Adam": FLOAT32, "/Adam_1": FLOAT32}
    return [Spec(f"model/{n}{kind}", shape, dtype) for n, shape in parameters.items() for kind, dtype in kinds.items()]


ONE_LARGE = Workload("1x4GiB", uniform(1, 4 * GIB))
MEDIUM = Workload("64x16MiB", uniform(64, 16 * MIB))
DECODER = Workload("decoder-350M", decoder)
SMALL = Workload("20k x 4KiB", uniform(20_000, 4 * KIB), shuffled=True)
TINY = Workload("1M x 64B", uniform(1_000_000, 64))
FEW = Workload("10 of 1MiB in all", uniform(10, MIB // 10 // 4 * 4))


class Arena:
    """The memory of a workload's tensors: one allocation, touched, each tensor in a place of its own."""

    def __init__(self, workload: Workload) -> None:
        order, sizes = workload.memory_order(), workload.sizes
        strides = (sizes[order] + np.uint64(2 * GAP - 1)) // np.uint64(GAP) * np.uint64(GAP)
        self._memory = np.empty((int(strides.sum()) + GAP) // 8 * 8 + 8, np.uint8)
        starts = np.empty(len(sizes), np.uint64)
        starts[order] = np.cumsum(strides) - strides + np.uint64(-self._memory.ctypes.data % GAP)
        self._workload, self._starts = workload, starts
        self.pieces = np.empty(len(sizes), PIECE)
        self.pieces["offset"], self.pieces["size"] = workload.offsets, sizes
        self.pieces["data"] = starts + np.uint64(self._memory.ctypes.data)
        self.fill(0)

    @cached_property
    def arrays(self) -> list[np.ndarray]:
        """The tensors, in key order."""
        specs, starts = self._workload.specs, self._starts.tolist()
        return [self._memory[a : a + s.size].view(s.dtype).reshape(s.shape) for s, a in zip(specs, starts)]

    def fill(self, byte: int) -> None:
        """Overwrites all of it, so that stale bytes never pass for restored ones."""
        ctypes.memset(self._memory.ctypes.data, byte, self._memory.nbytes)

    def fill_random(self, seed: int) -> None:
        """Bytes that do not repeat: a block of random ones, and another number added to it wherever it is used."""
        rng = np.random.default_rng(seed)
        words = self._memory.view(np.uint64)
        block = rng.integers(0, 1 << 64, 8 * MIB // 8, np.uint64)
        for start in range(0, words.size, block.size):
            part = words[start : start + block.size]
            np.add(block[: part.size], rng.integers(0, 1 << 64, dtype=np.uint64), out=part)

    def touch(self) -> None:
        """Reads all of it once, to leave the caches in the same state before every save."""
        int(np.bitwise_xor.reduce(self._memory.view(np.uint64)))


class Source:
    """A workload's tensors with their bytes."""

    def __init__(self, workload: Workload) -> None:
        self.workload = workload
        self.arena = Arena(workload)
        self.arena.fill_random(seed=0)

    @property
    def pieces(self) -> np.ndarray:
        """Where they lie in the file and in memory."""
        return self.arena.pieces


def pieces_at(workload: Workload, arrays: list[np.ndarray]) -> np.ndarray:
    """The workload's tensors in other memory."""
    pieces = np.empty(workload.num_tensors, PIECE)
    pieces["offset"], pieces["size"] = workload.offsets, workload.sizes
    pieces["data"] = [array.ctypes.data for array in arrays]
    return pieces


def prefix_of(pieces: np.ndarray, limit: int) -> np.ndarray:
    """The pieces of the file's first `limit` bytes, the last one cut if need be."""
    kept = pieces[pieces["offset"] < limit].copy()
    kept["size"] = np.minimum(kept["size"], np.uint64(limit) - kept["offset"])
    return kept
