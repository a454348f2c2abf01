"""The credits of one conversion: eligible touches, milestones, shares, and what they come to.

Shared by the accounts lane and the batch recomputation.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache, partial
from struct import Struct
from typing import NamedTuple, cast

from models.attribution import (
    BUILT_IN,
    LONGEST_REMEMBERED,
    MILLION,
    PARTICIPATION,
    POSITION_MODELS,
    Path,
    Weights,
    apportion,
    position_weights,
    shapley_weights,
    team_weights,
    time_decay_weights,
)
from models.cells import Cell, Cells, new_cell
from models.counts import Count, Numbers
from models.custom import CustomModel, Traits, custom_weights, factor_of
from models.deals import Conversion
from models.paths import CONVERTED, path_counts
from models.rules import Rules
from models.times import day_of
from models.touches import Touch
from models.vectors import numbers_of

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
    "funnel_channel",
)
"""A value of `funnel_channel` is the funnel stage and the channel, such as `awareness:email`."""
NO_ROLE = "none"
_PARTICIPATION = BUILT_IN.index(PARTICIPATION)
"""Where a cell keeps the numbers of the one model that does not add up."""
_MODEL_BITS = 128
"""A model's count and amount in a cell."""
_POSITION_BITS = _MODEL_BITS * len(POSITION_MODELS)


class Milestones(NamedTuple):
    """The moments that positions and funnel stages are measured by; None: there is none."""

    lead: int | None = None
    opportunity: int | None = None
    close: int | None = None


class Credit(NamedTuple):
    """The shares of a touch (None: unattributed), as a vector of a cell's numbers."""

    touch: Touch | None
    funnel_stage: str
    numbers: int

    def shares(self, rules: Rules) -> list[int]:
        """Count (millionths) and amount (minor units) of each model in turn."""
        return numbers_of(self.numbers, rules.width)


_credit: Callable[[tuple[Touch | None, str, int]], Credit] = partial(tuple.__new__, Credit)
"""Credit(…) by half its cost."""

Sums = list[tuple[str, str | None, int]]
"""What a conversion's credits come to: dimension, value, numbers."""


def milestones_of(conversion: str, at: int, lead: int | None, created: int | None, won: int | None) -> Milestones:
    """Which milestones exist for a conversion: none later than itself, none it cannot know."""
    close = None if conversion in ("lead", "opportunity") else won
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


class Weighing(NamedTuple):
    """What touches are weighed by: `at` is the moment whose eligible `touches` (oldest first) these are.

    It is the conversion's own, for a refund its deal's win. `roles` are those of the
    touches' people, where the rules weigh them.
    """

    at: int
    touches: Sequence[Touch]
    milestones: Milestones
    roles: Sequence[str | None] = ()


def credits_of(conversion: Conversion, weighing: Weighing, rules: Rules) -> list[Credit]:
    """The credits of a conversion under every model; those of every model but `participation` add up to it."""
    touches, milestones = weighing.touches, weighing.milestones
    whole = _whole(conversion)
    if not touches:
        return [_credit((None, UNATTRIBUTED, whole * _each_model(len(rules.models))))] if whole else []
    stages = [funnel_stage(touch.at, milestones) for touch in touches]
    path = path_of(touches, milestones)
    others = _other_weights(weighing, stages, rules)
    vectors = _earned(MILLION, path, others) if conversion.counted else [0] * (path.n + 1)
    if conversion.amount:
        sign = 1 if conversion.amount > 0 else -1
        amounts = _earned(abs(conversion.amount), path, others)
        vectors = [counts + sign * (numbers << 64) for counts, numbers in zip(vectors, amounts, strict=True)]
    earned = zip((*touches, None), (*stages, UNATTRIBUTED), vectors, strict=True)
    return [_credit(each) for each in earned if each[2]]


def _whole(conversion: Conversion) -> int:
    """The conversion's count and amount, as a vector of one model."""
    return (MILLION if conversion.counted else 0) + ((conversion.amount or 0) << 64)


@lru_cache(maxsize=1000)
def _each_model(models: int) -> int:
    """What a vector of one model is multiplied by to stand for every model."""
    return sum(1 << (_MODEL_BITS * place) for place in range(models))


def _earned(units: int, path: Path, others: Sequence[Weights | None]) -> list[int]:
    """What of so many units each touch earned, and at the end what none did, as vectors without amounts."""
    columns = [_shares(units, weights, path.n) for weights in others]
    columns.insert(_PARTICIPATION - len(POSITION_MODELS), (*(units,) * path.n, 0))
    if units != MILLION or path.n > LONGEST_REMEMBERED:
        return _side_by_side(_by_position(units, path) + columns)
    beside = _side_by_side(columns)
    return [some + (numbers << _POSITION_BITS) for some, numbers in zip(_counts(path), beside, strict=True)]


@lru_cache(maxsize=10_000)
def _counts(path: Path) -> list[int]:
    return _side_by_side(_by_position(MILLION, path))


def _by_position(units: int, path: Path) -> list[Sequence[int]]:
    return [_shares(units, weights, path.n) for weights in position_weights(path)]


def _shares(units: int, weights: Weights | None, n: int) -> Sequence[int]:
    """What of the units each of `n` touches earned, and at the end what none did."""
    if weights is None:
        return (*(0,) * n, units)
    if n == 1:  # whose single touch it is; so most leads are
        return units, 0
    shares = apportion(units, weights)
    shares.append(0)
    return shares


def _side_by_side(columns: Sequence[Sequence[int]]) -> list[int]:
    """The numbers of each model for every touch, never below 0, as a vector for each touch."""
    pack = _packing(len(columns))
    return [int.from_bytes(pack(*row), "little") for row in zip(*columns, strict=True)]


@lru_cache(maxsize=100)
def _packing(models: int) -> Callable[..., bytes]:
    """Packs a number of each model, leaving room for another beside it."""
    return Struct("<" + models * "q8x").pack


def _other_weights(weighing: Weighing, stages: Sequence[str], rules: Rules) -> list[Weights | None]:
    """The weights under the models that ask for more than positions, in the order of cells."""
    at, touches = weighing.at, weighing.touches
    weights = [
        time_decay_weights([at - touch.at for touch in touches], rules.half_life),
        team_weights([touch.team for touch in touches], rules.team_shares),
        shapley_weights([touch.channel for touch in touches]),
    ]
    if rules.custom:
        traits = _traits(weighing, stages)
        weights += [_custom_weights(model, weighing, traits) for model in rules.custom]
    return weights


def _traits(weighing: Weighing, stages: Sequence[str]) -> list[Traits]:
    touches = weighing.touches
    roles = weighing.roles or [None] * len(touches)
    return [
        Traits(touch.kind, touch.team, touch.channel, role or NO_ROLE, stage)
        for touch, stage, role in zip(touches, stages, roles, strict=True)
    ]


def _custom_weights(model: CustomModel, weighing: Weighing, traits: Sequence[Traits]) -> Weights | None:
    """What the touches weigh under a model of the settings; those left out nothing."""
    touches = weighing.touches
    factors = [factor_of(model, each) for each in traits]
    kept = [number for number, factor in enumerate(factors) if factor]
    if not kept:
        return None
    path = path_of([touches[number] for number in kept], weighing.milestones)
    ages = [weighing.at - touches[number].at for number in kept]
    weights = custom_weights(model, path, [traits[each] for each in kept], [factors[each] for each in kept], ages)
    weighed = dict(zip(kept, weights or (), strict=False))
    return tuple([weighed.get(number, 0) for number in range(len(touches))]) if weights else None


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
        f"{credit.funnel_stage}:{touch.channel}",
    )


def sums_of(conversion: Conversion, credits: Sequence[Credit]) -> Sums:
    """What a conversion's credits come to in every dimension.

    Credits of one value are added up; in `participation` a value has the conversion once.
    """
    once = _participation(conversion)
    vectors = [credit.numbers - once for credit in credits]
    whole = once + sum(vectors)
    added: Sums = []
    columns = zip(*[values_of(credit) for credit in credits], strict=True)
    for dimension, column in zip(DIMENSIONS, columns, strict=False):
        if column.count(column[0]) == len(column):  # as in most dimensions of most conversions
            added.append((dimension, column[0], whole))
            continue
        sums: dict[str | None, int] = {}
        for value, numbers in zip(column, vectors, strict=True):
            sums[value] = sums.get(value, once) + numbers
        added += [(dimension, value, numbers) for value, numbers in sums.items()]
    return added


def add_cells(cells: Cells, conversion: Conversion, sums: Sums, sign: int, rules: Rules) -> None:
    """Add (`sign` 1) or take back (−1) what a conversion's credits come to."""
    day = day_of(conversion.at, rules.settings.time_zone)
    kind = "won" if conversion.kind == "refund" else conversion.kind
    for dimension, value, numbers in sums:
        place = (kind, dimension, day, value)
        have = cells.get(cast(Cell, place))  # its tuple is found as the cell is, and need not be made one
        added = numbers if sign > 0 else -numbers
        cells[new_cell(place) if have is None else cast(Cell, place)] = (have or 0) + added


def _participation(conversion: Conversion) -> int:
    """The whole conversion at the place of `participation`, as a vector."""
    return _whole(conversion) << (_MODEL_BITS * _PARTICIPATION)


# --- paths ------------------------------------------------------------------------------


def path_of_credits(conversion: Conversion, credits: Sequence[Credit], rules: Rules) -> Iterable[tuple[Count, Numbers]]:
    """The conversion's path of channels: every eligible touch has a credit, if only in `participation`."""
    if not conversion.counted:
        return ()
    channels = [credit.touch.channel for credit in credits if credit.touch is not None]
    return path_counts(conversion.kind, channels, CONVERTED, rules.settings.markov_order)


def last_converted(conversions: Iterable[Conversion]) -> dict[str, int]:
    """When the last conversion of each kind was, of those that are booked."""
    last: dict[str, int] = {}
    for conversion in conversions:
        if conversion.counted and conversion.amount is not None:
            last[conversion.kind] = max(conversion.at, last.get(conversion.kind, conversion.at))
    return last
