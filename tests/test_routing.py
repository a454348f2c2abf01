"""Which alerts go where and when: routes, quiet hours, digests, in the route's own time zone."""

from decimal import Decimal
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from models.alerts import AccountOf, Alert, OpenDeal, alert_id, decode_alert, sample_alert
from models.errors import BadInput
from models.matching import matches, targets
from models.money import Rates
from models.posting import Source, open_amount, parcels
from models.routing import DAYS, Hold, Quiet, Route, after_quiet, hold
from models.settings import Settings, parse_settings
from models.times import DAY, HOUR, MINUTE, parse_instant, to_datetime, to_text

NIGHT = Quiet("19:00", "07:30")
WEEKEND = Quiet("00:00", "24:00", ("sat", "sun"))
HOOK = {"kind": "webhook", "url": "https://example.com/hook", "secrets": ["whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"]}
OPS = {"kind": "alertmanager", "url": "http://ops:9093", "allow_private": True}
ZONES = ("UTC", "Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu")
instants = st.integers(parse_instant("2024-01-01", ""), parse_instant("2028-01-01", ""))
hours = st.builds(lambda minutes: f"{minutes // 60:02}:{minutes % 60:02}", st.integers(0, 1439))
windows = st.lists(
    st.builds(Quiet, hours, hours, st.lists(st.sampled_from(DAYS), min_size=1, max_size=3).map(tuple)), max_size=3
)


def at(text: str) -> int:
    return parse_instant(text, "test")


def alert(**changes: object) -> Alert:
    account = AccountOf("acme.com", "Acme", "Grace", {"industry": "testing", "size": 37, "vip": True})
    return replace(sample_alert("al_1", "2026-04-03T12:00:00Z"), **{"test": False, "account": account, **changes})


def route(**changes: object) -> Route:
    return Route("r", ("d",), **changes)  # type: ignore[arg-type]


# --- the record -------------------------------------------------------------------------


def test_an_alert_is_read_as_it_was_written() -> None:
    assert decode_alert(msgspec.json.encode(alert())) == alert()


def test_the_id_is_that_of_account_transition_and_instant() -> None:
    assert alert_id("a", "warmed", "t") == alert_id("a", "warmed", "t")
    assert len({alert_id("a", "warmed", "t"), alert_id("b", "warmed", "t"), alert_id("a", "cooled", "t")}) == 3
    assert len(alert_id("a", "warmed", "t")) == 35


@pytest.mark.parametrize("value", [None, b"", b"{}", b"\xff", b"[]"])
def test_what_is_no_alert_is_refused(value: bytes | None) -> None:
    with pytest.raises(BadInput, match="alert"):
        decode_alert(value)


# --- routes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "lets_through"),
    [
        ({}, True),
        ({"transitions": ("warmed",)}, True),
        ({"transitions": ("cooled", "cooling")}, False),
        ({"transitions": ("rewarmed",)}, True),
        ({"where": {"industry": ("software", " Testing ")}}, True),
        ({"where": {" Industry": "testing", "Size": "11-50"}}, True),
        ({"where": {"industry": "testing", "country": "de"}}, False),
        ({"where": {"country": ("(none)",)}}, True),
        ({"where": {"size": "11-50", "vip": (True,)}}, True),
        ({"where": {"size": ("1-10", "more")}}, False),
        ({"owner": "grace"}, True),
        ({"owner": ("Bo",)}, False),
        ({"cause_teams": ("Marketing",)}, True),
        ({"cause_teams": ("sales",)}, False),
        ({"cause_channels": ("retargeting", "display")}, True),
        ({"cause_kinds": ("web_session",)}, True),
        ({"cause_campaigns": ("autumn",)}, False),
        ({"open_deal": False}, True),
        ({"open_deal": True}, False),
        ({"min_amount": Decimal(1)}, False),
        ({"since": "2026-04-03T12:00:00Z"}, True),
        ({"since": "2026-04-03T14:00:01+02:00"}, False),
    ],
)
def test_a_route_lets_through_what_meets_all_its_conditions(changes: dict[str, object], lets_through: bool) -> None:
    assert matches(route(**changes), alert(), Decimal(0)) is lets_through


def test_what_cooled_an_account_counts_as_the_cause() -> None:
    cooled = alert(transition="cooled", causes=(), last_touches=alert().causes)

    assert matches(route(cause_channels=("retargeting",)), cooled, Decimal(0))


def test_each_destination_gets_an_alert_once_by_the_first_route_that_names_it() -> None:
    routes = (Route("a", ("x",)), Route("none", ("x", "y", "z"), owner="Bo"), Route("b", ("x", "y")))

    assert {name: found.name for name, found in targets(routes, alert(), Decimal(0)).items()} == {"x": "a", "y": "b"}


def test_open_deals_count_together_in_the_reporting_currency() -> None:
    settings = parse_settings({"rates": [{"date": "2026-01-01", "from": "EUR", "to": "USD", "rate": "1.1"}]})
    rates = Rates(settings.currency, settings.rates)
    deals = (OpenDeal("1", amount=10000, currency="EUR"), OpenDeal("2", amount=50, currency="USD"))

    assert open_amount(alert(deals=deals), rates, "UTC") == Decimal("110.50")
    assert open_amount(alert(deals=(replace(deals[0], currency="GBP"),)), rates, "UTC") == Decimal("Infinity")


# --- quiet hours ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-04-03T12:00:00Z", "2026-04-03T12:00:00Z"),
        ("2026-04-02T17:00:00Z", "2026-04-03T05:30:00Z"),
        ("2026-04-03T16:59:59.999999Z", "2026-04-03T16:59:59.999999Z"),
        ("2026-04-03T17:00:00Z", "2026-04-06T05:30:00Z"),
        ("2026-03-28T12:00:00Z", "2026-03-30T05:30:00Z"),
    ],
)
def test_quiet_hours_follow_each_other_and_the_clocks(now: str, until: str) -> None:
    assert to_text(after_quiet((NIGHT, WEEKEND), at(now), "Europe/Berlin")) == until


def test_hours_that_the_clocks_skip_or_repeat_are_those_on_the_wall() -> None:
    early = (Quiet("01:00", "02:30"),)

    assert to_text(after_quiet(early, at("2026-03-29T00:30:00Z"), "Europe/Berlin")) == "2026-03-29T01:00:00Z"
    assert to_text(after_quiet(early, at("2026-10-25T00:20:00Z"), "Europe/Berlin")) == "2026-10-25T00:30:00Z"
    assert to_text(after_quiet(early, at("2026-10-25T01:20:00Z"), "Europe/Berlin")) == "2026-10-25T01:30:00Z"


def is_quiet(quiet: list[Quiet], moment: int, zone: str) -> bool:
    """The rule itself: is a wall clock within a window of today, or of yesterday past midnight?"""
    local = to_datetime(moment).astimezone(ZoneInfo(zone))
    clock = f"{local:%H:%M}"
    today, yesterday = DAYS[local.weekday()], DAYS[local.weekday() - 1]
    return any(
        (today in each.days and each.begin <= clock and (clock < each.end or each.end <= each.begin))
        or (yesterday in each.days and each.end <= each.begin and clock < each.end)
        for each in quiet
    )


@given(windows, instants, st.sampled_from(ZONES), st.floats(0, 1))
def test_sending_begins_again_with_the_first_instant_that_is_not_quiet(
    quiet: list[Quiet], now: int, zone: str, between: float
) -> None:
    until = after_quiet(quiet, now, zone)

    assert until >= now
    assert not is_quiet(quiet, until, zone)
    if until > now:
        assert is_quiet(quiet, now, zone)
        assert is_quiet(quiet, now + int((until - 1 - now) * between), zone)
        assert is_quiet(quiet, until - 1, zone)


# --- digests ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "now", "until", "day"),
    [
        ({"mode": "daily"}, "2026-04-03T05:59:00Z", "2026-04-03T06:00:00Z", "2026-04-03"),
        ({"mode": "daily"}, "2026-04-03T06:00:00Z", "2026-04-04T06:00:00Z", "2026-04-04"),
        ({"mode": "daily", "quiet": (WEEKEND,)}, "2026-04-03T06:00:00Z", "2026-04-05T22:00:00Z", "2026-04-04"),
        ({"mode": "weekly"}, "2026-04-03T06:00:00Z", "2026-04-06T06:00:00Z", "2026-04-06"),
        ({"mode": "weekly", "at": "Fri 17:15"}, "2026-04-03T06:00:00Z", "2026-04-03T15:15:00Z", "2026-04-03"),
        ({"mode": "daily", "zone": "America/New_York"}, "2026-11-01T11:00:00Z", "2026-11-01T13:00:00Z", "2026-11-01"),
    ],
)
def test_a_digest_waits_for_its_hour(changes: dict[str, object], now: str, until: str, day: str) -> None:
    held = hold(route(**changes), at(now), "Europe/Berlin")

    assert (to_text(held.until), held.digest) == (until, day)


@given(instants, st.sampled_from(ZONES), st.sampled_from(["daily", "weekly"]), hours)
def test_a_digest_is_never_more_than_its_period_away(now: int, zone: str, mode: str, clock: str) -> None:
    held = hold(route(mode=mode, at=clock, zone=zone), now, "UTC")

    assert now < held.until <= now + (DAY if mode == "daily" else 7 * DAY) + HOUR
    assert hold(route(mode=mode, at=clock, zone=zone), held.until - 1, "UTC") == held


def test_an_instant_route_holds_nothing_outside_of_quiet_hours() -> None:
    now = at("2026-04-03T12:00:00Z")

    assert hold(route(), now, "UTC") == Hold(now)
    assert hold(route(quiet=(NIGHT,)), now + 8 * HOUR, "UTC") == Hold(now + 19 * HOUR + 30 * MINUTE, quiet=True)


# --- parcels ----------------------------------------------------------------------------


def settings(routes: list[dict[str, object]]) -> Settings:
    return parse_settings({"destinations": {"hook": HOOK, "ops": OPS, "other": HOOK}, "routes": routes})


def posted(alert: Alert, settings: Settings, *headers: tuple[str, str]) -> dict[str, tuple[str | None, bool]]:
    source = Source(msgspec.json.encode(alert), 0, 0, 0, headers)
    rates = Rates(settings.currency, settings.rates)
    found = parcels(alert, source, settings, rates, at("2026-04-03T12:00:00Z"))
    return {parcel.destination: (parcel.item.route, parcel.item.matched) for parcel in found}


def test_an_alertmanager_hears_of_every_alert_so_that_it_can_resolve() -> None:
    rules = settings([{"name": "warm", "to": ["ops", "hook"], "transitions": ["warmed"]}])

    assert posted(alert(), rules) == {"ops": ("warm", True), "hook": ("warm", True)}
    assert posted(alert(transition="cooled"), rules) == {"ops": (None, False)}


def test_a_test_goes_only_where_it_is_addressed() -> None:
    rules = settings([{"name": "a", "to": ["hook"], "owner": "nobody"}, {"name": "b", "to": ["hook", "ops"]}])
    test = alert(test=True)

    assert posted(test, rules, ("touchline-to", "other")) == {"other": (None, True)}
    assert posted(test, rules, ("touchline-route", "a")) == {"hook": ("a", True)}
    assert posted(test, rules, ("touchline-route", "a"), ("touchline-route", "b")).keys() == {"hook", "ops"}


# --- what is refused --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("route", "where"),
    [
        ({"name": "", "to": ["hook"]}, r"routes\[0\]\.name"),
        ({"name": "a", "to": []}, r"routes\.a\.to"),
        ({"name": "a", "to": ["nobody"]}, "expected one of the destinations .hook, ops, other., got nobody"),
        ({"name": "a", "to": ["ops"], "mode": "daily"}, "instant for an Alertmanager"),
        ({"name": "a", "to": ["hook"], "zone": "Mars"}, r"routes\.a\.zone"),
        ({"name": "a", "to": ["hook"], "since": "soon"}, r"routes\.a\.since"),
        ({"name": "a", "to": ["hook"], "at": "25:00"}, r"routes\.a\.at"),
        ({"name": "a", "to": ["hook"], "mode": "daily", "at": "mon 08:00"}, r"routes\.a\.at"),
        ({"name": "a", "to": ["hook"], "quiet": [{"from": "8", "to": "09:00"}]}, r"routes\.a\.quiet\[0\]\.from"),
        ({"name": "a", "to": ["hook"], "quiet": [{"from": "08:00", "to": "08:00"}]}, "some time in which to send"),
        ({"name": "a", "to": ["hook"], "transitions": ["hot"]}, "transitions"),
        ({"name": "a", "to": ["hook"], "modus": "daily"}, "modus"),
        ({"name": "a", "to": ["hook"], "min_amount": "nan"}, r"routes\.a\.min_amount"),
    ],
)
def test_a_route_that_cannot_work_is_refused_by_name(route: dict[str, object], where: str) -> None:
    with pytest.raises(BadInput, match=where):
        settings([route])


@pytest.mark.parametrize(
    ("destination", "where"),
    [
        ({**HOOK, "url": "ftp://example.com"}, r"destinations\.d\.url"),
        ({**HOOK, "secrets": []}, "at least one secret"),
        ({**HOOK, "secrets": ["whsec_not base64!"]}, r"destinations\.d\.secrets\[0\]: .*, got no base64"),
        ({**HOOK, "secrets": ["whsec_c2hvcnQ="]}, "got 5 bytes"),
        ({"kind": "email", "host": "h", "from": "a@b.c", "to": []}, r"destinations\.d\.to"),
        ({"kind": "email", "host": "h", "from": "nobody", "to": ["a@b.c"]}, r"destinations\.d\.from"),
        ({"kind": "email", "host": "h", "from": "a@b.c", "to": ["a@b.c"], "port": 0}, r"destinations\.d\.port"),
        ({"kind": "pager", "url": "https://example.com"}, "destinations"),
    ],
)
def test_a_destination_that_cannot_work_is_refused_without_its_secrets(
    destination: dict[str, object], where: str
) -> None:
    with pytest.raises(BadInput, match=where) as refused:
        parse_settings({"destinations": {"d": destination}})

    assert "not base64" not in str(refused.value)
