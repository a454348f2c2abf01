"""Segment messages: page views, form fills, identities, and the unlinks and verdicts of our own among them.

Source: Segment spec, https://segment.com/docs/connections/spec/.
"""

from collections.abc import Callable, Iterable
from typing import Final

from models.errors import BadInput
from models.facts import (
    FORM_FILLS,
    IDENTITIES,
    PAGE_VIEWS,
    FormFill,
    Identification,
    PageView,
    Scalar,
    Unlink,
    Utm,
    Verdict,
)
from models.formats import Context, Page, Properties, Segment
from models.identity import as_text, person_id
from models.settings import Settings
from models.times import parse_instant


def _visitor(raw: Segment, person: str | None, topic: str) -> str:
    anonymous = _anonymous(raw)
    if anonymous:
        return anonymous
    if person is None:
        raise BadInput(topic, "an anonymousId or userId", raw.messageId)
    return f"user:{person}"


def _anonymous(raw: Segment) -> str:
    return "" if raw.anonymousId is None else as_text(raw.anonymousId).strip()


def _utm(context: Context | None) -> Utm | None:
    campaign = context.campaign if context else None
    if campaign is None:
        return None
    values = (campaign.source, campaign.medium, campaign.name, campaign.term, campaign.content)
    source, medium, name, term, content = ("" if value is None else as_text(value) for value in values)
    return source, medium, name, term, content


def _page(properties: Properties | None, context: Context | None) -> tuple[str, str]:
    """URL (with its search) and referrer: the properties' before the context's."""
    properties = properties or _NO_PROPERTIES
    page = (context.page if context else None) or _NO_PAGE
    url = properties.url or page.url or properties.path or page.path or ""
    if (search := properties.search or page.search) and "?" not in url:
        url = f"{url}?{search.lstrip('?')}"
    return url, properties.referrer or page.referrer or ""


_NO_PAGE: Final = Page()
_NO_PROPERTIES: Final = Properties()


def read_page_view(raw: Segment, value: bytes, at: int, settings: Settings) -> PageView:
    """A page view or screen. Raises BadInput."""
    visitor, person, url, referrer, utm = read_view(raw, raw.context, settings)
    return PageView(at, raw.messageId, visitor, person, url, referrer, utm, raw.bot is True)


def read_view(
    raw: Segment, context: Context | None, settings: Settings
) -> tuple[str, str | None, str, str, Utm | None]:
    """Visitor, person, URL, referrer and utm values of a page view or screen. Raises BadInput."""
    kind, user = raw.type, raw.userId
    if kind not in (None, "page", "screen"):
        raise BadInput("page-views.type", "page or screen", kind)
    person = None if user is None else person_id(user, settings)
    anonymous = raw.anonymousId
    visitor = anonymous.strip() if type(anonymous) is str else ""  # nine facts in ten: no call for them
    url, referrer = _page(raw.properties, context)
    return visitor or _visitor(raw, person, PAGE_VIEWS), person, url, referrer, _utm(context)


def read_form_fill(raw: Segment, value: bytes, at: int, settings: Settings) -> FormFill:
    """A form filled in, or another track call that lies among them. Raises BadInput."""
    if raw.type not in (None, "track"):
        raise BadInput("form-fills.type", "track", raw.type)
    if raw.event is not None and raw.event not in settings.form_events:
        return FormFill(_identify(raw, at, None, FORM_FILLS, settings), "", "", None, is_touch=False)
    emails = (
        raw.properties.email if raw.properties else None,
        raw.context.traits.email if raw.context and raw.context.traits else None,
        raw.traits.email if raw.traits else None,
    )
    identification = _identify(raw, at, _email(emails, FORM_FILLS, settings), FORM_FILLS, settings)
    url, referrer = _page(raw.properties, raw.context)
    external = raw.properties.externalId if raw.properties else None
    external_id = None if external is None else as_text(external) or None
    return FormFill(identification, url, referrer, _utm(raw.context), external_id)


def _email(values: Iterable[Scalar], topic: str, settings: Settings) -> str | None:
    """The first e-mail given, as compared; a guarded one is as though it were not there.

    Raises BadInput when it is no e-mail.
    """
    for value in values:
        email = person_id(value, settings)
        if email is not None:
            if "@" not in email.strip("@"):
                raise BadInput(f"{topic}.email", "an e-mail address", value)
            return email
    return None


def _identify(raw: Segment, at: int, email: str | None, topic: str, settings: Settings) -> Identification:
    user = person_id(raw.userId, settings)
    person = email or user
    links = ((user, email),) if user and email and user != email else ()
    names = tuple(dict.fromkeys(name for name in (user, email) if name))
    key = _visitor(raw, user or email, topic)
    return Identification(at, raw.messageId, key, person, names, links, is_listed=bool(raw.bot))


def read_identity(raw: Segment, value: bytes, at: int, settings: Settings) -> Identification | Unlink | Verdict:
    """A message that says who somebody is, or takes back who was said. Raises BadInput."""
    reader = _IDENTITY_READERS.get(raw.type or "")
    if reader is None:
        raise BadInput("identities.type", "identify, alias, group, track, unlink or bot", raw.type)
    return reader(raw, at, settings)


def _read_identify(raw: Segment, at: int, settings: Settings) -> Identification:
    context = raw.context.traits.email if raw.context and raw.context.traits else None
    own = raw.traits.email if raw.traits else None
    return _identify(raw, at, _email((own, context), IDENTITIES, settings), IDENTITIES, settings)


def _read_alias(raw: Segment, at: int, settings: Settings) -> Identification:
    user, previous = person_id(raw.userId, settings), person_id(raw.previousId, settings)
    if raw.previousId is None or raw.userId is None:
        raise BadInput("identities.previousId", "the id that is now userId", raw.messageId)
    links = ((previous, user),) if user and previous and user != previous else ()
    names = tuple(dict.fromkeys(name for name in (user, previous) if name))
    key = _visitor(raw, user or previous, IDENTITIES)
    other = as_text(raw.previousId).strip() if user and previous else ""
    return Identification(at, raw.messageId, key, user, names, links, None, other or None, bool(raw.bot))


def _read_group(raw: Segment, at: int, settings: Settings) -> Identification:
    user = person_id(raw.userId, settings)
    group = "" if raw.groupId is None else as_text(raw.groupId).strip()
    if not group:
        raise BadInput("identities.groupId", "the account's id", raw.groupId)
    names = (user,) if user else ()
    key = _visitor(raw, user, IDENTITIES)
    call = (user, group) if user else None
    return Identification(at, raw.messageId, key, user, names, (), call, is_listed=bool(raw.bot))


def _read_track(raw: Segment, at: int, settings: Settings) -> Identification:
    return _identify(raw, at, None, IDENTITIES, settings)


def _read_unlink(raw: Segment, at: int, settings: Settings) -> Unlink:
    if not raw.unlinks:
        raise BadInput("identities.unlinks", "the messageId to withdraw", raw.unlinks)
    person = person_id(raw.userId, settings) or person_id(raw.previousId, settings)
    return Unlink(at, raw.messageId, _visitor(raw, person, IDENTITIES), raw.unlinks)


def _read_verdict(raw: Segment, at: int, settings: Settings) -> Verdict:
    if raw.bot is None:
        raise BadInput("identities.bot", "true or false", raw.bot)
    begin = None if raw.since is None else parse_instant(raw.since, "identities.from")
    end = None if raw.until is None else parse_instant(raw.until, "identities.to")
    person = person_id(raw.userId, settings)
    is_anybodys = raw.messageIds and not _anonymous(raw) and person is None
    key = "" if is_anybodys else _visitor(raw, person, IDENTITIES)
    return Verdict(at, raw.messageId, key, raw.bot, begin, end, raw.messageIds or ())


_IDENTITY_READERS: dict[str, Callable[[Segment, int, Settings], Identification | Unlink | Verdict]] = {
    "identify": _read_identify,
    "alias": _read_alias,
    "group": _read_group,
    "track": _read_track,
    "page": _read_track,
    "screen": _read_track,
    "unlink": _read_unlink,
    "bot": _read_verdict,
}
