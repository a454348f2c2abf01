"""The bench's facts: always the same ones, in the order in which they reach Kafka.

    90 %     page views, in visits of five pages on average, thirty visits under way at a time
     8 %     half of them a retry of one of the last 5,000, half a page view up to a day late
     1.5 %   identifies: each visitor is one of ten people of one domain
     0.5 %   deal changes: every deal moves through its stages, some are reopened

Of n facts there are n/10 visitors with a Zipf-like spread, n/200 domains and n/600 deals.
A fact arrives every 5.2 s of the facts' own time: a million of them are 60 days.
"""

import asyncio
import json
import random
from collections.abc import Awaitable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import accumulate, count
from typing import NamedTuple

from aiokafka import AIOKafkaProducer
from aiokafka.producer.message_accumulator import BatchBuilder

from models.facts import DEAL_CHANGES, IDENTITIES, PAGE_VIEWS, TOUCHES
from models.partitions import partition_of
from models.settings import Settings
from streams.config import kafka_options
from streams.topics import full_name

BEGIN_MS = 1_735_689_600_000
"""2025-01-01, UTC."""
ARRIVAL_MS = 5_184
VISITS_AT_A_TIME = 30
PAGES_A_VISIT = 5
RETRIED_WITHIN = 5_000
BATCH_BYTES = 500_000
BATCHES_IN_FLIGHT = 20
DAY_MS = 86_400_000

SOURCES = (
    ("google", "cpc", "brand"),
    ("google", "cpc", "crm"),
    ("linkedin", "paid_social", "abm"),
    ("newsletter", "email", "weekly"),
)
REFERRERS = (
    "https://www.google.com/",
    "https://www.linkedin.com/",
    "https://chatgpt.com/",
    "https://blog.partner.io/x",
)
PAGES = ("", "pricing", "demo", "blog/a", "docs", "product")
OPEN_STAGES = ("new", "demo", "proposal")
LAST_STAGES = ("closed_won", "closed_lost")
SITE = "https://www.acme.io/"
_PAGE_VIEW = (
    '{{"type":"page","messageId":"{id}","anonymousId":"{visitor}","timestamp":"{at}","properties":{{"url":"{url}",'
    '"referrer":"{referrer}","path":"/{page}","title":"Acme - {page}"}},"context":{{"page":{{"url":"{url}",'
    '"referrer":"{referrer}"}},"userAgent":"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) '
    'Chrome/130.0.0.0 Safari/537.36","locale":"en-US","library":{{"name":"analytics.js","version":"2.11.1"}}}}}}'
)


class Arrival(NamedTuple):
    """A record on its way to Kafka; `at_ms` becomes the record's time."""

    topic: str
    key: str
    value: bytes
    at_ms: int


class Visit:
    """A visit under way: whose it is, where its next page came from, how many pages are left."""

    __slots__ = ("landing", "pages", "referrer", "visitor")

    def __init__(self, visitor: int, landing: str, referrer: str, pages: int) -> None:
        self.visitor = visitor
        self.landing = landing
        self.referrer = referrer
        self.pages = pages


class World:
    """The site's visitors, people and deals, and what they do next."""

    def __init__(self, facts: int, seed: int = 7) -> None:
        self._random = random.Random(seed)
        self._visitors = [self._uuid() for _ in range(max(facts // 10, 100))]
        self._weights = list(accumulate(1 / (rank + 10) ** 0.9 for rank in range(len(self._visitors))))
        self._domains = max(facts // 200, 10)
        self._stages = [0] * max(facts // 600, 10)
        self._visits: list[Visit] = []
        self._recent: list[Arrival] = []

    def arrival(self, number: int) -> Arrival:
        """The fact that arrives as the `number`-th, counted from 0."""
        at = BEGIN_MS + number * ARRIVAL_MS
        share = self._random.random()
        if share < 0.90 or not self._recent:
            return self._remember(number, self._page_view(at))
        if share < 0.94:
            return self._random.choice(self._recent)._replace(at_ms=at)
        if share < 0.98:
            return self._late(at)
        return self._identify(at) if share < 0.995 else self._deal_change(at)

    def _remember(self, number: int, arrival: Arrival) -> Arrival:
        if len(self._recent) < RETRIED_WITHIN:
            self._recent.append(arrival)
        else:
            self._recent[number % RETRIED_WITHIN] = arrival
        return arrival

    def _page_view(self, at: int) -> Arrival:
        if len(self._visits) < VISITS_AT_A_TIME:
            self._visits.append(self._visit())
        place = self._random.randrange(len(self._visits))
        visit = self._visits[place]
        query, referrer = visit.landing, visit.referrer
        visit.landing, visit.referrer = "", SITE
        visit.pages -= 1
        if not visit.pages:
            self._visits[place] = self._visit()
        return self._viewed(visit.visitor, at, at, query, referrer)

    def _late(self, at: int) -> Arrival:
        then = max(BEGIN_MS, at - int(self._random.random() * DAY_MS))
        return self._viewed(self._random.choice(self._visits).visitor, then, at, "", SITE)

    def _viewed(self, visitor: int, at: int, arrives: int, query: str, referrer: str) -> Arrival:
        name, page = self._visitors[visitor], self._random.choice(PAGES)
        value = _PAGE_VIEW.format(
            id=self._uuid(), visitor=name, at=iso(at), url=f"{SITE}{page}{query}", referrer=referrer, page=page
        )
        return Arrival(PAGE_VIEWS, name, value.encode(), arrives)

    def _visit(self) -> Visit:
        (visitor,) = self._random.choices(range(len(self._visitors)), cum_weights=self._weights)
        pages = 1 + round(self._random.expovariate(1 / (PAGES_A_VISIT - 1)))
        came = self._random.random()
        if came < 0.35:
            source, medium, campaign = self._random.choice(SOURCES)
            return Visit(visitor, f"?utm_source={source}&utm_medium={medium}&utm_campaign={campaign}", "", pages)
        return Visit(visitor, "", self._random.choice(REFERRERS) if came < 0.60 else "", pages)

    def _identify(self, at: int) -> Arrival:
        visitor = self._random.choice(self._visits).visitor
        domain, person = visitor % self._domains, visitor // self._domains % 10
        return identify(self._visitors[visitor], f"u{domain}-{person}", f"p{person}@company{domain}.com", at)

    def _deal_change(self, at: int) -> Arrival:
        deal = self._random.randrange(len(self._stages))
        self._stages[deal] += 1
        step = self._stages[deal] % (len(OPEN_STAGES) + 1)
        stage = OPEN_STAGES[step] if step < len(OPEN_STAGES) else self._random.choice(LAST_STAGES)
        amount = self._random.randrange(1_000, 90_000)
        return deal_change(f"D{deal}", f"company{deal % self._domains}.com", stage, at, amount)

    def _uuid(self) -> str:
        digits = f"{self._random.getrandbits(128):032x}"
        return f"{digits[:8]}-{digits[8:12]}-{digits[12:16]}-{digits[16:20]}-{digits[20:]}"


def arrivals(facts: int, seed: int = 7) -> Iterator[Arrival]:
    """The facts of a world of this size, in the order in which they arrive."""
    world = World(facts, seed)
    return map(world.arrival, range(facts))


def endless(scale: int = 200_000) -> Iterator[Arrival]:
    """The facts of a world with the visitors and deals of `scale` facts, without end."""
    return map(World(scale).arrival, count())


def short_visits(visitors: int, pages: int = 3) -> Iterator[Arrival]:
    """One session of a few pages, a minute apart, for each of so many anonymous visitors."""
    chance = random.Random(11)
    names = [f"{chance.getrandbits(128):032x}" for _ in range(visitors)]
    for page in range(pages):
        for number, name in enumerate(names):
            at = BEGIN_MS + number * 100 + page * 60_000
            source, medium, campaign = chance.choice(SOURCES)
            query = f"?utm_source={source}&utm_medium={medium}&utm_campaign={campaign}" if page == 0 else ""
            value = _PAGE_VIEW.format(
                id=f"{chance.getrandbits(128):032x}",
                visitor=name,
                at=iso(at),
                url=f"{SITE}{chance.choice(PAGES)}{query}",
                referrer=SITE if page else "",
                page=PAGES[page % len(PAGES)],
            )
            yield Arrival(PAGE_VIEWS, name, value.encode(), at)


def identify(visitor: str, user: str, email: str, at: int) -> Arrival:
    """A visitor says who they are; `at` in milliseconds."""
    content = {
        "type": "identify",
        "messageId": f"{visitor}:{at}",
        "anonymousId": visitor,
        "userId": user,
        "timestamp": iso(at),
        "traits": {"email": email},
    }
    return Arrival(IDENTITIES, visitor, json.dumps(content).encode(), at)


def deal_change(deal: str, account: str, stage: str, at: int, amount: int) -> Arrival:
    """A deal is at a stage now; `at` in milliseconds, `amount` in whole USD."""
    content = {
        "dealId": deal,
        "messageId": f"{deal}:{at}",
        "timestamp": iso(at),
        "account": account,
        "stage": stage,
        "amount": amount,
        "currency": "USD",
    }
    return Arrival(DEAL_CHANGES, deal, json.dumps(content).encode(), at)


def call(touch: str, email: str, at: int) -> Arrival:
    """A sales call with a person; `at` in milliseconds."""
    content = {"touchId": touch, "timestamp": iso(at), "person": email, "kind": "call", "team": "sales", "rep": "kim"}
    return Arrival(TOUCHES, touch, json.dumps(content).encode(), at)


def iso(at_ms: int) -> str:
    """The instant as Segment's clients write it."""
    moment = datetime.fromtimestamp(at_ms // 1000, UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03}Z"


async def produce(settings: Settings, facts: Iterable[Arrival]) -> int:
    """Write the facts to Kafka in full batches, partitioned as Kafka's own clients do; how many.

    A batch leaves when it is full, so only facts of one partition keep their order.
    """
    batches: dict[tuple[str, int], BatchBuilder] = {}
    produced = 0
    async with AIOKafkaProducer(**kafka_options(settings), max_batch_size=BATCH_BYTES, acks="all") as kafka:
        sent = Sending(settings, kafka)
        for arrival in facts:
            place = arrival.topic, partition_of(arrival.key, settings.partitions)
            batch = batches.get(place)
            if batch is None or not _append(batch, arrival):
                if batch is not None:
                    await sent.send(place, batch)
                batch = batches[place] = kafka.create_batch()
                _append(batch, arrival)
            produced += 1
        for place, batch in batches.items():
            await sent.send(place, batch)
        await sent.all()
    return produced


def _append(batch: BatchBuilder, arrival: Arrival) -> bool:
    """Whether there was still room."""
    _, key, value, at_ms = arrival
    return batch.append(key=key.encode(), value=value, timestamp=at_ms) is not None


class Sending:
    """Batches on their way, a bounded number of them."""

    def __init__(self, settings: Settings, kafka: AIOKafkaProducer) -> None:
        self._settings = settings
        self._kafka = kafka
        self._waiting: list[Awaitable[object]] = []

    async def send(self, place: tuple[str, int], batch: BatchBuilder) -> None:
        topic, partition = place
        name = full_name(self._settings, topic)
        self._waiting.append(await self._kafka.send_batch(batch, name, partition=partition))
        if len(self._waiting) >= BATCHES_IN_FLIGHT:
            await self.all()

    async def all(self) -> None:
        await asyncio.gather(*self._waiting)
        self._waiting.clear()
