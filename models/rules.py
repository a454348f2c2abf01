"""The settings made ready to decide with: look-ups, channel table, rates."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache

from models.channels import Classify, classifier
from models.facts import IsBot
from models.money import Rates
from models.referrers import referrer_kind
from models.settings import Settings
from models.times import DAY, HOUR, MINUTE


@dataclass(frozen=True)
class Rules:
    """Settings plus what pure code cannot hold itself.

    `registrable` gives a host's registrable domain by the public suffix list (None
    without one); `free_mail` says whether a mail domain gives addresses to anybody;
    `is_bot` whether a user agent is a known bot's.
    """

    settings: Settings
    registrable: Callable[[str], str | None]
    free_mail: Callable[[str], bool]
    is_bot: IsBot = lambda agent: False

    @cached_property
    def classify(self) -> Classify:
        """The channel of an origin and touch kind."""
        return classifier(self.settings.channels, referrer_kind)

    @cached_property
    def is_hot(self) -> Callable[[str], bool]:
        """Is the path of a page one that only those look at who mean to buy?"""
        pages = self.settings.warmth.hot_pages
        return lru_cache(maxsize=50_000)(lambda path: any(page in path for page in pages))

    @cached_property
    def rates(self) -> Rates:
        """The operator's dated rates."""
        return Rates(self.settings.currency, self.settings.rates)

    @cached_property
    def gap(self) -> int:
        """Microseconds without a hit that end a session."""
        return self.settings.session_gap_minutes * MINUTE

    @cached_property
    def longest(self) -> int:
        """Microseconds after which a session ends whatever happens."""
        return self.settings.session_hours * HOUR

    @cached_property
    def lookback(self) -> dict[str, int]:
        """Microseconds before a conversion, by kind, in which touches take part."""
        kinds = ("lead", "opportunity", "won")
        return {kind: getattr(self.settings.lookback, kind) * DAY for kind in kinds}
