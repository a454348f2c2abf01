"""In which order a deal goes through the stages: as the settings have it, else as facts first named them."""

from collections.abc import Iterable, Mapping
from functools import cmp_to_key, partial

from models.counts import Tables, values_in
from models.flows import happened
from models.pipeline import EXITS, NAMED, NONE
from models.settings import Settings

_Stage = tuple[str, str]
"""Pipeline and stage."""


def first_months(tables: Tables) -> dict[_Stage, str]:
    """The month in which a fact first named each stage."""
    return _first(tables.get(NAMED, {}))


def naming_tables(tables: Tables) -> list[str]:
    """The tables that tell within these months, to be read beside `named`."""
    return sorted({f"{NAMED}:{month}" for month in first_months(tables).values()})


def _first(fields: Iterable[str]) -> dict[_Stage, str]:
    first: dict[_Stage, str] = {}
    for field in fields:
        pipeline, stage, moment = values_in(field)
        first[pipeline, stage] = min(moment, first.get((pipeline, stage), moment))
    return first


def first_named(tables: Tables) -> dict[_Stage, str]:
    """When (to the hour, UTC) a fact first named each stage; needs `naming_tables`."""
    months = first_months(tables)
    within = {month: _first(tables.get(f"{NAMED}:{month}", {})) for month in set(months.values())}
    return {stage: within[month].get(stage, month) for stage, month in months.items()}


def stage_orders(tables: Tables, settings: Settings) -> dict[str, list[str]]:
    """The open stages of each pipeline in their order, without (none).

    Those of the setting come first, then the others by the time of the first fact naming
    them; of stages first named in one hour, that which more deals left for the other.
    """
    named = first_named(tables)
    moves = _moves(tables)
    orders: dict[str, list[str]] = {}
    for pipeline in dict.fromkeys(pipeline for pipeline, _ in sorted(named)):
        configured = settings.pipeline(pipeline)
        closing = {*configured.won, *configured.lost, NONE}
        found = [stage for each, stage in named if each == pipeline and stage not in configured.stages]
        others = sorted(found, key=cmp_to_key(partial(_compared, pipeline, named, moves)))
        orders[pipeline] = [stage for stage in (*configured.stages, *others) if stage not in closing]
    return orders


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


def _moves(tables: Tables) -> dict[tuple[str, str, str], int]:
    """How many stays of a pipeline's stage ended in a move to another."""
    moves: dict[tuple[str, str, str], int] = {}
    for (pipeline, stage, _, _, to), (number,) in happened(tables, EXITS).items():
        if to:
            moves[pipeline, stage, to] = moves.get((pipeline, stage, to), 0) + number
    return moves


def _compared(
    pipeline: str, named: Mapping[_Stage, str], moves: Mapping[tuple[str, str, str], int], a: str, b: str
) -> int:
    """Below 0 when `a` comes before `b`."""
    first = named[pipeline, a], named[pipeline, b]
    if first[0] != first[1]:
        return -1 if first[0] < first[1] else 1
    return moves.get((pipeline, b, a), 0) - moves.get((pipeline, a, b), 0) or (-1 if a < b else 1)
