"""Makes a sequence that fails short, and prints it."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator

from saver_model import Options, Reload, Restart, Save, Sequence, Variable


def shrink(sequence: Sequence, fails: Callable[[Sequence], bool], seconds: float = 60) -> Sequence:
    """The shortest and simplest sequence found that still fails."""
    end = time.monotonic() + seconds
    improved = True
    while improved:
        improved = False
        for candidate in _candidates(sequence):
            if time.monotonic() > end:
                return sequence
            if fails(candidate):
                sequence, improved = candidate, True
                break
    return sequence


def repro(sequence: Sequence) -> str:
    """Python that makes the sequence: defaults left out, a step per line."""
    lines = "".join(f"        {_short(step)},\n" for step in sequence.steps)
    return (
        "Sequence(\n"
        f"    variables=({', '.join(map(_short, sequence.variables))},),\n"
        f"    options={_short(sequence.options)},\n"
        f"    steps=(\n{lines}    ),\n"
        f"    folders={sequence.folders!r},\n"
        f"    use_resource={sequence.use_resource!r},\n"
        ")"
    )


def _short(value: object) -> str:
    """The `repr` of a dataclass, without the fields that have their default."""
    if not dataclasses.is_dataclass(value):
        return repr(value)
    fields = [
        f"{field.name}={_short(getattr(value, field.name))}"
        for field in dataclasses.fields(value)
        if getattr(value, field.name) != field.default
    ]
    return f"{type(value).__name__}({', '.join(fields)})"


def _candidates(sequence: Sequence) -> Iterator[Sequence]:
    """Simpler sequences, those that leave out most first."""
    steps = sequence.steps
    size = len(steps)
    while size:
        for start in range(0, len(steps) - size + 1, size):
            yield dataclasses.replace(sequence, steps=steps[:start] + steps[start + size :])
        size //= 2
    used = {key for options in _all_options(sequence) for key in options.keys or ()}
    for i, variable in enumerate(sequence.variables):
        if len(sequence.variables) > 1 and variable.key not in used:
            yield dataclasses.replace(sequence, variables=sequence.variables[:i] + sequence.variables[i + 1 :])
    for i, variable in enumerate(sequence.variables):
        for simple in _simpler(variable, ("shape", "parts", "devices", "dtype")):
            variables = sequence.variables[:i] + (simple,) + sequence.variables[i + 1 :]
            yield dataclasses.replace(sequence, variables=variables)
        if variable.parts:
            plain = Variable(variable.key, variable.dtype)
            yield dataclasses.replace(
                sequence, variables=sequence.variables[:i] + (plain,) + sequence.variables[i + 1 :]
            )
    for options in _simpler(sequence.options):
        yield dataclasses.replace(sequence, options=options)
    if not sequence.use_resource:
        yield dataclasses.replace(sequence, use_resource=True)
    if sequence.folders:
        yield dataclasses.replace(sequence, folders=())
    for i, step in enumerate(steps):
        for simple in _simpler_step(step):
            yield dataclasses.replace(sequence, steps=steps[:i] + (simple,) + steps[i + 1 :])


def _all_options(sequence: Sequence) -> list[Options]:
    return [sequence.options, *[step.options for step in sequence.steps if isinstance(step, Restart)]]


def _simpler(value: object, names: tuple[str, ...] | None = None) -> Iterator:
    """The dataclass with one field set to its default."""
    for field in dataclasses.fields(value):
        if field.default is dataclasses.MISSING or (names and field.name not in names):
            continue
        if getattr(value, field.name) != field.default:
            # A partitioned variable has a shape of its own.
            if isinstance(value, Variable) and value.parts and field.name in ("shape", "parts"):
                continue
            yield dataclasses.replace(value, **{field.name: field.default})


def _simpler_step(step: object) -> Iterator:
    if isinstance(step, Restart):
        for options in _simpler(step.options):
            yield Restart(options)
    elif isinstance(step, Reload):
        yield from _simpler(step)
    elif isinstance(step, Save):
        yield from _simpler(step)
        if step.path != "m":
            yield dataclasses.replace(step, path="m")
    elif hasattr(step, "paths") and not hasattr(step, "times") and len(step.paths) > 1:
        for i in range(len(step.paths)):
            yield dataclasses.replace(step, paths=step.paths[:i] + step.paths[i + 1 :])
