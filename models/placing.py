"""Where a visitor's page views go: to the end of the last session, between others, or aside as a bot's."""

from collections.abc import Callable, Sequence
from operator import attrgetter

from models.bots import STORM_HITS, STORM_SPAN
from models.entity import Conflict
from models.facts import PAGE_VIEWS
from models.hits import Hit
from models.owners import Owners
from models.reports import pack
from models.timeline import Session
from models.visitor_counts import VisitorCounts

_NEVER = -(2**62)
"""Earlier than any instant."""
_at: Callable[[Hit], int] = attrgetter("at")


def place(hits: Sequence[Hit], owners: Owners, counts: VisitorCounts) -> list[tuple[Hit, Conflict]]:
    """Take page views of a visitor; those in conflict, each with its Conflict."""
    conflicts = []
    for hit in _append_plain(sorted(hits, key=_at), owners, counts):
        known = owners.timeline.find(hit.id)
        if known == hit:
            continue
        counts.remember_path()
        if known is None:
            _take(hit, owners)
        else:
            conflicts.append((hit, _meet(hit, known, owners)))
    return conflicts


def _append_plain(hits: Sequence[Hit], owners: Owners, counts: VisitorCounts) -> Sequence[Hit]:
    """Append the hits that are new, later than all others and nothing special; returns the others.

    Of a million facts nine hundred thousand cost little more here than this one loop, which
    therefore calls nothing that it need not.
    """
    if not _is_plain(owners):
        return hits
    timeline, gap = owners.timeline, owners.rules.gap
    session = timeline.sessions[-1] if timeline.sessions else Session([])
    newest = session.hits[-1].at if session.hits else _NEVER
    others = []
    for hit in hits:
        at = hit.at
        if at <= newest or hit.is_listed or hit.id in timeline.ids:
            others.append(hit)
            continue
        if at - newest >= gap:
            session = Session([])
        elif _is_full(session.hits, at, owners.rules.longest):
            others.append(hit)
            continue
        if hit.origin is not None or hit.person is not None:
            counts.remember_path()
            _append_special(hit, session, owners)
        else:
            _append(hit, session, owners)
        newest = at
    return others


def _is_plain(owners: Owners) -> bool:
    """Is nothing known that each hit must be judged by?"""
    timeline, statements = owners.timeline, owners.statements
    is_special = statements.fills() or statements.verdicts() or timeline.storms or timeline.aside.hits
    return not (is_special or timeline.is_cut_short())


def _is_full(hits: Sequence[Hit], at: int, longest: int) -> bool:
    """Has the session lasted too long for a hit at `at`, or would that make a storm?"""
    return at - hits[0].at >= longest or (len(hits) >= STORM_HITS and at - hits[-STORM_HITS].at < STORM_SPAN)


def _append(hit: Hit, session: Session, owners: Owners) -> None:
    """Append a hit later than all others to the last session, or to a new one."""
    if not session.retouched and owners.may_be_known():
        session.retouched = owners.are_named_from(hit.at) or owners.rules.is_hot(hit.path)
    owners.timeline.append(hit, session)


def _append_special(hit: Hit, session: Session, owners: Owners) -> None:
    """Append a hit that may come from somewhere, or name its person."""
    if hit.origin is not None:
        session.arrived = None
        session.retouched = True
    _append(hit, session, owners)
    if hit.person is not None:
        owners.take_name(hit, hit.person, session)


def _meet(hit: Hit, known: Hit, owners: Owners) -> Conflict:
    """Of the hit and one known with its id, keep the smaller."""
    if (known.at, pack(known)) <= (hit.at, pack(hit)):
        return Conflict(PAGE_VIEWS, hit.id, known.at)
    _remove(known, owners)
    _take(hit, owners)
    judge_anew(owners)
    return Conflict(PAGE_VIEWS, hit.id, hit.at)


def _take(hit: Hit, owners: Owners) -> None:
    """Take a new hit in, or leave it out; the one that makes a storm takes all others with it."""
    timeline = owners.timeline
    if owners.is_bots(hit.at, hit.id, hit.is_listed):
        timeline.aside.add(hit)
    else:
        _insert(hit, owners)
    if not timeline.storms and timeline.is_storming_at(hit.at):
        timeline.storms = True
        _sort_out(owners)


def _insert(hit: Hit, owners: Owners) -> None:
    fills, sessions = owners.statements.fills(), owners.timeline.sessions
    if fills and any([fill.at >= hit.at for fill in fills.values()]):
        owners.restate()  # a form filled in later may have been filled in under its source
    if not sessions or hit.order > sessions[-1].hits[-1].order:
        _append_special(hit, owners.timeline.last_for(hit.at), owners)
    else:
        _cut_anew(hit.at, owners, adding=hit)


def _remove(hit: Hit, owners: Owners) -> None:
    if hit.id in owners.timeline.ids:
        _cut_anew(hit.at, owners, removing=hit)
    else:
        owners.timeline.aside.remove(hit)


def _cut_anew(at: int, owners: Owners, adding: Hit | None = None, removing: Hit | None = None) -> None:
    """Cut sessions around `at` anew; what is told of them, and of their neighbours, may differ."""
    timeline = owners.timeline
    fresh = timeline.cut_anew(at, adding, removing)
    if owners.may_be_known():
        timeline.retouch(fresh.start - 1)
        timeline.retouch(fresh.stop)
    if owners.statements.fills() or any([timeline.sessions[number].names_people for number in fresh]):
        owners.restate()


def judge_anew(owners: Owners) -> None:
    """Verdicts or hits have gone: which hits are left out may differ."""
    owners.timeline.storms = owners.timeline.is_storming()
    _sort_out(owners)


def _sort_out(owners: Owners) -> None:
    """Leave out the hits that are a bot's, and no others."""
    timeline = owners.timeline
    left_out = {hit.id for hit in timeline.all_hits() if owners.is_bots(hit.at, hit.id, hit.is_listed)}
    if left_out != timeline.aside.hits.keys():
        timeline.leave_out(left_out)
    owners.restate()
