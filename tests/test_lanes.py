"""The incremental path as pure code: lanes in one process against the batch recomputation.

Messages are handed over in order, a few at a time, between facts or after them; entities
are now and then built anew from what is kept of them. Crashes, copies and rebalances are
the simulation's.
"""

import os
import random
from collections.abc import Iterable
from typing import NamedTuple

import pytest

from models.accounts import Account
from models.counts import add_counts
from models.journeys import Journey
from models.lanes import AnyEntity, Item, builder, lane_of, opened, read, sought_in, step
from models.people import Person
from models.profiles import NOBODY, Profile
from models.recompute import recompute
from models.reports import Message, Parts, pack
from models.rules import Rules
from models.totals import Totals
from models.touches import Touch
from models.visitors import Visitor
from tests.test_recompute import call, deal, fact, hit, identify, refund
from tests.worlds import VARIANTS, RawFact, rules, world

WORLDS = int(os.environ.get("TOUCHLINE_WORLDS", "400"))
MOST_MESSAGES = 100_000


class Polled(NamedTuple):
    """A record as Kafka's client hands it over; `timestamp` in milliseconds."""

    offset: int
    timestamp: int
    value: bytes


class Lanes:
    """All entities of all lanes, what is kept of each, and messages on their way."""

    def __init__(self, law: Rules, rng: random.Random) -> None:
        self.rules, self.rng, self.build = law, rng, builder(law)
        self.parts: dict[str, Parts] = {}
        self.entities: dict[str, AnyEntity] = {}
        self.messages: list[Message] = []
        self.totals = Totals()

    def take(self, facts: list[RawFact]) -> None:
        """Take all facts and messages, a few of these or those at a time."""
        records = [(topic, Polled(number, at // 1000, value)) for number, (topic, value, at) in enumerate(facts)]
        taken = 0
        while records or self.messages:
            if records and (not self.messages or self.rng.random() < 0.5):
                self.read(_first(records, self.rng.choice((1, 1, 2, 6))))
            else:
                some = _first(self.messages, self.rng.randint(1, 12))
                taken += len(some)
                assert taken < MOST_MESSAGES, "the lanes never come to rest"
                self.step([opened(message, self.rules) for message in some])

    def read(self, records: list[tuple[str, Polled]]) -> None:
        """A batch of facts, each topic's together."""
        by_topic: dict[str, list[Polled]] = {}
        for topic, record in records:
            by_topic.setdefault(topic, []).append(record)
        self.step(item for topic, polled in by_topic.items() for item in read(topic, 0, polled, self.rules)[0])

    def step(self, items: Iterable[Item]) -> None:
        """One batch a lane."""
        by_lane: dict[str, list[Item]] = {}
        for item in items:
            by_lane.setdefault(lane_of(item.entity), []).append(item)
        for mine in by_lane.values():
            names = {item.entity for item in mine} | {name for name in self.parts if name.startswith("roll:")}
            if sought_in(mine):
                names |= {name for name in self.parts if name.startswith("visitor:")}
            batch = step(mine, {name: self.load(name) for name in names}, self.rules.settings.partitions)
            for entity, changes in batch.changes.items():
                kept = {**self.parts.get(entity, {}), **changes}
                self.parts[entity] = {name: value for name, value in kept.items() if value is not None}
            self.totals.add(batch.totals)
            self.messages.extend(batch.messages)

    def load(self, entity: str) -> AnyEntity:
        """The entity in memory, or built anew."""
        if entity not in self.entities or self.rng.random() < 0.3:
            self.entities[entity] = self.build(entity, dict(self.parts.get(entity, {})))
        return self.entities[entity]

    def totals_at_rest(self) -> Totals:
        """What all accounts and visitors come to when each is built anew."""
        totals = Totals()
        for name, parts in self.parts.items():
            entity = self.build(name, dict(parts))
            if isinstance(entity, Account) and not entity.parent:
                totals.add(entity.totals())
            elif isinstance(entity, Visitor | Person):
                add_counts(totals.counts, entity.counts())
        return totals.without_zeros()

    def companies(self) -> dict[str, tuple[Profile, tuple[str, ...]]]:
        """Who the accounts are that count for themselves."""
        found = {each.name: (each.profile, each.company.children) for each in self.accounts()}
        return {name: company for name, company in found.items() if company != (NOBODY, ())}

    def journeys(self) -> dict[str, list[tuple[str | None, bytes]]]:
        """Whose touches each of them has."""
        found = {}
        for each in self.accounts():
            paths = each.dossier.journey.by_path.items()
            found[each.name] = sorted(
                (each.dossier.person_of(path), pack(touch)) for path, of_path in paths for touch in of_path
            )
        return {name: journey for name, journey in found.items() if journey}

    def accounts(self) -> list[Account]:
        """The accounts that count for themselves, built anew."""
        entities = (self.build(name, dict(parts)) for name, parts in self.parts.items() if name.startswith("account:"))
        return [each for each in entities if isinstance(each, Account) and not each.parent]


def _first(queue: list, number: int) -> list:  # type: ignore[type-arg]
    taken = queue[:number]
    del queue[:number]
    return taken


def compare(made: list[RawFact], variant: int, seed: int) -> None:
    facts = [(topic, value, at - at % 1000) for topic, value, at in made]  # Kafka's records have milliseconds
    books = recompute(facts, rules(variant))
    lanes = Lanes(rules(variant), random.Random(f"lanes {seed}"))

    lanes.take(facts)

    live, where = lanes.totals.without_zeros(), f"seed {seed}"
    assert live.cells == books.cells, where
    assert live.counts == books.counts, where
    assert {entry: why for (entry, _), why in live.waiting.items() if why is not None} == books.waiting, where
    assert lanes.companies() == books.companies, where
    assert lanes.journeys() == {
        name: sorted((person, pack(touch)) for person, touch in journey) for name, journey in books.journeys.items()
    }, where
    assert {place for place, is_listed in live.listed.items() if is_listed} == books.listed, where
    at_rest = lanes.totals_at_rest()
    assert (at_rest.cells, at_rest.counts) == (books.cells, books.counts), where
    for name, parts in lanes.parts.items():
        built = lanes.build(name, dict(parts))
        outcome = built.flush(Totals()) if isinstance(built, Account) else built.flush()
        assert not (outcome.changes or outcome.messages), f"{name} says something when it is only loaded"


def test_lanes_come_to_the_books_of_the_batch_recomputation():
    for seed in range(WORLDS):
        compare(world(random.Random(seed), seed % 30), seed % VARIANTS, seed)


@pytest.mark.slow
def test_lanes_come_to_the_books_of_the_batch_recomputation_in_thousands_of_worlds():
    for seed in range(10_000, 10_000 + max(WORLDS, 1500)):
        compare(world(random.Random(seed), seed % 60), seed % VARIANTS, seed)


def alias(at: str, previous: str, user: str) -> RawFact:
    ids = {"messageId": f"{previous} is {user}", "timestamp": at, "previousId": previous, "userId": user}
    return fact("identities", type="alias", **ids)


def account(at: str, name: str, **fields: object) -> RawFact:
    return fact("account-changes", account=name, messageId=f"{name} {at}", timestamp=at, **fields)


def form_fill(
    at: str, visitor: str, email: str, external: str | None = None, message: str = "form", **fields: object
) -> RawFact:
    ids = {"messageId": message, "timestamp": at, "anonymousId": visitor}
    properties = {"email": email, "externalId": external}
    return fact("form-fills", type="track", event="Signed Up", properties=properties, **ids, **fields)


def contact(at: str, person: str, company: str | None) -> RawFact:
    said = {"person": person, "source": "crm", "account": company}
    return fact("contact-changes", messageId="import", timestamp=at, **said)


ONE, TWO, THREE, FOUR = (f"2026-02-0{day}T10:00:00Z" for day in (1, 2, 3, 4))
CAUGHT = {
    "a replaced link that closes a circle": [
        alias(ONE, "u1", "u2"),
        alias(TWO, "u3", "u1"),
        alias(THREE, "u1", "u3"),
        call(ONE, "u1"),
    ],
    "two refunds of one deal": [deal(ONE, amount=100), refund(TWO, "1"), refund(THREE, "2")],
    "contacts of one import at one instant": [
        contact(ONE, "u1", None),
        contact(ONE, "u2", "C1"),
        alias(TWO, "u1", "u2"),
    ],
    "one message id with two visitors of one person": [
        form_fill(ONE, "v1", "ann@acme.com"),
        form_fill(TWO, "v2", "ann@acme.com"),
    ],
    "form fills with each other's external id": [
        form_fill(ONE, "v1", "ann@acme.com", "b", "a"),
        form_fill(TWO, "v1", "ann@acme.com", "a", "b"),
        fact("touches", touchId="a", timestamp=TWO, person="u1", kind="demo"),
        fact("touches", touchId="b", timestamp=TWO, person="u2", kind="call"),
    ],
    "a person unknown again while linked": [
        identify(TWO, "ann@acme.com", message="same", userId="u2"),
        identify(ONE, "dee@beta.de", message="same", userId="u1"),
    ],
    "a claim and a merger in a row": [
        account(ONE, "acme.com", domains=["beta.de"], mergedInto="C2"),
        hit(ONE),
        form_fill(TWO, "v1", "dee@beta.de"),
    ],
    "a form fill and an identify with one id that link one user id": [
        identify(TWO, "dee@beta.de", message="same", userId="u2"),
        form_fill(ONE, "v1", "ann@acme.com", message="same", userId="u2"),
    ],
    "a waiting deal that comes to its account by another way": [
        deal(ONE, contacts=["bob@acme.com"]),
        refund(TWO, "1"),
        alias(THREE, "bob@acme.com", "u1"),
        alias(FOUR, "u1", "u2"),
    ],
    "hits of two visitors with one id at one instant": [
        hit(ONE, "v1", "?utm_source=expo"),
        hit(ONE, "v2", "?utm_source=news"),
        identify(TWO, "ann@acme.com", "v1"),
        identify(TWO, "ann@acme.com", "v2"),
        deal(THREE, account="acme.com", amount=1),
    ],
    "an unlinked hit that comes in order": [
        form_fill(ONE, "v1", "ann@acme.com"),
        fact("identities", type="unlink", messageId="undo", timestamp=ONE, anonymousId="v1", unlinks=f"hit {TWO}"),
        hit(TWO, userId="ann@acme.com"),
    ],
    "a hit that names who is known already, in a visit told before": [
        identify(ONE, "ann@acme.com"),
        hit(TWO),
        hit("2026-02-02T10:05:00Z", userId="ann@acme.com"),
    ],
    "an identify of who is known already, in a visit told before": [
        hit(ONE),
        identify(ONE, "ann@acme.com", message="first"),
        hit(TWO),
        identify("2026-02-02T10:05:00Z", "ann@acme.com", message="second"),
        fact("identities", type="unlink", messageId="undo", timestamp=TWO, anonymousId="v1", unlinks="first"),
        deal(THREE, account="acme.com", amount=1),
    ],
    "an identify and an unlink with one id": [
        identify(TWO, "ann@acme.com", message="same"),
        hit(TWO),
        fact("identities", type="unlink", messageId="same", timestamp=ONE, anonymousId="v1", unlinks="other"),
    ],
}


@pytest.mark.parametrize("facts", CAUGHT.values(), ids=CAUGHT)
def test_what_worlds_once_caught_stays_right(facts: list[RawFact]):
    for seed in range(40):
        shuffled = facts.copy()
        random.Random(f"order {seed}").shuffle(shuffled)
        compare(shuffled, seed % VARIANTS, seed)


def test_a_journey_is_the_same_whichever_way_a_touch_on_the_move_came_first():
    old, new = (Touch(1, "t", "call", "sales", channel) for channel in ("direct", "event"))
    before, after = Journey(1), Journey(1)

    before.add("person", old)
    before.add("merged person", new)
    after.add("merged person", new)
    after.add("person", old)

    assert before.touches == after.touches
