"""Which partitions of a lane this worker has: a task works on each until the group moves it to another."""

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from aiokafka import ConsumerRebalanceListener, TopicPartition

from streams.fetching import Fetcher
from streams.tables import Tables

DRAIN_SECONDS = 6.0

Work = Callable[[int], Coroutine[Any, Any, None]]
"""Works on a partition until it is released."""


class Ownership(ConsumerRebalanceListener):  # type: ignore[misc]
    """The tasks of a lane's partitions, and their tables, which outlive them.

    What a task failed of is the exception of `failed`: a bug must not eat facts, so it ends
    the worker, which begins again from the commit.
    """

    def __init__(self, fetcher: Fetcher, new_tables: Callable[[int], Tables], work: Work) -> None:
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.tables: dict[int, Tables] = {}
        self._fetcher = fetcher
        self._new_tables = new_tables
        self._work = work
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._released: set[asyncio.Task[Any] | None] = set()

    @property
    def partitions(self) -> list[int]:
        """The partitions this worker has now."""
        return sorted(self._tasks)

    def is_released(self) -> bool:
        """Shall the task that asks come to its end?"""
        return asyncio.current_task() in self._released

    async def on_partitions_revoked(self, revoked: list[TopicPartition]) -> None:
        """Give partitions up before the group moves them."""
        await self.release({place.partition for place in revoked})

    async def on_partitions_assigned(self, assigned: list[TopicPartition]) -> None:
        """Take those partitions of which every topic is given."""
        given: dict[int, int] = {}
        for place in assigned:
            given[place.partition] = given.get(place.partition, 0) + 1
        self.assign(partition for partition, topics in given.items() if topics == len(self._fetcher.topics))

    def assign(self, partitions: Iterable[int]) -> None:
        """Begin to work on these partitions."""
        for partition in partitions:
            if partition not in self._tasks:
                if partition not in self.tables:
                    self.tables[partition] = self._new_tables(partition)
                task = self._tasks[partition] = asyncio.create_task(self._work(partition))
                task.add_done_callback(self._ended)

    async def release(self, partitions: Iterable[int]) -> None:
        """Let the batches under way finish, for a while, and give the partitions up."""
        tasks = {self._tasks.pop(partition): partition for partition in list(partitions) if partition in self._tasks}
        self._released.update(tasks)
        for task in tasks:
            if self._fetcher.is_waiting(task):  # nothing is under way, and aiokafka would wait for the rebalance
                task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=DRAIN_SECONDS)
            for task in late:
                task.cancel()
                self.tables.pop(tasks[task], None)  # what they hold in memory was never committed

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._released.discard(task)
        if not task.cancelled() and (error := task.exception()) and not self.failed.done():
            self.failed.set_exception(error)
