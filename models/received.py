"""What reports bring to an account, read: touches, people and deals as they were and are."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import msgspec

from models.deals import Deal
from models.leads import Lead
from models.reports import DEAL, KNOWN, TOUCH, USAGE, Parts
from models.touches import Touch

_touch = msgspec.msgpack.Decoder(Touch).decode
_deal = msgspec.msgpack.Decoder(Deal).decode
read_lead = msgspec.msgpack.Decoder(Lead).decode


class Received(NamedTuple):
    """Touches with their paths, as they were and are; people by path; deals by part name.

    None stands for what was not there before or is not any more.
    """

    touches: list[tuple[str, Touch | None, Touch | None]]
    leads: dict[str, Lead | None]
    deals: dict[str, Deal | None]


def received(changes: Mapping[str, bytes | None], held: Parts) -> Received:
    """What changes bring to who holds these parts."""
    brought = Received([], {}, {})
    for name, value in changes.items():
        if name[0] == TOUCH:
            old = held.get(name)
            was = None if old is None else _touch(old)
            brought.touches.append((path_in(name), was, None if value is None else _touch(value)))
        elif name[0] == KNOWN:
            brought.leads[path_in(name)] = None if value is None else read_lead(value)
        elif name[0] == DEAL:
            brought.deals[name] = None if value is None else _deal(value)
    return brought


def path_in(name: str) -> str:
    """The tags of all the children that a part came through, eight characters each."""
    return name[1 : name.index(":")]


def used_in(names: Iterable[str]) -> set[str]:
    """The parts of product usage among them."""
    return {name for name in names if name[0] == USAGE}
