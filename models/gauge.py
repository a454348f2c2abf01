"""An account's warmth as its lane keeps it: a new touch costs the same however long the journey.

The course up to the last instant but one is remembered, and every 16 touches a copy of it:
a touch in order goes on from there, a late one from the copy before it. The newest copy is
kept with the account, so that it need not be computed anew when it is loaded.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence

import msgspec

from models.course import History, Kept
from models.reports import pack
from models.times import END_OF_TIME
from models.warmth import Course, Scale, Touched, follow, outlook

CHECKPOINT = 16
MOST_CHECKPOINTS = 128

TouchesAfter = Callable[[int], list[Touched]]
"""The weighted touches later than an instant, oldest first."""


_unpack = msgspec.msgpack.Decoder(Kept).decode


class Gauge:
    """Reads an account's course, and remembers what of it no later touch can change."""

    __slots__ = ("_copies", "_course", "_followed", "_kept", "_outlook", "_scale", "_settled")

    def __init__(self, scale: Scale, kept: bytes | None = None) -> None:
        self._scale = scale
        self._copies = list(_at_rest(kept, scale))
        self._kept = kept
        self._begin_again()

    def _begin_again(self) -> None:
        self._settled = self._copies[-1].copy() if self._copies else Course()
        self._followed = 0
        self._course: Course | None = None
        self._outlook: tuple[int, History] | None = None

    def disturb(self, since: int) -> None:
        """Touches at or after this instant are others now."""
        while self._copies and self._copies[-1].at >= since:
            self._copies.pop()
            self._kept = None
        if self._settled.at >= since:
            self._begin_again()
        elif self._course is not None and self._course.at < since:
            self._settled = self._course
            self._count(1)
        self._course = self._outlook = None

    def course(self, touches: TouchesAfter) -> Course:
        """The course with every touch; not to be changed."""
        if self._course is None:
            later = touches(self._settled.at)
            last = bisect_left(later, later[-1].at, key=_at) if later else 0
            self._settle(later[:last])
            self._course = self._settled.copy()
            follow(self._course, later[last:], self._scale)
        return self._course

    def course_at(self, clock: int, touches: TouchesAfter) -> Course:
        """The course without touches that are still to come."""
        course = self.course(touches)
        if course.at <= clock:
            return course
        before = [self._settled, *reversed(self._copies), Course()]
        course = next(each for each in before if each.at <= clock).copy()
        follow(course, [each for each in touches(course.at) if each.at <= clock], self._scale)
        return course

    def next_touch(self, clock: int, touches: TouchesAfter) -> int | None:
        """When the next touch will be that is still to come."""
        return None if self.course(touches).at <= clock else touches(clock)[0].at

    def history(self, touches: TouchesAfter, until: int = END_OF_TIME) -> History:
        """Every transition up to an instant, those to come included."""
        if self._outlook is None or self._outlook[0] < until:
            self._outlook = until, outlook(self.course(touches), self._scale, until)
        return self._outlook[1]

    def _settle(self, touches: Sequence[Touched]) -> None:
        for some in _portions(touches):
            follow(self._settled, some, self._scale)
            self._count(len(some))

    def _count(self, touches: int) -> None:
        """So many touches have been settled: remember a copy now and then."""
        self._followed += touches
        if self._followed >= CHECKPOINT:
            self._remember()

    def _remember(self) -> None:
        self._followed = 0
        self._kept = None
        self._copies.append(self._settled.copy())
        if len(self._copies) > MOST_CHECKPOINTS:
            del self._copies[: MOST_CHECKPOINTS // 2 : 2]

    def kept(self) -> bytes | None:
        """The newest copy at rest; None: a short journey is computed anew."""
        if self._kept is None and self._copies:
            self._kept = _packed(self._copies[-1], self._scale)
        return self._kept


def _packed(course: Course, scale: Scale) -> bytes:
    low = course.low and (_bytes(course.low[0]), course.low[1])
    return pack(Kept(scale.mark, course.at, _bytes(course.total), course.active, course.state, low, course.history))


def _at_rest(value: bytes | None, scale: Scale) -> Iterator[Course]:
    kept = None if value is None else _unpack(value)
    if kept is not None and kept.mark == scale.mark:
        low = kept.low and (int.from_bytes(kept.low[0]), kept.low[1])
        yield Course(kept.at, int.from_bytes(kept.total), kept.active, kept.state, low, kept.history)


def _bytes(value: int) -> bytes:
    return value.to_bytes(value.bit_length() // 8 + 1)


def _portions(touches: Sequence[Touched]) -> Iterator[Sequence[Touched]]:
    """The touches in portions between checkpoints, none of which splits an instant."""
    begin = 0
    while begin < len(touches):
        last = touches[min(begin + CHECKPOINT, len(touches)) - 1]
        end = bisect_right(touches, last.at, lo=begin, key=_at)
        yield touches[begin:end]
        begin = end


def _at(touch: Touched) -> int:
    return touch.at
