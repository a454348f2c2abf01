"""kill -9 on real servers: nothing is lost, nothing counts twice, and the work goes on soon.

TOUCHLINE_KILLS says how often something is killed during the load (6 where it says nothing).
"""

import asyncio
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError
from redis import Redis

from deploy.world import sample_world
from models import decoding, facts
from models.errors import BadInput
from models.partitions import partition_of
from models.settings import Kafka, Settings
from models.settings import Redis as RedisSettings
from streams import embedded
from streams.config import kafka_options
from streams.topics import full_name
from tests.conftest import wait_for
from tests.running import ROOT, Place, page, until
from tests.worlds import world

pytestmark = pytest.mark.slow

KILLS = int(os.environ.get("TOUCHLINE_KILLS", "6"))
SEED = int(os.environ.get("TOUCHLINE_SEED", "0"))
PARTITIONS = 4
CHUNK = 4000
PAUSE_SECONDS = KILLS / 3
"""Between two chunks of the load, so that it lasts as long as the kills."""
FAR_FUTURE = 2**60

Placed = tuple[str, int, bytes]
"""Topic, partition and value of a fact."""


class Servers:
    """A Kafka and a Redis of the test's own, which are killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.kafka = wait_for(embedded.start_kafka(folder / "kafka"))
        self.redis = wait_for(embedded.start_redis(folder / "redis"))

    def kill_kafka(self) -> None:
        self.kafka.kill()
        address = self.kafka.address
        self.kafka = wait_for(embedded.start_kafka(self._folder / "kafka"))
        assert self.kafka.address == address

    def kill_redis(self) -> None:
        self.redis.kill()
        address = self.redis.address
        self.redis = wait_for(embedded.start_redis(self._folder / "redis"))
        assert self.redis.address == address

    def stop(self) -> None:
        wait_for(self.kafka.stop())
        wait_for(self.redis.stop())


class Worker:
    """A worker process that can be killed and started again under its name."""

    def __init__(self, place: Place, name: str) -> None:
        self._place = place
        self._name = name
        self.log = place.folder / f"{name}.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                (sys.executable, "-m", "streams.cli", "worker"),
                env={**os.environ, **self._place.environ, "TOUCHLINE_INSTANCE": self._name},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill(self) -> None:
        """kill -9; it must not have ended by itself before."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        self.process.kill()
        self.process.wait()

    def kill_and_start(self) -> None:
        self.kill()
        self.process = self._start()

    def stop(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(15)
        self.process.kill()
        self.process.wait()


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Servers]:
    started = Servers(tmp_path_factory.mktemp("servers"))
    yield started
    started.stop()


@pytest.fixture
def place(servers: Servers, tmp_path: Path) -> Iterator[Place]:
    """Empty tables, and topics that this test alone has."""
    with Redis.from_url(servers.redis.address) as redis:
        redis.flushall()
    settings = Settings(
        kafka=Kafka(bootstrap=servers.kafka.address),
        redis=RedisSettings(url=servers.redis.address),
        partitions=PARTITIONS,
        topic_prefix=f"{tmp_path.name}-",
    )
    made = Place(settings, tmp_path)
    made.run("topics", "--create")
    yield made


# --- the load -----------------------------------------------------------------------------------


def load(rng: random.Random) -> list[Placed]:
    """Some 60,000 facts in some disorder, with copies, junk, small nasty worlds, and a few in wrong partitions."""
    sample = sample_world(datetime.now(UTC), seed=rng.randrange(100), count=260, strangers=8000)
    made = [(topic, msgspec.json.encode(body)) for topic, body in sample.facts]
    nasty = [fact[:2] for _ in range(20) for fact in world(rng, 40)]
    made = [*made, *rng.choices(made, k=len(made) // 20), *nasty]
    order = sorted(range(len(made)), key=lambda at: at % len(sample.facts) + rng.gauss(0, 500))
    return [(topic, placed(topic, value, rng), value) for topic, value in (made[at] for at in order)]


def placed(topic: str, value: bytes, rng: random.Random) -> int:
    """The fact's own partition, now and then any."""
    try:
        own = facts.key_of(topic, decoding.decode(topic, value, FAR_FUTURE, Settings()))
    except BadInput:
        return 0
    return rng.randrange(PARTITIONS) if rng.random() < 0.01 else partition_of(own, PARTITIONS)


class Production(threading.Thread):
    """Puts a load into Kafka, slowly until `hurry`, whatever happens to Kafka meanwhile."""

    def __init__(self, settings: Settings, load: Sequence[Placed]) -> None:
        super().__init__()
        self.hurry = threading.Event()
        self.produced = 0
        self._settings = settings
        self._load = load

    def run(self) -> None:
        asyncio.run(self._produce())

    async def _produce(self) -> None:
        producer = AIOKafkaProducer(**kafka_options(self._settings), enable_idempotence=True, linger_ms=5)
        await producer.start()
        for begin in range(0, len(self._load), CHUNK):
            await self._send(producer, self._load[begin : begin + CHUNK])
            await asyncio.to_thread(self.hurry.wait, PAUSE_SECONDS)
        await producer.stop()

    async def _send(self, producer: AIOKafkaProducer, chunk: Sequence[Placed]) -> None:
        """Send a chunk until Kafka has all of it: again from its beginning when it failed."""
        while True:
            with suppress(KafkaError):
                sent = [
                    await producer.send(full_name(self._settings, topic), value, partition=partition)
                    for topic, partition, value in chunk
                ]
                await asyncio.gather(*sent)
                self.produced += len(chunk)
                return
            await asyncio.sleep(0.5)


@contextmanager
def production(settings: Settings, load: Sequence[Placed]) -> Iterator[Production]:
    """A load on its way; at the end of the block all of it is in Kafka."""
    thread = Production(settings, load)
    thread.start()
    try:
        yield thread
    finally:
        thread.hurry.set()
        thread.join()


# --- the promises -------------------------------------------------------------------------------


def test_nothing_is_lost_or_counted_twice_when_worker_redis_and_kafka_are_killed(
    servers: Servers, place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(SEED)
    facts_made = load(rng)
    with ExitStack() as closing:
        worker = Worker(place, "only")
        closing.callback(worker.stop)
        victims: list[Callable[[], None]] = [worker.kill_and_start, servers.kill_redis, servers.kill_kafka]
        some = [victims[number % 3] for number in range(KILLS)]
        rng.shuffle(some)
        with production(place.settings, facts_made) as under_way:
            for kill in some:
                time.sleep(rng.uniform(0.3, 4.0))
                assert under_way.is_alive(), "the load was over before the kills"
                kill()

        place.run("wait", "--timeout", "120")
        audit = place.rows("audit")

    assert under_way.produced == len(facts_made)
    assert audit["differences"] == []
    assert audit["clean"]
    assert audit["facts"] >= len(facts_made)
    assert audit["cells"] > 1000
    _say(capsys, f"{KILLS} kills during {audit['facts']:,} facts: {audit['cells']:,} cells without a difference")


def test_another_worker_takes_over_within_15_seconds(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with ExitStack() as closing:
        workers = [Worker(place, name) for name in ("one", "two")]
        for worker in workers:
            closing.callback(worker.stop)
        until_worked_on(place, "before", seconds=40)
        until(lambda: [owned(place, name) for name in ("one", "two")], all, seconds=40)

        workers[0].kill()
        taken = until_worked_on(place, "after", seconds=30)

    _say(capsys, f"takeover after {taken:.1f} s")
    assert taken < 15 + SLACK_SECONDS


def test_a_worker_killed_and_started_again_works_on_within_5_seconds(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    with ExitStack() as closing:
        worker = Worker(place, "one")
        closing.callback(worker.stop)
        until_worked_on(place, "before", seconds=40)

        worker.kill_and_start()
        back = until_worked_on(place, "after", seconds=30)

    _say(capsys, f"back after {back:.1f} s")
    assert back < 5 + SLACK_SECONDS


def owned(place: Place, name: str) -> bool:
    """Has the worker partitions of every lane, by its own heartbeat?"""
    with Redis.from_url(place.settings.redis.url) as redis:
        beat = redis.get(f"touchline:workers:{name}")
    lanes = msgspec.json.decode(beat)["lanes"].values() if beat else []
    return bool(lanes) and all(lane["partitions"] for lane in lanes)


SLACK_SECONDS = 5.0
"""What a machine busy with other things may add."""


def until_worked_on(place: Place, name: str, seconds: float) -> float:
    """How many seconds until a new fact of every partition, and all that follows from it, is committed."""
    began = time.monotonic()
    place.produce(page(f"{name}-{number}", "2026-01-01T00:00:00Z", f"visitor-{number}", "https://a.example/")
                  for number in range(40))  # fmt: skip
    place.produce(_deal(f"{name}-{number}") for number in range(40))
    place.run("wait", "--timeout", str(seconds))
    return time.monotonic() - began


def _deal(name: str) -> tuple[str, dict[str, str]]:
    return "deal-changes", {"dealId": name, "messageId": name, "timestamp": "2026-01-01T00:00:00Z", "account": name}


def _say(capsys: pytest.CaptureFixture[str], words: str) -> None:
    """Print what was measured, whether or not the test passes."""
    with capsys.disabled():
        print(f"\n    {words}")
