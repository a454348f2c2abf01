"""What a visitor tells people, touches and other visitors of itself, the touches of its sessions apart."""

from models.entity import Contents
from models.facts import FormFill, Identification
from models.identity import Link
from models.owners import Owners
from models.reports import FORM, GROUP, KNOWN, LINK, MARK, SAME_AS, WATCH, pack
from models.statements import FILL, IDENTIFICATION
from models.touches import FORM_FILL, Landing, site_touch

Claim = tuple[str, str, bytes]
"""Whom it is told, by what part, and what."""


def claims_of(visitor: str, owners: Owners) -> Contents:
    """What everybody should hold of the visitor by what is said of it."""
    contents: Contents = {}
    if not owners.name_anybody():
        return contents
    for to, name, value in _claims(visitor, owners):
        contents.setdefault(to, {})[name] = value
    return contents


def _claims(visitor: str, owners: Owners) -> list[Claim]:
    claims = [(f"person:{person}", f"{KNOWN}:", pack(at)) for person, at in _first_named(owners).items()]
    withdrawn = owners.statements.withdrawn()
    said = [(IDENTIFICATION, message) for message in owners.identifications()]
    said += [(FILL, fill.identification) for fill in owners.fills()]
    for kind, message in said:
        if message.id not in withdrawn:
            claims += _links(kind, message, visitor)
    for fill in owners.touching_fills():
        person = None if fill.id in withdrawn else fill.identification.person
        claims += _touches(fill, person, visitor, owners)
    return claims + _watches(visitor, owners)


def _first_named(owners: Owners) -> dict[str, int]:
    """Since when each person is known, by bare naming."""
    named = [(message.at, name) for message in owners.messages() for name in message.names]
    named += [(hit.at, person) for hit, person in owners.naming_hits()]
    first: dict[str, int] = {}
    for at, name in sorted(named):
        first.setdefault(name, at)
    return first


def _links(kind: str, message: Identification, visitor: str) -> list[Claim]:
    """What a message says of whom it names: merged ids, their group, another visitor who they are."""
    claims = []
    for source, target in message.links:
        link = Link(message.at, message.id, source, target)
        claims.append((f"person:{source}", f"{LINK}:{kind}{message.id}", pack(link)))
    if message.group:
        person, group = message.group
        claims.append((f"person:{person}", f"{GROUP}:{message.id}", pack((message.at, group))))
    if message.other_visitor and message.person and message.other_visitor != visitor:
        mark = pack((message.at, message.person))
        claims.append((f"visitor:{message.other_visitor}", f"{MARK}:{message.id}", mark))
    return claims


def _touches(fill: FormFill, person: str | None, visitor: str, owners: Owners) -> list[Claim]:
    """A form fill as a touch: of the person that it names, else of whose the visit was."""
    origin, page = owners.timeline.source_of(fill)
    touch = site_touch(Landing(fill.at, fill.id, FORM_FILL, origin, page), visitor, owners.rules.whole)
    claim = pack((person or owners.owner_at(fill.at), touch))
    claims = [(f"touch:{fill.external_id or fill.id}", f"{FORM}:{fill.id}", claim)]
    if fill.external_id and fill.external_id != fill.id:
        claims.append((f"touch:{fill.id}", f"{SAME_AS}:", pack(fill.external_id)))
    return claims


def _watches(visitor: str, owners: Owners) -> list[Claim]:
    """Ask whom people are merged into, where they may be too many for one visitor."""
    persons = owners.persons()
    if len(persons) <= owners.rules.persons_per_visitor:
        return []
    return [(f"person:{person}", f"{WATCH}:", pack(visitor)) for person in persons]
