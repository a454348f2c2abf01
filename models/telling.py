"""What others are told of a visitor: the touches of sessions and its claims, each anew only where it may differ."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

import msgspec

from models.claims import claims_of
from models.entity import Contents, reports
from models.owners import Owners
from models.reports import TOUCH, Report, pack, tag_of
from models.sessions import web_touches
from models.timeline import UNTOLD, Session
from models.touches import Touch
from models.visits import Mark, Told

_ALWAYS = -(2**62)
"""Earlier than any instant."""


class Telling:
    """What was told of a visitor, and what has to be told now.

    What was told of a session is kept with it.
    """

    __slots__ = ("_claims", "_marks", "_owners", "_visitor")

    def __init__(self, visitor: str, owners: Owners) -> None:
        self._visitor = visitor
        self._owners = owners
        self._claims: Contents = {}
        self._marks: Sequence[Mark] = ()

    def loaded(self) -> None:
        """Everybody was told of the state at rest."""
        if not self._owners.name_anybody():
            return
        self._claims = claims_of(self._visitor, self._owners)
        self._marks = self._owners.telling_marks()
        sessions = self._owners.timeline.sessions
        for session, told in zip(sessions, self._tell(sessions), strict=True):
            session.told = told

    def changes(self) -> list[Report]:
        """What people, touches and other visitors must be told."""
        is_stale = self._owners.is_stale
        if not (is_stale or self._owners.marks()):
            return []
        old, new = self._touch_changes()
        if is_stale:
            claims = claims_of(self._visitor, self._owners)
            old, new, self._claims = _merged(old, self._claims), _merged(new, claims), claims
        return reports(old, new, tag_of(f"visitor:{self._visitor}"))

    def _touch_changes(self) -> tuple[Contents, Contents]:
        """The touches of the sessions that may have changed: as reported, and as they are."""
        sessions = self._in_doubt()
        old: Contents = {}
        new: Contents = {}
        for session in self._owners.timeline.gone:
            _add(old, session.told)
        for session, told in zip(sessions, self._tell(sessions), strict=True):
            session.retouched = False
            if told is not session.told:
                _add(old, session.told)
                _add(new, told)
                session.told = told
        return old, new

    # --- which sessions -------------------------------------------------------------

    def _in_doubt(self) -> Sequence[Session]:
        """The sessions of which something else may have to be told than was."""
        timeline = self._owners.timeline
        retouched = [session for session in timeline.changed() if session.retouched]
        if not self._owners.is_stale:
            return retouched
        old, new = self._marks, self._owners.telling_marks()
        self._marks = new
        if _turns(old) != _turns(new):
            return timeline.sessions
        in_doubt = {id(session): session for session in retouched}
        for mark in {*old} ^ {*new}:  # somebody became known in another visit, or no longer did in one
            session = timeline.visit_at(mark.at)
            if session:
                in_doubt[id(session)] = session
        return list(in_doubt.values())

    # --- what of them ---------------------------------------------------------------

    def _tell(self, sessions: Sequence[Session]) -> list[Told]:
        """What is to be told of each session: the very thing that was where nothing differs."""
        marks = self._owners.telling_marks() if sessions else ()
        if not marks:
            return [UNTOLD] * len(sessions)
        times = [mark.at for mark in marks]
        known = self._known_in(sessions, marks, times)
        told = []
        for session in sessions:
            owner = marks[max(bisect_right(times, session.hits[0].at) - 1, 0)].person
            told.append(self._told_of(session, owner, known.get(id(session), ())))
        return told

    def _told_of(self, session: Session, owner: str, known: tuple[int, ...]) -> Told:
        told = session.told
        if session.retouched or told.owner is None or told.known != known:
            touches = web_touches(session.hits, self._visitor, self._owners.rules.whole)
            return Told(owner, known, {f"{TOUCH}:{each.id}": pack(each) for each in _with_known(touches, known)})
        return told if told.owner == owner else Told(owner, known, told.touches)

    def _known_in(
        self, sessions: Sequence[Session], marks: Sequence[Mark], times: Sequence[int]
    ) -> dict[int, tuple[int, ...]]:
        """When each person was first named in the visits of these sessions, by id()."""
        timeline = self._owners.timeline
        if len(marks) > len(sessions):  # else it costs less to look at them all
            gap = self._owners.rules.gap
            begin = bisect_left(times, min([session.hits[0].at for session in sessions]) - gap)
            end = bisect_right(times, max([session.hits[-1].at for session in sessions]) + gap)
            marks = marks[begin:end]
        first: dict[int, dict[str, int]] = {}
        for mark in marks:
            first.setdefault(id(timeline.visit_at(mark.at)), {}).setdefault(mark.person, mark.at)
        return {number: tuple(sorted({*named.values()})) for number, named in first.items()}


def _with_known(touches: list[Touch], known: Sequence[int]) -> list[Touch]:
    """The touches of a session, each with the moments at which people became known in its visit."""
    if not known:
        return touches
    moments: dict[int, list[int]] = {}
    for at in known:
        upto = [number for number, touch in enumerate(touches) if touch.at <= at]
        moments.setdefault(upto[-1] if upto else 0, []).append(at)
    return [
        msgspec.structs.replace(touch, known_at=tuple(moments[number])) if number in moments else touch
        for number, touch in enumerate(touches)
    ]


def _turns(marks: Sequence[Mark]) -> list[tuple[int, str]]:
    """Since when whose the visitor is; the first owner's from the beginning."""
    turns: list[tuple[int, str]] = []
    for mark in marks:
        if not turns or turns[-1][1] != mark.person:
            turns.append((mark.at if turns else _ALWAYS, mark.person))
    return turns


def _add(contents: Contents, told: Told) -> None:
    if told.touches:
        contents.setdefault(f"person:{told.owner}", {}).update(told.touches)


def _merged(first: Contents, second: Contents) -> Contents:
    return {to: {**first.get(to, {}), **second.get(to, {})} for to in {*first, *second}}
