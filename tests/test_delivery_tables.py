"""The law of the queues: whatever fails, dies or waits, in whatever order, each alert arrives, and in order."""

import asyncio
from itertools import groupby
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from redis import Redis

from models.destinations import Webhook
from models.dispatch import Answer, Delivery, Item, Send, Settled, Wait, decide, settle, waiting
from models.posting import Parcel
from models.settings import Redis as RedisSettings
from models.settings import Settings
from models.times import MINUTE, SECOND
from streams import config, embedded
from streams.delivery_tables import Claim, DeliveryTables

HOOK = Webhook("https://example.com")
RULES = Delivery(retry_seconds=(1.0, 2.0), then_every_seconds=5.0)
ACCOUNTS = ("a", "b")

Step = tuple[Literal["alert"], str, bool] | tuple[Literal["work"], int, str] | tuple[Literal["pass"], int]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("alert"), st.sampled_from(ACCOUNTS), st.booleans()),
        st.tuples(
            st.just("work"),
            st.sampled_from([200, 200, 200, 500, 410]),
            st.sampled_from(["", "", "before", "after", "late"]),
        ),
        st.tuples(st.just("pass"), st.sampled_from([0, 1, 3, 7, 30])),
    ),
    max_size=40,
)


class World:
    """Queues, a clock, and a receiver that remembers; processes may die before or after it answered, or be late."""

    def __init__(self, redis: Any) -> None:
        self.tables = DeliveryTables(redis, 1.0)
        self.now = 1_000 * MINUTE
        self.sent: dict[str, list[str]] = {account: [] for account in ACCOUNTS}
        self.arrived: dict[str, list[str]] = {account: [] for account in ACCOUNTS}
        self.late: list[tuple[Claim, Settled]] = []

    async def take(self, step: Step) -> None:
        match step:
            case ("alert", account, held):
                await self.hear_the_late()
                await self.alert(account, self.now + 20 * SECOND if held else self.now)
            case ("work", status, dies):
                await self.work(status, dies)
            case ("pass", seconds):
                self.now += seconds * SECOND

    async def hear_the_late(self) -> None:
        """Processes that took too long say what came of their attempts, which disturbs nobody."""
        for claim, settled in self.late:
            await self.tables.settle(claim, settled, self.now)
        self.late.clear()

    async def alert(self, account: str, due: int) -> None:
        """An alert comes in, twice; the second time it is known."""
        id = f"{account}{len(self.sent[account])}"
        item = Item(id, b"{}", "r", self.now, due)
        assert await self.tables.enqueue(id, "2026-04", [Parcel("hook", account, item, due)], [])
        assert not await self.tables.enqueue(id, "2026-04", [Parcel("hook", account, item, due)], [])
        self.sent[account].append(id)

    async def work(self, status: int = 200, dies: str = "") -> bool:
        """One process serves one queue; False when none is due."""
        claim = await self.tables.claim("hook", self.now)
        if isinstance(claim, int):
            return False
        match decide(HOOK, claim.standing, claim.items, self.now, RULES, off=claim.off):
            case Send(items) if dies != "before":
                self.arrived[claim.queue] += [item.alert_id for item in items if status == 200]
                settled = settle(claim.standing, items, Answer(status == 200, status), self.now, RULES, 0.5)
                if dies == "late":
                    self.late.append((claim, settled))
                elif dies != "after":
                    await self.store(claim, settled)
            case Wait(until):
                await self.store(claim, waiting(claim.standing, until))
        return True

    async def store(self, claim: Claim, settled: Settled) -> None:
        off = b"{}" if settled.outcome == "off" else b""
        assert await self.tables.settle(claim, settled, self.now, (), off)

    async def finish(self) -> None:
        """From now on everything works."""
        await self.tables.turn_on("hook", self.now)
        while (await self.tables.waiting(["hook"]))[0].queues:
            self.now += 7 * SECOND
            while await self.work():
                pass


@pytest.fixture(scope="module")
def redis_url(redis_server: embedded.Server) -> str:
    """A Redis that each example empties."""
    return redis_server.address


@given(steps)
@settings(max_examples=60, deadline=None)
def test_every_alert_arrives_in_order_whatever_fails_or_dies(redis_url: str, steps: list[Step]) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.flushall()

    async def lived() -> World:
        async with config.redis_client(Settings(redis=RedisSettings(redis_url))) as redis:
            world = World(redis)
            for step in steps:
                await world.take(step)
            await world.finish()
            kept = {key async for key in redis.scan_iter(match="*")}
            assert kept <= {b"{deliver}:known:2026-04"}
            return world

    world = asyncio.run(lived())
    assert {account: [id for id, _ in groupby(ids)] for account, ids in world.arrived.items()} == world.sent
    if not any(step[0] == "work" and step[2] in ("after", "late") for step in steps):
        assert world.arrived == world.sent


async def test_no_two_processes_have_a_queue_at_once(redis_url: str) -> None:
    with Redis.from_url(redis_url) as redis:
        redis.flushall()
    async with config.redis_client(Settings(redis=RedisSettings(redis_url))) as redis:
        world = World(redis)
        await world.alert("a", world.now)
        claims = await asyncio.gather(*(world.tables.claim("hook", world.now) for _ in range(10)))

        assert sum(not isinstance(claim, int) for claim in claims) == 1
