"""`python -m deploy.demo`: the sample world on this machine, which then goes on living.

    touchline dev ─▶ 120 days of facts through Kafka ─▶ wait for the totals ─▶ the live page
                     └ afterwards a few facts a second: Segment messages through the HTTP
                       door, what a CRM would send through Kafka

What it makes stays in this folder's `.touchline`, so the next run goes on where this one ended;
a folder with other data is left alone. Ctrl-C ends everything.
"""

import asyncio
import base64
import os
import signal
import sys
import time
import urllib.request
from collections.abc import AsyncIterator, Iterable, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

import click
import msgspec
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from deploy.messages import Fact
from deploy.world import DAYS, World, live, sample_world
from models import decoding, facts
from models.errors import TouchlineError, Unavailable
from models.settings import Settings
from streams import artifacts, children, config
from streams.load import Record, Sender, connected

DATA = Path(config.DEV_FOLDER)
MARK = DATA / "demo.json"
START_SECONDS = 300.0  # the first time, the servers are downloaded
TOTALS_SECONDS = 120
STOP_SECONDS = 20.0
AWAY_SECONDS = 60.0
POST_SECONDS = 10.0
FACTS_PER_SECOND = 4.0
FACTS_PER_CHUNK = 500
THROUGH_THE_DOOR = frozenset((facts.PAGE_VIEWS, facts.FORM_FILLS, facts.IDENTITIES))
EXAMPLES = (
    "report credits --model w_shaped --by channel",
    "report compare --models first_touch,linear --by campaign",
    "report pipeline",
    "audit",
)


class Mark(msgspec.Struct, frozen=True):
    """What stands in demo.json: the instant at which the world ends, and whether it is all loaded."""

    end: datetime
    loaded: bool = False


@click.command()
@click.option("--once", is_flag=True, help="Load the world, wait for its totals, and end.")
def main(once: bool) -> None:
    """Show Touchline at work on an invented market: 200 companies, 120 days, and what follows."""
    console = Console(highlight=False)
    try:
        asyncio.run(_run(console, once))
    except TouchlineError as error:
        console.print(f"The demo cannot go on: {error}", style="red", markup=False, soft_wrap=True)
        sys.exit(1)


async def _run(console: Console, once: bool) -> None:
    """Bring all up, load, show, live; a signal cancels it wherever it is."""
    _cancel_on_signals(asyncio.current_task())
    try:
        mark = _mark()
        async with _touchline(console) as dev:
            settings = config.load()
            world = await _loaded_world(mark, settings, console)
            _show(settings, console)
            if not once:
                await _first(_live(world, settings), _until_ended(dev))
    except asyncio.CancelledError:
        console.print("The demo has ended; the next one goes on from here.")


def _cancel_on_signals(task: "asyncio.Task[Any] | None") -> None:
    for each in (signal.SIGINT, signal.SIGTERM):
        if task is not None:
            asyncio.get_running_loop().add_signal_handler(each, task.cancel)


def _mark() -> Mark:
    """The world of this folder: the one begun here before, else one that ends now.

    Raises Unavailable when the folder or the settings belong to something else than the demo.
    """
    settings = config.load(find_dev=False)
    if settings.kafka.bootstrap or settings.redis.url:
        raise Unavailable("the settings here name Kafka or Redis servers, and the demo brings its own: unset them")
    if MARK.exists():
        return msgspec.json.decode(MARK.read_bytes(), type=Mark)
    if any((DATA / server).exists() for server in ("kafka", "redis")):
        raise Unavailable(f"{DATA.absolute()} holds data that is not the demo's: run it in another folder")
    return _note(Mark(datetime.now(UTC).replace(second=0, microsecond=0)))


def _note(mark: Mark) -> Mark:
    DATA.mkdir(exist_ok=True)
    MARK.write_bytes(msgspec.json.encode(mark))
    return mark


@asynccontextmanager
async def _touchline(console: Console) -> AsyncIterator[children.Child]:
    """A running `touchline dev`, taken down at the end; Unavailable when it does not come up."""
    first = "" if artifacts.fetched() else " (the first time they are downloaded, about 60 MB)"
    command = (sys.executable, "-m", "streams.cli", "dev")
    with console.status(f"Starting Kafka, Redis, worker and web{first} …"):
        dev = children.start("touchline dev", command, DATA / "logs" / "demo.log", env=os.environ)
        try:
            await children.ready(dev, _is_up, START_SECONDS)
        except BaseException:
            await dev.stop(STOP_SECONDS)
            raise
    try:
        yield dev
    finally:
        with console.status("Stopping …"):
            await dev.stop(STOP_SECONDS)


async def _is_up() -> bool:
    return config.running_dev(DATA) is not None


async def _loaded_world(mark: Mark, settings: Settings, console: Console) -> World:
    """The world, in the totals; if a former run loaded it, its open deals have moved on."""
    world = sample_world(mark.end)
    if mark.loaded:
        return world._replace(open_deals=())
    await _load(world.facts, settings, console)
    with console.status("Waiting until every fact is in the totals …"):
        await _until_in_totals()
    _note(Mark(mark.end, loaded=True))
    return world


async def _load(history: Sequence[Fact], settings: Settings, console: Console) -> None:
    """Send the facts through Kafka; their ids make doing it twice harmless."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress:
        task = progress.add_task(f"Loading {DAYS} days", total=len(history))
        async with connected(settings) as sender:
            for chunk in _chunks(history):
                await _send(chunk, sender, settings)
                progress.advance(task, len(chunk))
            await sender.flush()


def _chunks(history: Sequence[Fact]) -> Iterator[Sequence[Fact]]:
    return (history[start : start + FACTS_PER_CHUNK] for start in range(0, len(history), FACTS_PER_CHUNK))


async def _send(chunk: Iterable[Fact], sender: Sender, settings: Settings) -> None:
    records: dict[str, list[Record]] = {}
    for topic, message in chunk:
        records.setdefault(topic, []).append(_record(topic, message, settings))
    for topic, of_topic in records.items():
        await sender.send(topic, of_topic)


def _record(topic: str, message: dict[str, Any], settings: Settings) -> Record:
    value = msgspec.json.encode(message)
    fact = decoding.decode(topic, value, time.time_ns() // 1000, settings)
    return facts.key_of(topic, fact), value


async def _until_in_totals() -> None:
    """Run `touchline wait`; Unavailable with its words when it gives up."""
    command = (sys.executable, "-m", "streams.cli", "wait", "--timeout", str(TOTALS_SECONDS))
    waiting = children.start("touchline wait", command, DATA / "logs" / "wait.log", env=os.environ)
    try:
        async with asyncio.timeout(TOTALS_SECONDS + 30):
            code = await waiting.exited()
    except TimeoutError:
        raise Unavailable(f"the totals were not complete after {TOTALS_SECONDS} s") from None
    finally:
        waiting.kill()
    if code != 0:
        raise Unavailable(f"the totals were not complete after {TOTALS_SECONDS} s: {waiting.log_tail()}")


def _show(settings: Settings, console: Console) -> None:
    """Where to look, and what to try."""
    touchline = Path(sys.executable).with_name("touchline")
    shown = touchline.relative_to(Path.cwd()) if touchline.is_relative_to(Path.cwd()) else touchline
    console.print(f"\nThe live page: [bold]{settings.web.address}[/bold]\n\nTry in another terminal, in this folder:")
    for example in EXAMPLES:
        console.print(f"  {shown} {example}", markup=False, soft_wrap=True)
    console.print("\nCtrl-C ends the demo.")


async def _live(world: World, settings: Settings) -> None:
    """A few facts a second, without end."""
    rng = Random(time.time_ns())
    async with connected(settings) as sender:
        for topic, message in live(world, rng, lambda: datetime.now(UTC)):
            if topic in THROUGH_THE_DOOR:
                await _post(message, settings)
            else:
                await sender.send(topic, [_record(topic, message, settings)])
                await sender.flush()
            await asyncio.sleep(rng.expovariate(FACTS_PER_SECOND))


async def _post(message: dict[str, Any], settings: Settings) -> None:
    """Send a message as a Segment client does, again while the door is shut.

    Raises Unavailable when it stays so for `AWAY_SECONDS`: `dev` starts a web role that died again.
    """
    give_up = time.monotonic() + AWAY_SECONDS
    while True:
        try:
            await asyncio.to_thread(_post_once, message, settings)
            return
        except OSError as error:
            if time.monotonic() > give_up:
                raise Unavailable(f"the HTTP door at {settings.web.address}: {error}") from error
        await asyncio.sleep(1.0)


def _post_once(message: dict[str, Any], settings: Settings) -> None:
    """One request; OSError (urllib's errors are) when it is not answered with success."""
    key = base64.b64encode(f"{settings.web.write_keys[0]}:".encode()).decode()
    body = msgspec.json.encode({"batch": [message], "sentAt": datetime.now(UTC)})
    headers = {"authorization": f"Basic {key}", "content-type": "application/json"}
    request = urllib.request.Request(f"{settings.web.address}/v1/batch", body, headers)
    with urllib.request.urlopen(request, timeout=POST_SECONDS) as answer:
        answer.read()


async def _until_ended(dev: children.Child) -> None:
    code = await dev.exited()
    raise Unavailable(f"touchline dev ended with exit code {code}; {dev.log} ends with:\n{dev.log_tail()}")


async def _first(*endless: Any) -> None:
    """Run all until one fails, and raise its error."""
    tasks = [asyncio.ensure_future(each) for each in endless]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


if __name__ == "__main__":
    main()
