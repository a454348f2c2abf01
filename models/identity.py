"""Who is meant: ids of people and accounts as they are compared, and whose id is whose.

A person id with `@` is an e-mail, any other a user id. Links say that one id belongs to
another; the id at the end of its links is the person.
"""

import re
from collections.abc import Callable
from functools import lru_cache

import msgspec

from models.settings import Settings

_SPACE = " \t\r\n\f\v\u00a0"


class Link(msgspec.Struct, frozen=True, array_like=True, order=True):
    """`source` belongs to `target`, as the message `id` said at `at`."""

    at: int
    id: str
    source: str
    target: str


class Root(msgspec.Struct, frozen=True, array_like=True):
    """The end of an id's links, and since when the id itself is linked (0: not)."""

    id: str
    linked_at: int = 0


@lru_cache(maxsize=8)
def _guards(patterns: tuple[str, ...]) -> tuple[frozenset[str], tuple[str, ...]]:
    exact = frozenset(pattern for pattern in patterns if not pattern.endswith("*"))
    return exact, tuple(pattern[:-1] for pattern in patterns if pattern.endswith("*"))


@lru_cache(maxsize=200_000)
def _person_id(text: str, patterns: tuple[str, ...]) -> str | None:
    trimmed = text.strip(_SPACE)
    lowered = trimmed.lower()
    exact, prefixes = _guards(patterns)
    if not trimmed or lowered in exact or lowered.startswith(prefixes):
        return None
    return lowered if "@" in trimmed else trimmed


def person_id(value: str | float | bool | None, settings: Settings) -> str | None:
    """The id as compared (e-mails lower case, trimmed), None when it names nobody.

    Numbers and booleans are compared as their JSON text.
    """
    if value is None:
        return None
    return _person_id(as_text(value), settings.identity.guards)


def as_text(value: str | float | bool) -> str:
    """The id as JSON would write it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else str(value)


_HOST = re.compile(r"^(?:[a-z][a-z0-9+.-]*://)?(?:[^/?#@]*@)?([^/?#:]+)", re.IGNORECASE)


def host_of(url: str) -> str:
    """The host of a URL or bare host name, lower case, without port or final dot."""
    found = _HOST.match(url.strip())
    return found.group(1).rstrip(".").lower() if found else ""


def ascii_host(host: str) -> str:
    """The host as it is written in ASCII; one that cannot be is left as it is."""
    try:
        return host.encode("idna").decode()
    except UnicodeError:
        return host


def account_id(text: str, registrable: Callable[[str], str | None]) -> str:
    """A host name means its registrable domain, any other text is a CRM id as it is."""
    is_host = "." in text and host_of(text) == text.lower().rstrip(".") and " " not in text
    return (registrable(text) if is_host else None) or text


def email_domain(email: str, registrable: Callable[[str], str | None]) -> str | None:
    """The registrable domain of an e-mail's host; None when it has none."""
    return registrable(email.rpartition("@")[2])
