"""Which share of a conversion each touch earned, under every model side by side.

A model is a function from a `Path` (the eligible touches in order, with the places of
the milestones) to exact integer weights; `None` says that no position of it exists.
Money and counts are apportioned by the weights to the unit.
"""

from collections.abc import Callable, Mapping, Sequence
from fractions import Fraction
from functools import lru_cache
from math import lcm
from typing import NamedTuple

from models.decay import BITS, Tables, decay_tables, power

MILLION = 1_000_000
"""A conversion's count, in millionths."""


class Path(NamedTuple):
    """What position models see of a conversion's `n` eligible touches, oldest first.

    Each place is the number of the touch that holds the milestone, None where the
    milestone does not exist or no eligible touch stands at or before it.
    """

    n: int
    last_non_direct: int
    lead: int | None
    opportunity: int | None
    close: int | None


Weights = tuple[int, ...]


def apportion(amount: int, weights: Weights) -> list[int]:
    """Share `amount` minor units in proportion to `weights`; the shares add up to it.

    Shares are rounded down; the units left over go one each to the largest fractions,
    the earlier touch first on a tie. The sign is put back at the end.
    Source: largest-remainder (Hamilton) method.

    >>> apportion(100_000, (1, 1, 1))
    [33334, 33333, 33333]
    """
    units, n, total = abs(amount), len(weights), sum(weights)
    if weights[0] * n == total and weights.count(weights[0]) == n:  # alike, as under many models
        share, left_over = divmod(units, n)
        shares = [share + 1] * left_over + [share] * (n - left_over)
    elif max(weights) == total:  # all of it one touch's
        shares = [0] * n
        shares[weights.index(total)] = units
    else:
        shares = _apportioned(units, weights, total)
    return [-share for share in shares] if amount < 0 else shares


def _apportioned(units: int, weights: Weights, total: int) -> list[int]:
    shares: list[int] = []
    fractions: list[int] = []
    for weight in weights:
        share = units * weight // total
        shares.append(share)
        fractions.append(units * weight - share * total)
    left_over = units - sum(shares)
    if left_over:
        least = sorted(fractions, reverse=True)[left_over - 1]  # of those that have one more
        alike = left_over
        for fraction in fractions:
            alike -= fraction > least
        for number, fraction in enumerate(fractions):
            if fraction > least:
                shares[number] += 1
            elif fraction == least and alike:
                shares[number] += 1
                alike -= 1
    return shares


def _only(path: Path, place: int | None) -> Weights | None:
    return None if place is None else (0,) * place + (1,) + (0,) * (path.n - place - 1)


def positions(path: Path, named: Sequence[tuple[int | None, int]], rest: int) -> Weights | None:
    """Named positions with their weights; `rest` is shared by the touches that hold none.

    What a missing position would have goes to the other named ones in proportion; so
    does the rest when every touch holds a position. A touch collects all it holds.
    """
    held = [(place, weight) for place, weight in named if place is not None]
    if not held:
        return None
    others = path.n - len({place for place, _ in held})
    held_weight = sum(weight for _, weight in held)
    to_named = sum(weight for _, weight in named) + (0 if others else rest)
    shares = [rest * held_weight if others else 0] * path.n
    for place, _ in held:
        shares[place] = 0
    for place, weight in held:
        shares[place] += weight * to_named * max(others, 1)
    return tuple(shares)


def _position_based(path: Path) -> Weights | None:
    return positions(path, [(0, 40), (path.n - 1, 40)], 20)


POSITION_MODELS: dict[str, Callable[[Path], Weights | None]] = {
    "first_touch": lambda path: _only(path, 0),
    "last_touch": lambda path: _only(path, path.n - 1),
    "last_non_direct": lambda path: _only(path, path.last_non_direct),
    "lead_creation": lambda path: _only(path, path.lead),
    "opportunity_creation": lambda path: _only(path, path.opportunity),
    "linear": lambda path: (1,) * path.n,
    "position_based": _position_based,
    "u_shaped": lambda path: positions(path, [(0, 40), (path.lead, 40)], 20),
    "u_shaped_strict": lambda path: positions(path, [(0, 50), (path.lead, 50)], 0),
    "w_shaped": lambda path: positions(path, [(0, 30), (path.lead, 30), (path.opportunity, 30)], 10),
    "full_path": lambda path: positions(
        path, [(0, 225), (path.lead, 225), (path.opportunity, 225), (path.close, 225)], 100
    ),
    "j_shaped": lambda path: positions(path, [(0, 20), (path.n - 1, 60)], 20),
    "inverse_j": lambda path: positions(path, [(0, 60), (path.n - 1, 20)], 20),
}
PARTICIPATION, MARKOV = "participation", "markov"
BUILT_IN = (*POSITION_MODELS, "time_decay", "team_split", "shapley", PARTICIPATION)
"""The models that cells keep, in their order; those of the settings follow. `markov` is solved when read."""

LONGEST_REMEMBERED = 24
"""What longer paths weigh is computed each time, so that memory stays bounded."""


def position_weights(path: Path) -> tuple[Weights | None, ...]:
    """The weights of every position model; None for one none of whose positions exists."""
    return _remembered_weights(path) if path.n <= LONGEST_REMEMBERED else _every_position(path)


def _every_position(path: Path) -> tuple[Weights | None, ...]:
    return tuple([model(path) for model in POSITION_MODELS.values()])


_remembered_weights = lru_cache(maxsize=10_000)(_every_position)


def team_weights(teams: Sequence[str], shares: Mapping[str, int]) -> Weights | None:
    """Each team's share, divided equally among its touches; None when no listed team has one.

    What a listed team without touch would have is left to the others in proportion;
    teams that are not listed have nothing.
    """
    counts = {team: teams.count(team) for team, share in shares.items() if share and team in teams}
    if len(teams) == 1 or not counts:
        return (1,) if counts else None
    common = lcm(*counts.values())
    each = {team: shares[team] * (common // count) for team, count in counts.items()}
    return tuple([each.get(team, 0) for team in teams])


def shapley_weights(channels: Sequence[str]) -> Weights:
    """One part for each distinct channel, divided equally among its touches.

    Source: Shapley value of the game v(S) = conversions whose distinct channels all lie
    in S, which gives a conversion to its distinct channels equally.
    """
    if len(channels) == 1:
        return (1,)
    counts = {channel: channels.count(channel) for channel in set(channels)}
    common = lcm(*counts.values())
    return tuple([common // counts[channel] for channel in channels])


def whole(weights: Sequence[Fraction]) -> Weights | None:
    """Whole weights in the same proportion; None when nothing weighs anything."""
    if not any(weights):
        return None
    common = lcm(*(weight.denominator for weight in weights))
    return tuple([weight.numerator * (common // weight.denominator) for weight in weights])


def time_decay_weights(ages: Sequence[int], half_life: int) -> Weights:
    """2^(−age/half-life) of ages in microseconds, to at least 30 significant digits.

    Source: exponential decay as in Adobe Analytics. Ages are counted from the latest
    touch, which scales every weight alike; a power is a product over the age's digits.
    The oldest keeps all its digits too: under a cap of the others it may earn much.
    """
    if len(ages) == 1:
        return (1,)
    youngest = min(ages)
    tables = decay_tables(half_life)
    room = max(BITS, (max(ages) - youngest) // half_life)
    return tuple([_decayed(age - youngest, half_life, tables, room) for age in ages])


def _decayed(age: int, half_life: int, tables: Tables, room: int) -> int:
    halvings, left = divmod(age, half_life)
    return (power(left, tables) << room) >> halvings
