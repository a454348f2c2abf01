"""Reports on the pipeline: what is open, how fast deals are won, and how they go through the stages.

Amounts are minor units of the reporting currency, days whole days in the reporting time zone.
Each report is for a day, default today (streams.statistics).
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal, localcontext
from fractions import Fraction
from functools import partial
from typing import Any, NamedTuple, Unpack

from models.catalogue import OPEN as OPEN_CREDITS
from models.catalogue import conversion_kinds, kept_models
from models.cells import Cells
from models.counts import Tables
from models.filters import Where
from models.flows import Period, happened
from models.forecast import Forecast, half_up, span_of
from models.funnel import (
    ACCOUNTS,
    BY,
    STATES,
    StageFlow,
    Velocity,
    funnel_tables,
    stage_flows,
    time_to_buy,
    velocities,
    velocity_tables,
)
from models.hazards import EXACT
from models.pipeline import OPEN, OPEN_AGES, OPEN_OWNERS, Open
from models.settings import Settings
from models.stages import stage_places
from models.times import number_of
from models.vectors import numbers_of
from streams.asked import InPeriods, days_between, one_of
from streams.earned import Row, dimension_of
from streams.outlook import forecast_of
from streams.statistics import Statistics, statistics, with_naming

CREDITED = ("team", "channel", "source", "campaign", "rep")
OPEN_BY = ("stage", "owner", *CREDITED)
FUNNEL_CHANNEL = "funnel_channel"
GRAINS = ("total", "month", "quarter", "year")


# --- what is open -----------------------------------------------------------------------


async def pipeline(
    redis: Any,
    settings: Settings,
    *,
    by: str = "stage",
    model: str = "first_touch",
    day: str | None = None,
    where: Where = (),
) -> list[Row]:
    """Open deals by stage, owner, team, channel, source, campaign or rep.

    By stage (in order) and owner rows are {<by>, count, amount, weighted_amount, average_age_days, oldest_age_days,
    currency}: an age is that since the deal's creation; `weighted_amount` takes deals by their chance to be
    won within 52 weeks, those without an amount as of the average size. By the others it is the
    deals' opportunity credits under `model`, counts in millionths, without a weighted amount.
    """
    wanted = by.strip().lower().replace("-", "_")
    one_of("by", OPEN_BY, wanted)
    known = await statistics(redis, settings, day, where)
    if wanted in CREDITED:
        return await _credited(known, dimension_of(wanted), model)
    return await _open_rows(known, wanted)


async def _open_rows(known: Statistics, by: str) -> list[Row]:
    table = OPEN if by == "stage" else OPEN_OWNERS
    found = await forecast_of(known)
    tables = {**await known.tables([OPEN_AGES, *([] if by == "stage" else [OPEN_OWNERS])]), **found.tables}
    weighted = _weighted(tables, table, found)
    places = stage_places(tables, known.rules.settings) if by == "stage" else {}
    rows = [
        {by: value, **_open_numbers(ages), "weighted_amount": half_up(weighted.get(value, Decimal(0)))}
        for value, ages in _ages(tables, by, known.day).items()
    ]

    def place(row: Row) -> tuple[Any, ...]:
        return places.get(row[by], -1), -row["amount"], -row["count"], row[by] is None, row[by] or ""

    return [_ordered(row, by, known) for row in sorted(rows, key=place)]


def _ordered(row: Row, by: str, known: Statistics) -> Row:
    names = (by, "count", "amount", "weighted_amount", "average_age_days", "oldest_age_days")
    return {**{name: row[name] for name in names if name in row}, "currency": known.rules.settings.currency}


class Aged(NamedTuple):
    """Deals (or millionths of them) of one age in days."""

    age: int
    deals: int
    amount: int


def _open_numbers(aged: Iterable[Aged]) -> Row:
    there = [each for each in aged if each.deals or each.amount]
    count = sum(each.deals for each in there)
    mean = Fraction(sum(each.age * each.deals for each in there), count) if count else None
    return {
        "count": count,
        "amount": sum(each.amount for each in there),
        "average_age_days": decimals(mean, 1),
        "oldest_age_days": max((each.age for each in there), default=None),
    }


def _ages(tables: Tables, by: str, day: str) -> dict[str | None, list[Aged]]:
    ages: dict[str | None, list[Aged]] = defaultdict(list)
    for (kind, value, created), (count, amount) in happened(tables, OPEN_AGES).items():
        if kind == by:
            ages[value].append(Aged(_age(created, day), count, amount))
    return ages


def _age(created: str, day: str) -> int:
    return max(0, number_of(day) - number_of(created))


def _weighted(tables: Tables, table: str, found: Forecast) -> Mapping[str | None, Decimal]:
    """Open amounts by their chance to be won, by stage or owner."""
    size = found.new_business.size
    sums: dict[str | None, Decimal] = defaultdict(Decimal)
    for (*values, entered, quality), numbers in happened(tables, table).items():
        owner, pipeline, stage = values if table == OPEN_OWNERS else (None, *values)
        deals = Open(*numbers)
        chance = found.chance((pipeline, stage), entered, quality)
        with localcontext(EXACT):
            sums[owner if table == OPEN_OWNERS else stage] += (deals.amount + deals.unpriced * size) * chance
    return sums


async def _credited(known: Statistics, dimension: str, model: str) -> list[Row]:
    place, aged = _place_of(model, known.rules.settings), defaultdict(list)
    for cell, vector in (await known.cells(OPEN_CREDITS, dimension, None)).items():
        count, amount = numbers_of(vector, known.rules.width)[place : place + 2]
        aged[cell.value].append(Aged(_age(cell.day, known.day), count, amount))
    rows = [{dimension: value, **_open_numbers(each)} for value, each in aged.items()]
    there = (row for row in rows if row["count"] or row["amount"])
    ordered = sorted(there, key=lambda row: (-row["amount"], -row["count"], row[dimension] or "~"))
    return [_ordered(row, dimension, known) for row in ordered]


def _place_of(model: str, settings: Settings) -> int:
    """Where a cell keeps the model's count; its amount is the next number."""
    models = kept_models(settings)
    return 2 * models.index(one_of("model", models, model))


# --- how fast ---------------------------------------------------------------------------


async def velocity(
    redis: Any,
    settings: Settings,
    *,
    by: str = "total",
    day: str | None = None,
    where: Where = (),
    **periods: Unpack[InPeriods],
) -> list[Row]:
    """Rows of deals by the period in which they closed, all time by default, in total or by pipeline or owner.

    {period, <by>, open, won, lost, win_rate, average_size, cycle_median_days, cycle_mean_days, velocity_per_day,
    currency}: sizes before refunds, cycles from creation to win; velocity is open deals × win rate ×
    average size / mean cycle, None at a cycle of 0. Without a denominator a number is None.
    """
    one_of("by", BY, by)
    known = await statistics(redis, settings, day, where)
    return [
        {"period": name, **({} if by == "total" else {by: each.value}), **_velocity_row(each, settings)}
        async for name, period, tables in _periods(known, partial(velocity_tables, by), **periods)
        for each in velocities(tables, by, period)
    ]


def _velocity_row(each: Velocity, settings: Settings) -> Row:
    return {
        "open": each.open,
        "won": each.won,
        "lost": each.lost,
        "win_rate": decimals(each.win_rate, 4),
        "average_size": _whole(each.average_size),
        "cycle_median_days": each.cycle_median,
        "cycle_mean_days": decimals(each.cycle_mean, 2),
        "velocity_per_day": _whole(each.per_day),
        "currency": settings.currency,
    }


# --- through the stages -----------------------------------------------------------------


async def funnel(
    redis: Any,
    settings: Settings,
    *,
    model: str = "linear",
    conversion: str = "won",
    day: str | None = None,
    where: Where = (),
    **periods: Unpack[InPeriods],
) -> Row:
    """{credits, stages, time_to_buy, accounts}: who brought deals how far, what went through each stage in a period.

    credits: {period, funnel_stage, channel, count, amount, currency} of the conversion under the model.
    stages: {period, pipeline, stage, open, entered, left, won, lost, moved, deals, converted, conversion_rate,
    median_days, p90_days}; of `deals` that first entered the stage in the period `converted` came to a
    later stage or were won; days are of the stays that ended. time_to_buy: {period, wins, median_days,
    p90_days} from the account's lead moment to the win. accounts: {state, accounts} as of the day.
    """
    known = await statistics(redis, settings, day, where)
    kind = one_of("conversion", conversion_kinds(settings), conversion)
    cells = _by_time(await known.cells(kind, FUNNEL_CHANNEL, days_between(periods.get("since"), periods.get("until"))))
    place = _place_of(model, settings)
    told: Row = {"credits": [], "stages": [], "time_to_buy": [], "accounts": []}
    async for name, period, tables in _periods(known, funnel_tables, **periods):
        told["credits"] += ({"period": name, **row} for row in _funnel_credits(cells, period, place, known))
        told["stages"] += ({"period": name, **_stage_row(each)} for each in stage_flows(tables, period, known.rules))
        told["time_to_buy"].append({"period": name, **time_to_buy(tables, period)._asdict()})
    accounts = (await known.tables([ACCOUNTS]))[ACCOUNTS]
    told["accounts"] = [{"state": state, "accounts": accounts.get(state, (0,))[0]} for state in STATES]
    return told


def _by_time(cells: Cells) -> dict[str, dict[str, int]]:
    """Each day's (or month's) cells by value."""
    times: dict[str, dict[str, int]] = defaultdict(dict)
    for cell, vector in cells.items():
        times[cell.day][str(cell.value)] = vector
    return times


def _funnel_credits(
    times: Mapping[str, Mapping[str, int]], period: Period, place: int, known: Statistics
) -> Iterator[Row]:
    """Credits of the period by funnel stage, in its order, and channel, the greatest amount first."""
    vectors: dict[str, int] = defaultdict(int)
    for time in times:
        if time in period:
            for value, vector in times[time].items():
                vectors[value] += vector
    sums: dict[tuple[str, str], list[int]] = defaultdict(lambda: [0, 0])
    for value, vector in vectors.items():
        stage, _, channel = value.partition(":")
        mine, numbers = sums[stage, channel or stage], numbers_of(vector, known.rules.width)
        mine[:] = mine[0] + numbers[place], mine[1] + numbers[place + 1]
    currency = known.rules.settings.currency
    for (stage, channel), (count, amount) in sorted(sums.items(), key=_funnel_order):
        if count or amount:
            yield {"funnel_stage": stage, "channel": channel, "count": count, "amount": amount, "currency": currency}


def _funnel_order(each: tuple[tuple[str, str], list[int]]) -> tuple[Any, ...]:
    (stage, channel), (count, amount) = each
    return stage, -amount, -count, channel


def _stage_row(each: StageFlow) -> Row:
    row = each._asdict()
    rate = Fraction(each.converted, each.deals) if each.deals else None
    days = {name: row.pop(name) for name in ("median_days", "p90_days")}
    return {**row, "conversion_rate": decimals(rate, 4), **days}


# --- periods ----------------------------------------------------------------------------


async def _periods(
    known: Statistics, needed: Any, *, grain: str = "total", since: str | None = None, until: str | None = None
) -> Any:
    """(name, period, tables) of each period of the grain between the days; `total` is one."""
    months = await known.months()
    periods = list(_named_periods(grain, days_between(since, until), months))
    names = dict.fromkeys(name for _, period in periods for name in needed(period, months))
    tables = await with_naming(await known.tables(list(names)), known.tables)
    for name, period in periods:
        yield name, period, tables


def _named_periods(grain: str, asked: Period, months: Iterable[str]) -> Iterator[tuple[str, Period]]:
    if one_of("grain", GRAINS, grain) == "total":
        yield "total", asked
        return
    spans = {span_of(f"{month}-01", grain) for month in asked.months(months)}
    for span in sorted(spans, key=lambda span: span.first):
        yield span.name, span.period.within(asked)


def decimals(number: Fraction | None, places: int) -> float | None:
    """A ratio rounded half up to so many decimals."""
    if number is None:
        return None
    return float(int(number * 10**places + Fraction(1, 2)) / 10**places)


def _whole(number: Fraction | None) -> int | None:
    return None if number is None else int(number + Fraction(1, 2))
