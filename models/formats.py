"""Facts as they are sent, before they are read: the JSON of each topic; what we do not read is not in it.

Segment messages are Segment's own (https://segment.com/docs/connections/spec/), all others ours.
"""

from typing import Annotated

from msgspec import UNSET, Meta, Raw, Struct, UnsetType, field

from models.facts import AttributeValue, Id, Scalar


class Campaign(Struct, gc=False):
    """The utm values of a visit."""

    name: Scalar = None
    source: Scalar = None
    medium: Scalar = None
    term: Scalar = None
    content: Scalar = None


class Page(Struct, gc=False):
    """Where a message was sent from."""

    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    search: str | None = None


class Traits(Struct, gc=False):
    """What is said of the person."""

    email: Scalar = None


class Context(Struct, gc=False):
    """What surrounds a message."""

    campaign: Campaign | None = None
    page: Page | None = None
    traits: Traits | None = None
    userAgent: str | None = None


class Properties(Struct, gc=False):
    """What happened, in detail."""

    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    search: str | None = None
    email: Scalar = None
    externalId: Scalar = None


class Segment(Struct, gc=False):
    """A page view, form fill or identity."""

    messageId: Id
    timestamp: str
    type: str | None = None
    receivedAt: str | None = None
    anonymousId: str | int | None = None
    userId: Scalar = None
    previousId: Scalar = None
    groupId: Scalar = None
    event: str | None = None
    unlinks: str | None = None
    bot: bool | None = None
    messageIds: tuple[Id, ...] | None = None
    since: str | None = field(default=None, name="from")
    until: str | None = field(default=None, name="to")
    reason: str | None = None
    context: Context | None = None
    properties: Properties | None = None
    traits: Traits | None = None


class RawTouch(Struct):
    """A touch that another system recorded."""

    touchId: Id
    timestamp: str
    person: Scalar
    kind: Annotated[str, Meta(min_length=1)]
    receivedAt: str | None = None
    team: str | None = None
    rep: str | None = None
    channel: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    content: str | None = None
    landingPage: str | None = None
    updatedAt: str | None = None
    deleted: bool | None = None


class RawContact(Struct):
    """What a CRM says of a person."""

    messageId: Id
    timestamp: str
    person: Scalar
    source: Annotated[str, Meta(min_length=1)]
    receivedAt: str | None = None
    account: str | int | None | UnsetType = UNSET
    createdAt: str | None | UnsetType = UNSET
    role: str | None | UnsetType = UNSET


class RawAccount(Struct):
    """What a CRM says of an account."""

    messageId: Id
    timestamp: str
    account: str | int
    receivedAt: str | None = None
    domains: tuple[str, ...] | None | UnsetType = UNSET
    customers: tuple[str, ...] | None | UnsetType = UNSET
    mergedInto: str | int | None | UnsetType = UNSET
    parent: str | int | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    quiet: bool | None | UnsetType = UNSET
    attributes: dict[str, AttributeValue | None] | None | UnsetType = UNSET


class RawDealContact(Struct):
    """A contact of a deal, with a role."""

    person: Scalar
    role: str | None = None


class RawDeal(Struct):
    """What a CRM says of a deal."""

    dealId: str | int
    messageId: Id
    timestamp: str
    receivedAt: str | None = None
    account: str | int | None | UnsetType = UNSET
    contacts: list[Scalar | RawDealContact] | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    pipeline: str | None | UnsetType = UNSET
    stage: str | None | UnsetType = UNSET
    amount: Raw | UnsetType = UNSET
    currency: str | None | UnsetType = UNSET
    owner: str | None | UnsetType = UNSET
    createdAt: str | None | UnsetType = UNSET
    expectedClose: str | None | UnsetType = UNSET
    deleted: bool | None | UnsetType = UNSET


class RawBilling(Struct):
    """A refund."""

    type: str
    messageId: Id
    timestamp: str
    dealId: str | int
    amount: Raw
    currency: str | None = None
    receivedAt: str | None = None


class RawUsage(Struct):
    """A use of the product."""

    messageId: Id
    timestamp: str
    person: Scalar
    event: str
    count: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    account: str | int | None = None
    receivedAt: str | None = None
