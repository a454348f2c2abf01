"""What should the books say: everything at once, plainly, from all facts.

The yardstick of the incremental path (visitors, members, accounts): it shares with it
the reading of facts and the pure functions about sessions, links, deals and credits,
and nothing of how state is kept, moved and restated.

    facts that stand ▶ who is whose ▶ touches ▶ accounts ▶ journeys ▶ what is booked      (models.batch)
"""

from collections.abc import Iterable

from models.batch.accounts import accounts_of, companies_of
from models.batch.booking import book_leads, book_uses, book_visitors, shared_ids
from models.batch.books import Books, Filing
from models.batch.deals import book_deals, deals_of
from models.batch.journeys import journeys_of, warmth_of
from models.batch.people import People
from models.batch.standing import Facts, RawFact, leave_out_bots
from models.batch.touches import touches_of
from models.cells import without_zeros
from models.counts import add_counts, without_zero_counts
from models.filters import Where
from models.rules import Rules

__all__ = ["Books", "RawFact", "recompute"]

_NO_LIMIT = 2**62


def recompute(
    facts: Iterable[tuple[str, bytes | None, int]], rules: Rules, before: int = _NO_LIMIT, where: Where = ()
) -> Books:
    """The books of all facts (as RawFact) stamped `before` that instant.

    Their order does not matter, nor how often each came. Cells and counts are those of the
    accounts that fulfil every condition.
    """
    kept = Facts(rules)
    for raw in facts:
        kept.take(RawFact(*raw), before)
    leave_out_bots(kept)
    people = People(kept, rules)
    accounts = accounts_of(kept, people, rules)
    books = Books(refusals=kept.refusals, conflicts=kept.conflicts)
    books.companies = companies_of(kept, accounts, rules)
    books.journeys = journeys_of(touches_of(kept, people, rules), people, accounts)
    books.warmth = warmth_of(books.journeys, rules)
    filing = Filing(books, rules, where)
    book_leads(filing, accounts)
    book_deals(filing, deals_of(kept, people, accounts, rules), accounts)
    book_uses(filing, kept, people, accounts)
    filing.end()
    book_visitors(books, kept, people, rules)
    add_counts(books.counts, shared_ids(people, rules))
    books.cells = without_zeros(books.cells)
    books.counts = without_zero_counts(books.counts)
    return books
