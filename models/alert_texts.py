"""An alert in words: what Slack, a mail and an Alertmanager say of it.

The words alone tell the whole story: which account, its state and score, what warmed it most,
what had cooled it, whose it is, and where to read on.
"""

import hashlib
from collections.abc import Mapping, Sequence
from decimal import Decimal
from typing import Any, NamedTuple
from urllib.parse import quote

from models.alerts import Alert, Cause, OpenDeal
from models.dispatch import Firing
from models.money import DECIMALS
from models.times import MINUTE, parse_instant, to_text

MOST_DEALS = 3
LONGEST_SLACK = 38_000
"""Slack cuts texts beyond 40,000 characters."""
FIRES_FOR = 5 * MINUTE
_STATES = {
    "warming": "is warming up",
    "warmed": "is warm",
    "cooling": "is cooling",
    "cooled": "has gone cold",
}
_WARM, _COOLING = "AccountWarm", "AccountCooling"
_SEVERITY = {_WARM: "info", _COOLING: "warning"}


class Mail(NamedTuple):
    """A message to people: its subject, its text, and what its Message-ID is made from."""

    subject: str
    text: str
    identity: str


# --- words ------------------------------------------------------------------------------


def headline(alert: Alert) -> str:
    """Account, state and score in a line."""
    again = " again" if alert.rewarmed else ""
    test = "[test] " if alert.test else ""
    score = alert.score
    return (
        f"{test}{_account(alert)} {_STATES[alert.transition]}{again}: "
        f"score {_number(score.after)} (before {_number(score.before)}, threshold {_number(score.threshold)})"
    )


def lines(alert: Alert) -> list[str]:
    """The whole story, the headline first."""
    told = [headline(alert)]
    told.extend(_cause(alert))
    if alert.cooled:
        told.append(f"It had cooled on {_day(alert.cooled.at)}: {_why_cooled(alert)}")
    told.extend(f"Open deal: {_deal(deal)}" for deal in alert.deals[:MOST_DEALS])
    if len(alert.deals) > MOST_DEALS:
        told.append(f"and {len(alert.deals) - MOST_DEALS} more open deals")
    told.append(f"Owner: {_line(alert.account.owner or 'nobody')}")
    return told


def _cause(alert: Alert) -> list[str]:
    """What lifted the account most; else who is active no longer, and the last touch."""
    if alert.causes and alert.causes[0].touch_id:
        return [f"Strongest cause: {_touch(alert.causes[0])}"]
    inactive = [f"Cause: {_line(each.person or 'somebody')} is active no longer" for each in alert.causes[:1]]
    last = [f"Last touch: {_touch(_latest(alert.last_touches))}"] if alert.last_touches else []
    return inactive + last


def _account(alert: Alert) -> str:
    account = alert.account
    name = account.name if account.name and account.name != account.id else None
    return _line(f"{name} ({account.id})" if name else account.id)


def _touch(touch: Cause) -> str:
    parts = [touch.kind.replace("_", " ")]
    parts += [f"via {touch.channel}"] if touch.channel else []
    parts += [f'campaign "{touch.campaign}"'] if touch.campaign else []
    parts += [f"by {touch.person}"] if touch.person else []
    parts += [f"with {touch.rep}"] if touch.rep else []
    parts.append(f"on {_day(touch.at)}")
    parts += [f"({touch.share:.0%} of the rise)"] if touch.share is not None else []
    return _line(" ".join(parts))


def _latest(touches: Sequence[Cause]) -> Cause:
    return max(touches, key=lambda touch: parse_instant(touch.at, "alert.lastTouches.at"))


def _why_cooled(alert: Alert) -> str:
    assert alert.cooled
    last = alert.cooled.last_touches
    touches = [f"last touch {_touch(_latest(last))}"] if last else []
    deals = [_deal(deal) for deal in alert.cooled.deals[:MOST_DEALS]]
    owner = [f"owner then {_line(alert.cooled.owner)}"] if alert.cooled.owner else []
    return "; ".join((*touches, *deals, *owner)) or "no touch known"


def _deal(deal: OpenDeal) -> str:
    words = f'"{deal.name or deal.deal_id}"'
    if deal.amount is not None and deal.currency:
        words += f" {Decimal(deal.amount).scaleb(-DECIMALS.get(deal.currency, 2)):,} {deal.currency}"
    if deal.stage:
        words += f" in stage {deal.stage}"
    if deal.days_in_stage is not None:
        words += f" for {deal.days_in_stage} days"
    if deal.median_days is not None:
        words += f" (usual: {deal.median_days})"
    return _line(words)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _day(at: str) -> str:
    return at[:10]


def _line(text: str) -> str:
    """The text in one line: names come from outside."""
    return " ".join(text.split())


def link(base: str, account: str) -> str:
    """Where to read on about an account; empty without the address of the live page."""
    return f"{base.rstrip('/')}/?account={quote(account, safe='')}" if base else ""


# --- messages ---------------------------------------------------------------------------


def slack_text(alerts: Sequence[Alert], base: str) -> str:
    """The `text` of a Slack message, `&`, `<` and `>` escaped as Slack asks."""
    text = "\n\n".join("\n".join((*map(_escaped, lines(alert)), *_slack_link(alert, base))) for alert in alerts)
    return text if len(text) <= LONGEST_SLACK else text[:LONGEST_SLACK].rpartition("\n")[0] + "\n…"


def _slack_link(alert: Alert, base: str) -> list[str]:
    address = link(base, alert.account.id)
    return [f"<{_escaped(address)}|Open in Touchline>"] if address else []


def _escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def mail(alerts: Sequence[Alert], base: str) -> Mail:
    """The mail of one alert, or of those of one account that were held back."""
    more = f" (and {len(alerts) - 1} before)" if len(alerts) > 1 else ""
    ids = "\0".join(alert.alert_id for alert in alerts)
    identity = alerts[0].alert_id if len(alerts) == 1 else _digest_of(ids)
    return Mail(headline(alerts[-1]) + more, _mail_text(alerts, base), identity)


def digest_mail(alerts: Sequence[Alert], base: str, route: str, day: str, part: int) -> Mail:
    """The mail of a route's digest of a day; a digest too large for one has further parts."""
    of = f", part {part + 1}" if part else ""
    subject = f"{_line(route)}: {len(alerts)} alert{'s' * (len(alerts) != 1)}, {day}{of}"
    identity = _digest_of(f"{route}\0{day}" + f"\0{part}" * bool(part))
    return Mail(subject, _mail_text(alerts, base), identity)


def _mail_text(alerts: Sequence[Alert], base: str) -> str:
    return "\n\n".join("\n".join((*lines(alert), *filter(None, [link(base, alert.account.id)]))) for alert in alerts)


def _digest_of(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]


# --- Alertmanager -----------------------------------------------------------------------


def firing_after(firing: Sequence[Firing], alert: Alert, base: str, *, matched: bool) -> tuple[Firing, ...]:
    """What fires once an alert is told; one that no route matched only resolves.

    AccountWarm fires from `warmed` until `cooled`, AccountCooling while the account is cooling.
    """
    stays = {"warming": {_WARM}, "warmed": {_WARM}, "cooling": {_WARM, _COOLING}, "cooled": set()}[alert.transition]
    begins = {"warmed": _WARM, "cooling": _COOLING}.get(alert.transition)
    kept = tuple(each for each in firing if each.name in stays)
    if not matched or begins is None or any(each.name == begins for each in kept):
        return kept
    return (*kept, _begun(begins, alert, base))


def _begun(name: str, alert: Alert, base: str) -> Firing:
    labels = {"alertname": name, "account": alert.account.id, "severity": _SEVERITY[name]}
    return Firing(name, alert.at, labels, _annotations(alert, base))


def _annotations(alert: Alert, base: str) -> dict[str, str]:
    score = alert.score
    told = {
        "summary": headline(alert),
        "description": "\n".join(lines(alert)),
        "name": alert.account.name,
        "owner": alert.account.owner,
        "state": alert.target,
        "score": _number(score.after),
        "threshold": _number(score.threshold),
        "cause": "; ".join(_cause(alert)),
        "cooled": _why_cooled(alert) if alert.cooled else None,
        "alertId": alert.alert_id,
        "link": link(base, alert.account.id),
    }
    return {name: value for name, value in told.items() if value}


def posted(before: Sequence[Firing], after: Sequence[Firing], ended_at: str, now: int) -> list[Mapping[str, Any]]:
    """The body for `/api/v2/alerts`: what fires for five minutes from now, what ended at its instant."""
    ended = [each for each in before if each.name not in {kept.name for kept in after}]
    return [
        *(_posted(each, to_text(now + FIRES_FOR)) for each in after),
        *(_posted(each, ended_at) for each in ended),
    ]


def _posted(firing: Firing, ends_at: str) -> Mapping[str, Any]:
    return {
        "labels": firing.labels,
        "annotations": firing.annotations,
        "startsAt": firing.started_at,
        "endsAt": ends_at,
    }
