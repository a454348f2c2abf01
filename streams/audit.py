"""`touchline audit`: are the live totals those of a batch over all facts? Every difference is told.

    pause ▶ copy totals, offsets, accounts ▶ go on ▶ facts from Kafka up to the offsets ▶ batch ▶ compare

The lanes stand still only while Redis is copied; the batch (models.recompute) shares
with them no more than the pure functions of the rules.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, NamedTuple

import msgspec

from models.accounts import Account
from models.attribution import PARTICIPATION
from models.booked import deal_credits
from models.cells import Cell, Cells, by_month, without_zeros
from models.conversions import Credit
from models.counts import Count, Counts
from models.deals import conversions_of
from models.errors import BadInput, Unavailable
from models.profiles import NOBODY, Profile
from models.reading import Reading
from models.recompute import Books, recompute
from models.reports import Parts, id_in, pack
from models.rules import Rules
from models.settings import Settings, rules_fingerprint
from models.times import to_text
from models.vectors import numbers_of, unpack_vector
from streams import entities, history, standing
from streams.keys import DAYS, MONTHS, cell_of, table_key
from streams.names import every_name
from streams.reference import rules_from
from streams.standing import Standing
from streams.topics import INTERNAL
from streams.totals import count_tables, keys_of, read_counts, waiting_entry
from streams.versions import rules_key, under
from streams.waiting import check_pause, pausing, still
from streams.warmth import readings
from streams.warmth_audit import live_histories, warmth_differences

STILL_SECONDS = 60.0

Company = tuple[Profile, tuple[str, ...]]
"""Who an account is, and the accounts whose parent company it is."""

Credits = dict[str, dict[str, list[Credit]]]
"""By deal and conversion (`won:<deal>`)."""


class Difference(msgspec.Struct, frozen=True):
    """What stands `where` in the live tables, and what the batch says; None: nothing."""

    what: str
    where: str
    model: str | None
    live: Any
    batch: Any


class Audit(msgspec.Struct, frozen=True):
    """What was compared and what differs; `clean` when nothing does and the books balance."""

    facts: int
    refused: int
    accounts: int
    cells: int
    width: int
    counts: int
    deals: int
    credits: int
    waiting: int
    differences: list[Difference]
    unbalanced: list[str]

    @property
    def clean(self) -> bool:
        """Nothing differs, and the books balance."""
        return not self.differences and not self.unbalanced

    def rows(self) -> list[dict[str, Any]]:
        """The differences."""
        return [msgspec.structs.asdict(each) for each in self.differences]

    def document(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        document: dict[str, Any] = msgspec.to_builtins(self)
        return {"clean": self.clean, **document}

    def words(self) -> str:
        """What was compared and what came of it."""
        compared = (
            f"{self.facts:,} facts ({self.refused:,} refused): {self.cells:,} cells of {self.width} numbers, "
            f"{self.counts:,} counts, {self.deals:,} deals with {self.credits:,} credits, {self.waiting:,} waiting"
        )
        balance = f"; the books do not balance on {', '.join(self.unbalanced)}" if self.unbalanced else ""
        if self.clean:
            return f"{compared}. No difference: the books balance."
        return f"{compared}. {len(self.differences):,} differences{balance}."


@dataclass
class Copy:
    """The live tables at one instant, with the offsets up to which they have read."""

    standing: Standing
    cells: Cells = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    listed: set[tuple[str, str]] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    accounts: dict[str, Parts] = field(default_factory=dict)
    readings: dict[str, Reading] = field(default_factory=dict)


async def audit(redis: Any, settings: Settings, tell: Callable[[int, int], None] = lambda done, total: None) -> Audit:
    """Compare the live totals with a batch over the same facts; `tell` hears how many of them are read.

    Raises Unavailable when no consistent copy can be had: messages are on their way and
    no worker brings them in, or another audit or rebuild came in between.
    """
    await _check_rules(redis, settings)
    rules = rules_from(settings)
    copy = await _consistent_copy(redis, settings)
    batch = partial(recompute, rules=rules)
    books, facts = await history.over_facts(settings, history.read_so_far(copy.standing), batch, tell)
    return await asyncio.to_thread(_compared, copy, books, facts, rules)


async def _check_rules(redis: Any, settings: Settings) -> None:
    made_under = await redis.get(rules_key(settings.lanes.version))
    if made_under and rules_fingerprint(under(settings, made_under)) != rules_fingerprint(settings):
        raise BadInput("settings", "those the tables were made under (or run `touchline rebuild`)", "others")


# --- the live side ----------------------------------------------------------------------


async def _consistent_copy(redis: Any, settings: Settings) -> Copy:
    async with standing.ends_reader(settings) as ends, pausing(redis) as token:
        try:
            async with asyncio.timeout(STILL_SECONDS):
                while True:
                    copy = await _copied(redis, settings, await still(redis, settings, ends, token))
                    await check_pause(redis, token)
                    if copy.standing.same_facts(await standing.read_standing(redis, settings)):
                        return copy
        except TimeoutError:
            raise Unavailable(await _what_moves(redis, settings, ends)) from None


async def _what_moves(redis: Any, settings: Settings, ends: standing.ReadEnds) -> str:
    now = await standing.read_standing(redis, settings)
    if now.rebuilding:
        return "a rebuild was not finished: run `touchline rebuild` again"
    messages = sum(now.behind(await ends(INTERNAL)).values()) + sum(now.outboxes.values())
    nobody = "" if await standing.workers(redis) else "; no worker is running: start one"
    return f"{messages:,} messages are still on their way between the lanes{nobody}"


async def _copied(redis: Any, settings: Settings, now: Standing) -> Copy:
    copy = Copy(now)
    await _copy_cells(redis, settings, copy)
    await _copy_waiting(redis, settings, copy)
    copy.names = await every_name(redis, settings)
    await _copy_listed(redis, settings, copy)
    await _copy_counts(redis, settings, copy)
    names = await entities.names_of(redis, settings, "account")
    copy.accounts = await entities.parts_at_rest(redis, settings, names)
    copy.readings = await readings(redis, settings)
    return copy


async def _copy_cells(redis: Any, settings: Settings, copy: Copy) -> None:
    """Every cell that there is, of days and of months, whatever conversion, dimension or label it stands under."""
    for kind in (DAYS, MONTHS):
        for name, fields in (await _hashes(redis, await keys_of(redis, settings, kind))).items():
            conversion, _, dimension = name.partition(f"}}:{kind}:")[2].rpartition(":")
            for each, value in fields.items():
                cell = cell_of(conversion, dimension, each)
                copy.cells[cell] = copy.cells.get(cell, 0) + unpack_vector(value)


async def _copy_waiting(redis: Any, settings: Settings, copy: Copy) -> None:
    names = [table_key(settings, "accounts", partition, "waiting") for partition in range(settings.partitions)]
    for fields in (await _hashes(redis, names)).values():
        copy.waiting.update({waiting_entry(entry): reason.decode() for entry, reason in fields.items()})


async def _copy_listed(redis: Any, settings: Settings, copy: Copy) -> None:
    """The accounts that each label of an attribute lists."""
    names = await keys_of(redis, settings, "where")
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.smembers(name)
    for name, accounts in zip(names, await pipeline.execute(), strict=True):
        label = name.partition("}:where:")[2]
        copy.listed |= {(label, account.decode()) for account in accounts}


async def _hashes(redis: Any, names: Sequence[str]) -> dict[str, dict[bytes, bytes]]:
    pipeline = redis.pipeline(transaction=False)
    for name in names:
        pipeline.hgetall(name)
    return dict(zip(names, await pipeline.execute(), strict=True))


async def _copy_counts(redis: Any, settings: Settings, copy: Copy) -> None:
    """Every table of counts that there is, so that a forgotten one is told too."""
    tables = sorted({table async for table in count_tables(redis, settings)})
    for table, fields in (await read_counts(redis, settings, tables)).items():
        copy.counts.update((Count(table, name), numbers) for name, numbers in fields.items())


def live_credits(accounts: Mapping[str, Parts], rules: Rules) -> Credits:
    """Every deal's credits as the stored accounts give them; merged accounts have none of their own."""
    credits: Credits = {}
    for name, parts in accounts.items():
        account = Account(name.partition(":")[2], parts, rules)
        if not account.parent:
            credits.update((id_in(part), _credits_of(account, part, rules)) for part in account.dossier.deals)
    return credits


def live_companies(accounts: Mapping[str, Parts], rules: Rules) -> dict[str, Company]:
    """Who each account is that counts for itself, where anybody says so."""
    built = (Account(name.partition(":")[2], parts, rules) for name, parts in accounts.items())
    found = {each.name: (each.profile, each.company.children) for each in built if not each.parent}
    return {name: company for name, company in found.items() if company != (NOBODY, ())}


def _credits_of(account: Account, part: str, rules: Rules) -> dict[str, list[Credit]]:
    return {
        f"{each.kind}:{each.id}": deal_credits(account.dossier, part, each).credits
        for each in conversions_of(account.dossier.deals[part], rules)
        if each.amount is not None
    }


# --- side by side -----------------------------------------------------------------------


def _compared(copy: Copy, books: Books, facts: int, rules: Rules) -> Audit:
    cells, batch = without_zeros(copy.cells), without_zeros({**books.cells, **by_month(books.cells)})
    credits = live_credits(copy.accounts, rules)
    differences = chain(
        _cell_differences(cells, batch, rules.models),
        _count_differences(copy.counts, books.counts),
        _entry_differences("waiting", copy.waiting, books.waiting),
        _entry_differences("name", copy.names, books.names),
        _listed_differences(copy.listed, books.listed),
        _company_differences(live_companies(copy.accounts, rules), books.companies),
        _credit_differences(credits, books.deals, rules),
        _warmth_differences(copy, books, rules),
    )
    return Audit(
        facts=facts,
        refused=len(books.refusals),
        accounts=len(copy.accounts),
        cells=len(cells.keys() | batch.keys()),
        width=rules.width,
        counts=len(copy.counts.keys() | books.counts.keys()),
        deals=len(credits.keys() | books.deals.keys()),
        credits=sum(len(each) for of_deal in books.deals.values() for each in of_deal.values()),
        waiting=len(copy.waiting.keys() | books.waiting.keys()),
        differences=list(differences),
        unbalanced=list(_unbalanced(cells, rules)),
    )


def _cell_differences(live: Cells, batch: Cells, models: Sequence[str]) -> Iterator[Difference]:
    for cell in sorted(live.keys() | batch.keys(), key=_cell_order):
        mine, theirs = live.get(cell, 0), batch.get(cell, 0)
        if mine != theirs:
            value = "(none)" if cell.value is None else cell.value
            where = f"{cell.conversion} {cell.day} {cell.dimension}={value}"
            numbers = [numbers_of(each, 2 * len(models)) for each in (mine, theirs)]
            yield from _by_model("total", where, models, *numbers)


def _cell_order(cell: Cell) -> tuple[Any, ...]:
    return *cell[:3], cell.value is None, cell.value or ""


def _by_model(
    what: str, where: str, models: Sequence[str], live: Sequence[int] | None, batch: Sequence[int] | None
) -> Iterator[Difference]:
    """The models under which the numbers differ."""
    for number, model in enumerate(models):
        mine, theirs = _of_model(live, number), _of_model(batch, number)
        if mine != theirs:
            yield Difference(what, where, model, mine, theirs)


def _of_model(numbers: Sequence[int] | None, model: int) -> dict[str, int] | None:
    return None if numbers is None else {"count": numbers[2 * model], "amount": numbers[2 * model + 1]}


def _count_differences(live: Counts, batch: Counts) -> Iterator[Difference]:
    for count in sorted(live.keys() | batch.keys()):
        mine, theirs = live.get(count), batch.get(count)
        if mine != theirs:
            yield Difference(count.table, count.field, None, mine, theirs)


def _entry_differences(what: str, live: Mapping[str, str], batch: Mapping[str, str]) -> Iterator[Difference]:
    for entry in sorted(live.keys() | batch.keys()):
        if live.get(entry) != batch.get(entry):
            yield Difference(what, entry, None, live.get(entry), batch.get(entry))


def _listed_differences(live: Set[tuple[str, str]], batch: Set[tuple[str, str]]) -> Iterator[Difference]:
    for label, account in sorted(live ^ batch):
        is_listed = (label, account) in live
        yield Difference("label", f"{label} of {account}", None, is_listed, not is_listed)


def _company_differences(live: Mapping[str, Company], batch: Mapping[str, Company]) -> Iterator[Difference]:
    for name in sorted(live.keys() | batch.keys()):
        mine, theirs = live.get(name), batch.get(name)
        if mine != theirs:
            yield Difference("account", name, None, msgspec.to_builtins(mine), msgspec.to_builtins(theirs))


def _warmth_differences(copy: Copy, books: Books, rules: Rules) -> Iterator[Difference]:
    live = live_histories(copy.accounts, rules)
    for unlike in warmth_differences(live, copy.readings, books.warmth, rules.scale):
        yield Difference("warmth", unlike.account, None, unlike.live, unlike.batch)


class _Earned(NamedTuple):
    """What one touch earned of a conversion, for comparison."""

    touch: bytes
    stage: str
    shares: tuple[int, ...]
    words: str


def _earned(credit: Credit, rules: Rules) -> _Earned:
    touch = credit.touch
    words = "unattributed" if touch is None else f"{touch.kind} {touch.id} at {to_text(touch.at)} by {touch.channel}"
    return _Earned(b"" if touch is None else pack(touch), credit.funnel_stage, tuple(credit.shares(rules)), words)


def _credit_differences(live: Credits, batch: Credits, rules: Rules) -> Iterator[Difference]:
    for name in sorted(live.keys() | batch.keys()):
        mine, theirs = live.get(name), batch.get(name)
        if mine is None or theirs is None:
            yield Difference("deal", name, None, _presence(mine), _presence(theirs))
            continue
        for conversion in sorted(mine.keys() | theirs.keys()):
            where = f"deal {name} {conversion}"
            yield from _conversion_differences(where, mine.get(conversion), theirs.get(conversion), rules)


def _presence(found: object) -> str | None:
    return None if found is None else "is there"


def _conversion_differences(
    where: str, live: Sequence[Credit] | None, batch: Sequence[Credit] | None, rules: Rules
) -> Iterator[Difference]:
    if live is None or batch is None:
        yield Difference("conversion", where, None, _presence(live), _presence(batch))
        return
    mine, theirs = {_earned(each, rules) for each in live}, {_earned(each, rules) for each in batch}
    by_touch = {each.touch: each for each in sorted(theirs - mine)}
    for each in sorted(mine - theirs):
        other = by_touch.pop(each.touch, None)
        yield from _touch_differences(where, each, other, rules.models)
    for each in by_touch.values():
        yield from _by_model("credit", f"{where}: {each.words}", rules.models, None, each.shares)


def _touch_differences(where: str, live: _Earned, batch: _Earned | None, models: Sequence[str]) -> Iterator[Difference]:
    words = f"{where}: {live.words}"
    if batch and live.stage != batch.stage:
        yield Difference("funnel stage", words, None, live.stage, batch.stage)
    yield from _by_model("credit", words, models, live.shares, batch.shares if batch else None)


def _unbalanced(cells: Cells, rules: Rules) -> Iterator[str]:
    """The days on which dimensions or models do not add up to the same; `participation` never does."""
    apart = 2 * rules.models.index(PARTICIPATION)
    sums: dict[tuple[str, str], dict[str, int]] = {}
    for cell, vector in cells.items():
        by_dimension = sums.setdefault((cell.conversion, cell.day), {})
        by_dimension[cell.dimension] = by_dimension.get(cell.dimension, 0) + vector
    for (conversion, day), by_dimension in sorted(sums.items()):
        numbers = [numbers_of(vector, rules.width) for vector in by_dimension.values()]
        for each in numbers:
            del each[apart : apart + 2]
        if len({pair for each in numbers for pair in zip(each[::2], each[1::2], strict=True)}) != 1:
            yield f"{conversion} {day}"
