"""The credits of one conversion: eligible touches, milestones, shares, cells.

Shared by the accounts lane and the batch recomputation.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from models.attribution import MILLION, MODELS, Path, Weights, apportion, position_shares, time_decay_weights
from models.deals import Conversion
from models.rules import Rules
from models.times import DAY, day_of
from models.touches import Touch

UNATTRIBUTED = "unattributed"
DIMENSIONS = (
    "channel",
    "source",
    "campaign",
    "content",
    "landing_page",
    "kind",
    "team",
    "rep",
    "funnel_stage",
)
WIDTH = 2 * len(MODELS)
"""Numbers of a cell: count (millionths) and amount (minor units) of each model in turn."""


class Milestones(NamedTuple):
    """The moments that positions and funnel stages are measured by; None: there is none."""

    lead: int | None = None
    opportunity: int | None = None
    close: int | None = None


class Cell(NamedTuple):
    """Where a credit is added up; `value` None is a touch without the dimension."""

    conversion: str
    dimension: str
    day: str
    value: str | None


class Credit(NamedTuple):
    """The shares of a touch (None: unattributed), as a cell's numbers."""

    touch: Touch | None
    funnel_stage: str
    shares: list[int]


Cells = dict[Cell, list[int]]


def milestones_of(conversion: str, at: int, lead: int | None, created: int | None, won: int | None) -> Milestones:
    """Which milestones exist for a conversion: none later than itself, none it cannot know."""
    close = won if conversion in ("won", "refund") else None
    opportunity = None if conversion == "lead" else created
    return Milestones(*(None if moment is None or moment > at else moment for moment in (lead, opportunity, close)))


def eligible(touches: Sequence[Touch], kind: str, at: int, rules: Rules) -> list[Touch]:
    """The touches (oldest first) with `at − lookback ≤ time ≤ at`.

    For a `lead` the touch of the visit in which the person became known counts in any case.
    """
    begin = bisect_left(touches, at - rules.lookback[kind], key=_at)
    end = bisect_right(touches, at, key=_at)
    within = list(touches[begin:end])
    if kind == "lead":
        others = (*touches[:begin], *touches[end:])
        visit = [touch for touch in others if at in touch.known_at]
        within = sorted([*visit, *within], key=_order) if visit else within
    return within


def _at(touch: Touch) -> int:
    return touch.at


def _order(touch: Touch) -> tuple[int, str]:
    return touch.order


def path_of(touches: Sequence[Touch], milestones: Milestones) -> Path:
    """The eligible touches as position models see them."""
    places = [_place(touches, moment) for moment in milestones]
    not_direct = [number for number, touch in enumerate(touches) if touch.channel != "direct"]
    return Path(len(touches), not_direct[-1] if not_direct else len(touches) - 1, *places)


def _place(touches: Sequence[Touch], moment: int | None) -> int | None:
    """The latest touch at or before the moment."""
    number = 0 if moment is None else bisect_right(touches, moment, key=_at)
    return number - 1 if number else None


def funnel_stage(at: int, kind: str, milestones: Milestones) -> str:
    """Awareness up to the lead moment, consideration up to the deal's creation, then decision."""
    if kind == "lead" or (milestones.lead is not None and at <= milestones.lead):
        return "awareness"
    if milestones.opportunity is not None and at <= milestones.opportunity:
        return "consideration"
    return "decision"


def credits_of(
    conversion: Conversion, weighed_at: int, touches: Sequence[Touch], milestones: Milestones, rules: Rules
) -> list[Credit]:
    """The credits of a conversion under every model; their shares add up to it.

    `weighed_at` is the moment whose eligible `touches` these are: the conversion's own,
    for a refund its deal's win.
    """
    count = MILLION if conversion.counted else 0
    amount = conversion.amount or 0
    shares = [[0] * WIDTH for _ in range(len(touches) + 1)]
    for number, (weights, counts) in enumerate(_weighted(touches, weighed_at, milestones, rules)):
        if weights is None:
            shares[-1][2 * number : 2 * number + 2] = count, amount
            continue
        amounts = _amounts(amount, weights)
        for place, each in enumerate(amounts):
            shares[place][2 * number] = counts[place] if count else 0
            shares[place][2 * number + 1] = each
    stages = [funnel_stage(touch.at, conversion.kind, milestones) for touch in touches]
    earned = zip((*touches, None), (*stages, UNATTRIBUTED), shares, strict=True)
    return [Credit(*each) for each in earned if any(each[2])]


@lru_cache(maxsize=50_000)
def _amounts(amount: int, weights: Weights) -> list[int]:
    return apportion(amount, weights) if amount else [0] * len(weights)


def _weighted(
    touches: Sequence[Touch], at: int, milestones: Milestones, rules: Rules
) -> Iterable[tuple[Weights | None, Sequence[int]]]:
    """Per model its weights (None: no position exists) and the count apportioned by them."""
    if not touches:
        return [(None, ())] * len(MODELS)
    shares = [each or (None, ()) for each in position_shares(path_of(touches, milestones))]
    half_life = round(rules.settings.time_decay_half_life_days * DAY)
    decay = time_decay_weights([at - touch.at for touch in touches], half_life)
    return [*shares, (decay, apportion(MILLION, decay))]


def value_of(credit: Credit, dimension: str) -> str | None:
    """The credit's value in a dimension; `unattributed` where no touch earned it."""
    if credit.touch is None:
        return UNATTRIBUTED
    if dimension == "funnel_stage":
        return credit.funnel_stage
    value: str | None = getattr(credit.touch, dimension)
    return value


def add_cells(cells: Cells, conversion: Conversion, credits: Iterable[Credit], sign: int, rules: Rules) -> None:
    """Add (`sign` 1) or take back (−1) a conversion's credits in every dimension."""
    day = day_of(conversion.at, rules.settings.time_zone)
    kind = "won" if conversion.kind == "refund" else conversion.kind
    for credit in credits:
        for dimension in DIMENSIONS:
            cell = Cell(kind, dimension, day, value_of(credit, dimension))
            numbers = cells.get(cell)
            if numbers is None:
                cells[cell] = [sign * share for share in credit.shares]
            else:
                cells[cell] = [have + sign * share for have, share in zip(numbers, credit.shares, strict=True)]


def without_zeros(cells: Mapping[Cell, Sequence[int]]) -> Cells:
    """The cells in which anything is left."""
    return {cell: list(numbers) for cell, numbers in cells.items() if any(numbers)}


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """A cell's numbers as signed 64-bit integers."""
    return array("q", numbers).tobytes()


def unpack_numbers(value: bytes) -> list[int]:
    """A cell's numbers."""
    return array("q", value).tolist()
