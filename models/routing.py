"""Routes: which alerts go where, and not before when; quiet hours, digests.

Hours are those of the route's time zone, and of its clocks when they change. What a route lets
through is decided in models.matching.
"""

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from datetime import datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Literal, NamedTuple
from zoneinfo import ZoneInfo, available_timezones

from msgspec import Struct

from models.alerts import Attribute
from models.destinations import Alertmanager, Destination
from models.errors import BadInput
from models.times import MINUTE, SECOND, parse_instant, to_datetime, to_micros

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: tuple[Day, ...] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
_DAY_MINUTES = 24 * 60
_WEEK_MINUTES = 7 * _DAY_MINUTES
_CLOCKS_CHANGE = 15 * MINUTE
"""Clocks are put forward and back at quarters of an hour, so a quarter runs evenly."""


class Quiet(Struct, frozen=True, forbid_unknown_fields=True, rename={"begin": "from", "end": "to"}):
    """Hours in which nothing is sent, `from` included, `to` not; past midnight when `to` is not after `from`."""

    begin: str
    end: str
    days: tuple[Day, ...] = DAYS


class Route(Struct, frozen=True, forbid_unknown_fields=True):
    """Which alerts, to which destinations, and when. What is left out lets everything through."""

    name: str
    to: tuple[str, ...]
    transitions: tuple[Literal["warming", "warmed", "cooling", "cooled", "rewarmed"], ...] = ()
    where: dict[str, Attribute | tuple[Attribute, ...]] = {}
    owner: str | tuple[str, ...] = ()
    cause_teams: tuple[str, ...] = ()
    cause_channels: tuple[str, ...] = ()
    cause_kinds: tuple[str, ...] = ()
    cause_campaigns: tuple[str, ...] = ()
    open_deal: bool | None = None
    min_amount: Decimal | None = None
    mode: Literal["instant", "daily", "weekly"] = "instant"
    at: str = "08:00"
    zone: str = ""
    quiet: tuple[Quiet, ...] = ()
    since: str = ""


class Hold(NamedTuple):
    """The instant before which an alert is not sent; `digest` is the day whose digest it waits for."""

    until: int
    quiet: bool = False
    digest: str = ""


# --- not before when --------------------------------------------------------------------


def hold(route: Route, now: int, zone: str) -> Hold:
    """Until when an alert that arrives now is held; `zone` is that of routes without one."""
    zone = route.zone or zone
    at = now if route.mode == "instant" else _next_digest(route, now, zone)
    until = after_quiet(route.quiet, at, zone)
    digest = "" if route.mode == "instant" else to_datetime(at).astimezone(ZoneInfo(zone)).date().isoformat()
    return Hold(until, until > at, digest)


def after_quiet(quiet: Sequence[Quiet], at: int, zone: str) -> int:
    """The first instant from `at` on that is not within quiet hours."""
    while wait := _still_quiet(quiet, at, zone):
        at += min(wait, _CLOCKS_CHANGE - at % _CLOCKS_CHANGE)
    return at


def _still_quiet(quiet: Sequence[Quiet], at: int, zone: str) -> int:
    """How long the quiet hours around an instant last, were the clocks not changed; 0 outside of them."""
    local = to_datetime(at).astimezone(ZoneInfo(zone))
    minute = local.weekday() * _DAY_MINUTES + local.hour * 60 + local.minute
    spans = _spans(tuple(quiet))
    found = bisect_right(spans, (minute, _WEEK_MINUTES)) - 1
    if found < 0 or minute >= spans[found][1]:
        return 0
    return (spans[found][1] - minute) * MINUTE - local.second * SECOND - local.microsecond


@lru_cache(maxsize=1024)
def _spans(quiet: tuple[Quiet, ...]) -> list[tuple[int, int]]:
    """Quiet hours as minutes of the week, in order, apart from each other, cut at the week's end."""
    parts = sorted(part for window in quiet for day in window.days for part in _parts(window, DAYS.index(day)))
    spans: list[tuple[int, int]] = []
    for begin, end in parts:
        if spans and begin <= spans[-1][1]:
            spans[-1] = spans[-1][0], max(end, spans[-1][1])
        else:
            spans.append((begin, end))
    return spans


def _parts(window: Quiet, day: int) -> list[tuple[int, int]]:
    begin = day * _DAY_MINUTES + _minutes(window.begin)
    end = day * _DAY_MINUTES + _minutes(window.end)
    if end <= begin:
        end += _DAY_MINUTES
    if end <= _WEEK_MINUTES:
        return [(begin, end)]
    return [(begin, _WEEK_MINUTES), (0, end - _WEEK_MINUTES)]


def _next_digest(route: Route, now: int, zone: str) -> int:
    """The next time of the route's digest, later than now."""
    day, at = digest_time(route)
    today = to_datetime(now).astimezone(ZoneInfo(zone)).date()
    days = [today + timedelta(days=n) for n in range(9)]
    moments = (
        to_micros(datetime.combine(each, at, ZoneInfo(zone)))
        for each in days
        if day is None or each.weekday() == DAYS.index(day)
    )
    return next(moment for moment in moments if moment > now)


def digest_time(route: Route) -> tuple[Day | None, time]:
    """The weekday (weekly only, Monday where `at` names none) and the hour of a route's digest."""
    words = route.at.lower().split()
    day = next((each for each in DAYS if words[0].startswith(each)), None)
    minutes = _minutes(words[-1])
    return (day or "mon") if route.mode == "weekly" else None, time(minutes // 60, minutes % 60)


def _minutes(text: str) -> int:
    """Minutes since midnight of HH:MM; 24:00 is midnight's end. ValueError when it is no time."""
    hour, _, minute = text.partition(":")
    if len(hour) not in (1, 2) or len(minute) != 2 or not (hour + minute).isdigit():
        raise ValueError(text)
    minutes = int(hour) * 60 + int(minute)
    if int(minute) > 59 or minutes > _DAY_MINUTES:
        raise ValueError(text)
    return minutes


# --- what can be set --------------------------------------------------------------------


def check_routes(routes: Sequence[Route], destinations: Mapping[str, Destination]) -> None:
    """BadInput names the first route, and the field of it, that cannot work."""
    names = [route.name for route in routes]
    for place, route in enumerate(routes):
        if not route.name or names.index(route.name) != place:
            raise BadInput(f"routes[{place}].name", "a name that no other route has", route.name)
        _check_receivers(route, destinations)
        _check_times(route)
        if route.min_amount is not None and not route.min_amount.is_finite():
            raise BadInput(f"routes.{route.name}.min_amount", "a finite amount", str(route.min_amount))


def _check_receivers(route: Route, destinations: Mapping[str, Destination]) -> None:
    where = f"routes.{route.name}.to"
    if not route.to:
        raise BadInput(where, "at least one destination", "none")
    for name in route.to:
        if name not in destinations:
            raise BadInput(where, f"one of the destinations ({', '.join(destinations) or 'there is none'})", name)
        if route.mode != "instant" and isinstance(destinations[name], Alertmanager):
            raise BadInput(
                f"routes.{route.name}.mode", "instant for an Alertmanager, which keeps the present", route.mode
            )


def _check_times(route: Route) -> None:
    where = f"routes.{route.name}"
    if route.zone and route.zone not in available_timezones():
        raise BadInput(f"{where}.zone", "an IANA time zone such as Europe/Berlin", route.zone)
    if route.since:
        parse_instant(route.since, f"{where}.since")
    _check_digest(route, where)
    for place, window in enumerate(route.quiet):
        for field, text in (("from", window.begin), ("to", window.end)):
            _check_hour(f"{where}.quiet[{place}].{field}", text)
    spans = _spans(route.quiet)
    if spans and spans[0] == (0, _WEEK_MINUTES):
        raise BadInput(f"{where}.quiet", "some time in which to send", "the whole week")


def _check_digest(route: Route, where: str) -> None:
    try:
        words = route.at.lower().split()
        digest_time(route)
        works = len(words) == 1 or (len(words) == 2 and route.mode == "weekly" and words[0][:3] in DAYS)
    except (ValueError, IndexError):
        works = False
    if not works:
        raise BadInput(f"{where}.at", "a time such as 08:00 (weekly also: mon 08:00)", route.at)


def _check_hour(where: str, text: str) -> None:
    try:
        _minutes(text)
    except ValueError:
        raise BadInput(where, "a time such as 18:30", text) from None
