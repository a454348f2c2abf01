"""How hits are at rest: the columns of a session, each as small as it can cheaply be made.

The visitors lane packs a session again with every batch that adds to it, so that packing
costs it more than nearly anything else it does: one loop over the hits, then a column is
written by one call of msgpack's or Python's own C code, and nothing is looked up. Tables of
what recurs were a third smaller for sessions of a hundred hits, no smaller for the usual
five, and took three times as long.
"""

from binascii import unhexlify
from collections.abc import Sequence
from itertools import accumulate, repeat
from typing import Any

import msgspec

from models.channels import Origin
from models.hits import Columns, Hit
from models.reports import pack

_UUID, _HEX = b"\0", b"\1"
"""How ids were written that are kept as their 16 bytes: as canonical UUIDs, or without dashes."""
_LINE_OF_UUID, _LINE_OF_HEX = b"00000000-0000-0000-0000-000000000000\n", b"0" * 32 + b"\n"
"""Such ids, one a line, all of whose digits are 0."""
_AS_ZEROS = bytes.maketrans(b"123456789abcdef", b"0" * 15)
_unpack = msgspec.msgpack.Decoder(Columns).decode


def pack_hits(hits: Sequence[Hit]) -> bytes:
    """Hits, oldest first, as bytes."""
    gaps: list[int] = []
    ids: list[str] = []
    paths: list[str] = []
    origins: list[Origin | None] = []
    has_origins = has_persons = has_listed = False
    before = hits[0].at
    for hit in hits:
        at, origin = hit.at, hit.origin
        gaps.append(at - before)
        before = at
        ids.append(hit.id)
        paths.append(hit.path)
        origins.append(origin)
        has_origins = has_origins or origin is not None
        has_persons = has_persons or hit.person is not None
        has_listed = has_listed or hit.is_listed
    columns: list[Any] = [hits[0].at, gaps[1:], _pack_ids(ids), paths, origins if has_origins else ()]
    if has_persons or has_listed:
        columns.append([hit.person for hit in hits] if has_persons else ())
        columns.append([hit.is_listed for hit in hits] if has_listed else ())
    return pack(columns)


def unpack_hits(value: bytes) -> list[Hit]:
    """The hits that were packed, oldest first."""
    kept = _unpack(value)
    at = accumulate((kept.first_at, *kept.gaps))
    persons, is_listed = kept.persons or repeat(None), kept.is_listed or repeat(False)
    return list(map(Hit, at, _unpack_ids(kept.ids), kept.origins or repeat(None), kept.paths, persons, is_listed))


def _pack_ids(ids: list[str]) -> bytes | list[str]:
    """UUIDs, with dashes or without, as their 16 bytes; any other ids as they are."""
    lines = ("\n".join(ids) + "\n").encode()
    shape = lines.translate(_AS_ZEROS)
    if shape == _LINE_OF_UUID * len(ids):
        return _UUID + unhexlify(lines.translate(None, b"-\n"))
    if shape == _LINE_OF_HEX * len(ids):
        return _HEX + unhexlify(lines.translate(None, b"\n"))
    return ids


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
