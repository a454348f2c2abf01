"""The topics: what they are called, made like, and what is in them.

Facts come in from outside and are kept for ever: they are what `audit` and `rebuild`
compute from. Internal topics carry what one lane reports to the next; a lane that was
away for longer than their retention needs `touchline rebuild`. Changes are for other systems
and for our own deliveries: alerts, and what became of them.
"""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import TopicAlreadyExistsError, for_code

from models.errors import BadInput, Unavailable
from models.facts import FACT_TOPICS
from models.lanes import LANES
from models.settings import Settings
from streams import kafka_clients

DEAD_LETTERS = "dead-letters"
ALERTS = "alerts"
DELIVERIES = "deliveries"
SETTINGS = "settings"
CHANGES = (ALERTS, DELIVERIES, SETTINGS)
OUTSIDE = FACT_TOPICS
INTERNAL = tuple(lane.internal for lane in LANES.values())
ALL = (*OUTSIDE, DEAD_LETTERS, *INTERNAL, *CHANGES)

MAX_MESSAGE_BYTES = 16 * 1024 * 1024
MAX_LETTER_BYTES = 64 * 1024 * 1024
"""A dead letter holds the whole refused record, as text or base64, and more."""
FOR_EVER = -1
INTERNAL_RETENTION_MS = 30 * 24 * 3600 * 1000
VISIBLE_SECONDS = 30.0


Kind = Literal["facts", "dead letters", "internal", "changes"]


class TopicRow(msgspec.Struct, frozen=True):
    """One line of `touchline topics`; `records` are those Kafka still keeps, None when the topic is missing."""

    topic: str
    kind: Kind
    partitions: int | None
    records: int | None


def full_name(settings: Settings, topic: str) -> str:
    """The topic's name in Kafka: ours behind the operator's prefix.

    Each version of the rules has internal topics of its own, the version's name behind.
    """
    version = settings.lanes.version if topic in INTERNAL else ""
    return f"{settings.topic_prefix}{topic}{'.' if version else ''}{version}"


def kind(topic: str) -> Kind:
    """Which kind a topic of ours is."""
    if topic in INTERNAL:
        return "internal"
    if topic in CHANGES:
        return "changes"
    return "dead letters" if topic == DEAD_LETTERS else "facts"


async def create_topics(settings: Settings) -> None:
    """Make the topics that are missing, and return once all can be written to; repeatable.

    Raises BadInput when one exists with another number of partitions than the settings
    say, Unavailable when Kafka is away or refuses.
    """
    async with kafka_clients.admin(settings) as kafka:
        known = await _partitions(kafka)
        missing = [_new(settings, topic) for topic in ALL if full_name(settings, topic) not in known]
        await _make(kafka, missing)
        await _until_led(kafka, settings)
        partitions = await _partitions(kafka)
        _check_partitions(settings, partitions)
    if missing:  # a broker names a leader a moment before that leader serves
        await _records(settings, partitions)


async def list_topics(settings: Settings) -> list[TopicRow]:
    """Every topic of ours, in the order of `ALL`, with what is in it."""
    async with kafka_clients.admin(settings) as kafka:
        partitions = await _partitions(kafka)
    records = await _records(settings, partitions)
    return [
        TopicRow(name, kind(topic), partitions.get(name), records.get(name))
        for topic in ALL
        for name in [full_name(settings, topic)]
    ]


def _new(settings: Settings, topic: str) -> NewTopic:
    retention = INTERNAL_RETENTION_MS if topic in INTERNAL else FOR_EVER
    return NewTopic(
        name=full_name(settings, topic),
        num_partitions=settings.partitions,
        replication_factor=settings.kafka.replication_factor,
        topic_configs={
            "max.message.bytes": str(MAX_LETTER_BYTES if topic == DEAD_LETTERS else MAX_MESSAGE_BYTES),
            "retention.ms": str(retention),
            "cleanup.policy": "delete",
        },
    )


async def _make(kafka: AIOKafkaAdminClient, wanted: list[NewTopic]) -> None:
    """Create topics; one that somebody else has just created is as good."""
    if not wanted:
        return
    answer = await kafka.create_topics(wanted)
    for name, code, *message in answer.topic_errors:
        error = for_code(code)
        if code and error is not TopicAlreadyExistsError:
            raise Unavailable(f"Kafka did not create topic {name}: {error.__name__} {' '.join(map(str, message))}")


async def _partitions(kafka: AIOKafkaAdminClient) -> dict[str, int]:
    """How many partitions every topic in Kafka has that can be written to now."""
    return {
        topic["topic"]: len(topic["partitions"])
        for topic in await kafka.describe_topics()
        if topic["partitions"] and all(part["leader"] >= 0 for part in topic["partitions"])
    }


async def _until_led(kafka: AIOKafkaAdminClient, settings: Settings) -> None:
    """Return once every topic's every partition has a leader."""
    wanted = {full_name(settings, topic) for topic in ALL}
    give_up = time.monotonic() + VISIBLE_SECONDS
    while missing := wanted - (await _partitions(kafka)).keys():
        if time.monotonic() > give_up:
            raise Unavailable(f"Kafka has no leader yet for {', '.join(sorted(missing))}")
        await asyncio.sleep(0.05)


def _check_partitions(settings: Settings, partitions: Mapping[str, int]) -> None:
    for topic in ALL:
        got = partitions[full_name(settings, topic)]
        if got != settings.partitions:
            raise BadInput(
                f"topic {full_name(settings, topic)}",
                f"{settings.partitions} partitions as in the settings (all topics need the same number)",
                f"{got} partitions",
            )


async def _records(settings: Settings, partitions: Mapping[str, int]) -> dict[str, int]:
    """How many records Kafka keeps of each of our topics that exist."""
    ours = {full_name(settings, topic) for topic in ALL} & partitions.keys()
    parts = [TopicPartition(name, part) for name in ours for part in range(partitions[name])]
    if not parts:
        return {}
    async with kafka_clients.consumer(settings) as consumer:
        first: dict[Any, int] = await consumer.beginning_offsets(parts)
        last: dict[Any, int] = await consumer.end_offsets(parts)
    return {name: sum(last[part] - first[part] for part in parts if part.topic == name) for name in ours}
