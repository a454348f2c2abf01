"""Additive numbers beside the credits: whatever is counted and summed of deals, conversions and accounts.

A statistic is a pure function that yields (Count, numbers) for what it is about. Accounts
take its numbers back under the old state and add them under the new one; the batch adds
them once. So a count is always that of the facts, and is read without looking at a deal.
"""

from collections.abc import Iterable, Mapping
from operator import add, neg
from typing import Any, NamedTuple

import msgspec


class Count(NamedTuple):
    """Where numbers are added up: a field of a table."""

    table: str
    field: str


Numbers = tuple[int, ...]
"""What a field holds, each number with a meaning that its table says."""

Counts = dict[Count, Numbers]
Counting = tuple[Count, Numbers]
Counted = Iterable[Counting]


Tables = Mapping[str, Mapping[str, Numbers]]
"""Table → field → numbers: what reports read."""

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(list[Any]).decode


def field_of(*values: Any) -> str:
    """Several values as the name of one field.

    >>> field_of("default", None, 3)
    '["default",null,3]'
    """
    return _encode(values).decode()


def values_in(field: str) -> list[Any]:
    """The values that a field's name was made of."""
    return _decode(field)


SHARED = "shared"
"""Table: `visitor` or `user` NUL id → how many people (or e-mails) it names, where these are too many for one."""


def add_counts(counts: Counts, counted: Counted, sign: int = 1) -> None:
    """Add (`sign` 1) or take back (−1) what was counted."""
    for count, numbers in counted:
        have = counts.get(count)
        if len(numbers) == 1:  # the most frequent by far
            counts[count] = (sign * numbers[0] + (have[0] if have else 0),)
            continue
        change = numbers if sign > 0 else tuple(map(neg, numbers))
        counts[count] = change if have is None else tuple(map(add, have, change))


def plus(some: Numbers, others: Numbers) -> Numbers:
    """Number by number."""
    return tuple(map(add, some, others))


def without_zero_counts(counts: Mapping[Count, Numbers]) -> Counts:
    """The counts in which anything is left."""
    return {count: numbers for count, numbers in counts.items() if any(numbers)}


def table_of(counts: Mapping[Count, Numbers], table: str) -> dict[str, Numbers]:
    """One table's numbers by field."""
    return {count.field: numbers for count, numbers in counts.items() if count.table == table}


def tables_in(counts: Mapping[Count, Numbers]) -> dict[str, dict[str, Numbers]]:
    """All counts by table and field."""
    tables: dict[str, dict[str, Numbers]] = {}
    for count, numbers in counts.items():
        tables.setdefault(count.table, {})[count.field] = numbers
    return tables
