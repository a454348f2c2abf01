"""How warm accounts are, how one came to be so, and the newest alerts: read from Redis.

The warmest are the first of a sorted set whose order time does not change; the score
itself is computed from each account's reading, as of now.
"""

import time
from collections.abc import Callable
from typing import Any

import msgspec

from models.accounts import Account
from models.alerting import drafted, finished
from models.alerts import Alert, State, decode_alert
from models.course import STATES
from models.errors import BadInput
from models.filters import Where
from models.pipeline import LEFT
from models.reading import Reading
from models.rules import Rules
from models.settings import Settings
from models.times import parse_instant, to_text
from models.usual import Usuals, usuals_of
from models.warming import next_of, score_of
from models.warmth import ahead, present
from streams.filtered import check_attributes, chosen
from streams.journeys import Document, account_above, known_account
from streams.keys import table_key
from streams.names import names_of
from streams.reference import rules_from
from streams.totals import read_counts

Row = dict[str, Any]
MOST = 50
_RANKED_AT_ONCE = 500
Among = Callable[[str], bool] | None
"""Is an account asked for; None: all are."""
_reading = msgspec.msgpack.Decoder(Reading).decode


async def warmth(
    redis: Any,
    settings: Settings,
    *,
    state: str | None = None,
    where: Where = (),
    limit: int = MOST,
    now: int | None = None,
) -> Document:
    """{counts: {state: accounts}, accounts: [row …]}: the warmest of each state (or of one), at most `limit` of each.

    A row is {account, name, state, score, since, transition, rewarmed, cause: {kind, channel,
    campaign, person}, next_at, next_state}; `cause` is what the present state is put down
    to, next what comes when nothing else happens. Counts are of all accounts that ever
    had a score. Raises BadInput for an unknown state.
    """
    if state is not None and state not in STATES:
        raise BadInput("state", f"one of {', '.join(STATES)}", state)
    _check_limit(limit)
    rules, at = rules_from(settings), _now() if now is None else now
    among = await _among(redis, settings, where)
    rows: list[Row] = []
    for each in (one for one in STATES if state in (None, one)):
        found = await _warmest(redis, settings, each, among, limit)
        rows += sorted((_row(account, reading, at, rules) for account, reading in found), key=_warmest_first)
    names = await names_of(redis, settings, (row["account"] for row in rows))
    named = [{"account": row["account"], "name": names.get(row["account"]), **row} for row in rows]
    return {"counts": await counts(redis, settings), "accounts": named}


def _check_limit(limit: int) -> None:
    if limit < 1:
        raise BadInput("limit", "a number from 1", limit)


async def _among(redis: Any, settings: Settings, where: Where) -> Among:
    await check_attributes(redis, settings, where)
    return (await chosen(redis, settings, where)).__contains__ if where else None


def _now() -> int:
    return time.time_ns() // 1000


def _warmest_first(row: Row) -> tuple[float, str]:
    return -row["score"], row["account"]


async def counts(redis: Any, settings: Settings) -> dict[str, int]:
    """How many accounts are in each state."""
    pipeline = redis.pipeline(transaction=False)
    for state in STATES:
        for partition in range(settings.partitions):
            pipeline.zcard(table_key(settings, "accounts", partition, "warm", state))
    numbers = iter(await pipeline.execute())
    return {state: sum(next(numbers) for _ in range(settings.partitions)) for state in STATES}


async def readings(redis: Any, settings: Settings) -> dict[str, Reading]:
    """The reading of every account that has one; for the audit, not for reports."""
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.hgetall(table_key(settings, "accounts", partition, "warmth"))
    fields = [field for fields in await pipeline.execute() for field in fields.items()]
    return {name.decode(): _reading(value) for name, value in fields}


async def _warmest(redis: Any, settings: Settings, state: State, among: Among, limit: int) -> list[tuple[str, Reading]]:
    """The warmest accounts in a state."""
    ranked: list[tuple[float, str, int]] = []
    for partition in range(settings.partitions):
        where = table_key(settings, "accounts", partition, "warm", state)
        ranked += [(rank, name, partition) for name, rank in await _ranked(redis, where, among, limit)]
    best = sorted(ranked, reverse=True)[:limit]
    pipeline = redis.pipeline(transaction=False)
    for _, name, partition in best:
        pipeline.hget(table_key(settings, "accounts", partition, "warmth"), name)
    values = await pipeline.execute() if best else []
    return [(name, _reading(value)) for (_, name, _), value in zip(best, values, strict=True) if value]


async def _ranked(redis: Any, where: str, among: Among, limit: int) -> list[tuple[str, float]]:
    """The first accounts of a sorted set that are asked for."""
    found: list[tuple[str, float]] = []
    begin, size = 0, limit if among is None else _RANKED_AT_ONCE
    while len(found) < limit:
        some = await redis.zrevrange(where, begin, begin + size - 1, withscores=True)
        found += [(name.decode(), rank) for name, rank in some if among is None or among(name.decode())]
        if len(some) < size:
            break
        begin += size
    return found[:limit]


def _row(account: str, reading: Reading, at: int, rules: Rules) -> Row:
    following = next_of(reading, at, rules.scale)
    return {
        "account": account,
        "state": reading.state,
        "score": round(score_of(reading.course, at, rules.scale), 2),
        "since": _text(reading.since),
        "transition": reading.transition,
        "rewarmed": reading.rewarmed,
        "cause": reading.cause and reading.cause._asdict(),
        "next_at": _text(following.at if following else None),
        "next_state": following.state if following else None,
    }


def _text(at: int | None) -> str | None:
    return None if at is None else to_text(at)


# --- one account ------------------------------------------------------------------------


async def warmth_of(redis: Any, settings: Settings, id: str, *, now: int | None = None) -> Document:
    """{account, name, state, score, since, quiet, next, history: [transition …]} of an account, oldest first.

    A transition says what its alert would: see models.alerts. `next` is what comes when
    nothing else happens. An account that was merged answers for the one it was merged
    into. Raises NotFound.
    """
    rules = rules_from(settings)
    asked = await known_account(redis, rules, id)
    found = await account_above(redis, rules, f"account:{asked.name}") or asked
    usuals = usuals_of(await read_counts(redis, settings, [LEFT]))
    return history_document(found, _now() if now is None else now, usuals)


def history_document(account: Account, now: int, usuals: Usuals) -> Document:
    """The warmth of an account and how it came about."""
    history = account.engagement.history
    scene = account.engagement.scene(history)
    state, following = present(history, now), next(ahead(history, now), None)
    return {
        "account": account.name,
        "name": account.profile.name,
        "quiet": account.profile.quiet,
        "state": state.state if state else "cold",
        "score": round(account.engagement.score_at(now), 6),
        "since": state and to_text(state.at),
        "next": following and {"at": to_text(following.at), "state": following.state},
        "history": [msgspec.to_builtins(finished(drafted(scene, each), usuals)) for each in history if each.at <= now],
    }


# --- alerts -----------------------------------------------------------------------------


async def alerts(redis: Any, settings: Settings, *, where: Where = (), limit: int = MOST) -> list[Document]:
    """The newest alerts as they were published, the one with the latest transition first.

    Of each partition the newest few hundred are kept; the topic `alerts` has all.
    """
    _check_limit(limit)
    among = await _among(redis, settings, where)
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.lrange(table_key(settings, "accounts", partition, "alerts"), 0, -1)
    found = [decode_alert(value) for values in await pipeline.execute() for value in values]
    wanted = [alert for alert in found if among is None or among(alert.account.id)]
    newest = sorted(wanted, key=_instant, reverse=True)[:limit]
    return [msgspec.to_builtins(alert) for alert in newest]


def _instant(alert: Alert) -> tuple[int, str]:
    return parse_instant(alert.at, "alert.at"), alert.alert_id
