"""Who earned what: credits added up over days, under one model or several side by side.

Amounts are integer minor units of the reporting currency, counts millionths of a
conversion. All read Redis only.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple, Unpack

from models.attribution import BUILT_IN, MARKOV, PARTICIPATION
from models.catalogue import conversion_kinds, every_model, kept_models
from models.cells import Cells
from models.conversions import DIMENSIONS, UNATTRIBUTED
from models.errors import BadInput
from models.filters import Where
from models.flows import Period
from models.markov import apportioned
from models.settings import Settings
from models.vectors import numbers_of
from streams.asked import InPeriods, days_between, one_of
from streams.effects import removal_effects
from streams.filtered import check_attributes, read_cells

Row = dict[str, Any]
GRAINS = {"total": 0, "month": len("2026-04"), "day": len("2026-04-03")}
"""Per grain how much of a day names its period; 0: there is one period, `total`."""
_LINEAR = 2 * BUILT_IN.index("linear")
"""Where a cell keeps the counts of a model that leaves unattributed only what has no touch."""
_SMALLEST = "team"
"""The dimension with the fewest cells; in each of them a day's credits add up to the same."""
_ALIASES = {"touch_kind": "kind", "stage": "funnel_stage", "landing": "landing_page"}


class Asked(InPeriods, total=False):
    """Which credits are added up: of which conversion (`won` by default), when, of which accounts (all by default)."""

    conversion: str
    where: Where


class Query(NamedTuple):
    """What is asked of the totals, checked.

    `places` say where a cell keeps the models' counts, each amount being the next number;
    None for `markov`, which is solved.
    """

    models: tuple[str, ...]
    places: tuple[int | None, ...]
    dimension: str
    conversion: str
    grain: str
    days: Period
    where: Where

    def period(self, day: str) -> str:
        """The name of the period of a day or month."""
        return day[: GRAINS[self.grain]] or "total"


Sums = dict[tuple[str, str | None], list[int]]
"""Period and value → count and amount of each model asked for, in turn."""


async def credits(
    redis: Any,
    settings: Settings,
    *,
    model: str,
    by: str,
    **asked: Unpack[Asked],
) -> list[Row]:
    """Rows {period, <by>: value, count, amount, currency}: by period, then the greatest amount first.

    A value of None is a touch without the dimension. Refunds are within `won`, on their
    own days. Raises BadInput for anything unknown.
    """
    query = await _checked(redis, settings, [model], by, **asked)
    sums = await _sums(redis, settings, query)
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
    **asked: Unpack[Asked],
) -> list[Row]:
    """Rows {period, <by>: value, <model>: {count, amount} …, currency}, ordered by the first model."""
    query = await _checked(redis, settings, models, by, **asked)
    sums = await _sums(redis, settings, query)
    return [
        {"period": period, by: value, **_by_model(query.models, numbers), "currency": settings.currency}
        for (period, value), numbers in _sorted(sums)
    ]


async def sourced(
    redis: Any,
    settings: Settings,
    *,
    by: str = "team",
    **asked: Unpack[Asked],
) -> list[Row]:
    """Rows {period, <by>: value, sourced: {count, amount}, influenced: {count, amount}, currency}.

    A value sources a conversion when it has the first eligible touch, and influences it
    when it has any; so what is influenced does not add up. Greatest sourced amount first.
    """
    models = {"first_touch": "sourced", PARTICIPATION: "influenced"}
    rows = await compare(redis, settings, models=tuple(models), by=by, **asked)
    return [{models.get(name, name): value for name, value in row.items()} for row in rows]


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


async def _checked(
    redis: Any,
    settings: Settings,
    models: Iterable[str],
    by: str,
    *,
    conversion: str = "won",
    grain: str = "total",
    since: str | None = None,
    until: str | None = None,
    where: Where = (),
) -> Query:
    every, kept = every_model(settings), kept_models(settings)
    known = tuple(dict.fromkeys(one_of("model", every, model) for model in models))
    if not known:
        raise BadInput("models", f"one or more of {', '.join(every)}", "nothing")
    dimension = dimension_of(by)
    if MARKOV in known and dimension != "channel":
        raise BadInput("by", f"channel: {MARKOV} tells what conversions are lost without a channel, and no more", by)
    query = Query(
        known,
        tuple(2 * kept.index(model) if model in kept else None for model in known),
        dimension,
        one_of("conversion", conversion_kinds(settings), conversion),
        one_of("grain", GRAINS, grain),
        days_between(since, until),
        where,
    )
    await check_attributes(redis, settings, where)
    return query


async def _sums(redis: Any, settings: Settings, query: Query) -> Sums:
    """The cells asked for, added up over their days."""
    sums: Sums = {}
    if any(place is not None for place in query.places):
        by_day = query.grain == "day"
        asked = query.conversion, query.dimension, query.where
        _add(sums, query, await read_cells(redis, settings, *asked, period=query.days, by_day=by_day))
    if MARKOV in query.models:
        effects = await removal_effects(redis, settings, query.conversion)
        cells = await read_cells(redis, settings, query.conversion, _SMALLEST, query.where, period=query.days)
        _add_markov(sums, query, _by_day(cells), effects)
    return sums


def _by_day(cells: Cells) -> dict[str, tuple[list[int], list[int]]]:
    """Each day's count and amount that touches earned, and those that none did."""
    days: dict[str, tuple[list[int], list[int]]] = {}
    for cell, vector in cells.items():
        earned = days.setdefault(cell.day, ([0, 0], [0, 0]))[cell.value == UNATTRIBUTED]
        for number, value in enumerate(numbers_of(vector, _LINEAR + 2)[_LINEAR:]):
            earned[number] += value
    return days


def _add_markov(
    sums: Sums, query: Query, days: Mapping[str, tuple[list[int], list[int]]], effects: Mapping[str, int]
) -> None:
    """Share out what touches earned on each day by the channels' removal effects."""
    place = 2 * query.models.index(MARKOV)
    for day, (earned, unattributed) in days.items():
        for number, whole in enumerate(earned):
            shares = apportioned(whole, effects) if effects else {UNATTRIBUTED: whole}
            for value, share in [*shares.items(), (UNATTRIBUTED, unattributed[number])]:
                mine = sums.setdefault((query.period(day), value), [0] * (2 * len(query.models)))
                mine[place + number] += share


def _add(sums: Sums, query: Query, cells: Cells) -> None:
    width = max((place or 0) for place in query.places) + 2
    for cell, vector in cells.items():
        numbers = numbers_of(vector, width)
        mine = sums.setdefault((query.period(cell.day), cell.value), [0] * (2 * len(query.places)))
        for number, place in enumerate(query.places):
            if place is not None:
                mine[2 * number] += numbers[place]
                mine[2 * number + 1] += numbers[place + 1]


def _sorted(sums: Sums) -> list[tuple[tuple[str, str | None], list[int]]]:
    """What is not zero: by period, then the first model's amount and count, greatest first; then value."""

    def place(each: tuple[tuple[str, str | None], list[int]]) -> tuple[Any, ...]:
        (period, value), (count, amount, *_) = each
        return period, -amount, -count, value is None, value or ""

    return sorted((each for each in sums.items() if any(each[1])), key=place)
