"""Hand-calculated examples of rules.md, sections 1-7, for the batch reference calculator. Every number here was
worked out by hand."""

# ruff: noqa: PLR0917
from __future__ import annotations

import json
import sys
from fractions import Fraction
from itertools import count as counter
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from oracle import (  # noqa: E402
    DAY,
    DEFAULTS,
    HOUR,
    MINUTE,
    MODELS,
    Books,
    Reader,
    Refused,
    Touch,
    apportion,
    default_registrable,
    instant,
    recompute,
    weights_of,
    whole,
)

LATE = instant("2027-01-01", "")
ids = counter()
SUFFIX = default_registrable()


def at(value):
    return instant(value, "t")


def fact(topic, when, **body):
    name = "touchId" if topic == "touches" else "messageId"
    body = {name: f"m{next(ids):06d}", "timestamp": when, **body}
    return topic, json.dumps(body).encode(), LATE


def hit(when, visitor="v1", url="https://shop.example.com/", referrer=None, **body):
    page = {"url": url} | ({"referrer": referrer} if referrer else {})
    return fact("page-views", when, type="page", anonymousId=visitor, context={"page": page}, **body)


def identify(when, visitor="v1", email=None, user=None, **body):
    return fact(
        "identities",
        when,
        type="identify",
        **({"anonymousId": visitor} if visitor else {}),
        **({"userId": user} if user is not None else {}),
        **({"traits": {"email": email}} if email else {}),
        **body,
    )


def form(when, visitor="v1", email=None, **body):
    return fact(
        "form-fills",
        when,
        type="track",
        event="Form Submitted",
        anonymousId=visitor,
        properties={"email": email} if email else {},
        **body,
    )


def touch(when, person="a@acme.com", kind="call", **body):
    return fact("touches", when, person=person, kind=kind, **body)


def contact(when, person="a@acme.com", source="hubspot", **body):
    return fact("contact-changes", when, person=person, source=source, **body)


def deal(when, dealId="D1", **body):
    return fact("deal-changes", when, dealId=dealId, **body)


def refund(when, amount, dealId="D1", **body):
    return fact("billing", when, type="refund", dealId=dealId, amount=amount, **body)


def books(*facts, **settings) -> Books:
    """The books, which must not depend on the order or on copies of the facts."""
    result = recompute(facts, settings, registrable=SUFFIX)
    again = recompute([*reversed(facts), *facts], settings, registrable=SUFFIX)
    assert again.credits == result.credits and again.pipeline == result.pipeline
    return result


def cells(found: Books, conversion="won", model="linear", by="channel"):
    return {
        (on, value): credit
        for (c, m, d, on, value), credit in found.credits.items()
        if (c, m, d) == (conversion, model, by)
    }


def plain(*days_and_channels, moment=100 * DAY):
    return [
        Touch(f"t{i}", moment - int(age * DAY), "call", channel=channel)
        for i, (age, channel) in enumerate(days_and_channels)
    ]


def split(model, amount, touches, moment=100 * DAY, lead=None, opportunity=None, close=None):
    weights = weights_of(model, touches, moment, lead, opportunity, close)
    return None if weights is None else apportion(amount, whole(weights))


# --- section 6: the worked examples and each model
# ---------------------------------------------------------------------

FOUR = plain((9, "email"), (6, "direct"), (0, "email"), (0, "direct"))


def test_worked_position_based():
    assert split("position_based", 6650, FOUR[:2]) == [3325, 3325]


def test_worked_time_decay():
    assert split("time_decay", 5000, FOUR) == [692, 932, 1688, 1688]


def test_worked_j_shaped():
    assert split("j_shaped", 5000, FOUR) == [1000, 500, 500, 3000]
    assert split("j_shaped", 5000, FOUR[:2]) == [1250, 3750]


def test_worked_linear():
    assert split("linear", 10_000_000, FOUR[:3]) == [3333334, 3333333, 3333333]


def test_apportioning_negative_and_ties():
    assert apportion(-100, [1] * 3) == [-34, -33, -33]
    assert apportion(10, whole([Fraction(1, 4), Fraction(1, 2), Fraction(1, 4)])) == [
        3,
        5,
        2,
    ]  # 2.5 5 2.5: the earlier of equals
    assert apportion(1, [1, 2]) == [0, 1]
    assert apportion(0, [1, 2]) == [0, 0]


def test_position_based_n1_n3():
    assert split("position_based", 100, FOUR[:1]) == [100]
    assert split("position_based", 100, FOUR[:3]) == [40, 20, 40]
    assert split("position_based", 100, FOUR) == [40, 10, 10, 40]


def test_first_last_non_direct():
    assert split("first_touch", 9, FOUR) == [9, 0, 0, 0]
    assert split("last_touch", 9, FOUR) == [0, 0, 0, 9]
    assert split("last_non_direct", 9, FOUR) == [0, 0, 9, 0]
    assert split("last_non_direct", 9, plain((2, "direct"), (1, "direct"))) == [0, 9]


def test_u_shaped():
    lead = 100 * DAY - 6 * DAY
    assert split("u_shaped", 100, FOUR, lead=lead) == [40, 40, 10, 10]
    assert split("u_shaped", 100, FOUR) == [80, 7, 7, 6]  # no lead: its 40 go to the first
    assert split("u_shaped", 100, FOUR, lead=100 * DAY - 8 * DAY) == [80, 7, 7, 6]  # the first holds both
    assert split("u_shaped", 100, FOUR[:2], lead=lead) == [50, 50]  # no rest: in proportion


def test_w_shaped():
    t = plain((9, "a"), (6, "b"), (3, "c"), (1, "d"))
    lead, opportunity = 94 * DAY, 98 * DAY
    assert split("w_shaped", 1000, t, lead=lead, opportunity=opportunity) == [300, 300, 300, 100]
    assert split("w_shaped", 1000, t, lead=lead) == [450, 450, 50, 50]
    assert split("w_shaped", 1000, t, opportunity=94 * DAY, lead=94 * DAY) == [300, 600, 50, 50]
    assert split("w_shaped", 900, t[:1], lead=lead) == [900]


def test_full_path():
    t = plain((9, "a"), (6, "b"), (3, "c"), (1, "d"), (0, "e"))
    assert split("full_path", 1000, t, lead=94 * DAY, opportunity=98 * DAY, close=100 * DAY) == [
        225,
        225,
        225,
        100,
        225,
    ]
    # no lead: 90 over three positions = 30 each
    assert split("full_path", 1000, t, opportunity=98 * DAY, close=100 * DAY) == [300, 50, 300, 50, 300]


def test_milestone_models():
    assert split("lead_creation", 7, FOUR, lead=95 * DAY) == [0, 7, 0, 0]
    assert split("opportunity_creation", 7, FOUR) is None
    assert split("lead_creation", 7, FOUR, lead=90 * DAY) is None  # no eligible touch at or before it
    assert split("linear", 7, []) is None


# --- section 1: facts, time, money
# ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "value, expected",
    [
        ("1970-01-01T00:00:01Z", 1_000_000),
        ("1970-01-01 00:00:01", 1_000_000),
        ("1970-01-01T02:00:00.000001999+02:00", 1),
        ("1969-12-31T19:00:00-0500", 0),
        ("1970-01-02", DAY),
        ("1970-01-01T00:01", MINUTE),
        ("1970-01-01T00:00:00.5Z", 500_000),
    ],
)
def test_instants(value, expected):
    assert at(value) == expected


@pytest.mark.parametrize("value", ["", "yesterday", "2026-02-30", "2026-01-01T25:00:00Z", 5, None, "20260101"])
def test_no_instants(value):
    with pytest.raises(Refused):
        instant(value, "t")


def test_refused_as_a_whole():
    bad = [
        ("touches", b"{", LATE),
        ("touches", b"[]", LATE),
        ("touches", b"\xff", LATE),
        ("touches", b'{"touchId":"x"}', LATE),
        ("deal-changes", b"[" * 100_000, LATE),
        ("deal-changes", b'{"dealId":"D","messageId":"m","timestamp":"2026-01-01","amount":NaN}', LATE),
        deal("2026-01-01", amount=-1),
        deal("2026-01-01", amount="1e3"),
        deal("2026-01-01", amount=True),
        deal("2026-01-01", currency="XYZ"),
        deal("2026-01-01", contacts="a@acme.com"),
        refund("2026-01-01", 0),
        refund("2026-01-01", -5),
        hit("2026-01-01", visitor=None),
        touch("2026-01-01", person=None),
        touch("2026-01-01", kind=""),
        identify("2026-01-01", user={"x": 1}),
        form("2026-01-01", email="nonsense"),
        contact("2026-01-01", source=None),
        ("somewhere", b"{}", LATE),
    ]
    found = recompute(bad, registrable=SUFFIX)
    assert [index for _, index, _ in found.refused] == list(range(len(bad)))
    assert found.credits == {} and found.persons == {}


def test_future_by_received_at_else_record_time():
    def one(**more):
        return recompute(
            [
                (
                    "touches",
                    json.dumps(
                        {
                            "touchId": "t",
                            "timestamp": "2026-01-02T00:00:00Z",
                            "person": "a@acme.com",
                            "kind": "call",
                            **more,
                        }
                    ).encode(),
                    at("2026-01-01T00:00:00Z"),
                )
            ]
        )

    assert not one().refused  # exactly 24 h
    assert one(timestamp="2026-01-02T00:00:00.000001Z").refused
    assert one(receivedAt="2025-12-31").refused
    assert not one(timestamp="2026-01-05", receivedAt="2026-01-04").refused


def test_duplicates_smaller_timestamp_stands():
    first = touch("2026-01-01", touchId="x")
    found = books(
        deal("2026-01-03", messageId="d", amount=5, stage="a"),
        deal("2026-01-02", messageId="d", amount=7, stage="b"),
        deal("2026-01-02", messageId="d", amount=6, stage="b"),
    )
    assert found.pipeline == {"b": (1, 600)}  # 2026-01-02, and "6" is smaller than "7"
    assert len(found.reported) == 2 and len(books(first, first).touches) == 1


def test_touch_versions():
    found = books(
        touch("2026-01-01", touchId="x", channel="a"),
        touch("2026-01-05", touchId="x", channel="b", updatedAt="2026-01-01"),
        touch("2026-01-06", touchId="x", channel="Paid Social", updatedAt="2026-01-02"),
    )
    assert [(t.channel, t.at) for t in found.touches] == [("paid_social", at("2026-01-06"))]
    assert (
        books(
            touch("2026-01-01", touchId="x"), touch("2026-01-01", touchId="x", updatedAt="2026-01-02", deleted=True)
        ).touches
        == []
    )


@pytest.mark.parametrize(
    "amount, currency, expected",
    [
        ("10.005", "USD", 1001),
        (10.004, None, 1000),
        ("100", "JPY", 15000),
        ("0.5", "JPY", 150),
        ("1.0005", "KWD", 100 * 3 + 0),
        ("10.01", "EUR", 1101),
    ],
)
def test_money(amount, currency, expected):
    rates = [
        ("2026-01-01", "EUR", "USD", "1.1000"),
        ("2026-01-05", "EUR", "USD", "9"),
        ("2026-01-01", "JPY", "USD", "1.5"),
        ("2026-01-01", "KWD", "USD", "2.9985"),
    ]
    # KWD 1.0005 -> 1.001 -> x 2.9985 = 3.0014985 -> 3.00; EUR 10.01 x 1.1 = 11.011; JPY 0.5 -> 1 -> 1.50
    found = books(deal("2026-01-04", amount=amount, currency=currency), rates=rates)
    assert found.pipeline == {None: (1, expected)}


def test_without_a_rate_the_fact_waits():
    found = books(
        deal("2026-01-01", amount=5, currency="EUR"),
        deal("2026-02-02", stage="closed_won"),
        refund("2026-01-05", 1, currency="EUR"),
        rates=[("2026-02-01", "EUR", "USD", "2")],
    )
    assert cells(found) == {("2026-02-02", "unattributed"): (1_000_000, 1000)}
    assert [(what, who) for what, who, _, _ in found.waiting] == [("opportunity", "D1"), ("refund", "D1")]
    assert cells(found, "opportunity") == {} and found.pipeline == {}


# --- section 2: identity
# -----------------------------------------------------------------------------------------------


def test_sessions_belong_to_first_then_last_identified():
    found = books(
        hit("2026-01-01T10:00"),
        identify("2026-01-02T10:00", email="A@acme.com "),
        hit("2026-01-03T10:00"),
        identify("2026-01-04T10:00", email="b@beta.com"),
        hit("2026-01-04T10:00"),
        hit("2026-01-04T09:59", messageId="z"),
    )
    assert [t.owner for t in found.touches] == [
        "a@acme.com",
        "a@acme.com",
        "a@acme.com",
    ]  # the last: one session from 9:59
    found = books(
        identify("2026-01-02T10:00", email="a@acme.com"),
        identify("2026-01-04T10:00", email="b@beta.com"),
        hit("2026-01-04T10:00"),
    )
    assert [t.owner for t in found.touches] == ["b@beta.com"]  # at its start counts


def test_user_id_reports_to_email_and_any_call_identifies():
    found = books(
        hit("2026-01-01T10:00", userId="u1"),
        identify("2026-01-05", visitor="v2", user="u1", email="a@acme.com"),
        fact("page-views", "2026-01-03", type="screen", userId="u1"),
    )
    assert found.persons == {
        "a@acme.com": {"ids": ["a@acme.com", "u1"], "lead": at("2026-01-01T10:00"), "account": "acme.com"}
    }
    assert [(t.owner, t.visitor) for t in found.touches] == [("a@acme.com", "v1"), ("a@acme.com", "user:u1")]


def test_guards():
    assert Reader(DEFAULTS, SUFFIX).person(-1, "x") is None
    found = books(
        identify("2026-01-01", user=" NULL ", email="a@acme.com"),
        identify("2026-01-01", visitor="v2", user=0),
        form("2026-01-02", email="NoReply@x.com", traits={"email": "c@acme.com"}),
        identify("2026-01-02", visitor="v3", user=True),
    )
    assert sorted(found.persons) == ["a@acme.com", "c@acme.com"]


def test_alias_links_and_later_link_replaces():
    alias = fact("identities", "2026-01-02", type="alias", previousId="old", userId="u1")
    found = books(hit("2026-01-01", visitor="old"), alias)
    assert found.persons["u1"]["ids"] == ["old", "u1"] and found.touches[0].owner == "u1"
    found = books(alias, fact("identities", "2026-01-03", type="alias", previousId="old", userId="u2"))
    assert found.persons["u2"]["ids"] == ["old", "u2"] and found.persons["u1"]["ids"] == ["u1"]


def test_circle_is_ignored():
    found = books(
        fact("identities", "2026-01-02", type="alias", previousId="a", userId="b"),
        fact("identities", "2026-01-03", type="alias", previousId="b", userId="c"),
        fact("identities", "2026-01-04", type="alias", previousId="c", userId="a"),
    )
    assert list(found.persons) == ["c"] and found.persons["c"]["ids"] == ["a", "b", "c"]


def test_51st_person_lapses_identifications():
    def visits(n):
        return books(hit("2026-01-01"), *[identify("2026-01-02", email=f"p{i}@acme.com") for i in range(n)])

    assert visits(50).touches[0].owner == "p0@acme.com"
    assert visits(51).touches == [] and len(visits(51).persons) == 51  # direct, and nobody's


def test_11th_email_lapses_links():
    facts = [identify(f"2026-01-{i + 1:02d}", visitor=f"v{i}", user="u", email=f"p{i}@acme.com") for i in range(11)]
    assert "u" not in books(*facts[:10]).persons
    assert books(*facts).persons["u"]["ids"] == ["u"]


def test_account_order():
    group = fact("identities", "2026-01-02", type="group", userId="a@acme.com", groupId="G1")
    own = identify("2026-01-01", email="a@acme.com")
    assert books(own).persons["a@acme.com"]["account"] == "acme.com"
    assert books(own, group).persons["a@acme.com"]["account"] == "G1"
    assert books(own, group, contact("2026-01-01", account="C1")).persons["a@acme.com"]["account"] == "C1"
    assert (
        books(own, group, contact("2026-01-01", account="C1"), contact("2026-01-02", account=None)).persons[
            "a@acme.com"
        ]["account"]
        == "G1"
    )
    assert (
        books(own, contact("2026-01-01", account="C1"), contact("2026-01-02", account=None, source="sf")).persons[
            "a@acme.com"
        ]["account"]
        == "C1"
    )
    assert books(own, contact("2026-01-01", account="C1"), contact("2026-01-02", createdAt="2025-01-01")).persons[
        "a@acme.com"
    ] == {"ids": ["a@acme.com"], "lead": at("2025-01-01"), "account": "C1"}


@pytest.mark.parametrize(
    "email, account",
    [
        ("a@gmail.com", "a@gmail.com"),
        ("a@mail.acme.co.uk", "acme.co.uk"),
        ("a@foo.github.io", "foo.github.io"),
        ("a@localhost", "a@localhost"),
        ("a@BÜCHER.de", "xn--bcher-kva.de"),
        ("a@mailinator.com", "a@mailinator.com"),
        ("a@1.2.3.4", "a@1.2.3.4"),
    ],
)
def test_account_of_email(email, account):
    assert [p["account"] for p in books(identify("2026-01-01", email=email)).persons.values()] == [account]


def test_user_id_root_takes_domain_of_email_linked_last():
    found = books(
        fact("identities", "2026-01-01", type="alias", previousId="a@acme.com", userId="u"),
        fact("identities", "2026-01-02", type="alias", previousId="b@beta.com", userId="u"),
    )
    assert found.persons["u"]["account"] == "beta.com"


def test_account_changes():
    def of(*changes):
        return books(identify("2026-01-01", email="a@acme.com"), *changes).persons["a@acme.com"]["account"]

    claim = fact("account-changes", "2026-01-02", account="C1", domains=["ACME.com"])
    merge = fact("account-changes", "2026-01-03", account="C1", mergedInto="C2")
    assert of(claim) == "C1" and of(claim, merge) == "C2"
    assert of(claim, fact("account-changes", "2026-01-03", account="C9", domains=["acme.com"])) == "C9"
    assert of(claim, fact("account-changes", "2026-01-03", account="C1", domains=[])) == "acme.com"
    assert of(claim, merge, fact("account-changes", "2026-01-04", account="C2", mergedInto="C1")) == "C2"  # a circle
    assert of(claim, merge, fact("account-changes", "2026-01-04", account="C1", mergedInto=None)) == "C1"


def test_unlink_any_order():
    wrong = identify("2026-01-02", email="x@wrong.com", user="u1", messageId="w")
    unlink = fact("identities", "2026-01-01", type="unlink", unlinks="w", anonymousId="v1", userId="u1")
    found = books(unlink, hit("2026-01-01T10:00"), wrong, identify("2026-01-03", email="a@acme.com"))
    assert found.touches[0].owner == "a@acme.com"
    assert sorted(found.persons) == ["a@acme.com", "u1", "x@wrong.com"]  # they stay known
    assert books(unlink, wrong, hit("2026-01-01T10:00")).touches == []


def test_touch_fact_equal_to_a_form_fill():
    filled = fact(
        "form-fills",
        "2026-01-01T10:00:00Z",
        type="track",
        event="Signed Up",
        anonymousId="v1",
        messageId="f1",
        properties={"email": "a@acme.com", "externalId": "x9"},
    )
    found = books(
        filled, touch("2026-01-02", person="b@beta.com", touchId="x9", kind="webinar", rep="Rosa", source="import")
    )
    (only,) = found.touches
    assert (only.id, only.at, only.owner, only.kind, only.rep, only.source) == (
        "f1",
        at("2026-01-01T10:00"),
        "a@acme.com",
        "webinar",
        "Rosa",
        None,
    )


# --- section 3: sessions and touches
# -----------------------------------------------------------------------------------

A = identify("2026-03-01", email="a@acme.com")


def test_session_gap_and_late_hit():
    hits = [hit("2026-01-01T10:00:00Z", messageId="a"), hit("2026-01-01T10:30:00Z", messageId="b")]
    assert [t.id for t in books(A, *hits).touches] == ["a", "b"]  # 30 minutes or more
    late = hit("2026-01-01T10:15:00Z", messageId="c")
    assert [t.id for t in books(A, *hits, late).touches] == ["a"]


def test_24_hours_open_another_session():
    hits = [hit(f"2026-01-0{1 + i // 72}T{i // 3 % 24:02d}:{i % 3 * 20:02d}") for i in range(74)]
    found = books(A, *hits)
    assert [t.at for t in found.touches] == [at("2026-01-01"), at("2026-01-02")]


def test_new_source_opens_touch_returning_does_not():
    google = "https://www.google.com/"
    found = books(
        hit("2026-01-01T10:00", messageId="1"),  # direct
        hit(
            "2026-01-01T10:01",
            url="https://shop.example.com/p?utm_source=News&utm_medium=Email",
            referrer=google,
            messageId="2",
        ),
        hit("2026-01-01T10:02", referrer=google, messageId="3"),  # came with the current
        hit("2026-01-01T10:03", referrer="https://bing.com/x", messageId="4"),  # new
        hit(
            "2026-01-01T10:04", url="https://shop.example.com/?utm_medium=email&utm_source=NEWS", messageId="5"
        ),  # back
        hit("2026-01-01T10:05", referrer="https://www.example.com/a", messageId="6"),  # the site itself
        hit("2026-01-01T10:06", referrer="https://checkout.paypal.com/", messageId="7"),  # excluded
        hit("2026-01-01T10:07", referrer="https://sub.ours.net/", messageId="8"),  # own_domains
        form("2026-01-01T10:08", email="a@acme.com", messageId="9"),
        own_domains=["ours.net"],
    )
    assert [(t.id, t.kind, t.channel, t.source, t.landing_page) for t in found.touches] == [
        ("2", "web_session", "email", "news", "/p"),
        ("4", "web_session", "organic_search", "bing.com", "/"),
        ("9", "form_fill", "email", "news", "/p"),
    ]


def test_direct_only_sessions_need_an_owner_and_the_setting():
    direct = hit("2026-01-01T10:00", url="https://shop.example.com", messageId="1")
    assert books(direct).touches == []
    (t,) = books(direct, A).touches
    assert (t.id, t.channel, t.source, t.landing_page, t.team) == ("1", "direct", None, "/", "marketing")
    assert books(direct, A, direct_sessions=False).touches == []


def test_form_fill_own_context_after_30_minutes():
    utm = {"campaign": {"source": "X", "name": "Spring"}, "page": {"url": "https://s.com/form"}}
    first = hit("2026-01-01T10:00:00Z", referrer="https://bing.com")
    near = books(first, form("2026-01-01T10:29:59.999999Z", email="a@acme.com", context=utm)).touches[1]
    far = books(first, form("2026-01-01T10:30:00Z", email="a@acme.com", context=utm)).touches[1]
    assert (near.source, near.campaign, near.landing_page) == ("bing.com", None, "/")
    assert (far.source, far.campaign, far.landing_page) == ("x", "spring", "/form")


def test_form_fill_that_names_nobody_and_other_track_calls():
    anonymous = form("2026-01-02T10:00", messageId="f")
    other = fact(
        "form-fills", "2026-01-03", type="track", event="Clicked", anonymousId="v1", properties={"email": "no@acme.com"}
    )
    found = books(
        identify("2026-01-01", email="a@acme.com"), identify("2026-01-05", email="b@beta.com"), anonymous, other
    )
    assert [(t.id, t.owner) for t in found.touches] == [("f", "a@acme.com")]
    assert sorted(found.persons) == ["a@acme.com", "b@beta.com"]
    found = books(other, A, touch_events={"Clicked": "product_milestone"})
    assert [(t.kind, t.team, t.channel) for t in found.touches] == [("product_milestone", "product", "product")]


# --- section 4: channels
# -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query, referrer, channel, source",
    [
        ("gclid=x", None, "paid_search", "google"),
        ("wbraid=x", None, "paid_search", "google"),
        ("msclkid=x", None, "paid_search", "microsoft"),
        ("li_fat_id=x", None, "paid_social", "linkedin"),
        ("TTCLID=x", None, "paid_social", "tiktok"),
        ("fbclid=x", None, "organic_social", "facebook"),
        ("", "https://m.youtube.com/x", "video", "youtube.com"),
        ("", "https://www.google.de/", "organic_search", "google.de"),
        ("", "https://blog.other.co.uk/", "referral", "other.co.uk"),
        ("", "https://chatgpt.com/", "ai_assistant", "chatgpt.com"),
        ("utm_source=LinkedIn&utm_medium=odd", None, "organic_social", "linkedin"),
        ("utm_source=google", None, "organic_search", "google"),
        ("utm_source=somebody&utm_medium=odd", None, "referral", "somebody"),
        ("utm_source=a&utm_medium=CPC", None, "paid_search", "a"),
        ("utm_source=facebook&utm_medium=cpc", None, "paid_social", "facebook"),
        ("utm_medium=E-Mail", None, "email", None),
    ],
)
def test_channels_of_hits(query, referrer, channel, source):
    found = books(hit("2026-01-01T10:00", url="https://shop.example.com/?" + query, referrer=referrer))
    assert [(t.channel, t.source) for t in found.touches] == [(channel, source)]


@pytest.mark.parametrize(
    "kind, body, channel, team",
    [
        ("call", {}, "sales_outbound", "sales"),
        ("meeting", {"team": "Success"}, "sales_outbound", "success"),
        ("email_replied", {}, "sales_outbound", "sales"),
        ("email_clicked", {}, "email", "marketing"),
        ("webinar", {}, "event", "marketing"),
        ("trial_started", {}, "product", "product"),
        ("content_download", {}, "direct", "marketing"),
        ("chat", {"source": "partnerx"}, "referral", "marketing"),
        ("call", {"channel": " Field Sales"}, "field_sales", "sales"),
        ("quote_sent", {}, "sales_outbound", "sales"),
    ],
)
def test_channels_of_touches(kind, body, channel, team):
    (t,) = books(touch("2026-01-01", kind=kind, **body)).touches
    assert (t.channel, t.team) == (channel, team)


# --- section 5: conversions
# ----------------------------------------------------------------------------------------------


def test_lead_moment_and_journey():
    found = books(
        touch("2026-01-01", kind="webinar"), touch("2026-01-05"), contact("2026-01-07", createdAt="2026-01-03")
    )
    assert cells(found, "lead") == {("2026-01-03", "event"): (1_000_000, 0)}
    found = books(
        touch("2026-01-01", kind="webinar"), touch("2026-01-05"), contact("2026-01-07", createdAt="2026-01-05")
    )
    assert cells(found, "lead") == {
        ("2026-01-05", "event"): (500_000, 0),
        ("2026-01-05", "sales_outbound"): (500_000, 0),
    }


def test_lead_touch_of_the_visit_counts_in_any_case():
    later = hit("2026-01-01T10:20", referrer="https://bing.com")
    found = books(identify("2026-01-01T10:00", email="a@acme.com"), later)
    assert cells(found, "lead", "first_touch") == {("2026-01-01", "organic_search"): (1_000_000, 0)}
    assert cells(found, "lead", "lead_creation") == {("2026-01-01", "unattributed"): (1_000_000, 0)}
    too_late = hit("2026-01-01T10:30", referrer="https://bing.com")
    assert list(cells(books(identify("2026-01-01T10:00", email="a@acme.com"), too_late), "lead")) == [
        ("2026-01-01", "unattributed")
    ]
    # before the lookback of no days
    early = hit("2026-01-01T09:40", referrer="https://bing.com")
    found = books(early, identify("2026-01-01T10:00", email="a@acme.com"), lookback_days={"lead": 0})
    assert list(cells(found, "lead")) == [("2026-01-01", "organic_search")]


def test_lookback_edges():
    facts = [
        touch("2026-01-01T00:00:00Z", kind="webinar"),
        touch("2025-12-31T23:59:59.999999Z", kind="trial"),
        touch("2026-04-01T00:00:00.000001Z"),
    ]
    found = books(*facts, deal("2026-04-01T00:00:00Z", account="acme.com", amount=9))
    assert cells(found, "opportunity") == {("2026-04-01", "event"): (1_000_000, 900)}  # 90 days before exactly counts


def test_opportunity_and_won_moments():
    facts = [
        deal("2026-01-05", amount="10", stage="open", createdAt="2026-01-02"),
        deal("2026-02-01", stage="closed_won"),
        deal("2026-02-03", stage="closed_won", amount="12"),
    ]
    found = books(*facts)
    assert list(cells(found, "opportunity")) == [("2026-01-02", "unattributed")]
    assert cells(found) == {("2026-02-01", "unattributed"): (1_000_000, 1200)} and found.pipeline == {}
    reopened = books(*facts, deal("2026-02-05", stage="open"))
    assert cells(reopened) == {} and reopened.pipeline == {"open": (1, 1200)}
    assert list(cells(books(*facts, deal("2026-02-05", stage="open"), deal("2026-02-07", stage="closed_won")))) == [
        ("2026-02-07", "unattributed")
    ]
    lost = books(*facts, deal("2026-02-05", stage="closed_lost"))
    assert cells(lost) == {} and lost.pipeline == {}


def test_deleted_and_restored():
    facts = [
        deal("2026-01-01", amount=5, stage="closed_won"),
        refund("2026-01-02", 1),
        deal("2026-01-03", deleted=True),
    ]
    found = books(*facts)
    assert not any(cell[0] != "lead" for cell in found.credits) and not found.waiting
    assert cells(books(*facts, deal("2026-01-04", deleted=False)))[("2026-01-01", "unattributed")] == (1_000_000, 500)


def test_deal_without_amount_counts():
    found = books(touch("2026-01-01"), deal("2026-01-02", account="www.ACME.com", stage="closed_won"))
    assert cells(found) == {("2026-01-02", "sales_outbound"): (1_000_000, 0)}
    assert books(deal("2026-01-02", amount=5), deal("2026-01-03", amount=None)).pipeline == {None: (1, 0)}


def test_journey_of_account_contact_or_empty():
    a, b = touch("2026-01-01", kind="webinar"), touch("2026-01-01", person="b@acme.com", kind="call")
    by_contact = books(a, b, deal("2026-01-02", contacts=["null", "c@acme.com"], stage="closed_won", amount=1))
    assert cells(by_contact) == {
        ("2026-01-02", "event"): (500_000, 50),
        ("2026-01-02", "sales_outbound"): (500_000, 50),
    }
    assert by_contact.persons["c@acme.com"]["lead"] == at("2026-01-02")
    assert list(cells(books(a, deal("2026-01-02", stage="closed_won", amount=1)))) == [("2026-01-02", "unattributed")]
    # only the deal's contacts and people without a CRM contact
    restricted = books(
        a,
        b,
        contact("2026-01-01", account="acme.com"),
        deal("2026-01-02", contacts=["c@acme.com"], stage="closed_won", amount=1),
        contacts_only=True,
    )
    assert list(cells(restricted)) == [("2026-01-02", "sales_outbound")]


def test_funnel_stages_and_null_values():
    facts = [
        touch("2026-01-01", campaign="C"),
        touch("2026-01-03", kind="demo"),
        touch("2026-01-05", kind="demo"),
        contact("2026-01-09", createdAt="2026-01-02"),
        deal("2026-01-04", account="acme.com", amount="0.99"),
        deal("2026-01-06", stage="closed_won"),
    ]
    found = books(*facts)
    assert cells(found, by="funnel_stage") == {
        ("2026-01-06", "awareness"): (333_334, 33),
        ("2026-01-06", "consideration"): (333_333, 33),
        ("2026-01-06", "decision"): (333_333, 33),
    }
    assert cells(found, by="campaign") == {("2026-01-06", "c"): (333_334, 33), ("2026-01-06", None): (666_666, 66)}
    assert cells(found, by="kind") == {("2026-01-06", "call"): (333_334, 33), ("2026-01-06", "demo"): (666_666, 66)}
    # full_path: first and lead are touch 1, opportunity touch 2, close touch 3: 45 / 22.5 / 22.5, no rest -> 50 / 25
    # / 25
    assert found.deals["D1"]["won"]["credits"]["full_path"] == [
        (t.id, c, a) for t, c, a in zip(found.touches, (500_000, 250_000, 250_000), (49, 25, 25), strict=True)
    ]  # 49.5 24.75 24.75: 49 24 24, two units to the .75s


def test_milestone_later_than_the_conversion_does_not_exist():
    # won on the 2nd, before its creation on the 5th and before anybody is a lead
    found = books(
        touch("2026-01-01"),
        contact("2026-01-09", createdAt="2026-01-08"),
        deal("2026-01-02", account="acme.com", amount=1, stage="closed_won", createdAt="2026-01-05"),
    )
    for model in ("lead_creation", "opportunity_creation"):
        assert cells(found, model=model) == {("2026-01-02", "unattributed"): (1_000_000, 100)}
    assert cells(found, by="funnel_stage") == {("2026-01-02", "decision"): (1_000_000, 100)}


def test_days_in_the_reporting_time_zone():
    found = books(deal("2026-01-01T23:30:00Z", amount=1, stage="closed_won"), time_zone="Europe/Berlin")
    assert list(cells(found)) == [("2026-01-02", "unattributed")]


# --- section 7: changes and refunds
# --------------------------------------------------------------------------------------


def test_refund_by_the_split_of_the_win():
    facts = [
        touch("2026-01-01", kind="webinar"),
        touch("2026-01-02"),
        touch("2026-01-03", kind="trial"),
        deal("2026-01-04", account="acme.com", amount="1.00", stage="closed_won"),
        refund("2026-02-10", "0.50"),
        refund("2026-01-03", 2),
    ]
    found = books(*facts)
    assert cells(found) == {
        ("2026-01-04", "event"): (333_334, 34),
        ("2026-01-04", "sales_outbound"): (333_333, 33),
        ("2026-01-04", "product"): (333_333, 33),
        ("2026-02-10", "event"): (0, -17),
        ("2026-02-10", "sales_outbound"): (0, -17),
        ("2026-02-10", "product"): (0, -16),
        ("2026-01-03", "event"): (0, -67),
        ("2026-01-03", "sales_outbound"): (0, -67),
        ("2026-01-03", "product"): (0, -66),
    }


def test_refund_waits_while_not_won():
    found = books(
        deal("2026-01-01", amount=5),
        refund("2026-01-02", 1, messageId="r1"),
        refund("2026-01-02", 1, dealId="D9", messageId="r2"),
    )
    assert [(what, who, which) for what, who, which, _ in found.waiting] == [
        ("refund", "D1", "r1"),
        ("refund", "D9", "r2"),
    ]
    assert cells(found) == {}


def test_corrected_amount_restates():
    found = books(deal("2026-01-01", amount=5, stage="closed_won"), deal("2026-03-01", amount=7))
    assert cells(found) == {("2026-01-01", "unattributed"): (1_000_000, 700)}


def test_credits_add_up_in_every_model_and_dimension():
    facts = [
        hit(f"2026-01-0{i}T10:00", referrer=r)
        for i, r in enumerate(["https://bing.com", "https://a.com", "https://b.com"], 1)
    ]
    found = books(
        *facts,
        A,
        touch("2026-02-01"),
        deal("2026-03-03", account="acme.com", amount="1234.57", stage="closed_won"),
        refund("2026-03-04", "0.01"),
    )
    totals: dict = {}
    for (conversion, model, dimension, _, _), (number, amount) in found.credits.items():
        before = totals.get((conversion, model, dimension), (0, 0))
        totals[conversion, model, dimension] = before[0] + number, before[1] + amount
    assert {key[1] for key in totals} == set(MODELS)
    assert {key[0]: value for key, value in totals.items()} == {
        "lead": (1_000_000, 0),
        "opportunity": (1_000_000, 123457),
        "won": (1_000_000, 123456),
    }
    assert len(set(totals.items())) == 3 * len(MODELS) * 9


def test_channel_table_of_the_caller():
    found = recompute([touch("2026-01-01")], {"channel_of": lambda *_: "own"}, registrable=SUFFIX)
    assert found.touches[0].channel == "own" and HOUR == 60 * MINUTE


# --- what the rules leave open, as decided (see the list of ambiguities) --------------------------------------------


def test_a_visitor_named_by_email_stays_with_it():
    found = books(
        identify("2026-01-01", user="u", email="a@acme.com"),
        identify("2026-01-02", visitor="v2", user="u", email="b@beta.com"),
        hit("2026-01-03"),
        hit("2026-01-03", visitor="v3", userId="u"),
    )
    assert {t.visitor: t.owner for t in found.touches} == {"v1": "a@acme.com", "v3": "b@beta.com"}


def test_withdrawn_form_fill_names_nobody():
    unlink = fact("identities", "2026-01-09", type="unlink", unlinks="f", anonymousId="v1")
    filled = form("2026-01-02", email="x@wrong.com", messageId="f")
    assert books(filled).touches[0].owner == "x@wrong.com"
    assert books(filled, unlink).touches[0].owner is None
    assert books(filled, unlink, A).touches[0].owner == "a@acme.com"


def test_form_fill_while_direct_so_far():
    utm = {"campaign": {"source": "x"}}
    facts = [
        hit("2026-01-01T10:00", url="https://s.com/first"),
        form("2026-01-01T10:05", email="a@acme.com", context=utm),
        hit("2026-01-01T10:06", referrer="https://bing.com"),
    ]
    filled, visit = books(*facts).touches
    assert (filled.channel, filled.source, filled.landing_page) == ("direct", None, "/first")
    assert (visit.channel, visit.at) == ("organic_search", at("2026-01-01T10:06"))


def test_lead_on_a_shared_device_does_not_take_another_ones_visit():
    found = books(
        identify("2026-01-01T09:00", email="a@acme.com"),
        hit("2026-01-02T10:00", referrer="https://bing.com"),
        identify("2026-01-02T10:10", email="b@beta.com"),
    )
    assert found.leads["b@beta.com"]["touches"] == []
    assert found.touches[0].owner == "a@acme.com"


def test_deleted_touch_makes_nobody_known_and_leaves_the_form_fill():
    assert books(touch("2026-01-01", deleted=True)).persons == {}
    found = books(form("2026-01-01", email="a@acme.com", messageId="f"), touch("2026-01-01", touchId="f", deleted=True))
    assert [(t.id, t.kind) for t in found.touches] == [("f", "form_fill")]


def test_waiting_is_per_conversion():
    found = books(
        deal("2026-01-01", amount=0, currency="EUR"),
        deal("2026-01-01", dealId="D2", amount=1, currency="EUR"),
        deal("2026-01-01", dealId="D3", currency="EUR"),
    )
    assert found.pipeline == {None: (2, 0)}
    assert [(what, who) for what, who, _, _ in found.waiting] == [("opportunity", "D2"), ("pipeline", "D2")]


def test_time_decay_of_a_count():
    found = books(
        touch("2025-12-25T10:00", kind="webinar"),
        contact("2026-01-09", createdAt="2026-01-01T10:00"),
    )
    assert cells(found, "lead", "time_decay") == {("2026-01-01", "event"): (1_000_000, 0)}
    # 7 and 0 days before: 1/2 to 1
    found = books(
        touch("2025-12-25T10:00", kind="webinar"),
        touch("2026-01-01T10:00"),
        contact("2026-01-09", createdAt="2026-01-01T10:00"),
    )
    assert cells(found, "lead", "time_decay") == {
        ("2026-01-01", "event"): (333_333, 0),
        ("2026-01-01", "sales_outbound"): (666_667, 0),
    }
