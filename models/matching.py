"""Which routes let an alert through, and where it goes.

All routes that match apply, and each destination gets the alert once: by the first of them, in the
order of the settings. Names and values are compared trimmed and without case, sizes by their band.
"""

from collections.abc import Iterable, Mapping
from decimal import Decimal

from models.alerts import Alert, Attribute
from models.ids import snake
from models.profiles import compared
from models.routing import Route
from models.times import parse_instant

NO_VALUE = "(none)"


def targets(routes: Iterable[Route], alert: Alert, open_amount: Decimal) -> dict[str, Route]:
    """The destinations of an alert, each with the first route that names it."""
    found: dict[str, Route] = {}
    for route in routes:
        if matches(route, alert, open_amount):
            found.update((name, route) for name in route.to if name not in found)
    return found


def matches(route: Route, alert: Alert, open_amount: Decimal) -> bool:
    """Does the route let the alert through? `open_amount` is what its open deals are worth together."""
    attributes = alert.account.attributes
    return (
        _transition_matches(route, alert)
        and all(_has(attributes, name.strip().lower(), values) for name, values in route.where.items())
        and _is_among(route.owner, (alert.account.owner,))
        and _is_among(route.cause_teams, (touch.team for touch in alert.touches))
        and _is_among(route.cause_channels, (touch.channel for touch in alert.touches))
        and _is_among(tuple(snake(kind) for kind in route.cause_kinds), (touch.kind for touch in alert.touches))
        and _is_among(route.cause_campaigns, (touch.campaign for touch in alert.touches))
        and route.open_deal in (None, bool(alert.deals))
        and (route.min_amount is None or open_amount >= route.min_amount)
        and (not route.since or _instant(alert.at) >= _instant(route.since))
    )


def _transition_matches(route: Route, alert: Alert) -> bool:
    wanted = route.transitions
    return not wanted or alert.transition in wanted or (alert.rewarmed and "rewarmed" in wanted)


def _has(attributes: Mapping[str, Attribute | None], name: str, wanted: Attribute | tuple[Attribute, ...]) -> bool:
    return _is_among(wanted, (attributes.get(name),), name)


def _is_among(wanted: Attribute | tuple[Attribute, ...], values: Iterable[Attribute | None], name: str = "") -> bool:
    """Is any of the values one of those wanted? Nothing wanted: anything will do."""
    if wanted == ():
        return True
    words = {compared(name, each) for each in (wanted if isinstance(wanted, tuple) else (wanted,))}
    return any(compared(name, NO_VALUE if value is None else value) in words for value in values)


def _instant(text: str) -> int:
    return parse_instant(text, "instant")
