"""How many records a lane takes at once: fewer where each costs more, so that no step holds the worker up for long."""

LONGEST_STEP_SECONDS = 0.2
LEAST_RECORDS = 20


class Pace:
    """The most records of the next batch, by what those of the last one cost."""

    def __init__(self, most_records: int) -> None:
        self._most = self.records = most_records

    def note(self, records: int, seconds: float) -> None:
        """A step on so many records has taken so long."""
        if records:
            affordable = int(LONGEST_STEP_SECONDS / max(seconds / records, 1e-6))
            self.records = min(max(affordable, LEAST_RECORDS), self._most)
