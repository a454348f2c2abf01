"""`touchline rebuild`: empties the tables and lets the lanes recompute them from Kafka.

    fence ▶ delete ▶ begin another run ▶ write new books ▶ open ▶ the lanes read from the beginning

From fencing to opening a book is marked `rebuilding`: no worker can commit to its
partition or take it. A rebuild that is killed leaves the mark, and running it again
begins anew. Messages of the former run carry its number and are skipped.
"""

import asyncio
import time
from typing import Any

from msgspec.structs import replace

from models.lanes import LANES
from models.settings import Settings, rules_fingerprint
from streams import standing
from streams.keys import table_key
from streams.standing import RUN_KEY, Ends, LanePartition
from streams.tables import delete_tables
from streams.topics import INTERNAL
from streams.versions import in_force, rules_key
from streams.waiting import POLL_SECONDS, check_pause, pausing

TAKEN_UP_SECONDS = 30.0
_KEPT = (b"epoch", b"rebuilding")


async def rebuild(redis: Any, settings: Settings) -> bool:
    """Empty the live tables and begin again under the rules of `settings`.

    True when running workers have taken that up, False without any.

    Workers need not be stopped. Raises Unavailable when Kafka is away or another rebuild
    takes over; whatever was done by then is done again the next time.
    """
    settings = replace(settings, lanes=(await in_force(redis, settings)).lanes)
    async with standing.ends_reader(settings) as ends, pausing(redis, by_force=True) as token:
        await ends(INTERNAL)  # nothing is emptied while Kafka cannot be asked
        await _fence(redis, settings)
        await _empty(redis, settings)
        await redis.setnx(RUN_KEY, 1)
        run = await redis.incr(RUN_KEY)
        await _begin(redis, settings, run, await ends(INTERNAL))
        await check_pause(redis, token)
        await _open(redis, settings)
        return await _taken_up(redis, settings, token)


def _places(settings: Settings) -> list[LanePartition]:
    return [(lane, partition) for lane in LANES for partition in range(settings.partitions)]


async def _fence(redis: Any, settings: Settings) -> None:
    """Nobody can take a partition any more, and nobody who has one can commit."""
    pipeline = redis.pipeline(transaction=False)
    for place in _places(settings):
        pipeline.hset(table_key(settings, *place, "book"), "rebuilding", 1)
        pipeline.hincrby(table_key(settings, *place, "book"), "epoch", 1)
    await pipeline.execute()


async def _empty(redis: Any, settings: Settings) -> None:
    """Delete every key of every lane but the books, which hold the fence."""
    books = {table_key(settings, *place, "book").encode() for place in _places(settings)}
    for lane in LANES:
        await delete_tables(redis, settings, lane, kept=books)


async def _begin(redis: Any, settings: Settings, run: int, ends: Ends) -> None:
    """Write the new run's books: internal topics from now on, facts from the first; nobody is alerted twice."""
    now = time.time_ns() // 1000
    for lane, partition in _places(settings):
        book = table_key(settings, lane, partition, "book")
        internal = LANES[lane].internal
        former = [field for field in await redis.hkeys(book) if field not in _KEPT]
        if former:
            await redis.hdel(book, *former)
        fields = {"run": run, "commit": 0, f"offset:{internal}": ends[internal, partition], "alerts_since": now}
        await redis.hset(book, mapping=fields)
    await redis.set(rules_key(settings.lanes.version), rules_fingerprint(settings))


async def _open(redis: Any, settings: Settings) -> None:
    pipeline = redis.pipeline(transaction=False)
    for place in _places(settings):
        pipeline.hdel(table_key(settings, *place, "book"), "rebuilding")
    await pipeline.execute()


async def _taken_up(redis: Any, settings: Settings, token: str) -> bool:
    """True when every partition's owner has committed to its new book, False when no worker lives.

    An owner with nothing to do would not notice that it was fenced; that it has to note
    the pause makes it commit, fail, and take its partition anew.
    """
    workers = list(await standing.workers(redis))
    give_up = time.monotonic() + TAKEN_UP_SECONDS
    while await standing.heartbeats(redis, workers):
        if (await standing.read_standing(redis, settings)).keeps(token) or time.monotonic() > give_up:
            return True
        await asyncio.sleep(POLL_SECONDS)
    return False
