"""The structures of `tfckpt_abi.py` are the header's."""

from __future__ import annotations

import ctypes
import inspect
import pathlib

import tfckpt_abi

LAYOUT = pathlib.Path(__file__).parents[1] / "abi" / "layout.txt"


def test_the_layout_of_every_structure() -> None:
    layout = {name: numbers for name, *numbers in (line.split() for line in LAYOUT.read_text().splitlines())}
    structures = [
        structure
        for _, structure in inspect.getmembers(tfckpt_abi, inspect.isclass)
        if issubclass(structure, ctypes.Structure) and structure is not ctypes.Structure
    ]
    assert len(structures) > 10
    ours = {}
    for structure in structures:
        name = (structure.__doc__ or "").strip()
        ours[name] = [str(ctypes.sizeof(structure))]
        for field, _ in structure._fields_:
            place = getattr(structure, field)
            ours[f"{name}.{field}"] = [str(place.offset), str(place.size)]
    of_ours = {name: numbers for name, numbers in layout.items() if name.partition(".")[0] in ours}
    assert ours == of_ours
