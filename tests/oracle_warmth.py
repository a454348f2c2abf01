"""Warmth from the written rules alone (rules.md section 9, rules-more.md): scores, states, transitions, causes, alerts.

It shares no code with the product. Slow and obvious: every score is added up anew, with 60 digits.
"""

# ruff: noqa: PLR0911 - one rule after another, as they are written
from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import ROUND_FLOOR, Context, Decimal
from functools import lru_cache

from tests.oracle import DAY, HOUR, Touch

EXACT = Context(prec=60)
NOTHING = Decimal("1e-40")  # two scores as near as this are the same: the digits end before
HOT_PAGES = ("/pricing", "/demo", "/compare", "/comparison")
# "web session 1 (with a pricing, demo or comparison page 3), e-mail click 2, content download 4, webinar 6, form fill
# 8, trial or product milestone 8, reply 6, call 6, meeting 10, demo 12, quote 10"; "Chat 6, event as webinar, e-mail
# opens and unlisted kinds 0"
WEIGHTS = {
    "web_session": 1,
    "email_clicked": 2,
    "email_click": 2,
    "content_download": 4,
    "webinar": 6,
    "event": 6,
    "form_fill": 8,
    "trial_started": 8,
    "trial": 8,
    "product_milestone": 8,
    "email_replied": 6,
    "email_reply": 6,
    "chat": 6,
    "call": 6,
    "meeting": 10,
    "demo": 12,
    "quote_sent": 10,
    "quote": 10,
}
UPWARD = {"warming": "warming", "warm": "warmed"}
DOWNWARD = {"cooling": "cooling", "cold": "cooled"}


@dataclass(frozen=True)
class Push:
    """A touch as warmth sees it."""

    at: int
    weight: Decimal
    person: str
    id: str = ""
    team: str = ""


@dataclass(frozen=True)
class Law:
    half_life: Decimal = Decimal(14 * DAY)
    active: int = 30 * DAY
    warm: Decimal = Decimal(25)
    warming: Decimal = Decimal(10)
    cooling: Decimal = Decimal(15)
    cold: Decimal = Decimal(5)


@dataclass(frozen=True)
class Transition:
    at: int
    before: str
    after: str
    name: str
    rewarmed: bool


LAW = Law()


def weight_of(touch: Touch, weights: dict[str, int] = WEIGHTS, hot_pages: Sequence[str] = HOT_PAGES) -> Decimal:
    """ "A web touch weighs 3 when a page seen under it has a path containing one of `hot_pages`, else 1" """
    if touch.kind == "web_session" and any(hot in (page or "") for page in touch.pages for hot in hot_pages):
        return Decimal(3)
    return Decimal(weights.get(touch.kind, 0))


def pushes(touches: Sequence[Touch]) -> list[Push]:
    return [Push(t.at, weight_of(t), t.owner or "", t.id, t.team or "") for t in touches]


# ---------------------------------------------------------------------------------------------------------------------
# Score and state


def share(push: Push, at: int, law: Law = LAW) -> Decimal:
    """w x 2^(-(t-time)/half-life)"""
    return EXACT.multiply(push.weight, halved(at - push.at, law.half_life))


@lru_cache(maxsize=100_000)
def halved(age: int, half_life: Decimal) -> Decimal:
    return EXACT.power(Decimal(2), EXACT.divide(Decimal(-age), half_life))


def added(touches: Sequence[Push], at: int, law: Law = LAW) -> Decimal:
    total = Decimal(0)
    for push in sorted(touches, key=lambda each: (each.at, each.id)):
        total = EXACT.add(total, share(push, at, law))
    return total


def factor(touches: Sequence[Push], at: int, law: Law = LAW, before: bool = False) -> Decimal:
    """ "F = min(2, 1.25^(k-1)), k = distinct persons with a touch of weight > 0 and t-30 d < time <= t; F = 1 at
    k = 0"; `before`: just before t."""
    people = {
        push.person
        for push in touches
        if push.weight > 0 and (at - law.active <= push.at < at if before else at - law.active < push.at <= at)
    }
    return min(Decimal(2), EXACT.power(Decimal("1.25"), Decimal(len(people) - 1))) if people else Decimal(1)


def score(touches: Sequence[Push], at: int, law: Law = LAW) -> Decimal:
    """ "score(t) = F(t) x sum w x 2^(-(t-time)/half-life), time <= t" """
    known = [push for push in touches if push.at <= at]
    return EXACT.multiply(factor(known, at, law), added(known, at, law))


def score_before(touches: Sequence[Push], at: int, law: Law = LAW) -> Decimal:
    """Just before t: what happens at t is not yet."""
    known = [push for push in touches if push.at < at]
    return EXACT.multiply(factor(known, at, law, before=True), added(known, at, law))


def at_least(value: Decimal, threshold: Decimal) -> bool:
    return EXACT.subtract(value, threshold) >= -NOTHING


def following(state: str, value: Decimal, lifted: bool, law: Law) -> str:
    """The state at an instant; `lifted`: a touch brings the score from below 10 to 10 or more."""
    if state == "cold":
        return "warm" if at_least(value, law.warm) else "warming" if at_least(value, law.warming) else "cold"
    if state == "warm":
        below = not at_least(value, law.cooling)
        return "cold" if not at_least(value, law.cold) else "cooling" if below else "warm"
    if at_least(value, law.warm):
        return "warm"
    if not at_least(value, law.cold):
        return "cold"
    return "warming" if state == "cooling" and lifted else state


def falls(touches: Sequence[Push], since: int, threshold: Decimal, law: Law) -> int:
    """ "the first microsecond below the threshold, floor(t0 + half-life x log2(score(t0)/threshold)) + 1" """
    ratio = EXACT.divide(score(touches, since, law), threshold)
    span = EXACT.multiply(law.half_life, EXACT.divide(EXACT.ln(ratio), EXACT.ln(Decimal(2))))
    nearest = span.to_integral_value()
    whole = nearest if abs(EXACT.subtract(span, nearest)) < Decimal("1e-25") else span.to_integral_value(ROUND_FLOOR)
    return since + int(whole) + 1


def history(touches: Sequence[Push], law: Law = LAW) -> list[Transition]:
    """Every transition these touches will ever make, in order."""
    return list(transitions(tuple(touches), law))


@lru_cache(maxsize=1_000)
def transitions(touches: tuple[Push, ...], law: Law) -> tuple[Transition, ...]:
    instants = sorted({at for push in touches if push.weight > 0 for at in (push.at, push.at + law.active)})
    found: list[Transition] = []
    state = "cold"

    def move(at: int, after: str) -> None:
        nonlocal state
        if after != state:
            up = after == "warm" or (after == "warming" and state in ("cold", "cooling"))
            name = UPWARD[after] if up else DOWNWARD[after]
            warm_before = any(each.after == "warm" for each in found)
            found.append(Transition(at, state, after, name, up and warm_before))
            state = after

    for place, at in enumerate(instants):
        value = score(touches, at, law)
        touched = any(push.at == at and push.weight > 0 for push in touches)
        lifted = touched and not at_least(score_before(touches, at, law), law.warming) and at_least(value, law.warming)
        move(at, following(state, value, lifted, law))
        end = instants[place + 1] if place + 1 < len(instants) else None
        since = at
        while state != "cold":
            falling = falls(touches, since, law.cooling if state == "warm" else law.cold, law)
            if end is not None and falling >= end:
                break
            move(falling, following(state, score(touches, falling, law), False, law))
            since = falling
    return tuple(found)


def state_at(touches: Sequence[Push], at: int, law: Law = LAW) -> str:
    return ([each.after for each in history(touches, law) if each.at <= at] or ["cold"])[-1]


def next_after(touches: Sequence[Push], at: int, law: Law = LAW) -> Transition | None:
    return next((each for each in history(touches, law) if each.at > at), None)


# ---------------------------------------------------------------------------------------------------------------------
# Causes


def low_point(touches: Sequence[Push], transition: Transition, law: Law = LAW) -> tuple[int, Decimal]:
    """ "Low point = least score since the last transition, the latest of equals, just before a touch." """
    earlier = [each.at for each in history(touches, law) if each.at < transition.at]
    since = earlier[-1] if earlier else None
    candidates = sorted(
        {push.at for push in touches if (since is None or push.at > since) and push.at <= transition.at}
    )
    lows = [(at, score_before(touches, at, law)) for at in candidates]
    least = min(value for _, value in lows)
    return [(at, value) for at, value in lows if EXACT.subtract(value, least) <= NOTHING][-1]


def causes(touches: Sequence[Push], transition: Transition, law: Law = LAW) -> list[tuple[Push, Decimal]]:
    """ "touches from there to t, w x 2^(-(t-time)/half-life) x F(t), greatest first, ties the later first" """
    low, _ = low_point(touches, transition, law)
    f = factor([push for push in touches if push.at <= transition.at], transition.at, law)
    given = [push for push in touches if low <= push.at <= transition.at and push.weight > 0]
    given.sort(key=lambda push: (push.at, push.id.encode()), reverse=True)
    rows = [(push, EXACT.multiply(f, share(push, transition.at, law))) for push in given]
    return sorted(rows, key=lambda row: EXACT.minus(EXACT.quantize(row[1], NOTHING)))


def sums(rows: Sequence[tuple[Push, Decimal]], by: str) -> dict[str, Decimal]:
    found: dict[str, Decimal] = defaultdict(Decimal)
    for push, contribution in rows:
        found[getattr(push, by)] = EXACT.add(found[getattr(push, by)], contribution)
    return dict(found)


def last_touches(touches: Sequence[Push], at: int) -> list[Push]:
    """ "Downward: last three touches with weight" """
    given = [push for push in touches if push.at <= at and push.weight > 0]
    return sorted(given, key=lambda push: (push.at, push.id.encode()), reverse=True)[:3]


# ---------------------------------------------------------------------------------------------------------------------
# Which alerts are sent


def alerts(
    changes: Sequence[tuple[int, Sequence[Push]]], now: int, late: int = 24 * HOUR, law: Law = LAW
) -> list[Transition]:
    """The alerts of an account whose touches are these from each record time on, timers being looked at all the time.

    "After a change an alert is sent only when the present state differs from the one last alerted (first: cold). A
    transition more than 24 h older than the Kafka record time of the fact that revealed or rescheduled it counts as
    alerted, silently; a cooling computed ahead is alerted whenever its time is found passed."
    """
    sent: list[Transition] = []
    alerted, known, clock = "cold", list[Transition](), None
    for recorded_at, touches in [*changes, (now, changes[-1][1] if changes else [])]:
        for each in known:
            if (clock is None or each.at > clock) and each.at <= recorded_at and each.after != alerted:
                sent.append(each)
                alerted = each.after
        known, clock = history(touches, law), recorded_at
        past = [each for each in known if each.at <= recorded_at]
        if not past or past[-1].after == alerted:
            continue  # where every transition is withdrawn there is none to tell of
        # one that was sent before is not sent again: its id would be the same
        again = any((each.name, each.at) == (past[-1].name, past[-1].at) for each in sent)
        if not again and recorded_at - past[-1].at <= late:
            sent.append(past[-1])
        alerted = past[-1].after
    return sent
