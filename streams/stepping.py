"""The step of a batch, off the event loop where it will take long."""

import asyncio
import time

from models import lanes
from models.lanes import AnyEntity, Batch
from models.rolls import roll_of
from streams.pace import Pace
from streams.reading import Intake
from streams.tables import Tables

HEAVY_BURDEN = 20_000
"""Credits that a step may have to compute: about 10 µs each."""


async def needed(tables: Tables, intake: Intake, lane: str, partitions: int) -> set[str]:
    """The entities of a batch; of visitors the roll too, and whoever may have sent what a new verdict speaks of."""
    names = {item.entity for item in intake.items}
    if lane == "visitors":
        names.add(roll_of(tables.partition, partitions))
        if sought := lanes.sought_in(intake.items):
            names |= await tables.holding(sought)
    return names


class Stepper:
    """Steps a lane's batches, those of all its partitions on this worker."""

    def __init__(self, partitions: int, pace: Pace) -> None:
        self._partitions = partitions
        self._pace = pace
        self._heavy_step = asyncio.Lock()

    async def step(self, intake: Intake, entities: dict[str, AnyEntity]) -> Batch:
        """What the batch comes to; in a thread where it will take long, so that heartbeats go on.

        Of those one at a time: what it has done is put down while the next is at work.
        """
        if lanes.burden(entities.values()) > HEAVY_BURDEN:
            async with self._heavy_step:
                return await asyncio.to_thread(lanes.step, intake.items, entities, self._partitions)
        begun = time.perf_counter()
        batch = lanes.step(intake.items, entities, self._partitions)
        if intake.facts:
            self._pace.note(intake.records, time.perf_counter() - begun)
        return batch
