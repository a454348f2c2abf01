"""Reports: what the totals say, as rows for the command line, the API and the live page.

Amounts are integer minor units of the reporting currency. Counts of credits are
millionths of a conversion, counts of the pipeline are deals. All read Redis only, but
`lanes`, which asks Kafka how much there is to read.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

from models.catalogue import STAGE, conversion_kinds
from models.counts import SHARED
from models.errors import Unavailable
from models.filters import ATTRIBUTES, Where, parts_of
from models.lanes import LANES
from models.naming import NAMED
from models.pipeline import PIPELINE
from models.settings import Settings
from models.stages import stage_places
from models.usage import USES
from streams import committees, earned, journeys
from streams import warmth as warmths
from streams.filtered import read_filtered_counts
from streams.keys import key
from streams.statistics import with_naming
from streams.totals import read_counts, read_fields, waiting_entry

Row = dict[str, Any]
credits = earned.credits
compare = earned.compare
sourced = earned.sourced
deal = journeys.deal
journey = journeys.journey
account = committees.account
person = committees.person
warmth = warmths.warmth
warmth_of = warmths.warmth_of
alerts = warmths.alerts


async def pipeline(redis: Any, settings: Settings, where: Where = ()) -> list[Row]:
    """Rows {stage, count, amount, currency} of open deals; stages in their order, what has none first.

    What the live page asks every second: `touchline report pipeline` (streams.pipeline) tells more.
    """
    stages = (await read_filtered_counts(redis, settings, [PIPELINE], where))[PIPELINE]
    read = partial(read_fields, redis, settings)
    named = await with_naming(await read([NAMED]), read)
    places = stage_places(named, settings)
    rows = [
        {"stage": stage, "count": count, "amount": amount, "currency": settings.currency}
        for stage, (count, amount) in stages.items()
        if count or amount
    ]
    return sorted(rows, key=lambda row: (places.get(row["stage"], -1), row["stage"]))


async def attributes(redis: Any, settings: Settings) -> list[Row]:
    """Rows {attribute, value, accounts}: what accounts can be filtered by."""
    labels = (await read_counts(redis, settings, [ATTRIBUTES]))[ATTRIBUTES]
    rows = [(*parts_of(label), number) for label, (number,) in labels.items()]
    ordered = sorted(rows, key=lambda row: (row[0], -row[2], row[1]))
    return [{"attribute": name, "value": value, "accounts": number} for name, value, number in ordered]


async def shared(redis: Any, settings: Settings) -> list[Row]:
    """Rows {kind, id, names}: visitors of too many people and user ids of too many e-mails, whose links lapse."""
    counted = (await read_counts(redis, settings, [SHARED]))[SHARED]
    rows = [(*field.partition("\0")[::2], number) for field, (number,) in counted.items()]
    ordered = sorted(rows, key=lambda row: (row[0], -row[2], row[1]))
    return [{"kind": kind, "id": name, "names": number} for kind, name, number in ordered]


async def usage(redis: Any, settings: Settings) -> list[Row]:
    """Rows {day, event, count} of product usage, oldest first."""
    counted = (await read_counts(redis, settings, [USES]))[USES]
    rows = sorted((*field.partition("\0")[::2], number) for field, (number,) in counted.items())
    return [{"day": day, "event": event, "count": number} for day, event, number in rows]


async def waiting(redis: Any, settings: Settings) -> list[Row]:
    """Rows {kind, deal, refund, reason}: what is not in the totals, and what it waits for."""
    rows = []
    for fields in await _hashes(redis, settings, "waiting"):
        for entry, reason in fields.items():
            kind, name = _kind_and_name(waiting_entry(entry), settings)
            of_deal, _, refund = name.rpartition("/") if kind == "refund" else (name, "", None)
            rows.append({"kind": kind, "deal": of_deal, "refund": refund, "reason": reason.decode()})
    return sorted(rows, key=lambda row: (row["kind"], row["deal"], row["refund"] or ""))


def _kind_and_name(entry: str, settings: Settings) -> tuple[str, str]:
    """What waits, and of which deal (and refund); a stage's name may hold any character."""
    stages = (kind for kind in conversion_kinds(settings) if kind.startswith(STAGE) and entry.startswith(f"{kind}:"))
    kind = max(stages, key=len, default=entry.partition(":")[0])
    return kind, entry[len(kind) + 1 :]


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
