"""What a visitor's sessions come to: the sources they took up, whose they are, and what is told of them."""

from collections.abc import Mapping

import msgspec

from models.channels import Origin
from models.hits import Hit


class Mark(msgspec.Struct, frozen=True, order=True, gc=False):
    """The visitor was identified as `person` at `at` by the message `id`."""

    at: int
    id: str
    person: str


class Opened(msgspec.Struct, frozen=True, gc=False):
    """A source that a session took up: its opening hit and what it came with."""

    hit: Hit
    origin: Origin


class Arrived(msgspec.Struct, frozen=True, order=True, gc=False):
    """A touch of a visitor whom nobody knows, as paths see it; sorts as touches do."""

    at: int
    id: str
    kind: str
    channel: str


class Told(msgspec.Struct, frozen=True, gc=False):
    """A session's touches, packed, by part name; whose it is, and when people became known in its visit."""

    owner: str | None
    known: tuple[int, ...]
    touches: Mapping[str, bytes]
