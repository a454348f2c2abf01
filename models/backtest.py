"""How good the forecast was: what it said a while before each month, what came, and what simpler guesses said."""

from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from typing import NamedTuple

from models import flows
from models.counts import Tables
from models.flows import by_month, happened
from models.forecast import Forecast, month_before, span_of
from models.hazards import EXACT
from models.pipeline import POT
from models.times import day_numbered

WARM_UP_MONTHS = 2
"""So many months with wins lie before the first month that is tried."""


class Trial(NamedTuple):
    """A month as it was forecast on `day`, what came, and two naive forecasts made then.

    `last_month` repeats what was won in the month of the day, `open_times_rate` takes all
    open deals by the rate at which deals were won so far.
    """

    month: str
    day: str
    forecast: Decimal
    p10: Decimal
    p50: Decimal
    p90: Decimal
    came: int
    last_month: int
    open_times_rate: Decimal

    @property
    def is_inside(self) -> bool:
        """Between P10 and P90."""
        return self.p10 <= self.came <= self.p90


class Summary(NamedTuple):
    """Σ|forecast − came| / Σ came of the forecast and of both naive ones, and the share of months inside the range."""

    error: Decimal | None
    last_month_error: Decimal | None
    open_times_rate_error: Decimal | None
    inside: Decimal | None


def day_of_trial(month: str, ahead: int) -> str:
    """The last day before the month `ahead` − 1 months earlier."""
    return day_numbered(span_of(f"{month_before(month, ahead - 1)}-01", "month").first - 1)


def months_to_try(tables: Tables, today: str, ahead: int) -> list[str]:
    """The whole months with enough of them before, up to the last one in which anything was won or refunded."""
    won = sorted(by_month(tables, POT))
    if len(won) <= WARM_UP_MONTHS:
        return []
    first, last = month_before(won[WARM_UP_MONTHS - 1], -ahead), min(won[-1], month_before(today[:7], 1))
    months = []
    while first <= last:
        months.append(first)
        first = month_before(first, -1)
    return months


def came_in(tables: Tables, month: str) -> int:
    """What was won less refunds in the month."""
    return sum(amount for (amount,) in happened(tables, POT, flows.month(month)).values())


def trial(then: Forecast, month: str, ahead: int, came: int) -> Trial:
    """The month as it was forecast then."""
    this_month, *_, outlook = then.outlooks("month", ahead + 1)
    with localcontext(EXACT):
        guess = then.open_amount * then.win_rate
    return Trial(month, then.day, outlook.total, outlook.p10, outlook.p50, outlook.p90, came, this_month.pot, guess)


def summary(trials: Sequence[Trial]) -> Summary:
    """All trials together; None where nothing came."""
    came = sum(each.came for each in trials)
    if not came:
        return Summary(None, None, None, None)
    with localcontext(EXACT):
        errors = (
            _off((each.forecast for each in trials), trials),
            _off((Decimal(each.last_month) for each in trials), trials),
            _off((each.open_times_rate for each in trials), trials),
        )
        inside = Decimal(sum(each.is_inside for each in trials)) / len(trials)
        return Summary(errors[0] / came, errors[1] / came, errors[2] / came, inside)


def _off(guesses: Iterable[Decimal], trials: Sequence[Trial]) -> Decimal:
    return sum((abs(guess - each.came) for guess, each in zip(guesses, trials, strict=True)), Decimal(0))
