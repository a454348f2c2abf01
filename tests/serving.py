"""The web role as tests run it: real uvicorn on a free port, in the test's own loop."""

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import httpx
from aiokafka import AIOKafkaConsumer, TopicPartition
from msgspec.structs import replace

from models.settings import Kafka, Redis, Settings
from streams import config, embedded, topics, web

KEY = "site-key"


def own_settings(kafka: embedded.Server, redis: embedded.Server) -> Settings:
    """Settings with topics of their own."""
    return Settings(
        kafka=Kafka(bootstrap=kafka.address),
        redis=Redis(url=redis.address),
        partitions=2,
        topic_prefix=f"test-{uuid.uuid4().hex[:8]}-",
    )


@asynccontextmanager
async def served(settings: Settings) -> AsyncIterator[httpx.AsyncClient]:
    """A client of a web role that serves these settings, for the length of a block."""
    loop = asyncio.get_running_loop()
    address: asyncio.Future[str] = loop.create_future()
    settings = replace(settings, web=replace(settings.web, write_keys=(KEY,)))
    serving = asyncio.create_task(web.serve(settings, on_ready=address.set_result))
    await asyncio.wait([serving, address], return_when=asyncio.FIRST_COMPLETED)
    if serving.done():
        serving.result()
    try:
        async with httpx.AsyncClient(base_url=address.result(), trust_env=False, timeout=20) as client:
            yield client
    finally:
        serving.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await serving


async def records(settings: Settings, topic: str) -> list[tuple[str | None, bytes]]:
    """Key and value of every record in a topic, partition by partition."""
    name = topics.full_name(settings, topic)
    parts = [TopicPartition(name, part) for part in range(settings.partitions)]
    async with AIOKafkaConsumer(**config.kafka_options(settings), auto_offset_reset="earliest") as consumer:
        consumer.assign(parts)
        ends = await consumer.end_offsets(parts)
        found: list[tuple[str | None, bytes]] = []
        while len(found) < sum(ends.values()):
            for batch in (await consumer.getmany(timeout_ms=100)).values():
                found += [(record.key and record.key.decode(), record.value) for record in batch]
    return found
