"""Touches that other systems record: a touch id's versions, which report to its person. A step of the members lane."""

from collections.abc import Iterator

import msgspec

from models.entity import Conflict, Contents, Reporter, keep_smaller
from models.facts import (
    TOUCHES,
    Fact,
    TouchFact,
)
from models.reports import (
    FORM,
    KNOWN,
    OWNED,
    SAME_AS,
    TOUCH,
    Parts,
    pack,
    tag_of,
)
from models.rules import Rules
from models.touches import Touch, merged_with_form, recorded_touch, standing_version

_VERSION = "V"
_str = msgspec.msgpack.Decoder(str).decode
_claim = msgspec.msgpack.Decoder(tuple[str | None, Touch]).decode
_version = msgspec.msgpack.Decoder(TouchFact).decode


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
