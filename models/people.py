"""People: the members that touches, usage and deals report to, and that report to each other and to an account.

A step of the members lane. A person id reports to the person it is linked to, a person to
the present account. What is passed on is passed on as it came, so that one more touch costs
the same however long the history.
"""

from collections.abc import Iterable, Mapping

import msgspec

from models.counts import SHARED, Count, Counted
from models.entity import Conflict, Contents, Outcome, keep_smaller, put, reports
from models.facts import (
    CONTACT_CHANGES,
    ContactChange,
    Fact,
)
from models.groups import OWN_ROOT, UP, Group
from models.identity import Link
from models.leads import Contact, Lead, account_of, contact_of, lead_moment, role_of
from models.reports import (
    CONTACT,
    DEAL,
    GROUP,
    KNOWN,
    LINK,
    MERGED,
    MILESTONE,
    ROOT,
    TOUCH,
    USAGE,
    WATCH,
    Changes,
    Invite,
    Join,
    Message,
    Parts,
    Report,
    Rooted,
    difference,
    id_in,
    pack,
    tag_of,
    under,
)
from models.rules import Rules
from models.usage import account_named, milestone_touch

_SAID = LINK + GROUP + CONTACT + MERGED + MILESTONE + WATCH
"""Kinds that say who a person is: few, and looked through at every change of them."""
_PASSED_TO_ACCOUNT = TOUCH + DEAL + USAGE
"""Kinds that are handed on as they came; they grow with a history."""
_PASSED_TO_PERSON = _PASSED_TO_ACCOUNT + GROUP + CONTACT + MILESTONE
_int = msgspec.msgpack.Decoder(int).decode
_str = msgspec.msgpack.Decoder(str).decode
_link = msgspec.msgpack.Decoder(Link).decode
_group = msgspec.msgpack.Decoder(tuple[int, str]).decode
_contact = msgspec.msgpack.Decoder(Contact).decode


class Person:
    """One person id: what children report of it, and where it reports to.

    Who the person is and whose is thought over only when something was said of it.
    """

    __slots__ = (
        "_changed", "_group", "_is_forgotten", "_is_restated", "_known", "_links_changed", "_own", "_parent", "_rules",
        "_said", "_shared", "_watched", "name", "parts", "tag",
    )  # fmt: skip

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self.name = name
        self.tag = tag_of(f"person:{name}")
        self.parts = parts
        self._rules = rules
        self._group = Group("person", name, parts, rules.settings.identity.emails_per_user_id)
        self._changed: Changes = {}
        self._is_forgotten = self._is_restated = self._links_changed = False
        self._said = {name: value for name, value in parts.items() if name[0] in _SAID}
        self._known = self._first_named()
        self._parent, self._own = self._standing()
        self._watched = self._watchers()
        self._shared = self._shares(self._links())

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take a contact-change."""
        if not isinstance(fact, ContactChange):
            raise TypeError(f"no fact of a person: {fact!r}")
        name, value = f"{CONTACT}:{fact.id}", pack(contact_of(fact))
        conflict = keep_smaller(self.parts, name, value, CONTACT_CHANGES, fact.id, _contact)
        if self.parts[name] == value:
            self._note(name, value)
        return conflict

    def receive(self, message: Message) -> None:
        """Take a child's report, or the group's."""
        match message:
            case Report(tag=tag, changes=changes):
                for name, value in changes.items():
                    self._take(under(tag, name), value)
            case Invite() | Join() | Rooted():
                self._group.receive(message)
            case _:
                raise TypeError(f"no message to a person: {message!r}")

    def _take(self, part: str, value: bytes | None) -> None:
        """Keep a part that a child reports."""
        held = self.parts.get(part)
        if held == value:
            return
        if held is not None and part[0] == KNOWN and _int(held) == self._known:
            self._is_forgotten = self._is_restated = True
        put(self.parts, part, value)
        self._note(part, value)

    def _note(self, part: str, value: bytes | None) -> None:
        """The part is so now, or gone; what else has to be thought over for that?"""
        self._changed[part] = value
        kind = part[0]
        if kind in _SAID:
            put(self._said, part, value)
            self._links_changed |= kind == LINK
            self._is_restated |= kind != LINK
        elif kind == USAGE:
            self._is_restated |= self._known is None
        named = None if value is None else _named_at(part, value)
        if named is not None and (self._known is None or named < self._known):
            self._known = named
            self._is_restated = True

    def _first_named(self) -> int | None:
        named = (_named_at(name, value) for name, value in self.parts.items())
        return min((at for at in named if at is not None), default=None)

    def _of_kind(self, kind: str) -> list[tuple[str, bytes]]:
        return [part for part in self._said.items() if part[0][0] == kind]

    def _links(self) -> list[Link]:
        return [_link(value) for _, value in self._of_kind(LINK)]

    def flush(self) -> Outcome:
        """Where the person reports to now, and what has to be said there."""
        counts = self._relink() if self._links_changed else ()
        changes, messages = self._group.flush()
        if self._is_forgotten:
            self._known = self._first_named()
        if self._is_restated or OWN_ROOT in changes or UP in changes:
            messages.extend(self._restate())
        else:
            messages.extend(self._addressed(self._parent, _passed(self._changed, self._parent)))
        changes = {**self._changed, **changes}
        self._changed = {}
        self._is_forgotten = self._is_restated = self._links_changed = False
        return Outcome(changes, messages, counts)

    def counts(self) -> Counted:
        """All that the id's state adds to the counts."""
        return self._share_counts(self._shared)

    def _relink(self) -> Counted:
        """Tell the group the links as they are now; what the counts change by."""
        links = self._links()
        self._group.link(links)
        counted, self._shared = self._shared, self._shares(links)
        return self._share_counts(self._shared - counted)

    def _shares(self, links: Iterable[Link]) -> int:
        """How many e-mails the user id is linked to; 0 where one can be linked to so many."""
        emails = {link.target for link in links if "@" in link.target and "@" not in self.name}
        return len(emails) if len(emails) > self._rules.settings.identity.emails_per_user_id else 0

    def _share_counts(self, change: int) -> Counted:
        return [(Count(SHARED, f"user\0{self.name}"), (change,))] if change else ()

    def _restate(self) -> list[Report]:
        """What has to be said after the person itself may have changed."""
        old, old_own, old_watched = self._parent, self._own, self._watched
        parent, own = self._parent, self._own = self._standing()
        self._watched = self._watchers()
        if parent == old:
            said = self._addressed(parent, {**_passed(self._changed, parent), **difference(old_own, own)})
        else:
            held = {**_passed({**self.parts, **self._changed}, old), **old_own} if old else {}
            said = self._addressed(old, dict.fromkeys(held))
            said += self._addressed(parent, {**_passed(self.parts, parent), **own})
        return [*said, *reports(old_watched, self._watched, self.tag)] if old_watched or self._watched else said

    def _addressed(self, parent: str, changes: Changes) -> list[Report]:
        """The reports of these changes; usage may be another account's while the person is their own."""
        if not parent or not changes:
            return []
        if parent != f"account:{self.name}":
            return [Report(parent, self.tag, changes)]
        by_parent: dict[str, Changes] = {}
        for name, value in changes.items():
            named = account_named(name) if name[0] == USAGE else ""
            by_parent.setdefault(f"account:{named}" if named else parent, {})[name] = value
        return [Report(to, self.tag, each) for to, each in by_parent.items()]

    @property
    def root(self) -> str:
        """The person id that this one belongs to."""
        return self._group.root.id

    @property
    def parent(self) -> str:
        """The person or account that it reports to; empty while no fact names it."""
        return self._parent

    def _standing(self) -> tuple[str, dict[str, bytes]]:
        """The parent, and what it should hold of the id itself; nobody while the group has yet to say who that is."""
        root = self._group.root
        if self._group.is_joining:
            return "", {}
        if root.id == self.name:
            return self._own_standing() if self._is_anybody() else ("", {})
        known = (
            {}
            if self._known is None
            else {f"{KNOWN}:": pack(self._known), f"{MERGED}:": pack((root.linked_at, self.name))}
        )
        return f"person:{root.id}", known

    def _own_standing(self) -> tuple[str, dict[str, bytes]]:
        """The account of a person who is merged into nobody, and the lead that it should hold."""
        ids, contacts = self._ids(), [_contact(value) for _, value in self._of_kind(CONTACT)]
        emails = [name for name in ids if "@" in name]
        parent = f"account:{account_of(self.name, emails, contacts, self._calls(), self._rules)}"
        if self._known is None:
            return parent, {}
        lead = Lead(lead_moment(self._known, contacts), self.name, bool(contacts), tuple(ids), role_of(contacts))
        return parent, {f"{KNOWN}:": pack(lead), **self._milestones()}

    def _is_anybody(self) -> bool:
        """Is the id known, or did anybody use the product by it?"""
        return self._known is not None or any(name[0] == USAGE for name in self.parts)

    def _milestones(self) -> dict[str, bytes]:
        """The touches that the person's first uses of the product are, whichever id used it."""
        first: dict[str, tuple[int, str]] = {}
        for name, value in self._of_kind(MILESTONE):
            event = id_in(name)
            first[event] = min(_group(value), first.get(event, _group(value)))
        return {
            f"{TOUCH}:{use}/{event}": pack(milestone_touch(event, at, use, self._rules))
            for event, (at, use) in first.items()
        }

    def _watchers(self) -> Contents:
        watching = self._of_kind(WATCH)
        answer = {f"{ROOT}:": pack((self.name, self._group.root.id))} if watching else {}
        return {f"visitor:{_str(value)}": answer for _, value in watching}

    def _calls(self) -> list[tuple[int, str, str]]:
        """The group calls that name the person."""
        calls = [(id_in(name), _group(value)) for name, value in self._of_kind(GROUP)]
        return [(at, message, group) for message, (at, group) in calls]

    def _ids(self) -> list[str]:
        """The person's ids, their own first, then those merged into it, the one linked last first."""
        linked = sorted((_group(value) for _, value in self._of_kind(MERGED)), reverse=True)
        return [self.name, *(merged for _, merged in linked)]


def _named_at(name: str, value: bytes) -> int | None:
    """When a part first named the person; None: it names nobody."""
    if name[0] == KNOWN:
        return _int(value)
    return _contact(value).at if name[0] == CONTACT else None


def _passed(parts: Mapping[str, bytes | None], parent: str) -> Changes:
    """Those of the parts that are handed on to an account, or to another person."""
    kinds = _PASSED_TO_ACCOUNT if parent.startswith("account:") else _PASSED_TO_PERSON
    return {name: value for name, value in parts.items() if name[0] in kinds}
