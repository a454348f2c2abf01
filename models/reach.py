"""How far a batch reaches into what an account has booked: what may come to something else than before."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from models.booked import weighed_as
from models.deals import Conversion, Deal, conversions_of, is_open, won_at
from models.dossier import Dossier
from models.leads import Lead
from models.received import Received, path_in, used_in
from models.reports import DEAL, KNOWN
from models.rules import Rules
from models.touches import Touch


class Reach(NamedTuple):
    """People by path, deals and usage by part name, times of touches.

    `restated` are the deals whose conversions or milestones may differ, or it is
    `every_deal`; `moved` all deals whose place in the pipeline may. When the account
    `advances`, its own place on the way to a customer may differ.
    """

    leads: set[str]
    restated: set[str]
    every_deal: bool
    moved: set[str]
    times: list[int]
    used: set[str]
    advances: bool


def whole(names: Iterable[str]) -> Reach:
    """To all that parts of these names may come to."""
    leads, deals = set(), set()
    for name in names:
        if name[0] == KNOWN:
            leads.add(path_in(name))
        elif name[0] == DEAL:
            deals.add(name)
    return Reach(leads, set(), True, deals, [], used_in(names), True)


def reach_of(dossier: Dossier, names: Iterable[str], brought: Received) -> Reach:
    """How far it reaches when the dossier takes parts of these names, and what they bring."""
    leads = {path for path, lead in brought.leads.items() if _converts_anew(dossier.leads.get(path), lead)}
    times = []
    for path, was, now in brought.touches:
        lead_path = dossier.lead_path(path)
        for touch in (was, now):
            if touch is not None:
                times.append(touch.at)
                if lead_path is not None and _weighs(dossier, lead_path, touch):
                    leads.add(lead_path)
    restated = {name for name, deal in brought.deals.items() if _restates(dossier, name, deal)}
    every_deal = _weighs_deals_anew(dossier, brought.leads)
    advances = bool(brought.deals) or any(
        (lead is None) == (path in dossier.leads) for path, lead in brought.leads.items()
    )
    return Reach(leads, restated, every_deal, set(brought.deals), times, used_in(names), advances)


def _converts_anew(was: Lead | None, lead: Lead | None) -> bool:
    """Does a person's new state change their `lead` conversion or what it is weighed by?"""
    return was is None or lead is None or (was.person, was.at, was.role) != (lead.person, lead.at, lead.role)


def _weighs(dossier: Dossier, path: str, touch: Touch) -> bool:
    """Can the touch take part in the `lead` conversion of the person with this path?"""
    at = dossier.leads[path].at
    return at - dossier.rules.lookback["lead"] <= touch.at <= at or at in touch.known_at


def _restates(dossier: Dossier, name: str, deal: Deal | None) -> bool:
    """Does the deal's new state change its conversions or the milestones they are weighed by?"""
    if deal is None or name not in dossier.deals:
        return True
    if _weighed_by(dossier.deals[name], dossier.rules) != _weighed_by(deal, dossier.rules):
        return True
    return dossier.conversions[name] != conversions_of(deal, dossier.rules)


def _weighed_by(deal: Deal, rules: Rules) -> tuple[object, ...]:
    return deal.created_at, won_at(deal, rules), is_open(deal, rules), deal.contacts, deal.roles


def _weighs_deals_anew(dossier: Dossier, changed: Mapping[str, Lead | None]) -> bool:
    """Do the account's people change so that every deal's credits may?"""
    if not changed:
        return False
    weighs_people = dossier.rules.settings.deal_contacts_only or dossier.rules.weighs_roles
    return weighs_people or dossier.first_lead != _first_lead_after(dossier, changed)


def _first_lead_after(dossier: Dossier, changed: Mapping[str, Lead | None]) -> int | None:
    moments = [lead.at for path, lead in dossier.leads.items() if path not in changed]
    moments += [lead.at for lead in changed.values() if lead is not None]
    return min(moments, default=None)


def is_within(dossier: Dossier, name: str, conversion: Conversion, times: list[int]) -> bool:
    """Can a touch of one of these times take part in the conversion of the deal kept as `name`?"""
    if not times:
        return False
    kind, end = weighed_as(dossier, name, conversion)
    begin = end - dossier.rules.lookback[kind]
    return any(begin <= at <= end for at in times)
