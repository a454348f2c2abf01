"""The three lanes on several workers, in one thread, decided by one seed.

    after = simulate(Plan(seed=7, facts=world(random.Random(7), 20)))
    after.books() == recompute(...)

What runs is the product's own `LaneService` and `Tables`; Kafka, its consumer groups and
Redis are simulated here, with everything that may go wrong at every single step: a
worker dies, stands still while others take its partitions and then goes on as though it
still had them, answers get lost after their effect, commands arrive late or twice,
records are sent but never acknowledged, partitions move without anybody being asked.

Time is simulated too: it passes when nobody has anything to do, and now and then before.
"""

import asyncio
import contextlib
import heapq
import random
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from contextvars import Context, ContextVar, copy_context
from dataclasses import dataclass, field, replace
from itertools import count
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import hiredis
import msgspec
from aiokafka import TopicPartition
from aiokafka.errors import IllegalStateError, KafkaConnectionError
from redis.exceptions import ConnectionError as RedisConnectionError

from models import lanes
from models.accounts import Account
from models.counts import Count, Counts, add_counts, without_zero_counts
from models.course import History
from models.decoding import decode
from models.errors import BadInput
from models.facts import key_of
from models.lanes import LANES
from models.partitions import partition_of
from models.people import Person
from models.profiles import NOBODY, Profile
from models.recompute import RawFact as RecordedFact
from models.recompute import recompute
from models.rules import Rules
from models.times import DAY, SECOND
from models.totals import Totals
from models.vectors import pack_vector, unpack_numbers, unpack_vector
from models.visitor_rules import VisitorRules
from models.visitors import Visitor
from streams import announcing as announcing_module
from streams import backlog as backlog_module
from streams import envelopes as envelopes_module
from streams import fetching as fetching_module
from streams import lane as lane_module
from streams import ownership as ownership_module
from streams import publishing as publishing_module
from streams import stepping as stepping_module
from streams import tables as tables_module
from streams import waking as waking_module
from streams.keys import cell_of
from streams.lane import LaneService
from streams.redis_clients import Arguments
from streams.tables import Tables
from streams.topics import DEAD_LETTERS
from streams.totals import counted, waiting_entry
from tests.simulated_warmth import warmth_problems
from tests.worlds import RawFact, rules

MOST_STEPS = 100_000
_DANGER = dict.fromkeys(("before commit", "after commit", "send", "publish", "published"), 8)
"""How many times as likely a worker dies at the points that matter most."""


class Stuck(AssertionError):
    """The lanes never came to rest: something that was committed does not get on."""


@dataclass(frozen=True)
class Plan:
    """One example: the facts, and how much goes wrong. `calm` leaves out all that is not order."""

    seed: int
    facts: Sequence[RawFact]
    variant: int = 0
    calm: bool = False


# --- time and turns ---------------------------------------------------------------------


class Process:
    """What dies or stands still as a whole: a worker, or the world outside."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.is_alive = True
        self.stands_still = False
        self.ready: deque[asyncio.Handle] = deque()
        self.context: Context = copy_context()
        self.context.run(_process.set, self)


_process: ContextVar[Process] = ContextVar("process")


class Loop(asyncio.AbstractEventLoop):
    """An event loop that runs one callback of a process drawn by lot; each keeps its own order."""

    def __init__(self, rng: random.Random) -> None:
        self.processes: list[Process] = []
        self.failures: list[BaseException] = []
        self._rng = rng
        self._now = 0.0
        self._timers: list[tuple[float, int, asyncio.TimerHandle]] = []
        self._number = count()
        self._tasks: list[asyncio.Task[Any]] = []

    def step(self, patience: float) -> bool:
        """Run one callback; False when there is none left. Time passes early with 1 − patience."""
        able = [each for each in self.processes if each.ready and not each.stands_still]
        if not able or self._rng.random() > patience:
            return self._pass_time() or bool(able)
        handle = able[int(self._rng.random() * len(able))].ready.popleft()
        if not handle.cancelled():
            handle._run()
        return True

    def _pass_time(self) -> bool:
        if not self._timers:
            return False
        self._now, _, timer = heapq.heappop(self._timers)
        if not timer.cancelled():
            self._process_of(timer._context).ready.append(timer)  # type: ignore[attr-defined]
        return True

    @staticmethod
    def _process_of(context: Context) -> Process:
        return context[_process]

    def start(self, process: Process, work: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine in a process."""
        return self.create_task(work, context=process.context)

    def end(self) -> None:
        """End whatever is under way, as the end of the world does."""
        for task in self._tasks:
            with contextlib.suppress(RuntimeError):
                task.get_coro().close()

    # what asyncio asks of a loop

    def call_soon(self, callback: Any, *args: Any, context: Context | None = None) -> asyncio.Handle:
        context = context or copy_context()
        handle = asyncio.Handle(callback, args, self, context)
        process = self._process_of(context)
        if process.is_alive:
            process.ready.append(handle)
        return handle

    def call_later(
        self, delay: float, callback: Any, *args: Any, context: Context | None = None
    ) -> asyncio.TimerHandle:
        return self.call_at(self._now + delay, callback, *args, context=context)

    def call_at(self, when: float, callback: Any, *args: Any, context: Context | None = None) -> asyncio.TimerHandle:
        timer = asyncio.TimerHandle(when, callback, args, self, context or copy_context())
        heapq.heappush(self._timers, (when, next(self._number), timer))
        return timer

    def _timer_handle_cancelled(self, handle: asyncio.TimerHandle) -> None:
        """Nothing to count."""

    def create_task(self, coro: Any, *, name: Any = None, context: Context | None = None) -> "asyncio.Task[Any]":
        task = asyncio.Task(coro, loop=self, name=name, context=context)
        self._tasks.append(task)
        return task

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> "asyncio.Future[Any]":  # type: ignore[override]
        """A thread that goes on to its end even when nobody waits for it any more."""
        done = self.create_future()

        def work() -> None:
            result = func(*args)
            if not done.done():
                done.set_result(result)

        self.call_soon(self.call_soon, work)
        return done

    def create_future(self) -> "asyncio.Future[Any]":
        return asyncio.Future(loop=self)

    def time(self) -> float:
        return self._now

    def get_debug(self) -> bool:
        return False

    def is_running(self) -> bool:
        return True

    def is_closed(self) -> bool:
        return False

    def call_exception_handler(self, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if error is not None and not isinstance(error, (KafkaConnectionError, RedisConnectionError)):
            self.failures.append(error)


class _Yield:
    def __await__(self) -> Generator[None, None, None]:
        yield


class Chance:
    """What goes wrong, and when: every answer is drawn from the seed."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self.rng = rng
        self.crashes = 0 if plan.calm else rng.choice((0, 1, 2, 4, 8))
        self.crash = rng.choice((0.002, 0.01, 0.05))
        self.failure = 0.0 if plan.calm else rng.choice((0.0, 0.01, 0.05, 0.15))
        self.failures = 60
        self.patience = 1.0 if plan.calm else rng.choice((1.0, 0.98, 0.9))
        self.crashed_at: Counter[str] = Counter()
        self.kill: Callable[[Process], None] = lambda process: None
        self.freeze = self.kill

    async def turn(self, point: str) -> None:
        """Others may go first; or the process that asks dies here, or stands still for long."""
        if self.crashes and self.rng.random() < self.crash * _DANGER.get(point, 1):
            self.crashes -= 1
            self.crashed_at[point] += 1
            self.rng.choice((self.kill, self.freeze))(_process.get())
            await _Yield()
        for _ in range(int(self.rng.random() * 3)):
            await _Yield()

    def end(self) -> None:
        """Nothing goes wrong any more."""
        self.crashes = self.failures = 0
        self.patience = 1.0

    def fails(self) -> bool:
        """Does the connection break now?"""
        if self.failures and self.rng.random() < self.failure:
            self.failures -= 1
            return True
        return False


# --- Kafka --------------------------------------------------------------------------------


class Stored(NamedTuple):
    """A record as a consumer sees it; `timestamp` in milliseconds."""

    offset: int
    partition: int
    timestamp: int
    value: bytes


class Log:
    """Topics as lists of records by partition."""

    def __init__(self, partitions: int) -> None:
        self._records: defaultdict[str, list[list[Stored]]] = defaultdict(lambda: [[] for _ in range(partitions)])

    def append(self, topic: str, partition: int, value: bytes, recorded_at: int) -> None:
        """Add a record; `recorded_at` in µs."""
        records = self._records[topic][partition]
        records.append(Stored(len(records), partition, recorded_at // 1000, value))

    def read(self, topic: str, partition: int, offset: int, most: int) -> list[Stored]:
        """Records from an offset on."""
        return self._records[topic][partition][offset : offset + most]

    def end(self, topic: str, partition: int) -> int:
        """The offset that the next record gets."""
        return len(self._records[topic][partition])

    def values(self, topic: str) -> list[bytes]:
        """Every value of a topic."""
        return [record.value for records in self._records[topic] for record in records]


class Consumer:
    """What a lane uses of AIOKafkaConsumer: a member of its group, told late what it has."""

    def __init__(self, simulation: "Simulation", group_id: str = "") -> None:
        self._simulation = simulation
        self._chance = simulation.chance
        self.process = _process.get()
        self.group = group_id
        self._listener: Any = None
        self._topics: list[str] = []
        self._positions: dict[TopicPartition, int] = {}
        self._next: list[int] | None = None
        self._moving: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Leave the group."""
        if self.group:
            self._simulation.leave(self)

    def subscribe(self, topics: list[str], listener: Any) -> None:
        self._topics, self._listener = list(topics), listener
        self._simulation.join(self)

    def assignment(self) -> set[TopicPartition]:
        return set(self._positions)

    def assign(self, places: list[TopicPartition]) -> None:
        self._positions = dict.fromkeys(places, 0)

    async def end_offsets(self, places: list[TopicPartition]) -> dict[TopicPartition, int]:
        await self._chance.turn("read")
        return {place: self._simulation.log.end(*place) for place in places}

    async def position(self, place: TopicPartition) -> int:
        return self._positions[place]

    def highwater(self, place: TopicPartition) -> int | None:
        """Where the partition ended when it was last looked at; None: it has not been."""
        return self._chance.rng.choice((None, self._simulation.log.end(*place)))

    def tell(self, partitions: list[int]) -> None:
        """The group has moved: the member hears of it when it gets a turn."""
        self._next = partitions
        if self._moving is None or self._moving.done():
            self._moving = self._simulation.loop.start(self.process, self._move())

    async def _move(self) -> None:
        while self._next is not None:
            await self._chance.turn("rebalance")
            await self._listener.on_partitions_revoked(list(self._positions))
            self._positions = {}
            await self._chance.turn("rebalance")
            given, self._next = self._next, None
            places = [TopicPartition(topic, partition) for topic in self._topics for partition in given or ()]
            self._positions = dict.fromkeys(places, 0)
            await self._listener.on_partitions_assigned(places)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self._positions[place] = offset

    async def commit(self, offsets: Any) -> None:
        await self._chance.turn("commit offsets")

    async def getmany(
        self, *places: TopicPartition, timeout_ms: int, max_records: int = 500
    ) -> dict[TopicPartition, list[Stored]]:
        """Some of what is there, in any order of partitions; nothing after the time-out."""
        await self._chance.turn("read")
        if any(place not in self._positions for place in places):
            raise IllegalStateError("not assigned")
        if self._chance.fails():
            raise KafkaConnectionError("read")
        found = self._take(list(places), max_records)
        if not found:
            await asyncio.sleep(timeout_ms / 1000)
            found = self._take([place for place in places if place in self._positions], max_records)
        return found

    def _take(self, places: list[TopicPartition], most: int) -> dict[TopicPartition, list[Stored]]:
        rng = self._chance.rng
        places = [place for place in places if self._simulation.log.end(*place) > self._positions[place]]
        rng.shuffle(places)
        most = min(most, rng.choice((1, 2, 3, 5, 50)))
        found = {}
        for place in places:
            records = self._simulation.log.read(place.topic, place.partition, self._positions[place], most)
            if records and most:
                found[place] = records
                self._positions[place] += len(records)
                most -= len(records)
        return found


class Producer:
    """What a lane uses of AIOKafkaProducer: in order within a partition, at its own time."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._chance = simulation.chance
        self._process = _process.get()
        self._queues: defaultdict[tuple[str, int], deque[tuple[bytes, asyncio.Future[None]]]] = defaultdict(deque)

    async def start(self) -> None:
        """Nothing to connect to."""

    async def stop(self) -> None:
        """Nothing to close."""

    async def send(self, topic: str, value: bytes, *, partition: int) -> "asyncio.Future[None]":
        await self._chance.turn("send")
        acknowledged = self._simulation.loop.create_future()
        acknowledged.add_done_callback(lambda done: done.cancelled() or done.exception())
        self._queues[topic, partition].append((value, acknowledged))
        self._simulation.loop.start(self._process, self._deliver(topic, partition))
        return acknowledged

    async def _deliver(self, topic: str, partition: int) -> None:
        await self._chance.turn("publish")
        value, acknowledged = self._queues[topic, partition].popleft()
        lost, unheard = self._chance.fails(), self._chance.fails()
        if not lost:
            self._simulation.log.append(topic, partition, value, 0)
            await self._chance.turn("published")
        if acknowledged.done():
            return
        if lost or unheard:
            acknowledged.set_exception(KafkaConnectionError("send"))
        else:
            acknowledged.set_result(None)


# --- Redis --------------------------------------------------------------------------------


class Store:
    """The commands that the tables use, over a dict; values are bytes as in Redis."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.checks_epoch = True

    def run(self, command: str, *arguments: Any) -> Any:
        """One command's effect and answer."""
        texts = [_bytes(each) for each in arguments]
        return getattr(self, f"_{command.lower()}")(texts[0].decode(), *texts[1:])

    def _get(self, key: str) -> bytes | None:
        return self.keys.get(key)

    def _set(self, key: str, value: bytes) -> None:
        self.keys[key] = value

    def _mset(self, *pairs: Any) -> None:
        assert len(pairs) % 2 == 0
        self.keys.update((_text(key), value) for key, value in zip(pairs[::2], pairs[1::2], strict=True))

    def _mget(self, *keys: Any) -> list[bytes | None]:
        return [self.keys.get(_text(key)) for key in keys]

    def _del(self, *keys: Any) -> None:
        for key in keys:
            self.keys.pop(_text(key), None)

    def _hset(self, key: str, *pairs: bytes) -> None:
        assert pairs and len(pairs) % 2 == 0
        self.keys.setdefault(key, {}).update(zip(pairs[::2], pairs[1::2], strict=True))

    def _hdel(self, key: str, *fields: bytes) -> None:
        assert fields
        for each in fields:
            self.keys.get(key, {}).pop(each, None)

    def _hgetall(self, key: str) -> dict[bytes, bytes]:
        return dict(self.keys.get(key, {}))

    def _hmget(self, key: str, *fields: bytes) -> list[bytes | None]:
        assert fields
        return [self.keys.get(key, {}).get(each) for each in fields]

    def _lrange(self, key: str, first: bytes, last: bytes) -> list[bytes]:
        return _between(self.keys.get(key, []), first, last)

    def _ltrim(self, key: str, first: bytes, last: bytes) -> None:
        self.keys[key] = _between(self.keys.get(key, []), first, last)

    def _rpush(self, key: str, *values: bytes) -> None:
        assert values
        self.keys.setdefault(key, []).extend(values)

    def _lpush(self, key: str, *values: bytes) -> None:
        assert values
        self.keys[key] = [*reversed(values), *self.keys.get(key, [])]

    def _sadd(self, key: str, *members: bytes) -> None:
        self.keys.setdefault(key, set()).update(members)

    def _srem(self, key: str, *members: bytes) -> None:
        self.keys.get(key, set()).difference_update(members)

    def _zadd(self, key: str, *pairs: bytes) -> None:
        assert pairs and len(pairs) % 2 == 0
        ranked = self.keys.setdefault(key, {})
        ranked.update((member, float(score)) for score, member in zip(pairs[::2], pairs[1::2], strict=True))

    def _zrem(self, key: str, *members: bytes) -> None:
        assert members
        for each in members:
            self.keys.get(key, {}).pop(each, None)

    def _zrangebyscore(self, key: str, least: bytes, most: bytes, *limit: bytes) -> list[bytes]:
        assert least == b"-inf" and limit[:2] == (b"LIMIT", b"0")
        found = sorted((score, member) for member, score in self.keys.get(key, {}).items() if score <= float(most))
        return [member for _, member in found][: int(limit[2])]

    def script(self, digest: str, key: str, arguments: Sequence[Any]) -> Any:
        """The two scripts of streams.tables, by their digest."""
        scripts = {
            tables_module._DIGESTS[tables_module._COMMIT]: self._commit,
            tables_module._DIGESTS[tables_module._ACQUIRE]: self._acquire,
        }
        return scripts[digest](key, [value for each in arguments for value in _values(each)])

    def _acquire(self, key: str, arguments: list[bytes]) -> list[bytes]:
        book = self.keys.setdefault(key, {})
        if b"rebuilding" in book:
            return []
        book.setdefault(b"run", arguments[0])
        book.setdefault(b"commit", b"0")
        book[b"epoch"] = b"%d" % (int(book.get(b"epoch", b"0")) + 1)
        return [each for pair in book.items() for each in pair]

    def _commit(self, key: str, arguments: list[bytes]) -> bytes:
        book = self.keys[key]
        epoch, now, then, *commands = arguments
        if self.checks_epoch and book[b"epoch"] != epoch:
            return b"fenced"
        if book[b"commit"] == then:
            return b"done"
        if self.checks_epoch and book[b"commit"] != now:
            return b"fenced"
        at = 0
        while at < len(commands):
            many = int(commands[at + 1])
            self.run(commands[at].decode(), *commands[at + 2 : at + 2 + many])
            at += 2 + many
        assert at == len(commands)
        book[b"commit"] = then
        return b"ok"


def _values(argument: Any) -> list[bytes]:
    """The arguments that one of a script's stands for, as Redis would read them."""
    if not isinstance(argument, Arguments):
        return [_bytes(argument)]
    reader = hiredis.Reader()
    reader.feed(b"*%d\r\n%b" % (argument.count, argument.packed))
    values: list[bytes] = reader.gets()
    assert not reader.has_data()
    return values


def _bytes(value: Any) -> bytes:
    if isinstance(value, bytes):
        return value
    assert isinstance(value, str | int) and not isinstance(value, bool), value
    return str(value).encode()


def _text(key: str | bytes) -> str:
    return key.decode() if isinstance(key, bytes) else key


def _between(values: list[bytes], first: bytes, last: bytes) -> list[bytes]:
    assert last == b"-1" or int(last) >= 0
    return values[int(first) :] if last == b"-1" else values[int(first) : int(last) + 1]


class Client:
    """What the tables use of redis.asyncio, over connections that break."""

    def __init__(self, simulation: "Simulation") -> None:
        self._simulation = simulation
        self._chance = simulation.chance
        self._store = simulation.store

    async def _send(self, point: str, effect: Callable[[], Any]) -> Any:
        """One round trip: lost on the way there, done late, done with the answer lost, or done twice."""
        await self._chance.turn(f"before {point}")
        if self._chance.fails():
            if self._chance.rng.random() < 0.5:
                self._simulation.later(effect)
            raise RedisConnectionError(f"before {point}")
        answer = effect()
        if self._chance.fails():
            answer = effect()
        await self._chance.turn(f"after {point}")
        if self._chance.fails():
            raise RedisConnectionError(f"after {point}")
        return answer

    def _command(self, *words: Any) -> Awaitable[Any]:
        return self._send("load", lambda: self._store.run(*words))

    def get(self, key: str) -> Awaitable[Any]:
        return self._command("GET", key)

    def mget(self, keys: list[str]) -> Awaitable[Any]:
        return self._command("MGET", *keys)

    def hmget(self, key: str, fields: list[str]) -> Awaitable[Any]:
        return self._command("HMGET", key, *fields)

    def hgetall(self, key: str) -> Awaitable[Any]:
        return self._command("HGETALL", key)

    def lrange(self, key: str, first: int, last: int) -> Awaitable[Any]:
        return self._command("LRANGE", key, first, last)

    def zrangebyscore(self, key: str, least: str, most: int, start: int, num: int) -> Awaitable[Any]:
        return self._command("ZRANGEBYSCORE", key, least, most, "LIMIT", start, num)

    async def scan_iter(self, match: str, count: int) -> AsyncIterator[bytes]:
        """Keys that begin as asked; a whole turn of scanning is one round trip."""
        assert match.endswith("*")
        keys = await self._send("load", lambda: [key for key in self._store.keys if key.startswith(match[:-1])])
        for key in keys:
            yield key.encode()

    def evalsha(self, digest: str, keys: int, key: str, *arguments: Any) -> Awaitable[Any]:
        assert keys == 1
        point = "commit" if digest == tables_module._DIGESTS[tables_module._COMMIT] else "acquire"
        return self._send(point, lambda: self._store.script(digest, key, arguments))

    def pipeline(self, transaction: bool) -> "Pipeline":
        return Pipeline(self)


class Pipeline:
    """Commands that are read together."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self._commands: list[tuple[Any, ...]] = []

    def execute_command(self, *words: Any) -> None:
        self._commands.append(words)

    def hgetall(self, key: str) -> None:
        self.execute_command("HGETALL", key)

    def hmget(self, key: str, fields: list[str]) -> None:
        self.execute_command("HMGET", key, *fields)

    async def execute(self) -> list[Any]:
        store = self._client._store
        return list(await self._client._send("load", lambda: [store.run(*words) for words in self._commands]))


# --- the whole ------------------------------------------------------------------------------


class Worker:
    """One process with its three lanes."""

    def __init__(self, simulation: "Simulation", number: int) -> None:
        self.process = Process(f"worker {number}")
        self.services: list[LaneService] = []
        self._simulation = simulation
        simulation.loop.processes.append(self.process)
        simulation.loop.start(self.process, self._run())

    async def _run(self) -> None:
        for lane in LANES.values():
            client, clock = Client(self._simulation), self._simulation.clock
            service = LaneService(lane, self._simulation.rules, client, clock=clock)
            self._remember_little(service, client)
            self.services.append(service)
            await service.start()

    def _remember_little(self, service: LaneService, client: "Client") -> None:
        """Tables whose memory is so small that it forgets within a batch, or is large."""
        simulation = self._simulation
        for partition in range(simulation.partitions):
            service.ownership.tables[partition] = Tables(client, service.lane.name, partition, simulation.remembered)


class Simulation:
    """Runs a plan until all facts are in the totals, whatever happens on the way."""

    def __init__(self, plan: Plan) -> None:
        self.rng = rng = random.Random(plan.seed)
        self.chance = Chance(plan, rng)
        self.chance.kill, self.chance.freeze = self.kill, self.freeze
        self.partitions = rng.choice((2, 3))
        self.rules = rules_for(plan.variant, self.partitions)
        self.remembered = rng.choice((1, 3, 1000))
        self.loop = Loop(rng)
        self.log = Log(self.partitions)
        self.store = Store()
        self.outside = Process("outside")
        self.loop.processes.append(self.outside)
        self.workers: list[Worker] = []
        self.steps = 0
        self.events: Counter[str] = Counter()
        self._groups: defaultdict[str, list[Consumer]] = defaultdict(list)
        self._to_come = placed(plan, self.partitions, rng)
        self._calm = plan.calm
        self._hired = count()
        self._most_workers = 1 if plan.calm else rng.choice((1, 2, 3))
        self._now = self.rested_at = 0
        self.froze = False

    def clock(self) -> int:
        """The time of day (µs): the latest record time so far and what has passed since."""
        return self._now + int(self.loop.time() * SECOND)

    # what may happen

    def run(self) -> None:
        """Let everything happen; then let the lanes come to rest."""
        for _ in range(self._most_workers):
            self.hire()
        rate = self.rng.choice((0.01, 0.05))
        least = 0 if self._calm else self.rng.choice((5, 30))
        while self._to_come or self.events.total() < least:
            if self.rng.random() < rate:
                self._happen()
            self._step()
        self.chance.end()
        self._recover()
        self._rest()
        self.rested_at = self.clock()
        self._now += self.rng.choice((1, 5, 12, 40)) * DAY
        self._rest()

    def _rest(self) -> None:
        while not self._is_at_rest():
            for _ in range(40):
                self._step()

    def _happen(self) -> None:
        events: list[Callable[[], None]] = [self._arrive] * 4
        if not self._calm:
            events += [self._freeze, self._thaw, self._move, self._move, self._move]
            events += [self._hire_another, self._pause, self._go_on]
        event = self.rng.choice(events)
        self.events[event.__name__] += 1
        event()

    def _step(self) -> None:
        self.steps += 1
        if self.steps > MOST_STEPS:
            raise Stuck(f"not at rest after {MOST_STEPS} steps")
        if not self.loop.step(self.chance.patience):
            if self._is_at_rest():
                return
            self._recover()
        if self.loop.failures:
            raise self.loop.failures[0]
        for worker in self.workers if self.steps % 16 == 0 else ():
            for service in worker.services:
                if service.ownership.failed.done() and worker.process.is_alive:
                    service.ownership.failed.result()

    def _arrive(self) -> None:
        some = self.rng.choice((1, 3, 10, 100))
        for topic, partition, value, recorded_at in self._to_come[:some]:
            self.log.append(topic, partition, value, recorded_at)
            self._now = max(self._now, recorded_at)
        del self._to_come[:some]

    def _freeze(self) -> None:
        self.freeze(self.rng.choice(self.workers).process)

    def freeze(self, process: Process) -> None:
        """A worker stands still, and its group gives its partitions to others."""
        if process is not self.outside and not process.stands_still:
            process.stands_still = self.froze = True
            self._forget(process)
            self._hire_another()

    def _thaw(self) -> None:
        """Workers that stood still go on where they were; they only hear later what they lost."""
        for worker in self.workers:
            if worker.process.stands_still:
                worker.process.stands_still = False
                self.loop.start(self.outside, self._rejoin(worker))

    async def _rejoin(self, worker: Worker) -> None:
        for _ in range(int(self.rng.random() * 50)):
            await _Yield()
        for service in worker.services:
            if worker.process.is_alive and service.fetcher.consumer._listener is not None:
                self.join(service.fetcher.consumer)

    def _move(self) -> None:
        for group in list(self._groups):
            self._rebalance(group)

    def _hire_another(self) -> None:
        if sum(not worker.process.stands_still for worker in self.workers) < 3:
            self.hire()

    def _pause(self) -> None:
        self._say_paused("token")

    def _go_on(self) -> None:
        self._say_paused("")

    def _say_paused(self, token: str) -> None:
        for worker in self.workers:
            for service in worker.services:
                service.fetcher.paused = token

    def _recover(self) -> None:
        """Everybody who lives works on."""
        self._thaw()
        self._go_on()
        if not self.workers:
            self.hire()

    def hire(self) -> None:
        """Start a worker."""
        self.workers.append(Worker(self, next(self._hired)))

    def kill(self, process: Process) -> None:
        """kill -9: nothing of the process runs any more; another is started in its place."""
        if process is self.outside or not process.is_alive:
            return
        process.is_alive = False
        process.ready.clear()
        self.loop.processes.remove(process)
        self.workers = [worker for worker in self.workers if worker.process is not process]
        self._forget(process)
        self.hire()

    def later(self, effect: Callable[[], Any]) -> None:
        """A command that was on its way when its connection broke arrives after all."""

        async def arrive() -> None:
            for _ in range(int(self.rng.random() * 20)):
                await _Yield()
            effect()

        self.loop.start(self.outside, arrive())

    # the consumer groups

    def join(self, member: Consumer) -> None:
        """A member joins its group, which moves."""
        if member not in self._groups[member.group]:
            self._groups[member.group].append(member)
        self._rebalance(member.group)

    def leave(self, member: Consumer) -> None:
        """A member leaves its group, which moves."""
        self._groups[member.group].remove(member)
        self._rebalance(member.group)

    def _forget(self, process: Process) -> None:
        for group, members in self._groups.items():
            self._groups[group] = [member for member in members if member.process is not process]
            self._rebalance(group)

    def _rebalance(self, group: str) -> None:
        given: dict[Consumer, list[int]] = {member: [] for member in self._groups[group]}
        for partition in range(self.partitions if given else 0):
            given[self.rng.choice(list(given))].append(partition)
        for member, partitions in given.items():
            member.tell(partitions)

    # what came of it

    def _is_at_rest(self) -> bool:
        """Everything in Kafka is read, and everything to be published is in Kafka."""
        return not self._to_come and all(
            self._is_lane_at_rest(lane, partition) for lane in LANES.values() for partition in range(self.partitions)
        )

    def _is_lane_at_rest(self, lane: lanes.Lane, partition: int) -> bool:
        book = self.store.keys.get(f"{{{lane.name}:{partition}}}:book", {})
        read = all(
            int(book.get(f"offset:{topic}".encode(), 0)) == self.log.end(topic, partition)
            for topic in (*lane.topics, lane.internal)
        )
        due = self.store.keys.get(f"{{{lane.name}:{partition}}}:due", {})
        is_due = any(at <= self.clock() for at in due.values())
        return read and not is_due and not self.store.keys.get(f"{{{lane.name}:{partition}}}:outbox")

    def books(self) -> "Books":
        """The totals in the store, added up over partitions."""
        books = Books()
        for key, value in self.store.keys.items():
            place, _, rest = key.partition("}:")
            if place.startswith("{") and rest:
                _add_key(books, rest, value)
        at_rest = self.books_of_parts()
        books.companies, books.warmth = at_rest.companies, at_rest.warmth
        return books

    def books_of_parts(self) -> "Books":
        """The totals that the accounts' and visitors' state at rest comes to."""
        books = Books()
        of_visitors = VisitorRules(self.rules)
        for name, parts in self.entities("visitors", "visitor"):
            add_counts(books.counts, Visitor(name, parts, of_visitors).counts())
        for name, parts in self.entities("members", "person"):
            add_counts(books.counts, Person(name, parts, self.rules).counts())
        for name, parts in self.entities("accounts", "account"):
            account = Account(name, parts, self.rules)
            if not account.parent:  # else it books nothing and has handed everything on
                books.add(account.totals())
                books.companies[name] = account.profile, account.company.children
                books.warmth[name] = account.engagement.history
        return books

    def letters(self) -> list[dict[str, Any]]:
        """The dead letters, each once."""
        letters = [msgspec.json.decode(value) for value in self.log.values(DEAD_LETTERS)]
        return list({letter["id"] + letter["lane"]: letter for letter in letters}.values())

    def entities(self, lane: str, kind: str) -> Iterator[tuple[str, dict[str, bytes]]]:
        """The ids and parts of a lane's entities of a kind at rest."""
        for key, value in self.store.keys.items():
            place, _, name = key.partition("}:e:")
            if place.startswith(f"{{{lane}:") and name.startswith(f"{kind}:"):
                spread = self.store.keys.get(f"{place}}}:p:{name}", {})
                parts = {part.decode(): each for part, each in spread.items()}
                yield lanes.id_of(name), parts if value == b"" else msgspec.msgpack.decode(value, type=dict[str, bytes])


@dataclass
class Books:
    """Totals as compared: none is zero."""

    cells: dict[Any, int] = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    companies: dict[str, tuple[Profile, tuple[str, ...]]] = field(default_factory=dict)
    listed: set[tuple[str, str]] = field(default_factory=set)
    warmth: dict[str, History] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)

    def add(self, totals: Totals) -> None:
        """Add the totals of an account."""
        for cell, numbers in totals.cells.items():
            self.cells[cell] = self.cells.get(cell, 0) + numbers
        add_counts(self.counts, totals.counts.items())
        self.waiting.update((entry, reason) for (entry, _), reason in totals.waiting.items() if reason is not None)
        self.listed |= {place for place, is_listed in totals.listed.items() if is_listed}
        self.names.update((account, name) for account, name in totals.named.items() if name is not None)

    def settled(self) -> "Books":
        """The same without what came to nothing."""
        cells = {cell: numbers for cell, numbers in self.cells.items() if numbers}
        companies = {name: company for name, company in self.companies.items() if company != (NOBODY, ())}
        warmth = {name: history for name, history in self.warmth.items() if history}
        return Books(cells, without_zero_counts(self.counts), self.waiting, companies, self.listed, warmth, self.names)


def _add_key(books: Books, key: str, value: Any) -> None:
    match key.split(":"):
        case ["credits", *conversion, dimension]:
            for name, numbers in value.items():
                cell = cell_of(":".join(conversion), dimension, name)
                books.cells[cell] = books.cells.get(cell, 0) + unpack_vector(numbers)
        case ["counts", *table]:
            name = ":".join(table)
            add_counts(books.counts, ((Count(name, each.decode()), counted(packed)) for each, packed in value.items()))
        case ["where", label]:
            books.listed |= {(label, account.decode()) for account in value}
        case ["names"]:
            books.names.update((account.decode(), name.decode()) for account, name in value.items())
        case ["waiting"]:
            books.waiting.update((waiting_entry(entry), reason.decode()) for entry, reason in value.items())


_rules: dict[tuple[int, int], Rules] = {}


def rules_for(variant: int, partitions: int) -> Rules:
    """The rules of a variant with another number of partitions."""
    if (variant, partitions) not in _rules:
        law = rules(variant)
        settings = msgspec.structs.replace(law.settings, partitions=partitions, kafka=_KAFKA)
        _rules[variant, partitions] = replace(law, settings=settings)
    return _rules[variant, partitions]


_KAFKA = msgspec.structs.replace(rules(0).settings.kafka, bootstrap="simulated:9092")


def placed(plan: Plan, partitions: int, rng: random.Random) -> list[tuple[str, int, bytes, int]]:
    """The facts with their partitions; a few in one that is not theirs, some twice."""
    settings = rules_for(plan.variant, partitions).settings
    facts = []
    for topic, value, recorded_at in plan.facts:
        try:
            own = partition_of(key_of(topic, decode(topic, value, recorded_at, settings)), partitions)
        except BadInput:
            own = 0
        astray = not plan.calm and rng.random() < 0.1
        facts.append((topic, rng.randrange(partitions) if astray else own, value, recorded_at))
    if not plan.calm:
        rng.shuffle(facts)
        facts += [rng.choice(facts) for _ in range(rng.randrange(3)) if facts]
    return facts


_TIMED = (announcing_module, backlog_module, fetching_module, lane_module, stepping_module, waking_module)
"""The modules that see a clock."""


@contextlib.contextmanager
def _simulated(simulation: Simulation) -> Iterator[None]:
    """The product's modules with simulated clients, and sometimes with limits that small worlds reach."""
    small = not simulation._calm and simulation.rng.random() < 0.5
    with contextlib.ExitStack() as patches:
        for module, name, value in (
            (fetching_module, "AIOKafkaConsumer", lambda **options: Consumer(simulation, options["group_id"])),
            (announcing_module, "AIOKafkaConsumer", lambda **options: Consumer(simulation)),
            (publishing_module, "AIOKafkaProducer", lambda **options: Producer(simulation)),
            *((module, "time", SimpleNamespace(perf_counter=simulation.loop.time)) for module in _TIMED),
            (backlog_module, "BACKLOG_RECORDS", 3 if small else backlog_module.BACKLOG_RECORDS),
            (backlog_module, "BACKLOG_ENVELOPES", 2 if small else backlog_module.BACKLOG_ENVELOPES),
            (fetching_module, "BACKLOG_RECORDS", 3 if small else backlog_module.BACKLOG_RECORDS),
            (ownership_module, "DRAIN_SECONDS", 0.01 if small else ownership_module.DRAIN_SECONDS),
            (stepping_module, "HEAVY_BURDEN", -1 if small else stepping_module.HEAVY_BURDEN),
            (envelopes_module, "ENVELOPE_BYTES", 200 if small else envelopes_module.ENVELOPE_BYTES),
            (tables_module, "SPREAD_BYTES", 100 if small else tables_module.SPREAD_BYTES),
            (tables_module, "_READ_AT_ONCE", 2 if small else tables_module._READ_AT_ONCE),
            (tables_module, "_MOST_ARGUMENTS", 4 if small else tables_module._MOST_ARGUMENTS),
        ):
            patches.enter_context(mock.patch.object(module, name, value))
        yield


def simulate(plan: Plan, change: Callable[[Simulation], None] = lambda simulation: None) -> Simulation:
    """Run a plan to its end. Raises Stuck, or what a lane failed of."""
    simulation = Simulation(plan)
    change(simulation)
    before = asyncio._get_running_loop()
    asyncio._set_running_loop(simulation.loop)
    try:
        with _simulated(simulation):
            simulation.run()
    finally:
        simulation.loop.end()
        asyncio._set_running_loop(before)
    return simulation


# --- examples and the smallest that fails -----------------------------------------------------


def books_of(facts: Sequence[RawFact], law: Rules) -> Books:
    """What the batch recomputation says; Kafka keeps milliseconds only."""
    batch = recompute((RecordedFact(topic, value, at // 1000 * 1000) for topic, value, at in facts), law)
    kept = batch.cells, batch.counts, batch.waiting, batch.companies, batch.listed, batch.warmth, batch.names
    return Books(*kept).settled()


def difference(plan: Plan, expected: Sequence[RawFact] | None = None) -> str:
    """How the totals after a run differ from what they should be, in short; empty when they do not.

    `expected` are the facts whose books they should be, by default the plan's own.
    """
    try:
        after = simulate(plan)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    live, at_rest = after.books().settled(), after.books_of_parts().settled()
    batch = books_of(plan.facts if expected is None else expected, after.rules)
    if live != batch:
        return f"live totals are not those of the facts: {_unlike(live, batch)}"
    if live != at_rest:
        return f"live totals are not those of the state at rest: {_unlike(live, at_rest)}"
    return "; ".join(warmth_problems(after, batch))


def _unlike(mine: Books, theirs: Books) -> str:
    if mine.listed != theirs.listed:
        return f"listed: {mine.listed ^ theirs.listed}"
    for name in ("cells", "counts", "waiting", "companies", "warmth", "names"):
        one, other = getattr(mine, name), getattr(theirs, name)
        unlike = [key for key in {**one, **other} if one.get(key) != other.get(key)]
        if unlike:
            return (
                f"{len(unlike)}, such as {unlike[0]}: {_plain(one.get(unlike[0]))} and {_plain(other.get(unlike[0]))}"
            )
    return "not at all"


def _plain(value: Any) -> Any:
    """A cell as count and amount of each model in turn; anything else as it is."""
    return unpack_numbers(pack_vector(value)) if isinstance(value, int) else value


def smallest(plan: Plan, fails: Callable[[Plan], object], tries: int = 25) -> Plan:
    """A plan with as few facts that still fails, under this seed or one of some others."""
    size = max(len(plan.facts) // 2, 1)
    while True:
        at = 0
        while at < len(plan.facts):
            fewer = [*plan.facts[:at], *plan.facts[at + size :]]
            plans = (replace(plan, facts=fewer, seed=seed) for seed in (plan.seed, *range(tries)))
            failing = next((each for each in plans if fails(each)), None)
            plan, at = (failing, at) if failing else (plan, at + size)
        if size == 1:
            return plan
        size //= 2


def told(plan: Plan) -> str:
    """A failing plan as a test's last words: what differs, and the code that shows it again."""
    facts = "".join(f"\n    {fact!r}," for fact in plan.facts)
    return f"{difference(plan)}\nPlan(seed={plan.seed}, variant={plan.variant}, calm={plan.calm}, facts=[{facts}\n])"
