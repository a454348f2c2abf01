"""Accounts: journeys and deals → credits, pipeline, warmth and what waits.

The step of the accounts lane. A batch of reports is not applied at once: the credits
that it may touch are taken back under the old state and booked anew under the new one,
so that totals are always those of the state.

    models.received    what reports bring                  models.reach       what that may come to otherwise
    models.dossier     people, touches and deals held      models.ledger      credits and counts, booked and taken back
    models.companies   who the account is                  models.filing      under which labels
    models.engagement  how warm it is                      models.handover    what others are told

An account that was merged into another, or whose domain another claimed, books nothing
and hands everything on.
"""

from models.companies import CHANGE, Company
from models.companies import KINDS as COMPANY_KINDS
from models.counts import add_counts
from models.dossier import Dossier
from models.engagement import Engagement
from models.entity import Conflict, Outcome, keep_smaller, put
from models.facts import ACCOUNT_CHANGES, AccountChange, Fact
from models.filing import Filing, file, list_account
from models.filters import NO_LABELS, Labels, kept_labels
from models.groups import Group
from models.handover import Handover
from models.ledger import Ledger
from models.pipeline import Surroundings
from models.profiles import Profile
from models.reach import Reach, reach_of, whole
from models.received import Received, received
from models.reports import CLAIM, Changes, Invite, Join, Message, Parts, Report, Rooted, Wake, tag_of, under
from models.rules import Rules
from models.times import END_OF_TIME
from models.totals import Totals
from models.touches import Touch


class Account:
    """One account: who it is, its people's touches, its deals, and what they earned."""

    __slots__ = (
        "_called", "_dirty", "_filters", "_group", "_handover", "_links_changed", "_pending",
        "company", "dossier", "engagement", "ledger", "name", "parts", "tag",
    )  # fmt: skip

    def __init__(self, name: str, parts: Parts, rules: Rules) -> None:
        self.name = name
        self.tag = tag_of(f"account:{name}")
        self.parts = parts
        self._filters = rules.settings.filters
        self._pending: Changes = {}
        self._dirty: Changes = {}
        self._links_changed = False
        self._group = Group("account", name, parts, END_OF_TIME)
        self.company = Company(name, rules)
        for part, value in parts.items():
            if part[0] in COMPANY_KINDS:
                self.company.index(part, value)
        self._called = self._name()
        self.dossier = Dossier(parts, rules)
        self.ledger = Ledger(name, self.dossier, self._labels())
        self.engagement = Engagement(name, self.dossier, self.company)
        self._handover = Handover(self.tag, parts, self.company, self._target())

    @property
    def profile(self) -> Profile:
        """Who the account is."""
        return self.company.profile

    @property
    def parent(self) -> str:
        """The account that it hands everything to; empty when it books for itself."""
        return self._handover.parent

    @property
    def root(self) -> str:
        """The account that this one counts for."""
        return self._group.root.id

    def _target(self) -> str:
        """The parent as the links now say."""
        root = self._group.root.id
        return "" if root == self.name else f"account:{root}"

    def _labels(self) -> Labels | None:
        """What it books under as the links now say; None: nothing."""
        return None if self._target() else self.company.labels

    def _name(self) -> str | None:
        """What it is called as long as it books for itself."""
        return None if self._target() else self.company.profile.name

    def totals(self) -> Totals:
        """All that the account's state comes to, as though booked at once."""
        totals = Totals()
        file(totals, self.ledger.own_totals(), kept_labels(self.company.labels, self._filters))
        list_account(totals, self.name, NO_LABELS, self.company.labels)
        totals.named[self.name] = self.company.profile.name
        return totals

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
        self.engagement.hear(recorded_at)

    def receive(self, message: Message) -> None:
        """Take a report of a person, deal or merged account; or the group's; or the time."""
        match message:
            case Wake():
                self.engagement.wake(message.at)
            case Report():
                self._hold(message)
            case Invite() | Join() | Rooted():
                self._group.receive(message)
            case _:
                raise TypeError(f"no message to an account: {message!r}")

    def _hold(self, report: Report) -> None:
        """Keep what is said of the company; what the dossier is to take waits for the batch's end."""
        for name, value in report.changes.items():
            mine = under(report.tag, name)
            if name[0] in COMPANY_KINDS:
                self._dirty[mine] = value
                self._links_changed |= name[0] == CLAIM
                put(self.parts, mine, value)
                self.company.index(mine, value)
            else:
                self._pending[mine] = value

    # --- one batch ------------------------------------------------------------------

    def flush(self, totals: Totals) -> Outcome:
        """Apply what was received: storage changes and messages; what totals change by is added to `totals`."""
        if self._links_changed:
            self._group.link(self.company.links())
        links, messages = self._group.flush()
        applied = self._apply(totals)
        changes: Changes = {**self._dirty, **links, **applied}
        messages.extend(self._handover.messages(self._target(), changes))
        self._pending, self._dirty, self._links_changed = {}, {}, False
        self.engagement.rest()
        return Outcome(changes, messages)

    def _apply(self, totals: Totals) -> Changes:
        """Turn the old state into the new one, the totals with it; returns what really changed."""
        changes: Changes = {name: value for name, value in self._pending.items() if self.parts.get(name) != value}
        brought = received(changes, self.parts)
        if self.ledger.labels is None and self._target():  # merged before and after
            self.dossier.take(changes, brought)
        else:
            self._restate(totals, changes, brought)
        return changes

    def _restate(self, totals: Totals, changes: Changes, brought: Received) -> None:
        """Take back what the changes can touch under the old state, and book it under the new one."""
        labels = self._labels()
        filing = Filing(totals, self.ledger.labels, labels, self._filters)
        reach = whole({*self.parts, *changes}) if filing.moves else reach_of(self.dossier, changes, brought)
        stir = self.engagement.stir(changes, reach.times, filing)
        surrounded = self._take_back(filing, reach)
        noted = self.dossier.take(changes, brought)
        self.ledger.labels = labels
        if filing.books:
            self.ledger.book(filing.after, reach, 1)
            self.ledger.recount(filing.after, surrounded)
            add_counts(filing.after.counts, noted if filing.was_booking else self.dossier.journey.null_counts())
            filing.after.newest.extend(self._added(brought))
        filing.settle(self.name)
        if self._called != (called := self._name()):
            totals.named[self.name] = self._called = called
        if stir is not None:
            self._dirty.update(self.engagement.tell(totals, stir, is_merged=not filing.books))

    def _take_back(self, filing: Filing, reach: Reach) -> dict[str, Surroundings]:
        """Take back what is within reach; returns what surrounds the deals that are not."""
        if not filing.was_booking:
            return {}
        surrounded = self.ledger.surrounded(reach, filing.old != filing.new) if filing.books else {}
        self.ledger.book(filing.before, reach, -1)
        if not filing.books:
            add_counts(filing.before.counts, self.dossier.journey.null_counts(), -1)
        return surrounded

    def _added(self, brought: Received) -> list[tuple[Touch, str, str]]:
        """The touches that are new or others now, each with its person and account."""
        added = []
        for path, _, touch in brought.touches:
            if touch is not None:
                added.append((touch, self.dossier.person_of(path) or "", self.name))
        return added
