"""The sample world is the same each time, only valid facts, and looks like a market."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import cache
from random import Random
from typing import Any

import msgspec
import pytest

from deploy.demo import THROUGH_THE_DOOR
from deploy.world import DAYS, STAGES, World, live, sample_world
from models import decoding, facts
from models.settings import Settings

END = datetime(2026, 6, 1, 9, 30, tzinfo=UTC)


@cache
def world() -> World:
    return sample_world(END)


@cache
def decoded() -> tuple[facts.Fact, ...]:
    recorded_at = int(END.timestamp()) * 1_000_000
    return tuple(
        decoding.decode(topic, msgspec.json.encode(fact), recorded_at, Settings()) for topic, fact in world().facts
    )


def instant(fact: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(fact["timestamp"])


def deals(told: World) -> dict[str, dict[str, Any]]:
    """Each deal as it stands at the end."""
    standing: dict[str, dict[str, Any]] = {}
    for topic, fact in told.facts:
        if topic == "deal-changes":
            standing.setdefault(fact["dealId"], {}).update(fact)
    return standing


def following(seed: int, count: int) -> list[tuple[str, dict[str, Any]]]:
    """The first facts of the life after the world, a second apart."""
    seconds = itertools.count()
    stream: Iterator[Any] = live(world(), Random(seed), lambda: END + timedelta(seconds=next(seconds)))
    return list(itertools.islice(stream, count))


def test_equal_ends_and_seeds_make_equal_worlds_and_others_make_others() -> None:
    small = [sample_world(END, seed, 20, 30).facts for seed in (1, 1, 2)]

    assert json.dumps(small[0]) == json.dumps(small[1])
    assert small[0] != small[2]


def test_every_fact_is_one_that_the_lanes_take() -> None:
    assert len(decoded()) == len(world().facts)
    assert {topic for topic, _ in world().facts} == set(facts.FACT_TOPICS)


def test_ids_are_unique_and_facts_come_in_order_of_time_within_the_days_told() -> None:
    ids = Counter((topic, fact.get("messageId") or fact["touchId"]) for topic, fact in world().facts)
    instants = [instant(fact) for _, fact in world().facts]

    assert max(ids.values()) == 1
    assert instants == sorted(instants)
    assert END - timedelta(days=DAYS + 1) <= instants[0] <= instants[-1] < END


def test_two_hundred_companies_have_committees_of_two_to_six_with_devices_of_their_own() -> None:
    companies = world().companies

    assert len({company.domain for company in companies}) == 200
    assert {len(company.people) for company in companies} == {2, 3, 4, 5, 6}
    assert all(company.domain.endswith(".example") for company in companies)
    people = [person for company in companies for person in company.people]
    devices = [device for person in people for device in person.devices]
    assert len({person.email for person in people}) == len(people)
    assert len(set(devices)) == len(devices) > len(people)


def test_people_are_anonymous_before_they_are_known() -> None:
    known: dict[str, datetime] = {}
    for topic, fact in world().facts:
        if topic == "form-fills":
            known.setdefault(fact["anonymousId"], instant(fact))

    before = [
        fact
        for topic, fact in world().facts
        if topic == "page-views" and instant(fact) < known.get(fact["anonymousId"], instant(fact))
    ]

    assert len(known) > 300
    assert len({fact["anonymousId"] for fact in before}) > 200


@pytest.mark.parametrize("days_later", range(8))
def test_some_millions_are_won_by_a_quarter_of_the_deals_and_some_are_given_back(days_later: int) -> None:
    told = sample_world(END + timedelta(days=days_later, hours=3 * days_later), strangers=0)
    standing = [deal for deal in deals(told).values() if not deal.get("deleted")]
    won = [deal["amount"] for deal in standing if deal["stage"] == "closed_won"]
    lost = [deal["amount"] for deal in standing if deal["stage"] == "closed_lost"]
    refunds = [float(fact["amount"]) for topic, fact in told.facts if topic == "billing"]

    assert 2_000_000 <= sum(won) <= 9_000_000
    assert 0.2 <= len(won) / (len(won) + len(lost)) <= 0.3
    assert {deal["stage"] for deal in standing} == {*STAGES, "closed_won", "closed_lost"}
    assert 0 < sum(refunds) < 0.1 * sum(won)


def test_deals_are_also_taken_up_again_and_deleted() -> None:
    stages: dict[str, list[str]] = {}
    for topic, fact in world().facts:
        if topic == "deal-changes" and "stage" in fact:
            stages.setdefault(fact["dealId"], []).append(fact["stage"])

    assert any("closed_lost" in path[:-1] for path in stages.values())
    assert any(deal.get("deleted") for deal in deals(world()).values())


def test_weekends_are_quiet() -> None:
    by_weekday = Counter(instant(fact).weekday() for _, fact in world().facts)

    assert max(by_weekday[5], by_weekday[6]) < 0.5 * min(by_weekday[day] for day in range(5))


def test_the_open_deals_of_the_world_are_those_that_its_facts_leave_open() -> None:
    left_open = {id: deal for id, deal in deals(world()).items() if deal["stage"] in STAGES and not deal.get("deleted")}

    told = {deal.id: (deal.stage, deal.dollars) for deal in world().open_deals}

    assert told == {id: (deal["stage"], deal["amount"]) for id, deal in left_open.items()}


def test_life_goes_on_with_valid_facts_of_every_kind_at_the_times_given() -> None:
    recorded_at = int((END + timedelta(days=1)).timestamp()) * 1_000_000

    after = following(1, 3_000)

    for topic, fact in after:
        decoding.decode(topic, msgspec.json.encode(fact), recorded_at, Settings())
    counts = Counter(topic for topic, _ in after)
    assert set(counts) == {"page-views", "form-fills", "identities", "touches", "deal-changes", "billing"}
    assert sum(counts[topic] for topic in THROUGH_THE_DOOR) > 0.8 * len(after)
    assert [instant(fact) for _, fact in after] == sorted(instant(fact) for _, fact in after)
    assert following(1, 100) == after[:100] != following(2, 100)


def test_life_moves_the_open_deals_and_gives_new_ids() -> None:
    after = following(3, 5_000)

    moved = {fact["dealId"] for topic, fact in after if topic == "deal-changes"}
    ids = Counter(fact.get("messageId") or fact["touchId"] for _, fact in after)
    assert moved & {deal.id for deal in world().open_deals}
    assert moved - {deal.id for deal in world().open_deals}
    assert max(ids.values()) == 1


@pytest.mark.parametrize("end", [datetime(2026, 1, 31, tzinfo=UTC), datetime(2028, 2, 29, 23, 59, tzinfo=UTC)])
def test_a_world_may_end_at_any_instant(end: datetime) -> None:
    told = sample_world(end, count=30, strangers=20)

    assert told.facts
    assert all(instant(fact) < end for _, fact in told.facts)
