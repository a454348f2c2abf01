"""When facts first named each stage: what decides the order of the stages that no setting puts in order.

table                                    values                  numbers
named                                    pipeline, stage, month  deals that first named the stage then
named:2026-04                            pipeline, stage, day    the same within the month (UTC)
named:2026-04-15:["pipeline","stage"]    microsecond:fact        the same within the day, of stages without a place

Only the first months and days are ever read. Namings within a day can be told apart by
nothing less than the instants and ids themselves: who has millions of deals saves them by
putting their stages in order.
"""

from collections.abc import Sequence
from functools import lru_cache

from models.counts import Count, Counting, field_of
from models.deals import Deal, pipeline_of
from models.rules import Rules
from models.times import DAY, day_of

NAMED = "named"


def naming_counts(deal: Deal, rules: Rules) -> list[Counting]:
    """When the deal first named each stage."""
    configured = rules.settings.pipeline(deal.pipeline)
    placed = {*configured.stages, *configured.won, *configured.lost}
    first: dict[str, tuple[int, str]] = {}
    for (at, stage), fact in zip(deal.stages, deal.named_by, strict=True):
        if stage is not None:
            first.setdefault(stage, (at, fact))
    pipeline = pipeline_of(deal)
    counted: list[Counting] = []
    for stage, (at, fact) in first.items():
        day = day_of(at, "UTC")
        counted += _named_on(pipeline, stage, day)
        if stage not in placed:
            counted.append((Count(table_within(day, pipeline, stage), f"{at % DAY}:{fact}"), (1,)))
    return counted


@lru_cache(maxsize=5000)
def _named_on(pipeline: str, stage: str, day: str) -> Sequence[Counting]:
    return (
        (Count(NAMED, field_of(pipeline, stage, day[:7])), (1,)),
        (Count(f"{NAMED}:{day[:7]}", field_of(pipeline, stage, day)), (1,)),
    )


@lru_cache(maxsize=5000)
def table_within(day: str, pipeline: str, stage: str) -> str:
    """The table that tells when within a day deals first named the stage."""
    return f"{NAMED}:{day}:{field_of(pipeline, stage)}"


def fact_in(field: str) -> tuple[int, str]:
    """The microsecond of the day and the id of a fact, which sort as facts do."""
    microsecond, _, fact = field.partition(":")
    return int(microsecond), fact


def is_naming(table: str) -> bool:
    """Does the table tell when stages were first named, which is asked of all deals whatever the filter?"""
    return table == NAMED or table.startswith(f"{NAMED}:")
