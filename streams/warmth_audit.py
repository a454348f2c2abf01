"""Are accounts as warm as the facts say: histories as the lane keeps them, and the readings that reports show."""

from collections.abc import Iterator, Mapping
from itertools import pairwise
from typing import NamedTuple

from models.accounts import Account
from models.course import History
from models.reading import Reading
from models.reports import Parts
from models.rules import Rules
from models.times import to_text
from models.warming import next_of
from models.warmth import Scale


class Unlike(NamedTuple):
    """An account's warmth in words: as it is kept, and as the batch has it."""

    account: str
    live: str
    batch: str


def live_histories(accounts: Mapping[str, Parts], rules: Rules) -> dict[str, History]:
    """When each account that counts for itself warmed and cooled, as its stored state says; only those that did."""
    built = (Account(name.partition(":")[2], parts, rules) for name, parts in accounts.items())
    return {each.name: each.engagement.history for each in built if not each.parent and each.engagement.history}


def warmth_differences(
    live: Mapping[str, History], readings: Mapping[str, Reading], batch: Mapping[str, History], scale: Scale
) -> Iterator[Unlike]:
    """The accounts whose history is another, or whose reading is none that its history ever had."""
    for name in sorted({*live, *batch, *readings}):
        expected = batch.get(name, ())
        if live.get(name, ()) != expected:
            yield Unlike(name, _words(live.get(name, ())), _words(expected))
        elif not _is_of(readings.get(name), expected, scale):
            yield Unlike(name, f"the reading {readings.get(name)}", _words(expected))


def _is_of(reading: Reading | None, history: History, scale: Scale) -> bool:
    """Does the reading stand between two neighbours of the history? Where there is no history there may be none."""
    if reading is None:
        return not history
    following = next_of(reading, reading.at, scale)
    states = [(None, "cold"), *((each.at, each.state) for each in history), (None, None)]
    neighbours = [(before, after[0]) for before, after in pairwise(states)]
    return ((reading.since, reading.state), following.at if following else None) in neighbours


def _words(history: History) -> str:
    return ", ".join(f"{each.name} at {to_text(each.at)}" for each in history) or "never warm"
