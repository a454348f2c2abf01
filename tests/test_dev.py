"""`touchline dev` as its users meet it: a process that brings everything up and takes it down."""

import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import pytest
from redis import Redis
from redis.exceptions import ConnectionError

from streams import config, dev
from tests import stand_ins

pytestmark = pytest.mark.slow
Started = tuple[subprocess.Popen[str], dict[str, Any]]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[[], Started]]:
    """Starts dev on this test's folder; what it says once all is up."""
    processes: list[subprocess.Popen[str]] = []

    def started() -> Started:
        environ = {name: value for name, value in os.environ.items() if not name.startswith("TOUCHLINE_")}
        command = [sys.executable, stand_ins.__file__, "dev", str(tmp_path / ".touchline")]
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, text=True, env=environ | {"PYTHONPATH": str(Path(dev.__file__).parents[1])}
        )
        processes.append(process)
        assert process.stdout
        assert select.select([process.stdout], [], [], 60)[0], "dev said nothing"
        return process, json.loads(process.stdout.readline())

    yield started
    for process in processes:
        process.kill()
        process.wait()
        assert process.stdout
        process.stdout.close()


def test_dev_says_where_everything_is_and_other_commands_find_it(start: Callable[[], Started], tmp_path: Path) -> None:
    process, line = start()

    settings = config.load({}, tmp_path)
    assert line == {
        "ready": True,
        "kafka": settings.kafka.bootstrap,
        "redis": settings.redis.url,
        "web": settings.web.address,
    }
    assert urllib.request.urlopen(line["web"] + "/healthz").status == 200
    assert config.load({"TOUCHLINE_KAFKA": "elsewhere:9092"}, tmp_path).kafka.bootstrap == "elsewhere:9092"
    assert process.stdout and not select.select([process.stdout], [], [], 0)[0]


def test_a_terminated_dev_takes_everything_with_it_within_seconds(start: Callable[[], Started], tmp_path: Path) -> None:
    process, _ = start()
    processes = children_of(process.pid)

    process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 0
    assert len(processes) == 4
    assert not any(map(is_alive, processes))
    assert not (tmp_path / ".touchline" / "dev.json").exists()
    assert config.load({}, tmp_path).kafka.bootstrap == ""


def test_a_dev_killed_with_9_takes_everything_with_it(start: Callable[[], Started], tmp_path: Path) -> None:
    process, _ = start()
    processes = children_of(process.pid)

    process.kill()
    process.wait()
    until(lambda: not any(map(is_alive, processes)))
    assert len(processes) == 4
    assert config.load({}, tmp_path).redis.url == ""


def test_a_dev_started_again_goes_on_where_it_was_at_the_same_addresses(start: Callable[[], Started]) -> None:
    process, before = start()
    with Redis.from_url(before["redis"]) as redis:
        redis.set("kept", "yes")
    process.kill()
    process.wait()

    _, after = start()
    assert after == before
    with Redis.from_url(after["redis"]) as redis:
        assert redis.get("kept") == b"yes"


def test_what_is_killed_is_started_again(start: Callable[[], Started]) -> None:
    process, line = start()

    for name in ("worker", "web", "redis-server", "kafka.Kafka"):
        (victim,) = filter(runs(name), children_of(process.pid))
        victim.kill()
        psutil.wait_procs([victim], timeout=10)
        until(partial(is_running, name, process.pid))

    until(lambda: is_healthy(line["web"]))
    until(lambda: answers(line["redis"]))
    until(lambda: listens(line["kafka"]))


def test_a_second_dev_on_the_same_folder_is_refused(start: Callable[[], Started], tmp_path: Path) -> None:
    start()

    second = subprocess.run(
        [sys.executable, stand_ins.__file__, "dev", str(tmp_path / ".touchline")],
        env=os.environ | {"PYTHONPATH": str(Path(dev.__file__).parents[1])},
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
    )
    assert second.returncode == 1
    assert "another `touchline dev` is running" in second.stderr


def children_of(pid: int) -> list[psutil.Process]:
    """The processes it started that still run."""
    return [child for child in psutil.Process(pid).children() if is_alive(child)]


def is_alive(process: psutil.Process) -> bool:
    """Whether it runs; one that has ended and waits to be reaped does not."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def is_running(name: str, parent: int) -> bool:
    return any(map(runs(name), children_of(parent)))


def runs(name: str) -> Callable[[psutil.Process], bool]:
    """Whether a process's command line names it."""

    def named(process: psutil.Process) -> bool:
        try:
            return any(name in word for word in process.cmdline())
        except psutil.NoSuchProcess:
            return False

    return named


def is_healthy(web: str) -> bool:
    try:
        return bool(urllib.request.urlopen(web + "/healthz").status == 200)
    except OSError:
        return False


def listens(address: str) -> bool:
    host, _, port = address.partition(":")
    try:
        with socket.create_connection((host, int(port)), 1):
            return True
    except OSError:
        return False


def answers(url: str) -> bool:
    try:
        with Redis.from_url(url) as redis:
            return bool(redis.ping())
    except ConnectionError:
        return False


def until(check: Callable[[], Any], seconds: float = 20.0) -> None:
    """Return once the check holds; fails when it does not in time."""
    give_up = time.monotonic() + seconds
    while not check():
        assert time.monotonic() < give_up, "it took too long"
        time.sleep(0.05)
