"""Where the lanes stand: what they have read, what there is to read, and who works on them.

Read by `wait`, `audit`, `rebuild` and `report lanes`; none of them needs a worker.
"""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, NamedTuple

from aiokafka import TopicPartition

from models.lanes import LANES
from models.settings import Settings
from streams import kafka_clients
from streams.keys import table_key
from streams.tables import Book
from streams.topics import INTERNAL, full_name

RUN_KEY = "touchline:run"
WORKER_PREFIX = "touchline:workers:"
_SCANNED_AT_ONCE = 10_000
_BACKOFF_MS = 5
"""The client backs off once for every topic that it is first asked about."""

LanePartition = tuple[str, int]
Place = tuple[str, int]
"""A topic (without the operator's prefix) and a partition of it."""

Ends = dict[Place, int]
ReadEnds = Callable[[Iterable[str]], Awaitable[Ends]]
"""The offsets at which the next records of these topics will stand."""

LANE_OF_TOPIC = {topic: lane.name for lane in LANES.values() for topic in (*lane.topics, lane.internal)}


class Standing(NamedTuple):
    """Every lane partition's book, what it has still to publish, and the pause it keeps."""

    books: dict[LanePartition, Book]
    outboxes: dict[LanePartition, int]
    paused: dict[LanePartition, str]
    rebuilding: bool

    def committed(self, place: Place) -> int:
        """How far a topic's partition is in the totals."""
        topic, partition = place
        return self.books[LANE_OF_TOPIC[topic], partition].offsets.get(topic, 0)

    def behind(self, ends: Mapping[Place, int]) -> dict[str, int]:
        """Records of each topic that are not in the totals yet; topics without are left out."""
        topics: dict[str, int] = {}
        for place, end in ends.items():
            if (lag := end - self.committed(place)) > 0:
                topics[place[0]] = topics.get(place[0], 0) + lag
        return topics

    def keeps(self, pause: str) -> bool:
        """Every lane partition has put down this pause."""
        return all(paused == pause for paused in self.paused.values())

    def same_facts(self, other: "Standing") -> bool:
        """Nothing was read, heard or said between the two."""
        return {place: _read_so_far(book) for place, book in self.books.items()} == {
            place: _read_so_far(book) for place, book in other.books.items()
        }


def _read_so_far(book: Book) -> tuple[Any, ...]:
    return book.run, book.offsets, book.seen, book.sent


async def read_standing(redis: Any, settings: Settings) -> Standing:
    """Where every lane partition stands now, each at its own instant."""
    places = [(lane, partition) for lane in LANES for partition in range(settings.partitions)]
    pipeline = redis.pipeline(transaction=False)
    for place in places:
        pipeline.hgetall(table_key(settings, *place, "book"))
        pipeline.llen(table_key(settings, *place, "outbox"))
    answers = await pipeline.execute()
    fields = dict(zip(places, answers[::2], strict=True))
    return Standing(
        {place: Book.of(each) for place, each in fields.items()},
        dict(zip(places, answers[1::2], strict=True)),
        {place: each.get(b"paused", b"").decode() for place, each in fields.items()},
        any(b"rebuilding" in each for each in fields.values()),
    )


async def drained(redis: Any, settings: Settings, ends: ReadEnds) -> Standing | None:
    """Where the lanes stand, if no message is on its way between them; else None.

    While nothing moves between two readings of all books, what is read in between holds
    at one instant.
    """
    before = await read_standing(redis, settings)
    if any(before.outboxes.values()) or before.rebuilding:
        return None
    internal = await ends(INTERNAL)
    after = await read_standing(redis, settings)
    stands_still = before.same_facts(after) and not after.behind(internal) and not any(after.outboxes.values())
    return after if stands_still else None


@asynccontextmanager
async def ends_reader(settings: Settings) -> AsyncIterator[ReadEnds]:
    """A connection to ask Kafka for ends; its errors leave as Unavailable.

    A topic that does not exist yet ends at 0.
    """
    async with kafka_clients.consumer(settings, retry_backoff_ms=_BACKOFF_MS) as consumer:
        yield partial(_ends_of, consumer, settings)


async def _ends_of(consumer: Any, settings: Settings, topics: Iterable[str]) -> Ends:
    existing = await consumer.topics()
    places = {
        TopicPartition(full_name(settings, topic), partition): (topic, partition)
        for topic in topics
        for partition in range(settings.partitions)
    }
    known = [place for place in places if place.topic in existing]
    found = await consumer.end_offsets(known) if known else {}
    return {place: found.get(where, 0) for where, place in places.items()}


async def workers(redis: Any) -> dict[str, dict[str, Any]]:
    """The last heartbeat of every live worker, by its key."""
    keys = [each async for each in redis.scan_iter(match=f"{WORKER_PREFIX}*", count=_SCANNED_AT_ONCE)]
    return await heartbeats(redis, [each.decode() for each in keys])


async def heartbeats(redis: Any, keys: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Those of these workers that still live, each with what it last said."""
    wanted = list(keys)
    beats = await asyncio.gather(*(redis.get(each) for each in wanted))
    live = ((name, json.loads(beat)) for name, beat in zip(wanted, beats, strict=True) if beat)
    return {name: beat for name, beat in live if "lanes" in beat}
