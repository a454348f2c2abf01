"""What an account tells others: domains and customers whose they are, its parent company that it is a child, and
the account that it was merged into everything."""

from models.companies import PASSED_ON, Company
from models.entity import Contents, reports
from models.reports import ABOUT, DEAL, KNOWN, TOUCH, USAGE, Changes, Message, Parts, Report, difference, pack

_PASSED_ON = KNOWN + TOUCH + DEAL + USAGE + PASSED_ON


class Handover:
    """What one account has told whom. `parent` is the account that it hands everything to; empty when there is none."""

    __slots__ = ("_about", "_company", "_parts", "_tag", "_told", "parent")

    def __init__(self, tag: str, parts: Parts, company: Company, parent: str) -> None:
        self._tag = tag
        self._parts = parts
        self._company = company
        self.parent = parent
        self._about = self._said_above(parent)
        self._told = self._contents(parent)

    def messages(self, parent: str, changes: Changes) -> list[Message]:
        """What has to be said after these changes, now that this is the parent."""
        said: list[Message] = []
        if parent or self.parent:  # as with few accounts
            said.extend(self._pass_on(parent, changes))
        contents = self._contents(parent)
        if contents != self._told:
            said.extend(reports(self._told, contents, self._tag))
            self._told = contents
        return said

    def _pass_on(self, parent: str, changes: Changes) -> list[Report]:
        """Hand everything to the account this one was merged into, or take it back from there."""
        about = self._said_above(parent)
        passed = _handed_on(changes)
        said = difference(self._about, about)
        told = []
        if parent != self.parent:
            held = _handed_on(self._parts)
            if self.parent:
                told.append(Report(self.parent, self._tag, dict.fromkeys({**held, **passed, **self._about})))
            passed, said, self.parent = held, {**about}, parent
        self._about = about
        if parent and (passed or said):
            told.append(Report(parent, self._tag, {**passed, **said}))
        return told

    def _said_above(self, parent: str) -> dict[str, bytes]:
        """What the account that this one was merged into should hold of its company."""
        return {f"{ABOUT}:": pack(self._company.stated)} if parent else {}

    def _contents(self, parent: str) -> Contents:
        return self._company.contents(is_merged=bool(parent))


def _handed_on(parts: Parts | Changes) -> Changes:
    return {name: value for name, value in parts.items() if name[0] in _PASSED_ON}
