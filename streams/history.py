"""The facts as Kafka keeps them: read again from the first one up to what the lanes have read.

What a report says of a past day, a back-test and the audit are plain batches over them.
"""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

from aiokafka import TopicPartition

from models.recompute import RawFact
from models.settings import Settings
from streams import kafka_clients
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
    left = {TopicPartition(full_name(settings, topic), each): offset for (topic, each), offset in offsets.items()}
    async with kafka_clients.consumer(settings, max_partition_fetch_bytes=_FETCH_BYTES) as consumer:
        consumer.assign(list(left))
        if left:
            await consumer.seek_to_beginning(*left)
        yield partial(_next_batch, consumer, {full_name(settings, topic): topic for topic in OUTSIDE}, left)


async def _next_batch(
    consumer: Any, topics: Mapping[str, str], left: MutableMapping[TopicPartition, int]
) -> list[RawFact]:
    """The next facts of the partitions that are not read up to their offset; those that are leave `left`."""
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
