"""What the lanes of a worker have yet to read, and how long others may wait for it.

A batch has its price whatever its size. So while a lane catches up, those that read what it
writes let messages gather, and take fewer and larger batches: the totals are as old as the
backlog anyway. They wait for twice as long as the backlog has lasted, so that their batches
triple while it lasts, but not beyond its end, and LONGEST_WAIT_SECONDS at most.
"""

import time
from collections.abc import Collection

BACKLOG_RECORDS, BACKLOG_ENVELOPES = 500, 50
"""Fewer than these, and fewer envelopes of messages among them, are nothing that others would wait for."""
LONGEST_WAIT_SECONDS = 10.0


class Backlog:
    """The lane partitions of a worker that have much yet to do, and since when there are any."""

    def __init__(self) -> None:
        self._places: dict[str, set[int]] = {}
        self._began_at = self._ended_at = float("-inf")

    def note(self, lane: str, partition: int, records: int, envelopes: int) -> None:
        """The lane's partition has so many records yet to read or to finish, so many envelopes among them."""
        if records < BACKLOG_RECORDS and envelopes < BACKLOG_ENVELOPES:
            self.forget(lane, partition)
            return
        if not self._is_any:
            self._began_at = time.perf_counter()
        self._places.setdefault(lane, set()).add(partition)

    def forget(self, lane: str, partition: int) -> None:
        """The lane's partition has caught up, or is others' now."""
        was_any = self._is_any
        self._places.get(lane, set()).discard(partition)
        if was_any and not self._is_any:
            self._ended_at = time.perf_counter()

    @property
    def _is_any(self) -> bool:
        return any(self._places.values())

    def is_in(self, lanes: Collection[str]) -> bool:
        """Is any of these lanes behind?"""
        return any(self._places.get(lane) for lane in lanes)

    def was_within(self, seconds: float) -> bool:
        """Is any lane behind, or was it until so many seconds ago?"""
        return self._is_any or time.perf_counter() - self._ended_at < seconds

    @property
    def patience_seconds(self) -> float:
        """How long a lane may wait for others from now on."""
        lasted = time.perf_counter() - self._began_at if self._is_any else 0.0
        return min(2 * lasted, LONGEST_WAIT_SECONDS)
