"""The facts as Kafka keeps them: read again from the first one up to what the lanes have read.

What a report says of a past day, a back-test and the audit are plain batches over them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping
from contextlib import asynccontextmanager, suppress
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from models.errors import Unavailable
from models.recompute import RawFact
from models.settings import Settings
from streams.config import kafka_options
from streams.standing import Place, Standing
from streams.topics import OUTSIDE, full_name

T = TypeVar("T")
Tell = Callable[[int, int], None]
"""Hears how many facts are read, of how many."""

_FETCH_BYTES = 4 * 1024 * 1024


def untold(done: int, total: int) -> None:
    """Nobody listens."""


def read_so_far(now: Standing) -> dict[Place, int]:
    """How far every topic of facts is in the totals."""
    places = ((topic, partition) for topic in OUTSIDE for _, partition in now.books)
    return {place: offset for place in places if (offset := now.committed(place))}


async def over_facts(
    settings: Settings, offsets: Mapping[Place, int], work: Callable[[Iterator[RawFact]], T], tell: Tell = untold
) -> tuple[T, int]:
    """What `work` makes of the facts before these offsets, and how many they were.

    The work is done in a thread, while the facts are fetched. Raises Unavailable without Kafka.
    """
    loop = asyncio.get_running_loop()
    counted = 0

    async with _facts_before(settings, offsets) as next_batch:

        def facts() -> Iterator[RawFact]:
            nonlocal counted
            while batch := asyncio.run_coroutine_threadsafe(next_batch(), loop).result():
                counted += len(batch)
                loop.call_soon_threadsafe(tell, counted, sum(offsets.values()))
                yield from batch

        return await asyncio.to_thread(work, facts()), counted


@asynccontextmanager
async def _facts_before(
    settings: Settings, offsets: Mapping[Place, int]
) -> AsyncIterator[Callable[[], Coroutine[Any, Any, list[RawFact]]]]:
    """Gives the facts before these offsets in batches, an empty one at the end."""
    topics = {full_name(settings, topic): topic for topic in OUTSIDE}
    left = {TopicPartition(full_name(settings, topic), each): offset for (topic, each), offset in offsets.items()}
    consumer = AIOKafkaConsumer(
        **kafka_options(settings), enable_auto_commit=False, max_partition_fetch_bytes=_FETCH_BYTES
    )

    async def next_batch() -> list[RawFact]:
        batch: list[RawFact] = []
        while left and not batch:
            polled = await consumer.getmany(*left, timeout_ms=200)
            for place, records in polled.items():
                within = (record for record in records if record.offset < left[place])
                batch += (RawFact(topics[place.topic], each.value, each.timestamp * 1000) for each in within)
            for place in list(left):
                if await consumer.position(place) >= left[place]:
                    del left[place]
        return batch

    try:
        await consumer.start()
        consumer.assign(list(left))
        if left:
            await consumer.seek_to_beginning(*left)
        yield next_batch
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka.bootstrap}: {error}") from error
    finally:
        with suppress(KafkaError):
            await consumer.stop()
