"""What a batch changes in the totals, all of it in one commit."""

import dataclasses
from dataclasses import dataclass, field

from models.alerting import Draft
from models.cells import Cells, add_cells_of, without_zeros
from models.counts import Counts, add_counts, without_zero_counts
from models.filters import cells_under, counts_under
from models.touches import Touch
from models.warming import Ranked


@dataclass
class Totals:
    """What a batch adds to the totals: cells, counts, what waits, which accounts carry a label, what they
    are called (None: nothing any more), how warm they are.

    What waits is kept by (entry, holder): a deal on the move may be with its new
    account, or with its account by another way, before the old one has let it go.
    """

    cells: Cells = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    waiting: dict[tuple[str, str], str | None] = field(default_factory=dict)
    newest: list[tuple[Touch, str, str]] = field(default_factory=list)
    listed: dict[tuple[str, str], bool] = field(default_factory=dict)
    named: dict[str, str | None] = field(default_factory=dict)
    warmth: dict[str, Ranked] = field(default_factory=dict)
    alerts: list[Draft] = field(default_factory=list)

    def add(self, other: "Totals") -> None:
        """Add another change to this one."""
        add_cells_of(self.cells, other.cells)
        add_counts(self.counts, other.counts.items())
        self.waiting.update(other.waiting)
        self.newest.extend(other.newest)
        self.listed.update(other.listed)
        self.named.update(other.named)
        self.warmth.update(other.warmth)
        self.alerts.extend(other.alerts)

    def add_under(self, label: str, other: "Totals") -> None:
        """Add what another change adds up to, as it is kept under a label."""
        add_cells_of(self.cells, cells_under(label, other.cells))
        add_counts(self.counts, counts_under(label, other.counts).items())

    def without_zeros(self) -> "Totals":
        """The same less what came to nothing."""
        return dataclasses.replace(self, cells=without_zeros(self.cells), counts=without_zero_counts(self.counts))
