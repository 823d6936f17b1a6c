"""Random checkpoints, compared in both directions by value and byte by byte.

Hypothesis draws small checkpoints and shrinks what fails; larger ones come from a seed. All of it
is the same in every run unless `TFCKPT_SEED` is set; a failure prints what to set it to.
`TFCKPT_EXAMPLES` is the number of small checkpoints.
"""

from __future__ import annotations

import os
import pathlib
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

import tensorflow_side
import tfckpt
from tfckpt import Part, Reader, Request
from values import ALL_DTYPES, PARTIAL_DTYPES, assert_same, assert_same_files, box, same_bits, tensor

SEED = int(os.environ.get("TFCKPT_SEED", "0"))
EXAMPLES = int(os.environ.get("TFCKPT_EXAMPLES", "300"))

Restore = Callable[[str, list[Request]], list[np.ndarray]]


class Drawn:
    """A tensor of a random checkpoint: its values, and its slices if it is partitioned."""

    def __init__(self, key: bytes, full: np.ndarray, specs: list[str], reads: list[str]) -> None:
        self.key, self.full, self.specs, self.reads = key, full, specs, reads

    def __repr__(self) -> str:
        return (
            f"Drawn({self.key!r}, dtype {tfckpt.dtype_number(self.full.dtype)}, shape {self.full.shape}, "
            f"slices {self.specs}, reads {self.reads})"
        )

    def parts(self) -> list[tuple[bytes, np.ndarray | Part]]:
        """What is saved."""
        if not self.specs:
            return [(self.key, self.full)]
        return [(self.key, self.part(spec)) for spec in self.specs]

    def part(self, spec: str) -> Part:
        """One slice of it."""
        dims = " ".join(map(str, self.full.shape))
        return Part(self.full[box(spec, self.full.shape)], f"{dims} {spec}")

    def requests(self) -> list[tuple[Request, np.ndarray]]:
        """What is read, and what it must be: the whole tensor, its slices, other parts of it."""
        whole = Request(self.key, self.full.dtype, self.full.shape)
        parts = [self.part(spec) for spec in [*self.specs, *self.reads]]
        sliced = [(Request(self.key, self.full.dtype, p.data.shape, p.slice_spec), p.data) for p in parts]
        return [(whole, self.full), *sliced]

    def tensorflow_reads(self) -> list[tuple[Request, np.ndarray]]:
        """Those of the requests that TensorFlow can serve."""
        if tfckpt.dtype_number(self.full.dtype) in PARTIAL_DTYPES:
            return self.requests()
        exact = {"", *(self.part(spec).slice_spec for spec in self.specs)}
        return [
            (request, value)
            for request, value in self.requests()
            if request.slice_spec in exact and (request.slice_spec or not self.specs)
        ]


def grid(rng: random.Random, shape: tuple[int, ...]) -> list[str]:
    """Slices that together cover a tensor once, in any order."""
    cuts = [cut(rng, size) for size in shape]
    specs = [""]
    for extents in cuts:
        specs = [f"{spec}:{extent}" if spec else extent for spec in specs for extent in extents]
    rng.shuffle(specs)
    return specs


def cut(rng: random.Random, size: int) -> list[str]:
    """A dimension cut into up to three extents."""
    if size < 2 or rng.random() < 0.4:
        return ["-"] if size == 0 or rng.random() < 0.6 else [f"0,{size}"]
    points = sorted(rng.sample(range(1, size), rng.randint(1, min(2, size - 1))))
    return [f"{start},{end - start}" for start, end in zip([0, *points], [*points, size])]


def any_box(rng: random.Random, shape: tuple[int, ...]) -> str:
    """Any part of a tensor of at least one dimension."""
    extents = []
    for size in shape:
        start = rng.randrange(size) if size else 0
        length = rng.randint(1, size - start) if size else 0
        extents.append("-" if size == 0 or rng.random() < 0.3 else f"{start},{length}")
    return ":".join(extents)


def draw(rng: random.Random, key: bytes, number: int, shape: tuple[int, ...], partitioned: bool) -> Drawn:
    """Fills in values, slices and reads."""
    full = tensor(number, shape, rng.randrange(1 << 30))
    specs = grid(rng, shape) if shape and partitioned else []
    if len(specs) == 1 and full[box(specs[0], shape)].shape == shape:
        specs = specs if rng.random() < 0.5 else []
    reads = [any_box(rng, shape) for _ in range(2)] if shape else []
    return Drawn(key, full, specs, reads)


# ---- checking ----


@contextmanager
def folders() -> Iterator[tuple[str, str]]:
    """A prefix for each side, gone afterwards."""
    root = tempfile.mkdtemp()
    try:
        for side in ("ours", "theirs"):
            pathlib.Path(root, side).mkdir()
        yield f"{root}/ours/m", f"{root}/theirs/m"
    finally:
        shutil.rmtree(root)


def check(drawn: list[Drawn]) -> None:
    """Saves with both, compares the bytes, then restores each side's files with the other."""
    parts = [item for one in drawn for item in one.parts()]
    with folders() as (ours, theirs):
        tfckpt.save(ours, parts)
        tensorflow_side.save(theirs, parts)
        assert_same_files(ours, theirs)
        check_restored(tfckpt.restore, theirs, [pair for one in drawn for pair in one.requests()])
        check_restored(
            tensorflow_side.restore, ours, [pair for one in drawn for pair in one.tensorflow_reads()]
        )
        check_listing(theirs, drawn)


def check_restored(restore: Restore, prefix: str, wanted: list[tuple[Request, np.ndarray]]) -> None:
    """Restores all in one call and compares value by value."""
    if not wanted:
        return
    for (request, value), restored in zip(wanted, restore(prefix, [request for request, _ in wanted])):
        if not same_bits(restored, value):
            assert_same(restored, value, request)


def check_listing(prefix: str, drawn: list[Drawn]) -> None:
    """Compares the entries with what was drawn, and verifies."""
    with Reader(prefix) as reader:
        entries = list(reader.entries())
        assert reader.verify() == []
    listed = [(e.key, e.dtype, e.shape, e.code) for e in entries]
    wanted = sorted((d.key, tfckpt.dtype_number(d.full.dtype), d.full.shape, 0) for d in drawn)
    assert listed == wanted


# ---- small checkpoints, which Hypothesis shrinks ----

KEYS = st.one_of(
    st.text(min_size=1, max_size=12).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(min_size=1, max_size=12),
    st.from_regex(r"[a-c]{1,3}(/[a-c]{1,3}){0,3}", fullmatch=True).map(str.encode),
    st.sampled_from(
        [b"\x00", b"\xff", b"\xff\xff", b"\x00\x01", b" ", b"/", b"-", b":", b"..", b"a\x00", b"a"]
    ),
)
SHAPES = st.lists(st.sampled_from([0, 1, 1, 2, 2, 3, 4, 5]), max_size=8).filter(
    lambda dims: np.prod(dims, dtype=object) <= 3000
)


@st.composite
def checkpoints(draw_from: st.DrawFn) -> list[Drawn]:
    """A few tensors of different keys."""
    keys = draw_from(st.lists(KEYS, min_size=1, max_size=12, unique=True))
    rng = random.Random(draw_from(st.integers(0, 1 << 30)))
    return [
        draw(
            rng,
            key,
            draw_from(st.sampled_from(ALL_DTYPES)),
            tuple(draw_from(SHAPES)),
            draw_from(st.booleans()),
        )
        for key in keys
    ]


@hypothesis.seed(SEED)
@hypothesis.settings(
    max_examples=EXAMPLES,
    deadline=None,
    database=None,
    print_blob=True,
    suppress_health_check=list(hypothesis.HealthCheck),
)
@hypothesis.given(checkpoints())
def test_small_checkpoints_are_the_same_in_both_directions(drawn: list[Drawn]) -> None:
    hypothesis.note(f"TFCKPT_SEED={SEED}")
    check(drawn)


# ---- large ones, from a seed ----


def random_key(rng: random.Random) -> bytes:
    """A key like a real one, or of any bytes, or a very long one."""
    kind = rng.random()
    if kind < 0.6:
        words = ["model", f"layer_{rng.randrange(100)}", "kernel", "bias", "Adam", "ümlaut", "m"]
        return "/".join(rng.choices(words, k=rng.randint(1, 6))).encode() + b"_%d" % rng.randrange(10**6)
    if kind < 0.95:
        return rng.randbytes(rng.randint(1, 20))
    return rng.randbytes(rng.randint(1000, 5000))


def random_shape(rng: random.Random) -> tuple[int, ...]:
    """Ranks 0 to 8, few elements."""
    shape: list[int] = []
    for _ in range(rng.choice([0, 1, 1, 2, 2, 3, 4, 8])):
        shape.append(rng.choice([0, 1, 1, 2, 3]) if np.prod(shape, dtype=object) < 200 else 1)
    return tuple(shape)


@pytest.mark.parametrize("number", range(3))
def test_checkpoints_of_thousands_of_tensors_are_the_same_in_both_directions(number: int) -> None:
    rng = random.Random(f"{SEED}/{number}")
    keys = {random_key(rng) for _ in range(rng.randint(1500, 2500))}
    drawn = [
        draw(rng, key, rng.choice(ALL_DTYPES), random_shape(rng), rng.random() < 0.2)
        for key in sorted(keys, key=lambda _: rng.random())
    ]
    try:
        check(drawn)
    except Exception as error:
        error.add_note(f"TFCKPT_SEED={SEED}, checkpoint {number}")
        raise


@pytest.mark.parametrize("number", range(10))
def test_random_shards_by_device_are_the_same(number: int) -> None:
    rng = random.Random(f"{SEED}/devices/{number}")
    devices = [f"/device:CPU:{i}" for i in rng.sample(range(20), rng.randint(1, 8))] + [""]
    drawn = [
        draw(rng, b"%d" % i, rng.choice(ALL_DTYPES), random_shape(rng), rng.random() < 0.4)
        for i in range(rng.randint(1, 40))
    ]
    parts = [(key, Part(*as_part(value), rng.choice(devices))) for one in drawn for key, value in one.parts()]
    with folders() as (ours, theirs):
        tfckpt.save(ours, parts, shard_by_device=1)
        tensorflow_side.save_by_device(theirs, parts)
        assert_same_files(ours, theirs)
        check_restored(tfckpt.restore, theirs, [pair for one in drawn for pair in one.requests()])


def as_part(value: np.ndarray | Part) -> tuple[np.ndarray, str]:
    """The values and the slice spec."""
    return (value.data, value.slice_spec) if isinstance(value, Part) else (value, "")
