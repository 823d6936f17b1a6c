"""Tensors to save and how they are compared: by their bits."""

from __future__ import annotations

import hashlib
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

import tfckpt

ALL_DTYPES = sorted(tfckpt.DTYPES)
FIXED_SIZE_DTYPES = [number for number in ALL_DTYPES if number != tfckpt.STRING]
# Of these TensorFlow puts a tensor together from slices; of the others it reads stored slices only.
PARTIAL_DTYPES = [1, 2, 3, 4, 6, 5, 8, 18, 9, 10, 13, 12, 11, 14, 29, 30]
NARROW = {10: (0, 1), 29: (-8, 7), 30: (0, 15), 31: (-2, 1), 32: (0, 3), 33: (0, 15)}


def dtype_id(number: int) -> str:
    """The name of a dtype in test ids."""
    dtype = tfckpt.DTYPES[number]
    return "string" if number == tfckpt.STRING else (dtype.names or [dtype.name])[0]


def tensor(number: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """A tensor of any bits that are valid in the dtype: NaNs, infinities and negative zeros too."""
    rng = np.random.default_rng([seed, number, *shape])
    if number == tfckpt.STRING:
        return strings(rng, shape)
    dtype = tfckpt.DTYPES[number]
    num = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if number in NARROW:
        low, high = NARROW[number]
        raw = rng.integers(low, high, num, np.int8, endpoint=True).tobytes()
    else:
        raw = rng.bytes(num)
    return np.frombuffer(raw, dtype).reshape(shape)


def strings(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """Byte strings of any bytes, many short and some empty."""
    flat = np.empty(int(np.prod(shape, dtype=object)), object)
    for i in range(flat.size):
        flat[i] = rng.bytes(int(rng.choice([0, 1, 7, 127, 128, 300])))
    return flat.reshape(shape)


def same_bits(left: np.ndarray, right: np.ndarray) -> bool:
    """Whether two tensors are equal in dtype, shape and every bit."""
    if left.dtype != right.dtype or left.shape != right.shape:
        return False
    if left.dtype == object:
        return left.reshape(-1).tolist() == right.reshape(-1).tolist()
    return left.tobytes() == right.tobytes()


def assert_same(actual: np.ndarray, expected: np.ndarray, what: Any = "") -> None:
    """Fails with both tensors unless they are equal bit for bit."""
    expected = np.asarray(expected)
    assert same_bits(actual, expected), (
        f"{what!r}: got {actual.dtype} {actual.shape}\n{actual!r}\n"
        f"instead of {expected.dtype} {expected.shape}\n{expected!r}"
    )


def assert_same_tensors(actual: Mapping[bytes, np.ndarray], expected: Mapping[Any, np.ndarray]) -> None:
    """Compares two checkpoints' tensors by key."""
    wanted = {key if isinstance(key, bytes) else key.encode(): value for key, value in expected.items()}
    assert sorted(actual) == sorted(wanted)
    for key, value in wanted.items():
        assert_same(actual[key], value, key)


def box(spec: str, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """The NumPy index of a slice such as `0,2:-` in a full tensor."""
    extents = [extent for extent in spec.split(":") if extent]
    assert len(extents) == len(shape)
    index = []
    for extent in extents:
        if extent == "-":
            index.append(slice(None))
        else:
            start, length = map(int, extent.split(",")[:2])
            index.append(slice(start, start + length))
    return tuple(index)


def part(full: np.ndarray, spec: str, device: str | None = None) -> tfckpt.Part:
    """A slice of a tensor with the spec that says so; `spec` is the last word alone."""
    dims = " ".join(map(str, full.shape))
    return tfckpt.Part(full[box(spec, full.shape)], f"{dims} {spec}", device)


def files(prefix: str) -> dict[str, str]:
    """The names and SHA-256 of a checkpoint's files, `.meta` apart: without the prefix itself."""
    path = pathlib.Path(prefix)
    return {
        file.name.removeprefix(path.name): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(path.parent.iterdir())
        if file.name.startswith(path.name + ".") and not file.name.endswith(".meta")
    }


def assert_same_files(ours: str, theirs: str) -> None:
    """Fails unless two checkpoints have the same files with the same bytes."""
    mine, other = files(ours), files(theirs)
    assert other, f"no files of {theirs}"
    if mine != other:
        raise AssertionError(_first_difference(ours, theirs, mine, other))


def _first_difference(ours: str, theirs: str, mine: dict[str, str], other: dict[str, str]) -> str:
    """Where two checkpoints begin to differ."""
    if list(mine) != list(other):
        return f"files {list(mine)} instead of {list(other)}"
    suffix = next(name for name in mine if mine[name] != other[name])
    left, right = (pathlib.Path(p + suffix).read_bytes() for p in (ours, theirs))
    pairs = zip(left, right)
    at = next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))
    around = slice(max(0, at - 16), at + 32)
    return (
        f"{suffix}: {len(left)} bytes instead of {len(right)}, first difference at {at}:\n"
        f"  {left[around].hex(' ')}\n  instead of\n  {right[around].hex(' ')}"
    )
