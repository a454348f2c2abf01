"""A visitor's hits: those that count by session, each session a part of its own, and aside those of bots."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from models.bots import STORM_HITS, STORM_SPAN, Aside, is_storm
from models.channels import Origin
from models.columns import pack_hits, unpack_hits
from models.facts import FormFill
from models.hits import Hit
from models.reports import Changes
from models.sessions import DIRECT, current_source, cut, opens_session
from models.visitor_rules import VisitorRules
from models.visits import Arrived, Told

SESSION = "s"
"""Kind of the parts in which sessions are kept."""
UNTOLD = Told(None, (), {})
"""What was told of a session of which nobody was told."""


class Session:
    """Hits with no gap between them, in order; `name` is the part it is kept in.

    `told` is what was last reported of it; `retouched` says that its touches may differ since,
    `is_changed` that it is to be kept anew, `names_people` that any of its hits carried a user id.
    """

    __slots__ = ("arrived", "hits", "is_changed", "names_people", "retouched", "stored", "told")

    def __init__(self, hits: list[Hit], stored: str | None = None) -> None:
        self.hits = hits
        self.stored = stored
        self.retouched = stored is None
        self.is_changed = False
        self.arrived: list[Arrived] | None = None
        self.told = UNTOLD
        self.names_people = any([hit.person for hit in hits])

    @property
    def name(self) -> str:
        """The part's name: the session's begin."""
        return f"{SESSION}:{self.hits[0].at}"


class Timeline:
    """The hits of a visitor that count, by session, oldest first; `aside` are those of bots.

    `ids` are the instants of those that count; `storms` says that so many came at once that
    all are a bot's. `gone` are the sessions that are no longer since the last flush.
    """

    __slots__ = ("_changed", "_rules", "aside", "gone", "ids", "sessions", "storms")

    def __init__(self, rules: VisitorRules) -> None:
        self._rules = rules
        self.sessions: list[Session] = []
        self.aside = Aside()
        self.ids: dict[str, int] = {}
        self.storms = False
        self._changed: list[Session] = []
        self.gone: list[Session] = []

    # --- at rest --------------------------------------------------------------------

    def load(self, name: str, value: bytes) -> None:
        """Take a part at rest."""
        if name[0] == SESSION:
            self.sessions.append(Session(unpack_hits(value), name))
        else:
            self.aside.load(value)

    def loaded(self) -> None:
        """All parts were taken."""
        self.sessions.sort(key=lambda session: session.hits[0])
        self.ids = {hit.id: hit.at for session in self.sessions for hit in session.hits}
        self.storms = self.is_storming()

    def changes(self) -> Changes:
        """The parts that changed since this was last asked."""
        changes = self.aside.changes()
        for session in self.gone:
            if session.stored:
                changes[session.stored] = None
        for session in self._changed:
            if session.is_changed:
                session.is_changed = False
                if session.stored is None:
                    session.stored = session.name
                changes[session.stored] = pack_hits(session.hits)
        self._changed, self.gone = [], []
        return changes

    def changed(self) -> list[Session]:
        """The sessions to be kept anew."""
        return [session for session in self._changed if session.is_changed]

    def _change(self, session: Session) -> None:
        if not session.is_changed:
            session.is_changed = True
            self._changed.append(session)

    # --- looking up -----------------------------------------------------------------

    def find(self, hit_id: str) -> Hit | None:
        """The hit with this id, whether it counts or not."""
        at = self.ids.get(hit_id)
        if at is None:
            return self.aside.hits.get(hit_id)
        session = self.sessions[self.number_at(at)]
        return next(hit for hit in session.hits if hit.id == hit_id)

    def all_hits(self) -> list[Hit]:
        """The hits, oldest first, whether they count or not."""
        return sorted([*(hit for session in self.sessions for hit in session.hits), *self.aside.hits.values()])

    def number_at(self, at: int) -> int:
        """The number of the last session that begins at or before `at`; -1 before all."""
        return bisect_right(self.sessions, at, key=lambda session: session.hits[0].at) - 1

    def visit_at(self, at: int) -> Session | None:
        """The session that a hit at `at` would join."""
        number = self.number_at(at)
        if number >= 0:
            session = self.sessions[number]
            last = next(hit.at for hit in reversed(session.hits) if hit.at <= at)
            if not opens_session(at, last, session.hits[0].at, self._rules.whole):
                return session
        following = self.sessions[number + 1] if number + 1 < len(self.sessions) else None
        return following if following and following.hits[0].at - at < self._rules.gap else None

    def source_of(self, fill: FormFill) -> tuple[Origin, str]:
        """The source current on the site when a form was filled in, else the form's own; and the page it led to."""
        order = (fill.at, fill.id)
        number = bisect_right(self.sessions, order, key=lambda session: session.hits[0].order) - 1
        hits: Sequence[Hit] = self.sessions[number].hits if number >= 0 else ()
        before = [hit.at for hit in hits if hit.order <= order]
        if before and fill.at - before[-1] < self._rules.gap:
            source = current_source(hits, order)
            return source.origin, source.hit.path
        arrival = self._rules.whole.arrive(fill.url, fill.referrer, fill.utm)
        return arrival.origin or DIRECT, arrival.path

    def is_cut_short(self) -> bool:
        """Did the last session begin though the one before had not ended?"""
        if len(self.sessions) < 2:
            return False
        return self.sessions[-1].hits[0].at - self.sessions[-2].hits[-1].at < self._rules.gap

    # --- storms ---------------------------------------------------------------------

    def is_storming(self) -> bool:
        """Did ever so many hits come at once that they are a bot's?"""
        hits = self.aside.hits
        if len(self.ids) + len(hits) <= STORM_HITS:
            return False
        return is_storm(sorted([*self.ids.values(), *(hit.at for hit in hits.values())]))

    def is_storming_at(self, at: int) -> bool:
        """Did so many come at once around `at`?"""
        return len(self.ids) + len(self.aside.hits) > STORM_HITS and is_storm(self._times_near(at))

    def _times_near(self, at: int) -> list[int]:
        begin, end = at - STORM_SPAN, at + STORM_SPAN
        times = self.aside.times_near(at)
        for session in self.sessions[max(self.number_at(begin), 0) : self.number_at(end) + 1]:
            first, last = (bisect_left(session.hits, moment, key=lambda hit: hit.at) for moment in (begin, end))
            times += [hit.at for hit in session.hits[first:last]]
        return sorted(times)

    # --- putting in and taking out ---------------------------------------------------

    def last_for(self, at: int) -> Session:
        """The session of a hit at `at` that is later than all others: the last one, or a new one."""
        session = self.sessions[-1] if self.sessions else None
        if session is None or opens_session(at, session.hits[-1].at, session.hits[0].at, self._rules.whole):
            return Session([])
        return session

    def append(self, hit: Hit, session: Session) -> None:
        """Put a hit in that is later than all others; its session is the last one, or a new one."""
        if not session.hits:
            self.sessions.append(session)
        session.hits.append(hit)
        self.ids[hit.id] = hit.at
        self._change(session)

    def cut_anew(self, at: int, adding: Hit | None = None, removing: Hit | None = None) -> range:
        """Put a hit in or take one out at `at`, and cut sessions anew; the numbers of the new ones.

        Cut are those from the session before `at` to the next gap that no hit can have moved.
        """
        begin = max(self.number_at(at) - 1, 0)
        end = max(self.number_at(at), begin)
        while end + 1 < len(self.sessions) and not self._apart(self.sessions[end], self.sessions[end + 1], at):
            end += 1
        hits = [hit for session in self.sessions[begin : end + 1] for hit in session.hits if hit is not removing]
        if adding is not None:
            hits.append(adding)
            self.ids[adding.id] = at
        if removing is not None:
            del self.ids[removing.id]
        return self._replace(begin, end + 1, sorted(hits))

    def _apart(self, earlier: Session, later: Session, at: int) -> bool:
        """True when a hit at `at` cannot join what follows `earlier` to it."""
        last = max(earlier.hits[-1].at, at)
        return later.hits[0].at - last >= self._rules.gap and later.hits[0].at > at

    def leave_out(self, left_out: set[str]) -> None:
        """Set the hits with these ids aside, and no others."""
        hits = self.all_hits()
        for hit in hits:
            if hit.id in left_out and hit.id in self.ids:
                self.aside.add(hit)
            elif hit.id not in left_out and hit.id not in self.ids:
                self.aside.remove(hit)
        counted = [hit for hit in hits if hit.id not in left_out]
        self.ids = {hit.id: hit.at for hit in counted}
        self._replace(0, len(self.sessions), counted)

    def _replace(self, begin: int, end: int, hits: list[Hit]) -> range:
        """Cut sessions of these hits in place of those that there were; the numbers of the new ones."""
        old = self.sessions[begin:end]
        fresh = [Session(each) for each in cut(hits, self._rules.whole)]
        self.sessions[begin:end] = fresh
        self.gone += old
        for session in old:
            session.is_changed = False
        for session in fresh:
            self._change(session)
        return range(begin, begin + len(fresh))

    def retouch(self, number: int) -> None:
        """Let a session be told anew: somebody named beside it may belong to another visit now."""
        if 0 <= number < len(self.sessions):
            session = self.sessions[number]
            session.retouched = True
            self._change(session)
