"""`touchline deliver`: the Faust agent that takes alerts, and the couriers that carry them out.

    alerts ─ agent ─▶ parcels ─ one step ─▶ queues in Redis ─ couriers ─▶ webhooks, Slack, mail, Alertmanager
                                               └─ log ─ publisher ─▶ deliveries, dead-letters

The agent acknowledges an alert only once it stands in the queues of all its destinations; from
then on Redis has it. It is a process of its own, so that nothing a receiver does is felt by the
lanes, and only it needs the way out and the secrets. Any number may run.
"""

import asyncio
import logging
import os
from typing import Any

import faust
from mode import Service

from models.alerts import decode_alert
from models.dispatch import entry
from models.errors import BadInput
from models.lanes import Record as Refused
from models.lanes import Refusal
from models.money import Rates
from models.posting import Parcel, Source, is_forgotten, month_of, parcels
from models.settings import Settings
from streams import config, hosting, logs
from streams.couriers import Couriers, now
from streams.dead_letters import dead_letter
from streams.delivery_tables import DeliveryTables, Record
from streams.reaching import AWAY, until_it_works, until_reached
from streams.topics import ALERTS, DEAD_LETTERS, DELIVERIES, MAX_LETTER_BYTES, create_topics, full_name

AGENT_FAILED = 70
PUBLISH_SECONDS = 0.1

log = logging.getLogger(__name__)


class Desk:
    """Where alerts come in: decides about each and puts it into the queues."""

    def __init__(self, settings: Settings, tables: DeliveryTables, couriers: Couriers) -> None:
        self._settings = settings
        self._tables = tables
        self._couriers = couriers
        self._rates = Rates(settings.currency, settings.rates)

    async def take(self, source: Source) -> None:
        """Put an alert into the queues of its destinations; one that is none becomes a dead letter."""
        try:
            alert = decode_alert(source.value)
        except BadInput as error:
            refusal = _refusal(source, error)
            return await until_it_works(lambda: self._tables.note([refusal]))
        if is_forgotten(alert, now()):
            return log.warning("alert %s of %s is too old to tell whether it was sent", alert.alert_id, alert.at)
        found = parcels(alert, source, self._settings, self._rates, now())
        held = [await self._held(parcel) for parcel in found if parcel.item.matched]
        log_of = [record for record in held if record]
        await until_it_works(lambda: self._tables.enqueue(alert.alert_id, month_of(alert), found, log_of))
        for parcel in found:
            self._couriers.wake(parcel.destination)
        return None

    async def _held(self, parcel: Parcel) -> Record | None:
        """What is said of an item that has to wait from the beginning."""
        item, at = parcel.item, now()
        if await until_it_works(lambda: self._tables.off(parcel.destination)):
            value = entry(item, parcel.destination, "off", at)
        elif parcel.due > at:
            value = entry(item, parcel.destination, "held", at, next_at=parcel.due)
        else:
            return None
        return Record(DELIVERIES, item.alert_id.encode(), value)


class Publisher(Service):
    """Brings the log of deliveries from Redis into Kafka, in order, each at least once."""

    def __init__(self, tables: DeliveryTables, topics: dict[str, Any], **options: Any) -> None:
        super().__init__(**options)
        self._tables = tables
        self._topics = topics

    @Service.task
    async def _publish(self) -> None:
        while not self.should_stop:
            try:
                more = await self._publish_some()
            except AWAY as error:
                log.warning("the log of deliveries waits: %s", error)
                more = False
            if not more:
                await self.sleep(PUBLISH_SECONDS)

    async def _publish_some(self) -> bool:
        token, records = await self._tables.unpublished()
        if not records:
            return False
        sent = [await self._topics[topic].send(key=key, value=value) for topic, key, value in records]
        await asyncio.gather(*sent)
        await self._tables.published(token, len(records))
        return True


def create_app(settings: Settings) -> faust.App:
    """The Faust app: an agent on `alerts`, couriers and publisher as its services."""
    app = faust.App(f"{settings.topic_prefix}touchline-deliver", **_options(settings))
    tables = DeliveryTables(config.redis_client(settings), settings.delivery.timeout_seconds)
    alerts, *others = (_topic(app, full_name(settings, topic)) for topic in (ALERTS, DELIVERIES, DEAD_LETTERS))
    couriers = Couriers(settings, tables)
    desk = Desk(settings, tables, couriers)

    @app.service
    class HostedCouriers(Service):
        def on_init_dependencies(self) -> Any:
            return [couriers, Publisher(tables, dict(zip((DELIVERIES, DEAD_LETTERS), others, strict=True)))]

    @app.agent(alerts, name="deliver")
    async def deliver(stream: Any) -> None:
        """Acknowledge an alert when it is in the queues: Faust alone would also do so when it is cancelled."""
        async for event in stream.noack().events():
            await _or_end(desk.take(_source(event.message)))
            event.ack()

    return app


def _topic(app: faust.App, name: str) -> Any:
    return app.topic(name, key_type=bytes, value_type=bytes, key_serializer="raw", value_serializer="raw")


async def _or_end(work: Any) -> None:
    """A bug ends the process rather than pass over an alert."""
    try:
        await work
    except Exception:
        log.critical("an alert could not be taken", exc_info=True)
        os._exit(AGENT_FAILED)


def _source(message: Any) -> Source:
    headers = message.headers.items() if isinstance(message.headers, dict) else message.headers or ()
    told = tuple((name, value.decode(errors="replace")) for name, value in headers if value is not None)
    return Source(message.value or b"", message.partition, message.offset, round(message.timestamp * 1_000_000), told)


def _refusal(source: Source, error: BadInput) -> Record:
    refused = Refused(ALERTS, source.partition, source.offset, source.recorded_at, source.value)
    return Record(DEAD_LETTERS, b"", dead_letter(Refusal(refused, error), "deliver"))


def _options(settings: Settings) -> dict[str, Any]:
    """Kafka as the lanes see it; a process that is gone is replaced as soon as a worker would be."""
    timeout = settings.kafka.session_timeout_seconds
    return {
        "broker": f"kafka://{settings.kafka.bootstrap.replace(',', ';kafka://').replace(' ', '')}",
        "broker_credentials": _credentials(settings),
        "broker_session_timeout": timeout,
        "broker_heartbeat_interval": timeout / 4,
        "broker_commit_interval": 1.0,
        "consumer_auto_offset_reset": "earliest",
        "producer_max_request_size": MAX_LETTER_BYTES,
        "topic_allow_declare": False,
        "topic_disable_leader": True,
        "web_enabled": False,
    }


def _credentials(settings: Settings) -> Any:
    options = config.kafka_options(settings)
    context = options.get("ssl_context")
    if "sasl_mechanism" in options:
        return faust.SASLCredentials(
            username=settings.kafka.sasl_username,
            password=settings.kafka.sasl_password,
            ssl_context=context,
            mechanism=settings.kafka.sasl_mechanism,
        )
    return faust.SSLCredentials(context=context) if context else None


async def _prepare(settings: Settings) -> None:
    """Return once both servers answer, and Kafka has the topics. Raises BadInput when settings keep us out."""
    await until_reached(settings)
    await until_it_works(lambda: create_topics(settings))


def run(settings: Settings) -> None:
    """Deliver until told to stop (SIGINT, SIGTERM)."""
    logs.set_up(settings)
    asyncio.run(_prepare(settings))
    to = ", ".join(settings.destinations) or "nobody: the settings have no destinations"
    log.info("alerts of Kafka at %s, by way of Redis at %s, go to %s", *config.addresses(settings), to)
    hosting.run(create_app(settings))
