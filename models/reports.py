"""What a child tells its parent: state by name, never deltas.

Everything a lane keeps is an entity with parts: name → value. A part's name is one
letter for its kind, the tags of the children it came through, a colon and an id. A
report says which parts of a child are now what, and which are gone; the parent keeps
them under the child's tag, so that two children never write the same part. Every message
carries `recorded_at`, the Kafka record time of the latest fact behind it.
"""

from base64 import urlsafe_b64encode
from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

Parts = dict[str, bytes]
Changes = dict[str, bytes | None]

KNOWN, LINK, GROUP, TOUCH, DEAL, CONTACT, MERGED, MARK, FORM, SAME_AS, WATCH, ROOT, CLAIM = "klgtdceMfswrC"
ABOUT, CUSTOMER, CHILD, USAGE, MILESTONE, VERDICT, OWNED = "auhpnvo"
"""Kinds of reported parts: the first letter of their names."""


class Report(msgspec.Struct, frozen=True, array_like=True, tag="report"):
    """Parts of the child `tag` as the entity `to` shall keep them; None: gone."""

    to: str
    tag: str
    changes: Changes
    recorded_at: int = 0


class Forward(msgspec.Struct, frozen=True, array_like=True, tag="forward"):
    """A fact that reached the partition of another key than its own, and where it lies."""

    to: str
    topic: str
    value: bytes
    recorded_at: int
    partition: int
    offset: int


class Invite(msgspec.Struct, frozen=True, array_like=True, tag="invite"):
    """`chief` asks the chief of `to` to join groups, for a link between them."""

    to: str
    chief: str
    recorded_at: int = 0


class Join(msgspec.Struct, frozen=True, array_like=True, tag="join"):
    """The links (packed) of each member of the group `child`, and the roots they were told."""

    to: str
    child: str
    links: dict[str, bytes]
    told: dict[str, bytes]
    recorded_at: int = 0


class Rooted(msgspec.Struct, frozen=True, array_like=True, tag="rooted"):
    """The roots (packed) of members, on their way down to each."""

    to: str
    roots: dict[str, bytes]
    recorded_at: int = 0


class Wake(msgspec.Struct, frozen=True, array_like=True, tag="wake"):
    """It is `at` o'clock: look whether anything has happened by itself. The lane says so to its own accounts."""

    to: str
    at: int


Message = Report | Forward | Invite | Join | Rooted | Wake
pack: Callable[[Any], bytes] = msgspec.msgpack.Encoder().encode
_messages = msgspec.msgpack.Decoder(list[Message])


def unpack_messages(value: bytes) -> list[Message]:
    """The messages of one envelope, in the order they were sent."""
    return _messages.decode(value)


def stamped(message: Message, recorded_at: int) -> Message:
    """The message as of the facts recorded up to then."""
    if isinstance(message, Report):
        return Report(message.to, message.tag, message.changes, recorded_at)
    return message if isinstance(message, Forward | Wake) else msgspec.structs.replace(message, recorded_at=recorded_at)


@lru_cache(maxsize=200_000)
def tag_of(child: str) -> str:
    """Eight characters (48 bits) that stand for a child's name within part names."""
    return urlsafe_b64encode(blake2b(child.encode(), digest_size=6).digest()).decode()


def under(tag: str, name: str) -> str:
    """The name a child's part has at its parent."""
    return f"{name[0]}{tag}{name[1:]}"


def id_in(name: str) -> str:
    """The id at the end of a part's name."""
    return name.partition(":")[2]


def tag_in(name: str) -> str:
    """The tag of the child a part came from; empty for an entity's own."""
    return name[1:9] if name[1] != ":" else ""


def difference(old: Mapping[str, bytes], new: Mapping[str, bytes]) -> Changes:
    """The changes that turn one content into the other."""
    changes: Changes = {name: value for name, value in new.items() if old.get(name) != value}
    changes.update({name: None for name in old if name not in new})
    return changes
