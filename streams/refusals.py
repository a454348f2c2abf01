"""The newest dead letters, read from the end of their topic: what was refused lately, and why."""

import heapq
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from aiokafka import TopicPartition

from models.errors import BadInput
from models.settings import Settings
from models.times import to_text
from streams import kafka_clients
from streams.topics import DEAD_LETTERS, full_name

MOST = 20

Row = dict[str, Any]


async def dead_letters(redis: Any, settings: Settings, *, limit: int = MOST) -> list[Row]:
    """Rows {at, topic, partition, offset, where, expected, got, lane, recordedAt, id, original, …}, newest first.

    A letter as streams.dead_letters writes it, with the instant `at` of its writing. Raises BadInput, and
    Unavailable without Kafka.
    """
    if limit < 1:
        raise BadInput("limit", "a number from 1", limit)
    async with kafka_clients.consumer(settings) as consumer:
        topic = full_name(settings, DEAD_LETTERS)
        if topic not in await consumer.topics():
            return []
        ends = await consumer.end_offsets([TopicPartition(topic, each) for each in range(settings.partitions)])
        records = await _last_of(consumer, ends, limit)
    newest = heapq.nlargest(limit, records, key=lambda record: (record.timestamp, record.partition, record.offset))
    return [_row(record) for record in newest]


async def _last_of(consumer: Any, ends: Mapping[TopicPartition, int], most: int) -> list[Any]:
    """The last records of each partition."""
    begins = await consumer.beginning_offsets(list(ends))
    left = {place for place, end in ends.items() if end > begins[place]}
    consumer.assign(list(left))
    for place in left:
        consumer.seek(place, max(begins[place], ends[place] - most))
    records: list[Any] = []
    while left:
        polled: Mapping[TopicPartition, Sequence[Any]] = await consumer.getmany(*left, timeout_ms=200)
        records += [record for some in polled.values() for record in some]
        left = {place for place in left if await consumer.position(place) < ends[place]}
    return records


_FIRST = ("topic", "partition", "offset", "where", "expected", "got")


def _row(record: Any) -> Row:
    letter = msgspec.json.decode(record.value)
    return {"at": to_text(record.timestamp * 1000), **{name: letter.get(name) for name in _FIRST}, **letter}
