"""Which attribution models and kinds of conversions there are under these settings."""

from collections.abc import Mapping
from typing import NamedTuple

from models.attribution import BUILT_IN, MARKOV
from models.custom import CustomModel
from models.settings import Settings

OPEN = "open"
"""Kind of conversion: the opportunities of deals that are open now, on the days of their creation."""
STAGE = "stage:"
"""What the kind of a conversion at a configured stage begins with; the stage's name follows."""


def conversion_kinds(settings: Settings) -> tuple[str, ...]:
    """The kinds of conversions whose credits are kept: `stage:<name>` for each configured stage."""
    return (
        "lead",
        "opportunity",
        OPEN,
        *(f"{STAGE}{name}" for name in dict.fromkeys(settings.conversion_stages)),
        "won",
    )


def kept_models(settings: Settings) -> tuple[str, ...]:
    """The models that cells keep, in their order."""
    return (*BUILT_IN, *settings.models)


def every_model(settings: Settings) -> tuple[str, ...]:
    """Every model that can be asked for; `markov` is solved when read."""
    return (*kept_models(settings), MARKOV)


class Described(NamedTuple):
    """A model in words: its kind, what it does, and where it is from."""

    name: str
    kind: str
    words: str
    origin: str


_WORDS = {
    "first_touch": ("position", "all to the first touch", "all tools"),
    "last_touch": ("position", "all to the last touch", "all tools"),
    "last_non_direct": ("position", "all to the latest touch that is not direct", "Google Analytics, Matomo"),
    "lead_creation": ("position", "all to the touch at which the lead came", "Marketo Measure"),
    "opportunity_creation": ("position", "all to the touch at which the opportunity came", "Marketo Measure"),
    "linear": ("position", "the same to each touch", "all tools"),
    "position_based": ("position", "first 40, last 40, rest 20", "Google Ads, Adobe, Snowplow, Matomo"),
    "u_shaped": ("position", "first 40, lead 40, rest 20", "HubSpot, Ruler"),
    "w_shaped": ("position", "first 30, lead 30, opportunity 30, rest 10", "HubSpot, Marketo Measure"),
    "full_path": (
        "position",
        "first, lead, opportunity, close 22.5 each, rest 10",
        "HubSpot, Marketo Measure, Ruler",
    ),
    "u_shaped_strict": ("position", "first 50, lead 50", "Marketo Measure"),
    "j_shaped": ("position", "first 20, last 60, rest 20", "Adobe"),
    "inverse_j": ("position", "first 60, last 20, rest 20", "Adobe"),
    "participation": ("participation", "100 to every distinct touch; does not add up", "Adobe"),
    "shapley": ("data-driven", "the Shapley value over the set of channels of a path", "DP6"),
}


def described(settings: Settings) -> list[Described]:
    """Every model, built-in ones first."""
    shares = ", ".join(f"{team} {share}" for team, share in settings.team_split.items())
    half_life, order = settings.time_decay_half_life_days, settings.markov_order
    words = {
        **_WORDS,
        "time_decay": ("decay", f"half for each {half_life:g} days of age", "Adobe, Google Ads"),
        "team_split": ("team", f"{shares}, divided equally within", "Bohrt, LeadFuze"),
        MARKOV: ("data-driven", f"removal effects of channels, order {order}; by channel only", "ChannelAttribution"),
    }
    built_in = [Described(name, *words[name]) for name in (*BUILT_IN, MARKOV)]
    return [*built_in, *(Described(name, "custom", _words(each), "settings") for name, each in settings.models.items())]


def _words(model: CustomModel) -> str:
    """What a custom model weighs by."""
    said = [f"positions {_table(model.positions)}"] if model.positions else []
    for name in ("kinds", "teams", "channels", "roles", "stages"):
        if table := getattr(model, name):
            said.append(f"{name} {_table(table)}")
    if model.decay:
        said.append(f"half for each {model.decay.half_life_days:g} days of age")
    if model.caps:
        most = "" if model.caps.max is None else f" {model.caps.max} %"
        said.append(f"at most{most} by {model.caps.by}")
    return "; ".join(said) or "the same to each touch"


def _table(factors: Mapping[str, object]) -> str:
    return ", ".join(f"{name} {factor}" for name, factor in factors.items())
