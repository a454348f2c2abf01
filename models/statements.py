"""What is said of a visitor: whom its messages name, what of that is withdrawn, which of them are a bot's.

Most of it are facts of the visitor's own, each a part; the rest are parts that others report.
"""

from typing import Any

import msgspec

from models.facts import FORM_FILLS, IDENTITIES, FormFill, Identification, Unlink, Verdict
from models.reports import MARK, OWNED, ROOT, VERDICT, Changes, Report, id_in, pack, under
from models.visits import Mark

IDENTIFICATION, FILL, UNLINK = "i", "F", "x"
"""Kinds of the parts in which facts are kept, beside VERDICT."""
Statement = FormFill | Identification | Unlink | Verdict
_OF_IDENTITIES = IDENTIFICATION, UNLINK, VERDICT
_KIND_OF: dict[type, str] = {FormFill: FILL, Identification: IDENTIFICATION, Unlink: UNLINK, Verdict: VERDICT}
_unpack_identification = msgspec.msgpack.Decoder(Identification).decode
_unpack_fill = msgspec.msgpack.Decoder(FormFill).decode
_unpack_unlink = msgspec.msgpack.Decoder(Unlink).decode
_unpack_verdict = msgspec.msgpack.Decoder(Verdict).decode
_unpack_mark = msgspec.msgpack.Decoder(tuple[int, str]).decode
_unpack_root = msgspec.msgpack.Decoder(tuple[str, str]).decode


def topic_of(fact: Statement) -> str:
    """The topic that the fact came by, within which its id is its own."""
    return FORM_FILLS if isinstance(fact, FormFill) else IDENTITIES


class Statements:
    """What is said of a visitor, each by the name of its part, and what of it changed.

    `alias_marks` say as whom other visitors' aliases know it, `roots` into whom people that
    it was identified as are merged, `owned` which of its form fills another system says whose
    they are.
    """

    __slots__ = ("_changed", "alias_marks", "fills", "identifications", "owned", "roots", "unlinks", "verdicts")

    def __init__(self) -> None:
        self.identifications: dict[str, Identification] = {}
        self.fills: dict[str, FormFill] = {}
        self.unlinks: dict[str, Unlink] = {}
        self.verdicts: dict[str, Verdict] = {}
        self.alias_marks: dict[str, Mark] = {}
        self.roots: dict[str, tuple[str, str]] = {}
        self.owned: dict[str, str] = {}
        self._changed: Changes = {}

    def load(self, name: str, value: bytes) -> None:
        """Take a part as it is at rest, or as it is reported."""
        kind = name[0]
        if kind == IDENTIFICATION:
            self.identifications[name] = _unpack_identification(value)
        elif kind == FILL:
            self.fills[name] = _unpack_fill(value)
        elif kind == UNLINK:
            self.unlinks[name] = _unpack_unlink(value)
        elif kind == VERDICT:
            self.verdicts[name] = _unpack_verdict(value)
        elif kind == MARK:
            at, person = _unpack_mark(value)
            self.alias_marks[name] = Mark(at, id_in(name), person)
        elif kind == ROOT:
            self.roots[name] = _unpack_root(value)
        elif kind == OWNED:
            self.owned[name] = id_in(name)

    def hear(self, report: Report) -> None:
        """Keep what is reported of the visitor, under the tag of who reports it."""
        for name, value in report.changes.items():
            mine = under(report.tag, name)
            self._changed[mine] = value
            if value is None:
                self._of(mine[0]).pop(mine, None)
            else:
                self.load(mine, value)

    def standing(self, fact: Statement) -> Statement | None:
        """The fact that is kept under the id of this one, of whatever sort."""
        for kind in (FILL,) if isinstance(fact, FormFill) else _OF_IDENTITIES:
            known: Statement | None = self._of(kind).get(f"{kind}:{fact.id}")
            if known is not None:
                return known
        return None

    def keep(self, fact: Statement, instead_of: Statement | None) -> None:
        """Keep a fact, and no more the one that stood under its id."""
        if instead_of is not None:
            kind = _KIND_OF[type(instead_of)]
            name = f"{kind}:{instead_of.id}"
            del self._of(kind)[name]
            self._changed[name] = None
        kind = _KIND_OF[type(fact)]
        name = f"{kind}:{fact.id}"
        self._of(kind)[name] = fact
        self._changed[name] = pack(fact)

    def _of(self, kind: str) -> dict[str, Any]:
        """What parts of this kind say."""
        kinds: dict[str, dict[str, Any]] = {
            IDENTIFICATION: self.identifications, FILL: self.fills, UNLINK: self.unlinks, VERDICT: self.verdicts,
            MARK: self.alias_marks, ROOT: self.roots, OWNED: self.owned,
        }  # fmt: skip
        return kinds[kind]

    def changes(self) -> Changes:
        """The parts that changed since this was last asked."""
        changes, self._changed = self._changed, {}
        return changes

    def includes(self, message_id: str) -> bool:
        """Is there a message with this id that names people, or a form fill?"""
        return f"{IDENTIFICATION}:{message_id}" in self.identifications or f"{FILL}:{message_id}" in self.fills

    def withdrawn(self) -> set[str]:
        """The ids of messages whose links were withdrawn."""
        return {unlink.unlinks for unlink in self.unlinks.values()}
