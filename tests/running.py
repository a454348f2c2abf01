"""A worker beside real servers, facts for it, and the commands as scripts call them."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from click.testing import CliRunner, Result

from models import decoding, facts
from models.settings import Settings
from models.times import parse_instant
from streams import cli
from streams.load import connected

T = TypeVar("T")

Fact = tuple[str, dict[str, Any]]
"""A topic and what is sent to it."""

ROOT = Path(__file__).parents[1]
RECORDED_AT = parse_instant("2030-01-01", "test")


class Place:
    """Settings of a test, as commands and workers find them: in the environment and a file."""

    def __init__(self, settings: Settings, folder: Path) -> None:
        self.settings = settings
        self.folder = folder
        self.config = folder / "touchline.toml"
        self.configure()
        self.environ = {
            "TOUCHLINE_KAFKA": settings.kafka.bootstrap,
            "TOUCHLINE_REDIS": settings.redis.url,
            "TOUCHLINE_CONFIG": str(self.config),
        }

    def configure(self, rules: str = "", *, partitions: int | None = None) -> None:
        """Write the file of settings, with these lines of TOML behind."""
        settings = self.settings
        known = f'topic_prefix = "{settings.topic_prefix}"\npartitions = {partitions or settings.partitions}\n'
        self.config.write_text(known + rules)

    def run(self, *arguments: str, code: int = 0) -> Result:
        """The result of a command, which ends with this code."""
        result = CliRunner().invoke(cli.main, arguments, env=self.environ)
        assert result.exit_code == code, (result.output, result.exception)
        return result

    def rows(self, *arguments: str) -> Any:
        """What a command prints as JSON."""
        return json.loads(self.run(*arguments, "--format", "json").stdout)

    def produce(self, some: Iterable[Fact]) -> None:
        """Put facts into their topics, by key, as producers do."""
        asyncio.run(self._produce(some))

    async def _produce(self, some: Iterable[Fact]) -> None:
        async with connected(self.settings) as sender:
            for topic, body in some:
                value = msgspec.json.encode(body)
                key = facts.key_of(topic, decoding.decode(topic, value, RECORDED_AT, self.settings))
                await sender.send(topic, [(key, value)])
            await sender.flush()

    @contextmanager
    def worker(self, role: str = "worker") -> Iterator[subprocess.Popen[bytes]]:
        """A worker, or a process of another role, for the length of a block."""
        process = self.start_worker(role)
        try:
            yield process
        finally:
            _end(process)

    def start_worker(self, role: str = "worker") -> subprocess.Popen[bytes]:
        """Start a worker that writes to worker.log, or a process of another role."""
        with (self.folder / f"{role}.log").open("ab") as log:
            return subprocess.Popen(
                (sys.executable, "-m", "streams.cli", role),
                env={**os.environ, **self.environ, "TOUCHLINE_INSTANCE": "test"},
                cwd=ROOT,
                stdout=log,
                stderr=log,
            )


def _end(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        process.wait(15)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextmanager
def supervised(place: Place) -> Iterator[None]:
    """A worker that is started again whenever it ends, for the length of a block."""
    running = [place.start_worker()]

    def keep() -> None:
        if running[-1].poll() is not None:
            running.append(place.start_worker())

    try:
        with meanwhile(keep):
            yield
    finally:
        _end(running[-1])


@contextmanager
def meanwhile(step: Callable[[], None]) -> Iterator[None]:
    """Take a step ten times a second in a thread, for the length of a block."""
    over = threading.Event()

    def go_on() -> None:
        while not over.wait(0.1):
            step()

    thread = threading.Thread(target=go_on)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def until(ask: Callable[[], T], holds: Callable[[T], object], seconds: float = 20.0) -> T:
    """The first answer of which it holds; fails when there is none in time."""
    give_up = time.monotonic() + seconds
    while not holds(answer := ask()):
        assert time.monotonic() < give_up, answer
    return answer


def page(id: str, at: str, visitor: str, url: str, **more: Any) -> Fact:
    """A page view."""
    context = {"page": {"url": url}}
    return "page-views", {
        "type": "page", "messageId": id, "timestamp": at, "anonymousId": visitor, "context": context, **more
    }  # fmt: skip


def identify(id: str, at: str, visitor: str, email: str) -> Fact:
    """An identify call."""
    return "identities", {
        "type": "identify", "messageId": id, "timestamp": at, "anonymousId": visitor, "userId": email
    }  # fmt: skip


def touch(id: str, at: str, person: str, kind: str, **more: Any) -> Fact:
    """A touch that another system recorded."""
    return "touches", {"touchId": id, "timestamp": at, "person": person, "kind": kind, **more}


def deal(id: str, at: str, message: str, **more: Any) -> Fact:
    """A deal change."""
    return "deal-changes", {"dealId": id, "timestamp": at, "messageId": message, **more}


def refund(id: str, at: str, of: str, amount: str) -> Fact:
    """A refund."""
    return "billing", {"type": "refund", "messageId": id, "timestamp": at, "dealId": of, "amount": amount}


def account(id: str, at: str, message: str, **more: Any) -> Fact:
    """An account change."""
    return "account-changes", {"account": id, "timestamp": at, "messageId": message, **more}


STORY: tuple[Fact, ...] = (
    page("p1", "2026-04-01T10:00:00Z", "v1", "https://site.example/pricing?utm_source=google&utm_medium=cpc"),
    page("p2", "2026-04-01T10:05:00Z", "v1", "https://site.example/demo"),
    identify("i1", "2026-04-01T10:06:00Z", "v1", "ann@acme.com"),
    touch("t1", "2026-04-05T09:00:00Z", "ann@acme.com", "call", rep="Bo"),
    touch("t2", "2026-04-06T09:00:00Z", "bob@acme.org", "webinar", campaign="Spring"),
    account("acme.com", "2026-04-02T00:00:00Z", "a1", domains=["acme.org"]),
    deal("D1", "2026-04-10T00:00:00Z", "d1", account="acme.com", name="Big", amount="1000.00", stage="demo"),
    deal("D1", "2026-04-20T00:00:00Z", "d2", stage="closed_won"),
    refund("r1", "2026-05-02T00:00:00Z", "D1", "100.00"),
    deal("D2", "2026-04-11T00:00:00Z", "d3", account="beta.io", amount="500", stage="proposal"),
    deal("D3", "2026-04-12T00:00:00Z", "d4", account="gamma.io", amount="50", currency="EUR", stage="proposal"),
    refund("r2", "2026-05-03T00:00:00Z", "D2", "1"),
)
"""An ad, a call and a webinar bring acme.com a deal of 1000.00, of which 100.00 is paid back in May."""
