"""What the web role counts of itself, in the text format of Prometheus.

touchline_http_requests_total{route,status}     answers given
touchline_collector_messages_total{topic}       messages by where they went: a topic, or `unused`
touchline_collector_produce_seconds             from a parsed request to Kafka's acknowledgement
touchline_collector_held_bytes                  not yet acknowledged by Kafka
touchline_live_streams                          live pages open
"""

from collections.abc import Callable
from functools import lru_cache

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)

disable_created_metrics()  # type: ignore[no-untyped-call]  # a line more for each counter, which nobody reads

_LATENCY_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 8.0)


class Metrics:
    """The counters of one web process."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        self._requests = Counter(
            "touchline_http_requests_total", "Answers given", ("route", "status"), registry=self._registry
        )
        self._messages = Counter(
            "touchline_collector_messages_total", "Messages by destination", ("topic",), registry=self._registry
        )
        self._produce = Histogram(
            "touchline_collector_produce_seconds",
            "From parsed request to acknowledgement",
            buckets=_LATENCY_SECONDS,
            registry=self._registry,
        )
        self._request = lru_cache(maxsize=1024)(self._requests.labels)
        self._message = lru_cache(maxsize=64)(self._messages.labels)
        self.observe_produce_seconds: Callable[[float], None] = self._produce.observe

    def count_request(self, route: str, status: int) -> None:
        """One answer; `route` is a pattern, never a path with ids in it."""
        self._request(route, str(status)).inc()

    def count_message(self, topic: str) -> None:
        """One message and where it went."""
        self._message(topic).inc()

    def watch(self, name: str, meaning: str, value: Callable[[], float]) -> None:
        """A gauge that is read when it is asked for."""
        Gauge(name, meaning, registry=self._registry).set_function(value)

    def render(self) -> bytes:
        """All of them, as Prometheus reads them."""
        return generate_latest(self._registry)
