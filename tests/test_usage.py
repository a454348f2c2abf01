"""Product usage: counted by account, event and day; the first of each person a touch."""

import json
import random
from collections.abc import Iterable
from typing import Any

import pytest

from models.counts import table_of
from models.decoding import decode
from models.errors import BadInput
from models.recompute import Books, recompute
from models.settings import Settings
from models.usage import USES
from tests.test_lanes import Lanes, alias, compare, contact
from tests.test_recompute import call, fact
from tests.worlds import RawFact, rules

ONE, TWO, THREE = (f"2026-02-0{day}T10:00:00Z" for day in (1, 2, 3))


def use(at: str, person: str = "u1", event: str = "Viewed", message: str | None = None, **fields: Any) -> RawFact:
    ids = {"messageId": message or f"{person} {event} {at}", "timestamp": at}
    return fact("product-usage", person=person, event=event, **ids, **fields)


def books_of(facts: Iterable[RawFact], variant: int = 0) -> Books:
    """The books of the facts; the lanes come to the same in any order."""
    facts = list(facts)
    for seed in range(6):
        shuffled = facts.copy()
        random.Random(seed).shuffle(shuffled)
        compare(shuffled, variant, seed)
    return recompute(facts, rules(variant))


def uses(books: Books) -> dict[str, int]:
    return {field.replace("\0", " "): count for field, (count,) in table_of(books.counts, USES).items()}


def uses_of(facts: list[RawFact]) -> dict[str, dict[str, dict[str, int]]]:
    """What each account's people used, as the lanes keep it."""
    lanes = Lanes(rules(), random.Random(1))
    lanes.take(list(facts))
    return {each.name: each.dossier.uses for each in lanes.accounts() if each.dossier.uses}


def touches(books: Books) -> dict[str, list[tuple[str, str]]]:
    return {account: [(touch.id, touch.kind) for _, touch in journey] for account, journey in books.journeys.items()}


def test_usage_is_counted_by_event_and_day_and_a_copy_once():
    facts = [use(ONE), use(ONE), use(ONE, message="again", count=4), use(TWO), use(TWO, event="Invited")]

    assert uses(books_of(facts)) == {"2026-02-01 Viewed": 5, "2026-02-02 Viewed": 1, "2026-02-02 Invited": 1}
    assert not books_of(facts).leads


def test_of_two_uses_with_one_id_the_earlier_counts():
    facts = [use(TWO, message="same"), use(ONE, event="Invited", message="same", count=3), use(THREE)]

    assert uses(books_of(facts)) == {"2026-02-01 Invited": 3, "2026-02-03 Viewed": 1}


def test_of_two_uses_with_one_id_and_time_the_one_of_smaller_bytes_counts() -> None:
    started = fact("product-usage", count=2, event="Trial Started", messageId="m", person="u1", timestamp=ONE)
    viewed = fact("product-usage", event="Viewed", messageId="m", person="u1", timestamp=ONE)

    assert started[1] < viewed[1]
    assert uses(books_of([started, viewed])) == {"2026-02-01 Trial Started": 2}


def test_of_copies_written_otherwise_the_smallest_stands_for_all() -> None:
    one, other, last = (
        ("product-usage", json.dumps(body).encode(), recorded_at)
        for recorded_at in [use(ONE)[2]]
        for body in (
            {"a": 1, "messageId": "m", "timestamp": ONE, "person": "u1", "event": "Viewed"},
            {"b": 1, "messageId": "m", "timestamp": ONE, "person": "u1", "event": "Shared"},
            {"c": 1, "messageId": "m", "timestamp": ONE, "person": "u1", "event": "Viewed"},
        )
    )

    assert uses(books_of([one, other, last])) == {"2026-02-01 Viewed": 1}
    assert uses(books_of([other, last])) == {"2026-02-01 Shared": 1}


def test_days_are_those_of_the_reporting_time_zone():
    assert uses(books_of([use("2026-01-31T23:30:00Z")], variant=1)) == {"2026-02-01 Viewed": 1}


def test_an_account_named_counts_only_where_the_person_has_none():
    facts = [use(ONE, account="C1"), use(ONE, "ann@acme.com", account="C1"), use(ONE, "cy@gmail.com")]
    moved = [*facts, contact(TWO, "u1", "C2")]

    assert set(uses_of(facts)) == {"C1", "acme.com", "cy@gmail.com"}
    assert set(uses_of(moved)) == {"C2", "acme.com", "cy@gmail.com"}
    books_of(moved)


def test_the_first_of_a_person_and_event_is_a_touch_and_an_earlier_late_one_replaces_it():
    facts = [use(TWO, event="Trial Started"), use(THREE, event="Trial Started"), use(THREE, event="Viewed")]
    earlier = [*facts, use(ONE, event="Trial Started")]

    assert touches(books_of(facts)) == {"u1": [(f"u1 Trial Started {TWO}", "trial_started")]}
    assert touches(books_of(earlier)) == {"u1": [(f"u1 Trial Started {ONE}", "trial_started")]}
    assert list(books_of(earlier).leads) == ["u1"]


def test_ids_merged_into_one_person_have_one_first():
    facts = [use(ONE, "u1", "Trial Started"), use(TWO, "ann@acme.com", "Trial Started"), call(THREE, "ann@acme.com")]

    apart, merged = books_of(facts), books_of([*facts, alias(THREE, "u1", "ann@acme.com")])

    assert {account: len(journey) for account, journey in apart.journeys.items()} == {"u1": 1, "acme.com": 2}
    assert touches(merged) == {"acme.com": [(f"u1 Trial Started {ONE}", "trial_started"), (f"call {THREE}", "call")]}


def test_milestones_are_what_the_settings_list():
    books = books_of([use(ONE, event="Invited"), use(TWO, event="Viewed"), use(TWO, event="Other")], variant=1)

    [(_, first), (_, second)] = books.journeys["u1"]
    assert (first.kind, first.team, first.channel) == ("product_milestone", "product", "product")
    assert second.id == f"u1 Viewed {TWO}"


@pytest.mark.parametrize("fields", [{"person": "null"}, {"event": " "}, {"count": 0}, {"count": "2"}])
def test_usage_of_nobody_of_nothing_or_of_no_times_is_refused(fields: dict[str, Any]):
    body = {"messageId": "m", "timestamp": ONE, "person": "u1", "event": "Viewed", **fields}
    topic, value, recorded = fact("product-usage", **body)

    with pytest.raises(BadInput, match=next(iter(fields))):
        decode(topic, value, recorded, Settings())
