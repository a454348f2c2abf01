"""What the accounts lane needs to announce alerts: what deals usually take, and which alerts are in Kafka already.

Nobody numbers alerts as envelopes are. So whoever takes a partition over looks at the end of
the topic before it publishes what the outbox still holds.
"""

import time
from collections.abc import Sequence, Set
from typing import Any

from aiokafka import AIOKafkaConsumer, TopicPartition

from models.alerting import Draft, finished
from models.alerts import encode
from models.pipeline import LEFT
from models.settings import Settings
from models.times import parse_instant
from models.usual import Usuals, usuals_of
from streams.config import kafka_options
from streams.topics import ALERTS, full_name
from streams.totals import read_counts

USUAL_SECONDS = 60.0
LOOKED_BACK = 200
"""How many alerts of others, such as tests, may lie behind ours."""


class Announcer:
    """Finishes alerts with how long deals usually stay in a stage, which is read anew after a while."""

    def __init__(self, redis: Any, settings: Settings) -> None:
        self._redis = redis
        self._settings = settings
        self._read_at = float("-inf")
        self._usuals: Usuals = {}

    async def announced(self, drafts: Sequence[Draft], since: int) -> list[bytes]:
        """The alerts of a commit; what happened up to `since` (µs) was told before it, and previews tell nobody."""
        untold = [each for each in drafts if parse_instant(each.alert.at, "alert.at") > since]
        if self._settings.lanes.preview or not untold:
            return []
        usuals = await self._usual_stays() if any(each.pipelines for each in untold) else {}
        return [encode(finished(each, usuals)) for each in untold]

    async def _usual_stays(self) -> Usuals:
        """Those of a moment ago."""
        now = time.perf_counter()
        if now - self._read_at > USUAL_SECONDS:
            self._usuals = usuals_of(await read_counts(self._redis, self._settings, [LEFT]))
            self._read_at = now
        return self._usuals


async def alerts_in(settings: Settings, partition: int, alerts: Set[bytes]) -> Set[bytes]:
    """Those of these alerts that are in the topic, where they would be among the last."""
    if not alerts:
        return alerts
    consumer = AIOKafkaConsumer(**kafka_options(settings), auto_offset_reset="earliest")
    await consumer.start()
    try:
        place = TopicPartition(full_name(settings, ALERTS), partition)
        consumer.assign([place])
        end = (await consumer.end_offsets([place]))[place]
        consumer.seek(place, max(end - len(alerts) - LOOKED_BACK, 0))
        found: set[bytes] = set()
        while await consumer.position(place) < end:
            polled = await consumer.getmany(place, timeout_ms=200)
            found.update(record.value for record in polled.get(place, ()))
        return found & alerts
    finally:
        await consumer.stop()
