"""What an alert says of a transition: which touches lifted the account, or what it stood like when it fell.

None of it depends on when the alert is made: all is as of the transition's instant, but
for the account's name and attributes.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import msgspec

from models.alerts import AccountOf, Alert, Cause, Cooled, Low, OpenDeal, Score, Share, alert_id
from models.course import COLD, COOLING, History, Transition
from models.deals import Deal, pipeline_of
from models.pipeline import NONE, Stay, days_between, stays_of
from models.profiles import Profile
from models.rules import Rules
from models.times import to_text
from models.touches import Touch
from models.usual import Usual, Usuals
from models.warmth import HOT_PAGE, Scale, factor, shown

MOST_CAUSES = 20
LAST_TOUCHES = 3
INACTIVE = "inactive"
"""The kind of a cause that is no touch: the person counts no longer as active."""


def weight_of(touch: Touch, scale: Scale) -> int:
    """What a touch adds to its account's score."""
    return scale.weight(HOT_PAGE if touch.hot else touch.kind)


Personal = tuple[Touch, str]
"""A touch and the person whose it is."""


class Scene(NamedTuple):
    """An account as its alerts see it.

    `between` gives its touches from one instant up to another, oldest first, `before` those
    up to an instant, newest first; `owner_at` who worked the account then.
    """

    account: str
    profile: Profile
    history: History
    deals: Sequence[Deal]
    owner_at: Callable[[int], str | None]
    between: Callable[[int, int], Iterable[Personal]]
    before: Callable[[int], Iterable[Personal]]
    rules: Rules

    @property
    def scale(self) -> Scale:
        """What a score is made by."""
        return self.rules.scale


class Draft(NamedTuple):
    """An alert without what deals usually take, which only all accounts together say; the pipeline of each deal."""

    alert: Alert
    pipelines: Mapping[str, str]


def finished(draft: Draft, usuals: Usuals) -> Alert:
    """The alert with the usual days of its deals' stages."""
    alert, cooled = draft.alert, draft.alert.cooled

    def measured(deals: Iterable[OpenDeal]) -> tuple[OpenDeal, ...]:
        return _overdue_first(_with_usual(deal, draft.pipelines, usuals) for deal in deals)

    return msgspec.structs.replace(
        alert,
        deals=measured(alert.deals),
        cooled=cooled and msgspec.structs.replace(cooled, deals=measured(cooled.deals)),
    )


def _with_usual(deal: OpenDeal, pipelines: Mapping[str, str], usuals: Usuals) -> OpenDeal:
    usual = usuals.get((pipelines[deal.deal_id], deal.stage or NONE), Usual())
    return msgspec.structs.replace(deal, median_days=usual.median, p90_days=usual.p90)


def drafted(scene: Scene, transition: Transition, resolves: str | None = None, late: bool = False) -> Draft:
    """The alert of a transition; `resolves` is the alert sent before it."""
    pipelines = {deal.id: pipeline_of(deal) for deal in scene.deals}
    return Draft(alert_of(scene, transition, resolves, late), pipelines)


def id_of(account: str, transition: Transition) -> str:
    """The id of the transition's alert."""
    return alert_id(account, transition.name, to_text(transition.at))


def alert_of(scene: Scene, transition: Transition, resolves: str | None, late: bool) -> Alert:
    """The alert of a transition; `resolves` is the alert sent before it."""
    lifted = causes_of(scene, transition)
    total = sum(contribution for _, contribution in lifted)
    return Alert(
        alert_id=id_of(scene.account, transition),
        transition=transition.name,
        source=transition.was,
        target=transition.state,
        at=to_text(transition.at),
        account=_account(scene, transition.at),
        score=_score(transition, scene.scale),
        rewarmed=transition.rewarmed,
        causes=tuple(_cause(*each, total) for each in lifted[:MOST_CAUSES]) or _inactive(transition),
        people=tuple(Share(value, share, person=name) for name, value, share in _parts(lifted, total, _person)),
        teams=tuple(Share(value, share, team=name) for name, value, share in _parts(lifted, total, _team)),
        cooled=cooled_before(scene, transition) if transition.is_upward else None,
        last_touches=() if transition.is_upward else last_touches(scene, transition.at),
        deals=stalled(scene, transition.at),
        resolves=resolves,
        late=late,
    )


def _account(scene: Scene, at: int) -> AccountOf:
    return AccountOf(scene.account, scene.profile.name, owner_of(scene, at), {**scene.profile.attributes})


def _score(transition: Transition, scale: Scale) -> Score:
    low = None
    if transition.low_at is not None and transition.low is not None:
        low = Low(to_text(transition.low_at), transition.low)
    return Score(transition.before, transition.after, scale.crossed(transition.state), low)


# --- what lifted it ---------------------------------------------------------------------


def causes_of(scene: Scene, transition: Transition) -> list[tuple[Personal, int]]:
    """The touches that lifted the score from its low point and what each contributed, the greatest first."""
    return sorted(_contributions(scene, transition), key=_contributed, reverse=True)


def main_cause(scene: Scene, transition: Transition) -> Personal | None:
    """The touch that contributed most to lifting the score; None: it was not lifted."""
    most = max(_contributions(scene, transition), key=_contributed, default=None)
    return most and most[0]


def _contributions(scene: Scene, transition: Transition) -> list[tuple[Personal, int]]:
    if not transition.is_upward or transition.low_at is None:
        return []
    scale, by = scene.scale, factor(transition.active)
    return [
        (each, scale.decayed(weight, transition.at - each[0].at) * by)
        for each in scene.between(transition.low_at, transition.at)
        if (weight := weight_of(each[0], scale))
    ]


def _contributed(each: tuple[Personal, int]) -> tuple[int, tuple[int, str, str, str]]:
    """Sorts by what a touch contributed, the latest last where two did as much."""
    (touch, _), contribution = each
    return contribution, touch.order


def _cause(each: Personal, contribution: int, total: int) -> Cause:
    return touched(each, shown(contribution), _share(contribution, total))


def touched(each: Personal, contribution: float | None = None, share: float | None = None) -> Cause:
    """A touch in the words of an alert."""
    touch, person = each
    return Cause(
        touch_id=touch.id,
        kind=touch.kind,
        at=to_text(touch.at),
        team=touch.team,
        channel=touch.channel,
        source=touch.source,
        campaign=touch.campaign,
        rep=touch.rep,
        person=person,
        contribution=contribution,
        share=share,
    )


def _share(contribution: int, total: int) -> float:
    return round(contribution / total, 6) if total else 0.0


def _person(each: Personal) -> str:
    return each[1]


def _team(each: Personal) -> str:
    return each[0].team


def _parts(
    lifted: Iterable[tuple[Personal, int]], total: int, name: Callable[[Personal], str]
) -> Iterator[tuple[str, float, float]]:
    """Sums of what was contributed by name, the greatest first."""
    sums: dict[str, int] = {}
    for each, contribution in lifted:
        sums[name(each)] = sums.get(name(each), 0) + contribution
    for part, contribution in sorted(sums.items(), key=lambda each: (-each[1], each[0])):
        yield part, shown(contribution), _share(contribution, total)


# --- what let it go cold ----------------------------------------------------------------


def _inactive(transition: Transition) -> tuple[Cause, ...]:
    """That a person counts no longer, where that made the difference."""
    if transition.inactive is None:
        return ()
    lost = round(transition.after - transition.before, 6)
    return (Cause(None, INACTIVE, to_text(transition.at), person=transition.inactive, contribution=lost),)


def cooled_before(scene: Scene, transition: Transition) -> Cooled | None:
    """The last time that the account fell before it was lifted, and what it stood like then."""
    fell = [each for each in scene.history if each.at < transition.at and each.state in (COOLING, COLD)]
    if not fell:
        return None
    return Cooled(
        alert_id=id_of(scene.account, fell[-1]),
        at=to_text(fell[-1].at),
        last_touches=last_touches(scene, fell[-1].at),
        owner=owner_of(scene, fell[-1].at),
        deals=stalled(scene, fell[-1].at),
    )


def last_touches(scene: Scene, at: int) -> tuple[Cause, ...]:
    """The last three touches with weight up to an instant, newest first."""
    return tuple(touched(each) for each in islice(last_of(scene, at), LAST_TOUCHES))


def last_of(scene: Scene, at: int) -> Iterator[Personal]:
    """The touches with weight up to an instant, newest first."""
    for each in scene.before(at):  # one by one, also where this is compiled: few are asked for
        if weight_of(each[0], scene.scale):
            yield each


def owner_of(scene: Scene, at: int) -> str | None:
    """Who worked the account at an instant; else the owner of the open deal that changed last."""
    owner = scene.owner_at(at)
    if owner is not None:
        return owner
    owned = [deal for deal in scene.deals if deal.owner and _stay(deal, at, scene.rules)]
    latest = max(owned, key=lambda deal: (deal.changed_at, deal.id), default=None)
    return latest.owner if latest else None


def stalled(scene: Scene, at: int) -> tuple[OpenDeal, ...]:
    """The deals open at an instant and how long they were in their stage."""
    return _overdue_first(filter(None, (_open_deal(deal, at, scene.rules) for deal in scene.deals)))


def _overdue_first(deals: Iterable[OpenDeal]) -> tuple[OpenDeal, ...]:
    """Those longest over the usual first."""
    return tuple(sorted(deals, key=lambda deal: ((deal.median_days or 0) - (deal.days_in_stage or 0), deal.deal_id)))


def _open_deal(deal: Deal, at: int, rules: Rules) -> OpenDeal | None:
    stay = _stay(deal, at, rules)
    if stay is None:
        return None
    return OpenDeal(
        deal_id=deal.id,
        name=deal.name,
        stage=None if stay.stage == NONE else stay.stage,
        stage_since=to_text(stay.begin),
        days_in_stage=days_between(stay.begin, at, rules.settings.time_zone),
        amount=deal.amount,
        currency=deal.currency or rules.settings.currency,
        owner=deal.owner,
    )


def _stay(deal: Deal, at: int, rules: Rules) -> Stay | None:
    """In which open stage the deal was at an instant; None: it was not open then."""
    if deal.created_at is None or deal.created_at > at or deal.deleted:
        return None
    stays = stays_of(deal, rules)
    return next((stay for stay in stays if stay.begin <= at and (stay.end is None or at < stay.end)), None)
