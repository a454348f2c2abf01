"""The company behind an account: what its facts, those who claim it and those merged into it say.

Kept beside the journey, and small: it says where the account's links lead, what it claims,
and who it is.
"""

from collections.abc import Iterable, Iterator
from functools import partial
from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET

from models.decoding import decode
from models.entity import Contents
from models.facts import ACCOUNT_CHANGES, AccountChange
from models.filters import Labels, labels_of
from models.identity import Link
from models.profiles import Profile, Stated, profile_of, said_by, stated
from models.reports import ABOUT, CHILD, CLAIM, CUSTOMER, id_in, pack
from models.rules import Rules
from models.times import END_OF_TIME

CHANGE = "A"
PASSED_ON = ABOUT + CUSTOMER + CHILD
"""Kinds of parts that a merged account hands on to the one it was merged into."""
KINDS = PASSED_ON + CLAIM + CHANGE
_stated = msgspec.msgpack.Decoder(Stated).decode
_str = msgspec.msgpack.Decoder(str).decode
_claim = msgspec.msgpack.Decoder(tuple[int, str, str]).decode


class Company:
    """What is known of an account but its journey and deals; indexed from the account's parts."""

    __slots__ = ("_changes", "_children", "_claims", "_customers", "_labels", "_merged", "_profile", "_rules", "name")

    def __init__(self, name: str, rules: Rules) -> None:
        self.name = name
        self._rules = rules
        self._changes: dict[str, AccountChange] = {}
        self._claims: dict[str, tuple[int, str, str]] = {}
        self._merged: dict[str, Stated] = {}
        self._customers: dict[str, str] = {}
        self._children: dict[str, str] = {}
        self._profile: Profile | None = None
        self._labels: Labels | None = None

    def index(self, part: str, value: bytes | None) -> None:
        """Know a part as it is now; None: it is gone."""
        self._profile = self._labels = None
        match part[0]:
            case "A":
                _put(self._changes, part, None if value is None else self.read(value))
            case "C":
                _put(self._claims, part, None if value is None else _claim(value))
            case "a":
                _put(self._merged, part, None if value is None else _stated(value))
            case "u":
                _put(self._customers, part, None if value is None else id_in(part))
            case "h":
                _put(self._children, part, None if value is None else _str(value))

    def read(self, raw: bytes) -> AccountChange:
        """An account change as it came."""
        fact = decode(ACCOUNT_CHANGES, raw, END_OF_TIME, self._rules.settings)
        assert isinstance(fact, AccountChange)
        return fact

    @property
    def stated(self) -> Stated:
        """What the account's own facts say."""
        return stated(self.name, self._changes.values(), bool(self._claims))

    @property
    def profile(self) -> Profile:
        """Who the account is, those merged into it included."""
        if self._profile is None:
            self._profile = profile_of(self.stated, self._merged.values(), self._customers.values())
        return self._profile

    def owner_at(self, at: int) -> str | None:
        """Who worked the account at an instant, by what its facts said up to then."""
        facts = [change for change in self._changes.values() if change.at <= at]
        return profile_of(stated(self.name, facts, False), map(partial(said_by, at), self._merged.values()), ()).owner

    @property
    def labels(self) -> Labels:
        """What the account is filtered by."""
        if self._labels is None:
            self._labels = labels_of(self.profile)
        return self._labels

    @property
    def children(self) -> tuple[str, ...]:
        """The accounts whose parent company this is."""
        return tuple(sorted({child for child in self._children.values() if child != self.name}))

    @property
    def merged_into(self) -> str | None:
        """The account that this one says it was merged into."""
        merged = latest(self._changes.values(), "merged_into")
        return None if merged is None or merged.merged_into == self.name else str(merged.merged_into)

    def links(self) -> Iterator[Link]:
        """The merger of the account, and those who claim it as a domain of theirs."""
        merged = latest(self._changes.values(), "merged_into")
        if merged is not None and self.merged_into:
            yield Link(merged.at, merged.id, self.name, str(merged.merged_into))
        for at, message, claimant in self._claims.values():
            yield Link(at, message, self.name, claimant)

    def contents(self, is_merged: bool) -> Contents:
        """What domains, customers and the parent company should hold of the account."""
        contents: Contents = {}
        if not self._changes and not self._merged:  # as most accounts
            return contents
        for claim in claims_of(self.name, self._changes.values(), self._rules):
            contents[claim.entity] = {f"{CLAIM}:": pack((claim.at, claim.id, self.name))}
        parent = None if is_merged else self.profile.parent
        if parent and parent != self.name:
            contents.setdefault(f"account:{parent}", {})[f"{CHILD}:"] = pack(self.name)
        return contents


def _put(index: dict[str, Any], part: str, value: Any) -> None:
    if value is None:
        index.pop(part, None)
    else:
        index[part] = value


class Claim(NamedTuple):
    """The domain (`account:…`) or customer (`customer:…`) is the account's, as the message `id` said at `at`."""

    entity: str
    at: int
    id: str
    account: str


def claims_of(account: str, changes: Iterable[AccountChange], rules: Rules) -> Iterator[Claim]:
    """The domains and customers that an account claims now."""
    domains, customers = latest(changes, "domains"), latest(changes, "customers")
    if domains is not None:
        for domain in sorted(claimed(domains, rules) - {account}):
            yield Claim(f"account:{domain}", domains.at, domains.id, account)
    if customers is not None:
        for customer in customers.customers or ():
            yield Claim(f"customer:{customer}", customers.at, customers.id, account)


def claimed(claim: AccountChange, rules: Rules) -> set[str]:
    """The registrable domains that an account change claims."""
    names = claim.domains or ()
    return {rules.registrable(name) or name.strip().lower() for name in names} if claim.domains is not UNSET else set()


def latest(facts: Iterable[AccountChange], field: str) -> AccountChange | None:
    """The latest fact that carries the field, None where that clears it."""
    carrying = [fact for fact in facts if getattr(fact, field) is not UNSET]
    last = max(carrying, key=lambda fact: (fact.at, fact.id), default=None)
    return last if last is not None and getattr(last, field) is not None else None
