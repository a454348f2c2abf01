"""Accounts: journeys and deals → credits, pipeline and what waits.

The step of the accounts lane. A batch of reports is not applied at once: the credits
that it may touch are taken back under the old state and booked anew under the new one,
so that totals are always those of the state. An account that was merged into another,
or whose domain another claimed, books nothing and hands everything on.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from models.alerting import Personal, Scene, weight_of
from models.companies import CHANGE, PASSED_ON, Company
from models.companies import KINDS as COMPANY_KINDS
from models.conversions import (
    Credit,
    Sums,
    add_cells,
    credits_of,
    eligible,
    last_converted,
    milestones_of,
    path_of_credits,
    sums_of,
)
from models.counts import Counted, Counting, Counts, add_counts
from models.course import BEGINNING, History
from models.deals import Conversion, Deal, booked_as, conversions_of, is_open, takes_part, waiting_of, won_at
from models.entity import Conflict, Contents, Outcome, put, reports
from models.facts import ACCOUNT_CHANGES, AccountChange, Fact
from models.filters import NO_LABELS, Labels, attribute_counts, kept_labels
from models.funnel import account_counts
from models.groups import Group
from models.journeys import Journey, order_of
from models.leads import Lead, role_in
from models.members import keep_smaller
from models.paths import null_path_begins
from models.pipeline import Surroundings, deal_counts, first_channel, lead_counts
from models.profiles import Profile
from models.reports import (
    ABOUT,
    CLAIM,
    DEAL,
    KNOWN,
    TOUCH,
    USAGE,
    Changes,
    Invite,
    Join,
    Message,
    Parts,
    Report,
    Rooted,
    Wake,
    difference,
    pack,
    tag_of,
    under,
)
from models.rules import Rules
from models.times import END_OF_TIME
from models.totals import Totals
from models.touches import Touch
from models.usage import use_counts, uses_in
from models.warming import Moved, Warming
from models.warmth import Touched

REMEMBERED_SUMS = 100
"""What a deal's conversion with more sums comes to (or its counts) is computed again when taken back, not kept."""
_PASSED_ON = KNOWN + TOUCH + DEAL + USAGE + PASSED_ON
_touch = msgspec.msgpack.Decoder(Touch).decode
_deal = msgspec.msgpack.Decoder(Deal).decode
_lead = msgspec.msgpack.Decoder(Lead).decode


class Booked(NamedTuple):
    """A conversion with what its credits are computed from."""

    conversion: Conversion
    touches: list[Touch]
    credits: list[Credit]


class _Earned(NamedTuple):
    """What a deal's conversion adds to the totals: what its credits come to, and its path of channels."""

    sums: Sums
    path: Counts


class _Arrivals(NamedTuple):
    """What a batch brings, read: touches as they were and are with their paths, people by path, deals by part name.

    None stands for what was not there before or is not any more.
    """

    touches: list[tuple[str, Touch | None, Touch | None]]
    leads: dict[str, Lead | None]
    deals: dict[str, Deal | None]


class _Change(NamedTuple):
    """What a batch touches: people and deals by part name's path or name, times of touches.

    `restated` are the deals whose conversions or milestones may differ, `moved` all
    deals whose place in the pipeline may; `used` are parts of product usage. When the
    account `advances`, its own place on the way to a customer may differ.
    """

    leads: set[str]
    restated: set[str]
    moved: set[str]
    times: list[int]
    used: set[str]
    advances: bool


class Account:
    """One account: its people's touches, its deals, and what they earned.

    `first_lead` is the earliest lead moment of its people.
    """

    __slots__ = (
        "_about", "_booked", "_clock", "_conversions", "_counted", "_dirty", "_group", "_labels", "_last_converted",
        "_links_changed", "_parent", "_pending", "_persons", "_recorded_at", "_rules", "_told", "company", "deals",
        "first_lead", "journey", "leads", "name", "parts", "tag", "warming",
    )  # fmt: skip

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self.name = name
        self.tag = tag_of(f"account:{name}")
        self.parts = parts
        self._rules = rules
        self._group = Group("account", name, parts, END_OF_TIME)
        self._pending: Changes = {}
        self._dirty: Changes = {}
        self._links_changed = False
        self.company = Company(name, rules)
        self.journey = Journey(rules.settings.markov_order)
        self.leads: dict[str, Lead] = {}
        self.first_lead: int | None = None
        self._persons: dict[str, str] = {}
        self.deals: dict[str, Deal] = {}
        self._conversions: dict[str, list[Conversion]] = {}
        self._last_converted: dict[str, int] | None = None
        self._booked: dict[tuple[str, str, str], _Earned] = {}
        self._counted: dict[str, list[Counting]] = {}
        for part, value in parts.items():
            if part[0] in COMPANY_KINDS:
                self.company.index(part, value)
        self._index(_arrivals(parts, {}))
        self._begin_null_paths()
        self.warming = Warming(parts, rules.scale)
        self._clock = self._recorded_at = 0
        self._parent = self._target()
        self._labels = NO_LABELS if self._parent else self.company.labels
        self._about = self._said_above()
        self._told = self._contents()

    # --- facts and reports in -------------------------------------------------------

    def apply(self, topic: str, fact: Fact) -> Conflict | None:
        """Take an account change."""
        if not isinstance(fact, AccountChange):
            raise TypeError(f"no fact of an account: {fact!r}")
        name = f"{CHANGE}:{fact.id}"
        conflict = keep_smaller(self.parts, name, fact.raw, ACCOUNT_CHANGES, fact.id, self.company.read)
        self._dirty[name] = self.parts[name]
        self.company.index(name, self.parts[name])
        self._links_changed = True
        return conflict

    def hear(self, recorded_at: int) -> None:
        """What is taken next comes of facts recorded up to then."""
        self._recorded_at = max(self._recorded_at, recorded_at)

    def receive(self, message: Message) -> None:
        """Take a report of a person, deal or merged account; or the group's; or the time."""
        match message:
            case Wake():
                self._clock = max(self._clock, message.at)
            case Report():
                self._hold(message)
            case Invite() | Join() | Rooted():
                self._group.receive(message)
            case _:
                raise TypeError(f"no message to an account: {message!r}")

    def _hold(self, report: Report) -> None:
        for name, value in report.changes.items():
            mine = under(report.tag, name)
            if name[0] in COMPANY_KINDS:
                self._dirty[mine] = value
                self._links_changed |= name[0] == CLAIM
                put(self.parts, mine, value)
                self.company.index(mine, value)
            else:
                self._pending[mine] = value

    # --- the state and its indexes --------------------------------------------------

    def _index(self, arrivals: _Arrivals) -> None:
        for path, was, now in arrivals.touches:
            if was is not None:
                self.journey.remove(path, was)
            if now is not None:
                self.journey.add(path, now)
        if arrivals.leads:
            self._persons.clear()
        for path, lead in arrivals.leads.items():
            if lead is None:
                self.leads.pop(path, None)
            else:
                self.leads[path] = lead
        if arrivals.leads:
            self.first_lead = min([lead.at for lead in self.leads.values()], default=None)
        for name, deal in arrivals.deals.items():
            self._index_deal(name, deal)

    def _index_deal(self, name: str, deal: Deal | None) -> None:
        self._last_converted = None
        if deal is None:
            self.deals.pop(name, None)
            self._conversions.pop(name, None)
        else:
            self.deals[name] = deal
            self._conversions[name] = conversions_of(deal, self._rules)

    def person_of(self, path: str) -> str | None:
        """The person whose touches carry this path."""
        lead = self.lead_of(path)
        return None if lead is None else lead.person

    def lead_of(self, path: str) -> Lead | None:
        """The person whose touches carry this path, as the account holds them."""
        lead = self._lead_path(path)
        return None if lead is None else self.leads[lead]

    def _lead_path(self, path: str) -> str | None:
        for length in range(8, len(path) + 1, 8):
            if path[:length] in self.leads:
                return path[:length]
        return None

    def _person_touches(self, lead_path: str) -> list[Touch]:
        paths = sorted(path for path in self.journey.by_path if path.startswith(lead_path))
        lists = [self.journey.by_path[path] for path in paths]
        return lists[0] if len(lists) == 1 else sorted((touch for each in lists for touch in each), key=order_of)

    def _journey_of(self, deal: Deal) -> list[Touch]:
        """The touches that can earn the deal's credit, oldest first."""
        if not self._rules.settings.deal_contacts_only:
            return self.journey.touches
        lists = [touches for path, touches in sorted(self.journey.by_path.items()) if self._takes_part(path, deal)]
        return sorted((touch for each in lists for touch in each), key=order_of)

    def _takes_part(self, path: str, deal: Deal) -> bool:
        lead = self._lead_path(path)
        return lead is None or takes_part(self.leads[lead].is_contact, self.leads[lead].ids, deal)

    @property
    def uses(self) -> dict[str, dict[str, int]]:
        """How often its people used the product: event → day → count."""
        found: dict[str, dict[str, int]] = {}
        for name in _used(self.parts):
            for event, day, count in uses_in(name, self.parts[name]):
                days = found.setdefault(event, {})
                days[day] = days.get(day, 0) + count
        return found

    @property
    def burden(self) -> int:
        """How many credits booking every conversion anew would take."""
        return len(self.journey.touches) * sum(map(len, self._conversions.values()))

    # --- credits --------------------------------------------------------------------

    def lead_credits(self, path: str) -> Booked:
        """The `lead` conversion of the person with this path."""
        lead = self.leads[path]
        conversion = Conversion("lead", lead.person, lead.at, 0)
        touches = eligible(self._person_touches(path), "lead", lead.at, self._rules)
        milestones = milestones_of("lead", lead.at, lead.at, None, None)
        roles = [lead.role] * len(touches)
        return Booked(conversion, touches, credits_of(conversion, lead.at, touches, milestones, self._rules, roles))

    def deal_credits(self, name: str, conversion: Conversion) -> Booked:
        """The credits of one conversion (or refund) of the deal kept as `name`."""
        deal, kind = self.deals[name], conversion.kind
        won = won_at(deal, self._rules)
        at = won if kind == "refund" and won is not None else conversion.at
        touches = eligible(self._journey_of(deal), "won" if kind == "refund" else kind, at, self._rules)
        milestones = milestones_of(kind, at, self.first_lead, deal.created_at, won)
        roles = self.roles(touches, deal) if self._rules.weighs_roles else ()
        return Booked(conversion, touches, credits_of(conversion, at, touches, milestones, self._rules, roles))

    def roles(self, touches: Sequence[Touch], deal: Deal) -> list[str | None]:
        """The role in the deal of each touch's person."""
        roles: dict[int, str | None] = {}
        for path, own in self.journey.by_path.items():
            lead = self.leads.get(self._lead_path(path) or "")
            role = role_in(deal, lead.ids, lead.role) if lead else None
            roles.update((id(touch), role) for touch in own)
        return [roles.get(id(touch)) for touch in touches]

    def all_credits(self) -> Iterator[tuple[str, list[Credit]]]:
        """The credits of every conversion that is booked here, by kind and id."""
        for path, lead in self.leads.items():
            yield f"lead:{lead.person}", self.lead_credits(path).credits
        for name, conversions in self._conversions.items():
            for conversion in conversions:
                if conversion.amount is not None:
                    yield f"{conversion.kind}:{conversion.id}", self.deal_credits(name, conversion).credits

    def _window(self, name: str, conversion: Conversion) -> tuple[int, int]:
        kind, at = conversion.kind, conversion.at
        if kind == "refund":
            kind, at = "won", won_at(self.deals[name], self._rules) or at
        return at - self._rules.lookback[kind], at

    def _book(self, totals: Totals, change: _Change, sign: int, every_deal: bool) -> None:
        """Add or take back all that the change can touch, as the state now stands."""
        for path in change.leads & self.leads.keys():
            booked = self.lead_credits(path)
            sums = sums_of(booked.conversion, booked.credits)
            add_cells(totals.cells, booked.conversion, sums, sign, self._rules)
            add_counts(totals.counts, path_of_credits(booked.conversion, booked.credits, self._rules), sign)
            add_counts(totals.counts, lead_counts(booked.conversion.at, self._rules), sign)
        for name, conversions in self._conversions.items():
            every = every_deal or name in change.restated
            for conversion in conversions:
                if every or self._touched(name, conversion, change.times):
                    self._book_deal(totals, name, conversion, sign)
        for name in change.moved & self.deals.keys():
            self._book_state(totals, name, sign)
        for name in change.used & self.parts.keys():
            add_counts(totals.counts, use_counts(name, self.parts[name]), sign)
        if change.advances:
            counted = account_counts(self.name, len(self.leads), self.deals.values(), self._rules)
            add_counts(totals.counts, counted, sign)

    def _touched(self, name: str, conversion: Conversion, times: list[int]) -> bool:
        if not times:
            return False
        begin, end = self._window(name, conversion)
        return any(begin <= at <= end for at in times)

    def _book_deal(self, totals: Totals, name: str, conversion: Conversion, sign: int) -> None:
        if conversion.amount is not None:
            earned = self._earned(name, conversion, sign)
            for booked in booked_as(conversion, self.deals[name], self._rules):
                add_cells(totals.cells, booked, earned.sums, sign, self._rules)
            add_counts(totals.counts, earned.path.items(), sign)

    def _earned(self, name: str, conversion: Conversion, sign: int) -> _Earned:
        """What to book of a conversion; that of few sums is remembered until it is taken back."""
        key = name, conversion.kind, conversion.id
        if sign < 0 and (booked := self._booked.pop(key, None)) is not None:
            return booked
        credits, path = self.deal_credits(name, conversion).credits, Counts()
        add_counts(path, path_of_credits(conversion, credits, self._rules))
        earned = _Earned(sums_of(conversion, credits), path)
        if sign > 0 and len(earned.sums) + len(earned.path) <= REMEMBERED_SUMS:
            self._booked[key] = earned
        return earned

    def _book_state(self, totals: Totals, name: str, sign: int) -> None:
        """The counts of the deal kept as `name`, and what of it waits."""
        deal, holder = self.deals[name], f"{self.name}/{_path(name)}"
        for entry, reason in waiting_of(deal, self._conversions[name], self._rules).items():
            totals.waiting[entry, holder] = reason if sign > 0 else None
        self._count_deal(totals, name, self._surroundings(deal), sign)

    def _count_deal(self, totals: Totals, name: str, around: Surroundings, sign: int) -> None:
        """Add or take back what the deal counts; few counts are remembered until they are taken back."""
        counted = self._counted.pop(name, None) if sign < 0 else None
        if counted is None:
            counted = deal_counts(self.deals[name], self._conversions[name], around, self._rules)
        if sign > 0 and len(counted) <= REMEMBERED_SUMS:
            self._counted[name] = counted
        add_counts(totals.counts, counted, sign)

    def _surroundings(self, deal: Deal) -> Surroundings:
        """What the deal's counts need of its account."""
        channel = first_channel(deal, self._journey_of(deal), self._rules)
        return Surroundings(self.first_lead, channel, self._labels)

    def _surrounded(self, change: _Change, every_deal: bool) -> dict[str, Surroundings]:
        """The surroundings of the deals that stay as they are, where the change may reach these."""
        return {
            name: self._surroundings(deal)
            for name, deal in self.deals.items()
            if name not in change.moved and (every_deal or self._reaches(name, change.times))
        }

    def _reaches(self, name: str, times: list[int]) -> bool:
        return any(self._touched(name, conversion, times) for conversion in self._conversions[name][:1])

    def _recount(self, totals: Totals, before: Mapping[str, Surroundings]) -> None:
        """Move the counts of deals whose surroundings are others now."""
        for name, around in before.items():
            if (now := self._surroundings(self.deals[name])) != around:
                self._count_deal(totals, name, around, -1)
                self._count_deal(totals, name, now, 1)

    def totals(self) -> Totals:
        """All that the account's state comes to, as though booked at once."""
        totals = Totals()
        self._file(totals, self.own_totals(), self.company.labels)
        self._list(totals, NO_LABELS, self.company.labels)
        return totals

    def own_totals(self) -> Totals:
        """What the account comes to, once and under no label."""
        own = Totals()
        self._book(own, _Change(set(self.leads), set(), set(self.deals), [], _used(self.parts), True), 1, True)
        add_counts(own.counts, self.journey.null_counts())
        return own

    def _file(self, totals: Totals, own: Totals, labels: Labels) -> None:
        """Add what the account comes to, itself and under the labels that totals are kept by."""
        if own is not totals:
            totals.add(own)
        for label in kept_labels(labels, self._rules.settings.filters):
            totals.add_under(label, own)

    def _list(self, totals: Totals, old: Labels, new: Labels) -> None:
        """Note the labels that the account carries no more, and those it carries now."""
        for labels, sign in ((old - new, -1), (new - old, 1)):
            totals.listed.update(((label, self.name), sign > 0) for label in labels)
            add_counts(totals.counts, attribute_counts(labels), sign)

    # --- warmth ---------------------------------------------------------------------

    @property
    def history(self) -> History:
        """When the account warmed and cooled, and will cool when nothing else happens."""
        return self.warming.history(self._weighed)

    @property
    def _now(self) -> int:
        """How far the lane is, as far as the account has heard."""
        return max(self.warming.told.clock, self._recorded_at, self._clock)

    def score_at(self, at: int) -> float:
        """How warm the account is at an instant, by the touches known."""
        return self.warming.score_at(at, self._weighed)

    def _weighed(self, after: int) -> list[Touched]:
        scale, found = self._rules.scale, []
        for touch, path in self.journey.after(after):
            weight = weight_of(touch, scale)
            if weight:
                found.append(Touched(touch.at, self._whose(path), weight))
        return found

    def _with_persons(self, found: Iterable[tuple[Touch, str]]) -> Iterator[Personal]:
        for touch, path in found:  # one by one, also where this is compiled: few are asked for
            yield touch, self._whose(path)

    def _whose(self, path: str) -> str:
        """The person whose touches carry this path, or the path where nobody is known by it."""
        person = self._persons.get(path)
        if person is None:
            person = self._persons[path] = self.person_of(path) or path
        return person

    def scene(self, history: History) -> Scene:
        """The account with this history as its alerts see it."""
        return Scene(
            account=self.name,
            profile=self.profile,
            history=history,
            deals=list(self.deals.values()),
            owner_at=self.company.owner_at,
            between=lambda begin, end: self._with_persons(self.journey.between(begin, end)),
            before=lambda at: self._with_persons(self.journey.before(at)),
            rules=self._rules,
        )

    def _disturbed_at(self, pending: Changes, change: _Change) -> int | None:
        """From when on a batch changes touches, or whose they are; None: it does not."""
        moved = [_path(name) for name, value in pending.items() if name[0] == KNOWN and self._is_other(name, value)]
        paths = [(path, touches[0].at) for path, touches in self.journey.by_path.items()] if moved else ()
        moments = [at for path, at in paths if path.startswith(tuple(moved))]
        return min([*change.times, *moments], default=None)

    def _is_other(self, name: str, value: bytes | None) -> bool:
        """Is somebody else known by the path, or nobody any more?"""
        known = self.leads.get(_path(name))
        return (known and known.person) != (value and _lead(value).person)

    def _warm(self, totals: Totals, was: History, grew: bool) -> None:
        """Tell what has happened to the account's warmth, and rank it anew; nothing when it was merged away."""
        if self._target():
            totals.warmth[self.name] = self.warming.leave()
        else:
            left = self.warming.told.state
            history = self.warming.history(self._weighed, self._now)
            change = Moved(was, history, self._now, self._recorded_at, grew)
            totals.alerts.extend(self.warming.tell(change, lambda: self.scene(history)))
            totals.warmth[self.name] = self.warming.ranked(left, change, lambda: self.scene(history), self._weighed)
        for name, value in self.warming.changes().items():
            self._dirty[name] = value
            put(self.parts, name, value)

    # --- one batch ------------------------------------------------------------------

    def flush(self, totals: Totals) -> Outcome:
        """Apply what was received: storage changes and messages; what totals change by is added to `totals`."""
        if self._links_changed:
            self._group.link(self.company.links())
        changes, messages = self._group.flush()
        applied = self._apply(totals)
        messages.extend(self._pass_on(applied))
        messages.extend(self._tell())
        outcome = Outcome({**self._dirty, **changes, **applied}, messages)
        self._pending, self._dirty, self._links_changed = {}, {}, False
        self._clock = self._recorded_at = 0
        return outcome

    @property
    def parent(self) -> str:
        """The account that it hands everything to; empty when it books for itself."""
        return self._parent

    @property
    def root(self) -> str:
        """The account that this one counts for."""
        return self._group.root.id

    def _target(self) -> str:
        root = self._group.root.id
        return "" if root == self.name else f"account:{root}"

    def _apply(self, totals: Totals) -> Changes:
        """Turn the old state into the new one, credits with it; returns what really changed."""
        pending = {name: value for name, value in self._pending.items() if self.parts.get(name) != value}
        was_booking, books = not self._parent, not self._target()
        arrivals = _arrivals(pending, self.parts)
        if not was_booking and not books:
            self._replace(pending, arrivals)
            return pending
        old, new = self._labels, self.company.labels if books else NO_LABELS
        moves = was_booking != books or self._is_refiled(old, new)
        change = self._everything(pending) if moves else self._change(pending, arrivals)
        every = moves or self._weighs_deals_anew(arrivals)
        before = after = totals if not old and not new else Totals()
        if moves and after is not totals:
            after = Totals()
        surrounded = self._surrounded(change, every or old != new) if was_booking and books else {}
        disturbed = BEGINNING if moves else self._disturbed_at(pending, change)
        looks = disturbed is not None or self._clock > 0
        grew = not moves and not any(name in self.parts for name in pending if name[0] in TOUCH + KNOWN)
        was = self.warming.foreseen(self._weighed, self._now) if was_booking and looks else ()
        if was_booking:
            self._book(before, change, -1, every)
            add_counts(before.counts, () if books else self.journey.null_counts(), -1)
        noted = self._replace(pending, arrivals)
        self._labels = new
        if books:
            self._book(after, change, 1, every)
            add_counts(after.counts, noted if was_booking else self.journey.null_counts())
            self._recount(after, surrounded)
            totals.newest.extend(self._added(arrivals))
        if old or new:
            self._settle(totals, before, after, old, new)
        if disturbed is not None:
            self.warming.disturb(disturbed)
        if looks:
            self._warm(totals, was, grew)
        return pending

    def _is_refiled(self, old: Labels, new: Labels) -> bool:
        filters = self._rules.settings.filters
        return old != new and kept_labels(old, filters) != kept_labels(new, filters)

    def _settle(self, totals: Totals, before: Totals, after: Totals, old: Labels, new: Labels) -> None:
        """Add what was taken back under the old labels and what was booked under the new ones."""
        self._file(totals, before, old)
        if after is not before:
            self._file(totals, after, new)
        self._list(totals, old, new)

    def _change(self, pending: Changes, arrivals: _Arrivals) -> _Change:
        leads = {path for path, lead in arrivals.leads.items() if self._converts_anew(path, lead)}
        times = []
        for path, was, now in arrivals.touches:
            lead = self._lead_path(path)
            for touch in (was, now):
                if touch is not None:
                    times.append(touch.at)
                    if lead is not None and self._weighs(lead, touch):
                        leads.add(lead)
        restated = {name for name, deal in arrivals.deals.items() if self._restates(name, deal)}
        advances = bool(arrivals.deals) or any(
            (lead is None) == (path in self.leads) for path, lead in arrivals.leads.items()
        )
        return _Change(leads, restated, set(arrivals.deals), times, _used(pending), advances)

    def _converts_anew(self, path: str, lead: Lead | None) -> bool:
        """Does the person's new state change their `lead` conversion or what it is weighed by?"""
        was = self.leads.get(path)
        return was is None or lead is None or (was.person, was.at, was.role) != (lead.person, lead.at, lead.role)

    def _weighs(self, path: str, touch: Touch) -> bool:
        """Can the touch take part in the `lead` conversion of the person with this path?"""
        at = self.leads[path].at
        return at - self._rules.lookback["lead"] <= touch.at <= at or at in touch.known_at

    def _restates(self, name: str, deal: Deal | None) -> bool:
        """Does the deal's new state change its conversions or the milestones they are weighed by?"""
        if deal is None or name not in self.deals:
            return True
        return self._weighed_by(self.deals[name]) != self._weighed_by(deal) or self._conversions[
            name
        ] != conversions_of(deal, self._rules)

    def _weighed_by(self, deal: Deal) -> tuple[object, ...]:
        return deal.created_at, won_at(deal, self._rules), is_open(deal, self._rules), deal.contacts, deal.roles

    def _everything(self, pending: Changes) -> _Change:
        names = {**self.parts, **pending}
        paths = {_path(name) for name in names if name[0] == KNOWN}
        return _Change(paths, set(), {name for name in names if name[0] == DEAL}, [], _used(names), True)

    def _weighs_deals_anew(self, arrivals: _Arrivals) -> bool:
        """Do the account's people change so that every deal's credits may?"""
        if not arrivals.leads:
            return False
        weighs_people = self._rules.settings.deal_contacts_only or self._rules.weighs_roles
        return weighs_people or self.first_lead != self._first_lead_after(arrivals.leads)

    def _first_lead_after(self, changed: Mapping[str, Lead | None]) -> int | None:
        moments = [lead.at for path, lead in self.leads.items() if path not in changed]
        moments += [lead.at for lead in changed.values() if lead is not None]
        return min(moments, default=None)

    def _replace(self, pending: Changes, arrivals: _Arrivals) -> Counted:
        """Take the new parts; returns what the counts of null paths change by."""
        self._index(arrivals)
        for name, value in pending.items():
            put(self.parts, name, value)
        self._begin_null_paths()
        return self.journey.changes()

    def _begin_null_paths(self) -> None:
        """Let each kind's null path begin where the account's last conversion and latest touch say."""
        latest = self.journey.touches[-1].at if self.journey.touches else None
        if self._last_converted is None:
            self._last_converted = last_converted(each for made in self._conversions.values() for each in made)
        last, lookback = self._last_converted, self._rules.lookback
        self.journey.begin(
            {kind: null_path_begins(last.get(kind), latest, lookback[kind]) for kind in self._rules.deal_conversions}
        )

    def _added(self, arrivals: _Arrivals) -> Iterator[tuple[Touch, str, str]]:
        for path, _, touch in arrivals.touches:
            if touch is not None:
                lead = self._lead_path(path)
                yield touch, "" if lead is None else self.leads[lead].person, self.name

    def _pass_on(self, applied: Changes) -> Iterator[Message]:
        """Hand everything to the account this one was merged into, or take it back from there."""
        parent, about = self._target(), self._said_above()
        if not parent and not self._parent:  # as most accounts
            return
        held_anew = {**self._dirty, **applied}
        passed: Changes = {name: value for name, value in held_anew.items() if name[0] in _PASSED_ON}
        said = difference(self._about, about)
        if parent != self._parent:
            held: Changes = {name: value for name, value in self.parts.items() if name[0] in _PASSED_ON}
            if self._parent:
                yield Report(self._parent, self.tag, dict.fromkeys({**held, **passed, **self._about}))
            passed, said, self._parent = held, {**about}, parent
        self._about = about
        if parent and (passed or said):
            yield Report(parent, self.tag, {**passed, **said})

    def _said_above(self) -> dict[str, bytes]:
        """What the account that this one was merged into should hold of its company."""
        return {f"{ABOUT}:": pack(self.company.stated)} if self._target() else {}

    def _tell(self) -> Iterator[Message]:
        """What domains, customers and the parent company are told."""
        contents = self._contents()
        if contents != self._told:
            yield from reports(self._told, contents, self.tag)
            self._told = contents

    def _contents(self) -> Contents:
        return self.company.contents(is_merged=bool(self._target()))

    @property
    def profile(self) -> Profile:
        """Who the account is."""
        return self.company.profile


def _arrivals(changes: Mapping[str, bytes | None], held: Parts) -> _Arrivals:
    """What changes bring to who holds these parts."""
    arrivals = _Arrivals([], {}, {})
    for name, value in changes.items():
        if name[0] == TOUCH:
            old = held.get(name)
            was = None if old is None else _touch(old)
            arrivals.touches.append((_path(name), was, None if value is None else _touch(value)))
        elif name[0] == KNOWN:
            arrivals.leads[_path(name)] = None if value is None else _lead(value)
        elif name[0] == DEAL:
            arrivals.deals[name] = None if value is None else _deal(value)
    return arrivals


def _used(names: Iterable[str]) -> set[str]:
    """The parts of product usage among them."""
    return {name for name in names if name[0] == USAGE}


def _path(name: str) -> str:
    return name[1 : name.index(":")]
