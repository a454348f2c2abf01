"""The probability counter: how likely a deal is to be won, by its stage and the weeks it has spent there.

A discrete-time competing-risks estimate over all closed and open deals, open ones
censored. With every week that winners did not need the chance falls. It is computed from
the counts of stays by stage and age, whatever the number of deals, to 38 digits.
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from decimal import Context, Decimal, localcontext
from typing import NamedTuple

from models.counts import Tables
from models.flows import happened
from models.pipeline import EXITS, MOVED, OPEN, WON, Open
from models.times import number_of

HORIZON = 52
"""Weeks that are looked ahead."""
STRENGTH = 10
"""How many deals' weight the week before has on a week's hazard."""
EXACT = Context(prec=38)

Stage = tuple[str, str]
"""Pipeline and stage."""
Exit = tuple[str, str]
"""won, lost or moved, and to which stage."""


class Observed(NamedTuple):
    """Stays of one stage by their age in weeks: how they ended, and how many have not."""

    ended: dict[int, dict[Exit, int]]
    lasting: dict[int, int]


class Week(NamedTuple):
    """A week in a stage: how many stays were at risk, how they ended, and the hazard of each exit."""

    at_risk: int
    exits: Mapping[Exit, int]
    hazards: Mapping[Exit, Decimal]


def observed(tables: Tables, day: str) -> dict[Stage, Observed]:
    """What the deals known on `day` show, by stage."""
    stages: dict[Stage, Observed] = defaultdict(lambda: Observed({}, {}))
    for (pipeline, stage, week, exit, to), (number,) in happened(tables, EXITS).items():
        exits = stages[pipeline, stage].ended.setdefault(week, {})
        exits[exit, to] = exits.get((exit, to), 0) + number
    for (pipeline, stage, entered, *_), numbers in happened(tables, OPEN).items():
        deals, week = Open(*numbers), weeks_since(entered, day)
        lasting = stages[pipeline, stage].lasting
        lasting[week] = lasting.get(week, 0) + deals.deals + deals.waiting
    return dict(stages)


def weeks_since(entered: str, day: str) -> int:
    """Whole weeks from one day to another, never below 0."""
    return max(0, number_of(day) - number_of(entered)) // 7


def weeks_of(stays: Observed) -> list[Week]:
    """Every week in which a stay was at risk, from the first on.

    A stay that ended at age a was at risk in the weeks 0…a and ended in a, one that lasts
    in 0…a−1. Each week's hazard is drawn towards that of the week before, the first
    towards the stage's own rate.
    """
    last = max([*stays.ended, *(week - 1 for week in stays.lasting)], default=-1)
    at_risk, number = [0] * (last + 1), 0
    for week in range(last, -1, -1):
        number += sum(stays.ended.get(week, {}).values()) + stays.lasting.get(week + 1, 0)
        at_risk[week] = number
    hazards = _rates(stays, sum(at_risk))
    weeks = []
    for week, number in enumerate(at_risk):
        exits = stays.ended.get(week, {})
        hazards = {
            exit: (exits.get(exit, 0) + STRENGTH * before) / (number + STRENGTH) for exit, before in hazards.items()
        }
        weeks.append(Week(number, exits, hazards))
    return weeks


def _rates(stays: Observed, at_risk: int) -> dict[Exit, Decimal]:
    """The stage's own rate of each exit over all weeks."""
    sums: dict[Exit, int] = defaultdict(int)
    for exits in stays.ended.values():
        for exit, number in exits.items():
            sums[exit] += number
    return {exit: Decimal(number) / at_risk for exit, number in sorted(sums.items())}


class Risk(NamedTuple):
    """A week's hazards as the recursion needs them: won, each move, and that nothing happens."""

    won: Decimal
    moves: Sequence[tuple[Stage, Decimal]]
    stays: Decimal


class Counter:
    """The probability counter of every stage on one day."""

    def __init__(self, stages: Mapping[Stage, Observed]) -> None:
        with localcontext(EXACT):
            self.weeks = {stage: weeks_of(stays) for stage, stays in stages.items()}
            self._won = _won_within(self.weeks)

    def within(self, stage: Stage, week: int) -> Sequence[Decimal]:
        """P(won within 0, 1, … 52 weeks) of a deal that has spent `week` weeks in the stage."""
        by_week = self._won.get(stage)
        return by_week[min(week, len(by_week) - 1)] if by_week else (Decimal(0),) * (HORIZON + 1)

    def chance(self, stage: Stage, week: int) -> Decimal:
        """P(won within the horizon)."""
        return self.within(stage, week)[HORIZON]


def _won_within(weeks: Mapping[Stage, Sequence[Week]]) -> dict[Stage, list[list[Decimal]]]:
    """By stage and week W(stage, week, 0…52): the chance to be won within so many weeks.

    W(s,w,r) = h_won(s,w) + Σ h_s′(s,w)·W(s′,0,r−1) + (1−Σh)·W(s,w+1,r−1). After the last
    week that was seen hazards stay as they are, so that it is its own next week.
    """
    risks = {stage: [_risk(stage[0], week) for week in of_stage] for stage, of_stage in weeks.items() if of_stage}
    won = {stage: [[Decimal(0)] for _ in of_stage] for stage, of_stage in risks.items()}
    for _ in range(HORIZON):
        first = {stage: of_stage[0][-1] for stage, of_stage in won.items()}
        for stage, of_stage in risks.items():
            before = [each[-1] for each in won[stage]]
            nexts = [*before[1:], before[-1]]
            for risk, following, mine in zip(of_stage, nexts, won[stage], strict=True):
                chance = risk.won + risk.stays * following
                for to, hazard in risk.moves:
                    chance += hazard * first.get(to, 0)
                mine.append(chance)
    return won


def _risk(pipeline: str, week: Week) -> Risk:
    moves = [((pipeline, to), hazard) for (exit, to), hazard in week.hazards.items() if exit == MOVED]
    won = week.hazards.get((WON, ""), Decimal(0))
    return Risk(won, moves, 1 - sum(week.hazards.values(), Decimal(0)))
