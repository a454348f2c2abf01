"""The warmth of one account in its lane: what is told of it, where it ranks, when to look again.

A step brings a clock: how far the lane is by the record times of the facts it has heard
of, or the time of day once it has caught up. Transitions that were foreseen are told one by
one when the clock has passed them. Those that facts reveal are told only as the present
state, where it differs from the one told last.
"""

from collections.abc import Callable, Iterator
from math import log2
from typing import NamedTuple

import msgspec
from msgspec.structs import replace

from models.alerting import Draft, Scene, drafted, last_of, main_cause
from models.alerts import State
from models.course import BEGINNING, COLD, History, Transition
from models.gauge import Gauge, TouchesAfter
from models.reading import Brief, Reading, Told
from models.reports import Changes, Parts, pack
from models.times import END_OF_TIME, HOUR
from models.warmth import ACTIVE, FACTORS, Course, Scale, coming, factor, present, shown, state_at

LATE = HOUR
"""An alert whose transition is this much older than the fact that revealed it says so."""
COURSE, TOLD = "W:course", "W:told"
"""Parts of an account: its gauge at rest, and what was told last."""


class Moved(NamedTuple):
    """An account's history before and after a step, both up to its clock at least, and that clock.

    `was` may be empty where nothing foreseen has passed since the clock before. `recorded_at`
    is the Kafka record time of the latest fact behind the change; `grew` says that it did
    nothing but add touches.
    """

    was: History
    now: History
    clock: int
    recorded_at: int
    grew: bool


class News(NamedTuple):
    """A transition to tell; `is_due` unless it came to light too late for an alert."""

    transition: Transition
    is_due: bool
    is_late: bool


class Ranked(NamedTuple):
    """Where an account ranks now (None: nowhere), and in which state it ranked before.

    `rank` orders accounts as their scores do, whenever that is asked; `due` is when the lane
    looks at it again.
    """

    reading: Reading | None
    left: State
    rank: float = 0.0
    due: int | None = None


_told = msgspec.msgpack.Decoder(Told).decode


class Warming:
    """One account's gauge and what was told of it, kept in its parts."""

    __slots__ = ("_brief", "_gauge", "_is_kept", "_parts", "_scale", "told")

    def __init__(self, parts: Parts, scale: Scale) -> None:
        self._parts = parts
        self._scale = scale
        self._gauge = Gauge(scale, parts.get(COURSE))
        self._brief: tuple[Transition, Brief | None] | None = None
        self._is_kept = TOLD in parts
        self.told = _told(parts[TOLD]) if TOLD in parts else Told()

    def history(self, touches: TouchesAfter, until: int = END_OF_TIME) -> History:
        """Every transition up to an instant, those to come included."""
        return self._gauge.history(touches, until)

    def foreseen(self, touches: TouchesAfter, clock: int) -> History:
        """The history up to a clock, before a step; nothing where none of it can have passed since the last one."""
        is_still_due = self.told.due is not None and self.told.due > clock
        return () if is_still_due else self._gauge.history(touches, clock)

    def score_at(self, at: int, touches: TouchesAfter) -> float:
        """The score at an instant, by the touches known."""
        return score_of(self._gauge.course_at(at, touches), at, self._scale)

    def disturb(self, since: int) -> None:
        """Touches at or after this instant are others now."""
        self._gauge.disturb(since)

    def leave(self) -> Ranked:
        """The account was merged into another: it has no warmth of its own."""
        self._gauge.disturb(BEGINNING)
        return Ranked(None, self.told.state)

    def tell(self, change: Moved, scene: Callable[[], Scene]) -> list[Draft]:
        """The alerts of a step; whatever it comes to counts as told."""
        alerts = []
        told = self.told
        for news in news_of(change, self.told, self._scale):
            if news.is_due and not (seen := scene()).profile.quiet:
                alerts.append(drafted(seen, news.transition, told.alert, news.is_late))
                told = replace(told.after(news.transition), alert=alerts[-1].alert.alert_id)
        state = state_at(change.now, change.clock)
        is_same = change.grew and state == self.told.state
        self.told = replace(told, state=state, clock=change.clock, due=self.told.due if is_same else None)
        self._is_kept = bool(change.now) or told.alert is not None
        return alerts

    def ranked(self, left: State, change: Moved, scene: Callable[[], Scene], touches: TouchesAfter) -> Ranked:
        """Where the account ranks after a step, before which it ranked in the state `left`."""
        course = self._gauge.course_at(change.clock, touches)
        following = self._gauge.next_touch(change.clock, touches)
        if not course.total and following is None:
            return Ranked(None, left)
        reading = reading_of(course, change, self._brief_of(scene, present(change.now, change.clock)))
        due = _first(self._due(course, change.clock), following)
        self.told = replace(self.told, due=due)
        return Ranked(reading, left, rank_of(course, self._scale), due)

    def _due(self, course: Course, clock: int) -> int | None:
        """When something happens to the account by itself, or an instant before that.

        More touches only put off what is to come: then the instant need not be computed anew.
        """
        if self.told.due is not None and self.told.due > clock:
            return self.told.due
        following = coming(course, clock, self._scale)
        counted = lasts_of(course, clock)
        fewer = counted[0] + ACTIVE if len(counted) > 1 else None
        return _first(following.at if following else None, fewer)

    def _brief_of(self, scene: Callable[[], Scene], transition: Transition | None) -> Brief | None:
        if transition is None:
            return None
        if self._brief is None or self._brief[0] != transition:
            self._brief = transition, brief_of(scene(), transition)
        return self._brief[1]

    def changes(self) -> Changes:
        """The parts that are others now; they are kept thereby."""
        now = {COURSE: self._gauge.kept(), TOLD: pack(self.told) if self._is_kept else None}
        return {name: value for name, value in now.items() if self._parts.get(name) != value}


def news_of(change: Moved, told: Told, scale: Scale) -> Iterator[News]:
    """What a step has to tell: every foreseen transition that has passed, then the present state."""
    state = told.state
    for transition, is_foreseen in _candidates(change, told.clock):
        if transition.state != state:
            state = transition.state
            age = 0 if is_foreseen else change.recorded_at - transition.at
            is_new = (transition.at, transition.state) not in told.sent
            yield News(transition, is_due=is_new and age <= scale.late, is_late=age > LATE)


def _candidates(change: Moved, since: int) -> Iterator[tuple[Transition, bool]]:
    """Transitions that may have to be told, and whether they were foreseen."""
    foreseen = {(each.at, each.state) for each in change.was if since < each.at <= change.clock}
    now = present(change.now, change.clock)
    for each in change.now if foreseen else ():
        if (each.at, each.state) in foreseen:
            yield each, True
    if now is not None and (now.at, now.state) not in foreseen:
        yield now, False


def brief_of(scene: Scene, transition: Transition) -> Brief | None:
    """What a transition is put down to: the strongest touch that lifted the account, or its last."""
    found = main_cause(scene, transition) or next(last_of(scene, transition.at), None)
    if found is None:
        return None
    touch, person = found
    return Brief(touch.kind, touch.channel, touch.campaign, person)


def lasts_of(course: Course, clock: int) -> tuple[int, ...]:
    """The last touches of those active persons that make a difference, the earliest first."""
    lasts = [last for last in course.active.values() if last + ACTIVE > clock]
    return tuple(lasts[1 - len(FACTORS) :])


def reading_of(course: Course, change: Moved, brief: Brief | None) -> Reading:
    """The reading of a course (without touches still to come) at the clock of a step."""
    now = present(change.now, change.clock)
    return Reading(
        state=now.state if now else COLD,
        since=now.at if now else None,
        transition=now.name if now else None,
        rewarmed=now.rewarmed if now else False,
        at=course.at if course.total else change.clock,
        total=course.total.to_bytes(course.total.bit_length() // 8 + 1),
        lasts=lasts_of(course, change.clock),
        cause=brief,
    )


def _first(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def score_of(course: Course, at: int, scale: Scale) -> float:
    """The score at an instant, when nothing has happened since."""
    active = sum(last + ACTIVE > at for last in course.active.values())
    return shown(scale.decayed(course.total, max(at - course.at, 0)) * factor(active))


def next_of(reading: Reading, clock: int, scale: Scale) -> Transition | None:
    """What comes next when nothing else happens."""
    return coming(reading.course, clock, scale)


def rank_of(course: Course, scale: Scale) -> float:
    """log2(score) + time in half-lives, which does not change while the score falls."""
    score = course.total * factor(len(course.active))
    return log2(score) + course.at / scale.half_life if score else float(-(2**62))
