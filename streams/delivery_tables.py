"""What waits to be delivered: queues in Redis that survive any process, served by one at a time.

All keys share one hash tag, so that an alert reaches the queues of all its destinations in one
step, and what an attempt led to is stored together with what `deliveries` will say of it. A queue
is named by the account; a digest's by NUL and its route.

key                                    type    holds
{deliver}:known:<month of at>          set     ids of alerts put into queues; expires KNOWN_DAYS after the last
{deliver}:queue:<destination>:<queue>  list    items packed (models.dispatch.Item), oldest first
{deliver}:due:<destination>            zset    queue → when it is to be looked at; while claimed, until when
{deliver}:standing:<destination>       hash    queue → where it stands, packed (models.dispatch.Standing)
{deliver}:claims:<destination>         hash    queue → token of the process that is at it
{deliver}:off                          hash    destination → why and since when it is off, JSON
{deliver}:log                          list    records for Kafka, packed (topic, key, value), oldest first
{deliver}:publisher                    string  token of the process that publishes the log; expires

A claim ends with its time: then another process takes the queue over, and what the first still
says of it is refused. So an alert may arrive twice, under one id, but is never skipped.
"""

import hashlib
import uuid
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple, cast

import msgspec
from redis.exceptions import NoScriptError

from models.dispatch import Item, Settled, Standing
from models.posting import KNOWN_DAYS, Parcel
from models.times import DAY, SECOND

TAG = "{deliver}"
CLAIM_ITEMS = 200
CLAIM_SECONDS = 5
"""How much longer than an attempt may last a claim holds, so that it ends only with its process."""
PUBLISH_AT_ONCE = 500
PUBLISHER_SECONDS = 20
NOTHING_DUE = 2**62

_ENQUEUE = """
if redis.call('SADD', KEYS[1], ARGV[1]) == 0 then return 0 end
redis.call('EXPIRE', KEYS[1], ARGV[2])
local at = 4
for _ = 1, tonumber(ARGV[3]) do
  local destination, queue, item, due = ARGV[at], ARGV[at + 1], ARGV[at + 2], ARGV[at + 3]
  redis.call('RPUSH', '{deliver}:queue:' .. destination .. ':' .. queue, item)
  if redis.call('HEXISTS', '{deliver}:claims:' .. destination, queue) == 0 then
    redis.call('ZADD', '{deliver}:due:' .. destination, 'LT', due, queue)
  end
  at = at + 4
end
for each = at, #ARGV do redis.call('RPUSH', '{deliver}:log', ARGV[each]) end
return 1
"""
_CLAIM = """
local due = '{deliver}:due:' .. ARGV[1]
local found = redis.call('ZRANGE', due, 0, 0, 'WITHSCORES')
if #found == 0 then return {} end
if tonumber(found[2]) > tonumber(ARGV[2]) then return {found[2]} end
local queue = found[1]
redis.call('ZADD', due, ARGV[3], queue)
redis.call('HSET', '{deliver}:claims:' .. ARGV[1], queue, ARGV[4])
local standing = redis.call('HGET', '{deliver}:standing:' .. ARGV[1], queue)
local off = redis.call('HEXISTS', '{deliver}:off', ARGV[1])
local items = redis.call('LRANGE', '{deliver}:queue:' .. ARGV[1] .. ':' .. queue, 0, ARGV[5])
return {queue, standing or '', off, items}
"""
_SETTLE = """
local claims, due = '{deliver}:claims:' .. ARGV[1], '{deliver}:due:' .. ARGV[1]
local standing, queue = '{deliver}:standing:' .. ARGV[1], '{deliver}:queue:' .. ARGV[1] .. ':' .. ARGV[2]
if redis.call('HGET', claims, ARGV[2]) ~= ARGV[3] then return 0 end
redis.call('HDEL', claims, ARGV[2])
redis.call('LTRIM', queue, ARGV[4], -1)
local left = redis.call('LLEN', queue)
if left > 0 and (tonumber(ARGV[4]) > 0 or ARGV[5] == '0') then
  redis.call('ZADD', due, ARGV[8], ARGV[2])
elseif ARGV[7] == '' then
  redis.call('ZREM', due, ARGV[2])
else
  redis.call('ZADD', due, ARGV[7], ARGV[2])
end
if left == 0 and ARGV[7] == '' then
  redis.call('HDEL', standing, ARGV[2])
else
  redis.call('HSET', standing, ARGV[2], ARGV[6])
end
if ARGV[9] ~= '' then redis.call('HSETNX', '{deliver}:off', ARGV[1], ARGV[9]) end
for each = 10, #ARGV do redis.call('RPUSH', '{deliver}:log', ARGV[each]) end
return 1
"""
_TURN_ON = """
if redis.call('HDEL', '{deliver}:off', ARGV[1]) == 0 then return 0 end
local due = '{deliver}:due:' .. ARGV[1]
for _, queue in ipairs(redis.call('ZRANGE', due, 0, -1)) do
  if redis.call('HEXISTS', '{deliver}:claims:' .. ARGV[1], queue) == 0 then
    redis.call('ZADD', due, 'LT', ARGV[2], queue)
  end
end
return 1
"""
_PUBLISHED = """
if redis.call('GET', '{deliver}:publisher') ~= ARGV[1] then return 0 end
redis.call('LTRIM', '{deliver}:log', ARGV[2], -1)
redis.call('DEL', '{deliver}:publisher')
return 1
"""


class Record(NamedTuple):
    """A record for Kafka; the topic is named without the prefix."""

    topic: str
    key: bytes
    value: bytes


class Claim(NamedTuple):
    """A queue that this process alone may serve now, with its oldest items."""

    destination: str
    queue: str
    token: str
    standing: Standing
    items: Sequence[Item]
    off: bool


class Waiting(msgspec.Struct, frozen=True):
    """A destination with what waits for it; `off` says why it is off, None when it is on."""

    destination: str
    alerts: int
    queues: int
    next_at: int | None
    off: Mapping[str, Any] | None


_pack = msgspec.msgpack.Encoder().encode
_item = msgspec.msgpack.Decoder(Item).decode
_standing = msgspec.msgpack.Decoder(Standing).decode
_record = msgspec.msgpack.Decoder(tuple[str, bytes, bytes]).decode


class DeliveryTables:
    """The queues, over one Redis client."""

    def __init__(self, redis: Any, attempt_seconds: float) -> None:
        self._redis = redis
        self._claim_micros = round((attempt_seconds + CLAIM_SECONDS) * SECOND)

    async def enqueue(self, alert_id: str, month: str, parcels: Sequence[Parcel], log: Iterable[Record]) -> bool:
        """Put an alert into the queues of its destinations, once; False when that was done before."""
        arguments: list[Any] = [alert_id, KNOWN_DAYS * DAY // SECOND, len(parcels)]
        for parcel in parcels:
            arguments += [parcel.destination, parcel.queue, _pack(parcel.item), parcel.due]
        return bool(await self._run(_ENQUEUE, [*arguments, *map(_pack, log)], f"{TAG}:known:{month}"))

    async def claim(self, destination: str, now: int) -> Claim | int:
        """The queue that has been due for longest, claimed; else when the next one is."""
        token = uuid.uuid4().hex
        answer = await self._run(_CLAIM, [destination, now, now + self._claim_micros, token, CLAIM_ITEMS - 1])
        if len(answer) < 2:
            return int(float(answer[0])) if answer else NOTHING_DUE
        queue, standing, off, items = answer
        found = _standing(standing) if standing else Standing()
        return Claim(destination, queue.decode(), token, found, [_item(item) for item in items], bool(off))

    async def settle(
        self, claim: Claim, settled: Settled, now: int, log: Iterable[Record] = (), off: bytes = b""
    ) -> bool:
        """Store what an attempt led to and give the queue back; False when the claim had ended before."""
        due = "" if settled.due is None else settled.due
        arguments = [claim.destination, claim.queue, claim.token, settled.done, len(claim.items)]
        arguments += [_pack(settled.standing), due, now, off, *map(_pack, log)]
        return bool(await self._run(_SETTLE, arguments))

    async def note(self, log: Sequence[Record]) -> None:
        """Have records published."""
        await self._redis.rpush(f"{TAG}:log", *map(_pack, log))

    async def off(self, destination: str) -> bool:
        """Is the destination turned off?"""
        return bool(await self._redis.hexists(f"{TAG}:off", destination))

    async def turn_on(self, destination: str, now: int) -> bool:
        """Turn a destination on again, what waits for it being due at once; False when it was not off."""
        return bool(await self._run(_TURN_ON, [destination, now]))

    async def waiting(self, destinations: Iterable[str]) -> list[Waiting]:
        """What waits for each destination."""
        return [await self._waiting(each) for each in destinations]

    async def _waiting(self, destination: str) -> Waiting:
        queues = await self._redis.zrange(f"{TAG}:due:{destination}", 0, -1, withscores=True)
        off = await self._redis.hget(f"{TAG}:off", destination)
        alerts = 0
        for queue, _ in queues:
            alerts += await self._redis.llen(f"{TAG}:queue:{destination}:{queue.decode()}")
        next_at = int(queues[0][1]) if queues else None
        return Waiting(destination, alerts, len(queues), next_at, msgspec.json.decode(off) if off else None)

    async def unpublished(self) -> tuple[str, list[Record]]:
        """The oldest of the log, for this process alone to publish, and the token to say so with."""
        token = uuid.uuid4().hex
        if not await self._redis.exists(f"{TAG}:log"):
            return token, []
        if not await self._redis.set(f"{TAG}:publisher", token, nx=True, ex=PUBLISHER_SECONDS):
            return token, []
        found = await self._redis.lrange(f"{TAG}:log", 0, PUBLISH_AT_ONCE - 1)
        return token, [Record(*_record(each)) for each in found]

    async def published(self, token: str, records: int) -> None:
        """Strike off what is in Kafka; nothing when another process publishes by now."""
        await self._run(_PUBLISHED, [token, records])

    async def _run(self, script: str, arguments: Sequence[Any], key: str = f"{TAG}:due") -> Any:
        try:
            return await cast(Awaitable[Any], self._redis.evalsha(_DIGESTS[script], 1, key, *arguments))
        except NoScriptError:
            return await cast(Awaitable[Any], self._redis.eval(script, 1, key, *arguments))


_DIGESTS = {
    script: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    for script in (_ENQUEUE, _CLAIM, _SETTLE, _TURN_ON, _PUBLISHED)
}
