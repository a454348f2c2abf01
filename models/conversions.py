"""The credits of one conversion: eligible touches, milestones, shares, cells.

Shared by the accounts lane and the batch recomputation.
"""

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from models.attribution import MILLION, MODELS, Path, Weights, apportion, position_weights, time_decay_weights
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
    """The shares of a touch (None: unattributed), as a vector of a cell's numbers."""

    touch: Touch | None
    funnel_stage: str
    numbers: int

    @property
    def shares(self) -> list[int]:
        """Count (millionths) and amount (minor units) of each model in turn."""
        return numbers_of(self.numbers)


Cells = dict[Cell, int]
"""Cells with their numbers as one integer (see `vector`): adding cells is adding integers."""


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


def _order(touch: Touch) -> tuple[int, str, str, str]:
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


def funnel_stage(at: int, milestones: Milestones) -> str:
    """Awareness up to the lead moment, consideration up to the deal's creation, then decision."""
    if milestones.lead is not None and at <= milestones.lead:
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
    numbers = [0] * (len(touches) + 1)
    if conversion.counted:
        _add_counts(numbers, weighed_at, touches, milestones, rules)
    if conversion.amount:
        _add_amounts(numbers, conversion.amount, weighed_at, touches, milestones, rules)
    stages = [funnel_stage(touch.at, milestones) for touch in touches]
    earned = zip((*touches, None), (*stages, UNATTRIBUTED), numbers, strict=True)
    return [Credit(*each) for each in earned if each[2]]


def _add_counts(numbers: list[int], at: int, touches: Sequence[Touch], milestones: Milestones, rules: Rules) -> None:
    """Add the conversion's count to its touches; what none earned to the last place."""
    if not touches:
        numbers[-1] += _ALL_COUNTS
        return
    for place, counted in enumerate(_position_counts(path_of(touches, milestones))):
        numbers[place] += counted
    for place, counted in enumerate(apportion(MILLION, _decay(touches, at, rules))):
        numbers[place] += counted << _DECAY_SHIFT


_DECAY_SHIFT = 64 * (WIDTH - 2)
_ALL_COUNTS = sum(MILLION << (64 * place) for place in range(0, WIDTH, 2))


@lru_cache(maxsize=50_000)
def _position_counts(path: Path) -> tuple[int, ...]:
    """The counts of all position models as a vector for each touch, the last for none."""
    numbers = [0] * (path.n + 1)
    for number, weights in enumerate(position_weights(path)):
        counts = apportion(MILLION, weights) if weights else [0] * path.n + [MILLION]
        for place, counted in enumerate(counts):
            numbers[place] += counted << (128 * number)
    return tuple(numbers)


def _add_amounts(
    numbers: list[int], amount: int, at: int, touches: Sequence[Touch], milestones: Milestones, rules: Rules
) -> None:
    weighted: Sequence[Weights | None] = [None] * len(MODELS)
    if touches:
        weighted = [*position_weights(path_of(touches, milestones)), _decay(touches, at, rules)]
    for number, weights in enumerate(weighted):
        shares = apportion(amount, weights) if weights else [0] * len(touches) + [amount]
        for place, share in enumerate(shares):
            if share:
                numbers[place] += share << (128 * number + 64)


def _decay(touches: Sequence[Touch], at: int, rules: Rules) -> Weights:
    half_life = round(rules.settings.time_decay_half_life_days * DAY)
    return time_decay_weights([at - touch.at for touch in touches], half_life)


def values_of(credit: Credit) -> tuple[str | None, ...]:
    """The credit's value in each dimension; `unattributed` where no touch earned it."""
    touch = credit.touch
    if touch is None:
        return (UNATTRIBUTED,) * len(DIMENSIONS)
    return (
        touch.channel,
        touch.source,
        touch.campaign,
        touch.content,
        touch.landing_page,
        touch.kind,
        touch.team,
        touch.rep,
        credit.funnel_stage,
    )


def add_cells(cells: Cells, conversion: Conversion, credits: Sequence[Credit], sign: int, rules: Rules) -> None:
    """Add (`sign` 1) or take back (−1) a conversion's credits in every dimension."""
    day = day_of(conversion.at, rules.settings.time_zone)
    kind = "won" if conversion.kind == "refund" else conversion.kind
    columns = list(zip(*(values_of(credit) for credit in credits), strict=True))
    vectors = [sign * credit.numbers for credit in credits]
    for dimension, column in zip(DIMENSIONS, columns, strict=False):
        sums: dict[str | None, int] = {}
        for value, numbers in zip(column, vectors, strict=True):
            sums[value] = sums.get(value, 0) + numbers
        for value, total in sums.items():
            cell = Cell(kind, dimension, day, value)
            cells[cell] = cells.get(cell, 0) + total


def without_zeros(cells: Mapping[Cell, int]) -> Cells:
    """The cells in which anything is left."""
    return {cell: numbers for cell, numbers in cells.items() if numbers}


_SIGNS = sum(1 << (64 * place + 63) for place in range(WIDTH))


def vector(numbers: Sequence[int]) -> int:
    """A cell's numbers as one integer Σ number·2^(64·place): sums of vectors are vectors of sums.

    Exact while every sum stays within 64 bits, signs included.
    """
    return (int.from_bytes(array("q", numbers).tobytes(), "little") ^ _SIGNS) - _SIGNS


def pack_vector(numbers: int) -> bytes:
    """A vector as signed 64-bit integers, little-endian."""
    return ((numbers + _SIGNS) ^ _SIGNS).to_bytes(8 * WIDTH, "little")


def unpack_vector(value: bytes) -> int:
    """The vector packed in `value`."""
    return (int.from_bytes(value, "little") ^ _SIGNS) - _SIGNS


def numbers_of(numbers: int) -> list[int]:
    """A vector's numbers: count (millionths) and amount (minor units) of each model in turn."""
    return unpack_numbers(pack_vector(numbers))


def pack_numbers(numbers: Sequence[int]) -> bytes:
    """Signed 64-bit integers, little-endian."""
    return array("q", numbers).tobytes()


def unpack_numbers(value: bytes) -> list[int]:
    """The integers packed in `value`."""
    return array("q", value).tolist()
