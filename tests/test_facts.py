"""Facts: what is read from each message, and how a wrong one is refused."""

import json
from decimal import Decimal

import pytest

from models.decoding import decode
from models.errors import BadInput
from models.facts import (
    ContactChange,
    DealChange,
    FormFill,
    Identification,
    PageView,
    Refund,
    TouchFact,
    key_of,
)
from models.identity import account_id
from models.settings import Settings
from models.times import parse_instant
from streams.reference import registrable

NOW = parse_instant("2026-06-01T00:00:00Z", "now")


def read(topic: str, **fields: object) -> object:
    """The fact in a message with an id and a time."""
    message = {"messageId": "m", "timestamp": "2026-05-01T00:00:00Z", **fields}
    return decode(topic, json.dumps(message).encode(), NOW, Settings())


def test_a_page_view_without_anonymous_id_belongs_to_the_visitor_of_its_user() -> None:
    view = read("page-views", userId=" u-1 ")

    assert isinstance(view, PageView)
    assert key_of("page-views", view) == "user:u-1"


def test_numbers_name_people_as_text_and_guarded_values_name_nobody() -> None:
    for value, person in ((42, "42"), (0, None), ("-1", None), (True, None), (" NULL ", None), ("test@x.com", None)):
        named = read("identities", type="identify", anonymousId="v", userId=value)

        assert isinstance(named, Identification)
        assert named.person == person


def test_a_user_id_and_an_email_named_together_are_linked() -> None:
    named = read("identities", type="identify", anonymousId="v", userId="U1", traits={"email": " Ada+x@Acme.COM "})

    assert isinstance(named, Identification)
    assert named.person == "ada+x@acme.com"
    assert named.links == (("U1", "ada+x@acme.com"),)


def test_a_track_call_whose_event_is_no_form_does_no_more_than_identify() -> None:
    clicked = read("form-fills", type="track", event="Clicked", anonymousId="v", userId="u", traits={"email": "a@b.co"})

    assert isinstance(clicked, FormFill)
    assert not clicked.is_touch
    assert (clicked.identification.person, clicked.identification.links) == ("u", ())


def test_a_form_fills_email_is_looked_for_in_three_places() -> None:
    for place in (
        {"properties": {"email": "a@b.co"}},
        {"context": {"traits": {"email": "a@b.co"}}},
        {"traits": {"email": "a@b.co"}},
    ):
        fill = read("form-fills", type="track", event="Signed Up", anonymousId="v", **place)

        assert isinstance(fill, FormFill)
        assert fill.identification.person == "a@b.co"


def test_nanoseconds_are_cut_and_a_time_without_zone_is_utc() -> None:
    fact = read("touches", touchId="t", person="a@b.co", kind="call", timestamp="2026-05-01 10:00:00.123456999")

    assert isinstance(fact, TouchFact)
    assert fact.at == parse_instant("2026-05-01T10:00:00.123456Z", "at")


def test_absent_is_unchanged_and_null_is_cleared() -> None:
    change = read("deal-changes", dealId=7, amount=None)

    assert isinstance(change, DealChange)
    assert change.deal == "7"
    assert change.amount is None
    assert not change.stage


def test_a_refund_is_read_in_minor_units() -> None:
    refund = read("billing", type="refund", dealId="D", amount="12.345")

    assert isinstance(refund, Refund)
    assert (refund.amount, refund.currency) == (1235, "USD")


_NO_AMOUNTS = ("1_000", "1e3", "\u0663", "1 000", "0x10", "", "NaN", True, [1])


@pytest.mark.parametrize(
    ("text", "amount"), [("1.10", "1.10"), ('"66.50"', "66.50"), ('" .5 "', "0.5"), ("1e3", "1000"), ("-0", "0")]
)
def test_amounts_are_exact_whether_numbers_or_plain_decimal_strings(text: str, amount: str) -> None:
    value = f'{{"dealId": "D", "messageId": "m", "timestamp": "2026-05-01", "amount": {text}}}'.encode()

    change = decode("deal-changes", value, NOW, Settings())

    assert isinstance(change, DealChange)
    assert change.amount == Decimal(amount)


@pytest.mark.parametrize(
    ("topic", "fields", "where"),
    [
        ("deal-changes", {"dealId": "D", "amount": -1}, "deal-changes.amount"),
        ("deal-changes", {"dealId": "D", "amount": "12,50"}, "deal-changes.amount"),
        *(("deal-changes", {"dealId": "D", "amount": each}, "deal-changes.amount") for each in _NO_AMOUNTS),
        ("deal-changes", {"dealId": "D", "currency": "EURO"}, "deal-changes.currency"),
        ("deal-changes", {"dealId": "D", "timestamp": "2026-06-02T00:00:01Z"}, "deal-changes.timestamp"),
        ("deal-changes", {"dealId": "D", "timestamp": "yesterday"}, "deal-changes.timestamp"),
        ("deal-changes", {}, "deal-changes.dealId"),
        ("billing", {"type": "refund", "dealId": "D", "amount": 0}, "billing.amount"),
        ("billing", {"type": "payment", "dealId": "D", "amount": 1}, "billing.type"),
        ("page-views", {}, "page-views"),
        ("page-views", {"anonymousId": "v", "properties": {"url": 7}}, "page-views.properties.url"),
        ("form-fills", {"type": "page", "anonymousId": "v"}, "form-fills.type"),
        ("identities", {"type": "unlink", "anonymousId": "v"}, "identities.unlinks"),
        ("identities", {"type": "group", "userId": "u"}, "identities.groupId"),
        ("contact-changes", {"person": "guest", "source": "crm"}, "contact-changes.person"),
    ],
)
def test_a_wrong_fact_is_refused_as_a_whole_naming_where(topic: str, fields: dict[str, object], where: str) -> None:
    with pytest.raises(BadInput) as refused:
        read(topic, **fields)

    assert refused.value.where == where


@pytest.mark.parametrize(
    "value", [b"{", b"[]", b"\xff\xfe", b"null", None, b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}"]
)
def test_what_is_no_message_at_all_is_refused(value: bytes | None) -> None:
    with pytest.raises(BadInput):
        decode("page-views", value, NOW, Settings())


def test_a_fact_larger_than_the_setting_is_refused() -> None:
    with pytest.raises(BadInput, match="at most"):
        decode("page-views", b" " * (4 * 1024 * 1024 + 1), NOW, Settings())


@pytest.mark.parametrize(
    ("topic", "named"),
    [("contact-changes", {"person": "ann@acme.com", "source": "crm"}), ("deal-changes", {"dealId": "D1"})],
)
def test_an_empty_account_is_none_as_exports_write_it(topic: str, named: dict[str, str]) -> None:
    fact = read(topic, account=" ", **named)

    assert isinstance(fact, ContactChange | DealChange)
    assert fact.account is None


def test_an_id_that_ends_in_a_number_is_no_host_name() -> None:
    assert account_id("HubSpot.17", registrable) == "HubSpot.17"


def test_a_host_name_with_the_roots_dot_is_the_same_host() -> None:
    assert account_id("ACME.com.", registrable) == account_id("www.acme.com", registrable) == "acme.com"
