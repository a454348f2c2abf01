"""The totals of every partition, as reports read them."""

from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from typing import Any

from models.counts import Numbers
from models.flows import ALL_TIME, Period
from models.settings import Settings
from models.vectors import numbers_of, unpack_numbers, unpack_vector
from streams.keys import COUNTING_LANES, DAYS, MONTHS, SCANNED_AT_ONCE, table_key
from streams.redis_clients import batched

_NUMBER_BYTES = 8
_DAY, _MONTH = len("2026-04-03"), len("2026-04")

Fields = Mapping[bytes, bytes]
"""A hash, or some of its fields."""


def counted(value: bytes) -> Numbers:
    """The numbers of a count at rest."""
    return tuple(unpack_numbers(value))


async def cell_fields(
    redis: Any, settings: Settings, names: tuple[str, str], period: Period, *, by_day: bool
) -> list[Fields]:
    """The cells under a conversion's and dimension's name, by partition: of a period at least.

    Unless asked by day, the period's whole months come as such, with the days of those at its ends.
    """
    if by_day:
        return [_within(fields, period) for fields in await _every_partition(redis, settings, DAYS, *names)]
    months = await _every_partition(redis, settings, MONTHS, *names)
    return [*months, *await _days_at_ends(redis, settings, names, months, period)]


def _within(fields: Fields, period: Period) -> Fields:
    """The fields of days that lie in the period."""
    if period == ALL_TIME:
        return fields
    since, until = period.since.encode(), (period.until or "~").encode()
    return {field: value for field, value in fields.items() if since <= field[:_DAY] <= until}


async def _every_partition(redis: Any, settings: Settings, *names: str) -> list[Fields]:
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.hgetall(table_key(settings, "accounts", partition, *names))
    hashes: list[Fields] = await pipeline.execute()
    return hashes


async def _days_at_ends(
    redis: Any, settings: Settings, names: tuple[str, str], months: Sequence[Fields], period: Period
) -> list[Fields]:
    """The days of the period in months that do not lie in it wholly: they have the values that their month has."""
    wanted = [list(_days_of(fields, period)) for fields in months]
    pipeline = redis.pipeline(transaction=False)
    for partition, days in enumerate(wanted):
        if days:
            pipeline.hmget(table_key(settings, "accounts", partition, DAYS, *names), days)
    asked = [days for days in wanted if days]
    answers = await pipeline.execute() if asked else []
    return [
        {day: value for day, value in zip(days, values, strict=True) if value}
        for days, values in zip(asked, answers, strict=True)
    ]


def _days_of(fields: Fields, period: Period) -> Iterator[bytes]:
    """The fields of days that those of months may stand for, of the months that lie in the period partly."""
    names = {field[:_MONTH].decode() for field in fields}
    days = {
        name.encode(): [day for number in range(1, 32) if (day := f"{name}-{number:02}") in period]
        for name in period.months(names)
        if name not in period
    }
    for field in fields if days else ():
        yield from (day.encode() + field[_MONTH:] for day in days.get(field[:_MONTH], ()))


async def read_counts(redis: Any, settings: Settings, tables: Sequence[str]) -> dict[str, dict[str, Numbers]]:
    """Each table's numbers by field, added up over the partitions of the lanes that count."""
    found = await _of_every_partition(redis, settings, tables, "HGETALL")
    return {table: _summed(hashes) for table, hashes in zip(tables, found, strict=True)}


async def _of_every_partition(
    redis: Any, settings: Settings, tables: Sequence[str], command: str
) -> Iterator[list[Any]]:
    """Of each table of counts in turn what the command answers for its hash in every partition that counts."""
    places = [(lane, partition) for lane in COUNTING_LANES for partition in range(settings.partitions)]
    pipeline = redis.pipeline(transaction=False)
    for table in tables:
        for place in places:
            pipeline.execute_command(command, table_key(settings, *place, "counts", table))
    return batched(await pipeline.execute(), len(places))


def _summed(hashes: Iterable[Mapping[bytes, bytes]]) -> dict[str, Numbers]:
    """The sums of counts by field, as vectors (models.vectors) until all are added."""
    sums: dict[bytes, int] = {}
    widths: dict[bytes, int] = {}
    for fields in hashes:
        for name, value in fields.items():
            if len(value) == _NUMBER_BYTES:  # the most frequent by far
                sums[name] = sums.get(name, 0) + int.from_bytes(value, "little", signed=True)
            else:
                sums[name] = sums.get(name, 0) + unpack_vector(value)
                widths[name] = len(value) // _NUMBER_BYTES
    return {
        name.decode(): tuple(numbers_of(total, widths[name])) if name in widths else (total,)
        for name, total in sums.items()
        if total
    }


async def read_fields(redis: Any, settings: Settings, tables: Sequence[str]) -> dict[str, dict[str, Numbers]]:
    """Each table's fields, each with no numbers: of very many fields that is all some reports ask for."""
    found = await _of_every_partition(redis, settings, tables, "HKEYS")
    return {
        table: {name.decode(): () for name in set().union(*names)} for table, names in zip(tables, found, strict=True)
    }


async def count_tables(redis: Any, settings: Settings) -> AsyncIterator[str]:
    """Every table of counts, some more than once; looks at each key in Redis, so not for reports."""
    for lane in COUNTING_LANES:
        match = f"{{{settings.tables_of(lane)}:*}}:counts:*"
        async for name in redis.scan_iter(match=match, count=SCANNED_AT_ONCE):
            yield name.decode().partition("}:counts:")[2]


async def keys_of(redis: Any, settings: Settings, kind: str) -> list[str]:
    """Every key of a kind in the accounts lane; looks at each key in Redis, so not for reports."""
    match = f"{{{settings.tables_of('accounts')}:*}}:{kind}:*"
    found = redis.scan_iter(match=match, count=SCANNED_AT_ONCE)
    return sorted({name.decode() async for name in found})


def waiting_entry(field: bytes) -> str:
    """What waits, by a field of the waiting hash."""
    return field.decode().partition("\0")[0]
