"""What is known of a person: what CRMs say of a contact, and the lead that an account holds."""

from collections.abc import Collection, Iterable
from typing import Any

import msgspec
from msgspec import UNSET

from models.deals import Deal
from models.facts import ContactChange
from models.identity import email_domain
from models.rules import Rules


class Contact(msgspec.Struct, frozen=True, array_like=True):
    """What one contact-change says; `says_account` when it carries the field at all."""

    at: int
    id: str
    source: str
    says_account: bool
    account: str | None
    says_created: bool
    created_at: int | None
    raw: bytes
    says_role: bool = False
    role: str | None = None


def contact_of(fact: ContactChange) -> Contact:
    """The contact-change as it is kept."""
    account = None if fact.account is UNSET else fact.account
    created = None if fact.created_at is UNSET else fact.created_at
    says_account, says_created = fact.account is not UNSET, fact.created_at is not UNSET
    said = Contact(fact.at, fact.id, fact.source, says_account, account, says_created, created, fact.raw)
    return said if fact.role is UNSET else msgspec.structs.replace(said, says_role=True, role=fact.role)


def _latest_by_source(contacts: Collection[Contact], says: str, field: str) -> Any:
    """Per source the latest that carries the field; between sources the latest not null."""
    if not contacts:  # as with most people
        return None
    per_source: dict[str, Contact] = {}
    for contact in sorted(contacts, key=_contact_order):
        if getattr(contact, says):
            per_source[contact.source] = contact
    standing = [contact for contact in per_source.values() if getattr(contact, field) is not None]
    return getattr(max(standing, key=_contact_order), field) if standing else None


def _contact_order(contact: Contact) -> tuple[int, str, bytes]:
    return contact.at, contact.id, contact.raw


def account_of(
    person: str,
    emails: Iterable[str],
    contacts: Collection[Contact],
    groups: Iterable[tuple[int, str, str]],
    rules: Rules,
) -> str:
    """The present account of a person.

    In this order: the CRM's link, a group call, the domain of a business e-mail, else
    the person. `emails` are the person's, the one that counts first; `groups` are (at,
    message id, group id).
    """
    linked = _latest_by_source(contacts, "says_account", "account")
    if linked is not None:
        return str(linked)
    grouped = max(groups, default=None)
    if grouped is not None:
        return grouped[2]
    domains = (_business_domain(email, rules) for email in emails)
    return next((domain for domain in domains if domain), person)


def _business_domain(email: str, rules: Rules) -> str | None:
    """The registrable domain of a business e-mail; None where anybody can have an address of that host or domain."""
    domain = email_domain(email, rules.registrable)
    anybodys = domain is None or rules.free_mail(domain) or rules.free_mail(email.rpartition("@")[2])
    return None if anybodys else domain


def lead_moment(first_named: int, contacts: Collection[Contact]) -> int:
    """When the person is first known; the CRM's lead date replaces it."""
    created = _latest_by_source(contacts, "says_created", "created_at")
    return first_named if created is None else int(created)


def role_of(contacts: Collection[Contact]) -> str | None:
    """The person's role by the CRM."""
    role: str | None = _latest_by_source(contacts, "says_role", "role")
    return role


def role_in(deal: Deal, ids: Iterable[str], role: str | None) -> str | None:
    """The role of a person of these ids in a deal: that of its contacts' entry, else the person's own."""
    return next((named for person, named in deal.roles if person in ids), role) if deal.roles else role


class Lead(msgspec.Struct, frozen=True, array_like=True):
    """A person as the account holds them: known since `at`, by `ids`; `is_contact` in some CRM, with a `role`."""

    at: int
    person: str
    is_contact: bool
    ids: tuple[str, ...]
    role: str | None = None
