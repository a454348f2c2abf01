"""What Redis tells of the workers and deliverers, in the text format of Prometheus; read when it is asked for.

touchline_workers                                live workers
touchline_lane_facts_total{lane}                 facts read into the totals since the last rebuild
touchline_lane_outbox{lane}                      messages committed and not yet known to be in Kafka
touchline_lane_partitions{lane}                  partitions that live workers have
touchline_worker_refused_total{worker,lane}      facts refused since the worker began
touchline_worker_retries_total{worker,lane}      times it waited for a server that was away
touchline_worker_step_seconds_total{worker,lane}, touchline_worker_commit_seconds_total{worker,lane}
touchline_alerts_waiting{destination}            alerts on their way to a destination
touchline_destination_off{destination}           1 while it is turned off

How far the lanes lag is told by Kafka's consumer groups `touchline-<lane>`.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric

from models.lanes import LANES
from models.settings import Settings
from streams import standing
from streams.delivery_tables import DeliveryTables, Waiting
from streams.standing import Standing

Beats = dict[str, dict[str, Any]]
_WORKER_LABELS = ("worker", "lane")
_COUNTERS = ("refused", "retries", "step_seconds", "commit_seconds")


async def lane_metrics(redis: Any, settings: Settings) -> bytes:
    """All of them; a rest of Redis's own errors is the caller's."""
    now = await standing.read_standing(redis, settings)
    beats = await standing.workers(redis)
    tables = DeliveryTables(redis, settings.delivery.timeout_seconds)
    waiting = await tables.waiting(settings.destinations)
    return _text([*_of_lanes(now, beats), *_of_workers(beats), *_of_destinations(waiting)])


def _text(families: list[Metric]) -> bytes:
    class Families:
        def collect(self) -> Iterable[Metric]:
            return families

    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families())
    return generate_latest(registry)


def _of_lanes(now: Standing, beats: Beats) -> Iterator[Metric]:
    facts = CounterMetricFamily("touchline_lane_facts", "Facts read into the totals", labels=["lane"])
    outbox = GaugeMetricFamily("touchline_lane_outbox", "Messages to publish", labels=["lane"])
    owned = GaugeMetricFamily("touchline_lane_partitions", "Partitions that workers have", labels=["lane"])
    for name, lane in LANES.items():
        books = [book for (of, _), book in now.books.items() if of == name]
        facts.add_metric([name], sum(book.offsets.get(topic, 0) for book in books for topic in lane.topics))
        outbox.add_metric([name], sum(count for (of, _), count in now.outboxes.items() if of == name))
        owned.add_metric([name], sum(len(beat["lanes"][name]["partitions"]) for beat in beats.values()))
    yield from (facts, outbox, owned)


def _of_workers(beats: Beats) -> Iterator[Metric]:
    yield GaugeMetricFamily("touchline_workers", "Live workers", value=len(beats))
    for counter in _COUNTERS:
        family = CounterMetricFamily(
            f"touchline_worker_{counter}", f"Since it began: {counter}", labels=["worker", "lane"]
        )
        for beat in beats.values():
            for lane, counters in beat["lanes"].items():
                family.add_metric([beat["instance"], lane], counters[counter])
        yield family


def _of_destinations(waiting: Iterable[Waiting]) -> Iterator[Metric]:
    alerts = GaugeMetricFamily("touchline_alerts_waiting", "Alerts on their way", labels=["destination"])
    off = GaugeMetricFamily("touchline_destination_off", "Turned off", labels=["destination"])
    for each in waiting:
        alerts.add_metric([each.destination], each.alerts)
        off.add_metric([each.destination], int(each.off is not None))
    yield from (alerts, off)
