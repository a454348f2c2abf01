"""All attribution models of section 6, from the written rules alone: slow, obvious, exact.

It shares no code with the product. `split` gives what each touch of one conversion earns, oldest first; `markov` works
on plain lists of channels. Instants are microseconds, weights exact fractions (those of a decay have 60 digits).
"""

# ruff: noqa: PLR0911, PLR0912, PLR0917 - one rule after another, as they are written
from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import ROUND_HALF_UP, Context, Decimal, localcontext
from fractions import Fraction
from itertools import combinations
from math import factorial
from typing import Any

from tests import oracle
from tests.oracle import DAY, Touch, apportion, latest, whole

EXACT = Context(prec=60)
START = "(start)"
Weights = list[Fraction]


@dataclass
class Journey:
    """The eligible touches of one conversion, oldest first, and its milestones."""

    touches: Sequence[Touch]
    moment: int
    lead: int | None = None
    opportunity: int | None = None
    close: int | None = None
    roles: Mapping[str, str] = field(default_factory=dict)  # person -> role in the deal, else the contact-change's

    def __post_init__(self) -> None:
        # "A milestone later than the conversion does not exist for it"
        for name in ("lead", "opportunity", "close"):
            at = getattr(self, name)
            if at is not None and at > self.moment:
                setattr(self, name, None)

    def stage(self, touch: Touch) -> str:
        return oracle.funnel_stage(touch.at, self.lead, self.opportunity)

    def only(self, touches: Sequence[Touch]) -> Journey:
        return Journey(touches, self.moment, self.lead, self.opportunity, self.close, self.roles)


def half_power(age: int, half_life_days: Any) -> Fraction:
    """2^(-age/half-life), "age exact to the microsecond, weights with at least 30 significant digits"."""
    half_life = Fraction(str(half_life_days)) * DAY
    ratio = Fraction(-age) / half_life
    exponent = EXACT.divide(Decimal(ratio.numerator), Decimal(ratio.denominator))
    return Fraction(EXACT.power(Decimal(2), exponent))


def split(model: str, amount: int, journey: Journey, settings: Mapping[str, Any] | None = None) -> list[int] | None:
    """What each touch earns of the amount; None when it is all credited to `unattributed`."""
    if model == "participation":
        return [amount] * len(journey.touches) or None
    weights = weigh(model, journey, settings or {})
    return None if weights is None else apportion(amount, whole(weights))


def weigh(model: str, journey: Journey, settings: Mapping[str, Any]) -> Weights | None:
    touches, n = journey.touches, len(journey.touches)
    if n == 0:
        return None
    if model == "inverse_j":  # "first 60, last 20, rest 20; n=2: ... 75/25"
        return positions(journey, {"first": 60, "last": 20, "rest": 20})
    if model == "j_shaped":  # "first 20, last 60, rest 20 ...; n=2: 25/75"
        return positions(journey, {"first": 20, "last": 60, "rest": 20})
    if model == "u_shaped_strict":  # "first 50, lead 50"
        return positions(journey, {"first": 50, "lead": 50})
    if model == "team_split":
        return team_split(touches, settings.get("team_split", {"marketing": 50, "sales": 50}))
    if model == "shapley":
        return shapley(touches)
    if model in settings.get("models", {}):
        return custom(journey, settings["models"][model])
    half_life = int(Fraction(str(settings.get("half_life_days", 7))) * DAY)
    return oracle.weights_of(
        model, list(touches), journey.moment, journey.lead, journey.opportunity, journey.close, half_life
    )


def positions(journey: Journey, weights: Mapping[str, Any]) -> Weights | None:
    """Named positions and the rest (section 6): "What a missing position would have is shared among the model's other
    named positions in proportion to their weights; "rest" is shared equally by the touches that hold no position, and
    goes to the named positions, in proportion, only when there is no such touch."."""
    touches = list(journey.touches)
    places = {
        "first": 0,
        "last": len(touches) - 1,
        "lead": latest(touches, journey.lead),
        "opportunity": latest(touches, journey.opportunity),
        "close": latest(touches, journey.close),
    }
    rest = Fraction(str(weights.get("rest", 0)))
    named = {name: Fraction(str(weight)) for name, weight in weights.items() if name != "rest"}
    there = {name: place for name in named if (place := places[name]) is not None}
    if not there:
        return [rest / len(touches)] * len(touches) if rest else None  # every touch holds no position
    total, present = sum(named.values()), sum(named[name] for name in there)
    found = [Fraction(0)] * len(touches)
    if present:
        for name, place in there.items():
            found[place] += named[name] * total / present
    others = [place for place in range(len(touches)) if place not in there.values()]
    for place in others:
        found[place] = rest / len(others)
    if not others and present:
        found = [weight * (1 + rest / total) for weight in found]
    return found if any(found) else None


def team_split(touches: Sequence[Touch], shares: Mapping[str, Any]) -> Weights | None:
    """ "shares by team (default marketing 50, sales 50); a listed team without eligible touch leaves its share to the
    other listed ones in proportion; other teams get 0; no listed team: `unattributed`", "divided linearly within"."""
    size = Counter(touch.team for touch in touches)
    found = [
        Fraction(str(shares[touch.team])) / size[touch.team] if touch.team in shares else Fraction(0)
        for touch in touches
    ]
    return found if any(found) else None


def shapley(touches: Sequence[Touch]) -> Weights:
    """ "equally among its distinct channels, a channel's part equally among its touches" """
    size = Counter(touch.channel for touch in touches)
    return [Fraction(1, len(size) * size[touch.channel]) for touch in touches]


# ---------------------------------------------------------------------------------------------------------------------
# Custom models


def custom(journey: Journey, model: Mapping[str, Any]) -> Weights | None:
    """ "weight = position x all factors x decay; nothing left: `unattributed`" """
    kept = [touch for touch in journey.touches if factor(touch, journey, model)]  # left out before positions are found
    if not kept:
        return None
    left = journey.only(kept)
    placed = positions(left, model["positions"]) if model.get("positions") else [Fraction(1)] * len(kept)
    if placed is None:
        return None
    weights = [place * factor(touch, journey, model) for place, touch in zip(placed, kept, strict=True)]
    if model.get("decay"):
        half_life = model["decay"]["half_life_days"]
        weights = [
            weight * half_power(journey.moment - touch.at, half_life)
            for weight, touch in zip(weights, kept, strict=True)
        ]
    if not any(weights):
        return None
    if model.get("caps"):
        weights = capped(weights, [group_of(model["caps"]["by"], touch, journey) for touch in kept], model["caps"])
    by_touch = {id(touch): weight for touch, weight in zip(kept, weights, strict=True)}
    return [by_touch.get(id(touch), Fraction(0)) for touch in journey.touches]


def group_of(by: str, touch: Touch, journey: Journey) -> str | None:
    return {
        "touch": touch.id,
        "kind": touch.kind,
        "team": touch.team,
        "channel": touch.channel,
        "role": journey.roles.get(touch.owner or "", "none"),  # "else none"
        "stage": journey.stage(touch),
    }[by]


def factor(touch: Touch, journey: Journey, model: Mapping[str, Any]) -> Fraction:
    """ "(value -> factor >= 0, `default` 1)"; a touch without the value takes the default."""
    product = Fraction(1)
    for name in ("kinds", "teams", "channels", "roles", "stages"):
        table = model.get(name) or {}
        value = group_of(name[:-1], touch, journey)
        product *= Fraction(str(table[value] if value in table and value is not None else table.get("default", 1)))
    return product


def capped(weights: Weights, groups: Sequence[str | None], caps: Mapping[str, Any]) -> Weights:
    """ "while a group exceeds its cap it is set to it and the rest shared among the others by weight; all capped: in
    proportion to the caps" """
    total = sum(weights)
    size: dict[str | None, Fraction] = defaultdict(Fraction)
    for group, weight in zip(groups, weights, strict=True):
        size[group] += weight / total
    size = {group: share for group, share in size.items() if share}
    named, most = caps.get("values"), caps.get("max")
    each = {group: most for group in size if named is None or group in named}
    if isinstance(named, Mapping):  # a cap for each of these values, `max` for all others
        each = {group: most for group in size if most is not None} | dict(named)
    cap = {group: Fraction(str(most)) / 100 for group, most in each.items() if group in size}
    share, full = dict(size), set[str | None]()
    while over := [group for group in set(cap) - full if share[group] > cap[group]]:
        full.update(over)
        others = {group: size[group] for group in size if group not in full}
        share = {group: cap[group] for group in full}
        left, of = 1 - sum(share.values()), sum(others.values())
        share |= {group: left * part / of for group, part in others.items()}
    # when all are capped the shares are the caps, and do not add up to 1: weights are shares in proportion anyway
    return [
        share[group] * (weight / total) / size[group] if group in size else Fraction(0)
        for group, weight in zip(groups, weights, strict=True)
    ]


# ---------------------------------------------------------------------------------------------------------------------
# Shapley and Markov over many paths


def shapley_of(v: Mapping[frozenset[str], Any]) -> dict[str, Fraction]:
    """Shapley's value of each player from the value of each set of players, by the textbook."""
    players = sorted(set().union(*v))
    n = len(players)
    found = {}
    for player in players:
        others = [each for each in players if each != player]
        value = Fraction(0)
        for size in range(n):
            for chosen in combinations(others, size):
                gain = Fraction(v.get(frozenset({*chosen, player}), 0)) - Fraction(v.get(frozenset(chosen), 0))
                value += Fraction(factorial(size) * factorial(n - size - 1), factorial(n)) * gain
        found[player] = value
    return found


@dataclass
class Chain:
    """How often a state is followed by another (None: null, True: conversion), added up over paths."""

    order: int
    counts: dict[tuple[tuple[str, ...], Any], int] = field(default_factory=lambda: defaultdict(int))

    def add(self, path: Sequence[str], converted: int, null: int = 0) -> None:
        """ "Order k: state = tuple of the last (at most k) channels" """
        state: tuple[str, ...] = ()
        for channel in path:
            following = (*state, channel)[-self.order :]
            self.counts[state, following] += converted + null
            state = following
        self.counts[state, True] += converted
        self.counts[state, None] += null

    def channels(self) -> list[str]:
        return sorted({state[-1] for pair in self.counts for state in pair if isinstance(state, tuple) and state})

    def conversion(self, without: str | None = None) -> Decimal:
        """P(conversion) from the start; "removing a channel sends every transition into a state whose newest channel
        it is to null"."""
        total: dict[Any, int] = defaultdict(int)
        for (state, _), n in self.counts.items():
            total[state] += n
        states = [state for state, n in total.items() if n and not (state and state[-1] == without)]
        place = {state: i for i, state in enumerate(states)}
        rows: list[dict[int, Decimal]] = [{i: Decimal(1)} for i in range(len(states))]
        right = [Decimal(0)] * len(states)
        with localcontext(Context(prec=60)):
            for (state, following), n in self.counts.items():
                if state not in place or not n:
                    continue
                p = Decimal(n) / total[state]
                if following is True:
                    right[place[state]] += p
                elif following in place:
                    row = rows[place[state]]
                    row[place[following]] = row.get(place[following], Decimal(0)) - p
            return eliminate(rows, right)[place[()]]

    def effects(self) -> dict[str, Decimal]:
        """ "effect = 1 - P(without)/P, solved, never simulated, rounded to 12 decimals before apportioning" """
        p = self.conversion()
        if not p:
            return {}
        with localcontext(Context(prec=60)):
            return {
                channel: (1 - self.conversion(channel) / p).quantize(Decimal("1e-12"), ROUND_HALF_UP)
                for channel in self.channels()
            }


def eliminate(rows: list[dict[int, Decimal]], right: list[Decimal]) -> list[Decimal]:
    """Gauss, from the last state to the first; a chain with an end from every state needs no pivoting."""
    for i in reversed(range(len(rows))):
        pivot = rows[i][i]
        for j in range(i):
            if factor_of := rows[j].pop(i, Decimal(0)):
                scale = factor_of / pivot
                for column, value in rows[i].items():
                    if column != i:
                        rows[j][column] = rows[j].get(column, Decimal(0)) - scale * value
                right[j] -= scale * right[i]
    found: list[Decimal] = []
    for i, row in enumerate(rows):
        known = sum((value * found[column] for column, value in row.items() if column < i), Decimal(0))
        found.append((right[i] - known) / row[i])
    return found


def chain_of(order: int, converted: Iterable[Sequence[str]], null: Iterable[Sequence[str]]) -> Chain:
    chain = Chain(order)
    for path in converted:
        chain.add(path, 1)
    for path in null:
        chain.add(path, 0, 1)
    return chain


def by_effect(amount: int, effects: Mapping[str, Decimal]) -> dict[str, int]:
    """ "apportioned over the channels by removal effect, ties to the smaller id" """
    channels = sorted(effects, key=lambda channel: channel.encode())
    shares = apportion(amount, [int(effects[channel] * 10**12) for channel in channels])
    return dict(zip(channels, shares, strict=True))


def null_path(touches: Sequence[Touch], moments: Sequence[int], lookback: int) -> list[Touch]:
    """ "at most one null path per kind: its touches after its last conversion of that kind (all if none), from the
    lookback before the latest of them on" """
    after = [touch for touch in touches if not moments or touch.at > max(moments)]
    return [touch for touch in after if touch.at >= max(each.at for each in after) - lookback]
