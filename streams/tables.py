"""What a lane partition owns in Redis, and the one way it is changed. Its keys: streams.keys."""

import json
from collections import defaultdict
from collections.abc import Awaitable, Container, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar, cast

import msgspec
from redis.exceptions import NoScriptError, ResponseError

from models import lanes
from models.cells import Cell, Cells, add_cells_of, by_month, without_zeros
from models.columns import traces_of
from models.counts import Count, Counts, Numbers, add_counts, without_zero_counts
from models.entity import put
from models.errors import Fenced
from models.hashes import Packed, by_place, by_table, packed_by_place, packed_by_table
from models.lanes import AnyEntity
from models.reports import Changes, Parts, pack
from models.settings import Settings
from models.times import to_text
from models.totals import Totals
from models.vectors import unpack_vector
from models.warming import Ranked
from streams.caches import Cache
from streams.keys import SCANNED_AT_ONCE, key, place_key
from streams.redis_clients import REDIS_AWAY, Arguments, batched
from streams.totals import counted

SPREAD_BYTES = 4096
"""An entity larger than this is kept as a hash, so that one more part costs the same."""
NEWEST = 20
NEWEST_ALERTS = 200
MOST_DUE = 500
_MOST_ARGUMENTS = 4000
_READ_AT_ONCE = 500
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
_unpack_parts = msgspec.msgpack.Decoder(dict[str, bytes]).decode


class Stored(NamedTuple):
    """An entity in memory with its parts at rest; `spread[0]` when they are a hash."""

    entity: AnyEntity
    parts: Parts
    spread: list[bool]


async def delete_tables(redis: Any, settings: Settings, lane: str, kept: Container[bytes] = ()) -> None:
    """Delete every key of a lane but those kept."""
    match = f"{{{settings.tables_of(lane)}:*"
    keys = [each async for each in redis.scan_iter(match=match, count=SCANNED_AT_ONCE) if each not in kept]
    for some in batched(keys, _DELETED_AT_ONCE):
        pipeline = redis.pipeline(transaction=False)
        for each in some:
            pipeline.execute_command("UNLINK", each)  # a cluster's pipeline has an unlink() that is no command
        await pipeline.execute()


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
        keys = self._redis.scan_iter(match=f"{self._entity_prefix}visitor:*", count=SCANNED_AT_ONCE)
        everybody = {each.decode().removeprefix(self._entity_prefix) async for each in keys}
        names: set[str] = set()
        for some in batched(sorted(everybody), _READ_AT_ONCE):
            for name, parts in (await self._read(some))[0].items():
                whole = b"".join([*map(str.encode, parts), *parts.values()])
                if any(trace in whole for trace in traces):
                    names.add(name)
        return names

    async def _load_cells(self, cells: Iterable[Cell]) -> Cells:
        """The cells as they stand; a cell that was never made is 0."""
        found, missing = self._cells.find(cells)
        hashes = {place_key(self.lane, self.partition, place): some for place, some in by_place(missing).items()}
        found.update((cell, unpack_vector(value) if value else 0) for cell, value in await self._read_fields(hashes))
        return found

    async def _load_counts(self, counts: Iterable[Count]) -> Counts:
        """The counts as they stand; a count that was never made is left out."""
        found, missing = self._counts.find(counts)
        hashes = {self._key("counts", table): some for table, some in by_table(missing).items()}
        found.update((count, counted(value)) for count, value in await self._read_fields(hashes) if value)
        return found

    async def _read_fields(self, hashes: Mapping[str, Sequence[tuple[str, _T]]]) -> list[tuple[_T, bytes | None]]:
        """What the fields hold, by hash, of those who stand there."""
        if not hashes:
            return []
        pipeline = self._redis.pipeline(transaction=False)
        for name, some in hashes.items():
            pipeline.hmget(name, [field for field, _ in some])
        answers = zip(hashes.values(), await pipeline.execute(), strict=True)
        return [(each, value) for some, values in answers for (_, each), value in zip(some, values, strict=True)]

    async def due(self, clock: int) -> list[str]:
        """Accounts to which something has happened by itself, the earliest first; not all of very many."""
        names = await self._redis.zrangebyscore(self._key("due"), "-inf", clock, start=0, num=MOST_DUE)
        return [name.decode() for name in names]

    # --- writing: everything is put down first, and committed at once ---------------------

    def put(self, name: str, changes: Changes) -> None:
        """Put down an entity's changed parts."""
        stored = self._loaded[name]
        if name.startswith("account:"):
            self._stale.append(self._key("compact", lanes.id_of(name)))
        for part, value in changes.items():
            put(stored.parts, part, value)
        if stored.spread[0]:
            self._put_parts(name, changes)
        else:
            self._put_whole(name, stored)

    def _put_whole(self, name: str, stored: Stored) -> None:
        """Put down all parts of an entity; spread out where they have become too large for one value."""
        parts = stored.parts
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
        kept = [each for part, value in changes.items() if value is not None for each in (part, value)]
        gone = [part for part, value in changes.items() if value is None]
        self._put_fields(self._key("p", name), (kept, gone))

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
        for account, name in totals.named.items():
            self._put_field(self._key("names"), account, name)
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
        for place, packed in packed_by_place(now).items():
            self._put_fields(place_key(self.lane, self.partition, place), packed)

    async def _put_counts(self, change: Counts) -> None:
        now = await self._load_counts(change)
        add_counts(now, change.items())
        self._counts.put(now)
        for table, packed in packed_by_table(now).items():
            self._put_fields(self._key("counts", table), packed)

    def _put_fields(self, where: str, packed: Packed) -> None:
        kept, gone = packed
        self._chunked("HSET", where, kept)
        self._chunked("HDEL", where, gone)

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
