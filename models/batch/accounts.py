"""Which account does each person and each deal belong to, and who is each account?"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

from models.batch.people import People
from models.batch.standing import Facts
from models.companies import Claim, claims_of, latest
from models.facts import ACCOUNT_CHANGES, CONTACT_CHANGES, AccountChange
from models.groups import roots_of
from models.identity import Link, Root
from models.leads import Contact, account_of, lead_moment, role_of
from models.profiles import NOBODY, Profile, profile_of, stated
from models.rules import Rules

_NO_LIMIT = 2**62


class Accounts(NamedTuple):
    """The present account of each person, and the account that each id counts for."""

    of_person: dict[str, str]
    before_mergers: dict[str, str]
    roots: dict[str, Root]
    lead_moments: dict[str, int]
    people_roles: dict[str, str | None]
    ids: dict[str, list[str]]
    contacts: set[str]

    def root(self, name: str) -> str:
        """The account that this one was merged into or claimed by, in the end."""
        root = self.roots.get(name)
        return name if root is None else root.id


def accounts_of(kept: Facts, people: People, rules: Rules) -> Accounts:
    """Whose every person is, and what is said of them as a contact."""
    changes_of = kept.of(ACCOUNT_CHANGES)
    links = [link for name, changes in changes_of.items() for link in _account_links(name, changes, rules)]
    ids: dict[str, list[str]] = defaultdict(list)
    accounts = Accounts({}, {}, roots_of(links, _NO_LIMIT), {}, {}, ids, set())
    for name in people.known:
        ids[people.root(name)].append(name)
    for person, names in ids.items():
        contacts: list[Contact] = [each for name in names for each in kept.of(CONTACT_CHANGES).get(name, {}).values()]
        groups = [call for name in names for call in people.groups.get(name, ())]
        account = account_of(person, _emails(person, names, people), contacts, groups, rules)
        accounts.before_mergers[person] = account
        accounts.of_person[person] = accounts.root(account)
        if contacts:
            accounts.contacts.add(person)
        accounts.people_roles[person] = role_of(contacts)
        accounts.lead_moments[person] = lead_moment(min(people.known[name] for name in names), contacts)
    return accounts


def _emails(person: str, names: Iterable[str], people: People) -> list[str]:
    """The person's own e-mail, then those linked to them, the one linked last first."""
    linked = [(people.roots[name].linked_at, name) for name in names if "@" in name and name != person]
    return [person] * ("@" in person) + [name for _, name in sorted(linked, reverse=True)]


def _account_links(name: str, changes: Mapping[str, AccountChange], rules: Rules) -> Iterator[Link]:
    """A merger of the account, and the domains it claims, as they now stand."""
    merged = latest(changes.values(), "merged_into")
    if merged and merged.merged_into != name:
        yield Link(merged.at, merged.id, name, str(merged.merged_into))
    for claim in claims_of(name, changes.values(), rules):
        kind, _, domain = claim.entity.partition(":")
        if kind == "account":
            yield Link(claim.at, claim.id, domain, name)


def companies_of(kept: Facts, accounts: Accounts, rules: Rules) -> dict[str, tuple[Profile, tuple[str, ...]]]:
    """Who each account is, those merged into it included, and whose parent company it is."""
    changes = kept.of(ACCOUNT_CHANGES)
    claims = [claim for name in changes for claim in claims_of(name, changes[name].values(), rules)]
    domains = {each.entity.removeprefix("account:") for each in claims if each.entity.startswith("account:")}
    own = {name: stated(name, changes.get(name, {}).values(), name in domains) for name in {*changes, *domains}}
    merged: dict[str, list[str]] = defaultdict(list)
    for name in own:
        if accounts.root(name) != name:
            merged[accounts.root(name)].append(name)
    customers = _customers(claims, accounts)
    profiles: dict[str, Profile] = {}
    for name in {*own, *merged, *customers} - {name for names in merged.values() for name in names}:
        said = own.get(name) or stated(name, (), False)
        profiles[name] = profile_of(said, (own[each] for each in merged[name]), customers.get(name, ()))
    return _with_children(profiles, accounts)


def _customers(claims: Iterable[Claim], accounts: Accounts) -> dict[str, list[str]]:
    """The customers of each account: each is whose claim is the latest."""
    latest_claims = {each.entity: each for each in sorted(claims, key=lambda each: (each.at, each.id, each.account))}
    customers: dict[str, list[str]] = defaultdict(list)
    for entity, claim in latest_claims.items():
        if entity.startswith("customer:"):
            customers[accounts.root(claim.account)].append(entity.removeprefix("customer:"))
    return customers


def _with_children(profiles: Mapping[str, Profile], accounts: Accounts) -> dict[str, tuple[Profile, tuple[str, ...]]]:
    children: dict[str, list[str]] = defaultdict(list)
    for name, profile in profiles.items():
        parent = profile.parent and accounts.root(profile.parent)
        if parent and parent != name:
            children[parent].append(name)
    everyone = {*profiles, *children}
    companies = {name: (profiles.get(name, NOBODY), tuple(sorted(children[name]))) for name in everyone}
    return {name: company for name, company in companies.items() if company != (NOBODY, ())}
