"""The sample world of the demo: what happens to Halyard, an invented seller of analytics software.

Buying committees come to its site through its campaigns, at first unknown, later by name; its
people call, meet and demonstrate; deals open, move, are won, lost, taken up again or deleted;
some money is given back. Everything follows from a seed and the instant at which the world
ends: no clock is asked.
"""

import itertools
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta
from random import Random
from typing import NamedTuple

from deploy import messages
from deploy.market import (
    CALLERS,
    DIRECT,
    FORMS,
    PAGES,
    SELLERS,
    WEBINARS,
    Company,
    Landing,
    Person,
    companies,
    landing,
)
from deploy.messages import Fact

DAYS = 120
COMPANIES = 200
STRANGERS = 6_000

STAGES = ("discovery", "qualification", "proposal", "negotiation")
"""The open stages of a deal, in their order."""

WON, LOST = "closed_won", "closed_lost"

ADVANCES = 0.7
"""The chance of a deal to go on from a stage: 0.7⁴ of them, 24 %, win."""

BUSY = (0.9, 1.0, 1.0, 0.95, 0.7, 0.12, 0.15)
"""How busy a weekday is beside the busiest, Monday first."""


class Deal(NamedTuple):
    """A deal of the story, as it stands; its amount in whole dollars."""

    id: str
    company: Company
    owner: str
    dollars: int
    stage: str


class World(NamedTuple):
    """The sample world at its end: its facts oldest first, and the deals still open."""

    companies: tuple[Company, ...]
    facts: tuple[Fact, ...]
    open_deals: tuple[Deal, ...]


def sample_world(end: datetime, seed: int = 7, count: int = COMPANIES, strangers: int = STRANGERS) -> World:
    """The world of the `DAYS` days up to `end` (aware); equal arguments make equal worlds."""
    market = tuple(companies(Random(seed), count))
    teller = Teller(seed, end)
    for company in market:
        teller.tell_company(company)
    for number in range(strangers):
        teller.tell_stranger(f"stranger-{number:05}")
    return World(market, tuple(teller.facts()), tuple(teller.open_deals))


class Teller:
    """Tells stories one after the other; `facts` puts what was told in order of time.

    What would happen after the end of the world is left untold. Each story has dice of its own,
    and others for its times, so that it goes much the same on whatever weekday the world ends.
    """

    def __init__(self, seed: int, end: datetime) -> None:
        self.rng = Random()
        self._times = Random()
        self._seed = seed
        self.open_deals: list[Deal] = []
        self._start = end - timedelta(days=DAYS)
        self._end = end
        self._told: list[tuple[datetime, Fact]] = []
        self._ids = itertools.count(1)
        self._deals = itertools.count(1)

    def facts(self) -> list[Fact]:
        """All that was told, oldest first; what happened at one instant, in the order told."""
        return [fact for _, fact in sorted(self._told, key=lambda told: told[0])]

    def tell_stranger(self, device: str) -> None:
        """Somebody who looks around and never says who they are."""
        self._begin(device)
        at = self._some_time()
        for _ in range(self.rng.choice((1, 1, 1, 2, 3))):
            self._visit(at, device)
            at = self._later(at, 9)

    def tell_company(self, company: Company) -> None:
        """A company from its first visit on; most come to a deal, some to a second."""
        self._begin(company.domain)
        begun = self._some_time()
        self._tell(begun - timedelta(hours=3), messages.account_change, company)
        serious = self.rng.random() < 0.85
        known = [self._tell_person(begun, company, person, serious) for person in company.people]
        leads = [at for at in known if at is not None]
        closed = self._tell_deal(self._later(min(leads), 5), company) if serious and leads else None
        if closed is not None and self.rng.random() < 0.6:
            self._tell_deal(self._later(closed, 8), company)

    def _begin(self, story: str) -> None:
        self.rng = Random(f"{self._seed} {story}")
        self._times = Random(f"{self._seed} {story} times")

    def _tell_person(self, begun: datetime, company: Company, person: Person, serious: bool) -> datetime | None:
        """Visits until the person fills in a form, and what follows; when they did, if ever."""
        at = self._later(begun, 8)
        for _ in range(self.rng.randint(2, 6) if serious else self.rng.randint(1, 4)):
            last = self._visit(at, self.rng.choice(person.devices))
            if self.rng.random() < (0.45 if serious else 0.15):
                self._become_known(last, company, person)
                self._stay_in_touch(last, company, person)
                return last if last < self._end else None
            at = self._later(last, 6)
        return None

    def _become_known(self, at: datetime, company: Company, person: Person) -> None:
        """A form filled in on one device, a sign-in on the others later, the CRM's entry."""
        self._tell(at, messages.form_fill, person.devices[0], person, self.rng.choice(FORMS))
        for device in person.devices:
            self._tell(at if device == person.devices[0] else self._later(at, 10), messages.identify, device, person)
        if company.in_crm and self.rng.random() < 0.7:
            self._tell(self._later(at, 1), messages.contact_change, person, company)
        elif company.in_crm:
            self._tell(self._later(at, 4), messages.group, person.devices[0], person, company)

    def _stay_in_touch(self, at: datetime, company: Company, person: Person) -> None:
        """What a known person goes on to do: read e-mails, attend webinars, come back."""
        if self.rng.random() < 0.15:
            self._try_out(self._later(at, 5), person)
        for _ in range(self.rng.randint(1, 7)):
            at = self._later(at, 7)
            if self.rng.random() < 0.5:
                self._visit(at, self.rng.choice(person.devices))
            else:
                self._tell_touch(at, person, self.rng.random())

    def _try_out(self, at: datetime, person: Person) -> None:
        """A trial: it is started, and reports are run in it for some days."""
        self._tell(at, messages.usage, person, "Trial Started")
        for _ in range(self.rng.randint(1, 8)):
            at = self._later(at, 2)
            self._tell(at, messages.usage, person, "Report Run", self.rng.randint(1, 20))

    def _tell_touch(self, at: datetime, person: Person, chance: float) -> None:
        """A touch by marketing or by the callers, the more usual for a greater chance."""
        if chance < 0.15:
            self._tell(at, messages.touch, person, "webinar", "marketing", campaign=self.rng.choice(WEBINARS))
        elif chance < 0.35:
            self._tell(at, messages.touch, person, "call", "sales", rep=self.rng.choice(CALLERS))
        else:
            kind = "email_clicked" if chance < 0.55 else "email_opened"
            self._tell(at, messages.touch, person, kind, "marketing", source="newsletter", campaign="weekly-digest")

    def _tell_deal(self, opened: datetime, company: Company) -> datetime | None:
        """A deal from its opening on; when it was closed, None when it is still open."""
        deal = self._open_deal(opened, company)
        at = opened
        for stage in (*STAGES[1:], WON):
            self._sell(at, deal)
            at = self._later(at, 8)
            goes_on = self.rng.random() < ADVANCES
            if at >= self._end:
                self.open_deals += [deal] if opened < self._end else []
                return None
            deal = moved(self.rng, deal, stage if goes_on else LOST)
            self._change(at, deal)
            if not goes_on:
                return self._after_loss(at, deal)
        self._after_win(at, deal)
        return at

    def _open_deal(self, at: datetime, company: Company) -> Deal:
        deal = new_deal(self.rng, f"D-{next(self._deals):04}", company)
        fields = {"stage": deal.stage, "amount": deal.dollars, "owner": deal.owner}
        self._tell(at, messages.deal_opening, deal.id, company, **fields)
        return deal

    def _change(self, at: datetime, deal: Deal) -> None:
        self._tell(at, messages.deal_change, deal.id, stage=deal.stage, amount=deal.dollars)

    def _sell(self, at: datetime, deal: Deal) -> None:
        """What the sales people do in a stage, before the deal moves on."""
        kind = {"discovery": "call", "qualification": "demo", "proposal": "quote_sent"}.get(deal.stage, "meeting")
        for person in self.rng.sample(deal.company.people, self.rng.randint(1, 2)):
            self._tell(self._later(at, 1), messages.touch, person, kind, "sales", rep=deal.owner)

    def _after_win(self, at: datetime, deal: Deal) -> None:
        if self.rng.random() < 0.4:
            self._tell(self._later(at, 10), messages.refund, deal.id, deal.dollars // self.rng.choice((4, 10, 20)))

        self._use_product(at, deal.company)

    def _use_product(self, at: datetime, company: Company) -> None:
        """What some of a customer's people do with what they bought."""
        for person in company.people[::2]:
            for event in ("Report Viewed", "Report Shared", "Report Viewed"):
                self._tell(at, messages.product_usage, person, event, count=len(person.email) % 4 + 1)
                at += timedelta(days=2, minutes=len(event))

    def _after_loss(self, at: datetime, deal: Deal) -> datetime:
        """Some lost deals are taken up again and won, some were entered twice and are deleted."""
        chance = self.rng.random()
        if chance < 0.06:
            again = self._later(at, 6)
            at = self._later(again, 6)
            deal = deal._replace(stage=STAGES[-1])
            self._change(again, deal)
            self._change(at, deal._replace(stage=WON))
            self.open_deals += [deal] if again < self._end <= at else []
        elif chance < 0.10:
            self._tell(self._later(at, 2), messages.deal_change, deal.id, deleted=True)
        return at

    def _visit(self, at: datetime, device: str) -> datetime:
        """A visit of some pages; the time of the last."""
        self._tell(at, messages.arrival_view, device, landing(self.rng))
        for _ in range(self.rng.choice((0, 1, 1, 2, 3, 5, 8))):
            at += timedelta(seconds=self.rng.randint(8, 240))
            self._tell(at, messages.page_view, device, self.rng.choice(PAGES))
        return at

    def _tell(self, at: datetime, message: Callable[..., Fact], *what: object, **fields: object) -> None:
        """Note a fact under the next id, unless it lies beyond the end."""
        id = f"{message.__name__.replace('_', '-')}-{next(self._ids):06}"
        if at < self._end:
            self._told.append((at, message(id, at, *what, **fields)))

    def _some_time(self) -> datetime:
        """A time of the story; later ones are likelier, for the market grows."""
        return self._at_work(self._start + timedelta(days=DAYS * self._times.random() ** 0.8))

    def _later(self, at: datetime, mean_days: float) -> datetime:
        """A working time after `at`."""
        return self._at_work(at + timedelta(days=self._times.expovariate(1 / mean_days)))

    def _at_work(self, earliest: datetime) -> datetime:
        """A busy day and hour, not before `earliest`."""
        day = earliest
        while self._times.random() > BUSY[day.weekday()]:
            day += timedelta(days=self._times.choice((1, 2, 3, 4)))
        seconds = int(self._times.triangular(6.5, 19.5, 11) * 3600)
        at = day.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(seconds=seconds)
        return at if at >= earliest else earliest + timedelta(seconds=self._times.randint(300, 5400))


def new_deal(rng: Random, id: str, company: Company) -> Deal:
    """A deal in its first stage, of some ten thousand dollars, more with larger committees."""
    dollars = round(rng.lognormvariate(11.2, 0.6) * (0.6 + 0.15 * len(company.people)), -2)
    return Deal(id, company, rng.choice(SELLERS), int(dollars), STAGES[0])


def moved(rng: Random, deal: Deal, stage: str) -> Deal:
    """The deal in another stage; with a proposal comes another amount."""
    if stage != "proposal":
        return deal._replace(stage=stage)
    return deal._replace(stage=stage, dollars=int(round(deal.dollars * rng.uniform(0.8, 1.3), -2)))


class Browsing(NamedTuple):
    """A visit going on: a device with some pages still to see."""

    device: str
    pages_left: int


class Life:
    """How the world goes on after its end, one fact after the other, at the times given."""

    def __init__(self, world: World, rng: Random) -> None:
        self._companies = world.companies
        self._open = list(world.open_deals)
        self._won: list[Deal] = []
        self._browsing: list[Browsing] = []
        self._rng = rng
        self._ids = itertools.count(1)

    def next_facts(self, at: datetime) -> list[Fact]:
        """What happens now: mostly page views, now and then a lead, a call or a deal's move."""
        happens = self._rng.choices(
            (self._page, self._lead, self._touch, self._move_deal, self._open_deal, self._refund),
            (800, 60, 95, 30, 13, 2),
        )[0]
        return happens(at)

    def _page(self, at: datetime) -> list[Fact]:
        if self._browsing and self._rng.random() < 0.7:
            visit = self._browsing.pop(self._rng.randrange(len(self._browsing)))
            self._keep(visit.device, visit.pages_left - 1)
            return [messages.page_view(self._id(at), at, visit.device, self._rng.choice(PAGES))]
        device = self._device()
        self._keep(device, self._rng.choice((0, 1, 2, 4, 7)))
        return [messages.arrival_view(self._id(at), at, device, landing(self._rng))]

    def _lead(self, at: datetime) -> list[Fact]:
        person = self._person(self._company())
        device = self._rng.choice(person.devices)
        form = self._rng.choice(FORMS)
        return [
            messages.arrival_view(self._id(at), at, device, Landing(DIRECT, form.path)),
            messages.form_fill(self._id(at), at, device, person, form),
            messages.identify(self._id(at), at, device, person),
        ]

    def _touch(self, at: datetime) -> list[Fact]:
        person, chance = self._person(self._company()), self._rng.random()
        if chance < 0.5:
            kind, team, more = (
                self._rng.choice(("call", "meeting", "demo")),
                "sales",
                {"rep": self._rng.choice(SELLERS)},
            )
        else:
            kind, team, more = "email_clicked", "marketing", {"source": "newsletter", "campaign": "weekly-digest"}
        return [messages.touch(self._id(at), at, person, kind, team, **more)]

    def _open_deal(self, at: datetime) -> list[Fact]:
        id = self._id(at)
        deal = new_deal(self._rng, f"D-{id}", self._company())
        self._open.append(deal)
        fields = {"stage": deal.stage, "amount": deal.dollars, "owner": deal.owner}
        return [messages.deal_opening(id, at, deal.id, deal.company, **fields)]

    def _move_deal(self, at: datetime) -> list[Fact]:
        if not self._open:
            return self._open_deal(at)
        deal = self._open.pop(self._rng.randrange(len(self._open)))
        onward = (*STAGES[1:], WON)[STAGES.index(deal.stage)]
        deal = moved(self._rng, deal, onward if self._rng.random() < ADVANCES else LOST)
        if deal.stage != LOST:
            (self._won if deal.stage == WON else self._open).append(deal)
        return [messages.deal_change(self._id(at), at, deal.id, stage=deal.stage, amount=deal.dollars)]

    def _refund(self, at: datetime) -> list[Fact]:
        if not self._won:
            return self._page(at)
        deal = self._won.pop(self._rng.randrange(len(self._won)))
        return [messages.refund(self._id(at), at, deal.id, max(1, deal.dollars // 10))]

    def _device(self) -> str:
        """A stranger's, or now and then that of somebody in a buying committee."""
        if self._rng.random() < 0.6:
            return f"{self._rng.getrandbits(64):016x}"
        return self._rng.choice(self._person(self._company()).devices)

    def _keep(self, device: str, pages_left: int) -> None:
        if pages_left > 0:
            self._browsing.append(Browsing(device, pages_left))

    def _company(self) -> Company:
        return self._rng.choice(self._companies)

    def _person(self, company: Company) -> Person:
        return self._rng.choice(company.people)

    def _id(self, at: datetime) -> str:
        """An id that no other run of the demo has given: the instant and a number."""
        return f"live-{int(at.timestamp() * 1000):x}-{next(self._ids)}"


def live(world: World, rng: Random, now: Callable[[], datetime]) -> Iterator[Fact]:
    """The facts that follow a world, without end; each is as old as the moment it is asked for."""
    life = Life(world, rng)
    while True:
        yield from life.next_facts(now())
