"""What arrives: one record a topic, decoded and checked in one pass.

Page views, form fills and identities are Segment messages as they are
(Source: Segment spec, https://segment.com/docs/connections/spec/). A fact with any
invalid field is refused as a whole. `decode` is the one way in.
"""

from collections.abc import Callable, Iterable
from decimal import Decimal
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

from models.errors import BadInput
from models.identity import as_text, person_id
from models.ids import snake
from models.money import parse_amount, parse_currency, to_minor
from models.settings import Settings
from models.times import DAY, parse_instant, to_text

PAGE_VIEWS = "page-views"
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


class Hit(Struct, frozen=True, gc=False):
    """A page view or screen."""

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

    `visitor` is the anonymous id identified as `person` (None: nobody is identified);
    `names` are the person ids made known; `links` pairs (id, id it belongs to);
    `group` a pair (person, group id); `other_visitor` an alias's anonymous id. Here as in
    a hit, `is_listed` says that its user agent was a known bot's when it arrived.
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
    """A form filled in; `identification` says whom it names."""

    identification: Identification
    url: str
    referrer: str
    utm: Utm | None
    external_id: str | None = None


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
    person: str
    event: str
    count: int = 1
    account: str | None = None


VisitorFact = Hit | Identification | FormFill | Unlink | Verdict
Fact = VisitorFact | TouchFact | ContactChange | AccountChange | DealChange | Refund | ProductUsage
IsBot = Callable[[str], bool]
"""Is this user agent a known bot's?"""


class _Campaign(Struct, gc=False):
    name: Scalar = None
    source: Scalar = None
    medium: Scalar = None
    term: Scalar = None
    content: Scalar = None


class _Page(Struct, gc=False):
    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    search: str | None = None


class _Traits(Struct, gc=False):
    email: Scalar = None


class _Context(Struct, gc=False):
    campaign: _Campaign | None = None
    page: _Page | None = None
    traits: _Traits | None = None
    userAgent: str | None = None


class _Properties(Struct, gc=False):
    url: str | None = None
    path: str | None = None
    referrer: str | None = None
    search: str | None = None
    email: Scalar = None
    externalId: Scalar = None


class _Segment(Struct, gc=False):
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
    since: str | None = msgspec.field(default=None, name="from")
    until: str | None = msgspec.field(default=None, name="to")
    reason: str | None = None
    context: _Context | None = None
    properties: _Properties | None = None
    traits: _Traits | None = None


class _Touch(Struct):
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


class _Contact(Struct):
    messageId: Id
    timestamp: str
    person: Scalar
    source: Annotated[str, Meta(min_length=1)]
    receivedAt: str | None = None
    account: str | int | None | UnsetType = UNSET
    createdAt: str | None | UnsetType = UNSET
    role: str | None | UnsetType = UNSET


class _Account(Struct):
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


class _DealContact(Struct):
    person: Scalar
    role: str | None = None


class _Deal(Struct):
    dealId: str | int
    messageId: Id
    timestamp: str
    receivedAt: str | None = None
    account: str | int | None | UnsetType = UNSET
    contacts: list[Scalar | _DealContact] | None | UnsetType = UNSET
    name: str | None | UnsetType = UNSET
    pipeline: str | None | UnsetType = UNSET
    stage: str | None | UnsetType = UNSET
    amount: Raw | UnsetType = UNSET
    currency: str | None | UnsetType = UNSET
    owner: str | None | UnsetType = UNSET
    createdAt: str | None | UnsetType = UNSET
    expectedClose: str | None | UnsetType = UNSET
    deleted: bool | None | UnsetType = UNSET


class _Billing(Struct):
    type: str
    messageId: Id
    timestamp: str
    dealId: str | int
    amount: Raw
    currency: str | None = None
    receivedAt: str | None = None


class _Usage(Struct):
    messageId: Id
    timestamp: str
    person: Scalar
    event: str
    count: Annotated[int, Meta(ge=1, le=10**9)] | None = None
    account: str | int | None = None
    receivedAt: str | None = None


def decode(
    topic: str, value: bytes | None, recorded_at: int, settings: Settings, is_bot: IsBot = lambda agent: False
) -> Fact:
    """The fact in a Kafka record of `topic` that was recorded at `recorded_at` (µs).

    `is_bot` judges messages that carry no judgement of when they arrived.
    Raises BadInput, naming the field, when the record is no valid fact: the lane sends
    it to the dead letters and goes on.
    """
    if value is None or len(value) > settings.max_fact_bytes:
        size = 0 if value is None else len(value)
        raise BadInput(topic, f"a JSON object of at most {settings.max_fact_bytes} bytes", f"{size} bytes")
    try:
        raw = _DECODERS[topic].decode(value)
    except RecursionError:
        raise BadInput(topic, "JSON nested less deeply", value[:80].decode(errors="replace")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        message, _, path = str(error).partition(" - at `$")
        raise BadInput(topic + path.strip("`"), message, value[:200].decode(errors="replace")) from None
    if type(raw) is _Segment and raw.bot is None and raw.context and raw.context.userAgent:
        raw.bot = is_bot(raw.context.userAgent)
    return _READERS[topic](raw, value, _instant(raw, topic, recorded_at), settings)


def key_of(topic: str, fact: Fact) -> str:
    """The id whose partition the fact belongs to: what producers use as the record key."""
    return _KEYS[type(fact)](fact)


_KEYS: dict[type, Callable[[Any], str]] = {
    Hit: lambda fact: fact.visitor,
    Identification: lambda fact: fact.key,
    Unlink: lambda fact: fact.key,
    Verdict: lambda fact: fact.key or fact.id,
    FormFill: lambda fact: fact.identification.key,
    TouchFact: lambda fact: fact.id,
    ContactChange: lambda fact: fact.person,
    AccountChange: lambda fact: fact.account,
    DealChange: lambda fact: fact.deal,
    Refund: lambda fact: fact.deal,
    ProductUsage: lambda fact: fact.person,
}


def _instant(raw: Any, topic: str, recorded_at: int) -> int:
    at = parse_instant(raw.timestamp, topic, "timestamp")
    latest = recorded_at if raw.receivedAt is None else parse_instant(raw.receivedAt, topic, "receivedAt")
    if at > latest + DAY:
        raise BadInput(f"{topic}.timestamp", f"an instant up to 24 h after {to_text(latest)}", raw.timestamp)
    return at


def _visitor(raw: _Segment, person: str | None, topic: str) -> str:
    anonymous = _anonymous(raw)
    if anonymous:
        return anonymous
    if person is None:
        raise BadInput(topic, "an anonymousId or userId", raw.messageId)
    return f"user:{person}"


def _anonymous(raw: _Segment) -> str:
    return "" if raw.anonymousId is None else as_text(raw.anonymousId).strip()


def _utm(raw: _Segment) -> Utm | None:
    campaign = raw.context.campaign if raw.context else None
    if campaign is None:
        return None
    values = (campaign.source, campaign.medium, campaign.name, campaign.term, campaign.content)
    source, medium, name, term, content = ("" if value is None else as_text(value) for value in values)
    return source, medium, name, term, content


def _page(raw: _Segment) -> tuple[str, str]:
    """URL (with its search) and referrer: the properties' before the context's."""
    properties = raw.properties or _NO_PROPERTIES
    page = (raw.context.page if raw.context else None) or _NO_PAGE
    url = properties.url or page.url or properties.path or page.path or ""
    search = properties.search or page.search
    if search and "?" not in url:
        url = f"{url}?{search.lstrip('?')}"
    return url, properties.referrer or page.referrer or ""


_NO_PAGE = _Page()
_NO_PROPERTIES = _Properties()


def _read_hit(raw: _Segment, value: bytes, at: int, settings: Settings) -> Hit:
    if raw.type not in (None, "page", "screen"):
        raise BadInput("page-views.type", "page or screen", raw.type)
    person = None if raw.userId is None else person_id(raw.userId, settings)
    anonymous = raw.anonymousId
    visitor = anonymous.strip() if type(anonymous) is str else ""  # nine facts in ten: no call for them
    url, referrer = _page(raw)
    visitor = visitor or _visitor(raw, person, PAGE_VIEWS)
    return Hit(at, raw.messageId, visitor, person, url, referrer, _utm(raw), bool(raw.bot))


def _read_form_fill(raw: _Segment, value: bytes, at: int, settings: Settings) -> FormFill:
    emails = (
        raw.properties.email if raw.properties else None,
        raw.context.traits.email if raw.context and raw.context.traits else None,
        raw.traits.email if raw.traits else None,
    )
    identification = _identify(raw, at, _email(emails, FORM_FILLS, settings), FORM_FILLS, settings)
    url, referrer = _page(raw)
    external = raw.properties.externalId if raw.properties else None
    external_id = None if external is None else as_text(external) or None
    return FormFill(identification, url, referrer, _utm(raw), external_id)


def _email(values: Iterable[Scalar], topic: str, settings: Settings) -> str | None:
    """The first e-mail given, as compared; a guarded one is as though it were not there.

    Raises BadInput when it is no e-mail.
    """
    for value in values:
        email = person_id(value, settings)
        if email is not None:
            if "@" not in email.strip("@"):
                raise BadInput(f"{topic}.email", "an e-mail address", value)
            return email
    return None


def _identify(raw: _Segment, at: int, email: str | None, topic: str, settings: Settings) -> Identification:
    user = person_id(raw.userId, settings)
    person = email or user
    links = ((user, email),) if user and email and user != email else ()
    names = tuple(dict.fromkeys(name for name in (user, email) if name))
    key = _visitor(raw, user or email, topic)
    return Identification(at, raw.messageId, key, person, names, links, is_listed=bool(raw.bot))


def _read_identity(raw: _Segment, value: bytes, at: int, settings: Settings) -> Identification | Unlink | Verdict:
    reader = _IDENTITY_READERS.get(raw.type or "")
    if reader is None:
        raise BadInput("identities.type", "identify, alias, group, track, unlink or bot", raw.type)
    return reader(raw, at, settings)


def _read_identify(raw: _Segment, at: int, settings: Settings) -> Identification:
    context = raw.context.traits.email if raw.context and raw.context.traits else None
    own = raw.traits.email if raw.traits else None
    return _identify(raw, at, _email((own, context), IDENTITIES, settings), IDENTITIES, settings)


def _read_alias(raw: _Segment, at: int, settings: Settings) -> Identification:
    user, previous = person_id(raw.userId, settings), person_id(raw.previousId, settings)
    if raw.previousId is None or raw.userId is None:
        raise BadInput("identities.previousId", "the id that is now userId", raw.messageId)
    links = ((previous, user),) if user and previous and user != previous else ()
    names = tuple(dict.fromkeys(name for name in (user, previous) if name))
    key = _visitor(raw, user or previous, IDENTITIES)
    other = as_text(raw.previousId).strip() if user and previous else ""
    return Identification(at, raw.messageId, key, user, names, links, None, other or None, bool(raw.bot))


def _read_group(raw: _Segment, at: int, settings: Settings) -> Identification:
    user = person_id(raw.userId, settings)
    group = "" if raw.groupId is None else as_text(raw.groupId).strip()
    if not group:
        raise BadInput("identities.groupId", "the account's id", raw.groupId)
    names = (user,) if user else ()
    key = _visitor(raw, user, IDENTITIES)
    call = (user, group) if user else None
    return Identification(at, raw.messageId, key, user, names, (), call, is_listed=bool(raw.bot))


def _read_track(raw: _Segment, at: int, settings: Settings) -> Identification:
    return _identify(raw, at, None, IDENTITIES, settings)


def _read_unlink(raw: _Segment, at: int, settings: Settings) -> Unlink:
    if not raw.unlinks:
        raise BadInput("identities.unlinks", "the messageId to withdraw", raw.unlinks)
    person = person_id(raw.userId, settings) or person_id(raw.previousId, settings)
    return Unlink(at, raw.messageId, _visitor(raw, person, IDENTITIES), raw.unlinks)


def _read_verdict(raw: _Segment, at: int, settings: Settings) -> Verdict:
    if raw.bot is None:
        raise BadInput("identities.bot", "true or false", raw.bot)
    begin = None if raw.since is None else parse_instant(raw.since, "identities.from")
    end = None if raw.until is None else parse_instant(raw.until, "identities.to")
    person = person_id(raw.userId, settings)
    is_anybodys = raw.messageIds and not _anonymous(raw) and person is None
    key = "" if is_anybodys else _visitor(raw, person, IDENTITIES)
    return Verdict(at, raw.messageId, key, raw.bot, begin, end, raw.messageIds or ())


_IDENTITY_READERS: dict[str, Callable[[_Segment, int, Settings], Identification | Unlink | Verdict]] = {
    "identify": _read_identify,
    "alias": _read_alias,
    "group": _read_group,
    "track": _read_track,
    "page": _read_track,
    "screen": _read_track,
    "unlink": _read_unlink,
    "bot": _read_verdict,
}


def _clean(text: str | None) -> str | None:
    """Trimmed; None when nothing is left."""
    return (text.strip() or None) if text else None


def _lower(text: str | None) -> str | None:
    return (text.strip().lower() or None) if text else None


def _read_touch(raw: _Touch, value: bytes, at: int, settings: Settings) -> TouchFact:
    kind = snake(raw.kind)
    if not kind:
        raise BadInput("touches.kind", "a kind of touch such as call or demo", raw.kind)
    updated = None if raw.updatedAt is None else parse_instant(raw.updatedAt, "touches.updatedAt")
    return TouchFact(
        at=at,
        id=raw.touchId,
        person=person_id(raw.person, settings),
        kind=KIND_NAMES.get(kind, kind),
        raw=value,
        updated_at=updated,
        deleted=bool(raw.deleted),
        team=_lower(raw.team),
        rep=_clean(raw.rep),
        channel=snake(raw.channel) or None if raw.channel else None,
        source=_lower(raw.source),
        medium=_lower(raw.medium),
        campaign=_lower(raw.campaign),
        content=_lower(raw.content),
        landing_page=_clean(raw.landingPage),
    )


KIND_NAMES = {
    "email_open": "email_opened",
    "e_mail_opened": "email_opened",
    "e_mail_open": "email_opened",
    "email_click": "email_clicked",
    "e_mail_clicked": "email_clicked",
    "e_mail_click": "email_clicked",
    "email_reply": "email_replied",
    "e_mail_replied": "email_replied",
    "e_mail_reply": "email_replied",
    "reply": "email_replied",
    "download": "content_download",
    "trial": "trial_started",
    "milestone": "product_milestone",
    "quote": "quote_sent",
    "phone_call": "call",
}


def _account_id(value: str | int | None | UnsetType) -> str | None | UnsetType:
    """The id; exports write an empty one where a CRM has none."""
    if value is None or isinstance(value, UnsetType):
        return value
    return as_text(value).strip() or None


def _needed(value: str | int, where: str) -> str:
    text = as_text(value).strip()
    if not text or len(text) > 512:
        raise BadInput(where, "an id of 1 to 512 characters", value)
    return text


def _optional_instant(value: str | None | UnsetType, where: str) -> int | None | UnsetType:
    return parse_instant(value, where) if isinstance(value, str) else value


def _read_contact(raw: _Contact, value: bytes, at: int, settings: Settings) -> ContactChange:
    person = person_id(raw.person, settings)
    if person is None:
        raise BadInput("contact-changes.person", "an e-mail or user id that is nobody's placeholder", raw.person)
    account = _account_id(raw.account)
    created = _optional_instant(raw.createdAt, "contact-changes.createdAt")
    role = _lower(raw.role) if isinstance(raw.role, str) else raw.role
    return ContactChange(at, raw.messageId, person, raw.source.strip(), value, account, created, role)


def _read_account(raw: _Account, value: bytes, at: int, settings: Settings) -> AccountChange:
    return AccountChange(
        at=at,
        id=raw.messageId,
        account=_needed(raw.account, "account-changes.account"),
        raw=value,
        domains=_list_of(raw.domains, "account-changes.domains", "a domain such as acme.com"),
        customers=_list_of(raw.customers, "account-changes.customers", "a customer's id such as stripe:cus_1"),
        merged_into=_account_id(raw.mergedInto),
        parent=_account_id(raw.parent),
        name=_clean(raw.name) if isinstance(raw.name, str) else raw.name,
        quiet=raw.quiet,
        attributes=_attributes(raw.attributes),
    )


def _list_of(value: tuple[str, ...] | None | UnsetType, where: str, what: str) -> tuple[str, ...] | None | UnsetType:
    """A whole list, each entry trimmed and once."""
    if not isinstance(value, tuple):
        return value
    entries = tuple(dict.fromkeys(entry.strip() for entry in value))
    for entry in entries:
        if not entry or len(entry) > 512:
            raise BadInput(where, what, entry)
    return entries


def _attributes(
    given: dict[str, AttributeValue | None] | None | UnsetType,
) -> dict[str, AttributeValue | None] | None | UnsetType:
    """Attributes by name, which has no case; an empty text is as good as null."""
    if not isinstance(given, dict):
        return given
    if len(given) > MOST_ATTRIBUTES:
        raise BadInput("account-changes.attributes", f"at most {MOST_ATTRIBUTES} attributes", len(given))
    attributes = {name.strip().lower(): _attribute(name, value) for name, value in given.items()}
    if "" in attributes:
        raise BadInput("account-changes.attributes", "a name for each attribute", "")
    return attributes


def _attribute(name: str, value: AttributeValue | None) -> AttributeValue | None:
    if isinstance(value, str) and len(value) > 512:
        raise BadInput(f"account-changes.attributes.{name}", "a text of at most 512 characters", value)
    if isinstance(value, int) and not -(2**63) <= value < 2**63:
        raise BadInput(f"account-changes.attributes.{name}", "an integer of 64 bits", value)
    return _clean(value) if isinstance(value, str) else value


def _read_deal(raw: _Deal, value: bytes, at: int, settings: Settings) -> DealChange:
    return DealChange(
        at=at,
        id=raw.messageId,
        deal=_needed(raw.dealId, "deal-changes.dealId"),
        raw=value,
        account=_account_id(raw.account),
        contacts=_contacts(raw.contacts, settings),
        name=raw.name,
        pipeline=raw.pipeline,
        stage=_stage(raw.stage),
        amount=_amount(raw.amount),
        currency=_optional_currency(raw.currency),
        owner=raw.owner.strip() or None if isinstance(raw.owner, str) else raw.owner,
        created_at=_optional_instant(raw.createdAt, "deal-changes.createdAt"),
        expected_close=_day(raw.expectedClose),
        deleted=raw.deleted,
        roles=_roles(raw.contacts, settings),
    )


def _roles(value: list[Scalar | _DealContact] | None | UnsetType, settings: Settings) -> tuple[tuple[str, str], ...]:
    """The role of each contact that has one, the first where a person is named twice."""
    entries = value if isinstance(value, list) else ()
    named = [
        (person_id(entry.person, settings), _lower(entry.role)) for entry in entries if isinstance(entry, _DealContact)
    ]
    return tuple({person: role for person, role in reversed(named) if person and role}.items())


def _contacts(
    value: list[Scalar | _DealContact] | None | UnsetType, settings: Settings
) -> tuple[str, ...] | None | UnsetType:
    """The persons named, in order, each once; guarded values are dropped."""
    if not isinstance(value, list):
        return value
    people = (person_id(entry.person if isinstance(entry, _DealContact) else entry, settings) for entry in value)
    return tuple(dict.fromkeys(person for person in people if person))


def _stage(value: str | None | UnsetType) -> str | None | UnsetType:
    return (value.strip() or None) if isinstance(value, str) else value


def _amount(value: Raw | UnsetType) -> Decimal | None | UnsetType:
    if isinstance(value, UnsetType) or bytes(value) == b"null":
        return UNSET if isinstance(value, UnsetType) else None
    amount = parse_amount(bytes(value), "deal-changes.amount")
    to_minor(amount, "USD", "deal-changes.amount")
    if amount < 0:
        raise BadInput("deal-changes.amount", "an amount of 0 or more", str(amount))
    return amount


def _optional_currency(value: str | None | UnsetType) -> str | None | UnsetType:
    return parse_currency(value, "deal-changes.currency") if isinstance(value, str) else value


def _day(value: str | None | UnsetType) -> str | None | UnsetType:
    if not isinstance(value, str):
        return value
    return to_text(parse_instant(value, "deal-changes.expectedClose"))[:10]


def _read_billing(raw: _Billing, value: bytes, at: int, settings: Settings) -> Refund:
    if raw.type != "refund":
        raise BadInput("billing.type", "refund", raw.type)
    currency = parse_currency(raw.currency or settings.currency, "billing.currency")
    given = parse_amount(bytes(raw.amount), "billing.amount")
    amount = to_minor(given, currency, "billing.amount")
    if given <= 0:
        raise BadInput("billing.amount", "an amount above 0", str(given))
    return Refund(at, raw.messageId, _needed(raw.dealId, "billing.dealId"), amount, currency, value)


def _read_usage(raw: _Usage, value: bytes, at: int, settings: Settings) -> ProductUsage:
    person, event = person_id(raw.person, settings), raw.event.strip()
    if person is None:
        raise BadInput("product-usage.person", "an e-mail or user id that is nobody's placeholder", raw.person)
    if not event:
        raise BadInput("product-usage.event", "what the product was used for", raw.event)
    account = None if raw.account is None else as_text(raw.account).strip() or None
    return ProductUsage(at, raw.messageId, person, event, raw.count or 1, account)


_DECODERS: dict[str, msgspec.json.Decoder[Any]] = {
    PAGE_VIEWS: msgspec.json.Decoder(_Segment),
    FORM_FILLS: msgspec.json.Decoder(_Segment),
    IDENTITIES: msgspec.json.Decoder(_Segment),
    TOUCHES: msgspec.json.Decoder(_Touch),
    CONTACT_CHANGES: msgspec.json.Decoder(_Contact),
    ACCOUNT_CHANGES: msgspec.json.Decoder(_Account),
    DEAL_CHANGES: msgspec.json.Decoder(_Deal),
    BILLING: msgspec.json.Decoder(_Billing),
    PRODUCT_USAGE: msgspec.json.Decoder(_Usage),
}
_READERS: dict[str, Callable[[Any, bytes, int, Settings], Fact]] = {
    PAGE_VIEWS: _read_hit,
    FORM_FILLS: _read_form_fill,
    IDENTITIES: _read_identity,
    TOUCHES: _read_touch,
    CONTACT_CHANGES: _read_contact,
    ACCOUNT_CHANGES: _read_account,
    DEAL_CHANGES: _read_deal,
    BILLING: _read_billing,
    PRODUCT_USAGE: _read_usage,
}
