"""What should the books say: everything at once, plainly, from all facts.

The yardstick of the incremental path (visitors, members, accounts): it shares with it
the reading of facts and the pure functions about sessions, links, deals and credits,
and nothing of how state is kept, moved and restated.

    facts ▶ who is whose ▶ touches ▶ journeys ▶ conversions and their credits ▶ books
"""

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import msgspec

from models.alerting import weight_of
from models.bots import is_storm, said_of
from models.companies import Claim, claims_of, latest
from models.conversions import (
    Cells,
    Credit,
    add_cells,
    add_cells_of,
    credits_of,
    eligible,
    last_converted,
    milestones_of,
    path_of_credits,
    sums_of,
    without_zeros,
)
from models.counts import SHARED, Count, Counts, Numbers, add_counts, table_of, without_zero_counts
from models.course import History
from models.deals import Conversion, Deal, booked_as, conversions_of, fold, takes_part, waiting_of, won_at
from models.decoding import decode
from models.errors import BadInput
from models.facts import (
    ACCOUNT_CHANGES,
    BILLING,
    CONTACT_CHANGES,
    DEAL_CHANGES,
    FORM_FILLS,
    IDENTITIES,
    PAGE_VIEWS,
    PRODUCT_USAGE,
    TOUCHES,
    AccountChange,
    ContactChange,
    DealChange,
    Fact,
    FormFill,
    Identification,
    ProductUsage,
    Refund,
    TouchFact,
    Unlink,
    Verdict,
    key_of,
)
from models.facts import Hit as PageView
from models.filters import (
    NO_LABELS,
    Labels,
    Where,
    attribute_counts,
    cells_under,
    counts_under,
    kept_labels,
    labels_of,
    matches,
)
from models.funnel import account_counts
from models.groups import roots_of
from models.hits import Hit
from models.identity import Link, Root, account_id
from models.leads import Contact, account_of, contact_of, lead_moment, role_in, role_of
from models.members import deal_parent, first_contacts
from models.paths import NULL, null_path_begins, path_counts
from models.pipeline import PIPELINE, Surroundings, deal_counts, first_channel, lead_counts
from models.profiles import NOBODY, Profile, profile_of, stated
from models.reports import pack
from models.rules import Rules
from models.sessions import DIRECT, Arrive, arrivals, arrived, current_source, cut, opens_session, web_touches
from models.times import day_of
from models.touches import FORM_FILL, Touch, merged_with_form, recorded_touch, site_touch, standing_version
from models.usage import USES, milestone_kind, milestone_touch
from models.visits import Arrived
from models.warmth import Touched, history_of

_NO_LIMIT = 2**62


class RawFact(NamedTuple):
    """A fact as it lies in Kafka; `recorded_at` in microseconds."""

    topic: str
    value: bytes | None
    recorded_at: int


class Known(NamedTuple):
    """A person: known since when, of which account, with the credits of the `lead`."""

    at: int
    account: str
    credits: list[Credit]


@dataclass
class Books:
    """All totals, and what they were made of.

    `counts` are all other additive numbers; `waiting` the reason by conversion; `deals`
    credits by deal and conversion (`won:<deal>`); `leads` everybody known, by person;
    `journeys` (person, touch) by account, oldest first; `companies` who each account is and
    its children, where anybody says so; `listed` the accounts of each label. `conflicts` are (topic, id) of
    facts that lost to another with their id.
    """

    cells: Cells = field(default_factory=dict)
    counts: Counts = field(default_factory=dict)
    waiting: dict[str, str] = field(default_factory=dict)
    deals: dict[str, dict[str, list[Credit]]] = field(default_factory=dict)
    leads: dict[str, Known] = field(default_factory=dict)
    journeys: dict[str, list[tuple[str, Touch]]] = field(default_factory=dict)
    companies: dict[str, tuple[Profile, tuple[str, ...]]] = field(default_factory=dict)
    warmth: dict[str, History] = field(default_factory=dict)
    listed: set[tuple[str, str]] = field(default_factory=set)
    refusals: list[tuple[RawFact, BadInput]] = field(default_factory=list)
    conflicts: set[tuple[str, str]] = field(default_factory=set)

    @property
    def pipeline(self) -> dict[str, list[int]]:
        """Count and amount of the open deals by stage."""
        return {stage: list(numbers) for stage, numbers in table_of(self.counts, PIPELINE).items()}


def recompute(
    facts: Iterable[tuple[str, bytes | None, int]], rules: Rules, before: int = _NO_LIMIT, where: Where = ()
) -> Books:
    """The books of all facts (as RawFact) stamped `before` that instant.

    Their order does not matter, nor how often each came. Cells and counts are those of the
    accounts that fulfil every condition.
    """
    books = Books()
    kept = _Facts(rules)
    for raw in facts:
        _take(kept, RawFact(*raw), books, before)
    _leave_out_bots(kept)
    people = _People(kept, rules)
    accounts = _accounts_of(kept, people, rules)
    books.companies = _companies(kept, accounts, rules)
    books.journeys = _journeys(_touches(kept, people, rules), people, accounts)
    books.warmth = _warmth(books.journeys, rules)
    filing = _Filing(books, rules, where)
    _book_leads(books, filing, people, accounts, rules)
    _book_deals(books, filing, kept, people, accounts, rules)
    _book_uses(filing, kept, people, accounts, rules)
    filing.end()
    _book_visitors(books, kept, people, rules)
    add_counts(books.counts, _shared(people, rules))
    books.cells = without_zeros(books.cells)
    books.counts = without_zero_counts(books.counts)
    return books


# --- facts that stand -------------------------------------------------------------------


class _Facts:
    """Every fact that stands: by topic, whom it is about, and id."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self.arrive: Arrive = arrivals(rules)
        self._by_topic: dict[str, dict[str, dict[Any, Any]]] = defaultdict(lambda: defaultdict(dict))

    def of(self, topic: str) -> Mapping[str, dict[Any, Any]]:
        """The topic's facts by key and id."""
        return self._by_topic[topic]

    def add(self, topic: str, key: str, fact_id: Any, fact: Any) -> bool:
        """Keep the smaller, by time and then bytes, of two facts with one id; False when they differ."""
        same_key = self._by_topic[topic][key]
        known = same_key.setdefault(fact_id, fact)
        if known == fact:
            return True
        same_key[fact_id] = min(known, fact, key=_rank)
        return False


def _take(kept: _Facts, raw: RawFact, books: Books, before: int) -> None:
    try:
        fact = decode(raw.topic, raw.value, raw.recorded_at, kept.rules.settings, kept.rules.is_bot)
    except BadInput as error:
        books.refusals.append((raw, error))
        return
    if _stamped(fact) >= before:
        return
    if not kept.add(raw.topic, key_of(raw.topic, fact), _id_of(fact), _as_kept(fact, kept)):
        books.conflicts.add((raw.topic, str(_id_of(fact))))


def _id_of(fact: Fact) -> Any:
    """What a fact counts once by; of a recorded touch that is each version."""
    match fact:
        case FormFill():
            return fact.identification.id
        case TouchFact():
            return fact.updated_at
        case _:
            return fact.id


def _as_kept(fact: Fact, kept: _Facts) -> Any:
    match fact:
        case PageView():
            origin, path = kept.arrive(fact.url, fact.referrer, fact.utm)
            return Hit(fact.at, fact.id, origin, path, fact.person, fact.is_listed)
        case ContactChange():
            return contact_of(fact)
        case _:
            return fact


def _stamped(fact: Any) -> int:
    """The fact's own time."""
    at: int = fact.identification.at if isinstance(fact, FormFill) else fact.at
    return at


def _rank(fact: Any) -> tuple[int, bytes]:
    """Time, then bytes: as sent where they are kept, else as packed."""
    return _stamped(fact), getattr(fact, "raw", None) or pack(fact)


# --- bots -------------------------------------------------------------------------------

_OF_VISITORS = (PAGE_VIEWS, FORM_FILLS, IDENTITIES)


def _leave_out_bots(kept: _Facts) -> None:
    """A bot's hits, form fills and identifications are as if never sent."""
    said = [fact for facts in kept.of(IDENTITIES).values() for fact in facts.values() if isinstance(fact, Verdict)]
    for visitor in {name for topic in _OF_VISITORS for name in kept.of(topic)}:
        verdicts = [verdict for verdict in said if verdict.key in ("", visitor)]
        storms = is_storm(sorted(hit.at for hit in kept.of(PAGE_VIEWS)[visitor].values()))
        for topic in _OF_VISITORS:
            facts = kept.of(topic)[visitor]
            for fact_id in [fact_id for fact_id, fact in facts.items() if _is_bots(fact, verdicts, storms)]:
                del facts[fact_id]


def _is_bots(fact: Any, verdicts: Sequence[Verdict], storms: bool) -> bool:
    message = fact.identification if isinstance(fact, FormFill) else fact
    if isinstance(message, Unlink | Verdict):
        return False
    said = said_of(verdicts, message.at, message.id)
    return message.is_listed or storms if said is None else said


# --- visitors ---------------------------------------------------------------------------


class _Mark(NamedTuple):
    """A visitor was identified as `person`."""

    at: int
    id: str
    person: str


class _Visitor(NamedTuple):
    """A visitor's hits by session, its form fills, and whom it was identified as; all oldest first.

    `crowd` is how many people that are, where it is too many for one visitor.
    """

    name: str
    sessions: list[list[Hit]]
    fills: list[FormFill]
    withdrawn: set[str]
    marks: list[_Mark]
    crowd: int

    def owner_at(self, at: int) -> str | None:
        """Whose a visit starting then is: the last identified by then, else the first ever."""
        if not self.marks:
            return None
        number = bisect_right(self.marks, at, key=lambda mark: mark.at)
        return self.marks[max(number - 1, 0)].person


class _People:
    """Who is whose: every visitor's identifications, every id's person, since when each is known."""

    def __init__(self, kept: _Facts, rules: Rules) -> None:
        self.visitors: list[_Visitor] = []
        self.known: dict[str, int] = {}
        self.links: list[Link] = []
        self.groups: dict[str, list[tuple[int, str, str]]] = defaultdict(list)
        withdrawn = {name: _withdrawn(kept, name) for name in kept.of(IDENTITIES)}
        marks = self._marks(kept, withdrawn)
        self._know_others(kept)
        self.roots = roots_of(self.links, rules.settings.identity.emails_per_user_id)
        for name in {**kept.of(PAGE_VIEWS), **kept.of(FORM_FILLS), **marks}:
            self._add_visitor(name, kept, withdrawn.get(name, set()), sorted(marks[name]))

    def root(self, name: str) -> str:
        """The person an id belongs to."""
        root = self.roots.get(name)
        return name if root is None else root.id

    def _marks(self, kept: _Facts, withdrawn: Mapping[str, set[str]]) -> dict[str, list[_Mark]]:
        """Every identification that stands, by visitor; links and names are noted on the way."""
        marks: dict[str, list[_Mark]] = defaultdict(list)
        for visitor, message in _messages(kept):
            for name in message.names:
                self._know(name, message.at)
            if message.id not in withdrawn.get(visitor, ()):
                self._link(message)
                if message.person:
                    for identified in {visitor, message.other_visitor or visitor}:
                        marks[identified].append(_Mark(message.at, message.id, message.person))
        for visitor, hits in kept.of(PAGE_VIEWS).items():
            for hit in hits.values():
                if hit.person:
                    self._know(hit.person, hit.at)
                    if hit.id not in withdrawn.get(visitor, ()):
                        marks[visitor].append(_Mark(hit.at, hit.id, hit.person))
        return marks

    def _link(self, message: Identification) -> None:
        self.links += (Link(message.at, message.id, source, target) for source, target in message.links)
        if message.group:
            person, group = message.group
            self.groups[person].append((message.at, message.id, group))

    def _know_others(self, kept: _Facts) -> None:
        """People whom other systems name: touches that stand, contacts, contacts of deals."""
        for versions in kept.of(TOUCHES).values():
            fact = standing_version(list(versions.values()))
            if fact.person and not fact.deleted:
                self._know(fact.person, fact.at)
        for person, contacts in kept.of(CONTACT_CHANGES).items():
            self._know(person, min(contact.at for contact in contacts.values()))
        for person, uses in kept.of(PRODUCT_USAGE).items():
            for use in uses.values():
                if milestone_kind(use.event, kept.rules.settings):
                    self._know(person, use.at)
        for changes in kept.of(DEAL_CHANGES).values():
            for person, at in first_contacts(changes.values()).items():
                self._know(person, at)

    def _know(self, name: str, at: int) -> None:
        self.known[name] = min(at, self.known.get(name, at))

    def _add_visitor(self, name: str, kept: _Facts, withdrawn: set[str], marks: list[_Mark]) -> None:
        sessions = cut(sorted(kept.of(PAGE_VIEWS).get(name, {}).values()), kept.rules)
        fills = list(kept.of(FORM_FILLS).get(name, {}).values())
        people = {self.root(mark.person) for mark in marks}
        crowd = len(people) if len(people) > kept.rules.settings.identity.persons_per_visitor else 0
        self.visitors.append(_Visitor(name, sessions, fills, withdrawn, [] if crowd else marks, crowd))


def _withdrawn(kept: _Facts, visitor: str) -> set[str]:
    return {fact.unlinks for fact in kept.of(IDENTITIES)[visitor].values() if isinstance(fact, Unlink)}


def _messages(kept: _Facts) -> Iterator[tuple[str, Identification]]:
    for visitor, facts in kept.of(IDENTITIES).items():
        yield from ((visitor, fact) for fact in facts.values() if isinstance(fact, Identification))
    for visitor, facts in kept.of(FORM_FILLS).items():
        yield from ((visitor, fact.identification) for fact in facts.values())


# --- touches ----------------------------------------------------------------------------

Owned = tuple[str, Touch]
"""A person id and a touch of theirs."""


def _touches(kept: _Facts, people: _People, rules: Rules) -> Iterator[Owned]:
    """Every touch that is somebody's."""
    for visitor in people.visitors:
        if visitor.marks:
            yield from _web_touches(visitor, rules)
    yield from _other_touches(kept, people, rules)
    yield from _milestones(kept, people, rules)


def _web_touches(visitor: _Visitor, rules: Rules) -> Iterator[Owned]:
    known = _known_in(visitor, rules)
    for number, session in enumerate(visitor.sessions):
        owner = visitor.owner_at(session[0].at)
        touches = web_touches(session, visitor.name, rules)
        if owner and touches:
            yield from ((owner, touch) for touch in _with_known(touches, known[number]))


def _known_in(visitor: _Visitor, rules: Rules) -> dict[int, list[int]]:
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


def _other_touches(kept: _Facts, people: _People, rules: Rules) -> Iterator[Owned]:
    """Form fills and recorded touches; those that are the same touch are one."""
    for forms, fact in _same_touches(kept, people, rules):
        yield from _standing(forms, fact, rules)


def _same_touches(kept: _Facts, people: _People, rules: Rules) -> Iterator[tuple[list[_Form], TouchFact | None]]:
    """The form fills (oldest first) and the recorded touch that are the same."""
    forms, homes = _forms(kept, people, rules)
    facts: dict[str, list[TouchFact]] = defaultdict(list)
    for touch_id, versions in kept.of(TOUCHES).items():
        facts[homes.get(touch_id, touch_id)] += versions.values()
    for home in {**forms, **facts}:
        fact = standing_version(facts[home]) if home in facts else None
        same = sorted(forms.get(home, []), key=lambda form: form.touch.order)
        yield same, None if fact and fact.deleted else fact


def _forms(kept: _Facts, people: _People, rules: Rules) -> tuple[dict[str, list[_Form]], dict[str, str]]:
    """Form fills by external id (else their own), and the external id of each own one that has one."""
    forms: dict[str, list[_Form]] = defaultdict(list)
    homes: dict[str, str] = {}
    for visitor in people.visitors:
        for fill in visitor.fills:
            named = fill.identification
            person = None if named.id in visitor.withdrawn else named.person
            home = fill.external_id or named.id
            touch = _form_touch(fill, visitor, kept.arrive, rules)
            forms[home].append(_Form(home, person or visitor.owner_at(named.at), touch))
            if home != named.id:
                homes[named.id] = min(home, homes.get(named.id, home))
    return forms, homes


def _form_touch(fill: FormFill, visitor: _Visitor, arrive: Arrive, rules: Rules) -> Touch:
    """The form fill under the source current on the site, else under its own."""
    named = fill.identification
    make = partial(site_touch, named.at, named.id, FORM_FILL, visitor=visitor.name, rules=rules)
    order = (named.at, named.id)
    before = [session for session in visitor.sessions if session[0].order <= order]
    if before and named.at - max(hit for hit in before[-1] if hit.order <= order).at < rules.gap:
        source = current_source(before[-1], order)
        return make(source.origin, source.hit.path)
    arrival = arrive(fill.url, fill.referrer, fill.utm)
    return make(arrival.origin or DIRECT, arrival.path)


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


def _uses(kept: _Facts) -> Iterator[ProductUsage]:
    return (use for uses in kept.of(PRODUCT_USAGE).values() for use in uses.values())


def _milestones(kept: _Facts, people: _People, rules: Rules) -> Iterator[Owned]:
    """The first of each person × listed event as a touch."""
    first: dict[tuple[str, str], tuple[int, str]] = {}
    for use in _uses(kept):
        place = people.root(use.person), use.event
        first[place] = min((use.at, use.id), first.get(place, (use.at, use.id)))
    for (person, event), (at, use_id) in first.items():
        if milestone_kind(event, rules.settings):
            yield person, milestone_touch(event, at, use_id, rules)


def _book_uses(filing: "_Filing", kept: _Facts, people: _People, accounts: "_Accounts", rules: Rules) -> None:
    for use in _uses(kept):
        person = people.root(use.person)
        account = accounts.before_mergers.get(person) or account_of(person, [person] * ("@" in person), (), (), rules)
        if account == person and use.account is not None:
            account = account_id(use.account, rules.registrable)
        field = f"{day_of(use.at, rules.settings.time_zone)}\0{use.event}"
        _, counts = filing.of(accounts.root(account))
        add_counts(counts, [(Count(USES, field), (use.count,))])


# --- accounts ---------------------------------------------------------------------------


class _Accounts(NamedTuple):
    """The present account of each person, and the account that each id counts for."""

    of_person: dict[str, str]
    before_mergers: dict[str, str]
    roots: dict[str, Root]
    lead_moments: dict[str, int]
    people_roles: dict[str, str | None]
    ids: dict[str, list[str]]
    contacts: set[str]

    def root(self, name: str) -> str:
        """The account that this one was merged into or claimed by, in the end."""
        root = self.roots.get(name)
        return name if root is None else root.id


def _accounts_of(kept: _Facts, people: _People, rules: Rules) -> _Accounts:
    changes_of = kept.of(ACCOUNT_CHANGES)
    links = [link for name, changes in changes_of.items() for link in _account_links(name, changes, rules)]
    ids: dict[str, list[str]] = defaultdict(list)
    accounts = _Accounts({}, {}, roots_of(links, _NO_LIMIT), {}, {}, ids, set())
    for name in people.known:
        ids[people.root(name)].append(name)
    for person, names in ids.items():
        contacts: list[Contact] = [each for name in names for each in kept.of(CONTACT_CHANGES).get(name, {}).values()]
        groups = [call for name in names for call in people.groups.get(name, ())]
        account = account_of(person, _emails(person, names, people), contacts, groups, rules)
        accounts.before_mergers[person] = account
        accounts.of_person[person] = accounts.root(account)
        if contacts:
            accounts.contacts.add(person)
        accounts.people_roles[person] = role_of(contacts)
        accounts.lead_moments[person] = lead_moment(min(people.known[name] for name in names), contacts)
    return accounts


def _emails(person: str, names: Iterable[str], people: _People) -> list[str]:
    """The person's own e-mail, then those linked to them, the one linked last first."""
    linked = [(people.roots[name].linked_at, name) for name in names if "@" in name and name != person]
    return [person] * ("@" in person) + [name for _, name in sorted(linked, reverse=True)]


def _account_links(name: str, changes: Mapping[str, AccountChange], rules: Rules) -> Iterator[Link]:
    """A merger of the account, and the domains it claims, as they now stand."""
    merged = latest(changes.values(), "merged_into")
    if merged and merged.merged_into != name:
        yield Link(merged.at, merged.id, name, str(merged.merged_into))
    for claim in claims_of(name, changes.values(), rules):
        kind, _, domain = claim.entity.partition(":")
        if kind == "account":
            yield Link(claim.at, claim.id, domain, name)


def _companies(kept: _Facts, accounts: _Accounts, rules: Rules) -> dict[str, tuple[Profile, tuple[str, ...]]]:
    """Who each account is, those merged into it included, and whose parent company it is."""
    changes = kept.of(ACCOUNT_CHANGES)
    claims = [claim for name in changes for claim in claims_of(name, changes[name].values(), rules)]
    domains = {each.entity.removeprefix("account:") for each in claims if each.entity.startswith("account:")}
    own = {name: stated(name, changes.get(name, {}).values(), name in domains) for name in {*changes, *domains}}
    merged: dict[str, list[str]] = defaultdict(list)
    for name in own:
        if accounts.root(name) != name:
            merged[accounts.root(name)].append(name)
    customers = _customers(claims, accounts)
    profiles: dict[str, Profile] = {}
    for name in {*own, *merged, *customers} - {name for names in merged.values() for name in names}:
        said = own.get(name) or stated(name, (), False)
        profiles[name] = profile_of(said, (own[each] for each in merged[name]), customers.get(name, ()))
    return _with_children(profiles, accounts)


def _customers(claims: Iterable[Claim], accounts: _Accounts) -> dict[str, list[str]]:
    """The customers of each account: each is whose claim is the latest."""
    latest_claims = {each.entity: each for each in sorted(claims, key=lambda each: (each.at, each.id, each.account))}
    customers: dict[str, list[str]] = defaultdict(list)
    for entity, claim in latest_claims.items():
        if entity.startswith("customer:"):
            customers[accounts.root(claim.account)].append(entity.removeprefix("customer:"))
    return customers


def _with_children(profiles: Mapping[str, Profile], accounts: _Accounts) -> dict[str, tuple[Profile, tuple[str, ...]]]:
    children: dict[str, list[str]] = defaultdict(list)
    for name, profile in profiles.items():
        parent = profile.parent and accounts.root(profile.parent)
        if parent and parent != name:
            children[parent].append(name)
    everyone = {*profiles, *children}
    companies = {name: (profiles.get(name, NOBODY), tuple(sorted(children[name]))) for name in everyone}
    return {name: company for name, company in companies.items() if company != (NOBODY, ())}


def _journeys(touches: Iterable[Owned], people: _People, accounts: _Accounts) -> dict[str, list[Owned]]:
    journeys: dict[str, list[Owned]] = defaultdict(list)
    for name, touch in touches:
        person = people.root(name)
        journeys[accounts.of_person[person]].append((person, touch))
    for journey in journeys.values():
        journey.sort(key=lambda owned: owned[1].order)
    return dict(journeys)


def _warmth(journeys: Mapping[str, Sequence[Owned]], rules: Rules) -> dict[str, History]:
    """When each account warmed and cooled; only of those that ever did."""
    scale = rules.scale
    histories = {
        name: history_of((Touched(touch.at, person, weight_of(touch, scale)) for person, touch in journey), scale)
        for name, journey in journeys.items()
    }
    return {name: history for name, history in histories.items() if history}


# --- conversions ------------------------------------------------------------------------


class _Filing:
    """Adds what is booked of an account to the books, itself and under the account's labels."""

    def __init__(self, books: Books, rules: Rules, where: Where) -> None:
        self._books = books
        self._where = where
        self._labels = {name: labels_of(profile) for name, (profile, _) in books.companies.items()}
        self._kept = {name: kept_labels(labels, rules.settings.filters) for name, labels in self._labels.items()}
        self._own: dict[str, tuple[Cells, Counts]] = defaultdict(lambda: ({}, {}))

    def of(self, account: str) -> tuple[Cells, Counts]:
        """Where to add what is booked of an account; nowhere when it was not asked for."""
        if self._where and not matches(self._where, self.labels(account)):
            return {}, {}
        return self._own[account] if self._kept.get(account) else (self._books.cells, self._books.counts)

    def labels(self, account: str) -> Labels:
        """The labels that the account carries."""
        return self._labels.get(account, NO_LABELS)

    def end(self) -> None:
        """Put everything where it belongs."""
        for account, (cells, counts) in self._own.items():
            for label in ("", *self._kept[account]):
                add_cells_of(self._books.cells, cells_under(label, cells))
                add_counts(self._books.counts, counts_under(label, counts).items())
        for account, labels in self._labels.items():
            add_counts(self._books.counts, attribute_counts(labels))
            self._books.listed |= {(label, account) for label in labels}


def _book_leads(books: Books, filing: _Filing, people: _People, accounts: _Accounts, rules: Rules) -> None:
    own: dict[str, list[Touch]] = defaultdict(list)
    for journey in books.journeys.values():
        for person, touch in journey:
            own[person].append(touch)
    for person, at in accounts.lead_moments.items():
        conversion = Conversion("lead", person, at, 0)
        touches = eligible(own[person], "lead", at, rules)
        milestones = milestones_of("lead", at, at, None, None)
        roles = [accounts.people_roles[person]] * len(touches)
        credits = credits_of(conversion, at, touches, milestones, rules, roles)
        cells, counts = filing.of(accounts.of_person[person])
        add_cells(cells, conversion, sums_of(conversion, credits), 1, rules)
        add_counts(counts, path_of_credits(conversion, credits, rules))
        add_counts(counts, lead_counts(at, rules))
        books.leads[person] = Known(at, accounts.of_person[person], credits)


def _book_deals(
    books: Books, filing: _Filing, facts: _Facts, people: _People, accounts: _Accounts, rules: Rules
) -> None:
    first_lead: dict[str, int] = {}
    deals: dict[str, list[Deal]] = defaultdict(list)
    for known in books.leads.values():
        first_lead[known.account] = min(known.at, first_lead.get(known.account, known.at))
    conversions: dict[str, list[Conversion]] = defaultdict(list)
    for name in {**facts.of(DEAL_CHANGES), **facts.of(BILLING)}:
        changes: Iterable[DealChange] = facts.of(DEAL_CHANGES).get(name, {}).values()
        refunds: Iterable[Refund] = facts.of(BILLING).get(name, {}).values()
        deal = fold(name, changes, refunds, rules.settings.currency)
        account = _account_of_deal(deal, people, accounts, rules)
        deals[account].append(deal)
        journey = books.journeys.get(account, ())
        touches = _journey_of(deal, journey, accounts, rules)
        channel = first_channel(deal, touches, rules)
        around = Surroundings(first_lead.get(account), channel, filing.labels(account))
        roles = _roles(deal, journey, accounts) if rules.weighs_roles else {}
        _book_deal(books, filing.of(account), deal, touches, around, roles, rules)
        conversions[account] += conversions_of(deal, rules)
    people_of = Counter(known.account for known in books.leads.values())
    for account in {**people_of, **deals}:
        add_counts(filing.of(account)[1], account_counts(account, people_of[account], deals[account], rules))
    for account, journey in books.journeys.items():
        _book_null_paths(books, journey, last_converted(conversions[account]), rules)


def _roles(deal: Deal, journey: Iterable[Owned], accounts: _Accounts) -> dict[int, str | None]:
    """The role in the deal of each touch's person."""
    return {id(touch): role_in(deal, accounts.ids[person], accounts.people_roles[person]) for person, touch in journey}


def _book_null_paths(books: Books, journey: Sequence[Owned], last: Mapping[str, int], rules: Rules) -> None:
    """The account's touches after its last conversion of each kind, within the lookback of the latest."""
    latest = journey[-1][1].at
    for kind in rules.deal_conversions:
        begins = null_path_begins(last.get(kind), latest, rules.lookback[kind])
        channels = [touch.channel for _, touch in journey if touch.at >= begins]
        add_counts(books.counts, path_counts(kind, channels, NULL, rules.settings.markov_order))


def _book_visitors(books: Books, kept: _Facts, people: _People, rules: Rules) -> None:
    """The null paths to a lead of visitors that belong to nobody."""
    touches: dict[str, list[Arrived]] = defaultdict(list)
    for visitor in people.visitors:
        if not visitor.marks:
            touches[visitor.name] += (each for session in visitor.sessions for each in arrived(session, rules))
    for forms, fact in _same_touches(kept, people, rules):
        for number, (_, owner, touch) in enumerate(forms):
            if not (owner or (number == 0 and fact and fact.person)):
                touches[touch.visitor or ""].append(Arrived(touch.at, touch.id, touch.kind, touch.channel))
    for own in touches.values():
        own.sort()
        begins = null_path_begins(None, own[-1].at if own else None, rules.lookback["lead"])
        channels = [each.channel for each in own if each.at >= begins]
        add_counts(books.counts, path_counts("lead", channels, NULL, rules.settings.markov_order))


def _shared(people: _People, rules: Rules) -> Iterator[tuple[Count, Numbers]]:
    """Visitors of too many people, user ids of too many e-mails."""
    for visitor in people.visitors:
        if visitor.crowd:
            yield Count(SHARED, f"visitor\0{visitor.name}"), (visitor.crowd,)
    emails: dict[str, set[str]] = defaultdict(set)
    for link in people.links:
        if "@" in link.target and "@" not in link.source:
            emails[link.source].add(link.target)
    for name, named in emails.items():
        if len(named) > rules.settings.identity.emails_per_user_id:
            yield Count(SHARED, f"user\0{name}"), (len(named),)


def _journey_of(deal: Deal, journey: Iterable[Owned], accounts: _Accounts, rules: Rules) -> list[Touch]:
    """The touches that can earn the deal's credit."""
    if not rules.settings.deal_contacts_only:
        return [touch for _, touch in journey]
    return [touch for person, touch in journey if takes_part(person in accounts.contacts, accounts.ids[person], deal)]


def _account_of_deal(deal: Deal, people: _People, accounts: _Accounts, rules: Rules) -> str:
    kind, _, name = deal_parent(deal.account, deal.contacts, deal.id, rules).partition(":")
    return accounts.of_person[people.root(name)] if kind == "person" else accounts.root(name)


def _book_deal(
    books: Books,
    own: tuple[Cells, Counts],
    deal: Deal,
    journey: Sequence[Touch],
    around: Surroundings,
    roles: Mapping[int, str | None],
    rules: Rules,
) -> None:
    cells, counts = own
    conversions = conversions_of(deal, rules)
    booked = books.deals[deal.id] = {}
    for conversion in conversions:
        if conversion.amount is not None:
            credits = _deal_credits(deal, conversion, journey, around.lead, roles, rules)
            add_counts(counts, path_of_credits(conversion, credits, rules))
            for kind in booked_as(conversion, deal, rules):
                add_cells(cells, kind, sums_of(kind, credits), 1, rules)
            booked[f"{conversion.kind}:{conversion.id}"] = credits
    books.waiting.update(waiting_of(deal, conversions, rules))
    add_counts(counts, deal_counts(deal, conversions, around, rules))


def _deal_credits(
    deal: Deal,
    conversion: Conversion,
    journey: Sequence[Touch],
    lead: int | None,
    roles: Mapping[int, str | None],
    rules: Rules,
) -> list[Credit]:
    """The conversion's credits; a refund's by the split of the win."""
    kind, at, won = conversion.kind, conversion.at, won_at(deal, rules)
    if kind == "refund" and won is not None:
        kind, at = "won", won
    milestones = milestones_of(kind, at, lead, deal.created_at, won)
    touches = eligible(journey, kind, at, rules)
    known = [roles[id(touch)] for touch in touches] if roles else ()
    return credits_of(conversion, at, touches, milestones, rules, known)
