"""How long deals usually stay in a stage: median and P90 of the stays that ended."""

from collections.abc import Mapping
from typing import NamedTuple

from models.counts import Numbers, Tables
from models.flows import Values, durations, happened, nearest_rank
from models.pipeline import LEFT


class Usual(NamedTuple):
    """Days that stays in a stage lasted; None while none has ended."""

    median: int | None = None
    p90: int | None = None


Usuals = Mapping[tuple[str, str], Usual]
"""By pipeline and stage."""


def usuals_of(tables: Tables) -> Usuals:
    """The usual stays, from the table `left`."""
    by_stage: dict[tuple[str, str], dict[Values, Numbers]] = {}
    for values, numbers in happened(tables, LEFT).items():
        pipeline, stage, *rest = values
        by_stage.setdefault((pipeline, stage), {})[tuple(rest)] = numbers
    counted = {place: durations(sums) for place, sums in by_stage.items()}
    return {place: Usual(nearest_rank(days, 5), nearest_rank(days, 9)) for place, days in counted.items()}
