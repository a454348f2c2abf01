"""An entity of a lane: parts kept by name, facts and reports in, changes and reports out."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from models.counts import Counted
from models.facts import Fact
from models.reports import Changes, Message, Parts, Report, difference, tag_of, under


@dataclass(frozen=True)
class Conflict:
    """A fact that does not stand, since another with its id does."""

    topic: str
    id: str
    standing_at: int


class Outcome:
    """What one batch changed in one entity, and what it adds to the counts."""

    __slots__ = ("changes", "counts", "messages")

    def __init__(self, changes: Changes, messages: Sequence[Message] = (), counts: Counted = ()) -> None:
        self.changes = changes
        self.messages = messages
        self.counts = counts


class Entity(Protocol):
    """What a lane needs of its entities; all of it pure."""

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take one fact of this entity's own key."""

    def receive(self, message: Message) -> None:
        """Take one message of a child or peer."""

    def flush(self) -> Outcome:
        """What changed since the last flush, and what others must be told."""


Contents = dict[str, dict[str, bytes]]
"""Parent → the parts it should hold of this child."""


def reports(old: Contents, new: Contents, tag: str) -> list[Report]:
    """The reports that turn what parents hold of the child `tag` from old to new."""
    told: list[Report] = []
    for to in sorted({*old, *new}):
        changes = difference(old.get(to, {}), new.get(to, {}))
        if changes:
            told.append(Report(to, tag, changes))
    return told


def take(parts: Parts, report: Report) -> Changes:
    """Keep a report's parts under its child's tag; returns what really changed."""
    changed: Changes = {}
    for name, value in report.changes.items():
        mine = under(report.tag, name)
        if parts.get(mine) == value:
            continue
        changed[mine] = value
        put(parts, mine, value)
    return changed


def put(parts: Parts, name: str, value: bytes | None) -> None:
    """Keep a part as it is now; None: it is gone."""
    if value is None:
        parts.pop(name, None)
    else:
        parts[name] = value


def keep_smaller(parts: Parts, name: str, value: bytes, topic: str, fact_id: str, read: Any) -> Conflict | None:
    """Keep the smaller of two facts with one id (by time, then bytes); the other is reported."""
    known = parts.get(name)
    if known is None or known == value:
        parts[name] = value
        return None
    mine, theirs = read(value), read(known)
    if (theirs.at, theirs.raw) <= (mine.at, mine.raw):
        return Conflict(topic, fact_id, theirs.at)
    parts[name] = value
    return Conflict(topic, fact_id, mine.at)


class Reporter:
    """An entity of few parts: after each batch it says anew all it has to say, and reports what differs."""

    __slots__ = ("_dirty", "_told", "name", "parts", "tag")
    kind: ClassVar[str]

    def __init__(self, name: str, parts: Parts) -> None:
        self.name = name
        self.tag = tag_of(f"{self.kind}:{name}")
        self.parts = parts
        self._dirty: Changes = {}
        self._told = self._contents()

    def receive(self, message: Message) -> None:
        """Keep what a child reports."""
        if not isinstance(message, Report):
            raise TypeError(f"no message to a {self.kind}: {message!r}")
        self._dirty.update(take(self.parts, message))

    def flush(self) -> Outcome:
        """The entity as it now stands, told to its parents."""
        told = self._contents()
        messages = reports(self._told, told, self.tag)
        changes, self._dirty, self._told = self._dirty, {}, told
        return Outcome(changes, messages)

    def _contents(self) -> Contents:
        """What its parents should hold of it."""
        raise NotImplementedError
