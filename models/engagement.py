"""How warm an account is by its dossier, and what a batch makes known of that."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from models.alerting import Personal, Scene, weight_of
from models.companies import Company
from models.course import BEGINNING, History
from models.dossier import Dossier
from models.entity import put
from models.filing import Filing
from models.received import path_in, read_lead
from models.reports import KNOWN, TOUCH, Changes
from models.totals import Totals
from models.touches import Touch
from models.warming import Moved, Warming
from models.warmth import Touched


class Stir(NamedTuple):
    """What a batch may change: touches (or whose they are) from `since` on (None: none), after the history `was`.

    `grew` says that it did nothing but add touches.
    """

    since: int | None
    was: History
    grew: bool


class Engagement:
    """Weighs the touches of one account's dossier, and tells of its company what that comes to.

    It hears how far the lane is: of facts recorded up to some time, or of the time of day.
    """

    __slots__ = ("_clock", "_company", "_dossier", "_name", "_recorded_at", "_warming")

    def __init__(self, name: str, dossier: Dossier, company: Company) -> None:
        self._name = name
        self._dossier = dossier
        self._company = company
        self._warming = Warming(dossier.parts, dossier.rules.scale)
        self._clock = self._recorded_at = 0

    def hear(self, recorded_at: int) -> None:
        """What is taken next comes of facts recorded up to then."""
        self._recorded_at = max(self._recorded_at, recorded_at)

    def wake(self, at: int) -> None:
        """It is so late."""
        self._clock = max(self._clock, at)

    def rest(self) -> None:
        """What was heard is done with."""
        self._clock = self._recorded_at = 0

    @property
    def _now(self) -> int:
        """How far the lane is, as far as the account has heard."""
        return max(self._warming.told.clock, self._recorded_at, self._clock)

    # --- asked ----------------------------------------------------------------------

    @property
    def history(self) -> History:
        """When the account warmed and cooled, and will cool when nothing else happens."""
        return self._warming.history(self._weighed)

    def score_at(self, at: int) -> float:
        """How warm the account is at an instant, by the touches known."""
        return self._warming.score_at(at, self._weighed)

    def _weighed(self, after: int) -> list[Touched]:
        scale, found = self._dossier.rules.scale, []
        for touch, path in self._dossier.journey.after(after):
            weight = weight_of(touch, scale)
            if weight:
                found.append(Touched(touch.at, self._dossier.whose(path), weight))
        return found

    def scene(self, history: History) -> Scene:
        """The account with this history as its alerts see it."""
        journey = self._dossier.journey
        return Scene(
            account=self._name,
            profile=self._company.profile,
            history=history,
            deals=list(self._dossier.deals.values()),
            owner_at=self._company.owner_at,
            between=lambda begin, end: self._with_persons(journey.between(begin, end)),
            before=lambda at: self._with_persons(journey.before(at)),
            rules=self._dossier.rules,
        )

    def _with_persons(self, found: Iterable[tuple[Touch, str]]) -> Iterator[Personal]:
        for touch, path in found:  # one by one, also where this is compiled: few are asked for
            yield touch, self._dossier.whose(path)

    # --- a batch --------------------------------------------------------------------

    def stir(self, changes: Changes, times: list[int], filing: Filing) -> Stir | None:
        """What taking these, with touches at `times`, is about to change; None: nothing, and no time has passed."""
        since = BEGINNING if filing.moves else self._disturbed_at(changes, times)
        if since is None and not self._clock:
            return None
        is_known = any(name in self._dossier.parts for name in changes if name[0] in TOUCH + KNOWN)
        was = self._warming.foreseen(self._weighed, self._now) if filing.was_booking else ()
        return Stir(since, was, grew=not filing.moves and not is_known)

    def _disturbed_at(self, changes: Changes, times: list[int]) -> int | None:
        """From when on a batch changes touches, or whose they are; None: it does not."""
        moved = [path_in(name) for name, value in changes.items() if name[0] == KNOWN and self._is_other(name, value)]
        by_path = self._dossier.journey.by_path
        paths = [(path, touches[0].at) for path, touches in by_path.items()] if moved else ()
        moments = [at for path, at in paths if path.startswith(tuple(moved))]
        return min([*times, *moments], default=None)

    def _is_other(self, name: str, value: bytes | None) -> bool:
        """Is somebody else known by the path, or nobody any more?"""
        known = self._dossier.leads.get(path_in(name))
        return (known and known.person) != (value and read_lead(value).person)

    def tell(self, totals: Totals, stir: Stir, is_merged: bool) -> Changes:
        """Tell what has happened to the account's warmth, and rank it anew, not where it was merged away.

        Returns the parts that change.
        """
        if stir.since is not None:
            self._warming.disturb(stir.since)
        if is_merged:
            totals.warmth[self._name] = self._warming.leave()
        else:
            self._rank(totals, stir)
        changes = self._warming.changes()
        for name, value in changes.items():
            put(self._dossier.parts, name, value)
        return changes

    def _rank(self, totals: Totals, stir: Stir) -> None:
        left = self._warming.told.state
        history = self._warming.history(self._weighed, self._now)
        change = Moved(stir.was, history, self._now, self._recorded_at, stir.grew)
        totals.alerts.extend(self._warming.tell(change, lambda: self.scene(history)))
        totals.warmth[self._name] = self._warming.ranked(left, change, lambda: self.scene(history), self._weighed)
