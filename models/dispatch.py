"""What becomes of an alert on its way to one destination: sent, tried again, given up.

    items wait in queues, one for each account × destination ─ decide ─▶ Wait or Send
                                                             ─ settle ─▶ done, again later, dead, off

A queue is served from its head by one process at a time, so the alerts of an account reach a
destination in order: while one is tried again, those behind it wait. Digests have queues of their
own, one for each route × destination. Time and chance come in as parameters.
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from models.destinations import Alertmanager, Destination, Slack, Webhook
from models.errors import BadInput
from models.times import HOUR, SECOND, to_micros, to_text

Outcome = Literal["delivered", "retry", "held", "dead", "off"]
GONE = 410
LONGEST_RETRY_AFTER = HOUR
MOST_IN_SLACK = 40
"""A text in Slack has a greatest length; what is more goes into the next message."""


class Delivery(Struct, frozen=True, forbid_unknown_fields=True):
    """How deliveries are tried; the time-out covers one attempt from its first step to the last."""

    timeout_seconds: float = 10.0
    retry_seconds: tuple[float, ...] = (5.0, 30.0, 120.0, 600.0, 1800.0)
    then_every_seconds: float = 3600.0
    spread: float = 0.2
    give_up_seconds: float = 86400.0
    in_flight: int = 8
    resend_seconds: float = 60.0
    link: str = ""


def check_delivery(rules: Delivery) -> None:
    """BadInput names the first value that is impossible."""
    for name in ("timeout_seconds", "then_every_seconds", "give_up_seconds", "resend_seconds"):
        if getattr(rules, name) <= 0:
            raise BadInput(f"delivery.{name}", "seconds above 0", getattr(rules, name))
    if any(wait <= 0 for wait in rules.retry_seconds):
        raise BadInput("delivery.retry_seconds", "seconds above 0", rules.retry_seconds)
    if not 0 <= rules.spread < 1:
        raise BadInput("delivery.spread", "a share from 0 to below 1", rules.spread)
    if rules.in_flight < 1:
        raise BadInput("delivery.in_flight", "a whole number from 1", rules.in_flight)


class Item(Struct, frozen=True, array_like=True):
    """An alert that waits for a destination; `offset` is its place in the topic `alerts`."""

    alert_id: str
    alert: bytes
    route: str | None
    queued_at: int
    not_before: int
    quiet: bool = False
    digest: str = ""
    matched: bool = True
    partition: int = 0
    offset: int = 0
    recorded_at: int = 0


class Firing(Struct, frozen=True, array_like=True):
    """What an Alertmanager holds to be so: an alert's labels and the rest, until it is resolved."""

    name: str
    started_at: str
    labels: dict[str, str]
    annotations: dict[str, str]


class Standing(Struct, frozen=True, array_like=True):
    """Where a queue stands beside its items.

    `taken` items from the head are being sent as one message, which stays the same however
    often it is tried. `part` counts the messages of one digest. `firing` is resent at `resend_at`.
    """

    attempts: int = 0
    first_at: int = 0
    retry_at: int = 0
    taken: int = 0
    digest: str = ""
    part: int = 0
    firing: tuple[Firing, ...] = ()
    resend_at: int = 0


class Wait(NamedTuple):
    """Nothing is to be done before `until`; None: nothing at all."""

    until: int | None


class Send(NamedTuple):
    """The items to send as one message; without any, what fires is sent again."""

    items: Sequence[Item]


class Abandon(NamedTuple):
    """The destination has been off for too long: the items are dead."""

    items: Sequence[Item]


class Answer(NamedTuple):
    """What a destination said: an HTTP or SMTP status, or the error that came instead of one."""

    delivered: bool
    status: int | None = None
    error: str | None = None
    retry_after: int | None = None


class Settled(NamedTuple):
    """What an attempt led to: `done` items leave the queue, which is looked at again at `due`."""

    outcome: Outcome
    standing: Standing
    done: int
    due: int | None


# --- before an attempt ------------------------------------------------------------------


def decide(
    destination: Destination, standing: Standing, items: Sequence[Item], now: int, rules: Delivery, *, off: bool
) -> Wait | Send | Abandon:
    """What to do with a queue now; `items` are those at its head, oldest first."""
    if not items:
        return _resend(standing, now, off=off)
    head = items[0]
    if off:
        until = _patience(head, rules)
        return Abandon(items[:1]) if now >= until else Wait(until)
    at = max(head.not_before, standing.retry_at)
    if now < at:
        return _resend(standing, now, until=at)
    return Send(items[: standing.taken or _together(destination, items, now)])


def _resend(standing: Standing, now: int, *, until: int | None = None, off: bool = False) -> Wait | Send:
    if not standing.firing or off:
        return Wait(until)
    if standing.resend_at <= now:
        return Send(())
    return Wait(standing.resend_at if until is None else min(until, standing.resend_at))


def _together(destination: Destination, items: Sequence[Item], now: int) -> int:
    """How many items from the head make one message: a digest, or what quiet hours held back."""
    head = items[0]
    if isinstance(destination, Webhook | Alertmanager) or not (head.quiet or head.digest):
        return 1
    alike = 1
    for item in items[1 : MOST_IN_SLACK if isinstance(destination, Slack) else len(items)]:
        if (item.quiet, item.digest) != (head.quiet, head.digest) or item.not_before > now:
            break
        alike += 1
    return alike


# --- after an attempt -------------------------------------------------------------------


def settle(
    standing: Standing,
    sent: Sequence[Item],
    answer: Answer,
    now: int,
    rules: Delivery,
    chance: float,
    firing: tuple[Firing, ...] = (),
) -> Settled:
    """Where a queue stands after an attempt to send items from its head.

    `chance` is from 0 to 1; `firing` is what fires once the items are delivered.
    """
    attempts, first_at = standing.attempts + 1, standing.first_at or now
    if answer.delivered:
        told = replace(standing, firing=firing, resend_at=now + _micros(rules.resend_seconds) if firing else 0)
        return _ended("delivered", told, sent)
    tried = replace(standing, attempts=attempts, first_at=first_at, taken=len(sent))
    if answer.status == GONE:
        return Settled("off", tried, 0, _patience(sent[0], rules))
    retry_at = now + wait_after(attempts, answer.retry_after, rules, chance)
    if retry_at > first_at + _micros(rules.give_up_seconds):
        return _ended("dead", standing, sent)
    return Settled("retry", replace(tried, retry_at=retry_at), 0, _earlier(retry_at, standing))


def abandoned(standing: Standing, items: Sequence[Item]) -> Settled:
    """Where a queue stands without items that were never delivered."""
    return _ended("dead", standing, items)


def waiting(standing: Standing, until: int | None) -> Settled:
    """Where a queue stands when nothing was to be done."""
    return Settled("held", standing, 0, until)


def resent(standing: Standing, now: int, rules: Delivery) -> Settled:
    """Where a queue stands after what fires was sent again, or could not be."""
    again = replace(standing, resend_at=now + _micros(rules.resend_seconds))
    waits = max(standing.retry_at, now) if standing.attempts else None
    return Settled("delivered", again, 0, again.resend_at if waits is None else min(waits, again.resend_at))


def _ended(outcome: Outcome, standing: Standing, sent: Sequence[Item]) -> Settled:
    """The next attempt is the first of the next item; a digest knows how many messages it had."""
    digest = sent[-1].digest
    part = standing.part + 1 if digest and digest == standing.digest else int(bool(digest))
    after = Standing(digest=digest, part=part, firing=standing.firing, resend_at=standing.resend_at)
    return Settled(outcome, after, len(sent), after.resend_at if after.firing else None)


def _earlier(at: int, standing: Standing) -> int:
    return min(at, standing.resend_at) if standing.firing else at


def _patience(item: Item, rules: Delivery) -> int:
    """How long an item waits for a destination that is off."""
    return max(item.queued_at, item.not_before) + _micros(rules.give_up_seconds)


def wait_after(attempts: int, retry_after: int | None, rules: Delivery, chance: float) -> int:
    """Microseconds until the next attempt, after so many; `chance` from 0 to 1 spreads the late ones.

    A receiver's Retry-After is obeyed up to an hour, but never below the first wait.
    """
    first = _micros((*rules.retry_seconds, rules.then_every_seconds)[0])
    if retry_after is not None:
        return min(max(retry_after, first), LONGEST_RETRY_AFTER)
    if attempts <= len(rules.retry_seconds):
        return _micros(rules.retry_seconds[attempts - 1])
    return _micros(rules.then_every_seconds * (1 + rules.spread * (2 * chance - 1)))


def parse_retry_after(text: str | None, now: int) -> int | None:
    """Microseconds of a Retry-After header, seconds or a date. Source: RFC 9110, 10.2.3."""
    if not text:
        return None
    if text.strip().isdigit():
        return min(int(text.strip()[:9]) * SECOND, LONGEST_RETRY_AFTER)
    try:
        date: datetime = parsedate_to_datetime(text)
    except (TypeError, ValueError):
        return None
    return max(0, to_micros(date if date.tzinfo else date.replace(tzinfo=UTC)) - now)


def _micros(seconds: float) -> int:
    return round(seconds * SECOND)


# --- what is written down ---------------------------------------------------------------


def entry(
    item: Item,
    destination: str,
    outcome: Outcome,
    at: int,
    *,
    attempt: int = 0,
    status: int | None = None,
    next_at: int | None = None,
    error: str | None = None,
) -> bytes:
    """A record of the topic `deliveries`: what was done about an alert."""
    return msgspec.json.encode(
        {
            "alertId": item.alert_id,
            "destination": destination,
            "route": item.route,
            "attempt": attempt,
            "at": to_text(at),
            "outcome": outcome,
            "status": status,
            "nextAt": None if next_at is None else to_text(next_at),
            "error": error,
        }
    )
