"""What a deal adds to the statistics of the pipeline: its stays, closings, amounts and ages.

All of it is additive: `deal_counts` yields what one deal comes to, and reports
(models.hazards, models.forecast, models.funnel) read the sums. Days are those of the
reporting time zone, durations whole days between them and never below 0.

table           values                                     numbers
pipeline        stage (as it is)                           open deals, their amount
open            pipeline, stage, entered day, quality      see `Open`
expected        pipeline, stage, expected close, quality   see `Open`
open_owners     owner, pipeline, stage, entered, quality   see `Open`
open_ages       by, value, created day                     open deals, their amount
exits           pipeline, stage, week, exit, to            stays that ended so at that age
outcomes        pipeline                                   deals won, lost
quality         attribute, value                           deals won, lost

beside when it named its stages (models.naming), and by the day on which things happened (models.flows):

entered         pipeline, stage                            stays begun
left            pipeline, stage, exit, chunk               histogram of the days of stays ended
converted       pipeline, stage, came to a win, later stages…  deals that first entered the stage then
closed          pipeline, owner                            see `Closed`
cycles          pipeline, owner, chunk                     histogram of days from creation to win
wins            measure                                    see `Wins`; all, or those with a lead moment
win_days        measure, chunk                             histogram of days to win
starts          lead or opportunity                        people known, deals created
pot             (none)                                     amount won less refunds
"""

from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from models.counts import Count, Counted, Counting, field_of
from models.deals import Conversion, Deal, is_open, lost_at, open_amount, pipeline_of, won_at
from models.filters import NO_LABELS, Labels, parts_of
from models.flows import MONTHS, Happening, counts_of, lasted
from models.naming import naming_counts
from models.rules import Rules
from models.times import day_of, number_of
from models.touches import Touch

NONE = "(none)"
"""The stage of a deal before it has one, and whatever else is not known."""
WON, LOST, MOVED = "won", "lost", "moved"
LEAD, OPPORTUNITY = "lead", "opportunity"
FIRST_CHANNEL = "first_channel"

PIPELINE, OPEN, EXPECTED, OPEN_OWNERS, OPEN_AGES = "pipeline", "open", "expected", "open_owners", "open_ages"
EXITS, QUALITY, OUTCOMES = "exits", "quality", "outcomes"
ENTERED, LEFT, CONVERTED, CLOSED, CYCLES = "entered", "left", "converted", "closed", "cycles"
WINS, WIN_DAYS, STARTS, POT = "wins", "win_days", "starts", "pot"

_DIGIT = 36


class Stay(NamedTuple):
    """A deal's unbroken time in one open stage.

    `exit` is won, lost or moved (`to` that stage); both empty while it lasts. A close
    that was reopened is a move to the reopened stage.
    """

    stage: str
    begin: int
    end: int | None = None
    exit: str = ""
    to: str = ""


class Surroundings(NamedTuple):
    """What a deal's numbers need beside the deal: when its account was first known, the channel
    of the first touch eligible for the opportunity, and the labels of the account (models.filters).
    """

    lead: int | None = None
    channel: str | None = None
    labels: Labels = NO_LABELS


class Open(NamedTuple):
    """Numbers of open deals: those in the pipeline, their amount, Σ amount² in three digits
    (base 2^36), those among them without an amount, and those that wait for a rate.
    """

    deals: int = 0
    amount: int = 0
    low: int = 0
    middle: int = 0
    high: int = 0
    unpriced: int = 0
    waiting: int = 0

    @property
    def squares(self) -> int:
        """Σ amount²."""
        return self.low + (self.middle << _DIGIT) + (self.high << (2 * _DIGIT))


class Closed(NamedTuple):
    """Numbers of closed deals; `valued` are won ones that wait for no rate, `days` from creation to win."""

    won: int = 0
    lost: int = 0
    valued: int = 0
    amount: int = 0
    days: int = 0


class Wins(NamedTuple):
    """Numbers of won deals: how many, how many wait for no rate, amount and Σ amount² of these."""

    won: int = 0
    valued: int = 0
    amount: int = 0
    low: int = 0
    middle: int = 0
    high: int = 0

    @property
    def squares(self) -> int:
        """Σ amount²."""
        return self.low + (self.middle << _DIGIT) + (self.high << (2 * _DIGIT))


def square_digits(amount: int) -> tuple[int, int, int]:
    """The amount's square in three digits of base 2^36, each of which adds up within 64 bits."""
    square, mask = amount * amount, (1 << _DIGIT) - 1
    return square & mask, square >> _DIGIT & mask, square >> (2 * _DIGIT)


def days_between(begin: int, end: int, zone: str) -> int:
    """Whole days between the dates of two instants, never below 0."""
    return max(0, number_of(day_of(end, zone)) - number_of(day_of(begin, zone)))


def first_channel(deal: Deal, journey: Sequence[Touch], rules: Rules) -> str | None:
    """The channel of the first touch (of those, oldest first) eligible for the opportunity; None without any."""
    if deal.created_at is None:
        return None
    first = bisect_left(journey, deal.created_at - rules.lookback[OPPORTUNITY], key=_at)
    return journey[first].channel if first < len(journey) and journey[first].at <= deal.created_at else None


def _at(touch: Touch) -> int:
    return touch.at


# --- stays ------------------------------------------------------------------------------


def stays_of(deal: Deal, rules: Rules) -> list[Stay]:
    """The deal's stays in open stages, oldest first."""
    pipeline = rules.settings.pipeline(deal.pipeline)
    closing = {*pipeline.won, *pipeline.lost}
    spans = _spans(deal)
    stays = []
    for number, (begin, stage) in enumerate(spans):
        if stage not in closing:
            stays.append(_stay(stage, begin, spans[number + 1 :], closing, pipeline.won))
    return stays


def _spans(deal: Deal) -> list[tuple[int, str]]:
    """Every stage with the moment from which it held; before the first fact with one: (none)."""
    created = deal.created_at or 0
    named = [(at, stage or NONE) for at, stage in deal.stages]
    while named and named[0][1] == NONE:
        del named[0]
    return named if named and named[0][0] <= created else [(created, NONE), *named]


def _stay(stage: str, begin: int, later: Sequence[tuple[int, str]], closing: set[str], won: Sequence[str]) -> Stay:
    if not later:
        return Stay(stage, begin)
    to = next((each for _, each in later if each not in closing), None)
    if to is not None:
        return Stay(stage, begin, later[0][0], MOVED, to)
    return Stay(stage, begin, later[0][0], WON if later[0][1] in won else LOST)


# --- one deal's numbers -----------------------------------------------------------------


def deal_counts(deal: Deal, conversions: Iterable[Conversion], around: Surroundings, rules: Rules) -> list[Counting]:
    """All that the deal adds to the counts."""
    if deal.created_at is None:
        return []
    counted = naming_counts(deal, rules)
    if deal.deleted:
        return counted
    stays = stays_of(deal, rules)
    counted += _exits(deal, stays, rules)
    happenings = _moves(deal, stays, rules) + _closing(deal, conversions, around, rules)
    for happening in happenings:
        counted += counts_of(happening)
    counted += [(Count(MONTHS, month), (1,)) for month in {happening.day[:7] for happening in happenings}]
    counted += _outcome(deal, around, rules)
    if is_open(deal, rules):
        counted += _open(deal, stays, around, rules)
    return counted


def lead_counts(at: int, rules: Rules) -> Counted:
    """What a person known from `at` on adds to the counts."""
    return counts_of(Happening(STARTS, day_of(at, rules.settings.time_zone), (LEAD,), (1,)))


def _exits(deal: Deal, stays: Iterable[Stay], rules: Rules) -> list[Counting]:
    counted: list[Counting] = []
    for stay in stays:
        if stay.end is not None:
            week = days_between(stay.begin, stay.end, rules.settings.time_zone) // 7
            counted.append((Count(EXITS, field_of(pipeline_of(deal), stay.stage, week, stay.exit, stay.to)), (1,)))
    return counted


def _moves(deal: Deal, stays: Sequence[Stay], rules: Rules) -> list[Happening]:
    zone, name = rules.settings.time_zone, pipeline_of(deal)
    happenings = [Happening(STARTS, day_of(deal.created_at or 0, zone), (OPPORTUNITY,), (1,))]
    won = _won_stages(deal, rules)
    seen: set[str] = set()
    for number, stay in enumerate(stays):
        begun = day_of(stay.begin, zone)
        happenings.append(Happening(ENTERED, begun, (name, stay.stage), (1,)))
        if stay.end is not None:
            days = days_between(stay.begin, stay.end, zone)
            happenings.append(lasted(LEFT, day_of(stay.end, zone), (name, stay.stage, stay.exit), days))
        if stay.stage not in seen:
            seen.add(stay.stage)
            later = sorted({each.stage for each in stays[number + 1 :]} - {stay.stage})
            is_won = bool(won) and won[-1] >= stay.begin
            happenings.append(Happening(CONVERTED, begun, (name, stay.stage, is_won, *later), (1,)))
    return happenings


def _won_stages(deal: Deal, rules: Rules) -> list[int]:
    """Every moment at which the deal came to a won stage, reopened or not."""
    won = rules.settings.pipeline(deal.pipeline).won
    return [at for at, stage in deal.stages if stage in won]


def _closing(deal: Deal, conversions: Iterable[Conversion], around: Surroundings, rules: Rules) -> list[Happening]:
    zone, lost = rules.settings.time_zone, lost_at(deal, rules)
    happenings: list[Happening] = []
    if lost is not None:
        happenings.append(Happening(CLOSED, day_of(lost, zone), (pipeline_of(deal), deal.owner), Closed(lost=1)))
    for conversion in conversions:
        day = day_of(conversion.at, zone)
        if conversion.kind == WON:
            happenings += _win(deal, conversion, day, around, zone)
        if conversion.kind in (WON, "refund") and conversion.amount:
            happenings.append(Happening(POT, day, (), (conversion.amount,)))
    return happenings


def _win(deal: Deal, win: Conversion, day: str, around: Surroundings, zone: str) -> list[Happening]:
    values, valued, amount = (pipeline_of(deal), deal.owner), int(win.amount is not None), win.amount or 0
    days = days_between(deal.created_at or 0, win.at, zone)
    happenings = [
        Happening(CLOSED, day, values, Closed(1, 0, valued, amount, days)),
        lasted(CYCLES, day, values, days),
    ]
    numbers = Wins(1, valued, amount, *square_digits(amount))
    measures = {OPPORTUNITY: days}
    if around.lead is not None:
        measures[LEAD] = days_between(around.lead, win.at, zone)
    for measure, each in measures.items():
        happenings += [Happening(WINS, day, (measure,), numbers), lasted(WIN_DAYS, day, (measure,), each)]
    return happenings


def qualities_of(around: Surroundings) -> Mapping[str, str]:
    """The attributes by which the quality of leads is told, each with the deal's value."""
    return {**dict(map(parts_of, around.labels)), FIRST_CHANNEL: around.channel or NONE}


def _quality_of(around: Surroundings, attribute: str) -> str | None:
    return None if attribute == "none" else qualities_of(around).get(attribute, NONE)


def _outcome(deal: Deal, around: Surroundings, rules: Rules) -> list[Counting]:
    outcome = (int(won_at(deal, rules) is not None), int(lost_at(deal, rules) is not None))
    if not any(outcome):
        return []
    by_quality = [(Count(QUALITY, field_of(*each)), outcome) for each in qualities_of(around).items()]
    return [(Count(OUTCOMES, field_of(pipeline_of(deal))), outcome), *by_quality]


def _open(deal: Deal, stays: Sequence[Stay], around: Surroundings, rules: Rules) -> list[Counting]:
    """The open deal's place in the pipeline, by what tells its chance and by what reports ask for."""
    zone, name, stay = rules.settings.time_zone, pipeline_of(deal), stays[-1]
    numbers, entered = _open_numbers(deal, rules), day_of(stay.begin, zone)
    quality = _quality_of(around, rules.settings.lead_quality)
    counted: list[Counting] = [
        (Count(OPEN, field_of(name, stay.stage, entered, quality)), numbers),
        (Count(OPEN_OWNERS, field_of(deal.owner, name, stay.stage, entered, quality)), numbers),
    ]
    if numbers.deals:
        created = day_of(deal.created_at or 0, zone)
        ages = [field_of(by, value, created) for by, value in (("stage", stay.stage), ("owner", deal.owner))]
        counted += [
            (Count(PIPELINE, stay.stage), numbers[:2]),
            (Count(EXPECTED, field_of(name, stay.stage, deal.expected_close, quality)), numbers),
            *[(Count(OPEN_AGES, field), numbers[:2]) for field in ages],
        ]
    return counted


def _open_numbers(deal: Deal, rules: Rules) -> Open:
    amount = open_amount(deal, rules)
    if amount is None:
        return Open(waiting=1)
    return Open(1, amount, *square_digits(amount), int(deal.amount is None))
