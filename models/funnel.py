"""How deals go through the stages, how fast they are won, and where accounts are on the way.

Read from counts (models.pipeline) for all time or any period, whatever the number of deals.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from fractions import Fraction
from typing import NamedTuple

from models.counts import Count, Counted, Tables
from models.deals import Deal, is_open, lost_at, won_at
from models.flows import Period, Sums, durations, happened, nearest_rank, tables_needed
from models.naming import NAMED
from models.pipeline import (
    CLOSED,
    CONVERTED,
    CYCLES,
    ENTERED,
    EXITS,
    LEAD,
    LEFT,
    LOST,
    MOVED,
    NONE,
    OPEN,
    OPEN_OWNERS,
    WIN_DAYS,
    WON,
    Closed,
    Open,
)
from models.rules import Rules
from models.stages import stage_orders

ACCOUNTS = "accounts"
"""Table of counts: where on the way → accounts."""
CONSIDERATION, DECISION, CUSTOMER = "consideration", "decision", "customer"
STATES = (CONSIDERATION, DECISION, CUSTOMER, LOST)
"""Known people and no deal; a deal is open; a deal was won, none is open; all deals were lost."""

BY = ("total", "pipeline", "owner")


def account_counts(account: str, people: int, deals: Iterable[Deal], rules: Rules) -> Counted:
    """What an account with so many known people adds to the counts: where on the way it is.

    Deals that are nobody's are no account.
    """
    if account.startswith(" "):
        return []
    state = _state(people, [deal for deal in deals if deal.created_at is not None and not deal.deleted], rules)
    return [(Count(ACCOUNTS, state), (1,))] if state else []


def _state(people: int, deals: list[Deal], rules: Rules) -> str | None:
    if any(is_open(deal, rules) for deal in deals):
        return DECISION
    if any(won_at(deal, rules) is not None for deal in deals):
        return CUSTOMER
    if any(lost_at(deal, rules) is not None for deal in deals):
        return LOST
    return CONSIDERATION if people else None


# --- velocity ---------------------------------------------------------------------------


class Velocity(NamedTuple):
    """Deals that closed in a period and how fast; `value` of what was asked by, None where a deal has none.

    `per_day` is open deals × win rate × average size / mean cycle; None at a cycle of 0.
    """

    value: str | None
    open: int
    won: int
    lost: int
    win_rate: Fraction | None
    average_size: Fraction | None
    cycle_median: int | None
    cycle_mean: Fraction | None
    per_day: Fraction | None


def velocity_tables(by: str, period: Period, months: Iterable[str]) -> list[str]:
    """The tables that `velocities` reads."""
    known = list(months)
    return [_opened_in(by), *tables_needed(CLOSED, period, known), *tables_needed(CYCLES, period, known)]


def velocities(tables: Tables, by: str, period: Period) -> list[Velocity]:
    """One for each pipeline or owner, or one in total."""
    closed: dict[str | None, list[Closed]] = defaultdict(list)
    for (pipeline, owner), numbers in happened(tables, CLOSED, period).items():
        closed[_value(by, pipeline, owner)].append(Closed(*numbers))
    opened: dict[str | None, int] = defaultdict(int)
    for (first, *_), numbers in happened(tables, _opened_in(by)).items():
        opened[_value(by, first, first)] += Open(*numbers).deals
    cycles: dict[str | None, Sums] = defaultdict(dict)
    for (pipeline, owner, chunk), numbers in happened(tables, CYCLES, period).items():
        cycles[_value(by, pipeline, owner)][pipeline, owner, chunk] = numbers
    found = []
    for value in sorted({*closed, *opened}, key=lambda value: (value is None, value or "")):
        sums = Closed(*map(sum, zip(Closed(), *closed[value], strict=True)))
        found.append(_velocity(value, opened[value], sums, nearest_rank(durations(cycles[value]), 5)))
    return found


def _opened_in(by: str) -> str:
    """The smallest table that has the open deals by what is asked: its fields begin with an owner or a pipeline."""
    return OPEN_OWNERS if by == "owner" else OPEN


def _value(by: str, pipeline: str, owner: str | None) -> str | None:
    return pipeline if by == "pipeline" else owner if by == "owner" else "total"


def _velocity(value: str | None, opened: int, closed: Closed, median: int | None) -> Velocity:
    rate = _ratio(closed.won, closed.won + closed.lost)
    size = _ratio(closed.amount, closed.valued)
    mean = _ratio(closed.days, closed.won)
    per_day = opened * rate * size / mean if rate is not None and size is not None and mean else None
    return Velocity(value, opened, closed.won, closed.lost, rate, size, median, mean, per_day)


def _ratio(number: int, of: int) -> Fraction | None:
    return Fraction(number, of) if of else None


# --- stages -----------------------------------------------------------------------------


class StageFlow(NamedTuple):
    """What came into a stage and left it in a period.

    `left` stays ended won, lost or moved. Of `deals` that first entered it in the period,
    `converted` were later in a later stage or are won. Days are of the stays that ended.
    """

    pipeline: str
    stage: str
    open: int
    entered: int
    left: int
    won: int
    lost: int
    moved: int
    deals: int
    converted: int
    median_days: int | None
    p90_days: int | None


def funnel_tables(period: Period, months: Iterable[str]) -> list[str]:
    """The tables that the funnel reads, besides those of the stages' order."""
    known = list(months)
    flows = [name for table in (ENTERED, LEFT, CONVERTED, WIN_DAYS) for name in tables_needed(table, period, known)]
    return [ACCOUNTS, OPEN, EXITS, NAMED, *flows]


def stage_flows(tables: Tables, period: Period, rules: Rules) -> Iterator[StageFlow]:
    """Every stage of every pipeline in its order; (none) first, where deals were without a stage."""
    orders = stage_orders(tables, rules.settings)
    entered, left = happened(tables, ENTERED, period), happened(tables, LEFT, period)
    opened, converted = _open_stays(tables), _conversions(tables, period, orders)
    seen = {*entered, *opened, *converted, *(key[:2] for key in left)}
    for pipeline in sorted({*orders, *(pipeline for pipeline, _ in seen)}):
        for stage in [NONE] * ((pipeline, NONE) in seen) + orders.get(pipeline, []):
            of = pipeline, stage
            begun = opened.get(of, 0), entered.get(of, (0,))[0]
            ended = {key: numbers for key, numbers in left.items() if key[:2] == of}
            yield StageFlow(*of, *begun, *_exits(ended), *converted.get(of, (0, 0)), *_days(durations(ended)))


def _open_stays(tables: Tables) -> dict[tuple[str, str], int]:
    opened: dict[tuple[str, str], int] = defaultdict(int)
    for (pipeline, stage, *_), numbers in happened(tables, OPEN).items():
        opened[pipeline, stage] += Open(*numbers).deals + Open(*numbers).waiting
    return dict(opened)


def _exits(ended: Sums) -> tuple[int, int, int, int]:
    """How many stays ended, and how many of them won, lost and moved."""
    won, lost, moved = (
        sum(sum(numbers) for key, numbers in ended.items() if key[2] == exit) for exit in (WON, LOST, MOVED)
    )
    return won + lost + moved, won, lost, moved


def _days(counted: Counter[int]) -> tuple[int | None, int | None]:
    """Median and P90."""
    return nearest_rank(counted, 5), nearest_rank(counted, 9)


def _conversions(
    tables: Tables, period: Period, orders: dict[str, list[str]]
) -> dict[tuple[str, str], tuple[int, int]]:
    """Deals that first entered each stage, and those of them that came further."""
    found: dict[tuple[str, str], tuple[int, int]] = {}
    for (pipeline, stage, won, *later), (number,) in happened(tables, CONVERTED, period).items():
        order = orders.get(pipeline, [])
        place = order.index(stage) if stage in order else -1
        further = won or any(each in order[place + 1 :] for each in later)
        deals, converted = found.get((pipeline, stage), (0, 0))
        found[pipeline, stage] = deals + number, converted + number * further
    return found


class TimeToBuy(NamedTuple):
    """Days from an account's lead moment to the wins of a period."""

    wins: int
    median_days: int | None
    p90_days: int | None


def time_to_buy(tables: Tables, period: Period) -> TimeToBuy:
    """How long the accounts that bought in the period had been known."""
    days = durations({key: numbers for key, numbers in happened(tables, WIN_DAYS, period).items() if key[0] == LEAD})
    return TimeToBuy(sum(days.values()), *_days(days))
