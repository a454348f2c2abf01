"""One deal or one account opened up: its touches, whose they are, and what they earned."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, NamedTuple, cast

from models.accounts import Account
from models.attribution import MARKOV
from models.booked import Booked, deal_credits
from models.columns import unpack_hits
from models.conversions import Credit, funnel_stage, milestones_of
from models.deal_records import DealRecord
from models.deals import Conversion, Deal, conversions_of, is_open, open_amount, won_at
from models.errors import NotFound
from models.hits import Hit
from models.identity import account_id
from models.markov import UNIT
from models.people import Person
from models.reports import Parts, id_in
from models.rules import Rules
from models.sessions import seen_under
from models.settings import Settings
from models.times import SECOND, to_text
from models.touches import WEB_SESSION, Touch
from streams.effects import removal_effects
from streams.entities import entity_at_rest, parts_at_rest
from streams.reference import rules_from

Document = dict[str, Any]
_SESSION = "s"


async def deal(redis: Any, settings: Settings, id: str) -> Document:
    """{deal, models, conversions: [{kind, at, amount …, touches: [{at, person, channel …, credits}], unattributed}]}.

    Touches are those that took part, oldest first; `credits` and `unattributed` are
    {model: {count, amount}}; of `markov`, which credits channels, a touch has {effect}, its
    channel's removal effect. Raises NotFound when no fact names the deal.
    """
    rules = rules_from(settings)
    record = cast(DealRecord, await entity_at_rest(redis, rules, f"deal:{id}"))
    if not record.parts:
        raise NotFound(f"no deal {id} is known")
    account = await account_above(redis, rules, record.parent)
    part = next((name for name in account.dossier.deals if id_in(name) == id), None) if account else None
    if account is None or part is None:  # its facts are on their way to the account
        return {"deal": _deal_of(record.deal, None, rules), "models": list(rules.models), "conversions": []}
    standing = account.dossier.deals[part]
    made = conversions_of(standing, rules)
    effects = {kind: await removal_effects(redis, settings, kind) for kind in {each.kind for each in made}}
    opened = [_conversion(account, part, each, effects[each.kind], rules) for each in made]
    return {"deal": _deal_of(standing, account, rules), "models": list(rules.models), "conversions": opened}


def _deal_of(deal: Deal, account: Account | None, rules: Rules) -> Document:
    row = deal_row(deal, account.name if account else None, rules)
    return {**row, "account_name": account.profile.name if account else None}


async def journey(redis: Any, settings: Settings, account: str) -> Document:
    """{account, name, merged_from, people, touches, deals} of an account; touches oldest first.

    An account that was merged into another answers for that one, and `merged_from` says
    so. Web touches have the pages seen and the seconds on site. Raises NotFound.
    """
    rules = rules_from(settings)
    asked = await known_account(redis, rules, account)
    found = await account_above(redis, rules, f"account:{asked.name}") or asked
    seen = await _visits(redis, settings, found.dossier.journey.touches)
    people = sorted(found.dossier.leads.values(), key=lambda lead: (lead.at, lead.person))
    return {
        "account": found.name,
        "name": found.profile.name,
        "merged_from": asked.name if asked.name != found.name else None,
        "people": [{"person": lead.person, "role": lead.role, "lead_at": to_text(lead.at)} for lead in people],
        "touches": [
            {**touch_row(*owned), **seen.get((owned.touch.visitor, owned.touch.id), {})}
            for owned in with_persons(found)
        ],
        "deals": [deal_row(each, found.name, rules) for each in sorted(found.dossier.deals.values(), key=_by_creation)],
    }


# --- finding the account ----------------------------------------------------------------


async def known_account(redis: Any, rules: Rules, text: str) -> Account:
    """The account of that very id, else of the registrable domain of that host name."""
    for name in dict.fromkeys((text, account_id(text, rules.registrable))):
        account = cast(Account, await entity_at_rest(redis, rules, f"account:{name}"))
        if account.parts:
            return account
    person = cast(Person, await entity_at_rest(redis, rules, f"person:{text}"))
    above = await account_above(redis, rules, person.parent) if person.parent else None
    belongs = f"; the person {text} belongs to the account {above.name}" if above else ""
    raise NotFound(f"no account {text} is known{belongs}")


async def account_above(redis: Any, rules: Rules, name: str) -> Account | None:
    """The account at the end of who reports to whom, from `name` up; None: not known yet."""
    passed: set[str] = set()
    while name and name not in passed:
        passed.add(name)
        entity = cast(Person | Account, await entity_at_rest(redis, rules, name))
        if isinstance(entity, Account) and not entity.parent:
            return entity
        name = entity.parent
    return None


# --- what a deal earned -----------------------------------------------------------------


def _conversion(
    account: Account, part: str, conversion: Conversion, effects: Mapping[str, int], rules: Rules
) -> Document:
    booked = deal_credits(account.dossier, part, conversion)
    row: Document = {"kind": conversion.kind}
    if conversion.kind == "refund":
        row["refund"] = conversion.id.rpartition("/")[2]
    row["at"] = to_text(conversion.at)
    row["amount"] = conversion.amount
    row["currency"] = rules.settings.currency
    if conversion.currency and conversion.currency != rules.settings.currency:
        row["original"] = {"amount": conversion.original, "currency": conversion.currency}
    if conversion.amount is None:
        row["waits_for"] = f"a rate from {conversion.currency} to {rules.settings.currency}"
        return {**row, "touches": [], "unattributed": None}
    none = [0] * rules.width
    earned = {id(credit.touch): credit.shares(rules) for credit in booked.credits if credit.touch is not None}
    persons = {id(owned.touch): owned.person for owned in with_persons(account)}
    roles = account.dossier.roles(booked.touches, account.dossier.deals[part])
    row["touches"] = [
        {
            **touch_row(touch, persons.get(id(touch)), role),
            "funnel_stage": stage,
            "credits": {**by_model(earned.get(id(touch), none), rules), **_effect(touch, effects)},
        }
        for (touch, stage), role in zip(_with_stages(account, part, booked, rules), roles, strict=True)
    ]
    row["unattributed"] = by_model(next(_unattributed(booked.credits, rules), none), rules)
    return row


def _effect(touch: Touch, effects: Mapping[str, int]) -> Document:
    return {MARKOV: {"effect": effects[touch.channel] / UNIT}} if touch.channel in effects else {}


def _unattributed(credits: Iterable[Credit], rules: Rules) -> Iterator[list[int]]:
    return (credit.shares(rules) for credit in credits if credit.touch is None)


def _with_stages(account: Account, part: str, booked: Booked, rules: Rules) -> Iterator[tuple[Touch, str]]:
    """The touches that took part, with their funnel stages: those without credit have one too."""
    deal, kind = account.dossier.deals[part], booked.conversion.kind
    won = won_at(deal, rules)
    at = won if kind == "refund" and won is not None else booked.conversion.at
    milestones = milestones_of(kind, at, account.dossier.first_lead, deal.created_at, won)
    return ((touch, funnel_stage(touch.at, milestones)) for touch in booked.touches)


def by_model(shares: Sequence[int], rules: Rules) -> Document:
    """{model: {count (millionths), amount (minor units)}}, models without a share left out."""
    pairs = zip(rules.models, shares[::2], shares[1::2], strict=True)
    return {model: {"count": count, "amount": amount} for model, count, amount in pairs if count or amount}


# --- rows -------------------------------------------------------------------------------


class Owned(NamedTuple):
    """A touch with the person whose it is, and their role."""

    touch: Touch
    person: str | None = None
    role: str | None = None


def with_persons(account: Account) -> list[Owned]:
    """The account's touches, oldest first, each with whose it is."""
    owned = []
    for path, touches in account.dossier.journey.by_path.items():
        lead = account.dossier.lead_of(path)
        person, role = (lead.person, lead.role) if lead else (None, None)
        owned += [Owned(touch, person, role) for touch in touches]
    return sorted(owned, key=lambda each: each.touch.order)


def touch_row(touch: Touch, person: str | None, role: str | None) -> Document:
    """A touch in words."""
    return {
        "at": to_text(touch.at),
        "id": touch.id,
        "person": person,
        "role": role,
        "kind": touch.kind,
        "team": touch.team,
        "channel": touch.channel,
        "source": touch.source,
        "medium": touch.medium,
        "campaign": touch.campaign,
        "term": touch.term,
        "content": touch.content,
        "landing_page": touch.landing_page,
        "referrer": touch.referrer,
        "click_id": touch.click_id,
        "rep": touch.rep,
        "visitor": touch.visitor,
    }


def deal_row(deal: Deal, account: str | None, rules: Rules) -> Document:
    """A deal in words; `state` is open, won, lost or deleted, `amount` in the deal's own currency."""
    won = won_at(deal, rules)
    return {
        "id": deal.id,
        "name": deal.name,
        "account": account,
        "contacts": list(deal.contacts),
        "pipeline": deal.pipeline,
        "stage": deal.stage,
        "state": _state(deal, won, rules),
        "amount": deal.amount,
        "currency": deal.currency or rules.settings.currency,
        "open_amount": open_amount(deal, rules) if is_open(deal, rules) else None,
        "owner": deal.owner,
        "created_at": None if deal.created_at is None else to_text(deal.created_at),
        "won_at": None if won is None else to_text(won),
        "expected_close": deal.expected_close,
        "stages": [{"at": to_text(at), "stage": stage} for at, stage in deal.stages],
        "refunds": [
            {"id": each.id, "at": to_text(each.at), "amount": each.amount, "currency": each.currency}
            for each in deal.refunds
        ],
    }


def _state(deal: Deal, won: int | None, rules: Rules) -> str:
    if deal.deleted:
        return "deleted"
    if is_open(deal, rules):
        return "open"
    return "lost" if won is None else "won"


def _by_creation(deal: Deal) -> tuple[int, str]:
    return deal.created_at or 0, deal.id


# --- what was seen on the site ----------------------------------------------------------


class Visit(NamedTuple):
    """What was seen under a web touch: the pages while its source was current."""

    touch: str
    paths: list[str]
    seconds: float


async def _visits(redis: Any, settings: Settings, touches: Iterable[Touch]) -> dict[tuple[str | None, str], Document]:
    """Per visitor and touch id the pages seen and the time on site, from the sessions kept."""
    visitors = {touch.visitor for touch in touches if touch.kind == WEB_SESSION and touch.visitor}
    kept = await parts_at_rest(redis, settings, [f"visitor:{visitor}" for visitor in sorted(visitors)])
    return {
        (visitor, visit.touch): {"pages": len(visit.paths), "paths": visit.paths, "seconds": visit.seconds}
        for visitor in visitors
        for visit in _visits_in(kept[f"visitor:{visitor}"])
    }


def _visits_in(parts: Parts) -> Iterator[Visit]:
    for name, value in parts.items():
        if name.startswith(f"{_SESSION}:"):
            yield from visits_of(unpack_hits(value))


def visits_of(hits: Sequence[Hit]) -> Iterator[Visit]:
    """A session's hits by the touch under whose source they were made.

    Time on site is from each of these hits to the next hit of the session.
    """
    spent = {hit.id: following.at - hit.at for hit, following in pairwise(hits)}
    for opened, seen in seen_under(hits):
        seconds = sum(spent.get(hit.id, 0) for hit in seen) / SECOND
        yield Visit(opened.hit.id, [hit.path for hit in seen], seconds)
