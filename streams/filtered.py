"""Totals of some accounts only: what reports read when a filter is asked.

    no condition ──────────────────────────────▶ the totals as they stand
    one attribute among the setting `filters` ─▶ the totals kept under its labels
    anything else ─▶ index: label → accounts ──▶ their compact totals, added up

Whatever no label holds ("(none)") is the whole less the labels that were not asked for, so
that the filtered totals of an attribute add up to the unfiltered one.

{accounts:3}:compact:<account>   string   what the account comes to by table, packed; made by whoever
                                          asks first, gone with the account's next change or after a day
"""

import asyncio
import zlib
from collections.abc import Callable, Coroutine, Iterable, Mapping, Sequence
from contextvars import ContextVar
from typing import Any, NamedTuple
from uuid import uuid4

import msgspec

from models.accounts import Account
from models.cells import Cells
from models.counts import Count, Counts, Numbers, add_counts, plus
from models.errors import BadInput, NotYet
from models.filters import ATTRIBUTES, USUAL, Condition, Labels, Where, parts_of, under
from models.flows import ALL_TIME, Period
from models.hashes import cell_field
from models.partitions import partition_of
from models.reports import Parts, pack
from models.rules import Rules
from models.settings import Settings
from models.vectors import pack_numbers, pack_vector, unpack_vector
from streams.entities import parts_at_rest
from streams.keys import DAYS, cell_of, table_key
from streams.redis_clients import batched
from streams.reference import rules_from
from streams.totals import cell_fields, counted, read_counts

MOST_AT_ONCE = 50_000
"""Accounts that a request may scan; more of them, or what takes longer, goes on in the background."""
PATIENCE_SECONDS = 20.0
COMPACT_SECONDS = 24 * 3600
KEPT_SECONDS = 300.0
_TOKEN_SECONDS = 60
_SCANNED_AT_ONCE = 250

Progress = Callable[[int, int], None]
Scanned = dict[str, dict[bytes, bytes]]
"""By name, `credits:<conversion>:<dimension>` or `counts:<table>`: a hash as Redis would have it."""

_compact = msgspec.msgpack.Decoder(dict[str, msgspec.Raw]).decode
_fields = msgspec.msgpack.Decoder(dict[str, bytes]).decode

_FILL = """
if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('SET', KEYS[1], ARGV[2], 'EX', ARGV[3]) end
return 1
"""


class Chosen(NamedTuple):
    """The accounts that a filter chooses: these, or every one but these."""

    names: frozenset[str]
    are_included: bool

    def __contains__(self, account: object) -> bool:
        return (account in self.names) == self.are_included


class Term(NamedTuple):
    """A part of the answer, added or taken off: what stands under a label (empty: all), or what accounts come to."""

    sign: int
    label: str = ""
    accounts: frozenset[str] | None = None


class Scan:
    """A scan on its way: how far it is, and whether somebody was sent away to ask again."""

    def __init__(self, work: Callable[[Progress], Coroutine[Any, Any, "Scanned"]]) -> None:
        self.is_late = False
        self.done, self.total = 0, 0
        self.task = asyncio.create_task(work(self._note))

    def _note(self, done: int, total: int) -> None:
        self.done, self.total = done, total


class Background:
    """Scans that go on when they take longer than a request may, and are asked for again until they are done."""

    def __init__(self) -> None:
        self._scans: dict[Any, Scan] = {}

    async def result(
        self, name: Any, work: Callable[[Progress], Coroutine[Any, Any, "Scanned"]], patience_seconds: float
    ) -> "Scanned":
        """What the scan finds; raises NotYet when it takes longer, and goes on with it.

        What took longer is kept for a while, since a report may have to wait for several.
        """
        scan = self._scans.get(name) or self._scans.setdefault(name, Scan(work))
        await asyncio.wait({scan.task}, timeout=patience_seconds)
        if not scan.task.done():
            self._keep(name, scan)
            raise NotYet(scan.done, scan.total)
        if not scan.is_late:
            self._scans.pop(name, None)
        return scan.task.result()

    def _keep(self, name: Any, scan: Scan) -> None:
        if not scan.is_late:
            loop = asyncio.get_running_loop()
            scan.is_late = True
            scan.task.add_done_callback(lambda _: loop.call_later(KEPT_SECONDS, self._scans.pop, name, None))


background: ContextVar[Background | None] = ContextVar("background", default=None)
"""Where long scans go on; without one whoever asks waits for them."""


# --- what reports ask -------------------------------------------------------------------


async def read_cells(
    redis: Any,
    settings: Settings,
    conversion: str,
    dimension: str,
    where: Where = (),
    *,
    period: Period = ALL_TIME,
    by_day: bool = True,
) -> Cells:
    """The cells of a conversion and dimension within a period: each day's, or of whole months one for the month."""
    sums: dict[bytes, int] = {}
    for term in await _terms(redis, settings, where):
        if term.accounts is None:
            names = under(term.label, conversion), dimension
            hashes = await cell_fields(redis, settings, names, period, by_day=by_day)
        else:
            name = f"{DAYS}:{conversion}:{dimension}"
            hashes = [(await _scanned(redis, settings, term.accounts, [name]))[name]]
        for fields in hashes:
            for field, value in fields.items():
                sums[field] = sums.get(field, 0) + term.sign * unpack_vector(value)
    cells = {cell_of(conversion, dimension, field): numbers for field, numbers in sums.items() if numbers}
    return {cell: numbers for cell, numbers in cells.items() if cell.day in period}


async def read_filtered_counts(
    redis: Any, settings: Settings, tables: Sequence[str], where: Where = ()
) -> dict[str, dict[str, Numbers]]:
    """Each table's numbers by field, of the accounts that the filter chooses."""
    if not where:
        return await read_counts(redis, settings, tables)
    sums: Counts = {}
    for term in await _terms(redis, settings, where):
        for table, fields in (await _counts_of(redis, settings, tables, term)).items():
            add_counts(sums, ((Count(table, name), numbers) for name, numbers in fields.items()), term.sign)
    found: dict[str, dict[str, Numbers]] = {table: {} for table in tables}
    for count, numbers in sums.items():
        if any(numbers):
            found[count.table][count.field] = numbers
    return found


async def _counts_of(
    redis: Any, settings: Settings, tables: Sequence[str], term: Term
) -> Mapping[str, Mapping[str, Numbers]]:
    if term.accounts is None:
        named = await read_counts(redis, settings, [under(term.label, table) for table in tables])
        return {table: named[under(term.label, table)] for table in tables}
    names = [f"counts:{table}" for table in tables]
    scanned = await _scanned(redis, settings, term.accounts, names)
    return {
        table: {field.decode(): counted(value) for field, value in scanned[name].items()}
        for table, name in zip(tables, names, strict=True)
    }


async def check_attributes(redis: Any, settings: Settings, where: Where) -> None:
    """Raise BadInput for a condition on an attribute that nobody knows; that no account has the value is an answer."""
    known = USUAL.union(settings.filters)
    doubtful = [
        each.attribute for each in where if each.attribute not in known and not await _is_carried(redis, settings, each)
    ]
    if doubtful:
        labels = (await read_counts(redis, settings, [ATTRIBUTES]))[ATTRIBUTES]
        known |= {parts_of(label)[0] for label in labels}
        for attribute in doubtful:
            if attribute not in known:
                raise BadInput("where", f"an attribute of the accounts ({', '.join(sorted(known))})", attribute)


async def _is_carried(redis: Any, settings: Settings, condition: Condition) -> bool:
    """Does any account carry one of the condition's labels?"""
    pipeline = redis.pipeline(transaction=False)
    for label in condition.labels:
        for partition in range(settings.partitions):
            pipeline.exists(table_key(settings, "accounts", partition, "where", label))
    return any(await pipeline.execute()) if condition.labels else False


async def chosen(redis: Any, settings: Settings, where: Where) -> Chosen:
    """The accounts that fulfil every condition, by the index."""
    conditions = _by_attribute(where)
    sure = [each for each in conditions if None not in each.values]
    refused = [await _other_labels(redis, settings, each) for each in conditions if None in each.values]
    others = await _carrying(redis, settings, frozenset[str]().union(*refused))
    if not sure:
        return Chosen(others, are_included=False)
    carrying = [await _carrying(redis, settings, each.labels) for each in sure]
    return Chosen(frozenset.intersection(*carrying) - others, are_included=True)


# --- where it is read from --------------------------------------------------------------


async def _terms(redis: Any, settings: Settings, where: Where) -> list[Term]:
    conditions = _by_attribute(where)
    if not conditions:
        return [Term(1)]
    first = conditions[0]
    if len(conditions) == 1 and first.attribute in settings.filters:
        if None not in first.values:
            return [Term(1, label) for label in sorted(first.labels)]
        return [Term(1), *(Term(-1, label) for label in sorted(await _other_labels(redis, settings, first)))]
    found = await chosen(redis, settings, where)
    accounts = Term(1 if found.are_included else -1, "", found.names)
    return [accounts] if found.are_included else [Term(1), accounts]


def _by_attribute(where: Where) -> list[Condition]:
    """One condition an attribute: several must all hold."""
    merged: dict[str, frozenset[str | None]] = {}
    for attribute, values in where:
        merged[attribute] = merged.get(attribute, values) & values
    return [Condition(*each) for each in sorted(merged.items())]


async def _other_labels(redis: Any, settings: Settings, condition: Condition) -> Labels:
    """The attribute's labels that do not fulfil the condition."""
    labels = (await read_counts(redis, settings, [ATTRIBUTES]))[ATTRIBUTES]
    return frozenset(label for label in labels if parts_of(label)[0] == condition.attribute) - condition.labels


async def _carrying(redis: Any, settings: Settings, labels: Labels) -> frozenset[str]:
    """The accounts that carry any of the labels."""
    pipeline = redis.pipeline(transaction=False)
    for label in labels:
        for partition in range(settings.partitions):
            pipeline.smembers(table_key(settings, "accounts", partition, "where", label))
    sets = await pipeline.execute() if labels else []
    return frozenset(account.decode() for each in sets for account in each)


# --- scanning ---------------------------------------------------------------------------


async def _scanned(redis: Any, settings: Settings, accounts: frozenset[str], names: Sequence[str]) -> Scanned:
    """What the accounts come to in these tables."""

    def scan(tell: Progress) -> Coroutine[Any, Any, Scanned]:
        return _scan(redis, settings, accounts, names, tell)

    later = background.get()
    if later is None:
        return await scan(lambda done, total: None)
    patience = PATIENCE_SECONDS if len(accounts) <= MOST_AT_ONCE else 0.0
    return await later.result((settings.lanes.version, accounts, *names), scan, patience)


async def _scan(
    redis: Any, settings: Settings, accounts: frozenset[str], names: Sequence[str], tell: Progress
) -> Scanned:
    rules = rules_from(settings)
    sums: dict[str, dict[str, Any]] = {name: {} for name in names}
    done = 0
    for some in batched(sorted(accounts), _SCANNED_AT_ONCE):
        compact = await _compact_totals(redis, rules, some)
        await asyncio.to_thread(_add_all, sums, compact)
        done += len(some)
        tell(done, len(accounts))
    return {name: {field.encode(): _packed(value) for field, value in fields.items()} for name, fields in sums.items()}


def _packed(value: Any) -> bytes:
    return pack_vector(value) if isinstance(value, int) else pack_numbers(value)


def _add_all(sums: dict[str, dict[str, Any]], compact: Iterable[bytes]) -> None:
    for packed in compact:
        tables = _compact(zlib.decompress(packed))
        for name, fields in sums.items():
            if name in tables:
                _add(fields, _fields(tables[name]), is_cells=name.startswith("credits:"))


def _add(sums: dict[str, Any], fields: Mapping[str, bytes], is_cells: bool) -> None:
    for field, value in fields.items():
        if is_cells:
            sums[field] = sums.get(field, 0) + unpack_vector(value)
        else:
            sums[field] = plus(sums[field], counted(value)) if field in sums else counted(value)


async def _compact_totals(redis: Any, rules: Rules, accounts: Sequence[str]) -> list[bytes]:
    """The compact totals of accounts, made and kept where there are none."""
    names = [_compact_key(rules.settings, account) for account in accounts]
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.get(name)
    found = dict(zip(accounts, await pipeline.execute(), strict=True))
    missing = [account for account, value in found.items() if value is None or value.startswith(b"?")]
    if missing:
        found.update(await _made(redis, rules, missing))
    return [found[account] for account in accounts]


async def _made(redis: Any, rules: Rules, accounts: Sequence[str]) -> dict[str, bytes]:
    """Make the compact totals of accounts, and keep those that did not change meanwhile.

    The lane deletes the key with every change of the account, and with it the token that
    was put there before the account was read.
    """
    settings, token = rules.settings, f"?{uuid4().hex}".encode()
    pipeline = redis.pipeline(transaction=False)
    for account in accounts:
        pipeline.set(_compact_key(settings, account), token, ex=_TOKEN_SECONDS)
    await pipeline.execute()
    parts = await parts_at_rest(redis, settings, [f"account:{account}" for account in accounts])
    made = await asyncio.to_thread(
        lambda: {name: compacted(name, parts[f"account:{name}"], rules) for name in accounts}
    )
    pipeline = redis.pipeline(transaction=False)
    for account, value in made.items():
        pipeline.eval(_FILL, 1, _compact_key(settings, account), token, value, COMPACT_SECONDS)
    await pipeline.execute()
    return made


def compacted(name: str, parts: Parts, rules: Rules) -> bytes:
    """What an account comes to by table, packed; one that was merged into another comes to nothing."""
    account = Account(name, parts, rules)
    tables: dict[str, dict[str, bytes]] = {}
    if not account.parent:
        own = account.ledger.own_totals().without_zeros()
        for cell, numbers in own.cells.items():
            fields = tables.setdefault(f"credits:{cell.conversion}:{cell.dimension}", {})
            fields[cell_field(cell)] = pack_vector(numbers)
        for count, each in own.counts.items():
            tables.setdefault(f"counts:{count.table}", {})[count.field] = pack_numbers(each)
    return zlib.compress(pack(tables), 1)


def _compact_key(settings: Settings, account: str) -> str:
    return table_key(settings, "accounts", partition_of(account, settings.partitions), "compact", account)
