"""Into which queues an alert goes, and what is said of those that have to wait there.

    alert ─ routes ─▶ destinations ─ hold ─▶ a parcel for the queue of account × destination

An Alertmanager hears of every alert: one that no route matches begins nothing there, but may end
what an earlier one began.
"""

from collections.abc import Iterable, Iterator, Mapping
from decimal import Decimal
from typing import NamedTuple

from models.alerts import Alert
from models.destinations import Alertmanager
from models.dispatch import Item
from models.errors import BadInput
from models.matching import targets
from models.money import DECIMALS, Rates
from models.routing import Hold, hold
from models.settings import Settings
from models.times import DAY, day_of, parse_instant

TO_ROUTE, TO_DESTINATION = "touchline-route", "touchline-to"
"""Headers of a test alert's record: the routes or destinations that it is for, whatever they match."""

KNOWN_DAYS = 400
"""How long the ids of alerts that went into queues are remembered."""


class Source(NamedTuple):
    """The record of an alert: its value, where it stands, and its headers."""

    value: bytes
    partition: int
    offset: int
    recorded_at: int
    headers: tuple[tuple[str, str], ...] = ()


class Parcel(NamedTuple):
    """An item for a queue of a destination, looked at from `due` on."""

    destination: str
    queue: str
    item: Item
    due: int


def parcels(alert: Alert, source: Source, settings: Settings, rates: Rates, now: int) -> list[Parcel]:
    """What goes into which queue."""
    if alert.test and source.headers:
        addressed = _addressed(source.headers, settings)
        return [_parcel(name, alert, source, route, Hold(now), now) for name, route in addressed.items()]
    found = targets(settings.routes, alert, open_amount(alert, rates, settings.time_zone))
    return [
        *(
            _parcel(name, alert, source, route.name, hold(route, now, settings.time_zone), now)
            for name, route in found.items()
        ),
        *(_parcel(name, alert, source, None, Hold(now), now) for name in _listeners(settings) if name not in found),
    ]


def _addressed(headers: Iterable[tuple[str, str]], settings: Settings) -> Mapping[str, str | None]:
    """The destinations that a test alert names, by themselves or by their routes."""
    routes = {route.name: route for route in settings.routes}
    found: dict[str, str | None] = {}
    for header, name in headers:
        if header == TO_DESTINATION and name in settings.destinations:
            found.setdefault(name, None)
        if header == TO_ROUTE and name in routes:
            found.update((to, name) for to in routes[name].to if to not in found)
    return found


def _listeners(settings: Settings) -> Iterator[str]:
    """The Alertmanagers that any route names."""
    named = dict.fromkeys(name for route in settings.routes for name in route.to)
    return (name for name in named if isinstance(settings.destinations[name], Alertmanager))


def _parcel(destination: str, alert: Alert, source: Source, route: str | None, held: Hold, now: int) -> Parcel:
    item = Item(
        alert_id=alert.alert_id,
        alert=source.value,
        route=route,
        queued_at=now,
        not_before=held.until,
        quiet=held.quiet,
        digest=held.digest,
        matched=alert.test or route is not None,
        partition=source.partition,
        offset=source.offset,
        recorded_at=source.recorded_at,
    )
    queue = f"\0{route}" if held.digest else alert.account.id
    return Parcel(destination, queue, item, held.until)


def open_amount(alert: Alert, rates: Rates, zone: str) -> Decimal:
    """What the account's open deals are worth together, in units of the reporting currency.

    One for which there is no rate counts as any amount: an alert too many does less harm than one lost.
    """
    day = day_of(parse_instant(alert.at, "alert.at"), zone)
    total = 0
    for deal in alert.deals:
        amount = rates.convert(deal.amount or 0, deal.currency or rates.reporting, day)
        if amount is None:
            return Decimal("Infinity")
        total += amount
    return Decimal(total).scaleb(-DECIMALS[rates.reporting])


def month_of(alert: Alert) -> str:
    """The month of an alert, among whose ids it is looked up."""
    return day_of(parse_instant(alert.at, "alert.at"), "UTC")[:7]


def is_forgotten(alert: Alert, now: int) -> bool:
    """Is an alert so old that its id may no longer be remembered? A rebuild finds such again."""
    return parse_instant(alert.at, "alert.at") < now - KNOWN_DAYS * DAY


def receivers_of_test(settings: Settings, route: str | None, destination: str | None) -> dict[str, str | None]:
    """The destinations that a test is for, each with its route; BadInput when there is none of the name."""
    if destination is not None and destination not in settings.destinations:
        raise BadInput("--to", f"a destination of the settings ({_listed(settings.destinations)})", destination)
    names = [each.name for each in settings.routes]
    if route is not None and route not in names:
        raise BadInput("--route", f"a route of the settings ({_listed(names)})", route)
    return dict(_addressed(headers_of_test(settings, route, destination), settings))


def headers_of_test(settings: Settings, route: str | None, destination: str | None) -> list[tuple[str, str]]:
    """The headers for a destination, a route, or every route."""
    if destination is not None:
        return [(TO_DESTINATION, destination)]
    return [(TO_ROUTE, each.name) for each in settings.routes if route in (None, each.name)]


def _listed(names: Iterable[str]) -> str:
    return ", ".join(names) or "there is none"
