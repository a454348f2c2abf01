"""Small nasty worlds: raw facts that collide, repeat, contradict and withdraw each other.

    facts = world(random.Random(7), 40)      # [(topic, value bytes, Kafka record time in µs)]
    law = rules(variant=1)                   # the rules they are decided by

Ids come from small pools and instants from a coarse grid, so that boundaries (exactly 30 minutes, 24 hours, 90 days,
midnight) are hit. `worlds()` is the same as a hypothesis strategy, which shrinks.
"""

import json
import random
from collections import Counter
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import msgspec
from hypothesis import strategies as st

from models.rates import Rate
from models.rules import Rules
from models.settings import Identity, Lookback, Pipeline, Settings, Warmth, parse_settings
from models.times import DAY, HOUR, MINUTE, parse_instant, to_text
from streams.reference import rules_from

RawFact = tuple[str, bytes, int]
"""Topic, value, and when Kafka recorded it (µs)."""

Body = dict[str, Any]

BEGIN = parse_instant("2026-01-05T00:00:00Z", "begin")
RECORDED = BEGIN + 200 * DAY
SEGMENT = ("page-views", "form-fills", "identities")

_RATES = (
    Rate("2026-01-01", "EUR", "USD", "1.10"),
    Rate("2026-02-04", "EUR", "USD", "1.0825"),
    Rate("2026-01-06", "JPY", "USD", "0.00685"),
    Rate("2026-04-05", "GBP", "USD", "1.333"),
    Rate("2026-01-01", "USD", "EUR", "0.9137"),
    Rate("2026-01-07", "KWD", "EUR", "2.987654"),
)
_VARIANTS = (
    Settings(rates=_RATES),
    Settings(
        rates=_RATES,
        identity=Identity(persons_per_visitor=2, emails_per_user_id=1),
        time_zone="Europe/Berlin",
        milestones=("Invited", "Viewed"),
        warmth=Warmth(warm=11, warming=4, cooling=7, cold=2),
    ),
    Settings(
        rates=_RATES,
        currency="EUR",
        direct_touches=False,
        time_zone="America/New_York",
        warmth=Warmth(half_life_days=3, warm=8, warming=8, cooling=6, cold=5, weights={"odd kind": 3}),
    ),
    Settings(
        rates=_RATES,
        identity=Identity(persons_per_visitor=1, emails_per_user_id=2),
        lookback=Lookback(lead=1, opportunity=30, won=90),
        pipelines={"partner": Pipeline(won=("signed", "closed_won"), lost=("dead",))},
        own_domains=("acme.com", "Bücher.example"),
    ),
    Settings(
        rates=_RATES,
        lead_quality="first_channel",
        deal_contacts_only=True,
        milestones=("Invited",),
        trial_events=("Viewed", "Invited"),
    ),
    parse_settings(
        {
            "time_zone": "Asia/Tokyo",
            "lead_quality": "industry",
            "rates": msgspec.to_builtins(_RATES),
            "conversion_stages": ["demo", "closed_won"],
            "lookback": {"stage": 60, "stages": {"demo": 31}, "won": 61},
            "markov_order": 2,
            "team_split": {"marketing": 30, "sales": 60, "product": 10},
            "models": {
                "tilted": {
                    "positions": {"first": 40, "lead": 25, "opportunity": 15, "rest": 20},
                    "kinds": {"call": 0, "form_fill": 2.5},
                    "channels": {"direct": 0.1},
                    "decay": {"half_life_days": 10.5},
                },
                "committee": {
                    "roles": {"Buyer": 3, "champion": 2, "none": 0, "default": 0.5},
                    "stages": {"decision": 0, "awareness": 2},
                },
                "capped": {"teams": {"sales": 4}, "caps": {"by": "channel", "max": 40, "values": {"event": 15.5}}},
                "even": {"positions": {"last": 1}, "caps": {"by": "role", "max": 50}},
            },
        }
    ),
)
VARIANTS = len(_VARIANTS)


@lru_cache
def rules(variant: int = 0) -> Rules:
    """One of `VARIANTS` sets of rules: 0 has the defaults and rates, the others low guards and other settings."""
    return rules_from(_VARIANTS[variant])


_PEOPLE = (
    "ann@acme.com", " Bob@ACME.com", "cy@gmail.com", "dee@beta.de", "eve@mail.beta.de", "fox@corp",
    "hal@mail.austria.com", "u1", "u2", "Gus", 7,
)  # fmt: skip
_NOBODY = ("null", "Undefined ", "", 0, -1, "test@acme.com", "noreply@beta.de", True)
_VISITORS = ("v1", "v2", "v3", "u1", "cy@gmail.com", 99)
_ACCOUNTS = ("C1", "C2", "acme.com", "beta.de", "G1", "ann@acme.com", "u1")
_DOMAINS = ("acme.com", "beta.de", "www.Beta.de", "gmail.com", "C1")
_CUSTOMERS = ("stripe:1", "stripe:2", "chargebee:1")
_NAMES = ("Acme", " Beta ", "", None)
_ATTRIBUTES = {
    "industry": ("SaaS", " saas ", "Retail, food", "=\0%/:|", None),
    "Size": (1, 10, 11, "51\u2013200", 5001, 0, "many", None),
    "owner": ("Jo", "Al", ""),
    "segment": (True, False, None),
}
_DEALS = ("d1", "d2", "d3")
_EVENTS = ("Form Submitted", "Signed Up", "Lead Captured", "Clicked")
_QUERIES = (
    "", "", "", "?utm_source=News&utm_medium=email", "?utm_source=news&utm_medium=Email&utm_campaign=Spring",
    "?gclid=1", "?fbclid=2", "?li_fat_id=3&utm_campaign=x", "?utm_source=google&utm_medium=cpc&gclid=4",
    "?utm_source=youtube", "?utm_source=partnerx&utm_medium=odd", "?utm_medium=webinar", "?UTM_Source=facebook",
    "?ttclid=5&utm_source=shop", "?utm_content=blue", "?utm_source=", "?q=1",
)  # fmt: skip
_REFERRERS = (
    None, None, "", "https://www.google.com/", "https://news.example.org/a", "https://blog.example.org/b",
    "https://youtube.com/x", "https://checkout.stripe.com/pay", "https://accounts.google.com/o", "https://shop.site.com/",
    "https://acme.com/", "https://shop.xn--bcher-kva.example/", "https://bücher.example/", "https://chatgpt.com",
    "http://localhost:3000/",
)  # fmt: skip
_CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36"
_AGENTS = (
    _CHROME,
    _CHROME,
    "",
    "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)",
    "GPTBot/1.2",
)
_PATHS = ("/", "/pricing", "/Demo", "")
_CURRENCIES = (None, "USD", "usd", "EUR", "GBP", "JPY", "KWD", "CHF")
_AMOUNTS = (None, 0, 1, 100, "66.50", 100000, 99.995, "0.004", "1234.567", 33.335)
_STAGES = (None, "new", "demo", "closed_won", "closed_won", "closed_lost", "signed", "dead", " new ")
_KINDS = ("call", "demo", "webinar", "Email Opened", "quote_sent", "chat", "trial_started", "odd kind")
_JUNK = (
    b"", b"{", b"[]", b"null", b'{"messageId": 1}', b'{"messageId":"x","timestamp":"soon","anonymousId":"v1"}',
    b'{"touchId":"t1","timestamp":"2026-01-05T00:00:00Z"}',
    b'{"messageId":"x","timestamp":"2026-01-05","dealId":"d1","amount":-1}',
    b'{"messageId":"y","timestamp":"2026-01-05","dealId":"d1","currency":"XYZ"}', b"[" * 3000, b'"\xff"',
)  # fmt: skip


class _World:
    """One world in the making: its own small pools and the facts so far."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.facts: list[tuple[str, Body]] = []
        self.people = rng.sample(_PEOPLE, rng.randint(2, 6))
        self.visitors = rng.sample(_VISITORS, rng.randint(1, 3))
        self.accounts = rng.sample(_ACCOUNTS, rng.randint(2, 4))
        self.days = rng.sample((0, 1, 30, 60, 89, 90, 91, 100), rng.randint(1, 4))
        self.ids = rng.choice((8, 60, 400))
        self.is_prompt = rng.random() < 0.5

    def one(self, pool: Any) -> Any:
        return pool[self.rng.randrange(len(pool))]

    def rarely(self, chance: float) -> bool:
        return self.rng.random() >= 1 - chance  # so that hypothesis shrinks towards False

    def instant(self) -> str:
        """On the grid of ten minutes around midnight; now and then a microsecond beside it."""
        at = BEGIN + self.one(self.days) * DAY + self.rng.randrange(-3, 12) * 10 * MINUTE
        return self.written(at + self.one((0,) * 12 + (-1, 1, 1_000_000, 13 * HOUR)))

    def written(self, at: int) -> str:
        text = to_text(at)
        return text.replace("Z", self.one(("Z",) * 6 + ("", "+00:00", "000Z" if "." in text else ".000000999Z")))

    def person(self) -> Any:
        return self.one(_NOBODY) if self.rarely(0.06) else self.one(self.people)

    def email(self) -> Any:
        emails = [name for name in self.people if "@" in str(name)]
        return self.one((None, *emails, *emails, "test@acme.com"))

    def id(self, pool: str = "m") -> str:
        return f"{pool}{self.rng.randrange(self.ids)}"

    def add(self, topic: str, body: Body) -> None:
        self.facts.append((topic, body))

    # --- one fact of a kind -------------------------------------------------------------

    def message(self) -> Body:
        body = {"messageId": self.id(), "timestamp": self.instant(), "anonymousId": self.one(self.visitors)}
        if self.rarely(0.02):
            body["bot"] = self.one((True, False, None))
        return {**body, **self.agent()}

    def agent(self) -> Body:
        return {"context": {"userAgent": self.one(_AGENTS)}} if self.rarely(0.1) else {}

    def place(self) -> Body:
        url = f"https://www.site.com{self.one(_PATHS)}{self.one(_QUERIES)}"
        page: Body = {"url": url, "referrer": self.one(_REFERRERS)}
        if self.rarely(0.05):
            page = {"search": self.one(_QUERIES)}
        context: Body = {"page": page, **self.agent().get("context", {})}
        if self.rarely(0.1):
            context["campaign"] = {
                "source": self.one(("News", "bing", None)),
                "medium": self.one(("cpc", None, "Email")),
            }
        return {"context": context}

    def page_view(self) -> None:
        body = {"type": "page", **self.message(), **self.place()}
        if self.rarely(0.12):
            body["userId"] = self.person()
        if self.rarely(0.05):
            del body["anonymousId"]
        self.add("page-views", body)

    def form_fill(self) -> None:
        body = {"type": "track", "event": self.one(_EVENTS), **self.message(), **self.place()}
        body["properties"] = {"email": self.email()}
        if self.rarely(0.4):
            body["properties"]["externalId"] = self.one((self.id("t"), self.id("t"), self.id(), body["messageId"], ""))
        if self.rarely(0.3):
            body["userId"] = self.person()
        if self.rarely(0.1):
            del body["anonymousId"]
        self.add("form-fills", body)

    def identify(self) -> None:
        body = {"type": "identify", **self.message(), "userId": self.person()}
        if self.rarely(0.6):
            body["traits"] = {"email": self.email()}
        if self.rarely(0.15):
            del body["anonymousId"]
        if self.rarely(0.1):
            del body["userId"]
        self.add("identities", body)

    def alias(self) -> None:
        body = {"type": "alias", **self.message(), "userId": self.person()}
        body["previousId"] = self.one((*self.people, *self.visitors, *self.visitors, "null"))
        if self.rarely(0.5):
            del body["anonymousId"]
        self.add("identities", body)

    def group(self) -> None:
        body = {"type": "group", **self.message(), "userId": self.person(), "groupId": self.one(self.accounts)}
        if self.rarely(0.5):
            del body["anonymousId"]
        self.add("identities", body)

    def touch(self) -> None:
        body: Body = {"touchId": self.one((self.id("t"), self.id("t"), self.id())), "timestamp": self.instant()}
        body |= {"person": self.person(), "kind": self.one(_KINDS)}
        for name, pool in (
            ("team", ("Sales", "success", None)),
            ("rep", ("Jo", "Al ", "")),
            ("channel", ("Paid Search", "event", None)),
            ("source", ("Google", "expo", "bing")),
            ("medium", ("cpc", "webinar", "odd")),
            ("campaign", ("Spring", None)),
            ("content", ("Blue", "")),
            ("landingPage", ("/Demo", " ")),
            ("updatedAt", (self.instant(), self.written(BEGIN), None)),
            ("deleted", (True, True, False)),
        ):
            if self.rarely(0.2):
                body[name] = self.one(pool)
        self.add("touches", body)

    def contact(self, person: Any) -> Body:
        return {"person": person, "role": self.one(("buyer", "Champion", None))}

    def contact_change(self) -> None:
        body: Body = {"messageId": self.id(), "timestamp": self.instant(), "person": self.person()}
        body["source"] = self.one(("hubspot", "salesforce"))
        if self.rarely(0.8):
            body["account"] = self.one((*self.accounts, None))
        if self.rarely(0.3):
            body["createdAt"] = self.one((self.instant(), None))
        if self.rarely(0.3):
            body["role"] = self.one(("Buyer", " champion ", "User", "", None))
        self.add("contact-changes", body)

    def account_change(self) -> None:
        body: Body = {"messageId": self.id(), "timestamp": self.instant(), "account": self.one(self.accounts)}
        if self.rarely(0.6):
            domains = self.rng.sample(_DOMAINS, self.rng.randrange(3))
            body["domains"] = None if self.rarely(0.1) else domains
        if self.rarely(0.5):
            body["mergedInto"] = self.one((*self.accounts, None))
        if self.rarely(0.3):
            body["customers"] = None if self.rarely(0.1) else self.rng.sample(_CUSTOMERS, self.rng.randrange(3))
        if self.rarely(0.5):
            body["attributes"] = None if self.rarely(0.1) else self.attributes()
        for name, pool in (("parent", (*self.accounts, None)), ("name", _NAMES), ("quiet", (True, False, None))):
            if self.rarely(0.2):
                body[name] = self.one(pool)
        self.add("account-changes", body)

    def attributes(self) -> Body:
        names = self.rng.sample(sorted(_ATTRIBUTES), self.rng.randrange(3))
        return {name: self.one(_ATTRIBUTES[name]) for name in names}

    def deal_change(self) -> None:
        body: Body = {"dealId": self.one(_DEALS), "messageId": self.id(), "timestamp": self.instant()}
        contacts: list[Any] = [self.person() for _ in range(self.rng.randrange(3))]
        for name, pool in (
            ("account", (None, "www.acme.com", "beta.de", *self.accounts)),
            ("contacts", (None, contacts, contacts, [self.contact(person) for person in contacts])),
            ("stage", _STAGES),
            ("stage", _STAGES),
            ("pipeline", (None, "partner", "default")),
            ("amount", _AMOUNTS),
            ("amount", _AMOUNTS),
            ("currency", _CURRENCIES),
            ("createdAt", (None, self.instant(), self.instant())),
            ("deleted", (True, False, False, None)),
            ("owner", ("Jo", None)),
            ("expectedClose", (None, "2026-02-01", self.instant())),
        ):
            if self.rarely(0.35):
                body[name] = self.one(pool)
        self.add("deal-changes", body)

    def refund(self) -> None:
        body: Body = {"type": "refund", "dealId": self.one(_DEALS), "messageId": self.id(), "timestamp": self.instant()}
        body |= {"amount": self.one((1, "10.00", 33.34, 100000, "0.004")), "currency": self.one(_CURRENCIES)}
        self.add("billing", body)

    def use(self) -> None:
        """Somebody uses the product, as likely as not in a way that makes a touch."""
        body: Body = {"messageId": self.id("w"), "timestamp": self.instant(), "person": self.person()}
        body["event"] = self.one(("Trial Started", "Invited", "Viewed ", "Viewed"))
        if self.rarely(0.4):
            body["count"] = self.one((1, 2, 7, None))
        if self.rarely(0.4):
            body["account"] = self.one((*self.accounts, "www.beta.de", None))
        self.add("product-usage", body)

    def verdict(self) -> None:
        """Says of a visitor's messages, or of some, that they are a bot's or not."""
        body = {"type": "bot", **self.message(), "bot": self.one((True, True, False)), "reason": "said so"}
        if self.rarely(0.4):
            body["messageIds"] = [self.id() for _ in range(self.rng.randrange(4))]
            if self.rarely(0.5):
                del body["anonymousId"]
        if self.rarely(0.3):
            body["from"] = self.instant()
        if self.rarely(0.3):
            body["to"] = self.instant()
        self.add("identities", body)

    # --- several facts at once ----------------------------------------------------------

    def visit(self) -> None:
        """Hits of one visitor close together, sometimes exactly at the gap."""
        visitor, at = self.one(self.visitors), BEGIN + self.one(self.days) * DAY + self.rng.randrange(12) * 10 * MINUTE
        for _ in range(self.rng.randint(1, 5)):
            self.page_view()
            self.facts[-1][1].update(anonymousId=visitor, timestamp=self.written(at))
            at += self.one((0, MINUTE, 10 * MINUTE, 30 * MINUTE - 1, 30 * MINUTE))

    def day_long_visit(self) -> None:
        """Hits with no gap for more than 24 hours."""
        visitor, at = self.one(self.visitors), BEGIN + self.one(self.days) * DAY
        pace = self.one((20, 29)) * MINUTE
        for number in range(-(-25 * HOUR // pace)):
            self.page_view()
            self.facts[-1][1].update(messageId=f"long{number}", anonymousId=visitor, timestamp=to_text(at))
            at += pace

    def storm(self) -> None:
        """About as many hits as a visitor may have in a minute; sometimes a verdict restores some."""
        visitor, at = self.one(self.visitors), BEGIN + self.one(self.days) * DAY
        hits = self.one((300, 301, 302))
        for number in range(hits):
            body = {"type": "page", "messageId": f"storm{number}", "anonymousId": visitor, **self.place()}
            moment = at + number * MINUTE // (hits - self.one((0, 1, 1, 2)))
            self.add("page-views", {**body, "timestamp": to_text(moment)})
        if self.rarely(0.5):
            self.verdict()

    def crowd(self) -> None:
        """About as many people as one visitor may be, some of them the same."""
        visitor, crowd = self.one(self.visitors), self.one((49, 50, 51, 52))
        for number in range(crowd):
            body = {"type": "identify", "messageId": f"crowd{number}", "timestamp": self.instant()}
            self.add("identities", {**body, "anonymousId": visitor, "userId": f"p{number}"})
        if self.rarely(0.5):
            body = {"type": "alias", "messageId": "crowd", "timestamp": self.instant()}
            self.add("identities", {**body, "previousId": "p0", "userId": "p1"})

    def many_emails(self) -> None:
        """About as many e-mails as one user id may have."""
        user = self.one(self.people)
        for number in range(self.one((9, 10, 11, 12))):
            body = {"type": "identify", "messageId": f"mail{number}", "timestamp": self.instant(), "userId": user}
            self.add("identities", {**body, "traits": {"email": f"x{number}@acme.com"}})

    def circle(self) -> None:
        """Aliases that go round."""
        ring = self.rng.sample(self.people, min(3, len(self.people)))
        for previous, user in zip(ring, (*ring[1:], ring[0]), strict=True):
            self.alias()
            self.facts[-1][1].update(previousId=previous, userId=user)

    def twin(self) -> None:
        """Another system's record of a form fill, or another fact with an id that is taken."""
        forms = [body for topic, body in self.facts if topic == "form-fills"]
        if forms:
            form = self.one(forms)
            self.touch()
            self.facts[-1][1]["touchId"] = self.one((form["messageId"], form["properties"].get("externalId") or "t0"))

    def unlinks(self, number: int) -> None:
        """Withdraw messages whose id no other has, in their own words."""
        used = Counter(body.get("messageId") for topic, body in self.facts if topic in SEGMENT)
        links = [body for topic, body in self.facts if topic in SEGMENT and used[body["messageId"]] == 1]
        for _ in range(number if links else 0):
            target = self.one(links)
            body = {
                "type": "unlink",
                "messageId": self.id(self.one("xxm")),
                "timestamp": self.instant(),
                "unlinks": target["messageId"],
            }
            ids = {name: target[name] for name in ("anonymousId", "userId", "previousId", "groupId") if name in target}
            if set(ids) & {"anonymousId", "userId"}:
                self.add("identities", {**body, **ids})


_KINDS_OF_FACT: tuple[tuple[int, Callable[[_World], None]], ...] = (
    (14, _World.page_view),
    (10, _World.visit),
    (10, _World.form_fill),
    (9, _World.identify),
    (5, _World.alias),
    (4, _World.group),
    (12, _World.touch),
    (4, _World.twin),
    (8, _World.contact_change),
    (6, _World.account_change),
    (18, _World.deal_change),
    (7, _World.refund),
    (2, _World.circle),
    (3, _World.verdict),
    (7, _World.use),
)
_RARE = (_World.storm, _World.day_long_visit, _World.crowd, _World.many_emails)


def world(rng: random.Random, size: int = 40) -> list[RawFact]:
    """About `size` facts with some unlinks, junk and copies, in an order of no meaning."""
    made = _World(rng)
    weights = [weight for weight, _ in _KINDS_OF_FACT]
    for _ in range(size):
        rng.choices([kind for _, kind in _KINDS_OF_FACT], weights)[0](made)
    if made.rarely(0.1):
        made.one(_RARE)(made)
    made.unlinks(rng.randrange(1 + size // 8))
    facts = [_raw(made, topic, body) for topic, body in made.facts]
    facts += [(made.one(("page-views", "touches", "deal-changes")), made.one(_JUNK), RECORDED)] * made.rarely(0.1)
    facts += [made.one(facts) for _ in range(rng.randrange(1 + len(facts) // 4)) if facts]
    rng.shuffle(facts)
    return facts


def _raw(made: _World, topic: str, body: Body) -> RawFact:
    """The fact as bytes; a few in another order of fields, a few too early for their own time."""
    entries = list(body.items())
    if made.rarely(0.05):
        entries.reverse()
    recorded = _promptly(made, body) if made.is_prompt else RECORDED
    if made.rarely(0.03):
        recorded = parse_instant(body["timestamp"], "timestamp") - made.one((DAY, DAY + 1))
    return topic, json.dumps(dict(entries)).encode(), recorded


def _promptly(made: _World, body: Body) -> int:
    """A Kafka record time not long after the fact's own, so that it may alert somebody."""
    late = made.one((0, 0, 1, MINUTE, HOUR + 1, DAY, DAY + 1, 3 * DAY))
    return parse_instant(body["timestamp"], "timestamp") + int(late)


def without_ties(facts: list[RawFact]) -> list[RawFact]:
    """The facts less Segment messages of one id and time that differ: which of them comes first is ours to say."""
    seen: dict[tuple[str, str], bytes] = {}
    kept = []
    for topic, value, recorded_at in facts:
        if topic in SEGMENT and value.startswith(b"{") and b"timestamp" in value:
            body = json.loads(value)
            tie = (str(body.get("messageId")), body["timestamp"][:19])
            if seen.setdefault(tie, value) != value:
                continue
        kept.append((topic, value, recorded_at))
    return kept


def worlds(most: int = 40) -> st.SearchStrategy[list[RawFact]]:
    """Worlds of up to `most` facts (and their copies)."""
    return st.builds(world, st.randoms(use_true_random=False), st.integers(1, most))
