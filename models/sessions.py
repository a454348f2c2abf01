"""Hits → sessions → web touches, always those of all hits known."""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import parse_qsl

from models.channels import Origin
from models.facts import Utm
from models.hits import Hit
from models.identity import host_of
from models.rules import Rules
from models.touches import WEB_SESSION, Touch, site_touch
from models.visits import Arrived, Opened

_UTM_NAMES = ("utm_source", "utm_medium", "utm_campaign", "utm_term", "utm_content")
CLICK_IDS = ("gclid", "gbraid", "wbraid", "msclkid", "fbclid", "li_fat_id", "ttclid")
DIRECT = Origin()


class Arrival(NamedTuple):
    """Where a hit came from and the path it came to."""

    origin: Origin | None
    path: str


Arrive = Callable[[str, str, Utm | None], Arrival]


def arrivals(rules: Rules) -> Arrive:
    """The function (url, referrer, utm) → Arrival under these rules, with its memory."""
    site = lru_cache(maxsize=50_000)(lambda host: rules.registrable(host) or "")
    own = {name.lower() for name in rules.settings.own_domains}
    excluded = {name.lower() for name in rules.settings.excluded_referrers}

    def referrer_of(referrer: str, host: str) -> str:
        came_from = host_of(referrer) if referrer else ""
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


def source_key(origin: Origin) -> Origin:
    """What makes two origins one source: utm values and click id, else the referrer."""
    return origin if is_bare(origin) else Origin(*_tags(origin), origin.click_id)


def is_bare(origin: Origin) -> bool:
    """True when nothing but a referrer says where the hit came from."""
    return not (origin.click_id or any(_tags(origin)))


def _tags(origin: Origin) -> tuple[str, str, str, str, str]:
    return origin.source, origin.medium, origin.campaign, origin.term, origin.content


def opens_session(hit_at: int, last_at: int, first_at: int, rules: Rules) -> bool:
    """Does a hit after `last_at`, in a session begun at `first_at`, begin another?"""
    return hit_at - last_at >= rules.gap or hit_at - first_at >= rules.longest


def cut(hits: Sequence[Hit], rules: Rules) -> list[list[Hit]]:
    """The sessions of sorted hits, oldest first."""
    sessions: list[list[Hit]] = []
    for hit in hits:
        if not sessions or opens_session(hit.at, sessions[-1][-1].at, sessions[-1][0].at, rules):
            sessions.append([])
        sessions[-1].append(hit)
    return sessions


class Sources:
    """The sources a session took up, in order, and the one that is current."""

    __slots__ = ("_came_with", "_key", "current", "opened")

    def __init__(self) -> None:
        self.opened: dict[Origin, Opened] = {}
        self.current: Opened | None = None
        self._key: Origin | None = None
        self._came_with: dict[Origin, set[str]] = {}

    def take(self, hit: Hit) -> bool:
        """Take the next hit; True when it opens a touch."""
        origin = hit.origin
        if origin is None or (is_bare(origin) and self._is_current(origin.referrer)):
            return False
        key = self._key = source_key(origin)
        opens = key not in self.opened
        if opens:
            self.opened[key] = Opened(hit, origin)
            self._came_with[key] = set()
        self.current = self.opened[key]
        self._came_with[key].add(origin.referrer)
        return opens

    def _is_current(self, referrer: str) -> bool:
        """Did the current source come with this referrer?"""
        return self._key is not None and referrer in self._came_with[self._key]


def sources_of(session: Sequence[Hit]) -> Sources:
    """The sources of a session after its last hit."""
    sources = Sources()
    for hit in session:
        sources.take(hit)
    return sources


def web_touches(session: Sequence[Hit], visitor: str, rules: Rules) -> list[Touch]:
    """A session's touches, oldest first: one for each source, else one that is direct."""
    return [
        _web_touch(opened, visitor, rules, _saw_hot(seen, rules))
        for opened, seen in seen_under(session)
        if opened.origin is not DIRECT or rules.settings.direct_touches
    ]


def _web_touch(opened: Opened, visitor: str, rules: Rules, hot: bool) -> Touch:
    hit = opened.hit
    return site_touch(hit.at, hit.id, WEB_SESSION, opened.origin, hit.path, visitor, rules, hot)


def arrived(session: Sequence[Hit], rules: Rules) -> list[Arrived]:
    """The sources that a session took up, oldest first; a direct-only session of nobody is no touch."""
    came = [hit for hit in session if hit.origin is not None]
    if len(came) > 1:
        came = [opened.hit for opened in sources_of(came).opened.values()]
    return [Arrived(hit.at, hit.id, WEB_SESSION, rules.classify(hit.origin or DIRECT, WEB_SESSION)) for hit in came]


def _saw_hot(seen: Sequence[Hit], rules: Rules) -> bool:
    return any(map(rules.is_hot, {hit.path for hit in seen}))


def seen_under(session: Sequence[Hit]) -> list[tuple[Opened, list[Hit]]]:
    """The sources of a session, oldest first, each with the hits during which it was current.

    Hits before the first source are under none; a session without any is under a direct arrival.
    """
    sources = Sources()
    seen: dict[str, list[Hit]] = {}
    under: list[Hit] | None = None
    for hit in session:
        if hit.origin is not None:
            sources.take(hit)
            under = seen.setdefault(sources.current.hit.id, []) if sources.current else None
        if under is not None:
            under.append(hit)
    opened = [(each, seen[each.hit.id]) for each in sources.opened.values()]
    return opened or [(Opened(session[0], DIRECT), list(session))]


def current_source(session: Sequence[Hit], order: tuple[int, str]) -> Opened:
    """The source current at the (time, id) of a fact, the session's direct arrival where there is none."""
    upto = [hit for hit in session if hit.order <= order]
    return sources_of(upto).current or Opened(session[0], DIRECT)
