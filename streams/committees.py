"""An account and its people opened up: who they are, who touched whom, what their touches earned."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple, cast

import msgspec

from models.accounts import Account
from models.booked import Booked, deal_credits, lead_credits
from models.deals import Conversion, Deal, conversions_of, is_open, open_amount
from models.errors import NotFound
from models.identity import person_id
from models.leads import Lead
from models.people import Person
from models.reports import WATCH, Parts
from models.rules import Rules
from models.settings import Settings
from models.times import to_text
from models.touches import Touch
from models.vectors import numbers_of
from streams.entities import entity_at_rest, parts_at_rest
from streams.journeys import (
    Document,
    Owned,
    account_above,
    by_model,
    deal_row,
    known_account,
    touch_row,
    with_persons,
)
from streams.reference import rules_from

_visitor = msgspec.msgpack.Decoder(str).decode


async def account(redis: Any, settings: Settings, id: str) -> Document:
    """Who an account is, its people, deals and what came of them; see `account_document`.

    An account that was merged into another answers for that one, and `asked` says so.
    Raises NotFound.
    """
    rules = rules_from(settings)
    asked = await known_account(redis, rules, id)
    found = await account_above(redis, rules, f"account:{asked.name}") or asked
    document = account_document(found, rules)
    parent = found.profile.parent and await account_above(redis, rules, f"account:{found.profile.parent}")
    children = await parts_at_rest(redis, settings, [f"account:{child}" for child in found.company.children])
    return {
        "asked": asked.name,
        **document,
        "parent": _named(parent) if parent and parent.name != found.name else None,
        "children": [_named(Account(name.partition(":")[2], parts, rules)) for name, parts in children.items()],
    }


async def person(redis: Any, settings: Settings, id: str) -> Document:
    """{person, ids, account, lead_at, visitors, touches, credits} of whoever an id belongs to.

    `credits` are what their touches earned: {conversion: {model: {count, amount}}}, refunds
    within `won`. Raises NotFound when nothing names the id.
    """
    rules = rules_from(settings)
    name = person_id(id, settings) or id
    asked = cast(Person, await entity_at_rest(redis, rules, f"person:{name}"))
    above = await account_above(redis, rules, asked.parent) if asked.parent else None
    lead = next((each for each in above.dossier.leads.values() if name in each.ids), None) if above else None
    if above is None or lead is None:
        raise NotFound(f"no person {id} is known")
    parts = await parts_at_rest(redis, settings, [f"person:{each}" for each in lead.ids])
    document = person_document(above, lead, rules)
    visitors = {*_visitors(parts.values()), *(touch["visitor"] for touch in document["touches"] if touch["visitor"])}
    return {"asked": name, **document, "visitors": sorted(visitors)}


def _named(found: Account) -> Document:
    return {"account": found.name, "name": found.profile.name}


def _visitors(parts: Iterable[Parts]) -> set[str]:
    return {_visitor(value) for each in parts for name, value in each.items() if name[0] == WATCH}


# --- an account -------------------------------------------------------------------------


def account_document(found: Account, rules: Rules) -> Document:
    """{account, name, owner, attributes, domains, people, touches, contacts, deals, success …} of an account.

    `touches` counts them by kind, team and channel; `contacts` tells who touched whom, the
    most often first; `success` what came of it: deals and amounts (reporting currency) by
    state, and the won amount that each team sourced and influenced.
    """
    touches = with_persons(found)
    earned = _earned(found, rules)
    people = sorted(found.dossier.leads.values(), key=lambda lead: (lead.at, lead.person))
    profile = found.profile
    return {
        "account": found.name,
        "name": profile.name,
        "owner": profile.owner,
        "quiet": profile.quiet,
        "attributes": profile.attributes,
        "domains": list(profile.domains),
        "customers": list(profile.customers),
        "merged_from": list(profile.merged_from),
        "people": [_member(lead, touches, earned[lead.person], rules) for lead in people],
        "first_touch": touch_row(*touches[0]) if touches else None,
        "last_touch": touch_row(*touches[-1]) if touches else None,
        "touches": {"total": len(touches), **_counted(owned.touch for owned in touches)},
        "contacts": _contacts(touches),
        "usage": {event: sum(days.values()) for event, days in sorted(found.dossier.uses.items())},
        "deals": [deal_row(each, found.name, rules) for each in sorted(found.dossier.deals.values(), key=_by_creation)],
        "success": _success(found, rules),
    }


def _by_creation(deal: Deal) -> tuple[int, str]:
    return deal.created_at or 0, deal.id


def _member(lead: Lead, touches: Iterable[Owned], earned: "Earned", rules: Rules) -> Document:
    """A person of the account in short."""
    own = [touch for touch, person, _ in touches if person == lead.person]
    return {
        "person": lead.person,
        "role": lead.role,
        "ids": list(lead.ids),
        "lead_at": to_text(lead.at),
        "touches": len(own),
        "first_touch": to_text(own[0].at) if own else None,
        "last_touch": to_text(own[-1].at) if own else None,
        "credits": _credits(earned, rules),
    }


def _counted(touches: Iterable[Touch]) -> Document:
    counters: dict[str, Counter[str]] = {"kinds": Counter(), "teams": Counter(), "channels": Counter()}
    for touch in touches:
        counters["kinds"][touch.kind] += 1
        counters["teams"][touch.team] += 1
        counters["channels"][touch.channel] += 1
    return {name: dict(counter.most_common()) for name, counter in counters.items()}


def _contacts(touches: Iterable[Owned]) -> list[Document]:
    """Who touched whom: a row for each team or rep and person."""
    meetings: dict[tuple[str, str | None, str | None], list[int]] = defaultdict(list)
    for touch, person, _ in touches:
        meetings[touch.team, touch.rep, person].append(touch.at)
    rows = [
        {
            "team": team,
            "rep": rep,
            "person": person,
            "touches": len(times),
            "first": to_text(times[0]),
            "last": to_text(times[-1]),
        }
        for (team, rep, person), times in meetings.items()
    ]
    return sorted(
        rows, key=lambda row: (-cast(int, row["touches"]), str(row["team"]), str(row["rep"]), str(row["person"]))
    )


class _Won(NamedTuple):
    """A won deal's worth, refunds within, and the teams that took part, the first first."""

    amount: int
    teams: tuple[str, ...]


def _success(found: Account, rules: Rules) -> Document:
    won = list(_wins(found, rules))
    still_open = [deal for deal in found.dossier.deals.values() if is_open(deal, rules)]
    teams = sorted({team for each in won for team in each.teams})
    return {
        "currency": rules.settings.currency,
        "won": {"deals": len(won), "amount": sum(each.amount for each in won)},
        "open": {"deals": len(still_open), "amount": sum(open_amount(deal, rules) or 0 for deal in still_open)},
        "sourced": {team: sum(each.amount for each in won if each.teams[:1] == (team,)) for team in teams},
        "influenced": {team: sum(each.amount for each in won if team in each.teams) for team in teams},
    }


def _wins(found: Account, rules: Rules) -> Iterator[_Won]:
    for part, deal in found.dossier.deals.items():
        conversions = conversions_of(deal, rules)
        won = next((each for each in conversions if each.kind == "won"), None)
        if won is not None:
            amount = sum(each.amount or 0 for each in conversions if each.kind in ("won", "refund"))
            touches = deal_credits(found.dossier, part, won).touches
            yield _Won(amount, tuple(dict.fromkeys(touch.team for touch in touches)))


# --- a person ---------------------------------------------------------------------------


def person_document(found: Account, lead: Lead, rules: Rules) -> Document:
    """Who a person of the account is, their touches, and what these earned."""
    own = [owned for owned in with_persons(found) if owned.person == lead.person]
    return {
        "person": lead.person,
        "role": lead.role,
        "ids": list(lead.ids),
        "account": found.name,
        "account_name": found.profile.name,
        "lead_at": to_text(lead.at),
        "currency": rules.settings.currency,
        "touches": [touch_row(*each) for each in own],
        "credits": _credits(_earned(found, rules)[lead.person], rules),
    }


Earned = dict[str, int]
"""By conversion, what touches earned under each model (as a cell's numbers)."""


def _earned(found: Account, rules: Rules) -> dict[str | None, Earned]:
    """What the touches of each person of the account earned."""
    persons = {id(touch): person for touch, person, _ in with_persons(found)}
    earned: dict[str | None, Earned] = defaultdict(dict)
    for booked in _all_booked(found, rules):
        kind = "won" if booked.conversion.kind == "refund" else booked.conversion.kind
        for credit in booked.credits:
            if credit.touch is not None:
                mine = earned[persons.get(id(credit.touch))]
                mine[kind] = mine.get(kind, 0) + credit.numbers
    return earned


def _all_booked(found: Account, rules: Rules) -> Iterator[Booked]:
    yield from (lead_credits(found.dossier, path) for path in found.dossier.leads)
    for part, deal in found.dossier.deals.items():
        for conversion in conversions_of(deal, rules):
            if _is_booked(conversion):
                yield deal_credits(found.dossier, part, conversion)


def _is_booked(conversion: Conversion) -> bool:
    return conversion.amount is not None


def _credits(earned: Earned, rules: Rules) -> Document:
    return {kind: by_model(numbers_of(numbers, rules.width), rules) for kind, numbers in sorted(earned.items())}
