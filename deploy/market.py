"""Who there is in the sample world: the companies with their people, and the ways they come.

All names are invented; the domains are under `.example`, which nobody can own.
"""

import itertools
from collections.abc import Iterator
from random import Random
from typing import NamedTuple

SITE = "https://www.halyard.example"


class Arrival(NamedTuple):
    """A way to come to the site: how often it is taken, and what the first page then shows."""

    weight: int
    source: str
    medium: str
    referrer: str
    pages: tuple[str, ...]
    campaigns: tuple[str, ...] = ()
    click_id: str = ""


class Landing(NamedTuple):
    """The beginning of a visit: by which way, on which page, through which campaign."""

    way: Arrival
    path: str
    campaign: str = ""


class Form(NamedTuple):
    """A form on the site."""

    name: str
    path: str


class Person(NamedTuple):
    """A member of a buying committee, with the anonymous ids of their devices."""

    email: str
    name: str
    devices: tuple[str, ...]
    role: str


class Company(NamedTuple):
    """A buyer; `account` is what the CRM names it by: an id of its own, else its domain."""

    name: str
    domain: str
    account: str
    people: tuple[Person, ...]
    attributes: dict[str, str | int]

    @property
    def in_crm(self) -> bool:
        """Whether the CRM has an id for it, and so says whose its domain is."""
        return self.account != self.domain


ARTICLES = (
    "/blog/first-touch-is-not-enough",
    "/blog/the-dark-funnel",
    "/blog/books-that-balance",
    "/guides/attribution",
)
OFFERS = ("/pricing", "/product", "/demo", "/compare/spreadsheets")
PAGES = ("/", "/customers", "/docs/start", *OFFERS, *ARTICLES)
FORMS = (
    Form("demo-request", "/demo"),
    Form("guide", "/guides/attribution"),
    Form("webinar", "/webinars/live-totals"),
    Form("contact", "/contact"),
)
WEBINARS = ("live-totals", "from-clicks-to-cash", "ask-a-cfo")
SELLERS = ("Ada Brandt", "Tomás Rey", "Mei Tanaka", "Jonas Vik", "Priya Nair", "Lena Okafor")
CALLERS = ("Sam Ortiz", "Ruth Adeyemi", "Kai Lindqvist")

_SEARCH = ("attribution-software", "b2b-analytics", "brand")
_SOCIAL = ("cmo-stories", "revops-leaders", "demand-gen-guide")
ARRIVALS = (
    Arrival(20, "google", "cpc", "https://www.google.com/", OFFERS, _SEARCH, "gclid"),
    Arrival(4, "bing", "cpc", "https://www.bing.com/", OFFERS, _SEARCH[:1], "msclkid"),
    Arrival(13, "linkedin", "paid_social", "https://www.linkedin.com/", ("/demo", *ARTICLES), _SOCIAL, "li_fat_id"),
    Arrival(14, "newsletter", "email", "", ARTICLES, ("weekly-digest", "product-news")),
    Arrival(6, "google", "display", "", OFFERS, ("retargeting-pricing", "retargeting-demo")),
    Arrival(3, "trade-press", "display", "https://www.martech-weekly.example/", ("/",), ("takeover",)),
    Arrival(5, "cloud-alliance", "partner", "https://www.cloud-alliance.example/", ("/product",), ("marketplace",)),
    Arrival(14, "", "", "https://www.google.com/", ("/", *ARTICLES)),
    Arrival(3, "", "", "https://duckduckgo.com/", ("/", *ARTICLES)),
    Arrival(5, "", "", "https://chatgpt.com/", ("/compare/spreadsheets", "/product")),
    Arrival(2, "", "", "https://www.perplexity.ai/", ("/compare/spreadsheets", "/guides/attribution")),
    Arrival(3, "", "", "https://www.reddit.com/", ARTICLES),
    Arrival(2, "", "", "https://www.youtube.com/", ("/webinars/live-totals",)),
    Arrival(4, "", "", "https://reviews.softwarepicks.example/halyard", ("/customers", "/pricing")),
    Arrival(16, "", "", "", ("/", "/pricing", "/login")),
)
DIRECT = ARRIVALS[-1]

_FIRST_NAMES = """Amara Anton Bea Carlos Chidi Clara Dara Elif Emil Farah Felix Greta Hana Hugo Ines Ivan Jana Joel
Kavya Lars Leila Luca Maja Marco Mina Nadia Noah Olga Omar Paula Pavel Rosa Samir Sofia Tara Theo Vera Yusuf"""
_LAST_NAMES = """Abara Bauer Costa Dahl Eriksen Ferrari Garcia Haddad Ito Jansen Kaya Lopes Moreau Novak Olsen Petrov
Quist Rossi Sato Toth Ueda Varga Weber Yilmaz Zeman Ahmadi Berg Choi Duarte Falk"""
_PLACES = """Alder Basalt Cobalt Cedar Delta Ember Fjord Granite Harbor Indigo Juniper Kestrel Larch Meridian Northwind
Onyx Pine Quarry Ridge Summit Tundra Umber Vale Willow Zephyr"""
_ROLES = ("decision maker", "champion", "user", "finance")
_COUNTRIES = ("US", "US", "US", "GB", "DE", "FR", "NL", "SE", "CA")
_SECTORS = {
    "manufacturing": "Robotics Optics Materials Textiles Foods",
    "transport": "Logistics Freight Mobility",
    "health": "Health Pharma",
    "finance": "Payments Insurance",
    "technology": "Security Media Learning Energy",
}
_INDUSTRIES = {trade: sector for sector, trades in _SECTORS.items() for trade in trades.split()}
_TRADES = """Robotics Logistics Foods Health Energy Textiles Payments Media Optics Mobility Materials Insurance Freight
Pharma Security Learning"""


def companies(rng: Random, count: int) -> Iterator[Company]:
    """`count` companies of different names, most with two to six people; at most 400."""
    names = [f"{place} {trade}" for place, trade in itertools.product(_PLACES.split(), _TRADES.split())]
    for number, name in enumerate(rng.sample(names, count), start=1):
        domain = f"{name.lower().replace(' ', '-')}.example"
        account = f"ACC-{number:04}" if rng.random() < 0.4 else domain
        people = tuple(_people(rng, domain, rng.choice((2, 2, 3, 3, 4, 5, 6))))
        yield Company(name, domain, account, people, _attributes(name))


def _attributes(name: str) -> dict[str, str | int]:
    """What the CRM says a company is; dice of its own, so that nothing else in the world depends on it."""
    rng = Random(f"attributes of {name}")
    size = round(rng.lognormvariate(5.0, 1.6)) + 3
    segment = "enterprise" if size > 1000 else "mid-market" if size > 100 else "small business"
    industry = _INDUSTRIES[name.rpartition(" ")[2]]
    return {"industry": industry, "size": size, "country": rng.choice(_COUNTRIES), "segment": segment}


def landing(rng: Random) -> Landing:
    """A visit's beginning by one of the ways, taken as often as its weight says."""
    way = rng.choices(ARRIVALS, [way.weight for way in ARRIVALS])[0]
    return Landing(way, rng.choice(way.pages), rng.choice(way.campaigns) if way.campaigns else "")


def _people(rng: Random, domain: str, count: int) -> Iterator[Person]:
    """Colleagues of different names; one in twelve writes from a free-mail address."""
    names = list(itertools.product(rng.sample(_FIRST_NAMES.split(), count), rng.sample(_LAST_NAMES.split(), count)))
    for first, last in names[:: count + 1]:
        host = "gmail.com" if rng.random() < 1 / 12 else domain
        sample = f".{domain.removesuffix('.example')}" if host != domain else ""
        email = f"{first}.{last}{sample}@{host}".lower()
        devices = rng.choice((1, 1, 2, 2, 3))
        ids = tuple(f"{rng.getrandbits(64):016x}" for _ in range(devices))
        yield Person(email, f"{first} {last}", ids, Random(f"role of {email}").choice(_ROLES))
