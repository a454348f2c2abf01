"""The way into Kafka for what arrives over HTTP: bounded, idempotent, acknowledged by all replicas.

What Kafka has not acknowledged is held in memory, at most `MOST_BYTES` of it. Beyond that, and
while the oldest of it is older than `STALL_SECONDS`, nothing more is taken: the caller hears
`Unavailable` at once and tells its client to come back.
"""

import asyncio
import logging
import random
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from aiokafka.partitioner import murmur2

from models.errors import Unavailable
from models.settings import Settings
from streams import config

MOST_BYTES = 64 * 1024 * 1024
ACKNOWLEDGE_SECONDS = 8.0
"""A request is answered within this time: clients send again after 10 seconds."""
STALL_SECONDS = 2.0
RECONNECT_SECONDS = 1.0
PROBE_SECONDS = 2.0
STOP_SECONDS = 5.0

_BATCH_BYTES = 1024 * 1024
_REQUEST_BYTES = 16 * 1024 * 1024
_RECORD_OVERHEAD_BYTES = 400

log = logging.getLogger(__name__)


class Record(NamedTuple):
    """What goes into a topic (named without the prefix)."""

    topic: str
    key: bytes | None
    value: bytes


class Delivery:
    """The records of one request on their way.

    `done` gets None once Kafka has answered for every record, or the first error it gave.
    """

    __slots__ = ("done", "missing", "size", "started", "unsent")

    def __init__(self, records: Sequence[Record], started: float, done: asyncio.Future[KafkaError | None]) -> None:
        self.size = sum(len(record.value) + _RECORD_OVERHEAD_BYTES for record in records)
        self.started = started
        self.missing = self.unsent = len(records)
        self.done = done

    def answer(self, error: KafkaError | None) -> None:
        """Tell the one who waits, if anyone still does."""
        if not self.done.done():
            self.done.set_result(error)


class Intake:
    """A producer that is connected again whenever it broke; BadInput when no Kafka is named."""

    def __init__(self, settings: Settings, most_bytes: int = MOST_BYTES) -> None:
        self._options = config.kafka_options(settings)
        self._prefix = settings.topic_prefix
        self._most_bytes = most_bytes
        self._held_bytes = 0
        self._underway: dict[Delivery, None] = {}
        self._producer: AIOKafkaProducer | None = None
        self._broken = asyncio.Event()
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Connect, in the background when Kafka is not there yet."""
        connected = asyncio.Event()
        self._keeper = asyncio.create_task(self._keep_connected(connected))
        await connected.wait()

    async def stop(self) -> None:
        """Let what is underway arrive, for a few seconds at most, and disconnect."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        if self._producer is not None:
            await _retire(self._producer)

    @property
    def held_bytes(self) -> int:
        """How much Kafka has not acknowledged yet."""
        return self._held_bytes

    async def publish(self, records: Sequence[Record]) -> None:
        """Send all records and return once all in-sync replicas have them.

        Raises Unavailable when Kafka is away, too late or the buffer is full. Then the
        records may still arrive: the client's next try has the same message ids.
        """
        if not records:
            return
        producer = self._admit()
        delivery = self._begin(records)
        try:
            async with asyncio.timeout(ACKNOWLEDGE_SECONDS):
                for record in records:
                    await self._send(producer, record, delivery)
                if error := await delivery.done:
                    raise error
        except TimeoutError as error:
            raise Unavailable(f"Kafka has not acknowledged within {ACKNOWLEDGE_SECONDS:g} s") from error
        except KafkaError as error:
            raise Unavailable(f"Kafka has not acknowledged: {error!r}") from error
        finally:
            self._forget_unsent(delivery)

    async def is_ready(self) -> bool:
        """Does a broker answer now?"""
        if self._producer is None or self._is_stalled():
            return False
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                return bool(await self._producer.client.force_metadata_update())
        except (TimeoutError, KafkaError):
            return False

    def _admit(self) -> AIOKafkaProducer:
        if self._producer is None:
            raise Unavailable("Kafka is not connected")
        if self._is_stalled():
            raise Unavailable("Kafka is not answering")
        if self._held_bytes >= self._most_bytes:
            raise Unavailable("too much is waiting for Kafka")
        return self._producer

    def _is_stalled(self) -> bool:
        oldest = next(iter(self._underway), None)
        return oldest is not None and asyncio.get_running_loop().time() - oldest.started > STALL_SECONDS

    def _begin(self, records: Sequence[Record]) -> Delivery:
        loop = asyncio.get_running_loop()
        delivery = Delivery(records, loop.time(), loop.create_future())
        self._held_bytes += delivery.size
        self._underway[delivery] = None
        return delivery

    async def _send(self, producer: AIOKafkaProducer, record: Record, delivery: Delivery) -> None:
        try:
            future = await producer.send(self._prefix + record.topic, record.value, record.key)
        except KafkaError:
            self._broken.set()
            raise
        delivery.unsent -= 1
        future.add_done_callback(partial(self._on_answer, delivery))

    def _on_answer(self, delivery: Delivery, future: asyncio.Future[Any]) -> None:
        error = None if future.cancelled() else future.exception()
        if isinstance(error, KafkaError):
            self._broken.set()
            delivery.answer(error)
        delivery.missing -= 1
        self._end_if_complete(delivery)

    def _forget_unsent(self, delivery: Delivery) -> None:
        delivery.missing -= delivery.unsent
        delivery.unsent = 0
        self._end_if_complete(delivery)

    def _end_if_complete(self, delivery: Delivery) -> None:
        if delivery.missing == 0 and delivery in self._underway:
            del self._underway[delivery]
            self._held_bytes -= delivery.size
            delivery.answer(None)

    async def _keep_connected(self, first_try: asyncio.Event) -> None:
        """Connect; once the producer broke, replace it: its sequence numbers may have a gap."""
        while True:
            self._producer = await self._connect()
            first_try.set()
            if self._producer is None:
                await asyncio.sleep(RECONNECT_SECONDS)
                continue
            await self._broken.wait()
            broken, self._producer = self._producer, None
            self._broken.clear()
            log.warning("the Kafka producer failed and is replaced")
            await _retire(broken)

    async def _connect(self) -> AIOKafkaProducer | None:
        producer = AIOKafkaProducer(
            **self._options,
            acks="all",
            enable_idempotence=True,
            partitioner=partition_of,
            max_batch_size=_BATCH_BYTES,
            max_request_size=_REQUEST_BYTES,
        )
        try:
            await producer.start()
        except Exception as error:  # whatever it is, the door stays open and tries again
            log.warning("Kafka is away: %s", error)
            await _retire(producer)
            return None
        return producer


async def _retire(producer: AIOKafkaProducer) -> None:
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await producer.stop()
    except (TimeoutError, KafkaError) as error:
        log.warning("the Kafka producer did not stop cleanly: %r", error)


@lru_cache(maxsize=65_536)
def _hash(key: bytes) -> int:
    return int(murmur2(key)) & 0x7FFFFFFF


def partition_of(key: bytes | None, partitions: list[int], available: list[int]) -> int:
    """The partition that Kafka's own partitioner chooses, remembered for keys seen before."""
    if key is None:
        return random.choice(available or partitions)
    return partitions[_hash(key) % len(partitions)]
