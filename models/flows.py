"""What happened when: counts of things that have a day, for all time and for any period.

table T            field [values…]          all time
table T:2026       field ["04", values…]    the year's months
table T:2026-04    field ["03", values…]    the month's days
table months       field 2026-04            how many deals something of is booked in the month

All time is read from one table, a period's whole months from those of the years, the rest
from those of the months at its ends: that costs by values and durations, not by deals.
Durations are kept as histograms: a field has the counts of `SLOTS` durations in a row, so
that medians and percentiles are exact.
"""

from calendar import monthrange
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from models.counts import Count, Numbers, Tables, field_of, plus, values_in

MONTHS = "months"
SLOTS = 16
_SLOT = tuple(tuple(int(number == place) for number in range(SLOTS)) for place in range(SLOTS))
_YEAR, _MONTH = len("2026"), len("2026-04")

Values = tuple[Any, ...]
Sums = dict[Values, Numbers]
"""Values → numbers of a table within a period."""


class Happening(NamedTuple):
    """Numbers to be added in `table` under `values` on a day."""

    table: str
    day: str
    values: Values
    numbers: Numbers


@lru_cache(maxsize=5000)
def counts_of(happening: Happening) -> Sequence[tuple[Count, Numbers]]:
    """Where a happening is added up; the same happens to many deals of a day, and is taken back as it was added."""
    table, day, values, numbers = happening
    return (
        (Count(table, field_of(*values)), numbers),
        (Count(f"{table}:{day[:_YEAR]}", field_of(day[_YEAR + 1 : _MONTH], *values)), numbers),
        (Count(f"{table}:{day[:_MONTH]}", field_of(day[_MONTH + 1 :], *values)), numbers),
    )


def lasted(table: str, day: str, values: Values, days: int) -> Happening:
    """Something that ended on `day` lasted so many days."""
    return Happening(table, day, (*values, days // SLOTS), _SLOT[days % SLOTS])


@lru_cache(maxsize=10_000)
def _last_day(month: str) -> str:
    year, number = map(int, month.split("-"))
    return f"{month}-{monthrange(year, number)[1]}"


class Period(NamedTuple):
    """Days from `since` to `until`, both included; all time when neither is given."""

    since: str = ""
    until: str = ""

    def __contains__(self, time: object) -> bool:
        """Does the day, or the whole month, lie in it?"""
        day = str(time)
        if len(day) == _MONTH:
            return self.has_whole(day)
        return self.since <= day and (not self.until or day <= self.until)

    def within(self, other: "Period") -> "Period":
        """The days that both have."""
        until = min(self.until or "~", other.until or "~")
        return Period(max(self.since, other.since), "" if until == "~" else until)

    def months(self, known: Iterable[str]) -> list[str]:
        """Those of the known months that have days of it."""
        first, last = self.since[:_MONTH], self.until[:_MONTH] or "9999-12"
        return sorted(month for month in known if first <= month <= last)

    def has_whole(self, month: str) -> bool:
        """Does every day of the month lie in it?"""
        return f"{month}-01" in self and _last_day(month) in self


ALL_TIME = Period()


def month(name: str) -> Period:
    """The days of a month, such as 2026-04."""
    return Period(f"{name}-01", f"{name}-31")


def tables_needed(table: str, period: Period, months: Iterable[str]) -> list[str]:
    """The tables to read for a period; `months` are those of the table `months`."""
    if period == ALL_TIME:
        return [table]
    names = (each[:_YEAR] if period.has_whole(each) else each for each in period.months(months))
    return [f"{table}:{name}" for name in dict.fromkeys(names)]


def happened(tables: Tables, table: str, period: Period = ALL_TIME) -> Sums:
    """The numbers of a table within the period, by values."""
    if period == ALL_TIME:
        return {tuple(values_in(field)): numbers for field, numbers in tables.get(table, {}).items()}
    sums: Sums = {}
    for values, numbers in _within(tables, table, period):
        have = sums.get(values)
        sums[values] = numbers if have is None else plus(have, numbers)
    return sums


def _within(tables: Tables, table: str, period: Period) -> Iterator[tuple[Values, Numbers]]:
    """What the months that lie wholly in the period have, and the days of the others."""
    for name in tables:
        of, _, time = name.rpartition(":")
        if of == table and _reaches(period, time):
            lies_within: dict[str, bool] = {}
            for field, numbers in tables[name].items():
                number, *values = values_in(field)
                if number not in lies_within:
                    lies_within[number] = f"{time}-{number}" in period
                if lies_within[number]:
                    yield tuple(values), numbers


def _reaches(period: Period, time: str) -> bool:
    """Has the year whole months of the period, or the month days of it that no year's table has?"""
    if len(time) == _YEAR:
        return period.since[:_YEAR] <= time <= (period.until[:_YEAR] or "9999")
    return bool(period.months([time])) and not period.has_whole(time)


def by_month(tables: Tables, table: str) -> dict[str, Sums]:
    """The numbers of a table by month and values, where the tables of years are there."""
    months: dict[str, Sums] = {}
    for name in tables:
        of, _, year = name.rpartition(":")
        if of == table and len(year) == _YEAR:
            for field, numbers in tables[name].items():
                number, *values = values_in(field)
                months.setdefault(f"{year}-{number}", {})[tuple(values)] = numbers
    return months


def durations(sums: Mapping[Values, Numbers]) -> Counter[int]:
    """How often each number of days stands in a histogram, whatever else its values say."""
    counted: Counter[int] = Counter()
    for (*_, chunk), numbers in sums.items():
        for place, number in enumerate(numbers):
            if number:
                counted[chunk * SLOTS + place] += number
    return counted


def nearest_rank(counted: Mapping[int, int], tenths: int) -> int | None:
    """The ⌈tenths/10·n⌉-th smallest of n; None of nothing. Five tenths are the median, nine P90.

    >>> nearest_rank({3: 1, 5: 1}, 5), nearest_rank({3: 9, 5: 1}, 9), nearest_rank({}, 5)
    (3, 3, None)
    """
    rank = -(-sum(counted.values()) * tenths // 10)
    for value in sorted(counted):
        rank -= counted[value]
        if rank <= 0:
            return value
    return None
