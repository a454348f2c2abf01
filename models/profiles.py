"""Who an account is: its name, parent, whether it is quiet, and the attributes that totals are filtered by.

An account's own facts say it, the latest of each field and of each attribute; what an
account does not say of itself, the accounts merged into it may.
"""

from collections.abc import Iterable, Iterator

import msgspec
from msgspec import UNSET

from models.facts import AccountChange, AttributeValue
from models.identity import as_text

SIZE_BANDS = (10, 50, 200, 1000, 5000)
"""The most employees of each band of the attribute `size`; beyond is the band `more`."""
_ATTRIBUTE = "attributes."


class Stated(msgspec.Struct, frozen=True, array_like=True):
    """What an account's own facts say: field → when, by which message, and what.

    Fields that are cleared are left out; an attribute's field is `attributes.<name>`.
    `is_claimed` says that the account is a domain which another account claims.
    """

    account: str
    is_claimed: bool
    said: dict[str, tuple[int, str, AttributeValue]]


class Profile(msgspec.Struct, frozen=True):
    """What an account is now. `merged_from` are all accounts that count for it, `domains` those of them it claims."""

    name: str | None = None
    parent: str | None = None
    quiet: bool = False
    attributes: dict[str, AttributeValue] = {}
    domains: tuple[str, ...] = ()
    customers: tuple[str, ...] = ()
    merged_from: tuple[str, ...] = ()

    @property
    def owner(self) -> str | None:
        """Who works the account."""
        owner = self.attributes.get("owner")
        return None if owner is None else as_text(owner)


NOBODY = Profile()
"""The profile of an account of which no fact says anything."""


def stated(account: str, facts: Iterable[AccountChange], is_claimed: bool) -> Stated:
    """What these facts of an account say together."""
    said: dict[str, tuple[int, str, AttributeValue]] = {}
    for fact in sorted(facts, key=lambda fact: (fact.at, fact.id)):
        if fact.attributes is None:
            said = {field: word for field, word in said.items() if not field.startswith(_ATTRIBUTE)}
        for field, value in _fields(fact):
            said.pop(field, None)
            if value is not None:
                said[field] = fact.at, fact.id, value
    return Stated(account, is_claimed, dict(sorted(said.items())))


def _fields(fact: AccountChange) -> Iterator[tuple[str, AttributeValue | None]]:
    for field in ("name", "parent", "quiet"):
        value = getattr(fact, field)
        if value is not UNSET:
            yield field, value
    if isinstance(fact.attributes, dict):
        yield from ((_ATTRIBUTE + name, value) for name, value in fact.attributes.items())


def said_by(at: int, words: Stated) -> Stated:
    """What an account still says, as far as that was said up to an instant."""
    return Stated(words.account, words.is_claimed, {field: word for field, word in words.said.items() if word[0] <= at})


def profile_of(own: Stated, merged: Iterable[Stated], customers: Iterable[str]) -> Profile:
    """The profile of an account: its own word first, then the latest of those merged into it."""
    others = sorted(merged, key=lambda each: each.account)
    words = sorted(
        (at, message, other.account, field, value)
        for other in others
        for field, (at, message, value) in other.said.items()
    )
    values = {field: value for _, _, _, field, value in words}
    values.update({field: value for field, (_, _, value) in own.said.items()})
    attributes = {field: value for field, value in sorted(values.items()) if field.startswith(_ATTRIBUTE)}
    return Profile(
        name=_text(values.get("name")),
        parent=_text(values.get("parent")),
        quiet=values.get("quiet") is True,
        attributes={field.removeprefix(_ATTRIBUTE): value for field, value in attributes.items()},
        domains=tuple(each.account for each in others if each.is_claimed),
        customers=tuple(sorted(customers)),
        merged_from=tuple(each.account for each in others),
    )


def _text(value: AttributeValue | None) -> str | None:
    return None if value is None else as_text(value)


def compared(name: str, value: AttributeValue) -> str:
    """An attribute's value as it is compared: trimmed, without case, a `size` as its band.

    >>> compared("industry", " Software "), compared("size", 37), compared("size", "11–50"), compared("vip", True)
    ('software', '11-50', '11-50', 'true')
    """
    text = as_text(value).strip().lower()
    return _band(text) if name == "size" else text


def _band(text: str) -> str:
    dashed = text.replace("\u2013", "-").replace(" ", "")
    if not dashed.isdecimal():
        return dashed
    least = 1
    for most in SIZE_BANDS:
        if int(dashed) <= most:
            return f"{least}-{most}"
        least = most + 1
    return "more"
