"""`touchline wait`: until every fact produced so far is in the totals; and the pause that audits need.

Facts are in the totals once the lanes have read them and no message they caused is on
its way. Where facts keep flowing the lanes may never stand still by themselves; then no
new ones are taken for a moment.
"""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from models.errors import Unavailable
from models.settings import Settings
from streams import standing
from streams.answers import translated
from streams.reaching import AWAY, check
from streams.standing import Ends, ReadEnds, Standing
from streams.topics import INTERNAL, OUTSIDE
from streams.versions import in_force

PAUSE_KEY = "touchline:pause"
PAUSE_SECONDS = 20
PAUSE_RENEWED_SECONDS = 4.0
POLL_SECONDS = 0.03
FLOWING_SECONDS = 5.0
"""How long the lanes may go on by themselves before they are paused to see them still."""
AWAY_POLL_SECONDS = 0.2

Progress = Callable[[int, int], None]
"""Told how many of how many facts are in the totals."""

_RELEASE = "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end return 0"


def _untold(done: int, total: int) -> None:
    pass


class _TooLate(Exception):
    """The time is over; said by ourselves too, since a client may swallow a cancellation."""


class Waiting:
    """A wait on its way: the facts it waits for, and what was last seen to lag."""

    def __init__(self, redis: Any, settings: Settings, tell: Progress) -> None:
        self._redis = redis
        self._settings = settings
        self._tell = tell
        self._target: Ends | None = None
        self._trouble = ""
        self._deadline = float("inf")

    async def caught_up(self, seconds: float | None) -> bool:
        """Wait until every fact produced before the call is in the totals; False: not in time.

        Servers that are away are waited for. Raises BadInput when settings keep us out of them.
        """
        if seconds is not None:
            self._deadline = time.monotonic() + seconds
        try:
            async with asyncio.timeout(seconds):
                while not await self._try():
                    await self._pause(AWAY_POLL_SECONDS)
        except (TimeoutError, _TooLate):
            return False
        return True

    async def _pause(self, seconds: float = POLL_SECONDS) -> None:
        if time.monotonic() > self._deadline:
            raise _TooLate
        await asyncio.sleep(seconds)

    async def _try(self) -> bool:
        try:
            with translated():
                self._settings = await in_force(self._redis, self._settings)
            async with standing.ends_reader(self._settings) as ends:
                await self._until_read(ends)
                await self._until_drained(ends)
        except (Unavailable, *AWAY) as error:
            self._trouble = str(error)
            await check(self._settings)
            return False
        return True

    async def _until_read(self, ends: ReadEnds) -> None:
        if self._target is None:
            self._target = await ends(OUTSIDE)
        total = sum(self._target.values())
        while lags := (await self._standing()).behind(self._target):
            self._tell(total - sum(lags.values()), total)
            await self._pause()
        self._tell(total, total)

    async def _until_drained(self, ends: ReadEnds) -> None:
        patience = time.monotonic() + FLOWING_SECONDS
        while not await standing.drained(self._redis, self._settings, ends):
            if time.monotonic() > patience:
                async with pausing(self._redis) as token:
                    await still(self._redis, self._settings, ends, token)
                return
            await self._pause()

    async def _standing(self) -> Standing:
        now = await standing.read_standing(self._redis, self._settings)
        self._trouble = ""
        return now

    async def lag(self) -> str:
        """What lags, in words."""
        try:
            async with asyncio.timeout(5.0):
                return await self._lag()
        except (TimeoutError, Unavailable, *AWAY) as error:
            return self._trouble or str(error) or "a server does not answer"

    async def _lag(self) -> str:
        if self._trouble or self._target is None:
            return self._trouble or "Kafka has not answered"
        now = await standing.read_standing(self._redis, self._settings)
        if now.rebuilding:
            return "a rebuild was not finished: run `touchline rebuild` again"
        async with standing.ends_reader(self._settings) as ends:
            waiting = now.behind(self._target) | now.behind(await ends(INTERNAL))
        words = [f"{topic} {lag:,} behind" for topic, lag in waiting.items()]
        if unpublished := sum(now.outboxes.values()):
            words.append(f"{unpublished:,} messages to publish")
        if not await standing.workers(self._redis):
            words.append("no worker is running")
        return ", ".join(words) or "the lanes did not stand still"


async def until_caught_up(
    redis: Any, settings: Settings, seconds: float | None = None, tell: Progress = _untold
) -> str | None:
    """None once every fact produced before the call is in the totals; after `seconds` what lags."""
    waiting = Waiting(redis, settings, tell)
    return None if await waiting.caught_up(seconds) else await waiting.lag()


@asynccontextmanager
async def pausing(redis: Any, *, by_force: bool = False) -> AsyncIterator[str]:
    """No lane takes facts from outside within the block, soon after it begins.

    Waits for another's pause to end, unless `by_force`. The token given is what lanes
    write into their books; the pause ends by itself if this process dies.
    """
    token = uuid.uuid4().hex
    while not await redis.set(PAUSE_KEY, token, ex=PAUSE_SECONDS, nx=not by_force):
        await asyncio.sleep(POLL_SECONDS)
    renewing = asyncio.create_task(_renew(redis))
    try:
        yield token
    finally:
        renewing.cancel()
        await redis.eval(_RELEASE, 1, PAUSE_KEY, token)


async def _renew(redis: Any) -> None:
    while True:
        await asyncio.sleep(PAUSE_RENEWED_SECONDS)
        await redis.expire(PAUSE_KEY, PAUSE_SECONDS)


async def still(redis: Any, settings: Settings, ends: ReadEnds, token: str) -> Standing:
    """Where the lanes stand, once all keep the pause (or no worker lives) and nothing is on its way.

    Raises Unavailable when another took the pause over.
    """
    workers = list(await standing.workers(redis))
    while True:
        now = await standing.drained(redis, settings, ends)
        if now and (now.keeps(token) or not await standing.heartbeats(redis, workers)):
            return now
        await check_pause(redis, token)
        await asyncio.sleep(POLL_SECONDS)


async def check_pause(redis: Any, token: str) -> None:
    """Raises Unavailable when the pause is no longer this one."""
    if await redis.get(PAUSE_KEY) != token.encode():
        raise Unavailable("another audit or rebuild took over: try again")
