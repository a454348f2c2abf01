"""A visitor: a browser or device, its hits, and the people it was identified as.

The step of the visitors lane, in the modules that what it is sent goes through:

    page views   ▶ placing ▶ timeline ─┐            ┌▶ telling, claims ▶ messages
                                       ├▶ owners ───┤
    who it is    ▶ statements ─────────┘            └▶ visitor_counts ▶ counts

Sessions are kept apart as parts, so that a long history costs a new hit nothing; what is
reported is always a function of all facts known.
"""

from collections.abc import Sequence

from models.bots import ASIDE
from models.counts import Counted
from models.entity import Conflict, Outcome
from models.facts import Fact, FormFill, Identification, Unlink, Verdict
from models.hits import Hit
from models.owners import Owners
from models.placing import judge_anew, place
from models.reports import OWNED, VERDICT, Message, Parts, Report, pack
from models.statements import Statement, Statements, topic_of
from models.telling import Telling
from models.timeline import SESSION, Timeline
from models.visitor_counts import VisitorCounts
from models.visitor_rules import VisitorRules


class Visitor:
    """One visitor's state; see `Entity` for what a lane does with it."""

    __slots__ = ("_counts", "_owners", "_statements", "_telling", "_timeline", "name")

    def __init__(self, name: str, parts: Parts, rules: VisitorRules) -> None:
        self.name = name
        self._timeline = Timeline(rules)
        self._statements = Statements()
        self._owners = Owners(self._statements, self._timeline, rules)
        self._counts = VisitorCounts(name, self._owners)
        self._telling = Telling(name, self._owners)
        if parts:
            self._load(parts)

    def _load(self, parts: Parts) -> None:
        """Take the state at rest, of which everybody has been told."""
        for name, value in parts.items():
            if name[0] in (SESSION, ASIDE):
                self._timeline.load(name, value)
            else:
                self._statements.load(name, value)
        self._timeline.loaded()
        self._owners.loaded()
        self._telling.loaded()
        self._counts.loaded()

    # --- facts and reports in -------------------------------------------------------

    def apply(self, topic: str, fact: Fact | Hit) -> Conflict | None:
        """Take one fact of this visitor; a second one with its id may be a Conflict."""
        match fact:
            case Hit():
                return next((conflict for _, conflict in self.apply_views((fact,))), None)
            case FormFill() | Identification() | Unlink() | Verdict():
                return self._apply_statement(fact)
        raise TypeError(f"no fact of a visitor: {fact!r}")

    def apply_views(self, hits: Sequence[Hit]) -> list[tuple[Hit, Conflict]]:
        """Take page views of this visitor; those in conflict, each with its Conflict."""
        return place(hits, self._owners, self._counts)

    def _apply_statement(self, fact: Statement) -> Conflict | None:
        """Keep the smallest of the facts with one id, of whatever sort."""
        known = self._statements.standing(fact)
        if known == fact:
            return None
        if known is not None and (known.at, pack(known)) < (fact.at, pack(fact)):
            return Conflict(topic_of(fact), fact.id, known.at)
        self._counts.remember_path()
        self._statements.keep(fact, instead_of=known)
        if isinstance(fact, Verdict) or isinstance(known, Verdict):
            judge_anew(self._owners)
        self._owners.restate()
        return None if known is None else Conflict(topic_of(fact), fact.id, fact.at)

    def receive(self, message: Message) -> None:
        """Take an alias of another visitor, the root of a person watched, a verdict, or whose a form fill is."""
        if not isinstance(message, Report):
            raise TypeError(f"no message to a visitor: {message!r}")
        self._counts.remember_path()
        self._statements.hear(message)
        kinds = {name[0] for name in message.changes}
        if VERDICT in kinds:
            judge_anew(self._owners)
        if kinds - {OWNED}:
            self._owners.restate()

    # --- changes, messages and counts out --------------------------------------------

    def flush(self) -> Outcome:
        """What changed in storage, and what people, touches and other visitors must be told."""
        counts = self._counts.changes()
        messages = self._telling.changes()
        changes = self._timeline.changes()
        changes.update(self._statements.changes())
        self._owners.is_stale = False
        return Outcome(changes, messages, counts)

    def counts(self) -> Counted:
        """All that the visitor's state adds to the counts."""
        return self._counts.whole()

    def sent(self, message_id: str) -> bool:
        """Is there a message of the visitor with this id?"""
        return self._timeline.find(message_id) is not None or self._statements.includes(message_id)
