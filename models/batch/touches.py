"""What are the touches, and whose?"""

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import msgspec

from models.batch.people import People, Visitor
from models.batch.standing import Facts
from models.channels import Origin
from models.facts import PRODUCT_USAGE, TOUCHES, FormFill, ProductUsage, TouchFact
from models.hits import Hit
from models.rules import Rules
from models.sessions import DIRECT, current_source, opens_session, web_touches
from models.touches import FORM_FILL, Landing, Touch, merged_with_form, recorded_touch, site_touch, standing_version
from models.usage import milestone_kind, milestone_touch

Owned = tuple[str, Touch]
"""A person id and a touch of theirs."""


def touches_of(kept: Facts, people: People, rules: Rules) -> Iterator[Owned]:
    """Every touch that is somebody's."""
    for visitor in people.visitors:
        if visitor.marks:
            yield from _web_touches(visitor, rules)
    yield from _other_touches(kept, people, rules)
    yield from _milestones(kept, people, rules)


def _web_touches(visitor: Visitor, rules: Rules) -> Iterator[Owned]:
    known = _known_in(visitor, rules)
    for number, session in enumerate(visitor.sessions):
        owner = visitor.owner_at(session[0].at)
        touches = web_touches(session, visitor.name, rules)
        if owner and touches:
            yield from ((owner, touch) for touch in _with_known(touches, known[number]))


def _known_in(visitor: Visitor, rules: Rules) -> dict[int, list[int]]:
    """By session, when each person was first identified in its visit."""
    first: dict[tuple[int | None, str], int] = {}
    for mark in visitor.marks:
        first.setdefault((_visit_at(visitor.sessions, mark.at, rules), mark.person), mark.at)
    known: dict[int, list[int]] = defaultdict(list)
    for (number, _), at in first.items():
        if number is not None:
            known[number].append(at)
    return known


def _visit_at(sessions: Sequence[Sequence[Hit]], at: int, rules: Rules) -> int | None:
    """The number of the session that a hit at `at` would join."""
    following = bisect_right(sessions, at, key=lambda session: session[0].at)
    if following:
        session = sessions[following - 1]
        last = max(hit.at for hit in session if hit.at <= at)
        if not opens_session(at, last, session[0].at, rules):
            return following - 1
    joins = following < len(sessions) and sessions[following][0].at - at < rules.gap
    return following if joins else None


def _with_known(touches: Sequence[Touch], moments: Iterable[int]) -> list[Touch]:
    """Each moment noted on the touch current then, on the first where none is yet."""
    known: dict[int, list[int]] = defaultdict(list)
    for at in sorted(set(moments)):
        known[max(bisect_right(touches, at, key=lambda touch: touch.at) - 1, 0)].append(at)
    return [
        msgspec.structs.replace(touch, known_at=tuple(known[number])) if number in known else touch
        for number, touch in enumerate(touches)
    ]


class _Form(NamedTuple):
    """A form fill as a touch, and the id under which another system may record it too."""

    home: str
    owner: str | None
    touch: Touch


def _other_touches(kept: Facts, people: People, rules: Rules) -> Iterator[Owned]:
    """Form fills and recorded touches; those that are the same touch are one."""
    for forms, fact in same_touches(kept, people, rules):
        yield from _standing(forms, fact, rules)


def same_touches(kept: Facts, people: People, rules: Rules) -> Iterator[tuple[list[_Form], TouchFact | None]]:
    """The form fills (oldest first) and the recorded touch that are the same."""
    forms, homes = _forms(kept, people, rules)
    facts: dict[str, list[TouchFact]] = defaultdict(list)
    for touch_id, versions in kept.of(TOUCHES).items():
        facts[homes.get(touch_id, touch_id)] += versions.values()
    for home in {**forms, **facts}:
        fact = standing_version(facts[home]) if home in facts else None
        same = sorted(forms.get(home, []), key=lambda form: form.touch.order)
        yield same, None if fact and fact.deleted else fact


def _forms(kept: Facts, people: People, rules: Rules) -> tuple[dict[str, list[_Form]], dict[str, str]]:
    """Form fills by external id (else their own), and the external id of each own one that has one."""
    forms: dict[str, list[_Form]] = defaultdict(list)
    homes: dict[str, str] = {}
    for visitor in people.visitors:
        for fill in visitor.fills:
            person = None if fill.id in visitor.withdrawn else fill.identification.person
            home = fill.external_id or fill.id
            touch = _form_touch(fill, visitor, rules)
            forms[home].append(_Form(home, person or visitor.owner_at(fill.at), touch))
            if home != fill.id:
                homes[fill.id] = min(home, homes.get(fill.id, home))
    return forms, homes


def _form_touch(fill: FormFill, visitor: Visitor, rules: Rules) -> Touch:
    origin, page = _source_of(fill, visitor, rules)
    return site_touch(Landing(fill.at, fill.id, FORM_FILL, origin, page), visitor.name, rules)


def _source_of(fill: FormFill, visitor: Visitor, rules: Rules) -> tuple[Origin, str]:
    """The source current on the site, else the form's own; and the page it led to."""
    order = (fill.at, fill.id)
    before = [session for session in visitor.sessions if session[0].order <= order]
    if before and fill.at - max(hit for hit in before[-1] if hit.order <= order).at < rules.gap:
        source = current_source(before[-1], order)
        return source.origin, source.hit.path
    arrival = rules.arrive(fill.url, fill.referrer, fill.utm)
    return arrival.origin or DIRECT, arrival.path


def _standing(forms: list[_Form], fact: TouchFact | None, rules: Rules) -> Iterator[Owned]:
    """The first form fill takes the recorded touch; without any it stands for itself."""
    for number, form in enumerate(forms):
        same = fact if number == 0 else None
        owner = form.owner or (same.person if same else None)
        if owner:
            yield owner, merged_with_form(form.touch, same) if same else form.touch
    if fact and fact.person and not forms:
        yield fact.person, recorded_touch(fact, rules)


# --- product usage ----------------------------------------------------------------------


def uses_of(kept: Facts) -> Iterator[ProductUsage]:
    """Every use of the product."""
    return (use for uses in kept.of(PRODUCT_USAGE).values() for use in uses.values())


def _milestones(kept: Facts, people: People, rules: Rules) -> Iterator[Owned]:
    """The first of each person × listed event as a touch."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for use in uses_of(kept):
        place = people.root(use.person), use.event
        first[place] = min((use.at, use.id), first.get(place, (use.at, use.id)))
    for (person, event), (at, use_id) in first.items():
        if milestone_kind(event, rules.settings):
            yield person, milestone_touch(event, at, use_id, rules)
