"""The facts of the sample world in their topics' shapes: Segment messages, CRM changes, touches."""

from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from deploy.market import SITE, Company, Form, Landing, Person

Fact = tuple[str, dict[str, Any]]
"""A topic, and a JSON object for it."""

BROWSER = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"


def page_view(id: str, at: datetime, device: str, path: str) -> Fact:
    """A page seen after another page of the site."""
    page = {"url": SITE + path, "path": path, "referrer": f"{SITE}/"}
    return "page-views", _segment("page", id, at, device, {"page": page}, properties=page)


def arrival_view(id: str, at: datetime, device: str, landing: Landing) -> Fact:
    """The first page of a visit: it shows the way by which the visitor came."""
    way, path, campaign = landing
    utm = {"source": way.source, "medium": way.medium, "campaign": campaign}
    query = {f"utm_{name}": value for name, value in utm.items() if value}
    if way.click_id:
        query[way.click_id] = f"click-{id}"
    search = f"?{urlencode(query)}" if query else ""
    page = {"url": SITE + path + search, "path": path, "search": search, "referrer": way.referrer}
    context: dict[str, Any] = {"page": page}
    if way.source:
        context["campaign"] = {"source": way.source, "medium": way.medium, "name": campaign}
    return "page-views", _segment("page", id, at, device, context, properties=page)


def form_fill(id: str, at: datetime, device: str, person: Person, form: Form) -> Fact:
    """A form that tells the visitor's e-mail address."""
    page = {"url": SITE + form.path, "path": form.path, "referrer": f"{SITE}/"}
    properties = {"form": form.name, "email": person.email, "name": person.name}
    message = _segment("track", id, at, device, {"page": page}, properties=properties)
    return "form-fills", {**message, "event": "Form Submitted"}


def identify(id: str, at: datetime, device: str, person: Person) -> Fact:
    """A device whose user is known: the address was signed in, or carried by a newsletter's link."""
    traits = {"email": person.email, "name": person.name}
    return "identities", _segment("identify", id, at, device, {}, userId=person.email, traits=traits)


def group(id: str, at: datetime, device: str, person: Person, company: Company) -> Fact:
    """A person who says which account they work in."""
    named = {"userId": person.email, "groupId": company.account, "traits": {"name": company.name}}
    return "identities", _segment("group", id, at, device, {}, **named)


def touch(id: str, at: datetime, person: Person, kind: str, team: str, **more: str) -> Fact:
    """An interaction away from the site; `more` is its rep, source, campaign and the like."""
    return "touches", {
        "touchId": id,
        "timestamp": _text(at),
        "person": person.email,
        "kind": kind,
        "team": team,
        **more,
    }


def contact_change(id: str, at: datetime, person: Person, company: Company) -> Fact:
    """The CRM's word that a person works for an account."""
    named = {"person": person.email, "account": company.account, "role": person.role, "source": "crm"}
    return "contact-changes", {"messageId": id, "timestamp": _text(at), "createdAt": _text(at), **named}


def account_change(id: str, at: datetime, company: Company) -> Fact:
    """The CRM's word who a company is and, where it has an id for it, whose its domain is."""
    named: dict[str, Any] = {"account": company.account, "name": company.name, "attributes": company.attributes}
    if company.in_crm:
        named["domains"] = [company.domain]
    return "account-changes", {"messageId": id, "timestamp": _text(at), **named}


def deal_change(id: str, at: datetime, deal: str, **changes: Any) -> Fact:
    """What the CRM says of a deal from now on; what is not named stays as it is."""
    return "deal-changes", {"dealId": deal, "messageId": id, "timestamp": _text(at), **changes}


def deal_opening(id: str, at: datetime, deal: str, company: Company, **fields: Any) -> Fact:
    """A new deal of a company, with its people as contacts."""
    opening = {
        "account": company.account,
        "contacts": [{"person": person.email, "role": person.role} for person in company.people],
        "name": f"{company.name} – Halyard",
        "currency": "USD",
        "createdAt": _text(at),
        "expectedClose": (at + timedelta(days=45)).date().isoformat(),
    }
    return deal_change(id, at, deal, **opening, **fields)


def usage(id: str, at: datetime, person: Person, event: str, count: int = 1) -> Fact:
    """What a person did in the product."""
    done = {"person": person.email, "event": event, "count": count}
    return "product-usage", {"messageId": id, "timestamp": _text(at), **done}


def refund(id: str, at: datetime, deal: str, dollars: int) -> Fact:
    """Money given back on a deal."""
    given = {"dealId": deal, "amount": f"{dollars}.00", "currency": "USD"}
    return "billing", {"type": "refund", "messageId": id, "timestamp": _text(at), **given}


def product_usage(id: str, at: datetime, person: Person, event: str, count: int = 1) -> Fact:
    """Something that a person did in the product."""
    used = {"person": person.email, "event": event, "count": count}
    return "product-usage", {"messageId": id, "timestamp": _text(at), **used}


def _segment(type_: str, id: str, at: datetime, device: str, context: dict[str, Any], **more: Any) -> dict[str, Any]:
    head = {"type": type_, "messageId": id, "timestamp": _text(at), "anonymousId": device}
    return {**head, "context": {**context, "userAgent": BROWSER}, **more}


def _text(at: datetime) -> str:
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")
