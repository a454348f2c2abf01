"""Models that the settings name: weights for positions and for what a touch is, decay, caps.

A touch weighs position × factors × decay. Touches with a factor 0 are left out before
positions are found. Caps are applied last, by groups of touches. All is exact.
"""

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import msgspec

from models.attribution import BUILT_IN, MARKOV, Path, Weights, time_decay_weights, whole
from models.errors import BadInput
from models.ids import snake
from models.times import DAY

POSITIONS = ("first", "last", "lead", "opportunity", "close", "rest")
STAGES = ("awareness", "consideration", "decision")
DEFAULT = "default"
_OF_ROWS = (
    "period", "currency", "channel", "source", "campaign", "content", "landing_page", "kind", "team", "rep",
    "funnel_stage", "funnel_channel",
)  # fmt: skip
"""Other fields of the rows in which models stand side by side."""
_LONGEST_HALF_LIFE = 365_250.0
By = Literal["touch", "kind", "team", "channel", "role", "stage"]


class Decay(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A touch weighs half for each half-life of its age."""

    half_life_days: float


class Caps(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The most, in percent, that a group of touches with one value of `by` may have.

    `values` are the groups that are capped (all by default), or a cap for each of them.
    """

    by: By
    max: Decimal | None = None
    values: tuple[str, ...] | dict[str, Decimal] | None = None


class CustomModel(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A model of the settings; tables of factors may have a `default`, else 1."""

    positions: dict[str, Decimal] | None = None
    kinds: dict[str, Decimal] = msgspec.field(default_factory=dict)
    teams: dict[str, Decimal] = msgspec.field(default_factory=dict)
    channels: dict[str, Decimal] = msgspec.field(default_factory=dict)
    roles: dict[str, Decimal] = msgspec.field(default_factory=dict)
    stages: dict[str, Decimal] = msgspec.field(default_factory=dict)
    decay: Decay | None = None
    caps: Caps | None = None

    @property
    def weighs_roles(self) -> bool:
        """Does it ask for the role of a touch's person?"""
        return bool(self.roles) or (self.caps is not None and self.caps.by == "role")


class Traits(NamedTuple):
    """What factors and caps ask of a touch; `role` is "none" for a person without one."""

    kind: str
    team: str
    channel: str
    role: str
    stage: str


_TABLES = {"kinds": "kind", "teams": "team", "channels": "channel", "roles": "role", "stages": "stage"}


# --- are the settings possible ----------------------------------------------------------


def check_models(models: Mapping[str, CustomModel]) -> None:
    """BadInput names the first setting of a custom model that is not possible."""
    for name, model in models.items():
        where = f"models.{name}"
        if name in (*BUILT_IN, MARKOV, *_OF_ROWS) or not (name.isidentifier() and name.isascii() and name.islower()):
            raise BadInput(where, "a name of its own in lower case letters, digits and underscores", name)
        _check_positions(where, model.positions)
        for table in _TABLES:
            _check_factors(f"{where}.{table}", getattr(model, table))
        _check_names(f"{where}.stages", model.stages, (*STAGES, DEFAULT))
        if model.decay:
            check_half_life(f"{where}.decay.half_life_days", model.decay.half_life_days)
        if model.caps:
            _check_caps(f"{where}.caps", model.caps)


def check_half_life(where: str, days: float) -> None:
    """BadInput when it is no half-life: an hour at least, so that weights keep a length that can be computed with."""
    if not 1 / 24 <= days <= _LONGEST_HALF_LIFE:
        raise BadInput(where, "days, from an hour (1/24) to a thousand years", days)


def _check_positions(where: str, positions: Mapping[str, Decimal] | None) -> None:
    if positions is not None:
        _check_names(f"{where}.positions", positions, POSITIONS)
        _check_factors(f"{where}.positions", positions)
        if not any(positions.values()):
            raise BadInput(f"{where}.positions", "at least one weight above 0", dict(positions))


def _check_names(where: str, table: Iterable[str], known: Sequence[str]) -> None:
    for name in table:
        if name not in known:
            raise BadInput(where, f"one of {', '.join(known)}", name)


def _check_factors(where: str, table: Mapping[str, Decimal]) -> None:
    for name, factor in table.items():
        if not (factor.is_finite() and factor >= 0):
            raise BadInput(f"{where}.{name}", "a number from 0", str(factor))


def _check_caps(where: str, caps: Caps) -> None:
    values: Mapping[str, Any] = caps.values if isinstance(caps.values, dict) else {"max": caps.max}
    if caps.max is not None:
        values = {**values, "max": caps.max}
    for name, most in values.items():
        if most is None or not (most.is_finite() and 0 < most <= 100):
            raise BadInput(f"{where}.{name}", "a percentage above 0 and up to 100", None if most is None else str(most))
    if caps.by == "touch" and caps.values is not None:
        raise BadInput(f"{where}.values", "nothing where caps are by touch", caps.values)


def normalised(models: Mapping[str, CustomModel]) -> dict[str, CustomModel]:
    """The models with what touches are compared with as touches have it: lower case, kinds and channels as ids.

    They come by name, whatever their order in the file: cells keep their numbers in this order, and rules
    that were stored and read again must mean the same cells.
    """
    return {name: _normalised(models[name]) for name in sorted(models)}


def _normalised(model: CustomModel) -> CustomModel:
    tables = {table: {_as_of(trait, name): each for name, each in getattr(model, table).items()}
              for table, trait in _TABLES.items()}  # fmt: skip
    caps = model.caps
    if caps and isinstance(caps.values, dict):
        caps = Caps(caps.by, caps.max, {_as_of(caps.by, name): most for name, most in caps.values.items()})
    elif caps and caps.values is not None:
        caps = Caps(caps.by, caps.max, tuple(_as_of(caps.by, name) for name in caps.values))
    return msgspec.structs.replace(model, caps=caps, **tables)


def _as_of(trait: str, name: str) -> str:
    return snake(name) if trait in ("kind", "channel") else name.strip().lower()


# --- what touches weigh -----------------------------------------------------------------


def factor_of(model: CustomModel, traits: Traits) -> Fraction:
    """The product of the factors that a touch has; 0 leaves it out."""
    factor = Fraction(1)
    for table, trait in _TABLES.items():
        factors: Mapping[str, Decimal] = getattr(model, table)
        if factors:
            factor *= Fraction(factors.get(getattr(traits, trait), factors.get(DEFAULT, 1)))
    return factor


def custom_weights(
    model: CustomModel, path: Path, traits: Sequence[Traits], factors: Sequence[Fraction], ages: Sequence[int]
) -> Weights | None:
    """The weights of the touches that were not left out, oldest first; None when nothing weighs anything.

    `path` is theirs alone; `ages` are microseconds.
    """
    placed = _positions(model.positions, path)
    decayed = time_decay_weights(ages, round(model.decay.half_life_days * DAY)) if model.decay else (1,) * path.n
    weights = [place * factor * decay for place, factor, decay in zip(placed, factors, decayed, strict=True)]
    return whole(_capped(model.caps, traits, weights) if model.caps else weights)


def _positions(weights: Mapping[str, Decimal] | None, path: Path) -> list[Fraction]:
    """What each touch weighs by its place: 1 where the model names no position."""
    if weights is None:
        return [Fraction(1)] * path.n
    places = {"first": 0, "last": path.n - 1, "lead": path.lead, "opportunity": path.opportunity, "close": path.close}
    named = {name: Fraction(weight) for name, weight in weights.items() if name != "rest"}
    held = [(place, weight) for name, weight in named.items() if (place := places[name]) is not None]
    rest = Fraction(weights.get("rest", 0))
    if not held:
        return [rest] * path.n
    others = path.n - len({place for place, _ in held})
    held_weight = sum(weight for _, weight in held)
    to_named = sum(named.values()) + (0 if others else rest)
    shares = [rest / others if others else Fraction(0)] * path.n
    for place, _ in held:
        shares[place] = Fraction(0)
    for place, weight in held:
        shares[place] += weight * to_named / held_weight if held_weight else 0
    return shares


def _capped(caps: Caps, traits: Sequence[Traits], weights: Sequence[Fraction]) -> list[Fraction]:
    """The weights with no group above its cap, where that can be."""
    groups = [str(number) if caps.by == "touch" else str(getattr(each, caps.by)) for number, each in enumerate(traits)]
    sums: dict[str, Fraction] = {}
    for group, weight in zip(groups, weights, strict=True):
        if weight:
            sums[group] = sums.get(group, Fraction(0)) + weight
    shares = _group_shares(sums, {group: most for group in sums if (most := _cap(caps, group)) is not None})
    return [
        weight * shares[group] / sums[group] if weight else weight
        for group, weight in zip(groups, weights, strict=True)
    ]


def _cap(caps: Caps, group: str) -> Fraction | None:
    """The part of the whole that a group may have; None: any."""
    most = caps.max
    if isinstance(caps.values, dict):
        most = caps.values.get(group, caps.max)
    elif caps.values is not None and group not in caps.values:
        most = None
    return None if most is None else Fraction(most) / 100


def _group_shares(weights: Mapping[str, Fraction], caps: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Parts of one: a group above its cap is set to it, the rest is shared by the others' weights.

    Where all are capped, the whole is shared in proportion to the caps.
    """
    shares: dict[str, Fraction] = {}
    while free := {group: weight for group, weight in weights.items() if group not in shares}:
        left, total = 1 - sum(shares.values()), sum(free.values())
        parts = {group: left * weight / total for group, weight in free.items()}
        above = {group: caps[group] for group, part in parts.items() if group in caps and part > caps[group]}
        if not above:
            return {**shares, **parts}
        shares.update(above)
    return shares
