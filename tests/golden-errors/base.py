"""What the cases have in common: the sound checkpoint that each of them damages.

It has two float tensors, `ok` (2 elements at offset 0) and `t` (4 elements at offset 8). Most cases
damage `t`, so that `ok` shows that the rest of the checkpoint can still be read.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from writers import Block, block, crc32c, entry, header, table

OK_DATA = struct.pack("<2f", 10.0, 20.0)
T_DATA = struct.pack("<4f", 1.0, 2.0, 3.0, 4.0)
DATA = OK_DATA + T_DATA
T_OFFSET = len(OK_DATA)
OK_ENTRY = entry(shape=(2,), size=len(OK_DATA), crc=crc32c(OK_DATA))

Row = tuple[bytes, bytes]
HEADER: Row = (b"", header())
OK: Row = (b"ok", OK_ENTRY)

# Where a case must fail.
OPEN = "open"  # opening the checkpoint
LIST = "list"  # listing ends in the error; so does restoring `key`, which is in the damaged range
RESTORE = "restore:"  # + key: opening succeeds, restoring this key fails
ANY = "any"  # at opening, or listing, or at the latest restoring `key`
ACCEPTED = "accepted"  # not at all; `key` has the value `hex` or `strings_hex`

# What listing does in a RESTORE case.
MARKED = "marked"  # lists the entry with an error
SOUND = "ok"  # lists the entry as sound, since only its data are bad

DATA_LOSS = "DATA_LOSS"


@dataclass
class Case:
    """One malformed (or oddly formed) checkpoint and what libtfckpt must make of it."""

    case: str
    description: str
    where: str
    code: str | None
    index: bytes | None
    data: bytes | None = DATA
    key: str = "t"
    dtype: int = 1  # what TensorFlow is asked to restore `key` as
    listing: str | None = None
    value: bytes | None = None
    strings: list[bytes] | None = None
    # Accepting the file is as good: it breaks a rule that no reader has to check.
    or_accepted: bool = False
    # Whether `ok` can be restored all the same.
    ok_survives: bool = True
    # Further files; a name that ends in "/" is a folder (kept by a file of one line).
    files: dict[str, bytes] = field(default_factory=dict)

    def manifest(self) -> dict[str, object]:
        out: dict[str, object] = {"case": self.case, "description": self.description, "where": self.where}
        if self.code:
            out["code"] = self.code
        if self.or_accepted:
            out["or_accepted"] = True
        if self.where != OPEN:
            out["key"] = self.key
            out["dtype"] = self.dtype
        if self.listing:
            out["listing"] = self.listing
        if self.value is not None:
            out["hex"] = self.value.hex()
        if self.strings is not None:
            out["strings_hex"] = [value.hex() for value in self.strings]
        if self.ok_survives and self.where not in (OPEN, ANY) and self.key != "ok":
            out["sound"] = {"key": "ok", "dtype": 1, "hex": OK_DATA.hex()}
        return out


def one_block(rows: list[Row]) -> Block:
    """All rows in one data block, with a last key in the index that is surely large enough."""
    return Block(block(rows), index_key=(rows[-1][0] if rows else b"") + b"~")


def bundle(*rows: Row, head: bytes = HEADER[1]) -> bytes:
    """An index of one data block: header, then `rows` as they are."""
    return table([one_block([(b"", head), *rows])])


def t_entry(**changes: object) -> bytes:
    """The sound entry of `t`, with changes."""
    return entry(**{"offset": T_OFFSET, "size": len(T_DATA), "crc": crc32c(T_DATA), **changes})


def with_t(value: bytes, head: bytes = HEADER[1]) -> bytes:
    """The sound index with this entry for `t`."""
    return bundle(OK, (b"t", value), head=head)


SOUND_INDEX = with_t(t_entry())
