"""What a commit says, and its way from the outbox to Kafka: in order, and only once it is durable in Redis."""

import asyncio
from collections.abc import Iterable, Iterator
from typing import Any

import msgspec
from aiokafka import AIOKafkaProducer

from models.lanes import Batch
from models.reports import pack
from models.settings import Settings
from streams.announcing import alerts_in
from streams.config import kafka_options
from streams.dead_letters import dead_letter
from streams.envelopes import enveloped
from streams.tables import Tables
from streams.topics import ALERTS, DEAD_LETTERS, full_name

LARGEST_REQUEST_BYTES = 48 * 1024 * 1024


class Outgoing(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the outbox: what goes to which partition of which topic."""

    topic: str
    partition: int
    value: bytes


_unpack_outgoing = msgspec.msgpack.Decoder(Outgoing).decode


class Publisher:
    """A lane's producer, and what it is given to send."""

    def __init__(self, lane: str, settings: Settings) -> None:
        self._lane = lane
        self._settings = settings
        self._is_started = False
        self._producer = AIOKafkaProducer(
            **kafka_options(settings),
            enable_idempotence=True,
            linger_ms=0,
            max_request_size=LARGEST_REQUEST_BYTES,
        )

    async def start(self) -> None:
        """Connect, unless it is done."""
        if not self._is_started:
            await self._producer.start()
            self._is_started = True

    async def stop(self) -> None:
        """Disconnect."""
        await self._producer.stop()

    def entries(self, tables: Tables, batch: Batch, alerts: Iterable[bytes]) -> list[bytes]:
        """The outbox of a commit: its messages in envelopes, its alerts and dead letters."""
        return [pack(each) for each in self._outgoing(tables, batch, alerts)]

    def _outgoing(self, tables: Tables, batch: Batch, alerts: Iterable[bytes]) -> Iterator[Outgoing]:
        sender = self._lane, tables.partition
        for topic, partition, envelope in enveloped(batch.messages, sender, tables.book, self._settings.partitions):
            yield Outgoing(topic, partition, pack(envelope))
        for alert in alerts:
            yield Outgoing(ALERTS, tables.partition, alert)
        for refusal in () if self._settings.lanes.preview else batch.refusals:
            yield Outgoing(DEAD_LETTERS, tables.partition, dead_letter(refusal, self._lane))

    async def publish(self, entries: list[bytes]) -> int:
        """Publish in order and wait until Kafka has all of it; returns how many."""
        waiting: list[Any] = []
        for entry in entries:
            outgoing = _unpack_outgoing(entry)
            topic = full_name(self._settings, outgoing.topic)
            waiting.append(await self._producer.send(topic, outgoing.value, partition=outgoing.partition))
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer  # only now that none is under way
        return len(entries)

    async def publish_again(self, partition: int, entries: list[bytes]) -> int:
        """Publish what may not be in Kafka yet; alerts, which nobody numbers, only if they are not."""
        outgoing = [(entry, _unpack_outgoing(entry)) for entry in entries]
        alerts = {each.value for _, each in outgoing if each.topic == ALERTS}
        there = await alerts_in(self._settings, partition, alerts)
        await self.publish([entry for entry, each in outgoing if each.value not in there])
        return len(entries)
