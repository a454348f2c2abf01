"""Which channel a touch came through: an ordered table of rules, the first match wins.

Source: the rule table of our business rules, section 4, ordered as Google Analytics'
default channel group orders its own (https://support.google.com/analytics/answer/9756891).
"""

import re
from collections.abc import Callable, Iterable
from fnmatch import translate
from functools import lru_cache

import msgspec

from models.ids import snake
from models.settings import ChannelRule


class Origin(msgspec.Struct, frozen=True, array_like=True):
    """What a channel is decided by; all lower case, empty where absent.

    `click_id` is the name of the parameter, such as gclid; `referrer` a registrable domain.
    """

    source: str = ""
    medium: str = ""
    campaign: str = ""
    term: str = ""
    content: str = ""
    click_id: str = ""
    referrer: str = ""


PAID_MEDIUMS = ("cpc", "ppc", "cpm_paid", "paid", "paid*search", "paidsearch", "sem", "cpv", "cpa", "cpp", "paid*click")
SOCIAL_PAID = ("paid*social", "paidsocial", "social*paid", "socialpaid", "social*cpc", "cpc*social", "social*ads")
DEFAULT_RULES = (
    ChannelRule("direct", source=("direct", "(direct)"), medium=("", "none", "(none)", "(not set)")),
    ChannelRule("retargeting", medium=("retargeting", "remarketing", "*retarget*", "*remarket*")),
    ChannelRule(
        "retargeting",
        campaign=("*retarget*", "*remarket*"),
        medium=(*PAID_MEDIUMS, *SOCIAL_PAID, "display", "banner", "cpm"),
    ),
    ChannelRule("affiliate", medium=("affiliate", "affiliates")),
    ChannelRule("partner", medium=("partner", "partners", "co-marketing", "reseller")),
    ChannelRule("event", medium=("event", "events", "webinar", "webinars", "conference", "tradeshow", "trade-show")),
    ChannelRule("email", medium=("email", "e-mail", "e_mail", "e mail", "newsletter", "mail")),
    ChannelRule("sales_outbound", medium=("outbound", "sales", "sdr", "sales_outbound")),
    ChannelRule("product", medium=("product", "in-app", "in_app", "inapp")),
    ChannelRule("ai_assistant", medium=("ai", "ai_assistant", "ai-assistant", "chatbot", "llm")),
    ChannelRule("paid_social", medium=SOCIAL_PAID),
    ChannelRule("video", medium=PAID_MEDIUMS, source_kind=("video",)),
    ChannelRule("paid_social", medium=PAID_MEDIUMS, source_kind=("social",)),
    ChannelRule("paid_social", medium=PAID_MEDIUMS, click_id=("fbclid", "li_fat_id", "ttclid")),
    ChannelRule("paid_search", medium=PAID_MEDIUMS),
    ChannelRule("display", medium=("display", "banner", "cpm", "programmatic", "expandable", "interstitial", "native")),
    ChannelRule("video", medium=("video", "*video*")),
    ChannelRule(
        "organic_social",
        medium=(
            "social",
            "social-network",
            "social-media",
            "social_media",
            "social network",
            "social media",
            "sm",
            "organic-social",
            "organic_social",
            "organicsocial",
        ),
    ),
    ChannelRule("organic_social", medium=("organic",), source_kind=("social",)),
    ChannelRule("video", medium=("organic",), source_kind=("video",)),
    ChannelRule("ai_assistant", medium=("organic",), source_kind=("ai",)),
    ChannelRule("organic_search", medium=("organic", "organic_search", "organic-search", "seo")),
    ChannelRule("paid_search", click_id=("gclid", "gbraid", "wbraid", "msclkid")),
    ChannelRule("paid_social", click_id=("li_fat_id", "ttclid")),
    ChannelRule("email", source=("email", "e-mail", "e_mail", "newsletter")),
    ChannelRule("organic_search", source_kind=("search",)),
    ChannelRule("organic_social", source_kind=("social",)),
    ChannelRule("video", source_kind=("video",)),
    ChannelRule("ai_assistant", source_kind=("ai",)),
    ChannelRule("email", source_kind=("email",)),
    ChannelRule("referral", source=("*?",)),
    ChannelRule("organic_social", click_id=("fbclid",)),
    ChannelRule("organic_search", referrer_kind=("search",)),
    ChannelRule("organic_social", referrer_kind=("social",)),
    ChannelRule("video", referrer_kind=("video",)),
    ChannelRule("ai_assistant", referrer_kind=("ai",)),
    ChannelRule("email", referrer_kind=("email",)),
    ChannelRule("referral", referrer=("*?",)),
    ChannelRule("sales_outbound", kind=("call", "meeting", "demo", "email_replied", "quote_sent")),
    ChannelRule("email", kind=("email_opened", "email_clicked")),
    ChannelRule("event", kind=("webinar", "event")),
    ChannelRule("product", kind=("trial_started", "product_milestone")),
    ChannelRule("direct"),
)
_CONDITIONS = ("source", "medium", "campaign", "term", "content", "click_id", "referrer", "kind")

_WILD = re.compile(r"[*?\[]")

Classify = Callable[[Origin, str], str]


def classifier(rules: Iterable[ChannelRule], kind_of: Callable[[str], str | None]) -> Classify:
    """The function (origin, touch kind) → channel of a rule table.

    `kind_of` says what kind of site a source name or registrable domain is.
    """
    table = [(rule.channel, _compile(rule)) for rule in (*rules, *DEFAULT_RULES)]

    @lru_cache(maxsize=50_000)
    def classify(origin: Origin, kind: str) -> str:
        values = {name: getattr(origin, name, kind) for name in _CONDITIONS}
        values["source_kind"] = (origin.source and kind_of(origin.source)) or ""
        values["referrer_kind"] = (origin.referrer and kind_of(origin.referrer)) or ""
        return next(channel for channel, conditions in table if _holds(conditions, values))

    return classify


def _compile(rule: ChannelRule) -> list[tuple[str, re.Pattern[str]]]:
    wanted = ((name, getattr(rule, name)) for name in (*_CONDITIONS, "source_kind", "referrer_kind"))
    return [
        (name, re.compile("|".join(translate(_as_of(name, pattern)) for pattern in patterns)))
        for name, patterns in wanted
        if patterns
    ]


def _as_of(condition: str, pattern: str) -> str:
    """The pattern in the form of what it is compared with."""
    return snake(pattern) if condition == "kind" and not _WILD.search(pattern) else pattern.lower()


def _holds(conditions: list[tuple[str, re.Pattern[str]]], values: dict[str, str]) -> bool:
    return all(pattern.match(values[name]) for name, pattern in conditions)
