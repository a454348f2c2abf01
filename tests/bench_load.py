"""A steady load on the lanes, and facts among it whose way into the totals can be watched."""

import asyncio
import time
from collections.abc import AsyncIterator, Iterable, Iterator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer

from models.cells import Cell
from models.conversions import UNATTRIBUTED
from models.hashes import cell_field, place_of
from models.partitions import partition_of
from models.settings import Settings
from streams.config import kafka_options
from streams.keys import place_key
from streams.topics import full_name
from tests.bench_facts import Arrival, deal_change, endless, identify

TICK_SECONDS = 0.01
POLL_SECONDS = 0.002
LOST_SECONDS = 10.0
FIRST_DAY = datetime(2001, 1, 1, tzinfo=UTC)
DAYS = 8_000
"""So many sentinels have a day of their own, all of them before the facts' world."""


class Sentinel(NamedTuple):
    """A fact that alone fills a cell of the totals."""

    arrival: Arrival
    key: str
    field: str


def lead_sentinel(number: int, partitions: int) -> Sentinel:
    """A visitor becomes known on a day of its own: through all three lanes to one `lead`."""
    day, domain = FIRST_DAY + timedelta(days=number % DAYS), f"lead-sentinel{number}.com"
    arrival = identify(f"lead-sentinel-{number}", f"s{number}", f"s@{domain}", _ms(day))
    return _watched(arrival, "lead", day, domain, partitions)


def won_sentinel(number: int, partitions: int) -> Sentinel:
    """A deal is won on a day of its own: through two lanes to one `won`."""
    day, domain = FIRST_DAY + timedelta(days=number % DAYS), f"won-sentinel{number}.com"
    arrival = deal_change(f"won-sentinel-{number}", domain, "closed_won", _ms(day), 100)
    return _watched(arrival, "won", day, domain, partitions)


def _watched(arrival: Arrival, conversion: str, day: datetime, account: str, partitions: int) -> Sentinel:
    cell = Cell(conversion, "channel", f"{day:%Y-%m-%d}", UNATTRIBUTED)
    return Sentinel(arrival, place_key("accounts", partition_of(account, partitions), place_of(cell)), cell_field(cell))


def _ms(moment: datetime) -> int:
    return round(moment.timestamp() * 1000)


def pulse(partitions: int, every: int) -> Iterator[Arrival]:
    """Endless facts of the usual mix, with a sentinel that crosses all lanes after each `every` of them."""
    world, number = endless(), count()
    while True:
        for _ in range(every):
            yield next(world)
        yield lead_sentinel(next(number), partitions).arrival


@asynccontextmanager
async def load(settings: Settings, facts: Iterable[Arrival], per_second: int) -> AsyncIterator[None]:
    """So many facts a second reach Kafka for the length of a block."""
    async with AIOKafkaProducer(**kafka_options(settings), linger_ms=5) as kafka:
        flowing = asyncio.create_task(_flow(settings, kafka, iter(facts), per_second))
        try:
            yield
        finally:
            flowing.cancel()
            with suppress(asyncio.CancelledError):
                await flowing


async def _flow(settings: Settings, kafka: AIOKafkaProducer, facts: Iterator[Arrival], per_second: int) -> None:
    begun, sent = time.perf_counter(), 0
    while True:
        due = int((time.perf_counter() - begun) * per_second)
        for _ in range(due - sent):
            await send(settings, kafka, next(facts))
        sent = due
        await asyncio.sleep(TICK_SECONDS)


async def send(settings: Settings, kafka: AIOKafkaProducer, arrival: Arrival) -> Any:
    """Hand a fact to the producer; the future of Kafka's answer."""
    return await kafka.send(
        full_name(settings, arrival.topic),
        arrival.value,
        key=arrival.key.encode(),
        partition=partition_of(arrival.key, settings.partitions),
        timestamp_ms=arrival.at_ms,
    )


class Stopwatch:
    """Sends sentinels and tells how long each took from its sending to its total in Redis."""

    def __init__(self, settings: Settings, redis: Any, kafka: AIOKafkaProducer) -> None:
        self._settings = settings
        self._redis = redis
        self._kafka = kafka
        self._under_way: dict[Sentinel, float] = {}
        self.seconds: list[float] = []

    async def run(self, sentinels: Iterable[Sentinel], every_seconds: float) -> list[float]:
        """Send these, one each `every_seconds`; the seconds each took, in order of arrival.

        Raises TimeoutError when one has not arrived within LOST_SECONDS after the last.
        """
        polling = asyncio.create_task(self._poll())
        try:
            for sentinel in sentinels:
                self._under_way[sentinel] = time.perf_counter()
                await send(self._settings, self._kafka, sentinel.arrival)
                await asyncio.sleep(every_seconds)
            async with asyncio.timeout(LOST_SECONDS):
                while self._under_way:
                    await asyncio.sleep(POLL_SECONDS)
        finally:
            polling.cancel()
        return self.seconds

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(POLL_SECONDS)
            if waiting := list(self._under_way):
                await self._take(waiting)

    async def _take(self, waiting: list[Sentinel]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        for sentinel in waiting:
            pipeline.hexists(sentinel.key, sentinel.field)
        answers = await pipeline.execute()
        now = time.perf_counter()
        for sentinel, arrived in zip(waiting, answers, strict=True):
            if arrived:
                self.seconds.append(now - self._under_way.pop(sentinel))
