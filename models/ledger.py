"""What an account's dossier comes to in the totals: booked, and taken back before the dossier changes."""

from collections.abc import Mapping
from typing import NamedTuple

from models.booked import Booked, deal_credits, lead_credits
from models.conversions import Sums, add_cells, path_of_credits, sums_of
from models.counts import Counting, Counts, add_counts
from models.deals import Conversion, Deal, booked_as, waiting_of
from models.dossier import Dossier
from models.filters import NO_LABELS, Labels
from models.funnel import account_counts
from models.pipeline import Surroundings, deal_counts, first_channel, lead_counts
from models.reach import Reach, is_within, whole
from models.received import path_in
from models.totals import Totals
from models.usage import use_counts

REMEMBERED_SUMS = 100
"""What a deal's conversion with more sums comes to (or its counts) is computed again when taken back, not kept."""


class _Earned(NamedTuple):
    """What a deal's conversion adds to the totals: what its credits come to, and its path of channels."""

    sums: Sums
    path: Counts


class Ledger:
    """Adds what a dossier comes to and takes it back: always as the dossier now stands.

    `labels` are those under which it is booked; None: nothing is.
    """

    __slots__ = ("_account", "_counted", "_dossier", "_earned", "_rules", "labels")

    def __init__(self, account: str, dossier: Dossier, labels: Labels | None) -> None:
        self._account = account
        self._dossier = dossier
        self._rules = dossier.rules
        self._earned: dict[tuple[str, str, str], _Earned] = {}
        self._counted: dict[str, list[Counting]] = {}
        self.labels = labels

    def own_totals(self) -> Totals:
        """What the account comes to, once and under no label."""
        own = Totals()
        self.book(own, whole(self._dossier.parts), 1)
        add_counts(own.counts, self._dossier.journey.null_counts())
        return own

    def book(self, totals: Totals, reach: Reach, sign: int) -> None:
        """Add (`sign` 1) or take back (−1) all within reach."""
        for path in reach.leads & self._dossier.leads.keys():
            self._book_lead(totals, lead_credits(self._dossier, path), sign)
        self._book_conversions(totals, reach, sign)
        for name in reach.moved & self._dossier.deals.keys():
            self._book_deal(totals, name, sign)
        parts = self._dossier.parts
        for name in reach.used & parts.keys():
            add_counts(totals.counts, use_counts(name, parts[name]), sign)
        if reach.advances:
            people, deals = len(self._dossier.leads), self._dossier.deals.values()
            add_counts(totals.counts, account_counts(self._account, people, deals, self._rules), sign)

    def _book_lead(self, totals: Totals, booked: Booked, sign: int) -> None:
        conversion, credits = booked.conversion, booked.credits
        add_cells(totals.cells, conversion, sums_of(conversion, credits), sign, self._rules)
        add_counts(totals.counts, path_of_credits(conversion, credits, self._rules), sign)
        add_counts(totals.counts, lead_counts(conversion.at, self._rules), sign)

    # --- deals ----------------------------------------------------------------------

    def _book_conversions(self, totals: Totals, reach: Reach, sign: int) -> None:
        for name, conversions in self._dossier.conversions.items():
            every = reach.every_deal or name in reach.restated
            for conversion in conversions:
                if every or is_within(self._dossier, name, conversion, reach.times):
                    self._book_conversion(totals, name, conversion, sign)

    def _book_conversion(self, totals: Totals, name: str, conversion: Conversion, sign: int) -> None:
        if conversion.amount is not None:
            earned = self._earned_by(name, conversion, sign)
            for booked in booked_as(conversion, self._dossier.deals[name], self._rules):
                add_cells(totals.cells, booked, earned.sums, sign, self._rules)
            add_counts(totals.counts, earned.path.items(), sign)

    def _earned_by(self, name: str, conversion: Conversion, sign: int) -> _Earned:
        """What to book of a conversion; that of few sums is remembered until it is taken back."""
        key = name, conversion.kind, conversion.id
        if sign < 0 and (remembered := self._earned.pop(key, None)) is not None:
            return remembered
        credits, path = deal_credits(self._dossier, name, conversion).credits, Counts()
        add_counts(path, path_of_credits(conversion, credits, self._rules))
        earned = _Earned(sums_of(conversion, credits), path)
        if sign > 0 and len(earned.sums) + len(earned.path) <= REMEMBERED_SUMS:
            self._earned[key] = earned
        return earned

    def _book_deal(self, totals: Totals, name: str, sign: int) -> None:
        """The counts of the deal kept as `name`, and what of it waits."""
        deal, holder = self._dossier.deals[name], f"{self._account}/{path_in(name)}"
        for entry, reason in waiting_of(deal, self._dossier.conversions[name], self._rules).items():
            totals.waiting[entry, holder] = reason if sign > 0 else None
        self._count_deal(totals, name, self._surroundings(deal), sign)

    def _count_deal(self, totals: Totals, name: str, around: Surroundings, sign: int) -> None:
        """Add or take back what the deal counts; few counts are remembered until they are taken back."""
        counted = self._counted.pop(name, None) if sign < 0 else None
        if counted is None:
            counted = deal_counts(self._dossier.deals[name], self._dossier.conversions[name], around, self._rules)
        if sign > 0 and len(counted) <= REMEMBERED_SUMS:
            self._counted[name] = counted
        add_counts(totals.counts, counted, sign)

    # --- deals that stay as they are while their account changes ----------------------

    def surrounded(self, reach: Reach, changes_labels: bool) -> dict[str, Surroundings]:
        """The surroundings of the deals that stay as they are, where the reach goes as far as these."""
        every = reach.every_deal or changes_labels
        return {
            name: self._surroundings(deal)
            for name, deal in self._dossier.deals.items()
            if name not in reach.moved and (every or self._is_surrounded(name, reach.times))
        }

    def _is_surrounded(self, name: str, times: list[int]) -> bool:
        """Can touches of these times be among what surrounds the deal: the path to its opportunity?"""
        first = self._dossier.conversions[name][:1]
        return bool(first) and is_within(self._dossier, name, first[0], times)

    def recount(self, totals: Totals, before: Mapping[str, Surroundings]) -> None:
        """Move the counts of deals whose surroundings are others now."""
        for name, around in before.items():
            if (now := self._surroundings(self._dossier.deals[name])) != around:
                self._count_deal(totals, name, around, -1)
                self._count_deal(totals, name, now, 1)

    def _surroundings(self, deal: Deal) -> Surroundings:
        """What the deal's counts need of its account."""
        channel = first_channel(deal, self._dossier.touches_for(deal), self._rules)
        return Surroundings(self._dossier.first_lead, channel, self.labels or NO_LABELS)
