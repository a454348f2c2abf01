"""What each channel is worth by its removal effect, solved from counted transitions.

A path is a walk over states (the last channels, `order` of them at most) from the empty
state to a conversion or to null. Removing a channel sends every transition into a state
whose newest channel it is to null; its effect is the part of conversions that are lost.

Source: Anderl et al., Mapping the customer journey, 2014; ChannelAttribution.
"""

from collections.abc import Mapping

from models.attribution import apportion
from models.paths import CONVERTED, NULL, SEPARATOR

State = tuple[str, ...]
Chain = dict[State, dict[State, float]]
"""Transitions by state, with their frequencies or probabilities; `(CONVERTED,)` and `(NULL,)` are left by none."""

START: State = ()
_CONVERTED: State = (CONVERTED,)
_NULL: State = (NULL,)
UNIT = 10**12
"""Effects are whole numbers of this part, so rounded to 12 decimals."""
_MOST_ELIMINATED = 80
"""Larger chains are solved by sweeps, since elimination fills them."""
_MOST_SWEEPS = 20_000
_STILL = 4e-16
"""A chance that moves by a smaller part of itself stands still: two units of its last place."""


def chain_of(transitions: Mapping[str, int], order: int) -> Chain:
    """The chain that counted transitions (see models.paths) make."""
    chain: Chain = {}
    for field, count in transitions.items():
        *state, following = field.split(SEPARATOR)
        to = (following,) if following in (CONVERTED, NULL) else (*state, following)[-order:]
        frequencies = chain.setdefault(tuple(state), {})
        frequencies[to] = frequencies.get(to, 0) + count
    return {state: _probabilities(frequencies) for state, frequencies in chain.items()}


def _probabilities(frequencies: Mapping[State, float]) -> dict[State, float]:
    total = sum(frequencies.values())
    return {to: count / total for to, count in frequencies.items()}


def removal_effects(transitions: Mapping[str, int], order: int) -> dict[str, int]:
    """Each channel's removal effect in parts of 10**12, by id; empty when nothing was converted."""
    chain = chain_of(transitions, order)
    chances = conversion_chances(chain)
    whole = chances.get(START, 0.0)
    if not whole:
        return {}
    channels = sorted({state[-1] for state in chain if state})
    return {channel: round(UNIT * (1 - _without(chain, channel, chances) / whole)) for channel in channels}


def _without(chain: Chain, channel: str, chances: Mapping[State, float]) -> float:
    """The chance of a conversion when the channel is removed."""
    left = {
        state: _diverted(probabilities, channel)
        for state, probabilities in chain.items()
        if not state or state[-1] != channel
    }
    return conversion_chances(left, chances).get(START, 0.0)


def _diverted(probabilities: Mapping[State, float], channel: str) -> dict[State, float]:
    """Transitions into states whose newest channel it is lead to null."""
    kept = {to: chance for to, chance in probabilities.items() if to[-1] != channel}
    lost = sum(chance for to, chance in probabilities.items() if to[-1] == channel)
    return {**kept, _NULL: kept.get(_NULL, 0.0) + lost} if lost else kept


def conversion_chances(chain: Chain, guess: Mapping[State, float] | None = None) -> dict[State, float]:
    """The chance to be converted from each state, or, of a small chain, from the start alone.

    A `guess` near the answer makes it quicker.
    """
    if START not in chain:
        return {}
    return {START: _eliminated(chain)} if len(chain) <= _MOST_ELIMINATED else _swept(chain, guess or {})


def _eliminated(chain: Chain) -> float:
    """State by state is taken out, its transitions bridged, until the start alone is left.

    Nothing is subtracted, so the result is exact to a few units of the last place.
    Source: Grassmann, Taksar, Heyman, Regenerative analysis, 1985.
    """
    rows = {state: dict(row) for state, row in chain.items()}
    for state in sorted((state for state in rows if state), key=lambda each: len(rows[each])):
        out = rows.pop(state)
        out.pop(state, None)
        leaving = sum(out.values())
        for row in rows.values():
            entering = row.pop(state, 0.0)
            if entering and leaving:
                for to, chance in out.items():
                    row[to] = row.get(to, 0.0) + entering * chance / leaving
    start = rows[START]
    start.pop(START, None)
    return start.get(_CONVERTED, 0.0) / sum(start.values())


def _swept(chain: Chain, guess: Mapping[State, float]) -> dict[State, float]:
    """Each state's chance from those of the states it leads to, over and over until nothing moves.

    Source: Gauss-Seidel.
    """
    numbers = {state: number for number, state in enumerate(reversed(chain))}
    chances = [guess.get(state, 0.0) for state in numbers]
    rows = [
        (chain[state].get(_CONVERTED, 0.0), [(numbers[to], p) for to, p in chain[state].items() if to in numbers])
        for state in numbers
    ]
    for _ in range(_MOST_SWEEPS):
        is_still = True
        for number, (converted, row) in enumerate(rows):
            chance = converted + sum([p * chances[to] for to, p in row])
            is_still &= abs(chance - chances[number]) <= _STILL * chance
            chances[number] = chance
        if is_still:
            return dict(zip(numbers, chances, strict=True))
    return {START: _eliminated(chain)}


def apportioned(amount: int, effects: Mapping[str, int]) -> dict[str, int]:
    """An amount (or a count) shared among channels by their effects, ties to the smaller id.

    `effects` are sorted by channel, and not all 0.
    """
    return dict(zip(effects, apportion(amount, tuple(effects.values())), strict=True))
