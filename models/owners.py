"""Whose a visitor is, and since when, by what its statements and hits say; those of a bot say nothing."""

from bisect import bisect_right
from collections.abc import Sequence

from models.bots import said_of
from models.facts import FormFill, Identification
from models.hits import Hit
from models.statements import Statements
from models.timeline import Session, Timeline
from models.visitor_rules import VisitorRules
from models.visits import Mark


class Owners:
    """The people that a visitor was identified as; `is_stale` once others may have to be told otherwise."""

    __slots__ = ("_marks", "is_stale", "rules", "statements", "timeline")

    def __init__(self, statements: Statements, timeline: Timeline, rules: VisitorRules) -> None:
        self.statements = statements
        self.timeline = timeline
        self.rules = rules
        self.is_stale = False
        self._marks: list[Mark] | None = []

    def loaded(self) -> None:
        """All parts were taken."""
        self._marks = None if self.name_anybody() else []

    def restate(self) -> None:
        """Whose the visitor is may have changed: everything is reported anew."""
        self._marks = None
        self.is_stale = True

    def take_name(self, hit: Hit, person: str, session: Session) -> None:
        """A hit in order names its person, which changes owners only if the person is new."""
        marks = self._marks
        session.names_people = True
        is_plain = not self.is_stale and not self.statements.unlinks()
        if is_plain and marks and marks[-1].person == person and marks[-1].at <= hit.at:
            session.retouched = session.retouched or marks[-1].at < session.hits[0].at
            marks.append(Mark(hit.at, hit.id, person))
        else:
            self.restate()

    def name_anybody(self) -> bool:
        """Does anything name people, whether it stands or not?"""
        said = self.statements
        if said.identifications() or said.fills() or said.alias_marks():
            return True
        return any([session.names_people for session in self.timeline.sessions])

    # --- what counts ----------------------------------------------------------------

    def is_bots(self, at: int, message_id: str, is_listed: bool) -> bool:
        """Is the message a bot's? The latest verdict on it holds, else the list and the storm."""
        verdicts = self.statements.verdicts()
        said = said_of(verdicts.values(), at, message_id) if verdicts else None
        return is_listed or self.timeline.storms if said is None else said

    def _counts(self, message: Identification) -> bool:
        return not self.is_bots(message.at, message.id, message.is_listed)

    def identifications(self) -> list[Identification]:
        """Those that count: no bot's."""
        return [each for each in self.statements.identifications().values() if self._counts(each)]

    def fills(self) -> list[FormFill]:
        """The form fills that count."""
        return [fill for fill in self.statements.fills().values() if self._counts(fill.identification)]

    def touching_fills(self) -> list[FormFill]:
        """Those of them that are touches."""
        return [fill for fill in self.fills() if fill.is_touch]

    def messages(self) -> list[Identification]:
        """All that name people, form fills among them."""
        return [*self.identifications(), *[fill.identification for fill in self.fills()]]

    def naming_hits(self) -> list[tuple[Hit, str]]:
        """The hits that name people, each with whom it names."""
        return [
            (hit, hit.person)
            for session in self.timeline.sessions
            if session.names_people
            for hit in session.hits
            if hit.person
        ]

    # --- whose ----------------------------------------------------------------------

    def marks(self) -> list[Mark]:
        """Every identification that stands, oldest first."""
        if self._marks is None:
            self._marks = sorted(self._standing_marks())
        return self._marks

    def _standing_marks(self) -> list[Mark]:
        withdrawn = self.statements.withdrawn()
        marks = list(self.statements.alias_marks().values())
        for message in self.messages():
            if message.person and message.id not in withdrawn:
                marks.append(Mark(message.at, message.id, message.person))
        for hit, person in self.naming_hits():
            if hit.id not in withdrawn:
                marks.append(Mark(hit.at, hit.id, person))
        return marks

    def may_be_known(self) -> bool:
        """Was anybody identified, as far as is worked out?"""
        return self._marks is None or bool(self._marks)

    def are_named_from(self, at: int) -> bool:
        """Was somebody named at or after `at`, perhaps in the visit of a hit then?"""
        marks = self.marks()
        return bool(marks) and marks[-1].at >= at

    def telling_marks(self) -> Sequence[Mark]:
        """The marks by which sessions are told: none of a visitor that is too many people."""
        return () if self.are_crowd() else self.marks()

    def owner_at(self, at: int) -> str | None:
        """The person to whom a visit starting at `at` belongs; None while nobody is known."""
        marks = self.telling_marks()
        if not marks:
            return None
        number = bisect_right(marks, at, key=lambda mark: mark.at) - 1
        return marks[max(number, 0)].person

    def persons(self) -> set[str]:
        """The ids of all people that the visitor was identified as."""
        return {mark.person for mark in self.marks()}

    def are_crowd(self) -> bool:
        """More people than one visitor can be: all its identifications lapse."""
        return self.crowd() > 0

    def crowd(self) -> int:
        """How many people the visitor is, counted after merging; 0 where one visitor can be so many."""
        most = self.rules.persons_per_visitor
        persons = self.persons() if len(self.marks()) > most else ()
        if len(persons) <= most:
            return 0
        roots = self.statements.roots()
        people = len({roots.get(person, person) for person in persons})
        return people if people > most else 0
