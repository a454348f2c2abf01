"""What a lane partition keeps in Redis, and the one way it is changed.

All keys of a partition share its hash tag, so that a commit is atomic on a cluster too.

key                                       type    holds
{visitors:3}:book                         hash    epoch, run, commit; offset:<topic>, seen:<lane>:<partition>,
                                                  sent:<topic>:<partition>, paused, alerts_since (µs)
{visitors:3}:outbox                       list    messages committed and not yet known to be in Kafka, oldest first
{visitors:3}:e:<entity>                   string  an entity's parts, packed {name: value}; empty: spread out
{visitors:3}:p:<entity>                   hash    the parts of an entity that is spread out, one field each
{accounts:3}:credits:<conversion>:<dim>   hash    <day> or <day> NUL <value> → count and amount of each model (int64)
{accounts:3}:months:<conversion>:<dim>    hash    the same by month: <month> or <month> NUL <value>
{accounts:3}:counts:<table>               hash    field → its numbers (int64); models.counts
{accounts:3}:waiting                      hash    what waits to be booked NUL where → why
{accounts:3}:where:<label>                set     the accounts that carry a label (models.filters)
{accounts:3}:compact:<account>            string  what an account comes to; made by reports (streams.filtered)
{accounts:3}:newest                       list    the newest touches as JSON, newest first
{accounts:3}:warmth                       hash    account → its reading (models.reading)
{accounts:3}:warm:<state>                 zset    the accounts in a state, by log2(score) + time in half-lives
{accounts:3}:due                          zset    account → when something happens to it by itself (µs)
{accounts:3}:alerts                       list    the newest alerts as they were published, newest first
touchline:run                             string  number of the run; a rebuild begins another
touchline:live, :rules, :previews         streams.versions: other versions of the rules have {<name>.accounts:3}:…
touchline:pause                           string  while it lasts no new facts are taken (audit, rebuild)
touchline:workers:<instance>              string  a live worker's heartbeat, JSON; expires

Nothing else expires: a total is only as good as the state behind it.
"""

import json
from collections import defaultdict
from collections.abc import AsyncIterator, Awaitable, Container, Iterable, Iterator, Mapping, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

import msgspec
from redis.exceptions import NoScriptError, ResponseError

from models import lanes
from models.columns import traces_of
from models.conversions import (
    Cell,
    Cells,
    Place,
    add_cells_of,
    by_month,
    by_place,
    is_of_month,
    numbers_of,
    pack_numbers,
    packed_by_place,
    unpack_numbers,
    unpack_vector,
    without_zeros,
)
from models.counts import Count, Counts, Numbers, add_counts, without_zero_counts
from models.errors import Fenced
from models.flows import ALL_TIME, Period
from models.lanes import AnyEntity
from models.reports import Changes, Parts, pack
from models.settings import Settings
from models.times import to_text
from models.totals import Totals
from models.warming import Ranked
from streams.redis_clients import REDIS_AWAY, Arguments

SPREAD_BYTES = 4096
"""An entity larger than this is kept as a hash, so that one more part costs the same."""
DAYS, MONTHS = "credits", "months"
"""The kinds of hashes that cells stand in."""
NEWEST = 20
NEWEST_ALERTS = 200
COUNTING_LANES = ("visitors", "members", "accounts")
"""The lanes that keep counts."""
MOST_DUE = 500
_MOST_ARGUMENTS = 4000
_NUMBER_BYTES = 8
_DAY, _MONTH = len("2026-04-03"), len("2026-04")
_READ_AT_ONCE = 500
_SCANNED_AT_ONCE = 5000
_DELETED_AT_ONCE = 1000

_COMMIT = """
local book = redis.call('HMGET', KEYS[1], 'epoch', 'commit')
if book[1] ~= ARGV[1] then return 'fenced' end
if book[2] == ARGV[3] then return 'done' end
if book[2] ~= ARGV[2] then return 'fenced' end
local at = 4
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  redis.call(ARGV[at], unpack(ARGV, at + 2, at + 1 + count))
  at = at + 2 + count
end
redis.call('HSET', KEYS[1], 'commit', ARGV[3])
return 'ok'
"""
_ACQUIRE = """
if redis.call('HEXISTS', KEYS[1], 'rebuilding') == 1 then return {} end
redis.call('HSETNX', KEYS[1], 'run', ARGV[1])
redis.call('HSETNX', KEYS[1], 'commit', '0')
redis.call('HINCRBY', KEYS[1], 'epoch', 1)
return redis.call('HGETALL', KEYS[1])
"""

_T = TypeVar("_T")


def batched(values: Iterable[_T], size: int) -> Iterator[list[_T]]:
    """The values in lists of at most `size`."""
    rest = list(values)
    for begin in range(0, len(rest), size):
        yield rest[begin : begin + size]


_unpack_parts = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Stored(NamedTuple):
    """An entity in memory with its parts at rest; `spread[0]` when they are a hash."""

    entity: AnyEntity
    parts: Parts
    spread: list[bool]


K = TypeVar("K")
V = TypeVar("V")


class Cache(Generic[K, V]):
    """The values used last: between `most` and twice as many are kept, and those put at once."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._new: dict[K, V] = {}
        self._old: dict[K, V] = {}

    def find(self, keys: Iterable[K]) -> tuple[dict[K, V], list[K]]:
        """The values of keys, which thereby count as used, and the keys that are missing."""
        found: dict[K, V] = {}
        missing: list[K] = []
        new, old = self._new, self._old
        for key in keys:
            value = new.get(key)
            if value is None and (value := old.pop(key, None)) is not None:
                new[key] = value
            if value is None:
                missing.append(key)
            else:
                found[key] = value
        return found, missing

    def put(self, values: Mapping[K, V]) -> None:
        """Keep the values; may forget those not used for long."""
        if len(self._new) >= self._most:
            self._old, self._new = self._new, {}
        self._new.update(values)

    def clear(self) -> None:
        """Forget everything."""
        self._new, self._old = {}, {}


def key(lane: str, partition: int, *names: str) -> str:
    """A key of a lane partition."""
    return ":".join((f"{{{lane}:{partition}}}", *names))


def table_key(settings: Settings, lane: str, partition: int, *names: str) -> str:
    """A key of a lane partition in the tables of these settings' version."""
    return key(settings.tables_of(lane), partition, *names)


def cell_key(lane: str, partition: int, cell: Cell) -> str:
    """The hash that a cell of the totals stands in."""
    return key(lane, partition, MONTHS if is_of_month(cell) else DAYS, cell.conversion, cell.dimension)


def cell_of(conversion: str, dimension: str, field: bytes) -> Cell:
    """The cell that a field of the totals stands for."""
    day, split, value = field.decode().partition("\0")
    return Cell(conversion, dimension, day, value if split else None)


def counted(value: bytes) -> Numbers:
    """The numbers of a count at rest."""
    return tuple(unpack_numbers(value))


Fields = Mapping[bytes, bytes]
"""A hash, or some of its fields."""


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
    places = [(lane, partition) for lane in COUNTING_LANES for partition in range(settings.partitions)]
    pipeline = redis.pipeline(transaction=False)
    for table in tables:
        for place in places:
            pipeline.hgetall(table_key(settings, *place, "counts", table))
    answers = await pipeline.execute()
    hashes = batched(answers, len(places))
    return {table: _summed(of_table) for table, of_table in zip(tables, hashes, strict=True)}


def _summed(hashes: Iterable[Mapping[bytes, bytes]]) -> dict[str, Numbers]:
    """The sums of counts by field, as vectors (models.conversions.vector) until all are added."""
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
    places = [(lane, partition) for lane in COUNTING_LANES for partition in range(settings.partitions)]
    pipeline = redis.pipeline(transaction=False)
    for table in tables:
        for place in places:
            pipeline.hkeys(table_key(settings, *place, "counts", table))
    found = batched(await pipeline.execute(), len(places))
    return {
        table: {name.decode(): () for name in set().union(*names)} for table, names in zip(tables, found, strict=True)
    }


async def delete_tables(redis: Any, settings: Settings, lane: str, kept: Container[bytes] = ()) -> None:
    """Delete every key of a lane but those kept."""
    match = f"{{{settings.tables_of(lane)}:*"
    keys = [each async for each in redis.scan_iter(match=match, count=_SCANNED_AT_ONCE) if each not in kept]
    for some in batched(keys, _DELETED_AT_ONCE):
        pipeline = redis.pipeline(transaction=False)
        for each in some:
            pipeline.execute_command("UNLINK", each)  # a cluster's pipeline has an unlink() that is no command
        await pipeline.execute()


async def count_tables(redis: Any, settings: Settings) -> AsyncIterator[str]:
    """Every table of counts, some more than once; looks at each key in Redis, so not for reports."""
    for lane in COUNTING_LANES:
        match = f"{{{settings.tables_of(lane)}:*}}:counts:*"
        async for name in redis.scan_iter(match=match, count=_SCANNED_AT_ONCE):
            yield name.decode().partition("}:counts:")[2]


async def keys_of(redis: Any, settings: Settings, kind: str) -> list[str]:
    """Every key of a kind in the accounts lane; looks at each key in Redis, so not for reports."""
    match = f"{{{settings.tables_of('accounts')}:*}}:{kind}:*"
    found = redis.scan_iter(match=match, count=_SCANNED_AT_ONCE)
    return sorted({name.decode() async for name in found})


def waiting_entry(field: bytes) -> str:
    """What waits, by a field of the waiting hash."""
    return field.decode().partition("\0")[0]


class Book(msgspec.Struct):
    """Where a lane partition stands: what it has read, heard and said; alerts of earlier instants were told before."""

    epoch: str
    run: int
    commit: int
    offsets: dict[str, int]
    seen: dict[str, int]
    sent: dict[str, int]
    alerts_since: int = 0

    @classmethod
    def of(cls, fields: Mapping[bytes, bytes]) -> "Book":
        """The book at rest as it is read."""
        text = {name.decode(): value.decode() for name, value in fields.items()}

        def group(prefix: str) -> dict[str, int]:
            return {name.removeprefix(prefix): int(value) for name, value in text.items() if name.startswith(prefix)}

        return cls(
            text.get("epoch", "0"),
            int(text.get("run", 1)),
            int(text.get("commit", 0)),
            group("offset:"),
            group("seen:"),
            group("sent:"),
            int(text.get("alerts_since", 0)),
        )


class Tables:
    """The tables of one lane partition, owned by this worker until another commits."""

    def __init__(self, redis: Any, lane: str, partition: int, cached: int) -> None:
        self._redis = redis
        self.lane = lane
        self.partition = partition
        self.book = Book("0", 0, -1, {}, {}, {})
        self._entities: Cache[str, Stored] = Cache(cached)
        self._cells: Cache[Cell, int] = Cache(cached)
        self._counts: Cache[Count, Numbers] = Cache(cached)
        self._loaded: dict[str, Stored] = {}
        self._book_key = self._key("book")
        self._entity_prefix = self._key("e", "")

    def _key(self, *names: str) -> str:
        return key(self.lane, self.partition, *names)

    # --- owning -----------------------------------------------------------------------

    async def acquire(self) -> bool:
        """Become the owner: every other owner's commits fail from now on.

        False while a rebuild empties the tables.
        """
        run = await self._redis.get("touchline:run") or b"1"
        answer = await self._evaluate(_ACQUIRE, self._book_key, [run])
        fields = dict(zip(answer[::2], answer[1::2], strict=True))
        if not fields:
            return False
        book = Book.of(fields)
        if (book.run, book.commit) != (self.book.run, self.book.commit):
            self._entities.clear()
            self._cells.clear()
            self._counts.clear()
        self.book = book
        return True

    async def outbox(self) -> list[bytes]:
        """What may not be in Kafka yet, oldest first."""
        entries: list[bytes] = await self._redis.lrange(self._key("outbox"), 0, -1)
        return entries

    # --- reading ----------------------------------------------------------------------

    async def load(self, names: Iterable[str], build: Any) -> dict[str, AnyEntity]:
        """The entities of these names, from memory or in as few reads as there can be."""
        self._loaded, missing = self._entities.find(names)
        for some in batched(missing, _READ_AT_ONCE):
            parts_of, spread = await self._read(some)
            read = {name: Stored(build(name, parts), parts, [name in spread]) for name, parts in parts_of.items()}
            self._entities.put(read)
            self._loaded.update(read)  # the cache may forget some before they are put down
        return {name: stored.entity for name, stored in self._loaded.items()}

    async def _read(self, names: Sequence[str]) -> tuple[dict[str, Parts], set[str]]:
        """The parts of each entity; which of them are spread out."""
        prefix = self._entity_prefix
        blobs = await self._redis.mget([prefix + name for name in names])
        parts = {name: _unpack_parts(blob) if blob else {} for name, blob in zip(names, blobs, strict=True)}
        spread = [name for name, blob in zip(names, blobs, strict=True) if blob == b""]
        parts.update(zip(spread, await self._read_hashes(spread), strict=True))
        return parts, set(spread)

    async def _read_hashes(self, names: Sequence[str]) -> list[Parts]:
        if not names:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for name in names:
            pipeline.hgetall(self._key("p", name))
        return [{field.decode(): value for field, value in fields.items()} for fields in await pipeline.execute()]

    async def holding(self, message_ids: Iterable[str]) -> set[str]:
        """The visitors in whose state there are traces of these messages: all are looked through, so seldom asked."""
        traces = [trace for message in message_ids for trace in traces_of(message)]
        keys = self._redis.scan_iter(match=f"{self._entity_prefix}visitor:*", count=_SCANNED_AT_ONCE)
        everybody = {each.decode().removeprefix(self._entity_prefix) async for each in keys}
        names: set[str] = set()
        for some in batched(sorted(everybody), _READ_AT_ONCE):
            for name, parts in (await self._read(some))[0].items():
                whole = b"".join([*map(str.encode, parts), *parts.values()])
                if any(trace in whole for trace in traces):
                    names.add(name)
        return names

    async def _load_cells(self, cells: Iterable[Cell]) -> dict[Cell, int]:
        found, missing = self._cells.find(cells)
        if missing:
            places = by_place(missing)
            pipeline = self._redis.pipeline(transaction=False)
            for place, some in places.items():
                pipeline.hmget(self._place_key(place), [field for field, _ in some])
            for some, values in zip(places.values(), await pipeline.execute(), strict=True):
                for (_, cell), value in zip(some, values, strict=True):
                    found[cell] = unpack_vector(value) if value else 0
        return found

    async def _load_counts(self, counts: Iterable[Count]) -> Counts:
        """The numbers that stand; a count that was never made is left out."""
        found, missing = self._counts.find(counts)
        if missing:
            tables: dict[str, list[Count]] = {}
            for count in missing:
                tables.setdefault(count.table, []).append(count)
            pipeline = self._redis.pipeline(transaction=False)
            for table, some in tables.items():
                pipeline.hmget(self._key("counts", table), [count.field for count in some])
            for some, values in zip(tables.values(), await pipeline.execute(), strict=True):
                found.update((count, counted(value)) for count, value in zip(some, values, strict=True) if value)
        return found

    async def due(self, clock: int) -> list[str]:
        """Accounts to which something has happened by itself, the earliest first; not all of very many."""
        names = await self._redis.zrangebyscore(self._key("due"), "-inf", clock, start=0, num=MOST_DUE)
        return [name.decode() for name in names]

    # --- writing: everything is put down first, and committed at once ---------------------

    def put(self, name: str, changes: Changes) -> None:
        """Put down an entity's changed parts."""
        stored = self._loaded[name]
        parts = stored.parts
        if name.startswith("account:"):
            self._stale.append(self._key("compact", lanes.id_of(name)))
        for part, value in changes.items():
            if value is None:
                parts.pop(part, None)
            else:
                parts[part] = value
        if stored.spread[0]:
            self._put_parts(name, changes)
            return
        blob = pack(parts)
        if len(blob) > SPREAD_BYTES:
            stored.spread[0] = True
            self._command("SET", self._entity_prefix + name, b"")
            self._put_parts(name, cast(Changes, parts))
        elif parts:
            self._blobs.add_long((self._entity_prefix + name).encode(), blob)
            if self._blobs.count >= _MOST_ARGUMENTS:
                self._put_blobs()
        else:
            self._command("DEL", self._entity_prefix + name)

    def _put_blobs(self) -> None:
        """Put down what there is of packed entities: many in one command, whose arguments have to be counted first."""
        if self._blobs.count:
            self._commands.add(("MSET", self._blobs.count))
            self._commands.extend(self._blobs)
            self._blobs = Arguments()

    def _put_parts(self, name: str, changes: Changes) -> None:
        where = self._key("p", name)
        kept = [each for part, value in changes.items() if value is not None for each in (part, value)]
        gone = [part for part, value in changes.items() if value is None]
        self._chunked("HSET", where, kept)
        self._chunked("HDEL", where, gone)

    _commands: Arguments
    _blobs: Arguments
    _stale: list[str]

    def begin(self) -> None:
        """Begin a commit: nothing is put down yet."""
        self._commands, self._blobs, self._stale = Arguments(), Arguments(), []

    async def put_totals(self, totals: Totals) -> None:
        """Put down the totals as they are after this change."""
        await self._put_cells(without_zeros({**totals.cells, **by_month(totals.cells)}))
        await self._put_counts(without_zero_counts(totals.counts))
        for (entry, account), reason in totals.waiting.items():
            self._put_field(self._key("waiting"), f"{entry}\0{account}", reason)
        for (label, account), is_listed in totals.listed.items():
            self._command("SADD" if is_listed else "SREM", self._key("where", label), account)
        if totals.newest:
            self._put_newest(totals)
        self._put_warmth(totals.warmth)

    def _put_warmth(self, ranked: Mapping[str, Ranked]) -> None:
        """Put down how warm accounts are, in which state they rank where, and when to look again."""
        grouped: defaultdict[tuple[str, str], list[Any]] = defaultdict(list)
        for account, (reading, left, rank, due) in ranked.items():
            if reading is None or reading.state != left:
                grouped["ZREM", f"warm:{left}"].append(account)
            if reading is None:
                grouped["HDEL", "warmth"].append(account)
            else:
                grouped["HSET", "warmth"] += (account, pack(reading))
                grouped["ZADD", f"warm:{reading.state}"] += (repr(rank), account)
            if due is None:
                grouped["ZREM", "due"].append(account)
            else:
                grouped["ZADD", "due"] += (due, account)
        for (command, table), arguments in grouped.items():
            self._chunked(command, self._key(table), arguments)

    def put_alerts(self, alerts: Sequence[bytes]) -> None:
        """Put down alerts for those who ask for the newest."""
        if alerts:
            self._command("LPUSH", self._key("alerts"), *alerts[-NEWEST_ALERTS:])
            self._command("LTRIM", self._key("alerts"), 0, NEWEST_ALERTS - 1)

    async def _put_cells(self, change: Cells) -> None:
        now = await self._load_cells(change)
        add_cells_of(now, change)
        self._cells.put(now)
        for place, (kept, gone) in packed_by_place(now).items():
            self._chunked("HSET", self._place_key(place), kept)
            self._chunked("HDEL", self._place_key(place), gone)

    def _place_key(self, place: Place) -> str:
        conversion, dimension, is_of_month = place
        return self._key(MONTHS if is_of_month else DAYS, conversion, dimension)

    async def _put_counts(self, change: Counts) -> None:
        now = await self._load_counts(change)
        add_counts(now, change.items())
        self._counts.put(now)
        tables: dict[str, tuple[list[Any], list[Any]]] = {}
        for (table, field), numbers in now.items():
            if table not in tables:
                tables[table] = [], []
            kept, gone = tables[table]
            if any(numbers):
                kept += (field, pack_numbers(numbers))
            else:
                gone.append(field)
        for table, (kept, gone) in tables.items():
            name = self._key("counts", table)
            self._chunked("HSET", name, kept)
            self._chunked("HDEL", name, gone)

    def _put_newest(self, totals: Totals) -> None:
        lines = [
            json.dumps(
                {
                    "at": touch.at,
                    "time": to_text(touch.at),
                    "account": account,
                    "person": person,
                    "kind": touch.kind,
                    "channel": touch.channel,
                    "campaign": touch.campaign,
                    "source": touch.source,
                }
            )
            for touch, person, account in totals.newest[-NEWEST:]
        ]
        self._command("LPUSH", self._key("newest"), *lines)
        self._command("LTRIM", self._key("newest"), 0, NEWEST - 1)

    def put_outbox(self, entries: Sequence[bytes]) -> None:
        """Put down what has to be published after this commit."""
        where = self._key("outbox").encode()
        for entry in entries:
            self._commands.add(("RPUSH", 2))
            self._commands.add_long(where, entry)

    def trim_outbox(self, published: int) -> None:
        """Put down that the oldest entries are in Kafka."""
        if published:
            self._command("LTRIM", self._key("outbox"), published, -1)

    def put_book(self, fields: Mapping[str, int | str]) -> None:
        """Put down where the partition stands."""
        self._chunked("HSET", self._book_key, [each for field in fields.items() for each in field])

    async def commit(self) -> None:
        """Make all that was put down durable at once; Fenced when another owns the partition."""
        self._put_blobs()
        self._chunked("DEL", None, self._stale)
        now, then = self.book.commit, self.book.commit + 1
        answer = await self._evaluate(_COMMIT, self._book_key, [self.book.epoch, now, then, self._commands])
        if answer == b"fenced":
            self.book.commit = -1
            raise Fenced(f"{self._key()} belongs to another worker now")
        self.book.commit = then
        self.begin()

    def _put_field(self, where: str, field: str, value: Any) -> None:
        if value is None:
            self._command("HDEL", where, field)
        else:
            self._command("HSET", where, field, value)

    def _chunked(self, name: str, where: str | None, arguments: Sequence[Any]) -> None:
        for some in batched(arguments, _MOST_ARGUMENTS):
            self._command(name, *(() if where is None else (where,)), *some)

    def _command(self, name: str, *arguments: Any) -> None:
        self._commands.add((name, len(arguments), *arguments))

    async def _evaluate(self, script: str, where: str, arguments: Sequence[Any]) -> Any:
        digest = _DIGESTS[script]
        try:
            return await cast(Awaitable[Any], self._redis.evalsha(digest, 1, where, *arguments))
        except NoScriptError:
            return await cast(Awaitable[Any], self._redis.eval(script, 1, where, *arguments))
        except REDIS_AWAY:
            raise
        except ResponseError as error:
            raise RuntimeError(f"commit of {where}: {error}") from error


def _digest(script: str) -> str:
    from hashlib import sha1

    return sha1(script.encode(), usedforsecurity=False).hexdigest()


_DIGESTS = {script: _digest(script) for script in (_COMMIT, _ACQUIRE)}
