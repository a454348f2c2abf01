"""Totals of some accounts only: whatever is asked, it is what those accounts come to."""

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis

from models.accounts import Account
from models.conversions import DIMENSIONS
from models.counts import table_of
from models.errors import BadInput, NotYet
from models.filters import Condition, Where, label_in, matches, parse_where, parts_of
from models.flows import ALL_TIME, Period
from models.pipeline import PIPELINE
from models.profiles import compared
from models.recompute import recompute
from models.times import to_text
from models.totals import Totals
from streams import embedded, filtered
from streams.filtered import Background, background, chosen, read_cells, read_filtered_counts
from tests.simulation import Plan, Simulation, simulate
from tests.worlds import BEGIN, RECORDED, RawFact, world

T = TypeVar("T")

# --- what is asked ------------------------------------------------------------------------


def test_conditions_are_alternatives_of_attributes_without_case() -> None:
    asked = parse_where(["Industry = SaaS,retail\\, food ", "size=37,(none)", "vip=True"])

    assert asked == (
        Condition("industry", frozenset({"saas", "retail, food"})),
        Condition("size", frozenset({"11-50", None})),
        Condition("vip", frozenset({"true"})),
    )


@pytest.mark.parametrize("text", ["industry", "=x", " =x", ""])
def test_a_condition_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(BadInput):
        parse_where([text])


def test_sizes_are_compared_in_bands() -> None:
    sizes = {
        size: compared("size", size) for size in (1, 10, 11, 50, 51, 200, 201, 1000, 1001, 5000, 5001, "5001", "x")
    }

    assert list(sizes.values()) == [
        "1-10", "1-10", "11-50", "11-50", "51-200", "51-200", "201-1000", "201-1000", "1001-5000", "1001-5000",
        "more", "more", "x",
    ]  # fmt: skip


# --- what is answered ---------------------------------------------------------------------

_ASKED: tuple[tuple[str, ...], ...] = (
    ("industry=saas",),
    ("industry=saas,(none)",),
    ("segment=(none)",),
    ("segment=true,false", "industry=saas,Retail\\, food"),
    ("size=1,11,51",),
    ("size=(none)",),
    ("size=(none)", "industry=(none)"),
    ("size=more,many", "owner=jo,(none)"),
    ("industry=saas", "industry=retail\\, food"),
    ("owner=nobody",),
    ("nothing=(none)",),
    ("nothing=x",),
)


@pytest.fixture
def redis(redis_server: embedded.Server) -> Iterator[Redis]:
    with Redis.from_url(redis_server.address) as client:
        client.flushall()
        yield client


def ask(redis_server: embedded.Server, work: Callable[[Any], Awaitable[T]]) -> T:
    async def asked() -> T:
        async with AsyncRedis.from_url(redis_server.address) as client:
            return await work(client)

    return asyncio.run(asked())


def kept(redis: Redis, seed: int) -> Simulation:
    """A world's totals, as the lanes made them, in Redis."""
    redis.flushall()
    after = simulate(Plan(seed, attributed_world(seed), calm=True))
    for name, value in after.store.keys.items():
        if isinstance(value, bytes):  # an empty one says that the entity's parts are kept as a hash
            redis.set(name, value)
        elif value and isinstance(value, dict):
            redis.hset(name, mapping=value)
        elif value and isinstance(value, set):
            redis.sadd(name, *value)
    return after


def attributed_world(seed: int) -> list[RawFact]:
    """A world in which most accounts have attributes."""
    rng = random.Random(seed)
    return [*world(rng, 40), *(attributed(rng, name) for name in ("C1", "C2", "G1", "acme.com", "beta.de"))]


def attributed(rng: random.Random, account: str) -> RawFact:
    """An account change with an industry and a size."""
    attributes = {"industry": rng.choice(("SaaS", "Retail, food", "=%/")), "size": rng.choice((5, 70, 9000))}
    body = {"account": account, "messageId": "said", "timestamp": to_text(BEGIN), "attributes": attributes}
    return "account-changes", json.dumps(body).encode(), RECORDED


def own_totals(after: Simulation, where: Where) -> Totals:
    """What the accounts that fulfil the conditions come to, one by one."""
    totals = Totals()
    for name, parts in after.entities("accounts", "account"):
        account = Account(name, parts, after.rules)
        if not account.parent and matches(where, account.company.labels):
            totals.add(account.ledger.own_totals())
    return totals.without_zeros()


Cells = dict[Any, int]


def cells_read(server: embedded.Server, after: Simulation, where: Where, **asked: Any) -> Cells:
    """All cells as reports read them."""

    async def read(client: Any) -> Cells:
        cells: Cells = {}
        for conversion in {cell.conversion for cell in own_totals(after, where).cells}:
            for dimension in DIMENSIONS:
                cells.update(await read_cells(client, after.rules.settings, conversion, dimension, where, **asked))
        return cells

    return ask(server, read)


def pipeline_read(server: embedded.Server, after: Simulation, where: Where) -> dict[str, Any]:
    """The open pipeline as reports read it."""
    settings = after.rules.settings
    return ask(server, lambda client: read_filtered_counts(client, settings, [PIPELINE], where))[PIPELINE]


def test_a_filter_answers_what_its_accounts_come_to(redis: Redis, redis_server: embedded.Server) -> None:
    for seed in (1, 2):
        after = kept(redis, seed)
        for asked in _ASKED:
            where = parse_where(asked)
            expected = own_totals(after, where)
            for _ in range(2):  # as made for this answer, and as kept since
                assert cells_read(redis_server, after, where) == expected.cells, (seed, asked)
                assert pipeline_read(redis_server, after, where) == table_of(expected.counts, PIPELINE), (seed, asked)


def test_the_batch_asked_of_some_accounts_says_what_these_come_to() -> None:
    for seed in range(6):
        facts = attributed_world(seed)
        after = simulate(Plan(seed, facts, calm=True))
        whole_milliseconds = [(topic, value, at // 1000 * 1000) for topic, value, at in facts]
        for asked in _ASKED:
            where = parse_where(asked)
            books = recompute(whole_milliseconds, after.rules, where=where)

            cells = {cell: numbers for cell, numbers in books.cells.items() if not label_in(cell.conversion)}
            assert cells == own_totals(after, where).cells, (seed, asked)


@pytest.mark.parametrize("attribute", ["industry", "size"])
def test_the_filtered_totals_of_an_attribute_add_up_to_the_unfiltered_one(
    redis: Redis, redis_server: embedded.Server, attribute: str
) -> None:
    for seed in (10, 11):
        after = kept(redis, seed)
        values = {value for label, _ in after.books().listed for name, value in [parts_of(label)] if name == attribute}
        sums: Cells = {}
        for value in (*values, None):
            for cell, numbers in cells_read(redis_server, after, (Condition(attribute, frozenset({value})),)).items():
                sums[cell] = sums.get(cell, 0) + numbers
        unfiltered = cells_read(redis_server, after, ())

        assert values
        assert {cell: numbers for cell, numbers in sums.items() if numbers} == unfiltered


@pytest.mark.parametrize("asked", [(), ("industry=saas",), ("industry=(none)",), ("size=5,70,9000",)])
def test_a_period_read_by_whole_months_comes_to_the_sum_of_its_days(
    redis: Redis, redis_server: embedded.Server, asked: tuple[str, ...]
) -> None:
    after, where = kept(redis, 4), parse_where(asked)
    days = sorted({cell.day for cell in cells_read(redis_server, after, ())})
    first, last = days[len(days) // 4], days[3 * len(days) // 4]
    for period in (ALL_TIME, Period(first), Period("", last), Period(first, last), Period(first, first)):
        by_day = cells_read(redis_server, after, where, period=period)
        by_month = cells_read(redis_server, after, where, period=period, by_day=False)

        assert all(cell.day in period for cell in (*by_day, *by_month))
        assert over_time(by_month) == over_time(by_day), period


def over_time(cells: Cells) -> Cells:
    """What cells of all days and months come to."""
    sums: Cells = {}
    for cell, numbers in cells.items():
        sums[cell._replace(day="")] = sums.get(cell._replace(day=""), 0) + numbers
    return {cell: numbers for cell, numbers in sums.items() if numbers}


def test_the_accounts_that_a_filter_chooses_are_those_that_fulfil_it(
    redis: Redis, redis_server: embedded.Server
) -> None:
    after = kept(redis, 21)
    accounts = [Account(name, parts, after.rules) for name, parts in after.entities("accounts", "account")]

    async def all_chosen(client: Any) -> list[filtered.Chosen]:
        return [await chosen(client, after.rules.settings, parse_where(asked)) for asked in _ASKED]

    for asked, found in zip(_ASKED, ask(redis_server, all_chosen), strict=True):
        for account in accounts:
            if not account.parent:
                fulfils = matches(parse_where(asked), account.company.labels)
                assert (account.name in found) == fulfils, (asked, account.name)


def test_what_takes_too_long_for_a_request_goes_on_in_the_background(
    redis: Redis, redis_server: embedded.Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = kept(redis, 4)
    where = parse_where(["size=(none)"])
    expected = own_totals(after, where).cells
    monkeypatch.setattr(filtered, "MOST_AT_ONCE", 0)

    async def asked_until_done(client: Any) -> tuple[int, Cells]:
        background.set(Background())
        refused = 0
        while True:
            try:
                return refused, await read_cells(client, after.rules.settings, "opportunity", "channel", where)
            except NotYet:
                refused += 1
                await asyncio.sleep(0.01)

    refused, cells = ask(redis_server, asked_until_done)

    assert refused
    assert cells == {c: n for c, n in expected.items() if (c.conversion, c.dimension) == ("opportunity", "channel")}
