"""Is an account warming or cooling, since when to the microsecond, and how far was it down before?

    score(t) = F(t) · Σ weight · 2^(−(t − time)/half-life)   over its touches with time ≤ t
    F(t)     = min(2, 1.25^(k−1)), k persons with a weighted touch in (t − 30 days, t]

Between two touches a score only falls, and so does F when a person's last touch is 30 days
old: the instant of every transition follows from the touches alone, those still to come
included. The history is a pure function of the touches; who asks brings the clock.

Scores are fixed-point integers of 50 digits and more; the first microsecond below a
threshold is found by comparing, never by rounding.
"""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from hashlib import blake2b
from math import log2
from typing import Final, NamedTuple, final

import msgspec

from models.alerts import State
from models.course import BEGINNING, COLD, COOLING, WARM, WARMING, History, Transition
from models.decay import BITS, decay_tables, power
from models.ids import snake
from models.settings import Warmth
from models.times import DAY, END_OF_TIME, HOUR

ACTIVE: Final = 30 * DAY
"""How long a person counts as active after a touch of theirs."""
HOT_PAGE = "hot_page"
WEIGHTS: dict[str, float] = {
    "web_session": 1,
    HOT_PAGE: 3,
    "email_clicked": 2,
    "content_download": 4,
    "chat": 6,
    "webinar": 6,
    "event": 6,
    "form_fill": 8,
    "trial_started": 8,
    "product_milestone": 8,
    "email_replied": 6,
    "call": 6,
    "meeting": 10,
    "demo": 12,
    "quote_sent": 10,
}
"""Weights by kind of touch; any other weighs nothing."""
_ESTIMATE_ERROR: Final = 1e-12
"""More than the difference of two logarithms in floating point may be off."""
FACTORS: Final[tuple[int, ...]] = (64, 64, 80, 100, 125, 128)
"""F for k persons in 64ths; the last for all that are more."""
_UNIT: Final = (10**6 << BITS) * 64
"""A score of 1: weights have six decimals, factors are 64ths."""


class Touched(NamedTuple):
    """A touch as a score sees it; its weight as `Scale.weight` says."""

    at: int
    person: str
    weight: int


@final
class Course:
    """How an account's score has gone, up to the touches at `at`.

    `total` is Σ weight · 2^(−age/half-life) at that instant, `active` the persons and
    their last touches, the one active longest ago first; `low` the least score since the
    last transition and when.
    """

    __slots__ = ("active", "at", "history", "low", "state", "total")

    def __init__(
        self,
        at: int = BEGINNING,
        total: int = 0,
        active: dict[str, int] | None = None,
        state: State = COLD,
        low: tuple[int, int] | None = None,
        history: History = (),
    ) -> None:
        self.at = at
        self.total = total
        self.active = {} if active is None else active
        self.state = state
        self.low = low
        self.history = history

    def copy(self) -> "Course":
        """One that can go on by itself."""
        return Course(self.at, self.total, dict(self.active), self.state, self.low, self.history)


@final
class Scale:
    """The settings ready to weigh with; `mark` tells scores made under other ones apart."""

    def __init__(self, settings: Warmth) -> None:
        self.settings = settings
        self.half_life = round(settings.half_life_days * DAY)
        self.late = round(settings.alert_after_hours * HOUR)
        self.warm, self.warming, self.cooling, self.cold = (
            fixed(each) for each in (settings.warm, settings.warming, settings.cooling, settings.cold)
        )
        own = {snake(kind): weight for kind, weight in settings.weights.items()}
        self._weights = {kind: fixed(weight) // 64 for kind, weight in {**WEIGHTS, **own}.items()}
        self._tables = decay_tables(self.half_life)
        made_by = WEIGHTS, FACTORS, msgspec.structs.astuple(settings)
        self.mark = blake2b(repr(made_by).encode(), digest_size=6).hexdigest()

    def weight(self, kind: str) -> int:
        """What a touch of the kind adds at its own instant, under a factor of 1/64."""
        return self._weights.get(kind, 0)

    def decayed(self, value: int, age: int) -> int:
        """What is left of a value after `age` microseconds."""
        halvings, left = age // self.half_life, age % self.half_life
        return value * power(left, self._tables) >> (BITS + halvings) if left else value >> halvings

    def threshold(self, state: State) -> int:
        """Below which score the state is left downward; nothing is below it in the cold."""
        return 0 if state == COLD else self.cooling if state == WARM else self.cold

    def crossed(self, state: State) -> float:
        """The threshold that leads to a state, as the settings say it."""
        return float(getattr(self.settings, state))


def fixed(value: float) -> int:
    """A number of the settings as a score."""
    return round(Decimal(str(value)) * 10**6) * (_UNIT // 10**6)


def shown(score: int) -> float:
    """A score as a number of six decimals."""
    return (score * 2 * 10**6 // _UNIT + 1) // 2 / 10**6


def factor(active: int) -> int:
    """F for so many active persons, in 64ths."""
    return FACTORS[min(active, len(FACTORS) - 1)]


def history_of(touches: Iterable[Touched], scale: Scale) -> History:
    """Every transition of touches (oldest first), those after the last one included."""
    course = Course()
    follow(course, [touch for touch in touches if touch.weight], scale)
    return outlook(course, scale)


def follow(course: Course, touches: Sequence[Touched], scale: Scale) -> None:
    """Go on with later touches that weigh something, oldest first: all those of one instant, or none."""
    begin, last = 0, len(touches)
    while begin < last:
        at, end = touches[begin].at, begin + 1
        while end < last and touches[end].at == at:
            end += 1
        _meet(course, at, touches[begin:end], scale)
        begin = end


def outlook(course: Course, scale: Scale, until: int = END_OF_TIME) -> History:
    """The history up to an instant, with what comes of itself when nothing more happens."""
    if course.state == COLD or _stays(course, until + 1, scale):
        return course.history
    later = course.copy()
    _pass_time(later, until + 1, scale)
    return later.history


def coming(course: Course, clock: int, scale: Scale) -> Transition | None:
    """What comes next after an instant, which is not before the course's last touch, when nothing else happens."""
    later = course.copy()
    _pass_time(later, clock + 1, scale)
    passed = len(later.history)
    while len(later.history) == passed and _pass(later, END_OF_TIME, scale):
        pass
    return later.history[passed] if len(later.history) > passed else None


def _stays(course: Course, end: int, scale: Scale) -> bool:
    """Does nothing happen by itself before an instant?"""
    left = scale.decayed(course.total, max(end - course.at, 0)) * factor(len(course.active))
    return _ceases(course) >= end and left >= scale.threshold(course.state)


def _pass_time(course: Course, end: int, scale: Scale) -> None:
    """Let the score fall until just before an instant."""
    while _pass(course, end, scale):
        pass
    if course.state == COLD:  # in which nothing else happens by itself
        _cease(course, end - 1)


def _pass(course: Course, end: int, scale: Scale) -> bool:
    """What happens next by itself before an instant: a threshold, or somebody counts no longer; False: nothing."""
    if course.state == COLD:
        return False
    ceases, before, threshold = _ceases(course), len(course.active), scale.threshold(course.state)
    within = min(ceases, end) - course.at
    crossing = first_below(course.total * factor(before), threshold, scale, within) if threshold else None
    if crossing is not None:
        age, left, score = crossing
        _turn(course, _next_state(course.state, score, scale), _Moment(course.at + age, left, score))
    elif ceases < end:
        gone = _cease(course, ceases)
        left = scale.decayed(course.total, ceases - 1 - course.at) * factor(before)
        score = scale.decayed(course.total, ceases - course.at) * factor(len(course.active))
        is_less = factor(len(course.active)) != factor(before)
        state = _next_state(course.state, score, scale)
        if state != course.state:
            _turn(course, state, _Moment(ceases, left, score, gone if is_less else None))
    return crossing is not None or ceases < end


def first_below(score: int, threshold: int, scale: Scale, within: int = END_OF_TIME) -> tuple[int, int, int] | None:
    """When a falling score is first below the threshold: after how many microseconds, from which score, to which.

    None: not within so many microseconds.
    """
    estimate = scale.half_life * (log2(score) - log2(threshold))
    if estimate > within + 1 + scale.half_life * _ESTIMATE_ERROR:
        return None
    age = max(int(estimate), 0) + 1
    left, below = scale.decayed(score, age - 1), scale.decayed(score, age)
    while left < threshold and age > 1:
        age, left, below = age - 1, scale.decayed(score, age - 2), left
    while below >= threshold:
        age, left, below = age + 1, below, scale.decayed(score, age + 1)
    return (age, left, below) if age < within else None


def _ceases(course: Course) -> int:
    """When the next of the active persons counts no longer; nothing is as late when there is none."""
    return next(iter(course.active.values()), END_OF_TIME) + ACTIVE


def _cease(course: Course, at: int) -> str | None:
    """The persons who count no longer at an instant; one of them."""
    gone = []
    for person, last in course.active.items():
        if last + ACTIVE > at:
            break
        gone.append(person)
    for person in gone:
        del course.active[person]
    return min(gone, default=None)


def _meet(course: Course, at: int, touches: Sequence[Touched], scale: Scale) -> None:
    """Let time pass until just before an instant, and take in its touches."""
    total = scale.decayed(course.total, at - course.at)
    left = total * factor(len(course.active))
    if left < scale.threshold(course.state) or _ceases(course) <= at:  # else nothing has happened meanwhile
        _pass_time(course, at, scale)
        left = total * factor(len(course.active))
        _cease(course, at)
    if course.low is None or left <= course.low[0]:
        course.low = (left, at)
    for touch in touches:
        course.active.pop(touch.person, None)
        course.active[touch.person] = at
        total += touch.weight
    course.at, course.total = at, total
    score = total * factor(len(course.active))
    state = _next_state(course.state, score, scale, left)
    if state != course.state:
        _turn(course, state, _Moment(at, left, score))


class _Moment(NamedTuple):
    """An instant at which the state changes, the score just before it and at it, and who counts no longer from then on.

    `left`, the score before, takes those in whose activity ends at this very instant.
    """

    at: int
    left: int
    score: int
    inactive: str | None = None


def _turn(course: Course, state: State, moment: _Moment) -> None:
    """Change the state."""
    course.history += (
        Transition(
            at=moment.at,
            was=course.state,
            state=state,
            rewarmed=state in (WARMING, WARM) and any(each.state == WARM for each in course.history),
            before=shown(moment.left),
            after=shown(moment.score),
            low_at=course.low and course.low[1],
            low=course.low and shown(course.low[0]),
            active=len(course.active),
            inactive=moment.inactive,
        ),
    )
    course.state, course.low = state, None


def _next_state(state: State, score: int, scale: Scale, lifted_from: int | None = None) -> State:
    """The state that a score leads to; `lifted_from` is the score that touches have lifted."""
    if state != WARM and score >= scale.warm:
        return WARM
    match state:
        case "cold":
            return WARMING if score >= scale.warming else COLD
        case "warm" if scale.cold <= score < scale.cooling:
            return COOLING
        case "cooling" if lifted_from is not None and lifted_from < scale.warming <= score:
            return WARMING
    return COLD if score < scale.cold else state


def state_at(history: Sequence[Transition], clock: int) -> State:
    """The state at an instant."""
    now = present(history, clock)
    return now.state if now else COLD


def present(history: Sequence[Transition], clock: int) -> Transition | None:
    """The last transition up to an instant; None: the account is as cold as it began."""
    for each in reversed(history):
        if each.at <= clock:
            return each
    return None


def ahead(history: Sequence[Transition], clock: int) -> Iterator[Transition]:
    """What comes after an instant when nothing else happens."""
    return (each for each in history if each.at > clock)
