"""Touches: the interactions that can earn credit, whatever they came from."""

from typing import NamedTuple

import msgspec

from models.channels import Origin
from models.facts import TouchFact
from models.rules import Rules

WEB_SESSION = "web_session"
FORM_FILL = "form_fill"
_TEAM_OF_KIND = {
    "call": "sales",
    "meeting": "sales",
    "demo": "sales",
    "email_replied": "sales",
    "quote_sent": "sales",
    "trial_started": "product",
    "product_milestone": "product",
}
_PLATFORM_OF_CLICK_ID = {
    "gclid": "google",
    "gbraid": "google",
    "wbraid": "google",
    "msclkid": "microsoft",
    "fbclid": "facebook",
    "li_fat_id": "linkedin",
    "ttclid": "tiktok",
}


class Touch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One interaction: when, what, through which channel; by whom is the journey's to say.

    `known_at` are the moments at which somebody became known in this touch's visit; a
    `hot` one saw a page of the setting `hot_pages`.
    """

    at: int
    id: str
    kind: str
    team: str
    channel: str
    source: str | None = None
    medium: str | None = None
    campaign: str | None = None
    term: str | None = None
    content: str | None = None
    landing_page: str | None = None
    rep: str | None = None
    known_at: tuple[int, ...] = ()
    click_id: str | None = None
    referrer: str | None = None
    visitor: str | None = None
    hot: bool = False

    @property
    def order(self) -> tuple[int, str, str, str]:
        """Sorts touches of a journey, oldest first; no two are equal, whatever ids visitors share."""
        return self.at, self.id, self.kind, self.visitor or ""


def team_of(kind: str) -> str:
    """The team whose work a kind of touch is, where the fact does not say."""
    return _TEAM_OF_KIND.get(kind, "marketing")


class Landing(NamedTuple):
    """Something done on the site: when, what, under which source, and the page that the source led to."""

    at: int
    id: str
    kind: str
    origin: Origin
    page: str


def site_touch(landing: Landing, visitor: str, rules: Rules, hot: bool = False) -> Touch:
    """A touch on the site: a session's arrival or a form filled in under it."""
    at, touch_id, kind, origin, page = landing
    source = origin.source or _PLATFORM_OF_CLICK_ID.get(origin.click_id) or origin.referrer
    return Touch(
        at=at,
        id=touch_id,
        kind=kind,
        team=team_of(kind),
        channel=rules.classify(origin, kind),
        source=source or None,
        medium=origin.medium or None,
        campaign=origin.campaign or None,
        term=origin.term or None,
        content=origin.content or None,
        landing_page=page or None,
        click_id=origin.click_id or None,
        referrer=origin.referrer or None,
        visitor=visitor,
        hot=hot,
    )


def recorded_touch(fact: TouchFact, rules: Rules) -> Touch:
    """The touch that another system recorded; its own channel wins over the table."""
    origin = Origin(fact.source or "", fact.medium or "", fact.campaign or "", "", fact.content or "")
    return Touch(
        at=fact.at,
        id=fact.id,
        kind=fact.kind,
        team=fact.team or team_of(fact.kind),
        channel=fact.channel or rules.classify(origin, fact.kind),
        source=fact.source,
        medium=fact.medium,
        campaign=fact.campaign,
        content=fact.content,
        landing_page=fact.landing_page,
        rep=fact.rep,
    )


def standing_version(versions: list[TouchFact]) -> TouchFact:
    """Which of the facts with one touch id stands.

    The latest `updatedAt` does, any before none; among equals the smaller timestamp,
    then the smaller bytes.
    """
    return min(versions, key=lambda fact: (_age(fact.updated_at), fact.at, fact.raw))


def _age(updated_at: int | None) -> tuple[bool, int]:
    return updated_at is None, -(updated_at or 0)


def merged_with_form(form: Touch, fact: TouchFact) -> Touch:
    """A form fill that another system recorded too: time, person and source are the form's."""
    kind = fact.kind
    return msgspec.structs.replace(form, kind=kind, team=fact.team or team_of(kind), rep=fact.rep)
