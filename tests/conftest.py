"""What tests share: real servers, started once, and settings that keep tests apart.

A test that uses `kafka` (or `settings`) is `slow` by that. Data folders: a test that needs
../shared/data skips with a reason that names it; with TOUCHLINE_REQUIRE_DATA set, as in
.ci/run, that skip is a failure.
"""

import asyncio
import os
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import pytest
from redis import Redis

from models.settings import Kafka, Settings
from models.settings import Redis as RedisSettings
from streams import embedded

if TYPE_CHECKING:
    from tests.running import Place

DATA_FOLDER = "shared/data"
T = TypeVar("T")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A Kafka broker for the whole run; use topics of your own (see `settings`)."""
    server = wait_for(embedded.start_kafka(tmp_path_factory.mktemp("kafka")))
    yield server
    wait_for(server.stop())


@pytest.fixture(scope="session")
def redis_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A Redis for the whole run; `settings` empties it for each test."""
    server = wait_for(embedded.start_redis(tmp_path_factory.mktemp("redis")))
    yield server
    wait_for(server.stop())


@pytest.fixture
def settings(kafka: embedded.Server, redis_server: embedded.Server) -> Settings:
    """Settings at both servers, with topics of this test alone (not made yet) and an empty Redis."""
    with Redis.from_url(redis_server.address) as redis:
        redis.flushall()
    return Settings(
        kafka=Kafka(bootstrap=kafka.address),
        redis=RedisSettings(url=redis_server.address),
        topic_prefix=f"test-{uuid.uuid4().hex[:8]}-",
    )


@pytest.fixture(scope="module")
def new_place(
    kafka: embedded.Server, redis_server: embedded.Server, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[int], "Place"]:
    """Makes a place of this many partitions for a whole module: an empty Redis, topics of its own."""
    from tests.running import Place

    def made(partitions: int) -> Place:
        with Redis.from_url(redis_server.address) as redis:
            redis.flushall()
        settings = Settings(
            kafka=Kafka(bootstrap=kafka.address),
            redis=RedisSettings(url=redis_server.address),
            partitions=partitions,
            topic_prefix=f"test-{uuid.uuid4().hex[:8]}-",
        )
        place = Place(settings, tmp_path_factory.mktemp("place"))
        place.run("topics", "--create")
        return place

    return made


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, from plain code; in a thread, so that it meets no loop of the test's."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()


async def eventually(check: Callable[[], Awaitable[Any]], seconds: float = 15.0) -> Any:
    """The first true answer of `check`; fails when there is none in time."""
    async with asyncio.timeout(seconds):
        while not (answer := await check()):
            await asyncio.sleep(0.02)
        return answer


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """A test that starts Kafka is slow."""
    for item in items:
        if "kafka" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.slow)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test that skips for want of the data fails where the data must be there."""
    return fail_if_data_is_required((yield))


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report(
    collector: pytest.Collector,
) -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    """The same for a module that skips as a whole."""
    return fail_if_data_is_required((yield))


Report = TypeVar("Report", pytest.TestReport, pytest.CollectReport)


def fail_if_data_is_required(report: Report) -> Report:
    """The report, as a failure when it is a skip whose reason names the data folder."""
    if report.skipped and DATA_FOLDER in str(report.longrepr) and os.environ.get("TOUCHLINE_REQUIRE_DATA"):
        report.outcome = "failed"
        report.longrepr = f"TOUCHLINE_REQUIRE_DATA is set, but: {report.longrepr}"
    return report


def shared_data(name: str) -> Path:
    """A folder of ../shared/data beside the checkout; skips the test when it is not there."""
    folder = Path(__file__).resolve().parents[2] / DATA_FOLDER / name
    if not folder.exists():
        pytest.skip(f"needs ../{DATA_FOLDER}/{name}")
    return folder
