"""The settings: one frozen record, a default for each that works on a laptop.

`deploy/reference.toml` is this file in the operator's words; a test keeps them equal.
"""

from decimal import Decimal
from typing import Literal
from zoneinfo import ZoneInfo, available_timezones

import msgspec

from models.custom import CustomModel, check_half_life, check_models, normalised
from models.destinations import Destination, check_destinations
from models.dispatch import Delivery, check_delivery
from models.errors import BadInput, misfit
from models.money import check_rates
from models.rates import Rate
from models.routing import Route, check_routes


class Kafka(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Kafka is and how to log in; TLS and SASL as its own clients name them."""

    bootstrap: str = ""
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    sasl_username: str = ""
    sasl_password: str = ""
    ssl_cafile: str = ""
    ssl_certfile: str = ""
    ssl_keyfile: str = ""
    replication_factor: int = 1
    session_timeout_seconds: float = 8.0


class Redis(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where Redis is and how to log in: redis:// or redis+cluster://, with rediss for TLS."""

    url: str = ""
    ssl_cafile: str = ""


class Web(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The HTTP door; port 0 takes a free one.

    Write keys stand in websites for everybody to read; secret ones also withdraw links and
    say who is a bot.
    """

    host: str = "127.0.0.1"
    port: int = 0
    write_keys: tuple[str, ...] = ("dev",)
    secret_keys: tuple[str, ...] = ()
    max_body_bytes: int = 4 * 1024 * 1024
    address: str = ""


class Pipeline(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Which stages of one CRM pipeline are won and lost; any other is open.

    `stages` is the order of the open ones. `probabilities` are the chances (0 to 1) to be
    won from a stage, meant until 20 deals of the pipeline are closed.
    """

    won: tuple[str, ...] = ("closed_won",)
    lost: tuple[str, ...] = ("closed_lost",)
    stages: tuple[str, ...] = ()
    probabilities: dict[str, float] = msgspec.field(default_factory=dict)


class ChannelRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One row of the channel table: every condition given must hold; `*` is any value.

    A condition is a tuple of alternatives, compared without case; an alternative that
    ends in `*` is a prefix, one that starts with it a suffix.
    """

    channel: str
    source: tuple[str, ...] = ()
    medium: tuple[str, ...] = ()
    campaign: tuple[str, ...] = ()
    term: tuple[str, ...] = ()
    content: tuple[str, ...] = ()
    click_id: tuple[str, ...] = ()
    referrer: tuple[str, ...] = ()
    referrer_kind: tuple[str, ...] = ()
    source_kind: tuple[str, ...] = ()
    kind: tuple[str, ...] = ()


class Identity(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Values that never name a person, and how many links make an id a shared one."""

    guards: tuple[str, ...] = (
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
        "test@*",
        "noreply@*",
    )
    persons_per_visitor: int = 50
    emails_per_user_id: int = 10


class Lookback(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How many days before a conversion a touch still takes part.

    `stage` is for conversions at a stage, `stages` for single ones of them.
    """

    lead: int = 90
    opportunity: int = 90
    won: int = 90
    stage: int = 90
    stages: dict[str, int] = msgspec.field(default_factory=dict)


class Warmth(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How an account warms and cools: thresholds of its score, weights by kind of touch.

    `weights` are laid over the defaults (models.warmth.WEIGHTS); `hot_page` is that of a
    web session with a page of `hot_pages`. A transition that comes to light more than
    `alert_after_hours` late alerts nobody.
    """

    half_life_days: float = 14.0
    warm: float = 25.0
    warming: float = 10.0
    cooling: float = 15.0
    cold: float = 5.0
    weights: dict[str, float] = msgspec.field(default_factory=dict)
    hot_pages: tuple[str, ...] = ("/pricing", "/demo", "/compare", "/comparison")
    alert_after_hours: float = 24.0


class Lanes(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the lanes batch: larger batches cost less a fact, smaller ones answer sooner."""

    batch_facts: int = 4000
    cached_states: int = 60_000
    linger_ms: int = 5
    fetch_wait_ms: int = 25
    instance: str = ""
    version: str = ""
    preview: bool = False


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that an operator may set."""

    kafka: Kafka = Kafka()
    redis: Redis = Redis()
    web: Web = Web()
    lanes: Lanes = Lanes()
    identity: Identity = Identity()
    lookback: Lookback = Lookback()
    warmth: Warmth = Warmth()
    partitions: int = 8
    topic_prefix: str = ""
    max_fact_bytes: int = 4 * 1024 * 1024
    currency: str = "USD"
    time_zone: str = "UTC"
    session_gap_minutes: int = 30
    session_hours: int = 24
    direct_touches: bool = True
    deal_contacts_only: bool = False
    form_events: tuple[str, ...] = ("Form Submitted", "Form Filled", "Lead Captured", "Signed Up")
    trial_events: tuple[str, ...] = ("Trial Started",)
    milestones: tuple[str, ...] = ()
    own_domains: tuple[str, ...] = ()
    excluded_referrers: tuple[str, ...] = (
        "paypal.com",
        "stripe.com",
        "accounts.google.com",
        "login.microsoftonline.com",
        "login.live.com",
        "appleid.apple.com",
        "klarna.com",
        "adyen.com",
        "okta.com",
        "auth0.com",
        "onelogin.com",
        "checkout.shopify.com",
        "pay.google.com",
        "pay.amazon.com",
    )
    free_mail_domains: tuple[str, ...] = ()
    filters: tuple[str, ...] = ("industry", "segment")
    conversion_stages: tuple[str, ...] = ()
    time_decay_half_life_days: float = 7.0
    markov_order: Literal[1, 2, 3] = 1
    team_split: dict[str, Decimal] = msgspec.field(
        default_factory=lambda: {"marketing": Decimal(50), "sales": Decimal(50)}
    )
    models: dict[str, CustomModel] = msgspec.field(default_factory=dict)
    pipelines: dict[str, Pipeline] = msgspec.field(default_factory=dict)
    lead_quality: str = "none"
    channels: tuple[ChannelRule, ...] = ()
    rates: tuple[Rate, ...] = ()
    destinations: dict[str, Destination] = msgspec.field(default_factory=dict)
    routes: tuple[Route, ...] = ()
    delivery: Delivery = Delivery()

    def tables_of(self, lane: str) -> str:
        """The lane's name as the keys of its tables say it: each version of the rules has its own."""
        return f"{self.lanes.version}.{lane}" if self.lanes.version else lane

    def pipeline(self, name: str | None) -> Pipeline:
        """The pipeline's stages, those of `default` where it is not listed."""
        return self.pipelines.get(name or "default") or self.pipelines.get("default") or Pipeline()


def parse_settings(raw: object) -> Settings:
    """Settings from a parsed TOML document; BadInput names the setting that is wrong."""
    try:
        settings = msgspec.convert(raw, Settings)
    except msgspec.ValidationError as error:
        raise misfit(error) from error  # which names types and no values: one may be a secret
    return check(settings)


def check(settings: Settings) -> Settings:
    """The settings when every value is possible; else BadInput names the first that is not."""
    if settings.time_zone not in available_timezones():
        raise BadInput("time_zone", "an IANA time zone such as Europe/Berlin", settings.time_zone)
    ZoneInfo(settings.time_zone)
    for name, value in (("partitions", settings.partitions), ("lanes.batch_facts", settings.lanes.batch_facts)):
        if value < 1:
            raise BadInput(name, "a whole number from 1", value)
    for name in settings.filters:
        if not name or name != name.strip().lower():
            raise BadInput("filters", "names of attributes in lower case", name)
    if settings.lead_quality != settings.lead_quality.strip().lower():
        raise BadInput("lead_quality", "none, first_channel or an attribute in lower case", settings.lead_quality)
    check_rates(settings.currency, settings.rates)
    check_half_life("time_decay_half_life_days", settings.time_decay_half_life_days)
    _check_lookback(settings.lookback)
    check_destinations(settings.destinations)
    check_routes(settings.routes, settings.destinations)
    check_delivery(settings.delivery)
    _check_warmth(settings.warmth)
    for stage in settings.conversion_stages:
        if not stage or stage != stage.strip():
            raise BadInput("conversion_stages", "names of deal stages", stage)
    _check_team_split(settings.team_split)
    check_models(settings.models)
    return msgspec.structs.replace(settings, models=normalised(settings.models))


def _check_lookback(lookback: Lookback) -> None:
    days = msgspec.structs.asdict(lookback)
    days |= {f"stages.{stage}": each for stage, each in days.pop("stages").items()}
    for name, each in days.items():
        if each < 0:
            raise BadInput(f"lookback.{name}", "a number of days from 0", each)


def _check_team_split(shares: dict[str, Decimal]) -> None:
    for team, share in shares.items():
        if not (share.is_finite() and share >= 0) or team != team.strip().lower():
            raise BadInput(f"team_split.{team}", "a team in lower case with a share from 0", str(share))
    if not any(shares.values()):
        raise BadInput("team_split", "at least one team with a share above 0", {})


def _check_warmth(warmth: Warmth) -> None:
    check_half_life("warmth.half_life_days", warmth.half_life_days)
    if not 0 < warmth.cold <= warmth.warming <= warmth.warm or not warmth.cold <= warmth.cooling <= warmth.warm:
        thresholds = f"{warmth.cold}, {warmth.warming}, {warmth.cooling}, {warmth.warm}"
        raise BadInput("warmth", "0 < cold ≤ warming ≤ warm and cold ≤ cooling ≤ warm", thresholds)
    for kind, weight in warmth.weights.items():
        if weight < 0:
            raise BadInput(f"warmth.weights.{kind}", "a weight from 0", weight)


def rules_fingerprint(settings: Settings) -> str:
    """The settings that decide numbers, as text: tables made under another are stale."""
    skipped = {"kafka", "redis", "web", "lanes", "topic_prefix", "max_fact_bytes", "destinations", "routes", "delivery"}
    rules = {name: value for name, value in msgspec.structs.asdict(settings).items() if name not in skipped}
    return msgspec.json.encode(rules, order="deterministic").decode()
