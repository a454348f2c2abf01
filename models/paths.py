"""Paths of channels, counted transition by transition: what the model `markov` is solved from.

A conversion with touches is a path of their channels that ends in a conversion. An
account (for `lead`: a visitor that belongs to nobody) that has touches after its last
conversion is a null path. Counts of transitions are additive, so a path is taken back
and added as credits are; of a long null path only the transitions around a change.

Table `paths:<kind of conversion>`: field = the channels of a state, oldest first, and
the channel or end that followed, NUL between them; number = how often.
"""

from collections.abc import Sequence
from functools import lru_cache

from models.counts import Count, Numbers

CONVERTED, NULL = "(conversion)", "(null)"
SEPARATOR = "\0"
ONCE: Numbers = (1,)
_TAKEN_BACK: Numbers = (-1,)


_TABLE = "paths:"


def table_of_paths(kind: str) -> str:
    """The table that counts the transitions of a kind of conversion."""
    return f"{_TABLE}{kind}"


def counts_paths(table: str) -> bool:
    """Does the table count transitions?"""
    return table.startswith(_TABLE)


@lru_cache(maxsize=50_000)
def transition(kind: str, *names: str) -> Count:
    """Where a transition is counted: the channels of a state, and what followed."""
    return Count(table_of_paths(kind), SEPARATOR.join(names))


def path_counts(
    kind: str, channels: Sequence[str], end: str, order: int, first: int = 0, numbers: Numbers = ONCE
) -> list[tuple[Count, Numbers]]:
    """The transitions of one path, from its `first` touch on, the one to its end included.

    A state is the last `order` channels at most. A path without touches is none.
    """
    if not channels:
        return []
    counts = []
    for number in range(first, len(channels)):
        counts.append((transition(kind, *channels[max(number - order, 0) : number + 1]), numbers))
    counts.append((transition(kind, *channels[-order:], end), numbers))
    return counts


def replaced_path(kind: str, old: Sequence[str], new: Sequence[str], order: int) -> list[tuple[Count, Numbers]]:
    """What counts change by when a null path becomes another; what both begin with is left alone."""
    first = 0
    while first < min(len(old), len(new)) and old[first] == new[first]:
        first += 1
    return path_counts(kind, old, NULL, order, first, _TAKEN_BACK) + path_counts(kind, new, NULL, order, first)


def null_path_begins(last_conversion: int | None, latest_touch: int | None, lookback: int) -> int:
    """From when on touches are on the null path: after the last conversion, within the lookback of the latest touch."""
    after = EARLIEST if last_conversion is None else last_conversion + 1
    return after if latest_touch is None or latest_touch < after else max(after, latest_touch - lookback)


EARLIEST = -(2**62)
"""Before any touch."""
