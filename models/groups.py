"""Ids that links hold together, and which of them each id's links end at.

Links may join ids of any partition, and whether one closes a circle depends on all of
them; so ids that were ever linked form a group whose chief keeps the links and tells
every member its root. A group only grows: joining more than needed never changes a
root. An id points up to the id it joined through, always a smaller one, so that links
travel up and roots travel down one fixed path, in order.
"""

from collections.abc import Iterable, Mapping

import msgspec

from models.entity import put
from models.identity import Link, Root
from models.reports import Changes, Invite, Join, Message, Parts, Rooted, pack

VIA, LINKS, INVITED, TOLD = "VLIR"
"""Kinds of a group's parts of which there is one for each member."""
UP, OWN_ROOT = "U:", "O:"
"""Its parts of which there is one: the id that this one joined through, and the root it was told."""

_links = msgspec.msgpack.Decoder(list[Link]).decode
_root = msgspec.msgpack.Decoder(Root).decode
_text = msgspec.msgpack.Decoder(str).decode


class Group:
    """One id's part in its group; `parts` are the entity's, shared with it.

    `root` is where this id's links end: itself, while it has none.
    """

    __slots__ = (
        "_by_kind",
        "_changes",
        "_dirty",
        "_entity",
        "_messages",
        "_most_emails",
        "_parts",
        "_up",
        "name",
        "root",
    )

    def __init__(self, entity: str, name: str, parts: Parts, most_emails: int) -> None:
        self.name = name
        self._entity = entity
        self._parts = parts
        self._most_emails = most_emails
        up, told = parts.get(UP), parts.get(OWN_ROOT)
        self._up: str | None = _text(up) if up else None
        self.root = _root(told) if told else Root(name)
        self._by_kind: dict[str, dict[str, bytes]] = {}
        self._changes: Changes = {}
        self._messages: list[Message] = []
        self._dirty = False

    @property
    def is_joining(self) -> bool:
        """True between joining a group and being told the root there."""
        return self._up is not None and OWN_ROOT not in self._parts

    def link(self, links: Iterable[Link]) -> None:
        """These are the links of this id now."""
        self._take_links({self.name: pack(sorted(links))}, self.name)

    def receive(self, message: Invite | Join | Rooted) -> None:
        """Take a message of another member."""
        match message:
            case Invite(chief=chief):
                self._answer(chief)
            case Join(child=child, links=links, told=told):
                self._take_told(told)
                self._take_links(links, child)
            case Rooted(roots=roots):
                self._pass_down(roots)

    def flush(self) -> tuple[Changes, list[Message]]:
        """What changed in storage and what other members must be told."""
        if self._dirty and self._up is None:
            self._resolve()
        changes, messages = self._changes, self._messages
        self._changes, self._messages, self._dirty = {}, [], False
        return changes, messages

    def _set(self, name: str, value: bytes | None) -> None:
        if self._parts.get(name) != value:
            self._changes[name] = value
            put(self._parts, name, value)

    def _set_of(self, kind: str, member: str, value: bytes | None) -> None:
        put(self._members(kind), member, value)
        self._set(f"{kind}:{member}", value)

    def _members(self, kind: str) -> dict[str, bytes]:
        """The parts of a kind by member; looked for when first needed, since most entities have none."""
        if not self._by_kind:
            self._by_kind = {LINKS: {}, INVITED: {}, TOLD: {}}
            for name, value in self._parts.items():
                if name[1] == ":" and name[0] in self._by_kind:
                    self._by_kind[name[0]][name[2:]] = value
        return self._by_kind[kind]

    def _take_links(self, links: dict[str, bytes], child: str) -> None:
        for member in links:
            if member != self.name:
                self._set(f"{VIA}:{member}", pack(child))
        if up := self._up:
            self._messages.append(Join(self._to(up), self.name, links, {}))
            return
        for member, value in links.items():
            self._set_of(LINKS, member, value)
        self._dirty = True

    def _take_told(self, told: dict[str, bytes]) -> None:
        if up := self._up:
            self._messages.append(Join(self._to(up), self.name, {}, told))
            return
        for member, value in told.items():
            self._set_of(TOLD, member, value)

    def _answer(self, chief: str) -> None:
        """Pass an invitation up; the smaller of two chiefs becomes the chief of both groups."""
        if up := self._up:
            self._messages.append(Invite(self._to(up), chief))
        elif chief == self.name or f"{LINKS}:{chief}" in self._parts:
            return
        elif rank(chief) < rank(self.name):
            self._join(chief)
        else:
            self._messages.append(Invite(self._to(chief), self.name))

    def _join(self, chief: str) -> None:
        links = {self.name: pack([]), **self._members(LINKS)}
        told = {**self._members(TOLD)}
        for kind in (LINKS, TOLD, INVITED):
            for member in [*self._members(kind)]:
                self._set_of(kind, member, None)
        self._up = chief
        self._set(UP, pack(chief))
        self._messages.append(Join(self._to(chief), self.name, links, told))

    def _resolve(self) -> None:
        """As chief: tell every member whose root has changed, invite who is linked to."""
        kept = {member: _links(value) for member, value in self._members(LINKS).items()}
        links = [link for each in kept.values() for link in each]
        roots = roots_of(links, self._most_emails)
        down = {member: pack(roots.get(member) or Root(member)) for member in {self.name, *kept}}
        told = self._members(TOLD)
        self._pass_down({member: value for member, value in down.items() if told.get(member) != value})
        strangers = sorted({link.target for link in links} - kept.keys() - {self.name}, key=rank)
        if strangers and rank(strangers[0]) < rank(self.name):
            self._join(strangers[0])
            return
        for target in strangers:
            if f"{INVITED}:{target}" not in self._parts:
                self._set(f"{INVITED}:{target}", b"")
                self._messages.append(Invite(self._to(target), self.name))

    def _pass_down(self, roots: dict[str, bytes]) -> None:
        by_child: dict[str, dict[str, bytes]] = {}
        for member, value in sorted(roots.items()):
            if self._up is None:
                self._set_of(TOLD, member, value)
            if member == self.name:
                self.root = _root(value)
                self._set(OWN_ROOT, value)
            else:
                child = _text(self._parts[f"{VIA}:{member}"])
                by_child.setdefault(child, {})[member] = value
        self._messages.extend(Rooted(self._to(child), below) for child, below in by_child.items())

    def _to(self, name: str) -> str:
        return f"{self._entity}:{name}"


def rank(name: str) -> tuple[bool, str]:
    """Who becomes chief: e-mails before other ids, then the smaller text."""
    return "@" not in name, name


def roots_of(links: Iterable[Link], most_emails: int) -> dict[str, Root]:
    """The person of every id that the links name; an id that is its own root included.

    Links are taken in order of time: a later one of the same id replaces the former, one
    that would close a circle is ignored. A user id with more than `most_emails` e-mails
    is shared: its e-mail links lapse.
    """
    standing = sorted(without_shared(links, most_emails))
    parents: dict[str, Link] = {}
    for link in standing:
        if not _leads_to(link.target, link.source, parents):
            parents[link.source] = link
    named = {name for link in standing for name in (link.source, link.target)}
    return {name: Root(_end(name, parents), parents[name].at if name in parents else 0) for name in named}


def without_shared(links: Iterable[Link], most_emails: int) -> list[Link]:
    """The links less the e-mail links of user ids that name too many e-mails."""
    kept = list(links)
    if len(kept) <= most_emails:
        return kept
    emails: dict[str, set[str]] = {}
    for link in kept:
        if "@" not in link.source and "@" in link.target:
            emails.setdefault(link.source, set()).add(link.target)
    shared = {name for name, named in emails.items() if len(named) > most_emails}
    return [link for link in kept if not (link.source in shared and "@" in link.target)]


def _leads_to(name: str, other: str, parents: Mapping[str, Link]) -> bool:
    """Is the other id on the way from this one to the end of its links?"""
    while name != other:
        if name not in parents:
            return False
        name = parents[name].target
    return True


def _end(name: str, parents: Mapping[str, Link]) -> str:
    """The id at the end of this one's links."""
    while name in parents:
        name = parents[name].target
    return name
