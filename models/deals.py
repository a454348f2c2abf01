"""Deals: what all facts known of one say together, and the conversions it makes."""

from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Any

import msgspec
from msgspec import UNSET

from models.catalogue import OPEN, STAGE
from models.facts import DealChange, Refund
from models.identity import account_id
from models.money import to_minor
from models.rules import Rules
from models.times import day_of

DEFAULT_PIPELINE = "default"
"""The name of the pipeline of deals that name none."""


class Booking(msgspec.Struct, frozen=True, array_like=True, order=True):
    """A refund of the deal: positive minor units."""

    at: int
    id: str
    amount: int
    currency: str


class Deal(msgspec.Struct, frozen=True, array_like=True):
    """A deal as it stands; `stages` oldest first, without immediate repeats; `roles` (person, role) of contacts.

    `created_at` is None while nothing but refunds is known of it; `changed_at` is the time
    of its latest fact, `named_by` the ids of the facts that brought it into its stages.
    """

    id: str
    created_at: int | None
    account: str | None = None
    contacts: tuple[str, ...] = ()
    name: str | None = None
    pipeline: str | None = None
    owner: str | None = None
    stages: tuple[tuple[int, str | None], ...] = ()
    amount: int | None = None
    currency: str = ""
    expected_close: str | None = None
    deleted: bool = False
    refunds: tuple[Booking, ...] = ()
    roles: tuple[tuple[str, str], ...] = ()
    changed_at: int = 0
    named_by: tuple[str, ...] = ()

    @property
    def stage(self) -> str | None:
        """The stage it is in now; None before it has one."""
        return self.stages[-1][1] if self.stages else None


class Conversion(msgspec.Struct, frozen=True, array_like=True):
    """A moment that shares credit out.

    `amount` is in minor units of the reporting currency, None while it waits for a rate;
    `counted` is false for a refund, which is no conversion.
    """

    kind: str
    id: str
    at: int
    amount: int | None
    counted: bool = True
    original: int = 0
    currency: str = ""


def fold(deal: str, changes: Iterable[DealChange], refunds: Iterable[Refund], reporting: str) -> Deal:
    """The deal after all its facts: per field the latest one that carries it holds."""
    ordered = sorted(changes, key=lambda change: (change.at, change.id))
    booked = sorted(Booking(each.at, each.id, each.amount, each.currency) for each in refunds)
    bookings = tuple(booked)
    if not ordered:
        return Deal(deal, None, refunds=bookings)
    currency = _latest(ordered, "currency") or reporting
    amount: Decimal | None = _latest(ordered, "amount")
    entries = _entries(ordered)
    return Deal(
        id=deal,
        created_at=_created(ordered),
        account=_latest(ordered, "account"),
        contacts=_latest(ordered, "contacts") or (),
        name=_latest(ordered, "name"),
        pipeline=_latest(ordered, "pipeline"),
        owner=_latest(ordered, "owner"),
        stages=tuple((change.at, _stage_of(change)) for change in entries),
        amount=None if amount is None else to_minor(amount, currency, "deal-changes.amount"),
        currency=currency,
        expected_close=_latest(ordered, "expected_close"),
        deleted=bool(_latest(ordered, "deleted")),
        refunds=bookings,
        roles=next((change.roles for change in reversed(ordered) if change.contacts is not UNSET), ()),
        changed_at=ordered[-1].at,
        named_by=tuple(change.id for change in entries),
    )


def _latest(ordered: Sequence[DealChange], field: str) -> Any:
    for change in reversed(ordered):
        value = getattr(change, field)
        if value is not UNSET:
            return value
    return None


def _created(ordered: Sequence[DealChange]) -> int:
    created = _latest(ordered, "created_at")
    return ordered[0].at if created is None else created


def _entries(ordered: Iterable[DealChange]) -> list[DealChange]:
    """The facts that brought the deal into another stage."""
    entries: list[DealChange] = []
    for change in ordered:
        if change.stage is not UNSET and (not entries or entries[-1].stage != change.stage):
            entries.append(change)
    return entries


def _stage_of(change: DealChange) -> str | None:
    return None if change.stage is UNSET else change.stage


def pipeline_of(deal: Deal) -> str:
    """The name of the deal's pipeline."""
    return deal.pipeline or DEFAULT_PIPELINE


def won_at(deal: Deal, rules: Rules) -> int | None:
    """When the deal last came to a won stage from one that is not; None unless it is won."""
    return _came_to(deal, rules.settings.pipeline(deal.pipeline).won)


def lost_at(deal: Deal, rules: Rules) -> int | None:
    """When the deal last came to a lost stage from one that is not; None unless it is lost."""
    return _came_to(deal, rules.settings.pipeline(deal.pipeline).lost)


def _came_to(deal: Deal, stages: Sequence[str]) -> int | None:
    moment = None
    for at, stage in deal.stages:
        moment = None if stage not in stages else at if moment is None else moment
    return moment


def is_open(deal: Deal, rules: Rules) -> bool:
    """Does the deal stand in the pipeline: neither won, lost nor deleted."""
    pipeline = rules.settings.pipeline(deal.pipeline)
    closed = deal.stage in pipeline.won or deal.stage in pipeline.lost
    return deal.created_at is not None and not deal.deleted and not closed


def conversions_of(deal: Deal, rules: Rules) -> list[Conversion]:
    """The deal's opportunity, its first entry of each configured stage, its win, and the refunds of the win."""
    if deal.created_at is None or deal.deleted:
        return []
    made = [_conversion("opportunity", deal, deal.created_at, rules)]
    made += (_conversion(kind, deal, at, rules) for kind, at in _entered(deal, rules))
    moment = won_at(deal, rules)
    if moment is not None:
        made.append(_conversion("won", deal, moment, rules))
        made.extend(_refund(deal, booking, rules) for booking in deal.refunds)
    return made


def booked_as(conversion: Conversion, deal: Deal, rules: Rules) -> list[Conversion]:
    """The conversions that share its credits: while a deal is open its opportunity is one of the kind `open` too."""
    if conversion.kind == "opportunity" and is_open(deal, rules):
        return [conversion, msgspec.structs.replace(conversion, kind=OPEN)]
    return [conversion]


def _entered(deal: Deal, rules: Rules) -> Iterator[tuple[str, int]]:
    """The conversions at configured stages, each with the first time the deal ever entered it."""
    for name in dict.fromkeys(rules.settings.conversion_stages):
        first = next((at for at, stage in deal.stages if stage == name), None)
        if first is not None:
            yield f"{STAGE}{name}", first


def _conversion(kind: str, deal: Deal, at: int, rules: Rules) -> Conversion:
    original, currency = deal.amount or 0, deal.currency
    amount = _convert(original, currency, at, rules)
    return Conversion(kind, deal.id, at, amount, True, original, currency)


def _refund(deal: Deal, booking: Booking, rules: Rules) -> Conversion:
    amount = _convert(booking.amount, booking.currency, booking.at, rules)
    refunded = None if amount is None else -amount
    return Conversion(
        "refund", f"{deal.id}/{booking.id}", booking.at, refunded, False, -booking.amount, booking.currency
    )


def _convert(amount: int, currency: str, at: int, rules: Rules) -> int | None:
    if amount == 0:
        return 0
    return rules.rates.convert(amount, currency, day_of(at, rules.settings.time_zone))


def open_amount(deal: Deal, rules: Rules) -> int | None:
    """What the open deal is worth in the reporting currency; None while it waits for a rate."""
    return _convert(deal.amount or 0, deal.currency, deal.created_at or 0, rules)


def takes_part(is_contact: bool, ids: Iterable[str], deal: Deal) -> bool:
    """Where a deal's journey is restricted: its contacts, and people who are no CRM's contact."""
    return not is_contact or not set(ids).isdisjoint(deal.contacts)


def waiting_of(deal: Deal, conversions: Iterable[Conversion], rules: Rules) -> dict[str, str]:
    """What of the deal is not booked yet, and why."""
    waits = {
        f"{each.kind}:{each.id}": f"no rate from {each.currency} to {rules.settings.currency}"
        for each in conversions
        if each.amount is None
    }
    if is_open(deal, rules) and open_amount(deal, rules) is None:
        waits[f"pipeline:{deal.id}"] = f"no rate from {deal.currency} to {rules.settings.currency}"
    if not deal.deleted and won_at(deal, rules) is None:
        waits.update({f"refund:{deal.id}/{each.id}": "the deal is not won" for each in deal.refunds})
    return waits


def first_contacts(changes: Iterable[DealChange]) -> dict[str, int]:
    """When each contact was first named on the deal."""
    first: dict[str, int] = {}
    for change in changes:
        for person in change.contacts or ():
            first[person] = min(change.at, first.get(person, change.at))
    return first


def deal_parent(account: str | None, contacts: tuple[str, ...], deal: str, rules: Rules) -> str:
    """Whose journey the deal's is: its account's, else its first contact's, else nobody's."""
    if account is not None:
        return f"account:{account_id(account, rules.registrable)}"
    # Ids are trimmed: none begins with a space, so nobody's journey is nobody's.
    return f"person:{contacts[0]}" if contacts else f"account: {deal}"
