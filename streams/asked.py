"""What reports are asked with: the parameters that many share, and their checks, which raise BadInput."""

from collections.abc import Collection
from datetime import date
from typing import TypedDict

from models.errors import BadInput
from models.flows import Period


class InPeriods(TypedDict, total=False):
    """Apart by which periods (`total` by default), between which days, both included (all time by default)."""

    grain: str
    since: str | None
    until: str | None


def one_of(where: str, known: Collection[str], value: str) -> str:
    """The value, when it is known."""
    if value not in known:
        raise BadInput(where, f"one of {', '.join(known)}", value)
    return value


def checked_day(where: str, value: str | None) -> str | None:
    """The day as it is written."""
    try:
        return value and date.fromisoformat(value).isoformat()
    except ValueError:
        raise BadInput(where, "a day such as 2026-04-03", value) from None


def days_between(since: str | None, until: str | None) -> Period:
    """The days asked for; the first is not after the last."""
    days = Period(checked_day("from", since) or "", checked_day("to", until) or "")
    if days.until and days.since > days.until:
        raise BadInput("from", f"a day up to {days.until}, the last one", days.since)
    return days
