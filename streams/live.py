"""The live page's stream: one poller reads Redis for all open pages, each gets what changed.

A page is sent a snapshot (JSON) when it opens and, at most once a second, whenever its own
snapshot differs from the last one. A page that reads too slowly misses snapshots in between,
never the latest; one that takes nothing for `SEND_SECONDS` is dropped.
"""

import asyncio
import heapq
import importlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import msgspec
from redis.asyncio import Redis
from starlette.types import Receive, Send

from models.catalogue import every_model
from models.errors import TouchlineError, Unavailable
from models.money import DECIMALS
from models.settings import Settings
from streams.answers import translated
from streams.tables import key

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 20.0
MOST_PAGES = 200
NEWEST = 20
FORECAST_SECONDS = 10.0
FORECAST_MONTHS = 3

Row = dict[str, Any]

log = logging.getLogger(__name__)

_START = {
    "type": "http.response.start",
    "status": 200,
    "headers": [
        (b"content-type", b"text/event-stream; charset=utf-8"),
        (b"cache-control", b"no-store"),
        (b"x-accel-buffering", b"no"),
    ],
}
_HEARTBEAT = b"event: alive\ndata: 1\n\n"
_ADDS_UP = "linear"
"""A model whose credits add up to the whole, as those of `participation` do not."""


class Page:
    """One open page: the models it compares and the newest event it has not been sent."""

    def __init__(self, models: tuple[str, ...]) -> None:
        self.models = models
        self._latest = b""
        self._sent = b""
        self._news = asyncio.Event()

    def offer(self, snapshot: bytes) -> None:
        """Let the page know the newest snapshot; what it was offered before is forgotten."""
        self._latest = snapshot
        self._news.set()

    def wake(self) -> None:
        """Let `next_event` return now."""
        self._news.set()

    async def next_event(self) -> bytes:
        """The next event, or a heartbeat when nothing changes for a while."""
        try:
            async with asyncio.timeout(HEARTBEAT_SECONDS):
                await self._news.wait()
        except TimeoutError:
            return _HEARTBEAT
        self._news.clear()
        if self._latest == self._sent:
            return b""
        self._sent = self._latest
        return b"data: " + self._sent + b"\n\n"


class Live:
    """All open pages and the one task that reads for them."""

    def __init__(self, redis: Redis, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._pages: set[Page] = set()
        self._opened = asyncio.Event()
        self._closing = False
        self._forecast: list[Row] = []
        self._forecast_at = -FORECAST_SECONDS

    def follow(self, settings: Settings) -> None:
        """Go on under other rules."""
        self._settings = settings

    @property
    def pages(self) -> int:
        """How many pages are open."""
        return len(self._pages)

    async def run(self) -> None:
        """Read once a second while any page is open."""
        while True:
            await self._opened.wait()
            await self._poll()
            await asyncio.sleep(POLL_SECONDS)

    def close(self) -> None:
        """End all streams: the server is going down."""
        self._closing = True
        for page in self._pages:
            page.wake()

    async def stream(self, models: tuple[str, ...], receive: Receive, send: Send) -> None:
        """Send one page its events until it leaves, hangs or the server ends.

        Raises Unavailable, before anything is sent, when too many pages are open.
        """
        if len(self._pages) >= MOST_PAGES:
            raise Unavailable(f"{MOST_PAGES} live pages are open")
        with self._open(models) as page:
            gone = asyncio.ensure_future(_until_gone(receive))
            gone.add_done_callback(lambda _: page.wake())
            try:
                await send(_START)
                while not (gone.done() or self._closing):
                    await _send_in_time(send, await page.next_event())
                await send({"type": "http.response.body", "body": b""})
            except TimeoutError:
                log.warning("a live page took nothing for %s s and is dropped", SEND_SECONDS)
            finally:
                gone.cancel()

    @contextmanager
    def _open(self, models: tuple[str, ...]) -> Iterator[Page]:
        page = Page(models)
        self._pages.add(page)
        self._opened.set()
        try:
            yield page
        finally:
            self._pages.discard(page)
            if not self._pages:
                self._opened.clear()

    async def _poll(self) -> None:
        wanted = sorted({model for page in self._pages for model in page.models})
        try:
            read = {**await snapshot(self._redis, self._settings, wanted), "forecast": await self._next_months()}
        except TouchlineError as error:
            read = {"trouble": str(error), "revenue": {}}
        except Exception:
            log.exception("the live snapshot could not be read")
            read = {"trouble": "the totals could not be read", "revenue": {}}
        encoded: dict[tuple[str, ...], bytes] = {}
        for page in self._pages:
            if page.models not in encoded:
                encoded[page.models] = msgspec.json.encode(_part(read, page.models))
            page.offer(encoded[page.models])

    async def _next_months(self) -> list[Row]:
        """The forecast of this month and the next ones, told anew every few seconds."""
        now = asyncio.get_running_loop().time()
        if now - self._forecast_at >= FORECAST_SECONDS:
            outlook: Any = importlib.import_module("streams.outlook")
            with translated():
                self._forecast = await outlook.forecast(self._redis, self._settings, periods=FORECAST_MONTHS)
            self._forecast_at = now
        return self._forecast


async def snapshot(redis: Redis, settings: Settings, models: Sequence[str]) -> Row:
    """What the live page shows: pot, pipeline, revenue by channel under each model, newest touches.

    Raises Unavailable when Redis is away.
    """
    reports: Any = importlib.import_module("streams.reports")
    with translated():
        revenue = {
            model: await reports.credits(redis, settings, model=model, by="channel", conversion="won")
            for model in {*models, _ADDS_UP}
        }
        pipeline = await reports.pipeline(redis, settings)
        newest = await newest_touches(redis, settings)
    return {
        "currency": settings.currency,
        "decimals": DECIMALS[settings.currency],
        "models": list(every_model(settings)),
        "writeKey": next(iter(settings.web.write_keys), ""),
        "pot": _pot(revenue[_ADDS_UP]),
        "pipeline": pipeline,
        "revenue": revenue,
        "newest": newest,
    }


async def newest_touches(redis: Redis, settings: Settings) -> list[Row]:
    """The newest touches of all accounts, newest first; each accounts partition keeps its own."""
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.lrange(key(settings.tables_of("accounts"), partition, "newest"), 0, NEWEST - 1)
    lists = await pipeline.execute()
    touches = (msgspec.json.decode(touch) for each in lists for touch in each)
    return heapq.nlargest(NEWEST, touches, key=lambda touch: touch["at"])


def _pot(rows: Sequence[Row]) -> Row:
    """All won revenue: what its credits add up to, refunds within."""
    return {"amount": sum(row["amount"] for row in rows), "count": sum(row["count"] for row in rows)}


def _part(read: Row, models: tuple[str, ...]) -> Row:
    revenue = read["revenue"]
    return read | {"revenue": {model: revenue[model] for model in models if model in revenue}}


async def _send_in_time(send: Send, event: bytes) -> None:
    if event:
        async with asyncio.timeout(SEND_SECONDS):
            await send({"type": "http.response.body", "body": event, "more_body": True})


async def _until_gone(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
