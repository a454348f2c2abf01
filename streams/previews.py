"""Previews: other rules computed beside the live ones, compared with them, and taken over.

`touchline settings preview | versions | take-over | drop`. Each step is told to the topic
`settings`: {"messageId", "timestamp", "version", "by", "changes": [{"setting", "old", "new"}], "state"}.
"""

import asyncio
import getpass
import time
from collections.abc import Callable
from typing import Any, Literal

import msgspec
from msgspec.structs import replace

from models.errors import BadInput, NotFound, Unavailable
from models.lanes import LANES
from models.settings import Settings, rules_fingerprint
from models.times import SECOND, to_text
from streams import kafka_clients, standing, versions
from streams.keys import table_key
from streams.load import connected
from streams.standing import RUN_KEY, Standing
from streams.tables import delete_tables
from streams.topics import INTERNAL, OUTSIDE, SETTINGS, create_topics, full_name
from streams.versions import PREVIEWS_KEY, Change, Preview
from streams.waiting import POLL_SECONDS, pausing, still

State = Literal["preview", "taken_over", "dropped"]
STILL_SECONDS = 30.0
TAKEN_UP_SECONDS = 45.0
_FIXED = ("partitions",)


class VersionRow(msgspec.Struct, frozen=True):
    """A version: `progress` is the part of the live facts that it has read, 1 when it stands where live does."""

    version: str
    state: Literal["live", "preview"]
    progress: float
    by: str | None
    at: str | None
    changes: list[Change]


async def begin(redis: Any, settings: Settings, name: str) -> Preview:
    """Begin to compute a preview under these settings, beside the live version.

    Workers take it up within a second or two. Raises BadInput when the name is taken,
    nothing differs from the live version, or something does that cannot.
    """
    live = await versions.in_force(redis, settings)
    if versions.check_name(name) in await versions.previews(redis) or name == live.lanes.version:
        raise BadInput("version", "a name that no version has", name)
    changes = _checked(versions.changes_between(live, settings))
    mine = replace(settings, lanes=replace(settings.lanes, version=name))
    preview = Preview(getpass.getuser(), _now(), changes)
    await create_topics(mine)
    await redis.set(versions.rules_key(name), rules_fingerprint(settings))
    await _write_books(redis, mine)
    await redis.hset(PREVIEWS_KEY, name, msgspec.json.encode(preview))
    await _tell(settings, name, preview, "preview")
    return preview


def _checked(changes: list[Change]) -> list[Change]:
    if not changes:
        raise BadInput("settings", "rules that differ from the live version's", "the same")
    for change in changes:
        if change.setting in _FIXED:
            raise BadInput(change.setting, f"{change.old}: topics keep their partitions", change.new)
    return changes


async def _write_books(redis: Any, settings: Settings) -> None:
    """Every lane partition begins in one run, at the first fact."""
    run = await redis.get(RUN_KEY) or b"1"
    pipeline = redis.pipeline(transaction=False)
    for lane in LANES:
        for partition in range(settings.partitions):
            pipeline.hset(table_key(settings, lane, partition, "book"), mapping={"run": run, "commit": 0})
    await pipeline.execute()


async def listed(redis: Any, settings: Settings) -> list[VersionRow]:
    """The live version, then the previews."""
    live = await versions.in_force(redis, settings)
    rows = [VersionRow(live.lanes.version or versions.LIVE, "live", 1.0, None, None, [])]
    for name, preview in sorted((await versions.previews(redis)).items()):
        rows.append(VersionRow(name, "preview", await progress(redis, live, name), *_told(preview)))
    return rows


def _told(preview: Preview) -> tuple[str, str, list[Change]]:
    return preview.by, preview.at, preview.changes


async def progress(redis: Any, live: Settings, name: str) -> float:
    """Which part of the facts that live has read the preview has too; 1 only when nothing is on its way in it."""
    theirs = await versions.in_force(redis, live, name)
    async with standing.ends_reader(theirs) as ends:
        mine = await standing.read_standing(redis, live)
        now = await standing.read_standing(redis, theirs)
        on_its_way = bool(now.behind(await ends(INTERNAL))) or any(now.outboxes.values())
    places = [(topic, partition) for topic in OUTSIDE for partition in range(live.partitions)]
    wanted = {place: mine.committed(place) for place in places}
    total = sum(wanted.values())
    missing = sum(now.behind(wanted).values())
    share = (total - missing) / total if total else 1.0
    return min(share, 0.999) if missing or on_its_way else 1.0


async def take_over(redis: Any, settings: Settings, name: str, tell: Callable[[str], None] = lambda said: None) -> None:
    """Make a preview the live version: no fact is read in the moment in which the pointer turns.

    Raises NotFound for no preview, BadInput while its progress is below 1, Unavailable
    when the two do not come to stand at the same facts in time.
    """
    live = await versions.in_force(redis, settings)
    preview = await _preview(redis, name)
    theirs = await versions.in_force(redis, settings, name)
    if (share := await progress(redis, live, name)) < 0.999:
        raise BadInput("version", "a preview that has read what live has (progress 1)", f"progress {share:.3f}")
    async with pausing(redis) as token:
        await same_facts(redis, live, theirs, token)
        await redis.set(versions.LIVE_KEY, name)
        await redis.hdel(PREVIEWS_KEY, name)
        tell("the pointer is turned; workers change over")
        await _taken_up(redis, name)
    await _tell(settings, name, preview, "taken_over")
    await _delete(redis, live)


async def same_facts(redis: Any, some: Settings, others: Settings, token: str) -> tuple[Standing, Standing]:
    """Both versions, at rest at the same facts; to be called within a pause."""
    try:
        async with (
            asyncio.timeout(STILL_SECONDS),
            standing.ends_reader(some) as one,
            standing.ends_reader(others) as two,
        ):
            while True:
                mine = await still(redis, some, one, token)
                theirs = await still(redis, others, two, token)
                if _facts_of(mine, some) == _facts_of(theirs, some):
                    return mine, theirs
                await asyncio.sleep(POLL_SECONDS)
    except TimeoutError:
        raise Unavailable(
            "the versions do not come to stand at the same facts: is the preview being computed?"
        ) from None


def _facts_of(now: Standing, settings: Settings) -> list[int]:
    return [now.committed((topic, partition)) for topic in OUTSIDE for partition in range(settings.partitions)]


async def _taken_up(redis: Any, name: str) -> None:
    """Wait until all workers that live work for the new version, so that no fact meets a silent one."""
    give_up = time.monotonic() + TAKEN_UP_SECONDS
    while time.monotonic() < give_up:
        beats = await standing.workers(redis)
        if beats and all(beat.get("version") == name and _has_partitions(beat) for beat in beats.values()):
            return
        await asyncio.sleep(POLL_SECONDS)


def _has_partitions(beat: dict[str, Any]) -> bool:
    return any(lane["partitions"] for lane in beat["lanes"].values())


async def drop(redis: Any, settings: Settings, name: str) -> None:
    """Give a preview up and delete its tables. Raises NotFound."""
    preview = await _preview(redis, name)
    theirs = await versions.in_force(redis, settings, name)
    await redis.hdel(PREVIEWS_KEY, name)
    await _tell(settings, name, preview, "dropped")
    await _delete(redis, theirs)


async def _preview(redis: Any, name: str) -> Preview:
    preview = (await versions.previews(redis)).get(name)
    if preview is None:
        raise NotFound(f"no preview {name} is known")
    return preview


async def _delete(redis: Any, settings: Settings) -> None:
    """Delete a version's tables, rules and, where they bear its name, internal topics."""
    for lane in LANES:
        await delete_tables(redis, settings, lane)
    await redis.delete(versions.rules_key(settings.lanes.version))
    if settings.lanes.version:
        async with kafka_clients.admin(settings) as kafka:
            await kafka.delete_topics([full_name(settings, topic) for topic in INTERNAL])


async def _tell(settings: Settings, name: str, preview: Preview, state: State) -> None:
    """Write what was done into the topic `settings`."""
    now = _now()
    body = {
        "messageId": f"{name}:{state}:{now}",
        "timestamp": now,
        "version": name,
        "by": getpass.getuser(),
        "changes": preview.changes,
        "state": state,
    }
    async with connected(settings) as sender:
        await sender.send(SETTINGS, [(name, msgspec.json.encode(body))])
        await sender.flush()


def _now() -> str:
    return to_text(time.time_ns() // 1000 // SECOND * SECOND)
