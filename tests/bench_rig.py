"""What the bench measures on: Kafka and Redis in a temporary folder, workers as processes.

Every measurement begins with an empty Redis and topics of its own.
"""

import asyncio
import os
import sys
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import msgspec
import psutil
import redis.asyncio

from models.lanes import LANES
from models.settings import Kafka, Redis, Settings
from streams import children, embedded, standing
from streams.config import redis_client
from streams.standing import LanePartition, ReadEnds, Standing
from streams.tables import Book
from streams.topics import INTERNAL, OUTSIDE, create_topics

ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 40.0
FAR_POLL_SECONDS = 0.25
NEAR_POLL_SECONDS = 0.01
NEAR = 0.03
"""The share of facts still to come from which on the lanes are watched closely."""


class Figure(NamedTuple):
    """One measured thing: a value for each run, and what was asked for."""

    what: str
    values: list[float]
    unit: str
    wanted: str = ""
    meets: Callable[[float], bool] | None = None

    @property
    def typical(self) -> float:
        """The median run."""
        return median(self.values)

    @property
    def verdict(self) -> str:
        """Whether the median run is what was asked for; empty when nothing was."""
        if self.meets is None:
            return ""
        return "yes" if self.meets(self.typical) else "**no**"


class Rig:
    """The servers of one bench run."""

    def __init__(self, folder: Path, kafka: embedded.Server, redis_server: embedded.Server) -> None:
        self.folder = folder
        self.kafka = kafka
        self.redis_server = redis_server
        self._made = 0

    @asynccontextmanager
    async def ground(self, name: str) -> AsyncIterator["Ground"]:
        """Topics that nothing was written to, and an empty Redis."""
        self._made += 1
        settings = Settings(
            kafka=Kafka(bootstrap=self.kafka.address),
            redis=Redis(url=self.redis_server.address),
            topic_prefix=f"{name}-{self._made}-",
        )
        async with redis_client(settings) as connected:
            await connected.flushall()
            await create_topics(settings)
            yield Ground(self, settings, connected)


@asynccontextmanager
async def rig(folder: Path) -> AsyncIterator[Rig]:
    """Kafka and Redis for the length of a block."""
    async with embedded.kafka(folder / "kafka") as kafka, embedded.redis(folder / "redis") as redis_server:
        yield Rig(folder, kafka, redis_server)


class Ground:
    """One measurement's topics and tables, and the workers on them."""

    def __init__(self, rig: Rig, settings: Settings, connected: "redis.asyncio.Redis") -> None:
        self.rig = rig
        self.settings = settings
        self.redis: Any = connected

    def role(self, name: str, command: list[str], instance: str = "", more: str = "") -> children.Child:
        """Start a Python process of ours that finds this ground's settings, and more of them, in its environment."""
        file = self.rig.folder / f"{self.settings.topic_prefix}{name}.toml"
        file.write_text(f'topic_prefix = "{self.settings.topic_prefix}"\n{more}')
        environ = os.environ | {
            "PYTHONPATH": os.environ.get("PYTHONPATH") or str(ROOT),
            "TOUCHLINE_CONFIG": str(file),
            "TOUCHLINE_KAFKA": self.settings.kafka.bootstrap,
            "TOUCHLINE_REDIS": self.settings.redis.url,
            "TOUCHLINE_INSTANCE": instance,
        }
        log = self.rig.folder / f"{self.settings.topic_prefix}{name}.log"
        return children.start(name, [sys.executable, *command], log, env=environ, cwd=self.rig.folder)

    async def start_worker(self, instance: str = "bench") -> children.Child:
        """Start a worker; it is not ready yet, and what a former one of this name said is forgotten."""
        await self.redis.delete(f"{standing.WORKER_PREFIX}{instance}")
        return self.role(f"worker-{instance}", ["-m", "streams.cli", "worker"], instance)

    @asynccontextmanager
    async def worker(self, instance: str = "bench") -> AsyncIterator[children.Child]:
        """A worker that has all partitions, for the length of a block."""
        child = await self.start_worker(instance)
        try:
            await self.owned_by(child, instance)
            yield child
        finally:
            await child.stop()

    async def owned_by(self, child: children.Child, instance: str, partitions: int | None = None) -> set[LanePartition]:
        """Wait until the worker says that it has so many lane partitions (None: all); which."""
        wanted = 3 * self.settings.partitions if partitions is None else partitions
        owned: set[LanePartition] = set()

        async def has_them() -> bool:
            nonlocal owned
            owned = await self._owned(instance)
            return len(owned) == wanted

        await children.ready(child, has_them, READY_SECONDS)
        return owned

    async def _owned(self, instance: str) -> set[LanePartition]:
        """What the worker's last heartbeat says that it has."""
        beats = await standing.heartbeats(self.redis, [f"{standing.WORKER_PREFIX}{instance}"])
        return {
            (lane, partition)
            for beat in beats.values()
            for lane, counters in beat["lanes"].items()
            for partition in counters["partitions"]
        }

    async def first_owned(self, child: children.Child) -> None:
        """Return the moment the worker takes its first partition."""
        keys = [f"{{{lane}:{part}}}:book" for lane in LANES for part in range(self.settings.partitions)]
        async with asyncio.timeout(READY_SECONDS):
            while child.exit_code is None and not await self.redis.exists(*keys):
                await asyncio.sleep(0.005)

    async def books(self) -> dict[LanePartition, Book]:
        """Where every lane partition stands."""
        return (await self.standing()).books

    async def standing(self) -> Standing:
        """Where the lanes stand."""
        return await standing.read_standing(self.redis, self.settings)

    async def all_in_totals(self, worker: children.Child, seconds: float) -> float:
        """Wait until everything produced so far is in the totals; when that was (time.perf_counter).

        The lanes are watched from afar until they are nearly there, so as not to slow them.
        Raises RuntimeError when the worker ended, or, saying what lags, after so many seconds.
        """
        lag = -1
        try:
            async with asyncio.timeout(seconds), standing.ends_reader(self.settings) as ends:
                target = await ends(OUTSIDE)
                total = sum(target.values())
                while lag := sum((await self.standing()).behind(target).values()):
                    check_runs(worker)
                    await asyncio.sleep(NEAR_POLL_SECONDS if lag < NEAR * total else FAR_POLL_SECONDS)
                return await self._standing_still(ends)
        except TimeoutError:
            raise RuntimeError(f"not all in the totals after {seconds:.0f} s: {lag:,} facts not read") from None

    async def _standing_still(self, ends: ReadEnds) -> float:
        """Wait until no message is on its way; when the last one was read."""
        before, moved = await self.standing(), time.perf_counter()
        while True:
            internal = await ends(INTERNAL)
            after, now = await self.standing(), time.perf_counter()
            if not after.same_facts(before):
                moved = now
            elif not any(after.outboxes.values()) and not after.behind(internal):
                return moved
            before = after
            await asyncio.sleep(NEAR_POLL_SECONDS)


def cpu_seconds(pid: int) -> float:
    """CPU time that a process has had: user and system, all threads."""
    threads = Path(f"/proc/{pid}/task")
    if threads.exists():  # nanoseconds; what psutil reads counts in hundredths of a second
        return sum(int((each / "schedstat").read_text().split()[0]) for each in threads.iterdir()) / 1e9
    times = psutil.Process(pid).cpu_times()
    return float(times.user + times.system)


def check_runs(child: children.Child) -> None:
    """Raises RuntimeError, with its last words, when the process has ended."""
    if child.exit_code is not None:
        raise RuntimeError(f"{child.name} ended with exit code {child.exit_code}: {child.log_tail()}")


def last_line(log: Path, wanted: type[Any]) -> Any:
    """What a role that has ended said last, as JSON of this type."""
    return msgspec.json.decode(log.read_text().splitlines()[-1], type=wanted)


def committed_anew(
    before: Mapping[LanePartition, Book], now: Mapping[LanePartition, Book], places: set[LanePartition]
) -> bool:
    """Whether another owner than before has committed to each of these lane partitions."""
    return all(now[place].epoch != before[place].epoch and now[place].commit > before[place].commit for place in places)
