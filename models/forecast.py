"""What will be won: pot, pipeline and new business by period, each apart, with a range.

    open deals × their chance, spread over the weeks in which they would be won    the pipeline
    leads a day × the part of them that is won × the average size                 new business

Everything is read from counts (models.pipeline): it costs by days and stages, not by
deals. Amounts are minor units; they are computed to 38 digits and rounded half up once,
when shown. A forecast stands at the end of a day and sees what happened by then.
"""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import date
from decimal import ROUND_HALF_UP, Decimal, localcontext
from functools import cached_property
from itertools import pairwise
from typing import NamedTuple

from models.counts import Tables
from models.flows import Period, durations, happened, month, nearest_rank, tables_needed
from models.hazards import EXACT, HORIZON, Counter, Stage, observed, weeks_since
from models.naming import NAMED
from models.pipeline import (
    EXITS,
    EXPECTED,
    LEAD,
    NONE,
    OPEN,
    OPPORTUNITY,
    OUTCOMES,
    POT,
    QUALITY,
    STARTS,
    WIN_DAYS,
    WINS,
    Open,
    Wins,
)
from models.rules import Rules
from models.stages import stage_orders
from models.times import day_numbered, number_of

ENOUGH = 20
"""Closed deals of a pipeline, wins with a lead moment, closed deals of a kind of lead."""
FIXED_WEEKS = 13
"""Over so many weeks a fixed chance is spread."""
YEAR_DAYS = 365
RATE_DAYS = 90
"""The rate of leads is that of so many days."""
FEWEST_MONTHS, MOST_MONTHS = 3, 12
_Q90 = Decimal("1.2815515655446004")
_ZERO = Decimal(0)
_DUST = Decimal("1e-9")

GRAINS = {"month": 1, "quarter": 3, "year": 12}
"""Months of each grain."""

Spread = Sequence[Decimal]
"""The chance to be won in week 1, 2, … 52 from the day of the forecast."""


class Span(NamedTuple):
    """A month, quarter or year: its name and its days as numbers, both included."""

    name: str
    first: int
    last: int

    @property
    def period(self) -> Period:
        """Its days as they are written."""
        return Period(day_numbered(self.first), day_numbered(self.last))


class Outlook(NamedTuple):
    """What is forecast for a span, unrounded."""

    span: Span
    pot: int
    pipeline: Decimal
    new_business: Decimal
    p10: Decimal
    p50: Decimal
    p90: Decimal

    @property
    def total(self) -> Decimal:
        """What is expected in all."""
        return self.pot + self.pipeline + self.new_business


class NewBusiness(NamedTuple):
    """The run rate: `start` (leads or opportunities) of which how many a day are won, and after how many days.

    `size` is the average amount of their wins, `square` the average of their squares.
    """

    start: str
    starts_a_day: Decimal
    conversion: Decimal
    days: int
    size: Decimal
    square: Decimal


class Bucket(NamedTuple):
    """Open deals that have the same chance in every week: their amount and Σ amount²."""

    spread: Spread
    amount: Decimal
    squares: Decimal


def half_up(exact: Decimal) -> int:
    """Rounded half up, away from zero; what lies within a billionth of a half counts as one.

    >>> half_up(Decimal("2.5")), half_up(Decimal("-2.5")), half_up(Decimal("2.49999999999999"))
    (3, -3, 3)
    """
    with localcontext(EXACT):
        return int(exact.quantize(_DUST).quantize(Decimal(1), rounding=ROUND_HALF_UP))


# --- days and spans ---------------------------------------------------------------------


def span_of(day: str, grain: str) -> Span:
    """The month, quarter or year that has the day."""
    months = GRAINS[grain]
    year, month = int(day[:4]), (int(day[5:7]) - 1) // months * months
    return _span(year * 12 + month, months)


def spans_from(day: str, grain: str, number: int) -> list[Span]:
    """That span and the next ones, `number` in all."""
    months = GRAINS[grain]
    first = (int(day[:4]) * 12 + int(day[5:7]) - 1) // months * months
    return [_span(first + months * each, months) for each in range(number)]


def _span(first_month: int, months: int) -> Span:
    first, after = (date(each // 12, each % 12 + 1, 1) for each in (first_month, first_month + months))
    name = f"{first:%Y-%m}" if months == 1 else f"{first:%Y}-Q{first_month % 12 // 3 + 1}"
    return Span(f"{first:%Y}" if months == 12 else name, first.toordinal(), after.toordinal() - 1)


def month_before(month: str, number: int) -> str:
    """The month so many before this one."""
    months = int(month[:4]) * 12 + int(month[5:7]) - 1 - number
    return f"{months // 12:04}-{months % 12 + 1:02}"


def _months(period: Period) -> list[str]:
    """The months that have days of the period, the last one first."""
    first, last = period.since[:7], period.until[:7]
    number = (int(last[:4]) - int(first[:4])) * 12 + int(last[5:]) - int(first[5:]) + 1
    return [month_before(last, back) for back in range(number)]


def _days_up_to(last: int, days: int) -> Period:
    return Period(day_numbered(last - days + 1), day_numbered(last))


# --- which tables -----------------------------------------------------------------------


def first_tables(day: str, grain: str, months: Iterable[str]) -> list[str]:
    """The tables that a forecast of `day` reads first; `months` are those of the table `months`."""
    known, before = list(months), Period(f"{month_before(day[:7], MOST_MONTHS)}-01", f"{day[:7]}-31")
    year, pot = _days_up_to(number_of(day), YEAR_DAYS), Period(day_numbered(span_of(day, grain).first), day)
    asked = ((WINS, before), (WINS, year), (WIN_DAYS, year), (POT, pot), (POT, month(day[:7])))
    flows = (name for table, period in asked for name in tables_needed(table, period, known))
    return [OPEN, EXPECTED, EXITS, OUTCOMES, WINS, QUALITY, NAMED, *dict.fromkeys(flows)]


def more_tables(tables: Tables, day: str) -> list[str]:
    """Those it reads then, beside `naming_tables`: who began a usual time before."""
    number = number_of(day)
    _, days = _win_days(tables, day)
    periods = [_days_up_to(number, RATE_DAYS), _days_up_to(number - days, YEAR_DAYS)]
    starts = (name for period in periods for name in tables_needed(STARTS, period, _months(period)))
    return list(dict.fromkeys(starts))


# --- the forecast -----------------------------------------------------------------------


class Forecast:
    """What the counts say of the time after `day`."""

    def __init__(self, tables: Tables, day: str, rules: Rules) -> None:
        self.tables = tables
        self._rules = rules
        self.day = day
        self.today = number_of(day)

    def outlooks(self, grain: str, number: int) -> list[Outlook]:
        """The span of the day and the next ones."""
        with localcontext(EXACT):
            return [self._outlook(span, grain) for span in spans_from(self.day, grain, number)]

    def _outlook(self, span: Span, grain: str) -> Outlook:
        pot = self._pot(span)
        pipeline, variance = self._pipeline(span)
        deals = self._new_deals(span)
        new_business = deals * self.new_business.size
        variance += deals * self.new_business.square
        variation = self.variation / GRAINS[grain]
        return Outlook(span, pot, pipeline, new_business, *_range(pot, pipeline + new_business, variance, variation))

    def _pot(self, span: Span) -> int:
        period = Period(day_numbered(span.first), min(self.day, day_numbered(span.last)))
        return sum(amount for (amount,) in happened(self.tables, POT, period).values())

    def _pipeline(self, span: Span) -> tuple[Decimal, Decimal]:
        """Expected amount of the span, and the variance of it."""
        overlaps = _overlaps(span, self.today)
        amount = variance = _ZERO
        for bucket in self.buckets if overlaps else ():
            chance = sum((bucket.spread[week] * days for week, days in overlaps), _ZERO) / 7
            amount += bucket.amount * chance
            variance += bucket.squares * chance * (1 - chance)
        return amount, variance

    def _new_deals(self, span: Span) -> Decimal:
        """How many wins of the span come from those who are yet to begin."""
        days = max(0, span.last - max(span.first, self.today + self.new_business.days + 1) + 1)
        return self.new_business.starts_a_day * self.new_business.conversion * days

    @cached_property
    def weighted(self) -> Decimal:
        """The amounts of all open deals by their chance to be won within the horizon."""
        with localcontext(EXACT):
            return sum((bucket.amount * sum(bucket.spread, _ZERO) for bucket in self.buckets), _ZERO)

    @cached_property
    def open_amount(self) -> Decimal:
        """The amounts of all open deals; one without counts with the average size."""
        with localcontext(EXACT):
            return sum((bucket.amount for bucket in self.buckets), _ZERO)

    @cached_property
    def unpriced(self) -> int:
        """Open deals without an amount, which count with the average size."""
        return sum(Open(*numbers).unpriced for numbers in self.tables.get(OPEN, {}).values())

    # --- new business -------------------------------------------------------------------

    @cached_property
    def new_business(self) -> NewBusiness:
        """The run rate of what is yet to begin."""
        start, days = _win_days(self.tables, self.day)
        wins = _wins(self.tables, self.day, start)
        begun = self._starts(start, _days_up_to(self.today - days, YEAR_DAYS))
        with localcontext(EXACT):
            return NewBusiness(
                start=start,
                starts_a_day=Decimal(self._starts(start, _days_up_to(self.today, RATE_DAYS))) / RATE_DAYS,
                conversion=Decimal(wins.won) / begun if begun else _ZERO,
                days=days,
                size=Decimal(wins.amount) / wins.valued if wins.valued else _ZERO,
                square=Decimal(wins.squares) / wins.valued if wins.valued else _ZERO,
            )

    def _starts(self, start: str, period: Period) -> int:
        return happened(self.tables, STARTS, period).get((start,), (0,))[0]

    @cached_property
    def variation(self) -> Decimal:
        """The squared coefficient of variation of the amounts won in the whole months before the day's.

        Of up to twelve months, the first one with a win at the earliest; of fewer than three it is 0.
        """
        amounts = self._won_by_month()
        mean = Decimal(sum(amounts)) / len(amounts) if len(amounts) >= FEWEST_MONTHS else _ZERO
        if not mean:
            return _ZERO
        return sum(((amount - mean) ** 2 for amount in amounts), _ZERO) / len(amounts) / mean**2

    def _won_by_month(self) -> list[int]:
        wins = [self._wins_in(month_before(self.day[:7], back)) for back in range(MOST_MONTHS, -1, -1)]
        earlier = sum(number for number, *_ in _all_wins(self.tables)) > sum(each.won for each in wins)
        whole = wins[:-1]
        first = next((number for number, each in enumerate(whole) if earlier or each.won), len(whole))
        return [each.amount for each in whole[first:]]

    def _wins_in(self, name: str) -> Wins:
        return Wins(*happened(self.tables, WINS, month(name)).get((OPPORTUNITY,), Wins()))

    # --- open deals ---------------------------------------------------------------------

    @cached_property
    def counter(self) -> Counter:
        """The probability counter."""
        return Counter(observed(self.tables, self.day))

    @cached_property
    def fixed(self) -> list[str]:
        """The pipelines with too few closed deals for a counter of their own."""
        closed = {pipeline: sum(numbers) for (pipeline,), numbers in happened(self.tables, OUTCOMES).items()}
        pipelines = {pipeline for table in (OPEN, EXITS, OUTCOMES) for pipeline, *_ in happened(self.tables, table)}
        return sorted(each for each in pipelines if closed.get(each, 0) < ENOUGH)

    @cached_property
    def buckets(self) -> list[Bucket]:
        """The open deals by what tells their chance."""
        with localcontext(EXACT):
            return [self._bucket(spread, numbers) for spread, numbers in (*self._counted(), *self._fixed())]

    def _bucket(self, spread: Spread, numbers: Open) -> Bucket:
        size = self.new_business.size
        amount, squares = numbers.amount + numbers.unpriced * size, numbers.squares + numbers.unpriced * size**2
        return Bucket(spread, Decimal(amount), Decimal(squares))

    def _counted(self) -> Iterable[tuple[Spread, Open]]:
        """Open deals by stage, weeks there and quality, with the counter's chances."""
        sums: dict[tuple[Stage, int, str | None], Open] = defaultdict(Open)
        for (pipeline, stage, entered, quality), numbers in happened(self.tables, OPEN).items():
            if pipeline not in self.fixed:
                key = (pipeline, stage), weeks_since(entered, self.day), quality
                sums[key] = _added(sums[key], numbers)
        for (of_stage, week, quality), numbers in sums.items():
            yield self.spread(of_stage, week, quality), numbers

    def spread(self, stage: Stage, week: int, quality: str | None) -> Spread:
        """The chance of each coming week of a deal that has spent `week` weeks in the stage."""
        return _spread(self.counter.within(stage, week), self.quality(quality))

    def _fixed(self) -> Iterable[tuple[Spread, Open]]:
        """Open deals of the other pipelines, with the chances that the operator gives their stages."""
        for (pipeline, stage, expected, quality), numbers in happened(self.tables, EXPECTED).items():
            if pipeline in self.fixed:
                within = _fixed_within(self.fixed_chance((pipeline, stage)), expected, self.today)
                yield _spread(within, self.quality(quality)), Open(*numbers)

    def fixed_chance(self, stage: Stage) -> Decimal:
        """The operator's chance of a stage; without one its place / (open stages + 1)."""
        pipeline, name = stage
        given = self._rules.settings.pipeline(pipeline).probabilities.get(name)
        if given is not None:
            return Decimal(str(given))
        order = self._orders.get(pipeline, [])
        place = order.index(name) + 1 if name in order else 0
        return Decimal(place) / (len(order) + 1)

    @cached_property
    def _orders(self) -> dict[str, list[str]]:
        return stage_orders(self.tables, self._rules.settings)

    def chance(self, stage: Stage, entered: str, quality: str | None = None) -> Decimal:
        """P(won within the horizon) of a deal that entered the stage on a day."""
        with localcontext(EXACT):
            return min(Decimal(1), self.chance_at(stage, weeks_since(entered, self.day)) * self.quality(quality))

    def chance_at(self, stage: Stage, week: int) -> Decimal:
        """The same after so many weeks in the stage, whatever kind of lead it is."""
        if stage[0] in self.fixed:
            return self.fixed_chance(stage)
        return self.counter.chance(stage, week)

    # --- lead quality -------------------------------------------------------------------

    def quality(self, value: str | None) -> Decimal:
        """What deals of this kind of lead multiply their chance by; 1 where too few are closed."""
        if value is None:
            return Decimal(1)
        return self.qualities.get((self._rules.settings.lead_quality, value)) or Decimal(1)

    @cached_property
    def qualities(self) -> dict[tuple[str, str], Decimal | None]:
        """By attribute and value ((won + 20·r)/(closed + 20))/r; None with fewer than 20 closed deals."""
        return {
            (attribute, value): quality_factor(won, lost, self.win_rate) if won + lost >= ENOUGH else None
            for (attribute, value), (won, lost) in self.kinds_of_leads.items()
        }

    @cached_property
    def kinds_of_leads(self) -> dict[tuple[str, str], tuple[int, int]]:
        """Deals won and lost by attribute and value; (none): no value, or no account."""
        found = happened(self.tables, QUALITY)
        kinds = {(attribute, value): (won, lost) for (attribute, value), (won, lost) in found.items()}
        for attribute in {attribute for attribute, _ in kinds}:
            won, lost = self._closed
            for kind, outcome in kinds.items():
                if kind[0] == attribute:
                    won, lost = won - outcome[0], lost - outcome[1]
            if won or lost:
                kinds[attribute, NONE] = won, lost
        return dict(sorted(kinds.items()))

    @cached_property
    def win_rate(self) -> Decimal:
        """Of all closed deals those won; 0 without any."""
        won, lost = self._closed
        with localcontext(EXACT):
            return Decimal(won) / (won + lost) if won + lost else _ZERO

    @cached_property
    def _closed(self) -> tuple[int, int]:
        """All deals won and lost."""
        outcomes = happened(self.tables, OUTCOMES).values()
        return sum(won for won, _ in outcomes), sum(lost for _, lost in outcomes)


def quality_factor(won: int, lost: int, rate: Decimal) -> Decimal:
    """How much likelier than others a kind of lead is won, drawn towards 1 with the weight of 20 deals."""
    if not rate:
        return Decimal(1)
    with localcontext(EXACT):
        return (won + 20 * rate) / (won + lost + 20) / rate


def _range(pot: int, expected: Decimal, variance: Decimal, variation: Decimal) -> tuple[Decimal, Decimal, Decimal]:
    """P10, P50 and P90 of a lognormal rest with this mean and variance on top of the pot."""
    if expected <= 0:
        return Decimal(pot), Decimal(pot), Decimal(pot)
    square = (1 + variance / expected**2 + variation).ln()
    middle = expected.ln() - square / 2
    low, median, high = ((middle + q * square.sqrt()).exp() for q in (-_Q90, _ZERO, _Q90))
    return pot + low, pot + median, pot + high


def _overlaps(span: Span, today: int) -> list[tuple[int, int]]:
    """How many days of each coming week (0 is the first) lie in the span; only where there are any."""
    weeks = ((week, today + 7 * week + 1) for week in range(HORIZON))
    days = ((week, min(span.last, first + 6) - max(span.first, first) + 1) for week, first in weeks)
    return [(week, number) for week, number in days if number > 0]


def _spread(within: Sequence[Decimal], factor: Decimal) -> Spread:
    """The chance of each week, from those to be won within 0, 1, … 52 weeks times the factor, at most 1."""
    scaled = within if factor == 1 else [min(Decimal(1), chance * factor) for chance in within]
    return [later - earlier for earlier, later in pairwise(scaled)]


def _fixed_within(chance: Decimal, expected: str | None, today: int) -> Sequence[Decimal]:
    """Within 0, 1, … 52 weeks: all in the week of a future expected close, else evenly over 13 weeks."""
    ahead = number_of(expected) - today if expected else 0
    if 1 <= ahead <= 7 * HORIZON:
        return [chance if 7 * weeks >= ahead else _ZERO for weeks in range(HORIZON + 1)]
    return [chance * min(weeks, FIXED_WEEKS) / FIXED_WEEKS for weeks in range(HORIZON + 1)]


def _added(numbers: Open, more: Iterable[int]) -> Open:
    return Open(*(a + b for a, b in zip(numbers, more, strict=True)))


def _win_days(tables: Tables, day: str) -> tuple[str, int]:
    """Whether new business is told from leads or from opportunities, and the median days to a win."""
    year = _days_up_to(number_of(day), YEAR_DAYS)
    start = LEAD if _wins(tables, day, LEAD).won >= ENOUGH else OPPORTUNITY
    lasted = {key: numbers for key, numbers in happened(tables, WIN_DAYS, year).items() if key[0] == start}
    return start, nearest_rank(durations(lasted), 5) or 0


def _wins(tables: Tables, day: str, measure: str) -> Wins:
    """The wins of the 365 days up to the day."""
    year = _days_up_to(number_of(day), YEAR_DAYS)
    return Wins(*happened(tables, WINS, year).get((measure,), Wins()))


def _all_wins(tables: Tables) -> Iterable[Sequence[int]]:
    return (numbers for (measure,), numbers in happened(tables, WINS).items() if measure == OPPORTUNITY)
