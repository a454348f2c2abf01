"""Product usage: who used what on which day, and the firsts that are touches.

A person id's usage is an entity of its own, so that it costs a person without touches
nothing. Its facts are kept, by a digest of their id, to know a copy when it comes; what is
passed on are sums by month and the first use of each event.
"""

from collections.abc import Iterable, Iterator
from zlib import crc32

import msgspec

from models.channels import Origin
from models.counts import Count, Numbers
from models.entity import Conflict, Outcome, put
from models.facts import PRODUCT_USAGE, Fact, ProductUsage
from models.identity import account_id
from models.reports import KNOWN, MILESTONE, USAGE, Changes, Message, Parts, Report, id_in, pack, tag_of
from models.rules import Rules
from models.settings import Settings
from models.times import day_of
from models.touches import Touch, team_of

USES = "uses"
"""Table of counts: day NUL event → how often the product was used."""
_FACTS = "U"
_SHARES = 64
"""So many parts hold a person's facts: a new one costs the reading of one of them."""
_facts = msgspec.msgpack.Decoder(list[ProductUsage]).decode
_sums = msgspec.msgpack.Decoder(dict[str, dict[int, int]]).decode
_first = msgspec.msgpack.Decoder(tuple[int, str]).decode


def milestone_kind(event: str, settings: Settings) -> str | None:
    """The kind of touch that a person's first use of the event is; None: it is none."""
    if event in settings.trial_events:
        return "trial_started"
    return "product_milestone" if event in settings.milestones else None


def milestone_touch(event: str, at: int, use: str, rules: Rules) -> Touch:
    """The first use of a listed event as a touch."""
    kind = milestone_kind(event, rules.settings) or ""
    return Touch(at, use, kind, team_of(kind), rules.classify(Origin(), kind))


def account_named(name: str) -> str:
    """The account that a part of sums is for, where the person has none; empty: the person's own."""
    return id_in(name).partition("/")[2]


def use_counts(name: str, value: bytes) -> Iterator[tuple[Count, Numbers]]:
    """What a part of sums adds to the counts."""
    for event, day, count in uses_in(name, value):
        yield Count(USES, f"{day}\0{event}"), (count,)


def uses_in(name: str, value: bytes) -> Iterator[tuple[str, str, int]]:
    """(event, day, count) of a part of sums."""
    month = id_in(name).partition("/")[0]
    for event, days in _sums(value).items():
        yield from ((event, f"{month}-{day:02}", count) for day, count in days.items())


def _says_the_same(one: ProductUsage, other: ProductUsage) -> bool:
    """Are they the same use, however it is written?"""
    return one == msgspec.structs.replace(other, raw=one.raw)


class Usage:
    """All product usage of one person id; see `Entity` for what a lane does with it."""

    __slots__ = ("_dirty", "_facts", "_known", "_rules", "name", "parts", "tag")

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self.name = name
        self.tag = tag_of(f"usage:{name}")
        self.parts = parts
        self._rules = rules
        self._facts: dict[str, dict[str, ProductUsage]] = {}
        self._dirty: Changes = {}
        self._known = self._known_since()

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take one use; of two with one id the smaller stands."""
        if not isinstance(fact, ProductUsage):
            raise TypeError(f"no product usage: {fact!r}")
        share = f"{_FACTS}:{crc32(fact.id.encode()) % _SHARES}"
        facts = self._share(share)
        known = facts.get(fact.id)
        is_copy = known is not None and _says_the_same(known, fact)
        if known is not None and (known.at, known.raw) <= (fact.at, fact.raw):
            return None if is_copy else Conflict(PRODUCT_USAGE, fact.id, known.at)
        facts[fact.id] = fact
        self._put(share, pack(list(facts.values())))
        if is_copy:
            return None
        self._add(fact, 1)
        if known is None:
            self._note_first(fact)
            return None
        self._add(known, -1)
        self._find_firsts({known.event, fact.event})
        return Conflict(PRODUCT_USAGE, fact.id, fact.at)

    def receive(self, message: Message) -> None:
        """Nobody reports to a person's usage."""
        raise TypeError(f"no message to a person's usage: {message!r}")

    def flush(self) -> Outcome:
        """What changed in storage, and what the person must be told."""
        changes, self._dirty = self._dirty, {}
        told: Changes = {name: value for name, value in changes.items() if self._is_told(name)}
        since = self._known_since()
        if since != self._known:
            told[f"{KNOWN}:"] = None if since is None else pack(since)
            self._known = since
        return Outcome(changes, [Report(f"person:{self.name}", self.tag, told)] if told else [])

    def _is_told(self, name: str) -> bool:
        if name[0] == MILESTONE:
            return milestone_kind(id_in(name), self._rules.settings) is not None
        return name[0] == USAGE

    def _known_since(self) -> int | None:
        """The first touch makes the person known, as any touch does."""
        firsts = (_first(value) for name, value in self.parts.items() if name[0] == MILESTONE and self._is_told(name))
        return min((at for at, _ in firsts), default=None)

    def _put(self, name: str, value: bytes | None) -> None:
        put(self.parts, name, value)
        self._dirty[name] = value

    def _share(self, name: str) -> dict[str, ProductUsage]:
        """The facts of one part, by id."""
        if name not in self._facts:
            value = self.parts.get(name)
            self._facts[name] = {fact.id: fact for fact in _facts(value)} if value else {}
        return self._facts[name]

    def _add(self, fact: ProductUsage, sign: int) -> None:
        """Add a use to the sums of its month, or take it back."""
        day = day_of(fact.at, self._rules.settings.time_zone)
        account = "" if fact.account is None else account_id(fact.account, self._rules.registrable)
        name = f"{USAGE}:{day[:7]}/{account}"
        sums = _sums(self.parts[name]) if name in self.parts else {}
        days = sums.setdefault(fact.event, {})
        days[int(day[8:])] = days.get(int(day[8:]), 0) + sign * fact.count
        left = {event: counts for event, each in sums.items() if (counts := {d: n for d, n in each.items() if n})}
        self._put(name, pack(left) if left else None)

    def _note_first(self, fact: ProductUsage) -> None:
        name = f"{MILESTONE}:{fact.event}"
        first = self.parts.get(name)
        if first is None or (fact.at, fact.id) < _first(first):
            self._put(name, pack((fact.at, fact.id)))

    def _find_firsts(self, events: Iterable[str]) -> None:
        """Look for the first of each event among all facts: one of them gave way to another."""
        shares = [name for name in self.parts if name[0] == _FACTS]
        facts = [fact for name in shares for fact in self._share(name).values()]
        for event in events:
            first = min(((fact.at, fact.id) for fact in facts if fact.event == event), default=None)
            self._put(f"{MILESTONE}:{event}", None if first is None else pack(first))
