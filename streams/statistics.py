"""The counts that reports of the pipeline are told from, as they stand now or stood on a past day.

Today's are read from Redis, table by table. Those of a past day are a plain batch over the
facts in Kafka stamped before its end: exact, whatever came since, but it takes the time
of reading them.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, NamedTuple

from models.cells import Cells
from models.counts import Tables, tables_in
from models.errors import BadInput
from models.filters import Where
from models.flows import ALL_TIME, MONTHS, Period
from models.naming import is_naming
from models.recompute import RawFact, recompute
from models.rules import Rules
from models.settings import Settings
from models.stages import naming_tables
from models.times import SECOND, day_of, end_of
from streams.asked import checked_day
from streams.filtered import check_attributes, read_cells, read_filtered_counts
from streams.reference import rules_from
from streams.totals import read_fields

ReadTables = Callable[[Sequence[str]], Awaitable[Tables]]
ReadCells = Callable[[str, str, Period | None], Awaitable[Cells]]
"""The cells of a conversion and dimension by day, or of a period by whole months where it has any."""


class Statistics(NamedTuple):
    """A day, the rules, and how to read its tables of counts, and its cells by conversion and dimension."""

    day: str
    rules: Rules
    tables: ReadTables
    cells: ReadCells

    async def months(self) -> list[str]:
        """The months in which anything happened to a deal."""
        return sorted((await self.tables([MONTHS]))[MONTHS])


async def statistics(redis: Any, settings: Settings, day: str | None = None, where: Where = ()) -> Statistics:
    """What is known at the end of `day`, by default today, of the accounts that a filter chooses.

    Raises BadInput for what is no day or still to come and for an unknown attribute, Unavailable when a past day's
    facts cannot be read.
    """
    wanted = checked_day("day", day) or today(settings)
    if wanted > today(settings):
        raise BadInput("day", "today or a day before", day)
    await check_attributes(redis, settings, where)
    if wanted == today(settings):
        return _live(redis, settings, wanted, where)
    facts = await facts_so_far(redis, settings)
    return await asyncio.to_thread(of_facts, facts, settings, wanted, where)


def today(settings: Settings) -> str:
    """The present day in the reporting time zone."""
    return day_of(int(time.time() * SECOND), settings.time_zone)


def _live(redis: Any, settings: Settings, day: str, where: Where) -> Statistics:
    async def read_tables(names: Sequence[str]) -> Tables:
        every = [name for name in names if is_naming(name)]
        some = [name for name in names if not is_naming(name)]
        found = await read_filtered_counts(redis, settings, some, where)
        return {**found, **(await read_fields(redis, settings, every) if every else {})}

    async def read_live_cells(conversion: str, dimension: str, period: Period | None) -> Cells:
        days, by_day = period or ALL_TIME, period is None
        return await read_cells(redis, settings, conversion, dimension, where, period=days, by_day=by_day)

    return Statistics(day, rules_from(settings), read_tables, read_live_cells)


async def with_naming(tables: Tables, read: ReadTables) -> Tables:
    """These tables and, beside `named`, what else tells the order of stages: by the day, then exactly where needed."""
    while names := naming_tables(tables):
        tables = {**tables, **await read(names)}
    return tables


# --- a past day -------------------------------------------------------------------------


async def facts_so_far(redis: Any, settings: Settings) -> list[RawFact]:
    """The facts that the totals are of."""
    from streams import history, standing  # Kafka's client is slow to import, and only past days need it

    offsets = history.read_so_far(await standing.read_standing(redis, settings))
    facts, _ = await history.over_facts(settings, offsets, list)
    return facts


def of_facts(facts: Iterable[RawFact], settings: Settings, day: str, where: Where = ()) -> Statistics:
    """What these facts say, of those stamped before the end of the day."""
    rules, end, known = rules_from(settings), end_of(day, settings.time_zone), list(facts)
    books = recompute(known, rules, end, where)
    tables = tables_in(books.counts)
    if where:
        every = tables_in(recompute(known, rules, end).counts)
        tables |= {name: fields for name, fields in every.items() if is_naming(name)}

    async def read_tables(names: Sequence[str]) -> Tables:
        return {name: tables.get(name, {}) for name in names}

    async def read_past_cells(conversion: str, dimension: str, period: Period | None) -> Cells:
        wanted = (conversion, dimension)
        return {cell: numbers for cell, numbers in books.cells.items() if cell[:2] == wanted}

    return Statistics(day, rules, read_tables, read_past_cells)
