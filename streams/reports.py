"""Reports: what the totals say, as rows for the command line, the API and the live page.

Amounts are integer minor units of the reporting currency. Counts of credits are
millionths of a conversion, counts of the pipeline are deals. All read Redis only, but
`lanes`, which asks Kafka how much there is to read.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any, NamedTuple

from models.attribution import MODELS
from models.conversions import DIMENSIONS, unpack_numbers
from models.errors import BadInput, Unavailable
from models.filters import ATTRIBUTES, Where, parts_of
from models.lanes import LANES
from models.pipeline import PIPELINE
from models.settings import Settings
from streams import journeys
from streams.filtered import read_cells, read_filtered_counts
from streams.tables import cell_of, key, read_counts, waiting_entry

Row = dict[str, Any]
deal = journeys.deal
journey = journeys.journey

CONVERSIONS = ("lead", "opportunity", "open", "won")
GRAINS = {"total": 0, "month": len("2026-04"), "day": len("2026-04-03")}
"""Per grain how much of a day names its period; 0: there is one period, `total`."""
_ALIASES = {"touch_kind": "kind", "stage": "funnel_stage", "landing": "landing_page"}


class Query(NamedTuple):
    """What is asked of the totals, checked; `since` and `until` are days, both included."""

    models: tuple[str, ...]
    dimension: str
    conversion: str
    grain: str
    since: str
    until: str

    def period(self, day: str) -> str:
        """The period of a day."""
        return day[: GRAINS[self.grain]] or "total"

    def places(self) -> list[int]:
        """Where a cell keeps the models' counts; each amount is the next number."""
        return [2 * MODELS.index(model) for model in self.models]


Sums = dict[tuple[str, str | None], list[int]]
"""Period and value → count and amount of each model asked for, in turn."""


async def credits(
    redis: Any,
    settings: Settings,
    *,
    model: str,
    by: str,
    conversion: str = "won",
    grain: str = "total",
    since: str | None = None,
    until: str | None = None,
    where: Where = (),
) -> list[Row]:
    """Rows {period, <by>: value, count, amount, currency}: by period, then the greatest amount first.

    A value of None is a touch without the dimension. Refunds are within `won`, on their
    own days. Raises BadInput for anything unknown.
    """
    query = _checked([model], by, conversion=conversion, grain=grain, since=since, until=until)
    sums = await _sums(redis, settings, query, where)
    return [
        {"period": period, by: value, "count": count, "amount": amount, "currency": settings.currency}
        for (period, value), (count, amount) in _sorted(sums)
    ]


async def compare(
    redis: Any,
    settings: Settings,
    *,
    models: Sequence[str],
    by: str,
    conversion: str = "won",
    grain: str = "total",
    since: str | None = None,
    until: str | None = None,
    where: Where = (),
) -> list[Row]:
    """Rows {period, <by>: value, <model>: {count, amount} …, currency}, ordered by the first model."""
    query = _checked(models, by, conversion=conversion, grain=grain, since=since, until=until)
    sums = await _sums(redis, settings, query, where)
    return [
        {"period": period, by: value, **_by_model(query.models, numbers), "currency": settings.currency}
        for (period, value), numbers in _sorted(sums)
    ]


def _by_model(models: Sequence[str], numbers: Sequence[int]) -> Row:
    pairs = zip(models, numbers[::2], numbers[1::2], strict=True)
    return {model: {"count": count, "amount": amount} for model, count, amount in pairs}


def dimension_of(by: str) -> str:
    """The dimension that a user means: hyphens and other names are as good."""
    name = by.strip().lower().replace("-", "_")
    name = _ALIASES.get(name, name)
    if name not in DIMENSIONS:
        raise BadInput("by", f"one of {', '.join(DIMENSIONS)}", by)
    return name


def _checked(
    models: Iterable[str], by: str, *, conversion: str, grain: str, since: str | None, until: str | None
) -> Query:
    known = tuple(dict.fromkeys(_one_of("model", MODELS, model) for model in models))
    if not known:
        raise BadInput("models", f"one or more of {', '.join(MODELS)}", "nothing")
    return Query(
        known,
        dimension_of(by),
        _one_of("conversion", CONVERSIONS, conversion),
        _one_of("grain", GRAINS, grain),
        _day("from", since) or "",
        _day("to", until) or "9999-12-31",
    )


def _one_of(where: str, known: Iterable[str], value: str) -> str:
    if value not in known:
        raise BadInput(where, f"one of {', '.join(known)}", value)
    return value


def _day(where: str, value: str | None) -> str | None:
    try:
        return value and date.fromisoformat(value).isoformat()
    except ValueError:
        raise BadInput(where, "a day such as 2026-04-03", value) from None


async def _sums(redis: Any, settings: Settings, query: Query, where: Where) -> Sums:
    """The cells asked for, added up over partitions and days."""
    sums: Sums = {}
    for sign, fields in await read_cells(redis, settings, query.conversion, query.dimension, where):
        _add(sums, query, sign, fields)
    return sums


def _add(sums: Sums, query: Query, sign: int, fields: Mapping[bytes, bytes]) -> None:
    places = query.places()
    for field, packed in fields.items():
        cell = cell_of(query.conversion, query.dimension, field)
        if query.since <= cell.day <= query.until:
            numbers = unpack_numbers(packed)
            mine = sums.setdefault((query.period(cell.day), cell.value), [0] * (2 * len(places)))
            for number, place in enumerate(places):
                mine[2 * number] += sign * numbers[place]
                mine[2 * number + 1] += sign * numbers[place + 1]


def _sorted(sums: Sums) -> list[tuple[tuple[str, str | None], list[int]]]:
    """What is not zero: by period, then the first model's amount and count, greatest first; then value."""

    def place(each: tuple[tuple[str, str | None], list[int]]) -> tuple[Any, ...]:
        (period, value), (count, amount, *_) = each
        return period, -amount, -count, value is None, value or ""

    return sorted((each for each in sums.items() if any(each[1])), key=place)


async def pipeline(redis: Any, settings: Settings, where: Where = ()) -> list[Row]:
    """Rows {stage, count, amount, currency} of open deals; configured stages first and in their order."""
    stages = (await read_filtered_counts(redis, settings, [PIPELINE], where))[PIPELINE]
    configured = list(dict.fromkeys(stage for each in settings.pipelines.values() for stage in each.stages))
    order = {stage: number for number, stage in enumerate(configured)}
    rows = [
        {"stage": stage, "count": count, "amount": amount, "currency": settings.currency}
        for stage, (count, amount) in stages.items()
        if count or amount
    ]

    def place(row: Row) -> tuple[Any, ...]:
        return order.get(row["stage"], len(order)), -row["amount"], -row["count"], row["stage"]

    return sorted(rows, key=place)


async def attributes(redis: Any, settings: Settings) -> list[Row]:
    """Rows {attribute, value, accounts}: what accounts can be filtered by."""
    labels = (await read_counts(redis, settings, [ATTRIBUTES]))[ATTRIBUTES]
    rows = [(*parts_of(label), number) for label, (number,) in labels.items()]
    ordered = sorted(rows, key=lambda row: (row[0], -row[2], row[1]))
    return [{"attribute": name, "value": value, "accounts": number} for name, value, number in ordered]


async def waiting(redis: Any, settings: Settings) -> list[Row]:
    """Rows {kind, deal, refund, reason}: what is not in the totals, and what it waits for."""
    rows = []
    for fields in await _hashes(redis, settings, "waiting"):
        for entry, reason in fields.items():
            kind, _, name = waiting_entry(entry).partition(":")
            of_deal, _, refund = name.rpartition("/") if kind == "refund" else (name, "", None)
            rows.append({"kind": kind, "deal": of_deal, "refund": refund, "reason": reason.decode()})
    return sorted(rows, key=lambda row: (row["kind"], row["deal"], row["refund"] or ""))


async def _hashes(redis: Any, settings: Settings, name: str) -> list[dict[bytes, bytes]]:
    """A hash of every accounts partition."""
    pipeline = redis.pipeline(transaction=False)
    for partition in range(settings.partitions):
        pipeline.hgetall(key(settings.tables_of("accounts"), partition, name))
    hashes: list[dict[bytes, bytes]] = await pipeline.execute()
    return hashes


async def lanes(redis: Any, settings: Settings, by_partition: bool = False) -> list[Row]:
    """Rows of each lane (and partition): what is read, what lags, and how fast it goes.

    {lane, partition?, facts, lag, messages_lag, outbox, workers, facts_per_second?, refused?,
    topics: {topic: {committed, end, lag}}}. `facts` are those read, `lag` those still to read,
    `messages_lag` messages of other lanes still to read. What Kafka would have to say is
    None while it is away. Rates are told by workers, for a lane as a whole; `refused` is
    since they began.
    """
    from streams import standing  # Kafka's client is slow to import, and only this report needs it

    now = await standing.read_standing(redis, settings)
    beats = await standing.workers(redis)
    try:
        async with standing.ends_reader(settings) as read_ends:
            ends = await read_ends(standing.LANE_OF_TOPIC)
    except Unavailable:
        ends = None
    seen = _Seen(now, ends, {name.removeprefix(standing.WORKER_PREFIX): beat for name, beat in beats.items()})
    numbers = range(settings.partitions)
    if by_partition:
        return [
            {"lane": lane, "partition": each, **_lane_row(lane, [each], seen)} for lane in LANES for each in numbers
        ]
    return [{"lane": lane, **_lane_row(lane, numbers, seen), **_rates(lane, seen)} for lane in LANES]


class _Seen(NamedTuple):
    """Where the lanes stand, where topics end (None: Kafka is away), and each worker's heartbeat."""

    now: Any
    ends: Mapping[tuple[str, int], int] | None
    beats: Mapping[str, Any]


def _lane_row(lane: str, partitions: Sequence[int], seen: _Seen) -> Row:
    outside, internal = LANES[lane].topics, LANES[lane].internal
    topics = {topic: _topic_row([(topic, each) for each in partitions], seen) for topic in (*outside, internal)}
    lags = [topics[topic]["lag"] for topic in outside]
    owned = {name: beat["lanes"].get(lane, {}).get("partitions", ()) for name, beat in seen.beats.items()}
    return {
        "facts": sum(topics[topic]["committed"] for topic in outside),
        "lag": None if None in lags else sum(lags),
        "messages_lag": topics[internal]["lag"],
        "outbox": sum(seen.now.outboxes[lane, each] for each in partitions),
        "workers": sorted(name for name, mine in owned.items() if set(partitions) & set(mine)),
        "topics": topics,
    }


def _rates(lane: str, seen: _Seen) -> Row:
    counters = [beat["lanes"].get(lane, {}) for beat in seen.beats.values()]
    return {
        "facts_per_second": round(sum(each.get("rate", 0.0) for each in counters), 1),
        "refused": sum(each.get("refused", 0) for each in counters),
    }


def _topic_row(places: list[tuple[str, int]], seen: _Seen) -> Row:
    committed = sum(seen.now.committed(place) for place in places)
    if seen.ends is None:
        return {"committed": committed, "end": None, "lag": None}
    end = sum(seen.ends[place] for place in places)
    return {"committed": committed, "end": end, "lag": end - committed}
