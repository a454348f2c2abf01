"""Entities as they stand in Redis, for those who only read: reports and audit."""

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from models import lanes
from models.lanes import AnyEntity
from models.partitions import partition_of
from models.reports import Parts
from models.rules import Rules
from models.settings import Settings
from streams.keys import key
from streams.redis_clients import batched

_READ_AT_ONCE = 500
_SCANNED_AT_ONCE = 5000
_unpack_parts = msgspec.msgpack.Decoder(dict[str, bytes]).decode


async def entity_at_rest(redis: Any, rules: Rules, name: str) -> AnyEntity:
    """The entity as it was last committed; one without parts when nothing is known of it."""
    parts = await parts_at_rest(redis, rules.settings, [name])
    return lanes.builder(rules)(name, parts[name])


async def parts_at_rest(redis: Any, settings: Settings, names: Iterable[str]) -> dict[str, Parts]:
    """The parts of each entity, whatever partition keeps it; empty where nothing is known."""
    found: dict[str, Parts] = {}
    for some in batched(dict.fromkeys(names), _READ_AT_ONCE):
        found.update(await _read(redis, settings, some))
    return found


async def _read(redis: Any, settings: Settings, names: Sequence[str]) -> dict[str, Parts]:
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.get(_key(settings, "e", name))
    blobs = dict(zip(names, await pipeline.execute(), strict=True))
    spread = [name for name, blob in blobs.items() if blob == b""]
    whole = {name: _unpack_parts(blob) if blob else {} for name, blob in blobs.items()}
    return {**whole, **await _read_spread(redis, settings, spread)}


async def _read_spread(redis: Any, settings: Settings, names: Sequence[str]) -> dict[str, Parts]:
    if not names:
        return {}
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(_key(settings, "p", name))
    hashes = zip(names, await pipeline.execute(), strict=True)
    return {name: {part.decode(): value for part, value in fields.items()} for name, fields in hashes}


def _key(settings: Settings, kind: str, name: str) -> str:
    partition = partition_of(lanes.id_of(name), settings.partitions)
    return key(settings.tables_of(lanes.lane_of(name)), partition, kind, name)


async def names_of(redis: Any, settings: Settings, kind: str) -> list[str]:
    """Every entity of a kind that is kept; looks at each key in Redis, so not for reports."""
    names = []
    lane = settings.tables_of(lanes.LANE_OF_ENTITY[kind])
    async for found in redis.scan_iter(match=f"{{{lane}:*}}:e:{kind}:*", count=_SCANNED_AT_ONCE):
        names.append(found.decode().partition("}:e:")[2])
    return names
