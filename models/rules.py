"""The settings made ready to decide with: look-ups, channel table, rates."""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property, lru_cache

from models.arrivals import Arrive, arrivals
from models.attribution import whole
from models.catalogue import OPEN, STAGE, conversion_kinds, kept_models
from models.channels import Classify, classifier
from models.custom import CustomModel
from models.facts import IsBot
from models.money import Rates
from models.referrers import referrer_kind
from models.settings import Settings
from models.times import DAY, HOUR, MINUTE
from models.warmth import Scale


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
    def arrive(self) -> Arrive:
        """Where a hit of this url, referrer and utm values came from, and its path."""
        return arrivals(self.settings, self.registrable)

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
    def conversions(self) -> tuple[str, ...]:
        """The kinds of conversions whose credits are kept."""
        return conversion_kinds(self.settings)

    @cached_property
    def deal_conversions(self) -> tuple[str, ...]:
        """The kinds of conversions that a deal makes and that stand whatever becomes of it."""
        return tuple(kind for kind in self.conversions if kind not in ("lead", OPEN))

    @cached_property
    def scale(self) -> Scale:
        """What warms an account, and how fast it cools."""
        return Scale(self.settings.warmth)

    @cached_property
    def lookback(self) -> dict[str, int]:
        """Microseconds before a conversion, by kind, in which touches take part."""
        days = self.settings.lookback
        kinds = {"lead": days.lead, "opportunity": days.opportunity, "won": days.won}
        stages = {f"{STAGE}{name}": days.stages.get(name, days.stage) for name in self.settings.conversion_stages}
        return {kind: each * DAY for kind, each in {**kinds, **stages}.items()}

    # --- attribution models -----------------------------------------------------------

    @cached_property
    def models(self) -> tuple[str, ...]:
        """The models that cells keep, in their order."""
        return kept_models(self.settings)

    @cached_property
    def width(self) -> int:
        """Numbers of a cell: count (millionths) and amount (minor units) of each model in turn."""
        return 2 * len(self.models)

    @cached_property
    def custom(self) -> tuple[CustomModel, ...]:
        """The models of the settings, in the order in which cells keep them."""
        return tuple(self.settings.models.values())

    @cached_property
    def weighs_roles(self) -> bool:
        """Does any model ask for the roles of people?"""
        return any(model.weighs_roles for model in self.custom)

    @cached_property
    def team_shares(self) -> dict[str, int]:
        """What `team_split` gives each team, in proportion."""
        shares = whole([Fraction(share) for share in self.settings.team_split.values()])
        return dict(zip(self.settings.team_split, shares or (), strict=True))

    @cached_property
    def half_life(self) -> int:
        """Microseconds in which `time_decay` halves a weight."""
        return round(self.settings.time_decay_half_life_days * DAY)
