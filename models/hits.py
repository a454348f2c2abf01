"""Hits, and how they are at rest: the columns of a session, each as small as it can cheaply be made.

The visitors lane packs a session again with every batch that adds to it, so that packing
costs it more than anything else it does: a column is written by one call of msgpack's or
Python's own C code, and nothing is looked up. Tables of what recurs were a third smaller
for sessions of a hundred hits, no smaller for the usual five, and took three times as long.
"""

from collections.abc import Sequence
from itertools import accumulate, repeat
from operator import sub

import msgspec
from msgspec.structs import astuple

from models.channels import Origin
from models.reports import pack

_UUID, _HEX = b"\0", b"\1"
"""How ids were written that are kept as their 16 bytes: as canonical UUIDs, or without dashes."""


class Hit(msgspec.Struct, frozen=True, array_like=True, order=True, gc=False):
    """A page view as its visitor keeps it; sorts in order of time.

    `origin` is None for a direct hit; `person` the user id it carried; `is_listed` says that
    its user agent was a known bot's.
    """

    at: int
    id: str
    origin: Origin | None
    path: str
    person: str | None
    is_listed: bool = False

    @property
    def order(self) -> tuple[int, str]:
        """Sorts hits of a visitor among other facts, oldest first."""
        return self.at, self.id


class _Packed(msgspec.Struct, array_like=True):
    """The columns of hits, oldest first; empty where a column holds nothing but None or False."""

    first_at: int
    gaps: list[int]
    ids: bytes | list[str]
    paths: list[str]
    origins: list[Origin | None] = []
    persons: list[str | None] = []
    is_listed: list[bool] = []


_unpack = msgspec.msgpack.Decoder(_Packed).decode


def pack_hits(hits: Sequence[Hit]) -> bytes:
    """Hits, oldest first, as bytes."""
    at, ids, origins, paths, persons, is_listed = zip(*map(astuple, hits), strict=True)
    columns = [at[0], list(map(sub, at[1:], at)), _pack_ids(ids), paths, origins if any(origins) else ()]
    has_persons, has_listed = any(persons), any(is_listed)
    if has_persons or has_listed:
        columns += [persons if has_persons else (), is_listed if has_listed else ()]
    return pack(columns)


def unpack_hits(value: bytes) -> list[Hit]:
    """The hits that were packed, oldest first."""
    kept = _unpack(value)
    at = accumulate((kept.first_at, *kept.gaps))
    persons, is_listed = kept.persons or repeat(None), kept.is_listed or repeat(False)
    return list(map(Hit, at, _unpack_ids(kept.ids), kept.origins or repeat(None), kept.paths, persons, is_listed))


def _pack_ids(ids: Sequence[str]) -> bytes | Sequence[str]:
    """UUIDs, with dashes or without, as their 16 bytes; any other ids as they are."""
    lines = "\n".join(ids)
    has_dashes = len(lines) == len(ids) * 37 - 1
    if not (_are_dashed(lines, len(ids)) if has_dashes else len(lines) == len(ids) * 33 - 1):
        return ids
    digits = lines.replace("-", "") if has_dashes else lines
    try:
        raw = bytes.fromhex(digits)
    except ValueError:
        return ids
    is_canonical = raw.hex("\n", -16) == digits
    return (_UUID if has_dashes else _HEX) + raw if is_canonical else ids


def _are_dashed(lines: str, count: int) -> bool:
    """Do so many lines, of 36 characters each, have dashes where UUIDs have them?"""
    dashes = "-" * count
    return lines[8::37] == dashes == lines[13::37] and lines[18::37] == dashes == lines[23::37]


def _unpack_ids(ids: bytes | list[str]) -> list[str]:
    if isinstance(ids, list):
        return ids
    whole = ids[1:].hex("\n", -16).split("\n")
    if ids[:1] == _HEX:
        return whole
    return [f"{each[:8]}-{each[8:12]}-{each[12:16]}-{each[16:20]}-{each[20:]}" for each in whole]


def traces_of(message_id: str) -> tuple[bytes, ...]:
    """What the state at rest of a visitor has in it who sent the message: one of these."""
    packed = _pack_ids([message_id])
    return (message_id.encode(), *([packed[1:]] if isinstance(packed, bytes) else []))
