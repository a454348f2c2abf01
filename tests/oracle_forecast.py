"""Pipeline and forecast, from the written rules alone (rules.md section 8, rules-more.md).

It shares no code with the product. A deal is its changes in order, nothing is kept between two questions, and every
figure is exact or has 50 digits. Days are dates in the reporting time zone, instants microseconds.
"""

# ruff: noqa: PLR0911, PLR0912, PLR0917 - one rule after another, as they are written
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from decimal import ROUND_HALF_UP, Context, Decimal, setcontext
from fractions import Fraction
from functools import cached_property, lru_cache
from typing import Any
from zoneinfo import ZoneInfo

from tests.oracle import DAY, EPOCH

EXACT = Context(prec=50)
NONE = "(none)"
HORIZON = 52
PRIOR = 10
ENOUGH = 20
WON, LOST, OPEN = "won", "lost", "open"
QUANTILES = {"p10": Decimal("-1.2815515655446004"), "p50": Decimal(0), "p90": Decimal("1.2815515655446004")}


@dataclass(eq=False)
class Deal:
    """A deal as its changes tell it, in order: (instant, what they say); absent is unchanged, None is cleared."""

    id: str
    changes: Sequence[tuple[int, Mapping[str, Any]]]
    lead: int | None = None  # the lead moment of its account
    refunds: Sequence[tuple[int, int]] = ()
    first_channel: str | None = None

    def until(self, end: int) -> Deal | None:
        """As known from what is stamped before the end."""
        changes = [change for change in self.changes if change[0] < end]
        lead = self.lead if self.lead is not None and self.lead < end else None
        refunds = [refund for refund in self.refunds if refund[0] < end]
        return Deal(self.id, changes, lead, refunds, self.first_channel) if changes else None

    def now(self, name: str) -> Any:
        return next((said[name] for _, said in reversed(self.changes) if name in said), None)

    @property
    def pipeline(self) -> str:
        return str(self.now("pipeline") or "default")

    @property
    def created(self) -> int:
        return self.changes[0][0] if self.now("createdAt") is None else int(self.now("createdAt"))

    @cached_property
    def stages(self) -> list[tuple[int, str]]:
        """Where it was moved to, repetitions left out."""
        found: list[tuple[int, str]] = []
        for at, said in self.changes:
            stage = (said.get("stage") or "").strip() or NONE
            if "stage" in said and (not found or stage != found[-1][1]):
                found.append((at, stage))
        return found


@dataclass(frozen=True)
class Stay:
    """ "A stay is a deal's unbroken time in one open stage"."""

    deal: Deal
    stage: tuple[str, str]  # pipeline and stage
    begin: int
    end: int | None
    exit: str | tuple[str, tuple[str, str]] | None  # won, lost, ("moved", stage), None while it lasts


@dataclass(frozen=True)
class Pipeline:
    won: Sequence[str] = ("closed_won",)
    lost: Sequence[str] = ("closed_lost",)
    order: Sequence[str] = ()  # the setting; () = by the first fact naming each
    probabilities: Mapping[str, Any] = field(default_factory=dict)


@dataclass(eq=False)
class Market:
    """What a forecast knows, as of the end of day `t`."""

    t: date
    deals: Sequence[Deal]
    leads: Sequence[int] = ()
    zone: str = "UTC"
    won: Sequence[str] = ("closed_won",)
    lost: Sequence[str] = ("closed_lost",)
    order: Sequence[str] = ()
    probabilities: Mapping[str, Any] = field(default_factory=dict)
    pipelines: Mapping[str, Pipeline] = field(default_factory=dict)  # others than the one above
    quality: Callable[[Deal], str | None] | None = None

    def __post_init__(self) -> None:
        setcontext(EXACT)
        end = self.begin_of(self.t + timedelta(days=1))
        known = (deal.until(end) for deal in self.deals)
        self.default = Pipeline(self.won, self.lost, self.order, self.probabilities)
        # "While `deleted` is true a deal has no conversions, refunds or place in the pipeline"
        self.known = [deal for deal in known if deal]
        self.deals = [deal for deal in self.known if deal.now("deleted") is not True]
        self.leads = [lead for lead in self.leads if lead < end]

    # days -----------------------------------------------------------------------------------------------------------
    def begin_of(self, day: date) -> int:
        from datetime import datetime

        local = datetime(day.year, day.month, day.day, tzinfo=ZoneInfo(self.zone))
        return (local - EPOCH) // timedelta(microseconds=1)

    def day(self, at: int) -> date:
        return day_of(at, self.zone)

    def days(self, begin: int, end: int | None) -> int:
        """ "whole days between dates in the reporting time zone, never below 0" """
        return max(0, ((self.t if end is None else self.day(end)) - self.day(begin)).days)

    def within(self, at: int | None, period: tuple[date, date] | None) -> bool:
        return at is not None and (period is None or period[0] <= self.day(at) <= period[1])

    # deals ----------------------------------------------------------------------------------------------------------
    def pipeline(self, name: str) -> Pipeline:
        return self.pipelines.get(name, self.default)

    def kind(self, pipeline: str, stage: str) -> str:
        own = self.pipeline(pipeline)
        return WON if stage in own.won else LOST if stage in own.lost else OPEN

    def state(self, deal: Deal) -> str:
        return self.kind(deal.pipeline, deal.stages[-1][1]) if deal.stages else OPEN

    def stage(self, deal: Deal) -> str:
        return deal.stages[-1][1] if deal.stages else NONE

    def closed_at(self, deal: Deal) -> int | None:
        """ "the moment it last came there from one that is not" (won), likewise for lost"""
        if self.state(deal) == OPEN:
            return None
        at, kinds = 0, [OPEN, *(self.kind(deal.pipeline, stage) for _, stage in deal.stages)]
        for place, (moment, _) in enumerate(deal.stages):
            if kinds[place + 1] != kinds[place]:
                at = moment
        return at

    @cached_property
    def by_state(self) -> dict[str, list[Deal]]:
        return {state: [deal for deal in self.deals if self.state(deal) == state] for state in (WON, LOST, OPEN)}

    def of(self, state: str) -> list[Deal]:
        return self.by_state[state]

    # stays ----------------------------------------------------------------------------------------------------------
    def stays_of(self, deal: Deal) -> list[Stay]:
        """From the fact that brought it there ("before the first: "(none)", from creation")."""
        steps = deal.stages
        if steps and steps[0][1] == NONE:
            steps = steps[1:]
        if not steps or steps[0][0] > deal.created:
            steps = [(deal.created, NONE), *steps]
        found = []
        for place, (at, stage) in enumerate(steps):
            if self.kind(deal.pipeline, stage) != OPEN:
                continue
            after = steps[place + 1 :]
            # "A close later reopened counts as a move to the reopened stage."
            reopened = next((to for _, to in after if self.kind(deal.pipeline, to) == OPEN), None)
            exit: Any = None
            if after:
                exit = (
                    self.kind(deal.pipeline, after[0][1]) if reopened is None else ("moved", (deal.pipeline, reopened))
                )
            found.append(Stay(deal, (deal.pipeline, stage), at, after[0][0] if after else None, exit))
        return found

    @cached_property
    def stays(self) -> list[Stay]:
        return [stay for deal in self.deals for stay in self.stays_of(deal)]

    # pipeline -------------------------------------------------------------------------------------------------------
    def open_by_stage(self) -> dict[tuple[str, str], dict[str, Any]]:
        """Count, amount (without one 0), average and the oldest age in days since creation."""
        found: dict[tuple[str, str], dict[str, Any]] = {}
        for deal in self.of(OPEN):
            row = found.setdefault((deal.pipeline, self.stage(deal)), {"count": 0, "amount": 0, "oldest": 0})
            row["count"] += 1
            row["amount"] += deal.now("amount") or 0
            row["oldest"] = max(row["oldest"], self.days(deal.created, None))
        return found

    def moves(self, period: tuple[date, date] | None = None) -> dict[tuple[str, str], dict[str, Any]]:
        """Stays entered and left in the period, and the days of those that ended in it."""
        found: dict[tuple[str, str], dict[str, Any]] = defaultdict(lambda: {"entered": 0, "left": 0, "days": []})
        for stay in self.stays:
            found[stay.stage]["entered"] += self.within(stay.begin, period)
            if stay.end is not None and self.within(stay.end, period):
                found[stay.stage]["left"] += 1
                found[stay.stage]["days"].append(self.days(stay.begin, stay.end))
        return {stage: row for stage, row in found.items() if row["entered"] or row["left"]}

    def closed(self, state: str, period: tuple[date, date] | None = None) -> list[Deal]:
        return [deal for deal in self.of(state) if self.within(self.closed_at(deal), period)]

    def rates(self, period: tuple[date, date] | None = None) -> dict[str, Any]:
        """Win rate, average size, cycle and velocity by close moment in the period."""
        won, lost = self.closed(WON, period), self.closed(LOST, period)
        cycles = [self.days(deal.created, self.closed_at(deal)) for deal in won]
        rate = Fraction(len(won), len(won) + len(lost)) if won or lost else None
        size = Fraction(sum(deal.now("amount") or 0 for deal in won), len(won)) if won else None
        mean = Fraction(sum(cycles), len(cycles)) if cycles else None
        velocity = None
        if rate is not None and size is not None and mean:
            velocity = len(self.of(OPEN)) * rate * size / mean
        return {
            "won": len(won),
            "lost": len(lost),
            "win_rate": rate,
            "average_size": size,
            "median_cycle": median(cycles) if cycles else None,
            "mean_cycle": mean,
            "velocity": velocity,
        }

    @cached_property
    def named(self) -> dict[str, dict[str, tuple[int, bytes]]]:
        """The first fact naming each stage of a pipeline, as facts are ordered."""
        named: dict[str, dict[str, tuple[int, bytes]]] = defaultdict(dict)
        for deal in self.known:
            for at, said in deal.changes:
                if said.get("stage"):
                    seen, fact = named[deal.pipeline], (at, str(said.get("messageId", deal.id)).encode())
                    seen[said["stage"]] = min(fact, seen.get(said["stage"], fact))
        return named

    @cached_property
    def stage_orders(self) -> dict[str, list[str]]:
        """Open stages: "order = setting, else event time of the first fact naming it"."""
        return {
            name: [
                stage
                for stage in [
                    *self.pipeline(name).order,
                    *sorted(set(seen) - set(self.pipeline(name).order), key=seen.__getitem__),
                ]
                if self.kind(name, stage) == OPEN
            ]
            for name, seen in self.named.items()
        }

    def order_of(self, pipeline: str) -> list[str]:
        return self.stage_orders.get(pipeline) or [
            stage for stage in self.pipeline(pipeline).order if self.kind(pipeline, stage) == OPEN
        ]

    def stage_conversion(self, period: tuple[date, date] | None = None) -> dict[tuple[str, str], tuple[int, int]]:
        """ "of deals first entering the stage in the period, those later in a later stage or won" """
        found = {}
        for pipeline, order in self.stage_orders.items():
            for place, stage in enumerate(order):
                entered = converted = 0
                for deal in self.deals:
                    first = next((at for at, to in deal.stages if to == stage), None)
                    if deal.pipeline != pipeline or first is None or not self.within(first, period):
                        continue
                    entered += 1
                    after = [to for _, to in deal.stages[[to for _, to in deal.stages].index(stage) + 1 :]]
                    later = order[place + 1 :]
                    converted += any(to in later or self.kind(pipeline, to) == WON for to in after)
                found[pipeline, stage] = (entered, converted)
        return found

    # the probability counter ------------------------------------------------------------------------------------------
    @lru_cache(maxsize=100)  # noqa: B019 - a market lives no longer than the question
    def fallback(self, pipeline: str) -> bool:
        """ "Fewer than 20 closed deals in a pipeline: the operator's stage probabilities" """
        return sum(deal.pipeline == pipeline for deal in self.of(WON) + self.of(LOST)) < ENOUGH

    @cached_property
    def counted(self) -> tuple[dict[tuple[Any, int], int], dict[tuple[Any, Any, int], int]]:
        """ "a stay ended at age a weeks is at risk in 0...a with its exit in a; an open one in 0...a-1" """
        at_risk: dict[tuple[Any, int], int] = defaultdict(int)
        exits: dict[tuple[Any, Any, int], int] = defaultdict(int)
        for stay in self.stays:
            age = self.days(stay.begin, stay.end) // 7
            for week in range(age + 1 if stay.end is not None else age):
                at_risk[stay.stage, week] += 1
            if stay.exit is not None:
                exits[stay.stage, stay.exit, age] += 1
        return at_risk, exits

    @cached_property
    def last_week(self) -> int:
        return max((week for _, week in self.counted[0]), default=0)

    @lru_cache(maxsize=1000)  # noqa: B019 - a market lives no longer than the question
    def exits_of(self, stage: tuple[str, str]) -> list[Any]:
        return sorted({exit for each, exit, _ in self.counted[1] if each == stage}, key=str)

    @cached_property
    def hazards(self) -> dict[tuple[Any, Any, int], Decimal]:
        """ "h_e(s,u) = (d_e(s,u) + 10 h_e(s,u-1))/(n(s,u)+10), h_e(s,-1) = sum d_e / sum n of the stage" """
        at_risk, exits = self.counted
        found: dict[tuple[Any, Any, int], Decimal] = {}
        for stage in {stage for stage, _ in at_risk}:
            risks = sum(n for (each, _), n in at_risk.items() if each == stage)
            for exit in self.exits_of(stage):
                ended = sum(d for (each, which, _), d in exits.items() if (each, which) == (stage, exit))
                hazard = Decimal(ended) / risks
                for week in range(self.last_week + 1):
                    hazard = (exits.get((stage, exit, week), 0) + PRIOR * hazard) / (
                        at_risk.get((stage, week), 0) + PRIOR
                    )
                    found[exit, stage, week] = hazard
        return found

    @cached_property
    def winning(self) -> list[dict[tuple[Any, int], Decimal]]:
        """W(s,w,r) for each r from 0 to 52; weeks after the last one seen are like it."""
        stages = {stage for stage, _ in self.counted[0]} | {stay.stage for stay in self.stays}
        weeks = range(self.last_week + 1)
        tables = [{(stage, week): Decimal(0) for stage in stages for week in weeks}]
        for _ in range(HORIZON):
            before, now = tables[-1], {}
            for stage in stages:
                exits = self.exits_of(stage)
                for week in weeks:
                    total, chance = Decimal(0), Decimal(0)
                    for exit in exits:
                        hazard = self.hazards[exit, stage, week]
                        total += hazard
                        if exit == WON:
                            chance += hazard
                        elif exit != LOST:
                            chance += hazard * before[exit[1], 0]
                    now[stage, week] = chance + (1 - total) * before[stage, min(week + 1, self.last_week)]
            tables.append(now)
        return tables

    def chances(self, deal: Deal) -> list[Decimal]:
        """W for each week from 0 to 52 of an open deal, with lead quality."""
        stay = self.stays_of(deal)[-1]
        if self.fallback(deal.pipeline):
            found = self.operators(deal, stay.stage)
        else:
            week = min(self.days(stay.begin, None) // 7, self.last_week)
            found = self.column(stay.stage, week)
        factor = self.lead_quality(deal)
        return [min(Decimal(1), chance * factor) for chance in found]

    @lru_cache(maxsize=10_000)  # noqa: B019 - a market lives no longer than the question
    def column(self, stage: tuple[str, str], week: int) -> list[Decimal]:
        return [table[stage, week] for table in self.winning]

    def operators(self, deal: Deal, at: tuple[str, str]) -> list[Decimal]:
        """ "the operator's stage probabilities at every age (default place/(open stages+1)), won in the week of a
        future `expectedClose` within the horizon, else evenly over 13 weeks" """
        pipeline, stage = at
        order = self.order_of(pipeline)
        place = order.index(stage) + 1 if stage in order else 0
        chance = as_decimal(self.pipeline(pipeline).probabilities.get(stage, Fraction(place, len(order) + 1)))
        expected = deal.now("expectedClose")
        week = 0
        if expected is not None:
            week = -(-((day_of(expected, "UTC") - self.t).days) // 7)  # a date, as it is written
        if 1 <= week <= HORIZON:
            return [chance if after >= week else Decimal(0) for after in range(HORIZON + 1)]
        return [chance * min(after, 13) / 13 for after in range(HORIZON + 1)]

    def lead_quality(self, deal: Deal) -> Decimal:
        """ "((won+20r)/(closed+20))/r, r = overall win rate, shown from 20 closed" """
        if self.quality is None:
            return Decimal(1)
        won, lost = self.of(WON), self.of(LOST)
        mine = self.quality(deal)
        like = [each for each in won + lost if self.quality(each) == mine]
        if len(like) < ENOUGH or not won:
            return Decimal(1)
        rate = Fraction(len(won), len(won) + len(lost))
        good = sum(self.state(each) == WON for each in like)
        return as_decimal((good + 20 * rate) / (len(like) + 20) / rate)

    # forecast ---------------------------------------------------------------------------------------------------------
    @cached_property
    def run_rate(self) -> dict[str, Any]:
        """ "lambda c z on each day from t+m+1 on" """
        year = [deal for deal in self.of(WON) if self.last_days(self.closed_at(deal), 365)]
        wins, basis = [deal for deal in year if deal.lead is not None], "leads"
        came = list(self.leads)
        if len(wins) < ENOUGH:
            wins, basis = year, "opportunities"
            came = [deal.created for deal in self.deals]
        spans = [
            self.days(deal.lead if basis == "leads" and deal.lead is not None else deal.created, self.closed_at(deal))
            for deal in wins
        ]
        m = median(spans) if spans else 0
        before = [at for at in came if self.last_days(at, 365, self.t - timedelta(days=m))]
        amounts = [deal.now("amount") or 0 for deal in wins]
        size = max(1, len(wins))
        return {
            "basis": basis,
            "m": m,
            "rate": Fraction(sum(self.last_days(at, 90) for at in came), 90),
            "c": Fraction(len(wins), len(before)) if before else Fraction(0),
            "z": Fraction(sum(amounts), size),
            "squares": Fraction(sum(amount * amount for amount in amounts), size),
        }

    def last_days(self, at: int | None, days: int, until: date | None = None) -> bool:
        until = until or self.t
        return at is not None and until - timedelta(days=days) < self.day(at) <= until

    def amount(self, deal: Deal) -> Fraction:
        """ "In forecast and weighted pipeline an open deal without amount counts with the average size z" """
        amount = deal.now("amount")
        return self.run_rate["z"] if amount is None else Fraction(amount)

    def weighted(self) -> Decimal:
        """ "Weighted pipeline = sum of amount x W(s,w,52)" """
        return sum((as_decimal(self.amount(deal)) * self.chances(deal)[HORIZON] for deal in self.of(OPEN)), Decimal(0))

    def won_amount(self, begin: date, end: date) -> int:
        """ "`won` credits (refunds included)" of these days"""
        total = 0
        for deal in self.of(WON):
            if begin <= self.day(self.closed_at(deal) or 0) <= end:
                total += deal.now("amount") or 0
            total -= sum(amount for at, amount in deal.refunds if begin <= self.day(at) <= end)
        return total

    def spread(self, deal: Deal, begin: date, end: date) -> Decimal:
        """The chance that it is won in the period: "in week j = days t+7(j-1)+1...t+7j, a seventh a day"."""
        chances = self.chances(deal)
        total = Decimal(0)
        for week in range(1, HORIZON + 1):
            if share := self.days_of(week, begin, end):
                total += (chances[week] - chances[week - 1]) * share / 7
        return total

    @lru_cache(maxsize=10_000)  # noqa: B019 - a market lives no longer than the question
    def days_of(self, week: int, begin: date, end: date) -> int:
        days = [self.t + timedelta(days=7 * (week - 1) + day) for day in range(1, 8)]
        return sum(begin <= day <= end for day in days)

    def forecast(self, begin: date, end: date, months: int) -> dict[str, Any]:
        run = self.run_rate
        pot = self.won_amount(begin, min(end, self.t))
        pipeline = variance = Decimal(0)
        for deal in self.of(OPEN):
            chance, amount = self.spread(deal, begin, end), as_decimal(self.amount(deal))
            pipeline += amount * chance
            variance += amount * amount * chance * (1 - chance)
        first = max(begin, self.t + timedelta(days=run["m"] + 1))
        days = max(0, (end - first).days + 1)
        expected = days * run["rate"] * run["c"]
        new = as_decimal(expected * run["z"])
        variance += as_decimal(expected * run["squares"])
        found: dict[str, Any] = {"pot": pot, "pipeline": pipeline, "new_business": new}
        mean = pipeline + new
        if mean > 0:
            s2 = (1 + variance / (mean * mean) + self.unsteadiness / months).ln()
            m = mean.ln() - s2 / 2
            found |= {name: pot + (m + q * s2.sqrt()).exp() for name, q in QUANTILES.items()}
        else:
            found |= dict.fromkeys(QUANTILES, Decimal(pot))
        return found

    @cached_property
    def unsteadiness(self) -> Decimal:
        """ "v^2 = squared coefficient of variation of won amounts of the whole months before t's (3-12, else 0)" """
        months = self.months_before()
        if len(months) < 3:
            return Decimal(0)
        won = [(self.day(self.closed_at(deal) or 0), deal.now("amount") or 0) for deal in self.of(WON)]
        amounts = [Decimal(sum(amount for day, amount in won if begin <= day <= end)) for begin, end in months]
        mean = sum(amounts) / len(amounts)
        if mean <= 0:
            return Decimal(0)
        return sum((amount - mean) ** 2 for amount in amounts) / len(amounts) / (mean * mean)

    def months_before(self) -> list[tuple[date, date]]:
        """Whole months before t's, the last twelve, from the month of the first win on."""
        wins = [self.day(self.closed_at(deal) or 0) for deal in self.of(WON)]
        months: list[tuple[date, date]] = []
        last = self.t.replace(day=1) - timedelta(days=1)
        while wins and len(months) < 12 and last >= min(wins):
            months.append((last.replace(day=1), last))
            last = last.replace(day=1) - timedelta(days=1)
        return months


@lru_cache(maxsize=100_000)
def day_of(at: int, zone: str) -> date:
    return (EPOCH + timedelta(microseconds=at)).astimezone(ZoneInfo(zone)).date()


def median(values: Iterable[int]) -> int:
    """ "Median and P90 are the ceil(0.5 n)-th and ceil(0.9 n)-th smallest." """
    return smallest(values, Fraction(1, 2))


def p90(values: Iterable[int]) -> int:
    return smallest(values, Fraction(9, 10))


def smallest(values: Iterable[int], part: Fraction) -> int:
    ranked = sorted(values)
    place = part * len(ranked)
    return ranked[-(-place.numerator // place.denominator) - 1]


def as_decimal(value: Any) -> Decimal:
    exact = Fraction(str(value)) if isinstance(value, (float, str)) else Fraction(value)
    return EXACT.divide(Decimal(exact.numerator), Decimal(exact.denominator))


def half_up(value: Decimal) -> int:
    return int(value.quantize(Decimal(1), ROUND_HALF_UP))


def month_of(day: date) -> tuple[date, date]:
    begin = day.replace(day=1)
    return begin, (begin + timedelta(days=31)).replace(day=1) - timedelta(days=1)


def day_before_months(month: date, k: int) -> date:
    """ "the forecast of the last day before the month k-1 months earlier" """
    first = month.replace(day=1)
    for _ in range(k - 1):
        first = (first - timedelta(days=1)).replace(day=1)
    return first - timedelta(days=1)


__all__ = ["DAY", "Deal", "Market", "Stay", "day_before_months", "half_up", "median", "month_of", "p90"]
