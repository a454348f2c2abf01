"""In which order a deal goes through the stages: as the settings have it, else as facts first named them."""

from collections import Counter
from collections.abc import Iterable

from models.counts import Tables, values_in
from models.naming import NAMED, fact_in, table_within
from models.pipeline import NONE
from models.settings import Settings

_Stage = tuple[str, str]
"""Pipeline and stage."""


def first_months(tables: Tables) -> dict[_Stage, str]:
    """The month in which a fact first named each stage."""
    return _first(tables.get(NAMED, {}))


def naming_tables(tables: Tables) -> list[str]:
    """The tables to be read next beside these: those of the first months, then of stages first named on one day."""
    months = {f"{NAMED}:{month}" for month in first_months(tables).values()}
    if not months <= tables.keys():
        return sorted(months - tables.keys())
    named = first_named(tables)
    often = Counter((pipeline, day) for (pipeline, _), day in named.items())
    within = {table_within(day, *stage) for stage, day in named.items() if often[stage[0], day] > 1}
    return sorted(within - tables.keys())


def _first(fields: Iterable[str]) -> dict[_Stage, str]:
    first: dict[_Stage, str] = {}
    for field in fields:
        pipeline, stage, moment = values_in(field)
        first[pipeline, stage] = min(moment, first.get((pipeline, stage), moment))
    return first


def first_named(tables: Tables) -> dict[_Stage, str]:
    """When (to the day, UTC) a fact first named each stage; needs the tables of the months."""
    months = first_months(tables)
    within = {month: _first(tables.get(f"{NAMED}:{month}", {})) for month in set(months.values())}
    return {stage: within[month].get(stage, month) for stage, month in months.items()}


def stage_orders(tables: Tables, settings: Settings) -> dict[str, list[str]]:
    """The open stages of each pipeline in their order, without (none).

    Those of the setting come first, then the others by the first fact naming them. Needs
    `naming_tables`.
    """
    named = first_named(tables)
    orders: dict[str, list[str]] = {}
    for pipeline in dict.fromkeys(pipeline for pipeline, _ in sorted(named)):
        configured = settings.pipeline(pipeline)
        closing = {*configured.won, *configured.lost, NONE}
        found = [stage for stage in named if stage[0] == pipeline and stage[1] not in configured.stages]
        others = sorted(found, key=lambda stage: (named[stage], _first_fact(tables, named[stage], stage)))
        names = (*configured.stages, *(name for _, name in others))
        orders[pipeline] = [name for name in names if name not in closing]
    return orders


def _first_fact(tables: Tables, day: str, stage: _Stage) -> tuple[int, str]:
    """The time of day and id of the first fact naming the stage; before all where that need not be known."""
    return min((fact_in(field) for field in tables.get(table_within(day, *stage), {})), default=(0, ""))


def stage_places(tables: Tables, settings: Settings) -> dict[str, int]:
    """The place of each stage among those of all pipelines: configured ones first and in their order."""
    configured = [stage for each in settings.pipelines.values() for stage in each.stages]
    within = {stage: place for order in stage_orders(tables, settings).values() for place, stage in enumerate(order)}
    others = [
        stage
        for *_, stage in sorted(
            (moment, within.get(stage, 0), stage) for (_, stage), moment in first_named(tables).items()
        )
    ]
    return {stage: place for place, stage in enumerate(dict.fromkeys((*configured, *others)))}
