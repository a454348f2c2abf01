"""What processes say of themselves: what concerns an operator, and each thing once."""

import json
import logging
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace
from redis import Redis

from models.settings import Kafka, Settings
from models.settings import Redis as RedisSettings
from models.times import SECOND, to_text
from streams import embedded
from streams.app import HEARTBEAT_EXPIRY_SECONDS
from streams.logs import FIRST_SILENCE_SECONDS, PATIENCE_SECONDS, Discretion, Outages
from tests.conftest import wait_for
from tests.running import ROOT, Place, page, until


class Log:
    """What is told at which time."""

    def __init__(self) -> None:
        self.now = 0.0
        self.discretion = Discretion(lambda: self.now)

    def told(self, name: str, level: int, message: str, *arguments: object, at: float) -> str:
        """What is told of a record; empty when it is left out."""
        self.now = at
        record = logging.LogRecord(name, level, "", 0, message, arguments, None)
        return record.getMessage() if self.discretion.filter(record) else ""


def test_what_a_library_says_once_is_left_out_and_what_it_goes_on_saying_is_told_ever_more_seldom() -> None:
    log = Log()

    told = {
        second: words
        for second in range(600)
        if (words := log.told("aiokafka.client", logging.ERROR, "no node %d", second, at=float(second)))
    }

    assert list(told) == [5, 65, 185, 425]
    assert (told[5], told[65]) == ("no node 5 (5 times more)", "no node 65 (59 times more)")
    assert not log.told("aiokafka.client", logging.WARNING, "rebalancing", at=600.0)
    assert not log.told("faust.worker", logging.INFO, "Starting", at=600.0)


def test_what_was_not_said_for_a_while_is_new() -> None:
    log = Log()

    assert log.told("streams.lane", logging.WARNING, "%s waits", "visitors", at=0.0)
    assert not log.told("streams.lane", logging.WARNING, "%s waits", "visitors", at=1.0)
    assert log.told("streams.lane", logging.WARNING, "%s waits", "members", at=1.0)
    assert log.told("streams.lane", logging.WARNING, "%s waits", "visitors", at=3 * FIRST_SILENCE_SECONDS)


def test_a_failure_is_told_with_its_traceback_each_time() -> None:
    failed = logging.LogRecord("faust", logging.ERROR, "", 0, "crashed", (), (ValueError, ValueError(), None))

    assert Discretion().filter(failed) and Discretion().filter(failed)


def test_what_we_say_is_told_and_what_faust_says_in_our_name_is_not() -> None:
    log = Log()

    assert log.told("streams.app", logging.INFO, "visitors lane has the partitions 0", at=0.0)
    assert not log.told("streams.app", logging.INFO, "[^--Hosted]: Starting...", at=0.0)


def test_while_a_server_is_known_to_be_away_libraries_say_nothing_and_their_complaints_are_forgotten() -> None:
    log = Log()
    log.told("aiokafka", logging.ERROR, "no node", at=0.0)

    log.discretion.explain(True)
    during = log.told("aiokafka", logging.ERROR, "no node", at=2 * PATIENCE_SECONDS)
    log.discretion.explain(False)
    after = log.told("aiokafka", logging.ERROR, "no node", at=2 * PATIENCE_SECONDS)

    assert not during and not after
    assert log.discretion.is_suspicious


async def test_a_server_that_is_away_is_told_once_and_once_when_it_is_back(
    kafka: embedded.Server, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    redis = await embedded.start_redis(tmp_path)
    settings = Settings(kafka=Kafka(bootstrap=kafka.address), redis=RedisSettings(url=redis.address))
    discretion = Discretion()
    outages = Outages(settings, discretion)

    await outages.look()
    redis.kill()
    await outages.look()
    await outages.look()
    was_explained = discretion.is_explained
    redis = await embedded.start_redis(tmp_path)
    await outages.look()
    await redis.stop()

    away, back = (record.getMessage() for record in caplog.records if record.name == "streams.logs")
    assert away.startswith(f"Redis at {redis.address}") and away.endswith("; waiting for it")
    assert back.startswith("Redis answers again, after ")
    assert was_explained and not discretion.is_explained


# --- processes on servers of their own ---------------------------------------------------


@contextmanager
def running(place: Place, role: str) -> Iterator[Path]:
    """A role as an operator starts it; its log."""
    log = place.folder / f"{role}.log"
    with log.open("wb") as output:
        environ = {**os.environ, **place.environ, "TOUCHLINE_INSTANCE": "w-0"}
        command = (sys.executable, "-m", "streams.cli", role)
        process = subprocess.Popen(command, env=environ, cwd=ROOT, stdout=output, stderr=output)
    try:
        yield log
    finally:
        process.terminate()
        process.wait(20)


@pytest.mark.slow
def test_an_outage_of_kafka_is_two_lines_of_worker_and_deliverer_and_the_worker_counts_as_live(tmp_path: Path) -> None:
    kafka, redis = (
        wait_for(embedded.start_kafka(tmp_path / "kafka")),
        wait_for(embedded.start_redis(tmp_path / "redis")),
    )
    settings = Settings(kafka=Kafka(bootstrap=kafka.address), redis=RedisSettings(url=redis.address))
    place = Place(replace(settings, partitions=2), tmp_path)
    tables = cast(Any, Redis.from_url(redis.address))
    try:
        place.run("topics", "--create")
        with running(place, "worker") as worker, running(place, "deliver") as deliver:
            place.produce([page("p", "2026-04-01T00:00:00Z", "v", "https://site.example/")])
            place.run("wait", "--timeout", "60")
            until(deliver.read_text, lambda log: "alerts of Kafka" in log, 60)

            kafka.kill()
            until(
                lambda: [log.read_text() for log in (worker, deliver)], lambda logs: all(map(_tells_of_kafka, logs)), 60
            )
            later = to_text((time.time_ns() // 1000 // SECOND + HEARTBEAT_EXPIRY_SECONDS) * SECOND)
            until(lambda: json.loads(tables.get("touchline:workers:w-0") or b'{"at": ""}')["at"], later.__lt__, 30)
            kafka = wait_for(embedded.start_kafka(tmp_path / "kafka"))
            until(lambda: [log.read_text() for log in (worker, deliver)], lambda logs: all(map(_is_back, logs)), 60)

            for log in (worker, deliver):
                complaints = [line for line in log.read_text().splitlines() if " INFO " not in line]
                assert len(complaints) == 2, complaints
    finally:
        wait_for(kafka.stop())
        wait_for(redis.stop())


def _tells_of_kafka(log: str) -> bool:
    return "; waiting for it" in log


def _is_back(log: str) -> bool:
    return "Kafka answers again" in log
