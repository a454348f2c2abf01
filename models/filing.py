"""How what an account adds to the totals is filed: by itself, and under those of its labels that totals are kept by."""

from collections.abc import Iterable

from models.counts import add_counts
from models.filters import NO_LABELS, Labels, attribute_counts, kept_labels
from models.totals import Totals


class Filing:
    """What is taken back `before` a batch under the old labels, and booked `after` it under the new ones.

    An account whose labels are None books nothing: it was merged into another. When the
    account `moves`, all it comes to is taken back and booked. Without labels both are the
    totals themselves.
    """

    __slots__ = ("_kept", "_kept_before", "_totals", "after", "before", "books", "moves", "new", "old", "was_booking")

    def __init__(self, totals: Totals, old: Labels | None, new: Labels | None, filters: Iterable[str]) -> None:
        self.was_booking, self.books = old is not None, new is not None
        self.old, self.new = old or NO_LABELS, new or NO_LABELS
        self._kept_before = self._kept = kept_labels(self.old, filters)
        if self.old != self.new:
            self._kept = kept_labels(self.new, filters)
        self.moves = self.was_booking != self.books or self._kept_before != self._kept
        self._totals = self.before = self.after = totals
        if self.old or self.new:
            self.before = self.after = Totals()
            if self.moves:
                self.after = Totals()

    def settle(self, account: str) -> None:
        """Add both to the totals, and note the labels that the account carries no more and those it carries now."""
        if self.before is not self._totals:
            file(self._totals, self.before, self._kept_before)
        if self.after is not self.before:
            file(self._totals, self.after, self._kept)
        list_account(self._totals, account, self.old, self.new)


def file(totals: Totals, own: Totals, kept: Labels) -> None:
    """Add what an account comes to, by itself and under the labels that totals are kept by."""
    totals.add(own)
    for label in kept:
        totals.add_under(label, own)


def list_account(totals: Totals, account: str, old: Labels, new: Labels) -> None:
    """Note the labels that the account carries no more, and those it carries now."""
    for labels, sign in ((old - new, -1), (new - old, 1)):
        totals.listed.update(((label, account), sign > 0) for label in labels)
        add_counts(totals.counts, attribute_counts(labels), sign)
