"""`touchline alerts`: test a destination, see what waits, turn one on again."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import click
import msgspec
from aiokafka import TopicPartition

from models.alerts import sample_alert
from models.destinations import kind_of
from models.errors import NotFound, TouchlineError, Unavailable
from models.posting import headers_of_test, receivers_of_test
from models.settings import Settings
from models.times import to_text
from streams import config, kafka_clients
from streams.commands import Group, in_style, on_tables, quiet_clients, within
from streams.printing import Style, show
from streams.topics import ALERTS, DELIVERIES, full_name

if TYPE_CHECKING:
    from streams.delivery_tables import DeliveryTables

TEST_SECONDS = 20.0


@click.group(cls=Group)
def alerts() -> None:
    """Test destinations, see what waits, turn one on again."""


@alerts.command()
@click.option("--route", help="Test the destinations of this route.")
@click.option("--to", "destination", help="Test this destination.")
@within(TEST_SECONDS)
@in_style
def test(route: str | None, destination: str | None, timeout: float, style: Style) -> None:
    """Send a test alert through, and say what came of it.

    It goes the way of every alert, marked as a test, at once (no quiet hours, no digest); without
    options to the destinations of every route. Exit code 1 if one did not take it.
    """
    if route is not None and destination is not None:
        raise click.UsageError("--route and --to exclude each other")
    quiet_clients()
    rows = asyncio.run(_tested(config.load(), route, destination, timeout))
    show(rows, style)
    if any(row["outcome"] != "delivered" for row in rows):
        raise SystemExit(1)


@alerts.command(name="destinations")
@in_style
def destinations(style: Style) -> None:
    """List the destinations: what waits for each, and whether it is off."""
    columns = ("destination", "kind", "routes", "waiting", "next_at", "off")
    show(on_tables(_destinations), style, columns, nothing="(none: the settings have no destinations)")


@alerts.command(name="on")
@click.argument("destination")
def turn_on(destination: str) -> None:
    """Turn a destination on again that was turned off because it answered 410."""

    async def turned(redis: Any, settings: Settings) -> bool:
        if destination not in settings.destinations:
            raise NotFound(f"no destination is called {destination}")
        return await _tables(redis, settings).turn_on(destination, time.time_ns() // 1000)

    click.echo("It is on again." if on_tables(turned) else "It was not off.")


async def _destinations(redis: Any, settings: Settings) -> list[dict[str, Any]]:
    rows = []
    for waiting in await _tables(redis, settings).waiting(settings.destinations):
        name = waiting.destination
        rows.append(
            {
                "destination": name,
                "kind": kind_of(settings.destinations[name]),
                "routes": [route.name for route in settings.routes if name in route.to],
                "waiting": waiting.alerts,
                "next_at": to_text(waiting.next_at) if waiting.next_at and waiting.alerts else None,
                "off": waiting.off and f"since {waiting.off['since']}: {waiting.off['why']}",
            }
        )
    return rows


def _tables(redis: Any, settings: Settings) -> "DeliveryTables":
    from streams.delivery_tables import DeliveryTables

    return DeliveryTables(redis, settings.delivery.timeout_seconds)


# --- a test -----------------------------------------------------------------------------


async def _tested(settings: Settings, route: str | None, destination: str | None, seconds: float) -> list[Any]:
    """The first thing that came of a test alert at each of its destinations."""
    wanted = receivers_of_test(settings, route, destination)
    if not wanted:
        raise TouchlineError("the settings have no routes to test")
    id = f"al_{uuid.uuid4().hex}"
    async with _following(settings) as entries:
        await _produce(settings, id, headers_of_test(settings, route, destination))
        found: dict[str, Mapping[str, Any]] = {}
        try:
            async with asyncio.timeout(seconds):
                async for entry in entries:
                    if entry["alertId"] == id:
                        found.setdefault(entry["destination"], entry)
                    if found.keys() >= wanted.keys():
                        break
        except TimeoutError:
            pass
    if not found:
        raise Unavailable(f"no `touchline deliver` took the alert within {seconds:g} s")
    return [_row(name, route, found.get(name)) for name, route in wanted.items()]


def _row(destination: str, route: str | None, entry: Mapping[str, Any] | None) -> dict[str, Any]:
    entry = entry or {"outcome": "none yet"}
    told = {name: entry.get(name) for name in ("outcome", "status", "error")}
    return {"destination": destination, "route": route, **told, "next_at": entry.get("nextAt")}


async def _produce(settings: Settings, id: str, headers: list[tuple[str, str]]) -> None:
    alert = sample_alert(id, to_text(time.time_ns() // 1000))
    async with kafka_clients.producer(settings) as producer:
        await producer.send_and_wait(
            full_name(settings, ALERTS),
            key=alert.account.id.encode(),
            value=msgspec.json.encode(alert),
            headers=[(name, value.encode()) for name, value in headers],
        )


@asynccontextmanager
async def _following(settings: Settings) -> AsyncIterator[AsyncIterator[Mapping[str, Any]]]:
    """What is written into `deliveries` from now on."""
    name = full_name(settings, DELIVERIES)
    async with kafka_clients.consumer(settings) as consumer:
        parts = [TopicPartition(name, part) for part in range(settings.partitions)]
        consumer.assign(parts)
        for part, end in (await consumer.end_offsets(parts)).items():
            consumer.seek(part, end)
        yield _decoded(consumer)


async def _decoded(consumer: Any) -> AsyncIterator[Mapping[str, Any]]:
    async for record in consumer:
        yield msgspec.json.decode(record.value)
