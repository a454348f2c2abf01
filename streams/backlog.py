"""What the lanes of a worker have yet to read, and how long others may wait for it.

A batch has its price whatever its size. So while a lane catches up, those that read what it
writes let messages gather, and take fewer and larger batches: the totals are as old as the
backlog anyway. They wait for its end where that is near; else for twice as long as the backlog
has lasted, so that their batches triple while it lasts, and LONGEST_WAIT_SECONDS at most.
"""

import time
from collections.abc import Sequence

import msgspec

BACKLOG_RECORDS, BACKLOG_ENVELOPES = 500, 50
"""Fewer than these, and fewer envelopes of messages among them, are nothing that others would wait for."""
LONGEST_WAIT_SECONDS = 10.0
NEAR_SECONDS = 20.0
"""An end of the backlog that is no further off is waited for, by whoever has not waited so long yet."""
UNKNOWN_SECONDS = 5.0
"""How long a lane that has finished nothing yet may still turn out to be quick."""


class Undone(msgspec.Struct):
    """The records that a lane's partition has yet to read or to finish: now, and since when it only loses some."""

    most: int
    most_at: float
    now: int


class Backlog:
    """The lane partitions of a worker that have much yet to do, and since when there are any."""

    def __init__(self) -> None:
        self._places: dict[str, dict[int, Undone]] = {}
        self._began_at = self._ended_at = float("-inf")

    def note(self, lane: str, partition: int, records: int, envelopes: int) -> None:
        """The lane's partition has so many records yet to read or to finish, so many envelopes among them."""
        if records < BACKLOG_RECORDS and envelopes < BACKLOG_ENVELOPES:
            self.forget(lane, partition)
            return
        now = time.perf_counter()
        if not self._is_any:
            self._began_at = now
        places = self._places.setdefault(lane, {})
        known = places.get(partition)
        if known is None or records >= known.most:
            places[partition] = Undone(records, now, records)
        else:
            known.now = records

    def expect(self, lane: str, partition: int) -> None:
        """The lane's partition waits for others itself, and will find what they leave it."""
        places = self._places.setdefault(lane, {})
        known = places[partition].now if partition in places else 1
        places[partition] = Undone(known, time.perf_counter(), known)

    def forget(self, lane: str, partition: int) -> None:
        """The lane's partition has caught up, or is others' now."""
        was_any = self._is_any
        self._places.get(lane, {}).pop(partition, None)
        if was_any and not self._is_any:
            self._ended_at = time.perf_counter()

    @property
    def _is_any(self) -> bool:
        return any(self._places.values())

    def was_within(self, seconds: float) -> bool:
        """Is any lane behind, or was it until so many seconds ago?"""
        return self._is_any or time.perf_counter() - self._ended_at < seconds

    def is_worth(self, waited: float, lanes: Sequence[str]) -> bool:
        """Should somebody who has waited so many seconds for these lanes, the first of them first, go on waiting?"""
        behind = next((places for lane in lanes if (places := self._places.get(lane))), None)
        if behind is None:
            return False
        lasted = time.perf_counter() - self._began_at
        patience = min(2 * (lasted - waited), LONGEST_WAIT_SECONDS)
        return waited < patience or waited + _foreseen(list(behind.values())) <= NEAR_SECONDS


def _foreseen(places: Sequence[Undone]) -> float:
    """In how many seconds a lane will have caught up, when it goes on as it did."""
    done = sum([place.most - place.now for place in places])
    took = time.perf_counter() - min([place.most_at for place in places])
    if not done:
        return 0.0 if took < UNKNOWN_SECONDS else float("inf")
    return sum([place.now for place in places]) * took / done
