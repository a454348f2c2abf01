"""What the live page shows at one moment, as one JSON object.

{currency, decimals, models, writeKey, pot: {amount, count}, pipeline: [{stage, count, amount …}],
revenue: {model: [{channel, count, amount}]}, newest: [touch], forecast: [{period, pot, pipeline, new_business,
total, p10, p50, p90}], quarter: the same of this quarter, warmth: {counts, warmest, cooling}, alerts: [alert]}

Amounts are minor units, counts of credits millionths, a touch's `at` is in microseconds.
"""

import asyncio
import heapq
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
from redis.asyncio import Redis

from models.catalogue import every_model
from models.money import DECIMALS
from models.settings import Settings
from streams import outlook, reports
from streams.answers import translated
from streams.keys import table_key
from streams.names import names_of

NEWEST_TOUCHES = 20
NEWEST_ALERTS = 8
ACCOUNTS = 6
MONTHS = 6
FORECAST_SECONDS = 5.0
"""The forecast of so long ago is good enough: it takes longer than all the rest."""
_ADDS_UP = "first_touch"

Row = dict[str, Any]


class Remembered:
    """An answer that is kept for a while, because it takes long to make."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._made: dict[str, tuple[float, Any]] = {}

    async def get(self, name: str, make: Callable[[], Awaitable[Any]]) -> Any:
        """The answer of this name, made anew when it is too old."""
        now = asyncio.get_running_loop().time()
        at, value = self._made.get(name, (float("-inf"), None))
        if now - at >= self._seconds:
            value = await make()
            self._made[name] = now, value
        return value


async def snapshot(redis: Redis, settings: Settings, models: Sequence[str], remembered: Remembered) -> Row:
    """What the page shows now, with revenue by channel under each of these models.

    Raises Unavailable when Redis is away.
    """
    with translated():
        revenue = {
            model: await reports.credits(redis, settings, model=model, by="channel", conversion="won")
            for model in {*models, _ADDS_UP}
        }
        return {
            "currency": settings.currency,
            "decimals": DECIMALS[settings.currency],
            "models": list(every_model(settings)),
            "writeKey": next(iter(settings.web.write_keys), ""),
            "pot": _pot(revenue[_ADDS_UP]),
            "pipeline": await reports.pipeline(redis, settings),
            "revenue": revenue,
            "newest": await newest_touches(redis, settings),
            **await remembered.get(settings.lanes.version, lambda: _forecast(redis, settings)),
            "warmth": await _warmth(redis, settings),
            "alerts": await reports.alerts(redis, settings, limit=NEWEST_ALERTS),
        }


async def newest_touches(redis: Redis, settings: Settings) -> list[Row]:
    """The newest touches of all accounts, newest first; each accounts partition keeps its own."""
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.lrange(table_key(settings, "accounts", partition, "newest"), 0, NEWEST_TOUCHES - 1)
    lists = await pipeline.execute()
    touches = (msgspec.json.decode(touch) for each in lists for touch in each)
    newest = heapq.nlargest(NEWEST_TOUCHES, touches, key=lambda touch: touch["at"])
    names = await names_of(redis, settings, (touch["account"] for touch in newest))
    return [{**touch, "account_name": names.get(touch["account"])} for touch in newest]


def _pot(rows: Sequence[Row]) -> Row:
    """All won revenue: what its credits add up to, refunds within."""
    return {"amount": sum(row["amount"] for row in rows), "count": sum(row["count"] for row in rows)}


async def _forecast(redis: Redis, settings: Settings) -> Row:
    months = await outlook.forecast(redis, settings, grain="month", periods=MONTHS)
    (quarter,) = await outlook.forecast(redis, settings, grain="quarter", periods=1)
    return {"forecast": months, "quarter": quarter}


async def _warmth(redis: Redis, settings: Settings) -> Row:
    """How many accounts are in each state, the warmest, and those that cool."""
    found = await reports.warmth(redis, settings, limit=ACCOUNTS)
    warmest = heapq.nlargest(ACCOUNTS, found["accounts"], key=lambda row: row["score"])
    cooling = [row for row in found["accounts"] if row["state"] == "cooling"]
    return {"counts": found["counts"], "warmest": warmest, "cooling": cooling}
