"""The warmth of one account in its lane: what is told of it, where it ranks, when to look again.

A step brings a clock: how far the lane is by the record times of the facts it has heard
of, or the time of day once it has caught up. Transitions that were foreseen are told one by
one when the clock has passed them. Those that facts reveal are told only as the present
state, where it differs from the one told last.
"""

from collections.abc import Iterator
from math import log2
from typing import NamedTuple

import msgspec

from models.alerting import Scene, alert_of, causes_of, last_of
from models.alerts import Alert, Name, State
from models.gauge import Gauge, TouchesAfter
from models.reports import Changes, Parts, pack
from models.times import HOUR
from models.warmth import (
    ACTIVE,
    BEGINNING,
    COLD,
    FACTORS,
    Course,
    History,
    Scale,
    Transition,
    ahead,
    factor,
    present,
    shown,
    state_at,
)

LATE = HOUR
"""An alert whose transition is this much older than the fact that revealed it says so."""
COURSE, TOLD = "W:course", "W:told"
"""Parts of an account: its gauge at rest, and what was told last."""


class Told(msgspec.Struct, frozen=True, array_like=True):
    """The state told last, the lane's clock then, and the alert sent last."""

    state: State = COLD
    clock: int = 0
    alert: str | None = None


class Moved(NamedTuple):
    """An account's history before and after a step, and its clock.

    `recorded_at` is the Kafka record time of the latest fact behind the change.
    """

    was: History
    now: History
    clock: int
    recorded_at: int


class News(NamedTuple):
    """A transition to tell; `is_due` unless it came to light too late for an alert."""

    transition: Transition
    is_due: bool
    is_late: bool


class Brief(NamedTuple):
    """The touch that an account's present state is put down to, in short."""

    kind: str
    channel: str
    campaign: str | None
    person: str


class Reading(msgspec.Struct, frozen=True, array_like=True):
    """An account's warmth at a glance: enough to say its score at any instant until something happens.

    `total` is the sum of its touches' weights as they were worth at `at`, `until` when the
    last active persons that count cease to; `due` when the lane looks again.
    """

    state: State
    since: int | None
    transition: Name | None
    rewarmed: bool
    at: int
    total: float
    until: tuple[int, ...]
    next_at: int | None
    next_state: State | None
    due: int | None
    cause: Brief | None


class Ranked(NamedTuple):
    """Where an account ranks now (None: nowhere), and in which state it ranked before.

    `rank` orders accounts as their scores do, whenever that is asked.
    """

    reading: Reading | None
    left: State
    rank: float = 0.0


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

    def history(self, touches: TouchesAfter) -> History:
        """Every transition, those to come included."""
        return self._gauge.history(touches)

    def score_at(self, at: int, touches: TouchesAfter) -> float:
        """The score at an instant, by the touches known."""
        course = self._gauge.course_at(at, touches)
        active = sum(last + ACTIVE > at for last in course.active.values())
        return shown(self._scale.decayed(course.total, max(at - course.at, 0)) * factor(active))

    def disturb(self, since: int) -> None:
        """Touches at or after this instant are others now."""
        self._gauge.disturb(since)

    def leave(self) -> Ranked:
        """The account was merged into another: it has no warmth of its own."""
        self._gauge.disturb(BEGINNING)
        return Ranked(None, self.told.state)

    def tell(self, change: Moved, scene: Scene) -> list[Alert]:
        """The alerts of a step; whatever it comes to counts as told."""
        alerts = []
        told = msgspec.structs.replace(self.told, clock=change.clock)
        for news in news_of(change, self.told, self._scale):
            sent = told.alert
            if news.is_due and not scene.profile.quiet:
                alerts.append(alert_of(scene, news.transition, told.alert, news.is_late))
                sent = alerts[-1].alert_id
            told = Told(news.transition.state, change.clock, sent)
        self.told = Told(state_at(change.now, change.clock), change.clock, told.alert)
        self._is_kept = bool(change.now) or told.alert is not None
        return alerts

    def ranked(self, left: State, change: Moved, scene: Scene, touches: TouchesAfter) -> Ranked:
        """Where the account ranks at the clock of a step, after it ranked in the state `left`."""
        reading = self._reading(change, scene, touches)
        return Ranked(reading, left, rank_of(reading, self._scale) if reading else 0.0)

    def _reading(self, change: Moved, scene: Scene, touches: TouchesAfter) -> Reading | None:
        """The account's reading; None: nothing gives it a score, nor will."""
        course = self._gauge.course_at(change.clock, touches)
        following = next(iter(touches(change.clock)), None)
        if not course.total and following is None:
            return None
        reading = reading_of(course, change, self._brief_of(scene, present(change.now, change.clock)))
        return msgspec.structs.replace(reading, due=_first(reading.due, following.at if following else None))

    def _brief_of(self, scene: Scene, transition: Transition | None) -> Brief | None:
        if transition is None:
            return None
        if self._brief is None or self._brief[0] != transition:
            self._brief = transition, brief_of(scene, transition)
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
            yield News(transition, is_due=age <= scale.late, is_late=age > LATE)


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
    lifted = causes_of(scene, transition)
    found = lifted[0][0] if lifted else next(last_of(scene, transition.at), None)
    if found is None:
        return None
    touch, person = found
    return Brief(touch.kind, touch.channel, touch.campaign, person)


def reading_of(course: Course, change: Moved, brief: Brief | None) -> Reading:
    """The reading of a course (without touches still to come) at the clock of a step."""
    now, following = present(change.now, change.clock), next(ahead(change.now, change.clock), None)
    ends = [last + ACTIVE for last in course.active.values() if last + ACTIVE > change.clock]
    until = tuple(ends[1 - len(FACTORS) :])
    fewer = until[0] if len(until) > 1 else None
    return Reading(
        state=now.state if now else COLD,
        since=now.at if now else None,
        transition=now.name if now else None,
        rewarmed=now.rewarmed if now else False,
        at=course.at if course.total else change.clock,
        total=shown(course.total * 64),
        until=until,
        next_at=following.at if following else None,
        next_state=following.state if following else None,
        due=_first(fewer, following.at if following else None),
        cause=brief,
    )


def _first(*instants: int | None) -> int | None:
    return min((at for at in instants if at is not None), default=None)


def score_at(reading: Reading, at: int, scale: Scale) -> float:
    """The score at an instant, when nothing has happened since the reading."""
    active = sum(end > at for end in reading.until)
    left: float = 2 ** (-max(at - reading.at, 0) / scale.half_life)
    return reading.total * left * factor(active) / 64


def rank_of(reading: Reading, scale: Scale) -> float:
    """log2(score) + time in half-lives, which does not change while the score falls."""
    score = max(reading.total, 1e-6) * factor(len(reading.until)) / 64
    return log2(score) + reading.at / scale.half_life
