"""The couriers: one for each destination, who carries what is due and puts down what came of it.

    queue is due ─ claim ─▶ decide ─▶ send ─▶ settle ─ one step ─▶ queue, `deliveries`, dead letters

Each destination has its own courier and its own few attempts at once, so that a receiver that
hangs holds up nobody else. Any number of processes may run couriers: a claim keeps them apart.
"""

import asyncio
import logging
import random
import time
from collections.abc import Sequence
from typing import Any

import msgspec
from mode import Service

from models.destinations import Destination
from models.dispatch import (
    Abandon,
    Answer,
    Item,
    Outcome,
    Send,
    Settled,
    Wait,
    abandoned,
    decide,
    entry,
    resent,
    settle,
    waiting,
)
from models.settings import Settings
from models.times import SECOND, to_text
from streams.dead_letters import undelivered
from streams.delivery_tables import NOTHING_DUE, Claim, DeliveryTables, Record
from streams.reaching import AWAY, until_it_works
from streams.receivers import Receivers
from streams.topics import DEAD_LETTERS, DELIVERIES

LONGEST_WAIT_SECONDS = 1.0
"""Another process may have put something into the queues meanwhile."""
AWAY_SECONDS = 0.5
STOP_SECONDS = 5.0

log = logging.getLogger(__name__)


def now() -> int:
    """Microseconds since 1970."""
    return time.time_ns() // 1000


class Couriers(Service):
    """All couriers of a process."""

    def __init__(self, settings: Settings, tables: DeliveryTables, **options: Any) -> None:
        super().__init__(**options)
        self._settings = settings
        self._rules = settings.delivery
        self._tables = tables
        self._receivers = Receivers(self._rules.timeout_seconds, self._rules.link or settings.web.address)
        self._woken = {name: asyncio.Event() for name in settings.destinations}
        self._underway: set[asyncio.Task[None]] = set()

    def wake(self, destination: str) -> None:
        """Something was put into a queue of the destination."""
        self._woken[destination].set()

    async def on_start(self) -> None:
        for name, destination in self._settings.destinations.items():
            self.add_future(self._serve(name, destination))

    async def on_stop(self) -> None:
        if self._underway:
            await asyncio.wait(self._underway, timeout=STOP_SECONDS)
        await self._receivers.close()

    async def _serve(self, name: str, destination: Destination) -> None:
        """Take one queue after the other, a few at once, for as long as the process lives."""
        slots = asyncio.Semaphore(self._rules.in_flight)
        while not self.should_stop:
            await slots.acquire()
            self._woken[name].clear()
            found = await self._claim(name)
            if isinstance(found, int):
                slots.release()
                await self._rest(name, found)
                continue
            task = asyncio.create_task(self._carry(destination, found))
            self._underway.add(task)
            task.add_done_callback(self._underway.discard)
            task.add_done_callback(lambda _: slots.release())

    async def _claim(self, name: str) -> Claim | int:
        try:
            return await self._tables.claim(name, now())
        except AWAY as error:
            log.warning("waiting for Redis: %s", error)
            await asyncio.sleep(AWAY_SECONDS)
            return 0

    async def _rest(self, name: str, due: int) -> None:
        """Until the next queue is due, or a new item comes, or a little while."""
        seconds = LONGEST_WAIT_SECONDS if due == NOTHING_DUE else (due - now()) / SECOND
        try:
            async with asyncio.timeout(max(0.001, min(seconds, LONGEST_WAIT_SECONDS))):
                await self._woken[name].wait()
        except TimeoutError:
            pass

    async def _carry(self, destination: Destination, claim: Claim) -> None:
        at = now()
        match decide(destination, claim.standing, claim.items, at, self._rules, off=claim.off):
            case Wait(until):
                await self._store(claim, waiting(claim.standing, until))
            case Abandon(items):
                answer = Answer(False, error="the destination was off for too long")
                await self._finish(claim, items, abandoned(claim.standing, items), answer)
            case Send(items):
                await self._attempt(destination, claim, items, at)

    async def _attempt(self, destination: Destination, claim: Claim, items: Sequence[Item], at: int) -> None:
        answer, firing = await self._receivers.send(destination, claim.standing, items, at)
        if not items:
            await self._store(claim, resent(claim.standing, now(), self._rules))
            return
        settled = settle(claim.standing, items, answer, now(), self._rules, random.random(), firing)
        await self._finish(claim, items, settled, answer)

    async def _finish(self, claim: Claim, items: Sequence[Item], settled: Settled, answer: Answer) -> None:
        """Store what came of items, together with what is said of it."""
        records = _records(claim, items, settled, answer)
        off = msgspec.json.encode({"since": to_text(now()), "why": answer.error}) if settled.outcome == "off" else b""
        await self._store(claim, settled, records, off)

    async def _store(self, claim: Claim, settled: Settled, records: Sequence[Record] = (), off: bytes = b"") -> None:
        if not await until_it_works(lambda: self._tables.settle(claim, settled, now(), records, off)):
            log.warning("%s: another process took over the queue of %s", claim.destination, claim.queue)
        self.wake(claim.destination)


def _records(claim: Claim, items: Sequence[Item], settled: Settled, answer: Answer) -> list[Record]:
    """An entry of `deliveries` for each item, and a dead letter for each that was given up."""
    told = [item for item in items if item.matched]
    return [
        *(_entry(claim, item, settled, answer) for item in told),
        *(_letter(claim, item, answer) for item in told if settled.outcome == "dead"),
    ]


def _entry(claim: Claim, item: Item, settled: Settled, answer: Answer) -> Record:
    outcome: Outcome = settled.outcome
    attempt = claim.standing.attempts + (0 if claim.off else 1)
    value = entry(
        item,
        claim.destination,
        outcome,
        now(),
        attempt=attempt,
        status=answer.status,
        next_at=settled.standing.retry_at if outcome == "retry" else None,
        error=answer.error,
    )
    return Record(DELIVERIES, item.alert_id.encode(), value)


def _letter(claim: Claim, item: Item, answer: Answer) -> Record:
    return Record(DEAD_LETTERS, item.alert_id.encode(), undelivered(item, claim.destination, answer))
