"""Kafka clients of nobody's group, for as long as they are needed; Kafka's own errors leave as Unavailable."""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, suppress
from typing import Any

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import KafkaError

from models.errors import Unavailable
from models.settings import Settings
from streams.config import kafka_options


def consumer(settings: Settings, **options: Any) -> AbstractAsyncContextManager[AIOKafkaConsumer]:
    """A connected consumer, without any partition yet."""
    client = AIOKafkaConsumer(**kafka_options(settings), enable_auto_commit=False, **options)
    return _connected(settings, client, client.stop)


def producer(settings: Settings, **options: Any) -> AbstractAsyncContextManager[AIOKafkaProducer]:
    """A connected producer; what it was sent is in Kafka at the end."""
    client = AIOKafkaProducer(**kafka_options(settings), **options)
    return _connected(settings, client, client.stop)


def admin(settings: Settings) -> AbstractAsyncContextManager[AIOKafkaAdminClient]:
    """A connected admin client."""
    client = AIOKafkaAdminClient(**kafka_options(settings))
    return _connected(settings, client, client.close)


@asynccontextmanager
async def _connected(settings: Settings, client: Any, stop: Any) -> AsyncIterator[Any]:
    try:
        await client.start()
        yield client
    except KafkaError as error:
        raise Unavailable(f"Kafka at {settings.kafka.bootstrap}: {error}") from error
    finally:
        with suppress(KafkaError):
            await stop()
