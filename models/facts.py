"""What arrives: one record for each kind of fact, and whose partition it belongs to.

Page views, form fills and identities are Segment messages as they are (models.segment), the
others have formats of our own (models.decoding, whose `decode` is the one way in).
"""

from collections.abc import Callable
from decimal import Decimal
from typing import Annotated, Any, Final

from msgspec import UNSET, Meta, Struct, UnsetType

PAGE_VIEWS: Final = "page-views"
FORM_FILLS = "form-fills"
IDENTITIES = "identities"
TOUCHES = "touches"
CONTACT_CHANGES = "contact-changes"
ACCOUNT_CHANGES = "account-changes"
DEAL_CHANGES = "deal-changes"
BILLING = "billing"
PRODUCT_USAGE = "product-usage"
FACT_TOPICS = (
    PAGE_VIEWS,
    FORM_FILLS,
    IDENTITIES,
    TOUCHES,
    CONTACT_CHANGES,
    ACCOUNT_CHANGES,
    DEAL_CHANGES,
    BILLING,
    PRODUCT_USAGE,
)

Utm = tuple[str, str, str, str, str]
"""Source, medium, campaign, term and content, as sent; empty where absent."""

Id = Annotated[str, Meta(min_length=1, max_length=512)]
Scalar = str | int | float | bool | None
AttributeValue = str | int | bool
"""What an attribute of an account may be."""
MOST_ATTRIBUTES = 32


class PageView(Struct, frozen=True, gc=False):
    """A page view or screen as it came; its visitor keeps it as a Hit (models.hits)."""

    at: int
    id: str
    visitor: str
    person: str | None
    url: str
    referrer: str
    utm: Utm | None
    is_listed: bool = False


class Identification(Struct, frozen=True, array_like=True):
    """A message that names people: who the visitor is, which ids are one, whose account.

    `key` is the visitor, identified as `person` (None: nobody is identified);
    `names` are the person ids made known; `links` pairs (id, id it belongs to);
    `group` a pair (person, group id); `other_visitor` an alias's anonymous id. Here as in
    a page view, `is_listed` says that its user agent was a known bot's when it arrived.
    """

    at: int
    id: str
    key: str
    person: str | None = None
    names: tuple[str, ...] = ()
    links: tuple[tuple[str, str], ...] = ()
    group: tuple[str, str] | None = None
    other_visitor: str | None = None
    is_listed: bool = False


class FormFill(Struct, frozen=True, array_like=True):
    """A form filled in; `identification` says whom it names.

    It `is_touch` when its event is one of `form_events`; else it does no more than identify.
    """

    identification: Identification
    url: str
    referrer: str
    utm: Utm | None
    external_id: str | None = None
    is_touch: bool = True

    @property
    def at(self) -> int:
        """When it was filled in."""
        return self.identification.at

    @property
    def id(self) -> str:
        """The message's id."""
        return self.identification.id

    @property
    def key(self) -> str:
        """The visitor that filled it in."""
        return self.identification.key


class Unlink(Struct, frozen=True, array_like=True):
    """Withdraws the links of the message `unlinks`, for good."""

    at: int
    id: str
    key: str
    unlinks: str


class Verdict(Struct, frozen=True, array_like=True):
    """Says of messages of a visitor that they are a bot's, or (`bot` false) that they are none's.

    It is said of those from `begin` to `end`, both included, where these are given, and of
    no others than `message_ids` where there are any; these alone (no `key`) are any visitor's.
    """

    at: int
    id: str
    key: str
    bot: bool
    begin: int | None = None
    end: int | None = None
    message_ids: tuple[str, ...] = ()

    def covers(self, at: int, message_id: str) -> bool:
        """Is it said of the message?"""
        since = self.begin is None or self.begin <= at
        until = self.end is None or at <= self.end
        return since and until and (not self.message_ids or message_id in self.message_ids)


class TouchFact(Struct, frozen=True, array_like=True):
    """One version of a touch that another system recorded."""

    at: int
    id: str
    person: str | None
    kind: str
    raw: bytes
    updated_at: int | None = None
    deleted: bool = False
    team: str | None = None
    rep: str | None = None
    channel: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    landing_page: str | None = None


class ContactChange(Struct, frozen=True, array_like=True):
    """What a CRM (`source`) says of a person; UNSET = unchanged, None = withdrawn."""

    at: int
    id: str
    person: str
    source: str
    raw: bytes
    account: str | None | UnsetType = UNSET
    created_at: int | None | UnsetType = UNSET
    role: str | None | UnsetType = UNSET


class AccountChange(Struct, frozen=True, array_like=True):
    """What a CRM says of an account; UNSET = unchanged, None = cleared.

    `attributes` names only those that change, None among them those that are cleared.
    """

    at: int
    id: str
    account: str
    raw: bytes
    domains: tuple[str, ...] | None | UnsetType = UNSET
    customers: tuple[str, ...] | None | UnsetType = UNSET
    merged_into: str | None | UnsetType = UNSET
    parent: str | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    quiet: bool | None | UnsetType = UNSET
    attributes: dict[str, AttributeValue | None] | None | UnsetType = UNSET


class DealChange(Struct, frozen=True, array_like=True):
    """What a CRM says of a deal; UNSET = unchanged, None = cleared.

    `roles` are (person, role) of the contacts that it gives one.
    """

    at: int
    id: str
    deal: str
    raw: bytes
    account: str | None | UnsetType = UNSET
    contacts: tuple[str, ...] | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    pipeline: str | None | UnsetType = UNSET
    stage: str | None | UnsetType = UNSET
    amount: Decimal | None | UnsetType = UNSET
    currency: str | None | UnsetType = UNSET
    owner: str | None | UnsetType = UNSET
    created_at: int | None | UnsetType = UNSET
    expected_close: str | None | UnsetType = UNSET
    deleted: bool | None | UnsetType = UNSET
    roles: tuple[tuple[str, str], ...] = ()


class Refund(Struct, frozen=True, array_like=True):
    """Money given back on a deal: positive minor units of `currency`."""

    at: int
    id: str
    deal: str
    amount: int
    currency: str
    raw: bytes


class ProductUsage(Struct, frozen=True, array_like=True):
    """A person used the product `count` times; `account` is whose use it is where they have none."""

    at: int
    id: str
    raw: bytes
    person: str
    event: str
    count: int = 1
    account: str | None = None


VisitorFact = PageView | Identification | FormFill | Unlink | Verdict
Fact = VisitorFact | TouchFact | ContactChange | AccountChange | DealChange | Refund | ProductUsage
IsBot = Callable[[str], bool]
"""Is this user agent a known bot's?"""


def key_of(topic: str, fact: Fact) -> str:
    """The id whose partition the fact belongs to: what producers use as the record key."""
    return _KEYS[type(fact)](fact)


_KEYS: dict[type, Callable[[Any], str]] = {
    PageView: lambda fact: fact.visitor,
    Identification: lambda fact: fact.key,
    Unlink: lambda fact: fact.key,
    Verdict: lambda fact: fact.key or fact.id,
    FormFill: lambda fact: fact.key,
    TouchFact: lambda fact: fact.id,
    ContactChange: lambda fact: fact.person,
    AccountChange: lambda fact: fact.account,
    DealChange: lambda fact: fact.deal,
    Refund: lambda fact: fact.deal,
    ProductUsage: lambda fact: fact.person,
}
