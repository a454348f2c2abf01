"""Who is whose: the sessions and people of every visitor, the person of every id, since when each is known."""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from models.batch.standing import Facts
from models.deals import first_contacts
from models.facts import (
    CONTACT_CHANGES,
    DEAL_CHANGES,
    FORM_FILLS,
    IDENTITIES,
    PAGE_VIEWS,
    PRODUCT_USAGE,
    TOUCHES,
    FormFill,
    Identification,
    Unlink,
)
from models.groups import roots_of
from models.hits import Hit
from models.identity import Link
from models.rules import Rules
from models.sessions import cut
from models.touches import standing_version
from models.usage import milestone_kind


class Mark(NamedTuple):
    """A visitor was identified as `person`."""

    at: int
    id: str
    person: str


class Visitor(NamedTuple):
    """A visitor's hits by session, its form fills, and whom it was identified as; all oldest first.

    `crowd` is how many people that are, where it is too many for one visitor.
    """

    name: str
    sessions: list[list[Hit]]
    fills: list[FormFill]
    withdrawn: set[str]
    marks: list[Mark]
    crowd: int

    def owner_at(self, at: int) -> str | None:
        """Whose a visit starting then is: the last identified by then, else the first ever."""
        if not self.marks:
            return None
        number = bisect_right(self.marks, at, key=lambda mark: mark.at)
        return self.marks[max(number - 1, 0)].person


class People:
    """Who is whose: every visitor's identifications, every id's person, since when each is known."""

    def __init__(self, kept: Facts, rules: Rules) -> None:
        self.visitors: list[Visitor] = []
        self.known: dict[str, int] = {}
        self.links: list[Link] = []
        self.groups: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        withdrawn = {name: _withdrawn(kept, name) for name in kept.of(IDENTITIES)}
        marks = self._marks(kept, withdrawn)
        self._know_others(kept)
        self.roots = roots_of(self.links, rules.settings.identity.emails_per_user_id)
        for name in {**kept.of(PAGE_VIEWS), **kept.of(FORM_FILLS), **marks}:
            self._add_visitor(name, kept, withdrawn.get(name, set()), sorted(marks[name]))

    def root(self, name: str) -> str:
        """The person an id belongs to."""
        root = self.roots.get(name)
        return name if root is None else root.id

    def _marks(self, kept: Facts, withdrawn: Mapping[str, set[str]]) -> dict[str, list[Mark]]:
        """Every identification that stands, by visitor; links and names are noted on the way."""
        marks: dict[str, list[Mark]] = defaultdict(list)
        for visitor, message in _messages(kept):
            for name in message.names:
                self._know(name, message.at)
            if message.id not in withdrawn.get(visitor, ()):
                self._link(message)
                if message.person:
                    for identified in {visitor, message.other_visitor or visitor}:
                        marks[identified].append(Mark(message.at, message.id, message.person))
        for visitor, hits in kept.of(PAGE_VIEWS).items():
            for hit in hits.values():
                if hit.person:
                    self._know(hit.person, hit.at)
                    if hit.id not in withdrawn.get(visitor, ()):
                        marks[visitor].append(Mark(hit.at, hit.id, hit.person))
        return marks

    def _link(self, message: Identification) -> None:
        self.links += (Link(message.at, message.id, source, target) for source, target in message.links)
        if message.group:
            person, group = message.group
            self.groups[person].append((message.at, message.id, group))

    def _know_others(self, kept: Facts) -> None:
        """People whom other systems name: touches that stand, contacts, contacts of deals."""
        for versions in kept.of(TOUCHES).values():
            fact = standing_version(list(versions.values()))
            if fact.person and not fact.deleted:
                self._know(fact.person, fact.at)
        for person, contacts in kept.of(CONTACT_CHANGES).items():
            self._know(person, min(contact.at for contact in contacts.values()))
        for person, uses in kept.of(PRODUCT_USAGE).items():
            for use in uses.values():
                if milestone_kind(use.event, kept.rules.settings):
                    self._know(person, use.at)
        for changes in kept.of(DEAL_CHANGES).values():
            for person, at in first_contacts(changes.values()).items():
                self._know(person, at)

    def _know(self, name: str, at: int) -> None:
        self.known[name] = min(at, self.known.get(name, at))

    def _add_visitor(self, name: str, kept: Facts, withdrawn: set[str], marks: list[Mark]) -> None:
        sessions = cut(sorted(kept.of(PAGE_VIEWS).get(name, {}).values()), kept.rules)
        fills = [fill for fill in kept.of(FORM_FILLS).get(name, {}).values() if fill.is_touch]
        people = {self.root(mark.person) for mark in marks}
        crowd = len(people) if len(people) > kept.rules.settings.identity.persons_per_visitor else 0
        self.visitors.append(Visitor(name, sessions, fills, withdrawn, [] if crowd else marks, crowd))


def _withdrawn(kept: Facts, visitor: str) -> set[str]:
    return {fact.unlinks for fact in kept.of(IDENTITIES)[visitor].values() if isinstance(fact, Unlink)}


def _messages(kept: Facts) -> Iterator[tuple[str, Identification]]:
    for visitor, facts in kept.of(IDENTITIES).items():
        yield from ((visitor, fact) for fact in facts.values() if isinstance(fact, Identification))
    for visitor, facts in kept.of(FORM_FILLS).items():
        yield from ((visitor, fact.identification) for fact in facts.values())
