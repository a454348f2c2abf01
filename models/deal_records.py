"""Deals as they are told: a deal's facts, which report to its account or first contact. A step of the members lane."""

from functools import partial
from typing import cast

from models.deals import Deal, deal_parent, first_contacts, fold
from models.decoding import decode
from models.entity import Conflict, Contents, Reporter, keep_smaller
from models.facts import (
    BILLING,
    DEAL_CHANGES,
    DealChange,
    Fact,
    Refund,
)
from models.reports import (
    DEAL,
    KNOWN,
    Message,
    Parts,
    pack,
)
from models.rules import Rules
from models.times import END_OF_TIME

_CHANGE, _REFUND = "DB"
_TOPIC_OF_KIND = {_CHANGE: DEAL_CHANGES, _REFUND: BILLING}


class DealRecord(Reporter):
    """One deal: its facts as they came, so that any rule can read them again."""

    __slots__ = ("_facts", "_rules")
    kind = "deal"

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self._rules = rules
        self._facts = {part: self._read(_TOPIC_OF_KIND[part[0]], raw) for part, raw in parts.items()}
        super().__init__(name, parts)

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take a deal change or a refund."""
        if not isinstance(fact, (DealChange, Refund)):
            raise TypeError(f"no fact of a deal: {fact!r}")
        part = f"{_CHANGE if isinstance(fact, DealChange) else _REFUND}:{fact.id}"
        conflict = keep_smaller(self.parts, part, fact.raw, topic, fact.id, partial(self._read, topic))
        standing = self._dirty[part] = self.parts[part]
        if standing == fact.raw:
            self._facts[part] = fact
        return conflict

    def receive(self, message: Message) -> None:
        """Nobody reports to a deal."""
        raise TypeError(f"no message to a deal: {message!r}")

    def _read(self, topic: str, raw: bytes) -> DealChange | Refund:
        return cast(DealChange | Refund, decode(topic, raw, END_OF_TIME, self._rules.settings))

    def _changes(self) -> list[DealChange]:
        return [fact for fact in self._facts.values() if isinstance(fact, DealChange)]

    @property
    def deal(self) -> Deal:
        """The deal as all its facts say together."""
        refunds = [fact for fact in self._facts.values() if isinstance(fact, Refund)]
        return fold(self.name, self._changes(), refunds, self._rules.settings.currency)

    @property
    def parent(self) -> str:
        """The account or person that it reports to."""
        return self._parent_of(self.deal)

    def _parent_of(self, deal: Deal) -> str:
        return deal_parent(deal.account, deal.contacts, deal.id, self._rules)

    def _contents(self) -> Contents:
        if not self.parts:
            return {}
        deal = self.deal
        contents: Contents = {self._parent_of(deal): {f"{DEAL}:{self.name}": pack(deal)}}
        for person, at in first_contacts(self._changes()).items():
            contents.setdefault(f"person:{person}", {})[f"{KNOWN}:"] = pack(at)
        return contents
