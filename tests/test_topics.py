"""The topics on a real broker."""

import pytest
from aiokafka import AIOKafkaProducer
from msgspec.structs import replace

from models.errors import BadInput, Unavailable
from models.facts import TOUCHES
from models.settings import Kafka, Settings
from streams.config import kafka_options
from streams.topics import ALL, create_topics, full_name, list_topics


async def test_topics_are_made_once_and_all_listed(settings: Settings) -> None:
    await create_topics(settings)
    await create_topics(settings)
    async with AIOKafkaProducer(**kafka_options(settings)) as producer:
        await producer.send_and_wait(full_name(settings, TOUCHES), b"{}")

    rows = await list_topics(settings)
    assert [row.topic for row in rows] == [full_name(settings, topic) for topic in ALL]
    assert {row.partitions for row in rows} == {settings.partitions}
    assert {row.topic: row.records for row in rows if row.records} == {full_name(settings, TOUCHES): 1}


async def test_topics_with_another_number_of_partitions_are_refused(settings: Settings) -> None:
    await create_topics(settings)

    with pytest.raises(BadInput, match=r"page-views: expected 3 partitions.*got 8 partitions"):
        await create_topics(replace(settings, partitions=3))


async def test_missing_topics_are_listed_as_missing(settings: Settings) -> None:
    assert {(row.partitions, row.records) for row in await list_topics(settings)} == {(None, None)}


async def test_kafka_that_is_away_is_unavailable() -> None:
    with pytest.raises(Unavailable, match=r"127\.0\.0\.1:1\b"):
        await create_topics(Settings(kafka=Kafka(bootstrap="127.0.0.1:1")))
