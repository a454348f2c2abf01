"""A lane: reads batches of its partitions, steps, commits, publishes. Exactly once.

    take over ─▶ fetch ─▶ read ─▶ load ─▶ step ─▶ commit in Redis ─▶ publish to Kafka

State, totals, input offsets and outgoing messages are committed in one Lua call, on the
condition that nobody else has taken the partition since. What was committed is
published in order and under consecutive numbers (streams.envelopes).
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable
from typing import Any

import msgspec

from models import lanes
from models.errors import Fenced
from models.lanes import Batch, Lane
from models.rules import Rules
from streams.announcing import Announcer
from streams.backlog import Backlog
from streams.committing import Commit, commit, settle
from streams.fetching import Fetcher
from streams.ownership import Ownership
from streams.pace import Pace
from streams.publishing import Publisher
from streams.reaching import AWAY
from streams.reading import Intake, read
from streams.stepping import Stepper, needed
from streams.tables import Tables
from streams.waking import Waker

log = logging.getLogger(__name__)

BACKOFF_SECONDS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Counters(msgspec.Struct):
    """What a lane did since its worker began; read by `report lanes` and /metrics."""

    facts: int = 0
    messages: int = 0
    batches: int = 0
    refused: int = 0
    retries: int = 0
    step_seconds: float = 0.0
    commit_seconds: float = 0.0

    def count(self, intake: Intake, batch: Batch, step_seconds: float, commit_seconds: float) -> None:
        """A batch is done."""
        self.facts += intake.facts
        self.messages += len(batch.messages)
        self.batches += 1
        self.refused += len(batch.refusals)
        self.step_seconds += step_seconds
        self.commit_seconds += commit_seconds


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
        self.counters = Counters()
        self._rules = rules
        self._settings = settings = rules.settings
        self._redis = redis
        self._backlog = backlog or Backlog()
        self._build = lanes.builder(rules)
        pace = Pace(settings.lanes.batch_facts)
        self.fetcher = Fetcher(lane, settings, self._backlog, pace)
        self.ownership = Ownership(self.fetcher, self._new_tables, self._run)
        self._waker = Waker(lane, rules, self._backlog, clock)
        self._stepper = Stepper(settings.partitions, pace)
        self._announcer = Announcer(redis, settings)
        self._publisher = Publisher(lane.name, settings)

    def _new_tables(self, partition: int) -> Tables:
        share = max(self._settings.lanes.cached_states // self._settings.partitions, 100)
        return Tables(self._redis, self._settings.tables_of(self.lane.name), partition, share)

    async def start(self) -> None:
        """Connect, and join the lane's group; to be called again when Kafka was away."""
        await self._publisher.start()
        await self.fetcher.start(self.ownership)

    async def stop(self) -> None:
        """Finish the batches under way and leave; within DRAIN_SECONDS."""
        await self.ownership.release(self.ownership.partitions)
        with contextlib.suppress(*AWAY):
            await self.fetcher.stop()
            await self._publisher.stop()

    async def commit_offsets(self) -> None:
        """Tell Kafka too where the lane stands, so that ordinary lag tools work."""
        tables = [each for each in self.ownership.tables.values() if each.partition in self.ownership.partitions]
        await self.fetcher.commit_offsets({each.partition: each.book.offsets for each in tables})

    # --- one partition --------------------------------------------------------------

    async def _run(self, partition: int) -> None:
        """Work on a partition until it is released; begin again after whatever took it away."""
        tables = self.ownership.tables[partition]
        failures = 0
        while not self.ownership.is_released():
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
        """Take the partition over, and take batches until it is released."""
        if not await tables.acquire():
            await asyncio.sleep(0.2)
            return
        published = await self._publisher.publish_again(tables.partition, await tables.outbox())
        self.fetcher.seek(tables.partition, tables.book.offsets)
        tables.begin()
        self._waker.hold(tables.partition)
        while not self.ownership.is_released():
            published = await self._turn(tables, published)

    async def _turn(self, tables: Tables, published: int) -> int:
        """One batch, or a look whether there is any; what it held is let go before the next is fetched."""
        if wakes := await self._wakes(tables):
            published = await self._work(tables, wakes, published)
        if intake := await self._take(tables):
            return await self._work(tables, intake, published)
        if published or self.fetcher.paused:
            await settle(tables, published, self.fetcher.paused)
        return 0

    async def _wakes(self, tables: Tables) -> Intake | None:
        """Whom to tell the time; nobody while the intake is paused, of what may prevent what has happened."""
        return None if self.fetcher.paused else await self._waker.wakes(tables)

    async def _take(self, tables: Tables) -> Intake | None:
        """The next facts and messages; None: there are none."""
        records = await self.fetcher.fetch(tables.partition, tables.book.offsets)
        return read(tables, records, self.lane.internal, self._rules) if records else None

    async def _work(self, tables: Tables, intake: Intake, published: int) -> int:
        """One batch: load → step → commit → publish. Returns how many were published."""
        names = await needed(tables, intake, self.lane.name, self._settings.partitions)
        entities = await tables.load(names, self._build)
        begun = time.perf_counter()
        batch = await self._stepper.step(intake, entities)
        intake.items.clear()  # freed while in the caches, which a batch's records alone overflow
        batch.refusals.extend(intake.refusals)
        batch.messages.extend(intake.forwards)
        alerts = await self._announcer.announced(batch.totals.alerts, tables.book.alerts_since)
        outbox = self._publisher.entries(tables, batch, alerts)
        stepped = time.perf_counter()
        await commit(tables, Commit(batch, alerts, outbox, published), intake, self.fetcher.paused)
        self.counters.count(intake, batch, stepped - begun, time.perf_counter() - stepped)
        return await self._publisher.publish(outbox)
