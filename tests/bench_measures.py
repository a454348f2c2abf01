"""The measurements, one function each: what is done, and which figures come of it."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import count
from statistics import median, quantiles
from typing import Any

from aiokafka import AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient

from models.partitions import partition_of
from models.settings import Settings
from streams import children, kafka_clients, topics
from streams.config import kafka_options
from streams.standing import LanePartition
from tests import bench_facts
from tests.bench_facts import BEGIN_MS, DAY_MS, Arrival, produce
from tests.bench_floors import Pace
from tests.bench_load import Sentinel, Stopwatch, lead_sentinel, load, pulse, won_sentinel
from tests.bench_rig import Figure, Ground, Rig, check_runs, committed_anew, cpu_seconds, last_line

RUNS = 3
FAUST_FACTS = 100_000
VISITORS = 50_000
JOURNEYS = {"1,000": 1_000, "10,000": 10_000}
PEOPLE = 10
TOUCHES_A_BATCH = 50
BATCHES_A_ROUND = 4
TOUCH_ROUNDS = 5
LOAD_A_SECOND = 2_000
LATENCY_SECONDS = 15.0
LATENCY_WARM_SECONDS = 4.0
SENTINEL_SECONDS = 0.05
RESTART_SECONDS = 60.0


@dataclass
class Bench:
    """The rig, how many facts, and the rates that later figures are ratios of."""

    rig: Rig
    facts: int
    tell: Callable[[str], None]
    lane_rates: list[float] = field(default_factory=list)

    @property
    def patience_seconds(self) -> float:
        """How long one run of the lanes may take; and when no other is begun that would end later."""
        return 30.0 + self.facts / 5_000


# --- all three lanes, and their floors ----------------------------------------------------


async def lanes_and_floors(bench: Bench) -> list[Figure]:
    """All facts lie in Kafka; a worker starts on empty tables, again and again; then the floors read the same."""
    async with bench.rig.ground("facts") as ground:
        bench.tell(f"producing {bench.facts:,} facts")
        await produce(ground.settings, bench_facts.arrivals(bench.facts))
        figures = await _lanes(bench, ground)
        bench.tell("decoding alone")
        decoded = [await _floor(ground, "orjson", bench.facts) for _ in range(RUNS)]
        checked = [await _floor(ground, "facts", bench.facts) for _ in range(RUNS)]
    faust = await _faust(bench)
    return [*figures, *_floor_figures(bench, decoded, checked, faust)]


async def _lanes(bench: Bench, ground: Ground) -> list[Figure]:
    """As many runs as there is time for, RUNS at most."""
    spent: dict[str, list[float]] = {"worker": [], "kafka": [], "redis": []}
    took, rest = 0.0, bench.patience_seconds
    while len(bench.lane_rates) < RUNS and took <= rest:
        if bench.lane_rates:
            await _begin_again(ground)
        bench.tell(f"through all lanes, run {len(bench.lane_rates) + 1} of {RUNS}")
        took, cpu = await _through_the_lanes(bench, ground)
        rest -= took
        bench.lane_rates.append(bench.facts / took)
        for who, had in cpu.items():
            spent[who].append(had / bench.facts * 1e6)
    return [
        Figure("facts through all three lanes", bench.lane_rates, "facts/s", "≥ 50,000", lambda got: got >= 50_000),
        Figure("CPU of the worker", spent["worker"], "s a million facts", "≤ 20", lambda got: got <= 20),
        Figure("CPU of Kafka beside it", spent["kafka"], "s a million facts"),
        Figure("CPU of Redis beside it", spent["redis"], "s a million facts"),
    ]


async def _through_the_lanes(bench: Bench, ground: Ground) -> tuple[float, dict[str, float]]:
    """Seconds from the worker's first partition to the last total, and the CPU seconds of each process."""
    child = await ground.start_worker()
    try:
        await ground.first_owned(child)
        begun = time.perf_counter()
        pids = {"worker": child.pid, "kafka": bench.rig.kafka.pid, "redis": bench.rig.redis_server.pid}
        before = {who: cpu_seconds(pid) for who, pid in pids.items()}
        ended = await ground.all_in_totals(child, bench.patience_seconds)
        return ended - begun, {who: cpu_seconds(pid) - before[who] for who, pid in pids.items()}
    finally:
        await child.stop()


async def _begin_again(ground: Ground) -> None:
    """Empty the tables and the internal topics; the facts stay."""
    await ground.redis.flushall()
    names = [topics.full_name(ground.settings, each) for each in (*topics.INTERNAL, topics.DEAD_LETTERS)]
    async with kafka_clients.admin(ground.settings) as kafka:
        await kafka.delete_topics(names)
        await _gone(kafka, names)
    await topics.create_topics(ground.settings)


async def _gone(kafka: AIOKafkaAdminClient, names: Iterable[str]) -> None:
    async with asyncio.timeout(20.0):
        while set(await kafka.list_topics()) & set(names):
            await asyncio.sleep(0.1)


async def _floor(ground: Ground, floor: str, facts: int) -> Pace:
    """Run one floor in a process of its own."""
    child = ground.role(f"floor-{floor}-{time.monotonic_ns()}", ["-m", "tests.bench_floors", floor, str(facts)])
    try:
        async with asyncio.timeout(60.0 + facts / 4_000):
            code = await child.exited()
    finally:
        child.kill()
    if code:
        raise RuntimeError(f"the floor {floor} failed: {child.log_tail()}")
    pace: Pace = last_line(child.log, Pace)
    return pace


async def _faust(bench: Bench) -> list[Pace]:
    """The plain agent, on a tenth of the facts: it is slow, and its rate does not depend on how many there are."""
    facts = min(FAUST_FACTS, bench.facts)
    async with bench.rig.ground("plain") as ground:
        await produce(ground.settings, bench_facts.arrivals(facts))
        paces = []
        for run in range(RUNS):
            bench.tell(f"a plain Faust agent, run {run + 1} of {RUNS}")
            paces.append(await _floor(ground, "faust", facts))
        return paces


def _floor_figures(bench: Bench, decoded: list[Pace], checked: list[Pace], faust: list[Pace]) -> list[Figure]:
    to_decoding, to_faust = ([rate / median(_rates(paces)) for rate in bench.lane_rates] for paces in (decoded, faust))
    return [
        Figure("floor 1: getmany and orjson alone", _rates(decoded), "facts/s"),
        Figure("floor 1: its CPU", _costs(decoded), "s a million facts"),
        Figure("floor 1 with the lanes' own checked decoding", _rates(checked), "facts/s"),
        Figure("floor 1 with the lanes' own checked decoding: its CPU", _costs(checked), "s a million facts"),
        Figure("floor 2: a plain Faust agent, all in memory", _rates(faust), "facts/s"),
        Figure("floor 2: its CPU", _costs(faust), "s a million facts"),
        Figure("the lanes against floor 1", to_decoding, "×"),
        Figure("the lanes against floor 2", to_faust, "×", "≥ 4", lambda got: got >= 4),
    ]


def _rates(paces: Iterable[Pace]) -> list[float]:
    return [pace.facts / pace.seconds for pace in paces]


def _costs(paces: Iterable[Pace]) -> list[float]:
    return [pace.cpu_seconds / pace.facts * 1e6 for pace in paces]


# --- memory ---------------------------------------------------------------------------------


async def memory(bench: Bench) -> list[Figure]:
    """Anonymous visitors with one session of three page views; what Redis holds when the worker has left."""
    values = []
    for run in range(RUNS):
        bench.tell(f"memory of {VISITORS:,} anonymous visitors, run {run + 1} of {RUNS}")
        async with bench.rig.ground("memory") as ground:
            async with ground.worker():
                pass
            before = await used_memory(ground)
            await produce(ground.settings, bench_facts.short_visits(VISITORS))
            async with ground.worker() as worker:
                await ground.all_in_totals(worker, 60.0)
            values.append((await used_memory(ground) - before) / VISITORS)
    return [Figure("Redis for an anonymous visitor", values, "bytes", "≤ 400", lambda got: got <= 400)]


async def used_memory(ground: Ground) -> int:
    """Bytes in use once Redis has let go of what it kept for its clients; the lowest of two seconds."""
    seen = []
    for _ in range(10):
        await asyncio.sleep(0.2)
        seen.append(int((await ground.redis.info("memory"))["used_memory"]))
    return min(seen)


# --- journeys ---------------------------------------------------------------------------------


class Journey:
    """An account with a deal that was won after all its touches, and what further touches cost."""

    def __init__(self, ground: Ground, worker: children.Child, touches: int) -> None:
        self._ground = ground
        self._worker = worker
        self._name = f"journey{touches}"
        self._touches = touches
        self._made = count()
        partition = partition_of(self._account, ground.settings.partitions)
        self._parts = f"{{accounts:{partition}}}:p:account:{self._account}"

    @property
    def _account(self) -> str:
        return f"{self._name}.com"

    async def build(self) -> None:
        """Forty days of touches, then a deal that is won a day later."""
        step = 40 * DAY_MS // self._touches
        await self._produce(self._call(BEGIN_MS, step) for _ in range(self._touches))
        deals = ((stage, BEGIN_MS + day * DAY_MS) for stage, day in (("new", 10), ("closed_won", 41)))
        changes = (bench_facts.deal_change(self._name, self._account, stage, at, 1_000) for stage, at in deals)
        await self._produce(changes)
        await self._ground.all_in_totals(self._worker, 60.0)

    async def new_touches(self) -> float:
        """CPU seconds of the worker for a touch after the win, in batches that wait for each other."""
        return await self._cost(BEGIN_MS + 50 * DAY_MS, BATCHES_A_ROUND, TOUCHES_A_BATCH)

    async def late_touches(self) -> float:
        """The same for a touch before the win, which the deal's amount is shared out anew for; one by one."""
        return await self._cost(BEGIN_MS + 20 * DAY_MS, 3, 1)

    async def _cost(self, begin_ms: int, batches: int, size: int) -> float:
        before = cpu_seconds(self._worker.pid)
        for _ in range(batches):
            stood = await self._ground.redis.hlen(self._parts)
            await self._produce([self._call(begin_ms, 1_000) for _ in range(size)])
            await self._grown(stood + size)
        return (cpu_seconds(self._worker.pid) - before) / (batches * size)

    async def _grown(self, parts: int) -> None:
        async with asyncio.timeout(30.0):
            while await self._ground.redis.hlen(self._parts) < parts:
                await asyncio.sleep(0.002)

    def _call(self, begin_ms: int, step_ms: int) -> Arrival:
        """A call with the next of the account's people."""
        number = next(self._made)
        at = begin_ms + number * step_ms
        return bench_facts.call(f"{self._name}-{number}", f"p{number % PEOPLE}@{self._account}", at)

    async def _produce(self, facts: Iterable[Arrival]) -> None:
        await produce(self._ground.settings, facts)


async def touches(bench: Bench) -> list[Figure]:
    """Touches after the win, then before it, in turn for a short and a long journey."""
    new: dict[str, list[float]] = {name: [] for name in JOURNEYS}
    late: dict[str, list[float]] = {name: [] for name in JOURNEYS}
    async with bench.rig.ground("touches") as ground, ground.worker() as worker:
        journeys = {name: Journey(ground, worker, size) for name, size in JOURNEYS.items()}
        for name, journey in journeys.items():
            bench.tell(f"an account with {name} touches")
            await journey.build()
        await asyncio.gather(*(journey.new_touches() for journey in journeys.values()))
        for _ in range(TOUCH_ROUNDS):
            for name, journey in journeys.items():
                new[name].append(await journey.new_touches() * 1e3)
        for _ in range(TOUCH_ROUNDS):
            for name, journey in journeys.items():
                late[name].append(await journey.late_touches() * 1e3)
    growth = [long / short for short, long in zip(*new.values(), strict=True)]
    return [
        *(Figure(f"a touch in a journey of {name}: CPU of the worker", new[name], "ms") for name in JOURNEYS),
        Figure("a touch in the long journey against one in the short", growth, "×", "≤ 1.25", lambda got: got <= 1.25),
        *(Figure(f"a late touch, shares of a won deal with {name} anew", late[name], "ms") for name in JOURNEYS),
    ]


# --- kill -9 ----------------------------------------------------------------------------------


async def restart(bench: Bench) -> list[Figure]:
    """kill -9 under load: until every lane partition was committed to by the next owner."""
    again, over = [], []
    async with bench.rig.ground("restart") as ground, _under_load(ground):
        for run in range(RUNS):
            bench.tell(f"kill -9 and start again, run {run + 1} of {RUNS}")
            again.append(await _restarted(ground))
        for run in range(RUNS):
            bench.tell(f"kill -9 beside another worker, run {run + 1} of {RUNS}")
            over.append(await _taken_over(ground, f"run{run}"))
    return [
        Figure("kill -9 and started at once: all partitions commit again", again, "s", "≤ 5", lambda got: got <= 5),
        Figure("kill -9 beside another: its partitions commit again", over, "s", "≤ 15", lambda got: got <= 15),
    ]


@asynccontextmanager
async def _under_load(ground: Ground) -> AsyncIterator[None]:
    """A load in which every partition of every lane has something to do."""
    async with load(ground.settings, pulse(ground.settings.partitions, every=9), LOAD_A_SECOND):
        yield


async def _restarted(ground: Ground) -> float:
    async with ground.worker() as worker:
        places = set(await ground.books())
        worker.kill()
        killed, before = time.perf_counter(), await ground.books()
        async with _started(ground, "bench") as owner:
            await _committed_by(owner, ground, before, places)
            return time.perf_counter() - killed


async def _taken_over(ground: Ground, name: str) -> float:
    """Two workers share the partitions; one is killed."""
    half = 3 * ground.settings.partitions // 2
    async with _started(ground, f"a-{name}") as victim, _started(ground, f"b-{name}") as other:
        places = await ground.owned_by(victim, f"a-{name}", half)
        await ground.owned_by(other, f"b-{name}", half)
        victim.kill()
        killed, before = time.perf_counter(), await ground.books()
        await _committed_by(other, ground, before, places)
        return time.perf_counter() - killed


@asynccontextmanager
async def _started(ground: Ground, instance: str) -> AsyncIterator[children.Child]:
    child = await ground.start_worker(instance)
    try:
        yield child
    finally:
        await child.stop()


async def _committed_by(
    owner: children.Child, ground: Ground, before: dict[LanePartition, Any], places: set[LanePartition]
) -> None:
    """Wait until this worker has committed to each of these; RuntimeError when it takes too long, or ended."""
    give_up = time.monotonic() + RESTART_SECONDS
    while not committed_anew(before, now := await ground.books(), places):
        check_runs(owner)
        if time.monotonic() > give_up:
            late = [place for place in sorted(places) if not committed_anew(before, now, {place})]
            raise RuntimeError(f"no commit within {RESTART_SECONDS:.0f} s to {late}: {owner.log_tail()}")
        await asyncio.sleep(0.02)


# --- latency ----------------------------------------------------------------------------------


async def latency(bench: Bench) -> list[Figure]:
    """Sentinels among 2,000 facts a second, from their sending to their total in Redis."""
    leads: list[list[float]] = []
    wins: list[list[float]] = []
    busy: list[float] = []
    async with bench.rig.ground("latency") as ground, ground.worker() as worker:
        settings = ground.settings
        async with (
            load(settings, bench_facts.endless(), LOAD_A_SECOND),
            AIOKafkaProducer(**kafka_options(settings), linger_ms=0) as kafka,
        ):
            await asyncio.sleep(LATENCY_WARM_SECONDS)
            for run in range(RUNS):
                bench.tell(f"latency at {LOAD_A_SECOND:,} facts/s, run {run + 1} of {RUNS}")
                begun, had = time.perf_counter(), cpu_seconds(worker.pid)
                for made, of in ((lead_sentinel, leads), (won_sentinel, wins)):
                    half = _sentinels(made, run, settings)
                    of.append(await Stopwatch(settings, ground.redis, kafka).run(half, SENTINEL_SECONDS))
                busy.append(100 * (cpu_seconds(worker.pid) - had) / (time.perf_counter() - begun))
    return [
        *_percentiles("a lead, through three lanes", leads),
        *_percentiles("a won deal, through two lanes", wins),
        Figure(f"the worker's core at {LOAD_A_SECOND:,} facts/s", busy, "% busy"),
    ]


def _sentinels(make: Callable[[int, int], Sentinel], run: int, settings: Settings) -> list[Sentinel]:
    many = round(LATENCY_SECONDS / 2 / SENTINEL_SECONDS)
    return [make(run * many + number, settings.partitions) for number in range(many)]


def _percentiles(what: str, runs: list[list[float]]) -> list[Figure]:
    cuts = [quantiles(seconds, n=100, method="inclusive") for seconds in runs]
    return [
        Figure(f"{what}: median", [cut[49] * 1e3 for cut in cuts], "ms"),
        Figure(f"{what}: 99th percentile", [cut[98] * 1e3 for cut in cuts], "ms", "< 300", lambda got: got < 300),
    ]


MEASUREMENTS: dict[str, Callable[[Bench], Awaitable[list[Figure]]]] = {
    "lanes": lanes_and_floors,
    "memory": memory,
    "touches": touches,
    "restart": restart,
    "latency": latency,
}
LIMIT_SECONDS = {"lanes": 540.0, "memory": 120.0, "touches": 90.0, "restart": 150.0, "latency": 90.0}
"""What each may take at the default size; it is given up then, and the next begins."""
