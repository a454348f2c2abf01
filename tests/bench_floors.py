"""What the lanes are compared with, each in a process of its own on the same topics.

    python -m tests.bench_floors orjson N     aiokafka's getmany and orjson, nothing done
    python -m tests.bench_floors facts N      the same with models.decoding.decode, every field checked
    python -m tests.bench_floors faust N      a plain Faust agent: one event at a time, all in dicts

Where Kafka is stands in the environment, as for every role. Each takes N facts, prints
one line of JSON (see `Pace`) and ends.
"""

import asyncio
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine
from datetime import datetime
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import msgspec
import orjson
from aiokafka import AIOKafkaConsumer, TopicPartition

from models.decoding import decode
from models.facts import DEAL_CHANGES, IDENTITIES, PAGE_VIEWS
from models.settings import Settings
from streams import config
from streams.config import kafka_options
from streams.topics import full_name

TOPICS = (PAGE_VIEWS, IDENTITIES, DEAL_CHANGES)
RECORDS_AT_ONCE = 4000
SESSION_GAP_SECONDS = 1800


class Pace(msgspec.Struct, frozen=True):
    """How long so many facts took, from the first to the last."""

    facts: int
    seconds: float
    cpu_seconds: float


class Clock:
    """Wall and CPU time of this process since the first fact."""

    def __init__(self) -> None:
        self._begun = time.perf_counter(), time.process_time()

    def pace(self, facts: int) -> Pace:
        wall, cpu = self._begun
        return Pace(facts, time.perf_counter() - wall, time.process_time() - cpu)


# --- floor 1: decoding alone ------------------------------------------------------------


async def decode_with_orjson(settings: Settings, facts: int) -> Pace:
    """Every record's JSON as plain dicts."""
    return await _read(settings, facts, lambda topic, record: orjson.loads(record.value))


async def decode_as_facts(settings: Settings, facts: int) -> Pace:
    """Every record as the typed, checked fact that the lanes work on."""
    prefix = len(settings.topic_prefix)

    def one(topic: str, record: Any) -> object:
        return decode(topic[prefix:], record.value, record.timestamp * 1000, settings)

    return await _read(settings, facts, one)


async def _read(settings: Settings, facts: int, work: Callable[[str, Any], object]) -> Pace:
    places = [
        TopicPartition(full_name(settings, topic), part) for topic in TOPICS for part in range(settings.partitions)
    ]
    async with AIOKafkaConsumer(
        **kafka_options(settings), enable_auto_commit=False, max_partition_fetch_bytes=2 * 1024 * 1024
    ) as kafka:
        kafka.assign(places)
        await kafka.seek_to_beginning()
        clock, seen = Clock(), 0
        while seen < facts:
            for place, records in (await kafka.getmany(timeout_ms=200, max_records=RECORDS_AT_ONCE)).items():
                for record in records:
                    work(place.topic, record)
                seen += len(records)
        return clock.pace(seen)


# --- floor 2: the obvious Faust program -------------------------------------------------


class Naive:
    """Sessions, touches and totals as one would first write them; lost when the process ends.

    It knows no late facts, no duplicates, no merged people, no restatement: a won deal's
    amount is shared equally by the touches its account has by then.
    """

    def __init__(self) -> None:
        self.sessions: dict[str, dict[str, Any]] = {}
        self.anonymous: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.accounts: dict[str, str] = {}
        self.touches: dict[str, list[dict[str, Any]]] = defaultdict(list)
        self.totals: dict[tuple[str, str], float] = defaultdict(float)

    def page(self, fact: dict[str, Any]) -> None:
        visitor, at = fact["anonymousId"], datetime.fromisoformat(fact["timestamp"]).timestamp()
        session = self.sessions.get(visitor)
        if session and at - session["last"] < SESSION_GAP_SECONDS:
            session["last"] = max(session["last"], at)
            session["pages"] += 1
            return
        self.sessions[visitor] = {"first": at, "last": at, "pages": 1}
        touch = {"at": at, "source": self._source(fact["properties"])}
        account = self.accounts.get(visitor)
        (self.touches[account] if account else self.anonymous[visitor]).append(touch)

    def identify(self, fact: dict[str, Any]) -> None:
        visitor, account = fact["anonymousId"], fact["traits"]["email"].partition("@")[2]
        self.accounts[visitor] = account
        self.touches[account].extend(self.anonymous.pop(visitor, ()))

    def deal(self, fact: dict[str, Any]) -> None:
        touches = self.touches[fact["account"]]
        if fact["stage"] == "closed_won":
            day = fact["timestamp"][:10]
            for touch in touches:
                self.totals[day, touch["source"]] += fact["amount"] / len(touches)

    @staticmethod
    def _source(properties: dict[str, Any]) -> str:
        query = dict(parse_qsl(urlsplit(properties["url"]).query))
        return query.get("utm_source") or urlsplit(properties["referrer"]).hostname or "direct"


def run_faust(settings: Settings, facts: int) -> None:
    """Run the agent until it has taken so many facts; it prints its pace."""
    import faust

    app = faust.App(
        f"plain-{os.getpid()}",
        broker=f"kafka://{settings.kafka.bootstrap}",
        value_serializer="json",
        web_enabled=False,
        topic_disable_leader=True,
        consumer_auto_offset_reset="earliest",
    )
    names = {full_name(settings, topic): topic for topic in TOPICS}
    naive = Naive()
    handlers = {PAGE_VIEWS: naive.page, IDENTITIES: naive.identify, DEAL_CHANGES: naive.deal}

    @app.agent(app.topic(*names))
    async def attribute(stream: Any) -> None:
        clock, seen = None, 0
        async for event in stream.events():
            clock = clock or Clock()
            handlers[names[event.message.topic]](event.value)
            seen += 1
            if seen == facts:
                _say(clock.pace(seen))
                os._exit(0)

    faust.Worker(app, loglevel="WARNING").execute_from_commandline()


def _say(pace: Pace) -> None:
    """Print to the real standard output: Faust makes log lines of what is printed."""
    print(msgspec.json.encode(pace).decode(), file=sys.__stdout__, flush=True)


FLOORS: dict[str, Callable[[Settings, int], Coroutine[Any, Any, Pace]]] = {
    "orjson": decode_with_orjson,
    "facts": decode_as_facts,
}


def main(floor: str, facts: str) -> None:
    settings = config.load(find_dev=False)
    if floor == "faust":
        run_faust(settings, int(facts))
    else:
        _say(asyncio.run(FLOORS[floor](settings, int(facts))))


if __name__ == "__main__":
    main(*sys.argv[1:])
