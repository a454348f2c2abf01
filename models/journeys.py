"""An account's touches in order of time, and its null paths, kept with them touch by touch."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import takewhile

from models.counts import Count, Counted, Numbers
from models.paths import NULL, ONCE, transition
from models.touches import Touch


class Journey:
    """The account's touches in order of time, whole and by person.

    While people are merged, one touch may be there by two paths: the path decides their
    order, so that what is taken back is what was booked, whichever came first.

    `begins` says for each kind of conversion from when on touches are on the null path;
    it ends with the journey. What the counts of null paths change by is noted as touches
    come and go: only the transitions around a change are, however long the journey.
    """

    __slots__ = ("_changes", "_kinds", "_order", "_places", "begins", "by_path", "touches")

    def __init__(self, order: int) -> None:
        self._order = order
        self._places: list[tuple[int, str, str, str, str]] = []
        self._changes: dict[Count, int] = {}
        self._kinds: dict[int, list[str]] = {}
        self.touches: list[Touch] = []
        self.by_path: dict[str, list[Touch]] = {}
        self.begins: dict[str, int] = {}

    def add(self, path: str, touch: Touch) -> None:
        """Take a touch in."""
        place = (*touch.order, path)
        number = bisect_left(self._places, place)
        self._note(touch.at, number, 0, -1)
        self._places.insert(number, place)
        self.touches.insert(number, touch)
        self._note(touch.at, number, 1, 1)
        insort(self.by_path.setdefault(path, []), touch, key=order_of)

    def remove(self, path: str, touch: Touch) -> None:
        """Take a touch out."""
        number = bisect_left(self._places, (*touch.order, path))
        self._note(touch.at, number, 1, -1)
        del self._places[number], self.touches[number]
        self._note(touch.at, number, 0, 1)
        touches = self.by_path[path]
        del touches[bisect_left(touches, touch.order, key=order_of)]
        if not touches:
            del self.by_path[path]

    def after(self, at: int) -> Iterator[tuple[Touch, str]]:
        """The touches later than an instant with their paths, oldest first."""
        return self._from(bisect_right(self.touches, at, key=_at))

    def between(self, begin: int, end: int) -> Iterator[tuple[Touch, str]]:
        """The touches from one instant up to another with their paths, oldest first."""
        return takewhile(lambda each: each[0].at <= end, self._from(self._first(begin)))

    def before(self, at: int) -> Iterator[tuple[Touch, str]]:
        """The touches up to an instant with their paths, newest first."""
        last = bisect_right(self.touches, at, key=_at)
        return ((self.touches[number], self._places[number][-1]) for number in range(last - 1, -1, -1))

    def _from(self, first: int) -> Iterator[tuple[Touch, str]]:
        return ((self.touches[number], self._places[number][-1]) for number in range(first, len(self.touches)))

    # --- null paths -----------------------------------------------------------------

    def begin(self, begins: Mapping[str, int]) -> None:
        """Let null paths begin at other times: what they lose or gain is noted."""
        if begins == self.begins:
            return
        moves: dict[tuple[int, int], list[str]] = {}
        for kind, to in begins.items():
            if kind in self.begins:
                moves.setdefault((self.begins[kind], to), []).append(kind)
            self.begins[kind] = to
        for (since, to), kinds in moves.items():
            self._move(kinds, self._first(since), self._first(to))
        self._kinds = {}
        for kind, since in self.begins.items():
            self._kinds.setdefault(since, []).append(kind)

    def _move(self, kinds: Iterable[str], old: int, new: int) -> None:
        """Note what null paths lose or gain that begin with another touch."""
        last = max(old, new) + self._order - 1
        if old != new:
            self._add(kinds, old, old, last, -1)
            self._add(kinds, new, new, last, 1)

    def changes(self) -> Counted:
        """What the counts of null paths changed by since they were last asked for."""
        changes, self._changes = self._changes, {}
        return [(count, (number,)) for count, number in changes.items() if number]

    def null_counts(self) -> Iterator[tuple[Count, Numbers]]:
        """The counts of the null paths as they are."""
        for kind, since in self.begins.items():
            first = self._first(since)
            yield from ((transition(kind, *names), ONCE) for names in self._names(first, first, len(self.touches)))

    def _first(self, since: int) -> int:
        return bisect_left(self._places, (since,))

    def _note(self, at: int, number: int, itself: int, sign: int) -> None:
        """Note the transitions to the touch at `number` (if `itself` is 1) and to those after it that remember it."""
        for since, kinds in self._kinds.items():
            if at >= since:
                self._add(kinds, self._first(since), number, number + self._order - 1 + itself, sign)

    def _add(self, kinds: Iterable[str], begin: int, first: int, last: int, sign: int) -> None:
        for names in self._names(begin, first, last):
            for kind in kinds:
                count = transition(kind, *names)
                self._changes[count] = self._changes.get(count, 0) + sign

    def _names(self, begin: int, first: int, last: int) -> Iterator[list[str]]:
        """A null path's transitions to the touches from `first` to `last`, the one after the last being its end."""
        touches, order = self.touches, self._order
        for number in range(first, min(last, len(touches) - 1) + 1):
            yield _channels(touches[max(number - order, begin) : number + 1])
        if last >= len(touches) > begin:
            yield [*_channels(touches[max(len(touches) - order, begin) :]), NULL]


def _at(touch: Touch) -> int:
    return touch.at


def _channels(touches: Sequence[Touch]) -> list[str]:
    return [touch.channel for touch in touches]


def order_of(touch: Touch) -> tuple[int, str, str, str]:
    """Sorts touches of a journey, oldest first."""
    return touch.order
