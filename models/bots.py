"""Which messages are a bot's: verdicts said of them, the list of user agents, storms of hits.

A bot's hits, form fills and identifications are as if never sent. They are kept aside all
the same, since a later verdict may restore them.
"""

from collections.abc import Iterable, Sequence

import msgspec

from models.facts import Verdict
from models.hits import Hit
from models.reports import Changes, pack
from models.times import MINUTE

STORM_HITS = 300
STORM_SPAN = MINUTE
"""More than so many hits of a visitor within less than this time are a bot's."""

ASIDE = "b"
"""Kind of the parts in which a visitor's bot hits are kept."""
_PERIOD = 10 * MINUTE
_unpack = msgspec.msgpack.Decoder(list[Hit]).decode


def said_of(verdicts: Iterable[Verdict], at: int, message_id: str) -> bool | None:
    """What the latest verdict on a message says, whatever order they come in; None: nothing is said."""
    covering = [verdict for verdict in verdicts if verdict.covers(at, message_id)]
    return max(covering, key=lambda each: (each.at, each.id, each.key)).bot if covering else None


def is_storm(times: Sequence[int]) -> bool:
    """Are there more than `STORM_HITS` of these instants, sorted, within less than `STORM_SPAN`?"""
    pairs = zip(times, times[STORM_HITS:], strict=False)
    return any(later - earlier < STORM_SPAN for earlier, later in pairs)


class Aside:
    """A visitor's hits that are left out; a part holds those of ten minutes."""

    __slots__ = ("_changed", "_periods", "hits")

    def __init__(self) -> None:
        self.hits: dict[str, Hit] = {}
        self._periods: dict[int, dict[str, Hit]] = {}
        self._changed: dict[int, dict[str, Hit]] = {}

    def load(self, value: bytes) -> None:
        """Take the hits of a part at rest."""
        for hit in _unpack(value):
            self.add(hit)
        self._changed.clear()

    def add(self, hit: Hit) -> None:
        """Leave a hit out."""
        number = hit.at // _PERIOD
        period = self._changed[number] = self._periods.setdefault(number, {})
        period[hit.id] = self.hits[hit.id] = hit

    def remove(self, hit: Hit) -> None:
        """Leave the hit out no more."""
        number = hit.at // _PERIOD
        period = self._changed[number] = self._periods[number]
        del self.hits[hit.id], period[hit.id]

    def times_near(self, at: int) -> list[int]:
        """When the hits around an instant were, at least those a storm's span before or after it."""
        periods = range((at - STORM_SPAN) // _PERIOD, (at + STORM_SPAN) // _PERIOD + 1)
        return [hit.at for period in periods for hit in self._periods.get(period, {}).values()]

    def changes(self) -> Changes:
        """The parts that changed since this was last asked."""
        changes: Changes = {}
        for number, period in self._changed.items():
            hits = sorted(period.values())
            changes[f"{ASIDE}:{number}"] = pack(hits) if hits else None
        self._changed.clear()
        return changes
