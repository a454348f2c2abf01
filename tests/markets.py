"""Markets of many deals: facts for pipelines and forecasts, with everything that a CRM does to a deal.

facts = market(random.Random(7))     # [(topic, value bytes, Kafka record time in µs)]
"""

import json
import random
from typing import Any

from models.settings import Pipeline, Settings
from models.times import DAY, HOUR, parse_instant, to_text
from tests.worlds import RawFact

BEGIN = parse_instant("2025-01-06T00:00:00Z", "begin")
LAST_DAY = "2026-03-17"
END = parse_instant("2026-03-17T22:00:00Z", "end")
RECORDED = END + 400 * DAY
ZONES = ("UTC", "America/New_York", "Europe/Berlin")

VARIANTS = (
    Settings(),
    Settings(
        pipelines={
            "default": Pipeline(stages=("new", "demo", "quote")),
            "partner": Pipeline(
                won=("signed",), lost=("dead",), stages=("demo", "new"), probabilities={"demo": "0.45"}
            ),
        },
        time_zone="America/New_York",
    ),
    Settings(lead_quality="first_channel", time_zone="Europe/Berlin"),
)


def market(rng: random.Random, deals: int | None = None, pipelines: tuple[str | None, ...] = (None,)) -> list[RawFact]:
    """The facts of some or many deals over fourteen months, the last of them before the last day's end."""
    facts: list[RawFact] = []
    number = rng.choice((3, 25, 60, 120)) if deals is None else deals
    pace = rng.choice((3, 10, 40))
    for name in range(number):
        facts += _deal(rng, f"d{name}", pace, rng.choice(pipelines))
    for name in range(rng.choice((0, 3, 40))):
        facts.append(_touch(rng, f"lead{name}", _instant(rng)))
    rng.shuffle(facts)
    return facts


def _instant(rng: random.Random, since: int = BEGIN) -> int:
    span = max(1, (END - since) // HOUR)
    return min(END - 1, since + rng.randrange(span) * HOUR)


def _touch(rng: random.Random, name: str, at: int) -> RawFact:
    channel = rng.choice(("email", "event", "paid_search"))
    company = rng.choice((name, f"co{rng.randrange(40)}"))
    return _fact("touches", name, at, person=f"{name}@{company}.com", kind="call", channel=channel)


def _deal(rng: random.Random, name: str, pace: int, pipeline: str | None) -> list[RawFact]:
    at, facts = _instant(rng), []
    account = rng.choice((None, f"co{rng.randrange(40)}.com", f"{name}.com"))
    first: dict[str, Any] = {"account": account, "owner": rng.choice(("Jo", "Al", None))}
    if pipeline:
        first["pipeline"] = pipeline
    if rng.random() < 0.8:
        first["amount"] = rng.choice((0, 10, "99.99", 1000, 250_000))
    if rng.random() < 0.3:
        first["createdAt"] = to_text(at + rng.choice((-40, -7, -1, 0, 0, 3)) * DAY + rng.choice((0, 1, HOUR)))
    if rng.random() < 0.2:
        first["expectedClose"] = to_text(at + rng.randrange(500) * DAY)
    ending = rng.choice(("won", "lost", "won", "lost", "open", "reopened", "deleted", "moved"))
    won, lost = ("signed", "dead") if pipeline == "partner" else ("closed_won", "closed_lost")
    steps: list[Any] = [rng.choice(("new", "new", "demo", None, ...))]
    steps += [rng.choice(("new", "demo", "quote", "quote")) for _ in range(rng.randrange(4))]
    steps += {"won": [won], "lost": [lost], "reopened": [lost, "demo"], "moved": [lost, won]}.get(ending, [])
    if rng.random() < 0.1:
        steps += [rng.choice((won, lost, "new"))]
    for place, stage in enumerate(steps):
        body = (first if place == 0 else {}) | ({} if stage is ... else {"stage": stage})
        if place and rng.random() < 0.1:
            body["amount"] = rng.choice((None, 5, 700))
        facts.append(_fact("deal-changes", f"{name}-{place}", at, dealId=name, **body))
        at += rng.randrange(pace) * rng.choice((1, 1, 7)) * DAY + rng.choice((0, 0, HOUR, 13 * HOUR))
        if at >= END:
            break
    if ending == "deleted" and at < END:
        facts.append(_fact("deal-changes", f"{name}-x", at, dealId=name, deleted=True))
    if rng.random() < 0.1 and at < END:
        facts.append(_fact("billing", f"{name}-r", at, type="refund", dealId=name, amount=rng.choice((1, "9.99"))))
    if account and rng.random() < 0.6:
        facts.append(_touch(rng, f"p{name}", min(END - 1, at - rng.randrange(60) * DAY)))
    return facts


def _fact(topic: str, name: str, at: int, **fields: Any) -> RawFact:
    body = {"touchId" if topic == "touches" else "messageId": name, "timestamp": to_text(at), **fields}
    return topic, json.dumps(body).encode(), RECORDED
