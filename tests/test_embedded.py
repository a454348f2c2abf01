"""The embedded servers: durable, restartable, and gone with whoever started them."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from redis import Redis

from models.errors import Unavailable
from models.settings import Kafka, Settings
from streams import artifacts, children, embedded
from streams.config import kafka_options
from streams.topics import create_topics
from tests.conftest import eventually


async def test_redis_keeps_what_it_answered_through_kill_9(tmp_path: Path) -> None:
    server = await embedded.start_redis(tmp_path)
    with Redis.from_url(server.address) as redis:
        redis.set("kept", "yes")
        assert redis.config_get("append*").items() >= {"appendonly": "yes", "appendfsync": "always"}.items()
    server.kill()

    again = await embedded.start_redis(tmp_path)
    with Redis.from_url(again.address) as redis:
        assert redis.get("kept") == b"yes"
    assert again.address == server.address
    await again.stop()


@pytest.mark.slow
async def test_kafka_keeps_what_it_acknowledged_through_kill_9(tmp_path: Path) -> None:
    server = await embedded.start_kafka(tmp_path)
    settings = Settings(kafka=Kafka(bootstrap=server.address))
    await create_topics(settings)
    big = b"x" * (15 * 1024 * 1024)
    async with AIOKafkaProducer(**kafka_options(settings), max_request_size=2 * len(big)) as producer:
        await producer.send_and_wait("touches", big)
    server.kill()

    again = await embedded.start_kafka(tmp_path)
    async with AIOKafkaConsumer("touches", **kafka_options(settings), auto_offset_reset="earliest") as consumer:
        record = await consumer.getone()
    assert record.value == big
    assert again.address == server.address
    await again.stop()


async def test_only_one_server_runs_in_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embedded, "LOCK_SECONDS", 0.1)
    async with embedded.redis(tmp_path):
        with pytest.raises(Unavailable, match="already running"):
            await embedded.start_redis(tmp_path)


async def test_a_server_that_does_not_come_up_says_why(tmp_path: Path) -> None:
    (tmp_path / "appendonlydir").write_text("in the way")

    with pytest.raises(Unavailable, match="(?s)Redis ended with exit code 1.*appendonlydir"):
        await embedded.start_redis(tmp_path)


@pytest.mark.parametrize(
    "watchdog",
    [True, pytest.param(False, marks=pytest.mark.skipif(sys.platform != "linux", reason="the kernel way is Linux's"))],
)
async def test_a_child_ends_with_its_parent_killed_with_9(parent: "Parent", watchdog: bool) -> None:
    child = parent.starts_a_child(watchdog)

    parent.process.kill()

    await eventually(lambda: has_ended(child))


async def test_a_stopped_child_leaves_nothing_behind(tmp_path: Path) -> None:
    child = children.start("sleeper", ["sleep", "600"], tmp_path / "log", watchdog=True)
    process = psutil.Process(child.pid)
    await eventually(lambda: has_children(process))
    watchdog = process.children()[0]

    await child.stop()

    assert child.exit_code == -signal.SIGTERM
    await eventually(lambda: has_ended(watchdog))


def test_every_jar_is_pinned() -> None:
    rows = artifacts.locked()

    assert "org.apache.kafka:kafka_2.13:4.1.1" in [coordinate for _, coordinate in rows]
    assert all(len(sha256) == 64 and coordinate.count(":") == 2 for sha256, coordinate in rows)


async def test_the_pinned_redis_serves_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(artifacts, "redis_server", artifacts.pinned_redis_server)

    async with embedded.redis(tmp_path) as server:
        with Redis.from_url(server.address) as redis:
            assert redis.info("server")["redis_version"] == "7.0.15"


class Parent:
    """A process of ours that starts a child when told to."""

    CODE = """
import sys, pathlib
from streams import children
for line in sys.stdin:
    log = pathlib.Path(sys.argv[1])
    print(children.start("sleeper", ["sleep", "600"], log, watchdog=line == "True\\n").pid, flush=True)
"""

    def __init__(self, folder: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", self.CODE, str(folder / "log")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(children.__file__).parents[1],
        )

    def starts_a_child(self, watchdog: bool) -> psutil.Process:
        assert self.process.stdin and self.process.stdout
        print(watchdog, file=self.process.stdin, flush=True)
        return psutil.Process(int(self.process.stdout.readline()))


@pytest.fixture
def parent(tmp_path: Path) -> Iterator[Parent]:
    parent = Parent(tmp_path)
    yield parent
    with parent.process:
        parent.process.kill()


async def has_ended(process: psutil.Process) -> bool:
    try:
        return bool(process.status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


async def has_children(process: psutil.Process) -> bool:
    return bool(process.children())
