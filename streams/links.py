"""`touchline link` and `unlink`: what an operator knows better, put as facts among the others.

    ids ▶ what is known of them (Redis) ▶ facts ▶ their topics

A link is never written into a table: it is an alias, a contact-change or an account-change
like any other, so that whatever is counted can be counted again from Kafka.
"""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast
from uuid import uuid4

import msgspec

from models.accounts import Account
from models.decoding import decode
from models.errors import BadInput, NotFound
from models.facts import (
    ACCOUNT_CHANGES,
    CONTACT_CHANGES,
    IDENTITIES,
    key_of,
)
from models.identity import Link, person_id
from models.leads import Contact
from models.people import Person
from models.reports import CONTACT, LINK, TOUCH, WATCH, Parts, tag_in, tag_of
from models.rules import Rules
from models.settings import Settings
from models.times import to_micros, to_text
from models.touches import Touch
from streams.entities import entity_at_rest, parts_at_rest
from streams.load import connected
from streams.reference import rules_from

SOURCE = "touchline"
"""The `source` of contact-changes that an operator makes."""

_link = msgspec.msgpack.Decoder(Link).decode
_contact = msgspec.msgpack.Decoder(Contact).decode
_visitor = msgspec.msgpack.Decoder(str).decode
_touch = msgspec.msgpack.Decoder(Touch).decode
Body = dict[str, Any]


class Said(NamedTuple):
    """A fact to be produced, and in words what it says."""

    topic: str
    body: Body
    words: str


# --- linking ----------------------------------------------------------------------------


async def link_person(redis: Any, settings: Settings, id: str, into: str) -> list[Said]:
    """The person id `id` is the person `into`; nothing when both are one already."""
    rules = rules_from(settings)
    one, other = await _known_person(redis, rules, id), await _known_person(redis, rules, into)
    if one.name == other.name:
        raise BadInput("into", "another id than the first", into)
    if one.root == other.root:
        return []
    body = {"type": "alias", **_new(), "previousId": one.name, "userId": other.name}
    return [Said(IDENTITIES, body, f"{one.name} is {other.name}")]


async def link_contact(redis: Any, settings: Settings, person: str, account: str) -> list[Said]:
    """The person belongs to the account."""
    known = await _known_person(redis, rules_from(settings), person)
    body = {**_new(), "person": known.name, "account": _needed(account, "account"), "source": SOURCE}
    return [Said(CONTACT_CHANGES, body, f"{known.name} belongs to the account {account.strip()}")]


async def link_account(redis: Any, settings: Settings, id: str, into: str) -> list[Said]:
    """The account `id` is merged into the account `into`; nothing when it is already."""
    rules = rules_from(settings)
    one = await _known_account(redis, rules, _needed(id, "id"))
    other = cast(Account, await entity_at_rest(redis, rules, f"account:{_needed(into, 'into')}"))
    if one.name == other.name:
        raise BadInput("into", "another account than the first", into)
    if one.root == other.root:
        return []
    body = {**_new(), "account": one.name, "mergedInto": other.name}
    return [Said(ACCOUNT_CHANGES, body, f"the account {one.name} is merged into {other.name}")]


# --- withdrawing ------------------------------------------------------------------------


async def unlink_person(redis: Any, settings: Settings, id: str, other: str | None) -> list[Said]:
    """Every message that links `id` and the person id `other` (None: `id` to any) is withdrawn, for good.

    Raises NotFound when none does, BadInput when it cannot be said whose message one was.
    """
    rules = rules_from(settings)
    known = [await _known_person(redis, rules, each) for each in (id, other) if each is not None]
    names = {each.name for each in known}
    links = [(tag_in(name), link) for each in known for name, link in _links(each.parts)]
    wanted = {link.id: (tag, link) for tag, link in links if other is None or {link.source, link.target} == names}
    if not wanted:
        raise NotFound(f"no message links {known[0].name} to {other or 'another id'}")
    targets = [f"person:{link.target}" for _, link in wanted.values()]
    parts = [each.parts for each in known] + list((await parts_at_rest(redis, settings, targets)).values())
    senders = _senders(parts)
    return [_unlinked(link, senders.get(tag)) for tag, link in wanted.values()]


def _unlinked(link: Link, sender: Body | None) -> Said:
    if sender is None:
        expected = f"`touchline unlink message {link.id}` with the ids of that message"
        raise BadInput(f"message {link.id}", expected, "a message of a visitor that is not known")
    words = f"{link.source} is not {link.target}: message {link.id} is withdrawn"
    return Said(IDENTITIES, {"type": "unlink", **_new(), "unlinks": link.id, **sender}, words)


def unlink_message(id: str, ids: Body) -> list[Said]:
    """The links of a message are withdrawn, for good; `ids` are those it carried."""
    carried = {name: value for name, value in ids.items() if value}
    if not carried:
        raise BadInput("ids", "an id that the message carried, such as --anonymous-id", "none")
    words = f"the links of message {id} are withdrawn"
    return [Said(IDENTITIES, {"type": "unlink", **_new(), "unlinks": _needed(id, "id"), **carried}, words)]


async def unlink_contact(redis: Any, settings: Settings, person: str, source: str | None) -> list[Said]:
    """The account that `source` (None: any) says the person belongs to is withdrawn. Raises NotFound."""
    known = await _known_person(redis, rules_from(settings), person)
    said: dict[str, Contact] = {}
    for contact in sorted(_contacts(known.parts), key=lambda each: (each.at, each.id)):
        if contact.says_account and source in (None, contact.source):
            said[contact.source] = contact
    standing = [contact for contact in said.values() if contact.account is not None]
    if not standing:
        raise NotFound(f"no contact-change{f' of {source}' if source else ''} names an account of {known.name}")
    return [
        Said(
            CONTACT_CHANGES,
            {**_new(), "person": known.name, "account": None, "source": contact.source},
            f"{known.name} does not belong to {contact.account}, as {contact.source} said",
        )
        for contact in standing
    ]


async def unlink_account(redis: Any, settings: Settings, id: str) -> list[Said]:
    """The account is not merged into another any more. Raises NotFound when it was not."""
    known = await _known_account(redis, rules_from(settings), _needed(id, "id"))
    into = known.company.merged_into
    if into is None:
        claimed = "; it counts for " + known.root + ", which claims it as a domain" if known.root != known.name else ""
        raise NotFound(f"the account {known.name} is not merged into another{claimed}")
    body = {**_new(), "account": known.name, "mergedInto": None}
    return [Said(ACCOUNT_CHANGES, body, f"the account {known.name} is not merged into {into}")]


# --- what is known ----------------------------------------------------------------------


async def _known_person(redis: Any, rules: Rules, text: str) -> Person:
    name = person_id(text, rules.settings)
    if name is None:
        raise BadInput("person", "an e-mail or user id that is nobody's placeholder", text)
    known = cast(Person, await entity_at_rest(redis, rules, f"person:{name}"))
    if not known.parts:
        raise NotFound(f"no person {name} is known")
    return known


async def _known_account(redis: Any, rules: Rules, name: str) -> Account:
    known = cast(Account, await entity_at_rest(redis, rules, f"account:{name}"))
    if not known.parts:
        raise NotFound(f"no account {name} is known")
    return known


def _links(parts: Parts) -> Iterator[tuple[str, Link]]:
    return ((name, _link(value)) for name, value in parts.items() if name[0] == LINK)


def _contacts(parts: Parts) -> Iterator[Contact]:
    return (_contact(value) for name, value in parts.items() if name[0] == CONTACT)


def _senders(people: Iterable[Parts]) -> dict[str, Body]:
    """By tag the ids that unlink a message of a visitor who may have linked these people's ids."""
    senders: dict[str, Body] = {}
    for parts in people:
        for visitor in _visitors(parts):
            senders[tag_of(f"visitor:{visitor}")] = {"anonymousId": visitor}
        for name in (name for _, link in _links(parts) for name in (link.source, link.target)):
            senders[tag_of(f"visitor:user:{name}")] = {"userId": name}
    return senders


def _visitors(parts: Parts) -> set[str]:
    touches = (_touch(value) for name, value in parts.items() if name[0] == TOUCH)
    watching = {_visitor(value) for name, value in parts.items() if name[0] == WATCH}
    return watching | {touch.visitor for touch in touches if touch.visitor}


def _needed(text: str, where: str) -> str:
    if not text.strip():
        raise BadInput(where, "an id", text)
    return text.strip()


def _new() -> Body:
    now = to_micros(datetime.now(UTC))
    return {"messageId": f"{SOURCE}-{uuid4().hex}", "timestamp": to_text(now)}


async def produce(settings: Settings, said: Iterable[Said]) -> None:
    """Put the facts into their topics and return once Kafka has them. Raises Unavailable."""
    now = to_micros(datetime.now(UTC))
    async with connected(settings) as sender:
        for topic, body, _ in said:
            value = msgspec.json.encode(body)
            await sender.send(topic, [(key_of(topic, decode(topic, value, now, settings)), value)])
        await sender.flush()
