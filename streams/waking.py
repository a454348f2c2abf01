"""Waking the accounts to which something has happened by itself, as time passed."""

import time
from collections.abc import Callable

from models import lanes
from models.lanes import Lane
from models.reports import Wake
from models.rules import Rules
from streams.backlog import Backlog
from streams.reading import Intake
from streams.tables import MOST_DUE, Tables

LOOK_SECONDS = 1.0
HOLD_SECONDS = 2.0
"""How long after the last backlog the lane looks whether time has passed for an account."""


class Waker:
    """Looks once a second whom of a partition's accounts to tell the time of day (µs), as `clock` says."""

    def __init__(self, lane: Lane, rules: Rules, backlog: Backlog, clock: Callable[[], int]) -> None:
        self._keeps_time = lane.keeps_time
        self._rules = rules
        self._backlog = backlog
        self._clock = clock
        self._looks_at: dict[int, float] = {}

    def hold(self, partition: int) -> None:
        """Look at nobody for a while: the partition is just taken over."""
        self._looks_at[partition] = time.perf_counter() + HOLD_SECONDS

    async def wakes(self, tables: Tables) -> Intake | None:
        """What wakes the accounts to which something has happened by itself; None: there are none.

        Nobody is looked for while a lane of this worker catches up: among its facts may be
        what prevented it.
        """
        now = time.perf_counter()
        is_behind = self._backlog.was_within(HOLD_SECONDS)
        if not self._keeps_time or is_behind or now < self._looks_at[tables.partition]:
            return None
        clock = self._clock()
        due = await tables.due(clock)
        if len(due) < MOST_DUE:
            self._looks_at[tables.partition] = now + LOOK_SECONDS
        items = [lanes.opened(Wake(f"account:{name}", clock), self._rules) for name in due]
        return Intake(items, [], [], {}, {}, 0, 0) if items else None
