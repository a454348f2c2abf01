"""`touchline deliver` on real servers: kill -9 of its processes at any point loses, skips and reorders nothing."""

import asyncio
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from msgspec.structs import replace

from models.alerts import AccountOf, alert_id, sample_alert
from models.settings import Settings
from models.times import DAY, SECOND, to_text
from streams.config import kafka_options
from streams.topics import create_topics, full_name
from tests.conftest import eventually
from tests.receiving import Answered, Receiver, Request, receiving, to_hook
from tests.running import ROOT, Place
from tests.serving import records

pytestmark = pytest.mark.slow

ACCOUNTS, EACH, KILLS = 12, 8, 3
BEGAN = time.time_ns() // 1000 - DAY
TRANSITIONS = ("warming", "warmed", "cooling", "cooled")


class Post(Place):
    """Two processes that deliver to a receiver, quick to try again."""

    def __init__(self, settings: Settings, folder: Path, hook: str) -> None:
        super().__init__(settings, folder)
        with (folder / "touchline.toml").open("a") as config:
            config.write(to_hook(hook))
            config.write(
                """
                [kafka]
                session_timeout_seconds = 6.0
                [delivery]
                timeout_seconds = 0.5
                retry_seconds = [0.05, 0.1]
                then_every_seconds = 0.2
                """
            )

    @contextmanager
    def deliverer(self, name: str) -> Iterator["Deliverer"]:
        """A process for the length of a block."""
        deliverer = Deliverer(self, name)
        try:
            yield deliverer
        finally:
            deliverer.process.kill()
            deliverer.process.wait()


class Deliverer:
    """A process that can be killed and started again."""

    def __init__(self, post: Post, name: str) -> None:
        self._post = post
        self.log = post.folder / f"{name}.log"
        self.process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(
                (sys.executable, "-m", "streams.cli", "deliver"),
                env={**os.environ, **self._post.environ},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )

    def kill_and_start(self) -> None:
        """kill -9; it must not have ended by itself before."""
        assert self.process.poll() is None, self.log.read_text()[-3000:]
        self.process.kill()
        self.process.wait()
        self.process = self._start()


async def test_each_alert_arrives_in_order_through_failures_and_kills(settings: Settings, tmp_path: Path) -> None:
    chance = random.Random(7)
    async with receiving(lambda _: moody(chance)) as receiver:
        post = Post(settings, tmp_path, receiver.url)
        await create_topics(settings)
        expected = {f"a{n}.com": [alert(f"a{n}.com", k) for k in range(EACH)] for n in range(ACCOUNTS)}
        with post.deliverer("one") as one, post.deliverer("two") as two:
            sending = asyncio.create_task(produce(settings, expected))
            for victim in [one, two, one][:KILLS]:
                done = len(receiver.requests)
                await eventually(lambda done=done: has(receiver, done + 25), 60)  # type: ignore[misc]
                await asyncio.to_thread(victim.kill_and_start)
            await sending
            await eventually(lambda: all_delivered(receiver, ACCOUNTS * EACH), 60)
            ids = {account: [each["alertId"] for each in alerts] for account, alerts in expected.items()}
            await eventually(lambda: all_logged(settings, {id for each in ids.values() for id in each}), 30)

        assert receiver.by_account() == ids
        assert {letter["original"] for letter in await letters(settings)} == {"no alert"}
        assert len({letter["id"] for letter in await letters(settings)}) == 1


async def test_a_test_alert_says_what_came_of_it(settings: Settings, tmp_path: Path) -> None:
    refusing = [Answered(500)]
    async with receiving(lambda _: refusing.pop() if refusing else Answered()) as receiver:
        post = Post(settings, tmp_path, receiver.url)
        await create_topics(settings)
        with post.deliverer("one"):
            refused = await asyncio.to_thread(post.run, "alerts", "test", "--to", "hook", "--format", "json", code=1)
            taken = await asyncio.to_thread(post.run, "alerts", "test", "--route", "all", "--format", "json")
            listed = await asyncio.to_thread(post.rows, "alerts", "destinations")
            unknown = await asyncio.to_thread(post.run, "alerts", "test", "--to", "nobody", code=2)
            await eventually(lambda: acknowledged(settings, 2))

        (first,), (second,) = json.loads(refused.stdout), json.loads(taken.stdout)
        assert (first["outcome"], first["status"], first["error"]) == ("retry", 500, "HTTP 500")
        assert (second["outcome"], second["route"]) == ("delivered", "all")
        assert all(each["test"] for each in receiver.verified())
        assert [row["destination"] for row in listed] == ["hook"]
        assert "--to: expected a destination of the settings (hook), got nobody" in unknown.stderr


def moody(chance: random.Random) -> Answered:
    """Mostly takes it; fails, redirects, hangs."""
    return chance.choice(
        [*[Answered()] * 6, Answered(500), Answered(302, {"location": "/elsewhere"}), Answered(after_seconds=0.7)]
    )


def alert(account: str, n: int) -> dict[str, Any]:
    at = to_text(BEGAN + n * SECOND)
    transition = TRANSITIONS[n % 4]
    id = alert_id(account, transition, at)
    made = replace(sample_alert(id, at), test=False, transition=transition, account=AccountOf(account))
    return dict(msgspec.to_builtins(made))


async def produce(settings: Settings, alerts: dict[str, list[dict[str, Any]]]) -> None:
    """All alerts, one account after the other a little, one of them twice, and something that is none."""
    topic = full_name(settings, "alerts")
    async with AIOKafkaProducer(**kafka_options(settings)) as producer:
        await producer.send_and_wait(topic, b"no alert")
        for n in range(EACH):
            for account, each in alerts.items():
                for _ in range(2 if n == 2 else 1):
                    await producer.send_and_wait(topic, json.dumps(each[n]).encode(), account.encode())
            await asyncio.sleep(1.0)


async def has(receiver: Receiver, requests: int) -> bool:
    return len(receiver.requests) >= requests


async def all_delivered(receiver: Receiver, alerts: int) -> bool:
    return len({id_of(request) for request in receiver.requests}) == alerts


def id_of(request: Request) -> str:
    return request.headers["webhook-id"]


async def all_logged(settings: Settings, ids: set[str]) -> bool:
    """Does `deliveries` say of every alert that it was delivered?"""
    entries = [msgspec.json.decode(value) for _, value in await records(settings, "deliveries")]
    return {each["alertId"] for each in entries if each["outcome"] == "delivered"} == ids


async def acknowledged(settings: Settings, alerts: int) -> bool:
    """Does Kafka know that so many alerts need not come again?"""
    name = full_name(settings, "alerts")
    group = f"{settings.topic_prefix}touchline-deliver"
    async with AIOKafkaConsumer(**kafka_options(settings), group_id=group, enable_auto_commit=False) as consumer:
        parts = [TopicPartition(name, part) for part in range(settings.partitions)]
        consumer.assign(parts)
        return sum([await consumer.committed(part) or 0 for part in parts]) == alerts


async def letters(settings: Settings) -> list[Any]:
    return [msgspec.json.decode(value) for _, value in await records(settings, "dead-letters")]
