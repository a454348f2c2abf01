"""Verdicts on messages whose visitor nobody named.

Where such messages lie nobody knows, so each partition of visitors keeps the same roll of
these verdicts, and who there sent what they speak of: it looks once through the visitors it
has, and then at each message that comes. The roll tells those visitors.
"""

from collections.abc import Iterator
from functools import lru_cache

import msgspec

from models.entity import Conflict, Contents, Outcome, reports
from models.facts import IDENTITIES, Fact, Verdict
from models.partitions import partition_of
from models.reports import VERDICT, Changes, Message, Parts, id_in, pack, tag_of

_HOLDER = "h"
_verdict = msgspec.msgpack.Decoder(Verdict).decode
_holder = msgspec.msgpack.Decoder(tuple[str, str]).decode


@lru_cache(maxsize=10_000)
def roll_of(partition: int, partitions: int) -> str:
    """The name of a partition's roll: the first number that falls there."""
    number = 0
    while partition_of(str(number), partitions) != partition:
        number += 1
    return f"roll:{number}"


class Roll:
    """One partition's roll; see `Entity` for what a lane does with it."""

    __slots__ = ("_dirty", "_told", "_verdicts", "name", "parts", "sought", "tag")

    def __init__(self, name: str, parts: Parts) -> None:
        self.name = name
        self.tag = tag_of(f"roll:{name}")
        self.parts = parts
        self._dirty: Changes = {}
        self._verdicts: dict[str, Verdict] = {}
        for part, value in parts.items():
            if part[0] == VERDICT:
                self._verdicts[id_in(part)] = _verdict(value)
        self._told = self._contents()
        self.sought = {message for verdict in self._verdicts.values() for message in verdict.message_ids}

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take one verdict; of two with one id the smaller stands."""
        if not isinstance(fact, Verdict):
            raise TypeError(f"no verdict: {fact!r}")
        known = self._verdicts.get(fact.id)
        if known == fact:
            return None
        if known is not None and (known.at, pack(known)) < (fact.at, pack(fact)):
            return Conflict(IDENTITIES, fact.id, known.at)
        self._verdicts[fact.id] = fact
        self._put(f"{VERDICT}:{fact.id}", pack(fact))
        self.sought.update(fact.message_ids)
        return None if known is None else Conflict(IDENTITIES, fact.id, fact.at)

    def hold(self, message: str, visitor: str) -> None:
        """Note that the visitor sent a message that a verdict speaks of."""
        name = f"{_HOLDER}{tag_of(visitor)}:{message}"
        if name not in self.parts:
            self._put(name, pack((message, visitor)))

    def receive(self, message: Message) -> None:
        """Nobody reports to a roll."""
        raise TypeError(f"no message to a roll: {message!r}")

    def flush(self) -> Outcome:
        """What changed in storage, and what visitors must be told."""
        if not self._dirty:
            return Outcome({})
        told = self._contents()
        messages = reports(self._told, told, self.tag)
        changes, self._dirty, self._told = self._dirty, {}, told
        return Outcome(changes, messages)

    def _put(self, name: str, value: bytes) -> None:
        self.parts[name] = self._dirty[name] = value

    def _contents(self) -> Contents:
        contents: Contents = {}
        for message, visitor in self._holders():
            for verdict in self._verdicts.values():
                if message in verdict.message_ids:
                    contents.setdefault(f"visitor:{visitor}", {})[f"{VERDICT}:{verdict.id}"] = pack(verdict)
        return contents

    def _holders(self) -> Iterator[tuple[str, str]]:
        return (_holder(value) for name, value in self.parts.items() if name[0] == _HOLDER)
