"""A market as it would stand after a million deals: what every partition would hold of it, without its facts.

The deals are drawn for three years up to today and booked by the accounts' own pure code, one
account each. A partition holds `PARTITION_DEALS` of them; `SAMPLE` are computed, and every number
is multiplied: what a report costs is the number of fields, and of most there is one already
when it begins to grow.
"""

import asyncio
import os
import random
import time
from collections.abc import Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import accumulate
from typing import Any

from models.accounts import Account
from models.course import STATES
from models.deals import Deal
from models.filters import label_of
from models.hashes import place_of
from models.leads import Lead
from models.reading import Brief, Reading
from models.reports import Parts, pack
from models.rules import Rules
from models.settings import Settings
from models.times import DAY, HOUR
from models.totals import Totals
from models.touches import Touch, team_of
from models.warming import Ranked, rank_of
from models.warmth import Course, fixed
from streams.keys import place_key, table_key
from streams.redis_clients import batched
from streams.reference import rules_from
from streams.tables import Tables

DEALS, TOUCHES_A_DEAL = 1_000_000, 5
SAMPLE = 62_500
DAYS = 3 * 365
SPREAD_DAYS = 60
"""Touches lie within so many days before their deal, or a while after its creation."""

STAGES = ("new", "demo", "proposal", "negotiation")
PIPELINES = ("default", "partner")
CHANNELS = (
    "paid_search", "organic_search", "direct", "email", "paid_social", "organic_social", "referral", "event",
    "webinar", "display", "affiliate", "partner", "outbound", "call", "video",
)  # fmt: skip
KINDS = ("web_session", "web_session", "form_fill", "call", "meeting", "demo", "webinar", "email_clicked")
CAMPAIGNS = tuple(f"campaign-{number}" for number in range(60))
PEOPLE = tuple(f"rep-{number}" for number in range(40))
INDUSTRY, INDUSTRIES = "software", 8
LABEL = label_of("industry", INDUSTRY)
"""The label under which totals are kept here, of one account in so many; nobody asks for those of other labels."""

CELLS = {("won", "channel"), ("won", "campaign"), ("won", "team"), ("won", "funnel_channel"), ("open", "channel")}
"""The cells that the measured reports read, by conversion and dimension."""

WARM_ACCOUNTS = 200_000
COMMITTED_AT_ONCE = 20_000
_PATH = "a" * 8


class _Chances:
    """A seeded choice among values of which the first are the most frequent."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)

    def common(self, values: tuple[str, ...]) -> str:
        """One of the values: the n-th has the weight 1/(n + 2)."""
        weights = list(accumulate(1 / (number + 2) for number in range(len(values))))
        return self.rng.choices(values, cum_weights=weights)[0]


def today() -> int:
    """The end of the present hour: what the market goes up to."""
    now = time.time_ns() // 1000
    return now - now % HOUR


# --- one deal ---------------------------------------------------------------------------


def parts_of_account(number: int, end: int) -> Parts:
    """An account with a person, five touches and a deal, as its lane keeps them."""
    chances = _Chances(number)
    created = end - chances.rng.randrange(DAYS * DAY)
    touches = [_touch(f"{number}-{each}", created, chances, end) for each in range(TOUCHES_A_DEAL)]
    person = f"ann@account{number}.com"
    first = min(touch.at for touch in touches)
    return {
        **{f"t{_PATH}:{touch.id}": pack(touch) for touch in touches},
        f"k{_PATH}:{person}": pack(Lead(first, person, False, (person,))),
        f"d{_PATH}:{number}": pack(_deal(number, created, chances, end)),
    }


def _touch(name: str, created: int, chances: _Chances, end: int) -> Touch:
    kind = chances.common(KINDS)
    return Touch(
        at=min(end, created + chances.rng.randrange(-2 * SPREAD_DAYS, SPREAD_DAYS) * DAY),
        id=name,
        kind=kind,
        team=team_of(kind),
        channel=chances.common(CHANNELS),
        source=None,
        campaign=chances.common(CAMPAIGNS) if chances.rng.random() < 0.7 else None,
        rep=chances.common(PEOPLE) if team_of(kind) == "sales" else None,
    )


def _deal(number: int, created: int, chances: _Chances, end: int) -> Deal:
    rng = chances.rng
    stages, at = [], created
    for stage in (*STAGES[: rng.randrange(1, 5)], rng.choice(("closed_won", "closed_lost", "closed_lost"))):
        if at <= end:
            stages.append((at, stage))
        at += int(rng.expovariate(1 / 25) * DAY)
    return Deal(
        id=f"D{number}",
        created_at=created,
        pipeline=rng.choice(PIPELINES),
        owner=chances.common(PEOPLE),
        stages=tuple(stages),
        named_by=tuple(f"D{number}:{place}" for place in range(len(stages))),
        amount=rng.randrange(10, 100_000) * 100,
        currency="USD",
    )


# --- many deals -------------------------------------------------------------------------


def sampled(settings: Settings) -> Totals:
    """What a partition holds of a million deals."""
    end, workers = today(), os.cpu_count() or 1
    shares = [range(each, SAMPLE, workers) for each in range(workers)]
    totals = Totals()
    with ProcessPoolExecutor(workers) as pool:
        for booked in pool.map(partial(_booked, settings, end), shares):
            totals.add(booked)
    return _times(totals, DEALS // settings.partitions // SAMPLE)


def _booked(settings: Settings, end: int, numbers: Iterable[int]) -> Totals:
    """What these accounts come to, of the cells and labels that somebody asks for."""
    rules = rules_from(settings)
    totals, labelled = Totals(), Totals()
    for number in numbers:
        own = _own_totals(number, end, rules)
        totals.add(own)
        if number % INDUSTRIES == 0:
            labelled.add(own)
    totals.add_under(LABEL, labelled)
    return totals


def _own_totals(number: int, end: int, rules: Rules) -> Totals:
    own = Account(f"account{number}.com", parts_of_account(number, end), rules).ledger.own_totals()
    return Totals({cell: numbers for cell, numbers in own.cells.items() if cell[:2] in CELLS}, own.counts)


def _times(totals: Totals, factor: int) -> Totals:
    cells = {cell: factor * numbers for cell, numbers in totals.cells.items()}
    counts = {count: tuple(factor * number for number in numbers) for count, numbers in totals.counts.items()}
    return Totals(cells, counts)


# --- in Redis ---------------------------------------------------------------------------


async def fill(redis: Any, settings: Settings) -> None:
    """Let every partition hold its part of the market, and of the accounts that are warm."""
    totals = await asyncio.to_thread(sampled, settings)
    await _commit(redis, settings, 0, totals)
    for partition in range(settings.partitions):
        if partition:
            await _copy(redis, settings, partition, totals)
        await _commit(redis, settings, partition, Totals(warmth=dict(_warm(settings, partition))))


async def _commit(redis: Any, settings: Settings, partition: int, totals: Totals) -> None:
    """Put down totals as the accounts lane does, some at a time."""
    tables = Tables(redis, "accounts", partition, COMMITTED_AT_ONCE)
    await tables.acquire()
    for some in _portions(totals):
        tables.begin()
        await tables.put_totals(some)
        await tables.commit()


def _portions(totals: Totals) -> Iterator[Totals]:
    for cells in batched(totals.cells.items(), COMMITTED_AT_ONCE):
        yield Totals(cells=dict(cells))
    for counts in batched(totals.counts.items(), COMMITTED_AT_ONCE):
        yield Totals(counts=dict(counts))
    for warmth in batched(totals.warmth.items(), COMMITTED_AT_ONCE):
        yield Totals(warmth=dict(warmth))


async def _copy(redis: Any, settings: Settings, partition: int, totals: Totals) -> None:
    """Let a partition have what the first one has."""
    first, mine = (table_key(settings, "accounts", each, "") for each in (0, partition))
    names = {place_key("accounts", 0, place_of(cell)) for cell in totals.cells}
    names |= {table_key(settings, "accounts", 0, "counts", count.table) for count in totals.counts}
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.copy(name, name.replace(first, mine, 1), replace=True)
    await pipeline.execute()


def _warm(settings: Settings, partition: int) -> Iterator[tuple[str, Ranked]]:
    """Accounts that were warmed by a demo within the last months."""
    rng, scale, now = random.Random(partition), rules_from(settings).scale, today()
    for number in range(WARM_ACCOUNTS // settings.partitions):
        at, state = now - rng.randrange(90 * DAY), rng.choice(STATES)
        total = rng.randrange(1, fixed(40.0)) // 64
        reading = Reading(
            state=state,
            since=at,
            transition=None,
            rewarmed=False,
            at=at,
            total=total.to_bytes(total.bit_length() // 8 + 1),
            lasts=(at,),
            cause=Brief("demo", "event", None, "ann"),
        )
        rank = rank_of(Course(at, total, {"ann": at}, state), scale)
        yield f"warm{partition}-{number}.com", Ranked(reading, state, rank)
