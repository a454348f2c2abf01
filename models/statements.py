"""What is said of a visitor: whom its messages name, what of that is withdrawn, which of them are a bot's.

Most of it are facts of the visitor's own, each a part; the rest are parts that others report.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from models.facts import FORM_FILLS, IDENTITIES, FormFill, Identification, Unlink, Verdict
from models.reports import MARK, OWNED, ROOT, VERDICT, Changes, Report, id_in, pack, under
from models.visits import Mark

IDENTIFICATION, FILL, UNLINK = "i", "F", "x"
"""Kinds of the parts in which facts are kept, beside VERDICT."""
Statement = FormFill | Identification | Unlink | Verdict
_OF_IDENTITIES = IDENTIFICATION, UNLINK, VERDICT
_KIND_OF: dict[type, str] = {FormFill: FILL, Identification: IDENTIFICATION, Unlink: UNLINK, Verdict: VERDICT}
_unpack_mark = msgspec.msgpack.Decoder(tuple[int, str]).decode
_UNPACK: dict[str, Callable[[bytes], Any]] = {
    IDENTIFICATION: msgspec.msgpack.Decoder(Identification).decode,
    FILL: msgspec.msgpack.Decoder(FormFill).decode,
    UNLINK: msgspec.msgpack.Decoder(Unlink).decode,
    VERDICT: msgspec.msgpack.Decoder(Verdict).decode,
    ROOT: msgspec.msgpack.Decoder(tuple[str, str]).decode,
}
_NOTHING: Final[dict[str, Any]] = {}


def topic_of(fact: Statement) -> str:
    """The topic that the fact came by, within which its id is its own."""
    return FORM_FILLS if isinstance(fact, FormFill) else IDENTITIES


class Statements:
    """What is said of a visitor, by the kind of part and its name, and what of it changed."""

    __slots__ = ("_by_kind", "_changed")

    def __init__(self) -> None:
        self._by_kind: dict[str, dict[str, Any]] = {}  # of most visitors nothing is said
        self._changed: Changes = {}

    # --- what is said ---------------------------------------------------------------

    def identifications(self) -> Mapping[str, Identification]:
        """The messages that name people."""
        return self._of(IDENTIFICATION)

    def fills(self) -> Mapping[str, FormFill]:
        """The forms filled in."""
        return self._of(FILL)

    def verdicts(self) -> Mapping[str, Verdict]:
        """Which messages are a bot's, by the visitor's own and by what its partition's roll reports."""
        return self._of(VERDICT)

    def alias_marks(self) -> Mapping[str, Mark]:
        """As whom aliases of other visitors name it."""
        return self._of(MARK)

    def roots(self) -> dict[str, str]:
        """Into whom the people are merged whose roots it watches."""
        return dict(self._of(ROOT).values())

    def owned(self) -> set[str]:
        """The ids of form fills of which another system says whose they are."""
        return {*self._of(OWNED).values()}

    def unlinks(self) -> Mapping[str, Unlink]:
        """The withdrawals of messages' links."""
        return self._of(UNLINK)

    def withdrawn(self) -> set[str]:
        """The ids of messages whose links were withdrawn."""
        return {unlink.unlinks for unlink in self.unlinks().values()}

    def includes(self, message_id: str) -> bool:
        """Is there a message with this id that names people, or a form fill?"""
        return f"{IDENTIFICATION}:{message_id}" in self.identifications() or f"{FILL}:{message_id}" in self.fills()

    def _of(self, kind: str) -> dict[str, Any]:
        return self._by_kind.get(kind, _NOTHING)

    # --- facts and reports in -------------------------------------------------------

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
            name = _part_of(instead_of)
            del self._by_kind[name[0]][name]
            self._changed[name] = None
        name = _part_of(fact)
        self._by_kind.setdefault(name[0], {})[name] = fact
        self._changed[name] = pack(fact)

    def hear(self, report: Report) -> None:
        """Keep what is reported of the visitor, under the tag of who reports it."""
        for name, value in report.changes.items():
            mine = under(report.tag, name)
            self._changed[mine] = value
            if value is None:
                self._of(mine[0]).pop(mine, None)
            else:
                self.load(mine, value)

    # --- at rest --------------------------------------------------------------------

    def load(self, name: str, value: bytes) -> None:
        """Take a part as it is at rest, or as it is reported."""
        self._by_kind.setdefault(name[0], {})[name] = _said_by(name, value)

    def changes(self) -> Changes:
        """The parts that changed since this was last asked."""
        changes, self._changed = self._changed, {}
        return changes


def _part_of(fact: Statement) -> str:
    return f"{_KIND_OF[type(fact)]}:{fact.id}"


def _said_by(name: str, value: bytes) -> Any:
    """What the part says."""
    kind = name[0]
    if kind == MARK:
        at, person = _unpack_mark(value)
        return Mark(at, id_in(name), person)
    return id_in(name) if kind == OWNED else _UNPACK[kind](value)
