"""The books, and how what is booked of an account gets into them."""

from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

from models.batch.standing import RawFact
from models.cells import Cells, add_cells_of
from models.conversions import Credit
from models.counts import Counts, add_counts, table_of
from models.course import History
from models.errors import BadInput
from models.filters import (
    NO_LABELS,
    Labels,
    Where,
    attribute_counts,
    cells_under,
    counts_under,
    kept_labels,
    labels_of,
    matches,
)
from models.pipeline import PIPELINE
from models.profiles import Profile
from models.rules import Rules
from models.touches import Touch


class Known(NamedTuple):
    """A person: known since when, of which account, with the credits of the `lead`."""

    at: int
    account: str
    credits: list[Credit]


@dataclass
class Books:
    """All totals, and what they were made of.

    `counts` are all other additive numbers; `waiting` the reason by conversion; `deals`
    credits by deal and conversion (`won:<deal>`); `leads` everybody known, by person;
    `journeys` (person, touch) by account, oldest first; `companies` who each account is and
    its children, where anybody says so; `listed` the accounts of each label. `conflicts` are (topic, id) of
    facts that lost to another with their id.
    """

    cells: Cells = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    deals: dict[str, dict[str, list[Credit]]] = field(default_factory=dict)
    leads: dict[str, Known] = field(default_factory=dict)
    journeys: dict[str, list[tuple[str, Touch]]] = field(default_factory=dict)
    companies: dict[str, tuple[Profile, tuple[str, ...]]] = field(default_factory=dict)
    warmth: dict[str, History] = field(default_factory=dict)
    listed: set[tuple[str, str]] = field(default_factory=set)
    refusals: list[tuple[RawFact, BadInput]] = field(default_factory=list)
    conflicts: set[tuple[str, str]] = field(default_factory=set)

    @property
    def names(self) -> dict[str, str]:
        """What accounts are called, where anybody says so."""
        return {account: who.name for account, (who, _) in self.companies.items() if who.name is not None}

    @property
    def pipeline(self) -> dict[str, list[int]]:
        """Count and amount of the open deals by stage."""
        return {stage: list(numbers) for stage, numbers in table_of(self.counts, PIPELINE).items()}


class Filing:
    """Adds what is booked of an account to the books, itself and under the account's labels."""

    def __init__(self, books: Books, rules: Rules, where: Where) -> None:
        self.books = books
        self.rules = rules
        self._where = where
        self._labels = {name: labels_of(profile) for name, (profile, _) in books.companies.items()}
        self._kept = {name: kept_labels(labels, rules.settings.filters) for name, labels in self._labels.items()}
        self._own: dict[str, tuple[Cells, Counts]] = defaultdict(lambda: ({}, {}))

    def of(self, account: str) -> tuple[Cells, Counts]:
        """Where to add what is booked of an account; nowhere when it was not asked for."""
        if self._where and not matches(self._where, self.labels(account)):
            return {}, {}
        return self._own[account] if self._kept.get(account) else (self.books.cells, self.books.counts)

    def labels(self, account: str) -> Labels:
        """The labels that the account carries."""
        return self._labels.get(account, NO_LABELS)

    def end(self) -> None:
        """Put everything where it belongs."""
        for account, (cells, counts) in self._own.items():
            for label in ("", *self._kept[account]):
                add_cells_of(self.books.cells, cells_under(label, cells))
                add_counts(self.books.counts, counts_under(label, counts).items())
        for account, labels in self._labels.items():
            add_counts(self.books.counts, attribute_counts(labels))
            self.books.listed |= {(label, account) for label in labels}
