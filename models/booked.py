"""The credits of an account's conversions, as its dossier now stands. Nothing booked is stored."""

from collections.abc import Iterator
from typing import NamedTuple

from models.conversions import Credit, Weighing, credits_of, eligible, milestones_of
from models.deals import Conversion, won_at
from models.dossier import Dossier
from models.touches import Touch


class Booked(NamedTuple):
    """A conversion with what its credits are computed from."""

    conversion: Conversion
    touches: list[Touch]
    credits: list[Credit]


def lead_credits(dossier: Dossier, path: str) -> Booked:
    """The `lead` conversion of the person with this path."""
    lead = dossier.leads[path]
    conversion = Conversion("lead", lead.person, lead.at, 0)
    touches = eligible(dossier.touches_of_person(path), "lead", lead.at, dossier.rules)
    milestones = milestones_of("lead", lead.at, lead.at, None, None)
    weighing = Weighing(lead.at, touches, milestones, [lead.role] * len(touches))
    return Booked(conversion, touches, credits_of(conversion, weighing, dossier.rules))


def deal_credits(dossier: Dossier, name: str, conversion: Conversion) -> Booked:
    """The credits of one conversion (or refund) of the deal kept as `name`."""
    deal, rules = dossier.deals[name], dossier.rules
    kind, at = weighed_as(dossier, name, conversion)
    touches = eligible(dossier.touches_for(deal), kind, at, rules)
    milestones = milestones_of(conversion.kind, at, dossier.first_lead, deal.created_at, won_at(deal, rules))
    roles = dossier.roles(touches, deal) if rules.weighs_roles else ()
    return Booked(conversion, touches, credits_of(conversion, Weighing(at, touches, milestones, roles), rules))


def weighed_as(dossier: Dossier, name: str, conversion: Conversion) -> tuple[str, int]:
    """As which kind of conversion it is weighed, and at what moment: a refund as its deal's win."""
    if conversion.kind != "refund":
        return conversion.kind, conversion.at
    won = won_at(dossier.deals[name], dossier.rules)
    return "won", conversion.at if won is None else won


def all_credits(dossier: Dossier) -> Iterator[tuple[str, list[Credit]]]:
    """The credits of every conversion that is booked, by kind and id."""
    for path, lead in dossier.leads.items():
        yield f"lead:{lead.person}", lead_credits(dossier, path).credits
    for name, conversions in dossier.conversions.items():
        for conversion in conversions:
            if conversion.amount is not None:
                yield f"{conversion.kind}:{conversion.id}", deal_credits(dossier, name, conversion).credits
