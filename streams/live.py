"""The live page's stream: one poller reads Redis for all open pages, each gets what changed.

A page is sent a snapshot (JSON) when it opens and, at most once a second, whenever its own
snapshot differs from the last one. A page that reads too slowly misses snapshots in between,
never the latest; one that takes nothing for `SEND_SECONDS` is dropped.
"""

import asyncio
import logging
from collections.abc import Iterator
from contextlib import contextmanager

import msgspec
from redis.asyncio import Redis
from starlette.types import Receive, Send

from models.errors import TouchlineError, Unavailable
from models.settings import Settings
from streams.snapshot import FORECAST_SECONDS, Remembered, Row, snapshot

POLL_SECONDS = 1.0
HEARTBEAT_SECONDS = 15.0
SEND_SECONDS = 20.0
MOST_PAGES = 200

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
        self._remembered = Remembered(FORECAST_SECONDS)

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
            read = await snapshot(self._redis, self._settings, wanted, self._remembered)
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
