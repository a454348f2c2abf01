"""An account's touches in order of time, and its null paths, kept with them touch by touch."""

from bisect import bisect_left, bisect_right, insort
from collections.abc import Iterator, Mapping

from models.counts import Count, Counted, Numbers
from models.paths import NULL, ONCE, transition
from models.touches import Touch

_Transitions = list[tuple[str, ...]]
"""The channels of a state, oldest first, and what followed."""


class _NullPath:
    """The null path of those kinds of conversions whose null paths begin together: with touch number `first`.

    `end` is its transition to the end as it was counted last; there is none without touches.
    """

    __slots__ = ("end", "first", "kinds", "since")

    def __init__(self, kinds: tuple[str, ...], since: int, first: int, end: _Transitions) -> None:
        self.kinds = kinds
        self.since = since
        self.first = first
        self.end = end


class Journey:
    """The account's touches in order of time, whole and by person.

    While people are merged, one touch may be there by two paths: the path decides their
    order, so that what is taken back is what was booked, whichever came first.

    `begins` says for each kind of conversion from when on touches are on the null path;
    it ends with the journey. What the counts of null paths change by is noted as touches
    come and go: only the transitions around a change are, however long the journey. How
    they end is noted when it is asked for.
    """

    __slots__ = ("_channels", "_noted", "_null_paths", "_order", "_places", "begins", "by_path", "touches")

    def __init__(self, order: int) -> None:
        self._order = order
        self._places: list[tuple[int, str, str, str, str]] = []
        self._channels: list[str] = []
        self._null_paths: list[_NullPath] = []
        self._noted: dict[tuple[str, ...], dict[tuple[str, ...], int]] = {}
        self.touches: list[Touch] = []
        self.by_path: dict[str, list[Touch]] = {}
        self.begins: dict[str, int] = {}

    def add(self, path: str, touch: Touch) -> None:
        """Take a touch in."""
        place = (*touch.order, path)
        number = bisect_left(self._places, place)
        self._note(touch.at, number, number + self._order, -1)
        self._places.insert(number, place)
        self._channels.insert(number, touch.channel)
        self.touches.insert(number, touch)
        self._shift(touch.at, 1)
        self._note(touch.at, number, number + self._order + 1, 1)
        own = self.by_path.setdefault(path, [])
        if own and own[-1].at >= touch.at:
            insort(own, touch, key=order_of)
        else:
            own.append(touch)

    def remove(self, path: str, touch: Touch) -> None:
        """Take a touch out."""
        number = bisect_left(self._places, (*touch.order, path))
        self._note(touch.at, number, number + self._order + 1, -1)
        del self._places[number], self._channels[number], self.touches[number]
        self._shift(touch.at, -1)
        self._note(touch.at, number, number + self._order, 1)
        touches = self.by_path[path]
        del touches[bisect_left(touches, touch.order, key=order_of)]
        if not touches:
            del self.by_path[path]

    def after(self, at: int) -> list[tuple[Touch, str]]:
        """The touches later than an instant with their paths, oldest first."""
        return self._part(self._first(at + 1), len(self.touches))

    def between(self, begin: int, end: int) -> list[tuple[Touch, str]]:
        """The touches from one instant up to another with their paths, oldest first."""
        return self._part(self._first(begin), self._first(end + 1))

    def before(self, at: int) -> Iterator[tuple[Touch, str]]:
        """The touches up to an instant with their paths, newest first."""
        last = bisect_right(self.touches, at, key=_at)
        for number in range(last - 1, -1, -1):  # one by one, also where this is compiled: few are asked for
            yield self.touches[number], self._places[number][-1]

    def _first(self, since: int) -> int:
        return bisect_left(self._places, (since,))

    def _part(self, first: int, end: int) -> list[tuple[Touch, str]]:
        return [(self.touches[number], self._places[number][-1]) for number in range(first, end)]

    # --- null paths -----------------------------------------------------------------

    def begin(self, begins: Mapping[str, int]) -> None:
        """Let null paths begin at other times: what they lose or gain is noted."""
        if begins == self.begins:
            return
        self.begins.update(begins)
        old, self._null_paths = self._null_paths, self._begun()
        for before in old:
            for after in self._null_paths:
                if kinds := tuple([kind for kind in before.kinds if kind in after.kinds]):
                    self._move(kinds, before.first, after.first)
                    self._end(kinds, before.end, after.end)

    def _begun(self) -> list[_NullPath]:
        together: dict[int, list[str]] = {}
        for kind, since in self.begins.items():
            together.setdefault(since, []).append(kind)
        return [self._null_path(tuple(kinds), since) for since, kinds in together.items()]

    def _null_path(self, kinds: tuple[str, ...], since: int) -> _NullPath:
        first = self._first(since)
        return _NullPath(kinds, since, first, self._end_of(first))

    def _move(self, kinds: tuple[str, ...], old: int, new: int) -> None:
        """Note what null paths lose or gain that begin with another touch."""
        if old != new:
            end = max(old, new) + self._order
            self._add(kinds, self._transitions(old, old, end), -1)
            self._add(kinds, self._transitions(new, new, end), 1)

    def changes(self) -> Counted:
        """What the counts of null paths changed by since they were last asked for."""
        for path in self._null_paths:
            before, path.end = path.end, self._end_of(path.first)
            self._end(path.kinds, before, path.end)
        noted, self._noted = self._noted, {}
        return [
            (transition(kind, *names), (number,))
            for kinds, numbers in noted.items()
            for names, number in numbers.items()
            if number
            for kind in kinds
        ]

    def null_counts(self) -> Iterator[tuple[Count, Numbers]]:
        """The counts of the null paths as they are."""
        for path in self._null_paths:
            for names in self._transitions(path.first, path.first, len(self.touches)) + self._end_of(path.first):
                yield from ((transition(kind, *names), ONCE) for kind in path.kinds)

    def _shift(self, at: int, number: int) -> None:
        """A touch more or less: the touches that null paths begin with have other numbers where it lies before them."""
        for path in self._null_paths:
            if at < path.since:
                path.first += number

    def _note(self, at: int, first: int, end: int, sign: int) -> None:
        """Note the transitions to the touches from number `first` to before `end`, because of a touch at an instant."""
        if first < len(self._channels):
            for path in self._null_paths:
                if at >= path.since:
                    self._add(path.kinds, self._transitions(path.first, first, end), sign)

    def _end(self, kinds: tuple[str, ...], before: _Transitions, after: _Transitions) -> None:
        """Note that null paths end otherwise."""
        if before != after:
            self._add(kinds, before, -1)
            self._add(kinds, after, 1)

    def _add(self, kinds: tuple[str, ...], transitions: _Transitions, sign: int) -> None:
        noted = self._noted.setdefault(kinds, {})
        for names in transitions:
            noted[names] = noted.get(names, 0) + sign

    def _transitions(self, begin: int, first: int, end: int) -> _Transitions:
        """Those to the touches from number `first` to before `end`, on a null path from the touch `begin` on."""
        channels, order = self._channels, self._order
        return [
            tuple(channels[max(number - order, begin) : number + 1]) for number in range(first, min(end, len(channels)))
        ]

    def _end_of(self, begin: int) -> _Transitions:
        """The transition to the end of a null path from the touch `begin` on; none when there is no such touch."""
        last = self._channels[max(len(self._channels) - self._order, begin) :]
        return [(*last, NULL)] if last else []


def _at(touch: Touch) -> int:
    return touch.at


def order_of(touch: Touch) -> tuple[int, str, str, str]:
    """Sorts touches of a journey, oldest first."""
    return touch.order
