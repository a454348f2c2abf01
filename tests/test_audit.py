"""`touchline wait`, `audit` and `rebuild` with a worker on real Kafka and Redis."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from itertools import count
from typing import Any

import msgspec
import pytest
from redis import Redis

from models.lanes import LANES
from models.reports import pack
from models.vectors import pack_numbers, unpack_numbers
from streams import audit, config, rebuild, waiting
from streams.keys import key
from streams.tables import Book
from streams.totals import waiting_entry
from tests.running import STORY, Fact, Place, deal, identify, meanwhile, page, touch

ASKED = ("report", "credits", "--model", "time_decay", "--by", "channel", "--grain", "day")


@pytest.fixture(scope="module")
def place(new_place: Callable[[int], Place]) -> Iterator[Place]:
    """Empty tables and topics, with a few strangers' pages."""
    made = new_place(3)
    yield made


@pytest.fixture(scope="module")
def story(place: Place) -> Iterator[Place]:
    """The story in the totals, its worker gone on running."""
    place.produce(STORY)
    with place.worker():
        place.run("wait", "--timeout", "60")
        yield place


@pytest.fixture
def redis(place: Place) -> Iterator[Redis]:
    with Redis.from_url(place.settings.redis.url) as client:
        yield client


def books(place: Place, redis: Redis) -> dict[tuple[str, int], Book]:
    """Every lane partition's book."""
    places = [(lane, partition) for lane in LANES for partition in range(place.settings.partitions)]
    return {each: Book.of(redis.hgetall(key(*each, "book"))) for each in places}


def some_facts(number: int) -> list[Fact]:
    """A visitor who becomes a customer."""
    who, at = f"someone@company-{number}.com", f"2026-03-{1 + number % 28:02}T10:00:00Z"
    return [
        page(f"hit-{number}", at, f"visitor-{number}", "https://site.example/?utm_source=news&utm_medium=email"),
        identify(f"id-{number}", at, f"visitor-{number}", who),
        touch(f"call-{number}", at, who, "call"),
        deal(f"deal-{number}", "2026-03-30T00:00:00Z", f"m-{number}", contacts=[who], amount=10, stage="closed_won"),
    ]


def flowing(place: Place) -> AbstractContextManager[None]:
    """Facts keep coming for the length of a block, about a thousand a second."""
    numbers = count(int(time.monotonic() * 1000) % 1_000_000 * 1000, 25)

    def flow() -> None:
        number = next(numbers)
        place.produce(fact for each in range(number, number + 25) for fact in some_facts(each))

    return meanwhile(flow)


def test_wait_without_a_worker_gives_up_and_names_what_lags(place: Place) -> None:
    place.produce([page("early", "2026-01-01T00:00:00Z", "stranger", "https://site.example/")])

    result = place.run("wait", "--timeout", "1", code=1)

    assert result.stderr.startswith("touchline: not everything is in the totals after 1 s: page-views 1 behind")
    assert "no worker is running" in result.stderr


def test_wait_returns_when_the_totals_are_complete(story: Place, redis: Redis) -> None:
    story.produce(fact for number in range(200) for fact in some_facts(number))
    story.run("wait", "--timeout", "60")

    rows = story.rows("report", "credits", "--model", "linear", "--by", "channel", "--to", "2026-03-31")
    assert sum(row["count"] for row in rows) == 200_000_000
    assert sum(row["amount"] for row in rows) == 200_000


def test_wait_is_quick_when_there_is_nothing_to_wait_for(story: Place) -> None:
    story.run("wait", "--timeout", "60")
    began = time.monotonic()
    story.run("wait", "--timeout", "60")

    assert time.monotonic() - began < 2.0


def test_wait_comes_to_an_end_while_facts_keep_coming(story: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(waiting, "FLOWING_SECONDS", 0.0)

    with flowing(story):
        story.run("wait", "--timeout", "60")


def test_balanced_books_are_clean(story: Place) -> None:
    story.run("wait", "--timeout", "60")

    document = story.rows("audit")

    assert document["clean"] is True
    assert document["facts"] >= len(STORY)
    assert document["cells"] > 50
    assert document["deals"] >= 3
    assert document["waiting"] == 3
    assert "No difference: the books balance." in story.run("audit").stdout


def test_an_audit_while_facts_keep_coming_is_clean(story: Place) -> None:
    with flowing(story):
        documents = [story.rows("audit") for _ in range(3)]

    assert all(document["clean"] for document in documents)


def test_an_audit_lets_the_lanes_go_on(story: Place, redis: Redis) -> None:
    story.run("audit")

    assert not redis.exists(waiting.PAUSE_KEY)


@contextmanager
def tampered(redis: Redis, change: Callable[[], None], *keys: str) -> Iterator[None]:
    """Keys changed for the length of a block, and put back."""
    kept = {each: redis.dump(each) for each in keys}
    change()
    try:
        yield
    finally:
        for each, value in kept.items():
            redis.restore(each, 0, value, replace=True)  # type: ignore[arg-type]


def test_a_wrong_total_is_told_under_the_model_it_is_wrong_in(story: Place, redis: Redis) -> None:
    name = next(
        key("accounts", each, "credits", "won", "channel")
        for each in range(3)
        if redis.hexists(key("accounts", each, "credits", "won", "channel"), b"2026-04-20\0paid_search")
    )

    def change() -> None:
        numbers = unpack_numbers(redis.hget(name, b"2026-04-20\0paid_search"))  # type: ignore[arg-type]
        numbers[1] += 7
        redis.hset(name, b"2026-04-20\0paid_search", pack_numbers(numbers))

    with tampered(redis, change, name):
        result = story.run("audit", "--format", "json", code=1)

    document = json.loads(result.stdout)
    assert document["clean"] is False
    assert document["differences"] == [
        {
            "what": "total",
            "where": "won 2026-04-20 channel=paid_search",
            "model": "first_touch",
            "live": {"count": 1_000_000, "amount": 100_007},
            "batch": {"count": 1_000_000, "amount": 100_000},
        }
    ]
    assert document["unbalanced"] == ["won 2026-04-20"]
    assert "do not balance on won 2026-04-20" in result.stderr


def test_a_wrong_pipeline_and_a_forgotten_wait_are_told(story: Place, redis: Redis) -> None:
    stages, waits = (
        next(name for each in range(3) if redis.exists(name := key("accounts", each, kind)))
        for kind in ("counts:pipeline", "waiting")
    )
    entry = redis.hkeys(waits)[0]

    def change() -> None:
        redis.hset(stages, "imagined", pack_numbers([1, 5]))
        redis.hdel(waits, entry)

    with tampered(redis, change, stages, waits):
        document = json.loads(story.run("audit", "--format", "json", code=1).stdout)

    assert [(each["what"], each["where"]) for each in document["differences"]] == [
        ("pipeline", "imagined"),
        ("waiting", waiting_entry(entry)),
    ]


def test_a_touch_missing_in_an_account_is_told_by_deal_and_touch(story: Place, redis: Redis) -> None:
    name = next(iter(redis.scan_iter(match="{accounts:*}:e:account:acme.com"))).decode()
    parts = msgspec.msgpack.decode(redis.get(name))  # type: ignore[arg-type]
    call = next(part for part in parts if part.startswith("t") and part.endswith(":t1"))

    less = pack({part: value for part, value in parts.items() if part != call})
    with tampered(redis, lambda: redis.set(name, less) and None, name):
        result = story.run("audit", code=1)

    assert "deal D1 won:D1: call t1 at 2026-04-05T09:00:00Z by sales_outbound" in result.stdout


def test_a_message_that_nobody_brings_in_is_not_passed_over(
    story: Place, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "STILL_SECONDS", 1.0)
    book = key("accounts", 0, "book")
    story.run("wait", "--timeout", "60")

    with tampered(redis, lambda: redis.hincrby(book, "offset:account-facts", -1) and None, book):
        result = story.run("audit", code=4)

    assert "messages are still on their way" in result.stderr


def test_a_rebuild_brings_back_the_same_totals(story: Place, redis: Redis) -> None:
    story.run("wait", "--timeout", "60")
    before = story.rows(*ASKED)
    run = {book.run for book in books(story, redis).values()}

    story.run("rebuild", "--yes", "--timeout", "60")

    assert story.rows(*ASKED) == before
    assert {book.run for book in books(story, redis).values()} == {max(run) + 1}
    assert story.rows("audit")["clean"]


def test_a_rebuild_while_facts_keep_coming_is_exact(story: Place) -> None:
    with flowing(story):
        story.run("rebuild", "--yes", "--no-wait")
    story.run("wait", "--timeout", "60")

    assert story.rows("audit")["clean"]


@pytest.mark.parametrize("step", ["_empty", "_begin", "_open"])
def test_a_rebuild_that_was_killed_is_run_again(
    story: Place, redis: Redis, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    before = story.rows(*ASKED)

    async def die(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(rebuild, step, die)
        story.run("rebuild", "--yes", code=1)
    assert "a rebuild was not finished" in story.run("wait", "--timeout", "1", code=1).stderr
    story.run("rebuild", "--yes", "--timeout", "60")

    assert story.rows(*ASKED) == before
    assert story.rows("audit")["clean"]


def test_a_pause_that_another_holds_is_waited_for(place: Place, redis: Redis) -> None:
    async def pause_after_another() -> str | None:
        async with config.redis_client(place.settings) as tables:
            async with waiting.pausing(tables) as first:
                second = asyncio.create_task(held(tables))
                await asyncio.sleep(0)
                assert await tables.get(waiting.PAUSE_KEY) == first.encode()
            return await second

    async def held(tables: Any) -> str:
        async with waiting.pausing(tables) as token:
            assert await tables.get(waiting.PAUSE_KEY) == token.encode()
            return token

    assert asyncio.run(pause_after_another())
    assert not redis.exists(waiting.PAUSE_KEY)
