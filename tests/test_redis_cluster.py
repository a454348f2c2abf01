"""A Redis Cluster in place of the one Redis: every command, a kill -9 of the worker, and clean audits."""

import asyncio
import json
import time
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis import Redis

from models.settings import Kafka, Settings
from models.settings import Redis as RedisSettings
from models.times import to_text
from streams import embedded
from tests.clusters import cluster, url_of
from tests.conftest import eventually
from tests.receiving import receiving, to_hook
from tests.running import STORY, Fact, Place, identify, page, supervised, touch, until
from tests.serving import served

pytestmark = [pytest.mark.slow, pytest.mark.asyncio(loop_scope="module")]

VISITORS = 150
REPORTS = (
    "credits --model linear --by channel --grain month",
    "credits --model linear --by channel --where industry=(none)",
    "compare --models linear,markov,shapley --by channel",
    "deal D1",
    "journey acme.com",
    "account acme.com",
    "person ann@acme.com",
    "pipeline",
    "pipeline --by owner --day 2026-04-15",
    "velocity",
    "funnel",
    "forecast",
    "sourced --by team",
    "usage",
    "shared",
    "waiting",
    "attributes",
    "warmth",
    "warmth acme.com",
    "alerts",
    "lanes",
)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def nodes(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[list[embedded.Server]]:
    """The nodes of a cluster."""
    async with cluster(tmp_path_factory.mktemp("cluster")) as servers:
        yield servers


async def test_all_goes_on_a_cluster_as_on_one_redis(
    kafka: embedded.Server, nodes: list[embedded.Server], tmp_path: Path
) -> None:
    settings = Settings(
        kafka=Kafka(bootstrap=kafka.address),
        redis=RedisSettings(url=url_of(nodes)),
        partitions=4,
        topic_prefix=f"test-{uuid.uuid4().hex[:8]}-",
    )
    async with receiving() as receiver:
        place = Place(settings, tmp_path)
        hook = to_hook(receiver.url)
        place.configure(hook)
        await asyncio.to_thread(place.run, "topics", "--create")
        await asyncio.to_thread(killed_on_the_way, place)
        with supervised(place), place.worker("deliver"):
            await asyncio.to_thread(counted, place)
            async with served(settings) as web:
                snapshot = await asyncio.to_thread(json.loads, await first_snapshot(web))
            await asyncio.to_thread(taken_over, place, hook)
            await asyncio.to_thread(rebuilt, place)
            await asyncio.to_thread(place.produce, revival())
            await asyncio.to_thread(place.run, "wait", "--timeout", "60")
            await eventually(lambda: asyncio.sleep(0, receiver.requests), 30)

    assert snapshot["pot"] == {"amount": 90_000, "count": 1_000_000}
    (alert,) = receiver.verified()
    assert (alert["account"]["id"], alert["transition"]) == ("revived.com", "warming")
    assert all(keys_on(node) > 50 for node in nodes), "every node has its share"


def killed_on_the_way(place: Place) -> None:
    """Load facts, and kill -9 the worker as soon as its first lane has committed some of them."""
    place.produce(visits())
    worker = place.start_worker()
    try:
        until(lambda: place.rows("report", "lanes"), lambda lanes: lanes[0]["facts"], 60)
    finally:
        worker.kill()
        worker.wait()


def counted(place: Place) -> None:
    """Load the story: the reports all answer, and the books balance."""
    place.produce(STORY)
    place.run("wait", "--timeout", "60")
    for report in REPORTS:
        place.rows("report", *report.split())
    (row,) = place.rows("report", "credits", "--model", "first_touch", "--by", "team")
    assert row["amount"] == 90_000
    audited(place)


def audited(place: Place) -> None:
    compared: Any = place.rows("audit")
    assert compared["clean"]
    assert (compared["facts"], compared["refused"]) == (len(STORY) + len(list(visits())), 0)


def taken_over(place: Place, hook: str) -> None:
    """Try other rules beside the live ones, and make them live; another preview is dropped."""
    place.configure("[lookback]\nwon = 20\n" + hook)
    for name in ("v2", "v3"):
        place.run("settings", "preview", name)
    until(
        lambda: place.rows("settings", "versions"),
        lambda rows: all(row["progress"] == 1 for row in rows),
        60,
    )
    place.run("settings", "drop", "v3")
    place.run("settings", "take-over", "v2")
    assert [row["version"] for row in place.rows("settings", "versions")] == ["v2"]
    audited(place)


def rebuilt(place: Place) -> None:
    place.run("rebuild", "--yes", "--timeout", "60")
    audited(place)


def visits() -> list[Fact]:
    """Visitors in April, each of whom is somebody."""
    return [
        fact
        for n in range(VISITORS)
        for fact in (
            page(f"p-{n}", "2026-04-01T10:00:00Z", f"visitor-{n}", "https://site.example/?utm_source=bing"),
            identify(f"i-{n}", "2026-04-01T10:05:00Z", f"visitor-{n}", f"ann@corp{n}.com"),
        )
    ]


def revival() -> list[Fact]:
    """A demo just now: a rebuild alerts nobody of what was before it."""
    return [touch("demo", to_text(time.time_ns() // 1000), "eve@revived.com", "demo")]


async def first_snapshot(web: Any) -> str:
    """What a live page is told first."""
    async with web.stream("GET", "/api/v1/live", params={"models": "first_touch,linear"}) as answer:
        async for line in answer.aiter_lines():
            if line.startswith("data: {"):
                return str(line.removeprefix("data: "))
    raise AssertionError("no snapshot")


def keys_on(node: embedded.Server) -> int:
    with Redis.from_url(node.address) as client:
        return int(client.dbsize())
