"""Fetching a lane's records: of its partitions what the committed offsets say is next, and how much waits beyond."""

import asyncio
import contextlib
import time
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from models.lanes import LANES, Lane
from models.settings import Settings
from streams.backlog import BACKLOG_RECORDS, Backlog
from streams.config import kafka_options
from streams.pace import Pace
from streams.topics import full_name

FETCH_BYTES = 2 * 1024 * 1024
GATHERED_BYTES = 8 * 1024 * 1024
"""What lanes fetch of a partition at once that let messages gather: fewer bytes would make batches of them again."""
PREFETCH_BACKOFF_SECONDS = 0.02
"""How long a partition's waiting records keep others from being fetched."""
GATHER_SECONDS = 0.1
"""How often a lane that waits for others looks whether they have caught up."""

Offsets = Mapping[str, int]
"""Topic → the next offset to read, of one partition."""


class Fetcher:
    """A lane's consumer. While `paused` (empty: it is not) facts are left where they are, messages are not."""

    def __init__(self, lane: Lane, settings: Settings, backlog: Backlog, pace: Pace) -> None:
        self.paused = ""
        self.topics = (*lane.topics, lane.internal)
        self._lane = lane
        self._settings = settings
        self._backlog = backlog
        self._pace = pace
        names = list(LANES)
        self._upstream = names[: names.index(lane.name)]
        self._topic_of = {full_name(settings, topic): topic for topic in self.topics}
        self._behind: set[int] = set()
        self._waiting: set[asyncio.Task[Any] | None] = set()
        self.consumer = AIOKafkaConsumer(
            **kafka_options(settings),
            group_id=f"{settings.topic_prefix}touchline-{settings.tables_of(lane.name)}",
            group_instance_id=f"{settings.lanes.instance}-{lane.name}" if settings.lanes.instance else None,
            session_timeout_ms=int(settings.kafka.session_timeout_seconds * 1000),
            heartbeat_interval_ms=1000,
            partition_assignment_strategy=(RangePartitionAssignor,),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=GATHERED_BYTES if self._upstream else FETCH_BYTES,
            fetch_max_wait_ms=settings.lanes.fetch_wait_ms,
        )

    async def start(self, listener: ConsumerRebalanceListener) -> None:
        """Connect and join the lane's group, which tells the listener who has which partitions."""
        await self.consumer.start()
        if fetcher := getattr(self.consumer, "_fetcher", None):
            # aiokafka has no options for these.
            fetcher._prefetch_backoff = PREFETCH_BACKOFF_SECONDS
            fetcher._records = _Fetched()
        self.consumer.subscribe(list(self._topic_of), listener=listener)

    async def stop(self) -> None:
        """Leave the group."""
        await self.consumer.stop()

    async def commit_offsets(self, of_partitions: Mapping[int, Offsets]) -> None:
        """Tell Kafka too where the partitions stand, so that ordinary lag tools work."""
        places = {
            self._place(topic, partition): offset
            for partition, offsets in of_partitions.items()
            for topic, offset in offsets.items()
        }
        mine = {place: offset for place, offset in places.items() if place in self.consumer.assignment()}
        with contextlib.suppress(KafkaError):
            if mine:
                await self.consumer.commit(mine)

    def seek(self, partition: int, offsets: Offsets) -> None:
        """Read on from these offsets; what was never read, from its beginning."""
        for topic in self.topics:
            where = self._place(topic, partition)
            if where in self.consumer.assignment():
                self.consumer.seek(where, offsets.get(topic, 0))

    def _place(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(full_name(self._settings, topic), partition)

    def is_waiting(self, task: asyncio.Task[Any]) -> bool:
        """Does the task wait for records, with nothing under way?"""
        return task in self._waiting

    async def fetch(self, partition: int, offsets: Offsets) -> dict[str, list[Any]]:
        """The next records by topic, within a moment; `offsets` are those committed."""
        task = asyncio.current_task()
        self._waiting.add(task)
        try:
            has_waited = await self._gather(partition)
            polled = await self._poll(partition)
            if has_waited:  # what the consumer had fetched before the wait is little of what has gathered
                for place, records in (await self._poll(partition)).items():
                    polled.setdefault(place, []).extend(records)
        finally:
            self._waiting.discard(task)
        self._note_backlog(partition, polled, offsets)
        return {self._topic_of[place.topic]: records for place, records in polled.items() if records}

    async def _poll(self, partition: int) -> dict[TopicPartition, list[Any]]:
        """What the consumer has of the partition, or gets within a moment."""
        topics = (self._lane.internal,) if self.paused else self.topics
        places = [self._place(topic, partition) for topic in topics]
        polled: dict[TopicPartition, list[Any]]
        polled = await self.consumer.getmany(*places, timeout_ms=200, max_records=self._pace.records)
        return polled

    async def _gather(self, partition: int) -> bool:
        """Let records gather before they are fetched; did this wait for the lanes before it, which catch up?"""
        if partition in self._behind:
            await asyncio.sleep(0.0)
            return False
        await asyncio.sleep(self._settings.lanes.linger_ms / 1000)
        begun = time.perf_counter()
        has_waited = False
        while not self.paused and self._backlog.is_worth(time.perf_counter() - begun, self._upstream):
            self._backlog.expect(self._lane.name, partition)
            await asyncio.sleep(GATHER_SECONDS)
            has_waited = True
        return has_waited

    def _note_backlog(self, partition: int, polled: Mapping[TopicPartition, list[Any]], offsets: Offsets) -> None:
        """Note what is polled, and what waits in Kafka beyond it."""
        beyond: dict[str, int] = {}
        undone: dict[str, int] = {}
        for topic in self.topics:
            place = self._place(topic, partition)
            records = polled.get(place, [])
            beyond[topic] = self._beyond(place, records[-1].offset + 1 if records else offsets.get(topic, 0))
            undone[topic] = beyond[topic] + len(records)
        self._backlog.note(self._lane.name, partition, sum(undone.values()), undone[self._lane.internal])
        is_behind = beyond[self._lane.internal] > 0 or sum(beyond.values()) >= BACKLOG_RECORDS
        (self._behind.add if is_behind else self._behind.discard)(partition)

    def _beyond(self, place: TopicPartition, offset: int) -> int:
        """How many records from the offset on the consumer knows to lie in Kafka."""
        if place not in self.consumer.assignment():
            return 0
        return max((self.consumer.highwater(place) or 0) - offset, 0)


class _Fetched(OrderedDict[TopicPartition, Any]):
    """What a consumer fetched and has not handed out; records stay as aiokafka's C code decoded them.

    Otherwise it copies each into an object of eleven fields, at twice the cost of decoding it.
    """

    def __setitem__(self, place: TopicPartition, fetched: Any) -> None:
        if (records := getattr(fetched, "_partition_records", None)) is not None:
            records._consumer_record = _as_decoded
        super().__setitem__(place, fetched)


def _as_decoded(place: TopicPartition, record: Any) -> Any:
    return record
