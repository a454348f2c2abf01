"""Where a page view came from and the path it came to: what its URL, referrer and utm values come to."""

from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from models.channels import Origin
from models.facts import Utm
from models.identity import ascii_host, host_of
from models.settings import Settings

_UTM_NAMES = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
CLICK_IDS = ("gclid", "gbraid", "wbraid", "msclkid", "fbclid", "li_fat_id", "ttclid")


class Arrival(NamedTuple):
    """Where a hit came from and the path it came to."""

    origin: Origin | None
    path: str


Arrive = Callable[[str, str, Utm | None], Arrival]


def arrivals(settings: Settings, registrable: Callable[[str], str | None]) -> Arrive:
    """The function (url, referrer, utm) → Arrival under these settings, with its memory.

    `registrable` gives a host's registrable domain, None where it has none.
    """
    site = lru_cache(maxsize=50_000)(lambda host: registrable(host) or "")
    own = {ascii_host(name.lower()) for name in settings.own_domains}
    excluded = {ascii_host(name.lower()) for name in settings.excluded_referrers}

    def referrer_of(referrer: str, host: str) -> str:
        came_from = ascii_host(host_of(referrer)) if referrer else ""
        if not came_from or came_from == host or _parents(came_from) & excluded:
            return ""
        domain = site(came_from)
        outside = domain != site(host) and not _parents(came_from) & own and domain not in own
        return domain if outside else ""

    @lru_cache(maxsize=100_000)
    def arrive(url: str, referrer: str, utm: Utm | None) -> Arrival:
        place, _, query = url.partition("#")[0].partition("?")
        host = host_of(place) if "//" in place else ""
        origin = _origin(query, utm, referrer_of(referrer, host))
        return Arrival(origin, _path(place))

    return arrive


def _parents(host: str) -> set[str]:
    labels = host.split(".")
    return {".".join(labels[start:]) for start in range(len(labels))}


def _path(place: str) -> str:
    rest = place.partition("://")[2]
    path = rest[rest.find("/") :] if "/" in rest else "/"
    return path if "://" in place else place


def _origin(query: str, utm: Utm | None, referrer: str) -> Origin | None:
    asked = dict(reversed(parse_qsl(query))) if query else {}
    asked = {name.lower(): value for name, value in asked.items()}
    told = utm or ("",) * 5
    tags = [(mine or asked.get(name, "")).strip().lower() for mine, name in zip(told, _UTM_NAMES, strict=True)]
    click = next((name for name in CLICK_IDS if asked.get(name)), "")
    if not (any(tags) or click or referrer):
        return None
    source, medium, campaign, term, content = tags
    return Origin(source, medium, campaign, term, content, click, referrer)
