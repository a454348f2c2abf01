"""What a visitor adds to the counts itself: its null path while it belongs to nobody, else its crowd of people."""

from collections.abc import Sequence

from models.counts import SHARED, Count, Counted, Counting
from models.owners import Owners
from models.paths import EARLIEST, null_path_begins, replaced_path
from models.sessions import arrived
from models.timeline import Session
from models.touches import FORM_FILL
from models.visits import Arrived


class VisitorCounts:
    """What was counted of a visitor, and what that changes by."""

    __slots__ = ("_crowd", "_is_path_stale", "_owners", "_path", "_rules", "_visitor")

    def __init__(self, visitor: str, owners: Owners) -> None:
        self._visitor = visitor
        self._owners = owners
        self._rules = owners.rules
        self._path: list[str] | None = []
        self._is_path_stale = False
        self._crowd = 0

    def loaded(self) -> None:
        """All that the state at rest comes to was counted."""
        self._path = None
        self._crowd = self._owners.crowd()

    def remember_path(self) -> None:
        """Note the null path as it was counted; to be called before anything that it may change by."""
        if self._path is None:
            self._path = self._null_path()
        self._is_path_stale = True

    def changes(self) -> list[Counting]:
        """What the counts change by."""
        changes = self._path_changes() if self._is_path_stale else []
        if self._owners.is_stale:
            before, self._crowd = self._crowd, self._owners.crowd()
            changes += self._crowd_changes(before)
        return changes

    def whole(self) -> Counted:
        """All that the visitor's state adds to the counts."""
        path = replaced_path("lead", [], self._null_path(), self._rules.markov_order)
        return (*path, *self._crowd_changes(0))

    def _path_changes(self) -> list[Counting]:
        old, new = self._path or [], self._null_path()
        self._path, self._is_path_stale = new, False
        return [] if old == new else replaced_path("lead", old, new, self._rules.markov_order)

    def _crowd_changes(self, counted: int) -> list[Counting]:
        """What the visitor's place among the shared ones changes by, where it is counted as so many people."""
        change = self._owners.crowd() - counted
        return [(Count(SHARED, f"visitor\0{self._visitor}"), (change,))] if change else []

    # --- on no way to a lead ---------------------------------------------------------

    def _null_path(self) -> list[str]:
        """The channels by which a visitor came who belongs to nobody, within the lookback of the latest touch."""
        sessions, fills = self._owners.timeline.sessions, self._owners.statements.fills()
        if not (sessions or fills) or self._owners.telling_marks():
            return []
        found = sorted(self._nobodys_fills()) if fills else []
        begins = self._path_begins(found)
        for session in reversed(sessions):
            if session.hits[-1].at < begins:
                break
            came = self._arrived(session)
            if came:
                begins = max(begins, self._path_begins(came))
                found[:0] = came
        if fills:
            found.sort()
        return [each.channel for each in found if each.at >= begins]

    def _path_begins(self, touches: Sequence[Arrived]) -> int:
        return null_path_begins(None, touches[-1].at, self._rules.lookback) if touches else EARLIEST

    def _arrived(self, session: Session) -> list[Arrived]:
        if session.arrived is None:
            session.arrived = arrived(session.hits, self._rules.whole)
        return session.arrived

    def _nobodys_fills(self) -> list[Arrived]:
        """The forms filled in that name nobody, unless another system says whose they are."""
        statements = self._owners.statements
        withdrawn, owned = statements.withdrawn(), statements.owned()
        found = []
        for fill in self._owners.touching_fills():
            person = None if fill.id in withdrawn else fill.identification.person
            if person is None and fill.id not in owned:
                origin, _ = self._owners.timeline.source_of(fill)
                channel = self._rules.whole.classify(origin, FORM_FILL)
                found.append(Arrived(fill.at, fill.id, FORM_FILL, channel))
        return found
