"""What channels are worth to a kind of conversion: removal effects, solved from the paths counted."""

import asyncio
from functools import lru_cache
from typing import Any

from models import markov
from models.catalogue import OPEN
from models.paths import table_of_paths
from models.settings import Settings
from streams.totals import read_counts


async def removal_effects(redis: Any, settings: Settings, conversion: str) -> dict[str, int]:
    """Each channel's effect in parts of 10**12, by id; empty while there is no such conversion.

    All paths count, whatever period or filter is asked. Open deals and refunds have those of
    the opportunity and the win.
    """
    kind = {OPEN: "opportunity", "refund": "won"}.get(conversion, conversion)
    table = table_of_paths(kind)
    counts = (await read_counts(redis, settings, [table]))[table]
    transitions = tuple(sorted((field, number) for field, (number,) in counts.items()))
    return await asyncio.to_thread(_solved, transitions, settings.markov_order)


@lru_cache(maxsize=32)
def _solved(transitions: tuple[tuple[str, int], ...], order: int) -> dict[str, int]:
    return markov.removal_effects(dict(transitions), order)
