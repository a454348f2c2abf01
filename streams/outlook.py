"""Reports on what will be won: the forecast, the chances behind it, and how good it was.

Amounts are minor units of the reporting currency, rounded half up once. Each report is
for a day, default today (streams.statistics).
"""

import asyncio
from datetime import date
from decimal import Decimal
from typing import Any

from models.backtest import Trial, came_in, day_of_trial, months_to_try, summary, trial
from models.counts import Tables
from models.errors import BadInput
from models.filters import Where
from models.forecast import GRAINS, Forecast, Outlook, first_tables, half_up, more_tables
from models.pipeline import LOST, MOVED, POT, WON
from models.settings import Settings
from models.times import day_numbered
from streams.asked import one_of
from streams.filtered import check_attributes
from streams.statistics import Statistics, facts_so_far, of_facts, statistics, today, with_naming

Row = dict[str, Any]

PERIODS = {"month": 12, "quarter": 4, "year": 2}
"""How many periods are forecast where nobody says."""
TRIAL_COLUMNS = (
    "month", "day", "forecast", "p10", "p50", "p90", "came", "inside", "last_month", "open_times_rate", "currency",
)  # fmt: skip
MOST_PERIODS = 60
MOST_MONTHS_AHEAD = 12


async def forecast(
    redis: Any,
    settings: Settings,
    *,
    grain: str = "month",
    periods: int | None = None,
    day: str | None = None,
    where: Where = (),
) -> list[Row]:
    """Rows of the day's month, quarter or year and the next ones: each part apart, and the range.

    {period, from, to, pot, pipeline, new_business, total, p10, p50, p90, currency, day, new_business_from,
    unpriced_deals, fixed_chances}. `new_business_from` says whether leads or opportunities are
    counted; `unpriced_deals` are open deals that count with the average size; `fixed_chances` names
    the pipelines with too few closed deals, where the operator's stage probabilities hold.
    """
    one_of("grain", GRAINS, grain)
    number = PERIODS[grain] if periods is None else periods
    if not 1 <= number <= MOST_PERIODS:
        raise BadInput("periods", f"a number from 1 to {MOST_PERIODS}", number)
    found = await forecast_of(await statistics(redis, settings, day, where), grain)
    return [_row(outlook, found, settings) for outlook in found.outlooks(grain, number)]


async def forecast_of(known: Statistics, grain: str = "month") -> Forecast:
    """The forecast at the end of the statistics' day."""
    tables = dict(await known.tables(first_tables(known.day, grain, await known.months())))
    tables.update(await known.tables(more_tables(tables, known.day)))
    return Forecast(await with_naming(tables, known.tables), known.day, known.rules)


def _row(outlook: Outlook, of: Forecast, settings: Settings) -> Row:
    span = outlook.span
    return {
        "period": span.name,
        "from": day_numbered(span.first),
        "to": day_numbered(span.last),
        "pot": outlook.pot,
        "pipeline": half_up(outlook.pipeline),
        "new_business": half_up(outlook.new_business),
        "total": half_up(outlook.total),
        "p10": half_up(outlook.p10),
        "p50": half_up(outlook.p50),
        "p90": half_up(outlook.p90),
        "currency": settings.currency,
        "day": of.day,
        "new_business_from": f"{of.new_business.start}s".replace("ys", "ies"),
        "unpriced_deals": of.unpriced,
        "fixed_chances": of.fixed,
    }


async def chances(redis: Any, settings: Settings, *, day: str | None = None, where: Where = ()) -> list[Row]:
    """The probability counter: rows {pipeline, stage, week, at_risk, won, lost, moved, chance, by_hand}.

    `chance` is P(won within 52 weeks) of a deal that has been in the stage for `week` whole weeks,
    of which `at_risk` stays were seen and so many ended in that week. `by_hand` says that the
    pipeline has too few closed deals and the operator's probability holds at every age.
    """
    found = await forecast_of(await statistics(redis, settings, day, where))
    return [
        {
            "pipeline": pipeline,
            "stage": stage,
            "week": number,
            "at_risk": week.at_risk,
            **{exit: sum(n for (kind, _), n in week.exits.items() if kind == exit) for exit in (WON, LOST, MOVED)},
            "chance": rounded(found.chance_at((pipeline, stage), number)),
            "by_hand": pipeline in found.fixed,
        }
        for (pipeline, stage), weeks in sorted(found.counter.weeks.items())
        for number, week in enumerate(weeks)
    ]


async def lead_quality(redis: Any, settings: Settings, *, day: str | None = None, where: Where = ()) -> list[Row]:
    """Rows {attribute, value, won, lost, win_rate, factor}: how much likelier than others a kind of lead is won.

    `factor` is None with fewer than 20 closed deals.
    """
    found = await forecast_of(await statistics(redis, settings, day, where))
    return [
        {
            "attribute": attribute,
            "value": value,
            "won": won,
            "lost": lost,
            "win_rate": rounded(Decimal(won) / (won + lost)),
            "factor": rounded(found.qualities[attribute, value]),
        }
        for (attribute, value), (won, lost) in found.kinds_of_leads.items()
    ]


def rounded(number: Decimal | None) -> float | None:
    """A rate with four decimals."""
    return None if number is None else half_up(number * 10_000) / 10_000


# --- how good it was --------------------------------------------------------------------


async def backtest(
    redis: Any,
    settings: Settings,
    *,
    ahead: int = 1,
    since: str | None = None,
    until: str | None = None,
    where: Where = (),
) -> Row:
    """What was forecast of each month `ahead` months before its end, from the facts stamped up to then.

    {months_ahead, error, last_month_error, open_times_rate_error, inside, months}. An error is
    Σ|forecast − came| / Σ came, `inside` the share of months that came between P10 and P90. Each of `months` is
    {month, day, forecast, p10, p50, p90, came, inside, last_month, open_times_rate, currency}; all that
    can be tried between the months `since` and `until`, both included.
    """
    if not 1 <= ahead <= MOST_MONTHS_AHEAD:
        raise BadInput("ahead", f"months from 1 to {MOST_MONTHS_AHEAD}", ahead)
    first, last = _month("from", since) or "", _month("to", until) or "9999-12"
    await check_attributes(redis, settings, where)
    day = today(settings)
    facts = await facts_so_far(redis, settings)
    tables = await _won(await asyncio.to_thread(of_facts, facts, settings, day, where))
    months = [month for month in months_to_try(tables, day, ahead) if first <= month <= last]
    trials = []
    for month in months:
        then = await asyncio.to_thread(of_facts, facts, settings, day_of_trial(month, ahead), where)
        trials.append(trial(await forecast_of(then), month, ahead, came_in(tables, month)))
    totals = {name: rounded(value) for name, value in summary(trials)._asdict().items()}
    return {"months_ahead": ahead, **totals, "months": [_trial_row(each, settings) for each in trials]}


async def _won(now: Statistics) -> Tables:
    """What was won in each month."""
    return await now.tables([f"{POT}:{year}" for year in sorted({month[:4] for month in await now.months()})])


def _trial_row(each: Trial, settings: Settings) -> Row:
    numbers = {name: half_up(value) for name, value in each._asdict().items() if isinstance(value, Decimal)}
    row = {**each._asdict(), **numbers, "inside": each.is_inside, "currency": settings.currency}
    return {name: row[name] for name in TRIAL_COLUMNS}


def _month(where: str, value: str | None) -> str | None:
    """The month as it is written; BadInput when it is none."""
    if value is None:
        return None
    try:
        return date.fromisoformat(f"{value[:7]}-01").isoformat()[:7]
    except ValueError:
        raise BadInput(where, "a month such as 2026-04", value) from None
