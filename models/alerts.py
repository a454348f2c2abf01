"""An alert: one account crossed a threshold of warmth, and why.

The value of a record in `alerts`, exactly as webhooks get it. All fields are always there;
instants are text (ISO 8601, UTC), scores plain numbers, amounts minor units. The id is that of
account, transition and instant, so the same transition has the same id however often it is found.
"""

import hashlib
from collections.abc import Callable, Sequence
from typing import Literal

import msgspec
from msgspec import Struct

from models.errors import BadInput
from models.times import parse_instant

State = Literal["cold", "warming", "warm", "cooling"]
Name = Literal["warming", "warmed", "cooling", "cooled"]
"""What a transition is called: the state it leads to, as something that has happened."""
Attribute = str | int | bool


class Low(Struct, frozen=True):
    """The least score since the transition before, just before a touch."""

    at: str
    value: float


class Score(Struct, frozen=True):
    """The score before and after, what it crossed, and where it had been lowest."""

    before: float
    after: float
    threshold: float
    low: Low | None = None


class Cause(Struct, frozen=True, rename="camel"):
    """A touch behind the transition; `contribution` is its part of the score.

    What is no touch has no id: the kind `inactive` says that the person counts no longer
    as active, which alone brought the score down.
    """

    touch_id: str | None
    kind: str
    at: str
    team: str | None = None
    channel: str | None = None
    source: str | None = None
    campaign: str | None = None
    rep: str | None = None
    person: str | None = None
    contribution: float | None = None
    share: float | None = None


class Share(Struct, frozen=True, omit_defaults=True):
    """What all touches of a person, or of a team, contributed to the score."""

    contribution: float
    share: float
    person: str | None = None
    team: str | None = None


class OpenDeal(Struct, frozen=True, rename="camel"):
    """An open deal of the account, and how long it has been where it is."""

    deal_id: str
    name: str | None = None
    stage: str | None = None
    stage_since: str | None = None
    days_in_stage: int | None = None
    median_days: int | None = None
    p90_days: int | None = None
    amount: int | None = None
    currency: str | None = None
    owner: str | None = None


class Cooled(Struct, frozen=True, rename="camel"):
    """What had cooled the account before it warmed up again."""

    alert_id: str
    at: str
    last_touches: tuple[Cause, ...] = ()
    owner: str | None = None
    deals: tuple[OpenDeal, ...] = ()


class AccountOf(Struct, frozen=True):
    """The account an alert is about."""

    id: str
    name: str | None = None
    owner: str | None = None
    attributes: dict[str, Attribute | None] = {}


_NAMES = {"source": "from", "target": "to", "alert_id": "alertId", "last_touches": "lastTouches"}


class Alert(Struct, frozen=True, rename=_NAMES):
    """A transition of an account from one state to another."""

    alert_id: str
    transition: Name
    source: State
    target: State
    at: str
    account: AccountOf
    score: Score
    version: int = 1
    rewarmed: bool = False
    causes: tuple[Cause, ...] = ()
    people: tuple[Share, ...] = ()
    teams: tuple[Share, ...] = ()
    cooled: Cooled | None = None
    last_touches: tuple[Cause, ...] = ()
    deals: tuple[OpenDeal, ...] = ()
    resolves: str | None = None
    late: bool = False
    test: bool = False

    @property
    def touches(self) -> Sequence[Cause]:
        """The touches that explain it: what warmed the account, or the last ones before it cooled."""
        return tuple(cause for cause in self.causes if cause.touch_id) or self.last_touches


def alert_id(account: str, transition: str, at: str) -> str:
    """The id of a transition, the same wherever it is computed."""
    return "al_" + hashlib.sha256(f"{account}\0{transition}\0{at}".encode()).hexdigest()[:32]


def sample_alert(id: str, at: str) -> Alert:
    """An alert that tests a destination: a made-up account warms up again after a retargeting ad."""
    touch = Cause(
        "touchline-test", "web_session", at, "marketing", "retargeting", None, "spring", None, None, 12.0, 1.0
    )
    demo = Cause("touchline-test-demo", "demo", at, "sales", rep="Grace")
    return Alert(
        alert_id=id,
        transition="warmed",
        source="warming",
        target="warm",
        at=at,
        account=AccountOf("touchline-test", "Touchline test", "Grace", {"industry": "testing"}),
        score=Score(18.0, 30.0, 25.0, Low(at, 3.0)),
        rewarmed=True,
        causes=(touch,),
        cooled=Cooled(alert_id("touchline-test", "cooled", at), at, (demo,), "Grace"),
        test=True,
    )


encode: Callable[[Alert], bytes] = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Alert).decode


def decode_alert(value: bytes | None) -> Alert:
    """The alert of a record; BadInput when it is none."""
    try:
        alert = _decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadInput("alert", "an alert as `alerts` has them", str(error)) from error
    parse_instant(alert.at, "alert.at")
    return alert
