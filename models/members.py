"""People, recorded touches and deals: the members that report to an account.

The step of the members lane. A person id reports to the person it is linked to, a
person to the present account, a deal to its account or first contact. What is passed on
is passed on as it came, so that one more touch costs the same however long the history.
"""

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from models.counts import SHARED, Count, Counted
from models.deals import Deal, fold
from models.decoding import decode
from models.entity import Conflict, Contents, Outcome, Reporter, put, reports, take
from models.facts import (
    BILLING,
    CONTACT_CHANGES,
    DEAL_CHANGES,
    TOUCHES,
    ContactChange,
    DealChange,
    Fact,
    Refund,
    TouchFact,
)
from models.groups import Group
from models.identity import Link, account_id
from models.leads import Contact, Lead, account_of, contact_of, lead_moment, role_of
from models.reports import (
    CONTACT,
    DEAL,
    FORM,
    GROUP,
    KNOWN,
    LINK,
    MERGED,
    MILESTONE,
    OWNED,
    ROOT,
    SAME_AS,
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
from models.times import END_OF_TIME
from models.touches import Touch, merged_with_form, recorded_touch, standing_version
from models.usage import account_named, milestone_touch

_VERSION, _CHANGE, _REFUND = "VDB"
_PASSED_ONLY = TOUCH + DEAL + KNOWN + USAGE
"""Kinds that grow with a history; the others are few and looked through at every change."""
_int = msgspec.msgpack.Decoder(int).decode
_str = msgspec.msgpack.Decoder(str).decode
_link = msgspec.msgpack.Decoder(Link).decode
_group = msgspec.msgpack.Decoder(tuple[int, str]).decode
_claim = msgspec.msgpack.Decoder(tuple[str | None, Touch]).decode
_version = msgspec.msgpack.Decoder(TouchFact).decode
_contact = msgspec.msgpack.Decoder(Contact).decode


class Person:
    """One person id: what children report of it, and where it reports to."""

    __slots__ = (
        "_changed", "_group", "_known", "_links_changed", "_own", "_parent", "_rules", "_said", "_shared", "_watched",
        "name", "parts", "tag",
    )  # fmt: skip

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self.name = name
        self.tag = tag_of(f"person:{name}")
        self.parts = parts
        self._rules = rules
        self._group = Group("person", name, parts, rules.settings.identity.emails_per_user_id)
        self._changed: Changes = {}
        self._links_changed = False
        self._said = {name: value for name, value in parts.items() if name[0] not in _PASSED_ONLY}
        self._known = self._first_named()
        self._parent, self._own = self._target(), self._contents()
        self._watched = self._watchers()
        self._shared = self._shares()

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take a contact-change."""
        if not isinstance(fact, ContactChange):
            raise TypeError(f"no fact of a person: {fact!r}")
        name, value = f"{CONTACT}:{fact.id}", pack(contact_of(fact))
        conflict = keep_smaller(self.parts, name, value, CONTACT_CHANGES, fact.id, _contact)
        if self.parts[name] == value:
            self._note({name: value})
        return conflict

    def receive(self, message: Message) -> None:
        """Take a child's report, or the group's."""
        match message:
            case Report():
                withdrawn = self._withdraws_first(message)
                self._note(take(self.parts, message), withdrawn)
            case Invite() | Join() | Rooted():
                self._group.receive(message)
            case _:
                raise TypeError(f"no message to a person: {message!r}")

    def _withdraws_first(self, report: Report) -> bool:
        """Does the report take back the moment at which the id was first named?"""
        held = (self.parts.get(under(report.tag, name)) for name in report.changes if name[0] == KNOWN)
        return any(value is not None and _int(value) == self._known for value in held)

    def _note(self, changes: Changes, withdrawn: bool = False) -> None:
        self._changed.update(changes)
        for name, value in changes.items():
            if name[0] not in _PASSED_ONLY:
                self._links_changed |= name[0] == LINK
                put(self._said, name, value)
        named = [at for name, value in changes.items() if value for at in _named_in(name, value)]
        known = [] if self._known is None else [self._known]
        self._known = self._first_named() if withdrawn else min([*named, *known], default=None)

    def _first_named(self) -> int | None:
        return min((at for name, value in self.parts.items() for at in _named_in(name, value)), default=None)

    def _links(self) -> list[Link]:
        return [_link(value) for name, value in self._said.items() if name[0] == LINK]

    def flush(self) -> Outcome:
        """Where the person reports to now, and what has to be said there."""
        if self._links_changed:
            self._group.link(self._links())
        changes, messages = self._group.flush()
        stored = {**self._changed, **changes}
        messages.extend(self._reports())
        counts = self._share_counts(self._shared) if self._links_changed else ()
        self._shared = self._shares()
        self._changed, self._links_changed = {}, False
        return Outcome(stored, messages, counts)

    def counts(self) -> Counted:
        """All that the id's state adds to the counts."""
        return self._share_counts(0)

    def _shares(self) -> int:
        """How many e-mails the user id is linked to; 0 where one can be linked to so many."""
        emails = {link.target for link in self._links() if "@" in link.target and "@" not in self.name}
        return len(emails) if len(emails) > self._rules.settings.identity.emails_per_user_id else 0

    def _share_counts(self, counted: int) -> Counted:
        change = self._shares() - counted
        return [(Count(SHARED, f"user\0{self.name}"), (change,))] if change else ()

    def _reports(self) -> Iterator[Message]:
        parent, contents = self._target(), self._contents()
        own: Changes = {**contents}
        if parent != self._parent:
            names = [name for name in {**self.parts, **self._changed} if name[0] in _passed(self._parent)]
            yield from self._addressed(self._parent, dict.fromkeys([*names, *self._own]))
            passed: Changes = {name: value for name, value in self.parts.items() if name[0] in _passed(parent)}
        else:
            passed = {name: value for name, value in self._changed.items() if name[0] in _passed(parent)}
            own = difference(self._own, contents)
        yield from self._addressed(parent, {**passed, **own})
        self._parent, self._own = parent, contents
        watched = self._watchers()
        yield from reports(self._watched, watched, self.tag)
        self._watched = watched

    def _addressed(self, parent: str, changes: Changes) -> Iterator[Report]:
        """The reports of these changes; usage may be another account's while the person is their own."""
        by_parent: dict[str, Changes] = {}
        is_own = parent == f"account:{self.name}"
        for name, value in changes.items() if parent else ():
            named = account_named(name) if is_own and name[0] == USAGE else ""
            by_parent.setdefault(f"account:{named}" if named else parent, {})[name] = value
        return (Report(to, self.tag, each) for to, each in by_parent.items())

    @property
    def root(self) -> str:
        """The person id that this one belongs to."""
        return self._group.root.id

    @property
    def parent(self) -> str:
        """The person or account that it reports to; empty while no fact names it."""
        return self._parent

    def _target(self) -> str:
        """The parent; nobody while the group has yet to say who the person is."""
        if self._group.is_joining:
            return ""
        root = self._group.root.id
        if root != self.name:
            return f"person:{root}"
        return f"account:{self._account()}" if self._is_anybody() else ""

    def _is_anybody(self) -> bool:
        """Is the id known, or did anybody use the product by it?"""
        return self._known is not None or any(name[0] == USAGE for name in self.parts)

    def _contents(self) -> dict[str, bytes]:
        """What the parent should hold of the id itself."""
        root = self._group.root
        if self._known is None:
            return {}
        if root.id == self.name:
            contacts = self._contacts()
            at, ids = lead_moment(self._known, contacts), tuple(self._ids())
            lead = Lead(at, self.name, bool(contacts), ids, role_of(contacts))
            return {f"{KNOWN}:": pack(lead), **self._milestones()}
        return {f"{KNOWN}:": pack(self._known), f"{MERGED}:": pack((root.linked_at, self.name))}

    def _milestones(self) -> dict[str, bytes]:
        """The touches that the person's first uses of the product are, whichever id used it."""
        first: dict[str, tuple[int, str]] = {}
        for name, value in self._said.items():
            if name[0] == MILESTONE:
                event = id_in(name)
                first[event] = min(_group(value), first.get(event, _group(value)))
        return {
            f"{TOUCH}:{use}/{event}": pack(milestone_touch(event, at, use, self._rules))
            for event, (at, use) in first.items()
        }

    def _watchers(self) -> Contents:
        answer = {f"{ROOT}:": pack((self.name, self._group.root.id))}
        return {f"visitor:{_str(value)}": answer for name, value in self._said.items() if name[0] == WATCH}

    def _contacts(self) -> list[Contact]:
        return [_contact(value) for name, value in self._said.items() if name[0] == CONTACT]

    def _account(self) -> str:
        groups = [(*_group(value), name) for name, value in self._said.items() if name[0] == GROUP]
        calls = [(at, name.partition(":")[2], group) for at, group, name in groups]
        return account_of(self.name, self._emails(), self._contacts(), calls, self._rules)

    def _ids(self) -> list[str]:
        """The person's ids, their own first, then those merged into it, the one linked last first."""
        linked = sorted((_group(value) for name, value in self._said.items() if name[0] == MERGED), reverse=True)
        return [self.name, *(merged for _, merged in linked)]

    def _emails(self) -> list[str]:
        return [name for name in self._ids() if "@" in name]


def _named_in(name: str, value: bytes) -> list[int]:
    if name[0] == KNOWN:
        return [_int(value)]
    return [_contact(value).at] if name[0] == CONTACT else []


def _passed(parent: str) -> str:
    """The kinds of parts that are handed on to an account, or to another person."""
    return TOUCH + DEAL + USAGE if parent.startswith("account:") else TOUCH + DEAL + USAGE + GROUP + CONTACT + MILESTONE


def keep_smaller(parts: Parts, name: str, value: bytes, topic: str, fact_id: str, read: Any) -> Conflict | None:
    """Keep the smaller of two facts with one id (by time, then bytes); the other is reported."""
    known = parts.get(name)
    if known is None or known == value:
        parts[name] = value
        return None
    mine, theirs = read(value), read(known)
    if (theirs.at, theirs.raw) <= (mine.at, mine.raw):
        return Conflict(topic, fact_id, theirs.at)
    parts[name] = value
    return Conflict(topic, fact_id, mine.at)


class RecordedTouch(Reporter):
    """One touch id: the versions other systems recorded, and the form fill that it may be."""

    __slots__ = ("_rules",)
    kind = "touch"

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self._rules = rules
        super().__init__(name, parts)

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take one version of the touch."""
        if not isinstance(fact, TouchFact):
            raise TypeError(f"no fact of a touch: {fact!r}")
        name, value = f"{_VERSION}:{'' if fact.updated_at is None else fact.updated_at}", pack(fact)
        conflict = keep_smaller(self.parts, name, value, TOUCHES, fact.id, _version)
        self._dirty[name] = self.parts[name]
        return conflict

    def _of_kind(self, kind: str) -> list[tuple[str, bytes]]:
        return sorted((name, value) for name, value in self.parts.items() if name[0] == kind)

    def _contents(self) -> Contents:
        contents: Contents = {}
        for to, name, value in (*self._named(), *self._touches()):
            contents.setdefault(to, {})[name] = value
        return contents

    def _named(self) -> Iterator[tuple[str, str, bytes]]:
        own = [_version(value) for name, value in self._of_kind(_VERSION) if name[1] == ":"]
        fact = standing_version(own) if own else None
        if fact and fact.person and not fact.deleted:
            yield f"person:{fact.person}", f"{KNOWN}:", pack(fact.at)

    def _touches(self) -> Iterator[tuple[str, str, bytes]]:
        versions = self._of_kind(_VERSION)
        same = min((_str(value) for _, value in self._of_kind(SAME_AS)), default=None)
        if same is not None:
            own = [version for version in versions if version[0][1] == ":"]
            yield from ((f"touch:{same}", name, value) for name, value in own)
            versions = [version for version in versions if version not in own]
        facts = [_version(value) for _, value in versions]
        fact = standing_version(facts) if facts else None
        if fact is not None and fact.deleted:
            fact = None
        for person, touch in self._standing(fact):
            visitor = tag_of(touch.visitor) if touch.visitor else ""
            yield f"person:{person}", f"{TOUCH}:{visitor}{touch.id}", pack(touch)
        yield from self._owned(fact)

    def _standing(self, fact: TouchFact | None) -> Iterator[tuple[str, Touch]]:
        forms = self._forms()
        for number, (owner, form) in enumerate(forms):
            same = fact if number == 0 else None
            person = owner or (same.person if same else None)
            if person:
                yield person, merged_with_form(form, same) if same else form
        if fact and fact.person and not forms:
            yield fact.person, recorded_touch(fact, self._rules)

    def _owned(self, fact: TouchFact | None) -> Iterator[tuple[str, str, bytes]]:
        """Tells a visitor whom nobody knows that its form fill is somebody's, as another system recorded."""
        forms = self._forms()
        owner, form = forms[0] if forms else (None, None)
        if form and form.visitor and owner is None and fact and fact.person:
            yield f"visitor:{form.visitor}", f"{OWNED}:{form.id}", pack(fact.person)

    def _forms(self) -> list[tuple[str | None, Touch]]:
        """The form fills that it is, oldest first, each with the person whose it is by the visitor."""
        return sorted((_claim(value) for _, value in self._of_kind(FORM)), key=lambda claim: claim[1].order)


class DealRecord(Reporter):
    """One deal: its facts as they came, so that any rule can read them again."""

    __slots__ = ("_rules",)
    kind = "deal"

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self._rules = rules
        super().__init__(name, parts)

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take a deal change or a refund."""
        if not isinstance(fact, DealChange | Refund):
            raise TypeError(f"no fact of a deal: {fact!r}")
        kind, read = (_CHANGE, self._change) if isinstance(fact, DealChange) else (_REFUND, self._refund)
        name = f"{kind}:{fact.id}"
        conflict = keep_smaller(self.parts, name, fact.raw, topic, fact.id, read)
        self._dirty[name] = self.parts[name]
        return conflict

    def receive(self, message: Message) -> None:
        """Nobody reports to a deal."""
        raise TypeError(f"no message to a deal: {message!r}")

    def _read(self, topic: str, raw: bytes) -> Any:
        return decode(topic, raw, END_OF_TIME, self._rules.settings)

    def _change(self, raw: bytes) -> Any:
        return self._read(DEAL_CHANGES, raw)

    def _refund(self, raw: bytes) -> Any:
        return self._read(BILLING, raw)

    def _changes(self) -> list[DealChange]:
        return [self._change(value) for name, value in self.parts.items() if name[0] == _CHANGE]

    @property
    def deal(self) -> Deal:
        """The deal as all its facts say together."""
        refunds = [self._refund(value) for name, value in self.parts.items() if name[0] == _REFUND]
        return fold(self.name, self._changes(), refunds, self._rules.settings.currency)

    @property
    def parent(self) -> str:
        """The account or person that it reports to."""
        deal = self.deal
        return deal_parent(deal.account, deal.contacts, deal.id, self._rules)

    def _contents(self) -> Contents:
        if not self.parts:
            return {}
        deal = self.deal
        parent = deal_parent(deal.account, deal.contacts, deal.id, self._rules)
        contents: Contents = {parent: {f"{DEAL}:{self.name}": pack(deal)}}
        for person, at in first_contacts(self._changes()).items():
            contents.setdefault(f"person:{person}", {})[f"{KNOWN}:"] = pack(at)
        return contents


def first_contacts(changes: Iterable[DealChange]) -> dict[str, int]:
    """When each contact was first named on the deal."""
    first: dict[str, int] = {}
    for change in changes:
        for person in change.contacts or ():
            first[person] = min(change.at, first.get(person, change.at))
    return first


def deal_parent(account: str | None, contacts: tuple[str, ...], deal: str, rules: Rules) -> str:
    """Whose journey the deal's is: its account's, else its first contact's, else nobody's."""
    if account is not None:
        return f"account:{account_id(account, rules.registrable)}"
    # Ids are trimmed: none begins with a space, so nobody's journey is nobody's.
    return f"person:{contacts[0]}" if contacts else f"account: {deal}"
