"""The states that an account's score passes through, and its course (models.warmth) at rest."""

from typing import Final

import msgspec

from models.alerts import Name, State
from models.times import END_OF_TIME

COLD: Final = "cold"
WARMING: Final = "warming"
WARM: Final = "warm"
COOLING: Final = "cooling"
STATES: tuple[State, ...] = (WARM, WARMING, COOLING, COLD)
NAMES: dict[State, Name] = {WARMING: "warming", WARM: "warmed", COOLING: "cooling", COLD: "cooled"}
"""A transition's name by the state it leads to."""
BEGINNING = -END_OF_TIME
"""Earlier than any touch."""


class Transition(msgspec.Struct, frozen=True, array_like=True):
    """From `at` on the account is in another state.

    `before` and `after` are the scores just before and at that instant; `low`
    the least since the transition before, just before the touch at `low_at` (None: no
    touch since). `active` persons count then; `inactive` is the one who no longer does,
    where that made the difference.
    """

    at: int
    was: State
    state: State
    rewarmed: bool
    before: float
    after: float
    low_at: int | None
    low: float | None
    active: int
    inactive: str | None = None

    @property
    def name(self) -> Name:
        """warming, warmed, cooling or cooled."""
        return NAMES[self.state]

    @property
    def is_upward(self) -> bool:
        """Did touches lift the score."""
        return self.state in (WARMING, WARM)


History = tuple[Transition, ...]


class Kept(msgspec.Struct, array_like=True):
    """A course at rest; integers beyond 64 bits as bytes. `mark` tells under which settings."""

    mark: str
    at: int
    total: bytes
    active: dict[str, int]
    state: State
    low: tuple[bytes, int] | None
    history: tuple[Transition, ...]
