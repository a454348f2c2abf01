"""Hits → sessions → web touches, always those of all hits known."""

from collections.abc import Sequence

from models.channels import Origin
from models.hits import Hit
from models.rules import Rules
from models.touches import WEB_SESSION, Landing, Touch, site_touch
from models.visits import Arrived, Opened

DIRECT = Origin()


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
    return site_touch(Landing(hit.at, hit.id, WEB_SESSION, opened.origin, hit.path), visitor, rules, hot)


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
    came = [number for number, hit in enumerate(session) if hit.origin is not None]
    if len(came) <= 1:  # nearly all sessions
        first = session[came[0] if came else 0]
        return [(Opened(first, first.origin or DIRECT), list(session[came[0] :] if came else session))]
    return _seen_under_each(session)


def _seen_under_each(session: Sequence[Hit]) -> list[tuple[Opened, list[Hit]]]:
    sources = Sources()
    seen: dict[str, list[Hit]] = {}
    under: list[Hit] | None = None
    for hit in session:
        if hit.origin is not None:
            sources.take(hit)
            under = seen.setdefault(sources.current.hit.id, []) if sources.current else None
        if under is not None:
            under.append(hit)
    return [(each, seen[each.hit.id]) for each in sources.opened.values()]


def current_source(session: Sequence[Hit], order: tuple[int, str]) -> Opened:
    """The source current at the (time, id) of a fact, the session's direct arrival where there is none."""
    upto = [hit for hit in session if hit.order <= order]
    return sources_of(upto).current or Opened(session[0], DIRECT)
