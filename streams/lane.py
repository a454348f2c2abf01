"""A lane: reads batches of its partitions, steps, commits, publishes. Exactly once.

    read ─▶ load ─▶ step (pure, models.lanes) ─▶ commit in Redis ─▶ publish to Kafka

State, totals, input offsets and outgoing messages are committed in one Lua call, on the
condition that nobody else has taken the partition since. What was committed is
published in order and under consecutive numbers; a receiver takes the next number of
each sender and no other, so that a message counts once however often it is sent.
"""

import asyncio
import contextlib
import logging
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.coordinator.assignors.range import RangePartitionAssignor
from aiokafka.errors import KafkaError

from models import lanes
from models.alerting import finished
from models.alerts import encode
from models.errors import Fenced
from models.lanes import AnyEntity, Batch, Item, Lane, Refusal
from models.partitions import partition_of
from models.reports import Message, Wake, pack, unpack_messages
from models.rolls import roll_of
from models.rules import Rules
from models.times import parse_instant
from streams.announcing import UsualStays, alerts_in
from streams.backlog import BACKLOG_RECORDS, Backlog
from streams.config import kafka_options
from streams.dead_letters import dead_letter
from streams.redis_clients import REDIS_AWAY
from streams.tables import MOST_DUE, Tables
from streams.topics import ALERTS, DEAD_LETTERS, full_name

log = logging.getLogger(__name__)

ENVELOPE_BYTES = 512 * 1024
FETCH_BYTES = 2 * 1024 * 1024
GATHERED_BYTES = 8 * 1024 * 1024
"""What lanes fetch of a partition at once that let messages gather: fewer bytes would make batches of them again."""
LARGEST_REQUEST_BYTES = 48 * 1024 * 1024
DRAIN_SECONDS = 6.0
PREFETCH_BACKOFF_SECONDS = 0.02
"""How long a partition's waiting records keep others from being fetched."""
GATHER_SECONDS = 0.1
"""How often a lane that waits for others looks whether they have caught up."""
LONGEST_STEP_SECONDS = 0.2
LOOK_SECONDS = 1.0
HOLD_SECONDS = 2.0
"""How long after the last backlog the lane looks whether time has passed for an account."""
LEAST_RECORDS = 20
HEAVY_BURDEN = 20_000
"""Credits that a step may have to compute: about 10 µs each."""
BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
AWAY = (*REDIS_AWAY, KafkaError)
"""What a server that is away raises: waited for, never fatal."""


class Envelope(msgspec.Struct, frozen=True, array_like=True):
    """Messages of one commit for one partition; `number` counts the pair's envelopes from 1."""

    run: int
    lane: str
    partition: int
    number: int
    messages: msgspec.Raw


class Outgoing(msgspec.Struct, frozen=True, array_like=True):
    """An entry of the outbox: what goes to which partition of which topic."""

    topic: str
    partition: int
    value: bytes


_unpack_envelope = msgspec.msgpack.Decoder(Envelope).decode
_unpack_outgoing = msgspec.msgpack.Decoder(Outgoing).decode


class Intake(NamedTuple):
    """A batch as read: its items, refusals, the next offsets and the numbers heard."""

    items: list[Item]
    forwards: list[Message]
    refusals: list[Refusal]
    offsets: dict[str, int]
    seen: dict[str, int]
    facts: int
    records: int


class Counters(msgspec.Struct):
    """What a lane did since its worker began; read by `report lanes` and /metrics."""

    facts: int = 0
    messages: int = 0
    batches: int = 0
    refused: int = 0
    retries: int = 0
    step_seconds: float = 0.0
    commit_seconds: float = 0.0


class LaneService:
    """One lane on one worker: every partition it was given runs in a task of its own."""

    def __init__(
        self,
        lane: Lane,
        rules: Rules,
        redis: Any,
        backlog: Backlog | None = None,
        clock: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self.lane = lane
        self.rules = rules
        self.settings = rules.settings
        self.counters = Counters()
        self.paused = ""
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._backlog = backlog or Backlog()
        self._clock = clock
        self._usuals = UsualStays(redis, self.settings)
        self._looks_at: dict[int, float] = {}
        self._behind: set[int] = set()
        names = list(lanes.LANES)
        self._upstream = names[: names.index(lane.name)]
        self._heavy_step = asyncio.Lock()
        self._fetching: set[asyncio.Task[Any] | None] = set()
        self._most_records = self.settings.lanes.batch_facts
        self._redis = redis
        self._build = lanes.builder(rules)
        self._topics = {full_name(self.settings, topic): topic for topic in self.topics}
        self._tables: dict[int, Tables] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._can_publish = False
        self.consumer = AIOKafkaConsumer(
            **kafka_options(self.settings),
            group_id=f"{self.settings.topic_prefix}touchline-{self.settings.tables_of(lane.name)}",
            group_instance_id=f"{self.settings.lanes.instance}-{lane.name}" if self.settings.lanes.instance else None,
            session_timeout_ms=int(self.settings.kafka.session_timeout_seconds * 1000),
            heartbeat_interval_ms=1000,
            partition_assignment_strategy=(RangePartitionAssignor,),
            auto_offset_reset="earliest",
            enable_auto_commit=False,
            max_partition_fetch_bytes=GATHERED_BYTES if self._upstream else FETCH_BYTES,
            fetch_max_wait_ms=self.settings.lanes.fetch_wait_ms,
        )
        self.producer = AIOKafkaProducer(
            **kafka_options(self.settings),
            enable_idempotence=True,
            linger_ms=0,
            max_request_size=LARGEST_REQUEST_BYTES,
        )

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics the lane reads, the internal one last."""
        return (*self.lane.topics, self.lane.internal)

    @property
    def partitions(self) -> list[int]:
        """The partitions this worker has now."""
        return sorted(self._tasks)

    async def start(self) -> None:
        """Connect, and join the lane's group; to be called again when Kafka was away."""
        if not self._can_publish:
            await self.producer.start()
            self._can_publish = True
        await self.consumer.start()
        if fetcher := getattr(self.consumer, "_fetcher", None):
            # aiokafka has no options for these.
            fetcher._prefetch_backoff = PREFETCH_BACKOFF_SECONDS
            fetcher._records = _Fetched()
        self.consumer.subscribe(list(self._topics), listener=_Rebalance(self))

    async def stop(self) -> None:
        """Finish the batches under way and leave; within DRAIN_SECONDS."""
        await self.release(list(self._tasks))
        with contextlib.suppress(*AWAY):
            await self.consumer.stop()
            await self.producer.stop()

    async def commit_offsets(self) -> None:
        """Tell Kafka too where the lane stands, so that ordinary lag tools work."""
        places = {
            self._place(topic, partition): offset
            for partition in self.partitions
            if partition in self._tables
            for topic, offset in self._tables[partition].book.offsets.items()
        }
        mine = {place: offset for place, offset in places.items() if place in self.consumer.assignment()}
        with contextlib.suppress(KafkaError):
            if mine:
                await self.consumer.commit(mine)

    # --- who owns what --------------------------------------------------------------

    def assign(self, partitions: Iterable[int]) -> None:
        """Begin to work on these partitions."""
        for partition in partitions:
            if partition not in self._tasks:
                self._tables.setdefault(partition, self._new_tables(partition))
                self._tasks[partition] = asyncio.create_task(self._run(partition), name=f"{self.lane.name}:{partition}")
                self._tasks[partition].add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        """A bug must not eat facts: it ends the worker, which begins again from the commit."""
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            self.failed.set_exception(error)

    def _new_tables(self, partition: int) -> Tables:
        share = max(self.settings.lanes.cached_states // self.settings.partitions, 100)
        return Tables(self._redis, self.settings.tables_of(self.lane.name), partition, share)

    async def release(self, partitions: Iterable[int]) -> None:
        """Let the batches under way finish, for a while, and give the partitions up."""
        tasks = {self._tasks.pop(partition): partition for partition in list(partitions) if partition in self._tasks}
        for task in tasks:
            task.stopping = True  # type: ignore[attr-defined]
            if task in self._fetching:  # nothing is under way, and aiokafka would wait for the rebalance
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
                self._tables.pop(tasks[task], None)  # what they hold in memory was never committed

    def _is_released(self) -> bool:
        return getattr(asyncio.current_task(), "stopping", False)

    # --- one partition --------------------------------------------------------------

    async def _run(self, partition: int) -> None:
        """Work on a partition until it is released; begin again after whatever took it away."""
        tables = self._tables[partition]
        failures = 0
        while not self._is_released():
            try:
                await self._own(tables)
                failures = 0
            except Fenced as error:
                log.warning("%s", error)
                await asyncio.sleep(1.0)
            except AWAY as error:
                tables.book.commit = -1
                failures = await self._wait(failures, error)
            finally:
                self._backlog.forget(self.lane.name, partition)

    async def _wait(self, failures: int, error: Exception) -> int:
        """Back off from a server that is away."""
        pause = BACKOFF_SECONDS[min(failures, len(BACKOFF_SECONDS) - 1)]
        self.counters.retries += 1
        if failures == 0:
            log.warning("%s lane waits: %s: %s", self.lane.name, type(error).__name__, error)
        await asyncio.sleep(pause)
        return failures + 1

    async def _own(self, tables: Tables) -> None:
        if not await tables.acquire():
            await asyncio.sleep(0.2)
            return
        published = await self._publish_again(tables.partition, await tables.outbox())
        self._seek(tables)
        tables.begin()
        self._looks_at[tables.partition] = time.perf_counter() + HOLD_SECONDS
        while not self._is_released():
            published = await self._turn(tables, published)

    async def _turn(self, tables: Tables, published: int) -> int:
        """One batch, or a look whether there is any; what it held is let go before the next is fetched."""
        if wakes := await self._wakes(tables):
            published = await self._work(tables, wakes, published)
        if intake := await self._take(tables):
            return await self._work(tables, intake, published)
        return await self._settle(tables, published) if published or self.paused else 0

    async def _take(self, tables: Tables) -> Intake | None:
        """The next facts and messages; None: there are none."""
        records = await self._fetch(tables.partition)
        return self._read(tables, records) if records else None

    def _seek(self, tables: Tables) -> None:
        """Read on from what is committed; what was never read, from its beginning."""
        for topic in self.topics:
            where = self._place(topic, tables.partition)
            if where in self.consumer.assignment():
                self.consumer.seek(where, tables.book.offsets.get(topic, 0))

    def _place(self, topic: str, partition: int) -> TopicPartition:
        return TopicPartition(full_name(self.settings, topic), partition)

    async def _fetch(self, partition: int) -> dict[str, list[Any]]:
        """The next records by topic, within a moment; of internal topics only, while paused."""
        task = asyncio.current_task()
        self._fetching.add(task)
        try:
            has_waited = await self._gather(partition)
            polled = await self._poll(partition)
            if has_waited:  # what the consumer had fetched before the wait is little of what has gathered
                for place, records in (await self._poll(partition)).items():
                    polled.setdefault(place, []).extend(records)
        finally:
            self._fetching.discard(task)
        self._note_backlog(partition, polled)
        return {self._topics[place.topic]: records for place, records in polled.items() if records}

    async def _poll(self, partition: int) -> dict[TopicPartition, list[Any]]:
        """What the consumer has of the partition, or gets within a moment."""
        topics = (self.lane.internal,) if self.paused else self.topics
        places = [self._place(topic, partition) for topic in topics]
        polled: dict[TopicPartition, list[Any]]
        polled = await self.consumer.getmany(*places, timeout_ms=200, max_records=self._most_records)
        return polled

    async def _gather(self, partition: int) -> bool:
        """Let records gather before they are fetched; did this wait for the lanes before it, which catch up?"""
        if partition in self._behind:
            await asyncio.sleep(0.0)
            return False
        await asyncio.sleep(self.settings.lanes.linger_ms / 1000)
        begun = time.perf_counter()
        has_waited = False
        while not self.paused and self._backlog.is_worth(time.perf_counter() - begun, self._upstream):
            self._backlog.expect(self.lane.name, partition)
            await asyncio.sleep(GATHER_SECONDS)
            has_waited = True
        return has_waited

    def _note_backlog(self, partition: int, polled: Mapping[TopicPartition, list[Any]]) -> None:
        """Note what is polled, and what waits in Kafka beyond it."""
        places = {topic: self._place(topic, partition) for topic in self.topics}
        waiting = {topic: self._waiting(topic, place, polled) for topic, place in places.items()}
        undone = {topic: waiting[topic] + len(polled.get(place, ())) for topic, place in places.items()}
        self._backlog.note(self.lane.name, partition, sum(undone.values()), undone[self.lane.internal])
        is_behind = waiting[self.lane.internal] > 0 or sum(waiting.values()) >= BACKLOG_RECORDS
        (self._behind.add if is_behind else self._behind.discard)(partition)

    def _waiting(self, topic: str, place: TopicPartition, polled: Mapping[TopicPartition, list[Any]]) -> int:
        """How many records the consumer knows to lie in Kafka beyond those polled."""
        if place not in self.consumer.assignment():
            return 0
        taken = self._tables[place.partition].book.offsets.get(topic, 0)
        upto = polled[place][-1].offset + 1 if place in polled else taken
        return max((self.consumer.highwater(place) or 0) - upto, 0)

    def _pace(self, records: int, seconds: float) -> None:
        """Take fewer records at once where each costs more, so that no step holds the worker up for long."""
        if records:
            affordable = int(LONGEST_STEP_SECONDS / max(seconds / records, 1e-6))
            self._most_records = min(max(affordable, LEAST_RECORDS), self.settings.lanes.batch_facts)

    async def _settle(self, tables: Tables, published: int) -> int:
        """Nothing to do: put down what is published, and that the lane stands still if it shall."""
        tables.trim_outbox(published)
        if self.paused:
            tables.put_book({"paused": self.paused})
        await tables.commit()
        return 0

    async def _wakes(self, tables: Tables) -> Intake | None:
        """What wakes the accounts to which something has happened by itself; None: there are none.

        Nobody is looked for while facts wait that may have prevented it: a lane of this
        worker catches up, or the intake is paused.
        """
        now = time.perf_counter()
        is_behind = self._backlog.was_within(HOLD_SECONDS)
        if not self.lane.keeps_time or self.paused or is_behind or now < self._looks_at[tables.partition]:
            return None
        clock = self._clock()
        due = await tables.due(clock)
        if len(due) < MOST_DUE:
            self._looks_at[tables.partition] = now + LOOK_SECONDS
        items = [lanes.opened(Wake(f"account:{name}", clock), self.rules) for name in due]
        return Intake(items, [], [], {}, {}, 0, 0) if items else None

    async def _work(self, tables: Tables, intake: Intake, published: int) -> int:
        """One batch: load → step → commit → publish. Returns how many were published."""
        entities = await tables.load(await self._needed(tables, intake), self._build)
        begun = time.perf_counter()
        batch = await self._step(intake, entities)
        intake.items.clear()  # freed while in the caches, which a batch's records alone overflow
        batch.refusals.extend(intake.refusals)
        batch.messages.extend(intake.forwards)
        alerts = await self._alerts(tables, batch)
        outbox = [pack(each) for each in self._outgoing(tables, batch, alerts)]
        stepped = time.perf_counter()
        for name, changes in batch.changes.items():
            tables.put(name, changes)
        await tables.put_totals(batch.totals)
        tables.put_alerts(alerts)
        tables.trim_outbox(published)
        tables.put_outbox(outbox)
        tables.put_book(self._standing(tables, intake))
        await tables.commit()
        self._count(intake, batch, stepped - begun, time.perf_counter() - stepped)
        return await self._publish(outbox)

    async def _needed(self, tables: Tables, intake: Intake) -> set[str]:
        """The entities of a batch; of visitors the roll too, and whoever may have sent what a new verdict speaks of."""
        names = {item.entity for item in intake.items}
        if self.lane.name == "visitors":
            names.add(roll_of(tables.partition, self.settings.partitions))
            if sought := lanes.sought_in(intake.items):
                names |= await tables.holding(sought)
        return names

    async def _step(self, intake: Intake, entities: dict[str, AnyEntity]) -> Batch:
        """The batch's step; in a thread where it will take long, so that heartbeats go on.

        Of those one at a time: what it has done is put down while the next is at work.
        """
        if lanes.burden(entities.values()) > HEAVY_BURDEN:
            async with self._heavy_step:
                return await asyncio.to_thread(lanes.step, intake.items, entities, self.settings.partitions)
        begun = time.perf_counter()
        batch = lanes.step(intake.items, entities, self.settings.partitions)
        if intake.facts:
            self._pace(intake.records, time.perf_counter() - begun)
        return batch

    def _count(self, intake: Intake, batch: Batch, step_seconds: float, commit_seconds: float) -> None:
        self.counters.facts += intake.facts
        self.counters.messages += len(batch.messages)
        self.counters.batches += 1
        self.counters.refused += len(batch.refusals)
        self.counters.step_seconds += step_seconds
        self.counters.commit_seconds += commit_seconds

    def _standing(self, tables: Tables, intake: Intake) -> dict[str, int | str]:
        """The book's fields after this batch."""
        tables.book.offsets.update(intake.offsets)
        tables.book.seen.update(intake.seen)
        fields: dict[str, int | str] = {f"offset:{topic}": offset for topic, offset in intake.offsets.items()}
        fields.update({f"seen:{source}": number for source, number in intake.seen.items()})
        fields.update({f"sent:{place}": number for place, number in tables.book.sent.items()})
        if self.paused:
            fields["paused"] = self.paused
        return fields

    # --- in -------------------------------------------------------------------------

    def _read(self, tables: Tables, records: Mapping[str, list[Any]]) -> Intake:
        """The batch's facts and messages; facts of other partitions are sent on there."""
        offsets = {topic: polled[-1].offset + 1 for topic, polled in records.items()}
        items: list[Item] = []
        refusals: list[Refusal] = []
        facts = 0
        for topic in records.keys() - {self.lane.internal}:
            read, refused = lanes.read(topic, tables.partition, records[topic], self.rules)
            items += read
            refusals += refused
            facts += len(records[topic])
        items, forwards = self._split(tables.partition, items)
        seen = dict(tables.book.seen)
        messages = [
            each
            for record in records.get(self.lane.internal, ())
            for each in self._open(tables.book.run, seen, record.value)
        ]
        return Intake([*items, *messages], forwards, refusals, offsets, seen, facts, facts + len(messages))

    def _split(self, partition: int, read: list[Item]) -> tuple[list[Item], list[Message]]:
        """The facts of this partition, and those of others as messages to there."""
        count = self.settings.partitions
        items = [item for item in read if partition_of(lanes.id_of(item.entity), count) == partition]
        if len(items) == len(read):
            return items, []
        strays = (item for item in read if partition_of(lanes.id_of(item.entity), count) != partition)
        return items, [message for item in strays for message in lanes.forwards(item)]

    def _open(self, run: int, seen: dict[str, int], value: bytes) -> Iterator[Item]:
        """The messages of an envelope, when it is the next of its sender in this run."""
        envelope = _unpack_envelope(value)
        source = f"{envelope.lane}:{envelope.partition}"
        expected = seen.get(source, 0) + 1
        if envelope.run != run or envelope.number < expected:
            return
        if envelope.number > expected:
            log.warning("envelope %d of %s came before %d: it will be sent again", envelope.number, source, expected)
            return
        seen[source] = envelope.number
        for message in unpack_messages(envelope.messages):
            yield lanes.opened(message, self.rules)

    # --- out ------------------------------------------------------------------------

    async def _alerts(self, tables: Tables, batch: Batch) -> list[bytes]:
        """The commit's alerts; what happened before a rebuild was told before it, and previews tell nobody."""
        since = tables.book.alerts_since
        drafts = [each for each in batch.totals.alerts if parse_instant(each.alert.at, "alert.at") > since]
        if self.settings.lanes.preview or not drafts:
            return []
        usuals = await self._usuals.read() if any(each.pipelines for each in drafts) else {}
        return [encode(finished(each, usuals)) for each in drafts]

    def _outgoing(self, tables: Tables, batch: Batch, alerts: Iterable[bytes]) -> Iterator[Outgoing]:
        """The commit's messages as envelopes, one for each partition, its alerts and dead letters."""
        for (lane, partition), messages in self._by_place(batch.messages).items():
            topic = lanes.LANES[lane].internal
            place = f"{topic}:{partition}"
            for some in _portions(messages):
                number = tables.book.sent[place] = tables.book.sent.get(place, 0) + 1
                envelope = Envelope(tables.book.run, self.lane.name, tables.partition, number, msgspec.Raw(some))
                yield Outgoing(topic, partition, pack(envelope))
        for alert in alerts:
            yield Outgoing(ALERTS, tables.partition, alert)
        for refusal in () if self.settings.lanes.preview else batch.refusals:
            yield Outgoing(DEAD_LETTERS, tables.partition, dead_letter(refusal, self.lane.name))

    def _by_place(self, messages: Iterable[Message]) -> dict[tuple[str, int], list[Message]]:
        places: dict[tuple[str, int], list[Message]] = {}
        for message in messages:
            partition = partition_of(lanes.id_of(message.to), self.settings.partitions)
            places.setdefault((lanes.lane_of(message.to), partition), []).append(message)
        return places

    async def _publish(self, entries: list[bytes]) -> int:
        """Publish in order and wait until Kafka has all of it; returns how many."""
        waiting = []
        for entry in entries:
            outgoing = _unpack_outgoing(entry)
            topic = full_name(self.settings, outgoing.topic)
            waiting.append(await self.producer.send(topic, outgoing.value, partition=outgoing.partition))
        for answer in await asyncio.gather(*waiting, return_exceptions=True):
            if isinstance(answer, BaseException):
                raise answer  # only now that none is under way
        return len(entries)

    async def _publish_again(self, partition: int, entries: list[bytes]) -> int:
        """Publish what may not be in Kafka yet; alerts, which nobody numbers, only if they are not."""
        outgoing = [(entry, _unpack_outgoing(entry)) for entry in entries]
        alerts = {each.value for _, each in outgoing if each.topic == ALERTS}
        there = await alerts_in(self.settings, partition, alerts)
        await self._publish([entry for entry, each in outgoing if each.value not in there])
        return len(entries)


def _portions(messages: Sequence[Message]) -> list[bytes]:
    """The messages packed, in portions that fit a Kafka record: halved until they do."""
    packed = pack(messages)
    if len(packed) <= ENVELOPE_BYTES or len(messages) == 1:
        return [packed]
    middle = len(messages) // 2
    return [*_portions(messages[:middle]), *_portions(messages[middle:])]


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


class _Rebalance(ConsumerRebalanceListener):  # type: ignore[misc]
    """Gives partitions up before the group moves them, and takes them afterwards."""

    def __init__(self, service: LaneService) -> None:
        self._service = service

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        await self._service.release({place.partition for place in revoked})

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        by_partition: dict[int, int] = {}
        for place in assigned:
            by_partition[place.partition] = by_partition.get(place.partition, 0) + 1
        whole = [partition for partition, count in by_partition.items() if count == len(self._service.topics)]
        self._service.assign(whole)
