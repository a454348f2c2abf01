"""From the bytes of a record to a fact, checked in one pass: a fact with any invalid field is refused as a whole."""

from collections.abc import Callable
from decimal import Decimal
from typing import Any, Final

import msgspec
from msgspec import UNSET, Raw, UnsetType

from models.arrivals import Arrive
from models.errors import BadInput, misfit
from models.facts import (
    ACCOUNT_CHANGES,
    BILLING,
    CONTACT_CHANGES,
    DEAL_CHANGES,
    FORM_FILLS,
    IDENTITIES,
    MOST_ATTRIBUTES,
    PAGE_VIEWS,
    PRODUCT_USAGE,
    TOUCHES,
    AccountChange,
    AttributeValue,
    ContactChange,
    DealChange,
    Fact,
    IsBot,
    ProductUsage,
    Refund,
    Scalar,
    TouchFact,
)
from models.formats import (
    Context,
    RawAccount,
    RawBilling,
    RawContact,
    RawDeal,
    RawDealContact,
    RawTouch,
    RawUsage,
    Segment,
)
from models.hits import Hit
from models.identity import as_text, person_id
from models.ids import snake
from models.money import parse_amount, parse_currency, to_minor
from models.segment import read_form_fill, read_identity, read_page_view, read_view
from models.settings import Settings
from models.times import DAY, parse_instant, to_text


def decode(
    topic: str, value: bytes | None, recorded_at: int, settings: Settings, is_bot: IsBot = lambda agent: False
) -> Fact:
    """The fact in a Kafka record of `topic` that was recorded at `recorded_at` (µs).

    `is_bot` judges messages that carry no judgement of when they arrived.
    Raises BadInput, naming the field, when the record is no valid fact: the lane sends
    it to the dead letters and goes on.
    """
    checked = _small_enough(topic, value, settings)
    raw = _parsed(topic, checked)
    if type(raw) is Segment:
        raw.bot = _is_listed(raw.bot, raw.context, is_bot)
    at = _instant_of(topic, raw, recorded_at)
    return _READERS[topic](raw, checked, at, settings)


def decode_view(
    value: bytes | None, recorded_at: int, settings: Settings, is_bot: IsBot, arrive: Arrive
) -> tuple[str, Hit]:
    """The visitor whose page view it is, and the hit that the visitor keeps of what `decode` finds.

    Nine facts in ten are page views, so nothing else is made of them. Raises BadInput.
    """
    raw: Segment = _parsed(PAGE_VIEWS, _small_enough(PAGE_VIEWS, value, settings))
    context = raw.context
    is_listed = _is_listed(raw.bot, context, is_bot)
    at = _instant_of(PAGE_VIEWS, raw, recorded_at)
    visitor, person, url, referrer, utm = read_view(raw, context, settings)
    origin, path = arrive(url, referrer, utm)
    return visitor, Hit(at, raw.messageId, origin, path, person, is_listed is True)


def _small_enough(topic: str, value: bytes | None, settings: Settings) -> bytes:
    if value is None or len(value) > settings.max_fact_bytes:
        size = 0 if value is None else len(value)
        raise BadInput(topic, f"a JSON object of at most {settings.max_fact_bytes} bytes", f"{size} bytes")
    return value


def _parsed(topic: str, value: bytes) -> Any:
    """The JSON as what is sent to the topic."""
    try:
        return _DECODERS[topic](value)
    except RecursionError:
        raise BadInput(topic, "JSON nested less deeply", value[:80].decode(errors="replace")) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise misfit(error, f"{topic}.", value[:200].decode(errors="replace")) from None


def _is_listed(said: bool | None, context: Context | None, is_bot: IsBot) -> bool | None:
    """What the message says of its user agent, else what the list says; None: nothing does."""
    if said is not None or context is None:
        return said
    agent = context.userAgent
    return is_bot(agent) if agent else None


def _instant_of(topic: str, raw: Any, recorded_at: int) -> int:
    """When it happened, at most a day after it was received."""
    at = parse_instant(raw.timestamp, topic, "timestamp")
    received = raw.receivedAt
    latest = recorded_at if received is None else parse_instant(received, topic, "receivedAt")
    if at > latest + DAY:
        raise BadInput(f"{topic}.timestamp", f"an instant up to 24 h after {to_text(latest)}", raw.timestamp)
    return at


def _clean(text: str | None) -> str | None:
    """Trimmed; None when nothing is left."""
    return (text.strip() or None) if text else None


def _lower(text: str | None) -> str | None:
    return (text.strip().lower() or None) if text else None


def _read_touch(raw: RawTouch, value: bytes, at: int, settings: Settings) -> TouchFact:
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


def _read_contact(raw: RawContact, value: bytes, at: int, settings: Settings) -> ContactChange:
    person = person_id(raw.person, settings)
    if person is None:
        raise BadInput("contact-changes.person", "an e-mail or user id that is nobody's placeholder", raw.person)
    account = _account_id(raw.account)
    created = _optional_instant(raw.createdAt, "contact-changes.createdAt")
    role = _lower(raw.role) if isinstance(raw.role, str) else raw.role
    return ContactChange(at, raw.messageId, person, raw.source.strip(), value, account, created, role)


def _read_account(raw: RawAccount, value: bytes, at: int, settings: Settings) -> AccountChange:
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


def _read_deal(raw: RawDeal, value: bytes, at: int, settings: Settings) -> DealChange:
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


def _roles(value: list[Scalar | RawDealContact] | None | UnsetType, settings: Settings) -> tuple[tuple[str, str], ...]:
    """The role of each contact that has one, in order; the first where a person is named twice."""
    roles: dict[str, str] = {}
    for entry in value if isinstance(value, list) else ():
        if isinstance(entry, RawDealContact):
            person, role = person_id(entry.person, settings), _lower(entry.role)
            if person and role:
                roles.setdefault(person, role)
    return tuple(roles.items())


def _contacts(
    value: list[Scalar | RawDealContact] | None | UnsetType, settings: Settings
) -> tuple[str, ...] | None | UnsetType:
    """The persons named, in order, each once; guarded values are dropped."""
    if not isinstance(value, list):
        return value
    people = (person_id(entry.person if isinstance(entry, RawDealContact) else entry, settings) for entry in value)
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


def _read_billing(raw: RawBilling, value: bytes, at: int, settings: Settings) -> Refund:
    if raw.type != "refund":
        raise BadInput("billing.type", "refund", raw.type)
    currency = parse_currency(raw.currency or settings.currency, "billing.currency")
    given = parse_amount(bytes(raw.amount), "billing.amount")
    amount = to_minor(given, currency, "billing.amount")
    if given <= 0:
        raise BadInput("billing.amount", "an amount above 0", str(given))
    return Refund(at, raw.messageId, _needed(raw.dealId, "billing.dealId"), amount, currency, value)


def _read_usage(raw: RawUsage, value: bytes, at: int, settings: Settings) -> ProductUsage:
    person, event = person_id(raw.person, settings), raw.event.strip()
    if person is None:
        raise BadInput("product-usage.person", "an e-mail or user id that is nobody's placeholder", raw.person)
    if not event:
        raise BadInput("product-usage.event", "what the product was used for", raw.event)
    account = None if raw.account is None else as_text(raw.account).strip() or None
    return ProductUsage(at, raw.messageId, value, person, event, raw.count or 1, account)


_DECODERS: Final[dict[str, Callable[[bytes], Any]]] = {
    PAGE_VIEWS: msgspec.json.Decoder(Segment).decode,
    FORM_FILLS: msgspec.json.Decoder(Segment).decode,
    IDENTITIES: msgspec.json.Decoder(Segment).decode,
    TOUCHES: msgspec.json.Decoder(RawTouch).decode,
    CONTACT_CHANGES: msgspec.json.Decoder(RawContact).decode,
    ACCOUNT_CHANGES: msgspec.json.Decoder(RawAccount).decode,
    DEAL_CHANGES: msgspec.json.Decoder(RawDeal).decode,
    BILLING: msgspec.json.Decoder(RawBilling).decode,
    PRODUCT_USAGE: msgspec.json.Decoder(RawUsage).decode,
}
_READERS: dict[str, Callable[[Any, bytes, int, Settings], Fact]] = {
    PAGE_VIEWS: read_page_view,
    FORM_FILLS: read_form_fill,
    IDENTITIES: read_identity,
    TOUCHES: _read_touch,
    CONTACT_CHANGES: _read_contact,
    ACCOUNT_CHANGES: _read_account,
    DEAL_CHANGES: _read_deal,
    BILLING: _read_billing,
    PRODUCT_USAGE: _read_usage,
}
